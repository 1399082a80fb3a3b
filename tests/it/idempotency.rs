//! `Idempotency-Key`: a creating request that is sent again is answered again, and carried out once.

use std::time::Duration;

use chrono::TimeDelta;
use frontdesk::db::Scope;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Reply, TestApp};
use crate::harness::openai::{self, Script};

const RETURNS: &str = "# Returns\n\nGoods may be returned within 30 days.\n";

async fn post(service: &TestApp, credential: &str, path: &str, key: &str, body: &Value) -> Reply {
    let request = service
        .request(Method::POST, path, Some(credential))
        .header("idempotency-key", key);
    Reply::read(request.json(body).send().await.expect("an answer")).await
}

async fn count(service: &TestApp, table: &str) -> i64 {
    let mut conn = service.app.db.read(Scope::Operator).await.expect("a connection");
    let text = sqlx::AssertSqlSafe(format!("select count(*) from {table}"));
    frontdesk::on!(conn, c => sqlx::query_scalar(text).fetch_one(c).await).expect("counted")
}

fn replayed(reply: &Reply) -> bool {
    reply.headers.contains_key("idempotency-replayed")
}

#[tokio::test]
async fn the_same_request_again_gets_the_same_answer_and_does_nothing() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let body = json!({ "name": "Desk" });

    let first = post(&service, &acme.key, "/api/chatbots", "k1", &body)
        .await
        .expect(201);
    let again = post(&service, &acme.key, "/api/chatbots", "k1", &body)
        .await
        .expect(201);
    let other = post(&service, &acme.key, "/api/chatbots", "k2", &body)
        .await
        .expect(201);

    assert_eq!(
        (again.text.as_str(), &again.headers["content-type"]),
        (first.text.as_str(), &first.headers["content-type"])
    );
    assert!(!replayed(&first) && replayed(&again) && !replayed(&other));
    assert_ne!(other.id(), first.id());
    assert_eq!(count(&service, "chatbot").await, 2);
}

#[tokio::test]
async fn a_key_stands_for_one_request_only() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    post(
        &service,
        &acme.key,
        "/api/chatbots",
        "k1",
        &json!({ "name": "Desk" }),
    )
    .await
    .expect(201);

    for (path, body) in [
        ("/api/chatbots", json!({ "name": "Other" })),
        ("/api/members", json!({ "name": "Desk" })),
    ] {
        let reply = post(&service, &acme.key, path, "k1", &body).await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (422, "idempotency_key_reused"),
            "{path}"
        );
    }
    assert_eq!(count(&service, "chatbot").await, 1);
}

#[tokio::test]
async fn one_callers_keys_are_not_anothers() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let globex = service.tenant("globex").await;
    let colleague = acme
        .make_key(json!({ "name": "colleague", "scopes": ["admin"] }))
        .await;
    let body = json!({ "name": "Desk" });

    let mut ids = Vec::new();
    for credential in [&acme.key, &colleague, &globex.key] {
        let reply = post(&service, credential, "/api/chatbots", "k1", &body)
            .await
            .expect(201);
        assert!(!replayed(&reply));
        ids.push(reply.id());
    }

    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn requests_with_one_key_at_the_same_moment_are_carried_out_once() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let body = json!({ "name": "Desk" });

    let replies =
        futures::future::join_all((0..8).map(|_| post(&service, &acme.key, "/api/chatbots", "k1", &body)))
            .await;

    assert_eq!(count(&service, "chatbot").await, 1);
    for reply in &replies {
        assert!(
            reply.status == 201 || (reply.status == 409 && reply.code() == "request_in_flight"),
            "{}",
            reply.text
        );
    }
    assert!(replies.iter().any(|reply| reply.status == 201));
}

/// Waits until `holds`, for a bounded time.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn a_client_that_leaves_finds_its_answer_when_it_comes_back() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    let body = json!({ "chatbot_id": desk.id, "message": "Within how many days may goods be returned?" });
    model.push(Script::Reply(
        openai::Reply::new("Within 30 days.").delay(Duration::from_millis(200)),
    ));
    let running = tokio::spawn({
        let request = service.request(Method::POST, "/api/chat/message", Some(&acme.key));
        request.header("idempotency-key", "k1").json(&body).send()
    });
    until("the model is asked", || model.chat_requests().len() == 1).await;

    let meanwhile = post(&service, &acme.key, "/api/chat/message", "k1", &body).await;
    assert_eq!(
        (meanwhile.status.as_u16(), meanwhile.code().as_str()),
        (409, "request_in_flight")
    );
    running.abort();

    let answer = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let reply = post(&service, &acme.key, "/api/chat/message", "k1", &body).await;
            if reply.code() != "request_in_flight" {
                return reply;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let answer = answer.await.expect("the answer is kept").expect(200);
    assert!(replayed(&answer));
    assert_eq!(answer.json()["answer"], "Within 30 days.");
    assert_eq!(model.chat_requests().len(), 1);
}

#[tokio::test]
async fn a_request_that_died_with_its_process_is_carried_out_anew_once_it_is_certainly_dead() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let body = json!({ "name": "Desk" });
    post(&service, &acme.key, "/api/chatbots", "k1", &body)
        .await
        .expect(201);
    // What a process leaves behind that dies before it could keep the answer.
    let mut write = service
        .app
        .db
        .write(Scope::Operator)
        .await
        .expect("a transaction");
    let text = "update idempotency set state = 'running', status = null";
    frontdesk::on!(write, c => sqlx::query(text).execute(c).await.map(drop)).expect("updated");
    write.commit().await.expect("committed");

    let early = post(&service, &acme.key, "/api/chatbots", "k1", &body).await;
    assert_eq!(
        (early.status.as_u16(), early.code().as_str()),
        (409, "request_in_flight")
    );

    service.clock.advance(TimeDelta::minutes(6));
    let other = post(
        &service,
        &acme.key,
        "/api/chatbots",
        "k1",
        &json!({ "name": "Other" }),
    )
    .await;
    assert_eq!(other.code(), "idempotency_key_reused");
    let late = post(&service, &acme.key, "/api/chatbots", "k1", &body)
        .await
        .expect(201);
    assert!(!replayed(&late));
}

#[tokio::test]
async fn a_failure_of_ours_is_not_kept() {
    let (service, model) = TestApp::with_model().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", RETURNS).await;
    let body = json!({ "chatbot_id": desk.id, "message": "Within how many days may goods be returned?" });
    model.push(Script::error(400, "invalid_request_error", "unknown_parameter"));

    let failed = post(&service, &acme.key, "/api/chat/message", "k1", &body).await;
    let answered = post(&service, &acme.key, "/api/chat/message", "k1", &body).await;

    assert!(failed.status.is_server_error(), "{}", failed.text);
    assert_eq!(answered.expect(200).json()["answer"], "Scripted answer.");
}

#[tokio::test]
async fn a_refusal_for_haste_is_not_kept() {
    let service = crate::harness::app::TestOptions::default()
        .set("limits.requests_per_minute_per_key", 1)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    acme.get("/api/me").await.expect(200);
    let body = json!({ "name": "Desk" });

    assert_eq!(
        post(&service, &acme.key, "/api/chatbots", "k1", &body)
            .await
            .status,
        429
    );
    service.clock.advance(TimeDelta::minutes(2));

    post(&service, &acme.key, "/api/chatbots", "k1", &body)
        .await
        .expect(201);
}

#[tokio::test]
async fn an_answer_with_a_secret_is_given_once_and_its_request_carried_out_once() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let body = json!({ "name": "robot", "scopes": ["chat"] });

    let first = post(&service, &acme.key, "/api/keys", "k1", &body)
        .await
        .expect(201)
        .json();
    let again = post(&service, &acme.key, "/api/keys", "k1", &body).await;

    assert_eq!(
        (again.status.as_u16(), again.code().as_str()),
        (409, "answer_not_kept")
    );
    assert_eq!(count(&service, "api_key").await, 2);
    let mut conn = service.app.db.read(Scope::Operator).await.expect("a connection");
    let kept: Vec<Option<String>> =
        frontdesk::on!(conn, c => sqlx::query_scalar("select body from idempotency_answer").fetch_all(c).await)
            .expect("notes");
    assert_eq!(kept.iter().flatten().next(), None, "{first}");
}

#[tokio::test]
async fn a_key_is_free_again_after_a_day() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let body = json!({ "name": "Desk" });
    let first = post(&service, &acme.key, "/api/chatbots", "k1", &body)
        .await
        .expect(201)
        .id();

    service.clock.advance(TimeDelta::hours(23));
    assert_eq!(
        post(&service, &acme.key, "/api/chatbots", "k1", &body)
            .await
            .expect(201)
            .id(),
        first
    );
    service.clock.advance(TimeDelta::hours(2));

    assert_ne!(
        post(
            &service,
            &acme.key,
            "/api/chatbots",
            "k1",
            &json!({ "name": "New desk" })
        )
        .await
        .expect(201)
        .id(),
        first
    );
}

#[tokio::test]
async fn a_key_opens_nothing_by_itself() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let body = json!({ "name": "Desk" });
    post(&service, &acme.key, "/api/chatbots", "k1", &body)
        .await
        .expect(201);

    assert_eq!(
        post(&service, "fdk_wrong", "/api/chatbots", "k1", &body)
            .await
            .code(),
        "credential_invalid"
    );
    let request = service
        .request(Method::POST, "/api/chatbots", None)
        .header("idempotency-key", "k1")
        .json(&body);
    assert_eq!(
        Reply::read(request.send().await.expect("an answer")).await.code(),
        "credential_missing"
    );
}

#[tokio::test]
async fn odd_keys_are_refused() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let send = async |value: reqwest::header::HeaderValue| {
        let request = service
            .request(Method::POST, "/api/chatbots", Some(&acme.key))
            .header("idempotency-key", value);
        Reply::read(
            request
                .json(&json!({ "name": "Desk" }))
                .send()
                .await
                .expect("an answer"),
        )
        .await
    };
    for key in [Vec::new(), vec![b'x'; 256], vec![b'x', 0xff]] {
        let reply = send(reqwest::header::HeaderValue::from_bytes(&key).expect("a header")).await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (422, "invalid_idempotency_key"),
            "{}",
            key.len()
        );
    }
    send(reqwest::header::HeaderValue::from_bytes(&[b'x'; 255]).expect("a header"))
        .await
        .expect(201);

    let twice = service
        .request(Method::POST, "/api/chatbots", Some(&acme.key))
        .header("idempotency-key", "a")
        .header("idempotency-key", "b");
    let reply = Reply::read(
        twice
            .json(&json!({ "name": "Desk" }))
            .send()
            .await
            .expect("an answer"),
    )
    .await;
    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (422, "invalid_idempotency_key")
    );
}

#[tokio::test]
async fn a_refused_request_stays_refused_under_its_key() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let body = json!({ "name": "" });

    let first = post(&service, &acme.key, "/api/chatbots", "k1", &body)
        .await
        .expect(422);
    let again = post(&service, &acme.key, "/api/chatbots", "k1", &body)
        .await
        .expect(422);

    assert_eq!(
        (first.code(), again.code()),
        ("invalid_name".to_owned(), "invalid_name".to_owned())
    );
    assert!(replayed(&again) && again.headers["content-type"] == "application/problem+json");
}

#[tokio::test]
async fn a_content_type_in_capitals_is_the_same_content_type() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    for is_repeat in [false, true] {
        let request = service
            .request(Method::POST, "/api/chatbots", Some(&acme.key))
            .header("idempotency-key", "k1")
            .header("content-type", "Application/JSON ; charset=utf-8")
            .body(json!({ "name": "Desk" }).to_string());

        let reply = Reply::read(request.send().await.expect("an answer"))
            .await
            .expect(201);

        assert_eq!(replayed(&reply), is_repeat);
    }
    assert_eq!(count(&service, "chatbot").await, 1);
}
