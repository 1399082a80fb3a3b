//! Vectors for chunks, bought within the budget, booked, and stored in the index.

use std::time::{Duration, Instant};

use retrieval::embed::{Embedder, estimate_tokens};
use retrieval::index::Point;

use super::Work;
use super::store;
use crate::app::App;
use crate::error::Result;
use crate::id::{ChatbotId, SyncRunId, TenantId};
use crate::knowledge::cut::{CutChunk, as_i64};
use crate::knowledge::search::{embed_error, index_error};
use crate::usage::{self, UsageEvent};

/// Chunks that are embedded and stored in the index at once.
pub(super) const EMBEDDED_AT_ONCE: usize = 256;

/// What the ledger says where no conversation is involved.
pub(super) const CHANNEL: &str = "ingest";

/// For whom chunks are embedded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::knowledge) struct Payer {
    pub tenant_id: TenantId,
    pub chatbot_id: ChatbotId,
    /// The run that counts the calls.
    pub run_id: Option<SyncRunId>,
}

/// Embeds chunks that the index does not hold yet, of one payer, and stores them there; at most
/// [`EMBEDDED_AT_ONCE`]. The old version stays answerable.
pub(super) async fn add_to_index(app: &App, payer: Payer, group: &[(&Work, &CutChunk)]) -> Result<()> {
    let vectors = match app.embedder.as_deref() {
        Some(embedder) => {
            let chunks: Vec<&CutChunk> = group.iter().map(|(_, chunk)| *chunk).collect();
            embed(app, embedder, payer, &chunks)
                .await?
                .into_iter()
                .map(Some)
                .collect()
        }
        None => vec![None; group.len()],
    };
    let points = group
        .iter()
        .zip(vectors)
        .map(|((work, chunk), vector)| Point {
            chunk_id: retrieval::ChunkId(chunk.row.id.0),
            document_id: retrieval::DocumentId(work.id.0),
            source_id: retrieval::SourceId(work.source_id.0),
            text: chunk.embedding_text.clone(),
            vector,
            facets: work.facets.clone(),
        })
        .collect();
    app.disk.check_room()?;
    app.index
        .upsert(retrieval::TenantId(payer.tenant_id.0), points)
        .await
        .map_err(index_error)
}

/// Embeds one group of chunks within the tenant's budget, and books it.
async fn embed(
    app: &App,
    embedder: &dyn Embedder,
    payer: Payer,
    group: &[&CutChunk],
) -> Result<Vec<Vec<f32>>> {
    let estimate: i64 = group.iter().map(|chunk| estimate_of(chunk)).sum();
    let holders = (payer.tenant_id, payer.chatbot_id);
    let mut expected = UsageEvent::embedding(
        app,
        holders,
        CHANNEL,
        estimate.unsigned_abs(),
        false,
        Duration::ZERO,
    );
    expected.estimated = true;
    let mut write = app.db.write(payer.tenant_id).await?;
    let limits = usage::load_limits(&mut write, payer.tenant_id, payer.chatbot_id).await?;
    usage::check_embedding_priced(app, &limits)?;
    let reservation = usage::reserve(
        &mut write,
        &limits,
        holders,
        expected.spend(),
        if app.embeds_remotely() {
            vec![expected]
        } else {
            Vec::new()
        },
        app.clock.now(),
    )
    .await?;
    write.commit().await?;

    let started = Instant::now();
    let texts = group.iter().map(|chunk| chunk.embedding_text.clone()).collect();
    let answered = embedder.embed_documents(texts).await;
    // Some requests of a bulk may have been answered before one failed: they are paid for as well.
    let (tokens, reported) = match &answered {
        Ok(embeddings) => (embeddings.tokens, embeddings.reported),
        Err(error) => error.spent(),
    };
    let event = UsageEvent::embedding(app, holders, CHANNEL, tokens, reported, started.elapsed());
    let events: &[UsageEvent] = if answered.is_ok() || tokens > 0 {
        &[event]
    } else {
        &[]
    };
    let mut write = app.db.write(payer.tenant_id).await?;
    usage::settle(
        &mut write,
        payer.tenant_id,
        payer.chatbot_id,
        reservation,
        events,
        app.clock.now(),
    )
    .await?;
    if let Some(run_id) = payer.run_id.filter(|_| !events.is_empty()) {
        store::count_embedding_call(&mut write, payer.tenant_id, run_id).await?;
    }
    write.commit().await?;
    answered.map(|embeddings| embeddings.vectors).map_err(embed_error)
}

fn estimate_of(chunk: &CutChunk) -> i64 {
    let heading = chunk.row.heading.as_deref().map_or(0, estimate_tokens);
    chunk.row.token_count + as_i64(heading)
}
