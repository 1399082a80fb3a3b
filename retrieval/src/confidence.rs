//! How sure a search may be that a passage answers the question: one number that means the same in every tenant.
//!
//! A raw cosine does not: questions of three words and corpora about one subject have other cosines than long questions
//! and mixed corpora. So the similarity of a passage is taken from the question's own background, which is the mean of its
//! nearest candidates, and the score by words as a share of the highest that this question could have. What is about the
//! same thing without answering has both; so a third figure is how many of the words the passage says in one breath. All
//! go into one logistic regression, fitted on eight sets of four kinds together. Where words alone tell, it is the share, less
//! half of what the other candidates have of it. What is not known counts as it usually is of a passage about something else,
//! so that nothing becomes surer by it. What was tried and the figures: `docs/decisions/0014-fusion-and-confidence.md`.

use std::cmp::Ordering;

use crate::fuse::Hit;
use crate::index::Candidates;

/// Candidates, the best first, whose mean score is the question's background.
const BACKGROUND: usize = 100;

/// How near texts of nothing in common are to a model of which that was not measured, as to all-MiniLM-L6-v2.
const USUALLY_UNRELATED: f32 = 0.035;

/// Where between unrelated texts and 1 the mean of a question's nearest candidates usually lies: in a corpus there are always
/// some that have something in common with it.
const USUALLY_NEAREST: f32 = 0.171;

/// Candidates that the usual background counts for: a tenant with three chunks has none of its own.
const USUAL_COUNTS_FOR: f32 = 20.0;

/// What a passage has of a question's words that is about something else: of the highest score, and in one breath.
const USUAL_SHARE: f32 = 0.1;
const USUALLY_SAID: f32 = 0.25;

/// What is asked of a passage unless somebody chose otherwise, as a similarity: a confidence of 0.16 where meaning tells.
/// `docs/decisions/0014` has what that costs and saves.
pub const USUAL_SIMILARITY: f64 = 0.4;

/// Passages of which one must count, unless somebody chose otherwise.
pub const USUAL_PASSAGES: usize = 6;

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

/// What the candidates of a question usually have of its words' highest score, where words alone tell.
const USUALLY_SHARED: f32 = 0.05;

/// How much of the share that the others have counts against a passage, where words alone tell: words that many say tell little,
/// and a question may be about nothing else.
const SHARED_WEIGHT: f32 = 0.5;

/// What a similarity that is asked for means where words alone tell: the share of their highest score, less what the others
/// have, that stands for it.
const SHARE_PER_SIMILARITY: f32 = 0.5;

/// What a passage that says all of a question's words in one breath usually has of their highest score, less what others have.
const SHARE_PER_SAID: f32 = 0.37;

/// Where words alone tell, how near each other they stand adds nothing on all sets.
const BY_WORDS: Weights = Weights {
    nearness: 0.0,
    share: 3.6,
    said: 0.0,
    constant: -0.91,
};

/// How sure one may be that a passage answers the question.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Confidence {
    /// In [0, 1], the same in every tenant.
    pub value: f32,
    /// Meaning told something; else words alone did, which know less.
    pub is_by_meaning: bool,
    /// The passage is about another code of the kind than the question: whatever else speaks for it, it is no answer.
    pub is_of_another_code: bool,
}

impl Confidence {
    /// No more than a passage inspires that has nothing in common with the question.
    pub(crate) fn of_another_code(self) -> Self {
        let unrelated = match self.is_by_meaning {
            true => by_meaning(0.0, Some(0.0), Some(0.0)),
            false => by_words(0.0),
        };
        Self {
            value: self.value.min(unrelated),
            is_of_another_code: true,
            ..self
        }
    }
}

/// What a question's candidates tell about each of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Background {
    /// `None` where similarities say nothing: none was compared, or the model does not read the question's language.
    similarity: Option<f32>,
    keyword_ceiling: Option<f32>,
    /// What the others have of that, in [0, 1].
    shared: f32,
}

impl Background {
    /// Of a search; `meaning_weight` as for fusing, `unrelated` as [`Embedder::unrelated`](crate::embed::Embedder::unrelated)
    /// tells it, where that is known.
    pub fn of(candidates: &Candidates, meaning_weight: f32, unrelated: Option<f32>) -> Self {
        let hits = candidates.hits.iter();
        let similarities = hits.clone().filter_map(|hit| hit.similarity);
        let keyword_ceiling = candidates.keyword_ceiling.filter(|ceiling| *ceiling > 0.0);
        let share = |score: f32| keyword_ceiling.map(|ceiling| (score / ceiling).clamp(0.0, 1.0));
        let shares = hits.filter_map(|hit| share(hit.keyword_score?));
        Self {
            similarity: (meaning_weight >= crate::fuse::UNDETERMINED)
                .then(|| mean_of_others(similarities.collect(), usual_background(unrelated)))
                .flatten(),
            keyword_ceiling,
            shared: mean_of_others(shares.collect(), USUALLY_SHARED).unwrap_or(USUALLY_SHARED),
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
            (None, Some(share)) => by_words(share - SHARED_WEIGHT * self.shared),
            (None, None) => by_words(SHARE_PER_SAID * said_of_found(hit, said)?),
        };
        Some(Confidence {
            value,
            is_by_meaning: nearness.is_some(),
            is_of_another_code: false,
        })
    }
}

/// What a passage has to inspire to count as an answer: the one rule for answering or declining.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    by_meaning: f32,
    by_words: f32,
}

impl Threshold {
    /// As much as a passage of this cosine inspires on the background of a usual model that has no more of the question's words
    /// than one about something else; where words alone tell, as much as one with [`SHARE_PER_SIMILARITY`] of their highest
    /// score, less what others have. A cosine of 0 asks for nothing.
    pub fn of_similarity(similarity: f32) -> Self {
        if similarity <= 0.0 {
            return Self {
                by_meaning: 0.0,
                by_words: 0.0,
            };
        }
        Self {
            by_meaning: by_meaning(nearness(similarity, usual_background(None)), None, None),
            by_words: by_words(SHARE_PER_SIMILARITY * similarity),
        }
    }

    /// The confidence that counts, where meaning tells or where words alone do.
    pub const fn needed(&self, is_by_meaning: bool) -> f32 {
        match is_by_meaning {
            true => self.by_meaning,
            false => self.by_words,
        }
    }

    /// Whether a passage that inspires this counts. One of which nothing is known does where nothing is asked for.
    pub fn is_met_by(&self, confidence: Option<Confidence>) -> bool {
        match confidence {
            Some(found) => found.value >= self.needed(found.is_by_meaning),
            None => self.by_meaning == 0.0,
        }
    }

    /// Which of two says more (`Greater`: `a`): what counts, then meaning before words, then the higher one, at last what
    /// nothing is known of.
    pub fn compare(&self, a: Option<Confidence>, b: Option<Confidence>) -> Ordering {
        let says = |found: Option<Confidence>| {
            let known = found.map(|found| (found.is_by_meaning, found.value));
            let (is_by_meaning, value) = known.unwrap_or((false, f32::NEG_INFINITY));
            (self.is_met_by(found), is_by_meaning, value)
        };
        let (a, b) = (says(a), says(b));
        (a.0, a.1).cmp(&(b.0, b.1)).then_with(|| a.2.total_cmp(&b.2))
    }
}

impl Default for Threshold {
    fn default() -> Self {
        Self::of_similarity(USUAL_SIMILARITY as f32)
    }
}

/// What stands for the share of the highest score where an index tells none: what the passage says in one breath of the words
/// that found it, or all where its title says them already.
fn said_of_found(hit: &Hit, said: Option<f32>) -> Option<f32> {
    hit.keyword_score.map(|_| said.unwrap_or(1.0))
}

/// `share` is of the highest score, less what others have.
fn by_words(share: f32) -> f32 {
    BY_WORDS.confidence(0.0, share, 0.0)
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

/// The mean of the best candidates' scores but the very best, and of `usual` ones.
fn mean_of_others(mut scores: Vec<f32>, usual: f32) -> Option<f32> {
    scores.sort_by(|a, b| b.total_cmp(a));
    let (_, others) = scores.split_first()?;
    let others = &others[..others.len().min(BACKGROUND)];
    let sum: f32 = others.iter().sum();
    Some((sum + usual * USUAL_COUNTS_FOR) / (others.len() as f32 + USUAL_COUNTS_FOR))
}

/// The background of a question about which no corpus tells anything, to a model with this cosine between `unrelated` texts.
pub(crate) fn usual_background(unrelated: Option<f32>) -> f32 {
    let unrelated = unrelated.unwrap_or(USUALLY_UNRELATED).clamp(-1.0, 1.0);
    unrelated + USUALLY_NEAREST * (1.0 - unrelated)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::ChunkId;
    use crate::index::Candidate;

    const READ: f32 = 0.58;

    /// In one breath, of the question's words.
    const SAID: Option<f32> = Some(0.25);

    fn candidates(scores: &[(Option<f32>, Option<f32>)], keyword_ceiling: Option<f32>) -> Candidates {
        let hits = scores
            .iter()
            .zip(0_u128..)
            .map(|((similarity, keyword_score), n)| Candidate {
                chunk_id: ChunkId(Uuid::from_u128(n)),
                similarity: *similarity,
                keyword_score: *keyword_score,
            });
        Candidates {
            hits: hits.collect(),
            keyword_ceiling,
            ..Candidates::default()
        }
    }

    fn first(candidates: &Candidates, meaning_weight: f32) -> Option<f32> {
        let hit = crate::fuse::fuse(candidates, meaning_weight).into_iter().next()?;
        Some(
            Background::of(candidates, meaning_weight, None)
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
        let background = Background::of(&candidates, READ, None);
        let sure = |said| background.confidence(&hit, said).expect("evidence").value;

        assert!(sure(Some(1.0)) > sure(Some(0.2)) + 0.1);
    }

    #[test]
    fn an_index_that_knows_no_highest_score_leaves_meaning_and_what_is_said() {
        let candidates = candidates(&[(Some(0.5), Some(5.0)), (Some(0.2), None)], None);
        let hit = crate::fuse::fuse(&candidates, READ)[0];
        let background = Background::of(&candidates, READ, None);
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
        assert_eq!(first(&candidates(&[(Some(0.9), None)], None), 0.0), None);
    }

    #[test]
    fn an_index_that_knows_no_highest_score_leaves_what_is_said_where_words_alone_tell() {
        let candidates = candidates(&[(None, Some(5.0))], None);
        let hit = crate::fuse::fuse(&candidates, READ)[0];
        let background = Background::of(&candidates, READ, None);
        let counts = |said| Threshold::default().is_met_by(background.confidence(&hit, said));

        assert!(counts(Some(0.6)) && counts(None) && !counts(Some(0.4)));
    }

    /// The passage of this cosine and score among many of a usual background.
    fn among_usual(
        similarity: f32,
        keyword_score: Option<f32>,
        keyword_ceiling: Option<f32>,
    ) -> (Candidates, Hit) {
        let mut scores = vec![(Some(similarity), keyword_score)];
        scores.extend(vec![(Some(usual_background(None)), None); 100]);
        let candidates = candidates(&scores, keyword_ceiling);
        let hit = crate::fuse::fuse(&candidates, READ)[0];
        (candidates, hit)
    }

    #[test]
    fn a_question_of_which_nothing_but_nearness_is_known_is_judged_by_that() {
        let counts = |similarity| {
            let (candidates, hit) = among_usual(similarity, None, None);
            let found = Background::of(&candidates, READ, None).confidence(&hit, None);
            Threshold::of_similarity(0.4).is_met_by(found)
        };

        assert!(counts(0.41) && !counts(0.39));
    }

    #[test]
    fn a_cosine_stands_for_a_passage_that_has_few_of_the_words() {
        let (candidates, hit) = among_usual(0.5, Some(1.0), Some(10.0));
        let found = Background::of(&candidates, READ, None).confidence(&hit, SAID);

        assert!(Threshold::of_similarity(0.499).is_met_by(found));
        assert!(!Threshold::of_similarity(0.501).is_met_by(found));
    }

    #[test]
    fn a_higher_similarity_asks_for_more_by_meaning_and_by_words_and_none_for_nothing() {
        let steps: Vec<Threshold> = (0..=20)
            .map(|step| Threshold::of_similarity(step as f32 / 20.0))
            .collect();

        assert!(steps[0].is_met_by(None) && !steps[1].is_met_by(None));
        assert!(
            steps
                .windows(2)
                .all(|pair| pair[0].by_meaning < pair[1].by_meaning)
        );
        assert!(steps.windows(2).all(|pair| pair[0].by_words < pair[1].by_words));
    }

    #[test]
    fn where_words_alone_tell_a_passage_with_enough_of_them_counts() {
        let counts = |score: f32| {
            let candidates = candidates(&[(Some(0.0), Some(score))], Some(10.0));
            let hit = crate::fuse::fuse(&candidates, 0.0)[0];
            let found = Background::of(&candidates, 0.0, None).confidence(&hit, SAID);
            Threshold::default().is_met_by(found)
        };

        assert!(counts(4.0) && !counts(0.5));
    }

    #[test]
    fn where_words_alone_tell_what_many_have_counts_for_less_and_a_word_that_all_have_for_enough() {
        let sure = |first: f32, others: f32| {
            let mut scores = vec![(None, Some(first))];
            scores.extend(vec![(None, Some(others)); 99]);
            let candidates = candidates(&scores, Some(10.0));
            let hit = crate::fuse::fuse(&candidates, 0.0)[0];
            let found = Background::of(&candidates, 0.0, None).confidence(&hit, SAID);
            (
                found.expect("evidence").value,
                Threshold::default().is_met_by(found),
            )
        };

        assert!(sure(3.0, 0.2).0 > sure(3.0, 2.5).0);
        assert!(sure(2.5, 0.2).1 && !sure(2.5, 2.4).1);
        assert!(sure(4.5, 4.5).1, "a question of one word that is everywhere");
    }

    #[test]
    fn a_background_is_told_from_how_near_unrelated_texts_are_to_the_model() {
        let sure = |similarity, unrelated| {
            let candidates = candidates(&[(Some(similarity), None)], Some(10.0));
            let hit = crate::fuse::fuse(&candidates, READ)[0];
            let found = Background::of(&candidates, READ, unrelated).confidence(&hit, SAID);
            Threshold::default().is_met_by(found)
        };

        assert!(!sure(0.77, Some(0.75)) && sure(0.92, Some(0.75)));
        assert!(sure(0.77, Some(0.03)));
    }

    proptest! {
        #[test]
        fn confidence_is_a_share_and_rises_with_either_score(
            scores in prop::collection::vec((-1.0_f32..1.0, 0.0_f32..20.0), 1..40),
            more in 0.01_f32..0.5,
        ) {
            let scores: Vec<_> = scores.into_iter().map(|(similarity, words)| (Some(similarity), Some(words))).collect();
            let candidates = candidates(&scores, Some(20.0));
            let background = Background::of(&candidates, READ, None);
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
