//! The service's own files: one folder of mode 0700, files of mode 0600, each written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::ServeError;

/// The folder, held by this process alone.
#[derive(Debug)]
pub struct Data {
    folder: PathBuf,
    /// Device and inode of the folder.
    identity: Option<(u64, u64)>,
    /// Unlocked when the process ends, however it does.
    _lock: File,
}

impl Data {
    /// Makes the folder where it is missing, and takes it for this process.
    ///
    /// # Errors
    /// When it cannot be made, or another service has it.
    pub fn open(folder: &Path) -> Result<Self, ServeError> {
        let failed = |tried: &'static str| {
            let path = folder.to_owned();
            move |source| ServeError::Data {
                tried,
                path,
                source,
            }
        };
        match fs::metadata(folder) {
            // Somebody else's folder may have been named, and is left as it is.
            Ok(there) if there.permissions().mode() & 0o077 != 0 => {
                return Err(ServeError::Open(folder.to_owned()));
            }
            Ok(_) => {}
            Err(_) => make_folder(folder).map_err(failed("make the folder"))?,
        }
        let mut options = private();
        options.write(true).create(true).truncate(false);
        let lock = options.open(folder.join("lock"));
        let lock = lock.map_err(failed("lock the folder"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(ServeError::Busy(folder.to_owned())),
            Err(error) => return Err(failed("lock the folder")(error.into())),
        }
        for inner in ["runs", "passwords"] {
            make_folder(&folder.join(inner)).map_err(failed("make a folder in"))?;
        }
        Ok(Self {
            folder: folder.to_owned(),
            identity: identity(folder),
            _lock: lock,
        })
    }

    /// Tells whether another folder has its name by now.
    pub fn is_replaced(&self) -> bool {
        let now = identity(&self.folder);
        now.is_some() && now != self.identity
    }

    /// Gives a path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

fn identity(folder: &Path) -> Option<(u64, u64)> {
    let found = fs::metadata(folder).ok()?;
    Some((found.dev(), found.ino()))
}

/// Writes a file that nobody else reads: its name shows the old text or the new, and nothing between.
///
/// # Errors
/// What the operating system answers.
pub fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    // Such a file is of mode 0600 from the beginning.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

/// Reads a file; none if there is none.
///
/// # Errors
/// What the operating system answers.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file, if it is there.
///
/// # Errors
/// What the operating system answers.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Begins a file that nobody else reads.
///
/// # Errors
/// What the operating system answers.
pub fn create(path: &Path) -> io::Result<File> {
    private().write(true).create(true).truncate(true).open(path)
}

/// Opens a file that nobody else reads, to write at its end.
///
/// # Errors
/// What the operating system answers.
pub fn append(path: &Path) -> io::Result<File> {
    private().append(true).create(true).open(path)
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Makes a folder that nobody else looks into, with those above it, where it is missing.
///
/// # Errors
/// What the operating system answers.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn the_folder_is_closed_to_others_and_has_one_owner() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("state/serve");
        // What is there and open to others is neither used nor changed.
        let shared = parent.path().join("shared");
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(matches!(Data::open(&shared), Err(ServeError::Open(_))));
        assert_eq!(fs::read_dir(&shared).unwrap().count(), 0);
        let data = Data::open(&folder).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        assert!(matches!(Data::open(&folder), Err(ServeError::Busy(_))));
        write(&data.path("x"), b"1").unwrap();
        write(&data.path("x"), b"2").unwrap();
        assert_eq!(mode(&data.path("x")), 0o600);
        assert_eq!(read(&data.path("x")).unwrap().unwrap(), b"2");
        assert_eq!(read(&data.path("y")).unwrap(), None);
        remove(&data.path("x")).unwrap();
        remove(&data.path("x")).unwrap();
        drop(data);
        assert!(Data::open(&folder).is_ok());
    }
}
