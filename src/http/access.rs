//! Who asks, as a type: a handler that takes an [`Access`] cannot run for someone who may not.
//!
//! A credential is a bearer token: an API key, our own access token, or a JWT of the configured issuer. Its standing
//! is read from the database at each request, so revoking it works at once, on every replica.

use std::marker::PhantomData;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use http::header;
use http::request::Parts;

use super::problem::Problem;
use super::rate::{self, Bucket, Meter};
use crate::app::App;
use crate::error::{Error, Result};
use crate::id::{AccountId, ApiKeyId, ChatbotId, MemberId, SessionId, TenantId};
use crate::tenancy::audit::Origin;
use crate::tenancy::role::{KeyScope, Permission, Role};
use crate::tenancy::{self, keys, sessions, tokens};

/// Who asks, as far as it could be proven.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Whose data the request may touch.
    pub tenant_id: TenantId,
    /// The credential's holder.
    pub actor: Actor,
    /// The one chatbot that the credential is restricted to, if it is.
    pub chatbot_id: Option<ChatbotId>,
}

/// The holder of a credential.
#[derive(Clone, Debug)]
pub enum Actor {
    /// A program with an API key.
    ApiKey { id: ApiKeyId, scopes: Vec<KeyScope> },
    /// A person, logged in here.
    Member {
        id: MemberId,
        account_id: AccountId,
        session_id: SessionId,
        role: Role,
    },
    /// A person, vouched for by the configured issuer.
    External {
        subject: String,
        role: Role,
        /// Access groups that the issuer vouches for.
        groups: Vec<String>,
    },
}

impl Actor {
    /// Whether this actor may do what needs `permission`.
    pub fn allows(&self, permission: Permission) -> bool {
        match self {
            Self::ApiKey { scopes, .. } => scopes.iter().any(|scope| scope.allows(permission)),
            Self::Member { role, .. } | Self::External { role, .. } => role.allows(permission),
        }
    }

    /// Whether this actor may say which access groups a visitor has: who may read all documents anyway, and keys that are
    /// made for it.
    pub fn may_name_groups(&self) -> bool {
        let has_scope = matches!(self, Self::ApiKey { scopes, .. } if scopes.contains(&KeyScope::ChatGroups));
        has_scope || self.allows(Permission::KnowledgeRead)
    }

    /// The access groups that this actor has by its own credential.
    pub fn own_groups(&self) -> &[String] {
        match self {
            Self::External { groups, .. } => groups,
            Self::ApiKey { .. } | Self::Member { .. } => &[],
        }
    }

    /// The role that this actor's grants are measured by: a key with the admin scope counts as an admin.
    pub fn role(&self) -> Option<Role> {
        match self {
            Self::ApiKey { scopes, .. } => scopes.contains(&KeyScope::Admin).then_some(Role::Admin),
            Self::Member { role, .. } | Self::External { role, .. } => Some(*role),
        }
    }

    /// The name in audit lines: kind and id.
    pub fn name(&self) -> (&'static str, String) {
        match self {
            Self::ApiKey { id, .. } => ("api_key", id.to_string()),
            Self::Member { id, .. } => ("member", id.to_string()),
            Self::External { subject, .. } => ("external", subject.clone()),
        }
    }

    /// The name in one text, by which rows remember who made them.
    pub fn signature(&self) -> String {
        let (kind, id) = self.name();
        format!("{kind}:{id}")
    }

    /// The [`Actor::signature`] of this member.
    pub fn signature_of_member(id: MemberId) -> String {
        format!("member:{id}")
    }

    /// The [`Actor::signature`] of whoever uses this key.
    pub fn signature_of_key(id: ApiKeyId) -> String {
        format!("api_key:{id}")
    }
}

/// What an operation's rows are looked up within: the tenant, and one chatbot where the credential is restricted.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    /// Whose rows.
    pub tenant_id: TenantId,
    /// Only this chatbot's, if set.
    pub chatbot_id: Option<ChatbotId>,
}

impl Reach {
    /// All of a tenant's rows.
    pub fn whole(tenant_id: TenantId) -> Self {
        Self {
            tenant_id,
            chatbot_id: None,
        }
    }

    /// Refuses a credential that is restricted to one chatbot, for what concerns the tenant as a whole.
    pub fn check_whole(&self) -> Result<()> {
        match self.chatbot_id {
            Some(_) => Err(Error::Forbidden {
                code: "restricted_to_chatbot",
                message: "this key is restricted to one chatbot; use one that is not".into(),
            }),
            None => Ok(()),
        }
    }

    /// Fails as absent when `chatbot_id` lies outside.
    pub fn check_chatbot(&self, chatbot_id: ChatbotId) -> Result<()> {
        match self.chatbot_id {
            Some(own) if own != chatbot_id => Err(Error::NotFound("chatbot")),
            _ => Ok(()),
        }
    }
}

/// A permission as a type.
pub trait Needs: Send + Sync + 'static {
    /// What the operation needs.
    const PERMISSION: Permission;
}

macro_rules! needs {
    ($($(#[$doc:meta])* $marker:ident = $permission:ident, $alias:ident;)+) => {$(
        #[doc = concat!("Marks access with [`Permission::", stringify!($permission), "`].")]
        pub struct $marker;
        impl Needs for $marker {
            const PERMISSION: Permission = Permission::$permission;
        }
        $(#[$doc])*
        pub type $alias = Access<$marker>;
    )+};
}

needs! {
    /// May ask.
    Chat = Chat, ChatAccess;
    /// May search.
    Search = Search, SearchAccess;
    /// May see chatbots and documents.
    KnowledgeRead = KnowledgeRead, KnowledgeAccess;
    /// May add and delete documents.
    Ingest = Ingest, IngestAccess;
    /// May change chatbots and delete conversations.
    Edit = Edit, EditAccess;
    /// May read conversations.
    Conversations = Conversations, ConversationAccess;
    /// May see usage and costs.
    UsageRead = UsageRead, UsageAccess;
    /// May run keys, members, limits and jobs.
    Admin = Admin, AdminAccess;
}

/// Proof that the caller may do what `N` names. Only the extractor makes one.
pub struct Access<N: Needs> {
    /// Whose data the request may touch.
    pub tenant_id: TenantId,
    /// Who asks.
    pub actor: Actor,
    /// For the audit log: from where, in which request.
    pub origin: Origin,
    chatbot_id: Option<ChatbotId>,
    needs: PhantomData<N>,
}

/// The holder of the credential that a long answer hangs on, to be asked after again while it runs.
#[derive(Clone, Debug)]
pub struct Holder {
    tenant_id: TenantId,
    actor: Actor,
}

impl Holder {
    /// Whether the credential would still open something now. While that cannot be told, it counts as standing: an
    /// outage is no revocation.
    pub async fn still_stands(&self, app: &App) -> bool {
        let standing = match &self.actor {
            Actor::ApiKey { id, .. } => keys::stands(app, self.tenant_id, *id).await,
            Actor::Member { id, session_id, .. } => {
                sessions::stands(app, self.tenant_id, *id, *session_id).await
            }
            Actor::External { .. } => tenancy::is_active(app, self.tenant_id).await,
        };
        standing.unwrap_or(true)
    }
}

impl<N: Needs> Access<N> {
    /// Who holds the credential, for an answer that takes its time.
    pub fn holder(&self) -> Holder {
        Holder {
            tenant_id: self.tenant_id,
            actor: self.actor.clone(),
        }
    }

    /// What rows the caller may reach.
    pub fn reach(&self) -> Reach {
        Reach {
            tenant_id: self.tenant_id,
            chatbot_id: self.chatbot_id,
        }
    }
}

impl<N: Needs> FromRequestParts<App> for Access<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let member = Member::from_request_parts(parts, app).await?;
        let caller = member.caller;
        if !caller.actor.allows(N::PERMISSION) {
            let holder = if matches!(caller.actor, Actor::ApiKey { .. }) {
                "this key's scopes do"
            } else {
                "your role does"
            };
            return Err(Error::Forbidden {
                code: "permission_missing",
                message: format!(
                    "{holder} not include {}; ask an admin of the tenant",
                    N::PERMISSION.name()
                )
                .into(),
            }
            .into());
        }
        Ok(Self {
            tenant_id: caller.tenant_id,
            actor: caller.actor,
            origin: member.origin,
            chatbot_id: caller.chatbot_id,
            needs: PhantomData,
        })
    }
}

/// Proof that the caller is known, for what anyone may do with their own account.
#[derive(Clone)]
pub struct Member {
    /// Who asks.
    pub caller: Caller,
    /// For the audit log.
    pub origin: Origin,
}

impl FromRequestParts<App> for Member {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        // A layer that had to know the caller has asked already: the request counts once.
        if let Some(member) = parts.extensions.get::<Self>() {
            return Ok(member.clone());
        }
        let address = rate::client_address(parts, app);
        let meter = Meter::of(parts);
        meter.check(app, Bucket::Address(address))?;
        let caller = match authenticate(app, parts).await {
            Ok(caller) => caller,
            Err(error) => {
                meter.charge(app, Bucket::Address(address))?;
                return Err(error.into());
            }
        };
        match &caller.actor {
            Actor::ApiKey { id, .. } => meter.charge(app, Bucket::Key(*id))?,
            Actor::Member { account_id, .. } => meter.charge(app, Bucket::Account(*account_id))?,
            Actor::External { subject, .. } => meter.charge(app, Bucket::Subject(subject.clone()))?,
        }
        meter.charge_behind(app, Bucket::Tenant(caller.tenant_id))?;
        tracing::Span::current().record("tenant.id", tracing::field::display(caller.tenant_id));
        Ok(Self {
            caller,
            origin: Origin {
                address: Some(address),
                request_id: super::request_id::current(),
            },
        })
    }
}

/// Someone without a credential, on one of the few routes that take them. Their address is counted before any work.
pub struct Stranger {
    /// For the audit log.
    pub origin: Origin,
    address: IpAddr,
    meter: Meter,
}

impl Stranger {
    /// Counts an attempt to get in: by address, and by account where one is named, whether or not it exists.
    pub fn charge_attempt(&self, app: &App, email: Option<&str>) -> Result<()> {
        self.meter.charge(app, Bucket::LoginAddress(self.address))?;
        match email {
            Some(email) => self.charge_account(app, email),
            None => Ok(()),
        }
    }

    /// Counts an attempt to prove an account's password, whether or not the account exists.
    pub fn charge_account(&self, app: &App, email: &str) -> Result<()> {
        // What is no e-mail address has no account to guard.
        match sessions::normalise_email(email) {
            Ok(email) => self.meter.charge(app, Bucket::LoginAccount(email)),
            Err(_) => Ok(()),
        }
    }
}

impl FromRequestParts<App> for Stranger {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let address = rate::client_address(parts, app);
        let meter = Meter::of(parts);
        meter.charge(app, Bucket::Address(address))?;
        Ok(Self {
            origin: Origin {
                address: Some(address),
                request_id: super::request_id::current(),
            },
            address,
            meter,
        })
    }
}

/// The holder of the request's bearer token. Every malformed, unknown, expired or revoked token is the same 401.
pub async fn authenticate(app: &App, parts: &Parts) -> Result<Caller> {
    let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(if parts.headers.contains_key(header::AUTHORIZATION) {
            wrong()
        } else {
            missing()
        });
    };
    let token = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    let token = token
        .filter(|token| !token.is_empty() && token.len() <= 8192)
        .ok_or_else(wrong)?;
    if token.starts_with(keys::PREFIX) {
        return keys::authenticate(app, token).await?.ok_or_else(wrong);
    }
    match tokens::issuer(token).as_deref() {
        Some(tokens::OWN_ISSUER) => sessions::authenticate(app, token).await,
        Some(issuer) if !app.config.auth.jwt.issuer.is_empty() && issuer == app.config.auth.jwt.issuer => {
            app.foreign_tokens.authenticate(app, token).await
        }
        _ => Err(wrong()),
    }
}

fn missing() -> Error {
    Error::Unauthenticated {
        code: "credential_missing",
        message: "send an API key or access token as Authorization: Bearer …",
    }
}

/// The one answer to every credential that does not open anything.
pub fn wrong() -> Error {
    Error::Unauthenticated {
        code: "credential_invalid",
        message: "this credential is wrong, expired or revoked: log in again or use another key",
    }
}
