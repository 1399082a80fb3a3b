//! Sources that were deleted: hidden from everybody in one short transaction, then taken apart by a job, a slice in each
//! transaction, so that nobody waits long for the writer whatever a source holds.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::{Database, Encode, QueryBuilder, Type};

use super::{index_changes, jobs, sources, sync};
use crate::app::App;
use crate::db::{self, Write};
use crate::error::Result;
use crate::id::{ChatbotId, ChunkId, DocumentId, SourceId, TenantId};
use crate::jobs::{Job, JobContext, Outcome, Priority, by_slices};
use crate::on;

/// Rows that one transaction deletes, at most; documents are fewer, and have no chunks by then.
const ROWS_AT_ONCE: i64 = 1_000;

/// Chunks and bytes that documents may have together to be deleted in one transaction.
const LIGHT_CHUNKS: i64 = 2_000;
const LIGHT_BYTES: i64 = 32 << 20;

/// What a source has many of, besides chunks and documents; what is looked for the longest stands last. `coalesce` keeps SQLite from
/// going through all that the tenant has.
const PARTS: [&str; 5] = [
    "delete from source_item
      where coalesce(tenant_id, tenant_id) = $1
        and source_id = $2
        and item_key in (select item_key from source_item where source_id = $2 limit $3)",
    "delete from drive_node
      where coalesce(tenant_id, tenant_id) = $1
        and source_id = $2
        and file_id in (select file_id from drive_node where source_id = $2 limit $3)",
    "delete from sync_failure
      where coalesce(tenant_id, tenant_id) = $1
        and id in (select f.id from sync_failure f join sync_run r on r.id = f.run_id where r.source_id = $2 limit $3)",
    "delete from chunk_edit
      where coalesce(tenant_id, tenant_id) = $1
        and id in (select id from chunk_edit where source_id = $2 limit $3)",
    "delete from source_exclusion
      where coalesce(tenant_id, tenant_id) = $1
        and id in (select id from source_exclusion where source_id = $2 limit $3)",
];

/// Takes a hidden source apart.
#[derive(Debug, Serialize, Deserialize)]
pub struct DeleteSource {
    pub source_id: SourceId,
}

impl Job for DeleteSource {
    const KIND: &'static str = "delete_source";
    const PRIORITY: Priority = Priority::Normal;
    const TIMEOUT: Duration = Duration::from_secs(10 * 60);

    async fn run(self, app: App, context: JobContext) -> Outcome {
        by_slices(&context, |tenant_id| delete_some(&app, tenant_id, self.source_id)).await
    }
}

/// Ends the runs of a source and hides it with its documents. It is for the caller to queue what deletes it.
pub(super) async fn hide(app: &App, write: &mut Write, tenant_id: TenantId, id: SourceId) -> Result<()> {
    sync::cancel(app, write, tenant_id, id).await?;
    sources::store::hide(write, tenant_id, id, app.clock.now()).await
}

/// Like [`hide`], for all sources of a chatbot.
pub async fn hide_all_of_chatbot(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
) -> Result<()> {
    for id in super::store::list_sources(write, tenant_id, chatbot_id).await? {
        hide(app, write, tenant_id, id).await?;
    }
    Ok(())
}

/// A source that a hidden chatbot still has.
pub async fn find_remaining(
    app: &App,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
) -> Result<Option<SourceId>> {
    let mut conn = app.db.read(tenant_id).await?;
    Ok(
        on!(conn, c => sqlx::query_scalar("select id from source where tenant_id = $1 and chatbot_id = $2 limit 1")
        .bind(tenant_id).bind(chatbot_id).fetch_optional(c).await)?,
    )
}

/// Deletes one slice of a hidden source, itself at last; false when nothing is left.
pub async fn delete_some(app: &App, tenant_id: TenantId, id: SourceId) -> Result<bool> {
    let mut write = app.db.write(tenant_id).await?;
    let is_left = sources::store::hold_hidden(&mut write, tenant_id, id).await?;
    if !is_left {
        return Ok(false);
    }
    if !delete_chunks(app, &mut write, tenant_id, id).await?
        && !delete_part(&mut write, tenant_id, id).await?
        && !delete_documents(app, &mut write, tenant_id, id).await?
    {
        sources::store::delete(&mut write, tenant_id, id).await?;
    }
    write.commit().await?;
    app.wake_workers();
    Ok(true)
}

/// Deletes some chunks of a source; whether there were any.
async fn delete_chunks(app: &App, write: &mut Write, tenant_id: TenantId, id: SourceId) -> Result<bool> {
    let deleted: Vec<ChunkId> = on!(write, c => sqlx::query_scalar(
        "delete from chunk
          where coalesce(tenant_id, tenant_id) = $1
            and id in (select id from chunk where source_id = $2 limit $3)
         returning id",
    ).bind(tenant_id).bind(id).bind(ROWS_AT_ONCE).fetch_all(c).await)?;
    forget(app, write, tenant_id, &deleted).await
}

/// Has the indexes forget these chunks, where they do so with the rows; otherwise they do when the documents go. Whether there are
/// any.
async fn forget(app: &App, write: &mut Write, tenant_id: TenantId, ids: &[ChunkId]) -> Result<bool> {
    if app.config.index_is_with_rows() {
        index_changes::remove_chunks(app, write, tenant_id, ids).await?;
    }
    Ok(!ids.is_empty())
}

async fn delete_part(write: &mut Write, tenant_id: TenantId, id: SourceId) -> Result<bool> {
    for statement in PARTS {
        let deleted = on!(write, c => sqlx::query(statement).bind(tenant_id).bind(id).bind(ROWS_AT_ONCE).execute(c).await
            .map(|done| done.rows_affected()))?;
        if deleted > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Deletes documents of a source: out of answers with the commit. Those with much in them are hidden below a source of their
/// own, which a job takes apart. How many there were.
pub(super) async fn delete_or_hide(
    app: &App,
    write: &mut Write,
    (tenant_id, source_id): (TenantId, SourceId),
    ids: &[DocumentId],
) -> Result<i64> {
    let mut count = 0;
    for group in ids.chunks(db::ROWS_AT_ONCE) {
        count += if are_light(write, tenant_id, group).await? {
            let deleted = on!(write, c => {
                let mut delete = QueryBuilder::new("delete from document where coalesce(tenant_id, tenant_id) = ");
                delete.push_bind(tenant_id).push(" and coalesce(source_id, source_id) = ").push_bind(source_id);
                push_ids(&mut delete, " and id", group);
                delete.build().execute(c).await.map(|done| done.rows_affected())
            })?;
            i64::try_from(deleted).unwrap_or(i64::MAX)
        } else {
            hide_documents(app, write, (tenant_id, source_id), group).await?
        };
    }
    Ok(count)
}

async fn are_light(write: &mut Write, tenant_id: TenantId, ids: &[DocumentId]) -> Result<bool> {
    let bytes: i64 = on!(write, c => {
        let mut query = QueryBuilder::new(
            "select cast(coalesce(sum(size_bytes), 0) as bigint) from document where coalesce(tenant_id, tenant_id) = ",
        );
        query.push_bind(tenant_id);
        push_ids(&mut query, " and id", ids);
        query.build_query_scalar().fetch_one(c).await
    })?;
    // Those of all cuts and versions, and no further than it matters.
    let chunks: i64 = on!(write, c => {
        let mut query = QueryBuilder::new("select count(*) from (select 1 from chunk where coalesce(tenant_id, tenant_id) = ");
        query.push_bind(tenant_id);
        push_ids(&mut query, " and document_id", ids);
        query.push(" limit ").push_bind(LIGHT_CHUNKS + 1).push(") many");
        query.build_query_scalar().fetch_one(c).await
    })?;
    Ok(chunks <= LIGHT_CHUNKS && bytes <= LIGHT_BYTES)
}

/// Nobody finds a document below a hidden source, and whoever works on it finds that it was replaced.
async fn hide_documents(
    app: &App,
    write: &mut Write,
    (tenant_id, source_id): (TenantId, SourceId),
    ids: &[DocumentId],
) -> Result<i64> {
    let hidden = SourceId::new();
    sources::store::insert_hidden_beside(write, (tenant_id, source_id), hidden, app.clock.now()).await?;
    on!(write, c => {
        let mut update = QueryBuilder::new("update source_item set document_id = null where tenant_id = ");
        update.push_bind(tenant_id).push(" and source_id = ").push_bind(source_id);
        push_ids(&mut update, " and document_id", ids);
        update.build().execute(c).await.map(drop)
    })?;
    let count = on!(write, c => {
        let mut update = QueryBuilder::new("update document set cut_revision = cut_revision + 1, source_id = ");
        update.push_bind(hidden).push(" where coalesce(tenant_id, tenant_id) = ").push_bind(tenant_id);
        update.push(" and coalesce(source_id, source_id) = ").push_bind(source_id);
        push_ids(&mut update, " and id", ids);
        update.build().execute(c).await.map(|done| done.rows_affected())
    })?;
    crate::jobs::enqueue(app, write, tenant_id, &DeleteSource { source_id: hidden }).await?;
    Ok(i64::try_from(count).unwrap_or(i64::MAX))
}

/// Deletes documents, from index and files as well.
async fn delete_documents(app: &App, write: &mut Write, tenant_id: TenantId, id: SourceId) -> Result<bool> {
    // In no order: to sort them would be to look at all of them for each slice.
    let most = i64::try_from(jobs::REMOVED_AT_ONCE).unwrap_or(i64::MAX);
    let documents: Vec<(DocumentId, String, i64)> = on!(write, c => sqlx::query_as(
        "select id, file_key, size_bytes from document where tenant_id = $1 and source_id = $2 limit $3",
    ).bind(tenant_id).bind(id).bind(most).fetch_all(c).await)?;
    if documents.is_empty() {
        return Ok(false);
    }
    let mut bytes = 0;
    let slice = documents
        .into_iter()
        .enumerate()
        .take_while(|(place, (_, _, size))| {
            bytes += size;
            *place == 0 || bytes <= LIGHT_BYTES
        });
    let (document_ids, file_keys): (Vec<DocumentId>, Vec<String>) =
        slice.map(|(_, (id, file_key, _))| (id, file_key)).unzip();
    if delete_moved_chunks(app, write, tenant_id, &document_ids).await? {
        return Ok(true);
    }
    on!(write, c => {
        let mut delete = QueryBuilder::new("delete from document where coalesce(tenant_id, tenant_id) = ");
        delete.push_bind(tenant_id);
        push_ids(&mut delete, " and id", &document_ids);
        delete.build().execute(c).await.map(drop)
    })?;
    index_changes::remove_documents(app, write, tenant_id, &document_ids, file_keys).await?;
    Ok(true)
}

/// Deletes some chunks of documents that came here from another source; whether there were any.
async fn delete_moved_chunks(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    ids: &[DocumentId],
) -> Result<bool> {
    let deleted: Vec<ChunkId> = on!(write, c => {
        let mut delete = QueryBuilder::new("delete from chunk where coalesce(tenant_id, tenant_id) = ");
        delete.push_bind(tenant_id).push(" and id in (select id from chunk where true");
        push_ids(&mut delete, " and document_id", ids);
        delete.push(" limit ").push_bind(ROWS_AT_ONCE).push(") returning id");
        delete.build_query_scalar().fetch_all(c).await
    })?;
    forget(app, write, tenant_id, &deleted).await
}

fn push_ids<DB: Database>(query: &mut QueryBuilder<DB>, column: &str, ids: &[DocumentId])
where
    DocumentId: for<'q> Encode<'q, DB> + Type<DB>,
{
    query.push(column).push(" in (");
    let mut list = query.separated(", ");
    ids.iter().for_each(|id| {
        list.push_bind(*id);
    });
    query.push(")");
}
