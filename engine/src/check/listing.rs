//! One listing of the whole storage, sorted by what each name means.

use std::collections::{BTreeMap, BTreeSet};

use larder_format::ids::{ObjectId, RunId, SessionId};
use larder_format::names::{self, Name};

use super::Severity;
use super::context::Context;
use super::findings::Damage;
use super::openers::Openers;
use crate::error::Result;
use crate::scratch::ScratchMap;

/// Memory of the packs' names and sizes, before they go to disk.
const PACK_BYTES: usize = 32 << 20;
/// Foreign objects that are named.
const FOREIGN_NAMES: usize = 10;

/// What is in the storage.
pub(super) struct Listing {
    pub openers: Openers,
    pub sessions: BTreeSet<SessionId>,
    pub ends: BTreeSet<SessionId>,
    pub cells: BTreeSet<SessionId>,
    pub amendments: BTreeMap<SessionId, BTreeSet<u64>>,
    pub segments: BTreeSet<ObjectId>,
    /// Parity objects, with their sizes.
    pub parity: BTreeMap<ObjectId, u64>,
    pub has_reserve: bool,
    pub has_ledger: bool,
    pub runs: BTreeSet<RunId>,
    pub run_ends: BTreeSet<RunId>,
    pub pack_count: u64,
    pub pack_bytes: u64,
    /// Size and one byte, 1 once something named it, by pack.
    packs: ScratchMap,
}

impl Listing {
    /// Lists everything once, and notes what is foreign.
    pub(super) fn read(context: &Context<'_>, damage: &mut Damage) -> Result<Self> {
        let mut listing = Self {
            openers: Openers::default(),
            sessions: BTreeSet::new(),
            ends: BTreeSet::new(),
            cells: BTreeSet::new(),
            amendments: BTreeMap::new(),
            segments: BTreeSet::new(),
            parity: BTreeMap::new(),
            has_reserve: false,
            has_ledger: false,
            runs: BTreeSet::new(),
            run_ends: BTreeSet::new(),
            pack_count: 0,
            pack_bytes: 0,
            packs: ScratchMap::new(context.repository.cache_dir(), PACK_BYTES),
        };
        let mut foreign = Vec::new();
        let mut foreign_count = 0_u64;
        let mut failure = None;
        context.repository.storage().list("", &mut |object| {
            match names::parse(&object.name) {
                Some(name) => {
                    if let Err(error) = listing.take(name, object.size_bytes) {
                        failure.get_or_insert(error);
                    }
                }
                None if names::is_passed_over(&object.name) => {}
                None => {
                    foreign_count += 1;
                    if foreign.len() < FOREIGN_NAMES {
                        foreign.push(object.name);
                    }
                }
            }
            Ok(())
        })?;
        if let Some(error) = failure {
            return Err(error);
        }
        if let Some(first) = foreign.first() {
            let problem = format!(
                "{foreign_count} objects are not of this version of the format and were not checked: {}",
                foreign.join(", ")
            );
            damage.add(Severity::Note, first.clone(), problem);
        }
        Ok(listing)
    }

    fn take(&mut self, name: Name, size: u64) -> Result<()> {
        match name {
            Name::Config(_) | Name::Slot(_) | Name::ConfigTwin(_) | Name::SlotTwin(_) => {
                self.openers.take(&name);
            }
            Name::Session(id) => drop(self.sessions.insert(id)),
            Name::SessionEnd(id) => drop(self.ends.insert(id)),
            Name::Cell(id) => drop(self.cells.insert(id)),
            Name::Amendment(id, number) => {
                self.amendments.entry(id).or_default().insert(number);
            }
            Name::Segment(id) => drop(self.segments.insert(id)),
            // They are listed again, after the cells.
            Name::Round(_) | Name::State(_) | Name::Manifest(_) => {}
            Name::Parity(id) => drop(self.parity.insert(id, size)),
            Name::Ledger(_) => self.has_ledger = true,
            Name::Run(id) => drop(self.runs.insert(id)),
            Name::RunEnd(id) => drop(self.run_ends.insert(id)),
            Name::Reserve => self.has_reserve = true,
            Name::Pack(id) => {
                self.pack_count += 1;
                self.pack_bytes = self.pack_bytes.saturating_add(size);
                self.set_pack(&id, size, false)?;
            }
        }
        Ok(())
    }

    /// Gives a listed pack's size, and whether something named it before; from now on it is named.
    pub(super) fn name_pack(&mut self, id: &ObjectId) -> Result<(Option<u64>, bool)> {
        let found = self.packs.get(&id.0)?.and_then(|value| decode(&value));
        let (size, named) = found.unwrap_or((u64::MAX, false));
        if !named {
            self.set_pack(id, size, true)?;
        }
        Ok(((size != u64::MAX).then_some(size), named))
    }

    /// Gives all packs that were listed, ascending.
    pub(super) fn packs(&self) -> impl Iterator<Item = Result<ObjectId>> {
        self.packs.iter_from(&[]).filter_map(|item| match item {
            Ok((key, value)) => {
                let is_listed = decode(&value).is_some_and(|(size, _)| size != u64::MAX);
                let id = ObjectId::from_slice(&key).filter(|_| is_listed);
                id.map(Ok)
            }
            Err(error) => Some(Err(error.into())),
        })
    }

    /// Visits the packs that nothing named.
    pub(super) fn unnamed_packs(
        &self,
        visit: &mut dyn FnMut(ObjectId, u64) -> Result<()>,
    ) -> Result<()> {
        for item in self.packs.iter_from(&[]) {
            let (key, value) = item?;
            if let Some(id) = ObjectId::from_slice(&key)
                && let Some((size, false)) = decode(&value)
            {
                visit(id, size)?;
            }
        }
        Ok(())
    }

    fn set_pack(&mut self, id: &ObjectId, size: u64, named: bool) -> Result<()> {
        let value = [size.to_le_bytes().as_slice(), &[u8::from(named)]].concat();
        Ok(self.packs.insert(&id.0, &value)?)
    }
}

fn decode(value: &[u8]) -> Option<(u64, bool)> {
    let (size, named) = value.split_first_chunk()?;
    Some((u64::from_le_bytes(*size), *named == [1]))
}
