//! Which of the passages that were found a chatbot answers from.

use retrieval::relevance::{Evidence, Relevance};

use crate::knowledge::Passage;

/// The passages that have to do with `question`, in their order. `min_similarity` is the chatbot's.
pub fn keep_relevant(question: &str, passages: Vec<Passage>, min_similarity: f64) -> Vec<Passage> {
    let relevance = Relevance::of(question, min_similarity as f32);
    let counts = |passage: &Passage| {
        let headings = passage.heading.iter().map(String::as_str);
        let names: Vec<&str> = std::iter::once(passage.title.as_str()).chain(headings).collect();
        relevance.is_met_by(&Evidence {
            names: &names,
            text: &passage.text,
            similarity: passage.similarity,
            keyword_score: passage.keyword_score,
            confidence: passage.confidence,
        })
    };
    passages.into_iter().filter(counts).collect()
}
