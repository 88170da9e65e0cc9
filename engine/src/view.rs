//! The reading order (SPEC.md §12): what is in the repository, as of one listing.

use std::collections::{BTreeMap, BTreeSet};

use larder_format::cell::{Cell, CellKind};
use larder_format::error::FormatError;
use larder_format::ids::{ObjectId, SessionId};
use larder_format::limits::SEGMENT_BYTES;
use larder_format::names::{self, Name};
use larder_format::record::{Record, object_bytes_max, open_record};
use larder_format::segment::{Owner, Segment};
use larder_format::session::{Amendment, Change};

use crate::at_once;
use crate::collection::{self, Collection};
use crate::error::{EngineError, Result};
use crate::index::PackRecord;
use crate::memory::Remembered;
use crate::protocol::{self, CellFacts, Rule, keeps};
use crate::repository::Repository;
use crate::storage::error::ErrorKind;

/// Times that a reading is made because an object went away meanwhile.
const READINGS_MAX: usize = 4;
/// Cells and amendments that are in memory sealed at once.
const RECORDS_AT_ONCE: usize = 256;

/// An object that could not be used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// Its name in the storage.
    pub object: String,
    /// What is wrong with it.
    pub why: String,
}

/// The cells of a repository and what was amended.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// All cells that open and are not dead, revoked and forgotten ones among them.
    pub cells: BTreeMap<SessionId, Cell>,
    /// Amendments that open, in order, by the cell they change.
    pub amendments: BTreeMap<SessionId, Vec<Amendment>>,
    /// Cells that are listed and dead: they are no snapshots any more, and were not read.
    pub dead: BTreeSet<SessionId>,
    /// Cells that were committed while the others were listed: no part of this reading, but what is
    /// may need their packs.
    pub(crate) later: Vec<Cell>,
    /// What collectors wrote.
    pub collection: Collection,
    /// Cells, amendments, collector records and segments that are listed or named and could not
    /// be used.
    pub unusable: Vec<Unusable>,
    /// Whether what collectors wrote cannot be read, so that `collection` is empty for want of it.
    pub lacks_collection: bool,
    /// What this machine saw in the repository before and is not there any more, though no prune
    /// may have taken it.
    pub lost: Vec<String>,
}

impl View {
    /// Tells whether a snapshot was forgotten.
    #[must_use]
    pub fn is_forgotten(&self, id: &SessionId) -> bool {
        self.amendments
            .get(id)
            .is_some_and(|list| list.iter().any(|one| one.change == Change::Forget))
    }

    /// Tells whether a cell is there, or may be gone.
    pub(crate) fn has_cell(&self, id: &SessionId) -> bool {
        let name = names::cell(id);
        self.cells.contains_key(id)
            || self.is_dead(id)
            || self.unusable.iter().any(|one| one.object == name)
    }

    fn amendment(&self, id: &SessionId, number: u64) -> Option<&Amendment> {
        let mut list = self.amendments.get(id).into_iter().flatten();
        list.find(|one| one.number == number)
    }

    /// Tells whether a snapshot is kept from being forgotten.
    #[must_use]
    pub fn is_pinned(&self, id: &SessionId) -> bool {
        let changes = self.amendments.get(id).into_iter().flatten();
        changes.fold(false, |pinned, one| match one.change {
            Change::Pin => true,
            Change::Unpin => false,
            _ => pinned,
        })
    }

    /// Gives a snapshot's tags as they are now.
    #[must_use]
    pub fn tags<'a>(&'a self, cell: &'a Cell) -> &'a [String] {
        let changes = self.amendments.get(&cell.id).into_iter().flatten();
        changes.fold(cell.tags.as_slice(), |tags, one| match &one.change {
            Change::SetTags(new) => new,
            _ => tags,
        })
    }

    /// Gives the checkpoints that a committed cell goes on from.
    #[must_use]
    pub fn superseded(&self) -> BTreeSet<SessionId> {
        protocol::superseded(&self.facts(), &self.collection)
    }

    /// Gives the cells that a person calls snapshots: complete, and not forgotten.
    pub fn snapshots(&self) -> impl Iterator<Item = &Cell> {
        self.cells
            .values()
            .filter(|cell| cell.kind == CellKind::Complete && !self.is_forgotten(&cell.id))
    }

    /// Gives what the rules of the protocol need to know of each cell that is not dead.
    #[must_use]
    pub fn facts(&self) -> Vec<CellFacts<SessionId, ObjectId>> {
        let facts = self.cells.values().map(|cell| CellFacts {
            id: cell.id,
            number: cell.id.round(),
            kind: cell.kind,
            predecessor: cell.predecessor,
            is_forgotten: self.is_forgotten(&cell.id),
            segments: cell.segments.clone(),
        });
        facts.collect()
    }

    /// Gives the live cells.
    #[must_use]
    pub fn live(&self) -> BTreeSet<SessionId> {
        protocol::live_cells(&self.facts(), &self.collection)
    }

    /// Gives the segments that count.
    #[must_use]
    pub fn segments(&self) -> BTreeSet<ObjectId> {
        self.collection.counting_segments(&self.facts())
    }

    /// Tells whether a segment that counts cannot be read.
    pub(crate) fn lacks_segments(&self) -> bool {
        let mut unusable = self.unusable.iter();
        unusable.any(|one| one.object.starts_with(names::SEGMENTS))
    }

    /// Tells whether a cell is gone or unusable that another one had seen, and may build on.
    fn lacks_cells(&self) -> bool {
        self.cells.values().any(|cell| {
            let before = cell.predecessor.iter().chain(&cell.parent);
            let mut named = before.chain(&cell.seen_cells);
            named.any(|id| !self.cells.contains_key(id) && !self.is_dead(id))
        })
    }

    fn is_dead(&self, id: &SessionId) -> bool {
        self.collection.is_dead(id, id.round())
    }

    /// Gives who may have brought each segment that counts.
    pub(crate) fn owners(&self) -> BTreeMap<ObjectId, BTreeSet<Claim>> {
        let mut owners: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        let floor = self.collection.floor();
        for id in &self.collection.state.segments {
            owners.entry(*id).or_default().insert(Claim::Below(floor));
        }
        if let Some(round) = &self.collection.round {
            for id in &round.new {
                let claim = Claim::Round(round.number);
                owners.entry(*id).or_default().insert(claim);
            }
        }
        let committed = self.cells.values().chain(&self.later);
        for cell in committed.filter(|cell| protocol::is_committed(cell.kind)) {
            for id in &cell.segments {
                // A cell below the floor is live because the state says so, and so are its segments.
                if cell.id.round() >= floor {
                    let claim = Claim::Session(cell.id);
                    owners.entry(*id).or_default().insert(claim);
                }
            }
        }
        owners
    }
}

impl View {
    /// Tells whether only cells that came after the others name a segment.
    fn is_later(&self, claims: &BTreeSet<Claim>) -> bool {
        let is_later =
            |claim: &Claim| matches!(claim, Claim::Session(id) if !self.cells.contains_key(id));
        claims.iter().all(is_later) && !claims.is_empty()
    }
}

/// Who must have brought a segment for it to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Claim {
    /// The session whose cell names it.
    Session(SessionId),
    /// The round that names it as new.
    Round(u64),
    /// A session numbered below the state that names it, or a round that is not above it.
    Below(u64),
}

impl Claim {
    /// Tells whether what a segment says of its owner agrees with who names it.
    pub(crate) fn admits(&self, owner: &Owner) -> bool {
        match (self, owner) {
            (Self::Session(id), Owner::Session(owner)) => id == owner,
            (Self::Round(number), Owner::Round(owner)) => number == owner,
            (Self::Below(number), Owner::Session(owner)) => owner.round() < *number,
            (Self::Below(number), Owner::Round(owner)) => owner <= number,
            _ => false,
        }
    }
}

/// Reads the repository in the order that keeps a reader safe, and feeds the local index.
///
/// What cannot be used is in [`View::unusable`]; with `salvage`, the packs of a segment that
/// cannot be read, or of a snapshot that is gone and others may build on, are found by their own
/// directories.
///
/// # Errors
/// What the storage answers; without `salvage`, `Damaged` for collector records that cannot be used.
pub fn read(repository: &Repository, salvage: bool, before: Option<View>) -> Result<View> {
    let mut reading = 1;
    loop {
        let mut view = read_cells(repository, before.as_ref())?;
        if view.lacks_collection && !salvage {
            return Err(unusable_collection(view));
        }
        read_later(repository, &mut view)?;
        let missing = feed(repository, &mut view)?;
        if missing.is_empty() || reading == READINGS_MAX {
            let is_incomplete = !missing.is_empty() || view.lacks_cells() || view.lacks_collection;
            if salvage && is_incomplete {
                crate::salvage::feed_directories(repository, &mut view)?;
            }
            let newest = (!view.lacks_collection).then(|| view.collection.numbers());
            repository.set_seen(newest);
            recall(repository, &mut view);
            return Ok(view);
        }
        reading += 1;
    }
}

/// Compares a reading with what this machine remembers, and remembers it if nothing is lost.
fn recall(repository: &Repository, view: &mut View) {
    if view.lacks_collection {
        return;
    }
    let config = repository.config().number;
    view.lost = repository.memory().seen().lost(config, view);
    if view.lost.is_empty() {
        repository.memory().note(&Remembered::of(config, view));
    }
}

/// Reads anew if a collector went on since the last reading; tells whether it did.
///
/// For readers that miss a pack: `generation` is that of the reading that named the pack. A
/// writer's reading is never replaced under it: no collector takes away what its session may use.
///
/// # Errors
/// What the storage answers.
pub(crate) fn refresh(repository: &Repository, generation: u64) -> Result<bool> {
    let _one_at_a_time = repository.refreshing();
    let seen = repository.seen();
    // Somebody else did, while this one waited.
    if seen.generation != generation {
        return Ok(true);
    }
    if seen.writers > 0
        || seen.newest.is_none()
        || seen.newest == collection::newest(&collection::list(repository)?)
    {
        return Ok(false);
    }
    read(repository, true, None)?;
    Ok(true)
}

/// Says what this machine saw before and is not there any more.
pub(crate) fn loss(lost: &[String]) -> String {
    const NAMED: usize = 3;
    let named = lost.get(..NAMED).unwrap_or(lost).join(", ");
    let more = match lost.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "the repository went back to an older state: this machine saw {named}{more} in it, and no prune took them away"
    )
}

fn unusable_collection(view: View) -> EngineError {
    let of_collector = |one: &Unusable| one.object.starts_with(names::COLLECTOR);
    match view.unusable.into_iter().find(of_collector) {
        Some(Unusable { object, why }) => EngineError::Damaged { object, why },
        None => EngineError::Internal("collector records were not read".to_owned()),
    }
}

/// Reads all cells and amendments, and what collectors wrote; those of a reading before need not
/// be fetched again.
///
/// # Errors
/// What the storage answers.
pub fn read_cells(repository: &Repository, before: Option<&View>) -> Result<View> {
    let mut reading = read_once(repository, before)?;
    for _ in 1..READINGS_MAX {
        if reading.is_whole {
            break;
        }
        // What is missing may have died under a new floor; if nothing moved, it is damaged.
        let before = reading;
        reading = read_once(repository, Some(&before.view))?;
        let is_same_collection = reading.view.collection == before.view.collection;
        if reading.listed == before.listed && is_same_collection {
            break;
        }
    }
    Ok(reading.view)
}

/// What one reading of the cells found.
struct Reading {
    listed: BTreeSet<Name>,
    view: View,
    /// Whether all was there that must be.
    is_whole: bool,
}

/// Lists the cells, then reads what collectors wrote, and then the cells.
fn read_once(repository: &Repository, before: Option<&View>) -> Result<Reading> {
    let collection = || collection::read(repository, before.map(|before| &before.collection));
    let early = (!keeps(Rule::ReadCellsFirst)).then(collection);
    let listed = list_cells(repository)?;
    let collection = early.unwrap_or_else(collection);
    read_listed(repository, listed, collection, before)
}

fn list_cells(repository: &Repository) -> Result<BTreeSet<Name>> {
    let mut listed = BTreeSet::new();
    repository.storage().list("snapshots", &mut |object| {
        listed.extend(names::parse(&object.name));
        Ok(())
    })?;
    Ok(listed)
}

/// Reads the cells that were committed while the others were listed.
///
/// A listing is not of one moment: it may have a cell and lack an earlier one, whose packs that one
/// needs. Whatever a listed cell was built on is there once the listing has ended.
pub(crate) fn read_later(repository: &Repository, view: &mut View) -> Result<()> {
    view.later.clear();
    if !keeps(Rule::ReadLater) {
        return Ok(());
    }
    for name in list_cells(repository)? {
        let Name::Cell(id) = name else { continue };
        if view.cells.contains_key(&id) || view.is_dead(&id) {
            continue;
        }
        match read_record::<Cell>(repository, &name) {
            Ok(cell) if protocol::is_committed(cell.kind) => view.later.push(cell),
            // One that cannot be read is told by who must read it.
            Ok(_) | Err(EngineError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads what a listing names, but for what collectors' records say is dead.
fn read_listed(
    repository: &Repository,
    listed: BTreeSet<Name>,
    collection: Result<Collection>,
    before: Option<&View>,
) -> Result<Reading> {
    let mut view = View::default();
    match collection {
        Ok(collection) => view.collection = collection,
        Err(EngineError::Damaged { object, why }) => {
            view.unusable.push(Unusable { object, why });
            view.lacks_collection = true;
        }
        Err(error) => return Err(error),
    }
    let mut is_whole = true;
    for id in &view.collection.state.live {
        if !listed.contains(&Name::Cell(*id)) {
            is_whole = false;
            view.unusable.push(Unusable {
                object: names::cell(id),
                why: format!(
                    "it is missing, although {} lists it",
                    view.collection.state_name()
                ),
            });
        }
    }
    let mut wanted = Vec::new();
    for name in &listed {
        match *name {
            Name::Cell(id) if view.is_dead(&id) && keeps(Rule::DeadSupersedeNot) => {
                view.dead.insert(id);
            }
            Name::Amendment(id, _) if view.is_dead(&id) => {}
            Name::Cell(_) | Name::Amendment(..) => wanted.push(*name),
            _ => {}
        }
    }
    for batch in wanted.chunks(RECORDS_AT_ONCE) {
        let calls = repository.calls_at_once();
        let read = at_once::map(calls, batch, |name| read_part(repository, name, before));
        for part in read {
            match part {
                Ok(Part::Cell(id, cell)) => drop(view.cells.insert(id, *cell)),
                Ok(Part::Amendment(id, amendment)) => {
                    view.amendments.entry(id).or_default().push(amendment);
                }
                Err(EngineError::Damaged { object, why }) => {
                    // A cell that went away between listing and reading died under a new floor.
                    is_whole = false;
                    view.unusable.push(Unusable { object, why });
                }
                Err(error) => return Err(error),
            }
        }
    }
    for list in view.amendments.values_mut() {
        list.sort_by_key(|amendment| amendment.number);
    }
    Ok(Reading {
        listed,
        view,
        is_whole,
    })
}

/// What one name below `snapshots/` stands for.
enum Part {
    Cell(SessionId, Box<Cell>),
    Amendment(SessionId, Amendment),
}

/// Reads a cell or an amendment, unless a reading before has it.
fn read_part(repository: &Repository, name: &Name, before: Option<&View>) -> Result<Part> {
    Ok(match *name {
        Name::Amendment(id, number) => {
            let known = before.and_then(|before| before.amendment(&id, number));
            let amendment = match known {
                Some(amendment) => amendment.clone(),
                None => read_record(repository, name)?,
            };
            Part::Amendment(id, amendment)
        }
        Name::Cell(id) => {
            let known = before.and_then(|before| before.cells.get(&id));
            let cell = match known {
                Some(cell) => cell.clone(),
                None => read_record(repository, name)?,
            };
            Part::Cell(id, Box::new(cell))
        }
        _ => {
            let why = format!("{name} is neither a cell nor an amendment");
            return Err(EngineError::Internal(why));
        }
    })
}

/// Reads and opens one sealed record.
///
/// # Errors
/// `Damaged` if it is missing or does not open, or what the storage answers.
pub fn read_record<R: Record>(repository: &Repository, name: &Name) -> Result<R> {
    let text = name.to_string();
    let limit = object_bytes_max(R::KIND) as u64;
    let object = get(repository, &text, limit)?;
    open_record(repository.keyring(), name, &object)
        .map_err(|error: FormatError| EngineError::damaged(&text, &error))
}

/// Reads an object; one that is missing or has an impossible size is `Damaged`.
pub(crate) fn get(repository: &Repository, name: &str, limit: u64) -> Result<bytes::Bytes> {
    repository
        .storage()
        .get(name, limit)
        .map_err(|error| match error.kind {
            ErrorKind::NotFound | ErrorKind::Oversized | ErrorKind::Truncated => {
                EngineError::Damaged {
                    object: name.to_owned(),
                    why: error.cause,
                }
            }
            _ => error.into(),
        })
}

/// Feeds the index with the segments that count; gives those that could not be used.
fn feed(repository: &Repository, view: &mut View) -> Result<Vec<ObjectId>> {
    let index = repository.index();
    let mut wanted = view.owners();
    if !keeps(Rule::SegmentsNamed) {
        repository.storage().list("index", &mut |object| {
            if let Some(Name::Segment(id)) = names::parse(&object.name) {
                wanted.entry(id).or_default();
            }
            Ok(())
        })?;
    }
    let have = index.segments()?;
    let mut unusable = view.collection.unusable_packs();
    let mut counting = Vec::new();
    let mut missing = Vec::new();
    let mut absent = BTreeSet::new();
    let fresh: Vec<_> = wanted
        .iter()
        .filter(|(id, _)| !have.contains(*id))
        .collect();
    // A segment is large in memory: no more of them than are fetched at once.
    let calls = repository.calls_at_once().max(1);
    for batch in fresh.chunks(calls) {
        let read = at_once::map(calls, batch, |(id, claims)| {
            read_owned_segment(repository, id, claims)
        });
        for ((id, claims), segment) in batch.iter().zip(read) {
            match segment {
                Ok(segment) => {
                    let records: Vec<_> =
                        segment.packs.iter().map(PackRecord::of_segment).collect();
                    index.add_segment(id, &records)?;
                }
                Err(EngineError::Damaged { .. }) if view.is_later(claims) => {
                    absent.insert(**id);
                }
                Err(EngineError::Damaged { object, why }) => {
                    view.unusable.push(Unusable { object, why });
                    missing.push(**id);
                    absent.insert(**id);
                }
                Err(error) => return Err(error),
            }
        }
    }
    for (id, claims) in &wanted {
        if absent.contains(id) {
            continue;
        }
        if view.is_later(claims) {
            unusable.extend(index.segment_packs(id)?);
        }
        counting.push(*id);
    }
    repository.set_unusable(unusable)?;
    index.set_counting(&counting)?;
    let stale: Vec<_> = have
        .iter()
        .filter(|id| !wanted.contains_key(id))
        .copied()
        .collect();
    if !stale.is_empty() {
        index.remove_segments(&stale)?;
    }
    Ok(missing)
}

/// Reads a segment and verifies who brought it.
fn read_owned_segment(
    repository: &Repository,
    id: &ObjectId,
    claims: &BTreeSet<Claim>,
) -> Result<Segment> {
    let segment = read_segment(repository, id)?;
    let is_owned = claims.iter().any(|claim| claim.admits(&segment.owner));
    if is_owned || !keeps(Rule::SegmentsNamed) {
        return Ok(segment);
    }
    Err(EngineError::Damaged {
        object: names::segment(id),
        why: WRONG_OWNER.to_owned(),
    })
}

/// What is wrong with a segment that names another owner than it must have.
pub(crate) const WRONG_OWNER: &str =
    "the session or round that it says wrote it is not the one that names it";

/// Reads and opens one segment.
///
/// # Errors
/// `Damaged` if it is missing or does not open, or what the storage answers.
pub(crate) fn read_segment(repository: &Repository, id: &ObjectId) -> Result<Segment> {
    let name = names::segment(id);
    let object = get(repository, &name, SEGMENT_BYTES as u64)?;
    Segment::open(repository.keyring(), id, &object)
        .map_err(|error| EngineError::damaged(&name, &error))
}
