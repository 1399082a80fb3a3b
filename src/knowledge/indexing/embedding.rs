//! Vectors for chunks, bought within the budget, booked, and stored in the index.

use std::time::Instant;

use retrieval::embed::{Embedder, Embeddings, estimate_tokens};
use retrieval::index::{Facets, Point};

use super::Work;
use super::store;
use crate::app::App;
use crate::error::Result;
use crate::id::{ChatbotId, SyncRunId, TenantId, UsageEventId};
use crate::knowledge::cut::{CutChunk, as_i64};
use crate::knowledge::search::{embed_error, index_error};
use crate::usage::{self, Spend, UsageEvent, UsageKind};

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
            facets: Facets::default(),
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
    let spend = Spend {
        tokens: if app.embeds_remotely() { estimate } else { 0 },
        micro_usd: app
            .prices
            .embedding_cost_micro_usd(embedder.model_id(), estimate.unsigned_abs()),
    };
    let mut write = app.db.write(payer.tenant_id).await?;
    let limits = usage::load_limits(&mut write, payer.tenant_id, payer.chatbot_id).await?;
    usage::check_embedding_priced(app, &limits)?;
    let reservation = usage::reserve(
        &mut write,
        &limits,
        payer.tenant_id,
        payer.chatbot_id,
        spend,
        app.clock.now(),
    )
    .await?;
    write.commit().await?;

    let started = Instant::now();
    let texts = group.iter().map(|chunk| chunk.embedding_text.clone()).collect();
    let embeddings = match embedder.embed_documents(texts).await {
        Ok(embeddings) => embeddings,
        Err(error) => {
            if let Some(reservation) = reservation {
                usage::release(&app.db, reservation).await?;
            }
            return Err(embed_error(error));
        }
    };
    let event = event_of(app, embedder, payer, &embeddings, started);
    let mut write = app.db.write(payer.tenant_id).await?;
    usage::settle(
        &mut write,
        payer.tenant_id,
        payer.chatbot_id,
        reservation,
        &[event],
        app.clock.now(),
    )
    .await?;
    if let Some(run_id) = payer.run_id {
        store::count_embedding_call(&mut write, payer.tenant_id, run_id).await?;
    }
    write.commit().await?;
    Ok(embeddings.vectors)
}

fn estimate_of(chunk: &CutChunk) -> i64 {
    let heading = chunk.row.heading.as_deref().map_or(0, estimate_tokens);
    chunk.row.token_count + as_i64(heading)
}

fn event_of(
    app: &App,
    embedder: &dyn Embedder,
    payer: Payer,
    embeddings: &Embeddings,
    started: Instant,
) -> UsageEvent {
    let model = embedder.model_id().to_owned();
    UsageEvent {
        id: UsageEventId::new(),
        tenant_id: payer.tenant_id,
        chatbot_id: Some(payer.chatbot_id),
        conversation_id: None,
        message_id: None,
        channel: CHANNEL.to_owned(),
        kind: UsageKind::Embedding,
        cost_micro_usd: app.prices.embedding_cost_micro_usd(&model, embeddings.tokens),
        model,
        prompt_tokens: 0,
        completion_tokens: 0,
        cached_tokens: 0,
        embedding_tokens: i64::try_from(embeddings.tokens).unwrap_or(i64::MAX),
        audio_seconds: 0,
        local: !app.embeds_remotely(),
        price_book_version: app.prices.version().to_owned(),
        reported: embeddings.reported,
        latency_ms: i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX),
        created_at: app.clock.now(),
    }
}
