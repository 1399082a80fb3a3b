//! Documents of many megabytes: read, cut, embedded and stored in parts, and swapped in whole.

use chrono::TimeDelta;
use serde_json::Value;

use crate::harness::app::{Chatbot, TestApp, TestOptions};
use crate::harness::embedders::WatchedEmbedder;
use crate::harness::stored::count_rows;
use crate::harness::work::spawn_worker;

/// Somewhat more than two parts, of chapters whose chunks are few enough for a test.
fn book(last_words: &str) -> String {
    let mut text = String::new();
    let mut number = 0;
    while text.len() < 5 << 20 {
        number += 1;
        // A long word is few tokens here, so chunks are large.
        text += &format!("Größe {number} {}\n\n", "x".repeat(4_000));
    }
    text + last_words
}

/// The whole text, put together from its parts.
async fn text_of(desk: &Chatbot<'_, '_>, id: &str) -> (String, usize) {
    let (mut text, mut part, mut parts) = (String::new(), 0, 0);
    loop {
        let page = desk
            .tenant
            .get(&format!("/api/documents/{id}?text_part={part}"))
            .await
            .expect(200)
            .json();
        assert_eq!(page["text_start"].as_u64(), Some(text.chars().count() as u64));
        text += page["text"].as_str().expect("text");
        parts += 1;
        match page["next_text_part"].as_i64() {
            Some(next) => part = next,
            None => return (text, parts),
        }
    }
}

async fn all_chunks(desk: &Chatbot<'_, '_>, id: &str) -> Vec<Value> {
    let (mut chunks, mut from) = (Vec::new(), 0);
    loop {
        let page = desk
            .tenant
            .get(&format!("/api/documents/{id}/chunks?from_chunk={from}"))
            .await
            .expect(200)
            .json();
        chunks.extend(page["items"].as_array().expect("items").clone());
        match page["next_chunk"].as_i64() {
            Some(next) => from = next,
            None => return chunks,
        }
    }
}

#[tokio::test]
async fn a_document_in_parts_is_one_document_whose_spans_hold_from_end_to_end() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;

    let id = desk.publish("book.txt", &book("The butler did it.")).await;

    let document = desk.document(&id).await;
    assert_eq!(document["state"], "indexed", "{}", document["error"]);
    let (text, parts) = text_of(&desk, &id).await;
    assert!(parts >= 2, "{parts} parts");
    let text: Vec<char> = text.chars().collect();
    let chunks = all_chunks(&desk, &id).await;
    assert_eq!(document["chunks"].as_u64(), Some(chunks.len() as u64));
    let offset =
        |chunk: &Value, name: &str| usize::try_from(chunk[name].as_u64().expect("an offset")).expect("small");
    for (position, chunk) in chunks.iter().enumerate() {
        let span: String = text[offset(chunk, "start")..offset(chunk, "end")]
            .iter()
            .collect();
        assert!(chunk["text"] == span.as_str(), "chunk {position}");
        assert_eq!(chunk["position"].as_u64(), Some(position as u64));
    }
    assert!(
        desk.search("Who did it? The butler?").await[0]["text"]
            .to_string()
            .contains("butler")
    );
    assert_eq!(
        (
            count_rows(&service, "staged_chunk").await,
            count_rows(&service, "staged_text").await
        ),
        (0, 0)
    );
    acme.check_stores_agree().await;
}

#[tokio::test]
async fn a_large_document_goes_on_where_it_was_and_its_old_version_answers_until_it_is_whole() {
    let embedder = WatchedEmbedder::new();
    let service = TestOptions::default().embedder(embedder.clone()).start().await;
    let acme = service.tenant("acme").await;
    let desk = acme.chatbot("Desk").await;
    let id = desk.publish("book.txt", "The gardener did it.").await;
    embedder.take_documents();
    embedder.hold();
    desk.upload(&[("book.txt", book("The butler did it.").as_bytes())])
        .await
        .expect(202);
    let worker = spawn_worker(&service.app);
    // The first part is more than the embedder takes at once; stop in the second one.
    let mut calls = 0;
    while count_rows(&service, "staged_text").await == 0 {
        calls += 1;
        embedder.wait_held(calls).await;
        embedder.let_one_go();
        embedder.hold();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    worker.abort();
    let _ = worker.await;
    embedder.take_documents();
    let staged = count_rows(&service, "staged_chunk").await;
    assert!(
        desk.search("Who did it?").await[0]["text"]
            .to_string()
            .contains("gardener")
    );

    embedder.let_one_go();
    service.clock.advance(TimeDelta::minutes(10));
    service.drain_jobs().await;

    let embedded_again = i64::try_from(embedder.take_documents().len()).expect("a small number");
    let all = desk.document(&id).await["chunks"].as_i64().expect("a count");
    assert!(staged > 0);
    assert_eq!(
        embedded_again,
        all - staged,
        "what was staged is not embedded again"
    );
    assert!(
        desk.search("Who did it?").await[0]["text"]
            .to_string()
            .contains("butler")
    );
    acme.check_stores_agree().await;

    let smaller = desk.publish("book.txt", "Nobody did it.").await;
    assert_eq!(smaller, id);
    let (text, parts) = text_of(&desk, &id).await;
    assert_eq!((text.as_str(), parts), ("Nobody did it.", 1));
    acme.check_stores_agree().await;
}
