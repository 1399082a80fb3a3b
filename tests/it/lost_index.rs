//! The index is gone while the rows are there: it is filled again by itself, and the log says so.

use crate::harness::app::{Chatbot, Tenant, TestApp, TestOptions};
use crate::harness::embedders::WatchedEmbedder;

#[tokio::test]
async fn an_index_that_was_lost_is_filled_again_from_the_rows_and_answers_say_so_until_then() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    desk.publish("returns.md", "# Returns\n\nGoods may be returned within 30 days.")
        .await;
    desk.publish("oak.md", "# Oak\n\nOak is oiled twice a year.")
        .await;
    let (id, key, chatbot) = (acme.id, acme.key.clone(), desk.id.clone());

    let service = service
        .restart_after(|data| std::fs::remove_dir_all(data.join("index")).expect("removed"))
        .await;

    let acme = Tenant {
        service: &service,
        id,
        key,
    };
    let desk = Chatbot {
        tenant: &acme,
        id: chatbot,
    };
    let path = format!("/api/chatbots/{}/search", desk.id);
    let lost = acme
        .post(&path, serde_json::json!({ "query": "returned goods" }))
        .await
        .expect(200)
        .json();
    assert!(
        lost["items"].as_array().is_some_and(Vec::is_empty),
        "it is lost: {lost}"
    );
    assert_eq!(lost["degraded"][0]["code"], "index_incomplete", "{lost}");
    let answer = desk
        .ask("Within how many days may goods be returned?")
        .await
        .expect(503);
    assert_eq!(answer.code(), "search_degraded");
    assert!(service.drain_jobs().await > 0, "nothing was queued");
    let found = desk.search("Within how many days may goods be returned?").await;
    assert!(
        found[0]["text"]
            .as_str()
            .is_some_and(|text| text.contains("30 days")),
        "{found:?}"
    );
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn the_old_version_of_a_document_whose_new_one_failed_answers_again_too() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default()
        .embedder(embedder.clone())
        .set("jobs.max_attempts", 1)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let document = desk
        .publish("returns.md", "Goods may be returned within 30 days.")
        .await;
    embedder.refuse(1);
    desk.upload(&[("returns.md", b"Goods may be returned within 60 days.")])
        .await
        .expect(202);
    service.drain_jobs().await;
    assert_eq!(desk.document(&document).await["state"], "failed");
    let (id, key, chatbot) = (acme.id, acme.key.clone(), desk.id.clone());

    let service = service
        .restart_after(|data| std::fs::remove_dir_all(data.join("index")).expect("removed"))
        .await;
    service.drain_jobs().await;

    let acme = Tenant {
        service: &service,
        id,
        key,
    };
    let desk = Chatbot {
        tenant: &acme,
        id: chatbot,
    };
    assert_eq!(desk.document(&document).await["state"], "failed");
    let found = desk.search("Within how many days may goods be returned?").await;
    assert!(
        found[0]["text"]
            .as_str()
            .is_some_and(|text| text.contains("30 days")),
        "{found:?}"
    );
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn an_index_that_is_there_is_not_filled_again() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    acme.chatbot("Desk").await.publish("a.txt", "Words.").await;

    let service = service.restart_after(|_| ()).await.restart_after(|_| ()).await;

    assert_eq!(service.drain_jobs().await, 0);
}
