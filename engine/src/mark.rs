//! Marking: what a set of snapshots needs, as sorted records beside the index.
//!
//! Every node is read once, whichever snapshots share it, and memory is bounded: what was seen and
//! what is needed spill to the local disk. The index is read once from end to end afterwards, so no
//! chunk is looked up by itself.

mod trace;

use std::ops::ControlFlow;
use std::sync::Arc;

use larder_format::cell::Cell;
use larder_format::ids::{ChunkId, ChunkPrefix, ChunkType};
use larder_format::node::Reference;
use larder_format::tree::read::NodeSource;
use larder_format::tree::visit::{Visit, visit};

use crate::cancel::Cancel;
use crate::chunks::ChunkReader;
use crate::error::{EngineError, Result};
use crate::index::{Index, Place};
use crate::progress::Progress;
use crate::protocol::{Rule, keeps};
use crate::repository::Repository;
use crate::scratch::ScratchMap;
use crate::scratch::runs::{Records, Sorted, Sorter};

/// Memory of what is needed, before it goes to disk.
const NEEDED_BYTES: usize = 64 << 20;
/// Memory of the nodes that were seen, before they go to disk.
const SEEN_BYTES: usize = 32 << 20;
/// The owner of what several snapshots need.
pub const SHARED: u32 = u32::MAX;

/// Bytes of a record that says only that a chunk is needed: its prefix, and four more of its id. Of a chunk there is one,
/// so a prefix that has several is that of several chunks.
pub const NEEDED: usize = ChunkPrefix::SIZE + 4;
/// Bytes of a record that says by whom, too: the same, and the owner's number, big-endian.
pub const OWNED: usize = NEEDED + 4;

/// What a set of snapshots needs: [`Needed`] or [`Owned`].
pub struct Marks<const N: usize> {
    records: Sorted<N>,
    /// Nodes that were read, of trees and of lists.
    pub nodes: u64,
}

/// Which chunks are needed at all.
pub type Needed = Marks<NEEDED>;
/// Which chunks are needed, and by which snapshot, or by several.
pub type Owned = Marks<OWNED>;

/// Marks what the trees of `cells` need; the owner of what only one needs is its position there.
///
/// # Errors
/// `Damaged`, with the object, a snapshot and a path, if a node cannot be read: marks are whole or
/// there are none.
pub fn mark<const N: usize>(
    repository: &Arc<Repository>,
    cells: &[&Cell],
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Marks<N>> {
    progress.phase("marking", Some(cells.len() as u64), None);
    let scratch = repository.cache_dir();
    let mut walk = Walk {
        reader: Remembering {
            reader: ChunkReader::new(repository)?,
            last: None,
        },
        marker: Marker {
            seen: ScratchMap::new(scratch, SEEN_BYTES),
            records: Sorter::new(scratch, NEEDED_BYTES),
            number: 0,
            current: 0,
            nodes: 0,
            cancel,
        },
    };
    for (number, cell) in (0_u32..).zip(cells) {
        // Without owners nothing depends on who saw a node first.
        walk.marker.number = if N > NEEDED { number } else { 0 };
        match walk.cell(cell) {
            Err(EngineError::Damaged { .. }) if !keeps(Rule::StopAtUnresolved) => {}
            walked => walked.map_err(|error| explain(repository, cell, walk.reader.last, error))?,
        }
        progress.advance(1, 0);
    }
    Ok(Marks {
        records: walk.marker.records.finish()?,
        nodes: walk.marker.nodes,
    })
}

impl<const N: usize> Marks<N> {
    /// Takes records that begin with a chunk's prefix, whoever made them by reading so many nodes.
    pub(crate) fn of(records: Sorted<N>, nodes: u64) -> Self {
        Self { records, nodes }
    }

    /// Visits every chunk of the index and every needed one, in order of the prefixes: its places,
    /// none where the index has none, and its records, none where nobody needs it.
    ///
    /// # Errors
    /// What the local disk or `visit` answers.
    pub fn join(
        &self,
        index: &dyn Index,
        mut visit: impl FnMut(&ChunkPrefix, &[Place], &[[u8; N]]) -> Result<()>,
    ) -> Result<()> {
        let mut groups = Groups::new(self.records.iter()?)?;
        let mut failure = None;
        index.for_each_chunk(&mut |prefix, places| {
            let outcome = groups
                .before(prefix, &mut visit)
                .and_then(|()| groups.take(prefix))
                .and_then(|()| visit(prefix, places, &groups.group));
            match outcome {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        match failure {
            Some(error) => Err(error),
            None => groups.rest(&mut visit),
        }
    }
}

/// Says for which snapshot and path a chunk is needed, as far as the trees can still be read.
#[must_use]
pub fn who_needs(
    repository: &Arc<Repository>,
    cells: &[&Cell],
    prefix: &ChunkPrefix,
) -> Option<String> {
    cells.iter().find_map(|cell| {
        let path = trace::path(repository, cell, &|id| id.prefix() == *prefix)?;
        Some(format!("snapshot {}, {path}", cell.id.snapshot_name()))
    })
}

/// Tells whether a snapshot needs a node or chunk that `is_it`; nodes that cannot be read are passed
/// over.
///
/// # Errors
/// What `is_it` answers.
pub(crate) fn has(
    repository: &Arc<Repository>,
    cell: &Cell,
    is_it: &dyn Fn(&ChunkPrefix) -> Result<bool>,
) -> Result<bool> {
    let failure = std::cell::Cell::new(None);
    let found = trace::path(repository, cell, &|id| match is_it(&id.prefix()) {
        Ok(is_it) => is_it,
        Err(error) => {
            failure.set(Some(error));
            true
        }
    });
    match failure.take() {
        Some(error) => Err(error),
        None => Ok(found.is_some()),
    }
}

/// Gives the owner that a record names.
#[must_use]
pub fn owner(record: &[u8; OWNED]) -> u32 {
    let owner = record.last_chunk();
    owner.map_or(SHARED, |owner| u32::from_be_bytes(*owner))
}

struct Walk<'a, const N: usize> {
    reader: Remembering,
    marker: Marker<'a, N>,
}

impl<const N: usize> Walk<'_, N> {
    fn cell(&mut self, cell: &Cell) -> Result<()> {
        for source in &cell.sources {
            let marker = &mut self.marker;
            visit(&mut self.reader, source.root, source.level, &mut |found| {
                marker.take(&found)
            })?;
        }
        Ok(())
    }
}

struct Marker<'a, const N: usize> {
    /// The owner of each node that was seen, by id.
    seen: ScratchMap,
    records: Sorter<N>,
    /// Whose trees are walked.
    number: u32,
    /// The owner of the node that was read last, whose references come now.
    current: u32,
    nodes: u64,
    cancel: &'a Cancel,
}

impl<const N: usize> Marker<'_, N> {
    /// Takes what a walk found; tells whether to go below it.
    ///
    /// A node that a second snapshot needs is walked once more, to say so of all below it: what is
    /// below was seen under the first one, or is shared already.
    fn take(&mut self, found: &Visit) -> Result<bool> {
        let id = match found {
            Visit::Reference(Reference::List { .. }) => return Ok(true),
            Visit::Reference(Reference::Data { id, .. } | Reference::Value { id }) => {
                self.push(id, self.current)?;
                return Ok(true);
            }
            Visit::Node { id, .. } => id,
        };
        self.cancel.check()?;
        let before = self.seen.get(&id.0)?;
        let before = before.and_then(|value| Some(u32::from_be_bytes(value.try_into().ok()?)));
        self.current = match before {
            None => self.number,
            Some(owner) if owner == self.number || owner == SHARED => return Ok(false),
            Some(_) => SHARED,
        };
        self.nodes += u64::from(before.is_none());
        self.seen.insert(&id.0, &self.current.to_be_bytes())?;
        self.push(id, self.current)?;
        Ok(true)
    }

    fn push(&mut self, id: &ChunkId, owner: u32) -> Result<()> {
        let whole = id.0.into_iter().take(NEEDED).chain(owner.to_be_bytes());
        let mut record = [0; N];
        for (to, from) in record.iter_mut().zip(whole) {
            *to = from;
        }
        Ok(self.records.push(record)?)
    }
}

/// Reads nodes and knows which one was asked for last.
struct Remembering {
    reader: ChunkReader,
    last: Option<ChunkId>,
}

impl NodeSource for Remembering {
    type Error = EngineError;

    fn node(&mut self, id: &ChunkId, chunk_type: ChunkType) -> Result<Arc<[u8]>> {
        self.last = Some(*id);
        self.reader.node(id, chunk_type)
    }
}

/// Adds to damage what suffers from it.
fn explain(
    repository: &Arc<Repository>,
    cell: &Cell,
    node: Option<ChunkId>,
    error: EngineError,
) -> EngineError {
    let node_name = node.map_or_else(String::new, |id| format!("node {id}"));
    let (object, why) = match error {
        EngineError::Damaged { object, why } => (object, why),
        EngineError::Format(error) => (node_name, error.to_string()),
        other => return other,
    };
    let path = node.and_then(|node| trace::path(repository, cell, &|id| *id == node));
    let path = path.map_or_else(String::new, |path| format!(", {path}"));
    let snapshot = cell.id.snapshot_name();
    EngineError::Damaged {
        object,
        why: format!("{why} (needed by snapshot {snapshot}{path})"),
    }
}

/// Sorted records, taken chunk by chunk.
pub(crate) struct Groups<'a, const N: usize> {
    records: Records<'a, N>,
    next: Option<[u8; N]>,
    /// The records of the chunk that was taken last.
    group: Vec<[u8; N]>,
}

impl<'a, const N: usize> Groups<'a, N> {
    /// Starts before the first record.
    pub(crate) fn new(mut records: Records<'a, N>) -> Result<Self> {
        let next = records.next().transpose()?;
        Ok(Self {
            records,
            next,
            group: Vec::new(),
        })
    }

    /// Visits the needed chunks below `prefix`, which have no place.
    fn before(
        &mut self,
        prefix: &ChunkPrefix,
        visit: &mut impl FnMut(&ChunkPrefix, &[Place], &[[u8; N]]) -> Result<()>,
    ) -> Result<()> {
        while let Some(next) = self.next_prefix().filter(|next| next < prefix) {
            self.take(&next)?;
            visit(&next, &[], &self.group)?;
        }
        Ok(())
    }

    fn rest(
        &mut self,
        visit: &mut impl FnMut(&ChunkPrefix, &[Place], &[[u8; N]]) -> Result<()>,
    ) -> Result<()> {
        while let Some(next) = self.next_prefix() {
            self.take(&next)?;
            visit(&next, &[], &self.group)?;
        }
        Ok(())
    }

    /// Gives the records of a chunk, passing over those of chunks before it.
    pub(crate) fn of(&mut self, prefix: &ChunkPrefix) -> Result<&[[u8; N]]> {
        while self.next_prefix().is_some_and(|next| next < *prefix) {
            self.next = self.records.next().transpose()?;
        }
        self.take(prefix)?;
        Ok(&self.group)
    }

    /// Takes the records of a chunk, of which there may be none.
    fn take(&mut self, prefix: &ChunkPrefix) -> Result<()> {
        self.group.clear();
        while self.next_prefix() == Some(*prefix) {
            self.group.extend(self.next);
            self.next = self.records.next().transpose()?;
        }
        Ok(())
    }

    fn next_prefix(&self) -> Option<ChunkPrefix> {
        ChunkPrefix::from_slice(self.next.as_ref()?.get(..ChunkPrefix::SIZE)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests;
