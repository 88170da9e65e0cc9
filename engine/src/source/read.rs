//! The bytes of one file, run by run, and whether it stayed the same meanwhile.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Advice, AtFlags, OFlags, SeekFrom, fadvise};
use rustix::io::Errno;

use super::attributes::{AttributeList, attributes_of_open};
use super::stat::{Identity, STATX_MASK, WalkIssue, Walked};
use crate::calls;

/// Files below this size have no hole worth finding, and are read without a hint.
const SMALL_BYTES: u64 = 4 << 10;
/// Files from this size on are announced as being read from start to end.
const HINT_BYTES: u64 = 1 << 20;

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// Bytes to be read; a file that shrinks, or a pipe, may end before `length`.
    Data {
        /// Where the run starts.
        offset: u64,
        /// Bytes at most; `u64::MAX` for a pipe, whose end is not known.
        length: u64,
    },
    /// Zeros that take no room in the source.
    Hole {
        /// Where the run starts.
        offset: u64,
        /// Bytes, at least 1.
        length: u64,
    },
}

/// What a file turned out to be after it was read.
#[derive(Debug)]
pub enum Finish {
    /// It is as the walk found it, so what was read belongs together.
    Unchanged,
    /// It was changed or replaced meanwhile: the entry as it is now, to be read again.
    Changed(Box<Walked>),
}

/// A file that is being read.
///
/// A small file costs one `open`, as many reads as it takes, and one look at the end.
#[derive(Debug)]
pub struct FileReader {
    file: OwnedFd,
    walked: Walked,
    size: u64,
    /// Where the next run starts.
    position: u64,
    /// Where the current run goes on, and where it ends.
    run_at: u64,
    run_end: u64,
    bytes_read: u64,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Without holes.
    Plain,
    /// With holes that the file system can tell.
    Sparse,
    /// A pipe: read to its end, in order.
    Stream,
}

impl FileReader {
    /// Opens a file (or, if the walk took them as such, a block device or a pipe).
    ///
    /// Nothing is waited for, and no symbolic link is followed: that a pipe has no writer yet
    /// shows in [`Self::is_ready`].
    ///
    /// # Errors
    /// An issue for the report; [`WalkIssue::is_vanished`] if the file is gone.
    pub fn open(walked: &Walked) -> Result<Self, WalkIssue> {
        let file = open_content(walked).map_err(|error| walked.issue("open", error))?;
        let mut reader = Self {
            file,
            walked: walked.clone(),
            size: walked.entry.size,
            position: 0,
            run_at: 0,
            run_end: 0,
            bytes_read: 0,
            kind: Kind::Plain,
        };
        if walked.entry.flags.read_as_special {
            reader
                .measure_special()
                .map_err(|error| walked.issue("measure", error))?;
        } else if reader.size >= SMALL_BYTES && walked.allocated_bytes < reader.size {
            reader.kind = Kind::Sparse;
        }
        if reader.size >= HINT_BYTES {
            // A hint that is refused changes nothing.
            let _ = fadvise(&reader.file, 0, None, Advice::Sequential);
        }
        Ok(reader)
    }

    /// Gives the size in bytes that the file is taken to have; 0 for a pipe.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Gives the bytes that were read or skipped as holes: the size of the content that was
    /// seen, whatever the file system said.
    #[must_use]
    pub fn bytes_seen(&self) -> u64 {
        self.bytes_read
    }

    /// Goes to the next run; its data is then had by [`Read::read`] until that gives 0.
    ///
    /// What was left of a run before is skipped.
    ///
    /// # Errors
    /// An issue for the report.
    pub fn next_run(&mut self) -> Result<Option<Run>, WalkIssue> {
        if self.position >= self.size && self.kind != Kind::Stream {
            (self.run_at, self.run_end) = (0, 0);
            return Ok(None);
        }
        let run = self
            .find_run()
            .map_err(|error| self.walked.issue("find holes in", error))?;
        match run {
            Some(Run::Data { offset, length }) => {
                (self.run_at, self.run_end) = (offset, offset.saturating_add(length));
                self.position = self.run_end;
            }
            Some(Run::Hole { offset, length }) => {
                self.position = offset + length;
                (self.run_at, self.run_end) = (self.position, self.position);
                self.bytes_read += length;
            }
            None => (self.run_at, self.run_end) = (0, 0),
        }
        Ok(run)
    }

    /// Tells whether a read gives bytes, or the end, at once; waits for it as long as `patience`,
    /// or for ever. Only a pipe ever keeps anybody waiting: for its first writer, and for bytes.
    ///
    /// # Errors
    /// What the operating system answers.
    pub fn is_ready(&self, patience: Option<Duration>) -> io::Result<bool> {
        if self.kind != Kind::Stream {
            return Ok(true);
        }
        let patience = patience.map(Timespec::try_from).transpose();
        let patience = patience.map_err(io::Error::other)?;
        let mut waiting = [PollFd::new(&self.file, PollFlags::IN)];
        match poll(&mut waiting, patience.as_ref()) {
            Ok(count) => Ok(count > 0),
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Reads the attributes of the open file.
    #[must_use]
    pub fn attributes(&self) -> AttributeList {
        attributes_of_open(&self.walked, self.file.as_fd())
    }

    /// Looks whether the file is still as the walk found it.
    ///
    /// # Errors
    /// An issue for the report.
    pub fn finish(self) -> Result<Finish, WalkIssue> {
        let found = calls::statx(&self.file, c"", AtFlags::EMPTY_PATH, STATX_MASK)
            .map_err(|errno| self.walked.issue("look again at", errno.into()))?;
        let now = self.walked.with_stat(&found)?;
        let then = &self.walked.entry;
        let is_special = then.flags.read_as_special;
        let is_same = Identity::of(&found) == self.walked.identity
            && now.entry.kind == then.kind
            && now.entry.flags.read_as_special == is_special
            && now.entry.size == then.size
            && (is_special || (now.entry.mtime == then.mtime && now.entry.ctime == then.ctime));
        Ok(if is_same {
            Finish::Unchanged
        } else {
            Finish::Changed(Box::new(now))
        })
    }

    fn measure_special(&mut self) -> io::Result<()> {
        match calls::seek(&self.file, SeekFrom::End(0)) {
            Ok(size) => self.size = size,
            Err(Errno::SPIPE) => self.kind = Kind::Stream,
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    fn find_run(&mut self) -> io::Result<Option<Run>> {
        let offset = self.position;
        let rest = self.size.saturating_sub(offset);
        match self.kind {
            Kind::Plain => Ok(Some(Run::Data {
                offset,
                length: rest,
            })),
            Kind::Stream if offset == 0 => Ok(Some(Run::Data {
                offset,
                length: u64::MAX,
            })),
            Kind::Stream => Ok(None),
            Kind::Sparse => self.find_sparse_run(offset, rest).map(Some),
        }
    }

    fn find_sparse_run(&mut self, offset: u64, rest: u64) -> io::Result<Run> {
        match calls::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) if data > offset => Ok(Run::Hole {
                offset,
                length: rest.min(data - offset),
            }),
            Ok(_) => match calls::seek(&self.file, SeekFrom::Hole(offset)) {
                Ok(hole) if hole > offset => Ok(Run::Data {
                    offset,
                    length: rest.min(hole - offset),
                }),
                // The file shrank or changed in between: reading will tell.
                Ok(_) | Err(Errno::NXIO) => Ok(Run::Data {
                    offset,
                    length: rest,
                }),
                Err(errno) => Err(errno.into()),
            },
            // Nothing but a hole is left, unless the file has shrunk.
            Err(Errno::NXIO) => match calls::seek(&self.file, SeekFrom::End(0))? {
                end if end > offset => Ok(Run::Hole {
                    offset,
                    length: rest.min(end - offset),
                }),
                _ => Ok(Run::Data {
                    offset,
                    length: rest,
                }),
            },
            Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => {
                self.kind = Kind::Plain;
                Ok(Run::Data {
                    offset,
                    length: rest,
                })
            }
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Read for FileReader {
    /// Reads on in the current run; 0 bytes mean that it has ended, or the file has.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.run_end - self.run_at).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let buffer = buffer.get_mut(..wanted).unwrap_or_default();
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = loop {
            let result = match self.kind {
                Kind::Stream if !self.is_ready(None)? => Err(Errno::INTR),
                Kind::Stream => calls::read(&self.file, &mut *buffer),
                Kind::Plain | Kind::Sparse => calls::pread(&self.file, &mut *buffer, self.run_at),
            };
            match result {
                // Of a pipe, whoever else reads it may have been faster.
                Err(Errno::INTR | Errno::AGAIN) => {}
                result => break result?,
            }
        };
        self.run_at += count as u64;
        self.bytes_read += count as u64;
        if count == 0 {
            // The file is shorter than it was: nothing can follow.
            self.run_end = self.run_at;
            self.position = self.position.max(self.size);
        }
        Ok(count)
    }
}

fn open_content(walked: &Walked) -> io::Result<OwnedFd> {
    // A pipe that took a regular file's place must not block, and one that is wanted must not keep
    // an interrupted run waiting for its writer.
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::NONBLOCK;
    if walked.common.may_hide_reads(walked.entry.uid) {
        match walked.place.open(flags | OFlags::NOATIME) {
            Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {}
            opened => return opened,
        }
    }
    walked.place.open(flags)
}
