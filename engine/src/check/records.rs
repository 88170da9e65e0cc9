//! The objects with chosen names: what opens the repository, reserve, sessions, cells, amendments.

use std::collections::{BTreeMap, BTreeSet};

use larder_format::cell::{Cell, CellKind};
use larder_format::ids::{ObjectId, RunId, SessionId};
use larder_format::names::{self, Name};
use larder_format::object::{Header, Kind, verify_closing};
use larder_format::record::Record;
use larder_format::run::{Run, RunEnd};
use larder_format::session::{Amendment, Base, Session, SessionEnd};
use rayon::prelude::*;

use super::Severity;
use super::context::{Context, Outcome, Problem, attempt};
use super::findings::Damage;
use super::listing::Listing;
use crate::collection;
use crate::error::Result;
use crate::memory::Remembered;
use crate::protocol::is_committed;
use crate::view::{self, Unusable, View};

/// Largest reserve that is read.
const RESERVE_BYTES: usize = 1 << 30;

/// Checks all objects with chosen names; gives the cells and amendments that open.
pub(super) fn check(context: &Context<'_>, listing: &Listing, damage: &mut Damage) -> Result<View> {
    listing.openers.check(context, damage)?;
    check_reserve(context, listing, damage)?;
    let mut cells = Cells::default();
    cells.read_collection(context, damage)?;
    cells.read(context, listing)?;
    cells.read_amendments(context, listing, damage)?;
    cells.read_sessions(context, listing, damage)?;
    cells.recall(context);
    let mut read_later = || view::read_later(context.repository, &mut cells.view);
    read_later().or_else(|_| read_later())?;
    cells.report(damage);
    // Without the newest state nobody knows which cells must be there.
    if !cells.view.lacks_collection {
        cells.report_missing(context, damage)?;
    }
    check_rollback(context, &cells, damage);
    check_runs(context, listing, damage)?;
    cells.remember(context);
    Ok(cells.view)
}

fn check_reserve(context: &Context<'_>, listing: &Listing, damage: &mut Damage) -> Result<()> {
    if !listing.has_reserve {
        // A bundle is never written to.
        if context.repository.config().is_bundle() {
            return Ok(());
        }
        damage.add(
            Severity::Note,
            names::RESERVE,
            "there is none: on a full storage nothing can be given up to make room",
        );
        return Ok(());
    }
    let read = attempt(|| {
        let object = context.get(names::RESERVE, RESERVE_BYTES)?;
        Header::decode_kind(&object, Kind::Reserve)?;
        verify_closing(Kind::Reserve.word(), &object)?;
        Ok(())
    })?;
    if let Err(problem) = read {
        let problem = format!("{problem}; nothing is kept in it");
        damage.add(Severity::Harmless, names::RESERVE, problem);
    }
    Ok(())
}

/// Reads what runs of several shards left behind.
fn check_runs(context: &Context<'_>, listing: &Listing, damage: &mut Damage) -> Result<()> {
    let meaning = "no snapshot depends on it; shards of that run that are not finished need another run, and a prune clears it away";
    let runs: Vec<RunId> = listing.runs.iter().copied().collect();
    for (id, outcome) in read_all::<Run, _>(context, &runs, Name::Run)? {
        if let Err(Problem::Damaged(why)) = outcome {
            damage.add(
                Severity::Harmless,
                names::run(&id),
                format!("{why}; {meaning}"),
            );
        }
    }
    let ends: Vec<RunId> = listing.run_ends.iter().copied().collect();
    for (id, outcome) in read_all::<RunEnd, _>(context, &ends, Name::RunEnd)? {
        if let Err(Problem::Damaged(why)) = outcome {
            damage.add(
                Severity::Harmless,
                names::run_end(&id),
                format!("{why}; {meaning}"),
            );
        }
    }
    Ok(())
}

/// Reports a config that somebody worked under and that is not there.
fn check_rollback(context: &Context<'_>, cells: &Cells, damage: &mut Damage) {
    let newest = context.repository.config().number;
    if cells.newest_config > newest {
        damage.add(
            Severity::Harmless,
            names::config(cells.newest_config),
            "it is missing, although it was worked under: the repository went back to an older config, and keys that were removed may open it again",
        );
    }
    if cells.newest_round > cells.view.collection.newest() && !cells.view.lacks_collection {
        damage.add(
            Severity::Harmless,
            names::round(cells.newest_round),
            "neither it nor its state nor a later one is there, although one was seen: the collector records went back to older ones; do not prune before they are put back from a copy of the storage",
        );
    }
}

/// What is known of sessions and their outcomes.
#[derive(Default)]
struct Cells {
    view: View,
    /// Hash of each cell's object.
    hashes: BTreeMap<SessionId, ObjectId>,
    /// Cells that are there and do not open.
    unusable: BTreeMap<SessionId, Problem>,
    /// Cells that something says exist, and what says so.
    named: BTreeMap<SessionId, String>,
    /// Sessions that went on from a checkpoint, by the checkpoint.
    successors: BTreeMap<SessionId, Vec<SessionId>>,
    newest_config: u64,
    newest_round: u64,
}

impl Cells {
    /// Reads what collectors wrote; the cells were listed before.
    fn read_collection(&mut self, context: &Context<'_>, damage: &mut Damage) -> Result<()> {
        match attempt(|| collection::read(context.repository, None))? {
            Ok(collection) => {
                for id in &collection.state.live {
                    let by = format!("{} lists it", collection.state_name());
                    self.named.insert(*id, by);
                }
                self.view.collection = collection;
            }
            Err(problem) => {
                let problem = format!(
                    "collector records cannot be used: {problem}; nothing can be pruned or backed up until they are put back from a copy of the storage, and deleted snapshots may show again"
                );
                damage.add_suspect(names::COLLECTOR, problem);
                self.view.lacks_collection = true;
            }
        }
        Ok(())
    }

    fn is_dead(&self, id: &SessionId) -> bool {
        self.view.collection.is_dead(id, id.round())
    }

    fn read(&mut self, context: &Context<'_>, listing: &Listing) -> Result<()> {
        let listed = listing.cells.iter().copied();
        let ids: Vec<_> = listed.filter(|id| !self.is_dead(id)).collect();
        for (id, outcome) in read_all(context, &ids, Name::Cell)? {
            self.take(id, outcome);
        }
        Ok(())
    }

    fn take(&mut self, id: SessionId, outcome: Outcome<(Cell, ObjectId)>) {
        match outcome {
            Ok((cell, hash)) => {
                self.newest_config = self.newest_config.max(cell.config);
                if is_committed(cell.kind) {
                    let round = cell.seen_round.max(id.round());
                    self.newest_round = self.newest_round.max(round);
                }
                let before = cell.predecessor.iter().chain(&cell.parent);
                for seen in before.chain(&cell.seen_cells) {
                    let by = || format!("snapshot {} names it", id.snapshot_name());
                    self.named.entry(*seen).or_insert_with(by);
                }
                self.hashes.insert(id, hash);
                self.view.cells.insert(id, cell);
            }
            Err(problem) => drop(self.unusable.insert(id, problem)),
        }
    }

    fn read_amendments(
        &mut self,
        context: &Context<'_>,
        listing: &Listing,
        damage: &mut Damage,
    ) -> Result<()> {
        for (id, numbers) in &listing.amendments {
            if self.is_dead(id) {
                continue;
            }
            self.named
                .entry(*id)
                .or_insert_with(|| "an amendment names it".to_owned());
            let mut next = 1;
            for number in numbers {
                if *number != next {
                    let name = names::amendment(id, next);
                    let problem = "it is missing, although later amendments are there: a change of tags, a pin or a forget is lost";
                    let draft = damage.add(Severity::Harmless, name, problem);
                    damage.concerns(draft, id);
                }
                next = number.saturating_add(1);
            }
            let numbers: Vec<_> = numbers.iter().copied().collect();
            let name = |number| Name::Amendment(*id, number);
            for (number, outcome) in read_all::<Amendment, _>(context, &numbers, name)? {
                match outcome {
                    Ok((amendment, _)) => {
                        self.view.amendments.entry(*id).or_default().push(amendment);
                    }
                    Err(problem) => {
                        let name = names::amendment(id, number);
                        let problem =
                            format!("{problem}; a change of tags, a pin or a forget is lost");
                        let draft = damage.add(Severity::Harmless, name, problem);
                        damage.concerns(draft, id);
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads what sessions say of themselves, and compares it with their cells.
    fn read_sessions(
        &mut self,
        context: &Context<'_>,
        listing: &Listing,
        damage: &mut Damage,
    ) -> Result<()> {
        // A session that came after the listing is asked for by its name.
        let unlisted = listing.cells.difference(&listing.sessions);
        let ids = listing.sessions.iter().chain(unlisted).copied();
        // Those below the floor are nobody's any more, and may be gone.
        let floor = self.view.collection.floor();
        let ids: Vec<_> = ids.filter(|id| id.round() >= floor).collect();
        for (id, outcome) in read_all::<Session, _>(context, &ids, Name::Session)? {
            match outcome {
                Ok((session, _)) => {
                    self.newest_config = self.newest_config.max(session.config);
                    if let Base::Predecessor(before) = session.base {
                        self.successors.entry(before).or_default().push(id);
                    }
                    if let Some(base) = session.base.id() {
                        let by = || format!("the session {id} builds on it");
                        self.named.entry(base).or_insert_with(by);
                    }
                }
                Err(problem) => {
                    let problem = format!("{problem}; the snapshot itself does not need it");
                    let draft = damage.add(Severity::Harmless, names::session(&id), problem);
                    damage.concerns(draft, &id);
                }
            }
        }
        let ends = listing.ends.iter().copied();
        let ends: Vec<_> = ends.filter(|id| !self.is_dead(id)).collect();
        let mut ended = BTreeSet::new();
        for (id, outcome) in read_all::<SessionEnd, _>(context, &ends, Name::SessionEnd)? {
            ended.insert(id);
            self.named
                .entry(id)
                .or_insert_with(|| "its session says that it was finished".to_owned());
            self.check_end(id, outcome, damage);
        }
        for id in listing.cells.difference(&ended) {
            let is_revoked = |cell: &Cell| cell.kind == CellKind::Revoked;
            if id.round() < floor || self.view.cells.get(id).is_some_and(is_revoked) {
                continue;
            }
            let draft = damage.add(
                Severity::Note,
                names::session_end(id),
                "it is missing: the backup was killed right after its snapshot was made, or somebody took it away; the snapshot does not need it",
            );
            damage.concerns(draft, id);
        }
        Ok(())
    }

    fn check_end(
        &self,
        id: SessionId,
        outcome: Outcome<(SessionEnd, ObjectId)>,
        damage: &mut Damage,
    ) {
        match outcome {
            Ok((end, _)) if self.hashes.get(&id).is_some_and(|hash| *hash != end.cell) => {
                let problem = "it opens, but is not what its session committed: somebody with the keys replaced it";
                let draft = damage.add(Severity::Loss, names::cell(&id), problem);
                damage.concerns(draft, &id);
            }
            Ok(_) => {}
            Err(problem) => {
                let problem = format!("{problem}; the snapshot itself does not need it");
                let draft = damage.add(Severity::Harmless, names::session_end(&id), problem);
                damage.concerns(draft, &id);
            }
        }
    }

    /// Reports cells that are there and do not open.
    fn report(&mut self, damage: &mut Damage) {
        for (id, problem) in std::mem::take(&mut self.unusable) {
            self.lose(id, &problem.to_string(), damage);
        }
    }

    /// Takes in what this machine saw before, which need not be named by anything any more.
    fn recall(&mut self, context: &Context<'_>) {
        let seen = context.repository.memory().seen();
        self.newest_config = self.newest_config.max(seen.config);
        self.newest_round = self.newest_round.max(seen.round);
        for (_, id) in seen.cells {
            let by = || "this machine saw it".to_owned();
            self.named.entry(id).or_insert_with(by);
        }
    }

    /// Remembers what is there, if nothing is lost that was there before.
    fn remember(&self, context: &Context<'_>) {
        let memory = context.repository.memory();
        let config = context.repository.config().number;
        let is_known = !self.view.lacks_collection;
        if is_known && memory.seen().lost(config, &self.view).is_empty() {
            memory.note(&Remembered::of(config, &self.view));
        }
    }

    /// Reports cells that something says exist and that are not there.
    fn report_missing(&mut self, context: &Context<'_>, damage: &mut Damage) -> Result<()> {
        let unusable: BTreeSet<_> = self.view.unusable.iter().map(|one| &one.object).collect();
        let missing: Vec<_> = self
            .named
            .iter()
            .filter(|(id, _)| !self.view.cells.contains_key(id) && !self.is_dead(id))
            .filter(|(id, _)| !unusable.contains(&names::cell(id)))
            .map(|(id, by)| (*id, by.clone()))
            .collect();
        for (id, by) in missing {
            // It may have been committed after the listing.
            match context.record(&Name::Cell(id))? {
                Err(Problem::Missing) => {
                    let problem = format!("the snapshot was deleted: {by}, and it is not there");
                    self.lose(id, &problem, damage);
                }
                Err(problem) => self.lose(id, &problem.to_string(), damage),
                found @ Ok(_) => self.take(id, found),
            }
        }
        Ok(())
    }

    /// Tells whether a session that went on from a checkpoint committed, its cell lost or not.
    fn is_superseded(&self, id: &SessionId) -> bool {
        let mut successors = self.successors.get(id).into_iter().flatten();
        self.view.superseded().contains(id)
            || successors.any(|successor| self.named.contains_key(successor))
    }

    fn lose(&mut self, id: SessionId, why: &str, damage: &mut Damage) {
        let object = names::cell(&id);
        let draft = if self.view.is_forgotten(&id) {
            let problem = format!("{why}; it was forgotten, so nothing is lost");
            damage.add(Severity::Harmless, &object, problem)
        } else if self.is_superseded(&id) {
            let problem = format!("{why}; it was a checkpoint, and a later snapshot has all of it");
            damage.add(Severity::Harmless, &object, problem)
        } else {
            let problem = format!(
                "{why}; this snapshot cannot be restored, the others do not need it; put the object back from a copy of the storage if there is one"
            );
            damage.add(Severity::Loss, &object, problem)
        };
        damage.concerns(draft, &id);
        let why = why.to_owned();
        self.view.unusable.push(Unusable { object, why });
    }
}

/// A record with what it was asked by, and the hash of its object; or what is wrong with it.
type ReadRecord<I, R> = (I, Outcome<(R, ObjectId)>);

/// Reads many records at once.
fn read_all<R: Record + Send, I: Copy + Send + Sync>(
    context: &Context<'_>,
    ids: &[I],
    name: impl Fn(I) -> Name + Sync,
) -> Result<Vec<ReadRecord<I, R>>> {
    let read = |id: &I| Ok((*id, context.record(&name(*id))?));
    context
        .repository
        .workers()
        .install(|| ids.par_iter().map(read).collect())
}
