//! Chat-completion models behind one trait, and the counting of tokens.
//!
//! The rest of the service sees a model as [`ChatModel`]: a prompt goes in, text and token counts come out, and a
//! failure says what its caller can do about it. Whatever a vendor does differently ends in this room.

mod body;
pub mod openai;
mod retry;
mod stream;
pub mod tokens;
mod transport;
mod vocabulary;
mod wire;

use std::borrow::Cow;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::error::Error;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a caller who was told no time waits before trying again.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(5);

/// A model that answers prompts.
pub trait ChatModel: Send + Sync + 'static {
    /// Answers in one piece. Dropping the future ends the request.
    fn complete(&self, request: ChatRequest) -> BoxFuture<'_, Result<Completion, ProviderError>>;

    /// Answers piece by piece.
    ///
    /// The future ends when the first piece is there (or the answer ended without one), so everything that may be
    /// tried again has been. The stream then yields text, at most one [`ModelEvent::Usage`], and ends with
    /// [`ModelEvent::Finished`] or an error. Dropping either ends the request.
    fn stream(&self, request: ChatRequest) -> BoxFuture<'_, Result<ModelStream, ProviderError>>;
}

/// A running answer.
pub type ModelStream = BoxStream<'static, Result<ModelEvent, ProviderError>>;

/// What is asked of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatRequest {
    /// The model's name, as its server knows it.
    pub model: String,
    /// The prompt, oldest first.
    pub messages: Vec<PromptMessage>,
    /// 0 to 2; none leaves it to the server.
    pub temperature: Option<f64>,
    /// Where the model stops.
    pub max_answer_tokens: usize,
}

/// One message of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptMessage {
    /// Who speaks.
    pub role: PromptRole,
    /// What is said.
    pub content: String,
}

/// Who speaks in a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptRole {
    /// The chatbot's owner and we.
    System,
    /// The visitor.
    User,
    /// The model, earlier.
    Assistant,
}

/// Tokens of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenUsage {
    /// Tokens read, cached ones included.
    pub prompt: u64,
    /// Tokens written.
    pub completion: u64,
    /// Tokens read that the vendor had cached: a part of `prompt`.
    pub cached: u64,
    /// Whether the vendor says so; otherwise we counted.
    pub reported: bool,
}

impl TokenUsage {
    /// What we count ourselves when the vendor says nothing.
    pub fn counted(prompt: usize, completion: usize) -> Self {
        Self {
            prompt: prompt as u64,
            completion: completion as u64,
            cached: 0,
            reported: false,
        }
    }
}

/// One event of a running answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelEvent {
    /// More text: never empty, never half a character.
    Delta(String),
    /// What the call cost, when the vendor says it.
    Usage(TokenUsage),
    /// The answer is whole. Always the last event.
    Finished(FinishReason),
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The text; empty when the model gave none.
    pub text: String,
    /// What the call cost, when the vendor says it.
    pub usage: Option<TokenUsage>,
    /// Why the text ends.
    pub finish: FinishReason,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model was done.
    Stop,
    /// The token limit was reached.
    Length,
    /// The model wants tools called.
    ToolCalls,
    /// The vendor withheld the answer, or the model refused to give one.
    ContentFilter,
    /// Something this version does not know.
    Other,
}

/// Which time limit ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before the first token.
    FirstToken,
    /// Between two tokens.
    Idle,
    /// The whole call.
    Total,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::FirstToken => "waiting for the first token",
            Self::Idle => "waiting for the next token",
            Self::Total => "waiting for the whole answer",
        })
    }
}

/// The code of [`ProviderError::QuotaExhausted`].
pub const QUOTA_EXHAUSTED: &str = "model_quota_exhausted";

/// Why a model gave no answer, or not all of one.
///
/// The messages hold nothing that the model's server said, so they may be shown.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// Overloaded, limited or not reachable: try again, after `retry_after` if the server said so.
    #[error("the model is not available right now")]
    Unavailable {
        retry_after: Option<Duration>,
        #[source]
        source: BoxError,
    },
    /// Wrong key, unknown model, a request that is not accepted: the same call fails again.
    #[error("the model's server refused the request: {reason}")]
    Refused { reason: Cow<'static, str> },
    /// The prompt does not fit the model's window: pack less.
    #[error("the prompt is longer than the model's window")]
    ContextTooLong,
    /// The account at the vendor has nothing left: its owner must act.
    #[error("the quota at the model's vendor is used up")]
    QuotaExhausted,
    /// The connection was cut after text had been sent.
    #[error("the model's answer was cut off")]
    Interrupted,
    /// What came is not an answer.
    #[error("the model's server sent something unreadable: {reason}")]
    Unreadable { reason: Cow<'static, str> },
    /// A time limit ran out.
    #[error("the model took too long, {phase}")]
    TimedOut { phase: Phase },
}

impl ProviderError {
    fn unreadable(reason: &'static str) -> Self {
        Self::Unreadable {
            reason: reason.into(),
        }
    }

    /// The stable code in problems, `error` events and failed messages.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "model_unavailable",
            Self::Refused { .. } => "model_refused",
            Self::ContextTooLong => "context_too_long",
            Self::QuotaExhausted => QUOTA_EXHAUSTED,
            Self::Interrupted => "model_interrupted",
            Self::Unreadable { .. } => "model_unreadable",
            Self::TimedOut { .. } => "model_timed_out",
        }
    }
}

impl From<ProviderError> for Error {
    fn from(error: ProviderError) -> Self {
        let (code, message) = (error.code(), error.to_string().into());
        match error {
            ProviderError::Unavailable { retry_after, source } => Self::Unavailable {
                code,
                message,
                retry_after: retry_after.unwrap_or(DEFAULT_RETRY_AFTER),
                source: Some(source),
            },
            ProviderError::TimedOut { .. } => Self::Unavailable {
                code,
                message,
                retry_after: DEFAULT_RETRY_AFTER,
                source: None,
            },
            ProviderError::Refused { .. }
            | ProviderError::ContextTooLong
            | ProviderError::QuotaExhausted
            | ProviderError::Interrupted
            | ProviderError::Unreadable { .. } => Self::Upstream {
                code,
                message,
                source: None,
            },
        }
    }
}
