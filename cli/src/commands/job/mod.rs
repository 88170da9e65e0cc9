//! `larder job`.

mod change;
mod notify;
mod run;
pub mod show;
mod steps;
mod units;
mod usual;

pub use change::upcoming;

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use larder_engine::repository::default_state_dir;
use larder_jobs::history::History;

use crate::args::parse_setting;
use crate::context::Context;
use crate::exit::Exit;
use crate::jobs::Job;

/// Back up by itself: what, where to, when, and how long it is kept
///
/// A job is a table `[jobs.NAME]` of larder.toml: all that `[backup]` may say, a location, a schedule, a
/// retention, and when to prune and check. What is changed here keeps the comments and the order of
/// the file.
///
/// `larder job due` runs all that is due, in turn; `larder job install` writes the units with which systemd calls it.
/// A run that was missed since the machine was off is made up for once, and no job is run twice at a time.
///
/// Examples: larder job add photos /home/me/photos --location nas --hours 1 --keep-days 30
///           larder job run photos
///           larder job add db /srv --location nas --cron '30 2 * * *' --time-zone Europe/Berlin --set prune.every=7 --set prune.hours=4
///           larder job list
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct JobArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Add a job
    Add {
        /// What it is to be called: letters, digits, '-', '_' and '.'
        name: String,
        #[command(flatten)]
        wish: Wish,
        /// Say what would be changed, and leave larder.toml as it is
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// List the jobs: when each is next, and how the last run came out
    List,
    /// Show one, with its next five runs
    Show {
        /// Its name
        name: String,
    },
    /// Change one
    Edit {
        /// Its name
        name: String,
        #[command(flatten)]
        wish: Wish,
        /// Say nothing more about this key; may be repeated
        #[arg(long, value_name = "KEY")]
        unset: Vec<String>,
        /// Say what would be changed, and leave larder.toml as it is
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Remove one; its snapshots and its history stay
    Remove {
        /// Its name
        name: String,
        /// Say what would be changed, and leave larder.toml as it is
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Run one now: back up, forget by its retention, and prune and check if that is due
    ///
    /// Ends as `larder backup` would, or as the first of the others that failed. If the job is being
    /// run already it ends with 11.
    Run {
        /// Its name
        name: String,
        /// Run no hook, whatever the job says
        #[arg(long)]
        no_hooks: bool,
    },
    /// Run all that is due, in turn, and end: what a timer calls every few minutes
    Due {
        /// Only what is due of these jobs
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Say what is due, and run nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Tell how runs came out, newest first
    History {
        /// The job; all of them if none is named
        name: Option<String>,
        /// How many runs
        #[arg(long, value_name = "COUNT", default_value = "20",
              value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
    /// Write the units with which systemd runs what is due, every five minutes
    Install {
        #[command(flatten)]
        place: units::Place,
        /// Write them to standard output, and no file
        #[arg(long)]
        print: bool,
        /// Say what would be written, and write nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
    /// Remove those units
    Uninstall {
        #[command(flatten)]
        place: units::Place,
        /// Say what would be removed, and leave it there
        #[arg(short = 'n', long)]
        dry_run: bool,
    },
}

/// What a job is to say.
#[derive(Debug, Default, Args)]
struct Wish {
    /// Files, folders, buckets and databases to back up
    #[arg(value_name = "SOURCE")]
    sources: Vec<PathBuf>,
    /// Where the repository is: a location of larder.toml, a path or a URL
    #[arg(long, value_name = "LOCATION")]
    location: Option<String>,
    /// Leave out what matches this pattern; may be repeated
    #[arg(short, long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Days from one run to the next
    #[arg(long, value_name = "DAYS")]
    every: Option<i64>,
    /// Hours of the day, in UTC
    #[arg(long, value_name = "HOUR[,HOUR...]", value_delimiter = ',')]
    hours: Vec<i64>,
    /// A cron expression in place of days and hours
    #[arg(long, value_name = "EXPRESSION")]
    cron: Option<String>,
    /// The time zone of the cron expression, e.g. Europe/Berlin
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// Forget snapshots that are so many days older than the newest
    #[arg(long, value_name = "DAYS")]
    keep_days: Option<i64>,
    /// Say anything else that a job may say, e.g. time-limit=8h or prune.every=7; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,
}

/// Manages and runs jobs.
///
/// # Errors
/// When larder.toml cannot be changed, or what is asked for makes no sense or cannot be done.
pub fn run(context: &Context, args: &JobArgs) -> anyhow::Result<Exit> {
    match &args.what {
        What::Add {
            name,
            wish,
            dry_run,
        } => change::add(context, name, wish, *dry_run)?,
        What::List => show::list(context)?,
        What::Show { name } => show::show(context, name)?,
        What::Edit {
            name,
            wish,
            unset,
            dry_run,
        } => change::edit(context, name, wish, unset, *dry_run)?,
        What::Remove { name, dry_run } => change::remove(context, name, *dry_run)?,
        What::Run { name, no_hooks } => return run::run(context, name, *no_hooks),
        What::Due { names, dry_run } => return run::due(context, names, *dry_run),
        What::History { name, limit } => show::history(context, name.as_deref(), *limit)?,
        What::Install {
            place,
            print,
            dry_run,
        } => units::install(context, place, *print, *dry_run)?,
        What::Uninstall { place, dry_run } => units::uninstall(context, place, *dry_run)?,
    }
    Ok(Exit::Success)
}

/// Finds a job that makes sense.
fn job<'a>(context: &'a Context, name: &str) -> anyhow::Result<&'a Job> {
    let jobs = &context.settings.jobs;
    let job = jobs.0.get(name).with_context(|| {
        let near = jobs.nearest(name);
        let hint = near.map(|near| format!("; did you mean '{near}'?"));
        format!(
            "there is no job '{name}' in larder.toml{}",
            hint.unwrap_or_default()
        )
    })?;
    match &job.mistake {
        Some(mistake) => bail!("{mistake}"),
        None => Ok(job),
    }
}

/// Gives the folder of locks and history.
fn folder() -> anyhow::Result<PathBuf> {
    let state = default_state_dir();
    let state = state.context(
        "cannot tell where the history of runs is kept: neither XDG_STATE_HOME nor HOME is set",
    )?;
    Ok(state.join("jobs"))
}

/// Opens the history to look at it.
fn history() -> anyhow::Result<History> {
    let history = History::open(&folder()?)?;
    history.settle_all()?;
    Ok(history)
}
