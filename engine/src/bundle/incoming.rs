//! A bundle that is to be taken over: opened in place, or put aside as it comes through a pipe.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use larder_format::bundle::{
    Frames, HEAD_BYTES_MAX, Head, START_BYTES, Span, check_start, head_bytes,
};
use larder_format::names::Name;
use larder_format::verify::Verifier;

use super::file::{BundleFile, FOLLOWED, NO_START, PIECE_BYTES, cut_off, cut_off_within};
use crate::cancel::Cancel;
use crate::error::{EngineError, Result};
use crate::openers::{self, Opened};
use crate::progress::{Progress, Silent};
use crate::repository::Secret;

/// A bundle of which enough was read to prove its password.
///
/// What came through a pipe lies, sealed as it came, in a file without a name: it goes with the process,
/// however that ends.
pub struct Incoming {
    bundle: BundleFile,
    /// What follows, for a bundle from a pipe.
    rest: Option<Rest>,
}

/// The keys of a bundle, proved by its password.
pub struct BundleKeys(pub(super) Opened);

struct Rest {
    input: Box<dyn Read + Send>,
    folder: PathBuf,
}

impl Incoming {
    /// Opens a bundle in a file, in place.
    ///
    /// # Errors
    /// `NoRepository` if there is no such file; `Bundle` if it is none or not whole; or `File`.
    pub fn of_file(path: &Path) -> Result<Self> {
        Ok(Self {
            bundle: BundleFile::of(path)?,
            rest: None,
        })
    }

    /// Begins to read a bundle from a pipe: its config and key slots.
    ///
    /// `name` says in messages where it comes from; what comes is put aside in `folder`.
    ///
    /// # Errors
    /// `Bundle` for anything but the beginning of a bundle; `File` if it cannot be put aside.
    pub fn of_stream(input: impl Read + Send + 'static, name: &str, folder: &Path) -> Result<Self> {
        let spool = fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder));
        let mut incoming = Self {
            bundle: BundleFile {
                file: spool.map_err(|source| no_room(folder, &source))?,
                frames: Frames::new(),
                location: name.to_owned(),
            },
            rest: Some(Rest {
                input: Box::new(input),
                folder: folder.to_owned(),
            }),
        };
        incoming.begin()?;
        Ok(incoming)
    }

    /// Names the bundle in messages.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.bundle.location
    }

    /// Tells whether it comes through a pipe, so that it cannot be read a second time.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.rest.is_some()
    }

    /// Proves a password or key, before anything else of the bundle is read.
    ///
    /// # Errors
    /// `WrongSecret`, `Unsupported`, or `Damaged`.
    pub fn unlock(&self, secret: &Secret) -> Result<BundleKeys> {
        openers::unlock(&self.bundle, secret).map(BundleKeys)
    }

    /// Reads and verifies all of it, up to its end.
    pub(super) fn receive(
        mut self,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<BundleFile> {
        if self.rest.is_none() {
            self.bundle.verify_objects(progress, cancel)?;
            return Ok(self.bundle);
        }
        progress.phase("reading the bundle", None, None);
        while self.bundle.frames.end().is_none() {
            self.take_frame(progress, cancel)?;
        }
        match self.read_some(&mut [0])? {
            0 => Ok(self.bundle),
            _ => Err(self.bundle.refuse(FOLLOWED)),
        }
    }

    /// Reads what opens a bundle.
    fn begin(&mut self) -> Result<()> {
        let mut start = [0; START_BYTES];
        if self.fill(&mut start)? < START_BYTES {
            return Err(self.bundle.refuse(NO_START));
        }
        check_start(&start).map_err(|error| self.bundle.refuse(error.to_string()))?;
        self.put_aside(&start)?;
        let never = Cancel::default();
        self.take_frame(&Silent, &never)?;
        for _ in self.bundle.config()?.slots {
            self.take_frame(&Silent, &never)?;
        }
        self.bundle.check_openers().map(|_| ())
    }

    /// Reads one object, verifies it, and puts it aside.
    fn take_frame(&mut self, progress: &dyn Progress, cancel: &Cancel) -> Result<()> {
        cancel.check()?;
        let mut room = [0; HEAD_BYTES_MAX];
        let (first, rest) = room.split_at_mut(1);
        if self.fill(first)? == 0 {
            return Err(self.bundle.refuse(cut_off(&self.bundle.frames)));
        }
        let first = first.first().copied().unwrap_or_default();
        let size = head_bytes(first).map_err(|error| self.bundle.refuse(error.to_string()))?;
        let rest = rest.get_mut(..size.saturating_sub(1)).unwrap_or_default();
        if self.fill(rest)? < rest.len() {
            return Err(self.bundle.refuse(cut_off(&self.bundle.frames)));
        }
        let bytes = room.get(..size).unwrap_or_default();
        let read = self.bundle.frames.read(bytes);
        let (head, span) = read.map_err(|error| self.bundle.refuse(error.to_string()))?;
        self.put_aside(bytes)?;
        self.take_object(head, span, progress, cancel)?;
        progress.advance(1, 0);
        Ok(())
    }

    fn take_object(
        &mut self,
        head: Head,
        span: Span,
        progress: &dyn Progress,
        cancel: &Cancel,
    ) -> Result<()> {
        let wrong = |bundle: &BundleFile, error: &dyn std::fmt::Display| {
            let name = head
                .name
                .map_or("its record".to_owned(), |name: Name| name.to_string());
            bundle.refuse(format!("{name}: {error}"))
        };
        let verifier = head.name.map(|name| Verifier::new(name, span.length));
        let mut verifier = verifier
            .transpose()
            .map_err(|error| wrong(&self.bundle, &error))?;
        let mut left = span.length;
        let most = usize::try_from(left).unwrap_or(PIECE_BYTES);
        let mut room = vec![0; most.min(PIECE_BYTES)];
        while left > 0 {
            cancel.check()?;
            let wanted = usize::try_from(left).unwrap_or(PIECE_BYTES).min(room.len());
            let piece = room.get_mut(..wanted).unwrap_or_default();
            if self.fill(piece)? < wanted {
                return Err(self.bundle.refuse(cut_off_within(&self.bundle.frames)));
            }
            if let Some(verifier) = &mut verifier {
                verifier.update(piece);
            }
            self.put_aside(piece)?;
            progress.advance(0, wanted as u64);
            left = left.saturating_sub(wanted as u64);
        }
        match verifier.map(Verifier::finish) {
            Some(Err(error)) => Err(wrong(&self.bundle, &error)),
            _ => Ok(()),
        }
    }

    /// Reads until there is no more room or input; gives how much was read.
    fn fill(&mut self, room: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while let Some(rest) = room.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.read_some(rest)? {
                0 => break,
                read => done += read,
            }
        }
        Ok(done)
    }

    fn read_some(&mut self, room: &mut [u8]) -> Result<usize> {
        let Some(rest) = &mut self.rest else {
            return Ok(0);
        };
        loop {
            match rest.input.read(room) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(self.bundle.refuse(format!("reading it failed: {error}")));
                }
                Ok(read) => return Ok(read),
            }
        }
    }

    fn put_aside(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(rest) = &self.rest else {
            return Ok(());
        };
        let mut spool: &File = &self.bundle.file;
        spool
            .write_all(bytes)
            .map_err(|error| no_room(&rest.folder, &error))
    }
}

/// Says that a bundle cannot be put aside, and what to do.
fn no_room(folder: &Path, error: &io::Error) -> EngineError {
    let why = format!(
        "{error}; a bundle from a pipe is kept there until its end was seen: make room, name another folder with --cache-dir, or import it from a file, which needs no room"
    );
    EngineError::File {
        operation: "put the bundle aside in",
        path: folder.to_owned(),
        source: io::Error::new(error.kind(), why),
    }
}
