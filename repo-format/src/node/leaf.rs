//! Leaves of a tree.

use alloc::vec::Vec;

use super::keys::{put_keys, read_keys};
use crate::codec::{unzigzag, zigzag};
use crate::entry::{
    Attributes, Content, Entry, EntryFlags, EntryType, Extent, Timestamp, is_file_key,
};
use crate::error::{FormatError, Result};
use crate::ids::ChunkId;
use crate::limits::{
    INLINE_ATTRIBUTE_BYTES, INLINE_EXTENTS, LINK_TARGET_BYTES, NODE_ITEMS, NODE_KEY_BYTES,
    OBJECT_CLASS_BYTES, OBJECT_TAG_BYTES, OWNER_NAME_BYTES,
};
use crate::page::{PageReader, PageWriter};

const WHAT: &str = "leaf of a tree";

const CHANGED_WHILE_READ: u64 = 1;
const UNREADABLE: u64 = 1 << 1;
const ATIME_KEPT: u64 = 1 << 2;
const READ_AS_SPECIAL: u64 = 1 << 3;
const ATTRIBUTES_INCOMPLETE: u64 = 1 << 4;
const FLAGS_ALL: u64 = (1 << 5) - 1;

/// Something that an entry of a leaf needs besides the leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference {
    /// A chunk of a file's bytes.
    Data {
        /// The chunk's id.
        id: ChunkId,
        /// Its length in bytes.
        length: u64,
    },
    /// The list of a long file.
    List {
        /// The id of the list's root.
        root: ChunkId,
        /// The level of the root.
        level: u8,
        /// The bytes of the file.
        size: u64,
    },
    /// A chunk that holds an attributes record.
    Value {
        /// The chunk's id.
        id: ChunkId,
    },
}

/// Encodes a leaf as a page; refuses entries out of order and those that [`Entry::check`] refuses.
pub fn encode_leaf(entries: &[Entry]) -> Result<Vec<u8>> {
    entries.iter().try_for_each(Entry::check)?;
    if entries.len() > NODE_ITEMS {
        return Err(FormatError::Limit {
            what: "items in a node",
            found: entries.len() as u64,
            limit: NODE_ITEMS as u64,
        });
    }
    let all = entries.iter();
    let mut page = PageWriter::default();
    put_keys(
        &mut page,
        all.clone()
            .map(|entry| (entry.key.as_slice(), entry.ordinal)),
        NODE_KEY_BYTES,
        0,
    )?;
    page.integers(5, 1, all.clone().map(|entry| entry.kind as u64));
    page.integers(6, 0, all.clone().map(|entry| entry.size));
    page.integers(7, 0, all.clone().map(|entry| entry.mode.into()));
    page.integers(8, 0, all.clone().map(|entry| entry.uid.into()));
    page.integers(9, 0, all.clone().map(|entry| entry.gid.into()));
    page.strings(10, all.clone().map(|entry| entry.user.as_slice()));
    page.strings(11, all.clone().map(|entry| entry.group.as_slice()));
    put_times(&mut page, 12, all.clone().map(|entry| entry.mtime));
    put_times(&mut page, 14, all.clone().map(|entry| entry.ctime));
    put_times(
        &mut page,
        16,
        all.clone().map(|entry| entry.atime.unwrap_or_default()),
    );
    page.integers(18, 0, all.clone().map(|entry| entry.inode));
    page.integers(19, 0, all.clone().map(|entry| entry.filesystem));
    page.integers(20, 0, all.clone().map(|entry| entry.links));
    page.strings(21, all.clone().map(|entry| entry.link_target.as_slice()));
    page.integers(22, 0, all.clone().map(|entry| entry.device));
    page.integers(23, 0, all.map(flag_bits));
    put_contents(&mut page, entries);
    put_attributes(&mut page, entries);
    page.strings(40, entries.iter().map(|entry| entry.etag.as_slice()));
    page.strings(41, entries.iter().map(|entry| entry.version.as_slice()));
    page.strings(42, entries.iter().map(|entry| entry.class.as_slice()));
    Ok(page.finish(0, entries.len()))
}

/// Decodes a leaf; gives its entries in order.
pub fn decode_leaf(page: &[u8]) -> Result<Vec<Entry>> {
    let mut page = PageReader::new(WHAT, page, NODE_ITEMS)?;
    if page.level != 0 {
        return Err(page.malformed("its level is not 0"));
    }
    let places = read_keys(&mut page, NODE_KEY_BYTES, 0)?;
    let mut entries: Vec<Entry> = places
        .into_iter()
        .map(|(key, ordinal)| Entry {
            key,
            ordinal,
            ..Entry::default()
        })
        .collect();
    read_numbers(&mut page, &mut entries)?;
    read_owner_names(&mut page, &mut entries)?;
    read_times(&mut page, &mut entries)?;
    let sizes: Vec<u64> = entries.iter().map(|entry| entry.size).collect();
    let contents = read_contents(&mut page, &sizes)?;
    let attributes = read_attributes(&mut page)?;
    read_object_facts(&mut page, &mut entries)?;
    for ((entry, content), attributes) in entries.iter_mut().zip(contents).zip(attributes) {
        entry.content = content;
        entry.attributes = attributes;
        if !is_file_key(&entry.key, entry.kind) {
            return Err(page.malformed("a key is not a path that an entry of its type can have"));
        }
        entry.check_metadata()?;
        entry.check_content()?;
    }
    page.finish()?;
    Ok(entries)
}

/// Finds what the entries of a leaf refer to, without building them.
///
/// Only the columns of sizes, contents and attributes are read: the others may be malformed.
pub fn references(page: &[u8]) -> Result<Vec<Reference>> {
    let mut page = PageReader::new(WHAT, page, NODE_ITEMS)?;
    let mut sizes = Vec::new();
    page.integers(6, 0, &mut sizes)?;
    let contents = read_contents(&mut page, &sizes)?;
    let mut references = Vec::with_capacity(contents.len());
    for (content, size) in contents.into_iter().zip(sizes) {
        match content {
            Content::None => {}
            Content::Whole(id) => references.push(Reference::Data { id, length: size }),
            Content::List { root, level } => {
                references.push(Reference::List { root, level, size });
            }
            Content::Extents(extents) => {
                references.extend(extents.into_iter().filter_map(|extent| match extent {
                    Extent::Data { id, length } => Some(Reference::Data { id, length }),
                    Extent::Hole { .. } => None,
                }));
            }
        }
    }
    for attributes in read_attributes(&mut page)? {
        if let Attributes::OutOfLine(id) = attributes {
            references.push(Reference::Value { id });
        }
    }
    Ok(references)
}

fn put_times(page: &mut PageWriter, field: u8, times: impl Iterator<Item = Timestamp> + Clone) {
    page.integers(field, 0, times.clone().map(|time| zigzag(time.seconds)));
    page.integers(field + 1, 0, times.map(|time| time.nanoseconds.into()));
}

fn flag_bits(entry: &Entry) -> u64 {
    let flags = entry.flags;
    [
        (flags.changed_while_read, CHANGED_WHILE_READ),
        (flags.unreadable, UNREADABLE),
        (entry.atime.is_some(), ATIME_KEPT),
        (flags.read_as_special, READ_AS_SPECIAL),
        (flags.attributes_incomplete, ATTRIBUTES_INCOMPLETE),
    ]
    .into_iter()
    .filter_map(|(set, bit)| set.then_some(bit))
    .sum()
}

fn put_contents(page: &mut PageWriter, entries: &[Entry]) {
    let contents = entries.iter().map(|entry| &entry.content);
    let extents = contents.clone().filter_map(|content| match content {
        Content::Extents(extents) => Some(extents),
        _ => None,
    });
    page.integers(
        24,
        0,
        contents.clone().map(|content| match content {
            Content::None => 0,
            Content::Whole(_) => 1,
            Content::Extents(_) => 2,
            Content::List { .. } => 3,
        }),
    );
    page.required(25, extents.clone().map(|extents| extents.len() as u64));
    page.required(26, extents.flatten().map(extent_number));
    page.raw(27, contents.clone().flat_map(content_ids));
    page.integers(
        28,
        0,
        contents.filter_map(|content| match content {
            Content::List { level, .. } => Some(u64::from(*level)),
            _ => None,
        }),
    );
}

/// Gives an extent as a column holds it: twice the length, plus one for a hole.
pub(crate) fn extent_number(extent: &Extent) -> u64 {
    // Lengths are below 2^63, as `Entry::check` made sure.
    extent.length() << 1 | u64::from(matches!(extent, Extent::Hole { .. }))
}

fn content_ids(content: &Content) -> impl Iterator<Item = &[u8]> {
    let (one, extents): (_, &[Extent]) = match content {
        Content::None => (None, &[]),
        Content::Whole(id) | Content::List { root: id, .. } => (Some(id), &[]),
        Content::Extents(extents) => (None, extents),
    };
    let ids = extents.iter().filter_map(|extent| match extent {
        Extent::Data { id, .. } => Some(id),
        Extent::Hole { .. } => None,
    });
    one.into_iter().chain(ids).map(|id| id.0.as_slice())
}

fn put_attributes(page: &mut PageWriter, entries: &[Entry]) {
    let attributes = entries.iter().map(|entry| &entry.attributes);
    page.integers(
        29,
        0,
        attributes.clone().map(|attributes| match attributes {
            Attributes::None => 0,
            Attributes::Inline(_) => 1,
            Attributes::OutOfLine(_) => 2,
        }),
    );
    let inline = attributes
        .clone()
        .filter_map(|attributes| match attributes {
            Attributes::Inline(record) => Some(record.as_slice()),
            _ => None,
        });
    page.strings(30, inline);
    let ids = attributes.filter_map(|attributes| match attributes {
        Attributes::OutOfLine(id) => Some(id.0.as_slice()),
        _ => None,
    });
    page.raw(31, ids);
}

/// Reads the columns of plain numbers, except times.
fn read_numbers(page: &mut PageReader<'_>, entries: &mut [Entry]) -> Result<()> {
    let narrow = |value: u64| u32::try_from(value).ok();
    fill(page, entries, 5, 1, |entry, value| {
        entry.kind = EntryType::from_number(value)?;
        Some(())
    })?;
    fill(page, entries, 6, 0, |entry, value| {
        entry.size = value;
        Some(())
    })?;
    fill(page, entries, 7, 0, |entry, value| {
        entry.mode = narrow(value)?;
        Some(())
    })?;
    fill(page, entries, 8, 0, |entry, value| {
        entry.uid = narrow(value)?;
        Some(())
    })?;
    fill(page, entries, 9, 0, |entry, value| {
        entry.gid = narrow(value)?;
        Some(())
    })?;
    fill(page, entries, 18, 0, |entry, value| {
        entry.inode = value;
        Some(())
    })?;
    fill(page, entries, 19, 0, |entry, value| {
        entry.filesystem = value;
        Some(())
    })?;
    fill(page, entries, 20, 0, |entry, value| {
        entry.links = value;
        Some(())
    })?;
    fill(page, entries, 22, 0, |entry, value| {
        entry.device = value;
        Some(())
    })?;
    fill(page, entries, 23, 0, |entry, bits| {
        entry.flags = EntryFlags {
            changed_while_read: bits & CHANGED_WHILE_READ != 0,
            unreadable: bits & UNREADABLE != 0,
            read_as_special: bits & READ_AS_SPECIAL != 0,
            attributes_incomplete: bits & ATTRIBUTES_INCOMPLETE != 0,
        };
        entry.atime = (bits & ATIME_KEPT != 0).then(Timestamp::default);
        (bits & !FLAGS_ALL == 0).then_some(())
    })
}

/// Reads one column of integers and gives each value to its entry, unless all are the default.
fn fill(
    page: &mut PageReader<'_>,
    entries: &mut [Entry],
    field: u8,
    default: u64,
    mut set: impl FnMut(&mut Entry, u64) -> Option<()>,
) -> Result<()> {
    if !page.has(field) {
        return Ok(());
    }
    let mut values = Vec::new();
    page.integers(field, default, &mut values)?;
    for (entry, value) in entries.iter_mut().zip(values) {
        set(entry, value).ok_or_else(|| page.malformed("a value of a field is not allowed"))?;
    }
    Ok(())
}

fn read_owner_names(page: &mut PageReader<'_>, entries: &mut [Entry]) -> Result<()> {
    let name = "bytes of an owner's name";
    let count = page.items;
    if let Some(users) = page.strings(10, count, name, OWNER_NAME_BYTES)? {
        for (entry, user) in entries.iter_mut().zip(users) {
            entry.user = user.to_vec();
        }
    }
    if let Some(groups) = page.strings(11, count, name, OWNER_NAME_BYTES)? {
        for (entry, group) in entries.iter_mut().zip(groups) {
            entry.group = group.to_vec();
        }
    }
    let target = "bytes of a link target";
    if let Some(targets) = page.strings(21, count, target, LINK_TARGET_BYTES)? {
        for (entry, target) in entries.iter_mut().zip(targets) {
            entry.link_target = target.to_vec();
        }
    }
    Ok(())
}

/// Reads the columns that only objects of buckets fill.
fn read_object_facts(page: &mut PageReader<'_>, entries: &mut [Entry]) -> Result<()> {
    let count = page.items;
    if let Some(etags) = page.strings(40, count, "bytes of an ETag", OBJECT_TAG_BYTES)? {
        for (entry, etag) in entries.iter_mut().zip(etags) {
            entry.etag = etag.to_vec();
        }
    }
    if let Some(versions) = page.strings(41, count, "bytes of a version id", OBJECT_TAG_BYTES)? {
        for (entry, version) in entries.iter_mut().zip(versions) {
            entry.version = version.to_vec();
        }
    }
    let class = "bytes of a storage class";
    if let Some(classes) = page.strings(42, count, class, OBJECT_CLASS_BYTES)? {
        for (entry, class) in entries.iter_mut().zip(classes) {
            entry.class = class.to_vec();
        }
    }
    Ok(())
}

/// Reads the columns of times; flags must have been read.
fn read_times(page: &mut PageReader<'_>, entries: &mut [Entry]) -> Result<()> {
    type TimeOf = fn(&mut Entry) -> Option<&mut Timestamp>;
    let accessors: [(u8, TimeOf); 3] = [
        (12, |entry| Some(&mut entry.mtime)),
        (14, |entry| Some(&mut entry.ctime)),
        (16, |entry| entry.atime.as_mut()),
    ];
    for (field, time) in accessors {
        fill(page, entries, field, 0, |entry, value| {
            match time(entry) {
                Some(time) => time.seconds = unzigzag(value),
                None if value == 0 => {}
                None => return None,
            }
            Some(())
        })?;
        fill(page, entries, field + 1, 0, |entry, value| {
            let nanoseconds = u32::try_from(value).ok()?;
            match time(entry) {
                Some(time) => time.nanoseconds = nanoseconds,
                None if value == 0 => {}
                None => return None,
            }
            Some(())
        })?;
    }
    Ok(())
}

fn read_contents(page: &mut PageReader<'_>, sizes: &[u64]) -> Result<Vec<Content>> {
    let (mut kinds, mut counts) = (Vec::new(), Vec::new());
    let (mut extents, mut levels) = (Vec::new(), Vec::new());
    page.integers(24, 0, &mut kinds)?;
    let of_kind = |kind| kinds.iter().filter(|found| **found == kind).count();
    page.required(25, of_kind(2), &mut counts)?;
    let limit = INLINE_EXTENTS as u64;
    if counts.iter().any(|count| *count == 0 || *count > limit) {
        return Err(page.malformed("an entry does not have 1 to 31 extents"));
    }
    page.required(26, counts.iter().sum::<u64>() as usize, &mut extents)?;
    let data_extents = extents.iter().filter(|number| *number & 1 == 0).count();
    let ids = page.ids(27, of_kind(1) + data_extents + of_kind(3))?;
    page.integers_of(28, 0, of_kind(3), &mut levels)?;

    let short = || page.malformed("a column of contents is too short");
    let (mut ids, mut counts) = (ids.iter(), counts.iter());
    let (mut extents, mut levels) = (extents.iter(), levels.iter());
    let mut contents = Vec::with_capacity(sizes.len());
    for kind in &kinds {
        let mut id = || ids.next().map(|id| ChunkId(*id)).ok_or_else(short);
        contents.push(match kind {
            0 => Content::None,
            1 => Content::Whole(id()?),
            2 => {
                let count = counts.next().copied().unwrap_or_default() as usize;
                let mut inline = Vec::with_capacity(count);
                for number in extents.by_ref().take(count) {
                    let length = number >> 1;
                    inline.push(match number & 1 {
                        0 => Extent::Data { id: id()?, length },
                        _ => Extent::Hole { length },
                    });
                }
                Content::Extents(inline)
            }
            3 => Content::List {
                root: id()?,
                level: u8::try_from(levels.next().copied().unwrap_or_default()).unwrap_or(u8::MAX),
            },
            _ => return Err(page.malformed("a kind of content is unknown")),
        });
    }
    Ok(contents)
}

fn read_attributes(page: &mut PageReader<'_>) -> Result<Vec<Attributes>> {
    let mut kinds = Vec::new();
    page.integers(29, 0, &mut kinds)?;
    let of_kind = |kind| kinds.iter().filter(|found| **found == kind).count();
    let what = "bytes of inline attributes";
    let records = page
        .strings(30, of_kind(1), what, INLINE_ATTRIBUTE_BYTES)?
        .unwrap_or_default();
    let ids = page.ids(31, of_kind(2))?;
    if records.len() != of_kind(1) {
        return Err(page.malformed("the column of attributes is missing"));
    }
    let (mut records, mut ids) = (records.into_iter(), ids.iter());
    let attributes = kinds.iter().map(|kind| match kind {
        0 => Ok(Attributes::None),
        1 => Ok(Attributes::Inline(
            records.next().unwrap_or_default().to_vec(),
        )),
        2 => Ok(Attributes::OutOfLine(ChunkId(
            ids.next().copied().unwrap_or_default(),
        ))),
        _ => Err(page.malformed("a kind of attributes is unknown")),
    });
    attributes.collect()
}
