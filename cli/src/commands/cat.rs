//! `larder cat`.

use std::ffi::OsString;

use clap::{Args, Subcommand};
use larder_engine::inspect;

use crate::args::{FilterArgs, SNAPSHOT_HELP};
use crate::context::{Context, parse_spec, resolve};
use crate::exit::Exit;
use crate::output;

/// Show objects of the repository as JSON, for debugging
///
/// Example: larder cat config
#[derive(Debug, Args)]
pub struct CatArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The config
    Config,
    /// A snapshot
    #[command(after_long_help = SNAPSHOT_HELP)]
    Snapshot {
        /// Which one
        snapshot: OsString,
        #[command(flatten)]
        filter: FilterArgs,
    },
    /// The directory of a pack
    Pack {
        /// The pack's id, in hex
        id: String,
    },
}

/// Shows one object.
///
/// # Errors
/// What the engine answers.
pub fn run(context: &Context, args: &CatArgs) -> anyhow::Result<Exit> {
    match &args.what {
        What::Config => output::json(&inspect::config_json(&*context.open()?))?,
        What::Snapshot { snapshot, filter } => {
            let spec = parse_spec(snapshot)?;
            let repository = context.open()?;
            let snapshot = resolve(&repository, &spec, &filter.filter())?;
            output::json(&inspect::snapshot_json(&repository, &snapshot)?)?;
        }
        What::Pack { id } => output::json(&inspect::pack_json(&*context.open()?, id)?)?,
    }
    Ok(Exit::Success)
}
