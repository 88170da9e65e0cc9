//! `larder scrub`.

use std::fmt::Write as _;

use clap::Args;
use larder_engine::progress::Progress as _;
use larder_engine::repository::{default_cache_dir, open_storage};
use larder_engine::scrub::{ScrubReport, scrub, scrub_and_record};

use super::check;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, Output};
use crate::render;

/// Verify every object's bytes, without a password
///
/// Every object of a repository has the hash of its bytes for a name, or ends in it. So whoever
/// runs a storage can tell that what is there is what was written. What is missing, and which
/// snapshots suffer, only `larder check` can tell, which needs the password.
///
/// All bytes are read; --dry-run says how many that are. With --record, which needs the password, the
/// repository keeps when each pack was verified, for `larder check --max-age` and `larder status`.
///
/// Examples: larder scrub /srv/backup
///           larder scrub --dry-run s3://bucket/prefix
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct ScrubArgs {
    /// The name of a location, a URL or a path, in place of -r
    #[arg(value_name = "LOCATION")]
    location: Option<String>,
    /// Count what there is, and read nothing of it
    #[arg(short = 'n', long, conflicts_with = "record")]
    dry_run: bool,
    /// Open the repository named by -r with its password, and record there what was verified
    #[arg(long, conflicts_with = "location")]
    record: bool,
}

/// Verifies the objects of a repository.
///
/// # Errors
/// What keeps them from being read; damage is in the exit code.
pub fn run(context: &Context, args: &ScrubArgs) -> anyhow::Result<Exit> {
    if args.record {
        let repository = context.open()?;
        let reporter = context.reporter();
        let scratch = repository.cache_dir();
        let result = scrub_and_record(&repository, scratch, &reporter, context.cancel());
        reporter.finish();
        let report = result?;
        if let Some(why) = &report.not_recorded {
            reporter.warning(&format!("what was verified could not be recorded: {why}"));
        }
        return tell(context, args, &report);
    }
    let place = match &args.location {
        Some(named) => context.place_of(named)?,
        None => context.place()?,
    };
    let storage = open_storage(&place, context.interrupt.flag())?;
    let scratch = context.cache_dir().unwrap_or_else(default_cache_dir);
    let reporter = context.reporter();
    let result = scrub(
        &storage,
        &scratch,
        args.dry_run,
        &reporter,
        context.cancel(),
    );
    reporter.finish();
    tell(context, args, &result?)
}

fn tell(context: &Context, args: &ScrubArgs, report: &ScrubReport) -> anyhow::Result<Exit> {
    if context.json() {
        let mut out = Output::new();
        for finding in &report.findings {
            output::message(&mut out, "finding", finding)?;
        }
        std::io::Write::flush(&mut out)?;
        output::summary(report)?;
    } else {
        let found = check::findings(&report.findings, true);
        if !found.is_empty() {
            output::line(found.trim_end())?;
        }
        if context.talks() || args.dry_run {
            output::line(&summary(report))?;
        }
    }
    Ok(match (report.loss, report.harmless) {
        (0, 0) => Exit::Success,
        (0, _) => Exit::DamageHarmless,
        _ => Exit::DataLost,
    })
}

fn summary(report: &ScrubReport) -> String {
    let what = format!(
        "{} ({}): {}, {}, {}",
        render::counted(report.objects, "object", "objects"),
        render::size(report.bytes),
        render::counted(report.packs, "pack", "packs"),
        render::counted(report.segments, "index segment", "index segments"),
        render::counted(report.snapshots, "snapshot record", "snapshot records"),
    );
    if report.dry_run {
        return format!("would read {what}");
    }
    let mut text = format!(
        "verified {} of {what}, in {}\n",
        render::count(report.verified),
        render::duration(report.seconds)
    );
    if report.gone > 0 {
        let _ = writeln!(
            text,
            "{} before it came to them",
            render::counted(report.gone, "object was deleted", "objects were deleted")
        );
    }
    text.push_str(match (report.loss, report.harmless) {
        (0, 0) => "no damage was found",
        (0, _) => "damage was found; it costs no data",
        _ => "damage was found; it may cost data",
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_tells_what_was_read_and_what_came_of_it() {
        let mut report = ScrubReport {
            objects: 1200,
            bytes: 5 << 20,
            packs: 1000,
            segments: 1,
            snapshots: 3,
            verified: 1199,
            gone: 1,
            seconds: 2.0,
            ..ScrubReport::default()
        };
        let text = summary(&report);
        assert!(text.contains("1 object was deleted before"), "{text}");
        assert!(text.ends_with("no damage was found"), "{text}");
        report.harmless = 1;
        assert!(summary(&report).ends_with("costs no data"));
        report.loss = 1;
        assert!(summary(&report).ends_with("may cost data"));
        report.dry_run = true;
        assert!(summary(&report).starts_with("would read 1"));
    }
}
