//! What a death leaves where the engine had written down a part of what it did. A point that changes is written anew in another
//! segment, and these come to the disk one by one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use retrieval::index::{Audience, EmbeddedIndex, Facets, Filter, Index, Point, SearchQuery, Tuning};

use crate::embedded_index::{SMALL, has_graph, opened, options};
use crate::samples::{
    all_sources, by_vector, by_words, chunk, document, found, point, source, tenant, vector,
};

const POINTS: u64 = 2_000;

/// Documents that are restricted, of ten chunks each.
const RESTRICTED: u64 = 10;

/// Nothing is written down but the redo log.
const WITHOUT_CHECKPOINTS: Tuning = Tuning {
    checkpoint_bytes: u64::MAX,
    log_most_bytes: u64::MAX,
    fresh_bytes: usize::MAX,
    deleted_kept_busy: Duration::MAX,
    deleted_kept_idle: Duration::MAX,
    ..SMALL
};

fn open(dir: &Path, tuning: Tuning) -> EmbeddedIndex {
    opened(|| EmbeddedIndex::open_tuned(options(dir), tuning))
}

/// What is wanted below `dir`. Folders may go meanwhile.
fn files(dir: &Path, is_wanted: &dyn Fn(&Path) -> bool) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut wanted = BTreeSet::new();
    for path in entries.map(|entry| entry.path()) {
        if is_wanted(&path) {
            wanted.insert(path);
        } else if path.is_dir() {
            wanted.extend(files(&path, is_wanted));
        }
    }
    wanted
}

/// The folders of segments with a graph.
fn graphs(dir: &Path) -> BTreeSet<PathBuf> {
    files(dir, &|path| {
        path.parent().is_some_and(|folder| folder.ends_with("segments")) && has_graph(path)
    })
}

fn logs(dir: &Path) -> BTreeSet<PathBuf> {
    files(dir, &|path| path.ends_with("redo.log"))
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).expect("a folder");
        for entry in fs::read_dir(from).expect("a folder").flatten() {
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::copy(from, to).expect("copied");
    }
}

/// Stores the points, and waits until they are in graphs.
async fn fill(dir: &Path) {
    let index = open(dir, SMALL);
    for from in (0..POINTS).step_by(100) {
        let points = (from..from + 100).map(|n| Point {
            source_id: source(1),
            ..point(n, &format!("text number w{n}"))
        });
        index.upsert(tenant(1), points.collect()).await.expect("stored");
    }
    await_graphs(dir, |graphs| !graphs.is_empty()).await;
    index.close().await.expect("closed");
}

/// Waits until there are such graphs, and no others come.
async fn await_graphs(dir: &Path, are_due: impl Fn(&BTreeSet<PathBuf>) -> bool) {
    let (mut quiet, mut before) = (0, graphs(dir));
    while quiet < 6 || !are_due(&before) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = graphs(dir);
        quiet = if now == before { quiet + 1 } else { 0 };
        before = now;
    }
}

async fn restrict(index: &EmbeddedIndex) {
    let staff_only = Facets {
        groups: vec!["staff".to_owned()],
        ..Facets::default()
    };
    for n in 0..RESTRICTED {
        index
            .set_facets(tenant(1), vec![(document(n.into()), staff_only.clone())])
            .await
            .expect("restricted");
    }
}

/// One chunk of each restricted document, and who asks for it by its vector.
async fn found_by_vector(index: &EmbeddedIndex, audience: &Audience) -> usize {
    let mut count = 0;
    for n in (0..RESTRICTED).map(|document| document * 10 + 1) {
        let query = SearchQuery {
            filter: Filter {
                audience: audience.clone(),
                ..all_sources()
            },
            ..by_vector(vector(n))
        };
        count += usize::from(found(index, tenant(1), query).await.contains(&chunk(n.into())));
    }
    count
}

/// Restricts the documents and closes the index; the redo log that there was before.
async fn restrict_and_close(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let of_before = graphs(dir);
    let index = open(dir, WITHOUT_CHECKPOINTS);
    restrict(&index).await;
    let written = logs(dir).into_iter().map(|log| {
        let bytes = fs::read(&log).expect("a log");
        (log, bytes)
    });
    let written = written.collect();
    index.close().await.expect("closed");
    assert_eq!(graphs(dir), of_before, "nothing was built meanwhile");
    written
}

fn put_back(logs: Vec<(PathBuf, Vec<u8>)>) {
    for (log, bytes) in logs {
        fs::write(log, bytes).expect("written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_open_before_it_was_restricted_does_not_come_back() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fill(dir.path()).await;
    let before = tempfile::tempdir().expect("a temporary directory");
    for (number, graph) in graphs(dir.path()).iter().enumerate() {
        copy(graph, &before.path().join(number.to_string()));
    }
    let logs = restrict_and_close(dir.path()).await;

    // As a death leaves it after where the points are now was written down, and before that they are gone from where they were.
    for (number, graph) in graphs(dir.path()).iter().enumerate() {
        fs::remove_dir_all(graph).expect("removed");
        copy(&before.path().join(number.to_string()), graph);
    }
    put_back(logs);

    for _ in 0..2 {
        let index = open(dir.path(), WITHOUT_CHECKPOINTS);
        assert_eq!(found_by_vector(&index, &Audience::Groups(Vec::new())).await, 0);
        assert_eq!(found_by_vector(&index, &Audience::Everything).await, 10);
        index.close().await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_that_a_death_cost_are_known_to_be_lost() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fill(dir.path()).await;
    let index = open(dir.path(), WITHOUT_CHECKPOINTS);
    let making = index.generation().expect("a name");
    index.close().await.expect("closed");
    let logs = restrict_and_close(dir.path()).await;

    // As a death leaves it after that the points are gone from where they were, and before where they are now was written down.
    for graph in graphs(dir.path()) {
        let segments = graph.parent().expect("a folder");
        for segment in fs::read_dir(segments).expect("a folder").flatten() {
            if !has_graph(&segment.path()) {
                fs::remove_dir_all(segment.path()).expect("removed");
            }
        }
    }
    put_back(logs);

    let index = open(dir.path(), WITHOUT_CHECKPOINTS);

    assert_eq!(found_by_vector(&index, &Audience::Everything).await, 0);
    assert!(index.has_lost(tenant(1), &making));
    let by_word = SearchQuery {
        filter: Filter {
            audience: Audience::Everything,
            ..all_sources()
        },
        ..by_words("w11")
    };
    assert_eq!(found(&index, tenant(1), by_word).await, [chunk(11)]);
    index.close().await.expect("closed");
}
