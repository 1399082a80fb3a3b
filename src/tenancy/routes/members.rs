//! `/api/members`: who belongs to the tenant, changing roles, removing.

use axum::extract::State;
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::http::access::AdminAccess;
use crate::http::input::{Json, Page, PageQuery, Path, Query};
use crate::http::problem::Problem;
use crate::id::MemberId;
use crate::tenancy::members::{self, MemberView};
use crate::tenancy::role::Role;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_members))
        .routes(routes!(change_role, remove_member))
}

/// A member of the tenant.
#[derive(Serialize, ToSchema)]
struct MemberResponse {
    id: MemberId,
    email: String,
    role: Role,
    created_at: DateTime<Utc>,
}

impl From<MemberView> for MemberResponse {
    fn from(member: MemberView) -> Self {
        Self {
            id: member.id,
            email: member.email,
            role: member.role,
            created_at: member.created_at,
        }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeRoleRequest {
    /// At most one's own.
    role: Role,
}

/// The tenant's members, newest first.
#[utoipa::path(
    get,
    path = "/api/members",
    tag = "members",
    params(PageQuery),
    security(("bearer" = ["admin"])),
    responses(
        (status = 200, description = "A page of members", body = Page<MemberResponse>),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn list_members(
    access: AdminAccess,
    State(app): State<App>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<MemberResponse>>, Problem> {
    let page = query.check()?;
    let rows = members::list(&app, access.tenant_id, page).await?;
    Ok(axum::Json(Page::of(
        rows,
        page.limit,
        members::page_key,
        MemberResponse::from,
    )))
}

/// Gives a member another role. The tenant's last owner stays one.
#[utoipa::path(
    patch,
    path = "/api/members/{id}",
    tag = "members",
    params(("id" = String, Path, format = "uuid", description = "The member's id")),
    request_body = ChangeRoleRequest,
    security(("bearer" = ["admin"])),
    responses(
        (status = 200, description = "The changed member", body = MemberResponse),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn change_role(
    access: AdminAccess,
    State(app): State<App>,
    Path(id): Path<MemberId>,
    Json(request): Json<ChangeRoleRequest>,
) -> Result<axum::Json<MemberResponse>, Problem> {
    let member = members::change_role(
        &app,
        access.tenant_id,
        id,
        request.role,
        &access.actor,
        &access.origin,
    )
    .await?;
    Ok(axum::Json(member.into()))
}

/// Ends a membership; the person's sessions in this tenant end with it. The last owner stays.
#[utoipa::path(
    delete,
    path = "/api/members/{id}",
    tag = "members",
    params(("id" = String, Path, format = "uuid", description = "The member's id")),
    security(("bearer" = ["admin"])),
    responses(
        (status = 204, description = "No member any more"),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn remove_member(
    access: AdminAccess,
    State(app): State<App>,
    Path(id): Path<MemberId>,
) -> Result<StatusCode, Problem> {
    members::remove(&app, access.tenant_id, id, &access.actor, &access.origin).await?;
    Ok(StatusCode::NO_CONTENT)
}
