//! `larder init`.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use larder_engine::error::EngineError;
use larder_engine::repository::{ChunkerKind, InitOptions, Repository, open_storage};
use larder_engine::storage;
use serde::Serialize;

use crate::context::Context;
use crate::exit::Exit;
use crate::{output, password};

/// Make a repository
///
/// The location must hold no repository yet. The password is asked for twice, or taken from where
/// the global options say. There is no way into a repository without one of its keys: when it is
/// made, print a recovery key with `larder key recovery` and keep it on paper.
///
/// Example: larder -r /srv/backup init
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Label of the first key
    #[arg(long, default_value = "first", value_name = "TEXT")]
    label: String,
    /// How files are cut into chunks; it cannot be changed later
    #[arg(long, value_enum, default_value_t, value_name = "NAME")]
    chunker: ChunkerName,
    /// Say what would be done, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum ChunkerName {
    /// How it cuts stays secret, whatever files an attacker knows or plants
    #[default]
    ToeplitzAes,
    /// The faster one; whoever holds the storage and knows some of its files can compute how any
    /// file would be cut, and look for large ones by the lengths of their chunks
    Fastcdc,
}

impl From<ChunkerName> for ChunkerKind {
    fn from(name: ChunkerName) -> Self {
        match name {
            ChunkerName::Fastcdc => Self::FastCdc,
            ChunkerName::ToeplitzAes => Self::ToeplitzAes,
        }
    }
}

#[derive(Serialize)]
struct Planned<'a> {
    repository: Option<String>,
    location: &'a str,
    dry_run: bool,
}

/// Makes a repository.
///
/// # Errors
/// What the engine answers.
pub fn run(context: &Context, args: &InitArgs) -> anyhow::Result<Exit> {
    let place = context.place()?;
    let location = place.place.to_string();
    let stop = context.interrupt.flag();
    let found = open_storage(&place, Arc::clone(&stop))
        .and_then(|storage| Repository::probe(storage.as_ref()));
    match found {
        Err(EngineError::NoRepository { .. }) => {}
        Ok(()) => return Err(EngineError::RepositoryExists { location }.into()),
        Err(error) => return Err(error.into()),
    }
    if args.dry_run {
        if context.json() {
            output::json(&Planned {
                repository: None,
                location: &location,
                dry_run: true,
            })?;
        } else if context.talks() {
            output::line(&format!("would make a repository at {location}"))?;
        }
        return Ok(Exit::Success);
    }
    let secret = password::fresh(
        context.secret_source()?,
        &format!("new password for {location}"),
    )?;
    let options = InitOptions {
        label: args.label.clone(),
        chunker: args.chunker.into(),
        ..InitOptions::default()
    };
    let storage = storage::open(&place, storage::Mode::Create, stop)?;
    let report = Repository::init_on(storage.as_ref(), &secret, &options)?;
    if context.json() {
        output::json(&report)?;
    } else if context.talks() {
        output::line(&format!(
            "made repository {} at {}\n\nWithout a password or key nobody can read it, you \
             included. `larder key recovery`\nprints one more key, to be kept on paper.",
            report.repository, report.location
        ))?;
    }
    Ok(Exit::Success)
}
