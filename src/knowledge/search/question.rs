//! A question as the embedding model sees it: asked within the budget, and booked whatever comes of the search.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use retrieval::embed::{EmbedError, Embeddings};

use super::{Payer, TRY_AGAIN_AFTER};
use crate::app::{App, Space};
use crate::error::{Error, Result};
use crate::generations::Live;
use crate::id::{ChatbotId, TenantId};
use crate::knowledge::embedding_cache::{self, Recalled};
use crate::rest::{Concerns, LONGEST_ASKED_REST};
use crate::usage::{self, Hold, UsageEvent};

/// The embedding model takes a text of a document in no company.
pub(in crate::knowledge) const TEXT_REFUSED: &str = "passage_refused";

/// A question as the embedding model sees it, and what that took.
#[derive(Clone, Debug)]
pub struct EmbeddedQuestion {
    /// The model that was asked, and where its vectors are: nothing else is compared with it.
    pub(super) space: Arc<Space>,
    /// All chunks are in its index.
    pub(super) is_whole: bool,
    /// None: there is no embedding model, or it was not asked, or it did not answer.
    pub(super) vector: Option<Vec<f32>>,
    /// Tokens that the embedding model read, and whether it said so itself.
    tokens: u64,
    reported: bool,
    /// Tokens of a question that was embedded before.
    cached_tokens: usize,
    latency: Duration,
    /// There is a model, and it did not answer or rests after a failure.
    pub(super) is_missing: bool,
    /// It was not asked, since the index rests.
    pub(super) is_spared: bool,
}

impl EmbeddedQuestion {
    fn without_vector(live: Live) -> Self {
        Self {
            is_whole: live.is_whole,
            vector: None,
            tokens: 0,
            reported: false,
            cached_tokens: 0,
            latency: Duration::ZERO,
            is_missing: live.space.embedder.is_none() && live.space.model.is_some(),
            is_spared: false,
            space: live.space,
        }
    }

    fn take(&mut self, mut embeddings: Embeddings, latency: Duration) {
        self.vector = embeddings.vectors.pop();
        self.tokens = embeddings.tokens;
        self.reported = embeddings.reported;
        self.latency = latency;
    }

    /// The ledger's line; none when nothing was embedded. While `hold` is kept for the call, it has its id.
    pub fn event(
        &self,
        app: &App,
        holders: (TenantId, ChatbotId),
        channel: &str,
        hold: &Hold,
    ) -> Option<UsageEvent> {
        if self.tokens == 0 && self.cached_tokens == 0 {
            return None;
        }
        let mut event = UsageEvent::embedding(
            app,
            &self.space,
            holders,
            channel,
            self.tokens,
            self.reported,
            self.latency,
        );
        event.cached_tokens = i64::try_from(self.cached_tokens).unwrap_or(i64::MAX);
        if let Some(id) = hold.call_id() {
            event.id = id;
        }
        Some(event)
    }

    /// Books it for itself, where nobody else settles `hold`.
    pub async fn book(
        &self,
        app: &App,
        holders: (TenantId, ChatbotId),
        channel: &str,
        hold: &mut Hold,
    ) -> Result<()> {
        let event = self.event(app, holders, channel, hold);
        if event.is_none() && hold.reservation().is_none() {
            hold.close();
            return Ok(());
        }
        let (tenant_id, chatbot_id) = holders;
        let events: Vec<UsageEvent> = event.into_iter().collect();
        let mut write = app.db.write(tenant_id).await?;
        let reservation = hold.reservation().cloned();
        usage::settle(
            &mut write,
            tenant_id,
            chatbot_id,
            reservation,
            &events,
            app.clock.now(),
        )
        .await?;
        write.commit().await?;
        hold.close();
        Ok(())
    }
}

/// Asks the embedding model that answers for a question's vector, where there is anything to look through; what that may
/// take is held until it is booked. A server that failed a moment ago is left alone.
pub async fn embed_question(
    app: &App,
    live: Live,
    holders: (TenantId, ChatbotId),
    payer: Payer<'_>,
    question: &str,
    is_needed: bool,
) -> Result<(EmbeddedQuestion, Hold)> {
    let space = live.space.clone();
    let mut embedded = EmbeddedQuestion::without_vector(live);
    let Some(embedder) = space.embedder.as_deref().filter(|_| is_needed) else {
        return Ok((embedded, Hold::nothing(app, holders)));
    };
    // What runs in this process is asked faster than the database, and has no need of rest.
    let mut recalled = None;
    if space.is_remote {
        let asked = (embedding_cache::Role::Question, std::iter::once(question));
        let known = embedding_cache::recall(app, holders.0, &space, asked).await?;
        if let Some(vector) = known.vectors.first().cloned().flatten() {
            embedded.vector = Some(vector);
            embedded.cached_tokens = embedder.count_tokens(question);
            return Ok((embedded, Hold::nothing(app, holders)));
        }
        recalled = Some(known);
    }
    // Rows are looked through by words alone: nothing is bought for that.
    if space.is_remote && space.index_rest.is_resting(holders.0, app.clock.now()) {
        embedded.is_spared = true;
        return Ok((embedded, Hold::nothing(app, holders)));
    }
    let trial = space.rest.trial(holders.0, app.clock.now());
    if space.is_remote && trial.is_none() {
        embedded.is_missing = true;
        return Ok((embedded, Hold::nothing(app, holders)));
    }
    let mut hold =
        usage::hold_for_embedding(app, &space, payer.limits, holders, payer.channel, question).await?;
    let started = Instant::now();
    let asker = retrieval::TenantId(holders.0.0).into();
    let asked = embedder.embed_query(asker, question.to_owned()).await;
    space.is_failing.store(asked.is_err(), Ordering::Relaxed);
    space.denial.note(&asked);
    match asked {
        Ok(embeddings) => {
            if let Some(trial) = trial {
                trial.succeeded();
            }
            embedded.take(embeddings, started.elapsed());
            if let Some((recalled, vector)) = recalled.zip(embedded.vector.clone()) {
                keep_later(app, holders.0, &space, recalled, vector);
            }
        }
        Err(error) => {
            tracing::warn!(error = ?error, "the embedding model did not answer: searching by words alone");
            if let Some((trial, asked)) = trial.zip(outage(&error)) {
                // A server may fail over what one tenant asks of it; whom it lets ask is nobody's question.
                let concerns = match error.denial() {
                    Some(_) => Concerns::Everybody,
                    None => Concerns::Unknown,
                };
                trial.failed(app.clock.now(), asked, concerns);
            }
            if error.may_have_cost() {
                // Dropping the hold books it as it was reserved.
                hold = Hold::nothing(app, holders);
            } else {
                (embedded.tokens, embedded.reported) = error.spent();
                embedded.latency = started.elapsed();
            }
            embedded.is_missing = true;
        }
    }
    Ok((embedded, hold))
}

/// Keeps the vector of a question for who asks the same; nobody waits for it.
fn keep_later(app: &App, tenant_id: TenantId, space: &Arc<Space>, recalled: Recalled, vector: Vec<f32>) {
    let (keeping, space) = (app.clone(), space.clone());
    app.tasks.spawn(async move {
        let new = std::iter::once((0, vector.as_slice()));
        if let Err(error) = embedding_cache::keep_now(&keeping, tenant_id, &space, &recalled, new).await {
            tracing::warn!(error = ?error, "cannot keep the embedding of a question");
        }
    });
}

/// Whether the model's server is down, overloaded or lets nobody ask, and how long it asks to be left alone.
fn outage(error: &EmbedError) -> Option<Option<Duration>> {
    match error {
        EmbedError::Unavailable { retry_after, .. } => Some(*retry_after),
        EmbedError::Broken { cause, .. } => outage(cause),
        EmbedError::TooLate | EmbedError::Denied { .. } => Some(None),
        EmbedError::Refused { .. } | EmbedError::BadVectors { .. } => None,
    }
}

/// The embedding model's server is asked nothing at present, for this reason. It is asked again after `retry_after`.
pub(in crate::knowledge) fn denied(reason: &str, retry_after: Duration) -> Error {
    Error::Unavailable {
        code: "embedding_denied",
        message: format!(
            "the embedding model's server cannot be asked: {reason}. What waits goes on by itself once the service's operator has put that right"
        )
        .into(),
        retry_after,
        source: None,
    }
}

/// What a failure of the embedding model means for a job.
pub(in crate::knowledge) fn embed_error(error: EmbedError) -> Error {
    match error {
        EmbedError::Unavailable { retry_after, source } => Error::Unavailable {
            code: "embedding_unavailable",
            message: "the embedding model does not answer; this is tried again by itself".into(),
            retry_after: retry_after
                .unwrap_or(TRY_AGAIN_AFTER)
                .min(LONGEST_ASKED_REST),
            source: Some(source),
        },
        EmbedError::TooLate => embed_error(EmbedError::Unavailable {
            retry_after: None,
            source: EmbedError::TooLate.into(),
        }),
        EmbedError::Broken { answered, cause } => match *cause {
            EmbedError::Refused { reason } if !answered.refused.is_empty() => Error::Upstream {
                code: TEXT_REFUSED,
                message: format!(
                    "the embedding model refuses a passage of this document: {reason}. Change the passage, or upload the document without it"
                )
                .into(),
                source: None,
            },
            cause => embed_error(cause),
        },
        EmbedError::Denied { reason } => denied(&reason, TRY_AGAIN_AFTER),
        EmbedError::Refused { reason } => Error::Upstream {
            code: "embedding_refused",
            message: format!("the embedding model refused the request: {reason}").into(),
            source: None,
        },
        EmbedError::BadVectors { reason } => Error::Upstream {
            code: "embedding_unusable",
            message: format!("the embedding model gave unusable vectors: {reason}").into(),
            source: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_rests_for_as_long_as_the_model_asks_but_for_ten_minutes_at_most() {
        let rests = |retry_after| {
            let source = "overloaded".into();
            match embed_error(EmbedError::Unavailable { retry_after, source }) {
                Error::Unavailable { retry_after, .. } => retry_after,
                other => panic!("{other:?}"),
            }
        };

        assert_eq!(rests(None), TRY_AGAIN_AFTER);
        let minute = Duration::from_secs(60);
        assert_eq!(rests(Some(minute)), minute);
        assert_eq!(rests(Some(24 * 60 * minute)), Duration::from_secs(600));
    }
}
