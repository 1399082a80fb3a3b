//! HTTP of chunks: reading, changing, adding and deleting them, and a preview of how a text would be cut.

use axum::extract::State;
use chrono::{DateTime, Utc};
use http::StatusCode;
use ingest::Format;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{ChunkChange, Chunking, Edit, NewChunk, PreviewText};
use crate::app::App;
use crate::error::Error;
use crate::http::access::{IngestAccess, KnowledgeAccess};
use crate::http::input::{Json, Path, Query, present};
use crate::http::problem::Problem;
use crate::id::{ChunkEditId, ChunkId, DocumentId};
use crate::knowledge::Chunk;

/// Chunks of one page.
pub(in crate::knowledge) const CHUNK_PAGE: i64 = 500;

/// The routes of chunks.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_chunks, add_chunk))
        .routes(routes!(update_chunk, delete_chunk))
        .routes(routes!(preview_chunks))
}

#[derive(Serialize, ToSchema)]
pub(in crate::knowledge) struct ChunkResponse {
    id: ChunkId,
    position: i64,
    /// What is found and cited: the owner's words where they changed it.
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    heading: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<i64>,
    /// Character offsets in the document's text, end exclusive; equal for an added chunk.
    start: i64,
    end: i64,
    tokens: i64,
    /// Off: in no answer.
    enabled: bool,
    /// The owner's own, not of the document.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    added: bool,
    /// What the document says where the owner changed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    original: Option<String>,
}

impl From<Chunk> for ChunkResponse {
    fn from(chunk: Chunk) -> Self {
        Self {
            id: chunk.id,
            position: chunk.position,
            added: chunk.is_added(),
            text: chunk.text,
            heading: chunk.heading,
            page: chunk.page,
            start: chunk.start_char,
            end: chunk.end_char,
            tokens: chunk.token_count,
            enabled: chunk.is_enabled,
            original: chunk.original_text,
        }
    }
}

/// A change that rests, because its passage is not in the document at present.
#[derive(Serialize, ToSchema)]
struct StaleChange {
    /// Deleting the chunk of this id drops the change.
    #[schema(value_type = String, format = "uuid")]
    id: ChunkEditId,
    /// The passage that it was made to.
    original: String,
    /// The owner's words; null: the passage was switched off only.
    text: Option<String>,
    enabled: bool,
    updated_at: DateTime<Utc>,
}

impl From<Edit> for StaleChange {
    fn from(edit: Edit) -> Self {
        Self {
            id: edit.id,
            original: edit.original_text.unwrap_or_default(),
            text: edit.text,
            enabled: edit.is_enabled,
            updated_at: edit.updated_at,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct ChunkListResponse {
    /// From position `from_chunk` on, at most 500.
    items: Vec<ChunkResponse>,
    /// The next `from_chunk`; null when these are the last.
    next_chunk: Option<i64>,
    /// Changes that are kept and do not hold now, at most 500.
    stale_changes: Vec<StaleChange>,
    /// The next `after_stale`; null when these are the last.
    #[schema(value_type = Option<String>, format = "uuid")]
    next_stale: Option<ChunkEditId>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ChunkQuery {
    /// The position of the first chunk in the answer.
    #[param(value_type = Option<i64>)]
    from_chunk: Option<i64>,
    /// `next_stale` of the page before: changes that rest are listed from behind it.
    #[param(value_type = Option<String>)]
    after_stale: Option<ChunkEditId>,
}

/// A document's chunks in their order, with what their owner changed.
#[utoipa::path(get, path = "/api/documents/{id}/chunks", tag = "knowledge", params(("id" = String, Path, description = "The document"), ChunkQuery),
    responses((status = 200, body = ChunkListResponse), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["knowledge:read"])))]
async fn list_chunks(
    access: KnowledgeAccess,
    State(app): State<App>,
    Path(id): Path<DocumentId>,
    Query(query): Query<ChunkQuery>,
) -> Result<axum::Json<ChunkListResponse>, Problem> {
    let from = query.from_chunk.unwrap_or_default().max(0);
    let list = super::list(&app, access.reach(), id, (from, query.after_stale), CHUNK_PAGE).await?;
    Ok(axum::Json(ChunkListResponse {
        items: list.chunks.into_iter().map(ChunkResponse::from).collect(),
        next_chunk: list.next,
        stale_changes: list.stale.into_iter().map(StaleChange::from).collect(),
        next_stale: list.next_stale,
    }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewChunkRequest {
    /// 1 to 8,000 characters, and no more than the embedding model reads.
    #[schema(min_length = 1, max_length = 8_000)]
    text: String,
    /// Shown above it, and found by; at most 200 characters.
    #[schema(max_length = 200)]
    heading: Option<String>,
}

/// Adds a chunk of one's own to an indexed document. It outlives new versions of the document.
#[utoipa::path(post, path = "/api/documents/{id}/chunks", tag = "knowledge", params(("id" = String, Path, description = "The document")), request_body = NewChunkRequest,
    responses((status = 201, body = ChunkResponse), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["ingest"])))]
async fn add_chunk(
    access: IngestAccess,
    State(app): State<App>,
    Path(id): Path<DocumentId>,
    Json(request): Json<NewChunkRequest>,
) -> Result<(StatusCode, axum::Json<ChunkResponse>), Problem> {
    let new = NewChunk {
        text: request.text,
        heading: request.heading,
    };
    let chunk = super::add(&app, access.reach(), id, new, &access.actor, &access.origin).await?;
    Ok((StatusCode::CREATED, axum::Json(chunk.into())))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChunkChangeRequest {
    /// The words that are found and cited from now on. 1 to 8,000 characters, and no more than the embedding model reads.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 8_000)]
    text: Option<String>,
    /// Off: in no answer from now on.
    #[serde(default, deserialize_with = "present")]
    enabled: Option<bool>,
}

/// Changes a chunk's words, or switches it off or on. The change holds wherever the same passage stands in later versions
/// of the document.
#[utoipa::path(patch, path = "/api/documents/{id}/chunks/{chunk_id}", tag = "knowledge",
    params(("id" = String, Path, description = "The document"), ("chunk_id" = String, Path, description = "The chunk")), request_body = ChunkChangeRequest,
    responses((status = 200, body = ChunkResponse), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["ingest"])))]
async fn update_chunk(
    access: IngestAccess,
    State(app): State<App>,
    Path(place): Path<(DocumentId, ChunkId)>,
    Json(request): Json<ChunkChangeRequest>,
) -> Result<axum::Json<ChunkResponse>, Problem> {
    let change = ChunkChange {
        text: request.text,
        is_enabled: request.enabled,
    };
    let chunk = super::update(&app, access.reach(), place, change, &access.actor, &access.origin).await?;
    Ok(axum::Json(chunk.into()))
}

/// Deletes an added chunk; gives a changed one the document's own words back; drops a change that rests.
#[utoipa::path(delete, path = "/api/documents/{id}/chunks/{chunk_id}", tag = "knowledge",
    params(("id" = String, Path, description = "The document"), ("chunk_id" = String, Path, description = "The chunk, or a change that rests")),
    responses((status = 204, description = "Done"), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["ingest"])))]
async fn delete_chunk(
    access: IngestAccess,
    State(app): State<App>,
    Path(place): Path<(DocumentId, ChunkId)>,
) -> Result<StatusCode, Problem> {
    super::delete(&app, access.reach(), place, &access.actor, &access.origin).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PreviewRequest {
    /// Plain text; or `html`, or `markdown`. Exactly one of them, of at most 500,000 characters.
    #[schema(min_length = 1, max_length = 500_000)]
    text: Option<String>,
    #[schema(min_length = 1, max_length = 500_000)]
    html: Option<String>,
    #[schema(min_length = 1, max_length = 500_000)]
    markdown: Option<String>,
    /// 16 to 4,096; 220 unless given, and never more than the embedding model reads.
    max_tokens: Option<u32>,
    /// At most half of `max_tokens`.
    overlap_tokens: Option<u32>,
}

#[derive(Serialize, ToSchema)]
struct PreviewChunk {
    text: String,
    /// The headings above it, outermost first, and the header of the table that it continues.
    #[serde(skip_serializing_if = "Option::is_none")]
    heading: Option<String>,
    /// Character offsets in what was read of the text, end exclusive.
    start: usize,
    end: usize,
    tokens: usize,
}

#[derive(Serialize, ToSchema)]
struct PreviewResponse {
    items: Vec<PreviewChunk>,
    /// Of all chunks.
    tokens: usize,
}

/// Shows how a text would be cut. Nothing is kept.
#[utoipa::path(post, path = "/api/chunk-preview", tag = "knowledge", request_body = PreviewRequest,
    responses((status = 200, body = PreviewResponse), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["ingest"])))]
async fn preview_chunks(
    access: IngestAccess,
    State(app): State<App>,
    Json(request): Json<PreviewRequest>,
) -> Result<axum::Json<PreviewResponse>, Problem> {
    let (text, format) = match (request.text, request.html, request.markdown) {
        (Some(text), None, None) => (text, Format::Text),
        (None, Some(html), None) => (html, Format::Html),
        (None, None, Some(markdown)) => (markdown, Format::Markdown),
        _ => {
            return Err(Error::invalid(
                "invalid_preview_text",
                "text",
                "give exactly one of text, html and markdown",
            )
            .into());
        }
    };
    let chunking = Chunking {
        max_tokens: request.max_tokens,
        overlap_tokens: request.overlap_tokens,
    };
    let chunks = super::preview(&app, access.tenant_id, PreviewText { text, format }, &chunking).await?;
    let tokens = chunks.iter().map(|chunk| chunk.token_count).sum();
    let items = chunks.into_iter().map(|chunk| PreviewChunk {
        heading: chunk.heading(),
        start: chunk.start,
        end: chunk.end,
        tokens: chunk.token_count,
        text: chunk.text,
    });
    Ok(axum::Json(PreviewResponse {
        items: items.collect(),
        tokens,
    }))
}
