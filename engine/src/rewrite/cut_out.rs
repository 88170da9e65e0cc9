//! Bringing what can still be reached of a snapshot with lost nodes under a new one, which says what it lacks.

use std::collections::BTreeMap;
use std::sync::Arc;

use larder_format::cell::{Cell, Source, Statistics};
use larder_format::entry::{Content, Entry, EntryFlags, EntryType};
use larder_format::ids::{ChunkId, ChunkType, SessionId};
use larder_format::limits::HEIGHT;
use larder_format::list::{ListInterior, decode_list_leaf};
use larder_format::tree::build::{Root, TreeBuilder};
use larder_format::tree::read::{Cursor, Gap};

use super::copy::{Copy, Made};
use super::leave_out::{BATCH_ENTRIES, count, sink};
use super::{forget, twin};
use crate::cancel::Cancel;
use crate::carry::{Carrier, is_damage};
use crate::chunks::ChunkReader;
use crate::error::{EngineError, Result};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::scratch::ScratchMap;
use crate::session::Author;
use crate::snapshots::{self, Filter, lost};
use crate::view;

/// Memory of the nodes of lists that are whole, before they go to disk.
const SEEN_BYTES: usize = 8 << 20;
/// Permissions of a directory that stands in for one of which nothing is known.
const STAND_IN_MODE: u32 = 0o700;

/// A snapshot in whose place another one stands now.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Cut {
    /// The damaged snapshot.
    pub from: String,
    /// The one that has what is left of it.
    pub snapshot: String,
    /// Entries that it lacks.
    pub entries_lost: u64,
}

/// Makes a snapshot of what can still be reached of another one, and forgets that; nothing if nothing of its trees is
/// lost.
///
/// # Errors
/// `Request` for a pinned snapshot and for a checkpoint; `NotFound` for one that is gone; `Damaged` or `Format` for trees
/// that cannot be written anew; or what the storage answers.
pub(crate) fn cut_out(
    repository: &Arc<Repository>,
    id: &SessionId,
    author: &Author,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Option<Cut>> {
    let view = view::read_cells(repository, None)?;
    let listed = snapshots::of_view(&view, &Filter::default(), true);
    let name = id.snapshot_name();
    let info = listed.iter().find(|info| info.session == *id);
    let (Some(info), Some(cell)) = (info, view.cells.get(id)) else {
        return Err(EngineError::NotFound(format!("snapshot {name} is gone")));
    };
    if info.partial || info.pinned {
        let (what, wish) = match info.partial {
            true => ("is the checkpoint of an unfinished backup", "forget it"),
            false => ("is pinned", "`larder unpin` it"),
        };
        return Err(EngineError::Request(format!(
            "snapshot {name} {what} and is not replaced by what is left of it; {wish} first"
        )));
    }
    let mut cell = cell.clone();
    cell.tags = view.tags(&cell).to_vec();
    if !lost::has_room(&cell, cell.sources.len() + 1) {
        return Err(EngineError::Request(format!(
            "snapshot {name} has no room for what is to be said of its {} sources; forget it instead",
            cell.sources.len()
        )));
    }
    let mut copy = Copy::start(repository, author, false, cancel)?;
    let mut entries_lost = 0;
    let made = copy.make(&cell, view, &mut |copy, statistics| {
        let made = cut_trees(copy, &cell, statistics, progress, cancel)?;
        entries_lost = made.1;
        Ok(made.0)
    });
    let Some(snapshot) = copy.finish(made)? else {
        return Ok(None);
    };
    forget(repository, id, author, progress)?;
    Ok(Some(Cut {
        from: name,
        snapshot,
        entries_lost,
    }))
}

/// Makes the trees of all sources; gives how many entries they lack.
fn cut_trees(
    copy: &mut Copy<'_>,
    cell: &Cell,
    statistics: &mut Statistics,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<(Made, u64)> {
    if !copy.sees(cell) {
        let name = cell.id.snapshot_name();
        return Err(EngineError::NotFound(format!(
            "the snapshot {name} was forgotten by somebody while it was read"
        )));
    }
    *statistics = Statistics::default();
    let total = cell.sources.iter().map(|source| source.entries);
    let total = total.fold(0, u64::saturating_add);
    progress.phase("keeping what is left", Some(total), None);
    let (mut trees, mut entries_lost, mut is_torn) = (Vec::new(), 0_u64, false);
    let mut options = BTreeMap::new();
    for source in &cell.sources {
        let mut cut = CutOut {
            lists: ChunkReader::new(copy.repository)?,
            whole_lists: ScratchMap::new(copy.repository.cache_dir(), SEEN_BYTES),
            above: Above::default(),
            // What an earlier repair left out stays so.
            gaps: lost::of(cell, source),
            progress,
            cancel,
        };
        let before = cut.gaps.len();
        trees.push(cut.run(copy, source, statistics)?);
        is_torn |= cut.gaps.len() > before;
        cut.gaps.sort_by(|a, b| a.from.cmp(&b.from));
        let lost = cut.gaps.iter().map(|gap| gap.entries);
        entries_lost = entries_lost.saturating_add(lost.fold(0, u64::saturating_add));
        let told = lost::record(source, &cut.gaps);
        if told.is_none() && !cut.gaps.is_empty() {
            return Err(EngineError::Request(format!(
                "the path {} is too long to say what is lost of it",
                crate::target::error::Escaped(&source.path)
            )));
        }
        options.extend(told);
    }
    copy.options = options;
    if !is_torn {
        return Ok((Made::Nothing, 0));
    }
    let view = copy.opened.as_ref().map(|opened| &opened.view);
    let twin = view.and_then(|view| twin(view, cell, &trees));
    let made = twin.map_or(Made::Trees(trees), Made::Before);
    Ok((made, entries_lost))
}

/// Makes one tree of what can still be read of another one.
struct CutOut<'a> {
    lists: ChunkReader,
    /// Nodes of lists below which no node is lost.
    whole_lists: ScratchMap,
    above: Above,
    gaps: Vec<Gap>,
    progress: &'a dyn Progress,
    cancel: &'a Cancel,
}

impl CutOut<'_> {
    fn run(
        &mut self,
        copy: &mut Copy<'_>,
        source: &Source,
        statistics: &mut Statistics,
    ) -> Result<Source> {
        let repository = copy.repository;
        let root = Root {
            id: source.root,
            level: source.level,
            entries: source.entries,
            bytes: source.bytes,
        };
        let mut cursor = Cursor::new(ChunkReader::new(repository)?, &root);
        let mut carrier = Carrier::new(repository, self.cancel)?;
        carrier.pass_over_lost();
        let mut builder = TreeBuilder::new(repository.keyring().boundary_key());
        let mut batch: Vec<Entry> = Vec::new();
        loop {
            let entry = self.next(&mut cursor)?;
            let is_end = entry.is_none();
            if let Some(mut entry) = entry {
                self.progress.advance(1, entry.size);
                self.cut_list(&mut entry)?;
                batch.extend(self.above.missing(&entry));
                batch.push(entry);
            }
            if is_end || batch.len() >= BATCH_ENTRIES {
                carrier.entries(&mut copy.packer, batch.iter())?;
                for entry in batch.drain(..) {
                    count(&entry, statistics);
                    builder.push(entry, &mut sink(&mut copy.packer))?;
                }
            }
            if is_end {
                break;
            }
        }
        let root = builder.finish(&mut sink(&mut copy.packer))?;
        Ok(Source {
            path: source.path.clone(),
            root: root.id,
            level: root.level,
            entries: root.entries,
            bytes: root.bytes,
        })
    }

    /// Takes the content from a file of whose list a node is lost: it then is as one that could not be read, and is told.
    fn cut_list(&mut self, entry: &mut Entry) -> Result<()> {
        let Content::List { root, level } = entry.content else {
            return Ok(());
        };
        if self.has_list(&root, level)? {
            return Ok(());
        }
        entry.content = Content::None;
        entry.flags.unreadable = true;
        self.gaps.push(Gap {
            from: entry.key.clone(),
            to: Some([entry.key.as_slice(), &[0]].concat()),
            entries: 1,
        });
        Ok(())
    }

    /// Tells whether all nodes of a list can be read.
    fn has_list(&mut self, id: &ChunkId, level: u8) -> Result<bool> {
        self.cancel.check()?;
        if self.whole_lists.get(&id.0)?.is_some() {
            return Ok(true);
        }
        let page = match self.lists.read(ChunkType::of_list(level), id) {
            Err(error) if is_damage(&error) => return Ok(false),
            read => read?,
        };
        if level == 0 {
            if decode_list_leaf(&page).is_err() {
                return Ok(false);
            }
        } else {
            let Ok(node) = ListInterior::decode(&page) else {
                return Ok(false);
            };
            if node.level != level || level > HEIGHT {
                return Ok(false);
            }
            for child in &node.children {
                if !self.has_list(&child.id, level - 1)? {
                    return Ok(false);
                }
            }
        }
        self.whole_lists.insert(&id.0, &[])?;
        Ok(true)
    }

    /// Gives the next entry that can be read, and takes down what cannot.
    fn next(&mut self, cursor: &mut Cursor<ChunkReader>) -> Result<Option<Entry>> {
        loop {
            self.cancel.check()?;
            let error = match cursor.next_entry() {
                Err(error) if is_damage(&error) => error,
                read => return read,
            };
            let gap = cursor.go_on().ok_or(error)?;
            self.above.has_gaps = true;
            self.gaps.push(gap);
        }
    }
}

/// The directories that the next entry may be in.
#[derive(Default)]
struct Above {
    /// Their keys, from the source down.
    keys: Vec<Vec<u8>>,
    /// Whether some may be among what is lost.
    has_gaps: bool,
}

impl Above {
    /// Goes on to an entry; gives what stands in for directories above it that are not there.
    fn missing(&mut self, entry: &Entry) -> Vec<Entry> {
        let mut missing = Vec::new();
        if entry.kind == EntryType::Object {
            return missing;
        }
        while self
            .keys
            .last()
            .is_some_and(|last| !entry.key.starts_with(last))
        {
            self.keys.pop();
        }
        if self.has_gaps {
            let slashes = entry.key.iter().enumerate();
            let slashes = slashes.filter(|(_, byte)| **byte == b'/');
            let ends = std::iter::once(0).chain(slashes.map(|(at, _)| at + 1));
            for end in ends.filter(|end| *end < entry.key.len()) {
                let key = entry.key.get(..end).unwrap_or_default();
                if !self.keys.iter().any(|above| above == key) {
                    self.keys.push(key.to_vec());
                    missing.push(stand_in(key));
                }
            }
        }
        if entry.kind == EntryType::Directory {
            self.keys.push(entry.key.clone());
        }
        missing
    }
}

fn stand_in(key: &[u8]) -> Entry {
    Entry {
        key: key.to_vec(),
        kind: EntryType::Directory,
        mode: STAND_IN_MODE,
        links: 1,
        flags: EntryFlags {
            attributes_incomplete: true,
            ..EntryFlags::default()
        },
        ..Entry::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_stand_in_for_lost_ones_alone() {
        let mut above = Above::default();
        let mut missing = |key: &str, has_gaps| {
            above.has_gaps |= has_gaps;
            let kind = match key.is_empty() || key.ends_with('/') {
                true => EntryType::Directory,
                false => EntryType::File,
            };
            let entry = Entry {
                key: key.as_bytes().to_vec(),
                kind,
                ..Entry::default()
            };
            let missing = above.missing(&entry).into_iter();
            let keys = missing.map(|entry| String::from_utf8_lossy(&entry.key).into_owned());
            keys.collect::<Vec<_>>()
        };
        assert!(missing("", false).is_empty());
        assert!(missing("a/", false).is_empty());
        assert!(missing("a/x", true).is_empty());
        assert_eq!(missing("a/y/z/f", false), ["a/y/", "a/y/z/"]);
        assert!(missing("a/y/z/g", false).is_empty());
        assert_eq!(missing("b/c/", false), ["b/"]);
        assert!(missing("b/c/d", false).is_empty());
        assert!(missing("e", false).is_empty());
        let mut lost = Above {
            has_gaps: true,
            ..Above::default()
        };
        let entry = Entry {
            key: b"f".to_vec(),
            ..Entry::default()
        };
        assert_eq!(lost.missing(&entry), [stand_in(b"")]);
    }
}
