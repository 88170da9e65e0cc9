mod whole;

use std::path::Path;
use std::sync::Arc;

use larder_format::ids::ObjectId;
use larder_format::names;
use larder_format::object::{Kind, object_id};
use larder_format::parity::PIECE_BYTES;
use proptest::prelude::*;
use reed_solomon_simd::engine::{CANTOR_BASIS, DefaultEngine, GF_POLYNOMIAL};
use reed_solomon_simd::rate::{HighRateEncoder, RateEncoder};

use super::*;
use crate::cancel::Cancel;
use crate::index::memory::MemoryIndex;
use crate::storage::Storage;
use crate::storage::counting::Counting;
use crate::storage::error::Operation;
use crate::storage::object::ObjectStorage;

/// A group in a storage of its own.
struct World {
    storage: ObjectStorage,
    scratch: tempfile::TempDir,
    packs: Vec<(ObjectId, Vec<u8>)>,
    parity: (ObjectId, Vec<u8>),
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

impl World {
    fn new(lengths: &[usize], percent: u8) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let storage = ObjectStorage::memory();
        let mut spool = Spool::new(percent, scratch.path());
        let (mut packs, mut full) = (Vec::new(), None);
        for (seed, length) in (0..).zip(lengths) {
            let bytes = noise(seed, *length);
            let id = object_id(&bytes);
            storage
                .put(&names::pack(&id), bytes.clone().into())
                .unwrap();
            full = spool.add(Kind::DataPack, id, &bytes).unwrap().or(full);
            packs.push((id, bytes));
        }
        let open = full.unwrap_or_else(|| spool.rest().remove(0));
        let (id, object) = open.finish().unwrap().unwrap();
        storage.put(&names::parity(&id), object.clone()).unwrap();
        Self {
            storage,
            scratch,
            packs,
            parity: (id, object.to_vec()),
        }
    }

    fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    fn put(&self, name: &str, bytes: Vec<u8>) {
        self.storage.put(name, bytes.into()).unwrap();
    }

    /// Rebuilds what can be, and compares it with what it was; tells which packs are whole again.
    fn mend(&self) -> Vec<bool> {
        let size = self.parity.1.len() as u64;
        let mut healed = Vec::new();
        let mut keep = |id: &ObjectId, bytes: bytes::Bytes| {
            let (_, expected) = self.packs.iter().find(|(one, _)| one == id).unwrap();
            assert_eq!(bytes, expected, "wrong bytes");
            healed.push(*id);
            Ok(())
        };
        let (storage, cancel) = (&self.storage, Cancel::default());
        mend(
            storage,
            self.scratch(),
            (&self.parity.0, size),
            &|_| true,
            &mut keep,
            &cancel,
        )
        .unwrap();
        let is_whole = |(id, bytes): &(ObjectId, Vec<u8>)| {
            let there = storage.get(&names::pack(id), 1 << 26);
            healed.contains(id) || there.is_ok_and(|there| there == *bytes)
        };
        self.packs.iter().map(is_whole).collect()
    }
}

/// The field by its definition: polynomials over GF(2), and the points and words in terms of the basis.
struct Field;

impl Field {
    fn element(word: u16) -> u32 {
        let basis = CANTOR_BASIS.iter().enumerate();
        basis.fold(0, |sum, (bit, element)| match word >> bit & 1 {
            1 => sum ^ u32::from(*element),
            _ => sum,
        })
    }

    fn multiply(a: u32, b: u32) -> u32 {
        (0..16).rev().fold(0, |sum, bit| {
            let doubled = sum << 1;
            let reduced = if doubled >> 16 & 1 == 1 {
                doubled ^ GF_POLYNOMIAL as u32
            } else {
                doubled
            };
            if b >> bit & 1 == 1 {
                reduced ^ a
            } else {
                reduced
            }
        })
    }
}

fn words(piece: &[u8]) -> Vec<u16> {
    let blocks = piece.chunks(64);
    blocks
        .flat_map(|block| (0..32).map(|at| u16::from(block[at]) | u16::from(block[32 + at]) << 8))
        .collect()
}

#[test]
fn the_code_is_the_one_that_the_specification_defines() {
    let pieces: Vec<Vec<u8>> = (0..11).map(|seed| noise(seed, 64)).collect();
    let encode = |recovery: usize| -> Vec<Vec<u8>> {
        let mut encoder =
            HighRateEncoder::new(pieces.len(), recovery, 64, DefaultEngine::new(), None).unwrap();
        for piece in &pieces {
            encoder.add_original_shard(piece).unwrap();
        }
        let encoded = encoder.encode().unwrap();
        encoded.recovery_iter().map(<[u8]>::to_vec).collect()
    };
    let recovery = encode(4);
    assert_eq!(encode(3), recovery[..3]);
    let all: Vec<Vec<u16>> = recovery
        .iter()
        .chain(&pieces)
        .map(|piece| words(piece))
        .collect();
    for power in 0..4 {
        for word in 0..32 {
            let sum = all.iter().enumerate().fold(0, |sum, (point, piece)| {
                let point = Field::element(point as u16);
                let factor = (0..power).fold(1, |product, _| Field::multiply(product, point));
                sum ^ Field::multiply(factor, Field::element(piece[word]))
            });
            assert_eq!(sum, 0, "power {power}, word {word}");
        }
    }
}

#[test]
fn a_lost_pack_of_a_full_group_comes_back() {
    let world = World::new(&[30_000, 41_000, 8192, 25_001], 25);
    for (id, bytes) in &world.packs {
        world.storage.delete(&names::pack(id)).unwrap();
        assert_eq!(world.mend(), [true; 4]);
        world.put(&names::pack(id), bytes.clone());
    }
    world
        .storage
        .delete(&names::pack(&world.packs[1].0))
        .unwrap();
    world
        .storage
        .delete(&names::pack(&world.packs[0].0))
        .unwrap();
    assert_eq!(world.mend(), [false, false, true, true]);
}

#[test]
fn parity_survives_damage_to_itself() {
    let world = World::new(&[400_000], 10);
    let (id, bytes) = &world.packs[0];
    let mut damaged = bytes.clone();
    damaged[40_000..50_000].fill(0);
    world.put(&names::pack(id), damaged);
    let whole = world.parity.1.clone();
    let name = names::parity(&world.parity.0);
    let middle = whole.len() / 2;
    for change in [
        (0, 2000),
        (whole.len() - 2000, whole.len()),
        (middle, middle + 4096),
    ] {
        let mut object = whole.clone();
        object[change.0..change.1].fill(0x55);
        world.put(&name, object);
        assert_eq!(world.mend(), [true], "{change:?}");
    }
    let mut object = whole.clone();
    object.truncate(whole.len() * 3 / 4);
    world.put(&name, object);
    assert_eq!(world.mend(), [true]);
    world.put(&name, whole[..100].to_vec());
    assert_eq!(world.mend(), [false]);
    world.put(&name, whole[..50].to_vec());
    assert_eq!(world.mend(), [false]);
}

#[test]
fn what_parity_suffices_for_is_told_without_the_rest_of_the_group() {
    let world = World::new(&[100_000, 100_000], 10);
    let size = world.parity.1.len() as u64;
    let (id, bytes) = &world.packs[0];
    let suspects = [*id].into();
    let assess = || {
        assess(
            &world.storage,
            (&world.parity.0, size),
            &suspects,
            &Cancel::default(),
        )
    };
    let mut damaged = bytes.clone();
    damaged[5000] ^= 1;
    world.put(&names::pack(id), damaged);
    assert_eq!(assess().unwrap(), [*id]);
    world.storage.delete(&names::pack(id)).unwrap();
    assert_eq!(assess().unwrap(), []);
}

#[test]
fn what_a_parity_object_protects_is_read_once() {
    let world = World::new(&[100_000, 50_000], 10);
    let (id, object) = &world.parity;
    let storage: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
    storage
        .put(&names::parity(id), object.clone().into())
        .unwrap();
    let counting = Counting::new(storage);
    let index = MemoryIndex::new();
    for reads in [1, 0] {
        let coverage = Coverage::known(&counting, &index, &Cancel::default()).unwrap();
        assert_eq!(coverage.of(&world.packs[1].0), [*id]);
        assert_eq!(coverage.groups[id].1, object.len() as u64);
        let counts = counting.take();
        assert_eq!(counts.of(Operation::GetRange).operations, reads);
        assert_eq!(counts.total().operations, reads + 1, "and a listing");
    }
}

#[test]
fn a_parity_object_is_made_anew_from_its_packs() {
    let world = World::new(&[100_000, 50_000], 10);
    let (id, object) = &world.parity;
    let coverage = Coverage::read(&world.storage, &Cancel::default()).unwrap();
    assert_eq!(coverage.of(&world.packs[1].0), [*id]);
    let mut damaged = object.clone();
    damaged[100] ^= 1;
    world.put(&names::parity(id), damaged);
    let coverage = Coverage::read(&world.storage, &Cancel::default()).unwrap();
    assert_eq!(coverage.of(&world.packs[1].0), [*id], "by its back");
    let size = object.len() as u64;
    let remade = || {
        remake(
            &world.storage,
            world.scratch(),
            (id, size),
            &Cancel::default(),
        )
        .unwrap()
    };
    assert_eq!(remade().unwrap(), object);
    world
        .storage
        .delete(&names::pack(&world.packs[0].0))
        .unwrap();
    assert_eq!(remade(), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Random damage to one pack up to the share comes back; beyond it either the right bytes do, or none.
    #[test]
    fn damage_up_to_the_share_comes_back(
        lengths in prop::collection::vec(1_usize..300_000, 1..5),
        percent in 2_u8..40,
        victim: prop::sample::Index,
        holes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..60),
        how in 0..3_u8,
    ) {
        // One group: the pack after the last of a full one would be in the next.
        let most = 100_usize.div_ceil(usize::from(percent)).min(lengths.len());
        let world = World::new(&lengths[..most], percent);
        let victim = victim.index(world.packs.len());
        let (id, bytes) = &world.packs[victim];
        let pieces = bytes.len().div_ceil(PIECE_BYTES);
        let share = (pieces * usize::from(percent)).div_ceil(100).max(1);
        let mut damaged = bytes.clone();
        let hit: std::collections::BTreeSet<usize> = match how {
            // Anywhere, and one run; the third is more than what is promised.
            0 | 2 => holes.iter().map(|(at, _)| at.index(pieces)).collect(),
            _ => { let from = holes[0].0.index(pieces); (from..pieces.min(from + share)).collect() }
        };
        let hit: Vec<usize> = hit.into_iter().take(if how == 2 { usize::MAX } else { share }).collect();
        for piece in &hit {
            let end = bytes.len().min((piece + 1) * PIECE_BYTES);
            let range = piece * PIECE_BYTES..end;
            let (at, bits) = &holes[*piece % holes.len()];
            let place = range.start + at.index(range.len());
            if *bits == 0 { damaged[range].fill(0) } else { damaged[place] ^= bits }
        }
        world.put(&names::pack(id), damaged);
        let whole = world.mend();
        if how < 2 {
            prop_assert!(whole.iter().all(|whole| *whole), "{} of {pieces} pieces, {share} allowed", hit.len());
        }
        // What is cut off at the end is as much as what is flipped.
        world.put(&names::pack(id), bytes[..bytes.len().saturating_sub((share - 1) * PIECE_BYTES + 1)].to_vec());
        prop_assert!(world.mend().iter().all(|whole| *whole));
        let longer = [bytes.as_slice(), &[7; 9000]].concat();
        world.put(&names::pack(id), longer);
        prop_assert!(world.mend().iter().all(|whole| *whole));
    }
}
