//! Restore into a bucket: the target's listing merged with the snapshot's tree.
//!
//! ```text
//! tree, in order ──┐
//!                  ├─► merge ──► writers (read, put)
//! listing ─────────┘      └────► deletions
//! ```

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use larder_format::attributes::decode_properties;
use larder_format::entry::{Attributes, Entry, EntryType};
use larder_format::ids::ChunkType;
use larder_format::tree::read::scan_prefix;

use crate::browse::Contents;
use crate::cancel::Cancel;
use crate::chunks::ChunkReader;
use crate::clock::now_s;
use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::session::Reading;
use crate::snapshots::{SnapshotInfo, narrowed};
use crate::source::bucket::Object;
use crate::source::bucket::listing::Listing;
use crate::source::bucket::sorted::{MEMORY_BYTES, SortedListing};
use crate::storage::bucket::{Bucket, CLASS, Properties, Upload, is_cold};
use crate::storage::error::{ErrorKind, Reason, StorageError};
use crate::sync::lock;
use crate::target::bucket::ObjectWriter;
use crate::view;

use super::roots::{self, Root};
use super::scan::LEFT_OUT;
use super::tally::{Tally, is_damage};
use super::{Overwrite, RestoreReport};

/// Threads that write, at most; each holds a part and some blocks.
const WRITERS_MAX: usize = 16;
/// How long ago an upload has to have begun before it is taken to have been given up.
const STALE_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Entries that a writer takes together, since neighbours share blocks; and their bytes.
const BATCH_ENTRIES: usize = 16;
const BATCH_BYTES: u64 = 1 << 20;

/// How a restore into a bucket is made.
#[derive(Debug, Clone)]
pub struct BucketRestoreOptions {
    /// The bucket to restore into.
    pub bucket: Arc<dyn Bucket>,
    /// What happens to objects that are there already; size and ETag tell whether one is right.
    pub overwrite: Overwrite,
    /// Removes what the snapshot does not have.
    pub delete: bool,
    /// Whether the bucket's listing comes in any order, and is sorted before it is compared with.
    pub sort_listing: bool,
    /// Writes nothing.
    pub dry_run: bool,
}

/// Restores a snapshot, or the part of it at or below `path`, into a bucket.
///
/// Files become objects, too; what has no content does not. Nothing is deleted once anything of the
/// tree could not be read.
///
/// # Errors
/// `NotFound` for a path that the snapshot does not have, or what storage and bucket answer. Single
/// objects that cannot be restored do not stop the others: they are in the report.
pub fn restore_into_bucket(
    repository: &Arc<Repository>,
    snapshot: &SnapshotInfo,
    path: Option<&[u8]>,
    options: &BucketRestoreOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<RestoreReport> {
    let clock = Instant::now();
    refuse_repository(repository, options)?;
    progress.phase("planning", None, None);
    let view = view::read(repository, true, None)?;
    let cell = view.cells.get(&snapshot.session).ok_or_else(|| {
        let id = &snapshot.id;
        EngineError::NotFound(format!("snapshot {id} is gone or cannot be read"))
    })?;
    let mut reader = ChunkReader::new(repository)?;
    let mut roots = roots::find(&narrowed(cell, snapshot), path, &mut reader)?;
    roots.sort_by(|one, two| one.place.cmp(&two.place));
    let _reading = match options.dry_run {
        true => None,
        false => Reading::start(repository, cell.id),
    };
    let entries = roots.iter().map(|root| root.tree.entries);
    let bytes = roots.iter().map(|root| root.tree.bytes);
    progress.phase(
        "restoring",
        path.is_none().then(|| entries.fold(0, u64::saturating_add)),
        path.is_none().then(|| bytes.fold(0, u64::saturating_add)),
    );
    let tally = Tally::new(progress);
    for gap in roots.iter().flat_map(|root| &root.lost) {
        tally.lost(&gap.from, LEFT_OUT, gap.entries.max(1));
    }
    let run = Run {
        deletes: options.delete && roots.iter().all(|root| root.lost.is_empty()),
        refuses_class: AtomicBool::new(false),
        stale: match options.dry_run {
            true => Stale::default(),
            false => Stale::find(options.bucket.as_ref()),
        },
        repository,
        options,
        progress,
        cancel,
        tally: &tally,
    };
    run.restore(&roots, &mut reader)?;
    tally.tell_cold();
    let mut report = tally.take();
    report.seconds = clock.elapsed().as_secs_f64();
    Ok(report)
}

/// Refuses to write among the repository's own objects.
fn refuse_repository(repository: &Repository, options: &BucketRestoreOptions) -> Result<()> {
    let target = options.bucket.describe();
    let own = repository.location();
    let within = |one: &str, two: &str| format!("{one}/").starts_with(&format!("{two}/"));
    let reaches = within(&target, own) || (options.delete && within(own, &target));
    match reaches {
        true => Err(EngineError::Request(format!(
            "the target {target} and the repository {own} lie within each other; choose another target"
        ))),
        false => Ok(()),
    }
}

/// An object that is to be written.
struct Job {
    key: Vec<u8>,
    entry: Entry,
    /// Whether the bucket has the classes of the one that was backed up.
    has_class: bool,
}

/// Uploads of some time ago that nobody ended, by key: a restore that was killed leaves one.
#[derive(Default)]
struct Stale(Mutex<BTreeMap<Vec<u8>, Vec<Upload>>>);

impl Stale {
    /// Looks for them; whoever may not list uploads goes without.
    fn find(bucket: &dyn Bucket) -> Self {
        let found = bucket.uploads().unwrap_or_else(|error| {
            tracing::debug!("uploads that were never ended are not looked for: {error}");
            Vec::new()
        });
        let now = jiff::Timestamp::from_second(now_s()).unwrap_or_default();
        let latest = now - STALE_AFTER;
        let mut stale: BTreeMap<Vec<u8>, Vec<Upload>> = BTreeMap::new();
        for open in found.into_iter().filter(|open| open.begun < latest) {
            stale.entry(open.key).or_default().push(open.upload);
        }
        Self(Mutex::new(stale))
    }

    /// Throws those of a key away, which is about to be written.
    fn abort(&self, bucket: &dyn Bucket, key: &[u8]) {
        for upload in lock(&self.0).remove(key).unwrap_or_default() {
            if let Err(error) = bucket.abort(key, &upload) {
                tracing::debug!("an upload that was never ended stays: {error}");
            }
        }
    }
}

struct Run<'a> {
    /// Whether what the snapshot does not have is removed.
    deletes: bool,
    /// Whether the bucket refused a storage class.
    refuses_class: AtomicBool,
    stale: Stale,
    repository: &'a Arc<Repository>,
    options: &'a BucketRestoreOptions,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
    tally: &'a Tally<'a>,
}

impl Run<'_> {
    fn restore(&self, roots: &[Root], reader: &mut ChunkReader) -> Result<()> {
        let writers = self.options.bucket.calls_at_once().clamp(1, WRITERS_MAX);
        let (to_writers, jobs) = bounded::<Vec<Job>>(writers);
        let failure = Mutex::new(None);
        let planned = thread::scope(|scope| {
            for _ in 0..writers {
                let (jobs, failure) = (jobs.clone(), &failure);
                scope.spawn(move || {
                    if let Err(error) = self.write_all(&jobs) {
                        lock(failure).get_or_insert(error);
                    }
                });
            }
            drop(jobs);
            self.plan(roots, reader, to_writers)
        });
        lock(&failure).take().map_or(planned, Err)
    }

    /// Goes through the snapshot and, where that matters, through what is there, in one order.
    fn plan(&self, roots: &[Root], reader: &mut ChunkReader, to: Sender<Vec<Job>>) -> Result<()> {
        let needs_listing = self.options.delete || self.options.overwrite != Overwrite::Always;
        let mut there = There::new(needs_listing.then(|| self.listing()))?;
        let (mut batch, mut bytes) = (Vec::new(), 0_u64);
        let mut folders = EmptyFolders::default();
        for root in roots {
            let has_class = has_classes_of(&root.path, &self.options.bucket.describe());
            for entry in scan_prefix(&mut *reader, &root.tree, &root.prefix)? {
                self.cancel.check()?;
                let entry = entry?;
                if root.single && entry.key != root.prefix {
                    break;
                }
                let rest = entry.key.strip_prefix(root.prefix.as_slice());
                let key = [root.place.as_slice(), rest.unwrap_or_default()].concat();
                folders.meet(&key, entry.kind == EntryType::Directory);
                let Some(found) = self.meet(&mut there, &key, &entry)? else {
                    continue;
                };
                if !self.is_wanted(&key, &entry, found.as_ref()) {
                    continue;
                }
                bytes = bytes.saturating_add(entry.size);
                batch.push(Job {
                    key,
                    entry,
                    has_class,
                });
                if batch.len() == BATCH_ENTRIES || bytes >= BATCH_BYTES {
                    bytes = 0;
                    if to.send(std::mem::take(&mut batch)).is_err() {
                        // All writers have failed, and said why.
                        return Ok(());
                    }
                }
            }
        }
        // Whoever does not take it has failed.
        let _ = to.send(batch);
        self.tell_empty(folders.end());
        while let Some(extra) = there.take_before(None)? {
            self.remove(&extra)?;
        }
        Ok(())
    }

    fn listing(&self) -> Pages {
        let bucket = &self.options.bucket;
        if !self.options.sort_listing {
            return Box::new(Listing::new(bucket));
        }
        let folder = self.repository.cache_dir();
        let sorted = SortedListing::new(bucket, folder, MEMORY_BYTES, self.cancel);
        Box::new(sorted)
    }

    /// Removes what is there before a key and not wanted, and gives what is there under it; nothing for
    /// what cannot be an object.
    fn meet(&self, there: &mut There, key: &[u8], entry: &Entry) -> Result<Option<Option<Object>>> {
        if entry.kind == EntryType::Directory {
            return Ok(None);
        }
        while let Some(extra) = there.take_before(Some(key))? {
            self.remove(&extra)?;
        }
        let found = there.take(key)?;
        if !entry.kind.has_content() {
            self.tally
                .refused(key, "a bucket holds nothing but objects with content");
            return Ok(None);
        }
        Ok(Some(found))
    }

    /// Says how many folders a bucket cannot hold, since nothing is in them.
    fn tell_empty(&self, folders: u64) {
        if folders > 0 {
            let folders = match folders {
                1 => "1 folder is".to_owned(),
                count => format!("{count} folders are"),
            };
            self.tally.warning(format!(
                "{folders} empty, and so not in the bucket, which has objects alone"
            ));
        }
    }

    fn is_wanted(&self, key: &[u8], entry: &Entry, found: Option<&Object>) -> bool {
        if entry.flags.unreadable && is_cold(&entry.class) {
            self.tally.cold();
            return false;
        }
        if entry.flags.unreadable {
            let why = "its content could not be read when it was backed up";
            self.tally.unread(key, why);
            return false;
        }
        let is_right = |object: &Object| match self.options.overwrite {
            Overwrite::Always => false,
            Overwrite::Never => true,
            Overwrite::IfChanged => {
                let there = &object.entry;
                there.size == entry.size && !entry.etag.is_empty() && there.etag == entry.etag
            }
        };
        if found.is_some_and(is_right) {
            self.tally.count(|report| report.unchanged += 1);
            self.progress.advance(1, entry.size);
            return false;
        }
        true
    }

    fn remove(&self, extra: &Object) -> Result<()> {
        if !self.deletes {
            return Ok(());
        }
        let key = &extra.entry.key;
        if !self.options.dry_run {
            match self.options.bucket.delete(key) {
                Err(error) if is_of_one_object(&error) => {
                    self.tally.issue(key, &error.to_string(), 1);
                    return Ok(());
                }
                outcome => outcome?,
            }
        }
        self.tally.count(|report| report.deleted += 1);
        Ok(())
    }

    fn write_all(&self, jobs: &Receiver<Vec<Job>>) -> Result<()> {
        let mut contents = Contents::new(self.repository)?;
        let mut values = ChunkReader::new(self.repository)?;
        for job in jobs.iter().flatten() {
            self.cancel.check()?;
            self.progress.current(&job.key);
            if !self.options.dry_run {
                match self.write(&job, &mut contents, &mut values) {
                    Ok(()) => {}
                    Err(EngineError::Storage(error)) if !is_of_one_object(&error) => {
                        return Err(EngineError::Storage(error));
                    }
                    Err(EngineError::Storage(error)) => {
                        self.tally.issue(&job.key, &error.to_string(), 1);
                        continue;
                    }
                    Err(error) if is_damage(&error) => {
                        self.tally.lost(&job.key, &error.to_string(), 1);
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            let size = job.entry.size;
            self.progress.advance(1, size);
            self.tally.count(|report| {
                report.files += 1;
                report.bytes += size;
            });
        }
        Ok(())
    }

    fn write(&self, job: &Job, contents: &mut Contents, values: &mut ChunkReader) -> Result<()> {
        let mut properties = properties(&job.entry, values)?;
        let class = &job.entry.class;
        let is_usable = job.has_class && !class.is_empty() && !is_cold(class);
        if is_usable && !self.refuses_class.load(Ordering::Relaxed) {
            properties.insert(CLASS.as_bytes().to_vec(), class.clone());
        }
        self.stale.abort(self.options.bucket.as_ref(), &job.key);
        match self.write_with(job, contents, &properties) {
            Err(EngineError::Storage(error)) if is_about_class(&error) => {
                if !self.refuses_class.swap(true, Ordering::Relaxed) {
                    let class = String::from_utf8_lossy(class);
                    self.tally.warning(format!(
                        "the bucket does not know the storage class {class} of an object; classes are left to the bucket from here on"
                    ));
                }
                properties.remove(CLASS.as_bytes());
                self.write_with(job, contents, &properties)
            }
            outcome => outcome,
        }
    }

    fn write_with(
        &self,
        job: &Job,
        contents: &mut Contents,
        properties: &Properties,
    ) -> Result<()> {
        let bucket = self.options.bucket.as_ref();
        let mut writer = ObjectWriter::new(bucket, &job.key, job.entry.size, properties);
        if let Err(error) = contents.content(&job.entry, &job.key, &mut writer) {
            return Err(writer.take_failure().map_or(error, EngineError::Storage));
        }
        Ok(writer.finish()?)
    }
}

/// Tells whether the classes of a source mean something to a target: both are of one kind.
fn has_classes_of(source: &[u8], target: &str) -> bool {
    let scheme = |text: &[u8]| {
        let end = text.iter().position(|byte| *byte == b':');
        end.and_then(|end| text.get(..end)).map(<[u8]>::to_vec)
    };
    scheme(source).is_some_and(|scheme_| Some(scheme_) == scheme(target.as_bytes()))
}

/// Tells whether a bucket refuses an object for its storage class alone.
fn is_about_class(error: &StorageError) -> bool {
    const CODES: [&str; 3] = [
        "InvalidStorageClass",
        "InvalidBlobTier",
        "AccessTierNotSupportedForAccountType",
    ];
    let text = error.to_string();
    error.kind == ErrorKind::Permanent && CODES.iter().any(|code| text.contains(code))
}

/// Counts the folders in which there is nothing, in the order of the keys.
#[derive(Default)]
struct EmptyFolders {
    count: u64,
    last: Option<Vec<u8>>,
}

impl EmptyFolders {
    fn meet(&mut self, key: &[u8], is_folder: bool) {
        if self.last.take().is_some_and(|last| !key.starts_with(&last)) {
            self.count += 1;
        }
        self.last = is_folder.then(|| key.to_vec());
    }

    fn end(self) -> u64 {
        self.count + u64::from(self.last.is_some())
    }
}

/// Reads what an object was stored with; files have nothing that a bucket could keep.
fn properties(entry: &Entry, values: &mut ChunkReader) -> Result<Properties> {
    let pairs = match &entry.attributes {
        _ if entry.kind != EntryType::Object => Vec::new(),
        Attributes::None => Vec::new(),
        Attributes::Inline(record) => decode_properties(record)?,
        Attributes::OutOfLine(id) => decode_properties(&values.read(ChunkType::Value, id)?)?,
    };
    Ok(pairs
        .into_iter()
        .map(|pair| (pair.name, pair.value))
        .collect())
}

/// Tells whether what a bucket answers says nothing about other objects.
fn is_of_one_object(error: &StorageError) -> bool {
    match error.kind {
        ErrorKind::Permanent => matches!(error.reason, Reason::Settings | Reason::Other),
        // What is there already may be kept from being overwritten.
        ErrorKind::Oversized | ErrorKind::AlreadyExists => true,
        _ => false,
    }
}

/// The pages of a listing.
type Pages = Box<dyn Iterator<Item = Result<Vec<Object>>>>;

/// What is in the target, in key order.
struct There {
    listing: Option<Pages>,
    page: std::vec::IntoIter<Object>,
    next: Option<Object>,
}

impl There {
    fn new(listing: Option<Pages>) -> Result<Self> {
        let mut there = Self {
            listing,
            page: Vec::new().into_iter(),
            next: None,
        };
        there.advance()?;
        Ok(there)
    }

    fn advance(&mut self) -> Result<Option<Object>> {
        let mut next = self.page.next();
        while next.is_none() {
            let Some(page) = self.listing.as_mut().and_then(Iterator::next) else {
                break;
            };
            self.page = page?.into_iter();
            next = self.page.next();
        }
        Ok(std::mem::replace(&mut self.next, next))
    }

    /// Takes the next object before a key, or the next one at all.
    fn take_before(&mut self, key: Option<&[u8]>) -> Result<Option<Object>> {
        let is_before = |object: &Object| key.is_none_or(|key| object.entry.key.as_slice() < key);
        match self.next.as_ref().is_some_and(is_before) {
            true => self.advance(),
            false => Ok(None),
        }
    }

    /// Takes the object of a key, if it is the next one.
    fn take(&mut self, key: &[u8]) -> Result<Option<Object>> {
        match self
            .next
            .as_ref()
            .is_some_and(|object| object.entry.key == key)
        {
            true => self.advance(),
            false => Ok(None),
        }
    }
}
