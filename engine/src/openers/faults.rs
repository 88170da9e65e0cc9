//! What is wrong with configs, key slots and their twins, and from what each is put right; pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use larder_format::config::Config;
use larder_format::ids::{ObjectId, SlotId};
use larder_format::keys::Keyring;
use larder_format::names::Name;
use larder_format::slot::{Slot, read_slot};

use crate::check::{Outcome, Problem};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The object.
    pub name: Name,
    /// What is wrong with it.
    pub problem: Problem,
    /// How it is put right.
    pub mend: Mend,
}

/// How an object is put right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mend {
    /// This object has the bytes that should be there.
    From(Name),
    /// Nothing should be there: it is put aside.
    Aside,
    /// Nothing here has what should be there.
    Nothing,
}

/// An object and its twin, as they were read.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    /// The object.
    pub original: Outcome<Bytes>,
    /// Its twin.
    pub twin: Outcome<Bytes>,
}

/// The slot that opened the repository, and the hash of its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opener {
    /// The slot.
    pub slot: SlotId,
    /// What its bytes are.
    pub object: ObjectId,
}

/// Judges one config and its twin; `newest` is the highest number of one that a holder of the keys made.
pub(crate) fn of_config(number: u64, newest: u64, pair: &Pair, keyring: &Keyring) -> Vec<Fault> {
    let (original, twin) = (Name::Config(number), Name::ConfigTwin(number));
    let open = |outcome: &Outcome<Bytes>| match outcome {
        Ok(object) => match Config::open(keyring, number, object) {
            Ok(_) => Ok(()),
            Err(error) => Err(Problem::Damaged(error.to_string())),
        },
        Err(problem) => Err(problem.clone()),
    };
    let fault = |name, problem, mend| Fault {
        name,
        problem,
        mend,
    };
    match (open(&pair.original), open(&pair.twin)) {
        (Ok(()), Ok(())) if pair.original == pair.twin => Vec::new(),
        (Ok(()), Ok(())) => vec![fault(twin, other_bytes(), Mend::From(original))],
        (Ok(()), Err(problem)) => vec![fault(twin, problem, Mend::From(original))],
        (Err(problem), Ok(())) => vec![fault(original, problem, Mend::From(twin))],
        (Err(one), Err(other)) => {
            let mut faults = Vec::new();
            let mend = match &one {
                // There is nothing to put aside.
                Problem::Missing => Mend::Nothing,
                Problem::Damaged(_) if number > newest => Mend::Aside,
                Problem::Damaged(_) => Mend::Nothing,
            };
            if number <= newest || mend == Mend::Aside {
                faults.push(fault(original, one, mend));
            }
            if matches!(other, Problem::Damaged(_)) {
                faults.push(fault(twin, other, Mend::Aside));
            }
            faults
        }
    }
}

/// Gives a config that a holder of the keys made, from where it is or from its twin.
pub(crate) fn authentic(number: u64, pair: &Pair, keyring: &Keyring) -> Option<Config> {
    let both = [&pair.original, &pair.twin].into_iter();
    let objects = both.filter_map(|outcome| outcome.as_ref().ok());
    let mut opened = objects.filter_map(|object| Config::open(keyring, number, object).ok());
    opened.next()
}

fn other_bytes() -> Problem {
    Problem::Damaged("it has other bytes than what it is the twin of".to_owned())
}

/// Judges the slots that the newest config lists, and their twins.
///
/// Without its secret nobody can tell whose bytes a slot's are. It is known of those that opened the repository, and
/// of those of which object and twin are the same; so two that took each other's places are told apart.
pub(crate) fn of_slots(opener: &Opener, pairs: &BTreeMap<SlotId, Pair>) -> Vec<Fault> {
    let slots = Slots::new(opener, pairs);
    let mut faults = Vec::new();
    for (id, pair) in &slots.read {
        let (original, twin) = (Name::Slot(*id), Name::SlotTwin(*id));
        let mut add = |name, problem, mend| {
            faults.push(Fault {
                name,
                problem,
                mend,
            });
        };
        match (slots.judge(id, &pair[0]), slots.judge(id, &pair[1])) {
            (Ok(one), Ok(other)) if one == other => {}
            (Ok(_), Ok(_)) => add(
                original,
                Problem::Damaged(
                    "it and its twin have different bytes, and which of them are right its own secret alone tells: open the repository with it".to_owned(),
                ),
                Mend::Nothing,
            ),
            (Ok(_), Err(problem)) => add(twin, problem, Mend::From(original)),
            (Err(problem), Ok(_)) => add(original, problem, Mend::From(twin)),
            (Err(one), Err(other)) => {
                let mend = slots.elsewhere(id).map_or(Mend::Nothing, Mend::From);
                add(original, one, mend);
                if mend != Mend::Nothing || other != Problem::Missing {
                    add(twin, other, mend);
                }
            }
        }
    }
    faults
}

/// Slots and their twins, and whose bytes are known.
struct Slots {
    /// Of each the object and its twin.
    read: BTreeMap<SlotId, [Outcome<ObjectId>; 2]>,
    owners: BTreeMap<ObjectId, SlotId>,
}

impl Slots {
    fn new(opener: &Opener, pairs: &BTreeMap<SlotId, Pair>) -> Self {
        let hash = |id: &SlotId, outcome: &Outcome<Bytes>| match outcome {
            Ok(object) => match read_slot(id, object) {
                Ok(Slot { object, .. }) => Ok(object),
                Err(error) => Err(Problem::Damaged(error.to_string())),
            },
            Err(problem) => Err(problem.clone()),
        };
        let mut owners = BTreeMap::from([(opener.object, opener.slot)]);
        let mut read = BTreeMap::new();
        for (id, pair) in pairs {
            let both = [hash(id, &pair.original), hash(id, &pair.twin)];
            if let [Ok(one), Ok(other)] = &both
                && one == other
                && *id != opener.slot
            {
                owners.entry(*one).or_insert(*id);
            }
            read.insert(*id, both);
        }
        Self { read, owners }
    }

    /// Tells whether bytes that stand under the name of a slot, or of its twin, may be that slot's.
    fn judge(&self, id: &SlotId, found: &Outcome<ObjectId>) -> Outcome<ObjectId> {
        let object = found.clone()?;
        match self.owners.get(&object) {
            Some(owner) if owner == id => Ok(object),
            Some(owner) => Err(Problem::Damaged(format!(
                "it has the bytes of the key slot {owner}"
            ))),
            None if self.owners.values().any(|owner| owner == id) => Err(Problem::Damaged(
                "it has the bytes of another key slot".to_owned(),
            )),
            None => Ok(object),
        }
    }

    /// Finds the bytes of a slot under the name of another one.
    fn elsewhere(&self, id: &SlotId) -> Option<Name> {
        let names = |id: &SlotId| [Name::Slot(*id), Name::SlotTwin(*id)];
        for (other, pair) in &self.read {
            for (found, name) in pair.iter().zip(names(other)) {
                if found
                    .as_ref()
                    .is_ok_and(|one| self.owners.get(one) == Some(id))
                {
                    return Some(name);
                }
            }
        }
        // One whose place these bytes took may have gone to theirs.
        let [Ok(here), _] = self.read.get(id)? else {
            return None;
        };
        let owner = self.owners.get(here)?;
        match self.read.get(owner)? {
            [Ok(there), _] if !self.owners.contains_key(there) => Some(Name::Slot(*owner)),
            _ => None,
        }
    }
}
