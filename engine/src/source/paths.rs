//! Paths as a whole, before anything below them is walked.

use std::io;
use std::path::{Path, PathBuf};

/// Tells whether something is at `path`; a symbolic link at its end is not followed.
///
/// # Errors
/// Why it cannot be told, `NotFound` above all.
pub fn look(path: &Path) -> io::Result<()> {
    std::fs::symlink_metadata(path).map(|_| ())
}

/// Gives the path without symbolic links; none if nothing is there or it cannot be told.
#[must_use]
pub fn real_path(path: &Path) -> Option<PathBuf> {
    std::fs::canonicalize(path).ok()
}
