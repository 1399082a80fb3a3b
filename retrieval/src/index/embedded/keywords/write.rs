//! Writes a segment: block after block, then the directory. Nothing is at the segment's name before all of it is on the
//! disk.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crc32fast::Hasher;

use super::format::{BlockPlace, ChunkRow, Form, TermEntry, encode_directory, put_posting};
use super::fresh::Posting;
use crate::{DocumentId, SourceId, TenantId};

const BUFFER_BYTES: usize = 1 << 20;

pub(super) struct SegmentWriter {
    path: PathBuf,
    file: BufWriter<File>,
    /// Bytes written so far.
    len: u64,
    blocks: Vec<(TenantId, BlockPlace)>,
    postings_start: u64,
    /// Of the block at hand, so far.
    checksum: Hasher,
    /// The terms of the block at hand.
    terms: Vec<TermEntry>,
    buffer: Vec<u8>,
}

impl SegmentWriter {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = File::create(unfinished(path))?;
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::with_capacity(BUFFER_BYTES, file),
            len: 0,
            blocks: Vec::new(),
            postings_start: 0,
            checksum: Hasher::new(),
            terms: Vec::new(),
            buffer: Vec::new(),
        })
    }

    /// The next term of the block at hand, in rising order, with its postings in rising order of positions.
    pub(super) fn add_term(&mut self, hash: u32, postings: &[Posting]) -> io::Result<()> {
        let Some(first) = postings.first() else {
            return Ok(());
        };
        let having =
            u32::try_from(postings.len()).map_err(|_| io::Error::other("a posting list of 2^32 chunks"))?;
        self.terms.push(TermEntry {
            hash,
            having,
            start: self.len,
        });
        self.buffer.clear();
        put_posting(&mut self.buffer, first.position, first.weight);
        for pair in postings.windows(2) {
            put_posting(
                &mut self.buffer,
                pair[1].position - pair[0].position,
                pair[1].weight,
            );
        }
        self.flush_buffer()
    }

    /// Ends the block: what was added since the last one is this tenant's. Without chunks there is no block.
    pub(super) fn end_block(&mut self, tenant_id: TenantId, rows: &[ChunkRow]) -> io::Result<()> {
        let mut terms = std::mem::take(&mut self.terms);
        if rows.is_empty() {
            self.postings_start = self.len;
            self.checksum.reset();
            return Ok(());
        }
        let count =
            |len: usize| u32::try_from(len).map_err(|_| io::Error::other("a tenant with 2^32 chunks"));
        let documents: Vec<(DocumentId, SourceId)> = rows
            .iter()
            .map(|row| (row.document_id, row.source_id))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let sources: BTreeSet<SourceId> = rows.iter().map(|row| row.source_id).collect();
        let mut place = BlockPlace {
            postings_start: self.postings_start,
            terms_start: self.len,
            chunks: count(rows.len())?,
            terms: count(terms.len())?,
            documents: count(documents.len())?,
            checksum: None,
            sources: sources.into_iter().collect(),
        };
        terms.push(TermEntry {
            hash: u32::MAX,
            having: 0,
            start: self.len,
        });
        self.buffer.clear();
        terms.iter().for_each(|term| term.put(&mut self.buffer));
        for row in rows {
            self.buffer.extend_from_slice(row.chunk_id.0.as_bytes());
        }
        for row in rows {
            let document = documents
                .binary_search(&(row.document_id, row.source_id))
                .expect("the list was made of these rows");
            self.buffer.extend_from_slice(&count(document)?.to_le_bytes());
        }
        let mut order: Vec<u32> = (0..place.chunks).collect();
        order.sort_unstable_by_key(|position| rows[*position as usize].chunk_id);
        for position in order {
            self.buffer.extend_from_slice(&position.to_le_bytes());
        }
        for (document_id, source_id) in documents {
            self.buffer.extend_from_slice(document_id.0.as_bytes());
            self.buffer.extend_from_slice(source_id.0.as_bytes());
        }
        for row in rows {
            self.buffer.extend_from_slice(&row.text_hash.to_le_bytes());
        }
        self.flush_buffer()?;
        place.checksum = Some(std::mem::take(&mut self.checksum).finalize());
        self.blocks.push((tenant_id, place));
        self.postings_start = self.len;
        // The term table of a large tenant is not kept for the small ones after it.
        terms.clear();
        terms.shrink_to(BUFFER_BYTES / size_of::<TermEntry>());
        self.terms = terms;
        self.buffer.shrink_to(BUFFER_BYTES);
        Ok(())
    }

    /// Writes the directory and puts the segment at its name, durably. False when there was nothing to write.
    pub(super) fn finish(mut self) -> io::Result<bool> {
        if self.blocks.is_empty() {
            fs::remove_file(unfinished(&self.path))?;
            return Ok(false);
        }
        let directory_start = self.len;
        self.buffer = encode_directory(&self.blocks);
        let checksum = crc32fast::hash(&self.buffer);
        self.flush_buffer()?;
        self.file.write_all(&directory_start.to_le_bytes())?;
        self.file.write_all(&checksum.to_le_bytes())?;
        self.file.write_all(&Form::WithChecksums.mark())?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_data()?;
        fs::rename(unfinished(&self.path), &self.path)?;
        Ok(true)
    }

    fn flush_buffer(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.checksum.update(&self.buffer);
        self.len += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("new")
}
