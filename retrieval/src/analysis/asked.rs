//! How much of what a question asks a text says in one breath: the question's words that stand near each other in it.
//!
//! A passage about the right thing has most of a question's words somewhere. One that answers it mostly has those that its
//! title does not say already within a clause.

use std::collections::{HashMap, VecDeque};

use unicode_normalization::char::is_combining_mark;
use unicode_segmentation::UnicodeSegmentation;

use super::fold::fold;
use super::language::Language;
use super::script::Script;
use super::stem::Rules;
use super::stop_words;

/// Different words of a question that are looked for: the bits of a mask.
const MOST_WORDS: usize = 64;

/// How many half words a breath has; a character counts as half a word where no spaces part them.
const BREATH: usize = 24;

/// The words of a question, stop words left out.
#[derive(Debug, Clone)]
pub struct Asked {
    rules: Rules,
    /// The bit of each stem.
    bit_of: HashMap<String, u64>,
    /// First letters of the stems in ASCII: most words of a text are none of them by that alone.
    initials: Vec<u8>,
}

impl Asked {
    /// `language` is the question's, where known.
    pub fn of(question: &str, language: Option<Language>) -> Self {
        let mut asked = Self {
            rules: Rules::of(language),
            bit_of: HashMap::new(),
            initials: Vec::new(),
        };
        let question = stop_words::without_question_words(fold(question));
        each_word(&question, |word, _| {
            if asked.bit_of.len() == MOST_WORDS || asked.rules.is_stop_word(word) {
                return;
            }
            let bit = 1 << asked.bit_of.len();
            asked
                .bit_of
                .entry(asked.rules.stem(word).into_owned())
                .or_insert(bit);
        });
        asked.initials = asked
            .bit_of
            .keys()
            .filter_map(|stem| stem.bytes().next())
            .collect();
        asked
    }

    /// The share of the words that `text` says in one breath, in [0, 1], those not counted that its `names` (a title, a
    /// heading) say; `None` when no word is left to ask for.
    pub fn share_said(&self, names: &[&str], text: &str) -> Option<f32> {
        let mut open = self.bit_of.values().fold(0, |all, bit| all | bit);
        for name in names {
            self.each_found(name, |bit, _| open &= !bit);
        }
        if open == 0 {
            return None;
        }
        let mut breath: VecDeque<(u64, usize)> = VecDeque::new();
        let mut most = 0;
        self.each_found(text, |bit, at| {
            if bit & open == 0 {
                return;
            }
            while breath.front().is_some_and(|(_, begun)| begun + BREATH <= at) {
                breath.pop_front();
            }
            breath.push_back((bit, at));
            let said = breath.iter().fold(0, |said: u64, (bit, _)| said | bit);
            most = most.max(said.count_ones());
        });
        Some(most as f32 / open.count_ones() as f32)
    }

    /// Hands over each of the words that stands in `text`, with its place in half words.
    fn each_found(&self, text: &str, mut take: impl FnMut(u64, usize)) {
        each_word(text, |word, at| {
            let initial = word.as_bytes().first().map_or(0, u8::to_ascii_lowercase);
            if initial.is_ascii() && !self.initials.contains(&initial) {
                return;
            }
            if let Some(bit) = self.bit_of.get(self.rules.stem(&fold(word)).as_ref()) {
                take(*bit, at);
            }
        });
    }
}

/// The stem of every word of `text`, none left out, by the rules of `language` or of a script's most usual one.
pub(crate) fn each_stem(text: &str, language: Option<Language>, mut take: impl FnMut(&str)) {
    let rules = Rules::of(language);
    each_word(&fold(text), |word, _| take(&rules.stem(word)));
}

/// Hands over the words of `text` in order, each with its place in half words.
fn each_word(text: &str, mut take: impl FnMut(&str, usize)) {
    let is_joint = |c: char| !c.is_alphanumeric() && !is_combining_mark(c);
    let mut at = 0;
    for word in text.unicode_words() {
        if word.chars().next().is_some_and(Script::has_no_word_spaces) {
            for character in word.graphemes(true) {
                take(character, at);
                at += 1;
            }
            continue;
        }
        let has_apostrophe = word.contains(['\'', '\u{2019}']);
        for part in word.split(is_joint).filter(|part| !part.is_empty()) {
            let is_clitic = has_apostrophe && part.chars().nth(1).is_none();
            if !is_clitic {
                take(part, at);
                at += 2;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::analysis::detect;

    fn share(question: &str, names: &[&str], text: &str) -> Option<f32> {
        Asked::of(question, detect(question)).share_said(names, text)
    }

    const QUESTION: &str = "Can I return damaged shoes?";

    #[test]
    fn words_near_each_other_are_said_in_one_breath() {
        assert_eq!(
            share(QUESTION, &[], "Damaged shoes are returned at any time."),
            Some(1.0)
        );
        let apart = format!(
            "Returns are free. {} Shoes get damaged.",
            "Some other words. ".repeat(6)
        );
        assert_eq!(share(QUESTION, &[], &apart), Some(2.0 / 3.0));
        assert_eq!(share(QUESTION, &[], "We sell gift cards."), Some(0.0));
    }

    #[test]
    fn what_the_title_says_is_not_asked_of_the_text() {
        assert_eq!(
            share(QUESTION, &["Shoes", "Returns"], "We take what is damaged."),
            Some(1.0)
        );
        assert_eq!(
            share(QUESTION, &["Shoes", "Returns"], "Returned shoes are worn."),
            Some(0.0)
        );
    }

    #[test]
    fn nothing_is_known_where_no_word_is_left_to_ask_for() {
        assert_eq!(share("Shoes?", &["Our shoes"], "Leather."), None);
        assert_eq!(share("What is it?", &[], "It is that."), None);
    }

    #[test]
    fn words_are_known_in_all_their_forms_and_scripts() {
        let in_language =
            |language, question, text| Asked::of(question, Some(language)).share_said(&[], text);

        assert_eq!(
            in_language(Language::French, "Où est le café ?", "CAFE\u{301}S"),
            Some(1.0)
        );
        assert_eq!(
            in_language(Language::Russian, "Заказы?", "Ваш заказ отправлен"),
            Some(1.0)
        );
        assert_eq!(share("退货", &[], "您可以在三十天内退货。"), Some(1.0));
        assert_eq!(
            share("part XK-4711", &[], "The part is called xk-4711."),
            Some(1.0)
        );
    }

    #[test]
    fn every_word_has_a_stem_also_those_of_no_topic() {
        let mut stems = Vec::new();
        each_stem("Where can I get tested?", None, |stem| {
            stems.push(stem.to_owned())
        });

        assert_eq!(stems, ["where", "can", "i", "get", "test"]);
    }

    proptest! {
        #[test]
        fn any_question_has_a_share_of_any_text(question in any::<String>(), name in any::<String>(), text in any::<String>()) {
            let share = share(&question, &[&name], &text);
            prop_assert!(share.is_none_or(|share| (0.0..=1.0).contains(&share)));
        }

        #[test]
        fn a_question_of_few_words_is_said_by_itself(question in "[a-z]{3,9}( [a-z]{3,9}){0,9}") {
            let share = share(&question, &[], &question);
            prop_assert!(share.is_none_or(|share| share == 1.0), "{share:?}");
        }
    }
}
