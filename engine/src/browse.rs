//! Looking into snapshots: list, find, compare, dump.

use std::io::Write;

use crate::error::{EngineError, Result};
use crate::repository::Repository;
use crate::snapshots::{Filter, SnapshotInfo};

/// One path of a snapshot, as it is listed.
#[derive(Debug, Clone)]
pub struct Item {
    /// The whole path as it was backed up, raw; a directory's has no trailing `/`.
    pub path: Vec<u8>,
    /// The entry.
    pub entry: larder_format::entry::Entry,
}

/// Lists what is in a folder of a snapshot (the sources, if no path is given), in key order;
/// everything below it if `recursive`.
///
/// # Errors
/// `NotFound` for a path that is not there, or what the storage answers.
pub fn list(
    repository: &Repository,
    snapshot: &SnapshotInfo,
    path: Option<&[u8]>,
    recursive: bool,
    each: &mut dyn FnMut(Item) -> Result<()>,
) -> Result<()> {
    let _ = (repository, snapshot, path, recursive, each);
    Err(EngineError::Internal("not there yet".into()))
}

/// What is looked for.
#[derive(Debug, Clone, Default)]
pub struct FindOptions {
    /// gitignore-style patterns; a path that matches any is found.
    pub patterns: Vec<String>,
    /// Whatever the case.
    pub ignore_case: bool,
    /// Only in these snapshots.
    pub filter: Filter,
    /// Only modified at or after this time.
    pub newer: Option<jiff::Timestamp>,
    /// Only modified before this time.
    pub older: Option<jiff::Timestamp>,
}

/// Finds paths in all snapshots of the filter, newest snapshot first.
///
/// # Errors
/// `Request` for a bad pattern, or what the storage answers.
pub fn find(
    repository: &Repository,
    options: &FindOptions,
    each: &mut dyn FnMut(&SnapshotInfo, Item) -> Result<()>,
) -> Result<()> {
    let _ = (repository, options, each);
    Err(EngineError::Internal("not there yet".into()))
}

/// How a path differs between two snapshots.
#[derive(Debug, Clone)]
pub enum Difference {
    /// Only the second has it.
    Added(Item),
    /// Only the first has it.
    Removed(Item),
    /// Both have it, and content, type or metadata differ.
    Changed {
        /// As in the first.
        old: Item,
        /// As in the second.
        new: Item,
        /// Whether the content differs, or only metadata.
        content: bool,
    },
}

/// Compares two snapshots, or the part at or below a path of each; costs what differs.
///
/// # Errors
/// `NotFound` for a path that is in neither, or what the storage answers.
pub fn diff(
    repository: &Repository,
    a: (&SnapshotInfo, Option<&[u8]>),
    b: (&SnapshotInfo, Option<&[u8]>),
    each: &mut dyn FnMut(Difference) -> Result<()>,
) -> Result<()> {
    let _ = (repository, a, b, each);
    Err(EngineError::Internal("not there yet".into()))
}

/// Writes a file raw, or a folder as a tar stream.
///
/// # Errors
/// `NotFound`, `Damaged`, what the storage answers, or what writing answers.
pub fn dump(
    repository: &Repository,
    snapshot: &SnapshotInfo,
    path: &[u8],
    out: &mut dyn Write,
) -> Result<()> {
    let _ = (repository, snapshot, path, out);
    Err(EngineError::Internal("not there yet".into()))
}
