//! What was deleted is out of the embedded index's files, too, once they have been written anew: vectors, ids and tags.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use retrieval::index::{EmbeddedIndex, Facets, Index, Point, Tuning};
use retrieval::{SourceId, TenantId};

use crate::embedded_index::{SMALL, has_graph, opened, options};
use crate::samples::{DIMENSION, by_vector, by_words, chunk, document, found, point, source, tenant, vector};

const FORGETTING: Tuning = Tuning {
    own_shard_from_chunks: 1_000,
    ..SMALL
};

/// Files keep what was deleted.
const KEEPING: Tuning = Tuning {
    deleted_kept_busy: Duration::MAX,
    deleted_kept_idle: Duration::MAX,
    ..FORGETTING
};

const PATIENCE: Duration = Duration::from_secs(120);

fn open(dir: &Path, tuning: Tuning) -> EmbeddedIndex {
    opened(|| EmbeddedIndex::open_tuned(options(dir), tuning))
}

/// What the values of an exact vector are but for their order and their signs: its length is one.
const VALUES: [f32; DIMENSION] = [
    0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
];

/// A vector of length one that the index keeps bit by bit, at either precision, and nobody else has.
fn exact_vector(n: u64) -> Vec<f32> {
    let random = vector(n);
    let mut order: Vec<usize> = (0..DIMENSION).collect();
    order.sort_by(|one, other| random[*one].total_cmp(&random[*other]));
    let mut exact = vec![0.0; DIMENSION];
    for (place, value) in order.into_iter().zip(VALUES) {
        exact[place] = if (random[place] * 1e4) as i64 % 2 == 0 {
            value
        } else {
            0.0 - value
        };
    }
    exact
}

/// A value of [`exact_vector`]'s at half precision.
fn half(value: f32) -> [u8; 2] {
    let sign = u16::from(value < 0.0) << 15;
    let size: u16 = match value.abs() {
        0.5 => 0x3800,
        0.25 => 0x3400,
        _ => 0,
    };
    (sign | size).to_le_bytes()
}

/// Ten chunks to a document, fifty to a source, and a tag of each document's own.
fn tagged(n: u64) -> Point {
    Point {
        vector: Some(exact_vector(n)),
        source_id: source_of(n),
        facets: Facets {
            tags: vec![format!("tag-of-{}-alone", n / 10)],
            ..Facets::default()
        },
        ..point(n, &format!("text number w{n}"))
    }
}

fn source_of(n: u64) -> SourceId {
    source(u128::from(n / 50))
}

/// What of point `n` and its document is found in files, by name.
fn traces(dir: &Path, n: u64) -> Vec<&'static str> {
    let vector = exact_vector(n);
    let document_id = document(u128::from(n / 10)).0;
    let needles: [(&str, Vec<u8>); 6] = [
        (
            "vector",
            vector.iter().flat_map(|value| value.to_le_bytes()).collect(),
        ),
        (
            "half vector",
            vector.iter().flat_map(|value| half(*value)).collect(),
        ),
        ("chunk", chunk(n.into()).0.as_bytes().to_vec()),
        ("document", document_id.as_bytes().to_vec()),
        ("document's name", document_id.to_string().into_bytes()),
        ("tag", format!("tag-of-{}-alone", n / 10).into_bytes()),
    ];
    let mut files = Vec::new();
    read_all(dir, &mut files);
    let is_there = |needle: &[u8]| {
        files
            .iter()
            .any(|file| memchr::memmem::find(file, needle).is_some())
    };
    needles
        .into_iter()
        .filter(|(_, needle)| is_there(needle))
        .map(|(name, _)| name)
        .collect()
}

/// What is written in files. They may go meanwhile, and most of them are holes.
fn read_all(dir: &Path, files: &mut Vec<Vec<u8>>) {
    const PAGE: [u8; 4_096] = [0; 4_096];
    for path in fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
    {
        if path.is_dir() {
            read_all(&path, files);
        } else if let Ok(bytes) = fs::read(&path) {
            let pages = bytes.chunks(PAGE.len());
            let written: Vec<&[u8]> = pages.filter(|page| **page != PAGE[..page.len()]).collect();
            files.push(written.concat());
        }
    }
}

async fn await_forgotten(dir: &Path, n: u64) {
    let give_up_at = Instant::now() + PATIENCE;
    loop {
        let traces = traces(dir, n);
        if traces.is_empty() {
            return;
        }
        assert!(Instant::now() < give_up_at, "of {n} there is still: {traces:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn upsert(index: &EmbeddedIndex, tenant_id: TenantId, points: std::ops::Range<u64>) {
    let points: Vec<Point> = points.map(tagged).collect();
    for some in points.chunks(100) {
        index.upsert(tenant_id, some.to_vec()).await.expect("stored");
    }
}

/// What is left is where it was, by words and by meaning.
async fn assert_found(index: &EmbeddedIndex, tenant_id: TenantId, n: u64) {
    let by_words = found(index, tenant_id, by_words(&format!("w{n}"))).await;
    assert_eq!(by_words.first(), Some(&chunk(n.into())), "by words");
    let by_meaning = found(index, tenant_id, by_vector(exact_vector(n))).await;
    assert_eq!(by_meaning.first(), Some(&chunk(n.into())), "by meaning");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_among_others_is_out_of_the_files() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let index = open(dir.path(), FORGETTING);
    upsert(&index, tenant(1), 0..200).await;
    assert_eq!(traces(dir.path(), 7).len(), 5, "all but half a vector");

    index
        .delete_documents(tenant(1), vec![document(0)])
        .await
        .expect("deleted");
    await_forgotten(dir.path(), 7).await;

    assert_found(&index, tenant(1), 17).await;
    assert_eq!(index.count(tenant(1)).await.expect("a count"), 190);
    index.close().await.expect("closed");
    assert!(traces(dir.path(), 7).is_empty());
    assert!(traces(dir.path(), 17).contains(&"vector"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_replaced_and_the_last_that_was_there_are_out_of_the_files() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let index = open(dir.path(), FORGETTING);
    upsert(&index, tenant(1), 0..100).await;

    let replaced = Point {
        vector: Some(exact_vector(5_000)),
        ..tagged(7)
    };
    index.upsert(tenant(1), vec![replaced]).await.expect("stored");
    let give_up_at = Instant::now() + PATIENCE;
    while traces(dir.path(), 7).contains(&"vector") {
        assert!(Instant::now() < give_up_at, "the vector before is still there");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(index.count(tenant(1)).await.expect("a count"), 100);

    index.delete_tenant(tenant(1)).await.expect("deleted");
    await_forgotten(dir.path(), 17).await;
    index.close().await.expect("closed");
    assert!(traces(dir.path(), 17).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_forget_after_a_restart_what_they_kept_before() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let index = open(dir.path(), KEEPING);
    upsert(&index, tenant(1), 0..200).await;
    index
        .delete_sources(tenant(1), vec![source_of(0)])
        .await
        .expect("deleted");
    index.close().await.expect("closed");
    assert!(
        traces(dir.path(), 7).contains(&"vector"),
        "kept: {:?}",
        traces(dir.path(), 7)
    );

    let index = open(dir.path(), FORGETTING);

    await_forgotten(dir.path(), 7).await;
    assert_found(&index, tenant(1), 170).await;
    index.close().await.expect("closed");
    assert!(traces(dir.path(), 7).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_large_tenant_deletes_is_out_of_the_files_of_its_own_shard() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let index = open(dir.path(), FORGETTING);
    upsert(&index, tenant(1), 0..3_000).await;
    let give_up_at = Instant::now() + PATIENCE;
    while !(has_graph(dir.path()) && traces(dir.path(), 7).contains(&"half vector")) {
        assert!(Instant::now() < give_up_at, "no shard of its own");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    index
        .delete_documents(tenant(1), vec![document(0)])
        .await
        .expect("deleted");
    // Though it writes on without a pause.
    let (mut written, give_up_at) = (3_000, Instant::now() + PATIENCE);
    while !traces(dir.path(), 7).is_empty() {
        assert!(
            Instant::now() < give_up_at,
            "still there: {:?}",
            traces(dir.path(), 7)
        );
        upsert(&index, tenant(1), written..written + 20).await;
        written += 20;
    }

    assert_found(&index, tenant(1), 1_717).await;
    assert_eq!(index.count(tenant(1)).await.expect("a count"), written - 10);
    index.close().await.expect("closed");
    assert!(traces(dir.path(), 7).is_empty());
}

/// The searches and the writing go on while files are written anew, and nothing of it is lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_and_deleted_all_the_time_is_neither_lost_nor_kept() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let index = open(dir.path(), FORGETTING);

    for step in 0..30 {
        upsert(&index, tenant(1), step * 50..(step + 1) * 50).await;
        let gone = document(u128::from(step * 5));
        index
            .delete_documents(tenant(1), vec![gone])
            .await
            .expect("deleted");
        assert_found(&index, tenant(1), step * 50 + 17).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    assert_eq!(index.count(tenant(1)).await.expect("a count"), 30 * 40);
    for step in [0, 16, 29] {
        await_forgotten(dir.path(), step * 50 + 7).await;
        assert_found(&index, tenant(1), step * 50 + 37).await;
    }
    index.close().await.expect("closed");
    for step in [0, 16, 29] {
        assert!(traces(dir.path(), step * 50 + 7).is_empty());
    }
}
