//! Reading question and passage together: the trait, what it returns, and who does it over the network.
//!
//! A reranker sees some tens of passages that the index found and says how well each answers. Scores of different
//! rerankers, and of one reranker for different questions, are not comparable: only their order is used ([`order`]).

mod server;

use std::time::Duration;

pub use self::server::{Protocol, RerankServer, RerankServerOptions};
use crate::{BoxError, BoxFuture};

/// Says how well texts answer a question.
pub trait Reranker: Send + Sync + 'static {
    /// The model's name, as the ledger and the price book know it.
    fn model_id(&self) -> &str;

    /// Tokens that it writes at most to judge so many texts.
    fn most_written(&self, _texts: usize) -> u64 {
        0
    }

    /// Searches that it bills at most for so many texts.
    fn most_searches(&self, _texts: usize) -> u64 {
        1
    }

    /// The relevance of each of `texts`, whose best guess so far comes first.
    fn rerank(&self, question: String, texts: Vec<String>) -> BoxFuture<'_, Result<Reranked, RerankError>>;
}

/// Scores, and what they cost.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reranked {
    /// Of each text in its place, higher is better, always finite; `None` where the model told nothing, which is not so of all.
    pub scores: Vec<Option<f32>>,
    pub cost: RerankCost,
}

/// What a call took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RerankCost {
    /// Tokens read.
    pub tokens: u64,
    /// Tokens written, where the model writes its judgement.
    pub written: u64,
    /// The part of `tokens` that the vendor had cached.
    pub cached: u64,
    /// Searches, where the vendor bills these.
    pub searches: u64,
    /// True when the vendor said so, false when it was counted here.
    pub reported: bool,
}

/// Why there are no scores.
#[derive(Debug, thiserror::Error)]
pub enum RerankError {
    /// Timeout, overload, rate limit: another question may be luckier.
    #[error("the reranker does not answer")]
    Unavailable {
        retry_after: Option<Duration>,
        #[source]
        source: BoxError,
    },
    /// Wrong key, unknown model: somebody must change the configuration.
    #[error("the reranker refused the request: {reason}")]
    Refused { reason: String },
    /// It was still at work when the time was up: nothing of it is used, and it may have to be paid.
    #[error("the reranker took longer than there was time")]
    TooLate,
    /// It worked, and what came is no scores of these texts: nothing of it is used, and it is paid for.
    #[error("the reranker gave no usable scores: {reason}")]
    Unusable { reason: String },
    /// One of several requests failed; the others were answered and took `cost`. What to do is what `cause` says.
    #[error("the reranker answered only a part")]
    Broken {
        cost: RerankCost,
        #[source]
        cause: Box<Self>,
    },
}

/// What a call without scores took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spent {
    Nothing,
    /// Just this.
    Cost(RerankCost),
    /// Nobody said; no more than the whole call could take.
    Unknown,
}

impl RerankError {
    /// What is to be paid all the same.
    pub fn spent(&self) -> Spent {
        match self {
            Self::Unavailable { .. } | Self::Refused { .. } => Spent::Nothing,
            Self::TooLate | Self::Unusable { .. } => Spent::Unknown,
            Self::Broken { cost, cause } => match cause.spent() {
                Spent::Nothing => Spent::Cost(*cost),
                known => known,
            },
        }
    }

    /// Whether it is down or overloaded, rather than asked wrongly, and how long it asks to be left alone.
    pub fn outage(&self) -> Option<Option<Duration>> {
        match self {
            Self::Unavailable { retry_after, .. } => Some(*retry_after),
            Self::TooLate => Some(None),
            Self::Refused { .. } | Self::Unusable { .. } => None,
            Self::Broken { cause, .. } => cause.outage(),
        }
    }
}

impl RerankCost {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(other.tokens),
            written: self.written.saturating_add(other.written),
            cached: self.cached.saturating_add(other.cached),
            searches: self.searches.saturating_add(other.searches),
            reported: self.reported && other.reported,
        }
    }
}

/// The places of texts from best to worst: those with a score by it, then the others as they were. Equal scores keep their
/// order too.
pub fn order(scores: &[Option<f32>]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..scores.len()).collect();
    let score = |place: usize| scores[place].unwrap_or(f32::NEG_INFINITY);
    places.sort_by(|a, b| score(*b).total_cmp(&score(*a)));
    places
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_has_no_score_follows_in_its_old_order() {
        assert_eq!(
            order(&[None, Some(0.1), None, Some(0.9), Some(0.1)]),
            [3, 1, 4, 0, 2]
        );
        assert!(order(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn every_text_has_one_place(scores in prop::collection::vec(prop::option::of(-1e6_f32..1e6), 0..50)) {
            let mut places = order(&scores);
            prop_assert!(places.windows(2).all(|pair| scores[pair[0]] >= scores[pair[1]]));
            places.sort_unstable();
            prop_assert!(places.into_iter().eq(0..scores.len()));
        }
    }
}
