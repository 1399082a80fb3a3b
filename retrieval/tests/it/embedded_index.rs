//! The embedded index: the rules of all backends, and what is its own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use retrieval::index::{EmbeddedIndex, EmbeddedOptions, Index, IndexError, Point, SearchQuery, Tuning};

use crate::conformance;
use crate::samples::{DIMENSION, by_vector, by_words, chunk, document, found, point, source, tenant, vector};

/// As often a directory is tried that is in use.
const MOMENTS: usize = 1_000;

pub(crate) fn open(dir: &Path) -> EmbeddedIndex {
    opened(|| try_open(dir))
}

/// What opens a healthy directory. The index that was let go of before may have work to end that holds it for a moment.
pub(crate) fn opened(open: impl Fn() -> Result<EmbeddedIndex, IndexError>) -> EmbeddedIndex {
    for _ in 0..MOMENTS {
        match open() {
            Err(IndexError::InUse { .. }) => std::thread::sleep(Duration::from_millis(50)),
            index => return index.expect("a healthy directory"),
        }
    }
    panic!("the directory is never let go of");
}

pub(crate) fn try_open(dir: &Path) -> Result<EmbeddedIndex, IndexError> {
    EmbeddedIndex::open(options(dir))
}

pub(crate) fn options(dir: &Path) -> EmbeddedOptions<'static> {
    EmbeddedOptions {
        dir: dir.to_owned(),
        model_id: Some("test-model"),
        dimension: Some(DIMENSION),
        shards: 2,
        mends: true,
    }
}

fn open_keyword_only(dir: &Path) -> EmbeddedIndex {
    EmbeddedIndex::open(EmbeddedOptions {
        dir: dir.to_owned(),
        model_id: None,
        dimension: None,
        shards: 2,
        mends: true,
    })
    .expect("a healthy directory")
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_rules_of_all_backends() {
    let dir = tempfile::tempdir().expect("a temporary directory");

    conformance::all(Arc::new(open(dir.path()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_is_there_after_reopening() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for round in 0..5 {
        let index = open(dir.path());
        assert_eq!(index.count(tenant(1)).await.expect("a count"), round);
        index
            .upsert(tenant(1), vec![point(round, "kept over restarts")])
            .await
            .expect("stored");
        index
            .upsert(tenant(1), vec![point(0, "the newest text")])
            .await
            .expect("replaced");
        index.close().await.expect("closed");
    }

    let index = open(dir.path());
    assert_eq!(found(&index, tenant(1), by_words("newest")).await, [chunk(0)]);
    assert_eq!(found(&index, tenant(1), by_words("restarts")).await.len(), 4);
    assert_eq!(found(&index, tenant(1), by_vector(vector(3))).await[0], chunk(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_told_that_the_directory_is_in_use() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let first = open(dir.path());
    first
        .upsert(tenant(1), vec![point(1, "mine")])
        .await
        .expect("stored");

    let second = try_open(dir.path()).err().expect("the first one has it");
    assert!(matches!(second, IndexError::InUse { .. }), "{second}");

    first.close().await.expect("closed");
    assert_eq!(open(dir.path()).count(tenant(1)).await.expect("a count"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_lacks_a_part_is_never_taken_for_an_empty_one() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let collection = dir.path().join(format!("test-model-{DIMENSION}"));
    let fill = async |index: &EmbeddedIndex| {
        for n in 1..5 {
            let stored = index
                .upsert(tenant(n), vec![point(1, "kept in two shards")])
                .await;
            stored.expect("stored");
        }
    };
    let index = open(dir.path());
    fill(&index).await;
    index.close().await.expect("closed");
    let mut name = index_name(&collection);

    for shard in ["shard-0", "shard-1"] {
        for part in [
            "",
            "keywords",
            "keywords/manifest.json",
            "vectors",
            "vectors/segments",
            "redo.log",
        ] {
            let lost = collection.join(shard).join(part);
            match lost.is_dir() {
                true => std::fs::remove_dir_all(&lost).expect("removed"),
                false => std::fs::remove_file(&lost).expect("removed"),
            }

            let index = open(dir.path());

            let anew = index.generation().expect("a name");
            assert_ne!(anew, name, "{shard}/{part}");
            fill(&index).await;
            for n in 1..5 {
                assert_eq!(found(&index, tenant(n), by_words("kept")).await, [chunk(1)]);
                assert_eq!(found(&index, tenant(n), by_vector(vector(1))).await, [chunk(1)]);
                assert_eq!(index.count(tenant(n)).await.expect("a count"), 1);
            }
            index.close().await.expect("closed");
            assert_eq!(open_and_close(dir.path()).await, anew, "whole again");
            name = anew;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_part_leaves_goes_on_answering() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let collection = dir.path().join(format!("test-model-{DIMENSION}"));
    let index = open(dir.path());
    index
        .upsert(tenant(1), vec![point(1, "kept by its words")])
        .await
        .expect("stored");
    index.close().await.expect("closed");
    for shard in ["shard-0", "shard-1"] {
        let vectors = collection.join(shard).join("vectors");
        if vectors.exists() {
            std::fs::remove_dir_all(vectors).expect("removed");
        }
    }

    let index = open(dir.path());

    assert_eq!(found(&index, tenant(1), by_words("kept")).await, [chunk(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_a_version_that_noted_no_shards_is_taken_over_as_it_is() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let manifest = dir.path().join(format!("test-model-{DIMENSION}/manifest.json"));
    let read = || -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(&manifest).expect("the manifest")).expect("JSON")
    };
    let index = open(dir.path());
    for n in 1..5 {
        let stored = index.upsert(tenant(n), vec![point(1, "from earlier")]).await;
        stored.expect("stored");
    }
    let name = index.generation().expect("a name");
    index.close().await.expect("closed");
    let noted = read();
    let mut earlier = noted.clone();
    earlier
        .as_object_mut()
        .expect("an object")
        .remove("made")
        .expect("noted");
    std::fs::write(&manifest, earlier.to_string()).expect("written");

    let again = open_and_close(dir.path()).await;

    assert_eq!(again, name);
    assert_eq!(read(), noted, "from now on they are missed");
}

/// The name of the collection as it is opened.
async fn open_and_close(dir: &Path) -> String {
    let index = open(dir);
    let name = index.generation().expect("a name");
    index.close().await.expect("closed");
    name
}

fn index_name(collection: &Path) -> String {
    std::fs::read_to_string(collection.join("generation")).expect("a name")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_index_makes_no_shards() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let index = open(dir.path());
    index.delete_tenant(tenant(1)).await.expect("nothing to do");
    assert_eq!(found(&index, tenant(1), by_words("anything")).await, []);

    let shards = std::fs::read_dir(dir.path().join(format!("test-model-{DIMENSION}")))
        .expect("the collection")
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("shard"));
    assert_eq!(shards.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_model_it_finds_by_words_and_refuses_vectors() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let index = open_keyword_only(dir.path());
    let wordy = |n, text| Point {
        vector: None,
        ..point(n, text)
    };
    index
        .upsert(
            tenant(1),
            vec![wordy(1, "opening hours"), wordy(2, "delivery times")],
        )
        .await
        .expect("stored");

    assert_eq!(
        found(&index, tenant(1), by_words("when is it open? opening")).await,
        [chunk(1)]
    );
    let stored = index.upsert(tenant(1), vec![point(3, "with a vector")]).await;
    assert!(matches!(stored, Err(IndexError::Refused { .. })));
    let asked = index.search(tenant(1), by_vector(vector(1))).await;
    assert!(matches!(asked, Err(IndexError::Refused { .. })));

    index.close().await.expect("closed");
    let index = open_keyword_only(dir.path());
    assert_eq!(found(&index, tenant(1), by_words("delivery")).await, [chunk(2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_models_have_two_collections_in_one_directory() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (vectors, words) = (open(dir.path()), open_keyword_only(dir.path()));
    vectors
        .upsert(tenant(1), vec![point(1, "both sides")])
        .await
        .expect("stored");

    assert_eq!(words.count(tenant(1)).await.expect("a count"), 0);
    assert_eq!(vectors.count(tenant(1)).await.expect("a count"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_goes_away_leaves_a_working_index() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let index = open(dir.path());
    for n in 0..50 {
        let upsert = index.upsert(tenant(1), vec![point(n, "asked and gone")]);
        drop(tokio::time::timeout(Duration::from_micros(n * 40), upsert).await);
        let search = index.search(tenant(1), by_words("gone"));
        drop(tokio::time::timeout(Duration::from_micros(n * 10), search).await);
    }

    index
        .upsert(tenant(1), vec![point(99, "still present")])
        .await
        .expect("stored");
    assert_eq!(found(&index, tenant(1), by_words("present")).await, [chunk(99)]);
}

/// So small that graphs, merges, checkpoints and re-openings all happen within a test.
pub(crate) const SMALL: Tuning = Tuning {
    graph_from_kib: 40,
    exact_up_to_kib: 10,
    own_shard_from_chunks: u64::MAX,
    most_own_shards: 100,
    left_free_bytes: 0,
    moving_pause: Duration::from_millis(2),
    move_again_after: Duration::from_millis(50),
    optimise_after_points: 150,
    checkpoint_bytes: 100_000,
    log_most_bytes: 1_000_000,
    fresh_bytes: 100_000,
    deleted_kept_busy: Duration::ZERO,
    deleted_kept_idle: Duration::ZERO,
    deleting_beside: Duration::from_millis(200),
    longest_wait: Duration::from_secs(60),
    engine_log_bytes_busy: 5 << 20,
    engine_log_bytes_idle: 5 << 20,
    close_grace: Duration::from_secs(60),
};

pub(crate) fn open_small(dir: &Path) -> EmbeddedIndex {
    opened(|| EmbeddedIndex::open_tuned(options(dir), SMALL))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_hold_while_everything_is_tidied_up_all_the_time() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let small = Tuning {
        graph_from_kib: 1 << 20,
        ..SMALL
    };
    let index = EmbeddedIndex::open_tuned(options(dir.path()), small).expect("a healthy directory");

    conformance::all(Arc::new(index)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_hold_while_tenants_move_to_shards_of_their_own() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let moving = Tuning {
        graph_from_kib: 1 << 20,
        own_shard_from_chunks: 3,
        ..SMALL
    };
    let index = EmbeddedIndex::open_tuned(options(dir.path()), moving).expect("a healthy directory");

    conformance::all(Arc::new(index)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graphs_are_built_behind_the_searches_and_find_the_nearest() {
    const POINTS: u64 = 6_000;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let index = open_small(dir.path());
    let in_one_source = |n| Point {
        source_id: source(1),
        ..point(n, "")
    };
    for start in (0..POINTS).step_by(500) {
        index
            .upsert(tenant(1), (start..start + 500).map(in_one_source).collect())
            .await
            .expect("stored");
        index
            .upsert(tenant(1), vec![in_one_source(start / 2)])
            .await
            .expect("replaced, in a graph or not");
        let nearest = SearchQuery {
            limit: 1,
            ..by_vector(vector(start))
        };
        assert_eq!(
            found(&index, tenant(1), nearest).await,
            [chunk(start.into())],
            "while graphs are built"
        );
    }
    index
        .delete_documents(tenant(1), (0..100).map(document).collect())
        .await
        .expect("deleted");

    let recall = async |index: &EmbeddedIndex| {
        let mut met = 0;
        for question in 0..50 {
            let asked = vector(1_000_000 + question);
            let mut nearest: Vec<(f32, u64)> = (1_000..POINTS)
                .map(|n| (vector(n).iter().zip(&asked).map(|(a, b)| a * b).sum(), n))
                .collect();
            nearest.sort_by(|a, b| b.0.total_cmp(&a.0));
            let hits = found(index, tenant(1), by_vector(asked)).await;
            met += nearest[..10]
                .iter()
                .filter(|(_, n)| hits.contains(&chunk((*n).into())))
                .count();
        }
        met as f64 / 500.0
    };
    let before = recall(&index).await;
    assert!(before >= 0.98, "recall@10 of {before}");
    assert_eq!(index.count(tenant(1)).await.expect("a count"), POINTS - 1_000);
    index.close().await.expect("closed");
    assert!(
        has_graph(dir.path()),
        "no graph was built: the test measures nothing"
    );

    let index = open_small(dir.path());
    let after = recall(&index).await;
    assert!(after >= 0.98, "recall@10 of {after} after reopening");
    assert_eq!(index.count(tenant(1)).await.expect("a count"), POINTS - 1_000);
}

/// Whether some segment's files hold a graph.
pub(crate) fn has_graph(dir: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return false;
    };
    entries.flatten().any(|entry| {
        let is_graph =
            entry.file_name().to_string_lossy().starts_with("graph") || entry.file_name() == "links.bin";
        is_graph || has_graph(&entry.path())
    })
}
