//! Prune: removing what nothing needs any more, while others write (SPEC.md §12).
//!
//! A run first ends what an earlier one began, then plans, condemns in a round, and ends that round as
//! far as open sessions allow. Whatever dies when, the next run by anybody finds its way from what
//! is in the storage.

mod delete;
mod facts;
mod inventory;
pub mod plan;
mod repack;
mod room;
mod round;
mod survey;
mod suspects;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use larder_format::config::RACY_CREATES;
use larder_format::ids::{ChunkId, ObjectId, SessionId};
use larder_format::names;
use serde::Serialize;

use crate::cancel::Cancel;
use crate::collection;
use crate::error::{EngineError, Result};
use crate::mark::{Needed, mark};
use crate::openers;
use crate::progress::Progress;
use crate::protocol::{Newest, Rule, keeps};
use crate::repository::{KNOWN_FEATURES, Repository, Writing};
use crate::session::Author;
use crate::snapshots::rfc3339;
use crate::storage::CreateExclusive;
use crate::storage::thaw::Thaw;
use crate::thaw::{self, Need};
use crate::view;
use facts::Facts;
use plan::{Limits, Plan};
use round::Ended;
use survey::{Found, survey};
pub use suspects::record_suspects;

/// Times that a run starts over because other collectors were faster or packs turned out damaged.
const ATTEMPTS_MAX: usize = 16;
/// Age from which the remains of an unfinished write are those of a writer that died.
const REMAINS_AGE: Duration = Duration::from_hours(24);

/// How a prune is done.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// What may stay unused and how much is repacked for it.
    pub limits: Limits,
    /// Time after which no further pack is repacked.
    pub max_duration: Option<Duration>,
    /// Whether to wait for open sessions, until they end or have had their time.
    pub wait: bool,
    /// Time that an open session is given before it is revoked.
    pub patience: Duration,
    /// Says what would be done and touches nothing.
    pub dry_run: bool,
    /// Prunes although things are gone that this machine saw, and forgets that it saw them.
    pub accept_rollback: bool,
    /// In a dry run, takes these snapshots to be forgotten as well.
    pub assume_forgotten: BTreeSet<SessionId>,
    /// Prunes although the storage cannot decide which of two writers was first.
    pub accept_racy_creates: bool,
    /// Has packs brought back that are to be repacked and lie in cold storage, and waits for them; without it they
    /// stay as they are.
    pub thaw: Option<Thaw>,
    /// Who prunes.
    pub author: Author,
}

/// What a prune did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PruneReport {
    /// What was planned, the last time if it was planned several times.
    pub plan: Plan,
    /// Whether nothing was touched.
    pub dry_run: bool,
    /// The round that was made.
    pub round: Option<u64>,
    /// The round that could not be ended yet, and why.
    pub waiting: Option<Waiting>,
    /// Packs that were deleted.
    pub packs_deleted: u64,
    /// Their bytes.
    pub bytes_deleted: u64,
    /// Packs whose needed chunks were written anew.
    pub packs_repacked: u64,
    /// Their bytes.
    pub bytes_repacked: u64,
    /// Bytes that were written for it.
    pub bytes_written: u64,
    /// Packs that were to go and stay, since something needs them again.
    pub packs_rescued: u64,
    /// Segments that were deleted.
    pub segments_deleted: u64,
    /// Parity objects that served no more and were deleted.
    pub parity_deleted: u64,
    /// Packs that have no parity that serves, where packs were deleted and writers give parity.
    pub packs_without_parity: Option<u64>,
    /// Other records that were deleted: snapshots, sessions, rounds.
    pub records_deleted: u64,
    /// Sessions that were ended.
    pub sessions_revoked: u64,
    /// Remains of unfinished writes that were removed.
    pub remains_deleted: u64,
    /// What a person should know.
    pub warnings: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

/// A round that waits for sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// Its number.
    pub round: u64,
    /// The sessions.
    pub sessions: Vec<WaitingSession>,
}

/// A session that a round waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WaitingSession {
    /// Its id, as people name snapshots.
    pub session: String,
    /// The host that it runs on.
    pub host: String,
    /// The user that it runs as.
    pub user: String,
    /// When it started.
    #[serde(serialize_with = "rfc3339")]
    pub since: Timestamp,
    /// When it has had its time: a prune takes it to be dead from then on.
    #[serde(serialize_with = "rfc3339")]
    pub until: Timestamp,
}

/// Removes what nothing needs any more, or says what it would remove.
///
/// # Errors
/// `Unsupported` if the repository holds what this version does not know; `Request` if the storage
/// cannot create exclusively and that was not accepted; `Damaged` if something needed cannot be
/// read or found: nothing is deleted then; or what the storage answers.
pub fn prune(
    repository: &Arc<Repository>,
    options: &PruneOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<PruneReport> {
    refuse(repository, options)?;
    if options.accept_rollback {
        repository.memory().forget();
    }
    let _writing = Writing::start(repository);
    let mut run = Run::new(repository, options, progress, cancel);
    let outcome = run.attempts();
    // New packs that no round names count for nothing.
    repository.index().drop_pending()?;
    outcome?;
    if run.has_changed() && !run.room.restore(repository, run.has_reserve)? {
        run.warn("there is no room for the reserve that lets a full storage be pruned; free some");
    }
    run.sweep();
    run.report.seconds = run.started.elapsed().as_secs_f64();
    Ok(run.report)
}

/// Refuses what cannot be pruned safely.
fn refuse(repository: &Repository, options: &PruneOptions) -> Result<()> {
    let unsupported = |why: String| EngineError::Unsupported {
        location: repository.location().to_owned(),
        why,
    };
    if !options.dry_run {
        repository.check_write()?;
    }
    // The newest one: others may have been at work since the repository was opened.
    let config = openers::newest(repository.storage(), repository.keyring(), false)?;
    config
        .check_collect(KNOWN_FEATURES)
        .map_err(|error| unsupported(error.to_string()))?;
    let is_racy = repository.storage().capabilities().create_exclusive == CreateExclusive::None
        || config
            .collect_features
            .iter()
            .any(|name| name == RACY_CREATES);
    if is_racy && !options.accept_racy_creates && !options.dry_run {
        return Err(EngineError::Request(format!(
            "{} cannot decide which of two writers was first, so a prune beside a running backup, or beside another prune, may lose data; see to it that nothing else runs and give --accept-racy-creates",
            repository.location()
        )));
    }
    Ok(())
}

/// Says what can be done about trees that cannot be read.
fn unmarked(error: EngineError) -> EngineError {
    match error {
        EngineError::Damaged { object, why } => EngineError::Damaged {
            object,
            why: format!(
                "{why}; nothing is pruned while what is below it is not known: back the source up again, or forget the snapshots that `larder check` names"
            ),
        },
        other => other,
    }
}

/// Roots of trees, with their levels.
type Roots = BTreeSet<(ChunkId, u8)>;

/// One run over one repository.
struct Run<'a> {
    repository: &'a Arc<Repository>,
    options: &'a PruneOptions,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
    started: Instant,
    room: room::Room,
    /// What was marked last, by the roots of the trees: the same roots need the same.
    marks: Option<(Roots, Arc<Needed>)>,
    /// Packs that turned out damaged.
    suspects: BTreeSet<ObjectId>,
    /// Packs that an earlier run took to be damaged and that this one read whole.
    sound: BTreeSet<ObjectId>,
    may_repack: bool,
    has_told_damage: bool,
    /// Sessions that were listed before the round, where a test leaves the rule out.
    listed_early: Option<Vec<facts::Open>>,
    has_reserve: bool,
    /// The newest state and round, as this run read or made them last.
    seen: Option<Newest>,
    report: PruneReport,
}

impl<'a> Run<'a> {
    fn new(
        repository: &'a Arc<Repository>,
        options: &'a PruneOptions,
        progress: &'a dyn Progress,
        cancel: &'a Cancel,
    ) -> Self {
        Self {
            repository,
            options,
            progress,
            cancel,
            started: Instant::now(),
            room: room::Room::default(),
            marks: None,
            suspects: BTreeSet::new(),
            sound: BTreeSet::new(),
            may_repack: true,
            has_told_damage: false,
            listed_early: None,
            has_reserve: true,
            seen: None,
            report: PruneReport {
                dry_run: options.dry_run,
                ..PruneReport::default()
            },
        }
    }
}

impl Run<'_> {
    fn attempts(&mut self) -> Result<()> {
        for _ in 0..ATTEMPTS_MAX {
            self.cancel.check()?;
            self.repository.index().drop_pending()?;
            match self.attempt() {
                Ok(Ended::Done) => return Ok(()),
                Ok(Ended::Waiting(waiting)) => {
                    self.report.waiting = Some(waiting);
                    return Ok(());
                }
                Ok(Ended::Again) => {}
                // What is missing may have gone with another collector's work, as what this one
                // wrote for a round that somebody else's forestalled.
                Err(error @ EngineError::Damaged { .. }) => {
                    let listed = collection::list(self.repository)?;
                    if collection::newest(&listed) == self.seen {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(EngineError::Request(format!(
            "others pruned this repository at the same time and were faster {ATTEMPTS_MAX} times; run prune again when they are done"
        )))
    }

    fn attempt(&mut self) -> Result<Ended> {
        if !self.options.dry_run && self.read()?.collection().round.is_some() {
            match round::end(self)? {
                Ended::Done => {}
                other => return Ok(other),
            }
        }
        let Some((facts, found)) = self.look()? else {
            return Ok(Ended::Again);
        };
        if !self.options.dry_run {
            delete::delete(self, &facts, &found)?;
        }
        let mut survey = found.survey(self.repository, &facts)?;
        let suspects = &facts.collection().state.suspects;
        survey.sound_suspects = suspects.intersection(&self.sound).count() as u64;
        survey.new_suspects = self.suspects.difference(suspects).count() as u64;
        self.report.plan = plan::plan(&survey, &self.options.limits);
        if !self.may_repack {
            self.report.plan.leave_repacking_out();
        }
        self.look_at_cold()?;
        if self.options.dry_run || self.report.plan.is_empty() {
            return Ok(Ended::Done);
        }
        let plan = self.report.plan.clone();
        let marks = self.mark(&facts)?;
        match round::make(self, &facts, &found, &marks, &plan)? {
            Ended::Done => {}
            other => return Ok(other),
        }
        drop(found);
        match round::end(self)? {
            Ended::Done => {}
            other => return Ok(other),
        }
        let Some((facts, found)) = self.look()? else {
            return Ok(Ended::Again);
        };
        delete::delete(self, &facts, &found)?;
        Ok(Ended::Done)
    }

    /// Takes packs out of the plan that would have to be read and lie in cold storage, or has them brought back
    /// if that was asked for.
    fn look_at_cold(&mut self) -> Result<()> {
        let repack = &self.report.plan.repack;
        if repack.is_empty() || !self.repository.storage().capabilities().thaws {
            return Ok(());
        }
        let needs: Vec<Need> = repack
            .iter()
            .map(|pack| Need {
                pack: pack.id,
                ranges: 1,
                bytes: pack.bytes,
            })
            .collect();
        let (progress, cancel) = (self.progress, self.cancel);
        let plan = thaw::plan(self.repository, &needs, &mut |_| Ok(()), progress, cancel)?;
        if plan.is_readable() {
            return Ok(());
        }
        match &self.options.thaw {
            Some(how) if !self.options.dry_run => {
                thaw::thaw(self.repository, plan, how, progress, cancel)
            }
            // A dry run says what has to be brought back, and asks for nothing.
            _ => {
                let cold: BTreeSet<ObjectId> = plan.unreadable().collect();
                // A round that is made without saving it could not be ended.
                let is_to_be_saved = |pack: &&plan::PlannedPack| {
                    pack.why == plan::Why::NeededAgain && cold.contains(&pack.id)
                };
                let saved = self.report.plan.repack.iter().find(is_to_be_saved);
                if let Some(pack) = saved.filter(|_| !self.options.dry_run) {
                    return Err(EngineError::Request(format!(
                        "{} was to be deleted, is needed again and lies in cold storage: run the prune with --thaw",
                        names::pack(&pack.id)
                    )));
                }
                self.report.plan.leave_cold_out(&cold);
                Ok(())
            }
        }
    }

    /// Reads, marks and surveys; nothing if another collector came between.
    fn look(&mut self) -> Result<Option<(Facts, Found)>> {
        let facts = self.read()?;
        self.read_suspects(&facts)?;
        let marks = self.mark(&facts)?;
        let found = survey(self.repository, &facts, &marks, &self.suspects)?;
        if keeps(Rule::LookBeforeDelete) {
            let listed = collection::list(self.repository)?;
            if collection::newest(&listed) != self.seen {
                return Ok(None);
            }
        }
        self.has_reserve = found.inventory.has_reserve;
        self.suspects.extend(&found.inventory.damaged);
        let packs = &found.inventory.packs;
        let is_there = |pack: &ObjectId| packs.find(pack).is_some_and(|row| row.doubt().is_some());
        // Of some nodes that were marked another place had to be read.
        self.suspects
            .extend(self.repository.avoided().into_iter().filter(is_there));
        self.tell_damage(&facts, &found);
        Ok(Some((facts, found)))
    }

    /// Says once what is damaged, and what snapshots lost by it.
    fn tell_damage(&mut self, facts: &Facts, found: &Found) {
        let damaged = self.suspects.len();
        let Some(first) = self.suspects.first().map(names::pack) else {
            return;
        };
        if std::mem::replace(&mut self.has_told_damage, true) {
            return;
        }
        let what = match damaged {
            1 => format!("{first} is missing or damaged"),
            _ => format!("{damaged} packs are missing or damaged, e.g. {first}"),
        };
        let lost = match (found.lost, found.lost_one) {
            (0, _) | (_, None) => "no backup builds on it any more".to_owned(),
            (lost, Some(one)) => format!(
                "{lost} chunks are in no other pack (needed by {})",
                survey::needed_by(self.repository, facts, &one)
            ),
        };
        self.warn(&format!(
            "{what}: {lost}; back the sources up again, and see what `larder check` says"
        ));
    }

    /// Reads the packs that the newest state suspects: a fault of the storage may have passed.
    fn read_suspects(&mut self, facts: &Facts) -> Result<()> {
        for pack in &facts.collection().state.suspects {
            if self.suspects.contains(pack) || self.sound.contains(pack) {
                continue;
            }
            self.cancel.check()?;
            match repack::read_pack(self.repository, pack) {
                Ok(_) => self.sound.insert(*pack),
                Err(EngineError::Damaged { .. }) => self.suspects.insert(*pack),
                // Until it was read, it stays what it was taken for.
                Err(error) if error.is_cold() => self.suspects.insert(*pack),
                Err(error) => return Err(error),
            };
        }
        Ok(())
    }

    fn read(&mut self) -> Result<Facts> {
        let mut facts = Facts::read(self.repository)?;
        let lost = &facts.view.lost;
        if !lost.is_empty() && self.options.dry_run {
            if self.report.warnings.is_empty() {
                self.warn(&format!("{}; a prune will refuse", view::loss(lost)));
            }
        } else if !lost.is_empty() {
            return Err(EngineError::Request(format!(
                "{}; nothing is pruned: put them back from a copy of the storage, or give --accept-rollback if the repository was put back on purpose",
                view::loss(lost)
            )));
        }
        if self.options.dry_run {
            facts.assume_forgotten(&self.options.assume_forgotten);
        }
        self.seen = Some(facts.newest());
        Ok(facts)
    }

    fn mark(&mut self, facts: &Facts) -> Result<Arc<Needed>> {
        let cells = facts.roots();
        let sources = cells.iter().flat_map(|cell| &cell.sources);
        let roots: Roots = sources.map(|source| (source.root, source.level)).collect();
        if let Some((marked, marks)) = &self.marks
            && *marked == roots
        {
            return Ok(Arc::clone(marks));
        }
        let marks = mark(self.repository, &cells, self.progress, self.cancel);
        let marks = Arc::new(marks.map_err(unmarked)?);
        self.marks = Some((roots, Arc::clone(&marks)));
        Ok(marks)
    }

    /// Tells whether this run wrote or deleted anything.
    fn has_changed(&self) -> bool {
        let report = &self.report;
        report.round.is_some()
            || report.packs_deleted + report.segments_deleted + report.records_deleted > 0
            || self.room.is_freed()
    }

    /// Removes remains of writers that died; a storage that refuses that is no reason to fail.
    fn sweep(&mut self) {
        if self.options.dry_run {
            return;
        }
        match self.repository.storage().sweep(REMAINS_AGE) {
            Ok(swept) => self.report.remains_deleted = swept,
            Err(error) => self.warn(&format!("remains of killed writers stay: {error}")),
        }
    }

    fn warn(&mut self, text: &str) {
        self.progress.warning(text);
        self.report.warnings.push(text.to_owned());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
pub(crate) mod tests;
