//! A preview cuts a text as a document would be cut, and keeps nothing of it.

use serde_json::{Value, json};

use crate::harness::app::TestApp;
use crate::harness::stored::{count_rows, stored_files};

#[tokio::test]
async fn a_preview_shows_chunks_with_their_headings_spans_and_tokens() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let markdown = format!(
        "# Shop\n\n## Oak\n\n{}\n\n| Size | Price |\n|---|---|\n| Small table | 300 |\n| Large table | 500 |\n",
        "Oak is hard. ".repeat(40)
    );

    let reply = acme
        .post(
            "/api/chunk-preview",
            json!({ "markdown": markdown, "max_tokens": 50, "overlap_tokens": 5 }),
        )
        .await
        .expect(200)
        .json();

    let items = reply["items"].as_array().expect("items");
    assert!(items.len() >= 3, "{reply}");
    assert!(
        items.iter().all(|item| item["tokens"].as_u64() <= Some(50)),
        "{reply}"
    );
    assert!(items.iter().all(|item| {
        item["heading"]
            .as_str()
            .is_some_and(|heading| heading.starts_with("Shop › Oak"))
    }));
    let offset = |item: &Value, name: &str| item[name].as_u64().expect("an offset");
    for pair in items.windows(2) {
        assert!(offset(&pair[0], "start") < offset(&pair[1], "start"));
    }
    for item in items {
        let length = item["text"].as_str().expect("a text").chars().count() as u64;
        assert_eq!(offset(item, "end") - offset(item, "start"), length);
    }
    let total: u64 = items
        .iter()
        .map(|item| item["tokens"].as_u64().expect("a count"))
        .sum();
    assert_eq!(reply["tokens"].as_u64(), Some(total));
}

#[tokio::test]
async fn a_preview_of_a_page_shows_what_a_reader_would_see_and_keeps_nothing() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;
    let html = "<h1>Returns</h1><script>steal()</script><p>Within 30 days.</p>";

    let reply = acme
        .post("/api/chunk-preview", json!({ "html": html }))
        .await
        .expect(200)
        .json();

    assert_eq!(reply["items"][0]["text"], "Returns\n\nWithin 30 days.");
    assert_eq!(reply["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (
            count_rows(&service, "document").await,
            count_rows(&service, "chunk").await
        ),
        (0, 0)
    );
    assert!(stored_files(&service.data_dir()).is_empty());
}

#[tokio::test]
async fn a_preview_takes_one_text_of_bounded_size_and_sensible_limits() {
    let service = TestApp::start().await;
    let acme = service.tenant("acme").await;

    for (body, code) in [
        (json!({}), "invalid_preview_text"),
        (json!({ "text": "a", "html": "b" }), "invalid_preview_text"),
        (json!({ "text": " \n" }), "invalid_preview_text"),
        (json!({ "text": "a ".repeat(260_000) }), "invalid_preview_text"),
        (json!({ "text": "a", "max_tokens": 15 }), "invalid_chunking"),
        (json!({ "text": "a", "max_tokens": 5_000 }), "invalid_chunking"),
        (
            json!({ "text": "a", "max_tokens": 100, "overlap_tokens": 51 }),
            "invalid_chunking",
        ),
        (json!({ "text": "a", "strategy": "x" }), "invalid_body"),
    ] {
        let reply = acme.post("/api/chunk-preview", body.clone()).await.expect(422);
        assert_eq!(
            reply.code(),
            code,
            "{}",
            body.to_string().chars().take(100).collect::<String>()
        );
    }
    acme.post("/api/chunk-preview", json!({ "text": "a".repeat(2 << 20) }))
        .await
        .expect(413);
}
