//! The wall between tenants: every request about points is made here, and none can be made without a tenant.
//!
//! Each names its tenant in its filter, or addresses points by ids that only this tenant's chunks have; what comes back
//! is looked at again before it counts.

use qdrant_client::qdrant::r#match::MatchValue;
use qdrant_client::qdrant::points_update_operation::{Operation, SetPayload};
use qdrant_client::qdrant::vector_output::Vector;
use qdrant_client::qdrant::{
    Condition, CountPoints, DeletePoints, Filter, IdfParams, PointId, PointsSelector, PointsUpdateOperation,
    PrefetchQuery, QuantizationSearchParams, Query, QueryBatchPoints, QueryPoints, Range, ReplicatePoints,
    ScoredPoint, ScrollPoints, SearchParams, ShardKey, ShardKeySelector, UpdateBatchPoints, UpsertPoints,
    VectorInput,
};
use uuid::Uuid;

use super::collection::Layout;
use super::point::{
    self, DATE, DENSE, DOCUMENT, FACETS, Fields, GROUPS, LANGUAGE, PreparedPoint, SOURCE, TAGS, TENANT, WORDS,
};
use super::rarity;
use crate::analysis::{FEW, QueryTerms};
use crate::index::spread::spread;
use crate::index::{Audience, Facets, Filter as IndexFilter};
use crate::{ChunkId, DocumentId, SourceId, TenantId};

/// Shard that tenants share until they are promoted.
pub(super) const SHARED_SHARD: &str = "default";

/// One tenant in the collection.
#[derive(Clone)]
pub(super) struct TenantScope<'a> {
    tenant_id: TenantId,
    layout: &'a Layout,
}

/// A point that the server found and that is this tenant's.
pub(super) struct Found {
    pub(super) chunk_id: ChunkId,
    pub(super) score: f32,
}

/// A question in the form the server takes.
pub(super) struct PreparedQuery {
    pub(super) vector: Option<Vec<f32>>,
    pub(super) terms: QueryTerms,
    pub(super) limit: u64,
}

impl<'a> TenantScope<'a> {
    pub(super) fn new(tenant_id: TenantId, layout: &'a Layout) -> Self {
        Self { tenant_id, layout }
    }

    pub(super) fn upsert(&self, points: &[PreparedPoint]) -> UpsertPoints {
        let stored = points
            .iter()
            .map(|point| point.to_stored(self.tenant_id, self.point_id(point.chunk_id)));
        UpsertPoints {
            collection_name: self.layout.name.clone(),
            wait: Some(true),
            points: stored.collect(),
            ordering: self.layout.ordering(),
            shard_key_selector: self.shard(),
            ..UpsertPoints::default()
        }
    }

    pub(super) fn delete_chunks(&self, chunk_ids: &[ChunkId]) -> DeletePoints {
        let ids: Vec<PointId> = chunk_ids.iter().map(|id| self.point_id(*id)).collect();
        self.delete(ids.into(), self.shard())
    }

    /// Deletes what belongs to these documents; there is at least one.
    pub(super) fn delete_documents(&self, document_ids: &[DocumentId]) -> DeletePoints {
        let of_documents = one_of(DOCUMENT, document_ids.iter().map(|id| id.0));
        self.delete(self.filter([of_documents]).into(), self.shard())
    }

    /// Deletes what belongs to these sources; there is at least one.
    pub(super) fn delete_sources(&self, source_ids: &[SourceId]) -> DeletePoints {
        let of_sources = one_of(SOURCE, source_ids.iter().map(|id| id.0));
        self.delete(self.filter([of_sources]).into(), self.shard())
    }

    pub(super) fn delete_all(&self) -> DeletePoints {
        self.delete(self.filter([]).into(), self.shard())
    }

    /// Deletes the tenant's points from the shared shard, whether or not it has one of its own.
    pub(super) fn delete_all_shared(&self) -> DeletePoints {
        self.delete(
            self.filter([]).into(),
            Some(vec![ShardKey::from(SHARED_SHARD)].into()),
        )
    }

    /// Changes what is said of documents, at those of their points that say something else.
    pub(super) fn set_facets(&self, documents: &[(DocumentId, Facets)]) -> UpdateBatchPoints {
        let operations = documents.iter().map(|(document_id, facets)| {
            let said = Condition::matches(FACETS, point::facets_digest(facets));
            let selected = Filter {
                must_not: vec![said],
                ..self.filter([one_of(DOCUMENT, [document_id.0])])
            };
            PointsUpdateOperation {
                operation: Some(Operation::SetPayload(SetPayload {
                    payload: point::facets_to_fields(facets),
                    points_selector: Some(selected.into()),
                    shard_key_selector: self.shard(),
                    key: None,
                })),
            }
        });
        UpdateBatchPoints {
            collection_name: self.layout.name.clone(),
            wait: Some(true),
            operations: operations.collect(),
            ordering: self.layout.ordering(),
            ..UpdateBatchPoints::default()
        }
    }

    /// Both sides of a question in one call, and the similarity of what is found by words: the answers come in the order
    /// of [`Side::asked`]. Behind these come the best for each of the terms of [`rarity::counted`], then for each of
    /// [`rarity::counted_codes`] one point that has it, if the filter lets one through.
    pub(super) fn search(&self, filter: &Filter, query: &PreparedQuery) -> QueryBatchPoints {
        let codes: Vec<u32> = query.terms.of_codes().collect();
        let counted = rarity::counted(&query.terms);
        let best_for_each = counted
            .into_iter()
            .map(|term| self.best_for(term, codes.contains(&term)));
        let mut request = self.search_sides(filter, query);
        request.query_points.extend(best_for_each);
        let codes = rarity::counted_codes(&query.terms).into_iter();
        request
            .query_points
            .extend(codes.map(|code| self.one_having(code, filter)));
        request
    }

    /// The same without what tells how rare the terms are.
    pub(super) fn search_sides(&self, filter: &Filter, query: &PreparedQuery) -> QueryBatchPoints {
        let questions = Side::asked(query).into_iter().map(|side| match side {
            Side::Meaning => self.by_meaning(filter, query, false),
            Side::Words => QueryPoints {
                query: Some(words_query(&query.terms.hashes)),
                using: Some(WORDS.to_owned()),
                params: Some(self.words_params()),
                ..self.question(filter, query.limit)
            },
            Side::SimilarityOfWords => QueryPoints {
                prefetch: vec![PrefetchQuery {
                    query: Some(words_query(&query.terms.hashes)),
                    using: Some(WORDS.to_owned()),
                    filter: Some(filter.clone()),
                    params: Some(self.words_params()),
                    limit: Some(query.limit),
                    ..PrefetchQuery::default()
                }],
                // Compares the few that were found with their vectors, not with their smaller copies.
                ..self.by_meaning(filter, query, true)
            },
        });
        self.batch(questions.collect())
    }

    /// The point in which the term weighs most, with its weights; of codes as many as tell whether more than [`FEW`] have it.
    fn best_for(&self, term: u32, is_of_code: bool) -> QueryPoints {
        let limit = if is_of_code { FEW + 1 } else { 1 };
        QueryPoints {
            query: Some(words_query(&[term])),
            using: Some(WORDS.to_owned()),
            params: Some(self.words_params()),
            with_vectors: Some(vec![WORDS].into()),
            ..self.question(&self.filter([]), limit)
        }
    }

    /// A point with the term, if the filter lets one through.
    fn one_having(&self, term: u32, filter: &Filter) -> QueryPoints {
        QueryPoints {
            query: Some(words_query(&[term])),
            using: Some(WORDS.to_owned()),
            params: Some(self.words_params()),
            ..self.question(filter, 1)
        }
    }

    /// The inverse document frequency of the term, from one of the points that [`TenantScope::search`] found for it.
    pub(super) fn frequency(&self, term: u32, found: ScoredPoint) -> Option<f32> {
        if !self.owns(&found.payload) {
            return None;
        }
        let Vector::Sparse(words) = found.vectors?.get_vector_by_name(WORDS)? else {
            return None;
        };
        let at = words.indices.iter().position(|index| *index == term)?;
        let frequency = found.score / words.values.get(at)?;
        (frequency.is_finite() && frequency > 0.0).then_some(frequency)
    }

    /// The meaning side again, every vector compared.
    pub(super) fn search_exactly(&self, filter: &Filter, query: &PreparedQuery) -> QueryBatchPoints {
        self.batch(vec![self.by_meaning(filter, query, true)])
    }

    pub(super) fn count(&self) -> CountPoints {
        CountPoints {
            collection_name: self.layout.name.clone(),
            filter: Some(self.filter([])),
            exact: Some(true),
            read_consistency: self.layout.read_consistency(),
            shard_key_selector: self.shard(),
            ..CountPoints::default()
        }
    }

    /// The tenant's points in the order of their ids, from `first` on.
    pub(super) fn scroll(&self, first: PointId, limit: u32) -> ScrollPoints {
        ScrollPoints {
            collection_name: self.layout.name.clone(),
            filter: Some(self.filter([])),
            offset: Some(first),
            limit: Some(limit),
            with_payload: Some(true.into()),
            with_vectors: Some(false.into()),
            read_consistency: self.layout.read_consistency(),
            shard_key_selector: self.shard(),
            ..ScrollPoints::default()
        }
    }

    /// Copies the tenant's points from the shared shard to its own.
    pub(super) fn replicate(&self) -> ReplicatePoints {
        ReplicatePoints {
            from_shard_key: Some(SHARED_SHARD.into()),
            to_shard_key: Some(self.own_shard()),
            filter: Some(self.filter([])),
        }
    }

    pub(super) fn own_shard(&self) -> ShardKey {
        self.tenant_id.to_string().into()
    }

    /// What `filter` lets through of this tenant; `None` when it lets nothing through.
    pub(super) fn matching(&self, filter: &IndexFilter) -> Option<Filter> {
        if filter.lets_nothing() {
            return None;
        }
        let IndexFilter {
            sources,
            documents,
            languages,
            tags,
            since,
            until,
            audience,
        } = filter;
        let mut conditions = vec![one_of(SOURCE, sources.iter().map(|id| id.0))];
        conditions.extend(
            documents
                .as_ref()
                .map(|ids| one_of(DOCUMENT, ids.iter().map(|id| id.0))),
        );
        conditions.extend(
            languages
                .as_ref()
                .map(|any| Condition::matches(LANGUAGE, any.clone())),
        );
        conditions.extend(tags.as_ref().map(|any| Condition::matches(TAGS, any.clone())));
        if since.is_some() || until.is_some() {
            let range = Range {
                gte: since.map(|date| date as f64),
                lt: until.map(|date| date as f64),
                ..Range::default()
            };
            conditions.push(Condition::range(DATE, range));
        }
        conditions.extend(readable_by(audience));
        Some(self.filter(conditions))
    }

    /// The point behind a search's answer. The filter has seen to its tenant; it is asked again because nothing weighs
    /// more.
    pub(super) fn found(&self, point: ScoredPoint) -> Option<Found> {
        if !self.owns(&point.payload) {
            return None;
        }
        Some(Found {
            chunk_id: self.chunk_id(&point.id?)?,
            score: point.score,
        })
    }

    pub(super) fn owns(&self, payload: &Fields) -> bool {
        let is_own = point::read_id(payload, TENANT) == Some(self.tenant_id.0);
        if !is_own {
            tracing::error!(tenant.id = %self.tenant_id, "the index server answered with a point that is not this tenant's");
        }
        is_own
    }

    /// Where a chunk lies in the collection. Adding keeps the order of a tenant's chunks but for one wrap, which
    /// [`TenantScope::scroll`] is used by.
    pub(super) fn point_id(&self, chunk_id: ChunkId) -> PointId {
        let id = chunk_id.0.as_u128().wrapping_add(spread(self.tenant_id));
        Uuid::from_u128(id).to_string().into()
    }

    /// The chunk behind a point of this tenant, the inverse of [`TenantScope::point_id`].
    pub(super) fn chunk_id(&self, point_id: &PointId) -> Option<ChunkId> {
        let id = point::uuid_of(point_id)?.as_u128();
        Some(ChunkId(Uuid::from_u128(id.wrapping_sub(spread(self.tenant_id)))))
    }

    /// The tenant's points that meet all of `conditions`.
    fn filter(&self, conditions: impl IntoIterator<Item = Condition>) -> Filter {
        let of_tenant = one_of(TENANT, [self.tenant_id.0]);
        Filter::must([of_tenant].into_iter().chain(conditions))
    }

    /// Where shards are chosen by us: the tenant's own if there is one, else the shared one.
    fn shard(&self) -> Option<ShardKeySelector> {
        self.layout.is_tiered().then(|| ShardKeySelector {
            shard_keys: vec![self.own_shard()],
            fallback: Some(SHARED_SHARD.into()),
        })
    }

    fn delete(&self, points: PointsSelector, shard: Option<ShardKeySelector>) -> DeletePoints {
        DeletePoints {
            collection_name: self.layout.name.clone(),
            wait: Some(true),
            points: Some(points),
            ordering: self.layout.ordering(),
            shard_key_selector: shard,
            ..DeletePoints::default()
        }
    }

    fn batch(&self, query_points: Vec<QueryPoints>) -> QueryBatchPoints {
        QueryBatchPoints {
            collection_name: self.layout.name.clone(),
            query_points,
            read_consistency: self.layout.read_consistency(),
            ..QueryBatchPoints::default()
        }
    }

    fn question(&self, filter: &Filter, limit: u64) -> QueryPoints {
        QueryPoints {
            collection_name: self.layout.name.clone(),
            filter: Some(filter.clone()),
            limit: Some(limit),
            with_payload: Some(vec![TENANT].into()),
            with_vectors: Some(false.into()),
            shard_key_selector: self.shard(),
            ..QueryPoints::default()
        }
    }

    fn by_meaning(&self, filter: &Filter, query: &PreparedQuery, exact: bool) -> QueryPoints {
        let tuning = &self.layout.tuning;
        let quantisation = QuantizationSearchParams {
            rescore: Some(true),
            oversampling: Some(tuning.oversampling),
            ..QuantizationSearchParams::default()
        };
        QueryPoints {
            query: Some(Query::new_nearest(query.vector.clone().unwrap_or_default())),
            using: Some(DENSE.to_owned()),
            params: Some(SearchParams {
                exact: Some(exact),
                hnsw_ef: tuning.search_width.map(u64::from),
                quantization: self.layout.is_quantised().then_some(quantisation),
                ..SearchParams::default()
            }),
            ..self.question(filter, query.limit)
        }
    }

    /// How rare a term is, is counted among this tenant's chunks: what others store never moves a score.
    fn words_params(&self) -> SearchParams {
        SearchParams {
            idf: Some(IdfParams {
                corpus: Some(self.filter([])),
            }),
            ..SearchParams::default()
        }
    }
}

/// A part of a search's call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Meaning,
    Words,
    /// How near those that were found by words are in meaning.
    SimilarityOfWords,
}

impl Side {
    /// The parts of a call for `query`, in their order.
    pub(super) fn asked(query: &PreparedQuery) -> Vec<Self> {
        let has_vector = query.vector.is_some();
        let has_terms = !query.terms.hashes.is_empty();
        [
            (has_vector, Self::Meaning),
            (has_terms, Self::Words),
            (has_vector && has_terms, Self::SimilarityOfWords),
        ]
        .into_iter()
        .filter_map(|(is_asked, side)| is_asked.then_some(side))
        .collect()
    }
}

/// Each term weighs alike; the server multiplies by how rare it is.
fn words_query(terms: &[u32]) -> Query {
    Query::new_nearest(VectorInput::new_sparse(terms, vec![1.0; terms.len()]))
}

/// `None` for those who may read everything.
fn readable_by(audience: &Audience) -> Option<Condition> {
    let Audience::Groups(groups) = audience else {
        return None;
    };
    let for_everyone = Condition::is_empty(GROUPS);
    if groups.is_empty() {
        return Some(for_everyone);
    }
    let for_these = Condition::matches(GROUPS, groups.clone());
    Some(Filter::should([for_everyone, for_these]).into())
}

fn one_of(field: &str, ids: impl IntoIterator<Item = Uuid>) -> Condition {
    let mut ids: Vec<String> = ids.into_iter().map(|id| id.to_string()).collect();
    let values: MatchValue = match ids.len() {
        1 => ids.remove(0).into(),
        _ => ids.into(),
    };
    Condition::matches(field, values)
}
