//! Restore: a snapshot, or a part of it, into a folder, a bucket or a database.
//!
//! ```text
//! scan (tree, in order) ──► directories, links, devices made at once
//!        └──► plan: chunks by pack and block ──► fetch ranges ──► open blocks ──► files
//! ```
//!
//! Nothing but [`crate::scratch::ScratchMap`]s grows with the number of entries. A chunk that
//! cannot be had where it was planned is planned anew at another place: the plan is fetched in
//! rounds until nothing is left, and one round is all that an undamaged repository takes.

mod bucket;
mod compare;
mod database;
mod fetch;
mod files;
mod finish;
mod needs;
pub(crate) mod objects;
mod plan;
mod planner;
mod properties;
mod roots;
mod run;
mod scan;
pub(crate) mod select;
mod tally;
#[cfg(test)]
mod tests;

pub use bucket::{BucketRestoreOptions, restore_into_bucket};
pub use database::{DatabaseRestoreOptions, restore_into_database};
pub use needs::{contents_needs, restore_needs};

use std::path::PathBuf;
use std::sync::Arc;

use crate::cancel::Cancel;
use crate::error::Result;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::snapshots::SnapshotInfo;

/// What happens to files that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// They are made as in the snapshot; parts that are right are not fetched.
    Always,
    /// The same, but files whose size and modification time agree are taken to be right.
    IfChanged,
    /// They are left alone.
    Never,
}

/// How a restore is made.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// The folder to restore into.
    pub target: PathBuf,
    /// What happens to files that are there already.
    pub overwrite: Overwrite,
    /// Removes what the snapshot does not have.
    pub delete: bool,
    /// gitignore-style patterns of what is restored; all if empty.
    pub include: Vec<String>,
    /// gitignore-style patterns of what is left out.
    pub exclude: Vec<String>,
    /// Writes runs of zeros as holes.
    pub sparse: bool,
    /// Writes nothing.
    pub dry_run: bool,
    /// Reads every restored file back and compares it.
    pub verify: bool,
    /// Does not set owners.
    pub no_owner: bool,
    /// Sets owners by number, not by name.
    pub numeric_owner: bool,
    /// Numbers of users to replace: from, to.
    pub map_uid: Vec<(u32, u32)>,
    /// Numbers of groups to replace: from, to.
    pub map_gid: Vec<(u32, u32)>,
    /// Changes existing files in place instead of by a temporary file and a rename.
    pub in_place: bool,
    /// Makes device nodes and keeps setuid bits even when not root says so.
    pub devices: bool,
    /// Restores files of which bytes are lost, too: with zeros in their place, and the time of the restore.
    pub lost_as_zeros: bool,
}

/// Something that could not be restored.
#[derive(Debug, Clone, serde::Serialize)]
pub struct RestoreIssue {
    /// The path in the target, lossy where it is not UTF-8.
    pub path: String,
    /// Why.
    pub error: String,
}

impl RestoreReport {
    /// Adds what another restore did.
    pub fn add(&mut self, other: Self) {
        self.files += other.files;
        self.unchanged += other.unchanged;
        self.directories += other.directories;
        self.others += other.others;
        self.deleted += other.deleted;
        self.bytes += other.bytes;
        self.bytes_fetched += other.bytes_fetched;
        self.issues.extend(other.issues);
        self.failed += other.failed;
        self.refused += other.refused;
        self.unread += other.unread;
        self.lost += other.lost;
        self.cold += other.cold;
        self.warnings.extend(other.warnings);
        self.seconds += other.seconds;
    }
}

/// What a restore did.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct RestoreReport {
    /// Files that were written or made right.
    pub files: u64,
    /// Files that were right already.
    pub unchanged: u64,
    /// Directories.
    pub directories: u64,
    /// Links, devices and the like.
    pub others: u64,
    /// Entries removed from the target.
    pub deleted: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Bytes fetched from the storage.
    pub bytes_fetched: u64,
    /// What could not be restored: at most 1,000; `failed` counts all.
    pub issues: Vec<RestoreIssue>,
    /// Entries that could not be restored.
    pub failed: u64,
    /// Those among them whose names nothing in the target can have.
    pub refused: u64,
    /// Those among them that could not be read when they were backed up.
    pub unread: u64,
    /// Those among them of which the repository has lost something.
    pub lost: u64,
    /// Objects that the snapshot has without content, since they had to be thawed first.
    pub cold: u64,
    /// Warnings: what could not be set (owners, attributes), at most 1,000.
    pub warnings: Vec<String>,
    /// Seconds that it took.
    pub seconds: f64,
}

impl RestoreReport {
    /// Tells whether there was nothing to restore.
    fn is_empty(&self) -> bool {
        self.files + self.unchanged + self.directories + self.others + self.failed + self.cold == 0
    }
}

/// Restores a snapshot, or the part of it at or below `path`, into the target.
///
/// # Errors
/// `NotFound` for a path that the snapshot does not have, or what storage and target answer.
/// Entries that cannot be restored do not stop the others: they are in the report.
pub fn restore(
    repository: &Arc<Repository>,
    snapshot: &SnapshotInfo,
    path: Option<&[u8]>,
    options: &RestoreOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<RestoreReport> {
    run::run(repository, snapshot, path, options, None, progress, cancel)
}
