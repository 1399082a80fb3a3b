//! Transcriptions, bought within the budget and booked, one line of the ledger for each recording.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ingest::{Account, ExtractError, Heard};

use super::embedding::{CHANNEL, Payer};
use crate::app::App;
use crate::error::{Error, Result};
use crate::id::UsageEventId;
use crate::usage::{self, Hold, Spend, TOKENS_PER_AUDIO_SECOND, UsageEvent, UsageKind};

/// Pays for the recordings of one document.
pub(super) struct Purse<'a> {
    app: &'a App,
    payer: Payer,
    /// For the recording that is listened to.
    held: Mutex<Option<(Hold, Instant)>>,
    /// Why one was not sent, or not booked.
    failure: Mutex<Option<Error>>,
}

impl<'a> Purse<'a> {
    pub(super) fn of(app: &'a App, payer: Payer) -> Self {
        Self {
            app,
            payer,
            held: Mutex::default(),
            failure: Mutex::default(),
        }
    }

    /// Why the document came back as [`ExtractError::Unpaid`].
    pub(super) fn into_failure(self) -> Error {
        let failure = self.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
        failure.unwrap_or_else(|| Error::internal("a recording was not paid for, and nothing says why"))
    }

    async fn hold(&self, model: &str, seconds: u64) -> Result<()> {
        let Payer {
            tenant_id,
            chatbot_id,
            ..
        } = self.payer;
        let limits = {
            let mut conn = self.app.db.read(tenant_id).await?;
            usage::load_limits(&mut conn, tenant_id, chatbot_id).await?
        };
        usage::check_priced(self.app, &limits, model)?;
        let most = Spend {
            tokens: as_i64(seconds).saturating_mul(TOKENS_PER_AUDIO_SECOND),
            micro_usd: self.app.prices.transcription_cost_micro_usd(model, seconds, None),
        };
        let hold = usage::hold(self.app, &limits, tenant_id, chatbot_id, most).await?;
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some((hold, Instant::now()));
        Ok(())
    }

    async fn book(&self, model: &str, heard: Option<Heard>) -> Result<()> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        // What is not settled is given back when it is dropped.
        let (Some((mut hold, began)), Some(heard)) = (held, heard) else {
            return Ok(());
        };
        let event = self.event_of(model, heard, began);
        let mut write = self.app.db.write(self.payer.tenant_id).await?;
        usage::settle(
            &mut write,
            self.payer.tenant_id,
            self.payer.chatbot_id,
            hold.take(),
            &[event],
            self.app.clock.now(),
        )
        .await?;
        write.commit().await
    }

    fn event_of(&self, model: &str, heard: Heard, began: Instant) -> UsageEvent {
        let prices = &self.app.prices;
        let (read, written) = heard.tokens.unwrap_or_default();
        UsageEvent {
            id: UsageEventId::new(),
            tenant_id: self.payer.tenant_id,
            chatbot_id: Some(self.payer.chatbot_id),
            conversation_id: None,
            message_id: None,
            channel: CHANNEL.to_owned(),
            kind: UsageKind::Transcription,
            model: model.to_owned(),
            prompt_tokens: as_i64(read),
            completion_tokens: as_i64(written),
            cached_tokens: 0,
            embedding_tokens: 0,
            audio_seconds: as_i64(heard.seconds),
            cost_micro_usd: prices.transcription_cost_micro_usd(model, heard.seconds, heard.tokens),
            price_book_version: prices.version().to_owned(),
            local: false,
            reported: heard.reported,
            latency_ms: i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX),
            created_at: self.app.clock.now(),
        }
    }

    fn keep(&self, outcome: Result<()>) -> Result<(), ExtractError> {
        outcome.map_err(|error| {
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            ExtractError::Unpaid
        })
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl Account for Purse<'_> {
    fn reserve<'a>(&'a self, model: &'a str, seconds: u64) -> BoxFuture<'a, Result<(), ExtractError>> {
        Box::pin(async move { self.keep(self.hold(model, seconds).await) })
    }

    fn settle<'a>(&'a self, model: &'a str, heard: Option<Heard>) -> BoxFuture<'a, Result<(), ExtractError>> {
        Box::pin(async move { self.keep(self.book(model, heard).await) })
    }
}

fn as_i64(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
