//! What a chatbot knows: sources, documents, chunks. Drives `ingest` and `retrieval` and owns the index's content.
//!
//! Rows are the truth: a hit in the index counts only while its chunk's row exists, so what is deleted is out of
//! answers with the commit of its rows, whatever the index still holds.

pub mod chunks;
mod cut;
pub mod cuts;
pub mod degraded;
pub mod deletion;
pub mod embedding_cache;
mod facts;
pub mod files;
pub(crate) mod index_changes;
pub mod indexing;
pub mod jobs;
pub mod labels;
mod labels_routes;
mod listwise;
pub mod operator;
mod passages;
pub mod reading;
mod receive;
pub mod routes;
mod search;
pub mod sources;
mod store;
pub mod stored_chunks;
pub mod sync;
mod upload;
pub mod verify;
pub(crate) mod versions;

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use ingest::LeftOut;
use serde_json::json;

use crate::app::App;
use crate::db::Write;
use crate::error::{Error, Result};
use crate::http::access::{Actor, Reach};
use crate::http::input::PageRequest;
use crate::id::{ChatbotId, ChunkEditId, ChunkId, DocumentId, SourceId, TenantId};
use crate::tenancy::audit::{self, Change, Origin};
use crate::{chatbots, on};

pub use self::labels::Labels;
use self::sources::exclusions;
pub use degraded::Degradation;
pub use ingest::HEADING_SEPARATOR;
pub use listwise::ListwiseReranker;
pub use search::context::around;
pub use search::explain::Trace;
#[cfg(test)]
pub(crate) use search::tests::passage as sample_passage;
pub use search::{
    Aim, EmbeddedQuestion, Passage, Payer, Purpose, RowScans, Search, SearchFilter, SearchResult,
    SearchSettings, SearchSettingsRequest, Told, embed_question, keep_relevant, search, search_aimed,
    search_sources,
};
pub use upload::{NewFile, upload};

/// One page or file of a source.
#[derive(Clone, Debug)]
pub struct Document {
    pub id: DocumentId,
    pub chatbot_id: ChatbotId,
    pub source_id: SourceId,
    /// How the source names it; for uploads the file name.
    pub external_id: String,
    pub title: String,
    /// The title that came with it, and goes before what its content says.
    pub given_title: Option<String>,
    /// Where people find it.
    pub url: Option<String>,
    pub language: Option<String>,
    /// The one that its text shows.
    pub detected_language: Option<String>,
    /// What it says of itself.
    pub description: Option<String>,
    pub published_at: Option<DateTime<Utc>>,
    /// The path of sections above a page, outermost first.
    pub breadcrumbs: Vec<String>,
    pub file_name: String,
    /// One of [`ingest::Format`]'s names, or `unknown`.
    pub format: String,
    pub size_bytes: i64,
    /// SHA-256 of the original file, in hexadecimal.
    pub content_hash: String,
    pub file_key: String,
    pub state: DocumentState,
    pub chunk_count: i64,
    /// In tokens of the embedding model.
    pub token_count: i64,
    pub page_count: Option<i64>,
    /// Pages that are pictures without text; none until it is indexed.
    pub scanned_pages: Option<i64>,
    /// Pictures and recordings in it that nobody read.
    pub left_out: Vec<LeftOut>,
    /// Its own tags and access groups.
    pub labels: Labels,
    /// Changes of its chunks that rest.
    pub stale_changes: i64,
    /// Chunks of the version that is being worked on that are ready; none when no version is.
    pub staged_chunks: Option<i64>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub indexed_at: Option<DateTime<Utc>>,
}

/// Where a document stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DocumentState {
    Queued,
    Processing,
    Indexed,
    /// `code` is stable, `message` is for a person and says what to do.
    Failed {
        code: String,
        message: String,
    },
}

impl DocumentState {
    /// The names of all states.
    pub const NAMES: [&'static str; 4] = ["queued", "processing", "indexed", "failed"];

    /// The name in JSON and in the database.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Processing => "processing",
            Self::Indexed => "indexed",
            Self::Failed { .. } => "failed",
        }
    }
}

/// A retrievable span of a document.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Chunk {
    pub id: ChunkId,
    pub position: i64,
    pub text: String,
    /// The headings above it, outermost first, joined by " › ".
    pub heading: Option<String>,
    pub page: Option<i64>,
    /// Character offsets in the document's text, end exclusive.
    pub start_char: i64,
    pub end_char: i64,
    /// In tokens of the embedding model.
    pub token_count: i64,
    /// What its owner changed.
    pub edit_id: Option<ChunkEditId>,
    /// What the document says where `text` is the owner's.
    pub original_text: Option<String>,
    /// Off: in no answer.
    pub is_enabled: bool,
}

impl Chunk {
    /// The owner's own, not of the document: it has no span.
    pub fn is_added(&self) -> bool {
        self.start_char == self.end_char
    }
}

/// Some megabytes of a document's text.
#[derive(Clone, Debug, Default, sqlx::FromRow)]
pub struct TextPart {
    /// Where it begins in the document, in characters.
    pub start_char: i64,
    pub text: String,
    /// The number of the part after it; none after the last one.
    pub next_part: Option<i64>,
}

/// Makes the source that takes a chatbot's uploaded files, in the transaction that makes the chatbot.
pub async fn create_upload_source(
    write: &mut Write,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
    id: SourceId,
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => sqlx::query("insert into source (id, tenant_id, chatbot_id, kind, name, created_at) values ($1, $2, $3, 'upload', 'Uploaded files', $4)")
        .bind(id).bind(tenant_id).bind(chatbot_id).bind(now).execute(c).await.map(drop))?;
    Ok(())
}

/// A page of a chatbot's documents, newest first.
pub async fn list_documents(
    app: &App,
    reach: Reach,
    chatbot_id: ChatbotId,
    page: PageRequest,
) -> Result<Vec<Document>> {
    let mut conn = app.db.read(reach.tenant_id).await?;
    chatbots::find(&mut conn, reach, chatbot_id).await?;
    store::list(&mut conn, reach.tenant_id, chatbot_id, page).await
}

/// A document within reach.
pub async fn get_document(app: &App, reach: Reach, id: DocumentId) -> Result<Document> {
    let mut conn = app.db.read(reach.tenant_id).await?;
    store::find(&mut conn, reach, id)
        .await?
        .ok_or(Error::NotFound("document"))
}

/// A part of a document's text, counted from 0. Empty until the document is indexed; most have one part.
pub async fn document_text(app: &App, reach: Reach, id: DocumentId, part: i64) -> Result<TextPart> {
    let mut conn = app.db.read(reach.tenant_id).await?;
    Ok(store::find_text(&mut conn, reach.tenant_id, id, part)
        .await?
        .unwrap_or_default())
}

/// What the file of a document within reach holds.
pub async fn kept_as(app: &App, reach: Reach, id: DocumentId) -> Result<reading::KeptAs> {
    store::find_kept_as(&mut app.db.read(reach.tenant_id).await?, reach.tenant_id, id).await
}

/// Those of `ids` that are documents of the chatbot.
pub async fn list_existing(
    write: &mut Write,
    (tenant_id, chatbot_id): (TenantId, ChatbotId),
    ids: &[DocumentId],
) -> Result<HashSet<DocumentId>> {
    store::list_existing_documents(write, (tenant_id, Some(chatbot_id)), ids).await
}

/// Deletes a document: out of answers at once, out of index and files soon after, out of an index in the database of the rows with
/// these. Runs do not bring it back.
pub async fn delete_document(
    app: &App,
    reach: Reach,
    id: DocumentId,
    actor: &Actor,
    origin: &Origin,
) -> Result<()> {
    let mut write = app.db.write(reach.tenant_id).await?;
    let document = store::find(&mut write, reach, id)
        .await?
        .ok_or(Error::NotFound("document"))?;
    let place = (reach.tenant_id, document.source_id);
    deletion::delete_or_hide(app, &mut write, place, &[id]).await?;
    exclusions::exclude(&mut write, reach.tenant_id, &document, app.clock.now()).await?;
    let source_id = document.source_id;
    chunks::delete_edits(&mut write, reach.tenant_id, source_id, &document.external_id).await?;
    index_changes::remove_documents(app, &mut write, reach.tenant_id, &[id], vec![document.file_key]).await?;
    let before = json!({ "title": document.title, "file_name": document.file_name, "chatbot_id": document.chatbot_id });
    let change = Change {
        action: "document.delete",
        object_kind: "document",
        object_id: id.to_string(),
        before: Some(before),
        after: None,
    };
    audit::record(
        &mut write,
        reach.tenant_id,
        actor,
        origin,
        change,
        app.clock.now(),
    )
    .await?;
    write.commit().await?;
    app.wake_workers();
    Ok(())
}

/// Holds all sources of a chatbot until the transaction ends, so that nothing is written below them.
pub async fn hold_sources(write: &mut Write, tenant_id: TenantId, chatbot_id: ChatbotId) -> Result<()> {
    sources::store::hold_all(write, tenant_id, chatbot_id).await
}
