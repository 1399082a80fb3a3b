//! Who gets a shard of its own, and when it goes again.

use std::path::Path;
use std::time::{Duration, Instant};

use retrieval::index::{EmbeddedIndex, EmbeddedOptions, Index, Tuning};

use super::{
    MOVING, OUTGROWN, PATIENCE, await_nobody, await_stage, collection, open, own_dir, stages, write,
};
use crate::embedded_index::{opened, options};
use crate::samples::{DIMENSION, by_vector, by_words, chunk, found, hits, tenant, vector};

fn open_tuned(dir: &Path, tuning: Tuning) -> EmbeddedIndex {
    opened(|| EmbeddedIndex::open_tuned(options(dir), tuning))
}

/// So long that a move which is tried again every 50 ms would have come to its end.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_limit_tenants_stay_in_their_shared_shard_until_there_is_a_place() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tuning = Tuning {
        most_own_shards: 1,
        ..MOVING
    };
    let index = open_tuned(dir.path(), tuning);
    write(&index, 1, 0..OUTGROWN).await;
    await_stage(dir.path(), "settled").await;
    write(&index, 3, 0..OUTGROWN).await;
    a_while().await;

    assert!(!own_dir(dir.path(), 3).exists(), "{}", stages(dir.path()));
    assert_eq!(found(&index, tenant(3), by_words("w77")).await, [chunk(77)]);
    assert_eq!(
        hits(&index, tenant(3), by_vector(vector(78))).await[0].chunk_id,
        chunk(78)
    );
    index.delete_tenant(tenant(1)).await.expect("deleted");
    let give_up_at = Instant::now() + PATIENCE;
    let name = tenant(3).to_string();
    while !(stages(dir.path()).contains(&name) && stages(dir.path()).contains("settled")) {
        assert!(Instant::now() < give_up_at, "never: {}", stages(dir.path()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(index.count(tenant(3)).await.expect("a count"), OUTGROWN);
    index.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_on_the_disk_nobody_moves_and_with_room_the_move_is_made_up_for() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let full = Tuning {
        left_free_bytes: u64::MAX,
        ..MOVING
    };
    let index = open_tuned(dir.path(), full);
    write(&index, 1, 0..OUTGROWN).await;
    a_while().await;
    assert_eq!(stages(dir.path()), "", "nothing was begun");
    assert!(!own_dir(dir.path(), 1).exists());
    assert_eq!(found(&index, tenant(1), by_words("w77")).await, [chunk(77)]);
    index.close().await.expect("closed");

    let index = open(dir.path());
    await_stage(dir.path(), "settled").await;
    assert_eq!(index.count(tenant(1)).await.expect("a count"), OUTGROWN);
    index.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_tenant_that_empties_and_returns_at_once_loses_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let index = open(dir.path());
    for round in 0..3 {
        write(&index, 1, 0..OUTGROWN).await;
        await_stage(dir.path(), "settled").await;
        index.delete_tenant(tenant(1)).await.expect("deleted");
        // While its own shard goes.
        for n in 0..100 {
            write(&index, 1, n..n + 1).await;
            assert_eq!(
                found(&index, tenant(1), by_words(&format!("w{n}"))).await,
                [chunk(n.into())],
                "round {round}"
            );
            assert_eq!(
                index.count(tenant(1)).await.expect("a count"),
                n + 1,
                "round {round}"
            );
        }
        index.delete_tenant(tenant(1)).await.expect("deleted");
        await_nobody(dir.path()).await;
    }
    write(&index, 1, 0..50).await;
    index.close().await.expect("closed");

    let index = open(dir.path());
    assert_eq!(index.count(tenant(1)).await.expect("a count"), 50);
    index.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_nobody_is_in_any_more_is_removed_at_the_next_start() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let successor = || {
        EmbeddedIndex::open(EmbeddedOptions {
            dir: dir.path().to_owned(),
            model_id: Some("successor"),
            dimension: Some(DIMENSION),
            shards: 2,
            mends: true,
        })
        .expect("a new collection")
    };
    let index = open(dir.path());
    write(&index, 1, 0..100).await;
    write(&index, 2, 0..10).await;
    index.delete_tenant(tenant(1)).await.expect("deleted");
    index.close().await.expect("closed");

    successor().close().await.expect("closed");
    assert!(collection(dir.path()).exists(), "somebody is in it");
    let index = open(dir.path());
    assert_eq!(index.count(tenant(2)).await.expect("a count"), 10);
    index.delete_tenant(tenant(2)).await.expect("deleted");

    let next = successor();
    assert!(collection(dir.path()).exists(), "it is open");
    next.close().await.expect("closed");
    index.close().await.expect("closed");
    successor().close().await.expect("closed");

    assert!(!collection(dir.path()).exists());
    let index = open(dir.path());
    assert_eq!(
        index.count(tenant(2)).await.expect("a count"),
        0,
        "it is made anew"
    );
    index.close().await.expect("closed");
}
