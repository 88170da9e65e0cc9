//! A file as it is now, beside what a snapshot says of it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use larder_format::entry::{Entry, EntryType};
use rustix::fs::OFlags;

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 256 << 10;

/// A regular file that has the size and time of its entry in a snapshot.
pub struct Living {
    file: File,
    size: u64,
    time: (i64, i64),
    buffer: Vec<u8>,
}

impl Living {
    /// Opens the file at a path if it looks as its entry says: none if it is gone, was changed, or
    /// cannot be read.
    #[must_use]
    pub fn open(path: &[u8], entry: &Entry) -> Option<Self> {
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(Path::new(std::ffi::OsStr::from_bytes(path)))
            .ok()?;
        let found = file.metadata().ok()?;
        let time = (entry.mtime.seconds, i64::from(entry.mtime.nanoseconds));
        let is_same = entry.kind == EntryType::File
            && !entry.flags.changed_while_read
            && found.is_file()
            && found.size() == entry.size
            && (found.mtime(), found.mtime_nsec()) == time;
        is_same.then(|| Self {
            file,
            size: entry.size,
            time,
            buffer: vec![0; PIECE_BYTES],
        })
    }

    /// Tells whether the file has these bytes at an offset.
    ///
    /// # Errors
    /// What reading answers.
    pub fn has(&mut self, offset: u64, bytes: &[u8]) -> io::Result<bool> {
        let mut at = offset;
        for piece in bytes.chunks(PIECE_BYTES) {
            let found = self.buffer.get_mut(..piece.len()).unwrap_or_default();
            match self.file.read_exact_at(found, at) {
                Ok(()) if found == piece => {}
                Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
                _ => return Ok(false),
            }
            at = at.saturating_add(piece.len() as u64);
        }
        Ok(true)
    }

    /// Tells whether the file still has the size and time that it was opened with.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        self.file.metadata().is_ok_and(|found| {
            found.size() == self.size && (found.mtime(), found.mtime_nsec()) == self.time
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use larder_format::entry::Timestamp;

    use super::*;

    #[test]
    fn only_a_file_that_looks_as_its_entry_says_is_compared() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let content = vec![7; PIECE_BYTES + 10];
        std::fs::write(&path, &content).unwrap();
        let found = std::fs::metadata(&path).unwrap();
        let entry = Entry {
            kind: EntryType::File,
            size: content.len() as u64,
            mtime: Timestamp {
                seconds: found.mtime(),
                nanoseconds: u32::try_from(found.mtime_nsec()).unwrap(),
            },
            ..Entry::default()
        };
        let bytes = path.as_os_str().as_bytes();
        let mut living = Living::open(bytes, &entry).unwrap();
        assert!(living.has(0, &content).unwrap());
        assert!(living.has(10, &content[10..]).unwrap());
        assert!(!living.has(11, &content[10..]).unwrap(), "past its end");
        let mut other = content.clone();
        *other.last_mut().unwrap() ^= 1;
        assert!(!living.has(0, &other).unwrap());
        assert!(living.is_unchanged());
        let later = |change: fn(&mut Entry)| {
            let mut entry = entry.clone();
            change(&mut entry);
            Living::open(bytes, &entry).is_none()
        };
        assert!(later(|entry| entry.size += 1));
        assert!(later(|entry| entry.mtime.seconds += 1));
        assert!(later(|entry| entry.kind = EntryType::Fifo));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(Living::open(link.as_os_str().as_bytes(), &entry).is_none());
        std::fs::write(&path, "shorter").unwrap();
        assert!(!living.is_unchanged());
    }
}
