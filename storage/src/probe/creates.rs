//! Whether a storage decides who creates an object, found out by trying.

use std::sync::Barrier;
use std::thread;

use bytes::Bytes;

use super::scratch::{Scratch, random};
use crate::error::{ErrorKind, Result};
use crate::{CreateExclusive, Storage, create_or_confirm};

/// Writers of one race.
const WRITERS: usize = 16;
/// Races: one may come out right by chance.
const RACES: usize = 4;

/// What a storage does when several create one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creates {
    /// Exactly one of them succeeds.
    Exclusive,
    /// It says itself that it cannot tell.
    Undecided,
    /// It says that it decides, and the second takes the first one's place.
    Overwrites,
    /// It says that it decides, and of writers at the same time so many succeeded.
    Races(usize),
}

impl Creates {
    /// Tells whether what decides between a backup and a prune can be left to it.
    #[must_use]
    pub fn is_exclusive(self) -> bool {
        self == Self::Exclusive
    }

    /// Tells whether the storage says that it decides, and does not.
    #[must_use]
    pub fn is_lie(self) -> bool {
        matches!(self, Self::Overwrites | Self::Races(_))
    }

    /// Says what is wrong, for a person; empty if nothing is.
    #[must_use]
    pub fn complaint(self) -> String {
        match self {
            Self::Exclusive => String::new(),
            Self::Undecided => {
                "this kind of storage cannot tell which of two writers was first".to_owned()
            }
            Self::Overwrites => {
                "a second writer took the place of the first and was told that it succeeded"
                    .to_owned()
            }
            Self::Races(winners) => format!(
                "{winners} of {WRITERS} writers at the same time were told that they alone created an object"
            ),
        }
    }
}

/// Tries it: twice one after the other, then sixteen writers at once, several times.
///
/// Leaves nothing behind where it may delete.
///
/// # Errors
/// What the storage answers, other than that there is an object already.
pub fn try_creates(storage: &dyn Storage) -> Result<Creates> {
    try_in(storage, &Scratch::new(storage)?)
}

pub(super) fn try_in(storage: &dyn Storage, scratch: &Scratch<'_>) -> Result<Creates> {
    if storage.capabilities().create_exclusive == CreateExclusive::None {
        return Ok(Creates::Undecided);
    }
    if overwrites(storage, scratch)? {
        return Ok(Creates::Overwrites);
    }
    for round in 0..RACES {
        let winners = race(storage, &scratch.name(&format!("race{round}")))?;
        if winners != 1 {
            return Ok(Creates::Races(winners));
        }
    }
    Ok(Creates::Exclusive)
}

fn overwrites(storage: &dyn Storage, scratch: &Scratch<'_>) -> Result<bool> {
    let name = scratch.name("twice");
    let [first, second] = [nonce(storage)?, nonce(storage)?];
    create_or_confirm(storage, &name, &first)?;
    match create_or_confirm(storage, &name, &second) {
        Ok(()) => Ok(true),
        Err(error) if error.kind == ErrorKind::AlreadyExists => {
            Ok(storage.get(&name, first.len() as u64)? != first)
        }
        Err(error) => Err(error),
    }
}

/// Lets many create one object, each with bytes of its own, and counts who was told that it did.
///
/// An answer that leaves it open is settled by reading, as everywhere.
fn race(storage: &dyn Storage, name: &str) -> Result<usize> {
    let mut writers = Vec::with_capacity(WRITERS);
    for _ in 0..WRITERS {
        writers.push(nonce(storage)?);
    }
    let barrier = Barrier::new(WRITERS);
    let create = |bytes: &Bytes| {
        barrier.wait();
        create_or_confirm(storage, name, bytes)
    };
    let create = &create;
    let outcomes: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = writers
            .iter()
            .map(|bytes| scope.spawn(move || (bytes, create(bytes))))
            .collect();
        threads
            .into_iter()
            .filter_map(|thread| thread.join().ok())
            .collect()
    });
    let mut winners = Vec::new();
    for (bytes, outcome) in outcomes {
        match outcome {
            Ok(()) => winners.push(bytes),
            Err(error) if error.kind == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    // One was told so, and another one's bytes are there: both took themselves for the first.
    let there = storage.get(name, writers.first().map_or(0, Bytes::len) as u64)?;
    if winners.iter().all(|bytes| **bytes != there) {
        return Ok(winners.len() + 1);
    }
    Ok(winners.len())
}

fn nonce(storage: &dyn Storage) -> Result<Bytes> {
    let bytes: [u8; 32] = random(storage)?;
    Ok(Bytes::copy_from_slice(&bytes))
}
