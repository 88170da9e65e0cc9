//! Symbolic links, hard links, pipes, sockets and devices.

use std::io;
use std::os::fd::OwnedFd;

use larder_format::entry::{Entry, EntryType};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use super::error::{Context as _, TargetError};
use super::metadata::{Attribute, Handle};
use super::names::check_leaf;
use super::tree::Target;
use crate::calls;

/// Which node a name led to when it was made or looked at; stays valid while a name is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId {
    /// The system's number of the file system.
    pub device: u64,
    /// The number of the inode on it.
    pub inode: u64,
    /// What it is.
    pub kind: EntryType,
}

impl NodeId {
    pub(super) fn of(stat: &Stat) -> Self {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => EntryType::Directory,
            FileType::Symlink => EntryType::Symlink,
            FileType::Fifo => EntryType::Fifo,
            FileType::Socket => EntryType::Socket,
            FileType::CharacterDevice => EntryType::CharacterDevice,
            FileType::BlockDevice => EntryType::BlockDevice,
            _ => EntryType::File,
        };
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            kind,
        }
    }
}

impl Target {
    /// Makes a symbolic link that points to the entry's link target, whatever that is.
    ///
    /// # Errors
    /// An unsafe key, a name that is taken by something that is to stay, a target that is empty
    /// or too long, or an error of the system.
    pub fn create_symlink(
        &self,
        key: &[u8],
        entry: &Entry,
        attributes: &[Attribute],
    ) -> Result<NodeId, TargetError> {
        let make = |parent: &OwnedFd, temporary: &str| {
            Ok(calls::symlinkat(
                entry.link_target.as_slice(),
                parent,
                temporary,
            )?)
        };
        self.make_node(key, entry, attributes, make)
            .on("create the symbolic link", key)
    }

    /// Makes a named pipe, a socket, or, if the options say so, a device.
    ///
    /// # Errors
    /// An unsafe key, a type that is none of these or not to be made, a name that is taken by
    /// something that is to stay, or an error of the system.
    pub fn create_special(
        &self,
        key: &[u8],
        entry: &Entry,
        attributes: &[Attribute],
    ) -> Result<NodeId, TargetError> {
        let make = |parent: &OwnedFd, temporary: &str| {
            let (kind, device) = self.special(entry)?;
            let mode = Mode::RUSR | Mode::WUSR;
            Ok(calls::mknodat(parent, temporary, kind, mode, device)?)
        };
        self.make_node(key, entry, attributes, make)
            .on("create the special file", key)
    }

    /// Gives the system's type and device number for an entry.
    fn special(&self, entry: &Entry) -> io::Result<(FileType, u64)> {
        let refuse = |why| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        let kind = match entry.kind {
            EntryType::Fifo => return Ok((FileType::Fifo, 0)),
            EntryType::Socket => return Ok((FileType::Socket, 0)),
            EntryType::CharacterDevice => FileType::CharacterDevice,
            EntryType::BlockDevice => FileType::BlockDevice,
            _ => return refuse("the entry is no special file"),
        };
        if !self.options.devices {
            return refuse("devices are made only by root or when asked for");
        }
        let major = u32::try_from(entry.device >> 32).unwrap_or(u32::MAX);
        let minor = u32::try_from(entry.device & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        Ok((kind, rustix::fs::makedev(major, minor)))
    }

    /// Makes a node under a temporary name, sets its metadata, renames it.
    fn make_node(
        &self,
        key: &[u8],
        entry: &Entry,
        attributes: &[Attribute],
        make: impl Fn(&OwnedFd, &str) -> io::Result<()>,
    ) -> io::Result<NodeId> {
        let components = check_leaf(key)?;
        let parent = self.directory(components.parent())?;
        let (_, temporary) = self.temporary();
        make(&parent, &temporary)?;
        let complete = || {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let open = || calls::openat(&parent, temporary.as_str(), flags, Mode::empty());
            let handle = self.with_room(open)?;
            let stat = calls::fstat(&handle)?;
            let id = NodeId::of(&stat);
            if id.kind != entry.kind {
                return Err(io::Error::other(
                    "something else took the place of what was made",
                ));
            }
            self.apply(&Handle::Path(&handle), &stat, entry, attributes);
            self.put_in_place(&parent, &temporary, components.name(), key)?;
            Ok(id)
        };
        complete().inspect_err(|_| {
            let _ = calls::unlinkat(&parent, temporary.as_str(), AtFlags::empty());
        })
    }

    /// Gives a node that this restore made a further name.
    ///
    /// `id` is what making it gave: whatever has its name by now is linked only if it is that
    /// node. A link's target is never linked instead of the link.
    ///
    /// # Errors
    /// An unsafe key, another node under the existing name, a new name that is taken by
    /// something that is to stay, or an error of the system (such as too many names, or a file
    /// system without hard links).
    pub fn link(
        &self,
        existing_key: &[u8],
        id: &NodeId,
        new_key: &[u8],
    ) -> Result<(), TargetError> {
        self.make_link(existing_key, id, new_key)
            .on("create the hard link", new_key)
    }

    fn make_link(&self, existing_key: &[u8], id: &NodeId, new_key: &[u8]) -> io::Result<()> {
        let (from, to) = (check_leaf(existing_key)?, check_leaf(new_key)?);
        let from_parent = self.directory(from.parent())?;
        let to_parent = self.directory(to.parent())?;
        let (_, temporary) = self.temporary();
        let name = temporary.as_str();
        let look = |parent: &OwnedFd, name: &[u8]| {
            let stat = calls::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if NodeId::of(&stat) == *id {
                return Ok(());
            }
            let why = "the file to link to is not the one that was restored";
            Err(io::Error::other(why))
        };
        // Before, so that nothing foreign is linked even for a moment; and after, since the
        // name may have changed hands in between.
        look(&from_parent, from.name())?;
        calls::linkat(
            &from_parent,
            from.name(),
            &to_parent,
            name,
            AtFlags::empty(),
        )?;
        let result = look(&to_parent, name.as_bytes())
            .and_then(|()| self.put_in_place(&to_parent, name, to.name(), new_key));
        // Also after success: renaming onto another name of the same file does nothing.
        let _ = calls::unlinkat(&to_parent, name, AtFlags::empty());
        result
    }
}
