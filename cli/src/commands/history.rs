//! `larder history`.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;

use clap::Args;
use jiff::tz::TimeZone;
use larder_engine::browse::{self, Version};
use larder_engine::format::entry::{Entry, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;

use crate::args::FilterArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::item::ItemJson;
use crate::output::{self, Output};
use crate::render::{self, Side, Table};

/// List the versions of one path over all snapshots
///
/// PATH is the path as it was backed up. Snapshots in a row that have it the same are one line, with
/// the first of them. A restore of that version names the line's snapshot: `larder restore ID:PATH`.
///
/// Example: larder history /home/me/report.odt
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct HistoryArgs {
    /// What to look for, as it was backed up
    path: OsString,
    #[command(flatten)]
    filter: FilterArgs,
}

/// A version for a program.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Version")]
pub struct VersionJson<'a> {
    snapshot: &'a str,
    time: String,
    last_snapshot: &'a str,
    last_time: String,
    snapshots: u64,
    host: &'a str,
    /// What it was; null where it was gone.
    item: Option<ItemJson>,
}

/// Lists the versions of a path.
///
/// # Errors
/// What the engine answers.
pub fn run(context: &Context, args: &HistoryArgs) -> anyhow::Result<Exit> {
    let repository = context.open()?;
    let filter = args.filter.filter();
    let versions = browse::history(&repository, args.path.as_bytes(), &filter)?;
    if context.json() {
        let list: Vec<_> = versions.iter().map(VersionJson::from).collect();
        output::json(&list)?;
        return Ok(Exit::Success);
    }
    let mut out = Output::new();
    table(&versions, &TimeZone::system()).write(&mut out)?;
    out.flush()?;
    Ok(Exit::Success)
}

impl<'a> From<&'a Version> for VersionJson<'a> {
    fn from(version: &'a Version) -> Self {
        Self {
            snapshot: &version.first.id,
            time: version.first.time.to_string(),
            last_snapshot: &version.last.id,
            last_time: version.last.time.to_string(),
            snapshots: version.snapshots,
            host: &version.first.host,
            item: version.item.as_ref().map(ItemJson::from),
        }
    }
}

fn table(versions: &[Version], zone: &TimeZone) -> Table<'static> {
    let ids: Vec<&str> = versions.iter().map(|one| one.first.id.as_str()).collect();
    let row = |(version, id): (&Version, &str)| {
        let entry = version.item.as_ref().map(|item| &item.entry);
        let size = match entry {
            None => "gone".to_owned(),
            Some(entry) if entry.kind.has_content() => render::size(entry.size),
            Some(_) => String::new(),
        };
        // A folder of a bucket has no time.
        let timed = |entry: &&Entry| entry.mtime != Timestamp::default();
        let modified = entry
            .filter(timed)
            .and_then(|entry| render::timestamp(entry.mtime));
        let cells = [
            id.to_owned(),
            render::time(version.first.time, zone),
            render::printable(version.first.host.as_bytes()),
            size,
            modified.map_or_else(String::new, |time| render::time(time, zone)),
            render::count(version.snapshots),
        ];
        cells.map(|cell| vec![cell]).to_vec()
    };
    Table {
        columns: &[
            ("ID", Side::Left),
            ("Time", Side::Left),
            ("Host", Side::Left),
            ("Size", Side::Right),
            ("Modified", Side::Left),
            ("Snapshots", Side::Right),
        ],
        rows: versions
            .iter()
            .zip(render::short_ids(&ids))
            .map(row)
            .collect(),
        footer: render::counted(versions.len() as u64, "version", "versions"),
    }
}
