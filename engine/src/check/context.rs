//! Reading for a check: what fails is tried once more, and is then a problem, not an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use larder_format::ids::ObjectId;
use larder_format::names::Name;
use larder_format::object::object_id;
use larder_format::record::{Record, object_bytes_max, open_record};

use crate::cancel::Cancel;
use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::storage::error::{ErrorKind, Reason};

/// What was read, or what is wrong with it.
pub(crate) type Outcome<T> = std::result::Result<T, Problem>;

/// What is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// It is not there.
    Missing,
    /// It is there and is not right, or cannot be read.
    Damaged(String),
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => f.write_str("it is missing"),
            Self::Damaged(why) => f.write_str(why),
        }
    }
}

/// What every part of a check needs.
pub(super) struct Context<'a> {
    pub repository: &'a Arc<Repository>,
    pub progress: &'a dyn Progress,
    pub cancel: &'a Cancel,
    bytes_read: AtomicU64,
}

impl<'a> Context<'a> {
    pub(super) fn new(
        repository: &'a Arc<Repository>,
        progress: &'a dyn Progress,
        cancel: &'a Cancel,
    ) -> Self {
        Self {
            repository,
            progress,
            cancel,
            bytes_read: AtomicU64::new(0),
        }
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// Reads a whole object.
    pub(super) fn get(&self, name: &str, limit: usize) -> Result<Bytes> {
        let bytes = self.repository.storage().get(name, limit as u64)?;
        Ok(self.count(bytes))
    }

    /// Reads a part of an object.
    pub(super) fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Bytes> {
        let storage = self.repository.storage();
        Ok(self.count(storage.get_range(name, offset, length)?))
    }

    fn count(&self, bytes: Bytes) -> Bytes {
        self.bytes_read
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        bytes
    }

    /// Asks for an object's size.
    pub(super) fn size(&self, name: &str) -> Result<Outcome<u64>> {
        attempt(|| Ok(self.repository.storage().size(name)?))
    }

    /// Reads and opens a sealed record; gives the hash of its object too.
    pub(super) fn record<R: Record>(&self, name: &Name) -> Result<Outcome<(R, ObjectId)>> {
        self.cancel.check()?;
        let text = name.to_string();
        attempt(|| {
            let object = self.get(&text, object_bytes_max(R::KIND))?;
            let record = open_record(self.repository.keyring(), name, &object)?;
            Ok((record, object_id(&object)))
        })
    }
}

/// Reads something; what fails is read once more before it is called a problem.
///
/// A storage that does not answer is no damage but an error.
pub(crate) fn attempt<T>(read: impl Fn() -> Result<T>) -> Result<Outcome<T>> {
    match read().or_else(|_| read()) {
        Ok(value) => Ok(Ok(value)),
        Err(EngineError::Damaged { why, .. }) => Ok(Err(Problem::Damaged(why))),
        Err(EngineError::Format(error)) => Ok(Err(Problem::Damaged(error.to_string()))),
        Err(EngineError::Storage(error)) => match error.kind {
            ErrorKind::NotFound => Ok(Err(Problem::Missing)),
            ErrorKind::Transient => Err(error.into()),
            // It is there, and nobody knows whether it is right before it was brought back.
            _ if error.reason == Reason::Cold => Err(error.into()),
            ErrorKind::Truncated => Ok(Err(Problem::Damaged(format!(
                "it is too short: {}",
                error.cause
            )))),
            ErrorKind::Oversized => Ok(Err(Problem::Damaged(format!(
                "it is too long: {}",
                error.cause
            )))),
            _ => Ok(Err(Problem::Damaged(format!(
                "it cannot be read: {}",
                error.cause
            )))),
        },
        Err(error) => Err(error),
    }
}
