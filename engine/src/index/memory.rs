//! The index in memory, for simulations and tests.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use larder_format::ids::{ChunkPrefix, ObjectId};

use super::{Index, IndexError, PackInfo, PackRecord, Place, Result};

/// An index that lives in memory and vanishes with the value.
#[derive(Default)]
pub struct MemoryIndex {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    chunks: BTreeMap<ChunkPrefix, BTreeSet<Place>>,
    packs: BTreeMap<ObjectId, PackInfo>,
    segments: BTreeMap<ObjectId, BTreeSet<ObjectId>>,
    /// Packs of the segments that count.
    counting: BTreeSet<ObjectId>,
    pending: BTreeSet<ObjectId>,
    /// Pending packs that are not usable any more.
    disowned: BTreeSet<ObjectId>,
    /// Packs that are not usable, counting or not.
    unusable: BTreeSet<ObjectId>,
    blocks: BTreeMap<(ObjectId, u64), Vec<u8>>,
}

impl MemoryIndex {
    /// Makes an empty index.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn counts(&self, pack: &ObjectId) -> bool {
        self.counting.contains(pack) || self.pending.contains(pack)
    }

    fn is_usable(&self, pack: &ObjectId) -> bool {
        let is_own = self.pending.contains(pack) && !self.disowned.contains(pack);
        (self.counting.contains(pack) || is_own) && !self.unusable.contains(pack)
    }

    fn places(&self, prefix: &ChunkPrefix) -> Vec<Place> {
        let places = self.chunks.get(prefix).into_iter().flatten();
        let counting = places.filter(|place| self.counts(&place.pack));
        let mut places: Vec<_> = counting.copied().collect();
        places.sort_by_key(|place| !self.is_usable(&place.pack));
        places
    }

    fn add_pack(&mut self, pack: &PackRecord) {
        if self.packs.insert(pack.id, pack.info()).is_none() {
            for (prefix, place) in pack.places() {
                self.chunks.entry(prefix).or_default().insert(place);
            }
        }
    }

    /// Takes out the packs that nothing names any more.
    fn drop_unnamed_packs(&mut self) {
        let named: BTreeSet<_> = self.segments.values().flatten().collect();
        let pending = &self.pending;
        self.packs
            .retain(|pack, _| named.contains(pack) || pending.contains(pack));
        self.counting.retain(|pack| named.contains(pack));
        let packs = &self.packs;
        for places in self.chunks.values_mut() {
            places.retain(|place| packs.contains_key(&place.pack));
        }
        self.chunks.retain(|_, places| !places.is_empty());
    }
}

impl Index for MemoryIndex {
    fn segments(&self) -> Result<BTreeSet<ObjectId>> {
        Ok(self.lock().segments.keys().copied().collect())
    }

    fn has_segment(&self, segment: &ObjectId) -> Result<bool> {
        Ok(self.lock().segments.contains_key(segment))
    }

    fn segment_packs(&self, segment: &ObjectId) -> Result<Vec<ObjectId>> {
        let state = self.lock();
        let packs = state.segments.get(segment);
        let packs = packs.ok_or(IndexError::NotFed(*segment))?;
        Ok(packs.iter().copied().collect())
    }

    fn add_segment(&self, segment: &ObjectId, packs: &[PackRecord]) -> Result<()> {
        let mut state = self.lock();
        for pack in packs {
            state.add_pack(pack);
        }
        let ids = packs.iter().map(|pack| pack.id).collect();
        state.segments.entry(*segment).or_insert(ids);
        Ok(())
    }

    fn remove_segments(&self, segments: &[ObjectId]) -> Result<()> {
        let mut state = self.lock();
        for segment in segments {
            state.segments.remove(segment);
        }
        state.drop_unnamed_packs();
        Ok(())
    }

    fn set_counting(&self, segments: &[ObjectId]) -> Result<()> {
        let mut state = self.lock();
        let mut counting = BTreeSet::new();
        for segment in segments {
            let packs = state.segments.get(segment);
            counting.extend(packs.ok_or(IndexError::NotFed(*segment))?);
        }
        state.counting = counting;
        Ok(())
    }

    fn set_unusable(&self, packs: &BTreeSet<ObjectId>) -> Result<()> {
        self.lock().unusable.clone_from(packs);
        Ok(())
    }

    fn add_pending_pack(&self, pack: &PackRecord) -> Result<()> {
        let mut state = self.lock();
        state.add_pack(pack);
        state.pending.insert(pack.id);
        state.disowned.remove(&pack.id);
        Ok(())
    }

    fn disown_pending(&self) -> Result<()> {
        let mut state = self.lock();
        state.disowned = state.pending.clone();
        Ok(())
    }

    fn drop_pending(&self) -> Result<()> {
        let mut state = self.lock();
        state.pending.clear();
        state.disowned.clear();
        state.drop_unnamed_packs();
        Ok(())
    }

    fn are_usable(&self, prefixes: &[ChunkPrefix]) -> Result<Vec<bool>> {
        let state = self.lock();
        let is_usable = |prefix| {
            let mut places = state.chunks.get(prefix).into_iter().flatten();
            places.any(|place| state.is_usable(&place.pack))
        };
        Ok(prefixes.iter().map(is_usable).collect())
    }

    fn lookup(&self, prefix: &ChunkPrefix) -> Result<Vec<Place>> {
        Ok(self.lock().places(prefix))
    }

    fn lookup_many(&self, prefixes: &[ChunkPrefix]) -> Result<Vec<Vec<Place>>> {
        let state = self.lock();
        Ok(prefixes.iter().map(|prefix| state.places(prefix)).collect())
    }

    fn packs(&self, visit: &mut dyn FnMut(PackInfo) -> ControlFlow<()>) -> Result<()> {
        let state = self.lock();
        let counting = state.packs.values().filter(|pack| state.counts(&pack.id));
        // Ending early is the visitor's choice and no failure.
        let _ = counting.copied().try_for_each(visit);
        Ok(())
    }

    fn for_each_chunk(
        &self,
        visit: &mut dyn FnMut(&ChunkPrefix, &[Place]) -> ControlFlow<()>,
    ) -> Result<()> {
        let state = self.lock();
        for prefix in state.chunks.keys() {
            let places = state.places(prefix);
            if !places.is_empty() && visit(prefix, &places).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn cached_block(&self, pack: &ObjectId, offset: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.lock().blocks.get(&(*pack, offset)).cloned())
    }

    fn cache_block(&self, pack: &ObjectId, offset: u64, bytes: &[u8]) -> Result<()> {
        const BLOCKS_MAX: usize = 1024;
        let mut state = self.lock();
        if state.blocks.len() >= BLOCKS_MAX {
            state.blocks.clear();
        }
        state.blocks.insert((*pack, offset), bytes.to_vec());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::behaviour;
    use super::*;

    #[test]
    fn it_behaves_as_an_index() {
        behaviour::run(&|| Box::new(MemoryIndex::new()));
    }
}
