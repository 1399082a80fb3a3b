//! How a search came to its passages: what each stage made of them, and how long it took.
//!
//! Only passages that the asker may read are told of. What the index offers beyond them stays unsaid.

use std::time::{Duration, Instant};

use crate::id::ChunkId;

/// The stages of a search, in the order in which they are carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StageName {
    /// The question becomes a vector.
    Embed,
    /// What is near by meaning, and what by words.
    Index,
    /// Both in one order.
    Fuse,
    /// The rows behind it, as far as the asker may read them.
    Rows,
    /// What quotes ask for and a minus excludes.
    Operators,
    /// What says nothing new.
    Repetitions,
    /// A reranker's order.
    Rerank,
    /// What the owner prefers: the recent, and some sources.
    Boosts,
    /// What differs from what was chosen before.
    Mmr,
    /// What stands around the passages, for a prompt.
    Context,
}

impl StageName {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::Index => "index",
            Self::Fuse => "fuse",
            Self::Rows => "rows",
            Self::Operators => "operators",
            Self::Repetitions => "repetitions",
            Self::Rerank => "rerank",
            Self::Boosts => "boosts",
            Self::Mmr => "mmr",
            Self::Context => "context",
        }
    }
}

/// What one stage did.
#[derive(Clone, Debug)]
pub struct Stage {
    pub name: StageName,
    pub took: Duration,
    /// In the order in which the stage left them; those that it left out last.
    pub items: Vec<StageItem>,
}

/// A passage as a stage saw it.
#[derive(Clone, Debug)]
pub struct StageItem {
    pub chunk_id: ChunkId,
    /// By what the stage orders or judges.
    pub scores: Vec<(&'static str, f32)>,
    /// Why it is not among the passages; none: it went on.
    pub left_out: Option<&'static str>,
}

impl StageItem {
    pub fn new(chunk_id: ChunkId, scores: impl IntoIterator<Item = (&'static str, Option<f32>)>) -> Self {
        let known = |(name, score): (_, Option<f32>)| score.map(|score| (name, score));
        Self {
            chunk_id,
            scores: scores.into_iter().filter_map(known).collect(),
            left_out: None,
        }
    }

    pub fn left_out(chunk_id: ChunkId, reason: &'static str) -> Self {
        Self {
            chunk_id,
            scores: Vec::new(),
            left_out: Some(reason),
        }
    }
}

/// Takes down what the stages do, where somebody wants to know.
#[derive(Debug, Default)]
pub struct Trace(Option<Vec<Stage>>);

impl Trace {
    /// One that takes everything down.
    pub fn on() -> Self {
        Self(Some(Vec::new()))
    }

    /// Whether somebody wants to know.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Adds what a stage took since `started` and what it made of passages. A stage may come in several parts.
    pub fn add(&mut self, name: StageName, started: Instant, items: impl FnOnce() -> Vec<StageItem>) {
        let Some(stages) = &mut self.0 else { return };
        let took = started.elapsed();
        match stages.iter_mut().find(|stage| stage.name == name) {
            Some(stage) => {
                stage.took += took;
                stage.items.extend(items());
            }
            None => stages.push(Stage {
                name,
                took,
                items: items(),
            }),
        }
    }

    /// The stages in their order; none: nobody wanted to know.
    pub fn into_stages(self) -> Option<Vec<Stage>> {
        let mut stages = self.0?;
        stages.sort_by_key(|stage| stage.name);
        for stage in &mut stages {
            stage.items.sort_by_key(|item| item.left_out.is_some());
        }
        Some(stages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_come_in_their_order_with_what_went_on_first() {
        let (one, two) = (ChunkId::new(), ChunkId::new());
        let mut trace = Trace::on();
        trace.add(StageName::Rows, Instant::now(), || {
            vec![
                StageItem::left_out(one, "excluded"),
                StageItem::new(two, [("score", Some(0.5)), ("similarity", None)]),
            ]
        });
        trace.add(StageName::Index, Instant::now(), Vec::new);

        let stages = trace.into_stages().expect("it was wanted");

        let names: Vec<_> = stages.iter().map(|stage| stage.name.name()).collect();
        assert_eq!(names, ["index", "rows"]);
        assert_eq!(stages[1].items[0].scores, [("score", 0.5)]);
        assert_eq!(stages[1].items[1].left_out, Some("excluded"));
    }

    #[test]
    fn parts_of_a_stage_add_up() {
        let mut trace = Trace::on();
        let item = || vec![StageItem::new(ChunkId::new(), [])];
        let a_while_ago = Instant::now() - Duration::from_millis(5);
        trace.add(StageName::Index, a_while_ago, item);
        trace.add(StageName::Index, a_while_ago, item);

        let stages = trace.into_stages().expect("it was wanted");

        assert_eq!((stages.len(), stages[0].items.len()), (1, 2));
        assert!(stages[0].took >= Duration::from_millis(10));
    }

    #[test]
    fn what_nobody_wants_to_know_is_not_taken_down() {
        let mut trace = Trace::default();
        trace.add(StageName::Index, Instant::now(), || panic!("it is not asked for"));

        assert!(trace.into_stages().is_none());
    }
}
