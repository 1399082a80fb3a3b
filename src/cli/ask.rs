//! `frontdesk ask`: one question to a chatbot, through the same route that everyone uses, with a key that lives as long
//! as the question.

use std::io::Write as _;

use axum::body::Body;
use bytes::Bytes;
use chrono::TimeDelta;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use http::{Request, StatusCode, header};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use url::Url;

use super::args::AskArgs;
use super::events::EventReader;
use super::{Failure, client, failed, print_line, with_causes};
use crate::app::{App, StartError, open_database};
use crate::chat::{Answer, AnswerSource};
use crate::chatbots;
use crate::clock::{Clock as _, SystemClock};
use crate::config::Config;
use crate::db::Db;
use crate::http::router;
use crate::id::{ApiKeyId, ChatbotId};
use crate::tenancy::keys::NewApiKey;
use crate::tenancy::operator;
use crate::tenancy::role::KeyScope;

/// The key is revoked after the answer; this is for when this process dies before.
const KEY_LIFE: TimeDelta = TimeDelta::minutes(5);

const ROUTE: &str = "api/chat/message";

/// Where the question goes.
enum Desk {
    /// A running server.
    Server(reqwest::Client, Url),
    /// The same routes, in this process.
    Here(App),
}

/// An answer on its way in.
struct Reply {
    status: StatusCode,
    body: BoxStream<'static, Result<Bytes, String>>,
}

/// Asks, prints the answer as it comes and then its citations.
pub(super) async fn ask(config: Config, args: AskArgs) -> Result<(), Failure> {
    let desk = find_desk(&config, &args).await?;
    let db = match &desk {
        Desk::Server(..) => open_database(&config).await?,
        Desk::Here(app) => app.db.clone(),
    };
    let asked = ask_with_key(&desk, &db, &args).await;
    match desk {
        Desk::Server(..) => db.close().await,
        Desk::Here(app) => {
            drop(db);
            app.close().await;
        }
    }
    asked
}

async fn find_desk(config: &Config, args: &AskArgs) -> Result<Desk, Failure> {
    let named = args.server.server.is_some();
    let client = client::http_client()?;
    let unreachable = match client::server_url(config, args.server.clone()) {
        Ok(server) => match client::check(&client, &server).await {
            Ok(()) => return Ok(Desk::Server(client, server)),
            Err(reason) => format!("no server answers at {server}: {reason}"),
        },
        Err(failure) if named => return Err(failure),
        Err(failure) => failure.to_string(),
    };
    if named {
        return Err(Failure::Failed(unreachable));
    }
    match App::build_to_look(config.clone()).await {
        Ok(app) => Ok(Desk::Here(app)),
        Err(StartError::InUse { .. }) => Err(Failure::InUse(format!(
            "a server runs on this data folder, but it was not found ({unreachable}): tell where it is with --server http://…"
        ))),
        Err(error) => Err(error.into()),
    }
}

async fn ask_with_key(desk: &Desk, db: &Db, args: &AskArgs) -> Result<(), Failure> {
    let (key_id, secret) = make_key(db, args.chatbot).await?;
    let asked = async {
        let reply = send(desk, &secret, args).await?;
        if !reply.status.is_success() {
            return Err(refused(reply).await);
        }
        if args.json {
            print_whole(reply).await
        } else {
            print_as_it_comes(reply).await
        }
    }
    .await;
    let discarded = operator::discard_key(db, &SystemClock, key_id).await;
    asked?;
    discarded.map_err(Failure::from)
}

async fn make_key(db: &Db, chatbot_id: ChatbotId) -> Result<(ApiKeyId, String), Failure> {
    let tenant_id = chatbots::operator::find_tenant(db, chatbot_id)
        .await?
        .ok_or_else(|| Failure::NotFound("there is no such chatbot".to_owned()))?;
    let new = NewApiKey {
        name: "frontdesk ask".to_owned(),
        scopes: vec![KeyScope::Chat],
        chatbot_id: Some(chatbot_id),
        expires_at: Some(SystemClock.now() + KEY_LIFE),
    };
    let (key, secret) = operator::create_key(db, &SystemClock, tenant_id, new).await?;
    Ok((key.id, secret))
}

async fn send(desk: &Desk, secret: &str, args: &AskArgs) -> Result<Reply, Failure> {
    let body = json!({ "chatbot_id": args.chatbot, "message": args.question, "stream": !args.json });
    match desk {
        Desk::Server(client, server) => {
            let answer = client
                .post(client::endpoint(server, ROUTE))
                .bearer_auth(secret)
                .json(&body)
                .send()
                .await;
            let answer =
                answer.map_err(|error| failed("the server does not answer", &error.without_url()))?;
            let status = answer.status();
            let body = answer
                .bytes_stream()
                .map(|piece| piece.map_err(|error| with_causes(&error.without_url())));
            Ok(Reply {
                status,
                body: body.boxed(),
            })
        }
        Desk::Here(app) => {
            let request = Request::post(format!("/{ROUTE}"))
                .header(header::AUTHORIZATION, format!("Bearer {secret}"))
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(body.to_string()))
                .map_err(|error| failed("cannot ask", &error))?;
            let Ok(answer) = router::router(app.clone()).oneshot(request).await;
            let status = answer.status();
            let body = answer
                .into_body()
                .into_data_stream()
                .map(|piece| piece.map_err(|error| with_causes(&error)));
            Ok(Reply {
                status,
                body: body.boxed(),
            })
        }
    }
}

async fn whole(mut reply: Reply) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    while let Some(piece) = reply.body.next().await {
        bytes.extend_from_slice(
            &piece.map_err(|reason| Failure::Failed(format!("the answer was cut off: {reason}")))?,
        );
    }
    Ok(bytes)
}

async fn refused(reply: Reply) -> Failure {
    let status = reply.status;
    let problem: Value = match whole(reply).await {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
        Err(failure) => return failure,
    };
    let detail = problem["detail"]
        .as_str()
        .map_or_else(|| format!("the server answers {status}"), str::to_owned);
    match status {
        StatusCode::NOT_FOUND => Failure::NotFound(detail),
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Failure::Usage(detail),
        _ => Failure::Failed(detail),
    }
}

async fn print_whole(reply: Reply) -> Result<(), Failure> {
    let bytes = whole(reply).await?;
    let answer: Value = serde_json::from_slice(&bytes)
        .map_err(|error| failed("the server's answer cannot be read", &error))?;
    print_line(&answer.to_string());
    Ok(())
}

async fn print_as_it_comes(mut reply: Reply) -> Result<(), Failure> {
    let mut events = EventReader::default();
    let mut ended = None;
    while let Some(piece) = reply.body.next().await {
        let piece = piece.map_err(|reason| Failure::Failed(format!("the answer was cut off: {reason}")))?;
        for (name, data) in events.feed(&piece) {
            match name.as_str() {
                "delta" => print_text(&data)?,
                "message.end" => ended = Some(parse::<Answer>(&data)?),
                "error" => return Err(Failure::Failed(told_problem(&data))),
                // The rest repeats what the end says.
                _ => {}
            }
        }
    }
    let answer = ended.ok_or_else(|| Failure::Failed("the answer was cut off".to_owned()))?;
    print_line("");
    if let Some(notes) = notes(&answer) {
        print_line(&notes);
    }
    Ok(())
}

fn print_text(data: &str) -> Result<(), Failure> {
    let delta = parse::<Value>(data)?;
    let mut stdout = std::io::stdout().lock();
    // Whoever read this output may be gone; the turn is complete on the server all the same.
    let text = printable(delta["text"].as_str().unwrap_or_default());
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    Ok(())
}

/// Text without the control characters that a terminal would obey: it comes from documents and models.
fn printable(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control() || matches!(character, '\n' | '\t'))
        .collect()
}

fn parse<T: serde::de::DeserializeOwned>(data: &str) -> Result<T, Failure> {
    serde_json::from_str(data).map_err(|error| failed("the server's answer cannot be read", &error))
}

fn told_problem(data: &str) -> String {
    let problem: Value = serde_json::from_str(data).unwrap_or_default();
    problem["detail"]
        .as_str()
        .unwrap_or("the server failed in the middle of the answer")
        .to_owned()
}

/// What stands below the answer: where it comes from.
fn notes(answer: &Answer) -> Option<String> {
    let mut lines = Vec::new();
    if answer.source == AnswerSource::Extractive {
        lines.push("(sentences of the documents, word for word: no model is configured)".to_owned());
    }
    for citation in &answer.citations {
        let mut place = vec![citation.title.clone()];
        place.extend(citation.heading.clone());
        place.extend(citation.page.map(|page| format!("page {page}")));
        place.extend(citation.url.clone());
        lines.push(format!(
            "[{}] {}\n    \"{}\"",
            citation.marker,
            place.join(", "),
            citation.quote.replace('\n', " ")
        ));
    }
    (!lines.is_empty()).then(|| printable(&format!("\n{}", lines.join("\n"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_told_nothing_but_text() {
        assert_eq!(printable("a\u{1b}[2Jb\r\n\tc\u{9b}1m"), "a[2Jb\n\tc1m");
    }

    #[test]
    fn below_the_answer_stands_where_it_comes_from() {
        let answer: Answer = serde_json::from_value(json!({
            "conversation_id": null, "message_id": null, "answer": "45 days. [1]", "source": "extractive",
            "citations": [{
                "marker": 1, "document_id": uuid::Uuid::nil(), "chunk_id": uuid::Uuid::nil(), "title": "Returns", "page": 2,
                "heading": "Money back", "quote": "45 days\nfrom delivery", "start": 0, "end": 21, "score": 0.5,
            }],
            "usage": { "prompt_tokens": 0, "completion_tokens": 0, "embedding_tokens": 0, "cost_micro_usd": 0 },
        }))
        .expect("an answer");

        let notes = notes(&answer).expect("an extract with a citation");

        assert!(
            notes.contains("[1] Returns, Money back, page 2\n    \"45 days from delivery\""),
            "{notes}"
        );
        assert!(notes.contains("no model is configured"), "{notes}");
    }
}
