//! What an attempt has put into the index in vain: its document was deleted, changed or replaced meanwhile, or could not be indexed
//! after all. Others may have put theirs in before it.

use std::collections::HashSet;

use super::{EMBEDDED_AT_ONCE, Work};
use crate::app::App;
use crate::db::Write;
use crate::error::Result;
use crate::id::{ChunkId, TenantId};
use crate::jobs;
use crate::knowledge::jobs::PutBackChunks;
use crate::knowledge::{index_changes, labels, store};

/// Queues what undoes that an attempt has put the chunks `put` of a document in, which shows those in `shown`: what it shows comes
/// back as its rows say, what it does not show goes, and the index is told what rows say of the document. It keeps that by
/// document, and has it as this attempt said; of a deleted one all goes. Where the index lies in the database of the rows, nothing is in without these.
pub(super) async fn undo_later(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    work: &Work,
    put: Vec<ChunkId>,
    shown: &HashSet<ChunkId>,
) -> Result<()> {
    let (overwritten, gone): (Vec<ChunkId>, Vec<ChunkId>) =
        put.into_iter().partition(|id| shown.contains(id));
    let is_nothing_in = work.space.index_with_rows().is_some();
    if is_nothing_in || (overwritten.is_empty() && gone.is_empty()) {
        return Ok(());
    }
    let document = [work.id];
    let kept = store::list_existing_documents(write, (tenant_id, None), &document).await?;
    if kept.is_empty() {
        // With what was said of it.
        return index_changes::remove_documents(app, write, tenant_id, &document, Vec::new()).await;
    }
    index_changes::remove_chunks(app, write, tenant_id, &gone).await?;
    for group in overwritten.chunks(EMBEDDED_AT_ONCE) {
        let back = PutBackChunks {
            chunk_ids: group.to_vec(),
        };
        jobs::enqueue(app, write, tenant_id, &back).await?;
    }
    labels::tell_again(app, write, tenant_id, work.id).await
}
