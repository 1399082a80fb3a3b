//! What of all tenants' kept embeddings goes: those of texts that nobody has any more, and beyond the limit those that were
//! used longest ago.

use std::time::Duration;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::store;
use crate::app::App;
use crate::db::Scope;
use crate::error::Result;
use crate::jobs::{Job, JobContext, Outcome, Priority};

/// How long an embedding is kept of a text that no chunk has: a question, a chunk whose document is not whole yet, or what
/// was deleted. With the way of the schedule it is out within the hour.
const ORPHANS_ARE_KEPT: TimeDelta = TimeDelta::minutes(15);

/// Rows that are looked at together.
const LOOKED_AT_ONCE: i64 = 1000;

/// Rows that go with one transaction.
const DELETED_AT_ONCE: usize = 500;

/// Of the limit, in hundredths, what is left when it was passed: there is room for a while then.
const LEFT_PERCENT: i64 = 90;

/// Forgets embeddings of texts that nobody has, and those beyond the limit.
#[derive(Debug, Serialize, Deserialize)]
pub struct TrimEmbeddings {}

impl Job for TrimEmbeddings {
    const KIND: &'static str = "trim_embeddings";
    const PRIORITY: Priority = Priority::Bulk;
    const TIMEOUT: Duration = Duration::from_secs(10 * 60);

    async fn run(self, app: App, _: JobContext) -> Outcome {
        trim(&app).await.into()
    }
}

async fn trim(app: &App) -> Result<()> {
    forget_orphans(app).await?;
    shrink(app).await
}

/// What all kept embeddings may take together.
pub(super) fn limit_bytes(app: &App) -> i64 {
    let mebibytes = i64::try_from(app.config.embedding.cache_mb).unwrap_or(i64::MAX);
    mebibytes.saturating_mul(1 << 20)
}

/// Goes back below the limit while the caller goes on.
pub(super) fn shrink_later(app: &App) {
    let shrinking = app.clone();
    app.tasks.spawn(async move {
        if let Err(error) = shrink(&shrinking).await {
            tracing::warn!(error = ?error, "cannot look at the limit of kept embeddings: a job will");
        }
    });
}

async fn forget_orphans(app: &App) -> Result<()> {
    let kept_before = app.clock.now() - ORPHANS_ARE_KEPT;
    let mut after = None;
    loop {
        let mut conn = app.db.read(Scope::Operator).await?;
        let rows = store::list_with_owners(&mut conn, after.as_ref(), kept_before, LOOKED_AT_ONCE).await?;
        drop(conn);
        let Some((last, _)) = rows.last() else {
            return Ok(());
        };
        after = Some(last.clone());
        let orphans = rows
            .into_iter()
            .filter_map(|(key, is_orphan)| is_orphan.then_some(key));
        forget(app, &orphans.collect::<Vec<_>>()).await?;
    }
}

async fn shrink(app: &App) -> Result<()> {
    let limit = limit_bytes(app);
    let mut total = store::total_bytes(&mut app.db.read(Scope::Operator).await?).await?;
    if total <= limit {
        return Ok(());
    }
    let wanted = limit / 100 * LEFT_PERCENT;
    while total > wanted {
        let mut conn = app.db.read(Scope::Operator).await?;
        let oldest = store::list_least_used(&mut conn, LOOKED_AT_ONCE).await?;
        drop(conn);
        if oldest.is_empty() {
            return Ok(());
        }
        let mut going = Vec::with_capacity(oldest.len());
        for (key, size) in oldest {
            if total <= wanted {
                break;
            }
            total -= size;
            going.push(key);
        }
        forget(app, &going).await?;
    }
    Ok(())
}

async fn forget(app: &App, keys: &[store::Key]) -> Result<()> {
    for group in keys.chunks(DELETED_AT_ONCE) {
        let mut write = app.db.write(Scope::Operator).await?;
        store::delete(&mut write, group).await?;
        write.commit().await?;
    }
    Ok(())
}
