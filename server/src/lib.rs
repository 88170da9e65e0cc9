//! The service of Larder: an HTTP API and a web page over the program itself.
//!
//! Every operation is a run of `larder --json` in a process of its own, whose documents and progress are handed on. So the
//! service does nothing that the command line cannot do, knows nothing of repositories, and outlives whatever dies in a run.

mod access;
mod api;
mod audit;
mod child;
mod data;
mod guard;
mod listen;
mod logins;
mod metrics;
mod openapi;
mod owners;
mod page;
mod policy;
mod portable;
pub mod problem;
mod quota;
mod routes;
mod runs;
mod schedule;
mod schema;
mod service;
mod shared;
pub mod tokens;
pub mod users;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use listen::Ready;
pub use openapi::document;
pub use schema::{Document, SchemaOf, of};

/// How the service is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program that is run for every operation: larder itself.
    pub program: PathBuf,
    /// Options that stand before every command, such as `--config=FILE`.
    pub globals: Vec<OsString>,
    /// Its version.
    pub version: &'static str,
    /// What it answers with `--json`, by the names that the routes use, for the OpenAPI document.
    pub documents: &'static [Document],
    /// The larder.toml that the program reads, if one is named.
    pub config: Option<PathBuf>,
    /// Where it listens.
    pub listen: SocketAddr,
    /// The certificate chain and the private key, both PEM; none for plain HTTP.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Whether plain HTTP may be spoken on an address that other machines reach.
    pub allow_plain_http: bool,
    /// The folder of tokens, runs and the audit log; it is made with mode 0700.
    pub data: PathBuf,
    /// Folders below which sources and targets have to lie; none for no such limit.
    pub allow_paths: Vec<PathBuf>,
    /// Whether settings that are shell commands may be given.
    pub allow_commands: bool,
    /// Whether URLs may lead to link-local addresses, where clouds answer with the machine's own credentials.
    pub allow_link_local: bool,
    /// For how long runs may go on once the service is asked to end; then they are killed.
    pub patience: Duration,
}

/// What keeps the service from being run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address that other machines reach, without TLS.
    #[error(
        "{0} can be reached by other machines, and without TLS whoever is on the way reads tokens, passwords and backups; \
         give --tls-cert and --tls-key, listen on 127.0.0.1 behind a proxy that speaks TLS, or say --allow-plain-http"
    )]
    PlainHttp(SocketAddr),
    /// The certificate or its key.
    #[error("cannot use {what} {}: {why}", path.display())]
    Tls {
        /// What of the two.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Another service has the folder.
    #[error("another service has {}; end it first, or give this one another folder with --data", .0.display())]
    Busy(PathBuf),
    /// A folder that was there before, and that others may look into.
    #[error("{} is there already, and open to other users of this machine; close it (chmod 700) if it is the service's own, or name another folder with --data", .0.display())]
    Open(PathBuf),
    /// The service's own files.
    #[error("cannot {tried} {}: {source}", path.display())]
    Data {
        /// What was tried.
        tried: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The address cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The operating system gives no threads or no randomness.
    #[error("cannot start the service: {0}")]
    Start(String),
}

/// Serves until `stop` is set; `ready` is told once it listens.
///
/// # Errors
/// What keeps it from listening.
pub fn serve(
    options: Options,
    stop: Arc<AtomicBool>,
    ready: impl FnOnce(&Ready),
) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("serve")
        .build()
        .map_err(|error| ServeError::Start(error.to_string()))?;
    runtime.block_on(listen::run(options, stop, ready))
}
