//! By the rules of which language the words of a document are read: of the one that it has now, whatever it had before.

use frontdesk::generations::operator;
use frontdesk::knowledge::verify;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::app::{Chatbot, Tenant, TestApp, TestOptions};
use crate::harness::embedders::WatchedEmbedder;

const ENGLISH: &str = "The warehouse opens at nine in the morning, and nobody works there during the night.";
const GERMAN: &str = "Die Häuser wurden von den Händlern verkauft, und alle Bücher stehen in den Schränken.";

/// Words that the German text has in other forms, which are the same by the rules of German.
const ASKED: [&str; 3] = ["Haus", "Buch", "Schrank"];

/// Words alone decide.
async fn start() -> TestApp {
    TestOptions::default().without_embedder().start().await
}

/// Those of the words by which something is found.
async fn finding(desk: &Chatbot<'_, '_>) -> Vec<&'static str> {
    let mut finding = Vec::new();
    for word in ASKED {
        if !desk.search(word).await.is_empty() {
            finding.push(word);
        }
    }
    finding
}

async fn assert_agrees(tenant: &Tenant<'_>) {
    let app = &tenant.service.app;
    let space = app.spaces.wanted().clone();
    let compared = verify::compare(app, tenant.id, &space, false).await;
    assert!(
        compared.as_ref().is_ok_and(verify::Findings::agree),
        "{compared:?}"
    );
}

async fn push_source(desk: &Chatbot<'_, '_>) -> String {
    let sources = format!("/api/chatbots/{}/sources", desk.id);
    let made = desk.tenant.post(&sources, json!({ "kind": "push" })).await;
    made.expect(202).id()
}

/// Puts the document into the source and has it indexed.
async fn put(tenant: &Tenant<'_>, source: &str, body: Value) {
    let path = format!("/api/sources/{source}/documents/text");
    let reply = tenant
        .service
        .send(Method::PUT, &path, Some(&tenant.key), Some(body))
        .await;
    assert!(reply.status.is_success(), "{}", reply.text);
    tenant.service.drain_jobs().await;
}

#[tokio::test]
async fn a_version_in_another_language_is_read_by_the_rules_of_that() {
    let service = start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("text.txt", ENGLISH).await;

    let id = desk.publish("text.txt", GERMAN).await;

    assert_eq!(
        acme.get(&format!("/api/documents/{id}")).await.expect(200).json()["language"],
        "de"
    );
    assert_eq!(finding(&desk).await, ASKED);
    assert_agrees(&acme).await;
}

#[tokio::test]
async fn a_word_alone_is_read_by_the_rules_of_the_chatbots_documents() {
    let service = start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("warehouse.txt", ENGLISH).await;
    desk.publish("houses.txt", GERMAN).await;

    for word in ["Häusern", "BÜCHER", "Händlern", "Schränken", "nights"] {
        assert!(!desk.search(word).await.is_empty(), "{word}");
    }
    assert!(desk.search("Gärten").await.is_empty());
}

#[tokio::test]
async fn documents_on_their_way_do_not_change_how_a_word_alone_is_read() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("houses.txt", GERMAN).await;
    let confidence = async || {
        let body = json!({ "query": "Händler", "explain": true });
        let found = acme
            .post(&format!("/api/chatbots/{}/search", desk.id), body)
            .await;
        let explained = found.expect(200).json()["explain"].clone();
        assert_eq!(explained["confidence_by_meaning"], true);
        explained["confidence"].clone()
    };
    let alone = confidence().await;

    let waiting = ["one.txt", "two.txt", "three.txt"].map(|name| (name, ENGLISH.as_bytes()));
    desk.upload(&waiting).await.expect(202);

    assert_eq!(confidence().await, alone);
}

/// Somewhat more than two parts, of chapters whose chunks are few enough for a test.
fn book(begins: &str, ends: &str) -> String {
    let mut text = format!("{begins}\n\n");
    let mut number = 0;
    while text.len() < 5 << 20 {
        number += 1;
        text += &format!("{number} {}\n\n", "x".repeat(4_000));
    }
    text + ends
}

#[tokio::test]
async fn a_document_in_parts_is_read_by_the_rules_of_the_language_of_its_beginning() {
    let service = start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("text.txt", &book(ENGLISH, "It is closed.")).await;
    assert_eq!(finding(&desk).await, Vec::<&str>::new());

    desk.publish("text.txt", &book(GERMAN, "In seinem Schrank ist ein Buch."))
        .await;

    assert_eq!(finding(&desk).await, ASKED);
    assert_agrees(&acme).await;
}

#[tokio::test]
async fn a_language_that_somebody_corrects_holds_for_the_words_that_are_there_already() {
    let service = start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let source = push_source(&desk).await;
    put(&acme, &source, json!({ "text": GERMAN, "language": "en" })).await;
    assert_eq!(finding(&desk).await, Vec::<&str>::new());

    put(&acme, &source, json!({ "text": GERMAN, "language": "de-AT" })).await;

    assert_eq!(finding(&desk).await, ASKED);
    assert_agrees(&acme).await;
}

#[tokio::test]
async fn passages_that_stay_are_read_by_the_rules_of_the_language_that_the_rest_shows() {
    let service = start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let page = |before: &str| format!("# A\n\n{before} {}\n\n# B\n\n{GERMAN}\n", "x".repeat(4_000));
    desk.publish("text.md", &page(&format!("{ENGLISH} {ENGLISH} {ENGLISH}")))
        .await;

    let id = desk.publish("text.md", &page(GERMAN)).await;

    assert_eq!(
        acme.get(&format!("/api/documents/{id}")).await.expect(200).json()["language"],
        "de"
    );
    assert_eq!(finding(&desk).await, ASKED);
    assert_agrees(&acme).await;
}

#[tokio::test]
async fn a_language_with_the_same_rules_embeds_nothing() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let source = push_source(&desk).await;
    put(&acme, &source, json!({ "text": GERMAN, "language": "de" })).await;
    embedder.take_documents();

    put(
        &acme,
        &source,
        json!({ "text": GERMAN, "language": "de-AT", "tags": ["books"] }),
    )
    .await;

    assert_eq!(embedder.take_documents(), Vec::<String>::new());
    assert_agrees(&acme).await;
}

/// Documents in German that the index was told so, while their words stay as they were read by the rules of English.
async fn weighed_in_vain(service: &TestApp, embedder: &WatchedEmbedder, desk: &Chatbot<'_, '_>) {
    let source = push_source(desk).await;
    put(desk.tenant, &source, json!({ "text": GERMAN, "language": "en" })).await;
    embedder.refuse(1);
    put(desk.tenant, &source, json!({ "text": GERMAN, "language": "de" })).await;
    let jobs = desk.tenant.get("/api/jobs?state=failed").await.expect(200).json();
    assert_eq!(jobs["items"][0]["kind"], "weigh_anew", "{jobs}");
    service.drain_jobs().await;
}

async fn watched(embedder: &std::sync::Arc<WatchedEmbedder>) -> TestApp {
    TestOptions::default()
        .embedder(embedder.clone())
        .set("jobs.max_attempts", 1)
        .set("embedding.cache_mb", 0)
        .start()
        .await
}

#[tokio::test]
async fn words_that_were_read_by_other_rules_than_rows_say_differ_until_they_are_put_in_anew() {
    let embedder = WatchedEmbedder::new();
    let service = watched(&embedder).await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    weighed_in_vain(&service, &embedder, &desk).await;
    let space = service.app.spaces.wanted();

    let found = verify::compare(&service.app, acme.id, &space, false).await;
    let mended = verify::compare(&service.app, acme.id, &space, true).await;

    for findings in [found, mended] {
        let findings = findings.expect("findings");
        assert_eq!((findings.missing, findings.different, findings.stray), (0, 1, 0));
    }
    assert_agrees(&acme).await;
    embedder.set_down(true);
    assert_eq!(finding(&desk).await, ASKED);
}

#[tokio::test]
async fn the_hourly_look_mends_words_that_were_read_by_other_rules() {
    let embedder = WatchedEmbedder::new();
    let service = watched(&embedder).await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    weighed_in_vain(&service, &embedder, &desk).await;

    let wrong = operator::verify_some(&service.app).await.expect("a look");
    service.drain_jobs().await;

    assert_eq!(wrong, [acme.id]);
    assert_agrees(&acme).await;
    assert_eq!(operator::verify_some(&service.app).await.expect("a look"), []);
}
