//! Sentences of a text, and what one of them is about as far as choosing among them needs it.

use std::cmp::Reverse;
use std::collections::HashSet;

use retrieval::analysis::{Language, detect, each_content_word};
use unicode_segmentation::UnicodeSegmentation as _;

/// A line of at most so many content words is a heading or a label rather than a statement.
pub(super) const LABEL_WORDS: f32 = 3.0;

/// What asks, however it is written.
const QUESTION_MARKS: [char; 4] = ['?', '\u{ff1f}', '\u{61f}', '\u{37e}'];

/// What ends a statement.
const FULL_STOPS: [char; 6] = ['.', '!', '\u{3002}', '\u{ff01}', '\u{964}', '\u{6d4}'];

/// The different content words of a text, as the index reads them in one language.
#[derive(Debug, Default)]
pub struct ContentWords {
    words: HashSet<String>,
    /// How many they are: a character counts half where no spaces part words.
    length: f32,
}

impl ContentWords {
    pub fn of(text: &str, language: Option<Language>) -> Self {
        let mut found = Self::default();
        each_content_word(text, language, |word, length| {
            if !found.words.contains(word) {
                found.words.insert(word.to_owned());
                found.length += length;
            }
        });
        found
    }

    /// Those of a question. Of a code that `is_known` whole there is only the code itself: its parts are those of other codes,
    /// and of figures that have nothing to do with it.
    pub fn asked(question: &str, language: Option<Language>, is_known: impl Fn(&str) -> bool) -> Self {
        let mut asked = Self::default();
        for part in question.split_whitespace() {
            let mut of_part = Self::of(part, language);
            let code = of_part.code().filter(|code| is_known(code)).map(str::to_owned);
            if let Some(code) = code {
                of_part = Self {
                    words: HashSet::from([code]),
                    length: 1.0,
                };
            }
            asked.words.extend(of_part.words);
            asked.length += of_part.length;
        }
        asked
    }

    /// The whole of what has a digit and is read by its parts as well.
    fn code(&self) -> Option<&str> {
        let characters = |word: &&str| word.chars().filter(|c| c.is_alphanumeric()).count();
        let whole = self
            .iter()
            .max_by_key(|word| (characters(word), Reverse(word.len()), *word))?;
        (self.count() > 1 && whole.contains(char::is_numeric)).then_some(whole)
    }

    pub fn contains(&self, word: &str) -> bool {
        self.words.contains(word)
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.words.iter().map(String::as_str)
    }

    pub fn count(&self) -> usize {
        self.words.len()
    }

    /// Whether a line of these words is a heading or a label rather than a statement.
    pub fn is_label(&self) -> bool {
        self.length <= LABEL_WORDS
    }
}

/// The language by whose rules a passage is compared with a question about it: its own, or else the question's.
pub fn language_of(passage: &str, question: &str) -> Option<Language> {
    detect(passage).or_else(|| detect(question))
}

/// Whether a sentence ends as one that states something.
pub fn is_statement(sentence: &str) -> bool {
    sentence.ends_with(FULL_STOPS)
}

/// Whether a sentence asks rather than states.
pub fn is_question(sentence: &str) -> bool {
    sentence.ends_with(QUESTION_MARKS)
}

/// The sentences and lines of `text` as byte offsets, trimmed, in order; empty ones are left out.
pub fn sentences(text: &str) -> impl Iterator<Item = (usize, usize)> {
    text.split_inclusive('\n')
        .scan(0, |offset, line| {
            let start = *offset;
            *offset += line.len();
            Some((start, line))
        })
        .flat_map(|(line_start, line)| {
            line.split_sentence_bound_indices()
                .filter_map(move |(index, sentence)| {
                    let trimmed = sentence.trim();
                    let start = line_start + index + (sentence.len() - sentence.trim_start().len());
                    (!trimmed.is_empty()).then_some((start, start + trimmed.len()))
                })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(language: Language, question: &str, sentence: &str) -> usize {
        let of = |text| ContentWords::of(text, Some(language));
        let said = of(sentence);
        of(question).iter().filter(|word| said.contains(word)).count()
    }

    #[test]
    fn words_of_each_language_meet_in_their_forms_without_those_that_say_nothing() {
        assert_eq!(
            shared(
                Language::English,
                "How may I return the goods?",
                "The returned goods are checked and you will be told."
            ),
            2
        );
        assert_eq!(
            shared(
                Language::German,
                "Wo sind die Rücksendungen?",
                "Die Rücksendung ist dort, wo die Waren sind."
            ),
            1
        );
        assert_eq!(shared(Language::Russian, "Где мои заказы?", "Где ваш заказ?"), 1);
        assert!(shared(Language::Chinese, "怎么退货？", "您可以在三十天内退货。") >= 3);
        assert_eq!(shared(Language::Chinese, "怎么退货？", "运费由客户承担。"), 0);
    }

    #[test]
    fn a_known_code_is_asked_for_whole_and_an_unknown_one_by_its_parts_too() {
        let asked = |question: &str, known: &str| {
            let asked = ContentWords::asked(question, Some(Language::English), |word| word == known);
            let mut words: Vec<String> = asked.iter().map(str::to_owned).collect();
            words.sort();
            words
        };

        assert_eq!(asked("Is the HV-2725 oiled?", "hv2725"), ["hv2725", "oil"]);
        assert_eq!(
            asked("Is the HV-2725 oiled?", ""),
            ["2725", "hv", "hv2725", "oil"]
        );
        assert_eq!(asked("1,000 tables", "1000"), ["1000", "tabl"]);
        assert_eq!(asked("e-mails", "email"), ["e", "email", "mail"]);
    }

    #[test]
    fn few_different_words_are_a_label_in_every_script() {
        let is_label = |text: &str| ContentWords::of(text, detect(text)).is_label();

        assert!(is_label("Returns of goods, returns of gifts") && is_label("退货政策"));
        assert!(!is_label("Returns of goods and gifts in shops") && !is_label("您可以在三十天内退货。"));
    }

    #[test]
    fn a_sentence_asks_by_the_mark_of_its_script() {
        assert!(is_question("Do you sell gift cards?") && is_question("怎么退货？") && is_question("متى؟"));
        assert!(!is_question("Yes."));
    }

    #[test]
    fn sentences_end_at_full_stops_and_lines() {
        let text = "One is here. Two!\n\n  Three\n";

        let found: Vec<&str> = sentences(text).map(|(start, end)| &text[start..end]).collect();

        assert_eq!(found, ["One is here.", "Two!", "Three"]);
    }
}
