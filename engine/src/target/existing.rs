//! What is in the target already.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use larder_format::entry::{Entry, EntryType, Timestamp};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, Stat};

use super::error::{Context as _, TargetError};
use super::metadata::{Attribute, Handle};
use super::names::{check_key, check_leaf};
use super::nodes::NodeId;
use super::options::Owners;
use super::plan::{Action, plan_entry};
use super::tree::Target;
use crate::calls;

/// What is known of something in the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: EntryType,
    /// Size in bytes; 0 for what is not a file.
    pub size: u64,
    /// Permission bits, 0o7777 at most.
    pub mode: u32,
    /// Owner's number.
    pub uid: u32,
    /// Group's number.
    pub gid: u32,
    /// Time of the last change of the content.
    pub mtime: Timestamp,
    /// Number of names.
    pub links: u64,
    /// Target of a symbolic link.
    pub link_target: Vec<u8>,
    /// Device number: major in the upper 32 bits, minor in the lower; 0 if it is no device.
    pub device: u64,
    /// Which node it is.
    pub id: NodeId,
}

impl Metadata {
    #[allow(
        clippy::useless_conversion,
        reason = "the fields' types differ between machines"
    )]
    pub(super) fn of(stat: &Stat, link_target: Vec<u8>) -> Self {
        let id = NodeId::of(stat);
        let is_device = matches!(id.kind, EntryType::CharacterDevice | EntryType::BlockDevice);
        let is_file = id.kind == EntryType::File;
        let (major, minor) = (
            rustix::fs::major(stat.st_rdev),
            rustix::fs::minor(stat.st_rdev),
        );
        Self {
            kind: id.kind,
            size: if is_file {
                u64::try_from(stat.st_size).unwrap_or(0)
            } else {
                0
            },
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: mtime_of(stat),
            links: u64::from(stat.st_nlink),
            link_target,
            device: if is_device {
                u64::from(major) << 32 | u64::from(minor)
            } else {
                0
            },
            id,
        }
    }
}

/// Gives a node's time of modification.
#[expect(
    clippy::useless_conversion,
    reason = "the fields' types differ between machines"
)]
pub(super) fn mtime_of(stat: &Stat) -> Timestamp {
    Timestamp {
        seconds: i64::try_from(stat.st_mtime).unwrap_or(i64::MAX),
        nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
    }
}

/// A file of the target, open for reading.
#[derive(Debug)]
pub struct ExistingFile {
    handle: OwnedFd,
    /// What is known of it.
    pub metadata: Metadata,
}

impl ExistingFile {
    /// Reads bytes from an offset on until the buffer is full or the file ends; gives how many.
    ///
    /// # Errors
    /// Those of the system.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        read_full_at(&self.handle, buffer, offset)
    }

    /// Gives where the next bytes at or after an offset may be that are not a hole.
    pub fn data_from(&self, offset: u64) -> u64 {
        data_from(&self.handle, offset)
    }
}

/// Gives where the next bytes at or after an offset may be that are not a hole; the largest number
/// if there are none.
pub(super) fn data_from(fd: &OwnedFd, offset: u64) -> u64 {
    match calls::seek(fd, SeekFrom::Data(offset)) {
        Ok(found) => found.max(offset),
        Err(rustix::io::Errno::NXIO) => u64::MAX,
        // A file system that does not tell: everything may be data.
        Err(_) => offset,
    }
}

/// Reads until the buffer is full or the file ends.
pub(super) fn read_full_at(fd: &OwnedFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match calls::pread(fd, rest, offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}

impl Target {
    /// Looks at what has a key's name; a link is not followed.
    ///
    /// Nothing is there also when a component above is missing or no directory.
    ///
    /// # Errors
    /// An unsafe key, or an error of the system.
    pub fn existing(&self, key: &[u8]) -> Result<Option<Metadata>, TargetError> {
        self.look_at(key).on("look at", key)
    }

    fn look_at(&self, key: &[u8]) -> io::Result<Option<Metadata>> {
        let components = check_key(key)?;
        if components.is_root() {
            return Ok(Some(Metadata::of(&calls::fstat(self.root())?, Vec::new())));
        }
        let Some(parent) = absent(self.directory(components.parent()))? else {
            return Ok(None);
        };
        self.stat_child(&parent, components.name())
    }

    /// Looks at a name within a directory.
    pub(super) fn stat_child(
        &self,
        parent: &Arc<OwnedFd>,
        name: &[u8],
    ) -> io::Result<Option<Metadata>> {
        let stat = calls::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
        let Some(stat) = absent(stat.map_err(io::Error::from))? else {
            return Ok(None);
        };
        let link_target = if FileType::from_raw_mode(stat.st_mode).is_symlink() {
            calls::readlinkat(parent, name, Vec::new())?.into_bytes()
        } else {
            Vec::new()
        };
        Ok(Some(Metadata::of(&stat, link_target)))
    }

    /// Decides what a restore does with an entry, given what [`Target::existing`] found.
    #[must_use]
    pub fn plan(&self, entry: &Entry, existing: Option<&Metadata>) -> Action {
        let settable = self.as_root && self.options.owners != Owners::None;
        let owner = settable.then(|| self.owner_names.resolve(entry, &self.options));
        plan_entry(entry, existing, self.options.overwrite, owner)
    }

    /// Opens a regular file for reading; nothing if there is none of that name.
    ///
    /// # Errors
    /// An unsafe key, or an error of the system.
    pub fn open_existing(&self, key: &[u8]) -> Result<Option<ExistingFile>, TargetError> {
        self.open_file(key, OFlags::RDONLY).on("open the file", key)
    }

    /// Opens a regular file, with the flags given, without following links or waiting.
    pub(super) fn open_file(&self, key: &[u8], flags: OFlags) -> io::Result<Option<ExistingFile>> {
        let components = check_leaf(key)?;
        let Some(parent) = absent(self.directory(components.parent()))? else {
            return Ok(None);
        };
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        // Asked before it is opened: opening a device or a pipe may already do something.
        match self.stat_child(&parent, components.name())? {
            Some(there) if there.kind == EntryType::File => {}
            _ => return Ok(None),
        }
        let opened =
            self.with_room(|| calls::openat(&parent, components.name(), flags, Mode::empty()));
        let Some(handle) = absent(opened)? else {
            return Ok(None);
        };
        let metadata = Metadata::of(&calls::fstat(&handle)?, Vec::new());
        let is_file = metadata.kind == EntryType::File;
        Ok(is_file.then_some(ExistingFile { handle, metadata }))
    }

    /// Gives a file that is there the entry's owner, attributes, permissions and times, and
    /// leaves its content alone.
    ///
    /// # Errors
    /// An unsafe key, no such file, or a file with several names (it has to be written anew:
    /// its other names may lie outside of the target).
    pub fn apply_metadata(
        &self,
        key: &[u8],
        entry: &Entry,
        attributes: &[Attribute],
    ) -> Result<(), TargetError> {
        self.apply_to_existing(key, entry, attributes)
            .on("set the metadata of", key)
    }

    fn apply_to_existing(
        &self,
        key: &[u8],
        entry: &Entry,
        attributes: &[Attribute],
    ) -> io::Result<()> {
        let components = check_leaf(key)?;
        let parent = self.directory(components.parent())?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle =
            self.with_room(|| calls::openat(&parent, components.name(), flags, Mode::empty()))?;
        let stat = calls::fstat(&handle)?;
        if NodeId::of(&stat).kind != EntryType::File {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "there is no regular file",
            ));
        }
        if stat.st_nlink > 1 {
            let why = "the file has several names, and all of them would change";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        self.apply(&Handle::Path(&handle), &stat, entry, attributes);
        Ok(())
    }
}

impl ExistingFile {
    pub(super) fn handle(&self) -> &OwnedFd {
        &self.handle
    }

    /// Gives up the handle.
    pub(super) fn into_handle(self) -> OwnedFd {
        self.handle
    }
}

/// Turns the errors that mean "nothing is there" into nothing.
fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    use rustix::io::Errno;
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            _ => Err(error),
        },
    }
}
