//! `larder snapshots`.

use clap::Args;
use jiff::tz::TimeZone;
use larder_engine::snapshots::{ForgottenInfo, SnapshotInfo, list, list_forgotten};

use crate::args::FilterArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, Output};
use crate::render::{self, Side, Table};

/// List the snapshots
///
/// Oldest first, with times in the local zone and the size of all files as they were backed up.
/// (pinned) stands beside the tags of what `larder forget` never forgets.
///
/// Examples: larder snapshots --host desk --tag nightly
///           larder snapshots --forgotten
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct SnapshotsArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// List checkpoints of unfinished backups and shards that are not joined too
    #[arg(long)]
    partial: bool,
    /// List what was forgotten and is still there, because no prune has cleared it yet
    #[arg(long)]
    forgotten: bool,
}

/// Lists the snapshots.
///
/// # Errors
/// What the engine answers.
pub fn run(context: &Context, args: &SnapshotsArgs) -> anyhow::Result<Exit> {
    let repository = context.open()?;
    let (filter, zone) = (args.filter.filter(), TimeZone::system());
    if args.forgotten {
        let forgotten = list_forgotten(&repository, &filter, args.partial)?;
        return show(context, &forgotten, || forgotten_table(&forgotten, &zone));
    }
    let snapshots = list(&repository, &filter, args.partial)?;
    show(context, &snapshots, || table(&snapshots, &zone))
}

/// Gives the tags of a snapshot, and in brackets what else is special of it.
#[must_use]
pub fn tags(snapshot: &SnapshotInfo) -> Vec<String> {
    let tags = snapshot.tags.iter();
    let mut tags: Vec<String> = tags.map(|tag| render::printable(tag.as_bytes())).collect();
    match &snapshot.shard {
        Some(shard) => {
            let run = render::printable(shard.run.as_bytes());
            let state = if shard.finished { "" } else { ", unfinished" };
            tags.push(format!(
                "(shard {}/{} of {run}{state})",
                shard.number, shard.count
            ));
        }
        None if snapshot.partial => tags.push("(unfinished)".into()),
        None => {}
    }
    if snapshot.pinned {
        tags.push("(pinned)".into());
    }
    tags
}

fn show(
    context: &Context,
    list: &impl serde::Serialize,
    table: impl FnOnce() -> Table<'static>,
) -> anyhow::Result<Exit> {
    if context.json() {
        output::json(list)?;
    } else {
        let mut out = Output::new();
        table().write(&mut out)?;
        std::io::Write::flush(&mut out)?;
    }
    Ok(Exit::Success)
}

fn table(snapshots: &[SnapshotInfo], zone: &TimeZone) -> Table<'static> {
    Table {
        columns: &COLUMNS,
        rows: rows(snapshots.iter(), zone),
        footer: render::counted(snapshots.len() as u64, "snapshot", "snapshots"),
    }
}

fn forgotten_table(forgotten: &[ForgottenInfo], zone: &TimeZone) -> Table<'static> {
    const WITH_WHEN: [(&str, Side); 8] = {
        let [id, time, host, tags, paths, size] = COLUMNS;
        let when = ("Forgotten", Side::Left);
        [id, time, host, tags, paths, size, when, ("By", Side::Left)]
    };
    let mut rows = rows(forgotten.iter().map(|one| &one.snapshot), zone);
    for (row, one) in rows.iter_mut().zip(forgotten) {
        let by = format!("{}@{}", one.forgotten_by, one.forgotten_on);
        row.push(vec![render::time(one.forgotten, zone)]);
        row.push(vec![render::printable(by.as_bytes())]);
    }
    let count = render::counted(forgotten.len() as u64, "snapshot", "snapshots");
    Table {
        columns: &WITH_WHEN,
        rows,
        footer: format!("{count} forgotten"),
    }
}

const COLUMNS: [(&str, Side); 6] = [
    ("ID", Side::Left),
    ("Time", Side::Left),
    ("Host", Side::Left),
    ("Tags", Side::Left),
    ("Paths", Side::Left),
    ("Size", Side::Right),
];

fn rows<'a>(
    snapshots: impl Iterator<Item = &'a SnapshotInfo> + Clone,
    zone: &TimeZone,
) -> Vec<Vec<Vec<String>>> {
    let ids: Vec<&str> = snapshots.clone().map(|one| one.id.as_str()).collect();
    let shown = |text: &String| render::printable(text.as_bytes());
    let row = |(snapshot, id): (&SnapshotInfo, &str)| {
        vec![
            vec![id.to_owned()],
            vec![render::time(snapshot.time, zone)],
            vec![shown(&snapshot.host)],
            tags(snapshot),
            snapshot.sources.iter().map(shown).collect(),
            vec![render::size(snapshot.statistics.bytes)],
        ]
    };
    snapshots.zip(render::short_ids(&ids)).map(row).collect()
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
            pinned: false,
            host: "desk".into(),
            user: "me".into(),
            tags: vec!["a".into(), "b".into()],
            sources: vec!["/etc".into(), "/home".into()],
            read: Vec::new(),
            parent: None,
            shard: None,
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
