//! Filters let through what they name, and tenants never touch.

use std::collections::BTreeSet;

use retrieval::DocumentId;
use retrieval::index::{Filter, Index, SearchQuery};

use crate::samples::{
    all_sources, by_vector, by_words, chunk, document, document_of, found, hits, point, source, tenant,
    vector,
};

pub(super) async fn filters_let_through_what_they_name(index: &dyn Index) {
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
        let hits = hits(index, acme, query).await;
        hits.into_iter().map(|hit| document_of(hit.chunk_id)).collect()
    };

    let of_source = documents_of(Filter {
        sources: vec![source(1)],
        ..Filter::default()
    })
    .await;
    assert_eq!(of_source, (10..20).map(document).collect());
    let of_two = documents_of(Filter {
        sources: vec![source(0), source(2)],
        ..Filter::default()
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
        ..Filter::default()
    };
    assert_eq!(documents_of(outside).await, BTreeSet::new());
}

pub(super) async fn empty_filters_find_nothing(index: &dyn Index) {
    let acme = tenant(12);
    index
        .upsert(acme, vec![point(1, "common text")])
        .await
        .expect("stored");

    let no_source = Filter {
        sources: vec![],
        ..Filter::default()
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

pub(super) async fn tenants_with_the_same_chunks_never_touch(index: &dyn Index) {
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

pub(super) async fn deleting_a_tenant_leaves_the_others(index: &dyn Index) {
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

pub(super) async fn scores_do_not_depend_on_other_tenants(index: &dyn Index) {
    let (acme, globex) = (tenant(60), tenant(61));
    let texts = ["refund of goods", "goods", "delivery of goods"];
    for tenant_id in [acme, globex] {
        let points = texts.iter().zip(0..).map(|(text, n)| point(n, text)).collect();
        index.upsert(tenant_id, points).await.expect("stored");
    }
    let scores = async |tenant_id| -> Vec<_> {
        let hits = hits(index, tenant_id, by_words("refund goods")).await;
        hits.into_iter()
            .map(|hit| (hit.chunk_id, hit.keyword_score))
            .collect()
    };
    let before = scores(acme).await;
    assert_eq!(before[0].0, chunk(0), "the rare word decides");

    // A crowd that uses the rare word all the time.
    for other in (70..80).map(tenant) {
        let points = (0..50).map(|n| point(n, "refund refund refund")).collect();
        index.upsert(other, points).await.expect("stored");
    }

    assert_eq!(scores(acme).await, before);
    assert_eq!(scores(globex).await, before);
}

pub(super) async fn each_of_many_tenants_finds_its_own(index: &dyn Index) {
    let tenants: Vec<_> = (1_000..2_000).map(tenant).collect();
    for (n, tenant_id) in (0..).zip(&tenants) {
        let points = vec![point(n, "text of many"), point(n + 1, "text of many")];
        index.upsert(*tenant_id, points).await.expect("stored");
    }

    for (n, tenant_id) in (0..).zip(&tenants) {
        let hybrid = SearchQuery {
            vector: Some(vector(n)),
            ..by_words("text")
        };
        // By meaning alone as well: a graph of everybody's that is filtered afterwards finds hardly any of one's own.
        for asked in [hybrid, by_vector(vector(n))] {
            let mut hits = found(index, *tenant_id, asked).await;
            hits.sort_unstable();
            assert_eq!(hits, [chunk(n.into()), chunk((n + 1).into())]);
        }
    }
}
