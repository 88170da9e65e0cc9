//! Rounds: making one, waiting for those whom it concerns, and ending it with a state.

use std::collections::BTreeSet;
use std::time::Duration;

use larder_format::collector::{Round, State};
use larder_format::ids::ObjectId;
use larder_format::names;
use larder_format::segment::{Owner, Segment, SegmentPack};
use larder_format::session::Base;

use super::facts::{Facts, Open};
use super::plan::{Plan, PlannedPack};
use super::repack::repack;
use super::room::{Created, is_full};
use super::survey::{Found, survey};
use super::{Run, Waiting, WaitingSession};
use crate::clock;
use crate::error::{EngineError, Result};
use crate::mark::Needed;
use crate::protocol::{self, Kept, Newest, Rule, keeps};
use crate::random;
use crate::session;
use crate::view;

/// Encoded directory bytes of a merged segment.
const SEGMENT_DIRECTORY_BYTES: usize = 8 << 20;
/// How often the sessions are looked at that are waited for.
const POLL: Duration = Duration::from_secs(2);

/// What became of making or ending a round.
pub(super) enum Ended {
    /// It has been done.
    Done,
    /// Sessions are open that it has to wait for.
    Waiting(Waiting),
    /// Another collector was faster, or what was planned does not hold: all is read anew.
    Again,
}

/// Makes the round that a plan asks for.
pub(super) fn make(
    run: &mut Run<'_>,
    facts: &Facts,
    found: &Found,
    marks: &Needed,
    plan: &Plan,
) -> Result<Ended> {
    // Another collector began one since this run looked: that one is ended first.
    if facts.collection().round.is_some() {
        return Ok(Ended::Again);
    }
    let number = facts.collection().newest() + 1;
    let mut new_segments = Vec::new();
    let mut repacked = Vec::new();
    if !plan.repack.is_empty() {
        let copied = found.copied(run.repository, marks, &plan.repack)?;
        let deadline = run.options.max_duration.map(|limit| run.started + limit);
        match repack(run, &plan.repack, &copied, number, deadline) {
            Ok(outcome) if outcome.suspects.is_empty() => {
                new_segments.extend(outcome.segments);
                run.report.bytes_written += outcome.written_bytes;
                repacked = outcome.done;
            }
            Ok(outcome) => {
                run.suspects.extend(outcome.suspects);
                return Ok(Ended::Again);
            }
            Err(error) if is_full(&error) => {
                run.warn("the storage is full: nothing is repacked in this run, and what can be deleted is; run prune again afterwards");
                run.may_repack = false;
                return Ok(Ended::Again);
            }
            Err(error) => return Err(error),
        }
    }
    let condemned = condemned(plan, &repacked, facts);
    let mut replaced = plan.merge_segments.clone();
    match merge(run, facts, &replaced, &condemned, number) {
        Ok(merged) => new_segments.extend(merged),
        Err(error) if is_full(&error) => replaced.clear(),
        Err(error) => return Err(error),
    }
    new_segments.sort_unstable();
    let round = Round {
        number,
        condemned_packs: condemned.into_iter().collect(),
        replaced_segments: replaced,
        new_segments,
        suspect_packs: run.suspects.iter().copied().collect(),
        time: session::now_ns(),
        host: run.options.author.host.clone(),
    };
    if !keeps(Rule::ListAfterRound) {
        run.listed_early = Some(Facts::read(run.repository)?.open);
    }
    run.cancel.check()?;
    if run.room.create(run.repository, &round, Rule::CreateRound)? == Created::Lost {
        return Ok(Ended::Again);
    }
    run.seen = Some(Newest {
        state: facts.collection().state.number,
        round: Some(number),
    });
    run.report.round = Some(number);
    run.report.packs_repacked += repacked.len() as u64;
    run.report.bytes_repacked += repacked.iter().map(|pack| pack.bytes).sum::<u64>();
    Ok(Ended::Done)
}

/// Gives the packs that a round condemns.
fn condemned(plan: &Plan, repacked: &[PlannedPack], facts: &Facts) -> BTreeSet<ObjectId> {
    let mut going: BTreeSet<ObjectId> = plan.delete.iter().map(|pack| pack.id).collect();
    going.extend(repacked.iter().map(|pack| pack.id));
    if keeps(Rule::CondemnOrphans) {
        going.extend(plan.orphans.iter().map(|pack| pack.id));
    }
    protocol::condemned(&going, &BTreeSet::new(), facts.collection())
}

/// Writes segments that replace others, without the packs that are deleted.
fn merge(
    run: &Run<'_>,
    facts: &Facts,
    replaced: &[ObjectId],
    condemned: &BTreeSet<ObjectId>,
    round: u64,
) -> Result<Vec<ObjectId>> {
    let deleted = &facts.collection().state.deleted;
    let is_dropped = |pack: &ObjectId| {
        deleted.contains(pack) || (!keeps(Rule::DropOnlyDeleted) && condemned.contains(pack))
    };
    let mut written = Vec::new();
    let mut seen = BTreeSet::new();
    let mut packs: Vec<SegmentPack> = Vec::new();
    let mut bytes = 0;
    for id in replaced {
        run.cancel.check()?;
        for pack in view::read_segment(run.repository, id)?.packs {
            if is_dropped(&pack.id) || !seen.insert(pack.id) {
                continue;
            }
            let more = pack.encoded_bytes_max();
            if bytes + more > SEGMENT_DIRECTORY_BYTES && !packs.is_empty() {
                written.push(write_segment(run, round, std::mem::take(&mut packs))?);
                bytes = 0;
            }
            bytes += more;
            packs.push(pack);
        }
    }
    if !packs.is_empty() {
        written.push(write_segment(run, round, packs)?);
    }
    Ok(written)
}

fn write_segment(run: &Run<'_>, round: u64, packs: Vec<SegmentPack>) -> Result<ObjectId> {
    let segment = Segment {
        owner: Owner::Round(round),
        packs,
    };
    let keyring = run.repository.keyring();
    let (id, object) = segment.seal(keyring, random::bytes()?, &random::bytes()?)?;
    run.room.put(run.repository, &names::segment(&id), object)?;
    // Read back before anything relies on it.
    if view::read_segment(run.repository, &id)? == segment {
        Ok(id)
    } else {
        Err(EngineError::damaged(
            &names::segment(&id),
            &"it is not what was written",
        ))
    }
}

/// Ends the round that waits for its state, if the sessions that were open allow it.
pub(super) fn end(run: &mut Run<'_>) -> Result<Ended> {
    let facts = run.read()?;
    let Some(number) = facts.collection().round.as_ref().map(|round| round.number) else {
        return Ok(Ended::Again);
    };
    let listed = run
        .listed_early
        .take()
        .unwrap_or_else(|| facts.open.clone());
    if keeps(Rule::Wait)
        && let Some(waiting) = wait(run, number, &facts, listed)?
    {
        return Ok(Ended::Waiting(waiting));
    }
    // Cells first, then sessions, then packs.
    let facts = run.read()?;
    if facts.collection().round.as_ref().map(|round| round.number) != Some(number) {
        return Ok(Ended::Again);
    }
    if let Some(open) = facts.open.iter().find(|open| open.session.is_none()) {
        let object = names::session(&open.id);
        return Err(EngineError::damaged(
            &object,
            &"it cannot be read, and what it builds on is not known",
        ));
    }
    let round = facts.collection().round.as_ref();
    let must_mark = round.is_some_and(protocol::must_mark_again);
    let kept = if must_mark && keeps(Rule::MarkAgain) {
        let marks = run.mark(&facts)?;
        survey(run.repository, &facts, &marks, &run.suspects)?.kept
    } else {
        Kept {
            rescued: BTreeSet::new(),
            is_unresolved: false,
        }
    };
    let Some(state) = resolve(run, &facts, &kept)? else {
        return Err(EngineError::damaged(
            &names::round(number),
            &"something that is needed has its only place in a pack that was to be deleted before; nothing was deleted",
        ));
    };
    run.cancel.check()?;
    if run.room.create(run.repository, &state, Rule::CreateState)? == Created::Mine {
        run.report.packs_rescued += kept.rescued.len() as u64;
    }
    run.seen = Some(Newest {
        state: number,
        round: None,
    });
    Ok(Ended::Done)
}

/// Builds the state by the rules, and checks that deleted packs stay listed while they are named.
fn resolve(run: &Run<'_>, facts: &Facts, kept: &Kept<ObjectId>) -> Result<Option<State>> {
    let collection = facts.collection();
    let mut named = BTreeSet::new();
    if !collection.state.deleted.is_empty() {
        // Without the packs carried over, the rules tell which segments count.
        let Some(state) = protocol::resolve(&facts.cells, collection, kept, |_, _| false) else {
            return Ok(None);
        };
        for segment in &state.segments {
            let packs = run.repository.index().segment_packs(segment)?;
            named.extend(
                packs
                    .into_iter()
                    .filter(|pack| collection.state.deleted.contains(pack)),
            );
        }
    }
    let state = protocol::resolve(&facts.cells, collection, kept, |_, pack| {
        named.contains(pack)
    });
    Ok(state.map(|state| State {
        number: state.number,
        live_cells: state.live.into_iter().collect(),
        segments: state.segments.into_iter().collect(),
        deleted_packs: state.deleted.into_iter().collect(),
        suspect_packs: state.suspects.into_iter().collect(),
    }))
}

/// Waits for sessions, or revokes those that have had their time; tells which it would wait for.
fn wait(
    run: &mut Run<'_>,
    round: u64,
    facts: &Facts,
    mut open: Vec<Open>,
) -> Result<Option<Waiting>> {
    if !open.is_empty() {
        run.progress
            .phase("waiting for backups", Some(open.len() as u64), None);
    }
    let begun = clock::uptime();
    loop {
        run.cancel.check()?;
        let mut left = Vec::new();
        for one in open {
            // What was open for so long while this run looked has had its time, whatever clocks say.
            if is_due(run, &one) || clock::uptime().saturating_sub(begun) >= run.options.patience {
                revoke(run, facts, &one)?;
                run.report.sessions_revoked += 1;
            } else {
                left.push(one);
            }
        }
        open = left;
        if open.is_empty() {
            return Ok(None);
        }
        if !run.options.wait {
            return Ok(Some(waiting(run, round, &open)));
        }
        clock::sleep(POLL);
        let now = view::read_cells(run.repository, Some(&facts.view))?;
        open.retain(|one| !now.cells.contains_key(&one.id) && !now.dead.contains(&one.id));
    }
}

/// Tells whether a session has had its time.
fn is_due(run: &Run<'_>, open: &Open) -> bool {
    let Some(session) = &open.session else {
        return run.options.patience != Duration::MAX;
    };
    let age = session::now_ns().saturating_sub(session.started);
    u128::try_from(age).is_ok_and(|age| age >= run.options.patience.as_nanos())
}

fn waiting(run: &Run<'_>, round: u64, open: &[Open]) -> Waiting {
    let sessions = open.iter().filter_map(|open| {
        let session = open.session.as_ref()?;
        let since = jiff::Timestamp::from_nanosecond(session.started.into());
        let since = since.unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let until = since.checked_add(run.options.patience);
        Some(WaitingSession {
            session: open.id.snapshot_name(),
            host: session.host.clone(),
            user: session.user.clone(),
            since,
            until: until.unwrap_or(jiff::Timestamp::MAX),
        })
    });
    Waiting {
        round,
        sessions: sessions.collect(),
    }
}

/// Ends a session that has no cell: it can commit no more, unless it just did.
fn revoke(run: &Run<'_>, facts: &Facts, open: &Open) -> Result<Created> {
    let base = open.session.as_ref().map_or(Base::None, |one| one.base);
    let author = &run.options.author;
    let cell = session::revoked(run.repository, open.id, base, author, &facts.view);
    run.room.create(run.repository, &cell, Rule::CreateCell)
}
