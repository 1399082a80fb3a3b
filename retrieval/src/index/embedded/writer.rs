//! The one thread that changes a shard: logs, applies, answers, and keeps the files small.
//!
//! Operations that wait together are written with one sync, so many small writers cost no more syncs than one big one.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::log::RedoLog;
use super::operation::Operation;
use super::shard::{ShardState, lock, unavailable};
use super::sides::Sides;
use crate::index::IndexError;

/// Operations written with one sync, in bytes: bounds how long the first of them waits for the others.
const GROUP_BYTES: usize = 4 << 20;

/// Quiet time after which the shard is synced and the redo log emptied, so that a restart has nothing to repeat.
const CHECKPOINT_IDLE: Duration = Duration::from_secs(2);

/// Pause between looks at whether a build has ended, when closing.
const BUILD_POLL: Duration = Duration::from_millis(20);

pub(super) enum Command {
    Write {
        operation: Operation,
        payload: Vec<u8>,
        reply: Reply,
    },
    Close,
}

type Reply = oneshot::Sender<Result<(), IndexError>>;

pub(super) struct Writer {
    state: Arc<ShardState>,
    log: RedoLog,
    commands: Receiver<Command>,
    one_build: Arc<Mutex<()>>,
    points_since_optimise: usize,
}

impl Writer {
    pub(super) fn new(
        state: Arc<ShardState>,
        log: RedoLog,
        commands: Receiver<Command>,
        one_build: Arc<Mutex<()>>,
    ) -> Self {
        Self {
            state,
            log,
            commands,
            one_build,
            points_since_optimise: 0,
        }
    }

    /// Opens the sides and repeats what they may have lost.
    pub(super) fn recover(&mut self) -> Result<(), IndexError> {
        self.state.open_sides()?;
        if self.log.is_empty() {
            return Ok(());
        }
        let state = &self.state;
        let (mut repeated, mut points) = (0_usize, 0_usize);
        let replayed = self.log.replay(|operation| {
            repeated += 1;
            points += operation.points();
            state
                .read(|sides| sides.repeat(operation))
                .map_err(std::io::Error::other)
        });
        replayed.map_err(|error| {
            // Half recovered is not recovered: nothing may be read from it.
            drop(self.state.close_sides());
            IndexError::Damaged {
                reason: format!(
                    "{}: the redo log cannot be repeated: {error}",
                    state.dir().display()
                ),
            }
        })?;
        tracing::info!(shard = %self.state.dir().display(), operations = repeated, "index shard recovered from its redo log");
        self.points_since_optimise += points;
        self.checkpoint(self.state.tuning().engine_log_bytes_busy);
        Ok(())
    }

    /// Works until closed or until nobody is left to command.
    pub(super) fn run(mut self) {
        let mut next = None;
        loop {
            let command = match next.take() {
                Some(command) => command,
                None if self.log.is_empty() => match self.commands.recv() {
                    Ok(command) => command,
                    Err(_) => break,
                },
                None => match self.commands.recv_timeout(CHECKPOINT_IDLE) {
                    Ok(command) => command,
                    Err(RecvTimeoutError::Timeout) => {
                        self.checkpoint(self.state.tuning().engine_log_bytes_idle);
                        continue;
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                },
            };
            match command {
                Command::Close => break,
                Command::Write {
                    operation,
                    payload,
                    reply,
                } => {
                    next = self.gather_and_commit(operation, payload, reply);
                    if self.is_checkpoint_due() {
                        self.checkpoint(self.state.tuning().engine_log_bytes_busy);
                    }
                    self.optimise_when_due();
                }
            }
        }
        self.finish();
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
                }) => {
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
            self.recover()
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
            if let Err(error) = self.state.read(|sides| sides.apply(&operation)) {
                self.give_up(applied_end, &error);
                let rest = group.map(|(command, _)| command);
                return refuse(
                    std::iter::once((operation, reply)).chain(rest),
                    &error.to_string(),
                );
            }
            applied_end = end;
            self.points_since_optimise += operation.points();
            // The caller may have gone; what was asked is done all the same.
            drop(reply.send(Ok(())));
        }
    }

    /// After a failed operation: it must not come back, and the sides, half changed, are opened anew before the next one.
    fn give_up(&mut self, applied_end: u64, error: &IndexError) {
        tracing::error!(shard = %self.state.dir().display(), %error, "index operation failed, the shard is opened anew");
        if let Err(error) = self.log.cut(applied_end) {
            tracing::error!(%error, "redo log keeps an operation that was refused");
        }
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
    /// is kept in bounds.
    fn checkpoint(&mut self, engine_log_limit: u64) {
        let Some(_no_builds) = self.state.try_maintenance() else {
            if self.is_memory_full()
                && let Err(error) = self.state.read(Sides::sync_keywords)
            {
                tracing::error!(shard = %self.state.dir().display(), %error, "index shard cannot be synced");
            }
            return;
        };
        if let Err(error) = self.state.read(Sides::sync) {
            tracing::error!(shard = %self.state.dir().display(), %error, "index shard cannot be synced");
            return;
        }
        if let Err(error) = self.log.cut(0) {
            tracing::warn!(%error, "redo log cannot be emptied and will be repeated at the next start");
        }
        if engine_log_bytes(&self.state.engine_dir()) > engine_log_limit
            && let Err(error) = self.state.open_sides()
        {
            tracing::error!(shard = %self.state.dir().display(), %error, "index shard cannot be opened anew");
        }
    }

    fn optimise_when_due(&mut self) {
        let is_due = self.state.has_vectors()
            && self.points_since_optimise >= self.state.tuning().optimise_after_points;
        if !is_due || !self.state.claim_build() {
            return;
        }
        self.points_since_optimise = 0;
        let (state, one_build) = (self.state.clone(), self.one_build.clone());
        let started = thread::Builder::new().name("index-build".to_owned()).spawn(move || {
            let _one_build = lock(&one_build);
            let _no_checkpoint = state.maintenance();
            state.release_build();
            if let Err(error) = state.read(Sides::optimise) {
                tracing::error!(shard = %state.dir().display(), %error, "index shard cannot be optimised");
            }
        });
        if let Err(error) = started {
            self.state.release_build();
            tracing::warn!(%error, "no thread to optimise the index, tried again later");
        }
    }

    /// Leaves everything on the disk. While graphs are built that is the redo log; the next start repeats it.
    fn finish(mut self) {
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
        match synced.and_then(|()| self.state.close_sides()) {
            Ok(()) => drop(self.log.cut(0)),
            Err(error) => {
                tracing::error!(shard = %self.state.dir().display(), %error, "index shard closed with an error");
            }
        }
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
