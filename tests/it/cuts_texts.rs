//! What is cut otherwise is the text that citations count in, whatever its file says by now; and nothing is bought twice for it.

use std::path::Path;
use std::time::Duration;

use chrono::TimeDelta;
use frontdesk::knowledge::verify;
use serde_json::{Value, json};

use crate::cuts::{LONG, begin, chunk_count, length, order, small, states};
use crate::harness::app::{Chatbot, TestApp, TestOptions};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::stored::{page_about, stored_files};
use crate::harness::work::{kill, spawn_worker};

/// Fails the test unless each chunk of the document is its text at the chunk's place.
async fn check_places(desk: &Chatbot<'_, '_>, document: &str) {
    let told = desk.document(document).await;
    let text: Vec<char> = told["text"].as_str().expect("a text").chars().collect();
    for chunk in told["chunk_list"].as_array().expect("chunks") {
        let place = |end: &str| usize::try_from(chunk[end].as_u64().expect("a place")).expect("small");
        let there: String = text[place("start")..place("end")].iter().collect();
        assert_eq!(chunk["text"], there, "{chunk}");
    }
}

async fn cut_small_after(between: impl FnOnce(&Path)) {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk.publish("manual.md", &page_about(&["Oak", "Teak"])).await;
    between(&stored_files(&service.data_dir())[0]);

    let cut = begin(&acme, small()).await;
    service.drain_jobs().await;
    order(&acme, &cut, "activate", 200).await;
    service.drain_jobs().await;

    assert!(chunk_count(&desk, &id).await > 8);
    check_places(&desk, &id).await;
    let found = desk.search("Teak").await;
    assert_eq!(found[0]["heading"], "About Teak", "{found:?}");
    assert!(found.iter().all(|item| length(item) < LONG), "{found:?}");
    let elm = desk.search("Elm").await;
    assert!(
        !elm.iter()
            .any(|item| item["text"].as_str().is_some_and(|text| text.contains("Elm"))),
        "{elm:?}"
    );
}

#[tokio::test]
async fn a_document_whose_file_is_lost_is_cut_as_it_was_read() {
    cut_small_after(|file| std::fs::remove_file(file).expect("removed")).await;
}

#[tokio::test]
async fn a_document_whose_file_reads_otherwise_by_now_is_cut_as_it_was_read() {
    let other = format!("# Of trees\n\n{}", page_about(&["Elm", "Teak"]));
    cut_small_after(|file| std::fs::write(file, other).expect("written")).await;
}

#[tokio::test]
async fn what_a_document_is_labelled_with_while_it_is_cut_holds_in_all_of_its_chunks() {
    let embedder = WatchedEmbedder::new();
    let options = TestOptions::default().embedder(embedder.clone());
    let service = options.set("embedding.cache_mb", 0).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let sections: Vec<String> = (0..320).map(|number| format!("Wood{number}")).collect();
    let sections: Vec<&str> = sections.iter().map(String::as_str).collect();
    let id = desk.publish("woods.md", &page_about(&sections)).await;
    let cut = begin(&acme, json!({ "max_tokens": 100, "overlap_tokens": 0 })).await;
    embedder.hold();
    let worker = spawn_worker(&service.app);
    embedder.let_first_pass().await;

    let labels = json!({ "tags": ["wood"] });
    acme.patch(&format!("/api/documents/{id}"), labels)
        .await
        .expect(200);
    service.drain_jobs().await;
    embedder.let_one_go();
    embedder.hold();
    embedder.wait_held(3).await;
    kill(worker).await;
    embedder.let_one_go();
    for _ in 0..2 {
        service.clock.advance(TimeDelta::minutes(10));
        tokio::time::sleep(Duration::from_millis(50)).await;
        service.drain_jobs().await;
    }

    assert_eq!(states(&acme).await, ["ready", "live"]);
    let space = service.app.spaces.wanted().clone();
    let compared = verify::compare(&service.app, acme.id, &space, false).await;
    assert!(
        compared.as_ref().is_ok_and(verify::Findings::agree),
        "{compared:?}"
    );
    order(&acme, &cut, "activate", 200).await;
    let query = json!({ "query": "Wood7 matters", "filter": { "tags": ["wood"] } });
    let path = format!("/api/chatbots/{}/search", desk.id);
    let found: Value = acme.post(&path, query).await.expect(200).json();
    assert_eq!(found["items"][0]["heading"], "About Wood7", "{found}");
}
