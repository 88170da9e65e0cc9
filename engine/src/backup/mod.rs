//! Backup: sources into a snapshot.
//!
//! One picture of a source's way through the threads:
//!
//! ```text
//! walk ──► plan (merge with the parent) ──► feed, in order ──► packer ──► storage
//!                    └──► readers (cut, hash) ──┘
//! ```
//!
//! A reader cuts and hashes by itself; for the stretches of a long file it asks the workers (`wide`).

mod feed;
mod hooks;
mod keys;
mod plan;
mod read;
mod read_object;
mod run;
mod sources;
mod splits;
mod streamed;
#[cfg(test)]
mod tests;
mod told;
mod wide;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use larder_format::cell::{Cell, CellKind};
use larder_format::names;
use larder_format::run::KeyRange;
use larder_format::session::Base;

use crate::cancel::Cancel;
use crate::error::{EngineError, Result};
use crate::hooks::HookReport;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::session;
use crate::shards::{self, Begun, Divided, Part, ShardOptions, ShardReport};
use crate::snapshots::times::SourceTimes;
use crate::snapshots::{self, Statistics};
use crate::storage::bucket::Bucket;
use crate::storage::error::Reason;
use crate::view::{self, View};
use hooks::SourceOutcome;
use sources::{Place, Prepared, Sources};
use writer::Writer;

pub(crate) use self::splits::splits;

pub use self::hooks::SourceHooks;
pub use crate::source::bucket::change::ChangeBy;
pub use crate::source::postgres::Server;
pub use crate::source::stream::{Origin, Stream};

/// What is left out of a backup.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// gitignore-style patterns of what is left out; `!` takes back.
    pub exclude: Vec<String>,
    /// The same, whatever the case.
    pub iexclude: Vec<String>,
    /// Files that hold such patterns, a line each.
    pub exclude_files: Vec<PathBuf>,
    /// Files that hold case-insensitive ones.
    pub iexclude_files: Vec<PathBuf>,
    /// Name of files that hold patterns for the folder they are in, e.g. `.larderignore`.
    pub ignore_file: Option<String>,
    /// Folders that hold a file of this name (`NAME` or `NAME:HEADER`) are left out but for themselves.
    pub exclude_if_present: Vec<String>,
    /// Folders with a valid CACHEDIR.TAG are left out.
    pub exclude_caches: bool,
    /// Files larger than this many bytes are left out.
    pub exclude_larger_than: Option<u64>,
    /// Other file systems are not entered.
    pub one_file_system: bool,
    /// Only these paths, as listed by `--files-from`; they replace the sources.
    pub only: Vec<PathBuf>,
}

/// The buckets of a backup, and how they are compared with the snapshot before.
#[derive(Debug, Clone)]
pub struct Buckets {
    /// The buckets; each is a source under the name by which it describes itself.
    pub sources: Vec<Arc<dyn Bucket>>,
    /// What tells that an object changed.
    pub change_by: ChangeBy,
    /// Whether objects that are the same are asked for their tags, whose changes no listing shows.
    pub check_tags: bool,
    /// How many percent of the parent's objects may be gone before the run fails.
    pub allow_vanished_percent: u8,
    /// Whether listings come in any order, and are sorted before anything is compared with them.
    pub sort_listing: bool,
    /// Keys that are listed one page after another; a bucket with more is listed in several places at once.
    pub range_keys: u64,
    /// Which keys of the one bucket may have changed; its listing tells if none.
    pub changed_keys: Option<ChangedKeys>,
}

/// Keys that somebody else saw change: nothing else of a bucket is looked at, the rest is as in the parent.
#[derive(Debug, Clone)]
pub struct ChangedKeys {
    /// A file of keys, notifications or an inventory; see [`feed::read`](crate::source::bucket::feed::read).
    pub file: PathBuf,
    /// Of so many snapshots in a row one lists the bucket whole.
    pub list_every: u64,
}

impl Default for Buckets {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            change_by: ChangeBy::default(),
            check_tags: false,
            allow_vanished_percent: 30,
            sort_listing: false,
            range_keys: 6000,
            changed_keys: None,
        }
    }
}

/// The streams and databases of a backup, and which source is read when.
#[derive(Debug, Clone, Default)]
pub struct Streams {
    /// The streams; each is a source that is one file.
    pub sources: Vec<Stream>,
    /// Servers of PostgreSQL, each with one database or all.
    pub databases: Vec<Server>,
    /// Names of sources of any kind, in the order in which they are read; those that are missing here
    /// follow in the order of their names.
    pub order: Vec<Vec<u8>>,
}

/// How data is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Off,
    /// zstd at level 3, stored where it does not pay.
    Auto,
    /// zstd at a level from 1 to 19.
    Level(i32),
}

/// How a backup is made.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// The sources, absolute paths.
    pub sources: Vec<PathBuf>,
    /// Buckets, besides the sources.
    pub buckets: Buckets,
    /// Streams, besides the sources, and the order of all.
    pub streams: Streams,
    /// What is left out.
    pub selection: Selection,
    /// Host name that the snapshot carries.
    pub host: String,
    /// User name that the snapshot carries.
    pub user: String,
    /// Tags.
    pub tags: Vec<String>,
    /// Time that the snapshot carries; now if none.
    pub time: Option<jiff::Timestamp>,
    /// Snapshot to compare with (id, prefix or `latest`); the newest of the same host and sources if none.
    pub parent: Option<String>,
    /// Reads every file, whatever the parent says.
    pub force: bool,
    /// Does not compare ctime.
    pub ignore_ctime: bool,
    /// Does not compare inodes.
    pub ignore_inode: bool,
    /// Keeps atime.
    pub with_atime: bool,
    /// Reads block devices and named pipes as files.
    pub read_special: bool,
    /// Makes no snapshot if nothing changed.
    pub skip_if_unchanged: bool,
    /// Writes nothing.
    pub dry_run: bool,
    /// How data is compressed.
    pub compression: Compression,
    /// Whether small chunks share blocks.
    pub solid: bool,
    /// Whether each block is opened and compared before it is uploaded.
    pub verify_blocks: bool,
    /// When what there is so far is kept.
    pub checkpoints: CheckpointRhythm,
    /// What is run around each source.
    pub hooks: SourceHooks,
    /// Which shard of a run it is; the whole bucket if none.
    pub shard: Option<ShardOptions>,
}

/// When a backup makes a checkpoint: as soon as one of these has come since the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointRhythm {
    /// Seconds.
    pub seconds: u64,
    /// Entries.
    pub entries: u64,
    /// Bytes of content that were read.
    pub bytes: u64,
}

impl CheckpointRhythm {
    /// A checkpoint whenever so many seconds have passed.
    #[must_use]
    pub const fn every_seconds(seconds: u64) -> Self {
        Self {
            seconds,
            entries: u64::MAX,
            bytes: u64::MAX,
        }
    }

    /// A checkpoint after so many entries, however long they take.
    #[must_use]
    pub const fn every_entries(entries: u64) -> Self {
        Self {
            seconds: u64::MAX,
            entries,
            bytes: u64::MAX,
        }
    }
}

/// Something of the source that could not be read.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SourceIssue {
    /// The path, lossy where it is not UTF-8.
    pub path: String,
    /// What was tried.
    pub operation: String,
    /// Why it failed.
    pub error: String,
}

/// What a backup did.
#[derive(Debug, Clone, serde::Serialize)]
pub struct BackupReport {
    /// The snapshot's id; none in a dry run, or if nothing changed and that was to be skipped.
    pub snapshot: Option<String>,
    /// The snapshot it was compared with.
    pub parent: Option<String>,
    /// The checkpoint from which it went on.
    pub resumed_from: Option<String>,
    /// Whether nothing at all differs from the parent.
    pub unchanged: bool,
    /// What was counted.
    pub statistics: Statistics,
    /// What could not be read: at most 1,000 of them.
    pub issues: Vec<SourceIssue>,
    /// All that could not be read.
    pub issue_count: u64,
    /// Objects in classes that have to be thawed first: the snapshot has their metadata alone.
    pub cold: u64,
    /// Objects that are the same and were asked for their tags.
    pub tags_asked: u64,
    /// Buckets of which only the keys were looked at that were told to have changed.
    pub unlisted: Vec<String>,
    /// What became of the shard, and of its run; the snapshot is that of the run, once it is joined.
    pub shard: Option<ShardReport>,
    /// What the hooks did that were run around sources; the command line tells of all hooks together.
    #[serde(skip)]
    pub hooks: Vec<HookReport>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// Backs the sources up into one snapshot.
///
/// # Errors
/// `File` if none of the sources is there, `Request` for patterns that do not parse, `Unsupported` for a
/// repository that needs a newer program, `Interrupted` after a checkpoint, or what the storage
/// answers.
pub fn backup(
    repository: &Arc<Repository>,
    options: &BackupOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<BackupReport> {
    let clock = Instant::now();
    repository.check_write()?;
    // Before anything is announced: a chunker that this program lacks.
    repository.chunker()?;
    refuse_time(options)?;
    if let Some(shard) = &options.shard {
        shards::refuse(options, shard)?;
    }
    for _ in 0..RUNS_MAX {
        repository.look_anew(options.force);
        let sources = sources::prepare(repository, options, progress)?;
        let before = view::read_cells(repository, None)?;
        let part = match begin_shard(repository, options, &sources, &before)? {
            Some(Begun::Over(shard)) => {
                let shard = shards::settle(repository, options, *shard, progress, cancel)?;
                return Ok(report_of_nothing(shard, clock));
            }
            Some(Begun::Range(part)) => Some(*part),
            None => None,
        };
        let previous = match &part {
            Some(part) => Previous::of_shard(&before, part),
            None => Previous::choose(&before, options, &sources)?,
        };
        let previous = Previous {
            part: part.clone(),
            ..previous
        };
        let mut writer = Writer::start(repository, options, previous, before, progress, cancel)?;
        match run(&mut writer, &sources) {
            Ok(snapshot) => {
                let mut report = report(writer, snapshot, clock);
                if let (Some(part), Some(told)) = (&part, &options.shard) {
                    let shard = ShardReport {
                        run: told.run.clone(),
                        number: told.number,
                        count: part.shard.count,
                        part: report.snapshot.take(),
                        ..ShardReport::default()
                    };
                    let shard = shards::settle(repository, options, shard, progress, cancel);
                    let shard = shard.map_err(|error| finished_but(told, &error))?;
                    report.snapshot = shard.joined.clone();
                    report.shard = Some(shard);
                    report.seconds = clock.elapsed().as_secs_f64();
                }
                return Ok(report);
            }
            Err(error) => {
                // If the storage does not let it end, a collector will end the session.
                let _ = writer.end();
                if !writer.starts_over {
                    return Err(error);
                }
                progress.warning(
                    "what this backup had read is gone again before it was committed, by a prune elsewhere or by damage; the sources are read again",
                );
            }
        }
    }
    Err(EngineError::Request(format!(
        "what this backup had read was gone again {RUNS_MAX} times before it was committed, by prunes elsewhere or by damage; run it again when they have ended, and see what `larder check` says"
    )))
}

/// Finds out what a shard has to do; nothing for a backup that is none.
fn begin_shard(
    repository: &Arc<Repository>,
    options: &BackupOptions,
    sources: &Sources,
    before: &View,
) -> Result<Option<Begun>> {
    let places = sources.there.iter().map(|source| &source.place);
    let mut buckets = places.filter_map(|place| match place {
        Place::Bucket(bucket, left_out) => Some((bucket, left_out)),
        _ => None,
    });
    let (Some(told), Some((bucket, left_out))) = (&options.shard, buckets.next()) else {
        return Ok(None);
    };
    let divided = Divided {
        bucket,
        left_out: left_out.digits(),
    };
    shards::begin(repository, options, told, &divided, before).map(Some)
}

/// Says of a shard that is finished why its run could not be joined.
fn finished_but(told: &ShardOptions, error: &EngineError) -> EngineError {
    if matches!(error, EngineError::Interrupted) {
        return EngineError::Interrupted;
    }
    let (number, run) = (told.number, &told.run);
    EngineError::Request(format!(
        "shard {number} is finished, but the run could not be joined: {error}; `larder snapshot join --run {run}` does it"
    ))
}

/// Reads the sources and commits the snapshot; gives its id, if there is one.
fn run(writer: &mut Writer<'_>, sources: &Sources) -> Result<Option<String>> {
    let (options, progress) = (writer.options, writer.progress);
    for unusable in &writer.opened.view.unusable {
        let (object, why) = (&unusable.object, &unusable.why);
        progress.warning(&format!(
            "{object} cannot be used: {why}; run `larder check`"
        ));
    }
    if !writer.opened.view.lost.is_empty() {
        progress.warning(&format!(
            "{}; run `larder check`",
            view::loss(&writer.opened.view.lost)
        ));
    }
    warn_of_damage(writer);
    for name in &sources.missing {
        writer.report_missing(name, "there is no such file or folder");
    }
    let mut missing = None;
    let is_one_of_many = sources.there.len() > 1;
    for source in &sources.there {
        if let Some(error) = run_hooked(writer, source, is_one_of_many)? {
            missing.get_or_insert(error);
        }
    }
    // One that is not there keeps no other from being backed up; but nothing at all is no snapshot.
    if let Some(error) = missing.filter(|_| writer.trees.is_empty()) {
        return Err(error);
    }
    // The order in which they were read shows in their times alone.
    writer.trees.sort_by(|one, two| one.path.cmp(&two.path));
    refuse_nothing(options, writer)?;
    let is_needless = options.skip_if_unchanged && writer.is_unchanged() && !writer.has_healed();
    if options.dry_run || is_needless {
        writer.end()?;
        return Ok(None);
    }
    let trees = writer.trees.clone();
    writer.commit(writer.kind(), &trees)?;
    Ok(Some(writer.opened.id.snapshot_name()))
}

/// Reads one source into a tree, with its hooks before and after; gives why it is missing, if it is.
fn run_hooked(
    writer: &mut Writer<'_>,
    source: &Prepared,
    is_one_of_many: bool,
) -> Result<Option<EngineError>> {
    if let Err(why) = hooks::before(writer, source) {
        writer.report_missing(&source.name, &why);
        let outcome = SourceOutcome::Failure(why.clone());
        if let Err(why) = hooks::after(writer, source, &outcome) {
            writer.progress.warning(&why);
        }
        return Ok(Some(EngineError::Request(why)));
    }
    let before = problems(writer);
    let result = run_one(writer, source, is_one_of_many);
    let outcome = match &result {
        Ok(None) if problems(writer) == before => SourceOutcome::Success,
        Ok(None) => SourceOutcome::Incomplete,
        Ok(Some(error)) | Err(error) => SourceOutcome::of(error),
    };
    // Of a run that goes on, what its hooks did is in its report.
    if let Err(why) = hooks::after(writer, source, &outcome)
        && result.is_err()
    {
        writer.progress.warning(&why);
    }
    result
}

/// Counts what the report says against the sources so far.
fn problems(writer: &Writer<'_>) -> u64 {
    writer.issue_count + writer.statistics.unreadable
}

/// Reads one source into a tree; gives why it is missing, if it is.
fn run_one(
    writer: &mut Writer<'_>,
    source: &Prepared,
    is_one_of_many: bool,
) -> Result<Option<EngineError>> {
    let (options, progress, cancel) = (writer.options, writer.progress, writer.cancel);
    let started = is_one_of_many.then(session::now_ns);
    let begun = match run::begin(writer, source) {
        Err(EngineError::Storage(error)) if error.reason == Reason::NoBucket => {
            writer.report_missing(&source.name, "there is no such bucket");
            return Ok(Some(EngineError::Storage(error)));
        }
        begun => begun?,
    };
    let tree = run::run_source(writer, source, begun, options, progress, cancel)?;
    writer.times.extend(started.map(|started| SourceTimes {
        source: source.name.clone(),
        started,
        ended: session::now_ns(),
    }));
    if tree.entries == 0 && matches!(source.place, Place::Bucket(..)) {
        let name = String::from_utf8_lossy(&source.name);
        progress.warning(&format!(
            "there is no object below {name}/; of a bucket all that begins with the prefix and a '/' is backed up"
        ));
    }
    writer.trees.push(tree);
    writer.packer.end_blocks();
    Ok(None)
}

/// Says that packs are not as the index says.
fn warn_of_damage(writer: &Writer<'_>) {
    let damaged = writer.repository.avoided();
    let Some(first) = damaged.first() else { return };
    let first = names::pack(first);
    let what = match damaged.len() {
        1 => format!("{first} is missing or has another size than it was written with"),
        count => format!(
            "{count} packs are missing or have other sizes than they were written with, e.g. {first}"
        ),
    };
    writer.progress.warning(&format!(
        "{what}; all files are compared with what is left, and what is missing of them is put in anew; `larder check` says what else suffers"
    ));
}

fn report(writer: Writer<'_>, snapshot: Option<String>, clock: Instant) -> BackupReport {
    let unchanged = writer.is_unchanged();
    let written = writer.packer.written();
    let mut statistics = writer.statistics;
    statistics.bytes = writer.trees.iter().map(|tree| tree.bytes).sum();
    statistics.bytes_added = written.plain_bytes;
    statistics.bytes_stored = written.stored_bytes;
    statistics.chunks_added = written.chunks;
    BackupReport {
        snapshot,
        parent: writer
            .previous
            .parent
            .as_ref()
            .map(|cell| cell.id.snapshot_name()),
        resumed_from: writer
            .previous
            .checkpoint
            .as_ref()
            .map(|cell| cell.id.snapshot_name()),
        unchanged,
        statistics,
        issue_count: writer.issue_count,
        cold: writer.cold,
        tags_asked: writer.tags_asked,
        unlisted: writer.unlisted(),
        shard: None,
        issues: writer.issues,
        hooks: writer.hook_reports,
        seconds: clock.elapsed().as_secs_f64(),
    }
}

/// Reports a shard for which there was nothing to do.
fn report_of_nothing(shard: ShardReport, clock: Instant) -> BackupReport {
    BackupReport {
        snapshot: shard.joined.clone(),
        parent: None,
        resumed_from: None,
        unchanged: false,
        statistics: Statistics::default(),
        issues: Vec::new(),
        issue_count: 0,
        cold: 0,
        tags_asked: 0,
        unlisted: Vec::new(),
        shard: Some(shard),
        hooks: Vec::new(),
        seconds: clock.elapsed().as_secs_f64(),
    }
}

/// Refuses a snapshot of a list of paths of which none is there.
fn refuse_nothing(options: &BackupOptions, writer: &Writer<'_>) -> Result<()> {
    let listed = options.selection.only.len() as u64;
    let counted = &writer.statistics;
    if listed == 0 || counted.files + counted.others > 0 || writer.issue_count < listed {
        return Ok(());
    }
    Err(EngineError::Request(format!(
        "none of the {listed} listed paths could be read, so no snapshot was made"
    )))
}

/// Refuses a time that a cell cannot hold: nanoseconds since 1970 in 64 bits.
fn refuse_time(options: &BackupOptions) -> Result<()> {
    match options.time {
        Some(time) if i64::try_from(time.as_nanosecond()).is_err() => {
            Err(EngineError::Request(format!(
                "a snapshot cannot have the time {time}; the first is in September 1677 and the last in April 2262"
            )))
        }
        _ => Ok(()),
    }
}

/// What a backup compares with.
#[derive(Default)]
struct Previous {
    /// The newest snapshot of the same host and sources.
    parent: Option<Cell>,
    /// The newest checkpoint of an unfinished run over the same, if it is newer.
    checkpoint: Option<Cell>,
    /// The range of keys that is backed up; all of them if none.
    part: Option<Part>,
}

impl Previous {
    fn choose(view: &View, options: &BackupOptions, sources: &Sources) -> Result<Self> {
        let paths: Vec<&[u8]> = sources.names().collect();
        let same = |cell: &&Cell| {
            cell.host == options.host
                && cell
                    .sources
                    .iter()
                    .all(|source| paths.contains(&source.path.as_slice()))
        };
        let ranks = snapshots::order::ranks(&view.cells);
        let rank = |cell: &&Cell| ranks.get(&cell.id).copied();
        let complete = |cell: &&Cell| cell.sources.len() == paths.len() && same(cell);
        let parent = match &options.parent {
            Some(latest) if latest == "latest" => view.snapshots().max_by_key(rank).cloned(),
            Some(prefix) => Some(snapshots::by_prefix(view, prefix)?.clone()),
            None => view.snapshots().filter(complete).max_by_key(rank).cloned(),
        };
        let live = view.live();
        let checkpoint = view
            .cells
            .values()
            .filter(|cell| cell.kind == CellKind::Partial && live.contains(&cell.id))
            .filter(|cell| cell.shard.is_none())
            .filter(same)
            .filter(|cell| {
                parent
                    .as_ref()
                    .is_none_or(|parent| cell.ended > parent.ended)
            })
            .max_by_key(|cell| cell.ended)
            .cloned();
        Ok(Self {
            parent,
            checkpoint,
            part: None,
        })
    }

    /// What a shard compares with: the parent of its run, and the newest checkpoint of its own.
    fn of_shard(view: &View, part: &Part) -> Self {
        let live = view.live();
        let own = |cell: &&Cell| {
            let is_own = cell.shard.as_ref() == Some(&part.shard);
            cell.kind == CellKind::Partial && is_own && live.contains(&cell.id)
        };
        let parent = part.parent.filter(|id| live.contains(id));
        let checkpoints = view.cells.values().filter(own);
        Self {
            parent: parent.and_then(|id| view.cells.get(&id)).cloned(),
            checkpoint: checkpoints.max_by_key(|cell| cell.ended).cloned(),
            part: None,
        }
    }

    /// Gives the range of keys that is backed up.
    fn range(&self) -> KeyRange {
        let part = self.part.as_ref();
        part.map(|part| part.shard.range.clone())
            .unwrap_or_default()
    }

    fn base(&self) -> Base {
        match (&self.checkpoint, &self.parent) {
            (Some(cell), _) => Base::Predecessor(cell.id),
            (None, Some(cell)) => Base::Parent(cell.id),
            (None, None) => Base::None,
        }
    }
}

/// Times that a run starts over from its sources.
const RUNS_MAX: usize = 3;
/// The option of a cell that tells since when its source was read, in nanoseconds since 1970.
pub(crate) const READ_FROM: &str = "read-from";

/// Gives the time since which a snapshot's source was read.
pub(crate) fn read_from(cell: &Cell) -> i64 {
    let told = cell
        .options
        .get(READ_FROM)
        .and_then(|text| text.parse().ok());
    told.unwrap_or(cell.started).min(cell.ended)
}
