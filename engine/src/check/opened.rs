//! What packs were found to hold when they were opened: whole ids, of which the index knows half.

use std::path::Path;

use larder_format::ids::{ObjectId, PackPrefix};

use crate::error::Result;
use crate::ledger::Findings;
use crate::mark::Groups;
use crate::scratch::runs::{Sorted, Sorter};

/// Bytes of a chunk's id.
pub(super) const HELD: usize = 32;
/// Memory of what was opened, before it goes to disk.
const HELD_BYTES: usize = 16 << 20;

/// Gives what takes the chunks of files that packs hold.
pub(super) fn sorter(scratch: &Path) -> Sorter<HELD> {
    Sorter::new(scratch, HELD_BYTES)
}

/// The packs that were opened, and the chunks of files in them.
pub(super) struct Opened {
    /// Ascending.
    packs: Vec<PackPrefix>,
    chunks: Sorted<HELD>,
}

impl Opened {
    pub(super) fn new(found: &Findings, chunks: Sorter<HELD>) -> Result<Self> {
        let packs = found.sound.iter().chain(&found.damaged);
        let mut packs: Vec<PackPrefix> = packs.copied().collect();
        packs.sort_unstable();
        Ok(Self {
            packs,
            chunks: chunks.finish()?,
        })
    }

    /// Tells whether all that a pack holds is known.
    pub(super) fn has(&self, pack: &ObjectId) -> bool {
        self.packs.binary_search(&pack.prefix()).is_ok()
    }

    /// Gives the chunks in order, prefix by prefix.
    pub(super) fn chunks(&self) -> Result<Groups<'_, HELD>> {
        Groups::new(self.chunks.iter()?)
    }
}
