//! Open packs, their upload, and the segments that name them.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};
use larder_format::block::SealedBlock;
use larder_format::ids::ObjectId;
use larder_format::names;
use larder_format::object::Kind;
use larder_format::pack::{FinishedPack, PackWriter};
use larder_format::segment::{Segment, SegmentPack};

use super::Shared;
use crate::error::{EngineError, Result};
use crate::index::PackRecord;
use crate::parity::{Open as OpenGroup, Spool};
use crate::random;
use crate::sync::lock;

/// Packs of a kind that are open at a time; a block goes into one of them at random.
const OPEN_PACKS: usize = 2;
/// The most threads that upload: each has a pack of up to 32 MiB in memory.
const UPLOADERS_MAX: usize = 4;
/// Encoded directory bytes of one segment: it is in memory several times while it is sealed.
const SEGMENT_DIRECTORY_BYTES: usize = 1 << 20;

/// The packs of one session between sealing and the segment that names them.
pub(super) struct PackSet {
    open: Mutex<Open>,
    /// A closed pack was uploaded, or given up.
    uploaded: Condvar,
    queue: Mutex<Option<Sender<PackWriter>>>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
    waiting: Mutex<Waiting>,
    /// Groups of packs that get parity; none if they get none.
    parity: Mutex<Option<Spool>>,
}

#[derive(Default)]
struct Open {
    data: [Option<PackWriter>; OPEN_PACKS],
    tree: [Option<PackWriter>; OPEN_PACKS],
    /// Packs that were closed and are not uploaded yet.
    closed: usize,
}

#[derive(Default)]
struct Waiting {
    packs: Vec<SegmentPack>,
    directory_bytes: usize,
    segments: Vec<ObjectId>,
}

impl PackSet {
    pub(super) fn new() -> Self {
        Self {
            open: Mutex::default(),
            uploaded: Condvar::new(),
            queue: Mutex::new(None),
            threads: Mutex::default(),
            waiting: Mutex::default(),
            parity: Mutex::new(None),
        }
    }

    /// Takes the open groups, which another packer may go on with.
    pub(super) fn take_parity(&self) -> Option<Spool> {
        lock(&self.parity).take()
    }

    /// Lets the packs from now on get parity.
    pub(super) fn set_parity(&self, spool: Option<Spool>) {
        *lock(&self.parity) = spool;
    }

    pub(super) fn take_segments(&self) -> Vec<ObjectId> {
        std::mem::take(&mut lock(&self.waiting).segments)
    }
}

/// Starts the threads that upload closed packs.
pub(super) fn start_uploaders(shared: &Arc<Shared>) -> Result<()> {
    if shared.repository.is_in_order() {
        return Ok(());
    }
    let (sender, receiver) = unbounded();
    for _ in 0..uploaders(shared) {
        let (shared_there, receiver) = (Arc::clone(shared), receiver.clone());
        let thread = thread::Builder::new()
            .name("upload".to_owned())
            .spawn(move || upload_all(&shared_there, &receiver))
            .map_err(|error| EngineError::Internal(format!("cannot start a thread: {error}")))?;
        lock(&shared.packs.threads).push(thread);
    }
    *lock(&shared.packs.queue) = Some(sender);
    Ok(())
}

/// Tells how many threads upload; one more pack may wait for them.
fn uploaders(shared: &Shared) -> usize {
    shared.repository.calls_at_once().clamp(1, UPLOADERS_MAX)
}

/// Lets the uploaders end and waits for them.
pub(super) fn stop_uploaders(shared: &Shared) {
    drop(lock(&shared.packs.queue).take());
    let threads = std::mem::take(&mut *lock(&shared.packs.threads));
    for thread in threads {
        // A worker may hold the last reference to the packer: a thread cannot wait for itself.
        if thread.thread().id() != thread::current().id() {
            let _ = thread.join();
        }
    }
}

/// Adds a sealed block to an open pack, and hands the pack on if it is full; waits first while
/// too many are on their way, so that a slow storage does not fill memory.
pub(super) fn add(shared: &Shared, block: SealedBlock) -> Result<()> {
    let kind = block.chunk_type.pack_kind();
    let [pick] = random::bytes::<1>()?;
    let full = {
        let mut open = lock(&shared.packs.open);
        while open.closed > uploaders(shared) {
            open = wait(shared, open);
        }
        let slots = match kind {
            Kind::TreePack => &mut open.tree,
            _ => &mut open.data,
        };
        let Some(slot) = slots.get_mut(usize::from(pick) % OPEN_PACKS) else {
            return Ok(());
        };
        let mut writer = match slot.take() {
            Some(writer) => writer,
            None => {
                let key = shared
                    .repository
                    .keyring()
                    .current(block.chunk_type.purpose())?;
                PackWriter::new(kind, key, random::bytes()?)?
            }
        };
        let chunks = block
            .chunks
            .iter()
            .map(|(id, length)| (id.prefix(), *length))
            .collect();
        writer.push_block(&block.bytes, block.chunk_type, chunks)?;
        if writer.should_close() {
            open.closed += 1;
            Some(writer)
        } else {
            *slot = Some(writer);
            None
        }
    };
    full.map_or(Ok(()), |writer| enqueue(shared, writer))
}

/// Closes every open pack and waits until all are uploaded.
pub(super) fn close_all(shared: &Shared) -> Result<()> {
    let slots = {
        let mut open = lock(&shared.packs.open);
        [
            std::mem::take(&mut open.data),
            std::mem::take(&mut open.tree),
        ]
    };
    // What is left of a kind shares one pack where it fits: a small backup writes few objects.
    for slots in slots {
        for writer in merge(slots.into_iter().flatten().collect())? {
            lock(&shared.packs.open).closed += 1;
            enqueue(shared, writer)?;
        }
    }
    let mut open = lock(&shared.packs.open);
    while open.closed > 0 {
        open = wait(shared, open);
    }
    Ok(())
}

/// Waits until a closed pack was uploaded.
fn wait<'a>(shared: &'a Shared, open: MutexGuard<'a, Open>) -> MutexGuard<'a, Open> {
    let woken = shared.packs.uploaded.wait(open);
    woken.unwrap_or_else(PoisonError::into_inner)
}

/// Puts the blocks of several open packs into as few as hold them.
fn merge(writers: Vec<PackWriter>) -> Result<Vec<PackWriter>> {
    let mut merged: Vec<PackWriter> = Vec::new();
    for writer in writers {
        match merged.last_mut() {
            Some(last) if last.fits(&writer) => last.append(writer)?,
            _ => merged.push(writer),
        }
    }
    Ok(merged)
}

/// Hands a pack that was counted as closed to the uploaders.
fn enqueue(shared: &Shared, writer: PackWriter) -> Result<()> {
    if shared.repository.is_in_order() {
        let uploaded = upload(shared, writer);
        end_upload(shared);
        return uploaded;
    }
    let sender = lock(&shared.packs.queue).clone();
    let sent = sender.is_some_and(|sender| sender.send(writer).is_ok());
    if sent {
        return Ok(());
    }
    end_upload(shared);
    Err(EngineError::Internal("the uploaders have ended".to_owned()))
}

fn upload_all(shared: &Arc<Shared>, receiver: &Receiver<PackWriter>) {
    for writer in receiver {
        // After a failure the rest is drained, so that nobody waits for room in the queue.
        if !shared.failed.load(std::sync::atomic::Ordering::Acquire)
            && let Err(error) = upload(shared, writer)
        {
            shared.fail(error);
        }
        end_upload(shared);
    }
}

fn end_upload(shared: &Shared) {
    lock(&shared.packs.open).closed -= 1;
    shared.packs.uploaded.notify_all();
}

/// Finishes a pack, uploads it, enters it in the index, and queues it for a segment.
fn upload(shared: &Shared, writer: PackWriter) -> Result<()> {
    let repository = &shared.repository;
    let key_id = writer.header().key_id;
    let key = repository.keyring().find(&key_id, writer.header().kind)?;
    let finished = writer.finish(key, &random::bytes()?, &random::bytes()?)?;
    let FinishedPack {
        id,
        kind,
        bytes,
        directory,
    } = finished;
    let length = bytes.len() as u64;
    let bytes = bytes::Bytes::from(bytes);
    shared.store(&names::pack(&id), bytes.clone())?;
    shared
        .stored_bytes
        .fetch_add(length, std::sync::atomic::Ordering::Relaxed);
    protect(shared, kind, id, &bytes);
    let record = PackRecord::new(id, kind, length, &directory);
    repository.index().add_pending_pack(&record)?;
    if kind == Kind::TreePack {
        cache_blocks(shared, &record, &bytes)?;
    }
    let mut in_flight = lock(&shared.in_flight);
    for (prefix, _) in record.blocks.iter().flat_map(|block| &block.chunks) {
        in_flight.remove(prefix);
    }
    drop(in_flight);
    let is_large = {
        let mut waiting = lock(&shared.packs.waiting);
        let pack = SegmentPack {
            id,
            kind,
            length,
            directory,
        };
        waiting.directory_bytes += pack.encoded_bytes_max();
        waiting.packs.push(pack);
        waiting.directory_bytes >= SEGMENT_DIRECTORY_BYTES
    };
    if is_large {
        write_segment(shared)?;
    }
    Ok(())
}

/// Puts an uploaded pack into a group, and writes the group's parity once it is full.
fn protect(shared: &Shared, kind: Kind, id: ObjectId, bytes: &[u8]) {
    let full = {
        let mut parity = lock(&shared.packs.parity);
        let Some(spool) = parity.as_mut() else { return };
        spool.add(kind, id, bytes)
    };
    match full {
        Ok(Some(group)) => write_parity(shared, group),
        Ok(None) => {}
        Err(error) => unprotected(&error),
    }
}

/// Writes the parity of the groups that are not full.
pub(super) fn end_parity(shared: &Shared) {
    let rest = lock(&shared.packs.parity).as_mut().map(Spool::rest);
    for group in rest.unwrap_or_default() {
        write_parity(shared, group);
    }
}

/// Writes the parity of a group; a failure costs redundancy and never the backup.
fn write_parity(shared: &Shared, group: OpenGroup) {
    let written = group.finish().and_then(|made| {
        let Some((id, object)) = made else {
            return Ok(0);
        };
        let length = object.len() as u64;
        shared.store(&names::parity(&id), object)?;
        Ok(length)
    });
    match written {
        Ok(length) => {
            shared
                .stored_bytes
                .fetch_add(length, std::sync::atomic::Ordering::Relaxed);
        }
        Err(error) => unprotected(&error),
    }
}

fn unprotected(error: &EngineError) {
    tracing::warn!(
        "some new packs have no parity: {error}; nothing else is wrong with them, and `larder parity build` makes up for it"
    );
}

/// Keeps the sealed nodes at hand for the next run, which compares with them.
fn cache_blocks(shared: &Shared, record: &PackRecord, bytes: &[u8]) -> Result<()> {
    for block in &record.blocks {
        let start = usize::try_from(block.offset).unwrap_or(usize::MAX);
        let sealed = bytes
            .get(start..)
            .and_then(|rest| rest.get(..block.length as usize));
        if let Some(sealed) = sealed {
            shared
                .repository
                .index()
                .cache_block(&record.id, block.offset, sealed)?;
        }
    }
    Ok(())
}

/// Writes the segment that names the packs uploaded since the last one.
pub(super) fn write_segment(shared: &Shared) -> Result<()> {
    let packs = {
        let mut waiting = lock(&shared.packs.waiting);
        waiting.directory_bytes = 0;
        std::mem::take(&mut waiting.packs)
    };
    if packs.is_empty() {
        return Ok(());
    }
    let segment = Segment {
        owner: shared.owner,
        packs,
    };
    let repository = &shared.repository;
    let (id, object) = segment.seal(repository.keyring(), random::bytes()?, &random::bytes()?)?;
    let length = object.len() as u64;
    shared.store(&names::segment(&id), bytes::Bytes::from(object))?;
    shared
        .stored_bytes
        .fetch_add(length, std::sync::atomic::Ordering::Relaxed);
    let packs = segment.packs.into_iter();
    let records: Vec<_> = packs.map(PackRecord::from_segment).collect();
    repository.index().add_segment(&id, &records)?;
    lock(&shared.packs.waiting).segments.push(id);
    Ok(())
}
