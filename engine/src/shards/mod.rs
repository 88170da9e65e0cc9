//! Runs of several shards: one bucket divided among writers that work at the same time, and joined again.
//!
//! A shard is an ordinary backup of one range of keys, whose cell says which; a join makes one tree of theirs by
//! taking over whole nodes, commits it, and forgets them (SPEC.md §12, shards).

mod divide;
mod join;
pub(crate) mod runs;
#[cfg(test)]
mod tests;
mod tiles;

use std::sync::Arc;

use larder_format::cell::{Cell, CellKind};
use larder_format::ids::SessionId;
use larder_format::limits::{NAME_BYTES, RUN_SHARDS};
use larder_format::run::{Run, Shard};

use crate::backup::BackupOptions;
use crate::cancel::Cancel;
use crate::clock;
use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::session::Author;
use crate::snapshots;
use crate::storage::bucket::Bucket;
use crate::view::View;
use join::Joined;

pub use join::{JoinOptions, JoinReport, join};

/// Which shard of which run a backup is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardOptions {
    /// The run's name, which all of its shards are told.
    pub run: String,
    /// The shard's number, from 1.
    pub number: u64,
    /// How many shards the run has.
    pub count: u64,
}

/// What became of a shard, and of its run.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct ShardReport {
    /// The run's name.
    pub run: String,
    /// The shard's number, from 1.
    pub number: u64,
    /// How many shards there are: fewer than were asked for if the bucket has too few keys.
    pub count: u64,
    /// Id of the shard's part; none if it has nothing to do, or its run was joined before.
    pub part: Option<String>,
    /// Whether there was nothing to do any more: the shard was finished, or its run joined, before.
    pub finished_before: bool,
    /// Numbers of the shards that are not finished.
    pub missing: Vec<u64>,
    /// Id of the snapshot that the run became.
    pub joined: Option<String>,
}

/// What a shard has to do.
pub(crate) enum Begun {
    /// Its range.
    Range(Box<Part>),
    /// Nothing more.
    Over(Box<ShardReport>),
}

/// The range of a shard, and what it is compared with.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub shard: Shard,
    pub parent: Option<SessionId>,
}

/// A bucket that is divided, and what tells whether other objects are left out.
pub(crate) struct Divided<'a> {
    pub bucket: &'a Arc<dyn Bucket>,
    pub left_out: &'a str,
}

/// Refuses what makes no sense for a shard.
///
/// # Errors
/// `Request`.
pub(crate) fn refuse(options: &BackupOptions, shard: &ShardOptions) -> Result<()> {
    let buckets = &options.buckets;
    let others = options.sources.len()
        + options.selection.only.len()
        + options.streams.sources.len()
        + options.streams.databases.len();
    let why = match shard {
        _ if buckets.sources.len() != 1 || others > 0 => {
            "a shard is a range of the keys of one bucket, which has to be all that is backed up"
        }
        _ if shard.number == 0 || shard.number > shard.count => {
            "the shards of a run of N are numbered from 1 to N"
        }
        _ if shard.count > RUN_SHARDS as u64 => "a run has 1024 shards at most",
        _ if shard.run.trim().is_empty() => "the name of a run cannot be empty",
        _ if shard.run.len() > NAME_BYTES => "the name of a run has 1024 bytes at most",
        _ if buckets.changed_keys.is_some() => {
            "what lists nothing cannot be shared out: a run with --changed-keys takes one process, without --shard"
        }
        _ if buckets.sort_listing => {
            "a listing that comes in any order has no ranges: back such a bucket up without --shard"
        }
        _ if options.dry_run => {
            "a shard cannot be tried out, since the first one says for all how the bucket is divided; leave --shard out of a dry run"
        }
        _ if options.skip_if_unchanged => {
            "a shard does not know whether the others change: --skip-if-unchanged does not go with --shard"
        }
        _ => return Ok(()),
    };
    Err(EngineError::Request(why.to_owned()))
}

/// Finds out what a shard has to do; the first one of a run says for all how the bucket is divided.
///
/// # Errors
/// `Request` where it was told otherwise than the run was begun, or what storage and bucket answer.
pub(crate) fn begin(
    repository: &Arc<Repository>,
    options: &BackupOptions,
    told: &ShardOptions,
    divided: &Divided<'_>,
    view: &View,
) -> Result<Begun> {
    let id = repository.keyring().run_id(&told.run);
    let mut report = ShardReport {
        run: told.run.clone(),
        number: told.number,
        count: told.count,
        ..ShardReport::default()
    };
    if let Some(snapshot) = runs::joined(repository, &id, view)? {
        report.finished_before = true;
        report.joined = Some(snapshot.snapshot_name());
        return Ok(Begun::Over(Box::new(report)));
    }
    let run = match runs::read(repository, &id)? {
        Some(run) => run,
        None => runs::publish(
            repository,
            divide(repository, options, told, divided, view)?,
        )?,
    };
    refuse_other(&run, options, told, divided, view)?;
    report.count = run.count();
    let Some(shard) = run.shard(told.number) else {
        return Ok(Begun::Over(Box::new(report)));
    };
    let live = view.live();
    let is_finished = |cell: &&Cell| {
        cell.kind == CellKind::Shard
            && cell.shard.as_ref() == Some(&shard)
            && live.contains(&cell.id)
    };
    if let Some(cell) = view.cells.values().find(is_finished) {
        report.finished_before = true;
        report.part = Some(cell.id.snapshot_name());
        return Ok(Begun::Over(Box::new(report)));
    }
    Ok(Begun::Range(Box::new(Part {
        shard,
        parent: run.parent,
    })))
}

/// Divides the bucket for a run that nobody has begun.
fn divide(
    repository: &Arc<Repository>,
    options: &BackupOptions,
    told: &ShardOptions,
    divided: &Divided<'_>,
    view: &View,
) -> Result<Run> {
    let source = divided.bucket.describe().into_bytes();
    let parent = parent(options, &source, view)?;
    let mut sources = parent.iter().flat_map(|cell| &cell.sources);
    let tree = sources.find(|one| one.path == source);
    Ok(Run {
        id: repository.keyring().run_id(&told.run),
        name: told.run.clone(),
        begun: clock::now_ns(),
        divisions: divide::divide(repository, divided.bucket, tree, told.count)?,
        source,
        host: options.host.clone(),
        asked: told.count,
        left_out: divided.left_out.to_owned(),
        parent: parent.map(|cell| cell.id),
    })
}

/// Gives what all shards of a run are compared with: as for any backup the newest snapshot of the same host and
/// source, unless one is named.
fn parent<'a>(options: &BackupOptions, source: &[u8], view: &'a View) -> Result<Option<&'a Cell>> {
    let ranks = snapshots::order::ranks(&view.cells);
    let rank = |cell: &&Cell| ranks.get(&cell.id).copied();
    let is_same = |cell: &&Cell| {
        let paths = cell.sources.iter().map(|one| one.path.as_slice());
        cell.host == options.host && paths.eq([source])
    };
    Ok(match &options.parent {
        Some(latest) if latest == "latest" => view.snapshots().max_by_key(rank),
        Some(prefix) => Some(snapshots::by_prefix(view, prefix)?),
        None => view.snapshots().filter(is_same).max_by_key(rank),
    })
}

/// Refuses a shard that was told otherwise than the one that began the run.
fn refuse_other(
    run: &Run,
    options: &BackupOptions,
    told: &ShardOptions,
    divided: &Divided<'_>,
    view: &View,
) -> Result<()> {
    let source = divided.bucket.describe();
    let named = match &options.parent {
        Some(_) => parent(options, source.as_bytes(), view)?.map(|cell| cell.id),
        None => run.parent,
    };
    let why = match run {
        _ if run.source != source.as_bytes() => {
            let theirs = String::from_utf8_lossy(&run.source);
            format!("backs up {theirs}, and not {source}; give each bucket a run of its own")
        }
        _ if run.asked != told.count => format!(
            "has {} shards, and not {}; give all of them the same --shard N/{}",
            run.asked, told.count, run.asked
        ),
        _ if run.host != options.host => format!(
            "is of the host {}, and this one is called {}; give all shards the same --host",
            run.host, options.host
        ),
        _ if run.left_out != divided.left_out => {
            "leaves other objects out; give all shards the same patterns".to_owned()
        }
        _ if run.parent != named => {
            "compares with another snapshot; give all shards the same --parent, or none".to_owned()
        }
        _ => return Ok(()),
    };
    Err(EngineError::Request(format!("the run {} {why}", told.run)))
}

/// Joins a run if all of its shards are finished, and says how it stands.
///
/// # Errors
/// As [`join`], but not for shards that are missing.
pub(crate) fn settle(
    repository: &Arc<Repository>,
    options: &BackupOptions,
    mut report: ShardReport,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<ShardReport> {
    let options = JoinOptions {
        run: report.run.clone(),
        author: Author {
            host: options.host.clone(),
            user: options.user.clone(),
        },
    };
    match join::try_join(repository, &options, progress, cancel)? {
        Joined::Snapshot(done) => report.joined = Some(done.snapshot),
        Joined::Missing(missing, _) => report.missing = missing,
    }
    Ok(report)
}
