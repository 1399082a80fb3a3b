//! A source's progress as server-sent events.

use std::time::Duration;

use chrono::TimeDelta;
use reqwest::{Method, Response, header};
use serde_json::{Value, json};

use crate::harness::app::{Event, Tenant, TestApp, TestOptions};

/// How long a test waits for an event: far longer than the service takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// An open stream, read event by event.
struct Stream {
    response: Response,
    text: String,
}

impl Stream {
    async fn open(tenant: &Tenant<'_>, source: &str, key: &str) -> Self {
        let path = format!("/api/sources/{source}/events");
        let response = tenant
            .service
            .request(Method::GET, &path, Some(key))
            .send()
            .await
            .expect("the service answers");
        assert_eq!(response.status(), 200);
        Self {
            response,
            text: String::new(),
        }
    }

    /// The next event, or comment; none at the end of the stream.
    async fn next_block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            let piece = tokio::time::timeout(PATIENCE, self.response.chunk())
                .await
                .expect("something comes")
                .expect("the stream goes on")?;
            self.text += std::str::from_utf8(&piece).expect("events are text");
        }
    }

    /// The next event that is no comment.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let block = self.next_block().await?;
            if let Some(event) = Event::parse_all(&format!("{block}\n\n")).pop() {
                return Some(event);
            }
        }
    }

    async fn expect(&mut self, name: &str) -> Value {
        let event = self.next().await.expect("an event");
        assert_eq!(event.name, name, "{}", event.data);
        event.data
    }
}

#[tokio::test]
async fn a_stream_opens_with_the_present_state_and_tells_each_change() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let (source, run) = desk.aborted_source("https://shop.example/").await;
    let path = format!("/api/sources/{source}");

    let mut stream = Stream::open(&acme, &source, &acme.key).await;

    assert_eq!(
        stream.response.headers()[header::CONTENT_TYPE],
        "text/event-stream; charset=utf-8"
    );
    let shown = acme.get(&path).await.expect(200).json();
    assert_eq!(stream.expect("source").await, shown);
    assert_eq!(stream.expect("run").await["id"], json!(run));
    acme.patch(&path, json!({ "name": "Store" })).await.expect(200);
    assert_eq!(stream.expect("source").await["name"], "Store");
    let run = acme
        .post(&format!("{path}/sync"), json!({}))
        .await
        .expect(202)
        .json();
    assert_eq!(stream.expect("source").await["state"], "queued");
    assert_eq!(stream.expect("run").await, run);
    acme.delete(&path).await.expect(204);
    assert_eq!(stream.expect("error").await["code"], "not_found");
    assert!(stream.next().await.is_none(), "nothing more can happen");
}

#[tokio::test]
async fn a_change_made_by_another_process_is_told_too() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let (source, _) = desk.aborted_source("https://shop.example/").await;
    let mut stream = Stream::open(&acme, &source, &acme.key).await;
    stream.expect("source").await;
    stream.expect("run").await;
    let replica = service
        .replica(frontdesk::jobs::runner::JobKinds::default())
        .await;

    let mut write = replica.db.write(acme.id).await.expect("a transaction");
    frontdesk::knowledge::sync::request(
        &replica,
        &mut write,
        acme.id,
        source.parse().expect("an id"),
        frontdesk::knowledge::sync::Cause::Schedule,
    )
    .await
    .expect("a run");
    write.commit().await.expect("committed");

    assert_eq!(stream.expect("source").await["state"], "queued");
    assert_eq!(stream.expect("run").await["cause"], "schedule");
}

#[tokio::test]
async fn a_silent_stream_beats() {
    let service = TestOptions::default().set("chat.heartbeat_s", 1).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let (source, _) = desk.aborted_source("https://shop.example/").await;
    let mut stream = Stream::open(&acme, &source, &acme.key).await;
    stream.expect("source").await;
    stream.expect("run").await;

    assert!(stream.next_block().await.expect("a beat").starts_with(':'));
}

#[tokio::test]
async fn past_the_limit_newcomers_are_refused_and_those_inside_are_served() {
    let service = TestOptions::default()
        .set("limits.source_streams", 1)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let (source, _) = desk.aborted_source("https://shop.example/").await;
    let path = format!("/api/sources/{source}/events");
    let mut first = Stream::open(&acme, &source, &acme.key).await;

    let refused = acme.get(&path).await.expect(503);

    assert_eq!(refused.code(), "busy");
    assert!(refused.headers.contains_key("retry-after"));
    first.expect("source").await;
    drop(first);
    for _ in 0..100 {
        let response = service
            .request(Method::GET, &path, Some(&acme.key))
            .send()
            .await
            .expect("the service answers");
        if response.status() == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the place of a stream that was left is not given back");
}

#[tokio::test]
async fn a_stream_ends_soon_after_its_key_was_revoked() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let (source, _) = desk.aborted_source("https://shop.example/").await;
    let made = acme
        .post("/api/keys", json!({ "name": "watcher", "scopes": ["ingest"] }))
        .await
        .expect(201)
        .json();
    let key = made["secret"].as_str().expect("a secret");
    let mut stream = Stream::open(&acme, &source, key).await;
    stream.expect("source").await;
    stream.expect("run").await;

    acme.delete(&format!("/api/keys/{}", made["id"].as_str().expect("an id")))
        .await
        .expect(204);

    let told = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let block = stream.next_block().await.expect("an end is told");
            if block.starts_with("event: error") {
                return block;
            }
        }
    })
    .await
    .expect("within a minute");
    assert!(told.contains("credential_invalid"), "{told}");
}

#[tokio::test]
async fn a_stream_ends_when_the_server_stops() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let (source, _) = desk.aborted_source("https://shop.example/").await;
    let mut stream = Stream::open(&acme, &source, &acme.key).await;
    stream.expect("source").await;
    stream.expect("run").await;
    service.clock.advance(TimeDelta::seconds(1));

    service.app.stopping.cancel();

    assert!(stream.next().await.is_none());
}
