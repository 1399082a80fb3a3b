//! Schedules of all tenants' sources: each due time begins one run, on whichever process sees it first.

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use sqlx::types::Json;
use uuid::Uuid;

use super::Schedule;
use crate::app::App;
use crate::db::Scope;
use crate::error::{Error, Result};
use crate::id::{SourceId, TenantId};
use crate::knowledge::sync::{self, Cause};
use crate::{on, tenancy};

/// Sources that are looked at together.
const LOOKED_AT_ONCE: i64 = 200;

/// A source with a schedule.
#[derive(FromRow)]
struct Scheduled {
    tenant_id: TenantId,
    id: SourceId,
    schedule: Json<Schedule>,
    next_run_at: DateTime<Utc>,
}

/// Begins runs over all sources that are due. Moving a source to its next time and queueing its run is one transaction,
/// and the move succeeds only from the time that was read: two processes cannot both fire it. What is paused, or still
/// being read, waits for the next time.
pub async fn fire_due(app: &App) -> Result<()> {
    let now = app.clock.now();
    loop {
        let mut conn = app.db.read(Scope::Operator).await?;
        let due: Vec<Scheduled> = on!(conn, c => sqlx::query_as(
            "select tenant_id, id, schedule, next_run_at
               from source
              where next_run_at <= $1
                and schedule is not null
              order by next_run_at
              limit $2",
        ).bind(now).bind(LOOKED_AT_ONCE).fetch_all(c).await)?;
        drop(conn);
        let is_last = (due.len() as i64) < LOOKED_AT_ONCE;
        let mut moved = 0;
        for source in due {
            moved += usize::from(fire(app, &source, now).await?);
        }
        if moved > 0 {
            app.wake_workers();
        }
        // What nobody could move was moved by others, or has gone: the next look tells.
        if is_last || moved == 0 {
            return Ok(());
        }
    }
}

/// Moves a source to its next time and begins a run over it; false when another process was faster.
async fn fire(app: &App, source: &Scheduled, now: DateTime<Utc>) -> Result<bool> {
    let (tenant_id, id) = (source.tenant_id, source.id);
    let is_active = tenancy::is_active(app, tenant_id).await?;
    let next = source.schedule.next_after(id, now)?;
    let mut write = app.db.write(tenant_id).await?;
    let won: Option<SourceId> = on!(write, c => sqlx::query_scalar(
        "update source
            set next_run_at = $4
          where tenant_id = $1 and id = $2 and next_run_at = $3
         returning id",
    ).bind(tenant_id).bind(id).bind(source.next_run_at).bind(next).fetch_optional(c).await)?;
    if won.is_none() {
        return Ok(false);
    }
    if is_active {
        match sync::request(app, &mut write, tenant_id, id, Cause::Schedule).await {
            Ok(run) => tracing::info!(source.id = %id, run.id = %run.id, "a source is read on schedule"),
            Err(Error::Conflict { code, .. }) => {
                tracing::debug!(source.id = %id, code, "a source is not read this time");
            }
            Err(error) => return Err(error),
        }
    }
    write.commit().await?;
    Ok(true)
}

/// Sets due times right that a clock which ran ahead has put too far off: waiting for them could take years.
pub async fn mend_due_times(app: &App) -> Result<()> {
    let now = app.clock.now();
    let mut after = Uuid::nil();
    loop {
        let mut conn = app.db.read(Scope::Operator).await?;
        let ahead: Vec<Scheduled> = on!(conn, c => sqlx::query_as(
            "select tenant_id, id, schedule, next_run_at
               from source
              where next_run_at > $1
                and schedule is not null
                and id > $2
              order by id
              limit $3",
        ).bind(now).bind(after).bind(LOOKED_AT_ONCE).fetch_all(c).await)?;
        drop(conn);
        let Some(last) = ahead.last() else { return Ok(()) };
        after = last.id.0;
        for source in &ahead {
            let latest = source.schedule.latest_after(now)?;
            if latest.is_some_and(|latest| source.next_run_at <= latest) {
                continue;
            }
            let next = source.schedule.next_after(source.id, now)?;
            let mut write = app.db.write(source.tenant_id).await?;
            on!(write, c => sqlx::query("update source set next_run_at = $4 where tenant_id = $1 and id = $2 and next_run_at = $3")
                .bind(source.tenant_id).bind(source.id).bind(source.next_run_at).bind(next).execute(c).await.map(drop))?;
            write.commit().await?;
        }
    }
}
