//! The one thread that changes a shard: logs, applies, answers, and keeps the files small.
//!
//! Operations that wait together are written with one sync, so many small writers cost no more syncs than one big one.

mod remains;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::setpriority_process;
use tokio::sync::oneshot;

use self::remains::Remains;
use super::damage::Broken;
use super::forward::Forwards;
use super::keywords::Spare;
use super::layout::Extent;
use super::log::RedoLog;
use super::lost::Loss;
use super::operation::{Change, Operation};
use super::promotion::Notice;
use super::shard::{BUILD_POLL, ShardState, closed, unavailable};
use super::sides::Sides;
use crate::index::IndexError;
use crate::{DocumentId, TenantId};

/// Operations written with one sync, in bytes: bounds how long the first of them waits for the others.
const GROUP_BYTES: usize = 4 << 20;

/// Quiet time after which the shard is synced and the redo log emptied, so that a restart has nothing to repeat.
const CHECKPOINT_IDLE: Duration = Duration::from_secs(2);

/// As the engine gives its own threads.
const BUILD_NICENESS: i32 = 10;

pub(super) enum Command {
    Write {
        operation: Operation,
        payload: Vec<u8>,
        reply: Reply,
    },
    /// Done in its turn, between operations.
    Task(Box<dyn FnOnce(&mut Writer) + Send>),
    Close,
}

pub(super) type Reply = oneshot::Sender<Result<(), IndexError>>;

pub(super) struct Writer {
    state: Arc<ShardState>,
    log: RedoLog,
    commands: Receiver<Command>,
    one_build: Arc<Mutex<()>>,
    points_since_optimise: usize,
    /// Whether the last build left something for the next quiet moment.
    left_something: bool,
    /// Whether no further build is to be started.
    builds_paused: bool,
    remains: Remains,
    forwards: Forwards,
    /// Whose own shard it is.
    owner: Option<TenantId>,
    /// Hears of tenants that have become too large for a shared shard, or have nothing left in their own.
    notices: Option<Sender<Notice>>,
    announced: HashSet<TenantId>,
}

impl Writer {
    pub(super) fn new(
        state: Arc<ShardState>,
        log: RedoLog,
        commands: Receiver<Command>,
        one_build: Arc<Mutex<()>>,
        owner: Option<TenantId>,
        notices: Option<Sender<Notice>>,
    ) -> Self {
        // What the last run left undone is asked for once, whatever changes now.
        let points_since_optimise = state.tuning().optimise_after_points;
        Self {
            remains: Remains::open(state.dir()),
            state,
            log,
            commands,
            one_build,
            points_since_optimise,
            left_something: false,
            builds_paused: false,
            forwards: Forwards::default(),
            owner,
            notices,
            announced: HashSet::new(),
        }
    }

    pub(super) fn state(&self) -> &Arc<ShardState> {
        &self.state
    }

    /// Opens the sides and repeats what they may have lost.
    pub(super) fn recover(&mut self) -> Result<(), Broken> {
        self.state.open_sides()?;
        if self.log.is_empty() {
            return Ok(());
        }
        let state = &self.state;
        let (mut repeated, mut points) = (0_usize, 0_usize);
        let mut told: BTreeMap<TenantId, BTreeSet<DocumentId>> = BTreeMap::new();
        let replayed = self.log.replay(|operation| {
            repeated += 1;
            points += operation.points();
            if let Change::SetFacets(documents) = &operation.change {
                let ids = documents.iter().map(|(document_id, _)| *document_id);
                told.entry(operation.tenant_id).or_default().extend(ids);
            }
            state
                .read(|sides| sides.repeat(operation))
                .map_err(std::io::Error::other)
        });
        replayed.map_err(|error| {
            // Half recovered is not recovered: nothing may be read from it.
            drop(self.state.close_sides());
            Broken {
                dir: state.dir().to_owned(),
                part: Loss::Words,
                reason: format!("the redo log cannot be repeated: {error}"),
            }
        })?;
        tracing::info!(shard = %self.state.dir().display(), operations = repeated, "index shard recovered from its redo log");
        self.points_since_optimise += points;
        if let Err(broken) = self.note_lost_vectors(told) {
            // The log tells of the loss: it must not be emptied.
            drop(self.state.close_sides());
            return Err(broken);
        }
        self.checkpoint(self.state.tuning().engine_log_bytes_busy);
        Ok(())
    }

    /// Notes where vectors are lost of documents of which something else was said. The engine writes such points anew in another file,
    /// and may build a graph of the others and remove the old file before the new one is written down; of what was said, the log has
    /// no vectors. At the service's next start they are put in again.
    fn note_lost_vectors(&self, mut told: BTreeMap<TenantId, BTreeSet<DocumentId>>) -> Result<(), Broken> {
        // Of who has moved away the vectors are deleted before the words.
        told.retain(|tenant_id, _| !self.state.has_left(*tenant_id));
        let broken = |reason: String| Broken {
            dir: self.state.dir().to_owned(),
            part: Loss::Vectors,
            reason,
        };
        let lacks = self.state.read(|sides| sides.lacks_vectors(&told));
        if lacks.map_err(|error| broken(error.to_string()))? {
            tracing::warn!(shard = %self.state.dir().display(), "a death cost vectors: they are put in again from the rows, at the next start where this is none");
            let noted = self.state.note_lost();
            noted.map_err(|error| broken(format!("what was lost cannot be noted: {error}")))?;
        }
        Ok(())
    }

    /// Works until closed or until nobody is left to command.
    pub(super) fn run(mut self) {
        let mut next = None;
        if self.owner.is_none() {
            let largest = self.state.outgrown_from();
            let outgrown = self.state.read(|sides| Ok(sides.tenants_from(largest)));
            for tenant_id in outgrown.unwrap_or_default() {
                self.announce(tenant_id);
            }
        }
        // Earlier releases noted nothing of what they deleted.
        self.note_remains();
        self.optimise_when_due();
        loop {
            let command = match (next.take(), self.patience()) {
                (Some(command), _) => command,
                (None, None) => match self.commands.recv() {
                    Ok(command) => command,
                    Err(_) => break,
                },
                (None, Some(patience)) => match self.commands.recv_timeout(patience) {
                    Ok(command) => command,
                    Err(RecvTimeoutError::Timeout) => {
                        if !self.log.is_empty() {
                            self.checkpoint(self.state.tuning().engine_log_bytes_idle);
                        }
                        self.look_at_remains(self.state.tuning().deleted_kept_idle);
                        // What came during a build, and nothing after it.
                        self.optimise_when_due();
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                },
            };
            match command {
                Command::Close => break,
                Command::Task(task) => task(&mut self),
                Command::Write { operation, reply, .. } if self.forwards.are_instead(operation.tenant_id) => {
                    self.forwards.pass_on(operation, reply);
                }
                Command::Write {
                    operation,
                    payload,
                    reply,
                } => {
                    next = self.gather_and_commit(operation, payload, reply);
                    if self.is_to_wait() {
                        self.state.await_builds();
                    }
                    if self.is_checkpoint_due() {
                        self.checkpoint(self.state.tuning().engine_log_bytes_busy);
                    }
                    self.optimise_while_writing();
                }
            }
            self.look_at_remains(self.state.tuning().deleted_kept_busy);
        }
        // A move that was not taken back ends here.
        self.forwards.end_all();
        self.finish();
    }

    /// How long to wait for a command before there is something else to do; `None`: there is nothing.
    fn patience(&self) -> Option<Duration> {
        if !self.log.is_empty() || self.left_something || self.remains.are_being_removed() {
            return Some(CHECKPOINT_IDLE);
        }
        let due_in = self.remains.due_in(self.state.tuning().deleted_kept_idle)?;
        Some(due_in.max(CHECKPOINT_IDLE))
    }

    /// Whether what is written makes a build longer than it may become, or keeps out one that is due.
    fn is_to_wait(&self) -> bool {
        let tuning = self.state.tuning();
        self.log.len() >= tuning.log_most_bytes
            || self.remains.keep_coming(tuning.deleting_beside)
            || self.remains_come_first(tuning.deleting_beside)
    }

    /// Writes this operation and those that wait behind it; returns the first command that is none.
    fn gather_and_commit(&mut self, operation: Operation, payload: Vec<u8>, reply: Reply) -> Option<Command> {
        let mut bytes = payload.len();
        let mut payloads = vec![payload];
        let mut group = vec![(operation, reply)];
        let mut next = None;
        while bytes < GROUP_BYTES {
            match self.commands.try_recv() {
                Ok(Command::Write {
                    operation,
                    payload,
                    reply,
                }) if !self.forwards.are_instead(operation.tenant_id) => {
                    bytes += payload.len();
                    payloads.push(payload);
                    group.push((operation, reply));
                }
                Ok(command) => {
                    next = Some(command);
                    break;
                }
                Err(_) => break,
            }
        }
        self.commit(&payloads, group);
        next
    }

    /// Whether the redo log is long, or what is in memory large.
    fn is_checkpoint_due(&self) -> bool {
        self.log.len() >= self.state.tuning().checkpoint_bytes || self.is_memory_full()
    }

    fn is_memory_full(&self) -> bool {
        let unsynced = self.state.read(|sides| Ok(sides.unsynced_bytes()));
        unsynced.is_ok_and(|bytes| bytes >= self.state.tuning().fresh_bytes)
    }

    fn commit(&mut self, payloads: &[Vec<u8>], group: Vec<(Operation, Reply)>) {
        let before = self.log.len();
        let opened = if self.state.is_open() {
            Ok(())
        } else {
            self.recover().map_err(IndexError::from)
        };
        let logged = opened.and_then(|()| {
            self.log
                .append(payloads)
                .map_err(|error| unavailable("cannot write the redo log", error))
        });
        let ends = match logged {
            Ok(ends) => ends,
            Err(error) => {
                tracing::error!(shard = %self.state.dir().display(), %error, "index cannot be written");
                return refuse(group.into_iter(), &error.to_string());
            }
        };
        let mut applied_end = before;
        let mut group = group.into_iter().zip(ends);
        while let Some(((operation, reply), end)) = group.next() {
            // After a failure there may be more than the log tells.
            let done = match self.state.was_reopened() {
                true => self.state.read(|sides| sides.repeat(operation.clone())),
                false => self.state.read(|sides| sides.apply(&operation)),
            };
            if let Err(error) = done {
                self.give_up(applied_end, &error);
                let rest = group.map(|(command, _)| command);
                return refuse(
                    std::iter::once((operation, reply)).chain(rest),
                    &error.to_string(),
                );
            }
            applied_end = end;
            self.points_since_optimise += operation.points();
            // Where no graphs are built, points that are new make no work for who removes others.
            if self.owner.is_some() || !matches!(operation.change, Change::Upsert(_)) {
                self.remains.disturb();
            }
            self.look_at_size(&operation);
            self.forwards.pass_on(operation, reply);
        }
    }

    /// What an operation that was done means for the size of the tenant and of the shard.
    fn look_at_size(&mut self, operation: &Operation) {
        match operation.change {
            Change::Upsert(_) => return self.announce_if_outgrown(operation.tenant_id),
            Change::SetFacets(_) => return,
            // It may have been most of what is here.
            Change::DeleteTenant => self.points_since_optimise = self.state.tuning().optimise_after_points,
            Change::DeleteChunks(_) | Change::DeleteDocuments(_) | Change::DeleteSources(_) => {}
        }
        let count = |tenant_id| self.state.read(|sides| Ok(sides.count(tenant_id)));
        if let (Some(owner), Some(notices)) = (self.owner, &self.notices)
            && count(owner).is_ok_and(|count| count == 0)
        {
            drop(notices.send(Notice::Emptied(owner)));
        }
    }

    /// Does an operation here, whatever shard its tenant has by now.
    pub(super) fn do_here(&mut self, operation: Operation) -> Result<(), IndexError> {
        let (reply, mut answer) = oneshot::channel();
        let forward = self.forwards.take(operation.tenant_id);
        self.commit(&[operation.encode()], vec![(operation, reply)]);
        self.forwards.put_back(forward);
        if self.is_checkpoint_due() {
            self.checkpoint(self.state.tuning().engine_log_bytes_busy);
        }
        self.optimise_while_writing();
        answer.try_recv().unwrap_or_else(|_| Err(closed()))
    }

    /// Announces the tenant once more when it has become too large, or still is, at its next upsert.
    pub(super) fn forget_announced(&mut self, tenant_id: TenantId) {
        self.announced.remove(&tenant_id);
    }

    /// Where else operations go.
    pub(super) fn forwards(&mut self) -> &mut Forwards {
        &mut self.forwards
    }

    /// Notes points that came beside the redo log: both sides are synced and the engine's log emptied, unless graphs are
    /// being built, and graphs are built where that is due.
    pub(super) fn note_copied(&mut self, points: usize) {
        self.points_since_optimise += points;
        self.checkpoint(self.state.tuning().engine_log_bytes_busy);
        self.optimise_while_writing();
    }

    /// Starts no further builds until told otherwise; one that runs goes on.
    pub(super) fn pause_builds(&mut self) {
        self.builds_paused = true;
    }

    /// Starts builds again: what came meanwhile is built when much came, or at the next quiet moment.
    pub(super) fn resume_builds(&mut self) {
        self.builds_paused = false;
        self.left_something = self.state.has_vectors();
        self.optimise_while_writing();
    }

    #[cfg(test)]
    pub(super) fn builds_are_paused(&self) -> bool {
        self.builds_paused
    }

    /// Brings everything to the disk. Builds must have been paused and come to their end.
    pub(super) fn sync(&self) -> Result<(), IndexError> {
        let _no_builds = self.state.maintenance();
        self.state.read(Sides::sync)
    }

    fn announce_if_outgrown(&mut self, tenant_id: TenantId) {
        if self.owner.is_some() || self.announced.contains(&tenant_id) {
            return;
        }
        let largest = self.state.outgrown_from();
        let count = self.state.read(|sides| Ok(sides.count(tenant_id)));
        if count.is_ok_and(|count| count >= largest) {
            self.announce(tenant_id);
        }
    }

    fn announce(&mut self, tenant_id: TenantId) {
        if let Some(notices) = &self.notices
            && self.announced.insert(tenant_id)
        {
            // Nobody hears it while the index is being closed.
            drop(notices.send(Notice::Outgrown(tenant_id)));
        }
    }

    /// After a failed operation: it must not come back, and the sides, half changed, are opened anew before the next one.
    fn give_up(&mut self, applied_end: u64, error: &IndexError) {
        tracing::error!(shard = %self.state.dir().display(), %error, "index operation failed, the shard is opened anew");
        if let Err(error) = self.log.cut(applied_end) {
            tracing::error!(%error, "redo log keeps an operation that was refused");
        }
        self.state.note_reopened();
        self.note_remains();
        {
            let _no_builds = self.state.maintenance();
            if let Err(error) = self.state.close_sides() {
                tracing::error!(%error, "index shard closed with an error");
            }
        }
        if let Err(error) = self.recover() {
            tracing::error!(%error, "index shard stays closed, tried again with the next operation");
        }
    }

    /// Syncs both sides and empties the redo log, unless graphs are being built: then it is done later, and memory alone
    /// is kept in bounds. Whether that was done, and the engine's log is no longer than its limit.
    fn checkpoint(&mut self, engine_log_limit: u64) -> bool {
        // Before the redo log, which tells of deletions, is emptied.
        let are_remains_noted = self.note_remains();
        let Some(_no_builds) = self.state.try_maintenance() else {
            if self.is_memory_full()
                && let Err(error) = self.state.read(|sides| sides.sync_keywords(Spare::Little))
            {
                tracing::error!(shard = %self.state.dir().display(), %error, "index shard cannot be synced");
            }
            return false;
        };
        if let Err(error) = self.state.read(Sides::sync) {
            tracing::error!(shard = %self.state.dir().display(), %error, "index shard cannot be synced");
            return false;
        }
        if are_remains_noted && let Err(error) = self.log.cut(0) {
            tracing::warn!(%error, "redo log cannot be emptied and will be repeated at the next start");
        }
        if engine_log_bytes(&self.state.engine_dir()) > engine_log_limit
            && let Err(error) = self.state.open_sides()
        {
            tracing::error!(shard = %self.state.dir().display(), %error, "index shard cannot be opened anew");
            return false;
        }
        true
    }

    /// Builds all that is due, if enough changed.
    fn optimise_when_due(&mut self) {
        if self.left_something || self.points_since_optimise >= self.state.tuning().optimise_after_points {
            self.start_build(Extent::Whole);
        }
    }

    /// As [`Writer::optimise_when_due`], where the next change may come at any moment. A large tenant's graphs wait until much
    /// came together: built whenever a little did, they would be built again and again, which takes longer than the writing.
    fn optimise_while_writing(&mut self) {
        let Some(owner) = self.owner else {
            return self.optimise_when_due();
        };
        let chunks = self.state.read(|sides| Ok(sides.count(owner)));
        let extent = self.state.extent_while_writing(chunks.unwrap_or_default());
        if matches!(extent, Extent::Large { points } if self.points_since_optimise >= points) {
            self.start_build(extent);
        }
    }

    /// Starts a build, where none waits for its turn already; what it gives says whether that succeeded. Deleted points that have
    /// to be removed come first.
    fn start_build(&mut self, extent: Extent) -> Option<Receiver<bool>> {
        let is_last = self.remains.are_being_removed() || self.remains_come_first(Duration::ZERO);
        if !self.state.has_vectors() || self.builds_paused || (is_last && extent != Extent::Clean) {
            return None;
        }
        if !self.state.claim_build() {
            return None;
        }
        if extent != Extent::Clean {
            self.points_since_optimise = 0;
            self.left_something = extent != Extent::Whole;
        }
        let (state, one_build) = (self.state.clone(), self.one_build.clone());
        let (done, ended) = mpsc::channel();
        let started = thread::Builder::new().name("index-build".to_owned()).spawn(move || {
            give_way();
            let built = state.build(&one_build, extent);
            if let Err(error) = &built {
                tracing::error!(shard = %state.dir().display(), %error, "index shard cannot be optimised");
            }
            // Few want to know.
            done.send(built.is_ok()).ok();
        });
        if let Err(error) = started {
            self.state.release_build();
            self.left_something = true;
            tracing::warn!(%error, "no thread to optimise the index, tried again later");
            return None;
        }
        Some(ended)
    }

    /// Leaves everything on the disk. While graphs are built that is the redo log; the next start repeats it.
    fn finish(mut self) {
        self.note_remains();
        let give_up_at = Instant::now() + self.state.tuning().close_grace;
        let _no_builds = loop {
            if let Some(guard) = self.state.try_maintenance() {
                break guard;
            }
            if Instant::now() < give_up_at {
                thread::sleep(BUILD_POLL);
                continue;
            }
            tracing::info!(shard = %self.state.dir().display(), "index closed during a graph build, which starts again next time");
            return;
        };
        let synced = match self.state.is_open() {
            true => self.state.read(Sides::sync),
            // What it holds is in the redo log.
            false => return,
        };
        // Closed whatever came of it: what is not on the disk is in the redo log.
        let closed = self.state.close_sides();
        match synced.and(closed) {
            Ok(()) => drop(self.log.cut(0)),
            Err(error) => {
                tracing::error!(shard = %self.state.dir().display(), %error, "index shard closed with an error");
            }
        }
    }
}

/// Lets whoever asks or writes go before this thread and those that it starts.
fn give_way() {
    if let Err(error) = setpriority_process(None, BUILD_NICENESS) {
        tracing::debug!(%error, "a build of graphs has the priority of all others");
    }
}

fn refuse(group: impl Iterator<Item = (Operation, Reply)>, reason: &str) {
    for (_, reply) in group {
        let error = IndexError::Unavailable {
            reason: reason.to_owned(),
            source: None,
        };
        drop(reply.send(Err(error)));
    }
}

/// Size of the engine's own log files.
fn engine_log_bytes(engine_dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(engine_dir.join("wal")) else {
        return 0;
    };
    entries
        .flatten()
        .filter_map(|entry| Some(entry.metadata().ok()?.len()))
        .sum()
}
