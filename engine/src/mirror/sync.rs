//! Sync: bringing a mirror to what the repository is now.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

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
use crate::openers;
use crate::progress::Progress;
use crate::random;
use crate::source::paths::real_path;
use crate::storage::error::ErrorKind;
use crate::storage::{Storage, create_or_confirm};

/// Passes that are made because collectors went on meanwhile.
const PASSES_MAX: usize = 16;
/// Times that all is done because another sync to the same mirror was faster.
const ATTEMPTS_MAX: usize = 4;
/// The size that an object which rotted is taken to have: that of no other.
const ROTTEN: u64 = u64::MAX;
/// How old remains of killed syncs are when they are removed.
const REMAINS_AGE: Duration = Duration::from_hours(24);
/// Objects that are deleted between two looks at whether they may be.
const BATCH: usize = 256;

/// How a mirror is brought up to date.
#[derive(Debug, Clone, Copy, Default)]
pub struct SyncOptions {
    /// Deletes what collectors let go of in the repository.
    pub delete: bool,
    /// Reads every object of the mirror, and copies anew what rotted in it.
    pub verify: bool,
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
    /// Finished sessions of backups whose snapshots the mirror lists: forgotten ones and checkpoints among them,
    /// which only keys can tell.
    pub snapshots: u64,
    /// The manifest that was made; none if nothing had changed.
    pub manifest: Option<u64>,
    /// Packs and segments in the mirror that a prune let go of in the repository.
    pub gone: u64,
    /// Objects that were deleted in the mirror.
    pub deleted: u64,
    /// Their bytes.
    pub bytes_deleted: u64,
    /// Objects of the mirror that were read and verified.
    pub verified: u64,
    /// Objects that had rotted in the mirror and were, or would be, copied anew.
    pub mended: u64,
    /// Remains of killed syncs that were removed.
    pub remains_deleted: u64,
    /// Objects that are damaged: in the repository, and so not copied, or in the mirror, and not in the repository.
    pub damaged: u64,
    /// Seconds that it took.
    pub seconds: f64,
    /// What is wrong with the damaged ones.
    #[serde(skip)]
    pub findings: Vec<Finding>,
}

/// Says that a bundle has no mirror.
#[must_use]
pub fn no_mirror_of_bundle(place: &str) -> EngineError {
    EngineError::Request(format!(
        "{place} is a bundle, which has no mirror: copy its file, or bring its snapshots into a repository with `larder import`"
    ))
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
    refuse_nested(source.as_ref(), &target.describe())?;
    let (source, own_replica) = readable(Arc::clone(source))?;
    let config = openers::claimed(source.as_ref())?;
    if config.is_bundle() {
        return Err(no_mirror_of_bundle(&source.describe()));
    }
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
        rotten: Vec::new(),
    };
    sync.attempts()?;
    sync.sweep();
    let mut report = sync.report;
    report.copied += sync.copier.objects.into_inner();
    report.bytes_copied += sync.copier.bytes.into_inner();
    let findings = sync.copier.damaged.iter();
    report.findings = findings.map(|(name, why)| finding(name, why)).collect();
    report.findings.extend(sync.rotten);
    report.damaged = report.findings.len() as u64;
    report.seconds = clock.elapsed().as_secs_f64();
    Ok(report)
}

/// Refuses a place for a mirror that lies within the repository's folder, or the other way round: a prune
/// refuses what is not of its repository. The place need not be there yet.
///
/// # Errors
/// `Request` if it does.
pub fn refuse_nested(source: &dyn Storage, target: &str) -> Result<()> {
    let source = source.describe();
    let folders = [&source, target].map(|place| real_place(Path::new(place)));
    match folders {
        [Some(one), Some(other)]
            if one != other && (one.starts_with(&other) || other.starts_with(&one)) =>
        {
            Err(EngineError::Request(format!(
                "{target} and the repository {source} lie within each other; choose another place"
            )))
        }
        _ => Ok(()),
    }
}

/// Gives a folder without symbolic links, also one that is to be made; none for what is no folder.
fn real_place(path: &Path) -> Option<PathBuf> {
    if !path.is_absolute() {
        return None;
    }
    let mut above = path.ancestors();
    let there = above.find_map(|one| Some((one, real_path(one)?)));
    let (one, real) = there?;
    Some(real.join(path.strip_prefix(one).ok()?))
}

fn finding(name: &Name, why: &str) -> Finding {
    let costs_data = matches!(name, Name::Pack(_) | Name::Cell(_));
    Finding {
        severity: match costs_data {
            true => Severity::Loss,
            false => Severity::Harmless,
        },
        object: name.to_string(),
        problem: format!("{why}; what is damaged is not copied: see what `larder check` says"),
        snapshots: Vec::new(),
        paths: Vec::new(),
    }
}

fn rot(name: &Name, why: &str) -> Finding {
    Finding {
        problem: format!(
            "in the mirror: {why}; the repository does not have it any more, so it stays as it is"
        ),
        severity: Severity::Harmless,
        ..finding(name, why)
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
            let refused = refuse_foreign(target);
            // Another first sync may have come between the two looks.
            if let (Err(error), None) = (refused, read_marker(target)?) {
                return Err(error);
            }
            if dry_run {
                report.made = true;
                return Ok(None);
            }
            match create_or_confirm(target, &name, &marker()?) {
                Err(error) if error.kind == ErrorKind::AlreadyExists => {}
                result => {
                    result?;
                    report.made = true;
                }
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
    /// What rotted in the mirror and the repository has no more.
    rotten: Vec<Finding>,
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
        let rotten = match self.options.verify {
            true => self.verify(&mut have)?,
            false => BTreeMap::new(),
        };
        if self.options.dry_run {
            self.count(&have)?;
            self.report.mended = rotten.len() as u64;
            return Ok(true);
        }
        let moment = self.pass(&mut have, base.as_deref())?;
        let mut manifest = self.manifest(number, &moment, base.as_deref(), &have)?;
        self.report.snapshots = moment.committed;
        self.report.gone = (manifest.gone_packs.len() + manifest.gone_segments.len()) as u64;
        self.must_be_mirror()?;
        for (name, bytes) in &moment.keys.missing {
            self.copier.write(name, bytes)?;
        }
        for (name, size) in self.copier.copy(&moment.keys.twins)? {
            have.insert(&name, size)?;
        }
        self.settle(rotten, &have)?;
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
    fn pass(&mut self, have: &mut Listing, base: Option<&Manifest>) -> Result<Moment> {
        for _ in 0..PASSES_MAX {
            self.copier.cancel.check()?;
            self.report.passes += 1;
            let mut pass = Pass {
                copier: &mut self.copier,
                have,
                scratch: self.scratch,
                base,
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

    /// Reads all objects of the mirror but what makes it one; those that rotted count as missing from then on.
    fn verify(&mut self, have: &mut Listing) -> Result<BTreeMap<Name, String>> {
        let (rotten, verified) = self.copier.verify_target(have)?;
        self.report.verified = verified;
        for name in rotten.keys() {
            have.insert(name, ROTTEN)?;
        }
        Ok(rotten)
    }

    /// Tells which of the objects that had rotted were copied anew.
    fn settle(&mut self, rotten: BTreeMap<Name, String>, have: &Listing) -> Result<()> {
        let copied = self.copier.rewritten();
        self.rotten.clear();
        self.report.mended = 0;
        for (name, why) in rotten {
            if have.size(&name)? != Some(ROTTEN) || copied.contains(&name) {
                self.report.mended += 1;
            } else if !self.copier.damaged.contains_key(&name) {
                self.rotten.push(rot(&name, &why));
            }
        }
        Ok(())
    }

    /// Removes what killed syncs left; a storage that refuses that is no reason to fail.
    fn sweep(&mut self) {
        if self.options.dry_run {
            return;
        }
        match self.copier.target.sweep(REMAINS_AGE) {
            Ok(swept) => self.report.remains_deleted = swept,
            Err(error) => {
                let text = format!("remains of killed syncs stay: {error}");
                self.copier.progress.warning(&text);
            }
        }
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
            report.snapshots += u64::from(matches!(name, Name::SessionEnd(_)));
            let is_copied = match name {
                Name::Session(id) | Name::SessionEnd(id) => listed.size(&Name::Cell(id))?.is_some(),
                Name::State(number) => number == state,
                Name::Round(number) => number > state,
                Name::Reserve | Name::Manifest(_) | Name::Run(_) | Name::RunEnd(_) => false,
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
        let slots = |name: &Name| matches!(name, Name::Slot(id) | Name::SlotTwin(id) if !moment.keys.slots.contains(id));
        let gone = |name: &Name| match name {
            Name::Pack(id) => manifest.gone_packs.binary_search(id).is_ok(),
            Name::Segment(id) => manifest.gone_segments.binary_search(id).is_ok(),
            Name::Config(_) | Name::Slot(_) | Name::Manifest(_) | Name::Reserve => false,
            name => !manifest.lists(name),
        };
        have.each(&mut |name, size| {
            // Parity is made anew for other packs, and nothing depends on it.
            let is_replaced =
                matches!(name, Name::Parity(_)) && moment.listed.size(&name)?.is_none();
            if slots(&name) || self.options.delete && (gone(&name) || is_replaced) {
                going.push((name, if size == ROTTEN { 0 } else { size }));
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
