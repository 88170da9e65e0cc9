//! Feeding: what was planned and read, in order, into packs and a tree; checkpoints in between.

use std::collections::BTreeSet;
use std::sync::Arc;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use larder_format::cell::Source;
use larder_format::entry::{Attributes, Entry, EntryType, Extent};
use larder_format::ids::{ChunkId, ChunkType};
use larder_format::limits::INLINE_ATTRIBUTE_BYTES;
use larder_format::list::ContentBuilder;
use larder_format::node::{decode_leaf, encode_leaf};
use larder_format::tree::build::{NodeOut, TreeBuilder};

use crate::cancel::Cancel;
use crate::carry::Lookup;
use crate::chunker::ChunkBuffer;
use crate::error::{EngineError, Result};
use crate::packer::Packer;
use crate::progress::Progress;
use crate::protocol::{Rule, keeps};
use crate::repository::Repository;
use crate::scratch::ScratchMap;
use crate::source::item::Item;
use crate::source::stat::WalkIssue;
use crate::storage::bucket::is_cold;

use super::plan::{EntryJob, Job, LINK_BYTES, Work, has_same_metadata, link_key};
use super::read::{LOOK_EVERY, Piece, ReadContext, ReadEntry, Stopped, read_entry};
use super::sources::Prepared;
use super::{SourceIssue, Writer};

/// Takes jobs in order, puts their chunks into the packer and their entries into the tree.
pub(super) struct Feeder<'a> {
    source: &'a Prepared,
    /// The path that was shown last.
    shown: Vec<u8>,
    context: &'a ReadContext<'a>,
    builder: TreeBuilder,
    /// Content of files with several names, as a leaf of one entry, by file system and inode.
    links: ScratchMap,
    lookup: Lookup,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
}

impl<'a> Feeder<'a> {
    /// Starts with an empty tree.
    pub(super) fn new(
        repository: &Arc<Repository>,
        source: &'a Prepared,
        context: &'a ReadContext<'a>,
        progress: &'a dyn Progress,
        cancel: &'a Cancel,
    ) -> Result<Self> {
        Ok(Self {
            source,
            shown: Vec::new(),
            context,
            builder: TreeBuilder::new(repository.keyring().boundary_key()),
            links: ScratchMap::new(repository.cache_dir(), LINK_BYTES),
            lookup: Lookup::new(repository)?,
            progress,
            cancel,
        })
    }

    /// Gives the whole tree.
    pub(super) fn finish(self, writer: &mut Writer<'_>) -> Result<Source> {
        finish(self.builder, self.source, &mut writer.packer)
    }

    /// Takes all that was planned.
    pub(super) fn feed(
        &mut self,
        writer: &mut Writer<'_>,
        planned: &mut dyn Iterator<Item = Vec<Result<Job>>>,
    ) -> Result<()> {
        for batch in planned {
            let mut jobs = batch.into_iter();
            let mut session = writer.opened.id;
            let mut lost = self.lost_reuses(writer, jobs.as_slice())?;
            while let Some(job) = jobs.next() {
                self.stop_if_asked(writer)?;
                match job? {
                    Job::Issue(issue) => self.report(writer, &issue),
                    Job::Entry(job) => {
                        let is_lost = lost.contains(&job.ticket);
                        self.take(writer, *job, is_lost)?;
                    }
                }
                if writer.is_checkpoint_due() {
                    self.checkpoint(writer)?;
                }
                // What was planned under the session before is looked up again.
                if writer.opened.id != session {
                    session = writer.opened.id;
                    lost = self.lost_reuses(writer, jobs.as_slice())?;
                }
            }
        }
        Ok(())
    }

    /// Keeps what there is and ends the run, if somebody asked for that.
    fn stop_if_asked(&self, writer: &mut Writer<'_>) -> Result<()> {
        if !self.cancel.is_requested() {
            return Ok(());
        }
        let trees = self.trees_so_far(writer)?;
        writer.commit_partial(&trees)?;
        Err(EngineError::Interrupted)
    }

    /// Commits the tree as far as it goes and goes on under a successor.
    fn checkpoint(&self, writer: &mut Writer<'_>) -> Result<()> {
        let trees = self.trees_so_far(writer)?;
        writer.checkpoint(&trees)
    }

    /// Gives the tree as far as it goes, behind those of the sources before.
    fn trees_so_far(&self, writer: &mut Writer<'_>) -> Result<Vec<Source>> {
        let tree = finish(self.builder.clone(), self.source, &mut writer.packer)?;
        let mut trees = writer.trees.clone();
        trees.push(tree);
        Ok(trees)
    }

    /// Finds, by their tickets, the entries that were to be taken from an earlier snapshot, and
    /// need a chunk that is not usable. What the trusted base has needs no look-up.
    fn lost_reuses(&mut self, writer: &Writer<'_>, jobs: &[Result<Job>]) -> Result<BTreeSet<u64>> {
        if writer.options.dry_run || !keeps(Rule::LookUpAgain) {
            return Ok(BTreeSet::new());
        }
        let trusted = writer.opened.trusted(writer.repository);
        let (mut tickets, mut wanted) = (Vec::new(), Vec::new());
        for job in jobs {
            let Ok(Job::Entry(job)) = job else { continue };
            let (from, content, attributes) = match &job.work {
                Work::Reuse {
                    content,
                    attributes,
                    origin,
                    ..
                } => (origin, content, attributes),
                Work::Read {
                    previous: Some(previous),
                    kept_from: Some(origin),
                    ..
                } => (origin, &previous.content, &Attributes::None),
                _ => continue,
            };
            if trusted != Some(*from) {
                tickets.push(job.ticket);
                wanted.push((content, attributes));
            }
        }
        if wanted.is_empty() {
            return Ok(BTreeSet::new());
        }
        let usable = self.lookup.are_usable(&writer.packer, &wanted)?;
        let lost = tickets
            .into_iter()
            .zip(usable)
            .filter(|(_, is_usable)| !is_usable);
        Ok(lost.map(|(ticket, _)| ticket).collect())
    }

    /// Takes one job; one that is lost is read whole, whatever was planned.
    fn take(&mut self, writer: &mut Writer<'_>, job: EntryJob, is_lost: bool) -> Result<()> {
        let EntryJob { ticket, item, work } = job;
        self.context.budget.set_head(ticket);
        self.show(&item.entry().key);
        let mut content = Incoming::default();
        let mut is_changed = false;
        let previous = match work {
            Work::Reuse {
                content: kept,
                attributes,
                same,
                ..
            } => {
                let mut entry = item.entry().clone();
                entry.content = kept;
                entry.attributes = attributes;
                if !is_lost {
                    let class = if same {
                        Class::Unchanged
                    } else {
                        Class::Changed
                    };
                    return self.push(writer, entry, class);
                }
                is_changed = !same;
                content.read_here(self.context, &item, ticket, &mut writer.packer)?;
                Some(entry)
            }
            Work::Read {
                pieces, previous, ..
            } if is_lost => {
                // A reader that nobody listens to would end.
                pieces.iter().for_each(drop);
                content.read_here(self.context, &item, ticket, &mut writer.packer)?;
                previous
            }
            Work::Read {
                pieces,
                previous,
                kept_from,
            } => {
                let may_pause = kept_from.is_none();
                if kept_from.is_some() && matches!(item, Item::Object(_)) {
                    writer.tags_asked += 1;
                }
                self.take_pieces(writer, &item, &pieces, &mut content, may_pause)?;
                if content.is_void {
                    content = Incoming::default();
                    self.read_again(writer, &item, ticket, &mut content)?;
                }
                previous
            }
            Work::Linked { previous } => {
                if let Some(first) = self.first_name_of(item.entry())? {
                    let mut entry = item.entry().clone();
                    entry.content = first.content;
                    entry.attributes = first.attributes;
                    entry.flags = first.flags;
                    let class = Class::of(previous.as_ref(), &entry);
                    return self.push(writer, entry, class);
                }
                content.read_here(self.context, &item, ticket, &mut writer.packer)?;
                previous
            }
        };
        let Some(read) = content.done else {
            self.stop_if_asked(writer)?;
            return Err(EngineError::Internal(
                "a reader ended without a result".to_owned(),
            ));
        };
        let Some(entry) = self.finish_read(writer, *read, content.builder)? else {
            return Ok(());
        };
        let class = match Class::of(previous.as_ref(), &entry) {
            Class::Unchanged if is_changed => Class::Changed,
            class => class,
        };
        self.push(writer, entry, class)
    }

    /// Takes what a reader has of one entry until it has all. A file may take hours to read, and
    /// a pipe for ever, so checkpoints and interruptions come in between.
    fn take_pieces(
        &mut self,
        writer: &mut Writer<'_>,
        item: &Item,
        pieces: &Receiver<Piece>,
        content: &mut Incoming,
        may_pause: bool,
    ) -> Result<()> {
        while content.done.is_none() {
            match pieces.recv_timeout(LOOK_EVERY) {
                Ok(piece) => {
                    writer.bytes_since += piece.bytes();
                    content.take(piece, &mut writer.packer)?;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if content.done.is_none() {
                self.stop_if_asked(writer)?;
                if may_pause && writer.is_checkpoint_due() {
                    self.checkpoint_within(writer, item, content)?;
                }
            }
        }
        Ok(())
    }

    /// Makes a checkpoint that has as much of a file as was read.
    ///
    /// So that no prune takes that away. It hangs on the session's base then, and is looked up again only
    /// if that is not trusted.
    fn checkpoint_within(
        &mut self,
        writer: &mut Writer<'_>,
        item: &Item,
        content: &mut Incoming,
    ) -> Result<()> {
        let half = half_read(item.entry().clone(), &content.builder, &mut writer.packer)?;
        let so_far = half.content.clone();
        let mut builder = self.builder.clone();
        builder.push(half, &mut sink(&mut writer.packer))?;
        let mut trees = writer.trees.clone();
        trees.push(finish(builder, self.source, &mut writer.packer)?);
        writer.checkpoint(&trees)?;
        let wanted = [(&so_far, &Attributes::None)];
        content.is_void |= writer.opened.trusted(writer.repository).is_none()
            && self.lookup.are_usable(&writer.packer, &wanted)? != [true];
        Ok(())
    }

    /// Reads a file once more from its start.
    fn read_again(
        &self,
        writer: &mut Writer<'_>,
        item: &Item,
        ticket: u64,
        content: &mut Incoming,
    ) -> Result<()> {
        if item.entry().flags.read_as_special {
            return Err(EngineError::Request(format!(
                "a prune running elsewhere took away what had been read of {}, which cannot be read twice; run the backup again",
                item.path().display()
            )));
        }
        content.read_here(self.context, item, ticket, &mut writer.packer)
    }

    /// Gives the entry of the first name of the same file, if it was read and is still the same.
    fn first_name_of(&self, entry: &Entry) -> Result<Option<Entry>> {
        let Some(leaf) = self.links.get(&link_key(entry))? else {
            return Ok(None);
        };
        let first = decode_leaf(&leaf)?.into_iter().next();
        Ok(first.filter(|first| first.size == entry.size && first.mtime == entry.mtime))
    }

    /// Makes the entry of what was read, and reports what could not be; none if it is gone.
    fn finish_read(
        &mut self,
        writer: &mut Writer<'_>,
        read: ReadEntry,
        content: ContentBuilder,
    ) -> Result<Option<Entry>> {
        writer.statistics.bytes_read += read.bytes_read;
        if read.vanished {
            return Ok(None);
        }
        for issue in &read.issues {
            self.report(writer, issue);
        }
        let mut entry = read.entry;
        if entry.flags.changed_while_read {
            writer.statistics.changed_while_read += 1;
            let path = String::from_utf8_lossy(&self.shown);
            self.progress.warning(&format!(
                "{path} changed while it was read, twice; the snapshot marks it"
            ));
        }
        let is_whole_file = entry.kind.has_content() && !entry.flags.unreadable;
        if is_whole_file && !read.has_content {
            entry.content = content.finish(&mut sink(&mut writer.packer))?;
        }
        entry.attributes = keep_attributes(read.attributes, &mut writer.packer)?;
        if is_whole_file && entry.is_hard_linked() {
            let leaf = encode_leaf(std::slice::from_ref(&entry))?;
            self.links.insert(&link_key(&entry), &leaf)?;
        }
        Ok(Some(entry))
    }

    fn show(&mut self, key: &[u8]) {
        self.shown.clear();
        self.shown.extend_from_slice(&self.source.name);
        if !key.is_empty() && !self.shown.ends_with(b"/") {
            self.shown.push(b'/');
        }
        self.shown.extend_from_slice(key);
        self.progress.current(&self.shown);
    }

    /// Counts the entry and adds it to the tree.
    fn push(&mut self, writer: &mut Writer<'_>, entry: Entry, class: Class) -> Result<()> {
        count(writer, &entry, class);
        self.progress.advance(1, entry.size);
        self.builder.push(entry, &mut sink(&mut writer.packer))
    }

    fn report(&self, writer: &mut Writer<'_>, issue: &WalkIssue) {
        let issue = SourceIssue {
            path: issue.path.to_string_lossy().into_owned(),
            operation: issue.operation.to_owned(),
            error: issue.error.to_string(),
        };
        writer.report(issue, self.progress);
    }
}

/// The content of one entry as its pieces come in.
#[derive(Default)]
struct Incoming {
    builder: ContentBuilder,
    /// Some of it is lost: what comes is thrown away, and the file is read again.
    is_void: bool,
    done: Option<Box<ReadEntry>>,
}

impl Incoming {
    fn take(&mut self, piece: Piece, packer: &mut Packer) -> Result<()> {
        match piece {
            Piece::Chunk { .. } | Piece::Hole(_) if self.is_void => Ok(()),
            Piece::Chunk { id, bytes, held } => {
                packer.put(ChunkType::Data, id, &bytes, Some(held))?;
                let length = bytes.len() as u64;
                let extent = Extent::Data { id, length };
                self.builder.push(extent, &mut sink(packer))
            }
            Piece::Hole(length) => self
                .builder
                .push(Extent::Hole { length }, &mut sink(packer)),
            Piece::Restart => {
                self.builder = ContentBuilder::new();
                self.is_void = false;
                Ok(())
            }
            Piece::Failed(error) => Err(*error),
            Piece::Done(read) => {
                self.done = Some(read);
                Ok(())
            }
        }
    }

    /// Reads an entry on this thread: rare, and no reader needs to be free for it.
    fn read_here(
        &mut self,
        context: &ReadContext<'_>,
        item: &Item,
        ticket: u64,
        packer: &mut Packer,
    ) -> Result<()> {
        let mut failure = None;
        let mut emit = |piece| {
            self.take(piece, packer).map_err(|error| {
                failure = Some(error);
                Stopped
            })
        };
        let mut buffer = ChunkBuffer::new();
        let read = read_entry(context, &mut buffer, item, ticket, &mut emit);
        match (read, failure) {
            (_, Some(error)) => Err(error),
            (Err(Stopped), None) => Err(EngineError::Interrupted),
            (Ok(()), None) => Ok(()),
        }
    }
}

/// Makes the entry that a checkpoint has of what is still being read: nobody takes it for the whole.
pub(super) fn half_read(
    mut entry: Entry,
    content: &ContentBuilder,
    packer: &mut Packer,
) -> Result<Entry> {
    entry.flags.unreadable = true;
    entry.size = content.size();
    entry.content = content.clone().finish(&mut sink(packer))?;
    entry.attributes = Attributes::None;
    Ok(entry)
}

/// Keeps an attributes record inside the entry, or out of line if it is long.
fn keep_attributes(record: Vec<u8>, packer: &mut Packer) -> Result<Attributes> {
    if record.is_empty() {
        return Ok(Attributes::None);
    }
    if record.len() <= INLINE_ATTRIBUTE_BYTES {
        return Ok(Attributes::Inline(record));
    }
    let id = packer.chunk_id(ChunkType::Value, &record);
    packer.put(ChunkType::Value, id, &record, None)?;
    Ok(Attributes::OutOfLine(id))
}

/// Counts an entry that comes into a tree.
pub(super) fn count(writer: &mut Writer<'_>, entry: &Entry, class: Class) {
    let counted = &mut writer.statistics;
    match entry.kind {
        EntryType::File | EntryType::Object => counted.files += 1,
        EntryType::Directory => counted.directories += 1,
        _ => counted.others += 1,
    }
    writer.entries_since += 1;
    match class {
        Class::New => counted.new += 1,
        Class::Changed => counted.changed += 1,
        Class::Unchanged => counted.unchanged += 1,
    }
    if entry.flags.unreadable {
        match entry.kind == EntryType::Object && is_cold(&entry.class) {
            true => writer.cold += 1,
            false => counted.unreadable += 1,
        }
    }
}

/// Gives what keeps the nodes of trees and lists.
pub(super) fn sink(packer: &mut Packer) -> impl FnMut(NodeOut) -> Result<ChunkId> + '_ {
    |node| {
        let id = packer.chunk_id(node.chunk_type, &node.plain);
        packer.put(node.chunk_type, id, &node.plain, None)?;
        Ok(id)
    }
}

/// Gives the whole tree of a source.
pub(super) fn finish(
    builder: TreeBuilder,
    source: &Prepared,
    packer: &mut Packer,
) -> Result<Source> {
    let root = builder.finish(&mut sink(packer))?;
    Ok(Source {
        path: source.name.clone(),
        root: root.id,
        level: root.level,
        entries: root.entries,
        bytes: root.bytes,
    })
}

/// How an entry compares with the snapshot before.
#[derive(Clone, Copy)]
pub(super) enum Class {
    /// It did not have one.
    New,
    /// Something differs.
    Changed,
    /// Nothing does.
    Unchanged,
}

impl Class {
    fn of(previous: Option<&Entry>, now: &Entry) -> Self {
        match previous {
            None => Self::New,
            Some(previous)
                if previous.content == now.content
                    && previous.attributes == now.attributes
                    && has_same_metadata(previous, now) =>
            {
                Self::Unchanged
            }
            Some(_) => Self::Changed,
        }
    }
}
