//! Sessions, their ends, and amendments of what they commit (SPEC.md §11).

use alloc::string::String;
use alloc::vec::Vec;

use crate::cbor::{self, Encoder};
use crate::error::{FormatError, Result};
use crate::ids::{ObjectId, SessionId};
use crate::keys::Purpose;
use crate::limits::{NAME_BYTES, TAG_BYTES, TAGS};
use crate::names::Name;
use crate::object::Kind;
use crate::record::Record;

/// How a session relates to the snapshot that it may build on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Base {
    /// It builds on nothing.
    #[default]
    None,
    /// It compares its source with this snapshot.
    Parent(SessionId),
    /// It goes on from this partial snapshot.
    Predecessor(SessionId),
}

impl Base {
    /// Gives the snapshot, if there is one.
    #[must_use]
    pub fn id(&self) -> Option<SessionId> {
        match self {
            Self::None => None,
            Self::Parent(id) | Self::Predecessor(id) => Some(*id),
        }
    }
}

/// The announcement of a writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The session itself.
    pub id: SessionId,
    /// What it may build on.
    pub base: Base,
    /// When it started, in nanoseconds since 1970.
    pub started: i64,
    /// The host that it runs on.
    pub host: String,
    /// The user that it runs as.
    pub user: String,
    /// The program and its version.
    pub program: String,
    /// The config that it was written under.
    pub config: u64,
}

/// The end of a session that committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionEnd {
    /// The session itself.
    pub id: SessionId,
    /// When it ended, in nanoseconds since 1970.
    pub ended: i64,
    /// BLAKE3 of the bytes of its cell's object.
    pub cell: ObjectId,
}

/// What an amendment does to a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Replaces all tags; sorted, without duplicates.
    SetTags(Vec<String>),
    /// Keeps retention from forgetting it.
    Pin,
    /// Ends a pin.
    Unpin,
    /// Forgets it, for good.
    Forget,
}

/// A change to a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amendment {
    /// The snapshot.
    pub cell: SessionId,
    /// The number of the amendment among those of the snapshot, from 1 without gaps.
    pub number: u64,
    /// What it does.
    pub change: Change,
    /// When, in nanoseconds since 1970.
    pub time: i64,
    /// The host that asked for it.
    pub host: String,
    /// The user that asked for it.
    pub user: String,
}

impl Record for Session {
    const KIND: Kind = Kind::Session;

    fn name(&self) -> Name {
        Name::Session(self.id)
    }

    fn encode(&self) -> Vec<u8> {
        let base = self.base.id();
        let mut encoder = Encoder::new();
        encoder.map(7 + usize::from(base.is_some()));
        encoder.uint(0).bytes(&self.id.0);
        if let Some(base) = base {
            encoder.uint(1).bytes(&base.0);
        }
        encoder.uint(2).uint(match self.base {
            Base::None => 0,
            Base::Parent(_) => 1,
            Base::Predecessor(_) => 2,
        });
        encoder.uint(3).int(self.started).uint(4).text(&self.host);
        encoder.uint(5).text(&self.user).uint(6).text(&self.program);
        encoder.uint(7).uint(self.config);
        encoder.into_bytes()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let session = cbor::decode("session", bytes, |decoder| {
            let mut map = decoder.map()?;
            map.required(decoder, 0)?;
            let id = SessionId(decoder.array_of()?);
            let base = match map.optional(decoder, 1)? {
                true => Some(SessionId(decoder.array_of()?)),
                false => None,
            };
            map.required(decoder, 2)?;
            let base = match (decoder.uint()?, base) {
                (0, None) => Base::None,
                (1, Some(base)) => Base::Parent(base),
                (2, Some(base)) => Base::Predecessor(base),
                _ => return Err(decoder.malformed("its relation to its base is impossible")),
            };
            map.required(decoder, 3)?;
            let started = decoder.int()?;
            map.required(decoder, 4)?;
            let host = decoder.text("host", NAME_BYTES)?;
            map.required(decoder, 5)?;
            let user = decoder.text("user", NAME_BYTES)?;
            map.required(decoder, 6)?;
            let program = decoder.text("program", NAME_BYTES)?;
            map.required(decoder, 7)?;
            let config = decoder.uint()?;
            map.finish(decoder)?;
            Ok(Self {
                id,
                base,
                started,
                host,
                user,
                program,
                config,
            })
        })?;
        cbor::must_be_deterministic("session", bytes, &session.encode())?;
        Ok(session)
    }
}

impl Record for SessionEnd {
    const KIND: Kind = Kind::SessionEnd;

    fn name(&self) -> Name {
        Name::SessionEnd(self.id)
    }

    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.map(3).uint(0).bytes(&self.id.0);
        encoder.uint(1).int(self.ended);
        encoder.uint(2).bytes(&self.cell.0);
        encoder.into_bytes()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let end = cbor::decode("session end", bytes, |decoder| {
            let mut map = decoder.map()?;
            map.required(decoder, 0)?;
            let id = SessionId(decoder.array_of()?);
            map.required(decoder, 1)?;
            let ended = decoder.int()?;
            map.required(decoder, 2)?;
            let cell = ObjectId(decoder.array_of()?);
            map.finish(decoder)?;
            Ok(Self { id, ended, cell })
        })?;
        cbor::must_be_deterministic("session end", bytes, &end.encode())?;
        Ok(end)
    }
}

impl Record for Amendment {
    const KIND: Kind = Kind::Amendment;

    fn name(&self) -> Name {
        Name::Amendment(self.cell, self.number)
    }

    fn purpose(&self) -> Purpose {
        match self.change {
            Change::Forget => Purpose::Collector,
            _ => Purpose::Snapshot,
        }
    }

    fn encode(&self) -> Vec<u8> {
        let (number, tags) = match &self.change {
            Change::SetTags(tags) => (1, Some(tags)),
            Change::Pin => (2, None),
            Change::Unpin => (3, None),
            Change::Forget => (4, None),
        };
        let mut encoder = Encoder::new();
        encoder.map(6 + usize::from(tags.is_some()));
        encoder.uint(0).bytes(&self.cell.0);
        encoder.uint(1).uint(self.number).uint(2).uint(number);
        if let Some(tags) = tags {
            encoder.uint(3).texts(tags);
        }
        encoder.uint(4).int(self.time);
        encoder.uint(5).text(&self.host).uint(6).text(&self.user);
        encoder.into_bytes()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let amendment = cbor::decode("amendment", bytes, |decoder| {
            let mut map = decoder.map()?;
            map.required(decoder, 0)?;
            let cell = SessionId(decoder.array_of()?);
            map.required(decoder, 1)?;
            let number = decoder.uint()?;
            map.required(decoder, 2)?;
            let change = match decoder.uint()? {
                1 => {
                    map.required(decoder, 3)?;
                    Change::SetTags(decoder.texts("tags", TAGS, TAG_BYTES)?)
                }
                2 => Change::Pin,
                3 => Change::Unpin,
                4 => Change::Forget,
                _ => return Err(decoder.malformed("what it changes is unknown")),
            };
            map.required(decoder, 4)?;
            let time = decoder.int()?;
            map.required(decoder, 5)?;
            let host = decoder.text("host", NAME_BYTES)?;
            map.required(decoder, 6)?;
            let user = decoder.text("user", NAME_BYTES)?;
            map.finish(decoder)?;
            Ok(Self {
                cell,
                number,
                change,
                time,
                host,
                user,
            })
        })?;
        cbor::must_be_deterministic("amendment", bytes, &amendment.encode())?;
        if let Change::SetTags(tags) = &amendment.change {
            must_ascend("amendment", tags, "its tags are not in ascending order")?;
        }
        if amendment.number == 0 {
            return Err(FormatError::Malformed {
                what: "amendment",
                at: 0,
                why: "its number is 0",
            });
        }
        Ok(amendment)
    }
}

/// Refuses items that are not in strictly ascending order.
pub(crate) fn must_ascend<T: Ord>(
    what: &'static str,
    items: &[T],
    why: &'static str,
) -> Result<()> {
    if items.is_sorted_by(|a, b| a < b) {
        Ok(())
    } else {
        Err(FormatError::Malformed { what, at: 0, why })
    }
}
