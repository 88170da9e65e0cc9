//! Snapshots: listing, and finding the one that a person means.

use crate::error::{EngineError, Result};
use crate::repository::Repository;

/// One finished backup, as it is listed.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SnapshotInfo {
    /// The id by which people name it: 32 hex digits.
    pub id: String,
    /// When it was started (RFC 3339, UTC).
    #[serde(serialize_with = "rfc3339")]
    pub time: jiff::Timestamp,
    /// When it was finished.
    #[serde(serialize_with = "rfc3339")]
    pub end: jiff::Timestamp,
    /// Whether it is a checkpoint of an unfinished backup.
    pub partial: bool,
    /// Host it was made on.
    pub host: String,
    /// User who made it.
    pub user: String,
    /// Tags, sorted.
    pub tags: Vec<String>,
    /// Sources as they were given (lossy where they are not UTF-8).
    pub sources: Vec<String>,
    /// Id of the snapshot that it was compared with.
    pub parent: Option<String>,
    /// Program that made it.
    pub program: String,
    /// What was counted.
    pub statistics: Statistics,
    /// The session, by which the engine finds it again.
    #[serde(skip)]
    pub session: larder_format::ids::SessionId,
}

fn rfc3339<S: serde::Serializer>(
    time: &jiff::Timestamp,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

/// What a backup counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Statistics {
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Other entries.
    pub others: u64,
    /// Entries that the parent did not have.
    pub new: u64,
    /// Entries that differ from the parent's.
    pub changed: u64,
    /// Entries that are as in the parent.
    pub unchanged: u64,
    /// Entries whose content could not be read.
    pub unreadable: u64,
    /// Files that changed while they were read, twice.
    pub changed_while_read: u64,
    /// Bytes of all files together.
    pub bytes: u64,
    /// Bytes read from the source.
    pub bytes_read: u64,
    /// Bytes of chunks that were new, before compression.
    pub bytes_added: u64,
    /// Bytes that were written to the storage.
    pub bytes_stored: u64,
    /// Chunks that were new.
    pub chunks_added: u64,
}

/// Which snapshots are meant at all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only these hosts; all if empty.
    pub hosts: Vec<String>,
    /// Only those that have every tag of one of these comma-separated lists; all if empty.
    pub tags: Vec<String>,
    /// Only those that have all of these sources; all if empty.
    pub paths: Vec<String>,
}

/// Lists complete snapshots that are not forgotten, oldest first; partial ones too if asked.
///
/// # Errors
/// What the storage answers; `Damaged` for a cell that does not open.
pub fn list(repository: &Repository, filter: &Filter, partial: bool) -> Result<Vec<SnapshotInfo>> {
    let _ = (repository, filter, partial);
    Err(EngineError::Internal("not there yet".into()))
}

/// A snapshot as a person names it, and the path below it if one was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Which snapshot.
    pub which: Which,
    /// The path after the colon, as raw bytes.
    pub path: Option<Vec<u8>>,
}

/// The ways to name a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// `latest`, or `latest~N`: the Nth before it.
    Latest(usize),
    /// `@[TIME]`: the newest that is not later.
    At(jiff::Timestamp),
    /// An id, or a unique prefix of one.
    Prefix(String),
}

impl Spec {
    /// Parses `ID`, `latest`, `latest~N` or `@[TIME]`, each perhaps followed by `:PATH`.
    ///
    /// # Errors
    /// `Request`, with what is wrong and an example.
    pub fn parse(text: &std::ffi::OsStr, now: &jiff::Zoned) -> Result<Self> {
        let _ = (text, now);
        Err(EngineError::Internal("not there yet".into()))
    }
}

/// Finds the one snapshot that is meant.
///
/// # Errors
/// `NotFound`; `Request` for an ambiguous prefix, naming the candidates.
pub fn resolve(repository: &Repository, which: &Which, filter: &Filter) -> Result<SnapshotInfo> {
    let _ = (repository, which, filter);
    Err(EngineError::Internal("not there yet".into()))
}
