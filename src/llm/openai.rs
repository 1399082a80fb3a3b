//! Any server that speaks the OpenAI chat-completions format, asked through `async-openai`.
//!
//! The crate writes requests, reads events and parses answers, into the lenient structs of [`super::wire`]. The service
//! that carries its requests is ours ([`super::transport`], [`super::body`]), because of what a turn promises:
//! Retry-After, the difference between a cut and an ended stream, limits in time and size, and closing the connection
//! the moment a visitor leaves.

use std::sync::Arc;
use std::time::Duration;

use async_openai::types::chat::CreateChatCompletionRequest;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, header};
use reqwest::Url;
use tokio::time::{Instant, timeout_at};

use super::body::Reading;
use super::stream::{AnswerStream, Bounds};
use super::transport::{Endpoint, Transport, provider_error};
use super::wire::{self, Answer, TokenLimitField};
use super::{ChatModel, ChatRequest, Completion, FinishReason, ModelStream, Phase, ProviderError, retry};
use crate::config;

/// Text of a whole answer: so many bytes a token, and something for short ones. Four are usual.
const TEXT_BYTES_PER_TOKEN: usize = 24;
const TEXT_BYTES_SLACK: usize = 4096;

/// A model behind an OpenAI-compatible server.
pub struct OpenAiModel {
    transport: Transport,
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
        let api_key = config.api_key.expose().trim();
        let mut headers = HeaderMap::new();
        if !api_key.is_empty() {
            let mut value =
                HeaderValue::try_from(format!("Bearer {api_key}")).map_err(|_| SetupError::ApiKey)?;
            value.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, value);
        }
        let endpoint = Endpoint {
            base_url: Url::parse(&config.base_url)?,
            headers,
            api_key: api_key.into(),
        };
        let limit_field = if config.token_limit_field == "max_tokens" {
            TokenLimitField::MaxTokens
        } else {
            TokenLimitField::MaxCompletionTokens
        };
        let idle_timeout = Duration::from_secs(config.idle_timeout_s);
        Ok(Self {
            transport: Transport::new(
                endpoint,
                Duration::from_secs(config.connect_timeout_s),
                idle_timeout,
            )?,
            limit_field,
            first_token_timeout: Duration::from_secs(config.first_token_timeout_s),
            idle_timeout,
            total_timeout: Duration::from_secs(config.total_timeout_s),
            max_attempts: config.max_attempts,
        })
    }

    async fn complete_with_retries(&self, request: ChatRequest) -> Result<Completion, ProviderError> {
        let deadline = Instant::now() + self.total_timeout;
        let max_text_bytes = max_text_bytes(&request);
        let body = wire::body(request, self.limit_field, false);
        for attempt in 1.. {
            let tried = timeout_at(deadline, self.complete_once(&body)).await;
            match tried.unwrap_or(Err(ProviderError::TimedOut { phase: Phase::Total })) {
                Ok(completion) if completion.text.len() > max_text_bytes => {
                    return Err(ProviderError::unreadable(
                        "the answer is far longer than was asked for",
                    ));
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
        let body = wire::body(request, self.limit_field, true);
        for attempt in 1.. {
            let first_token = Instant::now() + self.first_token_timeout;
            let bounds = Bounds {
                first_token,
                idle: self.idle_timeout,
                total: deadline,
                text_bytes,
            };
            match self.stream_once(&body, bounds).await {
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

    async fn complete_once(&self, body: &CreateChatCompletionRequest) -> Result<Completion, ProviderError> {
        let client = self.transport.whole();
        let mut answer: Answer = client.chat().create_byot(body).await.map_err(provider_error)?;
        if let Some(error) = &answer.error {
            return Err(retry::of_error_event(error));
        }
        if !answer.choice.is_present() {
            return Err(ProviderError::unreadable("the answer holds no choice"));
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
    async fn stream_once(
        &self,
        body: &CreateChatCompletionRequest,
        bounds: Bounds,
    ) -> Result<ModelStream, ProviderError> {
        let reading = Arc::new(Reading::default());
        let client = self.transport.streamed(Arc::clone(&reading));
        let (until, phase) = bounds.first_limit();
        let events = timeout_at(until, client.chat().create_stream_byot(body))
            .await
            .map_err(|_| ProviderError::TimedOut { phase })?
            .map_err(provider_error)?;
        let mut answer = AnswerStream::new(events, reading, bounds);
        match answer.next().await {
            Some(Ok(event)) => {
                answer.put_back(event);
                Ok(answer.boxed())
            }
            Some(Err(error)) => Err(error),
            None => Err(ProviderError::unreadable("the stream holds nothing")),
        }
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

fn max_text_bytes(request: &ChatRequest) -> usize {
    request
        .max_answer_tokens
        .saturating_mul(TEXT_BYTES_PER_TOKEN)
        .saturating_add(TEXT_BYTES_SLACK)
}
