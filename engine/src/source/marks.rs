//! Files that say what is to be left out of the folder they lie in.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use ignore::gitignore::Gitignore;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::select::{Mark, Selection, compile_ignore_file};
use crate::calls;

/// Bytes of an ignore file that are read at most.
const IGNORE_FILE_BYTES_MAX: usize = 1 << 20;

/// A file in a folder that could not be used: its name, what was tried, and why it failed.
pub(super) type MarkIssue = (PathBuf, &'static str, io::Error);

/// Reads the ignore files of a folder, in the order of their names in the choice.
pub(super) fn ignore_files_in(
    selection: &Selection,
    handle: BorrowedFd<'_>,
    issues: &mut Vec<MarkIssue>,
) -> Vec<Gitignore> {
    let mut all = Vec::new();
    for name in &selection.ignore_file_names {
        let bytes = match read_start(handle, name.as_bytes(), IGNORE_FILE_BYTES_MAX + 1) {
            Ok(Some(bytes)) if bytes.len() > IGNORE_FILE_BYTES_MAX => {
                let error = io::Error::other("it has more than 1 MiB, which no ignore file has");
                issues.push((name.into(), "use", error));
                continue;
            }
            Ok(Some(bytes)) => bytes,
            Ok(None) => continue,
            Err(error) => {
                issues.push((name.into(), "read", error));
                continue;
            }
        };
        let (patterns, errors) = compile_ignore_file(&bytes);
        let errors = errors.into_iter().map(io::Error::other);
        issues.extend(errors.map(|error| (PathBuf::from(name), "use all of", error)));
        if !patterns.is_empty() {
            all.push(patterns);
        }
    }
    all
}

/// Gives the names of the marking files that lie in a folder, sorted.
pub(super) fn marks_in(
    marks: &[Mark],
    handle: BorrowedFd<'_>,
    issues: &mut Vec<MarkIssue>,
) -> Vec<Vec<u8>> {
    let mut present = Vec::new();
    for mark in marks {
        match has_mark(handle, mark) {
            Ok(true) => present.push(mark.name.clone()),
            Ok(false) => {}
            Err(error) => issues.push((OsStr::from_bytes(&mark.name).into(), "read", error)),
        }
    }
    present.sort_unstable();
    present.dedup();
    present
}

fn has_mark(handle: BorrowedFd<'_>, mark: &Mark) -> io::Result<bool> {
    if !mark.header.is_empty() {
        let start = read_start(handle, &mark.name, mark.header.len())?;
        return Ok(start.is_some_and(|start| start == mark.header));
    }
    let name = mark.name.as_slice();
    match calls::statx(handle, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE) {
        // Only a file marks: a folder of that name would lose what is in it.
        Ok(found) => Ok(FileType::from_raw_mode(u32::from(found.stx_mode)) != FileType::Directory),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Reads the first bytes of a regular file; none if there is no such file.
fn read_start(parent: BorrowedFd<'_>, name: &[u8], bytes: usize) -> io::Result<Option<Vec<u8>>> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match calls::openat(parent, name, flags, Mode::empty()) {
        Ok(file) => file,
        // Not there, or a link, a socket: none of them counts.
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    if !FileType::from_raw_mode(calls::fstat(&file)?.st_mode).is_file() {
        return Ok(None);
    }
    let mut start = vec![0; bytes];
    let mut filled = 0;
    while let Some(rest) = start.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match calls::read(&file, rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    start.truncate(filled);
    Ok(Some(start))
}
