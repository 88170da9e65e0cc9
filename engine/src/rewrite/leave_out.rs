//! Leaving entries out of a tree.

use larder_format::cell::{Source, Statistics};
use larder_format::entry::{Entry, EntryType};
use larder_format::ids::ChunkId;
use larder_format::tree::build::{NodeOut, Root, TreeBuilder};
use larder_format::tree::read::Cursor;

use super::copy::Copy;
use crate::cancel::Cancel;
use crate::carry::Carrier;
use crate::chunks::ChunkReader;
use crate::error::Result;
use crate::packer::Packer;
use crate::progress::Progress;
use crate::restore::select::{Choice, Verdict};

/// Entries whose chunks are looked up together.
pub(super) const BATCH_ENTRIES: usize = 512;

/// What was left out.
#[derive(Default)]
pub(super) struct LeftOut {
    pub entries: u64,
    pub bytes: u64,
}

/// Leaves entries out of a tree.
pub(super) struct LeaveOut<'a> {
    pub choice: &'a Choice,
    pub progress: &'a dyn Progress,
    pub cancel: &'a Cancel,
}

impl LeaveOut<'_> {
    /// Builds the tree without what is left out; none if nothing of the source stays.
    pub(super) fn run(
        &self,
        copy: &mut Copy<'_>,
        source: &Source,
        statistics: &mut Statistics,
        left_out: &mut LeftOut,
    ) -> Result<Option<Source>> {
        let repository = copy.repository;
        let root = Root {
            id: source.root,
            level: source.level,
            entries: source.entries,
            bytes: source.bytes,
        };
        let mut cursor = Cursor::new(ChunkReader::new(repository)?, &root);
        let mut carrier = Carrier::new(repository, self.cancel)?;
        let mut builder = TreeBuilder::new(repository.keyring().boundary_key());
        let mut batch: Vec<Entry> = Vec::new();
        let mut kept = 0_u64;
        loop {
            self.cancel.check()?;
            let entry = cursor.next_entry()?;
            let is_end = entry.is_none();
            if let Some(entry) = entry {
                self.progress.advance(1, entry.size);
                if self.choice.verdict(&entry.key) == Verdict::Excluded {
                    left_out.entries += 1;
                    left_out.bytes = left_out.bytes.saturating_add(entry.size);
                } else {
                    count(&entry, statistics);
                    batch.push(entry);
                }
            }
            if is_end || batch.len() >= BATCH_ENTRIES {
                carrier.entries(&mut copy.packer, batch.iter())?;
                for entry in batch.drain(..) {
                    kept += 1;
                    builder.push(entry, &mut sink(&mut copy.packer))?;
                }
            }
            if is_end {
                break;
            }
        }
        if kept == 0 {
            return Ok(None);
        }
        let root = builder.finish(&mut sink(&mut copy.packer))?;
        Ok(Some(Source {
            path: source.path.clone(),
            root: root.id,
            level: root.level,
            entries: root.entries,
            bytes: root.bytes,
        }))
    }
}

pub(super) fn count(entry: &Entry, statistics: &mut Statistics) {
    match entry.kind {
        EntryType::File | EntryType::Object => statistics.files += 1,
        EntryType::Directory => statistics.directories += 1,
        _ => statistics.others += 1,
    }
    statistics.unreadable += u64::from(entry.flags.unreadable);
    statistics.changed_while_read += u64::from(entry.flags.changed_while_read);
}

/// Gives what keeps the nodes of a tree.
pub(super) fn sink(packer: &mut Packer) -> impl FnMut(NodeOut) -> Result<ChunkId> + '_ {
    |node| {
        let id = packer.chunk_id(node.chunk_type, &node.plain);
        packer.put(node.chunk_type, id, &node.plain, None)?;
        Ok(id)
    }
}
