//! Which trees are restored, and where below the target they go.

use larder_format::cell::{Cell, Source};
use larder_format::entry::{Entry, EntryType};
use larder_format::tree::build::Root as TreeRoot;
use larder_format::tree::read::{Gap, lookup, scan_prefix};

use crate::chunks::ChunkReader;
use crate::error::{EngineError, Result};
use crate::snapshots::{is_url, lost};

/// A tree, or a part of one, and its place in the target.
#[derive(Debug, Clone)]
pub(super) struct Root {
    /// The tree.
    pub tree: TreeRoot,
    /// What the keys that are restored begin with; for a file its key.
    pub prefix: Vec<u8>,
    /// What takes the prefix's place in the target: empty, or ending in `/`; for a file its name.
    pub place: Vec<u8>,
    /// Whether only the one entry with the key `prefix` is restored.
    pub single: bool,
    /// The absolute path that was backed up as `prefix`.
    pub path: Vec<u8>,
    /// What a repair left out of what is restored, since it was lost.
    pub lost: Vec<Gap>,
}

/// Finds what is to be restored of a snapshot.
pub(super) fn find(
    cell: &Cell,
    path: Option<&[u8]>,
    reader: &mut ChunkReader,
) -> Result<Vec<Root>> {
    let mut roots = find_trees(cell, path, reader)?;
    for root in &mut roots {
        let is_of = |source: &&Source| {
            tree_of(source) == root.tree && root.path.starts_with(trimmed(&source.path))
        };
        let gaps = cell.sources.iter().filter(is_of);
        let gaps = gaps.flat_map(|source| lost::of(cell, source));
        let prefix = &root.prefix;
        let reaches = |gap: &Gap| {
            let begins = gap.from <= *prefix || gap.from.starts_with(prefix);
            begins && gap.to.as_ref().is_none_or(|to| to > prefix)
        };
        root.lost = gaps.filter(reaches).collect();
    }
    Ok(roots)
}

fn find_trees(cell: &Cell, path: Option<&[u8]>, reader: &mut ChunkReader) -> Result<Vec<Root>> {
    let Some(path) = path else {
        let sources = cell.sources.iter();
        return sources
            .map(|source| whole(source, &place_of(&source.path), reader))
            .collect();
    };
    if is_url(path) {
        let mut sources = cell.sources.iter();
        let found = sources.find_map(|source| Some((source, below_bucket(&source.path, path)?)));
        let (source, key) = found.ok_or_else(|| missing(path, cell))?;
        return Ok(vec![in_bucket(source, key, path, reader)?]);
    }
    let path = trimmed(path);
    for source in &cell.sources {
        if let Some(key) = below(trimmed(&source.path), path) {
            if key.is_empty() {
                let name = file_name(path).to_vec();
                let mut root = whole(source, &name, reader)?;
                if !root.single {
                    root.place = Vec::new();
                }
                return Ok(vec![root]);
            }
            return Ok(vec![part(source, key, path, reader)?]);
        }
    }
    // A folder above sources stands for all of them.
    let sources = cell.sources.iter();
    let roots: Vec<_> = sources
        .filter_map(|source| below(path, trimmed(&source.path)).map(|rest| (source, rest)))
        .map(|(source, rest)| whole(source, rest, reader))
        .collect::<Result<_>>()?;
    if roots.is_empty() {
        return Err(missing(path, cell));
    }
    Ok(roots)
}

fn missing(path: &[u8], cell: &Cell) -> EngineError {
    let path = crate::target::error::Escaped(path);
    let id = cell.id.snapshot_name();
    EngineError::NotFound(format!(
        "there is no {path} in snapshot {id}; `larder ls {id}` shows what it has"
    ))
}

/// Takes a whole source, to be restored under a path relative to the target.
fn whole(source: &Source, place: &[u8], reader: &mut ChunkReader) -> Result<Root> {
    let tree = tree_of(source);
    let is_directory = match lookup(&mut *reader, &tree, b"", 0) {
        Ok(_) if is_url(&source.path) => true,
        Ok(entry) => entry.is_none_or(|entry| entry.kind == EntryType::Directory),
        // Its scan says what is damaged. What has a place for one entry only is a file.
        Err(error) if super::tally::is_damage(&error) => source.entries != 1,
        Err(error) => return Err(error),
    };
    let mut place = place.to_vec();
    if is_directory && !place.is_empty() {
        place.push(b'/');
    }
    Ok(Root {
        tree,
        prefix: Vec::new(),
        place,
        single: !is_directory,
        path: source.path.clone(),
        lost: Vec::new(),
    })
}

/// Takes the part of a source at or below a key.
fn part(source: &Source, key: &[u8], path: &[u8], reader: &mut ChunkReader) -> Result<Root> {
    let tree = tree_of(source);
    let root = |prefix: Vec<u8>, place: &[u8], single| Root {
        tree,
        prefix,
        place: place.to_vec(),
        single,
        path: path.to_vec(),
        lost: Vec::new(),
    };
    let mut found = |key: &[u8]| -> Result<Option<Entry>> { lookup(&mut *reader, &tree, key, 0) };
    let directory = [key, b"/"].concat();
    if found(&directory)?.is_some() {
        return Ok(root(directory, b"", false));
    }
    if found(key)?.is_some() {
        return Ok(root(key.to_vec(), file_name(key), true));
    }
    let path = crate::target::error::Escaped(path);
    Err(EngineError::NotFound(format!(
        "there is no {path} in the snapshot; `larder ls` shows what it has"
    )))
}

/// Takes the object of a key, or all whose keys begin with it and a `/`.
fn in_bucket(source: &Source, key: &[u8], path: &[u8], reader: &mut ChunkReader) -> Result<Root> {
    let tree = tree_of(source);
    let root = |prefix: &[u8], place: &[u8], single| Root {
        tree,
        prefix: prefix.to_vec(),
        place: place.to_vec(),
        single,
        path: path.to_vec(),
        lost: Vec::new(),
    };
    if key.is_empty() {
        return Ok(root(b"", b"", false));
    }
    let is_prefix = key.ends_with(b"/");
    if !is_prefix && lookup(&mut *reader, &tree, key, 0)?.is_some() {
        return Ok(root(key, file_name(key), true));
    }
    let prefix = if is_prefix {
        key.to_vec()
    } else {
        [key, b"/"].concat()
    };
    if scan_prefix(&mut *reader, &tree, &prefix)?
        .next()
        .transpose()?
        .is_some()
    {
        return Ok(root(&prefix, b"", false));
    }
    let path = crate::target::error::Escaped(path);
    Err(EngineError::NotFound(format!(
        "there is no {path} in the snapshot; `larder ls` shows what it has"
    )))
}

/// Gives the key that a path means in a bucket; empty for the bucket itself.
fn below_bucket<'a>(bucket: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(bucket)?;
    match rest.strip_prefix(b"/") {
        Some(key) => Some(key),
        None if rest.is_empty() => Some(rest),
        None => None,
    }
}

/// Gives the place of a whole source below the target: its own path; of `s3://bucket` it is `s3/bucket`.
fn place_of(path: &[u8]) -> Vec<u8> {
    if !is_url(path) {
        return relative(path).to_vec();
    }
    let parts = path.split(|byte| matches!(byte, b'/' | b':'));
    let parts: Vec<&[u8]> = parts.filter(|part| !part.is_empty()).collect();
    parts.join(&b'/')
}

pub(super) fn tree_of(source: &Source) -> TreeRoot {
    TreeRoot {
        id: source.root,
        level: source.level,
        entries: source.entries,
        bytes: source.bytes,
    }
}

/// Gives a path's rest below a folder, without slashes around it; empty for the folder itself.
fn below<'a>(folder: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(folder)?;
    if rest.is_empty() {
        return Some(rest);
    }
    // The root folder is the one that ends in a slash, or is empty once trimmed.
    match rest.strip_prefix(b"/") {
        Some(rest) => Some(rest),
        None if folder.is_empty() => Some(rest),
        None => None,
    }
}

/// Drops slashes at the end; the root folder becomes empty.
fn trimmed(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte != b'/');
    end.and_then(|end| path.get(..=end)).unwrap_or_default()
}

/// Drops slashes on both sides.
fn relative(path: &[u8]) -> &[u8] {
    let path = trimmed(path);
    let start = path.iter().position(|byte| *byte != b'/');
    start
        .and_then(|start| path.get(start..))
        .unwrap_or_default()
}

fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}
