//! Any server that speaks the OpenAI chat-completions format.
//!
//! Request bodies are built from the types of `async-openai`. The transport is ours, on one `reqwest` client: what a
//! turn promises needs the parts that an SDK hides (Retry-After, the difference between a cut and an ended stream,
//! separate limits for the first token, for silence and for the whole call, and closing the connection the moment a
//! visitor leaves), and other servers' answers need a lenient reader.
//!
//! Connections speak HTTP/1.1, one per running answer, and are used again: over HTTP/2 all answers would share one
//! connection, whose limit of streams (often 100) would hold the others back.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, header};
use reqwest::{Client, Url};
use tokio::time::Instant;

use super::stream::{AnswerStream, Bounds, ReadError, read_body, unreadable};
use super::wire::{self, Answer, TokenLimitField};
use super::{
    ChatModel, ChatRequest, Completion, FinishReason, ModelEvent, ModelStream, Phase, ProviderError, retry,
};
use crate::config;

/// Bytes of one whole answer.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// Bytes of one refusal; the rest cannot say more.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// How long the words of a refusal are waited for.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(2);

/// Text of a whole answer: so many bytes a token, and something for short ones. Four are usual.
const TEXT_BYTES_PER_TOKEN: usize = 24;
const TEXT_BYTES_SLACK: usize = 4096;

/// How long an unused connection is kept.
const IDLE_CONNECTION: Duration = Duration::from_secs(90);

/// How often the operating system looks whether a silent peer still lives.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// A model behind an OpenAI-compatible server.
pub struct OpenAiModel {
    client: Client,
    url: Url,
    headers: HeaderMap,
    limit_field: TokenLimitField,
    first_token_timeout: Duration,
    idle_timeout: Duration,
    total_timeout: Duration,
    max_attempts: u32,
}

/// Why a client cannot be made from the configuration.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("base_url: {0}")]
    BaseUrl(#[from] url::ParseError),
    #[error("api_key: holds characters that no header can carry")]
    ApiKey,
    #[error("cannot make an HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

impl OpenAiModel {
    /// A client for the configured server. Nothing is sent yet.
    pub fn new(config: &config::Llm) -> Result<Self, SetupError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if !config.api_key.is_empty() {
            let mut value = HeaderValue::try_from(format!("Bearer {}", config.api_key.expose().trim()))
                .map_err(|_| SetupError::ApiKey)?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let limit_field = if config.token_limit_field == "max_tokens" {
            TokenLimitField::MaxTokens
        } else {
            TokenLimitField::MaxCompletionTokens
        };
        Ok(Self {
            client: client(Duration::from_secs(config.connect_timeout_s))?,
            url: endpoint(&config.base_url)?,
            headers,
            limit_field,
            first_token_timeout: Duration::from_secs(config.first_token_timeout_s),
            idle_timeout: Duration::from_secs(config.idle_timeout_s),
            total_timeout: Duration::from_secs(config.total_timeout_s),
            max_attempts: config.max_attempts,
        })
    }

    async fn complete_with_retries(&self, request: ChatRequest) -> Result<Completion, ProviderError> {
        let deadline = Instant::now() + self.total_timeout;
        let max_text_bytes = max_text_bytes(&request);
        let body = self.encode(request, false)?;
        for attempt in 1.. {
            let tried = tokio::time::timeout_at(deadline, self.complete_once(body.clone())).await;
            match tried.unwrap_or(Err(ProviderError::TimedOut { phase: Phase::Total })) {
                Ok(completion) if completion.text.len() > max_text_bytes => {
                    return Err(unreadable("the answer is far longer than was asked for"));
                }
                Ok(completion) => return Ok(completion),
                Err(error) => self.wait_before_retry(attempt, error, deadline).await?,
            }
        }
        unreachable!("every attempt returns or goes on")
    }

    async fn stream_with_retries(&self, request: ChatRequest) -> Result<ModelStream, ProviderError> {
        let deadline = Instant::now() + self.total_timeout;
        let text_bytes = max_text_bytes(&request);
        let body = self.encode(request, true)?;
        for attempt in 1.. {
            let first_token = Instant::now() + self.first_token_timeout;
            let bounds = Bounds {
                first_token,
                idle: self.idle_timeout,
                total: deadline,
                text_bytes,
            };
            match self.stream_once(body.clone(), bounds).await {
                Ok(stream) => return Ok(stream),
                Err(error) => self.wait_before_retry(attempt, error, deadline).await?,
            }
        }
        unreachable!("every attempt returns or goes on")
    }

    /// Waits until the call may be tried again, or gives the error back when it may not.
    async fn wait_before_retry(
        &self,
        attempt: u32,
        error: ProviderError,
        deadline: Instant,
    ) -> Result<(), ProviderError> {
        let ProviderError::Unavailable { retry_after, source } = &error else {
            return Err(error);
        };
        let pause = retry::pause(attempt, *retry_after, rand::random());
        if attempt >= self.max_attempts || Instant::now() + pause >= deadline {
            return Err(error);
        }
        tracing::info!(attempt, pause_ms = pause.as_millis() as u64, cause = %source, "the model did not answer; trying again");
        metrics::counter!("frontdesk_model_retries_total").increment(1);
        tokio::time::sleep(pause).await;
        Ok(())
    }

    async fn complete_once(&self, body: Bytes) -> Result<Completion, ProviderError> {
        let response = self.send(body).await?;
        self.read_completion(response.into()).await
    }

    async fn read_completion(&self, body: reqwest::Body) -> Result<Completion, ProviderError> {
        let body = read_body(body, MAX_ANSWER_BYTES, self.idle_timeout)
            .await
            .map_err(|error| match error {
                ReadError::Silent => ProviderError::TimedOut { phase: Phase::Idle },
                ReadError::Cut(error) => retry::unavailable(error, None),
                ReadError::TooLarge => unreadable("the answer is larger than any answer"),
            })?;
        let mut answer: Answer =
            serde_json::from_slice(&body).map_err(|_| unreadable("the answer is not the expected JSON"))?;
        if let Some(error) = &answer.error {
            return Err(retry::of_error_event(error));
        }
        if !answer.choice.is_present() {
            return Err(unreadable("the answer holds no choice"));
        }
        let text = answer.choice.take_text();
        let finish = answer.choice.finish().unwrap_or(FinishReason::Stop);
        Ok(Completion {
            text,
            usage: answer.usage.as_ref().and_then(|usage| usage.reported()),
            finish,
        })
    }

    /// One try, up to and with the first event.
    async fn stream_once(&self, body: Bytes, bounds: Bounds) -> Result<ModelStream, ProviderError> {
        let late = || ProviderError::TimedOut {
            phase: if bounds.first_token < bounds.total {
                Phase::FirstToken
            } else {
                Phase::Total
            },
        };
        let first_token = bounds.first_token.min(bounds.total);
        let response = tokio::time::timeout_at(first_token, self.send(body))
            .await
            .map_err(|_| late())??;
        if is_json(response.headers()) {
            // The server does not stream: its one answer is the stream.
            let completion = tokio::time::timeout_at(bounds.total, self.read_completion(response.into()))
                .await
                .map_err(|_| late())??;
            let delta = Some(completion.text)
                .filter(|text| !text.is_empty())
                .map(ModelEvent::Delta);
            let events = delta
                .into_iter()
                .chain(completion.usage.map(ModelEvent::Usage))
                .chain([ModelEvent::Finished(completion.finish)]);
            return Ok(futures::stream::iter(events.map(Ok).collect::<Vec<_>>()).boxed());
        }
        let mut answer = AnswerStream::new(response.into(), bounds);
        match answer.next().await {
            Some(Ok(event)) => {
                answer.put_back(event);
                Ok(answer.boxed())
            }
            Some(Err(error)) => Err(error),
            None => Err(unreadable("the stream holds nothing")),
        }
    }

    /// Sends a request; anything but success is an error.
    async fn send(&self, body: Bytes) -> Result<reqwest::Response, ProviderError> {
        let request = self
            .client
            .post(self.url.clone())
            .headers(self.headers.clone())
            .body(body);
        let response = request
            .send()
            .await
            .map_err(|error| retry::unavailable(error.without_url(), None))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, headers) = (response.status(), response.headers().clone());
        // A refusal whose words do not come is still a refusal.
        let body = read_body(response.into(), MAX_REFUSAL_BYTES, REFUSAL_PATIENCE)
            .await
            .unwrap_or_default();
        Err(retry::of_response(status, &headers, &body))
    }

    fn encode(&self, request: ChatRequest, stream: bool) -> Result<Bytes, ProviderError> {
        wire::encode(request, self.limit_field, stream).map_err(|_| ProviderError::Refused {
            reason: "the request cannot be written as JSON".into(),
        })
    }
}

impl ChatModel for OpenAiModel {
    fn complete(&self, request: ChatRequest) -> BoxFuture<'_, Result<Completion, ProviderError>> {
        Box::pin(self.complete_with_retries(request))
    }

    fn stream(&self, request: ChatRequest) -> BoxFuture<'_, Result<ModelStream, ProviderError>> {
        Box::pin(self.stream_with_retries(request))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the operator names the model's server, and it may be private; nobody else can"
)]
fn client(connect_timeout: Duration) -> reqwest::Result<Client> {
    Client::builder()
        .tls_backend_preconfigured(outbound::tls_config())
        .http1_only()
        .tcp_nodelay(true)
        .tcp_keepalive(TCP_KEEPALIVE)
        .pool_idle_timeout(IDLE_CONNECTION)
        .connect_timeout(connect_timeout)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .user_agent(concat!("frontdesk/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// The address of chat completions below `base_url`, whose query, if it has one, is kept.
fn endpoint(base_url: &str) -> Result<Url, url::ParseError> {
    let mut url = Url::parse(base_url)?;
    let path = format!("{}/chat/completions", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

fn max_text_bytes(request: &ChatRequest) -> usize {
    request
        .max_answer_tokens
        .saturating_mul(TEXT_BYTES_PER_TOKEN)
        .saturating_add(TEXT_BYTES_SLACK)
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            value
                .trim_start()
                .to_ascii_lowercase()
                .starts_with("application/json")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_below_the_base_however_that_is_written() {
        for (base, expected) in [
            (
                "https://api.openai.com/v1",
                "https://api.openai.com/v1/chat/completions",
            ),
            ("http://127.0.0.1:9/v1/", "http://127.0.0.1:9/v1/chat/completions"),
            ("http://127.0.0.1:9", "http://127.0.0.1:9/chat/completions"),
            (
                "https://x.example/deployments/a?api-version=1",
                "https://x.example/deployments/a/chat/completions?api-version=1",
            ),
        ] {
            assert_eq!(endpoint(base).expect("a URL").as_str(), expected);
        }
    }
}
