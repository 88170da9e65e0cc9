//! A session that makes one snapshot from what is in the repository.

use std::collections::BTreeMap;
use std::sync::Arc;

use larder_format::block::Compression;
use larder_format::cell::{Cell, CellKind, Source, Statistics};
use larder_format::ids::{SessionId, decode_hex, encode_hex};
use larder_format::session::Base;

use crate::cancel::Cancel;
use crate::error::{EngineError, Result};
use crate::packer::{Packer, PackerOptions};
use crate::presence::Looks;
use crate::repository::Repository;
use crate::session::{self, Author, Opened, Outcome};
use crate::view::View;

/// Times that a snapshot is made because collectors end its sessions.
const COMMITS_MAX: usize = 8;
/// The option that names the cell from which a cell was made (SPEC.md §11).
pub(crate) const COPY_OF: &str = "copy-of";

/// Gives the cell that a cell was made from, if it was not made from its source.
pub(crate) fn copied_from(cell: &Cell) -> Option<SessionId> {
    let mut id = SessionId::default();
    let text = cell.options.get(COPY_OF)?;
    decode_hex(text, &mut id.0).then_some(id)
}

/// Tells whether there is a copy of a cell.
pub(super) fn has_copy(view: &View, id: &SessionId) -> bool {
    let mut cells = view.cells.values();
    cells.any(|cell| copied_from(cell).as_ref() == Some(id))
}

/// Gives the cell that was made from the source, of which this one is perhaps a copy.
pub(super) fn first_of(cell: &Cell) -> SessionId {
    copied_from(cell).unwrap_or(cell.id)
}

/// What is to become of a session.
pub(super) enum Made {
    /// A snapshot of these trees.
    Trees(Vec<Source>),
    /// Nothing: there is such a snapshot already.
    Before(String),
    /// Nothing.
    Nothing,
}

/// A session that makes one snapshot from what is in the repository.
pub(super) struct Copy<'a> {
    pub(super) repository: &'a Arc<Repository>,
    author: &'a Author,
    dry_run: bool,
    cancel: &'a Cancel,
    pub(super) packer: Packer,
    pub(super) opened: Option<Opened>,
    /// Whether there is such a snapshot already.
    pub(super) has_twin: bool,
    /// Options that the snapshot gets besides those of the one that it is like.
    pub(super) options: BTreeMap<String, String>,
}

/// Makes trees under a session.
type Make<'m, 'a> = &'m mut dyn FnMut(&mut Copy<'a>, &mut Statistics) -> Result<Made>;

impl<'a> Copy<'a> {
    pub(super) fn start(
        repository: &'a Arc<Repository>,
        author: &'a Author,
        dry_run: bool,
        cancel: &'a Cancel,
    ) -> Result<Self> {
        repository.index().drop_pending()?;
        // Rare enough to look at every pack; once is enough for many snapshots.
        repository.set_looks(Looks {
            wants_all: true,
            ..repository.looks()
        });
        let options = PackerOptions {
            compression: Compression::Level(3),
            solid: true,
            verify_blocks: true,
            dry_run,
        };
        Ok(Self {
            repository,
            author,
            dry_run,
            cancel,
            packer: Packer::start(repository, SessionId::default(), options)?,
            opened: None,
            has_twin: false,
            options: BTreeMap::new(),
        })
    }

    /// Makes trees under a session whose base is `cell`, and commits them with its facts; anew
    /// under another session if a collector ended this one.
    pub(super) fn make(
        &mut self,
        cell: &Cell,
        before: View,
        make: Make<'_, 'a>,
    ) -> Result<Option<String>> {
        self.make_on(Base::Parent(cell.id), cell, before, make)
    }

    /// Does the same with the facts of a cell of another repository, which is no base here.
    pub(super) fn make_new(
        &mut self,
        cell: &Cell,
        before: View,
        make: Make<'_, 'a>,
    ) -> Result<Option<String>> {
        self.make_on(Base::None, cell, before, make)
    }

    fn make_on(
        &mut self,
        base: Base,
        cell: &Cell,
        before: View,
        make: Make<'_, 'a>,
    ) -> Result<Option<String>> {
        let mut view = before;
        for _ in 0..COMMITS_MAX {
            let opened = match self.dry_run {
                true => session::pretend(self.repository, view)?,
                false => session::open(self.repository, base, self.author, view)?,
            };
            self.repository.index().disown_pending()?;
            self.packer.succeed(opened.id)?;
            self.opened = Some(opened);
            let mut statistics = cell.statistics.clone();
            let trees = match make(self, &mut statistics)? {
                Made::Trees(trees) => trees,
                Made::Nothing => return Ok(None),
                Made::Before(name) => {
                    self.has_twin = true;
                    return Ok(Some(name));
                }
            };
            if self.dry_run {
                return Ok(None);
            }
            let (outcome, name) = self.commit(cell, trees, statistics)?;
            if outcome == Outcome::Committed {
                self.opened = None;
                return Ok(Some(name));
            }
            let opened = self.opened.take();
            view = opened.map(|opened| opened.view).unwrap_or_default();
        }
        Err(EngineError::Request(format!(
            "prunes elsewhere ended this session {COMMITS_MAX} times; run it again when they have ended"
        )))
    }

    /// Tells whether a snapshot was there when the session had registered: then it stays whole.
    pub(super) fn sees(&self, cell: &Cell) -> bool {
        let view = self.opened.as_ref().map(|opened| &opened.view);
        view.is_some_and(|view| view.cells.contains_key(&cell.id) && !view.is_forgotten(&cell.id))
    }

    fn commit(
        &mut self,
        like: &Cell,
        sources: Vec<Source>,
        statistics: Statistics,
    ) -> Result<(Outcome, String)> {
        self.cancel.check()?;
        let mut segments = self.packer.flush()?;
        self.packer.protect();
        segments.sort_unstable();
        let Some(opened) = &self.opened else {
            return Err(EngineError::Internal("a session is missing".to_owned()));
        };
        let written = self.packer.written();
        let mut options = like.options.clone();
        let is_new = opened.base == Base::None;
        match is_new {
            true => drop(options.remove(COPY_OF)),
            false => drop(options.insert(COPY_OF.to_owned(), encode_hex(&first_of(like).0))),
        }
        options.extend(self.options.clone());
        let cell = Cell {
            kind: CellKind::Complete,
            id: opened.id,
            predecessor: None,
            parent: (!is_new).then_some(like.id),
            sources,
            segments,
            statistics: Statistics {
                new_chunk_bytes: written.plain_bytes,
                stored_bytes: written.stored_bytes,
                new_chunks: written.chunks,
                ..statistics
            },
            options,
            program: session::PROGRAM.to_owned(),
            config: self.repository.config().number,
            seen_cells: session::seen_cells(&opened.view),
            seen_round: opened.view.collection.newest(),
            ..like.clone()
        };
        let outcome = session::commit(self.repository, &cell, &opened.view.collection)?;
        Ok((outcome, cell.id.snapshot_name()))
    }

    /// Ends a session that committed nothing.
    pub(super) fn finish(&mut self, made: Result<Option<String>>) -> Result<Option<String>> {
        if let (Some(opened), false) = (self.opened.take(), self.dry_run) {
            let ended = session::end(
                self.repository,
                &opened.id,
                opened.base,
                self.author,
                &opened.view,
            );
            if made.is_ok() {
                ended?;
            }
        }
        made
    }
}
