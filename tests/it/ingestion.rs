//! From a file to passages: failures tell why and hold up nobody, and what is down outside is waited for.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use serde_json::{Value, json};

use crate::harness::app::{TestApp, TestOptions};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::stored::{fixture, ids, page_about};
use crate::harness::work::{kill, spawn_worker};

#[tokio::test]
async fn the_demo_folder_is_indexed_whole() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let names = [
        "company.md",
        "delivery-and-returns.html",
        "faq.csv",
        "product-guide.pdf",
        "warranty-terms.docx",
    ];
    let files: Vec<(&str, Vec<u8>)> = names
        .iter()
        .map(|name| (*name, fixture(&format!("demo/{name}"))))
        .collect();
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(name, bytes)| (*name, bytes.as_slice()))
        .collect();

    let taken = desk.upload(&files).await.expect(202).json();
    service.drain_jobs().await;

    for id in ids(&taken) {
        let document = desk.document(&id).await;
        assert_eq!(document["state"], "indexed", "{document}");
        assert!(document["error"].is_null() && document["indexed_at"].is_string());
    }
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn each_file_that_cannot_be_read_says_why_and_holds_up_no_other() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let expected = BTreeMap::from([
        ("damaged.pdf", "damaged"),
        ("deep-elements.html", "indexed"),
        ("empty.txt", "empty_file"),
        ("external-entity.docx", "damaged"),
        ("locked.pdf", "password_protected"),
        ("nested-arrays.pdf", "indexed"),
        ("picture-named-text.txt", "unsupported_type"),
        ("scanned.pdf", "no_text"),
        ("stream-bomb.pdf", "too_large"),
        ("zip-bomb.docx", "too_large"),
        ("editing-restricted.pdf", "indexed"),
        ("other-charset.txt", "indexed"),
        ("good.md", "indexed"),
    ]);
    let files: Vec<(&str, Vec<u8>)> = expected
        .keys()
        .map(|name| {
            (
                *name,
                if *name == "good.md" {
                    b"# Fine\n\nReadable words.".to_vec()
                } else {
                    fixture(&format!("broken/{name}"))
                },
            )
        })
        .collect();
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(name, bytes)| (*name, bytes.as_slice()))
        .collect();

    let taken = desk.upload(&files).await.expect(202).json();
    service.drain_jobs().await;
    service.clock.advance(TimeDelta::minutes(10));
    service.drain_jobs().await;

    let mut found = BTreeMap::new();
    let folder = service.data_dir().display().to_string();
    for id in ids(&taken) {
        let document = desk.document(&id).await;
        let name = document["file_name"].as_str().expect("a name").to_owned();
        let end = document["error"]["code"]
            .as_str()
            .or(document["state"].as_str())
            .expect("an end")
            .to_owned();
        if document["state"] == "failed" {
            let message = document["error"]["message"].as_str().expect("a message");
            assert!(
                message.len() > 20 && message.ends_with('.') && !message.contains(&folder),
                "{name}: {message}"
            );
            assert_eq!(
                (&document["chunks"], &document["text"]),
                (&json!(0), &json!("")),
                "{name}"
            );
        }
        found.insert(name, end);
    }
    let found: BTreeMap<&str, &str> = found
        .iter()
        .map(|(name, end)| (name.as_str(), end.as_str()))
        .collect();
    assert_eq!(found, expected);
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_file_that_failed_is_tried_again_when_it_is_uploaded_again() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let damaged = fixture("broken/damaged.pdf");
    let first = ids(&desk.upload(&[("guide.pdf", &damaged)]).await.expect(202).json());
    service.drain_jobs().await;

    let again = desk.upload(&[("guide.pdf", &damaged)]).await.expect(202).json();
    assert_eq!(
        (ids(&again), &again["items"][0]["state"]),
        (first.clone(), &json!("queued"))
    );
    assert_eq!(service.drain_jobs().await, 1, "it is read again");
    assert_eq!(desk.document(&first[0]).await["state"], "failed");

    let mended = desk
        .upload(&[("guide.pdf", &fixture("demo/product-guide.pdf"))])
        .await
        .expect(202)
        .json();
    service.drain_jobs().await;
    let document = desk.document(&first[0]).await;
    assert_eq!(
        (ids(&mended), &document["state"], &document["error"]),
        (first, &json!("indexed"), &Value::Null)
    );
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn while_the_embedding_model_is_down_documents_wait_and_are_indexed_later_by_themselves() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default()
        .embedder(embedder.clone())
        .set("jobs.max_attempts", 2)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    embedder.set_down(true);
    let id = desk.publish("returns.md", "# Returns\n\nWithin 30 days.").await;

    for _ in 0..5 {
        let document = desk.document(&id).await;
        assert_eq!(
            (&document["state"], &document["error"]),
            (&json!("processing"), &Value::Null)
        );
        service.clock.advance(TimeDelta::seconds(15));
        assert_eq!(service.drain_jobs().await, 1, "it is tried again");
    }
    let job = acme.get("/api/jobs").await.json()["items"][0].clone();
    assert!(
        job["last_error"]
            .as_str()
            .is_some_and(|reason| reason.contains("embedding model does not answer")),
        "{job}"
    );

    embedder.set_down(false);
    service.clock.advance(TimeDelta::seconds(15));
    service.drain_jobs().await;
    assert_eq!(desk.document(&id).await["state"], "indexed");
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_document_whose_indexing_was_given_up_says_why_and_is_indexed_when_its_job_is_tried_again() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default()
        .embedder(embedder.clone())
        .set("jobs.max_attempts", 2)
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    embedder.refuse(2);
    let id = desk.publish("returns.md", "# Returns\n\nWithin 30 days.").await;
    service.clock.advance(TimeDelta::hours(1));
    service.drain_jobs().await;

    let document = desk.document(&id).await;
    assert_eq!(
        (&document["state"], &document["error"]["code"]),
        (&json!("failed"), &json!("indexing_failed"))
    );
    assert!(
        document["error"]["message"]
            .as_str()
            .is_some_and(|message| message.contains("not to my taste")),
        "{document}"
    );

    let job = acme.get("/api/jobs?state=failed").await.json()["items"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    acme.post(&format!("/api/jobs/{job}/retry"), json!({}))
        .await
        .expect(200);
    service.drain_jobs().await;
    let document = desk.document(&id).await;
    assert_eq!(
        (&document["state"], &document["error"]),
        (&json!("indexed"), &Value::Null)
    );
}

#[tokio::test]
async fn an_indexing_that_died_half_way_is_repeated_to_the_same_end() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    // More chunks than are embedded at once, so that some are in the index when the worker dies.
    let words: Vec<String> = (0..300).map(|number| format!("Wood{number}")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let id = ids(&desk
        .upload(&[("woods.md", page_about(&words).as_bytes())])
        .await
        .expect(202)
        .json())[0]
        .clone();
    embedder.hold();
    let worker = spawn_worker(&service.app);
    embedder.let_first_pass().await;
    kill(worker).await;
    assert!(acme.indexed_chunks().await > 0, "the first part is in the index");
    assert!(
        desk.search("Wood1").await.is_empty(),
        "half a document answers nothing"
    );

    embedder.let_one_go();
    service.clock.advance(TimeDelta::seconds(61));
    service.drain_jobs().await;

    let document = desk.document(&id).await;
    assert_eq!(
        (&document["state"], &document["chunks"]),
        (&json!("indexed"), &json!(300))
    );
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_document_that_the_budget_does_not_reach_for_fails_whole_and_says_so() {
    let embedder = WatchedEmbedder::new();
    let options = TestOptions::default().embedder(embedder.clone());
    // The embeddings are bought, so they count.
    let bought = [
        ("backend", "openai"),
        ("base_url", "http://127.0.0.1:9"),
        ("model", "m"),
        ("dimension", "256"),
    ];
    let service = bought
        .iter()
        .fold(options, |options, (name, value)| {
            options.set(&format!("embedding.{name}"), value)
        })
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    // Enough for the first part of what is embedded, and not for the rest.
    acme.patch(
        &format!("/api/chatbots/{}", desk.id),
        json!({ "monthly_token_limit": 50_000 }),
    )
    .await
    .expect(200);
    let words: Vec<String> = (0..300).map(|number| format!("Wood{number}")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();

    let id = desk.publish("woods.md", &page_about(&words)).await;

    assert_eq!(embedder.take_documents().len(), 256, "the first part was bought");
    let document = desk.document(&id).await;
    assert_eq!(
        (&document["state"], &document["chunks"]),
        (&json!("failed"), &json!(0))
    );
    assert_eq!(document["error"]["code"], "token_budget_exceeded");
    assert!(desk.search("Wood7").await.is_empty());
    acme.check_stores_agree().await;
}
