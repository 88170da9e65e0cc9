//! The versions of one path over all snapshots.

use std::collections::BTreeMap;
use std::sync::Arc;

use larder_format::cell::Cell;
use larder_format::entry::Entry;
use larder_format::ids::ChunkId;
use larder_format::tree::read::NodeSource;

use super::find::is_damage;
use super::paths::{Located, below, locate, origins};
use super::{Item, cell_of, prepare};
use crate::chunks::ChunkReader;
use crate::error::{EngineError, Result};
use crate::repository::Repository;
use crate::snapshots::{self, Filter, SnapshotInfo, clean_path};

/// What a path was in one or more snapshots of a host, one after the other.
#[derive(Debug, Clone)]
pub struct Version {
    /// The first snapshot that has it so.
    pub first: SnapshotInfo,
    /// The last of them.
    pub last: SnapshotInfo,
    /// How many have it so.
    pub snapshots: u64,
    /// What it was; none where it was gone.
    pub item: Option<Item>,
}

/// Gives the versions of a path, those of a host one after the other, the oldest first.
///
/// Snapshots of other sources say nothing about the path and are passed over. Two entries are the same
/// version unless content, type, owner, permissions, attributes or the time of the last change of the
/// content differ.
///
/// # Errors
/// `NotFound` if no snapshot has the path, what the storage answers, or `Damaged` if nothing was found and
/// a snapshot could not be searched.
pub fn history(repository: &Arc<Repository>, path: &[u8], filter: &Filter) -> Result<Vec<Version>> {
    let view = prepare(repository)?;
    let mut nodes = ChunkReader::new(repository)?;
    let mut hosts: BTreeMap<String, Versions> = BTreeMap::new();
    let mut damage = None;
    for snapshot in snapshots::of_view(&view, filter, false) {
        let cell = &cell_of(&view, &snapshot)?;
        let Some(root) = root_over(cell, path) else {
            continue;
        };
        let versions = hosts.entry(snapshot.host.clone()).or_default();
        match versions.look(&mut nodes, cell, root, path) {
            Ok(item) => versions.add(snapshot, item),
            Err(error) if is_damage(&error) => {
                tracing::warn!("snapshot {} could not be searched: {error}", snapshot.id);
                damage = damage.or(Some(error));
            }
            Err(error) => return Err(error),
        }
    }
    let found: Vec<_> = hosts
        .into_values()
        .flat_map(|versions| versions.all)
        .collect();
    match (found.is_empty(), damage) {
        (false, _) => Ok(found),
        (true, Some(damage)) => Err(damage),
        (true, None) => {
            let shown = String::from_utf8_lossy(path);
            Err(EngineError::NotFound(format!(
                "no snapshot has {shown}; a path is given as it was backed up, and `larder find` searches by patterns"
            )))
        }
    }
}

/// Gives the root of the source that a path is in; none if the snapshot says nothing about it.
fn root_over(cell: &Cell, path: &[u8]) -> Option<ChunkId> {
    let path = clean_path(path);
    let sources = origins(cell).into_iter().filter_map(|origin| {
        let key = below(&origin.path, &path)?;
        Some((key.len(), origin.root.id))
    });
    // Of sources within each other, the innermost.
    sources
        .min_by_key(|(length, _)| *length)
        .map(|(_, root)| root)
}

/// The versions of one host, as far as they are known.
#[derive(Default)]
struct Versions {
    all: Vec<Version>,
    /// The tree that was searched last, and what was found in it.
    searched: Option<(ChunkId, Option<Item>)>,
}

impl Versions {
    fn look<S: NodeSource<Error = EngineError>>(
        &mut self,
        nodes: &mut S,
        cell: &Cell,
        root: ChunkId,
        path: &[u8],
    ) -> Result<Option<Item>> {
        if let Some((searched, found)) = &self.searched
            && *searched == root
        {
            return Ok(found.clone());
        }
        let found = match locate(nodes, cell, path)? {
            Some(Located::Inside(found)) => Some(found.item()),
            Some(Located::Above(_)) | None => None,
        };
        self.searched = Some((root, found.clone()));
        Ok(found)
    }

    fn add(&mut self, snapshot: SnapshotInfo, item: Option<Item>) {
        match self.all.last_mut() {
            Some(last) if is_same(last.item.as_ref(), item.as_ref()) => {
                last.last = snapshot;
                last.snapshots += 1;
            }
            // It cannot be gone before it was there.
            None if item.is_none() => {}
            _ => self.all.push(Version {
                first: snapshot.clone(),
                last: snapshot,
                snapshots: 1,
                item,
            }),
        }
    }
}

fn is_same(one: Option<&Item>, other: Option<&Item>) -> bool {
    let essence = |item: &Item| Entry {
        ctime: Default::default(),
        atime: None,
        inode: 0,
        filesystem: 0,
        links: 0,
        ..item.entry.clone()
    };
    one.map(essence) == other.map(essence)
}
