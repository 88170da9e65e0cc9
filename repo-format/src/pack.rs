//! Packs: blocks and the directory of what they hold (SPEC.md §7).

use alloc::vec::Vec;
use core::ops::Range;

use crate::block::check_chunk_length;
use crate::cbor::within;
use crate::codec::{Reader, padding_to, varint_len};
use crate::directory::{Directory, DirectoryBlock};
use crate::error::{FormatError, Result};
use crate::ids::ChunkType;
use crate::ids::{ChunkPrefix, ObjectId};
use crate::keys::{Key, Keyring};
use crate::limits::{BLOCK_CHUNKS, BLOCK_SEALED_BYTES, PACK_BLOCKS, PACK_BYTES, PACK_CHUNKS};
use crate::object::{HEADER_BYTES, Header, Kind, append_random, object_id};
use crate::seal::{self, Aad, OVERHEAD_BYTES};

/// Bytes of the footer of a pack.
pub const FOOTER_BYTES: usize = 16;
/// From this length in bytes on a data pack is closed where little padding is needed.
const CLOSE_DATA_BYTES_MIN: usize = 12 << 20;
/// From this length in bytes on a data pack is closed at once.
const CLOSE_DATA_BYTES_MAX: usize = 24 << 20;
/// The same of tree packs, which are smaller: every writer holds some of them in memory besides
/// the data packs, and nodes are read one block at a time whatever the pack's length.
const CLOSE_TREE_BYTES_MIN: usize = 3 << 20;
const CLOSE_TREE_BYTES_MAX: usize = 6 << 20;

const FOOTER_MAGIC: [u8; 8] = *b"LARDEND\n";
const DIRECTORY_UNIT: usize = 512;
/// Blocks and chunks from which a pack is closed early: what is known of them is in memory until
/// the pack is uploaded, and a chunk may be a byte long.
const CLOSE_BLOCKS: usize = PACK_BLOCKS / 2;
const CLOSE_CHUNKS: usize = PACK_CHUNKS / 64;

/// A pack that is being filled, in memory.
pub struct PackWriter {
    header: Header,
    bytes: Vec<u8>,
    directory: Directory,
    directory_bytes: usize,
    chunk_count: usize,
}

/// A pack that is ready to be uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedPack {
    /// The pack's content name.
    pub id: ObjectId,
    /// Data pack or tree pack.
    pub kind: Kind,
    /// The whole object.
    pub bytes: Vec<u8>,
    /// What the pack holds.
    pub directory: Directory,
}

impl PackWriter {
    /// Starts a pack of the kind `kind` under `key`, with a fresh random uid.
    pub fn new(kind: Kind, key: &Key, uid: [u8; 16]) -> Result<Self> {
        check_pack_kind(kind)?;
        let header = Header {
            kind,
            key_id: key.id(),
            uid,
        };
        let (_, close_bytes_max) = close_bytes(kind);
        // Room for the whole pack, of which nothing is used yet: a growing vector would leave
        // holes of all its former lengths behind.
        let mut bytes = Vec::with_capacity(close_bytes_max);
        bytes.extend_from_slice(&header.encode());
        Ok(Self {
            header,
            bytes,
            directory: Directory::default(),
            directory_bytes: 0,
            chunk_count: 0,
        })
    }

    /// Gives the pack's header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Adds a block that the pack's key sealed, and gives its offset in bytes in the pack.
    pub fn push_block(
        &mut self,
        sealed: &[u8],
        chunk_type: ChunkType,
        chunks: Vec<(ChunkPrefix, u32)>,
    ) -> Result<u32> {
        within("sealed block", sealed.len(), BLOCK_SEALED_BYTES)?;
        within("chunks in a block", chunks.len(), BLOCK_CHUNKS)?;
        within(
            "blocks in a pack",
            self.directory.blocks.len() + 1,
            PACK_BLOCKS,
        )?;
        within(
            "chunks in a pack",
            self.chunk_count + chunks.len(),
            PACK_CHUNKS,
        )?;
        if chunk_type.pack_kind() != self.header.kind
            || chunks.is_empty()
            || sealed.len() <= OVERHEAD_BYTES
        {
            return Err(FormatError::Malformed {
                what: "block",
                at: 0,
                why: "it is empty, or its chunks do not belong in this kind of pack",
            });
        }
        for (_, length) in &chunks {
            check_chunk_length(*length as usize)?;
        }
        let block = DirectoryBlock {
            chunk_type,
            sealed_length: sealed.len() as u32,
            chunks,
        };
        let directory_bytes = self.directory_bytes + block.encoded_bytes();
        let length = self.bytes.len() + sealed.len() + sealed_directory_bytes(directory_bytes + 10);
        within(
            "bytes of a pack",
            padme((length + FOOTER_BYTES) as u64) as usize,
            PACK_BYTES,
        )?;

        let offset = self.bytes.len() as u32;
        self.chunk_count += block.chunks.len();
        self.directory_bytes = directory_bytes;
        self.directory.blocks.push(block);
        self.bytes.extend_from_slice(sealed);
        Ok(offset)
    }

    /// Adds all blocks of another pack under the same key.
    pub fn append(&mut self, other: Self) -> Result<()> {
        if other.header.key_id != self.header.key_id {
            return Err(FormatError::MissingKey {
                purpose: self.header.kind.word(),
            });
        }
        for (offset, block) in other.directory.blocks_with_offsets() {
            let sealed = other.bytes.get(offset as usize..).unwrap_or_default();
            let sealed = sealed.get(..block.sealed_length as usize);
            self.push_block(
                sealed.unwrap_or_default(),
                block.chunk_type,
                block.chunks.clone(),
            )?;
        }
        Ok(())
    }

    /// Tells whether nothing was added yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.directory.blocks.is_empty()
    }

    /// Gives the bytes that the pack would have if it were closed now without padding.
    #[must_use]
    pub fn size(&self) -> usize {
        let count = varint_len(self.directory.blocks.len() as u64);
        let directory = sealed_directory_bytes(count + self.directory_bytes);
        self.bytes.len() + directory + FOOTER_BYTES
    }

    /// Tells whether all blocks of another pack fit into this one.
    #[must_use]
    pub fn fits(&self, other: &Self) -> bool {
        let (_, most) = close_bytes(self.header.kind);
        self.size() + other.size() <= most
            && self.chunk_count + other.chunk_count <= PACK_CHUNKS
            && self.directory.blocks.len() + other.directory.blocks.len() <= PACK_BLOCKS
    }

    /// Tells whether the pack is full: it is long enough, and either needs padding of at most
    /// 0.5 % or can wait no longer for that.
    #[must_use]
    pub fn should_close(&self) -> bool {
        let size = self.size();
        let padding = padme(size as u64) as usize - size;
        let (least, most) = close_bytes(self.header.kind);
        size >= most
            || (size >= least && padding * 200 <= size)
            || self.directory.blocks.len() >= CLOSE_BLOCKS
            || self.chunk_count >= CLOSE_CHUNKS
    }

    /// Closes the pack, under the key it was started with. `random` seals the directory;
    /// `padding_seed` is stretched to the padding. Both must be fresh.
    pub fn finish(
        mut self,
        key: &Key,
        random: &[u8; 32],
        padding_seed: &[u8; 32],
    ) -> Result<FinishedPack> {
        if key.id() != self.header.key_id {
            return Err(FormatError::MissingKey {
                purpose: self.header.kind.word(),
            });
        }
        let mut plaintext = self.directory.encode();
        let padding = padding_to(plaintext.len() + OVERHEAD_BYTES, DIRECTORY_UNIT);
        plaintext.resize(plaintext.len() + padding, 0);
        let aad = Aad::directory(key, &self.header);
        let sealed = seal::seal(key, &aad, random, &plaintext)?;

        let length = self.bytes.len() + sealed.len() + FOOTER_BYTES;
        let padding = padme(length as u64) as usize - length;
        append_random(&mut self.bytes, padding, padding_seed);
        self.bytes.extend_from_slice(&sealed);
        self.bytes
            .extend_from_slice(&(sealed.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&FOOTER_MAGIC);
        Ok(FinishedPack {
            id: object_id(&self.bytes),
            kind: self.header.kind,
            bytes: self.bytes,
            directory: self.directory,
        })
    }
}

/// Gives the lengths in bytes from which a pack of a kind is closed: where that needs little
/// padding, and at once.
#[must_use]
pub fn close_bytes(kind: Kind) -> (usize, usize) {
    if kind == Kind::TreePack {
        (CLOSE_TREE_BYTES_MIN, CLOSE_TREE_BYTES_MAX)
    } else {
        (CLOSE_DATA_BYTES_MIN, CLOSE_DATA_BYTES_MAX)
    }
}

/// Rounds a length up to a Padmé size, which shows only O(log log L) bits of it.
#[must_use]
pub fn padme(length: u64) -> u64 {
    let Some(exponent) = length.checked_ilog2().filter(|exponent| *exponent > 0) else {
        return length;
    };
    let mask = (1_u64 << (exponent - exponent.ilog2() - 1)) - 1;
    length.checked_add(mask).map_or(length, |sum| sum & !mask)
}

/// Finds the sealed directory of a pack of `pack_length` bytes, whose last 16 are `footer`.
pub fn directory_range(pack_length: u64, footer: &[u8]) -> Result<Range<u64>> {
    if pack_length > PACK_BYTES as u64 {
        return Err(FormatError::Limit {
            what: "bytes of a pack",
            found: pack_length,
            limit: PACK_BYTES as u64,
        });
    }
    let mut reader = Reader::new("pack footer", footer);
    let length = u64::from(reader.u32()?);
    if reader.u32()? != 0 || reader.array()? != FOOTER_MAGIC {
        return Err(reader.malformed("its last bytes are not those of a pack"));
    }
    let whole_units = length > 0 && length.is_multiple_of(DIRECTORY_UNIT as u64);
    let end = pack_length.checked_sub(FOOTER_BYTES as u64);
    let range = end.and_then(|end| Some(end.checked_sub(length)?..end));
    let range = range.filter(|range| whole_units && range.start >= HEADER_BYTES as u64);
    let found = range.ok_or_else(|| reader.malformed("the directory's length is impossible"));
    reader.finish()?;
    found
}

/// Opens the sealed directory of a pack of `pack_length` bytes with the header `header`.
pub fn open_directory(
    keyring: &Keyring,
    header: &Header,
    pack_length: u64,
    sealed: &[u8],
) -> Result<Directory> {
    check_pack_kind(header.kind)?;
    let key = keyring.find(&header.key_id, header.kind)?;
    let plaintext = seal::open(key, &Aad::directory(key, header), sealed)?;
    let mut reader = Reader::new("pack directory", &plaintext);
    let directory = Directory::read(&mut reader, header.kind)?;
    if reader.rest().len() >= DIRECTORY_UNIT {
        return Err(reader.malformed("it is padded more than needed"));
    }
    let fixed = (HEADER_BYTES + sealed.len() + FOOTER_BYTES) as u64;
    if directory.blocks_length() + fixed > pack_length {
        return Err(reader.malformed("its blocks are longer than the pack"));
    }
    reader.finish_padding()?;
    Ok(directory)
}

/// Reads a whole pack: checks its content name, and opens its header and directory.
pub fn open_pack(keyring: &Keyring, id: &ObjectId, pack: &[u8]) -> Result<(Header, Directory)> {
    within("bytes of a pack", pack.len(), PACK_BYTES)?;
    if object_id(pack) != *id {
        return Err(FormatError::WrongHash { what: "pack" });
    }
    let header = Header::decode(pack)?;
    let footer = pack
        .last_chunk::<FOOTER_BYTES>()
        .map_or(pack, |footer| footer);
    let range = directory_range(pack.len() as u64, footer)?;
    let sealed = pack
        .get(range.start as usize..range.end as usize)
        .unwrap_or_default();
    let directory = open_directory(keyring, &header, pack.len() as u64, sealed)?;
    Ok((header, directory))
}

/// Gives the bytes of a sealed directory whose encoding has `encoded` bytes.
fn sealed_directory_bytes(encoded: usize) -> usize {
    (encoded + OVERHEAD_BYTES).next_multiple_of(DIRECTORY_UNIT)
}

/// Refuses kinds of objects that are not packs.
fn check_pack_kind(kind: Kind) -> Result<()> {
    if matches!(kind, Kind::DataPack | Kind::TreePack) {
        Ok(())
    } else {
        Err(FormatError::Malformed {
            what: "pack",
            at: 9,
            why: "its header names another kind of object",
        })
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

    fn finished(blocks: &[(Vec<u8>, Vec<u32>)]) -> FinishedPack {
        let keyring = keyring();
        let key = keyring.current(Purpose::Data).unwrap();
        let mut writer = PackWriter::new(Kind::DataPack, key, [1; 16]).unwrap();
        let mut expected = HEADER_BYTES;
        for (bytes, lengths) in blocks {
            let prefix = |length: &u32| (ChunkPrefix([*length as u8; 16]), *length);
            let chunks = lengths.iter().map(prefix).collect();
            let offset = writer.push_block(bytes, ChunkType::Data, chunks).unwrap();
            assert_eq!(offset as usize, expected);
            expected += bytes.len();
        }
        let size = writer.size() as u64;
        let pack = writer.finish(key, &[2; 32], &[3; 32]).unwrap();
        assert_eq!(pack.bytes.len() as u64, padme(size));
        pack
    }

    #[test]
    fn padme_sizes_are_those_of_its_definition() {
        for (length, size) in [
            (0, 0),
            (1, 1),
            (2, 2),
            (9, 10),
            (64, 64),
            (65, 72),
            (1000, 1024),
            (1025, 1088),
            (1_000_000, 1_015_808),
            (12 << 20, 12 << 20),
            ((12 << 20) + 1, (12 << 20) + (1 << 18)),
            ((16 << 20) + 1, (16 << 20) + (1 << 19)),
        ] {
            assert_eq!(padme(length), size, "{length}");
        }
        assert_eq!(padme(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_pack_is_closed_where_padding_is_little_and_at_the_latest_when_it_is_full() {
        let keyring = keyring();
        let key = keyring.current(Purpose::Data).unwrap();
        let mut writer = PackWriter::new(Kind::DataPack, key, [1; 16]).unwrap();
        let block = vec![0; (1 << 20) + 300_000];
        while !writer.should_close() {
            let chunks = vec![(ChunkPrefix::default(), 1)];
            writer.push_block(&block, ChunkType::Data, chunks).unwrap();
        }
        let size = writer.size();
        assert!((CLOSE_DATA_BYTES_MIN..CLOSE_DATA_BYTES_MAX + block.len()).contains(&size));
        assert!(size >= CLOSE_DATA_BYTES_MAX || (padme(size as u64) as usize - size) * 200 <= size);
    }

    #[test]
    fn tree_packs_are_short_and_no_pack_has_very_many_chunks() {
        let keyring = keyring();
        let key = keyring.current(Purpose::Tree).unwrap();
        let fill = |sealed: usize, chunks: usize| {
            let mut writer = PackWriter::new(Kind::TreePack, key, [1; 16]).unwrap();
            while !writer.should_close() {
                let chunks = vec![(ChunkPrefix::default(), 1); chunks];
                let block = vec![0; sealed];
                writer
                    .push_block(&block, ChunkType::TreeLeaf, chunks)
                    .unwrap();
            }
            writer
        };
        let size = fill(41_003, 30).size();
        assert!((CLOSE_TREE_BYTES_MIN..CLOSE_TREE_BYTES_MAX + 41_003).contains(&size));
        let many = fill(100, 3000);
        assert_eq!(many.chunk_count, 18_000);
        // A pair of which one is full fits into no pack; of two short ones it does.
        let half = |sealed: usize| {
            let mut writer = PackWriter::new(Kind::TreePack, key, [1; 16]).unwrap();
            let chunk = vec![(ChunkPrefix::default(), 1)];
            writer
                .push_block(&vec![0; sealed], ChunkType::TreeLeaf, chunk)
                .unwrap();
            writer
        };
        assert!(half(2 << 20).fits(&half(3 << 20)) && !half(2 << 20).fits(&half(4 << 20)));
    }

    #[test]
    fn impossible_directories_are_refused() {
        let keyring = keyring();
        let key = keyring.current(Purpose::Data).unwrap();
        let mut writer = PackWriter::new(Kind::DataPack, key, [1; 16]).unwrap();
        let chunk = (ChunkPrefix::default(), 1);
        assert!(
            writer
                .push_block(&[0; 50], ChunkType::Value, vec![chunk])
                .is_err()
        );
        assert!(
            writer
                .push_block(&[0; 50], ChunkType::Data, vec![])
                .is_err()
        );
        assert!(
            writer
                .push_block(&[0; 50], ChunkType::Data, vec![(chunk.0, 0)])
                .is_err()
        );
        assert!(PackWriter::new(Kind::Segment, key, [1; 16]).is_err());
        let pack = finished(&[(vec![0; 600], vec![1])]);
        let footer = pack.bytes.last_chunk::<16>().unwrap();
        assert!(directory_range(100, footer).is_err());
        assert!(directory_range(PACK_BYTES as u64 + 1, footer).is_err());
        let range = directory_range(pack.bytes.len() as u64, footer).unwrap();
        let header = Header::decode(&pack.bytes).unwrap();
        let sealed = &pack.bytes[range.start as usize..range.end as usize];
        assert!(open_directory(&keyring, &header, 1 << 20, sealed).is_ok());
        assert!(open_directory(&keyring, &header, 1000, sealed).is_err());
        let tree_only = keyring.restricted_to(&[Purpose::Tree]);
        assert!(open_directory(&tree_only, &header, 1 << 20, sealed).is_err());
    }

    proptest! {
        #[test]
        fn packs_go_both_ways(
            blocks in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 41..200), prop::collection::vec(1..4_000_u32, 1..9)),
                0..9,
            ),
            at: prop::sample::Index,
            bit in 0..8_u8,
        ) {
            let pack = finished(&blocks);
            let (header, directory) = open_pack(&keyring(), &pack.id, &pack.bytes).unwrap();
            prop_assert_eq!(header.kind, Kind::DataPack);
            prop_assert_eq!(&directory, &pack.directory);
            for ((offset, block), (bytes, _)) in directory.blocks_with_offsets().zip(&blocks) {
                let end = offset as usize + block.sealed_length as usize;
                prop_assert_eq!(&pack.bytes[offset as usize..end], bytes.as_slice());
            }
            prop_assert_eq!(
                directory.spots().map(|spot| spot.length).collect::<Vec<_>>(),
                blocks.iter().flat_map(|(_, lengths)| lengths.clone()).collect::<Vec<_>>()
            );

            // Without the content name the directory and the footer are bound all the same.
            let mut bad = pack.bytes.clone();
            let range = directory_range(bad.len() as u64, bad.last_chunk::<16>().unwrap()).unwrap();
            let at = range.start as usize + at.index(bad.len() - range.start as usize);
            bad[at] ^= 1_u8 << bit;
            prop_assert!(open_pack(&keyring(), &pack.id, &bad).is_err());
            prop_assert!(open_pack(&keyring(), &object_id(&bad), &bad).is_err());
        }

        #[test]
        fn no_bytes_make_a_directory_panic(bytes: Vec<u8>) {
            let _ = Directory::read(&mut Reader::new("test", &bytes), Kind::TreePack);
            let _ = directory_range(bytes.len() as u64, &bytes);
            let _ = open_pack(&keyring(), &object_id(&bytes), &bytes);
        }
    }
}
