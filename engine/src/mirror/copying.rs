//! Copying objects from one storage to another, each verified before it gets its name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use larder_format::names::Name;
use larder_format::verify::{bytes_max, verify};

use crate::at_once;
use crate::budget::Budget;
use crate::cancel::Cancel;
use crate::check::{Outcome, Problem, attempt};
use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::storage::error::ErrorKind;
use crate::storage::{Storage, create_or_confirm};

/// Bytes of objects that are in memory at once.
const MEMORY_BYTES: usize = 96 << 20;

/// Copies from one storage to another.
pub(super) struct Copier<'a> {
    pub source: &'a dyn Storage,
    pub target: &'a dyn Storage,
    pub progress: &'a dyn Progress,
    pub cancel: &'a Cancel,
    budget: Arc<Budget>,
    pub objects: AtomicU64,
    pub bytes: AtomicU64,
    /// Objects of the source that are damaged, and what is wrong with them.
    pub damaged: BTreeMap<Name, String>,
}

impl<'a> Copier<'a> {
    pub(super) fn new(
        source: &'a dyn Storage,
        target: &'a dyn Storage,
        progress: &'a dyn Progress,
        cancel: &'a Cancel,
    ) -> Self {
        Self {
            source,
            target,
            progress,
            cancel,
            budget: Budget::new(MEMORY_BYTES),
            objects: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            damaged: BTreeMap::new(),
        }
    }

    /// Copies these objects, of these sizes, several at a time; gives those that are there now.
    ///
    /// Those that the source has no more are passed over: whoever lists it again sees that.
    pub(super) fn copy(&mut self, batch: &[(Name, u64)]) -> Result<Vec<(Name, u64)>> {
        let calls = self.source.calls_at_once().min(self.target.calls_at_once());
        let this = &*self;
        let outcomes = at_once::map(calls, batch, |(name, size)| this.copy_one(name, *size));
        let mut there = Vec::with_capacity(batch.len());
        for ((name, size), outcome) in batch.iter().zip(outcomes) {
            match outcome? {
                Ok(()) => there.push((*name, *size)),
                Err(Problem::Missing) => {}
                Err(Problem::Damaged(why)) => drop(self.damaged.insert(*name, why)),
            }
        }
        Ok(there)
    }

    fn copy_one(&self, name: &Name, size: u64) -> Result<Outcome<()>> {
        self.cancel.check()?;
        let held = usize::try_from(size).unwrap_or(usize::MAX);
        let _held = self.budget.hold(0, held.min(bytes_max(name)));
        let read = self.read(name, size)?;
        self.progress.advance(1, size);
        match read {
            Ok(bytes) => self.write(name, &bytes).map(Ok),
            Err(problem) => Ok(Err(problem)),
        }
    }

    /// Reads an object of the source and verifies it.
    pub(super) fn read(&self, name: &Name, size: u64) -> Result<Outcome<Bytes>> {
        let limit = size.min(bytes_max(name) as u64);
        attempt(|| {
            let bytes = self.source.get(&name.to_string(), limit)?;
            verify(*name, &bytes)?;
            Ok(bytes)
        })
    }

    /// Writes an object to the target, unless it is there.
    ///
    /// # Errors
    /// `Request` if another sound one has its name.
    pub(super) fn write(&self, name: &Name, bytes: &Bytes) -> Result<()> {
        let text = name.to_string();
        self.objects.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if matches!(name, Name::Pack(_) | Name::Segment(_)) {
            return Ok(self.target.put(&text, bytes.clone())?);
        }
        match create_or_confirm(self.target, &text, bytes) {
            Err(error) if error.kind == ErrorKind::AlreadyExists => {
                // What rotted is put right; what is sound is of another history.
                let there = attempt(|| {
                    let there = self.target.get(&text, bytes_max(name) as u64)?;
                    Ok(verify(*name, &there)?)
                })?;
                match there {
                    Ok(_) => Err(self.diverged(&text)),
                    Err(_) => Ok(self.target.put(&text, bytes.clone())?),
                }
            }
            result => Ok(result?),
        }
    }

    fn diverged(&self, name: &str) -> EngineError {
        EngineError::Request(format!(
            "{} has another {name} than {}: one of them was put back to an older state and went on from there, or was written to on its own; make a mirror in another place",
            self.target.describe(),
            self.source.describe()
        ))
    }
}
