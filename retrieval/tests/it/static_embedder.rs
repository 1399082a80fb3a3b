//! Static models: what the distillation of a model writes, and what the embedder makes of it.

use std::path::{Path, PathBuf};

use retrieval::embed::{
    Asker, DistillError, Embedder, LocalEmbedder, LocalOptions, Precision, StaticEmbedder, distill,
};

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tiny-bert")
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[tokio::test]
async fn a_distilled_model_embeds_by_the_words_of_a_text() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let target = dir.path().join("small");
    let mut last = (0, 1);
    let made = distill(&tiny(), &target, 12, |done, all| last = (done, all)).expect("distilled");
    assert_eq!((made.dimension, last), (12, (made.tokens, made.tokens)));

    for precision in [Precision::F32, Precision::Int8] {
        let embedder = StaticEmbedder::load(&target, 1, precision).expect("usable");
        assert_eq!((embedder.model_id(), embedder.dimension()), ("small", 12));
        let texts = [
            "Hunde sind willkommen",
            "willkommen sind Hunde",
            "Can I change the delivery address?",
            "",
        ];
        let texts: Vec<String> = texts.map(str::to_owned).to_vec();
        let embeddings = embedder
            .embed_documents(Asker::Service, texts.clone())
            .await
            .expect("vectors");

        let vectors = &embeddings.vectors;
        assert!(
            vectors
                .iter()
                .all(|vector| (cosine(vector, vector) - 1.0).abs() < 1e-5),
            "unit length"
        );
        assert!(
            cosine(&vectors[0], &vectors[1]) > 0.999,
            "the order of words has no influence"
        );
        assert!(cosine(&vectors[0], &vectors[2]) < 0.9, "the words have");
        let question = embedder
            .embed_query(Asker::Service, texts[0].clone())
            .await
            .expect("a vector");
        assert_eq!(question.vectors[0], vectors[0]);
        let tokens: usize = texts.iter().map(|text| embedder.count_tokens(text)).sum();
        assert_eq!(embeddings.tokens, tokens as u64);
    }
}

#[test]
fn what_cannot_be_distilled_or_loaded_is_refused_and_nothing_is_left() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let target = dir.path().join("small");
    let distilled = |model: &Path, target: &Path, dimension| distill(model, target, dimension, |_, _| {});

    assert!(matches!(
        distilled(&tiny(), dir.path(), 8),
        Err(DistillError::Exists { .. })
    ));
    for dimension in [0, 41] {
        let refused = distilled(&tiny(), &target, dimension);
        assert!(
            matches!(refused, Err(DistillError::Dimension { largest: 40 })),
            "{refused:?}"
        );
    }
    assert!(matches!(
        distilled(dir.path(), &target, 8),
        Err(DistillError::Load(_))
    ));
    assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 0);

    let wrong_kind = StaticEmbedder::load(&tiny(), 1, Precision::F32)
        .err()
        .expect("an encoder");
    assert!(wrong_kind.to_string().contains("models distill"), "{wrong_kind}");
    distilled(&tiny(), &target, 8).expect("distilled");
    let wrong_kind = LocalEmbedder::load(&target, LocalOptions::default())
        .err()
        .expect("no encoder");
    assert!(wrong_kind.to_string().contains("config.json"), "{wrong_kind}");
}
