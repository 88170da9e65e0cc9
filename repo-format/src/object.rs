//! Headers, closing hashes and content names of objects (SPEC.md §2).

use alloc::vec::Vec;

use crate::codec::Reader;
use crate::error::{FormatError, Result};
use crate::ids::{KeyId, ObjectId};

/// Bytes of every object's header.
pub const HEADER_BYTES: usize = 64;
/// Bytes of the closing hash of an object with a chosen name.
pub const CLOSING_BYTES: usize = 32;
/// The version of the format that this crate implements.
pub const FORMAT_VERSION: u8 = 1;

const MAGIC: [u8; 8] = *b"\x89LARDER\n";

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// What a program must know before it has a key.
    Config = 1,
    /// A wrapped keyring.
    KeySlot = 2,
    /// Blocks of file data.
    DataPack = 3,
    /// Blocks of trees, lists and values.
    TreePack = 4,
    /// A part of the index.
    Segment = 5,
    /// The announcement of a writer.
    Session = 6,
    /// The end of a session that committed.
    SessionEnd = 7,
    /// The outcome of a session: a snapshot.
    Cell = 8,
    /// A change to a snapshot.
    Amendment = 9,
    /// What a collector condemns.
    Round = 10,
    /// The whole state after a collector round.
    State = 11,
    /// Room that is given up when a storage is full.
    Reserve = 12,
    /// What damaged and missing packs are rebuilt from.
    Parity = 13,
    /// When packs were last verified.
    Ledger = 14,
    /// What a mirror lists.
    Manifest = 15,
    /// What a repair put in place of what.
    Undo = 16,
    /// What a bundle consists of.
    Bundle = 17,
    /// How a bucket is divided among the shards of a run.
    Run = 18,
    /// Which snapshot the shards of a run became.
    RunEnd = 19,
}

impl Kind {
    /// Takes the kind from its number in SPEC.md.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Config,
            2 => Self::KeySlot,
            3 => Self::DataPack,
            4 => Self::TreePack,
            5 => Self::Segment,
            6 => Self::Session,
            7 => Self::SessionEnd,
            8 => Self::Cell,
            9 => Self::Amendment,
            10 => Self::Round,
            11 => Self::State,
            12 => Self::Reserve,
            13 => Self::Parity,
            14 => Self::Ledger,
            15 => Self::Manifest,
            16 => Self::Undo,
            17 => Self::Bundle,
            18 => Self::Run,
            19 => Self::RunEnd,
            _ => return None,
        })
    }

    /// Tells whether the object is named by the hash of its bytes.
    #[must_use]
    pub fn has_content_name(self) -> bool {
        matches!(
            self,
            Self::DataPack | Self::TreePack | Self::Segment | Self::Parity
        )
    }

    /// Gives the word for the kind in messages.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::KeySlot => "key slot",
            Self::DataPack => "data pack",
            Self::TreePack => "tree pack",
            Self::Segment => "index segment",
            Self::Session => "session",
            Self::SessionEnd => "session end",
            Self::Cell => "snapshot",
            Self::Amendment => "amendment",
            Self::Round => "collector round",
            Self::State => "collector state",
            Self::Reserve => "reserve",
            Self::Parity => "parity object",
            Self::Ledger => "ledger",
            Self::Manifest => "manifest of a mirror",
            Self::Undo => "undo record",
            Self::Bundle => "bundle record",
            Self::Run => "run",
            Self::RunEnd => "run end",
        }
    }
}

/// The first 64 bytes of every object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the object is.
    pub kind: Kind,
    /// The key that seals the body; zero for a config and the reserve.
    pub key_id: KeyId,
    /// Random, fresh for each object.
    pub uid: [u8; 16],
}

impl Header {
    /// Writes the header.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let start = [
            MAGIC.as_slice(),
            &[FORMAT_VERSION, self.kind as u8],
            &[0; 6],
        ]
        .concat();
        let mut bytes = [0; HEADER_BYTES];
        let source = start.iter().chain(&self.key_id.0).chain(&self.uid);
        for (to, from) in bytes.iter_mut().zip(source) {
            *to = *from;
        }
        bytes
    }

    /// Reads the header at the start of `object`.
    pub fn decode(object: &[u8]) -> Result<Self> {
        let mut reader = Reader::new("object header", object);
        if reader.array()? != MAGIC {
            return Err(FormatError::Malformed {
                what: "object header",
                at: 0,
                why: "it does not start with the magic bytes",
            });
        }
        let version = reader.u8()?;
        if version != FORMAT_VERSION {
            return Err(FormatError::UnknownVersion { found: version });
        }
        let kind = Kind::from_number(reader.u8()?)
            .ok_or_else(|| reader.malformed("the object kind is unknown"))?;
        if reader.array()? != [0; 6] {
            return Err(reader.malformed("its reserved bytes are not zero"));
        }
        let key_id = KeyId(reader.array()?);
        let uid = reader.array()?;
        Ok(Self { kind, key_id, uid })
    }

    /// Reads the header at the start of `object`, which must be of the kind `kind`.
    pub fn decode_kind(object: &[u8], kind: Kind) -> Result<Self> {
        let header = Self::decode(object)?;
        if header.kind == kind {
            Ok(header)
        } else {
            Err(FormatError::Malformed {
                what: kind.word(),
                at: 9,
                why: "its header names another kind of object",
            })
        }
    }
}

/// Gives the content name of an object: BLAKE3 of all its bytes.
#[must_use]
pub fn object_id(object: &[u8]) -> ObjectId {
    ObjectId(*blake3::hash(object).as_bytes())
}

/// Appends the closing hash to an object with a chosen name.
#[must_use]
pub fn close(mut object: Vec<u8>) -> Vec<u8> {
    let hash = blake3::hash(&object);
    object.extend_from_slice(hash.as_bytes());
    object
}

/// Verifies the closing hash of an object and gives all bytes before it; `what` names the object
/// in the error.
pub fn verify_closing<'a>(what: &'static str, object: &'a [u8]) -> Result<&'a [u8]> {
    let (before, hash) = object
        .split_last_chunk::<CLOSING_BYTES>()
        .filter(|(before, _)| before.len() >= HEADER_BYTES)
        .ok_or(FormatError::Malformed {
            what,
            at: object.len(),
            why: "it ends too early",
        })?;
    if blake3::hash(before).as_bytes() == hash {
        Ok(before)
    } else {
        Err(FormatError::WrongHash { what })
    }
}

/// Makes the reserve object: `size` bytes in all, from 64 + 32 up, without meaning.
///
/// The body is the stream of BLAKE3 over `seed`, so that a storage cannot compress it away.
#[must_use]
pub fn reserve(size: usize, uid: [u8; 16], seed: &[u8; 32]) -> Vec<u8> {
    let header = Header {
        kind: Kind::Reserve,
        key_id: KeyId::default(),
        uid,
    };
    let mut object = header.encode().to_vec();
    append_random(
        &mut object,
        size.saturating_sub(HEADER_BYTES + CLOSING_BYTES),
        seed,
    );
    close(object)
}

/// Appends `length` bytes of the BLAKE3 stream over `seed`.
pub(crate) fn append_random(out: &mut Vec<u8>, length: usize, seed: &[u8; 32]) {
    let start = out.len();
    out.resize(start + length, 0);
    if let Some(room) = out.get_mut(start..) {
        let mut hasher = blake3::Hasher::new_derive_key("larder v1 padding");
        hasher.update(seed);
        hasher.finalize_xof().fill(room);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_goes_both_ways() {
        for number in 0..=255 {
            let Some(kind) = Kind::from_number(number) else {
                continue;
            };
            assert_eq!(kind as u8, number);
            let header = Header {
                kind,
                key_id: KeyId([7; 32]),
                uid: [9; 16],
            };
            assert_eq!(Header::decode(&header.encode()), Ok(header));
            assert_eq!(Header::decode_kind(&header.encode(), kind), Ok(header));
        }
        let header = Header {
            kind: Kind::Cell,
            key_id: KeyId([7; 32]),
            uid: [9; 16],
        };
        let mut bytes = header.encode();
        assert!(Header::decode_kind(&bytes, Kind::Session).is_err());
        bytes[8] = 2;
        assert_eq!(
            Header::decode(&bytes),
            Err(FormatError::UnknownVersion { found: 2 })
        );
    }

    #[test]
    fn a_reserve_is_incompressible_and_closed() {
        let object = reserve(4096, [1; 16], &[2; 32]);
        assert_eq!(object.len(), 4096);
        assert!(verify_closing("reserve", &object).is_ok());
        assert_ne!(object[64..128], object[128..192]);
    }

    proptest! {
        #[test]
        fn a_flipped_bit_breaks_the_closing_hash(body: Vec<u8>, at: prop::sample::Index, bit in 0..8_u8) {
            let mut object = [0; HEADER_BYTES].to_vec();
            object.extend_from_slice(&body);
            let mut closed = close(object.clone());
            prop_assert_eq!(verify_closing("test", &closed), Ok(object.as_slice()));
            let at = at.index(closed.len());
            closed[at] ^= 1_u8 << bit;
            prop_assert!(verify_closing("test", &closed).is_err());
        }

        #[test]
        fn no_bytes_make_a_header_panic(bytes: Vec<u8>) {
            let _ = Header::decode(&bytes);
            let _ = verify_closing("test", &bytes);
        }
    }
}
