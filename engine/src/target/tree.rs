//! The root of a target, and the directories below it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use larder_format::entry::Entry;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::error::{Context as _, TargetError};
use super::handles::HandleCache;
use super::metadata::{Attribute, Handle, proc_path};
use super::names::{check_directory, parts};
use super::options::{Options, Overwrite};
use super::owners::OwnerNames;
use super::warnings::{Warning, Warnings};
use crate::calls;

/// How a directory is opened to find names in it: reading it is not needed for that.
const SEARCH: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Whether a directory was made, or was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// It is new and empty.
    New,
    /// It was there before.
    Existing,
}

/// A directory below which a restore writes; usable from several threads at once.
pub struct Target {
    root: Arc<OwnedFd>,
    pub(super) options: Options,
    pub(super) as_root: bool,
    pub(super) user: u32,
    pub(super) owner_names: OwnerNames,
    pub(super) warned: Warnings,
    /// Opened directories by their keys.
    directories: Mutex<HandleCache<Vec<u8>>>,
    /// Files being written, by their numbers.
    files: Mutex<HandleCache<u64>>,
    temporary_prefix: String,
    next_number: AtomicU64,
}

impl Target {
    /// Opens the root of a target, which is made with mode 0700 if it is missing, parents too.
    ///
    /// The path itself is resolved as usual, links included: it is the user's own.
    ///
    /// # Errors
    /// The root cannot be made or opened, or is not a directory.
    pub fn open(root: &Path, options: Options) -> io::Result<Arc<Self>> {
        use std::os::unix::fs::DirBuilderExt as _;
        if let Some(parent) = root
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            std::fs::create_dir_all(parent)?;
        }
        match std::fs::DirBuilder::new().mode(0o700).create(root) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        Self::open_existing_root(root, options)
    }

    /// Opens the root of a target that has to be there, for a dry run.
    ///
    /// # Errors
    /// The root is missing, cannot be opened, or is not a directory.
    pub fn open_existing_root(root: &Path, options: Options) -> io::Result<Arc<Self>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = calls::openat(CWD, root, flags, Mode::empty())?;
        let user = rustix::process::geteuid();
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        Ok(Arc::new(Self {
            root: Arc::new(handle),
            as_root: user.is_root(),
            user: user.as_raw(),
            owner_names: OwnerNames::default(),
            warned: Warnings::default(),
            directories: Mutex::new(HandleCache::new(options.handles.directories)),
            files: Mutex::new(HandleCache::new(options.handles.files)),
            temporary_prefix: format!(".larder-{:016x}-", u64::from_le_bytes(random)),
            next_number: AtomicU64::new(0),
            options,
        }))
    }

    /// Gives the options it was opened with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Gives what could not be restored so far on entries that were restored.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        self.warned.all()
    }

    /// Makes a directory with mode 0700; its parent has to be there.
    ///
    /// One that is there already is used, and made accessible to its owner. Anything else of
    /// that name, a link to a directory too, is replaced if the overwrite policy allows it.
    ///
    /// # Errors
    /// An unsafe key, something in the way that must not be replaced, or one of the system.
    pub fn create_directory(&self, key: &[u8]) -> Result<Made, TargetError> {
        self.make_directory(key, Mode::RWXU)
            .on("create the directory", key)
    }

    /// Makes the directories above a key that are missing, with the permissions that the
    /// process gives new directories: for those that no entry describes.
    ///
    /// # Errors
    /// As [`Target::create_directory`].
    pub fn create_parents(&self, key: &[u8]) -> Result<(), TargetError> {
        let components = super::names::check_key(key).on("create the directories above", key)?;
        let parent = components.parent();
        for (end, _) in parent.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            let above = parent.get(..=end).unwrap_or(parent);
            self.make_directory(above, Mode::from_raw_mode(0o777))
                .on("create the directory", above)?;
        }
        Ok(())
    }

    fn make_directory(&self, key: &[u8], mode: Mode) -> io::Result<Made> {
        let components = check_directory(key)?;
        if components.is_root() {
            self.make_accessible(&self.root)?;
            return Ok(Made::Existing);
        }
        let (parent, name) = (self.directory(components.parent())?, components.name());
        match calls::mkdirat(&parent, name, mode) {
            Ok(()) => return Ok(Made::New),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        match self.with_room(|| calls::openat(&parent, name, SEARCH, Mode::empty())) {
            Ok(handle) => {
                let handle = Arc::new(handle);
                self.make_accessible(&handle)?;
                self.lock_directories().insert(key.to_vec(), handle);
                Ok(Made::Existing)
            }
            Err(error)
                if matches!(
                    Errno::from_io_error(&error),
                    Some(Errno::NOTDIR | Errno::LOOP)
                ) =>
            {
                if self.options.overwrite == Overwrite::Never {
                    let why = "something that is not a directory has its name and is to be kept";
                    return Err(io::Error::new(io::ErrorKind::NotADirectory, why));
                }
                calls::unlinkat(&parent, name, AtFlags::empty())?;
                self.forget_below(key);
                calls::mkdirat(&parent, name, mode)?;
                Ok(Made::New)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives its owner full access to a directory that was there, for as long as the restore
    /// takes; root needs no such thing.
    fn make_accessible(&self, directory: &OwnedFd) -> io::Result<()> {
        let stat = calls::fstat(directory)?;
        let mode = Mode::from_raw_mode(stat.st_mode);
        if !self.as_root && stat.st_uid == self.user && !mode.contains(Mode::RWXU) {
            rustix::fs::chmod(proc_path(directory), mode | Mode::RWXU)?;
        }
        Ok(())
    }

    /// Sets a directory's owner, attributes, permissions and times; the last thing that happens
    /// to it, after everything below it.
    ///
    /// # Errors
    /// An unsafe key, or the directory cannot be opened. What cannot be set is a warning.
    pub fn finish_directory(
        &self,
        key: &[u8],
        entry: &Entry,
        attributes: &[Attribute],
    ) -> Result<(), TargetError> {
        self.complete_directory(key, entry, attributes)
            .on("finish the directory", key)
    }

    fn complete_directory(
        &self,
        key: &[u8],
        entry: &Entry,
        attributes: &[Attribute],
    ) -> io::Result<()> {
        check_directory(key)?;
        let directory = self.directory(key)?;
        let stat = calls::fstat(&directory)?;
        match self.readable(&directory) {
            Ok(open) => self.apply(&Handle::Open(&open), &stat, entry, attributes),
            // Somebody else's, without permission to read: its owner's metadata cannot be set
            // either, but that is for the system to say.
            Err(_) => self.apply(&Handle::Path(&directory), &stat, entry, attributes),
        }
        Ok(())
    }

    /// Writes everything that was restored to the disk: the file system as a whole, which
    /// costs far less than each file by itself.
    ///
    /// # Errors
    /// One of the system: what was written may be lost when the power fails.
    pub fn sync(&self) -> Result<(), TargetError> {
        let root = self.readable(&self.root).on("sync", b"")?;
        calls::syncfs(root).on("sync", b"")
    }

    /// Gives the handle of the root.
    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Opens a directory by its checked key, component by component, through no link.
    ///
    /// The handle is kept: whatever is done to names afterwards, it stays that directory.
    pub(super) fn directory(&self, key: &[u8]) -> io::Result<Arc<OwnedFd>> {
        let (mut handle, opened) = self.nearest(key);
        let rest = key.get(opened..).unwrap_or_default();
        for part in parts(rest) {
            let next = self.with_room(|| calls::openat(&handle, part, SEARCH, Mode::empty()));
            handle = Arc::new(next?);
        }
        if !rest.is_empty() {
            self.lock_directories()
                .insert(key.to_vec(), Arc::clone(&handle));
        }
        Ok(handle)
    }

    /// Finds the nearest directory at or above a key that is open, and the length of its key.
    fn nearest(&self, key: &[u8]) -> (Arc<OwnedFd>, usize) {
        let mut directories = self.lock_directories();
        let mut above = key;
        while !above.is_empty() {
            if let Some(handle) = directories.get(above) {
                return (handle, above.len());
            }
            let path = above.strip_suffix(b"/").unwrap_or(above);
            let end = path
                .iter()
                .rposition(|byte| *byte == b'/')
                .map_or(0, |slash| slash + 1);
            above = path.get(..end).unwrap_or_default();
        }
        (Arc::clone(&self.root), 0)
    }

    /// Opens a directory for reading that is open for searching.
    pub(super) fn readable(&self, directory: &OwnedFd) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.with_room(|| calls::openat(directory, ".", flags, Mode::empty()))
    }

    /// Opens something; if there are too many open files, closes those that are kept open only
    /// for speed, and tries again.
    pub(super) fn with_room(
        &self,
        open: impl Fn() -> rustix::io::Result<OwnedFd>,
    ) -> io::Result<OwnedFd> {
        match open() {
            Err(Errno::MFILE | Errno::NFILE) => {
                self.lock_directories().forget(|_| true);
                self.lock_files().forget(|_| true);
                Ok(open()?)
            }
            other => Ok(other?),
        }
    }

    /// Gives a number that no other has, and the temporary name that goes with it.
    pub(super) fn temporary(&self) -> (u64, String) {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        (number, format!("{}{number:x}", self.temporary_prefix))
    }

    /// Tells whether a name is that of something this restore is still writing.
    pub(super) fn is_temporary(&self, name: &[u8]) -> bool {
        name.starts_with(self.temporary_prefix.as_bytes())
    }

    /// Gives a complete node its final name, as the overwrite policy says.
    pub(super) fn put_in_place(
        &self,
        parent: &OwnedFd,
        temporary: &str,
        name: &[u8],
        key: &[u8],
    ) -> io::Result<()> {
        if self.options.overwrite == Overwrite::Never {
            return rename_to_free(parent, temporary, name);
        }
        match calls::renameat(parent, temporary, parent, name) {
            Ok(()) => Ok(()),
            Err(Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY) => {
                self.clear_the_way(parent, name, key)?;
                Ok(calls::renameat(parent, temporary, parent, name)?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a directory that has the name of something else.
    fn clear_the_way(&self, parent: &OwnedFd, name: &[u8], key: &[u8]) -> io::Result<()> {
        let below = [key, b"/"].concat();
        match calls::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                if !self.options.delete || self.options.overwrite != Overwrite::Always {
                    let why = "a directory that is not empty has its name; \
                               give --delete, with --overwrite always, to replace it";
                    return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, why));
                }
                self.forget_below(&below);
                self.remove_node(parent, name, FileType::Directory)
            }
            other => {
                self.forget_below(&below);
                Ok(other?)
            }
        }
    }

    /// Forgets the handles of a directory that is gone, and of those below it.
    pub(super) fn forget_below(&self, key: &[u8]) {
        self.lock_directories().forget(|held| held.starts_with(key));
    }

    pub(super) fn lock_files(&self) -> MutexGuard<'_, HandleCache<u64>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_directories(&self) -> MutexGuard<'_, HandleCache<Vec<u8>>> {
        self.directories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Renames, but never onto something.
fn rename_to_free(parent: &OwnedFd, from: &str, to: &[u8]) -> io::Result<()> {
    match calls::renameat_with(parent, from, parent, to, RenameFlags::NOREPLACE) {
        // Some file systems lack the flag; a second name never replaces anything either.
        Err(Errno::INVAL | Errno::NOSYS) => {
            calls::linkat(parent, from, parent, to, AtFlags::empty())?;
            Ok(calls::unlinkat(parent, from, AtFlags::empty())?)
        }
        other => Ok(other?),
    }
}
