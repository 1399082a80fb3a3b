//! The vector side of a shard, on `qdrant-edge`: how it is laid out, opened, changed, asked and kept small. The only file
//! that knows the engine's operations; it is synchronous and knows no threads.

mod log;
mod repeat;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use qdrant_edge::{
    CountRequest, CreateIndex, EdgeShard, FieldIndexOperations, Filter as EngineFilter, NamedQuery,
    OperationError, PayloadOps, PointId, PointInsertOperations, PointOperations, PointStructPersisted,
    QueryEnum, ScoredPoint, ScrollRequest, SearchRequest, SetPayloadOp, UpdateOperation, VectorInternal,
    WithPayloadInterface, WithVector,
};

use self::log::{await_log_lock, trim_engine_log};
use super::filter::{self, Given, TenantFilter};
use super::layout::{Extent, Layout};
use super::operation::{Change, Operation, PreparedPoint};
use super::stored::{self, DENSE};
use crate::index::Facets;
use crate::{ChunkId, DocumentId, TenantId};

/// Points handed to the engine at once; bounds the size of an entry of its log.
const APPLY_BATCH: usize = 256;

/// The engine of one shard, open. Dropping it writes everything down.
pub(super) struct Engine {
    shard: EdgeShard,
    layout: Layout,
}

/// Whether an operation may have been done before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    Yes,
    No,
}

/// A point a search found.
pub(super) struct Found {
    pub(super) point_id: PointId,
    pub(super) score: f32,
}

impl Engine {
    /// Makes a shard at `path`, which must not exist. A crash in between leaves nothing at `path`.
    pub(super) fn create(path: &Path, layout: Layout) -> Result<Self, OperationError> {
        let unfinished = path.with_extension("new");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        fs::create_dir_all(&unfinished)?;
        let shard = EdgeShard::new(&unfinished, layout.config())?;
        index_fields(&shard)?;
        drop(shard);
        fs::rename(&unfinished, path)?;
        Self::open(path, layout)
    }

    /// Opens the shard at `path` and throws away what an interrupted run left behind.
    pub(super) fn open(path: &Path, layout: Layout) -> Result<Self, OperationError> {
        let interrupted_builds = path.join("temp_segments");
        if interrupted_builds.exists() {
            fs::remove_dir_all(&interrupted_builds)?;
        }
        trim_engine_log(path)?;
        await_log_lock(path)?;
        let shard = EdgeShard::load(path, Some(layout.config()))?;
        // Those of an earlier version lack some.
        index_fields(&shard)?;
        Ok(Self { shard, layout })
    }

    /// Does one operation. Doing it again changes nothing.
    pub(super) fn apply(&self, operation: &Operation) -> Result<(), OperationError> {
        let tenant_id = operation.tenant_id;
        match &operation.change {
            Change::Upsert(points) => points
                .chunks(APPLY_BATCH)
                .try_for_each(|batch| self.upsert(tenant_id, batch)),
            Change::SetFacets(documents) => documents
                .iter()
                .try_for_each(|(id, facets)| self.set_facets(tenant_id, *id, facets, Again::No)),
            Change::DeleteChunks(chunk_ids) => self.delete(tenant_id, chunk_ids),
            Change::DeleteDocuments(ids) => self.delete_matching(&TenantFilter::of_documents(tenant_id, ids)),
            Change::DeleteSources(ids) => self.delete_matching(&TenantFilter::of_sources(tenant_id, ids)),
            Change::DeleteTenant => self.delete_matching(&TenantFilter::all(tenant_id)),
        }
    }

    /// Whether all points are one tenant's.
    pub(super) fn is_own(&self) -> bool {
        self.layout.is_own
    }

    /// The points nearest to `vector`, by cosine, among those that pass `filter` beyond what is `given`.
    pub(super) fn nearest(
        &self,
        filter: &TenantFilter,
        given: Given,
        vector: Vec<f32>,
        limit: usize,
    ) -> Result<Vec<Found>, OperationError> {
        let filter = filter.condition_beyond(given);
        let found = self.search(filter.clone(), vector.clone(), limit, false)?;
        if !found.is_empty() {
            return Ok(found);
        }
        // There may be nothing, or a graph whose entries are all deleted.
        self.search(filter, vector, limit, true)
    }

    /// The vectors of these points. Points deleted meanwhile are missing.
    pub(super) fn vectors(
        &self,
        point_ids: &[PointId],
    ) -> Result<HashMap<PointId, Vec<f32>>, OperationError> {
        if point_ids.is_empty() {
            return Ok(HashMap::new());
        }
        let vectors = Some(WithVector::Selector(vec![DENSE.to_owned()]));
        let records = self
            .shard
            .retrieve(point_ids, Some(WithPayloadInterface::Bool(false)), vectors)?;
        let vectors = records
            .into_iter()
            .filter_map(|record| Some((record.id, record.vector.and_then(stored::dense_of)?)));
        Ok(vectors.collect())
    }

    /// Which of these points are here, and whether each says the facets it should.
    pub(super) fn compare(
        &self,
        tenant_id: TenantId,
        facets_of: &HashMap<PointId, &Facets>,
    ) -> Result<HashMap<PointId, bool>, OperationError> {
        let ids: Vec<PointId> = facets_of.keys().copied().collect();
        let records = self
            .shard
            .retrieve(&ids, Some(WithPayloadInterface::Bool(true)), None)?;
        let compared = records.into_iter().filter_map(|record| {
            let payload = record.payload.as_ref()?;
            let is_own = stored::read_id(payload, filter::TENANT)? == tenant_id.0;
            let says_so = stored::has_facets(payload, facets_of.get(&record.id)?);
            is_own.then_some((record.id, says_so))
        });
        Ok(compared.collect())
    }

    /// Deletes the tenant's points of these chunks.
    pub(super) fn delete(&self, tenant_id: TenantId, chunk_ids: &[ChunkId]) -> Result<(), OperationError> {
        let ids = chunk_ids.iter().map(|id| filter::point_id(tenant_id, *id));
        self.delete_points(ids.collect())
    }

    /// Stores the tenant's points of these chunks as `other` has them now; those that it does not have are left out.
    pub(super) fn copy_from(
        &self,
        other: &Self,
        tenant_id: TenantId,
        chunk_ids: &[ChunkId],
    ) -> Result<(), OperationError> {
        for batch in chunk_ids.chunks(APPLY_BATCH) {
            let ids: Vec<PointId> = batch.iter().map(|id| filter::point_id(tenant_id, *id)).collect();
            let records = other.shard.retrieve(
                &ids,
                Some(WithPayloadInterface::Bool(true)),
                Some(WithVector::Bool(true)),
            )?;
            self.insert(records.into_iter().filter_map(stored::again).collect())?;
        }
        Ok(())
    }

    /// How many of the tenant's points are here.
    pub(super) fn count(&self, tenant_id: TenantId) -> Result<usize, OperationError> {
        self.shard.count(CountRequest {
            filter: Some(TenantFilter::all(tenant_id).condition()),
            exact: true,
        })
    }

    /// Builds graphs, merges segments and reclaims deleted space where due, until nothing is. May take minutes; searches
    /// and operations go on meanwhile, `sync` must not be called.
    pub(super) fn optimise(&self, extent: Extent) -> Result<bool, OperationError> {
        self.shard.set_optimizers_config(self.layout.optimizers(extent))?;
        self.shard.optimize()
    }

    /// Points that no graph leads to.
    #[cfg(test)]
    pub(super) fn without_graph(&self) -> usize {
        let info = self.shard.info();
        info.points_count - info.indexed_vectors_count
    }

    /// Brings everything applied so far to the disk.
    pub(super) fn sync(&self) {
        self.shard.flush();
    }

    fn upsert(&self, tenant_id: TenantId, points: &[PreparedPoint]) -> Result<(), OperationError> {
        // A point that lost its vector must not be found by the old one.
        let without_vector: Vec<PointId> = points
            .iter()
            .filter(|point| point.vector.is_none())
            .map(|point| filter::point_id(tenant_id, point.chunk_id))
            .collect();
        if !without_vector.is_empty() {
            self.delete_points(without_vector)?;
        }
        let points = points
            .iter()
            .filter_map(|point| stored::form_of(tenant_id, point))
            .collect();
        self.insert(points)
    }

    fn insert(&self, points: Vec<PointStructPersisted>) -> Result<(), OperationError> {
        if points.is_empty() {
            return Ok(());
        }
        let insert = PointInsertOperations::PointsList(points);
        self.shard
            .update(UpdateOperation::PointOperation(PointOperations::UpsertPoints(
                insert,
            )))
    }

    /// Changes those points of the document that do not say these facets: a changed point leaves the graph that it is in.
    fn set_facets(
        &self,
        tenant_id: TenantId,
        document_id: DocumentId,
        facets: &Facets,
        again: Again,
    ) -> Result<(), OperationError> {
        let condition = TenantFilter::of_documents(tenant_id, &[document_id]).condition();
        let mut offset = None;
        loop {
            let (records, next) = self.shard.scroll(ScrollRequest {
                offset,
                limit: Some(APPLY_BATCH),
                filter: Some(condition.clone()),
                with_payload: Some(WithPayloadInterface::Bool(true)),
                with_vector: WithVector::Bool(false),
                order_by: None,
            })?;
            let ids: Vec<PointId> = records.iter().map(|record| record.id).collect();
            let in_copies = match again {
                Again::Yes => self.in_copies(tenant_id, &ids)?,
                Again::No => HashSet::new(),
            };
            let differing: Vec<PointId> = records
                .into_iter()
                .filter(|record| {
                    let payload = record.payload.as_ref();
                    in_copies.contains(&record.id)
                        || payload.is_none_or(|payload| !stored::has_facets(payload, facets))
                })
                .map(|record| record.id)
                .collect();
            if !differing.is_empty() {
                let set = SetPayloadOp {
                    payload: stored::change_to(facets),
                    points: Some(differing),
                    filter: None,
                    key: None,
                };
                self.shard
                    .update(UpdateOperation::PayloadOperation(PayloadOps::SetPayload(set)))?;
            }
            offset = next;
            if offset.is_none() {
                return Ok(());
            }
        }
    }

    fn delete_points(&self, ids: Vec<PointId>) -> Result<(), OperationError> {
        self.shard
            .update(UpdateOperation::PointOperation(PointOperations::DeletePoints {
                ids,
            }))
    }

    fn delete_matching(&self, filter: &TenantFilter) -> Result<(), OperationError> {
        let delete = PointOperations::DeletePointsByFilter(filter.condition());
        self.shard.update(UpdateOperation::PointOperation(delete))
    }

    fn search(
        &self,
        filter: Option<EngineFilter>,
        vector: Vec<f32>,
        limit: usize,
        exact: bool,
    ) -> Result<Vec<Found>, OperationError> {
        let found = self.shard.search(SearchRequest {
            query: QueryEnum::Nearest(NamedQuery::new(VectorInternal::Dense(vector), DENSE)),
            filter,
            params: Some(self.layout.search_params(limit, exact)),
            limit,
            offset: 0,
            with_payload: None,
            with_vector: None,
            score_threshold: None,
        })?;
        let found = found
            .into_iter()
            .map(|ScoredPoint { id, score, .. }| Found { point_id: id, score });
        Ok(found.collect())
    }
}

/// Has the engine index the fields that filters ask for, where it does not yet.
fn index_fields(shard: &EdgeShard) -> Result<(), OperationError> {
    let indexed = shard.info().payload_schema;
    for (field_name, schema) in filter::indexed_fields() {
        if indexed.contains_key(&field_name) {
            continue;
        }
        let create = CreateIndex {
            field_name,
            field_schema: Some(schema),
        };
        shard.update(UpdateOperation::FieldIndexOperation(
            FieldIndexOperations::CreateIndex(create),
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::SourceId;
    use crate::analysis::SparseTerms;
    use crate::index::embedded::tuning::Tuning;

    fn point(n: u128, vector: Option<Vec<f32>>) -> PreparedPoint {
        PreparedPoint {
            chunk_id: ChunkId(Uuid::from_u128(n)),
            document_id: DocumentId(Uuid::from_u128(1)),
            source_id: SourceId(Uuid::from_u128(1)),
            terms: SparseTerms::default(),
            vector,
            text_hash: 1,
            facets: Facets::default(),
        }
    }

    #[test]
    fn recovery_writes_only_the_points_that_are_not_there_just_so() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let layout = Layout {
            dimension: 3,
            tuning: Tuning::default(),
            is_own: false,
        };
        let engine = Engine::create(&dir.path().join("engine"), layout).expect("a new shard");
        let tenant_id = TenantId(Uuid::from_u128(7));
        let stored = vec![
            point(1, Some(vec![1.0, 2.0, 2.0])),
            point(2, Some(vec![0.0, 1.0, 0.0])),
            point(3, None),
        ];
        let operation = Operation {
            tenant_id,
            change: Change::Upsert(stored.clone()),
        };
        engine.apply(&operation).expect("stored");

        assert_eq!(engine.not_stored(tenant_id, stored.clone()).expect("read"), []);
        let changed = vec![
            point(1, Some(vec![1.0, 2.0, 3.0])),
            point(2, None),
            point(3, Some(vec![1.0, 0.0, 0.0])),
            PreparedPoint {
                source_id: SourceId(Uuid::from_u128(2)),
                ..stored[0].clone()
            },
            point(4, Some(vec![1.0, 0.0, 0.0])),
        ];
        assert_eq!(
            engine.not_stored(tenant_id, changed.clone()).expect("read"),
            changed
        );
        let another = TenantId(Uuid::from_u128(8));
        assert_eq!(
            engine.not_stored(another, stored.clone()).expect("read"),
            &stored[..2],
            "what has no vector is not here"
        );
    }
}
