//! The audit log: every administrative change, who made it, from where, and what it was before and after.
//!
//! Lines are written in the transaction of the change, so that neither exists without the other.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::FromRow;
use sqlx::types::Json;

use crate::app::App;
use crate::db::Write;
use crate::error::Result;
use crate::http::access::Actor;
use crate::http::input::PageRequest;
use crate::id::{AuditEventId, TenantId};
use crate::on;

/// From where a change came.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The client's address; none for the command line.
    pub address: Option<IpAddr>,
    /// The request's id; empty for the command line.
    pub request_id: String,
}

/// What was changed. Secrets never appear in `before` and `after`.
pub struct Change {
    /// For example `api_key.create`.
    pub action: &'static str,
    pub object_kind: &'static str,
    pub object_id: String,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

/// One line of the log.
#[derive(Debug, FromRow)]
pub struct AuditEvent {
    pub id: AuditEventId,
    pub actor_kind: String,
    pub actor_id: String,
    pub action: String,
    pub object_kind: String,
    pub object_id: String,
    pub before: Option<Json<Value>>,
    pub after: Option<Json<Value>>,
    pub address: Option<String>,
    pub request_id: Option<String>,
    pub created_at: DateTime<Utc>,
}

/// Writes one line in the change's own transaction.
pub async fn record(
    write: &mut Write,
    tenant_id: TenantId,
    actor: &Actor,
    origin: &Origin,
    change: Change,
    now: DateTime<Utc>,
) -> Result<()> {
    let (actor_kind, actor_id) = actor.name();
    record_as(write, tenant_id, (actor_kind, &actor_id), origin, change, now).await
}

/// Like [`record`], for an actor who is no API caller: the operator at the command line, or a person signing up.
pub async fn record_as(
    write: &mut Write,
    tenant_id: TenantId,
    actor: (&str, &str),
    origin: &Origin,
    change: Change,
    now: DateTime<Utc>,
) -> Result<()> {
    let insert = write.put(
        "insert into audit_event (id, tenant_id, actor_kind, actor_id, action, object_kind, object_id, before, after, address, request_id, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    );
    insert
        .bind(AuditEventId::new())
        .bind(tenant_id)
        .bind(actor.0)
        .bind(actor.1)
        .bind(change.action)
        .bind(change.object_kind)
        .bind(&change.object_id)
        .bind(change.before.as_ref().map(Json))
        .bind(change.after.as_ref().map(Json))
        .bind(origin.address.map(|address| address.to_string()))
        .bind(&origin.request_id)
        .bind(now)
        .run()
        .await
}

/// A page of the tenant's log, newest first, with one row more than the page when there is a next one.
pub async fn list(app: &App, tenant_id: TenantId, page: PageRequest) -> Result<Vec<AuditEvent>> {
    let mut conn = app.db.read(tenant_id).await?;
    Ok(on!(conn, c => sqlx::query_as(
        "select id, actor_kind, actor_id, action, object_kind, object_id, before, after, address, request_id, created_at
           from audit_event
          where tenant_id = $1
            and id < $2
          order by id desc
          limit $3",
    ).bind(tenant_id).bind(page.before).bind(page.limit + 1).fetch_all(c).await)?)
}
