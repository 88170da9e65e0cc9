//! Runs of several shards: what divides a bucket's keys among them, and what became of it (SPEC.md §11).

use alloc::string::String;
use alloc::vec::Vec;

use crate::cbor::{self, Decoder, Encoder, within};
use crate::error::Result;
use crate::ids::{RunId, SessionId};
use crate::limits::{NAME_BYTES, RUN_KEY_BYTES, RUN_SHARDS, SOURCE_PATH_BYTES};
use crate::names::Name;
use crate::object::Kind;
use crate::record::Record;
use crate::session::must_ascend;

const RUN: &str = "run";
const RUN_END: &str = "run end";

/// A run whose shards each back up one range of a bucket's keys; its first shard wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Run {
    /// The run itself, by its name.
    pub id: RunId,
    /// What people call it.
    pub name: String,
    /// When it was begun, in nanoseconds since 1970.
    pub begun: i64,
    /// The path of the source.
    pub source: Vec<u8>,
    /// The host that its snapshot carries.
    pub host: String,
    /// Shards that were asked for.
    pub asked: u64,
    /// Keys at which the ranges are divided, ascending: one less than there are shards.
    pub divisions: Vec<Vec<u8>>,
    /// Digits that differ if other objects are left out.
    pub left_out: String,
    /// The snapshot that the shards are compared with.
    pub parent: Option<SessionId>,
}

/// What the shards of a run became: one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunEnd {
    /// The run.
    pub id: RunId,
    /// When that was decided, in nanoseconds since 1970.
    pub ended: i64,
    /// The session whose cell is the snapshot.
    pub snapshot: SessionId,
}

/// Which shard of a run a cell is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// The run.
    pub run: RunId,
    /// What people call the run.
    pub name: String,
    /// Its number, from 1.
    pub number: u64,
    /// How many shards there are.
    pub count: u64,
    /// The range of its keys.
    pub range: KeyRange,
}

/// Keys behind one and up to another, with that; without end where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// The key behind which it begins.
    pub behind: Option<Vec<u8>>,
    /// The last key that may be in it.
    pub last: Option<Vec<u8>>,
}

impl KeyRange {
    /// Tells whether a key lies in the range.
    #[must_use]
    pub fn has(&self, key: &[u8]) -> bool {
        let is_behind = self.behind.as_ref().is_none_or(|behind| key > &**behind);
        is_behind && !self.is_before(key)
    }

    /// Tells whether a key lies behind the range.
    #[must_use]
    pub fn is_before(&self, key: &[u8]) -> bool {
        self.last.as_ref().is_some_and(|last| key > &**last)
    }
}

impl Run {
    /// Gives how many shards there are: fewer than were asked for, if a bucket has too few keys.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.divisions.len() as u64 + 1
    }

    /// Gives a shard by its number, from 1.
    #[must_use]
    pub fn shard(&self, number: u64) -> Option<Shard> {
        let at = usize::try_from(number.checked_sub(1)?).ok()?;
        (number <= self.count()).then(|| Shard {
            run: self.id,
            name: self.name.clone(),
            number,
            count: self.count(),
            range: KeyRange {
                behind: at
                    .checked_sub(1)
                    .and_then(|at| self.divisions.get(at))
                    .cloned(),
                last: self.divisions.get(at).cloned(),
            },
        })
    }
}

impl Record for Run {
    const KIND: Kind = Kind::Run;

    fn name(&self) -> Name {
        Name::Run(self.id)
    }

    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.map(8 + usize::from(self.parent.is_some()));
        encoder.uint(0).bytes(&self.id.0).uint(1).text(&self.name);
        encoder.uint(2).int(self.begun).uint(3).bytes(&self.source);
        encoder.uint(4).text(&self.host).uint(5).uint(self.asked);
        let divisions = self.divisions.iter().map(Vec::as_slice);
        encoder.uint(6).byte_strings(divisions);
        encoder.uint(7).text(&self.left_out);
        if let Some(parent) = self.parent {
            encoder.uint(8).bytes(&parent.0);
        }
        encoder.into_bytes()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let run = cbor::decode(RUN, bytes, |decoder| {
            let mut map = decoder.map()?;
            map.required(decoder, 0)?;
            let id = RunId(decoder.array_of()?);
            map.required(decoder, 1)?;
            let name = decoder.text("name of a run", NAME_BYTES)?;
            map.required(decoder, 2)?;
            let begun = decoder.int()?;
            map.required(decoder, 3)?;
            let source = decoder.bytes("path of a source", SOURCE_PATH_BYTES)?;
            let source = source.to_vec();
            map.required(decoder, 4)?;
            let host = decoder.text("host", NAME_BYTES)?;
            map.required(decoder, 5)?;
            let asked = decoder.uint()?;
            map.required(decoder, 6)?;
            let count = decoder.array("divisions of a run", RUN_SHARDS - 1)?;
            let divisions = (0..count).map(|_| key(decoder));
            let divisions = divisions.collect::<Result<_>>()?;
            map.required(decoder, 7)?;
            let left_out = decoder.text("what a run leaves out", NAME_BYTES)?;
            let parent = match map.optional(decoder, 8)? {
                true => Some(SessionId(decoder.array_of()?)),
                false => None,
            };
            map.finish(decoder)?;
            Ok(Self {
                id,
                name,
                begun,
                source,
                host,
                asked,
                divisions,
                left_out,
                parent,
            })
        })?;
        cbor::must_be_deterministic(RUN, bytes, &run.encode())?;
        let why = "its divisions are not in ascending order";
        must_ascend(RUN, &run.divisions, why)?;
        Ok(run)
    }
}

impl Record for RunEnd {
    const KIND: Kind = Kind::RunEnd;

    fn name(&self) -> Name {
        Name::RunEnd(self.id)
    }

    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.map(3).uint(0).bytes(&self.id.0);
        encoder.uint(1).int(self.ended);
        encoder.uint(2).bytes(&self.snapshot.0);
        encoder.into_bytes()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let end = cbor::decode(RUN_END, bytes, |decoder| {
            let mut map = decoder.map()?;
            map.required(decoder, 0)?;
            let id = RunId(decoder.array_of()?);
            map.required(decoder, 1)?;
            let ended = decoder.int()?;
            map.required(decoder, 2)?;
            let snapshot = SessionId(decoder.array_of()?);
            map.finish(decoder)?;
            Ok(Self {
                id,
                ended,
                snapshot,
            })
        })?;
        cbor::must_be_deterministic(RUN_END, bytes, &end.encode())?;
        Ok(end)
    }
}

impl Shard {
    pub(crate) fn encode(&self, encoder: &mut Encoder) {
        let ends = [&self.range.behind, &self.range.last];
        encoder.map(4 + ends.iter().filter(|end| end.is_some()).count());
        encoder.uint(0).bytes(&self.run.0).uint(1).text(&self.name);
        encoder.uint(2).uint(self.number).uint(3).uint(self.count);
        for (number, end) in (4..).zip(ends) {
            if let Some(end) = end {
                encoder.uint(number).bytes(end);
            }
        }
    }

    pub(crate) fn decode(decoder: &mut Decoder<'_>) -> Result<Self> {
        let mut map = decoder.map()?;
        map.required(decoder, 0)?;
        let run = RunId(decoder.array_of()?);
        map.required(decoder, 1)?;
        let name = decoder.text("name of a run", NAME_BYTES)?;
        map.required(decoder, 2)?;
        let number = decoder.uint()?;
        map.required(decoder, 3)?;
        let count = decoder.uint()?;
        let shards = usize::try_from(count).unwrap_or(usize::MAX);
        within("shards of a run", shards, RUN_SHARDS)?;
        if number == 0 || number > count {
            return Err(decoder.malformed("there is no such shard"));
        }
        let mut end = |at| match map.optional(decoder, at)? {
            true => key(decoder).map(Some),
            false => Ok(None),
        };
        let (behind, last) = (end(4)?, end(5)?);
        map.finish(decoder)?;
        if behind.is_some() != (number > 1) || last.is_some() != (number < count) {
            return Err(decoder.malformed("a shard's range ends where another one should be"));
        }
        if let (Some(behind), Some(last)) = (&behind, &last)
            && behind >= last
        {
            return Err(decoder.malformed("a shard's range is empty"));
        }
        Ok(Self {
            run,
            name,
            number,
            count,
            range: KeyRange { behind, last },
        })
    }
}

fn key(decoder: &mut Decoder<'_>) -> Result<Vec<u8>> {
    Ok(decoder.bytes("key of a division", RUN_KEY_BYTES)?.to_vec())
}
