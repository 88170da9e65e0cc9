//! `larder import`.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use larder_engine::bundle::{Incoming, import};
use larder_engine::error::EngineError;
use larder_engine::repository::Repository;
use larder_engine::rewrite::CopyOptions;

use super::copy;
use super::export::BundleSecret;
use crate::context::Context;
use crate::exit::Exit;
use crate::{password, person};

/// Bring the snapshots of a bundle into the repository
///
/// `larder export` makes bundles. All of the bundle is read and verified first: one that was cut off
/// or altered is refused, and nothing is changed. What the repository holds already is not stored
/// again, and a snapshot that was imported before is passed over. Snapshots keep their time, host,
/// user and tags.
///
/// A bundle from a pipe is put aside, sealed as it is, in the folder of local caches until its end was
/// seen; one in a file is read in place.
///
/// Examples: larder import /mnt/usb/desk.bundle
///           ssh host larder export -o - latest | larder import -
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct ImportArgs {
    /// The bundle: a file, or - for standard input
    #[arg(value_name = "FILE")]
    bundle: PathBuf,
    /// Read and verify the bundle, say what would be imported, and write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    secret: BundleSecret,
}

/// Imports a bundle.
///
/// # Errors
/// What the engine answers, or what keeps either from being opened.
pub fn run(context: &Context, args: &ImportArgs) -> anyhow::Result<Exit> {
    let is_input = args.bundle == Path::new("-");
    if is_input {
        if io::stdin().is_terminal() {
            bail!(
                "standard input is a terminal; name the bundle's file, or send it through a pipe"
            );
        }
        password::keep_standard_input();
    }
    let options = CopyOptions {
        author: person::author(context)?,
        dry_run: args.dry_run,
    };
    let target = match args.dry_run {
        true => context.open()?,
        false => context.open_to_change()?,
    };
    let incoming = begin(&args.bundle, is_input, &target)?;
    let is_stream = incoming.is_stream();
    let keys = password::unlock(&incoming, args.secret.source())?;
    let mut bundle = Some((incoming, keys));
    let imported = copy::reported(context, args.dry_run, &mut |each, reporter| {
        let taken = || EngineError::Internal("the bundle was read before".to_owned());
        let (incoming, keys) = bundle.take().ok_or_else(taken)?;
        let cancel = context.cancel();
        import(incoming, keys, &target, &options, each, reporter, cancel)
    });
    match imported {
        // What came through a pipe does not come again.
        Err(error) if is_stream && is_of_disk(&error) => {
            Err(anyhow!("{}", crate::paragraph(&error)))
        }
        imported => imported,
    }
}

/// Opens a bundle, or begins to read it.
fn begin(bundle: &Path, is_input: bool, target: &Repository) -> anyhow::Result<Incoming> {
    let folder = target.cache_dir();
    if is_input {
        let name = "the bundle on standard input";
        return Ok(Incoming::of_stream(io::stdin(), name, folder)?);
    }
    let is_file = bundle.metadata().map_or(true, |there| there.is_file());
    if is_file {
        return Ok(Incoming::of_file(bundle)?);
    }
    let name = bundle.display().to_string();
    let pipe = File::open(bundle).with_context(|| format!("cannot open {name}"))?;
    Ok(Incoming::of_stream(pipe, &name, folder)?)
}

/// Tells whether a command failed because of the local disk, after which it would be begun anew.
fn is_of_disk(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        matches!(
            cause.downcast_ref(),
            Some(EngineError::Index(_) | EngineError::Scratch(_))
        )
    })
}
