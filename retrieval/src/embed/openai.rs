//! Any server that speaks OpenAI's embeddings API (`POST {base_url}/embeddings`), or the one of Hugging Face's Text Embeddings
//! Inference (`POST {base_url}/embed`).

mod bulk;
mod pace;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::Url;

use self::pace::Pace;
use super::encoder::normalise;
use super::tokenizer::shorten;
use super::{Answered, Asker, EmbedError, Embedder, Embeddings, Prefixes, estimate_tokens};
use crate::BoxFuture;
use crate::analysis::Language;
use crate::remote::{CallError, Endpoint, believable, shown, unreadable};

/// Requests of all bulks that are under way at once. Questions are not held up by them.
const BULK_REQUESTS_AT_ONCE: usize = 8;

/// How long a call for many texts takes at most, its waiting for other calls included: whoever set money aside for it may
/// count on it. Requests that have not begun by then are not made.
const LONGEST_BULK: Duration = Duration::from_secs(600);

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
    pace: Pace,
}

/// Why a request gave no vectors.
struct Failure {
    error: EmbedError,
    /// One of the texts is at fault, rather than who asks or the server.
    of_texts: bool,
    /// Tokens of an answer that is of no use or that nobody waited for, and whether the server said how many.
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
            pace: Pace::default(),
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
        bulk::embed(self, &texts, batch_size).await
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
        let mut asked = self.ask(texts, deadline).await;
        if let Err(failure) = &mut asked {
            if failure.error.denial().is_some() {
                self.is_in_doubt.store(true, Ordering::Relaxed);
            }
            // Of a whole call no more was asked for than this.
            if failure.error.may_have_cost() && failure.spent.0 == 0 {
                failure.spent = (estimate_of(texts) as u64, false);
            }
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
        let reported = believable(reply.usage.and_then(|usage| usage.prompt_tokens));
        let tokens = reported.unwrap_or_else(|| estimate_of(texts) as u64);
        let bad = |reason: String| {
            Err(Failure {
                spent: (tokens, reported.is_some()),
                ..EmbedError::BadVectors { reason }.into()
            })
        };
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

fn estimate_of(texts: &[String]) -> usize {
    texts.iter().map(|text| estimate_tokens(text)).sum()
}

/// Servers refuse texts that are too long or empty.
fn make_acceptable(text: &mut String, max_tokens: usize) {
    let kept = shorten(text, max_tokens).len();
    text.truncate(kept);
    if text.trim().is_empty() {
        " ".clone_into(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(in crate::embed::openai) fn options() -> OpenAiEmbedderOptions {
        OpenAiEmbedderOptions {
            protocol: Protocol::OpenAi,
            base_url: "http://me:secret@localhost/v1".parse().expect("an address"),
            api_key: Some("sk-secret".to_owned()),
            model: "m".to_owned(),
            dimension: 3,
            batch_size: 8,
            timeout: Duration::from_secs(1),
            max_tokens: 100,
            prefixes: Prefixes::default(),
            languages: None,
        }
    }

    #[test]
    fn a_key_is_never_shown() {
        assert!(!format!("{:?}", options()).contains("secret"));
    }
}
