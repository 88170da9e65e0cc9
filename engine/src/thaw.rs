//! Packs in cold storage: which of them cannot be read yet, and bringing them back.
//!
//! Whoever reads packs says beforehand which it needs; nothing here reads one. A plan holds 48 bytes for
//! each pack that is needed, and some 80 for each that cannot be read.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use larder_format::ids::ObjectId;
use larder_format::names;
use serde::Serialize;

use crate::at_once;
use crate::cancel::Cancel;
use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::snapshots::rfc3339_option;
use crate::storage::error::ErrorKind;
use crate::storage::thaw::{Readiness, Thaw, Tier, Warmth};

/// Packs that are looked at, or asked for, before the next ones are.
const BATCH: usize = 256;
/// The first pause between two looks at what is on its way.
const FIRST_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 1000 });
/// Packs that are found still on their way at a look before the rest is left for the next one.
const LOOKS_IN_VAIN: usize = 32;
/// Looks in a row at which all that was looked at is cold although it was asked for, before that is an error.
const COLD_LOOKS_MAX: u32 = 32;
/// How often a pause looks whether the process was asked to stop.
const LOOK: Duration = Duration::from_millis(100);

/// What is read of one pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The pack.
    pub pack: ObjectId,
    /// How many ranges of it are read, each by one request.
    pub ranges: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Packs, and their bytes in the storage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sum {
    /// Packs.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What it takes to read some packs.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ThawPlan {
    /// Whether the storage has anything that may have to be brought back.
    pub thaws: bool,
    /// Packs that are read.
    pub packs: u64,
    /// Requests that read them.
    pub read_requests: u64,
    /// Bytes that these read.
    pub read_bytes: u64,
    /// What has to be asked for; each pack takes one request.
    pub cold: Sum,
    /// What was asked for and is on its way.
    pub thawing: Sum,
    /// What was brought back.
    pub thawed: Sum,
    /// When the first of what was brought back is cold again, where the storage says so.
    #[serde(serialize_with = "rfc3339_option")]
    pub thawed_until: Option<Timestamp>,
    /// Packs that are not there; what reads them says so.
    pub missing: u64,
    /// Requests that were made to know all this; none of them read a pack.
    pub look_requests: u64,
    /// What has to be asked for.
    #[serde(skip)]
    asked_for: Vec<Outstanding>,
    /// What is on its way.
    #[serde(skip)]
    on_the_way: Vec<Outstanding>,
}

/// A pack that cannot be read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outstanding {
    pack: ObjectId,
    warmth: Warmth,
}

/// One pack of a plan that cannot be read, or could not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ColdPack {
    /// Its name in the storage.
    pub object: String,
    /// Its bytes there.
    pub bytes: u64,
    /// The requests that read what is needed of it.
    pub read_requests: u64,
    /// The bytes that these read.
    pub read_bytes: u64,
    /// `cold`, `thawing` or `thawed`.
    pub state: &'static str,
}

impl ThawPlan {
    /// Tells whether all can be read now.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.cold.packs + self.thawing.packs == 0
    }

    /// Gives the packs that cannot be read yet.
    pub(crate) fn unreadable(&self) -> impl Iterator<Item = ObjectId> + '_ {
        let all = self.asked_for.iter().chain(&self.on_the_way);
        all.map(|one| one.pack)
    }

    fn add(&mut self, need: &Need, warmth: Option<Warmth>) -> Option<ColdPack> {
        self.packs += 1;
        self.read_requests += need.ranges;
        self.read_bytes = self.read_bytes.saturating_add(need.bytes);
        let Some(warmth) = warmth else {
            self.missing += 1;
            return None;
        };
        let (sum, state) = match warmth.readiness {
            Readiness::Warm => return None,
            Readiness::Cold => (&mut self.cold, "cold"),
            Readiness::Thawing => (&mut self.thawing, "thawing"),
            Readiness::Thawed(_) => (&mut self.thawed, "thawed"),
        };
        sum.packs += 1;
        sum.bytes = sum.bytes.saturating_add(warmth.size_bytes);
        let cold = ColdPack {
            object: names::pack(&need.pack),
            bytes: warmth.size_bytes,
            read_requests: need.ranges,
            read_bytes: need.bytes,
            state,
        };
        let readiness = warmth.readiness;
        let outstanding = Outstanding {
            pack: need.pack,
            warmth,
        };
        match readiness {
            Readiness::Cold => self.asked_for.push(outstanding),
            Readiness::Thawing => self.on_the_way.push(outstanding),
            Readiness::Thawed(until) => {
                self.thawed_until = self.thawed_until.into_iter().chain(until).min();
            }
            Readiness::Warm => {}
        }
        Some(cold)
    }
}

/// Puts what several restores need together.
#[must_use]
pub fn joined(mut needs: Vec<Need>) -> Vec<Need> {
    needs.sort_unstable_by_key(|need| need.pack);
    needs.dedup_by(|next, kept| {
        let is_same = next.pack == kept.pack;
        if is_same {
            kept.ranges += next.ranges;
            kept.bytes = kept.bytes.saturating_add(next.bytes);
        }
        is_same
    });
    needs
}

/// Looks at packs, and gives what it takes to read them; `each` is told of every one that is or was cold.
///
/// No pack is read: each is asked for its head alone, and none where nothing can be cold.
///
/// # Errors
/// What the storage or `each` answers.
pub fn plan(
    repository: &Repository,
    needs: &[Need],
    each: &mut dyn FnMut(&ColdPack) -> Result<()>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<ThawPlan> {
    let storage = repository.storage();
    let mut plan = ThawPlan {
        thaws: storage.capabilities().thaws,
        ..ThawPlan::default()
    };
    if !plan.thaws {
        for need in needs {
            plan.packs += 1;
            plan.read_requests += need.ranges;
            plan.read_bytes = plan.read_bytes.saturating_add(need.bytes);
        }
        return Ok(plan);
    }
    progress.phase("looking at packs", Some(needs.len() as u64), None);
    let look = |need: &Need| match storage.warmth(&names::pack(&need.pack)) {
        Ok(warmth) => Ok(Some(warmth)),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    for batch in needs.chunks(BATCH) {
        cancel.check()?;
        let found = at_once::map(repository.calls_at_once(), batch, look);
        for (need, warmth) in batch.iter().zip(found) {
            plan.look_requests += 1;
            if let Some(cold) = plan.add(need, warmth?) {
                each(&cold)?;
            }
        }
        progress.advance(batch.len() as u64, 0);
    }
    Ok(plan)
}

/// Asks for all that a plan found cold, waits until it and what was asked for before is there, and says
/// meanwhile what is outstanding.
///
/// It may be interrupted at any time and run again, with a new plan: what was asked for stays asked for.
///
/// # Errors
/// `Interrupted`, or what the storage answers.
pub fn thaw(
    repository: &Repository,
    plan: ThawPlan,
    how: &Thaw,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<()> {
    let ThawPlan {
        asked_for,
        on_the_way,
        ..
    } = plan;
    let sum = |all: &[Outstanding]| all.iter().map(|one| one.warmth.size_bytes).sum::<u64>();
    let storage = repository.storage();
    if !asked_for.is_empty() {
        let (packs, bytes) = (asked_for.len() as u64, sum(&asked_for));
        progress.phase("asking for cold packs", Some(packs), Some(bytes));
    }
    let ask = |one: &Outstanding| storage.thaw(&names::pack(&one.pack), &one.warmth, how);
    for batch in asked_for.chunks(BATCH) {
        cancel.check()?;
        let asked = at_once::map(repository.calls_at_once(), batch, ask);
        asked
            .into_iter()
            .collect::<std::result::Result<Vec<()>, _>>()?;
        progress.advance(batch.len() as u64, sum(batch));
    }
    let outstanding: VecDeque<Outstanding> = on_the_way.into_iter().chain(asked_for).collect();
    wait(repository, outstanding, how.tier, progress, cancel)
}

/// Waits until all packs can be read.
fn wait(
    repository: &Repository,
    mut outstanding: VecDeque<Outstanding>,
    tier: Tier,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<()> {
    if outstanding.is_empty() {
        return Ok(());
    }
    let bytes = outstanding.iter().map(|one| one.warmth.size_bytes).sum();
    let packs = outstanding.len() as u64;
    progress.phase("waiting for cold packs", Some(packs), Some(bytes));
    let mut pause = FIRST_PAUSE;
    let mut cold_looks = 0;
    loop {
        let mut in_vain = 0;
        let (mut is_all_cold, before) = (true, outstanding.len());
        // What is not there yet goes to the end, so that the next look begins with the others.
        for _ in 0..outstanding.len() {
            cancel.check()?;
            let Some(one) = outstanding.pop_front() else {
                break;
            };
            let warmth = match repository.storage().warmth(&names::pack(&one.pack)) {
                Ok(warmth) => warmth,
                // A prune may have moved what it held: whoever reads it looks it up again.
                Err(error) if error.kind == ErrorKind::NotFound => Warmth {
                    readiness: Readiness::Warm,
                    ..one.warmth.clone()
                },
                Err(error) => return Err(error.into()),
            };
            if warmth.readiness.is_readable() {
                progress.advance(1, one.warmth.size_bytes);
                continue;
            }
            is_all_cold &= warmth.readiness == Readiness::Cold;
            outstanding.push_back(one);
            in_vain += 1;
            if in_vain == LOOKS_IN_VAIN {
                break;
            }
        }
        if outstanding.is_empty() {
            return Ok(());
        }
        cold_looks = match is_all_cold && outstanding.len() == before {
            true => cold_looks + 1,
            false => 0,
        };
        if cold_looks == COLD_LOOKS_MAX {
            return Err(EngineError::Request(format!(
                "{} packs were asked for and the storage does not bring them back; see whether it can, and run it again",
                outstanding.len()
            )));
        }
        sleep(pause, cancel)?;
        pause = (pause * 2).min(pause_max(tier));
    }
}

/// Gives the longest pause between two looks; so a wait of two days makes some thousand requests.
fn pause_max(tier: Tier) -> Duration {
    Duration::from_secs(match tier {
        Tier::Expedited => 15,
        Tier::Standard => 120,
        Tier::Bulk => 600,
    })
}

/// Waits, and fails once a stop was asked for.
///
/// # Errors
/// `Interrupted`, then.
pub fn sleep(pause: Duration, cancel: &Cancel) -> Result<()> {
    let until = Instant::now() + pause;
    loop {
        cancel.check()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(LOOK));
    }
}

/// Gives the pauses between looks at what is on its way to be read by a backup.
pub fn pauses(tier: Tier) -> impl Iterator<Item = Duration> {
    let most = pause_max(tier);
    std::iter::successors(Some(FIRST_PAUSE), move |pause| Some((*pause * 2).min(most)))
}

#[cfg(test)]
mod tests;
