//! Writes a repository as whoever holds its keys can: anything, sealed and named as it should be.

use std::collections::hash_map;
use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use larder_format::block::{BlockBuilder, Compression, SealedBlock};
use larder_format::cell::Cell;
use larder_format::compression::Compressor;
use larder_format::entry::{Content, Entry, Extent};
use larder_format::error::FormatError;
use larder_format::ids::{ChunkId, ChunkType, ObjectId, RepositoryId, SessionId};
use larder_format::keys::{KEYRING_RANDOM_BYTES, Keyring, Purpose};
use larder_format::list::{ContentBuilder, ListRoot};
use larder_format::names::{self, Name};
use larder_format::object::{Header, Kind, close, object_id};
use larder_format::pack::PackWriter;
use larder_format::record::{Record, open_record, seal_record};
use larder_format::seal::{self, Aad};
use larder_format::segment::{Owner, Segment, SegmentPack};
use larder_format::session::SessionEnd;
use larder_format::tree::build::{NodeOut, Root, TreeBuilder};

use crate::overlay::Objects;

/// Bytes of a file that go into one chunk.
const CHUNK_BYTES: usize = 700;
/// Chunks that go into one block.
const BLOCK_CHUNKS: usize = 5;

/// A repository in the making, its keys, and all that was ever put into it.
#[derive(Clone)]
pub struct Forge {
    /// The keys.
    pub keyring: Keyring,
    /// The repository.
    pub objects: Objects,
    /// Every chunk that a pack has or had, so that whatever is restored can be compared with what it should be.
    pub chunks: HashMap<ChunkId, (ChunkType, Bytes)>,
    /// Chunks that are in no pack yet.
    waiting: Vec<ChunkId>,
    drawn: u64,
}

/// What a file of a source holds.
pub enum Part<'a> {
    /// Bytes.
    Data(&'a [u8]),
    /// So many zeros that take no room.
    Hole(u64),
}

impl Forge {
    /// Starts with keys that are always the same, and nothing else.
    pub fn new() -> Self {
        let random = [7; KEYRING_RANDOM_BYTES];
        Self {
            keyring: Keyring::generate(RepositoryId([0x10; 16]), &random),
            objects: Objects::new(),
            chunks: HashMap::new(),
            waiting: Vec::new(),
            drawn: 0,
        }
    }

    /// Gives bytes that look random; the same for the same repository.
    pub fn draw<const N: usize>(&mut self) -> [u8; N] {
        self.drawn += 1;
        let mut bytes = [0; N];
        let mut hasher = blake3::Hasher::new_derive_key("larder forged chance");
        hasher.update(&self.drawn.to_le_bytes());
        hasher.finalize_xof().fill(&mut bytes);
        bytes
    }

    /// Puts an object under a name.
    pub fn put(&mut self, name: &str, bytes: &[u8]) {
        let bytes = Bytes::copy_from_slice(bytes);
        self.objects.insert(name.to_owned(), bytes);
    }

    /// Seals a record and puts it under its name.
    pub fn record(&mut self, record: &impl Record) {
        let (uid, random) = (self.draw(), self.draw());
        let object = seal_record(&self.keyring, record, uid, &random).unwrap();
        self.put(&record.name().to_string(), &object);
    }

    /// Opens a record that is there.
    pub fn open<R: Record>(&self, name: &Name) -> Option<R> {
        let object = self.objects.get(&name.to_string())?;
        open_record(&self.keyring, name, object).ok()
    }

    /// Seals any bytes as the record of a kind under a name, whatever they say.
    pub fn any_record(&mut self, kind: Kind, purpose: Purpose, name: &str, cbor: &[u8]) {
        let (uid, random) = (self.draw(), self.draw());
        let key = self.keyring.current(purpose).unwrap();
        let header = Header {
            kind,
            key_id: key.id(),
            uid,
        };
        let mut plaintext = (cbor.len() as u32).to_le_bytes().to_vec();
        plaintext.extend_from_slice(cbor);
        plaintext.resize(plaintext.len().next_multiple_of(256), 0);
        let aad = Aad::record(key, &header, name);
        let sealed = seal::seal(key, &aad, &random, &plaintext).unwrap();
        let object = close([header.encode().as_slice(), &sealed].concat());
        self.put(name, &object);
    }

    /// Keeps a chunk, to be put into the next pack; gives its id.
    pub fn chunk(&mut self, chunk_type: ChunkType, plain: &[u8]) -> ChunkId {
        let id = self.keyring.chunk_id(chunk_type, plain);
        if let hash_map::Entry::Vacant(place) = self.chunks.entry(id) {
            place.insert((chunk_type, Bytes::copy_from_slice(plain)));
            self.waiting.push(id);
        }
        id
    }

    /// Keeps what a file holds, and gives its size and content.
    pub fn content(&mut self, parts: &[Part<'_>]) -> (u64, Content) {
        let mut builder = ContentBuilder::new();
        for part in parts {
            let chunks: Vec<&[u8]> = match part {
                Part::Data(bytes) => bytes.chunks(CHUNK_BYTES).collect(),
                Part::Hole(length) => {
                    let hole = Extent::Hole { length: *length };
                    builder.push(hole, &mut |node| self.node(node)).unwrap();
                    continue;
                }
            };
            for plain in chunks {
                let id = self.chunk(ChunkType::Data, plain);
                let length = plain.len() as u64;
                let extent = Extent::Data { id, length };
                builder.push(extent, &mut |node| self.node(node)).unwrap();
            }
        }
        let size = builder.size();
        (size, builder.finish(&mut |node| self.node(node)).unwrap())
    }

    /// Keeps the nodes of a tree with these entries, in the order of their keys.
    pub fn tree(&mut self, entries: &BTreeMap<Vec<u8>, Entry>) -> Root {
        let mut builder = TreeBuilder::new(self.keyring.boundary_key());
        for entry in entries.values() {
            let mut sink = |node| self.node(node);
            builder.push(entry.clone(), &mut sink).unwrap();
        }
        builder.finish(&mut |node| self.node(node)).unwrap()
    }

    #[expect(
        clippy::unnecessary_wraps,
        reason = "builders hand on what a sink fails with"
    )]
    fn node(&mut self, node: NodeOut) -> Result<ChunkId, FormatError> {
        Ok(self.chunk(node.chunk_type, &node.plain))
    }

    /// Puts all waiting chunks into packs, a data pack and a tree pack at most; says what they hold.
    pub fn packs(&mut self) -> Vec<SegmentPack> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut packs = Vec::new();
        for kind in [Kind::DataPack, Kind::TreePack] {
            let mut blocks = Vec::new();
            for number in 1..=6 {
                let Some(chunk_type) = ChunkType::from_number(number) else {
                    continue;
                };
                let is_one = |id: &&ChunkId| self.chunks[*id].0 == chunk_type;
                let ids: Vec<ChunkId> = waiting.iter().filter(is_one).copied().collect();
                if chunk_type.pack_kind() == kind {
                    for ids in ids.chunks(BLOCK_CHUNKS) {
                        blocks.push(self.block(chunk_type, ids));
                    }
                }
            }
            if !blocks.is_empty() {
                packs.push(self.pack(kind, blocks));
            }
        }
        packs.sort_by_key(|pack| pack.id);
        packs
    }

    fn block(&mut self, chunk_type: ChunkType, ids: &[ChunkId]) -> SealedBlock {
        let mut block = BlockBuilder::new(chunk_type, 0);
        for id in ids {
            block.push(*id, &self.chunks[id].1).unwrap();
        }
        let random = self.draw();
        let mut compressor = Compressor::new().unwrap();
        let level = Compression::Level(1);
        let sealed = block
            .clone()
            .seal(&self.keyring, &mut compressor, level, &random);
        // What is no page cannot be taken apart by column.
        sealed.unwrap_or_else(|_| {
            let stored = Compression::Stored;
            block
                .seal(&self.keyring, &mut compressor, stored, &random)
                .unwrap()
        })
    }

    /// Writes a pack of such blocks, in this order.
    pub fn pack(&mut self, kind: Kind, blocks: Vec<SealedBlock>) -> SegmentPack {
        let (uid, random, padding) = (self.draw(), self.draw(), self.draw());
        let purpose = match kind {
            Kind::TreePack => Purpose::Tree,
            _ => Purpose::Data,
        };
        let key = self.keyring.current(purpose).unwrap();
        let mut pack = PackWriter::new(kind, key, uid).unwrap();
        for block in blocks {
            let chunks = block.chunks.iter();
            let chunks = chunks.map(|(id, length)| (id.prefix(), *length)).collect();
            let pushed = pack.push_block(&block.bytes, block.chunk_type, chunks);
            pushed.unwrap();
        }
        let pack = pack.finish(key, &random, &padding).unwrap();
        self.put(&names::pack(&pack.id), &pack.bytes);
        SegmentPack {
            id: pack.id,
            kind,
            length: pack.bytes.len() as u64,
            directory: pack.directory,
        }
    }

    /// Writes a segment.
    pub fn segment(&mut self, owner: Owner, packs: Vec<SegmentPack>) -> ObjectId {
        let (uid, random) = (self.draw(), self.draw());
        let segment = Segment { owner, packs };
        let (id, object) = segment.seal(&self.keyring, uid, &random).unwrap();
        self.put(&names::segment(&id), &object);
        id
    }

    /// Writes what waits, names it in the cell as its session's, and writes cell and session end.
    pub fn commit(&mut self, mut cell: Cell) {
        let packs = self.packs();
        if !packs.is_empty() {
            let segment = self.segment(Owner::Session(cell.id), packs);
            cell.segments.push(segment);
            cell.segments.sort();
        }
        self.record(&cell);
        self.end(&cell.id, cell.ended);
    }

    /// Writes the end of a session, by the cell that is there.
    pub fn end(&mut self, id: &SessionId, ended: i64) {
        let cell = object_id(&self.objects[&names::cell(id)]);
        let end = SessionEnd {
            id: *id,
            ended,
            cell,
        };
        self.record(&end);
    }

    /// Gives the root of the list that a content is, if it is one.
    pub fn list_root(size: u64, content: &Content) -> Option<ListRoot> {
        match content {
            Content::List { root, level } => Some(ListRoot {
                id: *root,
                level: *level,
                size,
            }),
            _ => None,
        }
    }
}

impl Default for Forge {
    fn default() -> Self {
        Self::new()
    }
}
