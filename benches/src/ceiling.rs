//! The least that a service in Rust can do for a turn: axum, one call for the embedding, an exact scan, one call of the
//! model, nothing kept. Measured in the same run, so that ratios mean something on any machine.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::extract::{Json, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::serve::ListenerExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::Scale;
use crate::client::json_request;
use crate::corpus;
use crate::load::{self, Ask};
use crate::model::{ScriptedModel, embed};
use crate::report::{Report, Turns};
use crate::server::Server;
use crate::setup;
use crate::turns::CLIENTS;

/// The word that turns this program into the ceiling's server.
pub const COMMAND: &str = "ceiling";

/// Passages put into a prompt.
const PASSAGES: usize = 5;

/// Measures answers and streams of the ceiling.
pub async fn measure(scale: &Scale, model: &ScriptedModel, report: &mut Report) -> anyhow::Result<()> {
    let arguments = [COMMAND.to_owned(), model.base_url(), scale.documents.to_string()].map(Into::into);
    let core = setup::server_core().map(|core| core.to_string());
    let server = Server::start(&std::env::current_exe()?, &arguments, core).await?;
    let documents = scale.documents;
    for streamed in [false, true] {
        let request = move |number: usize| {
            json_request(
                "/answer",
                "none",
                &json!({ "message": corpus::question((number * 7_919) % documents), "stream": streamed }),
            )
        };
        let expected = if streamed { "[DONE]" } else { "\"answer\"" };
        let ask = Ask {
            request: Arc::new(request),
            expected,
            first_token: streamed.then_some("\"content\":"),
        };
        for clients in CLIENTS {
            load::run(server.address, clients, clients * 4, &ask).await?;
            let before = server.cpu();
            let load = load::run(
                server.address,
                clients,
                if clients == 1 {
                    scale.turns / 4
                } else {
                    scale.turns
                },
                &ask,
            )
            .await?;
            let form = if streamed { "stream" } else { "answer" };
            report.turns(Turns::of("ceiling", form, clients, &load, server.cpu() - before));
        }
    }
    server.stop().await
}

/// Runs the ceiling's server: the model's address and the number of documents are the remaining words.
pub fn serve(mut words: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let model = words.next().context("no address of the model")?;
    let documents: usize = words.next().context("no number of documents")?.parse()?;
    let texts: Vec<String> = (0..documents)
        .map(|number| corpus::short_document(number).1)
        .collect();
    let vectors = texts.iter().map(|text| embed(text)).collect();
    #[expect(
        clippy::disallowed_methods,
        reason = "a measurement that calls itself on this machine"
    )]
    let builder = reqwest::Client::builder();
    let client = builder.no_proxy().tcp_nodelay(true).build()?;
    let ceiling = Arc::new(Ceiling {
        client,
        model,
        texts,
        vectors,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        crate::report::say(&format!("listening on http://{}", listener.local_addr()?));
        let listener = listener.tap_io(|stream| {
            // Nagle's algorithm costs 40 ms an event; a stream that refuses is slow, not wrong.
            let _ = stream.set_nodelay(true);
        });
        axum::serve(
            listener,
            Router::new().route("/answer", post(answer)).with_state(ceiling),
        )
        .await?;
        Ok(())
    })
}

struct Ceiling {
    client: reqwest::Client,
    model: String,
    texts: Vec<String>,
    vectors: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct Question {
    message: String,
    stream: bool,
}

async fn answer(State(ceiling): State<Arc<Ceiling>>, Json(question): Json<Question>) -> Response {
    match ceiling.answer(question).await {
        Ok(response) => response,
        Err(error) => (http::StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

impl Ceiling {
    async fn answer(&self, question: Question) -> anyhow::Result<Response> {
        #[derive(Deserialize)]
        struct Reply {
            data: Vec<Entry>,
        }
        #[derive(Deserialize)]
        struct Entry {
            embedding: Vec<f32>,
        }
        let request = json!({ "model": "bench-embedding", "input": [question.message] });
        let reply: Reply = self
            .client
            .post(format!("{}/embeddings", self.model))
            .json(&request)
            .send()
            .await?
            .json()
            .await?;
        let vector = &reply.data.first().context("no embedding")?.embedding;

        let mut scored: Vec<(f32, usize)> = self
            .vectors
            .iter()
            .enumerate()
            .map(|(place, other)| (dot(vector, other), place))
            .collect();
        scored.sort_unstable_by(|one, other| other.0.total_cmp(&one.0));
        let passages: Vec<&str> = scored
            .iter()
            .take(PASSAGES)
            .map(|(_, place)| self.texts[*place].as_str())
            .collect();

        let messages = json!([{ "role": "system", "content": passages.join("\n\n") }, { "role": "user", "content": question.message }]);
        let request = json!({ "model": "bench", "stream": question.stream, "messages": messages });
        let response = self
            .client
            .post(format!("{}/chat/completions", self.model))
            .json(&request)
            .send()
            .await?;
        if question.stream {
            let headers = [(http::header::CONTENT_TYPE, "text/event-stream")];
            return Ok((headers, Body::from_stream(response.bytes_stream())).into_response());
        }
        let reply: Value = response.json().await?;
        Ok(axum::Json(json!({ "answer": reply["choices"][0]["message"]["content"] })).into_response())
    }
}

fn dot(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}
