//! What is found of many chunks in the form that ships: a large tenant's in a quantised graph of its own, those of small ones
//! compared one by one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use retrieval::index::{EmbeddedIndex, Index, Tuning};

use super::{await_stage, collection};
use crate::conformance;
use crate::embedded_index::{has_graph, options};
use crate::samples::DIMENSION;

/// Values of a vector that the usual numbers are meant for.
const USUAL_DIMENSION: usize = 384;

/// How long no file comes or goes when nothing is tidied up any more.
const QUIET: Duration = Duration::from_secs(5);

fn files(dir: &Path) -> BTreeSet<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return BTreeSet::new();
    };
    let entries = entries.flatten().map(|entry| entry.path());
    entries
        .flat_map(|path| files(&path).into_iter().chain([path]))
        .collect()
}

async fn await_quiet(dir: &Path) {
    loop {
        let before = files(dir);
        tokio::time::sleep(QUIET).await;
        if files(dir) == before {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: make recall"]
async fn it_finds_the_nearest_of_100_000() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let usual = Tuning::default();
    // As much is compared one by one as of vectors of the usual size.
    let tuning = Tuning {
        graph_from_kib: usual.graph_from_kib * DIMENSION / USUAL_DIMENSION,
        exact_up_to_kib: usual.exact_up_to_kib * DIMENSION / USUAL_DIMENSION,
        close_grace: Duration::from_secs(300),
        ..usual
    };
    let index = EmbeddedIndex::open_tuned(options(dir.path()), tuning).expect("a healthy directory");
    let index = Arc::new(index);

    conformance::at_100_000_chunks(index.clone(), async || {
        await_stage(dir.path(), "settled").await;
        await_quiet(&collection(dir.path())).await;
        assert!(
            has_graph(dir.path()),
            "no graph was built: the test measures nothing"
        );
    })
    .await;

    index.close().await.expect("closed");
}
