//! Tiered multitenancy: a tenant that has grown large moves from the shared shard to one of its own, in the background.
//!
//! The server does the moving and routes every request to where the points are (`ShardKeySelector.fallback`); we decide
//! when, and tidy up behind it. Several processes may do so at once, and one that dies leaves nothing that the next one
//! could not go on with.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use qdrant_client::qdrant::update_collection_cluster_setup_request::Operation;
use qdrant_client::qdrant::{
    CollectionClusterInfoResponse, CreateShardKey, DeleteShardKey, DeleteShardKeyRequest, ReplicaState,
    ShardKey, UpdateCollectionClusterSetupRequest,
};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Inner;
use super::calls::is_not_found;
use super::scope::TenantScope;
use crate::TenantId;
use crate::index::IndexError;

/// How often we look whether the server is done, at first and later.
const FIRST_LOOK: Duration = Duration::from_millis(200);
const LATER_LOOKS: Duration = Duration::from_secs(10);

/// Looks after which we leave it to the next time that the tenant stores something.
const LOOKS: u32 = 720;

/// Tenants that are remembered. Of whom nothing is, is counted when they next store something.
const MOST_KNOWN: usize = 10_000;

/// The part of the threshold that a tenant stores before it is counted again.
const COUNTED_PER_THRESHOLD: u64 = 4;

/// What this process knows of the tenants that it stored points for.
#[derive(Default)]
pub(super) struct Promotions {
    tenants: Mutex<HashMap<TenantId, Tier>>,
    tasks: Mutex<JoinSet<()>>,
}

enum Tier {
    /// With the points stored since the tenant was counted.
    Shared(u64),
    /// Being counted or moved.
    Busy,
    Own,
}

impl Promotions {
    /// Counts the tenant after it stored `points`, if that is due, and moves it if it is large.
    pub(super) fn stored(&self, inner: &Arc<Inner>, tenant_id: TenantId, points: u64) {
        let Some(threshold) = inner.layout.tuning.promote_from_chunks else {
            return;
        };
        if !self.is_due(tenant_id, points, threshold) {
            return;
        }
        let inner = inner.clone();
        let mut tasks = lock(&self.tasks);
        // Those that ended are kept until they are asked for.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let tier = match promote_if_large(&inner, tenant_id, threshold).await {
                Ok(tier) => tier,
                Err(error) => {
                    tracing::warn!(tenant.id = %tenant_id, error = ?error, "cannot give a large tenant a shard of its own; it will be tried again");
                    Tier::Shared(0)
                }
            };
            lock(&inner.promotions.tenants).insert(tenant_id, tier);
        });
    }

    pub(super) fn forget(&self, tenant_id: TenantId) {
        lock(&self.tenants).remove(&tenant_id);
    }

    /// What is unfinished is gone on with when the tenant next stores something.
    pub(super) fn close(&self) {
        lock(&self.tasks).abort_all();
    }

    fn is_due(&self, tenant_id: TenantId, points: u64, threshold: u64) -> bool {
        let mut tenants = lock(&self.tenants);
        if tenants.len() >= MOST_KNOWN && !tenants.contains_key(&tenant_id) {
            tenants.retain(|_, tier| matches!(tier, Tier::Busy));
        }
        let tier = tenants.entry(tenant_id).or_insert(Tier::Shared(threshold));
        let Tier::Shared(stored) = tier else { return false };
        *stored = stored.saturating_add(points);
        if *stored < (threshold / COUNTED_PER_THRESHOLD).max(1) {
            return false;
        }
        *tier = Tier::Busy;
        true
    }
}

async fn promote_if_large(inner: &Inner, tenant_id: TenantId, threshold: u64) -> Result<Tier, IndexError> {
    if inner.count(tenant_id).await? < threshold {
        return Ok(Tier::Shared(0));
    }
    let scope = TenantScope::new(tenant_id, &inner.layout);
    let own = scope.own_shard();
    inner
        .layout
        .create_shard(
            &inner.calls,
            CreateShardKey {
                shard_key: Some(own.clone()),
                shards_number: Some(1),
                replication_factor: Some(inner.layout.tuning.replication_factor),
                // Nothing is asked of it before it has everything.
                initial_state: Some(ReplicaState::Partial.into()),
                ..CreateShardKey::default()
            },
        )
        .await?;
    await_move(inner, &scope, &own).await?;
    // From here on the server routes everything to the tenant's own shard.
    inner.delete(scope.delete_all_shared()).await?;
    tracing::info!(tenant.id = %tenant_id, "a large tenant has a shard of its own in the index now");
    Ok(Tier::Own)
}

/// Starts the move unless it runs, and waits for its end.
async fn await_move(inner: &Inner, scope: &TenantScope<'_>, own: &ShardKey) -> Result<(), IndexError> {
    let mut pause = FIRST_LOOK;
    for _ in 0..LOOKS {
        let collection_name = inner.layout.name.as_str();
        let cluster = inner
            .calls
            .read("look at the shards", |client| async move {
                client.collection_cluster_info(collection_name).await
            })
            .await?;
        match progress(&cluster, own) {
            Progress::Done => return Ok(()),
            Progress::Running => {}
            Progress::NotBegun => {
                let request = UpdateCollectionClusterSetupRequest {
                    collection_name: collection_name.to_owned(),
                    timeout: None,
                    operation: Some(Operation::ReplicatePoints(scope.replicate())),
                };
                inner
                    .calls
                    .write("move a tenant to its own shard", |client| {
                        let request = request.clone();
                        async move { client.update_collection_cluster_setup(request).await }
                    })
                    .await?;
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LATER_LOOKS);
    }
    Err(IndexError::Unavailable {
        reason: "the index server has not finished moving a tenant to its own shard".to_owned(),
        source: None,
    })
}

enum Progress {
    NotBegun,
    Running,
    Done,
}

fn progress(cluster: &CollectionClusterInfoResponse, own: &ShardKey) -> Progress {
    let local = cluster
        .local_shards
        .iter()
        .map(|shard| (shard.shard_id, shard.shard_key.as_ref(), shard.state()));
    let remote = cluster
        .remote_shards
        .iter()
        .map(|shard| (shard.shard_id, shard.shard_key.as_ref(), shard.state()));
    let copies: Vec<(u32, ReplicaState)> = local
        .chain(remote)
        .filter(|(_, key, _)| *key == Some(own))
        .map(|(id, _, state)| (id, state))
        .collect();
    let is_target = |shard: u32| copies.iter().any(|(id, _)| *id == shard);
    let is_moving = cluster
        .shard_transfers
        .iter()
        .any(|transfer| is_target(transfer.to_shard_id.unwrap_or(transfer.shard_id)));
    if is_moving {
        Progress::Running
    } else if copies.iter().any(|(_, state)| *state == ReplicaState::Active) {
        Progress::Done
    } else {
        Progress::NotBegun
    }
}

/// Removes the shard of a tenant that is gone, if it had one.
pub(super) async fn drop_own_shard(inner: &Inner, scope: &TenantScope<'_>) -> Result<(), IndexError> {
    let request = DeleteShardKeyRequest {
        collection_name: inner.layout.name.clone(),
        request: Some(DeleteShardKey {
            shard_key: Some(scope.own_shard()),
        }),
        timeout: None,
    };
    let has_own = inner
        .calls
        .read("list the shards", |client| async move {
            client.list_shard_keys(inner.layout.name.as_str()).await
        })
        .await?
        .shard_keys
        .into_iter()
        .any(|shard| shard.key.as_ref() == Some(&scope.own_shard()));
    if !has_own {
        return Ok(());
    }
    inner
        .calls
        .write("remove a tenant's shard", |client| {
            let request = request.clone();
            async move {
                match client.delete_shard_key(request).await {
                    Err(error) if is_not_found(&error) => Ok(()),
                    outcome => outcome.map(drop),
                }
            }
        })
        .await
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn no_more_tenants_are_remembered_than_are_worth_it_and_none_that_is_moving_is_forgotten() {
        let promotions = Promotions::default();
        let tenant = |n: usize| TenantId(Uuid::from_u128(n as u128));
        for n in 0..MOST_KNOWN {
            let tier = if n == 7 { Tier::Busy } else { Tier::Shared(0) };
            lock(&promotions.tenants).insert(tenant(n), tier);
        }

        assert!(!promotions.is_due(tenant(5), 1, 1_000), "known, and small");
        assert!(
            promotions.is_due(tenant(MOST_KNOWN), 1, 1_000),
            "not known: counted"
        );

        assert_eq!(lock(&promotions.tenants).len(), 2);
        assert!(!promotions.is_due(tenant(7), 1_000, 1_000), "it is moving");
    }
}
