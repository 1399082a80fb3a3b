//! Tokens of another issuer (Supabase, say): one configured algorithm, one key or key set, checked claims.
//!
//! The issuer is trusted with who someone is and which tenant they belong to (`app_metadata.tenant_id`); what they
//! may do is a role that the token names, or the configured default; what restricted documents they may be answered from,
//! the access groups that it names (`app_metadata.groups`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

use super::role::Role;
use crate::app::App;
use crate::config::Jwt;
use crate::error::{Error, Result};
use crate::http::access::{self, Actor, Caller};
use crate::id::TenantId;

/// A key set is fetched again after this time, so that withdrawn keys end.
const KEY_SET_AGE: TimeDelta = TimeDelta::minutes(10);

/// A key set that cannot be fetched again holds for this time at most.
const KEY_SET_LIMIT: TimeDelta = TimeDelta::hours(1);

/// A token with an unknown key id fetches the set again, but not more often than this.
const REFETCH_AFTER: TimeDelta = TimeDelta::seconds(30);

/// Longest name of a person, in characters: it goes into every audit line.
const MAX_SUBJECT_CHARS: usize = 255;

/// Largest key set.
const MAX_KEY_SET_BYTES: usize = 256 * 1024;

#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    exp: i64,
    nbf: Option<i64>,
    role: Option<String>,
    #[serde(default)]
    app_metadata: AppMetadata,
}

#[derive(Debug, Default, Deserialize)]
struct AppMetadata {
    tenant_id: Option<TenantId>,
    role: Option<String>,
    /// Access groups of the person.
    #[serde(default)]
    groups: Vec<String>,
}

/// Checks tokens of the configured issuer.
pub struct ForeignTokens {
    algorithm: Algorithm,
    fixed_key: Option<DecodingKey>,
    key_set: Mutex<KeySet>,
    /// Held by the one caller that fetches the set.
    fetching: tokio::sync::Mutex<()>,
    client: reqwest::Client,
}

#[derive(Default)]
struct KeySet {
    keys: HashMap<String, Arc<DecodingKey>>,
    /// When the keys came.
    fetched_at: Option<DateTime<Utc>>,
    /// When the issuer was last asked, whether or not it answered.
    tried_at: Option<DateTime<Utc>>,
}

impl KeySet {
    fn is_younger_than(&self, age: TimeDelta, now: DateTime<Utc>) -> bool {
        self.fetched_at.is_some_and(|fetched_at| now - fetched_at <= age)
    }

    /// The key with this id, unless the set is older than `age`.
    fn find(&self, key_id: &str, age: TimeDelta, now: DateTime<Utc>) -> Option<Arc<DecodingKey>> {
        let key = self.keys.get(key_id)?;
        self.is_younger_than(age, now).then(|| key.clone())
    }
}

impl ForeignTokens {
    /// For the configured issuer. `client` reaches addresses that the operator configured.
    pub fn new(config: &Jwt, client: reqwest::Client) -> Self {
        let algorithm = match config.algorithm.as_str() {
            "RS256" => Algorithm::RS256,
            "ES256" => Algorithm::ES256,
            _ => Algorithm::HS256,
        };
        let fixed_key = (algorithm == Algorithm::HS256 && !config.hs256_secret.is_empty())
            .then(|| DecodingKey::from_secret(config.hs256_secret.expose().as_bytes()));
        Self {
            algorithm,
            fixed_key,
            key_set: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
            client,
        }
    }

    /// The caller behind a token of the configured issuer.
    pub async fn authenticate(&self, app: &App, token: &str) -> Result<Caller> {
        let config = &app.config.auth.jwt;
        let now = app.clock.now();
        let header = jsonwebtoken::decode_header(token).map_err(|_| access::wrong())?;
        // We understand no extension, and a critical one must not be passed over (RFC 7515, 4.1.11).
        if header.alg != self.algorithm || header.crit.is_some() {
            return Err(access::wrong());
        }
        let key = match &self.fixed_key {
            Some(key) => Arc::new(key.clone()),
            None => {
                self.find_key(config, header.kid.as_deref().unwrap_or_default(), now)
                    .await?
            }
        };
        let mut validation = Validation::new(self.algorithm);
        validation.set_audience(&[&config.audience]);
        validation.set_issuer(&[&config.issuer]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Times are judged against our own clock, below.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &validation)
            .map_err(|_| access::wrong())?
            .claims;
        let leeway = i64::try_from(config.leeway_s).unwrap_or_default();
        let timely = claims.exp.saturating_add(leeway) > now.timestamp()
            && claims
                .nbf
                .is_none_or(|nbf| nbf.saturating_sub(leeway) <= now.timestamp());
        if !is_name(&claims.sub) {
            return Err(access::wrong());
        }
        let tenant_id = claims
            .app_metadata
            .tenant_id
            .filter(|_| timely)
            .ok_or_else(access::wrong)?;
        if !super::is_active(app, tenant_id).await? {
            return Err(access::wrong());
        }
        let named = claims
            .app_metadata
            .role
            .as_deref()
            .and_then(Role::parse)
            .or_else(|| claims.role.as_deref().and_then(Role::parse));
        let role = named
            .or_else(|| Role::parse(&config.default_role))
            .unwrap_or(Role::Viewer);
        Ok(Caller {
            tenant_id,
            actor: Actor::External {
                subject: claims.sub,
                role,
                groups: claims
                    .app_metadata
                    .groups
                    .iter()
                    .map(|name| super::composed(name))
                    .collect(),
            },
            chatbot_id: None,
        })
    }

    /// The key with this id. An issuer that does not answer for a while locks nobody out: its last key set holds on.
    async fn find_key(&self, config: &Jwt, key_id: &str, now: DateTime<Utc>) -> Result<Arc<DecodingKey>> {
        if let Some(key) = self.key_set().find(key_id, KEY_SET_AGE, now) {
            return Ok(key);
        }
        let is_first = match self.fetching.try_lock() {
            Ok(turn) => {
                self.refresh(config, now).await;
                drop(turn);
                true
            }
            Err(_) => false,
        };
        // While another caller waits for the issuer, a key that still holds is good enough for the rest.
        if let Some(key) = self.key_set().find(key_id, KEY_SET_LIMIT, now) {
            return Ok(key);
        }
        if !is_first {
            let _fetched = self.fetching.lock().await;
        }
        let key_set = self.key_set();
        match key_set.find(key_id, KEY_SET_LIMIT, now) {
            Some(key) => Ok(key),
            None if key_set.is_younger_than(KEY_SET_AGE, now) => Err(access::wrong()),
            None => Err(Error::Unavailable {
                code: "issuer_unavailable",
                message: "the keys of the token's issuer cannot be fetched; try again shortly".into(),
                retry_after: Duration::from_secs(30),
                source: None,
            }),
        }
    }

    fn key_set(&self) -> MutexGuard<'_, KeySet> {
        self.key_set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches the set, unless that was tried a moment ago.
    async fn refresh(&self, config: &Jwt, now: DateTime<Utc>) {
        {
            let mut key_set = self.key_set();
            if key_set
                .tried_at
                .is_some_and(|tried_at| now - tried_at <= REFETCH_AFTER)
            {
                return;
            }
            // Noted before the attempt, so that an issuer that is down is not asked at each request.
            key_set.tried_at = Some(now);
        }
        match self.fetch(config).await {
            Ok(keys) => {
                let mut key_set = self.key_set();
                key_set.keys = keys;
                key_set.fetched_at = Some(now);
            }
            Err(error) => {
                tracing::error!(error = %error, "cannot fetch the key set of auth.jwt.jwks_url")
            }
        }
    }

    async fn fetch(&self, config: &Jwt) -> std::result::Result<HashMap<String, Arc<DecodingKey>>, String> {
        let mut response = self
            .client
            .get(&config.jwks_url)
            .timeout(Duration::from_secs(10))
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(|error| error.to_string())?;
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|error| error.to_string())? {
            if body.len() + part.len() > MAX_KEY_SET_BYTES {
                return Err("the key set is too large".to_owned());
            }
            body.extend_from_slice(&part);
        }
        let set: JwkSet = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        let usable = set.keys.iter().filter_map(|jwk| {
            Some((
                jwk.common.key_id.clone().unwrap_or_default(),
                Arc::new(DecodingKey::from_jwk(jwk).ok()?),
            ))
        });
        Ok(usable.collect())
    }
}

/// Whether a subject can name someone in the audit log.
fn is_name(subject: &str) -> bool {
    !subject.is_empty()
        && subject.chars().count() <= MAX_SUBJECT_CHARS
        && !subject.chars().any(char::is_control)
}
