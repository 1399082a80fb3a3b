//! One shard: two sides that many read, one writer thread that changes them.

use std::fmt::Display;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;

use super::collection::{Collection, ShardName};
use super::damage::{self, Broken, Unopened};
use super::layout::{Extent, Layout};
use super::log::RedoLog;
use super::lost::Loss;
use super::operation::Operation;
use super::placement::Stage;
use super::promotion::Notice;
use super::sides::{PreparedQuery, SideError, Sides, vectors_dir};
use super::tuning::Tuning;
use super::writer::{Command, Reply, Writer};
use crate::index::{Candidates, IndexError, StoredPoint};
use crate::{ChunkId, TenantId};

pub(super) const REDO_LOG_FILE: &str = "redo.log";

/// Pause between looks at whether a build has ended.
pub(super) const BUILD_POLL: Duration = Duration::from_millis(20);

/// What readers, the writer and graph building share.
pub(super) struct ShardState {
    dir: PathBuf,
    tuning: Tuning,
    /// `None` when chunks are found by words alone.
    layout: Option<Layout>,
    /// `None` while they are opened anew, or when that failed.
    sides: RwLock<Option<Sides>>,
    /// Held while graphs are built and while the sides are synced or opened anew: these must not overlap.
    maintenance: Mutex<()>,
    /// Whether a build waits for its turn already.
    build_claimed: AtomicBool,
    /// Whether an operation failed, so that the sides were opened anew.
    was_reopened: AtomicBool,
    is_closing: AtomicBool,
    name: ShardName,
    /// Its lock on the directory falls after the sides are gone: the last field is dropped last.
    collection: Arc<Collection>,
}

pub(super) struct Shard {
    state: Arc<ShardState>,
    commands: Sender<Command>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Shard {
    /// Opens a shard of the collection, makes it where there is none, and repeats what its redo log holds.
    ///
    /// `one_build` is shared by several shards: graphs of one at a time are built. `notices` hears of tenants that have become
    /// too large for a shared shard, or have nothing left in their own.
    pub(super) fn open(
        collection: Arc<Collection>,
        name: ShardName,
        tuning: Tuning,
        one_build: Arc<Mutex<()>>,
        notices: Option<Sender<Notice>>,
    ) -> Result<Self, Unopened> {
        let owner = match name {
            ShardName::Own(tenant_id) => Some(tenant_id),
            ShardName::Shared(_) => None,
        };
        let dir = collection.shard_dir(name);
        std::fs::create_dir_all(&dir)
            .map_err(|error| unavailable("cannot make the shard's directory", error))?;
        if let Some(broken) = damage::noted(&dir) {
            return Err(broken.into());
        }
        let log = RedoLog::open(&dir.join(REDO_LOG_FILE), || collection.note_damaged_log(name));
        let log = log.map_err(|error| Broken {
            dir: dir.clone(),
            part: Loss::RedoLog,
            reason: format!("the redo log: {error}"),
        })?;
        let state = Arc::new(ShardState {
            dir,
            tuning,
            layout: collection.dimension().map(|dimension| Layout {
                dimension,
                tuning,
                is_own: owner.is_some(),
            }),
            sides: RwLock::new(None),
            maintenance: Mutex::new(()),
            build_claimed: AtomicBool::new(false),
            was_reopened: AtomicBool::new(false),
            is_closing: AtomicBool::new(false),
            name,
            collection,
        });
        let (commands, receiver) = mpsc::channel();
        let mut writer = Writer::new(state.clone(), log, receiver, one_build, owner, notices);
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
        self.submit_for(operation, reply);
        answer
    }

    /// As [`Shard::submit`], answering somebody else.
    pub(super) fn submit_for(&self, operation: Operation, reply: Reply) {
        let payload = operation.encode();
        // Without a writer the command is dropped, and with it the sender that the caller waits for.
        drop(self.commands.send(Command::Write {
            operation,
            payload,
            reply,
        }));
    }

    /// Has the writer do `task` in its turn, and waits for it.
    pub(super) fn on_writer<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut Writer) -> Result<T, IndexError> + Send + 'static,
    ) -> Result<T, IndexError> {
        let (reply, answer) = mpsc::channel();
        let task = move |writer: &mut Writer| drop(reply.send(task(writer)));
        drop(self.commands.send(Command::Task(Box::new(task))));
        answer.recv().map_err(|_| closed())?
    }

    pub(super) fn state(&self) -> &Arc<ShardState> {
        &self.state
    }

    pub(super) fn search(&self, query: &PreparedQuery) -> Result<Candidates, IndexError> {
        self.state.read(|sides| sides.search(query))
    }

    pub(super) fn count(&self, tenant_id: TenantId) -> Result<u64, IndexError> {
        self.state.read(|sides| Ok(sides.count(tenant_id)))
    }

    pub(super) fn list(
        &self,
        tenant_id: TenantId,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<Vec<StoredPoint>, IndexError> {
        self.state.read(|sides| sides.list(tenant_id, after, limit))
    }

    /// Whether it could answer.
    pub(super) fn check(&self) -> Result<(), IndexError> {
        self.state.read(|_| Ok(()))
    }

    /// Whether the next start puts it aside.
    pub(super) fn is_damaged(&self) -> bool {
        damage::noted(self.state.dir()).is_some()
    }

    /// Reads all that it keeps checksums of; the damage that was found, named with its folder. With `notes`, the next start puts
    /// it right.
    pub(super) fn find_damage(&self, notes: bool) -> Result<Option<String>, IndexError> {
        let dir = self.state.dir();
        let damage = self.state.read(Sides::find_damage)?;
        if let (Some(reason), true) = (&damage, notes) {
            damage::note(dir, reason);
        }
        Ok(damage.map(|reason| format!("{}: {reason}", dir.display())))
    }

    /// Ends the writer once nobody has the shard any more: what was submitted until then is done.
    pub(super) fn retire(self: Arc<Self>) {
        self.state.is_closing.store(true, Ordering::Release);
        let writer = lock(&self.writer).take();
        drop(self);
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("index writer ended in a panic");
        }
    }

    /// Finishes what was submitted, writes everything down and ends the writer.
    pub(super) fn close(&self) {
        self.state.is_closing.store(true, Ordering::Release);
        drop(self.commands.send(Command::Close));
        let writer = lock(&self.writer).take();
        if writer.is_some_and(|writer| writer.join().is_err()) {
            tracing::error!(shard = %self.state.dir.display(), "index writer ended in a panic");
        }
    }
}

impl ShardState {
    /// Notes that something of the shard is lost, and is to be put in again.
    pub(super) fn note_lost(&self) -> std::io::Result<()> {
        self.collection.note_lost(self.name)
    }

    /// Whether this is a shared shard that the tenant has left for its own.
    pub(super) fn has_left(&self, tenant_id: TenantId) -> bool {
        let stage = self.collection.stage(tenant_id);
        matches!(self.name, ShardName::Shared(_)) && matches!(stage, Some(Stage::Sweeping | Stage::Settled))
    }

    /// Opens the sides and makes those that are not there; searches wait meanwhile.
    pub(super) fn open_sides(&self) -> Result<(), Broken> {
        let mut slot = self.sides.write().unwrap_or_else(PoisonError::into_inner);
        let previous = slot.take();
        let closed = guarded::<_, SideError>(|| {
            drop(previous);
            Ok(())
        });
        closed.map_err(|reason| Broken {
            dir: self.dir.clone(),
            part: Loss::Vectors,
            reason,
        })?;
        *slot = Some(Sides::open(&self.dir, self.layout)?);
        Ok(())
    }

    /// Lets go of the files. What was applied since the last sync stays in the redo log.
    pub(super) fn close_sides(&self) -> Result<(), IndexError> {
        let sides = self.sides.write().unwrap_or_else(PoisonError::into_inner).take();
        guarded::<_, SideError>(|| {
            drop(sides);
            Ok(())
        })
        .map_err(|reason| IndexError::Unavailable { reason, source: None })
    }

    /// Runs `work` on the sides beside other readers. A panic inside the engine is an error like any other.
    pub(super) fn read<T>(&self, work: impl FnOnce(&Sides) -> Result<T, SideError>) -> Result<T, IndexError> {
        let slot = self.sides.read().unwrap_or_else(PoisonError::into_inner);
        let Some(sides) = slot.as_ref() else {
            return Err(closed());
        };
        guarded(|| work(sides)).map_err(|reason| IndexError::Unavailable { reason, source: None })
    }

    /// As [`ShardState::read`], with another shard's sides at hand.
    pub(super) fn read_beside<T>(
        &self,
        other: &Self,
        work: impl FnOnce(&Sides, &Sides) -> Result<T, SideError>,
    ) -> Result<T, IndexError> {
        let others = other.sides.read().unwrap_or_else(PoisonError::into_inner);
        let others = others.as_ref().ok_or_else(closed)?;
        self.read(|sides| work(sides, others))
    }

    pub(super) fn has_vectors(&self) -> bool {
        self.layout.is_some()
    }

    pub(super) fn is_open(&self) -> bool {
        self.sides
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

    /// Waits until no graphs are built, or the shard is to be closed.
    pub(super) fn await_builds(&self) {
        while self.try_maintenance().is_none() && !self.is_closing.load(Ordering::Acquire) {
            thread::sleep(BUILD_POLL);
        }
    }

    pub(super) fn maintenance(&self) -> MutexGuard<'_, ()> {
        lock(&self.maintenance)
    }

    /// True for the one who may start a build; nobody else until it is released.
    pub(super) fn claim_build(&self) -> bool {
        !self.build_claimed.swap(true, Ordering::AcqRel)
    }

    /// Builds what is due, once no other shard builds; the claim is given back as soon as it begins.
    pub(super) fn build(&self, one_build: &Mutex<()>, extent: Extent) -> Result<(), IndexError> {
        let _one_build = lock(one_build);
        let _no_checkpoint = self.maintenance();
        self.release_build();
        self.read(|sides| sides.optimise(extent))
    }

    pub(super) fn release_build(&self) {
        self.build_claimed.store(false, Ordering::Release);
    }

    /// Whether a build waits for its turn.
    pub(super) fn is_to_build(&self) -> bool {
        self.build_claimed.load(Ordering::Acquire)
    }

    /// Whether a build runs or waits for its turn.
    pub(super) fn is_building(&self) -> bool {
        self.is_to_build() || self.try_maintenance().is_none()
    }

    pub(super) fn note_reopened(&self) {
        self.was_reopened.store(true, Ordering::Release);
    }

    /// Whether what was put into the sides beside the redo log may be lost.
    pub(super) fn was_reopened(&self) -> bool {
        self.was_reopened.load(Ordering::Acquire)
    }

    /// What a build does while the owner of so many chunks writes on.
    pub(super) fn extent_while_writing(&self, chunks: u64) -> Extent {
        let while_writing = |layout: Layout| layout.extent_while_writing(chunks);
        self.layout.map_or(Extent::Whole, while_writing)
    }

    /// Chunks from which on a tenant of this shard gets one of its own.
    pub(super) fn outgrown_from(&self) -> u64 {
        match self.layout {
            Some(layout) => layout.outgrown_from(),
            None => self.tuning.own_shard_from_chunks,
        }
    }

    pub(super) fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    pub(super) fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    pub(super) fn engine_dir(&self) -> PathBuf {
        vectors_dir(&self.dir)
    }
}

impl Drop for ShardState {
    fn drop(&mut self) {
        // Whoever has it last: the engine writes when it goes, and fails by panicking.
        if let Err(error) = self.close_sides() {
            tracing::error!(shard = %self.dir.display(), %error, "index shard closed with an error");
        }
    }
}

/// Runs the engine, which panics on some faults of the disk, and gives the reason either way.
pub(super) fn guarded<T, E: Display>(work: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(without_backtrace(message.unwrap_or("the engine panicked")).to_owned())
        }
    }
}

/// Errors of the engine's carry where they came about, and its panics print that.
fn without_backtrace(message: &str) -> &str {
    message.split(", backtrace: ").next().unwrap_or(message)
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

#[cfg(test)]
mod tests {
    use qdrant_edge::OperationError;

    use super::*;

    #[test]
    fn what_the_engine_says_in_a_panic_is_told_without_where_it_came_about() {
        let flush = || -> Result<(), OperationError> {
            Err(OperationError::service_error("No space left on device"))
        };

        let reason = guarded(|| -> Result<(), String> {
            flush().expect("segments flushed");
            Ok(())
        });

        let reason = reason.expect_err("it panics");
        assert!(reason.contains("No space left on device"), "{reason}");
        assert!(!reason.contains("backtrace"), "{reason}");
    }
}
