//! The audit log: who did what, a line of JSON each.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::data;

/// At this size the log begins anew, and the one before it is kept, in bytes.
const BYTES_MAX: u64 = 16 << 20;

/// The log.
pub struct Audit {
    path: PathBuf,
    file: Mutex<File>,
}

/// What is told of one request.
#[derive(Debug, Serialize)]
pub struct Entry<'a> {
    /// When it was answered.
    pub time: Timestamp,
    /// The name of the token; none where none was right.
    pub by: Option<&'a str>,
    /// Its id.
    pub token: Option<&'a str>,
    /// Where it came from.
    pub address: String,
    /// Its method.
    pub method: &'a str,
    /// Its path, without the query.
    pub path: &'a str,
    /// How it was answered.
    pub status: u16,
}

impl Audit {
    /// Opens the log.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn open(path: PathBuf) -> std::io::Result<Self> {
        let file = Mutex::new(data::append(&path)?);
        Ok(Self { path, file })
    }

    /// Writes a line.
    pub fn write(&self, entry: &Entry<'_>) {
        let mut line = serde_json::to_vec(entry).unwrap_or_default();
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = file.metadata().is_ok_and(|file| file.len() >= BYTES_MAX);
        let written = match is_full {
            true => self.begin_anew().map(|new| *file = new),
            false => Ok(()),
        };
        if let Err(error) = written.and_then(|()| file.write_all(&line)) {
            tracing::error!(
                "cannot write the audit log {}: {error}",
                self.path.display()
            );
        }
    }

    /// Gives a page, the newest first, and whether there is more.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn page(&self, skip: usize, limit: usize) -> std::io::Result<(Vec<Value>, bool)> {
        let mut text = data::read(&older(&self.path))?.unwrap_or_default();
        text.extend(data::read(&self.path)?.unwrap_or_default());
        let lines = text.split(|byte| *byte == b'\n').rev();
        let lines = lines.filter(|line| !line.is_empty());
        let mut found: Vec<Value> = lines
            .skip(skip)
            .take(limit + 1)
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect();
        let has_more = found.len() > limit;
        found.truncate(limit);
        Ok((found, has_more))
    }

    fn begin_anew(&self) -> std::io::Result<File> {
        std::fs::rename(&self.path, older(&self.path))?;
        data::append(&self.path)
    }
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("jsonl.1")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn the_newest_comes_first_also_once_the_log_began_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let audit = Audit::open(path.clone()).unwrap();
        let write = |status| {
            audit.write(&Entry {
                time: Timestamp::UNIX_EPOCH,
                by: Some("me"),
                token: None,
                address: "127.0.0.1".to_owned(),
                method: "POST",
                path: "/x",
                status,
            });
        };
        let statuses = |skip, limit| {
            let (found, more) = audit.page(skip, limit).unwrap();
            let found = found.iter().map(|entry| entry["status"].as_u64().unwrap());
            (found.collect::<Vec<_>>(), more)
        };
        write(1);
        write(2);
        *audit.file.lock().unwrap() = audit.begin_anew().unwrap();
        write(3);
        assert_eq!(statuses(0, 10), (vec![3, 2, 1], false));
        assert_eq!(statuses(0, 2), (vec![3, 2], true));
        assert_eq!(statuses(2, 2), (vec![1], false));
    }
}
