//! Making a tree out of others, reading and writing only what differs.
//!
//! The result is the tree that building from scratch would give, because a node is taken over
//! unread only where the rule would build it again: no node is under way, the node was ended by
//! the rule and not by the end of its tree, and its separator follows from the same two keys.

use alloc::vec::Vec;

use super::boundary::BoundaryKey;
use super::build::{Last, NodeOut, Root, TreeBuilder};
use super::walk::{Head, NodeSource, PlaceRef, Walker, last_key_below};
use crate::entry::Entry;
use crate::error::FormatError;
use crate::ids::ChunkId;

/// One key's new state for [`overlay`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "each is handled as it comes; none is kept in numbers"
)]
pub enum Edit {
    /// The entry is to stand under its key, whatever stood there.
    Put(Entry),
    /// Nothing is to stand under the key.
    Remove {
        /// The key.
        key: Vec<u8>,
        /// The version ordinal.
        ordinal: u64,
    },
}

impl Edit {
    fn place(&self) -> PlaceRef<'_> {
        match self {
            Self::Put(entry) => entry.place(),
            Self::Remove { key, ordinal } => (key, *ordinal),
        }
    }
}

/// Joins trees, each of whose keys are all before those of the next.
///
/// Reads about two nodes a level at each seam, and only nodes of the trees it was given.
pub fn join<S: NodeSource>(
    source: &mut S,
    boundary: BoundaryKey,
    roots: &[Root],
    sink: &mut impl FnMut(NodeOut) -> Result<ChunkId, S::Error>,
) -> Result<Root, S::Error> {
    let mut splice = Splice::new(boundary);
    for root in roots {
        splice.copy(source, root, &mut core::iter::empty(), sink)?;
    }
    splice.builder.finish(sink)
}

/// Applies edits, in ascending order of their keys, to a tree.
///
/// Reads and writes about one node a level for each place where edits cluster; reads only nodes
/// of the tree it was given. Removing what is not there is no error.
pub fn overlay<S: NodeSource>(
    source: &mut S,
    boundary: BoundaryKey,
    base: &Root,
    edits: impl IntoIterator<Item = Result<Edit, S::Error>>,
    sink: &mut impl FnMut(NodeOut) -> Result<ChunkId, S::Error>,
) -> Result<Root, S::Error> {
    let mut splice = Splice::new(boundary);
    splice.copy(source, base, &mut edits.into_iter(), sink)?;
    splice.builder.finish(sink)
}

/// A tree that is being made out of others.
struct Splice {
    builder: TreeBuilder,
    /// The last key so far is also the last before the walker's position in the old tree.
    same_last: bool,
    /// The separator of the old leaf whose first entry comes next.
    leaf_separator: Option<(Vec<u8>, u64)>,
}

impl Splice {
    fn new(boundary: BoundaryKey) -> Self {
        Self {
            builder: TreeBuilder::new(boundary),
            same_last: true,
            leaf_separator: None,
        }
    }

    /// Appends a tree with edits applied.
    fn copy<S: NodeSource>(
        &mut self,
        source: &mut S,
        root: &Root,
        edits: &mut impl Iterator<Item = Result<Edit, S::Error>>,
        sink: &mut impl FnMut(NodeOut) -> Result<ChunkId, S::Error>,
    ) -> Result<(), S::Error> {
        // Nothing precedes the first key of the old tree.
        self.same_last = self.builder.at_leaf_start() && matches!(self.builder.last(), Last::Start);
        let mut walker = Walker::new(root);
        let mut edit = edits.next().transpose()?;
        loop {
            match walker.head() {
                Some(Head::Node {
                    child,
                    level,
                    upper,
                }) => {
                    // The right edge was ended by the end of its tree, so it is always opened.
                    let untouched = upper.is_some_and(|upper| {
                        edit.as_ref().is_none_or(|edit| edit.place() >= upper)
                    });
                    if untouched && self.same_last && self.builder.is_clean(level) {
                        if let Some((child, level)) = walker.take_node() {
                            self.builder.push_node(child, level, sink)?;
                        }
                    } else {
                        self.leaf_separator = (level == 0)
                            .then(|| (child.separator_key.clone(), child.separator_ordinal));
                        walker.open(source)?;
                    }
                    continue;
                }
                Some(Head::Entry(old))
                    if edit.as_ref().is_none_or(|edit| old.place() < edit.place()) =>
                {
                    if let Some(old) = walker.take_entry() {
                        self.push_old(old, source, sink)?;
                    }
                    continue;
                }
                None if edit.is_none() => return Ok(()),
                _ => {}
            }
            let Some(current) = edit.take() else { continue };
            let replaces = match walker.head() {
                Some(Head::Entry(old)) => old.place() == current.place(),
                _ => false,
            };
            if replaces {
                walker.take_entry();
            }
            edit = edits.next().transpose()?;
            if edit
                .as_ref()
                .is_some_and(|next| next.place() <= current.place())
            {
                return Err(out_of_order().into());
            }
            self.apply(current, replaces, source, sink)?;
        }
    }

    fn apply<S: NodeSource>(
        &mut self,
        edit: Edit,
        replaces: bool,
        source: &mut S,
        sink: &mut impl FnMut(NodeOut) -> Result<ChunkId, S::Error>,
    ) -> Result<(), S::Error> {
        match edit {
            Edit::Put(entry) if replaces => self.push_old(entry, source, sink),
            Edit::Put(entry) => {
                self.same_last = false;
                self.push_new(entry, source, sink)
            }
            Edit::Remove { .. } => {
                self.same_last &= !replaces;
                Ok(())
            }
        }
    }

    /// Adds an entry whose key stands next in the old tree.
    fn push_old<S: NodeSource>(
        &mut self,
        entry: Entry,
        source: &mut S,
        sink: &mut impl FnMut(NodeOut) -> Result<ChunkId, S::Error>,
    ) -> Result<(), S::Error> {
        let separator = self.leaf_separator.take().filter(|_| {
            self.same_last
                && self.builder.at_leaf_start()
                && matches!(self.builder.last(), Last::Below(..))
        });
        match separator {
            Some(separator) => self.builder.push_first(entry, separator, sink)?,
            None => self.push_new(entry, source, sink)?,
        }
        self.same_last = true;
        Ok(())
    }

    fn push_new<S: NodeSource>(
        &mut self,
        entry: Entry,
        source: &mut S,
        sink: &mut impl FnMut(NodeOut) -> Result<ChunkId, S::Error>,
    ) -> Result<(), S::Error> {
        if self.builder.at_leaf_start()
            && let Last::Below(child, level) = self.builder.last()
        {
            let last = last_key_below(source, child.id, *level)?;
            self.builder.set_last(last);
        }
        self.builder.push(entry, sink)
    }
}

fn out_of_order() -> FormatError {
    FormatError::Malformed {
        what: "stream of edits",
        at: 0,
        why: "an edit does not come after the one before it",
    }
}
