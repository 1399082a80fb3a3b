//! `/api/chatbots/{id}/evals`: test sets, their runs, and two runs side by side.

use axum::extract::State;
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{
    Comparison, EvalQuestion, EvalResult, EvalRun, EvalSet, EvalSummary, Expected, QuestionChange, SetChange,
    Setup, SetupDifference,
};
use crate::app::App;
use crate::error::Error;
use crate::evals;
use crate::http::access::{ConversationAccess, EditAccess};
use crate::http::input::{Json, Page, PageQuery, PageRequest, Path, Query, present, unknown_cursor};
use crate::http::problem::Problem;
use crate::id::{ChatbotId, ConversationId, DocumentId, EvalRunId, EvalSetId, MessageId};

/// The routes of this room.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_eval, list_evals))
        .routes(routes!(get_eval, update_eval, delete_eval))
        .routes(routes!(import_questions))
        .routes(routes!(start_eval_run, list_eval_runs))
        .routes(routes!(get_eval_run))
        .routes(routes!(compare_eval_runs))
}

/// A test set to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateEvalRequest {
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    #[serde(default)]
    #[schema(max_items = 500)]
    questions: Vec<EvalQuestionRequest>,
}

/// A question with what is expected: documents, an answer, or both; or that nothing answers it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EvalQuestionRequest {
    #[schema(min_length = 1)]
    question: String,
    /// Documents that hold the answer.
    #[serde(default)]
    #[schema(max_items = 50)]
    document_ids: Vec<DocumentId>,
    /// What the answer has to say, in words that stand in the documents.
    #[schema(min_length = 1, max_length = 2_000)]
    answer: Option<String>,
    /// False: the chatbot should say that it does not know. True unless given.
    answerable: Option<bool>,
    /// Access groups of the visitor who asks. Left out: what is open to everyone answers.
    #[serde(default)]
    #[schema(max_items = 50)]
    groups: Vec<String>,
}

impl From<EvalQuestionRequest> for Expected {
    fn from(request: EvalQuestionRequest) -> Self {
        Self {
            question: request.question,
            document_ids: request.document_ids,
            answer: request.answer,
            answerable: request.answerable.unwrap_or(true),
            groups: request.groups,
        }
    }
}

/// A change of a test set. What is left out stays; questions are replaced as a whole.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpdateEvalRequest {
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 200)]
    name: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Vec<EvalQuestionRequest>, required = false, max_items = 500)]
    questions: Option<Vec<EvalQuestionRequest>>,
}

/// Which questions of a conversation become test questions.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EvalImportRequest {
    conversation_id: ConversationId,
    /// Ids of answers in it whose questions can be asked alone. Left out: its first question, before which nothing was said.
    messages: Option<Vec<MessageId>>,
}

/// How a set is run.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EvalRunRequest {
    /// True: the chatbot answers each question, which counts to its budget. Otherwise only its search is measured, and what
    /// that asks of others is booked: a remote embedding model, and a reranker where the chatbot has one.
    answers: Option<bool>,
}

/// A test set.
#[derive(Serialize, ToSchema)]
struct EvalResponse {
    id: EvalSetId,
    name: String,
    question_count: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<EvalSet> for EvalResponse {
    fn from(set: EvalSet) -> Self {
        Self {
            id: set.id,
            name: set.name,
            question_count: set.questions.len() as i64,
            created_at: set.created_at,
            updated_at: set.updated_at,
        }
    }
}

/// A test set with its questions.
#[derive(Serialize, ToSchema)]
struct EvalDetail {
    #[serde(flatten)]
    set: EvalResponse,
    questions: Vec<EvalQuestion>,
}

impl From<EvalSet> for EvalDetail {
    fn from(mut set: EvalSet) -> Self {
        let questions = std::mem::take(&mut set.questions.0);
        let question_count = questions.len() as i64;
        Self {
            set: EvalResponse {
                question_count,
                ..set.into()
            },
            questions,
        }
    }
}

/// A run over a test set.
#[derive(Serialize, ToSchema)]
struct EvalRunResponse {
    id: EvalRunId,
    /// `queued`, `running`, `done` or `failed`.
    state: String,
    answers: bool,
    /// The embedding model in use; null: questions were asked by their words alone.
    embedding_model: Option<String>,
    /// What answers, as exactly as runs have to be told apart; null until the run begins, and for runs of earlier versions.
    setup: Option<Setup>,
    question_count: i64,
    /// Questions that were asked already.
    done_count: i64,
    /// Null until the run is done.
    summary: Option<EvalSummary>,
    /// Why it failed.
    error: Option<String>,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
}

impl From<EvalRun> for EvalRunResponse {
    fn from(run: EvalRun) -> Self {
        Self {
            id: run.id,
            state: run.state,
            answers: run.with_answers,
            embedding_model: run.embedding_model,
            setup: run.setup.map(|setup| setup.0),
            question_count: run.question_count,
            done_count: run.done_count,
            summary: run.summary.map(|summary| summary.0),
            error: run.error,
            created_at: run.created_at,
            finished_at: run.finished_at,
        }
    }
}

/// A run with what came of each question.
#[derive(Serialize, ToSchema)]
struct EvalRunDetail {
    #[serde(flatten)]
    run: EvalRunResponse,
    /// In the order of the questions, those that were asked so far. What came of questions of conversations that were deleted
    /// since is gone.
    results: Vec<EvalResult>,
    /// Give this as `cursor` for the next results; null on the last page.
    next_cursor: Option<String>,
}

/// Two runs side by side.
#[derive(Serialize, ToSchema)]
struct EvalComparisonResponse {
    before: EvalRunResponse,
    after: EvalRunResponse,
    /// What answered the second run otherwise; null where that is not known of one of the runs. Changes of documents are not told.
    setup_difference: Option<SetupDifference>,
    /// Questions whose outcome is better in the second run: the answer says what was expected, it is answered where it was declined, a
    /// higher nDCG@10, or declined where nothing answers.
    better: i64,
    worse: i64,
    /// Questions of which the second run expected something else than the first: other documents, another answer, other access
    /// groups. Their outcomes cannot be compared, so they are neither better nor worse.
    relabelled: i64,
    /// Those of the second run in its order, then those that only the first one asked.
    questions: Vec<EvalQuestionChangeResponse>,
    /// Give this as `cursor` for the next questions; null on the last page.
    next_cursor: Option<String>,
}

/// One question in both runs.
#[derive(Serialize, ToSchema)]
struct EvalQuestionChangeResponse {
    /// `better`, `same`, `worse`, or `relabelled`: the runs expected something else of it. Null where only one run asked it.
    change: Option<&'static str>,
    /// nDCG@10 of the second run less that of the first; null where one of them has none, and for a `relabelled` question.
    ndcg_difference: Option<f64>,
    /// Null: the first run did not ask it.
    before: Option<EvalResult>,
    /// Null: the second run did not ask it.
    after: Option<EvalResult>,
}

impl From<QuestionChange> for EvalQuestionChangeResponse {
    fn from(change: QuestionChange) -> Self {
        let ndcg =
            |result: &Option<EvalResult>| result.as_ref()?.measures.map(|measures| measures.ndcg_at_10);
        let became = change.became();
        let difference = ndcg(&change.after)
            .zip(ndcg(&change.before))
            .filter(|_| became.is_some());
        let relabelled = change.is_relabelled().then_some("relabelled");
        Self {
            change: relabelled.or(became.map(|became| match became {
                std::cmp::Ordering::Greater => "better",
                std::cmp::Ordering::Equal => "same",
                std::cmp::Ordering::Less => "worse",
            })),
            ndcg_difference: difference.map(|(after, before)| after - before),
            before: change.before,
            after: change.after,
        }
    }
}

impl EvalComparisonResponse {
    /// With the questions behind the one that the page's cursor names.
    fn of(compared: Comparison, page: PageRequest) -> Result<Self, Error> {
        let (better, worse) = compared.better_and_worse();
        let relabelled = compared.relabelled();
        let setup_difference = compared.setup_difference();
        let id = |change: &QuestionChange| change.question_id.0;
        let mut behind = compared.questions;
        if let Some(cursor) = page.cursor() {
            let position = behind.iter().position(|change| id(change) == cursor);
            behind.drain(..=position.ok_or_else(unknown_cursor)?);
        }
        let page = Page::of(behind, page.limit, id, EvalQuestionChangeResponse::from);
        Ok(Self {
            before: compared.before.into(),
            after: compared.after.into(),
            setup_difference,
            better,
            worse,
            relabelled,
            questions: page.items,
            next_cursor: page.next_cursor,
        })
    }
}

/// Makes a test set for a chatbot: questions with the documents or the answer that are expected.
#[utoipa::path(post, path = "/api/chatbots/{id}/evals", tag = "evals", request_body = CreateEvalRequest, params(("id" = String, Path, description = "The chatbot")),
    responses((status = 201, description = "The new test set", body = EvalDetail), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["edit"])))]
async fn create_eval(
    access: EditAccess,
    State(app): State<App>,
    Path(id): Path<ChatbotId>,
    Json(request): Json<CreateEvalRequest>,
) -> Result<(StatusCode, axum::Json<EvalDetail>), Problem> {
    let questions = request.questions.into_iter().map(Into::into).collect();
    let by = (&access.actor, &access.origin);
    let set = evals::create(&app, access.reach(), id, (request.name, questions), by).await?;
    Ok((StatusCode::CREATED, axum::Json(set.into())))
}

/// A chatbot's test sets, newest first.
#[utoipa::path(get, path = "/api/chatbots/{id}/evals", tag = "evals", params(("id" = String, Path, description = "The chatbot"), PageQuery),
    responses((status = 200, body = Page<EvalResponse>), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["conversations"])))]
async fn list_evals(
    access: ConversationAccess,
    State(app): State<App>,
    Path(id): Path<ChatbotId>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<EvalResponse>>, Problem> {
    let page = query.check()?;
    let sets = evals::list(&app, access.reach(), id, page).await?;
    Ok(axum::Json(Page::of(
        sets,
        page.limit,
        |set| set.id.0,
        EvalResponse::from,
    )))
}

/// A test set with its questions.
#[utoipa::path(get, path = "/api/chatbots/{id}/evals/{eval_id}", tag = "evals",
    params(("id" = String, Path, description = "The chatbot"), ("eval_id" = String, Path, description = "The test set")),
    responses((status = 200, body = EvalDetail), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["conversations"])))]
async fn get_eval(
    access: ConversationAccess,
    State(app): State<App>,
    Path(place): Path<(ChatbotId, EvalSetId)>,
) -> Result<axum::Json<EvalDetail>, Problem> {
    Ok(axum::Json(evals::get(&app, access.reach(), place).await?.into()))
}

/// Changes a test set's name, or replaces its questions. Earlier runs keep the questions that they asked.
#[utoipa::path(patch, path = "/api/chatbots/{id}/evals/{eval_id}", tag = "evals", request_body = UpdateEvalRequest,
    params(("id" = String, Path, description = "The chatbot"), ("eval_id" = String, Path, description = "The test set")),
    responses((status = 200, body = EvalDetail), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["edit"])))]
async fn update_eval(
    access: EditAccess,
    State(app): State<App>,
    Path(place): Path<(ChatbotId, EvalSetId)>,
    Json(request): Json<UpdateEvalRequest>,
) -> Result<axum::Json<EvalDetail>, Problem> {
    let change = SetChange {
        name: request.name,
        questions: request
            .questions
            .map(|questions| questions.into_iter().map(Into::into).collect()),
    };
    let by = (&access.actor, &access.origin);
    let set = evals::update(&app, access.reach(), place, change, by).await?;
    Ok(axum::Json(set.into()))
}

/// Deletes a test set with its runs.
#[utoipa::path(delete, path = "/api/chatbots/{id}/evals/{eval_id}", tag = "evals",
    params(("id" = String, Path, description = "The chatbot"), ("eval_id" = String, Path, description = "The test set")),
    responses((status = 204, description = "Gone"), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["edit"])))]
async fn delete_eval(
    access: EditAccess,
    State(app): State<App>,
    Path(place): Path<(ChatbotId, EvalSetId)>,
) -> Result<StatusCode, Problem> {
    evals::delete(&app, access.reach(), place, (&access.actor, &access.origin)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Adds questions that visitors really asked, from a conversation of the chatbot: what an answer cited is expected again by a
/// visitor of the same access groups, and of a question that found nothing it is expected that nothing answers it. Questions
/// that are there already are not added again. When the conversation is deleted, they go with it, and so does what came of
/// them in runs.
#[utoipa::path(post, path = "/api/chatbots/{id}/evals/{eval_id}/import", tag = "evals", request_body = EvalImportRequest,
    params(("id" = String, Path, description = "The chatbot"), ("eval_id" = String, Path, description = "The test set")),
    responses((status = 200, body = EvalDetail), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["edit"])))]
async fn import_questions(
    access: EditAccess,
    State(app): State<App>,
    Path(place): Path<(ChatbotId, EvalSetId)>,
    Json(request): Json<EvalImportRequest>,
) -> Result<axum::Json<EvalDetail>, Problem> {
    let wanted = (request.conversation_id, request.messages);
    let by = (&access.actor, &access.origin);
    let set = evals::import(&app, access.reach(), place, wanted, by).await?;
    Ok(axum::Json(set.into()))
}

/// Begins a run: asks all questions of a test set in the background, each as a visitor of its access groups. A test set keeps
/// its 50 latest runs.
#[utoipa::path(post, path = "/api/chatbots/{id}/evals/{eval_id}/runs", tag = "evals", request_body = EvalRunRequest,
    params(("id" = String, Path, description = "The chatbot"), ("eval_id" = String, Path, description = "The test set")),
    responses((status = 202, description = "The run, queued", body = EvalRunResponse), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["edit"])))]
async fn start_eval_run(
    access: EditAccess,
    State(app): State<App>,
    Path(place): Path<(ChatbotId, EvalSetId)>,
    Json(request): Json<EvalRunRequest>,
) -> Result<(StatusCode, axum::Json<EvalRunResponse>), Problem> {
    let with_answers = request.answers.unwrap_or(false);
    let by = (&access.actor, &access.origin);
    let run = evals::start_run(&app, access.reach(), place, with_answers, by).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(run.into())))
}

/// A test set's runs, newest first.
#[utoipa::path(get, path = "/api/chatbots/{id}/evals/{eval_id}/runs", tag = "evals",
    params(("id" = String, Path, description = "The chatbot"), ("eval_id" = String, Path, description = "The test set"), PageQuery),
    responses((status = 200, body = Page<EvalRunResponse>), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["conversations"])))]
async fn list_eval_runs(
    access: ConversationAccess,
    State(app): State<App>,
    Path(place): Path<(ChatbotId, EvalSetId)>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<EvalRunResponse>>, Problem> {
    let page = query.check()?;
    let runs = evals::list_runs(&app, access.reach(), place, page).await?;
    Ok(axum::Json(Page::of(
        runs,
        page.limit,
        |run| run.id.0,
        EvalRunResponse::from,
    )))
}

/// A run with what came of each question, a page of them at a time.
#[utoipa::path(get, path = "/api/chatbots/{id}/evals/{eval_id}/runs/{eval_run_id}", tag = "evals",
    params(("id" = String, Path, description = "The chatbot"), ("eval_id" = String, Path, description = "The test set"), ("eval_run_id" = String, Path, description = "The run"), PageQuery),
    responses((status = 200, body = EvalRunDetail), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["conversations"])))]
async fn get_eval_run(
    access: ConversationAccess,
    State(app): State<App>,
    Path((chatbot_id, set_id, run_id)): Path<(ChatbotId, EvalSetId, EvalRunId)>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<EvalRunDetail>, Problem> {
    let page = query.check()?;
    let place = (chatbot_id, set_id);
    let (run, results) = evals::get_run(&app, access.reach(), place, run_id, page).await?;
    let page = Page::of(
        results,
        page.limit,
        |result| result.question_id.0,
        |result| result,
    );
    Ok(axum::Json(EvalRunDetail {
        run: run.into(),
        results: page.items,
        next_cursor: page.next_cursor,
    }))
}

/// Two runs of a test set side by side, with what changed for each question, a page of them at a time.
#[utoipa::path(get, path = "/api/chatbots/{id}/evals/{eval_id}/runs/{eval_run_id}/compare/{other_run_id}", tag = "evals",
    params(("id" = String, Path, description = "The chatbot"), ("eval_id" = String, Path, description = "The test set"),
        ("eval_run_id" = String, Path, description = "The first run"), ("other_run_id" = String, Path, description = "The run that is held against it"), PageQuery),
    responses((status = 200, body = EvalComparisonResponse), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["conversations"])))]
async fn compare_eval_runs(
    access: ConversationAccess,
    State(app): State<App>,
    Path((chatbot_id, set_id, before, after)): Path<(ChatbotId, EvalSetId, EvalRunId, EvalRunId)>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<EvalComparisonResponse>, Problem> {
    let page = query.check()?;
    let place = (chatbot_id, set_id);
    let compared = evals::compare_runs(&app, access.reach(), place, (before, after)).await?;
    Ok(axum::Json(EvalComparisonResponse::of(compared, page)?))
}
