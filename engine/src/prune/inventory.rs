//! One listing of everything, sorted by what each name means.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;

use larder_format::ids::{ObjectId, SessionId};
use larder_format::names::{self, Name};

use super::plan::{PackUse, Standing};
use crate::collection::Collection;
use crate::error::{EngineError, Result};
use crate::protocol::Doubt;
use crate::repository::Repository;

/// What is in the storage, beside what the index says of its packs.
#[derive(Default)]
pub(super) struct Inventory {
    pub packs: Packs,
    /// Packs that are missing, or have other sizes than segments say.
    pub damaged: BTreeSet<ObjectId>,
    /// Packs that are there and in no counting segment, with their sizes.
    pub unnamed: BTreeMap<ObjectId, u64>,
    /// Segments, with their sizes.
    pub segments: BTreeMap<ObjectId, u64>,
    pub sessions: BTreeSet<SessionId>,
    pub ends: BTreeSet<SessionId>,
    pub cells: BTreeSet<SessionId>,
    pub amendments: BTreeMap<SessionId, BTreeSet<u64>>,
    pub collector: BTreeSet<Name>,
    pub has_reserve: bool,
    pub has_ledger: bool,
    /// Runs of several shards, and their ends.
    pub runs: BTreeSet<Name>,
    pub has_parity: bool,
}

/// The packs of counting segments, by number.
#[derive(Default)]
pub(super) struct Packs {
    numbers: HashMap<ObjectId, usize>,
    rows: Vec<Row>,
}

/// What is known of one pack.
pub(super) struct Row {
    pub usage: PackUse,
    /// Bytes that it has by what segments say.
    said_bytes: u64,
    /// Whether the storage lists it.
    pub exists: bool,
    /// Plaintext bytes of the needed chunks that have no other place that is as good.
    pub sole: u64,
}

impl Row {
    /// Tells what there is to doubt about it; none for one that was deleted and is gone.
    pub(super) fn doubt(&self) -> Option<Doubt> {
        match (self.exists, self.usage.standing) {
            (true, Standing::Suspect) => Some(Doubt::Suspect),
            (true, _) => Some(Doubt::None),
            (false, Standing::Deleted) => None,
            (false, _) => Some(Doubt::Missing),
        }
    }
}

impl Packs {
    pub(super) fn number(&self, id: &ObjectId) -> Option<usize> {
        self.numbers.get(id).copied()
    }

    pub(super) fn get(&self, number: usize) -> Option<&Row> {
        self.rows.get(number)
    }

    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut Row> {
        self.rows.get_mut(number)
    }

    pub(super) fn find(&self, id: &ObjectId) -> Option<&Row> {
        self.get(self.number(id)?)
    }

    /// Gives the packs that exist, and those that should.
    pub(super) fn known(&self) -> impl Iterator<Item = &PackUse> {
        let rows = self.rows.iter();
        rows.filter(|row| row.exists || row.usage.standing == Standing::Missing)
            .map(|row| &row.usage)
    }

    /// Compares what segments say with what was listed; gives the packs that are not so.
    fn compare(&mut self) -> BTreeSet<ObjectId> {
        let mut damaged = BTreeSet::new();
        for row in &mut self.rows {
            let usage = &mut row.usage;
            let is_as_said = row.exists && usage.size == row.said_bytes;
            if is_as_said || usage.standing == Standing::Deleted {
                continue;
            }
            if !row.exists {
                usage.size = 0;
            }
            usage.standing = match usage.standing {
                Standing::Usable | Standing::Suspect if !row.exists => Standing::Missing,
                Standing::Usable => Standing::Suspect,
                standing => standing,
            };
            // What a round condemned may have gone with the state that ended it meanwhile.
            if usage.standing != Standing::Condemned {
                damaged.insert(usage.id);
            }
        }
        damaged
    }
}

impl Inventory {
    /// Lists everything; the index knows the counting segments already.
    ///
    /// # Errors
    /// `Unsupported` for an object that this version does not know: what it needs is not known either.
    pub(super) fn read(
        repository: &Repository,
        collection: &Collection,
        suspects: &BTreeSet<ObjectId>,
    ) -> Result<Self> {
        let mut inventory = Self::default();
        let standing = |id: &ObjectId| {
            let round = collection.round.as_ref();
            if collection.state.deleted.contains(id) {
                Standing::Deleted
            } else if round.is_some_and(|round| round.condemned.contains(id)) {
                Standing::Condemned
            } else if suspects.contains(id)
                || round.is_some_and(|round| round.suspects.contains(id))
            {
                Standing::Suspect
            } else {
                Standing::Usable
            }
        };
        let packs = &mut inventory.packs;
        repository.index().packs(&mut |pack| {
            packs.numbers.insert(pack.id, packs.rows.len());
            packs.rows.push(Row {
                usage: PackUse {
                    id: pack.id,
                    kind: pack.kind,
                    size: pack.size,
                    plain: 0,
                    kept: 0,
                    standing: standing(&pack.id),
                    is_fixed: false,
                },
                said_bytes: pack.size,
                exists: false,
                sole: 0,
            });
            ControlFlow::Continue(())
        })?;
        let mut foreign = None;
        repository.storage().list("", &mut |object| {
            match names::parse(&object.name) {
                Some(name) => inventory.take(name, object.size_bytes),
                None if names::is_passed_over(&object.name) => {}
                None => drop(foreign.get_or_insert(object.name)),
            }
            Ok(())
        })?;
        inventory.damaged = inventory.packs.compare();
        match foreign {
            None => Ok(inventory),
            Some(name) => Err(EngineError::Unsupported {
                location: repository.location().to_owned(),
                why: format!(
                    "nothing can be pruned, because it holds {name}, an object of a kind that this version does not know"
                ),
            }),
        }
    }

    fn take(&mut self, name: Name, size: u64) {
        match name {
            Name::Config(_) | Name::Slot(_) | Name::ConfigTwin(_) | Name::SlotTwin(_) => {}
            // What is left of a mirror that was promoted.
            Name::Manifest(_) => {}
            Name::Parity(_) => self.has_parity = true,
            Name::Ledger(_) => self.has_ledger = true,
            Name::Run(_) | Name::RunEnd(_) => drop(self.runs.insert(name)),
            Name::Session(id) => drop(self.sessions.insert(id)),
            Name::SessionEnd(id) => drop(self.ends.insert(id)),
            Name::Cell(id) => drop(self.cells.insert(id)),
            Name::Amendment(id, number) => {
                self.amendments.entry(id).or_default().insert(number);
            }
            Name::Segment(id) => drop(self.segments.insert(id, size)),
            Name::Round(_) | Name::State(_) => drop(self.collector.insert(name)),
            Name::Reserve => self.has_reserve = true,
            Name::Pack(id) => match self.packs.number(&id) {
                Some(number) => {
                    if let Some(row) = self.packs.get_mut(number) {
                        row.exists = true;
                        row.usage.size = size;
                    }
                }
                None => drop(self.unnamed.insert(id, size)),
            },
        }
    }

    /// Gives the size of a pack that is there.
    pub(super) fn size(&self, id: &ObjectId) -> Option<u64> {
        match self.packs.find(id) {
            Some(row) => row.exists.then_some(row.usage.size),
            None => self.unnamed.get(id).copied(),
        }
    }
}
