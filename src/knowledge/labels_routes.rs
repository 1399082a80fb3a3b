//! HTTP of what owners say of documents.

use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::labels::{self, LabelsChange};
use super::routes::DocumentResponse;
use crate::app::App;
use crate::http::access::IngestAccess;
use crate::http::input::{Json, Path, present};
use crate::http::problem::Problem;
use crate::id::DocumentId;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(update_document))
}

/// What changes of a document. What is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpdateDocumentRequest {
    /// Null: those of its source.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Vec<String>>, max_items = 50)]
    tags: Option<Option<Vec<String>>>,
    /// Access groups of which a visitor needs one to be answered from it; an empty list opens it to everyone. Null: those of
    /// its source.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Vec<String>>, max_items = 50)]
    access_groups: Option<Option<Vec<String>>>,
}

/// Changes a document's tags and who may be answered from it. It holds from the next question on.
#[utoipa::path(patch, path = "/api/documents/{id}", tag = "knowledge", params(("id" = String, Path, description = "The document")), request_body = UpdateDocumentRequest,
    responses((status = 200, body = DocumentResponse), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["ingest"])))]
async fn update_document(
    access: IngestAccess,
    State(app): State<App>,
    Path(id): Path<DocumentId>,
    Json(request): Json<UpdateDocumentRequest>,
) -> Result<axum::Json<DocumentResponse>, Problem> {
    let change = LabelsChange {
        tags: request.tags,
        access_groups: request.access_groups,
    };
    let document =
        labels::change_document(&app, access.reach(), id, change, &access.actor, &access.origin).await?;
    Ok(axum::Json(document.into()))
}
