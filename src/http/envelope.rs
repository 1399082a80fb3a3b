//! Around every request: its id, a span, security headers, rate-limit headers, metrics, and a net for panics.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use tracing::Instrument as _;
use uuid::Uuid;

use super::problem::Problem;
use super::rate::StandingSlot;
use super::request_id;
use crate::app::App;

/// Longest request target in bytes.
const MAX_TARGET_BYTES: usize = 8192;

pub(super) async fn layer(State(_): State<App>, mut request: Request, next: Next) -> Response {
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
        match AssertUnwindSafe(next.run(request)).catch_unwind().await {
            Ok(response) => response,
            Err(_) => {
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
