//! What needs no server: how texts are put together, and what is told of failures.

use super::*;

#[test]
fn batches_respect_count_and_tokens() {
    let short: Vec<String> = vec!["word".to_owned(); 10];
    assert_eq!(into_batches(&short, 4), [0..4, 4..8, 8..10]);
    let long: Vec<String> = vec!["word ".repeat(REQUEST_TOKENS / 2); 3];
    assert_eq!(into_batches(&long, 100), [0..2, 2..3]);
    assert!(into_batches(&[], 4).is_empty());
    assert_eq!(into_batches(&short[..2], 0), [0..1, 1..2]);
}

#[test]
fn a_key_is_never_shown() {
    let options = OpenAiEmbedderOptions {
        protocol: Protocol::OpenAi,
        base_url: "http://localhost/v1".parse().expect("an address"),
        api_key: Some("sk-secret".to_owned()),
        model: "m".to_owned(),
        dimension: 3,
        batch_size: 8,
        timeout: Duration::from_secs(1),
        max_tokens: 100,
    };

    assert!(!format!("{options:?}").contains("secret"));
}

#[test]
fn what_was_answered_before_a_failure_is_counted() {
    let answered = |tokens, reported| {
        Ok(Embeddings {
            vectors: vec![vec![1.0]],
            tokens,
            reported,
        })
    };
    let failed = || {
        Err(EmbedError::Refused {
            reason: "enough".to_owned(),
        })
    };

    let whole = joined(vec![answered(3, true), answered(4, true)]).expect("all were answered");
    assert_eq!((whole.vectors.len(), whole.tokens, whole.reported), (2, 7, true));

    let broken = joined(vec![answered(3, true), failed(), answered(4, false)]).expect_err("one failed");
    assert_eq!(broken.spent(), (7, false));
    assert!(
        matches!(broken, EmbedError::Broken { cause, .. } if matches!(*cause, EmbedError::Refused { .. }))
    );

    let nothing = joined(vec![failed()]).expect_err("it failed");
    assert!(matches!(nothing, EmbedError::Refused { .. }));
}
