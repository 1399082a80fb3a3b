//! Members of a tenant and invitations. No one grants more than they hold, and the last owner stays.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use uuid::Uuid;

use super::audit::{self, Change, Origin};
use super::role::Role;
use super::sessions::{self, Login};
use super::{password, store};
use crate::app::App;
use crate::db::Scope;
use crate::error::{Error, Result};
use crate::http::access::{self, Actor};
use crate::http::input::PageRequest;
use crate::id::{AccountId, InviteId, MemberId, TenantId};
use crate::secrets;

/// What every invitation starts with.
const INVITE_PREFIX: &str = "fdi_";

/// A member with the address they log in by.
#[derive(Clone, Debug)]
pub struct MemberView {
    pub id: MemberId,
    pub account_id: AccountId,
    pub email: String,
    pub role: Role,
    pub created_at: DateTime<Utc>,
}

/// An invitation to become a member.
#[derive(Clone, Debug)]
pub struct Invite {
    pub id: InviteId,
    pub tenant_id: TenantId,
    pub email: String,
    pub role: Role,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
}

/// A page of members, newest first.
pub async fn list(app: &App, tenant_id: TenantId, page: PageRequest) -> Result<Vec<MemberView>> {
    // Accounts belong to no tenant, so the operator reads them; the statement is bound to the tenant.
    let mut conn = app.db.read(Scope::Operator).await?;
    store::list_members(&mut conn, tenant_id, page.before, page.limit + 1).await
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
    let email = sessions::normalise_email(email)?;
    let now = app.clock.now();
    let invite = Invite {
        id: InviteId::new(),
        tenant_id,
        email,
        role,
        created_at: now,
        expires_at: now + TimeDelta::days(app.config.auth.invite_days.into()),
    };
    let token = secrets::random_token(INVITE_PREFIX);
    let mut write = app.db.write(tenant_id).await?;
    let (actor_kind, actor_id) = actor.name();
    store::insert_invite(
        &mut write,
        &invite,
        &secrets::token_hash(&token),
        &format!("{actor_kind}:{actor_id}"),
    )
    .await?;
    let after = json!({ "email": invite.email, "role": role });
    let change = Change {
        action: "member.invite",
        object_kind: "invite",
        object_id: invite.id.to_string(),
        before: None,
        after: Some(after),
    };
    audit::record(&mut write, tenant_id, actor, origin, change, now).await?;
    write.commit().await?;
    Ok((invite, token))
}

/// Accepts an invitation: a new account gets `password`, an existing one must prove it.
pub async fn accept(app: &App, token: &str, password: String, origin: &Origin) -> Result<Login> {
    password::check(&password)?;
    let now = app.clock.now();
    let token_hash = secrets::token_hash(token);
    // The work that takes time comes before the transaction, and is the same whether or not the account exists.
    let email = find_invited_email(app, &token_hash, now).await?;
    let account = match &email {
        Some(email) => store::find_account(&mut app.db.read(Scope::Operator).await?, email).await?,
        None => None,
    };
    let new_hash = password::hash(password.clone()).await?;
    let (existing, existing_hash) = account.unzip();
    let proven = password::verify(password, existing_hash).await?;
    if email.is_none() || (existing.is_some() && !proven) {
        return Err(access::wrong());
    }
    let mut write = app.db.write(Scope::Operator).await?;
    let (invite_id, tenant_id, email, role) = store::accept_invite(&mut write, &token_hash, now)
        .await?
        .ok_or_else(access::wrong)?;
    let account_id = match existing {
        Some(account_id) => account_id,
        None => {
            let account_id = AccountId::new();
            store::insert_account(&mut write, account_id, &email, &new_hash, now)
                .await
                .map_err(|error| {
                    if error.is_unique_violation() {
                        access::wrong()
                    } else {
                        error
                    }
                })?;
            account_id
        }
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
    audit::record_as(
        &mut write,
        tenant_id,
        ("member", &member_id.to_string()),
        origin,
        change,
        now,
    )
    .await?;
    let login = sessions::open_for_account(app, &mut write, account_id, Some(tenant_id))
        .await?
        .ok_or_else(access::wrong)?;
    write.commit().await?;
    Ok(login)
}

async fn find_invited_email(app: &App, token_hash: &str, now: DateTime<Utc>) -> Result<Option<String>> {
    let mut conn = app.db.read(Scope::Operator).await?;
    Ok(
        crate::on!(conn, c => sqlx::query_scalar("select email from invite where token_hash = $1 and accepted_at is null and expires_at > $2")
        .bind(token_hash).bind(now).fetch_optional(c).await)?,
    )
}

/// Gives a member another role.
pub async fn change_role(
    app: &App,
    tenant_id: TenantId,
    id: MemberId,
    role: Role,
    actor: &Actor,
    origin: &Origin,
) -> Result<MemberView> {
    check_grant(actor, role)?;
    let now = app.clock.now();
    let mut write = app.db.write(Scope::Operator).await?;
    let owners = store::count_owners_locked(&mut write, tenant_id).await?;
    let mut member = store::find_member(&mut write, tenant_id, id)
        .await?
        .ok_or(Error::NotFound("member"))?;
    check_grant(actor, member.role)?;
    if member.role == Role::Owner && role != Role::Owner && owners <= 1 {
        return Err(last_owner());
    }
    let change = Change {
        action: "member.change_role",
        object_kind: "member",
        object_id: id.to_string(),
        before: Some(json!({ "role": member.role })),
        after: Some(json!({ "role": role })),
    };
    store::update_member_role(&mut write, tenant_id, id, role).await?;
    audit::record(&mut write, tenant_id, actor, origin, change, now).await?;
    write.commit().await?;
    member.role = role;
    Ok(member)
}

/// Ends a membership, and with it every session that hangs on it.
pub async fn remove(
    app: &App,
    tenant_id: TenantId,
    id: MemberId,
    actor: &Actor,
    origin: &Origin,
) -> Result<()> {
    let mut write = app.db.write(Scope::Operator).await?;
    let owners = store::count_owners_locked(&mut write, tenant_id).await?;
    let member = store::find_member(&mut write, tenant_id, id)
        .await?
        .ok_or(Error::NotFound("member"))?;
    check_grant(actor, member.role)?;
    if member.role == Role::Owner && owners <= 1 {
        return Err(last_owner());
    }
    store::delete_member(&mut write, tenant_id, id).await?;
    let before = json!({ "email": member.email, "role": member.role });
    let change = Change {
        action: "member.remove",
        object_kind: "member",
        object_id: id.to_string(),
        before: Some(before),
        after: None,
    };
    audit::record(&mut write, tenant_id, actor, origin, change, app.clock.now()).await?;
    write.commit().await
}

/// Refuses to give, take or change a role above the actor's own.
fn check_grant(actor: &Actor, role: Role) -> Result<()> {
    if actor.role() >= Some(role) {
        return Ok(());
    }
    Err(Error::Forbidden {
        code: "grants_too_much",
        message: format!("only an {} may do that to an {}", role.name(), role.name()).into(),
    })
}

fn last_owner() -> Error {
    Error::conflict(
        "last_owner",
        "this is the tenant's last owner: make someone else an owner first",
    )
}

/// The id that pages of members go by.
pub fn page_key(member: &MemberView) -> Uuid {
    member.id.0
}
