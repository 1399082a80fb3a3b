//! Whose searches run at once: searches keep a core busy each, so more of them than cores only makes all of them late. One
//! tenant's never take all places, and nobody waits for one without end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::shard::{closed, lock};
use crate::TenantId;
use crate::index::IndexError;

pub(super) struct Turns {
    all: Arc<Semaphore>,
    of_each: usize,
    /// Of those who search or wait.
    tenants: Tenants,
    longest_wait: Duration,
}

type Tenants = Arc<Mutex<HashMap<TenantId, Arc<Semaphore>>>>;

/// A place for one search. It goes with the search, which runs to its end though nobody may wait for it any more.
#[derive(Debug)]
pub(super) struct Turn {
    _place: OwnedSemaphorePermit,
    _share: Share,
}

/// A tenant's place among its own searches.
#[derive(Debug)]
struct Share {
    tenants: Tenants,
    tenant_id: TenantId,
    places: Arc<Semaphore>,
    is_taken: bool,
}

impl Turns {
    /// With so many places, all but one of which a tenant may have.
    pub(super) fn new(places: usize, longest_wait: Duration) -> Self {
        Self {
            all: Arc::new(Semaphore::new(places)),
            of_each: places.saturating_sub(1).max(1),
            tenants: Tenants::default(),
            longest_wait,
        }
    }

    /// Waits for a place; [`IndexError::Overloaded`] where that takes too long. In line for one stand no more of a tenant's
    /// searches than may run at once.
    pub(super) async fn take(&self, tenant_id: TenantId) -> Result<Turn, IndexError> {
        let taking = async {
            let mut share = self.share(tenant_id);
            let own = share.places.acquire().await.map_err(|_| closed())?;
            own.forget();
            share.is_taken = true;
            let place = Arc::clone(&self.all)
                .acquire_owned()
                .await
                .map_err(|_| closed())?;
            Ok(Turn {
                _place: place,
                _share: share,
            })
        };
        timeout(self.longest_wait, taking)
            .await
            .unwrap_or(Err(IndexError::Overloaded))
    }

    fn share(&self, tenant_id: TenantId) -> Share {
        let mut tenants = lock(&self.tenants);
        let places = tenants
            .entry(tenant_id)
            .or_insert_with(|| Arc::new(Semaphore::new(self.of_each)));
        Share {
            tenants: self.tenants.clone(),
            tenant_id,
            places: places.clone(),
            is_taken: false,
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut tenants = lock(&self.tenants);
        if self.is_taken {
            self.places.add_permits(1);
        }
        // The map's and this one: nobody else of the tenant searches or waits.
        if Arc::strong_count(&self.places) == 2 {
            tenants.remove(&self.tenant_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    fn tenant(n: u128) -> TenantId {
        TenantId(Uuid::from_u128(n))
    }

    #[tokio::test]
    async fn a_tenant_with_slow_searches_leaves_a_place_to_the_others() {
        let turns = Turns::new(3, SOON);
        let slow = [turns.take(tenant(1)).await, turns.take(tenant(1)).await];
        assert!(slow.iter().all(Result::is_ok));

        let third = turns
            .take(tenant(1))
            .await
            .expect_err("all of its places are taken");
        assert!(matches!(third, IndexError::Overloaded), "{third}");
        let other = turns.take(tenant(2)).await.expect("a place");

        drop(other);
        drop(slow);
        turns.take(tenant(1)).await.expect("free again");
    }

    #[tokio::test]
    async fn nobody_waits_without_end_and_who_gave_up_takes_no_place() {
        let turns = Turns::new(2, SOON);
        let one = turns.take(tenant(1)).await.expect("a place");
        let other = turns.take(tenant(2)).await.expect("a place");

        turns.take(tenant(3)).await.expect_err("no place");
        drop((one, other));

        let again = [turns.take(tenant(3)).await, turns.take(tenant(4)).await];
        assert!(again.iter().all(Result::is_ok));
        drop(again);
        assert!(lock(&turns.tenants).is_empty(), "nobody is remembered");
    }

    #[tokio::test]
    async fn one_place_is_everybodys() {
        let turns = Turns::new(1, SOON);

        drop(turns.take(tenant(1)).await.expect("a place"));
        turns.take(tenant(2)).await.expect("a place");
    }
}
