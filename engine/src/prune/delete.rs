//! Deleting what the newest state lets go. It needs no memory of the run that made the state, and can
//! be done again by anybody after any interruption.

use std::collections::{BTreeMap, BTreeSet};

use larder_format::ids::{ObjectId, SessionId};
use larder_format::names::{self, Name};
use larder_format::segment::Owner;

use super::Run;
use super::facts::Facts;
use super::inventory::Inventory;
use super::survey::Found;
use crate::at_once;
use crate::error::{EngineError, Result};
use crate::ledger;
use crate::parity;
use crate::protocol::{self, Rule, keeps};
use crate::shards::runs;
use crate::view;

/// Names that are deleted between two looks at the progress.
const BATCH: usize = 256;

/// Deletes what the newest state lists as deleted, and every record that it made dead.
pub(super) fn delete(run: &mut Run<'_>, facts: &Facts, found: &Found) -> Result<()> {
    let inventory = &found.inventory;
    let packs = packs(run, facts, inventory);
    let mut records = records(facts, inventory);
    let segments = segments(run, facts, inventory)?;
    records.extend(runs::outdated(
        run.repository,
        &facts.view,
        &inventory.runs,
    )?);
    let total = packs.len() + records.len() + segments.len();
    if total == 0 {
        return Ok(());
    }
    run.progress.phase("deleting", Some(total as u64), None);
    let bytes = |id: &ObjectId| inventory.size(id).unwrap_or_default();
    let pack_names = packs.iter().map(|id| (names::pack(id), bytes(id)));
    remove(run, pack_names)?;
    run.report.packs_deleted += packs.len() as u64;
    run.report.bytes_deleted += packs.iter().map(bytes).sum::<u64>();
    if inventory.has_ledger {
        forget_verified(run, &packs);
    }
    if inventory.has_parity && !packs.is_empty() {
        let cleaned = parity::clean(run.repository, run.cancel)?;
        run.report.parity_deleted += cleaned.deleted;
        let is_kept = run.repository.config().parity().is_some();
        run.report.packs_without_parity = is_kept.then_some(cleaned.unprotected);
    }
    remove(run, segments.iter().map(|id| (names::segment(id), 0)))?;
    run.report.segments_deleted += segments.len() as u64;
    run.report.records_deleted += records.len() as u64;
    remove(run, records.into_iter().map(|name| (name.to_string(), 0)))
}

/// Takes deleted packs out of the ledger; what stays there by a failure the next check takes out.
fn forget_verified(run: &mut Run<'_>, packs: &[ObjectId]) {
    if packs.is_empty() {
        return;
    }
    if let Err(error) = ledger::forget(run.repository, packs) {
        tracing::warn!("the ledger still names packs that were deleted: {error}");
    }
}

/// Gives the packs to delete; one that is the only place of something needed is refused.
fn packs(run: &mut Run<'_>, facts: &Facts, inventory: &Inventory) -> Vec<ObjectId> {
    let mut going = Vec::new();
    for id in &facts.collection().state.deleted {
        if inventory.size(id).is_none() {
            continue;
        }
        let is_needed = inventory
            .packs
            .find(id)
            .is_some_and(|row| row.usage.kept > 0);
        if is_needed {
            let name = names::pack(id);
            run.warn(&format!(
                "{name} was to be deleted and is the only place left of something needed: it stays; run `larder check`"
            ));
        } else {
            going.push(*id);
        }
    }
    if !keeps(Rule::CondemnOrphans) {
        going.extend(inventory.unnamed.keys());
    }
    going.sort_unstable();
    going.dedup();
    going
}

/// Gives the records that nobody needs any more.
fn records(facts: &Facts, inventory: &Inventory) -> Vec<Name> {
    let collection = facts.collection();
    let with_number = |ids: &BTreeSet<SessionId>| -> BTreeMap<SessionId, u64> {
        ids.iter().map(|id| (*id, id.round())).collect()
    };
    let mut cells = with_number(&inventory.cells);
    // Amendments may have outlived their cell in a run that was interrupted.
    cells.extend(inventory.amendments.keys().map(|id| (*id, id.round())));
    let mut sessions = with_number(&inventory.sessions);
    sessions.extend(inventory.ends.iter().map(|id| (*id, id.round())));
    let numbers: BTreeSet<u64> = inventory.collector.iter().filter_map(number).collect();
    let numbers: Vec<u64> = numbers.into_iter().collect();
    let clearable = protocol::clearable(&cells, &sessions, &numbers, collection);
    let mut names = Vec::new();
    for id in &clearable.cells {
        names.extend(inventory.cells.contains(id).then_some(Name::Cell(*id)));
        let amendments = inventory.amendments.get(id).into_iter().flatten();
        names.extend(amendments.map(|number| Name::Amendment(*id, *number)));
    }
    for id in &clearable.sessions {
        names.extend(
            inventory
                .sessions
                .contains(id)
                .then_some(Name::Session(*id)),
        );
        names.extend(inventory.ends.contains(id).then_some(Name::SessionEnd(*id)));
    }
    let is_old =
        |name: &&Name| number(name).is_some_and(|n| clearable.collector_records.contains(&n));
    names.extend(inventory.collector.iter().filter(is_old));
    names
}

fn number(name: &Name) -> Option<u64> {
    match name {
        Name::Round(number) | Name::State(number) => Some(*number),
        _ => None,
    }
}

/// Gives the segments that count no more and never will.
fn segments(run: &mut Run<'_>, facts: &Facts, inventory: &Inventory) -> Result<Vec<ObjectId>> {
    let counting = facts.collection().counting_segments(&facts.cells);
    let mut going = Vec::new();
    for id in inventory
        .segments
        .keys()
        .filter(|id| !counting.contains(id))
    {
        run.cancel.check()?;
        let owner = match view::read_segment(run.repository, id) {
            Ok(segment) => segment.owner,
            Err(EngineError::Damaged { object, why }) => {
                run.warn(&format!(
                    "{object} counts for nothing and cannot be read: {why}; it is left there"
                ));
                continue;
            }
            Err(error) => return Err(error),
        };
        let (is_of_round, number) = match owner {
            Owner::Session(session) => (false, session.round()),
            Owner::Round(number) => (true, number),
        };
        if protocol::may_delete_segment(false, is_of_round, number, facts.collection()) {
            going.push(*id);
        }
    }
    Ok(going)
}

/// Deletes objects, several at a time.
fn remove(run: &Run<'_>, names: impl Iterator<Item = (String, u64)>) -> Result<()> {
    let storage = run.repository.storage();
    let mut names = names.peekable();
    while names.peek().is_some() {
        run.cancel.check()?;
        let batch: Vec<_> = names.by_ref().take(BATCH).collect();
        let calls = run.repository.calls_at_once();
        let deleted = at_once::map(calls, &batch, |(name, _)| storage.delete(name));
        deleted
            .into_iter()
            .collect::<std::result::Result<(), _>>()?;
        let bytes = batch.iter().map(|(_, bytes)| bytes).sum();
        run.progress.advance(batch.len() as u64, bytes);
    }
    Ok(())
}
