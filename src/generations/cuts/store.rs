//! SQL of cuts.

use chrono::{DateTime, Utc};
use sqlx::types::{Json, Uuid};
use sqlx::{AssertSqlSafe, QueryBuilder};

use super::super::compare::Answer;
use super::super::store::AnswerRow;
use super::{Comparison, Cut, state};
use crate::db::{Conn, ROWS_AT_ONCE, Write};
use crate::error::{Error, Result};
use crate::id::{ChatbotId, CutId, DocumentId, JobId, SourceId, TenantId};
use crate::knowledge::chunks::Chunking;
use crate::on;

macro_rules! columns {
    () => {
        "id, tenant_id, source_id, chunking, state, activates, filled_to, is_filled, chunk_count, done_count, comparison, created_at, ready_at, activated_at, left_at, rolled_back_at"
    };
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "select ",
            columns!(),
            ", (select count(*) from cut_gap p where p.cut_id = cut.id) as lacking from cut ",
            $rest
        )
    };
}

/// All that hold chunks, and the latest of those that were given up; newest first.
pub(super) async fn list(conn: &mut Conn, tenant_id: TenantId) -> Result<Vec<Cut>> {
    Ok(on!(conn, c => sqlx::query_as(select!(
        "where tenant_id = $1
           and exists (select 1 from source s where s.id = cut.source_id and s.deleted_at is null)
           and (state <> 'retired'
             or id in (select id from cut where tenant_id = $1 and state = 'retired' order by created_at desc, id desc limit 100))
         order by created_at desc, id desc"
    )).bind(tenant_id).fetch_all(c).await)?)
}

/// Of all tenants, those that hold chunks.
pub(super) async fn list_all_open(conn: &mut Conn) -> Result<Vec<Cut>> {
    Ok(on!(conn, c => sqlx::query_as(select!(
        "where state <> 'retired'
           and exists (select 1 from source s where s.id = cut.source_id and s.deleted_at is null)
         order by tenant_id, source_id, id"
    )).fetch_all(c).await)?)
}

/// Those of all tenants that lack something.
pub(super) async fn list_all_with_gaps(conn: &mut Conn) -> Result<Vec<CutId>> {
    Ok(on!(conn, c => sqlx::query_scalar("select distinct cut_id from cut_gap").fetch_all(c).await)?)
}

pub(super) async fn find(conn: &mut Conn, tenant_id: TenantId, id: CutId) -> Result<Option<Cut>> {
    Ok(on!(conn, c => sqlx::query_as(select!(
        "where tenant_id = $1
           and id = $2
           and exists (select 1 from source s where s.id = cut.source_id and s.deleted_at is null)"
    )).bind(tenant_id).bind(id).fetch_optional(c).await)?)
}

/// Those of a source that hold chunks. Nobody else changes which of them is live until the transaction ends.
pub(super) async fn hold_open(
    write: &mut Write,
    tenant_id: TenantId,
    source_id: SourceId,
) -> Result<Vec<Cut>> {
    let lock = write.row_lock();
    if !lock.is_empty() {
        // What they lack is counted when nobody adds to it any more.
        let statement = format!(
            "select id from cut where tenant_id = $1 and source_id = $2 and state <> 'retired' order by id {lock}"
        );
        on!(write, c => sqlx::query(AssertSqlSafe(statement.clone())).bind(tenant_id).bind(source_id).execute(c).await.map(drop))?;
    }
    Ok(on!(write, c => sqlx::query_as(select!(
        "where tenant_id = $1 and source_id = $2 and state <> 'retired' order by id"
    )).bind(tenant_id).bind(source_id).fetch_all(c).await)?)
}

/// Waits for whoever puts chunks into a source, and lets nobody else begin. SQLite has one writer anyway.
pub(super) async fn hold_source_for_all(
    write: &mut Write,
    tenant_id: TenantId,
    source_id: SourceId,
) -> Result<()> {
    if write.is_postgres() {
        on!(write, c => sqlx::query("select id from source where tenant_id = $1 and id = $2 for update")
            .bind(tenant_id).bind(source_id).execute(c).await.map(drop))?;
    }
    Ok(())
}

/// Waits for whoever shares the cut, and lets nobody else begin until the transaction ends.
pub(super) async fn hold(write: &mut Write, tenant_id: TenantId, id: CutId) -> Result<()> {
    if write.is_postgres() {
        let statement = format!(
            "select id from cut where tenant_id = $1 and id = $2 {}",
            write.row_lock()
        );
        on!(write, c => sqlx::query(AssertSqlSafe(statement)).bind(tenant_id).bind(id).execute(c).await.map(drop))?;
    }
    Ok(())
}

/// Whether the cut is not given up; it is not until the transaction ends.
pub async fn share(write: &mut Write, tenant_id: TenantId, id: CutId) -> Result<bool> {
    let lock = if write.is_postgres() { "for share" } else { "" };
    let statement = format!("select state from cut where tenant_id = $1 and id = $2 {lock}");
    let found: Option<String> = on!(write, c => sqlx::query_scalar(AssertSqlSafe(statement)).bind(tenant_id).bind(id).fetch_optional(c).await)?;
    Ok(found.is_some_and(|state| state != state::RETIRED))
}

/// Whether the source has documents, or was cut otherwise before.
pub(super) async fn has_something(
    write: &mut Write,
    tenant_id: TenantId,
    source_id: SourceId,
) -> Result<bool> {
    Ok(on!(write, c => sqlx::query_scalar(
        "select exists (select 1 from document where tenant_id = $1 and source_id = $2)
             or exists (select 1 from cut where tenant_id = $1 and source_id = $2 and state <> 'retired')",
    ).bind(tenant_id).bind(source_id).fetch_one(c).await)?)
}

pub(super) async fn find_chatbot(
    conn: &mut Conn,
    tenant_id: TenantId,
    source_id: SourceId,
) -> Result<Option<ChatbotId>> {
    Ok(
        on!(conn, c => sqlx::query_scalar("select chatbot_id from source where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(source_id).fetch_optional(c).await)?,
    )
}

/// The cut that a source has from its beginning, which answers.
pub(super) async fn insert_first(
    write: &mut Write,
    tenant_id: TenantId,
    source_id: SourceId,
    chunking: &Chunking,
    now: DateTime<Utc>,
) -> Result<Cut> {
    Ok(on!(write, c => sqlx::query_as(concat!(
        "insert into cut (id, tenant_id, source_id, chunking, state, activates, is_filled, chunk_count, done_count, created_at, ready_at, activated_at)
         select $1, $2, $3, $4, 'live', $5, $6, 0, 0, created_at, $7, $7 from source where tenant_id = $2 and id = $3
         returning ", columns!(), ", cast(0 as bigint) as lacking"
    )).bind(CutId::first_of(source_id)).bind(tenant_id).bind(source_id).bind(Json(chunking)).bind(false).bind(true).bind(now)
      .fetch_one(c).await)?)
}

pub(super) async fn insert_building(
    write: &mut Write,
    (tenant_id, source_id): (TenantId, SourceId),
    chunking: &Chunking,
    activates: bool,
    now: DateTime<Utc>,
) -> Result<Cut> {
    Ok(on!(write, c => sqlx::query_as(concat!(
        "insert into cut (id, tenant_id, source_id, chunking, state, activates, is_filled, chunk_count, done_count, created_at)
         values ($1, $2, $3, $4, 'building', $5, $6,
                 (select cast(coalesce(sum(chunk_count), 0) as bigint) from document where tenant_id = $2 and source_id = $3 and indexed_at is not null),
                 0, $7)
         returning ", columns!(), ", cast(0 as bigint) as lacking"
    )).bind(CutId::new()).bind(tenant_id).bind(source_id).bind(Json(chunking)).bind(activates).bind(false).bind(now)
      .fetch_one(c).await)?)
}

pub(super) async fn set_activates(write: &mut Write, tenant_id: TenantId, id: CutId) -> Result<()> {
    let update = write.put("update cut set activates = $3 where tenant_id = $1 and id = $2");
    update.bind(tenant_id).bind(id).bind(true).run().await
}

/// No cut of the source goes live by itself any more, but this one if it would; whether one would have.
pub(super) async fn give_up_wishes(
    write: &mut Write,
    (tenant_id, source_id): (TenantId, SourceId),
    but: Option<CutId>,
) -> Result<bool> {
    Ok(on!(write, c => sqlx::query(
        "update cut set activates = $4 where tenant_id = $1 and source_id = $2 and ($3 is null or id <> $3) and activates <> $4",
    ).bind(tenant_id).bind(source_id).bind(but).bind(false).execute(c).await.map(|done| done.rows_affected() > 0))?)
}

/// Whether another job that began before this one fills the cut.
pub(super) async fn is_being_filled(
    conn: &mut Conn,
    tenant_id: TenantId,
    (unique_key, but): (&str, JobId),
    now: DateTime<Utc>,
) -> Result<bool> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "select exists (select 1
                          from job other
                          join job own on own.id = $3 and own.tenant_id = $1
                         where other.tenant_id = $1
                           and other.unique_key = $2
                           and other.state = 'running'
                           and other.id <> own.id
                           and other.lease_until > $4
                           and (other.started_at < own.started_at or (other.started_at = own.started_at and other.id < own.id)))",
    ).bind(tenant_id).bind(unique_key).bind(but).bind(now).fetch_one(c).await)?)
}

/// Makes a cut live that is kept, and what it says the source's own; the one that was gets the other state. Fails where it is not
/// kept any more: nothing of the transaction may be committed then.
pub(super) async fn swap_live(
    write: &mut Write,
    cut: &Cut,
    former: &'static str,
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => sqlx::query(
        "update cut set state = $3, left_at = $4 where tenant_id = $1 and source_id = $2 and state = 'live'",
    ).bind(cut.tenant_id).bind(cut.source_id).bind(former).bind(now).execute(c).await.map(drop))?;
    let swapped = on!(write, c => sqlx::query(
        "update cut
            set state = 'live', activated_at = $3, activates = $4
          where tenant_id = $1
            and id = $2
            and is_filled
            and state in ('ready', 'standby')",
    ).bind(cut.tenant_id).bind(cut.id).bind(now).bind(false).execute(c).await.map(|done| done.rows_affected()))?;
    if swapped == 0 {
        return Err(Error::NotFound("generation"));
    }
    give_up_wishes(write, (cut.tenant_id, cut.source_id), None).await?;
    set_source_chunking(write, (cut.tenant_id, cut.source_id), Some(&cut.chunking.0)).await
}

/// What the source says of how it is cut; none: as its live cut is.
pub(super) async fn set_source_chunking(
    write: &mut Write,
    (tenant_id, source_id): (TenantId, SourceId),
    chunking: Option<&Chunking>,
) -> Result<()> {
    on!(write, c => sqlx::query(
        "update source
            set chunking = coalesce($3, (select k.chunking from cut k where k.source_id = $2 and k.tenant_id = $1 and k.state = 'live'))
          where tenant_id = $1
            and id = $2",
    ).bind(tenant_id).bind(source_id).bind(chunking.map(Json)).execute(c).await.map(drop))?;
    Ok(())
}

pub(super) async fn set_rolled_back(
    write: &mut Write,
    tenant_id: TenantId,
    id: CutId,
    now: DateTime<Utc>,
) -> Result<()> {
    let update = write.put("update cut set rolled_back_at = $3 where tenant_id = $1 and id = $2");
    update.bind(tenant_id).bind(id).bind(now).run().await
}

pub(super) async fn set_ready(
    write: &mut Write,
    tenant_id: TenantId,
    id: CutId,
    now: DateTime<Utc>,
) -> Result<()> {
    let update = write
        .put("update cut set state = 'ready', ready_at = $3 where tenant_id = $1 and id = $2 and state = 'building'");
    update.bind(tenant_id).bind(id).bind(now).run().await
}

pub(super) async fn set_comparison(
    write: &mut Write,
    tenant_id: TenantId,
    id: CutId,
    comparison: &Comparison,
) -> Result<()> {
    on!(write, c => sqlx::query("update cut set comparison = $3 where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(id).bind(Json(comparison)).execute(c).await.map(drop))?;
    delete_answers(write, tenant_id, id).await
}

pub(super) async fn retire(
    write: &mut Write,
    tenant_id: TenantId,
    id: CutId,
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => sqlx::query(
        "update cut set state = 'retired', activates = $4, left_at = coalesce(left_at, $3) where tenant_id = $1 and id = $2",
    ).bind(tenant_id).bind(id).bind(now).bind(false).execute(c).await.map(drop))?;
    delete_all_gaps(write, tenant_id, id).await?;
    delete_answers(write, tenant_id, id).await
}

pub(super) async fn delete_all_gaps(write: &mut Write, tenant_id: TenantId, id: CutId) -> Result<()> {
    let delete = write.put("delete from cut_gap where tenant_id = $1 and cut_id = $2");
    delete.bind(tenant_id).bind(id).run().await
}

/// Keeps how far a cut is filled, unless another job did.
pub(super) async fn set_filled(
    write: &mut Write,
    cut: &Cut,
    (filled_to, is_filled, done_count): (Option<DocumentId>, bool, i64),
) -> Result<()> {
    on!(write, c => sqlx::query(
        "update cut
            set filled_to = $4, is_filled = $5, done_count = $6
          where tenant_id = $1
            and id = $2
            and filled_to is not distinct from $3
            and is_filled = $7",
    ).bind(cut.tenant_id).bind(cut.id).bind(cut.filled_to).bind(filled_to).bind(is_filled).bind(done_count).bind(cut.is_filled)
     .execute(c).await.map(drop))?;
    Ok(())
}

/// Documents of the source that answer, behind `after` in the order of their ids, with the number of their chunks.
pub(super) async fn list_documents(
    conn: &mut Conn,
    cut: &Cut,
    after: Option<DocumentId>,
    limit: i64,
) -> Result<Vec<(DocumentId, i64)>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select id, chunk_count
           from document
          where tenant_id = $1
            and source_id = $2
            and indexed_at is not null
            and ($3 is null or id > $3)
          order by id
          limit $4",
    ).bind(cut.tenant_id).bind(cut.source_id).bind(after).bind(limit).fetch_all(c).await)?)
}

/// Gaps are written and closed in the order of their documents, so that nobody waits for who waits for them.
fn in_order(documents: &[DocumentId]) -> Vec<DocumentId> {
    let mut documents = documents.to_vec();
    documents.sort_unstable();
    documents
}

/// Notes that these documents are to be cut once more, those of them that there are.
pub(super) async fn insert_gaps(write: &mut Write, cut: &Cut, documents: &[DocumentId]) -> Result<()> {
    for group in in_order(documents).chunks(ROWS_AT_ONCE) {
        on!(write, c => {
            let mut insert = QueryBuilder::new("insert into cut_gap (cut_id, document_id, tenant_id, mark) select ");
            insert.push_bind(cut.id).push(", d.id, d.tenant_id, ").push_bind(Uuid::now_v7());
            insert.push(" from document d where coalesce(d.tenant_id, d.tenant_id) = ").push_bind(cut.tenant_id).push(" and d.id in (");
            let mut list = insert.separated(", ");
            group.iter().for_each(|id| {
                list.push_bind(*id);
            });
            insert.push(") order by d.id on conflict (cut_id, document_id) do update set mark = excluded.mark");
            insert.build().execute(c).await.map(drop)
        })?;
    }
    Ok(())
}

/// Notes of these documents that cuts which are not live lack what changed of them; those cuts.
pub(super) async fn insert_gaps_beside_live(
    write: &mut Write,
    tenant_id: TenantId,
    documents: &[DocumentId],
) -> Result<Vec<CutId>> {
    let mut cuts = Vec::new();
    for group in in_order(documents).chunks(ROWS_AT_ONCE) {
        let lacking: Vec<CutId> = on!(write, c => {
            let mut insert = QueryBuilder::new("insert into cut_gap (cut_id, document_id, tenant_id, mark) select k.id, d.id, d.tenant_id, ");
            insert.push_bind(Uuid::now_v7()).push(
                " from document d
                  join cut k on k.source_id = d.source_id and k.tenant_id = d.tenant_id and k.state in ('building', 'ready', 'standby')
                 where coalesce(d.tenant_id, d.tenant_id) = ",
            );
            insert.push_bind(tenant_id).push(" and d.id in (");
            let mut list = insert.separated(", ");
            group.iter().for_each(|id| {
                list.push_bind(*id);
            });
            insert.push(") order by d.id, k.id on conflict (cut_id, document_id) do update set mark = excluded.mark returning cut_id");
            insert.build_query_scalar().fetch_all(c).await
        })?;
        cuts.extend(lacking);
    }
    cuts.sort_unstable();
    cuts.dedup();
    Ok(cuts)
}

/// The live cuts of these documents' sources have all of them.
pub(super) async fn close_live_gaps(
    write: &mut Write,
    tenant_id: TenantId,
    documents: &[DocumentId],
) -> Result<()> {
    for group in in_order(documents).chunks(ROWS_AT_ONCE) {
        on!(write, c => {
            let mut delete = QueryBuilder::new("delete from cut_gap where coalesce(tenant_id, tenant_id) = ");
            delete.push_bind(tenant_id).push(
                " and exists (select 1 from cut k where k.id = cut_gap.cut_id and k.tenant_id = cut_gap.tenant_id and k.state = 'live')
                  and document_id in (",
            );
            let mut list = delete.separated(", ");
            group.iter().for_each(|id| {
                list.push_bind(*id);
            });
            delete.push(")");
            delete.build().execute(c).await.map(drop)
        })?;
    }
    Ok(())
}

/// Some of the documents that a cut lacks, each with what their change is marked by. Those that are about to be indexed, and
/// change once more by that, only if they are asked for.
pub(super) async fn list_gaps(
    conn: &mut Conn,
    cut: &Cut,
    with_queued: bool,
    limit: i64,
) -> Result<Vec<(DocumentId, Uuid)>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select g.document_id, g.mark
           from cut_gap g
           join document d on d.id = g.document_id and d.tenant_id = $1
          where g.tenant_id = $1
            and g.cut_id = $2
            and ($3 or d.state not in ('queued', 'processing'))
          order by g.document_id
          limit $4",
    ).bind(cut.tenant_id).bind(cut.id).bind(with_queued).bind(limit).fetch_all(c).await)?)
}

/// What was put in is no gap any more, unless it changed once more.
pub(super) async fn delete_gaps(write: &mut Write, cut: &Cut, gaps: &[(DocumentId, Uuid)]) -> Result<()> {
    for (document_id, mark) in gaps {
        let delete = write.put(
            "delete from cut_gap where tenant_id = $1 and cut_id = $2 and document_id = $3 and mark = $4",
        );
        let delete = delete.bind(cut.tenant_id).bind(cut.id).bind(*document_id);
        delete.bind(*mark).run().await?;
    }
    Ok(())
}

/// Whether the cut is the live one.
pub(super) async fn is_live(conn: &mut Conn, tenant_id: TenantId, id: CutId) -> Result<bool> {
    Ok(
        on!(conn, c => sqlx::query_scalar("select exists (select 1 from cut where tenant_id = $1 and id = $2 and state = 'live')")
        .bind(tenant_id).bind(id).fetch_one(c).await)?,
    )
}

/// Forgets cuts of all tenants that were given up before.
pub(super) async fn delete_retired(write: &mut Write, before: DateTime<Utc>) -> Result<()> {
    on!(write, c => sqlx::query("delete from cut where state = 'retired' and left_at < $1")
        .bind(before).execute(c).await.map(drop))?;
    Ok(())
}

/// Keeps how both cuts answered a question; a second time changes nothing.
pub(in crate::generations) async fn insert_answer(
    write: &mut Write,
    (tenant_id, id): (TenantId, CutId),
    question: &str,
    answer: Answer,
) -> Result<()> {
    on!(write, c => sqlx::query(
        "insert into cut_answer (cut_id, question, tenant_id, overlap, live_ndcg, new_ndcg, found_nothing)
         values ($1, $2, $3, $4, $5, $6, $7)
         on conflict do nothing",
    ).bind(id).bind(question).bind(tenant_id).bind(answer.overlap).bind(answer.live_ndcg).bind(answer.new_ndcg)
     .bind(answer.found_nothing).execute(c).await.map(drop))?;
    Ok(())
}

/// How both answered the questions that were asked so far, each with its hash.
pub(in crate::generations) async fn list_answers(
    conn: &mut Conn,
    tenant_id: TenantId,
    id: CutId,
) -> Result<Vec<(String, Answer)>> {
    let rows: Vec<AnswerRow> = on!(conn, c => sqlx::query_as(
        "select question, overlap, found_nothing, live_ndcg, new_ndcg from cut_answer where tenant_id = $1 and cut_id = $2 order by question",
    ).bind(tenant_id).bind(id).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|row| (row.question, row.answer)).collect())
}

async fn delete_answers(write: &mut Write, tenant_id: TenantId, id: CutId) -> Result<()> {
    let delete = write.put("delete from cut_answer where tenant_id = $1 and cut_id = $2");
    delete.bind(tenant_id).bind(id).run().await
}
