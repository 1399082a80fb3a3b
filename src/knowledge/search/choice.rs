//! Which of the found passages are told, in which order: what a chatbot's owner prefers, what says something new, what a
//! reranker thinks, and what differs from the rest.

use std::cell::OnceCell;
use std::time::Instant;

use retrieval::confidence::{Confidence, Threshold};
use retrieval::diversity::{self, Gist, Sketch};
use retrieval::rerank;

use super::Passage;
use super::boosts::Boosts;
use super::explain::{StageItem, StageName, Trace};
use super::settings::SearchSettings;

/// Passages among which preferences and differences decide, where they do.
const POOL: usize = 50;

/// The passages of one search, the best first, while it is decided which of them are told.
pub(super) struct Choice<'a> {
    settings: &'a SearchSettings,
    boosts: Option<Boosts<'a>>,
    wanted: Wanted,
    /// Passages wanted before the last of them are chosen.
    pool: usize,
    candidates: Vec<Candidate>,
}

/// Which passages a search is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// So many.
    pub(super) limit: usize,
    /// Among those that a reranker is to look at; none: nobody does.
    pub(super) reranked: Option<usize>,
    /// Nothing that a better passage says already.
    pub(super) without_repetitions: bool,
    /// What a chat asks of a passage.
    pub(super) threshold: Threshold,
}

struct Candidate {
    passage: Passage,
    /// Its score before anything is preferred.
    score: f32,
    /// None where repetitions are wanted.
    sketch: Option<Sketch>,
    /// Made when somebody asks for it.
    gist: OnceCell<Gist>,
}

impl Candidate {
    fn gist(&self) -> &Gist {
        self.gist.get_or_init(|| Gist::of(&seen(&self.passage)))
    }

    /// Whether another one says all of it. Nearly all that differ are told apart by their sketches.
    fn repeats(&self, other: &Self) -> bool {
        let may_repeat = match (&self.sketch, &other.sketch) {
            (Some(own), Some(others)) => own.may_be_said_by(others),
            _ => false,
        };
        may_repeat && self.gist().is_said_by(other.gist())
    }
}

/// All that a reader sees of a passage: of two products with the same text, the title tells which is which.
fn seen(passage: &Passage) -> [&str; 3] {
    let heading = passage.heading.as_deref().unwrap_or_default();
    [&passage.title, heading, &passage.text]
}

impl<'a> Choice<'a> {
    pub(super) fn new(settings: &'a SearchSettings, boosts: Option<Boosts<'a>>, wanted: Wanted) -> Self {
        let reorders = boosts.is_some() || settings.mmr_lambda < 1.0;
        let pool = if reorders { POOL } else { 0 };
        Self {
            settings,
            boosts,
            wanted,
            pool: pool.max(wanted.limit).max(wanted.reranked.unwrap_or_default()),
            candidates: Vec::new(),
        }
    }

    /// How many passages are looked among.
    pub(super) const fn pool(&self) -> usize {
        self.pool
    }

    /// Whether more passages would be looked at.
    pub(super) fn wants_more(&self) -> bool {
        self.candidates.len() < self.pool
    }

    /// Whether there are as many as are wanted in the end.
    pub(super) fn is_enough(&self) -> bool {
        self.candidates.len() >= self.wanted.limit
    }

    /// What no passage that is taken later scores above; 1 as long as there is none.
    pub(super) fn lowest_score(&self) -> f32 {
        let scores = self.candidates.iter().map(|candidate| candidate.score);
        scores.fold(1.0, f32::min)
    }

    /// Takes passages that are as near as those before, or less.
    pub(super) fn add(&mut self, passages: Vec<Passage>, trace: &mut Trace) {
        let leaves_out = self.wanted.without_repetitions;
        let new = passages.into_iter().map(|passage| Candidate {
            score: passage.score,
            passage,
            sketch: None,
            gist: OnceCell::new(),
        });
        let mut new: Vec<Candidate> = new.collect();
        prefer(self.boosts.as_ref(), &mut new);
        let started = Instant::now();
        let mut repetitions = Vec::new();
        for mut candidate in new {
            if !self.wants_more() {
                break;
            }
            candidate.sketch = leaves_out.then(|| Sketch::of(&seen(&candidate.passage)));
            if self.candidates.iter().any(|other| candidate.repeats(other)) {
                repetitions.push(StageItem::left_out(candidate.passage.chunk_id, "repetition"));
            } else {
                self.candidates.push(candidate);
            }
        }
        if leaves_out {
            trace.add(StageName::Repetitions, started, || repetitions);
        }
    }

    /// The passages that a reranker looks at: the first `count`, the best first.
    pub(super) fn first(&self, count: usize) -> impl Iterator<Item = &Passage> {
        self.candidates
            .iter()
            .take(count)
            .map(|candidate| &candidate.passage)
    }

    /// Puts the first ones in the order of a reranker's scores. It decides their places; the scores are those that belong to
    /// the places, so that they mean what they meant, and preferences count on top of it. So are the confidences: how sure one
    /// may be that something here answers is the search's to tell, and where, the reranker's. A passage about another code
    /// than the question's keeps its own.
    pub(super) fn rerank(&mut self, scores: &[Option<f32>], started: Instant, trace: &mut Trace) {
        let count = scores.len().min(self.candidates.len());
        let behind = self.candidates.split_off(count);
        let mut first: Vec<Option<Candidate>> = self.candidates.drain(..).map(Some).collect();
        let mut steps: Vec<f32> = first.iter().flatten().map(|candidate| candidate.score).collect();
        steps.sort_by(|a, b| b.total_cmp(a));
        let mut sure = self.surest_first(first.iter().flatten()).into_iter();
        let mut items = Vec::new();
        for (step, place) in steps.into_iter().zip(rerank::order(&scores[..count])) {
            if let Some(mut candidate) = first[place].take() {
                candidate.score = step;
                candidate.passage.score = step;
                if !is_of_another_code(&candidate.passage) {
                    candidate.passage.confidence = sure.next().flatten();
                }
                items.push(StageItem::new(
                    candidate.passage.chunk_id,
                    [
                        ("relevance", scores[place]),
                        ("score", Some(step)),
                        ("confidence", candidate.passage.confidence.map(|sure| sure.value)),
                    ],
                ));
                self.candidates.push(candidate);
            }
        }
        self.candidates.extend(behind);
        trace.add(StageName::Rerank, started, || items);
        prefer(self.boosts.as_ref(), &mut self.candidates);
    }

    /// The confidences that places are given, the one that says most first.
    fn surest_first<'c>(&self, candidates: impl Iterator<Item = &'c Candidate>) -> Vec<Option<Confidence>> {
        let candidates = candidates.filter(|candidate| !is_of_another_code(&candidate.passage));
        let mut sure: Vec<Option<Confidence>> =
            candidates.map(|candidate| candidate.passage.confidence).collect();
        sure.sort_by(|a, b| self.wanted.threshold.compare(*b, *a));
        sure
    }

    /// The passages that are told, best first.
    pub(super) fn finish(mut self, trace: &mut Trace) -> Vec<Passage> {
        if let Some(boosts) = &self.boosts {
            scale(boosts, &mut self.candidates, trace);
        }
        let lambda = self.settings.mmr_lambda as f32;
        if lambda >= 1.0 {
            self.candidates.truncate(self.wanted.limit);
            return self
                .candidates
                .into_iter()
                .map(|candidate| candidate.passage)
                .collect();
        }
        let started = Instant::now();
        let gists = self.candidates.iter();
        let gists = gists.map(|candidate| (candidate.passage.score, candidate.gist()));
        let picks = diversity::pick(&gists.collect::<Vec<_>>(), lambda, self.wanted.limit);
        let mut left: Vec<Option<Passage>> = self
            .candidates
            .into_iter()
            .map(|candidate| Some(candidate.passage))
            .collect();
        let mut chosen: Vec<Passage> = Vec::with_capacity(picks.len());
        let mut items = Vec::new();
        for pick in picks {
            if let Some(passage) = left[pick.place].take() {
                items.push(StageItem::new(passage.chunk_id, [("margin", Some(pick.margin))]));
                chosen.push(passage);
            }
        }
        trace.add(StageName::Mmr, started, || items);
        chosen
    }
}

/// Whether the passage is about another code than the question.
fn is_of_another_code(passage: &Passage) -> bool {
    passage
        .confidence
        .is_some_and(|confidence| confidence.is_of_another_code)
}

/// Multiplies scores by what is preferred, and orders by them.
fn prefer(boosts: Option<&Boosts<'_>>, candidates: &mut [Candidate]) {
    let Some(boosts) = boosts else { return };
    for candidate in candidates.iter_mut() {
        candidate.passage.score = candidate.score * boosts.factor(&candidate.passage);
    }
    candidates.sort_by(|a, b| b.passage.score.total_cmp(&a.passage.score));
}

/// Divides by the most preferred of what was found, so that scores are in (0, 1], and orders by them. What is preferred and was
/// not found would make all others alike.
fn scale(boosts: &Boosts<'_>, candidates: &mut [Candidate], trace: &mut Trace) {
    let started = Instant::now();
    let factors = candidates.iter();
    let most = factors
        .map(|candidate| boosts.factor(&candidate.passage))
        .fold(f32::MIN_POSITIVE, f32::max);
    for candidate in candidates.iter_mut() {
        candidate.passage.score /= most;
    }
    candidates.sort_by(|a, b| b.passage.score.total_cmp(&a.passage.score));
    trace.add(StageName::Boosts, started, || {
        let item = |candidate: &Candidate| {
            let passage = &candidate.passage;
            let factor = boosts.factor(passage) / most;
            StageItem::new(
                passage.chunk_id,
                [("factor", Some(factor)), ("score", Some(passage.score))],
            )
        };
        candidates.iter().map(item).collect()
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SourceId;
    use crate::knowledge::search::tests::passage;

    fn scored(texts: &[(&str, f32)]) -> Vec<Passage> {
        let scored = |(text, score): &(&str, f32)| Passage {
            score: *score,
            ..passage(text)
        };
        texts.iter().map(scored).collect()
    }

    fn wanted(limit: usize) -> Wanted {
        Wanted {
            limit,
            reranked: None,
            without_repetitions: true,
            threshold: Threshold::default(),
        }
    }

    fn told(choice: Choice<'_>) -> Vec<(String, f32)> {
        let passages = choice.finish(&mut Trace::default());
        passages
            .into_iter()
            .map(|passage| (passage.text, passage.score))
            .collect()
    }

    fn texts(choice: Choice<'_>) -> Vec<String> {
        told(choice).into_iter().map(|(text, _)| text).collect()
    }

    const RETURNS: &str = "Goods may be returned within thirty days.";
    const CARDS: &str = "Gift cards are valid for three years.";

    #[test]
    fn what_was_said_is_left_out_and_makes_room() {
        let settings = SearchSettings::default();
        let mut choice = Choice::new(&settings, None, wanted(2));

        choice.add(
            scored(&[
                (RETURNS, 1.0),
                ("GOODS may be returned within thirty days", 0.9),
                (CARDS, 0.5),
            ]),
            &mut Trace::default(),
        );

        assert_eq!(texts(choice), [RETURNS, CARDS]);
    }

    #[test]
    fn repetitions_stay_where_nobody_minds() {
        let settings = SearchSettings::default();
        let all = Wanted {
            without_repetitions: false,
            ..wanted(2)
        };
        let mut choice = Choice::new(&settings, None, all);

        choice.add(
            scored(&[(RETURNS, 1.0), (RETURNS, 0.9), (CARDS, 0.5)]),
            &mut Trace::default(),
        );

        assert_eq!(texts(choice), [RETURNS, RETURNS]);
    }

    #[test]
    fn a_reranker_decides_places_and_scores_belong_to_places() {
        let settings = SearchSettings::default();
        let mut choice = Choice::new(&settings, None, wanted(3));
        choice.add(
            scored(&[("one", 0.9), ("two", 0.7), ("three", 0.4), ("four", 0.3)]),
            &mut Trace::default(),
        );

        choice.rerank(
            &[Some(-3.0), None, Some(4.0)],
            Instant::now(),
            &mut Trace::default(),
        );

        let places = [("three", 0.9), ("one", 0.7), ("two", 0.4)];
        assert_eq!(told(choice), places.map(|(text, score)| (text.to_owned(), score)));
    }

    fn sure(text: &str, value: f32, is_of_another_code: bool) -> Passage {
        Passage {
            confidence: Some(Confidence {
                value,
                is_by_meaning: true,
                is_of_another_code,
            }),
            ..passage(text)
        }
    }

    #[test]
    fn what_a_reranker_puts_first_is_as_sure_as_the_surest_that_it_read() {
        let settings = SearchSettings::default();
        let mut choice = Choice::new(&settings, None, wanted(4));
        let found = vec![
            sure("near", 0.7, false),
            sure("another product", 0.1, true),
            sure("nearer", 0.4, false),
            sure("right", 0.05, false),
        ];
        choice.add(found, &mut Trace::default());

        choice.rerank(
            &[Some(0.2), Some(0.8), Some(0.1), Some(0.9)],
            Instant::now(),
            &mut Trace::default(),
        );

        let passages = choice.finish(&mut Trace::default());
        let told = passages.iter().map(|passage| {
            let confidence = passage.confidence.expect("a confidence");
            (passage.text.as_str(), confidence.value)
        });
        assert_eq!(
            told.collect::<Vec<_>>(),
            [
                ("right", 0.7),
                ("another product", 0.1),
                ("near", 0.4),
                ("nearer", 0.05)
            ]
        );
    }

    #[test]
    fn preferences_are_explained_by_the_scores_that_passages_end_with() {
        let settings = SearchSettings {
            recency_half_life_days: Some(1),
            recency_weight: 0.5,
            ..SearchSettings::default()
        };
        let now = "2026-11-20T00:00:00Z".parse().expect("a time");
        let mut choice = Choice::new(&settings, Boosts::of(&settings, now), wanted(2));
        let mut found = scored(&[("a month old", 0.9), ("a year old", 0.8)]);
        found[0].dated = "2026-10-20T00:00:00Z".parse().expect("a time");
        found[1].dated = "2025-11-20T00:00:00Z".parse().expect("a time");
        let mut trace = Trace::on();
        choice.add(found, &mut trace);

        let passages = choice.finish(&mut trace);

        let stages = trace.into_stages().expect("they were wanted");
        let boosts = stages.iter().find(|stage| stage.name == StageName::Boosts);
        let items = &boosts.expect("the stage").items;
        let scores = |place: usize| items[place].scores.clone();
        assert_eq!(scores(0), [("factor", 1.0), ("score", passages[0].score)]);
        assert!((passages[0].score - 0.9).abs() < 1e-4 && (passages[1].score - 0.8).abs() < 1e-4);
        assert_eq!(scores(1)[1].1, passages[1].score);
    }

    #[test]
    fn preferences_count_on_top_of_a_rerankers_order() {
        let settings = SearchSettings {
            recency_half_life_days: Some(1),
            recency_weight: 1.0,
            ..SearchSettings::default()
        };
        let now = "2026-11-20T00:00:00Z".parse().expect("a time");
        let mut choice = Choice::new(&settings, Boosts::of(&settings, now), wanted(2));
        let mut found = scored(&[("old", 0.9), ("new", 0.8)]);
        found[0].dated = "2026-01-01T00:00:00Z".parse().expect("a time");
        found[1].dated = now;
        choice.add(found, &mut Trace::default());

        choice.rerank(&[Some(0.0), Some(1.0)], Instant::now(), &mut Trace::default());

        let told = told(choice);
        assert_eq!(told[0], ("new".to_owned(), 0.8));
        assert!(told[1].0 == "old" && told[1].1 < 0.01);
    }

    #[test]
    fn a_source_that_nothing_was_found_of_makes_no_others_alike() {
        let settings = SearchSettings {
            source_boosts: [(SourceId::new(), 10.0)].into(),
            mmr_lambda: 0.9,
            ..SearchSettings::default()
        };
        let now = "2026-11-20T00:00:00Z".parse().expect("a time");
        let mut choice = Choice::new(&settings, Boosts::of(&settings, now), wanted(2));

        choice.add(
            scored(&[
                (RETURNS, 1.0),
                ("Goods may be returned within thirty days, unworn.", 0.9),
                (CARDS, 0.1),
            ]),
            &mut Trace::default(),
        );

        let told = told(choice);
        assert_eq!(told[0], (RETURNS.to_owned(), 1.0));
        assert_eq!(told[1].0, "Goods may be returned within thirty days, unworn.");
    }

    #[test]
    fn a_lower_lambda_prefers_what_was_not_said() {
        let settings = SearchSettings {
            mmr_lambda: 0.5,
            ..SearchSettings::default()
        };
        let mut choice = Choice::new(&settings, None, wanted(2));

        choice.add(
            scored(&[
                (RETURNS, 1.0),
                ("Within thirty days goods may be returned by post.", 0.9),
                (CARDS, 0.6),
            ]),
            &mut Trace::default(),
        );

        assert_eq!(texts(choice), [RETURNS, CARDS]);
    }
}
