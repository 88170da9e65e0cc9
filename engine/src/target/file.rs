//! Files on their way: written under a temporary name, then completed and renamed.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use larder_format::entry::Entry;
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::error::{Context as _, TargetError};
use super::existing::{ExistingFile, data_from, read_full_at};
use super::metadata::{Attribute, Handle};
use super::names::check_leaf;
use super::nodes::NodeId;
use super::options::Overwrite;
use super::tree::Target;
use crate::calls;

/// The piece that becomes a hole when it is all zeros: the block size of most file systems.
const HOLE_BYTES: u64 = 4096;

/// What a file starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// An empty file.
    Fresh,
    /// A clone, or else a copy, of the file that has the name; an empty one if there is none.
    Patch,
    /// The file itself that has the name, so that a restore that fails leaves it half changed.
    /// One that cannot be used so (none there, several names, no permission) is patched.
    InPlace,
}

/// A file of known size that is being written, from any number of threads.
///
/// Dropped before it is finished, it is abandoned.
pub struct PendingFile {
    target: Arc<Target>,
    number: u64,
    key: Vec<u8>,
    /// Nothing for a file that is changed in place.
    temporary: Option<String>,
    id: NodeId,
    size: u64,
    /// How many bytes of a former file it started with.
    kept: u64,
    /// The end of the last byte that was written.
    end: AtomicU64,
    /// Whether it may still be written. Writers share the lock, the end takes it alone: nothing
    /// is written to a file that has its final name.
    open: RwLock<bool>,
}

impl Target {
    /// Starts a file of `size` bytes; its directory has to be there.
    ///
    /// Bytes that are never written are zero, except those kept of a former file.
    ///
    /// # Errors
    /// An unsafe key, or an error of the system.
    pub fn create_file(
        self: &Arc<Self>,
        key: &[u8],
        size: u64,
        mode: WriteMode,
    ) -> Result<PendingFile, TargetError> {
        self.start_file(key, size, mode).on("create the file", key)
    }

    fn start_file(
        self: &Arc<Self>,
        key: &[u8],
        size: u64,
        mode: WriteMode,
    ) -> io::Result<PendingFile> {
        let components = check_leaf(key)?;
        if mode == WriteMode::InPlace
            && self.options.overwrite != Overwrite::Never
            && let Some(file) = self.start_in_place(key, size)?
        {
            return Ok(file);
        }
        let parent = self.directory(components.parent())?;
        let (number, temporary) = self.temporary();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let handle = self.with_room(|| {
            let mode = Mode::RUSR | Mode::WUSR;
            calls::openat(&parent, temporary.as_str(), flags | OFlags::CLOEXEC, mode)
        })?;
        let id = match calls::fstat(&handle) {
            Ok(stat) => NodeId::of(&stat),
            Err(error) => {
                let _ = calls::unlinkat(&parent, temporary.as_str(), AtFlags::empty());
                return Err(error.into());
            }
        };
        let mut file = self.pending(key, size, number, Some(temporary), id);
        if mode != WriteMode::Fresh
            && let Some(former) = self.open_file(key, OFlags::RDONLY).unwrap_or_default()
        {
            file.kept = copy(&former, &handle, size)?;
        }
        self.lock_files().insert(number, Arc::new(handle));
        Ok(file)
    }

    /// Opens the file itself, or gives nothing if it has to be patched.
    fn start_in_place(self: &Arc<Self>, key: &[u8], size: u64) -> io::Result<Option<PendingFile>> {
        let former = match self.open_file(key, OFlags::RDWR) {
            Ok(Some(former)) if former.metadata.links == 1 => former,
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
            Err(error) => return Err(error),
        };
        let (number, _) = self.temporary();
        let mut file = self.pending(key, size, number, None, former.metadata.id);
        file.kept = former.metadata.size;
        let handle = former.into_handle();
        // What the entry's permissions hide must not show while it is written. Somebody else's
        // file keeps its own: then the system says no.
        let _ = calls::fchmod(&handle, Mode::RUSR | Mode::WUSR);
        self.lock_files().insert(number, Arc::new(handle));
        Ok(Some(file))
    }

    fn pending(
        self: &Arc<Self>,
        key: &[u8],
        size: u64,
        number: u64,
        temporary: Option<String>,
        id: NodeId,
    ) -> PendingFile {
        PendingFile {
            target: Arc::clone(self),
            number,
            key: key.to_vec(),
            temporary,
            id,
            size,
            kept: 0,
            end: AtomicU64::new(0),
            open: RwLock::new(true),
        }
    }
}

impl PendingFile {
    /// Gives the key it was made for.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Gives the size in bytes that it will have.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Gives how many bytes of a former file it started with; 0 if it started empty.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        self.kept
    }

    /// Reads bytes that the file has now, to find out which of a former file differ.
    ///
    /// Gives how many bytes there were, less than asked for at the end of those kept. What is
    /// read is the file that gets the final name: nobody else changes it in between.
    ///
    /// # Errors
    /// An error of the system.
    pub fn read_existing_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, TargetError> {
        let left = usize::try_from(self.kept.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let buffer = buffer.get_mut(..wanted).unwrap_or_default();
        self.while_open(|handle| read_full_at(handle, buffer, offset))
            .on("read", &self.key)
    }

    /// Gives where the next bytes at or after an offset may be that are not a hole.
    pub fn existing_data_from(&self, offset: u64) -> u64 {
        self.while_open(|handle| Ok(data_from(handle, offset)))
            .unwrap_or(offset)
    }

    /// Writes bytes at an offset; blocks of zeros become holes if that was asked for.
    ///
    /// # Errors
    /// Bytes past the size, a file that is finished or abandoned, or an error of the system.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), TargetError> {
        self.check_range(offset, bytes.len() as u64)
            .on("write to", &self.key)?;
        self.while_open(|handle| {
            if !self.target.options.sparse {
                return self.write_data(handle, bytes, offset);
            }
            for (start, run, is_zero) in runs(bytes, offset) {
                if is_zero {
                    self.write_zeros(handle, start, run.len() as u64)?;
                } else {
                    self.write_data(handle, run, start)?;
                }
            }
            Ok(())
        })
        .on("write to", &self.key)
    }

    /// Makes a range read as zeros, without taking room where the file system can do that.
    ///
    /// # Errors
    /// As [`PendingFile::write_at`].
    pub fn write_hole(&self, offset: u64, length: u64) -> Result<(), TargetError> {
        self.check_range(offset, length).on("write to", &self.key)?;
        self.while_open(|handle| self.write_zeros(handle, offset, length))
            .on("write to", &self.key)
    }

    /// Completes the file and gives it its final name, once all bytes are in.
    ///
    /// # Errors
    /// The file could not be completed, or its name is taken by something that is to stay; it
    /// is then abandoned. Metadata that cannot be set is a warning.
    pub fn finish(&self, entry: &Entry, attributes: &[Attribute]) -> Result<NodeId, TargetError> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if !*open {
            return Err(over()).on("finish the file", &self.key);
        }
        *open = false;
        let result = self.complete(entry, attributes);
        self.target.lock_files().remove(&self.number);
        if result.is_err() {
            self.unlink();
        }
        result.map(|()| self.id).on("finish the file", &self.key)
    }

    /// Removes the file that was being written; what had its name before is still there.
    ///
    /// A file changed in place stays as far as it was changed, with mode 0600.
    pub fn abandon(&self) {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if *open {
            *open = false;
            self.target.lock_files().remove(&self.number);
            self.unlink();
        }
    }

    fn complete(&self, entry: &Entry, attributes: &[Attribute]) -> io::Result<()> {
        let handle = self.handle()?;
        if self.kept > 0 || self.end.load(Ordering::Acquire) != self.size {
            calls::ftruncate(&handle, self.size)?;
        }
        let stat = calls::fstat(&handle)?;
        self.target
            .apply(&Handle::Open(&handle), &stat, entry, attributes);
        let Some(temporary) = &self.temporary else {
            return Ok(());
        };
        let components = check_leaf(&self.key)?;
        let parent = self.target.directory(components.parent())?;
        self.target
            .put_in_place(&parent, temporary, components.name(), &self.key)
    }

    fn unlink(&self) {
        let (Some(temporary), Ok(components)) = (&self.temporary, check_leaf(&self.key)) else {
            return;
        };
        let result = self
            .target
            .directory(components.parent())
            .and_then(|parent| {
                Ok(calls::unlinkat(
                    &parent,
                    temporary.as_str(),
                    AtFlags::empty(),
                )?)
            });
        if let Err(error) = result {
            tracing::warn!(name = %temporary, %error, "a temporary file could not be removed");
        }
    }

    /// Runs something on the open file, which is not finished meanwhile.
    fn while_open<T>(&self, work: impl FnOnce(&OwnedFd) -> io::Result<T>) -> io::Result<T> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        if !*open {
            return Err(over());
        }
        work(&*self.handle()?)
    }

    /// Gives the open file; one that had to give way to others is opened again, if its name is
    /// still that of the file that was made.
    fn handle(&self) -> io::Result<Arc<OwnedFd>> {
        if let Some(handle) = self.target.lock_files().get(&self.number) {
            return Ok(handle);
        }
        let components = check_leaf(&self.key)?;
        let parent = self.target.directory(components.parent())?;
        let name = self
            .temporary
            .as_deref()
            .map_or(components.name(), str::as_bytes);
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let handle = self
            .target
            .with_room(|| calls::openat(&parent, name, flags | OFlags::CLOEXEC, Mode::empty()))?;
        if NodeId::of(&calls::fstat(&handle)?) != self.id {
            return Err(io::Error::other(
                "something else took the place of the file being written",
            ));
        }
        let handle = Arc::new(handle);
        self.target
            .lock_files()
            .insert(self.number, Arc::clone(&handle));
        Ok(handle)
    }

    fn check_range(&self, offset: u64, length: u64) -> io::Result<()> {
        if offset
            .checked_add(length)
            .is_some_and(|end| end <= self.size)
        {
            return Ok(());
        }
        let why = format!("{length} bytes at {offset} go past its {} bytes", self.size);
        Err(io::Error::new(io::ErrorKind::InvalidInput, why))
    }

    fn write_data(&self, handle: &OwnedFd, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut rest = bytes;
        let mut at = offset;
        while !rest.is_empty() {
            match calls::pwrite(handle, rest, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    rest = rest.get(count..).unwrap_or_default();
                    at += count as u64;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.end.fetch_max(at, Ordering::AcqRel);
        Ok(())
    }

    /// Zeros a range: past what was kept of a former file, it is zero already.
    fn write_zeros(&self, handle: &OwnedFd, offset: u64, length: u64) -> io::Result<()> {
        let end = (offset + length).min(self.kept);
        if offset >= end {
            return Ok(());
        }
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match calls::fallocate(handle, punch, offset, end - offset) {
            Ok(()) => return Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
        let zeros = [0; 1 << 16];
        let mut at = offset;
        while at < end {
            let count = usize::try_from(end - at)
                .unwrap_or(usize::MAX)
                .min(zeros.len());
            self.write_data(handle, zeros.get(..count).unwrap_or_default(), at)?;
            at += count as u64;
        }
        Ok(())
    }
}

impl Drop for PendingFile {
    fn drop(&mut self) {
        self.abandon();
    }
}

fn over() -> io::Error {
    io::Error::other("it was finished or abandoned before")
}

/// Splits bytes into runs of whole zero blocks and the rest: offset, bytes, whether zero.
fn runs(bytes: &[u8], offset: u64) -> Vec<(u64, &[u8], bool)> {
    let to_block = (HOLE_BYTES - offset % HOLE_BYTES) % HOLE_BYTES;
    let first = usize::try_from(to_block).unwrap_or(0).min(bytes.len());
    let (head, body) = bytes.split_at_checked(first).unwrap_or((bytes, &[]));
    let mut ends: Vec<(usize, bool)> = Vec::new();
    let mut end = 0;
    let blocks = body.chunks(HOLE_BYTES as usize);
    for piece in std::iter::once(head)
        .filter(|head| !head.is_empty())
        .chain(blocks)
    {
        let is_zero = piece.len() as u64 == HOLE_BYTES && piece.iter().all(|byte| *byte == 0);
        end += piece.len();
        match ends.last_mut().filter(|last| last.1 == is_zero) {
            Some(last) => last.0 = end,
            None => ends.push((end, is_zero)),
        }
    }
    let mut start = 0;
    let run = |(end, is_zero)| {
        let piece = (
            offset + start as u64,
            bytes.get(start..end).unwrap_or_default(),
            is_zero,
        );
        start = end;
        piece
    };
    ends.into_iter().map(run).collect()
}

/// Puts what a former file holds, up to `size` bytes, into an empty one; gives how many bytes.
fn copy(former: &ExistingFile, to: &OwnedFd, size: u64) -> io::Result<u64> {
    let from = former.handle();
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(u64::try_from(calls::fstat(to)?.st_size)
            .unwrap_or(0)
            .min(size));
    }
    let end = former.metadata.size.min(size);
    // Holes stay holes: a large one would fill the disk, and take hours.
    calls::ftruncate(to, end)?;
    let mut done = former.data_from(0);
    while done < end {
        let run_end = match calls::seek(from, SeekFrom::Hole(done)) {
            Ok(hole) => hole.clamp(done, end),
            Err(_) => end,
        };
        let copied = copy_run(former, to, done, run_end)?;
        if copied < run_end || run_end == done {
            return Ok(copied);
        }
        done = former.data_from(run_end);
    }
    Ok(end)
}

/// Copies bytes from `start` to `end`; gives how far it came before the file ended.
fn copy_run(former: &ExistingFile, to: &OwnedFd, start: u64, end: u64) -> io::Result<u64> {
    let from = former.handle();
    let mut done = start;
    while done < end {
        let (mut at, mut into) = (done, done);
        let count = usize::try_from(end - done)
            .unwrap_or(usize::MAX)
            .min(1 << 30);
        match calls::copy_file_range(from, Some(&mut at), to, Some(&mut into), count) {
            Ok(0) => return Ok(done),
            Ok(count) => done += count as u64,
            Err(Errno::INTR) => {}
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::IO)) => return Err(error.into()),
            Err(_) => return copy_by_hand(former, to, done, end),
        }
    }
    Ok(done)
}

/// Copies where the system does not do it.
fn copy_by_hand(former: &ExistingFile, to: &OwnedFd, start: u64, end: u64) -> io::Result<u64> {
    let mut buffer = vec![0; 1 << 18];
    let mut done = start;
    while done < end {
        let wanted = usize::try_from(end - done)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let count = former.read_at(buffer.get_mut(..wanted).unwrap_or_default(), done)?;
        let mut rest = buffer.get(..count).unwrap_or_default();
        if rest.is_empty() {
            break;
        }
        while !rest.is_empty() {
            let written = calls::pwrite(to, rest, done)?;
            rest = rest.get(written..).unwrap_or_default();
            done += written as u64;
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_join_back_and_zero_runs_are_whole_blocks(
            offset in 0_u64..20_000,
            pieces in prop::collection::vec((any::<bool>(), 1_usize..9_000), 0..6),
        ) {
            let bytes: Vec<u8> =
                pieces.iter().flat_map(|(one, length)| vec![u8::from(*one); *length]).collect();
            let mut at = offset;
            let mut joined = Vec::new();
            let mut last = None;
            for (start, run, is_zero) in runs(&bytes, offset) {
                prop_assert_eq!(start, at);
                prop_assert_ne!(last, Some(is_zero));
                if is_zero {
                    prop_assert!(run.iter().all(|byte| *byte == 0));
                    prop_assert_eq!((start % HOLE_BYTES, run.len() as u64 % HOLE_BYTES), (0, 0));
                } else {
                    let aligned = start.next_multiple_of(HOLE_BYTES) - start;
                    let missed = run.get(usize::try_from(aligned).unwrap_or(0)..).unwrap_or(&[]);
                    let mut blocks = missed.chunks_exact(HOLE_BYTES as usize);
                    prop_assert!(blocks.all(|block| block.contains(&1)));
                }
                at += run.len() as u64;
                joined.extend_from_slice(run);
                last = Some(is_zero);
            }
            prop_assert_eq!(joined, bytes);
        }
    }
}
