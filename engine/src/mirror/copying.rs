//! Copying objects from one storage to another, each verified before it gets its name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use larder_format::mirror::MARKER;
use larder_format::names::Name;
use larder_format::verify::{bytes_max, verify};

use super::pass::Listing;
use crate::at_once;
use crate::budget::Budget;
use crate::cancel::Cancel;
use crate::check::{Outcome, Problem, attempt};
use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::storage::error::ErrorKind;
use crate::storage::{Storage, create_or_confirm};
use crate::sync::lock;

/// Bytes of objects that are in memory at once.
const MEMORY_BYTES: usize = 96 << 20;

/// Objects of the target that are verified between two looks at the progress.
const VERIFIED_AT_ONCE: usize = 512;

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
    /// Objects that were written where a damaged one was.
    rewritten: Mutex<BTreeSet<Name>>,
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
            rewritten: Mutex::default(),
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
        let has_content_name = matches!(name, Name::Pack(_) | Name::Segment(_) | Name::Parity(_));
        if has_content_name || name.original().is_some() {
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
                    Err(_) => {
                        lock(&self.rewritten).insert(*name);
                        Ok(self.target.put(&text, bytes.clone())?)
                    }
                }
            }
            result => Ok(result?),
        }
    }

    /// Gives the objects that were written where a damaged one was.
    pub(super) fn rewritten(&self) -> BTreeSet<Name> {
        lock(&self.rewritten).clone()
    }

    /// Reads all listed objects of the target but marker, manifests and reserve; gives those that are
    /// damaged, and the number of those that are right.
    pub(super) fn verify_target(&self, have: &Listing) -> Result<(BTreeMap<Name, String>, u64)> {
        let is_meant = |name: &Name| {
            !matches!(
                name,
                Name::Config(MARKER) | Name::Manifest(_) | Name::Reserve
            )
        };
        let (mut count, mut bytes) = (0, 0_u64);
        have.each(&mut |name, size| {
            if is_meant(&name) {
                count += 1;
                bytes = bytes.saturating_add(size);
            }
            Ok(())
        })?;
        self.progress
            .phase("verifying the mirror", Some(count), Some(bytes));
        let (mut rotten, mut verified) = (BTreeMap::new(), 0);
        let mut batch = Vec::with_capacity(VERIFIED_AT_ONCE);
        have.each(&mut |name, size| {
            if is_meant(&name) {
                batch.push((name, size));
            }
            if batch.len() == VERIFIED_AT_ONCE {
                verified += self.verify_batch(&batch, &mut rotten)?;
                batch.clear();
            }
            Ok(())
        })?;
        verified += self.verify_batch(&batch, &mut rotten)?;
        Ok((rotten, verified))
    }

    fn verify_batch(
        &self,
        batch: &[(Name, u64)],
        rotten: &mut BTreeMap<Name, String>,
    ) -> Result<u64> {
        let outcomes = at_once::map(self.target.calls_at_once(), batch, |(name, size)| {
            self.cancel.check()?;
            let limit = bytes_max(name);
            let held = usize::try_from(*size).unwrap_or(usize::MAX).min(limit);
            let _held = self.budget.hold(0, held);
            let outcome = attempt(|| {
                let bytes = self.target.get(&name.to_string(), limit as u64)?;
                Ok(verify(*name, &bytes)?)
            })?;
            self.progress.advance(1, *size);
            Ok::<_, EngineError>(outcome)
        });
        let mut verified = 0;
        for ((name, _), outcome) in batch.iter().zip(outcomes) {
            match outcome? {
                Ok(_) => verified += 1,
                // Another sync deleted it.
                Err(Problem::Missing) => {}
                Err(Problem::Damaged(why)) => drop(rotten.insert(*name, why)),
            }
        }
        Ok(verified)
    }

    fn diverged(&self, name: &str) -> EngineError {
        EngineError::Request(format!(
            "{} has another {name} than {}: one of them was put back to an older state and went on from there, or was written to on its own; make a mirror in another place",
            self.target.describe(),
            self.source.describe()
        ))
    }
}
