//! Interior nodes of a tree.

use alloc::vec::Vec;

use super::keys::{put_keys, read_keys};
use crate::error::{FormatError, Result};
use crate::ids::ChunkId;
use crate::limits::{HEIGHT, NODE_ITEMS, NODE_ITEMS_MIN, NODE_KEY_BYTES};
use crate::page::{PageReader, PageWriter};

/// What an interior node says of one of its children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// The separator's key: above all keys before the child, at or below the child's first.
    pub separator_key: Vec<u8>,
    /// The separator's ordinal; 0 unless its key is the last of the previous child.
    pub separator_ordinal: u64,
    /// The boundary rank of the child's last key.
    pub rank: u8,
    /// The child's id.
    pub id: ChunkId,
    /// Entries below the child, at least 1.
    pub entries: u64,
    /// Sum of their sizes, wrapping at 2⁶⁴.
    pub bytes: u64,
}

/// An interior node: its children are one level lower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interior {
    /// The level, 1 or more.
    pub level: u8,
    /// The children, by ascending separators; at least one.
    pub children: Vec<Child>,
}

impl Interior {
    /// Encodes the node as a page; refuses what [`Self::decode`] would refuse.
    pub fn encode(&self) -> Result<Vec<u8>> {
        self.check()?;
        let children = self.children.iter();
        let mut page = PageWriter::default();
        put_keys(
            &mut page,
            children
                .clone()
                .map(|child| (child.separator_key.as_slice(), child.separator_ordinal)),
            NODE_KEY_BYTES,
            NODE_ITEMS_MIN,
        )?;
        page.integers(5, 0, children.clone().map(|child| child.rank.into()));
        page.raw(6, children.clone().map(|child| child.id.0.as_slice()));
        page.integers(7, 0, children.clone().map(|child| child.entries));
        page.integers(8, 0, children.map(|child| child.bytes));
        Ok(page.finish(self.level, self.children.len()))
    }

    /// Decodes a page.
    pub fn decode(page: &[u8]) -> Result<Self> {
        let mut page = PageReader::new("interior node of a tree", page, NODE_ITEMS)?;
        let places = read_keys(&mut page, NODE_KEY_BYTES, NODE_ITEMS_MIN)?;
        let (mut ranks, mut entries, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        page.integers(5, 0, &mut ranks)?;
        let ids = page.ids(6, page.items)?;
        page.integers(7, 0, &mut entries)?;
        page.integers(8, 0, &mut bytes)?;
        let counts = ranks.iter().zip(&entries).zip(&bytes);
        let children = places.into_iter().zip(ids).zip(counts).map(
            |(((separator_key, separator_ordinal), id), ((rank, entries), bytes))| Child {
                separator_key,
                separator_ordinal,
                rank: u8::try_from(*rank).unwrap_or(u8::MAX),
                id: ChunkId(*id),
                entries: *entries,
                bytes: *bytes,
            },
        );
        let node = Self {
            level: page.level,
            children: children.collect(),
        };
        page.finish()?;
        node.check()?;
        Ok(node)
    }

    /// Gives the number of entries below the node, and the sum of their sizes.
    pub(crate) fn totals(&self) -> (u64, u64) {
        self.children
            .iter()
            .fold((0, 0), |(entries, bytes), child| {
                (
                    child.entries.saturating_add(entries),
                    child.bytes.wrapping_add(bytes),
                )
            })
    }

    fn check(&self) -> Result<()> {
        let malformed = |why| FormatError::Malformed {
            what: "interior node of a tree",
            at: 0,
            why,
        };
        if self.level == 0 || self.level > HEIGHT {
            return Err(malformed("its level is not 1 to 16"));
        }
        if self.children.is_empty() || self.children.len() > NODE_ITEMS {
            return Err(malformed("it does not have 1 to 512 children"));
        }
        if self.children.iter().any(|child| child.rank > HEIGHT) {
            return Err(malformed("a boundary rank is above 16"));
        }
        if self.children.iter().any(|child| child.entries == 0) {
            return Err(malformed("a child has no entries"));
        }
        if self.totals().0 == u64::MAX {
            return Err(malformed("its entries do not fit in 64 bits"));
        }
        Ok(())
    }
}
