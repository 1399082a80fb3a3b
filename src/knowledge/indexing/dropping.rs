//! What was staged in vain, or has been swapped in, goes bit by bit: rows first, then what the index holds of them.

use super::{remove_chunks_later, remove_documents, staging};
use crate::app::App;
use crate::db::Write;
use crate::error::Result;
use crate::id::{DocumentId, TenantId};
use crate::jobs::{self, JobContext};
use crate::knowledge::jobs::DropStaged;

/// Queues the dropping of what is staged of these documents and no longer worked on, if there is any.
pub(super) async fn drop_staged_later(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    ids: &[DocumentId],
) -> Result<()> {
    let documents = staging::list_left_behind(write, tenant_id, ids).await?;
    if documents.is_empty() {
        return Ok(());
    }
    jobs::enqueue(app, write, tenant_id, &DropStaged { documents }).await
}

/// Drops what is staged of these documents and no longer worked on.
pub(in crate::knowledge) async fn drop_staged(
    app: &App,
    context: &JobContext,
    documents: &[DocumentId],
) -> Result<()> {
    let tenant_id = context.tenant()?;
    for id in documents {
        while drop_some(app, tenant_id, *id).await? {}
    }
    Ok(())
}

/// Whether there may be more.
async fn drop_some(app: &App, tenant_id: TenantId, id: DocumentId) -> Result<bool> {
    let mut write = app.db.write(tenant_id).await?;
    // While it is held, nobody begins to work on it.
    let Some(holder) = staging::hold(&mut write, tenant_id, id).await? else {
        return Ok(false);
    };
    let dropped = staging::drop_left_behind(&mut write, tenant_id, &holder).await?;
    if !holder.was_indexed {
        staging::drop_waiting(&mut write, tenant_id, &dropped).await?;
    }
    let is_last = dropped.len() < staging::MOVED_AT_ONCE;
    if is_last {
        staging::drop_left_text(&mut write, tenant_id, &holder).await?;
        if holder.is_given_up && !holder.was_indexed {
            // Also what the last attempt put into the index and did not live to stage.
            let ids = vec![retrieval::DocumentId(id.0)];
            remove_documents(app, tenant_id, ids).await?;
        }
    }
    remove_chunks_later(app, &mut write, tenant_id, &dropped).await?;
    write.commit().await?;
    app.wake_workers();
    Ok(!is_last)
}
