//! Moves tenants that have outgrown the shared shards to shards of their own, one after the other, while they are searched
//! and written to. Qdrant's tiered multitenancy in small.
//!
//! The shared shard's writer, between two operations, takes down where the tenant's words lie and keeps every operation from
//! then on, while the words are written into the new shard beside it. The new shard is given what was kept, and has every
//! further operation done after the shared one. So the shared shard is never behind the new one, and copying a page of
//! vectors as they are in the shared shard at that moment is right whatever came between. When all are copied and their
//! graphs are built, that writer switches, again between two operations: from then on the tenant's own shard is asked
//! and changed. Searches that had begun in the shared shard are made again in the new one. Then the shared shard is swept.
//!
//! A crash before the switch leaves the shared shard as the one that counts, and the move begins anew; a crash after it
//! leaves the sweeping to be done again.

use std::collections::HashSet;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Instant;

use super::collection::{Collection, ShardName};
use super::keywords::TenantWords;
use super::layout::Extent;
use super::operation::{Change, Operation};
use super::placement::Stage;
use super::shard::{BUILD_POLL, Shard, closed, unavailable};
use super::sides::keywords_dir;
use super::{Inner, damage, emptied, room};
use crate::index::IndexError;
use crate::{ChunkId, TenantId};

/// Vectors copied before the new shard's writer turns to what waits for it, and deleted before the shared one's does.
const COPIED_AT_ONCE: usize = 2_000;
const SWEPT_AT_ONCE: usize = 500;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    /// The tenant has become too large for a shared shard, or a move of it was not finished.
    Outgrown(TenantId),
    /// The tenant has nothing left in its own shard.
    Emptied(TenantId),
    Close,
}

/// What came of a notice.
pub(super) enum Outcome {
    Done,
    /// It cannot be done at present, and this is why.
    NotNow(String),
}

/// Moves whoever is named, until the index is closed or gone. What fails, or cannot be done now, is tried again later.
pub(super) fn run(index: &Weak<Inner>, notices: &Receiver<Notice>) {
    let mut again: Vec<(Instant, Notice)> = Vec::new();
    let mut told: HashSet<TenantId> = HashSet::new();
    loop {
        let first = again.iter().min_by_key(|(at, _)| *at).cloned();
        let received = match &first {
            None => notices.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some((at, _)) => notices.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        let notice = match (received, first) {
            (Ok(notice), _) | (Err(RecvTimeoutError::Timeout), Some((_, notice))) => notice,
            _ => return,
        };
        again.retain(|(_, other)| *other != notice);
        let Some(inner) = index.upgrade() else { return };
        let (tenant_id, came_to) = match notice {
            Notice::Outgrown(tenant_id) => (tenant_id, promote(&inner, tenant_id)),
            Notice::Emptied(tenant_id) => (tenant_id, emptied::retire(&inner, tenant_id)),
            Notice::Close => return,
        };
        match came_to {
            Ok(Outcome::Done) => {
                told.remove(&tenant_id);
                continue;
            }
            Err(_) if inner.is_closing() => return,
            Ok(Outcome::NotNow(reason)) if told.contains(&tenant_id) => {
                tracing::debug!(tenant.id = %tenant_id, %reason, "tenant still stays in its shared index shard");
            }
            Ok(Outcome::NotNow(reason)) => {
                told.insert(tenant_id);
                tracing::warn!(tenant.id = %tenant_id, %reason, "tenant stays in its shared index shard, looked at again later");
            }
            Err(error) => {
                tracing::error!(tenant.id = %tenant_id, %error, "tenant's move to or from an index shard of its own failed, tried again later");
            }
        }
        again.push((Instant::now() + inner.tuning.move_again_after, notice));
    }
}

fn promote(inner: &Arc<Inner>, tenant_id: TenantId) -> Result<Outcome, IndexError> {
    let collection = inner.collection()?;
    let Some(shared) = inner.shared_shard(tenant_id)? else {
        return Ok(Outcome::Done);
    };
    let moved = match collection.stage(tenant_id) {
        Some(Stage::Settled) => return Ok(Outcome::Done),
        Some(Stage::Sweeping) => Ok(()),
        Some(Stage::Moving) | None => {
            let chunks = shared.count(tenant_id)?;
            if chunks < shared.state().outgrown_from() {
                // It has shrunk since it was announced, and may grow again.
                shared.on_writer(move |writer| {
                    writer.forwards().end(tenant_id);
                    writer.forget_announced(tenant_id);
                    Ok(())
                })?;
                if collection.stage(tenant_id).is_some() {
                    collection.remove_own(tenant_id)?;
                    collection.set_stage(tenant_id, None)?;
                }
                return Ok(Outcome::Done);
            }
            if let Some(reason) = room::lacking(&collection, shared.state(), tenant_id, chunks)? {
                return Ok(Outcome::NotNow(reason));
            }
            let copy = Move {
                inner: inner.clone(),
                collection: collection.clone(),
                shared: shared.clone(),
                tenant_id,
            };
            copy.run()
        }
    };
    finish(inner, &collection, &shared, tenant_id, moved)?;
    // It may have been deleted on the way.
    emptied::retire(inner, tenant_id)
}

/// Sweeps the shared shard after a move that came to the switch. Whatever came of it, graphs are built again in both shards.
pub(super) fn finish(
    inner: &Inner,
    collection: &Collection,
    shared: &Shard,
    tenant_id: TenantId,
    moved: Result<(), IndexError>,
) -> Result<(), IndexError> {
    let swept = moved.and_then(|()| sweep(inner, collection, shared, tenant_id));
    if let Some(own) = inner.own_shard(tenant_id) {
        // It is in service, whatever becomes of its graphs now.
        drop(own.on_writer(|writer| {
            writer.resume_builds();
            Ok(())
        }));
    }
    swept.and(shared.on_writer(|writer| {
        writer.resume_builds();
        Ok(())
    }))
}

pub(super) struct Move {
    pub(super) inner: Arc<Inner>,
    pub(super) collection: Arc<Collection>,
    pub(super) shared: Arc<Shard>,
    pub(super) tenant_id: TenantId,
}

impl Move {
    pub(super) fn run(&self) -> Result<(), IndexError> {
        let made = self.take_down().and_then(|words| self.make(&words));
        let switched = made.and_then(|own| self.fill(&own).and_then(|()| self.switch(&own)));
        if switched.is_err() {
            self.abandon()?;
        }
        switched
    }

    /// Takes down where the tenant's words lie. Its operations are kept from then on.
    pub(super) fn take_down(&self) -> Result<TenantWords, IndexError> {
        let (collection, tenant_id) = (self.collection.clone(), self.tenant_id);
        self.shared.on_writer(move |writer| {
            collection.set_stage(tenant_id, Some(Stage::Moving))?;
            writer.forwards().end(tenant_id);
            let words = writer.state().read(|sides| sides.words_of(tenant_id))?;
            writer.forwards().keep(tenant_id);
            // Graphs of what is about to leave would be built in vain.
            writer.pause_builds();
            Ok(words)
        })
    }

    /// Makes the new shard with these words, while the shared one goes on, and gives it what was kept; operations are done in
    /// both from then on.
    pub(super) fn make(&self, words: &TenantWords) -> Result<Arc<Shard>, IndexError> {
        let tenant_id = self.tenant_id;
        self.collection.remove_own(tenant_id)?;
        let dir = self.collection.shard_dir(ShardName::Own(tenant_id));
        words.write(&keywords_dir(&dir)).map_err(|error| {
            if error.kind() == io::ErrorKind::InvalidData {
                damage::note(self.shared.state().dir(), &error.to_string());
            }
            unavailable("cannot write a tenant's words", error)
        })?;
        let own = self.inner.open_own(self.collection.clone(), tenant_id)?;
        let handed_to = own.clone();
        let handed_over = self.shared.on_writer(move |writer| {
            let is_handed_over = writer.forwards().hand_over(tenant_id, handed_to);
            is_handed_over
                .then_some(())
                .ok_or_else(|| IndexError::Unavailable {
                    reason: "too much was written while the tenant's words were copied".to_owned(),
                    source: None,
                })
        });
        if let Err(error) = handed_over {
            own.close();
            return Err(error);
        }
        Ok(own)
    }

    /// Takes back a move that did not come to the switch, or of whose switch it is not known whether the disk has it. As long
    /// as that is so, both shards go on being written to, and either may be the one that counts at the next start.
    fn abandon(&self) -> Result<(), IndexError> {
        self.collection.set_stage(self.tenant_id, Some(Stage::Moving))?;
        let tenant_id = self.tenant_id;
        let ended = self.shared.on_writer(move |writer| {
            writer.forwards().end(tenant_id);
            Ok(())
        });
        // Where that fails the shard is closed, and with it goes what was forwarded to.
        drop(ended);
        self.collection.remove_own(self.tenant_id)?;
        self.collection.set_stage(self.tenant_id, None)
    }

    /// Copies the vectors and has their graphs built.
    pub(super) fn fill(&self, own: &Arc<Shard>) -> Result<(), IndexError> {
        let mut after = None;
        while let Some(page) = self.next_page(own, after)? {
            after = page.last().copied();
            let (shared, tenant_id) = (self.shared.clone(), self.tenant_id);
            own.on_writer(move |writer| {
                let copied = writer.state().read_beside(shared.state(), |own, shared| {
                    own.copy_vectors(shared, tenant_id, &page)
                });
                writer.note_copied(page.len());
                copied
            })?;
        }
        // The graphs of what was copied last are built here, as builds that writing starts would follow one another.
        own.on_writer(|writer| {
            writer.pause_builds();
            Ok(())
        })?;
        while own.state().is_building() {
            self.inner.go_on()?;
            thread::sleep(BUILD_POLL);
        }
        own.state().build(&self.inner.one_own_build, Extent::Whole)?;
        own.on_writer(|writer| writer.sync())
    }

    fn next_page(&self, own: &Shard, after: Option<ChunkId>) -> Result<Option<Vec<ChunkId>>, IndexError> {
        self.inner.go_on()?;
        let page = own
            .state()
            .read(|sides| sides.chunk_ids(self.tenant_id, after, COPIED_AT_ONCE))?;
        Ok((!page.is_empty()).then_some(page))
    }

    /// Makes the new shard the one that counts.
    pub(super) fn switch(&self, own: &Arc<Shard>) -> Result<(), IndexError> {
        let (inner, collection, tenant_id) = (self.inner.clone(), self.collection.clone(), self.tenant_id);
        let own = own.clone();
        self.shared.on_writer(move |writer| {
            // What has been done here has been done there when this returns.
            own.on_writer(|_| Ok(()))?;
            let here = writer.state().read(|sides| sides.counts(tenant_id))?;
            let there = own.state().read(|sides| sides.counts(tenant_id))?;
            if own.state().was_reopened() || here != there {
                return Err(IndexError::Unavailable {
                    reason: format!("{there:?} of {here:?} chunks and vectors were copied"),
                    source: None,
                });
            }
            collection.set_stage(tenant_id, Some(Stage::Sweeping))?;
            inner.take_into_service(tenant_id, own.clone());
            writer.forwards().send_instead(tenant_id, own);
            Ok(())
        })
    }
}

/// Deletes what the tenant had in the shared shard.
fn sweep(
    inner: &Inner,
    collection: &Collection,
    shared: &Shard,
    tenant_id: TenantId,
) -> Result<(), IndexError> {
    let all = shared
        .state()
        .read(|sides| sides.chunk_ids(tenant_id, None, usize::MAX))?;
    for page in all.chunks(SWEPT_AT_ONCE) {
        inner.go_on()?;
        let page = page.to_vec();
        shared.on_writer(move |writer| {
            writer
                .state()
                .read(|sides| sides.delete_vectors(tenant_id, &page))
        })?;
    }
    shared.on_writer(move |writer| {
        writer.do_here(Operation {
            tenant_id,
            change: Change::DeleteTenant,
        })
    })?;
    collection.set_stage(tenant_id, Some(Stage::Settled))?;
    tracing::info!(tenant.id = %tenant_id, "tenant has an index shard of its own");
    Ok(())
}

impl Inner {
    /// An error once the index is being closed.
    pub(super) fn go_on(&self) -> Result<(), IndexError> {
        if self.is_closing() { Err(closed()) } else { Ok(()) }
    }
}
