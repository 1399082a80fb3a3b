//! SQL of the job queue.

use std::ops::RangeInclusive;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::FromRow;
use sqlx::types::Json;
use uuid::Uuid;

use super::{JobState, JobView, Priority, TURN_IS_OVER};
use crate::db::{Conn, Write};
use crate::error::Result;
use crate::http::input::PageRequest;
use crate::id::{JobId, TenantId};
use crate::on;

pub(super) struct NewJob<'a> {
    pub tenant_id: Option<TenantId>,
    pub kind: &'static str,
    pub payload: Value,
    pub priority: i64,
    pub unique_key: Option<&'a str>,
    pub max_attempts: i64,
    pub run_at: DateTime<Utc>,
    pub now: DateTime<Utc>,
}

/// A job that a worker holds.
#[derive(Debug, FromRow)]
pub(super) struct ClaimedJob {
    pub id: JobId,
    pub tenant_id: Option<TenantId>,
    pub kind: String,
    pub payload: Json<Value>,
    pub attempt: i64,
    pub max_attempts: i64,
}

pub(super) async fn insert(write: &mut Write, job: NewJob<'_>) -> Result<()> {
    let insert = write.put(
        "insert into job (id, tenant_id, kind, payload, state, priority, unique_key, attempt, max_attempts, run_at, created_at, fair_position)
         values ($1, $2, $3, $4, 'queued', $5, $6, 0, $7, $8, $9,
                 1 + coalesce((select max(position)
                                 from (select virtual_time as position from job_clock where priority = $5
                                       union all
                                       select max(fair_position) from job where tenant_id = $2 and priority = $5 and state = 'queued') positions), 0))
         on conflict do nothing",
    );
    insert
        .bind(JobId::new())
        .bind(job.tenant_id)
        .bind(job.kind)
        .bind(Json(job.payload))
        .bind(job.priority)
        .bind(job.unique_key)
        .bind(job.max_attempts)
        .bind(job.run_at)
        .bind(job.now)
        .run()
        .await
}

/// Which jobs a worker takes.
#[derive(Debug)]
pub(super) struct Claimable<'a> {
    pub kinds: &'a [&'static str],
    pub priorities: RangeInclusive<Priority>,
    /// Whose jobs it leaves alone.
    pub except: Option<TenantId>,
}

/// Hands out the next due job: best priority, then the tenant whose turn it is. One statement, so that two workers never
/// get the same one.
pub(super) async fn claim(
    write: &mut Write,
    claimable: Claimable<'_>,
    now: DateTime<Utc>,
    lease_until: DateTime<Utc>,
    lease_token: Uuid,
) -> Result<Option<ClaimedJob>> {
    debug_assert!(
        !claimable.kinds.is_empty(),
        "a worker that knows no kind of job has nothing to claim"
    );
    // The kinds are constants of this program, not input.
    let known = claimable
        .kinds
        .iter()
        .map(|kind| format!("'{kind}'"))
        .collect::<Vec<_>>()
        .join(", ");
    let lock = if write.is_postgres() {
        "for update skip locked"
    } else {
        ""
    };
    let statement = format!(
        "update job
            set state = 'running', attempt = attempt + 1, lease_until = $1, lease_token = $2, started_at = $3
          where state = 'queued'
            and id = (select id from job
                       where state = 'queued' and priority between $4 and $5 and run_at <= $3 and kind in ({known})
                         and ($6 is null or tenant_id is null or tenant_id <> $6)
                       order by priority, fair_position, id
                       limit 1 {lock})
         returning id, tenant_id, kind, payload, attempt, max_attempts, priority, fair_position"
    );
    #[derive(FromRow)]
    struct Row {
        #[sqlx(flatten)]
        job: ClaimedJob,
        priority: i64,
        fair_position: i64,
    }
    let row: Option<Row> = on!(write, c => sqlx::query_as(sqlx::AssertSqlSafe(statement)).bind(lease_until).bind(lease_token).bind(now)
        .bind(*claimable.priorities.start() as i64).bind(*claimable.priorities.end() as i64).bind(claimable.except).fetch_optional(c).await)?;
    let Some(row) = row else { return Ok(None) };
    on!(write, c => sqlx::query(
        "insert into job_clock (priority, virtual_time) values ($1, $2)
         on conflict (priority) do update set virtual_time = excluded.virtual_time where job_clock.virtual_time < excluded.virtual_time",
    ).bind(row.priority).bind(row.fair_position).execute(c).await.map(drop))?;
    Ok(Some(row.job))
}

/// Extends a lease; false when it is no longer ours.
pub(super) async fn renew(
    write: &mut Write,
    id: JobId,
    lease_token: Uuid,
    lease_until: DateTime<Utc>,
) -> Result<bool> {
    let renewed: Option<JobId> = on!(write, c => sqlx::query_scalar("update job set lease_until = $3 where id = $1 and lease_token = $2 and state = 'running' returning id")
        .bind(id).bind(lease_token).bind(lease_until).fetch_optional(c).await)?;
    Ok(renewed.is_some())
}

/// How a held job goes on.
pub(super) enum Ending<'a> {
    Done,
    Failed {
        reason: &'a str,
    },
    Again {
        reason: &'a str,
        run_at: DateTime<Utc>,
        count_attempt: bool,
        /// Its worker is gone.
        is_death: bool,
    },
    /// It goes on behind its tenant's last queued job, and behind the next one of each other tenant. The attempt does not count.
    BehindOthers {
        run_at: DateTime<Utc>,
    },
}

/// Ends an attempt, if the lease is still ours; false when it is not, and then nothing changed. What would go on while
/// another job of its key waits is done: that one does what is left.
pub(super) async fn finish(
    write: &mut Write,
    id: JobId,
    lease_token: Uuid,
    ending: Ending<'_>,
    now: DateTime<Utc>,
) -> Result<bool> {
    let ending = match ending {
        Ending::Again { .. } | Ending::BehindOthers { .. } if is_followed(write, id).await? => Ending::Done,
        ending => ending,
    };
    let is_behind = matches!(ending, Ending::BehindOthers { .. });
    let deaths = i64::from(matches!(ending, Ending::Again { is_death: true, .. }));
    let (state, reason, run_at, uncount, finished_at) = match ending {
        Ending::Done => (JobState::Done, None, None, 0_i64, Some(now)),
        Ending::Failed { reason } => (JobState::Failed, Some(reason), None, 0, Some(now)),
        Ending::Again {
            reason,
            run_at,
            count_attempt,
            ..
        } => (
            JobState::Queued,
            Some(reason),
            Some(run_at),
            i64::from(!count_attempt),
            None,
        ),
        Ending::BehindOthers { run_at } => (JobState::Queued, Some(TURN_IS_OVER), Some(run_at), 1, None),
    };
    let finished: Option<JobId> = on!(write, c => sqlx::query_scalar(
        "update job
            set state = $3, last_error = coalesce($4, last_error), run_at = coalesce($5, run_at), attempt = attempt - $6,
                deaths = deaths + $8, finished_at = $7, lease_until = null, lease_token = null
          where id = $1 and lease_token = $2 and state = 'running'
         returning id",
    ).bind(id).bind(lease_token).bind(state.name()).bind(reason).bind(run_at).bind(uncount).bind(finished_at).bind(deaths).fetch_optional(c).await)?;
    if finished.is_some() && is_behind {
        move_behind(write, id).await?;
    }
    Ok(finished.is_some())
}

/// Gives a job a position behind its tenant's other queued jobs, and behind the next position that another tenant's may have.
async fn move_behind(write: &mut Write, id: JobId) -> Result<()> {
    write
        .put(
            "update job
                set fair_position = 2 + coalesce((select max(position)
                                                    from (select virtual_time as position from job_clock where priority = job.priority
                                                          union all
                                                          select max(other.fair_position)
                                                            from job other
                                                           where other.tenant_id = job.tenant_id
                                                             and other.priority = job.priority
                                                             and other.state = 'queued'
                                                             and other.id <> job.id) positions), 0)
              where id = $1",
        )
        .bind(id)
        .run()
        .await
}

/// Whether another tenant's job is due that is at least as urgent as this one.
pub(super) async fn others_wait(conn: &mut Conn, id: JobId, now: DateTime<Utc>) -> Result<bool> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "select exists(select 1
                         from job own
                         join job other on other.state = 'queued'
                                       and other.priority <= own.priority
                                       and other.run_at <= $2
                                       and other.tenant_id is distinct from own.tenant_id
                        where own.id = $1)",
    ).bind(id).bind(now).fetch_one(c).await)?)
}

/// How many attempts of a job count, the present one among them; none of a job that is gone. And of how many before it the worker
/// died.
pub(super) async fn count_attempts(conn: &mut Conn, id: JobId) -> Result<(i64, i64)> {
    let attempts: Option<(i64, i64)> = on!(conn, c => sqlx::query_as("select attempt, deaths from job where id = $1").bind(id).fetch_optional(c).await)?;
    Ok(attempts.unwrap_or_default())
}

/// The present attempt of a job counts as its first.
pub(super) async fn count_anew(write: &mut Write, tenant_id: TenantId, id: JobId) -> Result<()> {
    write
        .put("update job set attempt = 1, deaths = 0 where tenant_id = $1 and id = $2 and state = 'running'")
        .bind(tenant_id)
        .bind(id)
        .run()
        .await
}

/// Whether another job of the same key waits.
async fn is_followed(conn: &mut Conn, id: JobId) -> Result<bool> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "select exists(select 1 from job waiting where waiting.unique_key = (select unique_key from job where id = $1) and waiting.state = 'queued')",
    ).bind(id).fetch_one(c).await)?)
}

/// A job that a worker holds, with its lease.
#[derive(Debug, FromRow)]
pub(super) struct HeldJob {
    #[sqlx(flatten)]
    pub job: ClaimedJob,
    pub lease_token: Uuid,
    pub lease_until: DateTime<Utc>,
}

/// All jobs that workers hold, those of dead workers included.
pub(super) async fn list_held(conn: &mut Conn) -> Result<Vec<HeldJob>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select id, tenant_id, kind, payload, attempt, max_attempts, lease_token, lease_until
           from job
          where state = 'running'
          order by lease_until",
    ).fetch_all(c).await)?)
}

pub(super) async fn list(
    conn: &mut Conn,
    tenant_id: TenantId,
    state: Option<JobState>,
    page: PageRequest,
) -> Result<Vec<JobView>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select id, kind, payload, state, priority, attempt, max_attempts, run_at, last_error, created_at, started_at, finished_at
           from job
          where tenant_id = $1
            and id < $2
            and ($3 is null or state = $3)
          order by id desc
          limit $4",
    ).bind(tenant_id).bind(page.before).bind(state.map(JobState::name)).bind(page.limit + 1).fetch_all(c).await)?)
}

pub(super) async fn find(conn: &mut Conn, tenant_id: TenantId, id: JobId) -> Result<Option<JobView>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select id, kind, payload, state, priority, attempt, max_attempts, run_at, last_error, created_at, started_at, finished_at
           from job
          where tenant_id = $1
            and id = $2",
    ).bind(tenant_id).bind(id).fetch_optional(c).await)?)
}

pub(super) async fn requeue_failed(
    write: &mut Write,
    tenant_id: TenantId,
    id: JobId,
    now: DateTime<Utc>,
) -> Result<bool> {
    let requeued: Option<JobId> = on!(write, c => sqlx::query_scalar(
        "update job
            set state = 'queued', attempt = 0, deaths = 0, run_at = $3, finished_at = null
          where tenant_id = $1
            and id = $2
            and state = 'failed'
            and not exists (select 1 from job waiting where waiting.unique_key = job.unique_key and waiting.state = 'queued')
         returning id",
    ).bind(tenant_id).bind(id).bind(now).fetch_optional(c).await)?;
    Ok(requeued.is_some())
}

/// Deletes the job of this key that waits, if there is one.
pub(super) async fn delete_queued(write: &mut Write, tenant_id: TenantId, unique_key: &str) -> Result<()> {
    on!(write, c => sqlx::query("delete from job where tenant_id = $1 and unique_key = $2 and state = 'queued'")
        .bind(tenant_id).bind(unique_key).execute(c).await.map(drop))?;
    Ok(())
}

/// The job of this key that waits for its time waits no longer.
pub(super) async fn bring_forward(
    write: &mut Write,
    tenant_id: TenantId,
    unique_key: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    write
        .put("update job set run_at = $3 where tenant_id = $1 and unique_key = $2 and state = 'queued' and run_at > $3")
        .bind(tenant_id)
        .bind(unique_key)
        .bind(now)
        .run()
        .await
}

/// The keys of all jobs of a kind that wait or run.
pub(super) async fn list_open_keys(conn: &mut Conn, kind: &str) -> Result<Vec<String>> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "select unique_key from job where kind = $1 and state in ('queued', 'running') and unique_key is not null",
    ).bind(kind).fetch_all(c).await)?)
}

/// The unique keys of a tenant's jobs of a kind that are not done, oldest first, each with how its last attempt ended.
pub(super) async fn list_last_errors(
    conn: &mut Conn,
    tenant_id: TenantId,
    kind: &str,
) -> Result<Vec<(String, Option<String>)>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select unique_key, case when state = 'running' then null else last_error end
           from job
          where tenant_id = $1
            and kind = $2
            and state <> 'done'
            and unique_key is not null
          order by id",
    ).bind(tenant_id).bind(kind).fetch_all(c).await)?)
}

/// What jobs of a kind that wait or run are about: a tenant's, or all that the connection may see.
pub(super) async fn list_open_payloads(
    conn: &mut Conn,
    tenant_id: Option<TenantId>,
    kind: &str,
) -> Result<Vec<Value>> {
    let payloads: Vec<Json<Value>> = on!(conn, c => sqlx::query_scalar(
        "select payload from job where ($1 is null or tenant_id = $1) and kind = $2 and state in ('queued', 'running')",
    ).bind(tenant_id).bind(kind).fetch_all(c).await)?;
    Ok(payloads.into_iter().map(|Json(payload)| payload).collect())
}

pub(super) async fn count_open(conn: &mut Conn) -> Result<i64> {
    Ok(
        on!(conn, c => sqlx::query_scalar("select count(*) from job where state in ('queued', 'running')").fetch_one(c).await)?,
    )
}

/// Jobs by state, for the metrics.
pub(super) async fn count_by_state(conn: &mut Conn) -> Result<Vec<(String, i64)>> {
    Ok(
        on!(conn, c => sqlx::query_as("select state, count(*) from job where state <> 'done' group by state").fetch_all(c).await)?,
    )
}

/// Forgets jobs that ended before `limit`.
pub(super) async fn delete_finished(write: &mut Write, limit: DateTime<Utc>) -> Result<()> {
    on!(write, c => sqlx::query("delete from job where finished_at < $1").bind(limit).execute(c).await.map(drop))?;
    Ok(())
}
