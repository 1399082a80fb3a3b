//! Fewer and larger segments: those of like size become one, and what was deleted is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::Spare;
use super::format::{ChunkRow, TermEntry, read_postings};
use super::fresh::Posting;
use super::segment::{Block, Segment};
use super::write::SegmentWriter;
use crate::TenantId;

/// Segments of one size class that are merged. A chunk is written again once per class, so more of them mean less
/// writing and more segments to search.
const MERGED_AT_ONCE: usize = 4;

/// Segments with fewer chunks are of one class.
const SMALLEST_CLASS: u64 = 1_000;

/// Share of deleted chunks from which a segment is written anew: one in this many.
const DELETED_ONE_IN: u64 = 4;

/// Postings read from a segment at once.
const READ_AHEAD_BYTES: u64 = 1 << 20;

/// Numbers of the segments that should become one.
pub(super) fn due<'a>(segments: impl Iterator<Item = &'a Segment>, spare: Spare) -> Option<BTreeSet<u64>> {
    let mut classes: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
    for segment in segments {
        let (chunks, deleted) = segment.chunks();
        if deleted * DELETED_ONE_IN >= chunks || (spare == Spare::Nothing && deleted > 0) {
            return Some([segment.number].into());
        }
        let class = ((chunks - deleted) / SMALLEST_CLASS)
            .max(1)
            .ilog(MERGED_AT_ONCE as u64);
        classes.entry(class).or_default().insert(segment.number);
    }
    classes
        .into_values()
        .find(|numbers| numbers.len() >= MERGED_AT_ONCE)
}

/// Writes the live chunks of all `segments`, tenant by tenant. What is not what was written is an error: it would get a new
/// checksum.
pub(super) fn merge(segments: &[&Segment], writer: &mut SegmentWriter) -> io::Result<()> {
    let tenants: BTreeSet<TenantId> = segments.iter().flat_map(|segment| segment.tenants()).collect();
    tenants
        .into_iter()
        .try_for_each(|tenant_id| merge_tenant(tenant_id, segments, writer))
}

/// Writes the tenant's live chunks of all `segments`.
pub(super) fn merge_tenant(
    tenant_id: TenantId,
    segments: &[&Segment],
    writer: &mut SegmentWriter,
) -> io::Result<()> {
    let blocks: Vec<(&Segment, &Block)> = segments
        .iter()
        .filter_map(|segment| Some((*segment, segment.block(tenant_id)?)))
        .filter(|(_, block)| block.live_count() > 0)
        .collect();
    merge_blocks(tenant_id, &blocks, writer)
}

fn merge_blocks(
    tenant_id: TenantId,
    blocks: &[(&Segment, &Block)],
    writer: &mut SegmentWriter,
) -> io::Result<()> {
    let mut rows: Vec<ChunkRow> = Vec::new();
    let mut cursors = Vec::with_capacity(blocks.len());
    for (segment, block) in blocks {
        segment.check(block)?;
        let mut new_position = Vec::with_capacity(block.place.chunks as usize);
        for (position, row) in (0..).zip(segment.rows(block)?) {
            let is_live = !block.is_deleted(position);
            new_position.push(is_live.then_some(rows.len() as u32));
            if is_live {
                rows.push(row);
            }
        }
        cursors.push(Cursor {
            segment,
            chunks: block.place.chunks,
            postings_end: block.place.terms_start,
            terms: segment.terms(block)?,
            next: 0,
            new_position,
            window: Vec::new(),
            window_start: 0,
        });
    }
    let mut postings = Vec::new();
    while let Some(term) = cursors.iter().filter_map(Cursor::term).min() {
        postings.clear();
        for cursor in cursors.iter_mut().filter(|cursor| cursor.term() == Some(term)) {
            cursor.take(&mut postings)?;
        }
        writer.add_term(term, &postings)?;
    }
    writer.end_block(tenant_id, &rows)
}

/// A way through one block's terms and postings, both in the order in which they lie in the file.
struct Cursor<'a> {
    segment: &'a Segment,
    chunks: u32,
    postings_end: u64,
    /// With the mark at the end.
    terms: Vec<TermEntry>,
    next: usize,
    /// For each chunk of the block its position in the merged one, unless it is deleted.
    new_position: Vec<Option<u32>>,
    window: Vec<u8>,
    window_start: u64,
}

impl Cursor<'_> {
    /// The next term's hash.
    fn term(&self) -> Option<u32> {
        let is_term = self.next + 1 < self.terms.len();
        is_term.then(|| self.terms[self.next].hash)
    }

    /// Adds the next term's postings and goes past it.
    fn take(&mut self, postings: &mut Vec<Posting>) -> io::Result<()> {
        let (start, end) = (self.terms[self.next].start, self.terms[self.next + 1].start);
        self.next += 1;
        let window_end = self.window_start + self.window.len() as u64;
        if start < self.window_start || end > window_end {
            let ahead = end.max(start + READ_AHEAD_BYTES).min(self.postings_end);
            self.window = self.segment.bytes(start, ahead)?;
            self.window_start = start;
        }
        let from = (start - self.window_start) as usize;
        let to = (end.saturating_sub(self.window_start) as usize).clamp(from, self.window.len().max(from));
        let bytes = self.window.get(from..to).unwrap_or_default();
        read_postings(bytes, self.chunks, |position, weight| {
            if let Some(position) = self.new_position[position as usize] {
                postings.push(Posting { position, weight });
            }
        })
    }
}
