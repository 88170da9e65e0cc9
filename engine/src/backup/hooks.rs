//! Hooks around each source: what is run before it is read, and after it as that came out.

use std::time::Duration;

use crate::error::EngineError;
use crate::hooks::{HookReport, run};

use super::Writer;
use super::sources::Prepared;

/// Shell commands that are run around each source; a dry run runs none.
#[derive(Debug, Clone, Default)]
pub struct SourceHooks {
    /// Run before a source is read, until one fails: then the source is not backed up.
    pub before: Vec<String>,
    /// Run after a source, however it came out.
    pub after: Vec<String>,
    /// Run after a source that was read.
    pub after_success: Vec<String>,
    /// Run after a source that was not.
    pub after_failure: Vec<String>,
    /// How long one may take.
    pub limit: Duration,
    /// Variables of their environment, besides those that tell of the source.
    pub variables: Vec<(&'static str, String)>,
}

/// How a source came out.
pub(super) enum SourceOutcome {
    /// It was read.
    Success,
    /// It was read, but for what the report says.
    Incomplete,
    /// It was not read, for this reason.
    Failure(String),
    /// Somebody asked the run to end.
    Interrupted,
}

impl SourceOutcome {
    /// Tells what became of a source that failed.
    pub(super) fn of(error: &EngineError) -> Self {
        match error {
            EngineError::Interrupted => Self::Interrupted,
            error => Self::Failure(error.to_string()),
        }
    }
}

/// Runs those that come before a source, until one fails.
///
/// # Errors
/// In words: with the one that failed, and the end of what it printed.
pub(super) fn before(writer: &mut Writer<'_>, source: &Prepared) -> Result<(), String> {
    for line in &writer.options.hooks.before {
        run_one(writer, source, "before-source", line, &[])?;
    }
    Ok(())
}

/// Runs those that come after a source, each whatever the one before it did; gives what the first one
/// that failed printed.
pub(super) fn after(
    writer: &mut Writer<'_>,
    source: &Prepared,
    outcome: &SourceOutcome,
) -> Result<(), String> {
    let hooks = &writer.options.hooks;
    let (word, error) = match outcome {
        SourceOutcome::Success => ("success", ""),
        SourceOutcome::Incomplete => ("incomplete", ""),
        SourceOutcome::Failure(error) => ("failure", error.as_str()),
        SourceOutcome::Interrupted => ("interrupted", "it was interrupted"),
    };
    let variables = [
        ("LARDER_OUTCOME", word.to_owned()),
        // No variable can hold a NUL.
        ("LARDER_ERROR", error.replace('\0', " ")),
    ];
    let (kind, lines) = match error.is_empty() {
        true => ("after-source-success", &hooks.after_success),
        false => ("after-source-failure", &hooks.after_failure),
    };
    let of_kind = lines.iter().map(|line| (kind, line));
    let always = hooks.after.iter().map(|line| ("after-source", line));
    let mut result = Ok(());
    for (kind, line) in of_kind.chain(always) {
        let ran = run_one(writer, source, kind, line, &variables);
        result = result.and(ran);
    }
    result
}

/// Runs one, and keeps its report.
fn run_one(
    writer: &mut Writer<'_>,
    source: &Prepared,
    kind: &'static str,
    line: &str,
    variables: &[(&str, String)],
) -> Result<(), String> {
    let options = writer.options;
    if options.dry_run {
        return Ok(());
    }
    let name = String::from_utf8_lossy(&source.name).into_owned();
    let mut all: Vec<(&str, String)> = vec![
        ("LARDER_HOOK", kind.to_owned()),
        ("LARDER_SOURCE", name.replace('\0', " ")),
    ];
    all.extend(options.hooks.variables.iter().cloned());
    all.extend_from_slice(variables);
    let ran = run(kind, line, &all, options.hooks.limit).map_err(|error| error.to_string())?;
    let report = HookReport {
        source: Some(name),
        ..ran
    };
    let failure = (!report.succeeded).then(|| report.failure());
    writer.hook_reports.push(report);
    failure.map_or(Ok(()), Err)
}
