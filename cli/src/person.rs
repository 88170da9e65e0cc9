//! Who runs the command, and where: what snapshots and their changes carry.

use anyhow::bail;
use larder_engine::session::Author;

use crate::context::Context;
use crate::settings::{Env, process_env};

/// Gives the host name: that of the flag, of `LARDER_HOST`, of larder.toml, or the machine's.
///
/// # Errors
/// When there is none.
pub fn host_name(flag: Option<&str>, file: Option<&str>, env: Env) -> anyhow::Result<String> {
    let environment = || env("LARDER_HOST").map(|name| name.to_string_lossy().into());
    let named = flag.map(ToOwned::to_owned).or_else(environment);
    if let Some(host) = named.or(file.map(ToOwned::to_owned)) {
        return Ok(host);
    }
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy().into_owned();
    if host.is_empty() {
        bail!("this machine has no host name; give one in LARDER_HOST");
    }
    Ok(host)
}

/// Gives the user's name, or number if there is none.
#[must_use]
pub fn user_name() -> String {
    let name = uzers::get_current_username();
    name.map_or_else(
        || uzers::get_current_uid().to_string(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// Gives who asks for a change to a snapshot.
///
/// # Errors
/// When the host has no name.
pub fn author(context: &Context) -> anyhow::Result<Author> {
    Ok(Author {
        host: host_name(None, context.settings.backup.host.as_deref(), &process_env)?,
        user: user_name(),
    })
}
