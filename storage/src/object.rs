//! A storage over the object_store crate, and the one runtime that it needs.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};

use super::error::{ErrorKind, Operation, Result, StorageError};
use super::{
    Capabilities, CreateExclusive, ObjectInfo, Storage, check_folder, check_name, is_valid_name,
    runtime,
};

/// A storage over one of object_store's own implementations.
pub struct ObjectStorage {
    store: Arc<dyn ObjectStore>,
    description: String,
    capabilities: Capabilities,
}

impl ObjectStorage {
    /// Makes a storage that lives in memory and vanishes with the value.
    #[must_use]
    pub fn memory() -> Self {
        Self {
            store: Arc::new(object_store::memory::InMemory::new()),
            description: "memory".to_owned(),
            capabilities: Capabilities {
                create_exclusive: CreateExclusive::Native,
                sorted_listing: true,
                atomic_put: true,
                object_bytes_max: None,
            },
        }
    }

    /// Wraps an implementation of object_store.
    pub(super) fn new(
        store: Arc<dyn ObjectStore>,
        description: String,
        capabilities: Capabilities,
    ) -> Self {
        Self {
            store,
            description,
            capabilities,
        }
    }

    fn run<T>(
        &self,
        operation: Operation,
        name: &str,
        future: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T> {
        let outcome = runtime::block_on(future)
            .map_err(|cause| self.error(operation, name, ErrorKind::Transient, &cause))?;
        outcome.map_err(|error| {
            StorageError::from_object_store(operation, &self.description, name, &error)
        })
    }

    fn path(&self, operation: Operation, name: &str) -> Result<Path> {
        check_name(operation, &self.description, name)?;
        Path::parse(name)
            .map_err(|error| self.error(operation, name, ErrorKind::Permanent, &error.to_string()))
    }

    fn error(
        &self,
        operation: Operation,
        name: &str,
        kind: ErrorKind,
        cause: &str,
    ) -> StorageError {
        StorageError::new(operation, self.description.as_str(), name, kind, cause)
    }

    fn write(&self, operation: Operation, name: &str, bytes: Bytes, mode: PutMode) -> Result<()> {
        let path = self.path(operation, name)?;
        let options = PutOptions::from(mode);
        let payload = PutPayload::from(bytes);
        self.run(
            operation,
            name,
            self.store.put_opts(&path, payload, options),
        )
        .map(drop)
    }
}

impl Storage for ObjectStorage {
    fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes> {
        let operation = Operation::Get;
        let path = self.path(operation, name)?;
        let found = self.run(operation, name, self.store.get(&path))?;
        let size_bytes = found.meta.size;
        if size_bytes > max_bytes {
            let cause = format!("it has {size_bytes} bytes, and may have {max_bytes}");
            return Err(self.error(operation, name, ErrorKind::Oversized, &cause));
        }
        let bytes = self.run(operation, name, found.bytes())?;
        if bytes.len() as u64 != size_bytes {
            let cause = format!("{} of {size_bytes} bytes came", bytes.len());
            return Err(self.error(operation, name, ErrorKind::Truncated, &cause));
        }
        Ok(bytes)
    }

    fn get_range(&self, name: &str, offset_bytes: u64, length_bytes: u64) -> Result<Bytes> {
        let operation = Operation::GetRange;
        let path = self.path(operation, name)?;
        let past_the_end = |size_bytes: u64| {
            let cause = format!(
                "it has {size_bytes} bytes, too few for {length_bytes} from {offset_bytes} on"
            );
            self.error(operation, name, ErrorKind::Truncated, &cause)
        };
        let Some(end) = offset_bytes.checked_add(length_bytes) else {
            return Err(past_the_end(self.size(name)?));
        };
        if length_bytes == 0 {
            // Storages disagree about a range of nothing, so they are not asked for one.
            let size_bytes = self.size(name)?;
            return if offset_bytes <= size_bytes {
                Ok(Bytes::new())
            } else {
                Err(past_the_end(size_bytes))
            };
        }
        let options = GetOptions {
            range: Some(GetRange::Bounded(offset_bytes..end)),
            ..GetOptions::default()
        };
        let found = match self.run(operation, name, self.store.get_opts(&path, options)) {
            Ok(found) => found,
            // A range that starts past the end is an unsorted error in most implementations.
            Err(error) if error.kind == ErrorKind::Permanent => {
                return Err(match self.size(name) {
                    Ok(size_bytes) if size_bytes < end => past_the_end(size_bytes),
                    _ => error,
                });
            }
            Err(error) => return Err(error),
        };
        let size_bytes = found.meta.size;
        if found.range != (offset_bytes..end) {
            return Err(past_the_end(size_bytes));
        }
        let bytes = self.run(operation, name, found.bytes())?;
        if bytes.len() as u64 != length_bytes {
            return Err(past_the_end(size_bytes));
        }
        Ok(bytes)
    }

    fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.write(Operation::Put, name, bytes, PutMode::Overwrite)
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.write(Operation::Create, name, bytes, PutMode::Create)
    }

    fn delete(&self, name: &str) -> Result<()> {
        let path = self.path(Operation::Delete, name)?;
        match self.run(Operation::Delete, name, self.store.delete(&path)) {
            Err(error) if error.kind == ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }

    fn list(&self, folder: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
        let folder = check_folder(&self.description, folder)?;
        let prefix = match folder {
            "" => None,
            folder => Some(self.path(Operation::List, folder)?),
        };
        let mut objects = self.store.list(prefix.as_ref());
        while let Some(object) = self.run(Operation::List, folder, objects.try_next())? {
            let name = object.location.as_ref();
            if is_valid_name(name) {
                visit(ObjectInfo {
                    name: name.to_owned(),
                    size_bytes: object.size,
                })?;
            }
        }
        Ok(())
    }

    fn size(&self, name: &str) -> Result<u64> {
        let path = self.path(Operation::Size, name)?;
        let meta = self.run(Operation::Size, name, self.store.head(&path))?;
        Ok(meta.size)
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    fn describe(&self) -> String {
        self.description.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract;
    use super::*;

    #[test]
    fn memory_keeps_the_contract() {
        contract::run(&|| Arc::new(ObjectStorage::memory()));
    }
}
