//! Versions that were brought in in vain, or that another one took the place of, go bit by bit: rows first, then what the index
//! holds of them.

use super::staging::{self, MOVED_AT_ONCE, Version};
use crate::app::App;
use crate::db::Write;
use crate::error::Result;
use crate::id::{ChunkId, DocumentId, TenantId};
use crate::jobs::{self, JobContext};
use crate::knowledge::index_changes;
use crate::knowledge::jobs::DropStaged;
use crate::knowledge::store::list_existing_chunks;

/// Queues the dropping of versions of these documents that are not shown and that nobody works on, if there are any.
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
    jobs::enqueue(app, write, tenant_id, &DropStaged::of(documents)).await
}

/// Drops the versions of these documents that are not shown and that nobody works on.
pub(in crate::knowledge) async fn drop_staged(
    app: &App,
    context: &JobContext,
    documents: &[DocumentId],
) -> Result<()> {
    let tenant_id = context.tenant()?;
    for id in documents {
        let mut dropping = Dropping {
            app,
            tenant_id,
            id: *id,
            reached: None,
        };
        while dropping.drop_some().await? {}
    }
    Ok(())
}

/// A document of which something is dropped.
struct Dropping<'a> {
    app: &'a App,
    tenant_id: TenantId,
    id: DocumentId,
    /// This version has no chunks before this position any more.
    reached: Option<(Version, i64)>,
}

impl Dropping<'_> {
    /// Whether there may be more.
    async fn drop_some(&mut self) -> Result<bool> {
        let (app, tenant_id) = (self.app, self.tenant_id);
        let mut write = app.db.write(tenant_id).await?;
        // While it is held, nobody begins to work on it.
        let Some(holder) = staging::hold(&mut write, tenant_id, self.id).await? else {
            return Ok(false);
        };
        let left = staging::find_left_behind(&mut write, tenant_id, &holder).await?;
        let may_be_more = if let Some(version) = left {
            let from = self.reached.filter(|(of, _)| *of == version);
            let from = from.map_or(0, |(_, position)| position);
            let next = delete_some(app, &mut write, tenant_id, version, from).await?;
            if next.is_none() {
                staging::delete(&mut write, tenant_id, version).await?;
            }
            self.reached = next.map(|next| (version, next));
            true
        } else {
            staging::delete_left_text(&mut write, tenant_id, &holder).await?
        };
        write.commit().await?;
        app.wake_workers();
        Ok(may_be_more)
    }
}

/// Deletes some chunks of a version, from the indexes those that no other version has; the position from which on there may be
/// more, if there may.
pub(super) async fn delete_some(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    version: Version,
    from: i64,
) -> Result<Option<i64>> {
    let deleted = staging::delete_chunks(write, tenant_id, version, from).await?;
    let ids: Vec<ChunkId> = deleted.iter().map(|(id, _)| *id).collect();
    let kept = list_existing_chunks(write, tenant_id, &ids).await?;
    let gone: Vec<ChunkId> = ids.into_iter().filter(|id| !kept.contains(id)).collect();
    index_changes::remove_chunks(app, write, tenant_id, &gone).await?;
    let last = deleted.iter().map(|(_, position)| *position).max();
    Ok(last
        .filter(|_| deleted.len() == MOVED_AT_ONCE)
        .map(|last| last + 1))
}
