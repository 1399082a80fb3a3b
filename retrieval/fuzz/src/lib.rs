//! The kernels of the embedding models, compiled without the crate around them, and what must hold for them.

#[path = "../../src/embed/simd.rs"]
#[rustfmt::skip]
#[expect(dead_code, reason = "the crate uses the rest")]
mod simd;
pub mod tiles;

use simd::{COLUMNS, GROUPS, LANES, Left, QUAD, ROWS, Tile, Unit};
