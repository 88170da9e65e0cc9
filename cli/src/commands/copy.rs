//! `larder copy`.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use larder_engine::repository::open_storage;
use larder_engine::rewrite::{CopyOptions, CopyReport, EachCopy, copy_all};
use larder_engine::snapshots::Which;
use serde::Serialize;

use crate::args::{FilterArgs, parse_setting};
use crate::context::{Context, parse_whole};
use crate::exit::Exit;
use crate::output::{self, Output};
use crate::password::{self, SecretFlags};
use crate::progress::Reporter;
use crate::{person, render};

/// Copy snapshots to another repository
///
/// The other repository has its own password and keys, and is made with `larder init` before.
/// Snapshots keep their time, host, user and tags. What the other repository holds already is not
/// stored again, and a snapshot that was copied before is passed over, so the same command can be
/// run every night. Without SNAPSHOT, all snapshots of --host, --tag and --path are copied.
///
/// To keep the same repository in a second place, `larder sync` is faster and needs no password.
///
/// Examples: larder copy --to /mnt/usb/backup
///           larder copy --to nas --to-password-file ~/.nas-password latest
///           larder copy --to s3://bucket/backup --host desk --dry-run
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct CopyArgs {
    /// The other repository: a path, a URL, or a location of larder.toml by its name
    #[arg(long, value_name = "LOCATION")]
    to: String,
    /// Read the other repository's password from a file [env: LARDER_TO_PASSWORD_FILE]
    ///
    /// The password itself may also stand in LARDER_TO_PASSWORD. With none of these it is asked
    /// for on the terminal.
    #[arg(long, value_name = "FILE", group = "to_secret")]
    to_password_file: Option<PathBuf>,
    /// Take it from what a shell command prints [env: LARDER_TO_PASSWORD_COMMAND]
    #[arg(long, value_name = "COMMAND", group = "to_secret")]
    to_password_command: Option<OsString>,
    /// Open the other repository with the raw key in a file [env: LARDER_TO_KEY_FILE]
    #[arg(long, value_name = "FILE", group = "to_secret")]
    to_key_file: Option<PathBuf>,
    /// Set one thing about how the other repository's storage is reached; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    to_option: Vec<(String, String)>,
    /// Snapshots to copy: ids, latest, latest~2, '@[2026-11-01]'
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<OsString>,
    /// Say what would be copied, and write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// What became of all snapshots.
#[derive(Debug, Default, Serialize)]
struct Sums {
    dry_run: bool,
    /// Snapshots that were copied, or would be.
    copied: u64,
    /// Snapshots that were there already.
    existed: u64,
    /// Bytes of new chunks, before compression.
    bytes_added: u64,
    /// Bytes that were written.
    bytes_stored: u64,
    /// Ids of snapshots that could not be copied.
    left: Vec<String>,
}

/// Copies snapshots.
///
/// # Errors
/// What the engine answers, or what keeps either repository from being opened.
pub fn run(context: &Context, args: &CopyArgs) -> anyhow::Result<Exit> {
    let names = args.snapshots.iter().map(|name| parse_whole(name));
    let names = names.collect::<anyhow::Result<Vec<Which>>>()?;
    let options = CopyOptions {
        author: person::author(context)?,
        dry_run: args.dry_run,
    };
    let place = context.second_place(&args.to, &args.to_option)?;
    let storage = open_storage(&place, context.interrupt.flag())
        .with_context(|| format!("the repository at {} is needed to copy to", place.place))?;
    let source = context.open()?;
    let flags = SecretFlags {
        password_file: args.to_password_file.clone(),
        password_command: args.to_password_command.clone(),
        key_file: args.to_key_file.clone(),
        recovery_key_file: None,
    };
    let target = password::open(
        &storage,
        password::choose_second(&flags, &crate::settings::process_env),
        &context.open_options(),
    )?;
    let filter = args.filter.filter();
    reported(context, args.dry_run, &mut |each, reporter| {
        let chosen = (names.as_slice(), &filter);
        let cancel = context.cancel();
        copy_all(&source, &target, chosen, &options, each, reporter, cancel)
    })
}

/// Copies, and gives the ids of what could not be copied.
pub(super) type Copying<'a> =
    &'a mut dyn FnMut(EachCopy<'_>, &Reporter) -> larder_engine::error::Result<Vec<String>>;

/// Copies snapshots, and tells what became of each.
///
/// # Errors
/// What copying answers, or that some could not be copied.
pub(super) fn reported(
    context: &Context,
    dry_run: bool,
    copy: Copying<'_>,
) -> anyhow::Result<Exit> {
    let reporter = context.reporter();
    let mut sums = Sums {
        dry_run,
        ..Sums::default()
    };
    let mut told = Vec::new();
    let mut each = |report: &CopyReport| {
        sums.add(report);
        told.push(copied(report, dry_run));
        tell(context, report)
    };
    let result = copy(&mut each, &reporter);
    reporter.finish();
    if context.talks() || dry_run && !context.json() {
        told.iter().try_for_each(|line| output::line(line))?;
    }
    sums.left = result?;
    if context.json() {
        output::summary(&sums)?;
    } else if context.talks() || dry_run {
        output::line(&sums.text())?;
    }
    if !sums.left.is_empty() {
        bail!(
            "{} not copied; the warnings say why",
            render::counted(sums.left.len() as u64, "snapshot was", "snapshots were"),
        );
    }
    Ok(Exit::Success)
}

fn tell(context: &Context, report: &CopyReport) -> larder_engine::error::Result<()> {
    if !context.json() {
        return Ok(());
    }
    let mut out = Output::new();
    output::message(&mut out, "copied", report).map_err(output::failed)?;
    std::io::Write::flush(&mut out).map_err(output::failed)
}

fn copied(report: &CopyReport, dry_run: bool) -> String {
    let short = |id: &str| id.get(..8).unwrap_or(id).to_owned();
    let from = short(&report.from);
    let what = format!(
        "{}, {}",
        render::counted(report.entries, "entry", "entries"),
        render::size(report.bytes)
    );
    match &report.snapshot {
        Some(there) if report.existed => format!("{from} is there already as {}", short(there)),
        Some(made) => format!(
            "{from} copied as {}: {what}, {} stored",
            short(made),
            render::size(report.bytes_stored)
        ),
        None if dry_run => format!("{from} would be copied: {what}"),
        None => format!("{from} was not copied"),
    }
}

impl Sums {
    fn add(&mut self, report: &CopyReport) {
        match report.existed {
            true => self.existed += 1,
            false => self.copied += 1,
        }
        self.bytes_added += report.bytes_added;
        self.bytes_stored += report.bytes_stored;
    }

    fn text(&self) -> String {
        let snapshots = render::counted(self.copied, "snapshot", "snapshots");
        match self.dry_run {
            true => format!(
                "would copy {snapshots}; {} there already",
                render::count(self.existed)
            ),
            false => format!(
                "copied {snapshots}, {} stored; {} there already",
                render::size(self.bytes_stored),
                render::count(self.existed)
            ),
        }
    }
}
