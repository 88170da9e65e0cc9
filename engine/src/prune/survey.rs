//! Finding out what is needed, where it is, and which place of it is kept.
//!
//! The index is read from end to end beside the sorted marks: once, or twice where chunks have several
//! places as good as each other.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use larder_format::cell::CellKind;
use larder_format::ids::{ChunkPrefix, ObjectId};

use super::facts::Facts;
use super::inventory::{Inventory, Packs};
use super::plan::{PlannedPack, SegmentUse, Standing, Survey};
use crate::error::{EngineError, Result};
use crate::index::Place;
use crate::mark::{Needed, who_needs};
use crate::protocol::{Doubt, Kept, Rule, is_committed, keeps};
use crate::repository::Repository;
use crate::scratch::runs::{Sorted, Sorter};

/// Memory of the chunks that are to be copied, before they go to disk.
const COPIED_BYTES: usize = 32 << 20;
/// Bytes of a record of a chunk that is to be copied: the position of its pack in the plan,
/// big-endian, and its prefix.
pub(super) const COPIED: usize = 4 + ChunkPrefix::SIZE;

/// What was found out.
pub(super) struct Found {
    pub inventory: Inventory,
    /// Which condemned packs must stay, if a round waits for its state.
    pub kept: Kept<ObjectId>,
    /// Needed chunks that only packs have which are not there, and one of them.
    pub lost: u64,
    pub lost_one: Option<ChunkPrefix>,
}

/// Reads the listing and the index against the marks.
///
/// # Errors
/// `Damaged`, with the snapshot and path, for a needed chunk that is nowhere.
pub(super) fn survey(
    repository: &Arc<Repository>,
    facts: &Facts,
    marks: &Needed,
    suspects: &BTreeSet<ObjectId>,
) -> Result<Found> {
    let collection = facts.collection();
    let mut inventory = Inventory::read(repository, collection, suspects)?;
    let mut kept = Kept {
        rescued: BTreeSet::new(),
        is_unresolved: false,
    };
    let packs = &mut inventory.packs;
    let mut missing = None;
    let mut has_choices = false;
    let (mut lost, mut lost_one) = (0, None);
    let mut having = Vec::new();
    marks.join(repository.index(), |prefix, places, records| {
        for place in places {
            if let Some(row) = packs
                .number(&place.pack)
                .and_then(|number| packs.get_mut(number))
            {
                row.usage.plain += u64::from(place.length);
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        let (mut is_anywhere, mut is_lost) = (false, false);
        if records.len() > 1 {
            fix(packs, places);
        }
        for group in groups(places, records.len()) {
            having.clear();
            having.extend(group.iter().filter_map(|place| {
                let doubt = packs.find(&place.pack)?.doubt()?;
                Some((place.pack, doubt))
            }));
            kept.need(&having, collection);
            match best(packs, group) {
                Best::None => {
                    is_lost |= lose(packs, group);
                    continue;
                }
                Best::One(number, length) => {
                    if let Some(row) = packs.get_mut(number) {
                        row.sole += length;
                        row.usage.kept += length;
                    }
                }
                Best::Several => has_choices = true,
            }
            is_anywhere = true;
        }
        if !is_anywhere && is_lost {
            lost += 1;
            lost_one.get_or_insert(*prefix);
        } else if !is_anywhere {
            missing.get_or_insert(*prefix);
        }
        Ok(())
    })?;
    if let Some(prefix) = missing.filter(|_| keeps(Rule::StopAtUnresolved)) {
        return Err(nowhere(repository, facts, &prefix));
    }
    if has_choices {
        marks.join(repository.index(), |_, places, records| {
            for group in groups(places, records.len()).filter(|_| !records.is_empty()) {
                if let (Best::Several, Some((number, length))) =
                    (best(packs, group), choose(packs, group))
                    && let Some(row) = packs.get_mut(number)
                {
                    row.usage.kept += length;
                }
            }
            Ok(())
        })?;
    }
    Ok(Found {
        inventory,
        kept,
        lost,
        lost_one,
    })
}

impl Found {
    /// Says what a plan is made from.
    pub(super) fn survey(&self, repository: &Repository, facts: &Facts) -> Result<Survey> {
        let collection = facts.collection();
        let out = collection.unusable_packs();
        let orphans = self
            .inventory
            .unnamed
            .iter()
            .filter(|(id, _)| !out.contains(id));
        let live = facts.live();
        let let_go = |kind: CellKind, is_live: bool| !is_committed(kind) || !is_live;
        let dead = facts
            .cells
            .iter()
            .filter(|cell| let_go(cell.kind, live.contains(&cell.id)));
        let mut segments = Vec::new();
        for id in &collection.state.segments {
            let (mut packs, mut deleted_packs) = (0, 0);
            for pack in repository.index().segment_packs(id)? {
                packs += 1;
                deleted_packs += u64::from(collection.state.deleted.contains(&pack));
            }
            segments.push(SegmentUse {
                id: *id,
                size: self.inventory.segments.get(id).copied().unwrap_or(u64::MAX),
                packs,
                deleted_packs,
            });
        }
        let records = self.inventory.sessions.len() + self.inventory.ends.len();
        Ok(Survey {
            packs: self.inventory.packs.known().copied().collect(),
            orphans: orphans.map(|(id, size)| (*id, *size)).collect(),
            segments,
            pending: self.pending(&out),
            dead_cells: dead.count() as u64,
            ended_sessions: records.saturating_sub(facts.open.len()) as u64,
            sound_suspects: 0,
            new_suspects: 0,
        })
    }

    /// Counts the packs that are there and that nobody may use any more, and their bytes.
    fn pending(&self, out: &BTreeSet<ObjectId>) -> (u64, u64) {
        let named = self.inventory.packs.known();
        let named = named.filter(|pack| pack.kept == 0 && out.contains(&pack.id));
        let unnamed = self
            .inventory
            .unnamed
            .iter()
            .filter(|(id, _)| out.contains(id));
        let sizes = named
            .map(|pack| pack.size)
            .chain(unnamed.map(|(_, size)| *size));
        sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size))
    }

    /// Gives the chunks that are to be copied out of packs, in the order of the packs.
    pub(super) fn copied(
        &self,
        repository: &Repository,
        marks: &Needed,
        plan: &[PlannedPack],
    ) -> Result<Sorted<COPIED>> {
        let packs = &self.inventory.packs;
        let mut positions = std::collections::HashMap::new();
        for (position, pack) in (0_u32..).zip(plan) {
            if let Some(number) = packs.number(&pack.id) {
                positions.insert(number, position);
            }
        }
        let mut sorter = Sorter::new(repository.cache_dir(), COPIED_BYTES);
        marks.join(repository.index(), |prefix, places, records| {
            for group in groups(places, records.len()).filter(|_| !records.is_empty()) {
                let Some((number, _)) = choose(packs, group) else {
                    continue;
                };
                if let Some(position) = positions.get(&number) {
                    sorter.push(copied(*position, prefix))?;
                }
            }
            Ok(())
        })?;
        Ok(sorter.finish()?)
    }
}

fn copied(position: u32, prefix: &ChunkPrefix) -> [u8; COPIED] {
    let mut record = [0; COPIED];
    let whole = position.to_be_bytes().into_iter().chain(prefix.0);
    for (to, from) in record.iter_mut().zip(whole) {
        *to = from;
    }
    record
}

/// Says who needs a chunk.
pub(super) fn needed_by(
    repository: &Arc<Repository>,
    facts: &Facts,
    prefix: &ChunkPrefix,
) -> String {
    let who = who_needs(repository, &facts.roots(), prefix);
    who.unwrap_or_else(|| "a snapshot".to_owned())
}

/// Says who needs a chunk that has no place.
fn nowhere(repository: &Arc<Repository>, facts: &Facts, prefix: &ChunkPrefix) -> EngineError {
    let who = needed_by(repository, facts, prefix);
    EngineError::Damaged {
        object: format!("the chunk {prefix}"),
        why: format!(
            "no pack that the index names holds it, and it is needed (by {who}); nothing was deleted"
        ),
    }
}

/// Keeps packs as they are that hold chunks whose ids begin alike: in one pack only the first of them would be found.
fn fix(packs: &mut Packs, places: &[Place]) {
    for place in places {
        let number = packs.number(&place.pack);
        if let Some(row) = number.and_then(|number| packs.get_mut(number)) {
            row.usage.is_fixed = true;
        }
    }
}

/// Splits the places of a prefix by what can tell chunks apart that share it; where several chunks are needed, every
/// place stands by itself.
fn groups(places: &[Place], needed: usize) -> impl Iterator<Item = &[Place]> {
    // Nearly always there is one. Places are sorted by pack, so others are found one by one.
    let is_one = places.windows(2).all(|pair| match pair {
        [a, b] => is_same(a, b),
        _ => true,
    });
    let size = if is_one && needed < 2 {
        places.len().max(1)
    } else {
        1
    };
    places.chunks(size)
}

fn is_same(a: &Place, b: &Place) -> bool {
    (a.pack_kind, a.length) == (b.pack_kind, b.length)
}

/// Counts a needed chunk for every pack that should have it and is not there, so that all of them
/// stay named: should one come back, the chunk does. Tells whether there is any.
fn lose(packs: &mut Packs, group: &[Place]) -> bool {
    let mut is_any = false;
    for place in group {
        let number = packs.number(&place.pack);
        let row = number.and_then(|number| packs.get_mut(number));
        if let Some(row) = row.filter(|row| row.doubt() == Some(Doubt::Missing)) {
            row.usage.kept += u64::from(place.length);
            is_any = true;
        }
    }
    is_any
}

/// How many places of a chunk are as good as its best one.
enum Best {
    None,
    /// One, in the pack of this number, of so many bytes.
    One(usize, u64),
    Several,
}

fn best(packs: &Packs, group: &[Place]) -> Best {
    let mut found = Best::None;
    let mut found_standing = Standing::Deleted;
    for place in group {
        let Some(number) = packs.number(&place.pack) else {
            continue;
        };
        let Some(row) = packs.get(number).filter(|row| row.exists) else {
            continue;
        };
        let standing = row.usage.standing;
        if matches!(found, Best::None) || standing < found_standing {
            found = Best::One(number, place.length.into());
            found_standing = standing;
        } else if standing == found_standing {
            found = Best::Several;
        }
    }
    found
}

/// Chooses the place of a chunk that is kept: in a pack that stays in any case, and the same one for
/// chunks that two sessions brought together.
fn choose(packs: &Packs, group: &[Place]) -> Option<(usize, u64)> {
    let candidates = group.iter().filter_map(|place| {
        let number = packs.number(&place.pack)?;
        let row = packs.get(number).filter(|row| row.exists)?;
        let is_half_needed = row.sole * 2 >= row.usage.plain;
        let rank = (Reverse(is_half_needed), Reverse(row.sole > 0), number);
        Some((
            (row.usage.standing, rank),
            (number, u64::from(place.length)),
        ))
    });
    candidates.min().map(|(_, chosen)| chosen)
}

/// Gives the pack's position and the prefix of a record.
pub(super) fn split(record: &[u8; COPIED]) -> Option<(u32, ChunkPrefix)> {
    let (position, prefix) = record.split_first_chunk()?;
    Some((
        u32::from_be_bytes(*position),
        ChunkPrefix::from_slice(prefix)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::PackKind;

    #[test]
    fn places_stand_by_themselves_where_they_may_be_of_several_chunks() {
        let place = |pack: u8, length| Place {
            pack: ObjectId([pack; 32]),
            pack_kind: PackKind::Data,
            block_offset: 64,
            block_length: 100,
            offset: 0,
            length,
        };
        let same = [place(1, 5), place(2, 5)];
        assert_eq!(groups(&same, 1).collect::<Vec<_>>(), [&same]);
        assert_eq!(groups(&same, 2).count(), 2);
        assert_eq!(groups(&[place(1, 5), place(2, 6)], 1).count(), 2);
    }
}
