//! The keyword side against a plain list of chunks, whatever is done to both.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// What a test does to two tenants' chunks.
#[derive(Debug, Clone)]
enum Step {
    Upsert {
        tenant: u128,
        chunk: u128,
        terms: BTreeMap<u32, u8>,
    },
    DeleteChunk {
        tenant: u128,
        chunk: u128,
    },
    DeleteDocument {
        tenant: u128,
        document: u128,
    },
    DeleteSource {
        tenant: u128,
        source: u128,
    },
    DeleteTenant {
        tenant: u128,
    },
    SetGroups {
        tenant: u128,
        document: u128,
        is_restricted: bool,
    },
    Checkpoint,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let terms = prop::collection::btree_map(prop_oneof![0_u32..6, Just(u32::MAX)], 1_u8..=255, 0..5);
    let step = prop_oneof![
        12 => (0_u128..2, 0_u128..30, terms).prop_map(|(tenant, chunk, terms)| Step::Upsert { tenant, chunk, terms }),
        2 => (0_u128..2, 0_u128..30).prop_map(|(tenant, chunk)| Step::DeleteChunk { tenant, chunk }),
        1 => (0_u128..2, 0_u128..10).prop_map(|(tenant, document)| Step::DeleteDocument { tenant, document }),
        1 => (0_u128..2, 0_u128..4).prop_map(|(tenant, source)| Step::DeleteSource { tenant, source }),
        1 => (0_u128..2).prop_map(|tenant| Step::DeleteTenant { tenant }),
        4 => (0_u128..2, 0_u128..10, any::<bool>())
            .prop_map(|(tenant, document, is_restricted)| Step::SetGroups { tenant, document, is_restricted }),
        4 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

#[derive(Default)]
struct Model {
    chunks: BTreeMap<(u128, u128), BTreeMap<u32, u8>>,
    /// Documents that only staff may read.
    restricted: BTreeSet<(u128, u128)>,
}

impl Model {
    /// Forgets what is said of documents that are not there.
    fn tidy(&mut self) {
        let chunks = &self.chunks;
        self.restricted.retain(|(owner, document)| {
            chunks
                .keys()
                .any(|(tenant, chunk)| (*tenant, chunk / 3) == (*owner, *document))
        });
    }

    fn groups(&self, tenant: u128, document: u128) -> Facets {
        let is_restricted = self.restricted.contains(&(tenant, document));
        Facets {
            groups: if is_restricted {
                vec!["staff".to_owned()]
            } else {
                vec![]
            },
            ..Facets::default()
        }
    }
}

/// The chunks of the tenant in these sources that have one of the terms.
fn expected(
    model: &Model,
    tenant: u128,
    sources: &[u128],
    terms: &[u32],
    audience: &Audience,
) -> BTreeSet<ChunkId> {
    let chunks = model.chunks.iter().filter(|((owner, _), _)| *owner == tenant);
    chunks
        .filter(|((_, chunk), _)| audience.may_read(&model.groups(tenant, chunk / 3).groups))
        .filter(|((_, chunk), _)| sources.contains(&(chunk / 9)))
        .filter(|(_, has)| terms.iter().any(|term| has.contains_key(term)))
        .map(|((_, n), _)| chunk(*n))
        .collect()
}

fn check(keywords: &Keywords, model: &Model) -> Result<(), TestCaseError> {
    for owner in 0..2 {
        let chunks = model.chunks.keys().filter(|(tenant, _)| *tenant == owner);
        let chunks: Vec<u128> = chunks.map(|(_, chunk)| *chunk).collect();
        prop_assert_eq!(keywords.count(tenant(owner)), chunks.len() as u64);
        let mut listed = keywords.list(tenant(owner), None, 5).expect("a list");
        while let Some(more) = listed
            .last()
            .map(|last| {
                keywords
                    .list(tenant(owner), Some(last.chunk_id), 5)
                    .expect("a list")
            })
            .filter(|more| !more.is_empty())
        {
            listed.extend(more);
        }
        let listed: Vec<(u128, u64)> = listed
            .iter()
            .map(|row| (row.chunk_id.0.as_u128(), row.text_hash))
            .collect();
        prop_assert_eq!(
            listed,
            chunks
                .iter()
                .map(|chunk| (*chunk, text_hash(*chunk)))
                .collect::<Vec<_>>()
        );
        let staff = Audience::Groups(vec!["staff".to_owned()]);
        for (sources, terms, audience) in [
            (
                vec![0, 1, 2, 3],
                vec![0, 1, 2, 3, 4, 5, u32::MAX],
                Audience::Everything,
            ),
            (
                vec![0, 1, 2, 3],
                vec![0, 1, 2, 3, 4, 5, u32::MAX],
                Audience::default(),
            ),
            (vec![1], vec![2, 3], staff),
            (vec![0, 2], vec![u32::MAX], Audience::default()),
        ] {
            let filter = Filter {
                sources: sources.iter().map(|n| source(*n)).collect(),
                audience: audience.clone(),
                ..Filter::default()
            };
            let filter = TenantFilter::matching(tenant(owner), &filter).expect("something may match");
            let asked = QueryTerms {
                hashes: terms.clone(),
                words: (0..).take(terms.len()).collect(),
                ..QueryTerms::default()
            };
            let all = keywords.search(&filter, &asked, 100).expect("an answer").hits;
            prop_assert!(all.windows(2).all(|pair| pair[0].score >= pair[1].score));
            prop_assert!(all.iter().all(|hit| hit.score > 0.0));
            let ids: BTreeSet<ChunkId> = all.iter().map(|hit| hit.chunk_id).collect();
            prop_assert_eq!(ids.len(), all.len());
            prop_assert_eq!(ids, expected(model, owner, &sources, &terms, &audience));
            let best = keywords.search(&filter, &asked, 3).expect("an answer").hits;
            let scores = |hits: &[search::Found]| hits.iter().map(|hit| hit.score).collect::<Vec<_>>();
            prop_assert_eq!(scores(&best), scores(&all[..all.len().min(3)]));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn whatever_happens_exactly_the_chunks_that_are_there_are_found(steps in steps()) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut keywords = Keywords::open(dir.path()).expect("a new directory");
        let mut model = Model::default();
        for step in steps {
            let (owner, change) = match step {
                Step::Checkpoint => {
                    keywords.checkpoint().expect("written");
                    check(&keywords, &model)?;
                    continue;
                }
                Step::Reopen => {
                    keywords.checkpoint().expect("written");
                    keywords = Keywords::open(dir.path()).expect("the same directory");
                    continue;
                }
                Step::Upsert { tenant, chunk, terms } => {
                    let sparse = SparseTerms {
                        hashes: terms.keys().copied().collect(),
                        weights: terms.values().map(|weight| f32::from(*weight) / 116.0).collect(),
                    };
                    model.chunks.insert((tenant, chunk), terms);
                    let facets = model.groups(tenant, chunk / 3);
                    (tenant, Change::Upsert(vec![PreparedPoint { facets, ..point(chunk, sparse) }]))
                }
                Step::DeleteChunk { tenant, chunk: n } => {
                    model.chunks.remove(&(tenant, n));
                    (tenant, Change::DeleteChunks(vec![chunk(n)]))
                }
                Step::DeleteDocument { tenant, document: n } => {
                    model.chunks.retain(|(owner, chunk), _| (*owner, chunk / 3) != (tenant, n));
                    (tenant, Change::DeleteDocuments(vec![document(n)]))
                }
                Step::DeleteTenant { tenant } => {
                    model.chunks.retain(|(owner, _), _| *owner != tenant);
                    (tenant, Change::DeleteTenant)
                }
                Step::DeleteSource { tenant, source: n } => {
                    model.chunks.retain(|(owner, chunk), _| (*owner, chunk / 9) != (tenant, n));
                    (tenant, Change::DeleteSources(vec![source(n)]))
                }
                Step::SetGroups { tenant, document: n, is_restricted } => {
                    match is_restricted {
                        true => model.restricted.insert((tenant, n)),
                        false => model.restricted.remove(&(tenant, n)),
                    };
                    model.tidy();
                    (tenant, Change::SetFacets(vec![(document(n), Facets {
                        groups: if is_restricted { vec!["staff".to_owned()] } else { vec![] },
                        ..Facets::default()
                    })]))
                }
            };
            model.tidy();
            keywords.apply(&Operation { tenant_id: tenant(owner), change }).expect("applied");
        }
        check(&keywords, &model)?;
    }
}
