//! What is left of a word without its endings, by the rules of a language (Snowball, Porter 2001), and which words are
//! left out altogether.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use qdrant_rust_stemmers::{Algorithm, Stemmer};

use super::fold::{with_tones_last, without_accents};
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

    /// Whether its accents make another word, and are no way of writing one.
    pub(super) fn tells_accents_apart(&self) -> bool {
        self.language == Some(Language::Vietnamese)
    }

    /// Whether texts may have words of Vietnamese among their own: in other languages its letters are theirs.
    pub(super) fn may_quote_vietnamese(&self) -> bool {
        matches!(
            self.language,
            None | Some(Language::English | Language::Vietnamese)
        )
    }

    /// Whether a word, folded but for its accents, carries no topic.
    pub(super) fn is_stop_word(&self, word: &str) -> bool {
        self.stop_words.contains(word)
    }

    /// The stem of a word that is folded but for its accents.
    pub(super) fn stem<'a>(&self, word: &'a str) -> Cow<'a, str> {
        let written = match self.tells_accents_apart() {
            true => with_tones_last(word),
            false => without_accents(word),
        };
        let Some(algorithm) = self.algorithm(&written) else {
            return written;
        };
        match written {
            Cow::Borrowed(written) => Stemmer::create(algorithm).stem(written),
            Cow::Owned(written) => Stemmer::create(algorithm).stem(&written).into_owned().into(),
        }
    }

    /// A word in the script of the text's language follows its rules; others are names or quotations.
    fn algorithm(&self, word: &str) -> Option<Algorithm> {
        let script = word.chars().next().and_then(Script::of)?;
        let language = match self.language {
            Some(language) if language.script() == script => language,
            _ => most_usual(script)?,
        };
        // A code is no word, and a letter of no English one is of a name.
        let is_foreign = match language {
            Language::English => !word.bytes().all(|b| b.is_ascii_lowercase()),
            _ => word.contains(char::is_numeric),
        };
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
        Script::Devanagari
        | Script::Han
        | Script::Hangul
        | Script::Hebrew
        | Script::Kana
        | Script::Thai
        | Script::Other => return None,
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
        | Language::Ukrainian
        | Language::Vietnamese => return None,
    })
}

static STOP_WORDS: LazyLock<HashMap<Language, HashSet<String>>> = LazyLock::new(|| {
    let of = |language: &Language| (*language, stop_words::typed(*language).collect());
    Language::ALL.iter().map(of).collect()
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
    fn codes_are_no_words_of_any_language() {
        for language in Language::ALL {
            for code in ["w77", "a4s", "4711e", "er2en"] {
                assert_eq!(Rules::of(Some(*language)).stem(code), code, "{language:?}");
            }
        }
    }

    #[test]
    fn stop_words_are_those_of_the_language() {
        assert!(Rules::of(Some(Language::German)).is_stop_word("wurden"));
        assert!(!Rules::of(Some(Language::German)).is_stop_word("would"));
        assert!(Rules::of(None).is_stop_word("would"));
        assert!(Rules::of(Some(Language::German)).is_stop_word("für"));
        assert!(Rules::of(Some(Language::German)).is_stop_word("fur"));
        assert!(
            !Rules::of(Some(Language::Italian)).is_stop_word("lò"),
            "no word of Italian"
        );
    }

    #[test]
    fn accents_make_other_words_in_vietnamese_alone() {
        let vietnamese = Rules::of(Some(Language::Vietnamese));
        let french = Rules::of(Some(Language::French));

        assert!(vietnamese.is_stop_word("là") && !vietnamese.is_stop_word("lá"));
        assert_ne!(vietnamese.stem("trà"), vietnamese.stem("trả"));
        assert_eq!(vietnamese.stem("hòa"), vietnamese.stem("hoà"));
        assert_eq!(french.stem("thé"), french.stem("the"));
    }
}
