//! Snapshots: listing, and finding the one that a person means.

mod at;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(crate) mod fixture;
pub(crate) mod lost;
pub(crate) mod order;
mod spec;
pub mod times;

use jiff::Timestamp;
use larder_format::cell::{Cell, CellKind};
use larder_format::ids::SessionId;
use larder_format::names::{self, Name};
use larder_format::session::Change;

use crate::error::{EngineError, Result};
use crate::repository::Repository;
use crate::view::{self, Unusable, View};

pub use at::at;
pub(crate) use at::at_in;
pub use spec::{Spec, Which, last_weekday, parse_time};

use times::SourceTimes;

/// One finished backup, as it is listed.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SnapshotInfo {
    /// The id by which people name it: 32 hex digits.
    pub id: String,
    /// When it was started (RFC 3339, UTC).
    #[serde(serialize_with = "rfc3339")]
    pub time: Timestamp,
    /// When it was finished.
    #[serde(serialize_with = "rfc3339")]
    pub end: Timestamp,
    /// Whether it is a checkpoint of an unfinished backup, or one shard of a run.
    pub partial: bool,
    /// Whether it is kept from being forgotten.
    pub pinned: bool,
    /// Host it was made on.
    pub host: String,
    /// User who made it.
    pub user: String,
    /// Tags, sorted.
    pub tags: Vec<String>,
    /// Sources as they were given (lossy where they are not UTF-8).
    pub sources: Vec<String>,
    /// When each source was read, in the order in which they were; empty if there is one, or nobody knows.
    pub read: Vec<SourceTimes>,
    /// Id of the snapshot that it was compared with.
    pub parent: Option<String>,
    /// Which shard of which run it is; none for what is no shard's.
    pub shard: Option<ShardInfo>,
    /// Program that made it.
    pub program: String,
    /// What was counted.
    pub statistics: Statistics,
    /// The session, by which the engine finds it again.
    #[serde(skip)]
    pub session: SessionId,
}

/// Which shard of a run something is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ShardInfo {
    /// The run's name.
    pub run: String,
    /// The shard's number, from 1.
    pub number: u64,
    /// How many shards there are.
    pub count: u64,
    /// Whether it is finished, and no checkpoint.
    pub finished: bool,
}

/// Gives a snapshot's record with those of its sources alone that a listing of it still names.
pub(crate) fn narrowed(cell: &Cell, snapshot: &SnapshotInfo) -> Cell {
    let mut cell = cell.clone();
    let is_named = |path: &[u8]| {
        let path = String::from_utf8_lossy(path);
        snapshot.sources.iter().any(|source| *source == path)
    };
    cell.sources.retain(|source| is_named(&source.path));
    cell
}

/// Writes a time as RFC 3339, in UTC.
pub(crate) fn rfc3339<S: serde::Serializer>(
    time: &Timestamp,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

/// Writes a time as RFC 3339, in UTC, or null.
pub(crate) fn rfc3339_option<S: serde::Serializer>(
    time: &Option<Timestamp>,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.collect_str(time),
        None => serializer.serialize_none(),
    }
}

/// What a backup counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Statistics {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Other entries.
    pub others: u64,
    /// Entries that the parent did not have.
    pub new: u64,
    /// Entries that differ from the parent's.
    pub changed: u64,
    /// Entries that are as in the parent.
    pub unchanged: u64,
    /// Entries whose content could not be read.
    pub unreadable: u64,
    /// Files that changed while they were read, twice.
    pub changed_while_read: u64,
    /// Bytes of all files together.
    pub bytes: u64,
    /// Bytes read from the source.
    pub bytes_read: u64,
    /// Bytes of chunks that were new, before compression.
    pub bytes_added: u64,
    /// Bytes that were written to the storage.
    pub bytes_stored: u64,
    /// Chunks that were new.
    pub chunks_added: u64,
}

/// Which snapshots are meant at all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only these hosts; all if empty.
    pub hosts: Vec<String>,
    /// Only those that have every tag of one of these comma-separated lists; all if empty.
    pub tags: Vec<String>,
    /// Only those that have all of these sources, as absolute paths; all if empty.
    pub paths: Vec<String>,
}

impl Filter {
    /// Tells whether a snapshot is meant.
    #[must_use]
    pub fn takes(&self, view: &View, cell: &Cell) -> bool {
        let tags = view.tags(cell);
        let has_tags = |list: &String| {
            let mut wanted = list.split(',').map(str::trim).filter(|tag| !tag.is_empty());
            wanted.all(|wanted| tags.iter().any(|tag| tag == wanted))
        };
        let has_source = |path: &String| {
            let wanted = clean_path(path.as_bytes());
            let mut sources = cell.sources.iter();
            sources.any(|source| clean_path(&source.path) == wanted)
        };
        (self.hosts.is_empty() || self.hosts.contains(&cell.host))
            && (self.tags.is_empty() || self.tags.iter().any(has_tags))
            && self.paths.iter().all(has_source)
    }
}

/// Lists complete snapshots that are not forgotten, oldest first; partial ones too if asked.
///
/// A snapshot that cannot be read does not hide the others: it is logged as a warning, and
/// [`unusable`] gives it.
///
/// # Errors
/// What the storage answers.
pub fn list(repository: &Repository, filter: &Filter, partial: bool) -> Result<Vec<SnapshotInfo>> {
    let view = read(repository)?;
    Ok(of_view(&view, filter, partial))
}

/// A snapshot that was forgotten and is still there: no prune has cleared it yet.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ForgottenInfo {
    /// The snapshot.
    #[serde(flatten)]
    pub snapshot: SnapshotInfo,
    /// When it was forgotten (RFC 3339, UTC).
    #[serde(serialize_with = "rfc3339")]
    pub forgotten: Timestamp,
    /// On which host.
    pub forgotten_on: String,
    /// Who forgot it.
    pub forgotten_by: String,
}

/// Lists the forgotten snapshots that are still there, the one that was forgotten first at the top;
/// partial ones too if asked.
///
/// # Errors
/// What the storage answers.
pub fn list_forgotten(
    repository: &Repository,
    filter: &Filter,
    partial: bool,
) -> Result<Vec<ForgottenInfo>> {
    Ok(forgotten_of(&read(repository)?, filter, partial))
}

/// Lists the forgotten snapshots of a view, as [`list_forgotten`] does.
pub(crate) fn forgotten_of(view: &View, filter: &Filter, partial: bool) -> Vec<ForgottenInfo> {
    let wanted = |cell: &&Cell| is_wanted(cell.kind, partial) && filter.takes(view, cell);
    let forgotten = |cell: &Cell| {
        let mut changes = view.amendments.get(&cell.id)?.iter();
        let amendment = changes.find(|one| one.change == Change::Forget)?;
        Some(ForgottenInfo {
            snapshot: info(view, cell),
            forgotten: timestamp(amendment.time),
            forgotten_on: amendment.host.clone(),
            forgotten_by: amendment.user.clone(),
        })
    };
    let mut list: Vec<_> = view
        .cells
        .values()
        .filter(wanted)
        .filter_map(forgotten)
        .collect();
    list.sort_by_key(|one| (one.forgotten, one.snapshot.time, one.snapshot.session));
    list
}

/// Reads all snapshots, and warns of those that cannot be read.
pub(crate) fn read(repository: &Repository) -> Result<View> {
    let view = view::read_cells(repository, None)?;
    for Unusable { object, why } in &view.unusable {
        tracing::warn!("{object} cannot be used: {why}; run `larder check`");
    }
    Ok(view)
}

/// Gives the snapshots and amendments that are there and cannot be read, and why.
///
/// # Errors
/// What the storage answers.
pub fn unusable(repository: &Repository) -> Result<Vec<Unusable>> {
    view::read_cells(repository, None).map(|view| view.unusable)
}

/// Finds the one snapshot that is meant, among those of the filter.
///
/// A checkpoint of an unfinished backup is found by its id alone.
///
/// # Errors
/// `NotFound`; `Request` for an ambiguous prefix, naming the candidates; `Damaged` for the id of
/// a snapshot that is there and cannot be read.
pub fn resolve(repository: &Repository, which: &Which, filter: &Filter) -> Result<SnapshotInfo> {
    resolve_in(&read(repository)?, which, filter)
}

/// Finds the one snapshot that is meant in one reading, as [`resolve`] does.
///
/// # Errors
/// As [`resolve`].
pub(crate) fn resolve_in(view: &View, which: &Which, filter: &Filter) -> Result<SnapshotInfo> {
    let found = match which {
        Which::Prefix(prefix) => return by_id(view, prefix, filter),
        Which::Latest(back) => {
            let list = of_view(view, filter, false);
            let count = list.len();
            list.into_iter().rev().nth(*back).ok_or(count)
        }
        Which::At(time) => {
            let list = of_view(view, filter, false);
            let count = list.len();
            let mut not_later = list.into_iter().rev().filter(|one| one.time <= *time);
            not_later.next().ok_or(count)
        }
    };
    found.map_err(|count| {
        EngineError::NotFound(match which {
            _ if count == 0 => "there is no snapshot that was asked for: none is there, or \
                                --host, --tag and --path leave none"
                .to_owned(),
            Which::At(time) => format!(
                "none of the {count} snapshots was made at or before {time}; `larder snapshots` \
                 lists them"
            ),
            _ => format!(
                "there are only {count} snapshots to count back from; `larder snapshots` lists them"
            ),
        })
    })
}

/// Finds the complete snapshot whose id starts with `prefix`.
///
/// # Errors
/// `NotFound`; `Request` for an ambiguous prefix, naming the candidates.
pub(crate) fn by_prefix<'a>(view: &'a View, prefix: &str) -> Result<&'a Cell> {
    only_one(view, prefix, view.snapshots().collect())
}

/// Tells whether a source, or a path in one, is that of a bucket.
pub(crate) fn is_url(path: &[u8]) -> bool {
    let mut parts = path.splitn(2, |byte| *byte == b':');
    let scheme = parts.next().unwrap_or_default();
    let rest = parts.next().unwrap_or_default();
    !scheme.is_empty() && scheme.iter().all(u8::is_ascii_alphanumeric) && rest.starts_with(b"//")
}

/// Takes empty and `.` components out of a path, and what would be a `/` at its end; what is in a
/// bucket stays as it is.
pub(crate) fn clean_path(path: &[u8]) -> Vec<u8> {
    if is_url(path) {
        return path.to_vec();
    }
    let parts = path.split(|byte| *byte == b'/');
    let parts: Vec<&[u8]> = parts
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    let mut clean = if path.starts_with(b"/") {
        b"/".to_vec()
    } else {
        Vec::new()
    };
    clean.extend_from_slice(&parts.join(&b'/'));
    clean
}

/// Lists the snapshots of a view, oldest first ([`order`]).
pub(crate) fn of_view(view: &View, filter: &Filter, partial: bool) -> Vec<SnapshotInfo> {
    let mut cells: Vec<&Cell> = shown(view, partial)
        .filter(|cell| filter.takes(view, cell))
        .collect();
    let ranks = order::ranks(&view.cells);
    cells.sort_by_key(|cell| ranks.get(&cell.id).copied());
    cells.into_iter().map(|cell| info(view, cell)).collect()
}

/// Gives what can be listed: what lives.
fn shown(view: &View, partial: bool) -> impl Iterator<Item = &Cell> {
    let live = view.live();
    let cells = view.cells.values();
    cells.filter(move |cell| is_wanted(cell.kind, partial) && live.contains(&cell.id))
}

fn is_wanted(kind: CellKind, partial: bool) -> bool {
    kind == CellKind::Complete || partial && matches!(kind, CellKind::Partial | CellKind::Shard)
}

fn by_id(view: &View, prefix: &str, filter: &Filter) -> Result<SnapshotInfo> {
    let cells = shown(view, true).filter(|cell| filter.takes(view, cell));
    let found = only_one(view, prefix, cells.collect());
    found.map(|cell| info(view, cell))
}

fn only_one<'a>(view: &View, prefix: &str, cells: Vec<&'a Cell>) -> Result<&'a Cell> {
    let mut cells = cells;
    cells.retain(|cell| cell.id.snapshot_name().starts_with(prefix));
    match cells.as_slice() {
        [one] => Ok(one),
        [] => Err(damaged_with(view, prefix).unwrap_or_else(|| {
            EngineError::NotFound(format!(
                "there is no snapshot {prefix}; `larder snapshots` lists them"
            ))
        })),
        several => {
            let names: Vec<_> = several.iter().map(|cell| cell.id.snapshot_name()).collect();
            Err(EngineError::Request(format!(
                "{prefix} is ambiguous: {}; give more digits",
                names.join(", ")
            )))
        }
    }
}

/// Finds a cell that is listed under a prefix and does not open.
fn damaged_with(view: &View, prefix: &str) -> Option<EngineError> {
    let named = |unusable: &&Unusable| matches!(names::parse(&unusable.object), Some(Name::Cell(id)) if id.snapshot_name().starts_with(prefix));
    let Unusable { object, why } = view.unusable.iter().find(named)?;
    Some(EngineError::damaged(object, why))
}

fn info(view: &View, cell: &Cell) -> SnapshotInfo {
    let counted = &cell.statistics;
    let sources = cell.sources.iter();
    let bytes = sources.clone().map(|source| source.bytes);
    SnapshotInfo {
        id: cell.id.snapshot_name(),
        time: timestamp(cell.started),
        end: timestamp(cell.ended),
        partial: cell.kind != CellKind::Complete,
        pinned: view.is_pinned(&cell.id),
        host: cell.host.clone(),
        user: cell.user.clone(),
        tags: view.tags(cell).to_vec(),
        sources: sources
            .map(|source| String::from_utf8_lossy(&source.path).into_owned())
            .collect(),
        read: times::of(cell),
        parent: cell.parent.map(|parent| parent.snapshot_name()),
        shard: cell.shard.as_ref().map(|shard| ShardInfo {
            run: shard.name.clone(),
            number: shard.number,
            count: shard.count,
            finished: cell.kind == CellKind::Shard,
        }),
        program: cell.program.clone(),
        statistics: Statistics {
            files: counted.files,
            directories: counted.directories,
            others: counted.others,
            new: counted.new,
            changed: counted.changed,
            unchanged: counted.unchanged,
            unreadable: counted.unreadable,
            changed_while_read: counted.changed_while_read,
            bytes: bytes.fold(0, u64::saturating_add),
            bytes_read: counted.read_bytes,
            bytes_added: counted.new_chunk_bytes,
            bytes_stored: counted.stored_bytes,
            chunks_added: counted.new_chunks,
        },
        session: cell.id,
    }
}

fn timestamp(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
