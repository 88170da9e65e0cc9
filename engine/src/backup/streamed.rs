//! What is known only once it is read: a stream, or the dump of a database. It is cut and put in on the
//! writing thread, since nothing can be compared beforehand, and whatever prints it is slower.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use larder_format::cell::Source;
use larder_format::entry::{Attributes, Entry, EntryType, Extent};
use larder_format::ids::ChunkType;
use larder_format::list::ContentBuilder;
use larder_format::node::{decode_leaf, encode_leaf};
use larder_format::tree::build::TreeBuilder;

use crate::budget::Budget;
use crate::cancel::Cancel;
use crate::carry::Lookup;
use crate::chunker::{ChunkBuffer, Chunker};
use crate::error::{EngineError, Result};
use crate::process::Running;
use crate::progress::Progress;
use crate::scratch::ScratchMap;
use crate::source::postgres::base::BaseBackup;
use crate::source::postgres::dump::Dump;
use crate::source::stream::{self, Opened};

use super::Writer;
use super::feed::{Class, count, finish, half_read, sink};
use super::plan::{Planner, has_same_metadata};
use super::run::{BUDGET_BYTES, expected, rules};
use super::sources::{Place, Prepared, READ_SOURCE};

/// Memory of the entries that were read, before they go to disk.
const ENTRIES_BYTES: usize = 8 << 20;

/// Backs a stream or a database up into a tree.
///
/// What other sources gave is kept by a checkpoint if this one fails.
pub(super) fn run_streamed(
    writer: &mut Writer<'_>,
    source: &Prepared,
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
        entries: ScratchMap::new(writer.repository.cache_dir(), ENTRIES_BYTES),
        content: ContentBuilder::new(),
        size: 0,
        progress,
        cancel,
    };
    match intake.run(writer) {
        Err(error) if !writer.starts_over && !writer.trees.is_empty() => {
            // If that fails as well, the first failure is the one to be told.
            let trees = writer.trees.clone();
            let _ = writer.commit_partial(&trees);
            Err(error)
        }
        result => result,
    }
}

/// What is being read, part by part.
enum Reader {
    /// One part, unless it was begun with.
    Stream(Opened, bool),
    Dump(Box<Dump>),
    /// None once it failed.
    Base(Option<Box<BaseBackup<Running>>>),
}

impl Reader {
    fn open(writer: &Writer<'_>, source: &Prepared, cancel: &Cancel) -> Result<Self> {
        match &source.place {
            Place::Stream(stream) => Ok(Self::Stream(Opened::open(stream, cancel)?, false)),
            Place::Database(server) => {
                let folder = writer.repository.cache_dir();
                if server.is_base {
                    let base = BaseBackup::open(server, folder, cancel)?;
                    return Ok(Self::Base(Some(Box::new(base))));
                }
                let dump = Dump::open(server, folder, cancel)?;
                Ok(Self::Dump(Box::new(dump)))
            }
            Place::Folder(..) | Place::Bucket(..) => {
                Err(EngineError::Internal("a walk was streamed".to_owned()))
            }
        }
    }

    /// Goes to the next part and gives its entry, without size and content.
    fn next_part(&mut self) -> Result<Option<Entry>> {
        match self {
            Self::Stream(_, true) => Ok(None),
            Self::Stream(_, is_begun) => {
                *is_begun = true;
                Ok(Some(stream::entry()))
            }
            Self::Dump(dump) => Ok(dump.next_part()?.map(|key| Entry {
                key,
                kind: EntryType::Object,
                mtime: stream::now(),
                ..Entry::default()
            })),
            Self::Base(base) => {
                let next = base.as_mut().map_or(Ok(None), |base| base.next_part());
                next.or_else(|error| {
                    let failed = base.take().map(|base| base.finish(Some(error)));
                    failed.transpose().map(|_| None)
                })
            }
        }
    }

    /// Makes sure that what was read was all of it; gives the last of what was said besides.
    fn finish(self) -> Result<String> {
        match self {
            Self::Stream(opened, _) => opened.finish(),
            // It gave no last part before its programs had ended well.
            Self::Dump(dump) => Ok(dump.said()),
            Self::Base(base) => base.map_or(Ok(String::new()), |base| base.finish(None)),
        }
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Stream(opened, _) => opened.read(buffer),
            Self::Dump(dump) => dump.read(buffer),
            Self::Base(base) => base.as_mut().map_or(Ok(0), |base| base.read(buffer)),
        }
    }
}

/// What takes one source in.
struct Intake<'a> {
    source: &'a Prepared,
    chunker: &'a Chunker,
    lookup: Lookup,
    /// Bytes that are read and not sealed yet.
    budget: Arc<Budget>,
    /// Entries that were read whole, by their keys: they come in any order, and a tree is sorted.
    entries: ScratchMap,
    /// The content of the part that is being read, and its size.
    content: ContentBuilder,
    size: u64,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
}

impl Intake<'_> {
    fn run(mut self, writer: &mut Writer<'_>) -> Result<Source> {
        let mut reader = Reader::open(writer, self.source, self.cancel)?;
        while let Some(mut entry) = reader.next_part()? {
            self.show(&entry.key);
            self.take(writer, &mut reader, &entry)?;
            entry.size = std::mem::take(&mut self.size);
            let content = std::mem::take(&mut self.content);
            entry.content = content.finish(&mut sink(&mut writer.packer))?;
            let leaf = encode_leaf(std::slice::from_ref(&entry))?;
            self.entries.insert(&entry.key, &leaf)?;
            self.progress.advance(1, 0);
        }
        let said = reader.finish()?;
        if !said.is_empty() {
            let name = String::from_utf8_lossy(&self.source.name);
            let who = match self.source.place {
                Place::Database(_) => "the programs",
                _ => "the command",
            };
            self.progress.warning(&format!(
                "{who} of {name} said: {}",
                said.replace('\n', " | ")
            ));
        }
        self.compare(writer)?;
        self.tree(writer)
    }

    /// Reads a part to its end; the entry is without its size and content.
    fn take(&mut self, writer: &mut Writer<'_>, reader: &mut Reader, entry: &Entry) -> Result<()> {
        let mut buffer = ChunkBuffer::new();
        loop {
            self.cancel.check()?;
            let length = match buffer.next(self.chunker, reader, u64::MAX) {
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
                self.checkpoint(writer, entry)?;
            }
        }
    }

    /// Makes a checkpoint that has as much of each part as was read, so that no prune takes that away.
    fn checkpoint(&mut self, writer: &mut Writer<'_>, entry: &Entry) -> Result<()> {
        let half = half_read(entry.clone(), &self.content, &mut writer.packer)?;
        // It gives way to the whole entry later on.
        let leaf = encode_leaf(std::slice::from_ref(&half))?;
        self.entries.insert(&half.key, &leaf)?;
        let mut trees = writer.trees.clone();
        trees.push(self.tree(writer)?);
        let so_far = half.content;
        writer.checkpoint(&trees)?;
        // What hangs on a base that is trusted needs no look-up, and what was carried is found by one.
        let wanted = [(&so_far, &Attributes::None)];
        if writer.opened.trusted(writer.repository).is_some()
            || self.lookup.are_usable(&writer.packer, &wanted)? == [true]
        {
            return Ok(());
        }
        Err(EngineError::Request(format!(
            "a prune running elsewhere took away what had been read of {}, which cannot be read twice; run the backup again",
            String::from_utf8_lossy(&self.source.name)
        )))
    }

    /// Makes the tree of the parts that were read.
    fn tree(&self, writer: &mut Writer<'_>) -> Result<Source> {
        let mut builder = TreeBuilder::new(writer.repository.keyring().boundary_key());
        for item in self.entries.iter_from(&[]) {
            let (_, leaf) = item?;
            for entry in decode_leaf(&leaf)? {
                builder.push(entry, &mut sink(&mut writer.packer))?;
            }
        }
        finish(builder, self.source, &mut writer.packer)
    }

    /// Compares with an earlier snapshot. A part that has the same bytes keeps its time, so that what is
    /// the same every night shows as unchanged.
    fn compare(&mut self, writer: &mut Writer<'_>) -> Result<()> {
        let rules = rules(writer.options);
        let (repository, previous) = (writer.repository, &writer.previous);
        let name = &self.source.name;
        let mut planner = Planner::new(repository, (previous, None), name, rules, self.progress);
        let mut compared = ScratchMap::new(repository.cache_dir(), ENTRIES_BYTES);
        for item in self.entries.iter_from(&[]) {
            let (key, leaf) = item?;
            for mut entry in decode_leaf(&leaf)? {
                let class = class(planner.earlier(&entry.key), &mut entry);
                count(writer, &entry, class);
                let leaf = encode_leaf(std::slice::from_ref(&entry))?;
                compared.insert(&key, &leaf)?;
            }
        }
        self.entries = compared;
        Ok(())
    }

    fn show(&self, key: &[u8]) {
        match key.is_empty() {
            true => self.progress.current(&self.source.name),
            false => {
                let path = [&*self.source.name, b"/", key].concat();
                self.progress.current(&path);
            }
        }
    }

    fn unread(&self, source: io::Error) -> EngineError {
        EngineError::File {
            operation: READ_SOURCE,
            path: String::from_utf8_lossy(&self.source.name)
                .into_owned()
                .into(),
            source,
        }
    }
}

fn class(earlier: Option<Entry>, entry: &mut Entry) -> Class {
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
