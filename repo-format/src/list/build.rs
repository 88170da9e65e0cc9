//! Choosing how an entry holds its content, and building the list of a long file.

use alloc::vec::Vec;
use core::mem;

use super::node::{ListChild, ListInterior, encode_list_leaf, total_bytes};
use crate::entry::{Content, Extent};
use crate::error::FormatError;
use crate::ids::ChunkId;
use crate::ids::ChunkType;
use crate::limits::{HEIGHT, INLINE_EXTENTS, LIST_ITEMS, LIST_ITEMS_MIN};
use crate::tree::build::NodeOut;

/// Takes the extents of a file in order and gives the content that its entry holds.
///
/// Memory is bounded by one node a level, however long the file is. Nodes of a list go to a
/// sink as those of a tree do.
#[derive(Debug, Clone, Default)]
pub struct ContentBuilder {
    size: u64,
    /// The hole at the end so far, which may still grow.
    hole: u64,
    /// Extents not yet in a leaf: all of them, while there are few.
    extents: Vec<Extent>,
    /// Whether there are too many extents for the entry.
    is_list: bool,
    levels: Vec<Level>,
}

/// The finished nodes of one level that await a parent.
#[derive(Debug, Clone, Default)]
struct Level {
    /// Nodes that were finished on this level; counted no further than two.
    finished: u8,
    waiting: Vec<ListChild>,
}

impl ContentBuilder {
    /// Starts with an empty file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the bytes of the extents so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds an extent; adjacent holes become one, and an empty hole is none.
    pub fn push<E: From<FormatError>>(
        &mut self,
        extent: Extent,
        sink: &mut impl FnMut(NodeOut) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        let size = self.size.checked_add(extent.length());
        self.size = size.ok_or_else(|| too_much("bytes of a file"))?;
        match extent {
            // Cannot overflow: it is part of the size.
            Extent::Hole { length } => {
                self.hole += length;
                Ok(())
            }
            Extent::Data { .. } => {
                self.end_hole(sink)?;
                self.push_extent(extent, sink)
            }
        }
    }

    /// Ends the file, and gives its content; its size is [`Self::size`] before.
    pub fn finish<E: From<FormatError>>(
        mut self,
        sink: &mut impl FnMut(NodeOut) -> Result<ChunkId, E>,
    ) -> Result<Content, E> {
        self.end_hole(sink)?;
        if !self.is_list {
            return Ok(match self.extents.as_slice() {
                [] => Content::None,
                [Extent::Data { id, .. }] => Content::Whole(*id),
                _ => Content::Extents(self.extents),
            });
        }
        if !self.extents.is_empty() {
            self.end_leaf(0, sink)?;
        }
        let mut level = 0;
        loop {
            let height = || too_much("height of a list");
            let here = self.levels.get_mut(level).ok_or_else(height)?;
            match here.waiting.as_slice() {
                [only] if here.finished == 1 => {
                    return Ok(Content::List {
                        root: only.id,
                        level: level as u8,
                    });
                }
                [] => {}
                _ => {
                    let node = here.take_node(level, sink)?;
                    // The rank cannot matter: the level above is ended next.
                    self.add(node, level + 1, 0, sink)?;
                }
            }
            level += 1;
        }
    }

    fn end_hole<E: From<FormatError>>(
        &mut self,
        sink: &mut impl FnMut(NodeOut) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        match mem::take(&mut self.hole) {
            0 => Ok(()),
            length => self.push_extent(Extent::Hole { length }, sink),
        }
    }

    fn push_extent<E: From<FormatError>>(
        &mut self,
        extent: Extent,
        sink: &mut impl FnMut(NodeOut) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        self.extents.push(extent);
        let count = self.extents.len();
        self.is_list |= count > INLINE_EXTENTS;
        let rank = list_rank(&extent);
        if count >= LIST_ITEMS || (count >= LIST_ITEMS_MIN && rank > 0) {
            self.end_leaf(rank, sink)?;
        }
        Ok(())
    }

    fn end_leaf<E: From<FormatError>>(
        &mut self,
        rank: u8,
        sink: &mut impl FnMut(NodeOut) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        let bytes = total_bytes(&self.extents).ok_or_else(|| too_much("bytes of a file"))?;
        let plain = encode_list_leaf(&self.extents)?;
        let extents = self.extents.len() as u64;
        self.extents.clear();
        let id = emit(0, plain, sink)?;
        self.add(ListChild { id, bytes, extents }, 0, rank, sink)
    }

    /// Adds a finished node of `level`, and ends the nodes above it that it fills.
    fn add<E: From<FormatError>>(
        &mut self,
        mut child: ListChild,
        mut level: usize,
        rank: u8,
        sink: &mut impl FnMut(NodeOut) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        loop {
            if self.levels.len() <= level {
                self.levels.push(Level::default());
            }
            let here = self.levels.get_mut(level);
            let here = here.ok_or_else(|| too_much("height of a list"))?;
            here.finished = (here.finished + 1).min(2);
            here.waiting.push(child);
            let count = here.waiting.len();
            let ranks_above = usize::from(rank) > level + 1;
            if count < LIST_ITEMS && !(count >= LIST_ITEMS_MIN && ranks_above) {
                return Ok(());
            }
            child = here.take_node(level, sink)?;
            level += 1;
        }
    }
}

impl Level {
    /// Makes a node of the level above `level` out of all that wait.
    fn take_node<E: From<FormatError>>(
        &mut self,
        level: usize,
        sink: &mut impl FnMut(NodeOut) -> Result<ChunkId, E>,
    ) -> Result<ListChild, E> {
        let node = ListInterior {
            level: u8::try_from(level + 1).unwrap_or(u8::MAX),
            children: mem::take(&mut self.waiting),
        };
        let plain = node.encode()?;
        let totals = node.totals();
        let (bytes, extents) = totals.ok_or_else(|| too_much("bytes of a file"))?;
        let id = emit(node.level, plain, sink)?;
        Ok(ListChild { id, bytes, extents })
    }
}

/// Gives the list rank of an extent: it is above `l` once in 64^(l+1) chunks.
fn list_rank(extent: &Extent) -> u8 {
    match extent {
        Extent::Hole { .. } => 0,
        Extent::Data { id, .. } => {
            let first = id.0.first_chunk::<8>().copied().unwrap_or_default();
            (u64::from_be_bytes(first).leading_zeros() / 6).min(10) as u8
        }
    }
}

fn emit<E>(
    level: u8,
    plain: Vec<u8>,
    sink: &mut impl FnMut(NodeOut) -> Result<ChunkId, E>,
) -> Result<ChunkId, E> {
    sink(NodeOut {
        chunk_type: ChunkType::of_list(level),
        level,
        plain,
    })
}

fn too_much(what: &'static str) -> FormatError {
    let limit = if what == "height of a list" {
        u64::from(HEIGHT)
    } else {
        u64::MAX - 1
    };
    FormatError::Limit {
        what,
        found: limit + 1,
        limit,
    }
}
