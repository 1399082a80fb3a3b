//! HTTP of what a source leaves out.

use axum::extract::State;
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::exclusions::{self, Exclusion};
use crate::app::App;
use crate::http::access::{IngestAccess, KnowledgeAccess};
use crate::http::input::{Page, PageQuery, Path, Query};
use crate::http::problem::Problem;
use crate::id::{ExclusionId, SourceId};

/// The routes of exclusions.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_exclusions))
        .routes(routes!(lift_exclusion))
}

/// A page or file whose document was deleted by hand.
#[derive(Serialize, ToSchema)]
struct ExclusionResponse {
    id: ExclusionId,
    /// How the source names it: an address or a file's id.
    external_id: String,
    /// Where people find it.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// As the document was called.
    title: String,
    created_at: DateTime<Utc>,
}

impl From<Exclusion> for ExclusionResponse {
    fn from(exclusion: Exclusion) -> Self {
        Self {
            id: exclusion.id,
            external_id: exclusion.external_id,
            url: exclusion.url,
            title: exclusion.title,
            created_at: exclusion.created_at,
        }
    }
}

/// Pages and files that runs over a source leave out, because their documents were deleted by hand, newest first.
#[utoipa::path(get, path = "/api/sources/{id}/exclusions", tag = "sources", params(("id" = String, Path, description = "The source"), PageQuery),
    responses((status = 200, body = Page<ExclusionResponse>), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["knowledge:read"])))]
async fn list_exclusions(
    access: KnowledgeAccess,
    State(app): State<App>,
    Path(id): Path<SourceId>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<ExclusionResponse>>, Problem> {
    let page = query.check()?;
    let listed = exclusions::list(&app, access.reach(), id, page).await?;
    Ok(axum::Json(Page::of(
        listed,
        page.limit,
        |exclusion| exclusion.id.0,
        ExclusionResponse::from,
    )))
}

/// Lets runs read a page or file again, from the next one on.
#[utoipa::path(delete, path = "/api/sources/{id}/exclusions/{exclusion_id}", tag = "sources",
    params(("id" = String, Path, description = "The source"), ("exclusion_id" = String, Path, description = "The exclusion")),
    responses((status = 204, description = "Lifted"), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["ingest"])))]
async fn lift_exclusion(
    access: IngestAccess,
    State(app): State<App>,
    Path(place): Path<(SourceId, ExclusionId)>,
) -> Result<StatusCode, Problem> {
    exclusions::lift(&app, access.reach(), place, &access.actor, &access.origin).await?;
    Ok(StatusCode::NO_CONTENT)
}
