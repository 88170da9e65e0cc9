//! A storage in memory that shares with others all that it does not change.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use larder_engine::storage::error::{ErrorKind, Operation, Result, StorageError};
use larder_engine::storage::{Capabilities, CreateExclusive, ObjectInfo, Storage, is_valid_name};

/// Objects by name.
pub type Objects = BTreeMap<String, Bytes>;

/// Objects that nobody changes, and what one case made of them.
pub struct Overlay {
    base: Arc<Objects>,
    /// What differs; none for an object that is gone.
    changes: Mutex<BTreeMap<String, Option<Bytes>>>,
}

impl Overlay {
    /// Shows these objects.
    pub fn new(base: &Arc<Objects>) -> Self {
        Self {
            base: Arc::clone(base),
            changes: Mutex::default(),
        }
    }

    /// Gives another one that shows the same, and goes its own way from here.
    pub fn fork(&self) -> Self {
        Self {
            base: Arc::clone(&self.base),
            changes: Mutex::new(self.changes().clone()),
        }
    }

    /// Sets an object, or takes it away.
    pub fn set(&self, name: &str, bytes: Option<Bytes>) {
        self.changes().insert(name.to_owned(), bytes);
    }

    /// Gives all objects.
    pub fn objects(&self) -> Objects {
        let mut objects = Objects::clone(&self.base);
        for (name, bytes) in self.changes().iter() {
            match bytes {
                Some(bytes) => drop(objects.insert(name.clone(), bytes.clone())),
                None => drop(objects.remove(name)),
            }
        }
        objects
    }

    fn changes(&self) -> MutexGuard<'_, BTreeMap<String, Option<Bytes>>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, operation: Operation, name: &str) -> Result<Bytes> {
        self.valid(operation, name)?;
        let changed = self.changes().get(name).cloned();
        let found = changed.unwrap_or_else(|| self.base.get(name).cloned());
        found.ok_or_else(|| self.fail(operation, name, ErrorKind::NotFound))
    }

    fn valid(&self, operation: Operation, name: &str) -> Result<()> {
        match is_valid_name(name) {
            true => Ok(()),
            false => Err(self.fail(operation, name, ErrorKind::Permanent)),
        }
    }

    fn fail(&self, operation: Operation, name: &str, kind: ErrorKind) -> StorageError {
        StorageError::new(operation, self.describe(), name, kind, format!("{kind:?}"))
    }
}

impl Storage for Overlay {
    fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes> {
        let bytes = self.find(Operation::Get, name)?;
        match bytes.len() as u64 > max_bytes {
            true => Err(self.fail(Operation::Get, name, ErrorKind::Oversized)),
            false => Ok(bytes),
        }
    }

    fn get_range(&self, name: &str, offset_bytes: u64, length_bytes: u64) -> Result<Bytes> {
        let bytes = self.find(Operation::GetRange, name)?;
        let end = offset_bytes.saturating_add(length_bytes);
        if end > bytes.len() as u64 {
            return Err(self.fail(Operation::GetRange, name, ErrorKind::Truncated));
        }
        Ok(bytes.slice(offset_bytes as usize..end as usize))
    }

    fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.valid(Operation::Put, name)?;
        self.set(name, Some(bytes));
        Ok(())
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.valid(Operation::Create, name)?;
        let mut changes = self.changes();
        let is_there = match changes.get(name) {
            Some(changed) => changed.is_some(),
            None => self.base.contains_key(name),
        };
        if is_there {
            return Err(self.fail(Operation::Create, name, ErrorKind::AlreadyExists));
        }
        changes.insert(name.to_owned(), Some(bytes));
        Ok(())
    }

    fn delete(&self, name: &str) -> Result<()> {
        self.valid(Operation::Delete, name)?;
        self.set(name, None);
        Ok(())
    }

    fn list(&self, folder: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
        let below = match folder {
            "" => String::new(),
            _ => {
                let folder = folder.strip_suffix('/').unwrap_or(folder);
                self.valid(Operation::List, folder)?;
                format!("{folder}/")
            }
        };
        let objects = self.objects();
        let listed = objects.iter().filter(|(name, _)| name.starts_with(&below));
        for (name, bytes) in listed {
            visit(ObjectInfo {
                name: name.clone(),
                size_bytes: bytes.len() as u64,
            })?;
        }
        Ok(())
    }

    fn size(&self, name: &str) -> Result<u64> {
        Ok(self.find(Operation::Size, name)?.len() as u64)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            create_exclusive: CreateExclusive::Native,
            sorted_listing: true,
            atomic_put: true,
            object_bytes_max: None,
            thaws: false,
        }
    }

    fn describe(&self) -> String {
        "an overlay".to_owned()
    }
}
