//! `larder version`.

use serde::Serialize;

use crate::context::Context;
use crate::exit::Exit;
use crate::output;

#[derive(Serialize)]
struct Version {
    version: &'static str,
    os: &'static str,
    arch: &'static str,
}

/// Tells the version.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(context: &Context) -> anyhow::Result<Exit> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        os: std::env::consts::OS,
        arch: std::env::consts::ARCH,
    };
    if context.json() {
        output::json(&version)?;
    } else {
        output::line(&format!(
            "larder {} on {}-{}",
            version.version, version.os, version.arch
        ))?;
    }
    Ok(Exit::Success)
}
