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
    /// Who asks first waits until it is measured, and who asks meanwhile waits for the same; none: that failed, and a usual
    /// model is assumed. `kept` is where a space's row remembers it, and by what name.
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
        let found = self.unrelated.get_or_try_init(async || {
            // Who waited while it failed does not wait again.
            if self.rests(now) {
                return Err(());
            }
            match known_or_measured(embedder, kept).await {
                Ok(known) => Ok(known),
                Err(error) => {
                    tracing::warn!(error = ?error, model = embedder.model_id(), "how near unrelated texts are to the embedding model is not known yet: a usual one is assumed, and it is measured later");
                    *self.failed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
                    Err(())
                }
            }
        });
        found.await.ok().copied()
    }

    fn rests(&self, now: DateTime<Utc>) -> bool {
        let failed_at = self.failed_at.lock().unwrap_or_else(PoisonError::into_inner);
        failed_at.is_some_and(|failed_at| now - failed_at < TimeDelta::seconds(AGAIN_S))
    }
}

async fn known_or_measured(embedder: &dyn Embedder, kept: Option<(&Db, &str)>) -> Result<f32, EmbedError> {
    let Some((db, space)) = kept else {
        return measure(embedder).await;
    };
    if let Some(known) = remembered_of(db, space).await {
        return Ok(known);
    }
    let measured = measure(embedder).await?;
    if let Err(error) = remembered::note_unrelated(db, space, measured).await {
        tracing::warn!(error = ?error, space, "what was measured of an embedding model is not remembered");
    }
    Ok(measured)
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::{BoxFuture, join_all};
    use retrieval::embed::{Asker, Embeddings};
    use tokio::task::yield_now;

    use super::*;

    /// A model that answers nothing, after a while.
    #[derive(Default)]
    struct Silent {
        asked: AtomicUsize,
    }

    impl Embedder for Silent {
        fn model_id(&self) -> &str {
            "silent"
        }

        fn dimension(&self) -> usize {
            4
        }

        fn max_tokens(&self) -> usize {
            100
        }

        fn count_tokens(&self, text: &str) -> usize {
            text.len()
        }

        fn embed_query(&self, asker: Asker, text: String) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
            self.embed_documents(asker, vec![text])
        }

        fn embed_documents(&self, _: Asker, _: Vec<String>) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            Box::pin(async {
                // Everybody else stands in line by then.
                yield_now().await;
                Err(EmbedError::TooLate)
            })
        }
    }

    #[tokio::test]
    async fn questions_that_come_together_wait_for_one_measurement_that_fails() {
        let (background, model) = (ModelBackground::default(), Silent::default());
        let now = DateTime::<Utc>::UNIX_EPOCH;
        let known =
            async |now: DateTime<Utc>| join_all((0..8).map(|_| background.get(&model, None, now))).await;

        assert_eq!(known(now).await, [None; 8]);
        assert_eq!(model.asked.load(Ordering::Relaxed), 1);

        assert_eq!(known(now + TimeDelta::seconds(AGAIN_S)).await, [None; 8]);
        assert_eq!(model.asked.load(Ordering::Relaxed), 2, "it is tried again later");
    }
}
