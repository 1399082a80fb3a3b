//! Any server that speaks OpenAI's embeddings API (`POST {base_url}/embeddings`), or the one of Hugging Face's Text Embeddings
//! Inference (`POST {base_url}/embed`).

use std::future::ready;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use url::Url;

use super::encoder::normalise;
use super::tokenizer::shorten;
use super::{EmbedError, Embedder, Embeddings, estimate_tokens};
use crate::BoxFuture;
use crate::remote::{CallError, Endpoint};

/// Estimated tokens of one request at most; vendors refuse larger ones.
const REQUEST_TOKENS: usize = 100_000;

/// Requests of one bulk that are under way at once.
const REQUESTS_AT_ONCE: usize = 4;

/// Room for one value of a vector in JSON, and for what surrounds the vectors.
const BYTES_PER_VALUE: usize = 32;
const BYTES_AROUND: usize = 64 << 10;

/// Texts of one request that Text Embeddings Inference takes unless it is told otherwise.
const TEI_BATCH: usize = 32;

/// How a server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    OpenAi,
    /// Text Embeddings Inference's own, which names no model: the server has one.
    Tei,
}

/// Which server, which model, and its limits.
#[derive(Clone)]
pub struct OpenAiEmbedderOptions {
    pub protocol: Protocol,
    /// Up to and including the version, e.g. `https://api.openai.com/v1`.
    pub base_url: Url,
    pub api_key: Option<String>,
    pub model: String,
    /// Length of the model's vectors; an answer of another length is refused.
    pub dimension: usize,
    /// Texts of one request at most.
    pub batch_size: usize,
    /// How long one call may take, its retries included.
    pub timeout: Duration,
    /// Tokens of one text at most; longer ones are cut, by estimate.
    pub max_tokens: usize,
}

impl std::fmt::Debug for OpenAiEmbedderOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("OpenAiEmbedderOptions")
            .field("base_url", &self.base_url.as_str())
            .field("api_key", &self.api_key.as_ref().map(|_| "…"))
            .field("model", &self.model)
            .field("dimension", &self.dimension)
            .finish_non_exhaustive()
    }
}

/// A remote embedding model.
pub struct OpenAiEmbedder {
    endpoint: Endpoint,
    options: OpenAiEmbedderOptions,
}

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    input: &'a [String],
    encoding_format: &'static str,
}

#[derive(Serialize)]
struct TeiRequest<'a> {
    inputs: &'a [String],
    truncate: bool,
    normalize: bool,
}

#[derive(Deserialize)]
struct Reply {
    data: Vec<Entry>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Entry {
    index: usize,
    embedding: Vec<f32>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
}

impl Reply {
    /// Of vectors alone, one for each text in its place.
    fn in_order(vectors: Vec<Vec<f32>>) -> Self {
        let entry = |(index, embedding)| Entry { index, embedding };
        Self {
            data: vectors.into_iter().enumerate().map(entry).collect(),
            usage: None,
        }
    }
}

impl OpenAiEmbedder {
    /// Makes the client; no request is sent yet.
    pub fn new(options: OpenAiEmbedderOptions) -> Result<Self, EmbedError> {
        let path = match options.protocol {
            Protocol::OpenAi => "embeddings",
            Protocol::Tei => "embed",
        };
        let endpoint = Endpoint::new(&options.base_url, path, options.api_key.as_deref())
            .map_err(|reason| EmbedError::Refused { reason })?;
        Ok(Self { endpoint, options })
    }

    async fn embed(&self, mut texts: Vec<String>) -> Result<Embeddings, EmbedError> {
        texts
            .iter_mut()
            .for_each(|text| make_acceptable(text, self.options.max_tokens));
        let batch_size = match self.options.protocol {
            Protocol::OpenAi => self.options.batch_size,
            Protocol::Tei => self.options.batch_size.min(TEI_BATCH),
        };
        let batches = into_batches(&texts, batch_size);
        let deadline = Instant::now() + self.options.timeout;
        let has_failed = AtomicBool::new(false);
        // After a failure no further request begins. Those under way are waited for, since they are paid for; dropping
        // the stream, with the caller, ends them.
        let done: Vec<Result<Embeddings, EmbedError>> = stream::iter(batches)
            .take_while(|_| ready(!has_failed.load(Ordering::Relaxed)))
            .map(|batch| async {
                let answered = self.embed_batch(&texts[batch], deadline).await;
                has_failed.fetch_or(answered.is_err(), Ordering::Relaxed);
                answered
            })
            .buffered(REQUESTS_AT_ONCE)
            .collect()
            .await;
        joined(done)
    }

    async fn embed_batch(&self, texts: &[String], deadline: Instant) -> Result<Embeddings, EmbedError> {
        let body = match self.options.protocol {
            Protocol::OpenAi => serde_json::to_vec(&Request {
                model: &self.options.model,
                input: texts,
                encoding_format: "float",
            }),
            Protocol::Tei => serde_json::to_vec(&TeiRequest {
                inputs: texts,
                truncate: true,
                normalize: true,
            }),
        };
        let body = body.map_err(EmbedError::unavailable)?;
        let limit = texts.len() * self.options.dimension * BYTES_PER_VALUE + BYTES_AROUND;
        let bytes = self.endpoint.post(&body, limit, deadline).await?;
        let reply = match self.options.protocol {
            Protocol::OpenAi => serde_json::from_slice(&bytes),
            Protocol::Tei => serde_json::from_slice(&bytes).map(Reply::in_order),
        };
        let reply = reply.map_err(|error| EmbedError::BadVectors {
            reason: format!("the answer cannot be read: {error}"),
        })?;
        self.accept(reply, texts)
    }

    /// Vectors in the order of the texts, or the reason why they are not taken.
    fn accept(&self, reply: Reply, texts: &[String]) -> Result<Embeddings, EmbedError> {
        let bad = |reason: String| Err(EmbedError::BadVectors { reason });
        let mut vectors: Vec<Option<Vec<f32>>> = vec![None; texts.len()];
        for Entry { index, mut embedding } in reply.data {
            if embedding.len() != self.options.dimension {
                return bad(format!(
                    "{} values instead of {}",
                    embedding.len(),
                    self.options.dimension
                ));
            }
            normalise(&mut embedding);
            if !embedding.iter().all(|value| value.is_finite()) || embedding.iter().all(|value| *value == 0.0)
            {
                return bad("a vector without direction".to_owned());
            }
            match vectors.get_mut(index) {
                Some(place @ None) => *place = Some(embedding),
                Some(Some(_)) => return bad(format!("two vectors for text {index}")),
                None => return bad(format!("a vector for text {index} of {}", texts.len())),
            }
        }
        let Some(vectors) = vectors.into_iter().collect::<Option<Vec<_>>>() else {
            return bad("a text without a vector".to_owned());
        };
        let reported = reply.usage.and_then(|usage| usage.prompt_tokens);
        let counted = || texts.iter().map(|text| estimate_tokens(text) as u64).sum();
        Ok(Embeddings {
            vectors,
            tokens: reported.unwrap_or_else(counted),
            reported: reported.is_some(),
        })
    }
}

/// The answers as one, or the first failure and what the others took.
fn joined(parts: Vec<Result<Embeddings, EmbedError>>) -> Result<Embeddings, EmbedError> {
    let mut all = Embeddings {
        vectors: Vec::new(),
        tokens: 0,
        reported: !parts.is_empty(),
    };
    let mut failure = None;
    for part in parts {
        match part {
            Ok(part) => {
                all.vectors.extend(part.vectors);
                all.tokens += part.tokens;
                all.reported &= part.reported;
            }
            Err(error) => {
                failure.get_or_insert(error);
            }
        }
    }
    match failure {
        None => Ok(all),
        Some(error) if all.tokens == 0 => Err(error),
        Some(error) => Err(EmbedError::Broken {
            tokens: all.tokens,
            reported: all.reported,
            cause: Box::new(error),
        }),
    }
}

impl Embedder for OpenAiEmbedder {
    fn model_id(&self) -> &str {
        &self.options.model
    }

    fn dimension(&self) -> usize {
        self.options.dimension
    }

    fn max_tokens(&self) -> usize {
        self.options.max_tokens
    }

    fn count_tokens(&self, text: &str) -> usize {
        estimate_tokens(text)
    }

    fn embed_query(&self, text: String) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(self.embed(vec![text]))
    }

    fn embed_documents(&self, texts: Vec<String>) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(self.embed(texts))
    }
}

impl From<CallError> for EmbedError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Unavailable { retry_after, source } => Self::Unavailable { retry_after, source },
            CallError::Refused { reason } => Self::Refused { reason },
            CallError::Unreadable { reason } => Self::BadVectors { reason },
        }
    }
}

/// Servers refuse texts that are too long or empty.
fn make_acceptable(text: &mut String, max_tokens: usize) {
    let kept = shorten(text, max_tokens).len();
    text.truncate(kept);
    if text.trim().is_empty() {
        " ".clone_into(text);
    }
}

/// Ranges of neighbouring texts that fit into one request each.
fn into_batches(texts: &[String], batch_size: usize) -> Vec<Range<usize>> {
    let mut batches: Vec<Range<usize>> = Vec::new();
    let mut tokens_in_last = 0;
    for (place, text) in texts.iter().enumerate() {
        // A question alone needs no estimate.
        let tokens = if texts.len() == 1 {
            0
        } else {
            estimate_tokens(text)
        };
        match batches.last_mut() {
            Some(last) if last.len() < batch_size && tokens_in_last + tokens <= REQUEST_TOKENS => {
                last.end = place + 1;
                tokens_in_last += tokens;
            }
            _ => {
                batches.push(place..place + 1);
                tokens_in_last = tokens;
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests;
