//! `larder stats`.

use std::fmt::Write as _;

use anyhow::Context as _;
use clap::Args;
use jiff::Zoned;
use larder_engine::snapshots::parse_time;
use larder_engine::stats::{History, Stats, stats};

use crate::args::FilterArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::{output, render};

/// Count what the repository holds
///
/// Snapshots and their files are those that the filter lets through; chunks, packs and objects are
/// those of the whole repository. Compression is what packs save of the chunks in them,
/// deduplication what chunks save of all files of all snapshots.
///
/// With --history every snapshot is walked, and listed with what it let the repository grow by, and
/// with what forgetting it alone would free. What is stored is estimated: each chunk counts for its
/// share of its pack.
///
/// With --at they are what there was at a time: each source as in the newest snapshot that is not later.
///
/// Examples: larder stats --host desk
///           larder stats --at 'last tuesday'
///           larder stats --history
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct StatsArgs {
    /// Say for each snapshot what it brought and what it alone needs
    #[arg(long)]
    history: bool,
    /// Count what there was at this time, e.g. 2026-11-01 or 'last tuesday'
    #[arg(long, value_name = "TIME", conflicts_with = "history")]
    at: Option<String>,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Counts what the repository holds.
///
/// # Errors
/// What the engine answers.
pub fn run(context: &Context, args: &StatsArgs) -> anyhow::Result<Exit> {
    let at = args.at.as_deref();
    let at = at.map(|text| parse_time(text, &Zoned::now()));
    let at = at.transpose().context("--at")?;
    let repository = context.open()?;
    let reporter = context.reporter();
    let filter = args.filter.filter();
    let result = stats(
        &repository,
        &filter,
        at,
        args.history,
        &reporter,
        context.cancel(),
    );
    reporter.finish();
    let stats = result?;
    if context.json() {
        output::json(&stats)?;
    } else {
        let is_narrowed = args.at.is_some() || args.filter.is_narrowed();
        output::line(&text(&stats, is_narrowed))?;
    }
    Ok(Exit::Success)
}

fn text(stats: &Stats, is_narrowed: bool) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<24}{value}");
    };
    let count = render::count;
    line("snapshots", count(stats.snapshots));
    line("entries in them", count(stats.entries));
    line("restored size of all", render::size(stats.restore_bytes));
    let chunks = format!(
        "{}, {}",
        count(stats.chunks),
        render::size(stats.chunk_bytes)
    );
    line("distinct chunks", chunks);
    line("cut by", render::printable(stats.chunker.as_bytes()));
    let packs = format!("{}, {}", count(stats.packs), render::size(stats.pack_bytes));
    line("packs", packs);
    let objects = format!(
        "{}, {}",
        count(stats.objects),
        render::size(stats.stored_bytes)
    );
    line("all objects", objects);
    line("compression", ratio(stats.chunk_bytes, stats.pack_bytes));
    // Some of the snapshots beside all of the chunks would be no ratio of anything.
    if !is_narrowed {
        let ratio = ratio(stats.restore_bytes, stats.chunk_bytes);
        line("deduplication", ratio);
    }
    if let Some(history) = &stats.history {
        line(
            "needed of the packs",
            render::size(history.needed_stored_bytes),
        );
        text.push_str(&history_text(history));
    }
    text.trim_end().to_owned()
}

/// Lists the snapshots, the oldest first.
fn history_text(history: &History) -> String {
    let mut text = format!(
        "\n{:<10}{:<22}{:>14}{:>14}{:>14}{:>14}\n",
        "snapshot", "time", "restored", "added", "stored for it", "freed alone"
    );
    for snapshot in &history.snapshots {
        let _ = writeln!(
            text,
            "{:<10}{:<22}{:>14}{:>14}{:>14}{:>14}",
            snapshot.id.get(..8).unwrap_or_default(),
            snapshot.time.get(..19).unwrap_or(&snapshot.time),
            render::size(snapshot.restore_bytes),
            render::size(snapshot.added_bytes),
            render::size(snapshot.added_stored_bytes),
            render::size(snapshot.unique_stored_bytes),
        );
    }
    text
}

/// Shows how much smaller something became.
fn ratio(before: u64, after: u64) -> String {
    if before == 0 || after == 0 {
        return "-".to_owned();
    }
    format!("{:.2} : 1", before as f64 / after as f64)
}

#[cfg(test)]
mod tests {
    use larder_engine::stats::SnapshotStats;

    use super::*;

    #[test]
    fn counts_and_ratios_are_shown() {
        let stats = Stats {
            snapshots: 2,
            entries: 1200,
            restore_bytes: 8 << 30,
            chunker: "fastcdc-v2020".to_owned(),
            chunks: 1000,
            chunk_bytes: 4 << 30,
            packs: 64,
            pack_bytes: 1 << 30,
            objects: 70,
            stored_bytes: 1 << 30,
            history: None,
        };
        let with_history = Stats {
            history: Some(History {
                needed_stored_bytes: 5 << 20,
                snapshots: vec![SnapshotStats {
                    id: "0123456789abcdef".to_owned(),
                    time: "2026-11-01T03:00:00.5Z".to_owned(),
                    host: "desk".to_owned(),
                    restore_bytes: 4 << 20,
                    unique_bytes: 3 << 20,
                    unique_stored_bytes: 1 << 20,
                    added_bytes: 2 << 20,
                    added_stored_bytes: 3 << 10,
                }],
            }),
            ..stats.clone()
        };
        let shown = text(&with_history, false);
        let line = "01234567  2026-11-01T03:00:00        4.000 MiB     2.000 MiB     3.000 KiB     1.000 MiB";
        assert!(shown.ends_with(line), "{shown}");
        assert!(!text(&stats, true).contains("deduplication"));
        let text = text(&stats, false);
        assert!(text.contains("entries in them         1,200\n"), "{text}");
        assert!(
            text.contains("compression             4.00 : 1\n"),
            "{text}"
        );
        assert!(text.ends_with("deduplication           2.00 : 1"), "{text}");
        assert_eq!(ratio(0, 5), "-");
    }
}
