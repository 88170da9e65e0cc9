//! Buckets as things to back up, and to restore into: objects under keys of any bytes.
//!
//! A repository needs little of a storage and names its objects itself; a bucket of the user's has
//! whatever keys and metadata its users gave it. So this is another interface than
//! [`Storage`](super::Storage), over the same credentials, limits and retries.

#[cfg(any(test, feature = "testing"))]
pub mod memory;
pub mod thawing;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use jiff::Timestamp;

use super::cloud;
use super::error::{ErrorKind, Operation, Reason, Result, StorageError};
use super::location::{Location, Scheme};
use super::network::Network;
use super::thaw::{Thaw, Warmth};

/// The longest key of an object in bytes; S3 and Google allow 1,024 of them, Azure 1,024 characters.
pub const KEY_BYTES: usize = 4096;
/// The most objects of one page of a listing that are taken; Azure's pages have 5,000.
pub const PAGE_OBJECTS: usize = 10_000;

/// What an object was stored with, by name: `content-type` and its kin as in HTTP's headers,
/// `meta/NAME` for user metadata and `tag/KEY` for tags; [`CLASS`] is written and never read.
pub type Properties = BTreeMap<Vec<u8>, Vec<u8>>;

/// The property that names the storage class of an object that is written; the location's own setting
/// goes before it.
pub const CLASS: &str = "storage-class";

/// The headers that are properties of an object, as HTTP names them.
pub const HEADERS: [&str; 6] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
];

/// Objects under keys of any bytes, in byte order; every call blocks until it is done.
///
/// Keys are relative to the prefix that the location names.
pub trait Bucket: Send + Sync + fmt::Debug {
    /// Gives one page of the listing.
    ///
    /// A page that is cut short, or cannot be understood, is an error. Whether pages follow each other
    /// in order, and begin where they were asked to, is for the caller to see.
    fn page(&self, from: PageFrom<'_>) -> Result<Page>;

    /// Reads an object, or a part of it.
    fn get(&self, key: &[u8], ask: &Ask<'_>) -> Result<Answer>;

    /// Gives the tags of an object, as properties; none if there is no such object.
    fn tags(&self, key: &[u8]) -> Result<Option<Properties>>;

    /// Tells whether objects have tags here at all.
    fn has_tags(&self) -> bool;

    /// Writes an object in place of one that may be there.
    fn put(&self, key: &[u8], bytes: Bytes, properties: &Properties) -> Result<()>;

    /// Begins an object that is written in parts; it appears when they are all told to belong together.
    fn begin(&self, key: &[u8], properties: &Properties) -> Result<Upload>;

    /// Writes a part; numbers begin at 1, and only the last part may be smaller than 5 MiB.
    ///
    /// Gives what [`Bucket::complete`] has to be told of it.
    fn part(&self, key: &[u8], upload: &Upload, number: u32, bytes: Bytes) -> Result<String>;

    /// Makes the object of its parts, in the order of their numbers; the properties are those with which
    /// it was begun.
    fn complete(
        &self,
        key: &[u8],
        upload: &Upload,
        parts: &[String],
        properties: &Properties,
    ) -> Result<()>;

    /// Throws the parts away, or leaves them to the store that does so by itself.
    fn abort(&self, key: &[u8], upload: &Upload) -> Result<()>;

    /// Gives the uploads that were begun and neither completed nor thrown away, some thousands at most.
    fn uploads(&self) -> Result<Vec<OpenUpload>>;

    /// Removes an object; one that is not there is removed already.
    fn delete(&self, key: &[u8]) -> Result<()>;

    /// Tells whether objects may have to be brought back from archives here.
    fn thaws(&self) -> bool;

    /// Tells whether an object is worth reading whose class says that it has to be brought back: it may be there
    /// by now, and is asked for if it is not.
    fn reads_cold(&self) -> bool {
        false
    }

    /// Tells whether an object, or a version of it, can be read; none if there is none.
    fn warmth(&self, key: &[u8], version: Option<&str>) -> Result<Option<Warmth>>;

    /// Asks for an object to be brought back; asking again is no error.
    fn thaw(&self, key: &[u8], version: Option<&str>, warmth: &Warmth, how: &Thaw) -> Result<()>;

    /// Tells how many calls at once are of use.
    fn calls_at_once(&self) -> usize;

    /// Names the bucket and prefix for a person, without secrets.
    fn describe(&self) -> String;
}

/// Where a page of a listing begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFrom<'a> {
    /// With the first key.
    Start,
    /// With the first key behind this one, which has to be UTF-8; Azure cannot, and begins with the first.
    Behind(&'a [u8]),
    /// Where a page before says.
    Next(&'a str),
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Its objects, in the order in which they came.
    pub objects: Vec<Listed>,
    /// What the page behind it is asked for by; none if this is the last one.
    pub next: Option<String>,
}

/// An object as a listing shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// The key below the prefix.
    pub key: Vec<u8>,
    /// The size in bytes.
    pub size: u64,
    /// When it was modified; none where the listing does not say.
    pub modified: Option<Timestamp>,
    /// The ETag without quotes; empty where there is none.
    pub etag: String,
    /// The version id; empty where the listing does not say.
    pub version: String,
    /// The storage class; empty where the listing does not say.
    pub class: String,
}

/// What is asked of an object.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Where to begin and how many bytes to take; the whole object if none.
    pub range: Option<(u64, u64)>,
    /// Answers [`Answer::Changed`] if the object has another ETag.
    pub if_match: Option<&'a str>,
    /// The version to read, empty for the one from before the bucket kept versions; it counts where the
    /// bucket was opened as it was at a time, and there has to be one.
    pub version: Option<&'a str>,
    /// More bytes than these answer [`Answer::Changed`], before they are read.
    pub bytes_max: u64,
}

/// What became of the wish to read an object.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Here it is.
    Object(Box<Got>),
    /// It is another object than the one that was asked for.
    Changed,
    /// There is none.
    Missing,
    /// It is archived and has to be thawed first.
    Cold,
}

/// An object that was read, or a part of one.
#[derive(Clone, Debug, Default)]
pub struct Got {
    /// The bytes that were asked for.
    pub bytes: Bytes,
    /// The size of the whole object in bytes.
    pub size: u64,
    /// When it was modified, to the second.
    pub modified: Option<Timestamp>,
    /// The ETag without quotes.
    pub etag: String,
    /// The version id; empty where the bucket keeps no versions.
    pub version: String,
    /// What it was stored with.
    pub properties: Properties,
}

/// An upload in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload(pub String);

/// An upload in parts that has no end yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenUpload {
    /// The key below the prefix.
    pub key: Vec<u8>,
    /// The upload.
    pub upload: Upload,
    /// When it was begun.
    pub begun: Timestamp,
}

/// Tells whether objects of a storage class have to be thawed before they can be read.
#[must_use]
pub fn is_cold(class: &[u8]) -> bool {
    matches!(class, b"GLACIER" | b"DEEP_ARCHIVE" | b"Archive")
}

/// Opens the bucket at a location; `stop` is set when the process is asked to end.
///
/// # Errors
/// `Permanent` with `Reason::Settings` for a location that is no bucket or a setting that makes no
/// sense. Nothing is asked yet of the bucket itself.
pub fn open(location: &Location, stop: Arc<AtomicBool>) -> Result<Arc<dyn Bucket>> {
    let refuse = |cause: String| {
        let place = location.place.to_string();
        StorageError::new(Operation::Open, place, "", ErrorKind::Permanent, cause)
            .because(Reason::Settings)
    };
    let network = Network::new(&location.settings, stop).map_err(refuse)?;
    match location.place.scheme {
        Scheme::S3 => cloud::open_s3_bucket(location, network, None),
        Scheme::Google => cloud::open_google_bucket(location, network),
        Scheme::Azure => cloud::open_container(location, network),
        other => Err(refuse(format!(
            "objects of {}:// cannot be backed up or restored into; those of s3://, gs:// and az:// can",
            other.name()
        ))),
    }
}

/// Opens the bucket at a location as it was at a time, to be read alone.
///
/// # Errors
/// As [`open`]; also for a store that does not say when objects were deleted.
pub fn open_at(
    location: &Location,
    time: Timestamp,
    stop: Arc<AtomicBool>,
) -> Result<Arc<dyn Bucket>> {
    let refuse = |cause: String| {
        let place = location.place.to_string();
        StorageError::new(Operation::Open, place, "", ErrorKind::Permanent, cause)
            .because(Reason::Settings)
    };
    let network = Network::new(&location.settings, stop).map_err(refuse)?;
    match location.place.scheme {
        Scheme::S3 => cloud::open_s3_bucket(location, network, Some(time)),
        other => Err(refuse(format!(
            "what was there at a time is known of buckets of s3:// that keep versions, and not of {}://",
            other.name()
        ))),
    }
}

/// Tells whether what a scheme names can be opened as a bucket.
#[must_use]
pub fn is_bucket(scheme: Scheme) -> bool {
    matches!(scheme, Scheme::S3 | Scheme::Google | Scheme::Azure)
}
