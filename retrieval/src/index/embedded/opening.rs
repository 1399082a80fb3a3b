//! Opens the shards that lie in the directory, closes them, and sets right what a crash in the middle of a move left there.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::collection::{Collection, ShardName};
use super::damage::Unopened;
use super::placement::Stage;
use super::promotion::Notice;
use super::shard::{Shard, lock};
use super::{DEFAULT_SHARDS, Inner};
use crate::TenantId;
use crate::index::IndexError;

impl Inner {
    /// Opens the shards that there are, the shared ones first.
    pub(super) fn open_present(&self) -> Result<(), IndexError> {
        let collection = self.collection()?;
        let is_present = |shard: &usize| collection.shard_dir(ShardName::Shared(*shard)).exists();
        let shared: Vec<usize> = (0..collection.shards()).filter(is_present).collect();
        open_all(&shared, |shard| self.open_shard(*shard).map(drop))?;
        open_all(&collection.stages(), |(tenant_id, stage)| {
            self.open_moved(&collection, *tenant_id, *stage)
        })
    }

    /// Opens a shard. What of it is damaged is put aside and made anew, unless this process only looks.
    pub(super) fn open_whole(
        &self,
        collection: &Arc<Collection>,
        name: ShardName,
        one_build: &Arc<Mutex<()>>,
    ) -> Result<Arc<Shard>, IndexError> {
        let mut put_aside = Vec::new();
        loop {
            let notices = lock(&self.notices).clone();
            match Shard::open(collection.clone(), name, self.tuning, one_build.clone(), notices) {
                Ok(shard) => return Ok(Arc::new(shard)),
                Err(Unopened::Broken(broken)) if !put_aside.contains(&broken.part) => {
                    put_aside.push(broken.part);
                    collection.put_aside(name, broken)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Opens the shard of a tenant who has moved. An unfinished one is removed, one whose words are gone or were put aside, which
    /// counts as such ([`Collection::open`]), and an empty one: it holds nothing more.
    fn open_moved(
        &self,
        collection: &Arc<Collection>,
        tenant_id: TenantId,
        stage: Stage,
    ) -> Result<(), IndexError> {
        match stage {
            Stage::Moving => {}
            Stage::Sweeping | Stage::Settled => {
                let own = self.open_whole(collection, ShardName::Own(tenant_id), &self.one_own_build)?;
                let was_put_aside = collection.stage(tenant_id) != Some(stage);
                if !was_put_aside && (stage == Stage::Sweeping || own.count(tenant_id)? > 0) {
                    self.take_into_service(tenant_id, own);
                    if let (Stage::Sweeping, Some(notices)) = (stage, &*lock(&self.notices)) {
                        drop(notices.send(Notice::Outgrown(tenant_id)));
                    }
                    return Ok(());
                }
                own.close();
            }
        }
        // While it is being removed, what is left of it counts for nothing.
        collection.set_stage(tenant_id, Some(Stage::Moving))?;
        collection.remove_own(tenant_id)?;
        collection.set_stage(tenant_id, None)
    }

    /// Closes all of them, and lets go of the directory.
    pub(super) fn close_shards(&self) {
        let collection = lock(&self.collection).take();
        let shared = self.shards.iter().filter_map(|slot| lock(slot).take());
        shared.for_each(|shard| shard.close());
        let own_shards =
            std::mem::take(&mut *self.own_shards.write().unwrap_or_else(PoisonError::into_inner));
        own_shards.into_values().for_each(|shard| shard.close());
        // Only now may another process have the directory.
        drop(collection);
    }

    /// All shards.
    pub(super) fn open_shards(&self) -> Vec<Arc<Shard>> {
        let shared = self.shards.iter().filter_map(|slot| lock(slot).clone());
        let own_shards = self.own_shards.read().unwrap_or_else(PoisonError::into_inner);
        shared.chain(own_shards.values().cloned()).collect()
    }
}

/// Opens shards side by side, as many at once as there are cores.
fn open_all<T: Sync>(
    shards: &[T],
    open: impl Fn(&T) -> Result<(), IndexError> + Sync,
) -> Result<(), IndexError> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    shards.chunks(cores.max(DEFAULT_SHARDS)).try_for_each(|at_once| {
        thread::scope(|scope| {
            let open = &open;
            let openings: Vec<_> = at_once
                .iter()
                .map(|shard| scope.spawn(move || open(shard)))
                .collect();
            let openings = openings.into_iter().map(|opening| match opening.join() {
                Ok(opened) => opened,
                Err(_) => Err(IndexError::Damaged {
                    reason: "a shard cannot be opened".to_owned(),
                }),
            });
            openings.fold(Ok(()), name_all)
        })
    })
}

/// The first failure; where parts are damaged, all of them.
fn name_all(before: Result<(), IndexError>, next: Result<(), IndexError>) -> Result<(), IndexError> {
    match (before, next) {
        (Err(IndexError::PartDamaged { reason: first }), Err(IndexError::PartDamaged { reason })) => {
            let reason = format!("{first}; {reason}");
            Err(IndexError::PartDamaged { reason })
        }
        (Ok(()), next) => next,
        (before, _) => before,
    }
}
