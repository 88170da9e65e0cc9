//! The audit log: who did what, a line of JSON each.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data;

/// At this size a file of the log begins anew, and the one before it is kept, in bytes.
const BYTES_MAX: u64 = 16 << 20;
/// The most of a path that is written down, in characters.
const PATH_MAX: usize = 256;

/// The log. What comes from nobody known has a file of its own, so that it displaces nothing but its like.
pub struct Audit {
    proven: Part,
    unproven: Part,
}

/// One of its files, and the one before it.
struct Part {
    path: PathBuf,
    file: Mutex<File>,
}

/// What is told of one request.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "AuditEntry")]
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
    /// Opens the log: `audit.jsonl` and `refused.jsonl` in a folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn open(folder: &Path) -> std::io::Result<Self> {
        Ok(Self {
            proven: Part::open(folder.join("audit.jsonl"))?,
            unproven: Part::open(folder.join("refused.jsonl"))?,
        })
    }

    /// Writes a line of who proved to have a token.
    pub fn write(&self, entry: &Entry<'_>) {
        self.proven.write(entry);
    }

    /// Writes a line of whoever did not.
    pub fn write_unproven(&self, entry: &Entry<'_>) {
        self.unproven.write(entry);
    }

    /// Gives a page of both, the newest first, and whether there is more.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn page(&self, skip: usize, limit: usize) -> std::io::Result<(Vec<Value>, bool)> {
        let (proven, unproven) = (self.proven.read()?, self.unproven.read()?);
        let (proven, unproven) = (newest_first(&proven), newest_first(&unproven));
        let (mut proven, mut unproven) = (proven.peekable(), unproven.peekable());
        let merged = std::iter::from_fn(|| match (proven.peek(), unproven.peek()) {
            (Some((one, _)), Some((other, _))) if one < other => unproven.next(),
            (Some(_), _) => proven.next(),
            (None, _) => unproven.next(),
        });
        let mut found: Vec<Value> = merged
            .skip(skip)
            .take(limit + 1)
            .filter_map(|(_, line)| serde_json::from_slice(line).ok())
            .collect();
        let has_more = found.len() > limit;
        found.truncate(limit);
        Ok((found, has_more))
    }
}

impl Part {
    fn open(path: PathBuf) -> std::io::Result<Self> {
        let file = Mutex::new(data::append(&path)?);
        Ok(Self { path, file })
    }

    fn write(&self, entry: &Entry<'_>) {
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

    fn read(&self) -> std::io::Result<Vec<u8>> {
        let mut text = data::read(&older(&self.path))?.unwrap_or_default();
        text.extend(data::read(&self.path)?.unwrap_or_default());
        Ok(text)
    }

    fn begin_anew(&self) -> std::io::Result<File> {
        std::fs::rename(&self.path, older(&self.path))?;
        data::append(&self.path)
    }
}

/// Gives the lines of a file with their times, the last first.
fn newest_first(text: &[u8]) -> impl Iterator<Item = (Timestamp, &[u8])> {
    let lines = text.split(|byte| *byte == b'\n').rev();
    lines.filter_map(|line| {
        let timed: Timed = serde_json::from_slice(line).ok()?;
        Some((timed.time, line))
    })
}

/// Gives as much of a path as is written down.
pub fn short(path: &str) -> &str {
    let end = path.char_indices().nth(PATH_MAX);
    end.and_then(|(end, _)| path.get(..end)).unwrap_or(path)
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("jsonl.1")
}

/// What of a line says where it belongs.
#[derive(Deserialize)]
struct Timed {
    time: Timestamp,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn entry(status: u16) -> Entry<'static> {
        Entry {
            time: Timestamp::from_second(i64::from(status)).unwrap(),
            by: Some("me"),
            token: None,
            address: "127.0.0.1".to_owned(),
            method: "POST",
            path: "/x",
            status,
        }
    }

    #[test]
    fn what_nobody_known_sends_displaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(folder.path()).unwrap();
        audit.write(&entry(1));
        audit.write_unproven(&entry(2));
        audit.write(&entry(3));
        audit.write_unproven(&entry(4));
        audit.write_unproven(&entry(5));
        let statuses = |skip, limit| {
            let (found, more) = audit.page(skip, limit).unwrap();
            let found = found.iter().map(|entry| entry["status"].as_u64().unwrap());
            (found.collect::<Vec<_>>(), more)
        };
        assert_eq!(statuses(0, 10), (vec![5, 4, 3, 2, 1], false));
        assert_eq!(statuses(1, 3), (vec![4, 3, 2], true));
        for _ in 0..2 {
            *audit.unproven.file.lock().unwrap() = audit.unproven.begin_anew().unwrap();
        }
        assert_eq!(statuses(0, 10), (vec![3, 1], false));
        assert_eq!(short(&"ä".repeat(300)), "ä".repeat(256));
        assert_eq!(short("/x"), "/x");
    }

    #[test]
    fn the_newest_comes_first_also_once_the_log_began_anew() {
        let folder = tempfile::tempdir().unwrap();
        let audit = Audit::open(folder.path()).unwrap();
        let write = |status| audit.write(&entry(status));
        let statuses = |skip, limit| {
            let (found, more) = audit.page(skip, limit).unwrap();
            let found = found.iter().map(|entry| entry["status"].as_u64().unwrap());
            (found.collect::<Vec<_>>(), more)
        };
        write(1);
        write(2);
        *audit.proven.file.lock().unwrap() = audit.proven.begin_anew().unwrap();
        write(3);
        assert_eq!(statuses(0, 10), (vec![3, 2, 1], false));
        assert_eq!(statuses(0, 2), (vec![3, 2], true));
        assert_eq!(statuses(2, 2), (vec![1], false));
    }
}
