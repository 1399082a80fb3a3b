//! Asking a reranker: within the budget, booked in the ledger, and never in the way of an answer. Without it the passages
//! are in the order of the search, which is told.

use std::time::{Duration, Instant};

use retrieval::rerank::{RerankCost, Reranked, Reranker, Spent};

use super::choice::Choice;
use super::explain::{StageName, Trace};
use super::{Passage, Payer, SearchResult};
use crate::app::App;
use crate::error::{Error, Result};
use crate::id::{ChatbotId, ChunkId, TenantId};
use crate::knowledge::Degradation;
use crate::llm::tokens;
use crate::rest::Concerns;
use crate::usage::{self, Hold, UsageEvent};

/// Tokens that stand around a passage and the question before it.
const TOKENS_AROUND: u64 = 32;

/// The reranker did not answer, or nothing of use, or rests after that.
const UNAVAILABLE: Degradation = Degradation::new(
    "rerank_unavailable",
    "The reranker did not answer: passages are in the order of the search.",
);

/// What it would cost is more than the month allows, or nobody knows it where money is limited.
const OVER_BUDGET: Degradation = Degradation::new(
    "rerank_over_budget",
    "The month's limits do not allow asking the reranker: passages are in the order of the search.",
);

/// A reranker, and who pays for it.
pub(super) struct Reranking<'a> {
    pub(super) app: &'a App,
    pub(super) holders: (TenantId, ChatbotId),
    pub(super) payer: Payer<'a>,
    pub(super) reranker: &'a dyn Reranker,
}

/// What a reranker said of passages.
#[derive(Clone, Debug)]
pub struct Said {
    passages: Vec<ChunkId>,
    /// In their places; empty: it gave no order.
    scores: Vec<Option<f32>>,
}

impl Reranking<'_> {
    /// Puts the first passages of `choice` in the reranker's order. The call, if it came to one, is booked, and `found` has what
    /// it said; where `found` has that of the same passages already, nobody is asked.
    pub(super) async fn run(
        &self,
        question: &str,
        choice: &mut Choice<'_>,
        found: &mut SearchResult,
        trace: &mut Trace,
    ) -> Result<Option<UsageEvent>> {
        let degraded = &mut found.degraded;
        let started = Instant::now();
        let passages: Vec<&Passage> = choice.first(self.app.config.rerank.top_n).collect();
        // One alone is in order.
        if passages.len() < 2 {
            return Ok(None);
        }
        let read: Vec<ChunkId> = passages.iter().map(|passage| passage.chunk_id).collect();
        if let Some(said) = found.said.as_ref().filter(|said| said.passages == read) {
            choice.rerank(&said.scores, started, trace);
            return Ok(None);
        }
        let Some(trial) = self.app.reranker_rest.trial(self.holders.0, self.app.clock.now()) else {
            UNAVAILABLE.note(degraded);
            return Ok(None);
        };
        let texts = passages.iter().map(|passage| as_read(passage)).collect();
        let mut hold = match self.hold(question, &passages).await {
            Ok(hold) => hold,
            Err(Error::BudgetExceeded { .. }) => {
                OVER_BUDGET.note(degraded);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        match self.reranker.rerank(question.to_owned(), texts).await {
            Ok(Reranked { scores, cost }) => {
                trial.succeeded();
                let event = self.book(&cost, started.elapsed(), &mut hold).await?;
                choice.rerank(&scores, started, trace);
                found.said = Some(Said {
                    passages: read,
                    scores,
                });
                Ok(Some(event))
            }
            Err(error) => {
                tracing::warn!(error = ?error, "the reranker gave no order");
                if let Some(asked) = error.outage() {
                    // A server may fail over what one tenant asks of it.
                    trial.failed(self.app.clock.now(), asked, Concerns::Unknown);
                }
                UNAVAILABLE.note(degraded);
                trace.add(StageName::Rerank, started, Vec::new);
                found.said = Some(Said {
                    passages: read,
                    scores: Vec::new(),
                });
                match error.spent() {
                    Spent::Nothing => {
                        if let Some(reservation) = hold.reservation().cloned() {
                            usage::release(&self.app.db, reservation).await?;
                        }
                        hold.close();
                        Ok(None)
                    }
                    Spent::Cost(cost) => self.book(&cost, started.elapsed(), &mut hold).await.map(Some),
                    // Dropping the hold books it as it was reserved.
                    Spent::Unknown => Ok(None),
                }
            }
        }
    }

    /// Reserves what reading these passages takes, by our own count.
    async fn hold(&self, question: &str, passages: &[&Passage]) -> Result<Hold> {
        usage::check_priced(self.app, self.payer.limits, self.reranker.model_id())?;
        let asked = tokens::count(question) as u64;
        let read = |passage: &&Passage| {
            let counted = u64::try_from(passage.prompt_tokens).unwrap_or_default();
            TOKENS_AROUND + asked + counted.max(passage.text.len() as u64 / 4)
        };
        let cost = RerankCost {
            tokens: passages.iter().map(read).fold(0, u64::saturating_add),
            written: self.reranker.most_written(passages.len()),
            searches: self.reranker.most_searches(passages.len()),
            ..RerankCost::default()
        };
        let call = self.event(&cost, Duration::ZERO);
        usage::hold_call(self.app, self.payer.limits, self.holders, call).await
    }

    fn event(&self, cost: &RerankCost, latency: Duration) -> UsageEvent {
        UsageEvent {
            conversation_id: self.payer.conversation_id,
            message_id: self.payer.message_id,
            ..UsageEvent::rerank(
                self.app,
                self.holders,
                self.payer.channel,
                self.reranker.model_id(),
                cost,
                latency,
            )
        }
    }

    /// Books what the call took.
    async fn book(&self, cost: &RerankCost, latency: Duration, hold: &mut Hold) -> Result<UsageEvent> {
        let (tenant_id, chatbot_id) = self.holders;
        let mut event = self.event(cost, latency);
        event.id = hold.call_id().unwrap_or(event.id);
        let mut write = self.app.db.write(tenant_id).await?;
        let reservation = hold.reservation().cloned();
        let events = std::slice::from_ref(&event);
        let now = self.app.clock.now();
        usage::settle(&mut write, tenant_id, chatbot_id, reservation, events, now).await?;
        write.commit().await?;
        hold.close();
        Ok(event)
    }
}

/// A passage with what stands above it.
fn as_read(passage: &Passage) -> String {
    let mut text = passage.title.clone();
    for part in passage.heading.iter().chain([&passage.text]) {
        text.push('\n');
        text.push_str(part);
    }
    text
}
