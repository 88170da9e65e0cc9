//! Key slots: who may open the repository.

use crate::error::{EngineError, Result};
use crate::repository::{KdfCost, Repository, Secret};

/// One key slot, as it is listed.
#[derive(Debug, Clone, serde::Serialize)]
pub struct KeyInfo {
    /// The slot's id, in hex.
    pub id: String,
    /// "passphrase", "key-file" or "recovery".
    pub kind: &'static str,
    /// The label that was given.
    pub label: String,
    /// When it was made (RFC 3339).
    pub created: String,
    /// Whether this slot opened the repository now.
    pub current: bool,
}

/// Lists the slots.
///
/// # Errors
/// What the storage answers.
pub fn list(repository: &Repository) -> Result<Vec<KeyInfo>> {
    let _ = repository;
    Err(EngineError::Internal("not there yet".into()))
}

/// Adds a slot; a raw key with `recovery` is labelled as a recovery key. Gives the slot's id in hex.
///
/// # Errors
/// What the storage answers.
pub fn add(
    repository: &mut Repository,
    secret: &Secret,
    recovery: bool,
    label: &str,
    kdf: KdfCost,
) -> Result<String> {
    let _ = (repository, secret, recovery, label, kdf);
    Err(EngineError::Internal("not there yet".into()))
}

/// Removes a slot by id or unique prefix; refuses the last one.
///
/// # Errors
/// `NotFound`, `Request`, or what the storage answers.
pub fn remove(repository: &mut Repository, id: &str) -> Result<String> {
    let _ = (repository, id);
    Err(EngineError::Internal("not there yet".into()))
}

/// Replaces the slot that opened the repository by one with a new secret. Gives the new slot's id.
///
/// # Errors
/// What the storage answers.
pub fn replace_current(
    repository: &mut Repository,
    secret: &Secret,
    kdf: KdfCost,
) -> Result<String> {
    let _ = (repository, secret, kdf);
    Err(EngineError::Internal("not there yet".into()))
}

/// Makes a fresh random key: its key-file text and its recovery text.
///
/// # Errors
/// When the operating system gives no randomness.
pub fn generate_raw() -> Result<(
    Secret,
    zeroize::Zeroizing<String>,
    zeroize::Zeroizing<String>,
)> {
    Err(EngineError::Internal("not there yet".into()))
}
