//! A position in a tree that moves forward and opens nodes only when asked.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::build::Root;
use crate::entry::Entry;
use crate::error::FormatError;
use crate::ids::ChunkId;
use crate::ids::ChunkType;
use crate::node::{Child, Interior, decode_leaf};

/// Where nodes come from: a cache, a repository, a map in a test.
pub trait NodeSource {
    /// What can go wrong; malformed nodes are among it.
    type Error: From<FormatError>;

    /// Gives the plaintext of a node, whose id has been checked against it.
    fn node(&mut self, id: &ChunkId, chunk_type: ChunkType) -> Result<Arc<[u8]>, Self::Error>;
}

impl<S: NodeSource + ?Sized> NodeSource for &mut S {
    type Error = S::Error;

    fn node(&mut self, id: &ChunkId, chunk_type: ChunkType) -> Result<Arc<[u8]>, Self::Error> {
        (**self).node(id, chunk_type)
    }
}

/// A key and ordinal, borrowed.
pub(super) type PlaceRef<'a> = (&'a [u8], u64);

/// What a walker stands before.
#[derive(Debug, Clone, Copy)]
pub(super) enum Head<'a> {
    /// A node that has not been opened.
    Node {
        child: &'a Child,
        level: u8,
        /// All its keys are below this; `None` on the right edge of the tree.
        upper: Option<PlaceRef<'a>>,
    },
    Entry(&'a Entry),
}

impl Child {
    fn start(&self) -> PlaceRef<'_> {
        (&self.separator_key, self.separator_ordinal)
    }
}

impl Entry {
    /// Gives what entries are ordered by.
    pub(super) fn place(&self) -> PlaceRef<'_> {
        (&self.key, self.ordinal)
    }
}

impl<'a> Head<'a> {
    /// Gives a place that no key from here on is below; for an entry its own.
    pub(super) fn start(&self) -> PlaceRef<'a> {
        match self {
            Self::Node { child, .. } => child.start(),
            Self::Entry(entry) => entry.place(),
        }
    }
}

/// A position in a tree: the node, or the entry of an opened leaf, that comes next.
///
/// Holds one opened node a level. Every node is checked against what its parent says of it.
#[derive(Debug, Clone)]
pub(super) struct Walker {
    frames: Vec<Frame>,
    /// What the last node that could not be opened was to hold.
    gap: Option<Gap>,
}

/// A part of a tree that cannot be read, because a node of it cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// No key that is missing is below this.
    pub from: Vec<u8>,
    /// All keys that are missing are below this; `None` at the end of the tree. A key of several
    /// versions may stand on both sides.
    pub to: Option<Vec<u8>>,
    /// How many entries are missing, as the node's parent counts them.
    pub entries: u64,
}

#[derive(Debug, Clone)]
struct Frame {
    items: Items,
    /// All keys below the frame are below this; `None` on the right edge of the tree.
    upper: Option<(Vec<u8>, u64)>,
}

#[derive(Debug, Clone)]
enum Items {
    /// Nodes of this level.
    Nodes(u8, vec::IntoIter<Child>),
    Entries(vec::IntoIter<Entry>),
}

impl Walker {
    /// Starts before the root, which has not been opened.
    pub(super) fn new(root: &Root) -> Self {
        let child = Child {
            separator_key: Vec::new(),
            separator_ordinal: 0,
            rank: 0,
            id: root.id,
            entries: root.entries,
            bytes: root.bytes,
        };
        Self {
            frames: vec![Frame {
                items: Items::Nodes(root.level, vec![child].into_iter()),
                upper: None,
            }],
            gap: None,
        }
    }

    /// Takes what is known of the node that could not be opened; the walk goes on behind it.
    pub(super) fn take_gap(&mut self) -> Option<Gap> {
        self.gap.take()
    }

    /// Gives what comes next; `None` at the end of the tree.
    pub(super) fn head(&mut self) -> Option<Head<'_>> {
        self.leave_finished();
        let frame = self.frames.last()?;
        match &frame.items {
            Items::Nodes(level, children) => {
                let (child, rest) = children.as_slice().split_first()?;
                let upper = match rest.first() {
                    Some(sibling) => Some(sibling.start()),
                    None => frame.upper.as_ref().map(|(key, at)| (key.as_slice(), *at)),
                };
                Some(Head::Node {
                    child,
                    level: *level,
                    upper,
                })
            }
            Items::Entries(entries) => entries.as_slice().first().map(Head::Entry),
        }
    }

    fn leave_finished(&mut self) {
        while let Some(frame) = self.frames.last() {
            let finished = match &frame.items {
                Items::Nodes(_, children) => children.as_slice().is_empty(),
                Items::Entries(entries) => entries.as_slice().is_empty(),
            };
            if !finished {
                return;
            }
            self.frames.pop();
        }
    }

    /// Passes the entry that comes next, and gives it; `None` if a node or the end comes next.
    pub(super) fn take_entry(&mut self) -> Option<Entry> {
        self.leave_finished();
        match &mut self.frames.last_mut()?.items {
            Items::Entries(entries) => entries.next(),
            Items::Nodes(..) => None,
        }
    }

    /// Passes the node that comes next without opening it, and gives it with its level.
    pub(super) fn take_node(&mut self) -> Option<(Child, u8)> {
        self.leave_finished();
        match &mut self.frames.last_mut()?.items {
            Items::Nodes(level, children) => children.next().map(|child| (child, *level)),
            Items::Entries(_) => None,
        }
    }

    /// Opens the node that comes next; does nothing if an entry or the end does.
    pub(super) fn open<S: NodeSource>(&mut self, source: &mut S) -> Result<(), S::Error> {
        let upper = match self.head() {
            Some(Head::Node { upper, .. }) => upper.map(|(key, at)| (key.to_vec(), at)),
            _ => return Ok(()),
        };
        let is_root = self.frames.len() == 1;
        let Some((child, level)) = self.take_node() else {
            return Ok(());
        };
        let upper_ref = upper.as_ref().map(|(key, at)| (key.as_slice(), *at));
        match read_node(source, &child, level, upper_ref, is_root) {
            Ok(items) => {
                self.frames.push(Frame { items, upper });
                Ok(())
            }
            Err(error) => {
                self.gap = Some(Gap {
                    from: child.separator_key,
                    to: upper.map(|(key, _)| key),
                    entries: child.entries,
                });
                Err(error)
            }
        }
    }

    /// Opens nodes until an entry comes next, passes it and gives it; `None` at the end.
    pub(super) fn next_entry<S: NodeSource>(
        &mut self,
        source: &mut S,
    ) -> Result<Option<Entry>, S::Error> {
        loop {
            if let Some(entry) = self.take_entry() {
                return Ok(Some(entry));
            }
            if self.head().is_none() {
                return Ok(None);
            }
            self.open(source)?;
        }
    }

    /// Moves forward to the first entry at or after `target`; never moves back.
    ///
    /// Opens no node that ends before `target` and none that starts at or after it.
    pub(super) fn seek<S: NodeSource>(
        &mut self,
        target: PlaceRef<'_>,
        source: &mut S,
    ) -> Result<(), S::Error> {
        loop {
            self.leave_finished();
            let Some(frame) = self.frames.last_mut() else {
                return Ok(());
            };
            if frame
                .upper
                .as_ref()
                .is_some_and(|(key, at)| (key.as_slice(), *at) <= target)
            {
                self.frames.pop();
                continue;
            }
            match &mut frame.items {
                Items::Entries(entries) => {
                    let before = entries
                        .as_slice()
                        .partition_point(|entry| entry.place() < target);
                    pass(entries, before);
                    if !entries.as_slice().is_empty() {
                        return Ok(());
                    }
                }
                Items::Nodes(_, children) => {
                    let starts = children.as_slice();
                    let before = starts.partition_point(|child| child.start() <= target);
                    pass(children, before.saturating_sub(1));
                    let first = children.as_slice().first();
                    if first.is_none_or(|child| child.start() >= target) {
                        return Ok(());
                    }
                    self.open(source)?;
                }
            }
        }
    }
}

/// Reads a node and checks it against what its parent says of it.
fn read_node<S: NodeSource>(
    source: &mut S,
    child: &Child,
    level: u8,
    upper: Option<PlaceRef<'_>>,
    is_root: bool,
) -> Result<Items, S::Error> {
    let page = source.node(&child.id, ChunkType::of_tree(level))?;
    if level == 0 {
        let entries = decode_leaf(&page)?;
        check_leaf(&entries, child, upper, is_root)?;
        return Ok(Items::Entries(entries.into_iter()));
    }
    let node = Interior::decode(&page)?;
    check_interior(&node, child, level, upper, is_root)?;
    Ok(Items::Nodes(level - 1, node.children.into_iter()))
}

/// Drops the first `count` items.
fn pass<T>(items: &mut vec::IntoIter<T>, count: usize) {
    if let Some(last) = count.checked_sub(1) {
        items.nth(last);
    }
}

/// Checks a leaf against what its parent says of it; all its keys are below `upper` (key and ordinal), if there is one.
pub fn check_leaf(
    entries: &[Entry],
    child: &Child,
    upper: Option<(&[u8], u64)>,
    is_root: bool,
) -> Result<(), FormatError> {
    let sizes = entries.iter().map(|entry| entry.size);
    let bytes = sizes.fold(0, u64::wrapping_add);
    let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
        return if is_root && child.entries == 0 && child.bytes == 0 {
            Ok(())
        } else {
            Err(malformed("a leaf below another node is empty"))
        };
    };
    let starts = if child.separator_ordinal == 0 {
        first.key.starts_with(&child.separator_key)
    } else {
        first.place() == child.start()
    };
    if !starts || upper.is_some_and(|upper| last.place() >= upper) {
        return Err(malformed("a leaf's keys are not between their separators"));
    }
    if entries.len() as u64 != child.entries || bytes != child.bytes {
        return Err(malformed("a leaf does not hold what its parent counts"));
    }
    Ok(())
}

/// Checks an interior node that is to be of a level against what its parent says of it, as [`check_leaf`] does a leaf.
pub fn check_interior(
    node: &Interior,
    child: &Child,
    level: u8,
    upper: Option<(&[u8], u64)>,
    is_root: bool,
) -> Result<(), FormatError> {
    if node.level != level {
        return Err(malformed("a node is not one level below its parent"));
    }
    let (Some(first), Some(last)) = (node.children.first(), node.children.last()) else {
        return Err(malformed("a node has no children"));
    };
    if first.start() != child.start() || upper.is_some_and(|upper| last.start() >= upper) {
        return Err(malformed("a node's separators do not fit its parent's"));
    }
    if is_root && node.children.len() == 1 {
        return Err(malformed("its root has only one child"));
    }
    if !is_root && last.rank != child.rank {
        return Err(malformed("a node's boundary rank is not its last child's"));
    }
    if node.totals() != (child.entries, child.bytes) {
        return Err(malformed("a node does not hold what its parent counts"));
    }
    Ok(())
}

fn malformed(why: &'static str) -> FormatError {
    FormatError::Malformed {
        what: "tree",
        at: 0,
        why,
    }
}

/// Finds the last key below a node of a tree.
pub(super) fn last_key_below<S: NodeSource>(
    source: &mut S,
    mut id: ChunkId,
    level: u8,
) -> Result<(Vec<u8>, u64), S::Error> {
    for level in (1..=level).rev() {
        let node = Interior::decode(&source.node(&id, ChunkType::of_tree(level))?)?;
        let last = node.children.last().filter(|_| node.level == level);
        id = last
            .ok_or_else(|| malformed("a node is not one level below its parent"))?
            .id;
    }
    let leaf = decode_leaf(&source.node(&id, ChunkType::TreeLeaf)?)?;
    let last = leaf.into_iter().next_back();
    let last = last.ok_or_else(|| malformed("a leaf below another node is empty"))?;
    Ok((last.key, last.ordinal))
}
