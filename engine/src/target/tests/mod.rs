//! The target against a real file system, read back by other means than its own.
//!
//! All of it runs as root and as an ordinary user.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod deletion;
mod hostile;
mod round_trip;
mod writing;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use larder_format::entry::{Entry, EntryType, Timestamp};
use tempfile::TempDir;

use super::Target;
use super::file::{PendingFile, WriteMode};
use super::options::{Handles, Options, Owners};

/// A target of its own, and a folder beside it that nothing may touch.
struct Place {
    /// Held for its `Drop`.
    _scratch: TempDir,
    root: PathBuf,
    outside: PathBuf,
    target: Arc<Target>,
}

/// Makes a target with the user's default options, changed by `change`.
fn place(change: impl FnOnce(&mut Options)) -> Place {
    let scratch = tempfile::tempdir().unwrap();
    let (root, outside) = (scratch.path().join("root"), scratch.path().join("outside"));
    std::fs::create_dir_all(outside.join("sub")).unwrap();
    std::fs::write(outside.join("secret"), "secret").unwrap();
    std::fs::write(outside.join("sub/x"), "theirs").unwrap();
    let mut options = Options {
        owners: Owners::Numeric,
        ..Options::for_this_user()
    };
    change(&mut options);
    let target = Target::open(&root, options).unwrap();
    Place {
        _scratch: scratch,
        root,
        outside,
        target,
    }
}

/// Keeps so few handles that nearly every operation has to open again.
fn few_handles(options: &mut Options) {
    options.handles = Handles {
        files: 1,
        directories: 1,
    };
}

/// An entry of the current user.
fn entry(kind: EntryType, key: &str, mode: u32) -> Entry {
    Entry {
        key: key.as_bytes().to_vec(),
        kind,
        mode,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mtime: Timestamp {
            seconds: 1_000_000_000,
            nanoseconds: 123_456_789,
        },
        links: 1,
        ..Entry::default()
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl Place {
    fn start(&self, key: &str, size: usize, mode: WriteMode) -> PendingFile {
        self.target
            .create_file(key.as_bytes(), size as u64, mode)
            .unwrap()
    }

    /// Restores a whole file with mode 0644.
    fn put(&self, key: &str, content: &[u8]) -> super::NodeId {
        let file = self.start(key, content.len(), WriteMode::Fresh);
        file.write_at(content, 0).unwrap();
        file.finish(&entry(EntryType::File, key, 0o644), &[])
            .unwrap()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.root.join(name)).unwrap()
    }

    /// Lists the names directly below the root.
    fn names(&self) -> Vec<String> {
        names(&self.root)
    }
}

fn names(directory: &Path) -> Vec<String> {
    let read = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = read
        .map(|found| found.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Mode, inode, number of names, time of change in seconds and nanoseconds, content.
type Facts = (u32, u64, u64, i64, i64, Vec<u8>);

/// All that an observer can tell of a folder, times of change included: any write, new name,
/// new link or change of metadata in it shows.
fn observe(folder: &Path) -> BTreeMap<PathBuf, Facts> {
    let mut all = BTreeMap::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(path) = open.pop() {
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        let mut content = Vec::new();
        if metadata.is_dir() {
            open.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|found| found.unwrap().path()),
            );
        } else if metadata.is_file() {
            content = std::fs::read(&path).unwrap();
        }
        let facts = (
            metadata.mode(),
            metadata.ino(),
            metadata.nlink(),
            metadata.ctime(),
            metadata.ctime_nsec(),
            content,
        );
        all.insert(path, facts);
    }
    all
}
