//! A collection: its parameters and its shards, and which of them a request is for.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use qdrant_client::qdrant::points_selector::PointsSelectorOneOf;
use qdrant_client::qdrant::shard_key::Key;
use qdrant_client::qdrant::vector::Vector as NewVector;
use qdrant_client::qdrant::vectors::VectorsOptions;
use qdrant_client::qdrant::vectors_config::Config;
use qdrant_client::qdrant::{
    CreateCollection, Filter, PointStruct, PointsSelector, ReplicaState, SearchParams, ShardKey,
    ShardKeySelector, ShardingMethod, VectorParams,
};
use qdrant_edge::{Filter as EngineFilter, PayloadFieldSchema};
use tonic::Status;
use uuid::Uuid;

use super::convert::{self, engine_id, refused};
use super::lock;
use super::shard::{NewPoint, Shard};

pub(super) struct Collection {
    pub(super) made_with: CreateCollection,
    pub(super) dense: HashMap<String, VectorParams>,
    fields: Mutex<BTreeMap<String, PayloadFieldSchema>>,
    shards: Mutex<Vec<Shard>>,
    /// Lets every filter through everything, as no right server does.
    pub(super) is_blind: AtomicBool,
    /// How vectors were asked for last.
    pub(super) asked_with: Mutex<Option<SearchParams>>,
}

impl Collection {
    pub(super) fn new(made_with: CreateCollection) -> Result<Self, Status> {
        let dense = match made_with
            .vectors_config
            .as_ref()
            .and_then(|vectors| vectors.config.as_ref())
        {
            Some(Config::ParamsMap(vectors)) => vectors.map.clone(),
            Some(Config::Params(_)) => return Err(Status::unimplemented("a vector without a name")),
            None => HashMap::new(),
        };
        let collection = Self {
            dense,
            fields: Mutex::default(),
            shards: Mutex::default(),
            is_blind: AtomicBool::new(false),
            asked_with: Mutex::default(),
            made_with,
        };
        if !collection.has_keys() {
            let shards = collection.made_with.shard_number.unwrap_or(1).max(1);
            for _ in 0..shards {
                collection.add_shard(None, ReplicaState::Active)?;
            }
        }
        Ok(collection)
    }

    /// Whether shards are made by key.
    pub(super) fn has_keys(&self) -> bool {
        self.made_with.sharding_method() == ShardingMethod::Custom
    }

    pub(super) fn shards(&self) -> MutexGuard<'_, Vec<Shard>> {
        lock(&self.shards)
    }

    pub(super) fn add_shard(&self, key: Option<ShardKey>, state: ReplicaState) -> Result<(), Status> {
        let hnsw = self.made_with.hnsw_config.unwrap_or_default();
        let links = (
            hnsw.m.unwrap_or(16) as usize,
            hnsw.payload_m.or(hnsw.m).unwrap_or(16) as usize,
        );
        let mut shards = self.shards();
        let id = shards.len() as u32;
        let shard = Shard::new(id, key, state, &self.dense, links)?;
        for (name, schema) in &*lock(&self.fields) {
            shard.index_field(name, schema.clone())?;
        }
        shards.push(shard);
        Ok(())
    }

    pub(super) fn index_field(&self, name: &str, schema: PayloadFieldSchema) -> Result<(), Status> {
        for shard in &*self.shards() {
            shard.index_field(name, schema.clone())?;
        }
        lock(&self.fields).insert(name.to_owned(), schema);
        Ok(())
    }

    pub(super) fn indexed_fields(&self) -> BTreeSet<String> {
        lock(&self.fields).keys().cloned().collect()
    }

    pub(super) fn points_by_shard(&self) -> BTreeMap<String, usize> {
        let shards = self.shards();
        let counted = shards.iter().map(|shard| {
            let key = shard.key.as_ref().map(key_text).unwrap_or_default();
            (key, shard.count(None).expect("the engine counts"))
        });
        counted.collect()
    }

    /// The engine's form of a filter. Fields without an index are refused, as in strict mode.
    pub(super) fn filter(&self, filter: Option<&Filter>) -> Result<EngineFilter, Status> {
        let Some(filter) = filter else {
            return Ok(EngineFilter::default());
        };
        if self.is_blind.load(Ordering::Relaxed) {
            return Ok(EngineFilter::default());
        }
        let (filter, fields) = convert::filter(filter)?;
        let indexed = self.indexed_fields();
        match fields.iter().find(|field| !indexed.contains(*field)) {
            Some(field) => Err(refused(format!("Index required but not found for \"{field}\""))),
            None => Ok(filter),
        }
    }

    /// The places of the shards that a request is for.
    pub(super) fn targets(&self, selector: Option<&ShardKeySelector>) -> Result<Vec<usize>, Status> {
        let shards = self.shards();
        if !self.has_keys() {
            return match selector {
                None => Ok((0..shards.len()).collect()),
                Some(_) => Err(refused(
                    "Shard key selector is given for a collection with auto sharding",
                )),
            };
        }
        let selector = selector.ok_or_else(|| refused("Shard key not specified"))?;
        let place_of = |key: &ShardKey| shards.iter().position(|shard| shard.key.as_ref() == Some(key));
        let mut places = Vec::new();
        for key in &selector.shard_keys {
            let own = place_of(key)
                .filter(|place| selector.fallback.is_none() || shards[*place].state == ReplicaState::Active);
            let place = own.or_else(|| place_of(selector.fallback.as_ref()?));
            places.push(place.ok_or_else(|| {
                Status::not_found(format!("Not found: Shard key {} not found", key_text(key)))
            })?);
        }
        Ok(places)
    }

    /// Which of `targets` a point is stored in.
    pub(super) fn place_of_point(&self, targets: &[usize], id: Uuid) -> usize {
        targets[(id.as_u128() % targets.len() as u128) as usize]
    }

    /// The points of a shard that a selector names.
    pub(super) fn selected(
        &self,
        shard: &mut Shard,
        selector: Option<&PointsSelector>,
    ) -> Result<HashSet<Uuid>, Status> {
        match selector.and_then(|selector| selector.points_selector_one_of.as_ref()) {
            Some(PointsSelectorOneOf::Points(points)) => points.ids.iter().map(engine_id).collect(),
            Some(PointsSelectorOneOf::Filter(filter)) => {
                let filter = self.filter(Some(filter))?;
                Ok((*shard.matching(&filter)?).clone())
            }
            None => Err(refused("no points are selected")),
        }
    }

    /// A point as it is stored, if it fits the collection.
    pub(super) fn new_point(&self, point: &PointStruct) -> Result<NewPoint, Status> {
        let id = point
            .id
            .as_ref()
            .ok_or_else(|| refused("Empty ID is not allowed"))?;
        let mut new = NewPoint {
            id: engine_id(id)?,
            payload: convert::payload_to_engine(&point.payload),
            dense: None,
            words: None,
        };
        let Some(VectorsOptions::Vectors(named)) = point
            .vectors
            .as_ref()
            .and_then(|vectors| vectors.vectors_options.as_ref())
        else {
            return Err(refused("vectors must have names"));
        };
        for (name, vector) in &named.vectors {
            match &vector.vector {
                Some(NewVector::Dense(dense)) => {
                    self.check_dense(name, dense.data.len())?;
                    new.dense = Some((name.clone(), dense.data.clone()));
                }
                Some(NewVector::Sparse(sparse)) => {
                    new.words = Some(self.check_sparse(name, &sparse.indices, &sparse.values)?);
                }
                other => return Err(Status::unimplemented(format!("vector {other:?}"))),
            }
        }
        Ok(new)
    }

    pub(super) fn check_dense(&self, name: &str, len: usize) -> Result<(), Status> {
        let params = self
            .dense
            .get(name)
            .ok_or_else(|| refused(format!("Not existing vector name error: {name}")))?;
        if params.size as usize != len {
            return Err(refused(format!(
                "Vector dimension error: expected dim: {}, got {len}",
                params.size
            )));
        }
        Ok(())
    }

    pub(super) fn check_sparse(
        &self,
        name: &str,
        indices: &[u32],
        values: &[f32],
    ) -> Result<Vec<(u32, f32)>, Status> {
        let sparse = self.made_with.sparse_vectors_config.as_ref();
        if !sparse.is_some_and(|sparse| sparse.map.contains_key(name)) {
            return Err(refused(format!("Not existing vector name error: {name}")));
        }
        let distinct: HashSet<&u32> = indices.iter().collect();
        if indices.len() != values.len() || distinct.len() != indices.len() {
            return Err(refused("sparse indices must be unique and as many as values"));
        }
        Ok(indices.iter().copied().zip(values.iter().copied()).collect())
    }
}

pub(super) fn key_text(key: &ShardKey) -> String {
    match &key.key {
        Some(Key::Keyword(key)) => key.clone(),
        Some(Key::Number(key)) => key.to_string(),
        None => String::new(),
    }
}
