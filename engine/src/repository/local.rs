//! What a machine keeps of a repository: caches, which may go at any moment, and what it remembers.

use std::path::{Path, PathBuf};

use larder_format::config::Config;

use super::{Cache, OpenOptions};
use crate::error::Result;
use crate::index::Index;
use crate::index::memory::MemoryIndex;
use crate::index::rocks::{IndexOptions, OpenOutcome, RocksIndex};

/// Memory of the index: block cache, filters and memtables.
const INDEX_MEMORY_BYTES: usize = 24 << 20;
/// Sealed nodes that are kept at hand on disk.
const NODE_CACHE_BYTES: u64 = 1 << 30;

pub(super) fn cache_folder(options: &OpenOptions, config: &Config) -> PathBuf {
    let base = options.cache_dir.clone().unwrap_or_else(default_cache_dir);
    own_folder(&base, config)
}

pub(super) fn own_folder(base: &Path, config: &Config) -> PathBuf {
    base.join(format!("{}-{}", config.repository, config.replica))
}

/// Gives the folder that holds all local caches unless told otherwise.
#[must_use]
pub fn default_cache_dir() -> PathBuf {
    own_base("XDG_CACHE_HOME", ".cache")
        .unwrap_or_else(std::env::temp_dir)
        .join("larder")
}

/// Gives the folder in which this machine remembers repositories unless told otherwise; none for a
/// user without a home.
#[must_use]
pub fn default_state_dir() -> Option<PathBuf> {
    own_base("XDG_STATE_HOME", ".local/state").map(|base| base.join("larder"))
}

fn own_base(variable: &str, below_home: &str) -> Option<PathBuf> {
    let from = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    from(variable).or_else(|| from("HOME").map(|home| home.join(below_home)))
}

/// Opens the local index, and gives the folder where it and what spills live.
///
/// A cache folder that cannot be used costs time and nothing else: a temporary one takes its place.
pub(super) fn open_index(
    folder: PathBuf,
    options: &OpenOptions,
    config: &Config,
) -> Result<(PathBuf, Box<dyn Index>)> {
    if options.cache == Cache::Memory {
        return Ok((folder, Box::new(MemoryIndex::new())));
    }
    let settings = IndexOptions {
        repository: config.repository,
        replica: config.replica,
        cache_bytes: INDEX_MEMORY_BYTES,
        block_cache_cap_bytes: NODE_CACHE_BYTES,
    };
    match RocksIndex::open(&folder.join("index"), &settings) {
        Ok(OpenOutcome::Opened { index, .. }) => Ok((folder, index)),
        Ok(OpenOutcome::InUse) => {
            let index = RocksIndex::open_temporary(&folder, &settings)?;
            Ok((folder, Box::new(index)))
        }
        Err(error) => {
            tracing::warn!("{error}; a temporary cache takes its place, which costs time");
            let folder = std::env::temp_dir();
            let index = RocksIndex::open_temporary(&folder, &settings)?;
            Ok((folder, Box::new(index)))
        }
    }
}
