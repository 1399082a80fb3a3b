//! Stands for an index that does not open: everything asked of it fails at once, so that questions go on without it as they
//! do without one that stopped answering.

use retrieval::index::{
    Candidates, ConnectionLost, Facets, Index, IndexError, Point, SearchQuery, StoredPoint,
};
use retrieval::{BoxFuture, ChunkId, DocumentId, SourceId, TenantId};

pub(super) struct UnopenedIndex {
    /// Why it does not open.
    reason: String,
}

impl UnopenedIndex {
    pub(super) const fn new(reason: String) -> Self {
        Self { reason }
    }

    fn fail<T: Send + 'static>(&self) -> BoxFuture<'_, Result<T, IndexError>> {
        let error = IndexError::Unavailable {
            reason: "it does not open".to_owned(),
            // Nobody is answered, whatever they ask.
            source: Some(ConnectionLost(self.reason.clone().into()).into()),
        };
        Box::pin(std::future::ready(Err(error)))
    }
}

type Done<'a> = BoxFuture<'a, Result<(), IndexError>>;

impl Index for UnopenedIndex {
    fn upsert(&self, _: TenantId, _: Vec<Point>) -> Done<'_> {
        self.fail()
    }

    fn delete_chunks(&self, _: TenantId, _: Vec<ChunkId>) -> Done<'_> {
        self.fail()
    }

    fn delete_documents(&self, _: TenantId, _: Vec<DocumentId>) -> Done<'_> {
        self.fail()
    }

    fn delete_sources(&self, _: TenantId, _: Vec<SourceId>) -> Done<'_> {
        self.fail()
    }

    fn delete_tenant(&self, _: TenantId) -> Done<'_> {
        self.fail()
    }

    fn set_facets(&self, _: TenantId, _: Vec<(DocumentId, Facets)>) -> Done<'_> {
        self.fail()
    }

    fn search(&self, _: TenantId, _: SearchQuery) -> BoxFuture<'_, Result<Candidates, IndexError>> {
        self.fail()
    }

    fn list(
        &self,
        _: TenantId,
        _: Option<ChunkId>,
        _: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredPoint>, IndexError>> {
        self.fail()
    }

    fn count(&self, _: TenantId) -> BoxFuture<'_, Result<u64, IndexError>> {
        self.fail()
    }

    fn check(&self) -> Done<'_> {
        self.fail()
    }

    fn close(&self) -> Done<'_> {
        Box::pin(std::future::ready(Ok(())))
    }
}
