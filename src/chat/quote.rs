//! Which sentence of a passage, or which row of a table, a citation quotes: the one that has most in common with what it is to support.

use std::collections::HashMap;

use retrieval::analysis::{Language, each_content_word};

use super::rows::{Statement, statements};
use super::sentences::{ContentWords, LABEL_WORDS, is_question, language_of, sentences};
use crate::knowledge::{HEADING_SEPARATOR, Passage};

/// Longest quote in characters.
pub(super) const MAX_QUOTE_CHARS: usize = 400;

/// The sentence of a passage, or the row of a table in it, that shares most content words with `claim`, then with `question`,
/// as byte offsets. Where none shares any, the first one that is more than a label. A question or a heading of the passage states
/// nothing, so that it is quoted only where nothing else is there.
pub(super) fn best_quote(passage: &Passage, claim: &str, question: &str) -> (usize, usize) {
    let text = passage.text.as_str();
    let heading = passage.heading.as_deref().unwrap_or_default();
    let is_heading = |sentence: &str| {
        let plain = sentence.trim_start_matches('#').trim();
        plain == heading || heading.split(HEADING_SEPARATOR).any(|part| part == plain)
    };
    let mut wanted = WantedWords::new(claim, question, language_of(text, question));
    let mut best = None;
    for (start, end) in quotable(passage) {
        let Shared {
            of_claim,
            of_question,
            is_label,
        } = wanted.shared_with(&text[start..end]);
        // Shorter sentences win among equals: they say it more plainly.
        let length = if of_claim + of_question > 0 {
            end - start
        } else {
            0
        };
        let sentence = &text[start..end];
        let rank = (
            !is_question(sentence) && !is_heading(sentence),
            of_claim,
            of_question,
            !is_label,
            std::cmp::Reverse(length),
        );
        if best.as_ref().is_none_or(|(best_rank, _)| rank > *best_rank) {
            best = Some((rank, (start, end)));
        }
    }
    let (start, end) = best.map_or((0, text.len()), |(_, span)| span);
    let cut = text[start..end]
        .char_indices()
        .nth(MAX_QUOTE_CHARS)
        .map_or(end, |(index, _)| start + index);
    (start, cut)
}

/// The sentences of a passage, and the rows of tables as far as they are no longer than a quote, as byte offsets.
fn quotable(passage: &Passage) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for Statement { start, end, row } in statements(passage) {
        let text = &passage.text[start..end];
        if row.is_some() && text.chars().count() <= MAX_QUOTE_CHARS {
            found.push((start, end));
        } else {
            found.extend(sentences(text).map(|(from, to)| (start + from, start + to)));
        }
    }
    found
}

/// The content words of a claim and of the question, to be looked for in one sentence after the other.
struct WantedWords {
    language: Option<Language>,
    places: HashMap<String, Wanted>,
    sentences: usize,
}

struct Wanted {
    is_claimed: bool,
    is_asked: bool,
    /// The number of the last sentence that had it.
    last_in: usize,
}

/// What a sentence has in common with the wanted words, each word counted once.
struct Shared {
    of_claim: usize,
    of_question: usize,
    is_label: bool,
}

impl WantedWords {
    fn new(claim: &str, question: &str, language: Option<Language>) -> Self {
        let (claimed, asked) = (
            ContentWords::of(claim, language),
            ContentWords::of(question, language),
        );
        let wanted = |word: &str| Wanted {
            is_claimed: claimed.contains(word),
            is_asked: asked.contains(word),
            last_in: 0,
        };
        let words = claimed.iter().chain(asked.iter());
        Self {
            language,
            places: words.map(|word| (word.to_owned(), wanted(word))).collect(),
            sentences: 0,
        }
    }

    fn shared_with(&mut self, sentence: &str) -> Shared {
        self.sentences += 1;
        let mut shared = Shared {
            of_claim: 0,
            of_question: 0,
            is_label: true,
        };
        let mut length = 0.0;
        // Of the words that nobody wants, no more than it takes to see that this is no label.
        let mut others: Vec<String> = Vec::new();
        each_content_word(sentence, self.language, |word, counts_for| {
            match self.places.get_mut(word) {
                Some(wanted) if wanted.last_in != self.sentences => {
                    wanted.last_in = self.sentences;
                    length += counts_for;
                    shared.of_claim += usize::from(wanted.is_claimed);
                    shared.of_question += usize::from(wanted.is_asked);
                }
                Some(_) => {}
                None if length <= LABEL_WORDS && !others.iter().any(|other| other == word) => {
                    length += counts_for;
                    others.push(word.to_owned());
                }
                None => {}
            }
        });
        shared.is_label = length <= LABEL_WORDS;
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_counts_once_in_a_sentence_and_anew_in_the_next() {
        let mut wanted = WantedWords::new("Returns take 30 days", "How long do returns take?", None);

        for _ in 0..2 {
            let shared = wanted.shared_with("Returns, returns and returned goods: 30 days.");

            assert_eq!((shared.of_claim, shared.of_question), (3, 1));
            assert!(!shared.is_label);
        }
    }

    #[test]
    fn a_line_of_few_different_words_is_a_label() {
        let mut wanted = WantedWords::new("Goods may be returned", "", None);

        assert!(wanted.shared_with("Returns of goods, returns of gifts").is_label);
        assert!(!wanted.shared_with("Returns of goods and gifts in shops").is_label);
    }
}
