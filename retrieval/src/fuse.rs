//! Merges what meaning and words found by rank alone, so that cosine and BM25 need no common scale: reciprocal rank fusion
//! (Cormack, Clarke and Buettcher, SIGIR 2009).

use std::collections::HashMap;

use crate::index::{Candidate, Candidates};
use crate::{ChunkId, DocumentId};

/// Rank offset from the paper. Larger values flatten the advantage of the first places.
const RANK_OFFSET: f32 = 60.0;

/// A chunk that was found, with its place among the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    pub chunk_id: ChunkId,
    pub document_id: DocumentId,
    /// Fused over both sides, in (0, 1]; 1 is first in every ranking. Higher is better.
    pub score: f32,
    /// As the candidate's.
    pub similarity: Option<f32>,
    /// As the candidate's.
    pub keyword_score: Option<f32>,
}

/// The candidates in one order, best first. Equal scores are ordered by chunk id, so that a search repeats itself.
///
/// A side that found nothing is no ranking: what is first on the other one scores 1.
pub fn fuse(candidates: &Candidates) -> Vec<Hit> {
    let rankings = [
        ranking(&candidates.hits, |candidate| candidate.similarity),
        ranking(&candidates.hits, |candidate| candidate.keyword_score),
    ];
    let score_of = reciprocal_ranks(&rankings);
    let mut hits: Vec<Hit> = candidates
        .hits
        .iter()
        .filter_map(|candidate| {
            Some(Hit {
                chunk_id: candidate.chunk_id,
                document_id: candidate.document_id,
                score: *score_of.get(&candidate.chunk_id)?,
                similarity: candidate.similarity,
                keyword_score: candidate.keyword_score,
            })
        })
        .collect();
    hits.sort_by(|a, b| {
        b.score
            .total_cmp(&a.score)
            .then_with(|| a.chunk_id.cmp(&b.chunk_id))
    });
    hits
}

/// The chunks that have a score, highest first.
fn ranking(candidates: &[Candidate], score: impl Fn(&Candidate) -> Option<f32>) -> Vec<ChunkId> {
    let mut scored: Vec<(f32, ChunkId)> = candidates
        .iter()
        .filter_map(|candidate| Some((score(candidate)?, candidate.chunk_id)))
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    scored.into_iter().map(|(_, chunk_id)| chunk_id).collect()
}

/// Scores in (0, 1] of all chunks in `rankings`, each of which is best first and without repeats.
fn reciprocal_ranks(rankings: &[Vec<ChunkId>]) -> HashMap<ChunkId, f32> {
    let made = rankings.iter().filter(|ranking| !ranking.is_empty()).count();
    let best_possible = made as f32 / (RANK_OFFSET + 1.0);
    let mut score_of: HashMap<ChunkId, f32> = HashMap::new();
    for ranking in rankings {
        for (position, chunk_id) in ranking.iter().enumerate() {
            let rank = position as f32 + 1.0;
            *score_of.entry(*chunk_id).or_default() += 1.0 / (RANK_OFFSET + rank);
        }
    }
    for score in score_of.values_mut() {
        *score = (*score / best_possible).min(1.0);
    }
    score_of
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn chunk(n: u128) -> ChunkId {
        ChunkId(Uuid::from_u128(n))
    }

    fn candidate(n: u128, similarity: Option<f32>, keyword_score: Option<f32>) -> Candidate {
        Candidate {
            chunk_id: chunk(n),
            document_id: DocumentId(Uuid::from_u128(n)),
            similarity,
            keyword_score,
        }
    }

    fn fused(hits: Vec<Candidate>) -> Vec<(ChunkId, f32)> {
        let hits = fuse(&Candidates { hits });
        hits.into_iter().map(|hit| (hit.chunk_id, hit.score)).collect()
    }

    #[test]
    fn first_in_every_ranking_scores_one() {
        let fused = fused(vec![
            candidate(2, Some(0.8), None),
            candidate(1, Some(0.9), Some(7.0)),
            candidate(3, None, Some(6.0)),
        ]);

        assert_eq!(fused[0], (chunk(1), 1.0));
    }

    #[test]
    fn agreement_beats_a_single_first_place() {
        let fused = fused(vec![
            candidate(1, Some(0.9), None),
            candidate(2, Some(0.8), Some(6.0)),
            candidate(3, None, Some(7.0)),
        ]);

        assert_eq!(fused[0].0, chunk(2));
    }

    #[test]
    fn equal_scores_are_ordered_by_chunk_id() {
        let fused = fused(vec![candidate(9, Some(0.5), None), candidate(4, None, Some(3.0))]);

        assert_eq!(
            fused.iter().map(|hit| hit.0).collect::<Vec<_>>(),
            [chunk(4), chunk(9)]
        );
        assert!((fused[0].1 - 0.5).abs() < 1e-6);
    }

    #[test]
    fn what_no_side_scored_is_left_out() {
        assert_eq!(fused(vec![]), []);
        assert_eq!(fused(vec![candidate(1, None, None)]), []);
    }

    #[test]
    fn a_side_that_found_nothing_takes_nothing_away() {
        assert_eq!(fused(vec![candidate(1, None, Some(0.1))]), [(chunk(1), 1.0)]);
    }

    proptest! {
        #[test]
        fn scores_stay_in_their_range_and_fall(
            scores in prop::collection::vec((prop::option::of(-1.0_f32..1.0), prop::option::of(0.01_f32..90.0)), 0..60),
        ) {
            let candidates = scores.iter().zip(0..).map(|((similarity, keyword_score), n)| candidate(n, *similarity, *keyword_score));

            let fused = fused(candidates.collect());

            prop_assert!(fused.iter().all(|(_, score)| *score > 0.0 && *score <= 1.0));
            prop_assert!(fused.windows(2).all(|pair| pair[0].1 >= pair[1].1));
        }
    }
}
