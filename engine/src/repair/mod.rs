//! Repair: mending what is damaged, from another copy of the repository and from what still opens (SPEC.md §12).
//!
//! First objects: what is damaged or missing and sound in the other copy is put in its place, byte for byte.
//! They are looked at without keys, so that a repository that does not open for damage can be repaired,
//! too. Then chunks: what snapshots need and no usable pack has is put in anew from any place that still
//! opens, by a session as a backup does it. Nothing is deleted: what is replaced goes to quarantine.
//!
//! [`Repair::prepare`] needs no key; the repository is then opened through [`Repair::storage`], which shows it
//! as it will be, and [`Repair::run`] does the rest.

mod objects;
mod overlay;
mod quarantine;
mod rescue;
mod session;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use larder_format::ids::{ObjectId, SessionId};
use larder_format::names::Name;
use larder_format::quarantine::RepairId;
use serde::Serialize;

use crate::cancel::Cancel;
use crate::check::{Finding, Healing, Severity};
use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::repository::{OpenOptions, Repository};
use crate::rewrite::{Cut, cut_out};
use crate::session::Author;
use crate::storage::Storage;
use objects::Objects;
use overlay::Overlay;
use quarantine::Keeper;

/// How a repository is repaired.
#[derive(Debug, Clone)]
pub struct RepairOptions {
    /// Does it; otherwise only says what would be done.
    pub apply: bool,
    /// Reads every byte of every pack, to find what is damaged and not known to be.
    pub read_data: bool,
    /// Puts what is left of them in the place of snapshots of whose trees nodes are lost for good.
    pub cuts_lost: bool,
    /// Who repairs.
    pub author: Author,
}

/// What is lost of an entry of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LostPart {
    /// Parts of a file's bytes.
    Content,
    /// Extended attributes and ACLs.
    Attributes,
    /// A part of the tree: which entries it had is not known.
    Entries,
}

/// Something that is in no place any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// The snapshot's id.
    pub snapshot: String,
    /// The path (lossy where it is not UTF-8); of lost entries the one from which on they are lost.
    pub path: String,
    /// What of it is lost.
    pub part: LostPart,
    /// The bytes of a file that are lost: offset and length.
    pub ranges: Vec<(u64, u64)>,
    /// The path before which lost entries end; none if that is the end of the source.
    pub until: Option<String>,
}

/// An object that is, or would be, put in place of a damaged or missing one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mended {
    /// The object's name.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
    /// Where what takes its place comes from.
    pub from: Healing,
}

/// What a repair did, or would do.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RepairReport {
    /// Whether nothing was touched.
    pub dry_run: bool,
    /// The repair's id, by which it can be undone; none if nothing was put aside.
    pub repair: Option<String>,
    /// Objects that were taken from the other copy, or would be.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Chunks that were put in anew, or would be.
    pub chunks: u64,
    /// Their bytes.
    pub chunk_bytes: u64,
    /// Damaged packs that were made known to all.
    pub new_suspects: u64,
    /// Why they could not be.
    pub not_recorded: Option<String>,
    /// Objects that stay damaged, and what that costs.
    pub left: u64,
    /// Parts of files and trees that stay lost.
    pub lost: u64,
    /// Snapshots that stay with trees of which nodes are lost: no prune goes on until they are forgotten or replaced.
    pub torn: u64,
    /// Snapshots in whose places stand others with what was left of them.
    pub cut: u64,
    /// Seconds that it took.
    pub seconds: f64,
    /// Those snapshots.
    #[serde(skip)]
    pub cuts: Vec<Cut>,
    /// The objects that are mended.
    #[serde(skip)]
    pub mended: Vec<Mended>,
    /// The objects that are not, worst first.
    #[serde(skip)]
    pub findings: Vec<Finding>,
    /// What stays lost; of very much the first 10,000.
    #[serde(skip)]
    pub losses: Vec<Lost>,
}

impl RepairReport {
    /// Tells whether there is, or was, anything to mend.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.objects + self.chunks > 0
    }

    /// Tells whether anything stays damaged, whether that costs data or not.
    #[must_use]
    pub fn leaves_damage(&self) -> bool {
        let is_damage = |one: &Finding| one.severity != Severity::Note;
        self.findings.iter().any(is_damage)
    }

    /// Tells whether data stays lost.
    #[must_use]
    pub fn has_loss(&self) -> bool {
        let is_loss = |one: &Finding| one.severity == Severity::Loss;
        self.lost > 0 || self.findings.iter().any(is_loss)
    }
}

/// A repair that has looked at all that can be seen without a key.
pub struct Repair<'a> {
    overlay: Arc<Overlay>,
    objects: Objects,
    options: &'a RepairOptions,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
    started: Instant,
    scratch: &'a Path,
}

impl<'a> Repair<'a> {
    /// Looks at every object but the packs, and with `read_data` at these too; `from` is another copy of the
    /// repository, a mirror for instance.
    ///
    /// # Errors
    /// `Request` for a mirror, or if `from` is of another repository; `Interrupted`, or what the storages
    /// answer.
    pub fn prepare(
        storage: &Arc<dyn Storage>,
        from: Option<&Arc<dyn Storage>>,
        scratch: &'a Path,
        options: &'a RepairOptions,
        progress: &'a dyn Progress,
        cancel: &'a Cancel,
    ) -> Result<Self> {
        let started = Instant::now();
        let (overlay, objects) =
            objects::prepare(storage, from, scratch, options.read_data, progress, cancel)?;
        Ok(Self {
            overlay: Arc::new(overlay),
            objects,
            options,
            progress,
            cancel,
            started,
            scratch,
        })
    }

    /// Gives the storage through which the repository is to be opened: it shows what will be mended.
    #[must_use]
    pub fn storage(&self) -> Arc<dyn Storage> {
        Arc::clone(&self.overlay) as Arc<dyn Storage>
    }

    /// Repairs the repository, or says what would be done.
    ///
    /// # Errors
    /// `Damaged` if what was written does not read back; `Interrupted`, or what the storages answer. What was
    /// done by then stays, and the next run goes on.
    pub fn run(mut self, repository: &Arc<Repository>, open: &OpenOptions) -> Result<RepairReport> {
        if self.options.apply {
            repository.check_write()?;
        }
        let mut report = RepairReport {
            dry_run: !self.options.apply,
            ..RepairReport::default()
        };
        let damaged = self.look(repository)?;
        report.mended = self.objects.mended();
        report.objects = report.mended.len() as u64;
        report.bytes = self.objects.bytes();
        if self.options.apply {
            self.put_objects(&mut report)?;
        }
        let spare = self.spare(repository, open);
        self.rescue(repository, spare.as_ref(), damaged, &mut report)?;
        report.left = report.findings.len() as u64;
        report
            .findings
            .sort_by(|a, b| (b.severity, &a.object).cmp(&(a.severity, &b.object)));
        report.seconds = self.started.elapsed().as_secs_f64();
        Ok(report)
    }

    /// Finds out what the other copy has of what is damaged or missing; gives the packs that stay damaged.
    fn look(&mut self, repository: &Arc<Repository>) -> Result<BTreeMap<ObjectId, String>> {
        self.objects.find_records(repository, &self.overlay)?;
        self.objects.find_segments(repository, &self.overlay)?;
        self.objects.find_packs(
            repository,
            &self.overlay,
            self.scratch,
            self.progress,
            self.cancel,
        )
    }

    /// Puts sound objects in the places of damaged and missing ones.
    fn put_objects(&self, report: &mut RepairReport) -> Result<()> {
        let wishes = self.objects.wishes();
        if wishes.is_empty() {
            self.overlay.clear();
            return Ok(());
        }
        let count = wishes.len() as u64;
        self.progress
            .phase("putting objects back", Some(count), Some(report.bytes));
        let base = Arc::clone(&self.overlay.base);
        let host = &self.options.author.host;
        let mut keeper = Keeper::new(base.as_ref(), host, self.progress, self.cancel)?;
        let overlay = &self.overlay;
        let mut changed = keeper.change(&wishes, &mut |name| {
            let limit = larder_format::names::parse(name)
                .map_or(0, |name| larder_format::verify::bytes_max(&name) as u64);
            let bytes = overlay.get(name, limit)?;
            self.progress.advance(1, bytes.len() as u64);
            Ok(bytes)
        })?;
        changed.sort_unstable();
        report.repair = (keeper.changed > 0).then(|| keeper.id.to_hex());
        report.objects = changed.len() as u64;
        report
            .mended
            .retain(|one| changed.binary_search(&one.object).is_ok());
        self.overlay.clear();
        Ok(())
    }

    /// Opens the other copy, if that is possible with the keys of this one.
    fn spare(&self, repository: &Arc<Repository>, open: &OpenOptions) -> Option<Arc<Repository>> {
        let from = self.overlay.from.clone()?;
        let options = OpenOptions {
            state_dir: None,
            ..open.clone()
        };
        let opened = Repository::open_copy(from, repository, &options)
            .and_then(|spare| crate::view::read(&spare, true, None).map(|_| spare));
        match opened {
            Ok(spare) => Some(spare),
            Err(error) => {
                self.progress.warning(&format!(
                    "the other copy does not open, so chunks are not looked for in it: {error}"
                ));
                None
            }
        }
    }

    /// Puts chunks in anew that only damaged places hold, and says what is lost.
    fn rescue(
        &self,
        repository: &Arc<Repository>,
        spare: Option<&Arc<Repository>>,
        damaged: BTreeMap<ObjectId, String>,
        report: &mut RepairReport,
    ) -> Result<()> {
        if let Some(why) = &self.objects.lacks_collection {
            report.findings.push(finding(
                Severity::Loss,
                larder_format::names::COLLECTOR,
                &format!("{why}; without it nothing can be written, and what counts is not known"),
            ));
            return Ok(());
        }
        report.findings.extend(self.objects.findings());
        if damaged.is_empty() && !self.objects.lacks_segments() && !self.options.cuts_lost {
            return Ok(());
        }
        let work = session::Work {
            repository,
            spare,
            options: self.options,
            damaged: &damaged,
            progress: self.progress,
            cancel: self.cancel,
        };
        let losses = work.run(report)?;
        for (id, why) in &damaged {
            let (severity, meaning) = match losses.packs.contains(id) {
                true => (
                    Severity::Loss,
                    "something that snapshots need is nowhere else; put it back from a copy of the storage if there is one",
                ),
                false => (
                    Severity::Note,
                    "nothing that snapshots need is in it alone; the next prune takes it away",
                ),
            };
            let name = Name::Pack(*id).to_string();
            report
                .findings
                .push(finding(severity, &name, &format!("{why}; {meaning}")));
        }
        report.torn = losses.torn.len() as u64;
        if self.options.apply && self.options.cuts_lost {
            match self.overlay.from.is_some() && spare.is_none() {
                true => self.progress.warning("the other copy may have what is lost, and was not looked at: nothing is cut out; run it again when it opens, or without --from"),
                false => self.cut(repository, &losses.torn, report)?,
            }
        }
        report.lost = losses.count;
        report.losses = losses.told;
        Ok(())
    }

    /// Puts what is left of them in the place of snapshots of whose trees nodes are lost.
    fn cut(
        &self,
        repository: &Arc<Repository>,
        torn: &BTreeSet<SessionId>,
        report: &mut RepairReport,
    ) -> Result<()> {
        for id in torn {
            self.cancel.check()?;
            let author = &self.options.author;
            match cut_out(repository, id, author, self.progress, self.cancel) {
                Ok(None) => {}
                Ok(Some(cut)) => {
                    report.torn -= 1;
                    report.cut += 1;
                    report.cuts.push(cut);
                }
                // The others are not to keep what this one has to.
                Err(
                    error @ (EngineError::Damaged { .. }
                    | EngineError::Format(_)
                    | EngineError::NotFound(_)
                    | EngineError::Request(_)),
                ) => {
                    let name = id.snapshot_name();
                    self.progress
                        .warning(&format!("snapshot {name} stays as it is: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

pub(super) fn finding(severity: Severity, object: &str, problem: &str) -> Finding {
    Finding {
        severity,
        object: object.to_owned(),
        problem: problem.to_owned(),
        snapshots: Vec::new(),
        paths: Vec::new(),
    }
}

/// A repair that left something in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PastRepair {
    /// Its id.
    pub repair: String,
    /// When it was made, in seconds since 1970.
    pub time: i64,
    /// The host that made it.
    pub host: String,
    /// The objects that it was to change.
    pub objects: Vec<String>,
}

/// Lists the repairs that can be undone, the oldest first. No key is needed.
///
/// # Errors
/// What the storage answers; a record that does not open is warned of and passed over.
pub fn past_repairs(storage: &dyn Storage, progress: &dyn Progress) -> Result<Vec<PastRepair>> {
    let mut repairs: BTreeMap<RepairId, PastRepair> = BTreeMap::new();
    for (id, number) in quarantine::list(storage)? {
        let undo = match quarantine::read_record(storage, &id, number) {
            Ok(undo) => undo,
            Err(error @ EngineError::Damaged { .. }) => {
                progress.warning(&error.to_string());
                continue;
            }
            Err(error) => return Err(error),
        };
        let repair = repairs.entry(id).or_insert_with(|| PastRepair {
            repair: id.to_hex(),
            time: undo.time,
            host: undo.host,
            objects: Vec::new(),
        });
        let names = undo.changes.into_iter().map(|change| change.name);
        repair.objects.extend(names);
    }
    let mut repairs: Vec<PastRepair> = repairs.into_values().collect();
    repairs.sort_by_key(|repair| repair.time);
    Ok(repairs)
}

/// What undoing a repair did, or would do.
#[derive(Debug, Clone, Serialize)]
pub struct UndoReport {
    /// Whether nothing was touched.
    pub dry_run: bool,
    /// The repair that was undone.
    pub undone: String,
    /// The id of this change, by which it can be undone in turn; none for a dry run.
    pub repair: Option<String>,
    /// Objects that are now as they were before the repair, or would be.
    pub objects: u64,
}

/// Puts the objects that a repair changed back as they were. No key is needed.
///
/// What somebody changed since stays. What is replaced is put aside in turn. A dry run says how many
/// objects that would be, and changes none.
///
/// # Errors
/// `Request` for what is no id; `NotFound` if there is no such repair; `Damaged` if what was put aside is
/// not what it was; `Interrupted`, or what the storage answers.
pub fn undo(
    storage: &dyn Storage,
    id: &str,
    author: &Author,
    dry_run: bool,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<UndoReport> {
    let Some(id) = RepairId::from_hex(id) else {
        return Err(EngineError::Request(format!(
            "'{id}' is no id of a repair; it has 32 hex digits, and `larder repair --list` names those that can be undone"
        )));
    };
    if dry_run {
        return Ok(UndoReport {
            dry_run,
            undone: id.to_hex(),
            repair: None,
            objects: quarantine::would_undo(storage, &id)?.len() as u64,
        });
    }
    let mut keeper = Keeper::new(storage, &author.host, progress, cancel)?;
    let objects = quarantine::undo(storage, &id, &mut keeper)?;
    Ok(UndoReport {
        dry_run,
        undone: id.to_hex(),
        repair: Some(keeper.id.to_hex()),
        objects,
    })
}
