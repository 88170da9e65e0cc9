//! Reading one object of a bucket: its chunks in order, and its properties.

use std::io;

use bytes::Bytes;
use larder_format::attributes::decode_properties;
use larder_format::entry::Entry;
use larder_format::ids::{ChunkId, ChunkType};

use crate::budget::Held;
use crate::chunker::ChunkBuffer;
use crate::error::EngineError;
use crate::source::bucket::read::{ObjectReader, Unread};
use crate::source::bucket::{Object, record};
use crate::source::stat::WalkIssue;
use crate::storage::bucket::{Properties, is_cold};
use crate::storage::error::{ErrorKind, Reason, StorageError};

use super::plan::Kept;
use super::read::{Piece, ReadContext, ReadEntry, Stopped, hold};

/// How often an object is read that changes meanwhile.
const READS_MAX: u32 = 5;

/// Reads one object and hands its pieces to `emit`, the last one being [`Piece::Done`].
pub(super) fn read_object(
    context: &ReadContext<'_>,
    buffer: &mut ChunkBuffer,
    object: &Object,
    ticket: u64,
    emit: &mut dyn FnMut(Piece) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    if is_cold(&object.entry.class) && !object.bucket.reads_cold() {
        return emit(unread(object.entry.clone(), 0, Vec::new(), false));
    }
    let mut bytes_read = 0;
    for _ in 0..READS_MAX {
        let failure = match ObjectReader::open(object, context.ranges) {
            Ok(mut reader) => {
                let mut attempt = Attempt {
                    context,
                    buffer: &mut *buffer,
                    ticket,
                    emit: &mut *emit,
                    bytes_read: &mut bytes_read,
                };
                match attempt.read(&mut reader)? {
                    true => return emit(done(&reader, bytes_read)),
                    false => reader.into_failure().unwrap_or(Unread::Changed),
                }
            }
            Err(failure) => failure,
        };
        match failure {
            Unread::Changed => emit(Piece::Restart)?,
            Unread::Vanished => {
                return emit(unread(object.entry.clone(), bytes_read, Vec::new(), true));
            }
            Unread::Cold => {
                // Its class did not say so: it is in the archive of a class that has one.
                let mut entry = object.entry.clone();
                entry.class = b"GLACIER".to_vec();
                return emit(unread(entry, bytes_read, Vec::new(), false));
            }
            Unread::Failed(error) if is_of_one_object(&error) => {
                let error = io::Error::other(error);
                return emit(failed(object, error, bytes_read));
            }
            Unread::Failed(error) => {
                return emit(Piece::Failed(Box::new(EngineError::Storage(error))));
            }
        }
    }
    let why = format!("it was changed while it was read, {READS_MAX} times");
    emit(failed(object, io::Error::other(why), bytes_read))
}

/// Asks for the tags of an object that is known to be the same but for them.
pub(super) fn read_tags(object: &Object, kept: Kept) -> Piece {
    let mut entry = object.entry.clone();
    entry.content = kept.content;
    let mut issues = Vec::new();
    let attributes = match object.bucket.tags(&object.entry.key) {
        Ok(Some(tags)) => with_tags(&kept.properties, tags),
        Ok(None) => return unread(object.entry.clone(), 0, Vec::new(), true),
        Err(error) if is_of_one_object(&error) => {
            issues.push(WalkIssue {
                path: object.path(),
                operation: "read the tags of",
                error: io::Error::other(error),
            });
            Some(kept.properties)
        }
        Err(error) => return Piece::Failed(Box::new(EngineError::Storage(error))),
    };
    entry.flags.attributes_incomplete = attributes.is_none();
    Piece::Done(Box::new(ReadEntry {
        entry,
        has_content: true,
        attributes: attributes.unwrap_or_default(),
        issues,
        vanished: false,
        bytes_read: 0,
    }))
}

/// Puts tags in the place of those in an attributes record; none if that cannot be.
fn with_tags(properties: &[u8], tags: Properties) -> Option<Vec<u8>> {
    let pairs = match properties.is_empty() {
        true => Vec::new(),
        false => decode_properties(properties).ok()?,
    };
    let pairs = pairs.into_iter().map(|pair| (pair.name, pair.value));
    let mut all: Properties = pairs
        .filter(|(name, _)| !name.starts_with(b"tag/"))
        .collect();
    all.extend(tags);
    record(&all)
}

/// Tells whether an error says nothing about other objects.
fn is_of_one_object(error: &StorageError) -> bool {
    match error.kind {
        ErrorKind::Denied => {
            matches!(error.reason, Reason::NotPermitted | Reason::EncryptionKey)
        }
        ErrorKind::Permanent => matches!(error.reason, Reason::Settings | Reason::Other),
        ErrorKind::NotFound => error.reason != Reason::NoBucket,
        _ => false,
    }
}

struct Attempt<'a, 'b> {
    context: &'a ReadContext<'a>,
    buffer: &'a mut ChunkBuffer,
    ticket: u64,
    emit: &'a mut (dyn FnMut(Piece) -> Result<(), Stopped> + 'b),
    bytes_read: &'a mut u64,
}

impl Attempt<'_, '_> {
    /// Reads all chunks; false if that ended too early.
    fn read(&mut self, reader: &mut ObjectReader<'_>) -> Result<bool, Stopped> {
        let context = self.context;
        if let Some(_turn) = context.wide.turn(reader.size()) {
            return self.read_wide(reader);
        }
        *self.buffer = ChunkBuffer::new();
        let mut left = reader.size();
        while left > 0 {
            if context.is_over() {
                return Err(Stopped);
            }
            let chunk = match self.buffer.next(context.chunker, reader, left) {
                Ok(Some(chunk)) => chunk,
                Ok(None) | Err(_) => return Ok(false),
            };
            let length = chunk.len();
            let held = hold(context, self.ticket, length)?;
            let id = context.keyring.chunk_id(ChunkType::Data, chunk);
            let bytes = Bytes::from(self.buffer.take_last(length));
            left = left.saturating_sub(length as u64);
            self.emit_chunk(id, bytes, held)?;
        }
        Ok(true)
    }

    /// Reads all chunks of an object that the workers cut; this reader has the turn.
    fn read_wide(&mut self, reader: &mut ObjectReader<'_>) -> Result<bool, Stopped> {
        let context = self.context;
        let (mut rest, mut left) = (Bytes::new(), reader.size());
        loop {
            if context.is_over() {
                return Err(Stopped);
            }
            let Ok((chunks, behind)) = context.wide.next(&rest, reader) else {
                return Ok(false);
            };
            if chunks.is_empty() {
                return Ok(left == 0);
            }
            rest = behind;
            for (id, bytes) in chunks {
                left = left.saturating_sub(bytes.len() as u64);
                let held = hold(context, self.ticket, bytes.len())?;
                self.emit_chunk(id, bytes, held)?;
            }
        }
    }

    fn emit_chunk(&mut self, id: ChunkId, bytes: Bytes, held: Held) -> Result<(), Stopped> {
        *self.bytes_read += bytes.len() as u64;
        (self.emit)(Piece::Chunk { id, bytes, held })
    }
}

fn done(reader: &ObjectReader<'_>, bytes_read: u64) -> Piece {
    let mut entry = reader.entry();
    let attributes = record(reader.properties());
    entry.flags.attributes_incomplete = attributes.is_none();
    Piece::Done(Box::new(ReadEntry {
        entry,
        has_content: false,
        attributes: attributes.unwrap_or_default(),
        issues: Vec::new(),
        vanished: false,
        bytes_read,
    }))
}

fn failed(object: &Object, error: io::Error, bytes_read: u64) -> Piece {
    let issue = WalkIssue {
        path: object.path(),
        operation: "read",
        error,
    };
    unread(object.entry.clone(), bytes_read, vec![issue], false)
}

fn unread(mut entry: Entry, bytes_read: u64, issues: Vec<WalkIssue>, vanished: bool) -> Piece {
    entry.flags.unreadable = true;
    Piece::Done(Box::new(ReadEntry {
        entry,
        has_content: false,
        attributes: Vec::new(),
        issues,
        vanished,
        bytes_read,
    }))
}
