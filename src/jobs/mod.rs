//! Durable background work: a queue in the database, with leases, retries, priorities and turns among tenants.
//!
//! A job is enqueued in the transaction that makes it necessary. A worker holds it under a lease that it renews; when
//! the worker dies, the lease runs out and the job is queued again, with the attempt counted. Every job ends in `done`
//! or `failed`, or has a dated next try.
//!
//! Fairness is start-time fair queueing within a priority: each job gets a position behind its tenant's last queued job
//! and never before the position up to which jobs were handed out, so tenants take turns however many jobs one of them
//! queues. Nobody's jobs have all places (`lane`), however long they take.

mod lane;
mod lease;
pub mod operator;
pub mod routes;
pub mod runner;
pub mod schedule;
mod slices;
mod store;

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::app::App;
use crate::db::{Conn, Scope, Write};
use crate::error::{Error, Result};
use crate::http::access::Actor;
use crate::http::input::PageRequest;
use crate::id::{JobId, TenantId};
use crate::tenancy::audit::{self, Change, Origin};

pub use lease::Lease;
pub use slices::by_slices;

/// Which jobs go first, whatever their age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Somebody in a chat is waiting.
    Chat = 0,
    /// Something a person just did, and will look at.
    Normal = 10,
    /// Large imports and upkeep.
    Bulk = 20,
    /// Work that mostly waits for servers elsewhere. It has slots of its own, so that it holds up nothing that is done
    /// here, and waits for nothing that is.
    Remote = 30,
}

/// A kind of work. Its payload is ids; running it twice is safe.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Stable: stored with every job of this kind.
    const KIND: &'static str;
    const PRIORITY: Priority;
    /// One attempt may take this long.
    const TIMEOUT: Duration;

    /// Carries it out.
    fn run(self, app: App, context: JobContext) -> impl Future<Output = Outcome> + Send;

    /// Called in the transaction that ends the job as failed, so that what waited for it learns why.
    fn on_failed<'a>(
        self,
        _app: &'a App,
        _write: &'a mut Write,
        _tenant_id: Option<TenantId>,
        _failure: Failure<'a>,
        _now: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

/// Why a job is given up.
#[derive(Clone, Copy, Debug)]
pub struct Failure<'a> {
    pub reason: &'a str,
    /// The last attempt ended with its worker: what it did so far may be as good as ever.
    pub is_death: bool,
}

/// What a running job knows of itself.
#[derive(Clone, Debug)]
pub struct JobContext {
    pub job_id: JobId,
    /// None for upkeep of the whole installation.
    pub tenant_id: Option<TenantId>,
    /// From 1.
    pub attempt: i64,
}

impl JobContext {
    /// The tenant of a kind of job that always has one.
    pub fn tenant(&self) -> Result<TenantId> {
        self.tenant_id
            .ok_or_else(|| Error::internal("a tenant's job was queued without a tenant"))
    }
}

/// Why a job waits that is not hindered by anything.
const TURN_IS_OVER: &str = "it had its turn and goes on after others";

/// How an attempt ended.
#[derive(Debug)]
pub enum Outcome {
    /// The work is done.
    Done,
    /// Try again, after `delay` if something said when; otherwise with growing pauses.
    Retry { reason: String, delay: Option<Duration> },
    /// Something outside is down: try again later, without counting this attempt.
    Outage { reason: String, delay: Duration },
    /// It had its turn, and goes on after the next job of each other tenant; the attempt does not count.
    TurnOver,
    /// It can never work.
    Fail { reason: String },
}

impl Outcome {
    /// Like any other, but that two who were in each other's way try again as often as it takes.
    pub fn of_slice(result: Result<()>) -> Self {
        match result {
            Err(error) if error.is_deadlock() => Self::TurnOver,
            result => result.into(),
        }
    }
}

impl From<Result<()>> for Outcome {
    fn from(result: Result<()>) -> Self {
        match result {
            Ok(()) => Self::Done,
            // What the work was about is gone.
            Err(Error::NotFound(_)) => Self::Done,
            Err(Error::Unavailable {
                retry_after, message, ..
            }) => Self::Outage {
                reason: message.into_owned(),
                delay: retry_after,
            },
            Err(Error::StorageFull) => Self::Outage {
                reason: "the disk is full".to_owned(),
                delay: Duration::from_secs(60),
            },
            Err(error @ (Error::Invalid { .. } | Error::TooLarge { .. } | Error::UnsupportedType { .. })) => {
                Self::Fail {
                    reason: error.to_string(),
                }
            }
            Err(error) => {
                tracing::warn!(error = ?error, "job attempt failed");
                let reason = match error {
                    Error::Database(_) => "the database failed".to_owned(),
                    Error::Internal(_) => "an internal error; the log has the details".to_owned(),
                    error => error.to_string(),
                };
                Self::Retry { reason, delay: None }
            }
        }
    }
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waits for a worker, or for the time of its next try.
    Queued,
    /// A worker holds it.
    Running,
    /// Carried out.
    Done,
    /// Given up, with its reason; can be tried again.
    Failed,
}

impl JobState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Queued, Self::Running, Self::Done, Self::Failed];

    /// The name in JSON and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }

    /// The state of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// A job as its tenant sees it.
#[derive(Debug, sqlx::FromRow)]
pub struct JobView {
    pub id: JobId,
    pub kind: String,
    pub payload: sqlx::types::Json<Value>,
    pub state: String,
    pub priority: i64,
    pub attempt: i64,
    pub max_attempts: i64,
    pub run_at: DateTime<Utc>,
    pub last_error: Option<String>,
    pub created_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
}

/// Queues `job` in the caller's transaction. Call [`App::wake_workers`] after the commit.
pub async fn enqueue<J: Job>(app: &App, write: &mut Write, tenant_id: TenantId, job: &J) -> Result<()> {
    enqueue_with(
        app,
        write,
        Some(tenant_id),
        job,
        None,
        J::PRIORITY,
        app.clock.now(),
    )
    .await
}

/// Like [`enqueue`], at a priority other than the kind's.
pub async fn enqueue_at<J: Job>(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    job: &J,
    priority: Priority,
) -> Result<()> {
    enqueue_with(app, write, Some(tenant_id), job, None, priority, app.clock.now()).await
}

/// Like [`enqueue`], not before `run_at`, unless one with the same `unique_key` waits already.
pub async fn enqueue_once<J: Job>(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    job: &J,
    unique_key: &str,
    run_at: DateTime<Utc>,
) -> Result<()> {
    enqueue_with(
        app,
        write,
        Some(tenant_id),
        job,
        Some(unique_key),
        J::PRIORITY,
        run_at,
    )
    .await
}

/// Like [`enqueue_at`], unless one with the same `unique_key` waits already.
pub async fn enqueue_once_at<J: Job>(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    job: &J,
    unique_key: &str,
    priority: Priority,
) -> Result<()> {
    let (tenant_id, run_at) = (Some(tenant_id), app.clock.now());
    enqueue_with(app, write, tenant_id, job, Some(unique_key), priority, run_at).await
}

/// Queues upkeep that belongs to no tenant, unless one with the same `unique_key` waits already.
pub async fn enqueue_upkeep<J: Job>(
    app: &App,
    write: &mut Write,
    job: &J,
    unique_key: &str,
    run_at: DateTime<Utc>,
) -> Result<()> {
    enqueue_with(app, write, None, job, Some(unique_key), J::PRIORITY, run_at).await
}

async fn enqueue_with<J: Job>(
    app: &App,
    write: &mut Write,
    tenant_id: Option<TenantId>,
    job: &J,
    unique_key: Option<&str>,
    priority: Priority,
    run_at: DateTime<Utc>,
) -> Result<()> {
    let new = store::NewJob {
        tenant_id,
        kind: J::KIND,
        payload: serde_json::to_value(job)?,
        priority: priority as i64,
        unique_key,
        max_attempts: i64::from(app.config.jobs.max_attempts),
        run_at,
        now: app.clock.now(),
    };
    store::insert(write, new).await
}

/// A page of a tenant's jobs, newest first.
pub async fn list(
    app: &App,
    tenant_id: TenantId,
    state: Option<JobState>,
    page: PageRequest,
) -> Result<Vec<JobView>> {
    store::list(&mut app.db.read(tenant_id).await?, tenant_id, state, page).await
}

/// One job of a tenant.
pub async fn get(app: &App, tenant_id: TenantId, id: JobId) -> Result<JobView> {
    store::find(&mut app.db.read(tenant_id).await?, tenant_id, id)
        .await?
        .ok_or(Error::NotFound("job"))
}

/// Queues a failed job again, with its attempts counted anew.
pub async fn retry(
    app: &App,
    tenant_id: TenantId,
    id: JobId,
    actor: &Actor,
    origin: &Origin,
) -> Result<JobView> {
    let now = app.clock.now();
    let mut write = app.db.write(tenant_id).await?;
    let job = store::find(&mut write, tenant_id, id)
        .await?
        .ok_or(Error::NotFound("job"))?;
    if !store::requeue_failed(&mut write, tenant_id, id, now).await? {
        if job.state == JobState::Failed.name() {
            return Err(Error::conflict(
                "job_waits_already",
                "another job has taken its place and waits: there is nothing to try again",
            ));
        }
        return Err(Error::conflict(
            "job_not_failed",
            format!("only a failed job can be tried again; this one is {}", job.state),
        ));
    }
    let before = json!({ "state": job.state, "attempt": job.attempt, "last_error": job.last_error });
    let job = store::find(&mut write, tenant_id, id)
        .await?
        .ok_or(Error::NotFound("job"))?;
    let after = json!({ "state": job.state, "attempt": job.attempt });
    let change = Change {
        action: "job.retry",
        object_kind: "job",
        object_id: id.to_string(),
        before: Some(before),
        after: Some(after),
    };
    audit::record(&mut write, tenant_id, actor, origin, change, now).await?;
    write.commit().await?;
    app.wake_workers();
    Ok(job)
}

/// Takes a job that waits out of the queue again, in the caller's transaction.
pub async fn withdraw(write: &mut Write, tenant_id: TenantId, unique_key: &str) -> Result<()> {
    store::delete_queued(write, tenant_id, unique_key).await
}

/// Lets a job that waits for its time be run now, in the caller's transaction. Call [`App::wake_workers`] after the commit.
pub async fn bring_forward(
    write: &mut Write,
    tenant_id: TenantId,
    unique_key: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    store::bring_forward(write, tenant_id, unique_key, now).await
}

/// The unique keys of all tenants' jobs of a kind that wait or run.
pub async fn list_open_keys<J: Job>(app: &App) -> Result<Vec<String>> {
    store::list_open_keys(&mut app.db.read(Scope::Operator).await?, J::KIND).await
}

/// What keeps a tenant's jobs of a kind from their end, by their unique keys: of each key the latest job says it.
pub async fn list_hindrances<J: Job>(app: &App, tenant_id: TenantId) -> Result<HashMap<String, String>> {
    let mut conn = app.db.read(tenant_id).await?;
    let latest: HashMap<String, Option<String>> = store::list_last_errors(&mut conn, tenant_id, J::KIND)
        .await?
        .into_iter()
        .collect();
    let hindered = latest
        .into_iter()
        .filter_map(|(key, last_error)| Some((key, last_error?)));
    Ok(hindered
        .filter(|(_, last_error)| last_error != TURN_IS_OVER)
        .collect())
}

/// Whether another tenant's job that is at least as urgent as this one is due and has no worker.
pub async fn others_wait(app: &App, context: &JobContext) -> Result<bool> {
    let mut conn = app.db.read(Scope::Operator).await?;
    store::others_wait(&mut conn, context.job_id, app.clock.now()).await
}

/// Notes in the caller's transaction that the present attempt of a tenant's job brought it further than those before: it counts
/// as the first one.
pub async fn count_anew(write: &mut Write, context: &JobContext) -> Result<()> {
    store::count_anew(write, context.tenant()?, context.job_id).await
}

/// A tenant's jobs of a kind that wait or run.
pub async fn list_open<J: Job>(conn: &mut Conn, tenant_id: TenantId) -> Result<Vec<J>> {
    parse_all(store::list_open_payloads(conn, Some(tenant_id), J::KIND).await?)
}

/// All tenants' jobs of a kind that wait or run.
pub async fn list_open_of_all<J: Job>(app: &App) -> Result<Vec<J>> {
    let mut conn = app.db.read(Scope::Operator).await?;
    parse_all(store::list_open_payloads(&mut conn, None, J::KIND).await?)
}

fn parse_all<J: Job>(payloads: Vec<Value>) -> Result<Vec<J>> {
    let jobs = payloads.into_iter().map(serde_json::from_value);
    Ok(jobs.collect::<std::result::Result<_, _>>()?)
}

/// Jobs that wait or run, for tests and shutdown.
pub async fn count_open(app: &App) -> Result<i64> {
    store::count_open(&mut app.db.read(Scope::Operator).await?).await
}
