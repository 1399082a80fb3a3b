//! kill -9: what was acknowledged is there afterwards, whatever the process was doing.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::{Duration, Instant};

use retrieval::index::{Audience, Facets, Filter, Index, Point, SearchQuery};
use retrieval::{ChunkId, TenantId};

use crate::child::{acknowledge, acknowledged, run_child, start_child};
use crate::embedded_index::{has_graph, open, open_small};
use crate::samples::{by_vector, by_words, chunk, document, found, point, source, tenant, vector};

/// Every tenth chunk replaces an older one, and each document is deleted again when the next but one is complete, so
/// that a crash can fall into any kind of operation.
const CHUNKS: u64 = 4_000;

/// A process that is killed: run by the tests below, never by itself.
///
/// Reads the directory from its input, then writes point after point and prints the number of each once acknowledged.
#[test]
#[ignore = "runs as the child of the tests of this file"]
fn child_writes_until_it_is_killed() {
    run_child(async |dir| {
        let index = open(dir);
        let first = index.count(tenant(2)).await.expect("a count");
        for n in first..CHUNKS {
            index
                .upsert(tenant(1), vec![point(n, &format!("text number w{n}"))])
                .await
                .expect("stored");
            if n % 10 == 9 && n >= 30 {
                index
                    .delete_documents(tenant(1), vec![document((n / 10 - 3).into())])
                    .await
                    .expect("deleted");
            }
            // The other tenant's points are the record of how far it came.
            index
                .upsert(tenant(2), vec![point(n, "progress")])
                .await
                .expect("stored");
            acknowledge(n);
        }
    });
}

/// Points of one step of the other child, of which every fourth is deleted again two steps later.
const STEP: u64 = 100;

/// The other process that is killed: its shard is small enough for graphs to be built, logs to be cut and files to be
/// replaced all the time, so that the kill falls into these.
#[test]
#[ignore = "runs as the child of the tests of this file"]
fn child_writes_in_bulk_until_it_is_killed() {
    run_child(async |dir| {
        let index = open_small(dir);
        let first = index.count(tenant(2)).await.expect("a count");
        for step in first..CHUNKS {
            let points = (step * STEP..(step + 1) * STEP).map(|n| Point {
                source_id: source(1),
                ..point(n, &format!("text number w{n}"))
            });
            index.upsert(tenant(1), points.collect()).await.expect("stored");
            if step >= 2 {
                index
                    .delete_chunks(
                        tenant(1),
                        deleted_after(step - 2).map(|n| chunk(n.into())).collect(),
                    )
                    .await
                    .expect("deleted");
            }
            if step >= RESTRICTED_AFTER {
                let first = (step - RESTRICTED_AFTER) * STEP;
                let staff_only = Facets {
                    groups: vec!["staff".to_owned()],
                    ..Facets::default()
                };
                index
                    .set_facets(tenant(1), vec![(document((first / 10).into()), staff_only)])
                    .await
                    .expect("restricted");
            }
            index
                .upsert(tenant(2), vec![point(step, "progress")])
                .await
                .expect("stored");
            acknowledge(step);
        }
    });
}

/// Steps after which a document of the step is restricted.
const RESTRICTED_AFTER: u64 = 5;

/// Asked by the owner, who finds what is restricted, too.
fn to_everyone(query: SearchQuery) -> SearchQuery {
    SearchQuery {
        filter: Filter {
            audience: Audience::Everything,
            ..query.filter
        },
        ..query
    }
}

/// The points of a step that are deleted two steps later.
fn deleted_after(step: u64) -> impl Iterator<Item = u64> {
    (step * STEP..(step + 1) * STEP).filter(|n| n % 4 == 0)
}

/// Lets the child acknowledge `steps` more steps, kills it and returns the number of the last one that it acknowledged.
fn run_and_kill(test: &str, dir: &Path, steps: usize) -> u64 {
    let mut child = start_child(test, dir);
    let output = BufReader::new(child.stdout.take().expect("its output"));
    let mut last = None;
    let mut seen = 0;
    for line in output.lines() {
        let line = line.expect("text");
        if let Some(number) = acknowledged(&line) {
            last = Some(number);
            seen += 1;
        }
        if seen == steps {
            child.kill().expect("killed");
        }
    }
    child.wait().expect("ended");
    last.expect("something was acknowledged before the kill")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().expect("a temporary directory");

    for (round, chunks) in [1, 7, 40, 3, 120, 65].into_iter().enumerate() {
        let last = run_and_kill("crash::child_writes_until_it_is_killed", dir.path(), chunks);

        let index = open(dir.path());
        let progress = index.count(tenant(2)).await.expect("a count");
        assert!(
            progress > last,
            "round {round}: {progress} points of the record, {last} was acknowledged"
        );
        let kept_from = (last / 10).saturating_sub(2) * 10;
        for n in kept_from..=last {
            let text = format!("w{n}");
            assert_eq!(
                found(&index, tenant(1), by_words(&text)).await,
                [chunk(n.into())],
                "round {round}: {n}"
            );
            let nearest = SearchQuery {
                limit: 1,
                ..by_vector(vector(n))
            };
            assert_eq!(
                found(&index, tenant(1), nearest).await,
                [chunk(n.into())],
                "round {round}: {n}"
            );
        }
        // Of the deleted documents at most the one is left whose deletion was never acknowledged.
        let expected: BTreeSet<u64> = (kept_from..progress + 1).collect();
        let count = index.count(tenant(1)).await.expect("a count");
        assert!(
            count <= expected.len() as u64 + 10,
            "round {round}: {count} of at most {}",
            expected.len() + 10
        );
        index.close().await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_while_files_are_replaced_needs_no_repair() {
    let dir = tempfile::tempdir().expect("a temporary directory");

    for (round, steps) in [60, 3, 30, 12].into_iter().enumerate() {
        let last = run_and_kill(
            "crash::child_writes_in_bulk_until_it_is_killed",
            dir.path(),
            steps,
        );

        let index = open_small(dir.path());
        let progress = index.count(tenant(2)).await.expect("a count");
        assert!(
            progress > last,
            "round {round}: {progress} steps in the record, {last} was acknowledged"
        );
        let stored = chunks_of(&index, tenant(1)).await;
        for n in 0..(last + 1) * STEP {
            let is_deleted = n % 4 == 0;
            // Whether the deletion came before the kill is not known of the last steps.
            if !is_deleted || n / STEP + 2 <= last {
                assert_eq!(
                    stored.contains(&chunk(n.into())),
                    !is_deleted,
                    "round {round}: {n}"
                );
            }
        }
        let mut not_nearest = 0;
        for step in 0..=last {
            let n = step * STEP + 1;
            let by_word = by_words(&format!("w{n}"));
            assert_eq!(
                found(&index, tenant(1), to_everyone(by_word.clone())).await,
                [chunk(n.into())],
                "round {round}"
            );
            if step + RESTRICTED_AFTER <= last {
                let to_visitors = SearchQuery {
                    vector: Some(vector(n)),
                    ..by_word
                };
                let visible = found(&index, tenant(1), to_visitors).await;
                assert!(
                    !visible.contains(&chunk(n.into())),
                    "round {round}: {n} is restricted"
                );
            }
            let nearest = to_everyone(SearchQuery {
                limit: 1,
                ..by_vector(vector(n))
            });
            not_nearest += usize::from(found(&index, tenant(1), nearest).await != [chunk(n.into())]);
        }
        // Graphs are approximate; a lost segment would be far more than this.
        assert!(
            not_nearest as f64 <= 0.02 * last as f64,
            "round {round}: {not_nearest} of {last} not found by vector"
        );
        for gone in (0..last.saturating_sub(1)).flat_map(|step| deleted_after(step).take(3)) {
            assert_eq!(
                found(&index, tenant(1), to_everyone(by_words(&format!("w{gone}")))).await,
                [],
                "round {round}: {gone}"
            );
        }
        if round == 1 {
            // From here on every kill meets graphs, and builds that replace them.
            write_until_there_is_a_graph(dir.path(), &index).await;
        }
        index.close().await.expect("closed");
    }
}

/// All that the index has of the tenant.
async fn chunks_of(index: &dyn Index, tenant_id: TenantId) -> BTreeSet<ChunkId> {
    let mut chunks = BTreeSet::new();
    loop {
        let after = chunks.last().copied();
        let page = index.list(tenant_id, after, 1_000).await.expect("a page");
        if page.is_empty() {
            return chunks;
        }
        chunks.extend(page.iter().map(|point| point.chunk_id));
    }
}

/// Writes points of a third tenant, in the first one's shard, until graphs are built.
async fn write_until_there_is_a_graph(dir: &Path, index: &dyn Index) {
    let mut n = 0;
    let give_up_at = Instant::now() + Duration::from_secs(120);
    while !has_graph(dir) {
        assert!(
            Instant::now() < give_up_at,
            "no graph was built: the test would prove nothing"
        );
        index
            .upsert(tenant(3), (n..n + 50).map(|n| point(n, "")).collect())
            .await
            .expect("stored");
        n += 50;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
