//! Indexing: documents are read, cut and embedded, and each is swapped in whole when all of it is in the index.
//!
//! Several documents share a job, a call of the embedding model and a transaction, because crawls bring thousands of
//! small ones. They share nothing else: what fails one document fails that one, and a job that is tried again does only
//! what is not done yet.

mod batch;
pub mod beside;
mod dropping;
mod embedding;
mod in_vain;
mod large;
mod listening;
mod staging;
mod store;
mod turn;

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use ingest::sandbox::DocumentParts;
use ingest::{Account, ExtractError, ExtractedDocument, Format, Hints};
use retrieval::index::Facets;

use self::batch::Batch;
pub(super) use self::dropping::drop_staged;
use self::dropping::drop_staged_later;
pub(super) use self::embedding::{EMBEDDED_AT_ONCE, Payer, embed};
use self::listening::Purse;
pub(super) use self::store::{fail_unfinished, give_up_staged};
use super::chunks::{self, Chunking, Edits};
use super::files::store_error;
use super::jobs::IndexDocuments;
use super::reading::{self, KeptAs};
use super::{facts, index_changes, labels};
use crate::app::{App, INDEX_OF_ANOTHER, Space};
use crate::db::Write;
use crate::error::{Error, Result};
use crate::generations;
use crate::id::{ChatbotId, CutId, DocumentId, SourceId, SyncRunId, TenantId};
use crate::jobs::{self, JobContext, Priority};

/// What a document failed with when its job was given up; trying the job again tries the document again.
pub(super) const INDEXING_FAILED: &str = "indexing_failed";

/// What a document failed with whose file is not in its place, or not what was put there.
const FILE_LOST: &str = "file_lost";

/// When a machine that cannot read documents is tried again.
const READER_RETRY: Duration = Duration::from_secs(30);

/// Documents of one bulk job.
const DOCUMENTS_PER_JOB: usize = 32;

/// After so many attempts the documents of a job get jobs of their own: one of them may be what ends it.
const SHARED_ATTEMPTS: i64 = 2;

/// One version of a document that is to be indexed.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub id: DocumentId,
    pub chatbot_id: ChatbotId,
    pub source_id: SourceId,
    /// The title that came with it, and goes before what its content says.
    pub given_title: Option<String>,
    pub external_id: String,
    pub file_name: String,
    pub format: String,
    pub content_hash: String,
    pub file_key: String,
    pub kept_as: KeptAs,
    /// The run that made this version.
    pub run_id: Option<SyncRunId>,
    /// Where its chunks go: the embedding model that answers its tenant, and the index.
    pub space: Arc<Space>,
    /// There is an indexed version: this one or an older one.
    pub was_indexed: bool,
    /// That is this one, and no newer one was on its way when it was looked at.
    pub is_indexed: bool,
    /// How often it changed how the document is to be cut.
    pub cut_revision: i64,
    /// What its chunks are of: the live cut of its source, or one beside it.
    pub cut: CutId,
    pub chunking: Chunking,
    /// Its owner changed chunks of it.
    pub has_edits: bool,
    /// What its chunks go into the index with.
    pub facets: Facets,
    /// The language that somebody said it is in, or it says itself; none: it is told by the text.
    said_language: Option<String>,
    /// What has read this version already.
    read_with: Option<String>,
    created_at: DateTime<Utc>,
}

impl Work {
    /// Takes over what `reader` has read, of all of it or of the first part: what the row will say of the document, as far as that
    /// can be told before it is written.
    fn expect(&mut self, read: &facts::Facts, reader: &str) {
        let is_read_first = self.read_with.as_deref() != Some(reader);
        // What somebody said of an upload goes before what it says of itself.
        let language = match is_read_first && self.run_id.is_some() {
            true => read.language.as_deref(),
            false => self.said_language.as_deref(),
        };
        let language = language.and_then(labels::primary_language);
        self.facets.language = language.or_else(|| read.detected_language.map(str::to_owned));
        if is_read_first {
            self.facets.date = Some(labels::date_of(read.published_at, self.created_at));
        }
    }

    /// What its chunks went into the index with.
    fn stored(&self) -> labels::Stored<'_> {
        labels::Stored {
            id: self.id,
            facets: &self.facets,
            was_indexed: self.was_indexed,
        }
    }
}

/// Why a document was not read.
enum Unread {
    /// By a verdict on its content.
    Verdict(ExtractError),
    /// Reading it costs more than the month allows.
    OverBudget(&'static str, Cow<'static, str>),
    /// Its file is gone, or damaged.
    FileLost,
    /// Another version took its place meanwhile, or it was deleted.
    Superseded,
}

/// What was read of a document.
enum Reading {
    Whole(ExtractedDocument),
    /// The first part, and where the others come from.
    Parts(ExtractedDocument, Box<DocumentParts>),
}

impl Reading {
    async fn of(mut parts: DocumentParts) -> std::result::Result<Self, ExtractError> {
        let first = parts
            .next()
            .await?
            .ok_or(ExtractError::NoText { scanned: false })?;
        Ok(if parts.has_more() {
            Self::Parts(first, Box::new(parts))
        } else {
            Self::Whole(first)
        })
    }
}

/// How far a job came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    /// It had its turn, and there is more to do.
    Unfinished,
}

/// Queues versions of documents, each with the key of its file, in the caller's transaction.
///
/// At [`Priority::Bulk`] several share a job; otherwise somebody waits, and they may be worked on side by side.
pub async fn enqueue(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    documents: &[(DocumentId, String)],
    priority: Priority,
) -> Result<()> {
    let per_job = if priority == Priority::Bulk {
        DOCUMENTS_PER_JOB
    } else {
        1
    };
    for group in documents.chunks(per_job) {
        let job = IndexDocuments {
            documents: group.to_vec(),
        };
        jobs::enqueue_at(app, write, tenant_id, &job, priority).await?;
    }
    Ok(())
}

/// Indexes those of `documents` that still need it.
pub(super) async fn run(
    app: &App,
    context: &JobContext,
    documents: &[(DocumentId, String)],
) -> Result<Progress> {
    let tenant_id = context.tenant()?;
    let started = Instant::now();
    let work = begin(app, context, documents).await?;
    if work.len() > 1 && context.attempt > SHARED_ATTEMPTS {
        let mut write = app.db.write(tenant_id).await?;
        for work in &work {
            enqueue_alone(app, &mut write, tenant_id, work).await?;
        }
        write.commit().await?;
        app.wake_workers();
        return Ok(Progress::Done);
    }
    let mut batch = Batch::new(app, context, tenant_id, work.len() == 1);
    for work in work {
        if turn::is_over_between_documents(app, context, started.elapsed()).await? {
            batch.flush().await?;
            return Ok(Progress::Unfinished);
        }
        if let Err(error) = check_before_reading(app, tenant_id, &work).await {
            batch.judge(work, Err(error)).await?;
            continue;
        }
        let progress = match read(app, tenant_id, &work).await? {
            Ok(Reading::Whole(extracted)) => batch.add(work, extracted).await?,
            Ok(Reading::Parts(first, rest)) => batch.add_parts(work, first, *rest).await?,
            Err(Unread::Verdict(ExtractError::Unavailable)) => {
                batch.flush().await?;
                return Err(reader_unavailable());
            }
            Err(Unread::Verdict(error)) => batch.fail(work, &error).await?,
            Err(Unread::OverBudget(code, message)) => batch.fail_over_budget(work, code, message).await?,
            Err(Unread::FileLost) => batch.fail_for_lost_file(work).await?,
            Err(Unread::Superseded) => Progress::Done,
        };
        if progress == Progress::Unfinished {
            return Ok(progress);
        }
    }
    batch.flush().await?;
    Ok(Progress::Done)
}

/// Marks as being worked on those documents that are still of the given version and need work.
async fn begin(app: &App, context: &JobContext, documents: &[(DocumentId, String)]) -> Result<Vec<Work>> {
    let tenant_id = context.tenant()?;
    let ids: Vec<DocumentId> = documents.iter().map(|(id, _)| *id).collect();
    generations::live_now(app, tenant_id).await?;
    let mut write = app.db.write(tenant_id).await?;
    let space = generations::live_for_writing(app, &mut write, tenant_id).await?;
    let found = store::list(&mut write, tenant_id, &ids, &space).await?;
    let mut found: HashMap<DocumentId, store::Found> =
        found.into_iter().map(|found| (found.work.id, found)).collect();
    let (mut work, mut gone) = (Vec::new(), Vec::new());
    for (id, file_key) in documents {
        let Some(found) = found.remove(id) else {
            gone.push(*id);
            continue;
        };
        let needs_work = match found.state.as_str() {
            "queued" | "processing" => true,
            "failed" => found.error_code.as_deref() == Some(INDEXING_FAILED),
            _ => false,
        };
        if needs_work && found.work.file_key == *file_key {
            work.push(found.work);
        }
    }
    if !work.is_empty() {
        store::set_processing(&mut write, tenant_id, &work, app.clock.now()).await?;
    }
    drop_staged_later(app, &mut write, tenant_id, &ids).await?;
    // An attempt that died after a document was deleted may have left chunks in the index.
    let key = format!("gone {} {}", context.job_id, gone.len());
    index_changes::remove_leftovers(app, &mut write, tenant_id, &gone, &key).await?;
    write.commit().await?;
    if !gone.is_empty() {
        app.wake_workers();
    }
    Ok(work)
}

/// Removes documents from all indexes that may hold something of them without rows.
pub(super) async fn remove_documents(app: &App, tenant_id: TenantId, ids: &[DocumentId]) -> Result<()> {
    for space in generations::list_spaces(app, tenant_id).await? {
        if space.index_with_rows().is_some() {
            index_changes::remove_gone(app, tenant_id, &space, ids).await?;
            continue;
        }
        let ids = ids.iter().map(|id| retrieval::DocumentId(id.0)).collect();
        space
            .index
            .delete_documents(retrieval::TenantId(tenant_id.0), ids)
            .await?;
    }
    Ok(())
}

/// What others read, at a price or for long, is read by a process that has the index which documents are put into: should it be
/// large, no other one brings it in.
async fn check_before_reading(app: &App, tenant_id: TenantId, work: &Work) -> Result<()> {
    let is_of_others = work.kept_as != KeptAs::Reading
        && find_format(work).is_some_and(|format| app.extractor.asks_others(format));
    match is_of_others {
        true => generations::check_live_making_for_document(app, tenant_id).await,
        false => Ok(()),
    }
}

fn find_format(work: &Work) -> Option<Format> {
    Format::ALL
        .into_iter()
        .find(|format| format.as_str() == work.format)
}

/// What the document's file says.
async fn read(app: &App, tenant_id: TenantId, work: &Work) -> Result<std::result::Result<Reading, Unread>> {
    if work.kept_as == KeptAs::Reading {
        return match reading::load(app, &work.file_key).await {
            Ok(reading) => Ok(Reading::of(DocumentParts::of(reading))
                .await
                .map_err(Unread::Verdict)),
            Err(Error::NotFound(_)) => judge_absent_file(app, tenant_id, work).await.map(Err),
            Err(error) => {
                tracing::error!(error = ?error, document.id = %work.id, "what was read of a document is unreadable");
                Ok(Err(Unread::FileLost))
            }
        };
    }
    let path = app.files.path(&work.file_key)?;
    let payer = Payer {
        tenant_id,
        chatbot_id: work.chatbot_id,
        run_id: work.run_id,
    };
    let purse = Purse::of(app, payer);
    match read_file(app, work, &path, &purse).await {
        Err(ExtractError::Unpaid) => match purse.into_failure() {
            Error::BudgetExceeded { code, message } => Ok(Err(Unread::OverBudget(code, message))),
            error => Err(error),
        },
        Err(ExtractError::Unavailable) if !tokio::fs::try_exists(&path).await.map_err(store_error)? => {
            judge_absent_file(app, tenant_id, work).await.map(Err)
        }
        read => Ok(read.map_err(Unread::Verdict)),
    }
}

async fn read_file(
    app: &App,
    work: &Work,
    path: &Path,
    account: &dyn Account,
) -> std::result::Result<Reading, ExtractError> {
    let format = find_format(work).ok_or(ExtractError::UnsupportedType { found: None })?;
    let hints = Hints::named(&work.file_name);
    Reading::of(app.extractor.extract_parts(path, format, &hints, account).await?).await
}

/// Whether a file is not there because nothing needs it any more.
async fn judge_absent_file(app: &App, tenant_id: TenantId, work: &Work) -> Result<Unread> {
    let mut conn = app.db.read(tenant_id).await?;
    let present = store::find_file_key(&mut conn, tenant_id, work.id).await?;
    if present.as_ref() != Some(&work.file_key) {
        return Ok(Unread::Superseded);
    }
    // Where the whole store is not there, none of its documents is at fault.
    app.files.check_of(tenant_id).await?;
    tracing::error!(document.id = %work.id, "the file of a document is gone");
    Ok(Unread::FileLost)
}

/// No document can be read at the moment, which says nothing about any of them.
pub(super) fn reader_unavailable() -> Error {
    Error::Unavailable {
        code: "reader_unavailable",
        message: "documents cannot be read at the moment; this is tried again by itself".into(),
        retry_after: READER_RETRY,
        source: None,
    }
}

/// What documents are read with at present. Another reader may make something of what this one cannot.
pub(super) fn reader(app: &App) -> String {
    let media = app.extractor.media();
    let mut reader = ingest::READER_VERSION.to_string();
    for (is_read, kind) in [(media.pictures, "pictures"), (media.recordings, "recordings")] {
        if is_read {
            reader = format!("{reader} {kind}");
        }
    }
    reader
}

/// Whether a document that failed with `code`, read by `read_with`, may do better now although it is the same.
pub(super) fn is_worth_another_try(app: &App, code: &str, read_with: Option<&str>) -> bool {
    let is_of_its_content = matches!(
        code,
        "empty_file" | "unsupported_type" | "no_text" | "password_protected" | "damaged" | "too_large"
    );
    !is_of_its_content || read_with != Some(reader(app).as_str())
}

/// What the owner changed in the document's chunks.
async fn load_edits(app: &App, tenant_id: TenantId, work: &Work) -> Result<Edits> {
    if !work.has_edits {
        return Ok(Edits::default());
    }
    let mut conn = app.db.read(tenant_id).await?;
    let edits = chunks::list_edits(&mut conn, tenant_id, work.source_id, &work.external_id).await?;
    Ok(Edits::new(edits))
}

/// Gives a version of a document a job of its own, unless one waits: whoever does so may come to it again.
async fn enqueue_alone(app: &App, write: &mut Write, tenant_id: TenantId, work: &Work) -> Result<()> {
    let job = IndexDocuments {
        documents: vec![(work.id, work.file_key.clone())],
    };
    let key = format!("index {} {}", work.id, work.file_key);
    jobs::enqueue_once_at(app, write, tenant_id, &job, &key, Priority::Bulk).await
}

/// Whether the error is about the document at hand rather than about something that all documents need.
fn concerns_one_document(error: &Error) -> bool {
    match error {
        // Only what is large, or read by others, is left to another process.
        Error::Unavailable { code, .. } => *code == INDEX_OF_ANOTHER,
        Error::StorageFull | Error::Database(_) | Error::NotFound(_) => false,
        _ => true,
    }
}
