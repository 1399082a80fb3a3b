//! Upkeep of all tenants' runs: one whose job is gone goes on, and old ones are forgotten.

use chrono::TimeDelta;

use super::{SyncRun, enqueue_slice, store};
use crate::app::App;
use crate::db::Scope;
use crate::error::Result;
use crate::id::{SourceId, SyncRunId, TenantId};
use crate::on;

/// A run that nobody touched for so long may have lost its job.
const SILENCE: TimeDelta = TimeDelta::minutes(10);

/// Runs looked at by one round of upkeep.
const RUNS_AT_ONCE: i64 = 200;

/// Runs that ended so long ago are forgotten.
const KEPT_FOR: TimeDelta = TimeDelta::days(90);

/// Forgets old runs with their failures. What is known of the source's items stays.
pub async fn forget_old(app: &App) -> Result<()> {
    let limit = app.clock.now() - KEPT_FOR;
    let mut write = app.db.write(Scope::Operator).await?;
    on!(write, c => sqlx::query("delete from sync_run where ended_at < $1").bind(limit).execute(c).await.map(drop))?;
    write.commit().await
}

/// Queues the present slice of runs that nobody works on, unless it waits already. A job too many does nothing: only
/// one can hold a run.
pub async fn take_up_silent(app: &App) -> Result<()> {
    let now = app.clock.now();
    let mut conn = app.db.read(Scope::Operator).await?;
    let silent: Vec<(TenantId, SourceId, SyncRunId)> = on!(conn, c => sqlx::query_as(
        "select r.tenant_id, r.source_id, r.id
           from sync_run r
           join source s on s.id = r.source_id
          where r.state = 'running'
            and r.updated_at < $1
            and s.state <> 'paused'
          order by r.updated_at
          limit $2",
    ).bind(now - SILENCE).bind(RUNS_AT_ONCE).fetch_all(c).await)?;
    drop(conn);
    for (tenant_id, source_id, run_id) in silent {
        let mut write = app.db.write(tenant_id).await?;
        let run: Option<SyncRun> = store::find(&mut write, tenant_id, source_id, run_id).await?;
        let Some(run) = run.filter(|run| run.ended_at.is_none()) else {
            continue;
        };
        enqueue_slice(app, &mut write, tenant_id, &run, now).await?;
        write.commit().await?;
    }
    app.wake_workers();
    Ok(())
}
