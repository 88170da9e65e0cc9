//! Scrub: verifying every object of a repository without a key.
//!
//! Packs and segments have the hash of their bytes for a name, all other objects end in one. So whoever
//! runs a storage can tell that what he holds is what was written, and needs no password. What only a
//! key can tell: whether something is missing, and whether it was written by somebody who has the keys.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use larder_format::config::Config;
use larder_format::ids::SlotId;
use larder_format::ledger::Verification;
use larder_format::mirror::MARKER;
use larder_format::names::{self, Name};
use larder_format::verify::{Verifier, bytes_max};
use serde::Serialize;

use crate::at_once;
use crate::budget::Budget;
use crate::cancel::Cancel;
use crate::check::{Finding, Outcome, Problem, Severity, attempt};
use crate::error::{EngineError, Result};
use crate::ledger::{self, Findings};
use crate::mirror::{Newest, newest_manifest};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::scratch::ScratchMap;
use crate::storage::Storage;
use crate::storage::error::ErrorKind;

/// Memory of names and sizes before they go to disk.
const LISTING_BYTES: usize = 32 << 20;
/// Bytes of objects that are in memory at once.
const MEMORY_BYTES: usize = 64 << 20;
/// Objects up to this size are read by one request.
const WHOLE_BYTES: u64 = 32 << 20;
/// Longer ones are read in pieces of this size.
const PIECE_BYTES: u64 = 8 << 20;
/// Objects between two looks at the progress.
const BATCH: usize = 512;
/// Findings, and unknown names, that are told one by one.
const TOLD_MAX: usize = 10_000;

/// What a scrub saw.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ScrubReport {
    /// Whether objects were only counted.
    pub dry_run: bool,
    /// Objects that were listed and that the format knows.
    pub objects: u64,
    /// Their bytes, by the listing.
    pub bytes: u64,
    /// Packs among them.
    pub packs: u64,
    /// Segments of the index among them.
    pub segments: u64,
    /// Snapshots among them: finished, partial and revoked ones.
    pub snapshots: u64,
    /// Objects that were read whole and are right.
    pub verified: u64,
    /// Bytes that were read.
    pub bytes_read: u64,
    /// Objects that somebody deleted before they were read, as a prune does.
    pub gone: u64,
    /// Objects with names that this version does not know.
    pub unknown: u64,
    /// Damage that may cost data.
    pub loss: u64,
    /// Damage that costs none.
    pub harmless: u64,
    /// Why what was verified could not be written into the ledger, where that was asked for.
    pub not_recorded: Option<String>,
    /// Seconds that it took.
    pub seconds: f64,
    /// What was found, worst first; of very many the first 10,000.
    #[serde(skip)]
    pub findings: Vec<Finding>,
}

/// Verifies every object of the repository on a storage, or only counts them.
///
/// What fails is read once more before it is called damaged. `scratch` is a folder for what does not
/// fit into memory.
///
/// # Errors
/// `NoRepository`, `Interrupted`, or what the storage answers; damage is in the report.
pub fn scrub(
    storage: &Arc<dyn Storage>,
    scratch: &Path,
    dry_run: bool,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<ScrubReport> {
    let (outcome, _, _) = run(storage.as_ref(), scratch, dry_run, progress, cancel);
    outcome
}

/// Verifies every object, and records in the repository's ledger which packs are as they were written.
///
/// # Errors
/// As [`scrub`]; what was verified before is recorded even so. That it cannot be recorded is in the
/// report.
pub fn scrub_and_record(
    repository: &Repository,
    scratch: &Path,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<ScrubReport> {
    let (mut outcome, found, listed) = run(repository.storage(), scratch, false, progress, cancel);
    let packs = listed
        .iter()
        .flat_map(|listed| listed.iter_from(names::PACKS.as_bytes()));
    let packs = packs.map_while(|item| match item {
        Ok((name, _)) => match std::str::from_utf8(&name).ok().and_then(names::parse) {
            Some(Name::Pack(id)) => Some(Ok(id)),
            _ => None,
        },
        Err(error) => Some(Err(error.into())),
    });
    if listed.is_some() {
        let recorded = ledger::record(repository, Verification::Hashed, &found, &mut { packs });
        if let (Err(error), Ok(report)) = (recorded, &mut outcome) {
            report.not_recorded = Some(error.to_string());
        }
    }
    outcome
}

/// Scrubs; gives also what was found of each pack and what was listed, whatever failed later.
fn run(
    storage: &dyn Storage,
    scratch: &Path,
    dry_run: bool,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> (Result<ScrubReport>, Findings, Option<ScratchMap>) {
    let clock = Instant::now();
    let mut scrub = Scrub {
        storage,
        found: Findings::default(),
        progress,
        cancel,
        budget: Budget::new(MEMORY_BYTES),
        bytes_read: AtomicU64::new(0),
        openers: Openers::default(),
        gone: BTreeSet::new(),
        report: ScrubReport {
            dry_run,
            ..ScrubReport::default()
        },
    };
    progress.phase("listing", None, None);
    let listed = match scrub.list(scratch) {
        Ok(listed) => listed,
        Err(error) => return (Err(error), Findings::default(), None),
    };
    let verified = if dry_run {
        Ok(())
    } else {
        scrub.verify_all(&listed)
    };
    let found = std::mem::take(&mut scrub.found);
    let mut report = scrub.report;
    report.bytes_read = scrub.bytes_read.into_inner();
    report
        .findings
        .sort_by(|a, b| (b.severity, &a.object).cmp(&(a.severity, &b.object)));
    report.seconds = clock.elapsed().as_secs_f64();
    (verified.map(|()| report), found, Some(listed))
}

struct Scrub<'a> {
    storage: &'a dyn Storage,
    found: Findings,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
    budget: Arc<Budget>,
    bytes_read: AtomicU64,
    openers: Openers,
    /// Objects that were listed and then not there.
    gone: BTreeSet<String>,
    report: ScrubReport,
}

/// What is known of what opens the repository.
#[derive(Default)]
struct Openers {
    is_mirror: bool,
    newest_config: u64,
    newest_twin: u64,
    /// The slots that the newest config lists, or its twin where it cannot be read.
    wanted: Option<(u64, Vec<SlotId>)>,
    /// Configs, slots and their twins that are whole, with their hashes.
    sound: BTreeMap<Name, [u8; 32]>,
    /// Those that are there and are not, and why.
    damaged: BTreeMap<Name, String>,
}

impl Openers {
    /// Tells whether a config, a slot or a twin is there.
    fn is_there(&self, name: &Name) -> bool {
        self.sound.contains_key(name) || self.damaged.contains_key(name)
    }

    /// Tells whether the twin of an object is whole.
    fn has_twin(&self, name: &Name) -> bool {
        name.twin()
            .is_some_and(|twin| self.sound.contains_key(&twin))
    }
}

/// Tells whether an object opens the repository, or is the twin of one that does.
fn is_opener(name: &Name) -> bool {
    name.twin().is_some() || name.original().is_some()
}

impl Scrub<'_> {
    /// Lists everything, and tells what is not known.
    fn list(&mut self, scratch: &Path) -> Result<ScratchMap> {
        let mut listed = ScratchMap::new(scratch, LISTING_BYTES);
        let mut failure = None;
        let mut unknown = Vec::new();
        let (report, openers) = (&mut self.report, &mut self.openers);
        self.storage.list("", &mut |object| {
            match names::parse(&object.name) {
                Some(name) => {
                    let size = object.size_bytes.to_be_bytes();
                    if let Err(error) = listed.insert(object.name.as_bytes(), &size) {
                        failure.get_or_insert(error);
                    }
                    report.count(&name, object.size_bytes);
                    match name {
                        Name::Config(MARKER) => openers.is_mirror = true,
                        Name::Config(number) => {
                            openers.newest_config = openers.newest_config.max(number);
                        }
                        Name::ConfigTwin(number) => {
                            openers.newest_twin = openers.newest_twin.max(number);
                        }
                        _ => {}
                    }
                }
                None if names::is_passed_over(&object.name) => {}
                None => {
                    report.unknown += 1;
                    if unknown.len() < TOLD_MAX {
                        unknown.push(object.name);
                    }
                }
            }
            Ok(())
        })?;
        if let Some(error) = failure {
            return Err(error.into());
        }
        let newest = self.openers.newest_config.max(self.openers.newest_twin);
        if newest == 0 && !self.openers.is_mirror {
            if self.report.packs + self.report.snapshots == 0 {
                let location = self.storage.describe();
                return Err(EngineError::NoRepository { location });
            }
            let problem = "there is none, and without it the repository cannot be opened: put it back from a copy";
            self.find(Severity::Loss, names::CONFIGS, problem);
        }
        for name in unknown {
            let problem = "it is not of this version of the format and was not verified";
            self.find(Severity::Note, &name, problem);
        }
        Ok(listed)
    }

    fn verify_all(&mut self, listed: &ScratchMap) -> Result<()> {
        self.verify(listed)?;
        self.settle_gone()?;
        self.check_manifest(listed)?;
        self.check_openers();
        Ok(())
    }

    fn verify(&mut self, listed: &ScratchMap) -> Result<()> {
        let (objects, bytes) = (self.report.objects, self.report.bytes);
        self.progress
            .phase("verifying objects", Some(objects), Some(bytes));
        let mut batch = Vec::with_capacity(BATCH);
        for item in listed.iter_from(&[]) {
            let (name, size) = item?;
            let parsed = std::str::from_utf8(&name).ok().and_then(names::parse);
            let size = size.first_chunk().copied().map(u64::from_be_bytes);
            batch.extend(parsed.zip(size));
            if batch.len() == BATCH {
                self.verify_batch(&batch)?;
                batch.clear();
            }
        }
        self.verify_batch(&batch)
    }

    fn verify_batch(&mut self, batch: &[(Name, u64)]) -> Result<()> {
        let calls = self.storage.calls_at_once();
        let read = at_once::map(calls, batch, |(name, size)| -> Result<_> {
            self.cancel.check()?;
            let outcome = attempt(|| self.read(name, *size))?;
            self.progress.advance(1, *size);
            Ok(outcome)
        });
        for ((name, _), outcome) in batch.iter().zip(read) {
            self.take(name, outcome?)?;
        }
        Ok(())
    }

    /// Reads an object and verifies it; gives its bytes if they are few and say something.
    fn read(&self, name: &Name, size: u64) -> Result<Option<Vec<u8>>> {
        let mut verifier = Verifier::new(*name, size)?;
        let text = name.to_string();
        let mut kept = None;
        let mut offset = 0;
        while offset < size {
            self.cancel.check()?;
            let length = match size {
                ..=WHOLE_BYTES => size,
                _ => PIECE_BYTES.min(size - offset),
            };
            let held = usize::try_from(length).unwrap_or(usize::MAX);
            let _held = self.budget.hold(0, held);
            let bytes = match size {
                ..=WHOLE_BYTES => self.storage.get(&text, bytes_max(name) as u64)?,
                _ => self.storage.get_range(&text, offset, length)?,
            };
            self.bytes_read
                .fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if bytes.len() as u64 != length {
                let found = bytes.len();
                return Err(EngineError::damaged(
                    &text,
                    &format!("it has {found} bytes where {length} were listed"),
                ));
            }
            verifier.update(&bytes);
            if is_opener(name) {
                kept = Some(bytes.to_vec());
            }
            offset += length;
        }
        verifier.finish()?;
        Ok(kept)
    }

    fn take(&mut self, name: &Name, outcome: Outcome<Option<Vec<u8>>>) -> Result<()> {
        let why = match outcome {
            Ok(kept) => {
                self.report.verified += 1;
                match (name, kept) {
                    (Name::Pack(id), _) => self.found.sound.push(id.prefix()),
                    (name, Some(object)) => self.take_opener(name, &object),
                    _ => {}
                }
                return Ok(());
            }
            Err(Problem::Missing) => {
                self.report.gone += 1;
                if self.gone.len() < TOLD_MAX {
                    self.gone.insert(name.to_string());
                }
                return Ok(());
            }
            Err(Problem::Damaged(why)) => why,
        };
        match name {
            name if is_opener(name) => drop(self.openers.damaged.insert(*name, why)),
            Name::Pack(id) => {
                self.found.damaged.push(id.prefix());
                self.find_damaged(name, &why);
            }
            _ => self.find_damaged(name, &why),
        }
        Ok(())
    }

    fn take_opener(&mut self, name: &Name, object: &[u8]) {
        let openers = &mut self.openers;
        if let Name::Config(number) | Name::ConfigTwin(number) = name {
            match Config::read_unverified(*number, object) {
                Ok(config) => {
                    let known = openers.wanted.as_ref().map(|(number, _)| *number);
                    if *number >= openers.newest_config && known < Some(*number) {
                        openers.wanted = Some((*number, config.slots));
                    }
                }
                Err(error) => {
                    openers.damaged.insert(*name, error.to_string());
                    return;
                }
            }
        }
        openers
            .sound
            .insert(*name, *blake3::hash(object).as_bytes());
    }

    fn find_damaged(&mut self, name: &Name, why: &str) {
        let is_newest = |number: &u64| *number == self.openers.newest_config;
        let (severity, meaning) = match name {
            Name::Pack(_) => (
                Severity::Loss,
                "`larder check`, with the password, names the snapshots that need it",
            ),
            Name::Cell(_) => (Severity::Loss, "the snapshot cannot be listed or restored"),
            Name::Config(MARKER) | Name::Manifest(_) => (
                Severity::Harmless,
                "the mirror cannot be read until the next sync to it makes a new one",
            ),
            Name::Config(number) if is_newest(number) => (
                Severity::Loss,
                "without it the repository cannot be opened again",
            ),
            Name::Config(_) => (Severity::Harmless, "only the newest config counts"),
            Name::Segment(_) => (
                Severity::Harmless,
                "the packs' own directories say the same, so restores are slow and not impossible",
            ),
            Name::Amendment(..) => (
                Severity::Harmless,
                "a change of tags, a pin or a forget is lost",
            ),
            Name::Round(_) | Name::State(_) => (
                Severity::Harmless,
                "if it is the newest one, nothing can be backed up or pruned until it is put back",
            ),
            Name::Session(_) | Name::SessionEnd(_) => {
                (Severity::Harmless, "no snapshot needs it to be restored")
            }
            Name::Reserve => (Severity::Harmless, "nothing is kept in it"),
            Name::Parity(_) => (
                Severity::Harmless,
                "no snapshot needs it; its packs are less protected until `larder repair --read-data --apply` has made it anew",
            ),
            Name::Ledger(_) => (
                Severity::Harmless,
                "nothing depends on it: what it says was verified is verified again",
            ),
            Name::Run(_) | Name::RunEnd(_) => (
                Severity::Harmless,
                "no snapshot depends on it; shards of that run that are not finished need another run, and a prune clears it away",
            ),
            Name::Slot(_) => (Severity::Harmless, "its secret opens nothing any more"),
            Name::ConfigTwin(_) | Name::SlotTwin(_) => (
                Severity::Harmless,
                "what it is the twin of could not be restored from it; `larder repair --apply` makes it anew",
            ),
        };
        self.find(severity, &name.to_string(), &format!("{why}; {meaning}"));
    }

    /// What was not there any more was deleted by a prune; if it is listed still, it was not.
    fn settle_gone(&mut self) -> Result<()> {
        if self.gone.is_empty() {
            return Ok(());
        }
        let mut still = Vec::new();
        let gone = &self.gone;
        self.storage.list("", &mut |object| {
            if gone.contains(&object.name) {
                still.extend(names::parse(&object.name).zip(Some(object.size_bytes)));
            }
            Ok(())
        })?;
        for (name, size) in still {
            self.report.gone -= 1;
            match attempt(|| self.read(&name, size))? {
                Err(Problem::Missing) => {
                    self.find_damaged(&name, "the storage lists it and does not give it out");
                }
                outcome => self.take(&name, outcome)?,
            }
        }
        Ok(())
    }

    /// Tells which records a mirror lacks that its manifest names.
    fn check_manifest(&mut self, listed: &ScratchMap) -> Result<()> {
        let newest = match self.openers.is_mirror {
            true => newest_manifest(self.storage, None)?,
            false => return Ok(()),
        };
        // A damaged one was found already.
        let Newest::Read(manifest) = newest else {
            return Ok(());
        };
        let cells = manifest.cells.iter().copied().map(Name::Cell);
        let amendments = manifest.amendments.iter();
        let amendments = amendments.map(|(id, number)| Name::Amendment(*id, *number));
        let state = (manifest.state > 0).then_some(Name::State(manifest.state));
        for name in cells.chain(amendments).chain(state) {
            let text = name.to_string();
            // What came with a later manifest was not listed before it.
            let is_listed = listed.get(text.as_bytes())?.is_some();
            let is_missing = || matches!(self.storage.size(&text), Err(error) if error.kind == ErrorKind::NotFound);
            if !is_listed && is_missing() {
                self.find_damaged(
                    &name,
                    "it is missing, although the mirror's manifest names it",
                );
            }
        }
        Ok(())
    }

    /// Tells what is wrong with configs, key slots and their twins.
    fn check_openers(&mut self) {
        let openers = std::mem::take(&mut self.openers);
        self.openers.newest_config = openers.newest_config;
        let wanted = openers.wanted.iter().flat_map(|(_, slots)| slots);
        let wanted: BTreeSet<Name> = wanted.copied().map(Name::Slot).collect();
        let is_had = |name: &Name| openers.sound.contains_key(name) || openers.has_twin(name);
        let none_left = !wanted.iter().any(is_had);
        for (name, why) in &openers.damaged {
            self.find_opener(&openers, &wanted, none_left, name, why);
        }
        // What its twin alone has, of configs also those that are not the newest.
        let twins = openers.sound.keys().filter_map(Name::original);
        let lost = twins.filter(|name| matches!(name, Name::Config(_)) || wanted.contains(name));
        let missing: BTreeSet<Name> = lost.chain(wanted.iter().copied()).collect();
        for name in missing.iter().filter(|name| !openers.is_there(name)) {
            self.find_opener(&openers, &wanted, none_left, name, "it is missing");
        }
        for (name, hash) in &openers.sound {
            let twin = name.twin().and_then(|twin| openers.sound.get(&twin));
            if twin.is_some_and(|twin| twin != hash) {
                let problem = "it and its twin have different bytes; which of them are right `larder check`, with the password, can tell";
                self.find(Severity::Harmless, &name.to_string(), problem);
            }
        }
    }

    fn find_opener(
        &mut self,
        openers: &Openers,
        wanted: &BTreeSet<Name>,
        none_left: bool,
        name: &Name,
        why: &str,
    ) {
        let (severity, meaning) = match name {
            name if openers.has_twin(name) => (
                Severity::Harmless,
                "its twin is whole, and `larder repair --apply` puts it back from that",
            ),
            Name::Slot(_) if wanted.contains(name) && none_left => (
                Severity::Loss,
                "no key slot is left, so the repository cannot be opened again",
            ),
            Name::Slot(_) if wanted.contains(name) => (
                Severity::Harmless,
                "its secret no longer opens the repository, others do",
            ),
            Name::Slot(_) => (Severity::Harmless, "the newest config does not list it"),
            _ => return self.find_damaged(name, why),
        };
        self.find(severity, &name.to_string(), &format!("{why}; {meaning}"));
    }

    fn find(&mut self, severity: Severity, object: &str, problem: &str) {
        match severity {
            Severity::Loss => self.report.loss += 1,
            Severity::Harmless => self.report.harmless += 1,
            Severity::Note => {}
        }
        if self.report.findings.len() < TOLD_MAX || severity == Severity::Loss && self.make_room() {
            self.report.findings.push(Finding {
                severity,
                object: object.to_owned(),
                problem: problem.to_owned(),
                snapshots: Vec::new(),
                paths: Vec::new(),
            });
        }
    }

    /// Lets go of a finding that is less bad than a loss.
    fn make_room(&mut self) -> bool {
        let findings = &mut self.report.findings;
        let lesser = findings
            .iter()
            .position(|one| one.severity < Severity::Loss);
        lesser.map(|at| findings.swap_remove(at)).is_some()
    }
}

impl ScrubReport {
    fn count(&mut self, name: &Name, size: u64) {
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(size);
        match name {
            Name::Pack(_) => self.packs += 1,
            Name::Segment(_) => self.segments += 1,
            Name::Cell(_) => self.snapshots += 1,
            _ => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests;
