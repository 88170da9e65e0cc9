//! `larder ls`.

use std::ffi::OsString;
use std::io::Write as _;

use clap::Args;
use jiff::tz::TimeZone;
use larder_engine::browse;

use crate::args::{FilterArgs, SNAPSHOT_HELP};
use crate::context::{Context, parse_spec, resolve};
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
    #[arg(value_name = "SNAPSHOT[:PATH]")]
    snapshot: OsString,
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
    let spec = parse_spec(&args.snapshot)?;
    let repository = context.open()?;
    let snapshot = resolve(&repository, &spec, &args.filter.filter())?;
    let path = spec.path.as_deref();
    let mut out = Output::new();
    let unreadable = if context.json() {
        let mut array = Array::new(&mut out);
        let unreadable = browse::list(&repository, &snapshot, path, args.recursive, &mut |item| {
            array.push(&ItemJson::from(&item)).map_err(output::failed)
        })?;
        array.end()?;
        unreadable
    } else {
        let style = style(args.long, args.null);
        let zone = TimeZone::system();
        browse::list(&repository, &snapshot, path, args.recursive, &mut |item| {
            item::write(&mut out, &item, style, &zone).map_err(output::failed)
        })?
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
