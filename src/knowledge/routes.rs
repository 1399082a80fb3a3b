//! HTTP of documents.

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::response::{IntoResponse as _, Response};
use chrono::{DateTime, Utc};
use http::{HeaderValue, StatusCode, header};
use ingest::{Format, LeftOut};
use serde::{Deserialize, Serialize};
use tokio_util::io::ReaderStream;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::chunks::routes::{CHUNK_PAGE, ChunkResponse};
use super::files::store_error;
use super::reading::{self, KeptAs};
use super::{Document, DocumentState, Labels, receive};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::access::{IngestAccess, KnowledgeAccess};
use crate::http::input::{Page, PageQuery, Path, Query};
use crate::http::problem::Problem;
use crate::id::{ChatbotId, DocumentId, SourceId};

/// The routes of this room.
pub fn routes() -> OpenApiRouter<App> {
    let uploads = OpenApiRouter::new()
        .routes(routes!(upload_documents, list_documents))
        .layer(DefaultBodyLimit::disable());
    OpenApiRouter::new()
        .merge(uploads)
        .routes(routes!(get_document, delete_document))
        .merge(super::labels_routes::routes())
        .routes(routes!(get_document_file))
        .merge(super::chunks::routes::routes())
        .merge(super::search::routes::routes())
}

#[derive(Serialize, ToSchema)]
struct DocumentError {
    /// Stable, for programs.
    code: String,
    /// What happened and what to do, for people.
    message: String,
}

#[derive(Serialize, ToSchema)]
pub(super) struct DocumentResponse {
    id: DocumentId,
    chatbot_id: ChatbotId,
    source_id: SourceId,
    /// How the source names it: an address, a file's id or name, or what a program called it.
    external_id: String,
    title: String,
    /// Where people find it.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// What came with it or a page says of itself, else what its text shows: a BCP 47 tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<String>,
    /// What a page says of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// When a page says that it was published.
    #[serde(skip_serializing_if = "Option::is_none")]
    published_at: Option<DateTime<Utc>>,
    /// The path of sections above a page, outermost first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    breadcrumbs: Vec<String>,
    /// Its own tags; absent where those of its source hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Vec<String>>,
    /// Its own access groups; absent where those of its source hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    access_groups: Option<Vec<String>>,
    file_name: String,
    /// What the content is, such as `pdf`, `docx`, `xlsx`, `html` or `markdown`; `unknown` where it is of no accepted type.
    format: String,
    size_bytes: i64,
    /// `queued`, `processing`, `indexed` or `failed`.
    #[schema(value_type = String)]
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<DocumentError>,
    chunks: i64,
    /// In tokens of the embedding model.
    tokens: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pages: Option<i64>,
    /// How many of its pages are pictures without text: nothing is known of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    scanned_pages: Option<i64>,
    /// Pictures and recordings in it that were not read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<LeftOutResponse>,
    /// How many changes of its chunks rest, since the words that they were made to are not in it at present.
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_changes: Option<i64>,
    /// While a version of many chunks is being worked on: how many of them are ready. They answer when all are.
    #[serde(skip_serializing_if = "Option::is_none")]
    staged_chunks: Option<i64>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    indexed_at: Option<DateTime<Utc>>,
}

/// Pictures or recordings in a document that were not read.
#[derive(Debug, Serialize, ToSchema)]
pub struct LeftOutResponse {
    /// `picture` or `recording`.
    #[schema(value_type = String)]
    format: &'static str,
    /// `not_configured`: this server has nobody who reads them; `too_many` of one document, `too_large`, `out_of_time`,
    /// or `unreadable`.
    #[schema(value_type = String)]
    reason: &'static str,
    count: u32,
}

impl From<&LeftOut> for LeftOutResponse {
    fn from(left_out: &LeftOut) -> Self {
        Self {
            format: left_out.format.as_str(),
            reason: left_out.reason.as_str(),
            count: left_out.count,
        }
    }
}

impl From<Document> for DocumentResponse {
    fn from(document: Document) -> Self {
        let state = document.state.name();
        let error = match document.state {
            DocumentState::Failed { code, message } => Some(DocumentError { code, message }),
            _ => None,
        };
        Self {
            id: document.id,
            chatbot_id: document.chatbot_id,
            source_id: document.source_id,
            external_id: document.external_id,
            title: document.title,
            url: document.url,
            language: document.language.or(document.detected_language),
            description: document.description,
            published_at: document.published_at,
            breadcrumbs: document.breadcrumbs,
            tags: document.labels.tags,
            access_groups: document.labels.access_groups,
            file_name: document.file_name,
            format: document.format,
            size_bytes: document.size_bytes,
            state,
            error,
            chunks: document.chunk_count,
            tokens: document.token_count,
            pages: document.page_count,
            scanned_pages: document.scanned_pages.filter(|pages| *pages > 0),
            left_out: document.left_out.iter().map(LeftOutResponse::from).collect(),
            stale_changes: Some(document.stale_changes).filter(|changes| *changes > 0),
            staged_chunks: document.staged_chunks.filter(|chunks| *chunks > 0),
            created_at: document.created_at,
            updated_at: document.updated_at,
            indexed_at: document.indexed_at,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct DocumentDetail {
    #[serde(flatten)]
    document: DocumentResponse,
    /// What was read, as chunks and citations count it: all of it, or part `text_part` of a text of many megabytes.
    /// Empty until the document is indexed.
    text: String,
    /// Where `text` begins in the document, in characters.
    text_start: i64,
    /// The next `text_part`; null when this is the last.
    next_text_part: Option<i64>,
    /// From position `from_chunk` on, at most 500.
    chunk_list: Vec<ChunkResponse>,
    /// The next `from_chunk`; null when these are the last.
    next_chunk: Option<i64>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ChunkQuery {
    /// The position of the first chunk in the answer.
    #[param(value_type = Option<i64>)]
    from_chunk: Option<i64>,
    /// Which part of the text, from 0.
    #[param(value_type = Option<i64>)]
    text_part: Option<i64>,
}

/// The files of an upload.
#[derive(ToSchema)]
#[allow(
    dead_code,
    reason = "describes the multipart body in OpenAPI; the handler streams it"
)]
struct UploadBody {
    /// One part per file, each with a file name.
    #[schema(value_type = Vec<String>, format = Binary)]
    file: Vec<String>,
}

#[derive(Serialize, ToSchema)]
struct UploadResponse {
    /// One per file, in their order.
    items: Vec<DocumentResponse>,
}

/// What is said of all files of an upload.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct UploadQuery {
    /// Separated by commas; those that a document had, or the source's, unless given.
    #[param(value_type = Option<String>)]
    tags: Option<String>,
    /// Access groups of which a visitor needs one to be answered from these files, separated by commas; those that a document
    /// had, or the source's, unless given.
    #[param(value_type = Option<String>)]
    access_groups: Option<String>,
}

/// Adds files, or new versions of files with the same name. The same bytes again change nothing.
#[utoipa::path(post, path = "/api/chatbots/{id}/documents", tag = "knowledge", params(("id" = String, Path, description = "The chatbot"), UploadQuery),
    request_body(content = UploadBody, content_type = "multipart/form-data"),
    responses((status = 202, body = UploadResponse), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["ingest"])))]
async fn upload_documents(
    access: IngestAccess,
    State(app): State<App>,
    Path(chatbot_id): Path<ChatbotId>,
    Query(query): Query<UploadQuery>,
    request: Request,
) -> Result<Response, Problem> {
    let labels = Labels::listed(query.tags.as_deref(), query.access_groups.as_deref())?;
    // Before a byte is stored: may this caller add to this chatbot at all?
    crate::chatbots::get(&app, access.reach(), chatbot_id).await?;
    let files = receive::files(&app, request).await?;
    let documents = super::upload(
        &app,
        access.reach(),
        chatbot_id,
        files,
        labels,
        &access.actor,
        &access.origin,
    )
    .await?;
    let items = documents.into_iter().map(DocumentResponse::from).collect();
    Ok((StatusCode::ACCEPTED, axum::Json(UploadResponse { items })).into_response())
}

/// A chatbot's documents, newest first.
#[utoipa::path(get, path = "/api/chatbots/{id}/documents", tag = "knowledge", params(("id" = String, Path, description = "The chatbot"), PageQuery),
    responses((status = 200, body = Page<DocumentResponse>), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["knowledge:read"])))]
async fn list_documents(
    access: KnowledgeAccess,
    State(app): State<App>,
    Path(chatbot_id): Path<ChatbotId>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<DocumentResponse>>, Problem> {
    let page = query.check()?;
    let rows = super::list_documents(&app, access.reach(), chatbot_id, page).await?;
    Ok(axum::Json(Page::of(
        rows,
        page.limit,
        |row| row.id.0,
        DocumentResponse::from,
    )))
}

/// A document with its text and chunks.
#[utoipa::path(get, path = "/api/documents/{id}", tag = "knowledge", params(("id" = String, Path, description = "The document"), ChunkQuery),
    responses((status = 200, body = DocumentDetail), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["knowledge:read"])))]
async fn get_document(
    access: KnowledgeAccess,
    State(app): State<App>,
    Path(id): Path<DocumentId>,
    Query(query): Query<ChunkQuery>,
) -> Result<axum::Json<DocumentDetail>, Problem> {
    let reach = access.reach();
    let from = query.from_chunk.unwrap_or_default().max(0);
    let document = super::get_document(&app, reach, id).await?;
    let text = super::document_text(&app, reach, id, query.text_part.unwrap_or_default()).await?;
    let list = super::chunks::list(&app, reach, id, (from, None), CHUNK_PAGE).await?;
    Ok(axum::Json(DocumentDetail {
        document: document.into(),
        text: text.text,
        text_start: text.start_char,
        next_text_part: text.next_part,
        chunk_list: list.chunks.into_iter().map(ChunkResponse::from).collect(),
        next_chunk: list.next,
    }))
}

/// Deletes a document: out of answers at once. One that was read from elsewhere is left out by later runs, until its
/// exclusion in the source is lifted.
#[utoipa::path(delete, path = "/api/documents/{id}", tag = "knowledge", params(("id" = String, Path, description = "The document")),
    responses((status = 204, description = "Deleted"), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["ingest"])))]
async fn delete_document(
    access: IngestAccess,
    State(app): State<App>,
    Path(id): Path<DocumentId>,
) -> Result<StatusCode, Problem> {
    super::delete_document(&app, access.reach(), id, &access.actor, &access.origin).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The original file, as an attachment; of a web page, of which no file is kept, the text that was read from it.
#[utoipa::path(get, path = "/api/documents/{id}/file", tag = "knowledge", params(("id" = String, Path, description = "The document")),
    responses((status = 200, description = "The file's bytes", content_type = "application/octet-stream"), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["knowledge:read"])))]
async fn get_document_file(
    access: KnowledgeAccess,
    State(app): State<App>,
    Path(id): Path<DocumentId>,
) -> Result<Response, Problem> {
    let document = super::get_document(&app, access.reach(), id).await?;
    if super::kept_as(&app, access.reach(), id).await? == KeptAs::Reading {
        let text = reading::load(&app, &document.file_key).await?.text;
        return Ok(as_attachment(
            Body::from(text),
            "text/plain; charset=utf-8",
            &format!("{}.txt", document.file_name),
        ));
    }
    let file = match tokio::fs::File::open(app.files.path(&document.file_key)?).await {
        Ok(file) => file,
        // A newer version took its place between the look-up and now.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            app.files.check_of(access.tenant_id).await?;
            return Err(Error::NotFound("document").into());
        }
        Err(error) => return Err(store_error(error).into()),
    };
    let media_type = Format::ALL
        .into_iter()
        .find(|format| format.as_str() == document.format)
        .map_or("application/octet-stream", Format::media_type);
    let body = Body::from_stream(ReaderStream::new(file));
    let mut response = as_attachment(body, media_type, &document.file_name);
    let length = HeaderValue::from(document.size_bytes);
    response.headers_mut().insert(header::CONTENT_LENGTH, length);
    Ok(response)
}

fn as_attachment(body: Body, media_type: &'static str, file_name: &str) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CONTENT_DISPOSITION, attachment(file_name));
    response
}

/// `attachment` with the name in plain ASCII and, for clients that can, in UTF-8 (RFC 6266).
fn attachment(file_name: &str) -> HeaderValue {
    let plain: String = file_name
        .chars()
        .map(|character| {
            if character.is_ascii_alphanumeric() || "._- ".contains(character) {
                character
            } else {
                '_'
            }
        })
        .collect();
    let encoded: String = file_name
        .bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect();
    HeaderValue::try_from(format!(
        "attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"
    ))
    .unwrap_or(HeaderValue::from_static("attachment"))
}
