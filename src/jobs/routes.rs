//! `/api/jobs`: what is queued, what runs, what failed and why, and another try for it.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{JobState, JobView};
use crate::app::App;
use crate::http::access::AdminAccess;
use crate::http::input::{Page, PageQuery, Path, Query};
use crate::http::problem::Problem;
use crate::id::JobId;
use crate::jobs;

/// The routes of this room.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_jobs))
        .routes(routes!(get_job))
        .routes(routes!(retry_job))
}

/// Which jobs, and which page of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct JobsQuery {
    /// Only jobs in this state.
    #[param(value_type = Option<JobState>, inline)]
    state: Option<JobState>,
    /// Items on the page, 1 to 100; 50 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    #[param(value_type = Option<String>, format = "uuid")]
    cursor: Option<String>,
}

/// A piece of background work.
#[derive(Debug, Serialize, ToSchema)]
struct JobResponse {
    id: JobId,
    /// What is done, for example `index_documents`.
    kind: String,
    /// What it is done to, by ids.
    #[schema(value_type = Object)]
    payload: Value,
    #[schema(value_type = JobState)]
    state: String,
    /// Lower goes first.
    priority: i64,
    /// Tries begun so far.
    attempt: i64,
    /// Tries before the job counts as failed.
    max_attempts: i64,
    /// Not before this time.
    run_at: DateTime<Utc>,
    /// Why the last try did not succeed.
    last_error: Option<String>,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
}

impl From<JobView> for JobResponse {
    fn from(job: JobView) -> Self {
        Self {
            id: job.id,
            kind: job.kind,
            payload: job.payload.0,
            state: job.state,
            priority: job.priority,
            attempt: job.attempt,
            max_attempts: job.max_attempts,
            run_at: job.run_at,
            last_error: job.last_error,
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
        }
    }
}

/// The tenant's jobs, newest first.
#[utoipa::path(
    get,
    path = "/api/jobs",
    tag = "jobs",
    params(JobsQuery),
    security(("bearer" = ["admin"])),
    responses(
        (status = 200, description = "A page of jobs", body = Page<JobResponse>),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn list_jobs(
    access: AdminAccess,
    State(app): State<App>,
    Query(query): Query<JobsQuery>,
) -> Result<axum::Json<Page<JobResponse>>, Problem> {
    let page = PageQuery {
        limit: query.limit,
        cursor: query.cursor,
    }
    .check()?;
    let jobs = jobs::list(&app, access.tenant_id, query.state, page).await?;
    Ok(axum::Json(Page::of(
        jobs,
        page.limit,
        |job| job.id.0,
        JobResponse::from,
    )))
}

/// One job.
#[utoipa::path(
    get,
    path = "/api/jobs/{id}",
    tag = "jobs",
    params(("id" = String, Path, format = "uuid", description = "The job's id")),
    security(("bearer" = ["admin"])),
    responses(
        (status = 200, description = "The job", body = JobResponse),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn get_job(
    access: AdminAccess,
    State(app): State<App>,
    Path(id): Path<JobId>,
) -> Result<axum::Json<JobResponse>, Problem> {
    let job = jobs::get(&app, access.tenant_id, id).await?;
    Ok(axum::Json(job.into()))
}

/// Queues a failed job again, with its tries counted anew.
#[utoipa::path(
    post,
    path = "/api/jobs/{id}/retry",
    tag = "jobs",
    params(("id" = String, Path, format = "uuid", description = "The job's id")),
    security(("bearer" = ["admin"])),
    responses(
        (status = 200, description = "The job, queued", body = JobResponse),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn retry_job(
    access: AdminAccess,
    State(app): State<App>,
    Path(id): Path<JobId>,
) -> Result<axum::Json<JobResponse>, Problem> {
    let job = jobs::retry(&app, access.tenant_id, id, &access.actor, &access.origin).await?;
    Ok(axum::Json(job.into()))
}
