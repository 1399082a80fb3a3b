//! What a question asks an index for: its terms, which of them are forms of one word, and what to ask for instead where the
//! tenant's chunks do not have a code as it was written.

use std::collections::{BTreeMap, BTreeSet};

use super::stem::Rules;
use super::{LARGEST_WEIGHT, Language, Side, codes, hash, language, terms};

/// What no more chunks have than this is rare in any tenant.
pub(crate) const FEW: u64 = 5;

/// What a question asks for: its different terms in rising order, and for each the word that it is a form of.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct QueryTerms {
    pub(crate) hashes: Vec<u32>,
    pub(crate) words: Vec<u32>,
    /// Parts of its codes, which are asked for where no chunk has the code whole. None of them is among the others.
    pub(crate) parts: Vec<CodePart>,
    /// The words that are codes, letters with digits.
    pub(crate) codes: BTreeSet<u32>,
}

/// A term that is a part of a code.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CodePart {
    pub(crate) hash: u32,
    /// The word that it is a form of.
    pub(crate) word: u32,
    /// The word that the whole code is.
    pub(crate) code: u32,
}

impl QueryTerms {
    /// These terms and all parts of codes, in rising order: of what it has to be known how many chunks have it.
    pub(crate) fn with_all_parts(&self) -> Vec<u32> {
        let parts = self.parts.iter().map(|part| part.hash);
        let mut all: Vec<u32> = self.hashes.iter().copied().chain(parts).collect();
        all.sort_unstable();
        all
    }

    /// The terms that are codes as they were written. Whether one is there is to be told by what the search may see: the code of
    /// another chatbot, or of a document that the asker may not read, keeps nobody from what has its parts.
    pub(crate) fn whole_codes(&self) -> Vec<u32> {
        let has_parts = |word: u32| self.parts.iter().any(|part| part.code == word);
        let forms = self.hashes.iter().zip(&self.words);
        forms
            .filter(|(_, word)| self.codes.contains(word) || has_parts(**word))
            .map(|(hash, _)| *hash)
            .collect()
    }

    /// What to ask for, where `having` tells how many chunks have a term, and of [`QueryTerms::whole_codes`] none where the search
    /// may see none: of codes that none has their parts as well. The whole code stays among the words, so that nobody takes its
    /// parts for it.
    pub(crate) fn settle(&self, having: impl Fn(u32) -> u64) -> Self {
        let is_known = |term| having(term) > 0;
        let mut word_of: BTreeMap<u32, u32> = self
            .hashes
            .iter()
            .copied()
            .zip(self.words.iter().copied())
            .collect();
        let is_known_code = |code: u32| {
            let forms = self.hashes.iter().zip(&self.words);
            forms
                .filter(|(_, word)| **word == code)
                .any(|(hash, _)| is_known(*hash))
        };
        for part in &self.parts {
            if is_known(part.hash) && !is_known_code(part.code) {
                word_of.insert(part.hash, part.word);
            }
        }
        let (hashes, words) = word_of.into_iter().unzip();
        Self {
            hashes,
            words,
            parts: Vec::new(),
            codes: self.codes.clone(),
        }
    }

    /// The terms that are forms of codes.
    pub(crate) fn of_codes(&self) -> impl Iterator<Item = u32> {
        let forms = self.hashes.iter().zip(&self.words);
        forms
            .filter(|(_, word)| self.codes.contains(word))
            .map(|(hash, _)| *hash)
    }

    /// Whether a code is asked for that some chunks have, but no more than [`FEW`]: then what names it is meant, however alike
    /// it is to other chunks. `having` is as for [`QueryTerms::settle`].
    pub(crate) fn name_rare_code(&self, having: impl Fn(u32) -> u64) -> bool {
        self.of_codes().any(|code| (1..=FEW).contains(&having(code)))
    }

    /// The score of a chunk that said nothing but the question's words, each as strongly as a chunk can: what scores by words
    /// are a share of. `frequencies` are the terms' inverse document frequencies; of the forms of a word the most used counts.
    /// A term that no chunk has is to be told as one that a single chunk has: else it would outweigh all others of a tenant with
    /// few chunks.
    pub(crate) fn ceiling(&self, frequencies: &[f32]) -> f32 {
        let mut least: BTreeMap<u32, f32> = BTreeMap::new();
        for (word, frequency) in self.words.iter().zip(frequencies) {
            let least = least.entry(*word).or_insert(f32::INFINITY);
            *least = least.min(*frequency);
        }
        least
            .into_values()
            .map(|frequency| LARGEST_WEIGHT * frequency)
            .sum()
    }
}

/// The terms of a question, by the rules of all `languages` that it may be in, the likeliest first; where none is given the text
/// tells them.
pub(crate) fn query_terms(text: &str, languages: &[Language]) -> QueryTerms {
    let told = match languages {
        [] => language::plausible(text),
        _ => languages.to_vec(),
    };
    let mut rules: Vec<Rules> = told
        .into_iter()
        .map(|language| Rules::of(Some(language)))
        .collect();
    if !rules
        .iter()
        .any(|rules| rules.language() == Some(Language::English))
    {
        // The rules of no language in particular are those of a script's most usual one.
        rules.push(Rules::of(None));
    }
    let asked = read(text, &rules);
    if asked.hashes.is_empty() && languages.len() != 1 && language::detect(text).is_none() {
        // A word of no topic in the languages that have most of them may be one in Vietnamese, whose words are as short.
        return read(text, &[Rules::of(Some(Language::Vietnamese))]);
    }
    asked
}

fn read(text: &str, rules: &[Rules]) -> QueryTerms {
    let mut word_of: BTreeMap<u32, u32> = BTreeMap::new();
    let mut part_of: BTreeMap<u32, CodePart> = BTreeMap::new();
    let mut codes = BTreeSet::new();
    let (mut words, mut word, mut part) = (0, 0, 0);
    terms(text, Side::Query, rules, |term| {
        words += u32::from(!term.is_another_form);
        let hash = hash(term.text);
        if term.is_part_of_code {
            // A single letter or digit says nothing about which code.
            if term.text.chars().nth(1).is_none() {
                return;
            }
            if !term.is_another_form {
                part = words;
            }
            part_of.entry(hash).or_insert(CodePart {
                hash,
                word: part,
                code: word,
            });
            return;
        }
        if !term.is_another_form {
            word = words;
        }
        if codes::is_code(term.text) {
            codes.insert(word);
        }
        word_of.entry(hash).or_insert(word);
    });
    part_of.retain(|hash, _| !word_of.contains_key(hash));
    let (hashes, words) = word_of.into_iter().unzip();
    QueryTerms {
        hashes,
        words,
        parts: part_of.into_values().collect(),
        codes,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{TextLanguages, weigh_document};
    use super::*;

    #[test]
    fn parts_of_a_code_are_asked_for_where_nobody_has_it_whole() {
        let settled = |question: &str, document: &str| {
            let offered = weigh_document(document, Some(Language::English)).hashes;
            let having = |term: u32| u64::from(offered.binary_search(&term).is_ok());
            let asked = query_terms(question, &[Language::English]);
            let settled = asked.settle(having);
            let met = settled.hashes.iter().filter(|term| having(**term) > 0).count();
            (met, settled.hashes.len())
        };

        assert_eq!(settled("v1.2.3", "release v1.2.3 is out"), (1, 1));
        assert_eq!(
            settled("example.com", "www.example.com"),
            (2, 3),
            "the whole one is still missed"
        );
        assert_eq!(settled("XM50", "WH-1000XM50"), (2, 3));
        assert_eq!(settled("XM5", "WH-1000XM5"), (1, 2), "a digit alone says nothing");
        assert_eq!(settled("3.5mm", "3.5 mm"), (2, 3));
        assert_eq!(
            settled("10.0.0.1", "0 to 10 in 1 step"),
            (0, 1),
            "digits alone say nothing"
        );
        assert_eq!(settled("4711", "XK-4712"), (0, 1));
    }

    #[test]
    fn a_code_is_rare_where_some_chunks_have_it_but_few() {
        let is_rare = |question, having| query_terms(question, &[]).name_rare_code(|_| having);

        for question in ["How often is table T1234 oiled?", "part XK-4711", "xm5", "v1.2.3"] {
            assert!(is_rare(question, 1) && is_rare(question, FEW), "{question}");
            assert!(!is_rare(question, 0), "{question}: nobody has it");
            assert!(!is_rare(question, FEW + 1), "{question}: many have it");
        }
        for question in [
            "How long may I return shoes?",
            "within 30 days",
            "in 1998",
            "1,000 francs",
        ] {
            assert!(!is_rare(question, 1), "{question}: no code");
        }
    }

    #[test]
    fn a_word_alone_is_asked_for_by_the_rules_of_the_texts_that_are_there() {
        for (word, text, language) in [
            (
                "Rücksendungen",
                "Jede Rücksendung ist kostenlos, und das gilt immer.",
                Language::German,
            ),
            (
                "devoluciones",
                "Las devoluciones de los artículos son gratis para todos.",
                Language::Spanish,
            ),
            (
                "State",
                "Die Universität von New York State ist nicht die einzige und auch nicht die erste.",
                Language::German,
            ),
            (
                "GARANZIA",
                "La garanzia di questi articoli vale per tutti gli anni.",
                Language::Italian,
            ),
            (
                "toimitukset",
                "Kaikki toimitukset ovat ilmaisia, kun tilaat meiltä ja maksat heti.",
                Language::Finnish,
            ),
            (
                "доставку",
                "Стоимость доставки зависит от того, как и куда мы везём.",
                Language::Russian,
            ),
        ] {
            let offered = weigh_document(text, Some(language)).hashes;
            let is_met = |languages: &[Language]| {
                let languages = TextLanguages::new(languages.to_vec(), &[]);
                let asked = query_terms(word, &languages.of_question(word).read_by);
                asked
                    .hashes
                    .iter()
                    .any(|term| offered.binary_search(term).is_ok())
            };
            assert!(is_met(&[language]), "{word}");
            assert!(is_met(&[Language::French, language, Language::English]), "{word}");
        }
    }

    #[test]
    fn a_code_alone_is_asked_for_as_it_is_whatever_texts_are_there() {
        for code in ["w77", "XK-4711", "a4s"] {
            let languages = TextLanguages::new(Language::ALL.to_vec(), &[]);
            let asked = query_terms(code, &languages.of_question(code).read_by);
            assert_eq!(asked, query_terms(code, &[]), "{code}");
        }
    }

    #[test]
    fn one_short_word_is_asked_for_though_others_have_it_for_no_topic() {
        for word in ["con", "đi", "mì", "lò", "trà"] {
            assert!(!query_terms(word, &[]).hashes.is_empty(), "{word}");
        }
        assert!(query_terms("what is it", &[]).hashes.is_empty());
    }

    #[test]
    fn forms_of_one_word_are_known_as_such() {
        let asked = query_terms("Panthers", &[Language::German]);

        assert_eq!(asked.hashes.len(), 2);
        assert_eq!(asked.words[0], asked.words[1]);
        assert_ne!(
            query_terms("goods refund", &[]).words[0],
            query_terms("goods refund", &[]).words[1]
        );
    }
}
