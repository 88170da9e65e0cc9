//! The few kinds of failure that a caller can act on.

use std::path::PathBuf;

use larder_format::error::FormatError;

use crate::index::IndexError;
use crate::scratch::ScratchError;
use crate::storage::error::StorageError;

/// The result of an operation.
pub type Result<T> = std::result::Result<T, EngineError>;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// There is no repository at the location.
    #[error(
        "there is no repository at {location}; make one with `larder init`, or check the location"
    )]
    NoRepository {
        /// The location, without secrets.
        location: String,
    },
    /// There is a repository at the location already.
    #[error("there is already a repository at {location}; it was left as it is")]
    RepositoryExists {
        /// The location, without secrets.
        location: String,
    },
    /// None of the key slots opens with the secret that was given.
    #[error("wrong password or key: none of the {slots} key slots of {location} opens with it")]
    WrongSecret {
        /// The location, without secrets.
        location: String,
        /// The number of slots that were tried.
        slots: usize,
    },
    /// The repository needs a newer program.
    #[error("{location} cannot be used by this version of larder: {why}")]
    Unsupported {
        /// The location, without secrets.
        location: String,
        /// What is not known.
        why: String,
    },
    /// A bundle is cut off, altered or malformed.
    #[error("{bundle} is no whole bundle: {why}; nothing of it is used")]
    Bundle {
        /// The bundle: its location, or where it came from.
        bundle: String,
        /// What is wrong with it.
        why: String,
    },
    /// An object of the repository is damaged or missing.
    #[error(
        "{object} is damaged: {why}; `larder check` says what suffers from it, and `larder repair` what can be mended"
    )]
    Damaged {
        /// The object's name in the storage, or what refers to it.
        object: String,
        /// What is wrong with it.
        why: String,
    },
    /// The request itself cannot be carried out as it was given.
    #[error("{0}")]
    Request(String),
    /// A snapshot or path that was asked for is not there.
    #[error("{0}")]
    NotFound(String),
    /// The snapshot lacks what was asked for, since it could not be read when it was backed up.
    #[error("{path} could not be read when it was backed up: the snapshot has its metadata alone")]
    Unread {
        /// The path, lossy where it is not UTF-8.
        path: String,
    },
    /// A file or folder of the user's could not be worked on at all.
    #[error("cannot {operation} {}: {source}", path.display())]
    File {
        /// What was tried, e.g. "open".
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The operation was interrupted; the repository is consistent.
    #[error("interrupted; the repository is consistent, and what was finished is kept")]
    Interrupted,
    /// A block that was sealed does not open as what went in.
    #[error(
        "this machine computes wrongly: a block that was just sealed does not hold what went into it ({0}); nothing of it was uploaded, and what is in the repository is not touched. Test its memory and processor, and back up again from a sound one"
    )]
    Faulty(String),
    /// A thread of the operation ended without a result.
    #[error("internal error: {0}; please report it")]
    Internal(String),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The local index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The local disk that holds scratch data failed.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// Something that was to be written is against the format's limits.
    #[error(transparent)]
    Format(#[from] FormatError),
}

impl EngineError {
    /// Tells whether what was to be read lies in cold storage.
    #[must_use]
    pub fn is_cold(&self) -> bool {
        use crate::storage::error::Reason;
        matches!(self, Self::Storage(error) if error.reason == Reason::Cold)
    }

    /// Says that an object is damaged, with what the format found wrong.
    pub(crate) fn damaged(object: &str, why: &dyn std::fmt::Display) -> Self {
        Self::Damaged {
            object: object.to_owned(),
            why: why.to_string(),
        }
    }
}
