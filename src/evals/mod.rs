//! Test sets of a chatbot: questions whose right documents or answers its owner knows, runs that ask them, and two runs
//! side by side.

mod compare;
mod deletion;
mod import;
mod judging;
mod outcome;
mod questions;
pub mod routes;
mod run;
mod setup;
mod store;

use chrono::{DateTime, Utc};
use serde_json::json;

use crate::app::App;
use crate::db::{Conn, Write};
use crate::error::{Error, Result};
use crate::http::access::{Actor, Reach};
use crate::http::input::{PageRequest, unknown_cursor};
use crate::id::{ChatbotId, EvalQuestionId, EvalRunId, EvalSetId, TenantId};
use crate::tenancy::audit::{self, Change, Origin};
use crate::{chatbots, generations, jobs, knowledge, tenancy};

pub use compare::{Comparison, QuestionChange};
pub use deletion::{DeleteEval, delete_some};
pub use import::{forget, import};
pub use outcome::{EvalMeasures, EvalResult, EvalSummary, GivenAnswer};
pub use questions::{EvalQuestion, Expected};
pub use run::RunEval;
pub use setup::{AnswerSettings, CutDifference, SettingDifference, Setup, SetupDifference, SourceCut};

/// Sets of one chatbot, at most.
const MAX_SETS: i64 = 50;

/// Runs that a set keeps: with a further one the oldest goes.
const KEPT_RUNS: i64 = 50;

/// Why a run of a deleted set ends.
const DELETED: &str = "its test set was deleted";

/// A set of questions.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct EvalSet {
    pub id: EvalSetId,
    pub name: String,
    pub questions: sqlx::types::Json<Vec<EvalQuestion>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// One asking of all questions of a set.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct EvalRun {
    pub id: EvalRunId,
    pub state: String,
    pub with_answers: bool,
    pub embedding_model: Option<String>,
    /// What answers it; none: it has not begun, or is of a version that did not note it.
    pub setup: Option<sqlx::types::Json<Setup>>,
    pub question_count: i64,
    /// Questions that were asked already.
    pub done_count: i64,
    pub summary: Option<sqlx::types::Json<EvalSummary>>,
    pub error: Option<String>,
    pub created_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
}

/// What an owner changes of a set; none: it stays.
#[derive(Debug, Default)]
pub struct SetChange {
    pub name: Option<String>,
    pub questions: Option<Vec<Expected>>,
}

/// Makes a set.
pub async fn create(
    app: &App,
    reach: Reach,
    chatbot_id: ChatbotId,
    (name, questions): (String, Vec<Expected>),
    (actor, origin): (&Actor, &Origin),
) -> Result<EvalSet> {
    tenancy::check_name(&name, "name")?;
    let now = app.clock.now();
    let mut write = app.db.write(reach.tenant_id).await?;
    chatbots::find(&mut write, reach, chatbot_id).await?;
    chatbots::hold(&mut write, reach.tenant_id, chatbot_id).await?;
    if store::count_sets(&mut write, reach.tenant_id, chatbot_id).await? >= MAX_SETS {
        return Err(Error::conflict(
            "too_many_evals",
            format!("this chatbot has {MAX_SETS} test sets: delete one first"),
        ));
    }
    let questions =
        questions::checked(app, &mut write, (reach.tenant_id, chatbot_id), questions, &[]).await?;
    let set = EvalSet {
        id: EvalSetId::new(),
        name,
        questions: sqlx::types::Json(questions),
        created_at: now,
        updated_at: now,
    };
    store::insert_set(&mut write, (reach.tenant_id, chatbot_id), &set).await?;
    let lines = (None, Some(set.describe()));
    record(
        app,
        &mut write,
        reach.tenant_id,
        ("eval.create", set.id),
        lines,
        (actor, origin),
    )
    .await?;
    write.commit().await?;
    Ok(set)
}

/// A page of a chatbot's sets, newest first.
pub async fn list(app: &App, reach: Reach, chatbot_id: ChatbotId, page: PageRequest) -> Result<Vec<EvalSet>> {
    let mut conn = app.db.read(reach.tenant_id).await?;
    chatbots::find(&mut conn, reach, chatbot_id).await?;
    store::list_sets(&mut conn, (reach.tenant_id, chatbot_id), page).await
}

/// One set.
pub async fn get(app: &App, reach: Reach, (chatbot_id, id): (ChatbotId, EvalSetId)) -> Result<EvalSet> {
    let mut conn = app.db.read(reach.tenant_id).await?;
    chatbots::find(&mut conn, reach, chatbot_id).await?;
    store::find_set(&mut conn, (reach.tenant_id, chatbot_id), id)
        .await?
        .ok_or(Error::NotFound("test set"))
}

/// Changes a set. Runs keep the questions that they were begun with.
pub async fn update(
    app: &App,
    reach: Reach,
    place: (ChatbotId, EvalSetId),
    change: SetChange,
    by: (&Actor, &Origin),
) -> Result<EvalSet> {
    let mut write = app.db.write(reach.tenant_id).await?;
    let before = hold(&mut write, reach, place).await?;
    let mut set = before.clone();
    if let Some(name) = change.name {
        tenancy::check_name(&name, "name")?;
        set.name = name;
    }
    if let Some(questions) = change.questions {
        let holders = (reach.tenant_id, place.0);
        set.questions.0 = questions::checked(app, &mut write, holders, questions, &before.questions).await?;
    }
    save(
        app,
        &mut write,
        reach.tenant_id,
        ("eval.update", &before, &mut set),
        by,
    )
    .await?;
    write.commit().await?;
    Ok(set)
}

/// Deletes a set with its runs: nobody sees it any more, and a job takes it apart.
pub async fn delete(
    app: &App,
    reach: Reach,
    place: (ChatbotId, EvalSetId),
    by: (&Actor, &Origin),
) -> Result<()> {
    let now = app.clock.now();
    let mut write = app.db.write(reach.tenant_id).await?;
    let set = hold(&mut write, reach, place).await?;
    store::hide_set(&mut write, reach.tenant_id, set.id, now).await?;
    store::end_runs(&mut write, (reach.tenant_id, set.id), None, (DELETED, now)).await?;
    jobs::enqueue(app, &mut write, reach.tenant_id, &DeleteEval { set_id: set.id }).await?;
    let lines = (Some(set.describe()), None);
    record(
        app,
        &mut write,
        reach.tenant_id,
        ("eval.delete", set.id),
        lines,
        by,
    )
    .await?;
    write.commit().await?;
    app.wake_workers();
    Ok(())
}

/// Begins a run over a set's questions as they are now. The oldest of too many runs goes.
pub async fn start_run(
    app: &App,
    reach: Reach,
    place: (ChatbotId, EvalSetId),
    with_answers: bool,
    by: (&Actor, &Origin),
) -> Result<EvalRun> {
    let now = app.clock.now();
    let live = generations::live_now(app, reach.tenant_id).await?;
    let mut write = app.db.write(reach.tenant_id).await?;
    let set = hold(&mut write, reach, place).await?;
    if set.questions.is_empty() {
        return Err(Error::conflict(
            "eval_empty",
            "this test set has no questions: add or import some first",
        ));
    }
    if store::has_open_run(&mut write, reach.tenant_id, set.id).await? {
        return Err(Error::conflict(
            "eval_running",
            "this test set is being run already: wait for the end of that run",
        ));
    }
    let run = EvalRun {
        id: EvalRunId::new(),
        state: "queued".to_owned(),
        with_answers,
        embedding_model: live.space.model.clone(),
        setup: None,
        question_count: set.questions.len() as i64,
        done_count: 0,
        summary: None,
        error: None,
        created_at: now,
        finished_at: None,
    };
    store::delete_old_runs(&mut write, (reach.tenant_id, set.id), KEPT_RUNS - 1).await?;
    store::insert_run(&mut write, reach.tenant_id, &set, &run).await?;
    let job = RunEval {
        chatbot_id: place.0,
        run_id: run.id,
    };
    jobs::enqueue(app, &mut write, reach.tenant_id, &job).await?;
    let after = json!({ "run_id": run.id, "questions": run.question_count, "answers": with_answers });
    let lines = (None, Some(after));
    record(app, &mut write, reach.tenant_id, ("eval.run", set.id), lines, by).await?;
    write.commit().await?;
    app.wake_workers();
    Ok(run)
}

/// A page of a set's runs, newest first.
pub async fn list_runs(
    app: &App,
    reach: Reach,
    (chatbot_id, id): (ChatbotId, EvalSetId),
    page: PageRequest,
) -> Result<Vec<EvalRun>> {
    let set = get(app, reach, (chatbot_id, id)).await?;
    store::list_runs(
        &mut app.db.read(reach.tenant_id).await?,
        reach.tenant_id,
        set.id,
        page,
    )
    .await
}

/// A run with a page of what came of its questions so far, in their order; `page.before` is the question before the page.
pub async fn get_run(
    app: &App,
    reach: Reach,
    place: (ChatbotId, EvalSetId),
    id: EvalRunId,
    page: PageRequest,
) -> Result<(EvalRun, Vec<EvalResult>)> {
    let (mut conn, run) = find_run(app, reach, place, id).await?;
    let run_place = (reach.tenant_id, id);
    let behind = match page.cursor() {
        None => -1,
        Some(cursor) => store::find_result_position(&mut conn, run_place, EvalQuestionId(cursor))
            .await?
            .ok_or_else(unknown_cursor)?,
    };
    let results = store::list_results_behind(&mut conn, run_place, behind, page.limit + 1).await?;
    Ok((run, results))
}

/// Two runs of a set side by side, question by question.
pub async fn compare_runs(
    app: &App,
    reach: Reach,
    place: (ChatbotId, EvalSetId),
    (before, after): (EvalRunId, EvalRunId),
) -> Result<Comparison> {
    let (mut conn, run) = find_run(app, reach, place, before).await?;
    let before = (
        run,
        store::list_results(&mut conn, reach.tenant_id, before).await?,
    );
    drop(conn);
    let (mut conn, run) = find_run(app, reach, place, after).await?;
    let after = (run, store::list_results(&mut conn, reach.tenant_id, after).await?);
    Ok(Comparison::of(before, after))
}

async fn find_run(
    app: &App,
    reach: Reach,
    place: (ChatbotId, EvalSetId),
    id: EvalRunId,
) -> Result<(Conn, EvalRun)> {
    let set = get(app, reach, place).await?;
    let mut conn = app.db.read(reach.tenant_id).await?;
    let run = store::find_run(&mut conn, reach.tenant_id, set.id, id)
        .await?
        .ok_or(Error::NotFound("run"))?;
    Ok((conn, run))
}

/// The questions of a tenant's sets, or of those of one chatbot of it, each with its chatbot, at most `limit`.
pub async fn list_expected(
    conn: &mut Conn,
    (tenant_id, chatbot_id): (TenantId, Option<ChatbotId>),
    limit: usize,
) -> Result<Vec<(ChatbotId, Expected)>> {
    let sets = store::list_questions(conn, tenant_id, chatbot_id).await?;
    let questions = sets.into_iter().flat_map(|(chatbot_id, questions)| {
        let of_set = questions.0.into_iter();
        of_set.map(move |question| (chatbot_id, question.expected))
    });
    Ok(questions.take(limit).collect())
}

/// nDCG@10 of what was found for a question; none where nothing answers it.
pub fn ndcg_at_10(expected: &Expected, passages: &[knowledge::Passage]) -> Option<f64> {
    let right = judging::right_documents(expected, passages);
    let measures = judging::measure(&judging::ranking(passages), &right);
    expected.answerable.then_some(measures.ndcg_at_10)
}

impl EvalSet {
    fn describe(&self) -> serde_json::Value {
        json!({ "name": self.name, "questions": self.questions.len() })
    }
}

/// The set, kept as it is for others until the transaction ends.
async fn hold(write: &mut Write, reach: Reach, (chatbot_id, id): (ChatbotId, EvalSetId)) -> Result<EvalSet> {
    chatbots::find(write, reach, chatbot_id).await?;
    store::hold_set(write, (reach.tenant_id, chatbot_id), id)
        .await?
        .ok_or(Error::NotFound("test set"))
}

async fn save(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    (action, before, set): (&'static str, &EvalSet, &mut EvalSet),
    by: (&Actor, &Origin),
) -> Result<()> {
    set.updated_at = app.clock.now();
    store::update_set(write, tenant_id, set).await?;
    let lines = (Some(before.describe()), Some(set.describe()));
    record(app, write, tenant_id, (action, set.id), lines, by).await
}

async fn record(
    app: &App,
    write: &mut Write,
    tenant_id: TenantId,
    (action, id): (&'static str, EvalSetId),
    (before, after): (Option<serde_json::Value>, Option<serde_json::Value>),
    (actor, origin): (&Actor, &Origin),
) -> Result<()> {
    let change = Change {
        action,
        object_kind: "eval",
        object_id: id.to_string(),
        before,
        after,
    };
    audit::record(write, tenant_id, actor, origin, change, app.clock.now()).await
}
