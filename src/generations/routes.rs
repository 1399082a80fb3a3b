//! `/api/index/generations`: which embedding model answers, how sources are cut, and changing both without a gap.

use axum::extract::State;
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::cuts::{self, Cut};
use super::{By, Comparison, Generation, RolledBack};
use crate::app::App;
use crate::error::Error;
use crate::generations;
use crate::http::access::AdminAccess;
use crate::http::input::{Json, Path, Query};
use crate::http::problem::Problem;
use crate::id::{CutId, GenerationId, SourceId, TenantId};
use crate::knowledge::chunks::Chunking;

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

/// What is to be built: with neither field, a generation with the configured embedding model.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BeginGenerationRequest {
    /// The source whose documents are cut otherwise.
    source_id: Option<SourceId>,
    /// How they are cut; given with `source_id`.
    chunking: Option<Chunking>,
}

/// What a generation is a change of.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum GenerationKind {
    Model,
    Chunking,
}

/// The tenant's chunks in the index of one embedding model, or the chunks of a source as they are cut in one way.
#[derive(Serialize, ToSchema)]
struct GenerationResponse {
    id: GenerationId,
    kind: GenerationKind,
    /// `building`; `ready`: complete, not in use, given up after two weeks; `live`: answers; `standby`: was live, kept complete for a way back; `retired`.
    state: String,
    /// The embedding model, with the length of its vectors; of a chunking, the one that answers.
    embedding: String,
    /// The source whose documents are cut like this; null for a model.
    source_id: Option<SourceId>,
    /// How they are cut; null for a model.
    chunking: Option<Chunking>,
    /// Goes live by itself once it is complete.
    activates: bool,
    /// Chunks that there were when it was begun, and how many were put in while it was built; of a chunking, of how many the
    /// document is cut. In the list, of what is live: chunks that there are now, and how many of them are in.
    chunks: i64,
    done: i64,
    /// Documents that changed and are to be put in once more, which goes by itself. While a chunking is live, these are not found.
    lacking: i64,
    /// In the list: what hinders that it is filled, which is tried again by itself; null: nothing.
    last_error: Option<String>,
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

/// The generation that was taken back, and what answers instead.
#[derive(Serialize, ToSchema)]
struct RollbackResponse {
    #[serde(flatten)]
    taken_back: GenerationResponse,
    /// The generation that answers from now on.
    live_id: GenerationId,
    /// Documents that changed since it was live last: they follow by themselves, and those of a chunking are not found until
    /// then.
    live_lacking: i64,
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
            kind: GenerationKind::Model,
            state: generation.state,
            embedding: generation.space,
            source_id: None,
            chunking: None,
            activates: generation.activates,
            chunks: generation.chunk_count,
            done: generation.done_count,
            lacking: generation.lacking,
            last_error: None,
            comparison: generation.comparison.map(|comparison| comparison.0),
            created_at: generation.created_at,
            ready_at: generation.ready_at,
            activated_at: generation.activated_at,
            left_at: generation.left_at,
            rolled_back_at: generation.rolled_back_at,
        }
    }
}

impl GenerationResponse {
    fn of_cut(cut: Cut, embedding: &str) -> Self {
        Self {
            id: GenerationId(cut.id.0),
            kind: GenerationKind::Chunking,
            state: cut.state,
            embedding: embedding.to_owned(),
            source_id: Some(cut.source_id),
            chunking: Some(cut.chunking.0),
            activates: cut.activates,
            chunks: cut.chunk_count,
            done: cut.done_count,
            lacking: cut.lacking,
            last_error: None,
            comparison: cut.comparison.map(|comparison| comparison.0),
            created_at: cut.created_at,
            ready_at: cut.ready_at,
            activated_at: cut.activated_at,
            left_at: cut.left_at,
            rolled_back_at: cut.rolled_back_at,
        }
    }
}

/// Builds a generation in the background and beside the live one, which goes on answering: with a body, of a source's documents
/// cut otherwise; without one, with the configured embedding model. Gives the one that is under way already, if there is one. What
/// was begun for another wish is given up; asked for what is live, that is all this does, and gives that one.
#[utoipa::path(post, path = "/api/index/generations", tag = "index", params(BeginQuery), request_body = Option<BeginGenerationRequest>,
    responses((status = 202, description = "Being built", body = GenerationResponse), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["admin"])))]
async fn begin_generation(
    access: AdminAccess,
    State(app): State<App>,
    Query(query): Query<BeginQuery>,
    request: Option<Json<BeginGenerationRequest>>,
) -> Result<(StatusCode, axum::Json<GenerationResponse>), Problem> {
    access.reach().check_whole()?;
    let by = By::Caller(&access.actor, &access.origin);
    let activates = query.activate.unwrap_or(false);
    let request = request.map(|Json(request)| request).unwrap_or_default();
    let begun = match (request.source_id, request.chunking) {
        (Some(source_id), Some(chunking)) => {
            let cut = cuts::begin(&app, access.reach(), (source_id, chunking), activates, by).await?;
            GenerationResponse::of_cut(cut, &answering(&app, access.tenant_id).await?)
        }
        (None, None) => generations::begin(&app, access.tenant_id, activates, by)
            .await?
            .into(),
        (source_id, _) => {
            let missing = if source_id.is_some() {
                "chunking"
            } else {
                "source_id"
            };
            let told = "give source_id and chunking for another cut of a source, neither for the configured embedding model";
            return Err(Error::invalid("incomplete_generation", missing, told).into());
        }
    };
    Ok((StatusCode::ACCEPTED, axum::Json(begun)))
}

/// The name of the embedding model that answers, whether or not it and its index can be opened.
async fn answering(app: &App, tenant_id: TenantId) -> Result<String, Problem> {
    Ok(generations::live_name(app, tenant_id).await?)
}

/// The tenant's generations with their progress.
#[utoipa::path(get, path = "/api/index/generations", tag = "index",
    responses((status = 200, body = GenerationList), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["admin"])))]
async fn list_generations(
    access: AdminAccess,
    State(app): State<App>,
) -> Result<axum::Json<GenerationList>, Problem> {
    access.reach().check_whole()?;
    let (models, cuts) = generations::list(&app, access.tenant_id).await?;
    let mut hindrances = generations::list_hindrances(&app, access.tenant_id, (&models, &cuts)).await?;
    let embedding = answering(&app, access.tenant_id).await?;
    let of_cut = |cut| GenerationResponse::of_cut(cut, &embedding);
    let mut items: Vec<GenerationResponse> = models.into_iter().map(GenerationResponse::from).collect();
    items.extend(cuts.into_iter().map(of_cut));
    for item in &mut items {
        item.last_error = hindrances.remove(&item.id);
    }
    // Of each kind they are in this order.
    items.sort_by_key(|item| std::cmp::Reverse(item.created_at));
    Ok(axum::Json(GenerationList { items }))
}

/// Lets a generation that is complete answer from now on; of a chunking, also one that lacks a few documents that changed a moment
/// ago. The one that answered is kept for a while.
#[utoipa::path(post, path = "/api/index/generations/{id}/activate", tag = "index", params(("id" = String, Path, description = "The generation")),
    responses((status = 200, body = GenerationResponse), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["admin"])))]
async fn activate_generation(
    access: AdminAccess,
    State(app): State<App>,
    Path(id): Path<GenerationId>,
) -> Result<axum::Json<GenerationResponse>, Problem> {
    access.reach().check_whole()?;
    let by = By::Caller(&access.actor, &access.origin);
    if let Some(cut) = cuts::find(&app, access.tenant_id, CutId(id.0)).await? {
        let cut = cuts::activate(&app, access.reach(), cut.id, by).await?;
        let embedding = answering(&app, access.tenant_id).await?;
        return Ok(axum::Json(GenerationResponse::of_cut(cut, &embedding)));
    }
    Ok(axum::Json(
        generations::activate(&app, access.tenant_id, id, by)
            .await?
            .into(),
    ))
}

/// Takes the generation that is live back: the one before it answers again, at once. What changed meanwhile follows by itself.
#[utoipa::path(post, path = "/api/index/generations/{id}/rollback", tag = "index", params(("id" = String, Path, description = "The generation that is live")),
    responses((status = 200, body = RollbackResponse), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["admin"])))]
async fn roll_back_generation(
    access: AdminAccess,
    State(app): State<App>,
    Path(id): Path<GenerationId>,
) -> Result<axum::Json<RollbackResponse>, Problem> {
    access.reach().check_whole()?;
    let by = By::Caller(&access.actor, &access.origin);
    if let Some(cut) = cuts::find(&app, access.tenant_id, CutId(id.0)).await? {
        let RolledBack { former, live } = cuts::roll_back(&app, access.reach(), cut.id, by).await?;
        let embedding = answering(&app, access.tenant_id).await?;
        return Ok(axum::Json(RollbackResponse {
            taken_back: GenerationResponse::of_cut(former, &embedding),
            live_id: GenerationId(live.id.0),
            live_lacking: live.lacking,
        }));
    }
    let RolledBack { former, live } = generations::roll_back(&app, access.tenant_id, id, by).await?;
    Ok(axum::Json(RollbackResponse {
        taken_back: former.into(),
        live_id: live.id,
        live_lacking: live.lacking,
    }))
}
