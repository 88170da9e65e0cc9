//! The one construction that seals everything (SPEC.md §5): XAES-256-GCM with derived nonces.

use alloc::vec;
use alloc::vec::Vec;

use xaes_256_gcm::aead::AeadInOut;
use xaes_256_gcm::aead::inout::InOutBuf;
use xaes_256_gcm::{Nonce, Tag};

use crate::error::{FormatError, Result};
use crate::ids::ChunkType;
use crate::ids::{ChunkId, KeyId};
use crate::keys::Key;
use crate::object::{Header, Kind};

/// Bytes of the nonce in front of what is sealed.
pub const NONCE_BYTES: usize = 24;
/// Bytes of the tag behind what is sealed.
pub const TAG_BYTES: usize = 16;
/// Bytes by which sealing lengthens its plaintext.
pub const OVERHEAD_BYTES: usize = NONCE_BYTES + TAG_BYTES;

const SUITE: u8 = 1;

/// What is sealed and where it belongs: the associated data of one sealing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aad {
    what: &'static str,
    bytes: Vec<u8>,
}

impl Aad {
    /// Describes a block of chunks of the type `chunk_type`.
    #[must_use]
    pub fn block(key: &Key, chunk_type: ChunkType) -> Self {
        Self::new("block", 1, chunk_type as u8, key, &key.id(), &[])
    }

    /// Describes the directory of the pack with the header `header`.
    #[must_use]
    pub fn directory(key: &Key, header: &Header) -> Self {
        let kind = header.kind as u8;
        Self::new(
            "pack directory",
            2,
            kind,
            key,
            &header.key_id,
            &[&header.uid],
        )
    }

    /// Describes the body of the segment with the header `header`.
    #[must_use]
    pub fn segment(key: &Key, header: &Header) -> Self {
        let kind = header.kind as u8;
        Self::new(
            "index segment",
            3,
            kind,
            key,
            &header.key_id,
            &[&header.uid],
        )
    }

    /// Describes the body of a record with the header `header` and the full name `name`.
    #[must_use]
    pub fn record(key: &Key, header: &Header, name: &str) -> Self {
        let more: [&[u8]; 2] = [&header.uid, name.as_bytes()];
        let kind = header.kind as u8;
        Self::new(header.kind.word(), 4, kind, key, &header.key_id, &more)
    }

    /// Describes the keyring in the slot with the header `header`, the encoded parameters
    /// `params` and the full name `name`.
    #[must_use]
    pub fn slot(key: &Key, header: &Header, params: &[u8], name: &str) -> Self {
        let params = blake3::hash(params);
        let more: [&[u8]; 3] = [&header.uid, params.as_bytes(), name.as_bytes()];
        let kind = Kind::KeySlot as u8;
        Self::new("key slot", 5, kind, key, &header.key_id, &more)
    }

    fn new(
        what: &'static str,
        role: u8,
        kind: u8,
        key: &Key,
        key_id: &KeyId,
        more: &[&[u8]],
    ) -> Self {
        let mut bytes = vec![SUITE, role, kind];
        bytes.extend_from_slice(&key.repository().0);
        bytes.extend_from_slice(&key_id.0);
        more.iter().for_each(|part| bytes.extend_from_slice(part));
        Self { what, bytes }
    }

    /// Gives the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// What makes the nonce depend on the plaintext.
#[derive(Debug, Clone, Copy)]
pub enum Commitment<'a> {
    /// The ids of the chunks in a block whose payload is stored: they are hashes of it already.
    Ids(&'a [ChunkId]),
    /// The plaintext itself.
    Plaintext,
}

/// Seals `plaintext`, with 32 fresh random bytes.
pub fn seal(key: &Key, aad: &Aad, random: &[u8; 32], plaintext: &[u8]) -> Result<Vec<u8>> {
    let mut buffer = Vec::with_capacity(plaintext.len() + OVERHEAD_BYTES);
    buffer.resize(NONCE_BYTES, 0);
    buffer.extend_from_slice(plaintext);
    seal_in_place(key, aad, Commitment::Plaintext, random, &mut buffer)?;
    Ok(buffer)
}

/// Seals what follows the first [`NONCE_BYTES`] of `buffer`, which are room for the nonce; the
/// tag is appended. For large plaintexts that should not be copied.
pub fn seal_in_place(
    key: &Key,
    aad: &Aad,
    commitment: Commitment<'_>,
    random: &[u8; 32],
    buffer: &mut Vec<u8>,
) -> Result<()> {
    let what = aad.what;
    let (room, plaintext) =
        buffer
            .split_first_chunk_mut::<NONCE_BYTES>()
            .ok_or(FormatError::Malformed {
                what,
                at: 0,
                why: "there is no room for the nonce",
            })?;
    *room = derive_nonce(key, aad, commitment, random, plaintext);
    let nonce = Nonce::from(*room);
    let tag = key
        .cipher()
        .encrypt_inout_detached(&nonce, &aad.bytes, plaintext.into())
        .map_err(|_| FormatError::Unauthentic { what })?;
    buffer.extend_from_slice(&tag);
    Ok(())
}

/// Opens what [`seal`] made under the same key and associated data.
pub fn open(key: &Key, aad: &Aad, sealed: &[u8]) -> Result<Vec<u8>> {
    let parts = || {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
        Some((nonce, ciphertext, tag))
    };
    let (nonce, ciphertext, tag) = parts().ok_or(FormatError::Malformed {
        what: aad.what,
        at: sealed.len(),
        why: "it ends too early",
    })?;
    let mut plaintext = vec![0; ciphertext.len()];
    let unauthentic = FormatError::Unauthentic { what: aad.what };
    let Ok(buffer) = InOutBuf::new(ciphertext, &mut plaintext) else {
        return Err(unauthentic);
    };
    key.cipher()
        .decrypt_inout_detached(&Nonce::from(*nonce), &aad.bytes, buffer, &Tag::from(*tag))
        .map_err(|_| unauthentic)?;
    Ok(plaintext)
}

/// Derives the nonce, so that randomness that repeats itself seals two plaintexts under two
/// nonces all the same.
fn derive_nonce(
    key: &Key,
    aad: &Aad,
    commitment: Commitment<'_>,
    random: &[u8; 32],
    plaintext: &[u8],
) -> [u8; NONCE_BYTES] {
    let mut hasher = blake3::Hasher::new_keyed(key.nonce_key());
    hasher.update(&key.id().0).update(random);
    hasher.update(&(aad.bytes.len() as u64).to_le_bytes());
    hasher.update(&aad.bytes);
    match commitment {
        Commitment::Ids(ids) => {
            hasher.update(&[0]);
            ids.iter().for_each(|id| {
                hasher.update(&id.0);
            });
        }
        Commitment::Plaintext => {
            hasher.update(&[1]).update(plaintext);
        }
    }
    let mut nonce = [0; NONCE_BYTES];
    hasher.finalize_xof().fill(&mut nonce);
    nonce
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use crate::ids::{RepositoryId, encode_hex};
    use proptest::prelude::*;
    use xaes_256_gcm::Xaes256Gcm;
    use xaes_256_gcm::aead::KeyInit;

    const REPOSITORY: RepositoryId = RepositoryId([5; 16]);

    fn key() -> Key {
        Key::derive(&[1; 32], 1, 0, REPOSITORY)
    }

    /// The two vectors of the C2SP specification of XAES-256-GCM.
    #[test]
    fn the_cipher_is_xaes_256_gcm() {
        for (key, aad, expected) in [
            (
                1,
                "",
                "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271",
            ),
            (
                3,
                "c2sp.org/XAES-256-GCM",
                "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
            ),
        ] {
            let mut buffer = *b"XAES-256-GCM";
            let nonce = Nonce::from(*b"ABCDEFGHIJKLMNOPQRSTUVWX");
            let tag = Xaes256Gcm::new((&[key; 32]).into())
                .encrypt_inout_detached(&nonce, aad.as_bytes(), buffer.as_mut_slice().into())
                .unwrap();
            assert_eq!(encode_hex(&buffer) + &encode_hex(&tag), expected);
        }
    }

    #[test]
    fn nonces_differ_although_randomness_repeats() {
        let (key, random) = (key(), [0; 32]);
        let nonce = |key: &Key, chunk_type, plaintext: &[u8]| {
            seal(key, &Aad::block(key, chunk_type), &random, plaintext).unwrap()[..24].to_vec()
        };
        let first = nonce(&key, ChunkType::Data, b"one");
        assert_eq!(first, nonce(&key, ChunkType::Data, b"one"));
        assert_ne!(first, nonce(&key, ChunkType::Data, b"two"));
        assert_ne!(first, nonce(&key, ChunkType::Value, b"one"));
        let other = Key::derive(&[1; 32], 1, 1, REPOSITORY);
        assert_ne!(first, nonce(&other, ChunkType::Data, b"one"));

        let by_id = |id| {
            let mut buffer = [[0; 24].as_slice(), b"one"].concat();
            let ids = [ChunkId([id; 32])];
            let aad = Aad::block(&key, ChunkType::Data);
            seal_in_place(&key, &aad, Commitment::Ids(&ids), &random, &mut buffer).unwrap();
            buffer
        };
        assert_ne!(by_id(1)[..24], by_id(2)[..24]);
        assert_ne!(by_id(1)[..24], first);
    }

    #[test]
    fn what_is_sealed_opens_only_where_it_belongs() {
        let key = key();
        let header = |kind, uid| Header {
            kind,
            key_id: key.id(),
            uid: [uid; 16],
        };
        let record = |kind, uid, name| Aad::record(&key, &header(kind, uid), name);
        let aad = record(Kind::Cell, 1, "snapshots/a");
        let sealed = seal(&key, &aad, &[2; 32], b"text").unwrap();
        assert_eq!(open(&key, &aad, &sealed), Ok(b"text".to_vec()));
        for other in [
            record(Kind::Cell, 1, "snapshots/b"),
            record(Kind::Cell, 2, "snapshots/a"),
            record(Kind::Session, 1, "snapshots/a"),
            Aad::segment(&key, &header(Kind::Cell, 1)),
            Aad::directory(&key, &header(Kind::Cell, 1)),
            Aad::slot(&key, &header(Kind::Cell, 1), b"", "snapshots/a"),
        ] {
            assert_eq!(open(&key, &other, &sealed).is_err(), other != aad);
        }
        let elsewhere = Key::derive(&[1; 32], 1, 0, RepositoryId([6; 16]));
        assert!(open(&elsewhere, &aad, &sealed).is_err());
    }

    proptest! {
        #[test]
        fn sealing_goes_both_ways_and_no_bit_can_change(
            plaintext: Vec<u8>,
            random: [u8; 32],
            at: prop::sample::Index,
            bit in 0..8_u8,
        ) {
            let key = key();
            let aad = Aad::block(&key, ChunkType::Data);
            let mut sealed = seal(&key, &aad, &random, &plaintext).unwrap();
            prop_assert_eq!(sealed.len(), plaintext.len() + OVERHEAD_BYTES);
            prop_assert_eq!(open(&key, &aad, &sealed), Ok(plaintext));
            prop_assert!(open(&key, &aad, &sealed[..sealed.len() - 1]).is_err());
            let at = at.index(sealed.len());
            sealed[at] ^= 1_u8 << bit;
            prop_assert!(open(&key, &aad, &sealed).is_err());
        }

        #[test]
        fn no_bytes_open_or_panic(bytes: Vec<u8>) {
            let key = key();
            prop_assert!(open(&key, &Aad::block(&key, ChunkType::Data), &bytes).is_err());
        }
    }
}
