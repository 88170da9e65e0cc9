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

mod plan;
mod read;
mod run;
mod sources;
#[cfg(test)]
mod tests;
mod wide;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_format::block;
use larder_format::cell::{self, Cell, CellKind, Source};
use larder_format::ids::{ObjectId, SessionId};
use larder_format::session::Base;

use crate::cancel::Cancel;
use crate::carry::{Carried, carry};
use crate::clock;
use crate::error::{EngineError, Result};
use crate::packer::{Packer, PackerOptions};
use crate::progress::{Progress, Silent};
use crate::protocol::{Rule, keeps};
use crate::repository::Repository;
use crate::session::{self, Author, Opened, Outcome};
use crate::snapshots::{self, Statistics};
use crate::view::{self, View};

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
    /// When what there is so far is kept.
    pub checkpoints: CheckpointRhythm,
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
    /// Seconds that it took.
    pub seconds: f64,
}

/// Backs the sources up into one snapshot.
///
/// # Errors
/// `Request` for sources that do not exist or patterns that do not parse, `Unsupported` for a
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
    for _ in 0..RUNS_MAX {
        let sources = sources::prepare(repository, options, progress)?;
        let before = view::read_cells(repository, None)?;
        let previous = Previous::choose(&before, options, &sources)?;
        let mut writer = Writer::start(repository, options, previous, before, progress, cancel)?;
        match run(&mut writer, &sources) {
            Ok(snapshot) => return Ok(report(writer, snapshot, clock)),
            Err(error) => {
                // If the storage does not let it end, a collector will end the session.
                let _ = writer.end();
                if !writer.starts_over {
                    return Err(error);
                }
                progress.warning(
                    "a prune elsewhere deleted what this backup had read before it was committed; the sources are read again",
                );
            }
        }
    }
    Err(EngineError::Request(format!(
        "prunes elsewhere deleted what this backup had read {RUNS_MAX} times; run it again when they have ended"
    )))
}

/// Reads the sources and commits the snapshot; gives its id, if there is one.
fn run(writer: &mut Writer<'_>, sources: &[sources::Prepared]) -> Result<Option<String>> {
    let (options, progress, cancel) = (writer.options, writer.progress, writer.cancel);
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
    for source in sources {
        let tree = run::run_source(writer, source, options, progress, cancel)?;
        writer.trees.push(tree);
        writer.packer.end_blocks();
    }
    refuse_nothing(options, writer)?;
    if options.dry_run || (options.skip_if_unchanged && writer.is_unchanged()) {
        writer.end()?;
        return Ok(None);
    }
    let trees = writer.trees.clone();
    writer.commit(CellKind::Complete, &trees)?;
    Ok(Some(writer.opened.id.snapshot_name()))
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
        issues: writer.issues,
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

/// What a backup compares with.
#[derive(Default)]
struct Previous {
    /// The newest snapshot of the same host and sources.
    parent: Option<Cell>,
    /// The newest checkpoint of an unfinished run over the same, if it is newer.
    checkpoint: Option<Cell>,
}

impl Previous {
    fn choose(view: &View, options: &BackupOptions, sources: &[sources::Prepared]) -> Result<Self> {
        let paths: Vec<&[u8]> = sources
            .iter()
            .map(|source| source.name.as_slice())
            .collect();
        let same = |cell: &&Cell| {
            cell.host == options.host
                && cell
                    .sources
                    .iter()
                    .all(|source| paths.contains(&source.path.as_slice()))
        };
        let complete = |cell: &&Cell| cell.sources.len() == paths.len() && same(cell);
        let parent = match &options.parent {
            Some(latest) if latest == "latest" => {
                view.snapshots().max_by_key(|cell| cell.started).cloned()
            }
            Some(prefix) => Some(snapshots::by_prefix(view, prefix)?.clone()),
            None => view
                .snapshots()
                .filter(complete)
                .max_by_key(|cell| cell.started)
                .cloned(),
        };
        let checkpoint = view
            .cells
            .values()
            .filter(|cell| cell.kind == CellKind::Partial && !view.is_forgotten(&cell.id))
            .filter(|cell| !view.is_superseded(&cell.id))
            .filter(same)
            .filter(|cell| {
                parent
                    .as_ref()
                    .is_none_or(|parent| cell.ended > parent.ended)
            })
            .max_by_key(|cell| cell.ended)
            .cloned();
        Ok(Self { parent, checkpoint })
    }

    fn base(&self) -> Base {
        match (&self.checkpoint, &self.parent) {
            (Some(cell), _) => Base::Predecessor(cell.id),
            (None, Some(cell)) => Base::Parent(cell.id),
            (None, None) => Base::None,
        }
    }
}

/// One run's session, and what it has done so far.
struct Writer<'a> {
    repository: &'a Arc<Repository>,
    options: &'a BackupOptions,
    previous: Previous,
    opened: Opened,
    author: Author,
    /// The checkpoint that this run goes on from, its own or that of an earlier run.
    predecessor: Option<SessionId>,
    packer: Packer,
    /// When the run began, in nanoseconds since 1970: whatever changed since may be missing.
    read_from: i64,
    trees: Vec<Source>,
    statistics: Statistics,
    issues: Vec<SourceIssue>,
    issue_count: u64,
    /// When the last checkpoint was, by [`clock::uptime`].
    last_checkpoint: Duration,
    /// What came since then: entries, and bytes of content that were read.
    entries_since: u64,
    bytes_since: u64,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
    /// Whether the user knows that a collector ended a session of this run.
    is_revocation_told: bool,
    /// Whether what was read is lost, so that the run must start over from the source.
    starts_over: bool,
}

impl<'a> Writer<'a> {
    fn start(
        repository: &'a Arc<Repository>,
        options: &'a BackupOptions,
        previous: Previous,
        before: View,
        progress: &'a dyn Progress,
        cancel: &'a Cancel,
    ) -> Result<Self> {
        let read_from = session::now_ns();
        // What a session that failed uploaded counts for nobody.
        repository.index().drop_pending()?;
        let author = Author {
            host: options.host.clone(),
            user: options.user.clone(),
        };
        let opened = if options.dry_run {
            session::pretend(repository, before)?
        } else {
            session::open(repository, previous.base(), &author, before)?
        };
        let packer_options = PackerOptions {
            compression: match options.compression {
                Compression::Off => block::Compression::Stored,
                Compression::Auto => block::Compression::Level(3),
                Compression::Level(level) => block::Compression::Level(level),
            },
            solid: options.solid,
            dry_run: options.dry_run,
        };
        Ok(Self {
            repository,
            options,
            predecessor: previous.checkpoint.as_ref().map(|cell| cell.id),
            previous,
            packer: Packer::start(repository, opened.id, packer_options)?,
            opened,
            author,
            read_from,
            trees: Vec::new(),
            statistics: Statistics::default(),
            issues: Vec::new(),
            issue_count: 0,
            last_checkpoint: clock::uptime(),
            entries_since: 0,
            bytes_since: 0,
            progress,
            cancel,
            is_revocation_told: false,
            starts_over: false,
        })
    }

    /// Tells whether every tree is that of the parent.
    fn is_unchanged(&self) -> bool {
        let roots = |sources: &[Source]| -> Vec<_> {
            let pairs = sources
                .iter()
                .map(|source| (source.path.clone(), source.root));
            let mut pairs: Vec<_> = pairs.collect();
            pairs.sort();
            pairs
        };
        self.previous
            .parent
            .as_ref()
            .is_some_and(|parent| roots(&parent.sources) == roots(&self.trees))
    }

    /// Tells whether it is time for a checkpoint.
    fn is_checkpoint_due(&self) -> bool {
        if self.options.dry_run {
            return false;
        }
        let rhythm = &self.options.checkpoints;
        let since = clock::uptime().saturating_sub(self.last_checkpoint);
        self.entries_since >= rhythm.entries
            || self.bytes_since >= rhythm.bytes
            || since.as_secs() >= rhythm.seconds
    }

    /// Commits what there is as a partial snapshot and goes on under a successor.
    fn checkpoint(&mut self, trees: &[Source]) -> Result<()> {
        if self.options.dry_run {
            return Ok(());
        }
        self.commit(CellKind::Partial, trees)?;
        let cell = self.opened.id;
        self.predecessor = Some(cell);
        self.open(Base::Predecessor(cell))?;
        if self.opened.trusts_base || !keeps(Rule::LookUpAgain) {
            // What it committed counts by its segments from here on.
            self.repository.index().drop_pending()?;
        } else {
            self.repository.index().disown_pending()?;
            self.carry(trees, &Silent)?;
        }
        self.last_checkpoint = clock::uptime();
        (self.entries_since, self.bytes_since) = (0, 0);
        Ok(())
    }

    /// Commits what there is as a partial snapshot, and registers no successor.
    fn commit_partial(&mut self, trees: &[Source]) -> Result<()> {
        if self.options.dry_run {
            return Ok(());
        }
        self.commit(CellKind::Partial, trees)
    }

    /// Registers a further session of this run and reads the repository anew.
    fn open(&mut self, base: Base) -> Result<()> {
        let view = std::mem::take(&mut self.opened.view);
        self.opened = session::open(self.repository, base, &self.author, view)?;
        self.packer.succeed(self.opened.id)
    }

    /// Ends a session that commits nothing.
    fn end(&self) -> Result<()> {
        if self.options.dry_run {
            return Ok(());
        }
        let Opened { id, view, .. } = &self.opened;
        session::end(self.repository, id, &self.author, view)
    }

    /// Commits trees; where a collector ended the session they are carried under a new one.
    fn commit(&mut self, kind: CellKind, trees: &[Source]) -> Result<()> {
        for _ in 0..COMMITS_MAX {
            if self.commit_once(kind, trees)? == Outcome::Committed {
                return Ok(());
            }
            if !self.is_revocation_told {
                self.is_revocation_told = true;
                self.progress.warning(
                    "a prune elsewhere ended this backup's session; it goes on under a new one, and nothing is read again that need not be",
                );
            }
            let base = match (self.predecessor, &self.previous.parent) {
                (Some(cell), _) => Base::Predecessor(cell),
                (None, Some(cell)) => Base::Parent(cell.id),
                (None, None) => Base::None,
            };
            self.open(base)?;
            self.repository.index().disown_pending()?;
            match kind {
                CellKind::Complete => self.carry(trees, self.progress)?,
                _ => self.carry(trees, &Silent)?,
            }
        }
        Err(EngineError::Request(format!(
            "prunes elsewhere ended this backup's session {COMMITS_MAX} times; run it again when they have ended"
        )))
    }

    /// Looks up again what trees need, and puts in what is not usable any more.
    fn carry(&mut self, trees: &[Source], progress: &dyn Progress) -> Result<()> {
        let trusted = self.opened.trusted();
        let trusted = trusted.and_then(|id| self.opened.view.cells.get(&id));
        let (repository, cancel) = (self.repository, self.cancel);
        match carry(
            &mut self.packer,
            repository,
            trees,
            trusted,
            progress,
            cancel,
        )? {
            Carried::Whole => Ok(()),
            Carried::Gone => {
                self.starts_over = true;
                Err(EngineError::Request(
                    "a prune elsewhere deleted what this backup had read; run it again".to_owned(),
                ))
            }
        }
    }

    /// Uploads what is open and creates the cell.
    fn commit_once(&mut self, kind: CellKind, trees: &[Source]) -> Result<Outcome> {
        let mut segments: Vec<ObjectId> = self.packer.flush()?;
        segments.sort_unstable();
        let written = self.packer.written();
        let counted = &self.statistics;
        let started = self.options.time.map_or(self.read_from, |time| {
            i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
        });
        let mut tags = self.options.tags.clone();
        tags.sort();
        tags.dedup();
        let cell = Cell {
            kind,
            id: self.opened.id,
            predecessor: self.predecessor,
            parent: self.previous.parent.as_ref().map(|cell| cell.id),
            started,
            ended: session::now_ns(),
            host: self.options.host.clone(),
            user: self.options.user.clone(),
            tags,
            sources: trees.to_vec(),
            segments,
            statistics: cell::Statistics {
                files: counted.files,
                directories: counted.directories,
                others: counted.others,
                new: counted.new,
                changed: counted.changed,
                unchanged: counted.unchanged,
                unreadable: counted.unreadable,
                changed_while_read: counted.changed_while_read,
                read_bytes: counted.bytes_read,
                new_chunk_bytes: written.plain_bytes,
                stored_bytes: written.stored_bytes,
                new_chunks: written.chunks,
                ..cell::Statistics::default()
            },
            options: [(READ_FROM.to_owned(), self.read_from.to_string())].into(),
            program: session::PROGRAM.to_owned(),
            config: self.repository.config().number,
            seen_cells: session::seen_cells(&self.opened.view),
            seen_round: self.opened.view.collection.newest(),
        };
        let outcome = session::commit(self.repository, &cell, &self.opened.view.collection)?;
        self.packer.land()?;
        Ok(outcome)
    }

    /// Counts an issue and keeps the first of them.
    fn report(&mut self, issue: SourceIssue, progress: &dyn Progress) {
        let SourceIssue {
            path,
            operation,
            error,
        } = &issue;
        progress.warning(&format!("cannot {operation} {path}: {error}"));
        if self.issues.len() < ISSUES_MAX {
            self.issues.push(issue);
        }
    }
}

/// Times that a run commits because collectors end its sessions.
const COMMITS_MAX: usize = 8;
/// Times that a run starts over from its sources.
const RUNS_MAX: usize = 3;
/// Issues that a report keeps.
const ISSUES_MAX: usize = 1000;
/// The option of a cell that tells since when its source was read, in nanoseconds since 1970.
const READ_FROM: &str = "read-from";

/// Gives the time since which a snapshot's source was read.
pub(crate) fn read_from(cell: &Cell) -> i64 {
    let told = cell
        .options
        .get(READ_FROM)
        .and_then(|text| text.parse().ok());
    told.unwrap_or(cell.started).min(cell.ended)
}
