//! The embedding model changes: chunks are embedded anew by themselves, and found before, meanwhile and after.

use std::sync::Arc;

use frontdesk::app::{App, Replacements, StartError};
use retrieval::embed::Embedder;
use serde_json::json;

use crate::harness::app::{Chatbot, Tenant, TestApp, TestOptions};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::stored::count_rows;

/// A tenant and its chatbot by their names, so that they outlive a restart.
struct Held {
    tenant: frontdesk::id::TenantId,
    key: String,
    chatbot: String,
}

impl Held {
    async fn with_documents(service: &TestApp, count: usize) -> Self {
        let acme = service.tenant("acme").await;
        let desk = acme.chatbot("Desk").await;
        for number in 0..count {
            desk.publish(
                &format!("{number}.md"),
                &format!("Table{number} is oiled {number} times a year."),
            )
            .await;
        }
        Self {
            tenant: acme.id,
            key: acme.key.clone(),
            chatbot: desk.id.clone(),
        }
    }

    fn tenant<'a>(&self, service: &'a TestApp) -> Tenant<'a> {
        Tenant {
            service,
            id: self.tenant,
            key: self.key.clone(),
        }
    }

    /// Fails the test unless each document is found by meaning, and all stores agree.
    async fn check_found(&self, service: &TestApp, count: usize) {
        let acme = self.tenant(service);
        let desk = Chatbot {
            tenant: &acme,
            id: self.chatbot.clone(),
        };
        for number in 0..count {
            let found = desk.search(&format!("How often is Table{number} oiled?")).await;
            assert!(
                found[0]["text"]
                    .as_str()
                    .is_some_and(|text| text.contains(&format!("Table{number} "))),
                "{found:?}"
            );
            assert!(found[0]["similarity"].as_f64().is_some(), "{found:?}");
        }
        acme.check_stores_agree().await;
    }
}

#[tokio::test]
async fn with_another_embedding_model_everything_is_embedded_again_by_itself() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 6).await;
    held.check_found(&service, 6).await;
    let embedder = WatchedEmbedder::named("longer-words", 384);

    let service = service
        .restart_with(Some(embedder.clone() as Arc<dyn Embedder>), &[])
        .await;
    assert_eq!(service.drain_jobs().await, 1, "one job for all");

    assert_eq!(embedder.take_documents().len(), 6);
    held.check_found(&service, 6).await;
    assert_eq!(count_rows(&service, "chunk").await, 6);

    // Once is enough.
    let service = service.restart(&[]).await;
    assert_eq!(service.drain_jobs().await, 0);
    held.check_found(&service, 6).await;
}

#[tokio::test]
async fn a_document_is_found_by_the_old_model_until_the_new_one_has_read_all() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 1).await;

    let service = service
        .restart_with(Some(WatchedEmbedder::named("longer-words", 384)), &[])
        .await;

    let acme = held.tenant(&service);
    let listed = acme
        .get(&format!("/api/chatbots/{}/documents", held.chatbot))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&listed["items"][0]["state"], &listed["items"][0]["chunks"]),
        (&json!("indexed"), &json!(1))
    );
    let desk = Chatbot {
        tenant: &acme,
        id: held.chatbot.clone(),
    };
    let found = desk.search("How often is Table0 oiled?").await;
    assert!(found[0]["similarity"].as_f64().is_some(), "{found:?}");
    service.drain_jobs().await;
    held.check_found(&service, 1).await;
}

#[tokio::test]
async fn a_model_that_is_installed_later_takes_over_and_while_it_is_missing_words_answer_and_say_so() {
    let service = TestOptions::default().without_embedder().start().await;
    let held = Held::with_documents(&service, 3).await;

    let service = service.restart_with(Some(WatchedEmbedder::new()), &[]).await;
    assert_eq!(service.drain_jobs().await, 1, "one job for all");
    held.check_found(&service, 3).await;

    let service = service.restart_remembering(None, Vec::new(), &[]).await;
    service.drain_jobs().await;
    {
        let acme = held.tenant(&service);
        let path = format!("/api/chatbots/{}/search", held.chatbot);
        let query = json!({ "query": "How often is Table2 oiled?" });
        let found = acme.post(&path, query).await.expect(200).json();
        assert!(
            found["items"][0]["text"]
                .as_str()
                .is_some_and(|text| text.contains("Table2 "))
                && found["items"][0]["similarity"].is_null(),
            "{found}"
        );
        assert_eq!(found["degraded"][0]["code"], "embedding_unavailable", "{found}");
    }

    // What it embedded is there when it is back.
    let service = service.restart_with(Some(WatchedEmbedder::new()), &[]).await;
    assert_eq!(service.drain_jobs().await, 0);
    held.check_found(&service, 3).await;
}

#[tokio::test]
async fn what_the_index_holds_survives_a_restart() {
    let service = TestApp::start().await;
    let held = Held::with_documents(&service, 3).await;

    let service = service.restart(&[]).await;

    assert_eq!(service.drain_jobs().await, 0);
    held.check_found(&service, 3).await;
}

#[tokio::test]
async fn a_second_process_in_the_same_data_folder_is_told_what_to_do() {
    let service = TestOptions::default()
        .set("index.backend", "embedded")
        .start()
        .await;

    let second = App::build_with(service.app.config.clone(), Replacements::default()).await;

    let error = second.err().expect("it does not start");
    assert!(matches!(error, StartError::InUse { .. }), "{error}");
    let message = error.to_string();
    assert!(
        message.contains("in use by another frontdesk process") && message.contains("--data-dir"),
        "{message}"
    );
}
