//! Statistics of a repository.

use std::ops::ControlFlow;
use std::sync::Arc;

use larder_format::names::{self, Name};

use crate::error::Result;
use crate::repository::Repository;
use crate::snapshots::{self, Filter};
use crate::view;

/// What a repository holds.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Stats {
    /// Complete snapshots of the filter.
    pub snapshots: u64,
    /// Entries in all of them together.
    pub entries: u64,
    /// Bytes of all their files together: what restoring each would write.
    pub restore_bytes: u64,
    /// Distinct chunks in the index.
    pub chunks: u64,
    /// Their bytes before compression.
    pub chunk_bytes: u64,
    /// Packs.
    pub packs: u64,
    /// Bytes of packs in the storage.
    pub pack_bytes: u64,
    /// Objects of any kind in the storage.
    pub objects: u64,
    /// Bytes of all objects in the storage.
    pub stored_bytes: u64,
}

/// Counts what the repository holds.
///
/// The filter narrows snapshots, entries and restored bytes; all else is of the whole repository.
///
/// # Errors
/// What the storage answers.
pub fn stats(repository: &Arc<Repository>, filter: &Filter) -> Result<Stats> {
    let mut stats = Stats::default();
    let view = view::read(repository, true, None)?;
    for snapshot in snapshots::list(repository, filter, false)? {
        stats.snapshots += 1;
        let sources = view.cells.get(&snapshot.session).map(|cell| &cell.sources);
        for source in sources.into_iter().flatten() {
            stats.entries = stats.entries.saturating_add(source.entries);
            stats.restore_bytes = stats.restore_bytes.saturating_add(source.bytes);
        }
    }
    repository.index().for_each_chunk(&mut |_, places| {
        stats.chunks += 1;
        let length = places.first().map_or(0, |place| place.length);
        stats.chunk_bytes = stats.chunk_bytes.saturating_add(length.into());
        ControlFlow::Continue(())
    })?;
    repository.storage().list("", &mut |object| {
        stats.objects += 1;
        stats.stored_bytes = stats.stored_bytes.saturating_add(object.size_bytes);
        if let Some(Name::Pack(_)) = names::parse(&object.name) {
            stats.packs += 1;
            stats.pack_bytes = stats.pack_bytes.saturating_add(object.size_bytes);
        }
        Ok(())
    })?;
    Ok(stats)
}
