//! Where nodes may end: a keyed hash of each key (SPEC.md §10).

use alloc::vec::Vec;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::limits::HEIGHT;

/// Bytes of a key and what goes with it that are hashed without an allocation.
const SHORT_BYTES: usize = 256;

/// The secret that decides where nodes end, so that chosen names cannot force or suppress it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct BoundaryKey([u8; 32]);

impl BoundaryKey {
    /// Takes the key from a keyring.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }
}

impl core::fmt::Debug for BoundaryKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("BoundaryKey")
    }
}

/// Gives the boundary rank of an entry's key: it is above `l` once in 16^(l+1) keys.
#[must_use]
pub fn boundary_rank(boundary: &BoundaryKey, key: &[u8], ordinal: u64) -> u8 {
    let zeros = boundary_hash(boundary, key, ordinal).leading_zeros();
    HEIGHT.min((zeros / 4) as u8)
}

/// Hashes an entry's key and ordinal for the boundaries of nodes.
#[must_use]
pub fn boundary_hash(boundary: &BoundaryKey, key: &[u8], ordinal: u64) -> u64 {
    let length = (key.len() as u32).to_le_bytes();
    let ordinal = ordinal.to_le_bytes();
    let total = key.len() + length.len() + ordinal.len();
    let mut short = [0; SHORT_BYTES];
    // One call over joined bytes is much faster than a hasher that is fed piece by piece.
    let hash = if let Some(input) = short.get_mut(..total) {
        let from = length.iter().chain(key).chain(&ordinal);
        for (to, from) in input.iter_mut().zip(from) {
            *to = *from;
        }
        blake3::keyed_hash(&boundary.0, input)
    } else {
        let mut input = Vec::with_capacity(total);
        input.extend_from_slice(&length);
        input.extend_from_slice(key);
        input.extend_from_slice(&ordinal);
        blake3::keyed_hash(&boundary.0, &input)
    };
    let first = hash.as_bytes().first_chunk::<8>();
    u64::from_le_bytes(first.copied().unwrap_or_default())
}
