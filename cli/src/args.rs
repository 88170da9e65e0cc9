//! The command line: global options and the list of commands.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::builder::NonEmptyStringValueParser;
use clap::{ArgAction, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use larder_engine::snapshots::Filter;

use crate::commands;
use crate::password::SecretFlags;
use crate::streams;

/// Deduplicated, encrypted backups.
///
/// Larder backs file trees up into one encrypted repository, where what is the same is kept once.
/// A first run:
///
///   larder -r /srv/backup init
///   larder -r /srv/backup backup /home
///   larder -r /srv/backup snapshots
///   larder -r /srv/backup restore latest:/home/me/letters --target /tmp/letters
#[derive(Debug, Parser)]
#[command(
    name = "larder",
    version,
    max_term_width = 100,
    verbatim_doc_comment,
    after_help = crate::exit::HELP
)]
pub struct Arguments {
    /// Options of every command.
    #[command(flatten)]
    pub global: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Where the repository is: a path, a URL, or a location of larder.toml by its name [env: LARDER_REPO]
    #[arg(short, long, global = true, value_name = "LOCATION")]
    pub repo: Option<OsString>,
    /// Read the password from a file [env: LARDER_PASSWORD_FILE]
    ///
    /// The password itself may also stand in LARDER_PASSWORD. With none of these, and nothing in
    /// larder.toml, it is asked for on the terminal.
    #[arg(long, global = true, value_name = "FILE", group = "secret")]
    pub password_file: Option<PathBuf>,
    /// Take the password from what a shell command prints [env: LARDER_PASSWORD_COMMAND]
    #[arg(long, global = true, value_name = "COMMAND", group = "secret")]
    pub password_command: Option<OsString>,
    /// Open with the raw key in a file [env: LARDER_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE", group = "secret")]
    pub key_file: Option<PathBuf>,
    /// Open with the recovery key in a file [env: LARDER_RECOVERY_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE", group = "secret")]
    pub recovery_key_file: Option<PathBuf>,
    /// Set one thing about how the repository's storage is reached; may be repeated
    #[arg(short = 'o', long = "option", global = true, value_name = "KEY=VALUE", value_parser = parse_setting)]
    pub options: Vec<(String, String)>,
    /// Write JSON: lists as one array, long jobs as one object a line, the last the summary
    #[arg(long, global = true)]
    pub json: bool,
    /// Say nothing but warnings, errors and what was asked for
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Log what is done to standard error; twice for more, three times for all
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Show no progress bar
    #[arg(long, global = true)]
    pub no_progress: bool,
    /// Keep local caches in this folder [env: LARDER_CACHE_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Use so many threads for CPU work; 0 for as many as there are cores
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<usize>,
    /// Read settings from this file in place of larder/larder.toml [env: LARDER_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Arguments {
    /// Reads a command line.
    ///
    /// # Errors
    /// What clap has to say to it.
    pub fn read<T: Into<OsString> + Clone>(
        line: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let mut matches = Self::command().try_get_matches_from(line)?;
        let given = matches.subcommand_matches("backup").map(streams::given);
        let mut arguments = Self::from_arg_matches_mut(&mut matches)?;
        // Of what is repeated clap keeps no order among different options.
        if let (Command::Backup(args), Some(given)) = (&mut arguments.command, given) {
            args.given = given;
        }
        Ok(arguments)
    }
}

impl Globals {
    /// Gives the flags that name a secret.
    #[must_use]
    pub fn secret_flags(&self) -> SecretFlags {
        SecretFlags {
            password_file: self.password_file.clone(),
            password_command: self.password_command.clone(),
            key_file: self.key_file.clone(),
            recovery_key_file: self.recovery_key_file.clone(),
        }
    }
}

/// Parses `KEY=VALUE`.
pub fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it has to be KEY=VALUE, such as region=eu-central-1".to_owned()),
    }
}

/// What to do; each command's help stands with its arguments.
#[derive(Debug, Subcommand)]
pub enum Command {
    Init(commands::init::InitArgs),
    Backup(Box<commands::backup::BackupArgs>),
    Snapshots(commands::snapshots::SnapshotsArgs),
    Snapshot(commands::snapshot::SnapshotArgs),
    Ls(commands::ls::LsArgs),
    Find(commands::find::FindArgs),
    History(commands::history::HistoryArgs),
    Diff(commands::diff::DiffArgs),
    Dump(commands::dump::DumpArgs),
    Restore(Box<commands::restore::RestoreArgs>),
    Check(commands::check::CheckArgs),
    Scrub(commands::scrub::ScrubArgs),
    Repair(commands::repair::RepairArgs),
    Parity(commands::parity::ParityArgs),
    Copy(Box<commands::copy::CopyArgs>),
    Export(Box<commands::export::ExportArgs>),
    Import(commands::import::ImportArgs),
    Sync(commands::sync::SyncArgs),
    Prune(commands::prune::PruneArgs),
    Status(commands::status::StatusArgs),
    Stats(commands::stats::StatsArgs),
    Forget(Box<commands::forget::ForgetArgs>),
    Undelete(commands::rewrite::UndeleteArgs),
    Rewrite(Box<commands::rewrite::RewriteArgs>),
    Tag(commands::amend::TagArgs),
    Pin(commands::amend::PinArgs),
    Unpin(commands::amend::UnpinArgs),
    Key(commands::key::KeyArgs),
    Location(commands::location::LocationArgs),
    Job(Box<commands::job::JobArgs>),
    Serve(Box<commands::serve::ServeArgs>),
    Cache(commands::cache::CacheArgs),
    Cat(commands::cat::CatArgs),
    Completions(commands::completions::CompletionsArgs),
    Man(commands::man::ManArgs),
    /// Tell the version
    Version,
}

/// How a snapshot is named, for the long help of the commands that take one.
pub const SNAPSHOT_HELP: &str = "\
SNAPSHOT names a snapshot:
  4f2a91c3              an id, or the beginning of one
  latest                the newest
  latest~2              the second before the newest
  '@[2026-11-01]'       the newest that is not later than a time
  '@[last tuesday]'     the same at the end of that day; yesterday is another
  '@[2 days ago]'       the same, counted from now
--host, --tag and --path narrow which snapshots are looked at.

PATH follows after a colon and is the path as it was backed up:
  latest:/home/me/letters
  '@[2026-11-01 03:00]:/home'";

/// Which snapshots are looked at.
#[derive(Debug, Clone, Default, Args)]
pub struct FilterArgs {
    /// Only snapshots of this host; may be given several times
    #[arg(long, value_name = "HOST", value_parser = NonEmptyStringValueParser::new())]
    pub host: Vec<String>,
    /// Only snapshots with all of these tags, e.g. `--tag nightly,desk`; given several times, any of the lists
    #[arg(long, value_name = "TAG[,TAG...]", value_parser = tag_list)]
    pub tag: Vec<String>,
    /// Only snapshots that have this source, from the current folder if relative; given several times, all of them
    #[arg(long, value_name = "PATH", value_parser = source_path)]
    pub path: Vec<String>,
}

impl FilterArgs {
    /// Tells whether there is any condition.
    #[must_use]
    pub fn is_narrowed(&self) -> bool {
        !(self.host.is_empty() && self.tag.is_empty() && self.path.is_empty())
    }

    /// Gives the filter as the engine takes it.
    #[must_use]
    pub fn filter(&self) -> Filter {
        Filter {
            hosts: self.host.clone(),
            tags: self.tag.clone(),
            paths: self.path.clone(),
        }
    }
}

/// Makes a source's path absolute, as snapshots have it; a URL stays.
fn source_path(text: &str) -> anyhow::Result<String> {
    anyhow::ensure!(!text.is_empty(), "an empty path names no source");
    // A bucket is recorded by its URL.
    if text.contains("://") {
        return Ok(text.to_owned());
    }
    let current = std::env::current_dir().context("cannot tell the current folder")?;
    let path = commands::backup::absolute(Path::new(text), &current)?;
    let path = path.into_os_string().into_string();
    path.map_err(|path| anyhow::anyhow!("the source {} is not UTF-8", path.display()))
}

/// Takes a list of tags, none of which is empty.
fn tag_list(text: &str) -> anyhow::Result<String> {
    anyhow::ensure!(
        text.split(',').all(|tag| !tag.trim().is_empty()),
        "a tag is empty; name one, or leave --tag out to take snapshots with any tags and none"
    );
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        let parse = |line: &str| Arguments::try_parse_from(line.split(' ')).unwrap().global;
        let before = parse("larder -r /a --json --threads 3 -vv snapshots");
        let after = parse("larder snapshots -r /a --json --threads 3 -vv");
        for global in [before, after] {
            assert_eq!(global.repo.as_deref(), Some("/a".as_ref()));
            assert!(global.json);
            assert_eq!((global.threads, global.verbose), (Some(3), 2));
        }
    }

    #[test]
    fn in_export_the_short_option_is_the_output() {
        for line in [
            "larder --option a=b export -o c --option d=e latest",
            "larder -o a=b export --output c latest",
        ] {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert!(!arguments.global.options.is_empty(), "{line}");
            let Command::Export(args) = arguments.command else {
                panic!("{line}");
            };
            assert_eq!(args.output, Path::new("c"));
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for line in [
            "larder snapshots --key-file a --password-file b",
            "larder restore latest --target t --no-owner --numeric-owner",
            "larder restore latest --target t --no-owner --map-uid 1:2",
            "larder restore latest",
            "larder backup /a --compression 20",
            "larder find",
            "larder copy",
            "larder copy --to a --to-password-file b --to-key-file c",
            "larder export",
            "larder export latest",
            "larder export -o a --bundle-password-file b --bundle-key-file c",
            "larder import",
            "larder import a b",
            "larder sync",
            "larder sync promote",
            "larder sync --to /b promote /b",
            "larder check --read-data=0/3",
            "larder repair --undo a --apply",
            "larder repair --from-option a=b",
            "larder prune --max-unused 101%",
            "larder key add --new-key-file a --new-password-file b",
            "larder ls latest -l -0",
            "larder forget latest --keep-last 3",
            "larder tag latest",
            "larder tag latest --set a --add b",
            "larder pin",
            "larder rewrite latest",
            "larder snapshot",
            "larder snapshot join",
            "larder backup s3://b --shard 1/4",
            "larder backup s3://b --run a",
            "larder backup s3://b --shard 5/4 --run a",
            "larder backup s3://b --shard 0/4 --run a",
            "larder backup s3://b --shard 1/4 --run a --at yesterday",
            "larder backup s3://b --shard 1/4 --run a --dry-run",
            "larder rewrite --exclude",
            "larder job add",
            "larder job history --limit 0",
            "larder serve --tls-cert a",
            "larder serve --listen here",
        ] {
            assert!(
                Arguments::try_parse_from(line.split(' ')).is_err(),
                "{line}"
            );
        }
    }

    #[test]
    fn every_command_and_option_has_help() {
        fn look(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                let name = format!("{} {}", command.get_name(), argument.get_id());
                assert!(argument.get_help().is_some(), "{name}");
            }
            command.get_subcommands().for_each(look);
        }
        look(&Arguments::command());
    }
}
