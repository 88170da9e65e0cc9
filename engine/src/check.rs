//! Check: is everything there, and is it right?

use crate::cancel::Cancel;
use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::repository::Repository;

/// How much of the packs' bytes is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ReadData {
    /// None: the structure alone.
    No,
    /// All of it.
    All,
    /// A random share, in percent.
    Percent(f64),
    /// The Nth of M parts, from 1, by pack name.
    Part(u64, u64),
}

/// How a check is made.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// How much of the packs' bytes is read.
    pub read_data: ReadData,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing is wrong with any snapshot and nothing needs mending.
    Note,
    /// Damage that costs no data: a copy or another object still holds it.
    Harmless,
    /// Damage that costs data.
    Loss,
}

/// One thing that check found.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The object, by its name in the storage.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
    /// Ids of the snapshots that suffer.
    pub snapshots: Vec<String>,
    /// Paths that suffer, at most 1,000 per finding (lossy where they are not UTF-8).
    pub paths: Vec<String>,
}

/// What a check saw.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct CheckReport {
    /// What was found, worst first.
    pub findings: Vec<Finding>,
    /// Snapshots whose structure was walked.
    pub snapshots: u64,
    /// Tree and list nodes, each counted once.
    pub nodes: u64,
    /// Chunks that are referred to.
    pub chunks: u64,
    /// Packs in the index.
    pub packs: u64,
    /// Packs whose bytes were all read, opened and hashed.
    pub packs_read: u64,
    /// Bytes read from the storage.
    pub bytes_read: u64,
    /// Seconds that it took.
    pub seconds: f64,
}

/// Checks the repository.
///
/// # Errors
/// What keeps the check itself from being made; damage is in the report.
pub fn check(
    repository: &Repository,
    options: &CheckOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<CheckReport> {
    let _ = (repository, options, progress, cancel);
    Err(EngineError::Internal("not there yet".into()))
}
