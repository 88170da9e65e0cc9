//! What a job does, as the commands that a person would type for it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, bail};
use larder_engine::error::EngineError;
use larder_jobs::history::{Figures, Kind};

use crate::args::{Arguments, Command};
use crate::commands::{backup, check, forget, prune};
use crate::context::Context;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::jobs::{CheckSettings, Job, Plan, PruneSettings};
use crate::person;
use crate::settings::process_env;

/// What was done.
pub struct Done {
    /// The exit code of the command.
    pub exit: Exit,
    /// The snapshot that was made.
    pub snapshot: Option<String>,
    /// What was counted.
    pub figures: Figures,
}

/// Gives the tag that marks the snapshots of a job: its retention looks at no others.
#[must_use]
pub fn tag(name: &str) -> String {
    format!("job:{name}")
}

/// Gives what every command needs, with the job's settings in place of the usual ones.
#[must_use]
pub fn context(
    context: &Context,
    name: &str,
    job: &Job,
    plan: &Plan,
    interrupt: Interrupt,
) -> Context {
    let mut globals = context.globals.clone();
    globals.repo = Some(job.settings.location.clone().into());
    if globals.secret_flags().source().is_none() {
        // What a job says itself is of its repository, and the environment of any.
        globals.password_file = job.settings.password_file.clone();
        globals.password_command = job.settings.password_command.clone().map(Into::into);
        globals.key_file = job.settings.key_file.clone();
    }
    let mut settings = context.settings.clone();
    settings.backup = job.backup.clone();
    settings.backup.tag.push(tag(name));
    settings.forget = plan.keep.clone().unwrap_or_default();
    Context {
        globals,
        settings,
        interrupt,
    }
}

/// Does one of the things that a job does; a local cache that rotted is made anew, once.
///
/// # Errors
/// What the command answers.
pub fn carry_out(
    context: &Context,
    name: &str,
    job: &Job,
    kind: Kind,
    no_hooks: bool,
) -> anyhow::Result<Done> {
    let once = || {
        let line = line(context, name, job, kind, no_hooks)?;
        let arguments = Arguments::read(&line);
        let arguments = arguments.with_context(|| line.join(" "))?;
        command(context, &arguments.command)
    };
    let result = match once() {
        Err(error) if crate::is_of_cache(&error) => {
            eprintln!("larder: {}; beginning anew", crate::paragraph(&error));
            once()
        }
        result => result,
    };
    result.map_err(|error| {
        let is_asked = context.interrupt.flag().load(Ordering::Relaxed);
        match is_asked && crate::is_for_the_moment(&error) {
            true => EngineError::Interrupted.into(),
            false => error,
        }
    })
}

fn command(context: &Context, command: &Command) -> anyhow::Result<Done> {
    let done = |exit| Done {
        exit,
        snapshot: None,
        figures: Figures::default(),
    };
    match command {
        Command::Backup(args) => {
            let made = backup::carry_out(context, args)?;
            let statistics = &made.report.statistics;
            let done = Done {
                exit: match made.hook_failure {
                    None => made.exit,
                    Some(_) => Exit::Failure,
                },
                snapshot: made.report.snapshot.clone(),
                figures: Figures {
                    files: Some(statistics.files),
                    bytes: Some(statistics.bytes),
                    bytes_read: Some(statistics.bytes_read),
                    bytes_stored: Some(statistics.bytes_stored),
                },
            };
            if let Some(failure) = made.hook_failure {
                crate::report(&crate::paragraph(&failure), Exit::Failure, context.json());
            }
            Ok(done)
        }
        Command::Forget(args) => forget::run(context, args).map(done),
        Command::Prune(args) => prune::run(context, args).map(done),
        Command::Check(args) => check::run(context, args).map(done),
        _ => bail!("a job does no such thing"),
    }
}

/// Gives the command line.
fn line(
    context: &Context,
    name: &str,
    job: &Job,
    kind: Kind,
    no_hooks: bool,
) -> anyhow::Result<Vec<String>> {
    let flags = match kind {
        Kind::Backup if no_hooks => vec!["--no-hooks".to_owned()],
        Kind::Backup => Vec::new(),
        Kind::Forget => {
            let host = context.settings.backup.host.as_deref();
            let host = person::host_name(None, host, &process_env)?;
            vec![format!("--host={host}"), format!("--tag={}", tag(name))]
        }
        Kind::Prune => job
            .settings
            .prune
            .as_ref()
            .map_or(Vec::new(), PruneSettings::flags),
        Kind::Check => job
            .settings
            .check
            .as_ref()
            .map_or(Vec::new(), CheckSettings::flags),
    };
    let command = ["larder", kind.word()].map(str::to_owned);
    Ok(command.into_iter().chain(flags).collect())
}

/// Says what a time limit did.
#[must_use]
pub fn out_of_time(limit: Option<Duration>) -> String {
    let limit = limit.unwrap_or_default().as_secs_f64();
    format!(
        "the time limit of {} was over; what a backup had read is in a checkpoint, from which the next one goes on",
        crate::render::duration(limit)
    )
}
