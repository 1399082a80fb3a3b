//! Facets: what is said of documents is asked of their chunks, on both sides alike, and changes without their vectors.

use std::collections::BTreeSet;

use retrieval::index::{Audience, Facets, Filter, Index, Point, SearchQuery};
use retrieval::{DocumentId, TenantId};

use super::HALF_PRECISION;
use crate::samples::{
    all_sources, by_vector, by_words, chunk, document, document_of, found, hits, point, tenant, vector,
};

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn said(language: Option<&str>, tags: &[&str], date: Option<i64>, groups: &[&str]) -> Facets {
    Facets {
        language: language.map(str::to_owned),
        tags: texts(tags),
        date,
        groups: texts(groups),
    }
}

/// Those of document 0, 1, 2 and so on.
fn samples() -> Vec<Facets> {
    vec![
        said(Some("de"), &["returns"], Some(100), &[]),
        said(Some("en"), &["returns", "goods"], Some(200), &[]),
        said(None, &[], None, &[]),
        said(Some("de"), &[], Some(200), &["staff"]),
        said(Some("en"), &["goods"], None, &["staff", "sales"]),
        said(None, &["goods"], Some(-300), &["legal"]),
    ]
}

/// Chunk `n`, with the facets of its document.
fn with_facets(n: u64) -> Point {
    Point {
        facets: samples()[n as usize / 10].clone(),
        ..point(n, "common text")
    }
}

fn groups(names: &[&str]) -> Audience {
    Audience::Groups(texts(names))
}

/// The documents that both sides, and each of them alone, find with this filter: the same ones.
async fn documents_of(index: &dyn Index, tenant_id: TenantId, filter: &Filter) -> BTreeSet<DocumentId> {
    let mut answers = Vec::new();
    for query in [
        by_words("common"),
        by_vector(vector(3)),
        SearchQuery {
            vector: Some(vector(3)),
            ..by_words("common")
        },
    ] {
        let query = SearchQuery {
            filter: filter.clone(),
            limit: 500,
            ..query
        };
        let found = hits(index, tenant_id, query).await;
        let documents: BTreeSet<DocumentId> = found.iter().map(|hit| document_of(hit.chunk_id)).collect();
        answers.push(documents);
    }
    assert!(
        answers.iter().all(|answer| answer == &answers[0]),
        "words, meaning and both differ for {filter:?}: {answers:?}"
    );
    answers.remove(0)
}

pub(super) async fn each_facet_is_asked_alone_and_together(index: &dyn Index) {
    let acme = tenant(90);
    index
        .upsert(acme, (0..60).map(with_facets).collect())
        .await
        .expect("stored");
    let owner = Filter {
        audience: Audience::Everything,
        ..all_sources()
    };
    let filters: Vec<(Filter, Vec<u128>)> = vec![
        (all_sources(), vec![0, 1, 2]),
        (owner.clone(), vec![0, 1, 2, 3, 4, 5]),
        (
            Filter {
                audience: groups(&["staff"]),
                ..all_sources()
            },
            vec![0, 1, 2, 3, 4],
        ),
        (
            Filter {
                audience: groups(&["nobody", "sales"]),
                ..all_sources()
            },
            vec![0, 1, 2, 4],
        ),
        (
            Filter {
                audience: groups(&["Staff", ""]),
                ..all_sources()
            },
            vec![0, 1, 2],
        ),
        (
            Filter {
                audience: groups(&["staff", "legal"]),
                ..all_sources()
            },
            vec![0, 1, 2, 3, 4, 5],
        ),
        (
            Filter {
                languages: Some(texts(&["de"])),
                ..all_sources()
            },
            vec![0],
        ),
        (
            Filter {
                languages: Some(texts(&["de"])),
                ..owner.clone()
            },
            vec![0, 3],
        ),
        (
            Filter {
                languages: Some(texts(&["de", "en", "fr"])),
                ..owner.clone()
            },
            vec![0, 1, 3, 4],
        ),
        (
            Filter {
                languages: Some(vec![]),
                ..owner.clone()
            },
            vec![],
        ),
        (
            Filter {
                tags: Some(texts(&["goods"])),
                ..owner.clone()
            },
            vec![1, 4, 5],
        ),
        (
            Filter {
                tags: Some(texts(&["returns", "unknown"])),
                ..all_sources()
            },
            vec![0, 1],
        ),
        (
            Filter {
                tags: Some(vec![]),
                ..owner.clone()
            },
            vec![],
        ),
        (
            Filter {
                since: Some(200),
                ..owner.clone()
            },
            vec![1, 3],
        ),
        (
            Filter {
                since: Some(201),
                ..owner.clone()
            },
            vec![],
        ),
        (
            Filter {
                until: Some(200),
                ..owner.clone()
            },
            vec![0, 5],
        ),
        (
            Filter {
                since: Some(-300),
                until: Some(101),
                ..owner.clone()
            },
            vec![0, 5],
        ),
        (
            Filter {
                since: Some(100),
                until: Some(100),
                ..owner.clone()
            },
            vec![],
        ),
        (
            Filter {
                languages: Some(texts(&["de"])),
                since: Some(150),
                audience: groups(&["staff"]),
                ..all_sources()
            },
            vec![3],
        ),
        (
            Filter {
                documents: Some(vec![document(4), document(5)]),
                tags: Some(texts(&["goods"])),
                audience: groups(&["sales"]),
                ..all_sources()
            },
            vec![4],
        ),
    ];

    for (filter, expected) in filters {
        let expected: BTreeSet<DocumentId> = expected.into_iter().map(document).collect();
        assert_eq!(documents_of(index, acme, &filter).await, expected, "{filter:?}");
    }
}

pub(super) async fn facets_change_without_the_vectors(index: &dyn Index) {
    let (acme, globex) = (tenant(91), tenant(92));
    for tenant_id in [acme, globex] {
        index
            .upsert(tenant_id, (0..60).map(with_facets).collect())
            .await
            .expect("stored");
    }

    let changes = vec![
        (document(0), said(Some("fr"), &["new"], Some(900), &["staff"])),
        (document(5), Facets::default()),
        (document(77), said(None, &[], None, &["nobody"])),
    ];
    index.set_facets(acme, changes.clone()).await.expect("changed");
    index.set_facets(acme, changes).await.expect("changed again");
    index.set_facets(acme, vec![]).await.expect("nothing to change");

    let public = BTreeSet::from([document(1), document(2), document(5)]);
    assert_eq!(documents_of(index, acme, &all_sources()).await, public);
    let new = Filter {
        languages: Some(texts(&["fr"])),
        tags: Some(texts(&["new"])),
        since: Some(900),
        audience: groups(&["staff"]),
        ..all_sources()
    };
    assert_eq!(documents_of(index, acme, &new).await, [document(0)].into());
    let old = Filter {
        languages: Some(texts(&["de"])),
        audience: Audience::Everything,
        ..all_sources()
    };
    assert_eq!(documents_of(index, acme, &old).await, [document(3)].into());
    assert_eq!(documents_of(index, globex, &new).await, BTreeSet::new());
    assert_eq!(index.count(acme).await.expect("a count"), 60);
    let staff = SearchQuery {
        filter: Filter {
            audience: groups(&["staff"]),
            ..all_sources()
        },
        ..by_vector(vector(4))
    };
    let nearest = hits(index, acme, staff).await;
    assert_eq!(nearest[0].chunk_id, chunk(4));
    assert!((nearest[0].similarity.expect("compared") - 1.0).abs() < HALF_PRECISION);
    index
        .upsert(acme, vec![point(770, "late")])
        .await
        .expect("stored");
    assert_eq!(
        found(index, acme, by_words("late")).await,
        [chunk(770)],
        "what was said of a document that was not there is forgotten"
    );
}

pub(super) async fn what_was_said_last_holds_for_the_whole_document(index: &dyn Index) {
    let acme = tenant(93);
    index
        .upsert(acme, (0..10).map(|n| point(n, "common text")).collect())
        .await
        .expect("stored");
    let restricted = said(None, &[], None, &["staff"]);
    let one = Point {
        facets: restricted.clone(),
        ..point(3, "common text")
    };
    index.upsert(acme, vec![one]).await.expect("replaced");
    index
        .set_facets(acme, vec![(document(0), restricted)])
        .await
        .expect("changed");
    assert_eq!(documents_of(index, acme, &all_sources()).await, BTreeSet::new());

    index
        .delete_documents(acme, vec![document(0)])
        .await
        .expect("deleted");
    index
        .upsert(acme, vec![point(3, "common text")])
        .await
        .expect("stored");
    assert_eq!(
        documents_of(index, acme, &all_sources()).await,
        [document(0)].into(),
        "a document that comes back begins anew"
    );
}

pub(super) async fn any_text_may_be_a_tag_or_a_group(index: &dyn Index) {
    let acme = tenant(94);
    let names = [
        "*",
        "a,b",
        "{}",
        "'; drop table chunk; --",
        "\"",
        "\\",
        "Ärzte 🩺",
        " ",
        "null",
    ];
    let points = names.iter().zip(0..).map(|(name, n)| Point {
        facets: said(None, &[name], None, &[name]),
        ..point(n * 10, "common text")
    });
    index.upsert(acme, points.collect()).await.expect("stored");

    assert_eq!(documents_of(index, acme, &all_sources()).await, BTreeSet::new());
    for (name, n) in names.iter().zip(0..) {
        let tagged = Filter {
            tags: Some(texts(&[name])),
            audience: Audience::Everything,
            ..all_sources()
        };
        let member = Filter {
            audience: groups(&[name]),
            ..all_sources()
        };
        assert_eq!(
            documents_of(index, acme, &tagged).await,
            [document(n)].into(),
            "{name}"
        );
        assert_eq!(
            documents_of(index, acme, &member).await,
            [document(n)].into(),
            "{name}"
        );
    }
}

pub(super) async fn points_are_listed_page_by_page(index: &dyn Index) {
    let (acme, globex) = (tenant(95), tenant(96));
    let mut points: Vec<Point> = (0..60).map(with_facets).collect();
    points[7].vector = None;
    index
        .upsert(acme, points.iter().rev().cloned().collect())
        .await
        .expect("stored");
    index
        .upsert(globex, vec![point(5, "of another")])
        .await
        .expect("stored");
    index
        .delete_chunks(acme, vec![chunk(2), chunk(59)])
        .await
        .expect("deleted");
    let changed = said(Some("it"), &["b", "a"], None, &["legal"]);
    index
        .set_facets(acme, vec![(document(4), changed.clone())])
        .await
        .expect("changed");
    points[40..50]
        .iter_mut()
        .for_each(|point| point.facets = changed.clone());
    points.retain(|point| ![chunk(2), chunk(59)].contains(&point.chunk_id));

    let mut listed = Vec::new();
    loop {
        let after = listed
            .last()
            .map(|point: &retrieval::index::StoredPoint| point.chunk_id);
        let page = index.list(acme, after, 7).await.expect("a page");
        let is_last = page.len() < 7;
        listed.extend(page);
        if is_last {
            break;
        }
    }

    assert_eq!(listed.len(), points.len());
    for (listed, point) in listed.iter().zip(&points) {
        assert_eq!(
            (
                listed.chunk_id,
                listed.document_id,
                listed.source_id,
                listed.fingerprint
            ),
            (
                point.chunk_id,
                point.document_id,
                point.source_id,
                point.fingerprint()
            ),
        );
    }
    assert_eq!(index.list(tenant(97), None, 10).await.expect("a page"), []);
    assert_eq!(index.list(acme, None, 0).await.expect("a page"), []);
    assert_eq!(index.list(acme, Some(chunk(60)), 10).await.expect("a page"), []);
}
