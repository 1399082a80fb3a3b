//! What a filter lets through of a large tenant is found as well as all of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use retrieval::ChunkId;
use retrieval::fuse::MIN_CANDIDATES;
use retrieval::index::{Audience, EmbeddedIndex, Facets, Filter, Index, Point, SearchQuery, Tuning};

use super::{MOVING, await_stage, own_dir};
use crate::embedded_index::{has_graph, opened, options};
use crate::samples::{all_sources, by_vector, chunk, found, point, source, tenant, vector};

const CHUNKS: u64 = 20_000;
const QUESTIONS: u64 = 50;

/// So little is compared one by one that the graph is asked also for what a narrow filter lets through: 64 chunks, where a
/// source has 200.
const GRAPHS: Tuning = Tuning {
    exact_up_to_kib: 8,
    ..MOVING
};

fn in_clusters(n: u64) -> Vec<f32> {
    let (centre, own) = (vector(5_000_000 + n % 97), vector(n));
    let values = centre
        .iter()
        .zip(&own)
        .map(|(centre, own)| 0.7 * centre + 0.7 * own);
    let values: Vec<f32> = values.collect();
    let norm = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    values.into_iter().map(|value| value / norm).collect()
}

/// In one of a hundred sources; of fifty documents one is open to everyone.
fn stored(n: u64) -> Point {
    let is_open = (n / 10).is_multiple_of(50);
    Point {
        source_id: source(u128::from(n % 100)),
        vector: Some(in_clusters(n)),
        facets: Facets {
            groups: if is_open { vec![] } else { vec!["staff".to_owned()] },
            ..Facets::default()
        },
        ..point(n, &format!("text number w{n}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nearest_of_20_000_are_found_by_quantised_graphs_whatever_the_filter() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let open = || opened(|| EmbeddedIndex::open_tuned(options(dir.path()), GRAPHS));
    let index = open();
    for from in (0..CHUNKS).step_by(1_000) {
        let points = (from..from + 1_000).map(stored);
        index.upsert(tenant(1), points.collect()).await.expect("stored");
    }
    await_stage(dir.path(), "settled").await;
    index.close().await.expect("closed");
    let index = open();
    assert!(
        has_graph(&own_dir(dir.path(), 1)),
        "no graph was built: the test measures nothing"
    );

    let staff = || Filter {
        audience: Audience::Groups(vec!["staff".to_owned()]),
        ..all_sources()
    };
    let one_source = Filter {
        sources: vec![source(42)],
        ..staff()
    };
    let cases: [(&str, Filter, Passes); 3] = [
        ("no filter", staff(), |_| true),
        ("one of a hundred sources", one_source, |n| n % 100 == 42),
        ("what everyone may read", all_sources(), |n| {
            (n / 10).is_multiple_of(50)
        }),
    ];
    for (what, filter, passes) in cases {
        let recall = recall(&index, &filter, passes).await;
        assert!(recall >= 0.95, "{what}: recall@10 of {recall}");
    }
    index.close().await.expect("closed");
}

/// As long as somebody may see all that there is, the engine is not asked whether they may.
#[tokio::test(flavor = "multi_thread")]
async fn who_sees_all_there_is_does_not_see_what_comes_for_others() {
    const OPEN: u64 = 1_200;
    const ROUNDS: u64 = 60;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let index = EmbeddedIndex::open_tuned(options(dir.path()), MOVING).expect("a healthy directory");
    let index = Arc::new(index);
    let open_to_all = |n| Point {
        source_id: source(1),
        ..point(n, "open to all")
    };
    index
        .upsert(tenant(1), (0..OPEN).map(open_to_all).collect())
        .await
        .expect("stored");
    await_stage(dir.path(), "settled").await;

    // As near to the question as can be: in another source, and for others in the same one.
    let asked = vector(1_000_000);
    let for_others = |n: u64| Point {
        source_id: source(1 + u128::from(n / 10 % 2)),
        vector: Some(asked.clone()),
        facets: Facets {
            groups: if (n / 10).is_multiple_of(2) {
                vec!["staff".to_owned()]
            } else {
                vec![]
            },
            ..Facets::default()
        },
        ..point(OPEN + n, "for others")
    };
    let is_over = Arc::new(AtomicBool::new(false));
    let searches = tokio::spawn({
        let (index, is_over, asked) = (index.clone(), is_over.clone(), asked.clone());
        async move {
            let mut searches = 0;
            while !is_over.load(Ordering::Acquire) {
                let query = SearchQuery {
                    filter: Filter {
                        sources: vec![source(1)],
                        ..Filter::default()
                    },
                    text: "others".to_owned(),
                    ..by_vector(asked.clone())
                };
                let hits = found(&*index, tenant(1), query).await;
                let seen = hits.iter().find(|id| **id >= chunk(OPEN.into()));
                assert_eq!(seen, None, "search {searches}");
                assert!(!hits.is_empty());
                searches += 1;
            }
            searches
        }
    });
    for round in 0..ROUNDS {
        let points: Vec<Point> = (round * 20..round * 20 + 20).map(for_others).collect();
        let ids = points.iter().map(|point| point.chunk_id).collect();
        index.upsert(tenant(1), points).await.expect("stored");
        index.delete_chunks(tenant(1), ids).await.expect("deleted");
    }
    is_over.store(true, Ordering::Release);

    assert!(searches.await.expect("no search saw any") > 0);
    index.close().await.expect("closed");
}

/// Whether the chunk of this number passes a filter.
type Passes = fn(u64) -> bool;

/// The share of the ten nearest that a search finds, of those that pass.
async fn recall(index: &EmbeddedIndex, filter: &Filter, passes: Passes) -> f64 {
    let passing: Vec<(u64, Vec<f32>)> = (0..CHUNKS)
        .filter(|n| passes(*n))
        .map(|n| (n, in_clusters(n)))
        .collect();
    let mut met = 0;
    for question in 0..QUESTIONS {
        let asked = in_clusters(1_000_000 + question);
        let cosine = |vector: &[f32]| -> f32 { vector.iter().zip(&asked).map(|(a, b)| a * b).sum() };
        let mut nearest: Vec<(f32, ChunkId)> = passing
            .iter()
            .map(|(n, vector)| (cosine(vector), chunk(u128::from(*n))))
            .collect();
        nearest.select_nth_unstable_by(9, |a, b| b.0.total_cmp(&a.0));
        let query = SearchQuery {
            filter: filter.clone(),
            limit: MIN_CANDIDATES,
            ..by_vector(asked.clone())
        };
        let hits = found(index, tenant(1), query).await;
        let best = &hits[..hits.len().min(10)];
        met += nearest[..10].iter().filter(|(_, id)| best.contains(id)).count();
    }
    met as f64 / (10 * QUESTIONS) as f64
}
