//! `larder find`.

use std::io::Write as _;

use clap::Args;
use jiff::Zoned;
use jiff::tz::TimeZone;
use larder_engine::browse::{self, FindOptions};
use larder_engine::snapshots::{SnapshotInfo, parse_time};
use schemars::JsonSchema;
use serde::Serialize;

use anyhow::Context as _;

use crate::args::FilterArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::item::{self, ItemJson};
use crate::output::{self, Array, Output};
use crate::{render, times};

/// Find paths in all snapshots
///
/// PATTERN is a gitignore-style glob: without a slash it matches a name anywhere, with one the
/// whole path. The newest snapshot is searched first.
///
/// Example: larder find '*.odt' --newer '2 weeks ago' --path /home
#[derive(Debug, Args)]
pub struct FindArgs {
    /// What to look for; a path that matches any is found
    #[arg(value_name = "PATTERN", required_unless_present_any = ["newer", "older"])]
    patterns: Vec<String>,
    /// Match whatever the case
    #[arg(short, long)]
    ignore_case: bool,
    /// Only what was modified at this time or later, e.g. 2026-11-01 or '2 days ago'
    #[arg(long, value_name = "TIME")]
    newer: Option<String>,
    /// Only what was modified before this time
    #[arg(long, value_name = "TIME")]
    older: Option<String>,
    /// Only in what there was at this time: of each source the newest snapshot that is not later
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Show type, permissions, owner, size and time
    #[arg(short, long)]
    long: bool,
    /// Write each path raw, with a NUL after it, and no headings
    #[arg(short = '0', long, conflicts_with = "long")]
    null: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// A path that was found, for a program.
#[derive(Serialize, JsonSchema)]
pub struct Found<'a> {
    snapshot: &'a str,
    #[serde(flatten)]
    item: ItemJson,
}

/// Finds paths.
///
/// # Errors
/// What the engine answers, or a time that is none.
pub fn run(context: &Context, args: &FindArgs) -> anyhow::Result<Exit> {
    let options = args.options(&Zoned::now())?;
    let repository = context.open()?;
    let mut out = Output::new();
    if context.json() {
        let mut array = Array::new(&mut out);
        browse::find(&repository, &options, &mut |snapshot, item| {
            let found = Found {
                snapshot: &snapshot.id,
                item: ItemJson::from(&item),
            };
            array.push(&found).map_err(output::failed)
        })?;
        array.end()?;
    } else {
        let style = super::ls::style(args.long, args.null);
        let zone = TimeZone::system();
        let mut shown = String::new();
        browse::find(&repository, &options, &mut |snapshot, item| {
            if !args.null && shown != snapshot.id {
                let first = shown.is_empty();
                heading(&mut out, snapshot, first, &zone).map_err(output::failed)?;
                shown.clone_from(&snapshot.id);
            }
            item::write(&mut out, &item, style, &zone).map_err(output::failed)
        })?;
    }
    out.flush()?;
    Ok(Exit::Success)
}

impl FindArgs {
    fn options(&self, now: &Zoned) -> anyhow::Result<FindOptions> {
        let time = |text: &Option<String>, flag: &'static str| {
            let time = text.as_deref().map(|text| times::point(text, now));
            time.transpose().context(flag)
        };
        // Without a pattern the times alone decide.
        let patterns = match self.patterns.as_slice() {
            [] => vec!["*".to_owned()],
            patterns => patterns.to_vec(),
        };
        Ok(FindOptions {
            patterns,
            ignore_case: self.ignore_case,
            filter: self.filter.filter(),
            newer: time(&self.newer, "--newer")?,
            older: time(&self.older, "--older")?,
            at: self
                .at
                .as_deref()
                .map(|text| parse_time(text, now))
                .transpose()
                .context("--at")?,
        })
    }
}

fn heading(
    out: &mut Output,
    snapshot: &SnapshotInfo,
    first: bool,
    zone: &TimeZone,
) -> std::io::Result<()> {
    let gap = if first { "" } else { "\n" };
    let id = snapshot.id.get(..8).unwrap_or(&snapshot.id);
    let time = render::time(snapshot.time, zone);
    let host = render::printable(snapshot.host.as_bytes());
    writeln!(out, "{gap}in snapshot {id} of {time} on {host}:")
}
