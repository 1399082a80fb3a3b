//! Chunks kept and found again: the trait every index backend implements, and its types.
//!
//! An index is a copy of rows kept elsewhere and can be built again from them. Each call names one tenant, and a call
//! can reach that tenant's points only.

mod embedded;
mod keyword;

pub use self::embedded::{DEFAULT_SHARDS, EmbeddedIndex, EmbeddedOptions, Tuning};
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

    /// Removes everything this tenant has.
    fn delete_tenant(&self, tenant_id: TenantId) -> BoxFuture<'_, Result<(), IndexError>>;

    /// The best `query.limit` chunks, best first; equal scores are ordered by chunk id.
    fn search(&self, tenant_id: TenantId, query: SearchQuery) -> BoxFuture<'_, Result<Vec<Hit>, IndexError>>;

    /// How many chunks this tenant has.
    fn count(&self, tenant_id: TenantId) -> BoxFuture<'_, Result<u64, IndexError>>;

    /// Whether the index can answer at this moment; for readiness checks, so it must be cheap.
    fn check(&self) -> BoxFuture<'_, Result<(), IndexError>>;

    /// Names this making of the storage: another name than at the last start means that what was stored then is lost.
    /// `None` where the storage is no less safe than the rows.
    fn generation(&self) -> Option<String> {
        None
    }

    /// Finishes what runs, writes everything down and lets go of the storage. Later calls are `Unavailable`.
    fn close(&self) -> BoxFuture<'_, Result<(), IndexError>>;
}

/// One chunk as the index stores it.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    pub chunk_id: ChunkId,
    pub document_id: DocumentId,
    pub source_id: SourceId,
    /// What the keyword side reads. Not stored as such; the row has it.
    pub text: String,
    /// The chunk's embedding; `None` leaves it to be found by words alone.
    pub vector: Option<Vec<f32>>,
}

/// A question, in words and, where an embedder is at hand, as a vector.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchQuery {
    pub text: String,
    pub vector: Option<Vec<f32>>,
    pub filter: Filter,
    /// Most hits to return.
    pub limit: usize,
}

/// Which of the tenant's chunks may be found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// Only chunks of these sources. Empty finds nothing: it never means "all".
    pub sources: Vec<SourceId>,
    /// When given, only chunks of these documents. An empty list finds nothing.
    pub documents: Option<Vec<DocumentId>>,
}

/// A chunk that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    pub chunk_id: ChunkId,
    pub document_id: DocumentId,
    /// Fused over all rankings, in (0, 1]; 1 is first in every ranking that was made. Higher is better.
    pub score: f32,
    /// Cosine to the question's vector, in [-1, 1]; `None` when no vector was compared or the chunk was found by words alone.
    pub similarity: Option<f32>,
    /// BM25 score, above 0 and without upper bound; `None` when no word of the question was found in the chunk.
    pub keyword_score: Option<f32>,
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
    /// Another process has the directory open: stop that one, or use another directory.
    #[error("index directory {dir} is in use by another process")]
    InUse { dir: String },
    /// A vector of another model or another dimension: embed again with the index's model. Nothing was stored.
    #[error("vector has {actual} dimensions, this index holds {expected}")]
    DimensionMismatch { expected: usize, actual: usize },
    /// The same call fails again: not a number, no vector side, a chunk id that another tenant has. Nothing was stored.
    #[error("index refused the request: {reason}")]
    Refused { reason: String },
    /// What lies on disk cannot be read: restore it, or delete it and index again from the rows.
    #[error("index storage is damaged: {reason}")]
    Damaged { reason: String },
}
