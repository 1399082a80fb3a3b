//! Places for what runs at once in this process, and how many of them may be one holder's, a tenant's or an address's: where
//! one is slow or greedy, the others are served all the same.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Everybody's places. Clones share them.
pub struct Places<K: Copy + Eq + Hash>(Arc<Shared<K>>);

struct Shared<K> {
    places: usize,
    share: usize,
    taken: Mutex<Taken<K>>,
}

struct Taken<K> {
    all: usize,
    by: HashMap<K, usize>,
}

/// One place, until it is dropped.
pub struct Place<K: Copy + Eq + Hash> {
    places: Places<K>,
    holder: Option<K>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// Everybody's places are taken.
    All,
    /// The holder has all that one may have.
    Share,
}

impl<K: Copy + Eq + Hash> Clone for Places<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Copy + Eq + Hash> Places<K> {
    /// So many `places`, at most `share` of them one holder's.
    pub fn new(places: usize, share: usize) -> Self {
        Self(Arc::new(Shared {
            places,
            share,
            taken: Mutex::new(Taken {
                all: 0,
                by: HashMap::new(),
            }),
        }))
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.lock().all
    }

    /// Takes one for `holder`; without a holder it counts among all places only.
    pub fn take(&self, holder: Option<K>) -> Result<Place<K>, Full> {
        let mut taken = self.lock();
        if taken.all >= self.0.places {
            return Err(Full::All);
        }
        if let Some(holder) = holder {
            let own = taken.by.entry(holder).or_default();
            if *own >= self.0.share {
                return Err(Full::Share);
            }
            *own += 1;
        }
        taken.all += 1;
        drop(taken);
        Ok(Place {
            places: self.clone(),
            holder,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Taken<K>> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Copy + Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= 1;
        if let Some(holder) = self.holder
            && let Entry::Occupied(mut own) = taken.by.entry(holder)
        {
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
    fn one_holder_leaves_places_to_the_others() {
        let places = Places::new(3, 2);
        let (acme, globex) = (Some("acme"), Some("globex"));
        let held = [places.take(acme), places.take(acme)];

        assert_eq!(places.take(acme).err(), Some(Full::Share));
        let others = places.take(globex);
        assert!(others.is_ok());
        assert_eq!(places.take(globex).err(), Some(Full::All));

        drop(others);
        let nobodys = places.take(None);
        assert!(nobodys.is_ok(), "a share binds holders only");
        assert_eq!(places.take(None).err(), Some(Full::All));

        drop(held);
        drop(nobodys);
        assert_eq!(places.taken(), 0);
        assert!(places.lock().by.is_empty(), "who left is forgotten");
    }
}
