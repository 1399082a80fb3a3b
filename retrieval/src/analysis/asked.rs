//! How much of what a question asks a text says in one breath: the question's words that stand near each other in it.
//!
//! A passage about the right thing has most of a question's words somewhere. One that answers it mostly has those that its
//! title does not say already within a clause.

use std::collections::{HashMap, VecDeque};

use unicode_normalization::char::is_combining_mark;
use unicode_segmentation::UnicodeSegmentation;

use super::codes;
use super::fold::fold_but_accents;
use super::joined::Joined;
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
    /// The bits of the words that each stem stands for: one, or all that a code or a number is written in.
    bits_of: HashMap<String, u64>,
    /// The pieces of codes among them, letters and digits apart, with their bits: a longer code may have one inside.
    codes: Vec<(Vec<String>, u64)>,
    /// First letters of the stems in ASCII: most words of a text are none of them by that alone.
    initials: Vec<u8>,
}

impl Asked {
    /// `language` is the question's, where known.
    pub fn of(question: &str, language: Option<Language>) -> Self {
        let rules = Rules::of(language);
        let question = stop_words::without_question_words(fold_but_accents(question));
        let mut bits_of: HashMap<String, u64> = HashMap::new();
        // Of each word in order, and how many of them are different.
        let (mut bits, mut different) = (Vec::new(), 0);
        each_form(&question, |form| {
            let stem = rules.stem(form.text).into_owned();
            if form.joins > 0 {
                let joined = bits.iter().rev().take(form.joins).fold(0, |all, bits| all | bits);
                if joined != 0 {
                    bits_of.entry(stem).or_insert(joined);
                }
            } else if rules.is_stop_word(form.text) {
                bits.push(0);
            } else if let Some(known) = bits_of.get(&stem) {
                bits.push(*known);
            } else if different < MOST_WORDS {
                bits.push(1 << different);
                bits_of.insert(stem, 1 << different);
                different += 1;
            } else {
                bits.push(0);
            }
        });
        let codes = bits_of.iter().filter(|(stem, _)| codes::is_code(stem));
        let pieces = |stem: &str| -> Vec<String> { codes::pieces(stem).map(str::to_owned).collect() };
        let codes = codes.map(|(stem, bits)| (pieces(stem), *bits));
        let initials = bits_of.keys().filter_map(|stem| stem.bytes().next());
        Self {
            // In scripts that put no spaces between words, letters are no pieces.
            codes: codes.filter(|(pieces, _)| !pieces.is_empty()).collect(),
            initials: initials.collect(),
            rules,
            bits_of,
        }
    }

    /// The share of the words that `text` says in one breath, in [0, 1], those not counted that its `names` (a title, a
    /// heading) say; `None` when no word is left to ask for.
    pub fn share_said(&self, names: &[&str], text: &str) -> Option<f32> {
        let mut open = self.bits_of.values().fold(0, |all, bits| all | bits);
        let mut inside_names = 0;
        for name in names {
            self.each_found(name, |bits, _, is_inside| match is_inside {
                true => inside_names |= bits,
                false => open &= !bits,
            });
        }
        if open == 0 {
            return None;
        }
        let mut breath: VecDeque<(u64, usize)> = VecDeque::new();
        let (mut most, mut all_said) = (0, 0);
        self.each_found(text, |bits, at, _| {
            let bits = bits & open;
            if bits == 0 {
                return;
            }
            all_said |= bits;
            while breath.front().is_some_and(|(_, begun)| begun + BREATH <= at) {
                breath.pop_front();
            }
            breath.push_back((bits, at));
            let said = breath.iter().fold(0, |said: u64, (bits, _)| said | bits);
            most = most.max(said.count_ones());
        });
        // What a name has inside of a longer code is not asked of the text, and counts where it says it all the same.
        let asked = open & !(inside_names & !all_said);
        (asked != 0).then(|| most as f32 / asked.count_ones() as f32)
    }

    /// Hands over the words that stand in `text`, as bits, with their place in half words and whether it is inside of a longer code.
    fn each_found(&self, text: &str, mut take: impl FnMut(u64, usize, bool)) {
        each_form(&fold_but_accents(text), |form| {
            if !self.codes.is_empty() && codes::is_code(form.text) {
                let all: Vec<&str> = codes::pieces(form.text).collect();
                for (code, bits) in &self.codes {
                    if all.windows(code.len()).any(|place| place == code.as_slice()) {
                        take(*bits, form.at, all.len() > code.len());
                    }
                }
            }
            let initial = form.text.as_bytes().first().copied().unwrap_or_default();
            if initial.is_ascii() && !self.initials.contains(&initial) {
                return;
            }
            if let Some(bits) = self.bits_of.get(self.rules.stem(form.text).as_ref()) {
                take(*bits, form.at, false);
            }
        });
    }
}

/// The stem of every word of `text`, none left out, by the rules of `language` or of a script's most usual one.
pub(crate) fn each_stem(text: &str, language: Option<Language>, mut take: impl FnMut(&str)) {
    let rules = Rules::of(language);
    each_form(&fold_but_accents(text), |form| {
        if form.joins == 0 {
            take(&rules.stem(form.text));
        }
    });
}

/// A word of a text, or what several are as one.
struct Form<'a> {
    text: &'a str,
    /// Its place in half words.
    at: usize,
    /// How many of the words before it are one in it; 0: it is a word itself.
    joins: usize,
}

/// Hands over the words of `text` in order. Where no spaces part words each character is one, and in scripts of letters each
/// pair. Behind the words of a code (`XK-4711`) or a number (`1,000`) comes the whole of it.
fn each_form(text: &str, mut take: impl FnMut(Form<'_>)) {
    let is_joint = |c: char| !c.is_alphanumeric() && !is_combining_mark(c);
    let mut at = 0;
    let mut letter_before = 0..0;
    let (mut joined, mut end) = (Joined::default(), 0);
    // How many words there are in each that Unicode cuts.
    let mut parts_of: Vec<usize> = Vec::new();
    for (start, word) in text.unicode_word_indices() {
        let between = &text[end..start];
        end = start + word.len();
        if word.starts_with(Script::has_no_word_spaces) {
            joined.end(|text, words| {
                let joins = parts_of_last(words, &parts_of);
                take(Form { text, at, joins });
            });
            for (offset, character) in word.grapheme_indices(true) {
                let place = start + offset..start + offset + character.len();
                let found = if !character.starts_with(Script::is_spelled_without_spaces) {
                    Some(character)
                } else {
                    let is_next = !letter_before.is_empty() && letter_before.end == place.start;
                    is_next.then(|| &text[letter_before.start..place.end])
                };
                if let Some(text) = found {
                    take(Form { text, at, joins: 0 });
                }
                letter_before = place;
                at += 1;
            }
            continue;
        }
        joined.take(between, word, |text, words| {
            let joins = parts_of_last(words, &parts_of);
            take(Form { text, at, joins });
        });
        let has_apostrophe = word.contains(['\'', '\u{2019}']);
        let mut parts = 0;
        for part in word.split(is_joint).filter(|part| !part.is_empty()) {
            let is_clitic = has_apostrophe && part.chars().nth(1).is_none();
            if !is_clitic {
                take(Form {
                    text: part,
                    at,
                    joins: 0,
                });
                at += 2;
                parts += 1;
            }
        }
        parts_of.push(parts);
        if let Some(number) = codes::plain_number(word) {
            take(Form {
                text: &number,
                at,
                joins: parts,
            });
        }
    }
    joined.end(|text, words| {
        let joins = parts_of_last(words, &parts_of);
        take(Form { text, at, joins });
    });
}

/// The words that there are in the last so many that Unicode cuts.
fn parts_of_last(cut: usize, parts_of: &[usize]) -> usize {
    parts_of.iter().rev().take(cut).sum()
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
        assert_eq!(share("ห้องสมุด", &[], "ห้องสมุดเมืองเปิด"), Some(1.0));
        assert_eq!(share("น้ำ", &[], "น้ำดื่ม"), Some(1.0));
        assert_eq!(share("คนรัก", &[], "กรุณา"), Some(0.0), "letters are no words");
        assert_eq!(
            share("part XK-4711", &[], "The part is called xk-4711."),
            Some(1.0)
        );
        let vietnamese = |question, text| in_language(Language::Vietnamese, question, text);
        assert_eq!(vietnamese("có trà đá không", "Quán này có TRÀ ĐÁ."), Some(1.0));
        assert_eq!(vietnamese("có bò không", "Quán này có bơ."), Some(0.0));
    }

    #[test]
    fn codes_and_numbers_are_said_however_they_are_parted() {
        for (question, text) in [
            ("E217", "The fault E-217 is harmless."),
            ("E-217", "The fault E217 is harmless."),
            ("HT55B", "the pump HT-55/B"),
            ("AB1204L", "AB-1204-L"),
            ("4890", "It costs 4.890 euros."),
            ("4.890", "It costs 4890 euros."),
            ("1234.50", "It costs 1 234,50 euros."),
            ("0421 5550199", "Call 0421 555-0199."),
            ("XM5", "The WH-1000XM5 costs 349 euros."),
            ("WH-1000", "The WH1000XM5 costs 349 euros."),
        ] {
            assert_eq!(share(question, &[], text), Some(1.0), "{question}");
        }
        assert_eq!(share("E217", &[], "The fault E-218 is harmless."), Some(0.0));
        let of_headphones = |text| share("Is the XM5 black?", &["WH-1000XM5"], text);
        assert_eq!(of_headphones("It comes in black."), Some(1.0), "named so");
        assert_eq!(of_headphones("The XM5 costs 349 euros."), Some(0.5), "and said");
        for text in [
            "The WH-1000XM4 costs 249 euros.",
            "WH-1000EXM5",
            "XM55",
            "XM 4 and 5",
        ] {
            assert_eq!(share("XM5", &[], text), Some(0.0), "{text}");
        }
        assert_eq!(
            share("ក៰", &[], "The XK-4711 costs 499 euros."),
            Some(0.0),
            "no pieces"
        );
        let chinese = share("XK-4711的价格", &[], "XK-4711 支持蓝牙耳机连接").expect("words");
        assert!(chinese < 0.5, "the code is not the price: {chinese}");
        assert_eq!(
            share("fault E-217", &["E217"], "A fault."),
            Some(1.0),
            "named whole"
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
