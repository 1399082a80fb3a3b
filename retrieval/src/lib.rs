//! Chunks become an index, a question becomes passages.
//!
//! The crate knows nothing of the product around it: no rows, no HTTP routes, no configuration. It has three traits, each
//! with more than one implementation: an [`Embedder`](embed::Embedder) turns texts into vectors, an
//! [`Index`](index::Index) keeps chunks and finds them again by meaning and by words, a
//! [`Reranker`](rerank::Reranker) reads question and passages together. Every index call names its
//! [`TenantId`]; there is no call without one.

pub mod analysis;
pub mod confidence;
pub mod diversity;
pub mod embed;
pub mod eval;
pub mod faq;
pub mod fuse;
mod id;
pub mod index;
pub mod operators;
pub mod question;
mod remote;
pub mod rerank;
pub mod scan;

pub use id::{ChunkId, DocumentId, SourceId, TenantId};

/// A future that a trait object can return.
pub use futures::future::BoxFuture;

/// The cause of an error, kept for the log and never shown to a caller outside.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;
