//! Hooks of `larder backup`: what is run before it, and after it as it came out.

use std::time::Duration;

use clap::Args;
use larder_engine::backup::SourceHooks;
use larder_engine::hooks::{HookReport, run};

use crate::exit::Exit;
use crate::settings::BackupSettings;
use crate::times;

/// Seconds that a hook may take unless told otherwise.
const LIMIT_SECONDS: u64 = 3600;

/// The flags of hooks.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Hooks")]
pub struct HookArgs {
    /// Run this shell command first; if it does not end with exit code 0, nothing is backed up
    #[arg(long, value_name = "COMMAND")]
    before: Vec<String>,
    /// Run this shell command at the end, however the backup came out
    #[arg(long, value_name = "COMMAND")]
    after: Vec<String>,
    /// Run this shell command once the snapshot is made
    #[arg(long, value_name = "COMMAND")]
    after_success: Vec<String>,
    /// Run this shell command if no snapshot was made
    #[arg(long, value_name = "COMMAND")]
    after_failure: Vec<String>,
    /// Run this shell command before each source; if it does not end with exit code 0, that source is not backed
    /// up
    #[arg(long, value_name = "COMMAND")]
    before_source: Vec<String>,
    /// Run this shell command after each source, however that came out
    #[arg(long, value_name = "COMMAND")]
    after_source: Vec<String>,
    /// Run this shell command after each source that was read
    #[arg(long, value_name = "COMMAND")]
    after_source_success: Vec<String>,
    /// Run this shell command after each source that was not
    #[arg(long, value_name = "COMMAND")]
    after_source_failure: Vec<String>,
    /// End a hook that takes longer than this, e.g. 90s or 10m [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = times::seconds)]
    hook_timeout: Option<u64>,
    /// Run no hook, whatever larder.toml says
    #[arg(long)]
    no_hooks: bool,
}

/// The hooks of a run.
#[derive(Debug)]
pub struct Hooks {
    before: Vec<String>,
    after: Vec<String>,
    after_success: Vec<String>,
    after_failure: Vec<String>,
    /// Those around each source, for the backup to run.
    pub of_sources: SourceHooks,
    limit: Duration,
    /// The repository's location, without secrets.
    repository: String,
    host: String,
    /// What those did that were run.
    pub reports: Vec<HookReport>,
}

/// How a run came out, as its hooks are told.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    /// The exit code that the run has without its hooks.
    pub exit: Exit,
    /// The snapshot, if one was made.
    pub snapshot: Option<&'a str>,
    /// What went wrong, if it failed.
    pub error: Option<&'a str>,
}

impl HookArgs {
    /// Joins the flags with what larder.toml says: hooks of the file are run first.
    ///
    /// # Errors
    /// For a time limit that makes no sense.
    pub fn hooks(
        &self,
        file: &BackupSettings,
        repository: String,
        host: String,
    ) -> anyhow::Result<Hooks> {
        use anyhow::Context as _;
        let limit = match (self.hook_timeout, &file.hook_timeout) {
            (Some(flag), _) => flag,
            (None, Some(text)) => {
                times::seconds(text).context("larder.toml, [backup] hook-timeout")?
            }
            (None, None) => LIMIT_SECONDS,
        };
        let joined = |file: &[String], flags: &[String]| match self.no_hooks {
            true => Vec::new(),
            false => [file, flags].concat(),
        };
        let variables = vec![
            ("LARDER_REPOSITORY", repository.clone()),
            ("LARDER_HOST", host.clone()),
        ];
        Ok(Hooks {
            of_sources: SourceHooks {
                before: joined(&file.before_source, &self.before_source),
                after: joined(&file.after_source, &self.after_source),
                after_success: joined(&file.after_source_success, &self.after_source_success),
                after_failure: joined(&file.after_source_failure, &self.after_source_failure),
                limit: Duration::from_secs(limit),
                variables,
            },
            before: joined(&file.before, &self.before),
            after: joined(&file.after, &self.after),
            after_success: joined(&file.after_success, &self.after_success),
            after_failure: joined(&file.after_failure, &self.after_failure),
            limit: Duration::from_secs(limit),
            repository,
            host,
            reports: Vec::new(),
        })
    }
}

impl Hooks {
    /// Runs those that come before, until one fails.
    ///
    /// # Errors
    /// With the one that failed, and the end of what it printed.
    pub fn before(&mut self) -> anyhow::Result<()> {
        for line in self.before.clone() {
            let report = self.run("before", &line, &[])?;
            if !report.succeeded {
                anyhow::bail!("nothing was backed up: {}", report.failure());
            }
        }
        Ok(())
    }

    /// Runs those that come after, each whatever the one before it did.
    ///
    /// # Errors
    /// With the first one that failed, and the end of what it printed.
    pub fn after(&mut self, outcome: &Outcome<'_>) -> anyhow::Result<()> {
        let word = match outcome.exit {
            Exit::Success => "success",
            Exit::SourceUnreadable => "incomplete",
            Exit::Interrupted => "interrupted",
            _ => "failure",
        };
        let variables = [
            ("LARDER_OUTCOME", word.to_owned()),
            ("LARDER_EXIT_CODE", outcome.exit.code().to_string()),
            (
                "LARDER_SNAPSHOT",
                outcome.snapshot.unwrap_or_default().to_owned(),
            ),
            // No variable can hold a NUL.
            (
                "LARDER_ERROR",
                outcome.error.unwrap_or_default().replace('\0', " "),
            ),
        ];
        let (kind, lines) = match outcome.error {
            None => ("after-success", self.after_success.clone()),
            Some(_) => ("after-failure", self.after_failure.clone()),
        };
        let of_kind = lines.into_iter().map(|line| (kind, line));
        let always = self.after.clone().into_iter().map(|line| ("after", line));
        let mut failure = None;
        for (kind, line) in of_kind.chain(always) {
            match self.run(kind, &line, &variables) {
                Ok(report) if report.succeeded => {}
                Ok(report) => {
                    failure.get_or_insert_with(|| report.failure());
                }
                Err(error) => {
                    failure.get_or_insert_with(|| error.to_string());
                }
            }
        }
        match failure {
            Some(failure) => Err(anyhow::anyhow!(failure)),
            None => Ok(()),
        }
    }

    fn run(
        &mut self,
        hook: &'static str,
        line: &str,
        variables: &[(&str, String)],
    ) -> anyhow::Result<HookReport> {
        let mut all = vec![
            ("LARDER_HOOK", hook.to_owned()),
            ("LARDER_REPOSITORY", self.repository.clone()),
            ("LARDER_HOST", self.host.clone()),
        ];
        all.extend_from_slice(variables);
        let report = run(hook, line, &all, self.limit)?;
        self.reports.push(report.clone());
        Ok(report)
    }
}
