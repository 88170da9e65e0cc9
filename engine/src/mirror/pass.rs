//! One pass over the source: copying all that its snapshots need, as of one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;
use larder_format::config::Config;
use larder_format::ids::{SessionId, SlotId};
use larder_format::mirror::Manifest;
use larder_format::names::{self, Name};

use super::copying::Copier;
use crate::check::{Outcome, Problem};
use crate::collection;
use crate::error::{EngineError, Result};
use crate::protocol::Newest;
use crate::scratch::ScratchMap;
use crate::storage::Storage;

/// Memory of one listing before it goes to disk.
const LISTING_BYTES: usize = 24 << 20;
/// Objects that are looked up at once.
const BATCH: usize = 512;
/// Times that cells are listed until two listings agree.
const LISTINGS_MAX: usize = 10;

/// Names with their sizes.
pub(crate) struct Listing(ScratchMap);

impl Listing {
    pub(crate) fn new(scratch: &Path) -> Self {
        Self(ScratchMap::new(scratch, LISTING_BYTES))
    }

    /// Adds what a folder of a storage has of names that the format knows.
    pub(crate) fn read(&mut self, storage: &dyn Storage, folder: &str) -> Result<()> {
        let mut failure = None;
        storage.list(folder, &mut |object| {
            if let Some(name) = names::parse(&object.name)
                && let Err(error) = self.insert(&name, object.size_bytes)
            {
                failure.get_or_insert(error);
            }
            Ok(())
        })?;
        failure.map_or(Ok(()), Err)
    }

    pub(crate) fn insert(&mut self, name: &Name, size: u64) -> Result<()> {
        let key = name.to_string();
        Ok(self.0.insert(key.as_bytes(), &size.to_be_bytes())?)
    }

    /// Gives an object's size, if it was listed.
    pub(crate) fn size(&self, name: &Name) -> Result<Option<u64>> {
        let size = self.0.get(name.to_string().as_bytes())?;
        Ok(size.and_then(|size| size.first_chunk().copied().map(u64::from_be_bytes)))
    }

    /// Visits what was listed, in the order of the names.
    pub(crate) fn each(&self, visit: &mut dyn FnMut(Name, u64) -> Result<()>) -> Result<()> {
        for item in self.0.iter_from(&[]) {
            let (name, size) = item?;
            let name = std::str::from_utf8(&name).ok().and_then(names::parse);
            let size = size.first_chunk().copied().map(u64::from_be_bytes);
            if let Some((name, size)) = name.zip(size) {
                visit(name, size)?;
            }
        }
        Ok(())
    }
}

/// What the source is at one moment, all of it copied but for what makes it count.
pub(super) struct Moment {
    pub newest: Newest,
    pub cells: Vec<SessionId>,
    /// Cells whose sessions have an end.
    pub committed: u64,
    pub amendments: Vec<(SessionId, u64)>,
    pub keys: Keys,
    /// Packs, segments and parity objects of the source.
    pub listed: Listing,
}

/// What opens the repository.
pub(super) struct Keys {
    /// Slots and configs that the target lacks, in the order in which they are to be written.
    pub missing: Vec<(Name, Bytes)>,
    /// The slots that the newest config lists, and those that the source has.
    pub slots: BTreeSet<SlotId>,
    /// Twins that the target lacks, with their sizes.
    pub twins: Vec<(Name, u64)>,
}

/// One pass.
pub(super) struct Pass<'a, 'b> {
    pub copier: &'a mut Copier<'b>,
    pub have: &'a mut Listing,
    pub scratch: &'a Path,
    /// The newest manifest of the mirror.
    pub base: Option<&'a Manifest>,
}

impl Pass<'_, '_> {
    /// Copies what the target lacks; nothing if the source moved on meanwhile so that its cells are to
    /// be listed again.
    pub(super) fn run(&mut self) -> Result<Option<Moment>> {
        let (collector, configs) = (self.list("gc")?, self.list("config")?);
        let Some(newest) = collection::newest(&collector.keys().copied().collect()) else {
            return Ok(None);
        };
        if newest.state < self.base.map_or(0, |base| base.state) {
            return Err(self.is_older());
        }
        let Some(records) = self.list_cells()? else {
            return Ok(None);
        };
        let mut listed = Listing::new(self.scratch);
        listed.read(self.copier.source, "packs")?;
        listed.read(self.copier.source, "index")?;
        listed.read(self.copier.source, "parity")?;
        self.copy_content(&listed)?;
        let there = self.copy_records(&records)?;
        if !self.copy_collector(newest, &collector)? {
            return Ok(None);
        }
        let Some(keys) = self.read_keys(&configs)? else {
            return Ok(None);
        };
        // What was deleted meanwhile is nothing that the cells need, unless a newer state let it go.
        let after = self.list("gc")?;
        let is_same = collection::newest(&after.keys().copied().collect()) == Some(newest);
        if !is_same || self.list("config")? != configs {
            return Ok(None);
        }
        self.refuse_astray(newest, &records)?;
        let mut moment = Moment {
            newest,
            committed: 0,
            cells: Vec::new(),
            amendments: Vec::new(),
            keys,
            listed,
        };
        for name in there {
            match name {
                Name::Cell(id) => {
                    let has_end = self.have.size(&Name::SessionEnd(id))?.is_some();
                    moment.committed += u64::from(has_end);
                    moment.cells.push(id);
                }
                Name::Amendment(id, number) => moment.amendments.push((id, number)),
                _ => {}
            }
        }
        Ok(Some(moment))
    }

    fn is_older(&self) -> EngineError {
        EngineError::Request(format!(
            "{} is older than its mirror {}: it was put back to an older state; make a mirror in another place, or promote this one",
            self.copier.source.describe(),
            self.copier.target.describe()
        ))
    }

    /// Fails if a snapshot or an amendment is gone that the mirror lists and no newer state could have cleared:
    /// the repository was put back to an older state and went on from there, or somebody took it away.
    fn refuse_astray(&self, newest: Newest, records: &BTreeMap<Name, u64>) -> Result<()> {
        let Some(base) = self.base else { return Ok(()) };
        let cells = base.cells.iter().map(|id| (id, Name::Cell(*id)));
        let amendments = base.amendments.iter();
        let amendments = amendments.map(|(id, number)| (id, Name::Amendment(*id, *number)));
        let gone = |(id, name): &(&SessionId, Name)| {
            id.round() >= newest.state && !records.contains_key(name)
        };
        let Some((_, name)) = cells.chain(amendments).find(gone) else {
            return Ok(());
        };
        let (source, target) = (self.copier.source.describe(), self.copier.target.describe());
        Err(EngineError::Request(format!(
            "{source} lacks {name}, which its mirror {target} lists and no prune took away: it was put back to an older state and went on from there, or somebody deleted it. `larder repair --from` the mirror puts back what is missing; otherwise make a mirror in another place. The mirror shows what it showed before"
        )))
    }

    fn list(&self, folder: &str) -> Result<BTreeMap<Name, u64>> {
        let mut listed = BTreeMap::new();
        self.copier.source.list(folder, &mut |object| {
            listed.extend(names::parse(&object.name).map(|name| (name, object.size_bytes)));
            Ok(())
        })?;
        Ok(listed)
    }

    /// Lists cells and amendments until two listings agree: one alone may have a cell and lack an
    /// earlier one, whose packs the first needs.
    fn list_cells(&self) -> Result<Option<BTreeMap<Name, u64>>> {
        let mut listed = self.list("snapshots")?;
        for _ in 0..LISTINGS_MAX {
            self.copier.cancel.check()?;
            let again = self.list("snapshots")?;
            if again == listed {
                return Ok(Some(listed));
            }
            listed = again;
        }
        Ok(None)
    }

    /// Copies the packs, segments and parity objects that the target lacks, or has with another size.
    fn copy_content(&mut self, listed: &Listing) -> Result<()> {
        let (mut objects, mut bytes) = (0, 0_u64);
        listed.each(&mut |name, size| {
            if self.have.size(&name)? != Some(size) {
                objects += 1;
                bytes = bytes.saturating_add(size);
            }
            Ok(())
        })?;
        if objects == 0 {
            return Ok(());
        }
        let progress = self.copier.progress;
        progress.phase("copying objects", Some(objects), Some(bytes));
        let mut batch = Vec::with_capacity(BATCH);
        listed.each(&mut |name, size| {
            if self.have.size(&name)? != Some(size) {
                batch.push((name, size));
            }
            if batch.len() == BATCH {
                self.copy(&batch)?;
                batch.clear();
            }
            Ok(())
        })?;
        self.copy(&batch)
    }

    fn copy(&mut self, batch: &[(Name, u64)]) -> Result<()> {
        for (name, size) in self.copier.copy(batch)? {
            self.have.insert(&name, size)?;
        }
        Ok(())
    }

    /// Copies cells, amendments, and the sessions of these cells; gives the names of the first two
    /// that are there now.
    fn copy_records(&mut self, records: &BTreeMap<Name, u64>) -> Result<Vec<Name>> {
        let sessions = self.list("sessions")?;
        let is_of_cell = |name: &Name| match name {
            Name::Session(id) | Name::SessionEnd(id) => records.contains_key(&Name::Cell(*id)),
            _ => false,
        };
        let sessions = sessions.iter().filter(|(name, _)| is_of_cell(name));
        let mut missing = Vec::new();
        for (name, size) in sessions.chain(records) {
            if self.have.size(name)? != Some(*size) {
                missing.push((*name, *size));
            }
        }
        if !missing.is_empty() {
            let (count, progress) = (missing.len() as u64, self.copier.progress);
            progress.phase("copying records", Some(count), None);
        }
        for batch in missing.chunks(BATCH) {
            self.copy(batch)?;
        }
        let mut there = Vec::new();
        for (name, size) in records {
            // One that is gone was dead, and nobody may need it.
            if self.have.size(name)? == Some(*size) {
                there.push(*name);
            }
        }
        Ok(there)
    }

    /// Copies the newest state and the round above it; tells whether they were there.
    fn copy_collector(&mut self, newest: Newest, listed: &BTreeMap<Name, u64>) -> Result<bool> {
        let state = (newest.state > 0).then_some(Name::State(newest.state));
        let round = newest.round.map(Name::Round);
        for name in state.into_iter().chain(round) {
            let size = listed.get(&name).copied().unwrap_or_default();
            match self.copier.read(&name, size)? {
                // What is there already must be the same: numbers are used again by who went back.
                Ok(bytes) => {
                    let is_new = self.have.size(&name)? != Some(size);
                    let same = || self.copier.target.get(&name.to_string(), size);
                    if is_new || same()? != bytes {
                        self.copier.write(&name, &bytes)?;
                        self.have.insert(&name, size)?;
                    }
                }
                Err(Problem::Missing) => return Ok(false),
                Err(Problem::Damaged(why)) => {
                    return Err(EngineError::damaged(&name.to_string(), &why));
                }
            }
        }
        Ok(true)
    }

    /// Reads the configs and slots that the target lacks; nothing if they change meanwhile.
    fn read_keys(&mut self, configs: &BTreeMap<Name, u64>) -> Result<Option<Keys>> {
        let slots = self.list("keys")?;
        let twins = self.list("twins")?;
        let mut configs = configs.clone();
        for (twin, size) in &twins {
            if let Some(name @ Name::Config(_)) = twin.original() {
                configs.entry(name).or_insert(*size);
            }
        }
        let Some(newest) = self.newest_config(&configs, &twins)? else {
            return Ok(None);
        };
        let mut keys = Keys {
            missing: Vec::new(),
            slots: newest.slots.iter().copied().collect(),
            twins: Vec::new(),
        };
        for (name, size) in slots.iter().chain(&configs) {
            if let Name::Slot(id) = name {
                keys.slots.insert(*id);
            }
            if self.have.size(name)? == Some(*size) {
                continue;
            }
            match self.read_or_twin(name, *size, &twins)? {
                Ok(bytes) => keys.missing.push((*name, bytes)),
                // A slot goes once a newer config does not list it.
                Err(Problem::Missing) if matches!(name, Name::Slot(_)) => {}
                Err(Problem::Missing) => return Ok(None),
                Err(Problem::Damaged(why)) => drop(self.copier.damaged.insert(*name, why)),
            }
        }
        for (name, size) in twins {
            if self.have.size(&name)? != Some(size) {
                keys.twins.push((name, size));
            }
        }
        Ok(Some(keys))
    }

    /// Reads the newest config that is sound; nothing if configs change meanwhile.
    ///
    /// # Errors
    /// `Damaged` for a newer one that is not and that the target has: which slots count is not known then.
    fn newest_config(
        &mut self,
        configs: &BTreeMap<Name, u64>,
        twins: &BTreeMap<Name, u64>,
    ) -> Result<Option<Config>> {
        let mut damage = None;
        for (name, size) in configs.iter().rev() {
            match (self.read_or_twin(name, *size, twins)?, name) {
                (Ok(bytes), Name::Config(number)) => {
                    return Ok(Some(Config::read_unverified(*number, &bytes)?));
                }
                (Err(Problem::Damaged(why)), _) => {
                    let error = EngineError::damaged(&name.to_string(), &why);
                    if self.have.size(name)?.is_some() {
                        return Err(error);
                    }
                    self.copier.damaged.insert(*name, why);
                    damage.get_or_insert(error);
                }
                _ => return Ok(None),
            }
        }
        damage.map_or(Ok(None), Err)
    }

    /// Reads a config or a slot of the source, or its twin where it is damaged.
    fn read_or_twin(
        &mut self,
        name: &Name,
        size: u64,
        twins: &BTreeMap<Name, u64>,
    ) -> Result<Outcome<Bytes>> {
        let problem = match self.copier.read(name, size)? {
            Ok(bytes) => return Ok(Ok(bytes)),
            Err(problem) => problem,
        };
        let twin = name.twin().and_then(|twin| twins.get_key_value(&twin));
        if let Some((twin, size)) = twin
            && let Ok(bytes) = self.copier.read(twin, *size)?
        {
            let why = format!("{problem}; its twin was copied in its place");
            self.copier.damaged.insert(*name, why);
            return Ok(Ok(bytes));
        }
        Ok(Err(problem))
    }
}
