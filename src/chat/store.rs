//! SQL of conversations and messages.

use chrono::{DateTime, Utc};
use retrieval::index::Audience;
use sqlx::FromRow;
use sqlx::types::{Json, Uuid};

use super::{AnswerSource, Citation, TurnUsage};
use crate::chatbots::{Chatbot, ChatbotRow};
use crate::db::{Conn, Put, Write};
use crate::error::{Error, Result};
use crate::generations::{LiveRow, live_columns};
use crate::http::access::Reach;
use crate::http::input::PageRequest;
use crate::id::{ChatbotId, ConversationId, CutId, MessageId, TenantId};
use crate::knowledge::Degradation;
use crate::llm::PromptRole;
use crate::on;
use crate::usage::{Limit, Limits};

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
    access_groups: Option<Json<Vec<String>>>,
}

impl Conversation {
    /// Access groups of the visitor.
    pub(super) fn groups(&self) -> Vec<String> {
        self.access_groups
            .as_ref()
            .map(|Json(groups)| groups.clone())
            .unwrap_or_default()
    }

    /// As whom the conversation goes on when `audience` asks: what was said in it may come from what its groups may read, so
    /// who lacks one of them has no such conversation, and who has more asks with these alone.
    pub(super) fn go_on_as(&self, audience: &Audience) -> Result<Audience> {
        let groups = self.groups();
        let has_all = match audience {
            Audience::Everything => true,
            Audience::Groups(own) => groups.iter().all(|group| own.contains(group)),
        };
        match has_all {
            true => Ok(Audience::Groups(groups)),
            false => Err(Error::NotFound("conversation")),
        }
    }
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
    /// What looking for passages had to do without; none: nothing.
    pub degraded: Option<Json<Vec<Degradation>>>,
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
    pub degraded: &'a [Degradation],
    pub text_tokens: i64,
    pub usage: TurnUsage,
}

/// Begins a conversation with the two messages that its first turn adds. With a chatbot that was deleted meanwhile none
/// begins, and [`insert_turn`] fails.
pub(super) async fn insert_conversation(
    write: &mut Write,
    tenant_id: TenantId,
    id: ConversationId,
    chatbot_id: ChatbotId,
    channel: &str,
    groups: &[String],
    now: DateTime<Utc>,
) -> Result<()> {
    let insert = write.put(
        "insert into conversation (id, tenant_id, chatbot_id, channel, message_count, created_at, updated_at, access_groups)
         select $1, b.tenant_id, b.id, $4, 2, $5, $5, $6
           from chatbot b
          where b.tenant_id = $2
            and b.id = $3
            and b.deleted_at is null",
    );
    insert
        .bind(id)
        .bind(tenant_id)
        .bind(chatbot_id)
        .bind(channel)
        .bind(now)
        .bind(Some(Json(groups)).filter(|Json(groups)| !groups.is_empty()))
        .run()
        .await
}

/// Counts the two messages that a turn adds. Where the conversation was deleted meanwhile, nothing is counted, and
/// [`insert_turn`] fails.
pub(super) async fn count_turn(
    write: &mut Write,
    tenant_id: TenantId,
    id: ConversationId,
    now: DateTime<Utc>,
) -> Result<()> {
    let update = write.put(
        "update conversation
            set message_count = message_count + 2, updated_at = $3
          where tenant_id = $1 and id = $2",
    );
    update.bind(tenant_id).bind(id).bind(now).run().await
}

/// Stores the two messages of a turn. A conversation that is gone is a missing reference.
pub(super) async fn insert_turn(
    write: &mut Write,
    tenant_id: TenantId,
    conversation_id: ConversationId,
    question: NewQuestion<'_>,
    answer: NewAnswer<'_>,
    now: DateTime<Utc>,
) -> Result<()> {
    let insert = write.put(
        "insert into message (id, tenant_id, conversation_id, role, content, state, answer_source, model, error_code, citations,
                              content_tokens, prompt_tokens, completion_tokens, embedding_tokens, cost_micro_usd, degraded, created_at)
         values ($1, $2, $3, 'user', $4, 'complete', null, null, null, '[]', $5, 0, 0, 0, 0, null, $6),
                ($7, $2, $3, 'assistant', $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $6)",
    );
    let insert = insert
        .bind(question.id)
        .bind(tenant_id)
        .bind(conversation_id)
        .bind(question.text)
        .bind(question.text_tokens)
        .bind(now);
    bind_answer(insert, answer).run().await
}

/// Stores what came of an answer that was being written. Nothing happens when it was deleted meanwhile.
pub(super) async fn finish_answer(
    write: &mut Write,
    tenant_id: TenantId,
    answer: NewAnswer<'_>,
) -> Result<()> {
    let update = write.put(
        "update message
            set content = $3, state = $4, answer_source = $5, model = $6, error_code = $7, citations = $8, content_tokens = $9,
                prompt_tokens = $10, completion_tokens = $11, embedding_tokens = $12, cost_micro_usd = $13, degraded = $14
          where tenant_id = $1
            and id = $2",
    );
    bind_answer(update.bind(tenant_id), answer).run().await
}

/// Gives a statement the thirteen values of an answer, in the order in which both that store one name them.
fn bind_answer<'w>(statement: Put<'w>, answer: NewAnswer<'_>) -> Put<'w> {
    statement
        .bind(answer.id)
        .bind(answer.text)
        .bind(answer.state.name())
        .bind(answer.source.name())
        .bind(answer.model)
        .bind(answer.state.error_code())
        .bind(Json(answer.citations))
        .bind(answer.text_tokens)
        .bind(answer.usage.prompt_tokens)
        .bind(answer.usage.completion_tokens)
        .bind(answer.usage.embedding_tokens)
        .bind(answer.usage.cost_micro_usd)
        .bind(Some(Json(answer.degraded)).filter(|Json(degraded)| !degraded.is_empty()))
}

/// What a turn has to know of whom it asks.
pub(super) struct Asked {
    pub chatbot: Chatbot,
    pub limits: Limits,
    pub cuts: Vec<CutId>,
    pub live: LiveRow,
}

#[derive(FromRow)]
struct AskedRow {
    #[sqlx(flatten)]
    chatbot: ChatbotRow,
    tenant_tokens: Option<i64>,
    tenant_micro_usd: Option<i64>,
    cuts: Json<Vec<Uuid>>,
    /// One of them lacks what changed of some documents.
    cuts_lack: bool,
    #[sqlx(flatten)]
    live: LiveRow,
}

/// The text of [`find_asked`], with the engine's own way of making a list of ids.
macro_rules! asked {
    ($list:literal) => {
        concat!(
            "select b.id, b.tenant_id, b.name, b.prompt, b.model, b.temperature, b.no_answer_text, b.max_passages, b.min_similarity, b.search_settings,
                    b.allowed_origins, b.monthly_token_limit, b.monthly_cost_limit_micro_usd, b.created_at, b.updated_at,
                    t.monthly_token_limit as tenant_tokens,
                    t.monthly_cost_limit_micro_usd as tenant_micro_usd,
                    (select ", $list, "
                       from source s
                       left join cut k on k.source_id = s.id and k.tenant_id = $1 and k.state = 'live'
                      where s.tenant_id = $1 and s.chatbot_id = $2 and s.deleted_at is null) as cuts,
                    exists (select 1
                              from source s
                              join cut k on k.source_id = s.id and k.tenant_id = $1 and k.state = 'live'
                              join cut_gap l on l.cut_id = k.id
                             where s.tenant_id = $1 and s.chatbot_id = $2 and s.deleted_at is null) as cuts_lack, ",
            live_columns!(), "
               from chatbot b
               join tenant t on t.id = b.tenant_id
               left join generation g on g.tenant_id = b.tenant_id and g.state = 'live'
              where b.tenant_id = $1
                and b.id = $2
                and b.deleted_at is null"
        )
    };
}

/// The chatbot with its limits, and what answers for its sources. These are columns of other rooms, read here together because every turn needs
/// all of them, in one statement.
pub(super) async fn find_asked(
    conn: &mut Conn,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
) -> Result<Option<Asked>> {
    let text = if conn.is_postgres() {
        asked!("coalesce(jsonb_agg(coalesce(k.id, s.id) order by s.id), '[]')")
    } else {
        asked!("json_group_array(lower(hex(coalesce(k.id, s.id))) order by s.id)")
    };
    let row: Option<AskedRow> =
        on!(conn, c => sqlx::query_as(text).bind(tenant_id).bind(chatbot_id).fetch_optional(c).await)?;
    Ok(row.map(|row| {
        let chatbot = Chatbot::from(row.chatbot);
        Asked {
            limits: Limits {
                tenant: Limit {
                    tokens: row.tenant_tokens,
                    micro_usd: row.tenant_micro_usd,
                },
                chatbot: Limit {
                    tokens: chatbot.settings.monthly_token_limit,
                    micro_usd: chatbot.settings.monthly_cost_limit_micro_usd,
                },
            },
            chatbot,
            cuts: row.cuts.0.into_iter().map(CutId).collect(),
            live: LiveRow {
                live_is_whole: row.live.live_is_whole.map(|is_whole| is_whole && !row.cuts_lack),
                ..row.live
            },
        }
    }))
}

pub(super) async fn find(conn: &mut Conn, reach: Reach, id: ConversationId) -> Result<Option<Conversation>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select id, chatbot_id, channel, message_count, created_at, updated_at, access_groups
           from conversation
          where tenant_id = $1
            and id = $2
            and ($3 is null or chatbot_id = $3)
            and exists (select 1 from chatbot b where b.id = conversation.chatbot_id and b.deleted_at is null)",
    ).bind(reach.tenant_id).bind(id).bind(reach.chatbot_id).fetch_optional(c).await)?)
}

/// Like [`find`], and nobody else deletes it or adds to it until the transaction ends.
pub(super) async fn hold(
    write: &mut Write,
    reach: Reach,
    id: ConversationId,
) -> Result<Option<Conversation>> {
    let statement = format!(
        "select id, chatbot_id, channel, message_count, created_at, updated_at, access_groups
           from conversation
          where tenant_id = $1
            and id = $2
            and ($3 is null or chatbot_id = $3)
            and exists (select 1 from chatbot b where b.id = conversation.chatbot_id and b.deleted_at is null) {}",
        write.row_lock()
    );
    Ok(on!(write, c => sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(reach.tenant_id).bind(id).bind(reach.chatbot_id).fetch_optional(c).await)?)
}

pub(super) async fn list(
    conn: &mut Conn,
    tenant_id: TenantId,
    chatbot_id: Option<ChatbotId>,
    page: PageRequest,
) -> Result<Vec<Conversation>> {
    Ok(on!(conn, c => sqlx::query_as(
        "select id, chatbot_id, channel, message_count, created_at, updated_at, access_groups
           from conversation
          where tenant_id = $1
            and id < $2
            and ($3 is null or chatbot_id = $3)
            and exists (select 1 from chatbot b where b.id = conversation.chatbot_id and b.deleted_at is null)
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
        "select id, role, content, state, answer_source, model, error_code, citations, degraded, prompt_tokens, completion_tokens,
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

/// Some of a chatbot's conversations, in no order, each with the number of its messages.
pub(super) async fn list_some(
    conn: &mut Conn,
    tenant_id: TenantId,
    chatbot_id: ChatbotId,
    limit: i64,
) -> Result<Vec<(ConversationId, i64)>> {
    Ok(
        on!(conn, c => sqlx::query_as("select id, message_count from conversation where tenant_id = $1 and chatbot_id = $2 limit $3")
        .bind(tenant_id).bind(chatbot_id).bind(limit).fetch_all(c).await)?,
    )
}
