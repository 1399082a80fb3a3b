//! `/api/index/generations`: which embedding model answers, and changing it without a gap.

use axum::extract::State;
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Comparison, Generation};
use crate::app::App;
use crate::generations;
use crate::http::access::AdminAccess;
use crate::http::input::{Path, Query};
use crate::http::problem::Problem;
use crate::id::GenerationId;

/// The routes of this room.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(begin_generation, list_generations))
        .routes(routes!(activate_generation))
        .routes(routes!(roll_back_generation))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct BeginQuery {
    /// True: it goes live by itself once it is complete. False unless given: it waits to be activated.
    activate: Option<bool>,
}

/// The tenant's chunks in the index of one embedding model.
#[derive(Serialize, ToSchema)]
struct GenerationResponse {
    id: GenerationId,
    /// `building`; `ready`: complete, not in use; `live`: answers; `standby`: was live, kept complete for a way back; `retired`.
    state: String,
    /// The embedding model, with the length of its vectors.
    embedding: String,
    /// Goes live by itself once it is complete.
    activates: bool,
    /// Chunks that there were when it was begun, and how many were put in while it was built.
    chunks: i64,
    done: i64,
    /// How it answered the questions of the tenant's test sets, or else the latest of its visitors, beside the one that was
    /// live; null until it is complete.
    comparison: Option<Comparison>,
    created_at: DateTime<Utc>,
    ready_at: Option<DateTime<Utc>>,
    activated_at: Option<DateTime<Utc>>,
    /// When it was live last, if it is not.
    left_at: Option<DateTime<Utc>>,
    /// It was taken back, and does not go live by itself again.
    rolled_back_at: Option<DateTime<Utc>>,
}

#[derive(Serialize, ToSchema)]
struct GenerationList {
    /// Newest first.
    items: Vec<GenerationResponse>,
}

impl From<Generation> for GenerationResponse {
    fn from(generation: Generation) -> Self {
        Self {
            id: generation.id,
            state: generation.state,
            embedding: generation.space,
            activates: generation.activates,
            chunks: generation.chunk_count,
            done: generation.done_count,
            comparison: generation.comparison.map(|comparison| comparison.0),
            created_at: generation.created_at,
            ready_at: generation.ready_at,
            activated_at: generation.activated_at,
            left_at: generation.left_at,
            rolled_back_at: generation.rolled_back_at,
        }
    }
}

/// Builds a generation with the configured embedding model, in the background and beside the live one, which goes on
/// answering. Gives the one that is under way already, if there is one.
#[utoipa::path(post, path = "/api/index/generations", tag = "index", params(BeginQuery),
    responses((status = 202, description = "Being built", body = GenerationResponse), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["admin"])))]
async fn begin_generation(
    access: AdminAccess,
    State(app): State<App>,
    Query(query): Query<BeginQuery>,
) -> Result<(StatusCode, axum::Json<GenerationResponse>), Problem> {
    access.reach().check_whole()?;
    let by = (&access.actor, &access.origin);
    let begun = generations::begin(&app, access.tenant_id, query.activate.unwrap_or(false), by).await?;
    Ok((StatusCode::ACCEPTED, axum::Json(begun.into())))
}

/// The tenant's generations with their progress.
#[utoipa::path(get, path = "/api/index/generations", tag = "index",
    responses((status = 200, body = GenerationList), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["admin"])))]
async fn list_generations(
    access: AdminAccess,
    State(app): State<App>,
) -> Result<axum::Json<GenerationList>, Problem> {
    access.reach().check_whole()?;
    let all = generations::list(&app, access.tenant_id).await?;
    Ok(axum::Json(GenerationList {
        items: all.into_iter().map(GenerationResponse::from).collect(),
    }))
}

/// Lets a generation that is complete answer from now on. The one that answered is kept complete for a while.
#[utoipa::path(post, path = "/api/index/generations/{id}/activate", tag = "index", params(("id" = String, Path, description = "The generation")),
    responses((status = 200, body = GenerationResponse), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["admin"])))]
async fn activate_generation(
    access: AdminAccess,
    State(app): State<App>,
    Path(id): Path<GenerationId>,
) -> Result<axum::Json<GenerationResponse>, Problem> {
    access.reach().check_whole()?;
    let by = (&access.actor, &access.origin);
    Ok(axum::Json(
        generations::activate(&app, access.tenant_id, id, by)
            .await?
            .into(),
    ))
}

/// Takes the generation that is live back: the one before it answers again.
#[utoipa::path(post, path = "/api/index/generations/{id}/rollback", tag = "index", params(("id" = String, Path, description = "The generation that is live")),
    responses((status = 200, body = GenerationResponse), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["admin"])))]
async fn roll_back_generation(
    access: AdminAccess,
    State(app): State<App>,
    Path(id): Path<GenerationId>,
) -> Result<axum::Json<GenerationResponse>, Problem> {
    access.reach().check_whole()?;
    let by = (&access.actor, &access.origin);
    Ok(axum::Json(
        generations::roll_back(&app, access.tenant_id, id, by)
            .await?
            .into(),
    ))
}
