//! A stream that is open while its credential is taken away ends soon, with an error event; one whose credential
//! stands goes on.

use std::time::Duration;

use chrono::TimeDelta;
use frontdesk::db::Scope;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Chatbot, Event, Tenant, TestApp, TestOptions};
use crate::harness::openai::{Reply, Script, ScriptedModel};

const RETURNS: &str = "# Returns\n\nGoods may be returned within 30 days.\n";

/// A service that looks after its streams each second.
async fn start() -> (TestApp, ScriptedModel) {
    let model = ScriptedModel::start().await;
    let options = TestOptions::default().model(&model).set("chat.heartbeat_s", 1);
    (options.start().await, model)
}

/// Opens a stream whose answer stops in the middle, and reads its beginning.
async fn open<'a>(
    desk: &Chatbot<'_, 'a>,
    credential: &str,
    model: &ScriptedModel,
) -> (reqwest::Response, String) {
    desk.publish("returns.md", RETURNS).await;
    model.push(Script::HangAfter("Within 30"));
    let body = json!({ "chatbot_id": desk.id, "message": "Within how many days may goods be returned?", "stream": true });
    let request = desk
        .tenant
        .service
        .request(Method::POST, "/api/chat/message", Some(credential));
    let mut stream = request.json(&body).send().await.expect("an answer");
    let mut begun = String::new();
    while !begun.contains("event: delta") {
        let part = stream.chunk().await.expect("a part").expect("the stream goes on");
        begun += &String::from_utf8_lossy(&part);
    }
    (stream, begun)
}

/// Reads the stream to its end, which must come soon, and checks that it ended for its credential.
async fn assert_ends(tenant: &Tenant<'_>, stream: reqwest::Response, begun: String, model: &ScriptedModel) {
    let rest = tokio::time::timeout(Duration::from_secs(15), stream.text()).await;
    let text = begun + &rest.expect("the stream ends soon").expect("the stream ends well");
    let events = Event::parse_all(&text);
    let last = events.last().expect("an event");
    assert_eq!(
        (last.name.as_str(), &last.data["code"]),
        ("error", &json!("credential_invalid")),
        "{text}"
    );
    assert!(last.data["request_id"].as_str().is_some_and(|id| !id.is_empty()));
    let cancelled = tokio::time::timeout(Duration::from_secs(10), async {
        while model.cancelled() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    cancelled.await.expect("the model is left");

    // What was written until then is kept, and marked.
    let conversation = events[0].data["conversation_id"]
        .as_str()
        .expect("a conversation")
        .to_owned();
    let mut conn = tenant
        .service
        .app
        .db
        .read(Scope::Operator)
        .await
        .expect("a connection");
    let saved = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let id: uuid::Uuid = conversation.parse().expect("an id");
            let text = "select state from message where conversation_id = $1 and role = 'assistant' and state <> 'writing'";
            let state: Option<String> =
                frontdesk::on!(conn, c => sqlx::query_scalar(text).bind(id).fetch_optional(c).await)
                    .expect("read");
            if let Some(state) = state {
                return state;
            }
            drop(conn);
            tokio::time::sleep(Duration::from_millis(20)).await;
            conn = tenant
                .service
                .app
                .db
                .read(Scope::Operator)
                .await
                .expect("a connection");
        }
    });
    assert_eq!(saved.await.expect("the message is saved"), "incomplete");
}

#[tokio::test]
async fn revoking_a_key_ends_its_open_streams() {
    let (service, model) = start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let key = acme
        .post("/api/keys", json!({ "name": "site", "scopes": ["chat"] }))
        .await
        .expect(201);
    let secret = key.json()["secret"].as_str().expect("a secret").to_owned();
    let (stream, begun) = open(&desk, &secret, &model).await;

    acme.delete(&format!("/api/keys/{}", key.id())).await.expect(204);

    assert_ends(&acme, stream, begun, &model).await;
}

#[tokio::test]
async fn removing_a_member_ends_their_open_streams() {
    let (service, model) = start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let bob = acme.bring("bob@example.com", "editor").await;
    let (stream, begun) = open(&desk, &bob.access_token, &model).await;

    acme.delete(&format!("/api/members/{}", bob.member_id))
        .await
        .expect(204);

    assert_ends(&acme, stream, begun, &model).await;
}

#[tokio::test]
async fn logging_out_ends_the_sessions_open_streams() {
    let (service, model) = start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let bob = acme.bring("bob@example.com", "editor").await;
    let (stream, begun) = open(&desk, &bob.access_token, &model).await;

    bob.post("/api/auth/logout", json!({})).await.expect(204);

    assert_ends(&acme, stream, begun, &model).await;
}

#[tokio::test]
async fn suspending_a_tenant_ends_its_open_streams() {
    let (service, model) = start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let (stream, begun) = open(&desk, &acme.key, &model).await;

    let mut write = service
        .app
        .db
        .write(Scope::Operator)
        .await
        .expect("a transaction");
    frontdesk::on!(write, c => sqlx::query("update tenant set state = 'suspended'").execute(c).await.map(drop)).expect("suspended");
    write.commit().await.expect("committed");

    assert_ends(&acme, stream, begun, &model).await;
}

#[tokio::test]
async fn a_stream_outlives_its_short_access_token_while_the_session_stands() {
    let (service, model) = start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    let bob = acme.bring("bob@example.com", "editor").await;
    model.push(Script::Reply(
        Reply::new("a b c d e f g h").delay(Duration::from_millis(400)),
    ));
    let body = json!({ "chatbot_id": desk.id, "message": "Within how many days may goods be returned?", "stream": true });
    let request = service.request(Method::POST, "/api/chat/message", Some(&bob.access_token));
    let stream = request.json(&body).send().await.expect("an answer");

    service.clock.advance(TimeDelta::minutes(20));

    let events = Event::parse_all(&stream.text().await.expect("the stream ends well"));
    let last = events.last().expect("an event");
    assert_eq!(
        (last.name.as_str(), &last.data["answer"]),
        ("message.end", &Value::from("a b c d e f g h")),
        "{events:?}"
    );
    assert!(!bob.is_let_in().await);
}
