//! What a snapshot holds by its own records and the ids in them, whatever the storage and the index say.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use larder_format::cell::Source;
use larder_format::entry::{Content, Entry, Extent};
use larder_format::error::FormatError;
use larder_format::ids::{ChunkId, ChunkType};
use larder_format::list::extents;
use larder_format::tree::build::Root;
use larder_format::tree::read::{Cursor, NodeSource};

use super::forge::Forge;

/// Bytes of a file above which it is not compared: nothing here is that large but by a lie.
pub const COMPARED_BYTES_MAX: u64 = 4 << 20;
/// Entries of a tree that are looked at.
const ENTRIES_MAX: usize = 4000;
/// Extents of a file that are looked at.
const EXTENTS_MAX: usize = 4000;

/// What a tree says, as far as its nodes can be known.
#[derive(Default)]
pub struct Truth {
    /// Entries by their keys.
    pub entries: BTreeMap<Vec<u8>, Entry>,
    /// Whether no node is missing or malformed.
    pub is_whole: bool,
}

/// Chunks that anybody may have, by id.
#[derive(Clone, Copy)]
struct Chunks<'a>(&'a HashMap<ChunkId, (ChunkType, Bytes)>);

impl NodeSource for Chunks<'_> {
    type Error = FormatError;

    fn node(&mut self, id: &ChunkId, chunk_type: ChunkType) -> Result<Arc<[u8]>, FormatError> {
        match self.0.get(id) {
            Some((kept, plain)) if *kept == chunk_type => Ok(plain.as_ref().into()),
            _ => Err(FormatError::WrongId { what: "node" }),
        }
    }
}

/// Reads a source's tree, passing over what cannot be read.
pub fn read(forge: &Forge, source: &Source) -> Truth {
    let root = Root {
        id: source.root,
        level: source.level,
        entries: source.entries,
        bytes: source.bytes,
    };
    let mut cursor = Cursor::new(Chunks(&forge.chunks), &root);
    let mut truth = Truth {
        is_whole: true,
        ..Truth::default()
    };
    for _ in 0..ENTRIES_MAX {
        match cursor.next_entry() {
            Ok(Some(entry)) => drop(truth.entries.insert(entry.key.clone(), entry)),
            Ok(None) => return truth,
            Err(_) => {
                truth.is_whole = false;
                if cursor.go_on().is_none() {
                    return truth;
                }
            }
        }
    }
    truth.is_whole = false;
    truth
}

/// Gives the bytes of a file; nothing if a part of them is in no chunk that ever was, or if they are too many.
pub fn bytes_of(forge: &Forge, entry: &Entry) -> Option<Vec<u8>> {
    if entry.size > COMPARED_BYTES_MAX {
        return None;
    }
    let mut bytes = Vec::new();
    match &entry.content {
        Content::None => {}
        Content::Whole(id) => add(forge, &mut bytes, id, entry.size)?,
        Content::Extents(extents) => {
            for extent in extents {
                add_extent(forge, &mut bytes, extent)?;
            }
        }
        Content::List { .. } => {
            let root = Forge::list_root(entry.size, &entry.content)?;
            let mut list = extents(Chunks(&forge.chunks), &root);
            for _ in 0..EXTENTS_MAX {
                match list.next() {
                    None => break,
                    Some(Ok((_, extent))) => add_extent(forge, &mut bytes, &extent)?,
                    Some(Err(_)) => return None,
                }
            }
        }
    }
    (bytes.len() as u64 == entry.size).then_some(bytes)
}

fn add_extent(forge: &Forge, bytes: &mut Vec<u8>, extent: &Extent) -> Option<()> {
    match extent {
        Extent::Data { id, length } => add(forge, bytes, id, *length),
        Extent::Hole { length } => {
            let length = usize::try_from(*length).ok()?;
            if length as u64 > COMPARED_BYTES_MAX {
                return None;
            }
            bytes.resize(bytes.len() + length, 0);
            Some(())
        }
    }
}

fn add(forge: &Forge, bytes: &mut Vec<u8>, id: &ChunkId, length: u64) -> Option<()> {
    let (chunk_type, plain) = forge.chunks.get(id)?;
    if *chunk_type != ChunkType::Data || plain.len() as u64 != length {
        return None;
    }
    bytes.extend_from_slice(plain);
    Some(())
}
