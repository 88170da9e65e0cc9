//! Walking all nodes of trees and lists, for those who check and collect.

use alloc::vec;

use super::walk::NodeSource;
use crate::entry::Extent;
use crate::error::FormatError;
use crate::ids::ChunkId;
use crate::ids::ChunkType;
use crate::list::{ListInterior, decode_list_leaf};
use crate::node::{Interior, Reference, references};

/// Something that a walk has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visit {
    /// A node of a tree or of a list, not yet read.
    Node {
        /// The node's id.
        id: ChunkId,
        /// Tells tree from list, and leaf from interior node.
        chunk_type: ChunkType,
        /// The node's level.
        level: u8,
    },
    /// What an entry or a list needs besides nodes. Of a list only the root stands here: its
    /// nodes and chunks follow.
    Reference(Reference),
}

/// Walks everything below a tree's root, which is visited first.
///
/// Of a [`Visit::Node`] the callback says whether to read it and go below; a caller that
/// remembers what it saw reads each shared node once. Its answer to a reference means nothing,
/// except for a list: false leaves the list out.
pub fn visit<S: NodeSource>(
    source: &mut S,
    root: ChunkId,
    level: u8,
    callback: &mut impl FnMut(Visit) -> Result<bool, S::Error>,
) -> Result<(), S::Error> {
    // At most one node's children a level of the tree and of one leaf's lists.
    let mut open = vec![(root, ChunkType::of_tree(level), level)];
    while let Some((id, chunk_type, level)) = open.pop() {
        let found = Visit::Node {
            id,
            chunk_type,
            level,
        };
        if !callback(found)? {
            continue;
        }
        let page = source.node(&id, chunk_type)?;
        let below = level.saturating_sub(1);
        match chunk_type {
            ChunkType::TreeInterior => {
                let node = Interior::decode(&page)?;
                check_level(node.level, level)?;
                let children = node.children.iter().rev();
                open.extend(children.map(|child| (child.id, ChunkType::of_tree(below), below)));
            }
            ChunkType::ListInterior => {
                let node = ListInterior::decode(&page)?;
                check_level(node.level, level)?;
                let children = node.children.iter().rev();
                open.extend(children.map(|child| (child.id, ChunkType::of_list(below), below)));
            }
            ChunkType::TreeLeaf => {
                for reference in references(&page)? {
                    let descend = callback(Visit::Reference(reference))?;
                    if let (Reference::List { root, level, .. }, true) = (reference, descend) {
                        open.push((root, ChunkType::of_list(level), level));
                    }
                }
            }
            _ => {
                for extent in decode_list_leaf(&page)? {
                    if let Extent::Data { id, length } = extent {
                        callback(Visit::Reference(Reference::Data { id, length }))?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn check_level(found: u8, expected: u8) -> Result<(), FormatError> {
    if found == expected {
        Ok(())
    } else {
        Err(FormatError::Malformed {
            what: "tree",
            at: 0,
            why: "a node is not one level below its parent",
        })
    }
}
