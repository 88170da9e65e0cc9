//! `larder sync`.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use larder_engine::mirror::{
    PromoteReport, SyncOptions, SyncReport, no_mirror_of_bundle, promote, refuse_nested, sync,
};
use larder_engine::repository::{default_cache_dir, open_storage};
use larder_engine::storage::error::{ErrorKind, Reason};
use larder_engine::storage::object::ObjectStorage;
use larder_engine::storage::{self, Mode, Storage};

use super::check;
use crate::args::parse_setting;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, Output};
use crate::{password, render};

/// Keep a mirror of the repository in another place, without a password
///
/// Copies what the mirror lacks, each object verified before it is written, and then lets the mirror
/// list what the repository listed at one moment. Backups, forgets and prunes may run meanwhile, and
/// an interrupted sync leaves a mirror that shows what it showed before. The first sync makes the
/// mirror, in an empty place.
///
/// What lies in the mirror already is taken to be what was written; --verify reads it all, and copies
/// anew what rotted since.
///
/// A mirror is read like a repository, with the same password. It takes no writes until it is
/// promoted. What prunes took away in the repository stays in the mirror unless --delete is given;
/// what went in the repository without a prune stays in the mirror in any case.
///
/// Examples: larder -r /srv/backup sync --to sftp://me@nas/srv/mirror
///           larder -r /srv/backup sync --to nas --delete
///           larder -r /srv/backup sync --to nas --verify
///           larder sync promote nas
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct SyncArgs {
    #[command(subcommand)]
    what: Option<What>,
    /// Where the mirror is: a path, a URL, or a location of larder.toml by its name
    #[arg(long, value_name = "LOCATION", required = true)]
    to: Option<String>,
    /// Set one thing about how the mirror's storage is reached; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    to_option: Vec<(String, String)>,
    /// Delete in the mirror what prunes let go of in the repository
    #[arg(long)]
    delete: bool,
    /// Read every object of the mirror too, and copy anew what rotted there
    #[arg(long)]
    verify: bool,
    /// Say what would be copied, and touch nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Let a mirror be a repository of its own, that takes writes
    ///
    /// For when the repository is gone, or is to go on in the mirror's place. It needs the password.
    /// No sync to the mirror may be running, and none can be made to it from then on.
    Promote {
        /// Where the mirror is
        location: String,
        /// Say whether it can be promoted, and change nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
}

/// Syncs, or promotes a mirror.
///
/// # Errors
/// What the engine answers; damaged objects are in the exit code.
pub fn run(context: &Context, args: &SyncArgs) -> anyhow::Result<Exit> {
    if let Some(What::Promote { location, dry_run }) = &args.what {
        return run_promote(context, location, *dry_run);
    }
    let to = args.to.as_deref().context("--to names the mirror")?;
    let stop = context.interrupt.flag();
    let from = context.place()?;
    let place = context.second_place(to, &args.to_option)?;
    // Before a folder is made for it.
    if from.place.bundle().is_some() {
        return Err(no_mirror_of_bundle(&from.place.to_string()).into());
    }
    let source = open_storage(&from, Arc::clone(&stop))?;
    refuse_nested(source.as_ref(), &place.place.to_string())?;
    let mode = match args.dry_run {
        true => Mode::Open,
        false => Mode::Create,
    };
    let target: Arc<dyn Storage> = match storage::open(&place, mode, stop) {
        // A folder that a dry run does not make is as good as an empty one.
        Err(error)
            if args.dry_run
                && error.kind == ErrorKind::NotFound
                && error.reason != Reason::NoBucket =>
        {
            Arc::new(ObjectStorage::memory())
        }
        opened => opened?,
    };
    let scratch = context.cache_dir().unwrap_or_else(default_cache_dir);
    let options = SyncOptions {
        delete: args.delete,
        verify: args.verify,
        dry_run: args.dry_run,
    };
    let reporter = context.reporter();
    let cancel = context.cancel();
    let result = sync(&source, &target, &scratch, options, &reporter, cancel);
    reporter.finish();
    let report = result?;
    tell(context, &report, &place.place.to_string())?;
    let has_loss =
        |one: &larder_engine::check::Finding| one.severity == larder_engine::check::Severity::Loss;
    Ok(match report.damaged {
        0 => Exit::Success,
        _ if report.findings.iter().any(has_loss) => Exit::DataLost,
        _ => Exit::DamageHarmless,
    })
}

fn tell(context: &Context, report: &SyncReport, place: &str) -> anyhow::Result<()> {
    if context.json() {
        let mut out = Output::new();
        for finding in &report.findings {
            output::message(&mut out, "finding", finding)?;
        }
        std::io::Write::flush(&mut out)?;
        return output::summary(report);
    }
    let found = check::findings(&report.findings, true);
    if !found.is_empty() {
        output::line(found.trim_end())?;
    }
    if context.talks() || report.dry_run {
        output::line(&summary(report, place))?;
    }
    Ok(())
}

fn summary(report: &SyncReport, place: &str) -> String {
    let copied = format!(
        "{} ({})",
        render::counted(report.copied, "object", "objects"),
        render::size(report.bytes_copied)
    );
    if report.dry_run {
        let mut text = format!("would copy {copied} to {place}");
        if report.mended > 0 {
            let rotted = render::counted(report.mended, "object", "objects");
            let _ = write!(text, "; {rotted} in the mirror rotted");
        }
        return text;
    }
    let mut text = String::new();
    if report.made {
        let _ = writeln!(text, "made a mirror at {place}");
    }
    let _ = writeln!(
        text,
        "copied {copied} in {}; {}",
        render::duration(report.seconds),
        lists(report.snapshots)
    );
    if report.verified + report.mended > 0 {
        let _ = writeln!(
            text,
            "verified {} of the mirror; {} rotted and copied anew",
            render::counted(report.verified, "object", "objects"),
            render::counted(report.mended, "was", "were")
        );
    }
    if report.remains_deleted > 0 {
        let _ = writeln!(
            text,
            "removed {} of killed syncs",
            render::counted(report.remains_deleted, "remnant", "remnants")
        );
    }
    if report.deleted > 0 {
        let _ = writeln!(
            text,
            "deleted {} ({}) that prunes let go of",
            render::counted(report.deleted, "object", "objects"),
            render::size(report.bytes_deleted)
        );
    }
    if report.gone > 0 {
        let _ = writeln!(
            text,
            "{} in the mirror that prunes let go of; --delete removes them",
            render::counted(report.gone, "object is", "objects are")
        );
    }
    text.truncate(text.trim_end().len());
    text
}

/// Says how much a mirror lists: without keys nobody knows which of the sessions made checkpoints, or
/// snapshots that are forgotten.
fn lists(snapshots: u64) -> String {
    match snapshots {
        0 => "the mirror lists no snapshot".to_owned(),
        _ => format!(
            "the mirror lists what {} left",
            render::counted(snapshots, "finished session", "finished sessions")
        ),
    }
}

fn run_promote(context: &Context, location: &str, dry_run: bool) -> anyhow::Result<Exit> {
    let place = context.place_of(location)?;
    let storage = open_storage(&place, context.interrupt.flag())?;
    let opened = password::open(&storage, context.secret_source()?, &context.open_options())?;
    let report = promote(&opened, &storage, dry_run)?;
    if context.json() {
        output::json(&report)?;
    } else if context.talks() || dry_run {
        output::line(&promoted(&report))?;
    }
    Ok(Exit::Success)
}

fn promoted(report: &PromoteReport) -> String {
    let snapshots = render::counted(report.snapshots, "snapshot", "snapshots");
    let location = &report.location;
    match report.dry_run {
        true => format!(
            "{location} would be a repository of its own, with {snapshots}; nothing was changed"
        ),
        false => format!(
            "{location} is a repository of its own now, with {snapshots}; do not sync to it any more"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_what_a_person_may_want_to_do_next() {
        let mut report = SyncReport {
            made: true,
            copied: 12,
            bytes_copied: 1 << 20,
            snapshots: 1,
            gone: 3,
            ..SyncReport::default()
        };
        let text = summary(&report, "/m");
        assert!(
            text.starts_with("made a mirror at /m\ncopied 12 objects"),
            "{text}"
        );
        assert!(
            text.ends_with(
                "3 objects are in the mirror that prunes let go of; --delete removes them"
            )
        );
        report.dry_run = true;
        assert!(summary(&report, "/m").starts_with("would copy 12 objects"));
    }
}
