//! Exactness, work at the same time, and the end.

use std::collections::HashSet;
use std::sync::Arc;

use retrieval::ChunkId;
use retrieval::index::{Index, IndexError, Point};

use crate::samples::{by_vector, by_words, chunk, found, point, source, tenant, vector};

pub(super) async fn nearest_is_exactly_what_brute_force_finds(index: &dyn Index) {
    let acme = tenant(45);
    let count = 2_000;
    index
        .upsert(acme, (0..count).map(|n| point(n, "")).collect())
        .await
        .expect("stored");
    index
        .delete_chunks(
            acme,
            (0..count)
                .filter(|n| n % 7 == 0)
                .map(|n| chunk(n.into()))
                .collect(),
        )
        .await
        .expect("deleted");

    for question in 0..20 {
        let asked = vector(1_000_000 + question);
        let mut nearest: Vec<(f32, ChunkId)> = (0..count)
            .filter(|n| n % 7 != 0)
            .map(|n| (cosine(&vector(n), &asked), chunk(n.into())))
            .collect();
        nearest.sort_by(|a, b| b.0.total_cmp(&a.0));
        let expected: Vec<ChunkId> = nearest[..10].iter().map(|(_, chunk_id)| *chunk_id).collect();

        assert_eq!(
            found(index, acme, by_vector(asked)).await,
            expected,
            "question {question}"
        );
    }
}

/// Chunks of the tenant who has many.
const MANY: u64 = 100_000;

/// What [`nearest_of_100_000_are_found`] asks for.
pub(super) async fn store_100_000(index: &dyn Index) {
    let acme = tenant(46);
    for start in (0..MANY).step_by(2_000) {
        let points = (start..start + 2_000).map(|n| Point {
            source_id: source(1),
            ..point(n, "")
        });
        index.upsert(acme, points.collect()).await.expect("stored");
    }
}

pub(super) async fn nearest_of_100_000_are_found(index: &dyn Index) {
    let vectors: Vec<Vec<f32>> = (0..MANY).map(vector).collect();
    let mut met = 0;
    for question in 0..50 {
        let asked = vector(1_000_000 + question);
        let mut nearest: Vec<(f32, ChunkId)> = vectors
            .iter()
            .zip(0..)
            .map(|(vector, n)| (cosine(vector, &asked), chunk(n)))
            .collect();
        nearest.select_nth_unstable_by(9, |a, b| b.0.total_cmp(&a.0));
        let hits = found(index, tenant(46), by_vector(asked)).await;
        met += nearest[..10].iter().filter(|(_, id)| hits.contains(id)).count();
    }
    let recall = met as f64 / 500.0;
    assert!(recall >= 0.98, "recall@10 of {recall}");
}

/// A graph over the points of all tenants that is asked for those of one, and looks at who owns them afterwards, finds
/// hardly any: 0.096 of them was measured.
pub(super) async fn one_of_1_000_tenants_finds_its_nearest(index: &dyn Index) {
    const TENANTS: u64 = 1_000;
    const POINTS: u64 = 100;
    for n in 0..TENANTS {
        let own = n * POINTS..(n + 1) * POINTS;
        let points = own.map(|n| Point {
            source_id: source(1),
            ..point(n, "")
        });
        index
            .upsert(tenant(10_000 + u128::from(n)), points.collect())
            .await
            .expect("stored");
    }

    let mut met = 0;
    for n in (0..TENANTS).step_by(20) {
        let asked = vector(2_000_000 + n);
        let mut nearest: Vec<(f32, ChunkId)> = (n * POINTS..(n + 1) * POINTS)
            .map(|n| (cosine(&vector(n), &asked), chunk(n.into())))
            .collect();
        nearest.sort_by(|a, b| b.0.total_cmp(&a.0));
        let hits = found(index, tenant(10_000 + u128::from(n)), by_vector(asked)).await;
        met += nearest[..10].iter().filter(|(_, id)| hits.contains(id)).count();
    }
    let recall = met as f64 / 500.0;
    assert!(recall >= 0.98, "recall@10 of {recall}");
}

/// Of vectors of unit length.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(super) async fn writers_and_readers_work_at_once(index: Arc<dyn Index>) {
    const TENANTS: u64 = 3;
    const WRITERS_OF_EACH: u64 = 2;
    const BATCHES: u64 = 20;
    const BATCH: u64 = 10;
    const CHUNKS_OF_EACH: u64 = WRITERS_OF_EACH * BATCHES * BATCH;
    // Each tenant has chunks of its own, by whose numbers they are known.
    let numbers_of = |of: u64| of * 1_000..of * 1_000 + CHUNKS_OF_EACH;
    let nth_tenant = |of: u64| tenant(50 + u128::from(of));
    let mut tasks = Vec::new();
    for writer in 0..TENANTS * WRITERS_OF_EACH {
        let index = index.clone();
        let (of, turn) = (writer / WRITERS_OF_EACH, writer % WRITERS_OF_EACH);
        let first = numbers_of(of).start + turn * BATCHES * BATCH;
        tasks.push(tokio::spawn(async move {
            for batch in 0..BATCHES {
                let start = first + batch * BATCH;
                let points = (start..start + BATCH)
                    .map(|n| point(n, "written at once"))
                    .collect();
                index.upsert(nth_tenant(of), points).await.expect("stored");
                // What was acknowledged is seen by the next search.
                let own = found(&*index, nth_tenant(of), by_vector(vector(start))).await;
                assert_eq!(own[0], chunk(start.into()));
            }
        }));
    }
    for of in 0..TENANTS {
        let index = index.clone();
        tasks.push(tokio::spawn(async move {
            let mut seen_before = 0;
            for _ in 0..50 {
                let found = index.search(nth_tenant(of), by_words("written")).await;
                let hits = found.expect("an answer beside writers").hits;
                let mut seen = HashSet::new();
                for hit in &hits {
                    let n = numbers_of(of).find(|n| chunk((*n).into()) == hit.chunk_id);
                    let n = n.expect("a chunk of the tenant that asked");
                    assert!(
                        hit.keyword_score.is_some_and(|score| score > 0.0),
                        "chunk {n} says it"
                    );
                    assert!(seen.insert(n), "chunk {n} is found twice");
                }
                assert!(seen.len() >= seen_before, "nothing is lost from sight: {seen:?}");
                seen_before = seen.len();
            }
        }));
    }
    for task in tasks {
        task.await.expect("no task panicked");
    }
    for of in 0..TENANTS {
        let count = index.count(nth_tenant(of)).await.expect("a count");
        assert_eq!(count, CHUNKS_OF_EACH);
    }
}

pub(super) async fn a_closed_index_says_so(index: &dyn Index) {
    index.close().await.expect("closed");
    index.close().await.expect("closed twice is closed");

    assert!(matches!(index.check().await, Err(IndexError::Unavailable { .. })));
    let stored = index.upsert(tenant(2), vec![point(1, "too late")]).await;
    assert!(matches!(stored, Err(IndexError::Unavailable { .. })));
    let asked = index.search(tenant(2), by_words("goods")).await;
    assert!(matches!(asked, Err(IndexError::Unavailable { .. })));
}
