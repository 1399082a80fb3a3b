//! What a refusal of Google means, and how long to wait before asking again.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::error::DriveError;
use super::wire::WireRefusal;

/// The longest pause within one request; whoever waits longer gives its worker to others.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(32);

/// A Retry-After above this is believed no further.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// How long to leave an account alone that asks too often after all pauses.
const RATE_LIMIT_REST: Duration = Duration::from_secs(120);

/// A day's quota is over: it comes back at midnight, somewhere.
const DAILY_LIMIT_REST: Duration = Duration::from_secs(3600);

/// Longest word of Google's that is shown.
const MAX_WORD_CHARS: usize = 60;

/// What a failed attempt calls for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Ask again after a pause; when that does not help, it ends in this error.
    Again {
        retry_after: Option<Duration>,
        error: DriveError,
    },
    /// The access token is not accepted: get another one, once.
    NewToken,
    /// It ends here.
    End(DriveError),
}

/// What an answer with an error status means.
pub(super) fn judge(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Verdict {
    let refusal = serde_json::from_slice::<WireRefusal>(body)
        .unwrap_or_default()
        .error;
    let first = refusal.errors.first();
    let reason = first.map_or("", |first| first.reason.as_str());
    let asked = retry_after(headers);
    let limited = |rest: Duration| Verdict::Again {
        retry_after: asked,
        error: DriveError::RateLimited {
            retry_after: asked.unwrap_or(rest),
        },
    };
    match (status.as_u16(), reason) {
        (401, _) => Verdict::NewToken,
        (403, "rateLimitExceeded" | "userRateLimitExceeded" | "sharingRateLimitExceeded") | (429, _) => {
            limited(RATE_LIMIT_REST)
        }
        (403, "dailyLimitExceeded" | "quotaExceeded") => Verdict::End(DriveError::RateLimited {
            retry_after: asked.unwrap_or(DAILY_LIMIT_REST),
        }),
        (403, "exportSizeLimitExceeded") => Verdict::End(DriveError::ExportTooLarge),
        (
            403,
            "accessNotConfigured"
            | "insufficientPermissions"
            | "insufficientScopes"
            | "domainPolicy"
            | "authError",
        ) => Verdict::End(DriveError::AccessRefused {
            reason: reason.to_owned(),
        }),
        (403, _) => Verdict::End(DriveError::NotDownloadable {
            reason: word(reason, status),
        }),
        (404, _) => Verdict::End(DriveError::NotFound),
        (410, _) => Verdict::End(DriveError::PageTokenExpired),
        (400, _) if first.is_some_and(|first| first.location == "pageToken") => {
            Verdict::End(DriveError::PageTokenExpired)
        }
        (408 | 500..=599, _) => Verdict::Again {
            retry_after: asked,
            error: DriveError::Unavailable {
                reason: format!("status {}", status.as_u16()),
            },
        },
        (status_code, _) => Verdict::End(DriveError::Rejected {
            status: status_code,
            reason: word(reason, status),
        }),
    }
}

/// Google's own word for a reason, where it is one; what else it says is not for showing.
pub(super) fn word(reason: &str, status: StatusCode) -> String {
    let is_word = !reason.is_empty()
        && reason.len() <= MAX_WORD_CHARS
        && reason
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_word {
        reason.to_owned()
    } else {
        format!("status {}", status.as_u16())
    }
}

/// What went wrong with a connection, without the address.
pub(super) fn describe(error: &reqwest::Error) -> String {
    let what = if error.is_timeout() {
        "it took too long"
    } else if error.is_connect() {
        "it cannot be reached"
    } else {
        "the connection broke"
    };
    what.to_owned()
}

/// How long the server asks to wait, in seconds; Google sends no dates.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse::<u64>()
        .ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER))
}

/// The pause after failed try number `attempt` (from 1): what the server asked for, or exponential backoff, both spread
/// so that those who failed together do not come back together.
pub(super) fn pause(first: Duration, attempt: u32, asked: Option<Duration>) -> Duration {
    let jitter = f64::from(rand::random::<f32>());
    match asked {
        Some(asked) => asked + first.mul_f64(jitter),
        None => first
            .saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)))
            .min(LONGEST_PAUSE)
            .mul_f64(0.5 + jitter / 2.0),
    }
}

/// Why a body could not be read.
#[derive(Debug)]
pub(super) enum BodyError {
    TooLong,
    Broken(String),
}

/// A body of at most `limit_bytes`.
pub(super) async fn read_body(
    mut response: reqwest::Response,
    limit_bytes: usize,
) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    loop {
        let part = response
            .chunk()
            .await
            .map_err(|error| BodyError::Broken(describe(&error)))?;
        let Some(part) = part else { return Ok(body) };
        if body.len() + part.len() > limit_bytes {
            return Err(BodyError::TooLong);
        }
        body.extend_from_slice(&part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, reason: &str, location: &str) -> Verdict {
        let body = serde_json::json!({
            "error": { "code": status, "message": "…", "errors": [{ "reason": reason, "location": location }] },
        });
        judge(
            StatusCode::from_u16(status).expect("a status"),
            &HeaderMap::new(),
            body.to_string().as_bytes(),
        )
    }

    #[test]
    fn a_403_is_a_matter_of_its_reason() {
        for reason in ["rateLimitExceeded", "userRateLimitExceeded"] {
            assert!(matches!(
                refused(403, reason, ""),
                Verdict::Again {
                    error: DriveError::RateLimited { .. },
                    ..
                }
            ));
        }
        assert_eq!(
            refused(403, "exportSizeLimitExceeded", ""),
            Verdict::End(DriveError::ExportTooLarge)
        );
        assert!(matches!(
            refused(403, "accessNotConfigured", ""),
            Verdict::End(DriveError::AccessRefused { .. })
        ));
        assert!(matches!(
            refused(403, "insufficientFilePermissions", ""),
            Verdict::End(DriveError::NotDownloadable { .. })
        ));
    }

    #[test]
    fn a_refused_page_token_is_told_from_a_refused_request() {
        assert_eq!(
            refused(410, "updateRequired", ""),
            Verdict::End(DriveError::PageTokenExpired)
        );
        assert_eq!(
            refused(400, "invalid", "pageToken"),
            Verdict::End(DriveError::PageTokenExpired)
        );
        assert!(matches!(
            refused(400, "invalid", "q"),
            Verdict::End(DriveError::Rejected { status: 400, .. })
        ));
    }

    #[test]
    fn what_google_says_in_sentences_is_not_shown() {
        let body = br#"{"error":{"errors":[{"reason":"the file of bob@example.com is secret"}]}}"#;
        let verdict = judge(StatusCode::BAD_REQUEST, &HeaderMap::new(), body);

        assert!(!format!("{verdict:?}").contains("bob"), "{verdict:?}");
    }

    #[test]
    fn pauses_grow_to_a_limit_and_are_never_shorter_than_asked() {
        let first = Duration::from_secs(1);
        for _ in 0..50 {
            assert!(pause(first, 1, None) <= first);
            assert!(pause(first, 60, None) <= LONGEST_PAUSE);
            assert!(pause(first, 3, None) >= Duration::from_secs(2));
            assert!(pause(first, 1, Some(Duration::from_secs(9))) >= Duration::from_secs(9));
        }
    }
}
