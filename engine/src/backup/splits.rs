//! Where to divide a bucket's keys, by the tree of the snapshot before.

use std::sync::Arc;

use larder_format::cell::Source;
use larder_format::ids::{ChunkId, ChunkType};
use larder_format::node::Interior;

use crate::chunks::ChunkReader;
use crate::error::Result;
use crate::repository::Repository;

/// Divisions at most: more would take memory and gain nothing.
const SPLITS_MAX: u64 = 10_000;

/// Gives keys, in order, between which lie about `range_keys` entries of a tree each: separators of its nodes,
/// in UTF-8. Its leaves are not read.
///
/// # Errors
/// What the storage answers, or `Damaged` for nodes that are.
pub(crate) fn splits(
    repository: &Arc<Repository>,
    tree: &Source,
    range_keys: u64,
) -> Result<Vec<Vec<u8>>> {
    let mut dividing = Dividing {
        reader: ChunkReader::new(repository)?,
        range_keys: range_keys.max(tree.entries / SPLITS_MAX).max(1),
        entries: 0,
        splits: Vec::new(),
    };
    dividing.walk(tree.level, &tree.root)?;
    Ok(dividing.splits)
}

struct Dividing {
    reader: ChunkReader,
    range_keys: u64,
    /// Entries since the last division.
    entries: u64,
    splits: Vec<Vec<u8>>,
}

impl Dividing {
    fn walk(&mut self, level: u8, id: &ChunkId) -> Result<()> {
        if level == 0 {
            return Ok(());
        }
        let page = self.reader.read(ChunkType::of_tree(level), id)?;
        let node = Interior::decode(&page)?;
        for child in node.children {
            let key = child.separator_key;
            if self.entries >= self.range_keys && !key.is_empty() && key.is_ascii() {
                self.splits.push(key);
                self.entries = 0;
            }
            match level > 1 && child.entries > self.range_keys && node.level == level {
                true => self.walk(level - 1, &child.id)?,
                false => self.entries = self.entries.saturating_add(child.entries),
            }
        }
        Ok(())
    }
}
