//! The o200k vocabulary and byte-pair encoding with it, as in `tiktoken`, made for counting: compact in memory,
//! nothing allocated for a word that is a token, time bounded by the length of the text.
//!
//! Text is split into words by the vocabulary's own pattern. A word that is no token itself is merged from bytes,
//! always the pair first whose union has the lowest id. Merging takes time by the square of a word's length, so longer
//! words than [`WORD_BYTES`] are merged in pieces, which may count a token or two too many for each piece.

use std::sync::LazyLock;

use regex_automata::meta::Regex;
use regex_automata::{Anchored, Input};

/// Ordinary tokens; `build.rs` packs as many.
const TOKENS: usize = 199_998;

/// One length byte for each token, then all tokens, by id.
static PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/o200k.bin"));

/// The words of the vocabulary. The original ends with `|\s+(?!\S)|\s+`, a look-ahead that [`end_of_word`] replaces.
const WORD: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"|\s*[\r\n]+",
    r"|\s+",
);

/// Longest word that is merged as a whole.
const WORD_BYTES: usize = 256;

/// Slots of the table of tokens: a power of two, less than half of them used.
const SLOT_BITS: u32 = 19;

const EMPTY: u32 = u32::MAX;

/// A pair that is no token comes last.
const NO_TOKEN: u32 = u32::MAX;

static VOCABULARY: LazyLock<Vocabulary> = LazyLock::new(Vocabulary::unpack);

/// The loaded vocabulary. The first call loads it, in some milliseconds.
pub(super) fn vocabulary() -> &'static Vocabulary {
    &VOCABULARY
}

/// Tokens by their bytes.
pub(super) struct Vocabulary {
    /// Where each token starts in `bytes`, and where the last one ends.
    starts: Vec<u32>,
    bytes: &'static [u8],
    /// Open addressing: ids, at or after the slot of their hash.
    slots: Vec<u32>,
    word: Regex,
}

/// The parts of one word while it is merged: where each begins, and the id of its union with the next.
#[derive(Default)]
pub(super) struct Parts(Vec<(u32, u32)>);

impl Vocabulary {
    fn unpack() -> Self {
        let (lengths, bytes) = PACKED.split_at(TOKENS);
        let mut starts = Vec::with_capacity(TOKENS + 1);
        let mut end = 0;
        starts.push(end);
        for length in lengths {
            end += u32::from(*length);
            starts.push(end);
        }
        let word = Regex::new(WORD).expect("the pattern is valid");
        let mut vocabulary = Self {
            starts,
            bytes,
            slots: vec![EMPTY; 1 << SLOT_BITS],
            word,
        };
        for id in 0..TOKENS as u32 {
            let mut slot = slot_of(vocabulary.token(id));
            while vocabulary.slots[slot] != EMPTY {
                slot = next_slot(slot);
            }
            vocabulary.slots[slot] = id;
        }
        vocabulary
    }

    fn token(&self, id: u32) -> &'static [u8] {
        let id = id as usize;
        &self.bytes[self.starts[id] as usize..self.starts[id + 1] as usize]
    }

    /// The id of the token that consists of exactly these bytes; `NO_TOKEN` when there is none.
    fn id_of(&self, bytes: &[u8]) -> u32 {
        let mut slot = slot_of(bytes);
        loop {
            let id = self.slots[slot];
            if id == EMPTY || self.token(id) == bytes {
                return id;
            }
            slot = next_slot(slot);
        }
    }

    /// The words of `text`: every byte belongs to one.
    pub(super) fn words<'t>(&'t self, text: &'t str) -> impl Iterator<Item = &'t str> {
        let mut start = 0;
        std::iter::from_fn(move || {
            if start == text.len() {
                return None;
            }
            let end = self.end_of_word(text, start);
            let word = &text[start..end];
            start = end;
            Some(word)
        })
    }

    /// Where the word that starts at `start` ends.
    fn end_of_word(&self, text: &str, start: usize) -> usize {
        if let Some(end) = end_of_plain_word(text.as_bytes(), start) {
            return end;
        }
        let input = Input::new(text).range(start..).anchored(Anchored::Yes);
        let Some(found) = self.word.search_half(&input) else {
            unreachable!("letters, digits, spaces and everything else begin a word each")
        };
        let end = found.offset();
        if end < text.len()
            && let Some(last) = text[start..end].chars().next_back()
            && last.is_whitespace()
            && !matches!(last, '\r' | '\n')
        {
            // Only the last alternative ends so: spaces before a word, of which the last one belongs to that word,
            // unless it is the only one.
            let before_last = end - last.len_utf8();
            return if before_last > start { before_last } else { end };
        }
        end
    }

    /// How many tokens `word` has.
    pub(super) fn count_word(&self, word: &str, parts: &mut Parts) -> usize {
        if self.id_of(word.as_bytes()) != NO_TOKEN {
            return 1;
        }
        pieces(word)
            .map(|piece| self.merge(piece.as_bytes(), parts))
            .sum()
    }

    /// Where each token of `word` ends.
    pub(super) fn ends_in_word(&self, word: &str, parts: &mut Parts) -> Vec<usize> {
        if self.id_of(word.as_bytes()) != NO_TOKEN {
            return vec![word.len()];
        }
        let (mut ends, mut piece_start) = (Vec::new(), 0);
        for piece in pieces(word) {
            self.merge(piece.as_bytes(), parts);
            ends.extend(
                parts.0[1..]
                    .iter()
                    .map(|(start, _)| piece_start + *start as usize),
            );
            piece_start += piece.len();
        }
        ends
    }

    /// Merges `bytes` into tokens; `parts` then holds where each starts, and the end. Returns how many.
    fn merge(&self, bytes: &[u8], parts: &mut Parts) -> usize {
        let parts = &mut parts.0;
        parts.clear();
        // The id of the union of the part at `index` and the next one.
        let union = |parts: &[(u32, u32)], index: usize| match (parts.get(index), parts.get(index + 2)) {
            (Some((start, _)), Some((end, _))) => self.id_of(&bytes[*start as usize..*end as usize]),
            _ => NO_TOKEN,
        };
        parts.extend((0..=bytes.len() as u32).map(|start| (start, NO_TOKEN)));
        for index in 0..bytes.len().saturating_sub(1) {
            parts[index].1 = union(parts, index);
        }
        // The end of `parts` is no part: it has no union.
        while let Some((index, (_, id))) = parts.iter().enumerate().min_by_key(|(_, (_, id))| *id)
            && *id != NO_TOKEN
        {
            parts.remove(index + 1);
            parts[index].1 = union(parts, index);
            if index > 0 {
                parts[index - 1].1 = union(parts, index - 1);
            }
        }
        parts.len() - 1
    }
}

/// Where the word at `start` ends if it is a plain one, as most are: perhaps a space, perhaps a capital, small
/// letters, and then nothing that could belong to it. Many times faster than the pattern.
fn end_of_plain_word(bytes: &[u8], start: usize) -> Option<usize> {
    let mut end = start;
    if bytes[end] == b' ' {
        end += 1;
    }
    if bytes.get(end).is_some_and(u8::is_ascii_uppercase) {
        end += 1;
    }
    let small = bytes[end..]
        .iter()
        .take_while(|byte| byte.is_ascii_lowercase())
        .count();
    end += small;
    let may_go_on = bytes
        .get(end)
        .is_some_and(|next| *next == b'\'' || !next.is_ascii());
    (small > 0 && !may_go_on).then_some(end)
}

/// Cuts a word into pieces that are merged by themselves, between characters.
fn pieces(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = word;
    std::iter::from_fn(move || {
        let (piece, next) = rest.split_at(rest.floor_char_boundary(WORD_BYTES));
        rest = next;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Where a token's search in the table begins.
fn slot_of(bytes: &[u8]) -> usize {
    const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut hash = bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = chunk
            .iter()
            .fold(0_u64, |word, byte| (word << 8) | u64::from(*byte));
        hash = (hash ^ word).wrapping_mul(MULTIPLIER).rotate_left(29);
    }
    let rest = chunks
        .remainder()
        .iter()
        .fold(0_u64, |word, byte| (word << 8) | u64::from(*byte));
    hash = (hash ^ rest).wrapping_mul(MULTIPLIER);
    hash ^= hash >> 32;
    (hash.wrapping_mul(MULTIPLIER) >> (64 - SLOT_BITS)) as usize
}

fn next_slot(slot: usize) -> usize {
    (slot + 1) & ((1 << SLOT_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tiktoken_rs::o200k_base_singleton;

    use super::*;

    fn tokens(text: &str) -> Vec<&str> {
        let vocabulary = vocabulary();
        let mut parts = Parts::default();
        let mut all = Vec::new();
        for word in vocabulary.words(text) {
            let mut start = 0;
            for end in vocabulary.ends_in_word(word, &mut parts) {
                all.push(word.get(start..end).unwrap_or("(half a character)"));
                start = end;
            }
        }
        all
    }

    fn count(text: &str) -> usize {
        let mut parts = Parts::default();
        vocabulary()
            .words(text)
            .map(|word| vocabulary().count_word(word, &mut parts))
            .sum()
    }

    #[test]
    fn every_token_is_found_by_its_bytes() {
        for id in 0..TOKENS as u32 {
            assert_eq!(vocabulary().id_of(vocabulary().token(id)), id);
        }
        assert_eq!(vocabulary().id_of("no such token".as_bytes()), NO_TOKEN);
    }

    #[test]
    fn a_sentence_is_cut_as_the_vocabularys_makers_cut_it() {
        assert_eq!(
            tokens("hello   world, it's 12345!\n\n ok"),
            [
                "hello", "  ", " world", ",", " it's", " ", "123", "45", "!\n\n", " ok"
            ]
        );
    }

    #[test]
    fn long_words_are_merged_in_pieces_and_counted_at_most_slightly_higher() {
        for unit in ["abcdefgh", "\u{0E01}\u{0E32}\u{0E23}", "=", "\u{1F600}", " ", "1"] {
            let text = unit.repeat(8000 / unit.len());
            let (ours, theirs) = (count(&text), o200k_base_singleton().count_ordinary(&text));
            assert!(
                (theirs..=theirs + text.len() / WORD_BYTES * 2).contains(&ours),
                "{unit:?}: {ours}, not {theirs}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn any_text_is_counted_as_tiktoken_counts_it(
            text in "(\\PC{0,12}|[ \t\r\n\u{a0}\u{3000}]{0,4}|[a-zA-Z']{1,12}| ?[A-Z]?[a-z]{1,8}\u{fc}?|[0-9]{1,7}|[!-/]{1,5}|[\u{0900}-\u{097F}]{1,8}|[\u{4E00}-\u{4FFF}]{1,8}){0,12}",
        ) {
            prop_assert_eq!(count(&text), o200k_base_singleton().count_ordinary(&text), "{:?}", text);
            prop_assert_eq!(vocabulary().words(&text).collect::<String>(), text);
        }
    }
}
