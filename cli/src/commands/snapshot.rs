//! `larder snapshot`.

use clap::{Args, Subcommand};
use larder_engine::shards::{JoinOptions, JoinReport, join};

use crate::context::Context;
use crate::exit::Exit;
use crate::{output, person, render};

/// Make one snapshot of the shards of a run
#[derive(Debug, Args)]
pub struct SnapshotArgs {
    #[command(subcommand)]
    command: SnapshotCommand,
}

#[derive(Debug, Subcommand)]
enum SnapshotCommand {
    Join(JoinArgs),
}

/// Join the shards of a run (`larder backup --shard I/N --run ID`) into one snapshot
///
/// The last shard to finish does so by itself: this is for a run whose last shard could not. It fails if
/// shards are missing, and names them, and if they are not all of the bucket, each key once. A run that was joined
/// already is said to be.
///
/// Example: larder snapshot join --run nightly-2026-11-22
#[derive(Debug, Args)]
struct JoinArgs {
    /// The name of the run
    #[arg(long, value_name = "ID")]
    run: String,
}

/// Does what was asked of snapshots.
///
/// # Errors
/// What the engine answers.
pub fn run(context: &Context, args: &SnapshotArgs) -> anyhow::Result<Exit> {
    let SnapshotCommand::Join(args) = &args.command;
    let options = JoinOptions {
        run: args.run.clone(),
        author: person::author(context)?,
    };
    let repository = context.open()?;
    let reporter = context.reporter();
    let joined = join(&repository, &options, &reporter, context.cancel());
    reporter.finish();
    let report = joined?;
    if context.json() {
        output::summary(&report)?;
    } else if context.talks() {
        output::line(&told(&report))?;
    }
    Ok(Exit::Success)
}

/// Tells what was joined, for people.
fn told(report: &JoinReport) -> String {
    let JoinReport { run, snapshot, .. } = report;
    let id = snapshot.get(..8).unwrap_or(snapshot);
    match report.existed {
        true => format!("the run {run} was joined already: snapshot {id}"),
        false => format!(
            "joined {} with {} in {}\nsnapshot {id} saved",
            render::counted(report.shards, "shard", "shards"),
            render::counted(report.entries, "entry", "entries"),
            render::duration(report.seconds)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_joined_is_told() {
        let report = JoinReport {
            run: "nightly".to_owned(),
            snapshot: "0123456789abcdef".to_owned(),
            existed: false,
            shards: 4,
            entries: 1200,
            bytes_stored: 7,
            seconds: 4.25,
        };
        let expected = "joined 4 shards with 1,200 entries in 4.25 s\nsnapshot 01234567 saved";
        assert_eq!(told(&report), expected);
        let again = JoinReport {
            existed: true,
            ..report
        };
        let expected = "the run nightly was joined already: snapshot 01234567";
        assert_eq!(told(&again), expected);
    }
}
