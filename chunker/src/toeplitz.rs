//! `toeplitz-aes`: a cut rule over AES of a rolling Toeplitz hash, which a chosen plaintext
//! cannot see through.
//!
//! Source: Truong et al., "Breaking and Fixing Content-Defined Chunking", eprint 2025/558
//! (hash, then encrypt); Krawczyk, "LFSR-based Hashing and Authentication", CRYPTO 1994 (the hash).

use std::iter;

use aes::Aes128Enc;
use aes::cipher::{Block, BlockCipherEncrypt, KeyInit};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::ChunkSizes;

/// Bytes of the secret: a key of AES-128, and the first state of a register for each bit of a byte.
pub const SECRET_BYTES: usize = 16 + 8 * 16;
/// Bytes before a position that decide whether it is a cut.
pub(crate) const WINDOW_BYTES: usize = 64;
/// z^128 = z^7 + z^2 + z + 1.
pub(crate) const REDUCTION: u8 = 0x87;
/// Positions that the portable path enciphers at once.
const BATCH: usize = 64;

/// What a byte is in a digest when it is the newest of the window, and when it is the oldest.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Tables {
    pub(crate) into: [u128; 256],
    pub(crate) out: [u128; 256],
}

/// A way to compute the same cuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Vector(crate::x86::Level),
}

#[derive(Clone)]
pub(crate) struct ToeplitzAes {
    mask_strict: u32,
    mask_loose: u32,
    tables: Tables,
    cipher: Aes128Enc,
    #[cfg(target_arch = "x86_64")]
    scanner: Option<crate::x86::Scanner>,
}

impl ToeplitzAes {
    pub(crate) fn new(sizes: ChunkSizes, secret: &[u8; SECRET_BYTES]) -> Self {
        let fastest = paths().last().unwrap_or(Path::Portable);
        Self::on_path(sizes, secret, fastest)
    }

    pub(crate) fn on_path(sizes: ChunkSizes, secret: &[u8; SECRET_BYTES], path: Path) -> Self {
        let (parts, _) = secret.as_chunks::<16>();
        let (key, states) = parts.split_first().map_or((&[0; 16], parts), |parts| parts);
        let bits = mean_bits(sizes.mean);
        #[cfg(not(target_arch = "x86_64"))]
        let Path::Portable = path;
        Self {
            mask_strict: low_bits(bits + 1),
            mask_loose: low_bits(bits.saturating_sub(1)),
            tables: tables(states),
            cipher: Aes128Enc::new(key.into()),
            #[cfg(target_arch = "x86_64")]
            scanner: match path {
                Path::Portable => None,
                Path::Vector(level) => crate::x86::Scanner::new(level, key),
            },
        }
    }

    /// Gives the length of the first chunk of `bytes`, which are more than the minimum.
    pub(crate) fn cut(&self, sizes: ChunkSizes, bytes: &[u8]) -> usize {
        let first = sizes.minimum.max(WINDOW_BYTES);
        let centre = sizes.mean.min(bytes.len());
        self.first_cut(bytes, first, centre, self.mask_strict)
            .or_else(|| self.first_cut(bytes, centre.max(first), bytes.len(), self.mask_loose))
            .unwrap_or(bytes.len())
    }

    /// Gives the first position in `from..to` whose value has none of the bits of `mask`.
    fn first_cut(&self, bytes: &[u8], from: usize, to: usize, mask: u32) -> Option<usize> {
        if from >= to {
            return None;
        }
        // The windows lie before their positions, so the last one ends before `to`.
        let windows = bytes.get(from.checked_sub(WINDOW_BYTES)?..to - 1)?;
        #[cfg(target_arch = "x86_64")]
        if let Some(scanner) = &self.scanner
            && to - from >= crate::x86::WINDOWS_MIN
        {
            return Some(from + scanner.first_hit(&self.tables, windows, mask)?);
        }
        Some(from + self.first_hit(windows, mask)?)
    }

    /// Gives the number of the first window in `windows` whose value has none of the bits of
    /// `mask`; a window begins at each byte that has 63 more after it.
    fn first_hit(&self, windows: &[u8], mask: u32) -> Option<usize> {
        let (head, coming) = windows.split_at_checked(WINDOW_BYTES - 1)?;
        let most = head.iter().fold(0, |digest, byte| {
            double(digest) ^ entry(&self.tables.into, *byte)
        });
        let pairs = coming.iter().zip(windows);
        let mut digests = pairs.scan(most, |state, (newest, oldest)| {
            let digest = double(*state) ^ entry(&self.tables.into, *newest);
            *state = digest ^ entry(&self.tables.out, *oldest);
            Some(digest)
        });
        let mut blocks = [Block::<Aes128Enc>::default(); BATCH];
        let mut before = 0;
        loop {
            let mut count = 0;
            for (block, digest) in blocks.iter_mut().zip(&mut digests) {
                *block = digest.to_le_bytes().into();
                count += 1;
            }
            let batch = blocks.get_mut(..count).filter(|batch| !batch.is_empty())?;
            self.cipher.encrypt_blocks(batch);
            if let Some(at) = batch.iter().position(|block| value(block) & mask == 0) {
                return Some(before + at);
            }
            before += count;
        }
    }
}

/// Gives the paths that this machine has, the fastest last.
pub(crate) fn paths() -> impl Iterator<Item = Path> {
    let portable = iter::once(Path::Portable);
    #[cfg(target_arch = "x86_64")]
    return portable.chain(crate::x86::levels().map(Path::Vector));
    #[cfg(not(target_arch = "x86_64"))]
    return portable;
}

impl Path {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Vector(level) => level.name(),
        }
    }
}

/// Gives the logarithm of the mean to base 2, rounded to the nearest integer.
fn mean_bits(mean: usize) -> u32 {
    let square = (mean as u128).saturating_mul(mean as u128);
    square.saturating_mul(2).checked_ilog2().unwrap_or(0) / 2
}

/// Gives a mask of the lowest `count` bits.
fn low_bits(count: u32) -> u32 {
    u32::MAX
        .checked_shr(32_u32.saturating_sub(count))
        .unwrap_or(0)
}

/// Multiplies by z in GF(2)[z] / (z^128 + z^7 + z^2 + z + 1).
fn double(x: u128) -> u128 {
    (x << 1) ^ ((x >> 127) * u128::from(REDUCTION))
}

/// Makes the tables from the eight first states of the registers.
fn tables(states: &[[u8; 16]]) -> Tables {
    let mut tables = Tables {
        into: [0; 256],
        out: [0; 256],
    };
    for (bit, state) in states.iter().enumerate() {
        let into = u128::from_le_bytes(*state);
        let out = (1..WINDOW_BYTES).fold(into, |out, _| double(out));
        let both = tables.into.iter_mut().zip(&mut tables.out).enumerate();
        for (_, (into_of, out_of)) in both.filter(|(byte, _)| byte >> bit & 1 == 1) {
            *into_of ^= into;
            *out_of ^= out;
        }
    }
    tables
}

#[expect(clippy::indexing_slicing, reason = "a byte is below 256")]
fn entry(table: &[u128; 256], byte: u8) -> u128 {
    table[usize::from(byte)]
}

/// Takes the first four bytes of an enciphered digest.
fn value(block: &Block<Aes128Enc>) -> u32 {
    let first = block.first_chunk().copied().unwrap_or_default();
    u32::from_le_bytes(first)
}
