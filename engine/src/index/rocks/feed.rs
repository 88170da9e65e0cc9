//! Feeding the index: every step leaves it right if the process ends after it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;

use larder_format::ids::{ChunkPrefix, ObjectId};
use roaring::RoaringBitmap;
use rocksdb::{IngestExternalFileOptions, SstFileWriter, WriteBatch};

use super::{
    CHUNKS, Entry, Ordinal, PackRecord, PoisonError, Result, RocksIndex, codec, disk_error,
};

/// Chunks that are written as one batch; more go into sorted files.
const BATCH_CHUNKS_MAX: usize = 16 << 10;
/// Chunks in one sorted file: what is sorted in memory at once (about 40 bytes each).
const FILE_CHUNKS_MAX: usize = 1 << 18;

impl RocksIndex {
    pub(super) fn feed_segment(&self, segment: &ObjectId, packs: &[PackRecord]) -> Result<()> {
        let _writing = self.lock_writing();
        let key = codec::segment_key(segment);
        if self.get(&key)?.is_some() {
            return Ok(());
        }
        let mut feed = Feed::new(self)?;
        let mut ordinals = RoaringBitmap::new();
        let mut missing = Vec::new();
        for pack in packs {
            let (ordinal, is_complete) = feed.number(pack)?;
            ordinals.insert(ordinal);
            if !is_complete {
                missing.push((ordinal, pack));
            }
        }
        let chunks = missing
            .iter()
            .map(|(_, pack)| chunk_count(pack))
            .sum::<usize>();
        if chunks > BATCH_CHUNKS_MAX {
            // The numbers are on disk, marked as nobody's, before an entry with them is.
            feed.commit(true)?;
            self.ingest(&missing, feed.next)?;
        } else {
            for (ordinal, pack) in &missing {
                feed.entries(*ordinal, pack)?;
            }
        }
        let record = codec::encode_ordinals(&ordinals);
        let record = record.ok_or_else(|| self.damaged("a list of packs"))?;
        feed.batch.put(key, record);
        for ordinal in &ordinals {
            feed.batch.delete(codec::unnamed_key(ordinal));
        }
        feed.commit(false)?;
        let mut counting = self.counting_mut();
        for (ordinal, pack) in missing {
            if counting.unusable.contains(&pack.id) {
                counting.unusable_fed.insert(ordinal);
            }
        }
        counting.fed |= ordinals;
        counting.update();
        Ok(())
    }

    pub(super) fn feed_pending(&self, pack: &PackRecord) -> Result<()> {
        let _writing = self.lock_writing();
        let mut feed = Feed::new(self)?;
        let (ordinal, is_complete) = feed.number(pack)?;
        if !is_complete {
            feed.entries(ordinal, pack)?;
        }
        feed.commit(false)?;
        let mut counting = self.counting_mut();
        if counting.unusable.contains(&pack.id) {
            counting.unusable_fed.insert(ordinal);
        }
        counting.pending.insert(ordinal);
        counting.disowned.remove(ordinal);
        counting.given.insert(ordinal);
        if !counting.unusable_fed.contains(ordinal) {
            counting.usable.insert(ordinal);
        }
        Ok(())
    }

    pub(super) fn unfeed_segments(&self, segments: &[ObjectId]) -> Result<()> {
        let _writing = self.lock_writing();
        let gone: BTreeSet<_> = segments.iter().collect();
        let mut fed = RoaringBitmap::new();
        self.scan(b's', |key, value| {
            let segment = ObjectId::from_slice(key).ok_or("a segment's name")?;
            if !gone.contains(&segment) {
                fed |= codec::decode_ordinals(value).ok_or("a segment's record")?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let dead = {
            let mut counting = self.counting_mut();
            let dead = &(&counting.fed - &fed) - &counting.pending;
            counting.counted &= &fed;
            counting.unusable_fed -= &dead;
            counting.fed = fed;
            counting.update();
            dead
        };
        let mut batch = WriteBatch::default();
        for segment in gone {
            batch.delete(codec::segment_key(segment));
        }
        // Pending packs lose the segment that named them, and are the session's again.
        for ordinal in &self.counting_mut().pending {
            batch.put(codec::unnamed_key(ordinal), []);
        }
        self.forget_packs(batch, &dead)
    }

    /// Writes the entries of packs as sorted files and takes these into the database.
    pub(super) fn ingest(&self, packs: &[(Ordinal, &PackRecord)], next: Ordinal) -> Result<()> {
        let folder = self.feed_folder();
        let fail = |error: &std::io::Error| disk_error(&folder, "write", error);
        fs::create_dir_all(&folder).map_err(|error| fail(&error))?;
        let mut chunks = Vec::new();
        for (ordinal, pack) in packs {
            let places = pack.places();
            chunks.extend(
                places
                    .iter()
                    .map(|(prefix, place)| (*prefix, Entry::new(*ordinal, place))),
            );
            if chunks.len() >= FILE_CHUNKS_MAX {
                self.ingest_file(&mut chunks, next, *ordinal)?;
            }
        }
        let last = packs.last().map_or(next, |(ordinal, _)| *ordinal);
        if chunks.is_empty() {
            return Ok(());
        }
        self.ingest_file(&mut chunks, next, last)
    }

    /// Takes in one sorted file, named by the `last` pack in it, and leaves `chunks` empty.
    fn ingest_file(
        &self,
        chunks: &mut Vec<(ChunkPrefix, Entry)>,
        next: Ordinal,
        last: Ordinal,
    ) -> Result<()> {
        chunks.sort_unstable_by_key(|(prefix, entry)| (*prefix, entry.ordinal));
        let path = self.feed_folder().join(format!("chunks-{last}"));
        let fail = |error: rocksdb::Error| self.error("write", &error);
        let mut writer = SstFileWriter::create(&self.settings.chunks);
        writer.open(&path).map_err(fail)?;
        writer
            .put(codec::NEXT_ORDINAL_KEY, next.to_be_bytes())
            .map_err(fail)?;
        let mut value = Vec::new();
        let mut chunks_left = chunks.drain(..).peekable();
        while let Some((prefix, entry)) = chunks_left.next() {
            entry.encode(&mut value);
            // A file holds each key once.
            if chunks_left.peek().is_none_or(|(after, _)| *after != prefix) {
                writer.merge(prefix.0, &value).map_err(fail)?;
                value.clear();
            }
        }
        writer.finish().map_err(fail)?;
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        let family = self.family(CHUNKS)?;
        self.db
            .ingest_external_file_cf_opts(family, &options, vec![&path])
            .map_err(fail)
    }
}

/// What is to be written in one step, and the numbers it gave to packs.
pub(super) struct Feed<'a> {
    index: &'a RocksIndex,
    batch: WriteBatch,
    pub(super) next: Ordinal,
    /// Packs that were no segment's and become one's, or the session's.
    claimed: RoaringBitmap,
    /// Packs seen in this step.
    seen: BTreeMap<ObjectId, Ordinal>,
}

impl<'a> Feed<'a> {
    pub(super) fn new(index: &'a RocksIndex) -> Result<Self> {
        let next = index
            .db
            .get_cf(index.family(CHUNKS)?, codec::NEXT_ORDINAL_KEY);
        let next = match next.map_err(|error| index.error("read", &error))? {
            Some(next) => codec::decode_ordinal(&next),
            None => Some(0),
        };
        Ok(Self {
            index,
            batch: WriteBatch::default(),
            next: next.ok_or_else(|| index.damaged("the next pack's number"))?,
            claimed: RoaringBitmap::new(),
            seen: BTreeMap::new(),
        })
    }

    /// Gives a pack's number, a new one if it has none, and whether its entries are all there.
    pub(super) fn number(&mut self, pack: &PackRecord) -> Result<(Ordinal, bool)> {
        if let Some(seen) = self.seen.get(&pack.id) {
            return Ok((*seen, true));
        }
        if let Some(known) = self.index.get(&codec::pack_id_key(&pack.id))? {
            let known = codec::decode_ordinal(&known);
            let known = known.ok_or_else(|| self.index.damaged("a pack's number"))?;
            self.seen.insert(pack.id, known);
            let counting = self
                .index
                .counting
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            let is_complete = counting.fed.contains(known) || counting.pending.contains(known);
            if !is_complete {
                self.claimed.insert(known);
            }
            return Ok((known, is_complete));
        }
        let ordinal = self.next;
        let next = ordinal.checked_add(1);
        self.next = next.ok_or_else(|| self.index.damaged("a used-up count of packs"))?;
        self.seen.insert(pack.id, ordinal);
        self.claimed.insert(ordinal);
        self.batch
            .put(codec::pack_key(ordinal), codec::encode_pack(&pack.info()));
        self.batch
            .put(codec::pack_id_key(&pack.id), ordinal.to_be_bytes());
        self.batch.put(codec::unnamed_key(ordinal), []);
        Ok((ordinal, false))
    }

    fn entries(&mut self, ordinal: Ordinal, pack: &PackRecord) -> Result<()> {
        let family = self.index.family(CHUNKS)?;
        for (prefix, place) in pack.places() {
            let mut value = Vec::new();
            Entry::new(ordinal, &place).encode(&mut value);
            self.batch.merge_cf(family, prefix.0, value);
        }
        Ok(())
    }

    /// Writes what has gathered, after a compaction was told to keep it.
    pub(super) fn commit(&mut self, is_synced: bool) -> Result<()> {
        let index = self.index;
        if !self.claimed.is_empty() {
            self.batch.put_cf(
                index.family(CHUNKS)?,
                codec::NEXT_ORDINAL_KEY,
                self.next.to_be_bytes(),
            );
            let mut alive = index.alive.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(alive) = alive.as_mut() {
                *alive |= std::mem::take(&mut self.claimed);
            }
        }
        index.write(std::mem::take(&mut self.batch), is_synced)
    }
}

fn chunk_count(pack: &PackRecord) -> usize {
    pack.blocks.iter().map(|block| block.chunks.len()).sum()
}
