//! Around every request: its id, a span, security headers, rate-limit headers, metrics, and a net for panics.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use tokio::time::timeout;
use tracing::Instrument as _;
use uuid::Uuid;

use super::problem::Problem;
use super::rate::StandingSlot;
use super::request_id;
use crate::app::App;
use crate::error::Error;

/// How long a request may take until its answer begins, besides the call of a chat model.
const ANSWER_LIMIT: Duration = Duration::from_secs(90);

/// For requests that take as long as they take.
const UNLIMITED: Duration = Duration::from_secs(7 * 24 * 3600);

/// Longest request target in bytes.
const MAX_TARGET_BYTES: usize = 8192;

pub(super) async fn layer(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = Uuid::now_v7();
    let slot = StandingSlot::default();
    request.extensions_mut().insert(slot.clone());
    let method = method_name(request.method());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "(none)".to_owned(), |path| path.as_str().to_owned());
    let is_docs = request.uri().path().starts_with("/docs");
    let target_length = request
        .uri()
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    let span = tracing::info_span!("http.request", request.id = %id.simple(), http.method = method, http.route = route, tenant.id = tracing::field::Empty);

    let mut response = request_id::scope(id, async {
        if target_length > MAX_TARGET_BYTES {
            return Problem::new(
                StatusCode::URI_TOO_LONG,
                "uri_too_long",
                "the address is too long",
            )
            .into_response();
        }
        let limit = time_limit(&app, request.method(), &route);
        let answer = timeout(limit, AssertUnwindSafe(next.run(request)).catch_unwind());
        match answer.await {
            Ok(Ok(response)) => response,
            Err(_) => {
                tracing::error!("a request took too long and was given up");
                Problem::from(Error::Unavailable {
                    code: "request_timed_out",
                    message: "this took too long and was given up: something that the server depends on does not answer".into(),
                    retry_after: Duration::from_secs(10),
                    source: None,
                })
                .into_response()
            }
            Ok(Err(_)) => {
                tracing::error!("a handler panicked");
                Problem::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "internal",
                    "something broke on our side; the request id names this failure in the logs",
                )
                .into_response()
            }
        }
    })
    .instrument(span.clone())
    .await;

    let status = response.status();
    if status == StatusCode::NOT_FOUND && route == "(none)" {
        tracing::debug!(parent: &span, "no such route");
    }
    tracing::debug!(parent: &span, status = status.as_u16(), duration_ms = started.elapsed().as_millis() as u64, "answered");
    let labels = [
        ("method", method.to_owned()),
        ("route", route),
        ("status", status.as_str().to_owned()),
    ];
    metrics::counter!("frontdesk_http_requests_total", &labels).increment(1);
    metrics::histogram!("frontdesk_http_request_seconds", &labels[..2])
        .record(started.elapsed().as_secs_f64());

    let headers = response.headers_mut();
    slot.write_headers(headers);
    secure(headers, is_docs);
    if let Ok(value) = HeaderValue::try_from(id.simple().to_string()) {
        headers.insert(HeaderName::from_static("x-request-id"), value);
    }
    response
}

/// How long a request may take until its answer begins: the last resort where something hangs that has no limit of its own.
fn time_limit(app: &App, method: &Method, route: &str) -> Duration {
    match route {
        // The client's line decides; bodies that come too slowly are ended elsewhere.
        "/api/chatbots/{id}/documents" if method == Method::POST => UNLIMITED,
        "/api/sources/{id}/documents/{external_id}" if method == Method::PUT => UNLIMITED,
        "/api/chat/message" | "/api/chat/inline" => {
            ANSWER_LIMIT + Duration::from_secs(app.config.llm.total_timeout_s)
        }
        _ => ANSWER_LIMIT,
    }
}

/// A method's name for logs and metrics. A client may make up any other, and each would be a series of its own for ever.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

fn secure(headers: &mut HeaderMap, is_docs: bool) {
    // The browsable API page sets styles from its own script; everything else is data, and runs nothing.
    let policy = if is_docs {
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'"
    } else {
        "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; sandbox"
    };
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "cross-origin",
        ),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if !is_docs {
        headers
            .entry(header::CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-store"));
    }
}
