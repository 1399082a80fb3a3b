//! SQL of generations.

use chrono::{DateTime, Utc};
use sqlx::types::{Json, Uuid};
use sqlx::{AssertSqlSafe, QueryBuilder};

use super::compare::Answer;
use super::{Comparison, Generation, LiveRow, Place, live_columns, state};
use crate::db::{Conn, ROWS_AT_ONCE, Write};
use crate::error::{Error, Result};
use crate::id::{ChatbotId, ChunkId, DocumentId, GenerationId, TenantId};
use crate::knowledge::versions::is_shown;
use crate::on;

/// Documents with what a generation lacks that are looked at together.
const GAPS_AT_ONCE: i64 = 64;

/// The columns of a [`Generation`].
macro_rules! columns {
    () => {
        "id, tenant_id, space, (select e.making from embedding_space e where e.name = generation.space) as making, state, activates, filled_to, is_filled,
         is_short, place_document, place_mark, place_position, losses, chunk_count, done_count, comparison,
         created_at, ready_at, activated_at, left_at, rolled_back_at, verified_to"
    };
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "select ",
            columns!(),
            ", (select count(*) from generation_gap p where p.generation_id = generation.id) as lacking from generation ",
            $rest
        )
    };
}

/// All that hold chunks, and the latest of those that were given up; newest first.
pub(super) async fn list(conn: &mut Conn, tenant_id: TenantId) -> Result<Vec<Generation>> {
    Ok(on!(conn, c => sqlx::query_as(select!(
            "where tenant_id = $1
               and (state <> 'retired'
                 or id in (select id from generation where tenant_id = $1 and state = 'retired' order by id desc limit 100))
             order by id desc"
        )).bind(tenant_id).fetch_all(c).await)?)
}

/// Those that hold chunks.
pub(super) async fn list_open(conn: &mut Conn, tenant_id: TenantId) -> Result<Vec<Generation>> {
    Ok(
        on!(conn, c => sqlx::query_as(select!("where tenant_id = $1 and state <> 'retired' order by id"))
        .bind(tenant_id).fetch_all(c).await)?,
    )
}

/// Of all tenants, those that hold chunks.
pub(super) async fn list_all_open(conn: &mut Conn) -> Result<Vec<Generation>> {
    Ok(
        on!(conn, c => sqlx::query_as(select!("where state <> 'retired' order by tenant_id, id")).fetch_all(c).await)?,
    )
}

/// Of all tenants, those whose points were not held against the rows for the longest time.
pub(super) async fn list_least_verified(conn: &mut Conn, limit: i64) -> Result<Vec<Generation>> {
    Ok(on!(conn, c => sqlx::query_as(select!(
        "where state <> 'retired' and is_filled = $1 order by verified_at nulls first, id limit $2"
    )).bind(true).bind(limit).fetch_all(c).await)?)
}

pub(super) async fn find(
    conn: &mut Conn,
    tenant_id: TenantId,
    id: GenerationId,
) -> Result<Option<Generation>> {
    Ok(
        on!(conn, c => sqlx::query_as(select!("where tenant_id = $1 and id = $2"))
        .bind(tenant_id).bind(id).fetch_optional(c).await)?,
    )
}

pub(super) async fn find_live_row(conn: &mut Conn, tenant_id: TenantId) -> Result<LiveRow> {
    let row: Option<LiveRow> = on!(conn, c => sqlx::query_as(concat!(
        "select ", live_columns!(), " from generation g where g.tenant_id = $1 and g.state = 'live'"
    )).bind(tenant_id).fetch_optional(c).await)?;
    Ok(row.unwrap_or_default())
}

/// Nobody else changes which generation is live, or begins one, until the transaction ends.
pub(super) async fn hold_live(write: &mut Write, tenant_id: TenantId) -> Result<()> {
    lock_open(write, tenant_id, write.row_lock()).await
}

/// Like [`hold_live`], together with others who do not change it either.
pub(super) async fn share_live(write: &mut Write, tenant_id: TenantId) -> Result<()> {
    let lock = if write.is_postgres() { "for share" } else { "" };
    lock_open(write, tenant_id, lock).await
}

/// Locks all generations that are kept, in one order for everybody: the lock of a row that stopped being live while it was
/// waited for is held all the same, and in another order two would wait for each other.
async fn lock_open(write: &mut Write, tenant_id: TenantId, lock: &'static str) -> Result<()> {
    if lock.is_empty() {
        return Ok(());
    }
    let statement =
        format!("select id from generation where tenant_id = $1 and state <> 'retired' order by id {lock}");
    loop {
        let held: Vec<GenerationId> = on!(write, c => sqlx::query_scalar(AssertSqlSafe(statement.clone()))
            .bind(tenant_id).fetch_all(c).await)?;
        // All that there were may have been given up while they were waited for.
        if !held.is_empty() || find_live_row(write, tenant_id).await?.live_space.is_none() {
            return Ok(());
        }
    }
}

/// The first generation of a tenant, which has no documents yet. Nothing happens where another process was faster.
pub(super) async fn insert_first(
    write: &mut Write,
    tenant_id: TenantId,
    space: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => sqlx::query(
        "insert into generation (id, tenant_id, space, state, activates, is_filled, chunk_count, done_count, created_at, ready_at, activated_at)
         values ($1, $2, $3, 'live', $4, $5, 0, 0, $6, $6, $6)
         on conflict do nothing",
    ).bind(GenerationId::new()).bind(tenant_id).bind(space).bind(false).bind(true).bind(now).execute(c).await.map(drop))?;
    Ok(())
}

pub(super) async fn insert_building(
    write: &mut Write,
    tenant_id: TenantId,
    space: &str,
    activates: bool,
    now: DateTime<Utc>,
) -> Result<Generation> {
    Ok(on!(write, c => sqlx::query_as(concat!(
        "insert into generation (id, tenant_id, space, state, activates, is_filled, chunk_count, done_count, created_at)
         values ($1, $2, $3, 'building', $4, $5,
                 (select count(*) from chunk c where c.tenant_id = $2 and ", is_shown!("c"), "), 0, $6)
         returning ",
        columns!(),
        ", cast(0 as bigint) as lacking"
    )).bind(GenerationId::new()).bind(tenant_id).bind(space).bind(activates).bind(false).bind(now).fetch_one(c).await)?)
}

/// Whether it goes live by itself.
pub(super) async fn set_activates(
    write: &mut Write,
    tenant_id: TenantId,
    id: GenerationId,
    activates: bool,
) -> Result<()> {
    let update = write.put("update generation set activates = $3 where tenant_id = $1 and id = $2");
    update.bind(tenant_id).bind(id).bind(activates).run().await
}

/// Makes a generation live that is kept whole; the one that was gets the other state. Fails where it is not kept any more:
/// nothing of the transaction may be committed then.
pub(super) async fn swap_live(
    write: &mut Write,
    tenant_id: TenantId,
    (id, former): (GenerationId, &'static str),
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => sqlx::query(
        "update generation set state = $2, left_at = $3 where tenant_id = $1 and state = 'live'",
    ).bind(tenant_id).bind(former).bind(now).execute(c).await.map(drop))?;
    let swapped = on!(write, c => sqlx::query(
        "update generation
            set state = $3, activated_at = $4, activates = $5
          where tenant_id = $1
            and id = $2
            and state in ('ready', 'standby')",
    ).bind(tenant_id).bind(id).bind(state::LIVE).bind(now).bind(false).execute(c).await.map(|done| done.rows_affected()))?;
    match swapped {
        0 => Err(Error::NotFound("generation")),
        _ => Ok(()),
    }
}

pub(super) async fn set_rolled_back(
    write: &mut Write,
    tenant_id: TenantId,
    id: GenerationId,
    now: DateTime<Utc>,
) -> Result<()> {
    let update = write.put("update generation set rolled_back_at = $3 where tenant_id = $1 and id = $2");
    update.bind(tenant_id).bind(id).bind(now).run().await
}

pub(super) async fn set_ready(
    write: &mut Write,
    tenant_id: TenantId,
    id: GenerationId,
    now: DateTime<Utc>,
) -> Result<()> {
    let update = write
        .put("update generation set state = 'ready', ready_at = $3 where tenant_id = $1 and id = $2 and state = 'building'");
    update.bind(tenant_id).bind(id).bind(now).run().await
}

pub(super) async fn set_comparison(
    write: &mut Write,
    tenant_id: TenantId,
    id: GenerationId,
    comparison: &Comparison,
) -> Result<()> {
    on!(write, c => sqlx::query("update generation set comparison = $3 where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(id).bind(Json(comparison)).execute(c).await.map(drop))?;
    Ok(())
}

pub(super) async fn retire(
    write: &mut Write,
    tenant_id: TenantId,
    id: GenerationId,
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => sqlx::query(
        "update generation
            set state = 'retired', activates = $4, left_at = coalesce(left_at, $3), retired_at = $3
          where tenant_id = $1
            and id = $2",
    ).bind(tenant_id).bind(id).bind(now).bind(false).execute(c).await.map(drop))?;
    on!(write, c => sqlx::query("delete from generation_gap where tenant_id = $1 and generation_id = $2")
        .bind(tenant_id).bind(id).execute(c).await.map(drop))?;
    delete_answers(write, tenant_id, id).await
}

/// Whether the tenant has a generation in this space that holds chunks.
pub(super) async fn is_open(conn: &mut Conn, tenant_id: TenantId, space: &str) -> Result<bool> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "select exists (select 1 from generation where tenant_id = $1 and space = $2 and state <> 'retired')",
    ).bind(tenant_id).bind(space).fetch_one(c).await)?)
}

/// Whether a generation of the tenant was given up since then.
pub(super) async fn has_retired_since(
    conn: &mut Conn,
    tenant_id: TenantId,
    since: DateTime<Utc>,
) -> Result<bool> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "select exists (select 1 from generation where tenant_id = $1 and state = 'retired' and retired_at > $2)",
    ).bind(tenant_id).bind(since).fetch_one(c).await)?)
}

/// Keeps how far a generation is filled; nothing happens when what it held was lost meanwhile, or it was retired.
pub(super) async fn set_filled(
    write: &mut Write,
    generation: &Generation,
    (filled_to, is_filled, done_count): (Option<DocumentId>, bool, i64),
) -> Result<bool> {
    Ok(on!(write, c => sqlx::query(
        "update generation
            set filled_to = $4, is_filled = $5, done_count = $6
          where tenant_id = $1
            and id = $2
            and filled_to is not distinct from $3
            and losses = $7
            and state <> 'retired'",
    ).bind(generation.tenant_id).bind(generation.id).bind(generation.filled_to).bind(filled_to).bind(is_filled).bind(done_count)
     .bind(generation.losses).execute(c).await.map(|done| done.rows_affected() > 0))?)
}

/// Keeps how far a document of many chunks is in; nothing happens when what was in was lost meanwhile.
pub(super) async fn set_place(write: &mut Write, generation: &Generation, place: Place) -> Result<()> {
    on!(write, c => sqlx::query(
        "update generation
            set place_document = $3, place_mark = $4, place_position = $5
          where tenant_id = $1
            and id = $2
            and losses = $6",
    ).bind(generation.tenant_id).bind(generation.id).bind(place.place_document).bind(place.place_mark).bind(place.place_position)
     .bind(generation.losses).execute(c).await.map(drop))?;
    Ok(())
}

pub(super) async fn insert_gaps(
    write: &mut Write,
    tenant_id: TenantId,
    id: GenerationId,
    documents: &[DocumentId],
) -> Result<()> {
    // In the order in which they are deleted again.
    let mut documents = documents.to_vec();
    documents.sort_unstable_by_key(|id| id.0);
    for group in documents.chunks(ROWS_AT_ONCE) {
        on!(write, c => {
            let mut insert = QueryBuilder::new("insert into generation_gap (generation_id, document_id, tenant_id, mark) ");
            insert.push_values(group, |mut row, document_id| {
                row.push_bind(id).push_bind(*document_id).push_bind(tenant_id).push_bind(Uuid::now_v7());
            });
            insert.push(" on conflict (generation_id, document_id) do update set mark = excluded.mark");
            insert.build().execute(c).await.map(drop)
        })?;
    }
    Ok(())
}

/// Some of the documents that a generation lacks, each with what their change is marked by.
pub(super) async fn list_gaps(
    conn: &mut Conn,
    tenant_id: TenantId,
    id: GenerationId,
) -> Result<Vec<(DocumentId, Uuid)>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select document_id, mark from generation_gap where tenant_id = $1 and generation_id = $2 order by document_id limit $3",
    ).bind(tenant_id).bind(id).bind(GAPS_AT_ONCE).fetch_all(c).await)?)
}

/// What was put in is no gap any more, unless it changed once more.
pub(super) async fn delete_gaps(
    write: &mut Write,
    tenant_id: TenantId,
    id: GenerationId,
    gaps: &[(DocumentId, Uuid)],
) -> Result<()> {
    let mut gaps = gaps.to_vec();
    gaps.sort_unstable_by_key(|(document_id, _)| document_id.0);
    for (document_id, mark) in &gaps {
        let delete = write.put(
            "delete from generation_gap where tenant_id = $1 and generation_id = $2 and document_id = $3 and mark = $4",
        );
        delete
            .bind(tenant_id)
            .bind(id)
            .bind(*document_id)
            .bind(*mark)
            .run()
            .await?;
    }
    Ok(())
}

/// Notes that what is left in a space is being removed, until then at the latest; none: that is over.
pub(super) async fn set_reclaiming(
    write: &mut Write,
    tenant_id: TenantId,
    space: &str,
    until: Option<DateTime<Utc>>,
) -> Result<()> {
    on!(write, c => sqlx::query("update generation set reclaiming_until = $3 where tenant_id = $1 and space = $2 and state = 'retired'")
        .bind(tenant_id).bind(space).bind(until).execute(c).await.map(drop))?;
    Ok(())
}

/// Whether what earlier generations left in a space is being removed.
pub(super) async fn is_reclaiming(
    conn: &mut Conn,
    tenant_id: TenantId,
    space: &str,
    now: DateTime<Utc>,
) -> Result<bool> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "select exists (select 1 from generation where tenant_id = $1 and space = $2 and reclaiming_until > $3)",
    ).bind(tenant_id).bind(space).bind(now).fetch_one(c).await)?)
}

/// Nothing is left in this space of the generations that were given up, and nobody puts anything in.
pub(super) async fn set_reclaimed(
    write: &mut Write,
    tenant_id: TenantId,
    space: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => sqlx::query("update generation set reclaimed_at = $3 where tenant_id = $1 and space = $2 and state = 'retired'")
        .bind(tenant_id).bind(space).bind(now).execute(c).await.map(drop))?;
    Ok(())
}

/// Keeps how far the points of a generation were held against the rows; none: to their end.
pub(super) async fn set_verified(
    write: &mut Write,
    (tenant_id, id): (TenantId, GenerationId),
    to: Option<ChunkId>,
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => sqlx::query("update generation set verified_to = $3, verified_at = $4 where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(id).bind(to).bind(now).execute(c).await.map(drop))?;
    Ok(())
}

/// Keeps whether the index was found to hold less than the rows say.
pub(super) async fn set_short(
    write: &mut Write,
    (tenant_id, id): (TenantId, GenerationId),
    is_short: bool,
) -> Result<()> {
    on!(write, c => sqlx::query("update generation set is_short = $3 where tenant_id = $1 and id = $2 and is_short <> $3")
        .bind(tenant_id).bind(id).bind(is_short).execute(c).await.map(drop))?;
    Ok(())
}

/// Keeps how both answered a question; a second time changes nothing.
pub(super) async fn insert_answer(
    write: &mut Write,
    (tenant_id, id): (TenantId, GenerationId),
    question: &str,
    answer: Answer,
) -> Result<()> {
    on!(write, c => sqlx::query(
        "insert into generation_answer (generation_id, question, tenant_id, overlap, live_ndcg, new_ndcg, found_nothing)
         values ($1, $2, $3, $4, $5, $6, $7)
         on conflict do nothing",
    ).bind(id).bind(question).bind(tenant_id).bind(answer.overlap).bind(answer.live_ndcg).bind(answer.new_ndcg)
     .bind(answer.found_nothing).execute(c).await.map(drop))?;
    Ok(())
}

/// How both answered the questions that were asked so far, each with its hash.
pub(super) async fn list_answers(
    conn: &mut Conn,
    tenant_id: TenantId,
    id: GenerationId,
) -> Result<Vec<(String, Answer)>> {
    let rows: Vec<AnswerRow> = on!(conn, c => sqlx::query_as(
        "select question, overlap, found_nothing, live_ndcg, new_ndcg from generation_answer where tenant_id = $1 and generation_id = $2 order by question",
    ).bind(tenant_id).bind(id).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|row| (row.question, row.answer)).collect())
}

/// A row of `generation_answer`, or of `cut_answer`.
#[derive(sqlx::FromRow)]
pub(super) struct AnswerRow {
    pub question: String,
    #[sqlx(flatten)]
    pub answer: Answer,
}

pub(super) async fn delete_answers(write: &mut Write, tenant_id: TenantId, id: GenerationId) -> Result<()> {
    let delete = write.put("delete from generation_answer where tenant_id = $1 and generation_id = $2");
    delete.bind(tenant_id).bind(id).run().await
}

/// A question of a visitor.
#[derive(sqlx::FromRow)]
pub(super) struct VisitorQuestion {
    pub chatbot_id: ChatbotId,
    pub content: String,
    pub access_groups: Option<Json<Vec<String>>>,
}

/// The latest questions that visitors asked, of this chatbot if one is named.
pub(super) async fn list_latest_questions(
    conn: &mut Conn,
    (tenant_id, chatbot_id): (TenantId, Option<ChatbotId>),
    limit: i64,
) -> Result<Vec<VisitorQuestion>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select v.chatbot_id, m.content, v.access_groups
           from message m
           join conversation v on v.id = m.conversation_id
           join chatbot b on b.id = v.chatbot_id
          where m.tenant_id = $1
            and b.tenant_id = $1
            and b.deleted_at is null
            and v.tenant_id = $1
            and m.role = 'user'
            and ($3 is null or v.chatbot_id = $3)
          order by m.id desc
          limit $2",
    ).bind(tenant_id).bind(limit).bind(chatbot_id).fetch_all(c).await)?)
}
