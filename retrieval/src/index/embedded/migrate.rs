//! Takes over shards that an earlier version wrote, where the engine kept both sides: its points are read once and stored
//! anew. A shard is the earlier version's for as long as its engine lies under the old name; a crash starts this again.
//!
//! The redo log needs nothing: its form is the same, and it is repeated afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use qdrant_edge::{
    EdgeShard, PointId, Record, ScrollRequest, VectorInternal, VectorStructInternal, WithPayloadInterface,
    WithVector,
};

use super::engine::Engine;
use super::filter;
use super::keywords::Keywords;
use super::layout::Layout;
use super::operation::{Change, Operation, PreparedPoint, UNKNOWN_TEXT};
use super::sides::SideError;
use super::stored::{self, DENSE};
use crate::analysis::SparseTerms;
use crate::index::Facets;
use crate::{DocumentId, SourceId, TenantId};

const EARLIER_ENGINE_DIR: &str = "engine";
const EARLIER_KEYWORD: &str = "keyword";

/// Points held at once.
const PAGE: usize = 1_000;

/// Pages after which the keyword side writes down what it has in memory.
const PAGES_PER_CHECKPOINT: usize = 20;

/// Moves the shard in `dir` to its present form; nothing where that has been done.
pub(super) fn take_over_earlier_version(
    dir: &Path,
    keywords_dir: &Path,
    vectors_dir: &Path,
    layout: Option<Layout>,
) -> Result<(), SideError> {
    let (earlier, done) = (dir.join(EARLIER_ENGINE_DIR), dir.join("engine.done"));
    if earlier.exists() {
        tracing::info!(shard = %dir.display(), "index shard of an earlier version is taken over");
        for unfinished in [keywords_dir, vectors_dir] {
            if unfinished.exists() {
                fs::remove_dir_all(unfinished)?;
            }
        }
        let mut keywords = Keywords::open(keywords_dir)?;
        let vectors = layout
            .map(|layout| Engine::create(vectors_dir, layout))
            .transpose()?;
        copy(&earlier, &mut keywords, vectors.as_ref())?;
        if let Some(vectors) = &vectors {
            vectors.sync();
        }
        fs::rename(&earlier, &done)?;
    }
    if done.exists() {
        fs::remove_dir_all(&done)?;
    }
    Ok(())
}

fn copy(earlier: &Path, keywords: &mut Keywords, vectors: Option<&Engine>) -> Result<(), SideError> {
    let earlier = EdgeShard::load(earlier, None)?;
    let mut offset: Option<PointId> = None;
    let mut pages = 0;
    loop {
        let (records, next) = earlier.scroll(ScrollRequest {
            offset,
            limit: Some(PAGE),
            filter: None,
            with_payload: Some(WithPayloadInterface::Bool(true)),
            with_vector: WithVector::Bool(true),
            order_by: None,
        })?;
        let mut points_of: BTreeMap<TenantId, Vec<PreparedPoint>> = BTreeMap::new();
        for (tenant_id, point) in records.into_iter().filter_map(read) {
            points_of.entry(tenant_id).or_default().push(point);
        }
        for (tenant_id, points) in points_of {
            let operation = Operation {
                tenant_id,
                change: Change::Upsert(points),
            };
            keywords.apply(&operation)?;
            if let Some(vectors) = vectors {
                vectors.apply(&operation)?;
            }
        }
        pages += 1;
        offset = next;
        if offset.is_none() || pages % PAGES_PER_CHECKPOINT == 0 {
            keywords.checkpoint()?;
        }
        if offset.is_none() {
            return Ok(());
        }
    }
}

/// What an earlier version stored as one point; `None` when it lacks what every point has.
fn read(record: Record) -> Option<(TenantId, PreparedPoint)> {
    let payload = record.payload.as_ref()?;
    let tenant_id = TenantId(stored::read_id(payload, filter::TENANT)?);
    let mut vectors = match record.vector {
        Some(VectorStructInternal::Named(vectors)) => vectors,
        _ => return None,
    };
    let terms = match vectors.remove(EARLIER_KEYWORD) {
        Some(VectorInternal::Sparse(sparse)) => SparseTerms {
            hashes: sparse.indices,
            weights: sparse.values,
        },
        // A text without words had none.
        _ => SparseTerms::default(),
    };
    let vector = match vectors.remove(DENSE) {
        Some(VectorInternal::Dense(vector)) => Some(vector),
        _ => None,
    };
    let point = PreparedPoint {
        chunk_id: filter::chunk_id(tenant_id, record.id)?,
        document_id: DocumentId(stored::read_id(payload, filter::DOCUMENT)?),
        source_id: SourceId(stored::read_id(payload, filter::SOURCE)?),
        terms,
        vector,
        text_hash: UNKNOWN_TEXT,
        facets: Facets::default(),
    };
    Some((tenant_id, point))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use qdrant_edge::{
        Distance, EdgeConfig, EdgeSparseVectorParams, EdgeVectorParams, Modifier, Payload,
        PointInsertOperations, PointOperations, PointStructPersisted, SparseVector, UpdateOperation,
        VectorPersisted, VectorStructPersisted,
    };
    use uuid::Uuid;

    use super::*;
    use crate::ChunkId;
    use crate::analysis;
    use crate::index::embedded::filter::Given;
    use crate::index::embedded::filter::TenantFilter;
    use crate::index::embedded::tuning::Tuning;

    fn tenant() -> TenantId {
        TenantId(Uuid::from_u128(7))
    }

    /// A point as the earlier version had it: both sides in one, chunk `n` of document `n + 100` of source 5.
    fn earlier_point(n: u128, text: &str, vector: Option<Vec<f32>>) -> PointStructPersisted {
        let terms = analysis::weigh_document(text, None);
        let sparse = SparseVector {
            indices: terms.hashes,
            values: terms.weights,
        };
        let mut vectors = HashMap::from([(EARLIER_KEYWORD.to_owned(), VectorPersisted::Sparse(sparse))]);
        vectors.extend(vector.map(|vector| (DENSE.to_owned(), VectorPersisted::Dense(vector))));
        let ids = [
            (filter::TENANT, tenant().0),
            (filter::SOURCE, Uuid::from_u128(5)),
            (filter::DOCUMENT, Uuid::from_u128(n + 100)),
        ];
        let payload = ids
            .into_iter()
            .map(|(field, id)| (field.to_owned(), id.to_string().into()))
            .collect();
        PointStructPersisted {
            id: filter::point_id(tenant(), ChunkId(Uuid::from_u128(n))),
            vector: VectorStructPersisted::Named(vectors),
            payload: Some(Payload(payload)),
        }
    }

    #[test]
    fn what_an_earlier_version_stored_is_found_on_both_sides() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let earlier = dir.path().join(EARLIER_ENGINE_DIR);
        fs::create_dir(&earlier).expect("a directory");
        let config = EdgeConfig::builder()
            .on_disk_payload(true)
            .sparse_vector(
                EARLIER_KEYWORD,
                EdgeSparseVectorParams::builder()
                    .on_disk(true)
                    .modifier(Modifier::Idf)
                    .build(),
            )
            .vector(DENSE, EdgeVectorParams::builder(3, Distance::Cosine).build())
            .build();
        let shard = EdgeShard::new(&earlier, config).expect("a new shard");
        let points = vec![
            earlier_point(1, "goods may be returned", Some(vec![1.0, 2.0, 2.0])),
            earlier_point(2, "", Some(vec![0.0, 1.0, 0.0])),
            earlier_point(3, "goods, in words alone", None),
        ];
        let insert = PointOperations::UpsertPoints(PointInsertOperations::PointsList(points));
        shard
            .update(UpdateOperation::PointOperation(insert))
            .expect("stored");
        drop(shard);
        let layout = Layout {
            dimension: 3,
            tuning: Tuning::default(),
            is_own: false,
        };
        let (keywords_dir, vectors_dir) = (dir.path().join("keywords"), dir.path().join("vectors"));
        // A crash in an earlier attempt left half of it.
        fs::create_dir(&keywords_dir).expect("a directory");
        fs::write(keywords_dir.join("0.segment"), "half").expect("written");

        for _ in 0..2 {
            take_over_earlier_version(dir.path(), &keywords_dir, &vectors_dir, Some(layout))
                .expect("taken over");
            assert!(!earlier.exists());
        }

        let keywords = Keywords::open(&keywords_dir).expect("the keyword side");
        assert_eq!(keywords.count(tenant()), 3);
        let all = TenantFilter::all(tenant());
        let hits = keywords
            .search(&all, &analysis::query_terms("goods", &[]), 10)
            .expect("an answer")
            .hits;
        let mut found: Vec<u128> = hits.iter().map(|hit| hit.chunk_id.0.as_u128()).collect();
        found.sort_unstable();
        assert_eq!(found, [1, 3]);
        let rows = keywords.list(tenant(), None, 10).expect("a list");
        let documents: Vec<u128> = rows.iter().map(|row| row.document_id.0.as_u128()).collect();
        assert_eq!(documents, [101, 102, 103]);
        let vectors = Engine::open(&vectors_dir, layout).expect("the vector side");
        let nearest = vectors
            .nearest(&all, Given::default(), vec![1.0, 2.0, 2.0], 10)
            .expect("an answer");
        assert_eq!(nearest.len(), 2);
        assert_eq!(
            nearest[0].point_id,
            filter::point_id(tenant(), ChunkId(Uuid::from_u128(1)))
        );
    }
}
