//! The embedded index: nothing to install, everything in this process and one directory.
//!
//! A few shards hold all tenants, each tenant in one of them; a tenant that outgrows them gets a shard of its own
//! (`promotion`). A shard has a keyword side (`keywords`) and, where there is
//! an embedding model, a vector side on Qdrant's engine (`engine`). Every shard has one writer thread, which keeps a redo
//! log, and any number of readers. Shards are made when their first tenant arrives, so an empty server has none.
//!
//! Term statistics (the inverse document frequency) are each tenant's own: nobody's scores depend on what others store.

mod aside;
mod codec;
mod collection;
mod damage;
mod emptied;
mod engine;
mod filter;
mod forward;
mod generation;
mod keywords;
mod layout;
mod leftover;
mod log;
mod lost;
mod migrate;
mod opening;
mod operation;
mod placement;
mod promotion;
mod room;
mod shard;
mod sides;
mod stored;
mod tuning;
mod turns;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

pub use self::aside::remove_put_aside;
pub use self::tuning::Tuning;

use self::collection::{Collection, MANIFEST_FILE, ShardName, directory_name};
use self::filter::TenantFilter;
use self::lost::is_there;
use self::operation::{Change, Operation, PreparedPoint};
use self::placement::Stage;
use self::promotion::Notice;
use self::shard::{Shard, closed, lock, unavailable};
use self::sides::PreparedQuery;
use self::turns::Turns;
use super::input::{check_vector, without_repeats};
use super::point::text_hash;
use super::{Candidates, Facets, Index, IndexError, Point, SearchQuery, StoredPoint};
use crate::{BoxFuture, ChunkId, DocumentId, SourceId, TenantId, analysis};

/// Shards of a new index. More of them write in parallel; each costs about a megabyte at rest.
pub const DEFAULT_SHARDS: usize = 4;

/// Pause between looks at whether a move has been taken back, when closing.
const MOVER_POLL: Duration = Duration::from_millis(5);

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
    /// What is damaged is put aside and made anew, to be put in again by whoever asks [`Index::has_lost`]. False: it is an
    /// error, and nothing is changed.
    pub mends: bool,
}

impl EmbeddedOptions<'_> {
    /// Where the collection lies, whether or not it is there.
    pub fn collection_dir(&self) -> PathBuf {
        self.dir.join(directory_name(self.model_id.zip(self.dimension)))
    }

    /// Whether it was made, as far as can be seen. One that was not is made when it is opened.
    pub fn is_made(&self) -> bool {
        is_there(&self.collection_dir().join(MANIFEST_FILE))
    }
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
    /// Of tenants that have outgrown the shared ones.
    own_shards: RwLock<HashMap<TenantId, Arc<Shard>>>,
    /// To the thread that moves them there; `None` once closed.
    notices: Mutex<Option<Sender<Notice>>>,
    mover: Mutex<Option<JoinHandle<()>>>,
    is_closing: AtomicBool,
    /// Graphs of one shard at a time are built.
    one_build: Arc<Mutex<()>>,
    /// The same of shards of tenants' own: a move must not wait for the shard that it is to relieve.
    one_own_build: Arc<Mutex<()>>,
    turns: Turns,
}

impl EmbeddedIndex {
    /// Opens the index, makes it where there is none, and repairs what a crash left. Blocks while it reads files.
    ///
    /// Call [`Index::close`] at the end: it saves the repair at the next start.
    pub fn open(options: EmbeddedOptions<'_>) -> Result<Self, IndexError> {
        Self::open_tuned(options, Tuning::default())
    }

    /// As [`EmbeddedIndex::open`], with other numbers.
    pub fn open_tuned(options: EmbeddedOptions<'_>, tuning: Tuning) -> Result<Self, IndexError> {
        let model = match (options.model_id, options.dimension) {
            (Some(model_id), Some(dimension)) if dimension > 0 => Some((model_id, dimension)),
            (None, None) => None,
            _ => {
                let reason = "a model and its dimension are given together or not at all".to_owned();
                return Err(IndexError::Refused { reason });
            }
        };
        let collection = Arc::new(Collection::open(
            &options.dir,
            model,
            options.shards,
            options.mends,
        )?);
        if options.mends {
            leftover::remove_empty(&options.dir);
        }
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let (sender, notices) = mpsc::channel();
        let inner = Arc::new(Inner {
            dimension: collection.dimension(),
            tuning,
            shards: (0..collection.shards()).map(|_| Mutex::new(None)).collect(),
            own_shards: RwLock::default(),
            notices: Mutex::new(Some(sender)),
            mover: Mutex::new(None),
            is_closing: AtomicBool::new(false),
            collection: Mutex::new(Some(collection)),
            one_build: Arc::default(),
            one_own_build: Arc::default(),
            turns: Turns::new(cores + 1, tuning.longest_wait),
        });
        if let Err(error) = inner.open_present() {
            // Who tries again, or removes what does not open, needs the directory.
            inner.close_shards();
            return Err(error);
        }
        let weak = Arc::downgrade(&inner);
        let mover = thread::Builder::new()
            .name("index-mover".to_owned())
            .spawn(move || promotion::run(&weak, &notices))
            .map_err(|error| unavailable("cannot start the thread that moves tenants", error))?;
        *lock(&inner.mover) = Some(mover);
        Ok(Self { inner })
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
            let is_upsert = matches!(operation.change, Change::Upsert(_));
            Ok(shard.map(|shard| (shard.submit(operation), is_upsert)))
        };
        let Some((answer, is_upsert)) = self.blocking(submit).await? else {
            return Ok(());
        };
        answer.await.map_err(|_| closed())??;
        if is_upsert && self.inner.is_moving(tenant_id) {
            tokio::time::sleep(self.inner.tuning.moving_pause).await;
        }
        Ok(())
    }
}

impl Inner {
    fn collection(&self) -> Result<Arc<Collection>, IndexError> {
        lock(&self.collection).clone().ok_or_else(closed)
    }

    /// The tenant's shard, if there is one.
    fn shard(&self, tenant_id: TenantId) -> Result<Option<Arc<Shard>>, IndexError> {
        match self.own_shard(tenant_id) {
            Some(own) => Ok(Some(own)),
            None => self.shared_shard(tenant_id),
        }
    }

    fn own_shard(&self, tenant_id: TenantId) -> Option<Arc<Shard>> {
        let own_shards = self.own_shards.read().unwrap_or_else(PoisonError::into_inner);
        own_shards.get(&tenant_id).cloned()
    }

    /// The shared shard that is, or was, the tenant's, if there is one.
    fn shared_shard(&self, tenant_id: TenantId) -> Result<Option<Arc<Shard>>, IndexError> {
        let number = self.collection()?.shard_of(tenant_id);
        Ok(lock(&self.shards[number]).clone())
    }

    fn shard_for_writing(&self, tenant_id: TenantId) -> Result<Arc<Shard>, IndexError> {
        match self.own_shard(tenant_id) {
            Some(own) => Ok(own),
            None => self.shared_shard_for_writing(tenant_id),
        }
    }

    /// As [`Inner::shared_shard`], made where it is not there.
    fn shared_shard_for_writing(&self, tenant_id: TenantId) -> Result<Arc<Shard>, IndexError> {
        self.open_shard(self.collection()?.shard_of(tenant_id))
    }

    /// What `work` finds in the tenant's shard; `None` where there is no shard.
    fn read<T>(
        &self,
        tenant_id: TenantId,
        work: impl Fn(&Shard) -> Result<T, IndexError>,
    ) -> Result<Option<T>, IndexError> {
        loop {
            let own = self.own_shard(tenant_id);
            let has_own = own.is_some();
            let shard = match own {
                Some(own) => Some(own),
                None => self.shared_shard(tenant_id)?,
            };
            let found = shard.as_deref().map(&work).transpose();
            // Who has moved meanwhile may be half swept out of the shared shard.
            if has_own || self.own_shard(tenant_id).is_none() {
                return found;
            }
        }
    }

    /// From now on the tenant's own shard is asked and changed.
    fn take_into_service(&self, tenant_id: TenantId, own: Arc<Shard>) {
        let mut own_shards = self.own_shards.write().unwrap_or_else(PoisonError::into_inner);
        own_shards.insert(tenant_id, own);
    }

    /// From now on the shared shard is.
    fn take_out_of_service(&self, tenant_id: TenantId) {
        let mut own_shards = self.own_shards.write().unwrap_or_else(PoisonError::into_inner);
        own_shards.remove(&tenant_id);
    }

    fn is_moving(&self, tenant_id: TenantId) -> bool {
        let collection = self.collection();
        collection.is_ok_and(|collection| collection.stage(tenant_id) == Some(Stage::Moving))
    }

    fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    fn open_own(&self, collection: Arc<Collection>, tenant_id: TenantId) -> Result<Arc<Shard>, IndexError> {
        let name = ShardName::Own(tenant_id);
        let notices = lock(&self.notices).clone();
        let own = Shard::open(collection, name, self.tuning, self.one_own_build.clone(), notices)?;
        Ok(Arc::new(own))
    }

    fn open_shard(&self, number: usize) -> Result<Arc<Shard>, IndexError> {
        let mut slot = lock(&self.shards[number]);
        if let Some(shard) = &*slot {
            return Ok(shard.clone());
        }
        // Asked again under the slot's lock, so that closing cannot overlook a shard that opens behind its back.
        let collection = self.collection()?;
        let shard = self.open_whole(&collection, ShardName::Shared(number), &self.one_build)?;
        if let Err(error) = collection.note_made(number) {
            shard.close();
            return Err(error);
        }
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

/// Waits for a move to be taken back, which needs open shards; not for graphs that it may be building.
fn await_mover(mover: JoinHandle<()>, grace: Duration) {
    let give_up_at = Instant::now() + grace;
    while !mover.is_finished() {
        if Instant::now() >= give_up_at {
            tracing::info!(
                "index closed during a move to a shard of a tenant's own, which starts again next time"
            );
            return;
        }
        thread::sleep(MOVER_POLL);
    }
    if mover.join().is_err() {
        tracing::error!("the thread that moves tenants to index shards of their own ended in a panic");
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
            let (Some(_), Some(filter)) = (self.inner.shard(tenant_id)?, filter) else {
                return Ok(Candidates::default());
            };
            if query.limit == 0 {
                return Ok(Candidates::default());
            }
            let turn = self.inner.turns.take(tenant_id).await?;
            self.blocking(move |inner| {
                let _turn = turn;
                let query = PreparedQuery {
                    filter,
                    terms: analysis::query_terms(&query.text, &query.languages),
                    vector: query.vector,
                    limit: query.limit,
                };
                let found = inner.read(tenant_id, |shard| shard.search(&query))?;
                Ok(found.unwrap_or_default())
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
        Box::pin(self.blocking(move |inner| {
            let listed = inner.read(tenant_id, |shard| shard.list(tenant_id, after, limit))?;
            Ok(listed.unwrap_or_default())
        }))
    }

    fn count(&self, tenant_id: TenantId) -> BoxFuture<'_, Result<u64, IndexError>> {
        Box::pin(self.blocking(move |inner| {
            let count = inner.read(tenant_id, |shard| shard.count(tenant_id))?;
            Ok(count.unwrap_or_default())
        }))
    }

    fn check(&self) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(self.blocking(|inner| {
            inner.collection()?;
            inner
                .open_shards()
                .into_iter()
                .try_for_each(|shard| shard.check())
        }))
    }

    fn is_damaged(&self) -> BoxFuture<'_, Result<bool, IndexError>> {
        Box::pin(self.blocking(|inner| {
            inner.collection()?;
            Ok(inner.open_shards().iter().any(|shard| shard.is_damaged()))
        }))
    }

    fn find_damage(&self) -> BoxFuture<'_, Result<Vec<String>, IndexError>> {
        Box::pin(self.blocking(|inner| {
            let mends = inner.collection()?.mends();
            let shards = inner.open_shards().into_iter();
            let damage = shards.map(|shard| shard.find_damage(mends));
            damage.filter_map(Result::transpose).collect()
        }))
    }

    fn generation(&self) -> Option<String> {
        lock(&self.inner.collection)
            .as_ref()
            .map(|collection| collection.generation())
    }

    fn has_lost(&self, tenant_id: TenantId, since: &str) -> bool {
        lock(&self.inner.collection)
            .as_ref()
            .is_none_or(|collection| collection.has_lost(tenant_id, since))
    }

    fn close(&self) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(self.blocking(|inner| {
            inner.is_closing.store(true, Ordering::Release);
            if let Some(notices) = lock(&inner.notices).take() {
                drop(notices.send(Notice::Close));
            }
            if let Some(mover) = lock(&inner.mover).take() {
                await_mover(mover, inner.tuning.close_grace);
            }
            inner.close_shards();
            Ok(())
        }))
    }
}
