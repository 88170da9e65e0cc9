//! Finding chunks without the segment that names their pack: by the packs' own directories.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use larder_format::ids::ObjectId;
use larder_format::names::{self, Name};
use larder_format::object::{HEADER_BYTES, Header};
use larder_format::pack::{FOOTER_BYTES, directory_range, open_directory};

use crate::error::{EngineError, Result};
use crate::index::PackRecord;
use crate::repository::Repository;
use crate::view::{Unusable, View};

/// Reads the directory of every pack that no segment names, and lets it count for this run.
///
/// What the packs hold is checked chunk by chunk when it is read, so a pack that no committed
/// session stands for does no harm to a reader. Writers must not deduplicate against them.
pub(crate) fn feed_directories(repository: &Repository, view: &mut View) -> Result<()> {
    let mut known = BTreeSet::new();
    repository.index().packs(&mut |pack| {
        known.insert(pack.id);
        ControlFlow::Continue(())
    })?;
    let mut unknown = Vec::new();
    repository.storage().list("packs", &mut |object| {
        if let Some(Name::Pack(id)) = names::parse(&object.name)
            && !known.contains(&id)
        {
            unknown.push((id, object.size_bytes));
        }
        Ok(())
    })?;
    for (id, size) in unknown {
        match read_directory(repository, &id, size) {
            Ok(record) => repository.index().add_pending_pack(&record)?,
            Err(EngineError::Damaged { object, why }) => {
                view.unusable.push(Unusable { object, why });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads what a pack says of itself, in three short ranges.
pub(crate) fn read_directory(
    repository: &Repository,
    id: &ObjectId,
    size: u64,
) -> Result<PackRecord> {
    let name = names::pack(id);
    let damaged = |error: &dyn std::fmt::Display| EngineError::Damaged {
        object: name.clone(),
        why: error.to_string(),
    };
    let shortest = (HEADER_BYTES + FOOTER_BYTES) as u64;
    if size < shortest {
        return Err(damaged(&"it is too short for a pack"));
    }
    let storage = repository.storage();
    let header = storage.get_range(&name, 0, HEADER_BYTES as u64)?;
    let header = Header::decode(&header).map_err(|error| damaged(&error))?;
    let footer = storage.get_range(&name, size - FOOTER_BYTES as u64, FOOTER_BYTES as u64)?;
    let range = directory_range(size, &footer).map_err(|error| damaged(&error))?;
    let sealed = storage.get_range(&name, range.start, range.end - range.start)?;
    let directory = open_directory(repository.keyring(), &header, size, &sealed)
        .map_err(|error| damaged(&error))?;
    Ok(PackRecord::new(*id, header.kind, size, &directory))
}
