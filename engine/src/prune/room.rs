//! Writing where there may be no room: the reserve goes first, and comes back at the end.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use larder_format::names;
use larder_format::object;
use larder_format::record::{Record, seal_record};

use crate::error::{EngineError, Result};
use crate::protocol::{Rule, keeps};
use crate::random;
use crate::repository::Repository;
use crate::storage::create_or_confirm;
use crate::storage::error::{ErrorKind, StorageError};

/// Bytes of a reserve that is put back.
const RESERVE_BYTES: usize = 1 << 20;

/// Writes to a storage, and frees the reserve when it is full.
#[derive(Default)]
pub(super) struct Room {
    is_freed: AtomicBool,
}

/// What became of creating a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Created {
    /// It is there.
    Mine,
    /// Somebody else's is.
    Lost,
}

impl Room {
    /// Creates a sealed record unless there is one; a test may leave the condition out.
    pub(super) fn create<R: Record>(
        &self,
        repository: &Repository,
        record: &R,
        rule: Rule,
    ) -> Result<Created> {
        let object = seal_record(
            repository.keyring(),
            record,
            random::bytes()?,
            &random::bytes()?,
        )?;
        let (name, object) = (record.name().to_string(), Bytes::from(object));
        let storage = repository.storage();
        let outcome = self.write(repository, || {
            if keeps(rule) {
                create_or_confirm(storage, &name, &object)
            } else {
                storage.put(&name, object.clone())
            }
        });
        match outcome {
            Ok(()) => Ok(Created::Mine),
            Err(error) if error.kind == ErrorKind::AlreadyExists => Ok(Created::Lost),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes an object that has a content name.
    pub(super) fn put(&self, repository: &Repository, name: &str, object: Vec<u8>) -> Result<()> {
        let object = Bytes::from(object);
        Ok(self.write(repository, || {
            repository.storage().put(name, object.clone())
        })?)
    }

    /// Tells whether the reserve was taken away.
    pub(super) fn is_freed(&self) -> bool {
        self.is_freed.load(Ordering::Relaxed)
    }

    fn write(
        &self,
        repository: &Repository,
        write: impl Fn() -> std::result::Result<(), StorageError>,
    ) -> std::result::Result<(), StorageError> {
        match write() {
            Err(error)
                if error.kind == ErrorKind::Full && !self.is_freed.load(Ordering::Relaxed) =>
            {
                repository.storage().delete(names::RESERVE)?;
                self.is_freed.store(true, Ordering::Relaxed);
                write()
            }
            other => other,
        }
    }

    /// Puts the reserve back if it is missing; tells whether it is there now.
    pub(super) fn restore(&self, repository: &Repository, is_there: bool) -> Result<bool> {
        if is_there && !self.is_freed.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let reserve = object::reserve(RESERVE_BYTES, random::bytes()?, &random::bytes()?);
        match create_or_confirm(repository.storage(), names::RESERVE, &Bytes::from(reserve)) {
            Ok(()) => Ok(true),
            // Another run was faster.
            Err(error) if error.kind == ErrorKind::AlreadyExists => Ok(true),
            Err(error) if error.kind == ErrorKind::Full => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Tells whether an operation failed because the storage is full.
pub(super) fn is_full(error: &EngineError) -> bool {
    matches!(error, EngineError::Storage(error) if error.kind == ErrorKind::Full)
}
