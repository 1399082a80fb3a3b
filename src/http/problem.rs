//! The one table from errors to answers: status, stable `code`, title. Bodies are problem+json (RFC 9457).

use std::borrow::Cow;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::request_id;
use crate::error::Error;

/// What every refused request gets as its body, with content type `application/problem+json`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`: the code says what kind it is.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "about:blank")]
    kind: Kind,
    /// The status' own words.
    #[schema(value_type = String)]
    title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// Stable, snake_case: what programs look at.
    #[schema(value_type = String)]
    pub code: &'static str,
    /// A sentence that says what to do.
    #[schema(value_type = String)]
    pub detail: Cow<'static, str>,
    /// The request field at fault, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    field: Option<Box<str>>,
    /// Names this request in the logs.
    #[schema(value_type = String)]
    request_id: Box<str>,
    /// Seconds to wait before trying again, where that helps; the header `Retry-After` says the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

/// The `type` of RFC 9457.
#[derive(Clone, Copy, Debug, Serialize)]
enum Kind {
    #[serde(rename = "about:blank")]
    AboutBlank,
}

impl Problem {
    /// A problem with this status and code.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind: Kind::AboutBlank,
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code,
            detail: detail.into(),
            field: None,
            request_id: request_id::current().into(),
            retry_after: None,
        }
    }

    /// Names the request in an answer that is written after the request's own future has ended.
    #[must_use]
    pub fn with_request_id(mut self, request_id: &str) -> Self {
        self.request_id = request_id.into();
        self
    }

    fn with_field(mut self, field: Option<String>) -> Self {
        self.field = field.map(String::into_boxed_str);
        self
    }

    fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after.as_secs_f64().ceil().max(1.0) as u64);
        self
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        log(&error);
        match error {
            Error::NotFound(what) => Self::new(
                StatusCode::NOT_FOUND,
                "not_found",
                format!("there is no such {what}"),
            ),
            Error::Malformed { code, message } => Self::new(StatusCode::BAD_REQUEST, code, message),
            Error::Invalid { code, field, message } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message).with_field(field)
            }
            Error::Conflict { code, message } => Self::new(StatusCode::CONFLICT, code, message),
            Error::Unauthenticated { code, message } => Self::new(StatusCode::UNAUTHORIZED, code, message),
            Error::Forbidden { code, message } => Self::new(StatusCode::FORBIDDEN, code, message),
            Error::RateLimited { retry_after } => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limited",
                "too many requests: wait as long as Retry-After says",
            )
            .with_retry_after(retry_after),
            Error::BudgetExceeded { code, message } => Self::new(StatusCode::PAYMENT_REQUIRED, code, message),
            Error::TooLarge { code, message } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, code, message),
            Error::UnsupportedType { code, message } => {
                Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, code, message)
            }
            Error::Unavailable {
                code,
                message,
                retry_after,
                ..
            } => Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message).with_retry_after(retry_after),
            Error::Upstream { code, message, .. } => Self::new(StatusCode::BAD_GATEWAY, code, message),
            Error::StorageFull => storage_full(),
            Error::Database(error) => match database_fault(&error) {
                DatabaseFault::Full => storage_full(),
                DatabaseFault::Outage => Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "database_unavailable",
                    "the database does not answer; try again shortly",
                )
                .with_retry_after(Duration::from_secs(2)),
                DatabaseFault::TooLong => Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "statement_timed_out",
                    "the database gave up on this, because it took too long: ask for less at once, or try again when less goes on",
                )
                .with_retry_after(Duration::from_secs(5)),
                DatabaseFault::Ours => internal(),
            },
            Error::Internal(_) => internal(),
        }
    }
}

fn storage_full() -> Problem {
    Problem::new(
        StatusCode::INSUFFICIENT_STORAGE,
        "storage_full",
        "the server has no space left to store this; tell its operator",
    )
}

fn internal() -> Problem {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        "something broke on our side; the request id names this failure in the logs",
    )
}

/// Failures are logged here, once, where they are answered. Causes stay in the log.
fn log(error: &Error) {
    match error {
        Error::Database(_) | Error::Internal(_) | Error::StorageFull => {
            tracing::error!(error = ?error, "request failed")
        }
        Error::Unavailable { .. } | Error::Upstream { .. } => {
            tracing::warn!(error = ?error, "request failed")
        }
        _ => {}
    }
}

/// What a failure of the database means to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DatabaseFault {
    /// It holds no more.
    Full,
    /// It does not answer, or not now.
    Outage,
    /// It cut a statement off that took longer than one may.
    TooLong,
    /// We asked for something wrong.
    Ours,
}

fn database_fault(error: &sqlx::Error) -> DatabaseFault {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Tls(_) => DatabaseFault::Outage,
        sqlx::Error::Database(error) => error
            .code()
            .map_or(DatabaseFault::Ours, |code| fault_of_code(&code)),
        _ => DatabaseFault::Ours,
    }
}

/// The fault behind an engine's own code: five characters on PostgreSQL, a number of at most four digits on SQLite.
fn fault_of_code(code: &str) -> DatabaseFault {
    if code.len() == 5 {
        return match (code, &code.as_bytes()[..2]) {
            ("53100", _) => DatabaseFault::Full,
            ("57014", _) => DatabaseFault::TooLong,
            // A serialization failure, a deadlock; connections, resources, the operator's intervention.
            ("40001" | "40P01", _) | (_, b"08" | b"53" | b"57") => DatabaseFault::Outage,
            _ => DatabaseFault::Ours,
        };
    }
    // The low byte is the kind, what is above it the detail.
    match code.parse::<u32>().map(|code| code & 0xff) {
        Ok(13) => DatabaseFault::Full,
        Ok(9) => DatabaseFault::TooLong,
        // Busy or locked past the wait limit; a disk that fails; a file that cannot be opened.
        Ok(5 | 6 | 10 | 14) => DatabaseFault::Outage,
        _ => DatabaseFault::Ours,
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response =
            (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if let Some(retry_after) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(retry_after));
        }
        if status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_of_either_engine_tells_a_full_disk_from_an_outage_and_from_a_bug() {
        for (code, fault) in [
            ("13", DatabaseFault::Full),
            ("53100", DatabaseFault::Full),
            ("5", DatabaseFault::Outage),
            ("517", DatabaseFault::Outage),
            ("262", DatabaseFault::Outage),
            ("778", DatabaseFault::Outage),
            ("8458", DatabaseFault::Outage),
            ("1038", DatabaseFault::Outage),
            ("53300", DatabaseFault::Outage),
            ("57P01", DatabaseFault::Outage),
            ("57014", DatabaseFault::TooLong),
            ("9", DatabaseFault::TooLong),
            ("08006", DatabaseFault::Outage),
            ("40P01", DatabaseFault::Outage),
            ("1", DatabaseFault::Ours),
            ("787", DatabaseFault::Ours),
            ("2067", DatabaseFault::Ours),
            ("23505", DatabaseFault::Ours),
            ("42601", DatabaseFault::Ours),
            ("10000", DatabaseFault::Ours),
            ("", DatabaseFault::Ours),
        ] {
            assert_eq!(fault_of_code(code), fault, "{code:?}");
        }
    }

    #[test]
    fn a_full_disk_is_507_and_a_silent_database_503() {
        assert_eq!(Problem::from(Error::StorageFull).status, 507);
        assert_eq!(
            Problem::from(Error::Database(sqlx::Error::PoolTimedOut)).status,
            503
        );
        assert_eq!(
            Problem::from(Error::Database(sqlx::Error::RowNotFound)).status,
            500
        );
    }
}
