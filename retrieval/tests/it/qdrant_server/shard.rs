//! One shard: vectors and fields in the engine, words beside it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use qdrant_client::qdrant::{ReplicaState, ShardKey, VectorParams};
use qdrant_edge::{
    CountRequest, CreateIndex, Distance, EdgeConfig, EdgeOptimizersConfig, EdgeShard, EdgeVectorParams,
    FieldIndexOperations, Filter, HnswIndexConfig, NamedQuery, OperationError, Payload, PayloadFieldSchema,
    PayloadOps, PointId as EngineId, PointInsertOperations, PointOperations, PointStructPersisted, QueryEnum,
    Record, ScoredPoint, ScrollRequest, SearchParams, SearchRequest, SetPayloadOp, UpdateOperation,
    VectorInternal, VectorPersisted, VectorStructInternal, VectorStructPersisted, WithPayloadInterface,
    WithVector,
};
use tempfile::TempDir;
use tonic::Status;
use uuid::Uuid;

use super::convert::refused;
use super::words::Words;

/// Points after which the engine builds its graphs, while the call waits. A real server builds them on the side.
const OPTIMISE_AFTER: usize = 20_000;

/// Vectors of a segment from which it gets graphs, and of a tenant from which they are used, in KiB.
const GRAPH_FROM_KIB: usize = 1_000;
const EXACT_UP_TO_KIB: usize = 100;

pub(super) struct Shard {
    pub(super) id: u32,
    pub(super) key: Option<ShardKey>,
    pub(super) state: ReplicaState,
    engine: EdgeShard,
    words: Words,
    stored_since_built: usize,
    /// What filters let through, until something changes.
    known: HashMap<String, Arc<HashSet<Uuid>>>,
    _dir: TempDir,
}

/// A point on its way in.
pub(super) struct NewPoint {
    pub(super) id: Uuid,
    pub(super) payload: Payload,
    pub(super) dense: Option<(String, Vec<f32>)>,
    pub(super) words: Option<Vec<(u32, f32)>>,
}

impl Shard {
    pub(super) fn new(
        id: u32,
        key: Option<ShardKey>,
        state: ReplicaState,
        dense: &HashMap<String, VectorParams>,
        graph_links: (usize, usize),
    ) -> Result<Self, Status> {
        let dir = tempfile::tempdir()?;
        let vectors = dense
            .iter()
            .map(|(name, params)| {
                let params = EdgeVectorParams::builder(params.size as usize, Distance::Cosine).build();
                (name.clone(), params)
            })
            .collect();
        let config = EdgeConfig {
            vectors,
            hnsw_config: HnswIndexConfig {
                m: graph_links.0,
                payload_m: Some(graph_links.1),
                full_scan_threshold: EXACT_UP_TO_KIB,
                ..HnswIndexConfig::default()
            },
            optimizers: EdgeOptimizersConfig {
                indexing_threshold: Some(GRAPH_FROM_KIB),
                ..EdgeOptimizersConfig::default()
            },
            ..EdgeConfig::default()
        };
        Ok(Self {
            id,
            key,
            state,
            engine: EdgeShard::new(dir.path(), config).map_err(failed)?,
            words: Words::default(),
            stored_since_built: 0,
            known: HashMap::new(),
            _dir: dir,
        })
    }

    pub(super) fn index_field(&self, name: &str, schema: PayloadFieldSchema) -> Result<(), Status> {
        let create = CreateIndex {
            field_name: name.parse().map_err(|()| refused("a bad field name"))?,
            field_schema: Some(schema),
        };
        self.change(UpdateOperation::FieldIndexOperation(
            FieldIndexOperations::CreateIndex(create),
        ))
    }

    /// Replaces whole points.
    pub(super) fn upsert(&mut self, points: Vec<NewPoint>) -> Result<(), Status> {
        self.known.clear();
        self.stored_since_built += points.len();
        let mut stored = Vec::with_capacity(points.len());
        for point in points {
            match point.words {
                Some(words) => self.words.put(point.id, words),
                None => self.words.remove(point.id),
            }
            let vectors = point
                .dense
                .map(|(name, vector)| (name, VectorPersisted::Dense(vector)));
            stored.push(PointStructPersisted {
                id: EngineId::Uuid(point.id),
                vector: VectorStructPersisted::Named(vectors.into_iter().collect()),
                payload: Some(point.payload),
            });
        }
        let insert = PointOperations::UpsertPoints(PointInsertOperations::PointsList(stored));
        self.change(UpdateOperation::PointOperation(insert))?;
        if self.stored_since_built >= OPTIMISE_AFTER {
            self.stored_since_built = 0;
            self.engine.optimize().map_err(failed)?;
        }
        Ok(())
    }

    pub(super) fn delete(&mut self, ids: &HashSet<Uuid>) -> Result<(), Status> {
        self.known.clear();
        ids.iter().for_each(|id| self.words.remove(*id));
        let ids = ids.iter().map(|id| EngineId::Uuid(*id)).collect();
        self.change(UpdateOperation::PointOperation(PointOperations::DeletePoints {
            ids,
        }))
    }

    /// Sets fields, leaving others alone.
    pub(super) fn set_payload(&mut self, ids: &HashSet<Uuid>, payload: Payload) -> Result<(), Status> {
        self.known.clear();
        self.change(UpdateOperation::PayloadOperation(PayloadOps::SetPayload(
            SetPayloadOp {
                payload,
                points: Some(ids.iter().map(|id| EngineId::Uuid(*id)).collect()),
                filter: None,
                key: None,
            },
        )))
    }

    /// The ids that `filter` lets through.
    pub(super) fn matching(&mut self, filter: &Filter) -> Result<Arc<HashSet<Uuid>>, Status> {
        let asked = format!("{filter:?}");
        if let Some(known) = self.known.get(&asked) {
            return Ok(known.clone());
        }
        let (records, _) = self.scroll(Some(filter.clone()), None, usize::MAX - 1, false)?;
        let ids: HashSet<Uuid> = records.iter().filter_map(|record| uuid_of(record.id)).collect();
        let ids = Arc::new(ids);
        self.known.insert(asked, ids.clone());
        Ok(ids)
    }

    pub(super) fn count(&self, filter: Option<Filter>) -> Result<usize, Status> {
        self.engine
            .count(CountRequest { filter, exact: true })
            .map_err(failed)
    }

    /// Vectors that are in a graph.
    pub(super) fn in_graphs(&self) -> usize {
        self.engine.info().indexed_vectors_count
    }

    pub(super) fn scroll(
        &self,
        filter: Option<Filter>,
        offset: Option<Uuid>,
        limit: usize,
        with_payload: bool,
    ) -> Result<(Vec<Record>, Option<EngineId>), Status> {
        self.engine
            .scroll(ScrollRequest {
                offset: offset.map(EngineId::Uuid),
                limit: Some(limit),
                filter,
                with_payload: Some(WithPayloadInterface::Bool(with_payload)),
                with_vector: WithVector::Bool(false),
                order_by: None,
            })
            .map_err(failed)
    }

    pub(super) fn nearest(
        &self,
        name: &str,
        vector: Vec<f32>,
        filter: Filter,
        exact: bool,
        limit: usize,
    ) -> Result<Vec<ScoredPoint>, Status> {
        self.engine
            .search(SearchRequest {
                query: QueryEnum::Nearest(NamedQuery::new(VectorInternal::Dense(vector), name)),
                filter: Some(filter),
                params: Some(SearchParams {
                    exact,
                    ..SearchParams::default()
                }),
                limit,
                offset: 0,
                with_payload: None,
                with_vector: None,
                score_threshold: None,
            })
            .map_err(failed)
    }

    pub(super) fn best_by_words(
        &mut self,
        query: &[(u32, f32)],
        filter: &Filter,
        corpus: Option<&Filter>,
        limit: usize,
    ) -> Result<Vec<(Uuid, f32)>, Status> {
        let allowed = self.matching(filter)?;
        let corpus = corpus.map(|corpus| self.matching(corpus)).transpose()?;
        Ok(self.words.search(query, &allowed, corpus.as_deref(), limit))
    }

    pub(super) fn payloads(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, Payload>, Status> {
        let ids: Vec<EngineId> = ids.iter().map(|id| EngineId::Uuid(*id)).collect();
        let records = self
            .engine
            .retrieve(&ids, Some(WithPayloadInterface::Bool(true)), None)
            .map_err(failed)?;
        Ok(records
            .into_iter()
            .filter_map(|record| Some((uuid_of(record.id)?, record.payload.unwrap_or_default())))
            .collect())
    }

    /// What was stored of a point's words.
    pub(super) fn words_of(&self, id: Uuid) -> Option<&Vec<(u32, f32)>> {
        self.words.get(id)
    }

    /// Whole points, for moving them to another shard.
    pub(super) fn whole(&self, ids: &HashSet<Uuid>) -> Result<Vec<NewPoint>, Status> {
        let ids: Vec<EngineId> = ids.iter().map(|id| EngineId::Uuid(*id)).collect();
        let records = self
            .engine
            .retrieve(
                &ids,
                Some(WithPayloadInterface::Bool(true)),
                Some(WithVector::Bool(true)),
            )
            .map_err(failed)?;
        let points = records.into_iter().filter_map(|record| {
            let id = uuid_of(record.id)?;
            let dense = match record.vector {
                Some(VectorStructInternal::Named(named)) => {
                    named.into_iter().find_map(|(name, vector)| match vector {
                        VectorInternal::Dense(vector) => Some((name.to_string(), vector)),
                        _ => None,
                    })
                }
                _ => None,
            };
            Some(NewPoint {
                id,
                payload: record.payload.unwrap_or_default(),
                dense,
                words: self.words.get(id).cloned(),
            })
        });
        Ok(points.collect())
    }

    fn change(&self, operation: UpdateOperation) -> Result<(), Status> {
        self.engine.update(operation).map_err(failed)
    }
}

fn uuid_of(id: EngineId) -> Option<Uuid> {
    match id {
        EngineId::Uuid(id) => Some(id),
        EngineId::NumId(_) => None,
    }
}

fn failed(error: OperationError) -> Status {
    Status::internal(format!("Service internal error: {error}"))
}
