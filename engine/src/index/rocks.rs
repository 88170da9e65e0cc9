//! The index on disk, in RocksDB, with one cap on its memory.
//!
//! Packs have numbers. Which of them count is a bitmap in memory, made anew by
//! every process, so entries of packs that nobody vouches for may lie in the
//! files for as long as it takes until a compaction drops them. A number is
//! never given twice, so such entries can never pass for another pack's.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};

use larder_format::ids::{ChunkPrefix, ObjectId, ReplicaId, RepositoryId};
use roaring::RoaringBitmap;
use rocksdb::{ColumnFamily, DB, Direction, IteratorMode, ReadOptions, WriteBatch, WriteOptions};

use super::codec::{self, Entry, Ordinal};
use super::folder::Folder;
use super::options::{Alive, BLOCKS, CHUNKS, Settings};
use super::{Index, IndexError, PackInfo, PackRecord, Place, Result};
use crate::scratch::TemporaryFolder;

mod feed;

/// Look-ups that RocksDB is asked at once.
const BATCH_LOOKUPS: usize = 1024;
/// Packs whose names are kept in memory.
const NAMED_PACKS_MAX: usize = 1 << 16;

/// What an index is made for, and what it may take.
#[derive(Clone, Copy, Debug)]
pub struct IndexOptions {
    /// The repository whose segments feed it.
    pub repository: RepositoryId,
    /// The storage's copy of the repository.
    pub replica: ReplicaId,
    /// Memory in bytes, for cached files and for what is not written yet.
    pub cache_bytes: usize,
    /// Disk in bytes for sealed blocks that are kept.
    pub block_cache_cap_bytes: u64,
}

/// What became of opening an index.
pub enum OpenOutcome {
    /// It is open.
    Opened {
        /// The index.
        index: Box<RocksIndex>,
        /// Why what was there was thrown away, if it was: it is empty then.
        reset: Option<String>,
    },
    /// Another process has it: open a temporary one.
    InUse,
}

/// An index in a folder of the local disk.
pub struct RocksIndex {
    // Dropped in this order: the database is closed before its folder is let go.
    db: DB,
    settings: Settings,
    folder: Folder,
    database: PathBuf,
    counting: RwLock<Counting>,
    /// Packs whose entries a compaction must keep.
    alive: Alive,
    /// Held by whoever gives numbers or feeds.
    writing: Mutex<()>,
    names: RwLock<HashMap<Ordinal, PackInfo>>,
}

#[derive(Default)]
struct Counting {
    /// Packs whose places are given: those of counting segments, and the pending ones.
    given: RoaringBitmap,
    /// Those of them that may be deduplicated against.
    usable: RoaringBitmap,
    /// Packs of the segments that count.
    counted: RoaringBitmap,
    /// Packs that this session closed.
    pending: RoaringBitmap,
    /// Pending packs that are not usable any more.
    disowned: RoaringBitmap,
    /// Packs that are not usable, counting or not: their names, since one that is not fed yet has
    /// no number.
    unusable: BTreeSet<ObjectId>,
    /// The numbers of those that have one.
    unusable_fed: RoaringBitmap,
    /// Packs of all segments that were fed.
    fed: RoaringBitmap,
}

impl Counting {
    fn update(&mut self) {
        self.given = &self.counted | &self.pending;
        let own = &self.pending - &self.disowned;
        self.usable = &(&self.counted | &own) - &self.unusable_fed;
    }
}

impl RocksIndex {
    /// Opens the index in `folder`, made with mode 0700 if it is missing.
    ///
    /// One that belongs to another repository or schema, or is damaged, is thrown away and
    /// made anew, empty.
    pub fn open(folder: &Path, options: &IndexOptions) -> Result<OpenOutcome> {
        let fail = |error: &io::Error| disk_error(folder, "open", error);
        let Some(held) = Folder::lock(folder).map_err(|error| fail(&error))? else {
            return Ok(OpenOutcome::InUse);
        };
        let (repository, replica) = (&options.repository, &options.replica);
        let database = held
            .database(repository, replica)
            .map_err(|error| fail(&error))?;
        let has_content = held.has_content().map_err(|error| fail(&error))?;
        let (held, reason) = match database {
            Some(database) => match Self::start(held, database, options) {
                Ok(index) => {
                    return Ok(OpenOutcome::Opened {
                        index: Box::new(index),
                        reset: None,
                    });
                }
                // No room is no reason to throw anything away.
                Err((_, error @ IndexError::Disk { .. })) => return Err(error),
                Err((held, error)) => (held, Some(error.to_string())),
            },
            None => {
                let reason = "it belongs to another repository or program version, or was damaged";
                (held, has_content.then(|| reason.to_owned()))
            }
        };
        let database = held
            .reset(repository, replica)
            .map_err(|error| fail(&error))?;
        let index = Self::start(held, database, options).map_err(|(_, error)| error)?;
        Ok(OpenOutcome::Opened {
            index: Box::new(index),
            reset: reason,
        })
    }

    /// Opens an empty index in a folder of its own below `parent`, which goes when it is dropped.
    pub fn open_temporary(parent: &Path, options: &IndexOptions) -> Result<Self> {
        let folder = TemporaryFolder::new(parent, "index")
            .map_err(|error| disk_error(parent, "make", &error))?;
        let database = folder.path().join("db");
        Self::start(Folder::Temporary(folder), database, options).map_err(|(_, error)| error)
    }

    /// Opens the database; a failure gives the folder back.
    fn start(
        folder: Folder,
        database: PathBuf,
        options: &IndexOptions,
    ) -> std::result::Result<Self, (Folder, IndexError)> {
        let alive = Alive::default();
        let settings = Settings::new(options.cache_bytes, options.block_cache_cap_bytes, &alive);
        let opened = DB::open_cf_descriptors(&settings.database, &database, settings.families());
        let db = match opened {
            Ok(db) => db,
            Err(error) => {
                let error = sort_error(folder.path(), "open", &error, true);
                return Err((folder, error));
            }
        };
        let index = Self {
            db,
            settings,
            folder,
            database,
            counting: RwLock::default(),
            alive,
            writing: Mutex::default(),
            names: RwLock::default(),
        };
        match index.recover() {
            Ok(()) => Ok(index),
            Err(error) => {
                let Self { db, folder, .. } = index;
                drop(db);
                Err((folder, error))
            }
        }
    }

    /// Reads which packs the fed segments name, and forgets those that only a process that
    /// ended stood for.
    fn recover(&self) -> Result<()> {
        // What was left of feeding goes with its process.
        drop(std::fs::remove_dir_all(self.feed_folder()));
        let mut fed = RoaringBitmap::new();
        self.scan(b's', |_, value| {
            fed |= codec::decode_ordinals(value).ok_or("a segment's record")?;
            Ok(ControlFlow::Continue(()))
        })?;
        let mut unnamed = RoaringBitmap::new();
        self.scan(b'w', |key, _| {
            unnamed.insert(codec::decode_ordinal(key).ok_or("a pack's number")?);
            Ok(ControlFlow::Continue(()))
        })?;
        self.forget_packs(unmarking(&unnamed), &(&unnamed - &fed))?;
        *self.alive.write().unwrap_or_else(PoisonError::into_inner) = Some(fed.clone());
        self.counting_mut().fed = fed;
        Ok(())
    }

    fn feed_folder(&self) -> PathBuf {
        self.database.with_extension("feed")
    }

    /// Visits the records of one letter, each with its key after the letter.
    fn scan(
        &self,
        tag: u8,
        mut visit: impl FnMut(&[u8], &[u8]) -> std::result::Result<ControlFlow<()>, &'static str>,
    ) -> Result<()> {
        let mut options = ReadOptions::default();
        options.set_iterate_range([tag].as_slice()..[tag + 1].as_slice());
        for item in self.db.iterator_opt(IteratorMode::Start, options) {
            let (key, value) = item.map_err(|error| self.error("read", &error))?;
            let key = key.get(1..).unwrap_or_default();
            match visit(key, &value).map_err(|what| self.damaged(what))? {
                ControlFlow::Continue(()) => {}
                ControlFlow::Break(()) => break,
            }
        }
        Ok(())
    }

    /// Writes a batch that also takes out all that is known of `packs`.
    fn forget_packs(&self, mut batch: WriteBatch, packs: &RoaringBitmap) -> Result<()> {
        for ordinal in packs {
            if let Some(pack) = self.pack(ordinal)? {
                batch.delete(codec::pack_id_key(&pack.id));
            }
            batch.delete(codec::pack_key(ordinal));
        }
        if batch.is_empty() {
            return Ok(());
        }
        // Synced, because the entries go at the next compaction, and must not go alone.
        self.write(batch, true)?;
        let mut alive = self.alive.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(alive) = alive.as_mut() {
            *alive -= packs;
        }
        Ok(())
    }

    fn pack(&self, ordinal: Ordinal) -> Result<Option<PackInfo>> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(pack) = names.get(&ordinal) {
            return Ok(Some(*pack));
        }
        drop(names);
        let record = self.get(&codec::pack_key(ordinal))?;
        let Some(record) = record else {
            return Ok(None);
        };
        let pack = codec::decode_pack(&record).ok_or_else(|| self.damaged("a pack's record"))?;
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= NAMED_PACKS_MAX {
            names.clear();
        }
        names.insert(ordinal, pack);
        Ok(Some(pack))
    }

    /// Turns a chunk's value into its places in packs that count.
    fn places(&self, value: &[u8]) -> Result<Vec<Place>> {
        let mut given = Vec::new();
        {
            let counting = self.counting.read().unwrap_or_else(PoisonError::into_inner);
            for entry in codec::entries(value) {
                let entry = entry.ok_or_else(|| self.damaged("a chunk's places"))?;
                if counting.given.contains(entry.ordinal) {
                    given.push((!counting.usable.contains(entry.ordinal), entry));
                }
            }
        }
        let mut places = Vec::with_capacity(given.len());
        for (is_unusable, entry) in given {
            if let Some(pack) = self.pack(entry.ordinal)? {
                places.push((is_unusable, entry.place(&pack)));
            }
        }
        places.sort_unstable();
        Ok(places.into_iter().map(|(_, place)| place).collect())
    }

    /// Tells whether a chunk's value has a place in a usable pack.
    fn has_usable_place(&self, value: &[u8]) -> Result<bool> {
        let counting = self.counting.read().unwrap_or_else(PoisonError::into_inner);
        for entry in codec::entries(value) {
            let entry = entry.ok_or_else(|| self.damaged("a chunk's places"))?;
            if counting.usable.contains(entry.ordinal) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Finds the numbers of packs that are known.
    fn ordinals(&self, packs: &BTreeSet<ObjectId>) -> Result<RoaringBitmap> {
        let mut ordinals = RoaringBitmap::new();
        for pack in packs {
            if let Some(known) = self.get(&codec::pack_id_key(pack))? {
                let known = codec::decode_ordinal(&known);
                ordinals.insert(known.ok_or_else(|| self.damaged("a pack's number"))?);
            }
        }
        Ok(ordinals)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.db.get(key).map_err(|error| self.error("read", &error))
    }

    fn write(&self, batch: WriteBatch, is_synced: bool) -> Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(is_synced);
        let outcome = self.db.write_opt(batch, &options);
        outcome.map_err(|error| self.error("write", &error))
    }

    fn family(&self, name: &'static str) -> Result<&ColumnFamily> {
        let family = self.db.cf_handle(name);
        family.ok_or_else(|| self.damaged("a missing column family"))
    }

    fn counting_mut(&self) -> RwLockWriteGuard<'_, Counting> {
        self.counting
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, action: &'static str, error: &rocksdb::Error) -> IndexError {
        let error = sort_error(self.folder.path(), action, error, false);
        if matches!(error, IndexError::Damaged { .. }) {
            self.condemn();
        }
        error
    }

    fn damaged(&self, what: &str) -> IndexError {
        self.condemn();
        IndexError::Damaged {
            folder: self.folder.path().display().to_string(),
            cause: format!("{what} cannot be read"),
        }
    }

    fn condemn(&self) {
        if let Err(error) = self.folder.condemn() {
            tracing::warn!(%error, "cannot mark the damaged local index");
        }
    }
}

impl Index for RocksIndex {
    fn segments(&self) -> Result<BTreeSet<ObjectId>> {
        let mut segments = BTreeSet::new();
        self.scan(b's', |key, _| {
            segments.insert(ObjectId::from_slice(key).ok_or("a segment's name")?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(segments)
    }

    fn has_segment(&self, segment: &ObjectId) -> Result<bool> {
        Ok(self.get(&codec::segment_key(segment))?.is_some())
    }

    fn segment_packs(&self, segment: &ObjectId) -> Result<Vec<ObjectId>> {
        let record = self.get(&codec::segment_key(segment))?;
        let record = record.ok_or(IndexError::NotFed(*segment))?;
        let ordinals = codec::decode_ordinals(&record);
        let ordinals = ordinals.ok_or_else(|| self.damaged("a segment's record"))?;
        let mut packs = Vec::new();
        for ordinal in &ordinals {
            packs.extend(self.pack(ordinal)?.map(|pack| pack.id));
        }
        Ok(packs)
    }

    fn add_segment(&self, segment: &ObjectId, packs: &[PackRecord]) -> Result<()> {
        self.feed_segment(segment, packs)
    }

    fn remove_segments(&self, segments: &[ObjectId]) -> Result<()> {
        self.unfeed_segments(segments)
    }

    fn set_counting(&self, segments: &[ObjectId]) -> Result<()> {
        let mut counted = RoaringBitmap::new();
        for segment in segments {
            let record = self.get(&codec::segment_key(segment))?;
            let record = record.ok_or(IndexError::NotFed(*segment))?;
            let ordinals = codec::decode_ordinals(&record);
            counted |= ordinals.ok_or_else(|| self.damaged("a segment's record"))?;
        }
        let mut counting = self.counting_mut();
        counting.counted = counted;
        counting.update();
        Ok(())
    }

    fn set_unusable(&self, packs: &BTreeSet<ObjectId>) -> Result<()> {
        let _writing = self.lock_writing();
        let ordinals = self.ordinals(packs)?;
        let mut counting = self.counting_mut();
        counting.unusable.clone_from(packs);
        counting.unusable_fed = ordinals;
        counting.update();
        Ok(())
    }

    fn add_pending_pack(&self, pack: &PackRecord) -> Result<()> {
        self.feed_pending(pack)
    }

    fn disown_pending(&self) -> Result<()> {
        let mut counting = self.counting_mut();
        counting.disowned = counting.pending.clone();
        counting.update();
        Ok(())
    }

    fn drop_pending(&self) -> Result<()> {
        let _writing = self.lock_writing();
        let (dead, pending) = {
            let mut counting = self.counting_mut();
            let pending = std::mem::take(&mut counting.pending);
            counting.disowned.clear();
            counting.update();
            (&pending - &counting.fed, pending)
        };
        self.forget_packs(unmarking(&pending), &dead)
    }

    fn are_usable(&self, prefixes: &[ChunkPrefix]) -> Result<Vec<bool>> {
        let chunks = self.family(CHUNKS)?;
        if let [prefix] = prefixes {
            let found = self.db.get_pinned_cf(chunks, prefix.0);
            let found = found.map_err(|error| self.error("read", &error))?;
            let is_usable = found
                .map(|value| self.has_usable_place(&value))
                .transpose()?;
            return Ok(vec![is_usable.unwrap_or_default()]);
        }
        let mut answers = Vec::with_capacity(prefixes.len());
        for batch in prefixes.chunks(BATCH_LOOKUPS) {
            let keys = batch.iter().map(|prefix| &prefix.0);
            for found in self.db.batched_multi_get_cf(chunks, keys, false) {
                let found = found.map_err(|error| self.error("read", &error))?;
                let is_usable = found
                    .map(|value| self.has_usable_place(&value))
                    .transpose()?;
                answers.push(is_usable.unwrap_or_default());
            }
        }
        Ok(answers)
    }

    fn lookup(&self, prefix: &ChunkPrefix) -> Result<Vec<Place>> {
        let found = self.db.get_pinned_cf(self.family(CHUNKS)?, prefix.0);
        match found.map_err(|error| self.error("read", &error))? {
            Some(value) => self.places(&value),
            None => Ok(Vec::new()),
        }
    }

    fn lookup_many(&self, prefixes: &[ChunkPrefix]) -> Result<Vec<Vec<Place>>> {
        let chunks = self.family(CHUNKS)?;
        let mut answers = Vec::with_capacity(prefixes.len());
        for batch in prefixes.chunks(BATCH_LOOKUPS) {
            let keys = batch.iter().map(|prefix| &prefix.0);
            for found in self.db.batched_multi_get_cf(chunks, keys, false) {
                let found = found.map_err(|error| self.error("read", &error))?;
                let places = found.map(|value| self.places(&value)).transpose()?;
                answers.push(places.unwrap_or_default());
            }
        }
        Ok(answers)
    }

    fn packs(&self, visit: &mut dyn FnMut(PackInfo) -> ControlFlow<()>) -> Result<()> {
        let given = {
            let counting = self.counting.read().unwrap_or_else(PoisonError::into_inner);
            counting.given.clone()
        };
        self.scan(b'p', |key, value| {
            let ordinal = codec::decode_ordinal(key).ok_or("a pack's number")?;
            if !given.contains(ordinal) {
                return Ok(ControlFlow::Continue(()));
            }
            Ok(visit(codec::decode_pack(value).ok_or("a pack's record")?))
        })
    }

    fn for_each_chunk(
        &self,
        visit: &mut dyn FnMut(&ChunkPrefix, &[Place]) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_readahead_size(1 << 20);
        let mode = IteratorMode::From(codec::NEXT_ORDINAL_KEY, Direction::Forward);
        for item in self.db.iterator_cf_opt(self.family(CHUNKS)?, options, mode) {
            let (key, value) = item.map_err(|error| self.error("read", &error))?;
            if *key == *codec::NEXT_ORDINAL_KEY {
                continue;
            }
            let prefix = codec::decode_prefix(&key);
            let prefix = prefix.ok_or_else(|| self.damaged("a chunk's prefix"))?;
            let places = self.places(&value)?;
            if !places.is_empty() && visit(&prefix, &places).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn cached_block(&self, pack: &ObjectId, offset: u64) -> Result<Option<Vec<u8>>> {
        let found = self
            .db
            .get_cf(self.family(BLOCKS)?, codec::block_key(pack, offset));
        found.map_err(|error| self.error("read", &error))
    }

    fn cache_block(&self, pack: &ObjectId, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut options = WriteOptions::default();
        // A block lost in a crash is read again from the repository.
        options.disable_wal(true);
        let key = codec::block_key(pack, offset);
        let outcome = self
            .db
            .put_cf_opt(self.family(BLOCKS)?, key, bytes, &options);
        outcome.map_err(|error| self.error("write", &error))
    }
}

/// Makes a batch that takes the marks of packs away.
fn unmarking(packs: &RoaringBitmap) -> WriteBatch {
    let mut batch = WriteBatch::default();
    for ordinal in packs {
        batch.delete(codec::unnamed_key(ordinal));
    }
    batch
}

/// Tells damage from a disk that does not do its work.
fn sort_error(
    folder: &Path,
    action: &'static str,
    error: &rocksdb::Error,
    is_opening: bool,
) -> IndexError {
    let folder = folder.display().to_string();
    let cause = error.as_ref().to_owned();
    let is_damage = match error.kind() {
        rocksdb::ErrorKind::IOError => {
            // A file that is missing or short when the index is opened is damage, too.
            let is_disk = [
                "No space",
                "Permission denied",
                "Read-only",
                "Too many open",
                "quota",
            ]
            .iter()
            .any(|text| cause.contains(text));
            is_opening && !is_disk
        }
        rocksdb::ErrorKind::Corruption => true,
        _ => is_opening,
    };
    if is_damage {
        IndexError::Damaged { folder, cause }
    } else {
        IndexError::Disk {
            action,
            folder,
            cause,
        }
    }
}

fn disk_error(folder: &Path, action: &'static str, error: &io::Error) -> IndexError {
    IndexError::Disk {
        action,
        folder: folder.display().to_string(),
        cause: error.to_string(),
    }
}

#[cfg(test)]
mod tests;
