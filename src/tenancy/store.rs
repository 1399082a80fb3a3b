//! SQL of tenants and members. Keys, sessions and audit lines keep theirs beside their rules.

use chrono::{DateTime, Utc};
use sqlx::FromRow;

use super::members::MemberView;
use super::role::Role;
use super::{Caps, Tenant, TenantState};
use crate::db::{Conn, Write};
use crate::error::{Error, Result};
use crate::id::{AccountId, MemberId, TenantId};
use crate::on;

#[derive(FromRow)]
struct TenantRow {
    id: TenantId,
    name: String,
    state: String,
    monthly_token_limit: Option<i64>,
    monthly_cost_limit_micro_usd: Option<i64>,
    monthly_token_cap: Option<i64>,
    monthly_cost_cap_micro_usd: Option<i64>,
    created_at: DateTime<Utc>,
}

impl From<TenantRow> for Tenant {
    fn from(row: TenantRow) -> Self {
        // Anything but "active" is closed: an unknown state must not open the door.
        let state = if row.state == TenantState::Active.name() {
            TenantState::Active
        } else {
            TenantState::Suspended
        };
        Self {
            id: row.id,
            name: row.name,
            state,
            monthly_token_limit: row.monthly_token_limit,
            monthly_cost_limit_micro_usd: row.monthly_cost_limit_micro_usd,
            caps: Caps {
                monthly_tokens: row.monthly_token_cap,
                monthly_cost_micro_usd: row.monthly_cost_cap_micro_usd,
            },
            created_at: row.created_at,
        }
    }
}

/// The columns of a tenant, in every statement that reads whole ones.
macro_rules! select_tenant {
    ($rest:literal) => {
        concat!(
            "select id, name, state, monthly_token_limit, monthly_cost_limit_micro_usd, monthly_token_cap,
                    monthly_cost_cap_micro_usd, created_at
               from tenant ",
            $rest
        )
    };
}

pub(super) async fn find_tenant(conn: &mut Conn, id: TenantId) -> Result<Option<Tenant>> {
    let row: Option<TenantRow> =
        on!(conn, c => sqlx::query_as(select_tenant!("where id = $1")).bind(id).fetch_optional(c).await)?;
    Ok(row.map(Tenant::from))
}

/// The tenant, which nobody else changes until the transaction ends. SQLite has one writer anyway.
pub(super) async fn hold_tenant(write: &mut Write, id: TenantId) -> Result<Option<Tenant>> {
    if !write.is_postgres() {
        return find_tenant(write, id).await;
    }
    let row: Option<TenantRow> = on!(write, c => sqlx::query_as(select_tenant!("where id = $1 for no key update"))
        .bind(id).fetch_optional(c).await)?;
    Ok(row.map(Tenant::from))
}

pub(super) async fn list_tenants(conn: &mut Conn) -> Result<Vec<Tenant>> {
    let rows: Vec<TenantRow> =
        on!(conn, c => sqlx::query_as(select_tenant!("order by created_at, id")).fetch_all(c).await)?;
    Ok(rows.into_iter().map(Tenant::from).collect())
}

pub(super) async fn insert_tenant(conn: &mut Conn, tenant: &Tenant) -> Result<()> {
    on!(conn, c => sqlx::query(
        "insert into tenant (id, name, state, monthly_token_limit, monthly_cost_limit_micro_usd, monthly_token_cap,
                             monthly_cost_cap_micro_usd, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $8)",
    ).bind(tenant.id).bind(&tenant.name).bind(tenant.state.name()).bind(tenant.monthly_token_limit)
     .bind(tenant.monthly_cost_limit_micro_usd).bind(tenant.caps.monthly_tokens).bind(tenant.caps.monthly_cost_micro_usd)
     .bind(tenant.created_at).execute(c).await.map(drop))?;
    Ok(())
}

/// Writes what the tenant's own people may change. Its state is the operator's, see [`update_tenant_state`].
pub(super) async fn update_tenant_settings(
    write: &mut Write,
    tenant: &Tenant,
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => sqlx::query(
        "update tenant
            set name = $2, monthly_token_limit = $3, monthly_cost_limit_micro_usd = $4, updated_at = $5
          where id = $1",
    ).bind(tenant.id).bind(&tenant.name).bind(tenant.monthly_token_limit).bind(tenant.monthly_cost_limit_micro_usd)
     .bind(now).execute(c).await.map(drop))?;
    Ok(())
}

pub(super) async fn update_tenant_state(
    write: &mut Write,
    id: TenantId,
    state: TenantState,
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => sqlx::query("update tenant set state = $2, updated_at = $3 where id = $1")
        .bind(id).bind(state.name()).bind(now).execute(c).await.map(drop))?;
    Ok(())
}

/// Writes the operator's caps, with the tenant's own limits as they are within them.
pub(super) async fn update_tenant_caps(write: &mut Write, tenant: &Tenant, now: DateTime<Utc>) -> Result<()> {
    on!(write, c => sqlx::query("update tenant set monthly_token_cap = $2, monthly_cost_cap_micro_usd = $3 where id = $1")
        .bind(tenant.id).bind(tenant.caps.monthly_tokens).bind(tenant.caps.monthly_cost_micro_usd)
        .execute(c).await.map(drop))?;
    update_tenant_settings(write, tenant, now).await
}

/// An account's id and password hash, by its e-mail address in lower case.
pub(super) async fn find_account(conn: &mut Conn, email: &str) -> Result<Option<(AccountId, String)>> {
    Ok(
        on!(conn, c => sqlx::query_as("select id, password_hash from account where email = $1").bind(email).fetch_optional(c).await)?,
    )
}

pub(super) async fn find_password_hash(conn: &mut Conn, id: AccountId) -> Result<Option<String>> {
    Ok(
        on!(conn, c => sqlx::query_scalar("select password_hash from account where id = $1").bind(id).fetch_optional(c).await)?,
    )
}

/// Whether the account's password is still the one behind `password_hash`; it stays so until the transaction ends.
///
/// Checking a password takes too long for a transaction, so what hangs on the check asks this again within its own.
pub(super) async fn hold_password(write: &mut Write, id: AccountId, password_hash: &str) -> Result<bool> {
    let statement = if write.is_postgres() {
        "select password_hash from account where id = $1 for no key update"
    } else {
        "select password_hash from account where id = $1"
    };
    let present: Option<String> =
        on!(write, c => sqlx::query_scalar(statement).bind(id).fetch_optional(c).await)?;
    Ok(present.as_deref() == Some(password_hash))
}

pub(super) async fn insert_account(
    conn: &mut Conn,
    id: AccountId,
    email: &str,
    password_hash: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    on!(conn, c => sqlx::query("insert into account (id, email, password_hash, created_at, updated_at) values ($1, $2, $3, $4, $4)")
        .bind(id).bind(email).bind(password_hash).bind(now).execute(c).await.map(drop))?;
    Ok(())
}

pub(super) async fn update_password(
    conn: &mut Conn,
    id: AccountId,
    password_hash: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    on!(conn, c => sqlx::query("update account set password_hash = $2, updated_at = $3 where id = $1")
        .bind(id).bind(password_hash).bind(now).execute(c).await.map(drop))?;
    Ok(())
}

pub(super) async fn insert_member(
    conn: &mut Conn,
    id: MemberId,
    tenant_id: TenantId,
    account_id: AccountId,
    role: Role,
    now: DateTime<Utc>,
) -> Result<()> {
    on!(conn, c => sqlx::query("insert into member (id, tenant_id, account_id, role, created_at) values ($1, $2, $3, $4, $5)")
        .bind(id).bind(tenant_id).bind(account_id).bind(role.name()).bind(now).execute(c).await.map(drop))?;
    Ok(())
}

#[derive(FromRow)]
struct MemberRow {
    id: MemberId,
    account_id: AccountId,
    email: String,
    role: String,
    created_at: DateTime<Utc>,
}

impl TryFrom<MemberRow> for MemberView {
    type Error = Error;

    fn try_from(row: MemberRow) -> Result<Self> {
        let role = parse_role(&row.role)?;
        Ok(Self {
            id: row.id,
            account_id: row.account_id,
            email: row.email,
            role,
            created_at: row.created_at,
        })
    }
}

pub(super) fn parse_role(name: &str) -> Result<Role> {
    Role::parse(name).ok_or_else(|| Error::internal(format!("unknown role {name:?} in the database")))
}

/// The memberships of an account, oldest first.
pub(super) async fn list_memberships(
    conn: &mut Conn,
    account_id: AccountId,
) -> Result<Vec<(MemberId, TenantId, String, String)>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select m.id, m.tenant_id, t.name, m.role
           from member m
           join tenant t on t.id = m.tenant_id
          where m.account_id = $1
            and t.state = 'active'
          order by m.id",
    ).bind(account_id).fetch_all(c).await)?)
}

pub(super) async fn list_members(
    conn: &mut Conn,
    tenant_id: TenantId,
    before: uuid::Uuid,
    limit: i64,
) -> Result<Vec<MemberView>> {
    let rows: Vec<MemberRow> = on!(conn, c => sqlx::query_as(
        "select m.id, m.account_id, a.email, m.role, m.created_at
           from member m
           join account a on a.id = m.account_id
          where m.tenant_id = $1
            and m.id < $2
          order by m.id desc
          limit $3",
    ).bind(tenant_id).bind(before).bind(limit).fetch_all(c).await)?;
    rows.into_iter().map(MemberView::try_from).collect()
}

pub(super) async fn find_member(
    conn: &mut Conn,
    tenant_id: TenantId,
    id: MemberId,
) -> Result<Option<MemberView>> {
    let row: Option<MemberRow> = on!(conn, c => sqlx::query_as(
        "select m.id, m.account_id, a.email, m.role, m.created_at
           from member m
           join account a on a.id = m.account_id
          where m.tenant_id = $1
            and m.id = $2",
    ).bind(tenant_id).bind(id).fetch_optional(c).await)?;
    row.map(MemberView::try_from).transpose()
}

/// Locks the tenant's owners and counts them, so that two changes at once cannot remove the last one.
pub(super) async fn count_owners_locked(conn: &mut Conn, tenant_id: TenantId) -> Result<i64> {
    if conn.is_postgres() {
        on!(conn, c => sqlx::query("select id from tenant where id = $1 for update").bind(tenant_id).execute(c).await.map(drop))?;
    }
    Ok(
        on!(conn, c => sqlx::query_scalar("select count(*) from member where tenant_id = $1 and role = 'owner'").bind(tenant_id).fetch_one(c).await)?,
    )
}

pub(super) async fn update_member_role(
    conn: &mut Conn,
    tenant_id: TenantId,
    id: MemberId,
    role: Role,
) -> Result<()> {
    on!(conn, c => sqlx::query("update member set role = $3 where tenant_id = $1 and id = $2")
        .bind(tenant_id).bind(id).bind(role.name()).execute(c).await.map(drop))?;
    Ok(())
}

pub(super) async fn delete_member(conn: &mut Conn, tenant_id: TenantId, id: MemberId) -> Result<()> {
    on!(conn, c => sqlx::query("delete from member where tenant_id = $1 and id = $2").bind(tenant_id).bind(id).execute(c).await.map(drop))?;
    Ok(())
}
