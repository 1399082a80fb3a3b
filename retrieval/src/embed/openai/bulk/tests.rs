//! What needs no server: how texts are put together, and what is told of failures.

use std::time::Duration;

use super::super::BULK_REQUESTS_AT_ONCE;
use super::super::pace::REQUEST_TOKENS;
use super::super::tests::options;
use super::*;
use crate::embed::{Asker, Embedder as _};

#[test]
fn batches_respect_count_and_tokens() {
    let short: Vec<String> = vec!["word".to_owned(); 10];
    assert_eq!(into_batches(&short, 4, REQUEST_TOKENS), [0..4, 4..8, 8..10]);
    let long: Vec<String> = vec!["word ".repeat(REQUEST_TOKENS / 2); 3];
    assert_eq!(into_batches(&long, 100, REQUEST_TOKENS), [0..2, 2..3]);
    assert!(into_batches(&[], 4, REQUEST_TOKENS).is_empty());
    assert_eq!(into_batches(&short[..2], 0, REQUEST_TOKENS), [0..1, 1..2]);
    assert_eq!(into_batches(&short[..2], 4, 1), [0..1, 1..2]);
}

fn answered(range: Range<usize>, tokens: u64, reported: bool) -> Part {
    let vectors = range.clone().map(|place| vec![place as f32]).collect();
    Part {
        range,
        came_to: Ok(Embeddings {
            vectors,
            tokens,
            reported,
        }),
    }
}

fn failed(range: Range<usize>, of_texts: bool) -> Part {
    let error = EmbedError::Refused {
        reason: format!("enough of {range:?}"),
    };
    Part {
        range,
        came_to: Err(Failure {
            of_texts,
            ..error.into()
        }),
    }
}

fn join(texts: usize, parts: Vec<Part>) -> Result<Embeddings, EmbedError> {
    joined(texts, parts.into_iter())
}

#[test]
fn what_was_answered_beside_a_failure_is_kept_and_counted() {
    let whole = join(2, vec![answered(0..1, 3, true), answered(1..2, 4, true)]).expect("all were answered");
    assert_eq!((whole.vectors.len(), whole.tokens, whole.reported), (2, 7, true));

    let parts = vec![
        answered(0..1, 3, true),
        failed(1..3, false),
        answered(3..4, 4, false),
    ];
    let mut broken = join(4, parts).expect_err("one failed");
    assert_eq!(broken.spent(), (7, false));
    let kept = broken.take_answered();
    assert_eq!(kept, [Some(vec![0.0]), None, None, Some(vec![3.0])]);

    let nothing = join(1, vec![failed(0..1, false)]).expect_err("it failed");
    assert!(matches!(nothing, EmbedError::Refused { .. }));
}

#[test]
fn a_failure_of_the_server_says_more_than_one_of_a_text() {
    let parts = vec![failed(0..1, true), answered(1..2, 1, true), failed(2..3, false)];

    let Err(EmbedError::Broken { answered, cause }) = join(3, parts) else {
        panic!("two failed");
    };

    assert_eq!(answered.refused, [0]);
    assert!(cause.to_string().contains("2..3"), "{cause}");
}

#[tokio::test]
async fn a_call_ends_in_time_however_long_others_hold_all_places() {
    let embedder = OpenAiEmbedder {
        longest_bulk: Duration::from_millis(50),
        ..OpenAiEmbedder::new(options()).expect("an address")
    };
    let _others = embedder
        .bulk_places
        .acquire_many(BULK_REQUESTS_AT_ONCE as u32)
        .await
        .expect("nobody else");

    let error = embedder
        .embed_documents(Asker::Service, vec!["one".to_owned(), "two".to_owned()])
        .await
        .expect_err("its time is up");

    assert!(matches!(error, EmbedError::Unavailable { .. }), "{error}");
    assert!(!error.may_have_cost(), "nothing was asked");
}
