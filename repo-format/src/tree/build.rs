//! Building a tree from its entries in order, in memory bounded by one node a level.

use alloc::vec::Vec;
use core::mem;

use super::boundary::{BoundaryKey, boundary_rank};
use crate::entry::Entry;
use crate::error::FormatError;
use crate::ids::ChunkId;
use crate::ids::ChunkType;
use crate::limits::{HEIGHT, NODE_ITEMS, NODE_ITEMS_MIN, NODE_KEY_BYTES};
use crate::node::{Child, Interior, encode_leaf, separator};

/// A finished node, to be named and kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeOut {
    /// What its id hashes besides the plaintext.
    pub chunk_type: ChunkType,
    /// 0 for a leaf.
    pub level: u8,
    /// Its plain encoding.
    pub plain: Vec<u8>,
}

/// A whole tree: its root and what is below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Root {
    /// The id of the root node.
    pub id: ChunkId,
    /// The level of the root node; 0 is a leaf.
    pub level: u8,
    /// The number of entries.
    pub entries: u64,
    /// The sum of their sizes, wrapping at 2⁶⁴.
    pub bytes: u64,
}

/// Cuts a stream of entries into nodes.
///
/// Nodes go to a *sink*, which computes the id, keeps the node if it is new, and gives the id
/// back. A clone can be finished (for a checkpoint) while the original goes on.
#[derive(Debug, Clone)]
pub struct TreeBuilder {
    boundary: BoundaryKey,
    /// Entries of the leaf that is being filled.
    entries: Vec<Entry>,
    /// Sum of their key bytes.
    key_bytes: usize,
    /// Separator of the leaf that is being filled.
    separator: (Vec<u8>, u64),
    /// What is known of the last key before `entries`.
    last: Last,
    /// What was built of each level, from the leaves up.
    levels: Vec<Level>,
}

/// What a builder knows of the last key before the leaf that it is filling.
#[derive(Debug, Clone)]
pub(super) enum Last {
    /// There is none: the tree starts here.
    Start,
    /// It ended a leaf that was built.
    Known(Vec<u8>, u64),
    /// It ends this node of this level, which was taken over without being read.
    Below(Child, u8),
}

/// The finished nodes of one level that await a parent.
#[derive(Debug, Clone, Default)]
struct Level {
    /// Nodes that were finished on this level; counted no further than two.
    finished: u8,
    /// Those that are not yet in a node of the level above.
    waiting: Vec<Child>,
    /// Sum of the key bytes of the separators of `waiting`.
    key_bytes: usize,
}

impl TreeBuilder {
    /// Starts an empty tree.
    #[must_use]
    pub fn new(boundary: BoundaryKey) -> Self {
        Self {
            boundary,
            entries: Vec::new(),
            key_bytes: 0,
            separator: (Vec::new(), 0),
            last: Last::Start,
            levels: Vec::new(),
        }
    }

    /// Adds an entry, which must come after all that were added.
    ///
    /// An entry that [`Entry::check`] refuses is refused when its leaf ends.
    pub fn push<E: From<FormatError>>(
        &mut self,
        entry: Entry,
        sink: &mut impl FnMut(NodeOut) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        let key = (entry.key.as_slice(), entry.ordinal);
        let last = match (&self.last, self.entries.last()) {
            (_, Some(last)) => Some((last.key.as_slice(), last.ordinal)),
            (Last::Known(key, ordinal), None) => Some((key.as_slice(), *ordinal)),
            (Last::Start, None) => None,
            (Last::Below(..), None) => return Err(out_of_order().into()),
        };
        if last.is_some_and(|last| last >= key) {
            return Err(out_of_order().into());
        }
        if self.entries.is_empty() {
            self.separator = last.map_or((Vec::new(), 0), |last| separator(last, key));
        }
        self.push_after(entry, sink)
    }

    /// Adds the first entry of a leaf, whose separator is known to be right.
    pub(super) fn push_first<E: From<FormatError>>(
        &mut self,
        entry: Entry,
        separator: (Vec<u8>, u64),
        sink: &mut impl FnMut(NodeOut) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        self.separator = separator;
        self.push_after(entry, sink)
    }

    fn push_after<E: From<FormatError>>(
        &mut self,
        entry: Entry,
        sink: &mut impl FnMut(NodeOut) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        self.key_bytes += entry.key.len();
        self.entries.push(entry);
        let count = self.entries.len();
        let full = count >= NODE_ITEMS || self.key_bytes >= NODE_KEY_BYTES;
        // The hash is only computed where it can decide.
        if full || (count >= NODE_ITEMS_MIN && self.last_rank() > 0) {
            self.end_leaf(sink)?;
        }
        Ok(())
    }

    /// Tells whether no leaf is under way.
    pub(super) fn at_leaf_start(&self) -> bool {
        self.entries.is_empty()
    }

    /// Tells whether no node is under way on `level` and below.
    pub(super) fn is_clean(&self, level: u8) -> bool {
        let mut below = self.levels.iter().take(usize::from(level));
        self.entries.is_empty() && below.all(|level| level.waiting.is_empty())
    }

    /// Gives what is known of the last key before the leaf under way.
    pub(super) fn last(&self) -> &Last {
        &self.last
    }

    /// Tells the builder the last key, where it was [`Last::Below`].
    pub(super) fn set_last(&mut self, (key, ordinal): (Vec<u8>, u64)) {
        self.last = Last::Known(key, ordinal);
    }

    /// Adds a whole node of `level` as it is.
    ///
    /// The caller has made sure that the rule would build it here: [`Self::is_clean`] holds, the
    /// node was ended by the rule, and its separator fits the key before.
    pub(super) fn push_node<E: From<FormatError>>(
        &mut self,
        child: Child,
        level: u8,
        sink: &mut impl FnMut(NodeOut) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        self.last = Last::Below(child.clone(), level);
        while self.levels.len() < usize::from(level) {
            self.levels.push(Level::default());
        }
        // A node that the rule has ended has several children, so no level below has one node.
        for below in self.levels.iter_mut().take(usize::from(level)) {
            below.finished = 2;
        }
        self.add(child, usize::from(level), sink)
    }

    /// Ends the tree, and gives its root.
    pub fn finish<E: From<FormatError>>(
        mut self,
        sink: &mut impl FnMut(NodeOut) -> Result<ChunkId, E>,
    ) -> Result<Root, E> {
        if !self.entries.is_empty() {
            self.end_leaf(sink)?;
        } else if self.levels.is_empty() {
            let id = emit(0, encode_leaf(&[])?, sink)?;
            return Ok(Root {
                id,
                level: 0,
                entries: 0,
                bytes: 0,
            });
        }
        let mut level = 0;
        loop {
            let here = self.levels.get_mut(level).ok_or_else(too_high)?;
            match here.waiting.as_slice() {
                [only] if here.finished == 1 => {
                    return Ok(Root {
                        id: only.id,
                        level: level as u8,
                        entries: only.entries,
                        bytes: only.bytes,
                    });
                }
                [] => {}
                _ => {
                    let node = here.take_node(level, sink)?;
                    self.add(node, level + 1, sink)?;
                }
            }
            level += 1;
        }
    }

    fn last_rank(&self) -> u8 {
        self.entries.last().map_or(0, |last| {
            boundary_rank(&self.boundary, &last.key, last.ordinal)
        })
    }

    fn end_leaf<E: From<FormatError>>(
        &mut self,
        sink: &mut impl FnMut(NodeOut) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        let rank = self.last_rank();
        let id = emit(0, encode_leaf(&self.entries)?, sink)?;
        let sizes = self.entries.iter().map(|entry| entry.size);
        let (separator_key, separator_ordinal) = mem::take(&mut self.separator);
        let child = Child {
            separator_key,
            separator_ordinal,
            rank,
            id,
            entries: self.entries.len() as u64,
            bytes: sizes.fold(0, u64::wrapping_add),
        };
        if let Some(last) = self.entries.pop() {
            self.last = Last::Known(last.key, last.ordinal);
        }
        self.entries.clear();
        self.key_bytes = 0;
        self.add(child, 0, sink)
    }

    /// Adds a finished node of `level`, and ends the nodes above it that it fills.
    fn add<E: From<FormatError>>(
        &mut self,
        mut child: Child,
        mut level: usize,
        sink: &mut impl FnMut(NodeOut) -> Result<ChunkId, E>,
    ) -> Result<(), E> {
        loop {
            if self.levels.len() <= level {
                self.levels.push(Level::default());
            }
            let here = self.levels.get_mut(level).ok_or_else(too_high)?;
            let ranks_above = usize::from(child.rank) > level + 1;
            here.finished = (here.finished + 1).min(2);
            here.key_bytes += child.separator_key.len();
            here.waiting.push(child);
            let count = here.waiting.len();
            let may_end = ranks_above || here.key_bytes >= NODE_KEY_BYTES;
            if count < NODE_ITEMS && !(count >= NODE_ITEMS_MIN && may_end) {
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
    ) -> Result<Child, E> {
        let level = u8::try_from(level + 1).unwrap_or(u8::MAX);
        if level > HEIGHT {
            return Err(too_high().into());
        }
        let node = Interior {
            level,
            children: mem::take(&mut self.waiting),
        };
        self.key_bytes = 0;
        let id = emit(level, node.encode()?, sink)?;
        let (entries, bytes) = node.totals();
        let rank = node.children.last().map_or(0, |child| child.rank);
        let first = node.children.into_iter().next().ok_or_else(too_high)?;
        Ok(Child {
            rank,
            id,
            entries,
            bytes,
            ..first
        })
    }
}

fn emit<E>(
    level: u8,
    plain: Vec<u8>,
    sink: &mut impl FnMut(NodeOut) -> Result<ChunkId, E>,
) -> Result<ChunkId, E> {
    sink(NodeOut {
        chunk_type: ChunkType::of_tree(level),
        level,
        plain,
    })
}

fn out_of_order() -> FormatError {
    FormatError::Malformed {
        what: "stream of entries",
        at: 0,
        why: "an entry does not come after the one before it",
    }
}

fn too_high() -> FormatError {
    FormatError::Limit {
        what: "height of a tree",
        found: u64::from(HEIGHT) + 1,
        limit: u64::from(HEIGHT),
    }
}
