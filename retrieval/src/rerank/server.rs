//! Servers that rerank: Cohere, Jina, Voyage and what speaks like one of them, and Hugging Face's Text Embeddings
//! Inference. They differ in the names of a few fields; scores come back by the index of the text in all of them.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use url::Url;

use super::{RerankCost, RerankError, Reranked, Reranker, Spent};
use crate::BoxFuture;
use crate::embed::{estimate_tokens, shorten};
use crate::remote::{CallError, Endpoint, believable, shown, unreadable};

/// Texts of one request that Text Embeddings Inference takes unless it is told otherwise.
const TEI_BATCH: usize = 32;

/// Texts of one request to the others, which take a thousand; Cohere bills by the hundred.
const BATCH: usize = 100;

/// Requests for one question that are under way at once.
const REQUESTS_AT_ONCE: usize = 4;

/// Tokens of one text that are sent, by estimate: rerankers read 512 to some thousand of question and text together.
const MAX_TEXT_TOKENS: usize = 1024;

/// The same of the question.
const MAX_QUESTION_TOKENS: usize = 256;

/// Room for one score in JSON, and for what surrounds the scores.
const BYTES_PER_SCORE: usize = 512;

/// Some servers send the texts back, whatever they were told, and an escaped character (`\u003c`) has six bytes for one of ours.
const BYTES_PER_SENT: usize = 6;
const BYTES_AROUND: usize = 64 << 10;

/// How a server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `POST {base_url}/rerank`, version 2; also of servers that imitate it.
    Cohere,
    Jina,
    Voyage,
    /// Text Embeddings Inference's own, which names no model: the server has one.
    Tei,
}

/// Which server and which model.
#[derive(Clone)]
pub struct RerankServerOptions {
    pub protocol: Protocol,
    /// Up to and including the version, e.g. `https://api.cohere.com/v2`.
    pub base_url: Url,
    pub api_key: Option<String>,
    pub model: String,
    /// How long one question may take, retries included: somebody waits for it.
    pub timeout: Duration,
}

impl std::fmt::Debug for RerankServerOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("RerankServerOptions")
            .field("protocol", &self.protocol)
            .field("base_url", &shown(&self.base_url))
            .field("api_key", &self.api_key.as_ref().map(|_| "…"))
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

/// A reranker behind an address.
pub struct RerankServer {
    endpoint: Endpoint,
    options: RerankServerOptions,
}

#[derive(Serialize)]
struct DocumentsRequest<'a> {
    model: &'a str,
    query: &'a str,
    documents: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    return_documents: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncation: Option<bool>,
}

#[derive(Serialize)]
struct TeiRequest<'a> {
    query: &'a str,
    texts: &'a [String],
    truncate: bool,
}

/// Of Cohere, Jina (`results`) and Voyage (`data`).
#[derive(Deserialize)]
struct Reply {
    #[serde(alias = "data")]
    results: Vec<Score>,
    usage: Option<Usage>,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Score {
    index: usize,
    #[serde(alias = "score")]
    relevance_score: f32,
}

#[derive(Deserialize)]
struct Usage {
    total_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Meta {
    billed_units: Option<BilledUnits>,
}

#[derive(Deserialize)]
struct BilledUnits {
    search_units: Option<f64>,
}

impl RerankServer {
    /// Makes the client; no request is sent yet. The error is a sentence for the operator.
    pub fn new(options: RerankServerOptions) -> Result<Self, String> {
        let endpoint = Endpoint::new(&options.base_url, "rerank", options.api_key.as_deref())?;
        Ok(Self { endpoint, options })
    }

    async fn rerank_all(&self, question: String, mut texts: Vec<String>) -> Result<Reranked, RerankError> {
        let question = shorten(&question, MAX_QUESTION_TOKENS);
        for text in &mut texts {
            text.truncate(shorten(text, MAX_TEXT_TOKENS).len());
        }
        let batch = match self.options.protocol {
            Protocol::Tei => TEI_BATCH,
            Protocol::Cohere | Protocol::Jina | Protocol::Voyage => BATCH,
        };
        let deadline = Instant::now() + self.options.timeout;
        // Each text is read by itself with the question, so scores of several requests are of one scale.
        let requests: Vec<_> = texts
            .chunks(batch)
            .map(|texts| self.rerank_batch(question, texts, deadline))
            .collect();
        // All are waited for, though one fails: they are paid for.
        let parts = stream::iter(requests).buffered(REQUESTS_AT_ONCE);
        let reranked = joined(parts.collect().await)?;
        let has_score = texts.is_empty() || reranked.scores.iter().any(Option::is_some);
        match has_score {
            true => Ok(reranked),
            false => Err(RerankError::Unusable {
                reason: "it scored none of the texts".to_owned(),
            }),
        }
    }

    async fn rerank_batch(
        &self,
        question: &str,
        texts: &[String],
        deadline: Instant,
    ) -> Result<Reranked, RerankError> {
        let documents = |return_documents, truncation| {
            serde_json::to_vec(&DocumentsRequest {
                model: &self.options.model,
                query: question,
                documents: texts,
                return_documents,
                truncation,
            })
        };
        let body = match self.options.protocol {
            Protocol::Cohere => documents(None, None),
            Protocol::Jina => documents(Some(false), None),
            Protocol::Voyage => documents(None, Some(true)),
            Protocol::Tei => serde_json::to_vec(&TeiRequest {
                query: question,
                texts,
                truncate: true,
            }),
        };
        let body = body.map_err(CallError::unavailable)?;
        let limit = texts.len() * BYTES_PER_SCORE + body.len() * BYTES_PER_SENT + BYTES_AROUND;
        let answer = self.endpoint.post(&body, limit, deadline).await?;
        let reply = match self.options.protocol {
            Protocol::Tei => serde_json::from_slice(&answer).map(|results| Reply {
                results,
                usage: None,
                meta: None,
            }),
            Protocol::Cohere | Protocol::Jina | Protocol::Voyage => serde_json::from_slice(&answer),
        };
        let reply = reply.map_err(|error| RerankError::Unusable {
            reason: unreadable(&error),
        })?;
        Ok(Reranked {
            cost: cost(&reply, question, texts),
            scores: in_place(reply.results, texts.len())?,
        })
    }
}

impl Reranker for RerankServer {
    fn model_id(&self) -> &str {
        &self.options.model
    }

    fn most_searches(&self, texts: usize) -> u64 {
        texts.div_ceil(BATCH) as u64
    }

    fn rerank(&self, question: String, texts: Vec<String>) -> BoxFuture<'_, Result<Reranked, RerankError>> {
        Box::pin(self.rerank_all(question, texts))
    }
}

impl From<CallError> for RerankError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Unavailable { retry_after, source } => Self::Unavailable { retry_after, source },
            CallError::TimedOut => Self::TooLate,
            CallError::Denied { reason } | CallError::Refused { reason } => Self::Refused { reason },
            CallError::Unreadable { reason } => Self::Unusable { reason },
        }
    }
}

/// The answers as one, or the first failure and what the others took.
fn joined(parts: Vec<Result<Reranked, RerankError>>) -> Result<Reranked, RerankError> {
    let mut all = Reranked::default();
    all.cost.reported = true;
    let (mut is_answered, mut failure) = (false, None);
    for part in parts {
        match part {
            Ok(part) => {
                is_answered = true;
                all.scores.extend(part.scores);
                all.cost = all.cost.plus(part.cost);
            }
            // What may have cost something says most about the whole.
            Err(error) if failure.is_none() || error.spent() == Spent::Unknown => failure = Some(error),
            Err(_) => {}
        }
    }
    match failure {
        None => Ok(all),
        Some(error) if !is_answered => Err(error),
        Some(error) => Err(RerankError::Broken {
            cost: all.cost,
            cause: Box::new(error),
        }),
    }
}

/// The scores by the places of their texts. A server may leave texts out, but not invent any.
fn in_place(results: Vec<Score>, texts: usize) -> Result<Vec<Option<f32>>, RerankError> {
    let bad = |reason: String| Err(RerankError::Unusable { reason });
    let mut scores = vec![None; texts];
    for Score {
        index,
        relevance_score,
    } in results
    {
        if !relevance_score.is_finite() {
            return bad(format!("a score of {relevance_score}"));
        }
        match scores.get_mut(index) {
            Some(place @ None) => *place = Some(relevance_score),
            Some(Some(_)) => return bad(format!("two scores for text {index}")),
            None => return bad(format!("a score for text {index} of {texts}")),
        }
    }
    Ok(scores)
}

fn cost(reply: &Reply, question: &str, texts: &[String]) -> RerankCost {
    let reported = believable(reply.usage.as_ref().and_then(|usage| usage.total_tokens));
    let units = reply.meta.as_ref().and_then(|meta| meta.billed_units.as_ref());
    let searches = units.and_then(|units| units.search_units);
    // What is below zero or no number becomes none.
    let searches = believable(searches.map(|searches| searches.ceil() as u64));
    let counted = || {
        let per_text = |text: &String| (estimate_tokens(question) + estimate_tokens(text)) as u64;
        texts.iter().map(per_text).sum()
    };
    RerankCost {
        tokens: reported.unwrap_or_else(counted),
        // A hundred texts are one search where it is not said.
        searches: searches.unwrap_or(texts.len().div_ceil(BATCH) as u64),
        reported: reported.is_some() || searches.is_some(),
        ..RerankCost::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_texts_are_one_search() {
        let server = RerankServer::new(RerankServerOptions {
            protocol: Protocol::Cohere,
            base_url: "http://localhost/v2".parse().expect("an address"),
            api_key: None,
            model: "m".to_owned(),
            timeout: Duration::from_secs(1),
        })
        .expect("a server");

        assert_eq!(
            [1, 100, 101, 200].map(|texts| server.most_searches(texts)),
            [1, 1, 2, 2]
        );
    }

    #[test]
    fn a_key_is_never_shown() {
        let options = RerankServerOptions {
            protocol: Protocol::Cohere,
            base_url: "http://me:secret@localhost/v2".parse().expect("an address"),
            api_key: Some("co-secret".to_owned()),
            model: "m".to_owned(),
            timeout: Duration::from_secs(1),
        };

        assert!(!format!("{options:?}").contains("secret"));
    }
    #[test]
    fn what_was_answered_beside_a_failure_is_paid() {
        let answered = |tokens| {
            Ok(Reranked {
                scores: vec![Some(1.0)],
                cost: RerankCost {
                    tokens,
                    searches: 1,
                    reported: true,
                    ..RerankCost::default()
                },
            })
        };
        let down = || {
            Err(RerankError::Unavailable {
                retry_after: None,
                source: "nobody there".into(),
            })
        };
        let broken = joined(vec![answered(3), down(), answered(4)]).expect_err("one failed");
        assert!(matches!(broken.spent(), Spent::Cost(cost) if cost.tokens == 7 && cost.searches == 2));
        let unknown = joined(vec![down(), Err(RerankError::TooLate), answered(4)]).expect_err("two failed");
        assert_eq!(unknown.spent(), Spent::Unknown);
        let nothing = joined(vec![down()]).expect_err("it failed");
        assert_eq!(nothing.spent(), Spent::Nothing);
    }

    #[test]
    fn figures_that_no_call_can_have_are_none() {
        let reply: Reply = serde_json::from_str(
            r#"{"results": [], "usage": {"total_tokens": 18446744073709551615}, "meta": {"billed_units": {"search_units": 1e300}}}"#,
        )
        .expect("a reply");

        let cost = cost(&reply, "How long?", &["a text".to_owned()]);

        assert!(
            cost.tokens < 100 && cost.searches == 1 && !cost.reported,
            "{cost:?}"
        );
    }
}
