//! Configs, key slots and their twins: each is put right from what has its bytes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use larder_format::config::Config;
use larder_format::mirror::MARKER;
use larder_format::names::Name;

use super::super::finding;
use super::super::overlay::Overlay;
use super::{Objects, Taken, read_sound};
use crate::check::{Healing, Problem, Severity};
use crate::error::Result;
use crate::keys;
use crate::openers::faults::{Fault, Mend, Pair, authentic, of_config, of_slots};
use crate::repository::Repository;

impl Objects {
    /// Finds out what is wrong with what opens the repository, and what has its bytes.
    pub(super) fn find_twins(&mut self, repository: &Repository, overlay: &Overlay) -> Result<()> {
        let newest = keys::newest(repository)?;
        let mut slots = newest.slots.clone();
        let mut faults = Vec::new();
        for number in self.config_numbers(newest.number)? {
            let name = Name::Config(number);
            if self.taken.contains_key(&name) && !is_authentic(repository, overlay, number)? {
                self.leave(overlay, &name);
            }
            let pair = self.pair(overlay, &name)?;
            let keyring = repository.keyring();
            faults.extend(of_config(number, newest.number, &pair, keyring));
            // A later one that only its twin has counts from now on.
            if number > newest.number
                && let Some(config) = authentic(number, &pair, keyring)
            {
                slots = config.slots;
            }
        }
        let mut pairs = BTreeMap::new();
        for id in slots {
            pairs.insert(id, self.pair(overlay, &Name::Slot(id))?);
        }
        faults.extend(of_slots(&repository.opener(), &pairs));
        self.settle(overlay, faults)
    }

    /// Gives the numbers of all configs that are there, or whose twins are.
    fn config_numbers(&self, newest: u64) -> Result<BTreeSet<u64>> {
        let mut numbers = BTreeSet::from([newest]);
        let taken = self.taken.keys().copied();
        let mut names: Vec<Name> = taken.collect();
        self.listed.each(&mut |name, _| {
            let is_meant = matches!(name, Name::Config(_) | Name::ConfigTwin(_));
            names.extend(is_meant.then_some(name));
            Ok(())
        })?;
        numbers.extend(names.into_iter().filter_map(|name| match name {
            Name::Config(number) | Name::ConfigTwin(number) if number != MARKER => Some(number),
            _ => None,
        }));
        Ok(numbers)
    }

    /// Reads an object and its twin, as they will be by what was decided until now.
    fn pair(&self, overlay: &Overlay, name: &Name) -> Result<Pair> {
        let mut twin = Err(Problem::Missing);
        if let Some(name) = name.twin()
            && self.listed.size(&name)?.is_some()
        {
            twin = read_sound(overlay, &name)?;
        }
        Ok(Pair {
            original: read_sound(overlay, name)?,
            twin,
        })
    }

    fn settle(&mut self, overlay: &Overlay, faults: Vec<Fault>) -> Result<()> {
        // All is read before anything is another.
        let mut found: Vec<(Fault, Option<Bytes>)> = Vec::with_capacity(faults.len());
        for fault in faults {
            let bytes = match fault.mend {
                Mend::From(source) => read_sound(overlay, &source)?.ok(),
                Mend::Aside | Mend::Nothing => None,
            };
            found.push((fault, bytes));
        }
        for (fault, bytes) in found {
            let problem = match (&fault.problem, fault.name.original()) {
                (Problem::Missing, Some(_)) => "there is none".to_owned(),
                (problem, _) => problem.to_string(),
            };
            match bytes {
                Some(bytes) => {
                    overlay.make(&fault.name.to_string(), &bytes)?;
                    let taken = Taken {
                        problem,
                        size: bytes.len() as u64,
                        hash: Some(*blake3::hash(&bytes).as_bytes()),
                        by: Healing::Twin,
                    };
                    self.taken.insert(fault.name, taken);
                }
                None if fault.mend == Mend::Aside => {
                    let taken = Taken {
                        problem,
                        size: 0,
                        hash: None,
                        by: Healing::Anew,
                    };
                    self.taken.insert(fault.name, taken);
                }
                None => self.leave_opener(overlay, &fault, &problem)?,
            }
        }
        Ok(())
    }

    /// Takes what nothing here has from the other copy; says what it means if that does not have it either.
    fn leave_opener(&mut self, overlay: &Overlay, fault: &Fault, problem: &str) -> Result<()> {
        let meaning = match fault.name {
            Name::Slot(_) => "its secret may not open the repository any more",
            Name::Config(_) if fault.problem != Problem::Missing => "only the newest config counts",
            _ => return Ok(()),
        };
        let is_taken = matches!(fault.name, Name::Slot(_)) && self.take(overlay, &fault.name)?;
        if !is_taken {
            let problem = format!("{problem}; {meaning}");
            let name = fault.name.to_string();
            self.left.push(finding(Severity::Harmless, &name, &problem));
        }
        Ok(())
    }
}

/// Tells whether a config as it will be was made by a holder of the keys.
fn is_authentic(repository: &Repository, overlay: &Overlay, number: u64) -> Result<bool> {
    let object = read_sound(overlay, &Name::Config(number))?;
    let open = |object: &Bytes| Config::open(repository.keyring(), number, object).is_ok();
    Ok(object.is_ok_and(|object| open(&object)))
}
