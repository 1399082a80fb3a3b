//! Deleted is deleted: out of answers at once, and out of rows, index and files soon after, whatever dies meanwhile.

use chrono::TimeDelta;
use serde_json::json;

use crate::harness::app::{TestApp, TestOptions};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::stored::{count_rows, stored_files};
use crate::harness::work::{spawn_worker, until};

const QUESTION: &str = "When are oak tables oiled?";

#[tokio::test]
async fn a_deleted_document_is_out_of_search_and_answers_at_once() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let oak = desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    desk.publish("hours.md", "The showroom opens at ten.").await;
    assert_eq!(desk.search(QUESTION).await[0]["document_id"], json!(oak));

    acme.delete(&format!("/api/documents/{oak}")).await.expect(204);

    // No worker has run since.
    assert!(acme.indexed_chunks().await == 2, "the index still holds it");
    assert!(
        desk.search(QUESTION)
            .await
            .iter()
            .all(|passage| passage["document_id"] != json!(oak))
    );
    let answer = desk.ask(QUESTION).await.expect(200).json();
    assert!(!answer.to_string().contains("twice a year"), "{answer}");
    for path in [
        format!("/api/documents/{oak}"),
        format!("/api/documents/{oak}/file"),
    ] {
        acme.get(&path).await.expect(404);
    }
    acme.delete(&format!("/api/documents/{oak}")).await.expect(404);
}

#[tokio::test]
async fn what_is_deleted_leaves_rows_index_and_files() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let oak = desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    desk.publish("hours.md", "The showroom opens at ten.").await;

    acme.delete(&format!("/api/documents/{oak}")).await.expect(204);
    service.drain_jobs().await;

    for (table, left) in [("document", 1), ("document_text", 1), ("chunk", 1)] {
        assert_eq!(count_rows(&service, table).await, left, "{table}");
    }
    assert_eq!(stored_files(&service.data_dir()).len(), 1);
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_deleted_chatbot_takes_all_that_it_knew_along() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let (desk, other) = (acme.chatbot("Desk").await, acme.chatbot("Other").await);
    for number in 0..5 {
        desk.publish(
            &format!("{number}.md"),
            &format!("Table number {number} is oiled."),
        )
        .await;
    }
    desk.ask(QUESTION).await.expect(200);
    other.publish("hours.md", "The showroom opens at ten.").await;

    acme.delete(&format!("/api/chatbots/{}", desk.id))
        .await
        .expect(204);

    acme.post(
        &format!("/api/chatbots/{}/search", desk.id),
        json!({ "query": QUESTION }),
    )
    .await
    .expect(404);
    desk.ask(QUESTION).await.expect(404);
    service.drain_jobs().await;
    for (table, left) in [
        ("chatbot", 1),
        ("source", 1),
        ("document", 1),
        ("document_text", 1),
        ("chunk", 1),
        ("conversation", 0),
        ("message", 0),
    ] {
        assert_eq!(count_rows(&service, table).await, left, "{table}");
    }
    acme.check_stores_agree().await;
    assert_eq!(other.search("When does the showroom open?").await.len(), 1);
}

#[tokio::test]
async fn a_document_that_is_deleted_while_it_is_indexed_leaves_nothing_even_when_the_worker_dies() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let woods: String = (0..300)
        .map(|number| {
            format!(
                "## Wood {number}\n\n{}\n\n",
                format!("Wood{number} matters. ").repeat(90)
            )
        })
        .collect();
    let taken = desk
        .upload(&[("woods.md", woods.as_bytes())])
        .await
        .expect(202)
        .json();
    let id = taken["items"][0]["id"].as_str().expect("an id");
    embedder.hold();
    let worker = spawn_worker(&service.app);
    embedder.wait_held(1).await;

    // Deleted and cleaned away while the first part is embedded; the part gets into the index, then the worker dies.
    acme.delete(&format!("/api/documents/{id}")).await.expect(204);
    service.drain_jobs().await;
    embedder.let_one_go();
    embedder.hold();
    embedder.wait_held(2).await;
    worker.abort();
    let _ = worker.await;
    assert!(acme.indexed_chunks().await > 0);

    service.clock.advance(TimeDelta::seconds(61));
    service.drain_jobs().await;
    acme.check_stores_agree().await;
    assert_eq!(
        (acme.indexed_chunks().await, count_rows(&service, "chunk").await),
        (0, 0)
    );
}

#[tokio::test]
async fn a_document_that_is_deleted_while_it_is_indexed_stays_deleted() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    embedder.hold();
    let taken = desk
        .upload(&[("oak.md", b"Oak tables are oiled twice a year.")])
        .await
        .expect(202)
        .json();
    let worker = spawn_worker(&service.app);
    embedder.wait_held(1).await;
    acme.delete(&format!(
        "/api/documents/{}",
        taken["items"][0]["id"].as_str().expect("an id")
    ))
    .await
    .expect(204);
    embedder.let_one_go();
    worker.await.expect("the worker lives");
    service.drain_jobs().await;

    assert!(desk.search(QUESTION).await.is_empty());
    acme.check_stores_agree().await;
    assert_eq!(count_rows(&service, "document").await, 0);
}

#[tokio::test]
async fn a_cleaning_that_was_interrupted_is_finished_later() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let oak = desk.publish("oak.md", "Oak tables are oiled twice a year.").await;
    acme.delete(&format!("/api/documents/{oak}")).await.expect(204);
    // The process ends before any worker has looked.
    let (id, key) = (acme.id, acme.key.clone());
    let desk_id = desk.id.clone();
    let service = service.restart(&[]).await;
    let acme = crate::harness::app::Tenant {
        service: &service,
        id,
        key,
    };

    service.drain_jobs().await;

    until("nothing is left", async || {
        stored_files(&service.data_dir()).is_empty()
    })
    .await;
    acme.check_stores_agree().await;
    assert_eq!(acme.indexed_chunks().await, 0);
    acme.post(
        &format!("/api/chatbots/{desk_id}/search"),
        json!({ "query": QUESTION }),
    )
    .await
    .expect(200);
}
