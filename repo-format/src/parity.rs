//! Parity objects: what damaged and missing packs are rebuilt from (SPEC.md §18).
//!
//! Where every byte of one is and how the packs of its group are cut; the code itself (Reed-Solomon)
//! is not here. A parity object holds nothing secret and no key is needed for it.

use alloc::vec::Vec;

use crate::cbor::{self, Encoder, within};
use crate::error::{FormatError, Result};
use crate::ids::{KeyId, ObjectId};
use crate::limits::{
    PACK_BYTES, PARITY_BYTES, PARITY_PACKS, PARITY_PIECES, PARITY_RECOVERY, PARITY_STRIP,
};
use crate::object::{HEADER_BYTES, Header, Kind};

/// Bytes of a piece: of a pack, and of what packs are rebuilt from.
pub const PIECE_BYTES: usize = 4096;
/// Bytes of the checksum of a piece.
pub const SUM_BYTES: usize = 8;
/// The lowest and the highest share of its packs' bytes, in percent, that a parity object is made with.
pub const PERCENT: core::ops::RangeInclusive<u8> = 2..=100;
/// Pieces that writers have in a strip at most, those for recovery rounded up to a power of two.
const WRITTEN_STRIP: usize = 8192;
/// Bytes at the end of a parity object, from which its second group record is found.
pub const FOOTER_BYTES: usize = 16;
/// Bytes around the CBOR of a group record: its length and its hash.
const FRAME_BYTES: usize = 4 + HASH_BYTES;
const HASH_BYTES: usize = 32;
/// The longest CBOR of a group record.
const RECORD_BYTES: usize = 64 << 10;
const FOOTER_MAGIC: [u8; 8] = *b"LARDPAR\n";
const WHAT: &str = "parity object";

/// The checksum of a piece.
pub type Sum = [u8; SUM_BYTES];

/// Computes the checksum of a piece; what is missing at the end of a pack's last one counts as zeros.
#[must_use]
pub fn sum(piece: &[u8]) -> Sum {
    let mut hasher = blake3::Hasher::new();
    hasher.update(piece);
    let zeros = [0; PIECE_BYTES];
    hasher.update(zeros.get(piece.len()..).unwrap_or_default());
    let mut sum = [0; SUM_BYTES];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

/// One pack of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The pack.
    pub id: ObjectId,
    /// Its length in bytes.
    pub length: u64,
}

impl Member {
    /// Gives the number of its pieces.
    #[must_use]
    pub fn pieces(&self) -> usize {
        let pieces = self.length.div_ceil(PIECE_BYTES as u64);
        usize::try_from(pieces).unwrap_or(usize::MAX)
    }
}

/// The packs that one parity object protects, and how: piece c of a pack belongs to strip c mod `strips`,
/// and each strip has `recovery` pieces from which as many of its pieces can be computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Strips.
    pub strips: usize,
    /// Pieces for recovery in each strip.
    pub recovery: usize,
    /// The packs, ascending by id.
    pub members: Vec<Member>,
}

impl Group {
    /// Chooses strips and pieces for recovery for these packs; nothing if there is no pack, or more than one
    /// parity object can serve.
    ///
    /// `percent` of the pieces of each strip can be lost, and at least as many as `percent` of the largest pack
    /// has, so that damage to one pack up to that share of it can be anywhere in it. With `whole` it is at
    /// least as many as the largest pack has in a strip: any one pack may be lost as a whole.
    #[must_use]
    pub fn plan(mut members: Vec<Member>, percent: u8, whole: bool) -> Option<Self> {
        members.sort_by_key(|member| member.id);
        members.dedup_by_key(|member| member.id);
        let pieces: usize = members.iter().map(Member::pieces).sum();
        let largest = members.iter().map(Member::pieces).max()?;
        let share = |of: usize| (of * usize::from(percent)).div_ceil(100).max(1);
        let mut group = Self {
            strips: pieces.div_ceil(WRITTEN_STRIP).max(1),
            recovery: 1,
            members,
        };
        loop {
            let of_pack = largest.div_ceil(group.strips);
            // What one pack may lose is never more than what it has in a strip.
            group.recovery = share(group.pieces_of(0)).max(share(largest).min(of_pack));
            if whole {
                group.recovery = group.recovery.max(of_pack);
            }
            if group.strip_size() <= WRITTEN_STRIP {
                break;
            }
            group.strips += 1;
            if group.strips > largest {
                return None;
            }
        }
        group.check().is_ok().then_some(group)
    }

    /// Tells whether a group of which only some packs are there still does for these what it is made for: that
    /// `percent` of one of them can be lost.
    #[must_use]
    pub fn serves(&self, percent: u8, is_there: &dyn Fn(&ObjectId) -> bool) -> bool {
        let (mut gone, mut largest) = (0, 0);
        for member in &self.members {
            match is_there(&member.id) {
                true => largest = largest.max(member.pieces()),
                false => gone += member.pieces().div_ceil(self.strips),
            }
        }
        let share = (largest * usize::from(percent)).div_ceil(100);
        let wanted = share.min(largest.div_ceil(self.strips));
        largest > 0 && self.recovery >= gone + wanted
    }

    /// Gives the number of pieces of all packs.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.members.iter().map(Member::pieces).sum()
    }

    /// Gives the number of pieces of packs in a strip.
    #[must_use]
    pub fn pieces_of(&self, strip: usize) -> usize {
        let members = self.members.iter();
        members.map(|member| self.pieces_in(member, strip)).sum()
    }

    /// Gives the number of pieces that a pack has in a strip.
    #[must_use]
    pub fn pieces_in(&self, member: &Member, strip: usize) -> usize {
        (member.pieces() + self.strips - 1 - strip.min(self.strips - 1)) / self.strips
    }

    /// Visits the pieces of a strip in the order of the code: the pack's number, and the piece's in it.
    pub fn strip(&self, strip: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        let members = self.members.iter().enumerate();
        members.flat_map(move |(number, member)| {
            let pieces = (strip..member.pieces()).step_by(self.strips);
            pieces.map(move |piece| (number, piece))
        })
    }

    /// Gives the number of a strip's piece for recovery among all of the object: neighbours are of different
    /// strips, so that no hole in the object hits one strip alone.
    #[must_use]
    pub fn recovery_number(&self, strip: usize, number: usize) -> usize {
        number * self.strips + strip
    }

    /// Gives the number of pieces for recovery of all strips.
    #[must_use]
    pub fn recovery_pieces(&self) -> usize {
        self.strips * self.recovery
    }

    /// Pieces of the largest strip and those for recovery, rounded up as the code needs it.
    fn strip_size(&self) -> usize {
        self.pieces_of(0) + self.recovery.next_power_of_two()
    }

    fn check(&self) -> Result<()> {
        within("packs of a group", self.members.len(), PARITY_PACKS)?;
        let malformed = |why| FormatError::Malformed {
            what: WHAT,
            at: 0,
            why,
        };
        if !self.members.is_sorted_by(|a, b| a.id < b.id) {
            return Err(malformed("its packs are not in ascending order"));
        }
        for member in &self.members {
            if member.length == 0 || member.length > PACK_BYTES as u64 {
                return Err(malformed("a pack has a length that no pack has"));
            }
        }
        let largest = self.members.iter().map(Member::pieces).max().unwrap_or(0);
        if self.strips == 0 || self.strips > largest {
            return Err(malformed("it has a strip without pieces"));
        }
        if self.recovery == 0 {
            return Err(malformed("it has no pieces for recovery"));
        }
        within("pieces of a group", self.pieces(), PARITY_PIECES)?;
        within("pieces for recovery", self.recovery, PARITY_STRIP)?;
        within("pieces of a strip", self.strip_size(), PARITY_STRIP)?;
        let recovery = self.recovery_pieces();
        within("pieces for recovery", recovery, PARITY_RECOVERY)
    }

    /// Writes the group record: the length of its CBOR, that, and the hash of both.
    fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.map(3).uint(0).uint(self.strips as u64);
        encoder.uint(1).uint(self.recovery as u64);
        encoder.uint(2).array(self.members.len());
        for member in &self.members {
            encoder.array(2).bytes(&member.id.0).uint(member.length);
        }
        let cbor = encoder.into_bytes();
        let mut record = u32::try_from(cbor.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes()
            .to_vec();
        record.extend_from_slice(&cbor);
        let hash = blake3::hash(&record);
        record.extend_from_slice(hash.as_bytes());
        record
    }

    /// Reads a group record at the start of `bytes`; gives its length, too.
    fn decode(bytes: &[u8]) -> Result<(Self, usize)> {
        let malformed = |why| FormatError::Malformed {
            what: WHAT,
            at: 0,
            why,
        };
        let short = || malformed("its group record ends too early");
        let (length, _) = bytes.split_first_chunk().ok_or_else(short)?;
        let length = u32::from_le_bytes(*length) as usize;
        within("bytes of a group record", length, RECORD_BYTES)?;
        let framed = bytes.get(..length + 4).ok_or_else(short)?;
        let hash = bytes.get(length + 4..length + FRAME_BYTES);
        if hash.ok_or_else(short)? != blake3::hash(framed).as_bytes() {
            return Err(FormatError::WrongHash {
                what: "group record",
            });
        }
        let cbor = framed.get(4..).unwrap_or_default();
        let group = cbor::decode(WHAT, cbor, |decoder| {
            let mut map = decoder.map()?;
            map.required(decoder, 0)?;
            let strips = decoder.uint()?;
            map.required(decoder, 1)?;
            let recovery = decoder.uint()?;
            map.required(decoder, 2)?;
            let count = decoder.array("packs of a group", PARITY_PACKS)?;
            let mut members = Vec::with_capacity(count);
            for _ in 0..count {
                if decoder.array("fields of a pack", 2)? != 2 {
                    return Err(decoder.malformed("a pack of a group has two fields"));
                }
                members.push(Member {
                    id: ObjectId(decoder.array_of()?),
                    length: decoder.uint()?,
                });
            }
            map.finish(decoder)?;
            let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
            Ok(Self {
                strips: number(strips).min(PARITY_PIECES + 1),
                recovery: number(recovery).min(PARITY_PIECES + 1),
                members,
            })
        })?;
        let record = group.encode();
        if record.get(4..record.len() - HASH_BYTES) != Some(cbor) {
            return Err(malformed("its CBOR is not deterministic"));
        }
        group.check()?;
        Ok((group, length + FRAME_BYTES))
    }

    fn places(&self) -> Places {
        let record = self.encode().len();
        let sums = (self.pieces() + self.recovery_pieces()) * SUM_BYTES;
        let pieces = HEADER_BYTES + record + sums;
        let back = pieces + self.recovery_pieces() * PIECE_BYTES;
        Places {
            sums: HEADER_BYTES + record,
            pieces,
            back,
            length: back + sums + record + FOOTER_BYTES,
        }
    }

    /// Gives the length in bytes of the parity object.
    #[must_use]
    pub fn object_bytes(&self) -> usize {
        self.places().length
    }

    /// Tells where in an object the first group record ends, in bytes.
    #[must_use]
    pub fn end_of_record(&self) -> usize {
        self.places().sums
    }

    /// Tells how many bytes of an object suffice to read its group from, whatever group that is.
    #[must_use]
    pub const fn front_bytes() -> usize {
        HEADER_BYTES + RECORD_BYTES + FRAME_BYTES
    }

    /// Reads the group from the first bytes of an object; the rest may be missing.
    pub fn read_front(front: &[u8]) -> Result<Self> {
        Header::decode_kind(front, Kind::Parity)?;
        Self::decode(front.get(HEADER_BYTES..).unwrap_or_default()).map(|(group, _)| group)
    }
}

struct Places {
    sums: usize,
    pieces: usize,
    back: usize,
    length: usize,
}

/// A parity object that is being made: all of it but the pieces for recovery, which are set one by one.
pub struct Draft {
    group: Group,
    places: Places,
    object: Vec<u8>,
}

impl Draft {
    /// Begins with a group and the checksums of its packs' pieces, pack by pack.
    pub fn new(group: Group, sums: &[Sum]) -> Result<Self> {
        group.check()?;
        if sums.len() != group.pieces() {
            return Err(FormatError::Malformed {
                what: WHAT,
                at: 0,
                why: "there is not one checksum for each piece",
            });
        }
        let (record, places) = (group.encode(), group.places());
        let mut uid = [0; 16];
        for (to, from) in uid.iter_mut().zip(blake3::hash(&record).as_bytes()) {
            *to = *from;
        }
        let header = Header {
            kind: Kind::Parity,
            key_id: KeyId::default(),
            uid,
        };
        let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
        let mut draft = Self {
            object: alloc::vec![0; places.length],
            group,
            places,
        };
        draft.write(0, &header.encode());
        draft.write(HEADER_BYTES, &record);
        draft.write_sums(0, sums.as_flattened());
        let footer = draft.object.len() - FOOTER_BYTES;
        draft.write(footer - record.len(), &record);
        draft.write(footer, &length.to_le_bytes());
        draft.write(footer + 8, &FOOTER_MAGIC);
        Ok(draft)
    }

    /// Gives the group.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Sets one of a strip's pieces for recovery.
    pub fn set(&mut self, strip: usize, number: usize, piece: &[u8]) {
        let at = self.group.recovery_number(strip, number);
        self.write(self.places.pieces + at * PIECE_BYTES, piece);
        self.write_sums(self.group.pieces() + at, &sum(piece));
    }

    /// Gives the object. The same packs give the same bytes.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.object
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.object.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// Writes checksums from a number on, in both lists.
    fn write_sums(&mut self, number: usize, sums: &[u8]) {
        for start in [self.places.sums, self.places.back] {
            self.write(start + number * SUM_BYTES, sums);
        }
    }
}

/// A parity object as it was read, perhaps damaged.
pub struct Parity<'a> {
    group: Group,
    places: Places,
    object: &'a [u8],
}

impl<'a> Parity<'a> {
    /// Reads what is left of a parity object: one of its two group records must be whole.
    pub fn read(object: &'a [u8]) -> Result<Self> {
        within("bytes of a parity object", object.len(), PARITY_BYTES)?;
        let front = Group::decode(object.get(HEADER_BYTES..).unwrap_or_default());
        let group = match front {
            Ok((group, _)) => group,
            Err(error) => Self::read_back(object).ok_or(error)?,
        };
        Ok(Self {
            places: group.places(),
            group,
            object,
        })
    }

    fn read_back(object: &[u8]) -> Option<Group> {
        let (rest, footer) = object.split_last_chunk::<FOOTER_BYTES>()?;
        let (length, magic) = footer.split_first_chunk::<4>()?;
        if magic.get(4..) != Some(&FOOTER_MAGIC) {
            return None;
        }
        let length = u32::from_le_bytes(*length) as usize;
        let start = rest.len().checked_sub(length)?;
        let (group, found) = Group::decode(rest.get(start..)?).ok()?;
        // With a hole in the middle the places would be others.
        (found == length && group.object_bytes() == object.len()).then_some(group)
    }

    /// Gives the group.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Tells whether a piece has the checksum that one of the two lists has under this number.
    fn is_sum(&self, number: usize, found: &Sum) -> bool {
        [self.places.sums, self.places.back].iter().any(|start| {
            let at = start + number * SUM_BYTES;
            self.object.get(at..at + SUM_BYTES) == Some(found)
        })
    }

    /// Tells for each piece of a pack, by the bytes that there are of it, whether it is as it was.
    #[must_use]
    pub fn sound_pieces(&self, member: usize, bytes: &[u8]) -> Vec<bool> {
        let before = self.group.members.iter().take(member);
        let first: usize = before.map(Member::pieces).sum();
        let Some(member) = self.group.members.get(member) else {
            return Vec::new();
        };
        let length = usize::try_from(member.length).unwrap_or(usize::MAX);
        let is_sound = |piece: usize| {
            let start = piece * PIECE_BYTES;
            let bytes = bytes.get(start..length.min(start + PIECE_BYTES));
            bytes.is_some_and(|bytes| self.is_sum(first + piece, &sum(bytes)))
        };
        (0..member.pieces()).map(is_sound).collect()
    }

    /// Gives one of a strip's pieces for recovery, if it is as it was.
    #[must_use]
    pub fn recovery_piece(&self, strip: usize, number: usize) -> Option<&'a [u8]> {
        let at = self.group.recovery_number(strip, number);
        let start = self.places.pieces + at * PIECE_BYTES;
        let piece = self.object.get(start..start + PIECE_BYTES)?;
        let number = self.group.pieces() + at;
        self.is_sum(number, &sum(piece)).then_some(piece)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests;
