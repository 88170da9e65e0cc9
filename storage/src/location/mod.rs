//! Locations: a place, and the settings with which it is reached.

pub mod keys;
pub mod nearest;
pub mod place;
pub mod settings;
mod units;

pub use place::{Place, Scheme};
pub use settings::{Layers, Origin, Settings, shown};
pub use units::{Rate, Window};

use super::error::{ErrorKind, Operation, Reason, Result, StorageError};

/// A place, and the settings with which it is reached.
#[derive(Clone, Debug)]
pub struct Location {
    /// Where it is.
    pub place: Place,
    /// How it is reached.
    pub settings: Settings,
}

impl Location {
    /// Parses a URL or path and gathers its settings.
    ///
    /// # Errors
    /// `Permanent` with what is wrong; the URL is not repeated where it may hold a secret.
    pub fn new(url: &str, layers: &Layers<'_>) -> Result<Self> {
        let refuse = |cause: String| {
            let reason = Reason::Settings;
            StorageError::new(
                Operation::Open,
                without_credentials(url),
                "",
                ErrorKind::Permanent,
                cause,
            )
            .because(reason)
        };
        let place = place::parse(url).map_err(refuse)?;
        let settings = Settings::gather(place.scheme, layers).map_err(refuse)?;
        Ok(Self { place, settings })
    }
}

/// Leaves out what stands before an `@` in a URL, which may be a password.
fn without_credentials(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            format!("{scheme}://{host}")
        }
        None => url.to_owned(),
    }
}
