//! Turns a file into text blocks with provenance (page, heading path, character span), and those into
//! chunks that fit an embedding model.
//!
//! The crate knows nothing of the product: bytes come in, [`ExtractedDocument`] and [`Chunk`]s go out.
//! Hostile files are expected, so every format is bounded by [`Limits`], and [`sandbox`] runs extraction
//! in child processes whose death costs one document only.

/// Counts changes of the readers that make other text of the same bytes: what was read by an earlier version is worth
/// reading again.
pub const READER_VERSION: u32 = 3;

mod error;
mod format;
mod hints;
mod limits;
mod metadata;

mod document;
mod extract;
mod part;

mod chunk;

pub mod loader;
mod ocr;
pub mod sandbox;
mod transcription;

pub use chunk::{Chunk, ChunkOptions, Chunker, HEADING_SEPARATOR, chunk};
pub use document::{Block, BlockKind, ExtractedDocument, LeftOut, LeftOutReason};
pub use error::ExtractError;
pub use extract::extract;
pub use format::{Format, Media};
pub use hints::Hints;
pub use limits::Limits;
pub use metadata::{Metadata, WebPage};
pub use ocr::OcrOptions;
pub use transcription::{Account, FreeOfCharge, Heard, Transcriber, TranscriptionOptions};
