//! SQL of versions that are too large for one transaction's memory: their chunks and text wait in tables of their own
//! until all are there, and are swapped in by the database itself.

use sqlx::QueryBuilder;

use super::Work;
use crate::db::{Conn, ROWS_AT_ONCE, Write};
use crate::error::Result;
use crate::id::{ChunkId, TenantId};
use crate::knowledge::store::ChunkRow;
use crate::on;

/// What is staged of a version.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Totals {
    pub chunk_count: i64,
    pub token_count: i64,
}

/// The staged chunks of this version, with their content hashes: the index holds them.
pub(super) async fn list(
    conn: &mut Conn,
    tenant_id: TenantId,
    work: &Work,
) -> Result<Vec<(ChunkId, String)>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select id, content_hash from staged_chunk where tenant_id = $1 and document_id = $2 and file_key = $3 and cut_revision = $4",
    ).bind(tenant_id).bind(work.id).bind(&work.file_key).bind(work.cut_revision).fetch_all(c).await)?)
}

/// Drops what is staged of other versions of the document; the ids of their chunks.
pub(super) async fn drop_others(write: &mut Write, tenant_id: TenantId, work: &Work) -> Result<Vec<ChunkId>> {
    let ids: Vec<ChunkId> = on!(write, c => sqlx::query_scalar(
        "delete from staged_chunk where tenant_id = $1 and document_id = $2 and (file_key <> $3 or cut_revision <> $4) returning id",
    ).bind(tenant_id).bind(work.id).bind(&work.file_key).bind(work.cut_revision).fetch_all(c).await)?;
    on!(write, c => sqlx::query("delete from staged_text where tenant_id = $1 and document_id = $2 and (file_key <> $3 or cut_revision <> $4)")
        .bind(tenant_id).bind(work.id).bind(&work.file_key).bind(work.cut_revision).execute(c).await.map(drop))?;
    Ok(ids)
}

/// Drops what is staged of this version; the ids of its chunks.
pub(super) async fn drop_own(write: &mut Write, tenant_id: TenantId, work: &Work) -> Result<Vec<ChunkId>> {
    let ids: Vec<ChunkId> = on!(write, c => sqlx::query_scalar(
        "delete from staged_chunk where tenant_id = $1 and document_id = $2 and file_key = $3 and cut_revision = $4 returning id",
    ).bind(tenant_id).bind(work.id).bind(&work.file_key).bind(work.cut_revision).fetch_all(c).await)?;
    on!(write, c => sqlx::query("delete from staged_text where tenant_id = $1 and document_id = $2 and file_key = $3 and cut_revision = $4")
        .bind(tenant_id).bind(work.id).bind(&work.file_key).bind(work.cut_revision).execute(c).await.map(drop))?;
    Ok(ids)
}

/// Stages chunks; those of an earlier attempt are replaced.
pub(super) async fn insert_chunks(
    write: &mut Write,
    tenant_id: TenantId,
    work: &Work,
    chunks: &[&ChunkRow],
) -> Result<()> {
    for group in chunks.chunks(ROWS_AT_ONCE) {
        on!(write, c => {
            let mut insert = QueryBuilder::new(
                "insert into staged_chunk (document_id, file_key, cut_revision, position, tenant_id, id, text, heading, page, start_char, end_char,
                                           token_count, prompt_token_count, content_hash, edit_id, original_text, is_enabled) ",
            );
            insert.push_values(group, |mut row, chunk| {
                row.push_bind(work.id).push_bind(&work.file_key).push_bind(work.cut_revision).push_bind(chunk.position).push_bind(tenant_id)
                    .push_bind(chunk.id).push_bind(&chunk.text).push_bind(&chunk.heading).push_bind(chunk.page)
                    .push_bind(chunk.start_char).push_bind(chunk.end_char).push_bind(chunk.token_count)
                    .push_bind(chunk.prompt_token_count).push_bind(&chunk.content_hash)
                    .push_bind(chunk.edit_id).push_bind(&chunk.original_text).push_bind(chunk.is_enabled);
            });
            insert.push(
                " on conflict (document_id, file_key, cut_revision, position) do update
                    set id = excluded.id, text = excluded.text, heading = excluded.heading, page = excluded.page, start_char = excluded.start_char,
                        end_char = excluded.end_char, token_count = excluded.token_count, prompt_token_count = excluded.prompt_token_count,
                        content_hash = excluded.content_hash, edit_id = excluded.edit_id, original_text = excluded.original_text,
                        is_enabled = excluded.is_enabled",
            );
            insert.build().execute(c).await.map(drop)
        })?;
    }
    Ok(())
}

/// Stages a part of the text.
pub(super) async fn insert_text(
    write: &mut Write,
    tenant_id: TenantId,
    work: &Work,
    (part, start_char): (i64, i64),
    text: &str,
) -> Result<()> {
    on!(write, c => sqlx::query(
        "insert into staged_text (document_id, file_key, cut_revision, part, tenant_id, start_char, text) values ($1, $2, $3, $4, $5, $6, $7)
         on conflict (document_id, file_key, cut_revision, part) do update set start_char = excluded.start_char, text = excluded.text",
    ).bind(work.id).bind(&work.file_key).bind(work.cut_revision).bind(part).bind(tenant_id).bind(start_char).bind(text)
     .execute(c).await.map(drop))?;
    Ok(())
}

/// How many parts of this version are staged, each with its chunks.
pub(super) async fn count_parts(conn: &mut Conn, tenant_id: TenantId, work: &Work) -> Result<i64> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "select count(*) from staged_text where tenant_id = $1 and document_id = $2 and file_key = $3 and cut_revision = $4",
    ).bind(tenant_id).bind(work.id).bind(&work.file_key).bind(work.cut_revision).fetch_one(c).await)?)
}

/// What is staged of this version.
pub(super) async fn count(conn: &mut Conn, tenant_id: TenantId, work: &Work) -> Result<Totals> {
    Ok(on!(conn, c => sqlx::query_as(
        "select count(*) as chunk_count, cast(coalesce(sum(token_count), 0) as bigint) as token_count
           from staged_chunk
          where tenant_id = $1
            and document_id = $2
            and file_key = $3
            and cut_revision = $4",
    ).bind(tenant_id).bind(work.id).bind(&work.file_key).bind(work.cut_revision).fetch_one(c).await)?)
}

/// Chunks of the document that its staged version does not have.
pub(super) async fn list_given_up(conn: &mut Conn, tenant_id: TenantId, work: &Work) -> Result<Vec<ChunkId>> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "select id
           from chunk
          where tenant_id = $1
            and document_id = $2
            and id not in (select id from staged_chunk where tenant_id = $1 and document_id = $2 and file_key = $3 and cut_revision = $4)",
    ).bind(tenant_id).bind(work.id).bind(&work.file_key).bind(work.cut_revision).fetch_all(c).await)?)
}

/// Puts the staged version in the place of the present one.
pub(super) async fn swap_in(write: &mut Write, tenant_id: TenantId, work: &Work) -> Result<()> {
    on!(write, c => sqlx::query("delete from chunk where tenant_id = $1 and document_id = $2").bind(tenant_id).bind(work.id).execute(c).await.map(drop))?;
    on!(write, c => sqlx::query(
        "insert into chunk (id, tenant_id, document_id, source_id, position, text, heading, page, start_char, end_char, token_count,
                            prompt_token_count, content_hash, edit_id, original_text, is_enabled)
         select id, tenant_id, document_id, $5, position, text, heading, page, start_char, end_char, token_count,
                prompt_token_count, content_hash, edit_id, original_text, is_enabled
           from staged_chunk
          where tenant_id = $1
            and document_id = $2
            and file_key = $3
            and cut_revision = $4",
    ).bind(tenant_id).bind(work.id).bind(&work.file_key).bind(work.cut_revision).bind(work.source_id).execute(c).await.map(drop))?;
    on!(write, c => sqlx::query("delete from document_text where tenant_id = $1 and document_id = $2").bind(tenant_id).bind(work.id).execute(c).await.map(drop))?;
    on!(write, c => sqlx::query(
        "insert into document_text (document_id, part, tenant_id, content_hash, start_char, text)
         select document_id, part, tenant_id, $5, start_char, text
           from staged_text
          where tenant_id = $1
            and document_id = $2
            and file_key = $3
            and cut_revision = $4",
    ).bind(tenant_id).bind(work.id).bind(&work.file_key).bind(work.cut_revision).bind(&work.content_hash).execute(c).await.map(drop))?;
    Ok(())
}
