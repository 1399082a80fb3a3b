//! A preview cuts a text as a document would be cut, and keeps nothing of it.

use std::sync::Arc;
use std::time::Duration;

use retrieval::BoxFuture;
use retrieval::embed::{Asker, EmbedError, Embedder, Embeddings};
use serde_json::{Value, json};

use crate::harness::app::{TestApp, TestOptions, WordEmbedder};
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

#[tokio::test]
async fn previews_are_one_per_tenant_and_few_at_once_and_nobody_waits_in_a_line_without_end() {
    let service = TestOptions::default().set("extract.previews", 1).start().await;
    let acme = service.tenant("acme").await;
    let globex = service.tenant("globex").await;
    let body = json!({ "text": "A text to be cut." });
    let running = service.app.previews.enter(acme.id).await.expect("a place");

    let second = acme.post("/api/chunk-preview", body.clone()).await.expect(429);
    let other = globex.post("/api/chunk-preview", body.clone()).await.expect(503);

    assert_eq!(
        (second.code(), other.code()),
        ("rate_limited".into(), "busy".into())
    );
    assert!(second.headers.contains_key("retry-after") && other.headers.contains_key("retry-after"));
    drop(running);
    globex.post("/api/chunk-preview", body).await.expect(200);
}

#[tokio::test]
async fn a_preview_that_takes_too_long_is_given_up_and_holds_its_place_while_it_lasts() {
    let service = TestOptions::default()
        .set("extract.preview_timeout_s", 1)
        .embedder(Arc::new(SlowCounter))
        .start()
        .await;
    let acme = service.tenant("acme").await;
    let slow = json!({ "markdown": "A line.\n\n".repeat(20) });

    let reply = acme.post("/api/chunk-preview", slow.clone()).await.expect(503);

    assert_eq!(reply.code(), "busy");
    acme.post("/api/chunk-preview", slow).await.expect(429);
}

#[tokio::test]
async fn where_no_text_can_be_read_at_the_moment_the_text_is_not_at_fault() {
    let service = TestOptions::default()
        .extractor("/nowhere/frontdesk".into())
        .start()
        .await;
    let acme = service.tenant("acme").await;

    let reply = acme
        .post("/api/chunk-preview", json!({ "text": "A text to be cut." }))
        .await
        .expect(503);

    assert_eq!(reply.code(), "reader_unavailable");
    assert!(reply.headers.contains_key("retry-after"));
    assert!(reply.text.contains("try again shortly"), "{}", reply.text);
}

/// Counts words, and takes its time.
struct SlowCounter;

impl Embedder for SlowCounter {
    fn model_id(&self) -> &str {
        WordEmbedder.model_id()
    }

    fn dimension(&self) -> usize {
        WordEmbedder.dimension()
    }

    fn max_tokens(&self) -> usize {
        WordEmbedder.max_tokens()
    }

    fn count_tokens(&self, text: &str) -> usize {
        std::thread::sleep(Duration::from_millis(200));
        WordEmbedder.count_tokens(text)
    }

    fn embed_query(&self, asker: Asker, text: String) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        WordEmbedder.embed_query(asker, text)
    }

    fn embed_documents(
        &self,
        asker: Asker,
        texts: Vec<String>,
    ) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        WordEmbedder.embed_documents(asker, texts)
    }
}
