//! What carries the requests of `async-openai`: its requests are sent by one `reqwest` client of ours, and its answers
//! come back within limits. Refusals become our errors here, with what their headers say.
//!
//! Connections speak HTTP/1.1, one per running answer, and are used again: over HTTP/2 all answers would share one
//! connection, whose limit of streams (often 100) would hold the others back.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_openai::Client;
use async_openai::config::Config;
use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;
use bytes::Bytes;
use http::{HeaderMap, header};
use hyper::body::Body as _;
use reqwest::{Body, Response, Url};
use secrecy::SecretString;

use super::body::{BodyEnd, Reading, WatchedBody};
use super::{BoxError, Phase, ProviderError, retry};

/// Bytes of one whole answer.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// Bytes of one refusal; the rest cannot say more.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// How long the words of a refusal are waited for.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(2);

/// How long an unused connection is kept.
const IDLE_CONNECTION: Duration = Duration::from_secs(90);

/// How often the operating system looks whether a silent peer still lives.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Where a model is and how it is asked: nothing else of the environment has a say.
pub(super) struct Endpoint {
    pub(super) base_url: Url,
    pub(super) headers: HeaderMap,
    /// Part of the headers already, if it is needed.
    pub(super) api_key: SecretString,
}

impl Config for Endpoint {
    fn headers(&self) -> HeaderMap {
        self.headers.clone()
    }

    /// The address of `path` below the base, whose query, if it has one, is kept.
    fn url(&self, path: &str) -> String {
        let mut url = self.base_url.clone();
        url.set_path(&format!("{}{path}", self.base_url.path().trim_end_matches('/')));
        url.into()
    }

    fn query(&self) -> Vec<(&str, &str)> {
        Vec::new()
    }

    fn api_base(&self) -> &str {
        self.base_url.as_str()
    }

    fn api_key(&self) -> &SecretString {
        &self.api_key
    }
}

/// Makes clients of one server, which share its connections.
pub(super) struct Transport {
    http: reqwest::Client,
    endpoint: Arc<dyn Config>,
    /// Longest silence in a whole answer.
    idle: Duration,
}

impl Transport {
    pub(super) fn new(
        endpoint: Endpoint,
        connect_timeout: Duration,
        idle: Duration,
    ) -> reqwest::Result<Self> {
        Ok(Self {
            http: http_client(connect_timeout)?,
            endpoint: Arc::new(endpoint),
            idle,
        })
    }

    /// A client for one answer in one piece.
    pub(super) fn whole(&self) -> Client<Arc<dyn Config>> {
        let (http, idle) = (self.http.clone(), self.idle);
        self.client(move |request| {
            let http = http.clone();
            async move {
                let response = send(&http, request).await?;
                let body = read_body(response.into(), MAX_ANSWER_BYTES, idle).await?;
                Ok(http::Response::new(body).into())
            }
        })
    }

    /// A client for one streamed answer, of whose body `reading` tells.
    pub(super) fn streamed(&self, reading: Arc<Reading>) -> Client<Arc<dyn Config>> {
        let (http, idle) = (self.http.clone(), self.idle);
        self.client(move |request| {
            let (http, reading) = (http.clone(), Arc::clone(&reading));
            async move {
                let response = send(&http, request).await?;
                let body = if is_json(response.headers()) {
                    reading.expect_whole();
                    Body::wrap_stream(futures::stream::once(as_stream(response.into(), idle, reading)))
                } else {
                    Body::wrap(WatchedBody::new(response.into(), reading))
                };
                Ok(http::Response::new(body).into())
            }
        })
    }

    fn client<S, F>(&self, service: S) -> Client<Arc<dyn Config>>
    where
        S: FnMut(HttpRequestFactory) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<Response, ProviderError>> + Send + 'static,
    {
        Client::build(self.http.clone(), Arc::clone(&self.endpoint))
            .with_http_service(tower::service_fn(service))
    }
}

/// Sends a request; anything but success is an error.
async fn send(http: &reqwest::Client, request: HttpRequestFactory) -> Result<Response, ProviderError> {
    let request = request.build().await.map_err(provider_error)?;
    let response = http
        .execute(request)
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

/// The one answer of a server that does not stream, as the one event of a stream.
async fn as_stream(body: Body, idle: Duration, reading: Arc<Reading>) -> Result<Bytes, BoxError> {
    let body = read_body(body, MAX_ANSWER_BYTES, idle).await.and_then(|body| {
        String::from_utf8(body.into()).map_err(|_| ProviderError::unreadable("the answer is not text"))
    });
    match body {
        // Line ends in JSON are white space.
        Ok(json) => Ok(format!("data: {}\n\ndata: [DONE]\n\n", json.replace(['\r', '\n'], " ")).into()),
        Err(error) => {
            reading.set_end(BodyEnd::Refused(error));
            Err("the answer cannot be read".into())
        }
    }
}

/// The bytes of a whole body, read within its limits.
async fn read_body(mut body: Body, max_bytes: usize, idle: Duration) -> Result<Bytes, ProviderError> {
    let mut first = Bytes::new();
    let mut all = Vec::new();
    loop {
        let frame = tokio::time::timeout(
            idle,
            std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)),
        );
        let data = match frame
            .await
            .map_err(|_| ProviderError::TimedOut { phase: Phase::Idle })?
        {
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            // What has begun to come was made and will be paid for: asking again would pay twice. White space keeps a
            // connection open.
            Some(Err(_)) if first.iter().chain(&all).any(|byte| !byte.is_ascii_whitespace()) => {
                return Err(ProviderError::Interrupted);
            }
            Some(Err(error)) => return Err(retry::unavailable(error.without_url(), None)),
            // Most answers are one piece, which is not copied.
            None => return Ok(if all.is_empty() { first } else { Bytes::from(all) }),
        };
        if first.len() + all.len() + data.len() > max_bytes {
            return Err(ProviderError::unreadable("the answer is larger than any answer"));
        }
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
}

impl From<ProviderError> for OpenAIError {
    fn from(error: ProviderError) -> Self {
        Self::Boxed(Box::new(error))
    }
}

/// What an error of `async-openai` means for the caller: mostly it is one of ours that comes back. What it quotes of
/// the answer is dropped.
pub(super) fn provider_error(error: OpenAIError) -> ProviderError {
    match error {
        OpenAIError::Boxed(error) => match error.downcast() {
            Ok(error) => *error,
            Err(error) => retry::unavailable(error, None),
        },
        OpenAIError::Reqwest(error) => retry::unavailable(error.without_url(), None),
        OpenAIError::InvalidArgument(_) => ProviderError::Refused {
            reason: "the request cannot be written as JSON".into(),
        },
        OpenAIError::JSONDeserialize(..)
        | OpenAIError::ApiError(_)
        | OpenAIError::StreamError(_)
        | OpenAIError::FileSaveError(_)
        | OpenAIError::FileReadError(_) => ProviderError::unreadable("the answer is not the expected JSON"),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the operator names the model's server, and it may be private; nobody else can"
)]
fn http_client(connect_timeout: Duration) -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
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
            let endpoint = Endpoint {
                base_url: Url::parse(base).expect("a URL"),
                headers: HeaderMap::new(),
                api_key: SecretString::default(),
            };

            assert_eq!(endpoint.url("/chat/completions"), expected);
        }
    }

    #[tokio::test]
    async fn an_answer_of_a_server_that_does_not_stream_is_one_event_however_it_is_written() {
        let body = Body::from("{\r\n  \"choices\": [],\n  \"usage\": null\n}\n");
        let reading = Arc::new(Reading::default());

        let stream = as_stream(body, Duration::from_secs(1), reading)
            .await
            .expect("text");

        let stream = std::str::from_utf8(&stream).expect("text");
        let events: Vec<&str> = stream.split_terminator("\n\n").collect();
        let [answer, "data: [DONE]"] = events[..] else {
            panic!("{stream:?}")
        };
        let answer = answer.strip_prefix("data: ").expect("an event");
        assert!(!answer.contains(['\r', '\n']));
        serde_json::from_str::<serde_json::Value>(answer).expect("the answer");
    }

    #[test]
    fn what_the_crate_quotes_of_an_answer_goes_no_further() {
        let broken = serde_json::from_str::<u8>("secret").expect_err("no number");

        let error = provider_error(OpenAIError::JSONDeserialize(broken, "secret".to_owned()));

        assert_eq!(error.code(), "model_unreadable");
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}
