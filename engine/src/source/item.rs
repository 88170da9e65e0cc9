//! What a source gives: an entry with the means to read it, wherever it is.

use std::path::PathBuf;

use larder_format::entry::Entry;

use super::bucket::Object;
use super::stat::Walked;

/// An entry of a source with the means to read it.
#[derive(Debug, Clone)]
pub enum Item {
    /// Of a file tree.
    File(Walked),
    /// Of a bucket.
    Object(Object),
}

impl Item {
    /// Gives the entry as it was found.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        match self {
            Self::File(walked) => &walked.entry,
            Self::Object(object) => &object.entry,
        }
    }

    /// Gives the path as the user knows it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match self {
            Self::File(walked) => walked.path(),
            Self::Object(object) => object.path(),
        }
    }
}
