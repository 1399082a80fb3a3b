//! Reserving what an embedding may take before the question is known to be answered.

use super::{Limits, Reservation, Spend, release, reserve};
use crate::app::App;
use crate::error::Result;
use crate::id::{ChatbotId, TenantId};

/// Tokens that embedding models put around a text.
const TOKENS_AROUND: usize = 16;

/// A reservation that is given back when it is dropped, for work that its client may cut off at any point.
pub struct Hold {
    app: App,
    reservation: Option<Reservation>,
}

impl Hold {
    /// What is held. It stays held.
    pub fn reservation(&self) -> Option<&Reservation> {
        self.reservation.as_ref()
    }

    /// Hands the reservation on to who settles it.
    pub fn take(&mut self) -> Option<Reservation> {
        self.reservation.take()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(reservation) = self.reservation.take() else {
            return;
        };
        let app = self.app.clone();
        self.app.tasks.spawn(async move {
            if let Err(error) = release(&app.db, reservation).await {
                tracing::error!(error = ?error, "cannot give a reservation back: it lapses by itself");
            }
        });
    }
}

/// Reserves `most`, where anything is limited. Refused when it does not fit.
pub async fn hold(
    app: &App,
    limits: &Limits,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
    most: Spend,
) -> Result<Hold> {
    let mut hold = Hold {
        app: app.clone(),
        reservation: None,
    };
    if limits.is_none() {
        return Ok(hold);
    }
    let mut write = app.db.write(tenant_id).await?;
    let reservation = reserve(&mut write, limits, tenant_id, chatbot_id, most, app.clock.now()).await?;
    write.commit().await?;
    hold.reservation = reservation;
    Ok(hold)
}

/// Reserves the most that embedding `question` can take, where embeddings are bought and anything is limited; elsewhere
/// nothing is written. Refused when it does not fit.
pub async fn hold_for_embedding(
    app: &App,
    limits: &Limits,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
    question: &str,
) -> Result<Hold> {
    let Some(model) = app.embedding_model().filter(|_| app.embeds_remotely()) else {
        return hold(app, &Limits::default(), tenant_id, chatbot_id, Spend::default()).await;
    };
    // No tokenizer makes more tokens than a text has bytes.
    let tokens = question.len() + TOKENS_AROUND;
    let most = Spend {
        tokens: i64::try_from(tokens).unwrap_or(i64::MAX),
        micro_usd: app.prices.embedding_cost_micro_usd(model, tokens as u64),
    };
    hold(app, limits, tenant_id, chatbot_id, most).await
}
