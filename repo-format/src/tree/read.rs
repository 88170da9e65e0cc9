//! Reading a tree: in order from any key, by key, by prefix, by directory.

use alloc::vec::Vec;

use super::build::Root;
use super::walk::Walker;
use crate::entry::Entry;

pub use super::walk::{Gap, NodeSource, check_interior, check_leaf};

/// Reads the entries of a tree in order, in memory bounded by one node a level.
///
/// After an error it gives nothing more, unless told to [`Cursor::go_on`].
#[derive(Debug, Clone)]
pub struct Cursor<S> {
    source: S,
    walker: Walker,
    failed: bool,
}

impl<S: NodeSource> Cursor<S> {
    /// Starts at the first entry; reads nothing yet.
    pub fn new(source: S, root: &Root) -> Self {
        Self {
            source,
            walker: Walker::new(root),
            failed: false,
        }
    }

    /// Moves forward to the first entry whose key is `key` or after it; never moves back.
    ///
    /// Reads no node that lies wholly before `key`.
    pub fn skip_to(&mut self, key: &[u8]) -> Result<(), S::Error> {
        let sought = self.walker.seek((key, 0), &mut self.source);
        self.failed |= sought.is_err();
        sought
    }

    /// Gives the next entry; `None` at the end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, S::Error> {
        if self.failed {
            return Ok(None);
        }
        let next = self.walker.next_entry(&mut self.source);
        self.failed |= next.is_err();
        next
    }

    /// Leaves the node out that could not be read, so that the entries behind it can be had.
    ///
    /// Tells what is missing; `None` if there was no error.
    pub fn go_on(&mut self) -> Option<Gap> {
        self.failed = false;
        self.walker.take_gap()
    }
}

impl<S: NodeSource> Iterator for Cursor<S> {
    type Item = Result<Entry, S::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry().transpose()
    }
}

/// Finds one entry; reads one node a level.
pub fn lookup<S: NodeSource>(
    mut source: S,
    root: &Root,
    key: &[u8],
    ordinal: u64,
) -> Result<Option<Entry>, S::Error> {
    let mut walker = Walker::new(root);
    walker.seek((key, ordinal), &mut source)?;
    let found = walker.next_entry(&mut source)?;
    Ok(found.filter(|entry| entry.place() == (key, ordinal)))
}

/// Gives the entries whose keys start with `prefix`, in order.
pub fn scan_prefix<S: NodeSource>(
    source: S,
    root: &Root,
    prefix: &[u8],
) -> Result<impl Iterator<Item = Result<Entry, S::Error>>, S::Error> {
    let mut cursor = Cursor::new(source, root);
    cursor.skip_to(prefix)?;
    let prefix = prefix.to_vec();
    Ok(cursor.take_while(move |next| {
        next.as_ref()
            .map_or(true, |entry| entry.key.starts_with(&prefix))
    }))
}

/// What stands directly in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "each is handled as it comes; none is kept in numbers"
)]
pub enum Listed {
    /// An entry of its own.
    Entry(Entry),
    /// The key, ending in `/`, that entries have in common that have no directory entry.
    Prefix(Vec<u8>),
}

/// Lists what stands directly in a directory, passing over what is further below.
#[derive(Debug, Clone)]
pub struct DirectoryListing<S> {
    cursor: Cursor<S>,
    directory: Vec<u8>,
    /// The sub-directory that was listed last, to be passed over.
    listed: Option<Vec<u8>>,
}

/// Lists a directory by its key: empty for the source itself, otherwise ending in `/`.
pub fn list_directory<S: NodeSource>(
    source: S,
    root: &Root,
    directory: &[u8],
) -> Result<DirectoryListing<S>, S::Error> {
    let mut cursor = Cursor::new(source, root);
    cursor.skip_to(directory)?;
    Ok(DirectoryListing {
        cursor,
        directory: directory.to_vec(),
        listed: None,
    })
}

impl<S: NodeSource> DirectoryListing<S> {
    fn next_listed(&mut self) -> Result<Option<Listed>, S::Error> {
        if let Some(mut past) = self.listed.take() {
            // The byte after `/`: the first string that does not start with the directory's key.
            past.pop();
            past.push(b'/' + 1);
            self.cursor.skip_to(&past)?;
        }
        while let Some(entry) = self.cursor.next_entry()? {
            let Some(name) = entry.key.strip_prefix(self.directory.as_slice()) else {
                return Ok(None);
            };
            if name.is_empty() {
                continue;
            }
            let Some(slash) = name.iter().position(|byte| *byte == b'/') else {
                return Ok(Some(Listed::Entry(entry)));
            };
            let length = self.directory.len() + slash + 1;
            let sub = entry.key.get(..length).unwrap_or_default().to_vec();
            self.listed = Some(sub.clone());
            return Ok(Some(if sub.len() == entry.key.len() {
                Listed::Entry(entry)
            } else {
                Listed::Prefix(sub)
            }));
        }
        Ok(None)
    }
}

impl<S: NodeSource> Iterator for DirectoryListing<S> {
    type Item = Result<Listed, S::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_listed().transpose()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::format;
    use alloc::sync::Arc;

    use super::*;
    use crate::error::FormatError;
    use crate::ids::{ChunkId, ChunkType, RepositoryId};
    use crate::keys::{KEYRING_RANDOM_BYTES, Keyring};
    use crate::tree::build::{NodeOut, TreeBuilder};

    struct Nodes(BTreeMap<ChunkId, (u8, Vec<u8>)>);

    impl NodeSource for &Nodes {
        type Error = FormatError;

        fn node(&mut self, id: &ChunkId, _: ChunkType) -> Result<Arc<[u8]>, FormatError> {
            let found = self.0.get(id).map(|(_, plain)| plain.as_slice().into());
            found.ok_or(FormatError::WrongId { what: "node" })
        }
    }

    fn tree(count: u32) -> (Nodes, Root) {
        let keyring = Keyring::generate(RepositoryId::default(), &[7; KEYRING_RANDOM_BYTES]);
        let mut nodes = Nodes(BTreeMap::new());
        let mut sink = |node: NodeOut| -> Result<ChunkId, FormatError> {
            let id = ChunkId(*blake3::hash(&node.plain).as_bytes());
            nodes.0.insert(id, (node.level, node.plain));
            Ok(id)
        };
        let mut builder = TreeBuilder::new(keyring.boundary_key());
        for number in 0..count {
            let key = format!("{number:05}").into_bytes();
            let entry = Entry {
                key,
                ..Entry::default()
            };
            builder.push(entry, &mut sink).unwrap();
        }
        let root = builder.finish(&mut sink).unwrap();
        (nodes, root)
    }

    #[test]
    fn a_cursor_told_to_go_on_misses_what_is_below_the_lost_node_and_says_how_much() {
        let (mut nodes, root) = tree(3000);
        let ids: Vec<_> = nodes.0.keys().copied().collect();
        for id in ids {
            let lost = nodes.0.remove(&id).unwrap();
            let mut cursor = Cursor::new(&nodes, &root);
            let (mut found, mut gaps) = (Vec::new(), Vec::new());
            loop {
                match cursor.next_entry() {
                    Ok(Some(entry)) => found.push(entry.key),
                    Ok(None) => break,
                    Err(_) => gaps.push(cursor.go_on().unwrap()),
                }
            }
            assert_eq!(gaps.len(), 1);
            let gap = gaps.pop().unwrap();
            assert_eq!(found.len() as u64 + gap.entries, 3000);
            let inside =
                |key: &Vec<u8>| *key >= gap.from && gap.to.as_ref().is_none_or(|to| key < to);
            assert!(!found.iter().any(inside));
            // After a seek to the end of what is lost, nothing is missed.
            if let Some(to) = &gap.to {
                let mut cursor = Cursor::new(&nodes, &root);
                cursor.skip_to(to).unwrap();
                let behind = found.iter().filter(|key| *key >= to).count();
                assert_eq!(cursor.count(), behind);
            }
            nodes.0.insert(id, lost);
        }
    }
}
