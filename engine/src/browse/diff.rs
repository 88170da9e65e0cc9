//! Comparing two snapshots.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use larder_format::cell::Cell;
use larder_format::entry::{Entry, EntryType};
use larder_format::tree::diff::{Change, Diff};
use larder_format::tree::read::{NodeSource, lookup, scan_prefix};

use super::paths::{Located, Origin, below, locate, not_found, origins, with_slash};
use super::{Item, Shared, cell_of, prepare};
use crate::chunks::ChunkReader;
use crate::error::{EngineError, Result};
use crate::repository::Repository;
use crate::snapshots::SnapshotInfo;

/// How a path differs between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "each is handled as it comes; none is kept in numbers"
)]
pub enum Difference {
    /// Only the second has it.
    Added(Item),
    /// Only the first has it.
    Removed(Item),
    /// Both have it, and content, type or metadata differ.
    Changed {
        /// As in the first.
        old: Item,
        /// As in the second.
        new: Item,
        /// Whether the content differs (bytes, size, type, link target, device), or only metadata.
        content: bool,
    },
}

/// Compares two snapshots, or the part at or below a path of each; costs what differs.
///
/// Sources are paired by their paths; with a path on both sides, what is below one is paired with
/// what is below the other, wherever they are. Metadata is what a restore sets: inode numbers,
/// ctime and atime are none. A directory in place of something else is a removal and an addition.
///
/// # Errors
/// `NotFound` for a path that is in neither, or what the storage answers.
pub fn diff(
    repository: &Arc<Repository>,
    a: (&SnapshotInfo, Option<&[u8]>),
    b: (&SnapshotInfo, Option<&[u8]>),
    each: &mut dyn FnMut(Difference) -> Result<()>,
) -> Result<()> {
    let view = prepare(repository)?;
    let (old, new) = (&cell_of(&view, a.0)?, &cell_of(&view, b.0)?);
    let nodes = ChunkReader::new(repository)?;
    diff_cells(nodes, (old, a.1), (new, b.1), each)
}

/// Does the same with nodes from anywhere.
pub(super) fn diff_cells<S: NodeSource<Error = EngineError>>(
    nodes: S,
    a: (&Cell, Option<&[u8]>),
    b: (&Cell, Option<&[u8]>),
    each: &mut dyn FnMut(Difference) -> Result<()>,
) -> Result<()> {
    let nodes = &RefCell::new(nodes);
    let (old, new) = (parts(nodes, a.0, a.1)?, parts(nodes, b.0, b.1)?);
    let (old, new) = match (old, new) {
        (None, None) => {
            let (cell, path) = if a.1.is_some() { a } else { b };
            return Err(not_found(
                &mut Shared(nodes),
                cell,
                path.unwrap_or_default(),
            ));
        }
        (old, new) => (old.unwrap_or_default(), new.unwrap_or_default()),
    };
    let one_is_inside = |parts: &[Part]| matches!(parts, [part] if part.relative.is_empty());
    let both_have_paths = a.1.is_some() && b.1.is_some();
    if both_have_paths && one_is_inside(&old) != one_is_inside(&new) {
        // One side's folder is within a source, the other's holds sources.
        return merge(nodes, &old, &new, each);
    }
    let mut pairs: BTreeMap<Vec<u8>, (Vec<Part>, Vec<Part>)> = BTreeMap::new();
    for part in old {
        let pair = pairs.entry(with_slash(&part.relative)).or_default();
        pair.0.push(part);
    }
    for part in new {
        let pair = pairs.entry(with_slash(&part.relative)).or_default();
        pair.1.push(part);
    }
    for (old, new) in pairs.into_values() {
        match (old.as_slice(), new.as_slice()) {
            ([old], [new]) if old.key == new.key => compare(nodes, old, new, each)?,
            (old, new) => merge(nodes, old, new, each)?,
        }
    }
    Ok(())
}

/// A part of a source that is compared.
struct Part {
    origin: Origin,
    /// The key of what was asked for; of a directory below the source it ends in `/`.
    key: Vec<u8>,
    is_directory: bool,
    /// The path relative to the one that was asked for; the whole one if none was.
    relative: Vec<u8>,
}

impl Part {
    fn holds(&self, key: &[u8]) -> bool {
        if self.is_directory {
            key.starts_with(&self.key)
        } else {
            key == self.key
        }
    }

    /// Gives what an entry is merged by: its key below the path that was asked for.
    fn merge_key(&self, entry: &Entry) -> Vec<u8> {
        let rest = entry.key.get(self.key.len()..).unwrap_or_default();
        if self.relative.is_empty() || (rest.is_empty() && !self.is_directory) {
            return [self.relative.as_slice(), rest].concat();
        }
        [self.relative.as_slice(), b"/", rest].concat()
    }
}

/// Gives the parts of sources at or below a path, in order; `None` if it is not there.
fn parts<S: NodeSource<Error = EngineError>>(
    nodes: &RefCell<S>,
    cell: &Cell,
    path: Option<&[u8]>,
) -> Result<Option<Vec<Part>>> {
    let (base, origins) = match path {
        None => (None, origins(cell)),
        Some(path) => match locate(&mut Shared(nodes), cell, path)? {
            None => return Ok(None),
            Some(Located::Inside(found)) => {
                return Ok(Some(vec![Part {
                    is_directory: found.is_directory(),
                    key: found.key,
                    origin: found.origin,
                    relative: Vec::new(),
                }]));
            }
            Some(Located::Above(origins)) => (Some(crate::snapshots::clean_path(path)), origins),
        },
    };
    let part = |origin: Origin| {
        let root = lookup(Shared(nodes), &origin.root, b"", 0)?;
        let relative = match &base {
            Some(base) => below(base, &origin.path).unwrap_or_default(),
            None => origin.path.clone(),
        };
        Ok(Part {
            is_directory: origin.is_bucket()
                || root.is_none_or(|entry| entry.kind == EntryType::Directory),
            key: Vec::new(),
            relative,
            origin,
        })
    };
    let parts: Result<Vec<Part>> = origins.into_iter().map(part).collect();
    let mut parts = parts?;
    parts.sort_by_key(|part| part.merge_key(&Entry::default()));
    Ok(Some(parts))
}

/// Compares the same part of two trees, passing over what they share.
fn compare<S: NodeSource<Error = EngineError>>(
    nodes: &RefCell<S>,
    old: &Part,
    new: &Part,
    each: &mut dyn FnMut(Difference) -> Result<()>,
) -> Result<()> {
    if old.origin.root.id == new.origin.root.id {
        return Ok(());
    }
    let mut changes = Diff::new(Shared(nodes), &old.origin.root, &new.origin.root);
    if !old.key.is_empty() {
        changes.skip_to(&old.key)?;
    }
    for change in changes {
        match change? {
            Change::Added(entry) if new.holds(&entry.key) => {
                each(Difference::Added(new.origin.item(entry)))?;
            }
            Change::Removed(entry) if old.holds(&entry.key) => {
                each(Difference::Removed(old.origin.item(entry)))?;
            }
            Change::Changed { old: one, new: two } if old.holds(&one.key) => {
                changed(old.origin.item(one), new.origin.item(two), each)?;
            }
            // Behind the part; nothing before it is given.
            _ => break,
        }
    }
    Ok(())
}

/// Compares parts that stand under different keys, entry by entry.
fn merge<S: NodeSource<Error = EngineError>>(
    nodes: &RefCell<S>,
    old: &[Part],
    new: &[Part],
    each: &mut dyn FnMut(Difference) -> Result<()>,
) -> Result<()> {
    let mut old = stream(nodes, old);
    let mut new = stream(nodes, new);
    let (mut one, mut two) = (old.next().transpose()?, new.next().transpose()?);
    loop {
        let order = match (&one, &two) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((one, _)), Some((two, _))) => one.cmp(two),
        };
        let removed = if order.is_le() { one.take() } else { None };
        let added = if order.is_ge() { two.take() } else { None };
        if removed.is_some() {
            one = old.next().transpose()?;
        }
        if added.is_some() {
            two = new.next().transpose()?;
        }
        match (removed, added) {
            (Some((_, old)), Some((_, new))) => changed(old, new, each)?,
            (Some((_, old)), None) => each(Difference::Removed(old))?,
            (None, Some((_, new))) => each(Difference::Added(new))?,
            (None, None) => {}
        }
    }
}

/// Gives the entries of parts in the order of what they are merged by.
fn stream<'a, S: NodeSource<Error = EngineError>>(
    nodes: &'a RefCell<S>,
    parts: &'a [Part],
) -> impl Iterator<Item = Result<(Vec<u8>, Item)>> + 'a {
    parts.iter().flat_map(move |part| {
        let (entries, error) = match scan_prefix(Shared(nodes), &part.origin.root, &part.key) {
            Ok(entries) => (Some(entries), None),
            Err(error) => (None, Some(error)),
        };
        let entries = entries.into_iter().flatten();
        let held = entries.take_while(|next| {
            let key = next.as_ref().map(|entry| entry.key.as_slice());
            key.map_or(true, |key| part.holds(key))
        });
        let items = held.map(|next| {
            let entry = next?;
            Ok((part.merge_key(&entry), part.origin.item(entry)))
        });
        error.map(Err).into_iter().chain(items)
    })
}

/// Tells of two entries of one path if they differ in what a person sees or a restore sets.
fn changed(old: Item, new: Item, each: &mut dyn FnMut(Difference) -> Result<()>) -> Result<()> {
    let (one, two) = (&old.entry, &new.entry);
    let content = one.kind != two.kind
        || one.size != two.size
        || one.content != two.content
        || one.link_target != two.link_target
        || one.device != two.device
        || one.flags.unreadable != two.flags.unreadable;
    let metadata = one.mode != two.mode
        || (one.uid, one.gid) != (two.uid, two.gid)
        || (&one.user, &one.group) != (&two.user, &two.group)
        || one.mtime != two.mtime
        || one.class != two.class
        || one.attributes != two.attributes;
    if content || metadata {
        each(Difference::Changed { old, new, content })?;
    }
    Ok(())
}
