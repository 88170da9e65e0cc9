//! Open handles, the least recently used of which give way.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Up to a number of open handles by name; a handle in use stays open after it gave way.
pub(super) struct HandleCache<K> {
    capacity: usize,
    clock: u64,
    held: HashMap<K, Held>,
}

struct Held {
    handle: Arc<OwnedFd>,
    used: u64,
}

impl<K: Hash + Eq + Clone> HandleCache<K> {
    /// Makes an empty cache for `capacity` handles, at least one.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            clock: 0,
            held: HashMap::new(),
        }
    }

    /// Finds a handle and marks it as used.
    pub(super) fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<Arc<OwnedFd>>
    where
        K: Borrow<Q>,
    {
        self.clock += 1;
        let held = self.held.get_mut(key)?;
        held.used = self.clock;
        Some(Arc::clone(&held.handle))
    }

    /// Keeps a handle, at the expense of the one that was not used for longest.
    pub(super) fn insert(&mut self, key: K, handle: Arc<OwnedFd>) {
        if self.held.len() >= self.capacity && !self.held.contains_key(&key) {
            // A scan: some hundred comparisons cost less than the open() that led here.
            let oldest = self.held.iter().min_by_key(|(_, held)| held.used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.held.remove(&oldest);
            }
        }
        self.clock += 1;
        self.held.insert(
            key,
            Held {
                handle,
                used: self.clock,
            },
        );
    }

    /// Drops one handle.
    pub(super) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.held.remove(key);
    }

    /// Drops the handles whose names satisfy a condition.
    pub(super) fn forget(&mut self, mut condition: impl FnMut(&K) -> bool) {
        self.held.retain(|key, _| !condition(key));
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_gives_way() {
        let handle = || Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        let mut cache = HandleCache::new(2);
        cache.insert(1, handle());
        cache.insert(2, handle());
        assert!(cache.get(&1).is_some());
        cache.insert(3, handle());
        assert!(cache.get(&2).is_none());
        assert!(cache.get(&1).is_some() && cache.get(&3).is_some());
        cache.insert(3, handle());
        assert_eq!(cache.len(), 2);
        cache.forget(|key| *key == 1);
        cache.remove(&3);
        assert_eq!(cache.len(), 0);
    }
}
