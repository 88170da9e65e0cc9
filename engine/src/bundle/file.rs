//! A bundle in a file, as a storage that is only read.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bytes::Bytes;
use larder_format::bundle::{
    Frames, HEAD_BYTES_MAX, RECORD_NAME, START_BYTES, Span, check_start, head_bytes,
};
use larder_format::config::Config;
use larder_format::error::FormatError;
use larder_format::names::{self, Name};
use larder_format::verify::{Verifier, verify};

use crate::cancel::Cancel;
use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::storage::error::{ErrorKind, Operation, Result as StorageResult, StorageError};
use crate::storage::{Capabilities, CreateExclusive, ObjectInfo, Storage};

/// Bytes that are read at once where only their hash is wanted.
pub(super) const PIECE_BYTES: usize = 1 << 20;

/// A file, and where the objects are in it.
pub(crate) struct BundleFile {
    pub(super) file: File,
    pub(super) frames: Frames,
    pub(super) location: String,
}

impl BundleFile {
    /// Opens a bundle: goes from head to head, and reads nothing else but its config and slots.
    ///
    /// # Errors
    /// `NoRepository` if there is no such file, `Bundle` if it is none or not whole as far as can be told
    /// without keys, `File` if it cannot be read.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let location = format!("bundle:{}", path.display());
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => EngineError::NoRepository {
                location: location.clone(),
            },
            _ => unreadable(path, source),
        };
        // To open a pipe would wait for somebody to write to it.
        if !fs::metadata(path).map_err(failed)?.is_file() {
            return Err(EngineError::Request(format!(
                "{} is no regular file; a bundle that comes through a pipe is taken by `larder import -`",
                path.display()
            )));
        }
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut bundle = Self {
            file,
            frames: Frames::new(),
            location,
        };
        bundle.read_heads(length).map_err(|error| match error {
            Unreadable::Disk(source) => unreadable(path, source),
            Unreadable::Bundle(why) => bundle.refuse(why),
        })?;
        bundle.check_openers()?;
        Ok(bundle)
    }

    fn read_heads(&mut self, length: u64) -> std::result::Result<(), Unreadable> {
        let mut start = [0; START_BYTES];
        match self.file.read_exact_at(&mut start, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(Unreadable::Bundle(NO_START.to_owned()));
            }
            read => read?,
        }
        check_start(&start)?;
        let mut room = [0; HEAD_BYTES_MAX];
        while self.frames.end().is_none() {
            let read = read_at_most(&self.file, &mut room, self.frames.position())?;
            let read = room.get(..read).unwrap_or_default();
            let cut_off = || Unreadable::Bundle(cut_off(&self.frames));
            let size = head_bytes(*read.first().ok_or_else(cut_off)?)?;
            let head = read.get(..size).ok_or_else(cut_off)?;
            self.frames.read(head)?;
            if self.frames.position() > length {
                return Err(Unreadable::Bundle(cut_off_within(&self.frames)));
            }
        }
        match self.frames.position() == length {
            true => Ok(()),
            false => Err(Unreadable::Bundle(FOLLOWED.to_owned())),
        }
    }

    /// Verifies what opens the bundle, as far as that needs no key; gives the config.
    pub(super) fn check_openers(&self) -> Result<Config> {
        let config = self.config()?;
        let slots = self.frames.iter().filter_map(|(name, _)| match name {
            Name::Slot(id) => Some(id),
            _ => None,
        });
        let slots: Vec<_> = slots.collect();
        if slots.is_empty() || slots != config.slots {
            return Err(self.refuse("its key slots are not those that its config lists"));
        }
        for slot in slots {
            self.sound(&Name::Slot(slot))?;
        }
        Ok(config)
    }

    /// Reads the config, which nobody has authenticated yet.
    pub(super) fn config(&self) -> Result<Config> {
        let name = Name::Config(1);
        let object = self.sound(&name)?;
        let config = Config::read_unverified(1, &object)
            .map_err(|error| self.refuse(format!("{name}: {error}")))?;
        match config.is_bundle() {
            true => Ok(config),
            false => Err(self.refuse("its config is not that of a bundle")),
        }
    }

    /// Reads an object whose hash is right.
    fn sound(&self, name: &Name) -> Result<Bytes> {
        let object = self.get(&name.to_string(), u64::MAX)?;
        verify(*name, &object).map_err(|error| self.refuse(format!("{name}: {error}")))?;
        Ok(object)
    }

    /// Reads every object once and verifies its hash.
    ///
    /// # Errors
    /// `Bundle` for one that is not right, `Interrupted`, or what the file answers.
    pub(super) fn verify_objects(&self, progress: &dyn Progress, cancel: &Cancel) -> Result<()> {
        let record = self.frames.record();
        progress.phase(
            "verifying the bundle",
            Some(record.objects),
            Some(record.bytes),
        );
        let mut room = vec![0; PIECE_BYTES];
        for (name, span) in super::below(&self.frames, "") {
            let wrong = |error: FormatError| self.refuse(format!("{name}: {error}"));
            let mut verifier = Verifier::new(name, span.length).map_err(wrong)?;
            let mut done = 0;
            while done < span.length {
                cancel.check()?;
                let left = usize::try_from(span.length - done).unwrap_or(PIECE_BYTES);
                let piece = room.get_mut(..left.min(PIECE_BYTES)).unwrap_or_default();
                let read = self.file.read_exact_at(piece, span.offset + done);
                read.map_err(|error| self.failed(Operation::Get, &name.to_string(), &error))?;
                verifier.update(piece);
                done += piece.len() as u64;
                progress.advance(0, piece.len() as u64);
            }
            verifier.finish().map_err(wrong)?;
            progress.advance(1, 0);
        }
        Ok(())
    }

    /// Says why it is no bundle that can be used.
    pub(super) fn refuse(&self, why: impl Into<String>) -> EngineError {
        EngineError::Bundle {
            bundle: self.location.clone(),
            why: why.into(),
        }
    }

    fn span(&self, operation: Operation, name: &str) -> StorageResult<Span> {
        let span = match name {
            RECORD_NAME => self.frames.end(),
            _ => names::parse(name).and_then(|name| self.frames.get(&name)),
        };
        let missing = "there is no such object";
        span.ok_or_else(|| self.error(operation, name, ErrorKind::NotFound, missing))
    }

    fn read(&self, operation: Operation, name: &str, span: Span) -> StorageResult<Bytes> {
        let too_long = |_| self.error(operation, name, ErrorKind::Oversized, "it is too long");
        // At most what an object of its name may have, for else it has no span.
        let mut bytes = vec![0; usize::try_from(span.length).map_err(too_long)?];
        self.file
            .read_exact_at(&mut bytes, span.offset)
            .map_err(|error| self.failed(operation, name, &error))?;
        Ok(Bytes::from(bytes))
    }

    fn read_only(&self, operation: Operation, name: &str) -> StorageResult<()> {
        let why = "a bundle is only read; larder import brings its snapshots into a repository";
        Err(self.error(operation, name, ErrorKind::Permanent, why))
    }

    fn failed(&self, operation: Operation, name: &str, error: &io::Error) -> StorageError {
        StorageError::from_io(operation, &self.location, name, error)
    }

    fn error(
        &self,
        operation: Operation,
        name: &str,
        kind: ErrorKind,
        why: impl Into<String>,
    ) -> StorageError {
        StorageError::new(operation, self.location.as_str(), name, kind, why)
    }
}

/// What a file or stream is that ends before the first head.
pub(super) const NO_START: &str = "it does not begin as a bundle does";
/// What is wrong with bytes after the end.
pub(super) const FOLLOWED: &str = "something follows its end";

/// Says that no end was found.
pub(super) fn cut_off(frames: &Frames) -> String {
    let record = frames.record();
    format!(
        "it ends after {} objects ({} bytes) without its record: it was cut off",
        record.objects,
        frames.position()
    )
}

/// Says that the last object is not all there.
pub(super) fn cut_off_within(frames: &Frames) -> String {
    format!(
        "it ends within an object, of which it has {} before: it was cut off",
        frames
            .record()
            .objects
            .saturating_sub(u64::from(frames.end().is_none()))
    )
}

/// Why heads cannot be read.
enum Unreadable {
    Disk(io::Error),
    Bundle(String),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

impl From<FormatError> for Unreadable {
    fn from(error: FormatError) -> Self {
        Self::Bundle(error.to_string())
    }
}

fn unreadable(path: &Path, source: io::Error) -> EngineError {
    EngineError::File {
        operation: "read the bundle",
        path: path.to_owned(),
        source,
    }
}

/// Reads as much as there is and fits.
fn read_at_most(file: &File, room: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = room.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// The record at the end is read by its name, and not listed: it is no object of the repository.
impl Storage for BundleFile {
    fn get(&self, name: &str, max_bytes: u64) -> StorageResult<Bytes> {
        let span = self.span(Operation::Get, name)?;
        if span.length > max_bytes {
            let why = format!("it has {} bytes, more than {max_bytes}", span.length);
            return Err(self.error(Operation::Get, name, ErrorKind::Oversized, why));
        }
        self.read(Operation::Get, name, span)
    }

    fn get_range(&self, name: &str, offset_bytes: u64, length_bytes: u64) -> StorageResult<Bytes> {
        let operation = Operation::GetRange;
        let span = self.span(operation, name)?;
        let end = offset_bytes.checked_add(length_bytes);
        if end.is_none_or(|end| end > span.length) {
            let why = format!("it has {} bytes alone", span.length);
            return Err(self.error(operation, name, ErrorKind::Truncated, why));
        }
        let part = Span {
            offset: span.offset.saturating_add(offset_bytes),
            length: length_bytes,
        };
        self.read(operation, name, part)
    }

    fn put(&self, name: &str, _: Bytes) -> StorageResult<()> {
        self.read_only(Operation::Put, name)
    }

    fn create(&self, name: &str, _: Bytes) -> StorageResult<()> {
        self.read_only(Operation::Create, name)
    }

    fn delete(&self, name: &str) -> StorageResult<()> {
        self.read_only(Operation::Delete, name)
    }

    fn list(
        &self,
        folder: &str,
        visit: &mut dyn FnMut(ObjectInfo) -> StorageResult<()>,
    ) -> StorageResult<()> {
        super::list(super::below(&self.frames, folder), visit)
    }

    fn size(&self, name: &str) -> StorageResult<u64> {
        Ok(self.span(Operation::Size, name)?.length)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            create_exclusive: CreateExclusive::Native,
            sorted_listing: false,
            atomic_put: true,
            object_bytes_max: None,
            thaws: false,
        }
    }

    fn describe(&self) -> String {
        self.location.clone()
    }
}
