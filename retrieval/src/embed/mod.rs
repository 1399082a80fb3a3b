//! Texts to vectors: the trait, what it returns, and its implementations.
//!
//! [`LocalEmbedder`] runs all-MiniLM-L6-v2 or a model of its family on this machine's CPU, [`OpenAiEmbedder`] asks any
//! server that speaks OpenAI's embeddings API. A deployment without either counts tokens by [`estimate_tokens`].
//!
//! A local model goes from `model` (what its directory says) and `weights` through `encoder`, which is made of `attention`
//! and products with packed weights (`matrix`), down to the tiles of `simd` and the loops of `elementwise`.

mod attention;
mod distill;
mod elementwise;
mod encoder;
mod fingerprint;
mod local;
mod matrix;
mod model;
mod openai;
mod principal;
mod queue;
mod simd;
mod static_model;
mod table;
mod tokenizer;
mod turns;
mod unrelated;
mod weights;

use std::time::Duration;

pub use self::distill::{DistillError, Distilled, distill};
pub use self::local::{LocalEmbedder, LocalOptions};
pub use self::matrix::Precision;
pub use self::model::Prefixes;
pub use self::openai::{OpenAiEmbedder, OpenAiEmbedderOptions, Protocol};
pub use self::static_model::StaticEmbedder;
pub(crate) use self::tokenizer::shorten;
pub use self::tokenizer::{LoadError, Tokenizer, estimate_tokens};
use crate::analysis::Language;
use crate::{BoxError, BoxFuture, TenantId};

/// For whom texts are embedded. Askers share a model on this machine by turns: whatever one of them wants embedded, the
/// others wait for a moment's work of it at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    Tenant(TenantId),
    /// The deployment itself: what concerns the model, or is measured with it.
    Service,
}

impl From<TenantId> for Asker {
    fn from(tenant_id: TenantId) -> Self {
        Self::Tenant(tenant_id)
    }
}

/// Turns texts into vectors of one named model. Vectors of two models, or of two dimensions, are never comparable.
pub trait Embedder: Send + Sync + 'static {
    /// The model's name, e.g. `all-MiniLM-L6-v2`. Part of the name of every index that holds its vectors.
    fn model_id(&self) -> &str;

    /// Tells these weights, and how they are computed with, from others under the same name; `None`: nothing does.
    fn fingerprint(&self) -> Option<&str> {
        None
    }

    /// Length of each vector.
    fn dimension(&self) -> usize;

    /// Tokens of one text that the model reads; what lies behind them has no influence on the vector.
    /// Special tokens and the document prefix are already subtracted.
    fn max_tokens(&self) -> usize;

    /// What the model reads before a question; added by [`Embedder::embed_query`] itself.
    fn query_prefix(&self) -> &str {
        ""
    }

    /// What the model reads before a document; added by [`Embedder::embed_documents`] itself.
    fn document_prefix(&self) -> &str {
        ""
    }

    /// The languages that the model reads; `None`: all.
    fn languages(&self) -> Option<&[Language]> {
        None
    }

    /// How near texts are to it on average that have nothing to do with each other, as a cosine. Costs the embedding of twenty
    /// sentences: ask once and keep it.
    fn unrelated(&self) -> BoxFuture<'_, Result<f32, EmbedError>> {
        Box::pin(unrelated::measure(self))
    }

    /// Whether making a vector costs more than keeping and looking up one that was made before.
    fn is_worth_keeping(&self) -> bool {
        true
    }

    /// Tokens in `text` without special tokens: exact for a local model, [`estimate_tokens`] for a remote one.
    fn count_tokens(&self, text: &str) -> usize;

    /// Embeds one question. Never waits behind a running bulk of documents. A model on this machine reads 256 tokens of a
    /// longer one at most, of its beginning and its end, a server as many from the beginning as `max_tokens` says.
    fn embed_query(&self, asker: Asker, text: String) -> BoxFuture<'_, Result<Embeddings, EmbedError>>;

    /// Embeds many texts; the vectors come back in the order of the texts.
    fn embed_documents(
        &self,
        asker: Asker,
        texts: Vec<String>,
    ) -> BoxFuture<'_, Result<Embeddings, EmbedError>>;
}

/// Vectors and what they cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Embeddings {
    /// `[texts][dimension]`, each of unit length, in the order of the texts.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens consumed by the call.
    pub tokens: u64,
    /// True when `tokens` is the provider's own figure, false when it was counted here.
    pub reported: bool,
}

/// Why there are no vectors.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// Timeout, overload, rate limit, shut down: try again, after `retry_after` if the provider said so.
    #[error("embedding model unavailable")]
    Unavailable {
        retry_after: Option<Duration>,
        #[source]
        source: BoxError,
    },
    /// It was still at work when the time was up: it may have to be paid.
    #[error("embedding model took longer than there was time")]
    TooLate,
    /// A wrong key, nothing left of what was paid for, an unknown model or address, vectors of another length: every call fails
    /// until the operator changes that.
    #[error("embedding model may not be asked: {reason}")]
    Denied { reason: String },
    /// Text the provider will not take: the same call fails again.
    #[error("embedding model refused the request: {reason}")]
    Refused { reason: String },
    /// The answer is no set of vectors of this model: store nothing of it.
    #[error("embedding model gave unusable vectors: {reason}")]
    BadVectors { reason: String },
    /// A part failed, for `cause`; the rest was answered.
    #[error("embedding model answered only a part")]
    Broken {
        answered: Box<Answered>,
        #[source]
        cause: Box<Self>,
    },
}

/// What was answered of a call that failed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answered {
    /// In the places of their texts, of unit length; `None`: ask for it again.
    pub vectors: Vec<Option<Vec<f32>>>,
    /// As in [`Embeddings`].
    pub tokens: u64,
    pub reported: bool,
    /// Places of the texts that the model refuses, each by itself: they are refused again.
    pub refused: Vec<usize>,
}

impl EmbedError {
    /// Tokens that were consumed all the same, and whether the provider said so.
    pub fn spent(&self) -> (u64, bool) {
        match self {
            Self::Broken { answered, .. } => (answered.tokens, answered.reported),
            Self::Unavailable { .. }
            | Self::TooLate
            | Self::Denied { .. }
            | Self::Refused { .. }
            | Self::BadVectors { .. } => (0, false),
        }
    }

    /// Whether a provider worked on what it did not answer, or not with anything of use: no more than the whole call could
    /// take is to be paid, and nobody said how much.
    pub fn may_have_cost(&self) -> bool {
        match self {
            Self::TooLate | Self::BadVectors { .. } => true,
            Self::Broken { cause, .. } => cause.may_have_cost(),
            Self::Unavailable { .. } | Self::Denied { .. } | Self::Refused { .. } => false,
        }
    }

    /// Whether something of what was asked for took too long.
    pub fn is_too_late(&self) -> bool {
        match self {
            Self::TooLate => true,
            Self::Broken { cause, .. } => cause.is_too_late(),
            Self::Unavailable { .. }
            | Self::Denied { .. }
            | Self::Refused { .. }
            | Self::BadVectors { .. } => false,
        }
    }

    /// Why the provider may not be asked at all, if that is what it says.
    pub fn denial(&self) -> Option<&str> {
        match self {
            Self::Denied { reason } => Some(reason),
            Self::Broken { cause, .. } => cause.denial(),
            Self::Unavailable { .. } | Self::TooLate | Self::Refused { .. } | Self::BadVectors { .. } => None,
        }
    }

    /// Takes what was answered all the same, in the places of the texts.
    pub fn take_answered(&mut self) -> Vec<Option<Vec<f32>>> {
        match self {
            Self::Broken { answered, .. } => std::mem::take(&mut answered.vectors),
            Self::Unavailable { .. }
            | Self::TooLate
            | Self::Denied { .. }
            | Self::Refused { .. }
            | Self::BadVectors { .. } => Vec::new(),
        }
    }

    fn unavailable(source: impl Into<BoxError>) -> Self {
        Self::Unavailable {
            retry_after: None,
            source: source.into(),
        }
    }
}
