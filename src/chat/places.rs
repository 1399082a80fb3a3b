//! Places for turns that run at once in this process, and how many of them may be one tenant's: where one tenant's model
//! is slow, the others are answered all the same.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::id::TenantId;

/// Everybody's places. Clones share them.
#[derive(Clone)]
pub struct Places(Arc<Shared>);

struct Shared {
    places: usize,
    share: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: usize,
    by: HashMap<TenantId, usize>,
}

/// One turn's place, until it is dropped.
pub(super) struct Place {
    places: Places,
    tenant_id: TenantId,
}

/// What keeps a turn from beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Everybody's places are taken.
    All,
    /// The tenant has all that one may have.
    Share,
}

impl Places {
    /// So many `places`, at most `share` of them one tenant's.
    pub fn new(places: usize, share: usize) -> Self {
        Self(Arc::new(Shared {
            places,
            share,
            taken: Mutex::default(),
        }))
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.lock().all
    }

    pub(super) fn take(&self, tenant_id: TenantId) -> Result<Place, Full> {
        let mut taken = self.lock();
        if taken.all >= self.0.places {
            return Err(Full::All);
        }
        if taken.by.get(&tenant_id).is_some_and(|own| *own >= self.0.share) {
            return Err(Full::Share);
        }
        taken.all += 1;
        *taken.by.entry(tenant_id).or_default() += 1;
        drop(taken);
        Ok(Place {
            places: self.clone(),
            tenant_id,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= 1;
        if let Entry::Occupied(mut own) = taken.by.entry(self.tenant_id) {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_tenant_leaves_places_to_the_others() {
        let places = Places::new(3, 2);
        let (acme, globex) = (TenantId::new(), TenantId::new());
        let held = [places.take(acme), places.take(acme)];

        assert_eq!(places.take(acme).err(), Some(Full::Share));
        let others = places.take(globex);
        assert!(others.is_ok());
        assert_eq!(places.take(globex).err(), Some(Full::All));

        drop(held);
        drop(others);
        assert_eq!(places.taken(), 0);
        assert!(places.lock().by.is_empty(), "who left is forgotten");
    }
}
