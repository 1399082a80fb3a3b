//! The two sides of a shard: words, always, and vectors, where there is an embedding model. Every point is on the keyword
//! side, so that it counts the points; those with a vector are on the other one, too.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use qdrant_edge::{OperationError, PointId};

use super::engine::{self, Engine, Layout};
use super::filter::{self, TenantFilter};
use super::keywords::Keywords;
use super::migrate;
use super::operation::{Change, Operation};
use super::stored::cosine;
use crate::fuse::fuse;
use crate::index::Hit;
use crate::{ChunkId, DocumentId, TenantId};

/// Chunks taken from each ranking at least, so that one that is middling in both can still win.
const MIN_CANDIDATES: usize = 50;

/// Points that the keyword side takes in while searches wait: about a millisecond's.
const CHANGED_AT_ONCE: usize = 64;

const KEYWORDS_DIR: &str = "keywords";
const VECTORS_DIR: &str = "vectors";

/// A search after its text has been analysed.
pub(super) struct PreparedQuery {
    pub(super) filter: TenantFilter,
    pub(super) vector: Option<Vec<f32>>,
    pub(super) terms: Vec<u32>,
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
    keywords: RwLock<Keywords>,
    /// `None` in a shard that finds by words alone.
    vectors: Option<Engine>,
}

impl Sides {
    /// Opens the sides in `dir` and makes those that are not there. Takes over what an earlier version left there.
    pub(super) fn open(dir: &Path, layout: Option<Layout>) -> Result<Self, SideError> {
        let (keywords_dir, vectors_dir) = (dir.join(KEYWORDS_DIR), vectors_dir(dir));
        migrate::take_over_earlier_version(dir, &keywords_dir, &vectors_dir, layout)?;
        let vectors = match layout {
            Some(layout) if vectors_dir.exists() => Some(Engine::open(&vectors_dir, layout)?),
            Some(layout) => Some(Engine::create(&vectors_dir, layout)?),
            None => None,
        };
        Ok(Self {
            keywords: RwLock::new(Keywords::open(&keywords_dir)?),
            vectors,
        })
    }

    /// Does one operation. Doing it again changes nothing.
    pub(super) fn apply(&self, operation: &Operation) -> Result<(), SideError> {
        if let Some(vectors) = &self.vectors {
            vectors.apply(operation)?;
        }
        self.apply_to_keywords(operation)
    }

    /// Does an operation that may have been done before.
    pub(super) fn repeat(&self, operation: Operation) -> Result<(), SideError> {
        self.apply_to_keywords(&operation)?;
        if let Some(vectors) = &self.vectors {
            vectors.repeat(operation)?;
        }
        Ok(())
    }

    /// Brings everything applied so far to the disk. Searches go on meanwhile, [`Sides::optimise`] must not.
    pub(super) fn sync(&self) -> Result<(), SideError> {
        if let Some(vectors) = &self.vectors {
            vectors.sync();
        }
        self.sync_keywords()
    }

    /// Brings the keyword side to the disk, whatever the other one does.
    pub(super) fn sync_keywords(&self) -> Result<(), SideError> {
        let written = self.keywords().write_fresh()?;
        if let Some(written) = written {
            let retired = self.changing_keywords().take_over(written);
            drop(retired);
        }
        loop {
            let merged = self.keywords().write_merged()?;
            let Some(merged) = merged else { break };
            let retired = self.changing_keywords().take_over(merged);
            drop(retired);
        }
        let persisted = self.keywords().persist()?;
        Ok(self.changing_keywords().persisted(persisted)?)
    }

    /// What the chunks that are not on the disk yet take in memory, about.
    pub(super) fn unsynced_bytes(&self) -> usize {
        self.keywords().fresh_bytes()
    }

    /// Builds graphs, merges segments and reclaims deleted space of the vectors where due. May take minutes.
    pub(super) fn optimise(&self) -> Result<(), SideError> {
        if let Some(vectors) = &self.vectors {
            vectors.optimise()?;
        }
        Ok(())
    }

    pub(super) fn count(&self, tenant_id: TenantId) -> u64 {
        self.keywords().count(tenant_id)
    }

    /// Both rankings, fused, with what belongs to each hit.
    pub(super) fn search(&self, query: PreparedQuery) -> Result<Vec<Hit>, SideError> {
        let PreparedQuery {
            filter,
            vector,
            terms,
            limit,
        } = query;
        let candidates = limit.max(MIN_CANDIDATES);
        let mut rankings = Vec::with_capacity(2);
        let mut similarity_of: HashMap<ChunkId, f32> = HashMap::new();
        let mut by_words: HashMap<ChunkId, (DocumentId, f32)> = HashMap::new();
        if let (Some(vector), Some(vectors)) = (&vector, &self.vectors) {
            let found = vectors.nearest(&filter, vector.clone(), candidates)?;
            let found = found.into_iter().filter_map(|point| {
                let chunk_id = filter::chunk_id(filter.tenant_id(), point.point_id)?;
                Some((chunk_id, point.score))
            });
            rankings.push(rank(found.collect(), &mut similarity_of));
        }
        if !terms.is_empty() {
            let found = self.keywords().search(&filter, &terms, candidates)?;
            by_words.extend(
                found
                    .iter()
                    .map(|hit| (hit.chunk_id, (hit.document_id, hit.score))),
            );
            let scored = found.iter().map(|hit| (hit.chunk_id, hit.score)).collect();
            rankings.push(rank(scored, &mut HashMap::new()));
        }
        let fused = fuse(&rankings, limit);
        let stored = self.read_vectors(&filter, &fused, vector.is_some(), &similarity_of, &by_words)?;
        let hits = fused.into_iter().filter_map(|(chunk_id, score)| {
            let point_id = filter::point_id(filter.tenant_id(), chunk_id);
            let found_by_words = by_words.get(&chunk_id);
            let stored = stored.get(&point_id);
            let computed = || Some(cosine(vector.as_deref()?, stored?.vector.as_deref()?));
            Some(Hit {
                chunk_id,
                document_id: found_by_words
                    .map(|(document_id, _)| *document_id)
                    .or_else(|| Some(stored?.document_id))?,
                score,
                similarity: similarity_of.get(&chunk_id).copied().or_else(computed),
                keyword_score: found_by_words.map(|(_, score)| *score),
            })
        });
        Ok(hits.collect())
    }

    /// What the vector side knows and the rankings did not say: the documents of hits found by meaning alone, the
    /// vectors of those found by words alone.
    fn read_vectors(
        &self,
        filter: &TenantFilter,
        fused: &[(ChunkId, f32)],
        is_compared: bool,
        similarity_of: &HashMap<ChunkId, f32>,
        by_words: &HashMap<ChunkId, (DocumentId, f32)>,
    ) -> Result<HashMap<PointId, engine::Stored>, SideError> {
        let Some(vectors) = &self.vectors else {
            return Ok(HashMap::new());
        };
        let tenant_id = filter.tenant_id();
        let points = |is_wanted: &dyn Fn(&ChunkId) -> bool| -> Vec<PointId> {
            let wanted = fused.iter().filter(|(chunk_id, _)| is_wanted(chunk_id));
            wanted
                .map(|(chunk_id, _)| filter::point_id(tenant_id, *chunk_id))
                .collect()
        };
        let mut stored = vectors.read(tenant_id, &points(&|id| !by_words.contains_key(id)), false)?;
        if is_compared {
            stored.extend(vectors.read(tenant_id, &points(&|id| !similarity_of.contains_key(id)), true)?);
        }
        Ok(stored)
    }

    fn apply_to_keywords(&self, operation: &Operation) -> Result<(), SideError> {
        let Change::Upsert(points) = &operation.change else {
            return Ok(self.changing_keywords().apply(operation)?);
        };
        for batch in points.chunks(CHANGED_AT_ONCE) {
            self.changing_keywords().upsert(operation.tenant_id, batch)?;
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

pub(super) fn vectors_dir(shard_dir: &Path) -> PathBuf {
    shard_dir.join(VECTORS_DIR)
}

/// Chunk ids best first, equal scores by id, and the score of each in `score_of`.
fn rank(mut scored: Vec<(ChunkId, f32)>, score_of: &mut HashMap<ChunkId, f32>) -> Vec<ChunkId> {
    scored.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    score_of.extend(scored.iter().copied());
    scored.into_iter().map(|(chunk_id, _)| chunk_id).collect()
}
