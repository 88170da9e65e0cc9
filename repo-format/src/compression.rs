//! Compression of blocks and columns: zstd frames with their content size (SPEC.md §6).

use alloc::vec;
use alloc::vec::Vec;

use zstd_safe::{CCtx, DCtx};

use crate::cbor::within;
use crate::error::{FormatError, Result};

/// The first bytes of a zstd frame that holds data.
const FRAME_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Pieces of a long plaintext that are tried first, and the bytes of each.
const SAMPLES: usize = 4;
const SAMPLE_BYTES: usize = 16 << 10;

/// A reusable compression context; making one costs more than compressing a small block.
pub struct Compressor {
    pub(crate) context: CCtx<'static>,
}

/// A reusable decompression context.
pub struct Decompressor {
    pub(crate) context: DCtx<'static>,
}

impl Compressor {
    /// Makes a context; an error if there is no memory for it.
    pub fn new() -> Result<Self> {
        let context = CCtx::try_create().ok_or_else(no_context)?;
        Ok(Self { context })
    }

    /// Compresses `plaintext` into one frame behind `room` bytes of zero; nothing if that saves
    /// less than 3 %.
    ///
    /// A long plaintext is given up early if pieces of it do not compress.
    pub fn compress(
        &mut self,
        plaintext: &[u8],
        level: i32,
        room: usize,
    ) -> Result<Option<Vec<u8>>> {
        if plaintext.len() >= 2 * SAMPLES * SAMPLE_BYTES && !self.samples_gain(plaintext)? {
            return Ok(None);
        }
        let mut out = vec![0; room + zstd_safe::compress_bound(plaintext.len())];
        let length = self.frame(plaintext, level, out.get_mut(room..).unwrap_or_default())?;
        if !gains(plaintext.len(), length) {
            return Ok(None);
        }
        out.truncate(room + length);
        Ok(Some(out))
    }

    fn samples_gain(&mut self, plaintext: &[u8]) -> Result<bool> {
        let mut out = vec![0; zstd_safe::compress_bound(SAMPLE_BYTES)];
        let (mut before, mut after) = (0, 0);
        for piece in plaintext.chunks(plaintext.len().div_ceil(SAMPLES)) {
            let sample = piece.get(..SAMPLE_BYTES).unwrap_or(piece);
            before += sample.len();
            after += self.frame(sample, 1, &mut out)?;
        }
        Ok(gains(before, after))
    }

    fn frame(&mut self, plaintext: &[u8], level: i32, out: &mut [u8]) -> Result<usize> {
        self.context
            .compress(out, plaintext, level)
            .map_err(|_| FormatError::Malformed {
                what: "plaintext of a block",
                at: 0,
                why: "zstd could not compress it",
            })
    }
}

impl Decompressor {
    /// Makes a context; an error if there is no memory for it.
    pub fn new() -> Result<Self> {
        let context = DCtx::try_create().ok_or_else(no_context)?;
        Ok(Self { context })
    }

    /// Decompresses exactly one frame, whose content size is checked against `limit` before
    /// anything is allocated; `what` names the frame in errors.
    pub fn decompress(
        &mut self,
        what: &'static str,
        frame: &[u8],
        limit: usize,
    ) -> Result<Vec<u8>> {
        let malformed = |why| FormatError::Malformed { what, at: 0, why };
        if !frame.starts_with(&FRAME_MAGIC)
            || zstd_safe::find_frame_compressed_size(frame) != Ok(frame.len())
        {
            return Err(malformed("it is not exactly one zstd frame"));
        }
        let size = zstd_safe::get_frame_content_size(frame).ok().flatten();
        let size = size.ok_or_else(|| malformed("the zstd frame does not state its size"))?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        within(what, size, limit)?;
        let mut plaintext = vec![0; size];
        match self.context.decompress(plaintext.as_mut_slice(), frame) {
            Ok(length) if length == size => Ok(plaintext),
            _ => Err(malformed("zstd cannot decompress it")),
        }
    }
}

/// Tells whether `after` bytes are at least 3 % less than `before`.
fn gains(before: usize, after: usize) -> bool {
    after * 100 <= before * 97
}

fn no_context() -> FormatError {
    FormatError::Malformed {
        what: "zstd context",
        at: 0,
        why: "there is no memory for it",
    }
}
