//! The local model against vectors that an independent program computed (`fixtures/make_reference.py`).

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::join_all;
use retrieval::embed::{Embedder, LocalEmbedder, Tokenizer, estimate_tokens};
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    text: String,
    tokens: usize,
    vector: Vec<f32>,
}

fn references() -> Vec<Reference> {
    serde_json::from_str(include_str!("../../fixtures/reference.json")).expect("the committed reference")
}

fn model_dir() -> &'static Path {
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/all-MiniLM-L6-v2"));
    assert!(
        dir.join("model.safetensors").exists(),
        "this test needs the embedding model in models/all-MiniLM-L6-v2; `make test` installs it"
    );
    dir
}

/// One model for all tests: it is 90 MB.
fn embedder() -> Arc<LocalEmbedder> {
    static EMBEDDER: OnceLock<Arc<LocalEmbedder>> = OnceLock::new();
    EMBEDDER
        .get_or_init(|| Arc::new(LocalEmbedder::load(model_dir(), 2).expect("the model")))
        .clone()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

#[tokio::test]
async fn vectors_equal_the_reference_alone_and_in_a_bulk() {
    let embedder = embedder();
    let references = references();
    let texts = references
        .iter()
        .map(|reference| reference.text.clone())
        .collect();
    let bulk = embedder.embed_documents(texts).await.expect("vectors");

    assert_eq!(bulk.vectors.len(), references.len());
    for (reference, in_bulk) in references.iter().zip(&bulk.vectors) {
        let alone = embedder
            .embed_query(reference.text.clone())
            .await
            .expect("a vector");
        for vector in [&alone.vectors[0], in_bulk] {
            assert!(
                (cosine(vector, vector) - 1.0).abs() < 1e-5,
                "unit length: {:?}",
                reference.text
            );
            let agreement = cosine(vector, &reference.vector);
            assert!(agreement >= 0.9999, "{agreement} for {:?}", reference.text);
        }
        assert_eq!(
            alone.tokens,
            reference.tokens.min(embedder.max_tokens()) as u64,
            "{:?}",
            reference.text
        );
    }
    assert!(!bulk.reported);
}

#[tokio::test]
async fn tokens_are_counted_as_the_model_cuts_them_however_long_the_text() {
    let embedder = embedder();
    let tokenizer =
        Tokenizer::load(&model_dir().join("tokenizer.json")).expect("the tokenizer without its model");

    for reference in references() {
        assert_eq!(
            embedder.count_tokens(&reference.text),
            reference.tokens,
            "{:?}",
            reference.text
        );
        assert_eq!(
            tokenizer.count(&reference.text),
            reference.tokens,
            "{:?}",
            reference.text
        );
    }
    assert_eq!(embedder.max_tokens(), 254);
    assert_eq!(
        (embedder.model_id(), embedder.dimension()),
        ("all-MiniLM-L6-v2", 384)
    );
}

#[test]
fn prose_is_estimated_between_its_true_count_and_twice_that() {
    let tokenizer = Tokenizer::load(&model_dir().join("tokenizer.json")).expect("the tokenizer");
    let prose = [
        include_str!("../../../Cargo.toml"),
        "Goods may be returned within thirty days of delivery if they are unused. A refund is paid within a week.",
        "Die Rückgabe der Ware ist binnen dreißig Tagen möglich, sofern sie unbenutzt und originalverpackt ist.",
        "El cliente puede devolver los artículos en un plazo de treinta días desde la entrega sin dar explicaciones.",
        "Возврат товара возможен в течение тридцати дней с момента доставки, если он не был в употреблении.",
        "您可以在三十天内退货，但商品必须未使用且保持原包装。退款将在一周内支付。",
    ];
    for text in prose {
        let (truth, estimate) = (tokenizer.count(text), estimate_tokens(text));
        let low = truth * 3 / 4;
        assert!(
            (low..=2 * truth).contains(&estimate),
            "{estimate} for {truth} tokens of {text:.40}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_does_not_wait_for_a_bulk() {
    let embedder = embedder();
    let texts: Vec<String> = (0..40)
        .map(|n| format!("{n} {}", "many words to read ".repeat(40)))
        .collect();
    let bulk = tokio::spawn({
        let embedder = embedder.clone();
        async move { embedder.embed_documents(texts).await }
    });
    tokio::task::yield_now().await;

    for n in 0..3 {
        embedder
            .embed_query(format!("question {n}"))
            .await
            .expect("a vector");
    }

    assert!(
        !bulk.is_finished(),
        "the questions were answered while the bulk went on"
    );
    assert_eq!(bulk.await.expect("no panic").expect("vectors").vectors.len(), 40);
}

#[tokio::test]
async fn callers_who_go_away_leave_the_threads_working() {
    let embedder = embedder();
    for n in 0..20 {
        let query = embedder.embed_query(format!("abandoned {n}"));
        drop(tokio::time::timeout(Duration::from_micros(n * 100), query).await);
        let bulk = embedder.embed_documents(vec!["abandoned ".repeat(200); 50]);
        drop(tokio::time::timeout(Duration::from_micros(n * 100), bulk).await);
    }

    let many = join_all((0..20).map(|n| embedder.embed_query(format!("question {n}")))).await;
    let bulk = embedder
        .embed_documents(vec!["still".to_owned(), "here".to_owned()])
        .await;

    assert!(many.iter().all(Result::is_ok));
    assert_eq!(bulk.expect("vectors").vectors.len(), 2);
}

#[tokio::test]
async fn nothing_to_embed_is_nothing() {
    let embeddings = embedder().embed_documents(vec![]).await.expect("no vectors");

    assert_eq!((embeddings.vectors.len(), embeddings.tokens), (0, 0));
}

#[test]
fn a_directory_without_a_model_is_refused_by_the_file_that_is_missing_or_damaged() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let error = LocalEmbedder::load(dir.path(), 2)
        .err()
        .expect("there is no model");
    assert!(error.to_string().contains("tokenizer.json"), "{error}");

    for file in ["tokenizer.json", "config.json"] {
        std::fs::copy(model_dir().join(file), dir.path().join(file)).expect("copied");
    }
    std::fs::write(dir.path().join("model.safetensors"), b"damaged").expect("written");
    let error = LocalEmbedder::load(dir.path(), 2)
        .err()
        .expect("the weights are damaged");
    assert!(error.to_string().contains("model.safetensors"), "{error}");
}
