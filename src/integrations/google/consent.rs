//! An owner's consent (OAuth 2.0 authorisation code with PKCE): sends a browser to Google, and takes in what it brings
//! back.
//!
//! A consent belongs to who asked for it. The `state` names the tenant and is known as a hash only, works once and for
//! ten minutes; it must come back from the browser that was sent there, or with the credential that asked. Else someone
//! could be led to open their own Drive to a stranger's tenant.

use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use ingest::loader::drive::{AccessTokens, DriveError, Grant, Granted, TokenEndpoint, TokenError};
use serde_json::json;
use subtle::ConstantTimeEq as _;
use url::Url;

use super::store::{self, Attempt};
use super::{Connection, access};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::access::{Actor, Caller};
use crate::id::TenantId;
use crate::secrets::{random_token, token_hash};
use crate::tenancy::audit::{self, Change, Origin};
use crate::tenancy::role::Permission;
use crate::tenancy::{self, keys, sessions};

/// A consent that does not come back within this time was not given.
const LIFE: TimeDelta = TimeDelta::minutes(10);

/// Consents that one tenant may wait for.
const MOST_ATTEMPTS: i64 = 20;

/// What the key is derived for that seals PKCE verifiers.
const PURPOSE: &str = "google-consent";

/// Where a browser is sent, and what it is recognised by when it comes back.
pub struct Sent {
    pub authorization_url: Url,
    /// Only the browser that was sent there may have this.
    pub browser_secret: String,
    pub expires_in_s: i64,
}

/// What comes back to the redirect address.
#[derive(Default)]
pub struct Brought<'a> {
    pub code: &'a str,
    pub state: &'a str,
    /// [`Sent::browser_secret`], where the browser has one.
    pub browser_secret: Option<&'a str>,
    /// The holder of the credential that came along, where one did.
    pub caller: Option<&'a Caller>,
}

/// Begins: makes everything that the consent will be recognised by.
pub async fn begin(app: &App, tenant_id: TenantId, actor: &Actor) -> Result<Sent> {
    let config = &app.config.google;
    if config.client_id.is_empty() {
        return Err(Error::conflict(
            "google_not_configured",
            "this installation has no OAuth client at Google: its operator sets google.client_id and google.client_secret, or use the key of a service account",
        ));
    }
    let (state, verifier, browser_secret) = (
        format!("{tenant_id}.{}", random_token("")),
        random_token(""),
        random_token(""),
    );
    let state_hash = token_hash(&state);
    let (actor_kind, actor_id) = actor.name();
    let session_id = match actor {
        Actor::Member { session_id, .. } => Some(*session_id),
        Actor::ApiKey { .. } | Actor::External { .. } => None,
    };
    let attempt = Attempt {
        actor_kind: actor_kind.to_owned(),
        actor_id,
        session_id,
        browser_hash: token_hash(&browser_secret),
        sealed: app
            .keyring
            .seal(PURPOSE, state_hash.as_bytes(), verifier.as_bytes()),
        expires_at: app.clock.now() + LIFE,
    };
    let mut write = app.db.write(tenant_id).await?;
    store::trim_attempts(&mut write, tenant_id, MOST_ATTEMPTS - 1).await?;
    store::insert_attempt(&mut write, tenant_id, &state_hash, &attempt).await?;
    write.commit().await?;
    let challenge = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()));
    let mut authorization_url: Url = config.auth_url.parse().map_err(Error::internal)?;
    authorization_url.query_pairs_mut().extend_pairs([
        ("client_id", config.client_id.as_str()),
        ("redirect_uri", &redirect_uri(app)),
        ("response_type", "code"),
        ("scope", TokenEndpoint::scope()),
        ("state", &state),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
        // Without these two Google gives no lasting access the second time.
        ("access_type", "offline"),
        ("prompt", "consent"),
    ]);
    Ok(Sent {
        authorization_url,
        browser_secret,
        expires_in_s: LIFE.num_seconds(),
    })
}

/// Takes in a consent that was given: the account is connected from now on.
pub async fn finish(app: &App, brought: Brought<'_>, origin: &Origin) -> Result<Connection> {
    let (tenant_id, attempt) = take_attempt(app, &brought).await?;
    let state_hash = token_hash(brought.state);
    let verifier = app
        .keyring
        .open_sealed(PURPOSE, state_hash.as_bytes(), &attempt.sealed)
        .and_then(|plain| String::from_utf8(plain).ok())
        .ok_or_else(stale)?;
    let granted = app
        .google
        .endpoint()
        .exchange_code(brought.code, &verifier, &redirect_uri(app))
        .await
        .map_err(exchange_error)?;
    let (refresh_token, account) = look_at(app, granted).await?;
    let now = app.clock.now();
    let sealed = access::seal(app, tenant_id, &refresh_token);
    let mut write = app.db.write(tenant_id).await?;
    let before = store::find(&mut write, tenant_id).await?;
    let connection = store::put(&mut write, tenant_id, &account, &sealed, now).await?;
    let describe = |account: &str| json!({ "provider": store::PROVIDER, "account": account });
    let change = Change {
        action: "connection.create",
        object_kind: "connection",
        object_id: connection.id.to_string(),
        before: before.as_ref().map(|before| describe(&before.account)),
        after: Some(describe(&account)),
    };
    let actor = (attempt.actor_kind.as_str(), attempt.actor_id.as_str());
    audit::record_as(&mut write, tenant_id, actor, origin, change, now).await?;
    write.commit().await?;
    // Giving a consent of the same account back would end the new one too: Google knows one for each account.
    if let Some(before) = before.filter(|before| before.account != account)
        && let Some(old) = access::open_sealed(app, tenant_id, &before)
    {
        app.google.give_back(&old).await;
    }
    Ok(connection)
}

/// The person said no, or Google did: the attempt is over.
pub async fn refuse(app: &App, brought: Brought<'_>) -> Result<()> {
    take_attempt(app, &brought).await.map(drop)
}

/// The attempt that `state` belongs to, which is used up by this, whatever comes of it.
async fn take_attempt(app: &App, brought: &Brought<'_>) -> Result<(TenantId, Attempt)> {
    let tenant_id: TenantId = brought
        .state
        .split_once('.')
        .and_then(|(tenant_id, _)| tenant_id.parse().ok())
        .ok_or_else(stale)?;
    let mut write = app.db.write(tenant_id).await?;
    let attempt = store::take_attempt(&mut write, tenant_id, &token_hash(brought.state)).await?;
    write.commit().await?;
    let attempt = attempt
        .filter(|attempt| attempt.expires_at > app.clock.now())
        .ok_or_else(stale)?;
    let is_same_browser = brought.browser_secret.is_some_and(|secret| {
        token_hash(secret)
            .as_bytes()
            .ct_eq(attempt.browser_hash.as_bytes())
            .into()
    });
    let is_same_caller = brought
        .caller
        .is_some_and(|caller| is_actor(caller, tenant_id, &attempt));
    if !is_same_browser && !is_same_caller {
        return Err(Error::Forbidden {
            code: "consent_of_another",
            message: "this consent was asked for in another browser: begin again, in this one".into(),
        });
    }
    if !still_stands(app, tenant_id, &attempt).await? {
        return Err(stale());
    }
    Ok((tenant_id, attempt))
}

fn is_actor(caller: &Caller, tenant_id: TenantId, attempt: &Attempt) -> bool {
    let (kind, id) = caller.actor.name();
    let is_same_session = match &caller.actor {
        Actor::Member { session_id, .. } => attempt.session_id == Some(*session_id),
        Actor::ApiKey { .. } | Actor::External { .. } => true,
    };
    caller.tenant_id == tenant_id
        && caller.actor.allows(Permission::Admin)
        && (kind, id.as_str()) == (attempt.actor_kind.as_str(), attempt.actor_id.as_str())
        && is_same_session
}

/// Whether the session or key that asked has not ended since.
async fn still_stands(app: &App, tenant_id: TenantId, attempt: &Attempt) -> Result<bool> {
    match (attempt.actor_kind.as_str(), attempt.session_id) {
        ("member", Some(session_id)) => match attempt.actor_id.parse() {
            Ok(member_id) => sessions::stands(app, tenant_id, member_id, session_id).await,
            Err(_) => Ok(false),
        },
        ("api_key", _) => match attempt.actor_id.parse() {
            Ok(key_id) => keys::stands(app, tenant_id, key_id).await,
            Err(_) => Ok(false),
        },
        _ => tenancy::is_active(app, tenant_id).await,
    }
}

/// What is lasting of what was granted, and whose account it opens.
async fn look_at(app: &App, granted: Granted) -> Result<(String, String)> {
    if !granted.scopes.iter().any(|scope| scope == TokenEndpoint::scope()) {
        return Err(Error::conflict(
            "drive_not_allowed",
            "the account was connected without leave to read Drive: begin again, and leave that permission ticked",
        ));
    }
    let refresh_token = granted.refresh_token.ok_or_else(|| {
        Error::conflict(
            "no_lasting_access",
            "Google gave access for an hour only: remove this application from the Google account's connections, and begin again",
        )
    })?;
    let grant = Grant::RefreshToken(refresh_token.clone());
    let tokens = Arc::new(AccessTokens::new(app.google.endpoint().clone(), grant));
    let account = app
        .google
        .drive_with(tokens)
        .account()
        .await
        .map_err(drive_error)?;
    Ok((refresh_token, account))
}

/// Where Google sends the browser back to: fixed by the configuration, and registered there.
fn redirect_uri(app: &App) -> String {
    let server = &app.config.server;
    let base = match server.public_url.trim_end_matches('/') {
        "" => format!("http://{}", server.listen),
        base => base.to_owned(),
    };
    format!("{base}/api/integrations/google/callback")
}

fn stale() -> Error {
    Error::conflict(
        "consent_stale",
        "this consent was used already, or took too long: begin again",
    )
}

fn exchange_error(error: TokenError) -> Error {
    match error {
        TokenError::Withdrawn => stale(),
        TokenError::Refused { reason } => Error::Upstream {
            code: "google_refused",
            message: format!("Google does not give access ({reason}): its operator looks at google.client_id, google.client_secret and the redirect address registered at Google").into(),
            source: None,
        },
        TokenError::Unavailable { .. } => unavailable(),
    }
}

fn drive_error(error: DriveError) -> Error {
    match error {
        DriveError::RateLimited { .. } | DriveError::Unavailable { .. } => unavailable(),
        error => Error::Upstream {
            code: "google_refused",
            message: error.to_string().into(),
            source: Some(error.into()),
        },
    }
}

fn unavailable() -> Error {
    Error::Unavailable {
        code: "google_unavailable",
        message: "Google does not answer; begin again shortly".into(),
        retry_after: std::time::Duration::from_secs(10),
        source: None,
    }
}
