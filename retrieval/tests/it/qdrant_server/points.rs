//! The points service: what is stored, changed, asked and listed.

use std::collections::HashMap;

use ::qdrant_client::qdrant::payload_index_params::IndexParams;
use ::qdrant_client::qdrant::points_server::Points;
use ::qdrant_client::qdrant::points_update_operation::Operation;
use ::qdrant_client::qdrant::query::Variant;
use ::qdrant_client::qdrant::vector_input::Variant as Input;
use ::qdrant_client::qdrant::*;
use qdrant_edge::{
    Filter as EngineFilter, IntegerIndexParams as EngineInteger, KeywordIndexParams as EngineKeyword,
    Payload, PayloadFieldSchema, PayloadSchemaParams, UuidIndexParams as EngineUuid,
};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::collection::Collection;
use super::convert::{self, engine_id, payload_to_engine, payload_to_protocol, protocol_id, refused};
use super::{Service, lock};

type Answer<T> = Result<Response<T>, Status>;

/// Methods that no test of ours needs.
macro_rules! unimplemented_methods {
    ($($name:ident($request:ty) -> $response:ty;)*) => {
        $(
            fn $name<'life, 'future>(
                &'life self,
                _request: Request<$request>,
            ) -> std::pin::Pin<Box<dyn Future<Output = Answer<$response>> + Send + 'future>>
            where
                'life: 'future,
                Self: 'future,
            {
                Box::pin(async { Err(Status::unimplemented(stringify!($name))) })
            }
        )*
    };
}

#[tonic::async_trait]
impl Points for Service {
    async fn upsert(&self, request: Request<UpsertPoints>) -> Answer<PointsOperationResponse> {
        self.0.enter("upsert", &request).await?;
        let request = request.into_inner();
        self.0.note_ordering("upsert", request.ordering);
        let collection = self.0.collection(&request.collection_name)?;
        let new: Result<Vec<_>, Status> = request
            .points
            .iter()
            .map(|point| collection.new_point(point))
            .collect();
        let targets = collection.targets(request.shard_key_selector.as_ref())?;
        let mut by_place: HashMap<usize, Vec<_>> = HashMap::new();
        for point in new? {
            let place = collection.place_of_point(&targets, point.id);
            by_place.entry(place).or_default().push(point);
        }
        let mut shards = collection.shards();
        for (place, points) in by_place {
            shards[place].upsert(points)?;
        }
        Ok(done(request.wait))
    }

    async fn delete(&self, request: Request<DeletePoints>) -> Answer<PointsOperationResponse> {
        self.0.enter("delete", &request).await?;
        let request = request.into_inner();
        self.0.note_ordering("delete", request.ordering);
        let collection = self.0.collection(&request.collection_name)?;
        let targets = collection.targets(request.shard_key_selector.as_ref())?;
        let mut shards = collection.shards();
        for place in targets {
            let ids = collection.selected(&mut shards[place], request.points.as_ref())?;
            shards[place].delete(&ids)?;
        }
        Ok(done(request.wait))
    }

    async fn update_batch(&self, request: Request<UpdateBatchPoints>) -> Answer<UpdateBatchResponse> {
        self.0.enter("update_batch", &request).await?;
        let request = request.into_inner();
        self.0.note_ordering("update_batch", request.ordering);
        let collection = self.0.collection(&request.collection_name)?;
        let mut result = Vec::new();
        for operation in &request.operations {
            let Some(Operation::SetPayload(set)) = &operation.operation else {
                return Err(Status::unimplemented("this operation in a batch"));
            };
            let targets = collection.targets(set.shard_key_selector.as_ref())?;
            let mut shards = collection.shards();
            for place in targets {
                let ids = collection.selected(&mut shards[place], set.points_selector.as_ref())?;
                shards[place].set_payload(&ids, payload_to_engine(&set.payload))?;
            }
            result.push(update_result(request.wait));
        }
        Ok(Response::new(UpdateBatchResponse {
            result,
            ..UpdateBatchResponse::default()
        }))
    }

    async fn create_field_index(
        &self,
        request: Request<CreateFieldIndexCollection>,
    ) -> Answer<PointsOperationResponse> {
        self.0.enter("create_field_index", &request).await?;
        let request = request.into_inner();
        let collection = self.0.collection(&request.collection_name)?;
        collection.index_field(&request.field_name, schema(&request)?)?;
        let wait = request.wait;
        lock(&self.0.field_indexes).push(request);
        Ok(done(wait))
    }

    async fn scroll(&self, request: Request<ScrollPoints>) -> Answer<ScrollResponse> {
        self.0.enter("scroll", &request).await?;
        let request = request.into_inner();
        self.0.note_consistency("scroll", request.read_consistency);
        let collection = self.0.collection(&request.collection_name)?;
        let targets = collection.targets(request.shard_key_selector.as_ref())?;
        let filter = collection.filter(request.filter.as_ref())?;
        let offset = request.offset.as_ref().map(engine_id).transpose()?;
        let limit = at_least_one(request.limit.unwrap_or(10).into())?;
        let shards = collection.shards();
        let mut records = Vec::new();
        for place in targets {
            // One more than asked for, to know where the next page begins.
            records.extend(
                shards[place]
                    .scroll(Some(filter.clone()), offset, limit + 1, true)?
                    .0,
            );
        }
        records.sort_by_key(|record| record.id);
        let next_page_offset = records.get(limit).map(|record| protocol_id(record.id));
        records.truncate(limit);
        let result = records.into_iter().map(|record| RetrievedPoint {
            id: Some(protocol_id(record.id)),
            payload: payload_to_protocol(record.payload.unwrap_or_default()),
            ..RetrievedPoint::default()
        });
        Ok(Response::new(ScrollResponse {
            result: result.collect(),
            next_page_offset,
            ..ScrollResponse::default()
        }))
    }

    async fn count(&self, request: Request<CountPoints>) -> Answer<CountResponse> {
        self.0.enter("count", &request).await?;
        let request = request.into_inner();
        self.0.note_consistency("count", request.read_consistency);
        let collection = self.0.collection(&request.collection_name)?;
        let targets = collection.targets(request.shard_key_selector.as_ref())?;
        let filter = collection.filter(request.filter.as_ref())?;
        let shards = collection.shards();
        let mut count = 0;
        for place in targets {
            count += shards[place].count(Some(filter.clone()))? as u64;
        }
        Ok(Response::new(CountResponse {
            result: Some(CountResult { count }),
            ..CountResponse::default()
        }))
    }

    async fn query_batch(&self, request: Request<QueryBatchPoints>) -> Answer<QueryBatchResponse> {
        self.0.enter("query_batch", &request).await?;
        let request = request.into_inner();
        self.0.note_consistency("query_batch", request.read_consistency);
        let collection = self.0.collection(&request.collection_name)?;
        let result: Result<Vec<BatchResult>, Status> = request
            .query_points
            .iter()
            .map(|query| {
                Ok(BatchResult {
                    result: query_points(&collection, query)?,
                })
            })
            .collect();
        Ok(Response::new(QueryBatchResponse {
            result: result?,
            ..QueryBatchResponse::default()
        }))
    }

    unimplemented_methods! {
        get(GetPoints) -> GetResponse;
        update_vectors(UpdatePointVectors) -> PointsOperationResponse;
        delete_vectors(DeletePointVectors) -> PointsOperationResponse;
        set_payload(SetPayloadPoints) -> PointsOperationResponse;
        overwrite_payload(SetPayloadPoints) -> PointsOperationResponse;
        delete_payload(DeletePayloadPoints) -> PointsOperationResponse;
        clear_payload(ClearPayloadPoints) -> PointsOperationResponse;
        delete_field_index(DeleteFieldIndexCollection) -> PointsOperationResponse;
        create_vector_name(CreateVectorNameRequest) -> PointsOperationResponse;
        delete_vector_name(DeleteVectorNameRequest) -> PointsOperationResponse;
        search(SearchPoints) -> SearchResponse;
        search_batch(SearchBatchPoints) -> SearchBatchResponse;
        search_groups(SearchPointGroups) -> SearchGroupsResponse;
        recommend(RecommendPoints) -> RecommendResponse;
        recommend_batch(RecommendBatchPoints) -> RecommendBatchResponse;
        recommend_groups(RecommendPointGroups) -> RecommendGroupsResponse;
        discover(DiscoverPoints) -> DiscoverResponse;
        discover_batch(DiscoverBatchPoints) -> DiscoverBatchResponse;
        query(QueryPoints) -> QueryResponse;
        query_groups(QueryPointGroups) -> QueryGroupsResponse;
        facet(FacetCounts) -> FacetResponse;
        search_matrix_pairs(SearchMatrixPoints) -> SearchMatrixPairsResponse;
        search_matrix_offsets(SearchMatrixPoints) -> SearchMatrixOffsetsResponse;
    }
}

/// What a query finds in all its shards, best first.
fn query_points(collection: &Collection, query: &QueryPoints) -> Result<Vec<ScoredPoint>, Status> {
    let limit = at_least_one(query.limit.unwrap_or(10))?;
    let filter = collection.filter(query.filter.as_ref())?;
    let with_words = included_vectors(query.with_vectors.as_ref())?;
    let mut best: Vec<(Uuid, f32, Payload, Option<VectorsOutput>)> = Vec::new();
    for place in collection.targets(query.shard_key_selector.as_ref())? {
        let within = match query.prefetch.as_slice() {
            [] => None,
            [prefetch] => {
                let filter = collection.filter(prefetch.filter.as_ref())?;
                let limit = at_least_one(prefetch.limit.unwrap_or(10))?;
                let question = Question {
                    query: prefetch.query.as_ref(),
                    using: prefetch.using.as_deref(),
                    params: prefetch.params.as_ref(),
                    filter: &filter,
                    within: None,
                    limit,
                };
                Some(ask(collection, place, question)?)
            }
            _ => return Err(Status::unimplemented("more than one prefetch")),
        };
        let found = ask(
            collection,
            place,
            Question {
                query: query.query.as_ref(),
                using: query.using.as_deref(),
                params: query.params.as_ref(),
                filter: &filter,
                within: within.map(|found| found.into_iter().map(|(id, _)| id).collect()),
                limit,
            },
        )?;
        let ids: Vec<Uuid> = found.iter().map(|(id, _)| *id).collect();
        let shards = collection.shards();
        let mut payloads = shards[place].payloads(&ids)?;
        best.extend(found.into_iter().map(|(id, score)| {
            let vectors = with_words
                .as_deref()
                .and_then(|name| words_output(name, shards[place].words_of(id)?));
            (id, score, payloads.remove(&id).unwrap_or_default(), vectors)
        }));
    }
    best.sort_by(|a, b| b.1.total_cmp(&a.1));
    best.truncate(limit);
    let included = included_fields(query.with_payload.as_ref())?;
    let points = best.into_iter().map(|(id, score, payload, vectors)| {
        let mut payload = payload_to_protocol(payload);
        payload.retain(|name, _| included.contains(name));
        ScoredPoint {
            id: Some(id.to_string().into()),
            score,
            payload,
            vectors,
            ..ScoredPoint::default()
        }
    });
    Ok(points.collect())
}

struct Question<'a> {
    query: Option<&'a Query>,
    using: Option<&'a str>,
    params: Option<&'a SearchParams>,
    filter: &'a EngineFilter,
    /// Only these, where an earlier question chose them.
    within: Option<Vec<Uuid>>,
    limit: usize,
}

/// What one shard answers.
fn ask(collection: &Collection, place: usize, question: Question<'_>) -> Result<Vec<(Uuid, f32)>, Status> {
    let Some(Variant::Nearest(input)) = question.query.and_then(|query| query.variant.as_ref()) else {
        return Err(Status::unimplemented("a query other than nearest"));
    };
    let name = question
        .using
        .ok_or_else(|| refused("Not existing vector name error: "))?;
    let mut shards = collection.shards();
    let shard = &mut shards[place];
    match &input.variant {
        Some(Input::Dense(dense)) => {
            collection.check_dense(name, dense.data.len())?;
            *lock(&collection.asked_with) = question.params.cloned();
            let mut filter = question.filter.clone();
            if let Some(within) = &question.within {
                let ids: Vec<String> = within.iter().map(Uuid::to_string).collect();
                let only: EngineFilter =
                    serde_json::from_value(serde_json::json!({ "must": [{ "has_id": ids }] }))
                        .map_err(|error| refused(error.to_string()))?;
                filter
                    .must
                    .get_or_insert_default()
                    .extend(only.must.unwrap_or_default());
            }
            let exact = question
                .params
                .and_then(|params| params.exact)
                .unwrap_or_default();
            let found = shard.nearest(name, dense.data.clone(), filter, exact, question.limit)?;
            let found = found.into_iter().map(|point| match point.id {
                qdrant_edge::PointId::Uuid(id) => Ok((id, point.score)),
                qdrant_edge::PointId::NumId(_) => Err(refused("point ids are UUIDs here")),
            });
            found.collect()
        }
        Some(Input::Sparse(sparse)) if question.within.is_none() => {
            let query = collection.check_sparse(name, &sparse.indices, &sparse.values)?;
            let corpus = question
                .params
                .and_then(|params| params.idf.as_ref()?.corpus.as_ref());
            let corpus = corpus.map(|corpus| collection.filter(Some(corpus))).transpose()?;
            shard.best_by_words(&query, question.filter, corpus.as_ref(), question.limit)
        }
        other => Err(Status::unimplemented(format!("a query by {other:?}"))),
    }
}

fn included_fields(selector: Option<&WithPayloadSelector>) -> Result<Vec<String>, Status> {
    use with_payload_selector::SelectorOptions;
    match selector.and_then(|selector| selector.selector_options.as_ref()) {
        None | Some(SelectorOptions::Enable(false)) => Ok(Vec::new()),
        Some(SelectorOptions::Include(include)) => Ok(include.fields.clone()),
        other => Err(Status::unimplemented(format!("{other:?}"))),
    }
}

/// The one vector that is asked for.
fn included_vectors(selector: Option<&WithVectorsSelector>) -> Result<Option<String>, Status> {
    use with_vectors_selector::SelectorOptions;
    match selector.and_then(|selector| selector.selector_options.as_ref()) {
        None | Some(SelectorOptions::Enable(false)) => Ok(None),
        Some(SelectorOptions::Include(include)) if include.names.len() == 1 => {
            Ok(include.names.first().cloned())
        }
        other => Err(Status::unimplemented(format!("{other:?}"))),
    }
}

fn words_output(name: &str, words: &[(u32, f32)]) -> Option<VectorsOutput> {
    let (indices, values) = words.iter().copied().unzip();
    let words = VectorOutput {
        vector: Some(vector_output::Vector::Sparse(SparseVector { values, indices })),
        ..VectorOutput::default()
    };
    let named = NamedVectorsOutput {
        vectors: HashMap::from([(name.to_owned(), words)]),
    };
    Some(VectorsOutput {
        vectors_options: Some(vectors_output::VectorsOptions::Vectors(named)),
    })
}

fn schema(request: &CreateFieldIndexCollection) -> Result<PayloadFieldSchema, Status> {
    let params = request
        .field_index_params
        .as_ref()
        .and_then(|params| params.index_params.as_ref());
    let params = match (request.field_type(), params) {
        (FieldType::Keyword, Some(IndexParams::KeywordIndexParams(params))) => {
            PayloadSchemaParams::Keyword(EngineKeyword {
                is_tenant: params.is_tenant,
                enable_hnsw: params.enable_hnsw,
                ..EngineKeyword::default()
            })
        }
        (FieldType::Uuid, Some(IndexParams::UuidIndexParams(params))) => {
            PayloadSchemaParams::Uuid(EngineUuid {
                is_tenant: params.is_tenant,
                enable_hnsw: params.enable_hnsw,
                ..EngineUuid::default()
            })
        }
        (FieldType::Integer, Some(IndexParams::IntegerIndexParams(params))) => {
            PayloadSchemaParams::Integer(EngineInteger {
                lookup: params.lookup,
                range: params.range,
                enable_hnsw: params.enable_hnsw,
                ..EngineInteger::default()
            })
        }
        (kind, _) => return Err(refused(format!("no parameters for an index of {kind:?}"))),
    };
    Ok(PayloadFieldSchema::FieldParams(params))
}

fn at_least_one(limit: u64) -> Result<usize, Status> {
    match usize::try_from(limit) {
        Ok(0) | Err(_) => Err(convert::refused("limit: value 0 invalid, must be 1 or larger")),
        Ok(limit) => Ok(limit),
    }
}

fn done(wait: Option<bool>) -> Response<PointsOperationResponse> {
    Response::new(PointsOperationResponse {
        result: Some(update_result(wait)),
        ..PointsOperationResponse::default()
    })
}

/// Only who waits is told that the change is applied.
fn update_result(wait: Option<bool>) -> UpdateResult {
    let status = if wait == Some(true) {
        UpdateStatus::Completed
    } else {
        UpdateStatus::Acknowledged
    };
    UpdateResult {
        operation_id: None,
        status: status.into(),
    }
}
