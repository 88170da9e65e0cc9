//! New snapshots from old ones, without their sources: undelete, leaving paths out, cutting out what is lost, and
//! copying to another repository.

mod between;
mod copy;
mod cut_out;
mod leave_out;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use larder_format::cell::{Cell, CellKind, Source, Statistics};
use larder_format::ids::SessionId;

use crate::amend::{self, Wish, amend};
use crate::cancel::Cancel;
use crate::carry::{Carried, carry};
use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::restore::select::Choice;
use crate::session::Author;
use crate::snapshots::{self, Filter, SnapshotInfo, Which};
use crate::source::select::{Excludes, Pattern};
use crate::view::{self, View};
use copy::{Copy, Made, first_of};
use leave_out::{LeaveOut, LeftOut};

pub(crate) use between::{Chosen, choose, copy_alone, is_from_elsewhere};
pub(crate) use copy::COPY_OF;

pub use cut_out::Cut;
pub(crate) use cut_out::cut_out;

pub use between::{CopyOptions, CopyReport, EachCopy, copy_all};
pub(crate) use copy::copied_from;

/// How forgotten snapshots are brought back.
#[derive(Debug, Clone)]
pub struct UndeleteOptions {
    /// Who does it.
    pub author: Author,
    /// Writes nothing: tells only whether all of it is still there.
    pub dry_run: bool,
}

/// How paths are left out of snapshots.
#[derive(Debug, Clone)]
pub struct RewriteOptions {
    /// What is left out.
    pub exclude: Excludes,
    /// Leaves the snapshot that paths are left out of as it is; it is forgotten otherwise.
    pub keep_original: bool,
    /// Who does it.
    pub author: Author,
    /// Writes nothing: tells only what would be left out.
    pub dry_run: bool,
}

/// What was made of a snapshot.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct RewriteReport {
    /// The snapshot that it was made from.
    pub from: String,
    /// The new snapshot; none in a dry run, or if nothing is left out.
    pub snapshot: Option<String>,
    /// Whether an earlier run had made the new one already.
    pub existed: bool,
    /// Whether the one that it was made from is forgotten now, and was not before.
    pub forgotten: bool,
    /// Entries of the new snapshot.
    pub entries: u64,
    /// Entries that were left out.
    pub entries_removed: u64,
    /// Bytes of the files among them.
    pub bytes_removed: u64,
    /// Bytes of packs and index written.
    pub bytes_stored: u64,
    /// Seconds that it took.
    pub seconds: f64,
}

/// Takes what was made of each of several snapshots.
pub type Each<'a> = &'a mut dyn FnMut(&RewriteReport) -> Result<()>;

/// Brings the named forgotten snapshots back, or all that the filter takes if none is named.
///
/// A name is an id or a unique prefix of one. All are looked up before anything is written; one of
/// which parts are gone does not keep the others from coming back. Gives the ids of
/// those that are lost, each of which was warned of.
///
/// # Errors
/// As [`undelete`]; `Interrupted`. What was made by then stays.
pub fn undelete_all(
    repository: &Arc<Repository>,
    names: &[String],
    filter: &Filter,
    options: &UndeleteOptions,
    each: Each<'_>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Vec<String>> {
    let view = snapshots::read(repository)?;
    let meant: Vec<SessionId> = if names.is_empty() {
        let forgotten = snapshots::forgotten_of(&view, filter, false);
        let ids = forgotten.iter().map(|one| one.snapshot.session);
        // What was rewritten was to go, and what is back already need not come twice.
        ids.filter(|id| !copy::has_copy(&view, id)).collect()
    } else {
        let found = names.iter().map(|name| Ok(forgotten(&view, name)?.id));
        distinct(found.collect::<Result<_>>()?)
    };
    let mut lost = Vec::new();
    for id in meant {
        cancel.check()?;
        let name = id.snapshot_name();
        match undelete(repository, &name, options, progress, cancel) {
            Ok(report) => each(&report)?,
            Err(EngineError::NotFound(why)) => {
                progress.warning(&why);
                lost.push(name);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(lost)
}

/// Brings a forgotten snapshot back as a new one, if all that it needs is still there.
///
/// `id` may be a unique prefix of the forgotten snapshot's id.
///
/// # Errors
/// `NotFound` if no such snapshot was forgotten, or parts of what it needs are gone; `Request` for an
/// ambiguous prefix; or what the storage answers.
pub fn undelete(
    repository: &Arc<Repository>,
    id: &str,
    options: &UndeleteOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<RewriteReport> {
    let clock = Instant::now();
    repository.check_write()?;
    let view = view::read_cells(repository, None)?;
    let mut cell = forgotten(&view, id)?.clone();
    cell.tags = view.tags(&cell).to_vec();
    let mut report = RewriteReport {
        from: cell.id.snapshot_name(),
        entries: cell.sources.iter().map(|source| source.entries).sum(),
        ..RewriteReport::default()
    };
    if let Some(twin) = twin(&view, &cell, &cell.sources) {
        report.existed = true;
        report.snapshot = Some(twin);
        return Ok(report);
    }
    let mut copy = Copy::start(repository, &options.author, options.dry_run, cancel)?;
    let made = copy.make(&cell, view, &mut |copy, _| {
        let (repository, trees) = (copy.repository, &cell.sources);
        match carry(&mut copy.packer, repository, trees, None, progress, cancel)? {
            Carried::Whole => Ok(Made::Trees(cell.sources.clone())),
            Carried::Gone(why) => Err(EngineError::NotFound(format!(
                "snapshot {} cannot be brought back: parts of what it needs are deleted or damaged ({why})",
                cell.id.snapshot_name()
            ))),
        }
    });
    report.snapshot = copy.finish(made)?;
    report.bytes_stored = copy.packer.written().stored_bytes;
    report.seconds = clock.elapsed().as_secs_f64();
    Ok(report)
}

/// Leaves paths out of the named snapshots, or of all that the filter takes if none is named.
///
/// All are looked up before anything is written. Gives the ids of those that stay as they are because
/// they are damaged, or pinned and not named, or nothing of them would be left; each was warned of.
///
/// # Errors
/// As [`rewrite`]; `Interrupted`. What was made by then stays.
pub fn rewrite_all(
    repository: &Arc<Repository>,
    names: &[Which],
    filter: &Filter,
    options: &RewriteOptions,
    each: Each<'_>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Vec<String>> {
    let patterns = patterns(options)?;
    let view = snapshots::read(repository)?;
    let meant = if names.is_empty() {
        snapshots::of_view(&view, filter, false)
    } else {
        let found = names
            .iter()
            .map(|which| snapshots::resolve_in(&view, which, filter));
        found.collect::<Result<Vec<SnapshotInfo>>>()?
    };
    if !names.is_empty() {
        meant.iter().try_for_each(|info| refuse(info, options))?;
    }
    let unfinished = snapshots::of_view(&view, filter, true);
    let unfinished = unfinished.iter().filter(|info| info.partial).count();
    if unfinished > 0 {
        progress.warning(&format!(
            "{unfinished} unfinished backups left checkpoints, out of which nothing is left; forget \
             those that `larder snapshots --partial` lists if they hold what is to go"
        ));
    }
    let mut left = Vec::new();
    let mut seen = BTreeSet::new();
    for info in meant.iter().filter(|info| seen.insert(info.session)) {
        cancel.check()?;
        let name = info.id.clone();
        let rewritten = refuse(info, options)
            .and_then(|()| rewrite_one(repository, &name, &patterns, options, progress, cancel));
        match rewritten {
            Ok(report) => each(&report)?,
            // The others are not to keep what this one has to.
            Err(
                error @ (EngineError::Damaged { .. }
                | EngineError::NotFound(_)
                | EngineError::Request(_)),
            ) => {
                progress.warning(&format!("snapshot {name} stays as it is: {error}"));
                left.push(name);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(left)
}

/// Makes a snapshot like another one, without the paths that match patterns, and forgets the other
/// one unless it is to stay.
///
/// `id` may be a unique prefix of the snapshot's id. A new one that an interrupted run has made
/// already is not made again.
///
/// # Errors
/// `NotFound` if there is no such snapshot; `Request` for an ambiguous prefix, a pattern that does
/// not parse, patterns that leave nothing, or a pinned snapshot that would be forgotten; `Damaged`,
/// or what the storage answers.
pub fn rewrite(
    repository: &Arc<Repository>,
    id: &str,
    options: &RewriteOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<RewriteReport> {
    let patterns = patterns(options)?;
    let view = view::read_cells(repository, None)?;
    let which = Which::Prefix(id.to_owned());
    let info = snapshots::resolve_in(&view, &which, &Filter::default())?;
    refuse(&info, options)?;
    rewrite_one(repository, &info.id, &patterns, options, progress, cancel)
}

fn rewrite_one(
    repository: &Arc<Repository>,
    id: &str,
    patterns: &[Pattern],
    options: &RewriteOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<RewriteReport> {
    let clock = Instant::now();
    repository.check_write()?;
    let view = view::read_cells(repository, None)?;
    let mut cell = snapshots::by_prefix(&view, id)?.clone();
    cell.tags = view.tags(&cell).to_vec();
    let choices = cell.sources.iter();
    let choices = choices.map(|source| Choice::excluding(patterns, &source.path));
    let choices = choices.collect::<Result<Vec<_>>>()?;
    let mut copy = Copy::start(repository, &options.author, options.dry_run, cancel)?;
    let mut left_out = LeftOut::default();
    let made = copy.make(&cell, view, &mut |copy, statistics| {
        if !copy.sees(&cell) {
            let name = cell.id.snapshot_name();
            return Err(EngineError::NotFound(format!(
                "the snapshot {name} was forgotten by somebody while it was read"
            )));
        }
        left_out = LeftOut::default();
        *statistics = Statistics::default();
        let entries = cell.sources.iter().map(|source| source.entries);
        progress.phase("leaving paths out", Some(entries.sum()), None);
        let mut trees = Vec::new();
        for (source, choice) in cell.sources.iter().zip(&choices) {
            let leave_out = LeaveOut {
                choice,
                progress,
                cancel,
            };
            trees.extend(leave_out.run(copy, source, statistics, &mut left_out)?);
        }
        if left_out.entries == 0 {
            return Ok(Made::Nothing);
        }
        if trees.iter().all(|tree| tree.entries <= 1) {
            return Err(EngineError::Request(format!(
                "the patterns leave nothing of snapshot {}; forget it instead",
                cell.id.snapshot_name()
            )));
        }
        let view = copy.opened.as_ref().map(|opened| &opened.view);
        let twin = view.and_then(|view| twin(view, &cell, &trees));
        Ok(twin.map_or(Made::Trees(trees), Made::Before))
    });
    let mut report = RewriteReport {
        from: cell.id.snapshot_name(),
        existed: copy.has_twin,
        ..RewriteReport::default()
    };
    report.snapshot = copy.finish(made)?;
    if report.snapshot.is_some() && !options.keep_original && !options.dry_run {
        report.forgotten = forget(repository, &cell.id, &options.author, progress)?;
    }
    let before: u64 = cell.sources.iter().map(|source| source.entries).sum();
    report.entries = before.saturating_sub(left_out.entries);
    report.entries_removed = left_out.entries;
    report.bytes_removed = left_out.bytes;
    report.bytes_stored = copy.packer.written().stored_bytes;
    report.seconds = clock.elapsed().as_secs_f64();
    Ok(report)
}

/// Forgets what a new snapshot was made from; tells whether it did.
fn forget(
    repository: &Repository,
    id: &SessionId,
    author: &Author,
    progress: &dyn Progress,
) -> Result<bool> {
    let mut view = view::read_cells(repository, None)?;
    let outcome = amend(repository, &mut view, id, &Wish::Forget, author)?;
    if outcome == amend::Outcome::Pinned {
        let name = id.snapshot_name();
        progress.warning(&format!(
            "snapshot {name} was pinned meanwhile, and stays with all its paths; unpin and forget \
             it if they are to go"
        ));
    }
    Ok(outcome == amend::Outcome::Amended)
}

fn patterns(options: &RewriteOptions) -> Result<Vec<Pattern>> {
    let patterns = options.exclude.patterns();
    let patterns = patterns.map_err(|error| EngineError::Request(error.to_string()))?;
    if patterns.is_empty() {
        return Err(EngineError::Request(
            "no pattern says what is to be left out; give one, e.g. --exclude secret.key"
                .to_owned(),
        ));
    }
    Ok(patterns)
}

/// Refuses a snapshot that cannot be replaced.
fn refuse(info: &SnapshotInfo, options: &RewriteOptions) -> Result<()> {
    let id = &info.id;
    if info.partial {
        return Err(EngineError::Request(format!(
            "{id} is the checkpoint of an unfinished backup; finish that first, or forget the \
             checkpoint"
        )));
    }
    if info.pinned && !options.keep_original {
        return Err(EngineError::Request(format!(
            "snapshot {id} is pinned and may not be replaced; `larder unpin {id}` first, or keep it \
             beside the new one with --keep-original"
        )));
    }
    Ok(())
}

fn distinct(ids: Vec<SessionId>) -> Vec<SessionId> {
    let mut seen = BTreeSet::new();
    let ids = ids.into_iter();
    ids.filter(|id| seen.insert(*id)).collect()
}

/// Finds a snapshot that is made from the same one and holds these trees.
fn twin(view: &View, like: &Cell, trees: &[Source]) -> Option<String> {
    let mut made = view.snapshots();
    let twin = made
        .find(|one| one.id != like.id && first_of(one) == first_of(like) && one.sources == trees);
    twin.map(|twin| twin.id.snapshot_name())
}

/// Finds the one forgotten snapshot that is meant.
fn forgotten<'a>(view: &'a View, prefix: &str) -> Result<&'a Cell> {
    let named = |cell: &&Cell| {
        cell.kind == CellKind::Complete && cell.id.snapshot_name().starts_with(prefix)
    };
    let found: Vec<&Cell> = view.cells.values().filter(named).collect();
    let (forgotten, live): (Vec<&Cell>, Vec<&Cell>) =
        found.iter().partition(|cell| view.is_forgotten(&cell.id));
    match (forgotten.as_slice(), live.as_slice()) {
        ([one], []) => Ok(one),
        ([], []) => Err(EngineError::NotFound(format!(
            "there is no forgotten snapshot {prefix}: it was never there, or a prune has taken it \
             away for good; `larder snapshots --forgotten` lists what can be brought back"
        ))),
        ([], [one]) => Err(EngineError::Request(format!(
            "snapshot {} is not forgotten",
            one.id.snapshot_name()
        ))),
        _ => {
            let names: Vec<_> = found.iter().map(|one| one.id.snapshot_name()).collect();
            Err(EngineError::Request(format!(
                "{prefix} is ambiguous: {}; give more digits",
                names.join(", ")
            )))
        }
    }
}
