//! Files that are gone from the data folder: the document says so, and comes back when it is brought again.

use serde_json::json;

use crate::harness::app::TestApp;
use crate::harness::stored::stored_files;
use crate::sync::desk::{Desk, service_for};
use crate::sync::site::{Answer, Site};

fn lose_all_files(service: &TestApp) {
    let files = stored_files(&service.data_dir());
    assert!(!files.is_empty());
    for file in files {
        std::fs::remove_file(file).expect("the file can be removed");
    }
}

#[tokio::test]
async fn an_upload_whose_file_is_lost_fails_and_is_indexed_when_it_is_uploaded_again() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let taken = desk.upload(&[("a.txt", b"Words.")]).await.expect(202).json();
    let id = taken["items"][0]["id"].as_str().expect("an id");
    lose_all_files(&service);

    service.drain_jobs().await;
    let document = desk.document(id).await;
    assert_eq!(
        (&document["state"], &document["error"]["code"]),
        (&json!("failed"), &json!("file_lost"))
    );

    desk.publish("a.txt", "Words.").await;
    assert_eq!(desk.document(id).await["state"], "indexed");
}

#[tokio::test]
async fn a_page_whose_file_is_lost_is_read_anew_by_the_next_sync() {
    let site = Site::start(&[("/", Answer::page("Hours", "The showroom opens at ten.", &[]))]).await;
    let service = service_for(&site).await;
    let desk = Desk::of_website(&service, &site).await;
    desk.sync().await;
    lose_all_files(&service);
    let documents = format!("/api/sources/{}/documents", desk.source_id);
    let first = async || {
        let reply = service
            .send(reqwest::Method::GET, &documents, Some(&desk.key), None)
            .await;
        reply.expect(200).json()["items"][0].clone()
    };
    let path = format!(
        "/api/documents/{}/chunks",
        first().await["id"].as_str().expect("an id")
    );
    let body = json!({ "text": "By appointment too." });
    service
        .send(reqwest::Method::POST, &path, Some(&desk.key), Some(body))
        .await
        .expect(201);
    service.drain_jobs().await;
    assert_eq!(first().await["error"]["code"], "file_lost");

    let run = desk.sync().await;

    let document = first().await;
    assert_eq!(
        (&document["state"], &document["chunks"]),
        (&json!("indexed"), &json!(2)),
        "{run:?}"
    );
}

#[tokio::test]
async fn a_store_of_files_that_is_not_there_is_an_outage_and_no_documents_fault() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let taken = desk.upload(&[("a.txt", b"Words.")]).await.expect(202).json();
    let id = taken["items"][0]["id"].as_str().expect("an id");
    let (files, away) = (service.data_dir().join("files"), service.data_dir().join("away"));
    std::fs::rename(&files, &away).expect("moved");

    let refused = desk.upload(&[("b.txt", b"Other words.")]).await.expect(503);
    service.drain_jobs().await;

    assert_eq!(refused.code(), "storage_unavailable");
    assert!(refused.headers.contains_key("retry-after"));
    let ready = service
        .send(reqwest::Method::GET, "/ready", None, None)
        .await
        .expect(503);
    assert_eq!(ready.json()["files"], "failing");
    assert_ne!(desk.document(id).await["state"], "failed");

    // Another store in its place, as of a process with a data folder of its own.
    std::fs::create_dir_all(files.join("incoming")).expect("made");
    service.clock.advance(chrono::TimeDelta::minutes(5));
    service.drain_jobs().await;
    assert_ne!(desk.document(id).await["state"], "failed");

    std::fs::remove_dir_all(&files).expect("removed");
    std::fs::rename(&away, &files).expect("moved back");
    service.clock.advance(chrono::TimeDelta::minutes(5));
    service.drain_jobs().await;
    assert_eq!(desk.document(id).await["state"], "indexed");
    service
        .send(reqwest::Method::GET, "/ready", None, None)
        .await
        .expect(200);
}
