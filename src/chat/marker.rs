//! Markers in an answer, tied to the passages that the turn retrieved.
//!
//! The model is told to write `[2]` behind what passage 2 supports, and also writes `[1, 2]`, `[1-3]` and `【2】`: a list of
//! numbers and ranges in brackets is a marker. What leaves here is numbered anew in the order of first use, so that marker
//! `[n]` is the n-th citation; a marker that names no passage is removed, and nothing else that leaves reads as one.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use super::citation::{Citation, cite};
use super::quote::MAX_QUOTE_CHARS;
use super::sentences::sentences;
use crate::knowledge::Passage;

/// Longest text held back while it may become a marker: `[12, 13, 14]` and white space before it.
const MAX_HELD_BYTES: usize = 48;

const OPENING: [char; 2] = ['[', '【'];
const CLOSING: [char; 2] = [']', '】'];
const BETWEEN_NUMBERS: [char; 2] = [',', ';'];
const WITHIN_RANGES: [char; 2] = ['-', '–'];

/// A piece of the answer on its way out.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// Text to append, renumbered markers included.
    Text(String),
    /// A passage is cited for the first time; its marker comes in the next text.
    Citation(Box<Citation>),
}

/// Turns the model's text into checked pieces, as it streams.
pub struct MarkerFilter<'p> {
    passages: &'p [Passage],
    /// What the answer is about, where its own words do not say it.
    question: &'p str,
    /// For each passage, its number in the answer.
    number_of: Vec<Option<usize>>,
    citations: Vec<Citation>,
    /// Text that may be the beginning of a marker, with the white space before it.
    held: String,
    /// What was said since the last sentence ended: the claim that a marker supports.
    claim: String,
    /// While all that was said since a bracket was opened could stand in a marker: whether a number was among it.
    unclosed: Option<bool>,
}

impl<'p> MarkerFilter<'p> {
    /// For an answer to `question` over these passages, numbered from 1 in this order.
    pub fn new(passages: &'p [Passage], question: &'p str) -> Self {
        Self {
            passages,
            question,
            number_of: vec![None; passages.len()],
            citations: Vec::new(),
            held: String::new(),
            claim: String::new(),
            unclosed: None,
        }
    }

    /// Takes the next part of the model's text.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut out = String::with_capacity(text.len());
        for character in text.chars() {
            self.take(character, &mut out, &mut pieces);
        }
        flush(&mut out, &mut pieces);
        pieces
    }

    /// The model's text has ended: what was held back is text after all.
    pub fn finish(&mut self) -> Vec<Piece> {
        let (mut out, mut pieces) = (String::new(), Vec::new());
        self.let_go(&mut out);
        flush(&mut out, &mut pieces);
        pieces
    }

    /// All citations so far, the n-th for marker `[n]`.
    pub fn into_citations(self) -> Vec<Citation> {
        self.citations
    }

    fn take(&mut self, character: char, out: &mut String, pieces: &mut Vec<Piece>) {
        let in_marker = self.held.contains(OPENING);
        let goes_on = if in_marker {
            may_stand_in_marker(character)
        } else {
            character == ' '
        };
        if in_marker && CLOSING.contains(&character) {
            self.end_marker(character, out, pieces);
        } else if OPENING.contains(&character) {
            // Whatever was held was no marker, but its white space may belong to this one.
            if in_marker {
                self.let_go(out);
            }
            self.held.push(character);
        } else if goes_on && self.held.len() < MAX_HELD_BYTES {
            self.held.push(character);
        } else {
            self.let_go(out);
            self.say(character, out);
        }
    }

    /// What was held back is the model's own text.
    fn let_go(&mut self, out: &mut String) {
        let held = std::mem::take(&mut self.held);
        held.chars().for_each(|character| self.say(character, out));
    }

    /// Passes on a character of the model's own text. One that would make a marker of what was said before is left out:
    /// that was let go as too long, or a marker that was removed stood in it.
    fn say(&mut self, character: char, out: &mut String) {
        if OPENING.contains(&character) {
            self.unclosed = Some(false);
        } else if CLOSING.contains(&character) {
            if self.unclosed == Some(true) {
                return;
            }
            self.unclosed = None;
        } else if may_stand_in_marker(character) {
            self.unclosed = self
                .unclosed
                .map(|has_number| has_number || character.is_ascii_digit());
        } else {
            self.unclosed = None;
        }
        out.push(character);
        self.note(character);
    }

    fn note(&mut self, character: char) {
        self.claim.push(character);
        if character == '\n' {
            self.claim.clear();
        }
        if self.claim.len() > 4 * MAX_QUOTE_CHARS {
            let keep = self
                .claim
                .char_indices()
                .nth(self.claim.chars().count() / 2)
                .map_or(0, |(index, _)| index);
            self.claim.drain(..keep);
        }
    }

    /// `held` is white space, a bracket and what may stand in a marker: replaces it by the numbers of passages that exist.
    fn end_marker(&mut self, closing: char, out: &mut String, pieces: &mut Vec<Piece>) {
        let held = std::mem::take(&mut self.held);
        let (space, inside) = held.split_once(OPENING).unwrap_or(("", ""));
        let Some(ranges) = read_marker(inside) else {
            // Empty brackets and the like are the model's own text.
            self.unclosed = None;
            for character in held.chars().chain([closing]) {
                out.push(character);
                self.note(character);
            }
            return;
        };
        let mut numbers = Vec::new();
        for range in ranges {
            let last = (*range.end()).min(self.passages.len());
            for wanted in (*range.start()).max(1)..=last {
                let number = self.cite_passage(wanted - 1, out, pieces);
                if !numbers.contains(&number) {
                    numbers.push(number);
                }
            }
        }
        if !numbers.is_empty() {
            self.unclosed = None;
            out.push_str(space);
            for number in numbers {
                out.push_str(&format!("[{number}]"));
            }
        }
    }

    /// The number of a passage in the answer. One that had none yet is cited now.
    fn cite_passage(&mut self, index: usize, out: &mut String, pieces: &mut Vec<Piece>) -> usize {
        if let Some(number) = self.number_of[index] {
            return number;
        }
        let number = self.citations.len() + 1;
        let claim = last_sentence(&self.claim);
        let citation = cite(&self.passages[index], number, claim, self.question);
        self.number_of[index] = Some(number);
        flush(out, pieces);
        pieces.push(Piece::Citation(Box::new(citation.clone())));
        self.citations.push(citation);
        number
    }
}

fn may_stand_in_marker(character: char) -> bool {
    character.is_ascii_digit()
        || matches!(character, ' ' | '^')
        || BETWEEN_NUMBERS.contains(&character)
        || WITHIN_RANGES.contains(&character)
}

/// The numbers that a marker names, by what stands in its brackets; `None` when that is no list of numbers and ranges.
fn read_marker(inside: &str) -> Option<Vec<RangeInclusive<usize>>> {
    let list = inside.trim_start_matches([' ', '^']);
    list.split(BETWEEN_NUMBERS).map(read_range).collect()
}

fn read_range(text: &str) -> Option<RangeInclusive<usize>> {
    let ends: Option<Vec<usize>> = text.split(WITHIN_RANGES).map(read_number).collect();
    let ends = ends?;
    Some(*ends.iter().min()?..=*ends.iter().max()?)
}

fn read_number(text: &str) -> Option<usize> {
    let text = text.trim_matches(' ');
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // One that is too large names no passage.
    is_number.then(|| text.parse().unwrap_or(usize::MAX))
}

/// An answer's text without its markers.
pub fn without_markers(text: &str) -> Cow<'_, str> {
    if !text.contains(OPENING) {
        return Cow::Borrowed(text);
    }
    let mut filter = MarkerFilter::new(&[], "");
    let pieces = filter.push(text).into_iter().chain(filter.finish());
    let texts = pieces.map(|piece| match piece {
        Piece::Text(text) => text,
        Piece::Citation(_) => String::new(),
    });
    Cow::Owned(texts.collect())
}

fn flush(out: &mut String, pieces: &mut Vec<Piece>) {
    if !out.is_empty() {
        pieces.push(Piece::Text(std::mem::take(out)));
    }
}

fn last_sentence(claim: &str) -> &str {
    sentences(claim)
        .last()
        .map_or(claim, |(start, end)| &claim[start..end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::citation::tests::passage;
    use super::*;

    fn run(passages: &[Passage], parts: &[&str]) -> (String, Vec<Citation>) {
        let mut filter = MarkerFilter::new(passages, "How long may I return goods?");
        let mut text = String::new();
        let mut pieces: Vec<Piece> = parts.iter().flat_map(|part| filter.push(part)).collect();
        pieces.extend(filter.finish());
        for piece in pieces {
            if let Piece::Text(part) = piece {
                text.push_str(&part);
            }
        }
        (text, filter.into_citations())
    }

    #[test]
    fn markers_are_numbered_in_order_of_first_use() {
        let passages = [passage("One."), passage("Two."), passage("Three.")];

        let (text, citations) = run(&passages, &["A [3]. B [1]", "[3]."]);

        assert_eq!(text, "A [1]. B [2][1].");
        assert_eq!(
            citations
                .iter()
                .map(|citation| citation.chunk_id)
                .collect::<Vec<_>>(),
            [passages[2].chunk_id, passages[0].chunk_id]
        );
    }

    #[test]
    fn a_marker_that_names_no_passage_is_removed_with_the_space_before_it() {
        let passages = [passage("One.")];

        let (text, citations) = run(&passages, &["A [7], b [0] and c [", "99", "]. D [1, 5]."]);

        assert_eq!(text, "A, b and c. D [1].");
        assert_eq!(citations.len(), 1);
    }

    #[test]
    fn lists_ranges_and_lenticular_brackets_are_markers() {
        let passages = [passage("One."), passage("Two."), passage("Three.")];

        for (answer, expected) in [
            ("A [1-3].", "A [1][2][3]."),
            ("A [2–9].", "A [1][2]."),
            ("A [3-2].", "A [1][2]."),
            ("A [1;9].", "A [1]."),
            ("A 【9】, b 【2】.", "A, b [1]."),
            ("A [ ^1, 2 - 3 ].", "A [1][2][3]."),
            ("A [4-99999999999999999999999].", "A."),
        ] {
            assert_eq!(run(&passages, &[answer]).0, expected, "{answer}");
        }
    }

    #[test]
    fn no_removal_makes_a_marker_of_what_stands_around() {
        let passages = [passage("One.")];
        let long = format!("A [{}1]", "1, ".repeat(40));

        for (answer, expected) in [
            ("A [[7]1] end", "A [1 end"),
            ("A [1[7]] end", "A [1 end"),
            ("A [1[7]]] end", "A [1 end"),
            ("A [[1]] end", "A [[1]] end"),
            ("A [[7]] end", "A [] end"),
            (long.as_str(), long.trim_end_matches(']')),
        ] {
            let (text, citations) = run(&passages, &[answer]);

            assert_eq!(text, expected, "{answer}");
            assert_eq!(citations.len(), usize::from(text.contains("[1]")), "{answer}");
        }
    }

    #[test]
    fn other_brackets_are_the_models_own_text() {
        let passages = [passage("One.")];
        let answer = "See [the list](x), a[i], [], [ ], [1st], a[-1], [1,], 【注】 and [";

        assert_eq!(run(&passages, &[answer]).0, answer);
    }

    #[test]
    fn the_quote_never_is_a_heading_where_a_sentence_says_it() {
        let passages = [passage(
            "Returns\nWe ship on all Mondays. Goods may be returned within 30 days. Call us.",
        )];

        for answer in [
            "You have 30 days [1].",
            "Yes [1].",
            "[1]",
            "Dreissig Tage [1].",
            "Returns are possible [1].",
        ] {
            assert_eq!(
                run(&passages, &[answer]).1[0].quote,
                "Goods may be returned within 30 days.",
                "{answer}"
            );
        }
    }

    #[test]
    fn the_claim_is_the_same_however_the_text_is_cut() {
        let passages = [passage(
            "We ship on all Mondays. Parcels weigh ten pounds. Goods may be returned.",
        )];
        let answer = "All parcels weigh ten pounds [1].";

        for cut in 1..answer.len() {
            assert_eq!(
                run(&passages, &[&answer[..cut], &answer[cut..]]).1[0].quote,
                "Parcels weigh ten pounds.",
                "{cut}"
            );
        }
    }

    #[test]
    fn the_quote_is_the_sentence_that_supports_the_claim() {
        let passages = [passage(
            "We ship on Mondays. Goods may be returned within 30 days. Call us.",
        )];

        let (_, citations) = run(&passages, &["Hello. You can return goods for 30 days [1]."]);

        assert_eq!(citations[0].quote, "Goods may be returned within 30 days.");
        assert_eq!((citations[0].start, citations[0].end), (120, 157));
    }

    proptest! {
        #[test]
        fn text_without_brackets_passes_unchanged_however_it_is_cut(text in "[^\\[\\]【】]{0,80}", cut in 0usize..80) {
            let passages = [passage("One.")];
            let cut = text.char_indices().map(|(index, _)| index).nth(cut).unwrap_or(text.len());

            prop_assert_eq!(run(&passages, &[&text[..cut], &text[cut..]]).0, text);
        }

        #[test]
        fn every_marker_that_leaves_has_its_citation_however_the_text_is_cut(
            text in "([a-z .]{0,3}[\\[【]{0,2}[0-9,;–^ -]{0,4}[\\]】]{0,2}){0,12}",
            cut in 0usize..100,
        ) {
            let passages = [passage("One."), passage("Two."), passage("Three.")];
            let cut = text.char_indices().map(|(index, _)| index).nth(cut).unwrap_or(text.len());

            let (out, citations) = run(&passages, &[&text[..cut], &text[cut..]]);

            let markers = markers_in(&out);
            for marker in &markers {
                prop_assert!((1..=citations.len()).any(|number| *marker == format!("[{number}]")), "{} in {:?}", marker, out);
            }
            for citation in &citations {
                prop_assert!(markers.contains(&format!("[{}]", citation.marker)), "{:?}", out);
            }
            prop_assert_eq!(run(&passages, &[&text]).0, out);
        }
    }

    /// Whatever a reader could take for a marker.
    fn markers_in(text: &str) -> Vec<String> {
        let mut markers = Vec::new();
        for (start, opening) in text.match_indices(OPENING) {
            let inside = &text[start + opening.len()..];
            let Some((end, _)) = inside
                .char_indices()
                .find(|(_, character)| !may_stand_in_marker(*character))
            else {
                continue;
            };
            let closing = inside[end..]
                .chars()
                .next()
                .filter(|closing| CLOSING.contains(closing));
            if let Some(closing) = closing
                && read_marker(&inside[..end]).is_some()
            {
                markers.push(format!("{opening}{}{closing}", &inside[..end]));
            }
        }
        markers
    }
}
