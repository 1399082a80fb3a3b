//! API keys: shown once, stored as a hash, revoked at once.

use chrono::{DateTime, Datelike as _, TimeDelta, Utc};
use serde_json::json;
use sqlx::FromRow;
use sqlx::types::Json;

use super::audit::{self, Change, Origin};
use super::invites;
use super::role::{KeyScope, Role};
use crate::app::App;
use crate::db::{Scope, Write};
use crate::error::{Error, Result};
use crate::http::access::{Actor, Caller};
use crate::http::input::PageRequest;
use crate::id::{ApiKeyId, ChatbotId, TenantId};
use crate::{chatbots, on, secrets};

/// What every key starts with, so that scanners for leaked secrets can know it.
pub const PREFIX: &str = "fdk_";

/// How stale `last_used_at` may be: writing it at each request would make every read a write.
const LAST_USED_STEP: TimeDelta = TimeDelta::seconds(60);

/// Last year in which a key may expire: the last that both databases order rightly.
const LAST_YEAR: i32 = 9999;

/// A key, without its secret.
#[derive(Clone, Debug, FromRow)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub name: String,
    /// The secret's last characters, to tell keys apart.
    pub hint: String,
    pub scopes: Json<Vec<KeyScope>>,
    pub chatbot_id: Option<ChatbotId>,
    /// Who made it: kind and id, as in audit lines, or the operator.
    pub created_by: String,
    pub created_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    /// Exact to a minute.
    pub last_used_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
}

/// What a new key is to be.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    pub name: String,
    pub scopes: Vec<KeyScope>,
    pub chatbot_id: Option<ChatbotId>,
    pub expires_at: Option<DateTime<Utc>>,
}

/// Makes a key. The secret is in the answer and nowhere else.
pub async fn create(
    app: &App,
    tenant_id: TenantId,
    new: NewApiKey,
    actor: &Actor,
    origin: &Origin,
) -> Result<(ApiKey, String)> {
    if actor.role() < Some(Role::Admin) {
        return Err(Error::Forbidden {
            code: "grants_too_much",
            message: "only an admin may make keys".into(),
        });
    }
    let now = app.clock.now();
    check(&new, now)?;
    let mut write = app.db.write(tenant_id).await?;
    if let Some(chatbot_id) = new.chatbot_id {
        chatbots::hold(&mut write, tenant_id, chatbot_id).await?;
    }
    let (key, secret) = insert(&mut write, tenant_id, new, &actor.signature(), now).await?;
    let change = Change {
        action: "api_key.create",
        object_kind: "api_key",
        object_id: key.id.to_string(),
        before: None,
        after: Some(describe(&key)),
    };
    audit::record(&mut write, tenant_id, actor, origin, change, now).await?;
    write.commit().await?;
    Ok((key, secret))
}

/// What must hold of a new key.
pub fn check(new: &NewApiKey, now: DateTime<Utc>) -> Result<()> {
    super::check_name(&new.name, "name")?;
    if new.scopes.is_empty() {
        return Err(Error::invalid(
            "invalid_scopes",
            "scopes",
            "name at least one scope: admin, ingest, chat, chat:groups or usage:read",
        ));
    }
    let wide = new
        .scopes
        .iter()
        .any(|scope| matches!(scope, KeyScope::Admin | KeyScope::UsageRead));
    if new.chatbot_id.is_some() && wide {
        return Err(Error::invalid(
            "invalid_scopes",
            "scopes",
            "a key restricted to one chatbot can have the scopes ingest, chat and chat:groups only",
        ));
    }
    if new
        .expires_at
        .is_some_and(|expires_at| expires_at.year() > LAST_YEAR)
    {
        return Err(Error::invalid(
            "invalid_expiry",
            "expires_at",
            format!("expires_at must lie before the year {}", LAST_YEAR + 1),
        ));
    }
    if new.expires_at.is_some_and(|expires_at| expires_at <= now) {
        return Err(Error::invalid(
            "invalid_expiry",
            "expires_at",
            "expires_at lies in the past",
        ));
    }
    Ok(())
}

/// Stores a new key and returns it with its secret.
pub(super) async fn insert(
    write: &mut Write,
    tenant_id: TenantId,
    new: NewApiKey,
    created_by: &str,
    now: DateTime<Utc>,
) -> Result<(ApiKey, String)> {
    let secret = secrets::random_token(PREFIX);
    let mut scopes = new.scopes;
    scopes.sort_by_key(|scope| scope.name());
    scopes.dedup();
    let key = ApiKey {
        id: ApiKeyId::new(),
        name: new.name,
        hint: secret[secret.len() - 4..].to_owned(),
        scopes: Json(scopes),
        chatbot_id: new.chatbot_id,
        created_by: created_by.to_owned(),
        created_at: now,
        expires_at: new.expires_at,
        last_used_at: None,
        revoked_at: None,
    };
    on!(write, c => sqlx::query(
        "insert into api_key (id, tenant_id, name, hint, secret_hash, scopes, chatbot_id, created_by, created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    ).bind(key.id).bind(tenant_id).bind(&key.name).bind(&key.hint).bind(secrets::token_hash(&secret)).bind(&key.scopes)
     .bind(key.chatbot_id).bind(&key.created_by).bind(now).bind(key.expires_at).execute(c).await.map(drop))?;
    Ok((key, secret))
}

/// A page of the tenant's keys, newest first, revoked ones included.
pub async fn list(app: &App, tenant_id: TenantId, page: PageRequest) -> Result<Vec<ApiKey>> {
    let mut conn = app.db.read(tenant_id).await?;
    Ok(on!(conn, c => sqlx::query_as(
        "select id, name, hint, scopes, chatbot_id, created_by, created_at, expires_at, last_used_at, revoked_at
           from api_key
          where tenant_id = $1
            and id < $2
          order by id desc
          limit $3",
    ).bind(tenant_id).bind(page.before).bind(page.limit + 1).fetch_all(c).await)?)
}

/// Ends a key. Ending it twice changes nothing.
pub async fn revoke(
    app: &App,
    tenant_id: TenantId,
    id: ApiKeyId,
    actor: &Actor,
    origin: &Origin,
) -> Result<()> {
    let now = app.clock.now();
    let mut write = app.db.write(tenant_id).await?;
    let changed = mark_revoked(&mut write, tenant_id, id, now).await?;
    if changed {
        let change = Change {
            action: "api_key.revoke",
            object_kind: "api_key",
            object_id: id.to_string(),
            before: None,
            after: Some(json!({ "revoked_at": now })),
        };
        audit::record(&mut write, tenant_id, actor, origin, change, now).await?;
    }
    write.commit().await
}

/// Marks the key as revoked and withdraws the invitations that were made with it; false when it was revoked already.
/// Absent keys are an error.
pub(super) async fn mark_revoked(
    write: &mut Write,
    tenant_id: TenantId,
    id: ApiKeyId,
    now: DateTime<Utc>,
) -> Result<bool> {
    let revoked_at: Option<Option<DateTime<Utc>>> = on!(write, c => sqlx::query_scalar("select revoked_at from api_key where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(id).fetch_optional(c).await)?;
    if revoked_at.ok_or(Error::NotFound("API key"))?.is_some() {
        return Ok(false);
    }
    on!(write, c => sqlx::query("update api_key set revoked_at = $3 where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(id).bind(now).execute(c).await.map(drop))?;
    invites::withdraw_all_by(write, tenant_id, &Actor::signature_of_key(id)).await?;
    Ok(true)
}

#[derive(FromRow)]
struct KeyStanding {
    id: ApiKeyId,
    tenant_id: TenantId,
    scopes: Json<Vec<KeyScope>>,
    chatbot_id: Option<ChatbotId>,
    last_used_at: Option<DateTime<Utc>>,
}

/// The caller behind a key's secret; `None` when it is unknown, revoked, expired, or its tenant suspended.
pub async fn authenticate(app: &App, secret: &str) -> Result<Option<Caller>> {
    let now = app.clock.now();
    let mut conn = app.db.read(Scope::Operator).await?;
    let standing: Option<KeyStanding> = on!(conn, c => sqlx::query_as(
        "select k.id, k.tenant_id, k.scopes, k.chatbot_id, k.last_used_at
           from api_key k
           join tenant t on t.id = k.tenant_id
          where k.secret_hash = $1
            and k.revoked_at is null
            and (k.expires_at is null or k.expires_at > $2)
            and t.state = 'active'",
    ).bind(secrets::token_hash(secret)).bind(now).fetch_optional(c).await)?;
    drop(conn);
    let Some(standing) = standing else { return Ok(None) };
    if standing
        .last_used_at
        .is_none_or(|last| last + LAST_USED_STEP <= now)
    {
        let app = app.clone();
        // Not worth a client's wait, nor a failed request.
        tokio::spawn(async move {
            if let Err(error) = touch(&app, standing.tenant_id, standing.id, now).await {
                tracing::warn!(error = ?error, key.id = %standing.id, "cannot note when the key was last used");
            }
        });
    }
    let actor = Actor::ApiKey {
        id: standing.id,
        scopes: standing.scopes.0,
    };
    Ok(Some(Caller {
        tenant_id: standing.tenant_id,
        actor,
        chatbot_id: standing.chatbot_id,
    }))
}

/// Deletes the keys that open one chatbot only, with the chatbot.
pub async fn delete_of_chatbot(write: &mut Write, tenant_id: TenantId, chatbot_id: ChatbotId) -> Result<()> {
    on!(write, c => sqlx::query("delete from api_key where tenant_id = $1 and chatbot_id = $2")
        .bind(tenant_id).bind(chatbot_id).execute(c).await.map(drop))?;
    Ok(())
}

/// Whether the key opens something now.
pub async fn stands(app: &App, tenant_id: TenantId, id: ApiKeyId) -> Result<bool> {
    let mut conn = app.db.read(tenant_id).await?;
    let count: i64 = on!(conn, c => sqlx::query_scalar(
        "select count(*)
           from api_key k
           join tenant t on t.id = k.tenant_id
          where k.tenant_id = $1
            and k.id = $2
            and k.revoked_at is null
            and (k.expires_at is null or k.expires_at > $3)
            and t.state = 'active'",
    ).bind(tenant_id).bind(id).bind(app.clock.now()).fetch_one(c).await)?;
    Ok(count > 0)
}

async fn touch(app: &App, tenant_id: TenantId, id: ApiKeyId, now: DateTime<Utc>) -> Result<()> {
    let mut write = app.db.write(tenant_id).await?;
    on!(write, c => sqlx::query("update api_key set last_used_at = $3 where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(id).bind(now).execute(c).await.map(drop))?;
    write.commit().await
}

pub(super) fn describe(key: &ApiKey) -> serde_json::Value {
    json!({ "name": key.name, "scopes": key.scopes, "chatbot_id": key.chatbot_id, "expires_at": key.expires_at })
}
