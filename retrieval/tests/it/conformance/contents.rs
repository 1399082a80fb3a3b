//! What is stored is found, what is replaced or deleted is not.

use std::collections::BTreeSet;

use retrieval::ChunkId;
use retrieval::index::{Filter, Index, Point, SearchQuery};

use super::HALF_PRECISION;
use crate::samples::{by_vector, by_words, chunk, document, found, hits, point, source, tenant, vector};

pub(super) async fn an_unknown_tenant_finds_nothing(index: &dyn Index) {
    let nobody = tenant(1);

    assert_eq!(found(index, nobody, by_words("goods")).await, []);
    assert_eq!(found(index, nobody, by_vector(vector(1))).await, []);
    assert_eq!(index.count(nobody).await.expect("a count"), 0);
    index
        .delete_tenant(nobody)
        .await
        .expect("nothing to delete is no error");
    index.check().await.expect("ready");
}

pub(super) async fn stored_points_are_found_by_words_and_by_vector(index: &dyn Index) {
    let acme = tenant(2);
    let points = vec![
        point(1, "Goods may be returned within thirty days."),
        point(2, "Shipping is free above fifty euros."),
        point(3, "Our office is closed on public holidays."),
    ];
    index.upsert(acme, points).await.expect("stored");

    assert_eq!(found(index, acme, by_words("returning goods")).await, [chunk(1)]);
    assert_eq!(found(index, acme, by_vector(vector(3))).await[0], chunk(3));
    let both = SearchQuery {
        vector: Some(vector(2)),
        ..by_words("free shipping")
    };
    assert_eq!(found(index, acme, both).await[0], chunk(2));
    assert_eq!(index.count(acme).await.expect("a count"), 3);
}

pub(super) async fn a_hit_carries_its_scores(index: &dyn Index) {
    let acme = tenant(3);
    index
        .upsert(acme, vec![point(1, "warranty terms"), point(2, "opening hours")])
        .await
        .expect("stored");

    let query = SearchQuery {
        vector: Some(vector(1)),
        ..by_words("warranty")
    };
    let both = hits(index, acme, query).await;

    assert_eq!(both.len(), 2);
    let (first, second) = (both[0], both[1]);
    assert_eq!(first.chunk_id, chunk(1));
    assert!(
        (first.score - 1.0).abs() < 1e-6,
        "first in both rankings: {}",
        first.score
    );
    assert!((first.similarity.expect("compared") - 1.0).abs() < HALF_PRECISION);
    assert!(first.keyword_score.expect("has the word") > 0.0);
    assert!(second.score < first.score && second.score > 0.0);
    assert!(second.similarity.expect("compared") < 0.99);
    assert_eq!(second.keyword_score, None);

    let by_words_only = hits(index, acme, by_words("opening")).await;
    assert_eq!(by_words_only[0].similarity, None);
    assert!((by_words_only[0].score - 1.0).abs() < 1e-6);
}

pub(super) async fn an_upsert_replaces_the_whole_point(index: &dyn Index) {
    let acme = tenant(4);
    index
        .upsert(acme, vec![point(1, "an old sentence")])
        .await
        .expect("stored");
    let new = Point {
        document_id: document(7),
        source_id: source(8),
        vector: Some(vector(99)),
        ..point(1, "a fresh paragraph")
    };
    index.upsert(acme, vec![new]).await.expect("replaced");

    assert_eq!(found(index, acme, by_words("old sentence")).await, []);
    assert_eq!(found(index, acme, by_words("fresh paragraph")).await, [chunk(1)]);
    assert_eq!(index.count(acme).await.expect("a count"), 1);
    let hits = hits(index, acme, by_vector(vector(99))).await;
    assert!((hits[0].similarity.expect("compared") - 1.0).abs() < HALF_PRECISION);
    let listed = index.list(acme, None, 10).await.expect("a list");
    assert_eq!(listed[0].document_id, document(7));
    let in_old_source = Filter {
        sources: vec![source(0)],
        ..Filter::default()
    };
    assert_eq!(
        found(
            index,
            acme,
            SearchQuery {
                filter: in_old_source,
                ..by_words("fresh")
            }
        )
        .await,
        []
    );

    let without_vector = Point {
        vector: None,
        ..point(1, "a third text")
    };
    index.upsert(acme, vec![without_vector]).await.expect("replaced");
    assert_eq!(found(index, acme, by_vector(vector(99))).await, []);
}

pub(super) async fn of_repeated_ids_the_last_wins(index: &dyn Index) {
    let acme = tenant(5);
    index
        .upsert(
            acme,
            vec![point(1, "first try"), point(2, "between"), point(1, "second try")],
        )
        .await
        .expect("stored");

    assert_eq!(found(index, acme, by_words("first")).await, []);
    assert_eq!(found(index, acme, by_words("second")).await, [chunk(1)]);
    assert_eq!(index.count(acme).await.expect("a count"), 2);
}

pub(super) async fn points_without_vector_are_found_by_words(index: &dyn Index) {
    let acme = tenant(6);
    index
        .upsert(
            acme,
            vec![Point {
                vector: None,
                ..point(1, "keyword only")
            }],
        )
        .await
        .expect("stored");

    assert_eq!(found(index, acme, by_words("keyword")).await, [chunk(1)]);
    assert_eq!(found(index, acme, by_vector(vector(1))).await, []);
    let hybrid = SearchQuery {
        vector: Some(vector(1)),
        ..by_words("keyword")
    };
    let hits = hits(index, acme, hybrid).await;
    assert_eq!((hits.len(), hits[0].similarity), (1, None));
}

pub(super) async fn deleted_chunks_are_gone(index: &dyn Index) {
    let (acme, globex) = (tenant(7), tenant(8));
    index
        .upsert(acme, (0..20).map(|n| point(n, "common text")).collect())
        .await
        .expect("stored");
    index
        .upsert(globex, vec![point(3, "common text")])
        .await
        .expect("stored");

    index
        .delete_chunks(acme, vec![chunk(3), chunk(4), chunk(3), chunk(12345)])
        .await
        .expect("deleted");
    index
        .delete_chunks(acme, vec![])
        .await
        .expect("nothing to delete");

    assert_eq!(index.count(acme).await.expect("a count"), 18);
    let left = found(
        index,
        acme,
        SearchQuery {
            limit: 50,
            ..by_words("common")
        },
    )
    .await;
    assert_eq!(left.len(), 18);
    assert!(!left.contains(&chunk(3)) && !left.contains(&chunk(4)));
    assert_eq!(index.count(globex).await.expect("a count"), 1);
}

pub(super) async fn deleted_sources_are_gone(index: &dyn Index) {
    let (acme, globex) = (tenant(13), tenant(14));
    for tenant_id in [acme, globex] {
        index
            .upsert(tenant_id, (0..300).map(|n| point(n, "common text")).collect())
            .await
            .expect("stored");
    }

    index
        .delete_sources(acme, vec![source(1), source(99)])
        .await
        .expect("deleted");
    index
        .delete_sources(acme, vec![])
        .await
        .expect("no sources are none, not all");

    let everything = SearchQuery {
        vector: Some(vector(1)),
        limit: 500,
        ..by_words("common")
    };
    let left: BTreeSet<ChunkId> = found(index, acme, everything).await.into_iter().collect();
    assert_eq!(left, (0..100).chain(200..300).map(chunk).collect());
    assert_eq!(index.count(acme).await.expect("a count"), 200);
    assert_eq!(index.count(globex).await.expect("a count"), 300);
}

pub(super) async fn deleted_documents_are_gone(index: &dyn Index) {
    let (acme, globex) = (tenant(9), tenant(10));
    for tenant_id in [acme, globex] {
        index
            .upsert(tenant_id, (0..30).map(|n| point(n, "common text")).collect())
            .await
            .expect("stored");
    }

    index
        .delete_documents(acme, vec![document(1), document(999)])
        .await
        .expect("deleted");
    index
        .delete_documents(acme, vec![])
        .await
        .expect("no documents are none, not all");

    let left: BTreeSet<ChunkId> = found(
        index,
        acme,
        SearchQuery {
            limit: 50,
            ..by_words("common")
        },
    )
    .await
    .into_iter()
    .collect();
    let expected: BTreeSet<ChunkId> = (0..10).chain(20..30).map(chunk).collect();
    assert_eq!(left, expected);
    assert_eq!(index.count(acme).await.expect("a count"), 20);
    assert_eq!(index.count(globex).await.expect("a count"), 30);
}
