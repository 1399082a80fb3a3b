//! The measures, each by its usual definition.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Means over the questions that have a relevant document, each in [0, 1].
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Measures {
    pub ndcg_at_10: f64,
    pub recall_at_5: f64,
    pub recall_at_10: f64,
    pub recall_at_100: f64,
    pub mrr_at_10: f64,
}

impl Measures {
    /// Of one question: `ranking` are document ids, best first and without repeats; `relevant` those above zero.
    pub fn of(ranking: &[String], relevant: &BTreeMap<String, f64>) -> Self {
        Self {
            ndcg_at_10: ndcg(ranking, relevant, 10),
            recall_at_5: recall(ranking, relevant, 5),
            recall_at_10: recall(ranking, relevant, 10),
            recall_at_100: recall(ranking, relevant, 100),
            mrr_at_10: reciprocal_rank(ranking, relevant, 10),
        }
    }

    /// The mean; zeros without any.
    pub fn mean(all: &[Self]) -> Self {
        let mean = |measure: fn(&Self) -> f64| match all.len() {
            0 => 0.0,
            count => all.iter().map(measure).sum::<f64>() / count as f64,
        };
        Self {
            ndcg_at_10: mean(|measures| measures.ndcg_at_10),
            recall_at_5: mean(|measures| measures.recall_at_5),
            recall_at_10: mean(|measures| measures.recall_at_10),
            recall_at_100: mean(|measures| measures.recall_at_100),
            mrr_at_10: mean(|measures| measures.mrr_at_10),
        }
    }
}

/// Normalised discounted cumulative gain: gain = score, discount log2(rank + 1), divided by that of the best order.
pub fn ndcg(ranking: &[String], relevant: &BTreeMap<String, f64>, k: usize) -> f64 {
    let discounted = |gains: &mut dyn Iterator<Item = f64>| -> f64 {
        let ranked = gains.take(k).zip(2_u32..);
        // Not `sum`, which makes a minus of nothing: -0.
        ranked.fold(0.0, |sum, (gain, rank)| sum + gain / f64::from(rank).log2())
    };
    let mut best_order: Vec<f64> = relevant.values().copied().collect();
    best_order.sort_by(|a, b| b.total_cmp(a));
    let best = discounted(&mut best_order.into_iter());
    if best <= 0.0 {
        return 0.0;
    }
    let gain_of = |id: &String| relevant.get(id).copied().unwrap_or(0.0);
    discounted(&mut ranking.iter().map(gain_of)) / best
}

/// Share of the relevant documents among the first `k`.
pub fn recall(ranking: &[String], relevant: &BTreeMap<String, f64>, k: usize) -> f64 {
    if relevant.is_empty() {
        return 0.0;
    }
    let met = ranking.iter().take(k).filter(|id| relevant.contains_key(*id));
    met.count() as f64 / relevant.len() as f64
}

/// One over the rank of the first relevant document; 0 beyond `k`.
pub fn reciprocal_rank(ranking: &[String], relevant: &BTreeMap<String, f64>, k: usize) -> f64 {
    let first = ranking.iter().take(k).position(|id| relevant.contains_key(id));
    first.map_or(0.0, |position| 1.0 / (position as f64 + 1.0))
}

/// How often one of `positive` is above one of `negative`, equal ones counting half; `None` when either is empty.
pub fn auroc(positive: &[f64], negative: &[f64]) -> Option<f64> {
    if positive.is_empty() || negative.is_empty() {
        return None;
    }
    let mut all: Vec<(f64, bool)> = positive.iter().map(|score| (*score, true)).collect();
    all.extend(negative.iter().map(|score| (*score, false)));
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Ranks begin at 1; equal scores share the mean of theirs (Mann and Whitney).
    let mut rank_sum = 0.0;
    let mut before = 0_usize;
    for equal in all.chunk_by(|a, b| a.0 == b.0) {
        let rank = before as f64 + (equal.len() as f64 + 1.0) / 2.0;
        rank_sum += rank * equal.iter().filter(|(_, is_positive)| *is_positive).count() as f64;
        before += equal.len();
    }
    let (positives, negatives) = (positive.len() as f64, negative.len() as f64);
    Some((rank_sum - positives * (positives + 1.0) / 2.0) / (positives * negatives))
}

/// How well a confidence tells the questions that have no answer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Abstention {
    pub answerable: usize,
    pub unanswerable: usize,
    /// How often an answerable question's confidence is above an unanswerable one's.
    pub auroc: f64,
    /// Of the decision "no answer below the threshold", at the threshold where its F1 is best.
    pub best_f1: f64,
    pub precision: f64,
    pub recall: f64,
    pub threshold: f64,
}

impl Abstention {
    /// From the confidences of questions that have an answer and of those that have none; `None` without both kinds.
    pub fn of(answerable: &[f64], unanswerable: &[f64]) -> Option<Self> {
        let mut best = Self {
            answerable: answerable.len(),
            unanswerable: unanswerable.len(),
            auroc: auroc(answerable, unanswerable)?,
            best_f1: 0.0,
            precision: 0.0,
            recall: 0.0,
            threshold: 0.0,
        };
        let mut all: Vec<(f64, bool)> = unanswerable
            .iter()
            .map(|confidence| (*confidence, true))
            .collect();
        all.extend(answerable.iter().map(|confidence| (*confidence, false)));
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut refused, mut rightly) = (0.0, 0.0);
        let mut rest = all.chunk_by(|a, b| a.0 == b.0).peekable();
        while let Some(equal) = rest.next() {
            refused += equal.len() as f64;
            rightly += equal
                .iter()
                .filter(|(_, is_unanswerable)| *is_unanswerable)
                .count() as f64;
            let (precision, recall) = (rightly / refused, rightly / unanswerable.len() as f64);
            let f1 = if rightly > 0.0 {
                2.0 * precision * recall / (precision + recall)
            } else {
                0.0
            };
            if f1 > best.best_f1 {
                let next = rest.peek().map_or(f64::from(f32::MAX), |next| next[0].0);
                best = Self {
                    best_f1: f1,
                    precision,
                    recall,
                    // Halfway to the lowest confidence that is answered.
                    threshold: if next < f64::from(f32::MAX) {
                        (equal[0].0 + next) / 2.0
                    } else {
                        equal[0].0
                    },
                    ..best
                };
            }
        }
        Some(best)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(ids: &[&str]) -> Vec<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    fn relevant(scores: &[(&str, f64)]) -> BTreeMap<String, f64> {
        scores
            .iter()
            .map(|(id, score)| ((*id).to_owned(), *score))
            .collect()
    }

    #[test]
    fn measures_are_those_computed_by_hand() {
        let ranking = ids(&["x", "a", "y", "b", "z", "w"]);
        let relevant = relevant(&[("a", 1.0), ("b", 2.0), ("c", 1.0)]);

        // (1 / log2 3 + 2 / log2 5) / (2 + 1 / log2 3 + 1 / 2)
        let expected = (1.0 / 3_f64.log2() + 2.0 / 5_f64.log2()) / (2.0 + 1.0 / 3_f64.log2() + 0.5);
        assert!((ndcg(&ranking, &relevant, 10) - expected).abs() < 1e-12);
        assert!((expected - 0.4766).abs() < 1e-4);
        assert!((recall(&ranking, &relevant, 5) - 2.0 / 3.0).abs() < 1e-12);
        assert!((recall(&ranking, &relevant, 2) - 1.0 / 3.0).abs() < 1e-12);
        assert!((reciprocal_rank(&ranking, &relevant, 10) - 0.5).abs() < 1e-12);
        assert_eq!(reciprocal_rank(&ranking, &relevant, 1), 0.0);
    }

    #[test]
    fn the_best_order_measures_one_and_an_empty_one_zero() {
        let relevant = relevant(&[("a", 3.0), ("b", 1.0)]);

        assert_eq!(ndcg(&ids(&["a", "b", "x"]), &relevant, 10), 1.0);
        assert_eq!(Measures::of(&[], &relevant), Measures::default());
        assert!(ndcg(&[], &relevant, 10).is_sign_positive(), "no -0");
    }

    #[test]
    fn auroc_counts_pairs_and_halves_equal_ones() {
        // Of six pairs: 0.9 is above both, 0.5 above one and equal to the other, 0.3 above one.
        assert_eq!(auroc(&[0.9, 0.5, 0.3], &[0.5, 0.1]), Some(4.5 / 6.0));
        assert_eq!(auroc(&[1.0], &[]), None);
    }

    #[test]
    fn the_best_threshold_lies_between_what_it_parts() {
        let abstention = Abstention::of(&[0.9, 0.8, 0.4], &[0.2, 0.3, 0.6]).expect("both kinds");

        // Refusing 0.2, 0.3, 0.4 and 0.6: precision 3/4, recall 1. Refusing 0.2 and 0.3: precision 1, recall 2/3.
        assert!((abstention.best_f1 - 6.0 / 7.0).abs() < 1e-12);
        assert!((abstention.precision - 0.75).abs() < 1e-12);
        assert_eq!(abstention.recall, 1.0);
        assert!((abstention.threshold - 0.7).abs() < 1e-12);
        assert!((abstention.auroc - 8.0 / 9.0).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn auroc_of_exchanged_sides_is_the_rest(
            a in prop::collection::vec(0_u8..5, 1..20),
            b in prop::collection::vec(0_u8..5, 1..20),
        ) {
            let floats = |values: &[u8]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
            let (a, b) = (floats(&a), floats(&b));
            let sum = auroc(&a, &b).expect("both") + auroc(&b, &a).expect("both");
            prop_assert!((sum - 1.0).abs() < 1e-9);
        }
    }
}
