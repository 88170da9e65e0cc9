//! What every implementation of the index does, as one suite.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use larder_format::ids::{ChunkPrefix, ObjectId};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::{BlockRecord, Index, IndexError, PackInfo, PackKind, PackRecord, Place};

type Make<'a> = &'a dyn Fn() -> Box<dyn Index>;

pub(super) fn run(make: Make<'_>) {
    places_are_computed_from_the_record(&*make());
    a_segment_counts_only_when_told(&*make());
    pending_packs_count_at_once_until_dropped(&*make());
    unusable_packs_are_given_last_and_not_used(&*make());
    disowned_packs_are_given_and_not_used(&*make());
    removed_segments_take_only_their_own_packs(&*make());
    a_missing_segment_cannot_count(&*make());
    many_chunks_are_fed_and_found(&*make());
    blocks_are_kept(&*make());
    it_agrees_with_a_plain_map(make);
}

pub(super) fn id(number: u32) -> ObjectId {
    ObjectId(*blake3::hash(&number.to_be_bytes()).as_bytes())
}

pub(super) fn prefix(number: u32) -> ChunkPrefix {
    ChunkPrefix::from_slice(&id(number).0[..16]).unwrap()
}

/// Makes a pack with one block for each inner list of chunks.
pub(super) fn pack(number: u32, blocks: &[&[u32]]) -> PackRecord {
    let kind = if number.is_multiple_of(2) {
        PackKind::Data
    } else {
        PackKind::Tree
    };
    let block = |(at, chunks): (usize, &&[u32])| BlockRecord {
        offset: 100 + (at as u64) * 5_000_000_000,
        length: 1000 + at as u32,
        chunk_type: 1,
        chunks: chunks
            .iter()
            .map(|chunk| (prefix(*chunk), chunk + 1))
            .collect(),
    };
    PackRecord {
        id: id(number),
        kind,
        size: u64::from(number) << 33,
        blocks: blocks.iter().enumerate().map(block).collect(),
    }
}

pub(super) fn packs_of(index: &dyn Index, chunk: u32) -> BTreeSet<ObjectId> {
    let places = index.lookup(&prefix(chunk)).unwrap();
    places.iter().map(|place| place.pack).collect()
}

fn all_packs(index: &dyn Index) -> BTreeSet<PackInfo> {
    let mut packs = BTreeSet::new();
    index
        .packs(&mut |pack| {
            assert!(packs.insert(pack));
            ControlFlow::Continue(())
        })
        .unwrap();
    packs
}

fn all_chunks(index: &dyn Index) -> Vec<(ChunkPrefix, Vec<Place>)> {
    let mut chunks = Vec::new();
    index
        .for_each_chunk(&mut |prefix, places| {
            chunks.push((*prefix, places.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(chunks.is_sorted_by(|(a, _), (b, _)| a < b));
    chunks
}

fn places_are_computed_from_the_record(index: &dyn Index) {
    let packs = [pack(1, &[&[10, 11], &[12, 13, 14]]), pack(2, &[&[14, 14]])];
    index.add_segment(&id(1000), &packs).unwrap();
    index.set_counting(&[id(1000)]).unwrap();
    let in_first = Place {
        pack: id(1),
        pack_kind: PackKind::Tree,
        block_offset: 5_000_000_100,
        block_length: 1001,
        offset: 13 + 14,
        length: 15,
    };
    // A chunk that stands twice in one pack has its first place.
    let in_second = Place {
        pack: id(2),
        pack_kind: PackKind::Data,
        block_offset: 100,
        block_length: 1000,
        offset: 0,
        length: 15,
    };
    let mut expected = vec![in_first, in_second];
    expected.sort();
    assert_eq!(index.lookup(&prefix(14)).unwrap(), expected);
    let many = index
        .lookup_many(&[prefix(99), prefix(14), prefix(10), prefix(14)])
        .unwrap();
    assert_eq!((many[0].len(), many[2].len()), (0, 1));
    assert!(many[1] == expected && many[3] == expected);
    assert_eq!(
        all_packs(index),
        packs.iter().map(PackRecord::info).collect()
    );
    assert_eq!(all_chunks(index).len(), 5);
}

fn a_segment_counts_only_when_told(index: &dyn Index) {
    index
        .add_segment(&id(1000), &[pack(1, &[&[10, 20]])])
        .unwrap();
    index
        .add_segment(&id(1001), &[pack(2, &[&[10, 30]])])
        .unwrap();
    index
        .add_segment(&id(1001), &[pack(2, &[&[10, 30]])])
        .unwrap();
    assert_eq!(
        index.segments().unwrap(),
        BTreeSet::from([id(1000), id(1001)])
    );
    assert!(index.has_segment(&id(1000)).unwrap() && !index.has_segment(&id(1)).unwrap());
    assert!(packs_of(index, 10).is_empty() && all_packs(index).is_empty());
    index.set_counting(&[id(1000)]).unwrap();
    assert_eq!(packs_of(index, 10), BTreeSet::from([id(1)]));
    assert!(packs_of(index, 30).is_empty());
    index.set_counting(&[id(1001), id(1000)]).unwrap();
    assert_eq!(packs_of(index, 10), BTreeSet::from([id(1), id(2)]));
    index.set_counting(&[]).unwrap();
    assert!(packs_of(index, 10).is_empty() && all_chunks(index).is_empty());
}

fn pending_packs_count_at_once_until_dropped(index: &dyn Index) {
    index.add_pending_pack(&pack(1, &[&[10]])).unwrap();
    index.add_pending_pack(&pack(2, &[&[10, 11]])).unwrap();
    assert_eq!(packs_of(index, 10), BTreeSet::from([id(1), id(2)]));
    assert!(index.segments().unwrap().is_empty());
    // Its segment is written; the pack goes on counting, and does so by the segment, too.
    index.add_segment(&id(1000), &[pack(1, &[&[10]])]).unwrap();
    assert_eq!(packs_of(index, 10), BTreeSet::from([id(1), id(2)]));
    index.set_counting(&[id(1000)]).unwrap();
    index.drop_pending().unwrap();
    assert_eq!(packs_of(index, 10), BTreeSet::from([id(1)]));
    assert!(packs_of(index, 11).is_empty());
    // What was dropped can be fed again.
    index
        .add_segment(&id(1001), &[pack(2, &[&[10, 11]])])
        .unwrap();
    index.set_counting(&[id(1001)]).unwrap();
    assert_eq!(packs_of(index, 11), BTreeSet::from([id(2)]));
}

fn are_usable<const N: usize>(index: &dyn Index, chunks: [u32; N]) -> [bool; N] {
    let many = index.are_usable(&chunks.map(prefix)).unwrap();
    for (chunk, is_usable) in chunks.into_iter().zip(&many) {
        assert_eq!(index.are_usable(&[prefix(chunk)]).unwrap(), [*is_usable]);
    }
    many.try_into().unwrap()
}

fn order_of(index: &dyn Index, chunk: u32) -> Vec<ObjectId> {
    let places = index.lookup(&prefix(chunk)).unwrap();
    places.iter().map(|place| place.pack).collect()
}

fn unusable_packs_are_given_last_and_not_used(index: &dyn Index) {
    let packs = [pack(1, &[&[10, 11]]), pack(2, &[&[10, 12]])];
    // Pack 4 is called unusable before anybody tells what it holds.
    index.set_unusable(&BTreeSet::from([id(4)])).unwrap();
    index.add_segment(&id(1000), &packs).unwrap();
    index.set_counting(&[id(1000)]).unwrap();
    index.add_segment(&id(1001), &[pack(4, &[&[14]])]).unwrap();
    index.set_counting(&[id(1000), id(1001)]).unwrap();
    assert_eq!(
        are_usable(index, [10, 11, 12, 13, 14]),
        [true, true, true, false, false]
    );
    assert_eq!(order_of(index, 14), [id(4)]);
    for (out, chunks) in [(1, [true, false, true]), (2, [true, true, false])] {
        index.set_unusable(&BTreeSet::from([id(out)])).unwrap();
        assert_eq!(are_usable(index, [10, 11, 12]), chunks);
        assert_eq!(order_of(index, 10), [id(3 - out), id(out)]);
        assert_eq!(
            (order_of(index, 11), order_of(index, 12)),
            (vec![id(1)], vec![id(2)])
        );
    }
    // The last word counts, and one's own packs are no exception.
    index.add_pending_pack(&pack(6, &[&[16]])).unwrap();
    index.set_unusable(&BTreeSet::from([id(6)])).unwrap();
    assert_eq!(are_usable(index, [12, 14, 16]), [true, true, false]);
    index.set_unusable(&BTreeSet::new()).unwrap();
    assert_eq!(are_usable(index, [12, 14, 16]), [true, true, true]);
    // Fed again after it was forgotten, a pack is as unusable as before.
    index.set_unusable(&BTreeSet::from([id(4)])).unwrap();
    index.remove_segments(&[id(1001)]).unwrap();
    assert_eq!(
        (are_usable(index, [14]), order_of(index, 14)),
        ([false], vec![])
    );
    index.add_segment(&id(1001), &[pack(4, &[&[14]])]).unwrap();
    index.set_counting(&[id(1001)]).unwrap();
    assert_eq!(
        (are_usable(index, [14]), order_of(index, 14)),
        ([false], vec![id(4)])
    );
}

fn disowned_packs_are_given_and_not_used(index: &dyn Index) {
    index.add_pending_pack(&pack(1, &[&[10]])).unwrap();
    index.add_segment(&id(1000), &[pack(1, &[&[10]])]).unwrap();
    index.disown_pending().unwrap();
    assert_eq!(
        (are_usable(index, [10]), order_of(index, 10)),
        ([false], vec![id(1)])
    );
    // Not even when nothing names it any more.
    index.remove_segments(&[id(1000)]).unwrap();
    assert_eq!(
        (are_usable(index, [10]), order_of(index, 10)),
        ([false], vec![id(1)])
    );
    index.add_pending_pack(&pack(2, &[&[10, 11]])).unwrap();
    assert_eq!(are_usable(index, [10, 11]), [true, true]);
    assert_eq!(order_of(index, 10), [id(2), id(1)]);
    index.drop_pending().unwrap();
    assert!(order_of(index, 10).is_empty());
    // One that counts after all is usable, whoever disowned it.
    index.add_pending_pack(&pack(1, &[&[10]])).unwrap();
    index.add_segment(&id(1000), &[pack(1, &[&[10]])]).unwrap();
    index.disown_pending().unwrap();
    index.set_counting(&[id(1000)]).unwrap();
    assert_eq!(are_usable(index, [10]), [true]);
}

fn removed_segments_take_only_their_own_packs(index: &dyn Index) {
    let (first, second) = (pack(1, &[&[10]]), pack(2, &[&[10, 20]]));
    index
        .add_segment(&id(1000), &[first.clone(), second.clone()])
        .unwrap();
    index.add_segment(&id(1001), &[second]).unwrap();
    index.add_pending_pack(&pack(3, &[&[10]])).unwrap();
    index.add_segment(&id(1002), &[pack(3, &[&[10]])]).unwrap();
    index.set_counting(&[id(1000), id(1001)]).unwrap();
    index.remove_segments(&[id(1000), id(1002), id(5)]).unwrap();
    assert_eq!(index.segments().unwrap(), BTreeSet::from([id(1001)]));
    assert_eq!(packs_of(index, 10), BTreeSet::from([id(2), id(3)]));
    index.drop_pending().unwrap();
    assert_eq!(packs_of(index, 10), BTreeSet::from([id(2)]));
    index.add_segment(&id(1000), &[first]).unwrap();
    index.set_counting(&[id(1000)]).unwrap();
    assert_eq!(packs_of(index, 10), BTreeSet::from([id(1)]));
}

fn a_missing_segment_cannot_count(index: &dyn Index) {
    index.add_segment(&id(1000), &[pack(1, &[&[10]])]).unwrap();
    index.set_counting(&[id(1000)]).unwrap();
    let error = index.set_counting(&[id(1000), id(1001)]).unwrap_err();
    assert!(matches!(error, IndexError::NotFed(segment) if segment == id(1001)));
    assert_eq!(
        packs_of(index, 10).len(),
        1,
        "a refused change changes nothing"
    );
}

fn many_chunks_are_fed_and_found(index: &dyn Index) {
    // Enough for sorted files; every chunk is in two packs.
    let chunks: Vec<u32> = (0..10_000).collect();
    let packs: Vec<_> = (0..4)
        .map(|number| {
            let half = (number as usize % 2) * 5000;
            pack(number, &[&chunks[half..half + 5000]])
        })
        .collect();
    index.add_segment(&id(1000), &packs).unwrap();
    index.add_segment(&id(1001), &packs[..1]).unwrap();
    index.set_counting(&[id(1000)]).unwrap();
    let prefixes: Vec<_> = (0..10_500).map(prefix).collect();
    let found = index.lookup_many(&prefixes).unwrap();
    assert!(found[..10_000].iter().all(|places| places.len() == 2));
    assert!(found[10_000..].iter().all(Vec::is_empty));
    assert_eq!(all_chunks(index).len(), 10_000);
    index.set_counting(&[id(1001)]).unwrap();
    assert_eq!(all_chunks(index).len(), 5_000);
    let mut visits = 0;
    let stop = &mut |_: &_, _: &[_]| {
        visits += 1;
        ControlFlow::Break(())
    };
    index.for_each_chunk(stop).unwrap();
    assert_eq!(visits, 1);
}

fn blocks_are_kept(index: &dyn Index) {
    index.cache_block(&id(1), 7, b"sealed").unwrap();
    index.cache_block(&id(1), 8, b"").unwrap();
    assert_eq!(
        index.cached_block(&id(1), 7).unwrap().as_deref(),
        Some(&b"sealed"[..])
    );
    assert_eq!(
        index.cached_block(&id(1), 8).unwrap().as_deref(),
        Some(&b""[..])
    );
    assert_eq!(index.cached_block(&id(1), 9).unwrap(), None);
    assert_eq!(index.cached_block(&id(2), 7).unwrap(), None);
}

#[derive(Clone, Debug)]
enum Step {
    Add(u32, BTreeSet<u32>),
    Remove(BTreeSet<u32>),
    Count(BTreeSet<u32>),
    Pending(u32),
    Unusable(BTreeSet<u32>),
    DisownPending,
    DropPending,
}

fn step() -> impl Strategy<Value = Step> {
    let some = |of: std::ops::Range<u32>| proptest::collection::btree_set(of, 0..4);
    prop_oneof![
        4 => (0..6_u32, some(0..8)).prop_map(|(segment, packs)| Step::Add(segment, packs)),
        2 => some(0..6).prop_map(Step::Remove),
        4 => some(0..6).prop_map(Step::Count),
        2 => (0..8_u32).prop_map(Step::Pending),
        2 => some(0..8).prop_map(Step::Unusable),
        1 => Just(Step::DisownPending),
        1 => Just(Step::DropPending),
    ]
}

/// The pack of a number: its chunks overlap with those of its neighbours.
fn numbered(number: u32) -> PackRecord {
    pack(number, &[&[number, number + 1], &[number + 2]])
}

fn it_agrees_with_a_plain_map(make: Make<'_>) {
    let steps = proptest::collection::vec(step(), 0..25);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 32,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let outcome = runner.run(&steps, |steps| {
        let index = make();
        let mut segments: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        let (mut counted, mut pending) = (BTreeSet::new(), BTreeSet::new());
        let (mut disowned, mut unusable) = (BTreeSet::new(), BTreeSet::new());
        for step in steps {
            match step {
                Step::Add(segment, packs) => {
                    let records: Vec<_> = packs.iter().map(|pack| numbered(*pack)).collect();
                    index.add_segment(&id(1000 + segment), &records).unwrap();
                    segments.entry(segment).or_insert(packs);
                }
                Step::Remove(gone) => {
                    let ids: Vec<_> = gone.iter().map(|segment| id(1000 + segment)).collect();
                    index.remove_segments(&ids).unwrap();
                    segments.retain(|segment, _| !gone.contains(segment));
                    let named: BTreeSet<_> = segments.values().flatten().collect();
                    counted.retain(|pack| named.contains(pack));
                }
                Step::Count(count) => {
                    let ids: Vec<_> = count.iter().map(|segment| id(1000 + segment)).collect();
                    let is_known = count.iter().all(|segment| segments.contains_key(segment));
                    prop_assert_eq!(index.set_counting(&ids).is_ok(), is_known);
                    if is_known {
                        counted = count
                            .iter()
                            .flat_map(|segment| segments[segment].clone())
                            .collect();
                    }
                }
                Step::Pending(pack) => {
                    index.add_pending_pack(&numbered(pack)).unwrap();
                    pending.insert(pack);
                    disowned.remove(&pack);
                }
                Step::Unusable(packs) => {
                    index
                        .set_unusable(&packs.iter().map(|pack| id(*pack)).collect())
                        .unwrap();
                    unusable = packs;
                }
                Step::DisownPending => {
                    index.disown_pending().unwrap();
                    disowned.clone_from(&pending);
                }
                Step::DropPending => {
                    index.drop_pending().unwrap();
                    pending.clear();
                    disowned.clear();
                }
            }
            let given: BTreeSet<u32> = counted.union(&pending).copied().collect();
            let own: BTreeSet<u32> = pending.difference(&disowned).copied().collect();
            let usable: BTreeSet<u32> = counted.union(&own).copied().collect();
            let usable: BTreeSet<u32> = usable.difference(&unusable).copied().collect();
            for chunk in 0..10 {
                let holds = |pack: &&u32| (**pack..=**pack + 2).contains(&chunk);
                let expected = given.iter().filter(holds).map(|pack| id(*pack)).collect();
                prop_assert_eq!(packs_of(&*index, chunk), expected, "chunk {}", chunk);
                let is_usable = usable.iter().any(|pack| holds(&pack));
                prop_assert_eq!(are_usable(&*index, [chunk]), [is_usable], "chunk {}", chunk);
                let order = order_of(&*index, chunk);
                let ranks = order
                    .iter()
                    .map(|pack| !usable.iter().any(|one| id(*one) == *pack));
                prop_assert!(ranks.is_sorted(), "chunk {}", chunk);
            }
            let expected = given.iter().map(|pack| numbered(*pack).info()).collect();
            prop_assert_eq!(all_packs(&*index), expected);
        }
        Ok(())
    });
    outcome.unwrap();
}
