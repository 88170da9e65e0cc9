//! Reading a mirror as if it were the repository at the moment that its newest manifest tells of.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use larder_format::ids::ReplicaId;
use larder_format::mirror::Manifest;
use larder_format::names::{self, Name};

use super::{Newest, newest_manifest, read_marker};
use crate::error::Result;
use crate::storage::error::{ErrorKind, Operation, Result as StorageResult, StorageError};
use crate::storage::thaw::{Thaw, Warmth};
use crate::storage::{Capabilities, ObjectInfo, Storage};
use crate::sync::lock;

/// Gives a storage through which a repository is read: itself, or what a mirror shows of itself, with
/// the mirror's own id.
///
/// # Errors
/// `Damaged` or `Unsupported` for a mirror that cannot be read, or what the storage answers.
pub fn readable(storage: Arc<dyn Storage>) -> Result<(Arc<dyn Storage>, Option<ReplicaId>)> {
    let Some(marker) = read_marker(storage.as_ref())? else {
        return Ok((storage, None));
    };
    let mirror = Mirror {
        inner: storage,
        newest: Mutex::default(),
    };
    Ok((Arc::new(mirror), Some(marker.replica)))
}

/// Shows what the newest manifest names, and takes no writes.
struct Mirror {
    inner: Arc<dyn Storage>,
    newest: Mutex<Option<Arc<Manifest>>>,
}

impl Mirror {
    fn manifest(&self) -> StorageResult<Option<Arc<Manifest>>> {
        let known = lock(&self.newest).clone();
        match newest_manifest(self.inner.as_ref(), known.as_ref())? {
            Newest::None => Ok(None),
            Newest::Read(manifest) => {
                *lock(&self.newest) = Some(Arc::clone(&manifest));
                Ok(Some(manifest))
            }
            Newest::Damaged(number, error) => Err(StorageError::new(
                Operation::Get,
                self.describe(),
                &Name::Manifest(number).to_string(),
                ErrorKind::Permanent,
                format!("{error}; the next sync makes a new one"),
            )),
        }
    }

    fn refuse(&self, operation: Operation, name: &str) -> StorageError {
        StorageError::new(
            operation,
            self.describe(),
            name,
            ErrorKind::Denied,
            "this is a mirror, which takes no writes until it is promoted (larder sync promote); write to the repository that it mirrors",
        )
    }
}

/// Tells whether a listing of this folder has what a manifest decides.
fn is_decided(folder: &str) -> bool {
    let decided = [names::CELLS, names::COLLECTOR, names::SESSIONS];
    folder.is_empty()
        || decided
            .iter()
            .any(|one| folder.starts_with(one.trim_end_matches('/')))
}

impl Storage for Mirror {
    fn get(&self, name: &str, max_bytes: u64) -> StorageResult<Bytes> {
        self.inner.get(name, max_bytes)
    }

    fn get_range(&self, name: &str, offset_bytes: u64, length_bytes: u64) -> StorageResult<Bytes> {
        self.inner.get_range(name, offset_bytes, length_bytes)
    }

    fn put(&self, name: &str, _: Bytes) -> StorageResult<()> {
        Err(self.refuse(Operation::Put, name))
    }

    fn create(&self, name: &str, _: Bytes) -> StorageResult<()> {
        Err(self.refuse(Operation::Create, name))
    }

    fn delete(&self, name: &str) -> StorageResult<()> {
        Err(self.refuse(Operation::Delete, name))
    }

    fn list(
        &self,
        folder: &str,
        visit: &mut dyn FnMut(ObjectInfo) -> StorageResult<()>,
    ) -> StorageResult<()> {
        // Before any sync has ended it lists no snapshot.
        let empty = || Arc::new(Manifest::default());
        let manifest = match is_decided(folder) {
            true => self.manifest()?.unwrap_or_else(empty),
            false => empty(),
        };
        self.inner
            .list(folder, &mut |object| match names::parse(&object.name) {
                Some(name) if !manifest.lists(&name) => Ok(()),
                _ => visit(object),
            })
    }

    fn size(&self, name: &str) -> StorageResult<u64> {
        self.inner.size(name)
    }

    fn warmth(&self, name: &str) -> StorageResult<Warmth> {
        self.inner.warmth(name)
    }

    fn thaw(&self, name: &str, warmth: &Warmth, how: &Thaw) -> StorageResult<()> {
        self.inner.thaw(name, warmth, how)
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
