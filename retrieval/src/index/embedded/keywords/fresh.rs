//! Chunks that came since the last checkpoint, in memory. The redo log has them too, so its size bounds theirs.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use super::super::operation::PreparedPoint;
use super::format::ChunkRow;
use super::weight::quantise;
use crate::{ChunkId, DocumentId, SourceId, TenantId};

/// What a chunk, and a term that its tenant did not have before, take with the tables they are in.
const CHUNK_BYTES: usize = 130;
const NEW_TERM_BYTES: usize = 90;

/// The fresh chunks of all tenants of the shard, each tenant's apart.
#[derive(Default)]
pub(super) struct Fresh {
    tenants: HashMap<TenantId, FreshTenant>,
    bytes: usize,
}

#[derive(Default)]
pub(super) struct FreshTenant {
    /// In the order they came; a position in here is what postings name.
    chunks: Vec<FreshChunk>,
    /// Where each chunk is that was neither deleted nor replaced.
    position_of: HashMap<ChunkId, u32>,
    postings: HashMap<u32, Vec<Posting>, BuildHasherDefault<TermHasher>>,
    sources: BTreeSet<SourceId>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct FreshChunk {
    pub(super) chunk_id: ChunkId,
    pub(super) document_id: DocumentId,
    pub(super) source_id: SourceId,
    pub(super) text_hash: u64,
    pub(super) is_deleted: bool,
}

/// That a term is in a chunk, and how much it says about it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Posting {
    pub(super) position: u32,
    pub(super) weight: u8,
}

impl Fresh {
    pub(super) fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }

    /// What all of it takes in memory, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn tenant(&self, tenant_id: TenantId) -> Option<&FreshTenant> {
        self.tenants.get(&tenant_id)
    }

    /// All tenants that have anything, in the order of their ids.
    pub(super) fn tenants(&self) -> Vec<(TenantId, &FreshTenant)> {
        let mut tenants: Vec<_> = self.tenants.iter().map(|(id, tenant)| (*id, tenant)).collect();
        tenants.sort_by_key(|(id, _)| *id);
        tenants
    }

    /// Adds the point; whether one with its id that was here already is replaced.
    pub(super) fn insert(&mut self, tenant_id: TenantId, point: &PreparedPoint) -> bool {
        let tenant = self.tenants.entry(tenant_id).or_default();
        let is_replaced = tenant.delete(point.chunk_id);
        let position = u32::try_from(tenant.chunks.len()).expect("the redo log holds fewer than 2^32 chunks");
        tenant.chunks.push(FreshChunk {
            chunk_id: point.chunk_id,
            document_id: point.document_id,
            source_id: point.source_id,
            text_hash: point.text_hash,
            is_deleted: false,
        });
        tenant.position_of.insert(point.chunk_id, position);
        tenant.sources.insert(point.source_id);
        for (term, weight) in point.terms.hashes.iter().zip(&point.terms.weights) {
            let weight = quantise(*weight);
            let postings = tenant.postings.entry(*term).or_default();
            self.bytes += if postings.is_empty() {
                NEW_TERM_BYTES
            } else {
                size_of::<Posting>()
            };
            postings.push(Posting { position, weight });
        }
        self.bytes += CHUNK_BYTES;
        is_replaced
    }

    /// Whether it was here, as with those below.
    pub(super) fn delete_chunk(&mut self, tenant_id: TenantId, chunk_id: ChunkId) -> bool {
        let tenant = self.tenants.get_mut(&tenant_id);
        tenant.is_some_and(|tenant| tenant.delete(chunk_id))
    }

    pub(super) fn delete_documents(
        &mut self,
        tenant_id: TenantId,
        document_ids: &BTreeSet<DocumentId>,
    ) -> bool {
        self.delete_matching(tenant_id, |chunk| document_ids.contains(&chunk.document_id))
    }

    pub(super) fn delete_sources(&mut self, tenant_id: TenantId, source_ids: &BTreeSet<SourceId>) -> bool {
        self.delete_matching(tenant_id, |chunk| source_ids.contains(&chunk.source_id))
    }

    fn delete_matching(&mut self, tenant_id: TenantId, is_gone: impl Fn(&FreshChunk) -> bool) -> bool {
        let Some(tenant) = self.tenants.get_mut(&tenant_id) else {
            return false;
        };
        let gone: Vec<ChunkId> = tenant
            .live()
            .filter(|chunk| is_gone(chunk))
            .map(|chunk| chunk.chunk_id)
            .collect();
        gone.iter().filter(|chunk_id| tenant.delete(**chunk_id)).count() > 0
    }

    pub(super) fn delete_tenant(&mut self, tenant_id: TenantId) -> bool {
        let gone = self.tenants.remove(&tenant_id);
        if self.tenants.is_empty() {
            self.bytes = 0;
        }
        gone.is_some_and(|tenant| tenant.live_count() > 0)
    }
}

impl FreshChunk {
    pub(super) fn row(&self) -> ChunkRow {
        ChunkRow {
            chunk_id: self.chunk_id,
            document_id: self.document_id,
            source_id: self.source_id,
            text_hash: self.text_hash,
        }
    }
}

impl FreshTenant {
    /// The sources of its chunks, deleted ones among them.
    pub(super) fn sources(&self) -> &BTreeSet<SourceId> {
        &self.sources
    }

    /// Chunks, deleted ones among them.
    pub(super) fn chunks(&self) -> &[FreshChunk] {
        &self.chunks
    }

    pub(super) fn live_count(&self) -> usize {
        self.position_of.len()
    }

    /// In rising order of positions, deleted chunks among them.
    pub(super) fn postings(&self, term: u32) -> &[Posting] {
        self.postings.get(&term).map_or(&[], Vec::as_slice)
    }

    /// All terms, in rising order.
    pub(super) fn terms(&self) -> Vec<u32> {
        let mut terms: Vec<u32> = self.postings.keys().copied().collect();
        terms.sort_unstable();
        terms
    }

    pub(super) fn live(&self) -> impl Iterator<Item = &FreshChunk> {
        self.chunks.iter().filter(|chunk| !chunk.is_deleted)
    }

    fn delete(&mut self, chunk_id: ChunkId) -> bool {
        let position = self.position_of.remove(&chunk_id);
        if let Some(position) = position {
            self.chunks[position as usize].is_deleted = true;
        }
        position.is_some()
    }
}

/// Terms are hashes already.
#[derive(Default)]
struct TermHasher(u64);

impl Hasher for TermHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_u32(&mut self, term: u32) {
        // The table takes its position from the low bits and its tag from the high ones.
        self.0 = u64::from(term).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
