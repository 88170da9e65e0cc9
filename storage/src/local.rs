//! A folder as a storage: atomic, create-exclusive, and durable on return.
//!
//! object_store's local implementation with fsync switched on syncs a file
//! before it appears under its name and its folder afterwards. Four things it
//! leaves open are levelled here:
//!
//! - A folder that another thread or a killed process made a moment ago is
//!   taken as durable. Here every folder is synced, up to the root, before the
//!   process relies on it for the first time.
//! - A delete is not synced, nor is the object that makes a create lose.
//! - A listing fails as a whole on a name that is not UTF-8 or on a folder
//!   without permission such as `lost+found`, and asks four times for every
//!   file. Here foreign names are passed over.
//! - A root that vanished, or whose disk was unmounted, looks like an empty
//!   repository. Here it is an error.
//!
//! Remains of killed writers (`name#1`) are never listed: `#` is in no name. They are swept away when
//! they are old.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use object_store::local::LocalFileSystem;

use super::error::{ErrorKind, Operation, Result, StorageError};
use super::object::ObjectStorage;
use super::{
    Capabilities, CreateExclusive, ObjectInfo, Storage, check_folder, check_name, is_valid_segment,
};

/// Folders below the root that a listing descends into; a repository has two.
const DEPTH_MAX: usize = 16;

/// A storage in a folder of a file system.
pub struct LocalStorage {
    objects: ObjectStorage,
    root: PathBuf,
    /// Device and inode of the root, so that another file system in its place is noticed.
    root_identity: (u64, u64),
    description: String,
    /// Folders known to be durable, by name below the root.
    durable_folders: Mutex<HashSet<String>>,
}

impl LocalStorage {
    /// Opens a folder that exists; `NotFound` if it does not.
    pub fn open(folder: &Path) -> Result<Self> {
        let description = folder.display().to_string();
        let fail = |error: &io::Error| {
            let mut error = StorageError::from_io(Operation::Open, &description, "", error);
            if error.kind == ErrorKind::NotFound {
                error.cause = "there is no such folder".to_owned();
            }
            error
        };
        let root = folder.canonicalize().map_err(|error| fail(&error))?;
        let metadata = fs::metadata(&root).map_err(|error| fail(&error))?;
        let refuse = |cause: &str| {
            StorageError::new(
                Operation::Open,
                description.as_str(),
                "",
                ErrorKind::Permanent,
                cause,
            )
        };
        if !metadata.is_dir() {
            return Err(refuse("it is not a folder; name a folder"));
        }
        if root.to_str().is_none() {
            // object_store panics on such a path.
            return Err(refuse("its path is not UTF-8; use another folder"));
        }
        let store = LocalFileSystem::new_with_prefix(&root)
            .map_err(|error| {
                StorageError::from_object_store(Operation::Open, &description, "", &error)
            })?
            .with_fsync(true);
        let capabilities = Capabilities {
            create_exclusive: CreateExclusive::HardLink,
            sorted_listing: false,
            atomic_put: true,
            object_bytes_max: None,
            thaws: false,
        };
        Ok(Self {
            objects: ObjectStorage::new(Arc::new(store), description.clone(), capabilities),
            root,
            root_identity: (metadata.dev(), metadata.ino()),
            description,
            durable_folders: Mutex::default(),
        })
    }

    /// Opens a folder and makes it first, with its parents and mode 0700, if it is not there.
    pub fn create(folder: &Path) -> Result<Self> {
        make_durable_folder(folder).map_err(|error| {
            StorageError::from_io(Operation::Open, &folder.display().to_string(), "", &error)
        })?;
        Self::open(folder)
    }

    fn io_error(&self, operation: Operation, name: &str, error: &io::Error) -> StorageError {
        StorageError::from_io(operation, &self.description, name, error)
    }

    /// Fails if the root is no longer the folder that was opened.
    fn check_root(&self, operation: Operation, name: &str) -> Result<()> {
        let identity = fs::metadata(&self.root).map(|root| (root.dev(), root.ino()));
        if identity.is_ok_and(|identity| identity == self.root_identity) {
            return Ok(());
        }
        Err(StorageError::new(
            operation,
            self.description.as_str(),
            name,
            ErrorKind::Permanent,
            "the folder vanished or its disk was unmounted; bring it back and run again",
        ))
    }

    /// Tells "there is no such object" from "there is no repository any more".
    fn check_missing<T>(&self, outcome: Result<T>) -> Result<T> {
        if let Err(error) = &outcome
            && error.kind == ErrorKind::NotFound
        {
            self.check_root(error.operation, &error.name)?;
        }
        outcome
    }

    /// Makes the folder that `name` lies in and everything above it durable, once per process.
    fn prepare_folder(&self, operation: Operation, name: &str) -> Result<()> {
        check_name(operation, &self.description, name)?;
        self.check_root(operation, name)?;
        let Some((folder, _)) = name.rsplit_once('/') else {
            return Ok(());
        };
        let is_durable = |folders: &HashSet<String>| folders.contains(folder);
        if is_durable(
            &self
                .durable_folders
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        ) {
            return Ok(());
        }
        make_folders_below(&self.root, folder)
            .map_err(|error| self.io_error(operation, name, &error))?;
        let mut folders = self
            .durable_folders
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        folders.insert(folder.to_owned());
        Ok(())
    }

    /// Makes the entries of the folder that `name` lies in durable.
    fn sync_folder_of(&self, operation: Operation, name: &str) -> Result<()> {
        let path = self.root.join(name);
        let folder = path.parent().unwrap_or(&self.root);
        match sync_folder(folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.io_error(operation, name, &error))
            }
            _ => Ok(()),
        }
    }

    fn list_folder(
        &self,
        folder: &str,
        depth: usize,
        visit: &mut dyn FnMut(ObjectInfo) -> Result<()>,
    ) -> Result<()> {
        let path = self.root.join(folder);
        let fail = |error: &io::Error| self.io_error(Operation::List, folder, error);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if depth == 0 && error.kind() == io::ErrorKind::NotADirectory => {
                return Ok(());
            }
            Err(error) => return Err(fail(&error)),
        };
        for entry in entries {
            let entry = entry.map_err(|error| fail(&error))?;
            let file_name = entry.file_name();
            let Some(segment) = file_name.to_str().filter(|name| is_valid_segment(name)) else {
                continue;
            };
            let name = if folder.is_empty() {
                segment.to_owned()
            } else {
                format!("{folder}/{segment}")
            };
            // Links are followed: a folder of a repository may live on another disk.
            let metadata = match fs::metadata(entry.path()) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(self.io_error(Operation::List, &name, &error)),
            };
            if metadata.is_dir() && depth < DEPTH_MAX {
                self.list_folder(&name, depth + 1, visit)?;
            } else if metadata.is_file() {
                visit(ObjectInfo {
                    name,
                    size_bytes: metadata.len(),
                })?;
            }
        }
        Ok(())
    }
}

/// Removes remains last written before a moment, in a folder and below it.
fn sweep_folder(folder: &Path, depth: usize, before: SystemTime) -> io::Result<u64> {
    let mut swept = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let name = entry.file_name();
        if kind.is_dir() && depth < DEPTH_MAX {
            swept += sweep_folder(&entry.path(), depth + 1, before)?;
        } else if kind.is_file()
            && is_remains(&name.to_string_lossy())
            && entry.metadata()?.modified()? <= before
        {
            fs::remove_file(entry.path())?;
            swept += 1;
        }
    }
    Ok(swept)
}

/// Tells whether object_store would write an object to a file of this name before it is whole.
fn is_remains(name: &str) -> bool {
    name.split_once('#').is_some_and(|(segment, number)| {
        let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
        is_valid_segment(segment) && !number.is_empty() && is_number
    })
}

impl Storage for LocalStorage {
    fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes> {
        self.check_missing(self.objects.get(name, max_bytes))
    }

    fn get_range(&self, name: &str, offset_bytes: u64, length_bytes: u64) -> Result<Bytes> {
        self.check_missing(self.objects.get_range(name, offset_bytes, length_bytes))
    }

    fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.prepare_folder(Operation::Put, name)?;
        self.objects.put(name, bytes)
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.prepare_folder(Operation::Create, name)?;
        let outcome = self.objects.create(name, bytes);
        if let Err(error) = &outcome
            && error.kind == ErrorKind::AlreadyExists
        {
            // The loser goes by the winner's object, which must not vanish in a power cut.
            self.sync_folder_of(Operation::Create, name)?;
        }
        outcome
    }

    fn delete(&self, name: &str) -> Result<()> {
        check_name(Operation::Delete, &self.description, name)?;
        self.check_root(Operation::Delete, name)?;
        self.objects.delete(name)?;
        self.sync_folder_of(Operation::Delete, name)
    }

    fn list(&self, folder: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
        let folder = check_folder(&self.description, folder)?;
        self.check_root(Operation::List, folder)?;
        self.list_folder(folder, 0, visit)?;
        self.check_root(Operation::List, folder)
    }

    fn size(&self, name: &str) -> Result<u64> {
        self.check_missing(self.objects.size(name))
    }

    fn sweep(&self, age: Duration) -> Result<u64> {
        let before = SystemTime::now().checked_sub(age);
        let before = before.unwrap_or(SystemTime::UNIX_EPOCH);
        sweep_folder(&self.root, 0, before)
            .map_err(|error| self.io_error(Operation::Delete, "", &error))
    }

    fn remove_folder(&self, folder: &str) -> Result<()> {
        let folder = check_folder(&self.description, folder)?;
        self.check_root(Operation::Delete, folder)?;
        let mut durable = self
            .durable_folders
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match fs::remove_dir(self.root.join(folder)) {
            Ok(()) => {
                durable.remove(folder);
                Ok(())
            }
            Err(error) if is_no_empty_folder(&error) => Ok(()),
            Err(error) => Err(self.io_error(Operation::Delete, folder, &error)),
        }
    }

    fn capabilities(&self) -> Capabilities {
        self.objects.capabilities()
    }

    fn describe(&self) -> String {
        self.description.clone()
    }
}

/// Makes `folder` below `root` with mode 0700 and syncs it and all above it, the root included.
fn make_folders_below(root: &Path, folder: &str) -> io::Result<()> {
    sync_folder(root)?;
    let mut path = root.to_owned();
    for segment in folder.split('/') {
        path.push(segment);
        make_folder(&path)?;
        sync_folder(&path)?;
        sync_folder(path.parent().unwrap_or(root))?;
    }
    Ok(())
}

/// Makes a folder with its parents, mode 0700, and syncs what it made.
fn make_durable_folder(folder: &Path) -> io::Result<()> {
    let absolute = std::path::absolute(folder)?;
    let missing: Vec<_> = absolute
        .ancestors()
        .take_while(|ancestor| !ancestor.exists())
        .collect();
    for path in missing.into_iter().rev() {
        make_folder(path)?;
        if let Some(parent) = path.parent() {
            sync_folder(parent)?;
        }
    }
    Ok(())
}

fn make_folder(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        outcome => outcome,
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Tells whether a folder was not removed because it is not there, or something is in it.
fn is_no_empty_folder(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;

    use super::super::contract;
    use super::*;

    fn names(storage: &dyn Storage, folder: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        storage.list(folder, &mut |object| {
            names.push(object.name);
            Ok(())
        })?;
        names.sort();
        Ok(names)
    }

    #[test]
    fn a_folder_keeps_the_contract() {
        let parent = tempfile::tempdir().unwrap();
        contract::run(&|| {
            let folder = tempfile::tempdir_in(parent.path()).unwrap().keep();
            Arc::new(LocalStorage::create(&folder).unwrap())
        });
    }

    #[test]
    fn folders_are_made_private_and_a_missing_one_is_told_from_an_empty_one() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a/b c/#d%20");
        let missing = LocalStorage::open(&folder).err().unwrap();
        assert_eq!(missing.kind, ErrorKind::NotFound);
        let storage = LocalStorage::create(&folder).unwrap();
        storage
            .put("packs/ab/cd", Bytes::from_static(b"x"))
            .unwrap();
        for path in ["a", "a/b c/#d%20", "a/b c/#d%20/packs/ab"] {
            let mode = fs::metadata(parent.path().join(path))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o700, "{path}");
        }
        assert_eq!(
            names(&LocalStorage::open(&folder).unwrap(), "").unwrap(),
            ["packs/ab/cd"]
        );
        fs::write(parent.path().join("file"), "x").unwrap();
        let not_a_folder = LocalStorage::open(&parent.path().join("file"))
            .err()
            .unwrap();
        assert_eq!(not_a_folder.kind, ErrorKind::Permanent);
    }

    #[test]
    fn old_remains_of_killed_writers_are_swept_away_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let storage = LocalStorage::open(folder.path()).unwrap();
        storage.put("packs/ab/cd", Bytes::from("whole")).unwrap();
        let day = Duration::from_hours(24);
        let old = SystemTime::now() - 2 * day;
        for (name, is_old) in [
            ("packs/ab/cd#1", true),
            ("packs/ab/cd#22", false),
            ("config#3", true),
            ("packs/ab/notes", true),
            ("packs/ab/#1", true),
            ("packs/ab/cd#1x", true),
            ("packs/ab/cd#", true),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, "half").unwrap();
            if is_old {
                File::options()
                    .write(true)
                    .open(path)
                    .unwrap()
                    .set_modified(old)
                    .unwrap();
            }
        }
        assert_eq!(storage.sweep(day).unwrap(), 2);
        assert_eq!(storage.sweep(day).unwrap(), 0);
        let there = |name: &str| folder.path().join(name).exists();
        assert!(!there("packs/ab/cd#1") && !there("config#3"));
        for name in ["cd", "cd#22", "notes", "#1", "cd#1x", "cd#"] {
            assert!(there(&format!("packs/ab/{name}")), "{name}");
        }
    }

    #[test]
    fn foreign_files_and_remains_of_killed_writers_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let storage = LocalStorage::open(folder.path()).unwrap();
        storage
            .put("packs/ab/cd", Bytes::from_static(b"x"))
            .unwrap();
        let below = |name: &str| folder.path().join(name);
        fs::write(below("packs/ab/ef#1"), "half").unwrap();
        fs::write(below("README.txt"), "foreign").unwrap();
        fs::write(
            below("packs/ab").join(std::ffi::OsStr::from_bytes(b"\xff\n")),
            "",
        )
        .unwrap();
        fs::create_dir(below("lost+found")).unwrap();
        std::os::unix::fs::symlink("nowhere", below("packs/broken")).unwrap();
        assert_eq!(names(&storage, "").unwrap(), ["packs/ab/cd"]);
        // The remains do not hinder the next writer of the same name.
        storage
            .create("packs/ab/ef", Bytes::from_static(b"whole"))
            .unwrap();
        assert_eq!(storage.get("packs/ab/ef", 5).unwrap(), "whole");
    }

    #[test]
    fn a_vanished_root_is_an_error_and_not_an_empty_repository() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("r");
        let storage = LocalStorage::create(&folder).unwrap();
        storage.put("gc/1", Bytes::from_static(b"x")).unwrap();
        fs::rename(&folder, parent.path().join("elsewhere")).unwrap();
        for replaced in [false, true] {
            if replaced {
                fs::create_dir(&folder).unwrap();
            }
            let kinds = [
                names(&storage, "gc").unwrap_err().kind,
                storage.get("gc/1", 9).unwrap_err().kind,
                storage.size("gc/1").unwrap_err().kind,
                storage.put("gc/2", Bytes::new()).unwrap_err().kind,
                storage.create("gc/2", Bytes::new()).unwrap_err().kind,
                storage.delete("gc/1").unwrap_err().kind,
            ];
            assert_eq!(kinds, [ErrorKind::Permanent; 6]);
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }
}
