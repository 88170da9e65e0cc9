//! `larder stats`.

use std::fmt::Write as _;

use clap::Args;
use larder_engine::stats::{Stats, stats};

use crate::args::FilterArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::{output, render};

/// Count what the repository holds
///
/// Snapshots and their files are those that the filter lets through; chunks, packs and objects are
/// those of the whole repository.
///
/// Example: larder stats --host desk
#[derive(Debug, Args)]
pub struct StatsArgs {
    #[command(flatten)]
    filter: FilterArgs,
}

/// Counts what the repository holds.
///
/// # Errors
/// What the engine answers.
pub fn run(context: &Context, args: &StatsArgs) -> anyhow::Result<Exit> {
    let repository = context.open()?;
    let stats = stats(&repository, &args.filter.filter())?;
    if context.json() {
        output::json(&stats)?;
    } else {
        output::line(&text(&stats))?;
    }
    Ok(Exit::Success)
}

fn text(stats: &Stats) -> String {
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
    let packs = format!("{}, {}", count(stats.packs), render::size(stats.pack_bytes));
    line("packs", packs);
    let objects = format!(
        "{}, {}",
        count(stats.objects),
        render::size(stats.stored_bytes)
    );
    line("all objects", objects);
    line("compression", ratio(stats.chunk_bytes, stats.pack_bytes));
    line(
        "deduplication",
        ratio(stats.restore_bytes, stats.chunk_bytes),
    );
    text.trim_end().to_owned()
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
    use super::*;

    #[test]
    fn counts_and_ratios_are_shown() {
        let stats = Stats {
            snapshots: 2,
            entries: 1200,
            restore_bytes: 8 << 30,
            chunks: 1000,
            chunk_bytes: 4 << 30,
            packs: 64,
            pack_bytes: 1 << 30,
            objects: 70,
            stored_bytes: 1 << 30,
        };
        let text = text(&stats);
        assert!(text.contains("entries in them         1,200\n"), "{text}");
        assert!(
            text.contains("compression             4.00 : 1\n"),
            "{text}"
        );
        assert!(text.ends_with("deduplication           2.00 : 1"), "{text}");
        assert_eq!(ratio(0, 5), "-");
    }
}
