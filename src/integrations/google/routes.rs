//! `/api/integrations/google`: connecting a Google account, seeing it, giving it back.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use chrono::{DateTime, Utc};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Brought, Connection};
use crate::app::App;
use crate::error::Error;
use crate::http::access::{self, AdminAccess, Caller, Stranger};
use crate::http::input::Query;
use crate::http::problem::Problem;

/// The cookie that a browser is recognised by. Sent to us only, over TLS or to this machine, and never to scripts.
const COOKIE: &str = "__Host-frontdesk_connect";

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(show, disconnect))
        .routes(routes!(connect))
        .routes(routes!(callback))
}

/// Where the owner goes to connect the account.
#[derive(Serialize, ToSchema)]
struct ConnectResponse {
    /// Open it in the browser that made this request.
    authorization_url: String,
    /// Seconds until it is too late.
    expires_in: i64,
}

/// The tenant's Google account.
#[derive(Serialize, ToSchema)]
struct ConnectionResponse {
    #[schema(value_type = String, example = "google")]
    provider: &'static str,
    /// `none`, `connected`, or `withdrawn` when Google no longer accepts the consent.
    #[schema(value_type = String, example = "connected")]
    state: &'static str,
    /// The account's e-mail address.
    account: Option<String>,
    connected_at: Option<DateTime<Utc>>,
    /// Whether this installation can ask for a consent at all.
    can_connect: bool,
}

#[derive(Serialize, ToSchema)]
struct DisconnectResponse {
    /// Whether Google took the consent back. If not, its owner ends it in the Google account.
    revoked: bool,
}

/// What Google sends the browser back with. It adds more than is in its manual, so what is not known is passed over.
#[derive(Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct CallbackQuery {
    /// Works once.
    #[serde(default)]
    code: String,
    /// As it was in the authorisation address.
    #[serde(default)]
    state: String,
    /// Why there is no code.
    #[param(value_type = Option<String>)]
    error: Option<String>,
}

fn describe(app: &App, connection: Option<Connection>) -> ConnectionResponse {
    ConnectionResponse {
        provider: "google",
        state: connection
            .as_ref()
            .map_or("none", |connection| connection.state.name()),
        connected_at: connection.as_ref().map(|connection| connection.created_at),
        account: connection.map(|connection| connection.account),
        can_connect: !app.config.google.client_id.is_empty(),
    }
}

/// The connected account.
#[utoipa::path(
    get,
    path = "/api/integrations/google",
    tag = "integrations",
    security(("bearer" = ["admin"])),
    responses(
        (status = 200, description = "The account, or that there is none", body = ConnectionResponse),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn show(
    access: AdminAccess,
    State(app): State<App>,
) -> Result<axum::Json<ConnectionResponse>, Problem> {
    let connection = super::find(&app, access.tenant_id).await?;
    Ok(axum::Json(describe(&app, connection)))
}

/// Begins to connect an account: answers the address at Google where its owner agrees.
#[utoipa::path(
    get,
    path = "/api/integrations/google/connect",
    tag = "integrations",
    security(("bearer" = ["admin"])),
    responses(
        (status = 200, description = "Where to go", body = ConnectResponse),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn connect(access: AdminAccess, State(app): State<App>) -> Result<Response, Problem> {
    let sent = super::begin(&app, access.tenant_id, &access.actor).await?;
    let cookie = format!(
        "{COOKIE}={}; Path=/; Max-Age={}; Secure; HttpOnly; SameSite=Lax",
        sent.browser_secret, sent.expires_in_s
    );
    let mut response = axum::Json(ConnectResponse {
        authorization_url: sent.authorization_url.into(),
        expires_in: sent.expires_in_s,
    })
    .into_response();
    set_cookie(response.headers_mut(), &cookie);
    Ok(response)
}

/// Where Google sends the owner's browser back to. It must be the browser that began, or show the credential that did.
#[utoipa::path(
    get,
    path = "/api/integrations/google/callback",
    tag = "integrations",
    params(CallbackQuery),
    responses(
        (status = 200, description = "Connected; for a browser as a page", body = ConnectionResponse),
        (status = "4XX", description = "Refused; for a browser as a page", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn callback(
    stranger: Stranger,
    State(app): State<App>,
    Query(query): Query<CallbackQuery>,
    parts: Parts,
) -> Response {
    let is_browser = accepts_html(&parts.headers);
    let outcome = take_back(&app, &stranger, &query, &parts).await;
    let mut response = match outcome {
        Ok(connection) if is_browser => page(
            StatusCode::OK,
            "Google Drive is connected",
            &format!(
                "The account {} is connected. You can close this page and go on where you were.",
                connection.account
            ),
        ),
        Ok(connection) => axum::Json(describe(&app, Some(connection))).into_response(),
        Err(error) => {
            let problem = Problem::from(error);
            if is_browser {
                let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_REQUEST);
                page(
                    status,
                    "Google Drive is not connected",
                    &format!("{} ({})", problem.detail, problem.code),
                )
            } else {
                problem.into_response()
            }
        }
    };
    set_cookie(
        response.headers_mut(),
        &format!("{COOKIE}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax"),
    );
    response
}

async fn take_back(
    app: &App,
    stranger: &Stranger,
    query: &CallbackQuery,
    parts: &Parts,
) -> Result<Connection, Error> {
    stranger.charge_attempt(app, None)?;
    // A credential may come along; one that is wrong is refused as anywhere.
    let caller: Option<Caller> = match parts.headers.contains_key(header::AUTHORIZATION) {
        true => Some(access::authenticate(app, parts).await?),
        false => None,
    };
    let brought = Brought {
        code: &query.code,
        state: &query.state,
        browser_secret: cookie(&parts.headers),
        caller: caller.as_ref(),
    };
    if query.error.is_some() || query.code.is_empty() {
        super::refuse(app, brought).await?;
        return Err(Error::conflict(
            "consent_refused",
            "the account was not connected: begin again, and agree at Google",
        ));
    }
    super::finish(app, brought, &stranger.origin).await
}

/// Forgets the account and gives its consent back to Google. Sources that read with it fail from then on, and keep what
/// they have.
#[utoipa::path(
    delete,
    path = "/api/integrations/google",
    tag = "integrations",
    security(("bearer" = ["admin"])),
    responses(
        (status = 200, description = "Forgotten", body = DisconnectResponse),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
    ),
)]
async fn disconnect(
    access: AdminAccess,
    State(app): State<App>,
) -> Result<axum::Json<DisconnectResponse>, Problem> {
    let revoked = super::disconnect(&app, access.tenant_id, &access.actor, &access.origin).await?;
    Ok(axum::Json(DisconnectResponse { revoked }))
}

fn set_cookie(headers: &mut HeaderMap, cookie: &str) {
    if let Ok(value) = HeaderValue::try_from(cookie) {
        headers.insert(header::SET_COOKIE, value);
    }
}

/// Our cookie's value. Two of the name are none: one of them is not ours.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='));
    values.next().filter(|_| values.next().is_none())
}

fn accepts_html(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.contains("text/html"))
}

/// A page without anything that runs or loads.
fn page(status: StatusCode, title: &str, text: &str) -> Response {
    let escape = |text: &str| {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
    };
    let body = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<h1>{title}</h1>\n<p>{text}</p>\n</html>\n",
        title = escape(title),
        text = escape(text),
    );
    (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_recognised_by_the_one_cookie_of_ours() {
        let read = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::COOKIE, HeaderValue::from_static(value));
            }
            cookie(&headers).map(str::to_owned)
        };

        assert_eq!(
            read(&["a=b; __Host-frontdesk_connect=secret; c=d"]).as_deref(),
            Some("secret")
        );
        assert_eq!(read(&["__Host-frontdesk_connect_too=other"]), None);
        assert_eq!(
            read(&["__Host-frontdesk_connect=one", "__Host-frontdesk_connect=two"]),
            None
        );
        assert_eq!(read(&[]), None);
    }
}
