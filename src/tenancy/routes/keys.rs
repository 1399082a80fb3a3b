//! `/api/keys`: API keys, whose secret is in the answer to their making and nowhere else.

use axum::Extension;
use axum::extract::State;
use chrono::{DateTime, SubsecRound as _, Utc};
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
use crate::id::{ApiKeyId, ChatbotId};
use crate::tenancy::keys::{self, ApiKey, NewApiKey};
use crate::tenancy::role::KeyScope;

/// Digits of a second that the databases keep.
const KEPT_SECOND_DIGITS: u16 = 6;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_keys, create_key))
        .routes(routes!(revoke_key))
}

/// An API key, without its secret.
#[derive(Serialize, ToSchema)]
struct KeyResponse {
    id: ApiKeyId,
    name: String,
    /// The secret's last characters, to tell keys apart.
    hint: String,
    scopes: Vec<KeyScope>,
    /// The one chatbot that the key is restricted to; null: all.
    chatbot_id: Option<ChatbotId>,
    /// Who made it: `member:` or `api_key:` with the id, `external:` with the subject, or `operator`.
    created_by: String,
    created_at: DateTime<Utc>,
    /// Null: never.
    expires_at: Option<DateTime<Utc>>,
    /// Exact to a minute; null: not used yet.
    last_used_at: Option<DateTime<Utc>>,
    /// Null: not revoked.
    revoked_at: Option<DateTime<Utc>>,
}

impl From<ApiKey> for KeyResponse {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id,
            name: key.name,
            hint: key.hint,
            scopes: key.scopes.0,
            chatbot_id: key.chatbot_id,
            created_by: key.created_by,
            created_at: key.created_at,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
            revoked_at: key.revoked_at,
        }
    }
}

/// A new API key with its secret, which is shown here and never again.
#[derive(Serialize, ToSchema)]
struct CreatedKeyResponse {
    #[serde(flatten)]
    key: KeyResponse,
    /// Send it as `Authorization: Bearer …`.
    secret: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateKeyRequest {
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    #[schema(min_items = 1)]
    scopes: Vec<KeyScope>,
    /// Restricts the key to one chatbot; for the scopes `ingest` and `chat` only.
    chatbot_id: Option<ChatbotId>,
    /// Null: never.
    expires_at: Option<DateTime<Utc>>,
}

impl From<CreateKeyRequest> for NewApiKey {
    fn from(request: CreateKeyRequest) -> Self {
        let expires_at = request
            .expires_at
            .map(|expires_at| expires_at.trunc_subsecs(KEPT_SECOND_DIGITS));
        Self {
            name: request.name,
            scopes: request.scopes,
            chatbot_id: request.chatbot_id,
            expires_at,
        }
    }
}

/// The tenant's API keys, newest first, revoked ones included.
#[utoipa::path(
    get,
    path = "/api/keys",
    tag = "keys",
    params(PageQuery),
    security(("bearer" = ["admin"])),
    responses(
        (status = 200, description = "A page of keys", body = Page<KeyResponse>),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn list_keys(
    access: AdminAccess,
    State(app): State<App>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<KeyResponse>>, Problem> {
    let page = query.check()?;
    let rows = keys::list(&app, access.tenant_id, page).await?;
    Ok(axum::Json(Page::of(
        rows,
        page.limit,
        |key| key.id.0,
        KeyResponse::from,
    )))
}

/// Makes an API key.
#[utoipa::path(
    post,
    path = "/api/keys",
    tag = "keys",
    request_body = CreateKeyRequest,
    security(("bearer" = ["admin"])),
    responses(
        (status = 201, description = "The key with its secret", body = CreatedKeyResponse),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn create_key(
    access: AdminAccess,
    State(app): State<App>,
    Json(request): Json<CreateKeyRequest>,
) -> Result<(StatusCode, Extension<ShownOnce>, axum::Json<CreatedKeyResponse>), Problem> {
    let (key, secret) = keys::create(
        &app,
        access.tenant_id,
        request.into(),
        &access.actor,
        &access.origin,
    )
    .await?;
    Ok((
        StatusCode::CREATED,
        Extension(ShownOnce),
        axum::Json(CreatedKeyResponse {
            key: key.into(),
            secret,
        }),
    ))
}

/// Ends an API key at once. Ending it twice changes nothing.
#[utoipa::path(
    delete,
    path = "/api/keys/{id}",
    tag = "keys",
    params(("id" = String, Path, format = "uuid", description = "The key's id")),
    security(("bearer" = ["admin"])),
    responses(
        (status = 204, description = "Revoked"),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn revoke_key(
    access: AdminAccess,
    State(app): State<App>,
    Path(id): Path<ApiKeyId>,
) -> Result<StatusCode, Problem> {
    keys::revoke(&app, access.tenant_id, id, &access.actor, &access.origin).await?;
    Ok(StatusCode::NO_CONTENT)
}
