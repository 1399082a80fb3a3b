//! Conversations and the chat turn: question in, streamed and cited answer out, every token booked.

mod citation;
mod extractive;
mod given;
mod marker;
pub mod operator;
mod prompt;
mod quote;
pub mod routes;
mod rows;
mod saving;
mod sentences;
mod sse;
mod store;
mod turn;
mod writing;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use crate::app::{App, GOES_WITH_CONVERSATIONS};
use crate::db::Write;
use crate::error::{Error, Result};
use crate::http::access::{Actor, Reach};
use crate::http::input::PageRequest;
use crate::id::{ChatbotId, ConversationId, DocumentId, MessageId, TenantId};
use crate::knowledge::Degradation;
use crate::tenancy::audit::{self, Change, Origin};

pub use citation::Citation;
pub use store::{Conversation, HistoryMessage, Message};
pub use turn::{Opening, RunningTurn, Thread, TurnEvent, TurnRequest, check_origin, start};

/// Deletes what another room has of a conversation that is being deleted and held, in the same transaction. The rooms are named
/// in `app/start.rs`: they build on this one, which knows none of them.
pub type GoesAlong =
    for<'a> fn(&'a App, &'a mut Write, TenantId, ConversationId) -> BoxFuture<'a, Result<()>>;

/// Messages of a conversation that are looked through for answers.
const LOOKED_THROUGH: i64 = 1_000;

/// Conversations of a deleted chatbot that one transaction deletes, at most, and about how many messages with them.
const CONVERSATIONS_AT_ONCE: i64 = 500;
const MESSAGES_AT_ONCE: i64 = 2_000;

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnswerSource {
    /// Worded by the configured model.
    Model,
    /// A fixed answer of the owner.
    Faq,
    /// Given before to the same question over the same passages.
    Cache,
    /// Sentences of the documents, word for word: no model is configured.
    Extractive,
    /// The chatbot's no-answer text: nothing relevant was found.
    NoAnswer,
}

impl AnswerSource {
    /// The name in JSON and in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Faq => "faq",
            Self::Cache => "cache",
            Self::Extractive => "extractive",
            Self::NoAnswer => "no_answer",
        }
    }
}

/// What a turn took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TurnUsage {
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    pub embedding_tokens: i64,
    /// In millionths of a US dollar.
    pub cost_micro_usd: i64,
}

/// A finished turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Answer {
    /// Null for a stateless turn.
    pub conversation_id: Option<ConversationId>,
    /// Null for a stateless turn.
    pub message_id: Option<MessageId>,
    /// The text, with a marker `[n]` behind what the n-th citation supports.
    pub answer: String,
    pub citations: Vec<Citation>,
    pub usage: TurnUsage,
    pub source: AnswerSource,
    /// What the search for passages had to do without; not there when nothing was left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub degraded: Vec<Degradation>,
}

/// Whose conversation messages are.
#[derive(Clone, Debug)]
pub struct ConversationWithMessages {
    pub conversation: Conversation,
    /// In order; the latest ones, when there are more than a page holds.
    pub messages: Vec<Message>,
    /// The id below which earlier messages are, if there are any.
    pub earlier: Option<MessageId>,
    pub updated_at: DateTime<Utc>,
}

/// A page of conversations, newest first, of one chatbot or of all within reach.
pub async fn list(
    app: &App,
    reach: Reach,
    chatbot_id: Option<ChatbotId>,
    page: PageRequest,
) -> Result<Vec<Conversation>> {
    let chatbot_id = match (reach.chatbot_id, chatbot_id) {
        (Some(own), Some(wanted)) if own != wanted => return Err(Error::NotFound("chatbot")),
        (own, wanted) => own.or(wanted),
    };
    let mut conn = app.db.read(reach.tenant_id).await?;
    if let Some(chatbot_id) = chatbot_id {
        crate::chatbots::check_exists(&mut conn, reach.tenant_id, chatbot_id).await?;
    }
    store::list(&mut conn, reach.tenant_id, chatbot_id, page).await
}

/// A conversation with a page of its messages, the latest unless `page` says otherwise.
pub async fn get(
    app: &App,
    reach: Reach,
    id: ConversationId,
    page: PageRequest,
) -> Result<ConversationWithMessages> {
    let mut conn = app.db.read(reach.tenant_id).await?;
    let conversation = store::find(&mut conn, reach, id)
        .await?
        .ok_or(Error::NotFound("conversation"))?;
    let mut messages = store::list_messages(&mut conn, reach.tenant_id, id, page).await?;
    let more = messages.len() as i64 > page.limit;
    messages.truncate(usize::try_from(page.limit).unwrap_or_default());
    let earlier = messages.last().filter(|_| more).map(|message| message.id);
    messages.reverse();
    let updated_at = conversation.updated_at;
    Ok(ConversationWithMessages {
        conversation,
        messages,
        earlier,
        updated_at,
    })
}

/// A question of a conversation with what was answered.
#[derive(Clone, Debug)]
pub struct Answered {
    /// The answer's.
    pub message_id: MessageId,
    pub question: String,
    /// The documents that the answer cites, each once.
    pub cited: Vec<DocumentId>,
    /// False: nothing relevant was found.
    pub is_known: bool,
    /// Nothing was said before the question.
    pub is_first: bool,
    /// Access groups of the visitor.
    pub groups: Vec<String>,
}

/// The questions of a chatbot's conversation whose answers cite something, or said that nothing was known; in order.
pub async fn list_answered(
    app: &App,
    reach: Reach,
    chatbot_id: ChatbotId,
    id: ConversationId,
) -> Result<Vec<Answered>> {
    let mut conn = app.db.read(reach.tenant_id).await?;
    let conversation = store::find(&mut conn, reach, id)
        .await?
        .filter(|conversation| conversation.chatbot_id == chatbot_id)
        .ok_or(Error::NotFound("conversation"))?;
    let page = PageRequest {
        limit: LOOKED_THROUGH,
        before: uuid::Uuid::max(),
    };
    let mut messages = store::list_messages(&mut conn, reach.tenant_id, id, page).await?;
    messages.reverse();
    let is_begun_here = messages.len() as i64 <= LOOKED_THROUGH;
    let mut answered = Vec::new();
    let mut question = None;
    for (position, message) in messages.into_iter().enumerate() {
        if message.role == "user" {
            question = Some((message.content, is_begun_here && position == 0));
            continue;
        }
        let is_known = message.answer_source.as_deref() != Some(AnswerSource::NoAnswer.name());
        let mut cited: Vec<DocumentId> = Vec::new();
        for citation in &message.citations.0 {
            if !cited.contains(&citation.document_id) {
                cited.push(citation.document_id);
            }
        }
        if let Some((question, is_first)) = question.take().filter(|_| message.state == "complete")
            && (!is_known || !cited.is_empty())
        {
            answered.push(Answered {
                message_id: message.id,
                question,
                cited,
                is_known,
                is_first,
                groups: conversation.groups(),
            });
        }
    }
    Ok(answered)
}

/// Keeps a conversation as it is until the transaction ends.
pub async fn hold(write: &mut Write, reach: Reach, id: ConversationId) -> Result<Conversation> {
    store::hold(write, reach, id)
        .await?
        .ok_or(Error::NotFound("conversation"))
}

/// Deletes a conversation with its messages, and what other rooms took over from it. The ledger keeps its figures, which name
/// nobody.
pub async fn delete(
    app: &App,
    reach: Reach,
    id: ConversationId,
    actor: &Actor,
    origin: &Origin,
) -> Result<()> {
    let mut write = app.db.write(reach.tenant_id).await?;
    let conversation = hold(&mut write, reach, id).await?;
    for delete_along in GOES_WITH_CONVERSATIONS {
        delete_along(app, &mut write, reach.tenant_id, id).await?;
    }
    store::delete(&mut write, reach.tenant_id, id).await?;
    let before = json!({ "chatbot_id": conversation.chatbot_id, "messages": conversation.message_count });
    let change = Change {
        action: "conversation.delete",
        object_kind: "conversation",
        object_id: id.to_string(),
        before: Some(before),
        after: None,
    };
    audit::record(
        &mut write,
        reach.tenant_id,
        actor,
        origin,
        change,
        app.clock.now(),
    )
    .await?;
    write.commit().await
}

/// Deletes some conversations of a chatbot that is being deleted; false when none are left.
pub async fn delete_some(app: &App, tenant_id: TenantId, chatbot_id: ChatbotId) -> Result<bool> {
    let mut write = app.db.write(tenant_id).await?;
    let found = store::list_some(&mut write, tenant_id, chatbot_id, CONVERSATIONS_AT_ONCE).await?;
    let is_any = !found.is_empty();
    let mut messages = 0;
    for (id, count) in found {
        store::delete(&mut write, tenant_id, id).await?;
        messages += count;
        if messages >= MESSAGES_AT_ONCE {
            break;
        }
    }
    write.commit().await?;
    Ok(is_any)
}
