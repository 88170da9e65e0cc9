//! Sets what an entry says about a node: owner, attributes, permissions, times, in this order.
//!
//! The order matters: changing the owner takes set-user-id bits and capabilities away, and an
//! access control list and the group's permissions are two views of the same bits, of which
//! the mode has the last word. What cannot be set is a warning, never an error: the content is
//! worth having without it.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use larder_format::entry::{Entry, EntryType, Timestamp};
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::options::Owners;
use super::tree::Target;
use super::warnings::WarningKind;
use crate::calls;

/// An extended attribute: full name (`user.x`, `system.posix_acl_access`) and value.
pub type Attribute = (Vec<u8>, Vec<u8>);

/// The size in bytes up to which lists of attribute names are read at once.
const NAMES_BYTES: usize = 1024;

/// The number that the system takes for "leave as it is".
const NOBODY: u32 = u32::MAX;

/// The handle of a node whose metadata is set.
pub(super) enum Handle<'a> {
    /// Open for reading or writing.
    Open(&'a OwnedFd),
    /// Open as a place only: links, pipes, devices. Permissions and attributes are then set
    /// through `/proc`, where the handle's name leads to exactly that node, not to what a link
    /// points to.
    Path(&'a OwnedFd),
}

/// Gives the path under which `/proc` shows an open handle.
pub(super) fn proc_path(handle: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", handle.as_raw_fd())
}

impl Handle<'_> {
    fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> rustix::io::Result<()> {
        let (Self::Open(fd) | Self::Path(fd)) = self;
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        calls::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH)
    }

    fn set_mode(&self, mode: u32) -> rustix::io::Result<()> {
        let mode = Mode::from_raw_mode(mode);
        match self {
            Self::Open(fd) => calls::fchmod(fd, mode),
            Self::Path(fd) => calls::chmodat(CWD, proc_path(fd), mode, AtFlags::empty()),
        }
    }

    fn set_times(&self, times: &Timestamps) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => calls::futimens(fd, times),
            Self::Path(fd) => calls::utimensat(fd, "", times, AtFlags::EMPTY_PATH),
        }
    }

    fn set_attribute(&self, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => calls::fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Path(fd) => calls::setxattr(proc_path(fd), name, value, XattrFlags::empty()),
        }
    }

    fn remove_attribute(&self, name: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::Open(fd) => calls::fremovexattr(fd, name),
            Self::Path(fd) => calls::removexattr(proc_path(fd), name),
        }
    }

    /// Tells whether an attribute has a value already.
    fn has_attribute(&self, name: &[u8], value: &[u8]) -> bool {
        let mut buffer = vec![0; value.len() + 1];
        let read = match self {
            Self::Open(fd) => calls::fgetxattr(fd, name, &mut buffer[..]),
            Self::Path(fd) => calls::getxattr(proc_path(fd), name, &mut buffer[..]),
        };
        read.is_ok_and(|length| buffer.get(..length) == Some(value))
    }

    /// Lists the names of the attributes, each ended by a zero byte.
    fn attribute_names(&self) -> rustix::io::Result<Vec<u8>> {
        let list = |buffer: &mut [u8]| match self {
            Self::Open(fd) => calls::flistxattr(fd, buffer),
            Self::Path(fd) => calls::listxattr(proc_path(fd), buffer),
        };
        let mut few = [0; NAMES_BYTES];
        match list(&mut few) {
            Ok(length) => Ok(few.get(..length).unwrap_or_default().to_vec()),
            Err(Errno::RANGE) => {
                // The system bounds a list to 64 KiB.
                let mut many = vec![0; 1 << 16];
                let length = list(&mut many)?;
                many.truncate(length);
                Ok(many)
            }
            Err(error) => Err(error),
        }
    }
}

/// Which of an entry's numbers a node has after its owner was set.
struct Owned {
    user: bool,
    group: bool,
    changed: bool,
}

impl Target {
    /// Sets the entry's metadata on a node that is now as `stat` says.
    pub(super) fn apply(
        &self,
        handle: &Handle<'_>,
        stat: &Stat,
        entry: &Entry,
        attributes: &[Attribute],
    ) {
        let owned = self.apply_owner(handle, stat, entry);
        let attributes_changed = self.apply_attributes(handle, entry, attributes, &owned);
        if entry.kind != EntryType::Symlink {
            let mode = self.allowed_mode(entry, &owned);
            let as_is = stat.st_mode & 0o7777 == mode && !owned.changed && !attributes_changed;
            if !as_is && let Err(error) = handle.set_mode(mode) {
                self.warned.add(WarningKind::Mode, &entry.key, &error);
            }
        }
        if let Err(error) = handle.set_times(&times_of(entry)) {
            self.warned.add(WarningKind::Times, &entry.key, &error);
        }
    }

    /// Sets user and group as far as this user may: root both, others the group of their own.
    fn apply_owner(&self, handle: &Handle<'_>, stat: &Stat, entry: &Entry) -> Owned {
        let (uid, gid) = self.owner_names.resolve(entry, &self.options);
        let mut owned = Owned {
            user: uid == stat.st_uid,
            group: gid == stat.st_gid,
            changed: false,
        };
        if self.options.owners == Owners::None || (owned.user && owned.group) {
            return owned;
        }
        let result = if uid == NOBODY || gid == NOBODY {
            Err(Errno::INVAL)
        } else if self.as_root {
            handle.set_owner(Some(uid), Some(gid))
        } else if owned.user {
            handle.set_owner(None, Some(gid))
        } else {
            Err(Errno::PERM)
        };
        match result {
            Ok(()) => {
                owned = Owned {
                    user: true,
                    group: true,
                    changed: true,
                }
            }
            Err(error) => self.warned.add(WarningKind::Owner, &entry.key, &error),
        }
        owned
    }

    /// Takes the bits out of an entry's mode that would lend the wrong user's rights.
    fn allowed_mode(&self, entry: &Entry, owned: &Owned) -> u32 {
        let wanted = entry.mode & 0o7777;
        if entry.kind == EntryType::Directory {
            // On directories they only say what new files inherit.
            return wanted;
        }
        let mut mode = wanted;
        if !self.options.setuid || !owned.user {
            mode &= !0o4000;
        }
        if !self.options.setuid || !owned.user || !owned.group {
            mode &= !0o2000;
        }
        if mode != wanted {
            let why = if self.options.setuid {
                "the owner is another"
            } else {
                "not asked for"
            };
            self.warned.add(WarningKind::SpecialBits, &entry.key, &why);
        }
        mode
    }

    /// Makes the extended attributes those of the entry; tells whether any changed.
    ///
    /// Others are removed, such as a list that was inherited from the directory, except the
    /// `security` ones, which the system's own policy sets.
    fn apply_attributes(
        &self,
        handle: &Handle<'_>,
        entry: &Entry,
        attributes: &[Attribute],
        owned: &Owned,
    ) -> bool {
        let present = handle.attribute_names().unwrap_or_default();
        let present = || {
            present
                .split(|byte| *byte == 0)
                .filter(|name| !name.is_empty())
        };
        let mut changed = false;
        for name in present() {
            let wanted = attributes.iter().any(|(wanted, _)| wanted == name);
            let removable = name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_");
            if !wanted && removable {
                changed = true;
                if let Err(error) = handle.remove_attribute(name) {
                    self.warned.add(namespace(name), &entry.key, &error);
                }
            }
        }
        for (name, value) in attributes {
            if name == b"security.capability" && !(self.options.setuid && owned.user) {
                let why = if owned.user {
                    "not asked for"
                } else {
                    "the owner is another"
                };
                self.warned.add(WarningKind::Capabilities, &entry.key, &why);
                continue;
            }
            if present().any(|there| there == name) && handle.has_attribute(name, value) {
                continue;
            }
            changed = true;
            if let Err(error) = handle.set_attribute(name, value) {
                self.warned
                    .add(namespace(name), &entry.key, &io::Error::from(error));
            }
        }
        changed
    }
}

/// Gives the warning that belongs to an attribute's namespace.
fn namespace(name: &[u8]) -> WarningKind {
    match name.split(|byte| *byte == b'.').next() {
        Some(b"user") => WarningKind::UserAttributes,
        Some(b"system") => WarningKind::SystemAttributes,
        Some(b"security") => WarningKind::SecurityAttributes,
        Some(b"trusted") => WarningKind::TrustedAttributes,
        _ => WarningKind::OtherAttributes,
    }
}

/// Gives the times to set; an access time that was not kept stays as it is.
fn times_of(entry: &Entry) -> Timestamps {
    let omit = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_OMIT,
    };
    Timestamps {
        last_access: entry.atime.map_or(omit, timespec),
        last_modification: timespec(entry.mtime),
    }
}

/// Converts a time; nanoseconds are bounded, since larger values are commands to the system.
fn timespec(time: Timestamp) -> Timespec {
    Timespec {
        tv_sec: time.seconds,
        tv_nsec: i64::from(time.nanoseconds.min(999_999_999)),
    }
}
