//! `larder prune`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use jiff::tz::TimeZone;
use larder_engine::prune::plan::{Limits, MaxUnused, Plan, PlannedPack};
use larder_engine::prune::{PruneOptions, PruneReport, Waiting, prune};
use larder_engine::repository::Repository;

use crate::context::Context;
use crate::exit::Exit;
use crate::thaw::ThawArgs;
use crate::{output, person, render, times};

/// Seconds that a backup may write no checkpoint before it is taken to be dead.
const PATIENCE_SECONDS: u64 = 3600;

/// Free the space that no snapshot needs any more
///
/// Packs in which nothing is needed are deleted; of others the needed part is copied until little
/// enough is unused. Backups may run meanwhile: what one that was running may still need is kept
/// until it has ended, which may be the work of the next prune. An interrupted prune leaves a
/// consistent repository, and the next one goes on.
///
/// Examples: larder prune --dry-run
///           larder prune --max-unused 10% --max-repack-size 20G
///           larder prune --wait
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct PruneArgs {
    /// Say what would be freed, and touch nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    tuning: TuningArgs,
}

/// How much is freed, and at what cost.
#[derive(Debug, Clone, Default, Args)]
pub struct TuningArgs {
    /// Let so much stay unused: a share like 5%, a size, or `unlimited`, which copies nothing [default: 5%]
    #[arg(long, value_name = "N%|SIZE|unlimited", value_parser = max_unused)]
    max_unused: Option<MaxUnused>,
    /// Copy out of packs of no more than this size in all, the worst first
    #[arg(long, value_name = "SIZE", value_parser = times::bytes)]
    max_repack_size: Option<u64>,
    /// Begin to copy no further pack after this time
    #[arg(long, value_name = "DURATION", value_parser = times::seconds)]
    max_duration: Option<u64>,
    /// Wait for running backups, so that all is done in this run
    #[arg(long)]
    wait: bool,
    /// Take a backup that has written no checkpoint for so long to be dead, and end it [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = times::seconds)]
    patience: Option<u64>,
    /// Prune a repository that was put back to an older state on purpose
    #[arg(long)]
    accept_rollback: bool,
    /// Prune on a storage that cannot decide which of two writers was first; nothing else may run
    #[arg(long)]
    accept_racy_creates: bool,
    #[command(flatten)]
    thaw: ThawArgs,
}

impl TuningArgs {
    /// Tells whether any of it was given.
    #[must_use]
    pub fn is_given(&self) -> bool {
        let numbers = [self.max_repack_size, self.max_duration, self.patience];
        self.max_unused.is_some()
            || numbers.iter().any(Option::is_some)
            || self.wait
            || self.accept_rollback
            || self.accept_racy_creates
            || self.thaw.is_given()
    }

    /// Gives the options as the engine takes them.
    ///
    /// # Errors
    /// When the host has no name.
    pub fn options(&self, context: &Context, dry_run: bool) -> anyhow::Result<PruneOptions> {
        Ok(PruneOptions {
            limits: Limits {
                max_unused: self.max_unused.unwrap_or(MaxUnused::Percent(5.0)),
                max_repack_bytes: self.max_repack_size,
            },
            max_duration: self.max_duration.map(Duration::from_secs),
            wait: self.wait,
            patience: Duration::from_secs(self.patience.unwrap_or(PATIENCE_SECONDS)),
            dry_run,
            assume_forgotten: BTreeSet::new(),
            accept_rollback: self.accept_rollback,
            accept_racy_creates: self.accept_racy_creates,
            thaw: self.thaw.how(),
            author: person::author(context)?,
        })
    }
}

/// Prunes the repository.
///
/// # Errors
/// What the engine answers.
pub fn run(context: &Context, args: &PruneArgs) -> anyhow::Result<Exit> {
    let options = args.tuning.options(context, args.dry_run)?;
    let repository = context.open()?;
    let report = carry_out(context, &repository, &options)?;
    if context.json() {
        output::summary(&report)?;
    } else if context.talks() || args.dry_run {
        output::line(&text(&report, &TimeZone::system()))?;
    }
    Ok(Exit::Success)
}

/// Prunes a repository that is open, with progress.
///
/// # Errors
/// What the engine answers.
pub fn carry_out(
    context: &Context,
    repository: &Arc<Repository>,
    options: &PruneOptions,
) -> anyhow::Result<PruneReport> {
    let reporter = context.reporter();
    let result = prune(repository, options, &reporter, context.cancel());
    reporter.finish();
    Ok(result?)
}

/// Parses how much may stay unused.
fn max_unused(text: &str) -> anyhow::Result<MaxUnused> {
    if text == "unlimited" {
        return Ok(MaxUnused::Unlimited);
    }
    if let Some(percent) = text.strip_suffix('%') {
        let wrong = || format!("'{text}' is not a share; write it like 5%");
        let percent: f64 = percent.trim().parse().ok().with_context(wrong)?;
        if !(0.0..=100.0).contains(&percent) {
            bail!("{text} is not between 0% and 100%");
        }
        return Ok(MaxUnused::Percent(percent));
    }
    times::bytes(text).map(MaxUnused::Bytes)
}

/// Shows the plan, and what became of it.
#[must_use]
pub fn text(report: &PruneReport, zone: &TimeZone) -> String {
    let mut text = match &report.waiting {
        // An earlier run's work has to end first: nothing was planned.
        Some(_) if report.round.is_none() => String::new(),
        _ => plan(&report.plan, report.dry_run),
    };
    if report.dry_run {
        let _ = write!(text, "nothing was changed (dry run)");
        return text;
    }
    let _ = writeln!(
        text,
        "deleted {}, {}, and {} in {}",
        render::counted(report.packs_deleted, "pack", "packs"),
        render::size(report.bytes_deleted),
        render::counted(
            report.records_deleted + report.segments_deleted,
            "record",
            "records"
        ),
        render::duration(report.seconds),
    );
    if let Some(packs @ 1..) = report.packs_without_parity {
        let packs = render::counted(packs, "pack has", "packs have");
        let _ = writeln!(
            text,
            "{packs} no parity that serves; `larder parity build` gives it to them"
        );
    }
    if report.packs_rescued > 0 {
        let packs = render::counted(report.packs_rescued, "pack", "packs");
        let _ = writeln!(text, "kept {packs} that a backup needs again");
    }
    if report.sessions_revoked > 0 {
        let sessions = render::counted(report.sessions_revoked, "backup", "backups");
        let _ = writeln!(text, "ended {sessions} that had stopped");
    }
    if let Some(waiting) = &report.waiting {
        text.push_str(&waits(waiting, zone));
    }
    text.trim_end().to_owned()
}

fn plan(plan: &Plan, is_dry: bool) -> String {
    let mut text = String::new();
    let totals = &plan.totals;
    let of = |packs: &[PlannedPack]| {
        let bytes = packs.iter().map(|pack| pack.bytes).sum();
        format!(
            "{}, {}",
            render::count(packs.len() as u64),
            render::size(bytes)
        )
    };
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<32}{value}");
    };
    let all = format!(
        "{}, {}",
        render::count(totals.packs),
        render::size(totals.bytes)
    );
    line("packs", all);
    line("unused in them", render::size(totals.unused_bytes));
    if is_dry && totals.pending_packs > 0 {
        let (packs, bytes) = (totals.pending_packs, totals.pending_bytes);
        let pending = format!("{}, {}", render::count(packs), render::size(bytes));
        line("to go from an earlier run", pending);
    }
    line("packs without use", of(&plan.delete));
    line("packs of no finished backup", of(&plan.orphans));
    line("packs to copy from", of(&plan.repack));
    if !plan.cold.is_empty() {
        let cold = format!("{}: --thaw copies from them, too", of(&plan.cold));
        line("left in cold storage", cold);
    }
    line(
        "index segments to merge",
        render::count(plan.merge_segments.len() as u64),
    );
    line("snapshots to clear", render::count(plan.clear_snapshots));
    line("freed by this", render::size(totals.freed_bytes));
    let kept = format!(
        "{}, of which {} unused",
        render::size(totals.kept_bytes),
        render::size(totals.unused_after_bytes)
    );
    line("kept", kept);
    text
}

fn waits(waiting: &Waiting, zone: &TimeZone) -> String {
    let mut text = String::from(
        "what was found is marked to go, and is deleted by the next prune once these have ended:\n",
    );
    for session in &waiting.sessions {
        let id = session.session.get(..8).unwrap_or_default();
        let (user, host) = (
            render::printable(session.user.as_bytes()),
            render::printable(session.host.as_bytes()),
        );
        let _ = writeln!(
            text,
            "  the backup {id} of {user} on {host}, since {}; taken to be dead from {} on",
            render::time(session.since, zone),
            render::time(session.until, zone)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use larder_engine::prune::WaitingSession;

    use super::*;

    #[test]
    fn what_may_stay_unused_is_a_share_a_size_or_anything() {
        assert_eq!(max_unused("5%").unwrap(), MaxUnused::Percent(5.0));
        assert_eq!(max_unused("2G").unwrap(), MaxUnused::Bytes(2 << 30));
        assert_eq!(max_unused("unlimited").unwrap(), MaxUnused::Unlimited);
        for text in ["", "%", "-1%", "101%", "nan%", "much"] {
            assert!(max_unused(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_report_names_whom_it_waits_for() {
        let mut report = PruneReport {
            waiting: Some(Waiting {
                round: 3,
                sessions: vec![WaitingSession {
                    session: "0123456789abcdef".to_owned(),
                    host: "desk".to_owned(),
                    user: "me".to_owned(),
                    since: "2026-11-01T03:00:00Z".parse().unwrap(),
                    until: "2026-11-01T04:00:00Z".parse().unwrap(),
                }],
            }),
            ..PruneReport::default()
        };
        let text = |report: &PruneReport| text(report, &TimeZone::UTC);
        let shown = text(&report);
        let expected = "  the backup 01234567 of me on desk, since 2026-11-01 03:00:00; taken to be dead \
                        from 2026-11-01 04:00:00 on";
        assert!(shown.ends_with(expected), "{shown}");
        // An earlier run's round: nothing was planned.
        assert!(shown.starts_with("deleted 0 packs"), "{shown}");
        report.round = Some(3);
        assert!(text(&report).starts_with("packs "));
        report.dry_run = true;
        assert!(text(&report).ends_with("nothing was changed (dry run)"));
    }
}
