//! What the tests of several modules share: nodes in memory, and random entries.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use proptest::prelude::*;

use crate::entry::{Attributes, Content, Entry, EntryFlags, EntryType, Extent, Timestamp};
use crate::error::{FormatError, Result};
use crate::ids::ChunkId;
use crate::ids::ChunkType;
use crate::tree::boundary::BoundaryKey;
use crate::tree::build::{NodeOut, Root, TreeBuilder};
use crate::tree::read::NodeSource;

/// Nodes in memory; counts reads.
#[derive(Default)]
pub(crate) struct Nodes {
    pub(crate) kept: BTreeMap<ChunkId, (ChunkType, Vec<u8>)>,
    pub(crate) reads: usize,
    /// Each node that was read.
    pub(crate) read: BTreeSet<ChunkId>,
}

impl Nodes {
    pub(crate) fn keep(&mut self, node: NodeOut) -> Result<ChunkId> {
        let mut hasher = blake3::Hasher::new_keyed(&[7; 32]);
        hasher.update(&[node.chunk_type as u8]);
        hasher.update(&node.plain);
        let id = ChunkId(*hasher.finalize().as_bytes());
        self.kept.insert(id, (node.chunk_type, node.plain));
        Ok(id)
    }

    pub(crate) fn build<'a>(&mut self, entries: impl IntoIterator<Item = &'a Entry>) -> Root {
        let mut builder = TreeBuilder::new(boundary());
        for entry in entries {
            builder
                .push(entry.clone(), &mut |node| self.keep(node))
                .unwrap();
        }
        builder.finish(&mut |node| self.keep(node)).unwrap()
    }

    /// A view to read from while nodes are kept elsewhere.
    pub(crate) fn copy(&self) -> Self {
        Self {
            kept: self.kept.clone(),
            ..Self::default()
        }
    }
}

impl NodeSource for Nodes {
    type Error = FormatError;

    fn node(&mut self, id: &ChunkId, chunk_type: ChunkType) -> Result<Arc<[u8]>> {
        self.reads += 1;
        self.read.insert(*id);
        match self.kept.get(id) {
            Some((kept, plain)) if *kept == chunk_type => Ok(plain.as_slice().into()),
            _ => Err(FormatError::WrongId { what: "node" }),
        }
    }
}

pub(crate) fn boundary() -> BoundaryKey {
    BoundaryKey::new([42; 32])
}

/// A small deterministic generator (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn id(&mut self) -> ChunkId {
        let mut bytes = [0; 32];
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&self.next().to_le_bytes());
        }
        ChunkId(bytes)
    }
}

/// A small file at a key, whose content follows from `version`.
pub(crate) fn small_file(key: &[u8], version: u64) -> Entry {
    let mut random = Random(version ^ 0x5555);
    Entry {
        key: key.to_vec(),
        size: 1 + random.below(10_000),
        mode: 0o644,
        mtime: Timestamp {
            seconds: 1_700_000_000,
            nanoseconds: 0,
        },
        inode: random.below(1 << 20),
        links: 1,
        content: Content::Whole(random.id()),
        ..Entry::default()
    }
}

/// `count` small files at keys that follow from their number.
pub(crate) fn numbered(count: u64) -> Vec<Entry> {
    let key = |number| format!("folder{:03}/file{number:07}", number / 1000);
    (0..count)
        .map(|number| small_file(key(number).as_bytes(), number))
        .collect()
}

fn any_id() -> impl Strategy<Value = ChunkId> {
    any::<[u8; 32]>().prop_map(ChunkId)
}

fn time() -> impl Strategy<Value = Timestamp> {
    let seconds = prop_oneof![Just(0), any::<i64>(), 1_600_000_000..1_700_000_000_i64];
    let nanoseconds = prop_oneof![
        Just(0),
        0..1_000_000_000_u32,
        (0..1000_u32).prop_map(|ms| ms * 1_000_000)
    ];
    (seconds, nanoseconds).prop_map(|(seconds, nanoseconds)| Timestamp {
        seconds,
        nanoseconds,
    })
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(any::<u8>(), 0..=max)
    ]
}

/// The size and content of a file.
fn content() -> impl Strategy<Value = (u64, Content)> {
    let data = (any_id(), 1..(4_u64 << 20)).prop_map(|(id, length)| Extent::Data { id, length });
    let hole = (1..(1_u64 << 50)).prop_map(|length| Extent::Hole { length });
    let extents = prop::collection::vec(prop_oneof![3 => data, 1 => hole], 1..=31);
    prop_oneof![
        (0..1_000_u64).prop_map(|size| (size, Content::None)),
        (1..=(4_u64 << 20), any_id()).prop_map(|(size, id)| (size, Content::Whole(id))),
        (32..=u64::MAX, any_id(), 0..=16_u8)
            .prop_map(|(size, root, level)| (size, Content::List { root, level })),
        extents.prop_map(|mut extents| {
            extents.dedup_by_key(|extent| match extent {
                Extent::Hole { .. } => 0,
                Extent::Data { id, .. } => u64::from_le_bytes(*id.0.first_chunk().unwrap()),
            });
            let size = extents.iter().map(Extent::length).sum();
            match extents.as_slice() {
                [Extent::Data { id, .. }] => (size, Content::Whole(*id)),
                _ => (size, Content::Extents(extents)),
            }
        }),
    ]
}

/// A key that is a path: components without NUL and slash, now and then a long one.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_map(|byte| {
        if byte == 0 || byte == b'/' {
            b'x'
        } else {
            byte
        }
    });
    let short = prop::collection::vec(prop_oneof![b'a'..b'e', byte], 1..6);
    let long = (b'a'..b'd', 250..3000_usize).prop_map(|(byte, count)| alloc::vec![byte; count]);
    let component = prop_oneof![20 => short, 1 => long].prop_map(|mut component| {
        if component.iter().all(|byte| *byte == b'.') {
            component.push(b'_');
        }
        component
    });
    prop::collection::vec(component, 0..4).prop_map(|parts| parts.join(&b'/'))
}

/// Any entry that the format can hold.
pub(crate) fn any_entry() -> impl Strategy<Value = Entry> {
    let numbers = (
        any::<u32>(),
        any::<u32>(),
        any::<u64>(),
        0..3_u64,
        0..4_u64,
        any::<u64>(),
    );
    let attributes = prop_oneof![
        5 => Just(Attributes::None),
        1 => prop::collection::vec(any::<u8>(), 1..=1024).prop_map(Attributes::Inline),
        1 => any_id().prop_map(Attributes::OutOfLine),
    ];
    let times = (time(), time(), prop::option::of(time()));
    let kind = prop_oneof![3 => Just(1_u64), 2 => Just(8), 1 => 1..=7_u64];
    let flags = any::<[bool; 4]>();
    (
        (
            key(),
            prop_oneof![9 => Just(0), 1 => any::<u64>()],
            kind,
            0..=0o7777_u32,
        ),
        numbers,
        (bytes(256), bytes(8), bytes(4096)),
        times,
        (flags, content(), attributes),
    )
        .prop_map(|(head, numbers, strings, times, rest)| {
            let facts = [strings.0.clone(), strings.1.clone()];
            let (mut key, ordinal, kind, mode) = head;
            let kind = EntryType::from_number(kind).unwrap();
            let is_directory = kind == EntryType::Directory;
            if is_directory && !key.is_empty() {
                key.push(b'/');
            }
            let is_device = matches!(kind, EntryType::CharacterDevice | EntryType::BlockDevice);
            let (flags, (size, content), attributes) = rest;
            let is_file = kind == EntryType::File;
            let has_content = kind.has_content();
            let entry = Entry {
                key,
                ordinal,
                kind,
                size: if has_content { size } else { 0 },
                mode,
                uid: numbers.0,
                gid: numbers.1,
                user: strings.0,
                group: strings.1,
                mtime: times.0,
                ctime: times.1,
                atime: times.2,
                inode: numbers.2,
                filesystem: numbers.3,
                links: numbers.4,
                link_target: if kind == EntryType::Symlink {
                    let not_nul = |byte| if byte == 0 { b'x' } else { byte };
                    [
                        b"x".to_vec(),
                        strings.2.into_iter().skip(1).map(not_nul).collect(),
                    ]
                    .concat()
                } else {
                    Vec::new()
                },
                device: if is_device { numbers.5 } else { 0 },
                flags: EntryFlags {
                    changed_while_read: flags[0],
                    unreadable: flags[1] || (size > 0 && content == Content::None),
                    read_as_special: flags[2] && is_file,
                    attributes_incomplete: flags[3],
                },
                content: if has_content { content } else { Content::None },
                attributes,
                ..Entry::default()
            };
            match kind {
                EntryType::Object => as_object(entry, facts),
                _ => entry,
            }
        })
}

/// Makes an object of an entry: without what only files have.
fn as_object(entry: Entry, [etag, class]: [Vec<u8>; 2]) -> Entry {
    Entry {
        key: entry
            .key
            .iter()
            .map(|byte| byte.wrapping_sub(b'a'))
            .collect(),
        ordinal: entry.ordinal,
        kind: EntryType::Object,
        size: entry.size,
        mtime: entry.mtime,
        flags: entry.flags,
        content: entry.content,
        attributes: entry.attributes,
        version: class.clone(),
        etag,
        class,
        ..Entry::default()
    }
}

/// Sorts entries, and keeps one of each place.
pub(crate) fn sorted(entries: Vec<Entry>) -> Vec<Entry> {
    let map: BTreeMap<_, _> = entries
        .into_iter()
        .map(|entry| ((entry.key.clone(), entry.ordinal), entry))
        .collect();
    map.into_values().collect()
}
