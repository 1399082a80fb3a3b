//! SQL of changed chunks and of how sources are cut.

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use sqlx::types::Json;

use super::{Chunking, Edit, EditKind, Verdict, passage_hash};
use crate::db::{Conn, Write};
use crate::error::Result;
use crate::id::{ChunkEditId, ChunkId, DocumentId, SourceId, TenantId};
use crate::knowledge::cuts::{self, is_of_live_cut};
use crate::knowledge::versions::{self, is_shown};
use crate::knowledge::{Chunk, Document};
use crate::on;

#[derive(FromRow)]
struct EditRow {
    id: ChunkEditId,
    kind: String,
    original_text: Option<String>,
    original_hash: Option<String>,
    repeat: i64,
    heading: Option<String>,
    text: Option<String>,
    is_enabled: bool,
    is_stale: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<EditRow> for Edit {
    fn from(row: EditRow) -> Self {
        Self {
            id: row.id,
            kind: if row.kind == EditKind::Change.name() {
                EditKind::Change
            } else {
                EditKind::Addition
            },
            original_text: row.original_text,
            original_hash: row.original_hash,
            repeat: row.repeat,
            heading: row.heading,
            text: row.text,
            is_enabled: row.is_enabled,
            is_stale: row.is_stale,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// What was changed in a document's chunks, oldest first.
pub(in crate::knowledge) async fn list_edits(
    conn: &mut Conn,
    tenant_id: TenantId,
    source_id: SourceId,
    external_id: &str,
) -> Result<Vec<Edit>> {
    let rows: Vec<EditRow> = on!(conn, c => sqlx::query_as(
        "select id, kind, original_text, original_hash, repeat, heading, text, is_enabled, is_stale, created_at, updated_at
           from chunk_edit
          where tenant_id = $1
            and source_id = $2
            and external_id = $3
          order by id",
    ).bind(tenant_id).bind(source_id).bind(external_id).fetch_all(c).await)?;
    Ok(rows.into_iter().map(Edit::from).collect())
}

/// Changes of a document that rest, behind the one with the id `after`, oldest first.
pub(super) async fn list_resting(
    conn: &mut Conn,
    tenant_id: TenantId,
    (source_id, external_id): (SourceId, &str),
    after: Option<ChunkEditId>,
    limit: i64,
) -> Result<Vec<Edit>> {
    let rows: Vec<EditRow> = on!(conn, c => sqlx::query_as(
        "select id, kind, original_text, original_hash, repeat, heading, text, is_enabled, is_stale, created_at, updated_at
           from chunk_edit
          where tenant_id = $1
            and source_id = $2
            and external_id = $3
            and is_stale
            and ($4 is null or id > $4)
          order by id
          limit $5",
    ).bind(tenant_id).bind(source_id).bind(external_id).bind(after).bind(limit).fetch_all(c).await)?;
    Ok(rows.into_iter().map(Edit::from).collect())
}

/// Changes that rest in the documents that a source has.
pub(in crate::knowledge) async fn count_resting(
    conn: &mut Conn,
    tenant_id: TenantId,
    source_id: SourceId,
) -> Result<i64> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "select count(*)
           from chunk_edit e
           join document d on d.tenant_id = $1 and d.source_id = $2 and d.external_id = e.external_id
          where e.tenant_id = $1
            and e.source_id = $2
            and e.is_stale",
    ).bind(tenant_id).bind(source_id).fetch_one(c).await)?)
}

pub(super) async fn insert_edit(
    write: &mut Write,
    tenant_id: TenantId,
    (source_id, external_id): (SourceId, &str),
    edit: &Edit,
) -> Result<()> {
    // A change of the same passage that rests gives way: it was made to words that came back under other eyes.
    on!(write, c => sqlx::query("delete from chunk_edit where tenant_id = $1 and source_id = $2 and external_id = $3 and original_hash = $4 and repeat = $5")
        .bind(tenant_id).bind(source_id).bind(external_id).bind(&edit.original_hash).bind(edit.repeat).execute(c).await.map(drop))?;
    on!(write, c => sqlx::query(
        "insert into chunk_edit (id, tenant_id, source_id, external_id, kind, original_text, original_hash, repeat, heading, text,
                                 is_enabled, is_stale, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    ).bind(edit.id).bind(tenant_id).bind(source_id).bind(external_id).bind(edit.kind.name()).bind(&edit.original_text)
     .bind(&edit.original_hash).bind(edit.repeat).bind(&edit.heading).bind(&edit.text).bind(edit.is_enabled).bind(edit.is_stale)
     .bind(edit.created_at).bind(edit.updated_at).execute(c).await.map(drop))?;
    Ok(())
}

pub(super) async fn update_edit(
    write: &mut Write,
    tenant_id: TenantId,
    id: ChunkEditId,
    text: Option<&str>,
    is_enabled: bool,
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => sqlx::query("update chunk_edit set text = $3, is_enabled = $4, updated_at = $5 where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(id).bind(text).bind(is_enabled).bind(now).execute(c).await.map(drop))?;
    Ok(())
}

/// Says of changes whether their passages are absent, and which passages they belong to from now on.
pub(in crate::knowledge) async fn set_stale(
    write: &mut Write,
    tenant_id: TenantId,
    verdicts: &[Verdict],
) -> Result<()> {
    for verdict in verdicts {
        on!(write, c => sqlx::query("update chunk_edit set is_stale = $3 where tenant_id = $1 and id = $2 and is_stale <> $3")
            .bind(tenant_id).bind(verdict.id).bind(verdict.is_stale).execute(c).await.map(drop))?;
        if let Some(passage) = &verdict.moved_to {
            on!(write, c => sqlx::query(
                "update chunk_edit
                    set original_text = $3, original_hash = $4, repeat = $5
                  where tenant_id = $1
                    and id = $2
                    and not exists (select 1
                                      from chunk_edit other
                                     where other.tenant_id = $1
                                       and other.source_id = chunk_edit.source_id
                                       and other.external_id = chunk_edit.external_id
                                       and other.original_hash = $4
                                       and other.repeat = $5
                                       and other.id <> $2)",
            ).bind(tenant_id).bind(verdict.id).bind(&passage.text).bind(passage_hash(&passage.text)).bind(passage.repeat)
             .execute(c).await.map(drop))?;
        }
    }
    Ok(())
}

pub(super) async fn delete_edit(write: &mut Write, tenant_id: TenantId, id: ChunkEditId) -> Result<()> {
    on!(write, c => sqlx::query("delete from chunk_edit where tenant_id = $1 and id = $2").bind(tenant_id).bind(id).execute(c).await.map(drop))?;
    Ok(())
}

/// Drops a change of this document that rests; false when there is none.
pub(super) async fn delete_stale_edit(
    write: &mut Write,
    tenant_id: TenantId,
    (source_id, external_id): (SourceId, &str),
    id: ChunkEditId,
) -> Result<bool> {
    let deleted: Option<ChunkEditId> = on!(write, c => sqlx::query_scalar(
        "delete from chunk_edit where tenant_id = $1 and source_id = $2 and external_id = $3 and id = $4 and is_stale returning id",
    ).bind(tenant_id).bind(source_id).bind(external_id).bind(id).fetch_optional(c).await)?;
    Ok(deleted.is_some())
}

/// The document is about to be called `external_id`: what was changed in its chunks goes with it, unless a document of
/// that name has changes of its own.
pub(in crate::knowledge) async fn rename_edits(
    write: &mut Write,
    tenant_id: TenantId,
    id: DocumentId,
    external_id: &str,
) -> Result<()> {
    on!(write, c => sqlx::query(
        "update chunk_edit
            set external_id = $3
          where tenant_id = $1
            and external_id <> $3
            and (source_id, external_id) in (select source_id, external_id from document where tenant_id = $1 and id = $2)
            and not exists (select 1
                              from chunk_edit other
                             where other.tenant_id = $1
                               and other.source_id = chunk_edit.source_id
                               and other.external_id = $3)",
    ).bind(tenant_id).bind(id).bind(external_id).execute(c).await.map(drop))?;
    Ok(())
}

/// Drops all changes of a document.
pub(in crate::knowledge) async fn delete_edits(
    write: &mut Write,
    tenant_id: TenantId,
    source_id: SourceId,
    external_id: &str,
) -> Result<()> {
    on!(write, c => sqlx::query("delete from chunk_edit where tenant_id = $1 and source_id = $2 and external_id = $3")
        .bind(tenant_id).bind(source_id).bind(external_id).execute(c).await.map(drop))?;
    Ok(())
}

pub(super) async fn count_additions(
    conn: &mut Conn,
    tenant_id: TenantId,
    (source_id, external_id): (SourceId, &str),
) -> Result<i64> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "select count(*) from chunk_edit where tenant_id = $1 and source_id = $2 and external_id = $3 and kind = 'addition'",
    ).bind(tenant_id).bind(source_id).bind(external_id).fetch_one(c).await)?)
}

pub(super) async fn find_chunk(
    conn: &mut Conn,
    tenant_id: TenantId,
    document_id: DocumentId,
    id: ChunkId,
) -> Result<Option<Chunk>> {
    Ok(on!(conn, c => sqlx::query_as(concat!(
        "select id, position, text, heading, page, start_char, end_char, token_count, edit_id, original_text, is_enabled
           from chunk c
          where tenant_id = $1
            and document_id = $2
            and id = $3
            and ", is_of_live_cut!("c"), "
            and ", is_shown!("c")
    )).bind(tenant_id).bind(document_id).bind(id).fetch_optional(c).await)?)
}

/// How many chunks before this one have the same words in the document.
pub(super) async fn count_before(
    conn: &mut Conn,
    tenant_id: TenantId,
    document_id: DocumentId,
    chunk: &Chunk,
) -> Result<i64> {
    Ok(on!(conn, c => sqlx::query_scalar(concat!(
        "select count(*)
           from chunk c
          where tenant_id = $1
            and document_id = $2
            and position < $3
            and start_char < end_char
            and coalesce(original_text, text) = $4
            and ", is_of_live_cut!("c"), "
            and ", is_shown!("c")
    )).bind(tenant_id).bind(document_id).bind(chunk.position).bind(&chunk.text).fetch_one(c).await)?)
}

/// The position after the last chunk, and where its text ends.
pub(super) async fn find_end(
    conn: &mut Conn,
    tenant_id: TenantId,
    document_id: DocumentId,
) -> Result<(i64, i64)> {
    Ok(on!(conn, c => sqlx::query_as(concat!(
        "select coalesce(max(position) + 1, 0), coalesce(max(end_char), 0)
           from chunk c
          where tenant_id = $1
            and document_id = $2
            and ", is_of_live_cut!("c"), "
            and ", is_shown!("c")
    )).bind(tenant_id).bind(document_id).fetch_one(c).await)?)
}

/// Writes a changed chunk. One with `has_new_text` has no content hash until it is embedded, so that nothing takes the
/// index's vector for its own.
pub(super) async fn update_chunk(
    write: &mut Write,
    tenant_id: TenantId,
    chunk: &Chunk,
    prompt_token_count: i64,
    has_new_text: bool,
) -> Result<()> {
    on!(write, c => sqlx::query(
        "update chunk
            set text = $3, original_text = $4, edit_id = $5, is_enabled = $6, token_count = $7, prompt_token_count = $8,
                content_hash = case when $9 then '' else content_hash end
          where tenant_id = $1
            and id = $2",
    ).bind(tenant_id).bind(chunk.id).bind(&chunk.text).bind(&chunk.original_text).bind(chunk.edit_id).bind(chunk.is_enabled)
     .bind(chunk.token_count).bind(prompt_token_count).bind(has_new_text).execute(c).await.map(drop))?;
    Ok(())
}

pub(super) async fn insert_chunk(
    write: &mut Write,
    tenant_id: TenantId,
    document: &Document,
    chunk: &Chunk,
    prompt_token_count: i64,
) -> Result<()> {
    let cut = cuts::find_live(write, tenant_id, document.source_id).await?;
    let shown = versions::list_shown(write, tenant_id, &[document.id]).await?;
    let version = shown.get(&(document.id, cut)).copied().unwrap_or_default();
    on!(write, c => sqlx::query(
        "insert into chunk (id, tenant_id, document_id, source_id, position, text, heading, page, start_char, end_char, token_count,
                            prompt_token_count, content_hash, edit_id, original_text, is_enabled, cut_id, version)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, '', $13, $14, $15, $16, $17)",
    ).bind(chunk.id).bind(tenant_id).bind(document.id).bind(document.source_id).bind(chunk.position).bind(&chunk.text)
     .bind(&chunk.heading).bind(chunk.page).bind(chunk.start_char).bind(chunk.end_char).bind(chunk.token_count)
     .bind(prompt_token_count).bind(chunk.edit_id).bind(&chunk.original_text).bind(chunk.is_enabled)
     .bind(cut.in_rows(document.source_id)).bind(version).execute(c).await.map(drop))?;
    count_chunks(write, tenant_id, document.id, 1).await
}

pub(super) async fn delete_chunk(
    write: &mut Write,
    tenant_id: TenantId,
    document_id: DocumentId,
    id: ChunkId,
) -> Result<()> {
    on!(write, c => sqlx::query("delete from chunk where tenant_id = $1 and document_id = $2 and id = $3")
        .bind(tenant_id).bind(document_id).bind(id).execute(c).await.map(drop))?;
    count_chunks(write, tenant_id, document_id, -1).await
}

async fn count_chunks(write: &mut Write, tenant_id: TenantId, id: DocumentId, by: i64) -> Result<()> {
    on!(write, c => sqlx::query("update document set chunk_count = chunk_count + $3 where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(id).bind(by).execute(c).await.map(drop))?;
    Ok(())
}

/// Counts a change of how the document is cut; the state it is in.
pub(super) async fn revise(write: &mut Write, tenant_id: TenantId, id: DocumentId) -> Result<Option<String>> {
    Ok(
        on!(write, c => sqlx::query_scalar("update document set cut_revision = cut_revision + 1 where tenant_id = $1 and id = $2 returning state")
        .bind(tenant_id).bind(id).fetch_optional(c).await)?,
    )
}

pub(super) async fn set_queued(write: &mut Write, tenant_id: TenantId, id: DocumentId) -> Result<()> {
    on!(write, c => sqlx::query("update document set state = 'queued' where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(id).execute(c).await.map(drop))?;
    Ok(())
}

pub(super) async fn find_chunking(
    conn: &mut Conn,
    tenant_id: TenantId,
    source_id: SourceId,
) -> Result<Option<Json<Chunking>>> {
    let stored: Option<Option<Json<Chunking>>> = on!(conn, c => sqlx::query_scalar("select chunking from source where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(source_id).fetch_optional(c).await)?;
    Ok(stored.flatten())
}

pub(super) async fn set_chunking(
    write: &mut Write,
    tenant_id: TenantId,
    source_id: SourceId,
    chunking: &Chunking,
) -> Result<()> {
    on!(write, c => sqlx::query("update source set chunking = $3 where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(source_id).bind(Json(chunking)).execute(c).await.map(drop))?;
    Ok(())
}
