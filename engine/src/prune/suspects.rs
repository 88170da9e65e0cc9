//! Making damaged packs known: a round that condemns nothing, and so takes nothing from anybody.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use larder_format::collector::Round;
use larder_format::ids::ObjectId;

use super::plan::{Limits, MaxUnused};
use super::room::Created;
use super::round::{self, Ended};
use super::{ATTEMPTS_MAX, PruneOptions, Run, refuse};
use crate::cancel::Cancel;
use crate::collection;
use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::protocol::{self, Rule};
use crate::repository::{Repository, Writing};
use crate::session::{self, Author};

/// Records packs as suspect, unless they are known already; gives how many were not.
///
/// Nobody is waited for and no session is ended: where backups are running the round stays for
/// the next prune to end, and its suspects count meanwhile.
///
/// # Errors
/// `Request` if a prune was begun and not ended, or the storage cannot create exclusively;
/// `Unsupported`, `Damaged`, or what the storage answers, for instance that it takes no writes.
pub fn record_suspects(
    repository: &Arc<Repository>,
    packs: &BTreeSet<ObjectId>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<u64> {
    let options = PruneOptions {
        limits: Limits {
            max_unused: MaxUnused::Unlimited,
            max_repack_bytes: None,
        },
        max_duration: None,
        wait: false,
        patience: Duration::MAX,
        dry_run: false,
        accept_rollback: false,
        assume_forgotten: BTreeSet::new(),
        accept_racy_creates: false,
        thaw: None,
        author: Author::of_this_process(),
    };
    refuse(repository, &options)?;
    let _writing = Writing::start(repository);
    let mut run = Run::new(repository, &options, progress, cancel);
    let outcome = record(&mut run, packs);
    if run.has_changed() {
        run.room.restore(repository, true)?;
    }
    outcome
}

fn record(run: &mut Run<'_>, packs: &BTreeSet<ObjectId>) -> Result<u64> {
    for _ in 0..ATTEMPTS_MAX {
        run.cancel.check()?;
        let collection = collection::read(run.repository, None)?;
        let new: BTreeSet<ObjectId> = packs
            .difference(&collection.unusable_packs())
            .copied()
            .collect();
        if new.is_empty() {
            return Ok(0);
        }
        if let Some(round) = &collection.round {
            end_before(run, protocol::must_mark_again(round))?;
            continue;
        }
        let round = Round {
            number: collection.newest() + 1,
            condemned_packs: Vec::new(),
            replaced_segments: Vec::new(),
            new_segments: Vec::new(),
            suspect_packs: collection.state.suspects.union(&new).copied().collect(),
            time: session::now_ns(),
            host: run.options.author.host.clone(),
        };
        if run.room.create(run.repository, &round, Rule::CreateRound)? == Created::Lost {
            continue;
        }
        run.report.round = Some(round.number);
        if let Err(error) = round::end(run) {
            tracing::debug!("the next prune will end round {}: {error}", round.number);
        }
        return Ok(new.len() as u64);
    }
    Err(EngineError::Request(
        "prunes elsewhere were faster however often it was tried".to_owned(),
    ))
}

/// Ends the round that is in the way, if that takes nothing from anybody.
fn end_before(run: &mut Run<'_>, condemns: bool) -> Result<()> {
    if condemns {
        return Err(EngineError::Request(
            "a prune was begun and is not ended yet; run `larder prune`, and check again"
                .to_owned(),
        ));
    }
    match round::end(run)? {
        Ended::Done | Ended::Again => Ok(()),
        Ended::Waiting(_) => Err(EngineError::Request(
            "backups are running since other damage was recorded; check again when they have ended"
                .to_owned(),
        )),
    }
}
