//! SQL of indexing.

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use sqlx::{FromRow, QueryBuilder};

use super::Work;
use crate::db::{Conn, Write};
use crate::error::Result;
use crate::id::{ChatbotId, DocumentId, SourceId, SyncRunId, TenantId};
use crate::knowledge::chunks::Chunking;
use crate::knowledge::reading::KeptAs;
use crate::on;

#[derive(FromRow)]
struct WorkRow {
    id: DocumentId,
    chatbot_id: ChatbotId,
    source_id: SourceId,
    given_title: Option<String>,
    external_id: String,
    file_name: String,
    format: String,
    content_hash: String,
    file_key: String,
    kept_as: String,
    run_id: Option<SyncRunId>,
    embedding_model: Option<String>,
    state: String,
    error_code: Option<String>,
    indexed_at: Option<DateTime<Utc>>,
    cut_revision: i64,
    chunking: Option<Json<Chunking>>,
    has_edits: bool,
}

/// A document as an indexing job finds it.
pub(super) struct Found {
    pub work: Work,
    pub state: String,
    pub error_code: Option<String>,
}

/// Those of these documents that there are.
pub(super) async fn list(conn: &mut Conn, tenant_id: TenantId, ids: &[DocumentId]) -> Result<Vec<Found>> {
    let rows: Vec<WorkRow> = on!(conn, c => {
        let mut query = QueryBuilder::new(
            "select d.id, d.chatbot_id, d.source_id, d.external_id, d.given_title, d.file_name, d.format, d.content_hash, d.file_key, d.kept_as, d.run_id,
                    d.embedding_model, d.state, d.error_code, d.indexed_at, d.cut_revision, s.chunking,
                    exists(select 1
                             from chunk_edit e
                            where e.tenant_id = d.tenant_id
                              and e.source_id = d.source_id
                              and e.external_id = d.external_id) as has_edits
               from document d
               join source s on s.id = d.source_id
              where d.tenant_id = ",
        );
        query.push_bind(tenant_id).push(" and d.id in (");
        let mut list = query.separated(", ");
        ids.iter().for_each(|id| {
            list.push_bind(*id);
        });
        query.push(")");
        query.build_query_as().fetch_all(c).await
    })?;
    let found = rows.into_iter().map(|row| Found {
        work: Work {
            id: row.id,
            chatbot_id: row.chatbot_id,
            source_id: row.source_id,
            given_title: row.given_title,
            external_id: row.external_id,
            file_name: row.file_name,
            format: row.format,
            content_hash: row.content_hash,
            file_key: row.file_key,
            kept_as: KeptAs::parse(&row.kept_as),
            run_id: row.run_id,
            embedding_model: row.embedding_model,
            was_indexed: row.indexed_at.is_some(),
            cut_revision: row.cut_revision,
            chunking: row.chunking.map(|Json(chunking)| chunking).unwrap_or_default(),
            has_edits: row.has_edits,
        },
        state: row.state,
        error_code: row.error_code,
    });
    Ok(found.collect())
}

/// Marks documents as being worked on.
pub(super) async fn set_processing(
    write: &mut Write,
    tenant_id: TenantId,
    work: &[Work],
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => {
        let mut query = QueryBuilder::new("update document set state = 'processing', error_code = null, error_message = null, updated_at = ");
        query.push_bind(now).push(" where tenant_id = ").push_bind(tenant_id).push(" and state <> 'indexed' and id in (");
        let mut list = query.separated(", ");
        work.iter().for_each(|work| {
            list.push_bind(work.id);
        });
        query.push(")");
        query.build().execute(c).await.map(drop)
    })?;
    Ok(())
}

/// Which file the document has now; none when it is gone.
pub(super) async fn find_file_key(
    conn: &mut Conn,
    tenant_id: TenantId,
    id: DocumentId,
) -> Result<Option<String>> {
    Ok(
        on!(conn, c => sqlx::query_scalar("select file_key from document where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(id).fetch_optional(c).await)?,
    )
}

/// Forgets what is known of the page or file that a document came from: the next run reads it as if it were new.
pub(super) async fn forget_item(write: &mut Write, tenant_id: TenantId, id: DocumentId) -> Result<()> {
    on!(write, c => sqlx::query(
        "update source_item
            set known_as = null, etag = null, last_modified = null, read_version = null, body_hash = null, text_hash = null
          where tenant_id = $1
            and document_id = $2",
    ).bind(tenant_id).bind(id).execute(c).await.map(drop))?;
    Ok(())
}

/// Fails this version of a document, if it is waiting or being worked on.
pub(in crate::knowledge) async fn fail_unfinished(
    write: &mut Write,
    tenant_id: TenantId,
    (id, file_key): (DocumentId, &str),
    (code, message): (&str, &str),
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => sqlx::query(
        "update document
            set state = 'failed', error_code = $4, error_message = $5, updated_at = $6
          where tenant_id = $1
            and id = $2
            and file_key = $3
            and state in ('queued', 'processing')",
    ).bind(tenant_id).bind(id).bind(file_key).bind(code).bind(message).bind(now).execute(c).await.map(drop))?;
    Ok(())
}

/// Counts a batch of texts that was sent to the embedding model for documents of a run.
pub(super) async fn count_embedding_call(
    write: &mut Write,
    tenant_id: TenantId,
    run_id: SyncRunId,
) -> Result<()> {
    on!(write, c => sqlx::query("update sync_run set embedding_calls = embedding_calls + 1 where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(run_id).execute(c).await.map(drop))?;
    Ok(())
}
