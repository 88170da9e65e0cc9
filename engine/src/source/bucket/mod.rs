//! A bucket as a source: its listing in key order, what of it changed, and its objects' bytes.

pub mod change;
pub mod feed;
pub mod listing;
pub mod ranges;
pub mod read;
pub mod sorted;

use std::path::PathBuf;
use std::sync::Arc;

use larder_format::attributes::{self, ExtendedAttribute};
use larder_format::entry::{Entry, EntryType, Timestamp};

use crate::storage::bucket::{Bucket, Listed, Properties};

/// An object of a bucket with the means to read it.
#[derive(Debug, Clone)]
pub struct Object {
    /// The entry as the listing has it, without content and properties.
    pub entry: Entry,
    /// The bucket that it is in.
    pub bucket: Arc<dyn Bucket>,
    /// How it is known.
    pub known: Known,
}

/// How an object of a bucket is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// A listing shows it: whether it changed is to be compared.
    Listed,
    /// The parent snapshot has it, and nobody says that it changed.
    Kept,
    /// Somebody says that it may have changed: of its entry only the key is known.
    Told,
}

impl Object {
    /// Makes the entry of what a listing shows.
    #[must_use]
    pub fn new(bucket: &Arc<dyn Bucket>, listed: Listed) -> Self {
        Self {
            entry: Entry {
                key: listed.key,
                kind: EntryType::Object,
                size: listed.size,
                mtime: listed.modified.map(timestamp).unwrap_or_default(),
                etag: listed.etag.into_bytes(),
                version: listed.version.into_bytes(),
                class: listed.class.into_bytes(),
                ..Entry::default()
            },
            bucket: Arc::clone(bucket),
            known: Known::Listed,
        }
    }

    /// Gives the version that a listing shows of it, for a bucket as it was at a time.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        let is_listed = self.known == Known::Listed;
        let version = std::str::from_utf8(&self.entry.version).ok();
        version.filter(|_| is_listed)
    }

    /// Gives the path as the user knows it: the bucket's, and the key.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        let key = String::from_utf8_lossy(&self.entry.key);
        PathBuf::from(format!("{}/{key}", self.bucket.describe()))
    }
}

/// Encodes what an object was stored with; empty if that is nothing, none if it is too long.
#[must_use]
pub fn record(properties: &Properties) -> Option<Vec<u8>> {
    let pairs = properties.iter().map(|(name, value)| ExtendedAttribute {
        name: name.clone(),
        value: value.clone(),
    });
    let pairs: Vec<_> = pairs.collect();
    match pairs.is_empty() {
        true => Some(Vec::new()),
        false => attributes::encode_properties(&pairs).ok(),
    }
}

fn timestamp(time: jiff::Timestamp) -> Timestamp {
    let nanoseconds = time.as_nanosecond();
    Timestamp {
        seconds: i64::try_from(nanoseconds.div_euclid(1_000_000_000)).unwrap_or_default(),
        nanoseconds: u32::try_from(nanoseconds.rem_euclid(1_000_000_000)).unwrap_or_default(),
    }
}
