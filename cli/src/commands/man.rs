//! `larder man`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};

use crate::args::Arguments;
use crate::context::Context;
use crate::exit::Exit;
use crate::output;

/// Write the man pages into a folder
///
/// Example: larder man ~/.local/share/man/man1
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The folder; it is made if it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes a page for larder and one for each command.
///
/// # Errors
/// When the folder cannot be written.
pub fn run(context: &Context, args: &ManArgs) -> anyhow::Result<Exit> {
    let folder = &args.folder;
    let tried = || format!("cannot write man pages into {}", folder.display());
    std::fs::create_dir_all(folder).with_context(tried)?;
    clap_mangen::generate_to(Arguments::command(), folder).with_context(tried)?;
    if context.json() {
        output::json(&serde_json::json!({ "folder": folder.to_string_lossy() }))?;
    }
    Ok(Exit::Success)
}
