//! Handles of folders, few of which are open at a time.
//!
//! A walk can be as deep as it likes and its entries can be read long after it has moved on,
//! while the number of open handles stays bounded: a folder whose handle was closed is opened
//! again from the nearest ancestor that still has one, and must then be the same folder.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::stat::{Identity, STATX_MASK};
use crate::calls;

/// The open handles of a walk, the least recently used of which are closed first.
#[derive(Debug)]
pub(super) struct Handles {
    open: Mutex<VecDeque<(u64, Arc<OwnedFd>)>>,
    open_max: usize,
    next_id: AtomicU64,
}

impl Handles {
    pub(super) fn new(open_max: usize) -> Self {
        Self {
            open: Mutex::new(VecDeque::new()),
            open_max: open_max.max(1),
            next_id: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(u64, Arc<OwnedFd>)>> {
        // Every change below leaves the queue whole, so a poisoned lock is usable.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn open_count(&self) -> usize {
        self.lock().len()
    }

    fn get(&self, id: u64) -> Option<Arc<OwnedFd>> {
        let mut open = self.lock();
        let place = open.iter().position(|(other, _)| *other == id)?;
        if place == 0 {
            return open.front().map(|(_, handle)| Arc::clone(handle));
        }
        let found = open.remove(place)?;
        let handle = Arc::clone(&found.1);
        open.push_front(found);
        Some(handle)
    }

    fn put(&self, id: u64, handle: Arc<OwnedFd>) {
        let mut open = self.lock();
        // Two threads may have opened the same folder anew: one handle is enough.
        if open.iter().any(|(other, _)| *other == id) {
            return;
        }
        open.push_front((id, handle));
        let closed = (open.len() > self.open_max).then(|| open.pop_back());
        drop(open);
        // The system call that closes runs outside the lock.
        drop(closed);
    }

    fn forget(&self, id: u64) {
        let mut open = self.lock();
        let place = open.iter().position(|(other, _)| *other == id);
        let closed = place.and_then(|place| open.remove(place));
        drop(open);
        drop(closed);
    }
}

/// A folder of the source, which can be opened again as long as it stays where it was.
#[derive(Debug)]
pub(super) struct Folder {
    above: Above,
    identity: Identity,
    id: u64,
    handles: Arc<Handles>,
}

#[derive(Debug)]
enum Above {
    /// The folder was reached by this name from that folder.
    Folder(Arc<Folder>, Box<[u8]>),
    /// The folder is the source: its handle stays open.
    Source(Arc<OwnedFd>),
    /// What is left once the folder is being dropped.
    Gone,
}

impl Folder {
    /// Takes the source itself, whose handle stays open for as long as the folder is used.
    pub(super) fn source(handle: OwnedFd, identity: Identity, handles: Arc<Handles>) -> Arc<Self> {
        Arc::new(Self {
            above: Above::Source(Arc::new(handle)),
            identity,
            id: handles.next_id.fetch_add(1, Ordering::Relaxed),
            handles,
        })
    }

    /// Takes a folder that was opened by `name` from `parent`.
    pub(super) fn below(
        parent: &Arc<Self>,
        name: &[u8],
        handle: OwnedFd,
        identity: Identity,
    ) -> Arc<Self> {
        let handles = Arc::clone(&parent.handles);
        let id = handles.next_id.fetch_add(1, Ordering::Relaxed);
        handles.put(id, Arc::new(handle));
        Arc::new(Self {
            above: Above::Folder(Arc::clone(parent), name.into()),
            identity,
            id,
            handles,
        })
    }

    /// Gives the folder's handle, opening it again if it was closed.
    ///
    /// # Errors
    /// Whatever the system says, or `ESTALE` if another folder is there now.
    pub(super) fn handle(self: &Arc<Self>) -> io::Result<Arc<OwnedFd>> {
        let mut closed = Vec::new();
        let mut at = self;
        let mut handle = loop {
            if let Above::Source(handle) = &at.above {
                break Arc::clone(handle);
            }
            if let Some(handle) = at.handles.get(at.id) {
                break handle;
            }
            closed.push(at);
            match &at.above {
                Above::Folder(parent, _) => at = parent,
                Above::Source(_) | Above::Gone => return Err(Errno::STALE.into()),
            }
        };
        while let Some(folder) = closed.pop() {
            if let Above::Folder(_, name) = &folder.above {
                handle = Arc::new(open_folder(handle.as_fd(), OsStr::from_bytes(name))?);
                let found = calls::statx(handle.as_fd(), c"", AtFlags::EMPTY_PATH, STATX_MASK)?;
                if Identity::of(&found) != folder.identity {
                    return Err(Errno::STALE.into());
                }
                folder.handles.put(folder.id, Arc::clone(&handle));
            }
        }
        Ok(handle)
    }
}

impl Drop for Folder {
    /// Lets go of the ancestors one by one: dropping a long chain must not recurse.
    fn drop(&mut self) {
        self.handles.forget(self.id);
        let mut above = std::mem::replace(&mut self.above, Above::Gone);
        while let Above::Folder(parent, _) = above {
            match Arc::into_inner(parent) {
                Some(mut parent) => above = std::mem::replace(&mut parent.above, Above::Gone),
                None => break,
            }
        }
    }
}

/// Opens a folder for listing, without marking it as read where that is allowed.
///
/// # Errors
/// Whatever the system says; `ENOTDIR` or `ELOOP` for what is not a folder (any more).
pub(super) fn open_folder(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match calls::openat(parent, name, flags | OFlags::NOATIME, Mode::empty()) {
        // Only the owner and root may ask for that.
        Err(Errno::PERM) => Ok(calls::openat(parent, name, flags, Mode::empty())?),
        opened => Ok(opened?),
    }
}
