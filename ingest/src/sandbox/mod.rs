//! Extraction in child processes, so that a parser that aborts, hangs or eats memory takes only itself down.
//!
//! The service keeps an [`ExtractorPool`]; its processes run [`child_main`], which a hidden subcommand of
//! the same binary calls. A process serves one document at a time and many one after another, because
//! starting one costs more than reading a short document. It gets the bytes through a pipe, so that it
//! needs no file, and its own limits forbid it to open one.

mod child;
mod media;
mod parts;
mod pool;
mod process;
mod protocol;
mod recognition;

pub use child::{child_main, child_main_with};
pub use parts::DocumentParts;
pub use pool::ExtractorPool;
