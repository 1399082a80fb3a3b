//! HTTP of the chat turn and of conversations.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use retrieval::index::Audience;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::given::Said;
use super::sse::AnswerEvent;
use super::turn::{RunningTurn, Thread, TurnRequest};
use super::{Answer, Citation, Conversation, Message, TurnUsage, sse, turn};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::access::{ChatAccess, ConversationAccess, EditAccess, Holder, Reach};
use crate::http::cors::ORIGIN_REFUSED;
use crate::http::idempotency::Subject;
use crate::http::input::{Json, Page, PageQuery, Path, Query};
use crate::http::problem::Problem;
use crate::id::{ChatbotId, ConversationId, MessageId};
use crate::knowledge::Degradation;
use crate::knowledge::labels::visitor;
use crate::llm::PromptRole;

/// What the ledger and conversations name as the way in.
const CHANNEL: &str = "api";

/// Messages in a stateless call.
const MAX_INLINE_MESSAGES: usize = 100;

/// The routes of this room.
pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(send_message))
        .routes(routes!(send_inline))
        .routes(routes!(list_conversations))
        .routes(routes!(get_conversation, delete_conversation))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct MessageRequest {
    chatbot_id: ChatbotId,
    /// None begins a conversation.
    conversation_id: Option<ConversationId>,
    /// The question. How long it may be is a setting of the installation.
    #[schema(min_length = 1)]
    message: String,
    /// Access groups of the visitor, from callers with the scope `chat:groups` or `knowledge:read` only. Otherwise those that
    /// the caller's token vouches for, or none: then only what is open to everyone is looked at. A conversation goes on with
    /// the groups that it began with.
    #[schema(max_items = 50)]
    groups: Option<Vec<String>>,
    /// True: server-sent events. `Accept: text/event-stream` asks for the same.
    stream: Option<bool>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct InlineRequest {
    chatbot_id: ChatbotId,
    /// Earlier messages and, last, the question.
    #[schema(min_items = 1, max_items = 100)]
    messages: Vec<InlineMessage>,
    /// Access groups of the visitor, from callers with the scope `chat:groups` or `knowledge:read` only.
    #[schema(max_items = 50)]
    groups: Option<Vec<String>>,
    /// True: server-sent events. `Accept: text/event-stream` asks for the same.
    stream: Option<bool>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct InlineMessage {
    role: InlineRole,
    content: String,
}

/// Who said it. Instructions are the owner's, so there is no `system`.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum InlineRole {
    User,
    Assistant,
}

/// Asks a chatbot. The answer is JSON, or server-sent events: `message.start`, `delta` {text}, `citation`,
/// `message.end` (the whole JSON), or `error` (a problem).
#[utoipa::path(post, path = "/api/chat/message", tag = "chat", request_body = MessageRequest,
    responses(
        (status = 200, description = "The answer, whole or event by event", content((Answer = "application/json"), (AnswerEvent = "text/event-stream"))),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json"),
    ),
    security(("bearer" = ["chat"])))]
async fn send_message(
    access: ChatAccess,
    State(app): State<App>,
    headers: HeaderMap,
    Json(request): Json<MessageRequest>,
) -> Result<Response, Problem> {
    let asked = Asked {
        chatbot_id: request.chatbot_id,
        thread: Thread::Stored(request.conversation_id),
        question: request.message,
        audience: visitor(&access.actor, request.groups)?,
        stream: request.stream,
    };
    answer(&app, access.reach(), access.holder(), &headers, asked).await
}

/// Asks a chatbot with the whole thread in the request; nothing but the usage is stored. Answers like
/// `/api/chat/message`, with null ids.
#[utoipa::path(post, path = "/api/chat/inline", tag = "chat", request_body = InlineRequest,
    responses(
        (status = 200, description = "The answer, whole or event by event", content((Answer = "application/json"), (AnswerEvent = "text/event-stream"))),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json"),
    ),
    security(("bearer" = ["chat"])))]
async fn send_inline(
    access: ChatAccess,
    State(app): State<App>,
    headers: HeaderMap,
    Json(request): Json<InlineRequest>,
) -> Result<Response, Problem> {
    let (thread, question) = split_inline(request.messages)?;
    let asked = Asked {
        chatbot_id: request.chatbot_id,
        thread,
        question,
        audience: visitor(&access.actor, request.groups)?,
        stream: request.stream,
    };
    answer(&app, access.reach(), access.holder(), &headers, asked).await
}

fn split_inline(mut messages: Vec<InlineMessage>) -> Result<(Thread, String)> {
    if messages.len() > MAX_INLINE_MESSAGES {
        return Err(Error::invalid(
            "too_many_messages",
            "messages",
            format!("at most {MAX_INLINE_MESSAGES} messages"),
        ));
    }
    let question = messages.pop().filter(|last| last.role == InlineRole::User);
    let question = question.ok_or_else(|| {
        Error::invalid(
            "no_question",
            "messages",
            "the last message must be the user's question",
        )
    })?;
    let earlier = messages.into_iter().map(|message| Said {
        role: if message.role == InlineRole::User {
            PromptRole::User
        } else {
            PromptRole::Assistant
        },
        content: message.content,
    });
    Ok((Thread::Stateless(earlier.collect()), question.content))
}

/// Whether `Accept` names event streams, and not with the quality 0, which means never.
fn accepts_stream(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let named = parts
                .next()
                .is_some_and(|media_type| media_type.eq_ignore_ascii_case("text/event-stream"));
            let mut qualities = parts.filter_map(|parameter| {
                let (name, value) = parameter.split_once('=')?;
                name.trim().eq_ignore_ascii_case("q").then_some(value.trim())
            });
            named && qualities.all(|quality| quality.parse::<f32>().is_ok_and(|quality| quality > 0.0))
        })
}

struct Asked {
    chatbot_id: ChatbotId,
    thread: Thread,
    question: String,
    audience: Audience,
    stream: Option<bool>,
}

async fn answer(
    app: &App,
    reach: Reach,
    holder: Holder,
    headers: &HeaderMap,
    asked: Asked,
) -> Result<Response, Problem> {
    let streamed = asked.stream.unwrap_or_else(|| accepts_stream(headers));
    let origin = headers
        .get(header::ORIGIN)
        .map(|value| value.to_str().unwrap_or("invalid").to_owned());
    let request = TurnRequest {
        reach,
        chatbot_id: asked.chatbot_id,
        thread: asked.thread,
        question: asked.question,
        audience: asked.audience,
        streamed,
        channel: CHANNEL,
        origin,
    };
    let running: RunningTurn = match turn::start(app, request).await {
        Ok(running) => running,
        Err(
            error @ Error::Forbidden {
                code: "origin_not_allowed",
                ..
            },
        ) => {
            let mut response = Problem::from(error).into_response();
            response.headers_mut().insert(
                HeaderName::from_static(ORIGIN_REFUSED),
                HeaderValue::from_static("1"),
            );
            return Ok(response);
        }
        Err(error) => return Err(error.into()),
    };
    let subject = Subject {
        chatbot_id: Some(asked.chatbot_id),
        conversation_id: running.opening.conversation_id,
        has_failed: Arc::default(),
    };
    let mut response = if streamed {
        let heartbeat = Duration::from_secs(app.config.chat.heartbeat_s);
        sse::respond(app, running, holder, heartbeat, subject.has_failed.clone())
    } else {
        axum::Json(running.finish().await?).into_response()
    };
    response.extensions_mut().insert(subject);
    Ok(response)
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ConversationQuery {
    /// Only this chatbot's conversations.
    #[param(value_type = Option<String>, format = "uuid")]
    chatbot_id: Option<ChatbotId>,
    /// Items on the page, 1 to 100; 50 unless given.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100)]
    limit: Option<i64>,
    /// `next_cursor` of the page before.
    #[param(value_type = Option<String>, format = "uuid")]
    cursor: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct ConversationResponse {
    id: ConversationId,
    chatbot_id: ChatbotId,
    channel: String,
    message_count: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<Conversation> for ConversationResponse {
    fn from(conversation: Conversation) -> Self {
        Self {
            id: conversation.id,
            chatbot_id: conversation.chatbot_id,
            channel: conversation.channel,
            message_count: conversation.message_count,
            created_at: conversation.created_at,
            updated_at: conversation.updated_at,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct MessageResponse {
    id: MessageId,
    /// `user` or `assistant`.
    role: String,
    content: String,
    /// `writing` (an answer on its way, its content still empty), `complete`, `incomplete` (the client left before the
    /// end) or `failed`.
    state: String,
    /// Where an answer comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    /// Why an answer failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<String>,
    citations: Vec<Citation>,
    /// What looking for passages had to do without; not there when nothing was left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    degraded: Vec<Degradation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<TurnUsage>,
    created_at: DateTime<Utc>,
}

impl From<Message> for MessageResponse {
    fn from(message: Message) -> Self {
        let usage = TurnUsage {
            prompt_tokens: message.prompt_tokens,
            completion_tokens: message.completion_tokens,
            embedding_tokens: message.embedding_tokens,
            cost_micro_usd: message.cost_micro_usd,
        };
        Self {
            id: message.id,
            usage: (message.role == "assistant").then_some(usage),
            role: message.role,
            content: message.content,
            state: message.state,
            source: message.answer_source,
            model: message.model,
            error_code: message.error_code,
            citations: message.citations.0,
            degraded: message.degraded.map(|degraded| degraded.0).unwrap_or_default(),
            created_at: message.created_at,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct ConversationDetail {
    #[serde(flatten)]
    conversation: ConversationResponse,
    /// In order; the latest ones when there are more than a page holds.
    messages: Vec<MessageResponse>,
    /// Give this as `cursor` for the messages before these; null when these are the first.
    earlier_cursor: Option<String>,
}

/// Conversations, newest first.
#[utoipa::path(get, path = "/api/conversations", tag = "chat", params(ConversationQuery),
    responses((status = 200, body = Page<ConversationResponse>), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["conversations"])))]
async fn list_conversations(
    access: ConversationAccess,
    State(app): State<App>,
    Query(query): Query<ConversationQuery>,
) -> Result<axum::Json<Page<ConversationResponse>>, Problem> {
    let page = PageQuery {
        limit: query.limit,
        cursor: query.cursor,
    }
    .check()?;
    let rows = super::list(&app, access.reach(), query.chatbot_id, page).await?;
    Ok(axum::Json(Page::of(
        rows,
        page.limit,
        |row| row.id.0,
        ConversationResponse::from,
    )))
}

/// A conversation with its messages and their citations.
#[utoipa::path(get, path = "/api/conversations/{id}", tag = "chat", params(("id" = String, Path, description = "The conversation"), PageQuery),
    responses((status = 200, body = ConversationDetail), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["conversations"])))]
async fn get_conversation(
    access: ConversationAccess,
    State(app): State<App>,
    Path(id): Path<ConversationId>,
    Query(query): Query<PageQuery>,
) -> Result<axum::Json<ConversationDetail>, Problem> {
    let found = super::get(
        &app,
        access.reach(),
        id,
        PageQuery {
            limit: query.limit.or(Some(100)),
            ..query
        }
        .check()?,
    )
    .await?;
    Ok(axum::Json(ConversationDetail {
        conversation: found.conversation.into(),
        messages: found.messages.into_iter().map(MessageResponse::from).collect(),
        earlier_cursor: found.earlier.map(|id| id.to_string()),
    }))
}

/// Deletes a conversation with its messages.
#[utoipa::path(delete, path = "/api/conversations/{id}", tag = "chat", params(("id" = String, Path, description = "The conversation")),
    responses((status = 204, description = "Deleted"), (status = "4XX", body = Problem, content_type = "application/problem+json")), security(("bearer" = ["edit"])))]
async fn delete_conversation(
    access: EditAccess,
    State(app): State<App>,
    Path(id): Path<ConversationId>,
) -> Result<StatusCode, Problem> {
    super::delete(&app, access.reach(), id, &access.actor, &access.origin).await?;
    Ok(StatusCode::NO_CONTENT)
}
