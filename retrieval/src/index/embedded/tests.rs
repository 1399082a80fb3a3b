//! What cannot be brought about from outside: failures between two steps of a move, and builds that do not end.

use std::fs;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::promotion::{Move, finish};
use super::writer::Writer;
use super::*;
use crate::index::Filter;

const DIMENSION: usize = 4;
const ACME: TenantId = TenantId(Uuid::from_u128(7));

/// Nobody moves by itself.
const STAYING: Tuning = Tuning {
    graph_from_kib: 1,
    exact_up_to_kib: 1,
    own_shard_from_chunks: u64::MAX,
    most_own_shards: 4,
    left_free_bytes: 0,
    moving_pause: Duration::ZERO,
    move_again_after: Duration::from_millis(50),
    optimise_after_points: 10,
    checkpoint_bytes: 100_000,
    log_most_bytes: 1_000_000,
    fresh_bytes: 100_000,
    engine_log_bytes_busy: 5 << 20,
    engine_log_bytes_idle: 5 << 20,
    deleted_kept_busy: Duration::ZERO,
    deleted_kept_idle: Duration::ZERO,
    deleting_beside: Duration::from_millis(200),
    longest_wait: Duration::from_secs(5),
    close_grace: Duration::from_millis(200),
};

/// The index that was let go of before may have work to end that holds the directory for a moment.
fn open(dir: &Path, tuning: Tuning) -> EmbeddedIndex {
    for _ in 0..200 {
        let options = EmbeddedOptions {
            dir: dir.to_owned(),
            model_id: Some("test"),
            dimension: Some(DIMENSION),
            shards: 1,
            mends: true,
        };
        match EmbeddedIndex::open_tuned(options, tuning) {
            Err(IndexError::InUse { .. }) => std::thread::sleep(Duration::from_millis(50)),
            index => return index.expect("a healthy directory"),
        }
    }
    panic!("the directory is never let go of");
}

fn points(numbers: std::ops::Range<u128>) -> Vec<Point> {
    let point = |n: u128| Point {
        chunk_id: ChunkId(Uuid::from_u128(n)),
        document_id: DocumentId(Uuid::from_u128(n / 10)),
        source_id: SourceId(Uuid::from_u128(1)),
        text: format!("text number w{n}"),
        vector: Some(vec![1.0, n as f32, 0.5, -1.0]),
        facets: Facets::default(),
    };
    numbers.map(point).collect()
}

fn a_move(index: &EmbeddedIndex) -> Move {
    let inner = index.inner.clone();
    Move {
        collection: inner.collection().expect("open"),
        shared: inner.shared_shard(ACME).expect("open").expect("a shard"),
        inner,
        tenant_id: ACME,
    }
}

fn builds_are_paused(shard: &Shard) -> bool {
    shard
        .on_writer(|writer| Ok(writer.builds_are_paused()))
        .expect("a writer")
}

/// Where the note of who has moved cannot be replaced.
fn obstruct_notes(dir: &Path) -> PathBuf {
    let obstacle = dir.join(format!("test-{DIMENSION}")).join("own-shards.new");
    fs::create_dir(&obstacle).expect("made");
    obstacle
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_that_fails_leaves_the_neighbours_graphs_going_and_is_done_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let index = open(dir.path(), STAYING);
    index.upsert(ACME, points(0..300)).await.expect("stored");
    let copy = a_move(&index);
    copy.run().expect("switched");
    let obstacle = obstruct_notes(dir.path());

    let swept = finish(&copy.inner, &copy.collection, &copy.shared, ACME, Ok(()));

    assert!(swept.is_err(), "it cannot be noted that it is done");
    let own = copy.inner.own_shard(ACME).expect("in service");
    assert!(!builds_are_paused(&copy.shared) && !builds_are_paused(&own));
    fs::remove_dir(obstacle).expect("removed");
    finish(&copy.inner, &copy.collection, &copy.shared, ACME, Ok(())).expect("swept");
    assert_eq!(copy.collection.stage(ACME), Some(Stage::Settled));
    assert_eq!(index.count(ACME).await.expect("a count"), 300);
    assert_eq!(copy.shared.count(ACME).expect("a count"), 0);
    index.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_in_service_stays_so_when_its_graphs_cannot_be_looked_at() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let index = open(dir.path(), STAYING);
    index.upsert(ACME, points(0..300)).await.expect("stored");
    let copy = a_move(&index);
    copy.run().expect("switched");
    let own = copy.inner.own_shard(ACME).expect("in service");
    // Its writer is gone.
    own.close();

    finish(&copy.inner, &copy.collection, &copy.shared, ACME, Ok(())).expect("swept");

    assert!(copy.inner.own_shard(ACME).is_some());
    let refused = index.upsert(ACME, points(300..301)).await;
    assert!(
        refused.is_err(),
        "nothing is acknowledged that its own shard does not have"
    );
    index.close().await.expect("closed");
    // Whoever has a shard has the directory.
    drop((own, copy));
    let index = open(dir.path(), STAYING);
    assert_eq!(index.count(ACME).await.expect("a count"), 300);
    index.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_while_the_words_are_copied_comes_after_them() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let index = open(dir.path(), STAYING);
    index.upsert(ACME, points(0..300)).await.expect("stored");
    let copy = a_move(&index);
    let words = copy.take_down().expect("where they lie");
    let gone = (0..10).map(|n| ChunkId(Uuid::from_u128(n))).collect();
    index.delete_chunks(ACME, gone).await.expect("deleted");
    index
        .upsert(ACME, points(290..320))
        .await
        .expect("replaced and stored");

    let own = copy.make(&words).expect("made");
    copy.fill(&own)
        .and_then(|()| copy.switch(&own))
        .expect("switched");
    finish(&copy.inner, &copy.collection, &copy.shared, ACME, Ok(())).expect("swept");

    let listed = index.list(ACME, None, 1_000).await.expect("a list");
    let expected: Vec<ChunkId> = (10..320).map(|n| ChunkId(Uuid::from_u128(n))).collect();
    let ids: Vec<ChunkId> = listed.iter().map(|point| point.chunk_id).collect();
    assert_eq!(ids, expected);
    let whole = points(10..320).into_iter().zip(&listed);
    assert!(
        whole
            .into_iter()
            .all(|(point, listed)| point.fingerprint() == listed.fingerprint)
    );
    index.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_large_tenant_wrote_has_graphs_once_it_is_quiet() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let moving = Tuning {
        graph_from_kib: 4,
        own_shard_from_chunks: 200,
        ..STAYING
    };
    // What is smaller, 1 KiB of vectors at half precision in a shard of its own, has no graph.
    let without_graph = 1_024 / (DIMENSION * 2);
    let index = open(dir.path(), moving);
    index.upsert(ACME, points(0..2_000)).await.expect("stored");
    let give_up_at = Instant::now() + Duration::from_secs(60);
    let own = loop {
        if let Some(own) = index.inner.own_shard(ACME) {
            break own;
        }
        assert!(Instant::now() < give_up_at, "never moved");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };

    // Less than would be built while it is written.
    index.upsert(ACME, points(2_000..2_300)).await.expect("stored");

    let left = || own.state().read(|sides| Ok(sides.without_graph()));
    while left().expect("a count") >= without_graph {
        assert!(Instant::now() < give_up_at, "{:?} of 2,300 have none", left());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(own);
    assert_eq!(index.count(ACME).await.expect("a count"), 2_300);
    index.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_waits_no_longer_than_it_may_for_the_graphs_of_a_move() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let moving = Tuning {
        own_shard_from_chunks: 100,
        ..STAYING
    };
    let index = open(dir.path(), moving);
    // A build that does not end.
    let one_own_build = index.inner.one_own_build.clone();
    let (end, ended) = mpsc::channel::<()>();
    let (begin, begun) = mpsc::channel();
    let building = thread::spawn(move || {
        let _turn = lock(&one_own_build);
        begin.send(()).expect("somebody waits");
        ended.recv().expect_err("only ever dropped");
    });
    begun.recv().expect("it builds");
    index.upsert(ACME, points(0..300)).await.expect("stored");
    let give_up_at = Instant::now() + Duration::from_secs(30);
    while index.inner.collection().expect("open").stage(ACME) != Some(Stage::Moving) {
        assert!(Instant::now() < give_up_at, "never on its way");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    let started = Instant::now();
    index.close().await.expect("closed");

    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    drop(end);
    building.join().expect("it ends");
    let give_up_at = Instant::now() + Duration::from_secs(30);
    drop(index);
    loop {
        let options = EmbeddedOptions {
            dir: dir.path().to_owned(),
            model_id: Some("test"),
            dimension: Some(DIMENSION),
            shards: 1,
            mends: true,
        };
        match EmbeddedIndex::open_tuned(options, moving) {
            Ok(index) => {
                assert_eq!(index.count(ACME).await.expect("a count"), 300);
                return index.close().await.expect("closed");
            }
            Err(error) => assert!(Instant::now() < give_up_at, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_cannot_be_written_down_keeps_no_other_from_being_closed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = EmbeddedOptions {
        dir: dir.path().to_owned(),
        model_id: Some("test"),
        dimension: Some(DIMENSION),
        shards: 4,
        mends: true,
    };
    let tenants = (0..4).map(|n| TenantId(Uuid::from_u128(n)));
    let index = EmbeddedIndex::open_tuned(options.clone(), STAYING).expect("a healthy directory");
    for tenant_id in tenants.clone() {
        index.upsert(tenant_id, points(0..20)).await.expect("stored");
    }
    let shard = |n: usize| dir.path().join(format!("test-{DIMENSION}/shard-{n}"));
    fs::remove_dir_all(shard(1).join("vectors/segments")).expect("removed");

    index.close().await.expect("closed");

    for n in [0, 2, 3] {
        let log = fs::metadata(shard(n).join("redo.log")).expect("a redo log");
        assert_eq!(log.len(), 0, "shard {n} was written down");
    }
    let index = EmbeddedIndex::open_tuned(options, STAYING).expect("nobody has the directory");
    for tenant_id in tenants {
        assert_eq!(index.count(tenant_id).await.expect("a count"), 20);
    }
    index.close().await.expect("closed");
}

#[test]
fn a_search_keeps_its_place_until_it_ends_though_nobody_waits_for_it() {
    let one_at_a_time = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .expect("a runtime");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tuning = Tuning {
        longest_wait: Duration::from_millis(20),
        ..STAYING
    };
    let index = open(dir.path(), tuning);
    let query = || SearchQuery {
        text: "text".to_owned(),
        vector: None,
        filter: Filter {
            sources: vec![SourceId(Uuid::from_u128(1))],
            ..Filter::default()
        },
        limit: 10,
        languages: Vec::new(),
    };
    one_at_a_time.block_on(async {
        index.upsert(ACME, points(0..10)).await.expect("stored");
        let (let_go, held) = mpsc::channel::<()>();
        let slow = spawn_blocking(move || held.recv());

        // As many as it may have at once, all of them behind what is slow.
        let cores = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..cores {
            let mut search = index.search(ACME, query());
            assert!(futures::poll!(&mut search).is_pending());
        }
        let refused = index.search(ACME, query()).await.expect_err("no place");
        assert!(refused.to_string().contains("wait for their turn"), "{refused}");

        let_go.send(()).expect("it waits");
        slow.await.expect("an end").expect("it was let go");
        let found = index.search(ACME, query()).await.expect("a place again");
        assert_eq!(found.hits.len(), 10);
        index.close().await.expect("closed");
    });
}

/// The number of the last of the files of words.
fn last_segment(shard: &Shard) -> u64 {
    let words = fs::read_dir(shard.state().dir().join("keywords")).expect("a folder");
    let number = |path: PathBuf| {
        let is_segment = path.extension().is_some_and(|extension| extension == "segment");
        is_segment.then(|| path.file_stem()?.to_str()?.parse().ok())?
    };
    words
        .flatten()
        .filter_map(|entry| number(entry.path()))
        .max()
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_forget_once_builds_may_begin_and_until_then_nothing_is_written_for_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let kept_for = Duration::from_millis(100);
    let keeping = Tuning {
        deleted_kept_busy: kept_for,
        deleted_kept_idle: kept_for,
        ..STAYING
    };
    let index = open(dir.path(), keeping);
    index.upsert(ACME, points(0..100)).await.expect("stored");
    let shard = index.inner.shared_shard(ACME).expect("open").expect("a shard");
    let note = shard.state().dir().join("deleted");
    let pause = |writer: &mut Writer| {
        writer.pause_builds();
        Ok(())
    };
    shard.on_writer(pause).expect("paused");
    // As a move does.
    while shard.state().is_building() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!note.exists());

    index
        .delete_documents(ACME, vec![DocumentId(Uuid::from_u128(3))])
        .await
        .expect("deleted");
    let before = last_segment(&shard);
    tokio::time::sleep(kept_for).await;
    for n in 100..140 {
        index.upsert(ACME, points(n..n + 1)).await.expect("stored");
    }

    assert!(note.exists());
    assert!(
        last_segment(&shard) < before + 20,
        "{} after {before}",
        last_segment(&shard)
    );
    let resume = |writer: &mut Writer| {
        writer.resume_builds();
        Ok(())
    };
    shard.on_writer(resume).expect("resumed");
    // Another tenant moves at once.
    shard.on_writer(pause).expect("paused");
    let give_up_at = Instant::now() + Duration::from_secs(60);
    while note.exists() {
        assert!(Instant::now() < give_up_at, "the files never forget");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(index.count(ACME).await.expect("a count"), 130);
    index.close().await.expect("closed");
}

#[test]
fn a_shard_whose_writer_waits_for_a_build_can_be_closed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let never_without = Tuning {
        log_most_bytes: 0,
        ..STAYING
    };
    let index = open(dir.path(), never_without);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let stored = runtime.block_on(index.upsert(ACME, points(0..10)));
    stored.expect("stored");
    let shard = index.inner.shared_shard(ACME).expect("open").expect("a shard");
    let building = shard.state().maintenance();
    let change = Change::DeleteTenant;
    drop(shard.submit(Operation {
        tenant_id: ACME,
        change,
    }));

    shard.close();

    drop(building);
}
