//! Lanes: how many jobs of which priorities run at once in this process, and how many of them may be one tenant's.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Priority;
use crate::id::TenantId;

/// Slots for jobs of some priorities. A job is claimed when there is a slot for it, and waits in the queue until then.
pub(super) struct Lane {
    pub priorities: RangeInclusive<Priority>,
    slots: Arc<Semaphore>,
    /// Slots that one tenant may have; none: all of them.
    share: Option<usize>,
    taken: Arc<Mutex<HashMap<TenantId, usize>>>,
}

impl Lane {
    pub(super) fn new(priorities: RangeInclusive<Priority>, slots: usize) -> Self {
        Self {
            priorities,
            slots: Arc::new(Semaphore::new(slots)),
            share: None,
            taken: Arc::default(),
        }
    }

    /// Like [`Lane::new`], where nobody may have more than half of the slots, rounded up.
    pub(super) fn shared(priorities: RangeInclusive<Priority>, slots: usize) -> Self {
        Self {
            share: Some(slots.div_ceil(2)),
            ..Self::new(priorities, slots)
        }
    }

    /// Like [`Lane::new`], where nobody may have all of the slots, if there are several.
    pub(super) fn with_room_for_others(priorities: RangeInclusive<Priority>, slots: usize) -> Self {
        Self {
            share: Some(slots.saturating_sub(1).max(1)),
            ..Self::new(priorities, slots)
        }
    }

    /// Waits for a free slot; none when the lane is closed.
    pub(super) async fn free_slot(&self) -> Option<OwnedSemaphorePermit> {
        self.slots.clone().acquire_owned().await.ok()
    }

    /// Who has all that one tenant may have. While a slot is free this is one tenant at most.
    pub(super) fn sated(&self) -> Option<TenantId> {
        let share = self.share?;
        let taken = lock(&self.taken);
        taken
            .iter()
            .find(|(_, count)| **count >= share)
            .map(|(tenant_id, _)| *tenant_id)
    }

    /// Puts a job of `tenant_id` into a slot, until what this returns is dropped.
    pub(super) fn fill(&self, slot: OwnedSemaphorePermit, tenant_id: Option<TenantId>) -> FilledSlot {
        let counted = tenant_id.filter(|_| self.share.is_some());
        if let Some(tenant_id) = counted {
            *lock(&self.taken).entry(tenant_id).or_default() += 1;
        }
        FilledSlot {
            counted,
            share: self.share,
            taken: self.taken.clone(),
            _slot: slot,
        }
    }
}

/// A slot with a job in it.
pub(super) struct FilledSlot {
    counted: Option<TenantId>,
    share: Option<usize>,
    taken: Arc<Mutex<HashMap<TenantId, usize>>>,
    _slot: OwnedSemaphorePermit,
}

impl FilledSlot {
    /// Whether its end may let in a job that was passed over: its tenant has all that one may have.
    pub(super) fn holds_up_others(&self) -> bool {
        let (Some(tenant_id), Some(share)) = (self.counted, self.share) else {
            return false;
        };
        lock(&self.taken)
            .get(&tenant_id)
            .is_some_and(|count| *count >= share)
    }
}

impl Drop for FilledSlot {
    fn drop(&mut self) {
        let Some(tenant_id) = self.counted else { return };
        let mut taken = lock(&self.taken);
        if let Some(count) = taken.get_mut(&tenant_id) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&tenant_id);
            }
        }
    }
}

/// The counts are whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REMOTE: RangeInclusive<Priority> = Priority::Remote..=Priority::Remote;

    #[tokio::test]
    async fn a_tenant_has_at_most_half_of_a_shared_lane() {
        let lane = Lane::shared(REMOTE, 4);
        let (acme, globex) = (TenantId::new(), TenantId::new());
        let first = lane.fill(lane.free_slot().await.expect("a slot"), Some(acme));
        let _other = lane.fill(lane.free_slot().await.expect("a slot"), Some(globex));
        assert_eq!(lane.sated(), None);

        let _second = lane.fill(lane.free_slot().await.expect("a slot"), Some(acme));
        assert_eq!(lane.sated(), Some(acme));

        drop(first);
        assert_eq!(lane.sated(), None);
    }

    #[tokio::test]
    async fn a_tenant_leaves_one_slot_of_several_to_others() {
        let lane = Lane::with_room_for_others(REMOTE, 3);
        let acme = TenantId::new();
        let first = lane.fill(lane.free_slot().await.expect("a slot"), Some(acme));
        assert_eq!((lane.sated(), first.holds_up_others()), (None, false));

        let second = lane.fill(lane.free_slot().await.expect("a slot"), Some(acme));
        assert_eq!((lane.sated(), second.holds_up_others()), (Some(acme), true));

        drop(first);
        assert_eq!((lane.sated(), second.holds_up_others()), (None, false));
    }

    #[tokio::test]
    async fn a_lane_of_one_slot_serves_everybody_in_turn() {
        for lane in [Lane::shared(REMOTE, 1), Lane::with_room_for_others(REMOTE, 1)] {
            let held = lane.fill(lane.free_slot().await.expect("a slot"), Some(TenantId::new()));
            drop(held);

            assert_eq!(lane.sated(), None);
            assert!(lane.free_slot().await.is_some());
        }
    }
}
