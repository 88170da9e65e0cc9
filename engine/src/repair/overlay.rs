//! A repository as it would be with some objects from elsewhere in place of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use crate::error::Result;
use crate::scratch::file::ScratchFile;
use crate::storage::error::{ErrorKind, Operation, Result as StorageResult, StorageError};
use crate::storage::thaw::{Thaw, Warmth};
use crate::storage::{Capabilities, ObjectInfo, Storage};
use crate::sync::lock;

/// Reads the objects that were taken from one storage and all else from another, where it writes.
pub(super) struct Overlay {
    pub base: Arc<dyn Storage>,
    pub from: Option<Arc<dyn Storage>>,
    /// The names that are read from elsewhere, with their sizes.
    taken: Mutex<BTreeMap<String, u64>>,
    /// What was computed anew.
    made: Mutex<Made>,
    scratch: PathBuf,
}

/// Objects in a scratch file, with their offsets and lengths.
#[derive(Default)]
struct Made {
    file: Option<ScratchFile>,
    places: BTreeMap<String, (u64, u64)>,
    end: u64,
}

impl Overlay {
    pub(super) fn new(
        base: Arc<dyn Storage>,
        from: Option<Arc<dyn Storage>>,
        scratch: &Path,
    ) -> Self {
        Self {
            base,
            from,
            taken: Mutex::default(),
            made: Mutex::default(),
            scratch: scratch.to_owned(),
        }
    }

    /// Lets an object be read from elsewhere.
    pub(super) fn take(&self, name: String, size: u64) {
        lock(&self.taken).insert(name, size);
    }

    /// Lets an object be what was computed anew.
    pub(super) fn make(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut made = lock(&self.made);
        let file = match made.file.take() {
            Some(file) => file,
            None => ScratchFile::new(&self.scratch)?,
        };
        let written = file.write_at(made.end, bytes);
        made.file = Some(file);
        written?;
        let place = (made.end, bytes.len() as u64);
        made.end += place.1;
        made.places.insert(name.to_owned(), place);
        drop(made);
        self.take(name.to_owned(), place.1);
        Ok(())
    }

    /// Reads a part of what was computed anew; nothing if the object is another's.
    fn made(&self, name: &str, offset: u64, length: Option<u64>) -> Option<StorageResult<Bytes>> {
        let made = lock(&self.made);
        let (start, size) = made.places.get(name).copied()?;
        let file = made.file.as_ref()?;
        let failed = |kind, why: String| {
            let storage = self.scratch.display().to_string();
            Err(StorageError::new(Operation::Get, storage, name, kind, why))
        };
        let length = length.unwrap_or(size);
        if offset.checked_add(length).is_none_or(|end| end > size) {
            let why = "the range is past its end".to_owned();
            return Some(failed(ErrorKind::Truncated, why));
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        Some(match file.read_at(start + offset, &mut bytes) {
            Ok(()) => Ok(Bytes::from(bytes)),
            Err(error) => failed(ErrorKind::Permanent, error.to_string()),
        })
    }

    /// Lets an object be read from the repository itself again.
    pub(super) fn leave(&self, name: &str) {
        lock(&self.taken).remove(name);
    }

    /// Lets nothing be read from elsewhere any more.
    pub(super) fn clear(&self) {
        lock(&self.taken).clear();
        *lock(&self.made) = Made::default();
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
        match self.made(name, 0, None) {
            Some(made) => made,
            None => self.holder(name).get(name, max_bytes),
        }
    }

    fn get_range(&self, name: &str, offset_bytes: u64, length_bytes: u64) -> StorageResult<Bytes> {
        match self.made(name, offset_bytes, Some(length_bytes)) {
            Some(made) => made,
            None => self
                .holder(name)
                .get_range(name, offset_bytes, length_bytes),
        }
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
        let made = lock(&self.made).places.get(name).copied();
        match made {
            Some((_, size)) => Ok(size),
            None => self.holder(name).size(name),
        }
    }

    fn warmth(&self, name: &str) -> StorageResult<Warmth> {
        self.holder(name).warmth(name)
    }

    fn thaw(&self, name: &str, warmth: &Warmth, how: &Thaw) -> StorageResult<()> {
        self.holder(name).thaw(name, warmth, how)
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
