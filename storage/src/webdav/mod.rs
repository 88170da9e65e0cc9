//! A folder on a server that speaks WebDAV.
//!
//! An object is uploaded under a name of its own and then moved to its place, so that it appears whole. Two
//! things that servers do less well than the protocol says are levelled, or told by the capabilities:
//!
//! - A move that must not overwrite looks first and moves then: on Apache two at once both succeed, and so do
//!   two that ask for the same lock. What has one winner everywhere is the making of a folder. So a create
//!   claims a folder beside the object, looks whether the name is free, moves the upload into the folder and
//!   from there to the name, and removes the folder. A claim that is old is moved away with all that is in
//!   it, so that the one who held it can bring nothing to the name any more, however late a request of his
//!   arrives: no clock decides who wins.
//! - Who reads an object that is just replaced may get its new bytes cut to the old length (Apache), or
//!   nothing (WsgiDAV deletes before it moves). So a put is not atomic for readers; the engine replaces
//!   objects only by the same bytes.
//!
//! - A few servers (rclone) make a folder that is there already, and say so to each who asks. They decide
//!   nothing: the capabilities say it, once the root was asked for again.
//!
//! Folders are listed one by one, since many servers refuse more.

mod place;
mod server;
mod xml;

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use self::place::{login_of, root_of};
use self::server::{Entry, Folder, Overwrite, Server};
use super::error::{ErrorKind, Operation, Reason, Result, StorageError};
use super::http::{Answer, Http, Task};
use super::location::Location;
use super::network::Network;
use super::open::Mode;
use super::retry::Retry;
use super::{
    Capabilities, CreateExclusive, ObjectInfo, Storage, check_folder, check_name, is_valid_segment,
    runtime,
};

/// Folders below the root that a listing descends into; a repository has two.
const DEPTH_MAX: usize = 16;
/// How the name of an unfinished upload ends: `-`, these many digits, and `UNFINISHED`.
const UNFINISHED_DIGITS: usize = 16;
const UNFINISHED: &str = ".part";
/// How the name of the folder ends that a create claims.
const CLAIM: &str = "-lock";
/// How old a claim is before it is taken away: patience alone, no safety hangs on it.
const CLAIM_MAX: Duration = Duration::from_secs(60);
/// The task of reaching the storage itself.
const OPENING: Task<'static> = Task {
    operation: Operation::Open,
    name: "",
};

/// Opens a folder over WebDAV.
pub(crate) fn open(location: &Location, network: &Network, mode: Mode) -> Result<Arc<dyn Storage>> {
    let description = location.place.to_string();
    let refuse = |cause: String| {
        let kind = ErrorKind::Permanent;
        StorageError::new(Operation::Open, description.as_str(), "", kind, cause)
            .because(Reason::Settings)
    };
    let root = root_of(location).map_err(refuse)?;
    let login = login_of(location).map_err(refuse)?;
    let http = Http::new(network, description.clone()).map_err(refuse)?;
    let mut storage = WebDav {
        server: Server::new(http, root, login),
        decides: true,
        retry: network.retry.clone(),
        folders: Mutex::default(),
        description,
    };
    let find_root = || storage.run(OPENING, storage.find_root(mode));
    network.retry.run(find_root)?;
    // The root is there: a server that makes it again lets everybody claim what others have claimed.
    let claim_root = || storage.run(OPENING, storage.server.makes_what_is_there(OPENING));
    storage.decides = !network.retry.run(claim_root)?;
    Ok(Arc::new(storage))
}

/// A storage in a folder of a WebDAV server.
struct WebDav {
    server: Server,
    /// Whether a folder has one maker.
    decides: bool,
    retry: Retry,
    /// Folders that are known to be there, by name below the root.
    folders: Mutex<HashSet<String>>,
    description: String,
}

impl WebDav {
    fn run<T>(&self, task: Task<'_>, future: impl Future<Output = Result<T>>) -> Result<T> {
        runtime::block_on(future)
            .map_err(|cause| self.server.http.error(task, ErrorKind::Transient, cause))?
    }

    /// Begins an operation on an object.
    fn task<'a>(&self, operation: Operation, name: &'a str) -> Result<Task<'a>> {
        check_name(operation, &self.description, name)?;
        Ok(Task { operation, name })
    }

    fn error(&self, task: Task<'_>, kind: ErrorKind, cause: impl Into<String>) -> StorageError {
        self.server.http.error(task, kind, cause)
    }

    /// Finds the folder of the repository, or makes it.
    async fn find_root(&self, mode: Mode) -> Result<()> {
        let mut found = self.server.look(OPENING, "", true).await?;
        if found.is_none() && mode == Mode::Create {
            self.server.make_root(OPENING).await?;
            found = self.server.look(OPENING, "", true).await?;
        }
        match found {
            Some(root) if root.is_folder => Ok(()),
            Some(_) => Err(self.error(OPENING, ErrorKind::Permanent, "it is no folder")),
            None => Err(self.no_root(OPENING)),
        }
    }

    fn no_root(&self, task: Task<'_>) -> StorageError {
        self.error(task, ErrorKind::NotFound, "there is no such folder")
            .because(Reason::NoFolder)
    }

    /// Makes the folder that an object lies in, once per process unless it vanishes.
    async fn prepare_folder(&self, task: Task<'_>) -> Result<()> {
        let Some((folder, _)) = task.name.rsplit_once('/') else {
            return Ok(());
        };
        if self.lock_folders().contains(folder) {
            return Ok(());
        }
        if !self.server.make_folder(task, folder).await? {
            // Its parent is missing: all of them, from the root on. The root itself is not made again.
            for (end, _) in folder.match_indices('/') {
                let above = folder.get(..end).unwrap_or(folder);
                if !self.server.make_folder(task, above).await? {
                    return Err(self.no_root(task));
                }
            }
            if !self.server.make_folder(task, folder).await? {
                return Err(self.no_root(task));
            }
        }
        self.lock_folders().insert(folder.to_owned());
        Ok(())
    }

    fn lock_folders(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets that the folder of an object is there.
    fn forget_folder(&self, name: &str) {
        if let Some((folder, _)) = name.rsplit_once('/') {
            self.lock_folders().remove(folder);
        }
    }

    /// Writes an object where there is none.
    async fn write_new(&self, task: Task<'_>, bytes: Bytes) -> Result<()> {
        self.check_free(task).await?;
        self.write(task, bytes, Overwrite::No).await
    }

    async fn check_free(&self, task: Task<'_>) -> Result<()> {
        match self.server.look(task, task.name, false).await? {
            None => Ok(()),
            Some(_) => Err(self.error(task, ErrorKind::AlreadyExists, "it exists already")),
        }
    }

    /// Uploads under a name of its own, and moves the object to its place.
    async fn write(&self, task: Task<'_>, bytes: Bytes, overwrite: Overwrite) -> Result<()> {
        self.prepare_folder(task).await?;
        let unfinished =
            unfinished(task.name).map_err(|cause| self.error(task, ErrorKind::Transient, cause))?;
        let mut outcome = self.upload(task, &unfinished, bytes).await;
        if outcome.is_ok() {
            outcome = match overwrite {
                Overwrite::No => self.move_alone(task, &unfinished).await,
                Overwrite::Yes => self
                    .server
                    .rename(task, &unfinished, task.name, overwrite)
                    .await
                    .and_then(|outcome| outcome),
            };
        }
        if let Err(error) = &outcome
            && !is_out_of_reach(error.reason)
        {
            // What cannot be removed now is swept away later.
            let _ = self.server.delete(task, &unfinished).await;
        }
        outcome
    }

    async fn upload(&self, task: Task<'_>, unfinished: &str, bytes: Bytes) -> Result<()> {
        let server = &self.server;
        if !server.put(task, unfinished, bytes.clone()).await? {
            self.forget_folder(task.name);
            self.prepare_folder(task).await?;
            if !server.put(task, unfinished, bytes).await? {
                return Err(self.no_root(task));
            }
        }
        Ok(())
    }

    /// Moves an upload to a name where nothing is, alone among all who do.
    async fn move_alone(&self, task: Task<'_>, unfinished: &str) -> Result<()> {
        let claim = format!("{}{CLAIM}", task.name);
        let server = &self.server;
        let claimed = server.claim_folder(task, &claim).await;
        if !matches!(claimed, Ok(true)) {
            self.check_free(task).await?;
            claimed?;
            self.drop_dead_claim(task, &claim).await?;
            let cause = "somebody else creates it at this moment";
            return Err(self.error(task, ErrorKind::Transient, cause));
        }
        // Where nobody knows whether a move goes on, the claim is left to grow old.
        let moved = self.move_through(task, unfinished, &claim).await?;
        if let Err(error) = server.delete_folder(task, &claim).await {
            tracing::debug!("{error}; the claim is left to grow old");
        }
        // Some servers speak of rights (403) where the name is taken by now.
        if moved.is_err() {
            self.check_free(task).await?;
        }
        moved
    }

    /// Moves an upload into a claim, and from there to its name: a move that comes late, after the claim
    /// was taken away, finds nothing to move.
    async fn move_through(
        &self,
        task: Task<'_>,
        unfinished: &str,
        claim: &str,
    ) -> Result<Result<()>> {
        if let Err(error) = self.check_free(task).await {
            return Ok(Err(error));
        }
        let own = unfinished.rsplit('/').next().unwrap_or(unfinished);
        let inside = format!("{claim}/{own}");
        let server = &self.server;
        match server
            .rename(task, unfinished, &inside, Overwrite::No)
            .await?
        {
            Ok(()) => server.rename(task, &inside, task.name, Overwrite::No).await,
            refused => Ok(refused),
        }
    }

    /// Takes a claim away that is old. It is moved first, which only one can do, and with it goes what
    /// its owner may still mean to move to the name.
    async fn drop_dead_claim(&self, task: Task<'_>, claim: &str) -> Result<()> {
        let age = self.server.age(task, claim).await?;
        if age.is_none_or(|age| age < CLAIM_MAX) {
            return Ok(());
        }
        let aside =
            unfinished(task.name).map_err(|cause| self.error(task, ErrorKind::Transient, cause))?;
        let server = &self.server;
        if server
            .rename(task, claim, &aside, Overwrite::No)
            .await?
            .is_ok()
        {
            server.delete_folder(task, &aside).await?;
        }
        Ok(())
    }

    async fn read(&self, task: Task<'_>, max_bytes: u64) -> Result<Bytes> {
        let answer = self.server.get(task, None).await?;
        let claimed = answer.length_bytes();
        let bytes = answer.body(task, max_bytes).await?;
        match claimed {
            Some(claimed) if claimed != bytes.len() as u64 => Err(self.cut_short(task)),
            _ => Ok(bytes),
        }
    }

    /// Reads `length_bytes`, which are some, from `first` to `last`.
    async fn read_range(&self, task: Task<'_>, first: u64, last: u64) -> Result<Bytes> {
        let answer = self.server.get(task, Some((first, last))).await?;
        let claimed = answer.length_bytes();
        let skipped_bytes = match answer.status().as_u16() {
            206 => self.check_range(task, &answer, first, last).map(|()| 0)?,
            // The server does not know ranges, and sends everything.
            200 if claimed.is_none_or(|size_bytes| size_bytes > last) => first,
            _ => return Err(self.past_the_end(task, "it ends before that")),
        };
        let is_everything = answer.status().as_u16() == 200;
        let length_bytes = last - first + 1;
        let (bytes, _) = answer.part(task, skipped_bytes, length_bytes).await?;
        match bytes.len() as u64 == length_bytes {
            true => Ok(bytes),
            false if is_everything && claimed.is_none() => {
                Err(self.past_the_end(task, "it ends before that"))
            }
            false => Err(self.cut_short(task)),
        }
    }

    /// Holds the part that a server sends against the one that was asked for.
    fn check_range(
        &self,
        task: Task<'_>,
        answer: &Answer<'_>,
        first: u64,
        last: u64,
    ) -> Result<()> {
        match answer.range() {
            Some((from, to, _)) if (from, to) == (first, last) => Ok(()),
            Some((from, to, Some(size_bytes)))
                if from == first && to < last && to.checked_add(1) == Some(size_bytes) =>
            {
                Err(self.past_the_end(task, &format!("it has {size_bytes} bytes")))
            }
            _ => {
                let cause = "the server sends another part than it was asked for";
                let error = self.error(task, ErrorKind::Permanent, cause);
                Err(error.because(Reason::Protocol))
            }
        }
    }

    fn past_the_end(&self, task: Task<'_>, cause: &str) -> StorageError {
        let cause = format!("{cause}, too few for the part that was asked for");
        self.error(task, ErrorKind::Truncated, cause)
    }

    fn cut_short(&self, task: Task<'_>) -> StorageError {
        let cause = "the server sent fewer bytes than it said";
        self.error(task, ErrorKind::Transient, cause)
    }

    async fn measure(&self, task: Task<'_>) -> Result<u64> {
        let found = self.server.look(task, task.name, false).await?;
        let object = found.filter(|resource| !resource.is_folder);
        let object = object
            .ok_or_else(|| self.error(task, ErrorKind::NotFound, "there is no such object"))?;
        self.size_of(task, object.size_bytes)
    }

    fn size_of(&self, task: Task<'_>, size_bytes: Option<u64>) -> Result<u64> {
        size_bytes.ok_or_else(|| {
            let cause = "the server does not tell its size";
            let error = self.error(task, ErrorKind::Permanent, cause);
            error.because(Reason::Protocol)
        })
    }

    /// Calls `visit` with all in a folder and below it but its folders of objects, each folder asked for on its own and
    /// asked again as long as patience lasts.
    fn walk(
        &self,
        folder: &str,
        depth: usize,
        visit: &mut dyn FnMut(&str, Entry, SystemTime) -> Result<()>,
    ) -> Result<()> {
        let task = Task {
            operation: Operation::List,
            name: folder,
        };
        let listed = self.retry.run(|| self.run(task, self.list_folder(task)))?;
        let Some(listed) = listed else {
            // A repository that is gone must not look like one without objects.
            return self.retry.run(|| self.run(task, self.check_root(task)));
        };
        for entry in listed.entries {
            match entry.resource.status {
                None | Some(200..=299) => {}
                // It went since the server looked.
                Some(404 | 410) => continue,
                Some(status) => {
                    let cause = format!("the server lists {} with status {status}", entry.segment);
                    let error = self.error(task, ErrorKind::Permanent, cause);
                    return Err(error.because(Reason::Protocol));
                }
            }
            let name = match folder {
                "" => entry.segment.clone(),
                folder => format!("{folder}/{}", entry.segment),
            };
            let is_ours = entry.resource.is_folder && is_valid_segment(&entry.segment);
            if !is_ours {
                visit(&name, entry, listed.date)?;
            } else if depth < DEPTH_MAX {
                self.walk(&name, depth + 1, visit)?;
            }
        }
        Ok(())
    }

    /// Lists a folder: `None` if there is none, which an object of its name is not either.
    async fn list_folder(&self, task: Task<'_>) -> Result<Option<Folder>> {
        match self.server.list(task.name).await {
            Err(error) if error.kind != ErrorKind::Transient && !task.name.is_empty() => {
                let found = self.server.look(task, task.name, false).await?;
                match found.is_some_and(|resource| !resource.is_folder) {
                    true => Ok(None),
                    false => Err(error),
                }
            }
            outcome => outcome,
        }
    }

    async fn check_root(&self, task: Task<'_>) -> Result<()> {
        match self.server.look(task, "", true).await? {
            Some(root) if root.is_folder => Ok(()),
            _ => Err(self.no_root(task)),
        }
    }
}

impl Storage for WebDav {
    fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes> {
        let task = self.task(Operation::Get, name)?;
        self.run(task, self.read(task, max_bytes))
    }

    fn get_range(&self, name: &str, offset_bytes: u64, length_bytes: u64) -> Result<Bytes> {
        let task = self.task(Operation::GetRange, name)?;
        let end = offset_bytes.checked_add(length_bytes);
        match end.filter(|_| length_bytes > 0) {
            Some(end) => self.run(task, self.read_range(task, offset_bytes, end - 1)),
            // A range of nothing cannot be asked for, nor one that no object can have.
            None => {
                let size_bytes = self.run(task, self.measure(task))?;
                match end.is_some_and(|end| end <= size_bytes) {
                    true => Ok(Bytes::new()),
                    false => Err(self.past_the_end(task, &format!("it has {size_bytes} bytes"))),
                }
            }
        }
    }

    fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        let task = self.task(Operation::Put, name)?;
        self.run(task, self.write(task, bytes, Overwrite::Yes))
    }

    fn create(&self, name: &str, bytes: Bytes) -> Result<()> {
        let task = self.task(Operation::Create, name)?;
        self.run(task, self.write_new(task, bytes))
    }

    fn delete(&self, name: &str) -> Result<()> {
        let task = self.task(Operation::Delete, name)?;
        self.run(task, self.server.delete(task, name))
    }

    fn list(&self, folder: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()> {
        let folder = check_folder(&self.description, folder)?;
        self.walk(folder, 0, &mut |name, entry, _| {
            if !is_valid_segment(&entry.segment) {
                return Ok(());
            }
            let task = Task {
                operation: Operation::List,
                name,
            };
            visit(ObjectInfo {
                name: name.to_owned(),
                size_bytes: self.size_of(task, entry.resource.size_bytes)?,
            })
        })
    }

    fn size(&self, name: &str) -> Result<u64> {
        let task = self.task(Operation::Size, name)?;
        self.run(task, self.measure(task))
    }

    fn sweep(&self, age: Duration) -> Result<u64> {
        let mut swept = 0;
        self.walk("", 0, &mut |name, entry, date| {
            let before = date.checked_sub(age);
            let is_old = entry
                .resource
                .modified
                .is_some_and(|modified| before.is_some_and(|before| modified <= before));
            if is_old && is_remains(&entry.segment) {
                let task = Task {
                    operation: Operation::Delete,
                    name,
                };
                self.retry.run(|| match entry.resource.is_folder {
                    true => self.run(task, self.server.delete_folder(task, name)),
                    false => self.run(task, self.server.delete(task, name)),
                })?;
                swept += 1;
            }
            Ok(())
        })?;
        Ok(swept)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            create_exclusive: match self.decides {
                true => CreateExclusive::Folder,
                false => CreateExclusive::None,
            },
            sorted_listing: false,
            atomic_put: false,
            object_bytes_max: None,
            thaws: false,
        }
    }

    fn describe(&self) -> String {
        self.description.clone()
    }
}

/// Gives the name under which an object is uploaded, which no object can have.
fn unfinished(name: &str) -> std::result::Result<String, String> {
    let mut bytes = [0; UNFINISHED_DIGITS / 2];
    getrandom::fill(&mut bytes).map_err(|error| format!("there is no randomness ({error})"))?;
    let number = u64::from_le_bytes(bytes);
    Ok(format!("{name}-{number:016x}{UNFINISHED}"))
}

/// Tells whether a writer that died may have left this.
fn is_remains(segment: &str) -> bool {
    let is_claim = segment.strip_suffix(CLAIM).is_some_and(is_valid_segment);
    is_claim || is_unfinished(segment)
}

/// Tells whether an upload that was not finished has this name.
fn is_unfinished(segment: &str) -> bool {
    let parts = segment
        .strip_suffix(UNFINISHED)
        .and_then(|rest| rest.rsplit_once('-'));
    parts.is_some_and(|(segment, digits)| {
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        is_valid_segment(segment) && digits.len() == UNFINISHED_DIGITS && digits.bytes().all(is_hex)
    })
}

/// Tells whether the next request would wait in vain as well.
fn is_out_of_reach(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::HostNotFound | Reason::Refused | Reason::Unreachable | Reason::Certificate
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::super::is_valid_name;
    use super::*;

    #[test]
    fn uploads_have_names_that_no_object_has() {
        let name = unfinished("packs/ab/cd.ef").unwrap();
        let (_, segment) = name.rsplit_once('/').unwrap();
        assert!(is_unfinished(segment) && !is_valid_name(&name), "{name}");
        for other in [
            "cd.ef",
            "cd-0.part",
            "-0123456789abcdef.part",
            "cd-0123456789abcdeF.part",
        ] {
            assert!(!is_remains(other), "{other}");
        }
        assert!(is_remains("cd.ef-lock") && !is_remains("-lock") && !is_remains("my-own-lock"));
    }
}
