//! An HTTP server that answers as it is told and remembers what it was asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

pub(crate) struct ScriptedServer {
    pub(crate) base_url: String,
    shared: Arc<Shared>,
}

struct Shared {
    script: Mutex<VecDeque<Answer>>,
    /// Requests with a text that has it are refused.
    refused: Mutex<Option<&'static str>>,
    requests: Mutex<Vec<Request>>,
}

#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: Value,
}

#[derive(Clone)]
pub(crate) enum Answer {
    /// A vector for each text: its place in the request, its length in bytes, one.
    Vectors,
    /// A score for each text, its length in bytes, in the reverse order of the texts.
    Scores,
    Status(u16, &'static str, &'static str),
    Body(String),
    /// Says nothing.
    Silence,
    /// Ends the connection in the middle of the body.
    Cut,
}

impl ScriptedServer {
    /// Gives `answers` in turn, then vectors.
    pub(crate) async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            script: Mutex::new(answers.into_iter().collect()),
            refused: Mutex::default(),
            requests: Mutex::default(),
        });
        tokio::spawn({
            let shared = shared.clone();
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, shared.clone()));
                }
            }
        });
        Self {
            base_url: format!("http://{address}/v1"),
            shared,
        }
    }

    /// From now on requests are refused in which a text holds `part`.
    pub(crate) fn refuse_texts_with(&self, part: &'static str) {
        *self.shared.refused.lock().expect("no test panicked with it") = Some(part);
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared
            .requests
            .lock()
            .expect("no test panicked with it")
            .clone()
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let mut stream = BufReader::new(stream);
    loop {
        let Some(request) = read_request(&mut stream).await else {
            return;
        };
        let answer = shared
            .script
            .lock()
            .expect("no test panicked with it")
            .pop_front()
            .unwrap_or(Answer::Vectors);
        let body = request.body.clone();
        let inputs = body["input"].as_array().cloned().unwrap_or_default();
        shared
            .requests
            .lock()
            .expect("no test panicked with it")
            .push(request);
        let refused = *shared.refused.lock().expect("no test panicked with it");
        let holds = |part| {
            inputs
                .iter()
                .any(|text| text.as_str().is_some_and(|text| text.contains(part)))
        };
        let answer = match refused {
            Some(part) if holds(part) => Answer::Status(400, "", "{\"error\": \"not this one\"}"),
            _ => answer,
        };
        let (status, headers, body) = match answer {
            Answer::Vectors => (200, "", vectors(&inputs)),
            Answer::Scores => (200, "", scores(&body)),
            Answer::Status(status, headers, body) => (status, headers, body.to_owned()),
            Answer::Body(body) => (200, "", body),
            Answer::Silence => return tokio::time::sleep(Duration::from_secs(60)).await,
            Answer::Cut => {
                let part = "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"data\": [";
                stream.write_all(part.as_bytes()).await.ok();
                return;
            }
        };
        let answer = format!(
            "HTTP/1.1 {status} Scripted\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut head = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request {
        head,
        body: serde_json::from_slice(&body).ok()?,
    })
}

/// In the reverse order, as the contract allows.
fn vectors(inputs: &[Value]) -> String {
    let data: Vec<Value> = (0..inputs.len())
        .rev()
        .map(|place| {
            let length = inputs[place].as_str().map_or(0, str::len);
            json!({"object": "embedding", "index": place, "embedding": [place as f32, length as f32, 1.0]})
        })
        .collect();
    let tokens = 10 * inputs.len();
    json!({"object": "list", "data": data, "model": "scripted", "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})
        .to_string()
}

/// As the server does that takes such a request.
fn scores(request: &Value) -> String {
    let is_tei = request["texts"].is_array();
    let texts = if is_tei {
        &request["texts"]
    } else {
        &request["documents"]
    };
    let texts = texts.as_array().cloned().unwrap_or_default();
    let name = if is_tei { "score" } else { "relevance_score" };
    let scores: Vec<Value> = (0..texts.len())
        .rev()
        .map(|place| json!({"index": place, name: texts[place].as_str().map_or(0, str::len)}))
        .collect();
    if is_tei {
        json!(scores)
    } else {
        json!({ "results": scores })
    }
    .to_string()
}
