//! Streams on the command line of `larder backup`: which `--name` belongs to which, and in which order
//! all sources are read.

use std::io::IsTerminal as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::ArgMatches;
use clap::parser::ValueSource;
use larder_engine::backup::{Origin, Stream};
use serde::{Deserialize, Serialize};

/// A command of larder.toml whose output is backed up.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NamedCommand {
    /// The name of its file.
    pub name: String,
    /// The line that a shell runs.
    pub command: String,
}

/// What stands on the command line, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// A file, folder or bucket.
    Source(PathBuf),
    /// `--stdin`.
    StandardInput,
    /// `--command`.
    Command(String),
    /// `--name`.
    Name(String),
}

/// A source as it was given, in its turn.
#[derive(Debug, Clone)]
pub enum Turn {
    /// A file, folder or bucket.
    Source(PathBuf),
    /// A stream.
    Stream(Stream),
}

/// Gives what was given of sources, streams and their names in the order of the command line.
#[must_use]
pub fn given(matches: &ArgMatches) -> Vec<Given> {
    let mut all: Vec<(usize, Given)> = Vec::new();
    let mut add = |id: &str, values: Vec<Given>| {
        let places = matches.indices_of(id).into_iter().flatten();
        all.extend(places.zip(values));
    };
    let texts = |id: &str| -> Vec<String> {
        let values = matches.get_many::<String>(id);
        values.into_iter().flatten().cloned().collect()
    };
    let sources = matches.get_many::<PathBuf>("sources");
    let sources = sources.into_iter().flatten().cloned();
    add("sources", sources.map(Given::Source).collect());
    let commands = texts("command").into_iter();
    add("command", commands.map(Given::Command).collect());
    add("name", texts("name").into_iter().map(Given::Name).collect());
    if matches.value_source("stdin") == Some(ValueSource::CommandLine) {
        add("stdin", vec![Given::StandardInput]);
    }
    all.sort_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, given)| given).collect()
}

/// Gives each stream its name: the one behind it, or the one before it that no other took.
///
/// # Errors
/// For a stream without a name, and a name without a stream.
pub fn turns(given: &[Given]) -> anyhow::Result<Vec<Turn>> {
    let mut turns = Vec::new();
    let mut spare: Option<&str> = None;
    let mut nameless: Option<&Given> = None;
    for one in given {
        match one {
            Given::Source(path) => turns.push(Turn::Source(path.clone())),
            Given::Name(name) => match (nameless.take(), spare) {
                (Some(stream), _) => turns.push(Turn::Stream(named(stream, name))),
                (None, None) => spare = Some(name),
                (None, Some(_)) => bail!(
                    "--name {name} names nothing: a name stands behind the --command or --stdin that it belongs to"
                ),
            },
            stream => match (nameless, spare.take()) {
                (Some(other), _) => return Err(without_name(other)),
                (None, Some(name)) => turns.push(Turn::Stream(named(stream, name))),
                (None, None) => nameless = Some(stream),
            },
        }
    }
    match (nameless, spare) {
        (Some(stream), _) => Err(without_name(stream)),
        (None, Some(name)) => {
            bail!("--name {name} names nothing; it goes with --command or --stdin")
        }
        (None, None) => Ok(turns),
    }
}

/// Makes the streams of larder.toml.
#[must_use]
pub fn of_file(commands: &[NamedCommand]) -> Vec<Stream> {
    let stream = |one: &NamedCommand| named(&Given::Command(one.command.clone()), &one.name);
    commands.iter().map(stream).collect()
}

/// Refuses to read a stream from a keyboard.
///
/// # Errors
/// When standard input is a terminal.
pub fn refuse_terminal(streams: &[Stream]) -> anyhow::Result<()> {
    let reads_input = |stream: &Stream| matches!(stream.origin, Origin::StandardInput(_));
    if streams.iter().any(reads_input) && std::io::stdin().is_terminal() {
        bail!(
            "--stdin backs up what is piped in, and standard input is a terminal; e.g. `pg_dump shop | larder backup --stdin --name shop.sql`"
        );
    }
    Ok(())
}

/// Gives the name that a source has in the snapshot.
///
/// # Errors
/// When the current folder cannot be told.
pub fn name_of(path: &std::path::Path) -> anyhow::Result<Vec<u8>> {
    let current = std::env::current_dir().context("cannot tell the current folder")?;
    let path = crate::commands::backup::absolute(path, &current)?;
    Ok(path.as_os_str().as_bytes().to_vec())
}

fn named(stream: &Given, name: &str) -> Stream {
    let slash = if name.starts_with('/') { "" } else { "/" };
    Stream {
        path: format!("{slash}{name}").into_bytes(),
        origin: match stream {
            Given::Command(line) => Origin::Command(line.clone()),
            _ => Origin::standard_input(),
        },
    }
}

fn without_name(stream: &Given) -> anyhow::Error {
    let what = match stream {
        Given::Command(line) => format!("--command '{line}'"),
        _ => "--stdin".to_owned(),
    };
    anyhow::anyhow!("{what} has no name; write --name db.sql behind it")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn shown(line: &[Given]) -> Result<Vec<String>, String> {
        let turns = turns(line).map_err(|error| error.to_string())?;
        let shown = turns.into_iter().map(|turn| match turn {
            Turn::Source(path) => path.display().to_string(),
            Turn::Stream(stream) => {
                let path = String::from_utf8(stream.path).unwrap();
                match stream.origin {
                    Origin::Command(line) => format!("{path}={line}"),
                    Origin::StandardInput(_) => format!("{path}=-"),
                }
            }
        });
        Ok(shown.collect())
    }

    fn command(line: &str) -> Given {
        Given::Command(line.to_owned())
    }

    fn name(name: &str) -> Given {
        Given::Name(name.to_owned())
    }

    #[test]
    fn a_name_belongs_to_the_stream_before_it() {
        let source = Given::Source("/home".into());
        let line = [
            command("one"),
            name("a"),
            source,
            Given::StandardInput,
            name("/x/b"),
            command("two"),
            name("c"),
        ];
        let expected = ["/a=one", "/home", "/x/b=-", "/c=two"];
        assert_eq!(shown(&line).unwrap(), expected);
        let before = [name("a"), Given::StandardInput];
        assert_eq!(shown(&before).unwrap(), ["/a=-"]);
    }

    #[test]
    fn what_lacks_its_other_half_is_refused() {
        let error = |line: &[Given]| shown(line).unwrap_err();
        assert!(error(&[command("one")]).contains("--command 'one' has no name"));
        assert!(error(&[Given::StandardInput, command("x"), name("a")]).contains("--stdin has"));
        assert!(error(&[name("a")]).contains("--name a names nothing"));
        let two = [command("one"), name("a"), name("b"), name("c")];
        assert!(error(&two).contains("--name c names nothing"));
    }
}
