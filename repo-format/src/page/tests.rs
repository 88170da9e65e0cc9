//! Tests of codec 2.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::entry::{Content, Entry, Timestamp};
use crate::node::{INTERIOR_RAW_FIELDS, LEAF_RAW_FIELDS, encode_leaf};
use crate::testing::{Nodes, Random, numbered};

fn round_trip(pages: &[&[u8]], raw_fields: &[u8]) -> Vec<u8> {
    let data = transpose(pages, raw_fields, 3, &mut CCtx::create()).unwrap();
    let joined = pages.concat();
    let mut context = DCtx::create();
    assert_eq!(
        untranspose(&data, joined.len(), &mut context).unwrap(),
        joined
    );
    assert!(untranspose(&data, joined.len() - 1, &mut context).is_err());
    data
}

#[test]
fn blocks_of_nodes_go_both_ways() {
    let mut nodes = Nodes::default();
    nodes.build(&numbered(3000));
    for (chunk_type, raw) in [
        (crate::ids::ChunkType::TreeLeaf, LEAF_RAW_FIELDS),
        (crate::ids::ChunkType::TreeInterior, INTERIOR_RAW_FIELDS),
    ] {
        let pages = nodes
            .kept
            .values()
            .filter(|(found, _)| *found == chunk_type);
        let pages: Vec<&[u8]> = pages.map(|(_, page)| page.as_slice()).collect();
        let data = round_trip(&pages, raw);
        assert!(data.len() < pages.concat().len());
    }
    // Two small pages, stored: a known block.
    let pages: [&[u8]; 2] = [&[0, 1, 2, 1, 1, 3, 2, 7, 8, 9], &[0, 0, 1, 3, 1, 6]];
    assert_eq!(round_trip(&pages, &[]), known_block());
}

/// Pages with columns (1: 07), (3: 08 09) and (3: 06), by hand.
fn known_block() -> Vec<u8> {
    let mut block = vec![2, 3];
    block.extend([0, 0, 12, 12, 1, 0, 1, 1, 3, 0, 3, 3]);
    block.extend([0, 1, 2, 1, 1, 3, 2, 0, 0, 1, 3, 1]);
    block.extend([7, 8, 9, 6]);
    block
}

#[test]
fn hostile_blocks_are_refused() {
    let page = encode_leaf(&numbered(30)).unwrap();
    let data = transpose(&[&page], LEAF_RAW_FIELDS, 3, &mut CCtx::create()).unwrap();
    let mut context = DCtx::create();
    for at in 0..data.len() {
        assert!(untranspose(&data[..at], 1 << 20, &mut context).is_err());
        let mut altered = data.clone();
        altered[at] ^= 0x11;
        // Whatever comes out is bounded; only a stored stream can change unseen.
        if let Ok(pages) = untranspose(&altered, page.len(), &mut context) {
            assert_eq!(pages.len(), page.len());
        }
    }
    // A stream that claims more than the limit is refused before it is decompressed.
    let huge = [
        &[1, 1, 0, 1][..],
        &[0xff, 0xff, 0xff, 0x7f],
        &[4, 0, 0, 0, 0],
    ]
    .concat();
    assert!(matches!(
        untranspose(&huge, usize::MAX, &mut context),
        Err(FormatError::Limit { .. })
    ));
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_bounded(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(pages) = untranspose(&bytes, 100, &mut DCtx::create()) {
            prop_assert!(pages.len() <= 100);
        }
    }
}

/// Entries like those of an unpacked source tree.
fn source_tree(count: u64) -> Vec<Entry> {
    const WORDS: [&str; 24] = [
        "core", "main", "io", "net", "usb", "pci", "clk", "gpio", "regs", "util", "test", "phy",
        "hdmi", "debug", "sysfs", "power", "dma", "irq", "common", "table", "driver", "mem",
        "hash", "trace",
    ];
    let mut random = Random(5);
    let mut keys = Vec::new();
    for number in 0..count {
        let folder = number / 16;
        let mut word = || WORDS[random.below(24) as usize];
        let (one, two, three, four) = (word(), word(), word(), word());
        let suffix = if random.below(3) == 0 { "h" } else { "c" };
        let (area, part) = (
            WORDS[(folder / 64 % 24) as usize],
            WORDS[(folder / 8 % 24) as usize],
        );
        keys.push(format!(
            "drivers/{area}/{part}/{one}{}/{two}_{three}-{four}.{suffix}",
            folder % 8
        ));
    }
    keys.sort();
    keys.dedup();
    let mut nanoseconds = 0;
    let entries = keys.iter().zip(0..).map(|(key, number)| {
        nanoseconds = (nanoseconds + 20_000 + random.below(60_000)) % 1_000_000_000;
        Entry {
            key: key.clone().into_bytes(),
            // Sizes of source files: mostly a few kilobytes, spread over orders of magnitude.
            size: 1 + (random.below(1 << 12) << random.below(6)),
            mode: 0o644,
            user: b"builder".to_vec(),
            group: b"builder".to_vec(),
            uid: 1000,
            gid: 1000,
            mtime: Timestamp {
                seconds: 1_700_000_000,
                nanoseconds: 0,
            },
            ctime: Timestamp {
                seconds: 1_700_001_000 + number / 9000,
                nanoseconds: nanoseconds as u32,
            },
            inode: 4_000_000 + number as u64,
            links: 1,
            content: Content::Whole(random.id()),
            ..Entry::default()
        }
    });
    entries.collect()
}

#[test]
fn a_small_file_costs_few_bytes_besides_its_id() {
    let entries = source_tree(10_000);
    let mut nodes = Nodes::default();
    let mut pages = Vec::new();
    let mut builder = crate::tree::build::TreeBuilder::new(crate::testing::boundary());
    let mut sink = |node: crate::tree::build::NodeOut| {
        pages.push((node.level, node.plain.clone()));
        nodes.keep(node)
    };
    for entry in &entries {
        builder.push(entry.clone(), &mut sink).unwrap();
    }
    builder.finish(&mut sink).unwrap();
    let leaves: Vec<&[u8]> = pages
        .iter()
        .filter(|(level, _)| *level == 0)
        .map(|(_, page)| page.as_slice())
        .collect();
    let mut bytes = 0;
    let mut block = Vec::new();
    let mut size = 0;
    for leaf in leaves {
        if size + leaf.len() > 128 << 10 {
            bytes += round_trip(&block, LEAF_RAW_FIELDS).len();
            block.clear();
            size = 0;
        }
        size += leaf.len();
        block.push(leaf);
    }
    bytes += round_trip(&block, LEAF_RAW_FIELDS).len();
    let each = bytes as f64 / entries.len() as f64 - 32.0;
    extern crate std;
    std::println!(
        "{each:.2} bytes an entry of {} besides its id",
        entries.len()
    );
    assert!(each < 14.0, "{each}");
}
