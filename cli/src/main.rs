//! The larder command: arguments, rendering and exit codes over the engine.

mod args;
mod commands;
mod context;
mod document;
mod documents;
mod exit;
mod heap;
mod hooks;
mod interrupt;
mod item;
mod jobs;
mod keep;
mod locations;
mod output;
mod password;
mod person;
mod progress;
mod render;
mod sealing;
mod settings;
mod streams;
mod thaw;
mod times;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use clap::error::ErrorKind;
use larder_engine::error::EngineError;
use larder_engine::storage::error::{ErrorKind as StorageErrorKind, StorageError};
use serde::Serialize;

use crate::args::Arguments;
use crate::context::Context;
use crate::exit::Exit;
use crate::interrupt::Interrupt;

fn main() -> ExitCode {
    heap::share();
    let arguments = match Arguments::read(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) => return misunderstood(&error).into(),
    };
    let json = arguments.global.json;
    let result = run(arguments);
    if output::reader_has_gone() {
        interrupt::end_by_closed_pipe();
    }
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            let exit = Exit::of(&error);
            report(&paragraph(&error), exit, json);
            exit.into()
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    start_log(arguments.global.verbose, arguments.global.quiet);
    let interrupt = Interrupt::install()?;
    let stop = interrupt.flag();
    let context = Context::new(arguments.global, &arguments.command, interrupt)?;
    match commands::run(&context, &arguments.command) {
        // A storage that was not tried again because a signal came has not failed for good.
        Err(error) if stop.load(Ordering::Relaxed) && is_for_the_moment(&error) => {
            Err(EngineError::Interrupted.into())
        }
        // Somebody deleted the cache, or it rotted: it is made anew, once.
        Err(error) if is_of_cache(&error) && !output::has_written() => {
            eprintln!("larder: {}; beginning anew", paragraph(&error));
            commands::run(&context, &arguments.command)
        }
        result => result,
    }
}

/// Tells whether a command failed because of a storage that may answer later.
pub(crate) fn is_for_the_moment(error: &anyhow::Error) -> bool {
    let mut causes = error.chain();
    causes.any(|cause| {
        let storage = match cause.downcast_ref() {
            Some(EngineError::Storage(storage)) => Some(storage),
            _ => cause.downcast_ref::<StorageError>(),
        };
        storage.is_some_and(|storage| storage.kind == StorageErrorKind::Transient)
    })
}

/// Tells whether a command failed because of what is on the local disk alone.
pub(crate) fn is_of_cache(error: &anyhow::Error) -> bool {
    let mut causes = error.chain();
    causes.any(|cause| {
        matches!(
            cause.downcast_ref(),
            Some(EngineError::Index(_) | EngineError::Scratch(_))
        )
    })
}

/// Answers what clap could not parse, or was asked to show.
fn misunderstood(error: &clap::Error) -> Exit {
    if !error.use_stderr() {
        let _ = error.print();
        return Exit::Success;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return Exit::Failure;
    }
    let json = std::env::args_os().any(|argument| argument == "--json");
    let text = error.render().to_string();
    report(
        text.trim_start_matches("error: ").trim_end(),
        Exit::Failure,
        json,
    );
    Exit::Failure
}

/// Joins an error and its causes into one paragraph.
pub(crate) fn paragraph(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // Some errors tell their cause themselves.
        if text.ends_with(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}

/// Writes an error to standard error, for a person and, if asked, for a program.
pub(crate) fn report(message: &str, exit: Exit, json: bool) {
    #[derive(Serialize)]
    struct Error<'a> {
        code: u8,
        message: &'a str,
    }
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "larder: {message}");
    if json {
        let code = exit.code();
        let _ = output::message(&mut stderr, "error", &Error { code, message });
    }
}

/// Sends the log to standard error, as much of it as `-v` asks for, or as `LARDER_LOG` says.
fn start_log(verbose: u8, quiet: bool) {
    let level = match verbose {
        0 if quiet => "error",
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    // Below `trace`, what libraries say about themselves is left out.
    let usual = if verbose < 3 {
        format!("error,larder={level},larder_engine={level}")
    } else {
        level.to_owned()
    };
    let directives = std::env::var("LARDER_LOG").unwrap_or(usual);
    let filter = tracing_subscriber::EnvFilter::builder().parse_lossy(directives);
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if verbose == 0 {
        // A person who asked for no log gets sentences.
        let _ = log.without_time().with_target(false).try_init();
    } else {
        let _ = log.try_init();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;
    use larder_engine::index::IndexError;

    #[test]
    fn an_error_is_one_paragraph_and_says_nothing_twice() {
        let error = Err::<(), _>(anyhow::anyhow!("no such file"))
            .context("cannot open x: no such file")
            .context("cannot read the settings");
        let text = error.map_or_else(|error| paragraph(&error), |()| String::new());
        assert_eq!(
            text,
            "cannot read the settings: cannot open x: no such file"
        );
    }

    #[test]
    fn only_what_the_local_disk_did_is_tried_again() {
        let lost = IndexError::Damaged {
            folder: "/cache".to_owned(),
            cause: "a file is gone".to_owned(),
        };
        let lost = Err::<(), _>(EngineError::Index(lost)).context("while trying");
        assert!(lost.is_err_and(|error| is_of_cache(&error)));
        let other = EngineError::Request("no".to_owned());
        assert!(!is_of_cache(&other.into()));
    }
}
