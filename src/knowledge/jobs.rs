//! The room's kinds of background work: indexing documents, and removing from index and files what was deleted or came in in vain.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::indexing::{self, INDEXING_FAILED, Progress};
use super::{store, stored_chunks};
use crate::app::App;
use crate::db::Write;
use crate::error::Result;
use crate::generations;
use crate::id::{ChunkId, DocumentId, TenantId};
use crate::jobs::{self, Failure, Job, JobContext, Outcome, Priority};

/// Documents that one removal job names.
pub(super) const REMOVED_AT_ONCE: usize = 500;

/// Indexes versions of documents: each upload has a file of its own, and so has each version of a page.
#[derive(Debug, Serialize, Deserialize)]
pub struct IndexDocuments {
    /// Each with the key of its file. A newer version has a job of its own.
    pub documents: Vec<(DocumentId, String)>,
}

impl Job for IndexDocuments {
    const KIND: &'static str = "index_documents";
    const PRIORITY: Priority = Priority::Normal;
    const TIMEOUT: Duration = Duration::from_secs(30 * 60);

    async fn run(self, app: App, context: JobContext) -> Outcome {
        match indexing::run(&app, &context, &self.documents).await {
            Ok(Progress::Unfinished) => Outcome::TurnOver,
            ended => ended.map(drop).into(),
        }
    }

    fn on_failed<'a>(
        self,
        app: &'a App,
        write: &'a mut Write,
        tenant_id: Option<TenantId>,
        failure: Failure<'a>,
        now: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let Some(tenant_id) = tenant_id else { return Ok(()) };
            let reason = failure.reason;
            let message = format!("Indexing failed: {reason}. Upload or synchronise it again to retry.");
            for (id, file_key) in &self.documents {
                let cause = (INDEXING_FAILED, message.as_str());
                indexing::fail_unfinished(write, tenant_id, (*id, file_key), cause, now).await?;
            }
            let documents: Vec<DocumentId> = self.documents.into_iter().map(|(id, _)| id).collect();
            if failure.is_death {
                return give_up_later(app, write, tenant_id, documents, now).await;
            }
            indexing::give_up_staged(write, tenant_id, &documents).await?;
            jobs::enqueue(app, write, tenant_id, &DropStaged::of(documents)).await
        })
    }
}

/// What a death left of documents is there for whoever tries again, as long as the failed job can be.
async fn give_up_later(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    documents: Vec<DocumentId>,
    now: DateTime<Utc>,
) -> Result<()> {
    let run_at = now + TimeDelta::days(app.config.jobs.keep_finished_days.into());
    for id in documents {
        let dropping = DropStaged {
            documents: vec![id],
            gives_up: true,
        };
        jobs::enqueue_once(app, write, tenant_id, &dropping, &format!("give_up {id}"), run_at).await?;
    }
    Ok(())
}

/// Drops versions that will not be finished, or that others took the place of.
#[derive(Debug, Serialize, Deserialize)]
pub struct DropStaged {
    pub documents: Vec<DocumentId>,
    /// Those of failed documents, too, that were left for another attempt.
    #[serde(default)]
    gives_up: bool,
}

impl DropStaged {
    pub(super) fn of(documents: Vec<DocumentId>) -> Self {
        Self {
            documents,
            gives_up: false,
        }
    }
}

impl Job for DropStaged {
    const KIND: &'static str = "drop_staged";
    const PRIORITY: Priority = Priority::Normal;
    const TIMEOUT: Duration = Duration::from_secs(10 * 60);

    async fn run(self, app: App, context: JobContext) -> Outcome {
        drop_staged(&app, &context, &self).await.into()
    }
}

async fn drop_staged(app: &App, context: &JobContext, job: &DropStaged) -> Result<()> {
    if job.gives_up {
        let tenant_id = context.tenant()?;
        let mut write = app.db.write(tenant_id).await?;
        indexing::give_up_staged(&mut write, tenant_id, &job.documents).await?;
        write.commit().await?;
    }
    indexing::drop_staged(app, context, &job.documents).await
}

/// Removes from the index and from the files what rows no longer name.
#[derive(Debug, Serialize, Deserialize)]
pub struct RemoveDocuments {
    pub document_ids: Vec<DocumentId>,
    pub chunk_ids: Vec<ChunkId>,
    pub file_keys: Vec<String>,
}

impl Job for RemoveDocuments {
    const KIND: &'static str = "remove_documents";
    const PRIORITY: Priority = Priority::Normal;
    const TIMEOUT: Duration = Duration::from_secs(10 * 60);

    async fn run(self, app: App, context: JobContext) -> Outcome {
        remove(&app, &context, self).await.into()
    }
}

/// Puts chunks into the indexes as their rows say: an attempt that was overtaken has put them in as it had them.
#[derive(Debug, Serialize, Deserialize)]
pub struct PutBackChunks {
    pub chunk_ids: Vec<ChunkId>,
}

impl Job for PutBackChunks {
    const KIND: &'static str = "put_back_chunks";
    const PRIORITY: Priority = Priority::Normal;
    const TIMEOUT: Duration = Duration::from_secs(10 * 60);

    async fn run(self, app: App, context: JobContext) -> Outcome {
        put_back(&app, &context, &self.chunk_ids).await.into()
    }
}

async fn put_back(app: &App, context: &JobContext, chunk_ids: &[ChunkId]) -> Result<()> {
    let tenant_id = context.tenant()?;
    for space in generations::list_spaces(app, tenant_id).await? {
        let rows =
            stored_chunks::list_these(&mut app.db.read(tenant_id).await?, tenant_id, chunk_ids).await?;
        stored_chunks::put(app, tenant_id, &space, rows.into_values().collect()).await?;
    }
    Ok(())
}

async fn remove(app: &App, context: &JobContext, job: RemoveDocuments) -> Result<()> {
    // Files first: on a full disk they make the room that the index needs.
    for key in &job.file_keys {
        app.files.remove(key).await?;
    }
    app.disk.check_room_to_remove()?;
    if !job.document_ids.is_empty() {
        indexing::remove_documents(app, context.tenant()?, &job.document_ids).await?;
    }
    if !job.chunk_ids.is_empty() {
        remove_chunks(app, context.tenant()?, &job.chunk_ids).await?;
    }
    Ok(())
}

/// Removes from the index those of these chunks that have no rows, and puts back what has some by then: whoever brings in the
/// same chunk again may have done so while it was removed.
async fn remove_chunks(app: &App, tenant_id: TenantId, chunk_ids: &[ChunkId]) -> Result<()> {
    let existing =
        store::list_existing_chunks(&mut app.db.read(tenant_id).await?, tenant_id, chunk_ids).await?;
    let gone = chunk_ids.iter().filter(|id| !existing.contains(id)).copied();
    let gone: Vec<ChunkId> = gone.collect();
    for space in generations::list_spaces(app, tenant_id).await? {
        let ids = gone.iter().map(|id| retrieval::ChunkId(id.0));
        space
            .index
            .delete_chunks(retrieval::TenantId(tenant_id.0), ids.collect())
            .await?;
        let back = stored_chunks::list_any(&mut app.db.read(tenant_id).await?, tenant_id, &gone).await?;
        stored_chunks::put(app, tenant_id, &space, back.into_values().collect()).await?;
    }
    Ok(())
}
