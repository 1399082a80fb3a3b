//! Any server that speaks OpenAI's embeddings API (`POST {base_url}/embeddings`), or the one of Hugging Face's Text Embeddings
//! Inference (`POST {base_url}/embed`).

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
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

/// A text that no model refuses: where it is refused, how the server is asked is wrong, and no text.
const HARMLESS: &str = "hello";

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
    /// The server let nobody ask, or how it is asked was found to be wrong: a call for many texts asks for a harmless one first,
    /// which costs next to nothing, until that is answered.
    is_in_doubt: AtomicBool,
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
    /// Whether a harmless text is taken; none: nobody asked as yet.
    takes_any: Mutex<Option<bool>>,
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
    /// Tokens of an answer that is of no use, and whether the server said how many.
    spent: (u64, bool),
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
            is_in_doubt: AtomicBool::new(false),
        })
    }

    async fn embed_one(&self, mut text: String) -> Result<Embeddings, EmbedError> {
        text.insert_str(0, &self.options.prefixes.query);
        make_acceptable(&mut text, self.options.max_tokens);
        let deadline = Instant::now() + self.options.timeout;
        let embedded = match self.request(&[text], deadline).await {
            Err(failure) if failure.of_texts => match self.ask_harmless(deadline).await {
                Ok(harmless) => Err(Failure {
                    spent: (harmless.tokens, harmless.reported),
                    ..failure
                }),
                Err(setting) => Err(setting),
            },
            embedded => embedded,
        };
        embedded.map_err(Failure::into_error)
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
            takes_any: Mutex::new(None),
        };
        let mut parts = Vec::new();
        if self.is_in_doubt.load(Ordering::Relaxed) {
            let checked = bulk.check().await.map_err(Failure::into_error)?;
            parts.extend(checked);
        }
        // Those under way when one fails are waited for, since they are paid for; dropping the stream, with the caller,
        // ends them.
        let of_batches: Vec<Vec<Part>> = stream::iter(into_batches(&texts, batch_size))
            .map(|range| bulk.embed(range))
            .buffered(REQUESTS_AT_ONCE)
            .collect()
            .await;
        joined(
            texts.len(),
            parts.into_iter().chain(of_batches.into_iter().flatten()),
        )
    }

    /// Asks for a text that no model refuses: no vectors, and what it took. An error is not of texts: where it is refused, how
    /// the server is asked is wrong.
    async fn ask_harmless(&self, deadline: Instant) -> Result<Embeddings, Failure> {
        let mut text = format!("{}{HARMLESS}", self.options.prefixes.document);
        make_acceptable(&mut text, self.options.max_tokens);
        match self.request(&[text], deadline).await {
            Ok(embeddings) => {
                self.is_in_doubt.store(false, Ordering::Relaxed);
                Ok(Embeddings {
                    vectors: Vec::new(),
                    ..embeddings
                })
            }
            Err(Failure {
                error: EmbedError::Refused { reason },
                ..
            }) => {
                self.is_in_doubt.store(true, Ordering::Relaxed);
                let reason = format!(
                    "{reason}, not even for one short word: check the key, the name of the model and the address"
                );
                Err(EmbedError::Denied { reason }.into())
            }
            Err(failure) => Err(failure),
        }
    }

    async fn request(&self, texts: &[String], deadline: Instant) -> Result<Embeddings, Failure> {
        let asked = self.ask(texts, deadline).await;
        if asked
            .as_ref()
            .is_err_and(|failure| failure.error.denial().is_some())
        {
            self.is_in_doubt.store(true, Ordering::Relaxed);
        }
        asked
    }

    async fn ask(&self, texts: &[String], deadline: Instant) -> Result<Embeddings, Failure> {
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
        self.accept(reply, texts)
    }

    /// Vectors in the order of the texts, or the reason why they are not taken.
    fn accept(&self, reply: Reply, texts: &[String]) -> Result<Embeddings, Failure> {
        let bad = |reason: String| Err(Failure::from(EmbedError::BadVectors { reason }));
        let reported = believable(reply.usage.and_then(|usage| usage.prompt_tokens));
        let counted = || texts.iter().map(|text| estimate_tokens(text) as u64).sum();
        let tokens = reported.unwrap_or_else(counted);
        let mut vectors: Vec<Option<Vec<f32>>> = vec![None; texts.len()];
        for Entry { index, mut embedding } in reply.data {
            let (given, wanted) = (embedding.len(), self.options.dimension);
            if given != wanted {
                let reason = format!(
                    "its vectors have {given} values and not {wanted}: check the dimension and the name of the model"
                );
                return Err(Failure {
                    spent: (tokens, reported.is_some()),
                    ..EmbedError::Denied { reason }.into()
                });
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
        Ok(Embeddings {
            vectors,
            tokens,
            reported: reported.is_some(),
        })
    }
}

impl<'a> Bulk<'a> {
    /// Asks for the texts of a range. Where they are refused, and not because anything would be, halves are asked for, and halves
    /// of these, until it is known which of them are at fault.
    fn embed(&self, range: Range<usize>) -> BoxFuture<'_, Vec<Part>> {
        Box::pin(async move {
            let came_to = self.request(range.clone()).await;
            let is_of_texts = |failure: &Failure| failure.of_texts;
            if !came_to.as_ref().is_err_and(is_of_texts) {
                if came_to.is_err() {
                    self.has_failed.store(true, Ordering::Relaxed);
                }
                return vec![Part { range, came_to }];
            }
            let mut parts = match self.check().await {
                Ok(checked) => Vec::from_iter(checked),
                Err(setting) => {
                    let came_to = Err(setting);
                    return vec![Part { range, came_to }];
                }
            };
            if range.len() == 1 || !self.may_search() {
                parts.push(Part { range, came_to });
                return parts;
            }
            let middle = range.start + range.len() / 2;
            parts.extend(self.embed(range.start..middle).await);
            parts.extend(self.embed(middle..range.end).await);
            parts
        })
    }

    /// Finds out, once in a call, whether the server takes a harmless text: what that took, of no text of the call. Where it does
    /// not, no further request begins.
    async fn check(&self) -> Result<Option<Part>, Failure> {
        let mut takes_any = self.takes_any.lock().await;
        match *takes_any {
            Some(true) => Ok(None),
            Some(false) => Err(another_failed()),
            None => {
                let _place = self.place().await?;
                let checked = self.embedder.ask_harmless(self.request_deadline()).await;
                *takes_any = Some(checked.is_ok());
                if checked.is_err() {
                    self.has_failed.store(true, Ordering::Relaxed);
                }
                let came_to = Ok(checked?);
                Ok(Some(Part { range: 0..0, came_to }))
            }
        }
    }

    async fn request(&self, range: Range<usize>) -> Result<Embeddings, Failure> {
        let _place = self.place().await?;
        if self.has_failed.load(Ordering::Relaxed) {
            return Err(another_failed());
        }
        self.embedder
            .request(&self.texts[range], self.request_deadline())
            .await
    }

    /// One of the places that all calls share.
    async fn place(&self) -> Result<SemaphorePermit<'_>, Failure> {
        let place = timeout_at(self.deadline, self.embedder.bulk_places.acquire()).await;
        let place = place.ok().and_then(Result::ok);
        place.ok_or_else(|| EmbedError::unavailable("other calls took all the time that this one has").into())
    }

    /// Of a request that begins now.
    fn request_deadline(&self) -> Instant {
        self.deadline.min(Instant::now() + self.embedder.options.timeout)
    }

    /// Whether two further requests may be spent on finding out which texts are refused.
    fn may_search(&self) -> bool {
        let spend = |left: usize| left.checked_sub(2);
        self.searches
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend)
            .is_ok()
    }
}

fn another_failed() -> Failure {
    EmbedError::unavailable("another request of the same call failed").into()
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
                ..
            }) => {
                if range.len() == 1 {
                    answered.refused.push(range.start);
                }
                of_texts.get_or_insert(error);
            }
            Err(Failure { error, spent, .. }) => {
                if spent.0 > 0 {
                    is_answered = true;
                    answered.tokens = answered.tokens.saturating_add(spent.0);
                    answered.reported &= spent.1;
                }
                // What may have cost something says most about the whole, and what ends every call more than what followed from it.
                let may_have_cost = of_server.as_ref().is_some_and(EmbedError::may_have_cost);
                let says_more = error.may_have_cost() || (error.denial().is_some() && !may_have_cost);
                if of_server.is_none() || says_more {
                    of_server = Some(error);
                }
            }
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

impl Failure {
    /// With what it took, of one text.
    fn into_error(self) -> EmbedError {
        let (tokens, reported) = self.spent;
        if tokens == 0 {
            return self.error;
        }
        let answered = Answered {
            tokens,
            reported,
            ..Answered::default()
        };
        EmbedError::Broken {
            answered: Box::new(answered),
            cause: Box::new(self.error),
        }
    }
}

impl From<EmbedError> for Failure {
    fn from(error: EmbedError) -> Self {
        Self {
            error,
            of_texts: false,
            spent: (0, false),
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
        Self {
            of_texts,
            ..Self::from(error)
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
