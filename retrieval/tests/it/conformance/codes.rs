//! Codes: found by parts that nobody wrote so, and told from each other where nothing else tells texts apart.

use retrieval::analysis::TextLanguages;
use retrieval::index::{Audience, Facets, Filter, Index, Point, SearchQuery};
use retrieval::question::{ModelTraits, Question};

use crate::samples::{all_sources, by_words, chunk, document, found, point, source, tenant, vector};

pub(super) async fn codes_that_nobody_wrote_so_are_found_by_their_parts(index: &dyn Index) {
    let acme = tenant(100);
    let texts = [
        "Write to www.example.com for spare parts.",
        "The WH-1000XM5 has a plug of 3.5mm.",
        "Batteries are 12.50 francs.",
        "The hall seats 2,500 people.",
        "Release v1.2.3 is out.",
        "Release v1.2.4 is out.",
    ];
    let points = texts.iter().zip(0..).map(|(text, n)| point(n, text));
    index.upsert(acme, points.collect()).await.expect("stored");
    // What another tenant wrote whole is not what this one has.
    let neighbour = vec![point(1, "example.com, XM5"), point(2, "v1.2.3 of XM5")];
    index.upsert(tenant(101), neighbour).await.expect("stored");

    for (question, expected) in [
        ("example.com", vec![chunk(0)]),
        ("XM5", vec![chunk(1)]),
        ("3.5 mm", vec![chunk(1)]),
        ("12.5", vec![chunk(2)]),
        ("2500", vec![chunk(3)]),
        ("2'500 people", vec![chunk(3)]),
        ("v1.2.3", vec![chunk(4)]),
        ("10.0.0.1", vec![]),
    ] {
        let found = found(index, acme, by_words(question)).await;
        assert_eq!(found, expected, "{question}");
    }
}

/// Another source has the codes whole, and so does a document that not everybody may read, and one that was deleted.
pub(super) async fn a_code_that_a_search_may_not_see_keeps_nobody_from_its_parts(index: &dyn Index) {
    let acme = tenant(103);
    let restricted = Facets {
        groups: vec!["staff".to_owned()],
        ..Facets::default()
    };
    let points = vec![
        point(0, "The WH-1000XM5 comes with a case."),
        point(1, "Write to www.example.com for spare parts."),
        point(100, "The XM5 is sold by example.com."),
        Point {
            facets: restricted,
            ..point(10, "The margin on the XM5 is 40 percent, as example.com says.")
        },
        point(20, "XM5, example.com"),
    ];
    index.upsert(acme, points).await.expect("stored");
    index
        .delete_documents(acme, vec![document(2)])
        .await
        .expect("deleted");
    let ask = async |question: &str, sources: &[u128], audience: &Audience| {
        let filter = Filter {
            sources: sources.iter().copied().map(source).collect(),
            audience: audience.clone(),
            ..all_sources()
        };
        let query = SearchQuery {
            filter,
            ..by_words(question)
        };
        let candidates = index.search(acme, query).await.expect("an answer");
        let mut found: Vec<_> = candidates.hits.iter().map(|hit| hit.chunk_id).collect();
        found.sort();
        (found, candidates.names_rare_code)
    };
    let (nobody, staff) = (
        Audience::Groups(Vec::new()),
        Audience::Groups(vec!["staff".to_owned()]),
    );

    assert_eq!(ask("XM5", &[0], &nobody).await, (vec![chunk(0)], false));
    assert_eq!(ask("example.com", &[0], &nobody).await.0, [chunk(1)]);
    assert_eq!(ask("XM5", &[0], &staff).await, (vec![chunk(10)], true));
    assert_eq!(ask("example.com", &[0], &staff).await.0, [chunk(10)]);
    assert_eq!(ask("XM5", &[0, 1], &nobody).await, (vec![chunk(100)], true));
}

pub(super) async fn what_names_a_rare_code_comes_first_among_texts_that_are_alike(index: &dyn Index) {
    let acme = tenant(102);
    let text = |n: u64| format!("Table T{n} is oiled {n} times a year, with wax and a cloth.");
    let points: Vec<Point> = (1_200..1_260).map(|n| point(n, &text(n))).collect();
    index.upsert(acme, points).await.expect("stored");
    let asked = vector(5_000_000);
    let cosine = |n: u64| -> f32 { asked.iter().zip(vector(n)).map(|(a, b)| a * b).sum() };
    let farthest = (1_200..1_260).min_by(|a, b| cosine(*a).total_cmp(&cosine(*b)));
    let farthest = farthest.expect("one of them");

    let question = Question::of(
        &format!("How often is table T{farthest} oiled?"),
        ModelTraits::default(),
        &TextLanguages::default(),
    );
    let query = question.query(Some(asked.clone()), all_sources(), 0);
    let candidates = index.search(acme, query).await.expect("an answer");

    assert!(candidates.names_rare_code);
    let first = question.judge(&candidates).hits[0];
    assert_eq!(first.chunk_id, chunk(farthest.into()), "{first:?}");
}
