//! How rare the words of a question are among a tenant's points. The server weighs words by it and never says it, so it is
//! read off: the best point for one word alone scores that word's weight in it times its inverse document frequency, and
//! the point comes with its weights.

use std::collections::BTreeSet;

use qdrant_client::qdrant::ScoredPoint;

use super::Inner;
use super::scope::{PreparedQuery, TenantScope};
use crate::TenantId;
use crate::analysis::{QueryTerms, inverse_document_frequency};
use crate::index::IndexError;

/// Terms of a question that are asked about. Longer questions have the ceiling of these, in proportion.
pub(super) const MOST_TERMS: usize = 64;

impl Inner {
    /// What scores by words are a share of, by the server's answers about single terms, in their order; `None` where no words
    /// are asked for. A word that no point has is as rare as one that a single point has, for whose number the server is asked.
    pub(super) async fn keyword_ceiling(
        &self,
        tenant_id: TenantId,
        query: &PreparedQuery,
        answers: Vec<Vec<ScoredPoint>>,
    ) -> Result<Option<f32>, IndexError> {
        if query.terms.hashes.is_empty() {
            return Ok(None);
        }
        let asked = first(&query.terms);
        let scope = TenantScope::new(tenant_id, &self.layout);
        let known: Vec<Option<f32>> = asked
            .hashes
            .iter()
            .zip(answers)
            .map(|(term, best)| scope.frequency(*term, best.into_iter().next()?))
            .collect();
        let ceiling = |unknown: f32| {
            let frequencies: Vec<f32> = known.iter().map(|known| known.unwrap_or(unknown)).collect();
            asked.ceiling(&frequencies) * longer(&query.terms, &asked)
        };
        // Finite unless of some word no form is known.
        let of_known = ceiling(f32::INFINITY);
        if of_known.is_finite() {
            return Ok(Some(of_known));
        }
        let points = self.count(tenant_id).await?;
        Ok(Some(ceiling(inverse_document_frequency(points, 1))))
    }
}

/// The terms that are asked about.
pub(super) fn first(terms: &QueryTerms) -> QueryTerms {
    QueryTerms {
        hashes: terms.hashes.iter().copied().take(MOST_TERMS).collect(),
        words: terms.words.iter().copied().take(MOST_TERMS).collect(),
        parts: Vec::new(),
    }
}

/// How many times as many words the whole question has.
fn longer(all: &QueryTerms, asked: &QueryTerms) -> f32 {
    let words = |terms: &QueryTerms| terms.words.iter().collect::<BTreeSet<_>>().len() as f32;
    words(all) / words(asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_question_the_first_terms_stand_for_all() {
        let terms = QueryTerms {
            hashes: (0..160).collect(),
            words: (0..160).map(|term| term / 2).collect(),
            parts: Vec::new(),
        };

        let asked = first(&terms);

        assert_eq!(asked.hashes.len(), MOST_TERMS);
        assert_eq!(longer(&terms, &asked), 2.5);
    }
}
