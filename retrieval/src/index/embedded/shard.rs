//! One shard: an engine that many read, one writer thread that changes it.

use std::collections::HashMap;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::thread::{self, JoinHandle};

use qdrant_edge::{OperationError, PointId};
use tokio::sync::oneshot;

use super::collection::Collection;
use super::engine::{Engine, Found, Layout};
use super::filter::{self, TenantFilter};
use super::log::RedoLog;
use super::operation::Operation;
use super::stored::cosine;
use super::tuning::Tuning;
use super::writer::{Command, Writer};
use crate::fuse::fuse;
use crate::index::keyword::SparseTerms;
use crate::index::{Hit, IndexError};
use crate::{ChunkId, TenantId};

/// Chunks taken from each ranking at least, so that one that is middling in both can still win.
const MIN_CANDIDATES: usize = 50;

const REDO_LOG_FILE: &str = "redo.log";
const ENGINE_DIR: &str = "engine";

/// A search after its text has been analysed.
pub(super) struct PreparedQuery {
    pub(super) filter: TenantFilter,
    pub(super) vector: Option<Vec<f32>>,
    pub(super) terms: SparseTerms,
    pub(super) limit: usize,
}

/// What readers, the writer and graph building share.
pub(super) struct ShardState {
    dir: PathBuf,
    layout: Layout,
    /// `None` while it is opened anew, or when that failed.
    engine: RwLock<Option<Engine>>,
    /// Held while graphs are built and while the engine is synced or opened anew: these must not overlap.
    maintenance: Mutex<()>,
    /// Whether a build waits for its turn already.
    build_claimed: AtomicBool,
    /// Its lock on the directory falls after the engine is gone: the last field is dropped last.
    _collection: Arc<Collection>,
}

pub(super) struct Shard {
    state: Arc<ShardState>,
    commands: Sender<Command>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Shard {
    /// Opens shard `number` of the collection, makes it where there is none, and repeats what its redo log holds.
    ///
    /// `one_build` is shared by all shards: graphs of one at a time are built.
    pub(super) fn open(
        collection: Arc<Collection>,
        number: usize,
        layout: Layout,
        one_build: Arc<Mutex<()>>,
    ) -> Result<Self, IndexError> {
        let dir = collection.shard_dir(number);
        std::fs::create_dir_all(&dir)
            .map_err(|error| unavailable("cannot make the shard's directory", error))?;
        let log = RedoLog::open(&dir.join(REDO_LOG_FILE))
            .map_err(|error| unavailable("cannot open the redo log", error))?;
        let state = Arc::new(ShardState {
            dir,
            layout,
            engine: RwLock::new(None),
            maintenance: Mutex::new(()),
            build_claimed: AtomicBool::new(false),
            _collection: collection,
        });
        let (commands, receiver) = mpsc::channel();
        let mut writer = Writer::new(state.clone(), log, receiver, one_build);
        writer.recover()?;
        let writer = thread::Builder::new()
            .name("index-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| unavailable("cannot start the writer", error))?;
        Ok(Self {
            state,
            commands,
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Hands an operation to the writer; the answer comes when it is durable and visible.
    pub(super) fn submit(&self, operation: Operation) -> oneshot::Receiver<Result<(), IndexError>> {
        let (reply, answer) = oneshot::channel();
        let payload = operation.encode();
        // Without a writer the command is dropped, and with it the sender that the caller waits for.
        drop(self.commands.send(Command::Write {
            operation,
            payload,
            reply,
        }));
        answer
    }

    pub(super) fn search(&self, query: PreparedQuery) -> Result<Vec<Hit>, IndexError> {
        self.state.read(|engine| search(engine, query))
    }

    pub(super) fn count(&self, tenant_id: TenantId) -> Result<u64, IndexError> {
        self.state
            .read(|engine| engine.count(&TenantFilter::all(tenant_id)))
    }

    /// Whether it could answer.
    pub(super) fn check(&self) -> Result<(), IndexError> {
        self.state.read(|_| Ok(()))
    }

    /// Finishes what was submitted, writes everything down and ends the writer.
    pub(super) fn close(&self) {
        drop(self.commands.send(Command::Close));
        let writer = lock(&self.writer).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!(shard = %self.state.dir.display(), "index writer ended in a panic");
        }
    }
}

impl ShardState {
    /// Makes or opens the engine; searches wait meanwhile.
    pub(super) fn open_engine(&self) -> Result<(), IndexError> {
        let mut slot = self.engine.write().unwrap_or_else(PoisonError::into_inner);
        let path = self.dir.join(ENGINE_DIR);
        let previous = slot.take();
        let opened = guarded(|| {
            drop(previous);
            match path.exists() {
                true => Engine::open(&path, self.layout),
                false => Engine::create(&path, self.layout),
            }
        });
        *slot = Some(opened.map_err(|reason| IndexError::Damaged {
            reason: format!("{}: {reason}", path.display()),
        })?);
        Ok(())
    }

    /// Writes the engine's files down and lets go of them.
    pub(super) fn close_engine(&self) -> Result<(), IndexError> {
        let engine = self.engine.write().unwrap_or_else(PoisonError::into_inner).take();
        guarded(|| {
            drop(engine);
            Ok(())
        })
        .map_err(|reason| IndexError::Unavailable { reason, source: None })
    }

    /// Runs `work` on the engine beside other readers. A panic inside the engine is an error like any other.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&Engine) -> Result<T, OperationError>,
    ) -> Result<T, IndexError> {
        let slot = self.engine.read().unwrap_or_else(PoisonError::into_inner);
        let Some(engine) = slot.as_ref() else {
            return Err(closed());
        };
        guarded(|| work(engine)).map_err(|reason| IndexError::Unavailable { reason, source: None })
    }

    pub(super) fn is_open(&self) -> bool {
        self.engine
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }

    /// Keeps graph building away for as long as the guard lives; `None` while it runs.
    pub(super) fn try_maintenance(&self) -> Option<MutexGuard<'_, ()>> {
        match self.maintenance.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(super) fn maintenance(&self) -> MutexGuard<'_, ()> {
        lock(&self.maintenance)
    }

    /// True for the one who may start a build; nobody else until it is released.
    pub(super) fn claim_build(&self) -> bool {
        !self.build_claimed.swap(true, Ordering::AcqRel)
    }

    pub(super) fn release_build(&self) {
        self.build_claimed.store(false, Ordering::Release);
    }

    pub(super) fn tuning(&self) -> &Tuning {
        &self.layout.tuning
    }

    pub(super) fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    pub(super) fn engine_dir(&self) -> PathBuf {
        self.dir.join(ENGINE_DIR)
    }
}

/// Both rankings, fused, with what belongs to each hit.
fn search(engine: &Engine, query: PreparedQuery) -> Result<Vec<Hit>, OperationError> {
    let PreparedQuery {
        filter,
        vector,
        terms,
        limit,
    } = query;
    let candidates = limit.max(MIN_CANDIDATES);
    let mut rankings = Vec::with_capacity(2);
    let mut similarity_of: HashMap<ChunkId, f32> = HashMap::new();
    let mut keyword_score_of: HashMap<ChunkId, f32> = HashMap::new();
    if let Some(vector) = &vector {
        let found = engine.nearest(&filter, vector.clone(), candidates)?;
        rankings.push(rank(&filter, found, &mut similarity_of));
    }
    if !terms.is_empty() {
        let found = engine.with_terms(&filter, terms, candidates)?;
        rankings.push(rank(&filter, found, &mut keyword_score_of));
    }

    let tenant_id = filter.tenant_id();
    let fused = fuse(&rankings, limit);
    let (compared, not_compared): (Vec<ChunkId>, Vec<ChunkId>) = fused
        .iter()
        .map(|(chunk_id, _)| *chunk_id)
        .partition(|chunk_id| similarity_of.contains_key(chunk_id));
    let to_points = |chunks: Vec<ChunkId>| -> Vec<PointId> {
        chunks
            .into_iter()
            .map(|chunk_id| filter::point_id(tenant_id, chunk_id))
            .collect()
    };
    let mut stored = engine.read(tenant_id, &to_points(compared), false)?;
    stored.extend(engine.read(tenant_id, &to_points(not_compared), vector.is_some())?);

    let hits = fused.into_iter().filter_map(|(chunk_id, score)| {
        let stored = stored.get(&filter::point_id(tenant_id, chunk_id))?;
        let computed = || Some(cosine(vector.as_deref()?, stored.vector.as_deref()?));
        Some(Hit {
            chunk_id,
            document_id: stored.document_id,
            score,
            similarity: similarity_of.get(&chunk_id).copied().or_else(computed),
            keyword_score: keyword_score_of.get(&chunk_id).copied(),
        })
    });
    Ok(hits.collect())
}

/// Chunk ids best first, equal scores by id, and the score of each in `score_of`.
fn rank(filter: &TenantFilter, found: Vec<Found>, score_of: &mut HashMap<ChunkId, f32>) -> Vec<ChunkId> {
    let mut scored: Vec<(ChunkId, f32)> = found
        .into_iter()
        .filter_map(|point| Some((filter::chunk_id(filter.tenant_id(), point.point_id)?, point.score)))
        .collect();
    scored.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    score_of.extend(scored.iter().copied());
    scored.into_iter().map(|(chunk_id, _)| chunk_id).collect()
}

/// Runs the engine, which panics on some faults of the disk, and gives the reason either way.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, OperationError>) -> Result<T, String> {
    match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => Err(match panic.downcast_ref::<String>() {
            Some(message) => message.clone(),
            None => (*panic.downcast_ref::<&str>().unwrap_or(&"the engine panicked")).to_owned(),
        }),
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn closed() -> IndexError {
    IndexError::Unavailable {
        reason: "the index is closed".to_owned(),
        source: None,
    }
}

pub(super) fn unavailable(what: &str, error: std::io::Error) -> IndexError {
    IndexError::Unavailable {
        reason: what.to_owned(),
        source: Some(error.into()),
    }
}
