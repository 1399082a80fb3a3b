//! Tenants that outgrow the shared shards of the embedded index: nobody notices that they move, whatever happens meanwhile.

mod damaged;
mod narrow;
mod places;
mod recall;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use retrieval::ChunkId;
use retrieval::index::{EmbeddedIndex, Facets, Index, Point, Tuning};

use crate::child::{acknowledge, acknowledged, run_child, start_child};
use crate::embedded_index::{SMALL, has_graph, opened, options};
use crate::samples::{
    DIMENSION, by_vector, by_words, chunk, document, found, hits, point, source, tenant, vector,
};

const OUTGROWN: u64 = 1_000;

const MOVING: Tuning = Tuning {
    own_shard_from_chunks: OUTGROWN,
    ..SMALL
};

/// Longest wait for a move to come to its end.
const PATIENCE: Duration = Duration::from_secs(120);

fn open(dir: &Path) -> EmbeddedIndex {
    opened(|| EmbeddedIndex::open_tuned(options(dir), MOVING))
}

/// What the collection says of its tenants' shards; empty where nobody has moved.
fn stages(dir: &Path) -> String {
    std::fs::read_to_string(collection(dir).join("own-shards.json")).unwrap_or_default()
}

fn own_dir(dir: &Path, n: u128) -> PathBuf {
    collection(dir).join(format!("tenant-{}", tenant(n)))
}

async fn await_stage(dir: &Path, stage: &str) {
    let give_up_at = Instant::now() + PATIENCE;
    while !stages(dir).contains(stage) {
        assert!(Instant::now() < give_up_at, "never {stage}: {}", stages(dir));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// In one of ten sources, so that all of them are among [`all_sources`].
fn own_point(n: u64) -> Point {
    Point {
        source_id: source(u128::from(n % 10)),
        ..point(n, &format!("text number w{n}"))
    }
}

async fn write(index: &dyn Index, n: u128, points: std::ops::Range<u64>) {
    index
        .upsert(tenant(n), points.map(own_point).collect())
        .await
        .expect("stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_tenant_moves_while_it_is_written_and_searched_and_nobody_notices() {
    const CHUNKS: u64 = 3_000;
    const BATCH: u64 = 50;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let index = Arc::new(open(dir.path()));
    // A neighbour in the same shared shard.
    write(&*index, 3, 0..200).await;
    let (written, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut searchers = Vec::new();
    for searcher in 0..3 {
        let (index, written, is_over) = (index.clone(), written.clone(), is_over.clone());
        searchers.push(tokio::spawn(async move {
            let mut asked = 0_u64;
            while !is_over.load(Ordering::Acquire) {
                asked += 1;
                let present = written.load(Ordering::Acquire);
                if present == 0 {
                    tokio::task::yield_now().await;
                    continue;
                }
                let n = asked * 7_919 % present;
                let expected = if n % 10 == 3 {
                    vec![]
                } else {
                    vec![chunk(n.into())]
                };
                let by_word = found(&*index, tenant(1), by_words(&format!("w{n}"))).await;
                assert_eq!(
                    by_word, expected,
                    "by words, {n} of {present}, searcher {searcher}"
                );
                let count = index.count(tenant(1)).await.expect("a count");
                assert!(count >= present - present / 10, "{count} of {present}");
                let own = hits(&*index, tenant(1), by_vector(vector(n))).await;
                if n % 10 != 3 {
                    assert_eq!(own[0].chunk_id, chunk(n.into()), "by meaning, {n} of {present}");
                }
                let neighbour = found(&*index, tenant(3), by_words(&format!("w{}", n % 200))).await;
                assert_eq!(neighbour, [chunk((n % 200).into())], "the neighbour");
            }
            asked
        }));
    }

    for from in (0..CHUNKS).step_by(BATCH as usize) {
        write(&*index, 1, from..from + BATCH).await;
        // Replaced and deleted, in the move and after it.
        let again = (from / 2..from / 2 + 5).filter(|n| n % 10 != 3).map(own_point);
        index.upsert(tenant(1), again.collect()).await.expect("replaced");
        let gone = (0..from + BATCH).filter(|n| n % 10 == 3);
        index
            .delete_chunks(tenant(1), gone.map(|n| chunk(n.into())).collect())
            .await
            .expect("deleted");
        write(&*index, 3, from % 200..from % 200 + 1).await;
        written.store(from + BATCH, Ordering::Release);
    }
    await_stage(dir.path(), "settled").await;
    is_over.store(true, Ordering::Release);
    for searcher in searchers {
        let asked = searcher.await.expect("a search never missed what was written");
        assert!(asked > 20, "only {asked} questions");
    }

    for round in 0..2 {
        let index = if round == 0 {
            index.clone()
        } else {
            Arc::new(open(dir.path()))
        };
        let expected: BTreeSet<ChunkId> = (0..CHUNKS)
            .filter(|n| n % 10 != 3)
            .map(|n| chunk(n.into()))
            .collect();
        let listed = index.list(tenant(1), None, 10_000).await.expect("a list");
        let ids: BTreeSet<ChunkId> = listed.iter().map(|point| point.chunk_id).collect();
        assert_eq!(
            (ids, listed.len()),
            (expected.clone(), expected.len()),
            "round {round}"
        );
        for point in &listed {
            let n = (0..CHUNKS).find(|n| chunk((*n).into()) == point.chunk_id);
            let expected = own_point(n.expect("one that was written")).fingerprint();
            assert_eq!(
                point.fingerprint, expected,
                "round {round}: vector, text and facets"
            );
        }
        assert_eq!(index.count(tenant(3)).await.expect("a count"), 200);
        index.close().await.expect("closed");
    }
    assert!(has_graph(&own_dir(dir.path(), 1)), "its graph is its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_documents_moves_along() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let index = open(dir.path());
    let staff_only = Facets {
        groups: vec!["staff".to_owned()],
        ..Facets::default()
    };
    write(&index, 1, 0..500).await;
    index
        .set_facets(tenant(1), vec![(document(7), staff_only)])
        .await
        .expect("restricted");
    write(&index, 1, 500..OUTGROWN + 10).await;
    await_stage(dir.path(), "settled").await;
    index.close().await.expect("closed");

    let index = open(dir.path());
    assert_eq!(found(&index, tenant(1), by_words("w75")).await, [], "by words");
    let nearest = found(&index, tenant(1), by_vector(vector(75))).await;
    assert!(!nearest.contains(&chunk(75)), "by meaning");
    assert_eq!(found(&index, tenant(1), by_words("w85")).await, [chunk(85)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_deleted_on_the_way_or_afterwards_leaves_nothing() {
    for stage in ["moving", "sweeping", "settled"] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let index = open(dir.path());
        write(&index, 3, 0..100).await;
        for from in (0..2 * OUTGROWN).step_by(100) {
            write(&index, 1, from..from + 100).await;
        }
        await_any_stage(dir.path(), stage).await;
        index.delete_tenant(tenant(1)).await.expect("deleted");

        assert_eq!(index.count(tenant(1)).await.expect("a count"), 0, "{stage}");
        assert_eq!(found(&index, tenant(1), by_words("number")).await, [], "{stage}");
        assert_eq!(
            found(&index, tenant(1), by_vector(vector(5))).await,
            [],
            "{stage}"
        );
        assert_eq!(
            index.list(tenant(1), None, 10).await.expect("a list"),
            [],
            "{stage}"
        );
        await_nobody(dir.path()).await;
        assert!(!own_dir(dir.path(), 1).exists(), "{stage}: its folder is gone");
        write(&index, 1, 0..10).await;
        assert_eq!(index.count(tenant(1)).await.expect("a count"), 10, "{stage}");
        index.delete_tenant(tenant(1)).await.expect("deleted");
        index.close().await.expect("closed");

        let index = open(dir.path());
        assert_eq!(index.count(tenant(1)).await.expect("a count"), 0, "{stage}");
        assert!(!own_dir(dir.path(), 1).exists(), "{stage}: its folder is gone");
        assert_eq!(index.count(tenant(3)).await.expect("a count"), 100, "{stage}");
        write(&index, 1, 0..10).await;
        assert_eq!(
            found(&index, tenant(1), by_words("w7")).await,
            [chunk(7)],
            "{stage}: it may return"
        );
        index.close().await.expect("closed");
    }
}

fn collection(dir: &Path) -> PathBuf {
    dir.join(format!("test-model-{DIMENSION}"))
}

fn set_stage(dir: &Path, stage: &str) {
    let stages = format!("{{\"{}\": \"{stage}\"}}", tenant(1));
    std::fs::write(collection(dir).join("own-shards.json"), stages).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_is_gone_or_half_removed_is_never_taken_for_one_that_is_empty() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let index = open(dir.path());
    write(&index, 1, 0..100).await;
    index.close().await.expect("closed");

    for stage in ["sweeping", "moving"] {
        set_stage(dir.path(), stage);
        if stage == "moving" {
            std::fs::create_dir_all(own_dir(dir.path(), 1).join("vectors/segments")).expect("half of it");
        }
        let index = open(dir.path());
        assert_eq!(index.count(tenant(1)).await.expect("a count"), 100, "{stage}");
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(
            found(&index, tenant(1), by_words("w7")).await,
            [chunk(7)],
            "{stage}: nothing is swept"
        );
        assert!(!stages(dir.path()).contains(stage), "{stage}");
        assert!(!own_dir(dir.path(), 1).exists(), "{stage}");
        index.close().await.expect("closed");
    }

    let index = open(dir.path());
    let made = index.generation();
    index.close().await.expect("closed");
    set_stage(dir.path(), "settled");
    let index = open(dir.path());
    assert_ne!(index.generation(), made, "everything is put in again");
    write(&index, 1, 0..100).await;
    assert_eq!(index.count(tenant(1)).await.expect("a count"), 100);
    index.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_cannot_be_noted_loses_nothing_and_is_tried_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let index = open(dir.path());
    write(&index, 3, 0..50).await;
    write(&index, 1, 0..OUTGROWN).await;
    // The file that replaces the present one cannot be made.
    let unfinished = collection(dir.path()).join("own-shards.new");
    await_any_stage(dir.path(), "moving").await;
    while std::fs::create_dir(&unfinished).is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for from in (OUTGROWN..OUTGROWN + 300).step_by(10) {
        write(&index, 1, from..from + 10).await;
        write(&index, 3, from..from + 1).await;
        let newest = found(&index, tenant(1), by_words(&format!("w{from}"))).await;
        assert_eq!(newest, [chunk(from.into())]);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(index.count(tenant(1)).await.expect("a count"), OUTGROWN + 300);

    std::fs::remove_dir(&unfinished).expect("removed");
    await_stage(dir.path(), "settled").await;
    index.close().await.expect("closed");
    let index = open(dir.path());
    assert_eq!(index.count(tenant(1)).await.expect("a count"), OUTGROWN + 300);
    assert_eq!(index.count(tenant(3)).await.expect("a count"), 80);
    let nearest = found(&index, tenant(1), by_vector(vector(77))).await;
    assert_eq!(nearest[0], chunk(77));
    index.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shrank_before_its_turn_moves_when_it_has_grown_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let index = open(dir.path());
    write(&index, 3, 0..OUTGROWN - 1).await;
    write(&index, 1, 0..2 * OUTGROWN).await;
    await_any_stage(dir.path(), "moving").await;
    // Announced while the other one moves, and small again when its turn comes.
    write(&index, 3, OUTGROWN - 1..OUTGROWN + 1).await;
    let gone = (0..OUTGROWN / 2).map(|n| chunk(n.into()));
    index
        .delete_chunks(tenant(3), gone.collect())
        .await
        .expect("deleted");
    await_rest(dir.path()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;

    write(&index, 3, 0..OUTGROWN).await;
    let give_up_at = Instant::now() + PATIENCE;
    while stages(dir.path()).matches("settled").count() < 2 {
        assert!(Instant::now() < give_up_at, "never: {}", stages(dir.path()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(index.count(tenant(3)).await.expect("a count"), OUTGROWN + 1);
    index.close().await.expect("closed");
}

/// Waits for the stage or a later one: each may pass between two looks.
async fn await_any_stage(dir: &Path, stage: &str) {
    let give_up_at = Instant::now() + PATIENCE;
    let later = ["moving", "sweeping", "settled"]
        .into_iter()
        .skip_while(|other| *other != stage);
    let awaited: Vec<&str> = later.collect();
    while !awaited.iter().any(|stage| stages(dir).contains(stage)) {
        assert!(Instant::now() < give_up_at, "never {stage}: {}", stages(dir));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until nobody has a shard of its own, or is on the way there.
async fn await_nobody(dir: &Path) {
    let give_up_at = Instant::now() + PATIENCE;
    while stages(dir).contains('"') {
        assert!(Instant::now() < give_up_at, "somebody stays: {}", stages(dir));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until nobody is on the way.
async fn await_rest(dir: &Path) {
    let give_up_at = Instant::now() + PATIENCE;
    while stages(dir).contains("moving") || stages(dir).contains("sweeping") {
        assert!(
            Instant::now() < give_up_at,
            "on the way for ever: {}",
            stages(dir)
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A process that is killed: run by the test below, never by itself.
#[test]
#[ignore = "runs as the child of a test of this file"]
fn child_outgrows_its_shard_until_it_is_killed() {
    run_child(async |dir| {
        let index = open(dir);
        for step in index.count(tenant(3)).await.expect("a count").. {
            write(&index, 1, step * STEP..(step + 1) * STEP).await;
            index
                .delete_chunks(tenant(1), vec![chunk((step * STEP).into())])
                .await
                .expect("deleted");
            write(&index, 3, step..step + 1).await;
            acknowledge(step);
            // The way is gone sooner than by who writes without a pause, and there is less to look at afterwards.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

/// Points of one step of the child, of which the first is deleted again.
const STEP: u64 = 40;

/// Starts the child and kills it `after` the stage was reached; gives the last step that it acknowledged.
fn run_and_kill(dir: &Path, stage: &str, after: Duration) -> u64 {
    let mut child = start_child("own_shards::child_outgrows_its_shard_until_it_is_killed", dir);
    let output = BufReader::new(child.stdout.take().expect("its output"));
    let (mut last, mut reached) = (0, None);
    for line in output.lines().map_while(Result::ok) {
        last = acknowledged(&line).unwrap_or(last);
        if reached.is_none() && stages(dir).contains(stage) {
            reached = Some(Instant::now());
        }
        if reached.is_some_and(|reached| reached.elapsed() >= after) {
            child.kill().expect("killed");
        }
    }
    child.wait().expect("ended");
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_on_the_way_loses_nothing_and_the_way_is_gone_to_its_end() {
    let kills = [
        ("moving", 0),
        ("moving", 40),
        ("moving", 150),
        ("sweeping", 0),
        ("settled", 0),
        ("settled", 300),
    ];
    for (stage, after_ms) in kills {
        let dir = tempfile::tempdir().expect("a temporary directory");
        // Twice, so that a directory that was killed once is killed again.
        run_and_kill(dir.path(), stage, Duration::from_millis(after_ms));
        let last = run_and_kill(dir.path(), "settled", Duration::from_millis(after_ms));

        let index = open(dir.path());
        for moment in ["at once", "when it has moved"] {
            let progress = index.count(tenant(3)).await.expect("a count");
            assert!(
                progress > last,
                "{stage}: {progress} steps, {last} was acknowledged"
            );
            let count = index.count(tenant(1)).await.expect("a count");
            let (least, most) = (progress * (STEP - 1), (progress + 1) * STEP);
            assert!(
                (least..=most).contains(&count),
                "{stage}, {moment}: {count}, not {least} to {most}"
            );
            for step in 0..=last {
                let (gone, n) = (step * STEP, step * STEP + 1 + step % (STEP - 1));
                let by_word = found(&index, tenant(1), by_words(&format!("w{n}"))).await;
                assert_eq!(
                    by_word,
                    [chunk(n.into())],
                    "{stage}, {moment}: {n} of {last} steps"
                );
                let by_word = found(&index, tenant(1), by_words(&format!("w{gone}"))).await;
                assert_eq!(by_word, [], "{stage}, {moment}: {gone} was deleted");
            }
            let mut missed = 0;
            for step in 0..=last {
                let n = step * STEP + 1 + step % (STEP - 1);
                missed += u64::from(
                    found(&index, tenant(1), by_vector(vector(n))).await.first() != Some(&chunk(n.into())),
                );
            }
            // Graphs are approximate; a lost page would be far more than this.
            assert!(
                missed * 50 <= last,
                "{stage}, {moment}: {missed} of {last} not found by vector"
            );
            await_stage(dir.path(), "settled").await;
        }
        index.close().await.expect("closed");
    }
}
