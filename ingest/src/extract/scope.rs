//! What the extraction of one document may spend, and what it is told. A document inside another one (a member
//! of an archive, an attachment) has a scope of its own that spends from the same allowance.

use std::cell::Cell;

use super::media::Shelf;
use crate::{Hints, Limits};

/// Archives in an archive, or an attachment in a mail in an archive. What lies deeper is left out.
const MAX_NESTED_DOCUMENTS: u32 = 2;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(super) limits: &'a Limits,
    pub(super) hints: &'a Hints,
    /// Bytes that may still be unpacked for the outermost document and all that is in it.
    unpack: &'a Cell<u64>,
    /// Documents inside documents that may still be read, so that mail in mail cannot multiply work.
    documents: &'a Cell<u32>,
    /// Takes pictures and recordings.
    pub(super) shelf: &'a Shelf,
    depth: u32,
}

impl<'a> Scope<'a> {
    /// The scope of a whole file; `unpack` and `documents` are set to what it may spend.
    pub(super) fn of_file(
        bytes: &[u8],
        hints: &'a Hints,
        limits: &'a Limits,
        unpack: &'a Cell<u64>,
        documents: &'a Cell<u32>,
        shelf: &'a Shelf,
    ) -> Self {
        unpack.set(limits.max_unpacked(bytes.len() as u64));
        documents.set(limits.max_entries);
        Self {
            limits,
            hints,
            unpack,
            documents,
            shelf,
            depth: 0,
        }
    }

    /// The scope of a document in this one, unless it lies too deep.
    pub(super) fn inside<'b>(&self, hints: &'b Hints) -> Option<Scope<'b>>
    where
        'a: 'b,
    {
        let left = self.documents.get().checked_sub(1)?;
        self.documents.set(left);
        (self.depth < MAX_NESTED_DOCUMENTS).then_some(Scope {
            limits: self.limits,
            hints,
            unpack: self.unpack,
            documents: self.documents,
            shelf: self.shelf,
            depth: self.depth + 1,
        })
    }

    /// Takes `bytes` from what may be unpacked. `false` when there were fewer left.
    pub(super) fn spend(&self, bytes: u64) -> bool {
        let left = self.unpack.get();
        self.unpack.set(left.saturating_sub(bytes));
        bytes <= left
    }
}
