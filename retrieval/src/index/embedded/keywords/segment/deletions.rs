//! Chunks of a segment that were deleted: bits beside the file, which names them in a file of its own.

use std::collections::BTreeSet;
use std::io;

use super::super::format::{ID_BYTES, damaged, id_at};
use super::Segment;
use crate::{ChunkId, DocumentId, SourceId, TenantId};

impl Segment {
    /// Whether it was here and not deleted before, as with those below.
    pub(in super::super) fn delete_chunk(
        &mut self,
        tenant_id: TenantId,
        chunk_id: ChunkId,
    ) -> io::Result<bool> {
        if !self.presence.may_have(tenant_id, chunk_id) {
            return Ok(false);
        }
        let Some(block) = self.blocks.get(&tenant_id) else {
            return Ok(false);
        };
        let position = self.find_chunk(block, chunk_id)?;
        Ok(position.is_some_and(|position| self.mark(tenant_id, &[position])))
    }

    pub(in super::super) fn delete_documents(
        &mut self,
        tenant_id: TenantId,
        document_ids: &BTreeSet<DocumentId>,
    ) -> io::Result<bool> {
        self.delete_matching(tenant_id, |document_id, _| document_ids.contains(&document_id))
    }

    pub(in super::super) fn delete_sources(
        &mut self,
        tenant_id: TenantId,
        source_ids: &BTreeSet<SourceId>,
    ) -> io::Result<bool> {
        self.delete_matching(tenant_id, |_, source_id| source_ids.contains(&source_id))
    }

    fn delete_matching(
        &mut self,
        tenant_id: TenantId,
        is_gone: impl Fn(DocumentId, SourceId) -> bool,
    ) -> io::Result<bool> {
        let Some(block) = self.blocks.get(&tenant_id) else {
            return Ok(false);
        };
        let documents = self.documents(block)?;
        let is_gone: Vec<bool> = documents
            .iter()
            .map(|(document_id, source_id)| is_gone(*document_id, *source_id))
            .collect();
        if !is_gone.contains(&true) {
            return Ok(false);
        }
        let positions: Vec<u32> = (0..block.place.chunks)
            .zip(self.documents_of(block)?)
            .filter(|(_, document)| is_gone.get(*document as usize) == Some(&true))
            .map(|(position, _)| position)
            .collect();
        Ok(self.mark(tenant_id, &positions))
    }

    pub(in super::super) fn delete_tenant(&mut self, tenant_id: TenantId) -> bool {
        let chunks = self.blocks.get(&tenant_id).map_or(0, |block| block.place.chunks);
        let all: Vec<u32> = (0..chunks).collect();
        self.mark(tenant_id, &all)
    }

    fn mark(&mut self, tenant_id: TenantId, positions: &[u32]) -> bool {
        let block = self.blocks.get_mut(&tenant_id);
        let is_new = block.is_some_and(|block| block.mark(positions));
        self.has_new_deletions |= is_new;
        is_new
    }

    /// The deleted chunks of all tenants, for a file beside the segment's.
    pub(in super::super) fn encode_deletions(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (tenant_id, block) in self.blocks.iter().filter(|(_, block)| block.deleted_count > 0) {
            bytes.extend_from_slice(tenant_id.0.as_bytes());
            block
                .deleted
                .iter()
                .for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        }
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Takes in what [`Segment::encode_deletions`] gave.
    pub(in super::super) fn decode_deletions(&mut self, bytes: &[u8]) -> io::Result<()> {
        let torn = || damaged("a torn list of deletions");
        let (mut rest, checksum) = bytes.split_last_chunk::<4>().ok_or_else(torn)?;
        if crc32fast::hash(rest) != u32::from_le_bytes(*checksum) {
            return Err(torn());
        }
        while !rest.is_empty() {
            let (id, after) = rest.split_at_checked(ID_BYTES).ok_or_else(torn)?;
            let block = self.blocks.get_mut(&TenantId(id_at(id, 0))).ok_or_else(torn)?;
            let words = block.place.chunks.div_ceil(64) as usize;
            let (bits, after) = after.split_at_checked(words * 8).ok_or_else(torn)?;
            let (bits, _) = bits.as_chunks::<8>();
            block.deleted = bits.iter().map(|word| u64::from_le_bytes(*word)).collect();
            block.deleted_count = block.deleted.iter().map(|word| word.count_ones()).sum();
            rest = after;
        }
        Ok(())
    }
}
