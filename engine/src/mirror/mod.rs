//! Mirrors: a repository's objects kept in another storage too, without a key (SPEC.md §14).
//!
//! A storage is a mirror as long as it has the config with the highest number of all, the *marker*. What
//! it lists is not what is there but what its newest *manifest* names, so that one new object takes
//! it from one moment of the repository to a later one. It is read like any repository and takes
//! no writes until it is promoted.

mod copying;
mod pass;
mod promote;
mod reading;
mod sync;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests;

pub(crate) use pass::Listing;
pub use promote::{PromoteReport, promote};
pub use reading::readable;
pub use sync::{SyncOptions, SyncReport, no_mirror_of_bundle, refuse_nested, sync};

use std::sync::Arc;

use larder_format::config::Config;
use larder_format::limits::{COLLECTOR_BYTES, CONFIG_BYTES};
use larder_format::mirror::{self, MARKER, Manifest};
use larder_format::names::{self, Name};

use crate::error::{EngineError, Result};
use crate::storage::Storage;
use crate::storage::error::{ErrorKind, StorageError};

/// Times that the newest manifest is looked for because a sync replaced it meanwhile.
const LOOKS_MAX: usize = 5;

/// Reads the marker of a mirror; none where there is no mirror.
pub(crate) fn read_marker(storage: &dyn Storage) -> Result<Option<Config>> {
    let name = names::config(MARKER);
    let object = match storage.get(&name, CONFIG_BYTES as u64) {
        Ok(object) => object,
        Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let marker = mirror::read_marker(&object).map_err(|error| match error {
        larder_format::error::FormatError::UnknownFeature { .. } => EngineError::Unsupported {
            location: storage.describe(),
            why: error.to_string(),
        },
        _ => EngineError::damaged(&name, &error),
    })?;
    Ok(Some(marker))
}

/// Lists the numbers of the manifests that are there.
fn list_manifests(storage: &dyn Storage) -> std::result::Result<Vec<u64>, StorageError> {
    let mut numbers = Vec::new();
    storage.list(names::MIRROR, &mut |object| {
        if let Some(Name::Manifest(number)) = names::parse(&object.name) {
            numbers.push(number);
        }
        Ok(())
    })?;
    numbers.sort_unstable();
    Ok(numbers)
}

/// What was found of a mirror's manifests.
pub(crate) enum Newest {
    /// No sync to it has ended yet.
    None,
    /// The newest one.
    Read(Arc<Manifest>),
    /// The newest one, which is damaged: its number, and what is wrong.
    Damaged(u64, EngineError),
}

/// Reads the newest manifest, unless it is the one that is known already.
pub(crate) fn newest_manifest(
    storage: &dyn Storage,
    known: Option<&Arc<Manifest>>,
) -> std::result::Result<Newest, StorageError> {
    let mut looks = 1;
    loop {
        let Some(number) = list_manifests(storage)?.pop() else {
            return Ok(Newest::None);
        };
        if let Some(known) = known.filter(|known| known.number == number) {
            return Ok(Newest::Read(Arc::clone(known)));
        }
        let name = Name::Manifest(number).to_string();
        match storage.get(&name, COLLECTOR_BYTES as u64) {
            Ok(object) => {
                return Ok(match Manifest::open(number, &object) {
                    Ok(manifest) => Newest::Read(Arc::new(manifest)),
                    Err(error) => Newest::Damaged(number, EngineError::damaged(&name, &error)),
                });
            }
            // A sync that made a newer one deleted it.
            Err(error) if error.kind == ErrorKind::NotFound && looks < LOOKS_MAX => looks += 1,
            Err(error) => return Err(error),
        }
    }
}
