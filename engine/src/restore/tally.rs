//! What a restore did so far, counted from several threads.

use std::sync::Mutex;

use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::sync::lock;
use crate::target::error::{Escaped, TargetError};

use super::{RestoreIssue, RestoreReport};

/// Issues and warnings that a report keeps of each.
const KEPT_MAX: usize = 1000;

/// The report that is being made.
pub(super) struct Tally<'a> {
    report: Mutex<RestoreReport>,
    progress: &'a dyn Progress,
}

impl<'a> Tally<'a> {
    pub(super) fn new(progress: &'a dyn Progress) -> Self {
        Self {
            report: Mutex::default(),
            progress,
        }
    }

    /// Changes the counts.
    pub(super) fn count(&self, change: impl FnOnce(&mut RestoreReport)) {
        change(&mut lock(&self.report));
    }

    /// Notes that something of an entry could not be restored; `entries` of them count as failed.
    pub(super) fn issue(&self, key: &[u8], error: &str, entries: u64) {
        let shown = Escaped(key);
        self.progress
            .warning(&format!("cannot restore {shown}: {error}"));
        let mut report = lock(&self.report);
        report.failed += entries;
        if report.issues.len() < KEPT_MAX {
            report.issues.push(RestoreIssue {
                path: String::from_utf8_lossy(key).into_owned(),
                error: error.to_owned(),
            });
        }
    }

    /// Notes that the repository no longer has something of an entry.
    pub(super) fn lost(&self, key: &[u8], why: &str, entries: u64) {
        self.issue(key, why, entries);
        self.count(|report| report.lost += entries);
    }

    /// Notes that the snapshot never had what is in an entry.
    pub(super) fn unread(&self, key: &[u8], why: &str) {
        self.issue(key, why, 1);
        self.count(|report| report.unread += 1);
    }

    /// Notes that nothing in the target can have an entry's name.
    pub(super) fn refused(&self, key: &[u8], why: &str) {
        self.issue(key, why, 1);
        self.count(|report| report.refused += 1);
    }

    /// Notes an object whose content the snapshot does not have, since it had to be thawed first.
    pub(super) fn cold(&self) {
        self.count(|report| report.cold += 1);
    }

    /// Notes that an entry could not be written; fails if there is no room for any other.
    pub(super) fn failed(&self, error: TargetError) -> Result<()> {
        if error.is_out_of_space() {
            return Err(EngineError::File {
                operation: error.operation,
                path: std::path::PathBuf::from(Escaped(&error.path).to_string()),
                source: error.cause,
            });
        }
        let what = format!("cannot {}: {}", error.operation, error.cause);
        self.issue(&error.path, &what, 1);
        Ok(())
    }

    /// Notes something that a person should know.
    pub(super) fn warning(&self, text: String) {
        self.progress.warning(&text);
        let mut report = lock(&self.report);
        if report.warnings.len() < KEPT_MAX {
            report.warnings.push(text);
        }
    }

    /// Says how many objects had to be thawed first, if any.
    pub(super) fn tell_cold(&self) {
        let count = lock(&self.report).cold;
        if count > 0 {
            let objects = match count {
                1 => "1 object was".to_owned(),
                count => format!("{count} objects were"),
            };
            self.warning(format!(
                "{objects} in a class that has to be thawed first when the backup was made: the snapshot has no content of them, and they are not restored"
            ));
        }
    }

    /// Gives the report.
    pub(super) fn take(&self) -> RestoreReport {
        std::mem::take(&mut lock(&self.report))
    }
}

/// Tells whether an error concerns what was to be read alone, so that the rest can go on.
pub(super) fn is_damage(error: &EngineError) -> bool {
    use crate::storage::error::ErrorKind::{Denied, NotFound, Oversized, Permanent, Truncated};
    match error {
        EngineError::Damaged { .. } | EngineError::Format(_) => true,
        // What lies in cold storage is there, and can be brought back.
        error if error.is_cold() => false,
        EngineError::Storage(error) => matches!(
            error.kind,
            NotFound | Truncated | Oversized | Denied | Permanent
        ),
        _ => false,
    }
}
