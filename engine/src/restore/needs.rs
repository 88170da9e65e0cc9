//! What a restore reads of packs, for who has to bring them back from cold storage first.

use std::sync::Arc;

use larder_format::entry::Extent;
use larder_format::tree::read::scan_prefix;

use crate::cancel::Cancel;
use crate::chunks::ChunkReader;
use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::snapshots::{SnapshotInfo, narrowed};
use crate::thaw::Need;
use crate::view;

use super::plan::{Items, Wanted, for_each_extent, plan_all};
use super::tally::is_damage;
use super::{RestoreOptions, RestoreReport, fetch, roots, run};

/// Chunks that are looked up in the index at once.
const LOOK_UPS: usize = 512;

/// Finds what a restore into a folder would read of packs, and reads none of them.
///
/// What is in the target already counts as in the restore itself. The report is that of a dry run.
///
/// # Errors
/// As [`super::restore`].
pub fn restore_needs(
    repository: &Arc<Repository>,
    snapshot: &SnapshotInfo,
    path: Option<&[u8]>,
    options: &RestoreOptions,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<(Vec<Need>, RestoreReport)> {
    let options = RestoreOptions {
        dry_run: true,
        ..options.clone()
    };
    let mut needs = Vec::new();
    let found = Some(&mut needs);
    let report = run::run(
        repository, snapshot, path, &options, found, progress, cancel,
    )?;
    Ok((needs, report))
}

/// Finds what has to be read of packs for all that a snapshot has at or below `path`, wherever it is
/// restored to and whatever is there.
///
/// # Errors
/// `NotFound` for a path that the snapshot does not have, or what the storage answers.
pub fn contents_needs(
    repository: &Arc<Repository>,
    snapshot: &SnapshotInfo,
    path: Option<&[u8]>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Vec<Need>> {
    progress.phase("planning", None, None);
    let view = view::read(repository, true, None)?;
    let cell = view.cells.get(&snapshot.session).ok_or_else(|| {
        let id = &snapshot.id;
        EngineError::NotFound(format!("snapshot {id} is gone or cannot be read"))
    })?;
    let mut reader = ChunkReader::new(repository)?;
    let mut lists = ChunkReader::new(repository)?;
    let mut items = Items::new(repository.cache_dir());
    let mut wanted = Vec::new();
    let mut number = 0;
    let mut look_up = |wanted: &mut Vec<Wanted>| {
        // What has no place is lost, and the restore says of what.
        plan_all(repository.index(), wanted, &mut items)?;
        wanted.clear();
        Ok::<_, EngineError>(())
    };
    let roots = roots::find(&narrowed(cell, snapshot), path, &mut reader)?;
    for root in &roots {
        for entry in scan_prefix(&mut reader, &root.tree, &root.prefix)? {
            cancel.check()?;
            let entry = entry?;
            if root.single && entry.key != root.prefix {
                break;
            }
            let found = for_each_extent(&entry, &mut lists, &mut |offset, extent| {
                let Extent::Data { id, length } = extent else {
                    return Ok(());
                };
                wanted.push(Wanted {
                    file: number,
                    file_offset: offset,
                    id,
                    length: u32::try_from(length).unwrap_or(u32::MAX),
                    tried: 0,
                    readings: 0,
                });
                if wanted.len() < LOOK_UPS {
                    return Ok(());
                }
                look_up(&mut wanted)
            });
            number += 1;
            match found {
                Err(error) if !is_damage(&error) => return Err(error),
                _ => progress.advance(1, 0),
            }
        }
    }
    look_up(&mut wanted)?;
    fetch::needs(&items)
}
