//! An embedding server that lets nobody ask, or answers too late: documents wait for its operator, who alone is told what it
//! said, and what was asked for in vain is paid for less often, and less of it, each time.

use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Chatbot, Tenant, TestApp, TestOptions};
use crate::harness::openai::{ScriptedModel, UPSTREAM_WORDS};
use crate::harness::stored::page_about;

const OAK: &str = "Oak tables are oiled twice a year.";

async fn start(model: &ScriptedModel) -> TestApp {
    options(model).start().await
}

fn options(model: &ScriptedModel) -> TestOptions {
    TestOptions::default()
        .without_embedder()
        .set("embedding.backend", "openai")
        .set("embedding.base_url", model.base_url())
        .set("embedding.model", "scripted-embedding")
        .set("embedding.dimension", model.dimension())
        .set("jobs.max_attempts", 2)
}

async fn ready(service: &TestApp) -> Value {
    service
        .send(Method::GET, "/ready", None, None)
        .await
        .expect(200)
        .json()
}

fn asked(model: &ScriptedModel) -> usize {
    model.requests().len()
}

/// What is booked for vectors.
async fn embedding_tokens(tenant: &Tenant<'_>) -> u64 {
    tenant
        .ledger()
        .await
        .iter()
        .filter(|line| line["kind"] == "embedding")
        .map(|line| line["embedding_tokens"].parse::<u64>().expect("tokens"))
        .sum()
}

async fn is_found_by_meaning(desk: &Chatbot<'_, '_>) -> bool {
    desk.search("When are oak tables oiled?").await[0]["similarity"].is_number()
}

#[tokio::test]
async fn documents_wait_until_the_operator_has_put_the_setting_right() {
    for (status, reason) in [
        (
            400,
            "it does not accept the request (status 400), not even for one short word: check the key, the name of the model and the address",
        ),
        (401, "it does not accept the API key (status 401)"),
        (402, "the account there has nothing left (status 402)"),
        (
            403,
            "it does not allow this (status 403), not even for one short word: check the key, the name of the model and the address",
        ),
        (404, "it knows no such model or address (status 404)"),
    ] {
        let model = ScriptedModel::start().await;
        let service = start(&model).await;
        let acme = service.tenant("acme").await;
        let desk = acme.chatbot("Desk").await;
        model.deny_with(Some(status));
        let id = desk.publish("oak.md", OAK).await;

        for _ in 0..10 {
            service.clock.advance(TimeDelta::seconds(76));
            assert_eq!(service.drain_jobs().await, 1, "it is tried again");
        }
        let document = desk.document(&id).await;
        assert_eq!(
            (&document["state"], &document["error"]),
            (&json!("processing"), &Value::Null)
        );
        let jobs = acme.get("/api/jobs").await.expect(200);
        let told = jobs.json()["items"][0]["last_error"].clone();
        assert!(told.as_str().is_some_and(|told| told.contains(reason)), "{told}");
        assert!(!jobs.text.contains(UPSTREAM_WORDS), "{}", jobs.text);
        let denied = ready(&service).await;
        assert_eq!(
            (&denied["status"], &denied["model"], &denied["denial"]),
            (&json!("degraded"), &json!("failing"), &json!(reason))
        );

        model.deny_with(None);
        service.clock.advance(TimeDelta::seconds(76));
        service.drain_jobs().await;

        assert_eq!(desk.document(&id).await["state"], "indexed");
        assert!(is_found_by_meaning(&desk).await);
        assert_eq!(ready(&service).await["status"], "ok");
    }
}

#[tokio::test]
async fn vectors_of_another_length_than_configured_fail_no_document_and_are_bought_a_word_at_a_time() {
    let model = ScriptedModel::start().await;
    let service = start(&model).await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let right = model.dimension();
    model.set_dimension(right / 2);
    let id = desk.publish("oak.md", OAK).await;
    let first = model.served().embedding;

    for _ in 0..5 {
        service.clock.advance(TimeDelta::seconds(76));
        assert_eq!(service.drain_jobs().await, 1, "it is tried again");
    }
    assert_eq!(desk.document(&id).await["state"], "processing");
    let reason = ready(&service).await["denial"].clone();
    assert_eq!(
        reason,
        "its vectors have 128 values and not 256: check the dimension and the name of the model"
    );
    assert_eq!(model.served().embedding, first + 5, "a word each time");

    model.set_dimension(right);
    service.clock.advance(TimeDelta::seconds(76));
    service.drain_jobs().await;

    assert_eq!(desk.document(&id).await["state"], "indexed");
    assert!(is_found_by_meaning(&desk).await);
    assert_eq!(
        embedding_tokens(&acme).await,
        model.served().embedding,
        "what was of no use is booked as well"
    );
}

#[tokio::test]
async fn many_jobs_ask_a_server_that_denies_once() {
    let model = ScriptedModel::start().await;
    let service = start(&model).await;
    let acme = service.tenant("acme").await;
    model.deny_with(Some(401));
    for number in 0..5 {
        let desk = acme.chatbot(&format!("Desk {number}")).await;
        desk.upload(&[("oak.md", format!("{OAK} {number}").as_bytes())])
            .await
            .expect(202);
    }

    assert_eq!(service.drain_jobs().await, 5);

    assert_eq!(asked(&model), 1);
}

#[tokio::test]
async fn questions_leave_a_server_that_denies_alone_for_all_tenants() {
    let model = ScriptedModel::start().await;
    let service = start(&model).await;
    let (acme, globex) = (service.tenant("acme").await, service.tenant("globex").await);
    let (desk, other) = (acme.chatbot("Desk").await, globex.chatbot("Desk").await);
    desk.publish("oak.md", OAK).await;
    other.publish("oak.md", OAK).await;
    let before = asked(&model);
    model.deny_with(Some(401));

    for desk in [&desk, &other] {
        assert!(!is_found_by_meaning(desk).await);
    }
    assert_eq!(asked(&model), before + 1);

    model.deny_with(None);
    service.clock.advance(TimeDelta::seconds(1));
    for desk in [&desk, &other] {
        assert!(is_found_by_meaning(desk).await);
    }
}

#[tokio::test]
async fn a_server_that_takes_too_long_is_asked_for_less_until_it_answers_in_time() {
    let model = ScriptedModel::start().await;
    let service = options(&model).set("embedding.timeout_s", 1).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    model.manage(1);
    let id = desk
        .publish("woods.md", &page_about(&["Oak", "Elm", "Ash", "Fir"]))
        .await;

    assert_eq!(asked(&model), 1, "all at once");
    let slow = ready(&service).await["denial"].clone();
    assert!(
        slow.as_str()
            .is_some_and(|reason| reason.contains("embedding.timeout_s")),
        "{slow}"
    );
    let in_vain = embedding_tokens(&acme).await;
    let mut tries = 1;
    while desk.document(&id).await["state"] != "indexed" {
        assert!(tries < 4, "it is asked for less each time");
        service.clock.advance(TimeDelta::seconds(76));
        service.drain_jobs().await;
        tries += 1;
    }

    assert!(is_found_by_meaning(&desk).await);
    assert_eq!(ready(&service).await["status"], "ok");
    let (booked, answered) = (embedding_tokens(&acme).await, model.served().embedding);
    assert!(in_vain > 0, "what nobody waited for is booked");
    assert!(
        (in_vain + answered..=tries * in_vain + answered).contains(&booked),
        "no more than was asked for: {booked}"
    );
}
