//! An open repository.

use std::path::PathBuf;

use crate::error::{EngineError, Result};

/// What opens a repository.
pub enum Secret {
    /// The bytes of a passphrase.
    Passphrase(zeroize::Zeroizing<Vec<u8>>),
    /// A raw key of 32 bytes, from a key file or a recovery key.
    RawKey(zeroize::Zeroizing<[u8; 32]>),
}

impl Secret {
    /// Reads a raw key file: 64 hex digits and an optional newline.
    ///
    /// # Errors
    /// `Request`, with what is wrong with the file's text.
    pub fn from_key_file(text: &str) -> Result<Self> {
        let _ = text;
        Err(EngineError::Internal("not there yet".into()))
    }

    /// Reads a recovery key as it was printed; case, spaces and hyphens do not matter.
    ///
    /// # Errors
    /// `Request`, with what is wrong with the text.
    pub fn from_recovery_key(text: &str) -> Result<Self> {
        let _ = text;
        Err(EngineError::Internal("not there yet".into()))
    }
}

/// Cost of deriving a key from a passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over that memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for KdfCost {
    fn default() -> Self {
        Self {
            memory_kib: 64 << 10,
            passes: 3,
            lanes: 1,
        }
    }
}

/// How a repository is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Where local caches live; `$XDG_CACHE_HOME/larder` if none.
    pub cache_dir: Option<PathBuf>,
    /// Where the newest state seen is remembered; `$XDG_STATE_HOME/larder` if none.
    pub state_dir: Option<PathBuf>,
    /// Threads for CPU work; as many as there are cores if 0.
    pub threads: usize,
}

/// How a repository is made.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Label of the first key slot.
    pub label: String,
    /// Cost of its passphrase.
    pub kdf: KdfCost,
    /// Bytes of the reserve object, which prune frees first on a full storage.
    pub reserve_bytes: usize,
}

/// What was made by [`Repository::init`].
#[derive(Debug, Clone, serde::Serialize)]
pub struct InitReport {
    /// The repository's id, in hex.
    pub repository: String,
    /// The location, without secrets.
    pub location: String,
}

/// An open repository: its storage, keys, configuration and local index.
pub struct Repository {
    location: String,
}

impl Repository {
    /// Makes a repository at a location (a path or a `file://` URL).
    ///
    /// # Errors
    /// `RepositoryExists`, or what the storage answers.
    pub fn init(location: &str, secret: &Secret, options: &InitOptions) -> Result<InitReport> {
        let _ = (secret, options);
        Err(EngineError::NoRepository {
            location: location.into(),
        })
    }

    /// Opens the repository at a location.
    ///
    /// # Errors
    /// `NoRepository`, `WrongSecret`, `Unsupported`, or what the storage answers.
    pub fn open(location: &str, secret: &Secret, options: &OpenOptions) -> Result<Self> {
        let _ = (secret, options);
        Err(EngineError::NoRepository {
            location: location.into(),
        })
    }

    /// Tells whether a repository can be seen at a location, before anybody is asked for a password.
    ///
    /// # Errors
    /// `NoRepository`, `Unsupported`, or what the storage answers.
    pub fn probe(location: &str) -> Result<()> {
        Err(EngineError::NoRepository {
            location: location.into(),
        })
    }

    /// Gives the location, without secrets.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Gives the folder of the local cache.
    #[must_use]
    pub fn cache_dir(&self) -> &std::path::Path {
        std::path::Path::new("")
    }

    /// Gives the config as JSON, for people who debug; it holds no secret.
    #[must_use]
    pub fn config_json(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Gives the directory of one pack as JSON, for people who debug.
    ///
    /// # Errors
    /// `NotFound`, `Damaged`, or what the storage answers.
    pub fn pack_json(&self, id: &str) -> Result<serde_json::Value> {
        Err(EngineError::NotFound(id.into()))
    }
}
