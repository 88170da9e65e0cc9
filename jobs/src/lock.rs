//! Never two runs of one job at a time: a file for each job, locked by whoever runs it.
//!
//! The kernel lets go of a lock when its process ends, however it ends. So a run without an end whose
//! lock can be had has died.

use std::fs::{DirBuilder, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Bytes that a lock file may have: the number of a process.
const PROCESS_BYTES: u64 = 20;

/// The right to run a job, until it is dropped or the process ends.
#[derive(Debug)]
pub struct JobLock {
    job: String,
    _file: File,
}

/// Why a job cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process runs it.
    #[error(
        "the job {job} is being run already{}; a job is run once at a time: wait for its end, or end it",
        by(.process)
    )]
    Running {
        /// Its name.
        job: String,
        /// The number of the process that runs it, where it has said so.
        process: Option<u32>,
    },
    /// The file cannot be locked.
    #[error("cannot lock {path}, which keeps the job {job} from being run twice at a time")]
    Failed {
        /// The job's name.
        job: String,
        /// The file.
        path: String,
        /// What the operating system answered.
        source: std::io::Error,
    },
}

impl JobLock {
    /// Takes the lock of a job, a plain name, in the folder of jobs.
    ///
    /// # Errors
    /// `Running` if another process, or another part of this one, has it; `Failed` if the file cannot be
    /// made or locked.
    pub fn take(folder: &Path, job: &str) -> Result<Self, LockError> {
        let folder = folder.join("locks");
        let path = folder.join(job);
        let failed = |source| LockError::Failed {
            job: job.to_owned(),
            path: path.display().to_string(),
            source,
        };
        make_folder(&folder).map_err(failed)?;
        let mut file = open(&path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(LockError::Running {
                    job: job.to_owned(),
                    process: process(&file),
                });
            }
            Err(error) => return Err(failed(error.into())),
        }
        // For people alone: a disk that is full keeps nothing from being run.
        let number = std::process::id().to_string();
        let _ = file
            .set_len(0)
            .and_then(|()| file.write_all(number.as_bytes()));
        Ok(Self {
            job: job.to_owned(),
            _file: file,
        })
    }

    /// Gives the job's name.
    #[must_use]
    pub fn job(&self) -> &str {
        &self.job
    }
}

/// Makes a folder that nobody else can look into, with its parents.
///
/// # Errors
/// What the operating system answers.
pub(crate) fn make_folder(folder: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Waits until nobody else holds a file, and holds it until it is dropped.
///
/// # Errors
/// What the operating system answers.
pub(crate) fn hold(path: &Path) -> std::io::Result<File> {
    let file = open(path)?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

fn open(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path)
}

fn process(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(PROCESS_BYTES).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn by(process: &Option<u32>) -> String {
    process.map_or_else(String::new, |number| format!(" by process {number}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_job_is_locked_once_and_others_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("new");
        let first = JobLock::take(&folder, "photos").unwrap();
        assert_eq!(first.job(), "photos");
        let second = JobLock::take(&folder, "photos").unwrap_err().to_string();
        let process = format!("being run already by process {}", std::process::id());
        assert!(second.contains(&process), "{second}");
        JobLock::take(&folder, "mail").unwrap();
        drop(first);
        JobLock::take(&folder, "photos").unwrap();
        let mode = std::fs::metadata(&folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_file_that_cannot_be_made_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("locks"), "").unwrap();
        let error = JobLock::take(folder.path(), "photos").unwrap_err();
        assert!(error.to_string().contains("locks/photos"), "{error}");
    }
}
