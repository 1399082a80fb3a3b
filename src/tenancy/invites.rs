//! Invitations: shown once, accepted once, withdrawn with whoever made them.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use sqlx::FromRow;

use super::audit::{self, Change, Origin};
use super::members::check_grant;
use super::role::Role;
use super::sessions::{self, Login};
use super::{password, store};
use crate::app::App;
use crate::db::{Scope, Write};
use crate::error::{Error, Result};
use crate::http::access::{self, Actor};
use crate::http::input::PageRequest;
use crate::id::{AccountId, InviteId, MemberId, TenantId};
use crate::{on, secrets};

/// What every invitation starts with.
const PREFIX: &str = "fdi_";

/// An invitation is spent after so many wrong passwords: it is no way to guess one.
const MAX_WRONG_PASSWORDS: i64 = 5;

/// An invitation to become a member.
#[derive(Clone, Debug)]
pub struct Invite {
    pub id: InviteId,
    pub email: String,
    pub role: Role,
    /// Who made it: kind and id, as in audit lines.
    pub created_by: String,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
}

#[derive(FromRow)]
struct InviteRow {
    id: InviteId,
    email: String,
    role: String,
    created_by: String,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
}

impl TryFrom<InviteRow> for Invite {
    type Error = Error;

    fn try_from(row: InviteRow) -> Result<Self> {
        Ok(Self {
            id: row.id,
            email: row.email,
            role: store::parse_role(&row.role)?,
            created_by: row.created_by,
            created_at: row.created_at,
            expires_at: row.expires_at,
        })
    }
}

/// Invites someone. The token in the answer opens the invitation once; whoever asks hands it over.
pub async fn invite(
    app: &App,
    tenant_id: TenantId,
    email: &str,
    role: Role,
    actor: &Actor,
    origin: &Origin,
) -> Result<(Invite, String)> {
    check_grant(actor, role)?;
    let now = app.clock.now();
    let invite = Invite {
        id: InviteId::new(),
        email: sessions::normalise_email(email)?,
        role,
        created_by: actor.signature(),
        created_at: now,
        expires_at: now + TimeDelta::days(app.config.auth.invite_days.into()),
    };
    let token = secrets::random_token(PREFIX);
    let mut write = app.db.write(tenant_id).await?;
    on!(write, c => sqlx::query(
        "insert into invite (id, tenant_id, email, role, token_hash, created_by, created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
    ).bind(invite.id).bind(tenant_id).bind(&invite.email).bind(invite.role.name()).bind(secrets::token_hash(&token))
     .bind(&invite.created_by).bind(invite.created_at).bind(invite.expires_at).execute(c).await.map(drop))?;
    let change = Change {
        action: "member.invite",
        object_kind: "invite",
        object_id: invite.id.to_string(),
        before: None,
        after: Some(describe(&invite)),
    };
    audit::record(&mut write, tenant_id, actor, origin, change, now).await?;
    write.commit().await?;
    Ok((invite, token))
}

/// A page of the invitations that can still be accepted, newest first.
pub async fn list(app: &App, tenant_id: TenantId, page: PageRequest) -> Result<Vec<Invite>> {
    let mut conn = app.db.read(tenant_id).await?;
    let rows: Vec<InviteRow> = on!(conn, c => sqlx::query_as(
        "select id, email, role, created_by, created_at, expires_at
           from invite
          where tenant_id = $1
            and id < $2
            and accepted_at is null
            and expires_at > $3
            and wrong_passwords < $4
          order by id desc
          limit $5",
    ).bind(tenant_id).bind(page.before).bind(app.clock.now()).bind(MAX_WRONG_PASSWORDS).bind(page.limit + 1)
     .fetch_all(c).await)?;
    rows.into_iter().map(Invite::try_from).collect()
}

/// Withdraws an invitation that was not accepted yet.
pub async fn withdraw(
    app: &App,
    tenant_id: TenantId,
    id: InviteId,
    actor: &Actor,
    origin: &Origin,
) -> Result<()> {
    let mut write = app.db.write(tenant_id).await?;
    let row: Option<InviteRow> = on!(write, c => sqlx::query_as(
        "delete from invite
          where tenant_id = $1
            and id = $2
            and accepted_at is null
         returning id, email, role, created_by, created_at, expires_at",
    ).bind(tenant_id).bind(id).fetch_optional(c).await)?;
    let invite = Invite::try_from(row.ok_or(Error::NotFound("invitation"))?)?;
    let change = Change {
        action: "member.withdraw_invite",
        object_kind: "invite",
        object_id: id.to_string(),
        before: Some(describe(&invite)),
        after: None,
    };
    audit::record(&mut write, tenant_id, actor, origin, change, app.clock.now()).await?;
    write.commit().await
}

/// Withdraws what a credential's holder has open: it hangs on what they may do. `created_by` is their signature.
pub(super) async fn withdraw_all_by(write: &mut Write, tenant_id: TenantId, created_by: &str) -> Result<()> {
    on!(write, c => sqlx::query("delete from invite where tenant_id = $1 and created_by = $2 and accepted_at is null")
        .bind(tenant_id).bind(created_by).execute(c).await.map(drop))?;
    Ok(())
}

/// The address that an invitation is for; `None` when the token opens nothing (any more).
pub async fn find_email(app: &App, token: &str) -> Result<Option<String>> {
    let mut conn = app.db.read(Scope::Operator).await?;
    Ok(on!(conn, c => sqlx::query_scalar(
        "select email
           from invite
          where token_hash = $1
            and accepted_at is null
            and expires_at > $2
            and wrong_passwords < $3",
    ).bind(secrets::token_hash(token)).bind(app.clock.now()).bind(MAX_WRONG_PASSWORDS).fetch_optional(c).await)?)
}

/// Accepts an invitation for `email`, as [`find_email`] found it: a new account gets `password`, an existing one must
/// prove it. Whoever calls this has counted the attempt.
///
/// Both kinds of people send the same fields, and a refusal is the same for a wrong password as for a token that opens
/// nothing. What remains told: whoever holds an open invitation, which is who made it and whom it was handed to, learns by
/// a refusal that its address has an account, as whoever signs up with an address does. Without letters to the address
/// nothing can keep that from them, for someone who chooses an account's password sees whether it was made. It is told
/// slowly: an attempt counts against the caller's address and the account ([`crate::http::rate`]), wrong passwords spend
/// the invitation, and who made it stands in the audit log. No invitation tells it without an attempt to accept it.
pub async fn accept(
    app: &App,
    token: &str,
    email: Option<String>,
    password: String,
    origin: &Origin,
) -> Result<Login> {
    password::check(&password)?;
    let token_hash = secrets::token_hash(token);
    // The work that takes time comes before the transaction, and is the same whether or not the account exists.
    let account = match &email {
        Some(email) => store::find_account(&mut app.db.read(Scope::Operator).await?, email).await?,
        None => None,
    };
    let new_hash = password::hash(password.clone()).await?;
    let (existing, existing_hash) = account.unzip();
    let proven = password::verify(password, existing_hash.clone()).await?;
    if email.is_some() && existing.is_some() && !proven {
        count_wrong_password(app, &token_hash).await?;
    }
    if email.is_none() || (existing.is_some() && !proven) {
        return Err(access::wrong());
    }
    let now = app.clock.now();
    let mut write = app.db.write(Scope::Operator).await?;
    let (invite_id, tenant_id, email, role) = spend(&mut write, &token_hash, now)
        .await?
        .ok_or_else(access::wrong)?;
    let account_id = match (existing, existing_hash) {
        (Some(account_id), Some(hash)) => {
            if !store::hold_password(&mut write, account_id, &hash).await? {
                return Err(access::wrong());
            }
            account_id
        }
        _ => open_account(&mut write, &email, &new_hash, now).await?,
    };
    let member_id = MemberId::new();
    store::insert_member(&mut write, member_id, tenant_id, account_id, role, now)
        .await
        .map_err(|error| {
            if error.is_unique_violation() {
                Error::conflict(
                    "already_member",
                    "this account is a member of the tenant already: log in",
                )
            } else {
                error
            }
        })?;
    let change = Change {
        action: "member.join",
        object_kind: "member",
        object_id: member_id.to_string(),
        before: None,
        after: Some(json!({ "invite_id": invite_id, "role": role })),
    };
    let by = ("member", member_id.to_string());
    audit::record_as(&mut write, tenant_id, (by.0, &by.1), origin, change, now).await?;
    let login = sessions::open_for_account(app, &mut write, account_id, Some(tenant_id))
        .await?
        .ok_or_else(access::wrong)?;
    write.commit().await?;
    Ok(login)
}

async fn open_account(
    write: &mut Write,
    email: &str,
    password_hash: &str,
    now: DateTime<Utc>,
) -> Result<AccountId> {
    let account_id = AccountId::new();
    match store::insert_account(write, account_id, email, password_hash, now).await {
        // Somebody opened it since.
        Err(error) if error.is_unique_violation() => Err(access::wrong()),
        opened => opened.map(|()| account_id),
    }
}

async fn count_wrong_password(app: &App, token_hash: &str) -> Result<()> {
    let mut write = app.db.write(Scope::Operator).await?;
    on!(write, c => sqlx::query("update invite set wrong_passwords = wrong_passwords + 1 where token_hash = $1")
        .bind(token_hash).execute(c).await.map(drop))?;
    write.commit().await
}

/// Marks an open invitation as accepted and returns it; `None` when the token opens nothing (any more).
async fn spend(
    write: &mut Write,
    token_hash: &str,
    now: DateTime<Utc>,
) -> Result<Option<(InviteId, TenantId, String, Role)>> {
    let row: Option<(InviteId, TenantId, String, String)> = on!(write, c => sqlx::query_as(
        "update invite
            set accepted_at = $2
          where token_hash = $1
            and accepted_at is null
            and expires_at > $2
            and wrong_passwords < $3
         returning id, tenant_id, email, role",
    ).bind(token_hash).bind(now).bind(MAX_WRONG_PASSWORDS).fetch_optional(c).await)?;
    row.map(|(id, tenant_id, email, role)| Ok((id, tenant_id, email, store::parse_role(&role)?)))
        .transpose()
}

fn describe(invite: &Invite) -> serde_json::Value {
    json!({ "email": invite.email, "role": invite.role })
}
