//! A cut goes live, or is gone back to, while documents change: it lacks some of them for a moment, and nothing is told of these
//! that does not hold any more.

use frontdesk::on;
use serde_json::json;

use crate::cuts::{begin, order, small, states, uploads};
use crate::harness::app::{Chatbot, TestApp, TestOptions};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::stored::{count_rows, page_about};
use crate::harness::work::{spawn_worker, until};

async fn switch_off(desk: &Chatbot<'_, '_>, document: &str) {
    let chunk = desk.first_chunk(document).await;
    let path = format!("/api/documents/{document}/chunks/{chunk}");
    desk.tenant
        .patch(&path, json!({ "enabled": false }))
        .await
        .expect(200);
}

async fn reword(desk: &Chatbot<'_, '_>, document: &str, text: &str) {
    let chunk = desk.first_chunk(document).await;
    let path = format!("/api/documents/{document}/chunks/{chunk}");
    desk.tenant
        .patch(&path, json!({ "text": text }))
        .await
        .expect(200);
}

#[tokio::test]
async fn the_way_back_is_open_at_once_and_what_changed_meanwhile_is_not_told_as_it_was() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("manual.md", &page_about(&["Oak", "Teak"])).await;
    let offer = desk
        .publish("offer.md", "Wicker chairs are half the price in March.")
        .await;
    let hours = desk.publish("hours.md", "Our shop opens at ten.").await;
    let cut = begin(&acme, small()).await;
    service.drain_jobs().await;
    order(&acme, &cut, "activate", 200).await;
    service.drain_jobs().await;

    switch_off(&desk, &offer).await;
    reword(&desk, &hours, "Our shop opens at nine.").await;
    let answer = order(&acme, &cut, "rollback", 200).await;

    assert_eq!(
        (&answer["state"], &answer["live_lacking"]),
        (&json!("ready"), &json!(2)),
        "{answer}"
    );
    let path = format!("/api/chatbots/{}/search", desk.id);
    for (query, gone) in [("Wicker chairs", "Wicker"), ("When does our shop open?", "shop")] {
        let found = acme.post(&path, json!({ "query": query })).await.expect(200);
        assert!(!found.text.contains(gone), "{}", found.text);
        assert_eq!(found.json()["degraded"][0]["code"], "index_incomplete");
    }
    let asked = desk.ask("Does Teak matter?").await.expect(200).json();
    assert_eq!(asked["degraded"][0]["code"], "index_incomplete", "{asked}");
    service.drain_jobs().await;
    let found = acme
        .post(&path, json!({ "query": "When does our shop open?" }))
        .await;
    assert_eq!(found.json()["items"][0]["text"], "Our shop opens at nine.");
    assert!(found.json()["degraded"].is_null(), "{}", found.text);
    let wicker = acme.post(&path, json!({ "query": "Wicker chairs" })).await;
    assert!(!wicker.text.contains("half the price"), "{}", wicker.text);
    assert_eq!(count_rows(&service, "cut_gap").await, 0);
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn what_a_deleted_source_lacks_is_missed_by_no_answer() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let offer = desk
        .publish("offer.md", "Wicker chairs are half the price in March.")
        .await;
    let cut = begin(&acme, small()).await;
    service.drain_jobs().await;
    order(&acme, &cut, "activate", 200).await;
    service.drain_jobs().await;
    switch_off(&desk, &offer).await;
    order(&acme, &cut, "rollback", 200).await;
    let doubted = desk.ask("What do wicker chairs cost?").await.expect(503).json();
    assert_eq!(doubted["code"], "search_degraded", "{doubted}");

    let mut write = service.app.db.write(acme.id).await.expect("a transaction");
    let now = service.app.clock.now();
    on!(write, c => sqlx::query("update source set deleted_at = $2 where tenant_id = $1").bind(acme.id).bind(now).execute(c).await.map(drop))
        .expect("written");
    write.commit().await.expect("a commit");

    let answer = desk.ask("What do wicker chairs cost?").await.expect(200).json();
    assert_eq!(answer["source"], "no_answer", "{answer}");
    assert!(answer["degraded"].is_null(), "{answer}");
}

#[tokio::test]
async fn a_document_whose_text_is_changed_is_cut_once_more_in_a_spare_cut_and_only_what_is_new_is_embedded() {
    let embedder = WatchedEmbedder::new();
    let options = TestOptions::default().embedder(embedder.clone());
    let service = options.set("embedding.cache_mb", 0).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let manual = desk.publish("manual.md", &page_about(&["Oak", "Teak"])).await;
    let cut = begin(&acme, small()).await;
    service.drain_jobs().await;
    embedder.take_documents();

    reword(&desk, &manual, "Oak is all that matters.").await;
    service.drain_jobs().await;

    let embedded = embedder.take_documents();
    assert_eq!(embedded.len(), 1, "{embedded:?}");
    assert_eq!(count_rows(&service, "cut_gap").await, 0);
    order(&acme, &cut, "activate", 200).await;
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_cut_goes_live_though_documents_change_without_a_pause() {
    let embedder = WatchedEmbedder::new();
    let options = TestOptions::default().embedder(embedder.clone());
    let service = options.set("embedding.cache_mb", 0).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let mut documents = Vec::new();
    for number in 0..12 {
        let text = format!("Table{number} is oiled twice a year.");
        documents.push(desk.publish(&format!("{number}.md"), &text).await);
    }
    embedder.hold();
    let source = format!("/api/sources/{}", uploads(&acme).await);
    acme.patch(&source, json!({ "chunking": small() }))
        .await
        .expect(200);
    let worker = spawn_worker(&service.app);

    // With each step of filling another document changes.
    let mut calls = 0;
    for document in &documents {
        calls += 1;
        embedder.wait_held(calls).await;
        if states(&acme).await == ["live", "standby"] {
            break;
        }
        reword(&desk, document, &format!("Table{calls} is waxed.")).await;
        embedder.let_one_go();
        embedder.hold();
    }

    assert_eq!(states(&acme).await, ["live", "standby"]);
    embedder.let_one_go();
    worker.await.expect("the worker lives");
    service.drain_jobs().await;
    let found = desk.search("Which table is waxed?").await;
    assert!(
        found[0]["text"]
            .as_str()
            .is_some_and(|text| text.contains("waxed")),
        "{found:?}"
    );
    assert_eq!(count_rows(&service, "cut_gap").await, 0);
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_wish_that_is_given_up_while_its_cut_is_compared_does_not_go_live() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("manual.md", &page_about(&["Oak", "Teak"])).await;
    desk.ask("Does Teak matter?").await.expect(200);
    let source = format!("/api/sources/{}", uploads(&acme).await);
    acme.patch(&source, json!({ "chunking": small() }))
        .await
        .expect(200);
    embedder.hold_questions();
    let worker = spawn_worker(&service.app);
    embedder.wait_held(1).await;

    acme.patch(&source, json!({ "chunking": null })).await.expect(200);
    embedder.let_one_go();
    worker.await.expect("the worker lives");
    service.drain_jobs().await;

    assert_eq!(states(&acme).await, ["retired", "live"]);
    let retired = crate::cuts::cuts(&acme).await[0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    for what in ["activate", "rollback"] {
        order(&acme, &retired, what, 404).await;
    }
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_cut_is_compared_on_the_questions_of_its_own_chatbot() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let other = acme.chatbot("Other").await;
    let questions = json!([{ "question": "Is there anything?", "answer": "nothing" }]);
    acme.post(
        &format!("/api/chatbots/{}/evals", other.id),
        json!({ "name": "Others", "questions": questions }),
    )
    .await
    .expect(201);
    let desk = acme.chatbot("Desk").await;
    desk.publish("manual.md", &page_about(&["Oak", "Teak"])).await;
    desk.ask("Does Teak matter?").await.expect(200);

    begin(&acme, small()).await;
    until("it is ready", async || {
        service.drain_jobs().await;
        states(&acme).await == ["ready", "live"]
    })
    .await;

    let comparison = crate::cuts::cuts(&acme).await[0]["comparison"].clone();
    assert_eq!(comparison["questions"], 1, "{comparison}");
}
