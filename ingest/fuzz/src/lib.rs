//! What must hold for every input, as functions of bytes: the fuzz targets call them with what libFuzzer finds,
//! and the property tests of the crate with random and mutated files, so both check the same.

mod documents;
mod loaders;

pub use documents::*;
pub use loaders::*;
