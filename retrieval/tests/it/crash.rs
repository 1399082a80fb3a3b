//! kill -9: what was acknowledged is there afterwards, whatever the process was doing.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use retrieval::index::{Index, SearchQuery};

use crate::embedded_index::open;
use crate::samples::{by_vector, by_words, chunk, document, found, point, tenant, vector};

/// Every tenth chunk replaces an older one, and each document is deleted again when the next but one is complete, so
/// that a crash can fall into any kind of operation.
const CHUNKS: u64 = 4_000;

/// The process that is killed: run by the tests below, never by itself.
///
/// Reads the directory from its input, then writes point after point and prints the number of each once acknowledged.
#[test]
#[ignore = "runs as the child of the tests of this file"]
fn child_writes_until_it_is_killed() {
    let mut dir = String::new();
    std::io::stdin().read_line(&mut dir).expect("a directory");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let index = open(&PathBuf::from(dir.trim()));
        let first = index.count(tenant(2)).await.expect("a count");
        let mut output = std::io::stdout();
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
            writeln!(output, "acknowledged {n}").expect("somebody reads");
            output.flush().expect("somebody reads");
        }
    });
}

fn start_child(dir: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().expect("this test binary"))
        .args([
            "--ignored",
            "--exact",
            "crash::child_writes_until_it_is_killed",
            "--nocapture",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child process");
    let mut input = child.stdin.take().expect("its input");
    writeln!(input, "{}", dir.display()).expect("it reads");
    child
}

/// Lets the child acknowledge `chunks` more points, kills it and returns the number of the last one that it acknowledged.
fn run_and_kill(dir: &Path, chunks: usize) -> u64 {
    let mut child = start_child(dir);
    let output = BufReader::new(child.stdout.take().expect("its output"));
    let mut last = None;
    let mut seen = 0;
    for line in output.lines() {
        let line = line.expect("text");
        // The first line carries the test runner's own words before ours.
        if let Some((_, number)) = line.rsplit_once("acknowledged ") {
            last = number.parse().ok();
            seen += 1;
        }
        if seen == chunks {
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
        let last = run_and_kill(dir.path(), chunks);

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
