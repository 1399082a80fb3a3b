//! Any server that speaks OpenAI's embeddings API (`POST {base_url}/embeddings`), or the one of Hugging Face's Text Embeddings
//! Inference (`POST {base_url}/embed`).

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::encoder::normalise;
use super::tokenizer::shorten;
use super::{Answered, Asker, EmbedError, Embedder, Embeddings, Prefixes, estimate_tokens};
use crate::BoxFuture;
use crate::analysis::Language;
use crate::remote::{CallError, Endpoint, believable, shown, unreadable};

/// Estimated tokens of one request at most; vendors refuse larger ones.
const REQUEST_TOKENS: usize = 100_000;

/// Requests of one bulk that are under way at once.
const REQUESTS_AT_ONCE: usize = 4;

/// Requests of all bulks that are under way at once. Questions are not held up by them.
const BULK_REQUESTS_AT_ONCE: usize = 8;

/// How long a call for many texts takes at most, its waiting for other calls included: whoever set money aside for it may
/// count on it. Requests that have not begun by then are not made.
const LONGEST_BULK: Duration = Duration::from_secs(600);

/// Further requests by which a call finds out which of its texts are refused.
const SEARCHING_REQUESTS: usize = 32;

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
    /// How long one request may take, its retries included.
    pub timeout: Duration,
    /// Tokens of one text at most; longer ones are cut, by estimate.
    pub max_tokens: usize,
    /// What stands before each text. No server adds it.
    pub prefixes: Prefixes,
    /// The languages that the model reads; `None`: all. No server tells it.
    pub languages: Option<Vec<Language>>,
}

impl std::fmt::Debug for OpenAiEmbedderOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("OpenAiEmbedderOptions")
            .field("base_url", &shown(&self.base_url))
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
    bulk_places: Semaphore,
    longest_bulk: Duration,
}

/// A call for many texts, while its requests are under way.
struct Bulk<'a> {
    embedder: &'a OpenAiEmbedder,
    texts: &'a [String],
    deadline: Instant,
    /// No further request begins.
    has_failed: AtomicBool,
    /// Left of [`SEARCHING_REQUESTS`].
    searches: AtomicUsize,
}

/// What became of neighbouring texts.
struct Part {
    range: Range<usize>,
    came_to: Result<Embeddings, Failure>,
}

/// Why a request gave no vectors.
struct Failure {
    error: EmbedError,
    /// One of the texts is at fault, rather than who asks or the server.
    of_texts: bool,
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
        Ok(Self {
            endpoint,
            options,
            bulk_places: Semaphore::new(BULK_REQUESTS_AT_ONCE),
            longest_bulk: LONGEST_BULK,
        })
    }

    async fn embed_one(&self, mut text: String) -> Result<Embeddings, EmbedError> {
        text.insert_str(0, &self.options.prefixes.query);
        make_acceptable(&mut text, self.options.max_tokens);
        let deadline = Instant::now() + self.options.timeout;
        let embedded = self.request(&[text], deadline).await;
        embedded.map_err(|failure| failure.error)
    }

    async fn embed_many(&self, mut texts: Vec<String>) -> Result<Embeddings, EmbedError> {
        for text in &mut texts {
            text.insert_str(0, &self.options.prefixes.document);
            make_acceptable(text, self.options.max_tokens);
        }
        let batch_size = match self.options.protocol {
            Protocol::OpenAi => self.options.batch_size,
            Protocol::Tei => self.options.batch_size.min(TEI_BATCH),
        };
        let bulk = Bulk {
            embedder: self,
            texts: &texts,
            deadline: Instant::now() + self.longest_bulk,
            has_failed: AtomicBool::new(false),
            searches: AtomicUsize::new(SEARCHING_REQUESTS),
        };
        // Those under way when one fails are waited for, since they are paid for; dropping the stream, with the caller,
        // ends them.
        let parts: Vec<Vec<Part>> = stream::iter(into_batches(&texts, batch_size))
            .map(|range| bulk.embed(range))
            .buffered(REQUESTS_AT_ONCE)
            .collect()
            .await;
        joined(texts.len(), parts.into_iter().flatten())
    }

    async fn request(&self, texts: &[String], deadline: Instant) -> Result<Embeddings, Failure> {
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
        let body = body.map_err(|error| Failure::from(EmbedError::unavailable(error)))?;
        let limit = texts.len() * self.options.dimension * BYTES_PER_VALUE + BYTES_AROUND;
        let bytes = self.endpoint.post(&body, limit, deadline).await?;
        let reply = match self.options.protocol {
            Protocol::OpenAi => serde_json::from_slice(&bytes),
            Protocol::Tei => serde_json::from_slice(&bytes).map(Reply::in_order),
        };
        let reply = reply.map_err(|error| EmbedError::BadVectors {
            reason: unreadable(&error),
        })?;
        Ok(self.accept(reply, texts)?)
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
        let reported = believable(reply.usage.and_then(|usage| usage.prompt_tokens));
        let counted = || texts.iter().map(|text| estimate_tokens(text) as u64).sum();
        Ok(Embeddings {
            vectors,
            tokens: reported.unwrap_or_else(counted),
            reported: reported.is_some(),
        })
    }
}

impl<'a> Bulk<'a> {
    /// Asks for the texts of a range. Where they are refused, halves are asked for, and halves of these, until it is known
    /// which of them are at fault.
    fn embed(&self, range: Range<usize>) -> BoxFuture<'_, Vec<Part>> {
        Box::pin(async move {
            let came_to = self.request(range.clone()).await;
            match &came_to {
                Err(failure) if failure.of_texts && range.len() > 1 && self.may_search() => {
                    let middle = range.start + range.len() / 2;
                    let mut parts = self.embed(range.start..middle).await;
                    parts.extend(self.embed(middle..range.end).await);
                    return parts;
                }
                Err(failure) if !failure.of_texts => self.has_failed.store(true, Ordering::Relaxed),
                _ => {}
            }
            vec![Part { range, came_to }]
        })
    }

    async fn request(&self, range: Range<usize>) -> Result<Embeddings, Failure> {
        let unavailable = |reason: &'static str| Failure::from(EmbedError::unavailable(reason));
        let place = timeout_at(self.deadline, self.embedder.bulk_places.acquire());
        let Ok(_place) = place.await else {
            return Err(unavailable("other calls took all the time that this one has"));
        };
        if self.has_failed.load(Ordering::Relaxed) {
            return Err(unavailable("another request of the same call failed"));
        }
        let deadline = self.deadline.min(Instant::now() + self.embedder.options.timeout);
        self.embedder.request(&self.texts[range], deadline).await
    }

    /// Whether two further requests may be spent on finding out which texts are refused.
    fn may_search(&self) -> bool {
        let spend = |left: usize| left.checked_sub(2);
        self.searches
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend)
            .is_ok()
    }
}

/// The answers as one, or what was answered and the failure that says most: one of the server before one of a text, the
/// first before those that followed from it.
fn joined(texts: usize, parts: impl Iterator<Item = Part>) -> Result<Embeddings, EmbedError> {
    let mut answered = Answered {
        vectors: vec![None; texts],
        reported: true,
        ..Answered::default()
    };
    let (mut of_server, mut of_texts) = (None, None);
    let mut is_answered = false;
    for Part { range, came_to } in parts {
        match came_to {
            Ok(part) => {
                is_answered = true;
                for (place, vector) in range.zip(part.vectors) {
                    answered.vectors[place] = Some(vector);
                }
                answered.tokens = answered.tokens.saturating_add(part.tokens);
                answered.reported &= part.reported;
            }
            Err(Failure {
                error,
                of_texts: true,
            }) => {
                if range.len() == 1 {
                    answered.refused.push(range.start);
                }
                of_texts.get_or_insert(error);
            }
            // What may have cost something says most about the whole.
            Err(Failure { error, .. }) if of_server.is_none() || error.may_have_cost() => {
                of_server = Some(error)
            }
            Err(_) => {}
        }
    }
    let Some(error) = of_server.or(of_texts) else {
        let vectors = answered.vectors.into_iter().flatten().collect();
        return Ok(Embeddings {
            vectors,
            tokens: answered.tokens,
            reported: answered.reported && texts > 0,
        });
    };
    if !is_answered && answered.refused.is_empty() {
        return Err(error);
    }
    answered.reported &= is_answered;
    Err(EmbedError::Broken {
        answered: Box::new(answered),
        cause: Box::new(error),
    })
}

impl Embedder for OpenAiEmbedder {
    fn model_id(&self) -> &str {
        &self.options.model
    }

    fn dimension(&self) -> usize {
        self.options.dimension
    }

    fn max_tokens(&self) -> usize {
        let prefix = estimate_tokens(&self.options.prefixes.document);
        self.options.max_tokens.saturating_sub(prefix)
    }

    fn query_prefix(&self) -> &str {
        &self.options.prefixes.query
    }

    fn document_prefix(&self) -> &str {
        &self.options.prefixes.document
    }

    fn languages(&self) -> Option<&[Language]> {
        self.options.languages.as_deref()
    }

    fn count_tokens(&self, text: &str) -> usize {
        estimate_tokens(text)
    }

    fn embed_query(&self, _asker: Asker, text: String) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(self.embed_one(text))
    }

    fn embed_documents(
        &self,
        _asker: Asker,
        texts: Vec<String>,
    ) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(self.embed_many(texts))
    }
}

impl From<EmbedError> for Failure {
    fn from(error: EmbedError) -> Self {
        Self {
            error,
            of_texts: false,
        }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let mut of_texts = false;
        let error = match error {
            CallError::Unavailable { retry_after, source } => EmbedError::Unavailable { retry_after, source },
            CallError::TimedOut => EmbedError::TooLate,
            CallError::Denied { reason } => EmbedError::Denied { reason },
            CallError::Refused { reason } => {
                of_texts = true;
                EmbedError::Refused { reason }
            }
            CallError::Unreadable { reason } => EmbedError::BadVectors { reason },
        };
        Self { error, of_texts }
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
        let tokens = estimate_tokens(text);
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
