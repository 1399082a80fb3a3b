//! What changes of rows mean to the indexes. Where an index lies in the database of the rows, it is changed by the transaction
//! that changes these: both hold, or neither does. Others follow by a job of the transaction.

use std::collections::HashSet;
use std::sync::Arc;

use retrieval::index::{Facets, IndexChange, Point};

use super::jobs::RemoveDocuments;
use super::store;
use super::stored_chunks::{self, StoredChunk};
use crate::app::{App, Space};
use crate::db::Write;
use crate::error::Result;
use crate::id::{ChunkId, DocumentId, TenantId};
use crate::{generations, jobs};

/// Chunk ids that one removal job names.
const REMOVED_CHUNKS_AT_ONCE: usize = 5_000;

/// Points that one transaction gives other facets: those of a large tenant go into its graph again, some milliseconds each.
pub(super) const TOLD_AT_ONCE: i64 = 500;

/// The spaces that hold chunks of this tenant, where the indexes of all of them are changed by transactions of rows, and are those that
/// documents are put into.
pub(super) async fn spaces_with_rows(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
) -> Result<Option<Vec<Arc<Space>>>> {
    if !app.config.index_is_with_rows() {
        return Ok(None);
    }
    let spaces = generations::list_spaces_for_index(app, write, tenant_id).await?;
    let are_all = |spaces: &Vec<Arc<Space>>| spaces.iter().all(|space| space.index_with_rows().is_some());
    Ok(spaces.filter(are_all))
}

/// Puts points of chunks in whose rows this transaction writes.
pub(super) fn put(write: &mut Write, tenant_id: TenantId, space: &Space, points: Vec<Point>) {
    if let Some(index) = space.index_with_rows().filter(|_| !points.is_empty()) {
        write.change_index(tenant_id, index, IndexChange::Upsert(points));
    }
}

/// Puts a chunk in whose row this transaction writes, to be found by its words until it is embedded.
pub(super) async fn put_words(app: &App, write: &mut Write, tenant_id: TenantId, id: ChunkId) -> Result<()> {
    let Some(spaces) = spaces_with_rows(app, write, tenant_id).await? else {
        return Ok(());
    };
    let chunks = stored_chunks::list_these(write, tenant_id, &[id]).await?;
    let points: Vec<Point> = chunks.values().map(StoredChunk::words).collect();
    for space in spaces {
        put(write, tenant_id, &space, points.clone());
    }
    Ok(())
}

/// Gives documents other facets in spaces of [`spaces_with_rows`].
pub(super) fn set_facets(
    write: &mut Write,
    tenant_id: TenantId,
    spaces: &[Arc<Space>],
    facets: &[(retrieval::DocumentId, Facets)],
) {
    if !facets.is_empty() {
        change_all(write, tenant_id, spaces, &IndexChange::SetFacets(facets.to_vec()));
    }
}

/// Removes chunks whose rows this transaction has deleted. Those that have rows by then stay, or come back.
pub(crate) async fn remove_chunks(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    ids: &[ChunkId],
) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    if let Some(spaces) = spaces_with_rows(app, write, tenant_id).await? {
        let kept = store::list_existing_chunks(write, tenant_id, ids).await?;
        let gone = ids.iter().filter(|id| !kept.contains(id));
        let gone: Vec<_> = gone.map(|id| retrieval::ChunkId(id.0)).collect();
        if !gone.is_empty() {
            change_all(write, tenant_id, &spaces, &IndexChange::DeleteChunks(gone));
        }
        return Ok(());
    }
    for group in ids.chunks(REMOVED_CHUNKS_AT_ONCE) {
        let cleaning = RemoveDocuments {
            document_ids: Vec::new(),
            chunk_ids: group.to_vec(),
            file_keys: Vec::new(),
        };
        jobs::enqueue(app, write, tenant_id, &cleaning).await?;
    }
    Ok(())
}

/// Removes documents whose rows this transaction has deleted, with their files. What is hidden goes with its rows.
pub(super) async fn remove_documents(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    ids: &[DocumentId],
    file_keys: Vec<String>,
) -> Result<()> {
    let document_ids = left_to_a_job(app, write, tenant_id, ids).await?;
    if document_ids.is_empty() && file_keys.is_empty() {
        return Ok(());
    }
    let cleaning = RemoveDocuments {
        document_ids,
        chunk_ids: Vec::new(),
        file_keys,
    };
    jobs::enqueue(app, write, tenant_id, &cleaning).await
}

/// Removes what may be left of documents without rows, unless a job of this key waits to do so.
pub(super) async fn remove_leftovers(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    ids: &[DocumentId],
    unique_key: &str,
) -> Result<()> {
    let document_ids = left_to_a_job(app, write, tenant_id, ids).await?;
    if document_ids.is_empty() {
        return Ok(());
    }
    let cleaning = RemoveDocuments {
        document_ids,
        chunk_ids: Vec::new(),
        file_keys: Vec::new(),
    };
    jobs::enqueue_once(app, write, tenant_id, &cleaning, unique_key, app.clock.now()).await
}

/// Those of these documents that have to be removed from indexes by a job. From one in the database of the rows this transaction removes
/// them.
async fn left_to_a_job(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    ids: &[DocumentId],
) -> Result<Vec<DocumentId>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let Some(spaces) = spaces_with_rows(app, write, tenant_id).await? else {
        return Ok(ids.to_vec());
    };
    let kept = store::list_existing_documents(write, (tenant_id, None), ids).await?;
    delete_documents(write, tenant_id, &spaces, ids, &kept);
    Ok(Vec::new())
}

/// Removes from an index in the database of the rows what it holds of documents without rows.
pub(super) async fn remove_gone(
    app: &App,
    tenant_id: TenantId,
    space: &Arc<Space>,
    ids: &[DocumentId],
) -> Result<()> {
    let mut write = app.db.write(tenant_id).await?;
    let kept = store::list_existing_documents(&mut write, (tenant_id, None), ids).await?;
    delete_documents(&mut write, tenant_id, std::slice::from_ref(space), ids, &kept);
    write.commit().await
}

fn delete_documents(
    write: &mut Write,
    tenant_id: TenantId,
    spaces: &[Arc<Space>],
    ids: &[DocumentId],
    kept: &HashSet<DocumentId>,
) {
    let gone = ids.iter().filter(|id| !kept.contains(id));
    let gone: Vec<_> = gone.map(|id| retrieval::DocumentId(id.0)).collect();
    if !gone.is_empty() {
        change_all(write, tenant_id, spaces, &IndexChange::DeleteDocuments(gone));
    }
}

fn change_all(write: &mut Write, tenant_id: TenantId, spaces: &[Arc<Space>], change: &IndexChange) {
    for index in spaces.iter().filter_map(|space| space.index_with_rows()) {
        write.change_index(tenant_id, index, change.clone());
    }
}
