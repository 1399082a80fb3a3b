//! Tenants, their members and API keys, and the record of what was changed by whom.

pub mod audit;
mod caps;
pub mod foreign;
pub mod invites;
pub mod keys;
pub mod members;
pub mod operator;
pub mod password;
pub mod role;
pub mod routes;
pub mod sessions;
mod store;
pub mod tokens;

use chrono::{DateTime, Utc};
use unicode_normalization::UnicodeNormalization as _;

use crate::app::App;
use crate::error::{Error, Result};
use crate::id::TenantId;
use audit::{Change, Origin};

use crate::http::access::Actor;

pub use caps::Caps;

/// Characters in a name of a tenant, key or chatbot.
pub const MAX_NAME_CHARS: usize = 200;

/// A customer account.
#[derive(Clone, Debug)]
pub struct Tenant {
    pub id: TenantId,
    pub name: String,
    pub state: TenantState,
    /// Tokens of a month, all chatbots together, never above the cap; none: unlimited.
    pub monthly_token_limit: Option<i64>,
    /// Cost of a month in micro-USD, all chatbots together, never above the cap; none: unlimited.
    pub monthly_cost_limit_micro_usd: Option<i64>,
    /// What the operator allows at most.
    pub caps: Caps,
    pub created_at: DateTime<Utc>,
}

/// Whether a tenant's credentials open anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TenantState {
    Active,
    Suspended,
}

impl TenantState {
    /// The name in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
        }
    }
}

/// New values for a tenant; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct TenantUpdate {
    pub name: Option<String>,
    pub monthly_token_limit: Option<Option<i64>>,
    pub monthly_cost_limit_micro_usd: Option<Option<i64>>,
}

/// The tenant itself.
pub async fn get(app: &App, tenant_id: TenantId) -> Result<Tenant> {
    let mut conn = app.db.read(tenant_id).await?;
    store::find_tenant(&mut conn, tenant_id)
        .await?
        .ok_or(Error::NotFound("tenant"))
}

/// Whether the tenant's credentials open anything now.
pub async fn is_active(app: &App, tenant_id: TenantId) -> Result<bool> {
    let mut conn = app.db.read(tenant_id).await?;
    let tenant = store::find_tenant(&mut conn, tenant_id).await?;
    Ok(tenant.is_some_and(|tenant| tenant.state == TenantState::Active))
}

/// Changes a tenant's name and limits.
pub async fn update(
    app: &App,
    tenant_id: TenantId,
    update: TenantUpdate,
    actor: &Actor,
    origin: &Origin,
) -> Result<Tenant> {
    if let Some(name) = &update.name {
        check_name(name, "name")?;
    }
    for (field, limit) in [
        ("monthly_token_limit", update.monthly_token_limit),
        (
            "monthly_cost_limit_micro_usd",
            update.monthly_cost_limit_micro_usd,
        ),
    ] {
        check_limit(limit.flatten(), field)?;
    }
    let mut write = app.db.write(tenant_id).await?;
    let before = store::hold_tenant(&mut write, tenant_id)
        .await?
        .ok_or(Error::NotFound("tenant"))?;
    let mut after = before.clone();
    if let Some(name) = update.name {
        after.name = name;
    }
    if let Some(limit) = update.monthly_token_limit {
        after.monthly_token_limit = caps::within(limit, before.caps.monthly_tokens, "monthly_token_limit")?;
    }
    if let Some(limit) = update.monthly_cost_limit_micro_usd {
        let cap = before.caps.monthly_cost_micro_usd;
        after.monthly_cost_limit_micro_usd = caps::within(limit, cap, "monthly_cost_limit_micro_usd")?;
    }
    store::update_tenant_settings(&mut write, &after, app.clock.now()).await?;
    let describe = |tenant: &Tenant| {
        serde_json::json!({
            "name": tenant.name,
            "monthly_token_limit": tenant.monthly_token_limit,
            "monthly_cost_limit_micro_usd": tenant.monthly_cost_limit_micro_usd,
        })
    };
    let change = Change {
        action: "tenant.update",
        object_kind: "tenant",
        object_id: tenant_id.to_string(),
        before: Some(describe(&before)),
        after: Some(describe(&after)),
    };
    audit::record(&mut write, tenant_id, actor, origin, change, app.clock.now()).await?;
    write.commit().await?;
    Ok(after)
}

/// Refuses empty, overlong and invisible names.
pub fn check_name(name: &str, field: &str) -> Result<()> {
    let length = name.chars().count();
    if name.chars().all(draws_nothing) || length > MAX_NAME_CHARS || name.chars().any(char::is_control) {
        return Err(Error::invalid(
            "invalid_name",
            field,
            format!("{field} must have 1 to {MAX_NAME_CHARS} visible characters"),
        ));
    }
    Ok(())
}

/// The name of a tag or group as it is stored and compared: without spaces around it, its accents composed (NFC).
pub fn composed(name: &str) -> String {
    name.trim().nfc().collect()
}

/// White space and characters that nobody sees: controls, what joins and directs others, fillers, tags.
fn draws_nothing(character: char) -> bool {
    character.is_whitespace()
        || character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Refuses negative limits.
pub fn check_limit(limit: Option<i64>, field: &str) -> Result<()> {
    match limit {
        Some(limit) if limit < 0 => Err(Error::invalid(
            "invalid_limit",
            field,
            format!("{field} must be 0 or more, or null for none"),
        )),
        _ => Ok(()),
    }
}
