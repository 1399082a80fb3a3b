//! Background work on documents: indexing one, and removing what was deleted from index and files.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use ingest::{ExtractError, ExtractedDocument, Format, Hints};
use retrieval::embed::{Embedder, estimate_tokens};
use retrieval::index::Point;
use serde::{Deserialize, Serialize};

use super::chunks::{CutChunk, PresentChunks, as_i64, cut};
use super::search::{embed_error, index_error};
use super::store::{self, ChunkRow, Indexed};
use super::{Document, DocumentState};
use crate::app::App;
use crate::db::Write;
use crate::error::{Error, Result};
use crate::http::access::Reach;
use crate::id::{ChunkId, DocumentId, TenantId, UsageEventId};
use crate::jobs::{self, Job, JobContext, Outcome, Priority};
use crate::usage::{self, Spend, UsageEvent, UsageKind};

/// Documents that one removal job names.
pub(super) const REMOVED_AT_ONCE: usize = 500;

/// Chunks that are embedded and stored in the index at once.
const EMBEDDED_AT_ONCE: usize = 256;

/// A reader that died on a document gets one more try: it may have been the machine.
const READ_ATTEMPTS: i64 = 2;

/// What the ledger says where no conversation is involved.
const CHANNEL: &str = "ingest";

/// What a document failed with when its job was given up; trying the job again tries the document again.
const INDEXING_FAILED: &str = "indexing_failed";

/// Reads, cuts, embeds and indexes one version of a document.
#[derive(Debug, Serialize, Deserialize)]
pub struct IndexDocument {
    pub document_id: DocumentId,
    /// The version: each upload has a file of its own. A newer one has a job of its own.
    pub file_key: String,
}

impl Job for IndexDocument {
    const KIND: &'static str = "index_document";
    const PRIORITY: Priority = Priority::Normal;
    const TIMEOUT: Duration = Duration::from_secs(30 * 60);

    async fn run(self, app: App, context: JobContext) -> Outcome {
        index(&app, &context, self.document_id, &self.file_key)
            .await
            .into()
    }

    fn on_failed<'a>(
        self,
        write: &'a mut Write,
        tenant_id: Option<TenantId>,
        reason: &'a str,
        now: DateTime<Utc>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let Some(tenant_id) = tenant_id else { return Ok(()) };
            let message = format!("Indexing failed: {reason}. Upload the file again to retry.");
            let state = DocumentState::Failed {
                code: INDEXING_FAILED.to_owned(),
                message,
            };
            store::set_state(write, tenant_id, self.document_id, &self.file_key, &state, now)
                .await
                .map(drop)
        })
    }
}

/// Removes from the index and from the files what rows no longer name.
#[derive(Debug, Serialize, Deserialize)]
pub struct RemoveDocuments {
    pub document_ids: Vec<DocumentId>,
    pub chunk_ids: Vec<ChunkId>,
    pub file_keys: Vec<String>,
}

impl Job for RemoveDocuments {
    const KIND: &'static str = "remove_documents";
    const PRIORITY: Priority = Priority::Normal;
    const TIMEOUT: Duration = Duration::from_secs(10 * 60);

    async fn run(self, app: App, context: JobContext) -> Outcome {
        remove(&app, &context, self).await.into()
    }
}

async fn remove(app: &App, context: &JobContext, job: RemoveDocuments) -> Result<()> {
    let tenant_id = retrieval::TenantId(context.tenant()?.0);
    if !job.document_ids.is_empty() {
        let ids = job
            .document_ids
            .iter()
            .map(|id| retrieval::DocumentId(id.0))
            .collect();
        app.index
            .delete_documents(tenant_id, ids)
            .await
            .map_err(index_error)?;
    }
    if !job.chunk_ids.is_empty() {
        let existing = store::list_existing_chunks(
            &mut app.db.read(context.tenant()?).await?,
            context.tenant()?,
            &job.chunk_ids,
        )
        .await?;
        let ids = job
            .chunk_ids
            .iter()
            .filter(|id| !existing.contains(id))
            .map(|id| retrieval::ChunkId(id.0))
            .collect();
        app.index
            .delete_chunks(tenant_id, ids)
            .await
            .map_err(index_error)?;
    }
    for key in &job.file_keys {
        app.files.remove(key).await?;
    }
    Ok(())
}

async fn index(app: &App, context: &JobContext, id: DocumentId, file_key: &str) -> Result<()> {
    let tenant_id = context.tenant()?;
    let Some(document) = begin(app, tenant_id, id, file_key).await? else {
        return Ok(());
    };
    let extracted = match read(app, &document).await {
        Ok(extracted) => extracted,
        Err(ExtractError::Crashed) if context.attempt < READ_ATTEMPTS => {
            return Err(Error::internal("the reader died on the document"));
        }
        Err(error) => return fail(app, tenant_id, &document, error.code(), &error.to_string()).await,
    };
    let title = extracted
        .title
        .clone()
        .filter(|title| !title.trim().is_empty())
        .unwrap_or_else(|| document.file_name.clone());
    let present = PresentChunks::load(app, tenant_id, document.id).await?;
    let mut chunks = cut(app, &title, extracted.clone()).await?;
    if chunks.is_empty() {
        let error = ExtractError::NoText { scanned: false };
        return fail(app, tenant_id, &document, error.code(), &error.to_string()).await;
    }
    present.name(&document, &mut chunks);
    match embed_new(app, tenant_id, &document, &present, &chunks).await {
        Ok(()) => finish(app, tenant_id, &document, &title, &extracted, chunks).await,
        Err(Error::BudgetExceeded { code, message }) => {
            let in_vain = chunks.iter().map(|chunk| chunk.row.id).collect();
            let mut write = app.db.write(tenant_id).await?;
            remove_chunks_later(app, &mut write, tenant_id, in_vain).await?;
            write.commit().await?;
            fail(app, tenant_id, &document, code, &message).await?;
            let refusal = Error::BudgetExceeded { code, message };
            usage::tell_owner_of_refusal(app, tenant_id, document.chatbot_id, refusal).await;
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Marks the document as processing; none when this version of it is gone or needs no work.
async fn begin(app: &App, tenant_id: TenantId, id: DocumentId, file_key: &str) -> Result<Option<Document>> {
    let mut write = app.db.write(tenant_id).await?;
    let Some(document) = store::find(&mut write, Reach::whole(tenant_id), id).await? else {
        drop(write);
        // An attempt that died after the document was deleted may have left chunks in the index.
        app.index
            .delete_documents(
                retrieval::TenantId(tenant_id.0),
                vec![retrieval::DocumentId(id.0)],
            )
            .await
            .map_err(index_error)?;
        return Ok(None);
    };
    let needs_work = match &document.state {
        DocumentState::Queued | DocumentState::Processing => true,
        DocumentState::Failed { code, .. } => code == INDEXING_FAILED,
        DocumentState::Indexed => false,
    };
    if document.file_key != file_key || !needs_work {
        return Ok(None);
    }
    store::set_state(
        &mut write,
        tenant_id,
        id,
        file_key,
        &DocumentState::Processing,
        app.clock.now(),
    )
    .await?;
    write.commit().await?;
    Ok(Some(document))
}

async fn read(app: &App, document: &Document) -> std::result::Result<ExtractedDocument, ExtractError> {
    let format = Format::ALL
        .into_iter()
        .find(|format| format.as_str() == document.format)
        .ok_or(ExtractError::UnsupportedType { found: None })?;
    let path = app
        .files
        .path(&document.file_key)
        .map_err(|_| ExtractError::Crashed)?;
    app.extractor
        .extract(&path, format, &Hints::named(&document.file_name))
        .await
}

async fn fail(app: &App, tenant_id: TenantId, document: &Document, code: &str, message: &str) -> Result<()> {
    let state = DocumentState::Failed {
        code: code.to_owned(),
        message: message.to_owned(),
    };
    let mut write = app.db.write(tenant_id).await?;
    store::set_state(
        &mut write,
        tenant_id,
        document.id,
        &document.file_key,
        &state,
        app.clock.now(),
    )
    .await?;
    write.commit().await
}

/// Embeds the chunks that the index does not hold yet and stores them there. The old version stays answerable.
async fn embed_new(
    app: &App,
    tenant_id: TenantId,
    document: &Document,
    present: &PresentChunks,
    chunks: &[CutChunk],
) -> Result<()> {
    let new: Vec<&CutChunk> = chunks
        .iter()
        .filter(|chunk| !present.is_indexed(chunk.row.id))
        .collect();
    for group in new.chunks(EMBEDDED_AT_ONCE) {
        let vectors = match app.embedder.as_deref() {
            Some(embedder) => embed_group(app, embedder, tenant_id, document, group)
                .await?
                .into_iter()
                .map(Some)
                .collect(),
            None => vec![None; group.len()],
        };
        let points = group
            .iter()
            .zip(vectors)
            .map(|(chunk, vector)| Point {
                chunk_id: retrieval::ChunkId(chunk.row.id.0),
                document_id: retrieval::DocumentId(document.id.0),
                source_id: retrieval::SourceId(document.source_id.0),
                text: chunk.embedding_text.clone(),
                vector,
            })
            .collect();
        app.index
            .upsert(retrieval::TenantId(tenant_id.0), points)
            .await
            .map_err(index_error)?;
    }
    Ok(())
}

/// Embeds one group of chunks within the tenant's budget, and books it.
async fn embed_group(
    app: &App,
    embedder: &dyn Embedder,
    tenant_id: TenantId,
    document: &Document,
    group: &[&CutChunk],
) -> Result<Vec<Vec<f32>>> {
    let model = embedder.model_id().to_owned();
    let estimate: i64 = group
        .iter()
        .map(|chunk| {
            chunk.row.token_count
                + as_i64(
                    chunk
                        .row
                        .heading
                        .as_ref()
                        .map_or(0, |heading| estimate_tokens(heading)),
                )
        })
        .sum();
    let spend = Spend {
        tokens: if app.embeds_remotely() { estimate } else { 0 },
        micro_usd: app
            .prices
            .embedding_cost_micro_usd(&model, estimate.unsigned_abs()),
    };
    let mut write = app.db.write(tenant_id).await?;
    let limits = usage::load_limits(&mut write, tenant_id, document.chatbot_id).await?;
    usage::check_embedding_priced(app, &limits)?;
    let reservation = usage::reserve(
        &mut write,
        &limits,
        tenant_id,
        document.chatbot_id,
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
    let now = app.clock.now();
    let tokens = i64::try_from(embeddings.tokens).unwrap_or(i64::MAX);
    let event = UsageEvent {
        id: UsageEventId::new(),
        tenant_id,
        chatbot_id: Some(document.chatbot_id),
        conversation_id: None,
        message_id: None,
        channel: CHANNEL.to_owned(),
        kind: UsageKind::Embedding,
        cost_micro_usd: app.prices.embedding_cost_micro_usd(&model, tokens.unsigned_abs()),
        model,
        prompt_tokens: 0,
        completion_tokens: 0,
        cached_tokens: 0,
        embedding_tokens: tokens,
        local: !app.embeds_remotely(),
        price_book_version: app.prices.version().to_owned(),
        reported: embeddings.reported,
        latency_ms: i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX),
        created_at: now,
    };
    let mut write = app.db.write(tenant_id).await?;
    usage::settle(
        &mut write,
        tenant_id,
        document.chatbot_id,
        reservation,
        &[event],
        now,
    )
    .await?;
    write.commit().await?;
    Ok(embeddings.vectors)
}

/// Swaps the new version in, in one transaction, and queues the removal of what only the old one had.
async fn finish(
    app: &App,
    tenant_id: TenantId,
    document: &Document,
    title: &str,
    extracted: &ExtractedDocument,
    chunks: Vec<CutChunk>,
) -> Result<()> {
    let now = app.clock.now();
    let rows: Vec<ChunkRow> = chunks.into_iter().map(|chunk| chunk.row).collect();
    let indexed = Indexed {
        title,
        chunk_count: as_i64(rows.len()),
        token_count: rows.iter().map(|row| row.token_count).sum(),
        page_count: extracted.page_count.map(i64::from),
        embedding_model: Some(app.embedding_model().unwrap_or(super::operator::NO_MODEL)),
    };
    let mut write = app.db.write(tenant_id).await?;
    let before: HashSet<ChunkId> = store::list_chunk_ids(&mut write, tenant_id, document.id)
        .await?
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    let after: HashSet<ChunkId> = rows.iter().map(|row| row.id).collect();
    let stale: Vec<ChunkId> = if store::set_indexed(
        &mut write,
        tenant_id,
        document.id,
        &document.file_key,
        indexed,
        now,
    )
    .await?
    {
        store::replace_chunks(&mut write, tenant_id, document.id, document.source_id, &rows).await?;
        store::upsert_text(
            &mut write,
            tenant_id,
            document.id,
            &document.content_hash,
            &extracted.text,
        )
        .await?;
        before.difference(&after).copied().collect()
    } else {
        // Deleted or replaced meanwhile: what this attempt put into the index belongs to nothing.
        after.difference(&before).copied().collect()
    };
    remove_chunks_later(app, &mut write, tenant_id, stale).await?;
    write.commit().await?;
    app.wake_workers();
    Ok(())
}

/// Queues the removal of those of `chunk_ids` from the index that have no rows by then.
async fn remove_chunks_later(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    chunk_ids: Vec<ChunkId>,
) -> Result<()> {
    if chunk_ids.is_empty() {
        return Ok(());
    }
    let cleaning = RemoveDocuments {
        document_ids: Vec::new(),
        chunk_ids,
        file_keys: Vec::new(),
    };
    jobs::enqueue(app, write, tenant_id, &cleaning).await
}
