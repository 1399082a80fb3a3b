//! What of all tenants' kept embeddings goes: those of texts that nobody has any more, and beyond the limit, of those tenants
//! who have most, those that were used longest ago.

use std::time::Duration;

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::store;
use crate::app::App;
use crate::db::Scope;
use crate::error::Result;
use crate::id::TenantId;
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

/// Goes back below the limit: those who have most give, what they used longest ago first.
async fn shrink(app: &App) -> Result<()> {
    let limit = limit_bytes(app);
    let total = store::total_bytes(&mut app.db.read(Scope::Operator).await?).await?;
    if total <= limit {
        return Ok(());
    }
    let mut held = store::bytes_by_tenant(&mut app.db.read(Scope::Operator).await?).await?;
    let share = even_share(
        held.iter().map(|(_, bytes)| *bytes).collect(),
        limit / 100 * LEFT_PERCENT,
    );
    held.retain(|(_, bytes)| *bytes > share);
    for (tenant_id, bytes) in held {
        shrink_tenant(app, tenant_id, bytes - share).await?;
    }
    Ok(())
}

/// The most that each may keep so that all together are within `wanted`: whoever has less keeps it.
fn even_share(mut held: Vec<i64>, wanted: i64) -> i64 {
    held.sort_unstable();
    let (mut left, mut others) = (wanted, i64::try_from(held.len()).unwrap_or(i64::MAX));
    for bytes in held {
        if bytes.saturating_mul(others) > left {
            return left / others;
        }
        left -= bytes;
        others -= 1;
    }
    i64::MAX
}

/// Forgets so many bytes of what the tenant used longest ago.
async fn shrink_tenant(app: &App, tenant_id: TenantId, mut beyond: i64) -> Result<()> {
    while beyond > 0 {
        let mut conn = app.db.read(Scope::Operator).await?;
        let oldest = store::list_least_used(&mut conn, tenant_id, LOOKED_AT_ONCE).await?;
        drop(conn);
        if oldest.is_empty() {
            return Ok(());
        }
        let mut going = Vec::with_capacity(oldest.len());
        for (key, size) in oldest {
            if beyond <= 0 {
                break;
            }
            beyond -= size;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn who_has_most_gives_and_who_has_little_keeps_it() {
        assert_eq!(even_share(vec![10, 900, 20], 100), 70);
        assert_eq!(even_share(vec![10, 900, 800], 100), 45);
        assert_eq!(even_share(vec![10, 20], 100), i64::MAX);
        assert_eq!(even_share(vec![500], 0), 0);
        assert_eq!(even_share(vec![], 100), i64::MAX);
    }

    proptest! {
        #[test]
        fn all_together_are_within_what_is_wanted(held in prop::collection::vec(0_i64..1 << 40, 0..50), wanted in 0_i64..1 << 42) {
            let share = even_share(held.clone(), wanted);
            let kept: i64 = held.iter().map(|bytes| *bytes.min(&share)).sum();
            prop_assert!(kept <= wanted);
            let total: i64 = held.iter().sum();
            // Nothing goes that need not.
            prop_assert!(total <= wanted || kept + held.len() as i64 >= wanted);
        }
    }
}
