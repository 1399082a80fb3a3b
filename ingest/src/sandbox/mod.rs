//! Extraction in child processes, so that a parser that aborts, hangs or eats memory takes only itself down.

mod child;
mod pool;

pub use child::child_main;
pub use pool::ExtractorPool;
