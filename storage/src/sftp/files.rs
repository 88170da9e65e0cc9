//! Objects as files below a folder on the server.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use russh_sftp::protocol::{FileType, OpenFlags, StatusCode};

use super::channel::{About, Channel, Failure};
use crate::error::{ErrorKind, Reason};
use crate::{ObjectInfo, is_valid_segment};

/// How the names of temporary files begin; 32 hexadecimal digits follow.
const TEMPORARY: &str = ".larder-";
/// Folders below the root that a listing descends into; a repository has two.
const DEPTH_MAX: usize = 16;

/// Where the files are, and what is known of the server.
pub(super) struct Files {
    root: String,
    has_hard_links: AtomicBool,
    has_posix_rename: AtomicBool,
    /// Whether the server syncs folders, as OpenSSH does when they are opened like files.
    syncs_folders: AtomicBool,
    /// Folders below the root whose own entries are durable, by path.
    durable_folders: Mutex<HashSet<String>>,
}

/// What a folder holds.
#[derive(Default)]
pub(super) struct Found {
    pub objects: Vec<ObjectInfo>,
    /// Names of folders below it.
    pub folders: Vec<String>,
    /// Temporary files, by name, and when they were written last, in seconds since 1970.
    pub remains: Vec<(String, u64)>,
}

impl Files {
    /// Takes the path of a URL: what follows `/~` is relative to the home folder, and so is nothing.
    pub(super) fn new(path: &str) -> Self {
        Self {
            root: root(path),
            has_hard_links: AtomicBool::new(false),
            has_posix_rename: AtomicBool::new(false),
            syncs_folders: AtomicBool::new(false),
            durable_folders: Mutex::default(),
        }
    }

    /// Learns from the first channel what the server can do.
    pub(super) fn take_extensions(&self, channel: &Channel) {
        let has = channel.extensions;
        self.has_hard_links.store(has.hard_link, Ordering::Relaxed);
        self.has_posix_rename
            .store(has.posix_rename, Ordering::Relaxed);
        self.syncs_folders.store(has.fsync, Ordering::Relaxed);
    }

    pub(super) fn decides_creates(&self) -> bool {
        self.has_hard_links.load(Ordering::Relaxed)
    }

    pub(super) fn replaces_at_once(&self) -> bool {
        self.has_posix_rename.load(Ordering::Relaxed)
    }

    /// Fails unless the root is a folder.
    pub(super) async fn check_root(&self, channel: &Channel) -> Result<(), Failure> {
        match channel.stat(&self.root).await {
            Ok(found) if found.kind == FileType::Dir => Ok(()),
            Ok(_) => Err(Failure::Known(
                ErrorKind::Permanent,
                Reason::NoFolder,
                format!("{} is not a folder", self.root),
            )),
            Err(failure) if failure.is(StatusCode::NoSuchFile) => Err(Failure::Known(
                ErrorKind::NotFound,
                Reason::NoFolder,
                format!("there is no folder {}", self.root),
            )),
            Err(failure) => Err(failure),
        }
    }

    /// Makes the root with its parents where they are missing.
    pub(super) async fn make_root(&self, channel: &Channel) -> Result<(), Failure> {
        let mut missing = Vec::new();
        let mut path = self.root.as_str();
        loop {
            match channel.stat(path).await {
                Ok(_) => break,
                Err(failure) if failure.is(StatusCode::NoSuchFile) => missing.push(path),
                Err(failure) => return Err(failure),
            }
            match path.rsplit_once('/') {
                Some(("", _)) | None => break,
                Some((parent, _)) => path = parent,
            }
        }
        for path in missing.into_iter().rev() {
            self.make_folder(channel, path).await?;
            self.sync_folder(channel, parent(path)).await?;
        }
        self.check_root(channel).await
    }

    pub(super) async fn get(
        &self,
        channel: &Channel,
        name: &str,
        max_bytes: u64,
    ) -> Result<Bytes, Failure> {
        let handle = self.open_to_read(channel, name).await?;
        let outcome = read_all(channel, &handle, max_bytes).await;
        channel.close_later(handle);
        outcome
    }

    pub(super) async fn get_range(
        &self,
        channel: &Channel,
        name: &str,
        offset: u64,
        length_bytes: u64,
    ) -> Result<Bytes, Failure> {
        let handle = self.open_to_read(channel, name).await?;
        let outcome = read_range(channel, &handle, offset, length_bytes).await;
        channel.close_later(handle);
        outcome
    }

    async fn open_to_read(&self, channel: &Channel, name: &str) -> Result<String, Failure> {
        let outcome = channel.open(&self.path(name), OpenFlags::READ).await;
        self.check_missing(channel, outcome).await
    }

    pub(super) async fn size(&self, channel: &Channel, name: &str) -> Result<u64, Failure> {
        let outcome = channel.stat(&self.path(name)).await;
        let found = self.check_missing(channel, outcome).await?;
        only_file(found).map(|found| found.size_bytes)
    }

    pub(super) async fn put(
        &self,
        channel: &Channel,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        let place = self.path(name);
        let temporary = self.write_temporary(channel, name, bytes).await?;
        let outcome = self.replace(channel, &temporary, &place).await;
        let outcome = self.settle(channel, &temporary, outcome, bytes).await;
        outcome?;
        self.sync_folder(channel, parent(&place)).await
    }

    async fn replace(&self, channel: &Channel, from: &str, to: &str) -> Result<(), Failure> {
        if self.replaces_at_once() {
            return channel.posix_rename(from, to).await;
        }
        // The plain protocol's rename takes only a free name.
        match channel.rename(from, to).await {
            Err(Failure::Status(..)) if channel.stat(to).await.is_ok() => {
                // The old object is moved aside, and back again if the new one is refused all the same.
                let aside = format!("{}/{}", parent(to), temporary_name()?);
                channel.rename(to, &aside).await?;
                let outcome = channel.rename(from, to).await;
                let _ = match outcome {
                    Ok(()) => channel.remove(&aside).await,
                    Err(_) => channel.rename(&aside, to).await,
                };
                outcome
            }
            outcome => outcome,
        }
    }

    pub(super) async fn create(
        &self,
        channel: &Channel,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        let place = self.path(name);
        let temporary = self.write_temporary(channel, name, bytes).await?;
        let outcome = self.take_name(channel, &temporary, &place).await;
        let outcome = self.settle(channel, &temporary, outcome, bytes).await;
        let exists = matches!(outcome, Err(Failure::Known(ErrorKind::AlreadyExists, _, _)));
        if outcome.is_ok() || exists {
            // The loser goes by the winner's object, which must not vanish in a power cut.
            self.sync_folder(channel, parent(&place)).await?;
        }
        outcome
    }

    /// Gives a finished file a name that has to be free.
    async fn take_name(&self, channel: &Channel, from: &str, to: &str) -> Result<(), Failure> {
        if self.decides_creates() {
            match channel.hard_link(from, to).await {
                Ok(()) => return channel.remove(from).await,
                // In a folder in which a file has just been made, this says that the file system
                // has no hard links.
                Err(Failure::Status(
                    StatusCode::PermissionDenied | StatusCode::OpUnsupported,
                    _,
                )) if channel.stat(to).await.is_err_and(is_missing) => {
                    self.has_hard_links.store(false, Ordering::Relaxed);
                }
                Err(failure) => return self.tell_taken(channel, to, failure).await,
            }
        }
        if channel.stat(to).await.is_ok() {
            return Err(already_exists());
        }
        match channel.rename(from, to).await {
            Ok(()) => Ok(()),
            Err(failure) => self.tell_taken(channel, to, failure).await,
        }
    }

    /// Tells "the name is taken" from what else a server calls a failure.
    async fn tell_taken(
        &self,
        channel: &Channel,
        to: &str,
        failure: Failure,
    ) -> Result<(), Failure> {
        match failure {
            Failure::Status(..) if channel.stat(to).await.is_ok() => Err(already_exists()),
            failure => Err(failure),
        }
    }

    /// Writes a temporary file beside the place of an object, whole and synced.
    async fn write_temporary(
        &self,
        channel: &Channel,
        name: &str,
        bytes: &[u8],
    ) -> Result<String, Failure> {
        let place = self.path(name);
        let temporary = format!("{}/{}", parent(&place), temporary_name()?);
        let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUDE;
        let handle = match channel.open(&temporary, flags).await {
            Err(failure) if failure.is(StatusCode::NoSuchFile) => {
                self.make_folders_of(channel, name).await?;
                channel.open(&temporary, flags).await
            }
            outcome => outcome,
        };
        let handle = match handle {
            Ok(handle) => handle,
            Err(failure) => {
                let needed = bytes.len() as u64;
                return Err(channel.explain_write(&self.root, failure, needed).await);
            }
        };
        self.make_durable_folders_of(channel, name).await?;
        let written = async {
            channel.write(&handle, bytes).await?;
            if channel.extensions.fsync {
                channel.fsync(&handle).await?;
            }
            Ok(())
        };
        let mut outcome = written.await;
        if !matches!(outcome, Err(Failure::Lost(_))) {
            // Some file systems tell only here that there was no room.
            outcome = channel.close(&handle).await.and(outcome);
        }
        self.settle(channel, &temporary, outcome, bytes).await?;
        Ok(temporary)
    }

    /// Removes the temporary file after a failure, and says more exactly what failed.
    async fn settle(
        &self,
        channel: &Channel,
        temporary: &str,
        outcome: Result<(), Failure>,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        let failure = match outcome {
            Ok(()) => return Ok(()),
            // It is swept away some day.
            Err(failure @ Failure::Lost(_)) => return Err(failure),
            Err(failure) => failure,
        };
        let needed = bytes.len() as u64;
        let failure = channel.explain_write(&self.root, failure, needed).await;
        channel.remove(temporary).await.ok();
        Err(failure)
    }

    pub(super) async fn delete(&self, channel: &Channel, name: &str) -> Result<(), Failure> {
        let path = self.path(name);
        match channel.remove(&path).await {
            Ok(()) => self.sync_folder(channel, parent(&path)).await,
            Err(failure) if failure.is(StatusCode::NoSuchFile) => {
                self.check_root_is_there(channel).await
            }
            Err(failure) => Err(channel.explain_write(&self.root, failure, 0).await),
        }
    }

    /// Reads one folder; one that is not there is empty, unless the root has gone with it.
    /// Removes a folder if nothing is in it.
    pub(super) async fn remove_folder(&self, channel: &Channel, name: &str) -> Result<(), Failure> {
        let path = self.path(name);
        match channel.remove_folder(&path).await {
            Ok(()) => {
                self.durable().remove(&path);
                Ok(())
            }
            // Servers do not agree on how they say that something is in it.
            Err(Failure::Status(..)) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    pub(super) async fn list(&self, channel: &Channel, folder: &str) -> Result<Found, Failure> {
        let path = self.path(folder);
        let entries = match channel.read_folder(&path).await {
            Ok(entries) => entries,
            Err(failure @ Failure::Status(..)) => match channel.stat(&path).await {
                Ok(found) if found.kind == FileType::Dir => return Err(failure),
                // The name of an object is not a folder.
                Ok(_) => return Ok(Found::default()),
                Err(missing) if missing.is(StatusCode::NoSuchFile) => {
                    self.check_root_is_there(channel).await?;
                    return Ok(Found::default());
                }
                Err(failure) => return Err(failure),
            },
            Err(failure) => return Err(failure),
        };
        let mut found = Found::default();
        for entry in entries {
            let segment = entry.filename;
            let is_remains = is_temporary(&segment);
            if !is_remains && !is_valid_segment(&segment) {
                continue;
            }
            let name = join(folder, &segment);
            // What a server tells of a link is of the link itself; behind it may be a folder.
            let about = About::of(&entry.attrs).filter(|about| about.kind != FileType::Symlink);
            let about = match about {
                Some(about) => about,
                None => match channel.stat(&self.path(&name)).await {
                    Ok(about) => about,
                    Err(failure) if failure.is(StatusCode::NoSuchFile) => continue,
                    Err(failure) => return Err(failure),
                },
            };
            match about.kind {
                FileType::File if is_remains => found.remains.push((name, about.modified)),
                FileType::File => found.objects.push(ObjectInfo {
                    name,
                    size_bytes: about.size_bytes,
                }),
                FileType::Dir if !is_remains && name.split('/').count() <= DEPTH_MAX => {
                    found.folders.push(name);
                }
                _ => {}
            }
        }
        // While a folder changes, a system may give an entry twice.
        found.objects.sort();
        found.objects.dedup_by(|one, other| one.name == other.name);
        found.folders.sort();
        found.folders.dedup();
        Ok(found)
    }

    /// Asks what time it is on the server, in seconds since 1970, by writing a file.
    pub(super) async fn server_time(&self, channel: &Channel) -> Result<u64, Failure> {
        let path = join(&self.root, &temporary_name()?);
        let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUDE;
        let handle = channel.open(&path, flags).await?;
        let closed = channel.close(&handle).await;
        let found = channel.stat(&path).await;
        channel.remove(&path).await?;
        closed?;
        found.map(|found| found.modified)
    }

    fn path(&self, name: &str) -> String {
        match (self.root.as_str(), name) {
            (root, "") => root.to_owned(),
            ("/", name) => format!("/{name}"),
            (root, name) => format!("{root}/{name}"),
        }
    }

    /// Tells "there is no such object" from "there is no repository any more".
    async fn check_missing<T>(
        &self,
        channel: &Channel,
        outcome: Result<T, Failure>,
    ) -> Result<T, Failure> {
        if let Err(failure) = &outcome
            && failure.is(StatusCode::NoSuchFile)
        {
            self.check_root_is_there(channel).await?;
        }
        outcome
    }

    async fn check_root_is_there(&self, channel: &Channel) -> Result<(), Failure> {
        match self.check_root(channel).await {
            Err(Failure::Known(ErrorKind::NotFound, _, _)) => Err(Failure::Known(
                ErrorKind::Permanent,
                Reason::Other,
                format!(
                    "the folder {} vanished or its disk was unmounted; bring it back and run again",
                    self.root
                ),
            )),
            outcome => outcome,
        }
    }

    /// Makes the folders that an object lies in; the root has to be there.
    async fn make_folders_of(&self, channel: &Channel, name: &str) -> Result<(), Failure> {
        self.check_root_is_there(channel).await?;
        for (at, _) in name.match_indices('/') {
            let folder = name.get(..at).unwrap_or_default();
            self.make_folder(channel, &self.path(folder)).await?;
        }
        Ok(())
    }

    async fn make_folder(&self, channel: &Channel, path: &str) -> Result<(), Failure> {
        let Err(failure) = channel.make_folder(path).await else {
            return Ok(());
        };
        // Servers differ in what they call it when the folder is there.
        match (failure, channel.stat(path).await) {
            (Failure::Status(..), Ok(found)) if found.kind == FileType::Dir => Ok(()),
            (failure, _) => Err(channel.explain_write(&self.root, failure, 0).await),
        }
    }

    /// Syncs what names the folders of an object, once per process: another one may have made them a
    /// moment ago.
    async fn make_durable_folders_of(&self, channel: &Channel, name: &str) -> Result<(), Failure> {
        for (at, _) in name.match_indices('/') {
            let path = self.path(name.get(..at).unwrap_or_default());
            if self.durable().contains(&path) {
                continue;
            }
            self.sync_folder(channel, parent(&path)).await?;
            self.durable().insert(path);
        }
        Ok(())
    }

    fn durable(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.durable_folders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the entries of a folder durable, as far as the server can.
    async fn sync_folder(&self, channel: &Channel, path: &str) -> Result<(), Failure> {
        if !self.syncs_folders.load(Ordering::Relaxed) {
            return Ok(());
        }
        let outcome = match channel.open(path, OpenFlags::READ).await {
            Ok(handle) => {
                let synced = channel.fsync(&handle).await;
                channel.close_later(handle);
                synced
            }
            Err(failure) => Err(failure),
        };
        match outcome {
            Err(Failure::Status(code, _)) if code != StatusCode::NoSuchFile => {
                self.syncs_folders.store(false, Ordering::Relaxed);
                Ok(())
            }
            Err(Failure::Status(..)) => Ok(()),
            outcome => outcome,
        }
    }
}

async fn read_all(channel: &Channel, handle: &str, max_bytes: u64) -> Result<Bytes, Failure> {
    let (found, mut bytes) = channel.stat_and_read(handle, 0, max_bytes).await?;
    let size_bytes = only_file(found)?.size_bytes;
    if size_bytes > max_bytes {
        return Err(Failure::Known(
            ErrorKind::Oversized,
            Reason::Other,
            format!("it has {size_bytes} bytes, {max_bytes} were expected at most"),
        ));
    }
    fill(channel, handle, 0, size_bytes, &mut bytes).await?;
    Ok(bytes.into())
}

async fn read_range(
    channel: &Channel,
    handle: &str,
    offset: u64,
    length_bytes: u64,
) -> Result<Bytes, Failure> {
    let (found, mut bytes) = channel.stat_and_read(handle, offset, length_bytes).await?;
    let size_bytes = only_file(found)?.size_bytes;
    let end = offset.checked_add(length_bytes);
    if end.is_none_or(|end| end > size_bytes) {
        return Err(truncated(size_bytes));
    }
    fill(channel, handle, offset, length_bytes, &mut bytes).await?;
    Ok(bytes.into())
}

/// Reads what is still missing of so many bytes.
async fn fill(
    channel: &Channel,
    handle: &str,
    offset: u64,
    length_bytes: u64,
    bytes: &mut Vec<u8>,
) -> Result<(), Failure> {
    // It may have grown between the answers.
    bytes.truncate(usize::try_from(length_bytes).unwrap_or(usize::MAX));
    let had = bytes.len() as u64;
    let from = offset.saturating_add(had);
    channel
        .read(handle, from, length_bytes - had, bytes)
        .await?;
    if (bytes.len() as u64) < length_bytes {
        return Err(truncated(offset.saturating_add(bytes.len() as u64)));
    }
    Ok(())
}

fn truncated(size_bytes: u64) -> Failure {
    Failure::Known(
        ErrorKind::Truncated,
        Reason::Other,
        format!("it has only {size_bytes} bytes"),
    )
}

fn already_exists() -> Failure {
    Failure::Known(
        ErrorKind::AlreadyExists,
        Reason::Other,
        "it exists already".to_owned(),
    )
}

fn is_missing(failure: Failure) -> bool {
    failure.is(StatusCode::NoSuchFile)
}

/// Takes whatever is no file for nothing.
fn only_file(found: About) -> Result<About, Failure> {
    match found.kind {
        FileType::File => Ok(found),
        _ => Err(Failure::Status(StatusCode::NoSuchFile, String::new())),
    }
}

fn root(path: &str) -> String {
    let path = match path.strip_prefix("/~") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest.trim_start_matches('/'),
        _ => path,
    };
    match path.trim_end_matches('/') {
        "" if path.starts_with('/') => "/".to_owned(),
        "" => ".".to_owned(),
        path => path.to_owned(),
    }
}

fn join(folder: &str, segment: &str) -> String {
    match folder {
        "" => segment.to_owned(),
        "/" => format!("/{segment}"),
        folder => format!("{folder}/{segment}"),
    }
}

/// Gives the folder that a path lies in.
fn parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) => "/",
        Some((parent, _)) => parent,
        None => ".",
    }
}

fn temporary_name() -> Result<String, Failure> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::Known(ErrorKind::Permanent, Reason::Other, error.to_string()))?;
    Ok(format!("{TEMPORARY}{:032x}", u128::from_le_bytes(random)))
}

fn is_temporary(segment: &str) -> bool {
    segment.strip_prefix(TEMPORARY).is_some_and(|digits| {
        digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_path_of_a_url_is_absolute_or_relative_to_the_home_folder() {
        for (path, expected) in [
            ("", "."),
            ("/~", "."),
            ("/~/", "."),
            ("/~/a/b/", "a/b"),
            ("/~//a", "a"),
            ("/~user/a", "/~user/a"),
            ("/", "/"),
            ("//", "/"),
            ("/srv/r/", "/srv/r"),
        ] {
            assert_eq!(root(path), expected, "{path}");
        }
        let at = |path: &str, name: &str| Files::new(path).path(name);
        assert_eq!(at("", "a/b"), "./a/b");
        assert_eq!(at("/", "a/b"), "/a/b");
        assert_eq!(at("/srv/r", "a/b"), "/srv/r/a/b");
        assert_eq!(
            [parent("/a"), parent("/a/b"), parent("a"), parent("a/b")],
            ["/", "/a", ".", "a"]
        );
    }

    #[test]
    fn temporary_files_are_no_objects_and_are_known_again() {
        let name = temporary_name().unwrap();
        assert!(is_temporary(&name) && !is_valid_segment(&name));
        assert_ne!(name, temporary_name().unwrap());
        for other in [
            ".larder-",
            ".larder-0123",
            ".bashrc",
            "larder-00000000000000000000000000000000",
        ] {
            assert!(!is_temporary(other), "{other}");
        }
    }
}
