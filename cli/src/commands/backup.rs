//! `larder backup`.

use std::ffi::OsStr;
use std::io::Read as _;
use std::num::NonZeroU64;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use jiff::{Timestamp, Zoned};
use larder_engine::amend::clean_tags;
use larder_engine::backup::{
    BackupOptions, BackupReport, Buckets, ChangeBy, ChangedKeys, CheckpointRhythm, Compression,
    Origin, Selection, Server, Stream, Streams, backup,
};
use larder_engine::hooks::HookReport;
use larder_engine::shards::{ShardOptions, ShardReport};
use larder_engine::snapshots::parse_time;
use larder_engine::storage::bucket::Bucket;
use larder_engine::storage::bucket::thawing::Thawing;

use crate::args::parse_setting;
use crate::context::Context;
use crate::exit::Exit;
use crate::hooks::{HookArgs, Hooks, Outcome};
use crate::settings::{BackupSettings, Env, Settings, process_env};
use crate::streams::{self, Given, Turn};
use crate::thaw::{ThawArgs, thawing, wait_for_buckets};
use crate::{output, password, person, render, times};

/// How often a backup is made again for what was brought back from cold storage meanwhile.
const THAWS_MAX: usize = 5;
/// Seconds between checkpoints unless told otherwise.
const CHECKPOINT_SECONDS: u64 = 300;

/// Back up files, folders, buckets, streams and databases into a new snapshot
///
/// Files whose size, times and inode are as in the parent (the newest snapshot of the same host
/// and sources) are not read again. An interrupted backup leaves a checkpoint, from which the next
/// one goes on. Every option but the ones for a single run can have a default in larder.toml;
/// patterns given here are added to those there, and --SWITCH=false turns a switch of the file off.
///
/// A bucket is named by its URL (s3://bucket/prefix, gs://bucket/prefix, az://container/prefix) or by its
/// location in larder.toml. Its objects are compared by what its listing shows, and those that are the same are
/// not asked for. Patterns and --exclude-larger-than apply to its keys, whose parts between slashes are
/// as folders; what is said of marks and ignore files in folders does not.
///
/// A stream is one file of unknown length: what a command prints (--command 'pg_dump shop' --name
/// shop.sql), or what is piped in (--stdin --name shop.sql). It is read whole every time, and only what is
/// new of it is stored. Sources are read one after the other, in the order in which they are given.
///
/// A database of PostgreSQL is named by its URL, postgres://user@host:port/database, or all of a server, with
/// its roles, by one without a database. pg_dump is run, and the rows of each table become one file, so
/// that tables that are the same are kept once; postgres+basebackup://user@host takes the files of the whole
/// server by pg_basebackup, and verifies them. The password comes from PGPASSWORD, ~/.pgpass or
/// --postgres-password-command, never from the URL.
///
/// Hooks are shell commands; their environment tells LARDER_HOOK, LARDER_REPOSITORY and LARDER_HOST, and
/// those that come after LARDER_OUTCOME (success, incomplete, failure, interrupted), LARDER_EXIT_CODE,
/// LARDER_SNAPSHOT and LARDER_ERROR. Those around a source have LARDER_SOURCE, and neither exit code nor
/// snapshot.
///
/// Example: larder backup /home /etc --exclude '*.iso' --exclude-caches --tag nightly
#[derive(Debug, Default, Args)]
pub struct BackupArgs {
    /// Files, folders, buckets and databases to back up; by default those of larder.toml
    #[arg(value_name = "SOURCE")]
    sources: Vec<PathBuf>,
    /// What was given of sources and streams, in its order.
    #[arg(skip)]
    pub given: Vec<Given>,

    /// Back up what is piped into standard input, as the file that --name says
    #[arg(long, help_heading = "Streams")]
    stdin: bool,
    /// Back up what this shell command prints, as the file that --name says; may be given several times
    ///
    /// If it does not end with exit code 0, no snapshot is made.
    #[arg(long, value_name = "COMMAND", help_heading = "Streams")]
    command: Vec<String>,
    /// The path of the --command or --stdin before it in the snapshot, e.g. db.sql or dumps/db.sql
    #[arg(long, value_name = "PATH", help_heading = "Streams")]
    name: Vec<String>,
    /// Take the password of PostgreSQL servers from what this shell command prints
    #[arg(long, value_name = "COMMAND", help_heading = "Streams")]
    postgres_password_command: Option<String>,

    /// Leave out what matches this gitignore-style pattern; `!` before a pattern takes back
    #[arg(short, long, value_name = "PATTERN", help_heading = "Selection")]
    exclude: Vec<String>,
    /// The same, whatever the case
    #[arg(long, value_name = "PATTERN", help_heading = "Selection")]
    iexclude: Vec<String>,
    /// Leave out what matches the patterns in this file, one a line
    #[arg(long, value_name = "FILE", help_heading = "Selection")]
    exclude_file: Vec<PathBuf>,
    /// The same, whatever the case
    #[arg(long, value_name = "FILE", help_heading = "Selection")]
    iexclude_file: Vec<PathBuf>,
    /// Heed files of this name, which hold patterns for the folder they are in
    #[arg(long, value_name = "NAME", help_heading = "Selection")]
    ignore_file: Option<String>,
    /// Leave out folders that hold a file NAME (which begins with HEADER, if that is given)
    #[arg(long, value_name = "NAME[:HEADER]", help_heading = "Selection")]
    exclude_if_present: Vec<String>,
    /// Leave out folders with a valid CACHEDIR.TAG
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true, help_heading = "Selection")]
    exclude_caches: Option<bool>,
    /// Leave out files larger than this, e.g. 500M or 2G
    #[arg(long, value_name = "SIZE", value_parser = times::bytes, help_heading = "Selection")]
    exclude_larger_than: Option<u64>,
    /// Do not enter other file systems
    #[arg(short = 'x', long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true, help_heading = "Selection")]
    one_file_system: Option<bool>,
    /// Back up only the paths in this file, one a line
    ///
    /// They lie below the sources; without SOURCE they may lie anywhere. Blank lines and lines that
    /// begin with # are skipped. - is standard input.
    #[arg(long, value_name = "FILE", help_heading = "Selection")]
    files_from: Vec<PathBuf>,
    /// The same, with a NUL after each path and nothing skipped
    #[arg(long, value_name = "FILE", help_heading = "Selection")]
    files_from0: Vec<PathBuf>,

    /// Tags of the snapshot
    #[arg(
        long,
        value_name = "TAG[,TAG...]",
        value_delimiter = ',',
        help_heading = "Snapshot"
    )]
    tag: Vec<String>,
    /// Host name of the snapshot [env: LARDER_HOST] [default: the machine's]
    #[arg(long, value_name = "HOST", help_heading = "Snapshot")]
    host: Option<String>,
    /// Time of the snapshot, e.g. '2026-11-01 03:00' [default: now]
    #[arg(long, value_name = "TIME", help_heading = "Snapshot")]
    time: Option<String>,
    /// Make no snapshot if nothing changed since the parent
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true, help_heading = "Snapshot")]
    skip_if_unchanged: Option<bool>,
    /// Write nothing; say what would be new
    #[arg(short = 'n', long, help_heading = "Snapshot")]
    dry_run: bool,

    /// Compare with this snapshot [default: the newest of the same host and sources]
    #[arg(long, value_name = "ID", help_heading = "Reading")]
    parent: Option<String>,
    /// Read every file, whatever the parent says
    #[arg(short, long, help_heading = "Reading")]
    force: bool,
    /// Do not compare ctime
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true, help_heading = "Reading")]
    ignore_ctime: Option<bool>,
    /// Do not compare inode numbers
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true, help_heading = "Reading")]
    ignore_inode: Option<bool>,
    /// Keep the time of the last read
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true, help_heading = "Reading")]
    with_atime: Option<bool>,
    /// Read block devices and named pipes as files
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true, help_heading = "Reading")]
    read_special: Option<bool>,

    /// What tells that an object of a bucket changed, besides its size [default: etag,size,mtime]
    #[arg(
        long,
        value_name = "WHAT[,WHAT...]",
        value_delimiter = ',',
        value_enum,
        help_heading = "Buckets"
    )]
    change_by: Vec<ChangeSign>,
    /// Ask each object that is the same for its tags: a change of tags alone shows in no listing
    ///
    /// This costs a request an object. Google's objects have no tags.
    #[arg(long, conflicts_with = "changed_keys", help_heading = "Buckets")]
    check_tags: bool,
    /// Fail if more than this many percent of a bucket's objects are gone since the parent
    #[arg(long, value_name = "PERCENT", default_value = "30",
          value_parser = clap::value_parser!(u8).range(0..=100), help_heading = "Buckets")]
    allow_vanished: u8,
    /// Look only at the keys of the bucket that this file says have changed, and list nothing
    ///
    /// Everything else is as in the parent snapshot. The file has one key a line, notifications of
    /// S3, EventBridge or Google as JSON, one a line, or an S3 inventory as CSV; - is standard
    /// input. It has to name all that changed, or went, since the parent was begun.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "force",
        help_heading = "Buckets"
    )]
    changed_keys: Option<PathBuf>,
    /// With --changed-keys, list the bucket all the same every so many snapshots
    #[arg(long, value_name = "COUNT", default_value = "30", requires = "changed_keys",
          value_parser = clap::value_parser!(u64).range(1..), help_heading = "Buckets")]
    list_every: u64,
    /// Back up buckets of S3 that keep versions as they were at this time, which the snapshot has, too
    ///
    /// Of an object of a bucket without versions only what did not change since is there.
    #[arg(long, value_name = "TIME", conflicts_with_all = ["changed_keys", "check_tags"], help_heading = "Buckets")]
    at: Option<String>,
    /// Back up only this share of one bucket's keys, e.g. 2/4; other processes or machines back up the others
    ///
    /// All are told the same --run and --host. The first of them says how the bucket is divided, and
    /// the last to finish makes one snapshot of them. One that died is run again alone.
    #[arg(long, value_name = "I/N", value_parser = share, requires = "run",
          conflicts_with_all = ["at", "changed_keys", "sort_listing", "dry_run", "skip_if_unchanged"], help_heading = "Buckets")]
    shard: Option<(u64, u64)>,
    /// The name that the shards of one backup have in common, another one each time, e.g. photos-2026-11-22
    #[arg(long, value_name = "ID", requires = "shard", help_heading = "Buckets")]
    run: Option<String>,
    /// Sort the listings of buckets, for stores that list without order: S3 directory buckets, and Azure's
    /// accounts with a hierarchical namespace
    ///
    /// The listing is read whole first; what does not fit into memory goes to the folder of local caches.
    #[arg(long, help_heading = "Buckets")]
    sort_listing: bool,
    /// Set a setting of the buckets that are backed up; may be given several times
    ///
    /// What -o sets is of the repository's location alone.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting, help_heading = "Buckets")]
    bucket_option: Vec<(String, String)>,
    #[command(flatten)]
    thaw: ThawArgs,

    /// `off`, `auto` (zstd level 3 where it pays), or a level of zstd from 1 to 19 [default: auto]
    #[arg(long, value_name = "HOW", value_parser = compression, help_heading = "Writing")]
    compression: Option<Compression>,
    /// Whether small pieces are compressed together [default: on]
    #[arg(long, value_name = "WHETHER", help_heading = "Writing")]
    solid: Option<Switch>,
    /// Do not open each block and compare it with what went in before it is uploaded
    ///
    /// This finds what a faulty processor or memory would make of backups, and takes little time.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", hide_possible_values = true, help_heading = "Writing")]
    no_verify_blocks: Option<bool>,
    /// Time between checkpoints, e.g. 90s or 10m [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = checkpoint, help_heading = "Writing")]
    checkpoint_interval: Option<u64>,
    /// Makes a checkpoint after so many entries too, for tests that cannot wait
    #[arg(long, value_name = "COUNT", hide = true)]
    checkpoint_entries: Option<NonZeroU64>,

    #[command(flatten)]
    hooks: HookArgs,
}

/// What tells that an object changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ChangeSign {
    /// Its ETag
    Etag,
    /// Its size
    Size,
    /// Its time of modification
    Mtime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

/// What was made, or nearly.
pub struct Made {
    /// The exit code of the backup itself.
    pub exit: Exit,
    /// What it did.
    pub report: BackupReport,
    /// What failed behind it: one of its hooks.
    pub hook_failure: Option<anyhow::Error>,
}

/// Backs the sources up.
///
/// # Errors
/// What keeps the snapshot from being made, and what a hook behind it did.
pub fn run(context: &Context, args: &BackupArgs) -> anyhow::Result<Exit> {
    let made = carry_out(context, args)?;
    made.hook_failure.map_or(Ok(made.exit), Err)
}

/// Backs the sources up, runs the hooks around that, and says what was done.
///
/// # Errors
/// What keeps the snapshot from being made.
pub fn carry_out(context: &Context, args: &BackupArgs) -> anyhow::Result<Made> {
    let (mut options, thawing) = options_of(context, args)?;
    let location = context.place()?.place.to_string();
    let mut hooks = args.hooks(&context.settings.backup, location, options.host.clone())?;
    options.hooks = hooks.of_sources.clone();
    let reporter = context.reporter();
    let cancel = context.cancel();
    let result = hooks.before().and_then(|()| {
        // A repository that does not open is a failure that hooks are told of, and one of those before may
        // mount the disk that it is on.
        let repository = context.open()?;
        let mut report = backup(&repository, &options, &reporter, cancel)?;
        if let Some(how) = args.thaw.how() {
            for _ in 0..THAWS_MAX {
                if report.cold == 0 || !wait_for_buckets(context, &thawing, &how, &reporter)? {
                    break;
                }
                report = backup(&repository, &options, &reporter, cancel)?;
            }
        }
        Ok((exit_of(&report), report))
    });
    reporter.finish();
    let told = result.as_ref().err().map(crate::paragraph);
    let outcome = match &result {
        Ok((exit, report)) => Outcome {
            exit: *exit,
            snapshot: report.snapshot.as_deref(),
            error: None,
        },
        Err(error) => Outcome {
            exit: Exit::of(error),
            snapshot: None,
            error: told.as_deref(),
        },
    };
    if let Ok((_, report)) = &result {
        hooks.reports.extend_from_slice(&report.hooks);
    }
    let after = hooks.after(&outcome);
    let (exit, report) = match (result, &after) {
        (Ok(done), _) => done,
        (Err(error), Ok(())) => return Err(error),
        (Err(error), Err(hook)) => {
            // The first failure decides; the other must not be silent.
            crate::report(&format!("warning: {hook}"), Exit::Failure, false);
            return Err(error);
        }
    };
    if context.json() {
        output::summary(&Summary {
            report: &report,
            hooks: &hooks.reports,
        })?;
    } else if context.talks() {
        output::line(&summary(&report, options.dry_run))?;
    }
    let mut of_sources = report.hooks.iter();
    let failed = of_sources.find(|hook| !hook.succeeded && hook.hook != "before-source");
    let failed = failed.map(|hook| anyhow::anyhow!(hook.failure()));
    Ok(Made {
        exit,
        report,
        hook_failure: after.err().or(failed),
    })
}

/// Gives what is backed up, and how, with its buckets, databases and streams.
fn options_of(
    context: &Context,
    args: &BackupArgs,
) -> anyhow::Result<(BackupOptions, Vec<Arc<Thawing>>)> {
    let mut all_thawing = Vec::new();
    let now = Zoned::now();
    let mut options = args.options(&context.settings, &process_env, &now)?;
    let at = args.at(&now)?;
    if at.is_some() {
        // A range that ends among versions of another time would be listed on to the end of the bucket.
        options.buckets.range_keys = u64::MAX;
    }
    for source in args.named(&context.settings.backup) {
        let name = if let Some(server) = database(context, source, &args.postgres_password_command)?
        {
            let name = server.name();
            options.streams.databases.push(server);
            name
        } else if let Some(bucket) = context.bucket(source, &args.bucket_option, at)? {
            let name = bucket.describe();
            // A dry run asks for nothing.
            let how = args.thaw.how().filter(|_| !options.dry_run);
            let thawing = how.and_then(|how| thawing(Arc::clone(&bucket), &how));
            if how.is_some() && thawing.is_none() && !context.globals.quiet {
                eprintln!(
                    "larder: {name} keeps nothing in cold storage, so there is nothing to bring back"
                );
            }
            options.buckets.sources.push(match &thawing {
                Some(thawing) => Arc::clone(thawing) as Arc<dyn Bucket>,
                None => bucket,
            });
            all_thawing.extend(thawing);
            name
        } else {
            continue;
        };
        let order = options.streams.order.iter_mut();
        let mut same = order.filter(|one| *one == source.as_os_str().as_bytes());
        if let Some(one) = same.next() {
            *one = name.into_bytes();
        }
    }
    let others = [
        options.sources.len(),
        options.selection.only.len(),
        options.streams.sources.len(),
        options.streams.databases.len(),
    ];
    if at.is_some() && others.iter().any(|count| *count > 0) {
        bail!("--at is for buckets alone; nothing else can be read as it was at a time");
    }
    streams::refuse_terminal(&options.streams.sources)?;
    let reads_input = |stream: &Stream| matches!(stream.origin, Origin::StandardInput(_));
    if options.streams.sources.iter().any(reads_input) {
        password::keep_standard_input();
        if args.thaw.is_given() {
            bail!(
                "--thaw reads the sources again once all is there, and what is piped in cannot be read twice"
            );
        }
    }
    Ok((options, all_thawing))
}

/// Reads the URL of a server of PostgreSQL, and gets its password, if it is one.
///
/// # Errors
/// For a URL that makes no sense, and a password that cannot be had.
pub fn database(
    context: &Context,
    named: &Path,
    password_command: &Option<String>,
) -> anyhow::Result<Option<Server>> {
    let Some(url) = named.to_str().filter(|named| Server::is_url(named)) else {
        return Ok(None);
    };
    let mut server = Server::parse(url)?;
    let in_file = &context.settings.backup.postgres_password_command;
    if let Some(command) = password_command.as_ref().or(in_file.as_ref()) {
        server.password = Some(password::of_command(command)?);
    }
    Ok(Some(server))
}

/// What a program is told of a backup.
#[derive(serde::Serialize)]
struct Summary<'a> {
    #[serde(flatten)]
    report: &'a BackupReport,
    hooks: &'a [HookReport],
}

fn exit_of(report: &BackupReport) -> Exit {
    match report.issue_count > 0 || report.statistics.unreadable > 0 {
        true => Exit::SourceUnreadable,
        false => Exit::Success,
    }
}

impl BackupArgs {
    /// Joins the flags with the file's defaults; flags win, and patterns add up.
    fn options(&self, settings: &Settings, env: Env, now: &Zoned) -> anyhow::Result<BackupOptions> {
        let file = &settings.backup;
        let (sources, only) = self.what(settings)?;
        let streams = self.streams(settings)?;
        let in_file = |key: &str| format!("larder.toml, [backup] {key}");
        let time = self.time.as_deref().map(|text| times::point(text, now));
        let time = time.transpose().context("--time")?;
        let compressed = match (&self.compression, &file.compression) {
            (Some(flag), _) => *flag,
            (None, Some(text)) => compression(text).with_context(|| in_file("compression"))?,
            (None, None) => Compression::Auto,
        };
        let checkpoint_seconds = match (self.checkpoint_interval, &file.checkpoint_interval) {
            (Some(flag), _) => flag,
            (None, Some(text)) => {
                checkpoint(text).with_context(|| in_file("checkpoint-interval"))?
            }
            (None, None) => CHECKPOINT_SECONDS,
        };
        let solid = self.solid.map(|switch| switch == Switch::On);
        let switch = |flag: Option<bool>, file: Option<bool>| flag.or(file).unwrap_or(false);
        Ok(BackupOptions {
            sources,
            buckets: Buckets {
                sources: Vec::new(),
                change_by: self.change_by(),
                check_tags: self.check_tags,
                sort_listing: self.sort_listing,
                allow_vanished_percent: self.allow_vanished,
                changed_keys: self.changed_keys.as_ref().map(|file| ChangedKeys {
                    file: match file.as_os_str() == "-" {
                        true => PathBuf::from("/dev/stdin"),
                        false => file.clone(),
                    },
                    list_every: self.list_every,
                }),
                ..Buckets::default()
            },
            streams,
            selection: self.selection(file, only)?,
            host: person::host_name(self.host.as_deref(), file.host.as_deref(), env)?,
            user: person::user_name(),
            tags: clean_tags(if self.tag.is_empty() {
                &file.tag
            } else {
                &self.tag
            })?,
            time: time.or(self.at(now)?),
            parent: self.parent.clone(),
            force: self.force,
            ignore_ctime: switch(self.ignore_ctime, file.ignore_ctime),
            ignore_inode: switch(self.ignore_inode, file.ignore_inode),
            with_atime: switch(self.with_atime, file.with_atime),
            read_special: switch(self.read_special, file.read_special),
            skip_if_unchanged: switch(self.skip_if_unchanged, file.skip_if_unchanged),
            dry_run: self.dry_run,
            compression: compressed,
            solid: solid.or(file.solid).unwrap_or(true),
            verify_blocks: !switch(self.no_verify_blocks, file.no_verify_blocks),
            checkpoints: CheckpointRhythm {
                entries: self.checkpoint_entries.map_or(u64::MAX, NonZeroU64::get),
                ..CheckpointRhythm::every_seconds(checkpoint_seconds)
            },
            hooks: Default::default(),
            shard: self.shard(),
        })
    }

    /// Gives the hooks; a dry run has none.
    fn hooks(
        &self,
        file: &BackupSettings,
        repository: String,
        host: String,
    ) -> anyhow::Result<Hooks> {
        match self.dry_run {
            true => HookArgs::default().hooks(&BackupSettings::default(), repository, host),
            false => self.hooks.hooks(file, repository, host),
        }
    }

    /// Gives which shard of which run it is.
    fn shard(&self) -> Option<ShardOptions> {
        let ((number, count), run) = (self.shard?, self.run.clone()?);
        Some(ShardOptions { run, number, count })
    }

    /// Gives the time as of which buckets are read.
    fn at(&self, now: &Zoned) -> anyhow::Result<Option<Timestamp>> {
        let at = self.at.as_deref().map(|text| parse_time(text, now));
        at.transpose().context("--at")
    }

    fn change_by(&self) -> ChangeBy {
        let has = |sign| self.change_by.is_empty() || self.change_by.contains(&sign);
        ChangeBy {
            etag: has(ChangeSign::Etag),
            mtime: has(ChangeSign::Mtime),
        }
    }

    /// Gives the sources as they were named.
    fn named<'a>(&'a self, file: &'a BackupSettings) -> &'a [PathBuf] {
        match self.is_of_file() {
            true => &file.sources,
            false => &self.sources,
        }
    }

    /// Tells whether what larder.toml names is meant, since the command line names nothing.
    fn is_of_file(&self) -> bool {
        let lists = self.files_from.len() + self.files_from0.len();
        lists == 0 && self.sources.is_empty() && !self.has_streams()
    }

    fn has_streams(&self) -> bool {
        self.stdin || !self.command.is_empty()
    }

    /// Gives the streams, and the order in which all sources are read.
    fn streams(&self, settings: &Settings) -> anyhow::Result<Streams> {
        let turns = match self.is_of_file() {
            true => {
                let file = &settings.backup;
                let sources = file.sources.iter().cloned().map(Turn::Source);
                let streams = streams::of_file(&file.commands).into_iter();
                sources.chain(streams.map(Turn::Stream)).collect()
            }
            false => streams::turns(&self.given)?,
        };
        let mut streams = Streams::default();
        for turn in turns {
            streams.order.push(match turn {
                // A bucket's name is known to the bucket alone.
                Turn::Source(path) if settings.is_bucket(&path) => {
                    path.into_os_string().into_encoded_bytes()
                }
                Turn::Source(path) => streams::name_of(&path)?,
                Turn::Stream(stream) => {
                    let name = stream.path.clone();
                    streams.sources.push(stream);
                    name
                }
            });
        }
        Ok(streams)
    }

    /// Gives the sources that are paths, or the paths of `--files-from`, made absolute.
    fn what(&self, settings: &Settings) -> anyhow::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
        let current = std::env::current_dir().context("cannot tell the current folder")?;
        let place = |paths: Vec<PathBuf>| -> anyhow::Result<Vec<PathBuf>> {
            let place = |path: &PathBuf| absolute(&settings.path(path)?, &current);
            paths.iter().map(place).collect()
        };
        let sources = self.named(&settings.backup);
        let paths = sources.iter().filter(|source| !settings.is_bucket(source));
        let paths: Vec<PathBuf> = paths.cloned().collect();
        if !self.files_from.is_empty() || !self.files_from0.is_empty() {
            let mut lists = self.files_from.iter().chain(&self.files_from0);
            if self.stdin && lists.any(|list| list == Path::new("-")) {
                bail!("--stdin and a list of files cannot both be standard input");
            }
            let mut listed = Vec::new();
            for path in &self.files_from {
                listed.extend(lines(&read_list(path)?));
            }
            for path in &self.files_from0 {
                listed.extend(records(&read_list(path)?));
            }
            if listed.is_empty() {
                bail!("--files-from lists no path; nothing was backed up");
            }
            // Without a source the paths may lie anywhere; those of the file are not meant.
            return Ok((place(paths)?, place(listed)?));
        }
        if sources.is_empty() && !self.has_streams() && settings.backup.commands.is_empty() {
            bail!(
                "nothing to back up was named; give files or folders, e.g. `larder backup /home`, \
                 or `sources` in larder.toml"
            );
        }
        Ok((place(paths)?, Vec::new()))
    }

    fn selection(&self, file: &BackupSettings, only: Vec<PathBuf>) -> anyhow::Result<Selection> {
        let larger = match (self.exclude_larger_than, &file.exclude_larger_than) {
            (Some(flag), _) => Some(flag),
            (None, Some(text)) => {
                Some(times::bytes(text).context("larder.toml, [backup] exclude-larger-than")?)
            }
            (None, None) => None,
        };
        Ok(Selection {
            exclude: joined(&file.exclude, &self.exclude),
            iexclude: joined(&file.iexclude, &self.iexclude),
            exclude_files: joined(&file.exclude_file, &self.exclude_file),
            iexclude_files: joined(&file.iexclude_file, &self.iexclude_file),
            ignore_file: self.ignore_file.clone().or(file.ignore_file.clone()),
            exclude_if_present: joined(&file.exclude_if_present, &self.exclude_if_present),
            exclude_caches: self.exclude_caches.or(file.exclude_caches).unwrap_or(false),
            exclude_larger_than: larger,
            one_file_system: self
                .one_file_system
                .or(file.one_file_system)
                .unwrap_or(false),
            only,
        })
    }
}

fn joined<T: Clone>(first: &[T], then: &[T]) -> Vec<T> {
    first.iter().chain(then).cloned().collect()
}

/// Reads `off`, `auto` or a level.
///
/// # Errors
/// For anything else.
pub fn compression(text: &str) -> anyhow::Result<Compression> {
    match text {
        "off" => Ok(Compression::Off),
        "auto" => Ok(Compression::Auto),
        level => match level.parse() {
            Ok(level @ 1..=19) => Ok(Compression::Level(level)),
            _ => bail!("'{text}' is none of off, auto, and the levels 1 to 19"),
        },
    }
}

/// Reads which of how many shards is meant: `I/N`.
///
/// # Errors
/// For anything else.
pub fn share(text: &str) -> anyhow::Result<(u64, u64)> {
    let numbers = text.split_once('/');
    let numbers = numbers.and_then(|(one, all)| Some((one.parse().ok()?, all.parse().ok()?)));
    match numbers {
        Some((number, count)) if number >= 1 && number <= count => Ok((number, count)),
        _ => bail!("'{text}' is no share; say which of how many, from 1/4 to 4/4"),
    }
}

/// Reads the seconds between two checkpoints.
///
/// # Errors
/// For what is no duration, and for none.
pub fn checkpoint(text: &str) -> anyhow::Result<u64> {
    match times::seconds(text)? {
        0 => bail!("the time between checkpoints must be at least a second"),
        seconds => Ok(seconds),
    }
}

/// Makes a path absolute without resolving its last part, should that be a symbolic link.
pub fn absolute(path: &Path, current: &Path) -> anyhow::Result<PathBuf> {
    if path.as_os_str().is_empty() {
        bail!("an empty path names nothing to back up");
    }
    let mut result = PathBuf::from("/");
    for component in current.join(path).components() {
        match component {
            Component::Normal(name) => result.push(name),
            Component::ParentDir => {
                // What is above a symbolic link is above what it leads to.
                if result.is_symlink() {
                    let tried = || format!("cannot follow {}", result.display());
                    result = result.canonicalize().with_context(tried)?;
                }
                result.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(result)
}

fn read_list(path: &Path) -> anyhow::Result<Vec<u8>> {
    let tried = || format!("cannot read the list of files {}", path.display());
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin()
            .read_to_end(&mut bytes)
            .with_context(tried)?;
        return Ok(bytes);
    }
    std::fs::read(path).with_context(tried)
}

fn lines(list: &[u8]) -> Vec<PathBuf> {
    list.split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.trim_ascii().is_empty() && !line.starts_with(b"#"))
        .map(|line| PathBuf::from(OsStr::from_bytes(line)))
        .collect()
}

fn records(list: &[u8]) -> Vec<PathBuf> {
    list.split(|byte| *byte == 0)
        .filter(|path| !path.is_empty())
        .map(|path| PathBuf::from(OsStr::from_bytes(path)))
        .collect()
}

/// Tells what became of a shard and its run, for people.
fn told_of_shard(shard: &ShardReport) -> String {
    let ShardReport {
        run, number, count, ..
    } = shard;
    let saved = shard.joined.as_deref().map(short);
    let state = match (saved, shard.finished_before) {
        (Some(id), true) => {
            return format!(
                "the run {run} is finished already: snapshot {id}; nothing was done; a new run needs a new --run"
            );
        }
        (_, true) => "was finished already",
        _ if number > count => "has nothing to do, as the bucket has too few keys",
        _ => "is finished",
    };
    let of = format!("shard {number} of {count} of the run {run} {state}");
    match (saved, shard.missing.as_slice()) {
        (Some(id), _) => format!("{of}, and it was the last\nsnapshot {id} saved"),
        (None, [one]) => format!("{of}; shard {one} is not yet"),
        (None, missing) => {
            let text: Vec<String> = missing.iter().map(u64::to_string).collect();
            let (last, before) = text
                .split_last()
                .map_or((String::new(), String::new()), |(last, before)| {
                    (last.clone(), before.join(", "))
                });
            format!("{of}; shards {before} and {last} are not yet")
        }
    }
}

/// Tells what a backup did, for people.
fn summary(report: &BackupReport, dry_run: bool) -> String {
    let counted = &report.statistics;
    let mut text = String::new();
    if let Some(shard) = &report.shard
        && (shard.finished_before || shard.part.is_none())
    {
        return told_of_shard(shard);
    }
    if let Some(checkpoint) = &report.resumed_from {
        text.push_str(&format!("went on from checkpoint {}\n", short(checkpoint)));
    }
    match &report.parent {
        Some(parent) => text.push_str(&format!("compared with   snapshot {}\n", short(parent))),
        None => text.push_str("compared with   nothing: the first of these sources\n"),
    }
    text.push_str(&format!(
        "entries         {} new, {} changed, {} unchanged\n",
        render::count(counted.new),
        render::count(counted.changed),
        render::count(counted.unchanged)
    ));
    if report.tags_asked > 0 {
        let objects = render::counted(report.tags_asked, "unchanged object", "unchanged objects");
        text.push_str(&format!("tags            {objects} asked for theirs\n"));
    }
    if report.cold > 0 {
        let objects = render::counted(report.cold, "object is", "objects are");
        text.push_str(&format!(
            "archived        {objects} in a class that has to be thawed first, and recorded without content\n"
        ));
    }
    text.push_str(&format!(
        "source          {} in {}, {} read\n",
        render::size(counted.bytes),
        render::counted(counted.files, "file", "files"),
        render::size(counted.bytes_read)
    ));
    let verb = if dry_run {
        "would add      "
    } else {
        "added          "
    };
    text.push_str(&format!(
        "{verb} {}, {} stored\n",
        render::size(counted.bytes_added),
        render::size(counted.bytes_stored)
    ));
    text.push_str(&format!(
        "time            {}\n",
        render::duration(report.seconds)
    ));
    if report.issue_count > 0 {
        let paths = render::counted(report.issue_count, "path", "paths");
        text.push_str(&format!(
            "warning         {paths} could not be read in full\n"
        ));
    }
    if counted.changed_while_read > 0 {
        let files = render::counted(counted.changed_while_read, "file", "files");
        text.push_str(&format!(
            "warning         {files} changed while being read\n"
        ));
    }
    match &report.snapshot {
        _ if report.shard.is_some() => {
            text.push_str(&report.shard.as_ref().map(told_of_shard).unwrap_or_default());
        }
        Some(snapshot) => text.push_str(&format!("snapshot {} saved", short(snapshot))),
        None if dry_run => text.push_str("dry run: nothing was written"),
        None => text.push_str("nothing changed: no snapshot was made"),
    }
    text
}

fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

#[cfg(test)]
#[path = "backup_tests.rs"]
mod tests;
