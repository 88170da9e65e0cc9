//! Statistics of a repository.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use jiff::Timestamp;
use larder_format::cell::Cell;
use larder_format::ids::ObjectId;
use larder_format::names::{self, Name};

use crate::cancel::Cancel;
use crate::error::Result;
use crate::index::Place;
use crate::mark::{Owned, SHARED, mark, owner};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::snapshots::{self, Filter, SnapshotInfo, narrowed};
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
    /// The chunker that the repository was made with, by its name in the config.
    pub chunker: String,
    /// Distinct chunks that are there, needed or not.
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
    /// What was found by walking the snapshots, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
}

/// What each snapshot needs, brought, and would free.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct History {
    /// Bytes of packs that some snapshot needs; the rest is for a prune to free.
    pub needed_stored_bytes: u64,
    /// Snapshots of the filter, the oldest first.
    pub snapshots: Vec<SnapshotStats>,
}

/// What one snapshot needs, brought, and would free; stored bytes are shares of packs.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SnapshotStats {
    /// The id by which people name it.
    pub id: String,
    /// When it was started (RFC 3339, UTC).
    pub time: String,
    /// Host it was made on.
    pub host: String,
    /// Bytes of all its files.
    pub restore_bytes: u64,
    /// Bytes of chunks that no other snapshot needs, before compression.
    pub unique_bytes: u64,
    /// The same as stored: what forgetting it alone, and pruning, would free.
    pub unique_stored_bytes: u64,
    /// Bytes of chunks that no older snapshot needs, before compression: how much it let the
    /// repository grow.
    pub added_bytes: u64,
    /// The same as stored.
    pub added_stored_bytes: u64,
}

/// Counts what the repository holds; with `walks`, also what each snapshot needs.
///
/// The filter narrows snapshots, entries and restored bytes, and so does a time: to each source as it was in
/// the newest snapshot that is not later. All else is of the whole repository as it is now.
///
/// # Errors
/// `NotFound` if there is no snapshot that early; what the storage answers; with `walks`, `Damaged` if a snapshot cannot be walked.
pub fn stats(
    repository: &Arc<Repository>,
    filter: &Filter,
    at: Option<Timestamp>,
    walks: bool,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Stats> {
    let mut stats = Stats {
        chunker: repository.config().chunker.name,
        ..Stats::default()
    };
    let view = view::read(repository, true, None)?;
    let listed = match at {
        Some(time) => snapshots::at(repository, time, filter, None)?,
        None => snapshots::list(repository, filter, false)?,
    };
    for snapshot in &listed {
        stats.snapshots += 1;
        let cell = view.cells.get(&snapshot.session);
        let sources = cell.map(|cell| narrowed(cell, snapshot).sources);
        for source in sources.into_iter().flatten() {
            stats.entries = stats.entries.saturating_add(source.entries);
            stats.restore_bytes = stats.restore_bytes.saturating_add(source.bytes);
        }
    }
    let mut packs = Packs::default();
    repository.storage().list("", &mut |object| {
        stats.objects += 1;
        stats.stored_bytes = stats.stored_bytes.saturating_add(object.size_bytes);
        if let Some(Name::Pack(id)) = names::parse(&object.name) {
            stats.packs += 1;
            stats.pack_bytes = stats.pack_bytes.saturating_add(object.size_bytes);
            packs.there(id, object.size_bytes);
        }
        Ok(())
    })?;
    repository.index().for_each_chunk(&mut |_, places| {
        if let Some(place) = packs.first(places) {
            stats.chunks += 1;
            stats.chunk_bytes = stats.chunk_bytes.saturating_add(place.length.into());
        }
        packs.add(places);
        ControlFlow::Continue(())
    })?;
    if walks {
        // What is unique depends on everything that lives, whatever the filter shows.
        let live = view.live();
        let cells = view.cells.values().filter(|cell| live.contains(&cell.id));
        let mut cells: Vec<&Cell> = cells.collect();
        cells.sort_by_key(|cell| (cell.started, cell.id));
        stats.history = Some(history(
            repository, &cells, &listed, &packs, progress, cancel,
        )?);
    }
    Ok(stats)
}

/// Plaintext and stored bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Bytes {
    plain: u64,
    stored: u64,
}

impl Bytes {
    fn add(&mut self, more: Self) {
        self.plain = self.plain.saturating_add(more.plain);
        self.stored = self.stored.saturating_add(more.stored);
    }
}

fn history(
    repository: &Arc<Repository>,
    cells: &[&Cell],
    listed: &[SnapshotInfo],
    packs: &Packs,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<History> {
    let marks: Owned = mark(repository, cells, progress, cancel)?;
    let mut unique = vec![Bytes::default(); cells.len()];
    let mut added = vec![Bytes::default(); cells.len()];
    let mut needed = Bytes::default();
    marks.join(repository.index(), |_, places, records| {
        let Some(place) = packs.first(places).filter(|_| !records.is_empty()) else {
            return Ok(());
        };
        let bytes = packs.share(place);
        needed.add(bytes);
        // The oldest is the lowest, and what is shared the highest.
        let first = records.iter().map(owner).min().unwrap_or(SHARED);
        if let Some(sum) = added.get_mut(first as usize) {
            sum.add(bytes);
        }
        if records.len() == 1
            && let Some(sum) = unique.get_mut(first as usize)
        {
            sum.add(bytes);
        }
        Ok(())
    })?;
    let shown: BTreeSet<_> = listed.iter().map(|snapshot| snapshot.session).collect();
    let sums = cells.iter().zip(unique.iter().zip(&added));
    let snapshots =
        sums.filter(|(cell, _)| shown.contains(&cell.id))
            .map(|(cell, (unique, added))| {
                let sources = cell.sources.iter().map(|source| source.bytes);
                let time = Timestamp::from_nanosecond(cell.started.into());
                SnapshotStats {
                    id: cell.id.snapshot_name(),
                    time: time.map_or_else(|_| String::new(), |time| time.to_string()),
                    host: cell.host.clone(),
                    restore_bytes: sources.fold(0, u64::saturating_add),
                    unique_bytes: unique.plain,
                    unique_stored_bytes: unique.stored,
                    added_bytes: added.plain,
                    added_stored_bytes: added.stored,
                }
            });
    Ok(History {
        needed_stored_bytes: needed.stored,
        snapshots: snapshots.collect(),
    })
}

/// The size of each pack that is there, and the plaintext bytes in it. Segments name packs for a
/// while that a prune has deleted.
#[derive(Default)]
struct Packs(HashMap<ObjectId, Bytes>);

impl Packs {
    fn there(&mut self, id: ObjectId, size: u64) {
        self.0.entry(id).or_default().stored = size;
    }

    fn add(&mut self, places: &[Place]) {
        for place in places {
            if let Some(pack) = self.0.get_mut(&place.pack) {
                pack.plain += u64::from(place.length);
            }
        }
    }

    /// Gives the place of a chunk that counts.
    fn first<'p>(&self, places: &'p [Place]) -> Option<&'p Place> {
        places.iter().find(|place| self.0.contains_key(&place.pack))
    }

    /// Gives the bytes of a chunk, and its share of its pack's size.
    fn share(&self, place: &Place) -> Bytes {
        let plain = u64::from(place.length);
        let pack = self.0.get(&place.pack).copied().unwrap_or_default();
        let stored = u128::from(pack.stored) * u128::from(plain) / u128::from(pack.plain.max(1));
        Bytes {
            plain,
            stored: u64::try_from(stored).unwrap_or(u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;
    use crate::progress::Silent;
    use crate::snapshots::fixture;
    use crate::storage::Storage;
    use crate::storage::object::ObjectStorage;

    #[test]
    fn each_snapshot_has_what_it_brought_and_what_it_alone_needs() {
        let storage: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
        fixture::init(storage.as_ref());
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, seed: u8, length: usize| {
            let mut bytes = vec![0; length];
            let mut hasher = blake3::Hasher::new();
            hasher.update(&[seed]).finalize_xof().fill(&mut bytes);
            std::fs::write(folder.path().join(name), bytes).unwrap();
        };
        let back_up = || {
            let mut options = fixture::options(&[folder.path()]);
            options.force = true;
            fixture::back_up(&fixture::open(&storage), &options);
        };
        write("kept", 1, 50_000);
        back_up();
        write("brief", 2, 20_000);
        back_up();
        std::fs::remove_file(folder.path().join("brief")).unwrap();
        write("late", 3, 10_000);
        back_up();
        back_up();
        let repository = fixture::open(&storage);
        let (silent, cancel) = (Silent, Cancel::default());
        let all = Filter::default();
        let stats = stats(&repository, &all, None, true, &silent, &cancel).unwrap();
        let history = stats.history.unwrap();
        let about =
            |found: u64, expected: u64| found >= expected && found < expected + expected / 7 + 1500;
        let added: Vec<u64> = history
            .snapshots
            .iter()
            .map(|one| one.added_bytes)
            .collect();
        let unique: Vec<u64> = history
            .snapshots
            .iter()
            .map(|one| one.unique_bytes)
            .collect();
        for (position, (added_bytes, unique_bytes)) in
            [(50_000, 0), (20_000, 20_000), (10_000, 0), (0, 0)]
                .into_iter()
                .enumerate()
        {
            assert!(about(added[position], added_bytes), "{added:?}");
            assert!(about(unique[position], unique_bytes), "{unique:?}");
        }
        // Everything was brought by one of them, and is needed.
        assert_eq!(added.iter().sum::<u64>(), stats.chunk_bytes);
        let stored: u64 = history
            .snapshots
            .iter()
            .map(|one| one.added_stored_bytes)
            .sum();
        assert_eq!(stored, history.needed_stored_bytes);
        assert!(stored <= stats.pack_bytes && stored * 100 > stats.pack_bytes * 98);
    }
}
