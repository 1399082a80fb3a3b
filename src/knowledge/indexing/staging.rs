//! SQL of versions of many chunks: chunks and text wait in tables of their own until all are there, and are swapped in by
//! the database itself.

use sqlx::QueryBuilder;

use super::Work;
use crate::db::{Conn, ROWS_AT_ONCE, Write};
use crate::error::Result;
use crate::id::{ChunkId, DocumentId, TenantId};
use crate::knowledge::cut::as_i64;
use crate::knowledge::store::ChunkRow;
use crate::on;

/// Chunks that one transaction moves or drops, so that others can write in between.
pub(super) const MOVED_AT_ONCE: usize = 1_000;

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

/// A document whose rows are held until the transaction ends.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Holder {
    id: DocumentId,
    file_key: String,
    cut_revision: i64,
    /// The version is being worked on, or will be.
    is_open: bool,
    pub is_given_up: bool,
    /// A version of it answers.
    pub was_indexed: bool,
}

impl Holder {
    /// The file and revision of what must stay; none has an empty key.
    fn kept(&self) -> (&str, i64) {
        if self.is_open {
            (&self.file_key, self.cut_revision)
        } else {
            ("", 0)
        }
    }
}

pub(super) async fn hold(write: &mut Write, tenant_id: TenantId, id: DocumentId) -> Result<Option<Holder>> {
    let lock = write.row_lock();
    Ok(on!(write, c => {
        let mut query = QueryBuilder::new(
            "select id, file_key, cut_revision, state in ('queued', 'processing') as is_open, state = 'failed' as is_given_up,
                    indexed_at is not null as was_indexed
               from document
              where tenant_id = ",
        );
        query.push_bind(tenant_id).push(" and id = ").push_bind(id).push(" ").push(lock);
        query.build_query_as().fetch_optional(c).await
    })?)
}

/// Those of these documents of which something is staged that nobody works on.
pub(super) async fn list_left_behind(
    write: &mut Write,
    tenant_id: TenantId,
    ids: &[DocumentId],
) -> Result<Vec<DocumentId>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    Ok(on!(write, c => {
        let mut query = QueryBuilder::new(
            "select d.id
               from document d
              where exists(select 1
                             from staged_chunk s
                            where s.tenant_id = d.tenant_id
                              and s.document_id = d.id
                              and not (d.state in ('queued', 'processing') and s.file_key = d.file_key and s.cut_revision = d.cut_revision))
                and coalesce(d.tenant_id, d.tenant_id) = ",
        );
        query.push_bind(tenant_id).push(" and d.id in (");
        let mut list = query.separated(", ");
        ids.iter().for_each(|id| {
            list.push_bind(*id);
        });
        query.push(")");
        query.build_query_scalar().fetch_all(c).await
    })?)
}

/// Drops some of the chunks that are staged and that nobody works on; their ids, fewer than [`MOVED_AT_ONCE`] where these
/// were the last.
pub(super) async fn drop_left_behind(
    write: &mut Write,
    tenant_id: TenantId,
    holder: &Holder,
) -> Result<Vec<ChunkId>> {
    let (file_key, cut_revision) = holder.kept();
    Ok(on!(write, c => sqlx::query_scalar(
        "delete from staged_chunk
          where coalesce(tenant_id, tenant_id) = $1
            and (document_id, file_key, cut_revision, position) in (select document_id, file_key, cut_revision, position
                                                                      from staged_chunk
                                                                     where tenant_id = $1
                                                                       and document_id = $2
                                                                       and not (file_key = $3 and cut_revision = $4)
                                                                     limit $5)
         returning id",
    ).bind(tenant_id).bind(holder.id).bind(file_key).bind(cut_revision).bind(as_i64(MOVED_AT_ONCE)).fetch_all(c).await)?)
}

/// Drops the staged text that nobody works on.
pub(super) async fn drop_left_text(write: &mut Write, tenant_id: TenantId, holder: &Holder) -> Result<()> {
    let (file_key, cut_revision) = holder.kept();
    on!(write, c => sqlx::query("delete from staged_text where tenant_id = $1 and document_id = $2 and not (file_key = $3 and cut_revision = $4)")
        .bind(tenant_id).bind(holder.id).bind(file_key).bind(cut_revision).execute(c).await.map(drop))?;
    Ok(())
}

/// Drops chunks of a document no version of which was finished: they were waiting for that.
pub(super) async fn drop_waiting(write: &mut Write, tenant_id: TenantId, ids: &[ChunkId]) -> Result<()> {
    for group in ids.chunks(ROWS_AT_ONCE) {
        on!(write, c => {
            // The tenant stands in an expression: see `ROWS_AT_ONCE`.
            let mut query = QueryBuilder::new("delete from chunk where coalesce(tenant_id, tenant_id) = ");
            query.push_bind(tenant_id).push(" and id in (");
            let mut list = query.separated(", ");
            group.iter().for_each(|id| {
                list.push_bind(*id);
            });
            query.push(")");
            query.build().execute(c).await.map(drop)
        })?;
    }
    Ok(())
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
                                           token_count, prompt_token_count, content_hash, edit_id, original_text, is_enabled, context) ",
            );
            insert.push_values(group, |mut row, chunk| {
                row.push_bind(work.id).push_bind(&work.file_key).push_bind(work.cut_revision).push_bind(chunk.position).push_bind(tenant_id)
                    .push_bind(chunk.id).push_bind(&chunk.text).push_bind(&chunk.heading).push_bind(chunk.page)
                    .push_bind(chunk.start_char).push_bind(chunk.end_char).push_bind(chunk.token_count)
                    .push_bind(chunk.prompt_token_count).push_bind(&chunk.content_hash)
                    .push_bind(chunk.edit_id).push_bind(&chunk.original_text).push_bind(chunk.is_enabled).push_bind(&chunk.context);
            });
            insert.push(
                " on conflict (document_id, file_key, cut_revision, position) do update
                    set id = excluded.id, text = excluded.text, heading = excluded.heading, page = excluded.page, start_char = excluded.start_char,
                        end_char = excluded.end_char, token_count = excluded.token_count, prompt_token_count = excluded.prompt_token_count,
                        content_hash = excluded.content_hash, edit_id = excluded.edit_id, original_text = excluded.original_text,
                        is_enabled = excluded.is_enabled, context = excluded.context",
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

/// How many chunks the document has where answers look.
pub(super) async fn count_present(conn: &mut Conn, tenant_id: TenantId, work: &Work) -> Result<i64> {
    Ok(
        on!(conn, c => sqlx::query_scalar("select count(*) from chunk where tenant_id = $1 and document_id = $2 and coalesce(cut_id, source_id) = $3")
        .bind(tenant_id).bind(work.id).bind(work.cut).fetch_one(c).await)?,
    )
}

/// Chunks of the document that its staged version does not have.
pub(super) async fn list_given_up(conn: &mut Conn, tenant_id: TenantId, work: &Work) -> Result<Vec<ChunkId>> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "select id
           from chunk
          where tenant_id = $1
            and document_id = $2
            and coalesce(cut_id, source_id) = $5
            and id not in (select id from staged_chunk where tenant_id = $1 and document_id = $2 and file_key = $3 and cut_revision = $4)",
    ).bind(tenant_id).bind(work.id).bind(&work.file_key).bind(work.cut_revision).bind(work.cut).fetch_all(c).await)?)
}

/// Puts the staged chunks of these positions among the document's own; returns those that stood there.
pub(super) async fn bring_in_chunks(
    write: &mut Write,
    tenant_id: TenantId,
    work: &Work,
    (from, to): (i64, i64),
) -> Result<Vec<ChunkId>> {
    let replaced = on!(write, c => sqlx::query_scalar("delete from chunk where tenant_id = $1 and document_id = $2 and position >= $3 and position < $4 and coalesce(cut_id, source_id) = $5 returning id")
        .bind(tenant_id).bind(work.id).bind(from).bind(to).bind(work.cut).fetch_all(c).await)?;
    // Those that stay, but stood elsewhere.
    on!(write, c => sqlx::query(
        "delete from chunk
          where coalesce(tenant_id, tenant_id) = $1
            and id in (select id
                         from staged_chunk
                        where tenant_id = $1
                          and document_id = $2
                          and file_key = $3
                          and cut_revision = $4
                          and position >= $5
                          and position < $6)",
    ).bind(tenant_id).bind(work.id).bind(&work.file_key).bind(work.cut_revision).bind(from).bind(to).execute(c).await.map(drop))?;
    on!(write, c => sqlx::query(
        "insert into chunk (id, tenant_id, document_id, source_id, position, text, heading, page, start_char, end_char, token_count,
                            prompt_token_count, content_hash, edit_id, original_text, is_enabled, context, cut_id)
         select id, tenant_id, document_id, $5, position, text, heading, page, start_char, end_char, token_count,
                prompt_token_count, content_hash, edit_id, original_text, is_enabled, context, $8
           from staged_chunk
          where tenant_id = $1
            and document_id = $2
            and file_key = $3
            and cut_revision = $4
            and position >= $6
            and position < $7",
    ).bind(tenant_id).bind(work.id).bind(&work.file_key).bind(work.cut_revision).bind(work.source_id).bind(from).bind(to)
     .bind(work.cut.in_rows(work.source_id))
     .execute(c).await.map(drop))?;
    Ok(replaced)
}

/// Drops some of the chunks from this position on, which an earlier version or attempt left.
pub(super) async fn drop_from(
    write: &mut Write,
    tenant_id: TenantId,
    work: &Work,
    position: i64,
) -> Result<Vec<ChunkId>> {
    Ok(on!(write, c => sqlx::query_scalar(
        "delete from chunk
          where coalesce(tenant_id, tenant_id) = $1
            and id in (select id from chunk where tenant_id = $1 and document_id = $2 and position >= $3 and coalesce(cut_id, source_id) = $5 limit $4)
         returning id",
    ).bind(tenant_id).bind(work.id).bind(position).bind(as_i64(MOVED_AT_ONCE)).bind(work.cut).fetch_all(c).await)?)
}

/// Puts a part of the staged text among the document's own, as [`bring_in_chunks`] does with chunks.
pub(super) async fn bring_in_text(
    write: &mut Write,
    tenant_id: TenantId,
    work: &Work,
    part: i64,
) -> Result<()> {
    on!(write, c => sqlx::query(
        "insert into document_text (document_id, part, tenant_id, content_hash, start_char, text)
         select document_id, part, tenant_id, $5, start_char, text
           from staged_text
          where tenant_id = $1
            and document_id = $2
            and file_key = $3
            and cut_revision = $4
            and part = $6
         on conflict (document_id, part) do update
            set content_hash = excluded.content_hash, start_char = excluded.start_char, text = excluded.text",
    ).bind(tenant_id).bind(work.id).bind(&work.file_key).bind(work.cut_revision).bind(&work.content_hash).bind(part)
     .execute(c).await.map(drop))?;
    Ok(())
}

/// Drops the text behind the last part that an earlier attempt left.
pub(super) async fn drop_text_from(
    write: &mut Write,
    tenant_id: TenantId,
    work: &Work,
    part: i64,
) -> Result<()> {
    on!(write, c => sqlx::query("delete from document_text where tenant_id = $1 and document_id = $2 and part >= $3")
        .bind(tenant_id).bind(work.id).bind(part).execute(c).await.map(drop))?;
    Ok(())
}

/// Puts the staged version in the place of the present one.
pub(super) async fn swap_in(write: &mut Write, tenant_id: TenantId, work: &Work) -> Result<()> {
    on!(write, c => sqlx::query("delete from chunk where tenant_id = $1 and document_id = $2 and coalesce(cut_id, source_id) = $3")
        .bind(tenant_id).bind(work.id).bind(work.cut).execute(c).await.map(drop))?;
    on!(write, c => sqlx::query(
        "insert into chunk (id, tenant_id, document_id, source_id, position, text, heading, page, start_char, end_char, token_count,
                            prompt_token_count, content_hash, edit_id, original_text, is_enabled, context, cut_id)
         select id, tenant_id, document_id, $5, position, text, heading, page, start_char, end_char, token_count,
                prompt_token_count, content_hash, edit_id, original_text, is_enabled, context, $6
           from staged_chunk
          where tenant_id = $1
            and document_id = $2
            and file_key = $3
            and cut_revision = $4",
    ).bind(tenant_id).bind(work.id).bind(&work.file_key).bind(work.cut_revision).bind(work.source_id)
     .bind(work.cut.in_rows(work.source_id)).execute(c).await.map(drop))?;
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
