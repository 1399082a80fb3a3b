//! `Idempotency-Key` on creating POSTs: the same key and body within a day gives the same answer once more.
//!
//! The key is noted before the work and its answer after it, also when the client has left by then. A process that
//! died in between leaves a note without an answer; it blocks repeats until the work is certainly dead, and then the
//! repeat runs it anew.
//!
//! What is kept of an answer is a row that goes with the chatbot and the conversation it is about. Of a stream nothing
//! is kept: while it runs a repeat is refused as one of a running request, and afterwards it names the conversation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::extract::{FromRequestParts as _, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt as _;
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
use crate::id::{ChatbotId, ConversationId, TenantId};
use crate::{on, secrets};

/// How long an answer is kept.
const KEPT_FOR: TimeDelta = TimeDelta::hours(24);

/// A note without an answer counts as dead after this, and no earlier than [`END_OF_ANSWER`] after the longest answer of
/// a model: longer than any request may take.
const DEAD_AFTER: TimeDelta = TimeDelta::minutes(5);

/// What the end of an answer may take after the model's last word, on a slow database or to a slow client.
const END_OF_ANSWER: TimeDelta = TimeDelta::minutes(2);

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
    created_at: DateTime<Utc>,
    /// The conversation of the answer, if it is one.
    conversation_id: Option<ConversationId>,
    body: Option<String>,
}

/// Marks an answer that holds a secret: it is given once, and never stored. Put it into the response as an extension.
#[derive(Clone, Copy, Debug)]
pub struct ShownOnce;

/// What an answer is about: what is kept of it goes with that. Put it into the response as an extension.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    pub chatbot_id: Option<ChatbotId>,
    pub conversation_id: Option<ConversationId>,
    /// Set when a streamed answer ends in an error: the same request may fare better.
    pub has_failed: Arc<AtomicBool>,
}

impl Subject {
    /// An answer about this chatbot.
    pub fn chatbot(id: ChatbotId) -> Self {
        Self {
            chatbot_id: Some(id),
            ..Self::default()
        }
    }

    /// What the path of a request names.
    fn of_path(path: &str) -> Option<Self> {
        let id = path.strip_prefix("/api/chatbots/")?.split('/').next()?;
        id.parse().ok().map(Self::chatbot)
    }
}

/// Who used which key.
#[derive(Clone)]
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
    // A person whose groups were changed meanwhile asks something else.
    let groups = member.caller.actor.own_groups().join(",");
    let request_hash = secrets::token_hash(&format!(
        "{} {accept}\n{groups}{}",
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
    let tasks = app.tasks.clone();
    let named = Subject::of_path(request.uri().path());
    let finished = async move {
        let mut response = next.run(request).await;
        if let Some(named) = named.filter(|_| response.extensions().get::<Subject>().is_none()) {
            response.extensions_mut().insert(named);
        }
        finish(&app, &slot, response).await
    };
    request_id::detach(&tasks, finished).await
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
            set request_hash = excluded.request_hash, state = 'running', created_at = excluded.created_at, status = null
          where idempotency.created_at < $6
             or (idempotency.state = 'running' and idempotency.created_at < $7 and idempotency.request_hash = excluded.request_hash)
         returning key",
    ).bind(slot.tenant_id).bind(&slot.actor).bind(&slot.key).bind(request_hash).bind(now).bind(now - KEPT_FOR).bind(now - dead_after(app))
     .fetch_optional(c).await)?;
    if inserted.is_some() {
        delete_answer(&mut write, slot).await?;
        write.commit().await?;
        return Ok(None);
    }
    Ok(on!(write, c => sqlx::query_as(
        "select n.request_hash, n.state, n.status, n.content_type, n.created_at, a.conversation_id, a.body
           from idempotency n
           left join idempotency_answer a
             on a.tenant_id = n.tenant_id and a.actor = n.actor and a.key = n.key
            and not exists (select 1 from chatbot b where b.id = a.chatbot_id and b.deleted_at is not null)
          where n.tenant_id = $1 and n.actor = $2 and n.key = $3",
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
    let (status, body) = match (status, note.body, note.conversation_id) {
        (Some(status), Some(body), _) => (status, body),
        (_, _, Some(id)) => {
            let message = format!(
                "this request was carried out and its answer was streamed: it is in the conversation {id}"
            );
            return Err(Error::conflict("answer_not_kept", message).into());
        }
        _ => return Err(Error::conflict("answer_not_kept", "this request was carried out, but its answer is not kept: it was streamed, too large, deleted since, or holds a secret that is shown once").into()),
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

/// Stores the answer, then gives it; a stream is given as it comes.
async fn keep(app: &App, slot: &Slot, response: Response) -> std::result::Result<Response, Problem> {
    let (parts, body) = response.into_parts();
    let is_secret = parts.extensions.get::<ShownOnce>().is_some();
    let content_type = parts
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    // A refusal may name what is not there, and nothing can hang on that.
    let subject = parts.extensions.get::<Subject>().cloned();
    let subject = subject.filter(|_| parts.status.is_success()).unwrap_or_default();
    let mut done = Done {
        status: parts.status,
        content_type,
        subject,
        body: None,
    };
    if done
        .content_type
        .as_deref()
        .is_some_and(|content_type| content_type.starts_with("text/event-stream"))
    {
        let note = RunningNote(Some((app.clone(), slot.clone(), done)));
        return Ok(Response::from_parts(parts, noted(body, note)));
    }
    let bytes = body.collect().await.map_err(Error::internal)?.to_bytes();
    done.body = std::str::from_utf8(&bytes)
        .ok()
        .filter(|text| text.len() <= MAX_KEPT_BYTES && !is_secret)
        .map(str::to_owned);
    note_done(app, slot, &done).await?;
    Ok(Response::from_parts(parts, Body::from(bytes)))
}

/// The note of a stream under way. It is done with the stream: at its end, or when it is dropped with its client.
struct RunningNote(Option<(App, Slot, Done)>);

impl RunningNote {
    async fn end(&mut self) {
        if let Some(ended) = self.begin_end() {
            // A panic was reported where it happened, and nothing waits for what this returns.
            let _ = ended.await;
        }
    }

    /// Ends the note in a task of its own, which no client can cut off.
    fn begin_end(&mut self) -> Option<tokio::task::JoinHandle<()>> {
        let (app, slot, done) = self.0.take()?;
        let tasks = app.tasks.clone();
        Some(tasks.spawn(async move {
            let ended = if done.subject.has_failed.load(Ordering::Relaxed) {
                forget_one(&app, &slot).await
            } else {
                note_done(&app, &slot, &done).await
            };
            if let Err(error) = ended {
                tracing::error!(error = ?error, "cannot note that a stream has ended: its key stays taken for some minutes");
            }
        }))
    }
}

impl Drop for RunningNote {
    fn drop(&mut self) {
        self.begin_end();
    }
}

/// The body of a stream whose note ends before the stream does, so that whoever read it whole may rely on it.
fn noted(body: Body, note: RunningNote) -> Body {
    let frames = futures::stream::unfold((body.into_data_stream(), note), |(mut frames, mut note)| async {
        match frames.next().await {
            Some(frame) => Some((frame, (frames, note))),
            None => {
                note.end().await;
                None
            }
        }
    });
    Body::from_stream(frames)
}

/// What a request came to.
struct Done {
    status: StatusCode,
    content_type: Option<String>,
    subject: Subject,
    /// None: not kept.
    body: Option<String>,
}

async fn note_done(app: &App, slot: &Slot, done: &Done) -> Result<()> {
    match store_done(app, slot, done, true).await {
        // What the answer is about was deleted meanwhile: nothing of it is kept.
        Err(error) if error.is_missing_reference() => store_done(app, slot, done, false).await,
        stored => stored,
    }
}

async fn store_done(app: &App, slot: &Slot, done: &Done, with_answer: bool) -> Result<()> {
    let mut write = app.db.write(slot.tenant_id).await?;
    on!(write, c => sqlx::query(
        "update idempotency
            set state = 'done', status = $4, content_type = $5
          where tenant_id = $1 and actor = $2 and key = $3",
    ).bind(slot.tenant_id).bind(&slot.actor).bind(&slot.key).bind(i64::from(done.status.as_u16())).bind(&done.content_type)
     .execute(c).await.map(drop))?;
    if with_answer && (done.body.is_some() || done.subject.conversation_id.is_some()) {
        on!(write, c => sqlx::query(
            "insert into idempotency_answer (tenant_id, actor, key, chatbot_id, conversation_id, body)
             values ($1, $2, $3, $4, $5, $6)
             on conflict (tenant_id, actor, key) do update
                set chatbot_id = excluded.chatbot_id, conversation_id = excluded.conversation_id, body = excluded.body",
        ).bind(slot.tenant_id).bind(&slot.actor).bind(&slot.key).bind(done.subject.chatbot_id).bind(done.subject.conversation_id)
         .bind(&done.body).execute(c).await.map(drop))?;
    }
    write.commit().await
}

async fn delete_answer(write: &mut Write, slot: &Slot) -> Result<()> {
    on!(write, c => sqlx::query("delete from idempotency_answer where tenant_id = $1 and actor = $2 and key = $3")
        .bind(slot.tenant_id).bind(&slot.actor).bind(&slot.key).execute(c).await.map(drop))?;
    Ok(())
}

/// How long a note without an answer may be that of a running request.
fn dead_after(app: &App) -> TimeDelta {
    let longest = i64::try_from(app.config.llm.total_timeout_s).ok();
    let longest = longest.and_then(TimeDelta::try_seconds).unwrap_or(KEPT_FOR);
    DEAD_AFTER.max(longest + END_OF_ANSWER)
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
