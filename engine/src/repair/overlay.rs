//! A repository as it would be with some objects from elsewhere in place of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use crate::storage::error::Result as StorageResult;
use crate::storage::{Capabilities, ObjectInfo, Storage};
use crate::sync::lock;

/// Reads the objects that were taken from one storage and all else from another, where it writes.
pub(super) struct Overlay {
    pub base: Arc<dyn Storage>,
    pub from: Option<Arc<dyn Storage>>,
    /// The names that are read from elsewhere, with their sizes.
    taken: Mutex<BTreeMap<String, u64>>,
}

impl Overlay {
    pub(super) fn new(base: Arc<dyn Storage>, from: Option<Arc<dyn Storage>>) -> Self {
        Self {
            base,
            from,
            taken: Mutex::default(),
        }
    }

    /// Lets an object be read from elsewhere.
    pub(super) fn take(&self, name: String, size: u64) {
        lock(&self.taken).insert(name, size);
    }

    /// Lets an object be read from the repository itself again.
    pub(super) fn leave(&self, name: &str) {
        lock(&self.taken).remove(name);
    }

    /// Lets nothing be read from elsewhere any more.
    pub(super) fn clear(&self) {
        lock(&self.taken).clear();
    }

    fn holder(&self, name: &str) -> &dyn Storage {
        match &self.from {
            Some(from) if lock(&self.taken).contains_key(name) => from.as_ref(),
            _ => self.base.as_ref(),
        }
    }
}

impl Storage for Overlay {
    fn get(&self, name: &str, max_bytes: u64) -> StorageResult<Bytes> {
        self.holder(name).get(name, max_bytes)
    }

    fn get_range(&self, name: &str, offset_bytes: u64, length_bytes: u64) -> StorageResult<Bytes> {
        self.holder(name)
            .get_range(name, offset_bytes, length_bytes)
    }

    fn put(&self, name: &str, bytes: Bytes) -> StorageResult<()> {
        self.base.put(name, bytes)
    }

    fn create(&self, name: &str, bytes: Bytes) -> StorageResult<()> {
        self.base.create(name, bytes)
    }

    fn delete(&self, name: &str) -> StorageResult<()> {
        self.base.delete(name)
    }

    fn list(
        &self,
        folder: &str,
        visit: &mut dyn FnMut(ObjectInfo) -> StorageResult<()>,
    ) -> StorageResult<()> {
        let taken = lock(&self.taken).clone();
        self.base.list(folder, &mut |object| {
            if taken.contains_key(&object.name) {
                return Ok(());
            }
            visit(object)
        })?;
        let folder = folder.trim_end_matches('/');
        let is_below = |name: &str| {
            let rest = name.strip_prefix(folder);
            folder.is_empty() || rest.is_some_and(|rest| rest.starts_with('/'))
        };
        for (name, size_bytes) in taken {
            if is_below(&name) {
                visit(ObjectInfo { name, size_bytes })?;
            }
        }
        Ok(())
    }

    fn size(&self, name: &str) -> StorageResult<u64> {
        self.holder(name).size(name)
    }

    fn sweep(&self, age: Duration) -> StorageResult<u64> {
        self.base.sweep(age)
    }

    fn remove_folder(&self, folder: &str) -> StorageResult<()> {
        self.base.remove_folder(folder)
    }

    fn capabilities(&self) -> Capabilities {
        self.base.capabilities()
    }

    fn calls_at_once(&self) -> usize {
        self.base.calls_at_once()
    }

    fn describe(&self) -> String {
        self.base.describe()
    }
}
