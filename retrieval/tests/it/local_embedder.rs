//! Local models against vectors that sentence-transformers computed (`fixtures/make_reference.py`, `make_tiny_models.py`).

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::join_all;
use retrieval::embed::{Asker, Embedder, LocalEmbedder, LocalOptions, Precision, Tokenizer, estimate_tokens};
use serde::Deserialize;

use crate::child::{run_child, start_child};

#[derive(Deserialize)]
struct Reference {
    text: String,
    tokens: usize,
    /// Of unit length, in ten-thousandths.
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
        .get_or_init(|| {
            Arc::new(LocalEmbedder::load(model_dir(), LocalOptions::default()).expect("the model"))
        })
        .clone()
}

/// Whatever their lengths.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let product =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum() };
    product(a, b) / (product(a, a) * product(b, b)).sqrt()
}

fn is_of_unit_length(vector: &[f32]) -> bool {
    let square: f64 = vector.iter().map(|value| f64::from(*value).powi(2)).sum();
    (square - 1.0).abs() < 1e-5
}

#[tokio::test]
async fn vectors_equal_the_reference_alone_and_in_a_bulk() {
    let references = references();
    assert_eq!(references.len(), 200);
    let texts: Vec<String> = references
        .iter()
        .map(|reference| reference.text.clone())
        .collect();
    let int8 = LocalOptions {
        precision: Precision::Int8,
        ..LocalOptions::default()
    };
    let int8 = LocalEmbedder::load(model_dir(), int8).expect("the model");
    for (embedder, least) in [(embedder().as_ref(), 0.9999), (&int8, 0.99)] {
        let bulk = embedder
            .embed_documents(Asker::Service, texts.clone())
            .await
            .expect("vectors");

        assert_eq!(bulk.vectors.len(), references.len());
        assert!(!bulk.reported);
        for (reference, in_bulk) in references.iter().zip(&bulk.vectors) {
            let agreement = cosine(in_bulk, &reference.vector);
            assert!(is_of_unit_length(in_bulk), "{:?}", reference.text);
            assert!(agreement >= least, "{agreement} for {:?}", reference.text);
            if reference.tokens > embedder.max_tokens() {
                // Of a long question other parts are read.
                continue;
            }
            let alone = embedder
                .embed_query(Asker::Service, reference.text.clone())
                .await
                .expect("a vector");
            let agreement = cosine(&alone.vectors[0], &reference.vector);
            assert!(agreement >= least, "{agreement} for {:?}", reference.text);
            assert_eq!(alone.tokens, reference.tokens as u64, "{:?}", reference.text);
        }
    }
}

#[tokio::test]
async fn of_a_long_question_the_beginning_and_the_end_are_read() {
    let embedder = embedder();
    let (before, after) = ("How do I return the oak table?", "Where do I send the parts?");
    let letter = |filling: &str| format!("{before} {} {after}", filling.repeat(400));
    let ask = async |text: String| {
        let asked = embedder
            .embed_query(Asker::Service, text)
            .await
            .expect("a vector");
        (asked.vectors.into_iter().next().expect("one"), asked.tokens)
    };
    let (about_rain, tokens) = ask(letter("It rains. ")).await;
    let (longer, _) = ask(letter("It rains. It rains. ")).await;
    let (without_end, _) = ask(format!("{before} {}", "It rains. ".repeat(400))).await;
    let (without_beginning, _) = ask(format!("{} {after}", "It rains. ".repeat(400))).await;

    assert_eq!(tokens, embedder.max_tokens() as u64);
    assert!(
        cosine(&about_rain, &longer) > 0.9999,
        "what stands between is not read"
    );
    for other in [without_end, without_beginning] {
        assert!(cosine(&about_rain, &other) < 0.999, "both ends are");
    }
}

#[tokio::test]
async fn models_of_the_family_are_computed_by_what_their_own_files_say() {
    #[derive(Deserialize)]
    struct Tiny {
        text: String,
        query: Vec<f32>,
        document: Vec<f32>,
    }
    for (name, dimension, prefixes) in [
        ("tiny-bert", 40, ("Represent this sentence for searching: ", "")),
        ("tiny-xlm-roberta", 48, ("query: ", "passage: ")),
    ] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
        let embedder = LocalEmbedder::load(&dir, LocalOptions::default()).expect("a usable model");
        let references = std::fs::read(dir.join("reference.json")).expect("the committed reference");
        let references: Vec<Tiny> = serde_json::from_slice(&references).expect("the committed reference");

        assert_eq!((embedder.model_id(), embedder.dimension()), (name, dimension));
        assert_eq!((embedder.query_prefix(), embedder.document_prefix()), prefixes);
        let texts = references.iter().map(|tiny| tiny.text.clone()).collect();
        let documents = embedder
            .embed_documents(Asker::Service, texts)
            .await
            .expect("vectors")
            .vectors;
        let mut whole = 0;
        for (tiny, document) in references.iter().zip(&documents) {
            let query = embedder
                .embed_query(Asker::Service, tiny.text.clone())
                .await
                .expect("a vector");
            let mut pairs = vec![(document, &tiny.document)];
            // Of a question that the model cannot read whole, other parts are read.
            let prefixed = format!("{}{}", prefixes.0, tiny.text);
            if query.tokens == embedder.count_tokens(&prefixed) as u64 {
                pairs.push((&query.vectors[0], &tiny.query));
                whole += 1;
            }
            for (found, wanted) in pairs {
                let agreement = cosine(found, wanted);
                assert!(agreement >= 0.9999, "{name}: {agreement} for {:?}", tiny.text);
            }
        }
        assert!(whole > 0, "{name}: no question is read whole");
    }
}

#[tokio::test]
async fn prefixes_can_be_set_where_a_models_files_are_silent() {
    let options = LocalOptions {
        query_prefix: Some("query: ".to_owned()),
        ..LocalOptions::default()
    };
    let prefixed = LocalEmbedder::load(model_dir(), options).expect("the model");
    let question = prefixed
        .embed_query(Asker::Service, "How long?".to_owned())
        .await
        .expect("a vector");
    let document = prefixed
        .embed_documents(Asker::Service, vec!["query: How long?".to_owned()])
        .await
        .expect("a vector");

    assert!(cosine(&question.vectors[0], &document.vectors[0]) > 0.999_999);
    assert_eq!(question.tokens, document.tokens, "what is read is counted");
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
        async move { embedder.embed_documents(Asker::Service, texts).await }
    });
    tokio::task::yield_now().await;

    for n in 0..3 {
        embedder
            .embed_query(Asker::Service, format!("question {n}"))
            .await
            .expect("a vector");
    }

    assert!(
        !bulk.is_finished(),
        "the questions were answered while the bulk went on"
    );
    assert_eq!(bulk.await.expect("no panic").expect("vectors").vectors.len(), 40);
}

/// How many threads this process has, and how many of them embed.
fn threads() -> (usize, usize) {
    let tasks = std::fs::read_dir("/proc/self/task")
        .expect("the system tells")
        .flatten();
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
    let names: Vec<String> = tasks.filter_map(name).collect();
    let embed = names.iter().filter(|name| name.starts_with("embed-"));
    (names.len(), embed.count())
}

#[test]
#[ignore = "runs as the child of a test of this file"]
fn child_that_embeds_with_three_threads() {
    run_child(async |_| {
        let (others, _) = threads();
        let three = LocalOptions {
            threads: 3,
            ..LocalOptions::default()
        };
        let embedder = LocalEmbedder::load(model_dir(), three).expect("the model");
        let texts = references().into_iter().map(|reference| reference.text);
        let (bulk, question) = tokio::join!(
            embedder.embed_documents(Asker::Service, texts.collect()),
            embedder.embed_query(Asker::Service, "When are tables oiled?".to_owned()),
        );
        assert_eq!(bulk.expect("vectors").vectors.len(), 200);
        question.expect("a vector");
        assert_eq!(threads(), (others + 3, 3), "no library brings threads of its own");
    });
}

#[tokio::test]
async fn as_many_threads_embed_as_are_asked_for_and_no_others() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let child = start_child("local_embedder::child_that_embeds_with_three_threads", dir.path());
    let ended = tokio::task::spawn_blocking(|| child.wait_with_output());
    let output = ended.await.expect("no panic").expect("an end");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[tokio::test]
async fn callers_who_go_away_leave_the_threads_working() {
    let embedder = embedder();
    for n in 0..20 {
        let query = embedder.embed_query(Asker::Service, format!("abandoned {n}"));
        drop(tokio::time::timeout(Duration::from_micros(n * 100), query).await);
        let bulk = embedder.embed_documents(Asker::Service, vec!["abandoned ".repeat(200); 50]);
        drop(tokio::time::timeout(Duration::from_micros(n * 100), bulk).await);
    }

    let many = join_all((0..20).map(|n| embedder.embed_query(Asker::Service, format!("question {n}")))).await;
    let bulk = embedder
        .embed_documents(Asker::Service, vec!["still".to_owned(), "here".to_owned()])
        .await;

    assert!(many.iter().all(Result::is_ok));
    assert_eq!(bulk.expect("vectors").vectors.len(), 2);
}

#[tokio::test]
async fn nothing_to_embed_is_nothing() {
    let embeddings = embedder()
        .embed_documents(Asker::Service, vec![])
        .await
        .expect("no vectors");

    assert_eq!((embeddings.vectors.len(), embeddings.tokens), (0, 0));
}

/// A copy of a small model, whose files a test may change.
fn tiny_copy() -> tempfile::TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny-bert");
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(dir.path().join("1_Pooling")).expect("made");
    for file in [
        "1_Pooling/config.json",
        "config.json",
        "config_sentence_transformers.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
    ] {
        std::fs::copy(from.join(file), dir.path().join(file)).expect("copied");
    }
    dir
}

fn fingerprint(dir: &Path, options: LocalOptions) -> String {
    let embedder = LocalEmbedder::load(dir, options).expect("a usable model");
    embedder.fingerprint().expect("a fingerprint").to_owned()
}

#[test]
fn a_fingerprint_tells_weights_tokenizer_pooling_prefix_and_precision_and_not_where_the_model_lies() {
    let (dir, plain) = (tiny_copy(), LocalOptions::default());
    let here = fingerprint(dir.path(), plain.clone());
    assert_eq!(fingerprint(tiny_copy().path(), plain.clone()), here);
    let int8 = LocalOptions {
        precision: Precision::Int8,
        ..plain.clone()
    };
    let prefixed = LocalOptions {
        document_prefix: Some("passage: ".to_owned()),
        ..plain.clone()
    };
    let mut all = vec![
        here,
        fingerprint(dir.path(), int8),
        fingerprint(dir.path(), prefixed),
    ];

    for (file, change) in [
        ("model.safetensors", last_byte as fn(Vec<u8>) -> Vec<u8>),
        ("tokenizer.json", space_at_the_end),
        ("1_Pooling/config.json", other_pooling),
    ] {
        let dir = tiny_copy();
        let path = dir.path().join(file);
        let bytes = std::fs::read(&path).expect("read");
        std::fs::write(&path, change(bytes)).expect("written");
        all.push(fingerprint(dir.path(), plain.clone()));
    }

    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count, "{all:?}");
}

fn last_byte(mut weights: Vec<u8>) -> Vec<u8> {
    *weights.last_mut().expect("weights") ^= 1;
    weights
}

fn space_at_the_end(mut json: Vec<u8>) -> Vec<u8> {
    json.push(b' ');
    json
}

fn other_pooling(_: Vec<u8>) -> Vec<u8> {
    br#"{ "pooling_mode": "mean" }"#.to_vec()
}

#[test]
fn a_directory_without_a_model_is_refused_by_the_file_that_is_missing_or_damaged() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let error = LocalEmbedder::load(dir.path(), LocalOptions::default())
        .err()
        .expect("there is no model");
    assert!(error.to_string().contains("tokenizer.json"), "{error}");

    for file in ["tokenizer.json", "config.json"] {
        std::fs::copy(model_dir().join(file), dir.path().join(file)).expect("copied");
    }
    std::fs::write(dir.path().join("model.safetensors"), b"damaged").expect("written");
    let error = LocalEmbedder::load(dir.path(), LocalOptions::default())
        .err()
        .expect("the weights are damaged");
    assert!(error.to_string().contains("model.safetensors"), "{error}");
}
