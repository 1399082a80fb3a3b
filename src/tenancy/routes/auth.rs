//! `/api/auth`: signing up, logging in and out, tokens, passwords. Most of it takes callers without a credential;
//! their attempts are counted before any work is done for them.

use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::Error;
use crate::http::access::{Actor, Member, Stranger};
use crate::http::input::Json;
use crate::http::problem::Problem;
use crate::http::rate::{Bucket, Meter};
use crate::id::{MemberId, TenantId};
use crate::tenancy::role::Role;
use crate::tenancy::sessions::Login;
use crate::tenancy::{invites, sessions};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(sign_up))
        .routes(routes!(log_in))
        .routes(routes!(refresh))
        .routes(routes!(accept_invite))
        .routes(routes!(log_out))
        .routes(routes!(change_password))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SignUpRequest {
    #[schema(format = "email", max_length = 254)]
    email: String,
    #[schema(format = "password", min_length = 10, max_length = 200)]
    password: String,
    /// What the new tenant is called.
    #[schema(min_length = 1, max_length = 200)]
    tenant_name: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LogInRequest {
    #[schema(format = "email")]
    email: String,
    #[schema(format = "password")]
    password: String,
    /// Which of the person's tenants; the one they joined first unless given.
    tenant_id: Option<TenantId>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RefreshRequest {
    /// Works once; the answer holds the next one.
    refresh_token: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AcceptInviteRequest {
    /// From the invitation.
    token: String,
    /// A new person's new password, or the present one of someone who has an account.
    #[schema(format = "password", min_length = 10, max_length = 200)]
    password: String,
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LogOutRequest {
    /// Ends all sessions of this person, not only this one.
    #[serde(default)]
    everywhere: bool,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangePasswordRequest {
    #[schema(format = "password")]
    current_password: String,
    #[schema(format = "password", min_length = 10, max_length = 200)]
    new_password: String,
}

/// What someone needs who is logged in.
#[derive(Serialize, ToSchema)]
struct LoginResponse {
    /// Send it as `Authorization: Bearer …`.
    access_token: String,
    /// Trade it at `/api/auth/refresh` when the access token has ended. Works once.
    refresh_token: String,
    #[schema(value_type = String, example = "Bearer")]
    token_type: &'static str,
    /// Of the access token, in seconds.
    expires_in: u64,
    /// Where the person is logged in now.
    tenant_id: TenantId,
    member_id: MemberId,
    role: Role,
    /// All tenants that the person is a member of.
    tenants: Vec<MembershipResponse>,
}

/// One tenant of a person.
#[derive(Serialize, ToSchema)]
struct MembershipResponse {
    id: TenantId,
    name: String,
    role: Role,
}

impl From<Login> for LoginResponse {
    fn from(login: Login) -> Self {
        Self {
            access_token: login.access_token,
            refresh_token: login.refresh_token,
            token_type: "Bearer",
            expires_in: login.expires_in,
            tenant_id: login.tenant_id,
            member_id: login.member_id,
            role: login.role,
            tenants: login
                .tenants
                .into_iter()
                .map(|(id, name, role)| MembershipResponse { id, name, role })
                .collect(),
        }
    }
}

/// Opens a tenant with its first member, an owner, who is logged in at once. An address that has an account is told so;
/// attempts are counted by client address.
#[utoipa::path(
    post,
    path = "/api/auth/signup",
    tag = "auth",
    request_body = SignUpRequest,
    responses(
        (status = 201, description = "Signed up and logged in", body = LoginResponse),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn sign_up(
    stranger: Stranger,
    State(app): State<App>,
    Json(request): Json<SignUpRequest>,
) -> Result<(StatusCode, axum::Json<LoginResponse>), Problem> {
    stranger.charge_attempt(&app, None)?;
    let login = sessions::sign_up(
        &app,
        &request.email,
        request.password,
        request.tenant_name,
        &stranger.origin,
    )
    .await?;
    Ok((StatusCode::CREATED, axum::Json(login.into())))
}

/// Logs a person in by e-mail address and password.
#[utoipa::path(
    post,
    path = "/api/auth/login",
    tag = "auth",
    request_body = LogInRequest,
    responses(
        (status = 200, description = "Logged in", body = LoginResponse),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn log_in(
    stranger: Stranger,
    State(app): State<App>,
    Json(request): Json<LogInRequest>,
) -> Result<axum::Json<LoginResponse>, Problem> {
    stranger.charge_attempt(&app, Some(&request.email))?;
    let login = sessions::log_in(&app, &request.email, request.password, request.tenant_id).await?;
    Ok(axum::Json(login.into()))
}

/// Trades a refresh token for new tokens. Using one twice ends the session: somebody has a copy.
#[utoipa::path(
    post,
    path = "/api/auth/refresh",
    tag = "auth",
    request_body = RefreshRequest,
    responses(
        (status = 200, description = "New tokens", body = LoginResponse),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn refresh(
    stranger: Stranger,
    State(app): State<App>,
    Json(request): Json<RefreshRequest>,
) -> Result<axum::Json<LoginResponse>, Problem> {
    match sessions::refresh(&app, &request.refresh_token).await {
        Ok(login) => Ok(axum::Json(login.into())),
        // Only wrong tokens count as attempts: a whole office may be behind one address, and refreshes all day.
        Err(error @ Error::Unauthenticated { .. }) => {
            stranger.charge_attempt(&app, None)?;
            Err(error.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Accepts an invitation, which logs the person in.
#[utoipa::path(
    post,
    path = "/api/auth/accept-invite",
    tag = "auth",
    request_body = AcceptInviteRequest,
    responses(
        (status = 200, description = "A member now, and logged in", body = LoginResponse),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn accept_invite(
    stranger: Stranger,
    State(app): State<App>,
    Json(request): Json<AcceptInviteRequest>,
) -> Result<axum::Json<LoginResponse>, Problem> {
    stranger.charge_attempt(&app, None)?;
    let email = invites::find_email(&app, &request.token).await?;
    if let Some(email) = &email {
        // An invitation for an address that has an account guesses that account's password.
        stranger.charge_account(&app, email)?;
    }
    let login = invites::accept(&app, &request.token, email, request.password, &stranger.origin).await?;
    Ok(axum::Json(login.into()))
}

/// Ends the session, or all sessions of the person. Their tokens open nothing from then on.
#[utoipa::path(
    post,
    path = "/api/auth/logout",
    tag = "auth",
    request_body = Option<LogOutRequest>,
    security(("bearer" = [])),
    responses(
        (status = 204, description = "Logged out"),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn log_out(
    member: Member,
    State(app): State<App>,
    request: Option<Json<LogOutRequest>>,
) -> Result<StatusCode, Problem> {
    let request = request.map(|Json(request)| request).unwrap_or_default();
    sessions::log_out(&app, &member.caller, request.everywhere).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Changes the person's password, which ends all their sessions: log in again with the new one.
#[utoipa::path(
    put,
    path = "/api/auth/password",
    tag = "auth",
    request_body = ChangePasswordRequest,
    security(("bearer" = [])),
    responses(
        (status = 204, description = "Changed"),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn change_password(
    member: Member,
    meter: Meter,
    State(app): State<App>,
    Json(request): Json<ChangePasswordRequest>,
) -> Result<StatusCode, Problem> {
    if let Actor::Member { account_id, .. } = &member.caller.actor {
        meter.charge(&app, Bucket::Password(*account_id))?;
    }
    sessions::change_password(
        &app,
        &member.caller,
        request.current_password,
        request.new_password,
    )
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
