//! When to try again, and what a refusal of the model's server means.

use std::time::Duration;

use chrono::DateTime;
use http::{HeaderMap, HeaderName, StatusCode, header};

use super::wire::Complaint;
use super::{BoxError, ProviderError};

/// The first pause; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause that nobody asked for.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// Retry-After above this is believed no further: it is a date in a wrong clock, or a way to say never.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

const QUOTA_WORDS: &[&str] = &[
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "insufficient_balance",
    "exceeded your current quota",
];

const CONTEXT_WORDS: &[&str] = &[
    "context_length_exceeded",
    "maximum context length",
    "context length",
    "context window",
    "context size",
    "prompt is too long",
    "too many tokens",
    "reduce the length",
];

const OVERLOAD_WORDS: &[&str] = &[
    "rate_limit",
    "rate limit",
    "overloaded",
    "server_error",
    "api_error",
    "timeout",
    "timed out",
    "unavailable",
    "try again",
];

/// The server answered with this status instead of an answer.
#[derive(Debug, thiserror::Error)]
#[error("the model's server answered {0}")]
struct AnsweredStatus(u16);

/// The server sent an error in place of an answer.
#[derive(Debug, thiserror::Error)]
#[error("the model's server sent an error event")]
struct AnsweredError;

/// What a response with an error status means for the caller.
pub(super) fn of_response(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ProviderError {
    of_complaint(
        Some(status.as_u16()),
        retry_after(headers),
        &Complaint::from_body(body),
    )
}

/// What an `error` object in place of an answer means for the caller.
pub(super) fn of_error_event(error: &serde_json::Value) -> ProviderError {
    let complaint = Complaint::from_error(error);
    of_complaint(complaint.status, None, &complaint)
}

fn of_complaint(status: Option<u16>, retry_after: Option<Duration>, complaint: &Complaint) -> ProviderError {
    if status == Some(402) || complaint.says(QUOTA_WORDS) {
        return ProviderError::QuotaExhausted;
    }
    if matches!(status, None | Some(400 | 413 | 422)) && complaint.says(CONTEXT_WORDS) {
        return ProviderError::ContextTooLong;
    }
    let reason = match status {
        Some(status @ (408 | 409 | 429 | 500 | 502 | 503 | 504 | 529)) => {
            return unavailable(AnsweredStatus(status), retry_after);
        }
        None if complaint.says(OVERLOAD_WORDS) => return unavailable(AnsweredError, retry_after),
        None => "it sent an error instead of an answer".into(),
        Some(401) => "it does not accept the API key (status 401)".into(),
        Some(403) => "it does not allow this (status 403)".into(),
        Some(404) => "it knows no such model or address (status 404)".into(),
        Some(status) => format!("it does not accept the request (status {status})").into(),
    };
    ProviderError::Refused { reason }
}

/// A failure that may pass.
pub(super) fn unavailable(source: impl Into<BoxError>, retry_after: Option<Duration>) -> ProviderError {
    ProviderError::Unavailable {
        retry_after,
        source: source.into(),
    }
}

/// How long the server asks to wait: milliseconds, seconds, or a date, which is read against the response's own date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::trim)
    };
    let milliseconds = text(RETRY_AFTER_MS)
        .and_then(|text| text.parse::<f64>().ok())
        .map(|milliseconds| milliseconds / 1000.0);
    let seconds = milliseconds.or_else(|| {
        let value = text(header::RETRY_AFTER)?;
        value.parse::<f64>().ok().or_else(|| {
            let until = DateTime::parse_from_rfc2822(value).ok()?;
            let sent = DateTime::parse_from_rfc2822(text(header::DATE)?).ok()?;
            Some((until - sent).num_seconds() as f64)
        })
    })?;
    if seconds.is_nan() || seconds < 0.0 {
        return None;
    }
    Some(
        Duration::try_from_secs_f64(seconds)
            .unwrap_or(LONGEST_RETRY_AFTER)
            .min(LONGEST_RETRY_AFTER),
    )
}

/// The pause after failed try number `attempt` (from 1): what the server asked for, or exponential backoff; spread by
/// `jitter`, 0 to 1, so that callers who failed together do not come back together.
pub(super) fn pause(attempt: u32, asked: Option<Duration>, jitter: f64) -> Duration {
    let backoff = FIRST_PAUSE
        .saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)))
        .min(LONGEST_PAUSE);
    match asked {
        Some(asked) => asked + FIRST_PAUSE.mul_f64(jitter.clamp(0.0, 1.0)),
        None => backoff.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[(&'static str, &'static str)]) -> HeaderMap {
        values
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    http::HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    fn code(status: u16, body: &str) -> &'static str {
        of_response(
            StatusCode::from_u16(status).expect("a status"),
            &HeaderMap::new(),
            body.as_bytes(),
        )
        .code()
    }

    #[test]
    fn a_status_and_its_body_say_what_the_caller_can_do() {
        for (status, body, expected) in [
            (
                429,
                r#"{"error":{"code":"rate_limit_exceeded"}}"#,
                "model_unavailable",
            ),
            (
                429,
                r#"{"error":{"code":"insufficient_quota"}}"#,
                "model_quota_exhausted",
            ),
            (402, "", "model_quota_exhausted"),
            (
                400,
                r#"{"error":{"code":"context_length_exceeded"}}"#,
                "context_too_long",
            ),
            (
                400,
                r#"{"detail":"maximum context length is 4096 tokens"}"#,
                "context_too_long",
            ),
            (400, r#"{"error":{"message":"bad temperature"}}"#, "model_refused"),
            (401, "", "model_refused"),
            (404, "<html>", "model_refused"),
            (302, "", "model_refused"),
            (500, "oops", "model_unavailable"),
            (503, "", "model_unavailable"),
            (408, "", "model_unavailable"),
            (409, "", "model_unavailable"),
        ] {
            assert_eq!(code(status, body), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_refusal_shows_nothing_that_the_server_said() {
        let error = of_response(
            StatusCode::BAD_REQUEST,
            &HeaderMap::new(),
            br#"{"error":{"message":"key sk-secret of acme is odd"}}"#,
        );

        assert!(!format!("{error} {error:?}").contains("secret"));
    }

    #[test]
    fn an_error_event_is_judged_by_its_words_or_its_own_status() {
        let code = |error: serde_json::Value| of_error_event(&error).code();

        assert_eq!(
            code(serde_json::json!({ "type": "server_error", "message": "x" })),
            "model_unavailable"
        );
        assert_eq!(
            code(serde_json::json!({ "code": 429, "message": "x" })),
            "model_unavailable"
        );
        assert_eq!(
            code(serde_json::json!("model is overloaded")),
            "model_unavailable"
        );
        assert_eq!(
            code(serde_json::json!({ "message": "no such thing" })),
            "model_refused"
        );
    }

    #[test]
    fn retry_after_is_read_as_seconds_milliseconds_or_a_date() {
        assert_eq!(
            retry_after(&headers(&[("retry-after", "2")])),
            Some(Duration::from_secs(2))
        );
        assert_eq!(
            retry_after(&headers(&[("retry-after", "7"), ("retry-after-ms", "1500")])),
            Some(Duration::from_millis(1500))
        );
        let date = [
            ("date", "Fri, 20 Nov 2026 11:00:00 GMT"),
            ("retry-after", "Fri, 20 Nov 2026 11:00:30 GMT"),
        ];
        assert_eq!(retry_after(&headers(&date)), Some(Duration::from_secs(30)));
        for nonsense in ["soon", "-3", "NaN", ""] {
            assert_eq!(
                retry_after(&headers(&[("retry-after", nonsense)])),
                None,
                "{nonsense:?}"
            );
        }
        assert_eq!(
            retry_after(&headers(&[("retry-after", "inf")])),
            Some(LONGEST_RETRY_AFTER)
        );
    }

    #[test]
    fn pauses_grow_to_a_limit_and_are_never_shorter_than_the_server_asked() {
        assert_eq!(pause(1, None, 1.0), FIRST_PAUSE);
        assert_eq!(pause(2, None, 0.0), FIRST_PAUSE);
        assert_eq!(pause(40, None, 1.0), LONGEST_PAUSE);
        for jitter in [0.0, 0.5, 1.0] {
            let asked = Duration::from_secs(3);
            assert!((asked..asked + Duration::from_secs(1)).contains(&pause(1, Some(asked), jitter)));
        }
    }
}
