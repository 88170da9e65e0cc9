//! Segments: the packs that a session or a collector round brought (SPEC.md §8).

use alloc::vec::Vec;

use crate::cbor::within;
use crate::codec::{Reader, padding_to, put_varint};
use crate::directory::Directory;
use crate::error::{FormatError, Result};
use crate::ids::{ObjectId, SessionId};
use crate::keys::{Keyring, Purpose};
use crate::limits::{PACK_BYTES, SEGMENT_BYTES, SEGMENT_PACKS};
use crate::object::{HEADER_BYTES, Header, Kind, object_id};
use crate::seal::{self, Aad, OVERHEAD_BYTES};

const PADDING_UNIT: usize = 512;

/// Who brought the packs of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A session.
    Session(SessionId),
    /// A collector round.
    Round(u64),
}

/// A part of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Who brought the packs.
    pub owner: Owner,
    /// The packs and what they hold.
    pub packs: Vec<SegmentPack>,
}

/// A pack in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentPack {
    /// The pack's content name.
    pub id: ObjectId,
    /// Data pack or tree pack.
    pub kind: Kind,
    /// The pack's length in bytes.
    pub length: u64,
    /// What it holds.
    pub directory: Directory,
}

impl Segment {
    /// Makes the segment's object and its content name, with a fresh uid and fresh randomness.
    pub fn seal(
        &self,
        keyring: &Keyring,
        uid: [u8; 16],
        random: &[u8; 32],
    ) -> Result<(ObjectId, Vec<u8>)> {
        within("packs in a segment", self.packs.len(), SEGMENT_PACKS)?;
        let key = keyring.current(Purpose::Index)?;
        let header = Header {
            kind: Kind::Segment,
            key_id: key.id(),
            uid,
        };
        let mut plaintext = self.encode();
        let padding = padding_to(plaintext.len() + OVERHEAD_BYTES, PADDING_UNIT);
        plaintext.resize(plaintext.len() + padding, 0);
        let sealed = seal::seal(key, &Aad::segment(key, &header), random, &plaintext)?;
        let object = [header.encode().as_slice(), &sealed].concat();
        within("bytes of a segment", object.len(), SEGMENT_BYTES)?;
        Ok((object_id(&object), object))
    }

    /// Opens the segment with the content name `id`.
    pub fn open(keyring: &Keyring, id: &ObjectId, object: &[u8]) -> Result<Self> {
        within("bytes of a segment", object.len(), SEGMENT_BYTES)?;
        if object_id(object) != *id {
            return Err(FormatError::WrongHash {
                what: Kind::Segment.word(),
            });
        }
        let header = Header::decode_kind(object, Kind::Segment)?;
        let key = keyring.find(&header.key_id, Kind::Segment)?;
        let sealed = object.get(HEADER_BYTES..).unwrap_or_default();
        Self::decode(&seal::open(key, &Aad::segment(key, &header), sealed)?)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match &self.owner {
            Owner::Session(id) => {
                out.push(0);
                out.extend_from_slice(&id.0);
            }
            Owner::Round(number) => {
                out.push(1);
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        put_varint(&mut out, self.packs.len() as u64);
        for pack in &self.packs {
            pack.encode(&mut out);
        }
        out
    }

    fn decode(plaintext: &[u8]) -> Result<Self> {
        let mut reader = Reader::new("index segment", plaintext);
        let owner = match reader.u8()? {
            0 => Owner::Session(SessionId(reader.array()?)),
            1 => Owner::Round(reader.u64()?),
            _ => return Err(reader.malformed("the kind of its owner is unknown")),
        };
        let count = reader.varint_below("packs in a segment", SEGMENT_PACKS)?;
        let mut packs = Vec::with_capacity(count.min(reader.rest().len()));
        for _ in 0..count {
            packs.push(SegmentPack::read(&mut reader)?);
        }
        let sealed = plaintext.len() + OVERHEAD_BYTES;
        if reader.rest().len() >= PADDING_UNIT || !sealed.is_multiple_of(PADDING_UNIT) {
            return Err(reader.malformed("its padding has the wrong length"));
        }
        reader.finish_padding()?;
        Ok(Self { owner, packs })
    }
}

impl SegmentPack {
    /// Gives about the bytes that the pack takes in a segment, never fewer: writers start another
    /// segment before one grows above [`SEGMENT_BYTES`].
    #[must_use]
    pub fn encoded_bytes_max(&self) -> usize {
        let blocks = self.directory.blocks.iter();
        64 + blocks.map(|block| block.encoded_bytes()).sum::<usize>()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let directory = self.directory.encode();
        out.extend_from_slice(&self.id.0);
        out.push(self.kind as u8);
        put_varint(out, self.length);
        put_varint(out, directory.len() as u64);
        out.extend_from_slice(&directory);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let id = ObjectId(reader.array()?);
        let kind = match Kind::from_number(reader.u8()?) {
            Some(kind @ (Kind::DataPack | Kind::TreePack)) => kind,
            _ => return Err(reader.malformed("the kind of a pack is unknown")),
        };
        let length = reader.varint_below("bytes of a pack", PACK_BYTES)? as u64;
        let directory_length = reader.varint_below("bytes of a segment", SEGMENT_BYTES)?;
        let mut inner = Reader::new("directory in a segment", reader.take(directory_length)?);
        let directory = Directory::read(&mut inner, kind)?;
        if directory.blocks_length() + HEADER_BYTES as u64 > length {
            return Err(inner.malformed("its blocks are longer than the pack"));
        }
        inner.finish()?;
        Ok(Self {
            id,
            kind,
            length,
            directory,
        })
    }
}
