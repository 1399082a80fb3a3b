//! The keyword side: text to terms, terms to BM25 weights (Robertson and Zaragoza, "The Probabilistic Relevance
//! Framework", 2009).
//!
//! A chunk becomes its terms with their frequencies, saturated and normalised by length; a question becomes its terms; an
//! index multiplies by the inverse document frequency among the tenant's chunks. Both go through [`terms`], and terms are
//! stored as hashes: changing anything here makes stored chunks unfindable, so it needs a new [`ANALYSIS`].

use std::collections::{BTreeMap, BTreeSet};

use qdrant_rust_stemmers::{Algorithm, Stemmer};
use unicode_normalization::UnicodeNormalization;
use unicode_segmentation::UnicodeSegmentation;

/// Number of the rules in this file; part of what an index writes down about itself.
pub(super) const ANALYSIS: u32 = 1;

/// How fast further occurrences of a term stop counting.
const SATURATION: f32 = 1.2;

/// How much a long chunk is marked down, from 0 (not) to 1 (in full proportion).
const LENGTH_WEIGHT: f32 = 0.75;

/// Terms in a chunk of usual length, stop words not counted. Fixed, so that a weight never depends on other chunks.
const USUAL_LENGTH: f32 = 100.0;

/// Longer "words" are data, not language; their beginning is enough to find them again.
const MAX_TERM_CHARS: usize = 64;

/// English words that carry no topic. Other languages rely on the inverse document frequency.
const STOP_WORDS: &[&str] = &[
    "a", "about", "an", "and", "are", "as", "at", "be", "been", "but", "by", "can", "could", "did", "do",
    "does", "for", "from", "had", "has", "have", "how", "i", "if", "in", "into", "is", "it", "its", "me",
    "my", "of", "on", "or", "our", "shall", "should", "so", "than", "that", "the", "their", "them", "then",
    "there", "these", "they", "this", "those", "to", "was", "we", "were", "what", "when", "where", "which",
    "who", "will", "with", "would", "you", "your",
];

/// A sparse vector: term hashes in rising order, each once, and the weight of each.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct SparseTerms {
    pub(super) hashes: Vec<u32>,
    pub(super) weights: Vec<f32>,
}

impl SparseTerms {
    fn from_sorted(entries: impl Iterator<Item = (u32, f32)>) -> Self {
        let (hashes, weights) = entries.unzip();
        Self { hashes, weights }
    }
}

/// The BM25 weights of a chunk, without the inverse document frequency.
pub(super) fn weigh_document(text: &str) -> SparseTerms {
    let mut count_of: BTreeMap<u32, u32> = BTreeMap::new();
    let mut length = 0_u32;
    terms(text, Side::Document, |term| {
        *count_of.entry(hash(term)).or_default() += 1;
        length += 1;
    });
    let length_factor = 1.0 - LENGTH_WEIGHT + LENGTH_WEIGHT * length as f32 / USUAL_LENGTH;
    SparseTerms::from_sorted(count_of.into_iter().map(|(term, count)| {
        let count = count as f32;
        (
            term,
            count * (SATURATION + 1.0) / (count + SATURATION * length_factor),
        )
    }))
}

/// The different terms of a question, in rising order.
pub(super) fn query_terms(text: &str) -> Vec<u32> {
    let mut distinct = BTreeSet::new();
    terms(text, Side::Query, |term| {
        distinct.insert(hash(term));
    });
    distinct.into_iter().collect()
}

/// Documents offer more terms than a query asks for, so that a query finds them by each of its own.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Document,
    Query,
}

/// Calls `emit` for each term of `text`, in order.
fn terms(text: &str, side: Side, mut emit: impl FnMut(&str)) {
    let folded = fold(text);
    // Characters of a script that puts no spaces between words, in a row.
    let mut run: Vec<&str> = Vec::new();
    let mut run_end = 0;
    for (start, word) in folded.unicode_word_indices() {
        if word.chars().next().is_some_and(has_no_word_spaces) {
            if start != run_end {
                emit_run(&mut run, side, &mut emit);
            }
            run.extend(word.graphemes(true));
            run_end = start + word.len();
        } else {
            emit_run(&mut run, side, &mut emit);
            emit_word(word, side, &mut emit);
        }
    }
    emit_run(&mut run, side, &mut emit);
}

/// Compatibility forms and letter case fall together, and accents on letters that are read without them too.
fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.nfkd()
        .filter(|c| !('\u{300}'..='\u{36f}').contains(c))
        .nfc()
        .flat_map(char::to_lowercase)
        .collect()
}

/// Han, kana, Hangul, Thai, Lao, Khmer, Burmese: indexed by pairs of neighbouring characters.
fn has_no_word_spaces(c: char) -> bool {
    matches!(c,
        '\u{0e00}'..='\u{0eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{1100}'..='\u{11ff}'
        | '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// Pairs of neighbours; single characters too where they may be asked for alone.
fn emit_run(run: &mut Vec<&str>, side: Side, emit: &mut impl FnMut(&str)) {
    let alone = run.len() == 1;
    for pair in run.windows(2) {
        emit(&format!("{}{}", pair[0], pair[1]));
    }
    if alone || side == Side::Document {
        run.iter().for_each(|character| emit(character));
    }
    run.clear();
}

/// One word as Unicode cuts it: whole when it is joined by dots or the like (`v1.2.3`, `example.com`), then its parts.
fn emit_word(word: &str, side: Side, emit: &mut impl FnMut(&str)) {
    let is_joint = |c: char| !c.is_alphanumeric();
    let has_apostrophe = word.contains(['\'', '\u{2019}']);
    let is_joined = word.contains(is_joint);
    if is_joined && !has_apostrophe {
        emit(clip(word));
    }
    // A question that names the whole code should not be answered by every chunk with one of its digits.
    if is_joined && !has_apostrophe && side == Side::Query {
        return;
    }
    for part in word.split(is_joint).filter(|part| !part.is_empty()) {
        // What is left of "don't" or "l'eau" beside its word.
        let is_clitic = has_apostrophe && part.chars().nth(1).is_none();
        if is_clitic || STOP_WORDS.binary_search(&part).is_ok() {
            continue;
        }
        emit(&stem(clip(part)));
    }
}

fn clip(term: &str) -> &str {
    match term.char_indices().nth(MAX_TERM_CHARS) {
        Some((end, _)) => &term[..end],
        None => term,
    }
}

/// The stem by the rules of the language most often written in the word's script.
fn stem(word: &str) -> std::borrow::Cow<'_, str> {
    let algorithm = match word.chars().next() {
        Some('a'..='z') if word.bytes().all(|b| b.is_ascii_lowercase()) => Algorithm::English,
        Some('\u{400}'..='\u{4ff}') => Algorithm::Russian,
        Some('\u{370}'..='\u{3ff}') => Algorithm::Greek,
        Some('\u{600}'..='\u{6ff}') => Algorithm::Arabic,
        Some('\u{b80}'..='\u{bff}') => Algorithm::Tamil,
        Some('\u{530}'..='\u{58f}') => Algorithm::Armenian,
        _ => return word.into(),
    };
    Stemmer::create(algorithm).stem(word)
}

/// FNV-1a over the bytes, folded to 32 bits. Stored on disk, so it may never change. Two of a million terms colliding
/// costs a little precision and nothing else.
fn hash(term: &str) -> u32 {
    let wide = term.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (wide >> 32) as u32 ^ wide as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn document_terms(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        terms(text, Side::Document, |term| found.push(term.to_owned()));
        found
    }

    /// Share of the query's terms that the document offers.
    fn coverage(query: &str, document: &str) -> f32 {
        let asked = query_terms(query);
        let offered = weigh_document(document);
        let met = asked
            .iter()
            .filter(|term| offered.hashes.binary_search(term).is_ok())
            .count();
        met as f32 / asked.len().max(1) as f32
    }

    #[test]
    fn stop_words_are_listed_in_order() {
        assert!(STOP_WORDS.is_sorted());
    }

    #[test]
    fn words_meet_in_all_their_forms() {
        assert_eq!(
            document_terms("The returned goods, returning"),
            ["return", "good", "return"]
        );
        assert_eq!(coverage("CAFÉ", "a small cafe\u{301} in town"), 1.0);
        assert_eq!(coverage("cafe", "Café"), 1.0);
        assert_eq!(coverage("ﬁle", "files"), 1.0);
        assert_eq!(coverage("книги", "книга"), 1.0);
    }

    #[test]
    fn apostrophes_leave_the_word_itself() {
        assert_eq!(document_terms("the company's l'eau"), ["compani", "eau"]);
    }

    #[test]
    fn codes_are_found_whole_and_by_their_parts() {
        assert_eq!(coverage("v1.2.3", "release v1.2.3 is out"), 1.0);
        assert_eq!(coverage("example", "write to example.com today"), 1.0);
        assert_eq!(coverage("XK-4711", "part number xk-4711"), 1.0);
        assert_eq!(coverage("4711", "part number XK-4711"), 1.0);
        assert_eq!(coverage("v1.2.3", "release v1.2.4 is out"), 0.0);
    }

    #[test]
    fn scripts_without_spaces_are_found_by_pairs() {
        assert_eq!(coverage("退货", "您可以在三十天内退货。"), 1.0);
        assert_eq!(coverage("返品", "商品は30日以内に返品できます"), 1.0);
        assert_eq!(coverage("天", "三十天内"), 1.0);
        assert_eq!(coverage("คืนสินค้า", "ลูกค้าสามารถคืนสินค้าได้"), 1.0);
        assert!(coverage("退货", "运费由客户承担") < 0.5);
    }

    #[test]
    fn a_term_counts_less_each_time_and_in_a_longer_chunk() {
        let weight_in = |text: &str| {
            let sparse = weigh_document(text);
            let term = hash("refund");
            let position = sparse
                .hashes
                .binary_search(&term)
                .expect("the term is in the text");
            sparse.weights[position]
        };

        let once = weight_in("refund");
        let thrice = weight_in("refund refund refund");
        let in_long = weight_in(&format!("refund {}", "other words follow ".repeat(80)));

        assert!(thrice > once && thrice < 3.0 * once);
        assert!(in_long < once);
    }

    #[test]
    fn nothing_to_say_gives_no_terms() {
        assert_eq!(weigh_document(""), SparseTerms::default());
        assert!(query_terms("the of and ... !?").is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_found_by_itself(text in any::<String>()) {
            let document = weigh_document(&text);
            prop_assert!(document.hashes.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(document.weights.iter().all(|weight| *weight > 0.0 && weight.is_finite()));
            prop_assert!(query_terms(&text).is_empty() || coverage(&text, &text) == 1.0);
        }
    }
}
