//! Joining the shards of a run into one snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use larder_format::block::Compression;
use larder_format::cell::{Cell, CellKind, Source, Statistics};
use larder_format::ids::{ChunkId, RunId, SessionId};
use larder_format::limits::TAGS;
use larder_format::names;
use larder_format::run::Shard;
use larder_format::session::Base;
use larder_format::tree::build::{NodeOut, Root};
use larder_format::tree::merge;
use larder_format::tree::read::Cursor;

use super::runs;
use super::tiles::{Tiling, listed, tile};
use crate::amend::{self, Wish, amend};
use crate::backup::{READ_FROM, read_from};
use crate::cancel::Cancel;
use crate::carry::{Carried, carry};
use crate::chunks::ChunkReader;
use crate::error::{EngineError, Result};
use crate::packer::{Packer, PackerOptions};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::session::{self, Author, Opened, Outcome};
use crate::view::{self, View};

/// Times that a run is joined because collectors end its sessions, or its shards change.
const ATTEMPTS_MAX: usize = 8;

/// Which run is joined, and by whom.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// The run's name.
    pub run: String,
    /// Who does it.
    pub author: Author,
}

/// What joining a run made.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct JoinReport {
    /// The run's name.
    pub run: String,
    /// The snapshot that it became.
    pub snapshot: String,
    /// Whether somebody had joined it already.
    pub existed: bool,
    /// Shards that were joined; 0 if somebody had joined them already.
    pub shards: u64,
    /// Entries of the snapshot that was made.
    pub entries: u64,
    /// Bytes of packs and index written.
    pub bytes_stored: u64,
    /// Seconds that it took.
    pub seconds: f64,
}

/// What came of trying to join a run.
pub(super) enum Joined {
    /// It is one snapshot.
    Snapshot(JoinReport),
    /// Numbers of shards are missing; of how many, 0 if nobody knows.
    Missing(Vec<u64>, u64),
}

/// Joins the shards of a run into one snapshot, and forgets them.
///
/// A run that was joined before is said to be. Of several who join at once all name the same snapshot, and it
/// is the only one that stays.
///
/// # Errors
/// `NotFound` for a run of which nothing is there; `Request` for shards that are missing, or that are not
/// one bucket, each key once; `Interrupted`, `Damaged`, or what the storage answers.
pub fn join(
    repository: &Arc<Repository>,
    options: &JoinOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<JoinReport> {
    let run = &options.run;
    match try_join(repository, options, progress, cancel)? {
        Joined::Snapshot(report) => Ok(report),
        Joined::Missing(_, 0) => Err(EngineError::NotFound(format!(
            "there is no run {run}: no shard of it was begun, or it is so long ago that it was cleared away"
        ))),
        Joined::Missing(missing, count) => {
            let (what, numbers) = match missing.as_slice() {
                [_] => ("shard", "is"),
                _ => ("shards", "are"),
            };
            Err(EngineError::Request(format!(
                "the run {run} cannot be joined yet: {what} {} of {count} {numbers} not finished; run `larder backup SOURCE --shard {}/N --run {run}` again",
                listed(&missing),
                missing.first().copied().unwrap_or_default(),
            )))
        }
    }
}

/// Joins a run unless shards are missing.
pub(super) fn try_join(
    repository: &Arc<Repository>,
    options: &JoinOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Joined> {
    let clock = Instant::now();
    repository.check_write()?;
    let id = repository.keyring().run_id(&options.run);
    let mut view = view::read_cells(repository, None)?;
    let mut joining: Option<Joining<'_>> = None;
    for _ in 0..ATTEMPTS_MAX {
        cancel.check()?;
        if let Some(snapshot) = runs::joined(repository, &id, &view)? {
            forget_others(repository, &id, snapshot, view, &options.author)?;
            return Ok(Joined::Snapshot(JoinReport {
                run: options.run.clone(),
                snapshot: snapshot.snapshot_name(),
                existed: true,
                seconds: clock.elapsed().as_secs_f64(),
                ..JoinReport::default()
            }));
        }
        let cells = match shards(repository, &id, &view)? {
            Tiling::Whole(ids) => cells(&view, &ids),
            Tiling::Missing(missing, count) => return Ok(Joined::Missing(missing, count)),
            Tiling::Refused(why) => return Err(refused(&options.run, &why)),
        };
        if let Some(why) = disagreement(&cells) {
            return Err(refused(&options.run, why));
        }
        let mut this = match joining.take() {
            Some(joining) => joining,
            None => Joining::start(repository, &options.author, progress, cancel)?,
        };
        let made = this.make(&id, &cells, view);
        let (cell, outcome, after) = this.ended(made)?;
        view = after;
        if outcome == Some(Outcome::Committed)
            && let Some(cell) = cell
        {
            let snapshot = runs::decide(repository, &id, cell.id)?;
            let entries = cell.sources.iter().map(|source| source.entries);
            let report = JoinReport {
                run: options.run.clone(),
                snapshot: snapshot.snapshot_name(),
                existed: snapshot != cell.id,
                shards: cells.len() as u64,
                entries: entries.sum(),
                bytes_stored: this.packer.written().stored_bytes,
                seconds: clock.elapsed().as_secs_f64(),
            };
            drop(this);
            let view = view::read_cells(repository, Some(&view))?;
            forget_others(repository, &id, snapshot, view, &options.author)?;
            return Ok(Joined::Snapshot(report));
        }
        joining = Some(this);
        view = view::read_cells(repository, Some(&view))?;
    }
    Err(EngineError::Request(format!(
        "prunes elsewhere ended this session {ATTEMPTS_MAX} times; run `larder snapshot join --run {}` again when they have ended",
        options.run
    )))
}

/// Looks at the shards of a run that live.
fn shards(repository: &Arc<Repository>, id: &RunId, view: &View) -> Result<Tiling> {
    let run = runs::read(repository, id)?;
    let live = view.live();
    let cells = view.cells.values();
    let of_run = cells.filter(|cell| cell.kind == CellKind::Shard && live.contains(&cell.id));
    let found: Vec<(SessionId, &Shard)> = of_run
        .filter_map(|cell| Some((cell.id, cell.shard.as_ref()?)))
        .filter(|(_, shard)| shard.run == *id)
        .collect();
    Ok(tile(run.as_ref(), &found))
}

fn cells(view: &View, ids: &[SessionId]) -> Vec<Cell> {
    let found = ids.iter().filter_map(|id| view.cells.get(id));
    found.cloned().collect()
}

fn refused(run: &str, why: &str) -> EngineError {
    EngineError::Request(format!(
        "the run {run} cannot be joined: {why}; begin another run, or back the bucket up without --shard"
    ))
}

/// Says what shards that tile do not have in common, though they should.
fn disagreement(cells: &[Cell]) -> Option<&'static str> {
    let source = |cell: &Cell| match cell.sources.as_slice() {
        [one] => Some(one.path.clone()),
        _ => None,
    };
    let passage = |cell: &Cell| -> Vec<(String, String)> {
        let options = cell.options.iter();
        let listed = options.filter(|(name, _)| name.starts_with("listed/"));
        listed
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    let first = cells.first()?;
    if cells
        .iter()
        .any(|cell| source(cell).is_none() || source(cell) != source(first))
    {
        return Some("its shards are not of one bucket");
    }
    if cells.iter().any(|cell| passage(cell) != passage(first)) {
        return Some("its shards left out different objects");
    }
    None
}

/// A session that makes one tree of those of shards.
struct Joining<'a> {
    repository: &'a Arc<Repository>,
    author: &'a Author,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
    packer: Packer,
    opened: Option<Opened>,
}

/// A cell that was made, what became of it, and what is known of the repository.
type Made = (Option<Cell>, Option<Outcome>, View);

impl<'a> Joining<'a> {
    fn start(
        repository: &'a Arc<Repository>,
        author: &'a Author,
        progress: &'a dyn Progress,
        cancel: &'a Cancel,
    ) -> Result<Self> {
        repository.index().drop_pending()?;
        let options = PackerOptions {
            compression: Compression::Level(3),
            solid: true,
            verify_blocks: true,
            dry_run: false,
        };
        Ok(Self {
            repository,
            author,
            progress,
            cancel,
            packer: Packer::start(repository, SessionId::default(), options)?,
            opened: None,
        })
    }

    /// Joins the trees under a session of its own; nothing if a shard went meanwhile.
    fn make(
        &mut self,
        run: &RunId,
        cells: &[Cell],
        before: View,
    ) -> Result<Option<(Cell, Outcome)>> {
        let parent = cells.first().and_then(|cell| cell.parent);
        let is_common = cells.iter().all(|cell| cell.parent == parent);
        let live = before.live();
        let base = match parent.filter(|id| is_common && live.contains(id)) {
            Some(id) => Base::Parent(id),
            None => Base::None,
        };
        let opened = session::open(self.repository, base, self.author, before)?;
        self.repository.index().disown_pending()?;
        self.packer.succeed(opened.id)?;
        let live = opened.view.live();
        let opened = self.opened.insert(opened);
        // Cells are listed before what collectors wrote is read: a state that came in between may be of a reading that
        // found a shard forgotten, and of a shard that is no base nothing was kept for this session. What lives in a
        // listing from now on lived in that reading, too.
        let after = view::read_cells(self.repository, Some(&opened.view))?.live();
        let lives = |cell: &Cell| live.contains(&cell.id) && after.contains(&cell.id);
        if !cells.iter().all(lives) {
            return Ok(None);
        }
        for cell in cells {
            must_be_in_range(self.repository, cell)?;
        }
        if !opened.trusts_live(self.repository) {
            let trusted = opened.trusted(self.repository);
            let trusted = trusted.and_then(|id| opened.view.cells.get(&id));
            // Theirs and not the joined one: what is new of that cannot be read back yet.
            let trees: Vec<Source> = cells.iter().flat_map(|cell| cell.sources.clone()).collect();
            let (packer, repository) = (&mut self.packer, self.repository);
            let (progress, cancel) = (self.progress, self.cancel);
            let carried = carry(packer, repository, &trees, trusted, progress, cancel)?;
            if let Carried::Gone(why) = carried {
                return Err(EngineError::NotFound(format!(
                    "parts of what the shards have are deleted or damaged ({why}); begin another run"
                )));
            }
        }
        self.progress.phase("joining", None, None);
        let tree = join_trees(self.repository, &mut self.packer, cells)?;
        self.cancel.check()?;
        let mut segments = self.packer.flush()?;
        self.packer.protect();
        segments.sort_unstable();
        let mut cell = joined_cell(run, cells, tree);
        let written = self.packer.written();
        let counted = &mut cell.statistics;
        counted.new_chunk_bytes = counted.new_chunk_bytes.saturating_add(written.plain_bytes);
        counted.stored_bytes = counted.stored_bytes.saturating_add(written.stored_bytes);
        counted.new_chunks = counted.new_chunks.saturating_add(written.chunks);
        cell.id = opened.id;
        cell.parent = parent.filter(|_| is_common);
        cell.segments = segments;
        cell.config = self.repository.config().number;
        cell.seen_cells = session::seen_cells(&opened.view);
        cell.seen_round = opened.view.collection.newest();
        let outcome = session::commit(self.repository, &cell, &opened.view.collection)?;
        self.packer.land()?;
        Ok(Some((cell, outcome)))
    }

    /// Ends a session that committed nothing, and gives what became of it.
    fn ended(&mut self, made: Result<Option<(Cell, Outcome)>>) -> Result<Made> {
        let Some(opened) = self.opened.take() else {
            return made.map(|_| (None, None, View::default()));
        };
        let Opened { id, base, view, .. } = opened;
        match made {
            Ok(Some((cell, outcome))) => Ok((Some(cell), Some(outcome), view)),
            Ok(None) => {
                session::end(self.repository, &id, base, self.author, &view)?;
                Ok((None, None, view))
            }
            Err(error) => {
                // If the storage does not let it end, a collector will end the session.
                let _ = session::end(self.repository, &id, base, self.author, &view);
                Err(error)
            }
        }
    }
}

/// Makes one tree of those of shards, in the order of their keys, by taking over whole nodes.
fn join_trees(repository: &Arc<Repository>, packer: &mut Packer, cells: &[Cell]) -> Result<Source> {
    let sources: Vec<&Source> = cells.iter().flat_map(|cell| &cell.sources).collect();
    let Some(first) = sources.first() else {
        return Err(EngineError::Internal("there is nothing to join".to_owned()));
    };
    let roots: Vec<Root> = sources.iter().map(|source| root(source)).collect();
    let mut sink = |node: NodeOut| -> Result<ChunkId> {
        let id = packer.chunk_id(node.chunk_type, &node.plain);
        packer.put(node.chunk_type, id, &node.plain, None)?;
        Ok(id)
    };
    let boundary = repository.keyring().boundary_key();
    let mut reader = ChunkReader::new(repository)?;
    let root = merge::join(&mut reader, boundary, &roots, &mut sink)?;
    packer.end_blocks();
    Ok(Source {
        path: first.path.clone(),
        root: root.id,
        level: root.level,
        entries: root.entries,
        bytes: root.bytes,
    })
}

fn root(source: &Source) -> Root {
    Root {
        id: source.root,
        level: source.level,
        entries: source.entries,
        bytes: source.bytes,
    }
}

/// Refuses a shard whose tree has keys that are another's; reads two nodes a level.
fn must_be_in_range(repository: &Arc<Repository>, cell: &Cell) -> Result<()> {
    let (Some(shard), Some(source)) = (&cell.shard, cell.sources.first()) else {
        return Ok(());
    };
    let mut cursor = Cursor::new(ChunkReader::new(repository)?, &root(source));
    let first = cursor.next_entry()?;
    let mut is_outside = first.is_some_and(|entry| !shard.range.has(&entry.key));
    if let Some(last) = &shard.range.last {
        cursor.skip_to(&[last, [0].as_slice()].concat())?;
        is_outside |= cursor.next_entry()?.is_some();
    }
    match is_outside {
        true => Err(refused(
            &shard.name,
            &format!("shard {} has keys outside of its range", shard.number),
        )),
        false => Ok(()),
    }
}

/// Makes the cell of what shards have together.
fn joined_cell(run: &RunId, cells: &[Cell], tree: Source) -> Cell {
    let first = cells.first();
    let mut tags: Vec<String> = cells.iter().flat_map(|cell| cell.tags.clone()).collect();
    tags.sort();
    tags.dedup();
    // A cell with more of them opens nowhere.
    tags.truncate(TAGS);
    let mut options: BTreeMap<String, String> =
        first.map(|cell| cell.options.clone()).unwrap_or_default();
    let since = cells.iter().map(read_from).min().unwrap_or_default();
    options.insert(READ_FROM.to_owned(), since.to_string());
    options.extend([runs::joined_option(run)]);
    let statistics = cells.iter().map(|cell| &cell.statistics);
    Cell {
        kind: CellKind::Complete,
        id: SessionId::default(),
        predecessor: None,
        parent: None,
        started: cells
            .iter()
            .map(|cell| cell.started)
            .min()
            .unwrap_or_default(),
        ended: session::now_ns(),
        host: first.map(|cell| cell.host.clone()).unwrap_or_default(),
        user: first.map(|cell| cell.user.clone()).unwrap_or_default(),
        tags,
        sources: vec![tree],
        segments: Vec::new(),
        statistics: statistics.fold(Statistics::default(), |sum, one| sum_of(&sum, one)),
        options,
        program: session::PROGRAM.to_owned(),
        config: 0,
        seen_cells: Vec::new(),
        seen_round: 0,
        shard: None,
    }
}

fn sum_of(one: &Statistics, two: &Statistics) -> Statistics {
    let sum = |of: fn(&Statistics) -> u64| of(one).saturating_add(of(two));
    Statistics {
        files: sum(|of| of.files),
        directories: sum(|of| of.directories),
        others: sum(|of| of.others),
        new: sum(|of| of.new),
        changed: sum(|of| of.changed),
        unchanged: sum(|of| of.unchanged),
        unreadable: sum(|of| of.unreadable),
        changed_while_read: sum(|of| of.changed_while_read),
        read_bytes: sum(|of| of.read_bytes),
        new_chunk_bytes: sum(|of| of.new_chunk_bytes),
        stored_bytes: sum(|of| of.stored_bytes),
        new_chunks: sum(|of| of.new_chunks),
        // Nobody knows what these are, or whether they add up.
        unknown: BTreeMap::new(),
    }
}

/// Forgets the shards of a run, their checkpoints, and what others made of it at the same time.
fn forget_others(
    repository: &Repository,
    run: &RunId,
    snapshot: SessionId,
    mut view: View,
    author: &Author,
) -> Result<()> {
    // What it became has to be there before what it was made of goes.
    let name = names::cell(&snapshot);
    if let Some(one) = view.unusable.iter().find(|one| one.object == name) {
        let why = format!("{}; the shards that it was made of stay", one.why);
        return Err(EngineError::Damaged { object: name, why });
    }

    let live = view.live();
    let is_of_run = |cell: &&Cell| {
        let is_other = runs::joined_run(cell).as_ref() == Some(run) && cell.id != snapshot;
        (runs::shard_run(cell).as_ref() == Some(run) || is_other) && live.contains(&cell.id)
    };
    let going: Vec<SessionId> = view
        .cells
        .values()
        .filter(is_of_run)
        .map(|cell| cell.id)
        .collect();
    for id in going {
        match amend(repository, &mut view, &id, &Wish::Forget, author) {
            Ok(amend::Outcome::Pinned) => {
                let name = id.snapshot_name();
                tracing::warn!("{name} was pinned, and stays beside what was made of its run");
            }
            Ok(_) => {}
            // Somebody else forgot it, and a prune has cleared it.
            Err(EngineError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
