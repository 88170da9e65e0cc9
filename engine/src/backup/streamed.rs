//! A stream as a source: read, cut and put in on the writing thread, since nothing can be compared
//! beforehand, and whatever prints it is slower.

use std::sync::Arc;

use bytes::Bytes;
use larder_format::cell::Source;
use larder_format::entry::{Attributes, Entry, Extent};
use larder_format::ids::ChunkType;
use larder_format::list::ContentBuilder;
use larder_format::tree::build::TreeBuilder;

use crate::budget::Budget;
use crate::cancel::Cancel;
use crate::carry::Lookup;
use crate::chunker::{ChunkBuffer, Chunker};
use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::source::stream::{self, Opened, Stream};

use super::Writer;
use super::feed::{Class, count, finish, sink};
use super::plan::{Planner, has_same_metadata};
use super::run::{BUDGET_BYTES, expected, rules};
use super::sources::{Prepared, READ_SOURCE};

/// Backs a stream up into a tree of one entry.
///
/// What other sources gave is kept by a checkpoint if this one fails.
pub(super) fn run_stream(
    writer: &mut Writer<'_>,
    source: &Prepared,
    stream: &Stream,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Source> {
    let (items, bytes) = expected(writer, source);
    progress.phase("backing up", items, bytes);
    progress.current(&source.name);
    let chunker = writer.repository.chunker()?;
    let intake = Intake {
        source,
        chunker: &chunker,
        lookup: Lookup::new(writer.repository)?,
        budget: Budget::new(BUDGET_BYTES),
        content: ContentBuilder::new(),
        size: 0,
        progress,
        cancel,
    };
    match intake.run(writer, stream) {
        Err(error) if !writer.starts_over && !writer.trees.is_empty() => {
            // If that fails as well, the first failure is the one to be told.
            let trees = writer.trees.clone();
            let _ = writer.commit_partial(&trees);
            Err(error)
        }
        result => result,
    }
}

/// What takes one stream in.
struct Intake<'a> {
    source: &'a Prepared,
    chunker: &'a Chunker,
    lookup: Lookup,
    /// Bytes that are read and not sealed yet.
    budget: Arc<Budget>,
    content: ContentBuilder,
    size: u64,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
}

impl Intake<'_> {
    fn run(mut self, writer: &mut Writer<'_>, stream: &Stream) -> Result<Source> {
        let mut opened = Opened::open(stream, self.cancel)?;
        let mut entry = stream::entry();
        self.take(writer, &mut opened)?;
        let said = opened.finish()?;
        if !said.is_empty() {
            let name = String::from_utf8_lossy(&self.source.name);
            self.progress.warning(&format!(
                "the command of {name} said: {}",
                said.replace('\n', " | ")
            ));
        }
        entry.size = self.size;
        entry.content = self.content.finish(&mut sink(&mut writer.packer))?;
        let class = compare(writer, self.source, &mut entry, self.progress);
        count(writer, &entry, class);
        self.progress.advance(1, 0);
        let mut builder = TreeBuilder::new(writer.repository.keyring().boundary_key());
        builder.push(entry, &mut sink(&mut writer.packer))?;
        finish(builder, self.source, &mut writer.packer)
    }

    /// Reads to the end.
    fn take(&mut self, writer: &mut Writer<'_>, opened: &mut Opened) -> Result<()> {
        let mut buffer = ChunkBuffer::new();
        loop {
            self.cancel.check()?;
            let length = match buffer.next(self.chunker, opened, u64::MAX) {
                Ok(Some(chunk)) => chunk.len(),
                Ok(None) => return Ok(()),
                Err(error) => {
                    self.cancel.check()?;
                    return Err(self.unread(error));
                }
            };
            let bytes = Bytes::from(buffer.take_last(length));
            let held = self.budget.hold(0, length);
            let id = writer.packer.chunk_id(ChunkType::Data, &bytes);
            writer.packer.put(ChunkType::Data, id, &bytes, held)?;
            let length = length as u64;
            let extent = Extent::Data { id, length };
            self.content.push(extent, &mut sink(&mut writer.packer))?;
            self.size += length;
            writer.bytes_since += length;
            writer.statistics.bytes_read += length;
            self.progress.advance(0, length);
            if writer.is_checkpoint_due() {
                self.checkpoint(writer)?;
            }
        }
    }

    /// Makes a checkpoint of the sources before this one.
    ///
    /// Nothing that is committed needs what was read of the stream, so a prune may have found it useless
    /// meanwhile.
    fn checkpoint(&mut self, writer: &mut Writer<'_>) -> Result<()> {
        let so_far = self.content.clone();
        let so_far = so_far.finish(&mut sink(&mut writer.packer))?;
        let trees = writer.trees.clone();
        writer.checkpoint(&trees)?;
        let wanted = [(&so_far, &Attributes::None)];
        if self.lookup.are_usable(&writer.packer, &wanted)? == [true] {
            return Ok(());
        }
        Err(EngineError::Request(format!(
            "a prune running elsewhere took away what had been read of {}, which cannot be read twice; run the backup again",
            String::from_utf8_lossy(&self.source.name)
        )))
    }

    fn unread(&self, source: std::io::Error) -> EngineError {
        EngineError::File {
            operation: READ_SOURCE,
            path: String::from_utf8_lossy(&self.source.name)
                .into_owned()
                .into(),
            source,
        }
    }
}

/// Compares with the entry of an earlier snapshot. One that has the same bytes keeps its time, so that
/// what is the same every night shows as unchanged.
fn compare(
    writer: &Writer<'_>,
    source: &Prepared,
    entry: &mut Entry,
    progress: &dyn Progress,
) -> Class {
    let rules = rules(writer.options);
    let (repository, previous) = (writer.repository, &writer.previous);
    let mut planner = Planner::new(repository, (previous, None), &source.name, rules, progress);
    let earlier = planner.earlier(&entry.key);
    let Some(earlier) = earlier else {
        return Class::New;
    };
    if earlier.content == entry.content && earlier.size == entry.size {
        entry.mtime = earlier.mtime;
        if has_same_metadata(&earlier, entry) && earlier.flags == entry.flags {
            return Class::Unchanged;
        }
    }
    Class::Changed
}
