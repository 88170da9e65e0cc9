//! Which objects are damaged or missing, and which of these another copy of the repository has.

mod exchanged;
mod openers;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use larder_format::config::Config;
use larder_format::ids::{ObjectId, SessionId};
use larder_format::names::{self, Name};
use larder_format::verify::{bytes_max, verify};

use super::overlay::Overlay;
use super::quarantine::Wish;
use super::{Mended, finding};
use crate::at_once;
use crate::cancel::Cancel;
use crate::check::{Finding, Healing, Outcome, Problem, Severity, attempt};
use crate::collection::{self, Collection};
use crate::error::{EngineError, Result};
use crate::mirror::{Listing, read_marker, readable};
use crate::parity::{self, Coverage};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::storage::Storage;
use crate::storage::error::ErrorKind;
use crate::view::{self, read_record};

/// Objects that are verified between two looks at the progress.
const BATCH: usize = 256;

/// What is known of a repository's objects.
pub(super) struct Objects {
    /// All that are there, with their sizes.
    listed: Listing,
    /// Those that are not what they should be, and why.
    damaged: BTreeMap<Name, String>,
    /// What the other copy has, but for packs and segments, with sizes.
    other: BTreeMap<Name, u64>,
    /// What is put in place: the problem, the size and the hash of what the other copy has.
    taken: BTreeMap<Name, Taken>,
    /// Segments that count and cannot be had.
    lacking: BTreeSet<ObjectId>,
    /// Records that are missing or damaged and cannot be had, and what that means.
    left: Vec<Finding>,
    /// Why it is not known what counts.
    pub lacks_collection: Option<String>,
    has_read_packs: bool,
}

struct Taken {
    problem: String,
    size: u64,
    /// None for what is put aside and replaced by nothing.
    hash: Option<[u8; 32]>,
    by: Healing,
}

/// Lists and verifies the objects of a repository, and takes from the other copy what opens it.
pub(super) fn prepare(
    storage: &Arc<dyn Storage>,
    from: Option<&Arc<dyn Storage>>,
    scratch: &Path,
    read_data: bool,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<(Overlay, Objects)> {
    if read_marker(storage.as_ref())?.is_some() {
        return Err(EngineError::Request(format!(
            "{} is a mirror, which `larder sync --verify` mends from the repository that it mirrors",
            storage.describe()
        )));
    }
    let mut listed = Listing::new(scratch);
    progress.phase("listing", None, None);
    listed.read(storage.as_ref(), "")?;
    let damaged = verify_all(storage.as_ref(), &listed, read_data, progress, cancel)?;
    let mut objects = Objects {
        listed,
        damaged,
        other: BTreeMap::new(),
        taken: BTreeMap::new(),
        lacking: BTreeSet::new(),
        left: Vec::new(),
        lacks_collection: None,
        has_read_packs: read_data,
    };
    let from = match from {
        Some(from) => Some(readable(Arc::clone(from))?.0),
        None => None,
    };
    let overlay = Overlay::new(Arc::clone(storage), from, scratch);
    objects.read_other(&overlay, progress)?;
    objects.find_openers(&overlay)?;
    Ok((overlay, objects))
}

/// Verifies all listed objects but the reserve, and the packs only if that is asked for.
fn verify_all(
    storage: &dyn Storage,
    listed: &Listing,
    read_data: bool,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<BTreeMap<Name, String>> {
    let is_meant = |name: &Name| match name {
        Name::Pack(_) | Name::Parity(_) => read_data,
        Name::Reserve | Name::Manifest(_) => false,
        _ => true,
    };
    let (mut count, mut bytes) = (0, 0_u64);
    listed.each(&mut |name, size| {
        if is_meant(&name) {
            count += 1;
            bytes = bytes.saturating_add(size);
        }
        Ok(())
    })?;
    progress.phase("verifying objects", Some(count), Some(bytes));
    let mut damaged = BTreeMap::new();
    let mut batch = Vec::with_capacity(BATCH);
    let mut verify_batch = |batch: &mut Vec<(Name, u64)>| -> Result<()> {
        let calls = storage.calls_at_once();
        let found = at_once::map(calls, batch, |(name, size)| -> Result<_> {
            cancel.check()?;
            let outcome = read_sound(storage, name)?;
            progress.advance(1, *size);
            Ok(outcome.err())
        });
        for ((name, _), problem) in batch.drain(..).zip(found) {
            // What is missing by now was deleted by a prune.
            if let Some(Problem::Damaged(why)) = problem? {
                damaged.insert(name, why);
            }
        }
        Ok(())
    };
    listed.each(&mut |name, size| {
        if is_meant(&name) {
            batch.push((name, size));
        }
        match batch.len() {
            BATCH => verify_batch(&mut batch),
            _ => Ok(()),
        }
    })?;
    verify_batch(&mut batch)?;
    Ok(damaged)
}

/// Reads an object and verifies it without a key.
fn read_sound(storage: &dyn Storage, name: &Name) -> Result<Outcome<Bytes>> {
    attempt(|| {
        let bytes = storage.get(&name.to_string(), bytes_max(name) as u64)?;
        verify(*name, &bytes)?;
        // A config says itself which one it is.
        if let Name::Config(number) = name {
            Config::read_unverified(*number, &bytes)?;
        }
        Ok(bytes)
    })
}

/// Reads a config that is sound.
fn read_config(storage: &dyn Storage, number: u64) -> Result<Option<Config>> {
    let object = read_sound(storage, &Name::Config(number))?;
    let config = object.map(|object| Config::read_unverified(number, &object).ok());
    Ok(config.ok().flatten())
}

impl Objects {
    /// Lists the records of the other copy, if it is one of this repository.
    fn read_other(&mut self, overlay: &Overlay, progress: &dyn Progress) -> Result<()> {
        let Some(from) = &overlay.from else {
            return Ok(());
        };
        let mut other = BTreeMap::new();
        for folder in [
            names::CONFIGS,
            names::SLOTS,
            names::COLLECTOR,
            names::CELLS,
            names::SESSIONS,
        ] {
            from.list(folder, &mut |object| {
                other.extend(names::parse(&object.name).map(|name| (name, object.size_bytes)));
                Ok(())
            })?;
        }
        let there = newest_config(from.as_ref(), other.keys())?.ok_or_else(|| {
            EngineError::Request(format!(
                "there is no repository in {}, so there is nothing to take from it; --from is a mirror or a copy of the repository that is repaired",
                from.describe()
            ))
        })?;
        let mut own = Vec::new();
        self.listed.each(&mut |name, _| {
            own.extend(matches!(name, Name::Config(_)).then_some(name));
            Ok(())
        })?;
        if let Some(here) = newest_config(overlay.base.as_ref(), own.iter())? {
            if here.repository != there.repository {
                return Err(EngineError::Request(format!(
                    "{} holds another repository ({}), from which nothing can be taken: only a mirror or a copy of the same one has the same objects",
                    from.describe(),
                    there.repository
                )));
            }
            if here.replica != there.replica {
                progress.warning(&format!(
                    "{} was promoted and is a repository of its own: only packs and segments are taken from it",
                    from.describe()
                ));
                return Ok(());
            }
        }
        self.other = other;
        Ok(())
    }

    /// Takes the configs, key slots and collector records that are damaged or missing here.
    fn find_openers(&mut self, overlay: &Overlay) -> Result<()> {
        let other: Vec<Name> = self.other.keys().copied().collect();
        for name in &other {
            if matches!(name, Name::Config(_)) {
                self.take(overlay, name)?;
            }
        }
        let configs = self
            .other
            .keys()
            .filter(|name| matches!(name, Name::Config(_)));
        let configs: Vec<Name> = configs.copied().collect();
        let mut own = configs;
        self.listed.each(&mut |name, _| {
            own.extend(matches!(name, Name::Config(_)).then_some(name));
            Ok(())
        })?;
        let slots = newest_config(overlay, own.iter())?.map(|config| config.slots);
        let mut newest_state = 0;
        self.listed.each(&mut |name, _| {
            if let Name::State(number) = name {
                newest_state = newest_state.max(number);
            }
            Ok(())
        })?;
        for name in &other {
            // What is older than the newest state is nobody's any more; what is newer was taken away.
            let is_meant = match name {
                Name::Slot(id) => slots.as_ref().is_some_and(|slots| slots.contains(id)),
                Name::State(number) | Name::Round(number) => {
                    *number > newest_state || self.damaged.contains_key(name)
                }
                _ => false,
            };
            if is_meant {
                self.take(overlay, name)?;
            }
        }
        Ok(())
    }

    /// Says what is wrong with an object that should be there.
    fn problem(&self, overlay: &Overlay, name: &Name) -> Result<Option<String>> {
        if let Some(why) = self.damaged.get(name) {
            return Ok(Some(why.clone()));
        }
        if self.listed.size(name)?.is_some() {
            return Ok(None);
        }
        // It may have come since the listing.
        match overlay.base.size(&name.to_string()) {
            Ok(_) => Ok(None),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(Some("it is missing".to_owned())),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes an object from the other copy if there is something wrong with it here; tells whether.
    fn take(&mut self, overlay: &Overlay, name: &Name) -> Result<bool> {
        let Some(from) = &overlay.from else {
            return Ok(false);
        };
        let Some(problem) = self.problem(overlay, name)? else {
            return Ok(false);
        };
        let Ok(bytes) = read_sound(from.as_ref(), name)? else {
            return Ok(false);
        };
        let (size, hash) = (bytes.len() as u64, *blake3::hash(&bytes).as_bytes());
        overlay.take(name.to_string(), size);
        self.taken.insert(
            *name,
            Taken {
                problem,
                size,
                hash: Some(hash),
                by: Healing::Copy,
            },
        );
        Ok(true)
    }

    fn leave(&mut self, overlay: &Overlay, name: &Name) {
        overlay.leave(&name.to_string());
        self.taken.remove(name);
    }

    /// Takes what opens the repository, and the snapshots, amendments and sessions that are damaged or missing and not dead.
    pub(super) fn find_records(
        &mut self,
        repository: &Repository,
        overlay: &Overlay,
    ) -> Result<()> {
        self.find_twins(repository, overlay)?;
        self.find_exchanged(repository, overlay)?;
        let collection = match collection::read(repository, None) {
            Ok(collection) => collection,
            Err(EngineError::Damaged { object, why }) => {
                self.lacks_collection = Some(format!("{object}: {why}"));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let is_dead = |id: &SessionId| collection.is_dead(id, id.round());
        let other: Vec<Name> = self.other.keys().copied().collect();
        for name in &other {
            let (Name::Cell(id) | Name::Amendment(id, _)) = name else {
                continue;
            };
            if !is_dead(id) && self.take(overlay, name)? && !opens(repository, name)? {
                self.leave(overlay, name);
            }
        }
        for name in &other {
            if let Name::Session(id) | Name::SessionEnd(id) = name {
                let cell = Name::Cell(*id);
                let has_cell = self.listed.size(&cell)?.is_some() || self.taken.contains_key(&cell);
                if has_cell && !is_dead(id) {
                    self.take(overlay, name)?;
                }
            }
        }
        self.tell_missing(overlay, &collection)?;
        self.tell_records(&collection);
        Ok(())
    }

    /// Says of the snapshots that the newest state lists and that nobody has what that means.
    fn tell_missing(&mut self, overlay: &Overlay, collection: &Collection) -> Result<()> {
        for id in &collection.state.live {
            let name = Name::Cell(*id);
            let is_damaged = self.damaged.contains_key(&name);
            if is_damaged || self.taken.contains_key(&name) {
                continue;
            }
            if let Some(problem) = self.problem(overlay, &name)? {
                let problem = format!(
                    "{problem}, although {} lists it; put it back from a copy of the storage if there is one",
                    collection.state_name()
                );
                let name = name.to_string();
                self.left.push(finding(Severity::Loss, &name, &problem));
            }
        }
        Ok(())
    }

    /// Says of the damaged records that nobody has what that means.
    fn tell_records(&mut self, collection: &Collection) {
        let is_dead = |id: &SessionId| collection.is_dead(id, id.round());
        let newest = collection.numbers();
        for (name, why) in &self.damaged {
            if self.taken.contains_key(name) {
                continue;
            }
            let (severity, meaning) = match name {
                Name::Cell(id) if !is_dead(id) => (
                    Severity::Loss,
                    "the snapshot cannot be listed or restored; put the object back from a copy of the storage if there is one",
                ),
                Name::Amendment(id, _) if !is_dead(id) => (
                    Severity::Harmless,
                    "a change of tags, a pin or a forget is lost",
                ),
                Name::Session(id) | Name::SessionEnd(id) if !is_dead(id) => {
                    (Severity::Harmless, "the snapshot itself does not need it")
                }
                Name::Round(number) | Name::State(number) if *number >= newest.state => {
                    (Severity::Loss, "what counts is not known without it")
                }
                _ => continue,
            };
            let name = name.to_string();
            self.left
                .push(finding(severity, &name, &format!("{why}; {meaning}")));
        }
    }

    /// Takes the segments that count and are damaged or missing.
    pub(super) fn find_segments(
        &mut self,
        repository: &Repository,
        overlay: &Overlay,
    ) -> Result<()> {
        if self.lacks_collection.is_some() {
            return Ok(());
        }
        let view = view::read_cells(repository, None)?;
        for id in view.owners().into_keys() {
            let name = Name::Segment(id);
            if let Some(problem) = self.problem(overlay, &name)?
                && !self.take(overlay, &name)?
            {
                self.lacking.insert(id);
                let problem = format!(
                    "{problem}; the packs' own directories say the same, and what snapshots need of them is in the index all the same after `larder repair --apply`"
                );
                let name = name.to_string();
                self.left.push(finding(Severity::Harmless, &name, &problem));
            }
        }
        Ok(())
    }

    /// Takes the packs that count and are damaged or missing; gives those that stay so, and why.
    pub(super) fn find_packs(
        &mut self,
        repository: &Repository,
        overlay: &Overlay,
        scratch: &Path,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<BTreeMap<ObjectId, String>> {
        if self.lacks_collection.is_some() {
            return Ok(BTreeMap::new());
        }
        let view = view::read(repository, false, None)?;
        let collection = &view.collection;
        let mut doubted = self.doubted(repository, collection)?;
        if !self.has_read_packs {
            let suspects: Vec<ObjectId> = collection.suspects().copied().collect();
            progress.phase("reading suspect packs", Some(suspects.len() as u64), None);
            for id in suspects {
                cancel.check()?;
                let name = Name::Pack(id);
                if doubted.contains_key(&id) || self.listed.size(&name)?.is_none() {
                    continue;
                }
                if let Err(Problem::Damaged(why)) = read_sound(overlay, &name)? {
                    self.damaged.insert(name, why.clone());
                    doubted.insert(id, why);
                }
                progress.advance(1, 0);
            }
        }
        let mut left = BTreeMap::new();
        for (id, why) in doubted {
            cancel.check()?;
            let name = Name::Pack(id);
            // What was uploaded since the listing is not missing.
            if self.problem(overlay, &name)?.is_none() && self.listed.size(&name)?.is_none() {
                continue;
            }
            self.damaged.entry(name).or_insert_with(|| why.clone());
            if !self.take(overlay, &name)? {
                left.insert(id, why);
            }
        }
        self.rebuild(overlay, &mut left, scratch, progress, cancel)?;
        self.renew_parity(overlay, scratch, cancel)?;
        // What a round condemned may be rescued yet, so it is put back; where it cannot be had, the round's end
        // tells whether anything needed it.
        if let Some(round) = &collection.round {
            left.retain(|id, _| !round.condemned.contains(id));
        }
        Ok(left)
    }

    /// Rebuilds packs from parity, group by group, as long as that brings any back.
    fn rebuild(
        &mut self,
        overlay: &Overlay,
        left: &mut BTreeMap<ObjectId, String>,
        scratch: &Path,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<()> {
        if left.is_empty() {
            return Ok(());
        }
        let coverage = Coverage::read(overlay, cancel)?;
        loop {
            let before = left.len();
            let objects = coverage.of_any(left.keys());
            progress.phase("reading parity", Some(objects.len() as u64), None);
            for id in objects {
                let Some((group, size)) = coverage.groups.get(&id) else {
                    continue;
                };
                progress.advance(1, 0);
                if !group
                    .members
                    .iter()
                    .any(|member| left.contains_key(&member.id))
                {
                    continue;
                }
                let mut kept = Vec::new();
                let wanted = |pack: &ObjectId| left.contains_key(pack);
                let mut keep = |pack: &ObjectId, bytes: Bytes| {
                    overlay.make(&Name::Pack(*pack).to_string(), &bytes)?;
                    kept.push((*pack, bytes.len() as u64));
                    Ok(())
                };
                parity::mend(overlay, scratch, (&id, *size), &wanted, &mut keep, cancel)?;
                for (pack, size) in kept {
                    let problem = left.remove(&pack).unwrap_or_default();
                    let taken = Taken {
                        problem,
                        size,
                        hash: Some(pack.0),
                        by: Healing::Parity,
                    };
                    self.taken.insert(Name::Pack(pack), taken);
                }
            }
            if left.is_empty() || left.len() == before {
                return Ok(());
            }
        }
    }

    /// Makes damaged parity objects anew from their packs; those for which that cannot be are put aside.
    fn renew_parity(&mut self, overlay: &Overlay, scratch: &Path, cancel: &Cancel) -> Result<()> {
        let damaged = self.damaged.iter();
        let damaged: Vec<(ObjectId, String)> = damaged
            .filter_map(|(name, why)| match name {
                Name::Parity(id) => Some((*id, why.clone())),
                _ => None,
            })
            .collect();
        for (id, problem) in damaged {
            let name = Name::Parity(id);
            if self.take(overlay, &name)? {
                continue;
            }
            let size = self.listed.size(&name)?.unwrap_or_default();
            let (hash, size, by) = match parity::remake(overlay, scratch, (&id, size), cancel)? {
                Some(bytes) => {
                    overlay.make(&name.to_string(), &bytes)?;
                    (Some(id.0), bytes.len() as u64, Healing::Directory)
                }
                None => (None, 0, Healing::Anew),
            };
            let taken = Taken {
                problem,
                size,
                hash,
                by,
            };
            self.taken.insert(name, taken);
        }
        Ok(())
    }

    /// Gives the packs of the index that are not as it says, or did not verify.
    fn doubted(
        &self,
        repository: &Repository,
        collection: &Collection,
    ) -> Result<BTreeMap<ObjectId, String>> {
        let out = &collection.state.deleted;
        let mut doubted = BTreeMap::new();
        let mut failure = None;
        repository.index().packs(&mut |pack| {
            if out.contains(&pack.id) {
                return ControlFlow::Continue(());
            }
            let name = Name::Pack(pack.id);
            let size = match self.listed.size(&name) {
                Ok(size) => size,
                Err(error) => {
                    failure = Some(error);
                    return ControlFlow::Break(());
                }
            };
            let why = match size {
                None => Some("it is missing, although the index names it".to_owned()),
                Some(size) if size != pack.size => Some(format!(
                    "it has {size} bytes where the index says {}",
                    pack.size
                )),
                Some(_) => self.damaged.get(&name).cloned(),
            };
            doubted.extend(why.map(|why| (pack.id, why)));
            ControlFlow::Continue(())
        })?;
        match failure {
            Some(error) => Err(error),
            None => Ok(doubted),
        }
    }

    /// Tells whether segments that count cannot be had.
    pub(super) fn lacks_segments(&self) -> bool {
        !self.lacking.is_empty()
    }

    /// Gives what is put in place, in the order in which that is safe: content before what makes it count.
    pub(super) fn wishes(&self) -> Vec<Wish> {
        let rank = |name: &Name| match name {
            Name::Slot(_) => 0,
            Name::Config(_) => 1,
            Name::Pack(_) => 2,
            Name::Segment(_) => 3,
            Name::Session(_) => 4,
            Name::Amendment(..) => 5,
            Name::Cell(_) => 6,
            Name::SessionEnd(_) => 7,
            Name::Parity(_) => 8,
            _ => 9,
        };
        let mut names: Vec<&Name> = self.taken.keys().collect();
        names.sort_by_key(|name| (rank(name), **name));
        let taken = |name: &Name| self.taken.get(name).and_then(|taken| taken.hash);
        let wish = |name: &Name| Wish {
            name: name.to_string(),
            after: taken(name),
        };
        names.into_iter().map(wish).collect()
    }

    /// Gives what is put in place, by name.
    pub(super) fn mended(&self) -> Vec<Mended> {
        let taken = self.taken.iter();
        let mut mended: Vec<Mended> = taken
            .map(|(name, taken)| Mended {
                object: name.to_string(),
                problem: taken.problem.clone(),
                from: taken.by,
            })
            .collect();
        mended.sort_by(|a, b| a.object.cmp(&b.object));
        mended
    }

    /// Gives the bytes of what is put in place.
    pub(super) fn bytes(&self) -> u64 {
        self.taken.values().map(|taken| taken.size).sum()
    }

    /// Gives the records that stay missing or damaged.
    pub(super) fn findings(&self) -> Vec<Finding> {
        self.left.clone()
    }
}

/// Reads the sound config with the highest of these numbers.
fn newest_config<'n>(
    storage: &dyn Storage,
    names: impl Iterator<Item = &'n Name>,
) -> Result<Option<Config>> {
    let mut numbers: Vec<u64> = names
        .filter_map(|name| match name {
            Name::Config(number) => Some(*number),
            _ => None,
        })
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    for number in numbers.into_iter().rev() {
        if let Some(config) = read_config(storage, number)? {
            return Ok(Some(config));
        }
    }
    Ok(None)
}

/// Tells whether a record opens with the keys of the repository.
fn opens(repository: &Repository, name: &Name) -> Result<bool> {
    use larder_format::cell::Cell;
    use larder_format::session::Amendment;
    let read = match name {
        Name::Cell(_) => read_record::<Cell>(repository, name).map(|_| ()),
        _ => read_record::<Amendment>(repository, name).map(|_| ()),
    };
    match read {
        Ok(()) => Ok(true),
        Err(EngineError::Damaged { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
