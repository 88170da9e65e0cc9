//! `larder ls`.

use std::ffi::OsString;
use std::io::Write as _;

use clap::Args;
use jiff::tz::TimeZone;
use larder_engine::browse::{self, Item};
use larder_engine::error::EngineError;

use crate::args::{FilterArgs, SNAPSHOT_HELP};
use crate::context::{Context, parse_spec, pick};
use crate::exit::Exit;
use crate::item::{self, ItemJson, Style};
use crate::output::{self, Array, Output};

/// List what is in a snapshot
///
/// Without PATH its sources are listed; with the PATH of a folder, what is in it. What could not be
/// read when it was backed up is listed, and marked by -l; the exit code is 3 if the PATH itself, or
/// a folder that -R goes into, is of that kind.
///
/// Example: larder ls -l latest:/home/me
#[derive(Debug, Args)]
#[command(after_long_help = SNAPSHOT_HELP)]
pub struct LsArgs {
    /// The snapshot, and the folder in it
    #[arg(value_name = "SNAPSHOT[:PATH]", required_unless_present = "at")]
    snapshot: Option<OsString>,
    /// Take what there was at this time, e.g. 2026-11-01 or 'last tuesday'; then PATH stands alone
    ///
    /// Of each source the newest snapshot is taken that is not later.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Show type, permissions, owner, size and time
    #[arg(short, long)]
    long: bool,
    /// List everything below the folder
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Write each path raw, with a NUL after it
    #[arg(short = '0', long, conflicts_with = "long")]
    null: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Lists what is in a snapshot.
///
/// # Errors
/// What the engine answers.
pub fn run(context: &Context, args: &LsArgs) -> anyhow::Result<Exit> {
    let (named, at) = (args.snapshot.as_deref(), args.at.as_deref());
    if let (Some(named), None) = (named, at) {
        parse_spec(named)?;
    }
    let repository = context.open()?;
    let picked = pick(&repository, named, at, &args.filter.filter())?;
    let mut out = Output::new();
    let list = |each: &mut dyn FnMut(Item) -> Result<(), EngineError>| {
        let mut unreadable = 0;
        for snapshot in &picked.snapshots {
            let path = picked.path.as_deref();
            unreadable += browse::list(&repository, snapshot, path, args.recursive, each)?;
        }
        Ok::<_, EngineError>(unreadable)
    };
    let unreadable = if context.json() {
        let mut array = Array::new(&mut out);
        let unreadable = list(&mut |item| {
            let pushed = array.push(&ItemJson::from(&item));
            pushed.map_err(output::failed)
        })?;
        array.end()?;
        unreadable
    } else {
        let style = style(args.long, args.null);
        let zone = TimeZone::system();
        list(&mut |item| item::write(&mut out, &item, style, &zone).map_err(output::failed))?
    };
    out.flush()?;
    Ok(item::told_unreadable(unreadable))
}

/// Chooses how paths are listed.
#[must_use]
pub fn style(long: bool, null: bool) -> Style {
    match (long, null) {
        (true, _) => Style::Long,
        (_, true) => Style::Nul,
        _ => Style::Short,
    }
}
