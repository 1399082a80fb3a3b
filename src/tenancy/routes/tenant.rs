//! `/api/me`, `/api/tenant` and `/api/audit`: who asks, their tenant, and what was changed in it.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::http::access::{Actor, AdminAccess, Caller, Member};
use crate::http::input::{Json, Page, PageQuery, Query, present};
use crate::http::problem::Problem;
use crate::id::{AuditEventId, ChatbotId, TenantId};
use crate::tenancy::audit::{self, AuditEvent};
use crate::tenancy::role::{KeyScope, Permission, Role};
use crate::tenancy::{self, Tenant, TenantUpdate};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_me))
        .routes(routes!(get_tenant, update_tenant))
        .routes(routes!(list_audit_events))
}

/// Who asks, and what they may do.
#[derive(Serialize, ToSchema)]
struct MeResponse {
    tenant_id: TenantId,
    actor: NamedActor,
    /// Of a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    /// Of an API key.
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<KeyScope>>,
    /// The one chatbot that the credential is restricted to.
    #[serde(skip_serializing_if = "Option::is_none")]
    chatbot_id: Option<ChatbotId>,
    /// What operations may be called: each names the one it needs in the OpenAPI document.
    #[schema(value_type = Vec<String>)]
    permissions: Vec<&'static str>,
}

/// The holder of a credential.
#[derive(Serialize, ToSchema)]
struct NamedActor {
    /// `api_key`, `member`, `external` (of the configured issuer), or `operator` (the command line).
    kind: String,
    id: String,
}

impl From<Caller> for MeResponse {
    fn from(caller: Caller) -> Self {
        let (kind, id) = caller.actor.name();
        let permissions = Permission::ALL
            .into_iter()
            .filter(|permission| caller.actor.allows(*permission))
            .map(Permission::name)
            .collect();
        let (role, scopes) = match caller.actor {
            Actor::ApiKey { scopes, .. } => (None, Some(scopes)),
            Actor::Member { role, .. } | Actor::External { role, .. } => (Some(role), None),
        };
        Self {
            tenant_id: caller.tenant_id,
            actor: NamedActor {
                kind: kind.to_owned(),
                id,
            },
            role,
            scopes,
            chatbot_id: caller.chatbot_id,
            permissions,
        }
    }
}

/// The tenant with its limits.
#[derive(Serialize, ToSchema)]
struct TenantResponse {
    id: TenantId,
    name: String,
    /// Tokens of a month, all chatbots together; null: unlimited.
    monthly_token_limit: Option<i64>,
    /// Millionths of a US dollar in a month, all chatbots together; null: unlimited.
    monthly_cost_limit_micro_usd: Option<i64>,
    /// What the operator lets `monthly_token_limit` be at most; null: anything.
    monthly_token_cap: Option<i64>,
    /// What the operator lets `monthly_cost_limit_micro_usd` be at most; null: anything.
    monthly_cost_cap_micro_usd: Option<i64>,
    created_at: DateTime<Utc>,
}

impl From<Tenant> for TenantResponse {
    fn from(tenant: Tenant) -> Self {
        Self {
            id: tenant.id,
            name: tenant.name,
            monthly_token_limit: tenant.monthly_token_limit,
            monthly_cost_limit_micro_usd: tenant.monthly_cost_limit_micro_usd,
            monthly_token_cap: tenant.caps.monthly_tokens,
            monthly_cost_cap_micro_usd: tenant.caps.monthly_cost_micro_usd,
            created_at: tenant.created_at,
        }
    }
}

/// New values for the tenant. What is left out stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpdateTenantRequest {
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 200)]
    name: Option<String>,
    /// Tokens of a month, all chatbots together; null: as many as the operator allows.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i64>, minimum = 0)]
    monthly_token_limit: Option<Option<i64>>,
    /// Millionths of a US dollar in a month, all chatbots together; null: as many as the operator allows.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i64>, minimum = 0)]
    monthly_cost_limit_micro_usd: Option<Option<i64>>,
}

impl From<UpdateTenantRequest> for TenantUpdate {
    fn from(request: UpdateTenantRequest) -> Self {
        Self {
            name: request.name,
            monthly_token_limit: request.monthly_token_limit,
            monthly_cost_limit_micro_usd: request.monthly_cost_limit_micro_usd,
        }
    }
}

/// One change: who made it, from where, and what was before and after.
#[derive(Serialize, ToSchema)]
struct AuditEventResponse {
    id: AuditEventId,
    actor: NamedActor,
    /// What was done, for example `api_key.create`.
    action: String,
    object: NamedObject,
    /// Null: there was nothing before.
    #[schema(value_type = Option<Object>)]
    before: Option<Value>,
    /// Null: there is nothing any more.
    #[schema(value_type = Option<Object>)]
    after: Option<Value>,
    /// The client's address; null for the command line.
    address: Option<String>,
    /// Names the request in the logs; null for the command line.
    request_id: Option<String>,
    created_at: DateTime<Utc>,
}

/// What a change was made to.
#[derive(Serialize, ToSchema)]
struct NamedObject {
    kind: String,
    id: String,
}

impl From<AuditEvent> for AuditEventResponse {
    fn from(event: AuditEvent) -> Self {
        Self {
            id: event.id,
            actor: NamedActor {
                kind: event.actor_kind,
                id: event.actor_id,
            },
            action: event.action,
            object: NamedObject {
                kind: event.object_kind,
                id: event.object_id,
            },
            before: event.before.map(|before| before.0),
            after: event.after.map(|after| after.0),
            address: event.address,
            request_id: event.request_id.filter(|id| !id.is_empty()),
            created_at: event.created_at,
        }
    }
}

/// Who asks: tenant, role or scopes, and permissions.
#[utoipa::path(
    get,
    path = "/api/me",
    tag = "tenancy",
    security(("bearer" = [])),
    responses(
        (status = 200, description = "Who asks", body = MeResponse),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn get_me(member: Member) -> axum::Json<MeResponse> {
    axum::Json(member.caller.into())
}

/// The tenant.
#[utoipa::path(
    get,
    path = "/api/tenant",
    tag = "tenancy",
    security(("bearer" = ["admin"])),
    responses(
        (status = 200, description = "The tenant", body = TenantResponse),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn get_tenant(
    access: AdminAccess,
    State(app): State<App>,
) -> Result<axum::Json<TenantResponse>, Problem> {
    let tenant = tenancy::get(&app, access.tenant_id).await?;
    Ok(axum::Json(tenant.into()))
}

/// Changes the tenant's name and monthly limits. What is left out stays.
#[utoipa::path(
    patch,
    path = "/api/tenant",
    tag = "tenancy",
    request_body = UpdateTenantRequest,
    security(("bearer" = ["admin"])),
    responses(
        (status = 200, description = "The changed tenant", body = TenantResponse),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn update_tenant(
    access: AdminAccess,
    State(app): State<App>,
    Json(request): Json<UpdateTenantRequest>,
) -> Result<axum::Json<TenantResponse>, Problem> {
    let tenant = tenancy::update(
        &app,
        access.tenant_id,
        request.into(),
        &access.actor,
        &access.origin,
    )
    .await?;
    Ok(axum::Json(tenant.into()))
}

/// The audit log, newest first: every administrative change.
#[utoipa::path(
    get,
    path = "/api/audit",
    tag = "tenancy",
    params(PageQuery),
    security(("bearer" = ["admin"])),
    responses(
        (status = 200, description = "A page of changes", body = Page<AuditEventResponse>),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn list_audit_events(
    access: AdminAccess,
    State(app): State<App>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<Page<AuditEventResponse>>, Problem> {
    let page = query.check()?;
    let events = audit::list(&app, access.tenant_id, page).await?;
    Ok(axum::Json(Page::of(
        events,
        page.limit,
        |event| event.id.0,
        AuditEventResponse::from,
    )))
}
