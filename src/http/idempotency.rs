//! `Idempotency-Key` on creating POSTs: the same key and body within a day gives the same answer once more.
//!
//! The key is noted before the work and its answer after it, also when the client has left by then. A process that
//! died in between leaves a note without an answer; it blocks repeats until the work is certainly dead, and then the
//! repeat runs it anew.

use axum::body::Body;
use axum::extract::{FromRequestParts as _, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use chrono::{DateTime, TimeDelta, Utc};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use sqlx::FromRow;

use super::access::Member;
use super::input::{is_json, read_body};
use super::problem::Problem;
use super::request_id;
use crate::app::App;
use crate::db::Write;
use crate::error::{Error, Result};
use crate::id::TenantId;
use crate::{on, secrets};

/// How long an answer is kept.
const KEPT_FOR: TimeDelta = TimeDelta::hours(24);

/// A note without an answer counts as dead after this: longer than any request may take.
const DEAD_AFTER: TimeDelta = TimeDelta::minutes(5);

/// Longest key in characters.
const MAX_KEY_CHARS: usize = 255;

/// Largest answer that is kept; a larger one is given but a repeat is refused, as with [`ShownOnce`].
const MAX_KEPT_BYTES: usize = 256 * 1024;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

#[derive(FromRow)]
struct Note {
    request_hash: String,
    state: String,
    status: Option<i64>,
    content_type: Option<String>,
    body: Option<String>,
    created_at: DateTime<Utc>,
}

/// Marks an answer that holds a secret: it is given once, and never stored. Put it into the response as an extension.
#[derive(Clone, Copy, Debug)]
pub struct ShownOnce;

/// Who used which key.
struct Slot {
    tenant_id: TenantId,
    actor: String,
    key: String,
}

pub(super) async fn layer(State(app): State<App>, request: Request, next: Next) -> Response {
    // Uploads are idempotent by their content, and too large to hold; logging in is no creation.
    let applies = request.method() == Method::POST
        && is_json(request.headers())
        && request.headers().contains_key(KEY)
        && !request.uri().path().starts_with("/api/auth/");
    if !applies {
        return next.run(request).await;
    }
    match run_once(&app, request, next).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn run_once(app: &App, request: Request, next: Next) -> std::result::Result<Response, Problem> {
    let mut keys = request.headers().get_all(KEY).iter();
    let key = keys.next().filter(|_| keys.next().is_none());
    let key = key
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    if key.is_empty() || key.chars().count() > MAX_KEY_CHARS {
        return Err(Error::invalid(
            "invalid_idempotency_key",
            "Idempotency-Key",
            "the key must have 1 to 255 visible characters",
        )
        .into());
    }
    let (mut parts, body) = request.into_parts();
    let member = Member::from_request_parts(&mut parts, app).await?;
    let (kind, id) = member.caller.actor.name();
    let slot = Slot {
        tenant_id: member.caller.tenant_id,
        actor: format!("{kind}:{id}"),
        key,
    };
    let body = read_body(Request::new(body), app.config.server.body_limit_bytes).await?;
    let accept = parts
        .headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let request_hash = secrets::token_hash(&format!(
        "{} {accept}\n{}",
        parts.uri,
        secrets::hex(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &body).as_ref())
    ));

    if let Some(note) = claim(app, &slot, &request_hash).await? {
        return answer_again(note, &request_hash);
    }
    parts.extensions.insert(member);
    let mut request = Request::from_parts(parts, Body::from(body));
    request.headers_mut().remove(KEY);
    // A client that lost patience or its connection comes back with the same key: what it asked for must be done then,
    // and its answer kept.
    let app = app.clone();
    request_id::detach(async move { finish(&app, &slot, next.run(request).await).await }).await
}

/// Keeps the answer unless the same request may fare better soon.
async fn finish(app: &App, slot: &Slot, response: Response) -> std::result::Result<Response, Problem> {
    if response.status().is_server_error() || response.status() == StatusCode::TOO_MANY_REQUESTS {
        forget_one(app, slot).await?;
        return Ok(response);
    }
    keep(app, slot, response).await
}

/// Notes the key; returns the earlier note when there is one that stands.
async fn claim(app: &App, slot: &Slot, request_hash: &str) -> Result<Option<Note>> {
    let now = app.clock.now();
    let mut write = app.db.write(slot.tenant_id).await?;
    let inserted: Option<String> = on!(write, c => sqlx::query_scalar(
        "insert into idempotency (tenant_id, actor, key, request_hash, state, created_at)
         values ($1, $2, $3, $4, 'running', $5)
         on conflict (tenant_id, actor, key) do update
            set request_hash = excluded.request_hash, state = 'running', created_at = excluded.created_at, status = null, body = null
          where idempotency.created_at < $6
             or (idempotency.state = 'running' and idempotency.created_at < $7 and idempotency.request_hash = excluded.request_hash)
         returning key",
    ).bind(slot.tenant_id).bind(&slot.actor).bind(&slot.key).bind(request_hash).bind(now).bind(now - KEPT_FOR).bind(now - DEAD_AFTER)
     .fetch_optional(c).await)?;
    if inserted.is_some() {
        write.commit().await?;
        return Ok(None);
    }
    Ok(on!(write, c => sqlx::query_as(
        "select request_hash, state, status, content_type, body, created_at
           from idempotency
          where tenant_id = $1 and actor = $2 and key = $3",
    ).bind(slot.tenant_id).bind(&slot.actor).bind(&slot.key).fetch_optional(c).await)?)
}

fn answer_again(note: Note, request_hash: &str) -> std::result::Result<Response, Problem> {
    if note.request_hash != request_hash {
        return Err(Error::invalid(
            "idempotency_key_reused",
            "Idempotency-Key",
            "this key was used for another request; choose a new one",
        )
        .into());
    }
    if note.state != "done" {
        tracing::debug!(since = %note.created_at, "a request with this key is under way");
        return Err(Error::conflict(
            "request_in_flight",
            "a request with this key is still running; try again shortly",
        )
        .into());
    }
    let status = note
        .status
        .and_then(|status| u16::try_from(status).ok())
        .and_then(|status| StatusCode::from_u16(status).ok());
    let (Some(status), Some(body)) = (status, note.body) else {
        return Err(Error::conflict("answer_not_kept", "this request was carried out, but its answer was not kept: it was too large, or holds a secret that is shown once").into());
    };
    let mut response = (status, body).into_response();
    if let Some(content_type) = note
        .content_type
        .and_then(|content_type| HeaderValue::try_from(content_type).ok())
    {
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    }
    response
        .headers_mut()
        .insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

/// Stores the answer, then gives it.
async fn keep(app: &App, slot: &Slot, response: Response) -> std::result::Result<Response, Problem> {
    let (parts, body) = response.into_parts();
    let is_secret = parts.extensions.get::<ShownOnce>().is_some();
    let content_type = parts
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    if content_type
        .as_deref()
        .is_some_and(|content_type| content_type.starts_with("text/event-stream"))
    {
        // A stream is not held back to be stored: the key is free again, and the conversation shows what came of it.
        forget_one(app, slot).await?;
        return Ok(Response::from_parts(parts, body));
    }
    let bytes = body.collect().await.map_err(Error::internal)?.to_bytes();
    let kept = std::str::from_utf8(&bytes)
        .ok()
        .filter(|text| text.len() <= MAX_KEPT_BYTES && !is_secret);
    let mut write = app.db.write(slot.tenant_id).await?;
    on!(write, c => sqlx::query(
        "update idempotency
            set state = 'done', status = $4, content_type = $5, body = $6
          where tenant_id = $1 and actor = $2 and key = $3",
    ).bind(slot.tenant_id).bind(&slot.actor).bind(&slot.key).bind(i64::from(parts.status.as_u16())).bind(content_type).bind(kept)
     .execute(c).await.map(drop)).map_err(Error::from)?;
    write.commit().await?;
    Ok(Response::from_parts(parts, Body::from(bytes)))
}

async fn forget_one(app: &App, slot: &Slot) -> Result<()> {
    let mut write = app.db.write(slot.tenant_id).await?;
    on!(write, c => sqlx::query("delete from idempotency where tenant_id = $1 and actor = $2 and key = $3")
        .bind(slot.tenant_id).bind(&slot.actor).bind(&slot.key).execute(c).await.map(drop))?;
    write.commit().await
}

/// Drops notes older than a day, in the operator's upkeep.
pub async fn forget(write: &mut Write, now: DateTime<Utc>) -> Result<()> {
    on!(write, c => sqlx::query("delete from idempotency where created_at < $1").bind(now - KEPT_FOR).execute(c).await.map(drop))?;
    Ok(())
}
