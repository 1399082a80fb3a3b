//! Counting tokens with the o200k vocabulary, that of current OpenAI models and close to that of others.
//!
//! The vocabulary takes some 40 MiB and is loaded at the first count. Text is counted in pieces of bounded length,
//! because the tokenizer's time and stack are not linear in long runs without spaces. Pieces are cut where the
//! tokenizer cuts anyway, before a space between words, so that the count is exact; only a run of more than
//! [`PIECE_BYTES`] without one is cut anywhere, which may count a token too many per cut.

use tiktoken_rs::{CoreBPE, o200k_base_singleton};

/// Tokens that a chat format adds around each message. OpenAI's is 3 and a name; others are near.
pub const MESSAGE_OVERHEAD: usize = 4;

/// Tokens that a chat format adds once, to open the answer.
pub const PROMPT_OVERHEAD: usize = 3;

/// Longest text given to the tokenizer at once.
const PIECE_BYTES: usize = 2048;

/// How many tokens `text` has.
pub fn count(text: &str) -> usize {
    if text.is_empty() {
        return 0;
    }
    let tokenizer = o200k_base_singleton();
    pieces(text).map(|piece| tokenizer.count_ordinary(piece)).sum()
}

/// Whether `text` has at most `limit` tokens. Does not count when its length alone says so.
pub fn fits(text: &str, limit: usize) -> bool {
    // A token has at least one byte.
    text.len() <= limit || count(text) <= limit
}

/// How many tokens a prompt of these messages has, with what the chat format adds.
pub fn count_prompt(messages: &[super::PromptMessage]) -> usize {
    messages.iter().map(|message| count(&message.content) + MESSAGE_OVERHEAD).sum::<usize>() + PROMPT_OVERHEAD
}

/// The longest beginning of `text` that has at most `limit` tokens, as the tokenizer cuts it; never half a character.
pub fn truncate(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let tokenizer = o200k_base_singleton();
    let (mut end, mut left) = (0, limit);
    for piece in pieces(text) {
        let tokens = tokenizer.encode_ordinary(piece);
        if tokens.len() > left {
            return &text[..end + beginning_of(tokenizer, piece, &tokens[..left])];
        }
        left -= tokens.len();
        end += piece.len();
    }
    text
}

/// Bytes of `piece` that `tokens`, its first tokens, make up, less what would be half a character or count as more.
fn beginning_of(tokenizer: &CoreBPE, piece: &str, tokens: &[u32]) -> usize {
    let mut bytes = tokenizer.decode_bytes(tokens).map_or(0, |bytes| bytes.len());
    loop {
        bytes = piece.floor_char_boundary(bytes);
        // A word that is cut may be written with other tokens, and more of them.
        if bytes == 0 || tokenizer.count_ordinary(&piece[..bytes]) <= tokens.len() {
            return bytes;
        }
        bytes -= 1;
    }
}

/// Cuts `text` into pieces of at most [`PIECE_BYTES`], each but the first beginning with a space where possible.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, next) = rest.split_at(cut(rest));
        rest = next;
        Some(piece)
    })
}

/// Where to cut `text`: before the last space between two words that leaves a piece short enough.
fn cut(text: &str) -> usize {
    if text.len() <= PIECE_BYTES {
        return text.len();
    }
    let bytes = text.as_bytes();
    let between_words = |at: &usize| bytes[*at] == b' ' && bytes[at - 1].is_ascii_alphanumeric() && bytes[at + 1].is_ascii_alphanumeric();
    (1..PIECE_BYTES).rev().find(between_words).unwrap_or_else(|| text.floor_char_boundary(PIECE_BYTES))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_texts_have_their_known_counts() {
        assert_eq!(count(""), 0);
        assert_eq!(count("hello world"), 2);
        assert_eq!(count("Wie lange darf ich die Ware zurückgeben?"), o200k_base_singleton().encode_ordinary("Wie lange darf ich die Ware zurückgeben?").len());
    }

    #[test]
    fn long_text_is_counted_exactly_where_it_has_spaces() {
        let text = "The quick brown fox, aged 12, jumps over the lazy dog.\n\nIt didn't stop.  Then it did! ".repeat(300);

        assert_eq!(count(&text), o200k_base_singleton().count_ordinary(&text));
    }

    #[test]
    fn a_hostile_run_without_spaces_is_counted_in_bounded_pieces() {
        for unit in ["a", "\u{1F600}", " ", "\n", "=", "\u{4E2D}", "1"] {
            let text = unit.repeat(400_000 / unit.len());
            assert!(pieces(&text).all(|piece| piece.len() <= PIECE_BYTES));
            let counted = count(&text);
            assert!(counted > 0 && counted <= text.len(), "{unit:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_are_the_text(text in "(\\PC{0,40}| [a-z]{1,900}){0,40}") {
            prop_assert_eq!(pieces(&text).collect::<String>(), text);
        }

        #[test]
        fn a_truncated_text_is_a_beginning_within_the_limit(text in "(\\PC{0,12}| [a-z]{1,9}|\u{1F468}\u{200D}\u{1F469}){0,60}", limit in 0_usize..80) {
            let beginning = truncate(&text, limit);

            prop_assert!(text.starts_with(beginning));
            prop_assert!(count(beginning) <= limit);
            prop_assert_eq!(fits(&text, limit), beginning.len() == text.len());
        }
    }
}
