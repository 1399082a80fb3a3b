//! Text to terms, terms to BM25 weights (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009).
//!
//! A chunk becomes its terms with their frequencies, saturated and normalised by length; a question becomes its terms; an
//! index multiplies by the inverse document frequency among the tenant's chunks. Both go through [`terms`], and terms are
//! stored as hashes: changing anything here makes stored chunks unfindable, so it needs a new [`ANALYSIS`].
//!
//! A chunk is read by the rules of its own language. A question offers its words by those of each language that it may be
//! in, and of English where the letters are Latin: names and products are the same words in all of them. Accents make no
//! difference, but in Vietnamese, which tells words apart by them.

mod asked;
mod codes;
mod fold;
mod joined;
mod language;
mod named;
mod query_terms;
mod script;
mod stem;
mod stop_words;
mod words;

use std::collections::BTreeMap;

use unicode_normalization::char::is_combining_mark;
use unicode_segmentation::UnicodeSegmentation;

pub use self::asked::Asked;
pub use self::language::{Language, TextLanguages, detect};
pub use self::named::NamedCodes;
pub use self::words::Words;

pub(crate) use self::asked::each_stem;
use self::fold::{fold_but_accents, has_accents, with_tones_last, without_accents};
use self::joined::Joined;
pub(crate) use self::query_terms::{FEW, QueryTerms, query_terms};
pub(crate) use self::script::Script;
use self::stem::Rules;

/// Number of the rules in this module; part of what an index writes down about itself.
pub const ANALYSIS: u32 = 6;

/// How fast further occurrences of a term stop counting.
const SATURATION: f32 = 1.2;

/// No term weighs as much in any chunk: saturation keeps every weight below it.
pub(crate) const LARGEST_WEIGHT: f32 = SATURATION + 1.0;

/// How much a long chunk is marked down, from 0 (not) to 1 (in full proportion).
const LENGTH_WEIGHT: f32 = 0.75;

/// Words in a chunk of usual length, stop words not counted. Fixed, so that a weight never depends on other chunks; with
/// the mean of each collection instead, no set of the evaluation gains or loses a point.
const USUAL_LENGTH: f32 = 100.0;

/// Words that a character stands for where no spaces part them.
const WORDS_PER_CHARACTER: f32 = 0.5;

/// Longer "words" are data, not language; their beginning is enough to find them again.
const MAX_TERM_CHARS: usize = 64;

/// A sparse vector: term hashes in rising order, each once, and the weight of each.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SparseTerms {
    pub(crate) hashes: Vec<u32>,
    pub(crate) weights: Vec<f32>,
}

impl SparseTerms {
    fn from_sorted(entries: impl Iterator<Item = (u32, f32)>) -> Self {
        let (hashes, weights) = entries.unzip();
        Self { hashes, weights }
    }
}

/// The BM25 weights of a chunk, without the inverse document frequency. Without a `language` the text tells it.
pub(crate) fn weigh_document(text: &str, language: Option<Language>) -> SparseTerms {
    let rules = Rules::of(language.or_else(|| detect(text)));
    let mut count_of: BTreeMap<u32, u32> = BTreeMap::new();
    let mut length = 0.0;
    terms(text, Side::Document, &[rules], |term| {
        *count_of.entry(hash(term.text)).or_default() += 1;
        length += term.words;
    });
    let length_factor = 1.0 - LENGTH_WEIGHT + LENGTH_WEIGHT * length / USUAL_LENGTH;
    SparseTerms::from_sorted(count_of.into_iter().map(|(term, count)| {
        let count = count as f32;
        (
            term,
            count * (SATURATION + 1.0) / (count + SATURATION * length_factor),
        )
    }))
}

/// How much a term that `having` of `chunks` chunks have tells them apart. Above 0 for every term.
pub(crate) fn inverse_document_frequency(chunks: u64, having: u64) -> f32 {
    let (chunks, having) = (chunks.max(having) as f64, having as f64);
    (1.0 + (chunks - having + 0.5) / (having + 0.5)).ln() as f32
}

/// Hands `take` what `text` says, in order and each as often as it is there: its words without those of no topic, as an index
/// reads them by the rules of `language` or of a script's most usual one, pairs and single characters where no spaces part
/// words, and codes also by their parts. With each comes how many words it counts for: 0 for another form of one.
pub fn each_content_word(text: &str, language: Option<Language>, mut take: impl FnMut(&str, f32)) {
    terms(text, Side::Document, &[Rules::of(language)], |term| {
        take(term.text, term.words);
    });
}

/// Documents offer more terms than a query asks for, so that a query finds them by each of its own.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Document,
    Query,
}

/// A term on its way into an index or a question.
#[derive(Clone, Copy)]
struct Term<'a> {
    text: &'a str,
    /// What it adds to the length of its text.
    words: f32,
    /// Of the word before: by the rules of another language, joined, or in pieces.
    is_another_form: bool,
    /// Of a question: asked for where nobody has the whole code, which stands before.
    is_part_of_code: bool,
}

impl<'a> Term<'a> {
    fn word(text: &'a str, words: f32) -> Self {
        Self {
            text,
            words,
            is_another_form: false,
            is_part_of_code: false,
        }
    }

    fn another_form(text: &'a str) -> Self {
        Self {
            text,
            words: 0.0,
            is_another_form: true,
            is_part_of_code: false,
        }
    }

    fn of_code(self) -> Self {
        Self {
            is_part_of_code: true,
            ..self
        }
    }
}

/// Calls `emit` for each term of `text`, in order. Each word is read by all of `rules`; what is a stop word by the first
/// of them is none at all.
fn terms(text: &str, side: Side, rules: &[Rules], mut emit: impl FnMut(Term<'_>)) {
    let folded = fold_but_accents(text);
    let folded = match side {
        Side::Query => stop_words::without_question_words(folded),
        Side::Document => folded,
    };
    // Characters of a script that puts no spaces between words, in a row.
    let mut run: Vec<&str> = Vec::new();
    let mut joined = Joined::default();
    let mut end = 0;
    for (start, word) in folded.unicode_word_indices() {
        let between = &folded[end..start];
        end = start + word.len();
        if word.chars().next().is_some_and(Script::has_no_word_spaces) {
            if !between.is_empty() {
                emit_run(&mut run, &mut emit);
            }
            run.extend(word.graphemes(true));
            continue;
        }
        emit_run(&mut run, &mut emit);
        joined.take(between, word, |joined, _| {
            emit_stems(joined, side, rules, true, &mut emit);
        });
        emit_word(word, side, rules, &mut emit);
    }
    joined.end(|joined, _| emit_stems(joined, side, rules, true, &mut emit));
    emit_run(&mut run, &mut emit);
}

/// Pairs of neighbours, and single characters where one may be a word: letters are only where they stand alone.
fn emit_run(run: &mut Vec<&str>, emit: &mut impl FnMut(Term<'_>)) {
    let is_letter = |character: &str| character.starts_with(Script::is_spelled_without_spaces);
    for pair in run.windows(2) {
        let words = if is_letter(pair[0]) {
            WORDS_PER_CHARACTER
        } else {
            0.0
        };
        emit(Term::word(&format!("{}{}", pair[0], pair[1]), words));
    }
    let is_alone = run.len() == 1;
    for character in run.drain(..) {
        if is_alone || !is_letter(character) {
            emit(Term::word(character, WORDS_PER_CHARACTER));
        }
    }
}

/// One word as Unicode cuts it: whole when it is joined by dots or the like (`v1.2.3`, `example.com`), then its parts.
fn emit_word(word: &str, side: Side, rules: &[Rules], emit: &mut impl FnMut(Term<'_>)) {
    let is_joint = |c: char| !c.is_alphanumeric() && !is_combining_mark(c);
    let has_apostrophe = word.contains(['\'', '\u{2019}']);
    let is_joined = word.contains(is_joint) && !has_apostrophe;
    if is_joined {
        emit(Term::word(clip(&without_accents(word)), 0.0));
    }
    let number = codes::plain_number(word);
    if let Some(number) = &number {
        emit(match is_joined {
            true => Term::another_form(clip(number)),
            false => Term::word(clip(number), 0.0),
        });
    }
    if side == Side::Document {
        if let Some((whole, _)) = number.as_ref().and_then(|number| number.split_once('.')) {
            emit(Term::another_form(whole));
        }
        if number.is_none() {
            codes::each_run_of_groups(word, |run| emit(Term::another_form(run)));
        }
    }
    let is_code = is_joined || number.is_some();
    // A question that names the whole code should not be answered by every chunk with one of its digits.
    if side == Side::Query && is_code && !word.contains(char::is_alphabetic) {
        return;
    }
    if let Some(version) = codes::version_number(word) {
        emit(match side {
            Side::Document => Term::another_form(version),
            Side::Query => Term::word(version, 1.0).of_code(),
        });
    }
    if let Some((amount, unit)) = codes::amount_and_unit(word) {
        if side == Side::Query {
            emit(Term::word(amount, 1.0).of_code());
            emit(Term::word(unit, 1.0).of_code());
            return;
        }
        // Its unit is one of the pieces below.
        emit(Term::another_form(amount));
    }
    for part in word.split(is_joint).filter(|part| !part.is_empty()) {
        // What is left of "don't" or "l'eau" beside its word.
        let is_clitic = has_apostrophe && part.chars().nth(1).is_none();
        if is_clitic || rules[0].is_stop_word(part) {
            continue;
        }
        let is_asked_for_itself = side == Side::Document || !is_code;
        emit_stems(part, side, rules, false, &mut |term| {
            emit(if is_asked_for_itself { term } else { term.of_code() });
        });
        codes::each_piece(clip(&without_accents(part)), |piece| {
            emit(match side {
                Side::Document => Term::another_form(piece),
                Side::Query => Term::word(piece, 1.0).of_code(),
            });
        });
    }
}

/// A word by each of `rules`; it counts once for the length, if it is not itself a form of another.
fn emit_stems(
    word: &str,
    side: Side,
    rules: &[Rules],
    is_another_form: bool,
    emit: &mut impl FnMut(Term<'_>),
) {
    let word = clip(word);
    let is_accented = has_accents(word);
    let is_told_by_accents = is_accented && rules[0].tells_accents_apart();
    for (position, rules) in rules.iter().enumerate() {
        let stem = rules.stem(word);
        emit(match is_another_form || position > 0 {
            true => Term::another_form(&stem),
            false => Term::word(&stem, 1.0),
        });
        if is_told_by_accents {
            // It is no name in another language.
            break;
        }
    }
    if is_told_by_accents {
        // As it is typed in haste: what is typed in full means nothing else.
        if side == Side::Document {
            emit(Term::another_form(&without_accents(word)));
        }
    } else if is_accented && rules.iter().any(Rules::may_quote_vietnamese) {
        emit(Term::another_form(&with_tones_last(word)));
    }
}

fn clip(term: &str) -> &str {
    match term.char_indices().nth(MAX_TERM_CHARS) {
        Some((end, _)) => &term[..end],
        None => term,
    }
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
        let rules = [Rules::of(detect(text))];
        terms(text, Side::Document, &rules, |term| {
            found.push(term.text.to_owned())
        });
        found
    }

    /// Share of the query's terms that the document offers.
    fn coverage(query: &str, document: &str) -> f32 {
        let asked = query_terms(query, &[]).hashes;
        let offered = weigh_document(document, None);
        let met = asked
            .iter()
            .filter(|term| offered.hashes.binary_search(term).is_ok())
            .count();
        met as f32 / asked.len().max(1) as f32
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
        assert_eq!(coverage("کتاب ها", "کتاب\u{200c}ها"), 1.0);
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
        assert_eq!(coverage("10.15.7", "release v10.15.7 is out"), 1.0);
        assert_eq!(coverage("8471.30", "tariff 8471.30.01"), 0.5, "no decimal");
        assert_eq!(coverage("10.0.0", "the server 10.0.0.1"), 1.0);
        assert_eq!(coverage("1234", "it costs 1,234.50 francs"), 1.0);
        assert_eq!(coverage("1,234", "a grant of 1,234,567 euros"), 0.0);
        assert_eq!(coverage("1234567", "a grant of 1,234,567 euros"), 1.0);
        assert_eq!(coverage("XK4711", "part number XK-4711"), 1.0);
        assert_eq!(coverage("1000", "it costs 1,000 francs"), 1.0);
        assert_eq!(coverage("1234.5", "Total 1 234,50 EUR due"), 1.0);
        assert_eq!(coverage("7891.25", "Summe 7\u{a0}891,25 EUR"), 1.0);
        assert_eq!(coverage("45678.9", "Prix 45\u{202f}678,90 €"), 1.0);
        assert!(coverage("1 234,50", "it costs 1,234.50 francs") >= 0.5);
        assert_eq!(coverage("245000", "Rent 2,45,000 rupees"), 1.0);
        assert_eq!(coverage("12345.67", "السعر ١٢٬٣٤٥٫٦٧ ريال"), 1.0);
        assert_eq!(coverage("3.5 mm", "a plug of 3.5mm"), 1.0);
        assert_eq!(coverage("4711", "part number XK4711"), 1.0);
        assert_eq!(coverage("emails", "send us an e-mail"), 1.0);
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
    fn letters_are_no_words_where_no_spaces_part_them() {
        assert_eq!(document_terms("ไป"), ["ไป"]);
        assert_eq!(document_terms("กขค"), ["กข", "ขค"]);
        assert_eq!(document_terms("ก 退货"), ["ก", "退货", "退", "货"]);
        for (question, document) in [("คนรัก", "กรุณา"), ("ຫໍ", "ຫມາ")] {
            assert_eq!(coverage(question, document), 0.0, "{question}");
        }
    }

    #[test]
    fn a_question_meets_documents_in_its_own_language_and_names_in_any() {
        let meets = |question: &str, document: &str| coverage(question, document) > 0.0;

        assert!(meets(
            "Wo sind die Rücksendungen?",
            "Jede Rücksendung ist kostenlos, und das gilt immer."
        ));
        assert!(meets(
            "Wer trainiert die Panthers?",
            "The Panthers are trained by him and by her."
        ));
        assert!(meets("мой заказ", "Где мои заказы и что с ними?"));
        assert!(!meets(
            "Wo sind die Rücksendungen?",
            "Die Ware wird von uns geprüft."
        ));
    }

    #[test]
    fn words_of_vietnamese_are_told_apart_by_their_accents_and_found_without() {
        let shops = ["Cửa hàng bán bơ.", "Cửa hàng bán bò.", "Cửa hàng bán bó."];
        for (n, asked) in ["bán bơ ở đâu", "bán bò ở đâu", "bán bó ở đâu"]
            .iter()
            .enumerate()
        {
            let best: Vec<f32> = shops.iter().map(|shop| coverage(asked, shop)).collect();
            assert_eq!(best[n], 1.0, "{asked}");
            assert_eq!(
                best.iter().filter(|share| **share == 1.0).count(),
                1,
                "{asked}: {best:?}"
            );
        }
        assert_eq!(coverage("ban bo", "Cửa hàng bán bơ."), 1.0, "typed in haste");
        for (word, text) in [
            ("trà", "Quán của chúng tôi có trà xanh và trà đá."),
            ("mì", "Cửa hàng bán mì và phở."),
            ("lò", "Lò nướng của bếp chỉ dùng được ba giờ mỗi ngày."),
            ("con mèo", "Con mèo của hàng xóm ngủ cả ngày trên mái nhà."),
            ("đi", "Xe buýt đi từ bến xe đến sân bay mỗi giờ một chuyến."),
            ("phở", "The phở of our kitchen is famous."),
            ("pho", "The phở of our kitchen is famous."),
            ("hòa bình", "Nhà hát Hoà Bình mở cửa từ tám giờ."),
        ] {
            assert_eq!(coverage(word, text), 1.0, "{word}");
        }
    }

    #[test]
    fn question_words_are_not_asked_for_where_no_spaces_part_them() {
        assert_eq!(coverage("退货政策是什么", "退货政策是三十天"), 1.0);
        assert_eq!(query_terms("什么", &[]).hashes.len(), 3);
    }

    #[test]
    fn a_term_counts_less_each_time_and_in_a_longer_chunk() {
        let weight_in = |text: &str| {
            let sparse = weigh_document(text, None);
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
        assert_eq!(weigh_document("", None), SparseTerms::default());
        assert!(query_terms("the of and ... !?", &[]).hashes.is_empty());
    }

    proptest! {
        #[test]
        fn any_text_is_found_by_itself_where_both_sides_take_it_for_english(text in any::<String>()) {
            for language in [None, Some(Language::English)] {
                let document = weigh_document(&text, language);
                prop_assert!(document.hashes.windows(2).all(|pair| pair[0] < pair[1]));
                prop_assert!(document.weights.iter().all(|weight| *weight > 0.0 && weight.is_finite()));
            }
            let offered = weigh_document(&text, Some(Language::English)).hashes;
            let asked = query_terms(&text, &[Language::English]).hashes;
            prop_assert!(asked.iter().all(|term| offered.binary_search(term).is_ok()));
        }
    }
}
