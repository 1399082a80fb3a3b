//! One shard of `qdrant-edge`: how it is laid out, opened, changed, asked and kept small. The only file that knows the
//! engine's operations; it is synchronous and knows no threads.

use std::collections::HashMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use qdrant_edge::{
    CreateIndex, Distance, EdgeConfig, EdgeOptimizersConfig, EdgeShard, EdgeSparseVectorParams,
    EdgeVectorParams, FieldIndexOperations, HnswIndexConfig, Modifier, NamedQuery, OperationError, Payload,
    PointId, PointInsertOperations, PointOperations, PointStructPersisted, QueryEnum, ScoredPoint,
    SearchRequest, SparseVector, UpdateOperation, VectorInternal, VectorPersisted, VectorStructInternal,
    VectorStructPersisted, WalOptions, WithPayloadInterface, WithVector,
};
use uuid::Uuid;

use super::filter::{self, TenantFilter};
use super::operation::{Change, Operation, PreparedPoint};
use crate::index::keyword::SparseTerms;
use crate::{DocumentId, TenantId};

const DENSE: &str = "dense";
const KEYWORD: &str = "keyword";

/// The engine's own log: it numbers operations by it and writes every operation there, but never reads one back. Small
/// files, so that little is preallocated and what is no longer needed can go.
const ENGINE_LOG_FILE_BYTES: usize = 2 << 20;

/// Vectors of one segment from which a graph is built, in KiB; below it every search is exact.
const GRAPH_FROM_KIB: usize = 20_000;

/// Vectors that pass a filter up to which they are compared one by one although there is a graph, in KiB.
const EXACT_UP_TO_KIB: usize = 10_000;

/// Links per point in the graphs. There is one graph per tenant and none over all: no search spans tenants.
const GRAPH_LINKS: usize = 16;
const GRAPH_BUILD_CANDIDATES: usize = 128;

/// Points handed to the engine at once; bounds the size of an entry of its log.
const APPLY_BATCH: usize = 256;

/// One open shard. Dropping it writes everything down.
pub(super) struct Engine {
    shard: EdgeShard,
    dimension: Option<usize>,
}

/// A point a search found.
pub(super) struct Found {
    pub(super) point_id: PointId,
    pub(super) score: f32,
}

/// What a hit needs beside its scores.
pub(super) struct Stored {
    pub(super) document_id: DocumentId,
    pub(super) vector: Option<Vec<f32>>,
}

impl Engine {
    /// Makes a shard at `path`, which must not exist. A crash in between leaves nothing at `path`.
    pub(super) fn create(path: &Path, dimension: Option<usize>) -> Result<Self, OperationError> {
        let unfinished = path.with_extension("new");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        fs::create_dir_all(&unfinished)?;
        let shard = EdgeShard::new(&unfinished, config(dimension))?;
        for (field_name, schema) in filter::indexed_fields() {
            let create = CreateIndex {
                field_name,
                field_schema: Some(schema),
            };
            shard.update(UpdateOperation::FieldIndexOperation(
                FieldIndexOperations::CreateIndex(create),
            ))?;
        }
        drop(shard);
        fs::rename(&unfinished, path)?;
        Self::open(path, dimension)
    }

    /// Opens the shard at `path` and throws away what an interrupted run left behind.
    pub(super) fn open(path: &Path, dimension: Option<usize>) -> Result<Self, OperationError> {
        let interrupted_builds = path.join("temp_segments");
        if interrupted_builds.exists() {
            fs::remove_dir_all(&interrupted_builds)?;
        }
        trim_engine_log(path)?;
        let shard = EdgeShard::load(path, Some(config(dimension)))?;
        Ok(Self { shard, dimension })
    }

    /// Does one operation. Doing it again changes nothing.
    pub(super) fn apply(&self, operation: &Operation) -> Result<(), OperationError> {
        let tenant_id = operation.tenant_id;
        match &operation.change {
            Change::Upsert(points) => points
                .chunks(APPLY_BATCH)
                .try_for_each(|batch| self.upsert(tenant_id, batch)),
            Change::DeleteChunks(chunk_ids) => self.delete_points(
                chunk_ids
                    .iter()
                    .map(|id| filter::point_id(tenant_id, *id))
                    .collect(),
            ),
            Change::DeleteDocuments(ids) => self.delete_matching(&TenantFilter::of_documents(tenant_id, ids)),
            Change::DeleteTenant => self.delete_matching(&TenantFilter::all(tenant_id)),
        }
    }

    /// The points nearest to `vector`, by cosine.
    pub(super) fn nearest(
        &self,
        filter: &TenantFilter,
        vector: Vec<f32>,
        limit: usize,
    ) -> Result<Vec<Found>, OperationError> {
        self.search(filter, VectorInternal::Dense(vector), DENSE, limit)
    }

    /// The points with the highest BM25 score; all of them have at least one of the terms.
    pub(super) fn with_terms(
        &self,
        filter: &TenantFilter,
        terms: SparseTerms,
        limit: usize,
    ) -> Result<Vec<Found>, OperationError> {
        let mut found = self.search(filter, VectorInternal::Sparse(sparse(terms)), KEYWORD, limit)?;
        found.retain(|point| point.score > 0.0);
        Ok(found)
    }

    /// What is stored beside these points, vectors only where asked. Points deleted meanwhile are missing.
    pub(super) fn read(
        &self,
        point_ids: &[PointId],
        with_vectors: bool,
    ) -> Result<HashMap<PointId, Stored>, OperationError> {
        let vectors = with_vectors.then(|| WithVector::Selector(vec![DENSE.to_owned()]));
        let records = self
            .shard
            .retrieve(point_ids, Some(WithPayloadInterface::Bool(true)), vectors)?;
        Ok(records
            .into_iter()
            .filter_map(|record| {
                let document_id = read_id(record.payload.as_ref()?, filter::DOCUMENT)?;
                let vector = record.vector.and_then(dense_of);
                Some((
                    record.id,
                    Stored {
                        document_id: DocumentId(document_id),
                        vector,
                    },
                ))
            })
            .collect())
    }

    pub(super) fn count(&self, filter: &TenantFilter) -> Result<u64, OperationError> {
        Ok(self.shard.count(filter.count_request())? as u64)
    }

    /// Builds graphs, merges segments and reclaims deleted space where due. May take minutes; searches and operations go
    /// on meanwhile, `sync` must not be called.
    pub(super) fn optimise(&self) -> Result<bool, OperationError> {
        self.shard.optimize()
    }

    /// Brings everything applied so far to the disk.
    pub(super) fn sync(&self) {
        self.shard.flush();
    }

    fn upsert(&self, tenant_id: TenantId, points: &[PreparedPoint]) -> Result<(), OperationError> {
        // The engine lets a replaced point keep the vectors that the new one does not name.
        let without_vector: Vec<PointId> = points
            .iter()
            .filter(|point| self.dimension.is_some() && point.vector.is_none())
            .map(|point| filter::point_id(tenant_id, point.chunk_id))
            .collect();
        if !without_vector.is_empty() {
            self.delete_points(without_vector)?;
        }
        let points = points.iter().map(|point| stored_form(tenant_id, point)).collect();
        let insert = PointInsertOperations::PointsList(points);
        self.shard
            .update(UpdateOperation::PointOperation(PointOperations::UpsertPoints(
                insert,
            )))
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
        filter: &TenantFilter,
        vector: VectorInternal,
        side: &str,
        limit: usize,
    ) -> Result<Vec<Found>, OperationError> {
        let found = self.shard.search(SearchRequest {
            query: QueryEnum::Nearest(NamedQuery::new(vector, side)),
            filter: Some(filter.condition()),
            params: None,
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

fn config(dimension: Option<usize>) -> EdgeConfig {
    let build_threads = std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1));
    let graphs = HnswIndexConfig {
        m: 0,
        ef_construct: GRAPH_BUILD_CANDIDATES,
        full_scan_threshold: EXACT_UP_TO_KIB,
        max_indexing_threads: build_threads,
        on_disk: Some(true),
        payload_m: Some(GRAPH_LINKS),
        inline_storage: None,
    };
    let keyword = EdgeSparseVectorParams::builder()
        .on_disk(true)
        .modifier(Modifier::Idf)
        .build();
    let optimizers = EdgeOptimizersConfig {
        default_segment_number: Some(2),
        indexing_threshold: Some(GRAPH_FROM_KIB),
        ..EdgeOptimizersConfig::default()
    };
    let log = WalOptions {
        segment_capacity: ENGINE_LOG_FILE_BYTES,
        segment_queue_len: 0,
        retain_closed: NonZeroUsize::MIN,
    };
    let builder = EdgeConfig::builder()
        .on_disk_payload(true)
        .sparse_vector(KEYWORD, keyword)
        .hnsw_config(graphs)
        .optimizers(optimizers)
        .wal_options(log);
    match dimension {
        None => builder.build(),
        Some(size) => {
            let dense = EdgeVectorParams::builder(size, Distance::Cosine)
                .on_disk(true)
                .build();
            builder.vector(DENSE, dense).build()
        }
    }
}

/// Deletes the closed files of the engine's log but the last, which carries the numbering on. The shard must not be open.
fn trim_engine_log(path: &Path) -> Result<(), OperationError> {
    let mut closed = Vec::new();
    for entry in fs::read_dir(path.join("wal"))? {
        let entry = entry?;
        let name = entry.file_name();
        let first_operation = name
            .to_str()
            .and_then(|name| name.strip_prefix("closed-")?.parse::<u64>().ok());
        if let Some(first_operation) = first_operation {
            closed.push((first_operation, entry.path()));
        }
    }
    closed.sort();
    closed.pop();
    for (_, file) in closed {
        fs::remove_file(file)?;
    }
    Ok(())
}

fn stored_form(tenant_id: TenantId, point: &PreparedPoint) -> PointStructPersisted {
    let mut vectors = HashMap::with_capacity(2);
    vectors.insert(
        KEYWORD.to_owned(),
        VectorPersisted::Sparse(sparse(point.terms.clone())),
    );
    if let Some(vector) = &point.vector {
        vectors.insert(DENSE.to_owned(), VectorPersisted::Dense(vector.clone()));
    }
    let fields = [
        (filter::TENANT, tenant_id.0),
        (filter::SOURCE, point.source_id.0),
        (filter::DOCUMENT, point.document_id.0),
    ];
    let payload = fields
        .into_iter()
        .map(|(field, id)| (field.to_owned(), id.to_string().into()))
        .collect();
    PointStructPersisted {
        id: filter::point_id(tenant_id, point.chunk_id),
        vector: VectorStructPersisted::Named(vectors),
        payload: Some(Payload(payload)),
    }
}

fn sparse(terms: SparseTerms) -> SparseVector {
    SparseVector {
        indices: terms.hashes,
        values: terms.weights,
    }
}

fn read_id(payload: &Payload, field: &str) -> Option<Uuid> {
    payload.0.get(field)?.as_str()?.parse().ok()
}

fn dense_of(vectors: VectorStructInternal) -> Option<Vec<f32>> {
    let dense = match vectors {
        VectorStructInternal::Named(mut named) => named.remove(DENSE)?,
        VectorStructInternal::Single(vector) => return Some(vector),
        VectorStructInternal::MultiDense(_) => return None,
    };
    match dense {
        VectorInternal::Dense(vector) => Some(vector),
        VectorInternal::Sparse(_) | VectorInternal::MultiDense(_) => None,
    }
}
