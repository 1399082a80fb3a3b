//! Doing again, after a death, what the redo log has of operations. The engine may have done all of it, or none, or have written down
//! a part.

use std::collections::{HashMap, HashSet};

use qdrant_edge::{CountRequest, OperationError, PointId, Record, WithPayloadInterface, WithVector};

use super::super::filter::{self, TenantFilter};
use super::super::operation::{Change, Operation, PreparedPoint};
use super::super::stored;
use super::{APPLY_BATCH, Again, Engine};
use crate::{ChunkId, TenantId};

impl Engine {
    /// Does an operation that may have been done before, leaving points alone that are as it would make them: to write
    /// them again would empty the graphs they are in.
    pub(in super::super) fn repeat(&self, operation: Operation) -> Result<(), OperationError> {
        let Operation { tenant_id, change } = operation;
        let change = match change {
            Change::Upsert(points) => Change::Upsert(self.not_stored(tenant_id, points)?),
            Change::SetFacets(documents) => {
                let mut documents = documents.iter();
                return documents
                    .try_for_each(|(id, facets)| self.set_facets(tenant_id, *id, facets, Again::Yes));
            }
            deletion => deletion,
        };
        self.apply(&Operation { tenant_id, change })
    }

    /// Those of these points of which an older copy is left beside the newest: the engine may write down where a point is now
    /// before it writes down that it is gone from where it was. Changing it once more removes the others.
    pub(super) fn in_copies(
        &self,
        tenant_id: TenantId,
        ids: &[PointId],
    ) -> Result<HashSet<PointId>, OperationError> {
        // What is counted are copies, what is retrieved are points.
        let count = |ids: &[PointId]| {
            self.shard.count(CountRequest {
                filter: Some(TenantFilter::condition_of_points(tenant_id, ids)),
                exact: true,
            })
        };
        let mut in_copies = HashSet::new();
        if count(ids)? > self.count_there(ids)? {
            for id in ids {
                if count(std::slice::from_ref(id))? > 1 {
                    in_copies.insert(*id);
                }
            }
        }
        Ok(in_copies)
    }

    fn count_there(&self, ids: &[PointId]) -> Result<usize, OperationError> {
        let there = self
            .shard
            .retrieve(ids, Some(WithPayloadInterface::Bool(false)), None)?;
        Ok(there.len())
    }

    /// Whether some of these chunks of a tenant are not here.
    pub(in super::super) fn lacks(
        &self,
        tenant_id: TenantId,
        chunk_ids: &[ChunkId],
    ) -> Result<bool, OperationError> {
        for batch in chunk_ids.chunks(APPLY_BATCH) {
            let ids = batch
                .iter()
                .map(|chunk_id| filter::point_id(tenant_id, *chunk_id));
            if self.count_there(&ids.collect::<Vec<_>>())? < batch.len() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Those of `points` that are not stored just so, and only so.
    pub(super) fn not_stored(
        &self,
        tenant_id: TenantId,
        points: Vec<PreparedPoint>,
    ) -> Result<Vec<PreparedPoint>, OperationError> {
        let mut missing = Vec::new();
        for batch in points.chunks(APPLY_BATCH) {
            let ids: Vec<PointId> = batch
                .iter()
                .map(|point| filter::point_id(tenant_id, point.chunk_id))
                .collect();
            let records = self.shard.retrieve(
                &ids,
                Some(WithPayloadInterface::Bool(true)),
                Some(WithVector::Bool(true)),
            )?;
            let in_copies = self.in_copies(tenant_id, &ids)?;
            let record_of: HashMap<PointId, Record> =
                records.into_iter().map(|record| (record.id, record)).collect();
            let changed = batch.iter().filter(|point| {
                let record = record_of.get(&filter::point_id(tenant_id, point.chunk_id));
                match (record, stored::form_of(tenant_id, point)) {
                    (Some(record), Some(form)) => {
                        in_copies.contains(&record.id) || !stored::is_same(record, &form)
                    }
                    (None, None) => false,
                    _ => true,
                }
            });
            missing.extend(changed.cloned());
        }
        Ok(missing)
    }
}
