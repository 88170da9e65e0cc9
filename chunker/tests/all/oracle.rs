//! `toeplitz-aes` as SPEC.md §15 says it, window by window and without a rolling hash: each digest
//! is a sum of eight products of polynomials.

use aes::Aes128Enc;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use larder_chunker::{ChunkSizes, SECRET_BYTES};

/// Multiplies a polynomial of degree below 128 by one of degree below 64, modulo
/// z^128 + z^7 + z^2 + z + 1: first the whole product, then its reduction.
fn multiply(state: u128, factor: u64) -> u128 {
    let (mut high, mut low) = (0_u64, 0_u128);
    for shift in (0..64).filter(|shift| factor >> shift & 1 == 1) {
        low ^= state << shift;
        // The `shift` highest bits, of which there may be none.
        high ^= (state >> 64 >> (64 - shift)) as u64;
    }
    for power in (0..64).filter(|power| high >> power & 1 == 1) {
        // z^(128 + power); as the highest power is 62, that stays below z^128 and is all.
        low ^= 0x87_u128 << power;
    }
    low
}

/// Gives the digest of a window.
pub fn digest(secret: &[u8; SECRET_BYTES], window: &[u8]) -> [u8; 16] {
    assert_eq!(window.len(), 64);
    let mut digest = 0;
    for bit in 0..8 {
        let state: [u8; 16] = secret[16 + 16 * bit..][..16].try_into().unwrap();
        let plane = window
            .iter()
            .fold(0, |plane, byte| plane << 1 | u64::from(byte >> bit & 1));
        digest ^= multiply(u128::from_le_bytes(state), plane);
    }
    digest.to_le_bytes()
}

/// Enciphers a digest.
pub fn enciphered(secret: &[u8; SECRET_BYTES], digest: [u8; 16]) -> [u8; 16] {
    let key: [u8; 16] = secret[..16].try_into().unwrap();
    let mut block = digest.into();
    Aes128Enc::new(&key.into()).encrypt_block(&mut block);
    block.into()
}

/// Gives the value of a window.
pub fn value(secret: &[u8; SECRET_BYTES], window: &[u8]) -> u32 {
    let block = enciphered(secret, digest(secret, window));
    u32::from_le_bytes(block[..4].try_into().unwrap())
}

/// Gives the length of the first chunk of what is left of a run.
fn cut(secret: &[u8; SECRET_BYTES], sizes: ChunkSizes, rest: &[u8]) -> usize {
    if rest.len() <= sizes.minimum {
        return rest.len();
    }
    let end = rest.len().min(sizes.maximum);
    // The double keeps this from being the formula of the code.
    let bits = (sizes.mean as f64).log2().round() as u32;
    for length in sizes.minimum..end {
        let bits = if length < sizes.mean {
            bits + 1
        } else {
            bits - 1
        };
        if value(secret, &rest[length - 64..length]).is_multiple_of(1 << bits) {
            return length;
        }
    }
    end
}

/// Gives the lengths of all chunks of a run.
pub fn lengths(secret: &[u8; SECRET_BYTES], sizes: ChunkSizes, bytes: &[u8]) -> Vec<usize> {
    let mut rest = bytes;
    let mut lengths = Vec::new();
    while !rest.is_empty() {
        let length = cut(secret, sizes, rest);
        lengths.push(length);
        rest = &rest[length..];
    }
    lengths
}
