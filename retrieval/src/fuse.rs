//! Merges rankings by rank alone, so that cosine and BM25 need no common scale: reciprocal rank fusion (Cormack,
//! Clarke and Buettcher, SIGIR 2009).

use std::collections::HashMap;

use crate::ChunkId;

/// Rank offset from the paper. Larger values flatten the advantage of the first places.
const RANK_OFFSET: f32 = 60.0;

/// Merges `rankings`, each best first and without repeats, and keeps the best `limit` chunks.
///
/// Scores lie in (0, 1], highest first: 1 is the first place in every ranking, `1 / rankings.len()` the first place in
/// one of them and absence from the others. Equal scores are ordered by chunk id, so that a search repeats itself.
pub fn fuse(rankings: &[Vec<ChunkId>], limit: usize) -> Vec<(ChunkId, f32)> {
    let best_possible = rankings.len() as f32 / (RANK_OFFSET + 1.0);
    let mut score_of: HashMap<ChunkId, f32> = HashMap::new();
    for ranking in rankings {
        for (position, chunk_id) in ranking.iter().enumerate() {
            let rank = position as f32 + 1.0;
            *score_of.entry(*chunk_id).or_default() += 1.0 / (RANK_OFFSET + rank);
        }
    }
    let mut fused: Vec<(ChunkId, f32)> = score_of
        .into_iter()
        .map(|(chunk_id, score)| (chunk_id, (score / best_possible).min(1.0)))
        .collect();
    fused.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    fused.truncate(limit);
    fused
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn chunk(n: u128) -> ChunkId {
        ChunkId(Uuid::from_u128(n))
    }

    #[test]
    fn first_in_every_ranking_scores_one() {
        let fused = fuse(&[vec![chunk(1), chunk(2)], vec![chunk(1), chunk(3)]], 10);

        assert_eq!(fused[0], (chunk(1), 1.0));
    }

    #[test]
    fn agreement_beats_a_single_first_place() {
        let fused = fuse(&[vec![chunk(1), chunk(2)], vec![chunk(3), chunk(2)]], 10);

        assert_eq!(fused[0].0, chunk(2));
    }

    #[test]
    fn equal_scores_are_ordered_by_chunk_id() {
        let fused = fuse(&[vec![chunk(9)], vec![chunk(4)]], 10);

        assert_eq!(
            fused.iter().map(|hit| hit.0).collect::<Vec<_>>(),
            [chunk(4), chunk(9)]
        );
        assert!((fused[0].1 - 0.5).abs() < 1e-6);
    }

    #[test]
    fn nothing_ranked_gives_nothing() {
        assert_eq!(fuse(&[], 5), []);
        assert_eq!(fuse(&[vec![], vec![]], 5), []);
        assert_eq!(fuse(&[vec![chunk(1)]], 0), []);
    }

    proptest! {
        #[test]
        fn scores_stay_in_their_range_and_fall(lengths in prop::collection::vec(0_u128..40, 1..4), limit in 0_usize..50) {
            let rankings: Vec<Vec<ChunkId>> = lengths
                .iter()
                .enumerate()
                .map(|(shift, length)| (0..*length).map(|n| chunk((n * 7 + shift as u128 * 3) % 97)).collect())
                .collect();

            let fused = fuse(&rankings, limit);

            prop_assert!(fused.len() <= limit);
            prop_assert!(fused.iter().all(|(_, score)| *score > 0.0 && *score <= 1.0));
            prop_assert!(fused.windows(2).all(|pair| pair[0].1 >= pair[1].1));
        }
    }
}
