//! Removes what a snapshot does not have: by handle, through no link, across no mount.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use larder_format::entry::EntryType;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::error::{Context as _, TargetError};
use super::existing::Metadata;
use super::names::check_directory;
use super::tree::Target;
use crate::calls;

/// How many directories are open at once on the way down; what is deeper is moved up first.
const DEPTH_OPEN: usize = 32;

impl Target {
    /// Lists what a directory has and the snapshot has not, without changing anything.
    ///
    /// `keep` is asked about each name in it, as in keys: a directory's ends in `/`. `each` gets
    /// the whole key. The directory is read as a stream: its size does not matter.
    ///
    /// # Errors
    /// An unsafe key, or the directory cannot be read.
    pub fn list_extras(
        &self,
        key: &[u8],
        keep: impl Fn(&[u8]) -> bool,
        mut each: impl FnMut(&[u8], &Metadata),
    ) -> Result<(), TargetError> {
        self.extras(key, keep, |_, _, key, metadata| each(key, metadata))
            .on("read the directory", key)
    }

    /// Removes what a directory has and the snapshot has not, with everything below it.
    ///
    /// `keep` is asked as by [`Target::list_extras`]; `each` gets every key and what became of
    /// it. What cannot be removed stays, mount points among it, and the others are removed.
    ///
    /// # Errors
    /// An unsafe key, or the directory cannot be read.
    pub fn remove_extras(
        &self,
        key: &[u8],
        keep: impl Fn(&[u8]) -> bool,
        mut each: impl FnMut(&[u8], Result<(), TargetError>),
    ) -> Result<(), TargetError> {
        let remove = |parent: &OwnedFd, name: &[u8], key: &[u8], metadata: &Metadata| {
            let is_directory = metadata.kind == EntryType::Directory;
            let kind = if is_directory {
                FileType::Directory
            } else {
                FileType::RegularFile
            };
            if is_directory {
                self.forget_below(key);
            }
            each(key, self.remove_node(parent, name, kind).on("remove", key));
        };
        self.extras(key, keep, remove).on("read the directory", key)
    }

    fn extras(
        &self,
        key: &[u8],
        keep: impl Fn(&[u8]) -> bool,
        mut each: impl FnMut(&OwnedFd, &[u8], &[u8], &Metadata),
    ) -> io::Result<()> {
        check_directory(key)?;
        let directory = self.directory(key)?;
        for found in Dir::new(self.readable(&directory)?)? {
            let found = found?;
            let name = found.file_name().to_bytes();
            if is_self_or_parent(name) || self.is_temporary(name) {
                continue;
            }
            let Some(metadata) = self.stat_child(&directory, name)? else {
                continue;
            };
            let is_directory = metadata.kind == EntryType::Directory;
            let suffix: &[u8] = if is_directory { b"/" } else { b"" };
            if !keep(&[name, suffix].concat()) {
                each(&directory, name, &[key, name, suffix].concat(), &metadata);
            }
        }
        Ok(())
    }

    /// Removes a name, and if it is a directory everything below it first.
    ///
    /// Goes on after an error and gives the first one at the end.
    pub(super) fn remove_node(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        kind: FileType,
    ) -> io::Result<()> {
        if !kind.is_dir() {
            return Ok(calls::unlinkat(parent, name, AtFlags::empty())?);
        }
        let directory = Arc::new(self.open_below(parent, name)?);
        let removal = Removal {
            target: self,
            top: Arc::clone(&directory),
        };
        // Moving deep directories up makes more passes necessary, as long as they get anywhere.
        let mut pass = removal.clear(&directory, 0)?;
        while pass.moved {
            pass = removal.clear(&directory, 0)?;
        }
        match (
            calls::unlinkat(parent, name, AtFlags::REMOVEDIR),
            pass.first_error,
        ) {
            (Ok(()), _) => Ok(()),
            (Err(Errno::NOTEMPTY | Errno::EXIST), Some(error)) => Err(error),
            (Err(error), _) => Err(error.into()),
        }
    }

    /// Opens a directory for reading, unless it is a link or another file system is mounted
    /// on it.
    pub(super) fn open_below(&self, parent: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let same_mount = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
        let strictly = || calls::openat2(parent, name, flags, Mode::empty(), same_mount);
        match self.with_room(strictly) {
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::XDEV) => Err(mount_point()),
                Some(Errno::NOSYS | Errno::PERM) => {
                    // Before Linux 5.6, or forbidden by a container: then file systems are
                    // told apart, though not two mounts of the same one.
                    let plainly = || calls::openat(parent, name, flags, Mode::empty());
                    let handle = self.with_room(plainly)?;
                    let device = |fd| calls::fstat(fd).map(|stat| stat.st_dev);
                    if device(&handle)? == device(parent)? {
                        Ok(handle)
                    } else {
                        Err(mount_point())
                    }
                }
                _ => Err(error),
            },
            opened => opened,
        }
    }
}

fn mount_point() -> io::Error {
    io::Error::new(
        io::ErrorKind::CrossesDevices,
        "another file system is mounted there",
    )
}

fn is_self_or_parent(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

/// The removal of everything in one directory.
struct Removal<'a> {
    target: &'a Target,
    top: Arc<OwnedFd>,
}

/// What one pass over a directory came to.
#[derive(Default)]
struct Pass {
    /// Whether something was moved to the top, which has to be read again.
    moved: bool,
    first_error: Option<io::Error>,
}

impl Pass {
    fn note(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.first_error.get_or_insert(error);
        }
    }
}

impl Removal<'_> {
    /// Removes what is in a directory, `depth` levels below the top.
    ///
    /// No more than [`DEPTH_OPEN`] handles and calls deep: a directory further down is moved to
    /// the top, where a further pass finds it.
    fn clear(&self, directory: &OwnedFd, depth: usize) -> io::Result<Pass> {
        let mut pass = Pass::default();
        for found in Dir::new(self.target.readable(directory)?)? {
            let found = found?;
            let name = found.file_name();
            if is_self_or_parent(name.to_bytes()) {
                continue;
            }
            let result = match calls::unlinkat(directory, name, AtFlags::empty()) {
                Err(Errno::ISDIR) => {
                    self.clear_directory(directory, name.to_bytes(), depth, &mut pass)
                }
                other => other.map_err(io::Error::from),
            };
            pass.note(result);
        }
        Ok(pass)
    }

    fn clear_directory(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        depth: usize,
        pass: &mut Pass,
    ) -> io::Result<()> {
        if depth >= DEPTH_OPEN {
            let (_, temporary) = self.target.temporary();
            calls::renameat(parent, name, &self.top, temporary.as_str())?;
            pass.moved = true;
            return Ok(());
        }
        let directory = self.target.open_below(parent, name)?;
        let below = self.clear(&directory, depth + 1)?;
        pass.moved |= below.moved;
        let removed = calls::unlinkat(parent, name, AtFlags::REMOVEDIR);
        match (removed, below.first_error) {
            (Err(Errno::NOTEMPTY | Errno::EXIST), Some(error)) => Err(error),
            (removed, _) => Ok(removed?),
        }
    }
}
