//! A block's chunks by their ids.

use std::io;

use super::{Block, Segment, no_chunk, read_at};
use crate::ChunkId;
use crate::index::embedded::keywords::format::{ChunkRow, u32_at};

/// Places in the order of ids that are read together for a list.
const LISTED_AT_ONCE: u32 = 1_024;

/// Places in the order of ids from one that is held in memory to the next.
const FENCED: u32 = 256;

impl Segment {
    /// The block's chunks in the order of their ids, those behind `after`, at most `limit`, without deleted ones.
    pub(in super::super) fn list(
        &self,
        block: &Block,
        after: Option<ChunkId>,
        limit: usize,
    ) -> io::Result<Vec<ChunkRow>> {
        let mut from = match after {
            Some(after) => self.first_where(block, |id| id > after)?,
            None => 0,
        };
        let mut rows = Vec::new();
        while rows.len() < limit && from < block.place.chunks {
            for position in self.order(block, from, LISTED_AT_ONCE)? {
                if rows.len() < limit && !block.is_deleted(position) {
                    rows.push(self.row(block, position)?);
                }
            }
            from += LISTED_AT_ONCE;
        }
        Ok(rows)
    }

    /// Where the chunk is, deleted or not.
    pub(super) fn find_chunk(&self, block: &Block, chunk_id: ChunkId) -> io::Result<Option<u32>> {
        let place = self.first_where(block, |id| id >= chunk_id)?;
        let Some(position) = self.order(block, place, 1)?.pop() else {
            return Ok(None);
        };
        Ok((self.chunk_at(block, position)? == chunk_id).then_some(position))
    }

    /// The place in the order of ids from which on all of them are `behind`.
    fn first_where(&self, block: &Block, behind: impl Fn(ChunkId) -> bool) -> io::Result<u32> {
        let fence = self.fences(block)?.partition_point(|id| !behind(*id));
        let Some(before) = fence.checked_sub(1) else {
            return Ok(0);
        };
        let from = before as u32 * FENCED;
        let order = self.order(block, from, FENCED)?;
        let (mut low, mut high) = (1, order.len());
        while low < high {
            let middle = low.midpoint(high);
            if behind(self.chunk_at(block, order[middle])?) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(from + low as u32)
    }

    /// Every so many ids of the block in their order, read when they are first asked for.
    fn fences<'a>(&self, block: &'a Block) -> io::Result<&'a [ChunkId]> {
        if let Some(fences) = block.fences.get() {
            return Ok(fences);
        }
        let mut fences = Vec::with_capacity(block.place.chunks.div_ceil(FENCED) as usize);
        for place in (0..block.place.chunks).step_by(FENCED as usize) {
            for position in self.order(block, place, 1)? {
                fences.push(self.chunk_at(block, position)?);
            }
        }
        Ok(block.fences.get_or_init(|| fences))
    }

    /// The positions of the chunks at `count` places in the order of ids, or of as many as there are.
    fn order(&self, block: &Block, from: u32, count: u32) -> io::Result<Vec<u32>> {
        let count = block.place.chunks.saturating_sub(from).min(count);
        let start = block.place.order_start() + u64::from(from) * 4;
        let order = read_at(&self.file, start, count as usize * 4)?;
        let positions = order.chunks_exact(4).map(|position| u32_at(position, 0));
        let positions: Vec<u32> = positions.collect();
        if positions.iter().any(|position| *position >= block.place.chunks) {
            return Err(no_chunk());
        }
        Ok(positions)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::analysis::SparseTerms;
    use crate::index::Facets;
    use crate::index::embedded::keywords::Keywords;
    use crate::index::embedded::keywords::format::ID_BYTES;
    use crate::index::embedded::keywords::segment::READ_WHOLE;
    use crate::index::embedded::operation::{Change, Operation, PreparedPoint};
    use crate::{DocumentId, SourceId, TenantId};

    const TENANT: TenantId = TenantId(Uuid::from_u128(1));

    /// More than are read whole.
    const MANY: u128 = (READ_WHOLE / ID_BYTES) as u128 + 2 * FENCED as u128 + 7;

    /// Chunks come in no order of their ids.
    fn chunk(n: u128) -> ChunkId {
        ChunkId(Uuid::from_u128(
            n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        ))
    }

    fn document(n: u128) -> DocumentId {
        DocumentId(Uuid::from_u128(n / 3))
    }

    fn apply(keywords: &mut Keywords, change: Change) {
        let tenant_id = TENANT;
        keywords.apply(&Operation { tenant_id, change }).expect("done");
    }

    fn upsert(keywords: &mut Keywords, numbers: impl Iterator<Item = u128>) {
        let points = numbers.map(|n| PreparedPoint {
            chunk_id: chunk(n),
            document_id: document(n),
            source_id: SourceId(Uuid::from_u128(0)),
            terms: SparseTerms::default(),
            vector: None,
            text_hash: 1,
            facets: Facets::default(),
        });
        apply(keywords, Change::Upsert(points.collect()));
    }

    #[test]
    fn a_list_goes_on_behind_any_id_in_their_order() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut keywords = Keywords::open(dir.path()).expect("a new directory");
        upsert(&mut keywords, 0..MANY);
        keywords.checkpoint().expect("written");
        let mut ids: Vec<ChunkId> = (0..MANY).map(chunk).collect();
        ids.sort_unstable();

        for from in [
            0,
            1,
            FENCED as usize - 1,
            FENCED as usize,
            MANY as usize - 2,
            MANY as usize - 1,
        ] {
            let rows = keywords.list(TENANT, Some(ids[from]), 3).expect("a list");
            let listed: Vec<ChunkId> = rows.iter().map(|row| row.chunk_id).collect();
            assert_eq!(
                listed,
                ids[from + 1..].iter().copied().take(3).collect::<Vec<_>>(),
                "behind {from}"
            );
        }
    }
}
