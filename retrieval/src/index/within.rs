//! An index in the database of the rows that it is a copy of: changed in the very transactions that change these.

use sqlx::PgConnection;

use super::{Facets, IndexError, Point};
use crate::{BoxFuture, ChunkId, DocumentId, SourceId, TenantId};

/// An index whose points can be changed within a transaction of its caller. Points and rows then hold together, are seen
/// together, and are lost together.
pub trait IndexWithin: Send + Sync {
    /// Carries out `changes`, each as the method of [`super::Index`] of its name would, in the transaction that `connection` has
    /// open, which is neither committed nor rolled back. After an error it can only be rolled back.
    ///
    /// This tenant's other changes wait until the transaction ends. So that no two transactions wait for each other, whoever
    /// calls this locks nothing else behind it but, in the order of their names, further indexes.
    fn apply<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        tenant_id: TenantId,
        changes: Vec<IndexChange>,
    ) -> BoxFuture<'a, Result<AfterCommit, IndexError>>;
}

/// A change of one tenant's points.
#[derive(Debug, Clone)]
pub enum IndexChange {
    Upsert(Vec<Point>),
    DeleteChunks(Vec<ChunkId>),
    DeleteDocuments(Vec<DocumentId>),
    DeleteSources(Vec<SourceId>),
    SetFacets(Vec<(DocumentId, Facets)>),
}

/// What an index is to be told once the transaction is committed. One that is never told finds out by itself.
#[must_use = "tell it once the transaction is committed"]
pub struct AfterCommit(Box<dyn FnOnce() + Send>);

impl AfterCommit {
    pub(super) fn new(tell: impl FnOnce() + Send + 'static) -> Self {
        Self(Box::new(tell))
    }

    /// The transaction is committed.
    pub fn tell(self) {
        (self.0)();
    }
}
