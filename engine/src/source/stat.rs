//! One entry's metadata, as one `statx` gives it, and the means to reach the entry again.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use larder_format::entry::{Entry, EntryFlags, EntryType, Timestamp};
use larder_format::limits::{LINK_TARGET_BYTES, OWNER_NAME_BYTES};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Statx, StatxFlags, StatxTimestamp};
use rustix::io::Errno;
use rustix::process::Uid;

use super::folder::{Folder, Handles};
use crate::calls;

/// Names of owners that are kept; the cache is emptied when it has more.
const OWNERS_MAX: usize = 1 << 16;

/// Something of the source that could not be read, or not as it should have been.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {error}", path.display())]
pub struct WalkIssue {
    /// The path as the user knows it.
    pub path: PathBuf,
    /// What was tried, as a verb: "open", "list" ...
    pub operation: &'static str,
    /// Why it failed.
    #[source]
    pub error: io::Error,
}

impl WalkIssue {
    /// Tells whether the entry was gone when it was tried: no failure, it is no longer there.
    #[must_use]
    pub fn is_vanished(&self) -> bool {
        self.error.kind() == io::ErrorKind::NotFound
    }
}

/// An entry of the source with the means to read it.
#[derive(Debug, Clone)]
pub struct Walked {
    /// The entry as it was found, without content and attributes.
    pub entry: Entry,
    pub(super) place: Place,
    pub(super) identity: Identity,
    /// Bytes that the file system has given the content: less than the size if it has holes.
    pub(super) allocated_bytes: u64,
    pub(super) common: Arc<Common>,
}

impl Walked {
    /// Gives the path as the user knows it: the source's own, and the key below it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.common.path(&self.entry.key)
    }

    /// Looks at the entry again, by its name: what is there now.
    ///
    /// # Errors
    /// An issue for the report; [`WalkIssue::is_vanished`] if nothing is there any more.
    pub fn look_again(&self) -> Result<Self, WalkIssue> {
        let found = self
            .place
            .look()
            .map_err(|error| self.issue("look again at", error))?;
        self.with_stat(&found)
    }

    /// Gives the same place with metadata that was read later.
    pub(super) fn with_stat(&self, found: &Statx) -> Result<Self, WalkIssue> {
        self.common
            .describe(self.entry.key.clone(), self.place.clone(), found)
            .map_err(|error| self.issue("describe", error))
    }

    pub(super) fn issue(&self, operation: &'static str, error: io::Error) -> WalkIssue {
        WalkIssue {
            path: self.path(),
            operation,
            error,
        }
    }
}

/// What tells two things of one file system apart, whatever their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) device: u64,
    pub(super) inode: u64,
}

impl Identity {
    pub(super) fn of(found: &Statx) -> Self {
        let device = device_number(found.stx_dev_major, found.stx_dev_minor);
        Self {
            device,
            inode: found.stx_ino,
        }
    }
}

#[cfg(any(test, feature = "testing"))]
fn is_simulated() -> bool {
    crate::simulated::is_on()
}

#[cfg(not(any(test, feature = "testing")))]
fn is_simulated() -> bool {
    false
}

fn device_number(major: u32, minor: u32) -> u64 {
    (u64::from(major) << 32) | u64::from(minor)
}

/// Where an entry is reached from.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// By this name from that folder.
    Below(Arc<Folder>, Box<[u8]>),
    /// It is the source: by the path that was given.
    Source(Arc<Path>),
}

impl Place {
    /// Calls `act` with a folder's handle and the name to be looked up from it.
    pub(super) fn with<T>(
        &self,
        act: impl FnOnce(BorrowedFd<'_>, &OsStr) -> io::Result<T>,
    ) -> io::Result<T> {
        match self {
            Self::Below(folder, name) => {
                let handle = folder.handle()?;
                act(handle.as_fd(), OsStr::from_bytes(name))
            }
            Self::Source(path) => act(CWD, path.as_os_str()),
        }
    }

    /// Looks at what is there; a symbolic link is not followed.
    pub(super) fn look(&self) -> io::Result<Statx> {
        self.with(|at, name| {
            Ok(calls::statx(
                at,
                name,
                AtFlags::SYMLINK_NOFOLLOW,
                STATX_MASK,
            )?)
        })
    }

    /// Opens what is there; a symbolic link is not followed.
    pub(super) fn open(&self, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.with(|at, name| Ok(calls::openat(at, name, flags, Mode::empty())?))
    }
}

/// What all entries of one walk share.
#[derive(Debug)]
pub(super) struct Common {
    /// The source as it was given.
    pub(super) source: Arc<Path>,
    pub(super) handles: Arc<Handles>,
    /// Whether entries keep the time of the last read.
    atime: bool,
    /// Whether numbers that the system chose are left out, since they differ from run to run.
    is_simulated: bool,
    /// Whom the system takes this process for.
    euid: Uid,
    pub(super) read_special: bool,
    /// Devices in the order of first sight; the place in it is the ordinal in an entry.
    filesystems: Mutex<Vec<u64>>,
    owners: Mutex<Owners>,
}

impl Common {
    pub(super) fn new(source: &Path, open_max: usize, atime: bool, read_special: bool) -> Self {
        Self {
            source: source.into(),
            handles: Arc::new(Handles::new(open_max)),
            atime,
            is_simulated: is_simulated(),
            euid: rustix::process::geteuid(),
            read_special,
            filesystems: Mutex::new(Vec::new()),
            owners: Mutex::new(Owners::default()),
        }
    }

    /// Tells whether files of that owner may be read without a trace in their atime.
    pub(super) fn may_hide_reads(&self, uid: u32) -> bool {
        self.euid.is_root() || self.euid.as_raw() == uid
    }

    /// Gives the path that a key stands for.
    pub(super) fn path(&self, key: &[u8]) -> PathBuf {
        if key.is_empty() {
            return self.source.to_path_buf();
        }
        self.source.join(OsStr::from_bytes(key))
    }

    /// Makes an entry of what `statx` found, reading a symbolic link's target.
    pub(super) fn describe(
        self: &Arc<Self>,
        key: Vec<u8>,
        place: Place,
        found: &Statx,
    ) -> io::Result<Walked> {
        let mode = u32::from(found.stx_mode);
        let (kind, read_as_special) = self.kind_of(mode)?;
        let link_target = match kind {
            EntryType::Symlink => read_link(&place)?,
            _ => Vec::new(),
        };
        let identity = Identity::of(found);
        let (user, group) = self.names(found.stx_uid, found.stx_gid);
        let is_plain = kind == EntryType::File && !read_as_special;
        // One that is read as a file is a file.
        let is_device = matches!(kind, EntryType::CharacterDevice | EntryType::BlockDevice);
        let mut entry = Entry {
            key,
            kind,
            size: if is_plain { found.stx_size } else { 0 },
            mode: mode & 0o7777,
            uid: found.stx_uid,
            gid: found.stx_gid,
            user,
            group,
            mtime: timestamp(found.stx_mtime),
            ctime: timestamp(found.stx_ctime),
            atime: self.atime.then(|| timestamp(found.stx_atime)),
            inode: found.stx_ino,
            filesystem: self.filesystem_ordinal(identity.device),
            links: u64::from(found.stx_nlink),
            link_target,
            device: if is_device {
                device_number(found.stx_rdev_major, found.stx_rdev_minor)
            } else {
                0
            },
            flags: EntryFlags {
                read_as_special,
                ..EntryFlags::default()
            },
            ..Entry::default()
        };
        if self.is_simulated {
            entry.inode = 0;
            entry.ctime = entry.mtime;
        }
        let allocated_bytes = found.stx_blocks.saturating_mul(512);
        Ok(Walked {
            entry,
            place,
            identity,
            allocated_bytes,
            common: Arc::clone(self),
        })
    }

    fn kind_of(&self, mode: u32) -> io::Result<(EntryType, bool)> {
        Ok(match FileType::from_raw_mode(mode) {
            FileType::RegularFile => (EntryType::File, false),
            FileType::Directory => (EntryType::Directory, false),
            FileType::Symlink => (EntryType::Symlink, false),
            // Character devices have no end: they are never read.
            FileType::Fifo | FileType::BlockDevice if self.read_special => (EntryType::File, true),
            FileType::Fifo => (EntryType::Fifo, false),
            FileType::BlockDevice => (EntryType::BlockDevice, false),
            FileType::Socket => (EntryType::Socket, false),
            FileType::CharacterDevice => (EntryType::CharacterDevice, false),
            FileType::Unknown => {
                return Err(io::Error::other(format!(
                    "unknown type of file (mode {mode:o})"
                )));
            }
        })
    }

    fn filesystem_ordinal(&self, device: u64) -> u64 {
        let mut seen = self
            .filesystems
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let place = seen
            .iter()
            .position(|other| *other == device)
            .unwrap_or_else(|| {
                seen.push(device);
                seen.len() - 1
            });
        place as u64
    }

    fn names(&self, uid: u32, gid: u32) -> (Vec<u8>, Vec<u8>) {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        (owners.user(uid), owners.group(gid))
    }
}

/// Names of users and groups: asking the system for each entry would dominate a walk.
#[derive(Debug, Default)]
struct Owners {
    users: HashMap<u32, Vec<u8>>,
    groups: HashMap<u32, Vec<u8>>,
}

impl Owners {
    fn user(&mut self, uid: u32) -> Vec<u8> {
        if self.users.len() > OWNERS_MAX {
            self.users.clear();
        }
        let find = || uzers::get_user_by_uid(uid).map(|user| short_name(user.name()));
        self.users
            .entry(uid)
            .or_insert_with(|| find().unwrap_or_default())
            .clone()
    }

    fn group(&mut self, gid: u32) -> Vec<u8> {
        if self.groups.len() > OWNERS_MAX {
            self.groups.clear();
        }
        let find = || uzers::get_group_by_gid(gid).map(|group| short_name(group.name()));
        self.groups
            .entry(gid)
            .or_insert_with(|| find().unwrap_or_default())
            .clone()
    }
}

/// Takes a name that an entry can hold: half of a longer one would be another name.
fn short_name(name: &OsStr) -> Vec<u8> {
    if name.len() > OWNER_NAME_BYTES {
        Vec::new()
    } else {
        name.as_bytes().to_vec()
    }
}

fn read_link(place: &Place) -> io::Result<Vec<u8>> {
    let target =
        place.with(|at, name| Ok(calls::readlinkat(at, name, Vec::new())?.into_bytes()))?;
    if target.len() > LINK_TARGET_BYTES {
        return Err(Errno::NAMETOOLONG.into());
    }
    Ok(target)
}

fn timestamp(time: StatxTimestamp) -> Timestamp {
    Timestamp {
        seconds: time.tv_sec,
        nanoseconds: time.tv_nsec.min(999_999_999),
    }
}

/// The fields of `statx` that an entry is made of.
pub(super) const STATX_MASK: StatxFlags = StatxFlags::BASIC_STATS;
