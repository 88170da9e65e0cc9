//! The session under which chunks are put in anew: it commits a checkpoint of nothing, whose segments count from
//! then on, and forgets it at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use larder_format::block::Compression;
use larder_format::cell::{Cell, CellKind, Statistics};
use larder_format::ids::{ObjectId, SessionId};
use larder_format::session::Base;

use super::rescue::{Losses, Rescue};
use super::{RepairOptions, RepairReport};
use crate::amend::{Wish, amend};
use crate::cancel::Cancel;
use crate::error::{EngineError, Result};
use crate::packer::{Packer, PackerOptions};
use crate::presence::Looks;
use crate::progress::Progress;
use crate::protocol;
use crate::prune::record_suspects;
use crate::repository::Repository;
use crate::salvage;
use crate::session::{self, Opened, Outcome};
use crate::view::{self, View};

/// Times that it is done because collectors end its sessions.
const COMMITS_MAX: usize = 8;

/// What is to be done.
pub(super) struct Work<'a> {
    pub repository: &'a Arc<Repository>,
    pub spare: Option<&'a Arc<Repository>>,
    pub options: &'a RepairOptions,
    /// Packs that are missing or damaged.
    pub damaged: &'a BTreeMap<ObjectId, String>,
    pub progress: &'a dyn Progress,
    pub cancel: &'a Cancel,
}

impl Work<'_> {
    /// Walks all snapshots; nothing is written unless something is to be put in.
    pub(super) fn run(&self, report: &mut RepairReport) -> Result<Losses> {
        let repository = self.repository;
        repository.index().drop_pending()?;
        repository.set_looks(Looks {
            wants_all: true,
            ..repository.looks()
        });
        let outcome = self.attempts(report);
        // What counted for this run alone must not be deduplicated against afterwards.
        repository.index().drop_pending()?;
        outcome
    }

    fn attempts(&self, report: &mut RepairReport) -> Result<Losses> {
        let view = view::read(self.repository, false, None)?;
        let mut opened = session::pretend(self.repository, view)?;
        let mut packer = self.packer(true)?;
        let losses = self.walk(&mut opened, &mut packer)?;
        let written = packer.written();
        (report.chunks, report.chunk_bytes) = (written.chunks, written.plain_bytes);
        drop(packer);
        if !self.options.apply {
            return Ok(losses);
        }
        self.forget_remains(&opened.view)?;
        // No backup builds on them from now on, and no prune takes a damaged copy of a chunk for as good as a
        // new one.
        self.record_suspects(report)?;
        if written.chunks == 0 {
            return Ok(losses);
        }
        let mut view = opened.view;
        let mut packer = self.packer(false)?;
        for _ in 0..COMMITS_MAX {
            let author = &self.options.author;
            let mut opened = session::open(self.repository, Base::None, author, view)?;
            packer.succeed(opened.id)?;
            let result = self.walk(&mut opened, &mut packer);
            let result = result.and_then(|losses| Ok((losses, packer.flush()?)));
            let (losses, segments) = match result {
                Ok(done) => done,
                Err(error) => {
                    // So that no prune waits for it; if that fails, one ends it.
                    let _ = session::end(
                        self.repository,
                        &opened.id,
                        Base::None,
                        author,
                        &opened.view,
                    );
                    return Err(error);
                }
            };
            packer.protect();
            let cell = self.cell(&opened, segments, &packer);
            if session::commit(self.repository, &cell, &opened.view.collection)?
                == Outcome::Committed
            {
                self.forget(&cell.id)?;
                let written = packer.written();
                (report.chunks, report.chunk_bytes) = (written.chunks, written.plain_bytes);
                return Ok(losses);
            }
            view = opened.view;
        }
        Err(EngineError::Request(format!(
            "prunes elsewhere ended this session {COMMITS_MAX} times; run it again when they have ended"
        )))
    }

    fn packer(&self, dry_run: bool) -> Result<Packer> {
        let options = PackerOptions {
            compression: Compression::Level(3),
            solid: true,
            verify_blocks: true,
            dry_run,
        };
        Packer::start(self.repository, SessionId::default(), options)
    }

    /// Puts in what the live snapshots of a reading need; packs that no segment names are read from and
    /// not relied on.
    fn walk(&self, opened: &mut Opened, packer: &mut Packer) -> Result<Losses> {
        let index = self.repository.index();
        self.repository.avoid(self.damaged.keys().copied())?;
        if !opened.view.unusable.is_empty() {
            salvage::feed_directories(self.repository, &mut opened.view)?;
        }
        index.disown_pending()?;
        let view = &opened.view;
        let live = view.live();
        let cells = view.cells.values().chain(&view.later);
        let is_meant = |cell: &&Cell| {
            protocol::is_committed(cell.kind)
                && (live.contains(&cell.id) || !view.cells.contains_key(&cell.id))
        };
        let rescue = Rescue::new(
            self.repository,
            self.spare,
            packer,
            self.progress,
            self.cancel,
        )?;
        rescue.run(cells.filter(is_meant))
    }

    fn record_suspects(&self, report: &mut RepairReport) -> Result<()> {
        let packs: BTreeSet<ObjectId> = self.damaged.keys().copied().collect();
        if packs.is_empty() {
            return Ok(());
        }
        match record_suspects(self.repository, &packs, self.progress, self.cancel) {
            Ok(new) => report.new_suspects = new,
            Err(EngineError::Interrupted) => return Err(EngineError::Interrupted),
            Err(error) => report.not_recorded = Some(error.to_string()),
        }
        Ok(())
    }

    fn cell(&self, opened: &Opened, mut segments: Vec<ObjectId>, packer: &Packer) -> Cell {
        segments.sort_unstable();
        let written = packer.written();
        let now = session::now_ns();
        let author = &self.options.author;
        Cell {
            kind: CellKind::Partial,
            id: opened.id,
            predecessor: None,
            parent: None,
            started: now,
            ended: now,
            host: author.host.clone(),
            user: author.user.clone(),
            tags: Vec::new(),
            sources: Vec::new(),
            segments,
            statistics: Statistics {
                new_chunk_bytes: written.plain_bytes,
                stored_bytes: written.stored_bytes,
                new_chunks: written.chunks,
                ..Statistics::default()
            },
            options: BTreeMap::new(),
            program: session::PROGRAM.to_owned(),
            config: self.repository.config().number,
            seen_cells: session::seen_cells(&opened.view),
            seen_round: opened.view.collection.newest(),
            shard: None,
        }
    }

    /// Forgets what a repair left that died before it could.
    fn forget_remains(&self, view: &View) -> Result<()> {
        let live = view.live();
        for cell in view.cells.values() {
            let is_remains = cell.kind == CellKind::Partial && cell.sources.is_empty();
            if is_remains && live.contains(&cell.id) {
                self.forget(&cell.id)?;
            }
        }
        Ok(())
    }

    /// Forgets the checkpoint; its segments go on counting.
    fn forget(&self, id: &SessionId) -> Result<()> {
        let mut view: View = view::read_cells(self.repository, None)?;
        if !view.cells.contains_key(id) {
            // A prune cleared it already.
            return Ok(());
        }
        amend(
            self.repository,
            &mut view,
            id,
            &Wish::Forget,
            &self.options.author,
        )
        .map(|_| ())
    }
}
