//! What collectors write: rounds and states (SPEC.md §11, §12).

use alloc::string::String;
use alloc::vec::Vec;

use crate::cbor::{self, Decoder, Encoder, Map};
use crate::error::{FormatError, Result};
use crate::ids::{ObjectId, SessionId};
use crate::limits::{COLLECTOR_IDS, NAME_BYTES};
use crate::names::Name;
use crate::object::Kind;
use crate::record::Record;
use crate::session::must_ascend;

const UNSORTED: &str = "its ids are not in ascending order";

/// What a collector is about to do; all ids in ascending order, without duplicates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Round {
    /// The round's number, from 1.
    pub number: u64,
    /// Packs that are to go.
    pub condemned_packs: Vec<ObjectId>,
    /// Segments that the new ones replace.
    pub replaced_segments: Vec<ObjectId>,
    /// Segments that the round brought.
    pub new_segments: Vec<ObjectId>,
    /// Packs that may be damaged.
    pub suspect_packs: Vec<ObjectId>,
    /// When, in nanoseconds since 1970.
    pub time: i64,
    /// The host that collects.
    pub host: String,
}

/// The whole state after a round; all ids in ascending order, without duplicates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// The round's number, from 1.
    pub number: u64,
    /// Live cells of sessions numbered below the round.
    pub live_cells: Vec<SessionId>,
    /// Every segment that counts from such sessions and from collectors.
    pub segments: Vec<ObjectId>,
    /// Packs that are deleted, or may be.
    pub deleted_packs: Vec<ObjectId>,
    /// Packs that may be damaged, and are not deleted.
    pub suspect_packs: Vec<ObjectId>,
}

impl Record for Round {
    const KIND: Kind = Kind::Round;

    fn name(&self) -> Name {
        Name::Round(self.number)
    }

    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.map(7).uint(0).uint(self.number);
        for (key, ids) in (1..).zip(self.id_lists()) {
            encoder
                .uint(key)
                .byte_strings(ids.iter().map(|id| id.0.as_slice()));
        }
        encoder.uint(5).int(self.time).uint(6).text(&self.host);
        encoder.into_bytes()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let round = cbor::decode("collector round", bytes, |decoder| {
            let mut map = decoder.map()?;
            map.required(decoder, 0)?;
            let number = decoder.uint()?;
            let mut ids = |key| object_ids(&mut map, decoder, key);
            let (condemned_packs, replaced_segments) = (ids(1)?, ids(2)?);
            let (new_segments, suspect_packs) = (ids(3)?, ids(4)?);
            map.required(decoder, 5)?;
            let time = decoder.int()?;
            map.required(decoder, 6)?;
            let host = decoder.text("host", NAME_BYTES)?;
            map.finish(decoder)?;
            Ok(Self {
                number,
                condemned_packs,
                replaced_segments,
                new_segments,
                suspect_packs,
                time,
                host,
            })
        })?;
        cbor::must_be_deterministic("collector round", bytes, &round.encode())?;
        must_have_number("collector round", round.number)?;
        for ids in round.id_lists() {
            must_ascend("collector round", ids, UNSORTED)?;
        }
        Ok(round)
    }
}

impl Round {
    fn id_lists(&self) -> [&[ObjectId]; 4] {
        [
            &self.condemned_packs,
            &self.replaced_segments,
            &self.new_segments,
            &self.suspect_packs,
        ]
    }
}

impl Record for State {
    const KIND: Kind = Kind::State;

    fn name(&self) -> Name {
        Name::State(self.number)
    }

    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.map(5).uint(0).uint(self.number);
        let cells = self.live_cells.iter().map(|id| id.0.as_slice());
        encoder.uint(1).byte_strings(cells);
        for (key, ids) in (2..).zip(self.id_lists()) {
            encoder
                .uint(key)
                .byte_strings(ids.iter().map(|id| id.0.as_slice()));
        }
        encoder.into_bytes()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let state = cbor::decode("collector state", bytes, |decoder| {
            let mut map = decoder.map()?;
            map.required(decoder, 0)?;
            let number = decoder.uint()?;
            map.required(decoder, 1)?;
            let cells = decoder.arrays_of("cells of a collector state", COLLECTOR_IDS)?;
            let segments = object_ids(&mut map, decoder, 2)?;
            let deleted_packs = object_ids(&mut map, decoder, 3)?;
            let suspect_packs = object_ids(&mut map, decoder, 4)?;
            map.finish(decoder)?;
            Ok(Self {
                number,
                live_cells: cells.into_iter().map(SessionId).collect(),
                segments,
                deleted_packs,
                suspect_packs,
            })
        })?;
        cbor::must_be_deterministic("collector state", bytes, &state.encode())?;
        must_have_number("collector state", state.number)?;
        must_ascend("collector state", &state.live_cells, UNSORTED)?;
        for ids in state.id_lists() {
            must_ascend("collector state", ids, UNSORTED)?;
        }
        Ok(state)
    }
}

impl State {
    fn id_lists(&self) -> [&[ObjectId]; 3] {
        [&self.segments, &self.deleted_packs, &self.suspect_packs]
    }
}

fn object_ids(map: &mut Map, decoder: &mut Decoder<'_>, key: u64) -> Result<Vec<ObjectId>> {
    map.required(decoder, key)?;
    let ids = decoder.arrays_of("ids of a collector record", COLLECTOR_IDS)?;
    Ok(ids.into_iter().map(ObjectId).collect())
}

fn must_have_number(what: &'static str, number: u64) -> Result<()> {
    if number > 0 {
        return Ok(());
    }
    Err(FormatError::Malformed {
        what,
        at: 0,
        why: "its number is 0",
    })
}
