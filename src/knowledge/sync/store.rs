//! SQL of runs and their failures.

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use super::items::Place;
use super::slice::Progress;
use super::{Cause, Failure, Note, Phase, RunState, SyncRun};
use crate::db::{Conn, Write};
use crate::error::{Error, Result};
use crate::http::input::PageRequest;
use crate::id::{ChatbotId, SourceId, SyncRunId, TenantId};
use crate::on;

#[derive(FromRow)]
struct RunRow {
    id: SyncRunId,
    source_id: SourceId,
    cause: String,
    state: String,
    phase: String,
    is_full: bool,
    accepts_removals: bool,
    slice: i64,
    is_held: bool,
    deadline: DateTime<Utc>,
    list_cursor: Option<String>,
    lists_changes: bool,
    new_count: i64,
    changed_count: i64,
    unchanged_count: i64,
    removed_count: i64,
    failed_count: i64,
    held_count: i64,
    bytes: i64,
    embedding_calls: i64,
    next_change_token: Option<String>,
    notes: String,
    error_code: Option<String>,
    error_message: Option<String>,
    started_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
}

impl TryFrom<RunRow> for SyncRun {
    type Error = Error;

    fn try_from(row: RunRow) -> Result<Self> {
        let unknown = |what: &str, name: &str| Error::internal(format!("unknown {what} {name:?} of a run"));
        let cause = Cause::ALL.into_iter().find(|cause| cause.name() == row.cause);
        let state = RunState::ALL.into_iter().find(|state| state.name() == row.state);
        let phase = Phase::ALL.into_iter().find(|phase| phase.name() == row.phase);
        Ok(Self {
            cause: cause.ok_or_else(|| unknown("cause", &row.cause))?,
            state: state.ok_or_else(|| unknown("state", &row.state))?,
            phase: phase.ok_or_else(|| unknown("phase", &row.phase))?,
            notes: read_notes(&row.notes),
            error: row
                .error_code
                .map(|code| (code, row.error_message.unwrap_or_default())),
            id: row.id,
            source_id: row.source_id,
            is_full: row.is_full,
            accepts_removals: row.accepts_removals,
            slice: row.slice,
            is_held: row.is_held,
            deadline: row.deadline,
            list_cursor: row.list_cursor,
            lists_changes: row.lists_changes,
            new_count: row.new_count,
            changed_count: row.changed_count,
            unchanged_count: row.unchanged_count,
            removed_count: row.removed_count,
            failed_count: row.failed_count,
            held_count: row.held_count,
            bytes: row.bytes,
            embedding_calls: row.embedding_calls,
            next_change_token: row.next_change_token,
            started_at: row.started_at,
            updated_at: row.updated_at,
            ended_at: row.ended_at,
        })
    }
}

/// Notes are kept as their codes, one a line. A code of another version is left out.
fn read_notes(lines: &str) -> Vec<Note> {
    lines
        .lines()
        .filter_map(|code| Note::ALL.into_iter().find(|note| note.code() == code))
        .collect()
}

/// The columns of a run, in every statement that reads whole ones.
macro_rules! select_run {
    ($rest:literal) => {
        concat!(
            "select id, source_id, cause, state, phase, is_full, accepts_removals, slice, holder is not null as is_held, deadline, list_cursor, lists_changes, new_count,
                    changed_count, unchanged_count, removed_count, failed_count, held_count, bytes, embedding_calls,
                    next_change_token, notes, error_code, error_message, started_at, updated_at, ended_at
               from sync_run ",
            $rest
        )
    };
}

pub(super) async fn insert(write: &mut Write, tenant_id: TenantId, run: &SyncRun) -> Result<()> {
    on!(write, c => sqlx::query(
        "insert into sync_run (id, tenant_id, source_id, cause, state, phase, is_full, accepts_removals, slice, lists_changes,
                               new_count, changed_count, unchanged_count, removed_count, failed_count, held_count, bytes,
                               embedding_calls, notes, deadline, started_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, 0, 0, 0, 0, 0, 0, 0, '', $12, $11, $11)",
    ).bind(run.id).bind(tenant_id).bind(run.source_id).bind(run.cause.name()).bind(run.state.name()).bind(run.phase.name())
     .bind(run.is_full).bind(run.accepts_removals).bind(run.slice).bind(run.lists_changes).bind(run.started_at).bind(run.deadline)
     .execute(c).await.map(drop))?;
    Ok(())
}

pub(super) async fn find(
    conn: &mut Conn,
    tenant_id: TenantId,
    source_id: SourceId,
    id: SyncRunId,
) -> Result<Option<SyncRun>> {
    let row: Option<RunRow> = on!(conn, c => sqlx::query_as(select_run!("where tenant_id = $1 and source_id = $2 and id = $3"))
        .bind(tenant_id).bind(source_id).bind(id).fetch_optional(c).await)?;
    row.map(SyncRun::try_from).transpose()
}

/// The run of a source that has not ended.
pub(super) async fn find_open(
    conn: &mut Conn,
    tenant_id: TenantId,
    source_id: SourceId,
) -> Result<Option<SyncRun>> {
    let row: Option<RunRow> = on!(conn, c => sqlx::query_as(select_run!("where tenant_id = $1 and source_id = $2 and state = 'running'"))
        .bind(tenant_id).bind(source_id).fetch_optional(c).await)?;
    row.map(SyncRun::try_from).transpose()
}

/// The run of the source that waits for documents of which none is left to be indexed, and its slice.
pub(super) async fn find_indexed(
    conn: &mut Conn,
    tenant_id: TenantId,
    source_id: SourceId,
) -> Result<Option<(SyncRunId, i64)>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select id, slice
           from sync_run
          where tenant_id = $1
            and source_id = $2
            and state = 'running'
            and phase = $3
            and not exists (select 1 from document where tenant_id = $1 and source_id = $2 and state in ('queued', 'processing'))",
    ).bind(tenant_id).bind(source_id).bind(Phase::Indexing.name()).fetch_optional(c).await)?)
}

/// Newest first, one more than the page holds.
pub(super) async fn list(
    conn: &mut Conn,
    tenant_id: TenantId,
    source_id: SourceId,
    page: PageRequest,
) -> Result<Vec<SyncRun>> {
    let rows: Vec<RunRow> = on!(conn, c => sqlx::query_as(select_run!("where tenant_id = $1 and source_id = $2 and id < $3 order by id desc limit $4"))
        .bind(tenant_id).bind(source_id).bind(page.before).bind(page.limit + 1).fetch_all(c).await)?;
    rows.into_iter().map(SyncRun::try_from).collect()
}

pub(super) async fn list_failures(
    conn: &mut Conn,
    tenant_id: TenantId,
    run_id: SyncRunId,
    page: PageRequest,
) -> Result<Vec<Failure>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select id, url, code, message, created_at
           from sync_failure
          where tenant_id = $1
            and run_id = $2
            and id < $3
          order by id desc
          limit $4",
    ).bind(tenant_id).bind(run_id).bind(page.before).bind(page.limit + 1).fetch_all(c).await)?)
}

/// The source's state; until the transaction ends, nobody else starts or ends a run of it.
pub(super) async fn hold_source(
    write: &mut Write,
    tenant_id: TenantId,
    source_id: SourceId,
) -> Result<Option<String>> {
    let lock = write.row_lock();
    let statement = format!("select state from source where tenant_id = $1 and id = $2 {lock}");
    Ok(
        on!(write, c => sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).bind(tenant_id).bind(source_id).fetch_optional(c).await)?,
    )
}

pub(super) async fn set_source_state(
    write: &mut Write,
    tenant_id: TenantId,
    source_id: SourceId,
    state: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => sqlx::query("update source set state = $3, updated_at = $4 where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(source_id).bind(state).bind(now).execute(c).await.map(drop))?;
    Ok(())
}

/// Whoever works on the run writes nothing more.
pub(super) async fn take_from_holder(write: &mut Write, tenant_id: TenantId, id: SyncRunId) -> Result<()> {
    on!(write, c => sqlx::query("update sync_run set holder = null where tenant_id = $1 and id = $2 and state = 'running'")
        .bind(tenant_id).bind(id).execute(c).await.map(drop))?;
    Ok(())
}

/// Ends a run that is open; false when it had ended.
pub(super) async fn end(
    write: &mut Write,
    tenant_id: TenantId,
    id: SyncRunId,
    state: RunState,
    error: Option<(&str, &str)>,
    now: DateTime<Utc>,
) -> Result<bool> {
    let (code, message) = error.unzip();
    let ended: Option<SyncRunId> = on!(write, c => sqlx::query_scalar(
        "update sync_run
            set state = $3, error_code = $4, error_message = $5, holder = null, updated_at = $6, ended_at = $6
          where tenant_id = $1 and id = $2 and state = 'running'
         returning id",
    ).bind(tenant_id).bind(id).bind(state.name()).bind(code).bind(message).bind(now).fetch_optional(c).await)?;
    Ok(ended.is_some())
}

pub(super) async fn set_deadline(
    write: &mut Write,
    tenant_id: TenantId,
    id: SyncRunId,
    deadline: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => sqlx::query("update sync_run set deadline = $3 where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(id).bind(deadline).execute(c).await.map(drop))?;
    Ok(())
}

/// Makes `holder` the one who works on the run.
pub(super) async fn take_over(
    write: &mut Write,
    place: Place,
    holder: Uuid,
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => sqlx::query("update sync_run set holder = $3, updated_at = $4 where tenant_id = $1 and id = $2 and state = 'running'")
        .bind(place.tenant_id).bind(place.run_id).bind(holder).bind(now).execute(c).await.map(drop))?;
    Ok(())
}

/// Whether `holder` is still the one who works on the run.
pub(super) async fn is_held_by(conn: &mut Conn, place: Place, holder: Uuid) -> Result<bool> {
    let held: i64 = on!(conn, c => sqlx::query_scalar(
        "select count(*) from sync_run where tenant_id = $1 and id = $2 and holder = $3 and state = 'running'",
    ).bind(place.tenant_id).bind(place.run_id).bind(holder).fetch_one(c).await)?;
    Ok(held > 0)
}

/// Adds to a run's counts, for the one who works on it; false for anybody else.
pub(super) async fn advance(
    write: &mut Write,
    place: Place,
    holder: Uuid,
    progress: &Progress,
    now: DateTime<Utc>,
) -> Result<bool> {
    let held: Option<SyncRunId> = on!(write, c => sqlx::query_scalar(
        "update sync_run
            set new_count = new_count + $4, changed_count = changed_count + $5, unchanged_count = unchanged_count + $6,
                removed_count = removed_count + $7, failed_count = failed_count + $8, bytes = bytes + $9, updated_at = $10, slice = slice + $11
          where tenant_id = $1 and id = $2 and holder = $3 and state = 'running'
         returning id",
    ).bind(place.tenant_id).bind(place.run_id).bind(holder).bind(progress.new).bind(progress.changed).bind(progress.unchanged)
     .bind(progress.removed).bind(progress.failed).bind(progress.bytes).bind(now).bind(i64::from(progress.is_step)).fetch_optional(c).await)?;
    Ok(held.is_some())
}

pub(super) async fn add_note(write: &mut Write, place: Place, note: Note) -> Result<()> {
    on!(write, c => sqlx::query(
        "update sync_run set notes = notes || $3 || $4 where tenant_id = $1 and id = $2 and notes not like '%' || $3 || '%'",
    ).bind(place.tenant_id).bind(place.run_id).bind(note.code()).bind("\n").execute(c).await.map(drop))?;
    Ok(())
}

pub(super) async fn set_phase(write: &mut Write, place: Place, phase: Phase) -> Result<()> {
    on!(write, c => sqlx::query("update sync_run set phase = $3 where tenant_id = $1 and id = $2")
        .bind(place.tenant_id).bind(place.run_id).bind(phase.name()).execute(c).await.map(drop))?;
    Ok(())
}

pub(super) async fn set_listing(
    write: &mut Write,
    place: Place,
    cursor: Option<&str>,
    is_changes: bool,
    change_token: Option<&str>,
) -> Result<()> {
    on!(write, c => sqlx::query(
        "update sync_run
            set list_cursor = $3, lists_changes = lists_changes or $4, next_change_token = coalesce($5, next_change_token)
          where tenant_id = $1 and id = $2",
    ).bind(place.tenant_id).bind(place.run_id).bind(cursor).bind(is_changes).bind(change_token).execute(c).await.map(drop))?;
    Ok(())
}

/// What the last run that came to its end left for the next one.
pub(super) async fn find_change_token(conn: &mut Conn, place: Place) -> Result<Option<String>> {
    let token: Option<Option<String>> = on!(conn, c => sqlx::query_scalar(
        "select next_change_token
           from sync_run
          where tenant_id = $1
            and source_id = $2
            and id <> $3
            and state in ('done', 'partial')
          order by id desc
          limit 1",
    ).bind(place.tenant_id).bind(place.source_id).bind(place.run_id).fetch_optional(c).await)?;
    Ok(token.flatten())
}

/// Counts the run's next slice; nobody works on it until its job does.
pub(super) async fn begin_next_slice(write: &mut Write, place: Place) -> Result<i64> {
    Ok(on!(write, c => sqlx::query_scalar(
        "update sync_run set slice = slice + 1, holder = null where tenant_id = $1 and id = $2 returning slice",
    ).bind(place.tenant_id).bind(place.run_id).fetch_one(c).await)?)
}

pub(super) async fn find_chatbot(
    conn: &mut Conn,
    tenant_id: TenantId,
    source_id: SourceId,
) -> Result<Option<ChatbotId>> {
    Ok(
        on!(conn, c => sqlx::query_scalar("select chatbot_id from source where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(source_id).fetch_optional(c).await)?,
    )
}

/// Counts that are known at the end only.
#[derive(Debug, Default)]
pub(super) struct FinalCounts {
    pub new: i64,
    pub changed: i64,
    pub unchanged: i64,
    pub held: i64,
}

/// Sets the counts of a run by what its items are; failures by their rows.
pub(super) async fn set_counts(write: &mut Write, place: Place, counts: &FinalCounts) -> Result<i64> {
    Ok(on!(write, c => sqlx::query_scalar(
        "update sync_run
            set new_count = $3, changed_count = $4, unchanged_count = $5, held_count = $6,
                failed_count = (select count(*) from sync_failure where tenant_id = $1 and run_id = $2)
          where tenant_id = $1 and id = $2
         returning failed_count",
    ).bind(place.tenant_id).bind(place.run_id).bind(counts.new).bind(counts.changed).bind(counts.unchanged).bind(counts.held)
     .fetch_one(c).await)?)
}

/// The first failure of a run.
pub(super) async fn find_first_failure(conn: &mut Conn, place: Place) -> Result<Option<(String, String)>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select code, message from sync_failure where tenant_id = $1 and run_id = $2 order by id limit 1",
    ).bind(place.tenant_id).bind(place.run_id).fetch_optional(c).await)?)
}
