//! Whether a retrieved passage has to do with the question at all.

use retrieval::confidence::Threshold;

use crate::knowledge::Passage;

/// The passages that inspire enough confidence, in their order: without any, nothing is known about the question. What was
/// found always counts at a `min_similarity` of 0.
pub fn keep_relevant(mut passages: Vec<Passage>, min_similarity: f64) -> Vec<Passage> {
    let threshold = Threshold::of_similarity(min_similarity as f32);
    passages.retain(|passage| threshold.is_met_by(passage.confidence));
    passages
}
