//! Promoting a mirror to a repository that takes writes.

use std::sync::Arc;

use bytes::Bytes;
use larder_format::ids::ReplicaId;
use larder_format::mirror::MARKER;
use larder_format::names::{self, Name};
use serde::Serialize;

use super::{Newest, list_manifests, newest_manifest, read_marker};
use crate::error::{EngineError, Result};
use crate::keys::put_config_twin;
use crate::random;
use crate::repository::Repository;
use crate::storage::error::ErrorKind;
use crate::storage::{Storage, create_or_confirm};
use crate::view;

/// What promoting did, or would do.
#[derive(Debug, Clone, Serialize)]
pub struct PromoteReport {
    /// Whether nothing was touched.
    pub dry_run: bool,
    /// The repository's id, in hex.
    pub repository: String,
    /// The location, without secrets.
    pub location: String,
    /// Snapshots that it has.
    pub snapshots: u64,
    /// Records of an unfinished sync that were removed, or would be.
    pub removed: u64,
}

/// Makes a repository of a mirror: `repository` is the mirror as it was opened, `storage` its storage.
///
/// No sync to it may be running. The marker goes last, so whoever dies before leaves a mirror. A dry run
/// changes nothing.
///
/// # Errors
/// `Request` if it is no mirror, or no sync to it has ended; or what the storage answers.
pub fn promote(
    repository: &Repository,
    storage: &Arc<dyn Storage>,
    dry_run: bool,
) -> Result<PromoteReport> {
    let storage = storage.as_ref();
    let location = storage.describe();
    if read_marker(storage)?.is_none() {
        return Err(EngineError::Request(format!(
            "{location} is no mirror: it takes writes already"
        )));
    }
    let manifest = match newest_manifest(storage, None)? {
        Newest::Read(manifest) => manifest,
        Newest::Damaged(_, error) => return Err(error),
        Newest::None => {
            return Err(EngineError::Request(format!(
                "no sync to {location} has ended, so it has no snapshot; run `larder sync` first"
            )));
        }
    };
    let snapshots = view::read_cells(repository, None)?.snapshots().count() as u64;
    if !dry_run {
        become_a_repository(repository, storage)?;
    }
    // From then on all that is there counts, so what no sync finished has to go before.
    let mut unfinished = Vec::new();
    for folder in [names::CELLS, names::COLLECTOR, names::SESSIONS] {
        storage.list(folder, &mut |object| {
            let name = names::parse(&object.name);
            unfinished.extend(name.filter(|name| !manifest.lists(name)));
            Ok(())
        })?;
    }
    if !dry_run {
        for name in &unfinished {
            storage.delete(&name.to_string())?;
        }
        storage.delete(&names::config(MARKER))?;
        for number in list_manifests(storage)? {
            storage.delete(&Name::Manifest(number).to_string())?;
        }
    }
    Ok(PromoteReport {
        dry_run,
        repository: repository.config().repository.to_hex(),
        location,
        snapshots,
        removed: unfinished.len() as u64,
    })
}

/// Writes the configuration of the repository that the mirror becomes: only one promotion can.
fn become_a_repository(repository: &Repository, storage: &dyn Storage) -> Result<()> {
    let mut config = repository.config();
    config.number = config.number.saturating_add(1);
    config.replica = ReplicaId(random::bytes()?);
    let object = Bytes::from(config.seal(repository.keyring(), random::bytes()?)?);
    match create_or_confirm(storage, &names::config(config.number), &object) {
        Err(error) if error.kind == ErrorKind::AlreadyExists => Err(EngineError::Request(format!(
            "somebody else promotes {} at the same time; look at what became of it",
            storage.describe()
        ))),
        result => {
            result?;
            put_config_twin(storage, config.number, &object);
            Ok(())
        }
    }
}
