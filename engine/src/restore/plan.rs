//! The plan: which files are written, and which chunks they need, by pack and block.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use larder_format::entry::{Content, Entry, Extent};
use larder_format::ids::{ChunkId, ObjectId};
use larder_format::list::{ListRoot, extents};
use larder_format::node::{decode_leaf, encode_leaf};

use crate::chunks::ChunkReader;
use crate::error::{EngineError, Result};
use crate::index::{Index, PackKind, Place};
use crate::scratch::{Items as ScratchItems, ScratchMap};

/// Memory of each map before it goes to disk, which small trees shall do in tests.
const ITEMS_BYTES: usize = if cfg!(test) { 1 << 15 } else { 6 << 20 };
const FILES_BYTES: usize = if cfg!(test) { 1 << 10 } else { 4 << 20 };
const NOTES_BYTES: usize = 2 << 20;
/// Entries that are kept together, and what their keys may take: bounds of a leaf are far above.
const PAGE_ENTRIES: usize = 64;
const PAGE_KEY_BYTES: usize = 32 << 10;
/// Packs whose numbers are kept at hand.
const PACKS_AT_HAND: usize = 4096;

/// The entries of the files that are written, by number; their keys are those in the target.
pub(super) struct Files {
    pages: ScratchMap,
    notes: ScratchMap,
    page: Vec<Entry>,
    page_key_bytes: usize,
    page_number: u64,
}

/// What is to be known of a file besides its entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    /// How many chunks it needs that are not in the target.
    pub chunks: u64,
    /// Whether the rest is taken from the file that has its name.
    pub patch: bool,
}

impl Files {
    pub(super) fn new(scratch: &Path) -> Self {
        Self {
            pages: ScratchMap::new(scratch, FILES_BYTES),
            notes: ScratchMap::new(scratch, NOTES_BYTES),
            page: Vec::new(),
            page_key_bytes: 0,
            page_number: 0,
        }
    }

    /// Adds a file and gives its number.
    pub(super) fn push(&mut self, entry: &Entry) -> Result<u64> {
        let in_order = self.page.last().is_none_or(|last| last.key < entry.key);
        let key_bytes = self.page_key_bytes + entry.key.len();
        if !in_order || self.page.len() == PAGE_ENTRIES || key_bytes > PAGE_KEY_BYTES {
            self.flush()?;
        }
        entry.check()?;
        let number = self.page_number * PAGE_ENTRIES as u64 + self.page.len() as u64;
        self.page_key_bytes += entry.key.len();
        self.page.push(entry.clone());
        Ok(number)
    }

    /// Keeps the entries that were added last; needed before they are read.
    pub(super) fn flush(&mut self) -> Result<()> {
        if !self.page.is_empty() {
            let page = encode_leaf(&self.page)?;
            self.pages.insert(&self.page_number.to_be_bytes(), &page)?;
            self.page.clear();
            self.page_key_bytes = 0;
            self.page_number += 1;
        }
        Ok(())
    }

    /// Notes what cannot be told from the entry.
    pub(super) fn note(&mut self, file: u64, note: Note) -> Result<()> {
        let mut value = note.chunks.to_be_bytes().to_vec();
        value.push(u8::from(note.patch));
        Ok(self.notes.insert(&file.to_be_bytes(), &value)?)
    }

    /// Gives what was noted of a file, or what its entry says.
    pub(super) fn noted(&self, file: u64, entry: &Entry) -> Result<Note> {
        if let Some(value) = self.notes.get(&file.to_be_bytes())?
            && let Some((chunks, patch)) = value.split_first_chunk()
        {
            return Ok(Note {
                chunks: u64::from_be_bytes(*chunks),
                patch: patch == [1],
            });
        }
        let chunks = match &entry.content {
            Content::Whole(_) => 1,
            Content::Extents(extents) => data_extents(extents),
            Content::None | Content::List { .. } => 0,
        };
        Ok(Note {
            chunks,
            patch: false,
        })
    }

    /// Gives a file's entry, keeping pages at hand.
    pub(super) fn entry(&self, file: u64, at_hand: &mut PagesAtHand) -> Result<Entry> {
        let lost = || EngineError::Internal("a planned file is not in the plan".to_owned());
        let (number, position) = (file / PAGE_ENTRIES as u64, file % PAGE_ENTRIES as u64);
        let position = usize::try_from(position).unwrap_or(usize::MAX);
        if number == self.page_number {
            return self.page.get(position).cloned().ok_or_else(lost);
        }
        let page = match at_hand.0.iter().find(|(kept, _)| *kept == number) {
            Some((_, page)) => Arc::clone(page),
            None => {
                let page = self.pages.get(&number.to_be_bytes())?.ok_or_else(lost)?;
                let page = Arc::new(decode_leaf(&page)?);
                at_hand.0.truncate(PagesAtHand::KEPT - 1);
                at_hand.0.insert(0, (number, Arc::clone(&page)));
                page
            }
        };
        page.get(position).cloned().ok_or_else(lost)
    }

    /// Gives every file with its number, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Result<(u64, Entry)>> + '_ {
        self.pages.iter_from(&[]).flat_map(|item| {
            let page = item.map_err(EngineError::from).and_then(|(number, page)| {
                let first = number
                    .first_chunk()
                    .map_or(0, |bytes| u64::from_be_bytes(*bytes));
                Ok((first * PAGE_ENTRIES as u64, decode_leaf(&page)?))
            });
            match page {
                Ok((first, entries)) => (first..).zip(entries).map(Ok).collect::<Vec<_>>(),
                Err(error) => vec![Err(error)],
            }
        })
    }
}

/// Pages of [`Files`] that were decoded last.
#[derive(Default)]
pub(super) struct PagesAtHand(Vec<(u64, Arc<Vec<Entry>>)>);

impl PagesAtHand {
    const KEPT: usize = 8;
}

/// Counts the extents that have to be fetched.
pub(super) fn data_extents(extents: &[Extent]) -> u64 {
    let data = extents.iter();
    data.filter(|extent| matches!(extent, Extent::Data { .. }))
        .count() as u64
}

/// Gives every extent of a file with its offset, in order.
pub(super) fn for_each_extent(
    entry: &Entry,
    reader: &mut ChunkReader,
    each: &mut dyn FnMut(u64, Extent) -> Result<()>,
) -> Result<()> {
    match &entry.content {
        Content::None => Ok(()),
        Content::Whole(id) => {
            let (id, length) = (*id, entry.size);
            each(0, Extent::Data { id, length })
        }
        Content::Extents(extents) => {
            let mut offset = 0;
            for extent in extents {
                each(offset, *extent)?;
                offset += extent.length();
            }
            Ok(())
        }
        Content::List { root, level } => {
            let root = ListRoot {
                id: *root,
                level: *level,
                size: entry.size,
            };
            for extent in extents(reader, &root) {
                let (offset, extent) = extent?;
                each(offset, extent)?;
            }
            Ok(())
        }
    }
}

/// A chunk that a file needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The file's number.
    pub file: u64,
    /// Where in the file it goes.
    pub file_offset: u64,
    /// Its full id.
    pub id: ChunkId,
    /// Its length in bytes.
    pub length: u32,
    /// How many of its places were tried in vain.
    pub tried: u8,
    /// How many readings of the repository gave no place for it.
    pub readings: u8,
}

/// A chunk that a file needs, and where it is in its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Item {
    /// What is wanted.
    pub wanted: Wanted,
    /// Where in the block's plaintext it is.
    pub offset: u32,
}

/// What is to be fetched: wanted chunks in order of their places, which spills to disk.
///
/// Packs are numbered as they come up, which is about the order of the paths in them, so that
/// few files are in the making at a time.
pub(super) struct Items {
    map: ScratchMap,
    packs: ScratchMap,
    names: ScratchMap,
    packs_at_hand: HashMap<ObjectId, u32>,
    next_pack: u32,
}

/// A wanted chunk, with its pack and block.
pub(super) struct Planned {
    /// The pack's number in this plan.
    pub pack: u32,
    /// Where the sealed block begins in the pack.
    pub block_offset: u64,
    /// The sealed block's length.
    pub block_length: u32,
    /// The chunk and who wants it.
    pub item: Item,
}

impl Items {
    pub(super) fn new(scratch: &Path) -> Self {
        Self {
            map: ScratchMap::new(scratch, ITEMS_BYTES),
            packs: ScratchMap::new(scratch, NOTES_BYTES),
            names: ScratchMap::new(scratch, NOTES_BYTES),
            packs_at_hand: HashMap::new(),
            next_pack: 0,
        }
    }

    /// Plans a chunk at the first of its places that was not tried; false if there is none.
    pub(super) fn add(&mut self, wanted: &Wanted, places: &[Place]) -> Result<bool> {
        let fits = |place: &&Place| place.length == wanted.length;
        let mut left = places.iter().filter(fits).skip(wanted.tried.into());
        let Some(place) = left.next() else {
            return Ok(false);
        };
        let pack = self.pack_number(&place.pack)?;
        let mut key = Vec::with_capacity(32);
        key.extend_from_slice(&pack.to_be_bytes());
        key.extend_from_slice(&place.block_offset.to_be_bytes());
        key.extend_from_slice(&place.offset.to_be_bytes());
        key.extend_from_slice(&wanted.file.to_be_bytes());
        key.extend_from_slice(&wanted.file_offset.to_be_bytes());
        let mut value = Vec::with_capacity(42);
        value.extend_from_slice(&place.block_length.to_be_bytes());
        value.extend_from_slice(&wanted.length.to_be_bytes());
        value.push(wanted.tried);
        value.push(wanted.readings);
        value.extend_from_slice(&wanted.id.0);
        self.map.insert(&key, &value)?;
        Ok(true)
    }

    /// Plans a chunk that has no place: fetching it fails, and its file is made without it.
    pub(super) fn add_nowhere(&mut self, wanted: &Wanted) -> Result<()> {
        let nowhere = Place {
            pack: ObjectId::default(),
            pack_kind: PackKind::Data,
            block_offset: 0,
            block_length: 1,
            offset: 0,
            length: wanted.length,
        };
        let wanted = Wanted {
            tried: 0,
            ..*wanted
        };
        self.add(&wanted, &[nowhere]).map(|_| ())
    }

    fn pack_number(&mut self, pack: &ObjectId) -> Result<u32> {
        if let Some(number) = self.packs_at_hand.get(pack) {
            return Ok(*number);
        }
        let known = self.packs.get(&pack.0)?;
        let number = match known.as_deref().and_then(|bytes| bytes.first_chunk()) {
            Some(bytes) => u32::from_be_bytes(*bytes),
            None => {
                let number = self.next_pack;
                self.next_pack += 1;
                self.packs.insert(&pack.0, &number.to_be_bytes())?;
                self.names.insert(&number.to_be_bytes(), &pack.0)?;
                number
            }
        };
        if self.packs_at_hand.len() >= PACKS_AT_HAND {
            self.packs_at_hand.clear();
        }
        self.packs_at_hand.insert(*pack, number);
        Ok(number)
    }

    /// Gives the pack of a number.
    pub(super) fn pack(&self, number: u32) -> Result<ObjectId> {
        let name = self.names.get(&number.to_be_bytes())?;
        let name = name.as_deref().and_then(|name| name.try_into().ok());
        name.map(ObjectId)
            .ok_or_else(|| EngineError::Internal("a planned pack is not in the plan".to_owned()))
    }

    /// Tells whether nothing is planned.
    pub(super) fn is_empty(&self) -> Result<bool> {
        Ok(self.map.is_empty()?)
    }

    /// Gives what is planned by pack, block and place in it.
    pub(super) fn iter(&self) -> PlannedItems<'_> {
        PlannedItems(self.map.iter_from(&[]))
    }
}

/// What is planned, in order.
pub(super) struct PlannedItems<'a>(ScratchItems<'a>);

impl Iterator for PlannedItems<'_> {
    type Item = Result<Planned>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.0.next()?;
        Some(item.map_err(EngineError::from).and_then(|(key, value)| {
            decode(&key, &value)
                .ok_or_else(|| EngineError::Internal("an item of the plan is malformed".to_owned()))
        }))
    }
}

fn decode(key: &[u8], value: &[u8]) -> Option<Planned> {
    let (pack, key) = key.split_first_chunk()?;
    let (block_offset, key) = key.split_first_chunk()?;
    let (offset, key) = key.split_first_chunk()?;
    let (file, key) = key.split_first_chunk()?;
    let (file_offset, _) = key.split_first_chunk()?;
    let (block_length, value) = value.split_first_chunk()?;
    let (length, value) = value.split_first_chunk()?;
    let (tried, value) = value.split_first()?;
    let (readings, id) = value.split_first()?;
    Some(Planned {
        pack: u32::from_be_bytes(*pack),
        block_offset: u64::from_be_bytes(*block_offset),
        block_length: u32::from_be_bytes(*block_length),
        item: Item {
            wanted: Wanted {
                file: u64::from_be_bytes(*file),
                file_offset: u64::from_be_bytes(*file_offset),
                id: ChunkId(id.try_into().ok()?),
                length: u32::from_be_bytes(*length),
                tried: *tried,
                readings: *readings,
            },
            offset: u32::from_be_bytes(*offset),
        },
    })
}

/// Plans wanted chunks, looking many up at once; gives those that have no place left.
pub(super) fn plan_all(
    index: &dyn Index,
    wanted: &[Wanted],
    items: &mut Items,
) -> Result<Vec<Wanted>> {
    let prefixes: Vec<_> = wanted.iter().map(|one| one.id.prefix()).collect();
    let mut lost = Vec::new();
    for (one, places) in wanted.iter().zip(index.lookup_many(&prefixes)?) {
        if !items.add(one, &places)? {
            lost.push(*one);
        }
    }
    Ok(lost)
}
