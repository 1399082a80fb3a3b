//! How near unrelated texts are to a model: measured once, and remembered of a model that is asked over the network. What that
//! costs, twenty sentences, is the installation's own expense: no tenant asked for it, and so it stands in nobody's ledger.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use retrieval::embed::{EmbedError, Embedder};
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::remembered;
use crate::db::Db;

/// How long a question waits for it, once in a model's life.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What could not be measured is tried again after so many seconds.
const AGAIN_S: i64 = 60;

/// What is known of it so far.
#[derive(Debug, Default)]
pub(super) struct ModelBackground {
    unrelated: OnceCell<f32>,
    failed_at: Mutex<Option<DateTime<Utc>>>,
}

impl ModelBackground {
    /// Who asks first waits until it is measured; none: that failed, and a usual model is assumed. `kept` is where a space's
    /// row remembers it, and by what name.
    pub(super) async fn get(
        &self,
        embedder: &dyn Embedder,
        kept: Option<(&Db, &str)>,
        now: DateTime<Utc>,
    ) -> Option<f32> {
        if let Some(known) = self.unrelated.get() {
            return Some(*known);
        }
        if self.rests(now) {
            return None;
        }
        let found = self.unrelated.get_or_try_init(async || match kept {
            None => measure(embedder).await,
            Some((db, space)) => {
                if let Some(known) = remembered_of(db, space).await {
                    return Ok(known);
                }
                let measured = measure(embedder).await?;
                if let Err(error) = remembered::note_unrelated(db, space, measured).await {
                    tracing::warn!(error = ?error, space, "what was measured of an embedding model is not remembered");
                }
                Ok(measured)
            }
        });
        match found.await {
            Ok(known) => Some(*known),
            Err(error) => {
                tracing::warn!(error = ?error, model = embedder.model_id(), "how near unrelated texts are to the embedding model is not known yet: a usual one is assumed, and it is measured later");
                *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
                None
            }
        }
    }

    fn rests(&self, now: DateTime<Utc>) -> bool {
        let failed_at = self.failed_at.lock().unwrap_or_else(PoisonError::into_inner);
        failed_at.is_some_and(|failed_at| now - failed_at < TimeDelta::seconds(AGAIN_S))
    }
}

async fn remembered_of(db: &Db, space: &str) -> Option<f32> {
    let found = remembered::find_unrelated(db, space).await;
    found.unwrap_or_else(|error| {
        tracing::warn!(error = ?error, space, "what is remembered of an embedding model cannot be read");
        None
    })
}

async fn measure(embedder: &dyn Embedder) -> Result<f32, EmbedError> {
    timeout(LONGEST_WAIT, embedder.unrelated())
        .await
        .unwrap_or(Err(EmbedError::TooLate))
}
