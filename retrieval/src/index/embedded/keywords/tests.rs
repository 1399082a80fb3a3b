//! The keyword side, file by file and score by score.

mod model;

use uuid::Uuid;

use super::weight::{inverse_document_frequency, quantise};
use super::*;
use crate::analysis::{self, SparseTerms};
use crate::index::embedded::operation::{Change, Operation, PreparedPoint, UNKNOWN_TEXT};
use crate::index::{Audience, Facets, Filter};
use crate::{ChunkId, SourceId};

fn tenant(n: u128) -> TenantId {
    TenantId(Uuid::from_u128(n))
}

fn chunk(n: u128) -> ChunkId {
    ChunkId(Uuid::from_u128(n))
}

fn document(n: u128) -> DocumentId {
    DocumentId(Uuid::from_u128(n))
}

fn source(n: u128) -> SourceId {
    SourceId(Uuid::from_u128(n))
}

/// Chunk `n` of document `n / 3` of source `n / 9`.
fn point(n: u128, terms: SparseTerms) -> PreparedPoint {
    PreparedPoint {
        chunk_id: chunk(n),
        document_id: document(n / 3),
        source_id: source(n / 9),
        terms,
        vector: None,
        text_hash: text_hash(n),
        facets: Facets::default(),
    }
}

fn text_hash(n: u128) -> u64 {
    1_000 + n as u64
}

fn written(n: u128, text: &str) -> PreparedPoint {
    point(n, analysis::weigh_document(text, None))
}

fn upsert(keywords: &mut Keywords, tenant_id: TenantId, points: Vec<PreparedPoint>) {
    let change = Change::Upsert(points);
    keywords.apply(&Operation { tenant_id, change }).expect("stored");
}

fn found(keywords: &Keywords, tenant_id: TenantId, text: &str) -> Vec<ChunkId> {
    let filter = TenantFilter::all(tenant_id);
    let hits = keywords
        .search(&filter, &analysis::query_terms(text, &[]), 10)
        .expect("an answer");
    hits.hits.into_iter().map(|hit| hit.chunk_id).collect()
}

#[test]
fn rows_are_the_same_whether_they_are_read_together_or_one_by_one() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut keywords = Keywords::open(dir.path()).expect("a new directory");
    let points = (0..30).map(|n| written(n, "goods may be returned")).collect();
    upsert(&mut keywords, tenant(1), points);
    keywords.checkpoint().expect("written");
    let segment = &keywords.segments[0];
    let block = segment.block(tenant(1)).expect("the tenant's block");
    let positions = [17, 0, 29, 3];

    let together = segment.chunks_at(block, &positions).expect("ids");
    let all = segment.rows(block).expect("rows");

    for (position, chunk_id) in positions.into_iter().zip(together) {
        let row = segment.row(block, position).expect("a row");
        assert_eq!(row.chunk_id, chunk_id);
        assert_eq!(all[position as usize], row);
        assert_eq!(row.text_hash, text_hash(row.chunk_id.0.as_u128()));
    }
}

#[test]
fn what_was_checkpointed_is_there_after_reopening_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut keywords = Keywords::open(dir.path()).expect("a new directory");
    upsert(
        &mut keywords,
        tenant(1),
        vec![written(1, "goods may be returned"), written(2, "")],
    );
    keywords.checkpoint().expect("written");
    upsert(&mut keywords, tenant(1), vec![written(3, "goods on their way")]);
    assert_eq!(found(&keywords, tenant(1), "goods").len(), 2);
    drop(keywords);
    std::fs::write(dir.path().join("7.segment.new"), "half of one").expect("written");
    std::fs::create_dir(dir.path().join("lost+found")).expect("a folder of the file system");

    let keywords = Keywords::open(dir.path()).expect("the same directory");

    assert_eq!(found(&keywords, tenant(1), "goods"), [chunk(1)]);
    assert_eq!(keywords.count(tenant(1)), 2);
    assert!(!dir.path().join("7.segment.new").exists());
    assert!(dir.path().join("lost+found").exists());
}

#[test]
fn deletions_of_written_chunks_are_kept_and_reclaimed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut keywords = Keywords::open(dir.path()).expect("a new directory");
    upsert(
        &mut keywords,
        tenant(1),
        (0..90).map(|n| written(n, "common words")).collect(),
    );
    keywords.checkpoint().expect("written");
    for change in [
        Change::DeleteChunks(vec![chunk(0), chunk(1), chunk(1_000)]),
        Change::DeleteDocuments(vec![document(1), document(500)]),
    ] {
        let tenant_id = tenant(1);
        keywords.apply(&Operation { tenant_id, change }).expect("deleted");
    }
    assert_eq!(keywords.count(tenant(1)), 85);
    keywords.checkpoint().expect("written");

    let mut keywords = Keywords::open(dir.path()).expect("the same directory");
    assert_eq!(keywords.count(tenant(1)), 85);
    let files = |keywords: &Keywords| std::fs::read_dir(&keywords.dir).expect("the directory").count();
    assert_eq!(files(&keywords), 3, "the segment, its deletions, the manifest");
    let change = Change::DeleteDocuments((2..20).map(document).collect());
    let tenant_id = tenant(1);
    keywords.apply(&Operation { tenant_id, change }).expect("deleted");
    keywords.checkpoint().expect("written");

    assert_eq!(keywords.count(tenant(1)), 31);
    assert_eq!(files(&keywords), 2, "a segment without deletions, the manifest");
}

#[test]
fn memory_is_counted_until_it_is_given_back() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut keywords = Keywords::open(dir.path()).expect("a new directory");
    let fill =
        |keywords: &mut Keywords| upsert(keywords, tenant(1), vec![written(1, "goods may be returned")]);

    fill(&mut keywords);
    assert!(keywords.fresh_bytes() > 0);
    keywords.checkpoint().expect("written");
    assert_eq!(keywords.fresh_bytes(), 0);

    fill(&mut keywords);
    let (tenant_id, change) = (tenant(1), Change::DeleteTenant);
    keywords.apply(&Operation { tenant_id, change }).expect("deleted");
    assert_eq!(keywords.fresh_bytes(), 0);
}

#[test]
fn many_checkpoints_leave_few_segments() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut keywords = Keywords::open(dir.path()).expect("a new directory");
    for n in 0..100 {
        upsert(&mut keywords, tenant(n % 3), vec![written(n, "common words")]);
        keywords.checkpoint().expect("written");
        assert!(keywords.segments.len() < 4);
    }
    assert_eq!((0..3).map(|n| keywords.count(tenant(n))).sum::<u64>(), 100);
}

#[test]
fn scores_do_not_depend_on_what_others_store() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut keywords = Keywords::open(dir.path()).expect("a new directory");
    let texts = |keywords: &mut Keywords, tenant_id| {
        upsert(
            keywords,
            tenant_id,
            vec![written(1, "refund of goods"), written(2, "goods")],
        );
    };
    texts(&mut keywords, tenant(1));
    let score = |keywords: &Keywords, tenant_id| {
        let filter = TenantFilter::all(tenant_id);
        let hits = keywords
            .search(&filter, &analysis::query_terms("refund", &[]), 10)
            .expect("an answer");
        hits.hits[0].score
    };
    let alone = score(&keywords, tenant(1));

    texts(&mut keywords, tenant(2));
    upsert(
        &mut keywords,
        tenant(3),
        (0..500).map(|n| written(n, "refund refund")).collect(),
    );
    keywords.checkpoint().expect("written");

    assert_eq!(score(&keywords, tenant(1)).to_bits(), alone.to_bits());
    assert_eq!(score(&keywords, tenant(2)).to_bits(), alone.to_bits());
}

#[test]
fn a_damaged_file_is_an_error_and_no_panic() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut keywords = Keywords::open(dir.path()).expect("a new directory");
    upsert(
        &mut keywords,
        tenant(1),
        (0..40).map(|n| written(n, "goods may be returned")).collect(),
    );
    keywords.checkpoint().expect("written");
    drop(keywords);
    let path = segment_path(dir.path(), 0);
    let whole = std::fs::read(&path).expect("the segment");

    let directory_start = format::u64_at(&whole, whole.len() - format::END_BYTES as usize) as usize;
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x55;
        std::fs::write(&path, &changed).expect("written");
        if let Ok(mut keywords) = Keywords::open(dir.path()) {
            drop(keywords.search(
                &TenantFilter::all(tenant(1)),
                &analysis::query_terms("goods returned", &[]),
                10,
            ));
            let (tenant_id, change) = (tenant(1), Change::DeleteChunks(vec![chunk(3)]));
            drop(keywords.apply(&Operation { tenant_id, change }));
            let checked = keywords
                .blocks()
                .into_iter()
                .try_for_each(|block| keywords.check(block));
            assert!(
                at < directory_start && checked.is_err(),
                "byte {at} is read as it is"
            );
            let all = (0..40).map(chunk).filter(|id| *id != chunk(7)).collect();
            let change = Change::DeleteChunks(all);
            drop(keywords.apply(&Operation { tenant_id, change }));
            assert!(
                !matches!(keywords.write_merged(Spare::Little), Ok(Some(_))),
                "byte {at} is carried on"
            );
        }
        std::fs::write(&path, &whole[..at]).expect("written");
        assert!(Keywords::open(dir.path()).is_err(), "cut after {at} bytes");
    }
}

#[test]
fn a_damaged_segment_stays_as_it_is_and_the_others_are_merged() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut keywords = Keywords::open(dir.path()).expect("a new directory");
    upsert(
        &mut keywords,
        tenant(1),
        vec![written(1, "goods may be returned")],
    );
    keywords.checkpoint().expect("written");
    let path = segment_path(dir.path(), 0);
    let mut changed = std::fs::read(&path).expect("the segment");
    changed[0] ^= 0x55;
    std::fs::write(&path, &changed).expect("written");

    for n in 2..=4 {
        upsert(&mut keywords, tenant(1), vec![written(n, "goods on their way")]);
        if n < 4 {
            keywords.checkpoint().expect("written");
        }
    }
    assert!(keywords.checkpoint().is_err(), "four are due to become one");
    let damaged = keywords.find_damaged(Spare::Little).expect("read");
    assert_eq!(damaged, [0].into());
    keywords.leave_out(damaged);

    for n in 5..50 {
        upsert(&mut keywords, tenant(1), vec![written(n, "goods on their way")]);
        keywords.checkpoint().expect("written");
        assert!(keywords.segments.len() < 5);
    }
    assert!(keywords.segments.iter().any(|segment| segment.number == 0));
    assert_eq!(std::fs::read(&path).expect("the segment"), changed);
    assert_eq!(keywords.count(tenant(1)), 49);
}

#[test]
fn a_segment_of_an_earlier_version_is_read_and_carried_on() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut keywords = Keywords::open(dir.path()).expect("a new directory");
    let points = (0..30).map(|n| written(n, "goods may be returned")).collect();
    upsert(&mut keywords, tenant(1), points);
    keywords.checkpoint().expect("written");
    drop(keywords);
    // Without the texts of its one block, which are the last thing before the directory, and its checksum, it is one of the
    // first version.
    let path = segment_path(dir.path(), 0);
    let bytes = std::fs::read(&path).expect("the segment");
    let end = bytes.len() - format::END_BYTES as usize;
    let texts_end = format::u64_at(&bytes, end) as usize;
    let texts_start = texts_end - 30 * format::TEXT_BYTES;
    let mut directory = bytes[texts_end..end].to_vec();
    directory.drain(48..52);
    let earlier = [
        &bytes[..texts_start],
        &directory,
        &(texts_start as u64).to_le_bytes(),
        &crc32fast::hash(&directory).to_le_bytes(),
        &format::Form::First.mark(),
    ];
    std::fs::write(&path, earlier.concat()).expect("written");

    let mut keywords = Keywords::open(dir.path()).expect("an earlier version's");
    assert_eq!(found(&keywords, tenant(1), "goods").len(), 10);
    let (tenant_id, change) = (tenant(1), Change::DeleteChunks((0..20).map(chunk).collect()));
    keywords.apply(&Operation { tenant_id, change }).expect("deleted");
    upsert(&mut keywords, tenant(1), vec![written(50, "goods")]);
    keywords.checkpoint().expect("written anew");

    let listed = keywords.list(tenant(1), Some(chunk(27)), 10).expect("a list");
    let listed: Vec<(ChunkId, u64)> = listed.iter().map(|row| (row.chunk_id, row.text_hash)).collect();
    assert_eq!(
        listed,
        [
            (chunk(28), UNKNOWN_TEXT),
            (chunk(29), UNKNOWN_TEXT),
            (chunk(50), text_hash(50))
        ]
    );
}

#[test]
fn a_file_of_facets_that_is_mostly_out_of_date_is_written_anew() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut keywords = Keywords::open(dir.path()).expect("a new directory");
    upsert(&mut keywords, tenant(1), vec![written(1, "goods")]);
    let mut numbers = BTreeSet::new();
    for round in 0..3_000 {
        let facets = Facets {
            date: Some(round),
            ..Facets::default()
        };
        let (tenant_id, change) = (tenant(1), Change::SetFacets(vec![(document(0), facets)]));
        keywords.apply(&Operation { tenant_id, change }).expect("changed");
        let persisted = keywords.persist(Spare::Little).expect("written");
        keywords.persisted(persisted).expect("noted");
        numbers.extend(keywords.facet_file.map(|file| file.number));
    }
    assert!((2..10).contains(&numbers.len()), "{} files", numbers.len());
    keywords.checkpoint().expect("written");

    let keywords = Keywords::open(dir.path()).expect("the same directory");
    assert_eq!(keywords.facets(tenant(1), document(0)).date, Some(2_999));
}

#[test]
fn a_damaged_file_of_facets_is_an_error_and_no_panic() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut keywords = Keywords::open(dir.path()).expect("a new directory");
    let restricted = PreparedPoint {
        facets: Facets {
            groups: vec!["staff".to_owned()],
            ..Facets::default()
        },
        ..written(1, "goods")
    };
    upsert(&mut keywords, tenant(1), vec![restricted]);
    keywords.checkpoint().expect("written");
    let path = facets_path(dir.path(), keywords.facet_file.expect("a file").number);
    drop(keywords);
    let whole = std::fs::read(&path).expect("the facets");

    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x55;
        std::fs::write(&path, &changed).expect("written");
        assert!(Keywords::open(dir.path()).is_err(), "byte {at}");
        std::fs::write(&path, &whole[..at]).expect("written");
        assert!(Keywords::open(dir.path()).is_err(), "cut after {at} bytes");
    }
}

#[test]
fn a_score_is_bm25_of_the_stored_weights() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut keywords = Keywords::open(dir.path()).expect("a new directory");
    let points: Vec<PreparedPoint> = (0..20)
        .map(|n| {
            written(
                n,
                ["goods", "goods and refund", "delivery of goods"][n as usize % 3],
            )
        })
        .collect();
    upsert(&mut keywords, tenant(1), points[..12].to_vec());
    keywords.checkpoint().expect("written");
    upsert(&mut keywords, tenant(1), points[12..].to_vec());

    let terms = analysis::query_terms("refund goods", &[]);
    let hits = keywords
        .search(&TenantFilter::all(tenant(1)), &terms, 50)
        .expect("an answer")
        .hits;

    assert_eq!(hits.len(), 20);
    for hit in hits {
        let sparse = &points[hit.chunk_id.0.as_u128() as usize].terms;
        let score: f32 = terms
            .hashes
            .iter()
            .filter_map(|term| {
                let at = sparse.hashes.binary_search(term).ok()?;
                let having = points
                    .iter()
                    .filter(|point| point.terms.hashes.contains(term))
                    .count();
                let kept = f32::from(quantise(sparse.weights[at])) * 2.2 / 255.0;
                Some(kept * inverse_document_frequency(20, having as u64))
            })
            .sum();
        assert!((hit.score - score).abs() < 1e-4, "{} for {score}", hit.score);
    }
}
