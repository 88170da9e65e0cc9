//! The code over a group of packs: computing the pieces for recovery, and lost pieces from them (SPEC.md §18).

use larder_format::parity::{Draft, Group, Member, PIECE_BYTES, Parity};
use reed_solomon_simd::engine::DefaultEngine;
use reed_solomon_simd::rate::{HighRateDecoder, HighRateEncoder, RateDecoder, RateEncoder};

use crate::error::{EngineError, Result};
use crate::scratch::file::ScratchFile;

/// The packs of a group, each at its place in a scratch file, piece by piece.
pub(super) struct Spooled {
    file: ScratchFile,
    /// The first piece of each pack.
    first: Vec<usize>,
}

impl Spooled {
    /// Makes room for the packs of a group.
    pub(super) fn new(file: ScratchFile, first: Vec<usize>) -> Self {
        Self { file, first }
    }

    /// Gives the first piece of each pack if they lie in the order of the group.
    pub(super) fn in_order(group: &Group) -> Vec<usize> {
        let mut next = 0;
        let place = |member: &Member| {
            let first = next;
            next += member.pieces();
            first
        };
        group.members.iter().map(place).collect()
    }

    fn offset(&self, member: usize, piece: usize) -> u64 {
        let first = self.first.get(member).copied().unwrap_or_default();
        ((first + piece) * PIECE_BYTES) as u64
    }

    /// Writes a pack, or what there is of it.
    pub(super) fn write_pack(&self, member: usize, bytes: &[u8]) -> Result<()> {
        Ok(self.file.write_at(self.offset(member, 0), bytes)?)
    }

    /// Reads a pack of this length.
    pub(super) fn read_pack(&self, member: usize, length: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        self.file.read_at(self.offset(member, 0), &mut bytes)?;
        Ok(bytes)
    }

    fn read_piece(&self, member: usize, piece: usize, bytes: &mut [u8]) -> Result<()> {
        Ok(self.file.read_at(self.offset(member, piece), bytes)?)
    }

    fn write_piece(&self, member: usize, piece: usize, bytes: &[u8]) -> Result<()> {
        Ok(self.file.write_at(self.offset(member, piece), bytes)?)
    }
}

/// Computes all pieces for recovery of a group. Holds one strip in memory.
pub(super) fn encode(draft: &mut Draft, packs: &Spooled) -> Result<()> {
    let group = draft.group().clone();
    let mut work = None;
    let mut piece = vec![0; PIECE_BYTES];
    for strip in 0..group.strips {
        let pieces = group.pieces_of(strip);
        let mut encoder = HighRateEncoder::new(
            pieces,
            group.recovery,
            PIECE_BYTES,
            DefaultEngine::new(),
            work.take(),
        )
        .map_err(refused)?;
        for (member, number) in group.strip(strip) {
            packs.read_piece(member, number, &mut piece)?;
            encoder.add_original_shard(&piece).map_err(refused)?;
        }
        let encoded = encoder.encode().map_err(refused)?;
        for (number, piece) in encoded.recovery_iter().enumerate() {
            draft.set(strip, number, piece);
        }
        drop(encoded);
        work = Some(encoder.into_parts().1);
    }
    Ok(())
}

/// Tells which packs of a group are whole or can be rebuilt, by which of their pieces are sound.
pub(super) fn possible(parity: &Parity<'_>, sound: &[Vec<bool>]) -> Vec<bool> {
    let group = parity.group();
    let mut possible = vec![true; group.members.len()];
    for strip in 0..group.strips {
        let lost = lost_of(group, sound, strip);
        if lost.is_empty() || is_enough(parity, strip, lost.len()) {
            continue;
        }
        for (member, _) in lost {
            if let Some(possible) = possible.get_mut(member) {
                *possible = false;
            }
        }
    }
    possible
}

/// Computes the pieces that are not sound, strip by strip; what cannot be computed stays as it is.
pub(super) fn rebuild(parity: &Parity<'_>, packs: &Spooled, sound: &[Vec<bool>]) -> Result<()> {
    let group = parity.group();
    let mut work = None;
    let mut piece = vec![0; PIECE_BYTES];
    for strip in 0..group.strips {
        let lost = lost_of(group, sound, strip);
        if lost.is_empty() || !is_enough(parity, strip, lost.len()) {
            continue;
        }
        let pieces = group.pieces_of(strip);
        let mut decoder = HighRateDecoder::new(
            pieces,
            group.recovery,
            PIECE_BYTES,
            DefaultEngine::new(),
            work.take(),
        )
        .map_err(refused)?;
        for (index, (member, number)) in group.strip(strip).enumerate() {
            if is_sound(sound, member, number) {
                packs.read_piece(member, number, &mut piece)?;
                decoder.add_original_shard(index, &piece).map_err(refused)?;
            }
        }
        let pieces = (0..group.recovery).filter_map(|number| {
            let piece = parity.recovery_piece(strip, number);
            Some((number, piece?))
        });
        for (number, piece) in pieces.take(lost.len()) {
            decoder.add_recovery_shard(number, piece).map_err(refused)?;
        }
        let decoded = decoder.decode().map_err(refused)?;
        for (index, (member, number)) in group.strip(strip).enumerate() {
            if let Some(piece) = decoded.restored_original(index) {
                packs.write_piece(member, number, piece)?;
            }
        }
        drop(decoded);
        work = Some(decoder.into_parts().1);
    }
    Ok(())
}

fn is_sound(sound: &[Vec<bool>], member: usize, piece: usize) -> bool {
    let sound = sound.get(member).and_then(|sound| sound.get(piece));
    sound.copied().unwrap_or(false)
}

fn lost_of(group: &Group, sound: &[Vec<bool>], strip: usize) -> Vec<(usize, usize)> {
    let pieces = group.strip(strip);
    pieces
        .filter(|(member, piece)| !is_sound(sound, *member, *piece))
        .collect()
}

fn is_enough(parity: &Parity<'_>, strip: usize, lost: usize) -> bool {
    let pieces = (0..parity.group().recovery)
        .filter(|number| parity.recovery_piece(strip, *number).is_some());
    pieces.take(lost).count() == lost
}

fn refused(error: reed_solomon_simd::Error) -> EngineError {
    EngineError::Internal(format!("the parity code refused its input: {error}"))
}
