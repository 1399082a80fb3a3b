//! Which language a text is in, by its script and its function words.
//!
//! Made for what a support desk sees: questions of five words and passages of a paragraph. A script that one language has
//! tells it at once; among languages of one script the words decide that only some of them have, and letters that only
//! Vietnamese has. Statistics of letters would know more languages, but are wrong about every other short question.

use std::collections::HashMap;
use std::sync::LazyLock;

use unicode_segmentation::UnicodeSegmentation;

use super::fold::{fold, fold_but_accents, is_vietnamese};
use super::script::Script;
use super::stop_words;

/// Characters looked at; a language shows itself long before.
const SAMPLE_CHARS: usize = 4_000;

/// Share of the words of a text, counted as what they say, that its language must account for. Texts in languages that
/// are not listed here have some of these words too.
const LEAST_SHARE: f32 = 0.06;

/// Function words that a text must show before its language is taken for certain: one may be a name.
const LEAST_WORDS: f32 = 2.0;

/// A language whose words count this share of the best one's is as plausible.
const PLAUSIBLE: f32 = 0.5;

/// Share of texts from which on their language is that of nearly all.
const MAIN: f32 = 0.8;

macro_rules! languages {
    ($($name:ident $subtag:literal $script:ident,)*) => {
        /// A language with rules of its own.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Language {
            $($name,)*
        }

        impl Language {
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its primary language subtag (BCP 47), e.g. `de`.
            pub fn subtag(self) -> &'static str {
                match self {
                    $(Self::$name => $subtag,)*
                }
            }

            pub(crate) fn script(self) -> Script {
                match self {
                    $(Self::$name => Script::$script,)*
                }
            }
        }
    };
}

languages! {
    Arabic "ar" Arabic,
    Armenian "hy" Armenian,
    Chinese "zh" Han,
    Czech "cs" Latin,
    Danish "da" Latin,
    Dutch "nl" Latin,
    English "en" Latin,
    Finnish "fi" Latin,
    French "fr" Latin,
    German "de" Latin,
    Greek "el" Greek,
    Hebrew "he" Hebrew,
    Hindi "hi" Devanagari,
    Hungarian "hu" Latin,
    Italian "it" Latin,
    Japanese "ja" Kana,
    Korean "ko" Hangul,
    Norwegian "no" Latin,
    Persian "fa" Arabic,
    Polish "pl" Latin,
    Portuguese "pt" Latin,
    Romanian "ro" Latin,
    Russian "ru" Cyrillic,
    Spanish "es" Latin,
    Swedish "sv" Latin,
    Tamil "ta" Tamil,
    Thai "th" Thai,
    Turkish "tr" Latin,
    Ukrainian "uk" Cyrillic,
    Vietnamese "vi" Latin,
}

/// Without those that other languages' models have as well, which know some characters of names.
const CHINESE_FUNCTION_WORDS: &str = "是了在他她它这那们什么吗呢就还没说请可以";

impl Language {
    /// Its function words of three letters and more, folded: in the vocabulary of whatever was made to read it. In Chinese each is
    /// a character. Empty where none are listed.
    pub(crate) fn function_words(self) -> Vec<String> {
        if self == Self::Chinese {
            return CHINESE_FUNCTION_WORDS.chars().map(String::from).collect();
        }
        let words = stop_words::of(self).split_whitespace();
        words
            .map(|word| match self {
                // Whatever reads it tells its accents apart.
                Self::Vietnamese => fold_but_accents(word),
                _ => fold(word),
            })
            .filter(|word| word.chars().nth(2).is_some())
            .collect()
    }

    /// The language that `tag` names (`de`, `de-AT`, `pt_BR`), if there are rules for it.
    pub fn from_tag(tag: &str) -> Option<Self> {
        let primary = tag.split(['-', '_']).next()?.to_ascii_lowercase();
        if matches!(primary.as_str(), "nb" | "nn") {
            return Some(Self::Norwegian);
        }
        Self::ALL
            .iter()
            .copied()
            .find(|language| language.subtag() == primary)
    }
}

/// The language of `text`; `None` when it does not show.
pub fn detect(text: &str) -> Option<Language> {
    certain(&rank(text))
}

fn certain(ranked: &[Speaking]) -> Option<Language> {
    let best = ranked.first()?;
    let next_score = ranked.get(1).map_or(0.0, |next| next.score);
    (best.score > next_score && best.words >= LEAST_WORDS).then_some(best.language)
}

/// The languages that `text` may well be in, at most three, the likeliest first.
pub(super) fn plausible(text: &str) -> Vec<Language> {
    likely(rank(text).iter())
}

fn likely<'a>(ranked: impl Iterator<Item = &'a Speaking>) -> Vec<Language> {
    let mut ranked = ranked.take(3).peekable();
    let least = ranked.peek().map_or(0.0, |best| best.score * PLAUSIBLE);
    ranked
        .filter(|speaking| speaking.score >= least)
        .map(|speaking| speaking.language)
        .collect()
}

/// The languages of the texts that questions are asked of: most questions are in one of them, and do not always show it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TextLanguages {
    all: Vec<Language>,
    /// That of nearly all texts.
    main: Option<Language>,
}

/// What a question and the texts that it is asked of tell of its language.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct QuestionLanguages {
    /// What it shows, else that of nearly all texts, if it does not seem to be in another one.
    pub(crate) language: Option<Language>,
    /// It shows its language.
    is_shown: bool,
    /// Those by which its words are read, the likeliest first: its own where it shows, else all that the texts are in, and those
    /// that it may be in beside. Empty: nothing is known.
    pub(crate) read_by: Vec<Language>,
    /// Those of the texts.
    of_texts: Vec<Language>,
}

impl QuestionLanguages {
    /// Its language, where it counts whether it is one of those that a model reads: where some texts are in one of these, a question
    /// that does not show its language may be in that one.
    pub(crate) fn language_to(&self, read: &[Language]) -> Option<Language> {
        let language = self.language?;
        let is_open = !self.is_shown
            && !read.contains(&language)
            && self.of_texts.iter().any(|of_text| read.contains(of_text));
        (!is_open).then_some(language)
    }
}

impl TextLanguages {
    /// `all` are the languages of the texts, each once; `sample` are those of some texts, or of all, as far as they are known.
    pub fn new(all: Vec<Language>, sample: &[Option<Language>]) -> Self {
        let share = |language: Language| {
            let texts = sample.iter().filter(|of_text| **of_text == Some(language));
            texts.count() as f32 / sample.len().max(1) as f32
        };
        let main = all.iter().copied().find(|language| share(*language) >= MAIN);
        Self { all, main }
    }

    pub(crate) fn of_question(&self, question: &str) -> QuestionLanguages {
        let ranked = rank(question);
        if let Some(shown) = certain(&ranked) {
            return QuestionLanguages {
                language: Some(shown),
                is_shown: true,
                read_by: vec![shown],
                of_texts: self.all.clone(),
            };
        }
        let may_be =
            |main: &Language| ranked.is_empty() || ranked.iter().any(|speaking| speaking.language == *main);
        let is_written_so = |main: &Language| Script::of_text(question) == Some(main.script());
        let language = self.main.filter(may_be).filter(is_written_so);
        QuestionLanguages {
            language,
            is_shown: false,
            read_by: self.to_read(language, &ranked),
            of_texts: self.all.clone(),
        }
    }

    /// Those by which a question is read that does not show its language.
    fn to_read(&self, language: Option<Language>, ranked: &[Speaking]) -> Vec<Language> {
        if self.all.is_empty() {
            return likely(ranked.iter());
        }
        let mut languages = match language {
            // By its rules accents make other words, which hold for a question that is surely in it.
            Some(main) if main != Language::Vietnamese => vec![main],
            _ => likely(
                ranked
                    .iter()
                    .filter(|speaking| self.all.contains(&speaking.language)),
            ),
        };
        if languages.is_empty() {
            // Its words of no topic are left out, and its accents say nothing.
            languages.push(Language::English);
        }
        for language in self.all.iter().copied().chain(likely(ranked.iter())) {
            if !languages.contains(&language) {
                languages.push(language);
            }
        }
        languages
    }
}

/// What speaks for a language.
struct Speaking {
    language: Language,
    /// Its function words in the text, each the less the more languages have it.
    score: f32,
    /// The same, each counted as one.
    words: f32,
}

/// Languages by what speaks for them, the best first.
fn rank(text: &str) -> Vec<Speaking> {
    let sample = match text.char_indices().nth(SAMPLE_CHARS) {
        Some((end, _)) => &text[..end],
        None => text,
    };
    let Some(script) = Script::of_text(sample) else {
        return Vec::new();
    };
    let certain = |language: &Language| Speaking {
        language: *language,
        score: 1.0,
        words: LEAST_WORDS,
    };
    let of_script: Vec<&Language> = Language::ALL
        .iter()
        .filter(|language| language.script() == script)
        .collect();
    if of_script.len() < 2 {
        return of_script.into_iter().map(certain).collect();
    }
    let mut found: HashMap<Language, (f32, f32)> = HashMap::new();
    let mut all_words = 0.0;
    for word in fold_but_accents(sample).unicode_words() {
        if word.chars().next().and_then(Script::of) != Some(script) {
            continue;
        }
        all_words += 1.0;
        let languages = match is_vietnamese(word) {
            true => &[Language::Vietnamese][..],
            false => LANGUAGES_OF.get(word).map_or(&[][..], Vec::as_slice),
        };
        for language in languages {
            let (score, words) = found.entry(*language).or_default();
            *score += 1.0 / languages.len() as f32;
            *words += 1.0;
        }
    }
    let mut ranked: Vec<Speaking> = found
        .into_iter()
        .filter(|(_, (score, _))| *score >= LEAST_SHARE * all_words)
        .map(|(language, (score, words))| Speaking {
            language,
            score,
            words,
        })
        .collect();
    ranked.sort_by(|a, b| {
        b.score
            .total_cmp(&a.score)
            .then_with(|| a.language.cmp(&b.language))
    });
    ranked
}

/// The languages in which a word, folded but for its accents, is a function word. Letters alone are no words: they number lists
/// and name things.
static LANGUAGES_OF: LazyLock<HashMap<String, Vec<Language>>> = LazyLock::new(|| {
    let mut languages_of: HashMap<String, Vec<Language>> = HashMap::new();
    for language in Language::ALL {
        for word in stop_words::typed(*language) {
            if language.script() == Script::Latin && word.chars().nth(1).is_none() {
                continue;
            }
            let languages = languages_of.entry(word).or_default();
            if !languages.contains(language) {
                languages.push(*language);
            }
        }
    }
    languages_of
});

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use unicode_normalization::UnicodeNormalization;

    use super::*;

    #[test]
    fn a_question_shows_its_language() {
        let questions = [
            ("How long may I return the goods?", Language::English),
            ("Wie lange kann ich die Ware zurückgeben?", Language::German),
            (
                "¿Cuánto tiempo tengo para devolver el artículo?",
                Language::Spanish,
            ),
            (
                "Combien de temps ai-je pour retourner un article ?",
                Language::French,
            ),
            ("Quanto tempo ho per restituire gli articoli?", Language::Italian),
            (
                "Quanto tempo tenho para devolver um produto?",
                Language::Portuguese,
            ),
            ("Hoe lang heb ik om het artikel terug te sturen?", Language::Dutch),
            (
                "Ile mam czasu na zwrot i kiedy dostanę pieniądze?",
                Language::Polish,
            ),
            (
                "Hur länge har jag på mig att lämna tillbaka varan?",
                Language::Swedish,
            ),
            ("Ürünü iade etmek için ne kadar sürem var?", Language::Turkish),
            ("Сколько времени есть на возврат товара?", Language::Russian),
            ("Скільки часу є на повернення товару?", Language::Ukrainian),
            ("كم من الوقت لدي لإرجاع المنتج؟", Language::Arabic),
            ("چقدر زمان برای بازگرداندن کالا دارم و چگونه؟", Language::Persian),
            ("我可以在多长时间内退货？", Language::Chinese),
            ("返品の期限はいつまでですか。", Language::Japanese),
            ("반품은 언제까지 가능한가요?", Language::Korean),
            ("คืนสินค้าได้ภายในกี่วัน", Language::Thai),
            ("Phí trả muộn bao nhiêu?", Language::Vietnamese),
            ("Quán có trà không?", Language::Vietnamese),
            ("Πόσο καιρό έχω για επιστροφή;", Language::Greek),
            ("כמה זמן יש לי להחזיר את המוצר?", Language::Hebrew),
            ("मैं सामान कितने दिन में वापस कर सकता हूँ?", Language::Hindi),
        ];

        for (question, language) in questions {
            assert_eq!(detect(question), Some(language), "{question}");
        }
    }

    #[test]
    fn accents_that_were_not_typed_are_not_missed() {
        assert_eq!(
            detect("cuanto tiempo tengo para devolver esto"),
            Some(Language::Spanish)
        );
        assert_eq!(detect("wo kann ich das zuruckgeben"), Some(Language::German));
    }

    #[test]
    fn names_and_codes_show_no_language() {
        for text in ["", "4711", "XK-4711", "Frontdesk Pro", "!?", "a b c"] {
            assert_eq!(detect(text), None, "{text}");
        }
    }

    #[test]
    fn a_name_in_another_script_does_not_hide_the_language() {
        assert_eq!(
            detect("如何更新 Frontdesk Professional？"),
            Some(Language::Chinese)
        );
        assert_eq!(
            detect("Как обновить Frontdesk и что для этого нужно?"),
            Some(Language::Russian)
        );
    }

    #[test]
    fn vietnamese_is_told_however_it_is_encoded_and_not_by_a_name() {
        let text = "Cửa hàng bán phở và mở cửa từ tám giờ sáng.";
        let decomposed: String = text.nfd().collect();
        assert_eq!(detect(text), Some(Language::Vietnamese));
        assert_eq!(detect(&decomposed), Some(Language::Vietnamese));
        for (text, language) in [
            ("Where is the phở from, and who is Mr Nguyễn?", Language::English),
            (
                "Căți dintre voi au văzut că este aici un câine?",
                Language::Romanian,
            ),
            ("Où est-ce que je peux aller là-bas à pied ?", Language::French),
        ] {
            assert_eq!(detect(text), Some(language), "{text}");
        }
        assert_eq!(detect("Phở Thìn"), None);
    }

    #[test]
    fn a_question_that_does_not_show_its_language_is_in_that_of_nearly_all_texts() {
        let known = |languages: &[Language]| languages.iter().copied().map(Some).collect::<Vec<_>>();
        let all = vec![Language::German, Language::English];
        let german = TextLanguages::new(all.clone(), &known(&[Language::German; 5]));
        for (question, language) in [
            ("Garantie", Some(Language::German)),
            ("Wen kontrollieren Gurus?", Some(Language::German)),
            ("Where is the phone from?", Some(Language::English)),
            ("гарантия", None),
            ("peut", None),
            ("4711", None),
        ] {
            assert_eq!(german.of_question(question).language, language, "{question}");
        }
        let to_english_alone = |question| german.of_question(question).language_to(&[Language::English]);
        assert_eq!(to_english_alone("Garantie"), None, "some are read");
        assert_eq!(to_english_alone("Wann kommt die Ware?"), Some(Language::German));
        let mixed = TextLanguages::new(all.clone(), &known(&all));
        let mostly_unknown = TextLanguages::new(all, &[Some(Language::German), None]);
        for texts in [mixed, mostly_unknown, TextLanguages::default()] {
            assert_eq!(texts.of_question("Garantie").language, None, "{texts:?}");
        }
    }

    #[test]
    fn a_word_is_read_by_the_rules_of_a_language_that_it_shows_though_no_text_is_known_to_be_in_it() {
        let read_by = |main, question| {
            TextLanguages::new(vec![main], &[Some(main)])
                .of_question(question)
                .read_by
        };
        assert!(read_by(Language::English, "die Häusern").contains(&Language::German));
        assert_eq!(
            read_by(Language::Vietnamese, "Müller"),
            [Language::English, Language::Vietnamese]
        );
        assert_eq!(read_by(Language::Vietnamese, "bơ"), [Language::Vietnamese]);
    }

    #[test]
    fn tags_name_languages_whatever_their_region() {
        assert_eq!(Language::from_tag("de-AT"), Some(Language::German));
        assert_eq!(Language::from_tag("PT_br"), Some(Language::Portuguese));
        assert_eq!(Language::from_tag("nb"), Some(Language::Norwegian));
        assert_eq!(Language::from_tag("tlh"), None);
        for language in Language::ALL {
            assert_eq!(Language::from_tag(language.subtag()), Some(*language));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_looked_at_without_harm(text in any::<String>()) {
            let plausible = plausible(&text);
            prop_assert!(plausible.len() <= 3);
            if let Some(language) = detect(&text) {
                prop_assert_eq!(plausible.first(), Some(&language));
            }
        }
    }
}
