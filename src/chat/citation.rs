//! Citations: markers in an answer, tied to the passages that the turn retrieved.
//!
//! The model is told to write `[2]` behind what passage 2 supports. What leaves here is numbered anew in the order of
//! first use, so that marker `[n]` is the n-th citation; a marker that names no passage is removed.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::quote::{MAX_QUOTE_CHARS, best_quote};
use super::words::sentences;
use crate::id::{ChunkId, DocumentId};
use crate::knowledge::Passage;

/// Longest text held back while it may become a marker: `[12, 13, 14]` and white space before it.
const MAX_HELD_BYTES: usize = 48;

/// The passage that supports a part of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Citation {
    /// The number in the answer's markers: `[1]` is the first citation.
    pub marker: usize,
    pub document_id: DocumentId,
    pub chunk_id: ChunkId,
    pub title: String,
    /// Where the original can be read: the page's own address, else the file that is kept here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heading: Option<String>,
    /// The words of the passage that support the answer best, exactly as they stand in the document.
    pub quote: String,
    /// Character offsets of the quote in the document's text, end exclusive.
    pub start: i64,
    pub end: i64,
    /// Of the passage, in (0, 1]; higher is nearer.
    pub score: f32,
}

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
        let mut pieces = Vec::new();
        let mut out = std::mem::take(&mut self.held);
        flush(&mut out, &mut pieces);
        pieces
    }

    /// All citations so far, the n-th for marker `[n]`.
    pub fn into_citations(self) -> Vec<Citation> {
        self.citations
    }

    fn take(&mut self, character: char, out: &mut String, pieces: &mut Vec<Piece>) {
        let in_marker = self.held.contains('[');
        let goes_on = if in_marker {
            character.is_ascii_digit() || matches!(character, ',' | ' ' | '^')
        } else {
            character == ' '
        };
        if in_marker && character == ']' {
            self.end_marker(out, pieces);
        } else if character == '[' {
            // Whatever was held was no marker, but its white space may belong to this one.
            if in_marker {
                self.let_go(out);
            }
            self.held.push('[');
        } else if goes_on && self.held.len() < MAX_HELD_BYTES {
            self.held.push(character);
        } else {
            self.let_go(out);
            out.push(character);
            self.note(character);
        }
    }

    /// What was held back is the model's own text.
    fn let_go(&mut self, out: &mut String) {
        let held = std::mem::take(&mut self.held);
        held.chars().for_each(|character| self.note(character));
        out.push_str(&held);
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

    /// `held` is white space, `[` and numbers: replaces them by the numbers of passages that exist.
    fn end_marker(&mut self, out: &mut String, pieces: &mut Vec<Piece>) {
        let held = std::mem::take(&mut self.held);
        let (space, inside) = held.split_once('[').unwrap_or(("", ""));
        let inside = inside.trim_start_matches('^');
        let is_marker = !inside.is_empty()
            && inside.split(',').all(|number| {
                !number.trim().is_empty() && number.trim().bytes().all(|byte| byte.is_ascii_digit())
            });
        if !is_marker {
            // Empty brackets and the like are the model's own text.
            out.push_str(&held);
            out.push(']');
            return;
        }
        let mut numbers = Vec::new();
        for wanted in inside
            .split(',')
            .filter_map(|number| number.trim().parse::<usize>().ok())
        {
            let Some(index) = wanted.checked_sub(1).filter(|index| *index < self.passages.len()) else {
                continue;
            };
            let number = match self.number_of[index] {
                Some(number) => number,
                None => {
                    let citation = cite(
                        &self.passages[index],
                        self.citations.len() + 1,
                        last_sentence(&self.claim),
                        self.question,
                    );
                    self.number_of[index] = Some(citation.marker);
                    flush(out, pieces);
                    pieces.push(Piece::Citation(Box::new(citation.clone())));
                    self.citations.push(citation);
                    self.citations.len()
                }
            };
            if !numbers.contains(&number) {
                numbers.push(number);
            }
        }
        if !numbers.is_empty() {
            out.push_str(space);
            for number in numbers {
                out.push_str(&format!("[{number}]"));
            }
        }
    }
}

/// An answer's text without its markers.
pub fn without_markers(text: &str) -> String {
    let mut filter = MarkerFilter::new(&[], "");
    let pieces = filter.push(text).into_iter().chain(filter.finish());
    let texts = pieces.map(|piece| match piece {
        Piece::Text(text) => text,
        Piece::Citation(_) => String::new(),
    });
    texts.collect()
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

/// The citation of `passage` for `claim`, which is a part of the answer to `question`.
pub fn cite(passage: &Passage, marker: usize, claim: &str, question: &str) -> Citation {
    let (start, end) = best_quote(passage, claim, question);
    let chars_before = passage.text[..start].chars().count() as i64;
    let chars_in = passage.text[start..end].chars().count() as i64;
    Citation {
        marker,
        document_id: passage.document_id,
        chunk_id: passage.chunk_id,
        title: passage.title.clone(),
        url: Some(
            passage
                .url
                .clone()
                .unwrap_or_else(|| format!("/api/documents/{}/file", passage.document_id)),
        ),
        page: passage.page,
        heading: passage.heading.clone(),
        quote: passage.text[start..end].to_owned(),
        start: passage.start + chars_before,
        end: passage.start + chars_before + chars_in,
        score: passage.score,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::knowledge::HEADING_SEPARATOR;

    fn passage(text: &str) -> Passage {
        Passage {
            chunk_id: ChunkId::new(),
            document_id: DocumentId::new(),
            title: "Returns".to_owned(),
            file_name: "returns.md".to_owned(),
            url: None,
            text: text.to_owned(),
            heading: None,
            page: Some(2),
            start: 100,
            end: 100 + text.chars().count() as i64,
            score: 0.9,
            similarity: Some(0.8),
            keyword_score: None,
            confidence: None,
            prompt_tokens: 0,
        }
    }

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
    fn other_brackets_are_the_models_own_text() {
        let passages = [passage("One.")];
        let answer = "See [the list](x), a[i], [], [ ], [1st] and [";

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
    fn no_heading_above_the_passage_is_quoted_however_deep_it_lies() {
        let mut nested =
            passage("If something arrives damaged\nTell us within 7 days of delivery. Keep the box.");
        // As `ingest` writes it: the headings from the outermost, then the header of the table that goes on.
        nested.heading =
            Some(["Returns", "If something arrives damaged", "Item | Days"].join(HEADING_SEPARATOR));

        let citation = cite(
            &nested,
            1,
            "If something arrives damaged, tell us within 7 days",
            "What if something arrives damaged?",
        );

        assert_eq!(citation.quote, "Tell us within 7 days of delivery.");
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
    fn a_question_in_the_text_is_quoted_only_where_nothing_else_is_there() {
        let faq = passage("How long may goods be returned?\nUp to 30 days, unused.");
        let alone = passage("How long may goods be returned?");
        let question = "How long may goods be returned?";

        assert_eq!(
            cite(&faq, 1, "Goods may be returned for long.", question).quote,
            "Up to 30 days, unused."
        );
        assert_eq!(cite(&alone, 1, "Long.", question).quote, question);
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
        fn text_without_brackets_passes_unchanged_however_it_is_cut(text in "[^\\[\\]]{0,80}", cut in 0usize..80) {
            let passages = [passage("One.")];
            let cut = text.char_indices().map(|(index, _)| index).nth(cut).unwrap_or(text.len());

            prop_assert_eq!(run(&passages, &[&text[..cut], &text[cut..]]).0, text);
        }

        #[test]
        fn every_marker_that_leaves_has_its_citation(text in "([a-z ]{0,6}(\\[[0-9]{1,2}(, [0-9])?\\])?){0,12}") {
            let passages = [passage("One."), passage("Two."), passage("Three.")];

            let (out, citations) = run(&passages, &[&text]);

            let mut rest = out.as_str();
            while let Some((_, after)) = rest.split_once('[') {
                let (number, after) = after.split_once(']').expect("markers are closed");
                prop_assert!((1..=citations.len()).contains(&number.parse::<usize>().expect("a number")));
                rest = after;
            }
        }
    }
}
