//! Statistics of a repository.

use crate::error::{EngineError, Result};
use crate::repository::Repository;
use crate::snapshots::Filter;

/// What a repository holds.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Stats {
    /// Complete snapshots of the filter.
    pub snapshots: u64,
    /// Entries in all of them together.
    pub entries: u64,
    /// Bytes of all their files together: what restoring each would write.
    pub restore_bytes: u64,
    /// Distinct chunks in the index.
    pub chunks: u64,
    /// Their bytes before compression.
    pub chunk_bytes: u64,
    /// Packs.
    pub packs: u64,
    /// Bytes of packs in the storage.
    pub pack_bytes: u64,
    /// Objects of any kind in the storage.
    pub objects: u64,
    /// Bytes of all objects in the storage.
    pub stored_bytes: u64,
}

/// Counts what the repository holds.
///
/// # Errors
/// What the storage answers.
pub fn stats(repository: &Repository, filter: &Filter) -> Result<Stats> {
    let _ = (repository, filter);
    Err(EngineError::Internal("not there yet".into()))
}
