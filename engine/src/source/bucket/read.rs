//! The bytes of one object: at once if it is small, else by ranges of the one that was begun with.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Mutex, MutexGuard, TryLockError};

use bytes::{Buf as _, Bytes};
use larder_format::entry::Entry;

use super::{Object, timestamp};
use crate::at_once;
use crate::storage::bucket::{Answer, Ask, Got, Properties};
use crate::storage::error::StorageError;

/// Bytes that one request asks for; larger objects are read by ranges.
const RANGE_BYTES: u64 = 4 << 20;
/// Ranges that are asked for at once, at most: 32 MiB of one object.
const RANGES_MAX: usize = 8;

/// What lets a large object be read by several ranges at once; one reader at a time may, as it takes memory.
#[derive(Debug)]
pub struct RangesAtOnce {
    calls: usize,
    turn: Mutex<()>,
}

impl RangesAtOnce {
    /// Prepares for so many calls at once.
    #[must_use]
    pub fn new(calls: usize) -> Self {
        Self {
            calls: calls.clamp(1, RANGES_MAX),
            turn: Mutex::default(),
        }
    }

    /// Gives the turn for an object of so many bytes; none if it is not worth it, or if another reader has it.
    fn turn(&self, size: u64) -> Option<Turn<'_>> {
        if self.calls == 1 || size <= 2 * RANGE_BYTES {
            return None;
        }
        let held = match self.turn.try_lock() {
            Ok(held) => held,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Turn {
            calls: self.calls,
            _held: held,
        })
    }
}

/// The right to ask for several ranges at once.
#[derive(Debug)]
struct Turn<'a> {
    calls: usize,
    _held: MutexGuard<'a, ()>,
}

/// An object that is being read.
///
/// An object is only ever replaced whole, so what one answer holds belongs together; of a large one all
/// later ranges are asked for under the ETag of the first.
#[derive(Debug)]
pub struct ObjectReader<'a> {
    object: &'a Object,
    first: Got,
    turn: Option<Turn<'a>>,
    /// What was fetched and not yet taken.
    pieces: VecDeque<Bytes>,
    /// Bytes that were fetched.
    position: u64,
    /// What ended the reading.
    failure: Option<Unread>,
}

/// Why an object could not be read, or not to its end.
#[derive(Debug)]
pub enum Unread {
    /// It was replaced or removed after its first range.
    Changed,
    /// It is not there any more.
    Vanished,
    /// It has to be thawed first.
    Cold,
    /// The bucket answers with an error.
    Failed(StorageError),
}

impl<'a> ObjectReader<'a> {
    /// Reads the first bytes of an object, whatever it is by now.
    ///
    /// # Errors
    /// Why there are none.
    pub fn open(object: &'a Object, at_once: &'a RangesAtOnce) -> Result<Self, Unread> {
        let version = object.version();
        let whole = |_| Ask {
            range: None,
            if_match: None,
            version,
            bytes_max: RANGE_BYTES,
        };
        let part = |_| Ask {
            range: Some((0, RANGE_BYTES)),
            if_match: None,
            version,
            bytes_max: RANGE_BYTES,
        };
        // A small object may have grown, and a large one may be empty by now: then the other way.
        let asks = match object.entry.size <= RANGE_BYTES {
            true => [whole(()), part(())],
            false => [part(()), whole(())],
        };
        for ask in &asks {
            match object.bucket.get(&object.entry.key, ask) {
                Ok(Answer::Object(first)) => {
                    return Ok(Self {
                        object,
                        turn: at_once.turn(first.size),
                        pieces: VecDeque::from([first.bytes.clone()]),
                        position: first.bytes.len() as u64,
                        first: *first,
                        failure: None,
                    });
                }
                Ok(Answer::Changed) => {}
                Ok(Answer::Missing) => return Err(Unread::Vanished),
                Ok(Answer::Cold) => return Err(Unread::Cold),
                Err(error) => return Err(Unread::Failed(error)),
            }
        }
        Err(Unread::Changed)
    }

    /// Gives the size of what is being read.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.first.size
    }

    /// Gives the entry of what is being read, without content and properties.
    ///
    /// The listing's time is the more exact one, and what the next listing is compared with, so it
    /// stays unless the object is another one by now.
    #[must_use]
    pub fn entry(&self) -> Entry {
        let mut entry = self.object.entry.clone();
        let etag = self.first.etag.as_bytes();
        let is_listed = entry.size == self.first.size
            && (etag.is_empty() || entry.etag.is_empty() || entry.etag == etag);
        if let Some(modified) = self.first.modified.map(timestamp)
            && (!is_listed || entry.mtime == Default::default())
        {
            entry.mtime = modified;
        }
        entry.size = self.first.size;
        if !etag.is_empty() {
            entry.etag = etag.to_vec();
        }
        if !self.first.version.is_empty() {
            entry.version = self.first.version.clone().into_bytes();
        }
        entry
    }

    /// Gives what the object was stored with.
    #[must_use]
    pub fn properties(&self) -> &Properties {
        &self.first.properties
    }

    /// Gives what ended the reading, once a read has failed.
    #[must_use]
    pub fn into_failure(self) -> Option<Unread> {
        self.failure
    }

    /// Fetches what comes next: one range, or several at once for whoever has the turn.
    fn fetch(&mut self) -> Result<(), Unread> {
        let calls = self.turn.as_ref().map_or(1, |turn| turn.calls);
        let starts: Vec<u64> = (0..calls as u64)
            .map(|ordinal| self.position.saturating_add(ordinal * RANGE_BYTES))
            .take_while(|start| *start < self.first.size)
            .collect();
        for piece in at_once::map(calls, &starts, |start| self.range(*start)) {
            let piece = piece?;
            self.position += piece.len() as u64;
            self.pieces.push_back(piece);
        }
        Ok(())
    }

    /// Reads the range that begins here.
    fn range(&self, start: u64) -> Result<Bytes, Unread> {
        let etag = Some(self.first.etag.as_str()).filter(|etag| !etag.is_empty());
        let length = self.first.size.saturating_sub(start).min(RANGE_BYTES);
        let ask = Ask {
            range: Some((start, length)),
            if_match: etag,
            version: self.object.version(),
            bytes_max: RANGE_BYTES,
        };
        match self.object.bucket.get(&self.object.entry.key, &ask) {
            Ok(Answer::Object(got)) => {
                let is_same = (&got.etag, got.size, got.modified)
                    == (&self.first.etag, self.first.size, self.first.modified);
                match is_same && got.bytes.len() as u64 == length {
                    true => Ok(got.bytes),
                    false => Err(Unread::Changed),
                }
            }
            Ok(Answer::Changed | Answer::Missing) => Err(Unread::Changed),
            Ok(Answer::Cold) => Err(Unread::Cold),
            Err(error) => Err(Unread::Failed(error)),
        }
    }
}

impl Read for ObjectReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.pieces.front().is_some_and(Bytes::is_empty) {
            self.pieces.pop_front();
        }
        if self.pieces.is_empty()
            && self.position < self.first.size
            && let Err(failure) = self.fetch()
        {
            self.failure = Some(failure);
            return Err(io::Error::other("the object cannot be read on"));
        }
        let Some(piece) = self.pieces.front_mut() else {
            return Ok(0);
        };
        let count = buffer.len().min(piece.len());
        if let Some(buffer) = buffer.get_mut(..count) {
            piece.copy_to_slice(buffer);
        }
        Ok(count)
    }
}
