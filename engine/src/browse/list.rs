//! Listing a folder of a snapshot.

use std::sync::Arc;

use larder_format::cell::Cell;
use larder_format::entry::EntryType;
use larder_format::tree::read::{Listed, NodeSource, list_directory, lookup, scan_prefix};

use super::paths::{Located, Origin, bare_directory, locate_or_say, origins, stand_in};
use super::{Item, cell_of, prepare};
use crate::chunks::ChunkReader;
use crate::error::{EngineError, Result};
use crate::repository::Repository;
use crate::snapshots::SnapshotInfo;

/// Lists what is in a folder of a snapshot (the sources, if no path is given), in key order;
/// everything below it if `recursive`.
///
/// A path that is no folder is listed itself. A folder above the sources, which was not backed up
/// itself, holds the folders and sources that its name leads to.
///
/// Gives the number of what was asked for and could not be read when it was backed up: the path
/// itself, and folders whose content the listing therefore lacks.
///
/// # Errors
/// `NotFound` for a path that is not there, or what the storage answers.
pub fn list(
    repository: &Arc<Repository>,
    snapshot: &SnapshotInfo,
    path: Option<&[u8]>,
    recursive: bool,
    each: &mut dyn FnMut(Item) -> Result<()>,
) -> Result<u64> {
    let view = prepare(repository)?;
    let cell = &cell_of(&view, snapshot)?;
    let mut nodes = ChunkReader::new(repository)?;
    let mut lacking = 0;
    let is_unreadable = list_cell(&mut nodes, cell, path, recursive, &mut |item| {
        let entry = &item.entry;
        let is_entered = recursive && entry.kind == EntryType::Directory;
        lacking += u64::from(is_entered && entry.flags.unreadable);
        each(item)
    })?;
    Ok(lacking + u64::from(is_unreadable))
}

/// Does the same with nodes from anywhere; tells whether the path itself could not be read when it was
/// backed up.
pub(super) fn list_cell<S: NodeSource<Error = EngineError>>(
    nodes: &mut S,
    cell: &Cell,
    path: Option<&[u8]>,
    recursive: bool,
    each: &mut dyn FnMut(Item) -> Result<()>,
) -> Result<bool> {
    let Some(path) = path else {
        for origin in origins(cell) {
            source(nodes, &origin, recursive, each)?;
        }
        return Ok(false);
    };
    let found = match locate_or_say(nodes, cell, path)? {
        Located::Above(origins) => {
            above(nodes, path, &origins, recursive, each)?;
            return Ok(false);
        }
        Located::Inside(found) => found,
    };
    if !found.is_directory() {
        each(found.item())?;
    } else if recursive {
        for entry in scan_prefix(nodes, &found.origin.root, &found.key)? {
            let entry = entry?;
            if entry.key != found.key || entry.kind == EntryType::Object {
                each(found.origin.item(entry))?;
            }
        }
    } else {
        for listed in list_directory(nodes, &found.origin.root, &found.key)? {
            each(match listed? {
                Listed::Entry(entry) => found.origin.item(entry),
                Listed::Prefix(key) => found.origin.bare_directory(&key),
            })?;
        }
    }
    let entry = found.entry.as_ref();
    Ok(entry.is_some_and(|entry| entry.flags.unreadable))
}

/// Lists a folder that is none of the snapshot's, but leads to sources.
fn above<S: NodeSource<Error = EngineError>>(
    nodes: &mut S,
    path: &[u8],
    origins: &[Origin],
    recursive: bool,
    each: &mut dyn FnMut(Item) -> Result<()>,
) -> Result<()> {
    let (folders, direct) = stand_in(path, origins);
    let mut direct = direct.into_iter().peekable();
    for folder in folders {
        while let Some(origin) = direct.next_if(|origin| origin.path < folder) {
            source(nodes, &origin, recursive, each)?;
        }
        each(bare_directory(folder.clone()))?;
        if recursive {
            let below: Vec<_> = origins
                .iter()
                .filter(|origin| super::paths::below(&folder, &origin.path).is_some())
                .cloned()
                .collect();
            above(nodes, &folder, &below, recursive, each)?;
        }
    }
    direct.try_for_each(|origin| source(nodes, &origin, recursive, each))
}

/// Lists a source itself, and what is below it if `recursive`.
fn source<S: NodeSource<Error = EngineError>>(
    nodes: &mut S,
    origin: &Origin,
    recursive: bool,
    each: &mut dyn FnMut(Item) -> Result<()>,
) -> Result<()> {
    if recursive {
        for entry in scan_prefix(nodes, &origin.root, b"")? {
            each(origin.item(entry?))?;
        }
        return Ok(());
    }
    let entry = lookup(nodes, &origin.root, b"", 0)?;
    each(match entry {
        Some(entry) if !origin.is_bucket() => origin.item(entry),
        _ => origin.bare_directory(b""),
    })
}
