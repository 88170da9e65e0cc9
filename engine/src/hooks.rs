//! Hooks: commands that are run before and after a job, with a time limit, and what they print.

use std::process::Stdio;
use std::time::Duration;

use crate::cancel::Cancel;
use crate::clock;
use crate::error::{EngineError, Result};
use crate::process::{Running, ended, shell};

/// What a hook did.
#[derive(Debug, Clone, serde::Serialize)]
pub struct HookReport {
    /// When it was run: `before`, `after`, `after-success` or `after-failure`; around a source with
    /// `-source` behind the first word.
    pub hook: &'static str,
    /// The source that it was run for; none if it was for the whole run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The line that the shell ran.
    pub command: String,
    /// Whether it ended with exit code 0 within its time.
    pub succeeded: bool,
    /// How it ended, e.g. `exit code 1`.
    pub ended: String,
    /// The last of what it printed, 4 KiB at most; its standard error comes in between.
    pub output: String,
    /// Seconds that it took.
    pub seconds: f64,
}

impl HookReport {
    /// Says what failed, for people.
    #[must_use]
    pub fn failure(&self) -> String {
        let Self {
            hook,
            source,
            command,
            ended,
            output,
            ..
        } = self;
        let hook = match source {
            Some(source) => format!("{hook} of {source}"),
            None => (*hook).to_owned(),
        };
        match output.is_empty() {
            true => format!("the hook {hook}, '{command}', failed ({ended}); it printed nothing"),
            false => {
                format!(
                    "the hook {hook}, '{command}', failed ({ended}); it printed at the end:\n{output}"
                )
            }
        }
    }
}

/// Runs a line by `/bin/sh -c` with more variables in its environment, and waits for its end. One that
/// takes longer than `limit` is ended with all that it started.
///
/// # Errors
/// `Request` if the shell cannot be started, or the operating system does not tell how it ended.
pub fn run(
    hook: &'static str,
    line: &str,
    variables: &[(&str, String)],
    limit: Duration,
) -> Result<HookReport> {
    let begun = clock::uptime();
    let is_in_time = || clock::uptime().saturating_sub(begun) < limit;
    let mut command = shell(&format!("exec 2>&1\n{line}"));
    command.stdin(Stdio::null());
    for (name, value) in variables {
        command.env(name, value);
    }
    let name = format!("the hook {hook}, '{line}'");
    let mut running = Running::start(&mut command, &name, &Cancel::default())?;
    let (output, status) = running.run_to_end(&is_in_time)?;
    Ok(HookReport {
        hook,
        source: None,
        command: line.to_owned(),
        succeeded: status.is_some_and(|status| status.success()),
        ended: match status {
            Some(status) => ended(status),
            None => format!("ended, since it took longer than {} s", limit.as_secs()),
        },
        output,
        seconds: clock::uptime().saturating_sub(begun).as_secs_f64(),
    })
}

/// Gives the first hook that failed, as an error.
///
/// # Errors
/// `Request`, if one did.
pub fn check(reports: &[HookReport]) -> Result<()> {
    match reports.iter().find(|report| !report.succeeded) {
        Some(report) => Err(EngineError::Request(report.failure())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn what_it_prints_and_how_it_ended_is_kept() {
        let variables = [("LARDER_HOOK", "before".to_owned())];
        let report = run(
            "before",
            "echo $LARDER_HOOK; echo and >&2",
            &variables,
            LONG,
        )
        .unwrap();
        assert!(report.succeeded && check(std::slice::from_ref(&report)).is_ok());
        assert_eq!(report.output, "before\nand");
        let report = run("after", "echo no; exit 4", &[], LONG).unwrap();
        assert!(!report.succeeded);
        let told = check(&[report]).unwrap_err().to_string();
        assert!(
            told.contains("exit code 4") && told.contains("no"),
            "{told}"
        );
    }

    #[test]
    fn what_it_leaves_in_the_background_is_not_waited_for() {
        let report = run("before", "sleep 600 & echo $!", &[], LONG).unwrap();
        assert!(report.succeeded, "{report:?}");
        let pid: i32 = report.output.parse().unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    #[test]
    fn one_that_takes_too_long_is_ended() {
        let report = run("before", "echo begun; sleep 600", &[], Duration::ZERO).unwrap();
        assert!(!report.succeeded);
        assert!(report.ended.contains("longer than 0 s"), "{report:?}");
    }
}
