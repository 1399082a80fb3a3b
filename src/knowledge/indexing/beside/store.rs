//! SQL of documents that are cut beside what answers.

use sqlx::{FromRow, QueryBuilder};

use super::super::store::insert_chunks;
use super::Work;
use crate::db::{Conn, ROWS_AT_ONCE, Write};
use crate::error::Result;
use crate::id::{ChunkEditId, ChunkId, CutId, DocumentId, TenantId};
use crate::knowledge::cut::as_i64;
use crate::knowledge::store::ChunkRow;
use crate::knowledge::stored_chunks::context_of;
use crate::knowledge::versions::is_shown;
use crate::on;

/// Puts chunks in the place of those that the document has at their positions, in the cut that it is worked on for; the ids of
/// these.
pub(super) async fn replace_chunks(
    write: &mut Write,
    tenant_id: TenantId,
    work: &Work,
    chunks: &[&ChunkRow],
) -> Result<Vec<ChunkId>> {
    let (Some(first), Some(last)) = (chunks.first(), chunks.last()) else {
        return Ok(Vec::new());
    };
    let replaced: Vec<ChunkId> = on!(write, c => sqlx::query_scalar(concat!(
        "delete from chunk
          where tenant_id = $1
            and document_id = $2
            and position between $3 and $4
            and coalesce(cut_id, source_id) = $5
            and ", is_shown!("chunk"), "
         returning id",
    )).bind(tenant_id).bind(work.id).bind(first.position).bind(last.position).bind(work.cut).fetch_all(c).await)?;
    // Those that stay, but stood elsewhere.
    for group in chunks.chunks(ROWS_AT_ONCE) {
        on!(write, c => {
            let mut query = QueryBuilder::new("delete from chunk where coalesce(tenant_id, tenant_id) = ");
            query.push_bind(tenant_id).push(" and id in (");
            let mut list = query.separated(", ");
            group.iter().for_each(|chunk| {
                list.push_bind(chunk.id);
            });
            query.push(")");
            query.build().execute(c).await.map(drop)
        })?;
    }
    let rows: Vec<(&Work, &ChunkRow)> = chunks.iter().map(|chunk| (work, *chunk)).collect();
    insert_chunks(write, tenant_id, &rows).await?;
    Ok(replaced)
}

/// Deletes some of the chunks from this position on, in the cut that the document is worked on for; their ids.
pub(super) async fn delete_from(
    write: &mut Write,
    tenant_id: TenantId,
    work: &Work,
    position: i64,
    limit: i64,
) -> Result<Vec<ChunkId>> {
    Ok(on!(write, c => sqlx::query_scalar(concat!(
        "delete from chunk
          where coalesce(tenant_id, tenant_id) = $1
            and id in (select c.id
                         from chunk c
                        where c.tenant_id = $1
                          and c.document_id = $2
                          and c.position >= $3
                          and coalesce(c.cut_id, c.source_id) = $4
                          and ", is_shown!("c"), "
                        limit $5)
         returning id",
    )).bind(tenant_id).bind(work.id).bind(position).bind(work.cut).bind(limit).fetch_all(c).await)?)
}

#[derive(FromRow)]
struct StoredRow {
    id: ChunkId,
    position: i64,
    title: String,
    context: Option<String>,
    text: String,
    heading: Option<String>,
    page: Option<i64>,
    start_char: i64,
    end_char: i64,
    token_count: i64,
    prompt_token_count: i64,
    content_hash: String,
    edit_id: Option<ChunkEditId>,
    original_text: Option<String>,
    is_enabled: bool,
}

impl From<StoredRow> for ChunkRow {
    fn from(row: StoredRow) -> Self {
        let context = row
            .context
            .unwrap_or_else(|| context_of(&row.title, row.heading.as_deref()));
        Self {
            id: row.id,
            position: row.position,
            context,
            text: row.text,
            heading: row.heading,
            page: row.page,
            start_char: row.start_char,
            end_char: row.end_char,
            token_count: row.token_count,
            prompt_token_count: row.prompt_token_count,
            content_hash: row.content_hash,
            edit_id: row.edit_id,
            original_text: row.original_text,
            is_enabled: row.is_enabled,
        }
    }
}

/// The chunks that a document has in a cut from this position on, at most `limit`, in their order.
pub(super) async fn list_rows(
    conn: &mut Conn,
    tenant_id: TenantId,
    (document_id, cut): (DocumentId, CutId),
    from: i64,
    limit: usize,
) -> Result<Vec<ChunkRow>> {
    let rows: Vec<StoredRow> = on!(conn, c => sqlx::query_as(concat!(
        "select c.id, c.position, d.title, c.context, c.text, c.heading, c.page, c.start_char, c.end_char, c.token_count,
                c.prompt_token_count, c.content_hash, c.edit_id, c.original_text, c.is_enabled
           from chunk c
           join document d on d.id = c.document_id
          where c.tenant_id = $1
            and d.tenant_id = $1
            and c.document_id = $2
            and coalesce(c.cut_id, c.source_id) = $3
            and ", is_shown!("c"), "
            and c.position >= $4
          order by c.position
          limit $5",
    )).bind(tenant_id).bind(document_id).bind(cut).bind(from).bind(as_i64(limit)).fetch_all(c).await)?;
    Ok(rows.into_iter().map(ChunkRow::from).collect())
}

/// How a document is called.
pub(super) async fn find_title(
    conn: &mut Conn,
    tenant_id: TenantId,
    id: DocumentId,
) -> Result<Option<String>> {
    Ok(
        on!(conn, c => sqlx::query_scalar("select title from document where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(id).fetch_optional(c).await)?,
    )
}

/// A part of the text that citations of a document count in.
#[derive(FromRow)]
pub(super) struct StoredPart {
    pub part: i64,
    pub start_char: i64,
    pub text: String,
    pub is_last: bool,
}

/// This part of a document's text, or the next one that there is.
pub(super) async fn find_part(
    conn: &mut Conn,
    tenant_id: TenantId,
    (document_id, part): (DocumentId, i64),
) -> Result<Option<StoredPart>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select t.part, t.start_char, t.text,
                not exists (select 1
                              from document_text n
                             where n.document_id = t.document_id
                               and n.version = t.version
                               and n.tenant_id = $1
                               and n.part > t.part) as is_last
           from document_text t
           join document d on d.id = t.document_id
          where t.tenant_id = $1
            and d.tenant_id = $1
            and t.document_id = $2
            and t.version = d.text_version
            and t.part >= $3
          order by t.part
          limit 1",
    ).bind(tenant_id).bind(document_id).bind(part).fetch_optional(c).await)?)
}

/// Characters of a document that a chunk was made of, and what stands above them.
#[derive(FromRow)]
pub(super) struct Stretch {
    pub heading: Option<String>,
    pub page: Option<i64>,
    pub start_char: i64,
    pub end_char: i64,
}

/// What chunks of one cut say of the characters from `first` to `end`, in their order.
pub(super) async fn list_stretches(
    conn: &mut Conn,
    tenant_id: TenantId,
    (document_id, cut): (DocumentId, CutId),
    (first, end): (i64, i64),
) -> Result<Vec<Stretch>> {
    Ok(on!(conn, c => sqlx::query_as(concat!(
        "select heading, page, start_char, end_char
           from chunk
          where tenant_id = $1
            and document_id = $2
            and coalesce(cut_id, source_id) = $3
            and ", is_shown!("chunk"), "
            and start_char < $5
            and end_char > $4
            and start_char < end_char
          order by start_char, position",
    )).bind(tenant_id).bind(document_id).bind(cut).bind(first).bind(end).fetch_all(c).await)?)
}
