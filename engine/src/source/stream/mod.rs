//! Streams as sources: standard input, and what a command prints. Each is one file that is read once,
//! to an end that nobody knows beforehand.

use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder_format::entry::{Entry, EntryFlags, EntryType, Timestamp};
use rustix::process::{getgid, getuid};

use crate::cancel::Cancel;
use crate::clock;
use crate::error::{EngineError, Result};
use crate::process::{Running, shell, wait_for};

/// What a stream may be read by: it may hold what only its owner should see.
const MODE: u32 = 0o600;

/// A stream that is backed up as one file.
#[derive(Debug, Clone)]
pub struct Stream {
    /// The path that the file has in the snapshot: absolute, without `.`, `..` and needless slashes.
    pub path: Vec<u8>,
    /// Where its bytes come from.
    pub origin: Origin,
}

/// Where a stream comes from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// Standard input, and whether it was begun with: it can be read once.
    StandardInput(Arc<AtomicBool>),
    /// What `/bin/sh -c` of this line prints, if it ends with 0.
    Command(String),
}

impl Origin {
    /// Means the standard input of this process.
    #[must_use]
    pub fn standard_input() -> Self {
        Self::StandardInput(Arc::default())
    }
}

/// A stream that is being read.
#[derive(Debug)]
pub enum Opened {
    /// Standard input, and what tells that nobody wants it any more.
    Standard(io::Stdin, Cancel),
    /// What a command prints.
    Program(Box<Running>),
}

impl Opened {
    /// Begins to read; a command is started.
    ///
    /// # Errors
    /// `Request` for a command that cannot be started, and for standard input that was read before.
    pub fn open(stream: &Stream, cancel: &Cancel) -> Result<Self> {
        match &stream.origin {
            Origin::StandardInput(was_read) => {
                if was_read.swap(true, Ordering::Relaxed) {
                    return Err(EngineError::Request(
                        "standard input can be read only once, and what was read of it is gone from the repository; run the backup again"
                            .to_owned(),
                    ));
                }
                Ok(Self::Standard(io::stdin(), cancel.clone()))
            }
            Origin::Command(line) => {
                let mut command = shell(line);
                command.stdin(Stdio::null());
                let name = format!("the command '{line}'");
                let running = Running::start(&mut command, &name, cancel)?;
                Ok(Self::Program(Box::new(running)))
            }
        }
    }

    /// Waits for the end of what was read to its last byte; gives the last of what a command said.
    ///
    /// # Errors
    /// `Request` for a command that did not end with 0; `Interrupted`.
    pub fn finish(self) -> Result<String> {
        match self {
            Self::Standard(..) => Ok(String::new()),
            Self::Program(running) => running.finish(),
        }
    }
}

impl Read for Opened {
    /// Waits for bytes until the stream ends or a stop is asked for, which is an error.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Standard(stdin, cancel) => {
                wait_for(stdin, cancel)?;
                // Past the buffer of the library, which `wait_for` does not see.
                Ok(rustix::io::read(stdin, buffer)?)
            }
            Self::Program(running) => running.read(buffer),
        }
    }
}

/// Gives the time now, as entries have it.
#[must_use]
pub fn now() -> Timestamp {
    let now = clock::now_ns();
    Timestamp {
        seconds: now.div_euclid(1_000_000_000),
        nanoseconds: u32::try_from(now.rem_euclid(1_000_000_000)).unwrap_or_default(),
    }
}

/// Makes the entry of a stream that is begun with now: a file of whoever reads it.
#[must_use]
pub fn entry() -> Entry {
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    let user = uzers::get_user_by_uid(uid);
    let group = uzers::get_group_by_gid(gid);
    Entry {
        kind: EntryType::File,
        mode: MODE,
        uid,
        gid,
        user: user.map_or_else(Vec::new, |user| user.name().as_bytes().to_vec()),
        group: group.map_or_else(Vec::new, |group| group.name().as_bytes().to_vec()),
        mtime: now(),
        links: 1,
        flags: EntryFlags {
            read_as_special: true,
            ..EntryFlags::default()
        },
        ..Entry::default()
    }
}
