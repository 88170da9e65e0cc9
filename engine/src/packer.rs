//! The way of new chunks into packs: grouped into blocks, compressed and sealed on all cores,
//! packed, uploaded, and entered in the index.
//!
//! One thread (the *feeder*) puts chunks in; it decides what is new. Blocks are sealed by the
//! repository's workers, full packs are uploaded by threads of their own. Memory is bounded by
//! the pipeline's budget (bytes until they are sealed) and by the number of packs that are open
//! or on their way.

mod packs;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use larder_format::block::{BlockBuilder, Compression, SealedBlock};
use larder_format::compression::{Compressor, Decompressor};
use larder_format::ids::{ChunkId, ChunkPrefix, ChunkType, ObjectId, SessionId};
use larder_format::limits::BLOCK_CHUNKS;
use larder_format::segment::Owner;

use crate::budget::Held;
use crate::error::{EngineError, Result};
use crate::parity::Spool;
use crate::protocol::{Rule, keeps};
use crate::random;
use crate::repository::Repository;
use crate::sync::lock;
use packs::PackSet;

/// Plaintext bytes at which a block of small chunks is full.
const DATA_BLOCK_BYTES: usize = 1 << 20;
/// Plaintext bytes at which a block of nodes or values is full.
const TREE_BLOCK_BYTES: usize = 128 << 10;
/// A chunk of this many bytes is a block of its own.
const OWN_BLOCK_BYTES: usize = 256 << 10;

/// How the packer treats what it gets.
#[derive(Debug, Clone, Copy)]
pub struct PackerOptions {
    /// How blocks are compressed.
    pub compression: Compression,
    /// Whether small chunks share blocks.
    pub solid: bool,
    /// Whether each block is opened and compared before it is uploaded.
    pub verify_blocks: bool,
    /// Counts what is new and writes nothing.
    pub dry_run: bool,
}

/// What a packer has written so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// New chunks.
    pub chunks: u64,
    /// Their plaintext bytes.
    pub plain_bytes: u64,
    /// Bytes of packs and segments.
    pub stored_bytes: u64,
}

/// Takes the chunks of one session; see the module.
pub struct Packer {
    shared: Arc<Shared>,
    builders: Vec<Filling>,
}

/// A block that is being filled, with what its bytes hold of budgets: its chunks may be the feeder's
/// and, after a session ended, carried ones.
struct Filling {
    builder: BlockBuilder,
    held: Vec<Held>,
}

/// What a worker needs for a block; kept, since making them takes long.
struct Tools {
    compressor: Compressor,
    decompressor: Decompressor,
}

/// What the feeder, the workers and the uploaders share.
pub(crate) struct Shared {
    repository: Arc<Repository>,
    owner: Owner,
    options: PackerOptions,
    packs: PackSet,
    /// Chunks of this session whose pack is not in the index yet.
    in_flight: Mutex<HashSet<ChunkPrefix>>,
    /// Blocks that were handed to workers and are not in a pack yet.
    sealing: Mutex<usize>,
    sealed: Condvar,
    failed: AtomicBool,
    failure: Mutex<Option<EngineError>>,
    tools: Mutex<Vec<Tools>>,
    /// What is uploaded behind the cell, in tests that leave the order out.
    deferred: Mutex<Vec<(String, bytes::Bytes)>>,
    chunks: AtomicU64,
    plain_bytes: AtomicU64,
    stored_bytes: AtomicU64,
}

impl Packer {
    /// Starts a packer for a session.
    ///
    /// # Errors
    /// When the operating system gives no threads or randomness.
    pub fn start(
        repository: &Arc<Repository>,
        session: SessionId,
        options: PackerOptions,
    ) -> Result<Self> {
        Self::start_owned(repository, Owner::Session(session), options)
    }

    /// Starts a packer for a session or a collector's round.
    ///
    /// # Errors
    /// As [`Packer::start`].
    pub(crate) fn start_owned(
        repository: &Arc<Repository>,
        owner: Owner,
        options: PackerOptions,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            repository: Arc::clone(repository),
            owner,
            options,
            packs: PackSet::new(),
            in_flight: Mutex::default(),
            sealing: Mutex::new(0),
            sealed: Condvar::new(),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            tools: Mutex::default(),
            deferred: Mutex::default(),
            chunks: AtomicU64::new(0),
            plain_bytes: AtomicU64::new(0),
            stored_bytes: AtomicU64::new(0),
        });
        let percent = repository.config().parity().filter(|_| !options.dry_run);
        let spool = percent.map(|percent| Spool::new(percent, repository.cache_dir()));
        shared.packs.set_parity(spool);
        packs::start_uploaders(&shared)?;
        Ok(Self {
            shared,
            builders: Vec::new(),
        })
    }

    /// Puts a chunk in unless it is there already; tells whether it was new.
    ///
    /// `held` is the part of the budget that its bytes take until they are sealed.
    ///
    /// # Errors
    /// What went wrong with this chunk or with any before it.
    pub fn put(
        &mut self,
        chunk_type: ChunkType,
        id: ChunkId,
        bytes: &[u8],
        held: Option<Held>,
    ) -> Result<bool> {
        self.shared.check()?;
        if self.shared.is_known(&id.prefix())? {
            return Ok(false);
        }
        lock(&self.shared.in_flight).insert(id.prefix());
        self.shared.chunks.fetch_add(1, Ordering::Relaxed);
        self.shared
            .plain_bytes
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if self.shared.options.dry_run {
            return Ok(true);
        }
        let alone = bytes.len() >= OWN_BLOCK_BYTES
            || (!self.shared.options.solid && chunk_type == ChunkType::Data);
        if alone {
            let mut filling = Filling::new(chunk_type, bytes.len());
            filling.push(id, bytes, held)?;
            self.shared.seal(filling);
            return Ok(true);
        }
        let limit = block_bytes(chunk_type);
        let position = self
            .builders
            .iter()
            .position(|filling| filling.builder.chunk_type() == chunk_type);
        let mut filling = match position {
            Some(position) => self.builders.swap_remove(position),
            None => Filling::new(chunk_type, limit),
        };
        if filling.is_full_with(bytes.len(), limit) {
            let next = Filling::new(chunk_type, limit);
            self.shared.seal(std::mem::replace(&mut filling, next));
        }
        filling.push(id, bytes, held)?;
        self.builders.push(filling);
        Ok(true)
    }

    /// Tells for each chunk whether putting it in would change nothing: it is usable, or this
    /// session has it on its way.
    ///
    /// # Errors
    /// What the local index answers.
    pub fn are_known(&self, prefixes: &[ChunkPrefix]) -> Result<Vec<bool>> {
        // In this order, since what leaves the one has entered the other before.
        let in_flight: Vec<bool> = {
            let in_flight = lock(&self.shared.in_flight);
            prefixes
                .iter()
                .map(|prefix| in_flight.contains(prefix))
                .collect()
        };
        let usable = self.shared.repository.index().are_usable(prefixes)?;
        Ok(in_flight
            .into_iter()
            .zip(usable)
            .map(|(one, other)| one || other)
            .collect())
    }

    /// Puts a sealed block in, whatever is known of its chunks: a collector moves it.
    ///
    /// # Errors
    /// What went wrong with this block or with any before it.
    pub(crate) fn put_block(&mut self, block: SealedBlock) -> Result<()> {
        self.shared.check()?;
        packs::add(&self.shared, block)
    }

    /// Gives the id that a chunk has in this repository.
    #[must_use]
    pub fn chunk_id(&self, chunk_type: ChunkType, bytes: &[u8]) -> ChunkId {
        self.shared.repository.keyring().chunk_id(chunk_type, bytes)
    }

    /// Closes the block that is being filled, so that what follows shares none with what came.
    pub fn end_blocks(&mut self) {
        for filling in self.builders.drain(..) {
            self.shared.seal(filling);
        }
    }

    /// Waits until all that was put in is uploaded and its segments are written; gives the
    /// segments since the last flush.
    ///
    /// # Errors
    /// What went wrong with any of it.
    pub fn flush(&mut self) -> Result<Vec<ObjectId>> {
        self.end_blocks();
        let mut sealing = lock(&self.shared.sealing);
        while *sealing > 0 {
            sealing = self
                .shared
                .sealed
                .wait(sealing)
                .unwrap_or_else(PoisonError::into_inner);
        }
        drop(sealing);
        self.shared.check()?;
        packs::close_all(&self.shared)?;
        self.shared.check()?;
        packs::write_segment(&self.shared)?;
        Ok(self.shared.packs.take_segments())
    }

    /// Writes parity for the packs that have none yet; a flush must come before.
    ///
    /// A failure costs redundancy alone, and is logged.
    pub(crate) fn protect(&self) {
        packs::end_parity(&self.shared);
    }

    /// Uploads what a test made wait for the cell.
    ///
    /// # Errors
    /// What the storage answers.
    pub fn land(&self) -> Result<()> {
        for (name, bytes) in std::mem::take(&mut *lock(&self.shared.deferred)) {
            self.shared.repository.storage().put(&name, bytes)?;
        }
        Ok(())
    }

    /// Names the session under which the next segments are written.
    ///
    /// # Errors
    /// `Internal` if something is still under way: a flush must come before.
    pub fn succeed(&mut self, session: SessionId) -> Result<()> {
        let options = self.shared.options;
        let repository = Arc::clone(&self.shared.repository);
        let before = self.written();
        packs::stop_uploaders(&self.shared);
        let parity = self.shared.packs.take_parity();
        *self = Self::start(&repository, session, options)?;
        if parity.is_some() {
            self.shared.packs.set_parity(parity);
        }
        let shared = &self.shared;
        shared.chunks.store(before.chunks, Ordering::Relaxed);
        shared
            .plain_bytes
            .store(before.plain_bytes, Ordering::Relaxed);
        shared
            .stored_bytes
            .store(before.stored_bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Tells what was written so far.
    #[must_use]
    pub fn written(&self) -> Written {
        Written {
            chunks: self.shared.chunks.load(Ordering::Relaxed),
            plain_bytes: self.shared.plain_bytes.load(Ordering::Relaxed),
            stored_bytes: self.shared.stored_bytes.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Packer {
    fn drop(&mut self) {
        packs::stop_uploaders(&self.shared);
    }
}

impl Filling {
    fn new(chunk_type: ChunkType, plain_bytes: usize) -> Self {
        Self {
            builder: BlockBuilder::new(chunk_type, plain_bytes),
            held: Vec::new(),
        }
    }

    fn push(&mut self, id: ChunkId, bytes: &[u8], held: Option<Held>) -> Result<()> {
        self.builder.push(id, bytes)?;
        let left = self
            .held
            .iter_mut()
            .fold(held, |held, own| own.absorb(held?));
        self.held.extend(left);
        Ok(())
    }

    fn is_full_with(&self, more: usize, limit: usize) -> bool {
        let have = self.builder.plain_bytes();
        // Tiny chunks come to their number before they come to these bytes.
        have > 0 && (have + more > limit || self.builder.chunks().len() >= BLOCK_CHUNKS)
    }
}

impl Shared {
    /// Fails with what a worker or uploader failed with.
    fn check(&self) -> Result<()> {
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(lock(&self.failure)
            .take()
            .unwrap_or_else(|| EngineError::Internal("an upload failed before".to_owned())))
    }

    /// Keeps the first failure for the feeder, and wakes whoever waits for what will not come.
    fn fail(&self, error: EngineError) {
        let mut failure = lock(&self.failure);
        if failure.is_none() && !self.failed.load(Ordering::Acquire) {
            *failure = Some(error);
        }
        self.failed.store(true, Ordering::Release);
    }

    /// Uploads a pack or a segment.
    fn store(&self, name: &str, bytes: bytes::Bytes) -> Result<()> {
        if keeps(Rule::CellLast) {
            return Ok(self.repository.storage().put(name, bytes)?);
        }
        lock(&self.deferred).push((name.to_owned(), bytes));
        Ok(())
    }

    fn is_known(&self, prefix: &ChunkPrefix) -> Result<bool> {
        if lock(&self.in_flight).contains(prefix) {
            return Ok(true);
        }
        let usable = self.repository.index().are_usable(&[*prefix])?;
        Ok(usable.first().copied().unwrap_or_default())
    }

    /// Hands a block to the workers.
    fn seal(self: &Arc<Self>, filling: Filling) {
        *lock(&self.sealing) += 1;
        let shared = Arc::clone(self);
        let work = move || {
            let ended = Ended(&shared);
            let Filling { builder, held } = filling;
            let done = shared.seal_block(builder);
            drop(held);
            if let Err(error) = done.and_then(|block| packs::add(&shared, block)) {
                shared.fail(error);
            }
            drop(ended);
        };
        if self.repository.is_in_order() {
            work();
        } else {
            self.repository.workers().spawn(work);
        }
    }

    fn seal_block(&self, builder: BlockBuilder) -> Result<SealedBlock> {
        let kept = lock(&self.tools).pop();
        let mut tools = match kept {
            Some(tools) => tools,
            None => Tools {
                compressor: Compressor::new()?,
                decompressor: Decompressor::new()?,
            },
        };
        let sealed = builder.seal(
            self.repository.keyring(),
            &mut tools.compressor,
            self.options.compression,
            &random::bytes()?,
        );
        let verified = sealed.map_err(EngineError::from).and_then(|block| {
            if self.options.verify_blocks {
                verify_block(&self.repository, &block, &mut tools.decompressor)?;
            }
            Ok(block)
        });
        lock(&self.tools).push(tools);
        verified
    }
}

/// Opens a block that was just sealed, and compares what is in it with what went in.
///
/// # Errors
/// `Faulty` if it is something else.
pub(crate) fn verify_block(
    repository: &Repository,
    block: &SealedBlock,
    decompressor: &mut Decompressor,
) -> Result<()> {
    let verified = block.verify(repository.keyring(), decompressor);
    verified.map_err(|error| EngineError::Faulty(error.to_string()))
}

/// Counts a block as done when dropped, whatever happened, so that a flush never waits for ever.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0
                .fail(EngineError::Internal("a worker failed".to_owned()));
        }
        *lock(&self.0.sealing) -= 1;
        self.0.sealed.notify_all();
    }
}

/// Gives the plaintext bytes at which a block of chunks of this type is full.
fn block_bytes(chunk_type: ChunkType) -> usize {
    if chunk_type == ChunkType::Data {
        DATA_BLOCK_BYTES
    } else {
        TREE_BLOCK_BYTES
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::ops::ControlFlow;

    use larder_format::names;

    use super::*;
    use crate::snapshots::fixture;
    use crate::storage::Storage;
    use crate::storage::object::ObjectStorage;

    #[test]
    fn a_block_that_does_not_hold_what_went_in_is_not_uploaded() {
        for verify_blocks in [true, false] {
            let storage: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
            fixture::init(storage.as_ref());
            let repository = fixture::open(&storage);
            let options = PackerOptions {
                compression: Compression::Level(1),
                solid: true,
                verify_blocks,
                dry_run: false,
            };
            let mut packer = Packer::start(&repository, SessionId::default(), options).unwrap();
            // As if a bit had flipped between hashing and sealing.
            let id = packer.chunk_id(ChunkType::Data, b"what was read");
            packer
                .put(ChunkType::Data, id, b"what was reaf", None)
                .unwrap();
            let flushed = packer.flush();
            let is_faulty = matches!(flushed, Err(EngineError::Faulty(_)));
            assert_eq!(is_faulty, verify_blocks, "{flushed:?}");
            let mut packs = 0;
            let mut count = |_| {
                packs += 1;
                Ok(())
            };
            storage.list(names::PACKS, &mut count).unwrap();
            assert_eq!(packs, usize::from(!verify_blocks));
        }
    }

    #[test]
    fn a_block_takes_no_more_tiny_chunks_than_the_format_allows() {
        let storage: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
        fixture::init(storage.as_ref());
        let repository = fixture::open(&storage);
        let options = PackerOptions {
            compression: Compression::Level(1),
            solid: true,
            verify_blocks: true,
            dry_run: false,
        };
        let mut packer = Packer::start(&repository, SessionId::default(), options).unwrap();
        for number in 0..70_000_u32 {
            let bytes = number.to_le_bytes();
            let id = packer.chunk_id(ChunkType::Data, &bytes);
            assert!(packer.put(ChunkType::Data, id, &bytes, None).unwrap());
        }
        packer.flush().unwrap();
        let mut chunks = 0;
        let visited = repository.index().for_each_chunk(&mut |_, _| {
            chunks += 1;
            ControlFlow::Continue(())
        });
        visited.unwrap();
        assert_eq!(chunks, 70_000);
    }
}
