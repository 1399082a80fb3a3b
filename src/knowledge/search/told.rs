//! What a chat would be told to the question of a search, and whether it would answer. The same is looked for once more as a chat
//! looks for it: how many passages are wanted decides which of them are read and judged together.

use std::time::{Duration, Instant};

use retrieval::confidence::{Confidence, Threshold};

use super::explain::{StageName, Trace};
use super::{Passage, Search, SearchFilter, SearchResult, context, rows, search_sources};
use crate::app::App;
use crate::chatbots::Settings;
use crate::error::Result;
use crate::http::access::Reach;

/// What a chat would be told to a question.
#[derive(Clone, Debug)]
pub struct Told {
    /// Best first, at most as many as answers of the chatbot are made of.
    pub passages: Vec<Passage>,
    /// The chatbot's setting of this name.
    pub min_similarity: f64,
    threshold: Threshold,
    /// How long looking for them took.
    pub took: Duration,
}

impl Told {
    /// How sure one may be that one of the passages answers the question, whatever their order: a chat knows an answer as
    /// soon as it may be sure enough of any of them.
    pub fn confidence(&self) -> Option<Confidence> {
        let confidences = self.passages.iter().map(|passage| passage.confidence);
        confidences
            .max_by(|a, b| self.threshold.compare(*a, *b))
            .flatten()
    }

    /// The confidence that counts, on the scale of the one that there is.
    pub fn needed_confidence(&self) -> Option<f32> {
        let confidence = self.confidence()?;
        Some(self.threshold.needed(confidence.is_by_meaning))
    }

    /// Whether a chat would answer rather than say that it does not know.
    pub fn is_enough(&self) -> bool {
        let mut passages = self.passages.iter();
        passages.any(|passage| self.threshold.is_met_by(passage.confidence))
    }

    /// The first passage that a chat would answer from; where it would say that it does not know, the first that it looked at.
    pub fn first(&self) -> Option<&Passage> {
        let mut passages = self.passages.iter();
        let counts = passages.find(|passage| self.threshold.is_met_by(passage.confidence));
        counts.or_else(|| self.passages.first())
    }
}

/// The passages that inspire enough confidence, in their order: without any, nothing is known about the question.
pub fn keep_relevant(mut passages: Vec<Passage>, threshold: Threshold) -> Vec<Passage> {
    passages.retain(|passage| threshold.is_met_by(passage.confidence));
    passages
}

/// What a chat with these settings would be told to the question of `search`, which `found` came of. Its search is carried out
/// where it is another one; what it had to do without is added to `found`.
pub(super) async fn tell(
    app: &App,
    reach: Reach,
    search: Search<'_>,
    decided: &Settings,
    found: &mut SearchResult,
    trace: &mut Trace,
) -> Result<Told> {
    let started = Instant::now();
    let limit = usize::try_from(decided.max_passages).unwrap_or(1);
    let without_repetitions = search.settings.leave_out_repetitions;
    let (chatbot_id, threshold) = (search.chatbot_id, search.threshold);
    let (audience, settings) = (search.filter.audience.clone(), search.settings);
    let passages = if search.limit == limit && search.filter.without_repetitions == without_repetitions {
        found.passages.clone()
    } else {
        let as_a_chat = Search {
            limit,
            said: found.said.take(),
            filter: SearchFilter {
                without_repetitions,
                ..search.filter
            },
            ..search
        };
        let told = search_sources(app, reach, as_a_chat, &mut Trace::default()).await?;
        for lacking in told.degraded {
            lacking.note(&mut found.degraded);
        }
        told.passages
    };
    let took = started.elapsed();
    let most_tokens = usize::try_from(settings.context_tokens).unwrap_or_default();
    if trace.is_on() && most_tokens > 0 {
        let started = Instant::now();
        let relevant = keep_relevant(passages.clone(), threshold);
        let around = context::around(app, reach, chatbot_id, &audience, &relevant, most_tokens).await?;
        trace.add(StageName::Context, started, || {
            around.iter().map(rows::by_tokens).collect()
        });
    }
    Ok(Told {
        passages,
        min_similarity: decided.min_similarity,
        threshold,
        took,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knowledge::search::tests::passage;

    fn told(confidences: &[Option<(f32, bool)>]) -> Told {
        let sure = |confidence: &Option<(f32, bool)>| Passage {
            confidence: confidence.map(|(value, is_by_meaning)| Confidence {
                value,
                is_by_meaning,
                is_of_another_code: false,
            }),
            ..passage("text")
        };
        Told {
            passages: confidences.iter().map(sure).collect(),
            min_similarity: 0.4,
            threshold: Threshold::default(),
            took: Duration::ZERO,
        }
    }

    #[test]
    fn the_confidence_is_that_of_the_surest_passage_in_whatever_order_they_are() {
        let surest = |confidences: &[_]| told(confidences).confidence().map(|found| found.value);

        assert_eq!(surest(&[Some((0.2, true)), None, Some((0.9, true))]), Some(0.9));
        assert_eq!(
            surest(&[Some((0.9, false)), Some((0.3, true))]),
            Some(0.3),
            "meaning goes first"
        );
        assert_eq!(
            surest(&[Some((0.05, true)), Some((0.9, false))]),
            Some(0.9),
            "what counts goes before"
        );
        assert_eq!(surest(&[None]), None);
    }

    #[test]
    fn an_answer_begins_with_the_first_passage_that_counts() {
        let first = |confidences: &[_]| {
            let told = told(confidences);
            let first = told.first().map(|passage| passage.chunk_id);
            let place = told
                .passages
                .iter()
                .position(|passage| Some(passage.chunk_id) == first);
            (told.is_enough(), place)
        };

        assert_eq!(first(&[Some((0.05, true)), Some((0.3, true))]), (true, Some(1)));
        assert_eq!(first(&[Some((0.05, true)), None]), (false, Some(0)));
        assert_eq!(first(&[]), (false, None));
    }
}
