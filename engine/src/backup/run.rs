//! One source from walk to tree: the threads and what passes between them.

use std::iter;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use larder_format::cell::Source;

use crate::budget::Budget;
use crate::cancel::Cancel;
use crate::chunker::ChunkBuffer;
use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::source::change::ChangeRules;
use crate::source::stat::WalkIssue;
use crate::source::walk::{Step, Walk, WalkOptions};

use super::feed::Feeder;
use super::plan::{Job, Planner, ReadJob};
use super::read::{ReadContext, Stopped, read_attributes, read_entry};
use super::sources::Prepared;
use super::wide::Wide;
use super::{BackupOptions, Writer};

/// Bytes between the source and sealed blocks: so many, and more for each worker, but not more
/// than so many.
const BUDGET_BYTES: usize = 16 << 20;
const BUDGET_BYTES_PER_WORKER: usize = 8 << 20;
const BUDGET_BYTES_MAX: usize = 96 << 20;
/// Steps that the walk is ahead of the plan, and the plan of the feeder.
const STEPS_AHEAD: usize = 512;
/// Steps that change threads together: waking the other thread for each one costs more than a
/// small file does.
const BATCH_STEPS: usize = 32;
/// Bytes to be read at which a batch is full, so that other readers get the next one.
const BATCH_READ_BYTES: u64 = 256 << 10;
/// Threads that read files.
const READERS: usize = 4;

/// Backs one source up into a tree, with checkpoints on the way.
pub(super) fn run_source(
    writer: &mut Writer<'_>,
    source: &Prepared,
    options: &BackupOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Source> {
    let repository = writer.repository;
    let walk = Walk::start(
        &source.path,
        source.selection.clone(),
        walk_options(repository, options),
    )
    .map_err(|issue| file_error(&issue))?;
    let (items, bytes) = expected(writer, source);
    progress.phase("backing up", items, bytes);
    let rules = ChangeRules {
        ignore_ctime: options.ignore_ctime,
        ignore_inode: options.ignore_inode,
        force: options.force,
    };
    let planner = Planner::new(repository, &writer.previous, &source.name, rules, progress);
    let chunker = repository.chunker()?;
    let budget = Budget::new(budget_bytes(repository.workers().current_num_threads()));
    let wide = Wide::new(repository, &chunker);
    let context = ReadContext {
        keyring: repository.keyring(),
        chunker: &chunker,
        wide: &wide,
        budget: &budget,
        cancel,
    };
    let mut feeder = Feeder::new(repository, source, &context, progress, cancel)?;
    let (to_readers, reading) = bounded(STEPS_AHEAD / BATCH_STEPS);
    let (to_feeder, planned) = bounded(STEPS_AHEAD / BATCH_STEPS);
    let fed = AtomicBool::new(false);
    thread::scope(|scope| {
        if items.is_none() && progress.wants_totals() {
            scope.spawn(|| count_ahead(source, walk_options(repository, options), progress, &fed));
        }
        for _ in 0..READERS {
            let reading = reading.clone();
            let context = &context;
            scope.spawn(move || read_all(context, &reading));
        }
        drop(reading);
        let outcome = if repository.is_in_order() {
            feeder.feed(writer, &mut plan_here(planner, walk, to_readers))
        } else {
            walk.ahead(STEPS_AHEAD)
                .map_err(|error| EngineError::Internal(format!("cannot start a thread: {error}")))
                .and_then(|ahead| {
                    scope.spawn(move || plan_all(planner, ahead, &to_readers, &to_feeder));
                    feeder.feed(writer, &mut planned.iter())
                })
        };
        fed.store(true, Ordering::Relaxed);
        // Readers and planner end when nobody takes what they have.
        budget.stop();
        drop(planned);
        outcome.and_then(|()| feeder.finish(writer))
    })
}

fn budget_bytes(workers: usize) -> usize {
    BUDGET_BYTES
        .saturating_add(BUDGET_BYTES_PER_WORKER.saturating_mul(workers))
        .min(BUDGET_BYTES_MAX)
}

fn walk_options(repository: &Repository, options: &BackupOptions) -> WalkOptions {
    WalkOptions {
        atime: options.with_atime,
        read_special: options.read_special,
        scratch_folder: repository.cache_dir().to_path_buf(),
        ..WalkOptions::default()
    }
}

/// Walks the source ahead of the backup, for a first run whose totals nobody knows.
fn count_ahead(
    source: &Prepared,
    options: WalkOptions,
    progress: &dyn Progress,
    stop: &AtomicBool,
) {
    let Ok(walk) = Walk::start(&source.path, source.selection.clone(), options) else {
        return;
    };
    let (mut items, mut bytes) = (0, 0_u64);
    for step in walk {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        if let Step::Entry(walked) = step {
            items += 1;
            bytes = bytes.saturating_add(walked.entry.size);
        }
    }
    progress.total(items, bytes);
}

/// Guesses entries and bytes from the snapshot that is compared with.
fn expected(writer: &Writer<'_>, source: &Prepared) -> (Option<u64>, Option<u64>) {
    let parent = writer.previous.parent.as_ref();
    let found = parent.and_then(|cell| cell.sources.iter().find(|one| one.path == source.name));
    (found.map(|one| one.entries), found.map(|one| one.bytes))
}

/// Plans every step and hands the jobs on in batches.
fn plan_all(
    mut planner: Planner<'_>,
    mut steps: impl Iterator<Item = Step>,
    to_readers: &Sender<Vec<ReadJob>>,
    to_feeder: &Sender<Vec<Result<Job>>>,
) {
    while let Some(jobs) = plan_batch(&mut planner, &mut steps, to_readers) {
        if to_feeder.send(jobs).is_err() {
            return;
        }
    }
}

/// Plans on the feeder's thread: no batch before the one before it is done.
fn plan_here<'a>(
    mut planner: Planner<'a>,
    mut steps: impl Iterator<Item = Step> + 'a,
    to_readers: Sender<Vec<ReadJob>>,
) -> impl Iterator<Item = Vec<Result<Job>>> + 'a {
    iter::from_fn(move || plan_batch(&mut planner, &mut steps, &to_readers))
}

/// Plans the next steps, and hands what must be read to the readers before anybody waits for them.
fn plan_batch(
    planner: &mut Planner<'_>,
    steps: &mut impl Iterator<Item = Step>,
    to_readers: &Sender<Vec<ReadJob>>,
) -> Option<Vec<Result<Job>>> {
    let (mut jobs, mut reads) = (Vec::new(), Vec::new());
    let mut bytes = 0_u64;
    while jobs.len() < BATCH_STEPS && bytes < BATCH_READ_BYTES {
        let Some(step) = steps.next() else { break };
        let before = reads.len();
        let job = planner.plan(step, &mut reads);
        let added = reads.get(before..).unwrap_or_default().iter();
        bytes = added.fold(bytes, |sum, read| {
            sum.saturating_add(read.walked.entry.size)
        });
        let has_failed = job.is_err();
        jobs.push(job);
        if has_failed {
            break;
        }
    }
    let is_taken = reads.is_empty() || to_readers.send(reads).is_ok();
    (is_taken && !jobs.is_empty()).then_some(jobs)
}

fn read_all(context: &ReadContext<'_>, jobs: &Receiver<Vec<ReadJob>>) {
    let mut buffer = ChunkBuffer::new();
    for job in jobs.iter().flatten() {
        let mut emit = |piece| job.pieces.send(piece).map_err(|_| Stopped);
        if let Some(content) = job.kept {
            if emit(read_attributes(&job.walked, content)).is_err() {
                return;
            }
            continue;
        }
        if read_entry(context, &mut buffer, &job.walked, job.ticket, &mut emit).is_err() {
            return;
        }
    }
}

fn file_error(issue: &WalkIssue) -> EngineError {
    EngineError::File {
        operation: issue.operation,
        path: issue.path.clone(),
        source: std::io::Error::new(issue.error.kind(), issue.error.to_string()),
    }
}
