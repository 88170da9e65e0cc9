//! Runs of several shards, as they are recorded (SPEC.md §11 and §12).

use std::collections::BTreeSet;

use bytes::Bytes;
use larder_format::cell::{Cell, CellKind};
use larder_format::ids::{RunId, SessionId, decode_hex, encode_hex};
use larder_format::names;
use larder_format::record::{Record, seal_record};
use larder_format::run::{Run, RunEnd};

use crate::clock;
use crate::error::{EngineError, Result};
use crate::random;
use crate::repository::Repository;
use crate::rewrite::{copied_from, is_from_elsewhere};
use crate::storage::create_or_confirm;
use crate::storage::error::ErrorKind;
use crate::view::{self, View};

/// The option of a cell that says of which run's shards it was made, as hex digits.
const JOINED_RUN: &str = "joined-run";
/// Nanoseconds after the last sign of a run for which its shards are kept: 14 days.
pub(crate) const RUN_NS: i64 = 14 * 86_400 * 1_000_000_000;

/// Gives the name and the value of the option of a cell that was made of a run's shards.
pub(super) fn joined_option(run: &RunId) -> (String, String) {
    (JOINED_RUN.to_owned(), encode_hex(&run.0))
}

/// Gives the run of whose shards a cell was made.
pub(crate) fn joined_run(cell: &Cell) -> Option<RunId> {
    let mut id = RunId::default();
    let text = cell.options.get(JOINED_RUN)?;
    // A copy of it, less some paths or in another repository, is not what the run became.
    let is_copy = copied_from(cell).is_some() || is_from_elsewhere(cell);
    let is_first = cell.kind == CellKind::Complete && !is_copy;
    (is_first && decode_hex(text, &mut id.0)).then_some(id)
}

/// Gives the run that a cell is a shard of, finished or not.
pub(crate) fn shard_run(cell: &Cell) -> Option<RunId> {
    cell.shard.as_ref().map(|shard| shard.run)
}

/// Reads how a run divided its bucket; none if nobody has begun it.
pub(super) fn read(repository: &Repository, id: &RunId) -> Result<Option<Run>> {
    let refused = |why: String| {
        EngineError::Request(format!(
            "what divides this run among its shards cannot be used ({}: {why}); give all shards another --run",
            names::run(id)
        ))
    };
    match read_record(repository, &names::Name::Run(*id)) {
        Err(EngineError::Damaged { why, .. }) => Err(refused(why)),
        other => other,
    }
}

/// Reads which snapshot a run became; none if that is not decided.
pub(super) fn read_end(repository: &Repository, id: &RunId) -> Result<Option<RunEnd>> {
    read_record(repository, &names::Name::RunEnd(*id))
}

fn read_record<R: Record>(repository: &Repository, name: &names::Name) -> Result<Option<R>> {
    match view::read_record::<R>(repository, name) {
        Ok(record) => Ok(Some(record)),
        // A record that is not there is told as damage by those who expect it.
        Err(error) => match repository.storage().size(&name.to_string()) {
            Err(gone) if gone.kind == ErrorKind::NotFound => Ok(None),
            _ => Err(error),
        },
    }
}

/// Publishes how a run divides its bucket, unless somebody was faster; gives what counts.
pub(super) fn publish(repository: &Repository, run: Run) -> Result<Run> {
    match create(repository, &run)? {
        true => Ok(run),
        false => read(repository, &run.id)?.ok_or_else(|| {
            let name = names::run(&run.id);
            EngineError::Internal(format!("{name} was there and is gone again"))
        }),
    }
}

/// Decides that a run became a snapshot, unless another one was named; gives the one that was.
pub(super) fn decide(repository: &Repository, id: &RunId, cell: SessionId) -> Result<SessionId> {
    let end = RunEnd {
        id: *id,
        ended: clock::now_ns(),
        snapshot: cell,
    };
    if create(repository, &end)? {
        return Ok(cell);
    }
    let theirs = read_end(repository, id)?;
    Ok(theirs.map_or(cell, |theirs| theirs.snapshot))
}

/// Creates a record; tells whether it was the first under its name.
fn create<R: Record>(repository: &Repository, record: &R) -> Result<bool> {
    let (uid, random) = (random::bytes()?, random::bytes()?);
    let object = seal_record(repository.keyring(), record, uid, &random)?;
    let name = record.name().to_string();
    match create_or_confirm(repository.storage(), &name, &Bytes::from(object)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives the snapshot that a run became, and sees to it that this is decided.
pub(super) fn joined(
    repository: &Repository,
    id: &RunId,
    view: &View,
) -> Result<Option<SessionId>> {
    if let Some(end) = read_end(repository, id)? {
        return Ok(Some(end.snapshot));
    }
    let mut made: Vec<&Cell> = view.cells.values().collect();
    made.retain(|cell| joined_run(cell).as_ref() == Some(id));
    // One that lives goes before one that was forgotten.
    let first = made
        .iter()
        .min_by_key(|cell| (view.is_forgotten(&cell.id), cell.id));
    first
        .map(|cell| decide(repository, id, cell.id))
        .transpose()
}

/// Gives those of the listed runs and run ends that say nothing any more.
///
/// Whatever cannot be read goes: nothing depends on it.
///
/// # Errors
/// What the storage answers.
pub(crate) fn outdated(
    repository: &Repository,
    view: &View,
    listed: &BTreeSet<names::Name>,
) -> Result<Vec<names::Name>> {
    let ids = listed.iter().filter_map(|name| match name {
        names::Name::Run(id) | names::Name::RunEnd(id) => Some(*id),
        _ => None,
    });
    let ids: BTreeSet<RunId> = ids.collect();
    let mut going = Vec::new();
    for id in &ids {
        let mut signs = Vec::new();
        let run = read_record::<Run>(repository, &names::Name::Run(*id));
        let end = read_end(repository, id);
        match (run, end) {
            (Ok(run), Ok(end)) => {
                signs.extend(run.map(|run| run.begun));
                signs.extend(end.map(|end| end.ended));
            }
            (Err(error), _) | (_, Err(error)) if !is_damage(&error) => return Err(error),
            _ => {}
        }
        if !signs.is_empty() {
            let cells = view.cells.values();
            let of_run = cells.filter(|cell| shard_run(cell).as_ref() == Some(id));
            signs.extend(of_run.map(|cell| cell.ended));
        }
        if is_over(signs.into_iter().max().unwrap_or(i64::MIN), clock::now_ns()) {
            let names = [names::Name::RunEnd(*id), names::Name::Run(*id)];
            going.extend(names.into_iter().filter(|name| listed.contains(name)));
        }
    }
    Ok(going)
}

fn is_damage(error: &EngineError) -> bool {
    matches!(error, EngineError::Damaged { .. } | EngineError::Format(_))
}

/// Tells whether nothing was seen of a run for so long that nobody will go on with it.
pub(crate) fn is_over(last_sign: i64, now: i64) -> bool {
    now.saturating_sub(last_sign) > RUN_NS
}
