//! SQL of versions that are brought in bit by bit: their chunks and texts stand in their place with a number that is not
//! shown, until one row says that it is, and nobody reads what it replaced from then on.

use sqlx::{FromRow, QueryBuilder};
use uuid::Uuid;

use super::Work;
use crate::db::{Conn, Write};
use crate::error::Result;
use crate::id::{ChunkId, CutId, DocumentId, TenantId};
use crate::knowledge::cut::as_i64;
use crate::on;

/// Chunks that one transaction puts in or drops, so that others can write in between.
pub(super) const MOVED_AT_ONCE: usize = 1_000;

/// Parts of a text, of some megabytes each, that one transaction drops.
const PARTS_AT_ONCE: i64 = 8;

/// A version that waits to be whole, in the hands of one attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub number: i64,
    /// Earlier attempts worked on it.
    pub was_begun: bool,
    /// The index holds its chunks before this position.
    pub ready_to: i64,
    attempt: Uuid,
}

/// A version that is brought in, or taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub(super) struct Version {
    document_id: DocumentId,
    cut_id: CutId,
    number: i64,
}

impl Version {
    pub(super) const fn of(work: &Work, waiting: &Waiting) -> Self {
        Self {
            document_id: work.id,
            cut_id: work.cut,
            number: waiting.number,
        }
    }
}

/// Takes over what earlier attempts brought in of this version, which is held. They bring in no more.
pub(super) async fn take_up(write: &mut Write, tenant_id: TenantId, work: &Work) -> Result<Waiting> {
    let attempt = Uuid::now_v7();
    let begun: Option<(i64, i64)> = on!(write, c => sqlx::query_as(
        "update document_version
            set attempt = $6
          where tenant_id = $1
            and document_id = $2
            and cut_id = $3
            and file_key = $4
            and cut_revision = $5
            and state = 'waiting'
         returning number, ready_to",
    ).bind(tenant_id).bind(work.id).bind(work.cut).bind(&work.file_key).bind(work.cut_revision).bind(attempt)
     .fetch_optional(c).await)?;
    let was_begun = begun.is_some();
    let (number, ready_to) = match begun {
        Some(begun) => begun,
        None => (insert(write, tenant_id, work, attempt).await?, 0),
    };
    Ok(Waiting {
        number,
        was_begun,
        ready_to,
        attempt,
    })
}

/// Begins a version, with a number that no row has, and no text of one that is being dropped; it.
async fn insert(write: &mut Write, tenant_id: TenantId, work: &Work, attempt: Uuid) -> Result<i64> {
    Ok(on!(write, c => sqlx::query_scalar(
        "insert into document_version (document_id, cut_id, number, tenant_id, state, file_key, cut_revision, ready_to, attempt)
         select d.id, $3, 1 + coalesce((select max(taken.number)
                                            from (select v.number from document_version v where v.document_id = $2 and v.tenant_id = $1
                                                  union all
                                                  select t.version from document_text t where t.document_id = $2 and t.tenant_id = $1) taken), 0),
                d.tenant_id, 'waiting', $4, $5, 0, $6
           from document d
          where d.tenant_id = $1
            and d.id = $2
         returning number",
    ).bind(tenant_id).bind(work.id).bind(work.cut).bind(&work.file_key).bind(work.cut_revision).bind(attempt)
     .fetch_one(c).await)?)
}

/// Whether the version still waits, and which attempt has it: this one. The document is held.
pub(super) async fn find_holder(
    write: &mut Write,
    tenant_id: TenantId,
    work: &Work,
    waiting: &Waiting,
) -> Result<Option<bool>> {
    let attempt: Option<Option<Uuid>> = on!(write, c => sqlx::query_scalar(
        "select attempt from document_version where tenant_id = $1 and document_id = $2 and cut_id = $3 and number = $4 and state = 'waiting'",
    ).bind(tenant_id).bind(work.id).bind(work.cut).bind(waiting.number).fetch_optional(c).await)?;
    Ok(attempt.map(|attempt| attempt == Some(waiting.attempt)))
}

/// A chunk that an earlier attempt brought in.
#[derive(Debug, PartialEq, Eq, FromRow)]
pub(super) struct ReadyRow {
    pub id: ChunkId,
    pub content_hash: String,
    pub start_char: i64,
    pub end_char: i64,
}

/// The chunks of this version that the index holds, in their order.
pub(super) async fn list_ready(
    conn: &mut Conn,
    tenant_id: TenantId,
    work: &Work,
    waiting: &Waiting,
) -> Result<Vec<ReadyRow>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select id, content_hash, start_char, end_char
           from chunk
          where tenant_id = $1
            and document_id = $2
            and version = $3
            and position < $4
          order by position",
    ).bind(tenant_id).bind(work.id).bind(waiting.number).bind(waiting.ready_to).fetch_all(c).await)?)
}

/// Says that the index holds the chunks of this version before the position.
pub(super) async fn set_ready(
    write: &mut Write,
    tenant_id: TenantId,
    version: Version,
    ready_to: i64,
) -> Result<()> {
    let update = write.put(
        "update document_version set ready_to = $5 where tenant_id = $1 and document_id = $2 and cut_id = $3 and number = $4",
    );
    let update = update
        .bind(tenant_id)
        .bind(version.document_id)
        .bind(version.cut_id);
    update.bind(version.number).bind(ready_to).run().await
}

/// Puts a part of the text in.
pub(super) async fn put_text(
    write: &mut Write,
    tenant_id: TenantId,
    work: &Work,
    (number, part, start_char): (i64, i64, i64),
    text: &str,
) -> Result<()> {
    let insert = write.put(
        "insert into document_text (document_id, version, part, tenant_id, content_hash, start_char, text) values ($1, $2, $3, $4, $5, $6, $7)
         on conflict (document_id, version, part) do update
            set content_hash = excluded.content_hash, start_char = excluded.start_char, text = excluded.text",
    );
    let insert = insert.bind(work.id).bind(number).bind(part).bind(tenant_id);
    insert
        .bind(work.content_hash.as_str())
        .bind(start_char)
        .bind(text)
        .run()
        .await
}

/// How many parts of the text of this version there are, each with its chunks.
pub(super) async fn count_parts(
    conn: &mut Conn,
    tenant_id: TenantId,
    work: &Work,
    waiting: &Waiting,
) -> Result<i64> {
    Ok(
        on!(conn, c => sqlx::query_scalar("select count(*) from document_text where tenant_id = $1 and document_id = $2 and version = $3")
        .bind(tenant_id).bind(work.id).bind(waiting.number).fetch_one(c).await)?,
    )
}

/// Deletes the parts of the text of this version from this one on.
pub(super) async fn delete_text_from(
    write: &mut Write,
    tenant_id: TenantId,
    version: Version,
    part: i64,
) -> Result<()> {
    let delete = write.put(
        "delete from document_text where tenant_id = $1 and document_id = $2 and version = $3 and part >= $4",
    );
    let delete = delete.bind(tenant_id).bind(version.document_id);
    delete.bind(version.number).bind(part).run().await
}

/// Deletes chunks of a version from this position on, at most [`MOVED_AT_ONCE`]; their ids, and the positions they had.
pub(super) async fn delete_chunks(
    write: &mut Write,
    tenant_id: TenantId,
    version: Version,
    from: i64,
) -> Result<Vec<(ChunkId, i64)>> {
    Ok(on!(write, c => sqlx::query_as(
        "delete from chunk
          where coalesce(tenant_id, tenant_id) = $1
            and version = $4
            and id in (select id
                         from chunk
                        where tenant_id = $1
                          and document_id = $2
                          and coalesce(cut_id, source_id) = $3
                          and version = $4
                          and position >= $5
                        order by position
                        limit $6)
         returning id, position",
    ).bind(tenant_id).bind(version.document_id).bind(version.cut_id).bind(version.number).bind(from).bind(as_i64(MOVED_AT_ONCE))
     .fetch_all(c).await)?)
}

/// Shows this version from now on, and leaves the one that was shown in its cut.
pub(super) async fn show(write: &mut Write, tenant_id: TenantId, version: Version) -> Result<()> {
    let Version {
        document_id,
        cut_id,
        number,
    } = version;
    // What was swapped in by one transaction each time is known by its number alone.
    let unnamed = write.put(
        "insert into document_version (document_id, cut_id, number, tenant_id, state, file_key, cut_revision, ready_to)
         select d.id, $3, 0, d.tenant_id, 'left', '', 0, 0
           from document d
          where d.tenant_id = $1
            and d.id = $2
            and not exists (select 1
                              from document_version v
                             where v.tenant_id = $1
                               and v.document_id = $2
                               and v.cut_id = $3
                               and v.state = 'shown')
         on conflict (document_id, cut_id, number) do nothing",
    );
    unnamed
        .bind(tenant_id)
        .bind(document_id)
        .bind(cut_id)
        .run()
        .await?;
    let leave = write.put(
        "update document_version set state = 'left' where tenant_id = $1 and document_id = $2 and cut_id = $3 and state = 'shown'",
    );
    leave.bind(tenant_id).bind(document_id).bind(cut_id).run().await?;
    let show = write.put(
        "update document_version set state = 'shown' where tenant_id = $1 and document_id = $2 and cut_id = $3 and number = $4",
    );
    let show = show.bind(tenant_id).bind(document_id).bind(cut_id);
    show.bind(number).run().await?;
    let text = write.put("update document set text_version = $3 where tenant_id = $1 and id = $2");
    text.bind(tenant_id).bind(document_id).bind(number).run().await
}

/// A document whose rows are held until the transaction ends.
#[derive(Debug, FromRow)]
pub(super) struct Holder {
    id: DocumentId,
    file_key: String,
    cut_revision: i64,
    text_version: i64,
    /// The version is being worked on, or will be, or was left for whoever tries again.
    is_open: bool,
}

pub(super) async fn hold(write: &mut Write, tenant_id: TenantId, id: DocumentId) -> Result<Option<Holder>> {
    let lock = write.row_lock();
    Ok(on!(write, c => {
        let mut query = QueryBuilder::new(
            "select id, file_key, cut_revision, text_version, state in ('queued', 'processing', 'failed') as is_open
               from document
              where tenant_id = ",
        );
        query.push_bind(tenant_id).push(" and id = ").push_bind(id).push(" ").push(lock);
        query.build_query_as().fetch_optional(c).await
    })?)
}

/// Those of these documents that have a version which is not shown and which nobody works on.
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
            "select distinct v.document_id
               from document_version v
               join document d on d.id = v.document_id
              where (v.state = 'left'
                     or (v.state = 'waiting'
                         and not (d.state in ('queued', 'processing', 'failed') and v.file_key = d.file_key and v.cut_revision = d.cut_revision)))
                and coalesce(v.tenant_id, v.tenant_id) = ",
        );
        query.push_bind(tenant_id).push(" and d.tenant_id = ").push_bind(tenant_id).push(" and v.document_id in (");
        let mut list = query.separated(", ");
        ids.iter().for_each(|id| {
            list.push_bind(*id);
        });
        query.push(")");
        query.build_query_scalar().fetch_all(c).await
    })?)
}

/// A version of the document that is not shown and that nobody works on, or will.
pub(super) async fn find_left_behind(
    write: &mut Write,
    tenant_id: TenantId,
    holder: &Holder,
) -> Result<Option<Version>> {
    Ok(on!(write, c => sqlx::query_as(
        "select document_id, cut_id, number
           from document_version
          where tenant_id = $1
            and document_id = $2
            and (state = 'left' or (state = 'waiting' and not ($3 and file_key = $4 and cut_revision = $5)))
          order by number, cut_id
          limit 1",
    ).bind(tenant_id).bind(holder.id).bind(holder.is_open).bind(&holder.file_key).bind(holder.cut_revision).fetch_optional(c).await)?)
}

/// Forgets a version that has no rows any more.
pub(super) async fn delete(write: &mut Write, tenant_id: TenantId, version: Version) -> Result<()> {
    let delete = write.put(
        "delete from document_version where tenant_id = $1 and document_id = $2 and cut_id = $3 and number = $4",
    );
    let delete = delete.bind(tenant_id).bind(version.document_id);
    delete.bind(version.cut_id).bind(version.number).run().await
}

/// Deletes some parts of texts of the document that nobody reads and nobody works on; whether there were any.
pub(super) async fn delete_left_text(
    write: &mut Write,
    tenant_id: TenantId,
    holder: &Holder,
) -> Result<bool> {
    let deleted = on!(write, c => sqlx::query(
        "delete from document_text
          where coalesce(tenant_id, tenant_id) = $1
            and document_id = $2
            and (version, part) in (select t.version, t.part
                                      from document_text t
                                     where t.tenant_id = $1
                                       and t.document_id = $2
                                       and t.version <> $3
                                       and not exists (select 1
                                                         from document_version v
                                                        where v.tenant_id = $1
                                                          and v.document_id = $2
                                                          and v.number = t.version
                                                          and v.state = 'waiting'
                                                          and $4
                                                          and v.file_key = $5
                                                          and v.cut_revision = $6)
                                     limit $7)",
    ).bind(tenant_id).bind(holder.id).bind(holder.text_version).bind(holder.is_open).bind(&holder.file_key).bind(holder.cut_revision)
     .bind(PARTS_AT_ONCE).execute(c).await.map(|done| done.rows_affected()))?;
    Ok(deleted > 0)
}
