//! The folder of the index: whose it is, and who may open it.
//!
//! `lock` is held by the process that has the index open. `identity` says for
//! which repository and by which schema it was made, and which folder beside it
//! is the database. That folder has a fresh name each time, so a process whose
//! index was deleted under it can never write into that of its successor.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use larder_format::ids::{ReplicaId, RepositoryId, encode_hex};

use crate::scratch::{TemporaryFolder, lock_file};

/// Changes whenever an index of an older program cannot be used any more.
const SCHEMA: u32 = 1;

const IDENTITY: &str = "identity";
const DATABASE_PREFIX: &str = "db-";

/// A folder that this process holds.
pub(super) enum Folder {
    /// It stays when the process ends.
    Lasting { path: PathBuf, _lock: File },
    /// It goes when the index is dropped.
    Temporary(TemporaryFolder),
}

impl Folder {
    /// Takes hold of the folder at `path`, made if it is missing; `None` if another process has it.
    pub(super) fn lock(path: &Path) -> io::Result<Option<Self>> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(lock_file(&path.join("lock"))?.map(|lock| Self::Lasting {
            path: path.to_owned(),
            _lock: lock,
        }))
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Lasting { path, .. } => path,
            Self::Temporary(folder) => folder.path(),
        }
    }

    /// Gives the database's folder, if this folder was made for the same repository and schema.
    pub(super) fn database(
        &self,
        repository: &RepositoryId,
        replica: &ReplicaId,
    ) -> io::Result<Option<PathBuf>> {
        let text = match fs::read(self.path().join(IDENTITY)) {
            Ok(bytes) => String::from_utf8(bytes).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let name = text
            .strip_prefix(&identity(repository, replica))
            .and_then(|rest| rest.strip_suffix('\n'))
            .filter(|name| {
                let hex = name.strip_prefix(DATABASE_PREFIX);
                hex.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
            });
        Ok(name.map(|name| self.path().join(name)))
    }

    /// Throws away what is there and names a new folder for the database.
    pub(super) fn reset(
        &self,
        repository: &RepositoryId,
        replica: &ReplicaId,
    ) -> io::Result<PathBuf> {
        self.condemn()?;
        for entry in fs::read_dir(self.path())? {
            let entry = entry?;
            if entry
                .file_name()
                .to_string_lossy()
                .starts_with(DATABASE_PREFIX)
            {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let name = format!("{DATABASE_PREFIX}{}", encode_hex(&random));
        let staged = self.path().join("identity.new");
        let text = format!("{}{name}\n", identity(repository, replica));
        fs::write(&staged, text)?;
        fs::rename(&staged, self.path().join(IDENTITY))?;
        Ok(self.path().join(name))
    }

    /// Sees to it that the index is thrown away when it is opened next.
    pub(super) fn condemn(&self) -> io::Result<()> {
        match fs::remove_file(self.path().join(IDENTITY)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Tells whether there is anything that a reset would throw away.
    pub(super) fn has_content(&self) -> io::Result<bool> {
        for entry in fs::read_dir(self.path())? {
            if entry?.file_name() != "lock" {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn identity(repository: &RepositoryId, replica: &ReplicaId) -> String {
    format!("larder index {SCHEMA}\nrepository {repository}\nreplica {replica}\ndatabase ")
}
