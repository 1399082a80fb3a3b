//! A scripted server that speaks the OpenAI format: says what a test told it to say, fails in every way that real
//! ones fail in, and remembers what it was asked.

mod script;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt as _;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use script::{Reply, Script};
use script::{Step, steps, words};

/// The server. It stops when this is dropped.
pub struct ScriptedModel {
    address: SocketAddr,
    state: Arc<Scripted>,
    server: JoinHandle<()>,
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: &'static str,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Asked {
    /// The content of the last message.
    pub fn last_message(&self) -> &str {
        self.body["messages"]
            .as_array()
            .and_then(|messages| messages.last())
            .and_then(|message| message["content"].as_str())
            .unwrap_or_default()
    }
}

/// Tokens that the server says it has used, all answers together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    pub prompt: u64,
    pub completion: u64,
    pub cached: u64,
    pub embedding: u64,
}

/// What the server does wrong with one request for embeddings.
#[derive(Clone, Copy, Debug)]
pub enum EmbeddingFault {
    /// Vectors one shorter than they should be.
    WrongDimension,
    /// Vectors of zeros.
    NoDirection,
    /// The right vectors, the last one first, each with its index.
    Shuffled,
    /// An error response.
    Status(u16),
    /// The right vectors, late.
    Late(Duration),
}

/// How the first of the sentences begins by which a model is measured.
const FIRST_UNRELATED: &str = "The swimming pool is open";

/// What the server says to a request for embeddings that fails: nobody but the operator may read it, and nobody the key.
pub const UPSTREAM_WORDS: &str = "Incorrect API key provided: sk-test-SECRET-abcd, see /srv/app/x.py:33";

type Answerer = Box<dyn Fn(&Asked) -> Script + Send + Sync>;

struct Scripted {
    scripts: Mutex<VecDeque<Script>>,
    otherwise: Mutex<Answerer>,
    faults: Mutex<VecDeque<EmbeddingFault>>,
    /// Requests for embeddings of texts that hold it are refused.
    refused: Mutex<Option<&'static str>>,
    /// The status of all requests for embeddings, until it is taken back.
    denied: Mutex<Option<u16>>,
    /// Texts of one request for embeddings at most; with more it is never answered.
    managed: AtomicUsize,
    asked: Mutex<Vec<Asked>>,
    /// Times that it was measured how near unrelated texts are: nobody's question, and in none of the other figures.
    measured: AtomicUsize,
    /// The cosine that any two texts have at least.
    base: Mutex<f32>,
    served: Mutex<Served>,
    dimension: AtomicUsize,
    open: AtomicUsize,
    cancelled: AtomicUsize,
    connections: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ScriptedModel {
    /// Starts the server on a free port. Until told otherwise it answers "Scripted answer.".
    pub async fn start() -> Self {
        let state = Arc::new(Scripted {
            scripts: Mutex::default(),
            otherwise: Mutex::new(Box::new(|_| Script::Reply(Reply::new("Scripted answer.")))),
            faults: Mutex::default(),
            refused: Mutex::default(),
            denied: Mutex::default(),
            asked: Mutex::default(),
            measured: AtomicUsize::new(0),
            base: Mutex::default(),
            served: Mutex::default(),
            managed: AtomicUsize::new(usize::MAX),
            dimension: AtomicUsize::new(256),
            open: AtomicUsize::new(0),
            cancelled: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let router = Router::new()
            .route("/v1/chat/completions", post(chat))
            .route("/v1/embeddings", post(embed))
            .with_state(Arc::clone(&state));
        let counted = Arc::clone(&state);
        let listener = listener.tap_io(move |stream| {
            counted.connections.fetch_add(1, Ordering::Relaxed);
            let _ = stream.set_nodelay(true);
        });
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self {
            address,
            state,
            server,
        }
    }

    /// For `llm.base_url` and `embedding.base_url`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// What is answered when the queue is empty.
    pub fn reply(&self, text: &str) {
        let reply = Reply::new(text);
        self.reply_with(move |_| Script::Reply(reply.clone()));
    }

    /// Like [`Self::reply`], from what was asked.
    pub fn reply_with(&self, answer: impl Fn(&Asked) -> Script + Send + Sync + 'static) {
        *lock(&self.state.otherwise) = Box::new(answer);
    }

    /// Queues what the next chat request gets.
    pub fn push(&self, script: Script) {
        lock(&self.state.scripts).push_back(script);
    }

    /// From now on any two texts have this cosine at least, as to a model whose cosines are all high.
    pub fn set_base(&self, base: f32) {
        *lock(&self.state.base) = base;
    }

    /// How often it was measured how near unrelated texts are.
    pub fn measured(&self) -> usize {
        self.state.measured.load(Ordering::Relaxed)
    }

    /// From now on requests for embeddings are refused in which a text holds `part`.
    pub fn refuse_texts_with(&self, part: &'static str) {
        *lock(&self.state.refused) = Some(part);
    }

    /// From now on requests for embeddings fail with this status; none: they are answered again.
    pub fn deny_with(&self, status: Option<u16>) {
        *lock(&self.state.denied) = status;
    }

    /// From now on requests for embeddings of more texts than these are never answered.
    pub fn manage(&self, texts: usize) {
        self.state.managed.store(texts, Ordering::Relaxed);
    }

    /// Queues what is wrong with the next embedding request.
    pub fn push_fault(&self, fault: EmbeddingFault) {
        lock(&self.state.faults).push_back(fault);
    }

    /// Sets the length of the vectors.
    pub fn set_dimension(&self, dimension: usize) {
        self.state.dimension.store(dimension, Ordering::Relaxed);
    }

    /// The length of the vectors.
    pub fn dimension(&self) -> usize {
        self.state.dimension.load(Ordering::Relaxed)
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Asked> {
        lock(&self.state.asked).clone()
    }

    /// The chat requests so far.
    pub fn chat_requests(&self) -> Vec<Asked> {
        self.requests()
            .into_iter()
            .filter(|asked| asked.path == "/v1/chat/completions")
            .collect()
    }

    /// The tokens that were reported so far.
    pub fn served(&self) -> Served {
        *lock(&self.state.served)
    }

    /// Answers that are being given.
    pub fn open(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }

    /// Answers that the client closed before their end.
    pub fn cancelled(&self) -> usize {
        self.state.cancelled.load(Ordering::SeqCst)
    }

    /// Connections that were made to this server.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Waits until `count` answers were closed by the client; false when that takes longer than 5 seconds.
    pub async fn wait_cancelled(&self, count: usize) -> bool {
        for _ in 0..500 {
            if self.cancelled() >= count {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }
}

impl Drop for ScriptedModel {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Counts an answer as open while it lives, and as cancelled when it goes before its end.
struct Watch {
    state: Arc<Scripted>,
    is_whole: bool,
}

impl Watch {
    fn new(state: &Arc<Scripted>) -> Self {
        state.open.fetch_add(1, Ordering::SeqCst);
        Self {
            state: Arc::clone(state),
            is_whole: false,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.state.open.fetch_sub(1, Ordering::SeqCst);
        if !self.is_whole {
            self.state.cancelled.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn chat(State(state): State<Arc<Scripted>>, headers: HeaderMap, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).expect("the client sends JSON");
    let asked = Asked {
        path: "/v1/chat/completions",
        headers,
        body,
    };
    let streamed = asked.body["stream"] == true;
    lock(&state.asked).push(asked.clone());
    let queued = lock(&state.scripts).pop_front();
    let script = queued.unwrap_or_else(|| lock(&state.otherwise)(&asked));

    if let Script::Status {
        status,
        headers,
        body,
    } = script
    {
        let mut response = (StatusCode::from_u16(status).expect("a status"), body).into_response();
        for (name, value) in headers {
            response
                .headers_mut()
                .insert(name, value.parse().expect("a header value"));
        }
        return response;
    }
    let watch = Watch::new(&state);
    if matches!(script, Script::HangBeforeHeaders) {
        std::future::pending::<Infallible>().await;
    }
    let streamed = streamed && !matches!(script, Script::NoStream(_));
    let with_usage = !streamed || asked.body["stream_options"]["include_usage"] == true;
    let steps = steps(script, &asked, streamed, with_usage, &state);
    let content_type = if streamed {
        "text/event-stream"
    } else {
        "application/json"
    };
    ([(header::CONTENT_TYPE, content_type)], play(steps, watch)).into_response()
}

fn play(steps: Box<dyn Iterator<Item = Step> + Send>, watch: Watch) -> Body {
    Body::from_stream(futures::stream::unfold(
        Some((steps, watch)),
        |state| async move {
            let (mut steps, mut watch) = state?;
            loop {
                match steps.next() {
                    Some(Step::Send(bytes)) => return Some((Ok(bytes), Some((steps, watch)))),
                    Some(Step::Wait(pause)) => tokio::time::sleep(pause).await,
                    Some(Step::Hang) => std::future::pending().await,
                    Some(Step::Cut) => {
                        watch.is_whole = true;
                        return Some((Err(std::io::Error::other("scripted cut")), None));
                    }
                    None => {
                        watch.is_whole = true;
                        return None;
                    }
                }
            }
        },
    ))
}

async fn embed(State(state): State<Arc<Scripted>>, headers: HeaderMap, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).expect("the client sends JSON");
    let texts: Vec<String> = match &body["input"] {
        Value::String(text) => vec![text.clone()],
        other => other
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|text| text.as_str().map(str::to_owned))
            .collect(),
    };
    let base = *lock(&state.base);
    if texts
        .first()
        .is_some_and(|text| text.starts_with(FIRST_UNRELATED))
    {
        state.measured.fetch_add(1, Ordering::Relaxed);
        let dimension = state.dimension.load(Ordering::Relaxed);
        let answer = json!({ "object": "list", "data": vectors(&texts, dimension, base) });
        return ([(header::CONTENT_TYPE, "application/json")], answer.to_string()).into_response();
    }
    lock(&state.asked).push(Asked {
        path: "/v1/embeddings",
        headers,
        body,
    });
    let refused = *lock(&state.refused);
    let is_refused = refused.is_some_and(|part| texts.iter().any(|text| text.contains(part)));
    let denied = *lock(&state.denied);
    let fault = match (denied, is_refused) {
        (Some(status), _) => Some(EmbeddingFault::Status(status)),
        (None, true) => Some(EmbeddingFault::Status(400)),
        (None, false) => lock(&state.faults).pop_front(),
    };
    if let Some(EmbeddingFault::Status(status)) = fault {
        let body = json!({ "error": { "message": UPSTREAM_WORDS, "type": "server_error", "code": null } })
            .to_string();
        return (
            StatusCode::from_u16(status).expect("a status"),
            [(header::RETRY_AFTER, "0")],
            body,
        )
            .into_response();
    }
    if texts.len() > state.managed.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
    if let Some(EmbeddingFault::Late(delay)) = fault {
        tokio::time::sleep(delay).await;
    }
    let right = state.dimension.load(Ordering::Relaxed);
    let dimension = if matches!(fault, Some(EmbeddingFault::WrongDimension)) {
        right - 1
    } else {
        right
    };
    let mut data = vectors(&texts, dimension, base);
    if matches!(fault, Some(EmbeddingFault::NoDirection)) {
        data.iter_mut()
            .for_each(|entry| entry["embedding"] = json!(vec![0.0; dimension]));
    }
    if matches!(fault, Some(EmbeddingFault::Shuffled)) {
        data.reverse();
    }
    let tokens: u64 = texts.iter().map(|text| words(text)).sum();
    lock(&state.served).embedding += tokens;
    let answer = json!({ "object": "list", "model": "scripted-embedding", "data": data, "usage": { "prompt_tokens": tokens, "total_tokens": tokens } });
    ([(header::CONTENT_TYPE, "application/json")], answer.to_string()).into_response()
}

/// The vectors of the texts, each with its index.
fn vectors(texts: &[String], dimension: usize, base: f32) -> Vec<Value> {
    let vector = |text: &String| {
        let mut vector = bag_of_words(text, dimension);
        vector.iter_mut().for_each(|value| *value *= (1.0 - base).sqrt());
        vector[0] += base.sqrt();
        vector
    };
    let entry = |(index, text)| json!({ "object": "embedding", "index": index, "embedding": vector(text) });
    texts.iter().enumerate().map(entry).collect()
}

/// A vector in which texts that share words are near each other: each word of three letters and more has a place.
pub fn bag_of_words(text: &str, dimension: usize) -> Vec<f32> {
    let mut vector = vec![0.0_f32; dimension];
    for word in text
        .to_lowercase()
        .split(|character: char| !character.is_alphanumeric())
        .filter(|word| word.chars().count() >= 3)
    {
        let mut hasher = DefaultHasher::new();
        word.trim_end_matches('s').hash(&mut hasher);
        vector[(hasher.finish() % dimension as u64) as usize] += 1.0;
    }
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length == 0.0 {
        vector[0] = 1.0;
        return vector;
    }
    vector.iter_mut().for_each(|value| *value /= length);
    vector
}
