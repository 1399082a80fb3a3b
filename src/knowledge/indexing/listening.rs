//! Transcriptions, bought within the budget and booked, one line of the ledger for each recording.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ingest::{Account, ExtractError, Heard};

use super::embedding::{CHANNEL, Payer};
use crate::app::App;
use crate::error::{Error, Result};
use crate::id::{ChatbotId, TenantId};
use crate::usage::{self, Hold, UsageEvent, UsageKind};

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
        let holders = self.holders();
        let limits = {
            let mut conn = self.app.db.read(holders.0).await?;
            usage::load_limits(&mut conn, holders.0, holders.1).await?
        };
        usage::check_priced(self.app, &limits, model)?;
        let mut call = UsageEvent::of(self.app, holders, CHANNEL, UsageKind::Transcription, model);
        call.audio_seconds = as_i64(seconds);
        call.cost_micro_usd = self.app.prices.transcription_cost_micro_usd(model, seconds, None);
        let hold = usage::hold(self.app, &limits, holders, call).await?;
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some((hold, Instant::now()));
        Ok(())
    }

    async fn book(&self, model: &str, heard: Option<Heard>) -> Result<()> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((mut hold, began)) = held else {
            return Ok(());
        };
        // A recording that the server did not take has no line, and what was held for it is free again.
        let events: Vec<UsageEvent> = heard
            .map(|heard| self.event_of(model, heard, began))
            .into_iter()
            .collect();
        let (tenant_id, chatbot_id) = self.holders();
        let mut write = self.app.db.write(tenant_id).await?;
        let now = self.app.clock.now();
        let reservation = hold.reservation().cloned();
        usage::settle(&mut write, tenant_id, chatbot_id, reservation, &events, now).await?;
        write.commit().await?;
        hold.close();
        Ok(())
    }

    fn event_of(&self, model: &str, heard: Heard, began: Instant) -> UsageEvent {
        let (read, written) = heard.tokens.unwrap_or_default();
        let prices = &self.app.prices;
        UsageEvent {
            prompt_tokens: as_i64(read),
            completion_tokens: as_i64(written),
            audio_seconds: as_i64(heard.seconds),
            cost_micro_usd: prices.transcription_cost_micro_usd(model, heard.seconds, heard.tokens),
            reported: heard.reported,
            latency_ms: i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX),
            ..UsageEvent::of(self.app, self.holders(), CHANNEL, UsageKind::Transcription, model)
        }
    }

    fn holders(&self) -> (TenantId, ChatbotId) {
        (self.payer.tenant_id, self.payer.chatbot_id)
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
