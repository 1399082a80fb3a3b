//! A line of the ledger: one call to a model.

use std::time::Duration;

use chrono::{DateTime, Utc};
use retrieval::rerank::RerankCost;
use serde::{Deserialize, Serialize};

use super::Spend;
use crate::app::{App, Space};
use crate::id::{ChatbotId, ConversationId, MessageId, TenantId, UsageEventId};
use crate::llm::TokenUsage;

/// What a second of a recording takes from a limit on tokens where the vendor counts none: what vendors who count them
/// make of one.
const TOKENS_PER_AUDIO_SECOND: i64 = 10;

/// What kind of call was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UsageKind {
    /// A model wrote text.
    Chat,
    /// A model turned text into vectors.
    Embedding,
    /// A model wrote down what is said in a recording.
    Transcription,
    /// A model put passages in order.
    Rerank,
}

impl UsageKind {
    /// The name in the database and in exports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Embedding => "embedding",
            Self::Transcription => "transcription",
            Self::Rerank => "rerank",
        }
    }
}

/// One call, as it is booked. In JSON it is kept with the reservation that was made for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageEvent {
    pub id: UsageEventId,
    pub tenant_id: TenantId,
    pub chatbot_id: Option<ChatbotId>,
    pub conversation_id: Option<ConversationId>,
    pub message_id: Option<MessageId>,
    /// Over what the question came, for example `api`.
    pub channel: String,
    pub kind: UsageKind,
    pub model: String,
    /// Tokens read, cached ones included.
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    /// The part of `prompt_tokens` that the vendor had cached; of an embedding the tokens of texts that were embedded before,
    /// which are no part of `embedding_tokens` and cost nothing.
    pub cached_tokens: i64,
    pub embedding_tokens: i64,
    /// Seconds of recordings that were listened to.
    pub audio_seconds: i64,
    pub cost_micro_usd: i64,
    pub price_book_version: String,
    /// Made by this process itself: booked, but taken from no budget, since nobody has to pay it.
    pub local: bool,
    /// Whether the vendor said how many tokens; otherwise we counted.
    pub reported: bool,
    /// The most that was reserved for the call: nobody came back to say what it took.
    pub estimated: bool,
    pub latency_ms: i64,
    pub created_at: DateTime<Utc>,
}

impl UsageEvent {
    /// A call to `model` that belongs to no conversation, without figures yet.
    pub fn of(
        app: &App,
        (tenant_id, chatbot_id): (TenantId, ChatbotId),
        channel: &str,
        kind: UsageKind,
        model: &str,
    ) -> Self {
        Self {
            id: UsageEventId::new(),
            tenant_id,
            chatbot_id: Some(chatbot_id),
            conversation_id: None,
            message_id: None,
            channel: channel.to_owned(),
            kind,
            model: model.to_owned(),
            prompt_tokens: 0,
            completion_tokens: 0,
            cached_tokens: 0,
            embedding_tokens: 0,
            audio_seconds: 0,
            cost_micro_usd: 0,
            price_book_version: app.prices.version().to_owned(),
            local: false,
            reported: false,
            estimated: false,
            latency_ms: 0,
            created_at: app.clock.now(),
        }
    }

    /// A call to the embedding model of `space` that belongs to no conversation.
    pub fn embedding(
        app: &App,
        space: &Space,
        holders: (TenantId, ChatbotId),
        channel: &str,
        tokens: u64,
        reported: bool,
        latency: Duration,
    ) -> Self {
        let model = space.model.as_deref().unwrap_or_default();
        Self {
            embedding_tokens: i64::try_from(tokens).unwrap_or(i64::MAX),
            cost_micro_usd: app.prices.embedding_cost_micro_usd(model, tokens),
            local: !space.is_remote,
            reported,
            latency_ms: i64::try_from(latency.as_millis()).unwrap_or(i64::MAX),
            ..Self::of(app, holders, channel, UsageKind::Embedding, model)
        }
    }

    /// A call to the reranking model that belongs to no conversation.
    pub fn rerank(
        app: &App,
        holders: (TenantId, ChatbotId),
        channel: &str,
        model: &str,
        cost: &RerankCost,
        latency: Duration,
    ) -> Self {
        let as_i64 = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
        let usage = TokenUsage {
            prompt: cost.tokens,
            completion: cost.written,
            cached: cost.cached,
            reported: cost.reported,
        };
        Self {
            prompt_tokens: as_i64(cost.tokens),
            completion_tokens: as_i64(cost.written),
            cached_tokens: as_i64(cost.cached),
            cost_micro_usd: app.prices.rerank_cost_micro_usd(model, &usage, cost.searches),
            reported: cost.reported,
            latency_ms: i64::try_from(latency.as_millis()).unwrap_or(i64::MAX),
            ..Self::of(app, holders, channel, UsageKind::Rerank, model)
        }
    }

    /// What this call takes from a budget.
    pub fn spend(&self) -> Spend {
        if self.local {
            return Spend::default();
        }
        let tokens = self
            .prompt_tokens
            .saturating_add(self.completion_tokens)
            .saturating_add(self.embedding_tokens);
        // Whose vendor counts no tokens has a length all the same.
        let tokens = if tokens == 0 {
            self.audio_seconds.saturating_mul(TOKENS_PER_AUDIO_SECOND)
        } else {
            tokens
        };
        Spend {
            tokens,
            micro_usd: self.cost_micro_usd,
        }
    }
}
