//! `larder serve`.

mod users;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use larder_engine::repository::default_state_dir;
use larder_server::{Options, Ready, serve};
use serde::Serialize;

use crate::context::Context;
use crate::exit::Exit;
use crate::{output, times};

/// Run jobs when they are due, and answer an HTTP API and a web page
///
/// It listens on this machine alone unless --listen says otherwise, and speaks plain HTTP to it; other machines need TLS
/// (--tls-cert, --tls-key), or a proxy that speaks it. At the first start two tokens are printed, this once: one that opens
/// everything, with which the page is opened, and one for portable backups.
///
/// Every operation is a run of larder itself, with the same larder.toml. On SIGTERM and Ctrl-C nothing new is begun, and
/// what runs comes to its next safe point, a backup with a checkpoint.
///
/// Examples: larder serve
///           larder serve --listen 0.0.0.0:8443 --tls-cert cert.pem --tls-key key.pem
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, args_conflicts_with_subcommands = true)]
pub struct ServeArgs {
    #[command(subcommand)]
    what: Option<What>,
    /// Where to listen: an address and a port; with port 0 any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The certificate chain of TLS, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of TLS, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Speak plain HTTP although other machines reach the address; who is on the way reads everything
    #[arg(long)]
    allow_plain_http: bool,
    /// Keep tokens, runs and the audit log in this folder, and not in larder/serve of the local state
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Let sources and targets that come by the API lie below this folder alone; may be repeated
    #[arg(long, value_name = "DIR")]
    allow_path: Vec<PathBuf>,
    /// Let hooks and other shell commands be set by the API: whoever has a token of the scope admin runs anything
    #[arg(long)]
    allow_commands: bool,
    /// Let URLs that come by the API lead to link-local addresses, where clouds give credentials away
    #[arg(long)]
    allow_link_local: bool,
    /// Kill what still runs so long after the service was asked to end
    #[arg(long, value_name = "DURATION", default_value = "4m", value_parser = times::seconds)]
    patience: u64,
}

#[derive(Debug, Subcommand)]
enum What {
    User(users::UserArgs),
    Token(users::TokenArgs),
}

/// What is told once the service listens, for a program.
#[derive(Serialize)]
struct Listening<'a> {
    address: SocketAddr,
    tls: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    portable_token: Option<&'a str>,
}

/// Serves until a signal comes.
///
/// # Errors
/// What keeps the service from listening.
pub fn run(context: &Context, args: &ServeArgs) -> anyhow::Result<Exit> {
    match &args.what {
        None => {}
        Some(What::User(args)) => return users::user(context, args).map(|()| Exit::Success),
        Some(What::Token(args)) => return users::token(context, args).map(|()| Exit::Success),
    }
    let program = std::env::current_exe().context("cannot tell which program this is")?;
    let absolute = |path: &Path| {
        std::path::absolute(path).with_context(|| format!("the path {}", path.display()))
    };
    let data = data_folder(args.data.as_deref())?;
    let allow_paths = args.allow_path.iter().map(|path| absolute(path));
    let options = Options {
        program,
        globals: globals(context)?,
        version: env!("CARGO_PKG_VERSION"),
        documents: crate::documents::ALL,
        config: context.settings.file.clone(),
        listen: args.listen,
        tls: args.tls_cert.clone().zip(args.tls_key.clone()),
        allow_plain_http: args.allow_plain_http,
        data,
        allow_paths: allow_paths.collect::<anyhow::Result<Vec<PathBuf>>>()?,
        allow_commands: args.allow_commands,
        allow_link_local: args.allow_link_local,
        patience: Duration::from_secs(args.patience),
    };
    // The first signal only asks.
    let _the_flag_is_the_same = context.cancel();
    let stop = Arc::clone(&context.interrupt.flag());
    let mut told = Ok(());
    serve(options, stop, |ready| told = tell(context, ready))?;
    told?;
    Ok(Exit::Success)
}

/// Gives the folder of the service's own files.
fn data_folder(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    match named {
        Some(data) => std::path::absolute(data)
            .with_context(|| format!("the path {}", data.display())),
        None => Ok(default_state_dir()
            .context("cannot tell where to keep tokens and runs: neither XDG_STATE_HOME nor HOME is set; use --data")?
            .join("serve")),
    }
}

/// Gives the options that every run of the program is given, too.
fn globals(context: &Context) -> anyhow::Result<Vec<OsString>> {
    let globals = &context.globals;
    if globals.secret_flags().source().is_some() || globals.repo.is_some() {
        bail!(
            "the service works on all locations and jobs of larder.toml, each with its own password; leave -r and the flags of \
             passwords out, and name a password for all in larder.toml or LARDER_PASSWORD_FILE"
        );
    }
    let named = [
        ("--config=", globals.config.as_deref()),
        ("--cache-dir=", globals.cache_dir.as_deref()),
    ];
    let mut all = Vec::new();
    for (flag, path) in named {
        if let Some(path) = path {
            // What is run may have another folder.
            let path = std::path::absolute(path)
                .with_context(|| format!("the path {}", path.display()))?;
            let mut argument = OsString::from(flag);
            argument.push(path);
            all.push(argument);
        }
    }
    all.extend(
        globals
            .threads
            .map(|threads| format!("--threads={threads}").into()),
    );
    Ok(all)
}

fn tell(context: &Context, ready: &Ready) -> anyhow::Result<()> {
    let tokens = ready.tokens.as_ref();
    let [token, portable] = [0, 1].map(|at| tokens.and_then(|tokens| tokens.get(at)));
    if context.json() {
        return output::message(
            &mut std::io::stdout().lock(),
            "listening",
            &Listening {
                address: ready.address,
                tls: ready.tls,
                token: token.map(|token| token.as_str()),
                portable_token: portable.map(|token| token.as_str()),
            },
        )
        .context("cannot write to standard output");
    }
    if let (Some(token), Some(portable)) = (token, portable) {
        output::line(&format!(
            "These tokens are shown this once; keep them as you keep passwords.\n\n\
             opens everything:      {}\nportable backups only: {}\n",
            token.as_str(),
            portable.as_str()
        ))?;
    }
    if context.talks() {
        let scheme = if ready.tls { "https" } else { "http" };
        output::line(&format!("listening on {scheme}://{}", ready.address))?;
    }
    Ok(())
}
