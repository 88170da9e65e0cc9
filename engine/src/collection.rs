//! Reading what collectors wrote (SPEC.md §12): the newest state, and the round above it.

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(crate) mod fixture;

use std::collections::BTreeSet;

use larder_format::collector::{Round, State};
use larder_format::ids::{ObjectId, SessionId};
use larder_format::names::{self, Name};

use crate::error::{EngineError, Result};
use crate::protocol::{self, Newest, RoundFacts, StateFacts};
use crate::repository::Repository;
use crate::view::read_record;

/// Times that `gc/` is read anew because a collector changed it meanwhile.
const READINGS_MAX: usize = 16;

/// What one reading of `gc/` says.
pub type Collection = protocol::Collection<SessionId, ObjectId>;

impl Collection {
    /// Names the newest state's object.
    pub(crate) fn state_name(&self) -> String {
        names::state(self.state.number)
    }

    /// Gives the numbers of the newest state and of the round above it.
    pub(crate) fn numbers(&self) -> Newest {
        Newest {
            state: self.state.number,
            round: self.round.as_ref().map(|round| round.number),
        }
    }
}

/// Lists the rounds and states that are there, those that no longer count among them.
///
/// # Errors
/// What the storage answers.
pub(crate) fn list(repository: &Repository) -> Result<BTreeSet<Name>> {
    let mut listed = BTreeSet::new();
    repository.storage().list(names::COLLECTOR, &mut |object| {
        listed.extend(names::parse(&object.name));
        Ok(())
    })?;
    Ok(listed)
}

/// Tells which of the listed rounds and states count; `None` if the listing contradicts itself.
pub(crate) fn newest(listed: &BTreeSet<Name>) -> Option<Newest> {
    let (mut rounds, mut states) = (Vec::new(), Vec::new());
    for name in listed {
        match name {
            Name::Round(number) => rounds.push(*number),
            Name::State(number) => states.push(*number),
            _ => {}
        }
    }
    protocol::newest(&rounds, &states)
}

/// Reads the newest state and the round above it, as of one moment.
///
/// What `before` has need not be fetched again.
///
/// # Errors
/// `Damaged` if one of the two cannot be used, or if `gc/` contradicts itself however often it
/// is listed; or what the storage answers.
pub(crate) fn read(repository: &Repository, before: Option<&Collection>) -> Result<Collection> {
    let mut listed = list(repository)?;
    let mut problem = None;
    for _ in 0..READINGS_MAX {
        let read = match newest(&listed) {
            Some(newest) => fetch(repository, newest, before),
            None => Err(EngineError::Damaged {
                object: names::COLLECTOR.to_owned(),
                why: "a round is there although the one before it has no state, so a state is missing"
                    .to_owned(),
            }),
        };
        // The same names before and after: nothing came or went while they were read.
        let again = list(repository)?;
        let is_same = again == listed;
        match read {
            Ok(collection) if is_same => return Ok(collection),
            Ok(_) => {}
            Err(error @ EngineError::Damaged { .. }) if is_same => return Err(error),
            Err(error @ EngineError::Damaged { .. }) => problem = Some(error),
            Err(error) => return Err(error),
        }
        listed = again;
    }
    Err(problem.unwrap_or_else(|| EngineError::Damaged {
        object: names::COLLECTOR.to_owned(),
        why: format!("its listing changed {READINGS_MAX} times while it was read"),
    }))
}

fn fetch(
    repository: &Repository,
    newest: Newest,
    before: Option<&Collection>,
) -> Result<Collection> {
    let state = match before {
        _ if newest.state == 0 => StateFacts::default(),
        Some(before) if before.state.number == newest.state => before.state.clone(),
        _ => state_facts(read_record(repository, &Name::State(newest.state))?),
    };
    let known = before.and_then(|before| before.round.as_ref());
    let round = match (newest.round, known) {
        (None, _) => None,
        (Some(number), Some(known)) if known.number == number => Some(known.clone()),
        (Some(number), _) => Some(round_facts(read_record(repository, &Name::Round(number))?)),
    };
    Ok(Collection { state, round })
}

/// Turns a round's record into what the protocol needs of it.
pub(crate) fn round_facts(round: Round) -> RoundFacts<ObjectId> {
    RoundFacts {
        number: round.number,
        condemned: round.condemned_packs.into_iter().collect(),
        replaced: round.replaced_segments.into_iter().collect(),
        new: round.new_segments.into_iter().collect(),
        suspects: round.suspect_packs.into_iter().collect(),
    }
}

/// Turns a state's record into what the protocol needs of it.
pub(crate) fn state_facts(state: State) -> StateFacts<SessionId, ObjectId> {
    StateFacts {
        number: state.number,
        live: state.live_cells.into_iter().collect(),
        segments: state.segments.into_iter().collect(),
        deleted: state.deleted_packs.into_iter().collect(),
        suspects: state.suspect_packs.into_iter().collect(),
    }
}
