//! How the index lies in RocksDB.
//!
//! Chunks (a column family of their own): the key is the 16-byte prefix, so
//! that one filter probe answers a miss; the value is a list of entries, one
//! for each pack, to which RocksDB appends by merging. An entry names its pack
//! by a number, which is never used twice.
//!
//! All else is in the default column family, under one letter each:
//! `s` segment id → numbers of its packs; `p` number → pack id, kind, size;
//! `i` pack id → number; `w` number → nothing: named by no fed segment yet.

use larder_format::ids::{ChunkPrefix, ObjectId};
use roaring::RoaringBitmap;
use rocksdb::MergeOperands;

use super::{PackInfo, PackKind, Place};

/// The number that stands for a pack.
pub(super) type Ordinal = u32;

/// The key, below all chunks, of the next free number: it lies with the chunks so that a
/// sorted file carries its entries and the number that they used up, or neither.
pub(super) const NEXT_ORDINAL_KEY: &[u8] = &[0];

/// One place of a chunk, with the pack as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub ordinal: Ordinal,
    pub block_offset: u64,
    pub block_length: u32,
    pub offset: u32,
    pub length: u32,
}

impl Entry {
    pub(super) fn new(ordinal: Ordinal, place: &Place) -> Self {
        Self {
            ordinal,
            block_offset: place.block_offset,
            block_length: place.block_length,
            offset: place.offset,
            length: place.length,
        }
    }

    pub(super) fn place(&self, pack: &PackInfo) -> Place {
        Place {
            pack: pack.id,
            pack_kind: pack.kind,
            block_offset: self.block_offset,
            block_length: self.block_length,
            offset: self.offset,
            length: self.length,
        }
    }

    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        put_varint(bytes, u64::from(self.ordinal));
        put_varint(bytes, self.block_offset);
        put_varint(bytes, u64::from(self.block_length));
        put_varint(bytes, u64::from(self.offset));
        put_varint(bytes, u64::from(self.length));
    }

    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self {
            ordinal: take_varint_u32(bytes)?,
            block_offset: take_varint(bytes)?,
            block_length: take_varint_u32(bytes)?,
            offset: take_varint_u32(bytes)?,
            length: take_varint_u32(bytes)?,
        })
    }
}

/// Walks the entries of a value; `None` stands for one that cannot be read, and ends the walk.
pub(super) fn entries(mut bytes: &[u8]) -> impl Iterator<Item = Option<Entry>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let entry = Entry::decode(&mut bytes);
        if entry.is_none() {
            bytes = &[];
        }
        Some(entry)
    })
}

/// Appends values to one another, keeping one entry for each pack.
pub(super) fn merge_entries(
    _key: &[u8],
    existing: Option<&[u8]>,
    operands: &MergeOperands,
) -> Option<Vec<u8>> {
    let mut merged: Vec<Entry> = Vec::new();
    for value in existing.into_iter().chain(operands) {
        for entry in entries(value) {
            let entry = entry?;
            if !merged.iter().any(|known| known.ordinal == entry.ordinal) {
                merged.push(entry);
            }
        }
    }
    let mut bytes = Vec::new();
    merged.iter().for_each(|entry| entry.encode(&mut bytes));
    Some(bytes)
}

pub(super) fn segment_key(segment: &ObjectId) -> Vec<u8> {
    tagged(b's', &segment.0)
}

pub(super) fn pack_key(ordinal: Ordinal) -> Vec<u8> {
    tagged(b'p', &ordinal.to_be_bytes())
}

pub(super) fn pack_id_key(pack: &ObjectId) -> Vec<u8> {
    tagged(b'i', &pack.0)
}

pub(super) fn unnamed_key(ordinal: Ordinal) -> Vec<u8> {
    tagged(b'w', &ordinal.to_be_bytes())
}

pub(super) fn block_key(pack: &ObjectId, offset: u64) -> Vec<u8> {
    [pack.0.as_slice(), &offset.to_be_bytes()].concat()
}

fn tagged(tag: u8, rest: &[u8]) -> Vec<u8> {
    [&[tag], rest].concat()
}

pub(super) fn encode_pack(pack: &PackInfo) -> Vec<u8> {
    let kind = [pack.kind as u8];
    [pack.id.0.as_slice(), &kind, &pack.size.to_be_bytes()].concat()
}

pub(super) fn decode_pack(bytes: &[u8]) -> Option<PackInfo> {
    let (id, rest) = bytes.split_at_checked(ObjectId::SIZE)?;
    let (kind, size) = rest.split_first()?;
    Some(PackInfo {
        id: ObjectId::from_slice(id)?,
        kind: PackKind::from_number(*kind)?,
        size: u64::from_be_bytes(size.try_into().ok()?),
    })
}

pub(super) fn decode_ordinal(bytes: &[u8]) -> Option<Ordinal> {
    Some(Ordinal::from_be_bytes(bytes.try_into().ok()?))
}

pub(super) fn encode_ordinals(ordinals: &RoaringBitmap) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(ordinals.serialized_size());
    ordinals.serialize_into(&mut bytes).ok()?;
    Some(bytes)
}

pub(super) fn decode_ordinals(bytes: &[u8]) -> Option<RoaringBitmap> {
    RoaringBitmap::deserialize_from(bytes).ok()
}

pub(super) fn decode_prefix(key: &[u8]) -> Option<ChunkPrefix> {
    ChunkPrefix::from_slice(key)
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        value |= part
            .checked_shl(shift)
            .filter(|moved| moved >> shift == part)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take_varint_u32(bytes: &mut &[u8]) -> Option<u32> {
    u32::try_from(take_varint(bytes)?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn entries_come_back_and_no_bytes_panic(
            fields in proptest::collection::vec(any::<(u32, u64, u32, u32, u32)>(), 0..5),
            noise in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let written: Vec<_> = fields
                .into_iter()
                .map(|(ordinal, block_offset, block_length, offset, length)| Entry {
                    ordinal, block_offset, block_length, offset, length,
                })
                .collect();
            let mut bytes = Vec::new();
            written.iter().for_each(|entry| entry.encode(&mut bytes));
            let read: Option<Vec<_>> = entries(&bytes).collect();
            prop_assert_eq!(read.unwrap(), written);
            prop_assert!(entries(&noise).count() <= noise.len());
        }
    }
}
