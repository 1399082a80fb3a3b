//! The server backend: the index in a collection of a Qdrant server or cluster, which any number of processes share.
//!
//! One collection holds all tenants of one embedding model: a named dense vector, the keyword side's weights as a sparse
//! vector, and what filters ask for. How rare a word is, the server counts among the asking tenant's points. What is
//! written here goes through `scope`, the wall between tenants, and `calls`, which bounds time and tries again.
//! `docs/decisions/0012-qdrant.md` says why.

mod calls;
mod collection;
mod connection;
mod options;
mod point;
mod promotion;
mod rarity;
mod scope;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use qdrant_client::qdrant::{DeletePoints, PointId, QueryBatchPoints, ScoredPoint};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use self::calls::{COLLECTION_IS_GONE, Calls, is_key_refused};
use self::collection::Layout;
pub use self::options::{
    QdrantOptions, QdrantTuning, Quantisation, ReadConsistency, WriteOrdering, WrongOption,
};
use self::point::PreparedPoint;
use self::promotion::Promotions;
use self::rarity::Rarities;
use self::scope::{PreparedQuery, Side, TenantScope};
use super::input::{check_vector, without_repeats};
use super::point::text_hash;
use super::spread::spread;
use super::{Candidate, Candidates, Facets, Index, IndexError, Point, SearchQuery, StoredPoint};
use crate::{BoxFuture, ChunkId, DocumentId, SourceId, TenantId, analysis};

/// Points in one request: a megabyte or three.
const UPSERT_BATCH: usize = 256;
/// Requests of one upsert under way at once.
const UPSERTS_AT_ONCE: usize = 3;
const DELETE_BATCH: usize = 2_000;
const FACETS_BATCH: usize = 100;
const LIST_PAGE: usize = 1_000;

/// An index on a server.
pub struct QdrantIndex {
    inner: Arc<Inner>,
}

struct Inner {
    calls: Calls,
    layout: Layout,
    generation: Mutex<String>,
    promotions: Promotions,
}

impl QdrantIndex {
    /// Connects and finds or makes the collection. Waits a while for a server that is still starting; what is unavailable after
    /// that may come back, all other errors need somebody to change something.
    pub async fn open(options: QdrantOptions) -> Result<Self, IndexError> {
        options.check().map_err(|wrong| IndexError::Refused {
            reason: wrong.to_string(),
        })?;
        let calls = Calls::new(&options)?;
        let layout = Layout::new(&options);
        let deadline = Instant::now() + options.tuning.start_timeout;
        let generation = loop {
            match layout.open(&calls).await {
                // It is no outage: whoever has the wrong key is never let in.
                Err(error) if is_key_refused(&error) => {
                    return Err(IndexError::Refused {
                        reason: error.to_string(),
                    });
                }
                Err(error @ IndexError::Unavailable { .. }) if Instant::now() < deadline => {
                    tracing::info!(%error, "waiting for the index server");
                    sleep(options.tuning.start_timeout / 30).await;
                }
                outcome => break outcome?,
            }
        };
        Ok(Self {
            inner: Arc::new(Inner {
                calls,
                layout,
                generation: Mutex::new(generation),
                promotions: Promotions::default(),
            }),
        })
    }

    fn scope(&self, tenant_id: TenantId) -> TenantScope<'_> {
        TenantScope::new(tenant_id, &self.inner.layout)
    }
}

impl Index for QdrantIndex {
    fn upsert(&self, tenant_id: TenantId, points: Vec<Point>) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(self.inner.upsert(tenant_id, points))
    }

    fn delete_chunks(
        &self,
        tenant_id: TenantId,
        chunk_ids: Vec<ChunkId>,
    ) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(async move {
            for batch in chunk_ids.chunks(DELETE_BATCH) {
                self.inner
                    .delete(self.scope(tenant_id).delete_chunks(batch))
                    .await?;
            }
            Ok(())
        })
    }

    fn delete_documents(
        &self,
        tenant_id: TenantId,
        document_ids: Vec<DocumentId>,
    ) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(async move {
            for batch in document_ids.chunks(DELETE_BATCH) {
                self.inner
                    .delete(self.scope(tenant_id).delete_documents(batch))
                    .await?;
            }
            Ok(())
        })
    }

    fn delete_sources(
        &self,
        tenant_id: TenantId,
        source_ids: Vec<SourceId>,
    ) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(async move {
            for batch in source_ids.chunks(DELETE_BATCH) {
                self.inner
                    .delete(self.scope(tenant_id).delete_sources(batch))
                    .await?;
            }
            Ok(())
        })
    }

    fn delete_tenant(&self, tenant_id: TenantId) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(async move {
            let scope = self.scope(tenant_id);
            self.inner.delete(scope.delete_all()).await?;
            if self.inner.layout.is_tiered() {
                self.inner.delete(scope.delete_all_shared()).await?;
                promotion::drop_own_shard(&self.inner, &scope).await?;
                self.inner.promotions.forget(tenant_id);
            }
            Ok(())
        })
    }

    fn set_facets(
        &self,
        tenant_id: TenantId,
        facets: Vec<(DocumentId, Facets)>,
    ) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(async move { self.inner.set_facets(tenant_id, &facets).await })
    }

    fn search(
        &self,
        tenant_id: TenantId,
        query: SearchQuery,
    ) -> BoxFuture<'_, Result<Candidates, IndexError>> {
        Box::pin(self.inner.search(tenant_id, query))
    }

    fn list(
        &self,
        tenant_id: TenantId,
        after: Option<ChunkId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredPoint>, IndexError>> {
        Box::pin(self.inner.list(tenant_id, after, limit))
    }

    fn count(&self, tenant_id: TenantId) -> BoxFuture<'_, Result<u64, IndexError>> {
        Box::pin(self.inner.count(tenant_id))
    }

    fn check(&self) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(async move {
            let name = self.inner.layout.name.as_str();
            let is_there = self
                .inner
                .calls
                .read_once("find the collection", |client| async move {
                    client.collection_exists(name).await
                })
                .await?;
            if is_there {
                return Ok(());
            }
            Err(IndexError::Unavailable {
                reason: COLLECTION_IS_GONE.to_owned(),
                source: None,
            })
        })
    }

    fn generation(&self) -> Option<String> {
        Some(self.inner.generation().clone())
    }

    fn look_up_generation(&self) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(async {
            if let Some(present) = self.inner.layout.find_generation(&self.inner.calls).await? {
                *self.inner.generation() = present;
            }
            Ok(())
        })
    }

    fn remove_former(&self, at_least: Duration) -> BoxFuture<'_, Result<usize, IndexError>> {
        Box::pin(self.inner.layout.remove_former(&self.inner.calls, at_least))
    }

    fn close(&self) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(async move {
            self.inner.promotions.close();
            self.inner.calls.close();
            Ok(())
        })
    }
}

impl Inner {
    fn generation(&self) -> MutexGuard<'_, String> {
        self.generation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn upsert(self: &Arc<Self>, tenant_id: TenantId, points: Vec<Point>) -> Result<(), IndexError> {
        for vector in points.iter().filter_map(|point| point.vector.as_ref()) {
            check_vector(self.layout.dimension, vector)?;
        }
        let count = points.len() as u64;
        // Analysing the words of a large batch takes milliseconds.
        let (points, facets) = tokio::task::spawn_blocking(move || prepare(points))
            .await
            .map_err(|error| IndexError::Unavailable {
                reason: "the analysis of the texts was cut off".to_owned(),
                source: Some(error.into()),
            })?;
        let scope = TenantScope::new(tenant_id, &self.layout);
        // No two requests have a point in common, so they may overtake each other.
        stream::iter(points.chunks(UPSERT_BATCH).map(|batch| scope.upsert(batch)))
            .map(Ok)
            .try_for_each_concurrent(UPSERTS_AT_ONCE, |request| {
                self.calls.update("store points", move |client| {
                    let request = request.clone();
                    async move { Ok(Vec::from_iter(client.upsert_points(request).await?.result)) }
                })
            })
            .await?;
        // The rest of their documents may say something else yet.
        self.set_facets(tenant_id, &facets).await?;
        self.promotions.stored(self, tenant_id, count);
        Ok(())
    }

    async fn delete(&self, request: DeletePoints) -> Result<(), IndexError> {
        self.calls
            .update("delete points", |client| {
                let request = request.clone();
                async move { Ok(Vec::from_iter(client.delete_points(request).await?.result)) }
            })
            .await
    }

    async fn set_facets(
        &self,
        tenant_id: TenantId,
        facets: &[(DocumentId, Facets)],
    ) -> Result<(), IndexError> {
        let scope = TenantScope::new(tenant_id, &self.layout);
        for batch in facets.chunks(FACETS_BATCH) {
            let request = scope.set_facets(batch);
            self.calls
                .update("change what is said of documents", |client| {
                    let request = request.clone();
                    async move { Ok(client.update_points_batch(request).await?.result) }
                })
                .await?;
        }
        Ok(())
    }

    async fn search(&self, tenant_id: TenantId, query: SearchQuery) -> Result<Candidates, IndexError> {
        if let Some(vector) = &query.vector {
            check_vector(self.layout.dimension, vector)?;
        }
        let scope = TenantScope::new(tenant_id, &self.layout);
        let Some(filter) = scope.matching(&query.filter) else {
            return Ok(Candidates::default());
        };
        let mut prepared = PreparedQuery {
            terms: analysis::query_terms(&query.text, &query.languages),
            vector: query.vector,
            limit: query.limit as u64,
        };
        let sides = Side::asked(&prepared);
        if sides.is_empty() || prepared.limit == 0 {
            return Ok(Candidates::default());
        }
        let mut answers = self.ask(scope.search(&filter, &prepared)).await?;
        let mut best_for_each = answers.split_off(sides.len());
        let codes = rarity::counted_codes(&prepared.terms);
        let of_codes = best_for_each.split_off(best_for_each.len() - codes.len());
        let unseen: Vec<u32> = codes
            .into_iter()
            .zip(of_codes)
            .filter(|(_, points)| !points.iter().any(|point| scope.owns(&point.payload)))
            .map(|(code, _)| code)
            .collect();
        let rarities = Rarities::read(&scope, &prepared.terms, best_for_each);
        let having_of = |term| match unseen.contains(&term) {
            true => 0,
            false => rarities.having(term),
        };
        let names_rare_code = prepared.terms.name_rare_code(having_of);
        let settled = prepared.terms.settle(having_of);
        if settled.hashes != prepared.terms.hashes {
            // A code that no point has whole.
            prepared.terms = settled;
            answers = self.ask(scope.search_sides(&filter, &prepared)).await?;
        }
        let mut found = Gathered::default();
        for (side, points) in sides.into_iter().zip(answers) {
            // There may be nothing, or a graph whose only entry was deleted.
            let points = match side {
                Side::Meaning if points.is_empty() => {
                    let exact = self.ask(scope.search_exactly(&filter, &prepared)).await?;
                    exact.into_iter().flatten().collect()
                }
                _ => points,
            };
            found.add(side, points.into_iter().filter_map(|point| scope.found(point)));
        }
        Ok(Candidates {
            hits: found.0.into_values().collect(),
            keyword_ceiling: self
                .keyword_ceiling(tenant_id, &prepared.terms, &rarities)
                .await?,
            names_rare_code,
        })
    }

    /// One call; an answer for each of its questions.
    async fn ask(&self, request: QueryBatchPoints) -> Result<Vec<Vec<ScoredPoint>>, IndexError> {
        let questions = request.query_points.len();
        let answered = self
            .calls
            .read("search", |client| {
                let request = request.clone();
                async move { client.query_batch(request).await }
            })
            .await?;
        if answered.result.len() != questions {
            return Err(IndexError::Unavailable {
                reason: format!(
                    "the index server gave {} answers to {questions} questions",
                    answered.result.len()
                ),
                source: None,
            });
        }
        Ok(answered.result.into_iter().map(|batch| batch.result).collect())
    }

    async fn list(
        &self,
        tenant_id: TenantId,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<Vec<StoredPoint>, IndexError> {
        let scope = TenantScope::new(tenant_id, &self.layout);
        // Points lie in the order of chunk ids from `start` on, and go on at 0 behind the last possible one.
        let start = spread(tenant_id);
        let first = match after {
            None => 0,
            Some(after) => match after.0.as_u128().checked_add(1) {
                Some(first) => first,
                None => return Ok(Vec::new()),
            },
        };
        let first = first.wrapping_add(start);
        let mut has_wrapped = first < start;
        let mut offset: PointId = Uuid::from_u128(first).to_string().into();
        let mut listed = Vec::new();
        while listed.len() < limit {
            let request = scope.scroll(offset, (limit - listed.len()).min(LIST_PAGE) as u32);
            let page = self
                .calls
                .read("list points", |client| {
                    let request = request.clone();
                    async move { client.scroll(request).await }
                })
                .await?;
            for point in page.result {
                let id = point.id.as_ref().and_then(point::uuid_of);
                if has_wrapped && id.is_some_and(|id| id.as_u128() >= start) {
                    return Ok(listed);
                }
                if !scope.owns(&point.payload) {
                    continue;
                }
                let chunk_id = point.id.as_ref().and_then(|id| scope.chunk_id(id));
                listed.extend(chunk_id.and_then(|chunk_id| point::stored_point(chunk_id, &point.payload)));
            }
            offset = match page.next_page_offset {
                Some(next) => next,
                None if has_wrapped || start == 0 => break,
                None => {
                    has_wrapped = true;
                    Uuid::nil().to_string().into()
                }
            };
        }
        Ok(listed)
    }

    async fn count(&self, tenant_id: TenantId) -> Result<u64, IndexError> {
        let request = TenantScope::new(tenant_id, &self.layout).count();
        let counted = self
            .calls
            .read("count points", |client| {
                let request = request.clone();
                async move { client.count(request).await }
            })
            .await?;
        Ok(counted.result.map_or(0, |result| result.count))
    }
}

/// Candidates as the sides name them.
#[derive(Default)]
struct Gathered(HashMap<ChunkId, Candidate>);

impl Gathered {
    fn add(&mut self, side: Side, found: impl Iterator<Item = scope::Found>) {
        for point in found {
            let candidate = Candidate {
                chunk_id: point.chunk_id,
                similarity: None,
                keyword_score: None,
            };
            let candidate = self.0.entry(point.chunk_id).or_insert(candidate);
            match side {
                Side::Words => candidate.keyword_score = Some(point.score),
                // Rounding may leave the range.
                Side::Meaning | Side::SimilarityOfWords => {
                    candidate.similarity = Some(point.score.clamp(-1.0, 1.0));
                }
            }
        }
    }
}

/// The points in the form the collection takes, and what the last of each document says of it, which goes for all of them.
fn prepare(points: Vec<Point>) -> (Vec<PreparedPoint>, Vec<(DocumentId, Facets)>) {
    let mut facets_of: HashMap<DocumentId, Facets> = HashMap::new();
    for point in &points {
        facets_of.insert(point.document_id, point.facets.clone().in_order());
    }
    let prepared = without_repeats(points).into_iter().map(|point| PreparedPoint {
        chunk_id: point.chunk_id,
        document_id: point.document_id,
        source_id: point.source_id,
        text_hash: text_hash(&point.text),
        terms: analysis::weigh_document(&point.text, point.facets.known_language()),
        facets: facets_of[&point.document_id].clone(),
        vector: point.vector,
    });
    (prepared.collect(), facets_of.into_iter().collect())
}
