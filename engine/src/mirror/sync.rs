//! Sync: bringing a mirror to what the repository is now.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use larder_format::config::Config;
use larder_format::ids::{ObjectId, ReplicaId};
use larder_format::limits::{COLLECTOR_IDS, CONFIG_BYTES};
use larder_format::mirror::{self, MARKER, Manifest};
use larder_format::names::{self, Name};
use serde::Serialize;

use super::copying::Copier;
use super::pass::{Listing, Moment, Pass};
use super::reading::readable;
use super::{Newest, list_manifests, newest_manifest, read_marker};
use crate::at_once;
use crate::cancel::Cancel;
use crate::check::{Finding, Severity};
use crate::clock;
use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::random;
use crate::repository::{read_config, unverified_config};
use crate::source::paths::real_path;
use crate::storage::error::ErrorKind;
use crate::storage::{Storage, create_or_confirm};

/// Passes that are made because collectors went on meanwhile.
const PASSES_MAX: usize = 16;
/// Times that all is done because another sync to the same mirror was faster.
const ATTEMPTS_MAX: usize = 4;
/// Objects that are deleted between two looks at whether they may be.
const BATCH: usize = 256;

/// How a mirror is brought up to date.
#[derive(Debug, Clone, Copy, Default)]
pub struct SyncOptions {
    /// Deletes what collectors let go of in the repository.
    pub delete: bool,
    /// Counts what is missing and touches nothing.
    pub dry_run: bool,
}

/// What a sync did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SyncReport {
    /// Whether nothing was touched.
    pub dry_run: bool,
    /// Whether the mirror was made.
    pub made: bool,
    /// Objects that were copied, or would be.
    pub copied: u64,
    /// Their bytes.
    pub bytes_copied: u64,
    /// Passes that it took until the repository held still for the length of one.
    pub passes: u64,
    /// Snapshot records that the mirror lists: finished, partial and revoked ones.
    pub snapshots: u64,
    /// The manifest that was made; none if nothing had changed.
    pub manifest: Option<u64>,
    /// Packs and segments in the mirror that a prune let go of in the repository.
    pub gone: u64,
    /// Objects that were deleted in the mirror.
    pub deleted: u64,
    /// Their bytes.
    pub bytes_deleted: u64,
    /// Objects of the repository that are damaged and were not copied.
    pub damaged: u64,
    /// Seconds that it took.
    pub seconds: f64,
    /// What is wrong with the damaged ones.
    #[serde(skip)]
    pub findings: Vec<Finding>,
}

/// Copies to the mirror `target` what it lacks of the repository on `source`, and lets it list that.
///
/// No key is needed. Whoever dies at any moment leaves the mirror at the moment of the repository that
/// it showed before, or at the new one, and whoever comes next goes on.
///
/// # Errors
/// `NoRepository`, `Unsupported`, `Damaged` if what decides what counts is damaged in the repository;
/// `Request` if the target is no mirror of it, or is ahead of it; or what the storages answer.
pub fn sync(
    source: &Arc<dyn Storage>,
    target: &Arc<dyn Storage>,
    scratch: &Path,
    options: SyncOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<SyncReport> {
    let clock = Instant::now();
    refuse_nested(source.as_ref(), target.as_ref())?;
    let (source, own_replica) = readable(Arc::clone(source))?;
    let (number, object) = read_config(source.as_ref())?;
    let config = unverified_config(&source.describe(), number, &object)?;
    let mut report = SyncReport {
        dry_run: options.dry_run,
        ..SyncReport::default()
    };
    let replica = claim(target.as_ref(), &config, options.dry_run, &mut report)?;
    if own_replica.is_some() && own_replica == replica {
        let place = target.describe();
        return Err(EngineError::Request(format!(
            "{place} cannot be a mirror of itself"
        )));
    }
    let mut sync = Sync {
        copier: Copier::new(source.as_ref(), target.as_ref(), progress, cancel),
        scratch,
        config,
        replica,
        options,
        report,
    };
    sync.attempts()?;
    let mut report = sync.report;
    report.copied += sync.copier.objects.into_inner();
    report.bytes_copied += sync.copier.bytes.into_inner();
    report.damaged = sync.copier.damaged.len() as u64;
    let findings = sync.copier.damaged.into_iter();
    report.findings = findings.map(|(name, why)| finding(&name, &why)).collect();
    report.seconds = clock.elapsed().as_secs_f64();
    Ok(report)
}

/// Refuses folders within each other: a prune refuses what is not of its repository.
fn refuse_nested(source: &dyn Storage, target: &dyn Storage) -> Result<()> {
    let places = [source.describe(), target.describe()];
    let folders = places.each_ref().map(|place| real_path(Path::new(place)));
    match folders {
        [Some(one), Some(other)]
            if one != other && (one.starts_with(&other) || other.starts_with(&one)) =>
        {
            let [source, target] = places;
            Err(EngineError::Request(format!(
                "{target} and the repository {source} lie within each other; choose another place"
            )))
        }
        _ => Ok(()),
    }
}

fn finding(name: &Name, why: &str) -> Finding {
    let costs_data = matches!(name, Name::Pack(_) | Name::Cell(_));
    Finding {
        severity: match costs_data {
            true => Severity::Loss,
            false => Severity::Harmless,
        },
        object: name.to_string(),
        problem: format!("{why}; it was not copied: see what `larder check` says"),
        snapshots: Vec::new(),
        paths: Vec::new(),
    }
}

/// Makes sure that the target is a mirror of this repository, and makes it one if nothing is there.
fn claim(
    target: &dyn Storage,
    config: &Config,
    dry_run: bool,
    report: &mut SyncReport,
) -> Result<Option<ReplicaId>> {
    let name = names::config(MARKER);
    let marker = || -> Result<Bytes> {
        let replica = ReplicaId(random::bytes()?);
        let object = mirror::marker(config, replica, clock::now_s(), random::bytes()?)?;
        Ok(Bytes::from(object))
    };
    let marker = match read_marker(target) {
        Ok(Some(marker)) => marker,
        Ok(None) => {
            refuse_foreign(target)?;
            report.made = true;
            if dry_run {
                return Ok(None);
            }
            match create_or_confirm(target, &name, &marker()?) {
                Err(error) if error.kind == ErrorKind::AlreadyExists => {}
                result => result?,
            }
            written_marker(target)?
        }
        // It rotted: what it says can be said again, if the configs are those of this repository.
        Err(EngineError::Damaged { .. }) if !dry_run && holds_copies_of(target, config)? => {
            target.put(&name, marker()?)?;
            written_marker(target)?
        }
        Err(error) => return Err(error),
    };
    if marker.repository == config.repository {
        return Ok(Some(marker.replica));
    }
    Err(EngineError::Request(format!(
        "{} is a mirror of another repository ({}); choose an empty place",
        target.describe(),
        marker.repository
    )))
}

fn written_marker(target: &dyn Storage) -> Result<Config> {
    let lost = || EngineError::damaged(&names::config(MARKER), &"it was written, and is not there");
    read_marker(target)?.ok_or_else(lost)
}

/// Tells whether there are configs, and the newest is one of this repository.
fn holds_copies_of(target: &dyn Storage, config: &Config) -> Result<bool> {
    let mut newest = None;
    target.list(names::CONFIGS, &mut |object| {
        if let Some(Name::Config(number)) = names::parse(&object.name)
            && number != MARKER
        {
            newest = newest.max(Some(number));
        }
        Ok(())
    })?;
    let Some(number) = newest else {
        return Ok(false);
    };
    let object = target.get(&names::config(number), CONFIG_BYTES as u64)?;
    let found = Config::read_unverified(number, &object);
    Ok(found.is_ok_and(|found| found.repository == config.repository))
}

/// Refuses a place that holds something and is no mirror.
fn refuse_foreign(target: &dyn Storage) -> Result<()> {
    let mut first = None;
    target.list("", &mut |object| {
        if !object.name.starts_with(names::PROBE) {
            first.get_or_insert(object.name);
        }
        Ok(())
    })?;
    let Some(first) = first else { return Ok(()) };
    Err(EngineError::Request(format!(
        "{} holds {first} and is no mirror: a repository that takes writes of its own, or a mirror that was promoted, is never written over; choose an empty place",
        target.describe()
    )))
}

struct Sync<'a> {
    copier: Copier<'a>,
    scratch: &'a Path,
    config: Config,
    replica: Option<ReplicaId>,
    options: SyncOptions,
    report: SyncReport,
}

impl Sync<'_> {
    fn attempts(&mut self) -> Result<()> {
        for _ in 0..ATTEMPTS_MAX {
            if self.attempt()? {
                return Ok(());
            }
        }
        Err(EngineError::Request(
            "other syncs to this mirror were faster again and again; let one at a time run"
                .to_owned(),
        ))
    }

    /// Brings the mirror up to date; tells whether nobody else did so meanwhile.
    fn attempt(&mut self) -> Result<bool> {
        self.copier.progress.phase("listing", None, None);
        let (base, number) = match newest_manifest(self.copier.target, None)? {
            Newest::None => (None, 1),
            Newest::Read(base) => {
                let number = base.number.saturating_add(1);
                (Some(base), number)
            }
            Newest::Damaged(number, error) => {
                self.copier
                    .progress
                    .warning(&format!("{error}; this sync makes a new one"));
                (None, number.saturating_add(1))
            }
        };
        let mut have = Listing::new(self.scratch);
        have.read(self.copier.target, "")?;
        if self.options.dry_run {
            return self.count(&have).map(|()| true);
        }
        let base_state = base.as_ref().map_or(0, |base| base.state);
        let moment = self.pass(&mut have, base_state)?;
        let mut manifest = self.manifest(number, &moment, base.as_deref(), &have)?;
        self.report.snapshots = manifest.cells.len() as u64;
        self.report.gone = (manifest.gone_packs.len() + manifest.gone_segments.len()) as u64;
        self.must_be_mirror()?;
        for (name, bytes) in &moment.keys.missing {
            self.copier.write(name, bytes)?;
        }
        match base.as_deref().filter(|base| is_same(base, &manifest)) {
            Some(base) => manifest = base.clone(),
            None => {
                let object = Bytes::from(manifest.close(random::bytes()?)?);
                let name = manifest.name().to_string();
                match create_or_confirm(self.copier.target, &name, &object) {
                    Err(error) if error.kind == ErrorKind::AlreadyExists => return Ok(false),
                    result => result?,
                }
                self.report.manifest = Some(manifest.number);
            }
        }
        self.clean(&manifest, &moment, &have)?;
        Ok(true)
    }

    /// Copies until the repository held still for the length of one pass.
    fn pass(&mut self, have: &mut Listing, base_state: u64) -> Result<Moment> {
        for _ in 0..PASSES_MAX {
            self.copier.cancel.check()?;
            self.report.passes += 1;
            let mut pass = Pass {
                copier: &mut self.copier,
                have,
                scratch: self.scratch,
                base_state,
            };
            if let Some(moment) = pass.run()? {
                return Ok(moment);
            }
        }
        Err(EngineError::Request(format!(
            "{} changed {PASSES_MAX} times while it was copied; what was copied is kept, so run this again when prunes have ended",
            self.copier.source.describe()
        )))
    }

    /// Counts what is missing, by one listing.
    fn count(&mut self, have: &Listing) -> Result<()> {
        let mut listed = Listing::new(self.scratch);
        listed.read(self.copier.source, "")?;
        let mut state = 0;
        listed.each(&mut |name, _| {
            if let Name::State(number) = name {
                state = state.max(number);
            }
            Ok(())
        })?;
        let report = &mut self.report;
        listed.each(&mut |name, size| {
            report.snapshots += u64::from(matches!(name, Name::Cell(_)));
            let is_copied = match name {
                Name::Session(id) | Name::SessionEnd(id) => listed.size(&Name::Cell(id))?.is_some(),
                Name::State(number) => number == state,
                Name::Round(number) => number > state,
                Name::Reserve | Name::Manifest(_) => false,
                _ => true,
            };
            if is_copied && have.size(&name)? != Some(size) {
                report.copied += 1;
                report.bytes_copied = report.bytes_copied.saturating_add(size);
            }
            Ok(())
        })
    }

    fn manifest(
        &self,
        number: u64,
        moment: &Moment,
        base: Option<&Manifest>,
        have: &Listing,
    ) -> Result<Manifest> {
        let mut manifest = Manifest {
            number,
            repository: self.config.repository,
            replica: self.replica.unwrap_or_default(),
            state: moment.newest.state,
            round: moment.newest.round.unwrap_or_default(),
            cells: moment.cells.clone(),
            amendments: moment.amendments.clone(),
            time: clock::now_s(),
            ..Manifest::default()
        };
        manifest.cells.sort_unstable();
        manifest.amendments.sort_unstable();
        let Some(base) = base else {
            return Ok(manifest);
        };
        // Only a prune takes away, and only with a new state: what went without one was lost.
        let has_pruned = manifest.state > base.state;
        let was_gone = |ids: &[ObjectId], id: &ObjectId| ids.binary_search(id).is_ok();
        have.each(&mut |name, _| {
            let (ids, before, id) = match name {
                Name::Pack(id) => (&mut manifest.gone_packs, &base.gone_packs, id),
                Name::Segment(id) => (&mut manifest.gone_segments, &base.gone_segments, id),
                _ => return Ok(()),
            };
            let may_go = has_pruned || was_gone(before, &id);
            if may_go && ids.len() < COLLECTOR_IDS && moment.listed.size(&name)?.is_none() {
                ids.push(id);
            }
            Ok(())
        })?;
        manifest.gone_packs.sort_unstable();
        manifest.gone_segments.sort_unstable();
        Ok(manifest)
    }

    /// Fails if somebody promoted the mirror meanwhile: then it is another's.
    fn must_be_mirror(&self) -> Result<()> {
        let marker = read_marker(self.copier.target)?;
        if marker.map(|marker| marker.replica) == self.replica {
            return Ok(());
        }
        Err(EngineError::Request(format!(
            "{} was promoted meanwhile and is no mirror any more",
            self.copier.target.describe()
        )))
    }

    /// Deletes what the manifest before needed and this one does not.
    fn clean(&mut self, manifest: &Manifest, moment: &Moment, have: &Listing) -> Result<()> {
        let target = self.copier.target;
        let mut going: Vec<(Name, u64)> = list_manifests(target)?
            .into_iter()
            .filter(|number| *number < manifest.number)
            .map(|number| (Name::Manifest(number), 0))
            .collect();
        // A password that was removed in the repository opens the mirror no more.
        let slots = |name: &Name| matches!(name, Name::Slot(id) if !moment.keys.slots.contains(id));
        let gone = |name: &Name| match name {
            Name::Pack(id) => manifest.gone_packs.binary_search(id).is_ok(),
            Name::Segment(id) => manifest.gone_segments.binary_search(id).is_ok(),
            Name::Config(_) | Name::Slot(_) | Name::Manifest(_) | Name::Reserve => false,
            name => !manifest.lists(name),
        };
        have.each(&mut |name, size| {
            if slots(&name) || self.options.delete && gone(&name) {
                going.push((name, size));
            }
            Ok(())
        })?;
        let progress = self.copier.progress;
        if self.options.delete && !going.is_empty() {
            progress.phase("deleting", Some(going.len() as u64), None);
        }
        let (deleted, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        for batch in going.chunks(BATCH) {
            self.copier.cancel.check()?;
            self.must_be_mirror()?;
            // A newer manifest may need what this one does not.
            if list_manifests(target)?.pop() != Some(manifest.number) {
                break;
            }
            let outcomes = at_once::map(target.calls_at_once(), batch, |(name, size)| {
                target.delete(&name.to_string())?;
                if !matches!(name, Name::Manifest(_)) {
                    deleted.fetch_add(1, Ordering::Relaxed);
                    bytes.fetch_add(*size, Ordering::Relaxed);
                }
                progress.advance(1, *size);
                Ok::<_, EngineError>(())
            });
            outcomes.into_iter().collect::<Result<()>>()?;
        }
        self.report.deleted += deleted.into_inner();
        self.report.bytes_deleted += bytes.into_inner();
        if self.options.delete {
            self.report.gone = 0;
        }
        Ok(())
    }
}

/// Tells whether a new manifest would say nothing new.
fn is_same(base: &Manifest, new: &Manifest) -> bool {
    let is_within =
        |new: &[ObjectId], base: &[ObjectId]| new.iter().all(|id| base.binary_search(id).is_ok());
    (base.state, base.round) == (new.state, new.round)
        && base.cells == new.cells
        && base.amendments == new.amendments
        && is_within(&new.gone_packs, &base.gone_packs)
        && is_within(&new.gone_segments, &base.gone_segments)
}
