//! Whether a passage that was found has to do with the question at all. A search always finds something; what it found
//! counts when one may be sure enough of it, or when it holds enough of the question's own words.
//!
//! The product declines to answer when none of the passages that it would answer from counts. Its evaluation asks the same.

use std::collections::HashSet;

use crate::analysis::content_words;
use crate::confidence::{self, Confidence};

/// Share of the question's content words that a passage must hold when nothing is known of its meaning.
const LEAST_COVERAGE: f32 = 0.5;

/// The same where meaning speaks against it: one of two words says little then.
const LEAST_COVERAGE_AGAINST_MEANING: f32 = 0.6;

/// The same where nothing but words was compared and the question has a single content word.
const SINGLE_WORD_COVERAGE: f32 = 1.0;

/// What a passage must have to count.
#[derive(Debug, Clone)]
pub struct Relevance {
    wanted: HashSet<String>,
    least: f32,
}

/// A passage, and what is known of it.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// Title and headings.
    pub names: &'a [&'a str],
    pub text: &'a str,
    pub similarity: Option<f32>,
    pub keyword_score: Option<f32>,
    pub confidence: Option<Confidence>,
}

impl Relevance {
    /// `min_similarity` is a cosine: where meaning tells something about the question, a passage must inspire as much
    /// confidence as one of that cosine does which stands before a usual background and has no more of the question's words
    /// than one about something else. At 0 whatever was found counts.
    pub fn of(question: &str, min_similarity: f32) -> Self {
        Self {
            wanted: content_words(question),
            least: confidence::of_similarity(min_similarity),
        }
    }

    /// Whether the passage counts.
    pub fn is_met_by(&self, passage: &Evidence<'_>) -> bool {
        let speaks_for_it = |found: Confidence| found.is_by_meaning && found.value >= self.least;
        if passage.confidence.is_some_and(speaks_for_it) {
            return true;
        }
        if passage.keyword_score.is_none() {
            return false;
        }
        // A question of no content words, or in a script without word breaks, is left to the index' judgement.
        if self.wanted.is_empty() {
            return passage.similarity.is_none();
        }
        let mut words = content_words(passage.text);
        words.extend(passage.names.iter().flat_map(|name| content_words(name)));
        let coverage = self.wanted.intersection(&words).count() as f32 / self.wanted.len() as f32;
        let is_against_meaning = passage.confidence.is_some_and(|found| found.is_by_meaning);
        let least = match self.wanted.len() {
            1 => SINGLE_WORD_COVERAGE,
            _ if is_against_meaning => LEAST_COVERAGE_AGAINST_MEANING,
            _ => LEAST_COVERAGE,
        };
        coverage >= least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &str = "How long may I return damaged shoes?";

    fn counts(confidence: Option<(f32, bool)>, keyword_score: Option<f32>, text: &str) -> bool {
        let passage = Evidence {
            names: &["Shoes"],
            text,
            similarity: confidence.map(|_| 0.4),
            keyword_score,
            confidence: confidence.map(|(value, is_by_meaning)| Confidence { value, is_by_meaning }),
        };
        Relevance::of(QUESTION, 0.4).is_met_by(&passage)
    }

    #[test]
    fn who_is_sure_by_meaning_needs_no_words_and_who_is_not_needs_most_of_them() {
        assert!(counts(
            Some((0.5, true)),
            None,
            "Footwear goes back within a month."
        ));
        assert!(!counts(
            Some((0.05, true)),
            None,
            "Footwear goes back within a month."
        ));
        assert!(!counts(
            Some((0.05, true)),
            Some(3.0),
            "Returned goods are repaired."
        ));
        assert!(counts(
            Some((0.05, true)),
            Some(3.0),
            "Damaged ones are returned."
        ));
    }

    #[test]
    fn where_words_alone_tell_half_of_them_suffice() {
        assert!(counts(
            Some((0.01, false)),
            Some(3.0),
            "Returned goods are repaired."
        ));
        assert!(!counts(Some((0.99, false)), Some(3.0), "We sell gift cards."));
        assert!(!counts(None, None, "Damaged shoes are returned."));
    }
}
