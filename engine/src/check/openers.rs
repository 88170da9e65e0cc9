//! What opens the repository: configs and key slots, and their twins, from which they are restored.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use larder_format::ids::SlotId;
use larder_format::names::{self, Name};
use larder_format::verify::{bytes_max, verify};

use super::Severity;
use super::context::{Context, Outcome, Problem, attempt};
use super::findings::Damage;
use crate::error::Result;
use crate::openers::faults::{Fault, Mend, Pair, authentic, of_config, of_slots};

/// What mends all that can be mended without another copy of the repository.
const REPAIR: &str = "`larder repair --apply`";

/// The objects that open the repository, as they are listed.
#[derive(Debug, Default)]
pub(super) struct Openers {
    pub configs: BTreeSet<u64>,
    pub slots: BTreeSet<SlotId>,
    pub config_twins: BTreeSet<u64>,
    pub slot_twins: BTreeSet<SlotId>,
}

impl Openers {
    /// Lists them.
    pub(super) fn list(context: &Context<'_>) -> Result<Self> {
        let mut openers = Self::default();
        for folder in [names::CONFIGS, names::SLOTS, names::TWINS] {
            context.repository.storage().list(folder, &mut |object| {
                if let Some(name) = names::parse(&object.name) {
                    openers.take(&name);
                }
                Ok(())
            })?;
        }
        Ok(openers)
    }

    /// Takes in an object, if it is one of them.
    pub(super) fn take(&mut self, name: &Name) {
        match name {
            Name::Config(number) => drop(self.configs.insert(*number)),
            Name::Slot(id) => drop(self.slots.insert(*id)),
            Name::ConfigTwin(number) => drop(self.config_twins.insert(*number)),
            Name::SlotTwin(id) => drop(self.slot_twins.insert(*id)),
            _ => {}
        }
    }

    /// Checks them all.
    pub(super) fn check(&self, context: &Context<'_>, damage: &mut Damage) -> Result<()> {
        let mut tell = Tell {
            damage,
            has_twins: !self.config_twins.is_empty() || !self.slot_twins.is_empty(),
            lacks_twins: false,
        };
        let slots = self.check_configs(context, &mut tell)?;
        self.check_slots(context, &slots, &mut tell)?;
        // A bundle has none, and takes none.
        let wants_twins = !context.repository.config().is_bundle();
        if tell.lacks_twins && !tell.has_twins && wants_twins {
            let problem = format!(
                "config and key slots have no twins, from which they are restored where they are damaged: {REPAIR} makes them"
            );
            damage.add(Severity::Note, names::TWINS, problem);
        }
        Ok(())
    }

    /// Checks the configs; gives the slots that the one that counts lists.
    fn check_configs(&self, context: &Context<'_>, tell: &mut Tell<'_>) -> Result<Vec<SlotId>> {
        let newest = context.repository.config();
        let mut slots = newest.slots.clone();
        let mut numbers: BTreeSet<u64> = self.configs.union(&self.config_twins).copied().collect();
        numbers.insert(newest.number);
        let mut next = 1;
        for number in numbers {
            if number > next && next <= newest.number {
                tell.config_gap(next, number);
            }
            next = number.saturating_add(1);
            let pair = read_pair(
                context,
                &Name::Config(number),
                self.config_twins.contains(&number),
            )?;
            let keyring = context.repository.keyring();
            let faults = of_config(number, newest.number, &pair, keyring);
            for fault in &faults {
                tell.config(fault, number, newest.number);
            }
            let Some(config) = authentic(number, &pair, keyring) else {
                continue;
            };
            if config.created != newest.created || config.chunker != newest.chunker {
                tell.damage.add(
                    Severity::Harmless,
                    names::config(number),
                    "its creation time or chunker is not that of the newest config; only the newest config counts, and it is not this one",
                );
            }
            // A later one that only its twin has, or that came meanwhile.
            if number > newest.number {
                slots = config.slots;
            }
        }
        Ok(slots)
    }

    fn check_slots(
        &self,
        context: &Context<'_>,
        listed: &[SlotId],
        tell: &mut Tell<'_>,
    ) -> Result<()> {
        let mut pairs = BTreeMap::new();
        for id in listed {
            let pair = read_pair(context, &Name::Slot(*id), self.slot_twins.contains(id))?;
            pairs.insert(*id, pair);
        }
        let faults = of_slots(&context.repository.opener(), &pairs);
        let is_lost =
            |fault: &&Fault| matches!(fault.name, Name::Slot(_)) && fault.mend == Mend::Nothing;
        let none_left = faults.iter().filter(is_lost).count() == pairs.len();
        for fault in &faults {
            tell.slot(fault, none_left);
        }
        for id in self.slots.union(&self.slot_twins) {
            if !listed.contains(id) {
                let name = match self.slots.contains(id) {
                    true => Name::Slot(*id),
                    false => Name::SlotTwin(*id),
                };
                tell.damage.add(
                    Severity::Note,
                    name.to_string(),
                    "the config does not list this key slot, so it opens nothing; it remains from an interrupted change of keys, or somebody put it there",
                );
            }
        }
        Ok(())
    }
}

/// Reads an object and its twin; one that is not listed is not asked for.
fn read_pair(context: &Context<'_>, name: &Name, has_twin: bool) -> Result<Pair> {
    let get = |name: &Name| -> Result<Outcome<Bytes>> {
        context.cancel.check()?;
        attempt(|| {
            let object = context.get(&name.to_string(), bytes_max(name))?;
            verify(*name, &object)?;
            Ok(object)
        })
    };
    Ok(Pair {
        original: get(name)?,
        twin: match name.twin().filter(|_| has_twin) {
            Some(twin) => get(&twin)?,
            None => Err(Problem::Missing),
        },
    })
}

/// Makes findings of faults.
struct Tell<'a> {
    damage: &'a mut Damage,
    has_twins: bool,
    lacks_twins: bool,
}

impl Tell<'_> {
    /// Says that configs are missing from one number up to another.
    fn config_gap(&mut self, from: u64, to: u64) {
        let (first, last) = (names::config(from), names::config(to - 1));
        let problem = match first == last {
            true => format!("it is missing, although {} is there", names::config(to)),
            false => {
                format!("the configs up to {last} are missing, although later ones are there")
            }
        };
        self.damage.add(Severity::Harmless, first, problem);
    }

    fn config(&mut self, fault: &Fault, number: u64, newest: u64) {
        if self.mended(fault) {
            return;
        }
        let (severity, meaning) = match fault.mend {
            Mend::Aside => (
                Severity::Harmless,
                format!(
                    "nobody with a key of the repository made it, or it was damaged since; it counts for nothing, and {REPAIR} puts it aside"
                ),
            ),
            _ if number == newest => (
                Severity::Loss,
                "without it the repository cannot be opened again".to_owned(),
            ),
            _ => (
                Severity::Harmless,
                "only the newest config counts, and it is not this one".to_owned(),
            ),
        };
        let problem = format!("{}; {meaning}", fault.problem);
        self.damage.add(severity, fault.name.to_string(), problem);
    }

    fn slot(&mut self, fault: &Fault, none_left: bool) {
        if self.mended(fault) {
            return;
        }
        let (severity, meaning) = match fault.name {
            Name::Slot(_) if none_left => (
                Severity::Loss,
                "no key slot is left, so the repository cannot be opened again: add a key now, from a program that has it open",
            ),
            Name::Slot(_) => (
                Severity::Harmless,
                "its secret may not open the repository any more, others do: remove it and add it anew",
            ),
            _ => (
                Severity::Harmless,
                "it is the twin of a key slot that is damaged, too",
            ),
        };
        let problem = format!("{}; {meaning}", fault.problem);
        self.damage.add(severity, fault.name.to_string(), problem);
    }

    /// Tells what has its bytes somewhere; tells whether it was that.
    fn mended(&mut self, fault: &Fault) -> bool {
        let Mend::From(source) = fault.mend else {
            return false;
        };
        let name = fault.name.to_string();
        let Some(original) = fault.name.original() else {
            let problem = match Some(source) == fault.name.twin() {
                true => format!(
                    "{}; its twin is whole, and {REPAIR} puts it back from that",
                    fault.problem
                ),
                false => format!(
                    "{}; {source} has its bytes, and {REPAIR} puts it right",
                    fault.problem
                ),
            };
            self.damage.add_mendable(name, problem);
            return true;
        };
        if fault.problem != Problem::Missing {
            let problem = format!("{}; {REPAIR} makes it anew from {original}", fault.problem);
            self.damage.add_mendable(name, problem);
        } else if self.has_twins {
            let problem = format!(
                "there is none, so {original} could not be restored from it: {REPAIR} makes it"
            );
            self.damage.add(Severity::Note, name, problem);
        }
        self.lacks_twins |= fault.problem == Problem::Missing;
        true
    }
}
