//! A tenant's Google account: connected by its owner's consent, read from by Drive sources, given back on request.
//!
//! What opens the account is sealed in its row and goes to the configured token endpoint only. There is one such account
//! a tenant; a source may have credentials of its own instead.

mod access;
mod consent;
pub mod operator;
pub mod routes;
mod store;

use chrono::{DateTime, Utc};
use serde_json::json;

use crate::app::App;
use crate::error::{Error, Result};
use crate::http::access::Actor;
use crate::id::{ConnectionId, TenantId};
use crate::tenancy::audit::{self, Change, Origin};

pub use access::{Google, check_credentials, note_withdrawn};
pub use consent::{Brought, Sent, begin, finish, refuse};

/// A connected account.
#[derive(Clone, Debug)]
pub struct Connection {
    pub id: ConnectionId,
    /// The account's e-mail address.
    pub account: String,
    pub state: ConnectionState,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    sealed: String,
}

/// Whether the account still lets us in, as far as we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    Connected,
    /// Google said that the consent has ended.
    Withdrawn,
}

impl ConnectionState {
    const ALL: [Self; 2] = [Self::Connected, Self::Withdrawn];

    /// The name in JSON and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// The tenant's connected account.
pub async fn find(app: &App, tenant_id: TenantId) -> Result<Option<Connection>> {
    store::find(&mut app.db.read(tenant_id).await?, tenant_id).await
}

/// Forgets the account and gives the consent back to Google. Returns whether Google took it back: where it did not
/// answer, the owner ends it in their Google account.
pub async fn disconnect(app: &App, tenant_id: TenantId, actor: &Actor, origin: &Origin) -> Result<bool> {
    let now = app.clock.now();
    let mut write = app.db.write(tenant_id).await?;
    let connection = store::delete(&mut write, tenant_id)
        .await?
        .ok_or(Error::NotFound("connection"))?;
    let change = Change {
        action: "connection.delete",
        object_kind: "connection",
        object_id: connection.id.to_string(),
        before: Some(json!({ "provider": store::PROVIDER, "account": connection.account })),
        after: None,
    };
    audit::record(&mut write, tenant_id, actor, origin, change, now).await?;
    write.commit().await?;
    let Some(refresh_token) = access::open_sealed(app, tenant_id, &connection) else {
        return Ok(false);
    };
    Ok(app.google.give_back(&refresh_token).await)
}
