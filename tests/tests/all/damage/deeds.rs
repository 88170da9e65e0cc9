//! What is done to a damaged repository, and what must come of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use larder_engine::backup::backup;
use larder_engine::cancel::Cancel;
use larder_engine::check::{CheckOptions, CheckReport, Finding, ReadData, Severity, check, quick};
use larder_engine::error::{EngineError, Result as EngineResult};
use larder_engine::progress::Silent;
use larder_engine::prune::prune;
use larder_engine::repair::{Repair, RepairOptions, RepairReport};
use larder_engine::repository::Repository;
use larder_engine::restore::restore;
use larder_engine::simulated::{self, Simulated};
use larder_engine::snapshots::{Filter, list};
use larder_engine::storage::Storage;
use larder_format::config::Config;
use larder_format::ids::SessionId;
use larder_format::names::{self, Name};

use super::exhibits::{Museum, Place, Told, backup_options, kind_of, open, open_options};
use super::harms::{Case, Harm};
use super::oracle::Path;
use super::overlay::{Objects, Overlay};
use crate::fixture::{author, files_below, memory_folder, prune_options, restore_options, secret};

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    CheckQuick,
    CheckStructure,
    CheckData,
    Restore,
    BackUp,
    Prune,
    /// Only says what it would do.
    RepairDry,
    RepairDryFromCopy,
    Repair,
    RepairFromCopy,
}

impl Deed {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::CheckQuick,
        Self::CheckStructure,
        Self::CheckData,
        Self::Restore,
        Self::BackUp,
        Self::Prune,
        Self::RepairDry,
        Self::RepairDryFromCopy,
        Self::Repair,
        Self::RepairFromCopy,
    ];
}

/// What went wrong; nothing if all is as it must be.
type Judged = Result<(), String>;

/// A damaged repository, before anything is done to it.
pub struct Scene<'a> {
    museum: &'a Museum,
    case: &'a Case,
    storage: Arc<Overlay>,
    before: Objects,
    /// Files of which all bytes open somewhere.
    held: BTreeSet<Path>,
    /// Snapshots whose own record is as it was.
    listed: BTreeSet<SessionId>,
    opens: bool,
}

impl<'a> Scene<'a> {
    /// Damages the repository.
    pub fn new(museum: &'a Museum, case: &'a Case) -> Self {
        let now_ns = 40_000 * 86_400 * 1_000_000_000;
        let tick = Duration::from_millis(1);
        // Other random numbers than those that the repository was made with.
        let seed = 1000 + case.number as u64;
        simulated::enter(Some(Simulated::new(seed, now_ns, tick)));
        let storage = case.inflict(museum);
        let before = storage.objects();
        let pristine = museum.objects(case.kind.place);
        let is_whole = |name: &str| before.get(name) == pristine.get(name);
        let cells = museum.oracle.snapshots.keys().copied();
        Self {
            held: museum.oracle.held(&before),
            listed: cells.filter(|id| is_whole(&names::cell(id))).collect(),
            opens: opens(&before, pristine),
            museum,
            case,
            storage,
            before,
        }
    }

    /// Does it, on a copy, and judges what came of it.
    pub fn act(&self, deed: Deed) -> Judged {
        let storage = Arc::new(self.storage.fork());
        match deed {
            Deed::CheckQuick | Deed::CheckStructure | Deed::CheckData => self.check(&storage, deed),
            Deed::Restore => self.restore(&storage),
            Deed::BackUp => self.back_up(&storage),
            Deed::Prune => self.prune(&storage),
            Deed::RepairDry => self.repair(&storage, false, false),
            Deed::RepairDryFromCopy => self.repair(&storage, false, true),
            Deed::Repair => self.repair(&storage, true, false),
            Deed::RepairFromCopy => self.repair(&storage, true, true),
        }
    }

    /// Opens the repository; nothing where it must not open and does not.
    fn open(&self, storage: &Arc<Overlay>) -> Result<Option<Arc<Repository>>, String> {
        match (open(&self.museum.desk, storage), self.opens) {
            (Ok(repository), true) => Ok(Some(repository)),
            (Err(error), true) => Err(format!("it does not open: {error}")),
            (Ok(_), false) => Err("it opens".to_owned()),
            (Err(error), false) => {
                let told = error.to_string();
                let names = ["config", "key slot", "keys/", "mirror", "version"];
                match names.iter().any(|name| told.contains(name)) {
                    true => Ok(None),
                    false => Err(format!("the error does not say what is damaged: {told}")),
                }
            }
        }
    }

    fn check(&self, storage: &Arc<Overlay>, deed: Deed) -> Judged {
        let Some(repository) = self.open(storage)? else {
            return Ok(());
        };
        let (read_data, level) = match deed {
            Deed::CheckQuick => (None, 0),
            Deed::CheckStructure => (Some(ReadData::No), 1),
            _ => (Some(ReadData::All), 2),
        };
        let cancel = Cancel::default();
        let report = match read_data {
            None => quick(&repository, false, &Silent, &cancel),
            Some(read_data) => {
                let options = CheckOptions {
                    read_data,
                    records_suspects: false,
                };
                check(&repository, &options, &Silent, &cancel)
            }
        };
        same(&self.before, &storage.objects())?;
        let report = match report {
            Ok(report) => report,
            Err(error) if self.is_refused_by_name(&error) => return Ok(()),
            Err(error) => return Err(format!("it could not be made: {error}")),
        };
        for name in self.case.changes.keys() {
            self.judge_told(name, &report, level)?;
        }
        match level {
            2 => self.judge_losses(&report),
            _ => Ok(()),
        }
    }

    /// Judges what was said of an object, by the rule of its kind.
    fn judge_told(&self, name: &str, report: &CheckReport, level: usize) -> Judged {
        let place = self.case.kind.place;
        let pristine = self.museum.objects(place).get(name);
        let now = self.before.get(name);
        let kind = match kind_of(self.museum, place, name) {
            Some(kind) => kind,
            // What counts for nothing any more, and another's part of a swap in the mirror.
            None if pristine.is_some() => return Ok(()),
            None => self.case.kind,
        };
        let rules = match (pristine, now) {
            (Some(_), Some(_)) => kind.altered,
            (Some(_), None) => kind.missing,
            _ => self.case.kind.planted,
        };
        let has_size = pristine.map(|one| one.len()) == now.map(|one| one.len());
        let has_lost = self.held.len() < all_paths(self.museum).len();
        let (is_told, is_named) = (told(report, name, false), told(report, name, true));
        // Quick stops where nobody knows what counts; and of a pack that only an altered segment names, or a segment
        // that only an altered cell names, it knows nothing.
        let is_stopped = self.lacks_collection() && !name.starts_with(names::COLLECTOR);
        let is_hidden = is_stopped
            || (name.starts_with(names::PACKS) && self.hides_packs())
            || (name.starts_with(names::SEGMENTS) && self.alters(names::CELLS));
        let is_right = match rules[level] {
            _ if level == 0 && is_hidden => true,
            Told::Nothing => true,
            Told::Noted => is_told,
            Told::Named | Told::Refused => is_named,
            Told::ByItsSize => has_size || is_named,
            Told::ByItsNodes => (has_size && !has_lost) || is_named,
        };
        match is_right {
            true => Ok(()),
            false => Err(format!(
                "{name} ({}) is not named: {:#?}",
                kind.word,
                brief(report)
            )),
        }
    }

    /// Judges which snapshots are said to suffer: those of which something opens nowhere, or that have no cell.
    fn judge_losses(&self, report: &CheckReport) -> Judged {
        if self.case.kind.place == Place::Mirror || self.lacks_collection() {
            return Ok(());
        }
        let mut expected = BTreeSet::new();
        for (id, path) in all_paths(self.museum) {
            if !self.listed.contains(&id) || !self.held.contains(&(id, path)) {
                expected.insert(id.snapshot_name());
            }
        }
        let losses = report
            .findings
            .iter()
            .filter(|one| one.severity == Severity::Loss);
        let mut found: BTreeSet<String> = losses.flat_map(|one| one.snapshots.clone()).collect();
        let live = self
            .museum
            .oracle
            .snapshots
            .keys()
            .map(SessionId::snapshot_name);
        let live: BTreeSet<String> = live.collect();
        found.retain(|id| live.contains(id));
        match found == expected {
            true => Ok(()),
            false => Err(format!(
                "{found:?} suffer instead of {expected:?}: {:#?}",
                brief(report)
            )),
        }
    }

    /// Tells whether an error names a damaged object without which nothing is known.
    fn is_refused_by_name(&self, error: &EngineError) -> bool {
        let place = self.case.kind.place;
        let told = error.to_string();
        let mut names = self.case.changes.keys();
        names.any(|name| {
            let kind = kind_of(self.museum, place, name).unwrap_or(self.case.kind);
            kind.altered[2] == Told::Refused && told.contains(name.as_str())
        })
    }

    /// Tells whether what names packs was altered, too.
    fn hides_packs(&self) -> bool {
        self.lacks_collection() || self.alters(names::SEGMENTS)
    }

    fn lacks_collection(&self) -> bool {
        self.alters(names::COLLECTOR)
    }

    /// Tells whether anything below a folder was altered.
    fn alters(&self, folder: &str) -> bool {
        self.case
            .changes
            .keys()
            .any(|name| name.starts_with(folder))
    }

    fn restore(&self, storage: &Arc<Overlay>) -> Judged {
        let Some(repository) = self.open(storage)? else {
            return Ok(());
        };
        self.restore_all(&repository, &self.held)?;
        // A long one registers, so that no prune takes away what it reads.
        kept(&self.before, &storage.objects())
    }

    /// Restores every snapshot; what is held must be there, and what is there must be right.
    fn restore_all(&self, repository: &Arc<Repository>, held: &BTreeSet<Path>) -> Judged {
        let listed = match list(repository, &Filter::default(), false) {
            Ok(listed) => listed,
            Err(error) if self.is_refused_by_name(&error) => return Ok(()),
            Err(error) => return Err(format!("snapshots are not listed: {error}")),
        };
        for (id, truth) in &self.museum.oracle.snapshots {
            let Some(snapshot) = listed.iter().find(|one| one.session == *id) else {
                match self.listed.contains(id) && self.shows_snapshots() {
                    true => return Err(format!("snapshot {} is not listed", id.snapshot_name())),
                    false => continue,
                }
            };
            let target = tempfile::tempdir_in(memory_folder()).unwrap();
            let options = restore_options(target.path());
            let source = Some(truth.source.as_slice());
            let done = restore(
                repository,
                snapshot,
                source,
                &options,
                &Silent,
                &Cancel::default(),
            );
            let found = files_below(target.path());
            for (path, bytes) in &found {
                let is_right = truth
                    .files
                    .get(path)
                    .is_some_and(|file| file.bytes == *bytes);
                if !is_right {
                    return Err(format!("wrong bytes stand under {path}: {done:?}"));
                }
            }
            for path in truth.files.keys() {
                if held.contains(&(*id, path.clone())) && !found.contains_key(path) {
                    return Err(format!("{path} is not restored: {done:?}"));
                }
            }
            let report = done.map_err(|error| format!("the restore failed: {error}"))?;
            if found.len() < truth.files.len() && report.failed == 0 {
                return Err(format!("files are missing and nobody says so: {report:?}"));
            }
        }
        Ok(())
    }

    /// Tells whether a reader of this storage sees snapshots: a mirror without its manifest shows none.
    fn shows_snapshots(&self) -> bool {
        let has = |name: &str| self.before.contains_key(name);
        self.case.kind.place == Place::Repository
            || !has(&names::config(u64::MAX))
            || self
                .before
                .keys()
                .any(|name| name.starts_with(names::MIRROR))
    }

    fn back_up(&self, storage: &Arc<Overlay>) -> Judged {
        let Some(repository) = self.open(storage)? else {
            return Ok(());
        };
        let options = backup_options(&self.museum.desk);
        let done = backup(&repository, &options, &Silent, &Cancel::default());
        let after = storage.objects();
        kept(&self.before, &after)?;
        self.no_worse(&after, &self.listed)?;
        let report = match done {
            Ok(report) => report,
            Err(error) if self.is_refused(&error) => return Ok(()),
            Err(error) => return Err(format!("it failed: {error}")),
        };
        let Some(name) = report.snapshot else {
            return Err("it made no snapshot".to_owned());
        };
        let cell = after.keys().find_map(|object| match names::parse(object) {
            Some(Name::Cell(id)) if id.snapshot_name() == name => Some(id),
            _ => None,
        });
        // What was altered and has its size is found by reading, which a backup does not do.
        if self.has_silent_damage() {
            return Ok(());
        }
        let made = self.museum.oracle.files_of(&after, &cell.unwrap())?;
        let source = files_below(&self.museum.desk.path("source"));
        let made: BTreeMap<_, _> = made
            .files
            .into_iter()
            .map(|(path, file)| (path, file.bytes))
            .collect();
        match made == source {
            true => Ok(()),
            false => Err("the new snapshot is not its source".to_owned()),
        }
    }

    /// Tells whether an operation that writes may refuse: in a mirror, and where nobody knows what counts.
    fn is_refused(&self, error: &EngineError) -> bool {
        self.case.kind.place == Place::Mirror
            || (self.lacks_collection() && matches!(error, EngineError::Damaged { .. }))
    }

    fn has_silent_damage(&self) -> bool {
        let pristine = self.museum.objects(self.case.kind.place);
        self.case.changes.iter().any(|(name, bytes)| {
            let before = pristine.get(name).map(|one| one.len());
            let has_size = before == bytes.as_ref().map(|one| one.len());
            name.starts_with(names::PACKS) && (has_size || self.hides_packs())
        })
    }

    fn prune(&self, storage: &Arc<Overlay>) -> Judged {
        let Some(repository) = self.open(storage)? else {
            return Ok(());
        };
        let done = prune(&repository, &prune_options(), &Silent, &Cancel::default());
        self.no_worse(&storage.objects(), &self.listed)?;
        let must_work = self.case.kind.is_idle && self.is_all_idle();
        match done {
            Err(error) if must_work => Err(format!("it failed: {error}")),
            _ => Ok(()),
        }
    }

    /// Tells whether nothing that was changed matters to anybody else.
    fn is_all_idle(&self) -> bool {
        let place = self.case.kind.place;
        let mut names = self.case.changes.keys();
        let is_idle =
            |name: &str| kind_of(self.museum, place, name).is_none_or(|kind| kind.is_idle);
        names.all(|name| is_idle(name)) && self.case.harm != Harm::Duplicate
    }

    fn repair(&self, storage: &Arc<Overlay>, apply: bool, has_copy: bool) -> Judged {
        let copy = has_copy.then(|| {
            let copy: Arc<dyn Storage> = Arc::new(Overlay::new(&self.museum.mirror));
            copy
        });
        let done = self.run_repair(storage, apply, copy.as_ref());
        let after = storage.objects();
        if !apply {
            same(&self.before, &after)?;
        }
        self.no_worse(&after, &self.listed)?;
        for (name, bytes) in &self.before {
            let is_own = self.museum.objects(self.case.kind.place).get(name) == Some(bytes);
            if is_own && after.get(name) != Some(bytes) {
                return Err(format!("{name} was sound and is not as it was"));
            }
        }
        let report = match done {
            Ok(report) => report,
            Err(_) if self.case.kind.place == Place::Mirror => return Ok(()),
            Err(error) if !self.opens && !self.would_open(has_copy) => {
                let told = error.to_string();
                let names = ["config", "key", "version"];
                return match names.iter().any(|name| told.contains(name)) {
                    true => Ok(()),
                    false => Err(format!("the error does not say what is damaged: {told}")),
                };
            }
            Err(error) => return Err(format!("it failed: {error}")),
        };
        if self.case.kind.place == Place::Mirror {
            return Ok(());
        }
        match (apply, has_copy) {
            (true, true) => self.judge_mended(&after, &report),
            (true, false) => {
                self.judge_twins(&after, &report)?;
                self.judge_saved(storage, &report)
            }
            _ => Ok(()),
        }
    }

    fn run_repair(
        &self,
        storage: &Arc<Overlay>,
        apply: bool,
        copy: Option<&Arc<dyn Storage>>,
    ) -> EngineResult<RepairReport> {
        let options = RepairOptions {
            apply,
            read_data: true,
            cuts_lost: false,
            author: author(),
        };
        let (cancel, scratch) = (Cancel::default(), std::env::temp_dir());
        let base: Arc<dyn Storage> = Arc::clone(storage) as _;
        let repair = Repair::prepare(&base, copy, &scratch, &options, &Silent, &cancel)?;
        let open = open_options(&self.museum.desk);
        let opened = Repository::open_on(repair.storage(), &secret("one"), &open)
            .or_else(|_| Repository::open_on(repair.storage(), &secret("two"), &open))?;
        repair.run(&opened, &open)
    }

    /// Tells whether the repository opens once the copy's objects stand in place of damaged ones.
    fn would_open(&self, has_copy: bool) -> bool {
        has_copy && !self.before.contains_key(&names::config(3))
    }

    /// Judges a repair with a whole copy: whatever the copy has is as it was.
    fn judge_mended(&self, after: &Objects, report: &RepairReport) -> Judged {
        for name in self.case.changes.keys() {
            let Some(pristine) = self.museum.repository.get(name) else {
                continue;
            };
            let is_in_copy = self.museum.mirror.get(name) == Some(pristine);
            let Some(kind) = kind_of(self.museum, Place::Repository, name) else {
                continue;
            };
            let is_damage = match self.before.contains_key(name) {
                true => kind.altered[2] != Told::Nothing,
                false => !matches!(kind.missing[2], Told::Nothing | Told::Noted),
            };
            let is_known = !self.museum.condemned.contains(name);
            if is_in_copy && is_damage && is_known && after.get(name) != Some(pristine) {
                return Err(format!("{name} was not put back: {report:#?}"));
            }
        }
        let held = self.museum.oracle.held(after);
        let lost = all_paths(self.museum)
            .into_iter()
            .find(|path| !held.contains(path));
        match lost {
            Some((_, path)) => Err(format!("{path} was not brought back: {report:#?}")),
            None => Ok(()),
        }
    }

    /// Judges a repair without a copy: of what opens the repository all comes back that is twice there, and what
    /// nobody made is put aside.
    fn judge_twins(&self, after: &Objects, report: &RepairReport) -> Judged {
        let pristine = &self.museum.repository;
        for name in self.case.changes.keys() {
            let other = match name.strip_prefix("twins/") {
                Some(original) => original.to_owned(),
                None => format!("twins/{name}"),
            };
            let is_twice =
                pristine.contains_key(&other) && self.before.get(&other) == pristine.get(&other);
            if is_twice && after.get(name) != pristine.get(name) {
                return Err(format!("{name} was not put back from {other}: {report:#?}"));
            }
            let is_config = name.starts_with("config/") || name.starts_with("twins/config/");
            if is_config && !pristine.contains_key(name) && after.contains_key(name) {
                return Err(format!("{name} was not put aside: {report:#?}"));
            }
        }
        Ok(())
    }

    /// Judges a repair without a copy: what opens somewhere is restored afterwards, and what is lost was said.
    fn judge_saved(&self, storage: &Arc<Overlay>, report: &RepairReport) -> Judged {
        let is_lost = |path: &Path| self.listed.contains(&path.0) && !self.held.contains(path);
        let has_loss = all_paths(self.museum).iter().any(is_lost);
        if has_loss && report.lost == 0 && !self.lacks_collection() {
            return Err(format!("files are lost and nobody says so: {report:#?}"));
        }
        let Some(repository) = self.open(storage)? else {
            return Ok(());
        };
        self.restore_all(&repository, &self.held)
    }

    /// Judges that whatever was held before of these snapshots still is.
    fn no_worse(&self, after: &Objects, listed: &BTreeSet<SessionId>) -> Judged {
        let held = self.museum.oracle.held(after);
        let mut lost = self.held.iter().filter(|path| !held.contains(*path));
        if let Some((id, path)) = lost.find(|(id, _)| listed.contains(id)) {
            return Err(format!(
                "{path} of {} was to be had before",
                id.snapshot_name()
            ));
        }
        match listed
            .iter()
            .find(|id| !after.contains_key(&names::cell(id)))
        {
            Some(id) => Err(format!("the cell of {} is gone", id.snapshot_name())),
            None => Ok(()),
        }
    }
}

/// Tells whether a repository opens, by what SPEC.md says: the highest config counts that is whole or has a twin that is, and
/// some slot that it lists opens: under its name, as its twin, or under the name of another.
fn opens(now: &Objects, pristine: &Objects) -> bool {
    let is_whole = |name: &str| {
        now.get(name)
            .is_some_and(|one| pristine.get(name) == Some(one))
    };
    let marker = names::config(u64::MAX);
    if now.contains_key(&marker) && !is_whole(&marker) {
        return false;
    }
    let numbers = pristine.keys().filter_map(|name| match names::parse(name) {
        Some(Name::Config(number)) if number != u64::MAX => Some(number),
        _ => None,
    });
    let is_there = |name: &str| is_whole(name) || is_whole(&format!("twins/{name}"));
    let counting = numbers
        .map(names::config)
        .filter(|name| is_there(name))
        .max();
    let Some(newest) = counting else {
        return false;
    };
    let Some(Name::Config(number)) = names::parse(&newest) else {
        return false;
    };
    let listed = Config::read_unverified(number, &pristine[&newest])
        .unwrap()
        .slots;
    let places: Vec<String> = listed.iter().map(names::slot).collect();
    places.iter().any(|name| {
        let stands = |place: &String| now.get(place) == pristine.get(name);
        is_there(name) || places.iter().any(stands)
    })
}

fn all_paths(museum: &Museum) -> Vec<Path> {
    let snapshots = museum.oracle.snapshots.iter();
    let paths = snapshots.flat_map(|(id, one)| one.files.keys().map(|path| (*id, path.clone())));
    paths.collect()
}

/// Tells whether a finding names an object: records of collectors go by their folder.
fn told(report: &CheckReport, name: &str, above_notes: bool) -> bool {
    let is_meant = |one: &Finding| {
        one.object == name || (one.object == names::COLLECTOR && name.starts_with(names::COLLECTOR))
    };
    let mut findings = report.findings.iter();
    findings.any(|one| is_meant(one) && (!above_notes || one.severity != Severity::Note))
}

fn brief(report: &CheckReport) -> Vec<String> {
    let findings = report.findings.iter();
    let brief = findings.map(|one| {
        format!(
            "{:?} {}: {} {:?}",
            one.severity, one.object, one.problem, one.snapshots
        )
    });
    brief.collect()
}

/// Fails unless nothing was written.
fn same(before: &Objects, after: &Objects) -> Judged {
    match before == after {
        true => Ok(()),
        false => Err("it wrote".to_owned()),
    }
}

/// Fails unless all that was there is there as it was.
fn kept(before: &Objects, after: &Objects) -> Judged {
    let mut objects = before.iter();
    match objects.find(|(name, bytes)| after.get(*name) != Some(*bytes)) {
        Some((name, _)) => Err(format!("{name} is not as it was")),
        None => Ok(()),
    }
}
