//! What the extraction of one document may spend, and what it is told.

use std::cell::Cell;

use crate::{Hints, Limits};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(super) limits: &'a Limits,
    pub(super) hints: &'a Hints,
    /// Bytes that may still be unpacked for the outermost document and all that is in it.
    unpack: &'a Cell<u64>,
}

impl<'a> Scope<'a> {
    /// The scope of a whole file; `unpack` is set to what it may spend.
    pub(super) fn of_file(bytes: &[u8], hints: &'a Hints, limits: &'a Limits, unpack: &'a Cell<u64>) -> Self {
        unpack.set(limits.max_unpacked(bytes.len() as u64));
        Self {
            limits,
            hints,
            unpack,
        }
    }

    /// Takes `bytes` from what may be unpacked. `false` when there were fewer left.
    pub(super) fn spend(&self, bytes: u64) -> bool {
        let left = self.unpack.get();
        self.unpack.set(left.saturating_sub(bytes));
        bytes <= left
    }
}
