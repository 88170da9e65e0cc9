//! Nodes of a list.

use alloc::vec::Vec;

use crate::entry::{Extent, check_extent};
use crate::error::{FormatError, Result};
use crate::ids::ChunkId;
use crate::limits::{HEIGHT, LIST_ITEMS};
use crate::node::extent_number;
use crate::page::{PageReader, PageWriter};

/// What an interior node of a list says of one of its children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListChild {
    /// The child's id.
    pub id: ChunkId,
    /// Bytes of the file below the child, at least 1.
    pub bytes: u64,
    /// Extents below the child, at least 1.
    pub extents: u64,
}

/// An interior node of a list: its children are one level lower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListInterior {
    /// The level, 1 or more.
    pub level: u8,
    /// The children, in the order of the file; at least one.
    pub children: Vec<ListChild>,
}

/// Encodes a leaf of a list as a page; refuses what [`decode_list_leaf`] would refuse.
pub fn encode_list_leaf(extents: &[Extent]) -> Result<Vec<u8>> {
    check_extents(extents)?;
    let mut page = PageWriter::default();
    page.required(1, extents.iter().map(extent_number));
    page.raw(
        2,
        extents.iter().filter_map(|extent| match extent {
            Extent::Data { id, .. } => Some(id.0.as_slice()),
            Extent::Hole { .. } => None,
        }),
    );
    Ok(page.finish(0, extents.len()))
}

/// Decodes a leaf of a list.
pub fn decode_list_leaf(page: &[u8]) -> Result<Vec<Extent>> {
    let mut page = PageReader::new("leaf of a list", page, LIST_ITEMS)?;
    if page.level != 0 {
        return Err(page.malformed("its level is not 0"));
    }
    let mut numbers = Vec::new();
    page.required(1, page.items, &mut numbers)?;
    let data = numbers.iter().filter(|number| *number & 1 == 0).count();
    let mut ids = page.ids(2, data)?.iter();
    let extents = numbers.iter().map(|number| match number & 1 {
        0 => Extent::Data {
            id: ids.next().map(|id| ChunkId(*id)).unwrap_or_default(),
            length: number >> 1,
        },
        _ => Extent::Hole {
            length: number >> 1,
        },
    });
    let extents: Vec<Extent> = extents.collect();
    page.finish()?;
    check_extents(&extents)?;
    Ok(extents)
}

impl ListInterior {
    /// Encodes the node as a page; refuses what [`Self::decode`] would refuse.
    pub fn encode(&self) -> Result<Vec<u8>> {
        self.check()?;
        let children = self.children.iter();
        let mut page = PageWriter::default();
        page.raw(1, children.clone().map(|child| child.id.0.as_slice()));
        page.required(2, children.clone().map(|child| child.bytes));
        page.required(3, children.map(|child| child.extents));
        Ok(page.finish(self.level, self.children.len()))
    }

    /// Decodes a page.
    pub fn decode(page: &[u8]) -> Result<Self> {
        let mut page = PageReader::new("interior node of a list", page, LIST_ITEMS)?;
        let (mut bytes, mut extents) = (Vec::new(), Vec::new());
        let ids = page.ids(1, page.items)?;
        page.required(2, page.items, &mut bytes)?;
        page.required(3, page.items, &mut extents)?;
        let counts = bytes.into_iter().zip(extents);
        let children = ids
            .iter()
            .zip(counts)
            .map(|(id, (bytes, extents))| ListChild {
                id: ChunkId(*id),
                bytes,
                extents,
            });
        let node = Self {
            level: page.level,
            children: children.collect(),
        };
        page.finish()?;
        node.check()?;
        Ok(node)
    }

    /// Gives the bytes and the extents below the node.
    pub(super) fn totals(&self) -> Option<(u64, u64)> {
        let mut children = self.children.iter();
        children.try_fold((0_u64, 0_u64), |(bytes, extents), child| {
            Some((
                bytes.checked_add(child.bytes)?,
                extents.checked_add(child.extents)?,
            ))
        })
    }

    fn check(&self) -> Result<()> {
        let malformed = |why| FormatError::Malformed {
            what: "interior node of a list",
            at: 0,
            why,
        };
        if self.level == 0 || self.level > HEIGHT {
            return Err(malformed("its level is not 1 to 16"));
        }
        if self.children.is_empty() || self.children.len() > LIST_ITEMS {
            return Err(malformed("it does not have 1 to 2048 children"));
        }
        if self
            .children
            .iter()
            .any(|child| child.bytes == 0 || child.extents == 0)
        {
            return Err(malformed("a child holds nothing"));
        }
        if self.totals().is_none() {
            return Err(malformed("its counts do not fit in 64 bits"));
        }
        Ok(())
    }
}

/// Gives the bytes that extents add up to.
pub(super) fn total_bytes(extents: &[Extent]) -> Option<u64> {
    let mut extents = extents.iter();
    extents.try_fold(0_u64, |sum, extent| sum.checked_add(extent.length()))
}

fn check_extents(extents: &[Extent]) -> Result<()> {
    let malformed = |why| FormatError::Malformed {
        what: "leaf of a list",
        at: 0,
        why,
    };
    if extents.is_empty() || extents.len() > LIST_ITEMS {
        return Err(malformed("it does not have 1 to 2048 extents"));
    }
    let mut after_hole = false;
    for extent in extents {
        check_extent(extent, after_hole)?;
        after_hole = matches!(extent, Extent::Hole { .. });
    }
    match total_bytes(extents) {
        Some(_) => Ok(()),
        None => Err(malformed("its bytes do not fit in 64 bits")),
    }
}
