//! `larder parity`.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use larder_engine::parity::{BuildOptions, BuildReport, ParityStatus, build, set, status};
use serde::Serialize;

use crate::context::Context;
use crate::exit::Exit;
use crate::{output, render, times};

/// Show and change how much damage packs survive without any other copy
///
/// With parity every backup writes some more bytes, from which `larder repair` rebuilds packs that are damaged or
/// lost. At 5 percent one of 20 packs that were written together may be lost as a whole, and of a pack of a
/// smaller run 5 percent, wherever it is. Without a command it shows what there is.
///
/// Examples: larder parity set 5
///           larder parity build --dry-run
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct ParityArgs {
    #[command(subcommand)]
    command: Option<ParityCommand>,
}

#[derive(Debug, Subcommand)]
enum ParityCommand {
    /// Let what is written from now on have parity; `build` gives it to what is there
    Set {
        /// Share of packs, in percent, that may be lost: 2 to 100
        #[arg(value_parser = clap::value_parser!(u8).range(2..=100))]
        percent: u8,
        /// Say what would be changed, and change nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Write no more parity; what there is stays until its packs go
    Off {
        /// Say what would be changed, and change nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Read the packs that have no parity, or none that serves, and give it to them
    Build {
        /// Say how much would be read and written, and do nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
        /// Read so much of packs at most; the next run goes on, e.g. 50GiB
        #[arg(long, value_name = "SIZE", value_parser = times::bytes)]
        max_download: Option<u64>,
    },
}

#[derive(Serialize)]
struct Changed {
    percent: Option<u8>,
    dry_run: bool,
}

/// Shows or changes a repository's parity.
///
/// # Errors
/// What the engine answers.
pub fn run(context: &Context, args: &ParityArgs) -> anyhow::Result<Exit> {
    match &args.command {
        None => {
            let repository = context.open()?;
            let found = status(&repository, context.cancel())?;
            tell(context, &found, &shown(&found), true)
        }
        Some(ParityCommand::Set { percent, dry_run }) => change(context, Some(*percent), *dry_run),
        Some(ParityCommand::Off { dry_run }) => change(context, None, *dry_run),
        Some(ParityCommand::Build {
            dry_run,
            max_download,
        }) => {
            let repository = match dry_run {
                true => context.open()?,
                false => context.open_to_change()?,
            };
            let options = BuildOptions {
                dry_run: *dry_run,
                max_bytes: *max_download,
            };
            let reporter = context.reporter();
            let result = build(&repository, &options, &reporter, context.cancel());
            reporter.finish();
            let report = result?;
            tell(context, &report, &built(&report), *dry_run)
        }
    }
}

fn change(context: &Context, percent: Option<u8>, dry_run: bool) -> anyhow::Result<Exit> {
    match dry_run {
        true => drop(context.open()?),
        false => set(&*context.open_to_change()?, percent)?,
    }
    let text = match (percent, dry_run) {
        (Some(percent), true) => format!("packs would get parity of {percent} %"),
        (None, true) => "packs would get no parity".to_owned(),
        (Some(percent), false) => format!(
            "packs get parity of {percent} % from now on; `larder parity build` gives it to those that are there"
        ),
        (None, false) => "packs get no parity from now on".to_owned(),
    };
    tell(context, &Changed { percent, dry_run }, &text, dry_run)
}

fn tell(
    context: &Context,
    body: &impl Serialize,
    text: &str,
    is_answer: bool,
) -> anyhow::Result<Exit> {
    if context.json() {
        output::json(body)?;
    } else if is_answer || context.talks() {
        output::line(text)?;
    }
    Ok(Exit::Success)
}

fn shown(found: &ParityStatus) -> String {
    let mut text = match found.percent {
        Some(percent) => format!("new packs get parity of {percent} %\n"),
        None => "new packs get no parity (`larder parity set 5` changes that)\n".to_owned(),
    };
    let _ = write!(
        text,
        "protected  {} of {} packs, {} of {}\nparity     {}, {}",
        render::count(found.protected),
        render::count(found.packs),
        render::size(found.protected_bytes),
        render::size(found.pack_bytes),
        render::counted(found.objects, "object", "objects"),
        render::size(found.bytes),
    );
    if found.damaged > 0 {
        let _ = write!(
            text,
            "\n{} of them damaged: `larder repair --read-data` tells what can be done",
            render::count(found.damaged)
        );
    }
    if found.percent.is_some() && found.protected < found.packs {
        let packs = render::counted(found.packs - found.protected, "pack has", "packs have");
        let _ = write!(
            text,
            "\n{packs} none: `larder parity build` gives it to them"
        );
    }
    text
}

fn built(report: &BuildReport) -> String {
    let (would, did) = match report.dry_run {
        true => ("would read", "write"),
        false => ("read", "wrote"),
    };
    let mut text = format!(
        "{would} {} of {} and {did} {} of parity in {}",
        render::size(report.bytes_read),
        render::counted(report.packs + report.damaged, "pack", "packs"),
        render::size(report.bytes_written),
        render::counted(report.objects, "object", "objects"),
    );
    if report.left > 0 {
        let packs = render::counted(report.left, "pack", "packs");
        let _ = write!(text, "\n{packs} are left for the next run");
    }
    if report.damaged > 0 {
        let packs = render::counted(report.damaged, "pack", "packs");
        let _ = write!(
            text,
            "\n{packs} got none, for one of each group is damaged: run `larder check --read-data`"
        );
    }
    if report.deleted > 0 {
        let objects = render::counted(report.deleted, "parity object", "parity objects");
        let _ = write!(text, "\ndeleted {objects} that served no more");
    }
    text
}
