//! Reading packs whole: every byte hashed, every block opened, every chunk compared with its id.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use crossbeam_channel::Receiver;
use larder_format::block::open_block;
use larder_format::compression::Decompressor;
use larder_format::directory::{Directory, DirectoryBlock};
use larder_format::ids::{ChunkPrefix, ChunkType, ObjectId};
use larder_format::limits::PACK_BYTES;
use larder_format::names;
use larder_format::object::{Header, Kind};
use larder_format::pack::open_pack;
use rayon::prelude::*;

use super::context::{Context, Outcome, Problem, attempt};
use super::findings::Damage;
use super::opened::{HELD, sorter};
use crate::budget::Budget;
use crate::chunks::open_any;
use crate::error::{EngineError, Result};
use crate::ledger::Findings;
use crate::repository::Repository;
use crate::scratch::runs::Sorter;
use crate::storage::error::ErrorKind;
use crate::sync::lock;

/// Bytes of packs that are in memory at a time.
const IN_FLIGHT_BYTES: usize = 96 << 20;

/// A pack to be read whole.
pub(super) struct Job {
    pub id: ObjectId,
    pub kind: Kind,
    /// Bytes that it has in the storage.
    pub size: u64,
    /// What a segment says of it; none where only the pack itself does.
    pub named: Option<Named>,
    /// Whether what is wrong with it is judged again, with what a segment says of it.
    pub is_judged_again: bool,
}

/// What a segment says of a pack.
pub(super) struct Named {
    pub length: u64,
    pub directory: Directory,
}

/// Takes packs from a queue, from several threads, and keeps what they find.
pub(super) struct Verifier<'a, 'b> {
    context: &'a Context<'b>,
    damage: Mutex<&'a mut Damage>,
    budget: Arc<Budget>,
    stopped: AtomicBool,
    failure: Mutex<Option<EngineError>>,
    packs_read: AtomicU64,
    found: Mutex<Findings>,
    /// Packs that lie in cold storage and were not read, and their bytes.
    cold: Mutex<(u64, u64)>,
    /// The chunks of files that they hold.
    held: Mutex<Sorter<HELD>>,
    /// Packs that are to be judged again.
    again: Mutex<BTreeMap<ObjectId, Job>>,
}

impl<'a, 'b> Verifier<'a, 'b> {
    pub(super) fn new(context: &'a Context<'b>, damage: &'a mut Damage) -> Self {
        Self {
            context,
            damage: Mutex::new(damage),
            budget: Budget::new(IN_FLIGHT_BYTES),
            stopped: AtomicBool::new(false),
            failure: Mutex::new(None),
            packs_read: AtomicU64::new(0),
            found: Mutex::default(),
            cold: Mutex::default(),
            held: Mutex::new(sorter(context.repository.cache_dir())),
            again: Mutex::default(),
        }
    }

    /// Adds to what was found.
    pub(super) fn with_damage<T>(&self, act: impl FnOnce(&mut Damage) -> T) -> T {
        act(&mut lock(&self.damage))
    }

    /// Verifies packs until the queue is closed.
    pub(super) fn run(&self, queue: &Receiver<Job>) {
        for job in queue {
            self.take(&job);
        }
    }

    /// Verifies a pack; after a failure it does nothing, so that the queue is drained and nobody waits for
    /// room in it.
    pub(super) fn take(&self, job: &Job) {
        if self.stopped.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = self.verify(job) {
            lock(&self.failure).get_or_insert(error);
            self.stopped.store(true, Ordering::Release);
        }
    }

    /// Tells whether nothing more is verified, because something failed.
    pub(super) fn has_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Takes the packs that are to be judged again.
    pub(super) fn take_again(&self) -> BTreeMap<ObjectId, Job> {
        std::mem::take(&mut *lock(&self.again))
    }

    /// Gives the number of packs that were read, or what failed; and, even so, what was found of each and what they hold.
    pub(super) fn finish(self) -> (Result<(u64, Sorter<HELD>)>, Findings) {
        let found = std::mem::take(&mut *lock(&self.found));
        let read = match (self.failure.into_inner(), self.held.into_inner()) {
            (Ok(None), Ok(held)) => Ok((self.packs_read.into_inner(), held)),
            (Ok(Some(error)), _) => Err(error),
            _ => Err(EngineError::Internal("a verifying thread died".to_owned())),
        };
        (read, found)
    }

    /// Counts a pack that lies in cold storage and was not read.
    pub(super) fn note_cold(&self, bytes: u64) {
        let mut cold = lock(&self.cold);
        cold.0 += 1;
        cold.1 = cold.1.saturating_add(bytes);
    }

    /// Gives the packs that lie in cold storage and were not read, and their bytes.
    pub(super) fn cold(&self) -> (u64, u64) {
        *lock(&self.cold)
    }

    /// Notes for the ledger whether a pack is sound.
    fn note(&self, pack: &ObjectId, is_sound: bool) {
        let mut found = lock(&self.found);
        match is_sound {
            true => found.sound.push(pack.prefix()),
            false => found.damaged.push(pack.prefix()),
        }
    }

    fn verify(&self, job: &Job) -> Result<()> {
        self.context.cancel.check()?;
        let bytes = usize::try_from(job.size).unwrap_or(usize::MAX);
        let Some(_held) = self.budget.hold(0, bytes.min(PACK_BYTES)) else {
            return Ok(());
        };
        let outcome = match verify(self.context, job) {
            Err(error) if error.is_cold() => {
                self.note_cold(job.size);
                self.context.progress.advance(1, job.size);
                return Ok(());
            }
            outcome => outcome?,
        };
        let is_sound = matches!(&outcome, Ok(verdict) if verdict.problem.is_none());
        if job.is_judged_again && !is_sound {
            let again = Job {
                is_judged_again: false,
                named: None,
                ..*job
            };
            lock(&self.again).insert(job.id, again);
            return Ok(());
        }
        self.note(&job.id, is_sound);
        match outcome {
            Ok(verdict) => {
                if let Some(problem) = verdict.problem {
                    self.with_damage(|damage| damage.add_pack(&job.id, problem, &verdict.lost))?;
                }
                let mut held = lock(&self.held);
                for one in verdict.held {
                    held.push(one)?;
                }
                self.packs_read.fetch_add(1, Ordering::Relaxed);
            }
            Err(Problem::Missing) => self.with_damage(|damage| damage.add_missing_pack(&job.id))?,
            Err(Problem::Damaged(why)) => {
                self.with_damage(|damage| damage.add_unreadable_pack(&job.id, why))?;
            }
        }
        self.context.progress.advance(1, job.size);
        Ok(())
    }
}

/// What came of reading a pack.
struct Verdict {
    problem: Option<String>,
    /// Chunks that it does not hold although its directory says so.
    lost: Vec<ChunkPrefix>,
    /// Chunks of files that it does hold.
    held: Vec<[u8; HELD]>,
}

/// Reads a pack and judges it; reads it once more before calling it damaged.
fn verify(context: &Context<'_>, job: &Job) -> Result<Outcome<Verdict>> {
    let mut last = None;
    for _ in 0..2 {
        match attempt(|| read(context, job))? {
            Ok(bytes) => {
                let pool = context.repository.workers();
                let verdict = pool.install(|| judge(context.repository, job, &bytes))?;
                if verdict.problem.is_none() {
                    return Ok(Ok(verdict));
                }
                last = Some(verdict);
            }
            Err(problem) => return Ok(Err(problem)),
        }
    }
    last.map(Ok)
        .ok_or_else(|| EngineError::Internal("a pack was not judged".to_owned()))
}

/// Reads a pack, or as much of it as a pack may have.
fn read(context: &Context<'_>, job: &Job) -> Result<Bytes> {
    let name = names::pack(&job.id);
    match context.get(&name, PACK_BYTES) {
        Err(EngineError::Storage(error))
            if matches!(error.kind, ErrorKind::Oversized | ErrorKind::Truncated) =>
        {
            let size = context.repository.storage().size(&name)?;
            context.get_range(&name, 0, size.min(PACK_BYTES as u64))
        }
        other => other,
    }
}

fn judge(repository: &Repository, job: &Job, pack: &[u8]) -> Result<Verdict> {
    let open = || open_pack(repository.keyring(), &job.id, pack);
    let (opened, compared) = match &job.named {
        Some(named) => rayon::join(open, || compare(repository, pack, &named.directory)),
        None => {
            let opened = open();
            let compared = match &opened {
                Ok((_, directory)) => compare(repository, pack, directory),
                Err(_) => Ok(Compared::default()),
            };
            (opened, compared)
        }
    };
    let Compared { lost, held } = compared?;
    let mut problems = Vec::new();
    match (&opened, &job.named) {
        (Err(error), named) => {
            if let Some(named) = named
                && named.length != pack.len() as u64
            {
                let (is, should) = (pack.len(), named.length);
                problems.push(format!("it has {is} bytes instead of {should}"));
            } else {
                problems.push(error.to_string());
            }
        }
        (Ok((header, _)), _) if header.kind != job.kind => {
            problems.push("it is not of the kind that the index says".to_owned());
        }
        (Ok((_, directory)), Some(named)) if *directory != named.directory => {
            problems.push("its directory is not what the index says of it".to_owned());
        }
        _ => {}
    }
    if !lost.is_empty() {
        problems.push(match lost.len() {
            1 => "1 chunk cannot be read from it".to_owned(),
            count => format!("{count} chunks cannot be read from it"),
        });
    } else if !problems.is_empty() && job.named.is_some() {
        problems.push("all chunks can still be read from it".to_owned());
    }
    let problem = (!problems.is_empty()).then(|| problems.join("; "));
    Ok(Verdict {
        problem,
        lost,
        held,
    })
}

/// What came of opening blocks.
#[derive(Default)]
struct Compared {
    /// Chunks that are not there.
    lost: Vec<ChunkPrefix>,
    /// Chunks of files that are.
    held: Vec<[u8; HELD]>,
}

/// Opens every block that the directory lists, and compares the chunks in it with their ids.
fn compare(repository: &Repository, pack: &[u8], directory: &Directory) -> Result<Compared> {
    let blocks: Vec<_> = directory.blocks_with_offsets().collect();
    let header = Header::decode(pack).ok();
    let compared: Result<Vec<Compared>> = blocks
        .par_iter()
        .map_init(Decompressor::new, |decompressor, (offset, block)| {
            let decompressor = decompressor.as_mut().map_err(|error| error.clone())?;
            let start = *offset as usize;
            let sealed = pack
                .get(start..)
                .and_then(|rest| rest.get(..block.sealed_length as usize));
            let plaintext = sealed.and_then(|sealed| {
                let of_header = header.and_then(|header| {
                    let keyring = repository.keyring();
                    let key = &header.key_id;
                    open_block(keyring, key, block.chunk_type, sealed, decompressor).ok()
                });
                of_header
                    .or_else(|| open_any(repository, block.chunk_type, sealed, decompressor).ok())
            });
            Ok(compare_block(repository, block, plaintext.as_deref()))
        })
        .collect();
    let mut all = Compared::default();
    for mut one in compared? {
        all.lost.append(&mut one.lost);
        all.held.append(&mut one.held);
    }
    Ok(all)
}

/// Compares the chunks of a block with what its plaintext holds.
fn compare_block(
    repository: &Repository,
    block: &DirectoryBlock,
    plaintext: Option<&[u8]>,
) -> Compared {
    let mut rest = plaintext;
    let mut compared = Compared::default();
    for (prefix, length) in &block.chunks {
        let (chunk, after) = match rest.and_then(|rest| rest.split_at_checked(*length as usize)) {
            Some((chunk, after)) => (Some(chunk), Some(after)),
            None => (None, None),
        };
        rest = after;
        let id = chunk.map(|chunk| repository.keyring().chunk_id(block.chunk_type, chunk));
        match id.filter(|id| id.prefix() == *prefix) {
            Some(id) if block.chunk_type == ChunkType::Data => compared.held.push(id.0),
            Some(_) => {}
            None => compared.lost.push(*prefix),
        }
    }
    compared
}
