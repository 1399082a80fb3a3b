//! The collections service: made, found, and their shards moved about.

use std::collections::HashMap;
use std::sync::Arc;

use ::qdrant_client::qdrant::collections_server::Collections;
use ::qdrant_client::qdrant::update_collection_cluster_setup_request::Operation;
use ::qdrant_client::qdrant::*;
use tonic::{Request, Response, Status};

use super::collection::{Collection, key_text};
use super::convert::refused;
use super::{Service, lock};

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Collections for Service {
    async fn get(&self, request: Request<GetCollectionInfoRequest>) -> Answer<GetCollectionInfoResponse> {
        self.0.enter("get_collection", &request).await?;
        let collection = self.0.collection(&request.get_ref().collection_name)?;
        Ok(Response::new(GetCollectionInfoResponse {
            result: Some(info(&collection)),
            time: 0.0,
        }))
    }

    async fn create(&self, request: Request<CreateCollection>) -> Answer<CollectionOperationResponse> {
        self.0.enter("create_collection", &request).await?;
        let request = request.into_inner();
        let name = request.collection_name.clone();
        let mut collections = lock(&self.0.collections);
        if collections.contains_key(&name) {
            return Err(Status::already_exists(format!(
                "Wrong input: Collection `{name}` already exists!"
            )));
        }
        collections.insert(name, Arc::new(Collection::new(request)?));
        Ok(Response::new(CollectionOperationResponse {
            result: true,
            time: 0.0,
        }))
    }

    async fn collection_exists(
        &self,
        request: Request<CollectionExistsRequest>,
    ) -> Answer<CollectionExistsResponse> {
        self.0.enter("collection_exists", &request).await?;
        let exists = lock(&self.0.collections).contains_key(&request.get_ref().collection_name);
        Ok(Response::new(CollectionExistsResponse {
            result: Some(CollectionExists { exists }),
            time: 0.0,
        }))
    }

    async fn collection_cluster_info(
        &self,
        request: Request<CollectionClusterInfoRequest>,
    ) -> Answer<CollectionClusterInfoResponse> {
        self.0.enter("collection_cluster_info", &request).await?;
        let collection = self.0.collection(&request.get_ref().collection_name)?;
        let shards = collection.shards();
        let local_shards = shards.iter().map(|shard| LocalShardInfo {
            shard_id: shard.id,
            points_count: shard.count(None).unwrap_or_default() as u64,
            state: shard.state.into(),
            shard_key: shard.key.clone(),
        });
        Ok(Response::new(CollectionClusterInfoResponse {
            peer_id: 1,
            shard_count: shards.len() as u64,
            local_shards: local_shards.collect(),
            ..CollectionClusterInfoResponse::default()
        }))
    }

    /// Moves points at once; a real server takes its time.
    async fn update_collection_cluster_setup(
        &self,
        request: Request<UpdateCollectionClusterSetupRequest>,
    ) -> Answer<UpdateCollectionClusterSetupResponse> {
        self.0.enter("update_collection_cluster_setup", &request).await?;
        let request = request.into_inner();
        let collection = self.0.collection(&request.collection_name)?;
        let Some(Operation::ReplicatePoints(replicate)) = request.operation else {
            return Err(Status::unimplemented("this change of a cluster"));
        };
        let filter = collection.filter(replicate.filter.as_ref())?;
        let mut shards = collection.shards();
        let place_of = |key: Option<&ShardKey>| {
            let key = key.ok_or_else(|| refused("Shard key not specified"))?;
            let place = shards.iter().position(|shard| shard.key.as_ref() == Some(key));
            place
                .ok_or_else(|| Status::not_found(format!("Not found: Shard key {} not found", key_text(key))))
        };
        let (from, to) = (
            place_of(replicate.from_shard_key.as_ref())?,
            place_of(replicate.to_shard_key.as_ref())?,
        );
        let ids = shards[from].matching(&filter)?;
        let points = shards[from].whole(&ids)?;
        shards[to].upsert(points)?;
        shards[to].state = ReplicaState::Active;
        Ok(Response::new(UpdateCollectionClusterSetupResponse {
            result: true,
            time: 0.0,
        }))
    }

    async fn create_shard_key(
        &self,
        request: Request<CreateShardKeyRequest>,
    ) -> Answer<CreateShardKeyResponse> {
        self.0.enter("create_shard_key", &request).await?;
        let CreateShardKeyRequest {
            collection_name,
            request,
            ..
        } = request.into_inner();
        let collection = self.0.collection(&collection_name)?;
        let request = request.ok_or_else(|| refused("no shard key"))?;
        let key = request.shard_key.clone().ok_or_else(|| refused("no shard key"))?;
        if !collection.has_keys() {
            return Err(refused("Shard key cannot be created with Auto sharding method"));
        }
        if collection
            .shards()
            .iter()
            .any(|shard| shard.key.as_ref() == Some(&key))
        {
            return Err(refused(format!("Shard key {} already exists", key_text(&key))));
        }
        let state = match request.initial_state {
            Some(state) => ReplicaState::try_from(state).map_err(|_| refused("an unknown state"))?,
            None => ReplicaState::Active,
        };
        collection.add_shard(Some(key), state)?;
        Ok(Response::new(CreateShardKeyResponse {
            result: true,
            time: 0.0,
        }))
    }

    async fn delete_shard_key(
        &self,
        request: Request<DeleteShardKeyRequest>,
    ) -> Answer<DeleteShardKeyResponse> {
        self.0.enter("delete_shard_key", &request).await?;
        let request = request.into_inner();
        let collection = self.0.collection(&request.collection_name)?;
        let key = request.request.and_then(|request| request.shard_key);
        collection.shards().retain(|shard| shard.key != key);
        Ok(Response::new(DeleteShardKeyResponse {
            result: true,
            time: 0.0,
        }))
    }

    async fn list_shard_keys(&self, request: Request<ListShardKeysRequest>) -> Answer<ListShardKeysResponse> {
        self.0.enter("list_shard_keys", &request).await?;
        let collection = self.0.collection(&request.get_ref().collection_name)?;
        let keys = collection
            .shards()
            .iter()
            .map(|shard| ShardKeyDescription {
                key: shard.key.clone(),
            })
            .collect();
        Ok(Response::new(ListShardKeysResponse {
            shard_keys: keys,
            time: 0.0,
        }))
    }

    async fn list(&self, _request: Request<ListCollectionsRequest>) -> Answer<ListCollectionsResponse> {
        let names = self.0.collection_names().into_iter();
        Ok(Response::new(ListCollectionsResponse {
            collections: names.map(|name| CollectionDescription { name }).collect(),
            time: 0.0,
        }))
    }

    async fn update(&self, _request: Request<UpdateCollection>) -> Answer<CollectionOperationResponse> {
        Err(Status::unimplemented("update"))
    }

    async fn delete(&self, request: Request<DeleteCollection>) -> Answer<CollectionOperationResponse> {
        self.0.delete_collection(&request.into_inner().collection_name);
        Ok(Response::new(CollectionOperationResponse {
            result: true,
            time: 0.0,
        }))
    }

    async fn update_aliases(&self, _request: Request<ChangeAliases>) -> Answer<CollectionOperationResponse> {
        Err(Status::unimplemented("update_aliases"))
    }

    async fn list_collection_aliases(
        &self,
        _request: Request<ListCollectionAliasesRequest>,
    ) -> Answer<ListAliasesResponse> {
        Err(Status::unimplemented("list_collection_aliases"))
    }

    async fn list_aliases(&self, _request: Request<ListAliasesRequest>) -> Answer<ListAliasesResponse> {
        Err(Status::unimplemented("list_aliases"))
    }
}

fn info(collection: &Collection) -> CollectionInfo {
    let made_with = &collection.made_with;
    CollectionInfo {
        status: CollectionStatus::Green.into(),
        config: Some(CollectionConfig {
            params: Some(CollectionParams {
                shard_number: collection.shards().len() as u32,
                vectors_config: made_with.vectors_config.clone(),
                sparse_vectors_config: made_with.sparse_vectors_config.clone(),
                replication_factor: made_with.replication_factor,
                write_consistency_factor: made_with.write_consistency_factor,
                sharding_method: made_with.sharding_method,
                ..CollectionParams::default()
            }),
            hnsw_config: made_with.hnsw_config,
            quantization_config: made_with.quantization_config,
            metadata: made_with.metadata.clone(),
            ..CollectionConfig::default()
        }),
        payload_schema: collection
            .indexed_fields()
            .into_iter()
            .map(|name| (name, PayloadSchemaInfo::default()))
            .collect::<HashMap<_, _>>(),
        ..CollectionInfo::default()
    }
}
