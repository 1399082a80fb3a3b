//! Citations: what in a document supports an answer, word for word.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::quote::best_quote;
use crate::id::{ChunkId, DocumentId};
use crate::knowledge::Passage;

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
pub(super) mod tests {
    use super::*;
    use crate::knowledge::HEADING_SEPARATOR;

    pub(in crate::chat) use crate::knowledge::sample_passage as passage;

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
}
