//! What is left of a word without its endings, by the rules of a language (Snowball, Porter 2001), and which words are
//! left out altogether.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use qdrant_rust_stemmers::{Algorithm, Stemmer};

use super::fold::fold;
use super::language::Language;
use super::script::Script;
use super::stop_words;

/// How words are read in a text of one language.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    language: Option<Language>,
    stop_words: &'static HashSet<String>,
}

impl Rules {
    /// The rules of `language`; without one, those of the language that is most often written in a word's script.
    pub(super) fn of(language: Option<Language>) -> Self {
        Self {
            language,
            stop_words: &STOP_WORDS[&language.unwrap_or(Language::English)],
        }
    }

    pub(super) fn language(&self) -> Option<Language> {
        self.language
    }

    /// Whether a folded word carries no topic.
    pub(super) fn is_stop_word(&self, word: &str) -> bool {
        self.stop_words.contains(word)
    }

    /// The stem of a folded word.
    pub(super) fn stem<'a>(&self, word: &'a str) -> Cow<'a, str> {
        match self.algorithm(word) {
            Some(algorithm) => Stemmer::create(algorithm).stem(word),
            None => word.into(),
        }
    }

    /// A word in the script of the text's language follows its rules; others are names or quotations.
    fn algorithm(&self, word: &str) -> Option<Algorithm> {
        let script = word.chars().next().and_then(Script::of)?;
        let language = match self.language {
            Some(language) if language.script() == script => language,
            _ => most_usual(script)?,
        };
        // Parts of codes are no words of English, whose rules cut off the most.
        let is_foreign = language == Language::English && !word.bytes().all(|b| b.is_ascii_lowercase());
        if is_foreign { None } else { algorithm(language) }
    }
}

/// The language most often written in a script, among those whose words have endings to cut.
fn most_usual(script: Script) -> Option<Language> {
    Some(match script {
        Script::Arabic => Language::Arabic,
        Script::Armenian => Language::Armenian,
        Script::Cyrillic => Language::Russian,
        Script::Greek => Language::Greek,
        Script::Latin => Language::English,
        Script::Tamil => Language::Tamil,
        Script::Devanagari | Script::Han | Script::Hangul | Script::Hebrew | Script::Kana | Script::Thai => {
            return None;
        }
    })
}

fn algorithm(language: Language) -> Option<Algorithm> {
    Some(match language {
        Language::Arabic => Algorithm::Arabic,
        Language::Armenian => Algorithm::Armenian,
        Language::Danish => Algorithm::Danish,
        Language::Dutch => Algorithm::Dutch,
        Language::English => Algorithm::English,
        Language::Finnish => Algorithm::Finnish,
        Language::French => Algorithm::French,
        Language::German => Algorithm::German,
        Language::Greek => Algorithm::Greek,
        Language::Hungarian => Algorithm::Hungarian,
        Language::Italian => Algorithm::Italian,
        Language::Norwegian => Algorithm::Norwegian,
        Language::Portuguese => Algorithm::Portuguese,
        Language::Romanian => Algorithm::Romanian,
        Language::Russian => Algorithm::Russian,
        Language::Spanish => Algorithm::Spanish,
        Language::Swedish => Algorithm::Swedish,
        Language::Tamil => Algorithm::Tamil,
        Language::Turkish => Algorithm::Turkish,
        Language::Chinese
        | Language::Czech
        | Language::Hebrew
        | Language::Hindi
        | Language::Japanese
        | Language::Korean
        | Language::Persian
        | Language::Polish
        | Language::Thai
        | Language::Ukrainian => return None,
    })
}

static STOP_WORDS: LazyLock<HashMap<Language, HashSet<String>>> = LazyLock::new(|| {
    let folded = |language: &Language| {
        let words = stop_words::of(*language).split_whitespace();
        (*language, words.map(fold).collect())
    };
    Language::ALL.iter().map(folded).collect()
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_follow_the_language_of_their_text() {
        let stem = |language, word: &str| Rules::of(language).stem(word).into_owned();

        assert_eq!(stem(Some(Language::German), "rucksendungen"), "rucksend");
        assert_eq!(stem(Some(Language::Spanish), "devoluciones"), "devolu");
        assert_eq!(stem(Some(Language::Polish), "zwroty"), "zwroty");
        assert_eq!(stem(None, "returning"), "return");
    }

    #[test]
    fn words_in_another_script_follow_the_most_usual_language_of_it() {
        let rules = Rules::of(Some(Language::Russian));

        assert_eq!(rules.stem("updates"), "updat");
        assert_eq!(rules.stem("обновления"), rules.stem("обновление"));
    }

    #[test]
    fn stop_words_are_those_of_the_language() {
        assert!(Rules::of(Some(Language::German)).is_stop_word("wurden"));
        assert!(!Rules::of(Some(Language::German)).is_stop_word("would"));
        assert!(Rules::of(None).is_stop_word("would"));
    }
}
