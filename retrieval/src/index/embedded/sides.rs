//! The two sides of a shard: words, always, and vectors, where there is an embedding model. Every point is on the keyword
//! side, so that it counts the points; those with a vector are on the other one, too.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use qdrant_edge::{OperationError, PointId};

use super::damage::{self, Broken};
use super::engine::{Engine, Found};
use super::filter::{self, Given, TenantFilter};
use super::keywords::{ChunkRow, Keywords, Spare, TenantWords};
use super::layout::{Extent, Layout};
use super::lost::Loss;
use super::migrate;
use super::operation::{Change, Operation, UNKNOWN_TEXT};
use super::shard::guarded;
use super::stored::cosine;
use crate::analysis::QueryTerms;
use crate::index::point::fingerprint;
use crate::index::{Candidate, Candidates, Facets, StoredPoint};
use crate::{ChunkId, DocumentId, TenantId};

/// Points that the keyword side takes in while searches wait: about a millisecond's.
const CHANGED_AT_ONCE: usize = 64;

/// The fingerprint of a point that equals none: one side says other facets than the other, or its text is not known.
const UNEQUAL: u64 = 0;

const KEYWORDS_DIR: &str = "keywords";
const VECTORS_DIR: &str = "vectors";

/// A search after its text has been analysed.
pub(super) struct PreparedQuery {
    pub(super) filter: TenantFilter,
    pub(super) vector: Option<Vec<f32>>,
    pub(super) terms: QueryTerms,
    pub(super) limit: usize,
}

/// Why a side failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SideError {
    #[error(transparent)]
    Vectors(#[from] OperationError),
    #[error(transparent)]
    Keywords(#[from] io::Error),
}

/// Both sides, open. One thread changes them, any number reads.
pub(super) struct Sides {
    dir: PathBuf,
    keywords: RwLock<Keywords>,
    /// `None` in a shard that finds by words alone.
    vectors: Option<Engine>,
    /// Whether anything was deleted or replaced since somebody asked.
    has_deleted: AtomicBool,
}

impl Sides {
    /// Opens the sides in `dir` and makes those that are not there. Takes over what an earlier version left there.
    pub(super) fn open(dir: &Path, layout: Option<Layout>) -> Result<Self, Broken> {
        let (keywords_dir, vectors_dir) = (keywords_dir(dir), vectors_dir(dir));
        let broken = |part| {
            let dir = dir.to_owned();
            move |reason| Broken { dir, part, reason }
        };
        guarded(|| migrate::take_over_earlier_version(dir, &keywords_dir, &vectors_dir, layout))
            .map_err(broken(Loss::Words))?;
        let open_engine = |layout| match vectors_dir.exists() {
            true => Engine::open(&vectors_dir, layout),
            false => Engine::create(&vectors_dir, layout),
        };
        let vectors = layout.map(|layout| guarded(|| open_engine(layout)));
        let vectors = vectors.transpose().map_err(broken(Loss::Vectors))?;
        let keywords = guarded(|| Keywords::open(&keywords_dir)).map_err(broken(Loss::Words))?;
        Ok(Self {
            dir: dir.to_owned(),
            has_deleted: AtomicBool::new(keywords.has_deleted()),
            keywords: RwLock::new(keywords),
            vectors,
        })
    }

    /// Does one operation. Doing it again changes nothing. The words come first, and last in a deletion: so they know of each
    /// point that has a vector ([`Sides::nearest`]).
    pub(super) fn apply(&self, operation: &Operation) -> Result<(), SideError> {
        if !operation.change.is_deletion() {
            self.apply_to_keywords(operation)?;
        }
        if let Some(vectors) = &self.vectors {
            vectors.apply(operation)?;
        }
        if operation.change.is_deletion() {
            self.apply_to_keywords(operation)?;
        }
        Ok(())
    }

    /// Does an operation that may have been done before.
    pub(super) fn repeat(&self, operation: Operation) -> Result<(), SideError> {
        if operation.change.is_deletion() {
            return self.apply(&operation);
        }
        self.apply_to_keywords(&operation)?;
        if let Some(vectors) = &self.vectors {
            vectors.repeat(operation)?;
        }
        Ok(())
    }

    /// Whether words know chunks of these documents that the vectors have not, though they are kept here.
    pub(super) fn lacks_vectors(
        &self,
        documents: &BTreeMap<TenantId, BTreeSet<DocumentId>>,
    ) -> Result<bool, SideError> {
        let Some(vectors) = &self.vectors else {
            return Ok(false);
        };
        for (tenant_id, document_ids) in documents {
            let chunks = self.keywords().chunks_of(*tenant_id, document_ids)?;
            if vectors.lacks(*tenant_id, &chunks)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Brings everything applied so far to the disk. Searches go on meanwhile, [`Sides::optimise`] must not.
    pub(super) fn sync(&self) -> Result<(), SideError> {
        if let Some(vectors) = &self.vectors {
            vectors.sync();
        }
        self.sync_keywords(Spare::Little)
    }

    /// Brings the keyword side to the disk, whatever the other one does.
    pub(super) fn sync_keywords(&self, spare: Spare) -> Result<(), SideError> {
        self.write_fresh_keywords()?;
        self.merge_keywords(spare)?;
        let persisted = self.keywords().persist(spare)?;
        Ok(self.changing_keywords().persisted(persisted)?)
    }

    /// Has the next opening of the vectors find nothing of what was deleted in the engine's own log.
    pub(super) fn fill_engine_log(&self) -> Result<(), SideError> {
        if let Some(vectors) = &self.vectors {
            vectors.fill_log()?;
        }
        Ok(())
    }

    /// Whether anything was deleted or replaced since this was asked last. In the beginning: whether the words' files keep such.
    pub(super) fn take_has_deleted(&self) -> bool {
        self.has_deleted.swap(false, Ordering::Relaxed)
    }

    /// Merges what is due. A segment that turns out to be damaged stays as it is, and is for the next start to put right: whatever
    /// else is there goes on being written down and merged.
    fn merge_keywords(&self, spare: Spare) -> Result<(), SideError> {
        loop {
            let merged = self.keywords().write_merged(spare);
            let merged = match merged {
                Ok(Some(merged)) => merged,
                Ok(None) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    damage::note(&self.dir, &error.to_string());
                    let damaged = self.keywords().find_damaged(spare)?;
                    self.changing_keywords().leave_out(damaged);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let retired = self.changing_keywords().take_over(merged);
            drop(retired);
        }
    }

    /// Reads all words; what of them is not what was written, if anything is.
    pub(super) fn find_damage(&self) -> Result<Option<String>, SideError> {
        let blocks = self.keywords().blocks();
        for block in blocks {
            // Whoever writes has a turn between two of them.
            let checked = self.keywords().check(block);
            match checked {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Ok(Some(error.to_string()));
                }
                checked => checked?,
            }
        }
        Ok(None)
    }

    /// What the chunks that are not on the disk yet take in memory, about.
    pub(super) fn unsynced_bytes(&self) -> usize {
        self.keywords().fresh_bytes()
    }

    /// Builds graphs, merges segments and reclaims deleted space of the vectors where due. May take minutes.
    pub(super) fn optimise(&self, extent: Extent) -> Result<(), SideError> {
        if let Some(vectors) = &self.vectors {
            vectors.optimise(extent)?;
        }
        Ok(())
    }

    /// Vectors that no graph leads to.
    #[cfg(test)]
    pub(super) fn without_graph(&self) -> usize {
        self.vectors.as_ref().map_or(0, Engine::without_graph)
    }

    pub(super) fn count(&self, tenant_id: TenantId) -> u64 {
        self.keywords().count(tenant_id)
    }

    /// The tenant's points in the order of their chunk ids, those behind `after`, at most `limit`.
    pub(super) fn list(
        &self,
        tenant_id: TenantId,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<Vec<StoredPoint>, SideError> {
        let rows: Vec<(ChunkRow, Facets)> = {
            let keywords = self.keywords();
            let rows = keywords.list(tenant_id, after, limit)?.into_iter();
            rows.map(|row| (row, keywords.facets(tenant_id, row.document_id).clone()))
                .collect()
        };
        let facets_of = rows
            .iter()
            .map(|(row, facets)| (filter::point_id(tenant_id, row.chunk_id), facets))
            .collect();
        let with_vector = match &self.vectors {
            Some(vectors) => vectors.compare(tenant_id, &facets_of)?,
            None => HashMap::new(),
        };
        let listed = rows.iter().map(|(row, facets)| {
            let says_so = with_vector.get(&filter::point_id(tenant_id, row.chunk_id));
            let is_known = row.text_hash != UNKNOWN_TEXT && says_so != Some(&false);
            StoredPoint {
                chunk_id: row.chunk_id,
                document_id: row.document_id,
                source_id: row.source_id,
                fingerprint: match is_known {
                    true => fingerprint(row.text_hash, facets, says_so.is_some()),
                    false => UNEQUAL,
                },
            }
        });
        Ok(listed.collect())
    }

    /// The tenants with at least so many chunks.
    pub(super) fn tenants_from(&self, chunks: u64) -> Vec<TenantId> {
        self.keywords().tenants_from(chunks)
    }

    /// The tenant's chunks in the order of their ids, those behind `after`, at most `limit`.
    pub(super) fn chunk_ids(
        &self,
        tenant_id: TenantId,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<Vec<ChunkId>, SideError> {
        let rows = self.keywords().list(tenant_id, after, limit)?;
        Ok(rows.into_iter().map(|row| row.chunk_id).collect())
    }

    /// The tenant's words as they are now, to be written elsewhere while this shard goes on.
    pub(super) fn words_of(&self, tenant_id: TenantId) -> Result<TenantWords, SideError> {
        // Not merged: that is every tenant's, and takes long where much has gathered.
        self.write_fresh_keywords()?;
        Ok(self.keywords().words_of(tenant_id)?)
    }

    /// Stores the vectors of these chunks as `other` has them now.
    pub(super) fn copy_vectors(
        &self,
        other: &Self,
        tenant_id: TenantId,
        chunk_ids: &[ChunkId],
    ) -> Result<(), SideError> {
        if let (Some(vectors), Some(other)) = (&self.vectors, &other.vectors) {
            vectors.copy_from(other, tenant_id, chunk_ids)?;
        }
        Ok(())
    }

    /// Deletes vectors and leaves the words.
    pub(super) fn delete_vectors(&self, tenant_id: TenantId, chunk_ids: &[ChunkId]) -> Result<(), SideError> {
        if let Some(vectors) = &self.vectors {
            vectors.delete(tenant_id, chunk_ids)?;
        }
        Ok(())
    }

    /// How many chunks and how many vectors the tenant has.
    pub(super) fn counts(&self, tenant_id: TenantId) -> Result<(u64, usize), SideError> {
        let vectors = self.vectors.as_ref().map(|vectors| vectors.count(tenant_id));
        Ok((self.count(tenant_id), vectors.transpose()?.unwrap_or_default()))
    }

    /// What each side found, each chunk once.
    pub(super) fn search(&self, query: &PreparedQuery) -> Result<Candidates, SideError> {
        let PreparedQuery {
            filter,
            vector,
            terms,
            limit,
        } = query;
        let limit = *limit;
        let mut candidates: HashMap<ChunkId, Candidate> = HashMap::new();
        let (mut keyword_ceiling, mut names_rare_code) = (None, false);
        if !terms.hashes.is_empty() {
            let by_words = self.keywords().search(filter, terms, limit)?;
            keyword_ceiling = Some(by_words.ceiling);
            names_rare_code = by_words.names_rare_code;
            for found in by_words.hits {
                let candidate = Candidate {
                    chunk_id: found.chunk_id,
                    similarity: None,
                    keyword_score: Some(found.score),
                };
                candidates.insert(found.chunk_id, candidate);
            }
        }
        if let (Some(vector), Some(vectors)) = (vector, &self.vectors) {
            self.add_nearest(&mut candidates, vectors, filter, vector, limit)?;
        }
        Ok(Candidates {
            hits: candidates.into_values().collect(),
            keyword_ceiling,
            names_rare_code,
        })
    }

    /// Adds what is nearest to `vector`, and the similarity of what was found by words before.
    fn add_nearest(
        &self,
        candidates: &mut HashMap<ChunkId, Candidate>,
        vectors: &Engine,
        filter: &TenantFilter,
        vector: &[f32],
        limit: usize,
    ) -> Result<(), SideError> {
        let tenant_id = filter.tenant_id();
        let mut by_meaning_alone: Vec<Candidate> = Vec::new();
        for found in self.nearest(vectors, filter, vector, limit)? {
            let Some(chunk_id) = filter::chunk_id(tenant_id, found.point_id) else {
                continue;
            };
            match candidates.get_mut(&chunk_id) {
                Some(candidate) => candidate.similarity = Some(found.score),
                None => by_meaning_alone.push(Candidate {
                    chunk_id,
                    similarity: Some(found.score),
                    keyword_score: None,
                }),
            }
        }
        let by_words_alone: Vec<ChunkId> = candidates
            .values()
            .filter(|candidate| candidate.similarity.is_none())
            .map(|candidate| candidate.chunk_id)
            .collect();
        let point_id = |chunk_id: &ChunkId| filter::point_id(tenant_id, *chunk_id);
        let points: Vec<PointId> = by_words_alone.iter().map(point_id).collect();
        let stored = vectors.vectors(&points)?;
        for chunk_id in by_words_alone {
            if let Some(candidate) = candidates.get_mut(&chunk_id) {
                let vector_of = stored.get(&point_id(&chunk_id));
                candidate.similarity = vector_of.map(|stored| cosine(vector, stored));
            }
        }
        candidates.extend(by_meaning_alone.into_iter().map(|found| (found.chunk_id, found)));
        Ok(())
    }

    /// The points nearest to `vector` that pass `filter`. Of what all of the tenant's points pass, the engine is not asked: it
    /// would look that up at every point that it comes by.
    fn nearest(
        &self,
        vectors: &Engine,
        filter: &TenantFilter,
        vector: &[f32],
        limit: usize,
    ) -> Result<Vec<Found>, SideError> {
        let given = self.given(vectors, filter);
        let found = vectors.nearest(filter, given, vector.to_vec(), limit)?;
        // A point that passes less may have come meanwhile: the words knew of it before the engine did.
        if self.given(vectors, filter).confirms(given) {
            return Ok(found);
        }
        Ok(vectors.nearest(filter, Given::default(), vector.to_vec(), limit)?)
    }

    fn given(&self, vectors: &Engine, filter: &TenantFilter) -> Given {
        let (source, audience) = self.keywords().lets_through_all(filter);
        Given {
            tenant: vectors.is_own(),
            source,
            audience,
        }
    }

    fn apply_to_keywords(&self, operation: &Operation) -> Result<(), SideError> {
        let Change::Upsert(points) = &operation.change else {
            let is_gone = self.changing_keywords().apply(operation)?;
            self.note_deleted(is_gone);
            return Ok(());
        };
        for batch in points.chunks(CHANGED_AT_ONCE) {
            let is_replaced = self.changing_keywords().upsert(operation.tenant_id, batch)?;
            self.note_deleted(is_replaced);
        }
        Ok(())
    }

    fn note_deleted(&self, is_gone: bool) {
        self.has_deleted.fetch_or(is_gone, Ordering::Relaxed);
    }

    /// Moves the words in memory to a segment.
    fn write_fresh_keywords(&self) -> Result<(), SideError> {
        let written = self.keywords().write_fresh()?;
        if let Some(written) = written {
            let retired = self.changing_keywords().take_over(written);
            drop(retired);
        }
        Ok(())
    }

    fn keywords(&self) -> RwLockReadGuard<'_, Keywords> {
        self.keywords.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn changing_keywords(&self) -> RwLockWriteGuard<'_, Keywords> {
        self.keywords.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a shard in `shard_dir` has its words.
pub(super) fn keywords_dir(shard_dir: &Path) -> PathBuf {
    shard_dir.join(KEYWORDS_DIR)
}

pub(super) fn vectors_dir(shard_dir: &Path) -> PathBuf {
    shard_dir.join(VECTORS_DIR)
}
