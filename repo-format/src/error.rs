//! What can be wrong with bytes that claim to be part of a repository.

use alloc::string::String;
use core::fmt;

/// The result of reading or making a piece of the format.
pub type Result<T> = core::result::Result<T, FormatError>;

/// What is wrong with bytes that were read, or with a value that cannot be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormatError {
    /// The bytes are not what SPEC.md says: what was malformed, and at which byte offset of it.
    Malformed {
        /// The structure that was being read, e.g. "pack footer".
        what: &'static str,
        /// Offset in bytes within that structure.
        at: usize,
        /// Why it is malformed, as the end of a sentence.
        why: &'static str,
    },
    /// A length, depth or count is above the limit that SPEC.md sets.
    Limit {
        /// The thing that is bounded, e.g. "chunks in a block".
        what: &'static str,
        /// The value found.
        found: u64,
        /// The largest value allowed.
        limit: u64,
    },
    /// Authentication failed: wrong key, or altered bytes.
    Unauthentic {
        /// What was being opened.
        what: &'static str,
    },
    /// The bytes of a chunk do not have the id under which they were kept.
    WrongId {
        /// What was being opened.
        what: &'static str,
    },
    /// The closing hash or content name of an object does not match its bytes.
    WrongHash {
        /// What was being opened.
        what: &'static str,
    },
    /// The object needs a format version that this program does not know.
    UnknownVersion {
        /// The version found.
        found: u8,
    },
    /// The repository requires a feature that this program does not know.
    UnknownFeature {
        /// The feature's name, as the config gives it.
        feature: String,
    },
    /// No key of the needed purpose and epoch is in the keyring.
    MissingKey {
        /// The purpose, e.g. "data".
        purpose: &'static str,
    },
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { what, at, why } => {
                write!(f, "malformed {what} at byte {at}: {why}")
            }
            Self::Limit { what, found, limit } => {
                write!(f, "{what}: {found} is above the limit of {limit}")
            }
            Self::Unauthentic { what } => write!(
                f,
                "{what} does not authenticate: it was altered, or sealed under another key"
            ),
            Self::WrongId { what } => write!(f, "{what} does not have the id it is kept under"),
            Self::WrongHash { what } => write!(f, "{what} does not have the hash it claims"),
            Self::UnknownVersion { found } => write!(
                f,
                "format version {found} is unknown; a newer larder may read it"
            ),
            Self::UnknownFeature { feature } => write!(
                f,
                "the repository requires the feature '{feature}', which this larder does not know; use a newer one"
            ),
            Self::MissingKey { purpose } => {
                write!(f, "the keyring holds no {purpose} key for this object")
            }
        }
    }
}

impl core::error::Error for FormatError {}
