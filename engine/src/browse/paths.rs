//! From a path as it was backed up to the sources and keys that hold it.

use std::collections::BTreeSet;

use larder_format::cell::{Cell, Source};
use larder_format::entry::{Entry, EntryType};
use larder_format::tree::build::Root;
use larder_format::tree::read::{NodeSource, lookup, scan_prefix};

use super::{Item, root_of};
use crate::error::{EngineError, Result};
use crate::snapshots::{clean_path, is_url};

/// A source of a snapshot, under its path in its plainest form.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    /// The source's path, without a `/` at its end.
    pub path: Vec<u8>,
    /// Its tree.
    pub root: Root,
}

/// Where a path is in a snapshot.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "each is handled as it comes; none is kept in numbers"
)]
pub(super) enum Located {
    /// At or below a source.
    Inside(Found),
    /// Above these sources: no folder of the snapshot, but of their paths.
    Above(Vec<Origin>),
}

/// A path at or below a source.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// The source.
    pub origin: Origin,
    /// The entry; none of a folder that was left out while things in it were not.
    pub entry: Option<Entry>,
    /// The key; of a directory that is not the source itself it ends in `/`.
    pub key: Vec<u8>,
}

impl Origin {
    fn new(source: &Source) -> Self {
        Self {
            path: clean_path(&source.path),
            root: root_of(source),
        }
    }

    /// Gives the whole path of a key.
    pub fn path_of(&self, key: &[u8]) -> Vec<u8> {
        let key = key.strip_suffix(b"/").unwrap_or(key);
        join(&self.path, key)
    }

    /// Tells whether it is a bucket.
    pub fn is_bucket(&self) -> bool {
        is_url(&self.path)
    }

    /// Gives the whole path of an entry; every byte of an object's key counts.
    pub fn path_of_entry(&self, entry: &Entry) -> Vec<u8> {
        match entry.kind {
            EntryType::Object => [with_slash(&self.path), entry.key.clone()].concat(),
            _ => self.path_of(&entry.key),
        }
    }

    /// Gives an entry under its whole path.
    pub fn item(&self, entry: Entry) -> Item {
        Item {
            path: self.path_of_entry(&entry),
            entry,
        }
    }

    /// Gives a directory that is known by what is in it alone.
    pub fn bare_directory(&self, key: &[u8]) -> Item {
        bare_directory(self.path_of(key))
    }
}

impl Found {
    /// Tells whether there can be something below.
    pub fn is_directory(&self) -> bool {
        let kind = self.entry.as_ref().map(|entry| entry.kind);
        kind.is_none_or(|kind| kind == EntryType::Directory)
    }

    /// Gives what is found as it is listed.
    pub fn item(&self) -> Item {
        match &self.entry {
            Some(entry) => self.origin.item(entry.clone()),
            None => self.origin.bare_directory(&self.key),
        }
    }
}

/// Gives the sources of a snapshot in the order of their paths.
pub(super) fn origins(cell: &Cell) -> Vec<Origin> {
    let mut origins: Vec<_> = cell.sources.iter().map(Origin::new).collect();
    origins.sort_by_key(|origin| with_slash(&origin.path));
    origins
}

/// Finds a path; `None` if it is not there.
pub(super) fn locate<S: NodeSource<Error = EngineError>>(
    nodes: &mut S,
    cell: &Cell,
    path: &[u8],
) -> Result<Option<Located>> {
    let path = clean_path(path);
    let origins = origins(cell);
    let holders = origins.iter().filter_map(|origin| {
        let key = below(&origin.path, &path)?;
        Some((origin, key))
    });
    // Of sources within each other, the innermost.
    if let Some((origin, key)) = holders.min_by_key(|(_, key)| key.len()) {
        return Ok(find_key(nodes, origin, key)?.map(Located::Inside));
    }
    let mut above = origins;
    above.retain(|origin| below(&path, &origin.path).is_some());
    Ok((!above.is_empty()).then_some(Located::Above(above)))
}

/// Finds a path, or says which part of it is there.
pub(super) fn locate_or_say<S: NodeSource<Error = EngineError>>(
    nodes: &mut S,
    cell: &Cell,
    path: &[u8],
) -> Result<Located> {
    match locate(nodes, cell, path)? {
        Some(located) => Ok(located),
        None => Err(not_found(nodes, cell, path)),
    }
}

/// Says that a path is not there, and how much of it is.
pub(super) fn not_found<S: NodeSource<Error = EngineError>>(
    nodes: &mut S,
    cell: &Cell,
    path: &[u8],
) -> EngineError {
    let shown = String::from_utf8_lossy(path).into_owned();
    let snapshot = cell.id.snapshot_name();
    let mut parent = clean_path(path);
    while let Some(slash) = parent.iter().rposition(|byte| *byte == b'/') {
        // The parent of `/a` is `/`.
        let end = if slash == 0 && parent.len() > 1 {
            1
        } else {
            slash
        };
        parent.truncate(end);
        if parent.is_empty() {
            break;
        }
        match locate(nodes, cell, &parent) {
            Ok(None) => {}
            Ok(Some(Located::Above(_))) if parent == b"/" => {}
            Ok(Some(_)) => {
                let parent = String::from_utf8_lossy(&parent);
                return EngineError::NotFound(format!(
                    "there is no {shown} in snapshot {snapshot}; of its folders, {parent} is there"
                ));
            }
            Err(error) => return error,
        }
    }
    let paths = cell.sources.iter();
    let paths: Vec<_> = paths
        .take(3)
        .map(|source| String::from_utf8_lossy(&source.path))
        .collect();
    EngineError::NotFound(format!(
        "there is no {shown} in snapshot {snapshot}; a path is given as it was backed up, and \
         this is a snapshot of {}{}",
        paths.join(", "),
        if cell.sources.len() > 3 { ", ..." } else { "" }
    ))
}

/// Gives the folders directly below a path that lead to these sources and are none themselves,
/// and the sources that stand directly in it.
pub(super) fn stand_in(path: &[u8], origins: &[Origin]) -> (BTreeSet<Vec<u8>>, Vec<Origin>) {
    let path = clean_path(path);
    let (mut folders, mut direct) = (BTreeSet::new(), Vec::new());
    for origin in origins {
        let rest = below(&path, &origin.path).unwrap_or_default();
        match rest.iter().position(|byte| *byte == b'/') {
            None => direct.push(origin.clone()),
            Some(slash) => {
                let name = rest.get(..slash).unwrap_or_default();
                folders.insert(join(&path, name));
            }
        }
    }
    (folders, direct)
}

/// Gives what remains of `path` below `base`; empty if they are the same.
pub(super) fn below(base: &[u8], path: &[u8]) -> Option<Vec<u8>> {
    if base == path {
        return Some(Vec::new());
    }
    // A relative path is not below `/`, nor an absolute one below nothing.
    let base = with_slash(base);
    let rest = path.strip_prefix(base.as_slice())?;
    Some(rest.to_vec())
}

/// Gives a directory of which nothing else is known.
pub(super) fn bare_directory(path: Vec<u8>) -> Item {
    Item {
        path,
        entry: Entry {
            kind: EntryType::Directory,
            mode: 0o755,
            ..Entry::default()
        },
    }
}

pub(super) fn join(base: &[u8], rest: &[u8]) -> Vec<u8> {
    if rest.is_empty() {
        return base.to_vec();
    }
    let mut path = with_slash(base);
    path.extend_from_slice(rest);
    path
}

pub(super) fn with_slash(path: &[u8]) -> Vec<u8> {
    let mut path = path.to_vec();
    if !path.ends_with(b"/") {
        path.push(b'/');
    }
    path
}

/// Finds the object of a key, or what begins with it and a `/`, which is no entry of its own.
fn find_object<S: NodeSource<Error = EngineError>>(
    nodes: &mut S,
    origin: &Origin,
    key: Vec<u8>,
) -> Result<Option<Found>> {
    let found = |entry: Option<Entry>, key: Vec<u8>| Found {
        origin: origin.clone(),
        entry,
        key,
    };
    if key.is_empty() {
        return Ok(Some(found(None, key)));
    }
    if !key.ends_with(b"/")
        && let Some(entry) = lookup(&mut *nodes, &origin.root, &key, 0)?
    {
        return Ok(Some(found(Some(entry), key)));
    }
    let prefix = with_slash(&key);
    let first = scan_prefix(&mut *nodes, &origin.root, &prefix)?.next();
    Ok(first.transpose()?.map(|_| found(None, prefix)))
}

fn find_key<S: NodeSource<Error = EngineError>>(
    nodes: &mut S,
    origin: &Origin,
    key: Vec<u8>,
) -> Result<Option<Found>> {
    let found = |entry: Option<Entry>, key: Vec<u8>| {
        Some(Found {
            origin: origin.clone(),
            entry,
            key,
        })
    };
    if origin.is_bucket() {
        return find_object(nodes, origin, key);
    }
    if key.is_empty() {
        let entry = lookup(&mut *nodes, &origin.root, b"", 0)?;
        return Ok(found(entry, key));
    }
    // What is in a directory stands right behind its entry, so one search finds either.
    let directory = with_slash(&key);
    let first = scan_prefix(&mut *nodes, &origin.root, &directory)?.next();
    if let Some(first) = first.transpose()? {
        let entry = (first.key == directory).then_some(first);
        return Ok(found(entry, directory));
    }
    let entry = lookup(&mut *nodes, &origin.root, &key, 0)?;
    Ok(entry.and_then(|entry| found(Some(entry), key)))
}
