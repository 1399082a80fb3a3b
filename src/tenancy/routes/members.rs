//! `/api/members`: who belongs to the tenant, inviting, changing roles, removing.

use axum::Extension;
use axum::extract::State;
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::http::access::AdminAccess;
use crate::http::idempotency::ShownOnce;
use crate::http::input::{Json, Page, PageQuery, Path, Query};
use crate::http::problem::Problem;
use crate::id::{InviteId, MemberId};
use crate::tenancy::members::{self, MemberView};
use crate::tenancy::role::Role;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_members, invite_member))
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
struct InviteMemberRequest {
    #[schema(format = "email", max_length = 254)]
    email: String,
    /// At most the inviter's own.
    role: Role,
}

/// An invitation. Its token is shown here and never again.
#[derive(Serialize, ToSchema)]
struct InviteResponse {
    id: InviteId,
    email: String,
    role: Role,
    expires_at: DateTime<Utc>,
    /// To be handed to the invited person, who gives it to `/api/auth/accept-invite`. Works once.
    token: String,
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

/// Invites someone to become a member.
#[utoipa::path(
    post,
    path = "/api/members",
    tag = "members",
    request_body = InviteMemberRequest,
    security(("bearer" = ["admin"])),
    responses(
        (status = 201, description = "The invitation with its token", body = InviteResponse),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn invite_member(
    access: AdminAccess,
    State(app): State<App>,
    Json(request): Json<InviteMemberRequest>,
) -> Result<(StatusCode, Extension<ShownOnce>, axum::Json<InviteResponse>), Problem> {
    let (invite, token) = members::invite(
        &app,
        access.tenant_id,
        &request.email,
        request.role,
        &access.actor,
        &access.origin,
    )
    .await?;
    let response = InviteResponse {
        id: invite.id,
        email: invite.email,
        role: invite.role,
        expires_at: invite.expires_at,
        token,
    };
    Ok((StatusCode::CREATED, Extension(ShownOnce), axum::Json(response)))
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
