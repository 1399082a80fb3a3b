//! Whether a retrieved passage has to do with the question at all.
//!
//! A search always finds something. A passage counts when its meaning is near enough, or when it holds enough of the
//! question's own words.

use std::collections::HashSet;

use super::words::content_words;
use crate::knowledge::Passage;

/// Share of the question's content words that a passage must hold when meaning does not speak for it.
const LEAST_COVERAGE: f32 = 0.5;

/// The same where nothing but words was compared and the question has a single content word.
const SINGLE_WORD_COVERAGE: f32 = 1.0;

/// The passages that have to do with `question`, in their order.
///
/// `min_similarity` is the cosine from which on meaning alone speaks for a passage.
pub fn keep_relevant(question: &str, passages: Vec<Passage>, min_similarity: f64) -> Vec<Passage> {
    let wanted = content_words(question);
    passages
        .into_iter()
        .filter(|passage| is_relevant(&wanted, passage, min_similarity))
        .collect()
}

fn is_relevant(wanted: &HashSet<String>, passage: &Passage, min_similarity: f64) -> bool {
    if passage
        .similarity
        .is_some_and(|similarity| f64::from(similarity) >= min_similarity)
    {
        return true;
    }
    if passage.keyword_score.is_none() {
        return false;
    }
    // A question of no content words, or in a script without word breaks, is left to the index' judgement.
    if wanted.is_empty() {
        return passage.similarity.is_none();
    }
    let mut words = content_words(&passage.text);
    words.extend(content_words(&passage.title));
    words.extend(passage.heading.iter().flat_map(|heading| content_words(heading)));
    let coverage = wanted.intersection(&words).count() as f32 / wanted.len() as f32;
    coverage
        >= if wanted.len() == 1 {
            SINGLE_WORD_COVERAGE
        } else {
            LEAST_COVERAGE
        }
}
