//! One order out of what meaning and words found: both scores are standardised over the candidates, then added by weight.
//!
//! Cosine and BM25 have no common scale, but on both a score says how far a chunk stands out from the other candidates, in
//! standard deviations. Ranks alone forget that: a chunk far ahead by its words and one barely ahead would count the same.
//! The candidates' own deviation is met halfway by a usual one, so that scores which hardly differ do not decide as much as
//! scores that do, and a tenant of three chunks has a scale.
//! How much meaning weighs follows the language of the question, as far as the embedding model reads it. Why so, with
//! figures: `docs/decisions/0014-fusion-and-confidence.md`.

use crate::ChunkId;
use crate::analysis::{Language, Script};
use crate::index::{Candidate, Candidates};

/// Candidates to ask of each side at least. Fewer tell less about how far one stands out.
pub const MIN_CANDIDATES: usize = 100;

/// How much meaning weighs against words, from 0 (not) to 1 (alone), in a language that the model reads.
const READ: f32 = 0.58;

/// The same where the question does not show its language, and may be in one that the model reads.
pub(crate) const UNDETERMINED: f32 = 0.4;

/// The same in a language that the model does not read, but whose script it does: it knows names and many words.
const SAME_SCRIPT: f32 = 0.2;

/// No more than this where the question names a code that few chunks have: those are meant, and where texts differ in nothing
/// but their codes meaning tells them apart by chance.
const RARE_CODE: f32 = 0.2;

/// How far cosines usually deviate from each other, of what is left between their mean and 1: models whose cosines are all
/// high come to the same scale by this.
const USUAL_COSINES: f32 = 0.15;

/// How far scores by words usually deviate from each other, per root of the highest that the question could have: a sum of
/// words that stand in a text or not.
const USUAL_KEYWORD_SCORES: f32 = 0.6;

/// What the worst on both sides has left, in standard deviations: it was found all the same.
const LEFT_TO_THE_WORST: f32 = 1.0;

/// A chunk that was found, with its place among the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    pub chunk_id: ChunkId,
    /// Fused over both sides, in (0, 1]: 1 is best on each. Compares the hits of one search only.
    pub score: f32,
    /// As the candidate's.
    pub similarity: Option<f32>,
    /// As the candidate's.
    pub keyword_score: Option<f32>,
}

/// How much meaning weighs for a question: `language` is its own, where known; `read` are those that the embedding model
/// reads, `None` for all.
pub fn meaning_weight(question: &str, language: Option<Language>, read: Option<&[Language]>) -> f32 {
    let Some(read) = read else { return READ };
    let reads_script = |script| read.iter().any(|language| language.script() == script);
    match language {
        Some(language) if read.contains(&language) => READ,
        Some(language) if reads_script(language.script()) => SAME_SCRIPT,
        Some(_) => 0.0,
        None => match Script::of_text(question) {
            Some(script) if !reads_script(script) => 0.0,
            _ => UNDETERMINED,
        },
    }
}

/// Whether only what words found counts: their meaning weighs nothing, and words found something.
pub fn is_by_words_alone(candidates: &Candidates, weight: f32) -> bool {
    weight == 0.0 && candidates.hits.iter().any(|hit| hit.keyword_score.is_some())
}

/// The candidates in one order, best first; `weight` is how much meaning weighs, see [`meaning_weight`]. Equal scores are
/// ordered by chunk id, so that a search repeats itself.
///
/// With a weight of 0, what only meaning found is left out as long as words found something.
pub fn fuse(candidates: &Candidates, weight: f32) -> Vec<Hit> {
    let weight = match candidates.names_rare_code {
        true => weight.min(RARE_CODE),
        false => weight,
    };
    let hits = &candidates.hits;
    // Where the usual deviation of one side is not known, both are left to their own: else one alone would count for less.
    let ceiling = candidates.keyword_ceiling.filter(|ceiling| *ceiling > 0.0);
    let usual_cosines = |mean: f32| ceiling.map(|_| USUAL_COSINES * (1.0 - mean).max(0.0));
    let usual_keyword_scores = |_| ceiling.map(|ceiling| USUAL_KEYWORD_SCORES * ceiling.sqrt());
    let by_meaning = Side::of(
        hits,
        |candidate| candidate.similarity,
        Absent::Worst,
        usual_cosines,
    );
    let by_words = Side::of(
        hits,
        |candidate| candidate.keyword_score,
        Absent::Zero,
        usual_keyword_scores,
    );
    let (by_meaning, by_words) = match (by_meaning, by_words) {
        (Some(by_meaning), Some(by_words)) => (by_meaning.scaled(weight), by_words.scaled(1.0 - weight)),
        (Some(alone), None) => (alone.scaled(1.0), Side::empty(hits.len())),
        (None, Some(alone)) => (Side::empty(hits.len()), alone.scaled(1.0)),
        (None, None) => return Vec::new(),
    };
    let best_possible = by_meaning.range + by_words.range + LEFT_TO_THE_WORST;
    let is_by_words_alone = is_by_words_alone(candidates, weight);
    let mut fused: Vec<Hit> = hits
        .iter()
        .zip(by_meaning.scores.iter().zip(&by_words.scores))
        .filter(|(candidate, _)| !is_by_words_alone || candidate.keyword_score.is_some())
        .map(|(candidate, (meaning, words))| Hit {
            chunk_id: candidate.chunk_id,
            score: ((meaning + words + LEFT_TO_THE_WORST) / best_possible).min(1.0),
            similarity: candidate.similarity,
            keyword_score: candidate.keyword_score,
        })
        .collect();
    fused.sort_by(|a, b| {
        b.score
            .total_cmp(&a.score)
            .then_with(|| a.chunk_id.cmp(&b.chunk_id))
    });
    fused
}

/// What a score stands for that a candidate does not have.
enum Absent {
    /// It was not compared, and is no better than the worst.
    Worst,
    /// It was looked at and had nothing.
    Zero,
}

/// One side's scores of all candidates, in standard deviations above the worst.
struct Side {
    scores: Vec<f32>,
    /// The best of them.
    range: f32,
}

impl Side {
    /// `None` when the side found nothing. `usual` is the deviation to expect of scores with this mean, where that is known.
    fn of(
        hits: &[Candidate],
        score: impl Fn(&Candidate) -> Option<f32>,
        absent: Absent,
        usual: impl Fn(f32) -> Option<f32>,
    ) -> Option<Self> {
        let known: Vec<f32> = hits.iter().filter_map(&score).collect();
        let worst_known = known.iter().copied().reduce(f32::min)?;
        let instead = match absent {
            Absent::Worst => worst_known,
            Absent::Zero => 0.0,
        };
        let mut scores: Vec<f32> = hits
            .iter()
            .map(|candidate| score(candidate).unwrap_or(instead))
            .collect();
        let worst = scores.iter().copied().fold(f32::INFINITY, f32::min);
        let (mean, variance) = moments(&scores);
        let deviation = match usual(mean) {
            Some(usual) => ((variance + usual * usual) / 2.0).sqrt(),
            None => variance.sqrt(),
        };
        for score in &mut scores {
            *score = if deviation > 0.0 {
                (*score - worst) / deviation
            } else {
                0.0
            };
        }
        let range = scores.iter().copied().fold(0.0, f32::max);
        Some(Self { scores, range })
    }

    fn empty(candidates: usize) -> Self {
        Self {
            scores: vec![0.0; candidates],
            range: 0.0,
        }
    }

    fn scaled(mut self, factor: f32) -> Self {
        self.scores.iter_mut().for_each(|score| *score *= factor);
        self.range *= factor;
        self
    }
}

/// Mean and variance.
fn moments(values: &[f32]) -> (f32, f32) {
    let count = values.len() as f64;
    let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / count;
    let variance = values
        .iter()
        .map(|value| (f64::from(*value) - mean).powi(2))
        .sum::<f64>()
        / count;
    (mean as f32, variance as f32)
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
            similarity,
            keyword_score,
        }
    }

    fn fused(hits: Vec<Candidate>, weight: f32) -> Vec<(ChunkId, f32)> {
        let candidates = Candidates {
            hits,
            ..Candidates::default()
        };
        let hits = fuse(&candidates, weight);
        hits.into_iter().map(|hit| (hit.chunk_id, hit.score)).collect()
    }

    #[test]
    fn best_on_both_sides_scores_one_and_worst_on_both_little() {
        let fused = fused(
            vec![
                candidate(2, Some(0.8), None),
                candidate(1, Some(0.9), Some(7.0)),
                candidate(3, Some(0.1), None),
            ],
            0.5,
        );

        assert_eq!(fused[0], (chunk(1), 1.0));
        assert!(
            fused[2].0 == chunk(3) && fused[2].1 > 0.0 && fused[2].1 < 0.5,
            "{fused:?}"
        );
    }

    #[test]
    fn how_far_a_chunk_stands_out_counts_and_not_only_its_rank() {
        let outstanding = fused(
            vec![
                candidate(1, Some(0.50), Some(20.0)),
                candidate(2, Some(0.52), Some(2.0)),
                candidate(3, Some(0.10), Some(1.9)),
                candidate(4, Some(0.12), Some(1.8)),
            ],
            0.5,
        );

        assert_eq!(outstanding[0].0, chunk(1));
    }

    #[test]
    fn the_weight_decides_between_the_sides() {
        let hits = || {
            vec![
                candidate(1, Some(0.9), None),
                candidate(2, Some(0.1), Some(9.0)),
                candidate(3, Some(0.2), Some(1.0)),
            ]
        };

        assert_eq!(fused(hits(), 0.9)[0].0, chunk(1));
        assert_eq!(fused(hits(), 0.1)[0].0, chunk(2));
    }

    #[test]
    fn scores_that_hardly_differ_do_not_decide_against_scores_that_do() {
        let among_equals = |keyword_ceiling| {
            let hits = vec![
                candidate(1, Some(0.500), Some(12.0)),
                candidate(2, Some(0.502), Some(2.0)),
                candidate(3, Some(0.501), Some(2.0)),
            ];
            fuse(
                &Candidates {
                    hits,
                    keyword_ceiling,
                    ..Candidates::default()
                },
                0.8,
            )[0]
            .chunk_id
        };

        assert_eq!(among_equals(Some(40.0)), chunk(1));
        assert_eq!(among_equals(None), chunk(2));
    }

    #[test]
    fn among_chunks_that_are_alike_those_with_the_rare_code_that_is_asked_for_come_first() {
        let first = |names_rare_code| {
            // One has the code, and happens to be among the farther ones.
            let alike = (3..100).map(|n| candidate(n, Some(0.52 + 0.0006 * n as f32), Some(0.001)));
            let others = [
                candidate(1, Some(0.42), Some(6.94)),
                candidate(2, Some(0.295), Some(0.001)),
            ];
            let candidates = Candidates {
                hits: alike.chain(others).collect(),
                keyword_ceiling: Some(18.0),
                names_rare_code,
            };
            fuse(&candidates, READ)[0].chunk_id
        };

        assert_eq!(first(true), chunk(1));
        assert_ne!(first(false), chunk(1));
    }

    #[test]
    fn words_alone_leave_out_what_only_meaning_found() {
        let ids = |hits| fused(hits, 0.0).into_iter().map(|hit| hit.0).collect::<Vec<_>>();

        assert_eq!(
            ids(vec![
                candidate(1, Some(0.9), None),
                candidate(2, Some(0.1), Some(9.0))
            ]),
            [chunk(2)]
        );
        assert_eq!(ids(vec![candidate(1, Some(0.9), None)]), [chunk(1)]);
    }

    #[test]
    fn a_side_that_found_nothing_takes_nothing_away() {
        let by_words = fused(
            vec![candidate(1, None, Some(3.0)), candidate(2, None, Some(1.0))],
            0.58,
        );

        assert_eq!(by_words[0], (chunk(1), 1.0));
        assert_eq!(by_words[1].0, chunk(2));
    }

    #[test]
    fn equal_scores_are_ordered_by_chunk_id() {
        let fused = fused(
            vec![candidate(9, Some(0.5), None), candidate(4, Some(0.5), None)],
            0.58,
        );

        assert_eq!(fused, [(chunk(4), 1.0), (chunk(9), 1.0)]);
    }

    #[test]
    fn meaning_weighs_as_much_as_the_model_reads_of_the_question() {
        let english = Some(&[Language::English][..]);
        let weight = |question: &str| meaning_weight(question, crate::analysis::detect(question), english);

        let read = weight("How long may I return the goods?");
        let undetermined = weight("return policy shoes");
        let same_script = weight("Wie lange kann ich die Ware zurückgeben?");
        assert!(read > undetermined && undetermined > same_script && same_script > 0.0);
        assert_eq!(weight("Сколько времени есть на возврат?"), 0.0);
        assert_eq!(weight("退货"), 0.0);
        assert_eq!(weight("როდის არის ბიბლიოთეკა ღია"), 0.0, "no language with rules");
        assert_eq!(weight("বাসের টিকিটের দাম কত।"), 0.0, "no language with rules");
        assert_eq!(meaning_weight("退货", Some(Language::Chinese), None), read);
    }

    proptest! {
        #[test]
        fn scores_stay_in_their_range_and_fall(
            scores in prop::collection::vec((prop::option::of(-1.0_f32..1.0), prop::option::of(0.001_f32..50.0)), 0..60),
            weight in 0.0_f32..=1.0,
            ceiling in prop::option::of(0.0_f32..200.0),
            names_rare_code: bool,
        ) {
            let hits: Vec<Candidate> = scores.iter().zip(0..).map(|((similarity, words), n)| candidate(n, *similarity, *words)).collect();
            let candidates = Candidates { hits: hits.clone(), keyword_ceiling: ceiling, names_rare_code };

            let fused = fuse(&candidates, weight);

            prop_assert!(fused.len() <= hits.len());
            prop_assert!(fused.iter().all(|hit| hit.score > 0.0 && hit.score <= 1.0));
            prop_assert!(fused.windows(2).all(|pair| pair[0].score >= pair[1].score));
            let mut reversed = candidates.clone();
            reversed.hits.reverse();
            let again = fuse(&reversed, weight);
            prop_assert_eq!(again.len(), fused.len());
        }

        #[test]
        fn better_on_both_sides_is_never_behind(
            scores in prop::collection::vec((-1.0_f32..1.0, 0.001_f32..50.0), 2..40),
            weight in 0.0_f32..=1.0,
        ) {
            let hits: Vec<Candidate> = scores.iter().zip(0..).map(|((similarity, words), n)| candidate(n, Some(*similarity), Some(*words))).collect();
            let fused = fuse(&Candidates { hits, ..Candidates::default() }, weight);
            for (place, hit) in fused.iter().enumerate() {
                for behind in &fused[place + 1..] {
                    prop_assert!(!(behind.similarity > hit.similarity && behind.keyword_score > hit.keyword_score) || behind.score == hit.score);
                }
            }
        }
    }
}
