//! SQL of sources, documents and chunks.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use ingest::LeftOut;
use sqlx::types::Json;
use sqlx::{FromRow, QueryBuilder};

use super::cuts::is_of_live_cut;
use super::reading::KeptAs;
use super::versions::is_shown;
use super::{Chunk, Document, DocumentState, Labels, TextPart};
use crate::db::{Conn, ROWS_AT_ONCE, Write};
use crate::error::Result;
use crate::http::access::Reach;
use crate::http::input::PageRequest;
use crate::id::{ChatbotId, ChunkEditId, ChunkId, CutId, DocumentId, SourceId, TenantId};
use crate::on;

#[derive(FromRow)]
struct DocumentRow {
    id: DocumentId,
    chatbot_id: ChatbotId,
    source_id: SourceId,
    external_id: String,
    title: String,
    given_title: Option<String>,
    url: Option<String>,
    language: Option<String>,
    detected_language: Option<String>,
    description: Option<String>,
    published_at: Option<DateTime<Utc>>,
    breadcrumbs: Option<Json<Vec<String>>>,
    file_name: String,
    format: String,
    size_bytes: i64,
    content_hash: String,
    file_key: String,
    state: String,
    error_code: Option<String>,
    error_message: Option<String>,
    chunk_count: i64,
    token_count: i64,
    page_count: Option<i64>,
    scanned_pages: Option<i64>,
    left_out: Option<Json<Vec<LeftOut>>>,
    tags: Option<Json<Vec<String>>>,
    access_groups: Option<Json<Vec<String>>>,
    stale_changes: i64,
    staged_chunks: Option<i64>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    indexed_at: Option<DateTime<Utc>>,
}

impl From<DocumentRow> for Document {
    fn from(row: DocumentRow) -> Self {
        let state = match row.state.as_str() {
            "queued" => DocumentState::Queued,
            "processing" => DocumentState::Processing,
            "indexed" => DocumentState::Indexed,
            _ => DocumentState::Failed {
                code: row.error_code.unwrap_or_default(),
                message: row.error_message.unwrap_or_default(),
            },
        };
        Self {
            id: row.id,
            chatbot_id: row.chatbot_id,
            source_id: row.source_id,
            external_id: row.external_id,
            title: row.title,
            given_title: row.given_title,
            url: row.url,
            language: row.language,
            detected_language: row.detected_language,
            description: row.description,
            published_at: row.published_at,
            breadcrumbs: row.breadcrumbs.map(|Json(names)| names).unwrap_or_default(),
            file_name: row.file_name,
            format: row.format,
            size_bytes: row.size_bytes,
            content_hash: row.content_hash,
            file_key: row.file_key,
            state,
            chunk_count: row.chunk_count,
            token_count: row.token_count,
            page_count: row.page_count,
            scanned_pages: row.scanned_pages,
            left_out: row.left_out.map(|Json(left_out)| left_out).unwrap_or_default(),
            labels: Labels {
                tags: row.tags.map(|Json(names)| names),
                access_groups: row.access_groups.map(|Json(names)| names),
            },
            stale_changes: row.stale_changes,
            staged_chunks: row.staged_chunks,
            created_at: row.created_at,
            updated_at: row.updated_at,
            indexed_at: row.indexed_at,
        }
    }
}

/// The columns of a document, in every statement that reads whole ones.
macro_rules! select_document {
    ($rest:literal) => {
        concat!(
            "select id, chatbot_id, source_id, external_id, title, given_title, url, language, detected_language, description, published_at, breadcrumbs, file_name, format, size_bytes,
                    content_hash, file_key, state, error_code, error_message, chunk_count, token_count, page_count, scanned_pages, left_out, tags, access_groups,
                    created_at, updated_at, indexed_at,
                    (select count(*)
                       from chunk_edit e
                      where e.tenant_id = document.tenant_id
                        and e.source_id = document.source_id
                        and e.external_id = document.external_id
                        and e.is_stale) as stale_changes,
                    case when state = 'processing' then
                        (select max(v.ready_to)
                           from document_version v
                          where v.tenant_id = document.tenant_id
                            and v.document_id = document.id
                            and v.state = 'waiting'
                            and v.file_key = document.file_key
                            and v.cut_revision = document.cut_revision)
                    end as staged_chunks
               from document ",
            $rest
        )
    };
}

pub(super) async fn find(conn: &mut Conn, reach: Reach, id: DocumentId) -> Result<Option<Document>> {
    let row: Option<DocumentRow> = on!(conn, c => sqlx::query_as(select_document!("where tenant_id = $1 and id = $2 and ($3 is null or chatbot_id = $3) and exists (select 1 from source s where s.id = document.source_id and s.deleted_at is null)"))
        .bind(reach.tenant_id).bind(id).bind(reach.chatbot_id).fetch_optional(c).await)?;
    Ok(row.map(Document::from))
}

pub(super) async fn find_by_external_id(
    conn: &mut Conn,
    tenant_id: TenantId,
    source_id: SourceId,
    external_id: &str,
) -> Result<Option<Document>> {
    let row: Option<DocumentRow> = on!(conn, c => sqlx::query_as(select_document!("where tenant_id = $1 and source_id = $2 and external_id = $3"))
        .bind(tenant_id).bind(source_id).bind(external_id).fetch_optional(c).await)?;
    Ok(row.map(Document::from))
}

pub(super) async fn find_by_content(
    conn: &mut Conn,
    tenant_id: TenantId,
    source_id: SourceId,
    content_hash: &str,
) -> Result<Option<Document>> {
    let row: Option<DocumentRow> = on!(conn, c => sqlx::query_as(select_document!("where tenant_id = $1 and source_id = $2 and content_hash = $3 order by id limit 1"))
        .bind(tenant_id).bind(source_id).bind(content_hash).fetch_optional(c).await)?;
    Ok(row.map(Document::from))
}

pub(super) async fn list(
    conn: &mut Conn,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
    page: PageRequest,
) -> Result<Vec<Document>> {
    let rows: Vec<DocumentRow> = on!(conn, c => sqlx::query_as(select_document!("where tenant_id = $1 and chatbot_id = $2 and id < $3 and exists (select 1 from source s where s.id = document.source_id and s.deleted_at is null) order by id desc limit $4"))
        .bind(tenant_id).bind(chatbot_id).bind(page.before).bind(page.limit + 1).fetch_all(c).await)?;
    Ok(rows.into_iter().map(Document::from).collect())
}

/// A source's documents, those in `state` where one is named.
pub(super) async fn list_of_source(
    conn: &mut Conn,
    tenant_id: TenantId,
    source_id: SourceId,
    state: Option<&str>,
    page: PageRequest,
) -> Result<Vec<Document>> {
    let rows: Vec<DocumentRow> = on!(conn, c => sqlx::query_as(select_document!(
        "where tenant_id = $1 and source_id = $2 and ($3 is null or state = $3) and id < $4 order by id desc limit $5"))
        .bind(tenant_id).bind(source_id).bind(state).bind(page.before).bind(page.limit + 1).fetch_all(c).await)?;
    Ok(rows.into_iter().map(Document::from).collect())
}

pub(super) async fn count_of_chatbot(
    conn: &mut Conn,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
) -> Result<i64> {
    Ok(
        on!(conn, c => sqlx::query_scalar("select count(*) from document where tenant_id = $1 and chatbot_id = $2").bind(tenant_id).bind(chatbot_id).fetch_one(c).await)?,
    )
}

/// The source that takes a chatbot's uploads; until the transaction ends, nobody else adds to it.
pub(super) async fn hold_upload_source(
    write: &mut Write,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
) -> Result<Option<SourceId>> {
    // On PostgreSQL the row is held: two uploads of one new file name at once must not both think it is new.
    let lock = write.row_lock();
    let statement = format!(
        "select id from source where tenant_id = $1 and chatbot_id = $2 and kind = 'upload' and deleted_at is null order by id limit 1 {lock}"
    );
    Ok(
        on!(write, c => sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).bind(tenant_id).bind(chatbot_id).fetch_optional(c).await)?,
    )
}

pub(super) async fn list_sources(
    conn: &mut Conn,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
) -> Result<Vec<SourceId>> {
    Ok(
        on!(conn, c => sqlx::query_scalar("select id from source where tenant_id = $1 and chatbot_id = $2 and deleted_at is null order by id").bind(tenant_id).bind(chatbot_id).fetch_all(c).await)?,
    )
}

pub(super) async fn upsert(write: &mut Write, tenant_id: TenantId, document: &Document) -> Result<()> {
    let (error_code, error_message) = match &document.state {
        DocumentState::Failed { code, message } => (Some(code), Some(message)),
        _ => (None, None),
    };
    let upsert = write.put(
        "insert into document (id, tenant_id, chatbot_id, source_id, external_id, title, file_name, format, size_bytes, content_hash,
                               file_key, state, error_code, error_message, chunk_count, token_count, created_at, updated_at, given_title,
                               url, language, tags, access_groups)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 0, 0, $15, $16, $17, $18, $19, $20, $21)
         on conflict (id) do update
            set given_title = excluded.given_title, url = excluded.url, language = excluded.language, format = excluded.format, size_bytes = excluded.size_bytes, content_hash = excluded.content_hash,
                file_key = excluded.file_key, state = excluded.state, error_code = excluded.error_code,
                error_message = excluded.error_message, updated_at = excluded.updated_at, tags = excluded.tags,
                access_groups = excluded.access_groups, read_with = null",
    );
    upsert
        .bind(document.id)
        .bind(tenant_id)
        .bind(document.chatbot_id)
        .bind(document.source_id)
        .bind(&document.external_id)
        .bind(&document.title)
        .bind(&document.file_name)
        .bind(&document.format)
        .bind(document.size_bytes)
        .bind(&document.content_hash)
        .bind(&document.file_key)
        .bind(document.state.name())
        .bind(error_code)
        .bind(error_message)
        .bind(document.created_at)
        .bind(document.updated_at)
        .bind(&document.given_title)
        .bind(&document.url)
        .bind(&document.language)
        .bind(document.labels.tags.as_ref().map(Json))
        .bind(document.labels.access_groups.as_ref().map(Json))
        .run()
        .await
}

/// Fails a document, if it still is of the version in `file_key`. `read_with` is what could not make anything of it.
pub(super) async fn set_failed(
    write: &mut Write,
    tenant_id: TenantId,
    id: DocumentId,
    (file_key, read_with): (&str, &str),
    (code, message): (&str, &str),
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => sqlx::query(
        "update document
            set state = 'failed', error_code = $4, error_message = $5, updated_at = $6, read_with = $7,
                -- Another attempt has chunks of its own: those of this one are being removed.
                cut_revision = cut_revision + 1
          where tenant_id = $1 and id = $2 and file_key = $3",
    ).bind(tenant_id).bind(id).bind(file_key).bind(code).bind(message).bind(now).bind(read_with).execute(c).await.map(drop))?;
    Ok(())
}

/// What the document's file holds.
pub(super) async fn find_kept_as(conn: &mut Conn, tenant_id: TenantId, id: DocumentId) -> Result<KeptAs> {
    let name: Option<String> = on!(conn, c => sqlx::query_scalar("select kept_as from document where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(id).fetch_optional(c).await)?;
    Ok(KeptAs::parse(&name.unwrap_or_default()))
}

/// One part of a document's text.
pub(super) async fn find_text(
    conn: &mut Conn,
    tenant_id: TenantId,
    id: DocumentId,
    part: i64,
) -> Result<Option<TextPart>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select start_char, text, (select min(n.part) from document_text n where n.document_id = t.document_id and n.version = t.version and n.part > t.part) as next_part
           from document_text t
           join document d on d.id = t.document_id
          where t.tenant_id = $1
            and d.tenant_id = $1
            and t.document_id = $2
            and t.part = $3
            and t.version = d.text_version
            and d.indexed_at is not null",
    ).bind(tenant_id).bind(id).bind(part).fetch_optional(c).await)?)
}

pub(super) async fn list_chunks(
    conn: &mut Conn,
    tenant_id: TenantId,
    document_id: DocumentId,
    from: i64,
    limit: i64,
) -> Result<Vec<Chunk>> {
    Ok(on!(conn, c => sqlx::query_as(concat!(
        "select id, position, text, heading, page, start_char, end_char, token_count, edit_id, original_text, is_enabled
           from chunk c
          where tenant_id = $1
            and document_id = $2
            and position >= $3
            and ", is_of_live_cut!("c"), "
            and ", is_shown!("c"), "
            and exists(select 1 from document d where d.tenant_id = $1 and d.id = $2 and d.indexed_at is not null)
          order by position
          limit $4",
    )).bind(tenant_id).bind(document_id).bind(from).bind(limit).fetch_all(c).await)?)
}

/// The ids and content hashes of a document's chunks in one cut, in their order, and what changed them.
pub(super) async fn list_chunk_ids(
    conn: &mut Conn,
    tenant_id: TenantId,
    (document_id, cut): (DocumentId, CutId),
) -> Result<Vec<(ChunkId, String, Option<ChunkEditId>)>> {
    Ok(
        on!(conn, c => sqlx::query_as(concat!("select id, content_hash, edit_id from chunk c where tenant_id = $1 and document_id = $2 and coalesce(cut_id, source_id) = $3 and ", is_shown!("c"), " order by position"))
            .bind(tenant_id).bind(document_id).bind(cut).fetch_all(c).await)?,
    )
}

/// Which of these chunks exist, in whatever version of their documents.
pub(super) async fn list_existing_chunks(
    conn: &mut Conn,
    tenant_id: TenantId,
    ids: &[ChunkId],
) -> Result<HashSet<ChunkId>> {
    let mut existing = HashSet::new();
    for group in ids.chunks(ROWS_AT_ONCE) {
        let found: Vec<ChunkId> = on!(conn, c => {
            let mut query = QueryBuilder::new("select id from chunk where coalesce(tenant_id, tenant_id) = ");
            query.push_bind(tenant_id).push(" and id in (");
            let mut list = query.separated(", ");
            group.iter().for_each(|id| {
                list.push_bind(*id);
            });
            query.push(")");
            query.build_query_scalar().fetch_all(c).await
        })?;
        existing.extend(found);
    }
    Ok(existing)
}

/// Those of these documents that have rows: of whichever chatbot and also hidden ones, or those that one chatbot shows.
pub(super) async fn list_existing_documents(
    conn: &mut Conn,
    (tenant_id, chatbot_id): (TenantId, Option<ChatbotId>),
    ids: &[DocumentId],
) -> Result<HashSet<DocumentId>> {
    let mut existing = HashSet::new();
    for group in ids.chunks(ROWS_AT_ONCE) {
        let found: Vec<DocumentId> = on!(conn, c => {
            let mut query = QueryBuilder::new("select id from document where coalesce(tenant_id, tenant_id) = ");
            query.push_bind(tenant_id);
            if let Some(chatbot_id) = chatbot_id {
                query.push(" and chatbot_id = ").push_bind(chatbot_id);
                query.push(" and exists (select 1 from source s where s.id = document.source_id and s.deleted_at is null)");
            }
            query.push(" and id in (");
            let mut list = query.separated(", ");
            group.iter().for_each(|id| {
                list.push_bind(*id);
            });
            query.push(")");
            query.build_query_scalar().fetch_all(c).await
        })?;
        existing.extend(found);
    }
    Ok(existing)
}

/// A chunk as it is stored.
pub(super) struct ChunkRow {
    pub id: ChunkId,
    pub position: i64,
    /// What stands in front of the text in what is embedded.
    pub context: String,
    pub text: String,
    pub heading: Option<String>,
    pub page: Option<i64>,
    pub start_char: i64,
    pub end_char: i64,
    pub token_count: i64,
    pub prompt_token_count: i64,
    pub content_hash: String,
    pub edit_id: Option<ChunkEditId>,
    pub original_text: Option<String>,
    pub is_enabled: bool,
}
