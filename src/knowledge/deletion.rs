//! Sources that were deleted: hidden from everybody in one short transaction, then taken apart by a job, a slice in each
//! transaction, so that nobody waits long for the writer whatever a source holds.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::QueryBuilder;

use super::{jobs, sources, sync};
use crate::app::App;
use crate::db::Write;
use crate::error::Result;
use crate::id::{ChatbotId, DocumentId, SourceId, TenantId};
use crate::jobs::{Job, JobContext, Outcome, Priority};
use crate::on;

/// Rows that one transaction deletes, at most; documents are fewer, and have no chunks by then.
const ROWS_AT_ONCE: i64 = 1_000;

/// What a source has many of, besides documents; what is looked for the longest stands last. `coalesce` keeps SQLite from
/// going through all that the tenant has.
const PARTS: [&str; 7] = [
    "delete from chunk
      where coalesce(tenant_id, tenant_id) = $1
        and id in (select id from chunk where source_id = $2 limit $3)",
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
    "delete from staged_chunk
      where coalesce(tenant_id, tenant_id) = $1
        and (document_id, file_key, cut_revision, position) in (select s.document_id, s.file_key, s.cut_revision, s.position
                                                                  from staged_chunk s
                                                                 where s.tenant_id = $1
                                                                   and exists(select 1 from document d where d.id = s.document_id and d.source_id = $2)
                                                                 limit $3)",
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
        let tenant_id = match context.tenant() {
            Ok(tenant_id) => tenant_id,
            Err(error) => return Err(error).into(),
        };
        for _ in 0..crate::jobs::SLICES_AT_ONCE {
            match delete_some(&app, tenant_id, self.source_id).await {
                Ok(true) => {}
                ended => return Outcome::of_slice(ended.map(drop)),
            }
        }
        Outcome::unfinished()
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
    if !delete_part(&mut write, tenant_id, id).await?
        && !delete_documents(app, &mut write, tenant_id, id).await?
    {
        sources::store::delete(&mut write, tenant_id, id).await?;
    }
    write.commit().await?;
    app.wake_workers();
    Ok(true)
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

/// Deletes documents, and queues their removal from index and files.
async fn delete_documents(app: &App, write: &mut Write, tenant_id: TenantId, id: SourceId) -> Result<bool> {
    // In no order: to sort them would be to look at all of them for each slice.
    let most = i64::try_from(jobs::REMOVED_AT_ONCE).unwrap_or(i64::MAX);
    let documents: Vec<(DocumentId, String)> = on!(write, c => sqlx::query_as(
        "select id, file_key from document where tenant_id = $1 and source_id = $2 limit $3",
    ).bind(tenant_id).bind(id).bind(most).fetch_all(c).await)?;
    if documents.is_empty() {
        return Ok(false);
    }
    let (document_ids, file_keys): (Vec<DocumentId>, Vec<String>) = documents.into_iter().unzip();
    on!(write, c => {
        let mut delete = QueryBuilder::new("delete from document where coalesce(tenant_id, tenant_id) = ");
        delete.push_bind(tenant_id).push(" and id in (");
        let mut list = delete.separated(", ");
        document_ids.iter().for_each(|id| {
            list.push_bind(*id);
        });
        delete.push(")");
        delete.build().execute(c).await.map(drop)
    })?;
    let cleaning = jobs::RemoveDocuments {
        document_ids,
        chunk_ids: Vec::new(),
        file_keys,
    };
    crate::jobs::enqueue(app, write, tenant_id, &cleaning).await?;
    Ok(true)
}
