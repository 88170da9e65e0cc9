//! Carrying trees under another session, so that each of their chunks is where it may be relied on.
//!
//! A session that a collector ended leaves packs that count for nothing. What its trees need is
//! looked up again, chunk by chunk; what is not usable is read from any place that still has it
//! and put in anew. The source is not read.

use std::sync::Arc;

use larder_format::cell::{Cell, Source};
use larder_format::entry::{Attributes, Content, Entry, Extent};
use larder_format::error::FormatError;
use larder_format::ids::{ChunkId, ChunkPrefix, ChunkType};
use larder_format::limits::HEIGHT;
use larder_format::list::{ListInterior, decode_list_leaf};
use larder_format::node::{Child, Interior, decode_leaf};

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
/// Memory of the nodes that were carried, before they go to disk.
const SEEN_BYTES: usize = 8 << 20;

/// What was carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Carried {
    /// Every chunk is usable, or on its way into a pack of this session.
    Whole,
    /// A chunk that is needed can be read nowhere any more, and why.
    Gone(String),
}

/// Carries trees; what hangs on `trusted`, the base seen live, is passed over.
///
/// # Errors
/// `Interrupted`, or what the storage answers; damage is [`Carried::Gone`].
pub(crate) fn carry(
    packer: &mut Packer,
    repository: &Arc<Repository>,
    trees: &[Source],
    trusted: Option<&Cell>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Carried> {
    let mut carrier = Carrier::new(repository, cancel)?;
    let entries = trees.iter().map(|tree| tree.entries);
    let total = entries.fold(0, u64::saturating_add);
    progress.phase("looking chunks up again", Some(total), None);
    for tree in trees {
        let base = trusted.and_then(|cell| cell.sources.iter().find(|one| one.path == tree.path));
        match carrier.tree(packer, tree, base) {
            Ok(()) => progress.advance(tree.entries, 0),
            Err(error) if is_damage(&error) => {
                tracing::warn!("what was read before is lost: {error}");
                let why = match error {
                    EngineError::Damaged { object, why } => format!("{object}: {why}"),
                    other => other.to_string(),
                };
                return Ok(Carried::Gone(why));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Carried::Whole)
}

pub(crate) fn is_damage(error: &EngineError) -> bool {
    matches!(error, EngineError::Damaged { .. } | EngineError::Format(_))
}

/// Looks chunks up, and puts those in anew that are not usable.
pub(crate) struct Carrier<'a> {
    reader: ChunkReader,
    budget: Arc<Budget>,
    /// Nodes all of whose chunks were carried.
    seen: ScratchMap,
    /// Whether what is lost is left as it is.
    passes_over_lost: bool,
    cancel: &'a Cancel,
}

impl<'a> Carrier<'a> {
    /// Starts with nothing carried.
    pub(crate) fn new(repository: &Arc<Repository>, cancel: &'a Cancel) -> Result<Self> {
        Ok(Self {
            reader: ChunkReader::new(repository)?,
            budget: Budget::new(BUDGET_BYTES),
            seen: ScratchMap::new(repository.cache_dir(), SEEN_BYTES),
            passes_over_lost: false,
            cancel,
        })
    }

    /// Leaves chunks as they are from now on that can be read nowhere: whoever needs them is no worse off than before.
    pub(crate) fn pass_over_lost(&mut self) {
        self.passes_over_lost = true;
    }

    fn forgive(&self, kept: Result<()>) -> Result<()> {
        match kept {
            Err(error) if self.passes_over_lost && is_damage(&error) => Ok(()),
            kept => kept,
        }
    }

    /// Carries a tree but for what it shares with that of the base.
    fn tree(&mut self, packer: &mut Packer, tree: &Source, base: Option<&Source>) -> Result<()> {
        self.node(packer, &tree.root, tree.level, (&[], 0), base)
    }

    fn node(
        &mut self,
        packer: &mut Packer,
        id: &ChunkId,
        level: u8,
        start: (&[u8], u64),
        base: Option<&Source>,
    ) -> Result<()> {
        self.cancel.check()?;
        if self.seen.get(&id.0)?.is_some() || self.is_shared(id, level, start, base)? {
            return Ok(());
        }
        let chunk_type = match level {
            0 => ChunkType::TreeLeaf,
            _ => ChunkType::TreeInterior,
        };
        let page = self.keep(packer, chunk_type, id)?;
        if level == 0 {
            let entries = decode_leaf(&page)?;
            self.entries(packer, entries.iter())?;
        } else {
            let node = Interior::decode(&page)?;
            must_be_level(node.level, level)?;
            for child in &node.children {
                self.node(packer, &child.id, level - 1, start_of(child), base)?;
            }
        }
        Ok(self.seen.insert(&id.0, &[])?)
    }

    /// Tells whether the base's tree has this very node where its keys belong.
    fn is_shared(
        &mut self,
        id: &ChunkId,
        level: u8,
        start: (&[u8], u64),
        base: Option<&Source>,
    ) -> Result<bool> {
        let Some(base) = base else { return Ok(false) };
        let (mut at, mut at_level) = (base.root, base.level);
        while at_level > level {
            let page = match self.reader.read(ChunkType::TreeInterior, &at) {
                Ok(page) => page,
                // A base that cannot be read spares no work.
                Err(error) if is_damage(&error) => return Ok(false),
                Err(error) => return Err(error),
            };
            let node = Interior::decode(&page)?;
            must_be_level(node.level, at_level)?;
            let after = node
                .children
                .partition_point(|child| start_of(child) <= start);
            let Some(child) = node.children.get(after.saturating_sub(1)) else {
                return Ok(false);
            };
            (at, at_level) = (child.id, at_level - 1);
        }
        Ok(at_level == level && at == *id)
    }

    /// Carries the contents and attributes of entries.
    pub(crate) fn entries<'e>(
        &mut self,
        packer: &mut Packer,
        entries: impl Iterator<Item = &'e Entry>,
    ) -> Result<()> {
        let mut data = Vec::new();
        for entry in entries {
            match &entry.content {
                Content::None => {}
                Content::Whole(id) => data.push(*id),
                Content::Extents(extents) => data.extend(extents.iter().filter_map(data_of)),
                Content::List { root, level } => {
                    let kept = self.list(packer, root, *level);
                    self.forgive(kept)?;
                }
            }
            if let Attributes::OutOfLine(id) = &entry.attributes
                && !known(packer, id)?
            {
                let kept = self.keep(packer, ChunkType::Value, id).map(drop);
                self.forgive(kept)?;
            }
        }
        self.data(packer, &data)
    }

    fn list(&mut self, packer: &mut Packer, id: &ChunkId, level: u8) -> Result<()> {
        self.cancel.check()?;
        if self.seen.get(&id.0)?.is_some() {
            return Ok(());
        }
        if level == 0 {
            let page = self.keep(packer, ChunkType::ListLeaf, id)?;
            let extents = decode_list_leaf(&page)?;
            let data: Vec<_> = extents.iter().filter_map(data_of).collect();
            self.data(packer, &data)?;
        } else {
            let page = self.keep(packer, ChunkType::ListInterior, id)?;
            let node = ListInterior::decode(&page)?;
            must_be_level(node.level, level)?;
            for child in &node.children {
                self.list(packer, &child.id, level - 1)?;
            }
        }
        Ok(self.seen.insert(&id.0, &[])?)
    }

    fn data(&mut self, packer: &mut Packer, ids: &[ChunkId]) -> Result<()> {
        let prefixes: Vec<ChunkPrefix> = ids.iter().map(ChunkId::prefix).collect();
        for (id, is_known) in ids.iter().zip(packer.are_known(&prefixes)?) {
            if !is_known {
                let kept = self.keep(packer, ChunkType::Data, id).map(drop);
                self.forgive(kept)?;
            }
        }
        Ok(())
    }

    /// Reads a chunk from wherever it is, and puts it in unless it is usable.
    fn keep(
        &mut self,
        packer: &mut Packer,
        chunk_type: ChunkType,
        id: &ChunkId,
    ) -> Result<Arc<[u8]>> {
        let bytes = self.reader.read(chunk_type, id)?;
        let Some(held) = self.budget.hold(0, bytes.len()) else {
            return Err(EngineError::Interrupted);
        };
        packer.put(chunk_type, *id, &bytes, Some(held))?;
        Ok(bytes)
    }
}

/// Tells for entries that are to be taken over as they are whether all that they need is usable.
pub(crate) struct Lookup {
    reader: ChunkReader,
}

impl Lookup {
    pub(crate) fn new(repository: &Arc<Repository>) -> Result<Self> {
        Ok(Self {
            reader: ChunkReader::new(repository)?,
        })
    }

    /// Looks up what each content and its attributes need, all short ones at once.
    pub(crate) fn are_usable(
        &mut self,
        packer: &Packer,
        wanted: &[(&Content, &Attributes)],
    ) -> Result<Vec<bool>> {
        let mut prefixes = Vec::new();
        let mut ends = Vec::with_capacity(wanted.len());
        for (content, attributes) in wanted {
            match content {
                Content::Whole(id) => prefixes.push(id.prefix()),
                Content::Extents(extents) => {
                    let ids = extents.iter().filter_map(data_of);
                    prefixes.extend(ids.map(|id| id.prefix()));
                }
                Content::None | Content::List { .. } => {}
            }
            if let Attributes::OutOfLine(id) = attributes {
                prefixes.push(id.prefix());
            }
            ends.push(prefixes.len());
        }
        let known = packer.are_known(&prefixes)?;
        let mut answers = Vec::with_capacity(wanted.len());
        let mut start = 0;
        for ((content, _), end) in wanted.iter().zip(ends) {
            let mut is_usable = known
                .get(start..end)
                .unwrap_or_default()
                .iter()
                .all(|one| *one);
            start = end;
            if is_usable && let Content::List { root, level } = content {
                is_usable = match self.list(packer, root, *level) {
                    Err(error) if is_damage(&error) => false,
                    other => other?,
                };
            }
            answers.push(is_usable);
        }
        Ok(answers)
    }

    fn list(&mut self, packer: &Packer, id: &ChunkId, level: u8) -> Result<bool> {
        if !known(packer, id)? {
            return Ok(false);
        }
        if level == 0 {
            let page = self.reader.read(ChunkType::ListLeaf, id)?;
            let extents = decode_list_leaf(&page)?;
            let ids = extents.iter().filter_map(data_of);
            let prefixes: Vec<_> = ids.map(|id| id.prefix()).collect();
            return Ok(packer.are_known(&prefixes)?.iter().all(|one| *one));
        }
        let page = self.reader.read(ChunkType::ListInterior, id)?;
        let node = ListInterior::decode(&page)?;
        must_be_level(node.level, level)?;
        for child in &node.children {
            if !self.list(packer, &child.id, level - 1)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn known(packer: &Packer, id: &ChunkId) -> Result<bool> {
    Ok(packer.are_known(&[id.prefix()])?.first() == Some(&true))
}

fn data_of(extent: &Extent) -> Option<ChunkId> {
    match extent {
        Extent::Data { id, .. } => Some(*id),
        Extent::Hole { .. } => None,
    }
}

fn start_of(child: &Child) -> (&[u8], u64) {
    (&child.separator_key, child.separator_ordinal)
}

/// Refuses a node that is not of the level that is said of it: so no walk goes deeper than a tree may.
fn must_be_level(found: u8, said: u8) -> Result<()> {
    if found == said && said <= HEIGHT {
        return Ok(());
    }
    Err(EngineError::Format(FormatError::Malformed {
        what: "tree",
        at: 0,
        why: "a node is not of the level that is said of it above",
    }))
}
