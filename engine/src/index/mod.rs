//! The local index: which packs hold a chunk, and where in them.
//!
//! It is a cache of the repository's segments and disposable at any moment:
//! losing it costs time only. What is in it does not count by itself: a place
//! is given only if its segment was declared counting, or its pack was closed
//! by this very session.

#[cfg(test)]
mod behaviour;
mod codec;
mod folder;
pub mod memory;
mod options;
pub mod rocks;

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use larder_format::directory::Directory;
use larder_format::ids::{ChunkPrefix, ObjectId};
use larder_format::object::Kind;
use larder_format::segment::SegmentPack;

/// What a pack holds; the numbers are those of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PackKind {
    /// Blocks of file contents.
    Data = 3,
    /// Blocks of tree nodes.
    Tree = 4,
}

impl PackKind {
    /// Gives the kind that the pack's header says.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::Data => Kind::DataPack,
            Self::Tree => Kind::TreePack,
        }
    }

    /// Gives the kind that a number stands for.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            3 => Some(Self::Data),
            4 => Some(Self::Tree),
            _ => None,
        }
    }
}

/// Where a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The pack.
    pub pack: ObjectId,
    /// What the pack holds.
    pub pack_kind: PackKind,
    /// Where the sealed block begins in the pack, in bytes.
    pub block_offset: u64,
    /// The sealed block's length in bytes.
    pub block_length: u32,
    /// Where the chunk begins in the block's plaintext, in bytes.
    pub offset: u32,
    /// The chunk's length in bytes.
    pub length: u32,
}

/// What a segment or a pack's directory says about one pack: what feeds the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackRecord {
    /// The pack's content name.
    pub id: ObjectId,
    /// What it holds.
    pub kind: PackKind,
    /// Its stored size in bytes.
    pub size: u64,
    /// Its blocks.
    pub blocks: Vec<BlockRecord>,
}

/// One block of a [`PackRecord`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockRecord {
    /// Where the sealed block begins in the pack, in bytes.
    pub offset: u64,
    /// The sealed block's length in bytes.
    pub length: u32,
    /// The type of the chunks in it.
    pub chunk_type: u8,
    /// The chunks in their order in the plaintext, each with its length in bytes.
    pub chunks: Vec<(ChunkPrefix, u32)>,
}

/// A pack that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackInfo {
    /// The pack's content name.
    pub id: ObjectId,
    /// What it holds.
    pub kind: PackKind,
    /// Its stored size in bytes.
    pub size: u64,
}

impl PackRecord {
    /// Makes the record of a pack from its directory.
    #[must_use]
    pub fn new(id: ObjectId, kind: Kind, size: u64, directory: &Directory) -> Self {
        Self::from_directory(id, kind, size, directory.clone())
    }

    /// Makes the record of a pack from what a segment says of it.
    #[must_use]
    pub fn of_segment(pack: &SegmentPack) -> Self {
        Self::new(pack.id, pack.kind, pack.length, &pack.directory)
    }

    /// Makes the same record without a copy.
    #[must_use]
    pub fn from_segment(pack: SegmentPack) -> Self {
        Self::from_directory(pack.id, pack.kind, pack.length, pack.directory)
    }

    fn from_directory(id: ObjectId, kind: Kind, size: u64, directory: Directory) -> Self {
        let places = directory.blocks_with_offsets();
        let offsets: Vec<_> = places.map(|(offset, _)| u64::from(offset)).collect();
        let blocks = directory.blocks.into_iter();
        Self {
            id,
            kind: if kind == Kind::TreePack {
                PackKind::Tree
            } else {
                PackKind::Data
            },
            size,
            blocks: offsets
                .into_iter()
                .zip(blocks)
                .map(|(offset, block)| BlockRecord {
                    offset,
                    length: block.sealed_length,
                    chunk_type: block.chunk_type as u8,
                    chunks: block.chunks,
                })
                .collect(),
        }
    }

    /// Gives every chunk of the pack with its place; one listed twice comes at its first place only.
    #[must_use]
    pub fn places(&self) -> Vec<(ChunkPrefix, Place)> {
        let mut places = Vec::new();
        for block in &self.blocks {
            let mut offset = 0_u32;
            for (prefix, length) in &block.chunks {
                let place = Place {
                    pack: self.id,
                    pack_kind: self.kind,
                    block_offset: block.offset,
                    block_length: block.length,
                    offset,
                    length: *length,
                };
                places.push((*prefix, place));
                offset = offset.saturating_add(*length);
            }
        }
        places.sort_by_key(|(prefix, _)| *prefix);
        places.dedup_by_key(|(prefix, _)| *prefix);
        places
    }

    /// Gives what [`Index::packs`] tells about the pack.
    #[must_use]
    pub fn info(&self) -> PackInfo {
        PackInfo {
            id: self.id,
            kind: self.kind,
            size: self.size,
        }
    }
}

/// Why the index could not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IndexError {
    /// Its files are damaged; they are thrown away when it is opened next.
    #[error(
        "the local index in {folder} is damaged: {cause}; run again, and it is rebuilt from the repository"
    )]
    Damaged {
        /// The folder of the index.
        folder: String,
        /// What was found.
        cause: String,
    },
    /// The local disk failed.
    #[error(
        "cannot {action} the local index in {folder}: {cause}; make room or name another cache folder"
    )]
    Disk {
        /// What was tried, as a verb.
        action: &'static str,
        /// The folder of the index.
        folder: String,
        /// Why it failed.
        cause: String,
    },
    /// A segment was to count that was never fed.
    #[error("segment {0} is not in the local index")]
    NotFed(ObjectId),
}

/// The outcome of an operation on the index.
pub type Result<T> = std::result::Result<T, IndexError>;

/// A map from chunk to places, fed by segments.
///
/// A pack's facts never change, so what two segments say about one pack is the same.
pub trait Index: Send + Sync {
    /// Lists the segments that were fed whole.
    fn segments(&self) -> Result<BTreeSet<ObjectId>>;

    /// Tells whether a segment was fed whole.
    fn has_segment(&self, segment: &ObjectId) -> Result<bool>;

    /// Lists the packs that a fed segment names, those that do not count among them; `NotFed` if it
    /// is missing.
    fn segment_packs(&self, segment: &ObjectId) -> Result<Vec<ObjectId>>;

    /// Feeds a segment; after a crash it is in whole or not at all. Feeding it again changes nothing.
    ///
    /// It does not count before [`set_counting`](Self::set_counting) names it.
    fn add_segment(&self, segment: &ObjectId, packs: &[PackRecord]) -> Result<()>;

    /// Forgets segments; the packs that no other segment names go with them.
    fn remove_segments(&self, segments: &[ObjectId]) -> Result<()>;

    /// Decides which segments count from now on, in place of those that did; `NotFed` if one is missing.
    fn set_counting(&self, segments: &[ObjectId]) -> Result<()>;

    /// Decides which packs are not usable from now on, counting or not, in place of those before.
    ///
    /// Their places are still given, after those that are usable.
    fn set_unusable(&self, packs: &BTreeSet<ObjectId>) -> Result<()>;

    /// Adds a pack that this session closed and no segment names yet; it counts at once.
    ///
    /// It stops counting when the process ends, unless a fed and counting segment names it.
    fn add_pending_pack(&self, pack: &PackRecord) -> Result<()>;

    /// Lets no pack be usable any more that only this session's word stands for, though its
    /// places are still given.
    fn disown_pending(&self) -> Result<()>;

    /// Lets no pack count any more that only this session's word stands for.
    fn drop_pending(&self) -> Result<()>;

    /// Tells for each chunk whether it has a place in a usable pack: one that counts, and was
    /// neither called unusable nor disowned.
    fn are_usable(&self, prefixes: &[ChunkPrefix]) -> Result<Vec<bool>>;

    /// Gives all places of a chunk in packs that count, sorted, the usable ones first.
    fn lookup(&self, prefix: &ChunkPrefix) -> Result<Vec<Place>>;

    /// Looks many chunks up at once; the answers are in the order of the questions.
    fn lookup_many(&self, prefixes: &[ChunkPrefix]) -> Result<Vec<Vec<Place>>>;

    /// Visits every pack that counts, in no promised order.
    fn packs(&self, visit: &mut dyn FnMut(PackInfo) -> ControlFlow<()>) -> Result<()>;

    /// Visits every chunk that has places in packs that count, in order of the prefixes.
    fn for_each_chunk(
        &self,
        visit: &mut dyn FnMut(&ChunkPrefix, &[Place]) -> ControlFlow<()>,
    ) -> Result<()>;

    /// Gives a sealed block that was kept, if it still is.
    fn cached_block(&self, pack: &ObjectId, offset: u64) -> Result<Option<Vec<u8>>>;

    /// Keeps a sealed block for later; the oldest make room for it.
    fn cache_block(&self, pack: &ObjectId, offset: u64, bytes: &[u8]) -> Result<()>;
}
