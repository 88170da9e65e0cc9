//! How a repository is made and opened.

use std::path::PathBuf;

use larder_format::secret_text;
use larder_format::slot;
use zeroize::Zeroizing;

use crate::chunker::ChunkSizes;
use crate::error::{EngineError, Result};

/// What opens a repository.
pub enum Secret {
    /// The bytes of a passphrase.
    Passphrase(Zeroizing<Vec<u8>>),
    /// A raw key of 32 bytes, from a key file or a recovery key.
    RawKey(Zeroizing<[u8; 32]>),
}

impl Secret {
    /// Reads a raw key file: 64 hex digits and an optional newline.
    ///
    /// # Errors
    /// `Request`, with what is wrong with the file's text.
    pub fn from_key_file(text: &str) -> Result<Self> {
        secret_text::parse_raw_key(text.as_bytes())
            .map(Self::RawKey)
            .map_err(|error| EngineError::Request(format!("the key file cannot be used: {error}")))
    }

    /// Reads a recovery key as it was printed; case, spaces and hyphens do not matter.
    ///
    /// # Errors
    /// `Request`, with what is wrong with the text.
    pub fn from_recovery_key(text: &str) -> Result<Self> {
        secret_text::parse_recovery_key(text)
            .map(Self::RawKey)
            .map_err(|error| {
                EngineError::Request(format!("the recovery key cannot be used: {error}"))
            })
    }

    pub(crate) fn borrowed(&self) -> slot::Secret<'_> {
        match self {
            Self::Passphrase(bytes) => slot::Secret::Passphrase(bytes),
            Self::RawKey(key) => slot::Secret::RawKey(key),
        }
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
            memory_kib: slot::DEFAULT_MEMORY_KIB,
            passes: slot::DEFAULT_PASSES,
            lanes: 1,
        }
    }
}

/// Where the local index lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cache {
    /// On disk, in the cache folder.
    #[default]
    Disk,
    /// In memory, for simulations and small repositories.
    Memory,
}

/// How a repository is opened.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// Where local caches live; `$XDG_CACHE_HOME/larder` if none.
    pub cache_dir: Option<PathBuf>,
    /// Where this machine remembers the newest things that it saw in repositories; nowhere if none.
    pub state_dir: Option<PathBuf>,
    /// Threads for CPU work; as many as there are cores if 0.
    pub threads: usize,
    /// Where the local index lives.
    pub cache: Cache,
    /// Backs up with one thread that asks the storage, so that what it is asked for comes in one
    /// order: for simulations.
    pub in_order: bool,
}

/// The rule by which a repository's files are cut; chosen when it is made, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChunkerKind {
    /// `fastcdc-v2020`: the faster one; who knows enough chunk lengths can compute its secret.
    FastCdc,
    /// `toeplitz-aes`: its secret stays one, whatever files an attacker plants or knows.
    #[default]
    ToeplitzAes,
}

impl ChunkerKind {
    pub(super) const ALL: [Self; 2] = [Self::FastCdc, Self::ToeplitzAes];

    /// Gives the name in the config.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FastCdc => "fastcdc-v2020",
            Self::ToeplitzAes => "toeplitz-aes",
        }
    }
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
    /// How files are cut.
    pub chunker: ChunkerKind,
    /// Sizes of chunks.
    pub chunks: ChunkSizes,
    /// Whether the storage was found to let two writers create one object although it says
    /// otherwise: then prune asks before it relies on it.
    pub racy_creates: bool,
    /// The share of packs, in percent, that writers give parity for; none if they give none.
    pub parity: Option<u8>,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self {
            label: String::new(),
            kdf: KdfCost::default(),
            reserve_bytes: 1 << 20,
            chunker: ChunkerKind::default(),
            chunks: ChunkSizes {
                minimum: 256 << 10,
                mean: 1 << 20,
                maximum: 4 << 20,
            },
            racy_creates: false,
            parity: None,
        }
    }
}

/// What was made by [`Repository::init`](super::Repository::init).
#[derive(Debug, Clone, serde::Serialize)]
pub struct InitReport {
    /// The repository's id, in hex.
    pub repository: String,
    /// The location, without secrets.
    pub location: String,
}
