//! How a segment lies on the disk. Little endian throughout.
//!
//! ```text
//! block of a tenant   postings        per term, terms in rising order: (position - the one before) as LEB128, weight
//!                     terms           per term: hash u32, chunks that have it u32, start of its postings u64;
//!                                     then one more that marks the end of the last term's
//!                     chunks          per chunk: its id
//!                     documents of    per chunk: which of the block's documents it is from, u32
//!                     order           positions of the chunks in the order of their ids, u32 each
//!                     documents       per document and source, in the order of ids: document id, source id
//!                     texts           per chunk: the hash of its text, u64; from `Form::WithTexts` on
//! ... further blocks
//! directory           per block: tenant id, two starts u64, four counts u32, the CRC-32 of the whole block (from
//!                     `Form::WithChecksums` on), the ids of its sources
//! end                 start of the directory u64, its CRC-32, the mark of its form
//! ```

use std::io;

use uuid::Uuid;

use crate::{ChunkId, DocumentId, SourceId, TenantId};

pub(super) const END_BYTES: u64 = 16;
pub(super) const ID_BYTES: usize = 16;
pub(super) const TERM_BYTES: usize = 16;
pub(super) const DOCUMENT_BYTES: usize = 2 * ID_BYTES;
pub(super) const TEXT_BYTES: usize = 8;
const DIRECTORY_ENTRY_BYTES: usize = ID_BYTES + 2 * 8 + 4 * 4;
const CHECKSUM_BYTES: usize = 4;

/// What a file holds, each with what those before it do. The last is what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    First,
    /// The hashes of texts.
    WithTexts,
    /// The checksums of blocks.
    WithChecksums,
}

impl Form {
    const ALL: [Self; 3] = [Self::First, Self::WithTexts, Self::WithChecksums];

    /// The form of a file that ends in `mark`.
    pub(super) fn of(mark: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|form| form.mark() == mark)
    }

    pub(super) const fn mark(self) -> [u8; 4] {
        match self {
            Self::First => *b"fdk1",
            Self::WithTexts => *b"fdk2",
            Self::WithChecksums => *b"fdk3",
        }
    }

    pub(super) fn has_texts(self) -> bool {
        self >= Self::WithTexts
    }

    fn has_checksums(self) -> bool {
        self >= Self::WithChecksums
    }
}

/// A chunk as merging, flushing and listing hand it on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) struct ChunkRow {
    pub(in super::super) chunk_id: ChunkId,
    pub(in super::super) document_id: DocumentId,
    pub(in super::super) source_id: SourceId,
    /// `operation::UNKNOWN_TEXT` where an earlier version kept none.
    pub(in super::super) text_hash: u64,
}

/// One line of a block's term table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TermEntry {
    pub(super) hash: u32,
    /// Chunks that have the term, deleted ones among them.
    pub(super) having: u32,
    /// Where its postings begin in the file; they end where the next term's begin.
    pub(super) start: u64,
}

impl TermEntry {
    pub(super) fn put(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.hash.to_le_bytes());
        bytes.extend_from_slice(&self.having.to_le_bytes());
        bytes.extend_from_slice(&self.start.to_le_bytes());
    }

    pub(super) fn read(bytes: &[u8; TERM_BYTES]) -> Self {
        let (hash, having) = (u32_at(bytes, 0), u32_at(bytes, 4));
        let start = u64_at(bytes, 8);
        Self { hash, having, start }
    }
}

/// Where the parts of one tenant's block are.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BlockPlace {
    pub(super) postings_start: u64,
    pub(super) terms_start: u64,
    pub(super) chunks: u32,
    pub(super) terms: u32,
    pub(super) documents: u32,
    /// Of all its bytes; `None` where the file's form has none.
    pub(super) checksum: Option<u32>,
    /// Sources that the block's chunks are from, in rising order.
    pub(super) sources: Vec<SourceId>,
}

impl BlockPlace {
    pub(super) fn chunks_start(&self) -> u64 {
        self.terms_start + (u64::from(self.terms) + 1) * TERM_BYTES as u64
    }

    pub(super) fn documents_of_start(&self) -> u64 {
        self.chunks_start() + u64::from(self.chunks) * ID_BYTES as u64
    }

    pub(super) fn order_start(&self) -> u64 {
        self.documents_of_start() + u64::from(self.chunks) * 4
    }

    pub(super) fn documents_start(&self) -> u64 {
        self.order_start() + u64::from(self.chunks) * 4
    }

    pub(super) fn texts_start(&self) -> u64 {
        self.documents_start() + u64::from(self.documents) * DOCUMENT_BYTES as u64
    }

    pub(super) fn end(&self, form: Form) -> u64 {
        let texts = if form.has_texts() {
            u64::from(self.chunks) * TEXT_BYTES as u64
        } else {
            0
        };
        self.texts_start() + texts
    }
}

pub(super) fn encode_directory(blocks: &[(TenantId, BlockPlace)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(blocks.len() * (DIRECTORY_ENTRY_BYTES + CHECKSUM_BYTES + ID_BYTES));
    for (tenant_id, place) in blocks {
        bytes.extend_from_slice(tenant_id.0.as_bytes());
        bytes.extend_from_slice(&place.postings_start.to_le_bytes());
        bytes.extend_from_slice(&place.terms_start.to_le_bytes());
        let sources = u32::try_from(place.sources.len()).expect("fewer sources than chunks");
        for count in [place.chunks, place.terms, place.documents, sources] {
            bytes.extend_from_slice(&count.to_le_bytes());
        }
        if let Some(checksum) = place.checksum {
            bytes.extend_from_slice(&checksum.to_le_bytes());
        }
        place
            .sources
            .iter()
            .for_each(|source_id| bytes.extend_from_slice(source_id.0.as_bytes()));
    }
    bytes
}

/// The blocks named in `bytes`; an error when they do not lie before `directory_start`, whatever the bytes are.
pub(super) fn decode_directory(
    mut bytes: &[u8],
    directory_start: u64,
    form: Form,
) -> io::Result<Vec<(TenantId, BlockPlace)>> {
    let checksum_bytes = if form.has_checksums() { CHECKSUM_BYTES } else { 0 };
    let mut blocks = Vec::new();
    while !bytes.is_empty() {
        let (entry, rest) = bytes
            .split_at_checked(DIRECTORY_ENTRY_BYTES + checksum_bytes)
            .ok_or_else(|| damaged("a torn directory"))?;
        let source_count = u32_at(entry, 44) as usize;
        let (sources, rest) = rest
            .split_at_checked(source_count.saturating_mul(ID_BYTES))
            .ok_or_else(|| damaged("a torn directory"))?;
        let place = BlockPlace {
            postings_start: u64_at(entry, 16),
            terms_start: u64_at(entry, 24),
            chunks: u32_at(entry, 32),
            terms: u32_at(entry, 36),
            documents: u32_at(entry, 40),
            checksum: form.has_checksums().then(|| u32_at(entry, DIRECTORY_ENTRY_BYTES)),
            sources: sources
                .chunks_exact(ID_BYTES)
                .map(|id| SourceId(id_at(id, 0)))
                .collect(),
        };
        let is_inside = place.postings_start <= place.terms_start
            && place.terms_start <= directory_start
            && place.end(form) <= directory_start;
        if !is_inside {
            return Err(damaged("a block outside its file"));
        }
        blocks.push((TenantId(id_at(entry, 0)), place));
        bytes = rest;
    }
    Ok(blocks)
}

pub(super) fn put_posting(bytes: &mut Vec<u8>, mut distance: u32, weight: u8) {
    while distance >= 0x80 {
        bytes.push(distance as u8 | 0x80);
        distance >>= 7;
    }
    bytes.extend_from_slice(&[distance as u8, weight]);
}

/// Calls `visit` with the position and weight of each posting; an error when there is one at `chunks` or beyond.
pub(super) fn read_postings(mut bytes: &[u8], chunks: u32, mut visit: impl FnMut(u32, u8)) -> io::Result<()> {
    let mut position = 0_u32;
    while !bytes.is_empty() {
        let (distance, rest) = read_distance(bytes).ok_or_else(|| damaged("a torn posting"))?;
        let (&weight, rest) = rest.split_first().ok_or_else(|| damaged("a torn posting"))?;
        position = position.wrapping_add(distance);
        if position >= chunks {
            return Err(damaged("a posting of a chunk that is not there"));
        }
        visit(position, weight);
        bytes = rest;
    }
    Ok(())
}

fn read_distance(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (&first, mut rest) = bytes.split_first()?;
    if first < 0x80 {
        return Some((u32::from(first), rest));
    }
    let mut distance = u32::from(first & 0x7f);
    for shift in [7, 14, 21, 28] {
        let (&next, after) = rest.split_first()?;
        rest = after;
        distance |= u32::from(next & 0x7f) << shift;
        if next < 0x80 {
            return Some((distance, rest));
        }
    }
    None
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let [a, b, c, d] = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    u32::from_le_bytes([a, b, c, d])
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// The id at an offset where there are sixteen bytes.
pub(super) fn id_at(bytes: &[u8], at: usize) -> Uuid {
    Uuid::from_slice(&bytes[at..at + ID_BYTES]).expect("an id is sixteen bytes")
}

pub(super) fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("keyword segment with {what}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn postings_are_read_as_they_were_written(distances in prop::collection::vec((1_u32..5_000_000, any::<u8>()), 0..50)) {
            let mut bytes = Vec::new();
            let (mut expected, mut position) = (Vec::new(), 0);
            for (distance, weight) in distances {
                position += distance;
                put_posting(&mut bytes, distance, weight);
                expected.push((position, weight));
            }

            let mut found = Vec::new();
            read_postings(&bytes, u32::MAX, |position, weight| found.push((position, weight))).expect("whole");

            prop_assert_eq!(found, expected);
        }

        #[test]
        fn bytes_of_any_kind_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            drop(read_postings(&bytes, 1_000, |position, _| assert!(position < 1_000)));
            Form::ALL.into_iter().for_each(|form| drop(decode_directory(&bytes, 1 << 20, form)));
        }
    }
}
