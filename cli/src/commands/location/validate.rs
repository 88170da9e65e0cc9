//! `larder location validate`.

use larder_engine::error::EngineError;
use larder_engine::storage::Mode;
use larder_engine::storage::location::Location;
use larder_engine::storage::probe::{self, Event, Outcome, Step, StepName, Verdict};
use serde::Serialize;

use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, Output};
use crate::render;

/// A step for a program.
#[derive(Debug, Serialize)]
struct Told<'a> {
    step: &'static str,
    outcome: &'static str,
    seconds: Option<f64>,
    #[serde(flatten)]
    more: More<'a>,
}

/// What is said of a step besides; what does not apply is left out.
#[derive(Debug, Default, Serialize)]
#[serde(default)]
struct More<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fatal: Option<bool>,
}

#[derive(Debug, Serialize)]
struct Warned<'a> {
    message: &'a str,
}

#[derive(Debug, Serialize)]
struct Summary<'a> {
    location: &'a str,
    works: bool,
    creates_exclusively: bool,
}

/// Tries a location out; ends with 0 only if a repository would work there.
///
/// # Errors
/// When it was interrupted, or standard output cannot be written.
pub fn run(context: &Context, location: &Location, create: bool) -> anyhow::Result<Exit> {
    let mode = match create {
        true => Mode::Create,
        false => Mode::Open,
    };
    // So that what was written is removed on the way out.
    let _the_flag_is_the_same = context.cancel();
    let mut written = Ok(());
    let verdict = probe::validate(location, mode, &context.interrupt.flag(), &mut |event| {
        if written.is_ok() {
            written = tell(context, &event);
        }
    });
    written?;
    if verdict.is_interrupted {
        return Err(EngineError::Interrupted.into());
    }
    conclude(context, &location.place.to_string(), verdict)?;
    Ok(match verdict.works {
        true => Exit::Success,
        false => Exit::Failure,
    })
}

fn tell(context: &Context, event: &Event) -> anyhow::Result<()> {
    match event {
        Event::Warning(message) if context.json() => {
            let mut out = Output::new();
            output::message(&mut out, "warning", &Warned { message })?;
            Ok(std::io::Write::flush(&mut out)?)
        }
        Event::Warning(message) => {
            eprintln!("larder: warning: {message}");
            Ok(())
        }
        Event::Step(step) if context.json() => {
            let mut out = Output::new();
            output::message(&mut out, "step", &told(step))?;
            Ok(std::io::Write::flush(&mut out)?)
        }
        Event::Step(step) => {
            let is_told = match step.outcome {
                Outcome::Failed(_) => true,
                // What failed before says it all.
                Outcome::Skipped(_) => context.globals.verbose > 0,
                _ => context.talks(),
            };
            match is_told {
                true => output::line(&line(step)),
                false => Ok(()),
            }
        }
    }
}

fn told(step: &Step) -> Told<'_> {
    let none = More::default();
    let (outcome, more) = match &step.outcome {
        Outcome::Done(detail) => (
            "ok",
            More {
                detail: detail.as_deref(),
                ..none
            },
        ),
        Outcome::Seconds(seconds) => (
            "ok",
            More {
                latency_seconds: Some(*seconds),
                ..none
            },
        ),
        Outcome::BytesPerSecond(rate) => (
            "ok",
            More {
                bytes_per_second: Some(*rate),
                ..none
            },
        ),
        Outcome::Failed(failure) => (
            "failed",
            More {
                reason: Some(failure.reason),
                cause: Some(&failure.cause),
                advice: Some(&failure.advice),
                fatal: Some(failure.is_fatal),
                ..none
            },
        ),
        Outcome::Skipped(why) => (
            "skipped",
            More {
                cause: Some(why),
                ..none
            },
        ),
    };
    Told {
        step: step.name.name(),
        outcome,
        seconds: step.seconds,
        more,
    }
}

/// Shows a step on one line: sign, what was tried, how long it took, and what is worth saying.
fn line(step: &Step) -> String {
    let (sign, note) = match &step.outcome {
        Outcome::Done(detail) => ("✓", detail.clone().unwrap_or_default()),
        Outcome::Seconds(seconds) => ("✓", format!("{:.1} ms", seconds * 1e3)),
        Outcome::BytesPerSecond(rate) => ("✓", format!("{}/s", render::size(*rate as u64))),
        Outcome::Failed(failure) if failure.advice.is_empty() => ("✗", failure.cause.clone()),
        Outcome::Failed(failure) => ("✗", format!("{}; {}", failure.cause, failure.advice)),
        Outcome::Skipped(why) => ("–", format!("not tried: {why}")),
    };
    let time = step.seconds.map(render::duration).unwrap_or_default();
    let note = render::printable(note.as_bytes());
    let text = format!("{sign} {:<26}{time:>8}  {note}", label(step.name));
    text.trim_end().to_owned()
}

fn label(name: StepName) -> &'static str {
    match name {
        StepName::Resolve => "look the host's name up",
        StepName::Connect => "connect",
        StepName::Tls => "TLS",
        StepName::HostKey => "host key",
        StepName::Authenticate => "log in",
        StepName::Find => "find the bucket or folder",
        StepName::Write => "write",
        StepName::ReadBack => "read it back",
        StepName::RangeRead => "read a part of it",
        StepName::List => "list",
        StepName::CreateIfAbsent => "create if absent",
        StepName::Delete => "delete",
        StepName::Latency => "latency",
        StepName::Upload => "upload",
        StepName::Download => "download",
    }
}

fn conclude(context: &Context, location: &str, verdict: Verdict) -> anyhow::Result<()> {
    if context.json() {
        return output::summary(&Summary {
            location,
            works: verdict.works,
            creates_exclusively: verdict.creates_exclusively,
        });
    }
    if !context.talks() {
        return Ok(());
    }
    output::line(&match verdict {
        Verdict { works: false, .. } => format!("\na repository would not work at {location}"),
        Verdict {
            creates_exclusively: true,
            ..
        } => format!("\na repository would work at {location}"),
        _ => format!(
            "\nbackups would work at {location}; a prune would ask for --accept-racy-creates"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_engine::storage::probe::Failure;

    fn step(name: StepName, outcome: Outcome, seconds: Option<f64>) -> Step {
        Step {
            name,
            outcome,
            seconds,
        }
    }

    #[test]
    fn a_step_is_one_line_with_its_sign_and_its_time() {
        let failure = Failure {
            reason: "not-permitted",
            cause: "Access\nDenied".to_owned(),
            advice: "let the administrator grant s3:PutObject".to_owned(),
            is_fatal: true,
        };
        let lines = [
            step(StepName::Write, Outcome::Done(None), Some(0.034)),
            step(StepName::Tls, Outcome::Done(None), None),
            step(StepName::Latency, Outcome::Seconds(0.0204), Some(0.2)),
            step(
                StepName::Upload,
                Outcome::BytesPerSecond(1.5 * 1048576.0),
                Some(8.0),
            ),
            step(StepName::Write, Outcome::Failed(failure), Some(1.0)),
            step(StepName::List, Outcome::Skipped("interrupted"), None),
        ];
        assert_eq!(
            lines.each_ref().map(line),
            [
                "✓ write                       0.03 s",
                "✓ TLS",
                "✓ latency                     0.20 s  20.4 ms",
                "✓ upload                      8.00 s  1.500 MiB/s",
                "✗ write                       1.00 s  Access\\nDenied; let the administrator grant s3:PutObject",
                "– list                                not tried: interrupted",
            ]
        );
    }
}
