//! Promoting a mirror to a repository that takes writes.

use std::sync::Arc;

use bytes::Bytes;
use larder_format::ids::ReplicaId;
use larder_format::mirror::MARKER;
use larder_format::names::{self, Name};
use serde::Serialize;

use super::{Newest, list_manifests, newest_manifest, read_marker};
use crate::error::{EngineError, Result};
use crate::random;
use crate::repository::Repository;
use crate::storage::error::ErrorKind;
use crate::storage::{Storage, create_or_confirm};
use crate::view;

/// What promoting did.
#[derive(Debug, Clone, Serialize)]
pub struct PromoteReport {
    /// The repository's id, in hex.
    pub repository: String,
    /// The location, without secrets.
    pub location: String,
    /// Snapshots that it has.
    pub snapshots: u64,
    /// Records of an unfinished sync that were removed.
    pub removed: u64,
}

/// Makes a repository of a mirror: `repository` is the mirror as it was opened, `storage` its storage.
///
/// No sync to it may be running. The marker goes last, so whoever dies before leaves a mirror.
///
/// # Errors
/// `Request` if it is no mirror, or no sync to it has ended; or what the storage answers.
pub fn promote(repository: &Repository, storage: &Arc<dyn Storage>) -> Result<PromoteReport> {
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
    let mut config = repository.config();
    config.number = config.number.saturating_add(1);
    config.replica = ReplicaId(random::bytes()?);
    let object = Bytes::from(config.seal(repository.keyring(), random::bytes()?)?);
    match create_or_confirm(storage, &names::config(config.number), &object) {
        Err(error) if error.kind == ErrorKind::AlreadyExists => {
            return Err(EngineError::Request(format!(
                "somebody else promotes {location} at the same time; look at what became of it"
            )));
        }
        result => result?,
    }
    // From now on all that is there counts, so what no sync finished has to go before.
    let mut removed = 0;
    for folder in [names::CELLS, names::COLLECTOR, names::SESSIONS] {
        let mut left = Vec::new();
        storage.list(folder, &mut |object| {
            let name = names::parse(&object.name);
            left.extend(name.filter(|name| !manifest.lists(name)));
            Ok(())
        })?;
        removed += left.len() as u64;
        for name in left {
            storage.delete(&name.to_string())?;
        }
    }
    storage.delete(&names::config(MARKER))?;
    for number in list_manifests(storage)? {
        storage.delete(&Name::Manifest(number).to_string())?;
    }
    Ok(PromoteReport {
        repository: config.repository.to_hex(),
        location,
        snapshots,
        removed,
    })
}
