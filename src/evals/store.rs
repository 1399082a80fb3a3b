//! SQL of test sets and their runs.

use chrono::{DateTime, Utc};
use sqlx::types::Json;

use super::{EvalQuestion, EvalResult, EvalRun, EvalSet, EvalSummary, Setup};
use crate::db::{Conn, Write};
use crate::error::Result;
use crate::http::input::PageRequest;
use crate::id::{ChatbotId, ConversationId, EvalQuestionId, EvalRunId, EvalSetId, TenantId};
use crate::on;

pub(super) async fn insert_set(
    write: &mut Write,
    (tenant_id, chatbot_id): (TenantId, ChatbotId),
    set: &EvalSet,
) -> Result<()> {
    let insert = write.put(
        "insert into eval_set (id, tenant_id, chatbot_id, name, questions, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7)",
    );
    insert
        .bind(set.id)
        .bind(tenant_id)
        .bind(chatbot_id)
        .bind(set.name.as_str())
        .bind(&set.questions)
        .bind(set.created_at)
        .bind(set.updated_at)
        .run()
        .await
}

pub(super) async fn update_set(write: &mut Write, tenant_id: TenantId, set: &EvalSet) -> Result<()> {
    let update = write.put(
        "update eval_set set name = $3, questions = $4, updated_at = $5 where tenant_id = $1 and id = $2",
    );
    update
        .bind(tenant_id)
        .bind(set.id)
        .bind(set.name.as_str())
        .bind(&set.questions)
        .bind(set.updated_at)
        .run()
        .await
}

/// From now on nobody finds it.
pub(super) async fn hide_set(
    write: &mut Write,
    tenant_id: TenantId,
    id: EvalSetId,
    now: DateTime<Utc>,
) -> Result<()> {
    let update =
        write.put("update eval_set set deleted_at = $3, questions = '[]' where tenant_id = $1 and id = $2");
    update.bind(tenant_id).bind(id).bind(now).run().await
}

pub(super) async fn delete_hidden_set(write: &mut Write, tenant_id: TenantId, id: EvalSetId) -> Result<()> {
    let delete =
        write.put("delete from eval_set where tenant_id = $1 and id = $2 and deleted_at is not null");
    delete.bind(tenant_id).bind(id).run().await
}

/// The text that deletes some results of all sets for which `$which` holds, `$2`; `coalesce`: see `db::ROWS_AT_ONCE`.
macro_rules! delete_results {
    ($which:literal) => {
        concat!(
            "delete from eval_result
              where coalesce(tenant_id, tenant_id) = $1
                and (run_id, position) in (select e.run_id, e.position
                                             from eval_set s
                                             join eval_run r on r.set_id = s.id
                                             join eval_result e on e.run_id = r.id
                                            where ",
            $which,
            "
                                            limit $3)"
        )
    };
}

/// Deletes some results of a chatbot's runs; how many.
pub(super) async fn delete_results_of_chatbot(
    write: &mut Write,
    (tenant_id, chatbot_id): (TenantId, ChatbotId),
    most: i64,
) -> Result<u64> {
    Ok(on!(write, c => sqlx::query(delete_results!("s.chatbot_id = $2"))
        .bind(tenant_id).bind(chatbot_id).bind(most).execute(c).await.map(|done| done.rows_affected()))?)
}

/// Deletes some results of a set's runs; how many.
pub(super) async fn delete_results_of_set(
    write: &mut Write,
    (tenant_id, set_id): (TenantId, EvalSetId),
    most: i64,
) -> Result<u64> {
    Ok(on!(write, c => sqlx::query(delete_results!("s.id = $2"))
        .bind(tenant_id).bind(set_id).bind(most).execute(c).await.map(|done| done.rows_affected()))?)
}

/// Deletes what came of a conversation's questions in all runs of a set.
pub(super) async fn delete_results_of(
    write: &mut Write,
    (tenant_id, set_id): (TenantId, EvalSetId),
    conversation_id: ConversationId,
) -> Result<()> {
    let delete = write.put(
        "delete from eval_result
          where tenant_id = $1
            and run_id in (select id from eval_run where tenant_id = $1 and set_id = $2)
            and result ->> 'conversation_id' = $3",
    );
    let conversation = conversation_id.to_string();
    delete
        .bind(tenant_id)
        .bind(set_id)
        .bind(conversation.as_str())
        .run()
        .await
}

/// Notes that a set has questions of a conversation.
pub(super) async fn insert_import(
    write: &mut Write,
    (tenant_id, set_id): (TenantId, EvalSetId),
    conversation_id: ConversationId,
) -> Result<()> {
    let insert = write.put(
        "insert into eval_import (set_id, conversation_id, tenant_id) values ($1, $2, $3) on conflict do nothing",
    );
    insert
        .bind(set_id)
        .bind(conversation_id)
        .bind(tenant_id)
        .run()
        .await
}

/// The sets that have, or had, questions of a conversation; nobody else changes them until the transaction ends.
pub(super) async fn hold_importers(
    write: &mut Write,
    tenant_id: TenantId,
    conversation_id: ConversationId,
) -> Result<Vec<EvalSet>> {
    let statement = format!(
        "select id, name, questions, created_at, updated_at
           from eval_set
          where tenant_id = $1
            and id in (select set_id from eval_import where tenant_id = $1 and conversation_id = $2)
          order by id {}",
        write.row_lock()
    );
    Ok(on!(write, c => sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(tenant_id).bind(conversation_id).fetch_all(c).await)?)
}

/// Ends the runs of a set that are under way, or those of them that ask something of this conversation.
pub(super) async fn end_runs(
    write: &mut Write,
    (tenant_id, set_id): (TenantId, EvalSetId),
    conversation_id: Option<ConversationId>,
    (reason, now): (&str, DateTime<Utc>),
) -> Result<()> {
    let update = write.put(
        "update eval_run
            set state = 'failed', error = $4, finished_at = $5, questions = '[]'
          where tenant_id = $1
            and set_id = $2
            and state in ('queued', 'running')
            and cast(questions as text) like $3",
    );
    let named = conversation_id.map_or_else(|| "%".to_owned(), |id| format!("%{id}%"));
    update
        .bind(tenant_id)
        .bind(set_id)
        .bind(named.as_str())
        .bind(reason)
        .bind(now)
        .run()
        .await
}

/// Deletes the oldest runs that have ended, so that no more than `most` are left.
pub(super) async fn delete_old_runs(
    write: &mut Write,
    (tenant_id, set_id): (TenantId, EvalSetId),
    most: i64,
) -> Result<()> {
    let delete = write.put(
        "delete from eval_run
          where tenant_id = $1
            and set_id = $2
            and state in ('done', 'failed')
            and id not in (select id from eval_run where tenant_id = $1 and set_id = $2 order by id desc limit $3)",
    );
    delete.bind(tenant_id).bind(set_id).bind(most).run().await
}

pub(super) async fn count_sets(conn: &mut Conn, tenant_id: TenantId, chatbot_id: ChatbotId) -> Result<i64> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "select count(*) from eval_set where tenant_id = $1 and chatbot_id = $2 and deleted_at is null",
    ).bind(tenant_id).bind(chatbot_id).fetch_one(c).await)?)
}

pub(super) async fn list_sets(
    conn: &mut Conn,
    (tenant_id, chatbot_id): (TenantId, ChatbotId),
    page: PageRequest,
) -> Result<Vec<EvalSet>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select id, name, questions, created_at, updated_at
           from eval_set
          where tenant_id = $1
            and chatbot_id = $2
            and deleted_at is null
            and id < $3
          order by id desc
          limit $4",
    ).bind(tenant_id).bind(chatbot_id).bind(page.before).bind(page.limit + 1).fetch_all(c).await)?)
}

pub(super) async fn find_set(
    conn: &mut Conn,
    (tenant_id, chatbot_id): (TenantId, ChatbotId),
    id: EvalSetId,
) -> Result<Option<EvalSet>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select id, name, questions, created_at, updated_at
           from eval_set
          where tenant_id = $1
            and chatbot_id = $2
            and deleted_at is null
            and id = $3",
    ).bind(tenant_id).bind(chatbot_id).bind(id).fetch_optional(c).await)?)
}

/// Like [`find_set`], and nobody else changes it until the transaction ends.
pub(super) async fn hold_set(
    write: &mut Write,
    (tenant_id, chatbot_id): (TenantId, ChatbotId),
    id: EvalSetId,
) -> Result<Option<EvalSet>> {
    let statement = format!(
        "select id, name, questions, created_at, updated_at
           from eval_set
          where tenant_id = $1
            and chatbot_id = $2
            and deleted_at is null
            and id = $3 {}",
        write.row_lock()
    );
    Ok(on!(write, c => sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(tenant_id).bind(chatbot_id).bind(id).fetch_optional(c).await)?)
}

/// The questions of a tenant's sets, or of those of one chatbot, the latest set first, each with its chatbot.
pub(super) async fn list_questions(
    conn: &mut Conn,
    tenant_id: TenantId,
    chatbot_id: Option<ChatbotId>,
) -> Result<Vec<(ChatbotId, Json<Vec<EvalQuestion>>)>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select s.chatbot_id, s.questions
           from eval_set s
           join chatbot b on b.id = s.chatbot_id
          where s.tenant_id = $1
            and b.tenant_id = $1
            and b.deleted_at is null
            and s.deleted_at is null
            and ($2 is null or s.chatbot_id = $2)
          order by s.id desc
          limit 100",
    ).bind(tenant_id).bind(chatbot_id).fetch_all(c).await)?)
}

pub(super) async fn insert_run(
    write: &mut Write,
    tenant_id: TenantId,
    set: &EvalSet,
    run: &EvalRun,
) -> Result<()> {
    let insert = write.put(
        "insert into eval_run (id, tenant_id, set_id, state, with_answers, embedding_model, questions, question_count, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    );
    insert
        .bind(run.id)
        .bind(tenant_id)
        .bind(set.id)
        .bind(run.state.as_str())
        .bind(run.with_answers)
        .bind(run.embedding_model.as_deref())
        .bind(&set.questions)
        .bind(run.question_count)
        .bind(run.created_at)
        .run()
        .await
}

pub(super) async fn has_open_run(conn: &mut Conn, tenant_id: TenantId, set_id: EvalSetId) -> Result<bool> {
    let open: Option<EvalRunId> = on!(conn, c => sqlx::query_scalar(
        "select id from eval_run where tenant_id = $1 and set_id = $2 and state in ('queued', 'running') limit 1",
    ).bind(tenant_id).bind(set_id).fetch_optional(c).await)?;
    Ok(open.is_some())
}

/// A run's columns; what was asked is counted from what came of it.
macro_rules! run_columns {
    ($rest:literal) => {
        concat!(
            "select r.id, r.state, r.with_answers, r.embedding_model, r.setup, r.question_count, r.summary, r.error, r.created_at, r.finished_at,
                    (select count(*) from eval_result e where e.tenant_id = $1 and e.run_id = r.id) as done_count
               from eval_run r
              where r.tenant_id = $1
                and r.set_id = $2
                and ",
            $rest
        )
    };
}

pub(super) async fn list_runs(
    conn: &mut Conn,
    tenant_id: TenantId,
    set_id: EvalSetId,
    page: PageRequest,
) -> Result<Vec<EvalRun>> {
    Ok(
        on!(conn, c => sqlx::query_as(run_columns!("r.id < $3 order by r.id desc limit $4"))
        .bind(tenant_id).bind(set_id).bind(page.before).bind(page.limit + 1).fetch_all(c).await)?,
    )
}

pub(super) async fn find_run(
    conn: &mut Conn,
    tenant_id: TenantId,
    set_id: EvalSetId,
    id: EvalRunId,
) -> Result<Option<EvalRun>> {
    Ok(on!(conn, c => sqlx::query_as(run_columns!("r.id = $3"))
        .bind(tenant_id).bind(set_id).bind(id).fetch_optional(c).await)?)
}

/// What a run has to do; none: it was deleted, or has ended.
#[derive(sqlx::FromRow)]
pub(super) struct OpenRun {
    pub with_answers: bool,
    pub setup: Option<Json<Setup>>,
    pub questions: Json<Vec<EvalQuestion>>,
    pub done_count: i64,
}

pub(super) async fn find_open_run(
    conn: &mut Conn,
    tenant_id: TenantId,
    id: EvalRunId,
) -> Result<Option<OpenRun>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select with_answers, setup, questions,
                (select count(*) from eval_result e where e.tenant_id = $1 and e.run_id = $2) as done_count
           from eval_run
          where tenant_id = $1
            and id = $2
            and state in ('queued', 'running')",
    ).bind(tenant_id).bind(id).fetch_optional(c).await)?)
}

/// Notes what answers a run.
pub(super) async fn set_setup(
    write: &mut Write,
    tenant_id: TenantId,
    id: EvalRunId,
    setup: &Setup,
) -> Result<()> {
    let update = write.put("update eval_run set setup = $3 where tenant_id = $1 and id = $2");
    update.bind(tenant_id).bind(id).bind(Json(setup)).run().await
}

/// Stores what came of a question; false when the run was deleted meanwhile.
pub(super) async fn insert_result(
    write: &mut Write,
    tenant_id: TenantId,
    run_id: EvalRunId,
    position: i64,
    result: &EvalResult,
) -> Result<bool> {
    let run: Option<EvalRunId> = on!(write, c => sqlx::query_scalar(
        "update eval_run set state = 'running' where tenant_id = $1 and id = $2 and state in ('queued', 'running') returning id",
    ).bind(tenant_id).bind(run_id).fetch_optional(c).await)?;
    if run.is_none() {
        return Ok(false);
    }
    let insert = write.put(
        "insert into eval_result (run_id, position, tenant_id, result) values ($1, $2, $3, $4) on conflict do nothing",
    );
    insert
        .bind(run_id)
        .bind(position)
        .bind(tenant_id)
        .bind(Json(result))
        .run()
        .await?;
    Ok(true)
}

pub(super) async fn list_results(
    conn: &mut Conn,
    tenant_id: TenantId,
    run_id: EvalRunId,
) -> Result<Vec<EvalResult>> {
    let rows: Vec<Json<EvalResult>> = on!(conn, c => sqlx::query_scalar(
        "select result from eval_result where tenant_id = $1 and run_id = $2 order by position",
    ).bind(tenant_id).bind(run_id).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

/// The position of a question's result in its run.
pub(super) async fn find_result_position(
    conn: &mut Conn,
    (tenant_id, run_id): (TenantId, EvalRunId),
    question_id: EvalQuestionId,
) -> Result<Option<i64>> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "select position from eval_result where tenant_id = $1 and run_id = $2 and result ->> 'question_id' = $3",
    ).bind(tenant_id).bind(run_id).bind(question_id.0.to_string()).fetch_optional(c).await)?)
}

/// The results behind this position, in their order, at most `limit`.
pub(super) async fn list_results_behind(
    conn: &mut Conn,
    (tenant_id, run_id): (TenantId, EvalRunId),
    position: i64,
    limit: i64,
) -> Result<Vec<EvalResult>> {
    let rows: Vec<Json<EvalResult>> = on!(conn, c => sqlx::query_scalar(
        "select result
           from eval_result
          where tenant_id = $1
            and run_id = $2
            and position > $3
          order by position
          limit $4",
    ).bind(tenant_id).bind(run_id).bind(position).bind(limit).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

/// How a run ended.
pub(super) enum Ending<'a> {
    Done(EvalSummary),
    Failed(&'a str),
}

/// Ends a run. What it asked is in its results.
pub(super) async fn finish_run(
    write: &mut Write,
    tenant_id: TenantId,
    id: EvalRunId,
    ending: Ending<'_>,
    now: DateTime<Utc>,
) -> Result<()> {
    let (state, summary, error) = match ending {
        Ending::Done(summary) => ("done", Some(Json(summary)), None),
        Ending::Failed(reason) => ("failed", None, Some(reason)),
    };
    let update = write.put(
        "update eval_run
            set state = $3, summary = $4, error = $5, finished_at = $6, questions = '[]'
          where tenant_id = $1 and id = $2 and state in ('queued', 'running')",
    );
    update
        .bind(tenant_id)
        .bind(id)
        .bind(state)
        .bind(summary)
        .bind(error)
        .bind(now)
        .run()
        .await
}
