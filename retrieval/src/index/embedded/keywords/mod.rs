//! The keyword side of a shard: which chunks have which terms, how much each term says about its chunk, and what is said
//! of documents beside that (`facets`).
//!
//! New chunks gather in memory; a checkpoint writes them to a segment, a file that is never changed. Deletions are bits
//! beside it, and segments of like size are merged. In all of these a tenant's chunks, terms and postings are in a part
//! of their own: a search reads nothing of another tenant's, and the statistics of terms are the tenant's own.
//!
//! What is in memory only is in the shard's redo log, too. The manifest names the segments that count, so a crash leaves
//! either the state before a checkpoint or the one after it.

mod change;
mod copy;
mod facets;
mod format;
mod fresh;
mod manifest;
mod merge;
mod presence;
mod search;
mod segment;
mod weight;
mod write;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub(super) use self::copy::TenantWords;
use self::facets::{FacetFile, FacetTable};
pub(super) use self::format::ChunkRow;
use self::fresh::{Fresh, FreshChunk, FreshTenant, Posting};
use self::manifest::{Manifest, ManifestEntry};
pub(super) use self::manifest::{is_made, write_whole};
use self::search::FoundByWords;
use self::segment::Segment;
use self::write::SegmentWriter;
use super::filter::TenantFilter;
use crate::analysis::QueryTerms;
use crate::index::Facets;
use crate::{ChunkId, DocumentId, TenantId};

/// The keyword side of one shard, open. One thread changes it; what takes long only reads, so that searches go on.
pub(super) struct Keywords {
    dir: PathBuf,
    fresh: Fresh,
    /// Oldest first, but for merged ones.
    segments: Vec<Segment>,
    facets: FacetTable,
    /// What of the facets is on the disk.
    facet_file: Option<FacetFile>,
    /// The next file's number; no number is used twice.
    next_number: u64,
    /// Segments that turned out not to be what was written. They stay as they are, and nothing is merged with them.
    damaged: BTreeSet<u64>,
}

/// How much of what was deleted files may keep when they are brought to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spare {
    /// What is not worth being written anew for.
    Little,
    Nothing,
}

/// What a checkpoint or a merge wrote, to be taken over in one step.
pub(super) struct Written {
    /// `None` when all chunks turned out to be deleted.
    segment: Option<Segment>,
    replaces: Replaced,
}

/// What counts no more.
pub(super) struct Retired {
    _fresh: Fresh,
    _segments: Vec<Segment>,
}

/// What a manifest on the disk says.
pub(super) struct Persisted(Manifest);

enum Replaced {
    Fresh,
    Segments(BTreeSet<u64>),
}

impl Keywords {
    /// Opens the keyword side in `dir`, makes it where there is none, and throws away what an interrupted run left.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        if !is_made(dir) {
            Manifest::default().write(dir)?;
        }
        let manifest = Manifest::read(dir)?;
        let mut segments = Vec::with_capacity(manifest.segments.len());
        for entry in &manifest.segments {
            let mut segment = Segment::open(&segment_path(dir, entry.number), entry.number)?;
            if let Some(number) = entry.deletions {
                segment.decode_deletions(&fs::read(deletions_path(dir, number))?)?;
                segment.deletions = Some(number);
            }
            segments.push(segment);
        }
        let facets = match manifest.facets {
            Some(file) => FacetTable::read(&facets_path(dir, file.number), file)?,
            None => FacetTable::default(),
        };
        let keywords = Self {
            dir: dir.to_owned(),
            fresh: Fresh::default(),
            segments,
            facets,
            facet_file: manifest.facets,
            next_number: manifest.next_number,
            damaged: BTreeSet::new(),
        };
        keywords.remove_strangers()?;
        Ok(keywords)
    }

    /// Whether files keep chunks that were deleted.
    pub(super) fn has_deleted(&self) -> bool {
        self.segments.iter().any(|segment| segment.chunks().1 > 0)
    }

    /// The chunks with the highest BM25 score, best first; all of them have at least one of the terms.
    pub(super) fn search(
        &self,
        filter: &TenantFilter,
        terms: &QueryTerms,
        limit: usize,
    ) -> io::Result<FoundByWords> {
        search::search(self, filter, terms, limit)
    }

    /// The tenant's chunks in the order of their ids, those behind `after`, at most `limit`.
    pub(super) fn list(
        &self,
        tenant_id: TenantId,
        after: Option<ChunkId>,
        limit: usize,
    ) -> io::Result<Vec<ChunkRow>> {
        let mut rows: Vec<ChunkRow> = Vec::new();
        for segment in &self.segments {
            if let Some(block) = segment.block(tenant_id) {
                rows.extend(segment.list(block, after, limit)?);
            }
        }
        if let Some(tenant) = self.fresh.tenant(tenant_id) {
            let live = tenant.live().filter(|chunk| Some(chunk.chunk_id) > after);
            rows.extend(live.map(FreshChunk::row));
        }
        rows.sort_unstable_by_key(|row| row.chunk_id);
        rows.truncate(limit);
        Ok(rows)
    }

    /// Whether whoever `filter` is for may see all that the tenant has: of the first, every source; of the second, every
    /// document. What was deleted counts for as long as it is in the files.
    pub(super) fn lets_through_all(&self, filter: &TenantFilter) -> (bool, bool) {
        let tenant_id = filter.tenant_id();
        let fresh = self.fresh.tenant(tenant_id);
        let blocks = self
            .segments
            .iter()
            .filter_map(|segment| segment.block(tenant_id));
        let mut sources = fresh
            .into_iter()
            .flat_map(FreshTenant::sources)
            .chain(blocks.flat_map(|block| &block.place.sources));
        (
            sources.all(|source_id| filter.allows_source(*source_id)),
            !self.facets.has_restricted(tenant_id),
        )
    }

    /// What is said of the document; of one that is not here, nothing.
    pub(super) fn facets(&self, tenant_id: TenantId, document_id: DocumentId) -> &Facets {
        self.facets.get(tenant_id, document_id)
    }

    /// How many chunks the tenant has.
    pub(super) fn count(&self, tenant_id: TenantId) -> u64 {
        let in_files: u64 = self
            .segments
            .iter()
            .filter_map(|segment| segment.block(tenant_id))
            .map(segment::Block::live_count)
            .sum();
        let in_memory = self.fresh.tenant(tenant_id).map_or(0, FreshTenant::live_count);
        in_files + in_memory as u64
    }

    /// Writes the chunks in memory to a segment; `None` when there are none. They count as in memory until
    /// [`Keywords::take_over`]; nothing may be applied in between.
    pub(super) fn write_fresh(&self) -> io::Result<Option<Written>> {
        if self.fresh.is_empty() {
            return Ok(None);
        }
        let path = segment_path(&self.dir, self.next_number);
        let mut writer = SegmentWriter::create(&path)?;
        for (tenant_id, tenant) in self.fresh.tenants() {
            write_tenant(&mut writer, tenant_id, tenant)?;
        }
        self.written(writer, Replaced::Fresh).map(Some)
    }

    /// Merges segments where that is due; `None` where it is not. Nothing may be applied before
    /// [`Keywords::take_over`].
    pub(super) fn write_merged(&self, spare: Spare) -> io::Result<Option<Written>> {
        let Some(due) = self.due(spare) else {
            return Ok(None);
        };
        let segments: Vec<&Segment> = self.numbered(&due).collect();
        let mut writer = SegmentWriter::create(&segment_path(&self.dir, self.next_number))?;
        merge::merge(&segments, &mut writer)?;
        self.written(writer, Replaced::Segments(due)).map(Some)
    }

    /// Those of the segments that are merged next that are not what was written; all of them where none can be told from the
    /// others.
    pub(super) fn find_damaged(&self, spare: Spare) -> io::Result<BTreeSet<u64>> {
        let due = self.due(spare).unwrap_or_default();
        let mut damaged = BTreeSet::new();
        for segment in self.numbered(&due) {
            match segment.check_all() {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    damaged.insert(segment.number);
                }
                checked => checked?,
            }
        }
        Ok(if damaged.is_empty() { due } else { damaged })
    }

    /// From now on these segments stay as they are.
    pub(super) fn leave_out(&mut self, damaged: BTreeSet<u64>) {
        self.damaged.extend(damaged);
    }

    /// The blocks there are, to be checked one after the other.
    pub(super) fn blocks(&self) -> Vec<(u64, TenantId)> {
        let of = |segment: &Segment| {
            let number = segment.number;
            segment
                .tenants()
                .map(move |tenant_id| (number, tenant_id))
                .collect::<Vec<_>>()
        };
        self.segments.iter().flat_map(of).collect()
    }

    /// Reads all of a block; an error unless it is what was written. One that is not there any more is in another segment.
    pub(super) fn check(&self, (number, tenant_id): (u64, TenantId)) -> io::Result<()> {
        let segment = self.segments.iter().find(|segment| segment.number == number);
        match segment.and_then(|segment| Some((segment, segment.block(tenant_id)?))) {
            Some((segment, block)) => segment.check(block),
            None => Ok(()),
        }
    }

    /// Makes what was written count, in memory. Files follow with [`Keywords::persist`]. What it gives is to be dropped once
    /// searches go on: that takes a while.
    pub(super) fn take_over(&mut self, written: Written) -> Retired {
        let retired = match written.replaces {
            Replaced::Fresh => Retired {
                _fresh: std::mem::take(&mut self.fresh),
                _segments: Vec::new(),
            },
            Replaced::Segments(numbers) => Retired {
                _fresh: Fresh::default(),
                _segments: self
                    .segments
                    .extract_if(.., |segment| numbers.contains(&segment.number))
                    .collect(),
            },
        };
        self.next_number += 1;
        self.segments.extend(written.segment);
        retired
    }

    /// Brings everything but the chunks in memory to the disk, in one step. What it gives is for [`Keywords::persisted`].
    pub(super) fn persist(&self, spare: Spare) -> io::Result<Persisted> {
        let mut next_number = self.next_number;
        let mut manifest_entries = Vec::with_capacity(self.segments.len());
        for segment in &self.segments {
            let mut deletions = segment.deletions;
            if segment.has_new_deletions {
                manifest::write_whole(
                    &deletions_path(&self.dir, next_number),
                    &segment.encode_deletions(),
                )?;
                deletions = Some(next_number);
                next_number += 1;
            }
            manifest_entries.push(ManifestEntry {
                number: segment.number,
                deletions,
            });
        }
        let path_of = |number| facets_path(&self.dir, number);
        let facets = self.facets.write(self.facet_file, spare, next_number, path_of)?;
        next_number += u64::from(facets.is_some_and(|file| file.number == next_number));
        let manifest = Manifest {
            next_number,
            segments: manifest_entries,
            facets,
        };
        manifest.write(&self.dir)?;
        Ok(Persisted(manifest))
    }

    /// Notes what is on the disk, and removes the files that count no more.
    pub(super) fn persisted(&mut self, persisted: Persisted) -> io::Result<()> {
        let Persisted(manifest) = persisted;
        self.next_number = manifest.next_number;
        self.facet_file = manifest.facets;
        self.facets.written(manifest.facets);
        for (segment, entry) in self.segments.iter_mut().zip(manifest.segments) {
            segment.deletions = entry.deletions;
            segment.has_new_deletions = false;
        }
        self.remove_strangers()
    }

    /// The tenants with at least so many chunks.
    pub(super) fn tenants_from(&self, chunks: u64) -> Vec<TenantId> {
        let in_files = self.segments.iter().flat_map(|segment| segment.tenants());
        let in_memory = self.fresh.tenants().into_iter().map(|(tenant_id, _)| tenant_id);
        let tenants: BTreeSet<TenantId> = in_files.chain(in_memory).collect();
        tenants
            .into_iter()
            .filter(|tenant_id| self.count(*tenant_id) >= chunks)
            .collect()
    }

    /// Writes everything down, all at once. While others search, take the single steps.
    pub(super) fn checkpoint(&mut self) -> io::Result<()> {
        if let Some(written) = self.write_fresh()? {
            drop(self.take_over(written));
        }
        while let Some(merged) = self.write_merged(Spare::Little)? {
            drop(self.take_over(merged));
        }
        let persisted = self.persist(Spare::Little)?;
        self.persisted(persisted)
    }

    /// What the chunks and changes in memory take that are not on the disk, about.
    pub(super) fn fresh_bytes(&self) -> usize {
        self.fresh.bytes() + self.facets.changed_bytes()
    }

    fn due(&self, spare: Spare) -> Option<BTreeSet<u64>> {
        let whole = self.segments.iter();
        let whole = whole.filter(|segment| !self.damaged.contains(&segment.number));
        merge::due(whole, spare)
    }

    fn numbered(&self, numbers: &BTreeSet<u64>) -> impl Iterator<Item = &Segment> {
        self.segments
            .iter()
            .filter(|segment| numbers.contains(&segment.number))
    }

    /// The tenant's chunks of these documents.
    pub(super) fn chunks_of(
        &self,
        tenant_id: TenantId,
        document_ids: &BTreeSet<DocumentId>,
    ) -> io::Result<Vec<ChunkId>> {
        let mut chunks = Vec::new();
        for segment in &self.segments {
            if let Some(block) = segment.block(tenant_id) {
                chunks.extend(segment.chunks_of(block, document_ids)?);
            }
        }
        if let Some(tenant) = self.fresh.tenant(tenant_id) {
            let of_these = tenant
                .live()
                .filter(|chunk| document_ids.contains(&chunk.document_id));
            chunks.extend(of_these.map(|chunk| chunk.chunk_id));
        }
        Ok(chunks)
    }

    fn written(&self, writer: SegmentWriter, replaces: Replaced) -> io::Result<Written> {
        let number = self.next_number;
        let segment = match writer.finish()? {
            true => Some(Segment::open(&segment_path(&self.dir, number), number)?),
            false => None,
        };
        Ok(Written { segment, replaces })
    }

    /// Removes files that the segments do not need. Folders are somebody else's: `lost+found`, or a file system's snapshots.
    fn remove_strangers(&self) -> io::Result<()> {
        let mut needed: BTreeSet<PathBuf> = [manifest::path(&self.dir)].into();
        for segment in &self.segments {
            needed.insert(segment_path(&self.dir, segment.number));
            needed.extend(segment.deletions.map(|number| deletions_path(&self.dir, number)));
        }
        needed.extend(self.facet_file.map(|file| facets_path(&self.dir, file.number)));
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let path = entry.path();
            if !needed.contains(&path) && !entry.file_type()?.is_dir() {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// The tenant's fresh chunks as a block; deleted ones are left out.
fn write_tenant(writer: &mut SegmentWriter, tenant_id: TenantId, tenant: &FreshTenant) -> io::Result<()> {
    let mut rows = Vec::with_capacity(tenant.live_count());
    let mut position_in_block = Vec::with_capacity(tenant.chunks().len());
    for chunk in tenant.chunks() {
        let position = rows.len() as u32;
        position_in_block.push((!chunk.is_deleted).then_some(position));
        if !chunk.is_deleted {
            rows.push(chunk.row());
        }
    }
    let mut postings = Vec::new();
    for term in tenant.terms() {
        postings.clear();
        postings.extend(tenant.postings(term).iter().filter_map(|posting| {
            let position = position_in_block[posting.position as usize]?;
            Some(Posting { position, ..*posting })
        }));
        writer.add_term(term, &postings)?;
    }
    writer.end_block(tenant_id, &rows)
}

/// Whether it is written in `dir` that no chunk is there.
pub(super) fn says_empty(dir: &Path) -> io::Result<bool> {
    Ok(manifest::path(dir).is_file() && Manifest::read(dir)?.segments.is_empty())
}

fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number}.segment"))
}

fn facets_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number}.facets"))
}

fn deletions_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number}.deleted"))
}
