//! Runs over a source: what is new, changed or gone there becomes new, changed or gone here, and nothing else is
//! touched.
//!
//! A run is a chain of short jobs. What it knows stands in `source_item`, one row per page or file, and each batch of
//! results is one transaction that also counts them: a run that dies at any point goes on from its last batch. Nothing
//! is removed before everything was read, and never much of it at once unless the owner agrees.

mod ahead;
mod batch;
mod documents;
mod drive;
mod driver;
mod ending;
mod items;
mod level;
mod loops;
mod note;
pub mod operator;
mod orphans;
mod reading;
mod settling;
mod slice;
mod store;
mod text;
mod website;

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::app::App;
use crate::db::{Conn, Write};
use crate::error::{Error, Result};
use crate::http::input::PageRequest;
use crate::id::{SourceId, SyncRunId, TenantId};
use crate::jobs::{self, Job, JobContext, Outcome, Priority};

pub use note::Note;
pub use website::Nowhere;

/// Why a run began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The source is new.
    Created,
    /// Somebody asked for it.
    Request,
    /// Its time had come.
    Schedule,
}

impl Cause {
    const ALL: [Self; 3] = [Self::Created, Self::Request, Self::Schedule];

    /// The name in JSON and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Request => "request",
            Self::Schedule => "schedule",
        }
    }
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    Running,
    /// Everything was read, and the knowledge is what the source shows.
    Done,
    /// Some of it could not be read, or removals were held back.
    Partial,
    /// Nothing could be read, or the run was given up.
    Failed,
    /// Cancelled.
    Aborted,
}

impl RunState {
    const ALL: [Self; 5] = [
        Self::Running,
        Self::Done,
        Self::Partial,
        Self::Failed,
        Self::Aborted,
    ];

    /// The name in JSON and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
        }
    }
}

/// What a running run does, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Asks the source what there is.
    Listing,
    /// Reads pages or files.
    Reading,
    /// Waits until what it read is indexed.
    Indexing,
    /// Removes what has vanished.
    Removing,
}

impl Phase {
    const ALL: [Self; 4] = [Self::Listing, Self::Reading, Self::Indexing, Self::Removing];

    /// The name in JSON and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listing => "listing",
            Self::Reading => "reading",
            Self::Indexing => "indexing",
            Self::Removing => "removing",
        }
    }
}

/// One run over a source.
#[derive(Clone, Debug)]
pub struct SyncRun {
    pub id: SyncRunId,
    pub source_id: SourceId,
    pub cause: Cause,
    pub state: RunState,
    pub phase: Phase,
    /// Everything is read as if nothing were known.
    pub is_full: bool,
    /// Removals that were held back go through.
    pub accepts_removals: bool,
    pub new_count: i64,
    pub changed_count: i64,
    pub unchanged_count: i64,
    pub removed_count: i64,
    pub failed_count: i64,
    /// Documents that vanished, but are kept.
    pub held_count: i64,
    /// Of pages and files, as they were received.
    pub bytes: i64,
    pub embedding_calls: i64,
    pub notes: Vec<Note>,
    /// Why it failed: a stable code, and a sentence for a person.
    pub error: Option<(String, String)>,
    pub started_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    /// Where the other side's list of changes starts for the next run.
    pub next_change_token: Option<String>,
    slice: i64,
    is_held: bool,
    deadline: DateTime<Utc>,
    /// Where listing stands; none: at its beginning.
    pub list_cursor: Option<String>,
    lists_changes: bool,
}

/// What a run could not read, and why.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Failure {
    pub id: Uuid,
    pub url: String,
    /// Stable.
    pub code: String,
    pub message: String,
    pub created_at: DateTime<Utc>,
}

/// What kind of run is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub cause: Cause,
    /// Read everything as if nothing were known.
    pub is_full: bool,
    /// Let removals through, however many.
    pub accepts_removals: bool,
}

impl From<Cause> for Wanted {
    fn from(cause: Cause) -> Self {
        Self {
            cause,
            is_full: false,
            accepts_removals: false,
        }
    }
}

/// One slice of a run's work. Each queues the next one, so that tenants take turns and a restart costs nothing.
#[derive(Debug, Serialize, Deserialize)]
pub struct SyncSource {
    pub source_id: SourceId,
    pub run_id: SyncRunId,
    /// Only the present slice of the run works; a job of another one has nothing to do.
    pub slice: i64,
}

impl Job for SyncSource {
    const KIND: &'static str = "sync_source";
    const PRIORITY: Priority = Priority::Remote;
    const TIMEOUT: Duration = Duration::from_secs(10 * 60);

    async fn run(self, app: App, context: JobContext) -> Outcome {
        slice::work(&app, &context, &self).await
    }

    fn on_failed<'a>(
        self,
        _app: &'a App,
        write: &'a mut Write,
        tenant_id: Option<TenantId>,
        failure: jobs::Failure<'a>,
        now: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let Some(tenant_id) = tenant_id else { return Ok(()) };
            let message = format!(
                "The run was given up: {}. Start another one; what was read is kept.",
                failure.reason
            );
            let error = Some(("run_given_up", message.as_str()));
            if store::end(write, tenant_id, self.run_id, RunState::Failed, error, now).await? {
                store::set_source_state(write, tenant_id, self.source_id, "failed", now).await?;
            }
            Ok(())
        })
    }
}

/// Starts a run over a source that is read by runs, in the caller's transaction: call [`App::wake_workers`] after the
/// commit. Refused while one is open, and while the source is paused.
pub async fn request(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    source_id: SourceId,
    wanted: impl Into<Wanted>,
) -> Result<SyncRun> {
    let wanted = wanted.into();
    let now = app.clock.now();
    match store::hold_source(write, tenant_id, source_id).await?.as_deref() {
        None => return Err(Error::NotFound("source")),
        Some("paused") => {
            return Err(Error::conflict(
                "source_paused",
                "this source is paused: resume it first",
            ));
        }
        Some(_) => {}
    }
    if store::find_open(write, tenant_id, source_id).await?.is_some() {
        return Err(Error::conflict(
            "sync_running",
            "this source is being synced already: wait for the run to end, or cancel it",
        ));
    }
    let run = SyncRun {
        id: SyncRunId::new(),
        source_id,
        cause: wanted.cause,
        state: RunState::Running,
        phase: Phase::Listing,
        is_full: wanted.is_full,
        accepts_removals: wanted.accepts_removals,
        new_count: 0,
        changed_count: 0,
        unchanged_count: 0,
        removed_count: 0,
        failed_count: 0,
        held_count: 0,
        bytes: 0,
        embedding_calls: 0,
        notes: Vec::new(),
        error: None,
        started_at: now,
        updated_at: now,
        ended_at: None,
        next_change_token: None,
        slice: 0,
        is_held: false,
        deadline: now + longest(app),
        list_cursor: None,
        lists_changes: false,
    };
    store::insert(write, tenant_id, &run).await?;
    store::set_source_state(write, tenant_id, source_id, "queued", now).await?;
    enqueue_slice(app, write, tenant_id, &run, now).await?;
    Ok(run)
}

/// Holds a source still: its open run reads nothing more and keeps its place, and no schedule starts another.
pub async fn pause(app: &App, write: &mut Write, tenant_id: TenantId, source_id: SourceId) -> Result<()> {
    let now = app.clock.now();
    store::hold_source(write, tenant_id, source_id)
        .await?
        .ok_or(Error::NotFound("source"))?;
    store::set_source_state(write, tenant_id, source_id, "paused", now).await?;
    if let Some(run) = store::find_open(write, tenant_id, source_id).await? {
        store::take_from_holder(write, tenant_id, run.id).await?;
        withdraw_slice(write, tenant_id, &run).await?;
    }
    Ok(())
}

/// Lets a paused source go on: its open run continues where it stood. Call [`App::wake_workers`] after the commit.
pub async fn resume(app: &App, write: &mut Write, tenant_id: TenantId, source_id: SourceId) -> Result<()> {
    let now = app.clock.now();
    let state = store::hold_source(write, tenant_id, source_id)
        .await?
        .ok_or(Error::NotFound("source"))?;
    if state != "paused" {
        return Ok(());
    }
    match store::find_open(write, tenant_id, source_id).await? {
        Some(run) => {
            store::set_source_state(write, tenant_id, source_id, "queued", now).await?;
            store::set_deadline(write, tenant_id, run.id, now + longest(app)).await?;
            enqueue_slice(app, write, tenant_id, &run, now).await
        }
        None => store::set_source_state(write, tenant_id, source_id, "idle", now).await,
    }
}

/// Ends the source's open run as aborted, with what it has read kept and nothing removed; none when none is open.
pub async fn cancel(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    source_id: SourceId,
) -> Result<Option<SyncRun>> {
    let now = app.clock.now();
    let state = store::hold_source(write, tenant_id, source_id)
        .await?
        .ok_or(Error::NotFound("source"))?;
    let Some(run) = store::find_open(write, tenant_id, source_id).await? else {
        return Ok(None);
    };
    store::end(write, tenant_id, run.id, RunState::Aborted, None, now).await?;
    withdraw_slice(write, tenant_id, &run).await?;
    // A paused source stays paused: only the owner lets its schedule go on.
    if state != "paused" {
        store::set_source_state(write, tenant_id, source_id, "idle", now).await?;
    }
    store::find(write, tenant_id, source_id, run.id).await
}

/// A page of a source's runs, newest first, with one more than asked for when there are more.
pub async fn list_runs(
    conn: &mut Conn,
    tenant_id: TenantId,
    source_id: SourceId,
    page: PageRequest,
) -> Result<Vec<SyncRun>> {
    store::list(conn, tenant_id, source_id, page).await
}

/// The newest run of a source.
pub async fn find_last_run(
    conn: &mut Conn,
    tenant_id: TenantId,
    source_id: SourceId,
) -> Result<Option<SyncRun>> {
    let page = PageRequest {
        limit: 0,
        before: Uuid::max(),
    };
    Ok(store::list(conn, tenant_id, source_id, page)
        .await?
        .into_iter()
        .next())
}

/// One run of a source.
pub async fn get_run(
    conn: &mut Conn,
    tenant_id: TenantId,
    source_id: SourceId,
    id: SyncRunId,
) -> Result<SyncRun> {
    store::find(conn, tenant_id, source_id, id)
        .await?
        .ok_or(Error::NotFound("run"))
}

/// A page of what a run could not read, newest first, with one more than asked for when there are more.
pub async fn list_failures(
    conn: &mut Conn,
    tenant_id: TenantId,
    run_id: SyncRunId,
    page: PageRequest,
) -> Result<Vec<Failure>> {
    store::list_failures(conn, tenant_id, run_id, page).await
}

/// Queues the present slice of a run, unless it waits already.
async fn enqueue_slice(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    run: &SyncRun,
    run_at: DateTime<Utc>,
) -> Result<()> {
    let job = SyncSource {
        source_id: run.source_id,
        run_id: run.id,
        slice: run.slice,
    };
    jobs::enqueue_once(app, write, tenant_id, &job, &slice_key(run.id, run.slice), run_at).await
}

/// Documents of these sources were indexed, or failed: a run that waited for the last of them goes on at once. Call
/// [`App::wake_workers`] after the commit.
pub(super) async fn go_on_if_indexed(
    write: &mut Write,
    tenant_id: TenantId,
    source_ids: &HashSet<SourceId>,
    now: DateTime<Utc>,
) -> Result<()> {
    for source_id in source_ids {
        if let Some((run_id, slice)) = store::find_indexed(write, tenant_id, *source_id).await? {
            jobs::bring_forward(write, tenant_id, &slice_key(run_id, slice), now).await?;
        }
    }
    Ok(())
}

/// Takes the present slice of a run out of the queue, where it may wait for hours.
async fn withdraw_slice(write: &mut Write, tenant_id: TenantId, run: &SyncRun) -> Result<()> {
    jobs::withdraw(write, tenant_id, &slice_key(run.id, run.slice)).await
}

/// What makes the job of a run's present slice one of a kind.
fn slice_key(run_id: SyncRunId, slice: i64) -> String {
    format!("{}:{run_id}:{slice}", SyncSource::KIND)
}

/// The run that a job with this key is for.
fn run_of(slice_key: &str) -> Option<SyncRunId> {
    slice_key.split(':').nth(1)?.parse().ok()
}

/// How long a run may take.
fn longest(app: &App) -> TimeDelta {
    TimeDelta::hours(app.config.crawl.run_limit_hours.into())
}
