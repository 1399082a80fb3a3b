//! A scripted reranker that speaks Cohere's format: prefers the texts that have a word, and fails as it is told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The server. It stops when this is dropped.
pub struct ScriptedReranker {
    address: SocketAddr,
    state: Arc<Scripted>,
    server: JoinHandle<()>,
}

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug)]
pub enum RerankFault {
    /// An error response.
    Status(u16),
    /// Scores of other texts.
    Stray,
    /// Scores of none.
    Empty,
    /// No answer while anybody waits for one.
    Silence,
}

struct Scripted {
    preferred: &'static str,
    faults: Mutex<VecDeque<RerankFault>>,
    asked: Mutex<Vec<Value>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ScriptedReranker {
    /// Starts the server on a free port: texts with `preferred` come first.
    pub async fn start(preferred: &'static str) -> Self {
        let state = Arc::new(Scripted {
            preferred,
            faults: Mutex::default(),
            asked: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let router = Router::new()
            .route("/v2/rerank", post(rerank))
            .with_state(Arc::clone(&state));
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self {
            address,
            state,
            server,
        }
    }

    /// For `rerank.base_url`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v2", self.address)
    }

    /// Queues what is wrong with the next answer.
    pub fn push_fault(&self, fault: RerankFault) {
        lock(&self.state.faults).push_back(fault);
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Value> {
        lock(&self.state.asked).clone()
    }
}

impl Drop for ScriptedReranker {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn rerank(State(state): State<Arc<Scripted>>, axum::Json(body): axum::Json<Value>) -> Response {
    let texts = body["documents"].as_array().cloned().unwrap_or_default();
    lock(&state.asked).push(body);
    let has_it = |text: &Value| text.as_str().is_some_and(|text| text.contains(state.preferred));
    let score = |text: &Value| if has_it(text) { 0.9 } else { 0.1 };
    let scores = texts.iter().enumerate();
    let scores = scores.map(|(index, text)| json!({ "index": index, "relevance_score": score(text) }));
    let fault = lock(&state.faults).pop_front();
    let results: Vec<Value> = match fault {
        Some(RerankFault::Status(status)) => {
            return StatusCode::from_u16(status).expect("a status").into_response();
        }
        Some(RerankFault::Silence) => {
            tokio::time::sleep(std::time::Duration::from_secs(60)).await;
            Vec::new()
        }
        Some(RerankFault::Empty) => Vec::new(),
        Some(RerankFault::Stray) => vec![json!({ "index": texts.len(), "relevance_score": 1.0 })],
        None => scores.collect(),
    };
    let meta = json!({ "billed_units": { "search_units": 1 } });
    axum::Json(json!({ "id": "scripted", "results": results, "meta": meta })).into_response()
}
