//! Reading one entry of the source: its chunks in order, and its attributes.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_format::attributes::{self, ExtendedAttribute};
use larder_format::entry::{Content, Entry, EntryType};
use larder_format::ids::{ChunkId, ChunkType};
use larder_format::keys::Keyring;

use crate::budget::{Budget, Held};
use crate::cancel::Cancel;
use crate::chunker::{ChunkBuffer, Chunker};
use crate::error::EngineError;
use crate::source::attributes::{AttributeList, attributes};
use crate::source::bucket::read::RangesAtOnce;
use crate::source::item::Item;
use crate::source::read::{FileReader, Finish, Run};
use crate::source::stat::{WalkIssue, Walked};

use super::read_object::read_object;
use super::wide::Wide;

/// How often a file is read before it is kept as it was seen, marked as changed while read.
const READS_MAX: u32 = 2;
/// How often whoever waits looks whether it is time to stop, or for a checkpoint.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What reading an entry gives, piece by piece.
pub(super) enum Piece {
    /// The next chunk of the content.
    Chunk {
        id: ChunkId,
        bytes: Bytes,
        held: Held,
    },
    /// A hole of so many bytes.
    Hole(u64),
    /// The file changed: what came before counts for nothing.
    Restart,
    /// What was read is of no use, nor is anything else of the source.
    Failed(Box<EngineError>),
    /// The end: the entry as it is in the snapshot, but for its content.
    Done(Box<ReadEntry>),
}

impl Piece {
    /// Gives the bytes of content in it that were read.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Chunk { bytes, .. } => bytes.len() as u64,
            _ => 0,
        }
    }
}

/// An entry that was read.
pub(super) struct ReadEntry {
    /// Metadata as of the last read.
    pub entry: Entry,
    /// The entry has its content already: only its attributes were read.
    pub has_content: bool,
    /// The attributes record; empty if there are none.
    pub attributes: Vec<u8>,
    /// What could not be read.
    pub issues: Vec<WalkIssue>,
    /// The entry was gone when it was read, and is left out.
    pub vanished: bool,
    /// Bytes read from the source.
    pub bytes_read: u64,
}

/// What readers share.
pub(super) struct ReadContext<'a> {
    pub keyring: &'a Keyring,
    pub chunker: &'a Chunker,
    pub wide: &'a Wide<'a>,
    pub ranges: &'a RangesAtOnce,
    pub budget: &'a Arc<Budget>,
    pub cancel: &'a Cancel,
}

impl ReadContext<'_> {
    /// Tells whether nobody wants what is read any more.
    pub(super) fn is_over(&self) -> bool {
        self.cancel.is_requested() || self.budget.is_stopped()
    }
}

/// Reads a file, and looks from time to time whether that is still wanted.
struct Patient<'a, 'b> {
    reader: &'a mut FileReader,
    context: &'a ReadContext<'b>,
}

impl Read for Patient<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !self.reader.is_ready(Some(LOOK_EVERY))? {
            if self.context.is_over() {
                return Err(io::Error::other("nobody waits for it any more"));
            }
        }
        self.reader.read(buffer)
    }
}

/// Whoever wanted the pieces is gone.
pub(super) struct Stopped;

/// Reads one entry and hands its pieces to `emit`, the last one being [`Piece::Done`].
pub(super) fn read_entry(
    context: &ReadContext<'_>,
    buffer: &mut ChunkBuffer,
    item: &Item,
    ticket: u64,
    emit: &mut dyn FnMut(Piece) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    match item {
        Item::File(walked) => read_file(context, buffer, walked, ticket, emit),
        Item::Object(object) => read_object(context, buffer, object, ticket, emit),
    }
}

fn read_file(
    context: &ReadContext<'_>,
    buffer: &mut ChunkBuffer,
    walked: &Walked,
    ticket: u64,
    emit: &mut dyn FnMut(Piece) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    if walked.entry.kind != EntryType::File {
        let list = attributes(walked);
        return emit(done(walked.entry.clone(), list, 0));
    }
    let mut current = walked.clone();
    let mut bytes_read = 0;
    let mut reads = 1;
    loop {
        let mut attempt = Attempt {
            context,
            buffer,
            ticket,
            emit,
            bytes_read: 0,
            size: 0,
        };
        match attempt.read(&current) {
            Err(Failure::Stopped) => return Err(Stopped),
            Err(Failure::Issue(issue)) => return emit(failed(current.entry, issue, bytes_read)),
            Ok((Finish::Unchanged, list)) => {
                bytes_read += attempt.bytes_read;
                current.entry.size = attempt.size;
                return emit(done(current.entry, list, bytes_read));
            }
            Ok((Finish::Changed(now), list)) => {
                bytes_read += attempt.bytes_read;
                if now.entry.kind != EntryType::File {
                    emit(Piece::Restart)?;
                    let list = attributes(&now);
                    return emit(done(now.entry, list, bytes_read));
                }
                if reads == READS_MAX {
                    let mut entry = now.entry;
                    entry.size = attempt.size;
                    entry.flags.changed_while_read = true;
                    return emit(done(entry, list, bytes_read));
                }
                emit(Piece::Restart)?;
                current = *now;
                reads += 1;
            }
        }
    }
}

enum Failure {
    Stopped,
    Issue(WalkIssue),
}

impl From<Stopped> for Failure {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl From<WalkIssue> for Failure {
    fn from(issue: WalkIssue) -> Self {
        Self::Issue(issue)
    }
}

/// One try at reading a file from start to end.
struct Attempt<'a, 'b> {
    context: &'a ReadContext<'a>,
    buffer: &'a mut ChunkBuffer,
    ticket: u64,
    emit: &'a mut (dyn FnMut(Piece) -> Result<(), Stopped> + 'b),
    bytes_read: u64,
    /// Bytes of content seen, holes included.
    size: u64,
}

impl Attempt<'_, '_> {
    fn read(&mut self, walked: &Walked) -> Result<(Finish, AttributeList), Failure> {
        let mut reader = FileReader::open(walked)?;
        while let Some(run) = reader.next_run()? {
            match run {
                Run::Hole { length, .. } => {
                    self.size += length;
                    (self.emit)(Piece::Hole(length))?;
                }
                Run::Data { length, .. } => self.read_run(walked, &mut reader, length)?,
            }
        }
        let list = reader.attributes();
        Ok((reader.finish()?, list))
    }

    fn read_run(
        &mut self,
        walked: &Walked,
        reader: &mut FileReader,
        length: u64,
    ) -> Result<(), Failure> {
        if let Some(_turn) = self.context.wide.turn(length) {
            return self.read_wide_run(walked, reader);
        }
        *self.buffer = ChunkBuffer::new();
        let mut left = length;
        loop {
            let context = self.context;
            let mut input = Patient { reader, context };
            let chunk = match self.buffer.next(context.chunker, &mut input, left) {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Ok(()),
                Err(error) => return Err(unread(context, walked, error)),
            };
            let length = chunk.len();
            let held = hold(context, self.ticket, length)?;
            let id = context.keyring.chunk_id(ChunkType::Data, chunk);
            let bytes = Bytes::from(self.buffer.take_last(length));
            left = left.saturating_sub(length as u64);
            self.emit_chunk(id, bytes, held)?;
        }
    }

    /// Reads a run that the workers cut; this reader has the turn.
    fn read_wide_run(&mut self, walked: &Walked, reader: &mut FileReader) -> Result<(), Failure> {
        let context = self.context;
        let mut rest = Bytes::new();
        loop {
            let mut input = Patient { reader, context };
            let stretch = context.wide.next(&rest, &mut input);
            let (chunks, left) = stretch.map_err(|error| unread(context, walked, error))?;
            if chunks.is_empty() {
                return Ok(());
            }
            rest = left;
            for (id, bytes) in chunks {
                let held = hold(context, self.ticket, bytes.len())?;
                self.emit_chunk(id, bytes, held)?;
            }
        }
    }

    fn emit_chunk(&mut self, id: ChunkId, bytes: Bytes, held: Held) -> Result<(), Failure> {
        let count = bytes.len() as u64;
        self.bytes_read += count;
        self.size += count;
        (self.emit)(Piece::Chunk { id, bytes, held })?;
        Ok(())
    }
}

/// Waits until so many bytes more may be held.
pub(super) fn hold(context: &ReadContext<'_>, ticket: u64, bytes: usize) -> Result<Held, Stopped> {
    context.budget.hold(ticket, bytes).ok_or(Stopped)
}

fn unread(context: &ReadContext<'_>, walked: &Walked, error: io::Error) -> Failure {
    if context.is_over() {
        return Failure::Stopped;
    }
    Failure::Issue(WalkIssue {
        path: walked.path(),
        operation: "read",
        error,
    })
}

/// Reads the attributes of a file whose content is known to be the same.
pub(super) fn read_attributes(walked: &Walked, content: Content) -> Piece {
    let entry = Entry {
        content,
        ..walked.entry.clone()
    };
    let mut read = finished(entry, attributes(walked), 0);
    read.has_content = true;
    Piece::Done(Box::new(read))
}

fn done(entry: Entry, list: AttributeList, bytes_read: u64) -> Piece {
    Piece::Done(Box::new(finished(entry, list, bytes_read)))
}

fn finished(entry: Entry, list: AttributeList, bytes_read: u64) -> ReadEntry {
    let mut read = ReadEntry {
        entry,
        has_content: false,
        attributes: Vec::new(),
        issues: list.issues,
        vanished: false,
        bytes_read,
    };
    read.entry.flags.attributes_incomplete = !read.issues.is_empty();
    let pairs: Vec<_> = list
        .pairs
        .into_iter()
        .map(|(name, value)| ExtendedAttribute { name, value })
        .collect();
    if !pairs.is_empty() {
        match attributes::encode(&pairs) {
            Ok(record) => read.attributes = record,
            Err(_) => read.entry.flags.attributes_incomplete = true,
        }
    }
    read
}

fn failed(mut entry: Entry, issue: WalkIssue, bytes_read: u64) -> Piece {
    let vanished = issue.is_vanished();
    entry.flags.unreadable = true;
    entry.size = 0;
    Piece::Done(Box::new(ReadEntry {
        entry,
        has_content: false,
        attributes: Vec::new(),
        issues: vec![issue],
        vanished,
        bytes_read,
    }))
}
