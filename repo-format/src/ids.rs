//! The names of things (SPEC.md §4).

use alloc::string::String;
use core::fmt;

/// Defines a fixed-size identifier that is shown, parsed and compared as lower-case hex.
macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $size:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; $size]);

        impl $name {
            /// The size of the identifier in bytes.
            pub const SIZE: usize = $size;

            /// Takes the identifier from a slice of exactly the right length.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                <[u8; $size]>::try_from(bytes).ok().map(Self)
            }

            /// Parses lower-case hex of exactly the right length.
            #[must_use]
            pub fn from_hex(text: &str) -> Option<Self> {
                let mut bytes = [0; $size];
                decode_hex(text, &mut bytes).then_some(Self(bytes))
            }

            /// Gives the identifier as lower-case hex.
            #[must_use]
            pub fn to_hex(&self) -> String {
                encode_hex(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

identifier!(
    /// The id of a chunk: keyed BLAKE3 of its type and plaintext.
    ChunkId,
    32
);
identifier!(
    /// The first half of a [`ChunkId`]: what pack directories and segments hold.
    ChunkPrefix,
    16
);
identifier!(
    /// The content name of a pack, segment or parity object: BLAKE3 of its stored bytes.
    ObjectId,
    32
);
identifier!(
    /// The commitment of a key: a BLAKE3 derivation of it, carried in headers and AADs.
    KeyId,
    32
);
identifier!(
    /// The first half of a pack's [`ObjectId`]: what ledgers hold.
    PackPrefix,
    16
);
identifier!(
    /// The random id of a ledger.
    LedgerId,
    16
);
identifier!(
    /// The id of a run of several shards, which follows from its name.
    RunId,
    16
);
identifier!(
    /// The random id of a repository, shared with its mirrors.
    RepositoryId,
    16
);
identifier!(
    /// The random id of one storage's copy of a repository.
    ReplicaId,
    16
);
identifier!(
    /// The random name of a key slot.
    SlotId,
    16
);
identifier!(
    /// A session and the cell it commits: 8 bytes of the newest collector round it saw
    /// (big-endian), then 16 random bytes.
    SessionId,
    24
);

/// The type of a chunk: it goes into the chunk's id and its block's associated data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ChunkType {
    /// Bytes of files.
    Data = 1,
    /// A leaf of a tree.
    TreeLeaf = 2,
    /// An interior node of a tree.
    TreeInterior = 3,
    /// A leaf of a list.
    ListLeaf = 4,
    /// An interior node of a list.
    ListInterior = 5,
    /// A value out of line.
    Value = 6,
}

impl ChunkType {
    /// Takes the type from its number in SPEC.md.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Data,
            2 => Self::TreeLeaf,
            3 => Self::TreeInterior,
            4 => Self::ListLeaf,
            5 => Self::ListInterior,
            6 => Self::Value,
            _ => return None,
        })
    }

    /// Gives the type of a tree's node at `level`.
    #[must_use]
    pub fn of_tree(level: u8) -> Self {
        if level == 0 {
            Self::TreeLeaf
        } else {
            Self::TreeInterior
        }
    }

    /// Gives the type of a list's node at `level`.
    #[must_use]
    pub fn of_list(level: u8) -> Self {
        if level == 0 {
            Self::ListLeaf
        } else {
            Self::ListInterior
        }
    }
}

impl ObjectId {
    /// Gives the first half, which ledgers hold.
    #[must_use]
    pub fn prefix(&self) -> PackPrefix {
        let (prefix, _) = self.0.split_at(PackPrefix::SIZE);
        PackPrefix::from_slice(prefix).unwrap_or_default()
    }
}

impl ChunkId {
    /// Gives the half of the id that directories and segments hold.
    #[must_use]
    pub fn prefix(&self) -> ChunkPrefix {
        let mut prefix = [0; 16];
        for (to, from) in prefix.iter_mut().zip(self.0) {
            *to = from;
        }
        ChunkPrefix(prefix)
    }
}

impl SessionId {
    /// Names a session that saw collector round `round` as the newest, with 16 random bytes.
    #[must_use]
    pub fn new(round: u64, random: [u8; 16]) -> Self {
        let mut bytes = [0; 24];
        let source = round.to_be_bytes().into_iter().chain(random);
        for (to, from) in bytes.iter_mut().zip(source) {
            *to = from;
        }
        Self(bytes)
    }

    /// Gives the newest collector round that the session had seen.
    #[must_use]
    pub fn round(&self) -> u64 {
        let mut round = [0; 8];
        for (to, from) in round.iter_mut().zip(self.0) {
            *to = from;
        }
        u64::from_be_bytes(round)
    }

    /// Gives the random half as hex: how a person names the snapshot.
    #[must_use]
    pub fn snapshot_name(&self) -> String {
        encode_hex(self.0.get(8..).unwrap_or_default())
    }
}

/// Writes bytes as lower-case hex.
#[must_use]
pub fn encode_hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// Fills `bytes` from lower-case hex of exactly twice its length; false if it is not that.
#[must_use]
pub fn decode_hex(text: &str, bytes: &mut [u8]) -> bool {
    let digit = |char: u8| match char {
        b'0'..=b'9' => Some(char - b'0'),
        b'a'..=b'f' => Some(char - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != bytes.len() || !rest.is_empty() {
        return false;
    }
    for (to, [high, low]) in bytes.iter_mut().zip(pairs) {
        match (digit(*high), digit(*low)) {
            (Some(high), Some(low)) => *to = high << 4 | low,
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_both_ways_and_refuses_what_is_not_hex() {
        let id = KeyId(core::array::from_fn(|index| index as u8 * 7));
        assert_eq!(KeyId::from_hex(&id.to_hex()), Some(id));
        assert_eq!(KeyId::from_hex("00"), None);
        assert_eq!(KeyId::from_hex(&id.to_hex().to_uppercase()), None);
        assert_eq!(encode_hex(&[0x0a, 0xff]), "0aff");
    }

    #[test]
    fn a_session_carries_its_round() {
        let session = SessionId::new(0x0102, [0xee; 16]);
        assert_eq!(session.round(), 0x0102);
        assert_eq!(session.to_hex().get(..16), Some("0000000000000102"));
        assert_eq!(session.snapshot_name(), "ee".repeat(16));
    }
}
