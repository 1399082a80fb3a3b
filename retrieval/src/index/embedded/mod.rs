//! The embedded index: nothing to install, everything in this process and one directory.
//!
//! A few shards hold all tenants, each tenant in one of them. A shard has a keyword side (`keywords`) and, where there is
//! an embedding model, a vector side on Qdrant's engine (`engine`). Every shard has one writer thread, which keeps a redo
//! log, and any number of readers. Shards are made when their first tenant arrives, so an empty server has none.
//!
//! Term statistics (the inverse document frequency) are each tenant's own: nobody's scores depend on what others store.

mod codec;
mod collection;
mod engine;
mod filter;
mod generation;
mod keywords;
mod log;
mod migrate;
mod operation;
mod shard;
mod sides;
mod stored;
mod tuning;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

pub use self::tuning::Tuning;

use self::collection::Collection;
use self::filter::TenantFilter;
use self::operation::{Change, Operation, PreparedPoint};
use self::shard::{Shard, closed, lock};
use self::sides::PreparedQuery;
use super::input::{check_vector, without_repeats};
use super::point::text_hash;
use super::{Candidates, Facets, Index, IndexError, Point, SearchQuery, StoredPoint};
use crate::{BoxFuture, ChunkId, DocumentId, SourceId, TenantId, analysis};

/// Shards of a new index. More of them write in parallel; each costs about a megabyte at rest.
pub const DEFAULT_SHARDS: usize = 4;

/// Where an embedded index lies and what it holds.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions<'a> {
    /// The collection is a directory in this one, named after the model.
    pub dir: PathBuf,
    /// The embedding model, with its dimension; both `None` for an index that finds by words alone.
    pub model_id: Option<&'a str>,
    pub dimension: Option<usize>,
    /// Shards of a new index; one that exists keeps its number. [`DEFAULT_SHARDS`] suits most.
    pub shards: usize,
}

/// An open embedded index. Cheap to clone; all clones are one index.
#[derive(Clone)]
pub struct EmbeddedIndex {
    inner: Arc<Inner>,
}

struct Inner {
    /// `None` once closed.
    collection: Mutex<Option<Arc<Collection>>>,
    /// `None` when chunks are found by words alone.
    dimension: Option<usize>,
    tuning: Tuning,
    shards: Vec<Mutex<Option<Arc<Shard>>>>,
    /// Graphs of one shard at a time are built.
    one_build: Arc<Mutex<()>>,
    /// Searches keep a core busy each; more of them at once than cores only makes all of them late.
    search_permits: Semaphore,
}

impl EmbeddedIndex {
    /// Opens the index, makes it where there is none, and repairs what a crash left. Blocks while it reads files.
    ///
    /// Call [`Index::close`] at the end: it saves the repair at the next start.
    pub fn open(options: EmbeddedOptions<'_>) -> Result<Self, IndexError> {
        Self::open_tuned(options, Tuning::default())
    }

    /// As [`EmbeddedIndex::open`], for tests and measurements.
    pub fn open_tuned(options: EmbeddedOptions<'_>, tuning: Tuning) -> Result<Self, IndexError> {
        let model = match (options.model_id, options.dimension) {
            (Some(model_id), Some(dimension)) if dimension > 0 => Some((model_id, dimension)),
            (None, None) => None,
            _ => {
                let reason = "a model and its dimension are given together or not at all".to_owned();
                return Err(IndexError::Refused { reason });
            }
        };
        let collection = Arc::new(Collection::open(&options.dir, model, options.shards)?);
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let inner = Inner {
            dimension: collection.dimension(),
            tuning,
            shards: (0..collection.shards()).map(|_| Mutex::new(None)).collect(),
            collection: Mutex::new(Some(collection.clone())),
            one_build: Arc::new(Mutex::new(())),
            search_permits: Semaphore::new(cores + 1),
        };
        thread::scope(|scope| {
            let present = (0..collection.shards()).filter(|shard| collection.shard_dir(*shard).exists());
            let inner = &inner;
            let openings: Vec<_> = present
                .map(|shard| scope.spawn(move || inner.open_shard(shard).map(drop)))
                .collect();
            openings.into_iter().try_for_each(|opening| match opening.join() {
                Ok(opened) => opened,
                Err(_) => Err(IndexError::Damaged {
                    reason: "a shard cannot be opened".to_owned(),
                }),
            })
        })?;
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Runs `work` on a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, IndexError> + Send + 'static,
    ) -> Result<T, IndexError> {
        let inner = self.inner.clone();
        spawn_blocking(move || work(&inner))
            .await
            .map_err(|error| IndexError::Unavailable {
                reason: "index call failed".to_owned(),
                source: Some(error.into()),
            })?
    }

    /// Has `change` done by the writer of the tenant's shard; where there is no shard there is nothing to delete.
    async fn change(
        &self,
        tenant_id: TenantId,
        change: impl FnOnce(&Inner) -> Result<Change, IndexError> + Send + 'static,
    ) -> Result<(), IndexError> {
        let submit = move |inner: &Inner| {
            let operation = Operation {
                tenant_id,
                change: change(inner)?,
            };
            let shard = match &operation.change {
                Change::Upsert(points) if points.is_empty() => None,
                Change::Upsert(_) => Some(inner.shard_for_writing(tenant_id)?),
                Change::SetFacets(_)
                | Change::DeleteChunks(_)
                | Change::DeleteDocuments(_)
                | Change::DeleteSources(_)
                | Change::DeleteTenant => inner.shard(tenant_id)?,
            };
            Ok(shard.map(|shard| shard.submit(operation)))
        };
        match self.blocking(submit).await? {
            Some(answer) => answer.await.map_err(|_| closed())?,
            None => Ok(()),
        }
    }
}

impl Inner {
    fn collection(&self) -> Result<Arc<Collection>, IndexError> {
        lock(&self.collection).clone().ok_or_else(closed)
    }

    /// The tenant's shard, if there is one.
    fn shard(&self, tenant_id: TenantId) -> Result<Option<Arc<Shard>>, IndexError> {
        let number = self.collection()?.shard_of(tenant_id);
        Ok(lock(&self.shards[number]).clone())
    }

    fn shard_for_writing(&self, tenant_id: TenantId) -> Result<Arc<Shard>, IndexError> {
        self.open_shard(self.collection()?.shard_of(tenant_id))
    }

    fn open_shard(&self, number: usize) -> Result<Arc<Shard>, IndexError> {
        let mut slot = lock(&self.shards[number]);
        if let Some(shard) = &*slot {
            return Ok(shard.clone());
        }
        // Asked again under the slot's lock, so that closing cannot overlook a shard that opens behind its back.
        let collection = self.collection()?;
        let shard = Arc::new(Shard::open(
            collection,
            number,
            self.tuning,
            self.one_build.clone(),
        )?);
        *slot = Some(shard.clone());
        Ok(shard)
    }

    fn prepare(&self, points: Vec<Point>) -> Result<Vec<PreparedPoint>, IndexError> {
        points
            .iter()
            .filter_map(|point| point.vector.as_ref())
            .try_for_each(|vector| check_vector(self.dimension, vector))?;
        let prepared = without_repeats(points).into_iter().map(|point| PreparedPoint {
            chunk_id: point.chunk_id,
            document_id: point.document_id,
            source_id: point.source_id,
            terms: analysis::weigh_document(&point.text, point.facets.known_language()),
            vector: point.vector,
            text_hash: text_hash(&point.text),
            facets: point.facets.in_order(),
        });
        Ok(prepared.collect())
    }
}

impl Index for EmbeddedIndex {
    fn upsert(&self, tenant_id: TenantId, points: Vec<Point>) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(self.change(tenant_id, move |inner| inner.prepare(points).map(Change::Upsert)))
    }

    fn delete_chunks(
        &self,
        tenant_id: TenantId,
        chunk_ids: Vec<ChunkId>,
    ) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(self.change(tenant_id, move |_| Ok(Change::DeleteChunks(chunk_ids))))
    }

    fn delete_documents(
        &self,
        tenant_id: TenantId,
        document_ids: Vec<DocumentId>,
    ) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(self.change(tenant_id, move |_| Ok(Change::DeleteDocuments(document_ids))))
    }

    fn delete_sources(
        &self,
        tenant_id: TenantId,
        source_ids: Vec<SourceId>,
    ) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(self.change(tenant_id, move |_| Ok(Change::DeleteSources(source_ids))))
    }

    fn delete_tenant(&self, tenant_id: TenantId) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(self.change(tenant_id, |_| Ok(Change::DeleteTenant)))
    }

    fn set_facets(
        &self,
        tenant_id: TenantId,
        facets: Vec<(DocumentId, Facets)>,
    ) -> BoxFuture<'_, Result<(), IndexError>> {
        let facets = facets
            .into_iter()
            .map(|(document_id, facets)| (document_id, facets.in_order()))
            .collect();
        Box::pin(self.change(tenant_id, move |_| Ok(Change::SetFacets(facets))))
    }

    fn search(
        &self,
        tenant_id: TenantId,
        query: SearchQuery,
    ) -> BoxFuture<'_, Result<Candidates, IndexError>> {
        Box::pin(async move {
            if let Some(vector) = &query.vector {
                check_vector(self.inner.dimension, vector)?;
            }
            let filter = TenantFilter::matching(tenant_id, &query.filter);
            let (Some(shard), Some(filter)) = (self.inner.shard(tenant_id)?, filter) else {
                return Ok(Candidates::default());
            };
            if query.limit == 0 {
                return Ok(Candidates::default());
            }
            let _permit = self.inner.search_permits.acquire().await.map_err(|_| closed())?;
            self.blocking(move |_| {
                shard.search(PreparedQuery {
                    filter,
                    terms: analysis::query_terms(&query.text, query.known_language()),
                    vector: query.vector,
                    limit: query.limit,
                })
            })
            .await
        })
    }

    fn list(
        &self,
        tenant_id: TenantId,
        after: Option<ChunkId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredPoint>, IndexError>> {
        Box::pin(self.blocking(move |inner| match inner.shard(tenant_id)? {
            Some(shard) => shard.list(tenant_id, after, limit),
            None => Ok(Vec::new()),
        }))
    }

    fn count(&self, tenant_id: TenantId) -> BoxFuture<'_, Result<u64, IndexError>> {
        Box::pin(self.blocking(move |inner| match inner.shard(tenant_id)? {
            Some(shard) => shard.count(tenant_id),
            None => Ok(0),
        }))
    }

    fn check(&self) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(self.blocking(|inner| {
            inner.collection()?;
            let open = inner.shards.iter().filter_map(|slot| lock(slot).clone());
            open.into_iter().try_for_each(|shard| shard.check())
        }))
    }

    fn generation(&self) -> Option<String> {
        lock(&self.inner.collection)
            .as_ref()
            .map(|collection| collection.generation())
    }

    fn close(&self) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(self.blocking(|inner| {
            let collection = lock(&inner.collection).take();
            inner
                .shards
                .iter()
                .filter_map(|slot| lock(slot).take())
                .for_each(|shard| shard.close());
            // Only now may another process have the directory.
            drop(collection);
            Ok(())
        }))
    }
}
