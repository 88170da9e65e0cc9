//! Tests of lists.

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::entry::{Content, Extent};
use crate::error::Result;
use crate::ids::{ChunkId, encode_hex};
use crate::testing::{Nodes, Random};

fn content_of(extents: &[Extent], nodes: &mut Nodes) -> (u64, Content) {
    let mut builder = ContentBuilder::new();
    for extent in extents {
        builder.push(*extent, &mut |node| nodes.keep(node)).unwrap();
    }
    let size = builder.size();
    (size, builder.finish(&mut |node| nodes.keep(node)).unwrap())
}

fn many(seed: u64, count: u64, holes: bool) -> Vec<Extent> {
    let mut random = Random(seed);
    let extents = (0..count).map(|_| {
        let length = 1 + random.below(4 << 20);
        if holes && random.below(5) == 0 {
            Extent::Hole { length }
        } else {
            Extent::Data {
                id: random.id(),
                length,
            }
        }
    });
    extents.collect()
}

/// What a list holds: adjacent holes as one.
fn merged(extents: &[Extent]) -> Vec<Extent> {
    let mut merged: Vec<Extent> = Vec::new();
    for extent in extents {
        match (merged.last_mut(), extent) {
            (Some(Extent::Hole { length }), Extent::Hole { length: more }) => *length += more,
            _ => merged.push(*extent),
        }
    }
    merged
}

fn root_of(size: u64, content: &Content) -> ListRoot {
    match content {
        Content::List { root, level } => ListRoot {
            id: *root,
            level: *level,
            size,
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn few_extents_stand_in_the_entry() {
    let mut nodes = Nodes::default();
    let data = many(1, 40, false);
    let hole = Extent::Hole { length: 5 };
    assert_eq!(content_of(&[], &mut nodes), (0, Content::None));
    let Extent::Data { id, length } = data[0] else {
        panic!()
    };
    assert_eq!(
        content_of(&data[..1], &mut nodes),
        (length, Content::Whole(id))
    );
    assert_eq!(
        content_of(&[hole, hole], &mut nodes),
        (10, Content::Extents(vec![Extent::Hole { length: 10 }]))
    );
    assert_eq!(
        content_of(&data[..31], &mut nodes).1,
        Content::Extents(data[..31].to_vec())
    );
    assert!(nodes.kept.is_empty());
    assert!(matches!(
        content_of(&data[..32], &mut nodes).1,
        Content::List { level: 0, .. }
    ));
    let mut builder = ContentBuilder::new();
    let half = Extent::Hole { length: u64::MAX };
    builder.push(half, &mut |node| nodes.keep(node)).unwrap();
    assert!(builder.push(hole, &mut |node| nodes.keep(node)).is_err());
}

/// The root of a list, straight from SPEC.md §10.
fn build_by_the_book(extents: &[Extent], nodes: &mut Nodes) -> (ChunkId, u8) {
    let rank = |extent: &Extent| match extent {
        Extent::Hole { .. } => 0,
        Extent::Data { id, .. } => {
            (u64::from_be_bytes(*id.0.first_chunk().unwrap()).leading_zeros() / 6).min(10)
        }
    };
    let cut = |ranks: &[u32], level: u32| {
        let mut ends = Vec::new();
        let mut start = 0;
        for (index, rank) in ranks.iter().enumerate() {
            let count = index + 1 - start;
            if (count >= 64 && *rank > level) || count == 2048 || index + 1 == ranks.len() {
                ends.push((start, index + 1));
                start = index + 1;
            }
        }
        ends
    };
    let mut ranks: Vec<u32> = extents.iter().map(rank).collect();
    let mut items: Vec<ListChild> = Vec::new();
    for level in 0_u8.. {
        let mut above = Vec::new();
        let ends = cut(&ranks, level.into());
        for (from, to) in &ends {
            let (plain, bytes, count) = if level == 0 {
                let part = &extents[*from..*to];
                (
                    encode_list_leaf(part).unwrap(),
                    part.iter().map(Extent::length).sum(),
                    part.len() as u64,
                )
            } else {
                let children = items[*from..*to].to_vec();
                let bytes = children.iter().map(|child| child.bytes).sum();
                let count = children.iter().map(|child| child.extents).sum();
                (
                    ListInterior { level, children }.encode().unwrap(),
                    bytes,
                    count,
                )
            };
            let chunk_type = crate::ids::ChunkType::of_list(level);
            let id = nodes
                .keep(crate::tree::build::NodeOut {
                    chunk_type,
                    level,
                    plain,
                })
                .unwrap();
            above.push(ListChild {
                id,
                bytes,
                extents: count,
            });
        }
        ranks = ends.iter().map(|(_, to)| ranks[to - 1]).collect();
        items = above;
        if let [only] = items.as_slice() {
            return (only.id, level);
        }
    }
    unreachable!()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn lists_are_built_by_the_book_and_read_back(seed: u64, count in prop_oneof![50..300_u64, 3000..9000_u64], holes: bool) {
        let extents = many(seed, count, holes);
        let mut nodes = Nodes::default();
        let (size, content) = content_of(&extents, &mut nodes);
        let expected = merged(&extents);
        prop_assume!(expected.len() > 31);
        let root = root_of(size, &content);
        prop_assert_eq!((root.id, root.level), build_by_the_book(&expected, &mut nodes));
        let read: Result<Vec<(u64, Extent)>> = super::extents(&mut nodes, &root).collect();
        let mut offset = 0;
        let expected: Vec<(u64, Extent)> = expected.iter().map(|extent| {
            let at = offset;
            offset += extent.length();
            (at, *extent)
        }).collect();
        prop_assert_eq!(read.unwrap(), expected.clone());
        prop_assert_eq!(offset, size);
        let mut random = Random(seed);
        for _ in 0..20 {
            let target = random.below(size + 10);
            nodes.reads = 0;
            let mut reader = super::extents(&mut nodes, &root);
            reader.skip_to(target).unwrap();
            let found = reader.next().transpose().unwrap();
            let holding = expected.iter().find(|(at, extent)| at + extent.length() > target);
            prop_assert_eq!(found.as_ref(), holding);
            prop_assert!(nodes.reads <= usize::from(root.level) + 1);
        }
    }

    #[test]
    fn altered_nodes_are_refused_or_canonical(seed: u64, at in any::<prop::sample::Index>(), flip in 1..=255_u8, bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut page = encode_list_leaf(&merged(&many(seed, 40, true))).unwrap();
        let place = at.index(page.len());
        page[place] ^= flip;
        for page in [page, bytes] {
            if let Ok(read) = decode_list_leaf(&page) {
                prop_assert_eq!(encode_list_leaf(&read).unwrap(), page.clone());
            }
            if let Ok(read) = ListInterior::decode(&page) {
                prop_assert_eq!(read.encode().unwrap(), page);
            }
        }
    }
}

#[test]
fn known_pages_and_wrong_counts() {
    let extents = [
        Extent::Data {
            id: ChunkId([9; 32]),
            length: 1,
        },
        Extent::Hole { length: 1 },
    ];
    let page = encode_list_leaf(&extents).unwrap();
    assert_eq!(
        encode_hex(&page),
        alloc::string::String::from("00020201030220010203") + &"09".repeat(32)
    );
    assert!(encode_list_leaf(&[]).is_err());
    assert!(encode_list_leaf(&[extents[1], extents[1]]).is_err());
    let mut nodes = Nodes::default();
    let (size, content) = content_of(&many(3, 500, false), &mut nodes);
    let root = root_of(size, &content);
    for wrong in [
        ListRoot {
            size: size + 1,
            ..root
        },
        ListRoot {
            level: root.level + 1,
            ..root
        },
    ] {
        assert!(super::extents(&mut nodes, &wrong).any(|extent| extent.is_err()));
    }
}
