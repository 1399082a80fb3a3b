//! Members of a tenant. No one grants more than they hold, and the last owner stays.

use chrono::{DateTime, Utc};
use serde_json::json;
use uuid::Uuid;

use super::audit::{self, Change, Origin};
use super::role::Role;
use super::{invites, store};
use crate::app::App;
use crate::db::Scope;
use crate::error::{Error, Result};
use crate::http::access::Actor;
use crate::http::input::PageRequest;
use crate::id::{AccountId, MemberId, TenantId};

/// A member with the address they log in by.
#[derive(Clone, Debug)]
pub struct MemberView {
    pub id: MemberId,
    pub account_id: AccountId,
    pub email: String,
    pub role: Role,
    pub created_at: DateTime<Utc>,
}

/// A page of members, newest first.
pub async fn list(app: &App, tenant_id: TenantId, page: PageRequest) -> Result<Vec<MemberView>> {
    // Accounts belong to no tenant, so the operator reads them; the statement is bound to the tenant.
    let mut conn = app.db.read(Scope::Operator).await?;
    store::list_members(&mut conn, tenant_id, page.before, page.limit + 1).await
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
    if role < member.role {
        invites::withdraw_all_by(&mut write, tenant_id, &Actor::signature_of_member(id)).await?;
    }
    audit::record(&mut write, tenant_id, actor, origin, change, now).await?;
    write.commit().await?;
    member.role = role;
    Ok(member)
}

/// Ends a membership, and with it every session and every open invitation that hangs on it.
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
    invites::withdraw_all_by(&mut write, tenant_id, &Actor::signature_of_member(id)).await?;
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
pub(super) fn check_grant(actor: &Actor, role: Role) -> Result<()> {
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
