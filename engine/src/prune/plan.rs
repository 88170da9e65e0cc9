//! What a prune would do, decided from a survey: pure, and printable.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use larder_format::ids::ObjectId;
use larder_format::pack::close_bytes;
use serde::Serialize;

use crate::index::PackKind;

/// A pack below this part of the length at which it would have been closed is small.
const SMALL_PACK_PART: u64 = 3;
/// Small packs of a kind that are merged whatever they amount to.
const SMALL_PACKS: usize = 32;
/// A segment below this many bytes is small.
const SMALL_SEGMENT_BYTES: u64 = 1 << 20;
/// Small segments that are merged.
const SMALL_SEGMENTS: usize = 8;
/// Deleted packs in segments for which alone a round is worth its two objects.
const DROPPED_PACKS: u64 = 64;
/// Records of ended sessions for which alone a round is worth its two objects.
const ENDED_SESSIONS: u64 = 64;

/// How much of a repository may stay unused.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxUnused {
    /// This share of what is kept, in percent.
    Percent(f64),
    /// This many bytes.
    Bytes(u64),
    /// As much as there is: nothing is repacked.
    Unlimited,
}

/// What a plan must keep to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// How much may stay unused.
    pub max_unused: MaxUnused,
    /// Bytes of packs that are repacked at most.
    pub max_repack_bytes: Option<u64>,
}

/// A pack that a counting segment names, and that is there or should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackUse {
    /// Its content name.
    pub id: ObjectId,
    /// What it holds.
    pub kind: PackKind,
    /// Its bytes in the storage; 0 if it is missing.
    pub size: u64,
    /// Plaintext bytes of all its chunks.
    pub plain: u64,
    /// Those of the chunks that are needed and have their place here.
    pub kept: u64,
    /// How it stands with collectors.
    pub standing: Standing,
    /// Whether it stays as it is, because the id of a chunk in it begins like that of another one.
    pub is_fixed: bool,
}

/// How a pack stands with collectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It may be used.
    Usable,
    /// It may be damaged: what it holds is read from elsewhere if that can be.
    Suspect,
    /// A round without a state condemned it.
    Condemned,
    /// The newest state lists it as deleted.
    Deleted,
    /// It is not there, though nobody deleted it by the rules.
    Missing,
}

/// A segment that the newest state lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentUse {
    /// Its content name.
    pub id: ObjectId,
    /// Its bytes in the storage.
    pub size: u64,
    /// Packs that it names.
    pub packs: u64,
    /// Those that are deleted.
    pub deleted_packs: u64,
}

/// What was found in a repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Packs of counting segments.
    pub packs: Vec<PackUse>,
    /// Packs that are there and in no counting segment, with their sizes.
    pub orphans: Vec<(ObjectId, u64)>,
    /// Segments of the newest state.
    pub segments: Vec<SegmentUse>,
    /// Packs that are there and go with what an earlier run began, and their bytes.
    pub pending: (u64, u64),
    /// Cells that a new state would let go.
    pub dead_cells: u64,
    /// Sessions that ended and that a new state would let go.
    pub ended_sessions: u64,
    /// Packs that an earlier run took to be damaged and that are whole.
    pub sound_suspects: u64,
    /// Packs that are missing or damaged, and that no state says so of yet.
    pub new_suspects: u64,
}

/// What a prune would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Packs in which nothing is needed.
    pub delete: Vec<PlannedPack>,
    /// Packs whose needed chunks are written anew.
    pub repack: Vec<PlannedPack>,
    /// Packs of which the needed chunks would be written anew, but that lie in cold storage: they stay as they
    /// are.
    pub cold: Vec<PlannedPack>,
    /// Packs that no finished backup names.
    pub orphans: Vec<PlannedPack>,
    /// Segments that are replaced, by content name.
    #[serde(serialize_with = "hex_all")]
    pub merge_segments: Vec<ObjectId>,
    /// Packs that were deleted before and are left out of what replaces them.
    pub drop_packs: u64,
    /// Forgotten and replaced snapshots whose records go.
    pub clear_snapshots: u64,
    /// Ended sessions whose records go.
    pub clear_sessions: u64,
    /// Packs that were taken to be damaged, are whole, and may be used again.
    pub clear_suspects: u64,
    /// Packs that are missing or damaged and that no backup builds on from then on.
    pub new_suspects: u64,
    /// Sums of all this.
    pub totals: Totals,
}

/// A pack in a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PlannedPack {
    /// Its content name.
    #[serde(serialize_with = "hex")]
    pub id: ObjectId,
    /// Its bytes in the storage.
    pub bytes: u64,
    /// Bytes of it that nothing needs, estimated from its plaintext.
    pub unused_bytes: u64,
    /// Why it is in the plan.
    pub why: Why,
}

/// Why a pack is in a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Nothing in it is needed.
    Unused,
    /// Much of it is not needed.
    PartlyUnused,
    /// It is small.
    Small,
    /// No finished backup names it.
    Orphan,
    /// It was to be deleted, and is the only place of something needed.
    NeededAgain,
    /// It is not there, and nothing of it is needed that others do not hold.
    Missing,
}

/// Sums of a plan, in bytes of packs unless said otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Packs that are there, of those that were not deleted before.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of them that nothing needs.
    pub unused_bytes: u64,
    /// Packs that are there and go with what an earlier run began; they are in no other sum.
    pub pending_packs: u64,
    /// Their bytes.
    pub pending_bytes: u64,
    /// Bytes that are freed.
    pub freed_bytes: u64,
    /// Bytes that are read to be written anew.
    pub repack_bytes: u64,
    /// Bytes that are kept.
    pub kept_bytes: u64,
    /// Bytes of them that nothing needs.
    pub unused_after_bytes: u64,
}

impl PackUse {
    /// Gives the bytes that nothing needs: the share of its plaintext, of its size.
    #[must_use]
    pub fn unused(&self) -> u64 {
        let dead = self.plain.saturating_sub(self.kept);
        if self.kept == 0 || self.plain == 0 {
            return self.size;
        }
        let share = u128::from(self.size) * u128::from(dead) / u128::from(self.plain);
        u64::try_from(share).unwrap_or(self.size)
    }

    fn planned(&self, why: Why) -> PlannedPack {
        PlannedPack {
            id: self.id,
            bytes: self.size,
            unused_bytes: self.unused(),
            why,
        }
    }
}

impl Plan {
    /// Takes packs out of what is repacked that lie in cold storage.
    pub fn leave_cold_out(&mut self, cold: &BTreeSet<ObjectId>) {
        let (left, stays): (Vec<_>, Vec<_>) = std::mem::take(&mut self.repack)
            .into_iter()
            .partition(|pack| cold.contains(&pack.id));
        self.repack = stays;
        let totals = &mut self.totals;
        for pack in &left {
            totals.repack_bytes = totals.repack_bytes.saturating_sub(pack.bytes);
            if pack.why != Why::NeededAgain {
                let bytes = pack.unused_bytes;
                totals.freed_bytes = totals.freed_bytes.saturating_sub(bytes);
                totals.kept_bytes = totals.kept_bytes.saturating_add(bytes);
                totals.unused_after_bytes = totals.unused_after_bytes.saturating_add(bytes);
            }
        }
        self.cold = left;
    }

    /// Takes out what needs room, for a storage that has none.
    pub fn leave_repacking_out(&mut self) {
        let saved = self
            .repack
            .iter()
            .filter(|pack| pack.why != Why::NeededAgain);
        let bytes: u64 = saved.map(|pack| pack.unused_bytes).sum();
        self.repack.clear();
        let totals = &mut self.totals;
        totals.repack_bytes = 0;
        totals.freed_bytes = totals.freed_bytes.saturating_sub(bytes);
        totals.kept_bytes = totals.kept_bytes.saturating_add(bytes);
        totals.unused_after_bytes = totals.unused_after_bytes.saturating_add(bytes);
    }

    /// Tells whether there is nothing to do that is worth a round.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.delete.is_empty()
            && self.repack.is_empty()
            && self.orphans.is_empty()
            && self.merge_segments.len() < SMALL_SEGMENTS
            && self.drop_packs < DROPPED_PACKS
            && self.clear_snapshots == 0
            && self.clear_suspects + self.new_suspects == 0
            && self.clear_sessions < ENDED_SESSIONS
    }
}

/// Decides what to delete, to repack and to merge.
#[must_use]
pub fn plan(survey: &Survey, limits: &Limits) -> Plan {
    let usable = |pack: &&PackUse| matches!(pack.standing, Standing::Usable | Standing::Suspect);
    let mut plan = Plan {
        clear_snapshots: survey.dead_cells,
        clear_sessions: survey.ended_sessions,
        clear_suspects: survey.sound_suspects,
        new_suspects: survey.new_suspects,
        merge_segments: segments_to_merge(&survey.segments),
        ..Plan::default()
    };
    let merged = |segment: &&SegmentUse| plan.merge_segments.contains(&segment.id);
    let dropped = survey.segments.iter().filter(merged);
    plan.drop_packs = dropped.map(|segment| segment.deleted_packs).sum();
    plan.orphans = survey
        .orphans
        .iter()
        .map(|(id, size)| orphan(id, *size))
        .collect();
    let unneeded = survey
        .packs
        .iter()
        .filter(usable)
        .filter(|pack| pack.kept == 0);
    let missing = survey.packs.iter();
    let missing = missing.filter(|pack| pack.standing == Standing::Missing && pack.kept == 0);
    plan.delete = unneeded
        .map(|pack| pack.planned(Why::Unused))
        .chain(missing.map(|pack| pack.planned(Why::Missing)))
        .collect();
    plan.repack = packs_to_repack(&survey.packs, limits);

    let totals = &mut plan.totals;
    (totals.pending_packs, totals.pending_bytes) = survey.pending;
    for pack in survey.packs.iter().filter(usable) {
        totals.packs += 1;
        totals.bytes += pack.size;
        totals.unused_bytes += pack.unused();
    }
    for orphan in &plan.orphans {
        totals.packs += 1;
        totals.bytes += orphan.bytes;
        totals.unused_bytes += orphan.bytes;
    }
    let gone = plan.delete.iter().chain(&plan.orphans).chain(&plan.repack);
    // What was deleted before is not counted, so it cannot be freed.
    let gone = gone.filter(|pack| pack.why != Why::NeededAgain);
    totals.freed_bytes = gone.map(|pack| pack.unused_bytes).sum();
    totals.repack_bytes = plan.repack.iter().map(|pack| pack.bytes).sum();
    totals.kept_bytes = totals.bytes.saturating_sub(totals.freed_bytes);
    totals.unused_after_bytes = totals.unused_bytes.saturating_sub(totals.freed_bytes);
    plan
}

fn orphan(id: &ObjectId, size: u64) -> PlannedPack {
    PlannedPack {
        id: *id,
        bytes: size,
        unused_bytes: size,
        why: Why::Orphan,
    }
}

/// Chooses packs: first those that must be saved, then the worst until little enough is unused,
/// then the small ones if there are enough of them.
fn packs_to_repack(packs: &[PackUse], limits: &Limits) -> Vec<PlannedPack> {
    let needed_again = |pack: &&PackUse| pack.standing == Standing::Deleted && pack.kept > 0;
    let saved = packs.iter().filter(needed_again);
    let mut chosen: Vec<_> = saved.map(|pack| pack.planned(Why::NeededAgain)).collect();
    if limits.max_unused == MaxUnused::Unlimited {
        return chosen;
    }
    let mut left = limits.max_repack_bytes.unwrap_or(u64::MAX);
    let mut take = |pack: &PackUse, why| {
        let fits = pack.size <= left;
        if fits {
            left -= pack.size;
            chosen.push(pack.planned(why));
        }
        fits
    };
    let mut live: Vec<&PackUse> = packs
        .iter()
        .filter(|pack| pack.standing == Standing::Usable && pack.kept > 0 && !pack.is_fixed)
        .collect();
    // Worst first: by share, so compared crosswise; the id makes the order whole.
    live.sort_by_cached_key(|pack| (Reverse(share(pack)), pack.id));
    let mut unused: u64 = live.iter().map(|pack| pack.unused()).sum();
    let mut kept: u64 = live.iter().map(|pack| pack.size).sum();
    let mut rest = Vec::new();
    for pack in live {
        let is_too_much = unused > allowed(limits.max_unused, kept - unused);
        if is_too_much && pack.unused() > 0 && take(pack, Why::PartlyUnused) {
            unused -= pack.unused();
            kept -= pack.unused();
        } else {
            rest.push(pack);
        }
    }
    for kind in [PackKind::Data, PackKind::Tree] {
        let full = full_bytes(kind);
        let is_small = |pack: &&&PackUse| pack.kind == kind && is_small(pack);
        let small: Vec<_> = rest.iter().filter(is_small).collect();
        let bytes: u64 = small.iter().map(|pack| pack.size).sum();
        if small.len() >= SMALL_PACKS || (small.len() > 2 && bytes >= full) {
            small.iter().for_each(|pack| {
                take(pack, Why::Small);
            });
        }
    }
    chosen
}

fn is_small(pack: &PackUse) -> bool {
    pack.size < full_bytes(pack.kind) / SMALL_PACK_PART
}

/// Gives the length in bytes from which a writer closes a pack of a kind.
fn full_bytes(kind: PackKind) -> u64 {
    close_bytes(kind.kind()).0 as u64
}

/// Gives the unused share of a pack in millionths.
fn share(pack: &PackUse) -> u64 {
    let share = u128::from(pack.unused()) * 1_000_000 / u128::from(pack.size.max(1));
    u64::try_from(share).unwrap_or(u64::MAX)
}

/// Gives the bytes that may stay unused beside so many used ones.
fn allowed(max_unused: MaxUnused, used: u64) -> u64 {
    match max_unused {
        MaxUnused::Bytes(bytes) => bytes,
        MaxUnused::Unlimited => u64::MAX,
        // Of what is kept, the unused part included.
        MaxUnused::Percent(percent) if percent >= 100.0 => u64::MAX,
        MaxUnused::Percent(percent) => (used as f64 * percent / (100.0 - percent)) as u64,
    }
}

/// Chooses segments: many small ones, and those that name many packs that are deleted.
fn segments_to_merge(segments: &[SegmentUse]) -> Vec<ObjectId> {
    let is_small = |segment: &&SegmentUse| segment.size < SMALL_SEGMENT_BYTES;
    let are_many = segments.iter().filter(is_small).count() >= SMALL_SEGMENTS;
    let is_chosen = |segment: &&SegmentUse| {
        let is_hollow = segment.deleted_packs > 0 && segment.deleted_packs * 4 >= segment.packs;
        is_hollow || (are_many && is_small(segment))
    };
    let mut chosen: Vec<_> = segments
        .iter()
        .filter(is_chosen)
        .map(|one| one.id)
        .collect();
    chosen.sort_unstable();
    chosen
}

fn hex<S: serde::Serializer>(id: &ObjectId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

fn hex_all<S: serde::Serializer>(ids: &[ObjectId], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(ids.iter().map(ToString::to_string))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    fn packs() -> impl Strategy<Value = Vec<PackUse>> {
        let pack = (1..30_000_000_u64, 0..=100_u64, any::<bool>(), 0..8_u8);
        proptest::collection::vec(pack, 0..60).prop_map(|packs| {
            let numbered = packs.into_iter().enumerate();
            numbered
                .map(|(at, (size, percent, is_data, standing))| PackUse {
                    id: ObjectId([u8::try_from(at).unwrap(); 32]),
                    kind: if is_data {
                        PackKind::Data
                    } else {
                        PackKind::Tree
                    },
                    size: if standing == 3 { 0 } else { size },
                    plain: size * 2,
                    kept: size * 2 * percent / 100,
                    standing: match standing {
                        0 => Standing::Suspect,
                        1 => Standing::Condemned,
                        2 => Standing::Deleted,
                        3 => Standing::Missing,
                        _ => Standing::Usable,
                    },
                    is_fixed: false,
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn a_plan_keeps_its_promises(
            packs in packs(),
            percent in 0.0..60.0_f64,
            budget in proptest::option::of(0..200_000_000_u64),
        ) {
            let survey = Survey { packs: packs.clone(), ..Survey::default() };
            let limits = Limits { max_unused: MaxUnused::Percent(percent), max_repack_bytes: budget };
            let plan = plan(&survey, &limits);
            let find = |id: &ObjectId| *packs.iter().find(|pack| pack.id == *id).unwrap();
            // Nothing that is needed is deleted, and all that is not and may be used is.
            for pack in &packs {
                let is_deleted = plan.delete.iter().any(|one| one.id == pack.id);
                let may_be = matches!(
                    pack.standing,
                    Standing::Usable | Standing::Suspect | Standing::Missing
                );
                prop_assert_eq!(is_deleted, may_be && pack.kept == 0);
            }
            // Each pack is repacked once, for a reason that holds.
            let chosen: Vec<_> = plan.repack.iter().map(|one| find(&one.id)).collect();
            let mut ids: Vec<_> = chosen.iter().map(|pack| pack.id).collect();
            ids.sort_unstable();
            ids.dedup();
            prop_assert_eq!(ids.len(), chosen.len());
            for (pack, planned) in chosen.iter().zip(&plan.repack) {
                prop_assert!(pack.kept > 0);
                match planned.why {
                    Why::NeededAgain => prop_assert_eq!(pack.standing, Standing::Deleted),
                    Why::Small => prop_assert!(is_small(pack)),
                    _ => prop_assert_eq!(pack.standing, Standing::Usable),
                }
            }
            // The worst come first: none that is left out is worse than one that was taken, unless
            // the budget had no room for it.
            let worn: Vec<_> = plan.repack.iter().filter(|one| one.why == Why::PartlyUnused).collect();
            let live = packs.iter().filter(|pack| pack.standing == Standing::Usable && pack.kept > 0);
            let left: Vec<_> = live.filter(|pack| !ids.contains(&pack.id)).collect();
            if budget.is_none() {
                for one in &worn {
                    let taken = find(&one.id);
                    prop_assert!(left.iter().all(|pack| share(pack) <= share(&taken)));
                }
                let unused: u64 = left.iter().map(|pack| pack.unused()).sum();
                let size: u64 = left.iter().map(|pack| pack.size).sum();
                let worn_kept: u64 = worn.iter().map(|one| one.bytes - one.unused_bytes).sum();
                let small = plan.repack.iter().filter(|one| one.why == Why::Small);
                let small: u64 = small.map(|one| one.bytes).sum();
                let kept = (size + worn_kept + small) as f64;
                prop_assert!(unused as f64 <= kept * percent / 100.0 + 1.0);
                // And no pack was taken without need.
                if let Some(last) = worn.last() {
                    let small = plan.repack.iter().filter(|one| one.why == Why::Small);
                    let small_unused: u64 = small.map(|one| one.unused_bytes).sum();
                    let with = (unused + small_unused + last.unused_bytes) as f64;
                    prop_assert!(with > (kept + last.unused_bytes as f64) * percent / 100.0 - 2.0);
                }
            }
            let needed = |one: &&PlannedPack| one.why != Why::NeededAgain;
            let bytes: u64 = plan.repack.iter().filter(needed).map(|one| one.bytes).sum();
            prop_assert!(bytes <= budget.unwrap_or(u64::MAX));
            prop_assert_eq!(plan.totals.bytes, plan.totals.kept_bytes + plan.totals.freed_bytes);
        }
    }

    #[test]
    fn nothing_is_repacked_that_may_stay_or_has_to() {
        let pack = PackUse {
            id: ObjectId([1; 32]),
            kind: PackKind::Data,
            size: 1000,
            plain: 1000,
            kept: 1,
            standing: Standing::Usable,
            is_fixed: false,
        };
        let mut survey = Survey {
            packs: vec![pack],
            ..Survey::default()
        };
        let mut limits = Limits {
            max_unused: MaxUnused::Unlimited,
            max_repack_bytes: None,
        };
        assert!(plan(&survey, &limits).repack.is_empty());
        limits.max_unused = MaxUnused::Bytes(998);
        assert_eq!(plan(&survey, &limits).repack.len(), 1);
        limits.max_unused = MaxUnused::Bytes(999);
        assert!(plan(&survey, &limits).is_empty());
        limits.max_unused = MaxUnused::Bytes(0);
        survey.packs = vec![PackUse {
            is_fixed: true,
            ..pack
        }];
        assert!(plan(&survey, &limits).is_empty());
    }

    #[test]
    fn segments_are_merged_where_many_are_small_or_one_is_hollow() {
        let segment = |number: u8, size, packs, deleted_packs| SegmentUse {
            id: ObjectId([number; 32]),
            size,
            packs,
            deleted_packs,
        };
        let small: Vec<_> = (0..7).map(|number| segment(number, 5000, 4, 0)).collect();
        assert!(segments_to_merge(&small).is_empty());
        let large = segment(9, 5 << 20, 100, 24);
        let with_large = [small.clone(), vec![large, segment(8, 10, 4, 0)]].concat();
        assert_eq!(segments_to_merge(&with_large).len(), 8);
        let hollow = segment(9, 5 << 20, 100, 25);
        assert_eq!(segments_to_merge(&[hollow]), [hollow.id]);
    }
}
