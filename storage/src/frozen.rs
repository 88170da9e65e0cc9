//! A storage whose data packs are cold, for tests: it reads none of them before they were asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::error::{ErrorKind, Operation, Reason, Result, StorageError};
use super::object::is_data_pack;
use super::thaw::{Readiness, Thaw, Warmth};
use super::{Capabilities, ObjectInfo, Storage};

/// Passes everything on to a storage, but for reading what is cold.
pub struct Frozen {
    inner: Arc<dyn Storage>,
    /// How often it is looked at what thaws until it is there.
    looks: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Data packs that were put, by name.
    packs: BTreeMap<String, Depth>,
    counts: FrozenCounts,
}

/// How deep a data pack lies.
#[derive(Clone, Copy)]
enum Depth {
    Cold,
    /// So many looks are left.
    Thawing(u32),
    Thawed,
}

/// What was asked of what is cold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrozenCounts {
    /// Reads that were refused.
    pub refused: u64,
    /// Looks at how objects stand.
    pub looks: u64,
    /// What was asked for, and how.
    pub asked: Vec<(String, Thaw)>,
}

impl Frozen {
    /// Wraps a storage; what is asked for is there at the `looks`th look after that.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>, looks: u32) -> Self {
        Self {
            inner,
            looks,
            state: Mutex::default(),
        }
    }

    /// Gives the counts and starts again from zero.
    #[must_use]
    pub fn take(&self) -> FrozenCounts {
        std::mem::take(&mut self.lock().counts)
    }

    /// Gives the names of the data packs that are there.
    #[must_use]
    pub fn packs(&self) -> Vec<String> {
        self.lock().packs.keys().cloned().collect()
    }

    /// Lets all that was brought back be cold again.
    pub fn freeze(&self) {
        self.lock()
            .packs
            .values_mut()
            .for_each(|depth| *depth = Depth::Cold);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses to read what is cold, in the words of S3.
    fn check(&self, operation: Operation, name: &str) -> Result<()> {
        let mut state = self.lock();
        match state.packs.get(name) {
            Some(Depth::Cold | Depth::Thawing(_)) => {}
            Some(Depth::Thawed) | None => return Ok(()),
        }
        state.counts.refused += 1;
        let cause = "the storage refuses (InvalidObjectState: it is in an archive)";
        let storage = self.inner.describe();
        let error = StorageError::new(operation, storage, name, ErrorKind::Permanent, cause);
        Err(error.because(Reason::Cold))
    }

    fn note(&self, name: &str, is_data_pack: bool) {
        if is_data_pack {
            self.lock().packs.insert(name.to_owned(), Depth::Cold);
        }
    }
}

impl Storage for Frozen {
    fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes> {
        self.check(Operation::Get, name)?;
        self.inner.get(name, max_bytes)
    }

    fn get_range(&self, name: &str, offset_bytes: u64, length_bytes: u64) -> Result<Bytes> {
        self.check(Operation::GetRange, name)?;
        self.inner.get_range(name, offset_bytes, length_bytes)
    }

    fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        let is_data_pack = is_data_pack(name, &bytes);
        self.inner.put(name, bytes)?;
        self.note(name, is_data_pack);
        Ok(())
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.inner.create(name, bytes)
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.inner.delete(name)?;
        self.lock().packs.remove(name);
        Ok(())
    }

    fn list(&self, folder: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
        self.inner.list(folder, visit)
    }

    fn size(&self, name: &str) -> Result<u64> {
        self.inner.size(name)
    }

    fn warmth(&self, name: &str) -> Result<Warmth> {
        let size_bytes = self.inner.size(name)?;
        let mut state = self.lock();
        state.counts.looks += 1;
        let readiness = match state.packs.get_mut(name) {
            None => Readiness::Warm,
            Some(Depth::Cold) => Readiness::Cold,
            Some(Depth::Thawed) => Readiness::Thawed(None),
            Some(depth @ Depth::Thawing(0 | 1)) => {
                *depth = Depth::Thawed;
                Readiness::Thawed(None)
            }
            Some(Depth::Thawing(left)) => {
                *left -= 1;
                Readiness::Thawing
            }
        };
        let class = match readiness {
            Readiness::Warm => "STANDARD",
            _ => "GLACIER",
        };
        Ok(Warmth {
            size_bytes,
            class: class.to_owned(),
            readiness,
        })
    }

    fn thaw(&self, name: &str, _: &Warmth, how: &Thaw) -> Result<()> {
        let mut state = self.lock();
        state.counts.asked.push((name.to_owned(), *how));
        if let Some(depth @ Depth::Cold) = state.packs.get_mut(name) {
            *depth = Depth::Thawing(self.looks);
        }
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            thaws: true,
            ..self.inner.capabilities()
        }
    }

    fn calls_at_once(&self) -> usize {
        self.inner.calls_at_once()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract;
    use super::super::object::ObjectStorage;
    use super::*;

    #[test]
    fn a_frozen_storage_keeps_the_contract() {
        contract::run(&|| Arc::new(Frozen::new(Arc::new(ObjectStorage::memory()), 1)));
    }
}
