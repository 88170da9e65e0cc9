//! Reading the extents of a long file in order, from any offset.

use alloc::vec;
use alloc::vec::Vec;

use super::node::{ListChild, ListInterior, decode_list_leaf, total_bytes};
use crate::entry::Extent;
use crate::error::FormatError;
use crate::ids::ChunkId;
use crate::ids::ChunkType;
use crate::limits::INLINE_EXTENTS;
use crate::tree::read::NodeSource;

/// A whole list, as an entry names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListRoot {
    /// The id of the root node.
    pub id: ChunkId,
    /// The level of the root node; 0 is a leaf.
    pub level: u8,
    /// The size of the file in bytes.
    pub size: u64,
}

/// Gives the extents of a list in order, each with its offset in the file.
///
/// Holds one node a level. After an error it gives nothing more.
#[derive(Debug, Clone)]
pub struct Extents<S> {
    source: S,
    frames: Vec<Frame>,
    /// Offset in the file of what comes next.
    offset: u64,
    after_hole: bool,
    /// Whether the root has been opened.
    opened: bool,
}

#[derive(Debug, Clone)]
enum Frame {
    /// Nodes of this level.
    Nodes(u8, vec::IntoIter<ListChild>),
    Extents(vec::IntoIter<Extent>),
}

/// Starts before the first extent of a list; reads nothing yet.
pub fn extents<S: NodeSource>(source: S, root: &ListRoot) -> Extents<S> {
    let child = ListChild {
        id: root.id,
        bytes: root.size,
        extents: 0,
    };
    Extents {
        source,
        frames: vec![Frame::Nodes(root.level, vec![child].into_iter())],
        offset: 0,
        after_hole: false,
        opened: false,
    }
}

impl<S: NodeSource> Extents<S> {
    /// Moves forward to the extent that holds byte `offset` of the file; never moves back.
    ///
    /// Reads one node a level at most, and none that ends before the offset.
    pub fn skip_to(&mut self, offset: u64) -> Result<(), S::Error> {
        loop {
            let here = self.offset;
            let before = |bytes: u64| here.saturating_add(bytes) <= offset;
            match self.frames.last_mut() {
                None => return Ok(()),
                Some(Frame::Extents(extents)) => match extents.as_slice().first() {
                    Some(extent) if before(extent.length()) => {
                        self.offset += extent.length();
                        self.after_hole = matches!(extent, Extent::Hole { .. });
                        extents.next();
                    }
                    Some(_) => return Ok(()),
                    None => drop(self.frames.pop()),
                },
                Some(Frame::Nodes(_, children)) => match children.as_slice().first() {
                    Some(child) if before(child.bytes) => {
                        self.offset += child.bytes;
                        self.after_hole = false;
                        children.next();
                    }
                    Some(_) => self.open()?,
                    None => drop(self.frames.pop()),
                },
            }
        }
    }

    fn next_extent(&mut self) -> Result<Option<(u64, Extent)>, S::Error> {
        loop {
            match self.frames.last_mut() {
                None => return Ok(None),
                Some(Frame::Extents(extents)) => match extents.next() {
                    Some(extent) => {
                        let is_hole = matches!(extent, Extent::Hole { .. });
                        if is_hole && self.after_hole {
                            return Err(malformed("a hole follows a hole").into());
                        }
                        let offset = self.offset;
                        self.after_hole = is_hole;
                        self.offset += extent.length();
                        return Ok(Some((offset, extent)));
                    }
                    None => drop(self.frames.pop()),
                },
                Some(Frame::Nodes(_, children)) if children.as_slice().is_empty() => {
                    self.frames.pop();
                }
                Some(Frame::Nodes(..)) => self.open()?,
            }
        }
    }

    /// Opens the node that comes next, and checks it against what its parent says of it.
    fn open(&mut self) -> Result<(), S::Error> {
        let Some(Frame::Nodes(level, children)) = self.frames.last_mut() else {
            return Ok(());
        };
        let level = *level;
        let Some(child) = children.next() else {
            return Ok(());
        };
        let is_root = !self.opened;
        self.opened = true;
        let page = self.source.node(&child.id, ChunkType::of_list(level))?;
        let (frame, bytes, extents) = if level == 0 {
            let extents = decode_list_leaf(&page)?;
            let (bytes, count) = (total_bytes(&extents), extents.len() as u64);
            (Frame::Extents(extents.into_iter()), bytes, count)
        } else {
            let node = ListInterior::decode(&page)?;
            if node.level != level {
                return Err(malformed("a node is not one level below its parent").into());
            }
            if is_root && node.children.len() == 1 {
                return Err(malformed("its root has only one child").into());
            }
            let (bytes, count) = node.totals().unzip();
            let children = node.children.into_iter();
            (Frame::Nodes(level - 1, children), bytes, count.unwrap_or(0))
        };
        let fits = if is_root {
            extents > INLINE_EXTENTS as u64
        } else {
            extents == child.extents
        };
        if bytes != Some(child.bytes) || !fits {
            return Err(malformed("a node does not hold what is said of it above").into());
        }
        self.frames.push(frame);
        Ok(())
    }
}

impl<S: NodeSource> Iterator for Extents<S> {
    type Item = Result<(u64, Extent), S::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_extent();
        if next.is_err() {
            self.frames.clear();
        }
        next.transpose()
    }
}

fn malformed(why: &'static str) -> FormatError {
    FormatError::Malformed {
        what: "list",
        at: 0,
        why,
    }
}
