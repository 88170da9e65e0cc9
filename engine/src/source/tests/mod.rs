//! The walk and the reader over real trees, against `find` and a plain recursive walk.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod choices;
mod reading;
mod trees;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use larder_format::entry::{EntryType, Timestamp};
use larder_format::limits::KEY_BYTES;
use proptest::prelude::*;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags, makedev, mkdirat,
    mknodat, openat, setxattr, utimensat,
};
use tempfile::TempDir;

use super::attributes::attributes;
use super::only::Only;
use super::read::{FileReader, Finish, Run};
use super::select::{Pattern, SelectOptions, Selection};
use super::stat::{WalkIssue, Walked};
use super::walk::{Step, Walk, WalkOptions};

fn start_with(source: &Path, select: SelectOptions, options: WalkOptions) -> Walk {
    Walk::start(source, Selection::compile(select, source).unwrap(), options).unwrap()
}

fn start(source: &Path) -> Walk {
    start_with(source, SelectOptions::default(), WalkOptions::default())
}

fn collect(walk: impl Iterator<Item = Step>) -> (Vec<Walked>, Vec<WalkIssue>) {
    let (mut entries, mut issues) = (Vec::new(), Vec::new());
    for step in walk {
        match step {
            Step::Entry(walked) => entries.push(*walked),
            Step::Issue(issue) => issues.push(issue),
        }
    }
    (entries, issues)
}

fn entries(walk: impl Iterator<Item = Step>) -> Vec<Walked> {
    let (entries, issues) = collect(walk);
    assert!(issues.is_empty(), "{issues:?}");
    entries
}

fn keys(entries: &[Walked]) -> Vec<Vec<u8>> {
    entries
        .iter()
        .map(|walked| walked.entry.key.clone())
        .collect()
}

fn text_keys(entries: &[Walked]) -> Vec<String> {
    entries
        .iter()
        .map(|walked| String::from_utf8(walked.entry.key.clone()).unwrap())
        .collect()
}

fn find<'a>(entries: &'a [Walked], key: &str) -> &'a Walked {
    entries
        .iter()
        .find(|walked| walked.entry.key == key.as_bytes())
        .unwrap()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Makes files of the given paths (folders for those that end in `/`) and contents.
fn tree(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let full = folder.path().join(path);
        if path.ends_with('/') {
            fs::create_dir_all(full).unwrap();
        } else {
            fs::create_dir_all(full.parent().unwrap()).unwrap();
            fs::write(full, content).unwrap();
        }
    }
    folder
}

/// Makes `levels` folders one in another, all of that name, and gives the innermost.
fn deep(parent: &Path, name: &str, levels: usize) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut handle = openat(CWD, parent, flags, Mode::empty()).unwrap();
    for _ in 0..levels {
        mkdirat(&handle, name, Mode::from_raw_mode(0o755)).unwrap();
        handle = openat(&handle, name, flags, Mode::empty()).unwrap();
    }
    handle
}

/// Makes a folder in memory where there is such a place: thousands of folders on a disk take
/// seconds.
fn folder_in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// Removes a tree that is too deep for one that recurses or uses whole paths.
fn remove_deep(path: &Path) {
    assert!(
        Command::new("rm")
            .arg("-rf")
            .arg(path)
            .status()
            .unwrap()
            .success()
    );
}

fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn awkward() -> TempDir {
    let folder = tree(&[
        ("a-b", "1"),
        ("a.c", "22"),
        ("a/x", "333"),
        ("a/y/", ""),
        ("a0", "4444"),
        ("ab", "5"),
        ("empty", ""),
        ("empty folder/", ""),
        ("new\nline", "n"),
        ("new\nfolder\n/\n", "n"),
        ("old", "o"),
        ("far", "f"),
        ("setuid", "s"),
        ("linked", "l"),
    ]);
    let path = folder.path();
    fs::write(path.join(OsStr::from_bytes(b"\xff\xfe")), "bytes").unwrap();
    fs::create_dir(path.join(OsStr::from_bytes(b"a\x80"))).unwrap();
    fs::write(path.join(OsStr::from_bytes(b"a\x80/\x01")), "bytes").unwrap();
    symlink("nowhere/at all", path.join("dangling")).unwrap();
    symlink("a", path.join("to folder")).unwrap();
    fs::hard_link(path.join("linked"), path.join("a/linked too")).unwrap();
    let sparse = fs::File::create(path.join("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    let mode = Mode::from_raw_mode(0o640);
    mknodat(CWD, path.join("pipe"), FileType::Fifo, mode, 0).unwrap();
    mknodat(CWD, path.join("socket"), FileType::Socket, mode, 0).unwrap();
    if is_root() {
        for (name, kind) in [
            ("char", FileType::CharacterDevice),
            ("block", FileType::BlockDevice),
        ] {
            mknodat(CWD, path.join(name), kind, mode, makedev(300, 70_000)).unwrap();
        }
    }
    fs::set_permissions(path.join("setuid"), fs::Permissions::from_mode(0o6711)).unwrap();
    fs::set_permissions(
        path.join("empty folder"),
        fs::Permissions::from_mode(0o1777),
    )
    .unwrap();
    set_mtime(&path.join("old"), -1_000_000_000, 123_456_789);
    set_mtime(&path.join("far"), 10_000_000_000, 1);
    set_mtime(&path.join("dangling"), 1, 999_999_999);
    deep(path, &"d".repeat(203), 40);
    folder
}

/// Reads all of a file, holes as zeros.
fn read_all(reader: &mut FileReader) -> (Vec<u8>, Vec<Run>) {
    let (mut bytes, mut runs) = (Vec::new(), Vec::new());
    while let Some(run) = reader.next_run().unwrap() {
        match run {
            Run::Data { offset, .. } => {
                assert_eq!(offset, bytes.len() as u64);
                reader.read_to_end(&mut bytes).unwrap();
            }
            Run::Hole { length, .. } => bytes.resize(bytes.len() + length as usize, 0),
        }
        runs.push(run);
    }
    assert_eq!(reader.bytes_seen(), bytes.len() as u64);
    (bytes, runs)
}

fn content(walked: &Walked) -> Vec<u8> {
    let mut reader = FileReader::open(walked).unwrap();
    let (bytes, _) = read_all(&mut reader);
    assert!(matches!(reader.finish().unwrap(), Finish::Unchanged));
    bytes
}

fn walk_one(content: &[u8]) -> (TempDir, PathBuf, Walked) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, content).unwrap();
    let walked = find(&entries(start(folder.path())), "file").clone();
    (folder, path, walked)
}
