//! Tests of the nodes of trees.

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::entry::{Content, Entry, EntryType, Extent, Timestamp};
use crate::ids::{ChunkId, encode_hex};
use crate::testing::{any_entry, numbered, small_file, sorted};

fn leaf() -> impl Strategy<Value = Vec<Entry>> {
    prop::collection::vec(any_entry(), 0..12).prop_map(|entries| {
        let mut entries = sorted(entries);
        // What the rule ends a leaf at.
        let mut total = 0;
        let fits = entries.iter().take_while(|entry| {
            let before = total;
            total += entry.key.len();
            before < crate::limits::NODE_KEY_BYTES
        });
        let count = fits.count();
        entries.truncate(count);
        entries
    })
}

fn interior() -> impl Strategy<Value = Interior> {
    let child = (any::<[u8; 32]>(), 0..=16_u8, 1..1_000_000_u64, any::<u64>());
    let places =
        prop::collection::btree_set((prop::collection::vec(any::<u8>(), 0..20), 0..2_u64), 1..40);
    (places, prop::collection::vec(child, 40), 1..=16_u8).prop_map(|(places, children, level)| {
        let children = places.into_iter().zip(children);
        let children = children.map(|((key, ordinal), (id, rank, entries, bytes))| Child {
            separator_key: key,
            separator_ordinal: ordinal,
            rank,
            id: ChunkId(id),
            entries,
            bytes,
        });
        Interior {
            level,
            children: children.collect(),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn leaves_go_both_ways(entries in leaf()) {
        let page = encode_leaf(&entries).unwrap();
        prop_assert_eq!(decode_leaf(&page).unwrap(), entries);
    }

    #[test]
    fn an_altered_leaf_is_refused_or_canonical(entries in leaf(), at in any::<prop::sample::Index>(), flip in 1..=255_u8, cut: bool) {
        let mut page = encode_leaf(&entries).unwrap();
        let at = at.index(page.len());
        if cut { page.truncate(at); } else { page[at] ^= flip; }
        if let Ok(read) = decode_leaf(&page) {
            prop_assert_eq!(encode_leaf(&read).unwrap(), page.clone());
            prop_assert!(references(&page).is_ok());
        }
        let _ = references(&page);
    }

    #[test]
    fn interior_nodes_go_both_ways(node in interior(), at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let mut page = node.encode().unwrap();
        prop_assert_eq!(Interior::decode(&page).unwrap(), node);
        let at = at.index(page.len());
        page[at] ^= flip;
        if let Ok(read) = Interior::decode(&page) {
            prop_assert_eq!(read.encode().unwrap(), page);
        }
    }

    #[test]
    fn any_bytes_are_refused_or_canonical(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(read) = decode_leaf(&bytes) {
            prop_assert_eq!(encode_leaf(&read).unwrap(), bytes.clone());
        }
        if let Ok(read) = Interior::decode(&bytes) {
            prop_assert_eq!(read.encode().unwrap(), bytes);
        }
    }

    #[test]
    fn references_are_those_of_the_entries(entries in leaf()) {
        let mut expected = Vec::new();
        for entry in &entries {
            match &entry.content {
                Content::None => {}
                Content::Whole(id) => expected.push(Reference::Data { id: *id, length: entry.size }),
                Content::Extents(extents) => {
                    for extent in extents {
                        if let Extent::Data { id, length } = extent {
                            expected.push(Reference::Data { id: *id, length: *length });
                        }
                    }
                }
                Content::List { root, level } => {
                    expected.push(Reference::List { root: *root, level: *level, size: entry.size });
                }
            }
        }
        for entry in &entries {
            if let crate::entry::Attributes::OutOfLine(id) = &entry.attributes {
                expected.push(Reference::Value { id: *id });
            }
        }
        prop_assert_eq!(references(&encode_leaf(&entries).unwrap()).unwrap(), expected);
    }

    #[test]
    fn separators_are_the_shortest(one in prop::collection::vec(0..3_u8, 0..6), two in prop::collection::vec(0..3_u8, 0..6)) {
        if one < two {
            let (key, ordinal) = separator((&one, 9), (&two, 5));
            let shortest = (0..=two.len()).map(|length| &two[..length]).find(|prefix| *prefix > one.as_slice());
            prop_assert_eq!((Some(key.as_slice()), ordinal), (shortest, 0));
        }
    }
}

#[test]
fn every_byte_of_a_typical_leaf_matters() {
    let page = encode_leaf(&numbered(20)).unwrap();
    for at in 0..page.len() {
        for bit in 0..8 {
            let mut altered = page.clone();
            altered[at] ^= 1 << bit;
            if let Ok(read) = decode_leaf(&altered) {
                assert_eq!(encode_leaf(&read).unwrap(), altered, "byte {at}, bit {bit}");
            }
        }
    }
}

#[test]
fn known_pages() {
    assert_eq!(encode_hex(&encode_leaf(&[]).unwrap()), "000000");
    let entries = [
        Entry {
            kind: EntryType::Directory,
            mode: 0o755,
            ..Entry::default()
        },
        Entry {
            key: b"a.txt".to_vec(),
            size: 300,
            mode: 0o644,
            mtime: Timestamp {
                seconds: -1,
                nanoseconds: 500_000_000,
            },
            links: 1,
            content: Content::Whole(ChunkId([0xaa; 32])),
            ..Entry::default()
        },
    ];
    let expected = [
        // Level 0, two items, ten columns.
        "00020a",
        // Fields with their lengths.
        "0203",
        "0305",
        "0503",
        "0604",
        "0705",
        "0c03",
        "0d04",
        "1403",
        "1803",
        "1b20",
        "010005",
        "612e747874",
        "010201",
        "0100ac02",
        "01ed03a403",
        "010001",
        "0308",
        "0005",
        "010001",
        "010001",
    ]
    .concat()
        + &"aa".repeat(32);
    assert_eq!(encode_hex(&encode_leaf(&entries).unwrap()), expected);
    let node = Interior {
        level: 1,
        children: vec![
            Child {
                separator_key: Vec::new(),
                separator_ordinal: 0,
                rank: 1,
                id: ChunkId([1; 32]),
                entries: 20,
                bytes: 5,
            },
            Child {
                separator_key: b"m".to_vec(),
                separator_ordinal: 0,
                rank: 0,
                id: ChunkId([2; 32]),
                entries: 20,
                bytes: 6,
            },
        ],
    };
    let expected = alloc::string::String::from("010206")
        + "0203"
        + "0301"
        + "0503"
        + "0640"
        + "0702"
        + "0803"
        + "010001"
        + "6d"
        + "010100"
        + &"01".repeat(32)
        + &"02".repeat(32)
        + "0014"
        + "010506";
    assert_eq!(encode_hex(&node.encode().unwrap()), expected);
}

#[test]
fn wrong_entries_are_refused() {
    let good = small_file(b"a", 1);
    type Change = fn(&mut Entry);
    let wrong: [(&str, Change); 12] = [
        ("key", |entry| entry.key = b"../a".to_vec()),
        ("long key", |entry| entry.key = vec![b'a'; 65_537]),
        ("mode", |entry| entry.mode = 0o10000),
        ("nanoseconds", |entry| {
            entry.mtime.nanoseconds = 1_000_000_000
        }),
        ("no size", |entry| entry.size = 0),
        ("chunk size", |entry| entry.size = (4 << 20) + 1),
        ("extents", |entry| {
            entry.content = Content::Extents(Vec::new())
        }),
        ("sum", |entry| {
            entry.content = Content::Extents(vec![Extent::Hole {
                length: entry.size + 1,
            }]);
        }),
        ("link", |entry| entry.link_target = b"x".to_vec()),
        ("device", |entry| entry.device = 1),
        ("owner", |entry| entry.user = vec![b'a'; 257]),
        ("attributes", |entry| {
            entry.attributes = crate::entry::Attributes::Inline(vec![0; 1025]);
        }),
    ];
    assert!(encode_leaf(core::slice::from_ref(&good)).is_ok());
    for (what, change) in wrong {
        let mut entry = good.clone();
        change(&mut entry);
        assert!(encode_leaf(&[entry]).is_err(), "{what}");
    }
    let two = [small_file(b"a", 1), small_file(b"a", 1)];
    assert!(encode_leaf(&two).is_err());
    let entries = numbered(513);
    assert!(encode_leaf(&entries[..512]).is_ok());
    assert!(encode_leaf(&entries).is_err());
}

#[test]
fn prefixes_cannot_expand_without_bound() {
    // 100 keys of 64 KiB that share all but their last byte fit in a page of 66 KiB.
    let keys: Vec<Vec<u8>> = (1..100_u8)
        .filter(|byte| !matches!(byte, b'/' | b'.'))
        .map(|byte| [vec![b'a'; 65_000], vec![byte]].concat())
        .collect();
    let entries: Vec<Entry> = keys.iter().map(|key| small_file(key, 1)).collect();
    assert!(encode_leaf(&entries).is_err());
    assert!(encode_leaf(&entries[..2]).is_ok());
    assert!(encode_leaf(&entries[..3]).is_err());
}
