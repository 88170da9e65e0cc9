//! `larder snapshots`.

use clap::Args;
use jiff::tz::TimeZone;
use larder_engine::snapshots::{SnapshotInfo, list};

use crate::args::FilterArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, Output};
use crate::render::{self, Side, Table};

/// List the snapshots
///
/// Oldest first, with times in the local zone and the size of all files as they were backed up.
///
/// Example: larder snapshots --host desk --tag nightly
#[derive(Debug, Args)]
pub struct SnapshotsArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// List checkpoints of unfinished backups too
    #[arg(long)]
    partial: bool,
}

/// Lists the snapshots.
///
/// # Errors
/// What the engine answers.
pub fn run(context: &Context, args: &SnapshotsArgs) -> anyhow::Result<Exit> {
    let repository = context.open()?;
    let snapshots = list(&repository, &args.filter.filter(), args.partial)?;
    if context.json() {
        output::json(&snapshots)?;
    } else {
        let mut out = Output::new();
        table(&snapshots, &TimeZone::system()).write(&mut out)?;
        std::io::Write::flush(&mut out)?;
    }
    Ok(Exit::Success)
}

fn table(snapshots: &[SnapshotInfo], zone: &TimeZone) -> Table<'static> {
    let ids: Vec<&str> = snapshots
        .iter()
        .map(|snapshot| snapshot.id.as_str())
        .collect();
    let shown = |text: &String| render::printable(text.as_bytes());
    let row = |(snapshot, id): (&SnapshotInfo, &str)| {
        let mut tags: Vec<String> = snapshot.tags.iter().map(shown).collect();
        if snapshot.partial {
            tags.push("(unfinished)".into());
        }
        vec![
            vec![id.to_owned()],
            vec![render::time(snapshot.time, zone)],
            vec![shown(&snapshot.host)],
            tags,
            snapshot.sources.iter().map(shown).collect(),
            vec![render::size(snapshot.statistics.bytes)],
        ]
    };
    Table {
        columns: &[
            ("ID", Side::Left),
            ("Time", Side::Left),
            ("Host", Side::Left),
            ("Tags", Side::Left),
            ("Paths", Side::Left),
            ("Size", Side::Right),
        ],
        rows: snapshots
            .iter()
            .zip(render::short_ids(&ids))
            .map(row)
            .collect(),
        footer: render::counted(snapshots.len() as u64, "snapshot", "snapshots"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use larder_engine::format::ids::SessionId;
    use larder_engine::snapshots::Statistics;

    fn snapshot(id: &str, time: &str) -> SnapshotInfo {
        SnapshotInfo {
            id: id.repeat(4),
            time: time.parse().unwrap(),
            end: time.parse().unwrap(),
            partial: false,
            host: "desk".into(),
            user: "me".into(),
            tags: vec!["a".into(), "b".into()],
            sources: vec!["/etc".into(), "/home".into()],
            parent: None,
            program: "larder 0.1.0".into(),
            statistics: Statistics {
                bytes: 3 << 29,
                ..Statistics::default()
            },
            session: SessionId::default(),
        }
    }

    #[test]
    fn the_list_is_a_table() {
        let mut partial = snapshot("89abcdef", "2026-11-02T00:00:00Z");
        partial.partial = true;
        partial.tags.clear();
        let snapshots = [snapshot("01234567", "2026-11-01T03:00:00Z"), partial];
        let mut bytes = Vec::new();
        table(&snapshots, &TimeZone::UTC).write(&mut bytes).unwrap();
        let expected = "\
ID        Time                 Host  Tags          Paths       Size
------------------------------------------------------------------------
01234567  2026-11-01 03:00:00  desk  a             /etc   1.500 GiB
                                     b             /home
89abcdef  2026-11-02 00:00:00  desk  (unfinished)  /etc   1.500 GiB
                                                   /home
------------------------------------------------------------------------
2 snapshots
";
        let expected = expected.replace(&"-".repeat(72), &"-".repeat(67));
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[test]
    fn the_json_of_a_snapshot_has_the_documented_fields() {
        let value = serde_json::to_value(snapshot("01234567", "2026-11-01T03:00:00Z")).unwrap();
        for field in [
            "id",
            "time",
            "host",
            "user",
            "tags",
            "sources",
            "parent",
            "statistics",
        ] {
            assert!(value.get(field).is_some(), "{field}");
        }
        assert_eq!(value.get("time").unwrap(), "2026-11-01T03:00:00Z");
        assert!(value.get("session").is_none());
    }
}
