//! Extended attributes of an entry, POSIX ACLs and capabilities among them.
//!
//! They cost system calls of their own, so they are read only when an entry is new or changed.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;

use super::stat::{Identity, STATX_MASK, WalkIssue, Walked};
use crate::calls;

/// Bytes that Linux allows for one attribute's value, and for the list of their names.
const ATTRIBUTE_BYTES_MAX: usize = 64 << 10;

/// The extended attributes of an entry.
#[derive(Debug, Default)]
pub struct AttributeList {
    /// Raw names and values as the system gives them, sorted by name.
    pub pairs: Vec<(Vec<u8>, Vec<u8>)>,
    /// What could not be read: then the entry's `attributes_incomplete` is to be set.
    pub issues: Vec<WalkIssue>,
}

/// Reads the attributes of an entry whose content is not being read.
///
/// The entry is looked up once, without following a symbolic link and without opening what it
/// names, so that unreadable files, pipes and devices are no exception.
#[must_use]
pub fn attributes(walked: &Walked) -> AttributeList {
    let handle = match walked.place.open(OFlags::PATH) {
        Ok(handle) => handle,
        Err(error) => return failed(walked, error),
    };
    match calls::statx(&handle, c"", AtFlags::EMPTY_PATH, STATX_MASK) {
        Ok(found) if Identity::of(&found) == walked.identity => {}
        Ok(_) => return failed(walked, Errno::STALE.into()),
        Err(errno) => return failed(walked, errno.into()),
    }
    // Such a handle allows no call on itself, but the system's own link to it does.
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let list = read(walked, &Subject::Path(&path));
    let without_proc = list.issues.iter().any(WalkIssue::is_vanished);
    if !without_proc {
        return list;
    }
    match walked
        .place
        .open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
    {
        Ok(handle) if walked.entry.kind == larder_format::entry::EntryType::Directory => {
            read(walked, &Subject::Handle(handle.as_fd()))
        }
        _ => list,
    }
}

/// Reads the attributes of an entry that is open.
pub(super) fn attributes_of_open(walked: &Walked, handle: BorrowedFd<'_>) -> AttributeList {
    read(walked, &Subject::Handle(handle))
}

enum Subject<'a> {
    Handle(BorrowedFd<'a>),
    Path(&'a str),
}

impl Subject<'_> {
    fn list(&self) -> io::Result<Vec<u8>> {
        let mut names = Vec::with_capacity(ATTRIBUTE_BYTES_MAX);
        match self {
            Self::Handle(handle) => calls::flistxattr(handle, spare_capacity(&mut names))?,
            Self::Path(path) => calls::listxattr(*path, spare_capacity(&mut names))?,
        };
        Ok(names)
    }

    fn value(&self, name: &CStr) -> io::Result<Vec<u8>> {
        let mut value = Vec::with_capacity(ATTRIBUTE_BYTES_MAX);
        match self {
            Self::Handle(handle) => calls::fgetxattr(handle, name, spare_capacity(&mut value))?,
            Self::Path(path) => calls::getxattr(*path, name, spare_capacity(&mut value))?,
        };
        value.shrink_to_fit();
        Ok(value)
    }
}

fn read(walked: &Walked, subject: &Subject<'_>) -> AttributeList {
    let names = match subject.list() {
        Ok(names) => names,
        Err(error) if is_unsupported(&error) => return AttributeList::default(),
        Err(error) => return failed(walked, error),
    };
    let mut list = AttributeList::default();
    let mut rest = names.as_slice();
    while let Ok(name) = CStr::from_bytes_until_nul(rest) {
        rest = rest
            .get(name.to_bytes_with_nul().len()..)
            .unwrap_or_default();
        match subject.value(name) {
            Ok(value) => list.pairs.push((name.to_bytes().to_vec(), value)),
            // It was removed since the names were listed.
            Err(error) if is_errno(&error, Errno::NODATA) => {}
            Err(error) => {
                list.issues
                    .push(walked.issue("read an extended attribute of", error));
            }
        }
    }
    list.pairs.sort_unstable();
    list.pairs.dedup_by(|later, earlier| later.0 == earlier.0);
    list
}

fn failed(walked: &Walked, error: io::Error) -> AttributeList {
    let issues = vec![walked.issue("read the extended attributes of", error)];
    AttributeList {
        pairs: Vec::new(),
        issues,
    }
}

/// Tells whether the file system (or this kind of file) has no attributes at all.
fn is_unsupported(error: &io::Error) -> bool {
    is_errno(error, Errno::NOTSUP) || is_errno(error, Errno::NOSYS)
}

fn is_errno(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
