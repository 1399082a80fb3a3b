//! Reserving what a call may take for work that may be cut off, as embedding a question before it is known to be answered.

use std::time::Duration;

use super::journal::Entry;
use super::{Limits, Reservation, UsageEvent, reserve, settle};
use crate::app::{App, Space};
use crate::error::Result;
use crate::id::{ChatbotId, TenantId, UsageEventId};

/// Tokens that embedding models put around a text.
const TOKENS_AROUND: usize = 16;

/// What a call may take, for work that may be cut off at any point. Dropped before it was taken, it books the call as it was
/// reserved: it had begun, and a visitor who asks and leaves is not free of charge.
pub struct Hold {
    app: App,
    holders: (TenantId, ChatbotId),
    reservation: Option<Reservation>,
    /// None: nothing is paid, or somebody else keeps the books by now.
    call: Option<UsageEvent>,
    /// Where the call stands that nothing is reserved for.
    entry: Option<Entry>,
}

impl Hold {
    /// For where no call is made.
    pub fn nothing(app: &App, holders: (TenantId, ChatbotId)) -> Self {
        Self {
            app: app.clone(),
            holders,
            reservation: None,
            call: None,
            entry: None,
        }
    }

    /// What is held. It stays held.
    pub fn reservation(&self) -> Option<&Reservation> {
        self.reservation.as_ref()
    }

    /// Under which the call is to be booked, so that nobody books it again.
    pub fn call_id(&self) -> Option<UsageEventId> {
        self.call.as_ref().map(|call| call.id)
    }

    /// The books are kept: the call is in the database, or did not take place, and the reservation is settled.
    pub fn close(&mut self) {
        (self.call, self.reservation) = (None, None);
        if let Some(entry) = self.entry.take() {
            entry.strike();
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(call) = self.call.take() else {
            return;
        };
        let (app, holders, reservation) = (self.app.clone(), self.holders, self.reservation.take());
        let entry = self.entry.take();
        self.app.tasks.spawn(async move {
            match book_cut_off(&app, holders, reservation, call).await {
                Ok(()) => {
                    if let Some(entry) = entry {
                        entry.strike();
                    }
                }
                Err(error) => tracing::error!(error = ?error, "cannot book a call that was cut off"),
            }
        });
    }
}

async fn book_cut_off(
    app: &App,
    (tenant_id, chatbot_id): (TenantId, ChatbotId),
    reservation: Option<Reservation>,
    call: UsageEvent,
) -> Result<()> {
    let mut write = app.db.write(tenant_id).await?;
    settle(
        &mut write,
        tenant_id,
        chatbot_id,
        reservation,
        &[call],
        app.clock.now(),
    )
    .await?;
    write.commit().await
}

/// Reserves for `call`, which begins now and takes no more than its figures say. Refused when it does not fit.
pub async fn hold(
    app: &App,
    limits: &Limits,
    holders: (TenantId, ChatbotId),
    call: UsageEvent,
) -> Result<Hold> {
    let call = UsageEvent {
        estimated: true,
        ..call
    };
    let mut write = app.db.write(holders.0).await?;
    let calls = vec![call.clone()];
    let reservation = reserve(&mut write, limits, holders, call.spend(), calls, app.clock.now()).await?;
    write.commit().await?;
    Ok(Hold {
        app: app.clone(),
        holders,
        reservation,
        call: Some(call),
        entry: None,
    })
}

/// Reserves the most that embedding `question` can take, where embeddings are bought.
pub async fn hold_for_embedding(
    app: &App,
    space: &Space,
    limits: &Limits,
    holders: (TenantId, ChatbotId),
    channel: &str,
    question: &str,
) -> Result<Hold> {
    // No tokenizer makes more tokens than a text has bytes.
    let tokens = (question.len() + TOKENS_AROUND) as u64;
    if space.is_remote {
        let call = UsageEvent::embedding(app, space, holders, channel, tokens, false, Duration::ZERO);
        return hold_call(app, limits, holders, call).await;
    }
    Ok(Hold::nothing(app, holders))
}

/// Reserves for `call`, which belongs to a search. Where nothing is limited, it is noted in the journal.
pub async fn hold_call(
    app: &App,
    limits: &Limits,
    holders: (TenantId, ChatbotId),
    call: UsageEvent,
) -> Result<Hold> {
    if !limits.is_none() {
        return hold(app, limits, holders, call).await;
    }
    let call = UsageEvent {
        estimated: true,
        ..call
    };
    Ok(Hold {
        app: app.clone(),
        holders,
        reservation: None,
        entry: app.journal.as_ref().and_then(|journal| journal.enter(&call)),
        call: Some(call),
    })
}
