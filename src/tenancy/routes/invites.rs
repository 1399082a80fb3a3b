//! `POST /api/members` and `/api/invites`: inviting people, seeing and withdrawing what is open.

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
use crate::id::InviteId;
use crate::tenancy::invites::{self, Invite};
use crate::tenancy::role::Role;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(invite_member))
        .routes(routes!(list_invites))
        .routes(routes!(withdraw_invite))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct InviteMemberRequest {
    #[schema(format = "email", max_length = 254)]
    email: String,
    /// At most the inviter's own.
    role: Role,
}

/// A new invitation. Its token is shown here and never again.
#[derive(Serialize, ToSchema)]
struct InviteResponse {
    id: InviteId,
    email: String,
    role: Role,
    expires_at: DateTime<Utc>,
    /// To be handed to the invited person, who gives it to `/api/auth/accept-invite`. Works once.
    token: String,
}

/// An invitation that can still be accepted.
#[derive(Serialize, ToSchema)]
struct OpenInviteResponse {
    id: InviteId,
    email: String,
    role: Role,
    /// Who made it: `member:` or `api_key:` with the id, or `external:` with the subject.
    created_by: String,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
}

impl From<Invite> for OpenInviteResponse {
    fn from(invite: Invite) -> Self {
        Self {
            id: invite.id,
            email: invite.email,
            role: invite.role,
            created_by: invite.created_by,
            created_at: invite.created_at,
            expires_at: invite.expires_at,
        }
    }
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
    let (invite, token) = invites::invite(
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

/// The invitations that can still be accepted, newest first.
#[utoipa::path(
    get,
    path = "/api/invites",
    tag = "members",
    params(PageQuery),
    security(("bearer" = ["admin"])),
    responses(
        (status = 200, description = "A page of invitations", body = Page<OpenInviteResponse>),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn list_invites(
    access: AdminAccess,
    State(app): State<App>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<OpenInviteResponse>>, Problem> {
    let page = query.check()?;
    let rows = invites::list(&app, access.tenant_id, page).await?;
    Ok(axum::Json(Page::of(
        rows,
        page.limit,
        |invite| invite.id.0,
        OpenInviteResponse::from,
    )))
}

/// Withdraws an invitation: its token opens nothing any more.
#[utoipa::path(
    delete,
    path = "/api/invites/{id}",
    tag = "members",
    params(("id" = String, Path, format = "uuid", description = "The invitation's id")),
    security(("bearer" = ["admin"])),
    responses(
        (status = 204, description = "Withdrawn"),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn withdraw_invite(
    access: AdminAccess,
    State(app): State<App>,
    Path(id): Path<InviteId>,
) -> Result<StatusCode, Problem> {
    invites::withdraw(&app, access.tenant_id, id, &access.actor, &access.origin).await?;
    Ok(StatusCode::NO_CONTENT)
}
