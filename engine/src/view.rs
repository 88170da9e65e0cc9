//! The reading order (SPEC.md §12): what is in the repository, as of one listing.

use std::collections::{BTreeMap, BTreeSet};

use larder_format::cell::{Cell, CellKind};
use larder_format::error::FormatError;
use larder_format::ids::{ObjectId, SessionId};
use larder_format::limits::SEGMENT_BYTES;
use larder_format::names::{self, Name};
use larder_format::record::{Record, object_bytes_max, open_record};
use larder_format::segment::Segment;
use larder_format::session::{Amendment, Change};

use crate::error::{EngineError, Result};
use crate::index::PackRecord;
use crate::repository::Repository;
use crate::storage::error::ErrorKind;

/// Times that a reading is started over because a segment went away meanwhile.
const READINGS_MAX: usize = 3;

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
    /// All cells that open, revoked and forgotten ones among them.
    pub cells: BTreeMap<SessionId, Cell>,
    /// Amendments that open, in order, by the cell they change.
    pub amendments: BTreeMap<SessionId, Vec<Amendment>>,
    /// Cells, amendments and segments that are listed or named and could not be used.
    pub unusable: Vec<Unusable>,
}

impl View {
    /// Tells whether a snapshot was forgotten.
    #[must_use]
    pub fn is_forgotten(&self, id: &SessionId) -> bool {
        self.amendments
            .get(id)
            .is_some_and(|list| list.iter().any(|one| one.change == Change::Forget))
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

    /// Tells whether a committed cell goes on from this partial one.
    #[must_use]
    pub fn is_superseded(&self, id: &SessionId) -> bool {
        self.cells
            .values()
            .any(|cell| cell.predecessor == Some(*id) && cell.kind != CellKind::Revoked)
    }

    /// Gives the cells that a person calls snapshots: complete, and not forgotten.
    pub fn snapshots(&self) -> impl Iterator<Item = &Cell> {
        self.cells
            .values()
            .filter(|cell| cell.kind == CellKind::Complete && !self.is_forgotten(&cell.id))
    }

    /// Tells whether a cell is gone or unusable that another one had seen, and may build on.
    fn lacks_cells(&self) -> bool {
        self.cells.values().any(|cell| {
            let before = cell.predecessor.iter().chain(&cell.parent);
            let mut named = before.chain(&cell.seen_cells);
            named.any(|id| !self.cells.contains_key(id))
        })
    }

    /// Gives the segments that count.
    #[must_use]
    pub fn segments(&self) -> BTreeSet<ObjectId> {
        self.cells
            .values()
            .filter(|cell| cell.kind != CellKind::Revoked)
            .flat_map(|cell| cell.segments.iter().copied())
            .collect()
    }
}

/// Reads the repository in the order that keeps a reader safe, and feeds the local index.
///
/// What cannot be used is in [`View::unusable`]; with `salvage`, the packs of a segment that
/// cannot be read, or of a snapshot that is gone and others may build on, are found by their own
/// directories.
///
/// # Errors
/// What the storage answers, and `Unsupported` for a repository with collector records.
pub fn read(repository: &Repository, salvage: bool, before: Option<View>) -> Result<View> {
    let mut reading = 1;
    loop {
        let mut view = read_cells(repository, before.as_ref())?;
        refuse_collector(repository)?;
        let missing = feed(repository, &mut view)?;
        if missing.is_empty() || reading == READINGS_MAX {
            if salvage && (!missing.is_empty() || view.lacks_cells()) {
                crate::salvage::feed_directories(repository, &mut view)?;
            }
            return Ok(view);
        }
        reading += 1;
    }
}

/// Reads all cells and amendments; those of a reading before need not be fetched again.
///
/// # Errors
/// What the storage answers.
pub fn read_cells(repository: &Repository, before: Option<&View>) -> Result<View> {
    let mut listed = Vec::new();
    repository.storage().list("snapshots", &mut |object| {
        listed.extend(names::parse(&object.name));
        Ok(())
    })?;
    listed.sort_unstable();
    let mut view = View::default();
    for name in listed {
        let outcome = match name {
            Name::Cell(id) => match before.and_then(|before| before.cells.get(&id)) {
                Some(cell) => Ok(cell.clone()),
                None => read_record::<Cell>(repository, &name),
            }
            .map(|cell| {
                view.cells.insert(id, cell);
            }),
            Name::Amendment(id, _) => read_record(repository, &name).map(|amendment| {
                view.amendments.entry(id).or_default().push(amendment);
            }),
            _ => continue,
        };
        match outcome {
            Ok(()) => {}
            Err(EngineError::Damaged { object, why }) => {
                view.unusable.push(Unusable { object, why });
            }
            Err(error) => return Err(error),
        }
    }
    for list in view.amendments.values_mut() {
        list.sort_by_key(|amendment| amendment.number);
    }
    Ok(view)
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

fn refuse_collector(repository: &Repository) -> Result<()> {
    let mut found = false;
    repository.storage().list("gc", &mut |_| {
        found = true;
        Ok(())
    })?;
    if found {
        return Err(EngineError::Unsupported {
            location: repository.location().to_owned(),
            why: "it was pruned by a newer larder; use that one".to_owned(),
        });
    }
    Ok(())
}

/// Feeds the index with the segments that count; gives those that could not be used.
fn feed(repository: &Repository, view: &mut View) -> Result<Vec<ObjectId>> {
    let index = repository.index();
    let wanted = view.segments();
    let have = index.segments()?;
    let mut counting = Vec::new();
    let mut missing = Vec::new();
    for id in &wanted {
        if !have.contains(id) {
            match read_segment(repository, id) {
                Ok(segment) => {
                    let records: Vec<_> =
                        segment.packs.iter().map(PackRecord::of_segment).collect();
                    index.add_segment(id, &records)?;
                }
                Err(EngineError::Damaged { object, why }) => {
                    view.unusable.push(Unusable { object, why });
                    missing.push(*id);
                    continue;
                }
                Err(error) => return Err(error),
            }
        }
        counting.push(*id);
    }
    index.set_counting(&counting)?;
    let stale: Vec<_> = have.difference(&wanted).copied().collect();
    if !stale.is_empty() {
        index.remove_segments(&stale)?;
    }
    Ok(missing)
}

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
