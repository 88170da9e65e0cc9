//! A storage that counts what is asked of another one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::error::{Operation, Result};
use super::thaw::{Thaw, Warmth};
use super::{Capabilities, ObjectInfo, Storage};

/// Passes everything on to a storage, and keeps count and a log.
pub struct Counting {
    inner: Arc<dyn Storage>,
    counts: Mutex<Counts>,
}

/// What was asked of a storage so far.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    by_kind: BTreeMap<(Operation, String), Count>,
    /// Every operation in the order in which it ended.
    pub log: Vec<Record>,
}

/// How often something was done, and how many bytes that moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Operations, failed ones included.
    pub operations: u64,
    /// Bytes of objects read.
    pub read_bytes: u64,
    /// Bytes of objects written.
    pub written_bytes: u64,
}

/// One operation of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What was done.
    pub operation: Operation,
    /// The object or folder.
    pub name: String,
    /// Bytes read or written.
    pub moved_bytes: u64,
    /// Whether it succeeded.
    pub is_ok: bool,
}

impl Counting {
    /// Wraps a storage, with all counts at zero.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self {
            inner,
            counts: Mutex::default(),
        }
    }

    /// Gives the counts so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().clone()
    }

    /// Gives the counts so far and starts again from zero.
    #[must_use]
    pub fn take(&self) -> Counts {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note<T>(
        &self,
        operation: Operation,
        name: &str,
        outcome: Result<T>,
        moved_bytes: impl FnOnce(&T) -> u64,
    ) -> Result<T> {
        let moved_bytes = outcome.as_ref().map_or(0, moved_bytes);
        let folder = name.split('/').next().unwrap_or_default();
        let mut counts = self.lock();
        let count = counts
            .by_kind
            .entry((operation, folder.to_owned()))
            .or_default();
        count.operations += 1;
        if matches!(operation, Operation::Put | Operation::Create) {
            count.written_bytes += moved_bytes;
        } else {
            count.read_bytes += moved_bytes;
        }
        counts.log.push(Record {
            operation,
            name: name.to_owned(),
            moved_bytes,
            is_ok: outcome.is_ok(),
        });
        outcome
    }
}

impl Counts {
    /// Sums up one operation over all folders.
    #[must_use]
    pub fn of(&self, operation: Operation) -> Count {
        self.sum(|(counted, _)| *counted == operation)
    }

    /// Sums up one operation on what lies below one folder of the root, such as `packs`.
    #[must_use]
    pub fn of_folder(&self, operation: Operation, folder: &str) -> Count {
        self.sum(|(counted, below)| *counted == operation && below == folder)
    }

    /// Sums up everything.
    #[must_use]
    pub fn total(&self) -> Count {
        self.sum(|_| true)
    }

    fn sum(&self, takes: impl Fn(&(Operation, String)) -> bool) -> Count {
        let taken = self.by_kind.iter().filter(|(kind, _)| takes(kind));
        taken.fold(Count::default(), |sum, (_, count)| Count {
            operations: sum.operations + count.operations,
            read_bytes: sum.read_bytes + count.read_bytes,
            written_bytes: sum.written_bytes + count.written_bytes,
        })
    }
}

impl Storage for Counting {
    fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes> {
        let outcome = self.inner.get(name, max_bytes);
        self.note(Operation::Get, name, outcome, |bytes| bytes.len() as u64)
    }

    fn get_range(&self, name: &str, offset_bytes: u64, length_bytes: u64) -> Result<Bytes> {
        let outcome = self.inner.get_range(name, offset_bytes, length_bytes);
        self.note(Operation::GetRange, name, outcome, |bytes| {
            bytes.len() as u64
        })
    }

    fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        let length = bytes.len() as u64;
        let outcome = self.inner.put(name, bytes);
        self.note(Operation::Put, name, outcome, |()| length)
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<()> {
        let length = bytes.len() as u64;
        let outcome = self.inner.create(name, bytes);
        self.note(Operation::Create, name, outcome, |()| length)
    }

    fn delete(&self, name: &str) -> Result<()> {
        let outcome = self.inner.delete(name);
        self.note(Operation::Delete, name, outcome, |()| 0)
    }

    fn list(&self, folder: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
        let outcome = self.inner.list(folder, visit);
        self.note(Operation::List, folder, outcome, |()| 0)
    }

    fn size(&self, name: &str) -> Result<u64> {
        let outcome = self.inner.size(name);
        self.note(Operation::Size, name, outcome, |_| 0)
    }

    fn warmth(&self, name: &str) -> Result<Warmth> {
        let outcome = self.inner.warmth(name);
        self.note(Operation::Size, name, outcome, |_| 0)
    }

    fn thaw(&self, name: &str, warmth: &Warmth, how: &Thaw) -> Result<()> {
        let outcome = self.inner.thaw(name, warmth, how);
        self.note(Operation::Thaw, name, outcome, |()| 0)
    }

    fn remove_folder(&self, folder: &str) -> Result<()> {
        self.inner.remove_folder(folder)
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
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
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::super::contract;
    use super::super::object::ObjectStorage;
    use super::*;

    #[test]
    fn a_counted_storage_keeps_the_contract() {
        contract::run(&|| Arc::new(Counting::new(Arc::new(ObjectStorage::memory()))));
    }

    #[test]
    fn operations_and_bytes_are_counted_by_kind_and_folder() {
        let storage = Counting::new(Arc::new(ObjectStorage::memory()));
        storage.put("packs/aa/1", Bytes::from(vec![0; 10])).unwrap();
        storage.create("gc/1", Bytes::from(vec![0; 5])).unwrap();
        storage.create("gc/1", Bytes::from(vec![0; 5])).unwrap_err();
        storage.get("packs/aa/1", 10).unwrap();
        storage.get_range("packs/aa/1", 3, 4).unwrap();
        storage.list("packs", &mut |_| Ok(())).unwrap();
        let counts = storage.take();
        let count = |operations, read_bytes, written_bytes| Count {
            operations,
            read_bytes,
            written_bytes,
        };
        assert_eq!(counts.total(), count(6, 14, 15));
        assert_eq!(counts.of(Operation::Create), count(2, 0, 5));
        assert_eq!(counts.of_folder(Operation::Get, "packs"), count(1, 10, 0));
        assert_eq!(counts.of_folder(Operation::Get, "gc"), count(0, 0, 0));
        assert!(
            counts
                .log
                .iter()
                .any(|record| !record.is_ok && record.name == "gc/1")
        );
        assert_eq!(storage.counts().total(), count(0, 0, 0));
    }
}
