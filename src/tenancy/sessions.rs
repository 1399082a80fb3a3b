//! Sign-up, login and the sessions that follow: a short access token, and refresh tokens that work once each.
//!
//! Refresh tokens of a session form a chain. When one is used a second time, somebody has a copy: the session ends.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::audit::{self, Change, Origin};
use super::role::Role;
use super::{Caps, Tenant, TenantState, password, store};
use crate::app::App;
use crate::db::{Conn, Scope, Write};
use crate::error::{Error, Result};
use crate::http::access::{self, Actor, Caller};
use crate::id::{AccountId, MemberId, SessionId, TenantId};
use crate::{on, secrets};

/// What every refresh token starts with.
const REFRESH_PREFIX: &str = "fdr_";

/// What a login gives.
pub struct Login {
    pub access_token: String,
    pub refresh_token: String,
    /// Of the access token, in seconds.
    pub expires_in: u64,
    pub tenant_id: TenantId,
    pub member_id: MemberId,
    pub role: Role,
    /// All tenants of this person: id, name, role.
    pub tenants: Vec<(TenantId, String, Role)>,
}

/// The e-mail address in the form in which accounts are found.
pub fn normalise_email(email: &str) -> Result<String> {
    let email = email.trim().to_lowercase();
    let plausible = email.len() <= 254
        && !email.chars().any(super::draws_nothing)
        && email.split_once('@').is_some_and(|(local, domain)| {
            !local.is_empty()
                && domain.contains('.')
                && !domain.contains('@')
                && domain.split('.').all(|label| !label.is_empty())
        });
    if plausible {
        Ok(email)
    } else {
        Err(Error::invalid(
            "invalid_email",
            "email",
            "this is not an e-mail address",
        ))
    }
}

/// Opens a tenant with its first member, an owner, who is logged in at once.
pub async fn sign_up(
    app: &App,
    email: &str,
    password: String,
    tenant_name: String,
    origin: &Origin,
) -> Result<Login> {
    if !app.config.auth.signup {
        return Err(Error::Forbidden {
            code: "signup_closed",
            message: "this installation does not let strangers sign up; ask its operator for an invitation"
                .into(),
        });
    }
    let email = normalise_email(email)?;
    super::check_name(&tenant_name, "tenant_name")?;
    password::check(&password)?;
    let password_hash = password::hash(password).await?;
    let now = app.clock.now();
    let account_id = AccountId::new();
    let member_id = MemberId::new();
    let caps = Caps::of_new_tenants(&app.config.limits);
    let tenant = Tenant {
        id: TenantId::new(),
        name: tenant_name,
        state: TenantState::Active,
        monthly_token_limit: caps.monthly_tokens,
        monthly_cost_limit_micro_usd: caps.monthly_cost_micro_usd,
        caps,
        created_at: now,
    };
    let mut write = app.db.write(Scope::Operator).await?;
    store::insert_account(&mut write, account_id, &email, &password_hash, now)
        .await
        .map_err(|error| {
            if error.is_unique_violation() {
                Error::conflict(
                    "email_taken",
                    "there is an account with this e-mail address: log in instead",
                )
            } else {
                error
            }
        })?;
    store::insert_tenant(&mut write, &tenant).await?;
    store::insert_member(&mut write, member_id, tenant.id, account_id, Role::Owner, now).await?;
    let change = Change {
        action: "tenant.sign_up",
        object_kind: "tenant",
        object_id: tenant.id.to_string(),
        before: None,
        after: Some(json!({ "name": tenant.name })),
    };
    audit::record_as(
        &mut write,
        tenant.id,
        ("member", &member_id.to_string()),
        origin,
        change,
        now,
    )
    .await?;
    let tenants = vec![(tenant.id, tenant.name.clone(), Role::Owner)];
    let login = open(
        app,
        &mut write,
        Place {
            tenant_id: tenant.id,
            member_id,
            account_id,
            role: Role::Owner,
        },
        tenants,
    )
    .await?;
    write.commit().await?;
    Ok(login)
}

/// Logs a person in, to the named tenant or the one they joined first.
pub async fn log_in(app: &App, email: &str, password: String, tenant_id: Option<TenantId>) -> Result<Login> {
    let account = match normalise_email(email) {
        Ok(email) => store::find_account(&mut app.db.read(Scope::Operator).await?, &email).await?,
        Err(_) => None,
    };
    let (account_id, password_hash) = account.unzip();
    let verified = password::verify(password, password_hash.clone()).await?;
    let (Some(account_id), Some(password_hash), true) = (account_id, password_hash, verified) else {
        return Err(wrong_login());
    };
    let mut write = app.db.write(Scope::Operator).await?;
    if !store::hold_password(&mut write, account_id, &password_hash).await? {
        return Err(wrong_login());
    }
    let login = open_for_account(app, &mut write, account_id, tenant_id)
        .await?
        .ok_or_else(wrong_login)?;
    write.commit().await?;
    Ok(login)
}

fn wrong_login() -> Error {
    Error::Unauthenticated {
        code: "login_failed",
        message: "e-mail address or password is wrong",
    }
}

/// Opens a session for an account in one of its tenants; `None` when it has none (there).
pub(super) async fn open_for_account(
    app: &App,
    write: &mut Write,
    account_id: AccountId,
    tenant_id: Option<TenantId>,
) -> Result<Option<Login>> {
    let memberships = store::list_memberships(write, account_id).await?;
    let mut tenants = Vec::with_capacity(memberships.len());
    let mut place = None;
    for (member_id, tenant, name, role) in memberships {
        let role = store::parse_role(&role)?;
        if place.is_none() && tenant_id.is_none_or(|wanted| wanted == tenant) {
            place = Some(Place {
                tenant_id: tenant,
                member_id,
                account_id,
                role,
            });
        }
        tenants.push((tenant, name, role));
    }
    match place {
        Some(place) => open(app, write, place, tenants).await.map(Some),
        None => Ok(None),
    }
}

/// Where a session is: one member of one tenant.
struct Place {
    tenant_id: TenantId,
    member_id: MemberId,
    account_id: AccountId,
    role: Role,
}

async fn open(
    app: &App,
    write: &mut Write,
    place: Place,
    tenants: Vec<(TenantId, String, Role)>,
) -> Result<Login> {
    let now = app.clock.now();
    let session_id = SessionId::new();
    let expires_at = now + TimeDelta::days(app.config.auth.refresh_token_days.into());
    on!(write, c => sqlx::query("insert into login_session (id, tenant_id, member_id, account_id, created_at, expires_at) values ($1, $2, $3, $4, $5, $6)")
        .bind(session_id).bind(place.tenant_id).bind(place.member_id).bind(place.account_id).bind(now).bind(expires_at).execute(c).await.map(drop))?;
    let refresh_token = issue_refresh(write, place.tenant_id, session_id, now).await?;
    finish(app, place, session_id, refresh_token, tenants)
}

async fn issue_refresh(
    write: &mut Write,
    tenant_id: TenantId,
    session_id: SessionId,
    now: DateTime<Utc>,
) -> Result<String> {
    let token = secrets::random_token(REFRESH_PREFIX);
    on!(write, c => sqlx::query("insert into refresh_token (token_hash, tenant_id, session_id, created_at) values ($1, $2, $3, $4)")
        .bind(secrets::token_hash(&token)).bind(tenant_id).bind(session_id).bind(now).execute(c).await.map(drop))?;
    Ok(token)
}

fn finish(
    app: &App,
    place: Place,
    session_id: SessionId,
    refresh_token: String,
    tenants: Vec<(TenantId, String, Role)>,
) -> Result<Login> {
    let issued = app.clock.now().timestamp();
    let expires_in = app.config.auth.access_token_s;
    let expires = issued + i64::try_from(expires_in).unwrap_or(i64::MAX / 2);
    let access_token = app
        .token_keys
        .issue(place.tenant_id, place.member_id, session_id, issued, expires)?;
    Ok(Login {
        access_token,
        refresh_token,
        expires_in,
        tenant_id: place.tenant_id,
        member_id: place.member_id,
        role: place.role,
        tenants,
    })
}

/// Trades a refresh token for new tokens. The old one is spent; using it again ends the session.
pub async fn refresh(app: &App, token: &str) -> Result<Login> {
    let now = app.clock.now();
    let token_hash = secrets::token_hash(token);
    let mut write = app.db.write(Scope::Operator).await?;
    // Marking it used is one statement, so that of two requests at once only one wins.
    let won: Option<(SessionId,)> = on!(write, c => sqlx::query_as("update refresh_token set used_at = $2 where token_hash = $1 and used_at is null returning session_id")
        .bind(&token_hash).bind(now).fetch_optional(c).await)?;
    let Some((session_id,)) = won else {
        let spent: Option<SessionId> = on!(write, c => sqlx::query_scalar("select session_id from refresh_token where token_hash = $1")
            .bind(&token_hash).fetch_optional(c).await)?;
        if let Some(session_id) = spent {
            tracing::warn!(session.id = %session_id, "a spent refresh token was used again: the session ends");
            end_session(&mut write, session_id, now).await?;
            write.commit().await?;
        }
        return Err(access::wrong());
    };
    let place: Option<(TenantId, MemberId, AccountId, String)> = on!(write, c => sqlx::query_as(
        "select s.tenant_id, s.member_id, s.account_id, m.role
           from login_session s
           join member m on m.id = s.member_id
           join tenant t on t.id = s.tenant_id
          where s.id = $1
            and s.revoked_at is null
            and s.expires_at > $2
            and t.state = 'active'",
    ).bind(session_id).bind(now).fetch_optional(c).await)?;
    let (tenant_id, member_id, account_id, role) = place.ok_or_else(access::wrong)?;
    let place = Place {
        tenant_id,
        member_id,
        account_id,
        role: store::parse_role(&role)?,
    };
    let refresh_token = issue_refresh(&mut write, tenant_id, session_id, now).await?;
    let mut tenants = Vec::new();
    for (_, tenant, name, role) in store::list_memberships(&mut write, account_id).await? {
        tenants.push((tenant, name, store::parse_role(&role)?));
    }
    write.commit().await?;
    finish(app, place, session_id, refresh_token, tenants)
}

async fn end_session(write: &mut Write, session_id: SessionId, now: DateTime<Utc>) -> Result<()> {
    on!(write, c => sqlx::query("update login_session set revoked_at = $2 where id = $1 and revoked_at is null")
        .bind(session_id).bind(now).execute(c).await.map(drop))?;
    Ok(())
}

/// Ends the caller's session, or every session of their account.
pub async fn log_out(app: &App, caller: &Caller, everywhere: bool) -> Result<()> {
    let Actor::Member {
        session_id,
        account_id,
        ..
    } = &caller.actor
    else {
        return Err(Error::Forbidden {
            code: "no_session",
            message: "only someone who logged in can log out; revoke a key instead".into(),
        });
    };
    let now = app.clock.now();
    let mut write = app.db.write(Scope::Operator).await?;
    if everywhere {
        end_account_sessions(&mut write, *account_id, now).await?;
    } else {
        end_session(&mut write, *session_id, now).await?;
    }
    write.commit().await
}

pub(super) async fn end_account_sessions(
    write: &mut Write,
    account_id: AccountId,
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => sqlx::query("update login_session set revoked_at = $2 where account_id = $1 and revoked_at is null")
        .bind(account_id).bind(now).execute(c).await.map(drop))?;
    Ok(())
}

/// Changes the caller's password, which ends all their sessions, this one too.
pub async fn change_password(app: &App, caller: &Caller, current: String, new: String) -> Result<()> {
    let Actor::Member { account_id, .. } = &caller.actor else {
        return Err(Error::Forbidden {
            code: "no_password",
            message: "only someone who logged in has a password here".into(),
        });
    };
    password::check(&new)?;
    let wrong = || Error::Forbidden {
        code: "wrong_password",
        message: "the current password is wrong".into(),
    };
    let present = store::find_password_hash(&mut app.db.read(Scope::Operator).await?, *account_id)
        .await?
        .ok_or_else(wrong)?;
    if !password::verify(current, Some(present.clone())).await? {
        return Err(wrong());
    }
    let hash = password::hash(new).await?;
    let now = app.clock.now();
    let mut write = app.db.write(Scope::Operator).await?;
    if !store::hold_password(&mut write, *account_id, &present).await? {
        return Err(wrong());
    }
    store::update_password(&mut write, *account_id, &hash, now).await?;
    end_account_sessions(&mut write, *account_id, now).await?;
    write.commit().await
}

/// The caller behind one of our access tokens. Session, membership and tenant must stand now.
pub async fn authenticate(app: &App, token: &str) -> Result<Caller> {
    let now = app.clock.now();
    let claims = app
        .token_keys
        .read(token, now.timestamp())
        .ok_or_else(access::wrong)?;
    let mut conn = app.db.read(Scope::Operator).await?;
    let (account_id, role) = find_standing(&mut conn, claims.sid, claims.sub, claims.tenant_id, now)
        .await?
        .ok_or_else(access::wrong)?;
    let actor = Actor::Member {
        id: claims.sub,
        account_id,
        session_id: claims.sid,
        role: store::parse_role(&role)?,
    };
    Ok(Caller {
        tenant_id: claims.tenant_id,
        actor,
        chatbot_id: None,
    })
}

/// Whether the session opens something now. An access token that has ended since does not matter: another can be had.
pub async fn stands(
    app: &App,
    tenant_id: TenantId,
    member_id: MemberId,
    session_id: SessionId,
) -> Result<bool> {
    let mut conn = app.db.read(tenant_id).await?;
    let standing = find_standing(&mut conn, session_id, member_id, tenant_id, app.clock.now()).await?;
    Ok(standing.is_some())
}

async fn find_standing(
    conn: &mut Conn,
    session_id: SessionId,
    member_id: MemberId,
    tenant_id: TenantId,
    now: DateTime<Utc>,
) -> Result<Option<(AccountId, String)>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select s.account_id, m.role
           from login_session s
           join member m on m.id = s.member_id
           join tenant t on t.id = s.tenant_id
          where s.id = $1
            and s.member_id = $2
            and s.tenant_id = $3
            and s.revoked_at is null
            and s.expires_at > $4
            and t.state = 'active'",
    ).bind(session_id).bind(member_id).bind(tenant_id).bind(now).fetch_optional(c).await)?)
}
