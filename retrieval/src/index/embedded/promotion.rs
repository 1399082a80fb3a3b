//! Moves tenants that have outgrown the shared shards to shards of their own, one after the other, while they are searched
//! and written to. Qdrant's tiered multitenancy in small.
//!
//! The shared shard's writer, between two operations, writes the tenant's words into the new shard and has every further
//! operation done in both, there after here. So the shared shard is never behind the new one, and copying a page of
//! vectors as they are in the shared shard at that moment is right whatever came between. When all are copied and their
//! graphs are built, that writer switches, again between two operations: from then on the tenant's own shard is asked
//! and changed. Searches that had begun in the shared shard are made again in the new one. Then the shared shard is swept.
//!
//! A crash before the switch leaves the shared shard as the one that counts, and the move begins anew; a crash after it
//! leaves the sweeping to be done again.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::Inner;
use super::collection::{Collection, ShardName};
use super::operation::{Change, Operation};
use super::placement::Stage;
use super::shard::{Shard, closed};
use super::writer::Forward;
use crate::index::IndexError;
use crate::{ChunkId, TenantId};

/// Vectors copied before the new shard's writer turns to what waits for it, and deleted before the shared one's does.
const COPIED_AT_ONCE: usize = 2_000;
const SWEPT_AT_ONCE: usize = 500;

/// Pause between looks at whether graphs are built.
const BUILD_POLL: Duration = Duration::from_millis(50);

pub(super) enum Notice {
    /// The tenant has become too large for a shared shard, or a move of it was not finished.
    Outgrown(TenantId),
    Close,
}

/// Moves whoever is named, until the index is closed or gone. Moves that fail are tried again later.
pub(super) fn run(index: &Weak<Inner>, notices: &Receiver<Notice>) {
    let mut again: Vec<(Instant, TenantId)> = Vec::new();
    loop {
        let first = again.iter().min().copied();
        let notice = match first {
            None => notices.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some((at, _)) => notices.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        let tenant_id = match (notice, first) {
            (Ok(Notice::Outgrown(tenant_id)), _) | (Err(RecvTimeoutError::Timeout), Some((_, tenant_id))) => {
                tenant_id
            }
            _ => return,
        };
        again.retain(|(_, other)| *other != tenant_id);
        let Some(inner) = index.upgrade() else { return };
        match promote(&inner, tenant_id) {
            Ok(()) => {}
            Err(_) if inner.is_closing() => return,
            Err(error) => {
                tracing::error!(tenant.id = %tenant_id, %error, "tenant's move to an index shard of its own failed, tried again later");
                again.push((Instant::now() + inner.tuning.move_again_after, tenant_id));
            }
        }
    }
}

fn promote(inner: &Arc<Inner>, tenant_id: TenantId) -> Result<(), IndexError> {
    let collection = inner.collection()?;
    let Some(shared) = inner.shared_shard(tenant_id)? else {
        return Ok(());
    };
    let moved = match collection.stage(tenant_id) {
        Some(Stage::Settled) => return Ok(()),
        Some(Stage::Sweeping) => Ok(()),
        Some(Stage::Moving) | None => {
            if shared.count(tenant_id)? < shared.state().outgrown_from() {
                // It has shrunk since it was announced, and may grow again.
                return shared.on_writer(move |writer| {
                    writer.end_move(tenant_id);
                    writer.forget_announced(tenant_id);
                    Ok(())
                });
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
    let swept = moved.and_then(|()| sweep(inner, &collection, &shared, tenant_id));
    // Whatever came of it, the neighbours' segments are to be kept in order.
    let resumed = shared.on_writer(|writer| {
        writer.pause_builds(false);
        writer.optimise_now();
        Ok(())
    });
    swept.and(resumed)
}

struct Move {
    inner: Arc<Inner>,
    collection: Arc<Collection>,
    shared: Arc<Shard>,
    tenant_id: TenantId,
}

impl Move {
    fn run(&self) -> Result<(), IndexError> {
        let own = self.begin()?;
        let switched = self.fill(&own).and_then(|()| self.switch(&own));
        if switched.is_err() {
            self.abandon()?;
        }
        switched
    }

    /// Makes the new shard with the tenant's words; operations are done in both from then on.
    fn begin(&self) -> Result<Arc<Shard>, IndexError> {
        let (inner, collection, tenant_id) = (self.inner.clone(), self.collection.clone(), self.tenant_id);
        self.shared.on_writer(move |writer| {
            collection.set_stage(tenant_id, Some(Stage::Moving))?;
            writer.end_move(tenant_id);
            collection.remove_own(tenant_id)?;
            let dir = collection.shard_dir(ShardName::Own(tenant_id));
            writer.state().read(|sides| sides.copy_words(tenant_id, &dir))?;
            let own = inner.open_own(collection, tenant_id)?;
            writer.set_forward(tenant_id, Forward::Also(own.clone()));
            // Graphs of what is about to leave would be built in vain.
            writer.pause_builds(true);
            Ok(own)
        })
    }

    /// Takes back a move that did not come to the switch, or of whose switch it is not known whether the disk has it. As long
    /// as that is so, both shards go on being written to, and either may be the one that counts at the next start.
    fn abandon(&self) -> Result<(), IndexError> {
        self.collection.set_stage(self.tenant_id, Some(Stage::Moving))?;
        let tenant_id = self.tenant_id;
        let ended = self.shared.on_writer(move |writer| {
            writer.end_move(tenant_id);
            Ok(())
        });
        // Where that fails the shard is closed, and with it goes what was forwarded to.
        drop(ended);
        self.collection.remove_own(self.tenant_id)?;
        self.collection.set_stage(self.tenant_id, None)
    }

    /// Copies the vectors and has their graphs built.
    fn fill(&self, own: &Arc<Shard>) -> Result<(), IndexError> {
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
            writer.pause_builds(true);
            Ok(())
        })?;
        while own.state().is_building() {
            self.inner.go_on()?;
            thread::sleep(BUILD_POLL);
        }
        own.state().build(&self.inner.one_own_build)?;
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
    fn switch(&self, own: &Arc<Shard>) -> Result<(), IndexError> {
        let (inner, collection, tenant_id) = (self.inner.clone(), self.collection.clone(), self.tenant_id);
        let (own, own_again) = (own.clone(), own);
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
            writer.set_forward(tenant_id, Forward::Instead(own));
            Ok(())
        })?;
        let resumed = own_again.on_writer(|writer| {
            writer.pause_builds(false);
            Ok(())
        });
        // It is in service, whatever becomes of it now.
        drop(resumed);
        Ok(())
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
    fn go_on(&self) -> Result<(), IndexError> {
        if self.is_closing() { Err(closed()) } else { Ok(()) }
    }
}
