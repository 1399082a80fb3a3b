//! SQL of conversations and messages.

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use sqlx::types::Json;

use super::{AnswerSource, Citation, TurnUsage};
use crate::db::{Conn, Write};
use crate::error::Result;
use crate::http::access::Reach;
use crate::http::input::PageRequest;
use crate::id::{ChatbotId, ConversationId, MessageId, TenantId};
use crate::llm::PromptRole;
use crate::on;

/// Messages that are looked at for the prompt's history.
const HISTORY_MESSAGES: i64 = 40;

/// A thread of messages.
#[derive(Clone, Debug, FromRow)]
pub struct Conversation {
    pub id: ConversationId,
    pub chatbot_id: ChatbotId,
    pub channel: String,
    pub message_count: i64,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// One utterance.
#[derive(Clone, Debug, FromRow)]
pub struct Message {
    pub id: MessageId,
    /// `user` or `assistant`.
    pub role: String,
    pub content: String,
    /// `writing`, `complete`, `incomplete` (the client left) or `failed`.
    pub state: String,
    pub answer_source: Option<String>,
    pub model: Option<String>,
    pub error_code: Option<String>,
    pub citations: Json<Vec<Citation>>,
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    pub embedding_tokens: i64,
    pub cost_micro_usd: i64,
    pub created_at: DateTime<Utc>,
}

/// An earlier message, as the prompt takes it.
#[derive(Clone, Debug)]
pub struct HistoryMessage {
    pub role: PromptRole,
    pub content: String,
    /// In tokens of the answering model.
    pub tokens: usize,
}

/// How far an assistant's message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageState {
    /// A turn is at it. When its process dies, upkeep finds the message by this state.
    Writing,
    Complete,
    /// The client left before the end.
    Incomplete,
    Failed {
        code: &'static str,
    },
}

impl MessageState {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Writing => "writing",
            Self::Complete => "complete",
            Self::Incomplete => "incomplete",
            Self::Failed { .. } => "failed",
        }
    }

    fn error_code(self) -> Option<&'static str> {
        match self {
            Self::Failed { code } => Some(code),
            Self::Writing | Self::Complete | Self::Incomplete => None,
        }
    }
}

/// A user's message to store.
pub(super) struct NewQuestion<'a> {
    pub id: MessageId,
    pub text: &'a str,
    pub text_tokens: i64,
}

/// An assistant's message to store.
pub(super) struct NewAnswer<'a> {
    pub id: MessageId,
    pub text: &'a str,
    pub state: MessageState,
    pub source: AnswerSource,
    pub model: Option<&'a str>,
    pub citations: &'a [Citation],
    pub text_tokens: i64,
    pub usage: TurnUsage,
}

/// Begins a conversation with the two messages that its first turn adds.
pub(super) async fn insert_conversation(
    write: &mut Write,
    tenant_id: TenantId,
    id: ConversationId,
    chatbot_id: ChatbotId,
    channel: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => sqlx::query(
        "insert into conversation (id, tenant_id, chatbot_id, channel, message_count, created_at, updated_at)
         values ($1, $2, $3, $4, 2, $5, $5)",
    ).bind(id).bind(tenant_id).bind(chatbot_id).bind(channel).bind(now).execute(c).await.map(drop))?;
    Ok(())
}

/// Counts the two messages that a turn adds. False when the conversation was deleted meanwhile.
pub(super) async fn count_turn(
    write: &mut Write,
    tenant_id: TenantId,
    id: ConversationId,
    now: DateTime<Utc>,
) -> Result<bool> {
    let counted: Option<ConversationId> = on!(write, c => sqlx::query_scalar(
        "update conversation
            set message_count = message_count + 2, updated_at = $3
          where tenant_id = $1 and id = $2
         returning id",
    ).bind(tenant_id).bind(id).bind(now).fetch_optional(c).await)?;
    Ok(counted.is_some())
}

/// Stores the two messages of a turn.
pub(super) async fn insert_turn(
    write: &mut Write,
    tenant_id: TenantId,
    conversation_id: ConversationId,
    question: NewQuestion<'_>,
    answer: NewAnswer<'_>,
    now: DateTime<Utc>,
) -> Result<()> {
    on!(write, c => sqlx::query(
        "insert into message (id, tenant_id, conversation_id, role, content, state, answer_source, model, error_code, citations,
                              content_tokens, prompt_tokens, completion_tokens, embedding_tokens, cost_micro_usd, created_at)
         values ($1, $2, $3, 'user', $4, 'complete', null, null, null, '[]', $5, 0, 0, 0, 0, $6),
                ($7, $2, $3, 'assistant', $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $6)",
    ).bind(question.id).bind(tenant_id).bind(conversation_id).bind(question.text).bind(question.text_tokens).bind(now)
     .bind(answer.id).bind(answer.text).bind(answer.state.name()).bind(answer.source.name()).bind(answer.model)
     .bind(answer.state.error_code()).bind(Json(answer.citations)).bind(answer.text_tokens).bind(answer.usage.prompt_tokens)
     .bind(answer.usage.completion_tokens).bind(answer.usage.embedding_tokens).bind(answer.usage.cost_micro_usd)
     .execute(c).await.map(drop))?;
    Ok(())
}

/// Stores what came of an answer that was being written. Nothing happens when it was deleted meanwhile.
pub(super) async fn finish_answer(
    write: &mut Write,
    tenant_id: TenantId,
    answer: NewAnswer<'_>,
) -> Result<()> {
    on!(write, c => sqlx::query(
        "update message
            set content = $3, state = $4, answer_source = $5, model = $6, error_code = $7, citations = $8, content_tokens = $9,
                prompt_tokens = $10, completion_tokens = $11, embedding_tokens = $12, cost_micro_usd = $13
          where tenant_id = $1
            and id = $2",
    ).bind(tenant_id).bind(answer.id).bind(answer.text).bind(answer.state.name()).bind(answer.source.name()).bind(answer.model)
     .bind(answer.state.error_code()).bind(Json(answer.citations)).bind(answer.text_tokens).bind(answer.usage.prompt_tokens)
     .bind(answer.usage.completion_tokens).bind(answer.usage.embedding_tokens).bind(answer.usage.cost_micro_usd)
     .execute(c).await.map(drop))?;
    Ok(())
}

pub(super) async fn find(conn: &mut Conn, reach: Reach, id: ConversationId) -> Result<Option<Conversation>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select id, chatbot_id, channel, message_count, created_at, updated_at
           from conversation
          where tenant_id = $1
            and id = $2
            and ($3 is null or chatbot_id = $3)",
    ).bind(reach.tenant_id).bind(id).bind(reach.chatbot_id).fetch_optional(c).await)?)
}

pub(super) async fn list(
    conn: &mut Conn,
    tenant_id: TenantId,
    chatbot_id: Option<ChatbotId>,
    page: PageRequest,
) -> Result<Vec<Conversation>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select id, chatbot_id, channel, message_count, created_at, updated_at
           from conversation
          where tenant_id = $1
            and id < $2
            and ($3 is null or chatbot_id = $3)
          order by id desc
          limit $4",
    ).bind(tenant_id).bind(page.before).bind(chatbot_id).bind(page.limit + 1).fetch_all(c).await)?)
}

/// A page of messages, newest first, one more than the page holds.
pub(super) async fn list_messages(
    conn: &mut Conn,
    tenant_id: TenantId,
    conversation_id: ConversationId,
    page: PageRequest,
) -> Result<Vec<Message>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select id, role, content, state, answer_source, model, error_code, citations, prompt_tokens, completion_tokens,
                embedding_tokens, cost_micro_usd, created_at
           from message
          where tenant_id = $1
            and conversation_id = $2
            and id < $3
          order by id desc
          limit $4",
    ).bind(tenant_id).bind(conversation_id).bind(page.before).bind(page.limit + 1).fetch_all(c).await)?)
}

/// The latest messages that a prompt may take, in order. Answers that failed or are still being
/// written are left out.
pub(super) async fn list_history(
    conn: &mut Conn,
    tenant_id: TenantId,
    conversation_id: ConversationId,
) -> Result<Vec<HistoryMessage>> {
    let mut rows: Vec<(String, String, i64)> = on!(conn, c => sqlx::query_as(
        "select role, content, content_tokens
           from message
          where tenant_id = $1
            and conversation_id = $2
            and state not in ('failed', 'writing')
          order by id desc
          limit $3",
    ).bind(tenant_id).bind(conversation_id).bind(HISTORY_MESSAGES).fetch_all(c).await)?;
    rows.reverse();
    let message = |(role, content, tokens): (String, String, i64)| HistoryMessage {
        role: if role == "user" {
            PromptRole::User
        } else {
            PromptRole::Assistant
        },
        content,
        tokens: usize::try_from(tokens).unwrap_or_default(),
    };
    Ok(rows.into_iter().map(message).collect())
}

pub(super) async fn delete(write: &mut Write, tenant_id: TenantId, id: ConversationId) -> Result<()> {
    on!(write, c => sqlx::query("delete from conversation where tenant_id = $1 and id = $2").bind(tenant_id).bind(id).execute(c).await.map(drop))?;
    Ok(())
}
