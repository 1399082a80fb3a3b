//! What every index backend must do. Each rule is a function over `&dyn Index` on an empty index of
//! [`DIMENSION`](crate::samples::DIMENSION) values; a backend's tests call [`all`].

use std::collections::BTreeSet;
use std::sync::Arc;

use retrieval::index::{Filter, Index, IndexError, Point, SearchQuery};
use retrieval::{ChunkId, DocumentId};

use crate::samples::{
    DIMENSION, all_sources, by_vector, by_words, chunk, document, found, point, source, tenant, vector,
};

/// Runs every rule, each with tenants of its own, so that one index serves them all.
pub(crate) async fn all(index: Arc<dyn Index>) {
    an_unknown_tenant_finds_nothing(&*index).await;
    stored_points_are_found_by_words_and_by_vector(&*index).await;
    a_hit_carries_its_scores(&*index).await;
    an_upsert_replaces_the_whole_point(&*index).await;
    of_repeated_ids_the_last_wins(&*index).await;
    points_without_vector_are_found_by_words(&*index).await;
    deleted_chunks_are_gone(&*index).await;
    deleted_documents_are_gone(&*index).await;
    filters_let_through_what_they_name(&*index).await;
    empty_filters_find_nothing(&*index).await;
    tenants_with_the_same_chunks_never_touch(&*index).await;
    deleting_a_tenant_leaves_the_others(&*index).await;
    a_wrong_dimension_is_refused_and_nothing_is_lost(&*index).await;
    values_that_are_no_numbers_are_refused(&*index).await;
    texts_of_every_script_are_found(&*index).await;
    odd_texts_and_questions_do_no_harm(&*index).await;
    limits_are_kept(&*index).await;
    nearest_is_exactly_what_brute_force_finds(&*index).await;
    writers_and_readers_work_at_once(index.clone()).await;
    a_closed_index_says_so(&*index).await;
}

async fn an_unknown_tenant_finds_nothing(index: &dyn Index) {
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

async fn stored_points_are_found_by_words_and_by_vector(index: &dyn Index) {
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

async fn a_hit_carries_its_scores(index: &dyn Index) {
    let acme = tenant(3);
    index
        .upsert(acme, vec![point(1, "warranty terms"), point(2, "opening hours")])
        .await
        .expect("stored");

    let query = SearchQuery {
        vector: Some(vector(1)),
        ..by_words("warranty")
    };
    let hits = index.search(acme, query).await.expect("hits");

    assert_eq!(hits.len(), 2);
    let (first, second) = (hits[0], hits[1]);
    assert_eq!((first.chunk_id, first.document_id), (chunk(1), document(0)));
    assert!(
        (first.score - 1.0).abs() < 1e-6,
        "first in both rankings: {}",
        first.score
    );
    assert!((first.similarity.expect("compared") - 1.0).abs() < 1e-5);
    assert!(first.keyword_score.expect("has the word") > 0.0);
    assert!(second.score < first.score && second.score > 0.0);
    assert!(second.similarity.expect("compared") < 0.99);
    assert_eq!(second.keyword_score, None);

    let by_words_only = index.search(acme, by_words("opening")).await.expect("hits");
    assert_eq!(by_words_only[0].similarity, None);
    assert!((by_words_only[0].score - 1.0).abs() < 1e-6);
}

async fn an_upsert_replaces_the_whole_point(index: &dyn Index) {
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
    let hits = index.search(acme, by_vector(vector(99))).await.expect("hits");
    assert!((hits[0].similarity.expect("compared") - 1.0).abs() < 1e-5);
    assert_eq!(hits[0].document_id, document(7));
    let in_old_source = Filter {
        sources: vec![source(0)],
        documents: None,
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

async fn of_repeated_ids_the_last_wins(index: &dyn Index) {
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

async fn points_without_vector_are_found_by_words(index: &dyn Index) {
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
    let hits = index.search(acme, hybrid).await.expect("hits");
    assert_eq!((hits.len(), hits[0].similarity), (1, None));
}

async fn deleted_chunks_are_gone(index: &dyn Index) {
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

async fn deleted_documents_are_gone(index: &dyn Index) {
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

async fn filters_let_through_what_they_name(index: &dyn Index) {
    let acme = tenant(11);
    index
        .upsert(acme, (0..300).map(|n| point(n, "common text")).collect())
        .await
        .expect("stored");
    let documents_of = async |filter: Filter| -> BTreeSet<DocumentId> {
        let query = SearchQuery {
            filter,
            limit: 500,
            vector: Some(vector(5)),
            ..by_words("common")
        };
        let hits = index.search(acme, query).await.expect("hits");
        hits.into_iter().map(|hit| hit.document_id).collect()
    };

    let of_source = documents_of(Filter {
        sources: vec![source(1)],
        documents: None,
    })
    .await;
    assert_eq!(of_source, (10..20).map(document).collect());
    let of_two = documents_of(Filter {
        sources: vec![source(0), source(2)],
        documents: None,
    })
    .await;
    assert_eq!(of_two, (0..10).chain(20..30).map(document).collect());
    let of_documents = documents_of(Filter {
        documents: Some(vec![document(3), document(15)]),
        ..all_sources()
    })
    .await;
    assert_eq!(of_documents, [document(3), document(15)].into());
    // A document outside the sources is outside.
    let outside = Filter {
        sources: vec![source(0)],
        documents: Some(vec![document(15)]),
    };
    assert_eq!(documents_of(outside).await, BTreeSet::new());
}

async fn empty_filters_find_nothing(index: &dyn Index) {
    let acme = tenant(12);
    index
        .upsert(acme, vec![point(1, "common text")])
        .await
        .expect("stored");

    let no_source = Filter {
        sources: vec![],
        documents: None,
    };
    assert_eq!(
        found(
            index,
            acme,
            SearchQuery {
                filter: no_source,
                ..by_words("common")
            }
        )
        .await,
        []
    );
    let no_document = Filter {
        documents: Some(vec![]),
        ..all_sources()
    };
    assert_eq!(
        found(
            index,
            acme,
            SearchQuery {
                filter: no_document,
                ..by_vector(vector(1))
            }
        )
        .await,
        []
    );
}

async fn tenants_with_the_same_chunks_never_touch(index: &dyn Index) {
    // The very same ids, texts and vectors.
    let tenants: Vec<_> = (20..28).map(tenant).collect();
    for tenant_id in &tenants {
        index
            .upsert(*tenant_id, (0..10).map(|n| point(n, "identical text")).collect())
            .await
            .expect("stored");
    }
    let changed = tenants[3];
    index
        .upsert(changed, vec![point(1, "private remark")])
        .await
        .expect("replaced");
    index
        .delete_chunks(changed, vec![chunk(2)])
        .await
        .expect("deleted");

    for tenant_id in &tenants {
        let expected = if *tenant_id == changed { 9 } else { 10 };
        assert_eq!(index.count(*tenant_id).await.expect("a count"), expected);
        let hybrid = SearchQuery {
            vector: Some(vector(1)),
            limit: 100,
            ..by_words("identical text")
        };
        assert_eq!(found(index, *tenant_id, hybrid).await.len() as u64, expected);
        let private = found(index, *tenant_id, by_words("private remark")).await;
        assert_eq!(private.is_empty(), *tenant_id != changed);
    }
}

async fn deleting_a_tenant_leaves_the_others(index: &dyn Index) {
    let tenants: Vec<_> = (30..38).map(tenant).collect();
    for tenant_id in &tenants {
        index
            .upsert(*tenant_id, (0..5).map(|n| point(n, "some text")).collect())
            .await
            .expect("stored");
    }

    index.delete_tenant(tenants[2]).await.expect("deleted");

    for tenant_id in &tenants {
        let expected = if *tenant_id == tenants[2] { 0 } else { 5 };
        assert_eq!(index.count(*tenant_id).await.expect("a count"), expected);
        assert_eq!(
            found(index, *tenant_id, by_words("text")).await.len() as u64,
            expected
        );
    }
    index
        .upsert(tenants[2], vec![point(1, "back again")])
        .await
        .expect("a deleted tenant may come back");
    assert_eq!(found(index, tenants[2], by_words("again")).await, [chunk(1)]);
}

async fn a_wrong_dimension_is_refused_and_nothing_is_lost(index: &dyn Index) {
    let acme = tenant(40);
    index
        .upsert(acme, vec![point(1, "kept text")])
        .await
        .expect("stored");

    let wrong = Point {
        vector: Some(vec![0.5; DIMENSION + 1]),
        ..point(1, "lost text")
    };
    let error = index
        .upsert(acme, vec![point(2, "never stored"), wrong])
        .await
        .expect_err("another model's vector");
    assert!(
        matches!(error, IndexError::DimensionMismatch { expected: DIMENSION, actual } if actual == DIMENSION + 1),
        "{error}"
    );
    let error = index
        .search(acme, by_vector(vec![0.5; 3]))
        .await
        .expect_err("another model's question");
    assert!(
        matches!(error, IndexError::DimensionMismatch { actual: 3, .. }),
        "{error}"
    );

    assert_eq!(found(index, acme, by_words("kept text")).await, [chunk(1)]);
    assert_eq!(found(index, acme, by_words("never stored")).await, []);
    assert_eq!(index.count(acme).await.expect("a count"), 1);
}

async fn values_that_are_no_numbers_are_refused(index: &dyn Index) {
    let acme = tenant(41);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = vector(1);
        values[3] = bad;
        let stored = index
            .upsert(
                acme,
                vec![Point {
                    vector: Some(values.clone()),
                    ..point(1, "text")
                }],
            )
            .await;
        assert!(matches!(stored, Err(IndexError::Refused { .. })), "{bad}");
        let asked = index.search(acme, by_vector(values)).await;
        assert!(matches!(asked, Err(IndexError::Refused { .. })), "{bad}");
    }
    assert_eq!(index.count(acme).await.expect("a count"), 0);
}

async fn texts_of_every_script_are_found(index: &dyn Index) {
    let acme = tenant(42);
    let texts = [
        ("Die Rückgabe der Ware ist binnen 30 Tagen möglich.", "Rückgabe"),
        ("Возврат товара возможен в течение 30 дней.", "возврат"),
        ("您可以在三十天内退货。", "退货"),
        ("商品は30日以内に返品できます。", "返品"),
        ("상품은 30일 이내에 반품할 수 있습니다.", "반품"),
        ("ลูกค้าสามารถคืนสินค้าได้ภายในสามสิบวัน", "คืนสินค้า"),
        ("يمكن إرجاع البضائع خلال ثلاثين يومًا", "البضائع"),
        ("सामान तीस दिनों के भीतर लौटाया जा सकता है", "सामान"),
        ("Emoji 🎁 gift wrapping, part XK-4711/b", "4711"),
    ];
    let points = texts
        .iter()
        .zip(0..)
        .map(|((text, _), n)| point(n, text))
        .collect();
    index.upsert(acme, points).await.expect("stored");

    for ((text, question), n) in texts.iter().zip(0..) {
        assert_eq!(
            found(index, acme, by_words(question)).await,
            [chunk(n)],
            "{question} in {text}"
        );
    }
}

async fn odd_texts_and_questions_do_no_harm(index: &dyn Index) {
    let acme = tenant(43);
    let long = "endless ".repeat(20_000);
    let texts = [
        "",
        " \n\t ",
        "!?…",
        "\0\u{feff}\u{202e}",
        "the of and",
        long.as_str(),
    ];
    index
        .upsert(
            acme,
            texts.iter().zip(0..).map(|(text, n)| point(n, text)).collect(),
        )
        .await
        .expect("stored");
    assert_eq!(index.count(acme).await.expect("a count"), texts.len() as u64);

    for question in texts {
        index
            .search(acme, by_words(question))
            .await
            .expect("an answer, if an empty one");
    }
    assert_eq!(found(index, acme, by_words("endless")).await, [chunk(5)]);
    assert_eq!(found(index, acme, by_words("")).await, []);
    let zero = by_vector(vec![0.0; DIMENSION]);
    index
        .search(acme, zero)
        .await
        .expect("a vector without direction is no error");
}

async fn limits_are_kept(index: &dyn Index) {
    let acme = tenant(44);
    index
        .upsert(acme, (0..120).map(|n| point(n, "common text")).collect())
        .await
        .expect("stored");

    for limit in [0, 1, 7, 119, 120, 1_000] {
        let query = SearchQuery {
            vector: Some(vector(1)),
            limit,
            ..by_words("common")
        };
        let hits = index.search(acme, query).await.expect("hits");
        assert_eq!(hits.len(), limit.min(120));
        assert!(hits.windows(2).all(|pair| pair[0].score >= pair[1].score));
        let distinct: BTreeSet<ChunkId> = hits.iter().map(|hit| hit.chunk_id).collect();
        assert_eq!(distinct.len(), hits.len());
    }
}

async fn nearest_is_exactly_what_brute_force_finds(index: &dyn Index) {
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
            .map(|n| {
                let cosine = vector(n).iter().zip(&asked).map(|(a, b)| a * b).sum::<f32>();
                (cosine, chunk(n.into()))
            })
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

async fn writers_and_readers_work_at_once(index: Arc<dyn Index>) {
    const WRITERS: u64 = 6;
    const BATCHES: u64 = 20;
    const BATCH: u64 = 10;
    let mut tasks = Vec::new();
    for writer in 0..WRITERS {
        let index = index.clone();
        tasks.push(tokio::spawn(async move {
            // Two writers share each tenant.
            let tenant_id = tenant(50 + u128::from(writer / 2));
            let first = (writer % 2) * BATCHES * BATCH;
            for batch in 0..BATCHES {
                let start = first + batch * BATCH;
                let points = (start..start + BATCH)
                    .map(|n| point(n, "written at once"))
                    .collect();
                index.upsert(tenant_id, points).await.expect("stored");
                // What was acknowledged is seen by the next search.
                let own = found(&*index, tenant_id, by_vector(vector(start))).await;
                assert_eq!(own[0], chunk(start.into()));
            }
        }));
    }
    for reader in 0..4 {
        let index = index.clone();
        tasks.push(tokio::spawn(async move {
            for _ in 0..50 {
                let hits = found(&*index, tenant(50 + reader % 3), by_words("written")).await;
                assert!(hits.len() <= 10);
            }
        }));
    }
    for task in tasks {
        task.await.expect("no task panicked");
    }
    for tenant_id in (50..53).map(tenant) {
        assert_eq!(
            index.count(tenant_id).await.expect("a count"),
            2 * BATCHES * BATCH
        );
    }
}

async fn a_closed_index_says_so(index: &dyn Index) {
    index.close().await.expect("closed");
    index.close().await.expect("closed twice is closed");

    assert!(matches!(index.check().await, Err(IndexError::Unavailable { .. })));
    let stored = index.upsert(tenant(2), vec![point(1, "too late")]).await;
    assert!(matches!(stored, Err(IndexError::Unavailable { .. })));
    let asked = index.search(tenant(2), by_words("goods")).await;
    assert!(matches!(asked, Err(IndexError::Unavailable { .. })));
}
