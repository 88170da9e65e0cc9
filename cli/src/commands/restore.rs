//! `larder restore`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use jiff::tz::TimeZone;
use larder_engine::backup::Server;
use larder_engine::progress::{Muted, Progress};
use larder_engine::repository::Repository;
use larder_engine::restore::{
    BucketRestoreOptions, DatabaseRestoreOptions, Overwrite, RestoreOptions, RestoreReport,
    contents_needs, restore, restore_into_bucket, restore_into_database, restore_needs,
};
use larder_engine::snapshots::SnapshotInfo;
use larder_engine::storage::bucket::Bucket;
use larder_engine::thaw::{self, Need};
use serde::Serialize;

use crate::args::{FilterArgs, SNAPSHOT_HELP, parse_setting};
use crate::commands::backup::database;
use crate::context::{Context, Picked, parse_spec, pick};
use crate::exit::Exit;
use crate::progress::Reporter;
use crate::thaw::ThawArgs;
use crate::{output, render};

/// Restore a snapshot, or a part of it, into a folder, a bucket or a database
///
/// Without PATH every source is made anew below DIR under its own path. With the PATH of a folder
/// what is in it comes into DIR itself, which takes the folder's owner, permissions and times;
/// with the PATH of a file, that file.
///
/// An object of a bucket becomes the file of its key; a key that no file can have is refused by name.
/// Into a bucket, files and objects become objects, with the metadata and tags that they had; then
/// --overwrite if-changed leaves alone what has the same size and ETag, and of the other options only
/// --delete and --dry-run apply.
///
/// A database that was backed up is restored by pg_restore into the one that the target names
/// (postgres://user@host/newdb), which is made if it is not there, all of it or nothing; all databases of a
/// server into one without a database in its URL. Nothing is dropped. Into a folder it becomes one that
/// pg_restore takes.
///
/// Example: larder restore latest:/home/me/letters --target /tmp/letters
#[derive(Debug, Args)]
#[command(after_long_help = SNAPSHOT_HELP)]
pub struct RestoreArgs {
    /// The snapshot, and the file or folder in it
    #[arg(value_name = "SNAPSHOT[:PATH]", required_unless_present = "at")]
    snapshot: Option<OsString>,
    /// Take what there was at this time, e.g. 2026-11-01 or 'last tuesday'; then PATH stands alone
    ///
    /// Of each source the newest snapshot is taken that is not later.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Restore into this folder, which is made if it is not there, or into the bucket or database of this URL
    /// or location
    #[arg(short, long, value_name = "DIR|URL")]
    target: PathBuf,
    /// Set a setting of the bucket that is restored into; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    bucket_option: Vec<(String, String)>,
    /// Sort the listing of the bucket that is restored into, where the store lists without order
    #[arg(long)]
    sort_listing: bool,
    /// Take the password of the PostgreSQL server that is restored into from what this shell command prints
    #[arg(long, value_name = "COMMAND")]
    postgres_password_command: Option<String>,
    /// What happens to files that are there already
    #[arg(long, value_enum, value_name = "WHEN", default_value = "always")]
    overwrite: When,
    /// Remove from the target what the snapshot does not have
    #[arg(long)]
    delete: bool,
    /// Restore only what matches this gitignore-style pattern
    #[arg(short, long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Leave out what matches this gitignore-style pattern
    #[arg(short, long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Write runs of zeros as holes
    #[arg(long)]
    sparse: bool,
    /// Write nothing; say what would be done
    #[arg(short = 'n', long, conflicts_with = "thaw")]
    dry_run: bool,
    /// Write nothing; say which packs lie in cold storage and have to be brought back first, and what that takes
    ///
    /// None of them is read for it.
    #[arg(long, conflicts_with_all = ["dry_run", "thaw"], help_heading = "Cold storage")]
    plan: bool,
    #[command(flatten)]
    thaw: ThawArgs,
    /// Read every restored file back and compare it
    #[arg(long)]
    verify: bool,
    /// Do not set owners; of a database, nor permissions
    #[arg(long, conflicts_with_all = ["numeric_owner", "map_uid", "map_gid"])]
    no_owner: bool,
    /// Set owners by number, not by name
    #[arg(long)]
    numeric_owner: bool,
    /// Give what belongs to user FROM to user TO, by number
    #[arg(long, value_name = "FROM:TO", value_parser = mapping)]
    map_uid: Vec<(u32, u32)>,
    /// Give what belongs to group FROM to group TO, by number
    #[arg(long, value_name = "FROM:TO", value_parser = mapping)]
    map_gid: Vec<(u32, u32)>,
    /// Change existing files in place, not by a temporary file and a rename
    #[arg(long)]
    in_place: bool,
    /// Make device nodes and keep setuid bits even when not run by root
    #[arg(long)]
    devices: bool,
    /// Restore files of which bytes are lost, too, with zeros in their place
    ///
    /// Each is named with the bytes that are lost, and has the time of the restore. Without this such a file is
    /// not restored.
    #[arg(long)]
    lost_as_zeros: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum When {
    /// They are made as in the snapshot; parts that are right are not fetched
    Always,
    /// The same, but files of the same size and modification time are left alone
    IfChanged,
    /// They are left alone
    Never,
}

/// Restores.
///
/// # Errors
/// What keeps the restore from being made; single entries that fail are reported, and in the exit code.
pub fn run(context: &Context, args: &RestoreArgs) -> anyhow::Result<Exit> {
    if args.at.is_none()
        && let Some(named) = &args.snapshot
    {
        parse_spec(named)?;
    }
    if let Some(server) = database(context, &args.target, &args.postgres_password_command)? {
        return args.restore_database(context, &server);
    }
    let bucket = context.bucket(&args.target, &args.bucket_option, None)?;
    let is_bucket = bucket.is_some();
    let mut options = args.options();
    if is_bucket {
        args.refuse("a bucket", &[(args.no_owner, "--no-owner")])?;
    } else {
        options.target = context.settings.path(&args.target)?;
    }
    let repository = context.open()?;
    let (named, at) = (args.snapshot.as_deref(), args.at.as_deref());
    let picked = pick(&repository, named, at, &args.filter.filter())?;
    if is_bucket && args.delete && picked.snapshots.len() > 1 {
        bail!(
            "the sources come from several snapshots, and each would remove what the others have; with --delete restore one at a time"
        );
    }
    if args.at.is_some() {
        tell_picked(context, &picked)?;
    }
    let reporter = context.reporter();
    let folder = (!is_bucket).then_some(&options);
    let (snapshots, path) = (picked.snapshots.as_slice(), picked.path.as_deref());
    let needs = |progress: &dyn Progress| {
        needs_of(context, &repository, (snapshots, path), folder, progress)
    };
    if args.plan {
        return tell_plan(context, &repository, &reporter, &needs);
    }
    let result = args
        .bring_back(context, &repository, &reporter, &needs)
        .and_then(|()| args.restore(context, &repository, &picked, bucket, &options, &reporter));
    reporter.finish();
    let report = result?;
    if context.json() {
        output::summary(&report)?;
    } else if context.talks() {
        output::line(&summary(&report, &options, is_bucket))?;
    }
    Ok(exit(&report))
}

/// Gives what a restore reads of packs; into anything but a folder, of all that the snapshots have.
fn needs_of(
    context: &Context,
    repository: &Arc<Repository>,
    (snapshots, path): (&[SnapshotInfo], Option<&[u8]>),
    folder: Option<&RestoreOptions>,
    progress: &dyn Progress,
) -> anyhow::Result<Vec<Need>> {
    let cancel = context.cancel();
    let mut needs = Vec::new();
    for snapshot in snapshots {
        needs.extend(match folder {
            Some(options) => {
                restore_needs(repository, snapshot, path, options, progress, cancel)?.0
            }
            None => contents_needs(repository, snapshot, path, progress, cancel)?,
        });
    }
    Ok(thaw::joined(needs))
}

/// Says what has to be brought back; asks for nothing and writes nothing.
fn tell_plan(
    context: &Context,
    repository: &Arc<Repository>,
    reporter: &Reporter,
    needs: &dyn Fn(&dyn Progress) -> anyhow::Result<Vec<Need>>,
) -> anyhow::Result<Exit> {
    let needs = needs(reporter).inspect_err(|_| reporter.finish())?;
    crate::thaw::tell_plan(context, repository, reporter, &needs)?;
    Ok(Exit::Success)
}

/// Decides the exit code: what is lost weighs most, for it does not come back by trying again.
fn exit(report: &RestoreReport) -> Exit {
    let was_never_there = report.refused + report.unread;
    match () {
        () if report.lost > 0 => Exit::DataLost,
        () if report.failed > was_never_there => Exit::Failure,
        () if was_never_there + report.cold > 0 => Exit::SourceUnreadable,
        () => Exit::Success,
    }
}

/// Says which snapshots were taken for a time.
fn tell_picked(context: &Context, picked: &Picked) -> anyhow::Result<()> {
    let zone = TimeZone::system();
    for snapshot in &picked.snapshots {
        if context.json() {
            let chosen = Chosen {
                snapshot: &snapshot.id,
                time: snapshot.time.to_string(),
                host: &snapshot.host,
                sources: &snapshot.sources,
            };
            output::message(&mut std::io::stdout().lock(), "chosen", &chosen)?;
        } else if context.talks() {
            let id = snapshot.id.get(..8).unwrap_or(&snapshot.id);
            let time = render::time(snapshot.time, &zone);
            let sources = render::printable(snapshot.sources.join(", ").as_bytes());
            output::line(&format!("snapshot {id} of {time}: {sources}"))?;
        }
    }
    Ok(())
}

/// A snapshot that was taken for a time.
#[derive(Serialize)]
struct Chosen<'a> {
    snapshot: &'a str,
    time: String,
    host: &'a str,
    sources: &'a [String],
}

impl RestoreArgs {
    /// Brings back what the restore will read and lies in cold storage, if that was asked for.
    fn bring_back(
        &self,
        context: &Context,
        repository: &Arc<Repository>,
        reporter: &Reporter,
        needs: &dyn Fn(&dyn Progress) -> anyhow::Result<Vec<Need>>,
    ) -> anyhow::Result<()> {
        let Some(how) = self.thaw.how() else {
            return Ok(());
        };
        // What cannot be restored the restore itself says.
        let needs = || needs(&Muted(reporter));
        crate::thaw::bring_back(context, repository, &how, reporter, &needs)
    }

    /// Restores from each of the snapshots, and gives what that did together.
    fn restore(
        &self,
        context: &Context,
        repository: &Arc<Repository>,
        picked: &Picked,
        bucket: Option<Arc<dyn Bucket>>,
        options: &RestoreOptions,
        reporter: &Reporter,
    ) -> anyhow::Result<RestoreReport> {
        let mut report = RestoreReport::default();
        let (path, cancel) = (picked.path.as_deref(), context.cancel());
        for snapshot in &picked.snapshots {
            report.add(match &bucket {
                Some(bucket) => {
                    let options = BucketRestoreOptions {
                        bucket: Arc::clone(bucket),
                        overwrite: options.overwrite,
                        delete: options.delete,
                        sort_listing: self.sort_listing,
                        dry_run: options.dry_run,
                    };
                    restore_into_bucket(repository, snapshot, path, &options, reporter, cancel)?
                }
                None => restore(repository, snapshot, path, options, reporter, cancel)?,
            });
        }
        Ok(report)
    }

    /// Restores into a database.
    fn restore_database(&self, context: &Context, server: &Server) -> anyhow::Result<Exit> {
        let refused = [(self.delete, "--delete"), (self.dry_run, "--dry-run")];
        self.refuse("a database", &refused)?;
        let repository = context.open()?;
        let (named, at) = (self.snapshot.as_deref(), self.at.as_deref());
        let picked = pick(&repository, named, at, &self.filter.filter())?;
        let is_database = |source: &String| source.starts_with("postgres://");
        let mut snapshots = picked.snapshots.iter();
        let snapshot = match snapshots.find(|one| one.sources.iter().any(is_database)) {
            Some(snapshot) => snapshot,
            None => bail!(
                "there is no database in the snapshot; `larder snapshots` shows what there is"
            ),
        };
        if snapshots.any(|one| one.sources.iter().any(is_database)) {
            bail!(
                "there are databases in several snapshots of that time; name one, e.g. --at TIME postgres://user@host/shop"
            );
        }
        if at.is_some() {
            tell_picked(context, &picked)?;
        }
        let reporter = context.reporter();
        let path = picked.path.as_deref();
        let chosen = (std::slice::from_ref(snapshot), path);
        let needs =
            |progress: &dyn Progress| needs_of(context, &repository, chosen, None, progress);
        if self.plan {
            return tell_plan(context, &repository, &reporter, &needs);
        }
        let options = DatabaseRestoreOptions {
            no_owner: self.no_owner,
        };
        let watched = (&reporter as _, context.cancel());
        let result = self
            .bring_back(context, &repository, &reporter, &needs)
            .and_then(|()| {
                let restored =
                    restore_into_database(&repository, snapshot, path, server, options, watched);
                Ok(restored?)
            });
        reporter.finish();
        let report = result?;
        if context.json() {
            output::summary(&report)?;
        } else if context.talks() {
            output::line(&format!(
                "restored {} in {} into {}, {}",
                render::size(report.bytes),
                render::counted(report.files, "file", "files"),
                server.name(),
                render::duration(report.seconds)
            ))?;
        }
        Ok(Exit::Success)
    }

    /// Refuses what has a meaning for a folder alone, and more.
    fn refuse(&self, target: &str, more: &[(bool, &str)]) -> anyhow::Result<()> {
        let given = [
            (!self.include.is_empty(), "--include"),
            (!self.exclude.is_empty(), "--exclude"),
            (self.sparse, "--sparse"),
            (self.verify, "--verify"),
            (self.numeric_owner, "--numeric-owner"),
            (!self.map_uid.is_empty(), "--map-uid"),
            (!self.map_gid.is_empty(), "--map-gid"),
            (self.in_place, "--in-place"),
            (self.devices, "--devices"),
            (self.lost_as_zeros, "--lost-as-zeros"),
        ];
        match given.iter().chain(more).find(|(is_given, _)| *is_given) {
            Some((_, flag)) => {
                bail!("{flag} does not apply to a restore into {target}; leave it away")
            }
            None => Ok(()),
        }
    }

    fn options(&self) -> RestoreOptions {
        RestoreOptions {
            target: self.target.clone(),
            overwrite: match self.overwrite {
                When::Always => Overwrite::Always,
                When::IfChanged => Overwrite::IfChanged,
                When::Never => Overwrite::Never,
            },
            delete: self.delete,
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            sparse: self.sparse,
            dry_run: self.dry_run,
            verify: self.verify,
            no_owner: self.no_owner,
            numeric_owner: self.numeric_owner,
            map_uid: self.map_uid.clone(),
            map_gid: self.map_gid.clone(),
            in_place: self.in_place,
            devices: self.devices,
            lost_as_zeros: self.lost_as_zeros,
        }
    }
}

fn mapping(text: &str) -> anyhow::Result<(u32, u32)> {
    let wrong = || format!("'{text}' is not FROM:TO, two numbers, e.g. 1000:1001");
    let (from, to) = text.split_once(':').with_context(wrong)?;
    match (from.parse(), to.parse()) {
        (Ok(from), Ok(to)) => Ok((from, to)),
        _ => bail!(wrong()),
    }
}

/// Tells what a restore did, for people.
fn summary(report: &RestoreReport, options: &RestoreOptions, is_bucket: bool) -> String {
    let verb = if options.dry_run {
        "would restore"
    } else {
        "restored"
    };
    let mut text = format!(
        "{verb} {}, {} and {} into {}\n",
        render::counted(report.files, "file", "files"),
        render::counted(report.directories, "folder", "folders"),
        render::counted(report.others, "other entry", "other entries"),
        options.target.display()
    );
    if report.unchanged > 0 {
        let files = render::counted(report.unchanged, "file was", "files were");
        text.push_str(&format!("{files} right already\n"));
    }
    if report.deleted > 0 {
        let entries = render::counted(report.deleted, "entry", "entries");
        let verb = if options.dry_run {
            "would remove"
        } else {
            "removed"
        };
        text.push_str(&format!(
            "{verb} {entries} that the snapshot does not have\n"
        ));
    }
    let written = if options.dry_run {
        "to be written"
    } else {
        "written"
    };
    text.push_str(&format!("{} {written}, ", render::size(report.bytes)));
    if !is_bucket {
        let fetched = render::size(report.bytes_fetched);
        text.push_str(&format!("{fetched} fetched, "));
    }
    text.push_str(&render::duration(report.seconds).to_string());
    if report.cold > 0 {
        let objects = render::counted(report.cold, "object", "objects");
        text.push_str(&format!(
            "\n{objects} had to be thawed first when the backup was made, and the snapshot has no content of them"
        ));
    }
    if report.lost > 0 {
        let entries = render::counted(report.lost, "entry", "entries");
        text.push_str(&format!(
            "\nthe repository has lost something of {entries}; `larder check --read-data` says what, and `larder repair` what can be mended"
        ));
    }
    if report.failed > 0 {
        let entries = render::counted(report.failed, "entry", "entries");
        text.push_str(&format!(
            "\n{entries} could not be restored; see the warnings above"
        ));
    }
    if options.dry_run {
        text.push_str("\ndry run: nothing was written");
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::args::{Arguments, Command};
    use clap::Parser as _;

    fn options(flags: &str) -> RestoreOptions {
        let line = format!("larder restore latest --target /t {flags}");
        let arguments = Arguments::try_parse_from(line.split_whitespace()).unwrap();
        match arguments.command {
            Command::Restore(args) => args.options(),
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn flags_become_options() {
        let made = options("");
        assert_eq!(made.overwrite, Overwrite::Always);
        assert!(!made.delete && !made.sparse && !made.no_owner && made.include.is_empty());
        let made = options(
            "--overwrite if-changed --map-uid 1:2 --map-uid 3:4 --map-gid 5:6 --delete \
             --include *.c --exclude x --verify --in-place --devices --sparse --numeric-owner",
        );
        assert_eq!(made.overwrite, Overwrite::IfChanged);
        assert_eq!(
            (made.map_uid, made.map_gid),
            (vec![(1, 2), (3, 4)], vec![(5, 6)])
        );
        assert_eq!(
            (made.include, made.exclude),
            (vec!["*.c".into()], vec!["x".into()])
        );
        assert!(made.delete && made.verify && made.in_place && made.devices && made.sparse);
        assert!(made.numeric_owner);
    }

    #[test]
    fn a_mapping_is_two_numbers() {
        assert_eq!(mapping("0:4294967295").unwrap(), (0, u32::MAX));
        for text in ["", "1", "1:", ":1", "a:b", "1:4294967296", "-1:0"] {
            assert!(
                mapping(text).unwrap_err().to_string().contains("1000:1001"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_exit_code_tells_what_is_lost_from_what_failed_and_what_was_never_there() {
        let code = |failed, refused, unread, lost, cold| {
            exit(&RestoreReport {
                failed,
                refused,
                unread,
                lost,
                cold,
                ..RestoreReport::default()
            })
            .code()
        };
        assert_eq!(code(0, 0, 0, 0, 0), 0);
        assert_eq!(code(0, 0, 0, 0, 1), 3);
        assert_eq!(code(2, 1, 1, 0, 0), 3);
        assert_eq!(code(3, 1, 1, 0, 0), 1);
        assert_eq!(code(3, 1, 1, 1, 0), 4);
        assert_eq!(code(1, 0, 0, 1, 0), 4);
    }

    #[test]
    fn the_summary_names_what_failed_and_what_was_removed() {
        let report = RestoreReport {
            files: 3,
            directories: 1,
            deleted: 1,
            failed: 2,
            bytes: 1 << 20,
            bytes_fetched: 1 << 10,
            seconds: 1.0,
            ..RestoreReport::default()
        };
        let expected = "\
restored 3 files, 1 folder and 0 other entries into /t
removed 1 entry that the snapshot does not have
1.000 MiB written, 1.000 KiB fetched, 1.00 s
2 entries could not be restored; see the warnings above";
        assert_eq!(summary(&report, &options(""), false), expected);
        let dry = summary(&report, &options("--dry-run"), false);
        assert!(dry.starts_with("would restore 3 files"), "{dry}");
        assert!(dry.contains("1.000 MiB to be written"), "{dry}");
    }
}
