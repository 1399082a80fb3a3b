//! Whether a retrieved passage has to do with the question at all.
//!
//! A search always finds something. A passage counts when the search may be sure enough of it, or when it holds enough of
//! the question's own words.

use std::collections::HashSet;

use retrieval::confidence::{self, Confidence};

use super::words::content_words;
use crate::knowledge::Passage;

/// Share of the question's content words that a passage must hold when nothing is known of its meaning.
const LEAST_COVERAGE: f32 = 0.5;

/// The same where meaning speaks against it: one of two words says little then.
const LEAST_COVERAGE_AGAINST_MEANING: f32 = 0.6;

/// The same where nothing but words was compared and the question has a single content word.
const SINGLE_WORD_COVERAGE: f32 = 1.0;

/// The passages that have to do with `question`, in their order.
///
/// `min_similarity` is a cosine: where meaning tells something about the question, a passage must inspire as much
/// confidence as one of that cosine does which stands before a usual background and has no more of the question's words than
/// one about something else. At 0 whatever was found counts.
pub fn keep_relevant(question: &str, passages: Vec<Passage>, min_similarity: f64) -> Vec<Passage> {
    let wanted = content_words(question);
    let least = confidence::of_similarity(min_similarity as f32);
    passages
        .into_iter()
        .filter(|passage| is_relevant(&wanted, passage, least))
        .collect()
}

fn is_relevant(wanted: &HashSet<String>, passage: &Passage, least: f32) -> bool {
    let speaks_for_it = |found: Confidence| found.is_by_meaning && found.value >= least;
    if passage.confidence.is_some_and(speaks_for_it) {
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
    let is_against_meaning = passage.confidence.is_some_and(|found| found.is_by_meaning);
    let least = match wanted.len() {
        1 => SINGLE_WORD_COVERAGE,
        _ if is_against_meaning => LEAST_COVERAGE_AGAINST_MEANING,
        _ => LEAST_COVERAGE,
    };
    coverage >= least
}
