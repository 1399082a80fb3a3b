//! Upkeep of all tenants' runs: one whose job is gone goes on, and old ones are forgotten.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{SyncSource, enqueue_slice, run_of, store};
use crate::app::App;
use crate::db::Scope;
use crate::error::Result;
use crate::id::{SourceId, SyncRunId, TenantId};
use crate::{jobs, on};

/// A run that nobody touched for so long may have lost its job.
const SILENCE: TimeDelta = TimeDelta::minutes(10);

/// Runs looked at together.
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

/// Queues the present slice of runs that nobody works on and no job is there for. A job too many does nothing: only one
/// can hold a run.
pub async fn take_up_silent(app: &App) -> Result<()> {
    let limit = app.clock.now() - SILENCE;
    let mut after = (DateTime::UNIX_EPOCH, SyncRunId(Uuid::nil()));
    let mut with_job: Option<HashSet<SyncRunId>> = None;
    loop {
        let silent = list_silent(app, limit, after).await?;
        let Some(last) = silent.last() else { break };
        after = (last.updated_at, last.run_id);
        if with_job.is_none() {
            let keys = jobs::list_open_keys::<SyncSource>(app).await?;
            with_job = Some(keys.iter().filter_map(|key| run_of(key)).collect());
        }
        for run in &silent {
            if with_job.as_ref().is_some_and(|runs| runs.contains(&run.run_id)) {
                continue;
            }
            // The others must not wait for it; it is tried again by the next round.
            if let Err(error) = take_up(app, run).await {
                tracing::error!(error = ?error, run.id = %run.run_id, "cannot take up a run");
            }
        }
    }
    app.wake_workers();
    Ok(())
}

/// A run that nobody has touched for a while.
#[derive(sqlx::FromRow)]
struct SilentRun {
    tenant_id: TenantId,
    source_id: SourceId,
    run_id: SyncRunId,
    updated_at: DateTime<Utc>,
}

async fn list_silent(
    app: &App,
    limit: DateTime<Utc>,
    after: (DateTime<Utc>, SyncRunId),
) -> Result<Vec<SilentRun>> {
    let mut conn = app.db.read(Scope::Operator).await?;
    Ok(on!(conn, c => sqlx::query_as(
        "select r.tenant_id, r.source_id, r.id as run_id, r.updated_at
           from sync_run r
           join source s on s.id = r.source_id
          where r.state = 'running'
            and r.updated_at < $1
            and (r.updated_at, r.id) > ($2, $3)
            and s.state <> 'paused'
          order by r.updated_at, r.id
          limit $4",
    ).bind(limit).bind(after.0).bind(after.1).bind(RUNS_AT_ONCE).fetch_all(c).await)?)
}

async fn take_up(app: &App, silent: &SilentRun) -> Result<()> {
    let mut write = app.db.write(silent.tenant_id).await?;
    let run = store::find(&mut write, silent.tenant_id, silent.source_id, silent.run_id).await?;
    if let Some(run) = run.filter(|run| run.ended_at.is_none()) {
        tracing::warn!(run.id = %run.id, source.id = %run.source_id, "a run has lost its job: it goes on");
        enqueue_slice(app, &mut write, silent.tenant_id, &run, app.clock.now()).await?;
        write.commit().await?;
    }
    Ok(())
}
