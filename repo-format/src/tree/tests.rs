//! Tests of trees as a whole.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::boundary::boundary_rank;
use super::build::{NodeOut, Root, TreeBuilder};
use super::diff::{Change, Diff};
use super::merge::{Edit, join, overlay};
use super::read::{Cursor, Listed, list_directory, lookup, scan_prefix};
use super::visit::{Visit, visit};
use crate::entry::{Entry, EntryType};
use crate::error::{FormatError, Result};
use crate::ids::ChunkId;
use crate::ids::ChunkType;
use crate::node::{Child, Interior, encode_leaf};
use crate::testing::{Nodes, Random, any_entry, boundary, numbered, small_file, sorted};

/// Builds a tree level by level, straight from SPEC.md §10.
fn build_by_the_book(entries: &[Entry], nodes: &mut Nodes) -> Root {
    let rank = |entry: &Entry| boundary_rank(&boundary(), &entry.key, entry.ordinal);
    let mut level_items: Vec<Child> = Vec::new();
    let mut leaf: Vec<Entry> = Vec::new();
    let mut previous: Option<&Entry> = None;
    for (index, entry) in entries.iter().enumerate() {
        leaf.push(entry.clone());
        let key_bytes: usize = leaf.iter().map(|entry| entry.key.len()).sum();
        let last = index + 1 == entries.len();
        if (leaf.len() >= 16 && rank(entry) > 0) || leaf.len() == 512 || key_bytes >= 65_536 || last
        {
            let first = &leaf[0];
            let separator = match previous {
                None => (Vec::new(), 0),
                Some(previous) if previous.key == first.key => (first.key.clone(), first.ordinal),
                Some(previous) => {
                    let length = (0..=first.key.len())
                        .find(|length| first.key[..*length] > previous.key[..]);
                    (first.key[..length.unwrap()].to_vec(), 0)
                }
            };
            let id = nodes.keep(NodeOut {
                chunk_type: ChunkType::TreeLeaf,
                level: 0,
                plain: encode_leaf(&leaf).unwrap(),
            });
            level_items.push(Child {
                separator_key: separator.0,
                separator_ordinal: separator.1,
                rank: rank(entry),
                id: id.unwrap(),
                entries: leaf.len() as u64,
                bytes: leaf
                    .iter()
                    .fold(0, |sum, entry| entry.size.wrapping_add(sum)),
            });
            previous = Some(entry);
            leaf.clear();
        }
    }
    for level in 0.. {
        if let [only] = level_items.as_slice() {
            return Root {
                id: only.id,
                level,
                entries: only.entries,
                bytes: only.bytes,
            };
        }
        let mut above = Vec::new();
        let mut node: Vec<Child> = Vec::new();
        let count = level_items.len();
        for (index, item) in level_items.into_iter().enumerate() {
            node.push(item);
            let key_bytes: usize = node.iter().map(|child| child.separator_key.len()).sum();
            let last = node.last().unwrap();
            if (node.len() >= 16 && (last.rank > level + 1 || key_bytes >= 65_536))
                || node.len() == 512
                || index + 1 == count
            {
                let children = core::mem::take(&mut node);
                let interior = Interior {
                    level: level + 1,
                    children: children.clone(),
                };
                let plain = interior.encode().unwrap();
                let id = nodes.keep(NodeOut {
                    chunk_type: ChunkType::TreeInterior,
                    level: level + 1,
                    plain,
                });
                above.push(Child {
                    separator_key: children[0].separator_key.clone(),
                    separator_ordinal: children[0].separator_ordinal,
                    rank: children.last().unwrap().rank,
                    id: id.unwrap(),
                    entries: children.iter().map(|child| child.entries).sum(),
                    bytes: children
                        .iter()
                        .fold(0, |sum, child| child.bytes.wrapping_add(sum)),
                });
            }
        }
        level_items = above;
    }
    unreachable!()
}

/// Many small entries with keys of several kinds, from a seed.
fn many(seed: u64, count: u64) -> Vec<Entry> {
    let mut random = Random(seed);
    let entries = (0..count).map(|_| {
        let number = random.below(count * 3);
        let key = match random.below(4) {
            0 => format!("a/{number}"),
            1 => format!("a/b{}/{number:05}", number % 7),
            2 => format!("{number:x}"),
            _ => format!(
                "long{}/{}",
                number % 3,
                "x".repeat((number % 200) as usize + 1)
            ),
        };
        let mut entry = small_file(key.as_bytes(), random.next());
        if random.below(10) == 0 {
            entry.ordinal = random.below(3);
        }
        entry
    });
    sorted(entries.collect())
}

fn edit_randomly(entries: &[Entry], seed: u64, edits: u64) -> (Vec<Edit>, Vec<Entry>) {
    let mut random = Random(seed);
    let mut map: BTreeMap<_, _> = entries
        .iter()
        .map(|entry| ((entry.key.clone(), entry.ordinal), entry.clone()))
        .collect();
    let mut list = BTreeMap::new();
    for _ in 0..edits {
        let near = match entries.len() as u64 {
            0 => small_file(b"only", 1),
            count => entries[random.below(count) as usize].clone(),
        };
        let mut place = (near.key, near.ordinal);
        let version = random.next();
        let edit = match random.below(4) {
            0 => Edit::Remove {
                key: place.0.clone(),
                ordinal: place.1,
            },
            1 => Edit::Put(Entry {
                ordinal: place.1,
                ..small_file(&place.0, version)
            }),
            2 => {
                place.0.push(b'!');
                Edit::Put(Entry {
                    ordinal: place.1,
                    ..small_file(&place.0, version)
                })
            }
            _ => {
                place.1 += 1;
                Edit::Remove {
                    key: place.0.clone(),
                    ordinal: place.1,
                }
            }
        };
        list.insert(place, edit);
    }
    for (place, edit) in &list {
        match edit {
            Edit::Put(entry) => drop(map.insert(place.clone(), entry.clone())),
            Edit::Remove { .. } => drop(map.remove(place)),
        }
    }
    (list.into_values().collect(), map.into_values().collect())
}

fn overlaid(nodes: &mut Nodes, base: &Root, edits: Vec<Edit>) -> (Root, usize, usize) {
    let mut source = nodes.copy();
    let before = nodes.kept.len();
    let edits = edits.into_iter().map(Ok);
    let root = overlay(&mut source, boundary(), base, edits, &mut |node| {
        nodes.keep(node)
    })
    .unwrap();
    (root, source.reads, nodes.kept.len() - before)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_tree_is_built_by_the_book_and_reads_back(seed: u64, count in prop_oneof![0..70_u64, 1000..3000_u64]) {
        let entries = many(seed, count);
        let mut nodes = Nodes::default();
        let root = nodes.build(&entries);
        if !entries.is_empty() {
            prop_assert_eq!(build_by_the_book(&entries, &mut nodes), root);
        }
        let read: Result<Vec<Entry>> = Cursor::new(&mut nodes, &root).collect();
        prop_assert_eq!(read.unwrap(), entries.clone());
        let mut random = Random(seed);
        for _ in 0..entries.len().min(50) {
            let entry = &entries[random.below(entries.len() as u64) as usize];
            nodes.reads = 0;
            let found = lookup(&mut nodes, &root, &entry.key, entry.ordinal).unwrap();
            prop_assert_eq!(found.as_ref(), Some(entry));
            prop_assert!(nodes.reads <= usize::from(root.level) + 1);
            prop_assert_eq!(lookup(&mut nodes, &root, &entry.key, entry.ordinal + 5).unwrap(), None);
            let mut beyond = entry.key.clone();
            beyond.push(b'~');
            let mut cursor = Cursor::new(&mut nodes, &root);
            cursor.skip_to(&beyond).unwrap();
            let expected = entries.iter().find(|entry| entry.key >= beyond);
            let found = cursor.next_entry().unwrap();
            prop_assert_eq!(found.as_ref(), expected);
        }
    }

    #[test]
    fn entries_of_all_kinds_make_trees(entries in prop::collection::vec(any_entry(), 0..80)) {
        let entries = sorted(entries);
        let mut nodes = Nodes::default();
        let root = nodes.build(&entries);
        let read: Result<Vec<Entry>> = Cursor::new(&mut nodes, &root).collect();
        prop_assert_eq!(read.unwrap(), entries);
    }

    #[test]
    fn joins_give_what_a_build_gives(seed: u64, count in prop_oneof![0..70_u64, 1000..4000_u64], cuts in prop::collection::vec(0.0..1.0_f64, 0..4)) {
        let entries = many(seed, count);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| (cut * entries.len() as f64) as usize).collect();
        cuts.extend([0, entries.len()]);
        cuts.sort_unstable();
        let mut nodes = Nodes::default();
        let parts: Vec<Root> = cuts.windows(2).map(|pair| nodes.build(&entries[pair[0]..pair[1]])).collect();
        let whole = nodes.build(&entries);
        let mut source = nodes.copy();
        let joined = join(&mut source, boundary(), &parts, &mut |node| nodes.keep(node)).unwrap();
        prop_assert_eq!(joined, whole);
    }

    #[test]
    fn overlays_give_what_a_build_gives(seed: u64, count in prop_oneof![0..70_u64, 1000..4000_u64], edits in 0..40_u64, tail in prop::option::of(0.0..1.0_f64)) {
        let entries = many(seed, count);
        let (mut edits, mut expected) = edit_randomly(&entries, seed ^ 1, edits);
        if let Some(tail) = tail {
            // Everything after some key goes.
            let from = (tail * entries.len() as f64) as usize;
            if let Some(first) = entries.get(from) {
                let first = (first.key.clone(), first.ordinal);
                expected.retain(|entry| (entry.key.clone(), entry.ordinal) < first);
                let place = |edit: &Edit| match edit {
                    Edit::Put(entry) => (entry.key.clone(), entry.ordinal),
                    Edit::Remove { key, ordinal } => (key.clone(), *ordinal),
                };
                edits.retain(|edit| place(edit) < first);
                edits.extend(entries[from..].iter().map(|entry| Edit::Remove { key: entry.key.clone(), ordinal: entry.ordinal }));
            }
        }
        let mut nodes = Nodes::default();
        let base = nodes.build(&entries);
        let whole = nodes.build(&expected);
        let (root, _, written) = overlaid(&mut nodes, &base, edits);
        prop_assert_eq!(root, whole);
        // Whatever was written is also part of the tree that was built.
        prop_assert_eq!(written, 0);
    }

    #[test]
    fn differences_are_those_of_the_sets(seed: u64, count in prop_oneof![0..70_u64, 1000..3000_u64], edits in 0..60_u64, other: bool) {
        let old = many(seed, count);
        let new = if other { many(seed ^ 9, count / 2) } else { edit_randomly(&old, seed ^ 1, edits).1 };
        let mut nodes = Nodes::default();
        let (old_root, new_root) = (nodes.build(&old), nodes.build(&new));
        let place = |entry: &Entry| (entry.key.clone(), entry.ordinal);
        let old: BTreeMap<_, _> = old.into_iter().map(|entry| (place(&entry), entry)).collect();
        let new: BTreeMap<_, _> = new.into_iter().map(|entry| (place(&entry), entry)).collect();
        let places: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        let expected: Vec<Change> = places.into_iter().filter_map(|place| match (old.get(place).cloned(), new.get(place).cloned()) {
            (Some(old), None) => Some(Change::Removed(old)),
            (None, Some(new)) => Some(Change::Added(new)),
            (Some(old), Some(new)) if old != new => Some(Change::Changed { old, new }),
            _ => None,
        }).collect();
        let found: Result<Vec<Change>> = Diff::new(&mut nodes, &old_root, &new_root).collect();
        prop_assert_eq!(found.unwrap(), expected);
    }

    #[test]
    fn prefixes_and_directories_are_listed(seed: u64, count in 0..2000_u64) {
        let mut entries = many(seed, count);
        let directory = |key: &str| Entry { key: key.into(), kind: EntryType::Directory, ..Entry::default() };
        entries.extend([directory(""), directory("a/"), directory("a/b1/")]);
        let entries = sorted(entries);
        let mut nodes = Nodes::default();
        let root = nodes.build(&entries);
        for prefix in ["", "a", "a/", "a/b3/", "a/b3/0", "long1/", "zzz", "~"] {
            let found: Result<Vec<Entry>> = scan_prefix(&mut nodes, &root, prefix.as_bytes()).unwrap().collect();
            let expected: Vec<Entry> = entries.iter().filter(|entry| entry.key.starts_with(prefix.as_bytes())).cloned().collect();
            prop_assert_eq!(found.unwrap(), expected);
        }
        for folder in ["", "a/", "a/b1/", "long1/", "none/"] {
            let found: Result<Vec<Listed>> = list_directory(&mut nodes, &root, folder.as_bytes()).unwrap().collect();
            let found: Vec<Vec<u8>> = found.unwrap().into_iter().map(|listed| match listed {
                Listed::Entry(entry) => entry.key,
                Listed::Prefix(key) => [key, b"*".to_vec()].concat(),
            }).collect();
            let mut expected: Vec<Vec<u8>> = Vec::new();
            for entry in &entries {
                let Some(name) = entry.key.strip_prefix(folder.as_bytes()).filter(|name| !name.is_empty()) else { continue };
                match name.iter().position(|byte| *byte == b'/') {
                    None => expected.push(entry.key.clone()),
                    Some(at) => {
                        let sub = entry.key[..folder.len() + at + 1].to_vec();
                        let implied = [sub.clone(), b"*".to_vec()].concat();
                        if entry.key == sub {
                            expected.push(sub);
                        } else if !expected.contains(&sub) && !expected.contains(&implied) {
                            expected.push(implied);
                        }
                    }
                }
            }
            prop_assert_eq!(found, expected);
        }
    }
}

#[test]
fn ranks_thin_out_by_sixteen_and_a_root_is_known() {
    // One key in 16 ranks above 0, one in 256 above 1.
    let count = |above: u8| {
        (0..65_536_u32)
            .filter(|n| boundary_rank(&boundary(), &n.to_be_bytes(), 0) > above)
            .count()
    };
    assert!((3500..4700).contains(&count(0)), "{}", count(0));
    assert!((180..340).contains(&count(1)), "{}", count(1));
    let mut nodes = Nodes::default();
    let root = nodes.build(&numbered(5000));
    assert_eq!((root.level, root.entries), (2, 5000));
    // Fixed, so that no change of encoding or rule passes unseen.
    assert_eq!(
        root.id.to_hex(),
        "8aa39e6ddc1f5e5c52308b761fbf2c9fd6e02f0d9a45b66c16038cbd2aa81d81"
    );
}

#[test]
fn long_and_short_keys_are_hashed_alike() {
    for length in [0, 1, 243, 244, 245, 300, 65_536] {
        let key = vec![b'k'; length];
        let input = [
            &(length as u32).to_le_bytes()[..],
            &key,
            &7_u64.to_le_bytes(),
        ]
        .concat();
        let hash = blake3::keyed_hash(&[42; 32], &input);
        let h = u64::from_le_bytes(*hash.as_bytes().first_chunk().unwrap());
        assert_eq!(
            u32::from(boundary_rank(&boundary(), &key, 7)),
            (h.leading_zeros() / 4).min(16)
        );
    }
}

#[test]
fn disorder_is_refused() {
    let mut nodes = Nodes::default();
    let mut builder = TreeBuilder::new(boundary());
    builder
        .push(small_file(b"b", 1), &mut |node| nodes.keep(node))
        .unwrap();
    for key in [b"b", b"a"] {
        assert!(
            builder
                .push(small_file(key, 1), &mut |node| nodes.keep(node))
                .is_err()
        );
    }
    let roots = [
        nodes.build(&[small_file(b"b", 1)]),
        nodes.build(&[small_file(b"a", 1)]),
    ];
    let mut source = nodes.copy();
    assert!(
        join(&mut source, boundary(), &roots, &mut |node| nodes
            .keep(node))
        .is_err()
    );
    let edits = [b"b", b"a"].map(|key| Ok(Edit::Put(small_file(key, 1))));
    assert!(
        overlay(&mut source, boundary(), &roots[0], edits, &mut |node| nodes
            .keep(node))
        .is_err()
    );
}

#[test]
fn keys_of_the_largest_size_make_a_tree() {
    let entries: Vec<Entry> = (0..70_u32)
        .map(|n| {
            let key = [vec![b'k'; 65_532], format!("{n:04}").into_bytes()].concat();
            small_file(&key, 1)
        })
        .collect();
    let mut nodes = Nodes::default();
    let root = nodes.build(&entries);
    assert_eq!(root, build_by_the_book(&entries, &mut nodes));
    assert_eq!(
        Cursor::new(&mut nodes, &root)
            .collect::<Result<Vec<_>>>()
            .unwrap(),
        entries
    );
}

#[test]
fn a_clone_can_be_finished_while_the_builder_goes_on() {
    let entries = numbered(3000);
    let mut nodes = Nodes::default();
    let expected = (nodes.build(&entries[..1234]), nodes.build(&entries));
    let mut builder = TreeBuilder::new(boundary());
    let mut checkpoint = None;
    for (index, entry) in entries.iter().enumerate() {
        if index == 1234 {
            checkpoint = Some(
                builder
                    .clone()
                    .finish(&mut |node| nodes.keep(node))
                    .unwrap(),
            );
        }
        builder
            .push(entry.clone(), &mut |node| nodes.keep(node))
            .unwrap();
    }
    let whole = builder.finish(&mut |node| nodes.keep(node)).unwrap();
    assert_eq!((checkpoint.unwrap(), whole), expected);
}

#[test]
fn costs_follow_what_differs() {
    let entries = numbered(100_000);
    let mut nodes = Nodes::default();
    let base = nodes.build(&entries);
    let levels = usize::from(base.level) + 1;
    let scattered: Vec<usize> = (0..100).map(|n| n * 997).collect();
    let clustered: Vec<usize> = (50_000..50_100).collect();
    for (what, places, cost) in [
        ("scattered", scattered, 100),
        ("clustered", clustered, 6),
        ("none", vec![], 0),
    ] {
        let edits: Vec<Edit> = places
            .iter()
            .map(|at| Edit::Put(small_file(&entries[*at].key, 77)))
            .collect();
        let (new, reads, written) = overlaid(&mut nodes, &base, edits);
        assert!(
            reads <= cost * levels + 2 * levels,
            "{what}: overlay read {reads}"
        );
        assert!(written <= cost * levels, "{what}: overlay wrote {written}");
        nodes.reads = 0;
        let changes = Diff::new(&mut nodes, &base, &new).count();
        assert_eq!(changes, places.len());
        assert!(
            nodes.reads <= 2 * cost * levels + 2,
            "{what}: diff read {}",
            nodes.reads
        );
        // Keys that come and go move boundaries, but only near them.
        let edits = places.iter().flat_map(|at| {
            let key = &entries[*at].key;
            let mut added = key.clone();
            added.push(b'!');
            [
                Edit::Remove {
                    key: key.clone(),
                    ordinal: 0,
                },
                Edit::Put(small_file(&added, 1)),
            ]
        });
        let (new, reads, written) = overlaid(&mut nodes, &base, edits.collect());
        assert!(
            reads <= 2 * (cost + 2) * levels,
            "{what}: overlay read {reads}"
        );
        assert!(
            written <= 2 * cost * levels,
            "{what}: overlay wrote {written}"
        );
        nodes.reads = 0;
        assert_eq!(Diff::new(&mut nodes, &base, &new).count(), 2 * places.len());
        assert!(
            nodes.reads <= 4 * cost * levels + 2,
            "{what}: diff read {}",
            nodes.reads
        );
    }
}

#[test]
fn joins_and_listings_read_few_nodes() {
    let entries = numbered(100_000);
    let mut nodes = Nodes::default();
    let parts = [
        nodes.build(&entries[..61_803]),
        nodes.build(&entries[61_803..]),
    ];
    let whole = nodes.build(&entries);
    let mut source = nodes.copy();
    let joined = join(&mut source, boundary(), &parts, &mut |node| {
        nodes.keep(node)
    })
    .unwrap();
    assert_eq!(joined, whole);
    let levels = usize::from(whole.level) + 1;
    assert!(source.reads <= 6 * levels, "{}", source.reads);
    // 100 folders of 1,000 files: each costs about a path from the root, at worst.
    nodes.reads = 0;
    let listed = list_directory(&mut nodes, &whole, b"").unwrap().count();
    assert_eq!(listed, 100);
    assert!(nodes.reads <= 100 * levels, "{}", nodes.reads);
    // The difference of trees of different heights.
    let small = nodes.build(&entries[..10]);
    assert_eq!(small.level, 0);
    assert_eq!(Diff::new(&mut nodes, &small, &whole).count(), 99_990);
}

#[test]
fn a_visit_sees_every_node_once() {
    let entries = numbered(5000);
    let mut nodes = Nodes::default();
    let root = nodes.build(&entries);
    let kept: BTreeSet<ChunkId> = nodes.kept.keys().copied().collect();
    let mut seen = BTreeSet::new();
    let mut references = 0;
    visit(&mut nodes, root.id, root.level, &mut |found| {
        Ok(match found {
            Visit::Node { id, .. } => seen.insert(id),
            Visit::Reference(_) => {
                references += 1;
                false
            }
        })
    })
    .unwrap();
    assert_eq!((seen, references), (kept, 5000));
    assert_eq!(nodes.reads, nodes.read.len());
}

#[test]
fn nodes_that_do_not_fit_their_parents_are_refused() {
    let entries = numbered(200);
    let mut nodes = Nodes::default();
    let root = nodes.build(&entries);
    assert_eq!(root.level, 1);
    let node = Interior::decode(&nodes.kept[&root.id].1).unwrap();
    let wrong: [fn(&mut Interior); 7] = [
        |node| node.children[1].entries += 1,
        |node| node.children[1].bytes += 1,
        |node| node.children[1].separator_key.push(b'~'),
        |node| node.children[1].separator_key.truncate(1),
        |node| node.children[1].id = node.children[2].id,
        |node| node.children.truncate(1),
        |node| drop(node.children.remove(0)),
    ];
    for (index, change) in wrong.into_iter().enumerate() {
        let mut altered = node.clone();
        change(&mut altered);
        let (entries, bytes) = altered.totals();
        let Ok(plain) = altered.encode() else {
            continue;
        };
        let id = nodes
            .keep(NodeOut {
                chunk_type: ChunkType::TreeInterior,
                level: 1,
                plain,
            })
            .unwrap();
        let root = Root {
            id,
            level: 1,
            entries,
            bytes,
        };
        let read: Result<Vec<Entry>> = Cursor::new(&mut nodes, &root).collect();
        assert!(
            matches!(read, Err(FormatError::Malformed { .. })),
            "{index}"
        );
    }
    let wrong_count = Root {
        entries: 201,
        ..root
    };
    assert!(Cursor::new(&mut nodes, &wrong_count).any(|entry| entry.is_err()));
}
