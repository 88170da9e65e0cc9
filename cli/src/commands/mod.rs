//! The commands, one a file.

pub mod amend;
pub mod backup;
pub mod cache;
pub mod cat;
pub mod change;
pub mod check;
pub mod completions;
pub mod copy;
pub mod diff;
pub mod dump;
pub mod export;
pub mod find;
pub mod forget;
pub mod history;
pub mod import;
pub mod init;
pub mod job;
pub mod key;
pub mod location;
pub mod ls;
pub mod man;
pub mod parity;
pub mod prune;
pub mod repair;
pub mod restore;
pub mod rewrite;
pub mod scrub;
pub mod serve;
pub mod snapshot;
pub mod snapshots;
pub mod stats;
pub mod status;
pub mod sync;
mod version;

use crate::args::Command;
use crate::context::Context;
use crate::exit::Exit;

/// Runs a command.
///
/// # Errors
/// What keeps it from doing what was asked.
pub fn run(context: &Context, command: &Command) -> anyhow::Result<Exit> {
    match command {
        Command::Init(args) => init::run(context, args),
        Command::Backup(args) => backup::run(context, args),
        Command::Snapshots(args) => snapshots::run(context, args),
        Command::Snapshot(args) => snapshot::run(context, args),
        Command::Ls(args) => ls::run(context, args),
        Command::Find(args) => find::run(context, args),
        Command::History(args) => history::run(context, args),
        Command::Diff(args) => diff::run(context, args),
        Command::Dump(args) => dump::run(context, args),
        Command::Restore(args) => restore::run(context, args),
        Command::Check(args) => check::run(context, args),
        Command::Scrub(args) => scrub::run(context, args),
        Command::Repair(args) => repair::run(context, args),
        Command::Parity(args) => parity::run(context, args),
        Command::Copy(args) => copy::run(context, args),
        Command::Export(args) => export::run(context, args),
        Command::Import(args) => import::run(context, args),
        Command::Sync(args) => sync::run(context, args),
        Command::Prune(args) => prune::run(context, args),
        Command::Status(args) => status::run(context, args),
        Command::Stats(args) => stats::run(context, args),
        Command::Forget(args) => forget::run(context, args),
        Command::Undelete(args) => rewrite::undelete(context, args),
        Command::Rewrite(args) => rewrite::rewrite(context, args),
        Command::Tag(args) => amend::tag(context, args),
        Command::Pin(args) => amend::pin(context, args),
        Command::Unpin(args) => amend::unpin(context, args),
        Command::Key(args) => key::run(context, args),
        Command::Location(args) => location::run(context, args),
        Command::Job(args) => job::run(context, args),
        Command::Serve(args) => serve::run(context, args),
        Command::Cache(args) => cache::run(context, args),
        Command::Cat(args) => cat::run(context, args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(context, args),
        Command::Version => version::run(context),
    }
}
