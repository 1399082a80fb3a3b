//! SQL of connections and of consents that have not come back yet.

use chrono::{DateTime, Utc};
use sqlx::FromRow;

use super::{Connection, ConnectionState};
use crate::db::{Conn, Write};
use crate::error::{Error, Result};
use crate::id::{ConnectionId, SessionId, TenantId};
use crate::on;

/// What these rows are connections to.
pub(super) const PROVIDER: &str = "google";

#[derive(FromRow)]
struct ConnectionRow {
    id: ConnectionId,
    account: String,
    sealed: String,
    state: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<ConnectionRow> for Connection {
    type Error = Error;

    fn try_from(row: ConnectionRow) -> Result<Self> {
        let state = ConnectionState::ALL
            .into_iter()
            .find(|state| state.name() == row.state);
        Ok(Self {
            id: row.id,
            account: row.account,
            state: state
                .ok_or_else(|| Error::internal(format!("unknown state of a connection: {:?}", row.state)))?,
            created_at: row.created_at,
            updated_at: row.updated_at,
            sealed: row.sealed,
        })
    }
}

pub(super) async fn find(conn: &mut Conn, tenant_id: TenantId) -> Result<Option<Connection>> {
    let row: Option<ConnectionRow> = on!(conn, c => sqlx::query_as(
        "select id, account, sealed, state, created_at, updated_at
           from connection
          where tenant_id = $1
            and provider = $2",
    ).bind(tenant_id).bind(PROVIDER).fetch_optional(c).await)?;
    row.map(Connection::try_from).transpose()
}

/// Takes the place of the connection that the tenant has, if it has one.
pub(super) async fn put(
    write: &mut Write,
    tenant_id: TenantId,
    account: &str,
    sealed: &str,
    now: DateTime<Utc>,
) -> Result<Connection> {
    let row: ConnectionRow = on!(write, c => sqlx::query_as(
        "insert into connection (id, tenant_id, provider, account, sealed, state, created_at, updated_at)
         values ($1, $2, $3, $4, $5, 'connected', $6, $6)
         on conflict (tenant_id, provider) do update
            set account = excluded.account, sealed = excluded.sealed, state = excluded.state, updated_at = excluded.updated_at
         returning id, account, sealed, state, created_at, updated_at",
    ).bind(ConnectionId::new()).bind(tenant_id).bind(PROVIDER).bind(account).bind(sealed).bind(now).fetch_one(c).await)?;
    row.try_into()
}

pub(super) async fn set_state(
    write: &mut Write,
    tenant_id: TenantId,
    state: ConnectionState,
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => sqlx::query("update connection set state = $3, updated_at = $4 where tenant_id = $1 and provider = $2")
        .bind(tenant_id).bind(PROVIDER).bind(state.name()).bind(now).execute(c).await.map(drop))?;
    Ok(())
}

/// Deletes the connection; gives what it was.
pub(super) async fn delete(write: &mut Write, tenant_id: TenantId) -> Result<Option<Connection>> {
    let row: Option<ConnectionRow> = on!(write, c => sqlx::query_as(
        "delete from connection
          where tenant_id = $1
            and provider = $2
         returning id, account, sealed, state, created_at, updated_at",
    ).bind(tenant_id).bind(PROVIDER).fetch_optional(c).await)?;
    row.map(Connection::try_from).transpose()
}

/// A consent that somebody was sent for.
#[derive(FromRow)]
pub(super) struct Attempt {
    pub actor_kind: String,
    pub actor_id: String,
    pub session_id: Option<SessionId>,
    pub browser_hash: String,
    pub sealed: String,
    pub expires_at: DateTime<Utc>,
}

pub(super) async fn insert_attempt(
    write: &mut Write,
    tenant_id: TenantId,
    state_hash: &str,
    attempt: &Attempt,
) -> Result<()> {
    on!(write, c => sqlx::query(
        "insert into connection_attempt (state_hash, tenant_id, provider, actor_kind, actor_id, session_id, browser_hash, sealed, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    ).bind(state_hash).bind(tenant_id).bind(PROVIDER).bind(&attempt.actor_kind).bind(&attempt.actor_id).bind(attempt.session_id)
     .bind(&attempt.browser_hash).bind(&attempt.sealed).bind(attempt.expires_at).execute(c).await.map(drop))?;
    Ok(())
}

/// Leaves room for a new attempt: of many that one tenant began, the oldest go.
pub(super) async fn trim_attempts(write: &mut Write, tenant_id: TenantId, most: i64) -> Result<()> {
    on!(write, c => sqlx::query(
        "delete from connection_attempt
          where tenant_id = $1
            and state_hash not in (select state_hash from connection_attempt where tenant_id = $1 order by expires_at desc limit $2)",
    ).bind(tenant_id).bind(most).execute(c).await.map(drop))?;
    Ok(())
}

/// Takes an attempt out: it can come back once.
pub(super) async fn take_attempt(
    write: &mut Write,
    tenant_id: TenantId,
    state_hash: &str,
) -> Result<Option<Attempt>> {
    Ok(on!(write, c => sqlx::query_as(
        "delete from connection_attempt
          where tenant_id = $1
            and state_hash = $2
            and provider = $3
         returning actor_kind, actor_id, session_id, browser_hash, sealed, expires_at",
    ).bind(tenant_id).bind(state_hash).bind(PROVIDER).fetch_optional(c).await)?)
}
