//! Where the bytes of a repository live: the only place that touches them.
//!
//! A [`Storage`] is a flat set of named objects. Every implementation passes
//! the one suite in `contract`, so nothing above this module has to know
//! which one it talks to: what differs is asked of [`Capabilities`].

pub mod bucket;
mod cloud;
#[cfg(any(test, feature = "testing"))]
pub mod contract;
pub mod counting;
mod dropbox;
pub mod error;
pub mod faulty;
#[cfg(any(test, feature = "testing"))]
pub mod frozen;
mod ftp;
mod http;
pub mod limit;
pub mod local;
pub mod location;
pub mod mail;
pub mod network;
pub mod object;
mod open;
mod pool;
pub mod probe;
pub mod read_back;
pub mod retry;
mod runtime;
pub mod secret;
mod sftp;
pub mod thaw;
mod webdav;

pub use http::notice;
pub use open::{Mode, open};

use std::time::Duration;

use bytes::Bytes;

use error::{ErrorKind, Operation, Result, StorageError};
use thaw::{Readiness, Thaw, Warmth};

/// The longest name of an object in bytes.
pub const NAME_BYTES: usize = 512;
/// The longest part of a name between two slashes in bytes.
const SEGMENT_BYTES: usize = 200;

/// A place that holds named objects; every call blocks until it is done.
///
/// Names are relative to the repository's root, such as `packs/ab/abcd`:
/// lower-case letters, digits and `.` between single slashes. Anything else is
/// refused with a `Permanent` error before the storage is asked.
pub trait Storage: Send + Sync {
    /// Reads a whole object; one longer than `max_bytes` is `Oversized`, found before it is read.
    fn get(&self, name: &str, max_bytes: u64) -> Result<Bytes>;

    /// Reads exactly `length_bytes` from `offset_bytes` on; a range past the end is `Truncated`.
    fn get_range(&self, name: &str, offset_bytes: u64, length_bytes: u64) -> Result<Bytes>;

    /// Writes an object, in place of one that may be there; whole and durable on return.
    ///
    /// A reader sees the old bytes or the new ones, never a mixture.
    fn put(&self, name: &str, bytes: Bytes) -> Result<()>;

    /// Writes an object unless there is one; of several writers exactly one succeeds.
    ///
    /// On success, and on `AlreadyExists`, the object there is durable. Any other error may
    /// have come after the effect: [`create_or_confirm`] settles that.
    fn create(&self, name: &str, bytes: Bytes) -> Result<()>;

    /// Removes an object; one that is not there is removed already.
    fn delete(&self, name: &str) -> Result<()>;

    /// Calls `visit` with every object below a folder, in no promised order.
    ///
    /// `folder` is a name such as `packs` (a closing slash changes nothing) or empty for the
    /// whole repository. An object that exists throughout is listed exactly once; one that
    /// comes or goes meanwhile may be. What cannot be an object of a repository (foreign
    /// files, remains of unfinished writes) is passed over. `Ok` means that the listing is
    /// whole: one that fails or is cut short is an error. `visit`'s error ends it.
    fn list(&self, folder: &str, visit: &mut dyn FnMut(ObjectInfo) -> Result<()>) -> Result<()>;

    /// Gives an object's size in bytes.
    fn size(&self, name: &str) -> Result<u64>;

    /// Tells whether an object can be read, or has to be brought back from cold storage first; it costs
    /// what its size does.
    fn warmth(&self, name: &str) -> Result<Warmth> {
        Ok(Warmth {
            size_bytes: self.size(name)?,
            class: String::new(),
            readiness: Readiness::Warm,
        })
    }

    /// Asks for an object that is cold, of which [`warmth`](Self::warmth) told how it stands, to be brought
    /// back; when it can be read, that tells too. Asking again is no error.
    fn thaw(&self, name: &str, _warmth: &Warmth, _how: &Thaw) -> Result<()> {
        let (kind, why) = (ErrorKind::Permanent, "this storage keeps nothing cold");
        Err(StorageError::new(
            Operation::Thaw,
            self.describe(),
            name,
            kind,
            why,
        ))
    }

    /// Removes what writers that died left of unfinished writes `age` ago or earlier; gives how many
    /// there were. A write that is unfinished for so long and still goes on fails.
    fn sweep(&self, age: Duration) -> Result<u64> {
        let _nothing_is_left_where_objects_appear_whole = age;
        Ok(0)
    }

    /// Removes a folder in which nothing is left; where something is, or folders are no things of
    /// their own, nothing happens.
    fn remove_folder(&self, folder: &str) -> Result<()> {
        let _an_empty_folder_is_none = folder;
        Ok(())
    }

    /// Tells what this storage can do.
    fn capabilities(&self) -> Capabilities;

    /// Tells how many calls at once are of use; a storage far away gains by more than one near by.
    fn calls_at_once(&self) -> usize {
        2
    }

    /// Names the storage for a person, without secrets.
    fn describe(&self) -> String;
}

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectInfo {
    /// The object's name, relative to the repository's root.
    pub name: String,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// What a storage can do; the engine asks this and never the scheme's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// How one winner of several creates is decided.
    pub create_exclusive: CreateExclusive,
    /// Whether listings come in byte order of names.
    pub sorted_listing: bool,
    /// Whether an object appears whole or not at all.
    pub atomic_put: bool,
    /// The largest object in bytes, if there is a bound.
    pub object_bytes_max: Option<u64>,
    /// Whether objects may lie in classes from which they have to be brought back before they can be read.
    pub thaws: bool,
}

/// How a storage decides who creates an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateExclusive {
    /// The storage has a create that fails where there is something.
    Native,
    /// A hard link to a finished temporary file.
    HardLink,
    /// The rename of a folder, which fails where there is one already that is not empty.
    FolderRename,
    /// A folder that only one can make, who then moves a finished upload to a free name.
    Folder,
    /// It cannot: pruning needs an explicit flag and long pauses.
    None,
}

/// Creates an object and settles an ambiguous outcome by reading back.
///
/// `Ok`: the object there has exactly these bytes, whoever wrote them. `AlreadyExists`: it has
/// others. Any other error: the object is not known to be there, and a retry is safe.
pub fn create_or_confirm(storage: &dyn Storage, name: &str, bytes: &Bytes) -> Result<()> {
    const ATTEMPTS: usize = 4;
    let mut attempt = 1;
    loop {
        let Err(error) = storage.create(name, bytes.clone()) else {
            return Ok(());
        };
        let found = match storage.get(name, bytes.len() as u64) {
            Ok(found) => Some(found == *bytes),
            Err(read) if read.kind == ErrorKind::Oversized => Some(false),
            Err(read) if read.kind == ErrorKind::NotFound => None,
            Err(_) if attempt < ATTEMPTS => None,
            Err(read) => return Err(read),
        };
        // Bytes that are there after another error may not be durable yet: creating them
        // again answers `AlreadyExists`, which says that they are.
        let exists = error.kind == ErrorKind::AlreadyExists;
        let is_settled = match found {
            Some(true) => exists,
            Some(false) => {
                return Err(StorageError {
                    kind: ErrorKind::AlreadyExists,
                    cause: "it exists already with other content".to_owned(),
                    ..error
                });
            }
            None => false,
        };
        if is_settled {
            return Ok(());
        }
        let may_retry = found == Some(true) || exists || error.kind == ErrorKind::Transient;
        if !may_retry || attempt == ATTEMPTS {
            return Err(error);
        }
        attempt += 1;
    }
}

/// Tells whether a storage takes `name` as the name of an object.
#[must_use]
pub fn is_valid_name(name: &str) -> bool {
    name.len() <= NAME_BYTES && name.split('/').all(is_valid_segment)
}

/// Tells whether `segment` may stand between two slashes of a name.
fn is_valid_segment(segment: &str) -> bool {
    let is_valid_char = |char| matches!(char, b'a'..=b'z' | b'0'..=b'9' | b'.');
    !segment.is_empty()
        && segment.len() <= SEGMENT_BYTES
        && !segment.starts_with('.')
        && segment.bytes().all(is_valid_char)
}

/// Refuses what is not the name of an object.
fn check_name(operation: Operation, storage: &str, name: &str) -> Result<()> {
    if is_valid_name(name) {
        return Ok(());
    }
    Err(StorageError::new(
        operation,
        storage,
        &format!("{name:?}"),
        ErrorKind::Permanent,
        "a name has only lower-case letters, digits, '/' and '.'",
    ))
}

/// Refuses what is not a folder, and gives it without a closing slash.
fn check_folder<'a>(storage: &str, folder: &'a str) -> Result<&'a str> {
    let trimmed = folder.strip_suffix('/').unwrap_or(folder);
    if !folder.is_empty() {
        check_name(Operation::List, storage, trimmed)?;
    }
    Ok(trimmed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::Arc;

    use super::faulty::{Fault, Faulty, When};
    use super::object::ObjectStorage;
    use super::*;

    #[test]
    fn names_are_hex_like_paths_and_nothing_else() {
        for name in ["config/0", "packs/ab/abcd", "sessions/00ff.done", "reserve"] {
            assert!(is_valid_name(name), "{name}");
        }
        let long = "a/".repeat(300) + "a";
        for name in [
            "", "/", "a/", "/a", "a//b", "A", "a b", "..", "a/../b", ".", "a/.b", "a#1", "é",
            "a-b", "a\0", &long,
        ] {
            assert!(!is_valid_name(name), "{name:?}");
        }
    }

    #[test]
    fn an_ambiguous_create_is_settled_by_reading_back() {
        let bytes = Bytes::from_static(b"mine");
        // The create takes effect and then answers with an error.
        let faulty = Faulty::new(Arc::new(ObjectStorage::memory()));
        faulty.inject(Fault::error(1, When::After, ErrorKind::Transient));
        create_or_confirm(&faulty, "gc/1", &bytes).unwrap();
        // It fails before its effect: tried again.
        let faulty = Faulty::new(Arc::new(ObjectStorage::memory()));
        faulty.inject(Fault::error(1, When::Before, ErrorKind::Transient));
        create_or_confirm(&faulty, "gc/1", &bytes).unwrap();
        assert_eq!(faulty.get("gc/1", 9).unwrap(), bytes);
        // A failure that will not pass is told, and nothing is there.
        let faulty = Faulty::new(Arc::new(ObjectStorage::memory()));
        faulty.inject(Fault::error(1, When::Before, ErrorKind::Full));
        let error = create_or_confirm(&faulty, "gc/1", &bytes).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Full);
        // Somebody else's object is never taken for one's own, longer or not.
        for other in ["else", "e", "something else"] {
            let memory = ObjectStorage::memory();
            memory.create("gc/1", Bytes::from(other)).unwrap();
            let error = create_or_confirm(&memory, "gc/1", &bytes).unwrap_err();
            assert_eq!(error.kind, ErrorKind::AlreadyExists);
        }
        // The same bytes from another hand are as good.
        let memory = ObjectStorage::memory();
        memory.create("gc/1", bytes.clone()).unwrap();
        create_or_confirm(&memory, "gc/1", &bytes).unwrap();
    }
}
