//! How rare the words of a question are among a tenant's points. The server weighs words by it and never says it, so it is
//! read off: the best point for one word alone scores that word's weight in it times its inverse document frequency, and
//! the point comes with its weights.

use std::collections::{BTreeMap, BTreeSet};

use qdrant_client::qdrant::ScoredPoint;

use super::Inner;
use super::scope::TenantScope;
use crate::TenantId;
use crate::analysis::{QueryTerms, inverse_document_frequency};
use crate::index::IndexError;

/// Terms of a question that are asked about. Longer questions have the ceiling of these, in proportion.
const MOST_TERMS: usize = 64;

/// What the server's answers about single terms tell of each.
pub(super) struct Rarities(BTreeMap<u32, Rarity>);

struct Rarity {
    /// Points that have it, as far as they were asked for.
    having: u64,
    /// Inverse document frequency; `None` for a term that no point has.
    frequency: Option<f32>,
}

impl Rarities {
    /// Of the answers about the terms of [`counted`], in their order.
    pub(super) fn read(scope: &TenantScope<'_>, terms: &QueryTerms, answers: Vec<Vec<ScoredPoint>>) -> Self {
        let rarity = |(term, points): (u32, Vec<ScoredPoint>)| {
            let points = points.into_iter();
            let found: Vec<f32> = points.filter_map(|point| scope.frequency(term, point)).collect();
            let rarity = Rarity {
                having: found.len() as u64,
                frequency: found.first().copied(),
            };
            (term, rarity)
        };
        Self(counted(terms).into_iter().zip(answers).map(rarity).collect())
    }

    /// How many points have the term, as far as they were asked for. What was not asked about counts as usual: it is neither
    /// unknown nor rare.
    pub(super) fn having(&self, term: u32) -> u64 {
        self.0.get(&term).map_or(u64::MAX, |rarity| rarity.having)
    }

    fn frequencies(&self, terms: &QueryTerms) -> Vec<Option<f32>> {
        let terms = terms.hashes.iter();
        terms
            .map(|term| self.0.get(term).and_then(|rarity| rarity.frequency))
            .collect()
    }

    /// Those of the terms that were asked about.
    fn asked_about(&self, terms: &QueryTerms) -> QueryTerms {
        let forms = terms.hashes.iter().copied().zip(terms.words.iter().copied());
        let (hashes, words) = forms.filter(|(term, _)| self.0.contains_key(term)).unzip();
        QueryTerms {
            hashes,
            words,
            ..QueryTerms::default()
        }
    }
}

impl Inner {
    /// What scores by words are a share of where these terms are asked for; `None` where none are. A word that no point has is
    /// as rare as one that a single point has, for whose number the server is asked.
    pub(super) async fn keyword_ceiling(
        &self,
        tenant_id: TenantId,
        terms: &QueryTerms,
        rarities: &Rarities,
    ) -> Result<Option<f32>, IndexError> {
        let asked = rarities.asked_about(terms);
        if asked.hashes.is_empty() {
            return Ok(None);
        }
        let known = rarities.frequencies(&asked);
        let ceiling = |unknown: f32| {
            let frequencies: Vec<f32> = known.iter().map(|known| known.unwrap_or(unknown)).collect();
            asked.ceiling(&frequencies) * longer(terms, &asked)
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

/// The terms that are asked about: those of the question before parts of its codes.
pub(super) fn counted(terms: &QueryTerms) -> Vec<u32> {
    let parts = terms.parts.iter().map(|part| part.hash);
    terms
        .hashes
        .iter()
        .copied()
        .chain(parts)
        .take(MOST_TERMS)
        .collect()
}

/// Those of them that are whole codes, of which it is asked whether the search may see one.
pub(super) fn counted_codes(terms: &QueryTerms) -> Vec<u32> {
    let counted = counted(terms);
    let mut codes = terms.whole_codes();
    codes.retain(|code| counted.contains(code));
    codes
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
            ..QueryTerms::default()
        };
        let of_one = |term| {
            let rarity = Rarity {
                having: 1,
                frequency: Some(2.0),
            };
            (term, rarity)
        };
        let rarities = Rarities(counted(&terms).into_iter().map(of_one).collect());

        let asked = rarities.asked_about(&terms);

        assert_eq!(asked.hashes.len(), MOST_TERMS);
        assert_eq!(longer(&terms, &asked), 2.5);
        assert_eq!(rarities.frequencies(&asked), [Some(2.0); MOST_TERMS]);
        assert_eq!((rarities.having(0), rarities.having(159)), (1, u64::MAX));
    }
}
