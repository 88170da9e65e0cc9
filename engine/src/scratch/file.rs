//! Bytes at places, in a file that outlives nothing.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Result, ScratchError, TemporaryFolder};

/// A file in a temporary folder of its own; it takes the disk's room only where something was written.
pub(crate) struct ScratchFile {
    file: File,
    parent: PathBuf,
    _folder: TemporaryFolder,
}

impl ScratchFile {
    /// Makes an empty file in a folder of its own below `parent`.
    pub(crate) fn new(parent: &Path) -> Result<Self> {
        let failed = |cause| ScratchError {
            action: "make",
            folder: parent.display().to_string(),
            cause,
        };
        let folder =
            TemporaryFolder::new(parent, "scratch").map_err(|error| failed(error.to_string()))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(folder.path().join("bytes"))
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            file,
            parent: parent.to_owned(),
            _folder: folder,
        })
    }

    /// Writes bytes at a place.
    pub(crate) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_all_at(bytes, offset);
        written.map_err(|error| self.error("write", &error))
    }

    /// Fills `bytes` from a place; what was never written is zeros.
    pub(crate) fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let read = match self.file.read_at(rest, offset + done as u64) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read.map_err(|error| self.error("read", &error))?,
            };
            if read == 0 {
                rest.fill(0);
                break;
            }
            done += read;
        }
        Ok(())
    }

    fn error(&self, action: &'static str, cause: &std::io::Error) -> ScratchError {
        ScratchError {
            action,
            folder: self.parent.display().to_string(),
            cause: cause.to_string(),
        }
    }
}
