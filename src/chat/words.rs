//! Words and sentences, as far as comparing a question, a claim and a passage needs them.

pub use retrieval::analysis::{content_words, each_content_word};
use unicode_segmentation::UnicodeSegmentation as _;

/// The sentences and lines of `text` as byte offsets, trimmed, in order; empty ones are left out.
pub fn sentences(text: &str) -> impl Iterator<Item = (usize, usize)> {
    text.split_inclusive('\n')
        .scan(0, |offset, line| {
            let start = *offset;
            *offset += line.len();
            Some((start, line))
        })
        .flat_map(|(line_start, line)| {
            line.split_sentence_bound_indices()
                .filter_map(move |(index, sentence)| {
                    let trimmed = sentence.trim();
                    let start = line_start + index + (sentence.len() - sentence.trim_start().len());
                    (!trimmed.is_empty()).then_some((start, start + trimmed.len()))
                })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_at_full_stops_and_lines() {
        let text = "One is here. Two!\n\n  Three\n";

        let found: Vec<&str> = sentences(text).map(|(start, end)| &text[start..end]).collect();

        assert_eq!(found, ["One is here.", "Two!", "Three"]);
    }
}
