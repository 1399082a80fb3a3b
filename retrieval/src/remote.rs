//! A call to a model's server: tried until it succeeds, it is pointless or the time is up. What the server says to a refusal goes
//! to the log alone: errors hold its status and words of ours, so that they may be shown to anybody.

mod words;

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use tokio::time::{Instant, sleep, timeout_at};
use url::Url;

use crate::BoxError;

const ATTEMPTS: u32 = 3;

/// A server that takes no connection in this time is not there: nothing was asked of it, and nothing is owed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

const FIRST_BACKOFF: Duration = Duration::from_millis(200);

/// Room for what a server says when it refuses.
const REFUSAL_BYTES: usize = 64 << 10;

/// A pause above this is believed no further: it is a date in a wrong clock, or a way to say never.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// More tokens, or searches, than any call can take. A figure above it is none.
const MOST_BILLED: u64 = 1 << 40;

/// One address of a server, with what it wants to know of us.
pub(crate) struct Endpoint {
    client: reqwest::Client,
    url: Url,
    headers: HeaderMap,
    /// Part of the headers; kept so that no answer carries it into the log.
    api_key: Option<String>,
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
    /// The time was up while it worked on the call: what it did by then may have to be paid.
    #[error("the server did not answer in time")]
    TimedOut,
    /// Who asks, or where, is at fault: a wrong key, nothing left of what was paid for, an unknown model or address. Every call
    /// fails until somebody changes that.
    #[error("{reason}")]
    Denied { reason: String },
    /// What was sent is at fault: the same call fails again.
    #[error("{reason}")]
    Refused { reason: String },
    /// The answer is larger than any that was asked for.
    #[error("{reason}")]
    Unreadable { reason: String },
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
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            client,
            url,
            headers,
            api_key: api_key.map(str::to_owned),
        })
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
            let error = match timeout_at(deadline, self.request(body, limit)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(_) => return Err(CallError::TimedOut),
            };
            let CallError::Unavailable { retry_after, .. } = &error else {
                return Err(error);
            };
            let pause = retry_after.unwrap_or_else(|| backoff(attempt, rand::random()));
            if attempt == ATTEMPTS || Instant::now() + pause >= deadline {
                return Err(error);
            }
            tracing::warn!(server.address = self.host(), attempt, cause = %Cause(&error), "a call to a model is tried again");
            sleep(pause).await;
        }
    }

    async fn request(&self, body: &[u8], limit: usize) -> Result<Vec<u8>, CallError> {
        let request = self
            .client
            .post(self.url.clone())
            .headers(self.headers.clone())
            .body(body.to_vec());
        let response = request
            .send()
            .await
            .map_err(|error| CallError::unavailable(error.without_url()))?;
        if !response.status().is_success() {
            return Err(self.refusal(response, body).await);
        }
        read_body(response, limit).await
    }

    /// What a status other than success means for the caller. The server's own words are logged.
    async fn refusal(&self, response: Response, sent: &[u8]) -> CallError {
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let answer = read_body(response, REFUSAL_BYTES).await.unwrap_or_default();
        if let Some(told) = words::for_log(&answer, sent, self.api_key.as_deref()) {
            tracing::warn!(
                server.address = self.host(),
                status = status.as_u16(),
                told,
                "a model's server refused a call"
            );
        }
        of_status(status, retry_after)
    }

    fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
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

fn of_status(status: StatusCode, retry_after: Option<Duration>) -> CallError {
    let code = status.as_u16();
    let words = match code {
        401 => "it does not accept the API key",
        402 => "the account there has nothing left",
        403 => "it does not allow this",
        404 => "it knows no such model or address",
        _ => "it does not accept the request",
    };
    let reason = format!("{words} (status {code})");
    match code {
        // 424: the model behind the server failed.
        408 | 409 | 424 | 429 | 500.. => CallError::Unavailable {
            retry_after,
            source: status.to_string().into(),
        },
        300..=399 | 401 | 402 | 404 => CallError::Denied { reason },
        // 403, 451: who asks may be nobody, or a filter may mind what was sent.
        _ => CallError::Refused { reason },
    }
}

/// The pause a server asks for: seconds, or a date, which is read against the answer's own date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let asked = text(RETRY_AFTER)?;
    let seconds = match asked.parse::<f64>() {
        Ok(seconds) => seconds,
        Err(_) => seconds_of(asked)? - seconds_of(text(DATE)?)?,
    };
    let is_told = seconds.is_finite() && seconds >= 0.0;
    is_told.then(|| Duration::from_secs_f64(seconds.min(LONGEST_RETRY_AFTER.as_secs_f64())))
}

/// A date of HTTP (RFC 9110, 5.6.7) in its usual form, as seconds since 1970: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn seconds_of(date: &str) -> Option<f64> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let parts: Vec<&str> = date.split([' ', ':']).collect();
    let [_, day, month, year, hour, minute, second, "GMT"] = parts[..] else {
        return None;
    };
    let number = |text: &str| text.parse::<u16>().ok().map(i64::from);
    let month = (month.len() == 3).then(|| MONTHS.find(month)).flatten()?;
    let (month, year) = ((month / 3) as i64 + 1, number(year)?);
    // Days since 1970 of a proleptic Gregorian date (Hinnant, "chrono-compatible low-level date algorithms").
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + number(day)? - 1;
    let year_of_era = year - era * 400;
    let days =
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    Some((((days * 24 + number(hour)?) * 60 + number(minute)?) * 60 + number(second)?) as f64)
}

/// What a server says that a call took, if it can be true.
pub(crate) fn believable(told: Option<u64>) -> Option<u64> {
    told.filter(|told| *told <= MOST_BILLED)
}

/// Why an answer cannot be read, without what stands in it.
pub(crate) fn unreadable(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    format!("the answer is not what was asked for (line {line}, column {column})")
}

/// An address as it may be shown: without a name and a password for its server.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Neither fails for an address that has a host, and without one there is no password.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
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
    fn a_pause_is_told_in_seconds_or_by_a_date() {
        let sent = "Sun, 06 Nov 1994 08:49:37 GMT";
        for (asked, pause) in [
            ("0", Some(0.0)),
            (" 1.5 ", Some(1.5)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30.0)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", None),
            ("Tue, 29 Feb 2028 00:00:00 GMT", Some(86_400.0)),
            ("1e300", Some(86_400.0)),
            ("-3", None),
            ("NaN", None),
            ("soon", None),
            ("Sun, 99999999 Nov 1994 08:50:07 GMT", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(DATE, HeaderValue::from_static(sent));
            headers.insert(RETRY_AFTER, HeaderValue::from_static(asked));
            assert_eq!(
                retry_after(&headers),
                pause.map(Duration::from_secs_f64),
                "{asked}"
            );
        }
        assert_eq!(seconds_of(sent), Some(784_111_777.0));
        assert_eq!(seconds_of("Tue, 29 Feb 2028 00:00:00 GMT"), Some(1_835_395_200.0));
    }

    #[test]
    fn an_address_is_shown_without_its_password() {
        let url = Url::parse("https://me:secret@example.com:8443/v1?x=1").expect("an address");

        assert_eq!(shown(&url), "https://example.com:8443/v1?x=1");
    }
}
