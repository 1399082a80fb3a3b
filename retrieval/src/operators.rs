//! What a searcher may write beside plain words: `"these words in a row"`, `-without`, `-"these words"`.
//!
//! The words of a phrase are looked for like others, so that ranking is what it is without the quotes; then whatever does
//! not hold the phrase is left out. Phrases and excluded words are compared as the index folds words (letter case,
//! accents, ligatures) but not by their stems: who writes quotes means this form.

use crate::analysis::Words;

/// Operators of one query. Further ones are read as plain words, so that no query costs more than a handful of look-ups
/// in each text.
const MOST: usize = 16;

/// A query as it was typed, read by its operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// What to look for: without the operators and without what is excluded.
    pub text: String,
    phrases: Vec<Phrase>,
    excluded: Vec<Phrase>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Phrase {
    typed: String,
    words: Words,
}

/// Why a text is not what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It does not hold a phrase in quotes.
    PhraseMissing,
    /// It holds what was excluded.
    Excluded,
}

impl Query {
    /// A text that means what it says, quotes and hyphens included.
    pub fn plain(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            phrases: Vec::new(),
            excluded: Vec::new(),
        }
    }

    /// Reads the operators of what was typed into a search.
    pub fn read(typed: &str) -> Self {
        Reader::new(typed).read().0
    }

    /// Reads a message of a conversation, where quotes mostly set off a word and hyphens begin lines: its operators count
    /// only where it consists of nothing else, and of a phrase at least.
    pub fn said(message: &str) -> Self {
        let (query, has_plain_words) = Reader::new(message).read();
        if has_plain_words || query.phrases.is_empty() {
            return Self::plain(message);
        }
        query
    }

    /// Whether something must or must not be there.
    pub fn has_operators(&self) -> bool {
        !self.phrases.is_empty() || !self.excluded.is_empty()
    }

    /// The phrases that must be there, as they were typed.
    pub fn phrases(&self) -> impl Iterator<Item = &str> {
        self.phrases.iter().map(|phrase| phrase.typed.as_str())
    }

    /// The words and phrases that must not be there, as they were typed.
    pub fn excluded(&self) -> impl Iterator<Item = &str> {
        self.excluded.iter().map(|phrase| phrase.typed.as_str())
    }

    /// Why what says `fields`, such as its title and its text, is not what was asked for; `None`: it is. A phrase stands
    /// within one of them.
    pub fn refusal(&self, fields: &[&str]) -> Option<Refusal> {
        if !self.has_operators() {
            return None;
        }
        let fields: Vec<Words> = fields.iter().map(|field| Words::of(field)).collect();
        let is_there = |phrase: &Phrase| fields.iter().any(|field| field.hold(&phrase.words));
        if self.excluded.iter().any(is_there) {
            return Some(Refusal::Excluded);
        }
        (!self.phrases.iter().all(is_there)).then_some(Refusal::PhraseMissing)
    }
}

/// Reads what was typed from left to right.
struct Reader<'a> {
    rest: &'a str,
    before: Option<char>,
    query: Query,
    has_plain_words: bool,
}

impl<'a> Reader<'a> {
    fn new(typed: &'a str) -> Self {
        Self {
            rest: typed,
            before: None,
            query: Query::plain(""),
            has_plain_words: false,
        }
    }

    /// The query, and whether it has words that no operator is set to.
    fn read(mut self) -> (Query, bool) {
        while let Some(next) = self.rest.chars().next() {
            if self.is_at_a_start() && self.take_operator() {
                continue;
            }
            self.has_plain_words |= next.is_alphanumeric();
            self.query.text.push(next);
            self.skip(next.len_utf8());
        }
        let trimmed = self.query.text.trim();
        if trimmed.len() < self.query.text.len() {
            self.query.text = trimmed.to_owned();
        }
        (self.query, self.has_plain_words)
    }

    fn is_at_a_start(&self) -> bool {
        self.before
            .is_none_or(|before| before.is_whitespace() || before == '(')
    }

    /// Takes the operator that begins here; false when none does.
    fn take_operator(&mut self) -> bool {
        if self.query.phrases.len() + self.query.excluded.len() >= MOST {
            return false;
        }
        if let Some((inside, length)) = quoted(self.rest) {
            let Some(phrase) = phrase(inside) else {
                return false;
            };
            self.query.phrases.push(phrase);
            self.query.text.push_str(inside);
            self.skip(length);
            return true;
        }
        let Some(after) = self.rest.strip_prefix('-') else {
            return false;
        };
        let (inside, length) = match quoted(after) {
            Some(found) => found,
            // A number may be below zero.
            None if after.starts_with(char::is_alphabetic) => {
                let end = after.find(char::is_whitespace).unwrap_or(after.len());
                (&after[..end], end)
            }
            None => return false,
        };
        let Some(phrase) = phrase(inside) else {
            return false;
        };
        self.query.excluded.push(phrase);
        self.skip('-'.len_utf8() + length);
        true
    }

    fn skip(&mut self, bytes: usize) {
        let (skipped, rest) = self.rest.split_at(bytes);
        self.before = skipped.chars().next_back();
        self.rest = rest;
    }
}

/// What stands in the quotes that `text` begins with, and how long it is with them.
fn quoted(text: &str) -> Option<(&str, usize)> {
    let opening = text.chars().next()?;
    let closing: &[char] = match opening {
        '"' => &['"'],
        '“' => &['”', '“'],
        '„' => &['“', '”'],
        '«' => &['»'],
        '»' => &['«'],
        '「' => &['」'],
        '『' => &['』'],
        _ => return None,
    };
    let inside = &text[opening.len_utf8()..];
    let (end, close) = inside.char_indices().find(|(_, c)| closing.contains(c))?;
    let length = opening.len_utf8() + end + close.len_utf8();
    // Straight quotes stand for inches too: where a word goes on behind them, they close nothing.
    let goes_on = text[length..].starts_with(char::is_alphanumeric);
    (opening != '"' || !goes_on).then_some((&inside[..end], length))
}

/// `None` where there are no words.
fn phrase(typed: &str) -> Option<Phrase> {
    let words = Words::of(typed);
    (!words.is_empty()).then(|| Phrase {
        typed: typed.to_owned(),
        words,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Text, phrases, excluded.
    fn parts(query: &Query) -> (&str, Vec<&str>, Vec<&str>) {
        (
            query.text.as_str(),
            query.phrases().collect(),
            query.excluded().collect(),
        )
    }

    #[test]
    fn quotes_ask_for_a_phrase_and_minus_excludes() {
        let query = Query::read("return \"gift card\" -shipping -\"store credit\" fee");

        assert_eq!(
            parts(&query),
            (
                "return gift card   fee",
                vec!["gift card"],
                vec!["shipping", "store credit"]
            )
        );
    }

    #[test]
    fn quotes_are_those_of_all_languages() {
        for typed in [
            "“gift card”",
            "„gift card“",
            "«gift card»",
            "»gift card«",
            "「gift card」",
            "(\"gift card\")",
        ] {
            assert_eq!(
                Query::read(typed).phrases().collect::<Vec<_>>(),
                ["gift card"],
                "{typed}"
            );
        }
    }

    #[test]
    fn what_only_looks_like_an_operator_is_text() {
        for typed in [
            "e-mail",
            "store at -20 degrees",
            "a - b",
            "--verbose",
            "a 27\" monitor and a 32\" one",
            "an \"open quote",
            "\"\" and \"?!\"",
            "\"'; drop table chunk; --",
            "- list",
        ] {
            assert_eq!(parts(&Query::read(typed)), (typed, vec![], vec![]), "{typed}");
        }
    }

    #[test]
    fn in_a_conversation_operators_count_only_where_nothing_else_is_said() {
        for message in [
            "What does \"force majeure\" mean?",
            "-shipping",
            "How -shipping costs?",
            "Is \"XK-4711\" in stock",
        ] {
            assert_eq!(Query::said(message), Query::plain(message), "{message}");
        }
        assert_eq!(
            parts(&Query::said(" \"gift card\" -shipping ")),
            ("gift card", vec!["gift card"], vec!["shipping"])
        );
    }

    #[test]
    fn a_text_is_let_through_by_what_it_holds() {
        let query = Query::read("\"gift card\" -shipping");

        assert_eq!(
            query.refusal(&["Cards", "About GIFT CARDS and a gift-card."]),
            None
        );
        assert_eq!(
            query.refusal(&["Gift", "Card"]),
            Some(Refusal::PhraseMissing),
            "a phrase stands within one field"
        );
        assert_eq!(
            query.refusal(&["Shipping", "Of a gift card."]),
            Some(Refusal::Excluded)
        );
        assert_eq!(Query::plain("\"gift card\"").refusal(&[""]), None);
    }

    #[test]
    fn operators_past_the_limit_are_plain_words() {
        let query = Query::read(&"-word ".repeat(MOST + 1));

        assert_eq!((query.excluded().count(), query.text.as_str()), (MOST, "-word"));
    }

    proptest! {
        #[test]
        fn anything_can_be_typed(typed in "([a-c\"“”«»「」 ()-]|\\PC){0,40}") {
            let query = Query::read(&typed);
            prop_assert!(query.text.len() <= typed.len());
            prop_assert!(query.phrases().chain(query.excluded()).all(|phrase| typed.contains(phrase)));
        }
    }
}
