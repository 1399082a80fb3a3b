//! Vectors for chunks, bought within the budget, booked, and stored in the index.

use std::time::{Duration, Instant};

use retrieval::embed::estimate_tokens;
use retrieval::index::Point;

use super::Work;
use super::store;
use crate::app::{App, Space};
use crate::error::{Error, Result};
use crate::id::{ChatbotId, SyncRunId, TenantId};
use crate::knowledge::cut::{CutChunk, as_i64};
use crate::knowledge::search::{embed_error, index_error};
use crate::usage::{self, UsageEvent};

/// Chunks that are embedded and stored in the index at once.
pub(in crate::knowledge) const EMBEDDED_AT_ONCE: usize = 256;

/// When a model that cannot be loaded is tried again.
const NO_MODEL_RETRY: Duration = Duration::from_secs(600);

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
    let Some((first, _)) = group.first() else {
        return Ok(());
    };
    let space = &first.space;
    let vectors = match &space.model {
        Some(_) => {
            let texts = group
                .iter()
                .map(|(_, chunk)| chunk.embedding_text.clone())
                .collect();
            let estimate = group.iter().map(|(_, chunk)| estimate_of(chunk)).sum();
            embed(app, space, payer, texts, estimate)
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
    space
        .index
        .upsert(retrieval::TenantId(payer.tenant_id.0), points)
        .await
        .map_err(index_error)
}

/// Embeds texts of about `estimate` tokens with the model of `space`, within the tenant's budget, and books it.
pub(in crate::knowledge) async fn embed(
    app: &App,
    space: &Space,
    payer: Payer,
    texts: Vec<String>,
    estimate: i64,
) -> Result<Vec<Vec<f32>>> {
    let embedder = space.embedder.as_deref().ok_or_else(|| Error::Unavailable {
        code: "embedding_unavailable",
        message: "the embedding model that answers this tenant cannot be loaded any more: it goes on when its new generation is live".into(),
        retry_after: NO_MODEL_RETRY,
        source: None,
    })?;
    let holders = (payer.tenant_id, payer.chatbot_id);
    let mut expected = UsageEvent::embedding(
        app,
        space,
        holders,
        CHANNEL,
        estimate.unsigned_abs(),
        false,
        Duration::ZERO,
    );
    expected.estimated = true;
    let mut write = app.db.write(payer.tenant_id).await?;
    let limits = usage::load_limits(&mut write, payer.tenant_id, payer.chatbot_id).await?;
    usage::check_embedding_priced(app, space, &limits)?;
    let reservation = usage::reserve(
        &mut write,
        &limits,
        holders,
        expected.spend(),
        if space.is_remote {
            vec![expected]
        } else {
            Vec::new()
        },
        app.clock.now(),
    )
    .await?;
    write.commit().await?;

    let started = Instant::now();
    let answered = embedder.embed_documents(texts).await;
    // Some requests of a bulk may have been answered before one failed: they are paid for as well.
    let (tokens, reported) = match &answered {
        Ok(embeddings) => (embeddings.tokens, embeddings.reported),
        Err(error) => error.spent(),
    };
    let event = UsageEvent::embedding(app, space, holders, CHANNEL, tokens, reported, started.elapsed());
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
