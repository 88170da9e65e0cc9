//! Check: is everything there, and is it right?
//!
//! Four levels. *Quick* (`quick.rs`) compares what the storage lists with what the index says of
//! its packs, and reads what opens the repository. *Structure* reads every object but the packs, and of the packs the nodes of trees
//! and lists, each shared one once; of all other pack bytes it knows no more than the listing:
//! that the pack is there and has its size. *Data* also reads the chosen packs whole and opens
//! everything in them. So what is altered inside a pack of the right size, its directory
//! included, is found for certain at the level of data only. The *restore drill* (`drill.rs`) reads a random
//! sample of paths as a restore would. What each costs is told beforehand by `cost.rs`.
//!
//! What cannot be found at all: the latest amendment of a snapshot taken away, an object that
//! nothing names taken away, and two key slots without twins exchanged neither of which opened the repository.

mod context;
mod cost;
mod drill;
mod due;
mod findings;
mod healing;
mod listing;
mod nodes;
mod opened;
mod openers;
mod packs;
mod quick;
mod records;
#[cfg(test)]
mod tests;
mod verify;
mod walk;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use larder_format::ids::ObjectId;
use larder_format::limits::PARITY_BYTES;
use larder_format::names::{self, Name};
use larder_format::verify::verify;

use crate::cancel::Cancel;
use crate::collection;
use crate::error::{EngineError, Result};
use crate::index::PackKind;
use crate::ledger::Verified;
use crate::parity::{self, Coverage};
use crate::progress::Progress;
use crate::protocol::Newest;
use crate::prune::record_suspects;
use crate::random;
use crate::repository::Repository;
use crate::thaw::Need;
use crate::view;
use context::Context;
pub(crate) use context::{Outcome, Problem, attempt};
pub use cost::{Cost, Costs, costs};
pub use drill::{DrillOptions, Drilled, SAMPLE_MAX};
pub use due::Due;
use findings::Damage;
pub use healing::{Healing, healing};
use listing::Listing;

/// Times that all is checked because a prune changed the repository meanwhile.
const CHECKS_MAX: usize = 3;

/// How much of the packs' bytes is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ReadData {
    /// None: the structure alone.
    No,
    /// All of it.
    All,
    /// A random share, in percent.
    Percent(f64),
    /// The Nth of M parts, from 1, by pack name.
    Part(u64, u64),
    /// What was verified longest ago by the ledger, as much as a budget allows.
    Due(Due),
}

/// How a check is made.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// How much of the packs' bytes is read.
    pub read_data: ReadData,
    /// Records damaged packs as suspect, so that no backup builds on them, and in the ledger what was
    /// verified; a check changes nothing otherwise.
    pub records_suspects: bool,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing is wrong with any snapshot and nothing needs mending.
    Note,
    /// Damage that costs no data: a copy or another object still holds it.
    Harmless,
    /// Damage that costs data.
    Loss,
}

/// One thing that check found.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The object, by its name in the storage.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
    /// Ids of the snapshots that suffer.
    pub snapshots: Vec<String>,
    /// Paths that suffer, at most 1,000 per finding (lossy where they are not UTF-8).
    pub paths: Vec<String>,
}

/// What a check saw.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct CheckReport {
    /// What was found, worst first.
    pub findings: Vec<Finding>,
    /// Names of what a repair mends by itself: damaged and missing packs, from parity, if the other packs of their groups are
    /// sound; configs, key slots and their twins, from each other.
    #[serde(skip)]
    pub healable: BTreeSet<String>,
    /// Snapshots whose structure was walked.
    pub snapshots: u64,
    /// Tree and list nodes, each counted once.
    pub nodes: u64,
    /// Chunks that are referred to.
    pub chunks: u64,
    /// Packs in the index.
    pub packs: u64,
    /// Packs whose bytes were all read, opened and hashed.
    pub packs_read: u64,
    /// Packs that were to be read, lie in cold storage, and were not.
    pub cold_packs: u64,
    /// Their bytes.
    pub cold_bytes: u64,
    /// Bytes read from the storage.
    pub bytes_read: u64,
    /// Damaged packs that were recorded as suspect.
    pub new_suspects: u64,
    /// Why damaged packs could not be recorded as suspect.
    pub not_recorded: Option<String>,
    /// What a restore drill read.
    pub drilled: Option<Drilled>,
    /// What share of the packs was verified lately, this check included; none where that was not looked at.
    pub verified: Option<Verified>,
    /// Why what was verified could not be written into the ledger.
    pub ledger_not_recorded: Option<String>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// Checks the repository.
///
/// Damage never ends it early: whatever can still be checked is. Damaged packs are recorded as suspect
/// where that is asked for; a repository that cannot be written to is checked all the same.
///
/// # Errors
/// `Request` for an impossible share of data, or if prunes took things away however often it looked;
/// `Interrupted`, and what else keeps the check itself from being made, e.g. a storage that does not
/// answer; damage is in the report.
pub fn check(
    repository: &Arc<Repository>,
    options: &CheckOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<CheckReport> {
    options.read_data.check()?;
    let once = || check_once(repository, options, progress, cancel);
    let records = options.records_suspects;
    settled(repository, records, progress, cancel, &once)
}

/// Compares what the storage lists with what the index says of its packs; reads none of them.
///
/// # Errors
/// As [`check`].
pub fn quick(
    repository: &Arc<Repository>,
    records_suspects: bool,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<CheckReport> {
    let once = || quick::check_once(&Context::new(repository, progress, cancel));
    settled(repository, records_suspects, progress, cancel, &once)
}

/// Restores a random sample of paths to nowhere, and compares what is read with its ids.
///
/// # Errors
/// As [`check`]; `Request` if no snapshot has a source at, below or above the one to compare with.
pub fn drill(
    repository: &Arc<Repository>,
    options: &DrillOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<CheckReport> {
    let once = || drill::check_once(&Context::new(repository, progress, cancel), options);
    let records = options.records_suspects;
    settled(repository, records, progress, cancel, &once)
}

/// Gives the data packs that a check with this share of the data would read, and reads none.
///
/// # Errors
/// `Request` for a share that is chosen only as the check goes; what the storage answers.
pub fn needs(repository: &Arc<Repository>, read_data: ReadData) -> Result<Vec<Need>> {
    read_data.check()?;
    if !matches!(read_data, ReadData::All | ReadData::Part(..)) {
        return Err(EngineError::Request(
            "which packs are read is decided only as the check goes; to bring packs back before, give --read-data or --read-data=N/M"
                .to_owned(),
        ));
    }
    let view = view::read(repository, true, None)?;
    let deleted = &view.collection.state.deleted;
    let mut needs = Vec::new();
    repository.index().packs(&mut |pack| {
        let is_read = pack.kind == PackKind::Data
            && !deleted.contains(&pack.id)
            && read_data.chooses(&pack.id).unwrap_or(false);
        if is_read {
            needs.push(Need {
                pack: pack.id,
                ranges: 1,
                bytes: pack.size,
            });
        }
        ControlFlow::Continue(())
    })?;
    Ok(needs)
}

/// What came of checking once.
struct Checked {
    report: CheckReport,
    /// Which collector records counted, unless they cannot be read.
    seen: Option<Newest>,
    /// Packs that are missing or damaged.
    damaged: BTreeSet<ObjectId>,
}

/// Checks until no prune came between, and records what is damaged if that is wanted.
fn settled(
    repository: &Arc<Repository>,
    records_suspects: bool,
    progress: &dyn Progress,
    cancel: &Cancel,
    once: &dyn Fn() -> Result<Checked>,
) -> Result<CheckReport> {
    let clock = Instant::now();
    let mut checks = 1;
    loop {
        let Checked {
            mut report,
            seen,
            damaged,
        } = once()?;
        let is_sound = report
            .findings
            .iter()
            .all(|one| one.severity == Severity::Note);
        // A prune takes away what was listed; what is missing then is looked for anew.
        let listed = || collection::list(repository).or_else(|_| collection::list(repository));
        if is_sound || seen.is_none() || collection::newest(&listed()?) == seen {
            if records_suspects && !damaged.is_empty() {
                match record_suspects(repository, &damaged, progress, cancel) {
                    Ok(new) => report.new_suspects = new,
                    Err(EngineError::Interrupted) => return Err(EngineError::Interrupted),
                    Err(error) => report.not_recorded = Some(error.to_string()),
                }
            }
            report.seconds = clock.elapsed().as_secs_f64();
            return Ok(report);
        }
        if checks == CHECKS_MAX {
            return Err(EngineError::Request(format!(
                "prunes elsewhere took away what this check was looking at, {CHECKS_MAX} times, so it cannot tell what is missing; run it again when they have ended"
            )));
        }
        checks += 1;
    }
}

/// Checks structure, and the packs that are chosen, once.
fn check_once(
    repository: &Arc<Repository>,
    options: &CheckOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Checked> {
    let context = Context::new(repository, progress, cancel);
    let mut damage = Damage::new(repository.cache_dir());
    progress.phase("checking records", None, None);
    let mut listing = Listing::read(&context, &mut damage)?;
    let view = records::check(&context, &listing, &mut damage)?;
    let packs = packs::check(&context, &mut listing, &view, options, &mut damage)?;
    let walked = walk::check(&context, &view, &packs.opened, &mut damage);
    // What counted for this check alone must not be deduplicated against afterwards.
    repository.index().drop_pending()?;
    let walked = walked?;
    let seen = (!view.lacks_collection).then(|| view.collection.numbers());
    verify_parity(&context, &listing, options.read_data, &mut damage)?;
    let damaged = damage.packs();
    let mut healable = healable(&context, &listing, &damaged)?;
    healable.append(&mut damage.mendable());
    let known = view.collection.suspects().copied().collect();
    let report = CheckReport {
        findings: damage.into_findings(&known),
        healable,
        snapshots: walked.snapshots,
        nodes: walked.nodes,
        chunks: walked.chunks,
        packs: packs.packs,
        packs_read: packs.packs_read,
        cold_packs: packs.cold.0,
        cold_bytes: packs.cold.1,
        bytes_read: context.bytes_read(),
        verified: Some(packs.verified),
        ledger_not_recorded: packs.not_recorded,
        ..CheckReport::default()
    };
    Ok(Checked {
        report,
        seen,
        damaged,
    })
}

/// Verifies the parity objects that are chosen.
fn verify_parity(
    context: &Context<'_>,
    listing: &Listing,
    read_data: ReadData,
    damage: &mut Damage,
) -> Result<()> {
    for id in listing.parity.keys() {
        if !read_data.chooses(id)? {
            continue;
        }
        context.cancel.check()?;
        let name = Name::Parity(*id);
        let read = attempt(|| {
            let object = context.get(&name.to_string(), PARITY_BYTES)?;
            Ok(verify(name, &object)?)
        })?;
        if let Err(Problem::Damaged(why)) = read {
            let problem = format!(
                "{why}; no snapshot needs it, and `larder repair --read-data --apply` makes it anew"
            );
            damage.add(Severity::Harmless, name.to_string(), problem);
        }
    }
    Ok(())
}

/// Gives the names of the damaged packs for which there is enough parity.
fn healable(
    context: &Context<'_>,
    listing: &Listing,
    damaged: &BTreeSet<ObjectId>,
) -> Result<BTreeSet<String>> {
    let mut healable = BTreeSet::new();
    if damaged.is_empty() || listing.parity.is_empty() {
        return Ok(healable);
    }
    let storage = context.repository.storage();
    let coverage = Coverage::read(storage, context.cancel)?;
    for id in coverage.of_any(damaged) {
        if let Some((_, size)) = coverage.groups.get(&id) {
            let packs = parity::assess(storage, (&id, *size), damaged, context.cancel)?;
            healable.extend(packs.iter().map(names::pack));
        }
    }
    Ok(healable)
}

impl ReadData {
    fn check(self) -> Result<()> {
        let is_possible = match self {
            Self::No | Self::All | Self::Due(_) => true,
            Self::Percent(percent) => (0.0..=100.0).contains(&percent),
            Self::Part(part, parts) => part >= 1 && part <= parts,
        };
        if is_possible {
            return Ok(());
        }
        Err(EngineError::Request(
            "the share of data to read must be a percentage from 0 to 100, or N/M with N from 1 to M"
                .to_owned(),
        ))
    }

    /// Tells whether a pack is read whole.
    fn chooses(self, pack: &ObjectId) -> Result<bool> {
        Ok(match self {
            // What is due is chosen once all are known.
            Self::No | Self::Due(_) => false,
            Self::All => true,
            Self::Percent(percent) => {
                let fraction = f64::from(u32::from_le_bytes(random::bytes()?)) / 2_f64.powi(32);
                fraction * 100.0 < percent
            }
            Self::Part(part, parts) => {
                let start = pack.0.first_chunk().copied().unwrap_or_default();
                u64::from_be_bytes(start) % parts == part - 1
            }
        })
    }
}
