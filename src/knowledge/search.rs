//! From a question to passages: by meaning and by words in the index, then checked against the rows.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use retrieval::embed::{EmbedError, Embeddings};
use retrieval::fuse::{Hit, fuse};
use retrieval::index::{Filter, IndexError, SearchQuery};

use super::{passages, store};
use crate::app::App;
use crate::chatbots;
use crate::error::{Error, Result};
use crate::http::access::Reach;
use crate::id::{ChatbotId, ChunkId, DocumentId, SourceId, UsageEventId};
use crate::usage::{self, UsageEvent, UsageKind};

/// Candidates asked of each side of the index at least, so that one that is middling in both can still win.
const MIN_CANDIDATES: usize = 50;

/// Candidates asked of the index beyond the wanted passages: some may have lost their rows.
const SPARE_CANDIDATES: usize = 8;

/// Candidates at which a search gives up looking behind those that have no rows.
const MOST_CANDIDATES: usize = 4096;

/// How long a failing index or embedding endpoint is left alone, if it did not say.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What the ledger says of a search that belongs to no conversation.
const SEARCH_CHANNEL: &str = "search";

/// A chunk that may answer the question.
#[derive(Clone, Debug)]
pub struct Passage {
    pub chunk_id: ChunkId,
    pub document_id: DocumentId,
    pub title: String,
    pub file_name: String,
    /// Where a reader finds the document; none: only here.
    pub url: Option<String>,
    pub text: String,
    pub heading: Option<String>,
    pub page: Option<i64>,
    /// Character offsets in the document's text, end exclusive.
    pub start: i64,
    pub end: i64,
    /// Fused rank score in (0, 1]; 1: first in every ranking.
    pub score: f32,
    /// Cosine similarity to the question; none: found by its words only.
    pub similarity: Option<f32>,
    /// BM25; none: found by its meaning only.
    pub keyword_score: Option<f32>,
    /// In tokens of the answering model; 0: not counted yet.
    pub prompt_tokens: i64,
}

/// What narrows a search further than the chatbot's own sources.
#[derive(Clone, Debug, Default)]
pub struct SearchFilter {
    /// Only these documents.
    pub document_ids: Option<Vec<DocumentId>>,
}

/// What a search found and what it took.
#[derive(Clone, Debug, Default)]
pub struct SearchResult {
    /// Best first.
    pub passages: Vec<Passage>,
    /// Tokens that the embedding model read, and whether it said so itself.
    pub embedding_tokens: i64,
    pub embedding_reported: bool,
    pub embedding_latency: Duration,
    /// The embedding model did not answer: these passages were found by their words alone.
    pub without_meaning: bool,
}

/// The passages of a chatbot's knowledge that are nearest to `question`, best first, at most `limit`.
pub async fn search(
    app: &App,
    reach: Reach,
    chatbot_id: ChatbotId,
    question: &str,
    limit: usize,
    filter: SearchFilter,
) -> Result<SearchResult> {
    let mut conn = app.db.read(reach.tenant_id).await?;
    reach.check_chatbot(chatbot_id)?;
    let sources = store::list_sources(&mut conn, reach.tenant_id, chatbot_id).await?;
    if sources.is_empty() {
        // Every chatbot has a source, so this is how an absent one looks; the check makes the difference certain.
        chatbots::check_exists(&mut conn, reach.tenant_id, chatbot_id).await?;
        return Ok(SearchResult::default());
    }
    drop(conn);
    search_sources(app, reach, chatbot_id, sources, question, limit, filter).await
}

/// Like [`search`], for a caller who knows the chatbot's sources already. They narrow what the index is asked for; what
/// may be told is decided by the rows.
pub async fn search_sources(
    app: &App,
    reach: Reach,
    chatbot_id: ChatbotId,
    sources: Vec<SourceId>,
    question: &str,
    limit: usize,
    filter: SearchFilter,
) -> Result<SearchResult> {
    reach.check_chatbot(chatbot_id)?;
    let mut result = SearchResult::default();
    if sources.is_empty() {
        return Ok(result);
    }
    let vector = match embed(app, question, &mut result).await {
        Ok(vector) => vector,
        Err(error) => {
            tracing::warn!(error = ?error, "the embedding model did not answer: searching by words alone");
            result.without_meaning = true;
            None
        }
    };
    let filter = Filter {
        sources: sources.into_iter().map(|id| retrieval::SourceId(id.0)).collect(),
        documents: filter
            .document_ids
            .map(|ids| ids.into_iter().map(|id| retrieval::DocumentId(id.0)).collect()),
        ..Filter::default()
    };
    let mut query = SearchQuery {
        text: question.to_owned(),
        vector,
        filter,
        limit: (limit + SPARE_CANDIDATES).max(MIN_CANDIDATES),
        language: None,
    };
    loop {
        let candidates = app
            .index
            .search(retrieval::TenantId(reach.tenant_id.0), query.clone())
            .await
            .map_err(index_error)?;
        let were_all = candidates.hits.len() < query.limit;
        result.passages = attach_rows(app, reach, chatbot_id, fuse(&candidates), limit).await?;
        if result.passages.len() >= limit || were_all || query.limit >= MOST_CANDIDATES {
            return Ok(result);
        }
        // A new version that is being indexed stands in front of the old one, which still answers: look behind it.
        query.limit *= 4;
    }
}

/// Like [`search`], for a caller that keeps no books of its own: what embedding the question took goes to the ledger.
pub async fn search_and_book(
    app: &App,
    reach: Reach,
    chatbot_id: ChatbotId,
    question: &str,
    limit: usize,
    filter: SearchFilter,
) -> Result<SearchResult> {
    let limits = usage::load_limits(
        &mut app.db.read(reach.tenant_id).await?,
        reach.tenant_id,
        chatbot_id,
    )
    .await?;
    if app.embeds_remotely() {
        usage::check_embedding_priced(app, &limits)?;
        usage::check_open(
            &mut app.db.read(reach.tenant_id).await?,
            &limits,
            reach.tenant_id,
            chatbot_id,
            app.clock.now(),
        )
        .await?;
    }
    let mut hold = usage::hold_for_embedding(app, &limits, reach.tenant_id, chatbot_id, question).await?;
    let found = search(app, reach, chatbot_id, question, limit, filter).await?;
    if let Some(model) = app.embedding_model().filter(|_| found.embedding_tokens > 0) {
        let now = app.clock.now();
        let event = UsageEvent {
            id: UsageEventId::new(),
            tenant_id: reach.tenant_id,
            chatbot_id: Some(chatbot_id),
            conversation_id: None,
            message_id: None,
            channel: SEARCH_CHANNEL.to_owned(),
            kind: UsageKind::Embedding,
            cost_micro_usd: app
                .prices
                .embedding_cost_micro_usd(model, found.embedding_tokens.unsigned_abs()),
            model: model.to_owned(),
            prompt_tokens: 0,
            completion_tokens: 0,
            cached_tokens: 0,
            embedding_tokens: found.embedding_tokens,
            audio_seconds: 0,
            local: !app.embeds_remotely(),
            price_book_version: app.prices.version().to_owned(),
            reported: found.embedding_reported,
            latency_ms: i64::try_from(found.embedding_latency.as_millis()).unwrap_or(i64::MAX),
            created_at: now,
        };
        let mut write = app.db.write(reach.tenant_id).await?;
        usage::settle(
            &mut write,
            reach.tenant_id,
            chatbot_id,
            hold.take(),
            &[event],
            now,
        )
        .await?;
        write.commit().await?;
    }
    Ok(found)
}

async fn embed(
    app: &App,
    question: &str,
    result: &mut SearchResult,
) -> std::result::Result<Option<Vec<f32>>, EmbedError> {
    let Some(embedder) = &app.embedder else {
        return Ok(None);
    };
    let started = Instant::now();
    let Embeddings {
        mut vectors,
        tokens,
        reported,
    } = embedder.embed_query(question.to_owned()).await?;
    result.embedding_tokens = i64::try_from(tokens).unwrap_or(i64::MAX);
    result.embedding_reported = reported;
    result.embedding_latency = started.elapsed();
    Ok(vectors.pop())
}

async fn attach_rows(
    app: &App,
    reach: Reach,
    chatbot_id: ChatbotId,
    hits: Vec<Hit>,
    limit: usize,
) -> Result<Vec<Passage>> {
    let mut passages = Vec::with_capacity(limit);
    // Nearly every hit has its row, so the first ones are mostly all that it takes.
    let (first, spare) = hits.split_at(hits.len().min(limit));
    for hits in [first, spare] {
        if hits.is_empty() || passages.len() >= limit {
            break;
        }
        let ids: Vec<ChunkId> = hits.iter().map(|hit| ChunkId(hit.chunk_id.0)).collect();
        let mut conn = app.db.read(reach.tenant_id).await?;
        let rows = passages::find_passages(&mut conn, reach.tenant_id, chatbot_id, &ids).await?;
        drop(conn);
        let mut row_of: HashMap<ChunkId, passages::PassageRow> =
            rows.into_iter().map(|row| (row.id, row)).collect();
        let found = hits.iter().filter_map(|hit| {
            let row = row_of.remove(&ChunkId(hit.chunk_id.0))?;
            Some(passage(hit, row))
        });
        passages.extend(found.take(limit - passages.len()));
    }
    Ok(passages)
}

fn passage(hit: &Hit, row: passages::PassageRow) -> Passage {
    Passage {
        chunk_id: row.id,
        document_id: row.document_id,
        title: row.title,
        file_name: row.file_name,
        url: row.url,
        text: row.text,
        heading: row.heading,
        page: row.page,
        start: row.start_char,
        end: row.end_char,
        score: hit.score,
        similarity: hit.similarity,
        keyword_score: hit.keyword_score,
        prompt_tokens: row.prompt_token_count,
    }
}

/// What an index failure means for a request or a job.
pub(super) fn index_error(error: IndexError) -> Error {
    match error {
        IndexError::Unavailable { .. } | IndexError::InUse { .. } => Error::Unavailable {
            code: "index_unavailable",
            message: "the search index does not answer; try again shortly".into(),
            retry_after: TRY_AGAIN_AFTER,
            source: Some(Box::new(error)),
        },
        error => Error::internal(error),
    }
}

/// What a failure of the embedding model means for a job.
pub(super) fn embed_error(error: EmbedError) -> Error {
    match error {
        EmbedError::Unavailable { retry_after, source } => Error::Unavailable {
            code: "embedding_unavailable",
            message: "the embedding model does not answer; this is tried again by itself".into(),
            retry_after: retry_after.unwrap_or(TRY_AGAIN_AFTER),
            source: Some(source),
        },
        EmbedError::Refused { reason } => Error::Upstream {
            code: "embedding_refused",
            message: format!("the embedding model refused the request: {reason}").into(),
            source: None,
        },
        EmbedError::BadVectors { reason } => Error::Upstream {
            code: "embedding_unusable",
            message: format!("the embedding model gave unusable vectors: {reason}").into(),
            source: None,
        },
    }
}
