//! What is kept of an answer under its `Idempotency-Key`: nothing that was deleted, and nothing of a stream, which is
//! carried out once all the same.

use frontdesk::db::Scope;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Chatbot, Event, Reply, TestApp};
use crate::harness::openai::Script;
use crate::harness::turns::{read_until, until};

const RETURNS: &str = "# Returns\n\nGoods may be returned within 30 days of delivery.\n";
const QUESTION: &str = "Within how many days may goods be returned?";

async fn send(desk: &Chatbot<'_, '_>, key: &str, body: &Value) -> reqwest::Response {
    let request = desk
        .tenant
        .service
        .request(Method::POST, "/api/chat/message", Some(&desk.tenant.key));
    let sent = request.header("idempotency-key", key).json(body).send().await;
    sent.expect("an answer")
}

async fn ask(desk: &Chatbot<'_, '_>, key: &str) -> Reply {
    let body = json!({ "chatbot_id": desk.id, "message": QUESTION });
    Reply::read(send(desk, key, &body).await).await
}

fn streamed(desk: &Chatbot<'_, '_>) -> Value {
    json!({ "chatbot_id": desk.id, "message": QUESTION, "stream": true })
}

/// How many bytes of answers are kept.
async fn kept_bytes(service: &TestApp) -> i64 {
    let mut conn = service.app.db.read(Scope::Operator).await.expect("a connection");
    let text = "select cast(coalesce(sum(length(body)), 0) as bigint) from idempotency_answer";
    frontdesk::on!(conn, c => sqlx::query_scalar(text).fetch_one(c).await).expect("counted")
}

#[tokio::test]
async fn a_deleted_conversation_does_not_come_back_under_its_key() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    let first = ask(&desk, "k1").await.expect(200).json();
    assert!(kept_bytes(&service).await > 0);
    let id = first["conversation_id"].as_str().expect("an id");

    acme.delete(&format!("/api/conversations/{id}")).await.expect(204);

    assert_eq!(kept_bytes(&service).await, 0);
    let again = ask(&desk, "k1").await.expect(409);
    assert_eq!(again.code(), "answer_not_kept");
    assert_eq!(model.chat_requests().len(), 1, "the question is not asked anew");
    assert!(acme.conversations().await.is_empty());
}

#[tokio::test]
async fn with_a_chatbot_goes_what_was_kept_of_answers_about_it() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let request = service
        .request(Method::POST, "/api/chatbots", Some(&acme.key))
        .header("idempotency-key", "made");
    let made = request
        .json(&json!({ "name": "Desk", "prompt": "Be kind." }))
        .send()
        .await;
    let desk = Chatbot {
        tenant: &acme,
        id: Reply::read(made.expect("an answer")).await.expect(201).id(),
    };
    desk.publish("returns.md", RETURNS).await;
    ask(&desk, "stored").await.expect(200);
    for (path, body) in [
        (
            "/api/chat/inline".to_owned(),
            json!({ "chatbot_id": desk.id, "messages": [{ "role": "user", "content": QUESTION }] }),
        ),
        (
            format!("/api/chatbots/{}/search", desk.id),
            json!({ "query": QUESTION }),
        ),
    ] {
        let request = service.request(Method::POST, &path, Some(&acme.key));
        let sent = request.header("idempotency-key", &path).json(&body).send().await;
        Reply::read(sent.expect("an answer")).await.expect(200);
    }
    assert!(kept_bytes(&service).await > 0);

    acme.delete(&format!("/api/chatbots/{}", desk.id))
        .await
        .expect(204);
    service.drain_jobs().await;

    assert_eq!(kept_bytes(&service).await, 0);
}

#[tokio::test]
async fn a_stream_is_carried_out_once_and_its_repeat_names_the_conversation() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;

    let text = send(&desk, "k1", &streamed(&desk))
        .await
        .text()
        .await
        .expect("it ends");
    let end = Event::parse_all(&text).pop().expect("an event");
    assert_eq!(end.name, "message.end");
    let again = Reply::read(send(&desk, "k1", &streamed(&desk)).await)
        .await
        .expect(409);

    assert_eq!(again.code(), "answer_not_kept");
    let id = end.data["conversation_id"].as_str().expect("an id");
    assert!(again.text.contains(id), "{}", again.text);
    assert_eq!(model.chat_requests().len(), 1);
    assert_eq!(acme.conversations().await.len(), 1);
    assert_eq!(kept_bytes(&service).await, 0);
}

#[tokio::test]
async fn a_stream_under_way_is_not_begun_again_and_is_done_when_its_client_leaves() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    model.push(Script::HangAfter("You have 30 days [1] and"));
    let mut running = send(&desk, "k1", &streamed(&desk)).await;
    read_until(&mut running, " and").await;

    let meanwhile = Reply::read(send(&desk, "k1", &streamed(&desk)).await)
        .await
        .expect(409);
    assert_eq!(meanwhile.code(), "request_in_flight");
    drop(running);

    until("the note is done", async || {
        let again = Reply::read(send(&desk, "k1", &streamed(&desk)).await)
            .await
            .expect(409);
        again.code() == "answer_not_kept"
    })
    .await;
    service.wait_idle().await;
    assert_eq!(model.chat_requests().len(), 1);
    assert_eq!(acme.conversations().await.len(), 1);
}

#[tokio::test]
async fn a_stream_that_ended_in_an_error_may_be_tried_again_under_its_key() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    model.push(Script::error(400, "invalid_request_error", "unknown_parameter"));

    let failed = send(&desk, "k1", &streamed(&desk))
        .await
        .text()
        .await
        .expect("it ends");
    let answered = send(&desk, "k1", &streamed(&desk))
        .await
        .text()
        .await
        .expect("it ends");

    let last = |text: &str| Event::parse_all(text).pop().expect("an event").name;
    assert_eq!(
        (last(&failed).as_str(), last(&answered).as_str()),
        ("error", "message.end")
    );
}
