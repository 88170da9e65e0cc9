//! One source from walk to tree: the threads and what passes between them.

use std::iter;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use larder_format::cell::Source;
use larder_format::entry::Entry;

use crate::budget::Budget;
use crate::cancel::Cancel;
use crate::chunker::ChunkBuffer;
use crate::chunks::ChunkReader;
use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::source::bucket::Object;
use crate::source::bucket::listing::{KeyRange, Listing};
use crate::source::bucket::ranges::{Ranges, begins_behind};
use crate::source::bucket::read::RangesAtOnce;
use crate::source::bucket::sorted::{MEMORY_BYTES, SortedListing};
use crate::source::change::ChangeRules;
use crate::source::item::Item;
use crate::source::select::Selection;
use crate::source::stat::WalkIssue;
use crate::source::walk::{Step, Walk, WalkOptions};
use crate::storage::bucket::{Answer, Ask, Bucket};

use super::feed::Feeder;
use super::keys::LeftOut;
use super::plan::{Given, Gone, Job, Planner, ReadJob};
use super::read::{ReadContext, Stopped, read_attributes, read_entry};
use super::read_object::read_tags;
use super::sources::{Place, Prepared};
use super::splits::splits;
use super::streamed::run_streamed;
use super::told::{Passage, Told};
use super::wide::Wide;
use super::{BackupOptions, ChangeBy, Writer};

/// Bytes between the source and sealed blocks: so many, and more for each worker, but not more
/// than so many.
pub(super) const BUDGET_BYTES: usize = 16 << 20;
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
/// Threads that read objects, at most; each holds a range of one.
const READERS_MAX: usize = 32;
/// Threads that list a bucket, at most.
const LISTERS_MAX: usize = 8;

/// Backs one source up into a tree, with checkpoints on the way.
pub(super) fn run_source(
    writer: &mut Writer<'_>,
    source: &Prepared,
    begun: Option<Begun>,
    options: &BackupOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Source> {
    if let Place::Stream(_) | Place::Database(_) = &source.place {
        return run_streamed(writer, source, progress, cancel);
    }
    let begun = begun.ok_or_else(|| EngineError::Internal("a source was not begun".to_owned()))?;
    let repository = writer.repository;
    let (items, bytes) = expected(writer, source);
    progress.phase("backing up", items, bytes);
    let rules = rules(options);
    let left_out = match &source.place {
        Place::Folder(..) | Place::Stream(_) | Place::Database(_) => None,
        Place::Bucket(_, left_out) => Some(Arc::clone(left_out)),
    };
    let previous = (&writer.previous, left_out);
    let mut planner = Planner::new(repository, previous, &source.name, rules, progress);
    if let Place::Bucket(bucket, _) = &source.place
        && options.buckets.check_tags
        && bucket.has_tags()
    {
        planner.values = Some(ChunkReader::new(repository)?);
    }
    let planner = Bounded {
        planner,
        bound: match &source.place {
            Place::Folder(..) | Place::Stream(_) | Place::Database(_) => None,
            Place::Bucket(bucket, _) => {
                Some((Arc::clone(bucket), options.buckets.allow_vanished_percent))
            }
        },
        name: String::from_utf8_lossy(&source.name).into_owned(),
    };
    let chunker = repository.chunker()?;
    let budget = Budget::new(budget_bytes(repository.workers().current_num_threads()));
    let wide = Wide::new(repository, &chunker);
    let ranges = RangesAtOnce::new(match &source.place {
        Place::Bucket(bucket, _) if !repository.is_in_order() => bucket.calls_at_once(),
        _ => 1,
    });
    let context = ReadContext {
        keyring: repository.keyring(),
        chunker: &chunker,
        wide: &wide,
        ranges: &ranges,
        budget: &budget,
        cancel,
    };
    let mut feeder = Feeder::new(repository, source, &context, progress, cancel)?;
    // Room for a whole batch, so that whoever plans it never waits for who waits for it.
    let (to_readers, reading) = bounded(match &source.place {
        Place::Folder(..) | Place::Stream(_) | Place::Database(_) => STEPS_AHEAD / BATCH_STEPS,
        Place::Bucket(..) => STEPS_AHEAD,
    });
    let (to_feeder, planned) = bounded(STEPS_AHEAD / BATCH_STEPS);
    let fed = AtomicBool::new(false);
    thread::scope(|scope| {
        if items.is_none()
            && progress.wants_totals()
            && let Place::Folder(path, selection) = &source.place
        {
            let options = walk_options(repository, options);
            scope.spawn(|| count_ahead(path, selection, options, progress, &fed));
        }
        for _ in 0..begun.readers() {
            let reading = reading.clone();
            let context = &context;
            scope.spawn(move || read_all(context, &reading));
        }
        drop(reading);
        let outcome = if repository.is_in_order() {
            feeder.feed(writer, &mut plan_here(planner, begun.steps(), to_readers))
        } else {
            begun.ahead().and_then(|ahead| {
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

/// Lists a bucket, in several places at once if the parent shows that it is large and where its keys lie.
fn listing(writer: &Writer<'_>, bucket: &Arc<dyn Bucket>, parent: &Source) -> Result<ObjectPages> {
    let threads = bucket.calls_at_once().min(LISTERS_MAX);
    let range = writer.previous.range();
    let range_keys = writer.options.buckets.range_keys;
    let is_worth_it = threads > 1 && parent.entries >= range_keys.saturating_mul(2);
    if !is_worth_it || writer.repository.is_in_order() {
        return whole(bucket, &range);
    }
    // Of a tree that cannot be read the planner will tell.
    let mut splits = splits(writer.repository, parent, range_keys).unwrap_or_default();
    splits.retain(|split| range.has(split) && range.last.as_ref() != Some(split));
    match splits.get(splits.len() / 2) {
        Some(middle) if begins_behind(bucket, middle)? => {
            Ok(Box::new(Ranges::begin(bucket, &range, &splits, threads)?))
        }
        _ => whole(bucket, &range),
    }
}

/// Lists a range page by page, or all of a bucket that cannot begin behind a key.
fn whole(bucket: &Arc<dyn Bucket>, range: &KeyRange) -> Result<ObjectPages> {
    let range = match &range.behind {
        Some(behind) if !begins_behind(bucket, behind)? => KeyRange {
            behind: None,
            last: range.last.clone(),
        },
        _ => range.clone(),
    };
    Ok(Box::new(Listing::of_range(bucket, range)))
}

/// Gives what tells that something changed.
pub(super) fn rules(options: &BackupOptions) -> (ChangeRules, ChangeBy) {
    let rules = ChangeRules {
        ignore_ctime: options.ignore_ctime,
        ignore_inode: options.ignore_inode,
        force: options.force,
    };
    (rules, options.buckets.change_by)
}

/// Begins a source, and asks for the first page of a bucket; a stream begins when it is read.
pub(super) fn begin(writer: &mut Writer<'_>, source: &Prepared) -> Result<Option<Begun>> {
    match &source.place {
        Place::Stream(_) | Place::Database(_) => Ok(None),
        Place::Folder(path, selection) => {
            let options = walk_options(writer.repository, writer.options);
            let walk = Walk::start(path, (**selection).clone(), options);
            let walk = walk.map_err(|issue| file_error(&issue))?;
            Ok(Some(Begun::Walk(Box::new(walk))))
        }
        Place::Bucket(bucket, left_out) => {
            let readers = bucket.calls_at_once().clamp(READERS, READERS_MAX);
            let pages = pages(writer, source, bucket, left_out)?;
            let range = writer.previous.range();
            let pages = Pages::begin(pages, Arc::clone(left_out), range)?;
            Ok(Some(Begun::Listing(pages, readers)))
        }
    }
}

/// Decides how a bucket is gone through, notes it, and begins.
fn pages(
    writer: &mut Writer<'_>,
    source: &Prepared,
    bucket: &Arc<dyn Bucket>,
    left_out: &LeftOut,
) -> Result<ObjectPages> {
    let told = writer.options.buckets.changed_keys.as_ref();
    let parent = writer.previous.parent.as_ref();
    let passage = Passage::decide(parent, &source.name, left_out.digits().to_owned(), told);
    let of_parent = parent.and_then(|cell| cell.sources.iter().find(|one| one.path == source.name));
    let pages: ObjectPages = match (told, of_parent) {
        (Some(told), Some(parent)) if passage.unlisted > 0 => {
            Box::new(Told::begin(writer.repository, bucket, parent, told)?)
        }
        _ if writer.options.buckets.sort_listing => {
            let folder = writer.repository.cache_dir();
            let sorted = SortedListing::new(bucket, folder, MEMORY_BYTES, writer.cancel);
            Box::new(sorted)
        }
        (_, Some(parent)) => listing(writer, bucket, parent)?,
        _ => whole(bucket, &writer.previous.range())?,
    };
    writer.buckets.insert(source.name.clone(), passage);
    Ok(pages)
}

/// A source that was begun.
pub(super) enum Begun {
    Walk(Box<Walk>),
    Listing(Pages, usize),
}

impl Begun {
    fn readers(&self) -> usize {
        match self {
            Self::Walk(_) => READERS,
            Self::Listing(_, readers) => *readers,
        }
    }

    /// Goes on as it is asked.
    fn steps(self) -> Box<dyn Iterator<Item = Given>> {
        match self {
            Self::Walk(walk) => Box::new(walk.map(Given::from)),
            Self::Listing(listing, _) => Box::new(listing.flat_map(objects)),
        }
    }

    /// Goes on in a thread of its own, ahead of who asks.
    fn ahead(self) -> Result<Box<dyn Iterator<Item = Given> + Send>> {
        let failed = |error| EngineError::Internal(format!("cannot start a thread: {error}"));
        match self {
            Self::Walk(walk) => {
                let ahead = walk.ahead(STEPS_AHEAD).map_err(failed)?;
                Ok(Box::new(ahead.map(Given::from)))
            }
            Self::Listing(listing, _) => {
                let (to_planner, pages) = bounded(1);
                let thread = thread::Builder::new().name("list".into());
                // It ends when nobody takes its pages.
                let send = move || {
                    for page in listing {
                        if to_planner.send(page).is_err() {
                            break;
                        }
                    }
                };
                thread.spawn(send).map_err(failed)?;
                Ok(Box::new(pages.into_iter().flat_map(objects)))
            }
        }
    }
}

/// The objects of a bucket in key order, by its listing or without it.
type ObjectPages = Box<dyn Iterator<Item = Result<Vec<Object>>> + Send>;

/// The objects of a bucket without those that are left out.
pub(super) struct Pages {
    first: Option<Result<Vec<Object>>>,
    rest: ObjectPages,
    left_out: Arc<LeftOut>,
    /// The keys that are meant; some buckets list others, too.
    range: KeyRange,
}

impl Pages {
    fn begin(mut pages: ObjectPages, left_out: Arc<LeftOut>, range: KeyRange) -> Result<Self> {
        Ok(Self {
            first: pages.next().transpose()?.map(Ok),
            rest: pages,
            left_out,
            range,
        })
    }
}

impl Iterator for Pages {
    type Item = Result<Vec<Object>>;

    fn next(&mut self) -> Option<Self::Item> {
        let page = self.first.take().or_else(|| self.rest.next())?;
        Some(page.map(|mut objects| {
            objects.retain(|object| {
                let Entry { key, size, .. } = &object.entry;
                self.range.has(key) && !self.left_out.has(key, *size)
            });
            objects
        }))
    }
}

fn objects(page: Result<Vec<Object>>) -> Vec<Given> {
    match page {
        Ok(objects) => {
            let items = objects.into_iter().map(Item::Object);
            items.map(|item| Given::Item(Box::new(item))).collect()
        }
        Err(error) => vec![Given::Failed(error)],
    }
}

/// A planner that does not believe that too much is gone.
struct Bounded<'a> {
    planner: Planner<'a>,
    /// The bucket, and how many percent of its objects may be gone.
    bound: Option<(Arc<dyn Bucket>, u8)>,
    name: String,
}

impl Bounded<'_> {
    /// Refuses a source that has too little of what its parent had, once everything was planned.
    fn end(&mut self) -> Result<()> {
        let Some((bucket, percent_max)) = self.bound.take() else {
            return Ok(());
        };
        let Some((gone, entries)) = self.planner.gone()? else {
            return Ok(());
        };
        let Gone { count, sample, .. } = gone;
        if u128::from(count) * 100 <= u128::from(entries) * u128::from(percent_max) {
            return Ok(());
        }
        let mut seen = Sample::default();
        for key in &sample {
            seen.look(bucket.as_ref(), key);
        }
        let advice = seen.advice();
        Err(EngineError::Request(format!(
            "{count} of the {entries} objects that the parent snapshot has of {} are gone, more than {percent_max} %; {advice}",
            self.name
        )))
    }
}

/// What a bucket says of some objects that its listing lacks.
#[derive(Default)]
struct Sample {
    there: u64,
    gone: u64,
    /// How many could not be asked for, and why the first one could not.
    unknown: u64,
    why: String,
}

impl Sample {
    fn look(&mut self, bucket: &dyn Bucket, key: &[u8]) {
        let ask = Ask {
            range: Some((0, 1)),
            if_match: None,
            version: None,
            bytes_max: 1,
        };
        match bucket.get(key, &ask) {
            Ok(Answer::Object(_) | Answer::Changed | Answer::Cold) => self.there += 1,
            Ok(Answer::Missing) => self.gone += 1,
            Err(error) => {
                if self.unknown == 0 {
                    self.why = error.to_string();
                }
                self.unknown += 1;
            }
        }
    }

    /// Says what to make of it.
    fn advice(&self) -> String {
        let Self {
            there,
            gone,
            unknown,
            why,
        } = self;
        let all = there + gone + unknown;
        let allow = "if that is right, allow more with --allow-vanished";
        match (there, gone, unknown) {
            (1.., _, _) => format!(
                "but {there} of {all} that were asked for are there: the bucket's listing cannot be relied on now"
            ),
            (0, _, 0) => format!("none of those that were asked for is there; {allow}"),
            (0, 0, _) => format!(
                "whether they really are is not known, since none of {all} could be asked for ({why}); see to it that they can be read, or {allow}"
            ),
            (0, _, _) => format!(
                "{gone} of {all} that were asked for are not there, and {unknown} could not be asked for ({why}); {allow}"
            ),
        }
    }
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
    path: &Path,
    selection: &Selection,
    options: WalkOptions,
    progress: &dyn Progress,
    stop: &AtomicBool,
) {
    let Ok(walk) = Walk::start(path, selection.clone(), options) else {
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
pub(super) fn expected(writer: &Writer<'_>, source: &Prepared) -> (Option<u64>, Option<u64>) {
    let parent = writer.previous.parent.as_ref();
    let found = parent.and_then(|cell| cell.sources.iter().find(|one| one.path == source.name));
    // Of a shard nobody knows better than that all are about as large.
    let part = writer.previous.part.as_ref();
    let shards = part.map_or(1, |part| part.shard.count.max(1));
    let share = |all: u64| all / shards;
    (
        found.map(|one| share(one.entries)),
        found.map(|one| share(one.bytes)),
    )
}

/// Plans every step and hands the jobs on in batches.
fn plan_all(
    mut planner: Bounded<'_>,
    mut steps: impl Iterator<Item = Given>,
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
    mut planner: Bounded<'a>,
    mut steps: impl Iterator<Item = Given> + 'a,
    to_readers: Sender<Vec<ReadJob>>,
) -> impl Iterator<Item = Vec<Result<Job>>> + 'a {
    iter::from_fn(move || plan_batch(&mut planner, &mut steps, &to_readers))
}

/// Plans the next steps, and hands what must be read to the readers before anybody waits for them.
fn plan_batch(
    planner: &mut Bounded<'_>,
    steps: &mut impl Iterator<Item = Given>,
    to_readers: &Sender<Vec<ReadJob>>,
) -> Option<Vec<Result<Job>>> {
    let (mut jobs, mut reads) = (Vec::new(), Vec::new());
    let mut bytes = 0_u64;
    while jobs.len() < BATCH_STEPS && bytes < BATCH_READ_BYTES {
        let Some(step) = steps.next() else {
            // Once: the next batch has nothing in it.
            if let Err(error) = planner.end() {
                jobs.push(Err(error));
            }
            break;
        };
        let before = reads.len();
        let job = planner.planner.plan(step, &mut reads);
        let added = reads.get(before..).unwrap_or_default().iter();
        bytes = added.fold(bytes, |sum, read| {
            sum.saturating_add(read.item.entry().size)
        });
        let has_failed = job.is_err();
        jobs.push(job);
        if has_failed {
            break;
        }
    }
    // An answer of a bucket is waited for, so each of its objects may go to another reader.
    let is_bucket = reads
        .iter()
        .any(|read| matches!(read.item, Item::Object(_)));
    let together = if is_bucket { 1 } else { BATCH_STEPS };
    let mut is_taken = true;
    while is_taken && !reads.is_empty() {
        let rest = reads.split_off(together.min(reads.len()));
        is_taken = to_readers.send(reads).is_ok();
        reads = rest;
    }
    (is_taken && !jobs.is_empty()).then_some(jobs)
}

fn read_all(context: &ReadContext<'_>, jobs: &Receiver<Vec<ReadJob>>) {
    let mut buffer = ChunkBuffer::new();
    for job in jobs.iter().flatten() {
        let mut emit = |piece| job.pieces.send(piece).map_err(|_| Stopped);
        if let Some(kept) = job.kept {
            let piece = match &job.item {
                Item::File(walked) => read_attributes(walked, kept.content),
                Item::Object(object) => read_tags(object, kept),
            };
            if emit(piece).is_err() {
                return;
            }
            continue;
        }
        if read_entry(context, &mut buffer, &job.item, job.ticket, &mut emit).is_err() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_of_a_sample_is_what_is_known_of_it() {
        let advice = |there, gone, unknown| {
            let why = "it is denied".to_owned();
            let sample = Sample {
                there,
                gone,
                unknown,
                why,
            };
            sample.advice()
        };
        assert!(advice(1, 9, 6).starts_with("but 1 of 16 that were asked for are there"));
        assert!(advice(0, 16, 0).starts_with("none of those that were asked for is there"));
        let told = advice(0, 0, 16);
        assert!(told.contains("not known, since none of 16 could be asked for (it is denied)"));
        let told = advice(0, 12, 4);
        assert!(told.starts_with("12 of 16 that were asked for are not there, and 4 could not"));
    }
}
