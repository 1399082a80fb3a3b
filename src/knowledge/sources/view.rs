//! Sources and runs as JSON.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::settings::{Fetching, Settings};
use super::{Schedule, Source, SourceKind, SourceState};
use crate::db::Conn;
use crate::error::Result;
use crate::http::input::{Page, PageRequest};
use crate::id::{ChatbotId, SourceId, SyncRunId, TenantId};
use crate::knowledge::chunks::Chunking;
use crate::knowledge::sync::{self, Failure, Note, SyncRun};

/// Failures that a run shows in a list; the run by itself pages through all.
const FAILURES_SHOWN: i64 = 100;

/// How pages are asked for. Secrets are shown by name only.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
struct FetchingView {
    /// Names of the headers that go along; their values are not shown.
    header_names: Vec<String>,
    /// Who logs in by basic authentication; the password is not shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    basic_auth_user: Option<String>,
    /// Whether pages are rendered in a browser before they are read.
    render: bool,
    /// Least pause between two requests to one host; null: the installation's.
    delay_ms: Option<u64>,
    /// A run that would remove a larger share of the documents removes none, and says so.
    shrink_limit_percent: u8,
}

impl FetchingView {
    fn of(fetching: Fetching, shrink_limit_percent: u8) -> Self {
        Self {
            header_names: fetching.header_names,
            basic_auth_user: fetching.basic_auth_user,
            render: fetching.render,
            delay_ms: fetching.delay_ms,
            shrink_limit_percent,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
struct WebsiteView {
    url: String,
    max_pages: u32,
    max_depth: u32,
    include: Vec<String>,
    exclude: Vec<String>,
    subdomains: bool,
    keep_query: bool,
    #[serde(flatten)]
    fetching: FetchingView,
}

#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
struct SitemapView {
    url: String,
    max_pages: u32,
    include: Vec<String>,
    exclude: Vec<String>,
    #[serde(flatten)]
    fetching: FetchingView,
}

#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
struct PagesView {
    urls: Vec<String>,
    #[serde(flatten)]
    fetching: FetchingView,
}

#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
struct DriveView {
    folder_id: Option<String>,
    file_ids: Vec<String>,
    shared_drive_id: Option<String>,
    /// Whether the source has credentials of its own, which are not shown.
    own_credentials: bool,
    shrink_limit_percent: u8,
}

/// A source with its settings and its last run.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct SourceResponse {
    pub id: SourceId,
    chatbot_id: ChatbotId,
    kind: SourceKind,
    name: String,
    state: SourceState,
    #[serde(skip_serializing_if = "Option::is_none")]
    website: Option<WebsiteView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sitemap: Option<SitemapView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pages: Option<PagesView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drive: Option<DriveView>,
    /// Null: read on request only.
    schedule: Option<Schedule>,
    next_run_at: Option<DateTime<Utc>>,
    /// How its documents are cut; null: as everywhere.
    chunking: Option<Chunking>,
    /// Tags of documents that have none of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Vec<String>>,
    /// Who may read documents that say nothing of their own; everyone unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    access_groups: Option<Vec<String>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run: Option<RunResponse>,
}

impl SourceResponse {
    /// The source with what is known of its last run.
    pub(super) fn of(source: Source, last_run: Option<RunResponse>) -> Self {
        let kind = source.kind();
        let (mut website, mut sitemap, mut pages, mut drive) = (None, None, None, None);
        match source.settings {
            Settings::Upload | Settings::Push => {}
            Settings::Website(own) => {
                website = Some(WebsiteView {
                    url: own.url.into(),
                    max_pages: own.max_pages,
                    max_depth: own.max_depth,
                    include: own.include,
                    exclude: own.exclude,
                    subdomains: own.subdomains,
                    keep_query: own.keep_query,
                    fetching: FetchingView::of(own.fetching, own.shrink_limit_percent),
                });
            }
            Settings::Sitemap(own) => {
                sitemap = Some(SitemapView {
                    url: own.url.into(),
                    max_pages: own.max_pages,
                    include: own.include,
                    exclude: own.exclude,
                    fetching: FetchingView::of(own.fetching, own.shrink_limit_percent),
                });
            }
            Settings::Pages(own) => {
                pages = Some(PagesView {
                    urls: own.urls.into_iter().map(String::from).collect(),
                    fetching: FetchingView::of(own.fetching, own.shrink_limit_percent),
                });
            }
            Settings::Drive(own) => {
                drive = Some(DriveView {
                    folder_id: own.folder_id,
                    file_ids: own.file_ids,
                    shared_drive_id: own.shared_drive_id,
                    own_credentials: own.own_credentials,
                    shrink_limit_percent: own.shrink_limit_percent,
                });
            }
        }
        Self {
            id: source.id,
            chatbot_id: source.chatbot_id,
            kind,
            name: source.name,
            state: source.state,
            website,
            sitemap,
            pages,
            drive,
            schedule: source.schedule,
            next_run_at: source.next_run_at,
            chunking: source.chunking,
            tags: source.labels.tags,
            access_groups: source.labels.access_groups,
            created_at: source.created_at,
            updated_at: source.updated_at,
            last_run,
        }
    }
}

/// A stable code with a sentence for people.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
struct Remark {
    code: String,
    message: String,
}

/// What a run could not read.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
struct FailureResponse {
    url: String,
    /// Stable, for programs.
    code: String,
    /// What happened and what to do, for people.
    message: String,
}

impl From<Failure> for FailureResponse {
    fn from(failure: Failure) -> Self {
        Self {
            url: failure.url,
            code: failure.code,
            message: failure.message,
        }
    }
}

/// One run over a source.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct RunResponse {
    pub id: SyncRunId,
    source_id: SourceId,
    /// `created`, `request` or `schedule`.
    #[schema(value_type = String)]
    cause: &'static str,
    /// `running`, `done`, `partial`, `failed` or `aborted`.
    #[schema(value_type = String)]
    pub state: &'static str,
    /// What a running one does: `listing`, `reading`, `indexing`, then `removing`.
    #[schema(value_type = String)]
    phase: &'static str,
    /// Whether everything is read as if nothing were known.
    full: bool,
    new: i64,
    changed: i64,
    unchanged: i64,
    removed: i64,
    failed: i64,
    /// Documents that vanished but are kept; a sync with `accept_removals` lets them go.
    held: i64,
    /// Received, of pages and files.
    bytes: i64,
    /// Calls of the embedding model that the run made necessary.
    embedding_calls: i64,
    /// What the owner should know besides single failures.
    notes: Vec<Remark>,
    /// Why the run failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Remark>,
    started_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    /// From start to end; of a running one, to its last progress.
    duration_ms: i64,
    /// What could not be read, newest first, at most 100; the run by itself shows all.
    failures: Vec<FailureResponse>,
}

impl RunResponse {
    /// The run with its newest failures.
    pub(super) async fn load(conn: &mut Conn, tenant_id: TenantId, run: SyncRun) -> Result<Self> {
        let page = PageRequest {
            limit: FAILURES_SHOWN,
            before: uuid::Uuid::max(),
        };
        let mut failures = if run.failed_count > 0 {
            sync::list_failures(conn, tenant_id, run.id, page).await?
        } else {
            Vec::new()
        };
        failures.truncate(FAILURES_SHOWN as usize);
        Ok(Self::of(run, failures))
    }

    /// The run alone, to see whether anything of it changed.
    pub(super) fn without_failures(run: SyncRun) -> Self {
        Self::of(run, Vec::new())
    }

    fn of(run: SyncRun, failures: Vec<Failure>) -> Self {
        let until = run.ended_at.unwrap_or(run.updated_at);
        Self {
            id: run.id,
            source_id: run.source_id,
            cause: run.cause.name(),
            state: run.state.name(),
            phase: run.phase.name(),
            full: run.is_full,
            new: run.new_count,
            changed: run.changed_count,
            unchanged: run.unchanged_count,
            removed: run.removed_count,
            failed: run.failed_count,
            held: run.held_count,
            bytes: run.bytes,
            embedding_calls: run.embedding_calls,
            notes: run.notes.into_iter().map(Remark::from).collect(),
            error: run.error.map(|(code, message)| Remark { code, message }),
            started_at: run.started_at,
            ended_at: run.ended_at,
            duration_ms: (until - run.started_at).num_milliseconds().max(0),
            failures: failures.into_iter().map(FailureResponse::from).collect(),
        }
    }
}

impl From<Note> for Remark {
    fn from(note: Note) -> Self {
        Self {
            code: note.code().to_owned(),
            message: note.message().to_owned(),
        }
    }
}

/// A run with a page of its failures.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunDetail {
    #[serde(flatten)]
    run: RunResponse,
    /// Give this as `cursor` for the next failures; null on the last page.
    next_cursor: Option<String>,
}

impl RunDetail {
    /// The run with the failures of one page, fetched with one more.
    pub(super) fn of(run: SyncRun, failures: Vec<Failure>, limit: i64) -> Self {
        let page = Page::of(failures, limit, |failure| failure.id, |failure| failure);
        Self {
            run: RunResponse::of(run, page.items),
            next_cursor: page.next_cursor,
        }
    }
}

/// The source with its last run.
pub(super) async fn show(conn: &mut Conn, source: Source) -> Result<SourceResponse> {
    let last = sync::find_last_run(conn, source.tenant_id, source.id).await?;
    let last = match last {
        Some(run) => Some(RunResponse::load(conn, source.tenant_id, run).await?),
        None => None,
    };
    Ok(SourceResponse::of(source, last))
}
