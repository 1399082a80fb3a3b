//! Counting tokens with the o200k vocabulary, that of current OpenAI models and close to that of others.
//!
//! Counts equal those of `tiktoken`, but for words of more than 256 bytes, which may count slightly higher. The
//! vocabulary is loaded at the first count.

use super::PromptMessage;
use super::vocabulary::{Parts, vocabulary};

/// Tokens that a chat format adds around each message. OpenAI's is 3 and a name; others are near.
pub const MESSAGE_OVERHEAD: usize = 4;

/// Tokens that a chat format adds once, to open the answer.
pub const PROMPT_OVERHEAD: usize = 3;

/// How many tokens `text` has.
pub fn count(text: &str) -> usize {
    if text.is_empty() {
        return 0;
    }
    let mut parts = Parts::default();
    vocabulary()
        .words(text)
        .map(|word| vocabulary().count_word(word, &mut parts))
        .sum()
}

/// How many tokens `text` has; none when it has more than `limit`. Ends the count there.
pub fn count_within(text: &str, limit: usize) -> Option<usize> {
    let mut parts = Parts::default();
    let mut counted = 0;
    for word in vocabulary().words(text) {
        counted += vocabulary().count_word(word, &mut parts);
        if counted > limit {
            return None;
        }
    }
    Some(counted)
}

/// Whether `text` has at most `limit` tokens. Does not count when its length alone says so.
pub fn fits(text: &str, limit: usize) -> bool {
    // A token has at least one byte.
    text.len() <= limit || count(text) <= limit
}

/// How many tokens a prompt of these messages has, with what the chat format adds.
pub fn count_prompt(messages: &[PromptMessage]) -> usize {
    messages
        .iter()
        .map(|message| count(&message.content) + MESSAGE_OVERHEAD)
        .sum::<usize>()
        + PROMPT_OVERHEAD
}

/// The longest beginning of `text` that has at most `limit` tokens, as the vocabulary cuts it; never half a character.
pub fn truncate(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let mut parts = Parts::default();
    let (mut end, mut left) = (0, limit);
    for word in vocabulary().words(text) {
        let tokens = vocabulary().count_word(word, &mut parts);
        if tokens > left {
            return shrink_to(&text[..end + beginning_of_word(word, left, &mut parts)], limit);
        }
        left -= tokens;
        end += word.len();
    }
    text
}

/// How many bytes of `word` its first `tokens` tokens make up.
fn beginning_of_word(word: &str, tokens: usize, parts: &mut Parts) -> usize {
    let ends = vocabulary().ends_in_word(word, parts);
    let bytes = if tokens == 0 { 0 } else { ends[tokens - 1] };
    word.floor_char_boundary(bytes)
}

/// Takes characters off the end until `text` fits: a word that is cut may be written with other tokens, and more.
fn shrink_to(mut text: &str, limit: usize) -> &str {
    while !fits(text, limit) {
        text = &text[..text.floor_char_boundary(text.len().saturating_sub(1))];
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::PromptRole;
    use super::*;

    #[test]
    fn known_texts_have_their_known_counts() {
        assert_eq!(count(""), 0);
        assert_eq!(count("hello world"), 2);
        assert_eq!(count("tiktoken is great!"), 6);
    }

    #[test]
    fn a_prompt_counts_what_the_chat_format_adds() {
        let message = PromptMessage {
            role: PromptRole::User,
            content: "hello world".to_owned(),
        };

        assert_eq!(
            count_prompt(&[message.clone(), message]),
            2 * (2 + MESSAGE_OVERHEAD) + PROMPT_OVERHEAD
        );
    }

    #[test]
    fn a_text_is_cut_between_tokens() {
        assert_eq!(truncate("hello world, how are you?", 2), "hello world");
        assert_eq!(truncate("hello world", 0), "");
        assert_eq!(truncate("hello world", 2), "hello world");
    }

    proptest! {
        #[test]
        fn a_truncated_text_is_a_beginning_within_the_limit(text in "(\\PC{0,12}| [a-z]{1,9}|\u{1F468}\u{200D}\u{1F469}){0,60}", limit in 0_usize..80) {
            let beginning = truncate(&text, limit);

            prop_assert!(text.starts_with(beginning));
            prop_assert!(count(beginning) <= limit);
            prop_assert_eq!(fits(&text, limit), beginning.len() == text.len());
        }
    }
}
