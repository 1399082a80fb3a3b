//! Answers without a model: the sentences of the passages that support the question best, word for word and cited.

use std::collections::HashSet;

use super::citation::{Citation, cite};
use super::words::{content_words, sentences};
use crate::knowledge::Passage;

/// Sentences in an answer.
const MAX_SENTENCES: usize = 3;

/// Characters of one sentence, so that a table without full stops does not become the answer.
const MAX_SENTENCE_CHARS: usize = 500;

/// Said before the sentences, so that nobody takes an extract for a worded answer.
pub const LEAD: &str = "From the documents:";

/// An answer made of the passages' own sentences.
pub struct Extract {
    pub text: String,
    pub citations: Vec<Citation>,
}

struct Candidate<'p> {
    passage: usize,
    text: &'p str,
    score: f32,
}

/// The best-supported sentences for `question`; `None` when there are no passages.
pub fn extract(question: &str, passages: &[Passage]) -> Option<Extract> {
    let wanted = content_words(question);
    let mut candidates: Vec<Candidate<'_>> = Vec::new();
    for (index, passage) in passages.iter().enumerate() {
        let around: HashSet<String> = content_words(&format!(
            "{} {}",
            passage.title,
            passage.heading.as_deref().unwrap_or_default()
        ));
        for (start, end) in sentences(&passage.text) {
            let text = &passage.text[start..end];
            candidates.push(Candidate {
                passage: index,
                text,
                score: score(text, &wanted, &around) * passage.score,
            });
        }
    }
    candidates.sort_by(|one, other| {
        other
            .score
            .total_cmp(&one.score)
            .then(one.passage.cmp(&other.passage))
    });
    let best = candidates.first()?.score;
    candidates.retain(|candidate| candidate.score >= best / 2.0);
    candidates.dedup_by(|one, other| one.text == other.text);
    candidates.truncate(MAX_SENTENCES);

    let mut citations: Vec<Citation> = Vec::new();
    let mut text = LEAD.to_owned();
    for candidate in &candidates {
        let passage = &passages[candidate.passage];
        let marker = match citations
            .iter()
            .find(|citation| citation.chunk_id == passage.chunk_id)
        {
            Some(citation) => citation.marker,
            None => {
                citations.push(cite(passage, citations.len() + 1, candidate.text));
                citations.len()
            }
        };
        text.push_str(&format!("\n\n{} [{marker}]", shorten(candidate.text)));
    }
    Some(Extract { text, citations })
}

/// Higher is better: the share of the question's words in the sentence, and half of those in the headings above it.
/// A sentence of hardly any words of its own (a heading, a label) says little.
fn score(sentence: &str, wanted: &HashSet<String>, around: &HashSet<String>) -> f32 {
    let words = content_words(sentence);
    let own = wanted.intersection(&words).count() as f32;
    let near = wanted
        .iter()
        .filter(|word| around.contains(*word) && !words.contains(*word))
        .count() as f32;
    let says_something = if words.len() <= 3 || sentence.ends_with('?') {
        0.3
    } else {
        1.0
    };
    (0.1 + (own + near / 2.0) / wanted.len().max(1) as f32) * says_something
}

fn shorten(sentence: &str) -> String {
    match sentence.char_indices().nth(MAX_SENTENCE_CHARS) {
        None => sentence.to_owned(),
        Some((index, _)) => format!("{}…", sentence[..index].trim_end()),
    }
}
