//! `larder init`.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use larder_engine::error::EngineError;
use larder_engine::repository::{ChunkerKind, InitOptions, InitReport, Repository, open_storage};
use larder_engine::storage;
use larder_engine::storage::probe::{self, Creates};
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
    /// Share of its packs, in percent, that damage may take anywhere and that comes back without any other copy;
    /// `larder parity` changes it later
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(2..=100))]
    parity: Option<u8>,
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

#[derive(Serialize)]
struct Made<'a> {
    #[serde(flatten)]
    report: &'a InitReport,
    creates_exclusively: bool,
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
    let storage = storage::open(&place, storage::Mode::Create, stop)?;
    let creates = probe::try_creates(storage.as_ref())?;
    let options = InitOptions {
        label: args.label.clone(),
        chunker: args.chunker.into(),
        racy_creates: creates.is_lie(),
        parity: args.parity,
        ..InitOptions::default()
    };
    let report = Repository::init_on(storage.as_ref(), &secret, &options)?;
    if !creates.is_exclusive() {
        warn_of_racy_creates(&report.location, creates);
    }
    if context.json() {
        output::json(&Made {
            report: &report,
            creates_exclusively: creates.is_exclusive(),
        })?;
    } else if context.talks() {
        output::line(&format!(
            "made repository {} at {}\n\nWithout a password or key nobody can read it, you \
             included. `larder key recovery`\nprints one more key, to be kept on paper.",
            report.repository, report.location
        ))?;
    }
    Ok(Exit::Success)
}

fn warn_of_racy_creates(location: &str, creates: Creates) {
    let remembered = match creates.is_lie() {
        true => "; this storage claims otherwise, so the repository remembers it",
        false => "",
    };
    eprintln!(
        "larder: warning: at {location} {}. Backups work. A prune beside a running backup, or beside \
         another prune, could lose data: it will ask for --accept-racy-creates, and then nothing \
         else may run{remembered}",
        creates.complaint()
    );
}
