//! How sure a search may be that a passage answers the question: one number that means the same in every tenant.
//!
//! A raw cosine does not: questions of three words and corpora about one subject have other cosines than long questions
//! and mixed corpora. So the similarity of a passage is taken from the question's own background, which is the mean of its
//! nearest candidates, and the score by words as a share of the highest that this question could have. What is about the
//! same thing without answering has both; so a third figure is how many of the words the passage says in one breath. All
//! go into one logistic regression, fitted on eight sets of four kinds together. What is not known counts as it usually is
//! of a passage about something else, so that nothing becomes surer by it. What was tried and the figures:
//! `docs/decisions/0014-fusion-and-confidence.md`.

use crate::fuse::Hit;
use crate::index::Candidates;

/// Candidates, the nearest first, whose mean similarity is the question's background.
const BACKGROUND: usize = 100;

/// The background of a question about which no corpus tells anything.
const USUAL_BACKGROUND: f32 = 0.2;

/// Candidates that [`USUAL_BACKGROUND`] counts for: a tenant with three chunks has no background of its own.
const USUAL_COUNTS_FOR: f32 = 20.0;

/// What a passage has of a question's words that is about something else: of the highest score, and in one breath.
const USUAL_SHARE: f32 = 0.1;
const USUALLY_SAID: f32 = 0.25;

/// Logistic regressions on what is known of a passage.
struct Weights {
    /// Of the nearness squared, with its sign: of passages that are hardly nearer than others, the nearest says little.
    nearness: f32,
    share: f32,
    said: f32,
    constant: f32,
}

const BY_MEANING: Weights = Weights {
    nearness: 6.6,
    share: 1.36,
    said: 2.17,
    constant: -2.78,
};

/// Where words alone tell, how near each other they stand adds nothing on all sets.
const BY_WORDS: Weights = Weights {
    nearness: 0.0,
    share: 3.6,
    said: 0.0,
    constant: -0.98,
};

/// How sure one may be that a passage answers the question.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Confidence {
    /// In [0, 1], the same in every tenant.
    pub value: f32,
    /// Meaning told something; else words alone did, which know less.
    pub is_by_meaning: bool,
}

/// What a question's candidates tell about each of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Background {
    /// `None` where similarities say nothing: none was compared, or the model does not read the question's language.
    similarity: Option<f32>,
    keyword_ceiling: Option<f32>,
}

impl Background {
    /// Of a search; `meaning_weight` as for fusing.
    pub fn of(candidates: &Candidates, meaning_weight: f32) -> Self {
        Self {
            similarity: (meaning_weight >= crate::fuse::UNDETERMINED)
                .then(|| background(candidates))
                .flatten(),
            keyword_ceiling: candidates.keyword_ceiling.filter(|ceiling| *ceiling > 0.0),
        }
    }

    /// How sure one may be that `hit` answers the question, of whose words it says the share `said` in one breath
    /// ([`Asked::share_said`](crate::analysis::Asked::share_said)); `None` when no score tells anything.
    pub fn confidence(&self, hit: &Hit, said: Option<f32>) -> Option<Confidence> {
        let nearness = self
            .similarity
            .zip(hit.similarity)
            .map(|(background, similarity)| nearness(similarity, background));
        let share = self
            .keyword_ceiling
            .map(|ceiling| (hit.keyword_score.unwrap_or(0.0) / ceiling).clamp(0.0, 1.0));
        let value = match (nearness, share) {
            (Some(nearness), share) => by_meaning(nearness, share, said),
            (None, Some(share)) => BY_WORDS.confidence(0.0, share, 0.0),
            (None, None) => return None,
        };
        Some(Confidence {
            value,
            is_by_meaning: nearness.is_some(),
        })
    }
}

/// The confidence in a passage of this cosine on a usual background that has no more of the question's words than one about
/// something else: what a passage has to inspire. A cosine of 0 asks for nothing.
pub fn of_similarity(similarity: f32) -> f32 {
    if similarity <= 0.0 {
        return 0.0;
    }
    by_meaning(nearness(similarity, USUAL_BACKGROUND), None, None)
}

fn by_meaning(nearness: f32, share: Option<f32>, said: Option<f32>) -> f32 {
    BY_MEANING.confidence(
        nearness,
        share.unwrap_or(USUAL_SHARE),
        said.unwrap_or(USUALLY_SAID),
    )
}

impl Weights {
    fn confidence(&self, nearness: f32, share: f32, said: f32) -> f32 {
        let evidence =
            self.nearness * nearness * nearness.abs() + self.share * share + self.said * said + self.constant;
        1.0 / (1.0 + (-evidence).exp())
    }
}

/// How far from the background towards the question a passage is: 1 says the same, 0 is like the others. Models whose
/// cosines are all high come to the same scale by this.
fn nearness(similarity: f32, background: f32) -> f32 {
    (similarity - background) / (1.0 - background).max(0.01)
}

/// The mean similarity of the nearest candidates but the very nearest.
fn background(candidates: &Candidates) -> Option<f32> {
    let mut similarities: Vec<f32> = candidates.hits.iter().filter_map(|hit| hit.similarity).collect();
    similarities.sort_by(|a, b| b.total_cmp(a));
    let (_, others) = similarities.split_first()?;
    let others = &others[..others.len().min(BACKGROUND)];
    let sum: f32 = others.iter().sum();
    Some((sum + USUAL_BACKGROUND * USUAL_COUNTS_FOR) / (others.len() as f32 + USUAL_COUNTS_FOR))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::index::Candidate;
    use crate::{ChunkId, DocumentId};

    const READ: f32 = 0.58;

    /// In one breath, of the question's words.
    const SAID: Option<f32> = Some(0.25);

    fn candidates(scores: &[(Option<f32>, Option<f32>)], keyword_ceiling: Option<f32>) -> Candidates {
        let hits = scores
            .iter()
            .zip(0_u128..)
            .map(|((similarity, keyword_score), n)| Candidate {
                chunk_id: ChunkId(Uuid::from_u128(n)),
                document_id: DocumentId(Uuid::from_u128(n)),
                similarity: *similarity,
                keyword_score: *keyword_score,
            });
        Candidates {
            hits: hits.collect(),
            keyword_ceiling,
        }
    }

    fn first(candidates: &Candidates, meaning_weight: f32) -> Option<f32> {
        let hit = crate::fuse::fuse(candidates, meaning_weight).into_iter().next()?;
        Some(
            Background::of(candidates, meaning_weight)
                .confidence(&hit, SAID)?
                .value,
        )
    }

    #[test]
    fn standing_out_counts_and_not_the_cosine_itself() {
        let others = |similarity: f32| vec![(Some(similarity), None); 60];
        let among = |others: Vec<_>| {
            let mut scores = vec![(Some(0.6), Some(5.0))];
            scores.extend(others);
            first(&candidates(&scores, Some(10.0)), READ).expect("evidence")
        };

        assert!(among(others(0.1)) > among(others(0.5)) + 0.2);
    }

    #[test]
    fn words_that_the_passage_holds_make_surer() {
        let with = |score: f32| {
            first(
                &candidates(&[(Some(0.5), Some(score)), (Some(0.2), None)], Some(10.0)),
                READ,
            )
            .expect("evidence")
        };

        assert!(with(9.0) > with(3.0));
        assert!(with(3.0) > with(0.1));
    }

    #[test]
    fn words_in_one_breath_make_surer_than_words_alone() {
        let candidates = candidates(&[(Some(0.5), Some(5.0)), (Some(0.2), None)], Some(10.0));
        let hit = crate::fuse::fuse(&candidates, READ)[0];
        let background = Background::of(&candidates, READ);
        let sure = |said| background.confidence(&hit, said).expect("evidence").value;

        assert!(sure(Some(1.0)) > sure(Some(0.2)) + 0.1);
    }

    #[test]
    fn an_index_that_knows_no_highest_score_leaves_meaning_and_what_is_said() {
        let candidates = candidates(&[(Some(0.5), Some(5.0)), (Some(0.2), None)], None);
        let hit = crate::fuse::fuse(&candidates, READ)[0];
        let background = Background::of(&candidates, READ);
        let found = |said| background.confidence(&hit, said).expect("evidence");

        assert!(found(None).is_by_meaning && found(Some(1.0)).value > found(None).value);
    }

    #[test]
    fn in_a_language_that_the_model_does_not_read_words_alone_tell() {
        let with = |similarity: f32| first(&candidates(&[(Some(similarity), Some(5.0))], Some(10.0)), 0.0);

        assert_eq!(with(0.9), with(0.1));
        assert!(with(0.9).is_some());
    }

    #[test]
    fn one_chunk_alone_is_judged_on_a_usual_background() {
        let sure = first(&candidates(&[(Some(0.8), None)], Some(10.0)), READ).expect("evidence");
        let unsure = first(&candidates(&[(Some(0.1), None)], Some(10.0)), READ).expect("evidence");

        assert!(sure > 0.5 && unsure < 0.1, "{sure} {unsure}");
    }

    #[test]
    fn without_evidence_there_is_no_confidence() {
        assert_eq!(first(&candidates(&[(None, Some(5.0))], None), READ), None);
    }

    #[test]
    fn a_question_of_which_nothing_but_nearness_is_known_is_judged_by_that() {
        let among = |similarity| {
            let mut scores = vec![(Some(similarity), None)];
            scores.extend(vec![(Some(0.2), None); 100]);
            let candidates = candidates(&scores, None);
            let hit = crate::fuse::fuse(&candidates, READ)[0];
            let background = Background::of(&candidates, READ);
            background.confidence(&hit, None).expect("evidence").value
        };

        assert!(among(0.2) < of_similarity(0.4) - 0.03);
        assert!((among(0.4) - of_similarity(0.4)).abs() < 1e-4);
    }

    #[test]
    fn a_higher_cosine_asks_for_more_and_none_for_nothing() {
        let steps: Vec<f32> = (0..=20).map(|step| of_similarity(step as f32 / 20.0)).collect();

        assert_eq!(steps[0], 0.0);
        assert!(steps.windows(2).all(|pair| pair[0] < pair[1]), "{steps:?}");
    }

    #[test]
    fn a_cosine_stands_for_a_passage_that_has_few_of_the_words() {
        let mut scores = vec![(Some(0.5), Some(1.0))];
        scores.extend(vec![(Some(0.2), None); 100]);
        let found = first(&candidates(&scores, Some(10.0)), READ).expect("evidence");

        assert!((found - of_similarity(0.5)).abs() < 1e-4);
    }

    proptest! {
        #[test]
        fn confidence_is_a_share_and_rises_with_either_score(
            scores in prop::collection::vec((-1.0_f32..1.0, 0.0_f32..20.0), 1..40),
            more in 0.01_f32..0.5,
        ) {
            let scores: Vec<_> = scores.into_iter().map(|(similarity, words)| (Some(similarity), Some(words))).collect();
            let candidates = candidates(&scores, Some(20.0));
            let background = Background::of(&candidates, READ);
            for hit in crate::fuse::fuse(&candidates, READ) {
                let sure = |hit: &Hit| background.confidence(hit, SAID).expect("evidence").value;
                let confidence = sure(&hit);
                prop_assert!((0.0..=1.0).contains(&confidence));
                let nearer = Hit { similarity: hit.similarity.map(|similarity| similarity + more), ..hit };
                let fuller = Hit { keyword_score: hit.keyword_score.map(|words| words + more), ..hit };
                prop_assert!(sure(&nearer) >= confidence);
                prop_assert!(sure(&fuller) >= confidence);
            }
        }
    }
}
