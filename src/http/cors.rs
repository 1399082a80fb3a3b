//! Cross-origin rules: a chatbot's own list of sites for the chat routes, the operator's list for all others.
//!
//! A browser names the page's origin. An origin that no list names gets no permission header, so the browser keeps the
//! answer from the page. On the chat routes it gets no answer either: the chat handler refuses it per chatbot.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::problem::Problem;
use super::rate::{self, Bucket, Meter};
use crate::app::App;
use crate::chatbots;

/// Routes that web pages of a tenant's visitors may call.
const CHAT_ROUTES: &[&str] = &["/api/chat/message", "/api/chat/inline"];

/// How long a browser may remember the answer to a preflight, in seconds.
const PREFLIGHT_AGE: &str = "600";

pub(super) async fn layer(State(app): State<App>, request: Request, next: Next) -> Response {
    let Some(origin) = request
        .headers()
        .get(header::ORIGIN)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned)
    else {
        return next.run(request).await;
    };
    let is_preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let is_chat = CHAT_ROUTES.contains(&request.uri().path());
    let (parts, body) = request.into_parts();
    if is_preflight {
        // Nobody has proven who they are: the address answers for the work.
        let address = Bucket::Address(rate::client_address(&parts, &app));
        if let Err(error) = Meter::of(&parts).charge(&app, address) {
            return Problem::from(error).into_response();
        }
    }
    let request = Request::from_parts(parts, body);
    let by_operator = app.config.server.dashboard_origins.contains(&origin);
    let allowed = by_operator
        || (is_chat
            && chatbots::operator::any_allows_origin(&app, &origin)
                .await
                .unwrap_or(false));
    let mut response = if is_preflight {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    // A handler that refused the origin leaves a mark: then no permission, whatever the lists say.
    let is_refused = headers.remove(ORIGIN_REFUSED).is_some();
    if allowed && !is_refused {
        permit(headers, &origin, is_preflight);
    }
    response
}

/// Set by handlers on answers to an origin that their chatbot does not list; never leaves the server.
pub const ORIGIN_REFUSED: &str = "x-frontdesk-origin-refused";

fn permit(headers: &mut HeaderMap, origin: &str, is_preflight: bool) {
    if let Ok(origin) = HeaderValue::try_from(origin) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("x-request-id, ratelimit, ratelimit-policy, retry-after"),
    );
    if is_preflight {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE"),
        );
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("authorization, content-type, accept, idempotency-key"),
        );
        headers.insert(
            header::ACCESS_CONTROL_MAX_AGE,
            HeaderValue::from_static(PREFLIGHT_AGE),
        );
    }
}
