//! Cells: the outcome of a session, which people call a snapshot (SPEC.md §11).

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::cbor::{self, Decoder, Encoder, Map};
use crate::error::Result;
use crate::ids::{ChunkId, ObjectId, SessionId};
use crate::limits::{
    CELL_SEGMENTS, HEIGHT, NAME_BYTES, OPTION_BYTES, OPTIONS, SEEN_CELLS, SOURCE_PATH_BYTES,
    SOURCES, STATISTICS, TAG_BYTES, TAGS,
};
use crate::names::Name;
use crate::object::Kind;
use crate::record::Record;
use crate::run::Shard;
use crate::session::must_ascend;

/// What became of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CellKind {
    /// A finished snapshot.
    Complete = 1,
    /// A checkpoint: everything up to where the session had come.
    Partial = 2,
    /// A finished part of a snapshot: one range of a bucket's keys.
    Shard = 3,
    /// Nothing: a collector ended the session.
    Revoked = 4,
}

/// The outcome of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// What became of the session.
    pub kind: CellKind,
    /// The session itself.
    pub id: SessionId,
    /// The partial cell that it goes on from.
    pub predecessor: Option<SessionId>,
    /// The snapshot that it was compared with.
    pub parent: Option<SessionId>,
    /// When it started, in nanoseconds since 1970.
    pub started: i64,
    /// When it ended, in nanoseconds since 1970.
    pub ended: i64,
    /// The host whose files these are.
    pub host: String,
    /// The user who backed them up.
    pub user: String,
    /// Tags in ascending order, without duplicates.
    pub tags: Vec<String>,
    /// The trees, one for each source.
    pub sources: Vec<Source>,
    /// The segments of this session, in ascending order, without duplicates.
    pub segments: Vec<ObjectId>,
    /// What was read and written.
    pub statistics: Statistics,
    /// The options that shaped it.
    pub options: BTreeMap<String, String>,
    /// The program and its version.
    pub program: String,
    /// The config that it was written under.
    pub config: u64,
    /// The newest cells that its writer had seen, in ascending order, at most 16.
    pub seen_cells: Vec<SessionId>,
    /// The newest collector round that its writer had seen.
    pub seen_round: u64,
    /// The shard whose part this is; every part has it, a checkpoint may have it, and nothing else does.
    pub shard: Option<Shard>,
}

/// The tree of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The path as it was backed up.
    pub path: Vec<u8>,
    /// The id of the tree's root.
    pub root: ChunkId,
    /// The level of the root: 0 is a leaf.
    pub level: u8,
    /// The number of entries.
    pub entries: u64,
    /// The sum of their sizes in bytes.
    pub bytes: u64,
}

/// What a session read and wrote.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Entries that are neither.
    pub others: u64,
    /// Entries that the parent does not have.
    pub new: u64,
    /// Entries that differ from the parent's.
    pub changed: u64,
    /// Entries that are as in the parent.
    pub unchanged: u64,
    /// Entries that could not be read.
    pub unreadable: u64,
    /// Files that changed while they were read.
    pub changed_while_read: u64,
    /// Bytes of files that were read.
    pub read_bytes: u64,
    /// Bytes of chunks that were not there yet.
    pub new_chunk_bytes: u64,
    /// Bytes that went to the storage.
    pub stored_bytes: u64,
    /// Chunks that were not there yet.
    pub new_chunks: u64,
    /// Numbers that this program does not know.
    pub unknown: BTreeMap<u64, u64>,
}

impl Statistics {
    /// Numbers that this version of the format gives a meaning.
    const KNOWN: u64 = 12;

    fn known(&mut self) -> [&mut u64; Self::KNOWN as usize] {
        [
            &mut self.files,
            &mut self.directories,
            &mut self.others,
            &mut self.new,
            &mut self.changed,
            &mut self.unchanged,
            &mut self.unreadable,
            &mut self.changed_while_read,
            &mut self.read_bytes,
            &mut self.new_chunk_bytes,
            &mut self.stored_bytes,
            &mut self.new_chunks,
        ]
    }

    fn encode(&self, encoder: &mut Encoder) {
        let mut copy = self.clone();
        let known = copy.known().map(|value| *value);
        let known = (0_u64..).zip(known);
        let pairs: Vec<_> = known
            .chain(self.unknown.iter().map(|(number, value)| (*number, *value)))
            .filter(|(_, value)| *value > 0)
            .collect();
        encoder.map(pairs.len());
        for (number, value) in pairs {
            encoder.uint(number).uint(value);
        }
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self> {
        let mut statistics = Self::default();
        for _ in 0..decoder.pairs("statistics", STATISTICS)? {
            let (number, value) = (decoder.uint()?, decoder.uint()?);
            let index = usize::try_from(number).unwrap_or(usize::MAX);
            match statistics.known().get_mut(index) {
                Some(place) => **place = value,
                None => {
                    statistics.unknown.insert(number, value);
                }
            }
        }
        Ok(statistics)
    }
}

impl Record for Cell {
    const KIND: Kind = Kind::Cell;

    fn name(&self) -> Name {
        Name::Cell(self.id)
    }

    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        let optional = [self.predecessor, self.parent];
        let shards = usize::from(self.shard.is_some());
        encoder.map(15 + optional.iter().flatten().count() + shards);
        encoder.uint(0).uint(self.kind as u64);
        encoder.uint(1).bytes(&self.id.0);
        for (number, id) in (2..).zip(optional) {
            if let Some(id) = id {
                encoder.uint(number).bytes(&id.0);
            }
        }
        encoder.uint(4).int(self.started).uint(5).int(self.ended);
        encoder.uint(6).text(&self.host).uint(7).text(&self.user);
        encoder.uint(8).texts(&self.tags);
        encoder.uint(9).array(self.sources.len());
        for source in &self.sources {
            source.encode(&mut encoder);
        }
        let segments = self.segments.iter().map(|id| id.0.as_slice());
        encoder.uint(10).byte_strings(segments).uint(11);
        self.statistics.encode(&mut encoder);
        encoder.uint(12).map(self.options.len());
        for (name, value) in in_cbor_order(&self.options) {
            encoder.text(name).text(value);
        }
        encoder
            .uint(13)
            .text(&self.program)
            .uint(14)
            .uint(self.config);
        let seen = self.seen_cells.iter().map(|id| id.0.as_slice());
        encoder.uint(15).byte_strings(seen);
        encoder.uint(16).uint(self.seen_round);
        if let Some(shard) = &self.shard {
            shard.encode(encoder.uint(17));
        }
        encoder.into_bytes()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let cell = cbor::decode("snapshot", bytes, decode)?;
        cbor::must_be_deterministic("snapshot", bytes, &cell.encode())?;
        must_ascend(
            "snapshot",
            &cell.tags,
            "its tags are not in ascending order",
        )?;
        must_ascend(
            "snapshot",
            &cell.segments,
            "its segments are not in ascending order",
        )?;
        must_ascend(
            "snapshot",
            &cell.seen_cells,
            "its cells are not in ascending order",
        )?;
        Ok(cell)
    }
}

fn decode(decoder: &mut Decoder<'_>) -> Result<Cell> {
    let mut map = decoder.map()?;
    map.required(decoder, 0)?;
    let kind = match decoder.uint()? {
        1 => CellKind::Complete,
        2 => CellKind::Partial,
        3 => CellKind::Shard,
        4 => CellKind::Revoked,
        _ => return Err(decoder.malformed("its kind is unknown")),
    };
    map.required(decoder, 1)?;
    let id = SessionId(decoder.array_of()?);
    let predecessor = optional_session(&mut map, decoder, 2)?;
    let parent = optional_session(&mut map, decoder, 3)?;
    map.required(decoder, 4)?;
    let started = decoder.int()?;
    map.required(decoder, 5)?;
    let ended = decoder.int()?;
    map.required(decoder, 6)?;
    let host = decoder.text("host", NAME_BYTES)?;
    map.required(decoder, 7)?;
    let user = decoder.text("user", NAME_BYTES)?;
    map.required(decoder, 8)?;
    let tags = decoder.texts("tags", TAGS, TAG_BYTES)?;
    map.required(decoder, 9)?;
    let count = decoder.array("sources of a snapshot", SOURCES)?;
    let sources = (0..count).map(|_| Source::decode(decoder));
    let sources = sources.collect::<Result<_>>()?;
    map.required(decoder, 10)?;
    let segments = decoder.arrays_of("segments of a snapshot", CELL_SEGMENTS)?;
    map.required(decoder, 11)?;
    let statistics = Statistics::decode(decoder)?;
    map.required(decoder, 12)?;
    let mut options = BTreeMap::new();
    for _ in 0..decoder.pairs("options of a snapshot", OPTIONS)? {
        let name = decoder.text("name of an option", OPTION_BYTES)?;
        options.insert(name, decoder.text("value of an option", OPTION_BYTES)?);
    }
    map.required(decoder, 13)?;
    let program = decoder.text("program", NAME_BYTES)?;
    map.required(decoder, 14)?;
    let config = decoder.uint()?;
    map.required(decoder, 15)?;
    let seen_cells = decoder.arrays_of("cells that a writer had seen", SEEN_CELLS)?;
    map.required(decoder, 16)?;
    let seen_round = decoder.uint()?;
    let shard = match map.optional(decoder, 17)? {
        true => Some(Shard::decode(decoder)?),
        false => None,
    };
    map.finish(decoder)?;
    let may_have_shard = matches!(kind, CellKind::Partial | CellKind::Shard);
    if shard.is_some() && !may_have_shard || shard.is_none() && kind == CellKind::Shard {
        return Err(decoder
            .malformed("a shard, and no other than it and its checkpoints, says which one it is"));
    }
    Ok(Cell {
        kind,
        id,
        predecessor,
        parent,
        started,
        ended,
        host,
        user,
        tags,
        sources,
        segments: segments.into_iter().map(ObjectId).collect(),
        statistics,
        options,
        program,
        config,
        seen_cells: seen_cells.into_iter().map(SessionId).collect(),
        seen_round,
        shard,
    })
}

impl Source {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.map(6).uint(0).uint(1);
        encoder.uint(1).bytes(&self.path);
        encoder.uint(2).bytes(&self.root.0);
        encoder.uint(3).uint(self.level.into());
        encoder.uint(4).uint(self.entries).uint(5).uint(self.bytes);
    }

    fn decode(decoder: &mut Decoder<'_>) -> Result<Self> {
        let mut map = decoder.map()?;
        map.required(decoder, 0)?;
        if decoder.uint()? != 1 {
            return Err(decoder.malformed("the kind of a source is unknown"));
        }
        map.required(decoder, 1)?;
        let path = decoder.bytes("path of a source", SOURCE_PATH_BYTES)?;
        map.required(decoder, 2)?;
        let root = ChunkId(decoder.array_of()?);
        map.required(decoder, 3)?;
        let level = decoder.u32()?;
        cbor::within("height of a tree", level as usize, HEIGHT.into())?;
        map.required(decoder, 4)?;
        let entries = decoder.uint()?;
        map.required(decoder, 5)?;
        let bytes = decoder.uint()?;
        map.finish(decoder)?;
        Ok(Self {
            path: path.to_vec(),
            root,
            level: level as u8,
            entries,
            bytes,
        })
    }
}

fn optional_session(
    map: &mut Map,
    decoder: &mut Decoder<'_>,
    key: u64,
) -> Result<Option<SessionId>> {
    match map.optional(decoder, key)? {
        true => Ok(Some(SessionId(decoder.array_of()?))),
        false => Ok(None),
    }
}

/// Orders text keys as their encodings are ordered: shorter ones first.
fn in_cbor_order(options: &BTreeMap<String, String>) -> Vec<(&String, &String)> {
    let mut pairs: Vec<_> = options.iter().collect();
    pairs.sort_by_key(|(name, _)| (name.len(), *name));
    pairs
}
