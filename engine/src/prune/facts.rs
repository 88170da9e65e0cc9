//! One reading of what the rules of SPEC.md §12 ask for: cells, collectors' records, sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use larder_format::cell::Cell;
use larder_format::ids::{ChunkPrefix, ObjectId, SessionId};
use larder_format::names::{self, Name};
use larder_format::session::Session;

use crate::collection::Collection;
use crate::error::{EngineError, Result};
use crate::mark;
use crate::protocol::{self, CellFacts, Newest, Rule, SessionFacts, keeps};
use crate::repository::Repository;
use crate::view::{self, View};

/// What one reading found: cells first, then collectors' records, then sessions.
pub(super) struct Facts {
    pub view: View,
    pub cells: Vec<CellFacts<SessionId, ObjectId>>,
    pub sessions: Vec<SessionFacts<SessionId>>,
    /// Sessions that may still commit.
    pub open: Vec<Open>,
    /// Bases of such sessions that lack what the newest state let go: nobody trusts them.
    lacking: BTreeSet<SessionId>,
}

/// A session that may still commit.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub id: SessionId,
    /// What it says of itself; nothing if it cannot be read.
    pub session: Option<Session>,
}

impl Facts {
    /// Reads all of it.
    pub(super) fn read(repository: &Arc<Repository>) -> Result<Self> {
        let early = if keeps(Rule::CellsFirst) {
            None
        } else {
            Some(list_sessions(repository)?)
        };
        let view = view::read(repository, false, None)?;
        if let Some(unusable) = view.unusable.first() {
            return Err(EngineError::Damaged {
                object: unusable.object.clone(),
                why: format!(
                    "{}; nothing is pruned while that cannot be read, for it may name what is needed",
                    unusable.why
                ),
            });
        }
        let listed = match early {
            Some(early) => early,
            None => list_sessions(repository)?,
        };
        let cells = view.facts();
        let unread = listed
            .iter()
            .map(|id| facts_of(id, None))
            .collect::<Vec<_>>();
        let open: Vec<Open> = protocol::open_sessions(&unread, &cells, &view.collection)
            .into_iter()
            .map(|session| read_session(repository, session.id))
            .collect::<Result<_>>()?;
        let mut bases: BTreeMap<SessionId, Option<SessionId>> = BTreeMap::new();
        for open in &open {
            let base = open.session.as_ref().and_then(|session| session.base.id());
            bases.insert(open.id, base);
        }
        let sessions = listed
            .iter()
            .map(|id| facts_of(id, bases.get(id).copied().flatten()))
            .collect();
        let mut facts = Self {
            view,
            cells,
            sessions,
            open,
            lacking: BTreeSet::new(),
        };
        facts.lacking = facts.find_lacking(repository)?;
        Ok(facts)
    }

    /// Finds the bases that lack what the newest state let go, among those that live no more.
    fn find_lacking(&self, repository: &Arc<Repository>) -> Result<BTreeSet<SessionId>> {
        let collection = self.collection();
        let mut lacking = BTreeSet::new();
        if collection.state.deleted.is_empty() {
            return Ok(lacking);
        }
        let live = self.live();
        let is_let_go = |prefix: &ChunkPrefix| -> Result<bool> {
            let places = repository.index().lookup(prefix)?;
            let packs: Vec<ObjectId> = places.iter().map(|place| place.pack).collect();
            Ok(collection.let_go(&packs))
        };
        for cell in self.roots() {
            if !live.contains(&cell.id) && mark::has(repository, cell, &is_let_go)? {
                lacking.insert(cell.id);
            }
        }
        Ok(lacking)
    }

    /// Takes snapshots to be forgotten that are not yet.
    pub(super) fn assume_forgotten(&mut self, ids: &BTreeSet<SessionId>) {
        for cell in self.cells.iter_mut().filter(|cell| ids.contains(&cell.id)) {
            cell.is_forgotten = true;
        }
    }

    pub(super) fn collection(&self) -> &Collection {
        &self.view.collection
    }

    /// Gives the cells whose chunks must stay.
    pub(super) fn roots(&self) -> Vec<&Cell> {
        let roots = protocol::roots(&self.cells, &self.sessions, self.collection());
        let roots = roots.difference(&self.lacking);
        let cells = roots.filter_map(|id| self.view.cells.get(id));
        cells.collect()
    }

    /// Gives the live cells.
    pub(super) fn live(&self) -> BTreeSet<SessionId> {
        protocol::live_cells(&self.cells, self.collection())
    }

    /// Gives the newest state and the round above it.
    pub(super) fn newest(&self) -> Newest {
        let collection = self.collection();
        Newest {
            state: collection.state.number,
            round: collection.round.as_ref().map(|round| round.number),
        }
    }
}

fn facts_of(id: &SessionId, base: Option<SessionId>) -> SessionFacts<SessionId> {
    SessionFacts {
        id: *id,
        number: id.round(),
        base,
    }
}

fn list_sessions(repository: &Repository) -> Result<BTreeSet<SessionId>> {
    let mut listed = BTreeSet::new();
    repository.storage().list(names::SESSIONS, &mut |object| {
        if let Some(Name::Session(id)) = names::parse(&object.name) {
            listed.insert(id);
        }
        Ok(())
    })?;
    Ok(listed)
}

fn read_session(repository: &Repository, id: SessionId) -> Result<Open> {
    let session = match view::read_record::<Session>(repository, &Name::Session(id)) {
        Ok(session) => Some(session),
        Err(EngineError::Damaged { object, why }) => {
            tracing::warn!("{object} cannot be used: {why}");
            None
        }
        Err(error) => return Err(error),
    };
    Ok(Open { id, session })
}
