//! The writing side of a run: its sessions, checkpoints and commits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use larder_format::block;
use larder_format::cell::{self, Cell, CellKind, Source};
use larder_format::ids::{ObjectId, SessionId};
use larder_format::limits::OPTION_BYTES;
use larder_format::session::Base;

use crate::cancel::Cancel;
use crate::carry::{Carried, carry};
use crate::clock;
use crate::error::{EngineError, Result};
use crate::hooks::HookReport;
use crate::packer::{Packer, PackerOptions};
use crate::progress::{Progress, Silent};
use crate::protocol::{Rule, keeps};
use crate::repository::Repository;
use crate::session::{self, Author, Opened, Outcome};
use crate::snapshots::Statistics;
use crate::view::View;

use super::sources::READ_SOURCE;
use super::told::Passage;
use super::{BackupOptions, Compression, Previous, READ_FROM, SourceIssue};
use crate::snapshots::times::{self, SourceTimes};

/// Times that a run commits because collectors end its sessions.
const COMMITS_MAX: usize = 8;
/// Buckets of which a cell records how they were gone through, at most.
const BUCKETS_MAX: usize = 40;
/// Issues that a report keeps.
const ISSUES_MAX: usize = 1000;

/// One run's session, and what it has done so far.
pub(super) struct Writer<'a> {
    pub(super) repository: &'a Arc<Repository>,
    pub(super) options: &'a BackupOptions,
    pub(super) previous: Previous,
    pub(super) opened: Opened,
    pub(super) author: Author,
    /// The checkpoint that this run goes on from, its own or that of an earlier run.
    pub(super) predecessor: Option<SessionId>,
    pub(super) packer: Packer,
    /// When the run began, in nanoseconds since 1970: whatever changed since may be missing.
    pub(super) read_from: i64,
    pub(super) trees: Vec<Source>,
    /// When each source was read that was read whole.
    pub(super) times: Vec<SourceTimes>,
    /// How each bucket was gone through.
    pub(super) buckets: BTreeMap<Vec<u8>, Passage>,
    pub(super) statistics: Statistics,
    pub(super) issues: Vec<SourceIssue>,
    pub(super) issue_count: u64,
    /// Objects that would have to be thawed before they can be read.
    pub(super) cold: u64,
    /// Objects that were asked for their tags alone.
    pub(super) tags_asked: u64,
    /// What the hooks did that were run around sources.
    pub(super) hook_reports: Vec<HookReport>,
    /// When the last checkpoint was, by [`clock::uptime`].
    pub(super) last_checkpoint: Duration,
    /// What came since then: entries, and bytes of content that were read.
    pub(super) entries_since: u64,
    pub(super) bytes_since: u64,
    pub(super) progress: &'a dyn Progress,
    pub(super) cancel: &'a Cancel,
    /// Whether the user knows that a collector ended a session of this run.
    pub(super) is_revocation_told: bool,
    /// Whether what was read is lost, so that the run must start over from the source.
    pub(super) starts_over: bool,
}

impl<'a> Writer<'a> {
    pub(super) fn start(
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
            verify_blocks: options.verify_blocks,
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
            times: Vec::new(),
            buckets: BTreeMap::new(),
            statistics: Statistics::default(),
            issues: Vec::new(),
            issue_count: 0,
            cold: 0,
            tags_asked: 0,
            hook_reports: Vec::new(),
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
    pub(super) fn is_unchanged(&self) -> bool {
        // A part of a snapshot has not all of its parent.
        if self.previous.part.is_some() {
            return false;
        }
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

    /// Tells whether chunks were put in anew that earlier snapshots lack.
    pub(super) fn has_healed(&self) -> bool {
        self.is_unchanged() && self.packer.written().chunks > 0
    }

    /// Tells whether it is time for a checkpoint.
    pub(super) fn is_checkpoint_due(&self) -> bool {
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
    pub(super) fn checkpoint(&mut self, trees: &[Source]) -> Result<()> {
        if self.options.dry_run {
            return Ok(());
        }
        self.commit(CellKind::Partial, trees)?;
        let cell = self.opened.id;
        self.predecessor = Some(cell);
        self.open(Base::Predecessor(cell))?;
        let trusts_base = self.opened.trusted(self.repository).is_some();
        if trusts_base || !keeps(Rule::LookUpAgain) {
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
    pub(super) fn commit_partial(&mut self, trees: &[Source]) -> Result<()> {
        if self.options.dry_run {
            return Ok(());
        }
        self.commit(CellKind::Partial, trees)
    }

    /// Registers a further session of this run and reads the repository anew.
    pub(super) fn open(&mut self, base: Base) -> Result<()> {
        let view = std::mem::take(&mut self.opened.view);
        self.opened = session::open(self.repository, base, &self.author, view)?;
        self.packer.succeed(self.opened.id)
    }

    /// Ends a session that commits nothing.
    pub(super) fn end(&self) -> Result<()> {
        if self.options.dry_run {
            return Ok(());
        }
        let Opened { id, base, view, .. } = &self.opened;
        session::end(self.repository, id, *base, &self.author, view)
    }

    /// Gives the kind of the cell of a run that is finished.
    pub(super) fn kind(&self) -> CellKind {
        match self.previous.part {
            Some(_) => CellKind::Shard,
            None => CellKind::Complete,
        }
    }

    /// Commits trees; where a collector ended the session they are carried under a new one.
    pub(super) fn commit(&mut self, kind: CellKind, trees: &[Source]) -> Result<()> {
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
                CellKind::Partial => self.carry(trees, &Silent)?,
                _ => self.carry(trees, self.progress)?,
            }
        }
        Err(EngineError::Request(format!(
            "prunes elsewhere ended this backup's session {COMMITS_MAX} times; run it again when they have ended"
        )))
    }

    /// Looks up again what trees need, and puts in what is not usable any more.
    pub(super) fn carry(&mut self, trees: &[Source], progress: &dyn Progress) -> Result<()> {
        let trusted = self.opened.trusted(self.repository);
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
            Carried::Gone(why) => {
                self.starts_over = true;
                Err(EngineError::Request(format!(
                    "what this backup had read is not in the repository any more: {why}; run it again"
                )))
            }
        }
    }

    /// Uploads what is open and creates the cell.
    pub(super) fn commit_once(&mut self, kind: CellKind, trees: &[Source]) -> Result<Outcome> {
        let mut segments: Vec<ObjectId> = self.packer.flush()?;
        if kind != CellKind::Partial {
            self.packer.protect();
        }
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
            options: self.cell_options(),
            program: session::PROGRAM.to_owned(),
            config: self.repository.config().number,
            seen_cells: session::seen_cells(&self.opened.view),
            seen_round: self.opened.view.collection.newest(),
            shard: self.previous.part.as_ref().map(|part| part.shard.clone()),
        };
        let outcome = session::commit(self.repository, &cell, &self.opened.view.collection)?;
        self.packer.land()?;
        Ok(outcome)
    }

    /// Gives what a cell tells about how it was made.
    fn cell_options(&self) -> BTreeMap<String, String> {
        let mut options = times::record(&self.times);
        options.insert(READ_FROM.to_owned(), self.read_from.to_string());
        let buckets = self.buckets.iter().take(BUCKETS_MAX);
        let passages = buckets.map(|(source, passage)| passage.option(source));
        options.extend(passages.filter(|(name, _)| name.len() <= OPTION_BYTES));
        options
    }

    /// Gives the buckets that were gone through without their listings.
    pub(super) fn unlisted(&self) -> Vec<String> {
        let unlisted = self
            .buckets
            .iter()
            .filter(|(_, passage)| passage.unlisted > 0);
        unlisted
            .map(|(source, _)| String::from_utf8_lossy(source).into_owned())
            .collect()
    }

    /// Reports a source that is not there.
    pub(super) fn report_missing(&mut self, name: &[u8], why: &str) {
        let issue = SourceIssue {
            path: String::from_utf8_lossy(name).into_owned(),
            operation: READ_SOURCE.to_owned(),
            error: why.to_owned(),
        };
        self.report(issue, self.progress);
    }

    /// Counts an issue and keeps the first of them.
    pub(super) fn report(&mut self, issue: SourceIssue, progress: &dyn Progress) {
        self.issue_count += 1;
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
