//! Counting and cutting text the way the model does, and an estimate for when no model is at hand.

use std::path::{Path, PathBuf};

use unicode_segmentation::UnicodeSegmentation;

use crate::analysis::Language;

/// A file of the model's directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Install the model, or name the directory where it is.
    #[error("model file {path} cannot be read: {source}")]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Install the model anew: this is no model of the expected kind, or a damaged one.
    #[error("model file {path} is not usable: {reason}")]
    Unusable { path: PathBuf, reason: String },
}

impl LoadError {
    pub(super) fn unusable(path: &Path, reason: impl ToString) -> Self {
        Self::Unusable {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }
}

/// Share of a language's function words that are tokens of their own in the vocabulary of a model that reads it. The
/// English BERT has all of the English ones and at most a third of any other language's.
const LEAST_WORDS: f32 = 0.6;

/// A model that reads this many languages was made for many, also for those whose words cannot be counted.
const MANY_LANGUAGES: usize = 5;

/// A model's own tokenizer, without its weights: about 15 MiB in memory.
pub struct Tokenizer {
    tokenizer: tokenizers::Tokenizer,
    special: SpecialTokens,
    languages: Option<Vec<Language>>,
}

/// What stands around every text.
#[derive(Clone, Copy)]
struct SpecialTokens {
    start: u32,
    end: u32,
}

impl Tokenizer {
    /// Reads a `tokenizer.json` of the BERT family. What it says about truncation and padding is left aside.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let bytes = std::fs::read(path).map_err(|source| LoadError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let mut tokenizer =
            tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| LoadError::unusable(path, error))?;
        tokenizer
            .with_truncation(None)
            .map_err(|error| LoadError::unusable(path, error))?;
        tokenizer.with_padding(None);
        let special = tokenizer
            .encode_fast("", true)
            .map_err(|error| LoadError::unusable(path, error))?;
        let special = match special.get_ids() {
            [start, end] => SpecialTokens {
                start: *start,
                end: *end,
            },
            others => {
                let count = others.len();
                return Err(LoadError::unusable(
                    path,
                    format!("it puts {count} special tokens around a text instead of two"),
                ));
            }
        };
        let languages = languages_of(&tokenizer);
        Ok(Self {
            tokenizer,
            special,
            languages,
        })
    }

    /// The languages whose words the vocabulary has; `None`: all.
    pub(super) fn languages(&self) -> Option<&[Language]> {
        self.languages.as_deref()
    }

    /// Tokens in `text`, special tokens not counted, however long it is.
    pub fn count(&self, text: &str) -> usize {
        match self.tokenizer.encode_fast(text, false) {
            Ok(encoding) => encoding.len(),
            // Only a vocabulary without a token for the unknown fails, and then every count is a guess.
            Err(_) => estimate_tokens(text),
        }
    }

    /// What the model reads of `text`: at most `max_tokens` tokens between the two special ones.
    pub(super) fn encode(&self, text: &str, max_tokens: usize) -> Result<Vec<u32>, tokenizers::Error> {
        let encoding = self.tokenizer.encode_fast(text, false)?;
        let ids = encoding.get_ids();
        Ok(self.surround(&ids[..ids.len().min(max_tokens)]))
    }

    /// The same of a question. Of one that is longer, the beginning and the end are read, half each: who pastes a letter says
    /// what they want to know before it or behind it.
    pub(super) fn encode_ends(&self, text: &str, max_tokens: usize) -> Result<Vec<u32>, tokenizers::Error> {
        let encoding = self.tokenizer.encode_fast(text, false)?;
        let ids = encoding.get_ids();
        if ids.len() <= max_tokens {
            return Ok(self.surround(ids));
        }
        let of_end = max_tokens / 2;
        let ends = [&ids[..max_tokens - of_end], &ids[ids.len() - of_end..]];
        Ok(self.surround(&ends.concat()))
    }

    /// The same as [`Tokenizer::encode`] without the special ones.
    pub(super) fn encode_plain(&self, text: &str, max_tokens: usize) -> Result<Vec<u32>, tokenizers::Error> {
        let encoding = self.tokenizer.encode_fast(text, false)?;
        let ids = encoding.get_ids();
        Ok(ids[..ids.len().min(max_tokens)].to_vec())
    }

    /// `tokens` between the two special ones.
    pub(super) fn surround(&self, tokens: &[u32]) -> Vec<u32> {
        let mut pieces = Vec::with_capacity(tokens.len() + 2);
        pieces.push(self.special.start);
        pieces.extend_from_slice(tokens);
        pieces.push(self.special.end);
        pieces
    }

    /// Whether a token stands for some text: it is neither special nor kept for later use.
    pub(super) fn is_text(&self, token: u32) -> bool {
        let special = self.tokenizer.get_added_tokens_decoder();
        if special.get(&token).is_some_and(|token| token.special) {
            return false;
        }
        self.tokenizer
            .id_to_token(token)
            .is_some_and(|token| !token.starts_with("[unused"))
    }
}

/// What the vocabulary says about the languages that a model was made for; `None`: all.
fn languages_of(tokenizer: &tokenizers::Tokenizer) -> Option<Vec<Language>> {
    // As the model's own vocabulary writes the beginning of a word: WordPiece, SentencePiece, byte pairs.
    let is_token = |word: &str| {
        ["", "\u{2581}", "\u{120}"]
            .iter()
            .any(|start| tokenizer.token_to_id(&format!("{start}{word}")).is_some())
    };
    let is_read = |language: &Language| {
        let words = language.function_words();
        let known = words.iter().filter(|word| is_token(word)).count();
        !words.is_empty() && known as f32 >= LEAST_WORDS * words.len() as f32
    };
    let read: Vec<Language> = Language::ALL.iter().copied().filter(is_read).collect();
    (read.len() < MANY_LANGUAGES && !read.is_empty()).then_some(read)
}

/// Letters of an ASCII word that one token holds, in the long run of English text.
const LETTERS_PER_TOKEN: usize = 5;

/// The same for digits, accented Latin letters and what is joined without spaces.
const RARER_LETTERS_PER_TOKEN: usize = 2;

/// Tokens that a text would be, without a tokenizer: meant to err on the high side, so that what is packed by it fits.
///
/// ASCII words count one token per five letters begun, digits and accented words one per two; letters of other scripts
/// and signs one each. For prose that is between three quarters of the true count and twice that, whichever the model;
/// for scripts that a model's vocabulary knows well it may be three times as much.
pub fn estimate_tokens(text: &str) -> usize {
    text.split_word_bounds().map(estimate_word).sum()
}

/// At most one for each character.
fn estimate_word(word: &str) -> usize {
    let Some(first) = word.chars().next() else {
        return 0;
    };
    if first.is_whitespace() {
        return 0;
    }
    if word.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return word.len().div_ceil(LETTERS_PER_TOKEN);
    }
    // Joined words (`don't`, `v1.2.3`), signs, and everything that is not ASCII.
    let latin = word.chars().filter(|c| is_latin(*c)).count();
    latin.div_ceil(RARER_LETTERS_PER_TOKEN) + word.chars().count() - latin
}

fn is_latin(c: char) -> bool {
    c.is_ascii_alphanumeric() || (('\u{c0}'..='\u{24f}').contains(&c) && c.is_alphabetic())
}

/// The beginning of `text` that is estimated at `max_tokens` at most.
pub(crate) fn shorten(text: &str, max_tokens: usize) -> &str {
    // No character is estimated at more than one token.
    if text.len() <= max_tokens {
        return text;
    }
    let mut left = max_tokens;
    for (start, word) in text.split_word_bound_indices() {
        let tokens = estimate_word(word);
        if tokens > left {
            let kept_of_word = word.char_indices().nth(left).map_or(word.len(), |(end, _)| end);
            return &text[..start + kept_of_word];
        }
        left -= tokens;
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_estimated_as_nothing() {
        assert_eq!(estimate_tokens(""), 0);
        assert_eq!(estimate_tokens(" \n\t "), 0);
    }

    #[test]
    fn a_model_of_chinese_that_knows_english_words_too_reads_both() {
        let of_vocabulary = |words: &[String]| {
            let vocabulary: std::collections::BTreeMap<&str, usize> = words
                .iter()
                .map(String::as_str)
                .zip(1..)
                .chain([("[UNK]", 0)])
                .collect();
            let model = serde_json::json!({
                "version": "1.0",
                "added_tokens": [],
                "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]" },
            });
            languages_of(&model.to_string().parse().expect("a tokenizer"))
        };
        let english = Language::English.function_words();
        let characters = "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实什请吗呢它";
        let both: Vec<String> = english
            .iter()
            .cloned()
            .chain(characters.chars().map(String::from))
            .collect();

        assert_eq!(
            of_vocabulary(&both),
            Some(vec![Language::Chinese, Language::English])
        );
        let names_alone: Vec<String> = english
            .iter()
            .cloned()
            .chain("的一不人国大会和中上".chars().map(String::from))
            .collect();
        assert_eq!(of_vocabulary(&names_alone), Some(vec![Language::English]));
    }

    #[test]
    fn a_missing_tokenizer_is_named() {
        let error = Tokenizer::load(Path::new("no/such/tokenizer.json"))
            .err()
            .expect("there is none");

        assert!(error.to_string().contains("no/such/tokenizer.json"), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_shortened_fits(text in ".{0,200}", max_tokens in 0_usize..60) {
            let short = shorten(&text, max_tokens);
            prop_assert!(text.starts_with(short));
            prop_assert!(estimate_tokens(short) <= max_tokens);
            prop_assert!(short.len() == text.len() || estimate_tokens(&text) > max_tokens);
        }

        #[test]
        fn more_text_is_never_estimated_lower(first in ".{0,80}", second in ".{0,80}") {
            let together = estimate_tokens(&format!("{first} {second}"));
            prop_assert!(together >= estimate_tokens(&first));
            prop_assert!(estimate_tokens(&first) <= first.chars().count());
        }
    }
}
