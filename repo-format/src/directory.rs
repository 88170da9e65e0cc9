//! Directories: what a pack holds, in the pack itself and in segments (SPEC.md §7).

use alloc::vec::Vec;

use crate::block::check_chunk_length;
use crate::cbor::within;
use crate::codec::{Reader, put_varint, varint_len};
use crate::error::{FormatError, Result};
use crate::ids::ChunkPrefix;
use crate::ids::ChunkType;
use crate::limits::{
    BLOCK_CHUNKS, BLOCK_PLAIN_BYTES, BLOCK_SEALED_BYTES, CHUNK_BYTES, PACK_BLOCKS, PACK_BYTES,
    PACK_CHUNKS,
};
use crate::object::{HEADER_BYTES, Kind};
use crate::seal::OVERHEAD_BYTES;

/// The blocks of a pack, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directory {
    /// The blocks; the first starts behind the header.
    pub blocks: Vec<DirectoryBlock>,
}

/// One block of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryBlock {
    /// The type of the block's chunks.
    pub chunk_type: ChunkType,
    /// Bytes of the block in the pack.
    pub sealed_length: u32,
    /// The chunks in order: prefix, and bytes in the block's plaintext.
    pub chunks: Vec<(ChunkPrefix, u32)>,
}

/// Where a chunk is within its pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// The chunk's prefix.
    pub prefix: ChunkPrefix,
    /// The chunk's type.
    pub chunk_type: ChunkType,
    /// Offset in bytes of the block in the pack.
    pub block_offset: u32,
    /// Bytes of the sealed block.
    pub block_length: u32,
    /// Offset in bytes of the chunk in the block's plaintext.
    pub offset: u32,
    /// Bytes of the chunk.
    pub length: u32,
}

impl Directory {
    /// Gives each block with its offset in bytes in the pack.
    pub fn blocks_with_offsets(&self) -> impl Iterator<Item = (u32, &DirectoryBlock)> {
        self.blocks.iter().scan(HEADER_BYTES as u32, |next, block| {
            let offset = *next;
            *next = offset.saturating_add(block.sealed_length);
            Some((offset, block))
        })
    }

    /// Gives where each chunk is, in order.
    pub fn spots(&self) -> impl Iterator<Item = Spot> {
        self.blocks_with_offsets()
            .flat_map(|(block_offset, block)| {
                block
                    .chunks
                    .iter()
                    .scan(0_u32, move |next, (prefix, length)| {
                        let offset = *next;
                        *next = offset.saturating_add(*length);
                        Some(Spot {
                            prefix: *prefix,
                            chunk_type: block.chunk_type,
                            block_offset,
                            block_length: block.sealed_length,
                            offset,
                            length: *length,
                        })
                    })
            })
    }

    /// Gives the bytes of all sealed blocks together.
    #[must_use]
    pub fn blocks_length(&self) -> u64 {
        let lengths = self
            .blocks
            .iter()
            .map(|block| u64::from(block.sealed_length));
        lengths.sum()
    }

    /// Writes the directory, without the zero bytes that pad it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.blocks.len() as u64);
        for block in &self.blocks {
            out.push(block.chunk_type as u8);
            put_varint(&mut out, block.sealed_length.into());
            put_varint(&mut out, block.chunks.len() as u64);
            for (_, length) in &block.chunks {
                put_varint(&mut out, (*length).into());
            }
        }
        for (prefix, _) in self.blocks.iter().flat_map(|block| &block.chunks) {
            out.extend_from_slice(&prefix.0);
        }
        out
    }

    /// Reads a directory of a pack of the kind `pack_kind`; what follows it is left to the caller.
    pub fn read(reader: &mut Reader<'_>, pack_kind: Kind) -> Result<Self> {
        let count = reader.varint_below("blocks in a pack", PACK_BLOCKS)?;
        let mut blocks = Vec::with_capacity(count.min(reader.rest().len()));
        let mut chunks_left = PACK_CHUNKS;
        let mut bytes_left = PACK_BYTES;
        for _ in 0..count {
            let block = read_block(reader, pack_kind, chunks_left)?;
            chunks_left -= block.chunks.len();
            let length = block.sealed_length as usize;
            bytes_left = bytes_left.checked_sub(length).ok_or(FormatError::Limit {
                what: "bytes of a pack's blocks",
                found: (PACK_BYTES - bytes_left + length) as u64,
                limit: PACK_BYTES as u64,
            })?;
            blocks.push(block);
        }
        for (prefix, _) in blocks.iter_mut().flat_map(|block| &mut block.chunks) {
            *prefix = ChunkPrefix(reader.array()?);
        }
        Ok(Self { blocks })
    }
}

impl DirectoryBlock {
    /// Gives the bytes that the block takes in a directory, of which the count of blocks is not one.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        let lengths = self.chunks.iter();
        let lengths: usize = lengths
            .map(|(_, length)| varint_len((*length).into()))
            .sum();
        let heads = varint_len(self.sealed_length.into()) + varint_len(self.chunks.len() as u64);
        1 + heads + lengths + ChunkPrefix::SIZE * self.chunks.len()
    }
}

/// Reads a block whose prefixes are still to come.
fn read_block(
    reader: &mut Reader<'_>,
    pack_kind: Kind,
    chunks_left: usize,
) -> Result<DirectoryBlock> {
    let chunk_type = ChunkType::from_number(reader.u8()?)
        .filter(|chunk_type| chunk_type.pack_kind() == pack_kind)
        .ok_or_else(|| reader.malformed("a chunk type is unknown or not for this kind of pack"))?;
    let sealed_length = reader.varint_below("sealed block", BLOCK_SEALED_BYTES)?;
    if sealed_length <= OVERHEAD_BYTES {
        return Err(reader.malformed("a block is too short to be one"));
    }
    let count = reader.varint_below("chunks in a block", BLOCK_CHUNKS)?;
    within("chunks in a pack", count, chunks_left)?;
    if count == 0 {
        return Err(reader.malformed("a block has no chunks"));
    }
    let mut chunks = Vec::with_capacity(count.min(reader.rest().len()));
    let mut plaintext = 0;
    for _ in 0..count {
        let length = reader.varint_below("bytes of a chunk", CHUNK_BYTES)?;
        check_chunk_length(length)?;
        plaintext += length;
        chunks.push((ChunkPrefix::default(), length as u32));
    }
    within("plaintext of a block", plaintext, BLOCK_PLAIN_BYTES)?;
    Ok(DirectoryBlock {
        chunk_type,
        sealed_length: sealed_length as u32,
        chunks,
    })
}
