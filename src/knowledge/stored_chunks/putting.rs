//! Puts chunks that have rows into an index, and sees to it that what it holds is what the rows say when it has them.

use std::collections::HashMap;

use retrieval::index::{Facets, Point};

use super::{StoredChunk, list_any, list_held};
use crate::app::{App, Space};
use crate::db::Conn;
use crate::error::Result;
use crate::generations;
use crate::id::{ChunkId, DocumentId, TenantId};
use crate::knowledge::indexing::{EMBEDDED_AT_ONCE, Payer, embed};
use crate::knowledge::{cuts, index_changes, labels, store};

/// How often points are put in whose documents were being written in another order.
const PUT_TRIES: usize = 5;

/// Embeds chunks with the model of `space` and puts them into its index, whether or not it holds them already. What changes
/// meanwhile is put in as it is then.
pub async fn put(app: &App, tenant_id: TenantId, space: &Space, chunks: Vec<StoredChunk>) -> Result<()> {
    let mut left = chunks;
    while !left.is_empty() {
        let mut changed = Vec::new();
        for group in left.chunk_by(|one, next| one.chatbot_id == next.chatbot_id) {
            for part in group.chunks(EMBEDDED_AT_ONCE) {
                let payer = Payer {
                    tenant_id,
                    chatbot_id: part[0].chatbot_id,
                    run_id: None,
                };
                let points = embed_points(app, payer, space, part).await?;
                changed.extend(put_points(app, tenant_id, space, part, points).await?);
            }
        }
        left = changed;
    }
    Ok(())
}

async fn embed_points(app: &App, payer: Payer, space: &Space, group: &[StoredChunk]) -> Result<Vec<Point>> {
    let vectors = match &space.model {
        Some(_) => {
            let texts = group.iter().map(|chunk| chunk.embedding_text.clone()).collect();
            let estimate = group.iter().map(|chunk| chunk.token_count).sum();
            let vectors = embed(app, space, payer, texts, estimate).await?;
            vectors.into_iter().map(Some).collect()
        }
        None => vec![None; group.len()],
    };
    let points = group
        .iter()
        .zip(vectors)
        .map(|(chunk, vector)| chunk.point(vector));
    app.disk.check_room()?;
    Ok(points.collect())
}

/// Puts in the points of a group. Returns those of its chunks that have other words now.
async fn put_points(
    app: &App,
    tenant_id: TenantId,
    space: &Space,
    group: &[StoredChunk],
    points: Vec<Point>,
) -> Result<Vec<StoredChunk>> {
    if space.index_with_rows().is_none() {
        let stored = space.index.upsert(retrieval::TenantId(tenant_id.0), points);
        stored.await?;
        return keep_true(app, tenant_id, space, group).await;
    }
    for _ in 1..PUT_TRIES {
        match put_with_rows(app, tenant_id, space, group, points.clone()).await {
            Err(error) if error.is_deadlock() => {}
            done => return done,
        }
    }
    put_with_rows(app, tenant_id, space, group, points).await
}

/// Puts in the points of those chunks that are as they were when they were embedded, and has them stay so until the points are
/// in. Returns those that have other words now.
async fn put_with_rows(
    app: &App,
    tenant_id: TenantId,
    space: &Space,
    group: &[StoredChunk],
    points: Vec<Point>,
) -> Result<Vec<StoredChunk>> {
    let mut write = app.db.write(tenant_id).await?;
    let mut documents: Vec<DocumentId> = group.iter().map(|chunk| chunk.document_id).collect();
    documents.sort_unstable();
    documents.dedup();
    cuts::hold(&mut write, tenant_id, &documents).await?;
    generations::share(&mut write, tenant_id).await?;
    if !generations::is_open(&mut write, tenant_id, space).await? {
        return Ok(Vec::new());
    }
    let ids: Vec<ChunkId> = group.iter().map(|chunk| chunk.id).collect();
    let mut now = list_held(&mut write, tenant_id, &ids).await?;
    let (mut true_points, mut changed) = (Vec::with_capacity(points.len()), Vec::new());
    for (chunk, mut point) in group.iter().zip(points) {
        match now.remove(&chunk.id) {
            Some(present) if present.embedding_text == chunk.embedding_text => {
                point.facets = present.facets;
                true_points.push(point);
            }
            Some(present) => changed.push(present),
            None => {}
        }
    }
    index_changes::put(&mut write, tenant_id, space, true_points);
    write.commit().await?;
    Ok(changed)
}

/// Looks at the rows once more when chunks are in: what was deleted while they were embedded, or is not wanted in this space
/// any more, must not come back, and what is said of a document since then holds. Returns those whose words are others now, or of another language.
async fn keep_true(
    app: &App,
    tenant_id: TenantId,
    space: &Space,
    group: &[StoredChunk],
) -> Result<Vec<StoredChunk>> {
    let tenant = retrieval::TenantId(tenant_id.0);
    let ids: Vec<ChunkId> = group.iter().map(|chunk| chunk.id).collect();
    let mut conn = app.db.read(tenant_id).await?;
    let mut now = match generations::is_open(&mut conn, tenant_id, space).await? {
        // What another version took the place of goes with its rows.
        true => list_any(&mut conn, tenant_id, &ids).await?,
        false => HashMap::new(),
    };
    let deleted = list_deleted_documents(&mut conn, tenant_id, group, &now).await?;
    drop(conn);
    let (mut gone, mut changed) = (Vec::new(), Vec::new());
    let mut said: HashMap<DocumentId, Facets> = HashMap::new();
    for chunk in group {
        let Some(present) = now.remove(&chunk.id) else {
            gone.push(retrieval::ChunkId(chunk.id.0));
            continue;
        };
        if present.facets != chunk.facets {
            said.insert(present.document_id, present.facets.clone());
        }
        // Words are weighed by the rules of the language.
        let has_other_words = present.embedding_text != chunk.embedding_text
            || present.facets.language != chunk.facets.language;
        if has_other_words {
            changed.push(present);
        }
    }
    if !said.is_empty() {
        set_facets(app, tenant_id, space, said).await?;
    }
    if !gone.is_empty() {
        space.index.delete_chunks(tenant, gone).await?;
    }
    if !deleted.is_empty() {
        // What is said of a document goes with the document alone.
        space.index.delete_documents(tenant, deleted).await?;
    }
    Ok(changed)
}

/// The documents of this group that have no row any more, where chunks are not among those that are there `now`.
async fn list_deleted_documents(
    conn: &mut Conn,
    tenant_id: TenantId,
    group: &[StoredChunk],
    now: &HashMap<ChunkId, StoredChunk>,
) -> Result<Vec<retrieval::DocumentId>> {
    let lacking = group.iter().filter(|chunk| !now.contains_key(&chunk.id));
    let mut documents: Vec<DocumentId> = lacking.map(|chunk| chunk.document_id).collect();
    documents.sort_unstable();
    documents.dedup();
    let kept = store::list_existing_documents(conn, (tenant_id, None), &documents).await?;
    documents.retain(|id| !kept.contains(id));
    Ok(documents.iter().map(|id| retrieval::DocumentId(id.0)).collect())
}

/// Tells the index of `space` what is said of documents, and queues that it is told once more: another change may have come before
/// this.
async fn set_facets(
    app: &App,
    tenant_id: TenantId,
    space: &Space,
    said: HashMap<DocumentId, Facets>,
) -> Result<()> {
    let ids: Vec<DocumentId> = said.keys().copied().collect();
    let said = said
        .into_iter()
        .map(|(id, facets)| (retrieval::DocumentId(id.0), facets));
    space
        .index
        .set_facets(retrieval::TenantId(tenant_id.0), said.collect())
        .await?;
    let mut write = app.db.write(tenant_id).await?;
    labels::tell_later(app, &mut write, tenant_id, &ids).await?;
    write.commit().await?;
    app.wake_workers();
    Ok(())
}
