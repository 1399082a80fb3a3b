//! An index that a test takes down, and whose questions it counts.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use frontdesk::app::AroundIndex;
use retrieval::index::{
    Candidates, ConnectionLost, Facets, Index, IndexError, Point, SearchQuery, StoredPoint,
};
use retrieval::{BoxFuture, ChunkId, DocumentId, SourceId, TenantId};
use tokio::sync::{Notify, OwnedMutexGuard};
use uuid::Uuid;

use super::work::until;

/// Held by the test.
#[derive(Clone, Default)]
pub struct IndexSwitch(Arc<Switched>);

#[derive(Default)]
struct Switched {
    is_down: AtomicBool,
    is_overloaded: AtomicBool,
    down_for: Mutex<Option<TenantId>>,
    /// The next list is of a moment before anything was put in.
    lists_late: AtomicBool,
    searches: AtomicUsize,
    candidates: AtomicUsize,
    deletions: AtomicUsize,
    /// Documents of which chunks were put in, and that were not deleted as a whole since.
    documents: Mutex<HashSet<DocumentId>>,
    /// Whoever has it lets no chunks be deleted.
    deleting: Arc<tokio::sync::Mutex<()>>,
    /// Where the next change of facets waits.
    telling_waits: Mutex<Option<Moment>>,
    is_telling_waiting: AtomicBool,
    telling_may_go: Notify,
}

/// A moment of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The index knows nothing of it yet.
    Before,
    /// The index has done it, and the caller does not know yet.
    After,
}

impl Switched {
    async fn hold_telling(&self) {
        self.is_telling_waiting.store(true, Ordering::SeqCst);
        self.telling_may_go.notified().await;
    }
}

impl IndexSwitch {
    /// Searches are not answered until it is told otherwise.
    pub fn set_down(&self, is_down: bool) {
        self.0.is_down.store(is_down, Ordering::SeqCst);
    }

    /// Searches wait for their turn in vain until it is told otherwise.
    pub fn set_overloaded(&self, is_overloaded: bool) {
        self.0.is_overloaded.store(is_overloaded, Ordering::SeqCst);
    }

    /// The searches of one tenant alone fail from now on.
    pub fn fail_for(&self, tenant_id: Uuid) {
        *self.0.down_for.lock().expect("no panic") = Some(TenantId(tenant_id));
    }

    /// The next list misses everything, as if it had been put in right after.
    pub fn miss_in_next_list(&self) {
        self.0.lists_late.store(true, Ordering::SeqCst);
    }

    /// Searches so far, and the candidates that they were answered with.
    pub fn searches(&self) -> (usize, usize) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        (count(&self.0.searches), count(&self.0.candidates))
    }

    /// Chunks are deleted only once this is dropped.
    pub async fn hold_deletions(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.0.deleting).lock_owned().await
    }

    /// How often chunks were to be deleted so far.
    pub fn deletions(&self) -> usize {
        self.0.deletions.load(Ordering::SeqCst)
    }

    /// Documents of which chunks were put in, and that were not deleted as a whole since, whatever became of their chunks.
    pub fn documents(&self) -> HashSet<DocumentId> {
        self.0.documents.lock().expect("no panic").clone()
    }

    /// The next change of facets, and no other, waits at this moment for [`IndexSwitch::let_telling_go`].
    pub fn hold_next_telling(&self, at: Moment) {
        *self.0.telling_waits.lock().expect("no panic") = Some(at);
    }

    /// Waits until that change waits.
    pub async fn wait_for_telling(&self) {
        until("the index is told", async || {
            self.0.is_telling_waiting.load(Ordering::SeqCst)
        })
        .await;
    }

    /// The change that waits goes on.
    pub fn let_telling_go(&self) {
        self.0.is_telling_waiting.store(false, Ordering::SeqCst);
        self.0.telling_may_go.notify_one();
    }

    /// Stands around the service's index.
    pub fn around(&self) -> AroundIndex {
        let switched = Arc::clone(&self.0);
        Box::new(|inner| Arc::new(SwitchedIndex { inner, switched }))
    }
}

struct SwitchedIndex {
    inner: Arc<dyn Index>,
    switched: Arc<Switched>,
}

type Done<'a> = BoxFuture<'a, Result<(), IndexError>>;

impl Index for SwitchedIndex {
    fn upsert(&self, tenant_id: TenantId, points: Vec<Point>) -> Done<'_> {
        let mut documents = self.switched.documents.lock().expect("no panic");
        documents.extend(points.iter().map(|point| point.document_id));
        self.inner.upsert(tenant_id, points)
    }

    fn delete_chunks(&self, tenant_id: TenantId, chunk_ids: Vec<ChunkId>) -> Done<'_> {
        self.switched.deletions.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            drop(self.switched.deleting.lock().await);
            self.inner.delete_chunks(tenant_id, chunk_ids).await
        })
    }

    fn delete_documents(&self, tenant_id: TenantId, document_ids: Vec<DocumentId>) -> Done<'_> {
        let mut documents = self.switched.documents.lock().expect("no panic");
        documents.retain(|id| !document_ids.contains(id));
        self.inner.delete_documents(tenant_id, document_ids)
    }

    fn delete_sources(&self, tenant_id: TenantId, source_ids: Vec<SourceId>) -> Done<'_> {
        self.inner.delete_sources(tenant_id, source_ids)
    }

    fn delete_tenant(&self, tenant_id: TenantId) -> Done<'_> {
        self.inner.delete_tenant(tenant_id)
    }

    fn set_facets(&self, tenant_id: TenantId, facets: Vec<(DocumentId, Facets)>) -> Done<'_> {
        let held = self.switched.telling_waits.lock().expect("no panic").take();
        Box::pin(async move {
            if held == Some(Moment::Before) {
                self.switched.hold_telling().await;
            }
            self.inner.set_facets(tenant_id, facets).await?;
            if held == Some(Moment::After) {
                self.switched.hold_telling().await;
            }
            Ok(())
        })
    }

    fn search(
        &self,
        tenant_id: TenantId,
        query: SearchQuery,
    ) -> BoxFuture<'_, Result<Candidates, IndexError>> {
        self.switched.searches.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            if self.switched.is_down.load(Ordering::SeqCst) {
                return Err(IndexError::Unavailable {
                    reason: "nobody answers".to_owned(),
                    source: Some(ConnectionLost("refused".into()).into()),
                });
            }
            if self.switched.is_overloaded.load(Ordering::SeqCst) {
                return Err(IndexError::Overloaded);
            }
            if *self.switched.down_for.lock().expect("no panic") == Some(tenant_id) {
                return Err(IndexError::Unavailable {
                    reason: "this part of it is broken".to_owned(),
                    source: None,
                });
            }
            let found = self.inner.search(tenant_id, query).await?;
            self.switched
                .candidates
                .fetch_add(found.hits.len(), Ordering::SeqCst);
            Ok(found)
        })
    }

    fn list(
        &self,
        tenant_id: TenantId,
        after: Option<ChunkId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredPoint>, IndexError>> {
        if self.switched.lists_late.swap(false, Ordering::SeqCst) {
            return Box::pin(std::future::ready(Ok(Vec::new())));
        }
        self.inner.list(tenant_id, after, limit)
    }

    fn count(&self, tenant_id: TenantId) -> BoxFuture<'_, Result<u64, IndexError>> {
        self.inner.count(tenant_id)
    }

    fn check(&self) -> Done<'_> {
        self.inner.check()
    }

    fn is_damaged(&self) -> BoxFuture<'_, Result<bool, IndexError>> {
        self.inner.is_damaged()
    }

    fn generation(&self) -> Option<String> {
        self.inner.generation()
    }

    fn find_damage(&self) -> BoxFuture<'_, Result<Vec<String>, IndexError>> {
        self.inner.find_damage()
    }

    fn has_lost(&self, tenant_id: TenantId, since: &str) -> bool {
        self.inner.has_lost(tenant_id, since)
    }

    fn close(&self) -> Done<'_> {
        self.inner.close()
    }
}
