//! Trees and lists that no backup would write.

use larder_format::attributes::{self, ExtendedAttribute};
use larder_format::cell::Cell;
use larder_format::collector::State;
use larder_format::entry::{Attributes, Content, Entry, EntryType, Extent, Timestamp};
use larder_format::ids::{ChunkId, ChunkType};
use larder_format::list::{ListChild, ListInterior};
use larder_format::names::{self, Name};
use larder_format::node::{Child, Interior, decode_leaf, encode_leaf};
use larder_format::segment::Owner;

use super::choices::Choices;
use super::forge::Forge;

/// Names that a target may stumble over: legal ones first.
const NAMES: [&[u8]; 22] = [
    b"d0/f000/",
    b"D0/F000",
    b"a\nb",
    b"\xff\xfe",
    b".larder-0000",
    b"d0/f000/x",
    b"symlink/x",
    b"pipe/x",
    b"con",
    b"zz ",
    b"linked",
    b"d0/deep",
    b"..",
    b"../x",
    b"d0/../../x",
    b"/etc/x",
    b"/",
    b"",
    b".",
    b"d0//x",
    b"d0/\0x",
    b"./x",
];
/// Where links may lead.
const LINKS: [&[u8]; 8] = [
    b"..",
    b"../outside",
    b"../outside/secret",
    b"/etc/passwd",
    b"/dev/full",
    b"symlink",
    b"d1/",
    b"/proc/self/root",
];

/// One node of a tree, and how it is reached.
struct Spot {
    cell: Cell,
    source: usize,
    /// The nodes above, with their levels, from the root on.
    above: Vec<(ChunkId, u8)>,
    level: u8,
    page: Vec<u8>,
}

fn any_spot(forge: &Forge, choices: &mut Choices<'_>, to_leaf: bool) -> Option<Spot> {
    let cells = forge
        .objects
        .keys()
        .filter_map(|name| match names::parse(name) {
            Some(Name::Cell(id)) => forge.open::<Cell>(&Name::Cell(id)),
            _ => None,
        });
    let cells: Vec<Cell> = cells.filter(|cell| !cell.sources.is_empty()).collect();
    let cell = choices.pick(&cells)?.clone();
    let source = choices.below(cell.sources.len());
    let root = cell.sources.get(source)?;
    let (mut id, mut level) = (root.root, root.level);
    let mut above = Vec::new();
    loop {
        let page = forge.chunks.get(&id)?.1.to_vec();
        let is_end = level == 0 || (!to_leaf && choices.coin());
        let node = Interior::decode(&page);
        let child = match node {
            Ok(node) if !is_end => node.children[choices.below(node.children.len())].id,
            _ => {
                return Some(Spot {
                    cell,
                    source,
                    above,
                    level,
                    page,
                });
            }
        };
        above.push((id, level));
        (id, level) = (child, level - 1);
    }
}

/// Keeps a page in the place of the one at a spot, and all above it with it; commits the cell anew.
fn put_page(forge: &mut Forge, spot: Spot, page: &[u8]) {
    if page.is_empty() {
        return;
    }
    let old_page = forge
        .keyring
        .chunk_id(ChunkType::of_tree(spot.level), &spot.page);
    let mut old = old_page;
    let mut new = forge.chunk(ChunkType::of_tree(spot.level), page);
    for (id, level) in spot.above.iter().rev() {
        let page = replaced(&forge.chunks[id].1, &old.0, &new.0);
        old = *id;
        new = forge.chunk(ChunkType::of_tree(*level), &page);
    }
    let source = spot.source;
    recommit(forge, spot.cell, |cell| cell.sources[source].root = new);
}

/// Puts bytes in the place of others, wherever these stand.
fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(old.len()).position(|one| one == old) {
        at += found;
        drop(bytes.splice(at..at + old.len(), new.iter().copied()));
        at += new.len();
    }
    bytes
}

/// Uploads what waits, and writes the cell anew so that it names that, wherever the protocol looks for it.
pub fn recommit(forge: &mut Forge, mut cell: Cell, change: impl FnOnce(&mut Cell)) {
    change(&mut cell);
    let packs = forge.packs();
    if !packs.is_empty() {
        let segment = forge.segment(Owner::Session(cell.id), packs);
        cell.segments.push(segment);
        cell.segments.sort();
        let state: Option<State> = forge.open(&Name::State(1));
        if let Some(mut state) = state.filter(|state| state.live_cells.contains(&cell.id)) {
            state.segments.push(segment);
            state.segments.sort();
            forge.record(&state);
        }
    }
    let cbor = larder_format::record::Record::encode(&cell);
    let kind = larder_format::object::Kind::Cell;
    let purpose = larder_format::keys::Purpose::Snapshot;
    forge.any_record(kind, purpose, &names::cell(&cell.id), &cbor);
    forge.end(&cell.id, cell.ended);
}

/// Changes, adds or removes entries of a leaf.
pub fn change_entry(forge: &mut Forge, choices: &mut Choices<'_>) {
    let Some(spot) = any_spot(forge, choices, true) else {
        return;
    };
    let Ok(mut entries) = decode_leaf(&spot.page) else {
        return;
    };
    let mut illegal = None;
    for _ in 0..=choices.below(3) {
        if let Some(name) = alter(forge, choices, &mut entries) {
            illegal = Some(name);
        }
    }
    if choices.byte() < 230 {
        entries.sort_by(|a, b| a.key.cmp(&b.key));
    }
    entries.dedup_by(|a, b| a.key == b.key);
    let Some(mut page) = leaf(&entries) else {
        return;
    };
    if let Some((stand_in, name)) = illegal {
        page = replaced(&page, &stand_in, &name);
    }
    put_page(forge, spot, &page);
}

/// Encodes a leaf, without those entries that a leaf refuses.
fn leaf(entries: &[Entry]) -> Option<Vec<u8>> {
    let is_right = |entry: &&Entry| entry.check().is_ok();
    let right: Vec<Entry> = entries.iter().filter(is_right).cloned().collect();
    encode_leaf(entries).or_else(|_| encode_leaf(&right)).ok()
}

/// Changes one entry; gives the stand-in for a name that is not allowed, and the name.
fn alter(
    forge: &mut Forge,
    choices: &mut Choices<'_>,
    entries: &mut Vec<Entry>,
) -> Option<(Vec<u8>, Vec<u8>)> {
    let (number, other) = (choices.below(entries.len()), choices.below(entries.len()));
    let other = entries.get(other)?.clone();
    let entry = entries.get_mut(number)?;
    match choices.below(20) {
        0 | 1 => return rename(entry, choices),
        2 => entry.kind = EntryType::from_number(1 + choices.below(8) as u64)?,
        3 => entry.size = choices.number(entry.size),
        4 => entry.mode = choices.number(0o7777) as u32 & 0o7777,
        5 => (entry.uid, entry.gid) = (choices.number(0) as u32, choices.number(0) as u32),
        6 => {
            entry.kind = EntryType::Symlink;
            (entry.size, entry.content) = (0, Content::None);
            entry.link_target = choices.pick(&LINKS)?.to_vec();
        }
        7 => {
            let group = (
                other.filesystem,
                77 + choices.number(0) % 2,
                2 + choices.number(0) % 3,
            );
            (entry.filesystem, entry.inode, entry.links) = group;
        }
        8 => entry.device = choices.number(3),
        9 => {
            let bits = choices.byte();
            entry.flags.changed_while_read = bits & 1 != 0;
            entry.flags.unreadable = bits & 2 != 0;
            entry.flags.read_as_special = bits & 4 != 0;
            entry.flags.attributes_incomplete = bits & 8 != 0;
        }
        10 | 11 => content(forge, choices, entry, &other),
        12 | 13 => hostile_attributes(forge, choices, entry),
        14 => {
            let seconds = choices.number(0) as i64;
            entry.mtime = Timestamp {
                seconds,
                nanoseconds: 999_999_999,
            };
            entry.atime = Some(entry.mtime);
        }
        15 => drop(entries.remove(number)),
        16 | 17 => {
            let mut again = other;
            let stand_in = rename(&mut again, choices);
            entries.push(again);
            return stand_in;
        }
        18 => through_a_link(choices, entries, &other)?,
        _ => {
            let fields = [
                &mut entry.user,
                &mut entry.group,
                &mut entry.etag,
                &mut entry.version,
            ];
            let field = choices.below(fields.len());
            for one in fields.into_iter().skip(field).take(1) {
                *one = choices.few_bytes();
            }
        }
    }
    None
}

/// Gives an entry a name of those above, or a long one.
fn rename(entry: &mut Entry, choices: &mut Choices<'_>) -> Option<(Vec<u8>, Vec<u8>)> {
    let name = match choices.below(NAMES.len() + 3) {
        0 => [b"n".repeat(255), b"/".to_vec(), b"m".repeat(256)].concat(),
        1 => b"deep/".repeat(1 + choices.below(900)),
        2 => [b"x".to_vec(), choices.few_bytes()].concat(),
        number => NAMES.get(number - 3)?.to_vec(),
    };
    entry.key = name.clone();
    match (entry.kind, name.ends_with(b"/")) {
        (EntryType::Directory, false) => entry.key.push(b'/'),
        (EntryType::File, true) => drop(entry.key.pop()),
        _ => {}
    }
    if entry.check().is_ok() {
        return None;
    }
    // A name of the same length that may be there, in whose place the other one is put.
    let legal = |byte: &u8| match byte {
        b'.' | b'/' | 0 => b'-',
        other => *other,
    };
    let stand_in: Vec<u8> = name.iter().map(legal).collect();
    entry.key = stand_in.clone();
    (!stand_in.is_empty()).then_some((stand_in, name))
}

fn content(forge: &mut Forge, choices: &mut Choices<'_>, entry: &mut Entry, other: &Entry) {
    let mut ids: Vec<ChunkId> = forge.chunks.keys().copied().collect();
    ids.sort();
    let any = choices.pick(&ids).copied().unwrap_or_default();
    match choices.below(5) {
        0 => entry.content = other.content.clone(),
        1 => (entry.content, entry.size) = (other.content.clone(), other.size),
        2 => {
            entry.content = Content::Whole(any);
            entry.size = forge
                .chunks
                .get(&any)
                .map_or(1, |(_, plain)| plain.len() as u64);
        }
        3 => {
            let length = choices.number(5000).clamp(1, 1 << 62);
            let data = forge
                .chunks
                .get(&any)
                .map_or(1, |(_, plain)| plain.len() as u64);
            let extents = vec![
                Extent::Data {
                    id: any,
                    length: data,
                },
                Extent::Hole { length },
            ];
            (entry.content, entry.size) = (Content::Extents(extents), data + length);
        }
        _ => {
            let level = choices.below(20) as u8;
            (entry.content, entry.size) =
                (Content::List { root: any, level }, choices.number(40_000));
        }
    }
}

fn hostile_attributes(forge: &mut Forge, choices: &mut Choices<'_>, entry: &mut Entry) {
    const ATTRIBUTES: [&[u8]; 7] = [
        b"security.capability",
        b"system.posix_acl_access",
        b"system.posix_acl_default",
        b"trusted.overlay.opaque",
        b"user.x",
        b"security.selinux",
        b"none",
    ];
    let Some(name) = choices.pick(&ATTRIBUTES) else {
        return;
    };
    let value = vec![choices.byte(); choices.number(20) as usize % 70_000];
    let record = attributes::encode(&[ExtendedAttribute {
        name: name.to_vec(),
        value,
    }]);
    let mut record = record.unwrap_or_default();
    if choices.coin() {
        choices.disturb(&mut record);
    }
    entry.attributes = match record.len() > 1024 {
        true => Attributes::OutOfLine(forge.chunk(ChunkType::Value, &record)),
        false => Attributes::Inline(record),
    };
}

/// Adds a link that leads out of the target, and what would be written through it.
fn through_a_link(choices: &mut Choices<'_>, entries: &mut Vec<Entry>, like: &Entry) -> Option<()> {
    let link = Entry {
        key: b"esc".to_vec(),
        kind: EntryType::Symlink,
        mode: 0o777,
        link_target: choices.pick(&LINKS)?.to_vec(),
        links: 1,
        ..Entry::default()
    };
    let inside = Entry {
        key: b"esc/pwned".to_vec(),
        ..like.clone()
    };
    entries.push(link);
    if choices.coin() {
        entries.push(Entry {
            key: b"esc/".to_vec(),
            kind: EntryType::Directory,
            mode: 0o755,
            links: 1,
            ..Entry::default()
        });
    }
    entries.push(inside);
    Some(())
}

/// Changes the bytes of a node: its head, its columns or the ids in it.
pub fn disturb_node(forge: &mut Forge, choices: &mut Choices<'_>) {
    let Some(spot) = any_spot(forge, choices, false) else {
        return;
    };
    let mut page = spot.page.clone();
    for _ in 0..=choices.below(2) {
        choices.disturb(&mut page);
    }
    put_page(forge, spot, &page);
}

/// Puts nodes above a root: more levels than there may be, or one child many times.
pub fn stack(forge: &mut Forge, choices: &mut Choices<'_>) {
    let Some(spot) = any_spot(forge, choices, true) else {
        return;
    };
    let source = spot.source;
    let root = spot.cell.sources[source].clone();
    let (mut id, mut level, mut entries) = (root.root, root.level, root.entries);
    let copies = 1 + choices.below(3) as u64;
    for _ in 0..=choices.below(20) {
        let children = (0..copies).map(|number| Child {
            separator_key: vec![b'a'; number as usize],
            separator_ordinal: 0,
            rank: choices.byte() % 17,
            id,
            entries,
            bytes: root.bytes,
        });
        level += 1;
        let node = Interior {
            level: level.min(16),
            children: children.collect(),
        };
        let Ok(mut page) = node.encode() else { return };
        page[0] = level;
        id = forge.chunk(ChunkType::TreeInterior, &page);
        entries = entries.wrapping_mul(copies);
    }
    recommit(forge, spot.cell, |cell| {
        let source = &mut cell.sources[source];
        (source.root, source.level, source.entries) = (id, level, entries);
    });
}

/// Gives a file a list whose nodes were altered, are too high, or stand in it several times.
pub fn change_list(forge: &mut Forge, choices: &mut Choices<'_>) {
    let Some((spot, mut entries, number)) = long_file(forge, choices) else {
        return;
    };
    let entry = &mut entries[number];
    let Content::List { root, level } = entry.content.clone() else {
        return;
    };
    let Some(mut page) = forge.chunks.get(&root).map(|(_, plain)| plain.to_vec()) else {
        return;
    };
    let (mut id, mut level) = (root, level);
    if choices.coin() {
        choices.disturb(&mut page);
        if page.is_empty() {
            return;
        }
        id = forge.chunk(ChunkType::of_list(level), &page);
    }
    let copies = 1 + choices.below(3) as u64;
    for _ in 0..choices.below(5) {
        let child = ListChild {
            id,
            bytes: entry.size,
            extents: choices.number(58),
        };
        level += 1;
        let node = ListInterior {
            level: level.min(16),
            children: vec![child; copies as usize],
        };
        let Ok(page) = node.encode() else { return };
        id = forge.chunk(ChunkType::ListInterior, &page);
        entry.size = entry.size.wrapping_mul(copies);
    }
    entry.content = Content::List { root: id, level };
    if let Some(page) = leaf(&entries) {
        put_page(forge, spot, &page);
    }
}

/// Finds the leaf with a long file.
fn long_file(forge: &Forge, choices: &mut Choices<'_>) -> Option<(Spot, Vec<Entry>, usize)> {
    for _ in 0..8 {
        let spot = any_spot(forge, choices, true)?;
        let entries = decode_leaf(&spot.page).ok()?;
        let is_long = |entry: &Entry| matches!(entry.content, Content::List { .. });
        if let Some(number) = entries.iter().position(is_long) {
            return Some((spot, entries, number));
        }
    }
    None
}
