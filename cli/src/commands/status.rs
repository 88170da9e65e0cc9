//! `larder status`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use larder_engine::ledger::{Verified, verified};
use larder_engine::snapshots;
use larder_engine::status::{SourceStatus, Unusual, status};

use super::check;
use crate::args::FilterArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, Output};
use crate::render::{self, Side, Table};
use crate::times;

/// Tell when each source was last backed up, and whether all was as usual
///
/// One line for each host and its sources: the newest complete snapshot, how long ago it was begun, and
/// what of its size, number of files or duration is ten times more or less than it usually was. With
/// Below it stands what share of all packs was read and verified lately, by the checks of all machines. With
/// --max-age it ends with 6 if any of them is older, or there is none: made for monitoring.
///
/// Examples: larder status --max-age 26h --host desk
///           larder status --prometheus > /var/lib/node_exporter/larder.prom
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct StatusArgs {
    /// End with 6 if a newest snapshot is older than this, e.g. 26h
    #[arg(long, value_name = "DURATION", value_parser = times::seconds)]
    max_age: Option<u64>,
    /// Write it as metrics for Prometheus
    #[arg(long)]
    prometheus: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Tells how the backups stand.
///
/// # Errors
/// What the engine answers.
pub fn run(context: &Context, args: &StatusArgs) -> anyhow::Result<Exit> {
    if args.prometheus && context.json() {
        bail!("--prometheus and --json are two forms of the same; choose one");
    }
    let repository = context.open()?;
    let snapshots = snapshots::list(&repository, &args.filter.filter(), false)?;
    let max_age = args.max_age.map(Duration::from_secs);
    let found = status(&snapshots, Timestamp::now(), max_age);
    let verified = verified(&repository)?;
    if args.prometheus {
        let mut out = Output::new();
        out.write_all(metrics(&found, &verified).as_bytes())?;
        out.flush()?;
    } else if context.json() {
        let rows = found.iter().map(|source| Row {
            source,
            verified: &verified,
        });
        output::json(&rows.collect::<Vec<_>>())?;
    } else {
        let mut out = Output::new();
        table(&found, &TimeZone::system()).write(&mut out)?;
        writeln!(out, "{}", check::share(&verified))?;
        out.flush()?;
    }
    let is_stale = found.iter().any(|one| one.is_stale) || found.is_empty();
    Ok(match args.max_age {
        Some(_) if is_stale => Exit::Stale,
        _ => Exit::Success,
    })
}

/// A source, with what was verified of the repository as a whole.
#[derive(serde::Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    source: &'a SourceStatus,
    verified: &'a Verified,
}

fn table(found: &[SourceStatus], zone: &TimeZone) -> Table<'static> {
    let printable = |text: &String| render::printable(text.as_bytes());
    let row = |one: &SourceStatus| {
        let mut remarks: Vec<_> = one.unusual.iter().map(remark).collect();
        if one.is_stale {
            remarks.insert(0, "too old".to_owned());
        }
        vec![
            vec![printable(&one.host)],
            one.sources.iter().map(printable).collect(),
            vec![render::time(one.time, zone)],
            vec![age(one.age_seconds)],
            vec![render::count(one.snapshots)],
            vec![render::size(one.figures.bytes)],
            remarks,
        ]
    };
    Table {
        columns: &[
            ("Host", Side::Left),
            ("Sources", Side::Left),
            ("Last backup", Side::Left),
            ("Ago", Side::Right),
            ("Snapshots", Side::Right),
            ("Size", Side::Right),
            ("", Side::Left),
        ],
        rows: found.iter().map(row).collect(),
        footer: match found.len() {
            0 => "no snapshots".to_owned(),
            count => render::counted(count as u64, "source", "sources"),
        },
    }
}

/// Says what a figure is, and what it usually was.
pub fn remark(unusual: &Unusual) -> String {
    let Unusual {
        figure,
        is,
        usually,
    } = *unusual;
    match figure {
        "bytes" => format!("{}, usually {}", render::size(is), render::size(usually)),
        "files" => format!(
            "{} files, usually {}",
            render::count(is),
            render::count(usually)
        ),
        _ => format!(
            "took {}, usually {}",
            render::duration(is as f64),
            render::duration(usually as f64)
        ),
    }
}

/// Shows an age in its two largest units, e.g. `3d 4h`.
pub fn age(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}min"),
        (0, _) => format!("{hours}h {minutes}min"),
        _ => format!("{days}d {hours}h"),
    }
}

/// The metrics, in the order of [`values`], each with what it means.
const METRICS: [(&str, &str); 6] = [
    (
        "larder_last_snapshot_timestamp_seconds",
        "When the newest complete snapshot was begun.",
    ),
    (
        "larder_last_snapshot_bytes",
        "Bytes of all files of the newest snapshot.",
    ),
    (
        "larder_last_snapshot_files",
        "Files of the newest snapshot.",
    ),
    (
        "larder_last_snapshot_duration_seconds",
        "How long the newest snapshot took.",
    ),
    (
        "larder_last_snapshot_unusual",
        "How many of these figures are far from what was usual.",
    ),
    ("larder_snapshots", "How many snapshots there are."),
];

fn values(one: &SourceStatus) -> [i128; 6] {
    [
        one.time.as_second().into(),
        one.figures.bytes.into(),
        one.figures.files.into(),
        one.figures.seconds.into(),
        one.unusual.len() as i128,
        one.snapshots.into(),
    ]
}

/// Writes Prometheus' text format, version 0.0.4.
fn metrics(found: &[SourceStatus], verified: &Verified) -> String {
    let mut text = verified_metrics(verified);
    for (place, (name, help)) in METRICS.into_iter().enumerate() {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for one in found {
            let (host, sources) = (label(&one.host), label(&one.sources.join(",")));
            let value = values(one).get(place).copied().unwrap_or_default();
            let _ = writeln!(
                text,
                "{name}{{host=\"{host}\",sources=\"{sources}\"}} {value}"
            );
        }
    }
    text
}

fn verified_metrics(verified: &Verified) -> String {
    let mut text = "# HELP larder_verified_bytes Bytes of packs that were verified within so many days.\n# TYPE larder_verified_bytes gauge\n".to_owned();
    for (days, bytes) in [
        (7, verified.days_7),
        (30, verified.days_30),
        (90, verified.days_90),
    ] {
        let _ = writeln!(text, "larder_verified_bytes{{days=\"{days}\"}} {bytes}");
    }
    let _ = writeln!(
        text,
        "# HELP larder_pack_bytes Bytes of all packs that count.\n# TYPE larder_pack_bytes gauge\nlarder_pack_bytes {}",
        verified.bytes
    );
    text
}

fn label(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    escaped.replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use larder_engine::status::Figures;

    use super::*;

    fn one() -> SourceStatus {
        SourceStatus {
            host: "desk".into(),
            sources: vec!["/etc".into(), "/a \"b\"\\\n".into()],
            snapshot: "01234567".into(),
            time: "2026-11-01T03:00:00Z".parse().unwrap(),
            age_seconds: 100_000,
            is_stale: true,
            snapshots: 7,
            figures: Figures {
                bytes: 3 << 20,
                files: 12,
                seconds: 4,
            },
            unusual: vec![Unusual {
                figure: "bytes",
                is: 3 << 20,
                usually: 3 << 30,
            }],
        }
    }

    #[test]
    fn people_see_a_table() {
        let mut bytes = Vec::new();
        table(&[one()], &TimeZone::UTC).write(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        for expected in [
            "desk",
            "2026-11-01 03:00:00",
            "1d 3h",
            "too old",
            "3.000 MiB, usually 3.000 GiB",
        ] {
            assert!(text.contains(expected), "{text}");
        }
        assert_eq!(
            [59, 60, 3600, 86_399].map(age),
            ["0min", "1min", "1h 0min", "23h 59min"]
        );
    }

    #[test]
    fn prometheus_gets_lines_that_it_can_read() {
        let verified = Verified {
            bytes: 100,
            days_30: 40,
            ..Verified::default()
        };
        let text = metrics(&[one()], &verified);
        let line = "larder_last_snapshot_timestamp_seconds{host=\"desk\",sources=\"/etc,/a \\\"b\\\"\\\\\\n\"} 1793502000\n";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("# TYPE larder_snapshots gauge\nlarder_snapshots{"));
        assert!(
            text.contains("larder_verified_bytes{days=\"30\"} 40\n"),
            "{text}"
        );
        assert!(text.contains("\nlarder_pack_bytes 100\n"), "{text}");
        assert_eq!(text.lines().count(), 26);
    }
}
