//! Access tokens of Google: traded for at the configured token endpoint, kept until shortly before they end.

use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;

use super::retry;
use super::service_account::{SCOPE, ServiceAccountKey};

/// A token is not used in its last minute: the request still has to get there.
const SPARE_S: i64 = 60;

/// What a token without a stated end is believed for.
const DEFAULT_LIFE_S: i64 = 300;

/// Tries of one trade.
const ATTEMPTS: u32 = 3;

/// One answer of the endpoint may take this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Largest answer of the endpoint.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Tells the time in seconds since 1970.
pub type Now = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The operator's token endpoint, with what this installation is known by there.
pub struct TokenEndpoint {
    client: reqwest::Client,
    url: Url,
    client_id: String,
    client_secret: String,
    now: Now,
    first_pause: Duration,
}

/// What access is traded for.
pub enum Grant {
    /// A service account's signature.
    ServiceAccount(Box<ServiceAccountKey>),
    /// What a person's consent left us with.
    RefreshToken(String),
}

/// What a person's consent was traded for.
pub struct Granted {
    pub access_token: String,
    /// Opens the account until it is withdrawn: seal it.
    pub refresh_token: Option<String>,
    /// What was allowed, which may be less than was asked for.
    pub scopes: Vec<String>,
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The consent, the key or the code is no longer accepted (`invalid_grant`).
    #[error("Google no longer accepts this access")]
    Withdrawn,
    /// The endpoint accepts neither this nor the next try; `reason` is its own word for why.
    #[error("Google does not give access ({reason})")]
    Refused { reason: String },
    /// It does not answer.
    #[error("Google does not answer ({reason})")]
    Unavailable { reason: String },
}

#[derive(Deserialize)]
struct WireToken {
    access_token: String,
    expires_in: Option<i64>,
    refresh_token: Option<String>,
    #[serde(default)]
    scope: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireTokenError {
    error: String,
}

impl TokenEndpoint {
    /// `client` reaches addresses that the operator configured. `client_id` and `client_secret` are empty where no
    /// consent is asked for; service accounts need none.
    pub fn new(
        client: reqwest::Client,
        url: Url,
        client_id: String,
        client_secret: String,
        now: Now,
    ) -> Self {
        Self {
            client,
            url,
            client_id,
            client_secret,
            now,
            first_pause: Duration::from_millis(500),
        }
    }

    /// The first pause after a failure that may pass; each further one is twice as long.
    #[must_use]
    pub fn with_first_pause(mut self, first_pause: Duration) -> Self {
        self.first_pause = first_pause;
        self
    }

    /// What is asked for: reading Drive.
    pub fn scope() -> &'static str {
        SCOPE
    }

    /// Trades the code of a person's consent. A code works once, so nothing is tried twice.
    pub async fn exchange_code(
        &self,
        code: &str,
        code_verifier: &str,
        redirect_uri: &str,
    ) -> Result<Granted, TokenError> {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("code_verifier", code_verifier),
            ("redirect_uri", redirect_uri),
            ("client_id", &self.client_id),
            ("client_secret", &self.client_secret),
        ];
        let token = self
            .post(&self.url, &form)
            .await
            .map_err(|failure| failure.error)?;
        let token = read_token(&token)?;
        Ok(Granted {
            scopes: token.scope.split_ascii_whitespace().map(str::to_owned).collect(),
            access_token: token.access_token,
            refresh_token: token.refresh_token,
        })
    }

    /// Ends a consent at Google; one that has ended already is fine.
    pub async fn revoke(&self, refresh_token: &str) -> Result<(), TokenError> {
        let url = self.url.join("revoke").map_err(|error| TokenError::Refused {
            reason: error.to_string(),
        })?;
        match self.post_again(&url, &[("token", refresh_token)]).await {
            Ok(_) => Ok(()),
            Err(TokenError::Withdrawn) => Ok(()),
            Err(TokenError::Refused { reason }) if reason == "invalid_token" => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A fresh access token with the second in which it ends.
    async fn trade(&self, grant: &Grant) -> Result<(String, i64), TokenError> {
        let now = (self.now)();
        let assertion;
        let form: Vec<(&str, &str)> = match grant {
            Grant::ServiceAccount(key) => {
                assertion = key.assertion(self.url.as_str(), now);
                vec![
                    ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
                    ("assertion", &assertion),
                ]
            }
            Grant::RefreshToken(refresh_token) => vec![
                ("grant_type", "refresh_token"),
                ("refresh_token", refresh_token),
                ("client_id", &self.client_id),
                ("client_secret", &self.client_secret),
            ],
        };
        let token = read_token(&self.post_again(&self.url, &form).await?)?;
        let life_s = token.expires_in.unwrap_or(DEFAULT_LIFE_S).max(0);
        Ok((token.access_token, now.saturating_add(life_s)))
    }

    /// Posts a form that may be sent twice, again while the endpoint does not answer.
    async fn post_again(&self, url: &Url, form: &[(&str, &str)]) -> Result<Vec<u8>, TokenError> {
        let mut attempt = 1;
        loop {
            match self.post(url, form).await {
                Err(failure) if failure.may_pass && attempt < ATTEMPTS => {
                    tokio::time::sleep(retry::pause(self.first_pause, attempt, failure.retry_after)).await;
                    attempt += 1;
                }
                outcome => return outcome.map_err(|failure| failure.error),
            }
        }
    }

    async fn post(&self, url: &Url, form: &[(&str, &str)]) -> Result<Vec<u8>, Failure> {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let response = self
            .client
            .post(url.clone())
            .header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .timeout(PATIENCE)
            .body(body)
            .send()
            .await
            .map_err(|error| Failure::passing(retry::describe(&error), None))?;
        let (status, retry_after) = (response.status(), retry::retry_after(response.headers()));
        let body = retry::read_body(response, MAX_ANSWER_BYTES)
            .await
            .map_err(|error| Failure::passing(format!("its answer breaks off: {error:?}"), None))?;
        if status.is_success() {
            return Ok(body);
        }
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Failure::passing(
                format!("status {}", status.as_u16()),
                retry_after,
            ));
        }
        let error = serde_json::from_slice::<WireTokenError>(&body)
            .unwrap_or_default()
            .error;
        Err(Failure {
            error: match error.as_str() {
                "invalid_grant" => TokenError::Withdrawn,
                _ => TokenError::Refused {
                    reason: retry::word(&error, status),
                },
            },
            may_pass: false,
            retry_after: None,
        })
    }
}

/// An attempt that failed.
struct Failure {
    error: TokenError,
    may_pass: bool,
    retry_after: Option<Duration>,
}

impl Failure {
    fn passing(reason: String, retry_after: Option<Duration>) -> Self {
        Self {
            error: TokenError::Unavailable { reason },
            may_pass: true,
            retry_after,
        }
    }
}

fn read_token(body: &[u8]) -> Result<WireToken, TokenError> {
    let token = serde_json::from_slice::<WireToken>(body).ok();
    token
        .filter(|token| {
            reqwest::header::HeaderValue::from_str(&token.access_token).is_ok()
                && !token.access_token.is_empty()
        })
        .ok_or_else(|| TokenError::Unavailable {
            reason: "its answer holds no token".to_owned(),
        })
}

/// The access tokens of one connection, shared by all that read through it.
pub struct AccessTokens {
    endpoint: Arc<TokenEndpoint>,
    grant: Grant,
    /// Held while a token is traded for, so that all who wait get the same one.
    present: Mutex<Option<Present>>,
}

struct Present {
    token: Arc<str>,
    ends_at: i64,
}

impl AccessTokens {
    /// Nothing is traded before a token is needed.
    pub fn new(endpoint: Arc<TokenEndpoint>, grant: Grant) -> Self {
        Self {
            endpoint,
            grant,
            present: Mutex::new(None),
        }
    }

    /// A token that holds for at least a minute.
    pub async fn get(&self) -> Result<Arc<str>, TokenError> {
        let mut present = self.present.lock().await;
        let now = (self.endpoint.now)();
        if let Some(present) = present.as_ref().filter(|present| present.ends_at - SPARE_S > now) {
            return Ok(present.token.clone());
        }
        *present = None;
        let (token, ends_at) = self.endpoint.trade(&self.grant).await?;
        let token: Arc<str> = token.into();
        *present = Some(Present {
            token: token.clone(),
            ends_at,
        });
        Ok(token)
    }

    /// Drive did not accept this token: the next one is a fresh one. One that was replaced meanwhile stays.
    pub async fn forget(&self, refused: &str) {
        let mut present = self.present.lock().await;
        if present.as_ref().is_some_and(|present| &*present.token == refused) {
            *present = None;
        }
    }
}
