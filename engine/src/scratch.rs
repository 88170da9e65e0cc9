//! What does not fit into memory and outlives nothing: temporary folders, an
//! ordered map that spills into one, and records that are sorted there.

pub(crate) mod file;
pub mod runs;

use std::collections::{BTreeMap, btree_map};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use larder_format::ids::encode_hex;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBIterator, Direction, IteratorMode, Options, WriteOptions,
};

/// A failure of the local disk that holds scratch data.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot {action} scratch data in {folder}: {cause}; make room there or choose another cache folder"
)]
pub struct ScratchError {
    /// What was tried, as a verb.
    pub action: &'static str,
    /// The folder.
    pub folder: String,
    /// Why it failed.
    pub cause: String,
}

/// The outcome of an operation on scratch data.
pub type Result<T> = std::result::Result<T, ScratchError>;

/// An ordered map from bytes to bytes, in memory up to a limit and in a temporary folder past it.
///
/// The folder goes when the map does; if the process is killed, the next map in the same
/// parent removes it.
pub struct ScratchMap {
    parent: PathBuf,
    memory_bytes_max: usize,
    place: Place,
}

enum Place {
    Memory {
        map: BTreeMap<Vec<u8>, Vec<u8>>,
        bytes: usize,
    },
    Disk(Box<Spilled>),
}

struct Spilled {
    // Dropped in this order: the database is closed before its folder goes.
    db: DB,
    _folder: TemporaryFolder,
}

/// Memory that an item in the map takes besides its bytes, roughly.
const ITEM_OVERHEAD_BYTES: usize = 96;
/// Memory of a spilled map: two write buffers of this size and a cache.
const WRITE_BUFFER_BYTES: usize = 2 << 20;
const BLOCK_CACHE_BYTES: usize = 2 << 20;

impl ScratchMap {
    /// Makes an empty map that spills into a folder of its own below `parent` when its items
    /// take more than `memory_bytes_max`; nothing is written before that.
    #[must_use]
    pub fn new(parent: &Path, memory_bytes_max: usize) -> Self {
        Self {
            parent: parent.to_owned(),
            memory_bytes_max,
            place: Place::empty(),
        }
    }

    /// Sets the value of a key.
    pub fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match &mut self.place {
            Place::Memory { map, bytes } => {
                let before = map.insert(key.to_vec(), value.to_vec());
                *bytes += value.len();
                match before {
                    Some(before) => *bytes -= before.len(),
                    None => *bytes += key.len() + ITEM_OVERHEAD_BYTES,
                }
                if *bytes > self.memory_bytes_max {
                    self.spill()?;
                }
                Ok(())
            }
            Place::Disk(spilled) => spilled
                .db
                .put_opt(key, value, &write_options())
                .map_err(|error| self.error("write", error)),
        }
    }

    /// Gives the value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match &self.place {
            Place::Memory { map, .. } => Ok(map.get(key).cloned()),
            Place::Disk(spilled) => {
                let value = spilled.db.get(key);
                value.map_err(|error| self.error("read", error))
            }
        }
    }

    /// Takes a key out, if it is there.
    pub fn remove(&mut self, key: &[u8]) -> Result<()> {
        match &mut self.place {
            Place::Memory { map, bytes } => {
                if let Some(value) = map.remove(key) {
                    *bytes -= key.len() + value.len() + ITEM_OVERHEAD_BYTES;
                }
                Ok(())
            }
            Place::Disk(spilled) => spilled
                .db
                .delete_opt(key, &write_options())
                .map_err(|error| self.error("write", error)),
        }
    }

    /// Counts the items; a spilled map is read through for it.
    pub fn len(&self) -> Result<u64> {
        match &self.place {
            Place::Memory { map, .. } => Ok(map.len() as u64),
            Place::Disk(_) => self
                .iter_from(&[])
                .try_fold(0, |count, item| item.map(|_| count + 1)),
        }
    }

    /// Tells whether there is no item.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.iter_from(&[]).next().transpose()?.is_none())
    }

    /// Tells whether the map has left memory.
    #[must_use]
    pub fn has_spilled(&self) -> bool {
        matches!(self.place, Place::Disk(_))
    }

    /// Walks the items in order of their keys, from the first that is not below `start`.
    ///
    /// The walk takes constant memory; its first error is its last item.
    #[must_use]
    pub fn iter_from(&self, start: &[u8]) -> Items<'_> {
        Items {
            map: self,
            walk: match &self.place {
                Place::Memory { map, .. } => {
                    Walk::Memory(map.range::<[u8], _>((Bound::Included(start), Bound::Unbounded)))
                }
                Place::Disk(spilled) => Walk::Disk(
                    spilled
                        .db
                        .iterator(IteratorMode::From(start, Direction::Forward)),
                ),
            },
        }
    }

    /// Takes everything out and goes back to memory.
    pub fn clear(&mut self) {
        self.place = Place::empty();
    }

    fn spill(&mut self) -> Result<()> {
        let folder = TemporaryFolder::new(&self.parent, "scratch")
            .map_err(|error| self.error("make", error))?;
        let path = folder.path().join("map");
        let db = DB::open(&options(), path).map_err(|error| self.error("make", error))?;
        // The items stay in memory until all are written, so a failure loses none.
        if let Place::Memory { map, .. } = &self.place {
            for (key, value) in map {
                db.put_opt(key, value, &write_options())
                    .map_err(|error| self.error("write", error))?;
            }
        }
        self.place = Place::Disk(Box::new(Spilled {
            db,
            _folder: folder,
        }));
        Ok(())
    }

    fn error(&self, action: &'static str, cause: impl ToString) -> ScratchError {
        ScratchError {
            action,
            folder: self.parent.display().to_string(),
            cause: cause.to_string(),
        }
    }
}

impl Place {
    fn empty() -> Self {
        Self::Memory {
            map: BTreeMap::new(),
            bytes: 0,
        }
    }
}

/// The items of a [`ScratchMap`] in order of their keys.
pub struct Items<'a> {
    map: &'a ScratchMap,
    walk: Walk<'a>,
}

enum Walk<'a> {
    Memory(btree_map::Range<'a, Vec<u8>, Vec<u8>>),
    Disk(DBIterator<'a>),
}

impl Iterator for Items<'_> {
    type Item = Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.walk {
            Walk::Memory(range) => range
                .next()
                .map(|(key, value)| Ok((key.clone(), value.clone()))),
            Walk::Disk(items) => items.next().map(|item| {
                item.map(|(key, value)| (key.into_vec(), value.into_vec()))
                    .map_err(|error| self.map.error("read", error))
            }),
        }
    }
}

fn options() -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(BLOCK_CACHE_BYTES));
    table.set_cache_index_and_filter_blocks(true);
    table.set_block_size(16 << 10);
    table.set_bloom_filter(10.0, false);
    table.set_partition_filters(true);
    table.set_index_type(rocksdb::BlockBasedIndexType::TwoLevelIndexSearch);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(rocksdb::DBCompressionType::Lz4);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_max_write_buffer_number(2);
    options.set_max_open_files(256);
    options.set_manifest_preallocation_size(64 << 10);
    options.set_keep_log_file_num(1);
    options.set_log_level(rocksdb::LogLevel::Fatal);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

fn write_options() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}

/// A folder with mode 0700 that is removed when the value is dropped.
///
/// A locked file beside it says that its owner lives. The system drops the lock with the
/// process, however that ends, so whoever can take it may remove the folder.
pub(crate) struct TemporaryFolder {
    path: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

impl TemporaryFolder {
    /// Makes a folder below `parent`, after removing those whose process died.
    pub(crate) fn new(parent: &Path, prefix: &str) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)?;
        sweep(parent, prefix);
        loop {
            let mut random = [0; 8];
            getrandom::fill(&mut random).map_err(io::Error::other)?;
            let path = parent.join(format!("{prefix}-{}", encode_hex(&random)));
            let lock_path = path.with_extension("lock");
            // A sweep by another process may come between the two steps: then try again.
            if let Some(lock) = lock_file(&lock_path)? {
                DirBuilder::new().mode(0o700).create(&path)?;
                return Ok(Self {
                    path,
                    lock_path,
                    _lock: lock,
                });
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // What cannot be removed now is swept later: there is nobody to tell.
        drop(fs::remove_dir_all(&self.path));
        drop(fs::remove_file(&self.lock_path));
    }
}

/// Locks the file at `path`, made if it is missing; `None` if another process has it.
pub(crate) fn lock_file(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        // Somebody may have removed the file between the two steps: a lock on it is void.
        let mine = file.metadata()?;
        match fs::metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (mine.dev(), mine.ino()) => {
                return Ok(Some(file));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

/// Removes the temporary folders below `parent` whose process died.
///
/// What cannot be removed stays for the next sweep.
pub(crate) fn sweep(parent: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let lock_path = entry.path();
        let name = entry.file_name();
        let is_lock = name
            .to_str()
            .and_then(|name| name.strip_prefix(prefix))
            .is_some_and(|name| name.starts_with('-') && name.ends_with(".lock"));
        if is_lock && let Ok(Some(_lock)) = lock_file(&lock_path) {
            let folder = lock_path.with_extension("");
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {}
                _ => drop(fs::remove_file(&lock_path)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(Vec<u8>, Vec<u8>),
        Remove(Vec<u8>),
        Clear,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let key = || proptest::collection::vec(0..4_u8, 0..4);
        let value = proptest::collection::vec(any::<u8>(), 0..40);
        let step = prop_oneof![
            20 => (key(), value).prop_map(|(key, value)| Step::Insert(key, value)),
            5 => key().prop_map(Step::Remove),
            1 => Just(Step::Clear),
        ];
        proptest::collection::vec(step, 0..60)
    }

    fn items(map: &ScratchMap, start: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        map.iter_from(start).collect::<Result<_>>().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn it_behaves_as_a_plain_map_on_either_side_of_the_limit(
            steps in steps(),
            start in proptest::collection::vec(0..4_u8, 0..4),
            limit in 0..3000_usize,
        ) {
            let parent = tempfile::tempdir().unwrap();
            let mut map = ScratchMap::new(parent.path(), limit);
            let mut truth = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Insert(key, value) => {
                        map.insert(&key, &value).unwrap();
                        truth.insert(key, value);
                    }
                    Step::Remove(key) => {
                        map.remove(&key).unwrap();
                        prop_assert_eq!(map.get(&key).unwrap(), None);
                        truth.remove(&key);
                    }
                    Step::Clear => {
                        map.clear();
                        truth.clear();
                    }
                }
            }
            prop_assert_eq!(map.len().unwrap(), truth.len() as u64);
            prop_assert_eq!(map.is_empty().unwrap(), truth.is_empty());
            for (key, value) in &truth {
                prop_assert_eq!(map.get(key).unwrap(), Some(value.clone()));
            }
            let expected: Vec<_> = truth.range(start.clone()..)
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            prop_assert_eq!(items(&map, &start), expected);
        }
    }

    #[test]
    fn it_spills_past_the_limit_and_leaves_nothing_behind() {
        let parent = tempfile::tempdir().unwrap();
        let mut map = ScratchMap::new(parent.path(), 100_000);
        let entries = || fs::read_dir(parent.path()).unwrap().count();
        for number in 0..50_000_u32 {
            map.insert(&number.to_be_bytes(), b"value").unwrap();
            if number == 100 {
                assert!(!map.has_spilled() && entries() == 0);
            }
        }
        assert!(map.has_spilled() && entries() == 2);
        assert_eq!(map.len().unwrap(), 50_000);
        assert_eq!(items(&map, &49_999_u32.to_be_bytes()).len(), 1);
        map.clear();
        assert!(!map.has_spilled() && entries() == 0);
    }

    #[test]
    fn folders_of_dead_processes_are_swept_and_those_of_living_ones_stay() {
        let parent = tempfile::tempdir().unwrap();
        let living = TemporaryFolder::new(parent.path(), "scratch").unwrap();
        // A dead process leaves its folder and its file, unlocked.
        let dead = parent.path().join("scratch-00ff");
        fs::create_dir_all(dead.join("map")).unwrap();
        fs::write(dead.with_extension("lock"), "").unwrap();
        fs::create_dir(parent.path().join("foreign")).unwrap();
        let second = TemporaryFolder::new(parent.path(), "scratch").unwrap();
        assert!(!dead.exists() && !dead.with_extension("lock").exists());
        assert!(living.path().exists() && second.path().exists());
        assert!(parent.path().join("foreign").exists());
        let path = living.path().to_owned();
        drop(living);
        assert!(!path.exists() && !path.with_extension("lock").exists());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_and_loses_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        let mut map = ScratchMap::new(&file, 0);
        assert!(map.insert(b"a", b"1").is_err());
        assert_eq!(map.get(b"a").unwrap(), Some(b"1".to_vec()));
    }
}
