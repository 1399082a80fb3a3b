//! Turns with everything on: saved messages, ledger, citations. As JSON and as a stream of 64 tokens, from 1, 16 and 64
//! clients at once.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::client::json_request;
use crate::corpus;
use crate::load::{self, Ask, percentile};
use crate::model::ScriptedModel;
use crate::report::{Report, Target, Turns};
use crate::setup::Service;

/// Clients at once.
pub const CLIENTS: [usize; 3] = [1, 16, 64];

/// Turns before the measured ones, for each client: connections, caches, allocator.
const WARM_UP: usize = 4;

/// A single client takes its time; fewer turns say as much.
const ALONE_SHARE: usize = 4;

/// The targets hold for remote embeddings.
const REMOTE: &str = "remote";

/// A turn as JSON or as a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Answer,
    Stream,
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Stream => "stream",
        }
    }
}

/// Measures turns of a service whose embeddings are `embeddings`.
pub async fn measure(
    service: &Service,
    embeddings: &'static str,
    turns: usize,
    model: &ScriptedModel,
    report: &mut Report,
) -> anyhow::Result<()> {
    for form in [Form::Answer, Form::Stream] {
        let ask = ask(service, form);
        for clients in CLIENTS {
            let total = if clients == 1 { turns / ALONE_SHARE } else { turns };
            load::run(service.server.address, clients, clients * WARM_UP, &ask).await?;
            let before = service.server.cpu();
            let load = load::run(service.server.address, clients, total, &ask).await?;
            let cpu = service.server.cpu() - before;
            report.turns(Turns::of(embeddings, form.name(), clients, &load, cpu));
            if embeddings == REMOTE {
                compare(form, clients, &load, cpu, report);
            }
        }
    }
    if embeddings == REMOTE {
        let own = first_token_of_model(model).await?;
        let ask = ask(service, Form::Stream);
        let load = load::run(service.server.address, 1, turns / ALONE_SHARE, &ask).await?;
        let over = percentile(&load.first_tokens_ms, 0.5) - own;
        report.figure(
            "first token over the model's own, p50",
            over,
            "ms",
            Some(Target::AtMost(2.0)),
        );
    }
    Ok(())
}

fn compare(form: Form, clients: usize, load: &load::Load, cpu: Duration, report: &mut Report) {
    let cpu_ms = load::millis(cpu) / load.latencies_ms.len() as f64;
    match (form, clients) {
        (Form::Answer, 16) => {
            report.figure("CPU per answer", cpu_ms, "ms", Some(Target::AtMost(1.0)));
            report.figure(
                "answers per second of one core",
                1_000.0 / cpu_ms,
                "/s",
                Some(Target::AtLeast(1_000.0)),
            );
        }
        (Form::Stream, 16) => {
            report.figure(
                "64-token streams per second of one core",
                1_000.0 / cpu_ms,
                "/s",
                Some(Target::AtLeast(400.0)),
            );
        }
        (Form::Answer, 64) => {
            report.figure(
                "p99 of answers, 64 clients",
                percentile(&load.latencies_ms, 0.99),
                "ms",
                Some(Target::AtMost(90.0)),
            );
        }
        _ => {}
    }
}

fn ask(service: &Service, form: Form) -> Ask {
    let (api_key, chatbot_id, documents) = (
        service.api_key.clone(),
        service.chatbot_id.clone(),
        service.documents,
    );
    let request = move |number: usize| {
        // A stride without common factor visits all documents, neighbours far apart.
        let question = corpus::question((number * 7_919) % documents);
        let body = json!({ "chatbot_id": chatbot_id, "message": question, "stream": form == Form::Stream });
        json_request("/api/chat/message", &api_key, &body)
    };
    Ask {
        request: Arc::new(request),
        // Nothing but an answer of the model with a citation in it counts.
        expected: if form == Form::Stream {
            "event: citation"
        } else {
            "\"citations\":[{"
        },
        first_token: (form == Form::Stream).then_some("event: delta"),
    }
}

/// The scripted model's own first token, as a client next to it sees it, in milliseconds.
async fn first_token_of_model(model: &ScriptedModel) -> anyhow::Result<f64> {
    let request = |_: usize| {
        json_request(
            "/v1/chat/completions",
            "none",
            &json!({ "model": "bench", "stream": true, "messages": [] }),
        )
    };
    let ask = Ask {
        request: Arc::new(request),
        expected: "[DONE]",
        first_token: Some("\"content\":"),
    };
    let load = load::run(model.address, 1, 200, &ask).await?;
    Ok(percentile(&load.first_tokens_ms, 0.5))
}
