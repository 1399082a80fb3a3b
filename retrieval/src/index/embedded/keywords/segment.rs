//! A segment: chunks of many tenants in one file that is never changed, each tenant's in a block of its own.
//!
//! It is read by position, never mapped or held: the system's page cache has what is asked for often. Beside the file
//! there are only where the blocks are, which chunks were deleted (`deletions`), and a filter of the chunks' ids.

mod deletions;
mod order;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::OnceLock;

use crc32fast::Hasher;

use super::format::{
    BlockPlace, ChunkRow, DOCUMENT_BYTES, END_BYTES, Form, ID_BYTES, TERM_BYTES, TEXT_BYTES, TermEntry,
    damaged, decode_directory, id_at, u32_at, u64_at,
};
use super::presence::Presence;
use crate::index::embedded::operation::UNKNOWN_TEXT;
use crate::{ChunkId, DocumentId, SourceId, TenantId};

/// A block's tables of up to so many bytes are read whole for the rows of a search: three reads for each row cost more.
const READ_WHOLE: usize = 128 << 10;

/// Bytes of a block that are read at once to be checked.
const CHECKED_AT_ONCE: u64 = 1 << 20;

pub(super) struct Segment {
    pub(super) number: u64,
    /// Number of the file that names its deleted chunks; `None` while none is.
    pub(super) deletions: Option<u64>,
    /// Whether chunks were deleted that no file names yet.
    pub(super) has_new_deletions: bool,
    file: File,
    form: Form,
    blocks: HashMap<TenantId, Block>,
    presence: Presence,
}

/// One tenant's part of a segment.
#[derive(Clone)]
pub(super) struct Block {
    pub(super) place: BlockPlace,
    /// A bit for each chunk, set once it is deleted; empty while none is.
    deleted: Vec<u64>,
    deleted_count: u32,
    fences: OnceLock<Vec<ChunkId>>,
}

impl Segment {
    pub(super) fn open(path: &Path, number: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let end_start = len.checked_sub(END_BYTES).ok_or_else(|| damaged("a torn end"))?;
        let end = read_at(&file, end_start, END_BYTES as usize)?;
        let form = Form::of(&end[12..]).ok_or_else(|| damaged("a torn end"))?;
        let directory_start = u64_at(&end, 0);
        let directory_len = end_start
            .checked_sub(directory_start)
            .ok_or_else(|| damaged("a torn end"))?;
        let directory = read_at(&file, directory_start, directory_len as usize)?;
        if crc32fast::hash(&directory) != u32_at(&end, 8) {
            return Err(damaged("a damaged directory"));
        }
        let blocks: HashMap<TenantId, Block> = decode_directory(&directory, directory_start, form)?
            .into_iter()
            .map(|(tenant_id, place)| (tenant_id, Block::new(place)))
            .collect();
        let chunks = blocks.values().map(|block| block.place.chunks as usize).sum();
        let mut segment = Self {
            number,
            deletions: None,
            has_new_deletions: false,
            file,
            form,
            blocks,
            presence: Presence::for_chunks(chunks),
        };
        for (tenant_id, block) in &segment.blocks {
            for id in segment.chunk_table(block)?.chunks_exact(ID_BYTES) {
                segment.presence.add(*tenant_id, ChunkId(id_at(id, 0)));
            }
        }
        Ok(segment)
    }

    /// The tenant's part alone, as it is now; `None` where there is none. It stays readable when the file is removed.
    pub(super) fn part_of(&self, tenant_id: TenantId) -> io::Result<Option<Self>> {
        let Some(block) = self.blocks.get(&tenant_id) else {
            return Ok(None);
        };
        Ok(Some(Self {
            number: self.number,
            deletions: None,
            has_new_deletions: false,
            file: self.file.try_clone()?,
            form: self.form,
            blocks: HashMap::from([(tenant_id, block.clone())]),
            presence: Presence::for_chunks(0),
        }))
    }

    /// Reads the whole block; an error unless it is what was written. Of files of earlier forms nobody knows.
    pub(super) fn check(&self, block: &Block) -> io::Result<()> {
        let place = &block.place;
        let Some(written) = place.checksum else {
            return Ok(());
        };
        let mut found = Hasher::new();
        let (mut at, end) = (place.postings_start, place.end(self.form));
        while at < end {
            let bytes = read_at(&self.file, at, (end - at).min(CHECKED_AT_ONCE) as usize)?;
            found.update(&bytes);
            at += bytes.len() as u64;
        }
        match found.finalize() == written {
            true => Ok(()),
            false => Err(damaged(&format!(
                "a block that is not what was written, number {}",
                self.number
            ))),
        }
    }

    /// As [`Segment::check`], of all blocks.
    pub(super) fn check_all(&self) -> io::Result<()> {
        self.blocks.values().try_for_each(|block| self.check(block))
    }

    pub(super) fn block(&self, tenant_id: TenantId) -> Option<&Block> {
        self.blocks.get(&tenant_id)
    }

    pub(super) fn tenants(&self) -> impl Iterator<Item = TenantId> {
        self.blocks.keys().copied()
    }

    /// Chunks in the file, and how many of them are deleted.
    pub(super) fn chunks(&self) -> (u64, u64) {
        self.blocks.values().fold((0, 0), |(chunks, deleted), block| {
            (
                chunks + u64::from(block.place.chunks),
                deleted + u64::from(block.deleted_count),
            )
        })
    }

    /// The line of the term table, and where the term's postings end; `None` when no chunk of the block has it.
    pub(super) fn find_term(&self, block: &Block, hash: u32) -> io::Result<Option<(TermEntry, u64)>> {
        let count = u64::from(block.place.terms);
        // Hashes are spread evenly, so a hash's place is known to within a few standard deviations.
        let guess = (u64::from(hash) * count) >> 32;
        let mut margin = 2 * count.isqrt() + 4;
        loop {
            let (from, to) = (guess.saturating_sub(margin), (guess + margin).min(count));
            let start = block.place.terms_start + from * TERM_BYTES as u64;
            let table = read_at(&self.file, start, (to - from + 1) as usize * TERM_BYTES)?;
            let (entries, _) = table.as_chunks::<TERM_BYTES>();
            // The last one read only tells where the postings before it end.
            let within = entries.len() - 1;
            let at = entries[..within].partition_point(|entry| u32_at(entry, 0) < hash);
            if (at == 0 && from > 0) || (at == within && to < count) {
                margin *= 8;
                continue;
            }
            if at == within || u32_at(&entries[at], 0) != hash {
                return Ok(None);
            }
            let (entry, next) = (TermEntry::read(&entries[at]), TermEntry::read(&entries[at + 1]));
            if next.start < entry.start || next.start > block.place.terms_start {
                return Err(damaged("postings that end before they begin"));
            }
            return Ok(Some((entry, next.start)));
        }
    }

    /// All of the block's terms, with the mark at the end.
    pub(super) fn terms(&self, block: &Block) -> io::Result<Vec<TermEntry>> {
        let count = block.place.terms as usize + 1;
        let table = read_at(&self.file, block.place.terms_start, count * TERM_BYTES)?;
        let (entries, _) = table.as_chunks::<TERM_BYTES>();
        Ok(entries.iter().map(TermEntry::read).collect())
    }

    /// The bytes between two places of the file, for postings.
    pub(super) fn bytes(&self, start: u64, end: u64) -> io::Result<Vec<u8>> {
        read_at(&self.file, start, end.saturating_sub(start) as usize)
    }

    /// The block's documents with their sources; a document of two sources is there twice.
    pub(super) fn documents(&self, block: &Block) -> io::Result<Vec<(DocumentId, SourceId)>> {
        let table = read_at(
            &self.file,
            block.place.documents_start(),
            block.place.documents as usize * DOCUMENT_BYTES,
        )?;
        let entries = table.chunks_exact(DOCUMENT_BYTES);
        Ok(entries
            .map(|entry| (DocumentId(id_at(entry, 0)), SourceId(id_at(entry, ID_BYTES))))
            .collect())
    }

    /// Those of `document_ids` that have a chunk in the block which is not deleted.
    pub(super) fn present(
        &self,
        block: &Block,
        document_ids: &BTreeSet<DocumentId>,
    ) -> io::Result<BTreeSet<DocumentId>> {
        let documents = self.documents(block)?;
        let asked: BTreeMap<u32, DocumentId> = (0..)
            .zip(documents)
            .filter(|(_, (id, _))| document_ids.contains(id))
            .map(|(number, (id, _))| (number, id))
            .collect();
        if asked.is_empty() || block.deleted_count == 0 {
            return Ok(asked.into_values().collect());
        }
        let live = (0..block.place.chunks)
            .zip(self.documents_of(block)?)
            .filter(|(position, _)| !block.is_deleted(*position));
        Ok(live
            .filter_map(|(_, document)| asked.get(&document).copied())
            .collect())
    }

    /// The chunks of these documents that are not deleted.
    pub(super) fn chunks_of(
        &self,
        block: &Block,
        document_ids: &BTreeSet<DocumentId>,
    ) -> io::Result<Vec<ChunkId>> {
        let documents = self.documents(block)?;
        let is_asked = |number: &u32| {
            let document = documents.get(*number as usize);
            document.is_some_and(|(id, _)| document_ids.contains(id))
        };
        let positions = (0..block.place.chunks)
            .zip(self.documents_of(block)?)
            .filter(|(position, number)| is_asked(number) && !block.is_deleted(*position));
        let positions: Vec<u32> = positions.map(|(position, _)| position).collect();
        self.chunks_at(block, &positions)
    }

    /// For each chunk, which of [`Segment::documents`] it is from.
    pub(super) fn documents_of(&self, block: &Block) -> io::Result<Vec<u32>> {
        let table = read_at(
            &self.file,
            block.place.documents_of_start(),
            block.place.chunks as usize * 4,
        )?;
        Ok(table.chunks_exact(4).map(|number| u32_at(number, 0)).collect())
    }

    /// The chunks at these positions, in their order.
    pub(super) fn chunks_at(&self, block: &Block, positions: &[u32]) -> io::Result<Vec<ChunkId>> {
        if positions.is_empty() {
            return Ok(Vec::new());
        }
        if block.place.chunks as usize * ID_BYTES > READ_WHOLE {
            return positions.iter().map(|at| self.chunk_at(block, *at)).collect();
        }
        let ids = self.chunk_table(block)?;
        let (ids, _) = ids.as_chunks::<ID_BYTES>();
        let chunk_at = |at: &u32| {
            let id = ids.get(*at as usize);
            id.map(|id| ChunkId(id_at(id, 0))).ok_or_else(no_chunk)
        };
        positions.iter().map(chunk_at).collect()
    }

    pub(super) fn row(&self, block: &Block, position: u32) -> io::Result<ChunkRow> {
        let (document_id, source_id) = self.document_of(block, position)?;
        let text_hash = if self.form.has_texts() {
            let start = block.place.texts_start() + u64::from(position) * TEXT_BYTES as u64;
            u64_at(&read_at(&self.file, start, TEXT_BYTES)?, 0)
        } else {
            UNKNOWN_TEXT
        };
        Ok(ChunkRow {
            chunk_id: self.chunk_at(block, position)?,
            document_id,
            source_id,
            text_hash,
        })
    }

    /// All rows of the block, in the order of positions.
    pub(super) fn rows(&self, block: &Block) -> io::Result<Vec<ChunkRow>> {
        let documents = self.documents(block)?;
        let chunks = self.chunk_table(block)?;
        let ids = chunks.chunks_exact(ID_BYTES).map(|id| ChunkId(id_at(id, 0)));
        ids.zip(self.documents_of(block)?)
            .zip(self.text_hashes(block)?)
            .map(|((chunk_id, document), text_hash)| {
                let (document_id, source_id) = *documents.get(document as usize).ok_or_else(no_document)?;
                Ok(ChunkRow {
                    chunk_id,
                    document_id,
                    source_id,
                    text_hash,
                })
            })
            .collect()
    }

    fn chunk_at(&self, block: &Block, position: u32) -> io::Result<ChunkId> {
        let start = block.place.chunks_start() + u64::from(position) * ID_BYTES as u64;
        Ok(ChunkId(id_at(&read_at(&self.file, start, ID_BYTES)?, 0)))
    }

    fn document_of(&self, block: &Block, position: u32) -> io::Result<(DocumentId, SourceId)> {
        let place = &block.place;
        let at = place.documents_of_start() + u64::from(position) * 4;
        let document = u32_at(&read_at(&self.file, at, 4)?, 0);
        if document >= place.documents {
            return Err(no_document());
        }
        let start = place.documents_start() + u64::from(document) * DOCUMENT_BYTES as u64;
        let document = read_at(&self.file, start, DOCUMENT_BYTES)?;
        Ok((
            DocumentId(id_at(&document, 0)),
            SourceId(id_at(&document, ID_BYTES)),
        ))
    }

    fn text_hashes(&self, block: &Block) -> io::Result<Vec<u64>> {
        let chunks = block.place.chunks as usize;
        if !self.form.has_texts() {
            return Ok(vec![UNKNOWN_TEXT; chunks]);
        }
        let table = read_at(&self.file, block.place.texts_start(), chunks * TEXT_BYTES)?;
        Ok(table
            .chunks_exact(TEXT_BYTES)
            .map(|hash| u64_at(hash, 0))
            .collect())
    }

    fn chunk_table(&self, block: &Block) -> io::Result<Vec<u8>> {
        read_at(
            &self.file,
            block.place.chunks_start(),
            block.place.chunks as usize * ID_BYTES,
        )
    }
}

impl Block {
    fn new(place: BlockPlace) -> Self {
        Self {
            place,
            deleted: Vec::new(),
            deleted_count: 0,
            fences: OnceLock::new(),
        }
    }

    pub(super) fn live_count(&self) -> u64 {
        u64::from(self.place.chunks.saturating_sub(self.deleted_count))
    }

    pub(super) fn is_deleted(&self, position: u32) -> bool {
        self.deleted
            .get(position as usize / 64)
            .is_some_and(|word| word >> (position % 64) & 1 == 1)
    }

    /// Whether any of them was not deleted before.
    fn mark(&mut self, positions: &[u32]) -> bool {
        let before = self.deleted_count;
        self.deleted.resize(self.place.chunks.div_ceil(64) as usize, 0);
        for position in positions {
            let word = &mut self.deleted[*position as usize / 64];
            let bit = 1 << (position % 64);
            self.deleted_count += u32::from(*word & bit == 0);
            *word |= bit;
        }
        self.deleted_count > before
    }
}

fn no_chunk() -> io::Error {
    damaged("a chunk outside its block")
}

fn no_document() -> io::Error {
    damaged("a chunk of a document that is not there")
}

fn read_at(file: &File, start: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes)
}
