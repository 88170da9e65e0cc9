//! Blocks: chunks of one type, compressed and sealed together (SPEC.md §6).

use alloc::vec::Vec;

use crate::cbor::within;
use crate::compression::{Compressor, Decompressor};
use crate::error::{FormatError, Result};
use crate::ids::ChunkType;
use crate::ids::{ChunkId, KeyId};
use crate::keys::Keyring;
use crate::limits::{BLOCK_CHUNKS, BLOCK_PLAIN_BYTES, BLOCK_SEALED_BYTES, CHUNK_BYTES};
use crate::list::{LIST_INTERIOR_RAW_FIELDS, LIST_LEAF_RAW_FIELDS};
use crate::node::{INTERIOR_RAW_FIELDS, LEAF_RAW_FIELDS};
use crate::page::{transpose, untranspose};
use crate::seal::{self, Aad, Commitment, NONCE_BYTES};

const CODEC_STORED: u8 = 0;
const CODEC_ZSTD: u8 = 1;
const CODEC_COLUMNS: u8 = 2;
/// Room for the nonce and the codec in front of the chunks.
const ROOM_BYTES: usize = NONCE_BYTES + 1;

/// How a writer compresses blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Stored,
    /// By zstd at this level, nodes by column; what does not gain 3 % is stored.
    Level(i32),
}

/// A block that is being filled; the chunks are copied once, into the place where they are sealed.
#[derive(Clone)]
pub struct BlockBuilder {
    chunk_type: ChunkType,
    buffer: Vec<u8>,
    chunks: Vec<(ChunkId, u32)>,
}

/// A block as it goes into a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedBlock {
    /// The type of all its chunks.
    pub chunk_type: ChunkType,
    /// The key that sealed it; the pack's must be the same.
    pub key_id: KeyId,
    /// The sealed bytes.
    pub bytes: Vec<u8>,
    /// The chunks in order, with their lengths in bytes.
    pub chunks: Vec<(ChunkId, u32)>,
}

impl BlockBuilder {
    /// Starts a block of chunks of the type `chunk_type`, with room for `plain_bytes` bytes.
    #[must_use]
    pub fn new(chunk_type: ChunkType, plain_bytes: usize) -> Self {
        let room = ROOM_BYTES + seal::TAG_BYTES;
        let mut buffer = Vec::with_capacity(plain_bytes.min(BLOCK_PLAIN_BYTES) + room);
        buffer.resize(ROOM_BYTES, CODEC_STORED);
        Self {
            chunk_type,
            buffer,
            chunks: Vec::new(),
        }
    }

    /// Gives the type of the block's chunks.
    #[must_use]
    pub fn chunk_type(&self) -> ChunkType {
        self.chunk_type
    }

    /// Gives the bytes of all chunks so far.
    #[must_use]
    pub fn plain_bytes(&self) -> usize {
        self.buffer.len() - ROOM_BYTES
    }

    /// Gives the chunks so far, in order, with their lengths in bytes.
    #[must_use]
    pub fn chunks(&self) -> &[(ChunkId, u32)] {
        &self.chunks
    }

    /// Adds a chunk, whose id the caller has computed.
    pub fn push(&mut self, id: ChunkId, plaintext: &[u8]) -> Result<()> {
        check_chunk_length(plaintext.len())?;
        within("chunks in a block", self.chunks.len() + 1, BLOCK_CHUNKS)?;
        let total = self.plain_bytes() + plaintext.len();
        within("plaintext of a block", total, BLOCK_PLAIN_BYTES)?;
        self.buffer.extend_from_slice(plaintext);
        self.chunks.push((id, plaintext.len() as u32));
        Ok(())
    }

    /// Compresses and seals the block under the newest key, with 32 fresh random bytes.
    pub fn seal(
        mut self,
        keyring: &Keyring,
        compressor: &mut Compressor,
        compression: Compression,
        random: &[u8; 32],
    ) -> Result<SealedBlock> {
        let key = keyring.current(self.chunk_type.purpose())?;
        let aad = Aad::block(key, self.chunk_type);
        let compressed = match compression {
            Compression::Stored => None,
            Compression::Level(level) => self.compressed(compressor, level)?,
        };
        let bytes = match compressed {
            Some(mut bytes) => {
                seal::seal_in_place(key, &aad, Commitment::Plaintext, random, &mut bytes)?;
                bytes
            }
            None => {
                let ids: Vec<_> = self.chunks.iter().map(|(id, _)| *id).collect();
                let commitment = Commitment::Ids(&ids);
                seal::seal_in_place(key, &aad, commitment, random, &mut self.buffer)?;
                self.buffer
            }
        };
        Ok(SealedBlock {
            chunk_type: self.chunk_type,
            key_id: key.id(),
            bytes,
            chunks: self.chunks,
        })
    }

    /// Gives room for the nonce and the compressed payload; nothing if it should be stored.
    fn compressed(&self, compressor: &mut Compressor, level: i32) -> Result<Option<Vec<u8>>> {
        let plaintext = self.buffer.get(ROOM_BYTES..).unwrap_or_default();
        let (codec, compressed) = match self.chunk_type {
            ChunkType::Data | ChunkType::Value => (
                CODEC_ZSTD,
                compressor.compress(plaintext, level, ROOM_BYTES)?,
            ),
            _ => {
                let mut rest = plaintext;
                let mut pages = Vec::with_capacity(self.chunks.len());
                for (_, length) in &self.chunks {
                    let (page, after) = rest
                        .split_at_checked(*length as usize)
                        .unwrap_or((rest, &[]));
                    pages.push(page);
                    rest = after;
                }
                let raw = raw_fields(self.chunk_type);
                let columns = transpose(&pages, raw, level, &mut compressor.context)?;
                let smaller = Some(columns).filter(|data| data.len() < plaintext.len());
                let behind_room = |data: Vec<u8>| [&[0; ROOM_BYTES], data.as_slice()].concat();
                (CODEC_COLUMNS, smaller.map(behind_room))
            }
        };
        Ok(compressed.map(|mut bytes| {
            if let Some(place) = bytes.get_mut(NONCE_BYTES) {
                *place = codec;
            }
            bytes
        }))
    }
}

impl SealedBlock {
    /// Opens the block and compares every chunk with its id, as a reader will: what a faulty processor or
    /// memory made of it while it was compressed and sealed is found before it is uploaded.
    pub fn verify(&self, keyring: &Keyring, decompressor: &mut Decompressor) -> Result<()> {
        let plaintext = open_block(
            keyring,
            &self.key_id,
            self.chunk_type,
            &self.bytes,
            decompressor,
        )?;
        let mut offset = 0;
        for (id, length) in &self.chunks {
            chunk_of(keyring, self.chunk_type, &plaintext, offset, *length, id)?;
            offset += *length;
        }
        Ok(())
    }
}

/// Opens a block of chunks of the type `chunk_type` that the key `key_id` sealed, and gives its
/// plaintext: all chunks, joined. Each chunk's id is still to be checked, by [`chunk_of`].
pub fn open_block(
    keyring: &Keyring,
    key_id: &KeyId,
    chunk_type: ChunkType,
    sealed: &[u8],
    decompressor: &mut Decompressor,
) -> Result<Vec<u8>> {
    within("sealed block", sealed.len(), BLOCK_SEALED_BYTES)?;
    let key = keyring.find(key_id, chunk_type.pack_kind())?;
    let mut payload = seal::open(key, &Aad::block(key, chunk_type), sealed)?;
    let malformed = |why| FormatError::Malformed {
        what: "block",
        at: 0,
        why,
    };
    let (codec, data) = payload
        .split_first()
        .ok_or_else(|| malformed("it is empty"))?;
    let is_node = !matches!(chunk_type, ChunkType::Data | ChunkType::Value);
    match *codec {
        CODEC_STORED => {
            within("plaintext of a block", data.len(), BLOCK_PLAIN_BYTES)?;
            payload.drain(..1);
            Ok(payload)
        }
        CODEC_ZSTD => decompressor.decompress("plaintext of a block", data, BLOCK_PLAIN_BYTES),
        CODEC_COLUMNS if is_node => untranspose(data, BLOCK_PLAIN_BYTES, &mut decompressor.context),
        _ => Err(malformed(
            "its codec is unknown or not for chunks of its type",
        )),
    }
}

/// Takes the chunk of `length` bytes at `offset` out of a block's plaintext, and checks its id.
pub fn chunk_of<'a>(
    keyring: &Keyring,
    chunk_type: ChunkType,
    plaintext: &'a [u8],
    offset: u32,
    length: u32,
    id: &ChunkId,
) -> Result<&'a [u8]> {
    let chunk = plaintext
        .get(offset as usize..)
        .and_then(|rest| rest.get(..length as usize))
        .ok_or(FormatError::Malformed {
            what: "block",
            at: plaintext.len(),
            why: "it ends before a chunk that the index places in it",
        })?;
    if keyring.chunk_id(chunk_type, chunk) == *id {
        Ok(chunk)
    } else {
        Err(FormatError::WrongId { what: "chunk" })
    }
}

/// Checks that a chunk has at least one byte and not too many.
pub(crate) fn check_chunk_length(length: usize) -> Result<()> {
    within("bytes of a chunk", length, CHUNK_BYTES)?;
    if length == 0 {
        return Err(FormatError::Malformed {
            what: "chunk",
            at: 0,
            why: "it is empty",
        });
    }
    Ok(())
}

/// Gives the fields of a node's page that hold ids, which compression only makes longer.
fn raw_fields(chunk_type: ChunkType) -> &'static [u8] {
    match chunk_type {
        ChunkType::TreeLeaf => LEAF_RAW_FIELDS,
        ChunkType::TreeInterior => INTERIOR_RAW_FIELDS,
        ChunkType::ListLeaf => LIST_LEAF_RAW_FIELDS,
        ChunkType::ListInterior => LIST_INTERIOR_RAW_FIELDS,
        ChunkType::Data | ChunkType::Value => &[],
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::ids::RepositoryId;
    use crate::keys::{KEYRING_RANDOM_BYTES, Purpose};
    use alloc::vec;
    use proptest::prelude::*;

    fn keyring() -> Keyring {
        let random: [u8; KEYRING_RANDOM_BYTES] = core::array::from_fn(|at| at as u8);
        Keyring::generate(RepositoryId([5; 16]), &random)
    }

    fn sealed(chunk_type: ChunkType, chunks: &[&[u8]], compression: Compression) -> SealedBlock {
        let keyring = keyring();
        let mut builder = BlockBuilder::new(chunk_type, 0);
        for chunk in chunks {
            builder
                .push(keyring.chunk_id(chunk_type, chunk), chunk)
                .unwrap();
        }
        let mut compressor = Compressor::new().unwrap();
        builder
            .seal(&keyring, &mut compressor, compression, &[3; 32])
            .unwrap()
    }

    fn open(block: &SealedBlock, chunk_type: ChunkType) -> Result<Vec<u8>> {
        let mut decompressor = Decompressor::new().unwrap();
        open_block(
            &keyring(),
            &block.key_id,
            chunk_type,
            &block.bytes,
            &mut decompressor,
        )
    }

    #[test]
    fn chunks_come_back_by_place_and_only_under_their_ids() {
        let block = sealed(ChunkType::Data, &[b"one", b"three"], Compression::Stored);
        let plaintext = open(&block, ChunkType::Data).unwrap();
        let chunk = |offset, length, at: usize| {
            let id = &block.chunks[at].0;
            chunk_of(&keyring(), ChunkType::Data, &plaintext, offset, length, id)
        };
        assert_eq!(chunk(3, 5, 1), Ok(b"three".as_slice()));
        assert_eq!(chunk(3, 5, 0), Err(FormatError::WrongId { what: "chunk" }));
        assert!(chunk(3, 6, 1).is_err() && chunk(u32::MAX, u32::MAX, 1).is_err());
    }

    #[test]
    fn a_block_that_is_not_what_went_in_is_not_verified() {
        let verify = |block: &SealedBlock| {
            let mut decompressor = Decompressor::new().unwrap();
            block.verify(&keyring(), &mut decompressor)
        };
        for compression in [Compression::Stored, Compression::Level(3)] {
            let text = [b"all work and no play ".as_slice(); 20].concat();
            let block = sealed(ChunkType::Data, &[b"one", &text, b"three"], compression);
            assert_eq!(verify(&block), Ok(()));
            for at in 0..block.bytes.len() {
                let mut flipped = block.clone();
                flipped.bytes[at] ^= 1;
                assert!(verify(&flipped).is_err(), "byte {at}");
            }
            // What was sealed soundly and is not what the ids were made of.
            let mut other = block.clone();
            other.chunks.swap(0, 2);
            assert!(verify(&other).is_err());
            other.chunks.clone_from(&block.chunks);
            other.chunks.push(block.chunks[0]);
            assert!(verify(&other).is_err());
        }
    }

    #[test]
    fn what_does_not_compress_is_stored_and_what_does_is_not() {
        let level = Compression::Level(3);
        let mut noise = vec![0; 1 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        let overhead = ROOM_BYTES + seal::TAG_BYTES;
        assert_eq!(
            sealed(ChunkType::Data, &[&noise], level).bytes.len(),
            noise.len() + overhead
        );
        let zeros = vec![0; 1 << 20];
        assert!(sealed(ChunkType::Data, &[&zeros], level).bytes.len() < 1 << 10);
        assert_eq!(
            open(&sealed(ChunkType::Data, &[&zeros], level), ChunkType::Data),
            Ok(zeros)
        );
    }

    #[test]
    fn a_block_opens_only_as_its_type_and_under_its_key() {
        let mut block = sealed(ChunkType::Value, &[b"value"], Compression::Stored);
        assert!(open(&block, ChunkType::Value).is_ok());
        assert!(open(&block, ChunkType::TreeLeaf).is_err());
        assert!(open(&block, ChunkType::Data).is_err());
        block.key_id = keyring().current(Purpose::Data).unwrap().id();
        assert!(open(&block, ChunkType::Value).is_err());
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_unpacked() {
        let mut compressor = Compressor::new().unwrap();
        let bomb = vec![0; BLOCK_PLAIN_BYTES + 1];
        let frame = compressor.compress(&bomb, 3, 0).unwrap().unwrap();
        let mut decompressor = Decompressor::new().unwrap();
        assert_eq!(
            decompressor.decompress("test", &frame, BLOCK_PLAIN_BYTES),
            Err(FormatError::Limit {
                what: "test",
                found: BLOCK_PLAIN_BYTES as u64 + 1,
                limit: BLOCK_PLAIN_BYTES as u64,
            })
        );
        let twice = [frame.as_slice(), &frame].concat();
        assert!(
            decompressor
                .decompress("test", &twice, 4 * BLOCK_PLAIN_BYTES)
                .is_err()
        );
        assert!(
            decompressor
                .decompress("test", &frame, 4 * BLOCK_PLAIN_BYTES)
                .is_ok()
        );
    }

    #[test]
    fn nodes_are_sealed_by_column() {
        let mut nodes = crate::testing::Nodes::default();
        nodes.build(&crate::testing::numbered(3000));
        for chunk_type in [ChunkType::TreeLeaf, ChunkType::TreeInterior] {
            let kept = nodes.kept.values().filter(|(kept, _)| *kept == chunk_type);
            let pages: Vec<&[u8]> = kept.map(|(_, page)| page.as_slice()).collect();
            let block = sealed(chunk_type, &pages, Compression::Level(3));
            let stored = sealed(chunk_type, &pages, Compression::Stored);
            assert!(block.bytes.len() < stored.bytes.len());
            assert_eq!(open(&block, chunk_type), Ok(pages.concat()));
            assert_eq!(open(&stored, chunk_type), Ok(pages.concat()));
        }
    }

    proptest! {
        #[test]
        fn blocks_go_both_ways_and_no_bit_can_change(
            chunks in prop::collection::vec(prop::collection::vec(0_u8..4, 1..300), 1..10),
            level in prop_oneof![Just(Compression::Stored), (1..6).prop_map(Compression::Level)],
            at: prop::sample::Index,
            bit in 0..8_u8,
        ) {
            let slices: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let mut block = sealed(ChunkType::Data, &slices, level);
            prop_assert_eq!(open(&block, ChunkType::Data), Ok(chunks.concat()));
            let at = at.index(block.bytes.len());
            block.bytes[at] ^= 1_u8 << bit;
            prop_assert!(open(&block, ChunkType::Data).is_err());
        }

        #[test]
        fn no_frame_makes_the_decompressor_panic(mut bytes: Vec<u8>, magic: bool) {
            if magic {
                bytes.splice(0..0, FRAME);
            }
            let _ = Decompressor::new().unwrap().decompress("test", &bytes, 1 << 16);
        }
    }

    const FRAME: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
}
