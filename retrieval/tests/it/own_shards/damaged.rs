//! A damaged shard of a tenant's own is nobody else's concern.

use std::fs;

use retrieval::index::EmbeddedIndex;

use super::*;

/// An index where tenant 1 has a shard of its own, and tenant 3 is in the shared one that it came from.
async fn with_an_own_shard(dir: &Path) -> String {
    let index = open(dir);
    write(&index, 3, 0..50).await;
    write(&index, 1, 0..OUTGROWN).await;
    await_stage(dir, "settled").await;
    let name = index.generation().expect("a name");
    index.close().await.expect("closed");
    name
}

async fn has_all(index: &EmbeddedIndex) -> bool {
    index.count(tenant(1)).await.expect("a count") == OUTGROWN
        && found(index, tenant(1), by_words("w7")).await == [chunk(7)]
        && found(index, tenant(1), by_vector(vector(7))).await[0] == chunk(7)
}

fn concerns(index: &EmbeddedIndex, since: &str) -> [bool; 2] {
    [1, 3].map(|n| index.has_lost(tenant(n), since))
}

#[tokio::test(flavor = "multi_thread")]
async fn its_tenant_is_back_in_the_shared_one_and_moves_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let before = with_an_own_shard(dir.path()).await;
    let own = own_dir(dir.path(), 1);
    fs::write(own.join("keywords/manifest.json"), "").expect("written");

    let index = open(dir.path());

    assert_eq!(concerns(&index, &before), [true, false]);
    assert_eq!(index.count(tenant(1)).await.expect("a count"), 0);
    assert_eq!(found(&index, tenant(3), by_words("w7")).await, [chunk(7)]);
    assert!(own.with_extension("damaged").is_dir() && !own.exists());
    write(&index, 1, 0..OUTGROWN).await;
    await_stage(dir.path(), "settled").await;
    assert!(has_all(&index).await);
    index.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_vectors_it_goes_on_by_words() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let before = with_an_own_shard(dir.path()).await;
    for segment in fs::read_dir(own_dir(dir.path(), 1).join("vectors/segments"))
        .expect("segments")
        .flatten()
    {
        fs::write(segment.path().join("version.info"), "").expect("written");
    }

    let index = open(dir.path());

    assert_eq!(concerns(&index, &before), [true, false]);
    assert_eq!(found(&index, tenant(1), by_words("w7")).await, [chunk(7)]);
    assert_eq!(found(&index, tenant(1), by_vector(vector(7))).await, []);
    write(&index, 1, 0..OUTGROWN).await;
    assert!(has_all(&index).await);
    index.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_can_read_who_has_one_the_folders_tell() {
    for unreadable in [Some("}"), Some(""), None] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let before = with_an_own_shard(dir.path()).await;
        let notes = collection(dir.path()).join("own-shards.json");
        match unreadable {
            Some(text) => fs::write(&notes, text).expect("written"),
            None => fs::remove_file(&notes).expect("removed"),
        }

        let index = open(dir.path());

        assert_eq!(concerns(&index, &before), [true, false], "{unreadable:?}");
        assert!(has_all(&index).await, "{unreadable:?}: it goes on answering");
        await_stage(dir.path(), "settled").await;
        index.close().await.expect("closed");
        let index = open(dir.path());
        assert!(has_all(&index).await, "{unreadable:?}");
        index.close().await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_shared_shard_is_no_concern_of_who_has_left_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let before = with_an_own_shard(dir.path()).await;
    fs::write(collection(dir.path()).join("shard-1/keywords/manifest.json"), "").expect("written");

    let index = open(dir.path());

    assert_eq!(concerns(&index, &before), [false, true]);
    assert!(has_all(&index).await);
    index.close().await.expect("closed");
}
