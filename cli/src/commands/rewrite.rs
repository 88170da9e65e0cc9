//! `larder rewrite` and `larder undelete`.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use larder_engine::error::EngineError;
use larder_engine::rewrite::{
    RewriteOptions, RewriteReport, UndeleteOptions, rewrite_all, undelete_all,
};
use larder_engine::snapshots::Which;
use larder_engine::source::select::Excludes;
use serde::Serialize;

use crate::args::FilterArgs;
use crate::context::{Context, parse_whole};
use crate::exit::Exit;
use crate::output::{self, Output};
use crate::{person, render};

/// Leave paths out of snapshots that are there, e.g. a secret that should not have been saved
///
/// Each snapshot that has such paths is made anew without them, with its time, host and tags, and
/// the old one is forgotten. What was left out stays in the repository until a prune removes it, and
/// `larder undelete` brings it back until then: `larder prune --max-unused 0` removes all of it, a
/// plain `larder prune` may leave small pieces where little else is unused. The source is not read:
/// the next backup saves what is still there, unless the same paths are excluded then.
///
/// Without SNAPSHOT, all snapshots of --host, --tag and --path are rewritten. The source itself is
/// never left out; to do without it, forget the snapshot.
///
/// Examples: larder rewrite --exclude secret.key --host desk --dry-run
///           larder rewrite --exclude /home/me/private latest latest~1
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
#[group(id = "patterns", required = true, multiple = true,
        args = ["exclude", "iexclude", "exclude_file", "iexclude_file"])]
pub struct RewriteArgs {
    /// Snapshots to rewrite: ids, latest, latest~2, '@[2026-11-01]'
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<OsString>,
    /// Leave out what matches this gitignore-style pattern; `!` before a pattern takes back
    #[arg(short, long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// The same, whatever the case
    #[arg(long, value_name = "PATTERN")]
    iexclude: Vec<String>,
    /// Leave out what matches the patterns in this file, one a line
    #[arg(long, value_name = "FILE")]
    exclude_file: Vec<PathBuf>,
    /// The same, whatever the case
    #[arg(long, value_name = "FILE")]
    iexclude_file: Vec<PathBuf>,
    /// Do not forget the old snapshots; they keep all their paths
    #[arg(long)]
    keep_original: bool,
    /// Say what would be left out; write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Bring forgotten snapshots back, as long as no prune has deleted what they need
///
/// Each comes back as a new snapshot with its time, host and tags. `larder snapshots --forgotten`
/// lists what can be brought back. Without SNAPSHOT, all forgotten snapshots of --host, --tag and
/// --path come back.
///
/// Examples: larder undelete 4f2a91c3
///           larder undelete --host desk --dry-run
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct UndeleteArgs {
    /// Forgotten snapshots to bring back, by their ids
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<OsString>,
    /// Say whether all that they need is still there; write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// What became of all snapshots.
#[derive(Debug, Default, Serialize)]
struct Sums {
    dry_run: bool,
    /// Snapshots that were made, or would be.
    made: u64,
    /// Snapshots that are as they are to be.
    unchanged: u64,
    /// Snapshots that were forgotten.
    forgotten: u64,
    /// Entries that were left out of all.
    entries_removed: u64,
    /// Ids of snapshots that cannot be brought back, or that stay as they are.
    lost: Vec<String>,
}

/// Leaves paths out of snapshots.
///
/// # Errors
/// What the engine answers, or what it refuses to do.
pub fn rewrite(context: &Context, args: &RewriteArgs) -> anyhow::Result<Exit> {
    must_name(&args.snapshots, &args.filter)?;
    let whole = args.snapshots.iter().map(|name| parse_whole(name));
    let names = whole.collect::<anyhow::Result<Vec<Which>>>()?;
    let options = RewriteOptions {
        exclude: Excludes {
            exclude: args.exclude.clone(),
            iexclude: args.iexclude.clone(),
            exclude_files: args.exclude_file.clone(),
            iexclude_files: args.iexclude_file.clone(),
        },
        keep_original: args.keep_original,
        author: person::author(context)?,
        dry_run: args.dry_run,
    };
    let repository = context.open()?;
    let reporter = context.reporter();
    let mut sums = Sums {
        dry_run: args.dry_run,
        ..Sums::default()
    };
    let mut told = Vec::new();
    let result = rewrite_all(
        &repository,
        &names,
        &args.filter.filter(),
        &options,
        &mut |report| {
            sums.add(report, report.entries_removed > 0);
            told.push(rewritten(report, args.dry_run));
            tell(context, "rewritten", report)
        },
        &reporter,
        context.cancel(),
    );
    reporter.finish();
    if context.talks() {
        told.iter().try_for_each(|line| output::line(line))?;
    }
    sums.lost = result?;
    if context.json() {
        output::summary(&sums)?;
    } else if context.talks() {
        output::line(&sums.rewritten(args.keep_original))?;
    }
    if !sums.lost.is_empty() {
        bail!(
            "{} as before and may still hold what was to go; the warnings say why",
            render::counted(sums.lost.len() as u64, "snapshot stays", "snapshots stay"),
        );
    }
    Ok(Exit::Success)
}

/// Brings forgotten snapshots back.
///
/// # Errors
/// What the engine answers, or what it refuses to do.
pub fn undelete(context: &Context, args: &UndeleteArgs) -> anyhow::Result<Exit> {
    must_name(&args.snapshots, &args.filter)?;
    let mut names = Vec::new();
    for name in &args.snapshots {
        match parse_whole(name)? {
            Which::Prefix(id) => names.push(id),
            Which::Latest(_) | Which::At(_) => bail!(
                "'{}' names no forgotten snapshot; use an id that `larder snapshots --forgotten` lists",
                name.display()
            ),
        }
    }
    let options = UndeleteOptions {
        author: person::author(context)?,
        dry_run: args.dry_run,
    };
    let repository = context.open()?;
    let reporter = context.reporter();
    let mut sums = Sums {
        dry_run: args.dry_run,
        ..Sums::default()
    };
    let mut told = Vec::new();
    let result = undelete_all(
        &repository,
        &names,
        &args.filter.filter(),
        &options,
        &mut |report| {
            sums.add(report, true);
            told.push(brought_back(report, args.dry_run));
            tell(context, "undeleted", report)
        },
        &reporter,
        context.cancel(),
    );
    reporter.finish();
    if context.talks() {
        told.iter().try_for_each(|line| output::line(line))?;
    }
    sums.lost = result?;
    if context.json() {
        output::summary(&sums)?;
    } else if context.talks() && told.is_empty() && sums.lost.is_empty() {
        output::line("nothing is forgotten that could be brought back")?;
    }
    if !sums.lost.is_empty() {
        bail!(
            "{} cannot be brought back; what is lost, only a copy of the repository from before has",
            render::counted(sums.lost.len() as u64, "snapshot", "snapshots"),
        );
    }
    Ok(Exit::Success)
}

/// Fails if nothing says which snapshots are meant.
fn must_name(names: &[OsString], filter: &FilterArgs) -> anyhow::Result<()> {
    if names.is_empty() && !filter.is_narrowed() {
        bail!(
            "no snapshot was named; give some by their ids, or choose with --host, --tag or --path"
        );
    }
    Ok(())
}

/// Tells a program what became of one snapshot.
fn tell(
    context: &Context,
    message_type: &'static str,
    report: &RewriteReport,
) -> Result<(), EngineError> {
    if !context.json() {
        return Ok(());
    }
    let mut out = Output::new();
    let written = output::message(&mut out, message_type, report);
    written
        .and_then(|()| std::io::Write::flush(&mut out))
        .map_err(output::failed)
}

impl Sums {
    fn add(&mut self, report: &RewriteReport, is_meant: bool) {
        if is_meant && !report.existed {
            self.made += 1;
        } else {
            self.unchanged += 1;
        }
        self.forgotten += u64::from(report.forgotten);
        self.entries_removed += report.entries_removed;
    }

    fn rewritten(&self, keep_original: bool) -> String {
        let made = render::counted(self.made, "snapshot", "snapshots");
        if self.dry_run {
            return format!("{made} would be rewritten; nothing was changed (dry run)");
        }
        if self.made == 0 && self.forgotten == 0 {
            return "nothing matches: no snapshot was changed".to_owned();
        }
        let rest = if keep_original {
            "the old ones are there as well, with all their paths"
        } else {
            "`larder prune --max-unused 0` removes what was left out for good"
        };
        format!("rewrote {made}; {rest}")
    }
}

/// Tells what became of a rewritten snapshot.
fn rewritten(report: &RewriteReport, dry_run: bool) -> String {
    let from = short(&report.from);
    if report.entries_removed == 0 {
        return format!("{from}: nothing matches");
    }
    let entries = render::counted(report.entries_removed, "entry", "entries");
    let out = format!("{entries}, {}", render::size(report.bytes_removed));
    match &report.snapshot {
        None if dry_run => format!("{from}: would leave out {out}"),
        None => format!("{from}: nothing was made"),
        Some(id) if report.existed => format!("{from}: left out {out} before, in {}", short(id)),
        Some(id) => format!("{from}: left out {out}; the new one is {}", short(id)),
    }
}

/// Tells what became of a snapshot that was forgotten.
fn brought_back(report: &RewriteReport, dry_run: bool) -> String {
    let from = short(&report.from);
    match &report.snapshot {
        Some(id) if report.existed => format!("{from} is there already, as {}", short(id)),
        Some(id) => format!("{from} is back, as {}", short(id)),
        None if dry_run => format!("{from} can be brought back; nothing was changed (dry run)"),
        None => format!("{from}: nothing was made"),
    }
}

fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_a_snapshot_is_told() {
        let mut report = RewriteReport {
            from: "0123456789".to_owned(),
            ..RewriteReport::default()
        };
        assert_eq!(rewritten(&report, false), "01234567: nothing matches");
        assert_eq!(
            brought_back(&report, true),
            "01234567 can be brought back; nothing was changed (dry run)"
        );
        (report.entries_removed, report.bytes_removed) = (2, 2048);
        assert_eq!(
            rewritten(&report, true),
            "01234567: would leave out 2 entries, 2.000 KiB"
        );
        report.snapshot = Some("fedcba9876".to_owned());
        assert_eq!(
            rewritten(&report, false),
            "01234567: left out 2 entries, 2.000 KiB; the new one is fedcba98"
        );
        assert_eq!(
            brought_back(&report, false),
            "01234567 is back, as fedcba98"
        );
        report.existed = true;
        assert_eq!(
            rewritten(&report, false),
            "01234567: left out 2 entries, 2.000 KiB before, in fedcba98"
        );
        assert_eq!(
            brought_back(&report, false),
            "01234567 is there already, as fedcba98"
        );
    }
}
