//! Chunks kept and found again: the trait every index backend implements, and its types.
//!
//! An index is a copy of rows kept elsewhere and can be built again from them. Each call names one tenant, and a call
//! can reach that tenant's points only.

mod embedded;
mod field;
mod input;
mod pgvector;
mod point;
mod qdrant;
mod query;
mod spread;
mod within;

use std::time::Duration;

pub use self::embedded::{DEFAULT_SHARDS, EmbeddedIndex, EmbeddedOptions, Tuning, remove_put_aside};
pub use self::pgvector::{PgvectorIndex, PgvectorOptions, PgvectorTuning};
pub use self::point::{Facets, Point, StoredPoint};
pub use self::qdrant::{
    QdrantIndex, QdrantOptions, QdrantTuning, Quantisation, ReadConsistency, WriteOrdering, WrongOption,
};
pub use self::query::{Audience, Candidate, Candidates, Filter, SearchQuery};
pub use self::within::{AfterCommit, IndexChange, IndexWithin};
use crate::{BoxError, BoxFuture, ChunkId, DocumentId, SourceId, TenantId};

/// Where chunks are stored and searched by meaning and by words.
pub trait Index: Send + Sync + 'static {
    /// Stores `points`, replacing those that this tenant already has under the same chunk id; of repeated ids the last
    /// wins. When this returns, the points survive the death of the process and the next search sees them.
    ///
    /// All points are checked before the first is written: an error of the input stores nothing.
    fn upsert(&self, tenant_id: TenantId, points: Vec<Point>) -> BoxFuture<'_, Result<(), IndexError>>;

    /// Removes chunks of this tenant; unknown ids and other tenants' ids do nothing.
    fn delete_chunks(
        &self,
        tenant_id: TenantId,
        chunk_ids: Vec<ChunkId>,
    ) -> BoxFuture<'_, Result<(), IndexError>>;

    /// Removes all chunks of these documents of this tenant.
    fn delete_documents(
        &self,
        tenant_id: TenantId,
        document_ids: Vec<DocumentId>,
    ) -> BoxFuture<'_, Result<(), IndexError>>;

    /// Removes all chunks of these sources of this tenant.
    fn delete_sources(
        &self,
        tenant_id: TenantId,
        source_ids: Vec<SourceId>,
    ) -> BoxFuture<'_, Result<(), IndexError>>;

    /// Removes everything this tenant has.
    fn delete_tenant(&self, tenant_id: TenantId) -> BoxFuture<'_, Result<(), IndexError>>;

    /// Changes what is said of documents without their vectors: the facets of all their points. Unknown documents and
    /// other tenants' do nothing. When this returns, the next search goes by it.
    fn set_facets(
        &self,
        tenant_id: TenantId,
        facets: Vec<(DocumentId, Facets)>,
    ) -> BoxFuture<'_, Result<(), IndexError>>;

    /// What each side found, unfused: the `query.limit` nearest by meaning and as many of the best by words.
    fn search(
        &self,
        tenant_id: TenantId,
        query: SearchQuery,
    ) -> BoxFuture<'_, Result<Candidates, IndexError>>;

    /// The tenant's points in the order of their chunk ids, those behind `after`, at most `limit`.
    fn list(
        &self,
        tenant_id: TenantId,
        after: Option<ChunkId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StoredPoint>, IndexError>>;

    /// How many chunks this tenant has.
    fn count(&self, tenant_id: TenantId) -> BoxFuture<'_, Result<u64, IndexError>>;

    /// Whether the index can answer at this moment; for readiness checks, so it must be cheap.
    fn check(&self) -> BoxFuture<'_, Result<(), IndexError>>;

    /// Whether some of it is known not to be what was written, so that it answers with less until it is filled again; as cheap.
    fn is_damaged(&self) -> BoxFuture<'_, Result<bool, IndexError>> {
        Box::pin(std::future::ready(Ok(false)))
    }

    /// Names this making of the storage: another name than at the last start means that what was stored then is lost.
    /// `None` where the storage is no less safe than the rows.
    fn generation(&self) -> Option<String> {
        None
    }

    /// Asks a storage that processes share for its name once more, since one that found something lost may have given it another:
    /// [`Index::generation`] says it then.
    fn look_up_generation(&self) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Whether something of what this tenant had stored may be lost since the storage was called `since`.
    fn has_lost(&self, tenant_id: TenantId, since: &str) -> bool {
        let _ = tenant_id;
        self.generation().is_some_and(|present| present != since)
    }

    /// The same index, for changes within transactions of the PostgreSQL database that it lies in; `None` where it lies in none.
    fn within_transactions(&self) -> Option<&dyn IndexWithin> {
        None
    }

    /// Removes what was kept by other settings or former rules of words, once what replaced it is `at_least` so old: nothing is deleted
    /// from it any more, and processes of the release or the settings before may ask it for a while. How much there was.
    fn remove_former(&self, at_least: Duration) -> BoxFuture<'_, Result<usize, IndexError>> {
        let _ = at_least;
        Box::pin(async { Ok(0) })
    }

    /// Reads all that is stored, as far as it can be told whether it is what was written, and names what is not. Takes as long
    /// as reading takes. What is named is put aside at the next opening by somebody who mends.
    fn find_damage(&self) -> BoxFuture<'_, Result<Vec<String>, IndexError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Finishes what runs, writes everything down and lets go of the storage. Later calls are `Unavailable`.
    fn close(&self) -> BoxFuture<'_, Result<(), IndexError>>;
}

/// The source of an error that says nothing of what was asked: nobody is answered at present.
#[derive(Debug, thiserror::Error)]
#[error("the connection is lost")]
pub struct ConnectionLost(#[source] pub BoxError);

impl IndexError {
    /// Whether everybody's calls fail, rather than what was asked, or the part of the storage that was asked for it.
    pub fn concerns_everybody(&self) -> bool {
        let Self::Unavailable {
            source: Some(source), ..
        } = self
        else {
            return false;
        };
        source.is::<ConnectionLost>()
    }
}

/// Why an index call failed.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The storage did not answer or is closed: try again later.
    #[error("index unavailable: {reason}")]
    Unavailable {
        reason: String,
        #[source]
        source: Option<BoxError>,
    },
    /// As many searches run as may run at once, and too many wait: try again in a moment. Nothing is wrong with the storage.
    #[error("too many searches wait for their turn")]
    Overloaded,
    /// Another process has the directory open: stop that one, or use another directory.
    #[error("index directory {dir} is in use by another process")]
    InUse { dir: String },
    /// A vector of another model or another dimension: embed again with the index's model. Nothing was stored.
    #[error("vector has {actual} dimensions, this index holds {expected}")]
    DimensionMismatch { expected: usize, actual: usize },
    /// The same call fails again: not a number, no vector side, a chunk id that another tenant has. Nothing was stored.
    #[error("index refused the request: {reason}")]
    Refused { reason: String },
    /// Some of what lies on disk is not what was written. Opened by somebody who mends, it is put aside, and put in again from
    /// the rows.
    #[error("a part of the index is damaged: {reason}")]
    PartDamaged { reason: String },
    /// What lies on disk cannot be read: restore it, or delete it and index again from the rows.
    #[error("index storage is damaged: {reason}")]
    Damaged { reason: String },
}
