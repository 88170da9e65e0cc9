//! A storage that writes every object that it is given to a stream, one behind another.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Mutex;

use bytes::Bytes;
use larder_format::bundle::{BundleRecord, Frames, Head, start};
use larder_format::keys::Keyring;
use larder_format::names::{self, Name};

use crate::error::{EngineError, Result};
use crate::random;
use crate::storage::error::{ErrorKind, Operation, Result as StorageResult, StorageError};
use crate::storage::{Capabilities, CreateExclusive, ObjectInfo, Storage};
use crate::sync::lock;

const PLACE: &str = "the bundle";

/// Writes objects as they come; what a writer reads back of its own stays in memory: config, slots and
/// cells.
pub(crate) struct Sink<W> {
    state: Mutex<State<W>>,
}

struct State<W> {
    /// None once the end was written, or after a failure: half an object may be out.
    out: Option<W>,
    frames: Frames,
    kept: BTreeMap<Name, Bytes>,
}

impl<W: Write> Sink<W> {
    /// Begins a bundle.
    ///
    /// # Errors
    /// What the stream answers.
    pub(crate) fn start(mut out: W) -> Result<Self> {
        out.write_all(&start())
            .map_err(|error| failed(Operation::Open, "", &error))?;
        Ok(Self {
            state: Mutex::new(State {
                out: Some(out),
                frames: Frames::new(),
                kept: BTreeMap::new(),
            }),
        })
    }

    /// Ends the bundle with its record; gives the stream back, flushed.
    ///
    /// # Errors
    /// What the stream answers, or that it failed before.
    pub(crate) fn finish(&self, keyring: &Keyring) -> Result<(W, BundleRecord)> {
        let mut state = lock(&self.state);
        let record = state.frames.record();
        let object = record.seal(keyring, random::bytes()?, &random::bytes()?)?;
        state.add(Operation::Create, None, &object)?;
        let ended = || EngineError::Internal("the bundle was ended before".to_owned());
        let mut out = state.out.take().ok_or_else(ended)?;
        out.flush()
            .map_err(|error| failed(Operation::Create, "", &error))?;
        Ok((out, record))
    }

    /// Gives how many bytes were written.
    pub(crate) fn position(&self) -> u64 {
        lock(&self.state).frames.position()
    }
}

impl<W: Write> State<W> {
    fn add(&mut self, operation: Operation, name: Option<Name>, bytes: &[u8]) -> StorageResult<()> {
        let text = name.map(|name| name.to_string()).unwrap_or_default();
        let refuse =
            |why: &str| StorageError::new(operation, PLACE, &text, ErrorKind::Permanent, why);
        let mut out = self
            .out
            .take()
            .ok_or_else(|| refuse("writing it has failed before, or it was ended"))?;
        let head = Head {
            name,
            length: bytes.len() as u64,
        };
        let pushed = self.frames.push(&head);
        if let Err(error) = pushed {
            // Nothing of it is out yet.
            self.out = Some(out);
            return Err(refuse(&error.to_string()));
        }
        let written = out
            .write_all(&head.encode())
            .and_then(|()| out.write_all(bytes));
        written.map_err(|error| failed(operation, &text, &error))?;
        self.out = Some(out);
        Ok(())
    }
}

impl<W: Write + Send> Sink<W> {
    fn write(&self, operation: Operation, text: &str, bytes: Bytes) -> StorageResult<()> {
        let refuse = |kind, why: &str| StorageError::new(operation, PLACE, text, kind, why);
        let Some(name) = names::parse(text) else {
            return Err(refuse(
                ErrorKind::Permanent,
                "no such object is in a bundle",
            ));
        };
        let mut state = lock(&self.state);
        if state.frames.get(&name).is_some() {
            return Err(refuse(ErrorKind::AlreadyExists, "it exists already"));
        }
        state.add(operation, Some(name), &bytes)?;
        if matches!(name, Name::Config(_) | Name::Slot(_) | Name::Cell(_)) {
            state.kept.insert(name, bytes);
        }
        Ok(())
    }

    /// Gives an object that is still at hand.
    fn read(&self, operation: Operation, text: &str) -> StorageResult<Bytes> {
        let refuse = |kind, why: &str| StorageError::new(operation, PLACE, text, kind, why);
        let state = lock(&self.state);
        let name = names::parse(text);
        let kept = name.and_then(|name| state.kept.get(&name));
        match (kept, name.and_then(|name| state.frames.get(&name))) {
            (Some(kept), _) => Ok(kept.clone()),
            (None, Some(_)) => Err(refuse(
                ErrorKind::Permanent,
                "what was written to a stream cannot be read back",
            )),
            (None, None) => Err(refuse(ErrorKind::NotFound, "there is no such object")),
        }
    }
}

impl<W: Write + Send> Storage for Sink<W> {
    fn get(&self, name: &str, max_bytes: u64) -> StorageResult<Bytes> {
        let bytes = self.read(Operation::Get, name)?;
        match bytes.len() as u64 <= max_bytes {
            true => Ok(bytes),
            false => Err(StorageError::new(
                Operation::Get,
                PLACE,
                name,
                ErrorKind::Oversized,
                format!("it is longer than {max_bytes} bytes"),
            )),
        }
    }

    fn get_range(&self, name: &str, offset_bytes: u64, length_bytes: u64) -> StorageResult<Bytes> {
        let bytes = self.read(Operation::GetRange, name)?;
        let range = usize::try_from(offset_bytes).ok().and_then(|start| {
            let end = start.checked_add(usize::try_from(length_bytes).ok()?)?;
            (end <= bytes.len()).then(|| bytes.slice(start..end))
        });
        range.ok_or_else(|| {
            StorageError::new(
                Operation::GetRange,
                PLACE,
                name,
                ErrorKind::Truncated,
                "it is shorter than that",
            )
        })
    }

    fn put(&self, name: &str, bytes: Bytes) -> StorageResult<()> {
        self.write(Operation::Put, name, bytes)
    }

    fn create(&self, name: &str, bytes: Bytes) -> StorageResult<()> {
        self.write(Operation::Create, name, bytes)
    }

    fn delete(&self, name: &str) -> StorageResult<()> {
        Err(StorageError::new(
            Operation::Delete,
            PLACE,
            name,
            ErrorKind::Permanent,
            "what was written to a stream stays there",
        ))
    }

    fn list(
        &self,
        folder: &str,
        visit: &mut dyn FnMut(ObjectInfo) -> StorageResult<()>,
    ) -> StorageResult<()> {
        let objects = super::below(&lock(&self.state).frames, folder);
        super::list(objects, visit)
    }

    fn size(&self, name: &str) -> StorageResult<u64> {
        let span = names::parse(name).and_then(|name| lock(&self.state).frames.get(&name));
        span.map(|span| span.length).ok_or_else(|| {
            StorageError::new(
                Operation::Size,
                PLACE,
                name,
                ErrorKind::NotFound,
                "there is no such object",
            )
        })
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

    fn calls_at_once(&self) -> usize {
        1
    }

    fn describe(&self) -> String {
        PLACE.to_owned()
    }
}

fn failed(operation: Operation, name: &str, error: &io::Error) -> StorageError {
    StorageError::from_io(operation, PLACE, name, error)
}
