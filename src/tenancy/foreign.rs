//! Tokens of another issuer (Supabase, say): one configured algorithm, one key or key set, checked claims.
//!
//! The issuer is trusted with who someone is and which tenant they belong to (`app_metadata.tenant_id`); what they
//! may do is a role that the token names, or the configured default.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use tokio::sync::Mutex;

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
}

/// Checks tokens of the configured issuer.
pub struct ForeignTokens {
    algorithm: Algorithm,
    fixed_key: Option<DecodingKey>,
    key_set: Mutex<KeySet>,
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
            client,
        }
    }

    /// The caller behind a token of the configured issuer.
    pub async fn authenticate(&self, app: &App, token: &str) -> Result<Caller> {
        let config = &app.config.auth.jwt;
        let now = app.clock.now();
        let header = jsonwebtoken::decode_header(token).map_err(|_| access::wrong())?;
        if header.alg != self.algorithm {
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
            },
            chatbot_id: None,
        })
    }

    /// The key with this id. An issuer that does not answer for a while locks nobody out: its last key set holds on.
    async fn find_key(&self, config: &Jwt, key_id: &str, now: DateTime<Utc>) -> Result<Arc<DecodingKey>> {
        let mut key_set = self.key_set.lock().await;
        if key_set.is_younger_than(KEY_SET_AGE, now)
            && let Some(key) = key_set.keys.get(key_id)
        {
            return Ok(key.clone());
        }
        if key_set
            .tried_at
            .is_none_or(|tried_at| now - tried_at > REFETCH_AFTER)
        {
            // Noted before the attempt, so that an issuer that is down is not asked at each request.
            key_set.tried_at = Some(now);
            match self.fetch(config).await {
                Ok(keys) => {
                    key_set.keys = keys;
                    key_set.fetched_at = Some(now);
                }
                Err(error) => {
                    tracing::error!(error = %error, "cannot fetch the key set of auth.jwt.jwks_url")
                }
            }
        }
        match key_set.keys.get(key_id) {
            Some(key) if key_set.is_younger_than(KEY_SET_LIMIT, now) => Ok(key.clone()),
            None if key_set.is_younger_than(KEY_SET_AGE, now) => Err(access::wrong()),
            _ => Err(Error::Unavailable {
                code: "issuer_unavailable",
                message: "the keys of the token's issuer cannot be fetched; try again shortly".into(),
                retry_after: Duration::from_secs(30),
                source: None,
            }),
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
