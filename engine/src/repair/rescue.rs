//! Bringing what snapshots need, and what only damaged places hold, into new packs; and saying what is
//! nowhere any more.
//!
//! All trees are walked, each shared part once. What is needed and not usable is read from any place that
//! still opens, if need be from another copy of the repository, and put in anew, as a backup does that meets it
//! in its source. So nothing is said of a pack but by what could be read of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use larder_format::cell::{Cell, Source};
use larder_format::entry::{Attributes, Content, Entry, Extent};
use larder_format::ids::{ChunkId, ChunkPrefix, ChunkType, ObjectId, SessionId};
use larder_format::limits::HEIGHT;
use larder_format::list::{ListInterior, decode_list_leaf};
use larder_format::node::{Child, Interior, decode_leaf};

use super::{Lost, LostPart};
use crate::budget::Budget;
use crate::cancel::Cancel;
use crate::chunks::ChunkReader;
use crate::error::{EngineError, Result};
use crate::packer::Packer;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::scratch::ScratchMap;

/// Plaintext bytes that are read and not sealed yet.
const BUDGET_BYTES: usize = 32 << 20;
/// Memory of the nodes that are whole, before they go to disk.
const SEEN_BYTES: usize = 8 << 20;
/// Losses that are told one by one.
const TOLD_MAX: usize = 10_000;
/// Byte ranges that are told of one file.
const RANGES_MAX: usize = 1000;

/// What a walk found to be lost.
#[derive(Default)]
pub(super) struct Losses {
    /// The first of them, file by file.
    pub told: Vec<Lost>,
    /// How many there are.
    pub count: u64,
    /// Packs that should hold what is lost.
    pub packs: BTreeSet<ObjectId>,
    /// Snapshots of which nodes are lost.
    pub torn: BTreeSet<SessionId>,
}

/// Walks trees and puts in anew what is not usable.
pub(super) struct Rescue<'a> {
    repository: &'a Repository,
    packer: &'a mut Packer,
    reader: ChunkReader,
    /// Another copy of the repository.
    spare: Option<ChunkReader>,
    budget: Arc<Budget>,
    /// Nodes below which nothing is lost.
    whole: ScratchMap,
    losses: Losses,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
}

/// Whose tree is walked.
#[derive(Clone, Copy)]
struct Site<'a> {
    cell: &'a Cell,
    source: &'a Source,
}

/// The part of a tree that a node stands for.
struct Span<'a> {
    level: u8,
    from: &'a [u8],
    to: Option<&'a [u8]>,
}

impl<'a> Rescue<'a> {
    pub(super) fn new(
        repository: &'a Arc<Repository>,
        spare: Option<&Arc<Repository>>,
        packer: &'a mut Packer,
        progress: &'a dyn Progress,
        cancel: &'a Cancel,
    ) -> Result<Self> {
        Ok(Self {
            repository,
            packer,
            reader: ChunkReader::new(repository)?,
            spare: spare.map(ChunkReader::new).transpose()?,
            budget: Budget::new(BUDGET_BYTES),
            whole: ScratchMap::new(repository.cache_dir(), SEEN_BYTES),
            losses: Losses::default(),
            progress,
            cancel,
        })
    }

    /// Walks the trees of all these snapshots.
    pub(super) fn run<'c>(mut self, cells: impl Iterator<Item = &'c Cell>) -> Result<Losses> {
        self.progress.phase("looking chunks up", None, None);
        for cell in cells {
            for source in &cell.sources {
                let span = Span {
                    level: source.level,
                    from: &[],
                    to: None,
                };
                self.node(Site { cell, source }, &source.root, &span)?;
            }
            // Sources never share a block.
            self.packer.end_blocks();
        }
        Ok(self.losses)
    }

    /// Walks a node and all below it; tells whether nothing of it is lost.
    fn node(&mut self, site: Site<'_>, id: &ChunkId, span: &Span<'_>) -> Result<bool> {
        self.cancel.check()?;
        if self.whole.get(&id.0)?.is_some() {
            return Ok(true);
        }
        let chunk_type = ChunkType::of_tree(span.level);
        let page = self.keep(chunk_type, id)?;
        let is_whole = match (page, span.level) {
            (None, _) => None,
            (Some(page), 0) => match decode_leaf(&page) {
                Ok(entries) => Some(self.entries(site, &entries)?),
                Err(_) => None,
            },
            (Some(page), level) => match Interior::decode(&page) {
                Ok(node) if node.level == level && level <= HEIGHT => {
                    Some(self.children(site, &node.children, span)?)
                }
                _ => None,
            },
        };
        match is_whole {
            Some(true) => self.whole.insert(&id.0, &[])?,
            Some(false) => {}
            None => {
                self.losses.torn.insert(site.cell.id);
                self.lose(lost_entries(site, span));
            }
        }
        Ok(is_whole == Some(true))
    }

    fn children(&mut self, site: Site<'_>, children: &[Child], span: &Span<'_>) -> Result<bool> {
        let mut is_whole = true;
        for (at, child) in children.iter().enumerate() {
            let next = children.get(at + 1);
            let below = Span {
                level: span.level - 1,
                from: &child.separator_key,
                to: next.map(|next| next.separator_key.as_slice()).or(span.to),
            };
            is_whole &= self.node(site, &child.id, &below)?;
        }
        Ok(is_whole)
    }

    fn entries(&mut self, site: Site<'_>, entries: &[Entry]) -> Result<bool> {
        let mut is_whole = true;
        for entry in entries {
            let mut ranges = Vec::new();
            match &entry.content {
                Content::None => {}
                Content::Whole(id) => self.data(&[(*id, 0, entry.size)], &mut ranges)?,
                Content::Extents(extents) => {
                    self.data(&data_of(extents, 0), &mut ranges)?;
                }
                Content::List { root, level } => {
                    if !self.list(root, *level, (0, entry.size), &mut ranges)? {
                        self.losses.torn.insert(site.cell.id);
                    }
                }
            }
            if !ranges.is_empty() {
                is_whole = false;
                self.lose(lost(site, entry, LostPart::Content, joined(ranges)));
            }
            if let Attributes::OutOfLine(id) = &entry.attributes
                && !self.is_kept(ChunkType::Value, id)?
            {
                is_whole = false;
                self.lose(lost(site, entry, LostPart::Attributes, Vec::new()));
            }
        }
        Ok(is_whole)
    }

    /// Walks a list whose part of the file is at `range` (offset and length in bytes); tells whether it has all nodes.
    fn list(
        &mut self,
        id: &ChunkId,
        level: u8,
        range: (u64, u64),
        ranges: &mut Vec<(u64, u64)>,
    ) -> Result<bool> {
        self.cancel.check()?;
        if self.whole.get(&id.0)?.is_some() {
            return Ok(true);
        }
        let before = ranges.len();
        let chunk_type = match level {
            0 => ChunkType::ListLeaf,
            _ => ChunkType::ListInterior,
        };
        let page = self.keep(chunk_type, id)?;
        let mut has_all = true;
        match (page, level) {
            (Some(page), 0) => match decode_list_leaf(&page) {
                Ok(extents) => self.data(&data_of(&extents, range.0), ranges)?,
                Err(_) => has_all = false,
            },
            (Some(page), level) => match ListInterior::decode(&page) {
                Ok(node) if node.level == level && level <= HEIGHT => {
                    let mut at = range.0;
                    for child in &node.children {
                        has_all &= self.list(&child.id, level - 1, (at, child.bytes), ranges)?;
                        at = at.saturating_add(child.bytes);
                    }
                    if has_all && ranges.len() == before {
                        self.whole.insert(&id.0, &[])?;
                    }
                    return Ok(has_all);
                }
                _ => has_all = false,
            },
            (None, _) => has_all = false,
        }
        if !has_all {
            ranges.push(range);
        } else if ranges.len() == before {
            self.whole.insert(&id.0, &[])?;
        }
        Ok(has_all)
    }

    /// Keeps chunks of data, each with its offset in the file and its length; adds the ranges of those
    /// that are lost.
    fn data(&mut self, chunks: &[(ChunkId, u64, u64)], ranges: &mut Vec<(u64, u64)>) -> Result<()> {
        let prefixes: Vec<ChunkPrefix> = chunks.iter().map(|(id, ..)| id.prefix()).collect();
        for ((id, offset, length), is_known) in chunks.iter().zip(self.packer.are_known(&prefixes)?)
        {
            if !is_known && self.keep(ChunkType::Data, id)?.is_none() {
                ranges.push((*offset, *length));
            }
        }
        Ok(())
    }

    fn is_kept(&mut self, chunk_type: ChunkType, id: &ChunkId) -> Result<bool> {
        let known = self.packer.are_known(&[id.prefix()])?;
        Ok(known.first() == Some(&true) || self.keep(chunk_type, id)?.is_some())
    }

    /// Reads a chunk from wherever it is and puts it in unless it is usable; nothing if it is nowhere.
    fn keep(&mut self, chunk_type: ChunkType, id: &ChunkId) -> Result<Option<Arc<[u8]>>> {
        let mut read = self.reader.read(chunk_type, id);
        if let (Err(EngineError::Damaged { .. }), Some(spare)) = (&read, &mut self.spare) {
            read = spare.read(chunk_type, id);
        }
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(EngineError::Damaged { .. }) => {
                let places = self.repository.index().lookup(&id.prefix())?;
                self.losses
                    .packs
                    .extend(places.iter().map(|place| place.pack));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let Some(held) = self.budget.hold(0, bytes.len()) else {
            return Err(EngineError::Interrupted);
        };
        self.packer.put(chunk_type, *id, &bytes, Some(held))?;
        Ok(Some(bytes))
    }

    fn lose(&mut self, lost: Lost) {
        self.losses.count += 1;
        if self.losses.told.len() < TOLD_MAX {
            self.losses.told.push(lost);
        }
    }
}

/// Gives the chunks of extents with their offsets and lengths in the file, the first one at `offset`.
fn data_of(extents: &[Extent], offset: u64) -> Vec<(ChunkId, u64, u64)> {
    let mut at = offset;
    let mut chunks = Vec::new();
    for extent in extents {
        let length = match extent {
            Extent::Data { id, length } => {
                chunks.push((*id, at, *length));
                *length
            }
            Extent::Hole { length } => *length,
        };
        at = at.saturating_add(length);
    }
    chunks
}

/// Joins ranges that touch; they come in the order of the file.
fn joined(ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (offset, length) in ranges {
        let is_full = joined.len() == RANGES_MAX;
        match joined.last_mut() {
            Some((start, before)) if start.saturating_add(*before) == offset => *before += length,
            // Of very many the last one told reaches to the last of all.
            Some((start, before)) if is_full => {
                *before = offset.saturating_add(length).saturating_sub(*start);
            }
            _ => joined.push((offset, length)),
        }
    }
    joined
}

fn lost(site: Site<'_>, entry: &Entry, part: LostPart, ranges: Vec<(u64, u64)>) -> Lost {
    Lost {
        snapshot: site.cell.id.snapshot_name(),
        path: path_of(site.source, &entry.key),
        part,
        ranges,
        until: None,
    }
}

fn lost_entries(site: Site<'_>, span: &Span<'_>) -> Lost {
    Lost {
        snapshot: site.cell.id.snapshot_name(),
        path: path_of(site.source, span.from),
        part: LostPart::Entries,
        ranges: Vec::new(),
        until: span.to.map(|key| path_of(site.source, key)),
    }
}

fn path_of(source: &Source, key: &[u8]) -> String {
    let mut path = source.path.clone();
    if !key.is_empty() && path.last() != Some(&b'/') {
        path.push(b'/');
    }
    path.extend_from_slice(key);
    String::from_utf8_lossy(&path).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_one() {
        assert_eq!(
            joined(vec![(0, 4), (4, 4), (16, 2), (18, 1), (30, 1)]),
            [(0, 8), (16, 3), (30, 1)]
        );
        let many: Vec<_> = (0..5000).map(|n| (n * 2, 1)).collect();
        let told = joined(many);
        assert_eq!(told.len(), RANGES_MAX);
        assert_eq!(told.last(), Some(&(1998, 8001)));
    }
}
