//! What only the operator does, at the command line: opening tenants and managing their keys from outside.

use serde_json::json;

use super::audit::{self, Change, Origin};
use super::keys::{self, ApiKey, NewApiKey};
use super::role::KeyScope;
use super::{Caps, Tenant, TenantState, caps, store};
use crate::chatbots;
use crate::clock::Clock;
use crate::db::{Db, Scope, Write};
use crate::error::{Error, Result};
use crate::id::{ApiKeyId, TenantId};
use crate::on;

const ACTOR: (&str, &str) = ("operator", "command line");

/// Opens a tenant with a first key of scope admin.
pub async fn create_tenant(db: &Db, clock: &dyn Clock, name: &str, caps: Caps) -> Result<(Tenant, String)> {
    super::check_name(name, "name")?;
    let now = clock.now();
    let tenant = Tenant {
        id: TenantId::new(),
        name: name.to_owned(),
        state: TenantState::Active,
        monthly_token_limit: caps.monthly_tokens,
        monthly_cost_limit_micro_usd: caps.monthly_cost_micro_usd,
        caps,
        created_at: now,
    };
    let mut write = db.write(tenant.id).await?;
    store::insert_tenant(&mut write, &tenant).await?;
    let new = NewApiKey {
        name: "first key".to_owned(),
        scopes: vec![KeyScope::Admin],
        chatbot_id: None,
        expires_at: None,
    };
    let (key, secret) = keys::insert(&mut write, tenant.id, new, "operator", now).await?;
    for change in [
        Change {
            action: "tenant.create",
            object_kind: "tenant",
            object_id: tenant.id.to_string(),
            before: None,
            after: Some(json!({ "name": name })),
        },
        Change {
            action: "api_key.create",
            object_kind: "api_key",
            object_id: key.id.to_string(),
            before: None,
            after: Some(keys::describe(&key)),
        },
    ] {
        audit::record_as(&mut write, tenant.id, ACTOR, &Origin::default(), change, now).await?;
    }
    write.commit().await?;
    Ok((tenant, secret))
}

/// Makes a key for a tenant.
pub async fn create_key(
    db: &Db,
    clock: &dyn Clock,
    tenant_id: TenantId,
    new: NewApiKey,
) -> Result<(ApiKey, String)> {
    let now = clock.now();
    keys::check(&new, now)?;
    let mut write = db.write(tenant_id).await?;
    store::find_tenant(&mut write, tenant_id)
        .await?
        .ok_or(Error::NotFound("tenant"))?;
    if let Some(chatbot_id) = new.chatbot_id {
        chatbots::hold(&mut write, tenant_id, chatbot_id).await?;
    }
    let (key, secret) = keys::insert(&mut write, tenant_id, new, "operator", now).await?;
    let change = Change {
        action: "api_key.create",
        object_kind: "api_key",
        object_id: key.id.to_string(),
        before: None,
        after: Some(keys::describe(&key)),
    };
    audit::record_as(&mut write, tenant_id, ACTOR, &Origin::default(), change, now).await?;
    write.commit().await?;
    Ok((key, secret))
}

/// Ends a key of whichever tenant has it. False when it had ended already.
pub async fn revoke_key(db: &Db, clock: &dyn Clock, id: ApiKeyId) -> Result<bool> {
    let (write, _, changed) = begin_revoking(db, clock, id).await?;
    write.commit().await?;
    Ok(changed)
}

/// Ends a key that was made for one use, and leaves no row of it: only the audit log keeps that it was.
pub async fn discard_key(db: &Db, clock: &dyn Clock, id: ApiKeyId) -> Result<()> {
    let (mut write, tenant_id, _) = begin_revoking(db, clock, id).await?;
    on!(write, c => sqlx::query("delete from api_key where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(id).execute(c).await.map(drop))?;
    write.commit().await
}

async fn begin_revoking(db: &Db, clock: &dyn Clock, id: ApiKeyId) -> Result<(Write, TenantId, bool)> {
    let now = clock.now();
    let mut conn = db.read(Scope::Operator).await?;
    let tenant_id: Option<TenantId> = on!(conn, c => sqlx::query_scalar("select tenant_id from api_key where id = $1").bind(id).fetch_optional(c).await)?;
    drop(conn);
    let tenant_id = tenant_id.ok_or(Error::NotFound("API key"))?;
    let mut write = db.write(tenant_id).await?;
    let changed = keys::mark_revoked(&mut write, tenant_id, id, now).await?;
    if changed {
        let change = Change {
            action: "api_key.revoke",
            object_kind: "api_key",
            object_id: id.to_string(),
            before: None,
            after: Some(json!({ "revoked_at": now })),
        };
        audit::record_as(&mut write, tenant_id, ACTOR, &Origin::default(), change, now).await?;
    }
    Ok((write, tenant_id, changed))
}

/// Suspends a tenant, which closes it to all its credentials at once, or opens it again. False when it was so already.
pub async fn set_state(db: &Db, clock: &dyn Clock, id: TenantId, state: TenantState) -> Result<bool> {
    let now = clock.now();
    let mut write = db.write(id).await?;
    let tenant = store::hold_tenant(&mut write, id)
        .await?
        .ok_or(Error::NotFound("tenant"))?;
    if tenant.state == state {
        return Ok(false);
    }
    let before = json!({ "state": tenant.state.name() });
    store::update_tenant_state(&mut write, id, state, now).await?;
    let change = Change {
        action: "tenant.set_state",
        object_kind: "tenant",
        object_id: id.to_string(),
        before: Some(before),
        after: Some(json!({ "state": state.name() })),
    };
    audit::record_as(&mut write, id, ACTOR, &Origin::default(), change, now).await?;
    write.commit().await?;
    Ok(true)
}

/// What is to become of a cap; `Some(None)`: there is none any more.
#[derive(Clone, Copy, Debug, Default)]
pub struct CapChange {
    pub monthly_tokens: Option<Option<i64>>,
    pub monthly_cost_micro_usd: Option<Option<i64>>,
}

/// Changes what a tenant may use in a month at most, and with it the limits that it set itself. Returns the tenant as
/// it is then.
pub async fn set_caps(db: &Db, clock: &dyn Clock, id: TenantId, change: CapChange) -> Result<Tenant> {
    super::check_limit(change.monthly_tokens.flatten(), "tokens")?;
    super::check_limit(change.monthly_cost_micro_usd.flatten(), "cost-micro-usd")?;
    let now = clock.now();
    let mut write = db.write(id).await?;
    let before = store::hold_tenant(&mut write, id)
        .await?
        .ok_or(Error::NotFound("tenant"))?;
    let mut after = before.clone();
    if let Some(cap) = change.monthly_tokens {
        after.monthly_token_limit = caps::moved(before.monthly_token_limit, before.caps.monthly_tokens, cap);
        after.caps.monthly_tokens = cap;
    }
    if let Some(cap) = change.monthly_cost_micro_usd {
        let limit = before.monthly_cost_limit_micro_usd;
        after.monthly_cost_limit_micro_usd = caps::moved(limit, before.caps.monthly_cost_micro_usd, cap);
        after.caps.monthly_cost_micro_usd = cap;
    }
    store::update_tenant_caps(&mut write, &after, now).await?;
    let describe = |tenant: &Tenant| {
        json!({
            "monthly_token_cap": tenant.caps.monthly_tokens,
            "monthly_cost_cap_micro_usd": tenant.caps.monthly_cost_micro_usd,
            "monthly_token_limit": tenant.monthly_token_limit,
            "monthly_cost_limit_micro_usd": tenant.monthly_cost_limit_micro_usd,
        })
    };
    let change = Change {
        action: "tenant.set_caps",
        object_kind: "tenant",
        object_id: id.to_string(),
        before: Some(describe(&before)),
        after: Some(describe(&after)),
    };
    audit::record_as(&mut write, id, ACTOR, &Origin::default(), change, now).await?;
    write.commit().await?;
    Ok(after)
}

/// Whether this installation has any tenant.
pub async fn has_tenants(db: &Db) -> Result<bool> {
    let mut conn = db.read(Scope::Operator).await?;
    let count: i64 = on!(conn, c => sqlx::query_scalar("select count(*) from tenant").fetch_one(c).await)?;
    Ok(count > 0)
}

/// All tenants of this installation, oldest first.
pub async fn list_tenants(db: &Db) -> Result<Vec<Tenant>> {
    store::list_tenants(&mut db.read(Scope::Operator).await?).await
}
