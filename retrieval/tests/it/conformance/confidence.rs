//! The order of what was found, and how sure one may be of it: the same on every backend, as both follow from the texts and
//! the vectors alone.

use std::collections::BTreeMap;

use retrieval::ChunkId;
use retrieval::analysis::TextLanguages;
use retrieval::index::{Candidate, Candidates, Facets, Index, Point, SearchQuery};
use retrieval::question::{ModelTraits, Question};
use retrieval::scan::TextScan;

use crate::samples::{all_sources, chunk, point, tenant, vector};

/// What storing weights in a byte, or vectors at half precision, may change.
const ROUNDING: f32 = 3e-3;

const SUBJECTS: [&str; 6] = [
    "Goods that came damaged may be returned within thirty days",
    "Die Lieferung der Waren dauert drei Werktage",
    "Our shop opens at nine and closes at six",
    "Shoes are returned in their own box",
    "The warranty of the XK-4711 ends after two years",
    "Gift cards are valid for three years and never returned",
];

/// Words that all, some, one and none of the texts have; codes; no words at all; and more than a server is asked about one by one.
fn questions() -> Vec<String> {
    let many = (0..200).map(|n| format!("item {n} "));
    [
        "How long may I return damaged goods?",
        "Wie lange dauert die Lieferung?",
        "XK-4711 warranty",
        "What says item7?",
        "What says item7b?",
        "Does the zeppelin fly to Lisbon?",
        "zeppelin",
        "What is it?",
        "?!",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain([many.collect()])
    .collect()
}

fn points() -> Vec<Point> {
    let text = |n: u64| format!("{}, says item{n}.", SUBJECTS[n as usize % SUBJECTS.len()]);
    // As many as a search asks of each side at least, so that both find all that they can.
    (0..90).map(|n| point(n, &text(n))).collect()
}

pub(super) async fn what_was_found_inspires_the_same_confidence_everywhere(index: &dyn Index) {
    let (acme, points) = (tenant(98), points());
    index.upsert(acme, points.clone()).await.expect("stored");
    // Who has other texts has no part in it.
    let neighbours = (0..50).map(|n| point(1_000 + n, "The zeppelin flies to Lisbon, damaged goods too."));
    index
        .upsert(tenant(99), neighbours.collect())
        .await
        .expect("stored");

    for (n, text) in (0..).zip(questions()) {
        let question = Question::of(&text, ModelTraits::default(), &TextLanguages::default());
        let query = question.query(Some(vector(4_000_000 + n)), all_sources(), 0);
        let expected = judged(&question, &reckoned(&query, &points), &points);

        let found = index.search(acme, query).await.expect("an answer");

        let found = judged(&question, &found, &points);
        assert_eq!(found.len(), expected.len(), "{text}");
        for (chunk_id, (score, confidence)) in expected {
            let (found_score, found_confidence) = found[&chunk_id];
            let (of_score, of_confidence) = (found_score - score, found_confidence - confidence);
            assert!(
                of_score.abs() < ROUNDING && of_confidence.abs() < ROUNDING,
                "{text:.60}: {chunk_id:?} has {found_score} and {found_confidence}, not {score} and {confidence}"
            );
        }
    }
}

/// Fused score and confidence of each chunk.
fn judged(question: &Question, candidates: &Candidates, points: &[Point]) -> BTreeMap<ChunkId, (f32, f32)> {
    let judged = question.judge(candidates);
    let hits = judged.hits.iter().map(|hit| {
        let point = points.iter().find(|point| point.chunk_id == hit.chunk_id);
        let text = &point.expect("one that was stored").text;
        // Nothing is known to answer signs alone.
        let confidence = judged
            .reading([text.as_str()])
            .confidence(hit, &[], text)
            .map_or(0.0, |confidence| confidence.value);
        (hit.chunk_id, (hit.score, confidence))
    });
    hits.collect()
}

/// What a search gives, without an index.
fn reckoned(query: &SearchQuery, points: &[Point]) -> Candidates {
    let mut scan = TextScan::new(query);
    for point in points {
        scan.read(point.chunk_id, &point.text, &Facets::default());
    }
    let mut candidates = scan.finish(query.limit);
    let asked = query.vector.as_deref().expect("a vector");
    for (n, point) in (0..).zip(points) {
        let cosine: f32 = asked.iter().zip(vector(n)).map(|(a, b)| a * b).sum();
        let found = candidates
            .hits
            .iter_mut()
            .find(|hit| hit.chunk_id == chunk(n.into()));
        match found {
            Some(hit) => hit.similarity = Some(cosine),
            None => candidates.hits.push(Candidate {
                chunk_id: point.chunk_id,
                similarity: Some(cosine),
                keyword_score: None,
            }),
        }
    }
    candidates
}
