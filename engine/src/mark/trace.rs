//! Finding the path that needs a chunk: slow, for messages and for what hardly ever happens.

use std::sync::Arc;

use larder_format::cell::{Cell, Source};
use larder_format::entry::{Attributes, Content, Entry, Extent};
use larder_format::ids::{ChunkId, ChunkType};
use larder_format::list::{ListInterior, decode_list_leaf};
use larder_format::node::{Interior, decode_leaf};

use crate::chunks::ChunkReader;
use crate::repository::Repository;

/// Gives the first path in a snapshot that needs a node or chunk that `is_it`; nodes that cannot
/// be read are passed over.
pub(super) fn path(
    repository: &Arc<Repository>,
    cell: &Cell,
    is_it: &dyn Fn(&ChunkId) -> bool,
) -> Option<String> {
    let mut search = Search {
        reader: ChunkReader::new(repository).ok()?,
        is_it,
    };
    cell.sources.iter().find_map(|source| {
        let key = search.tree(&source.root, source.level, b"")?;
        Some(path_of(source, &key))
    })
}

struct Search<'a> {
    reader: ChunkReader,
    is_it: &'a dyn Fn(&ChunkId) -> bool,
}

impl Search<'_> {
    /// Gives the key of the entry that needs it, or of the first entry below the node that is it.
    fn tree(&mut self, id: &ChunkId, level: u8, lower: &[u8]) -> Option<Vec<u8>> {
        if (self.is_it)(id) {
            return Some(lower.to_vec());
        }
        let page = self.reader.read(ChunkType::of_tree(level), id).ok()?;
        if level == 0 {
            let entries = decode_leaf(&page).ok()?;
            return entries
                .into_iter()
                .find_map(|entry| self.entry(&entry).then_some(entry.key));
        }
        let node = Interior::decode(&page).ok()?;
        // Else a hostile tree could have no end.
        let below = node.level.checked_sub(1).filter(|_| node.level == level)?;
        node.children.iter().enumerate().find_map(|(at, child)| {
            let lower = if at == 0 { lower } else { &child.separator_key };
            self.tree(&child.id, below, lower)
        })
    }

    fn entry(&mut self, entry: &Entry) -> bool {
        let is_content = match &entry.content {
            Content::None => false,
            Content::Whole(id) => (self.is_it)(id),
            Content::Extents(extents) => self.extents(extents),
            Content::List { root, level } => self.list(root, *level),
        };
        is_content || matches!(&entry.attributes, Attributes::OutOfLine(id) if (self.is_it)(id))
    }

    fn extents(&self, extents: &[Extent]) -> bool {
        extents.iter().any(|extent| match extent {
            Extent::Data { id, .. } => (self.is_it)(id),
            Extent::Hole { .. } => false,
        })
    }

    fn list(&mut self, id: &ChunkId, level: u8) -> bool {
        if (self.is_it)(id) {
            return true;
        }
        let Ok(page) = self.reader.read(ChunkType::of_list(level), id) else {
            return false;
        };
        if level == 0 {
            return decode_list_leaf(&page).is_ok_and(|extents| self.extents(&extents));
        }
        let Ok(node) = ListInterior::decode(&page) else {
            return false;
        };
        let is_right = node.level == level;
        let below = level.saturating_sub(1);
        is_right
            && node
                .children
                .iter()
                .any(|child| self.list(&child.id, below))
    }
}

fn path_of(source: &Source, key: &[u8]) -> String {
    let root = source.path.strip_suffix(b"/").unwrap_or(&source.path);
    let key = key.strip_suffix(b"/").unwrap_or(key);
    let path = if key.is_empty() {
        source.path.clone()
    } else {
        [root, b"/", key].concat()
    };
    String::from_utf8_lossy(&path).into_owned()
}
