//! Backup: sources into a snapshot.

use std::path::PathBuf;

use crate::cancel::Cancel;
use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::snapshots::Statistics;

/// What is left out of a backup.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// gitignore-style patterns of what is left out; `!` takes back.
    pub exclude: Vec<String>,
    /// The same, whatever the case.
    pub iexclude: Vec<String>,
    /// Files that hold such patterns, a line each.
    pub exclude_files: Vec<PathBuf>,
    /// Files that hold case-insensitive ones.
    pub iexclude_files: Vec<PathBuf>,
    /// Name of files that hold patterns for the folder they are in, e.g. `.larderignore`.
    pub ignore_file: Option<String>,
    /// Folders that hold a file of this name (`NAME` or `NAME:HEADER`) are left out but for themselves.
    pub exclude_if_present: Vec<String>,
    /// Folders with a valid CACHEDIR.TAG are left out.
    pub exclude_caches: bool,
    /// Files larger than this many bytes are left out.
    pub exclude_larger_than: Option<u64>,
    /// Other file systems are not entered.
    pub one_file_system: bool,
    /// Only these paths, as listed by `--files-from`; they replace the sources.
    pub only: Vec<PathBuf>,
}

/// How data is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Off,
    /// zstd at level 3, stored where it does not pay.
    Auto,
    /// zstd at a level from 1 to 19.
    Level(i32),
}

/// How a backup is made.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// The sources, absolute paths.
    pub sources: Vec<PathBuf>,
    /// What is left out.
    pub selection: Selection,
    /// Host name that the snapshot carries.
    pub host: String,
    /// User name that the snapshot carries.
    pub user: String,
    /// Tags.
    pub tags: Vec<String>,
    /// Time that the snapshot carries; now if none.
    pub time: Option<jiff::Timestamp>,
    /// Snapshot to compare with (id or prefix); the newest of the same host and sources if none.
    pub parent: Option<String>,
    /// Reads every file, whatever the parent says.
    pub force: bool,
    /// Does not compare ctime.
    pub ignore_ctime: bool,
    /// Does not compare inodes.
    pub ignore_inode: bool,
    /// Keeps atime.
    pub with_atime: bool,
    /// Reads block devices and named pipes as files.
    pub read_special: bool,
    /// Makes no snapshot if nothing changed.
    pub skip_if_unchanged: bool,
    /// Writes nothing.
    pub dry_run: bool,
    /// How data is compressed.
    pub compression: Compression,
    /// Whether small chunks share blocks.
    pub solid: bool,
    /// Seconds between checkpoints.
    pub checkpoint_seconds: u64,
}

/// Something of the source that could not be read.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SourceIssue {
    /// The path, lossy where it is not UTF-8.
    pub path: String,
    /// What was tried.
    pub operation: String,
    /// Why it failed.
    pub error: String,
}

/// What a backup did.
#[derive(Debug, Clone, serde::Serialize)]
pub struct BackupReport {
    /// The snapshot's id; none in a dry run, or if nothing changed and that was to be skipped.
    pub snapshot: Option<String>,
    /// The snapshot it was compared with.
    pub parent: Option<String>,
    /// The checkpoint from which it went on.
    pub resumed_from: Option<String>,
    /// Whether nothing at all differs from the parent.
    pub unchanged: bool,
    /// What was counted.
    pub statistics: Statistics,
    /// What could not be read: at most 1,000 of them; `statistics.unreadable` counts all.
    pub issues: Vec<SourceIssue>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// Backs the sources up into one snapshot.
///
/// # Errors
/// `Request` for sources that do not exist or patterns that do not parse, `Interrupted` after a
/// checkpoint, or what the storage answers.
pub fn backup(
    repository: &Repository,
    options: &BackupOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<BackupReport> {
    let _ = (repository, options, progress, cancel);
    Err(EngineError::Internal("not there yet".into()))
}
