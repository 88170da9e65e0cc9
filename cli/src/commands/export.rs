//! `larder export`.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;
use larder_engine::bundle::{ExportOptions, ExportReport, export, plan_export};
use larder_engine::repository::KdfCost;
use larder_engine::rewrite::CopyReport;
use larder_engine::snapshots::Which;
use tempfile::NamedTempFile;

use crate::args::{FilterArgs, parse_setting};
use crate::context::{Context, parse_whole};
use crate::exit::Exit;
use crate::output::{self, Output};
use crate::password::{self, SecretFlags};
use crate::{person, render};

/// Write snapshots into one file or pipe, under a password of its own
///
/// A bundle is a repository in one stream, to be kept or carried elsewhere. `larder import` brings its
/// snapshots into a repository with other keys, and with -r bundle:FILE it is listed, restored from and
/// checked directly. Whoever has its password has nothing of the repository but these snapshots.
/// Without SNAPSHOT, all snapshots of --host, --tag and --path are exported.
///
/// The file appears when all of it is there. A bundle that was cut off is refused by whoever reads it.
///
/// Examples: larder export latest -o /mnt/usb/desk.bundle
///           larder export -o - latest | ssh host larder import -
///           larder -r bundle:/mnt/usb/desk.bundle restore latest --target /tmp/desk
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct ExportArgs {
    /// Snapshots to export: ids, latest, latest~2, '@[2026-11-01]'
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<OsString>,
    /// Write to this file, or to standard output if it is -
    #[arg(short = 'o', long, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace the file if there is one
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    secret: BundleSecret,
    /// Say what would be exported, and write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Label of the bundle's key slot; whoever has the bundle can read it
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    label: String,
    #[command(flatten)]
    filter: FilterArgs,
    // The same as the option of every command, without its short form.
    /// Set one thing about how the repository's storage is reached; may be repeated
    #[arg(id = "options", long = "option", value_name = "KEY=VALUE", value_parser = parse_setting)]
    #[arg(help_heading = "Global options")]
    _options: Vec<(String, String)>,
}

/// Where the secret of a bundle comes from.
#[derive(Debug, Clone, Default, Args)]
#[group(multiple = false)]
pub struct BundleSecret {
    /// Read the bundle's password from a file [env: LARDER_BUNDLE_PASSWORD_FILE]
    ///
    /// The password itself may also stand in LARDER_BUNDLE_PASSWORD. With none of these it is asked
    /// for on the terminal.
    #[arg(long, value_name = "FILE")]
    bundle_password_file: Option<PathBuf>,
    /// Take it from what a shell command prints [env: LARDER_BUNDLE_PASSWORD_COMMAND]
    #[arg(long, value_name = "COMMAND")]
    bundle_password_command: Option<OsString>,
    /// Open the bundle with the raw key in a file [env: LARDER_BUNDLE_KEY_FILE]
    #[arg(long, value_name = "FILE")]
    bundle_key_file: Option<PathBuf>,
}

impl BundleSecret {
    /// Gives the place that the secret is taken from; none to ask for it.
    #[must_use]
    pub fn source(&self) -> Option<password::SecretSource> {
        let flags = SecretFlags {
            password_file: self.bundle_password_file.clone(),
            password_command: self.bundle_password_command.clone(),
            key_file: self.bundle_key_file.clone(),
            recovery_key_file: None,
        };
        password::choose_of_bundle(&flags, &crate::settings::process_env)
    }
}

/// Exports snapshots.
///
/// # Errors
/// What the engine or writing answers.
pub fn run(context: &Context, args: &ExportArgs) -> anyhow::Result<Exit> {
    let names = args.snapshots.iter().map(|name| parse_whole(name));
    let names = names.collect::<anyhow::Result<Vec<Which>>>()?;
    let is_stream = args.output == Path::new("-");
    refuse(context, args, is_stream)?;
    let options = ExportOptions {
        author: person::author(context)?,
        label: args.label.clone(),
        kdf: KdfCost::default(),
    };
    let repository = context.open()?;
    if args.dry_run {
        let report = plan_export(&repository, &names, &args.filter.filter())?;
        match context.json() {
            true => output::summary(&report)?,
            false => output::line(&planned_line(&report))?,
        }
        return Ok(Exit::Success);
    }
    let secret = password::fresh(args.secret.source(), "new password for the bundle")?;
    let out = match is_stream {
        true => Out::Standard(Output::new()),
        false => Out::of_file(&args.output)?,
    };
    let reporter = context.reporter();
    let mut told = Vec::new();
    let exported = export(
        &repository,
        (names.as_slice(), &args.filter.filter()),
        (out, &secret),
        &options,
        &mut |report| {
            told.push(exported_line(report));
            tell(context, report)
        },
        &reporter,
        context.cancel(),
    );
    reporter.finish();
    let (out, report) = exported?;
    out.persist(&args.output, args.force)?;
    if context.json() {
        output::summary(&report)?;
    } else if context.talks() {
        told.push(last_line(&report, &args.output));
        let say = |line: &String| match is_stream {
            false => output::line(line),
            // Standard output is taken.
            true => writeln!(io::stderr(), "{line}").context("cannot write to standard error"),
        };
        if !is_stream || io::stderr().is_terminal() {
            told.iter().try_for_each(say)?;
        }
    }
    Ok(Exit::Success)
}

/// Refuses before anybody is asked for a password.
fn refuse(context: &Context, args: &ExportArgs, is_stream: bool) -> anyhow::Result<()> {
    if args.dry_run {
        return Ok(());
    }
    if is_stream && io::stdout().is_terminal() {
        bail!("a bundle is no text, and standard output is a terminal; use -o FILE or a pipe");
    }
    if is_stream && context.json() {
        bail!("--json writes to standard output, where the bundle goes; use -o FILE");
    }
    let is_there = args.output.metadata().is_ok_and(|there| there.is_file());
    if !is_stream && is_there && !args.force {
        bail!(
            "{} exists already; --force replaces it",
            args.output.display()
        );
    }
    Ok(())
}

fn tell(context: &Context, report: &CopyReport) -> larder_engine::error::Result<()> {
    if !context.json() {
        return Ok(());
    }
    let mut out = Output::new();
    output::message(&mut out, "exported", report).map_err(output::failed)?;
    out.flush().map_err(output::failed)
}

fn exported_line(report: &CopyReport) -> String {
    let from = report.from.get(..8).unwrap_or(&report.from);
    if report.existed {
        return format!("{from} is a copy of another one, and in the bundle already");
    }
    format!(
        "{from} exported: {}, {}",
        render::counted(report.entries, "entry", "entries"),
        render::size(report.bytes)
    )
}

fn planned_line(report: &ExportReport) -> String {
    format!(
        "would export {}: {}, {}",
        render::counted(report.snapshots, "snapshot", "snapshots"),
        render::counted(report.entries, "entry", "entries"),
        render::size(report.bytes)
    )
}

fn last_line(report: &ExportReport, output: &Path) -> String {
    let place = match output == Path::new("-") {
        true => "standard output".to_owned(),
        false => output.display().to_string(),
    };
    format!(
        "wrote {}, {}, to {place}",
        render::counted(report.snapshots, "snapshot", "snapshots"),
        render::size(report.bytes_written)
    )
}

/// Where a bundle goes.
enum Out {
    /// A file that gets its name when all is in it.
    Named(BufWriter<NamedTempFile>),
    /// A device or a pipe, which no file can replace.
    There(BufWriter<File>),
    /// Standard output.
    Standard(Output),
}

impl Out {
    fn of_file(path: &Path) -> anyhow::Result<Self> {
        let tried = || format!("cannot write {}", path.display());
        if path.metadata().is_ok_and(|there| !there.is_file()) {
            let file = File::options().write(true).open(path);
            return Ok(Self::There(BufWriter::new(file.with_context(tried)?)));
        }
        let name = path.file_name().with_context(tried)?.to_string_lossy();
        let file = tempfile::Builder::new()
            .prefix(&format!(".{name}."))
            .suffix(".partial")
            .tempfile_in(folder_of(path))
            .with_context(tried)?;
        Ok(Self::Named(BufWriter::new(file)))
    }

    /// Gives what was written its name, once it is on the disk.
    fn persist(self, path: &Path, replaces: bool) -> anyhow::Result<()> {
        let tried = || format!("cannot write {}", path.display());
        let Self::Named(out) = self else {
            return Ok(());
        };
        let file = out.into_inner().map_err(io::IntoInnerError::into_error);
        let file = file.with_context(tried)?;
        file.as_file().sync_all().with_context(tried)?;
        let named = match replaces {
            true => file.persist(path),
            false => file.persist_noclobber(path),
        };
        named.map_err(|error| error.error).with_context(tried)?;
        let folder = File::open(folder_of(path)).and_then(|folder| folder.sync_all());
        folder.with_context(tried)
    }
}

fn folder_of(path: &Path) -> &Path {
    let parent = path.parent();
    let parent = parent.filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Named(out) => out.write(bytes),
            Self::There(out) => out.write(bytes),
            Self::Standard(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Named(out) => out.flush(),
            Self::There(out) => out.flush(),
            Self::Standard(out) => out.flush(),
        }
    }
}
