//! Comparing what is in the target with what a file shall hold.

use larder_format::entry::{Entry, Extent};
use larder_format::ids::ChunkType;
use larder_format::keys::Keyring;

use crate::chunks::ChunkReader;
use crate::error::Result;

use super::plan::for_each_extent;

/// Bytes of a hole that are looked at at a time.
const PIECE_BYTES: usize = 1 << 18;

/// Reads bytes at an offset until the buffer is full or the file ends.
pub(super) type ReadAt<'a> = dyn FnMut(&mut [u8], u64) -> std::io::Result<usize> + 'a;

/// Gives where the next bytes at or after an offset may be that are not a hole.
pub(super) type DataFrom<'a> = dyn FnMut(u64) -> u64 + 'a;

/// What an extent of the file is in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum There {
    /// The same bytes.
    Same,
    /// Others, or none.
    Differs,
}

/// Tells of every extent of a file whether the target has its bytes.
///
/// What cannot be read there counts as different.
pub(super) fn compare(
    keyring: &Keyring,
    entry: &Entry,
    reader: &mut ChunkReader,
    read_at: &mut ReadAt<'_>,
    data_from: &mut DataFrom<'_>,
    each: &mut dyn FnMut(u64, Extent, There) -> Result<()>,
) -> Result<()> {
    let mut buffer = Vec::new();
    for_each_extent(entry, reader, &mut |offset, extent| {
        let same = match extent {
            Extent::Data { id, length } => {
                buffer.resize(usize::try_from(length).unwrap_or_default(), 0);
                matches!(read_at(&mut buffer, offset), Ok(count) if count == buffer.len())
                    && keyring.chunk_id(ChunkType::Data, &buffer) == id
            }
            Extent::Hole { length } => is_zero(&mut buffer, offset, length, read_at, data_from),
        };
        let there = if same { There::Same } else { There::Differs };
        each(offset, extent, there)
    })
}

fn is_zero(
    buffer: &mut Vec<u8>,
    offset: u64,
    length: u64,
    read_at: &mut ReadAt<'_>,
    data_from: &mut DataFrom<'_>,
) -> bool {
    let end = offset.saturating_add(length);
    // The file has to reach so far, hole or not.
    let mut last = [1];
    if !matches!(read_at(&mut last, end.saturating_sub(1)), Ok(1)) || last != [0] {
        return false;
    }
    let mut at = data_from(offset);
    while at < end {
        let piece = usize::try_from(end - at)
            .unwrap_or(usize::MAX)
            .min(PIECE_BYTES);
        buffer.resize(piece, 0);
        match read_at(buffer, at) {
            Ok(count) if count == piece && buffer.iter().all(|byte| *byte == 0) => {}
            _ => return false,
        }
        at = data_from(at.saturating_add(piece as u64));
    }
    true
}
