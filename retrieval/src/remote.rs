//! A call to a model's server: tried until it succeeds, it is pointless or the time is up.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout_at};
use url::Url;

use crate::BoxError;

const ATTEMPTS: u32 = 3;
const FIRST_BACKOFF: Duration = Duration::from_millis(200);

/// Room for what a server says when it refuses.
const REFUSAL_BYTES: usize = 64 << 10;

/// Characters of a vendor's own explanation that are kept.
const REASON_CHARS: usize = 300;

/// One address of a server, with what it wants to know of us.
pub(crate) struct Endpoint {
    client: reqwest::Client,
    url: Url,
    headers: HeaderMap,
}

/// Why a call gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// Timeout, overload, rate limit: try again, after `retry_after` if the server said so.
    #[error("the server does not answer")]
    Unavailable {
        retry_after: Option<Duration>,
        #[source]
        source: BoxError,
    },
    /// The same call fails again.
    #[error("{reason}")]
    Refused { reason: String },
    /// The answer is larger than any that was asked for.
    #[error("{reason}")]
    Unreadable { reason: String },
}

#[derive(Deserialize)]
struct Failure {
    #[serde(alias = "detail", alias = "message")]
    error: FailureDetail,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum FailureDetail {
    Full { message: String },
    Short(String),
}

impl Endpoint {
    /// `path` below `base_url`. No request is sent yet; the error is a sentence for the operator.
    pub(crate) fn new(base_url: &Url, path: &str, api_key: Option<&str>) -> Result<Self, String> {
        let mut base_url = base_url.clone();
        if base_url.cannot_be_a_base() {
            return Err(format!("{base_url} is no address of a server"));
        }
        if !base_url.path().ends_with('/') {
            base_url.set_path(&format!("{}/", base_url.path()));
        }
        let url = base_url.join(path).map_err(|error| error.to_string())?;
        let mut headers =
            HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        if let Some(api_key) = api_key {
            let mut bearer = HeaderValue::try_from(format!("Bearer {api_key}"))
                .map_err(|_| "the API key has characters that no header may hold".to_owned())?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the operator configured this address, nobody else can name it"
        )]
        let builder = reqwest::Client::builder();
        let client = builder
            // A key goes to the server it was configured for and to no other.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { client, url, headers })
    }

    /// The body of the answer to `body`, of at most `limit` bytes.
    pub(crate) async fn post(
        &self,
        body: &[u8],
        limit: usize,
        deadline: Instant,
    ) -> Result<Vec<u8>, CallError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let error = match timeout_at(deadline, self.request(body.to_vec(), limit)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(elapsed) => return Err(CallError::unavailable(elapsed)),
            };
            let CallError::Unavailable { retry_after, .. } = &error else {
                return Err(error);
            };
            let pause = retry_after.unwrap_or_else(|| backoff(attempt, rand::random()));
            if attempt == ATTEMPTS || Instant::now() + pause >= deadline {
                return Err(error);
            }
            let host = self.url.host_str().unwrap_or_default();
            tracing::warn!(server.address = host, attempt, cause = %Cause(&error), "a call to a model is tried again");
            sleep(pause).await;
        }
    }

    async fn request(&self, body: Vec<u8>, limit: usize) -> Result<Vec<u8>, CallError> {
        let request = self
            .client
            .post(self.url.clone())
            .headers(self.headers.clone())
            .body(body);
        let response = request
            .send()
            .await
            .map_err(|error| CallError::unavailable(error.without_url()))?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        read_body(response, limit).await
    }
}

impl CallError {
    pub(crate) fn unavailable(source: impl Into<BoxError>) -> Self {
        Self::Unavailable {
            retry_after: None,
            source: source.into(),
        }
    }
}

/// The whole chain of an error, which its own words leave to its sources.
struct Cause<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Cause<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}", self.0)?;
        std::iter::successors(self.0.source(), |error| error.source())
            .try_for_each(|error| write!(formatter, ": {error}"))
    }
}

/// What a status other than success means for the caller.
async fn refusal(response: Response) -> CallError {
    let status = response.status();
    let retry_after = retry_after(response.headers());
    let may_pass = status.is_server_error()
        || [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::REQUEST_TIMEOUT,
            StatusCode::CONFLICT,
            // The model behind the server failed.
            StatusCode::FAILED_DEPENDENCY,
        ]
        .contains(&status);
    let explanation = match read_body(response, REFUSAL_BYTES).await {
        Ok(body) => explanation(&body),
        Err(_) => None,
    };
    let reason = match explanation {
        Some(explanation) => format!("{status}: {explanation}"),
        None => status.to_string(),
    };
    if may_pass {
        CallError::Unavailable {
            retry_after,
            source: reason.into(),
        }
    } else {
        CallError::Refused { reason }
    }
}

fn explanation(body: &[u8]) -> Option<String> {
    let failure: Failure = serde_json::from_slice(body).ok()?;
    let (FailureDetail::Full { message } | FailureDetail::Short(message)) = failure.error;
    Some(
        message
            .chars()
            .filter(|c| !c.is_control())
            .take(REASON_CHARS)
            .collect(),
    )
}

/// The pause a server asks for, in seconds; a date is left to our own backoff.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: f64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// Doubles with each attempt; `chance` in [0, 1) spreads those who failed together over the second half of the pause.
fn backoff(attempt: u32, chance: f64) -> Duration {
    FIRST_BACKOFF.mul_f64(f64::from(1 << (attempt - 1)) * (0.5 + chance / 2.0))
}

async fn read_body(mut response: Response, limit: usize) -> Result<Vec<u8>, CallError> {
    let too_big = || CallError::Unreadable {
        reason: format!("an answer of more than {limit} bytes"),
    };
    let announced = response.content_length().unwrap_or_default() as usize;
    if announced > limit {
        return Err(too_big());
    }
    let mut body = Vec::with_capacity(announced);
    while let Some(part) = response
        .chunk()
        .await
        .map_err(|error| CallError::unavailable(error.without_url()))?
    {
        if body.len() + part.len() > limit {
            return Err(too_big());
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_are_spread() {
        assert_eq!(backoff(1, 0.0), FIRST_BACKOFF / 2);
        assert_eq!(backoff(2, 0.0), FIRST_BACKOFF);
        assert!(backoff(1, 0.999) <= FIRST_BACKOFF);
    }

    #[test]
    fn a_vendors_explanation_is_kept_wherever_it_stands() {
        for body in [
            r#"{"error": {"message": "no such model"}}"#,
            r#"{"error": "no such model", "error_type": "Validation"}"#,
            r#"{"message": "no such model"}"#,
            r#"{"detail": "no such model"}"#,
        ] {
            assert_eq!(
                explanation(body.as_bytes()).as_deref(),
                Some("no such model"),
                "{body}"
            );
        }
        assert_eq!(explanation(b"<html>"), None);
    }
}
