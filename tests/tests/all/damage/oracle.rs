//! What can be restored, computed from the objects' bytes by the format's decoders alone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use larder_format::block::open_block;
use larder_format::cell::{Cell, CellKind, Source};
use larder_format::compression::Decompressor;
use larder_format::directory::DirectoryBlock;
use larder_format::entry::{Attributes, Content, Entry, EntryType, Extent};
use larder_format::ids::{ChunkId, KeyId, ObjectId, SessionId};
use larder_format::keys::Keyring;
use larder_format::list::{ListInterior, decode_list_leaf};
use larder_format::names::{self, Name};
use larder_format::node::{Interior, decode_leaf};
use larder_format::pack::open_pack;
use larder_format::record::open_record;

use super::overlay::Objects;

/// A file of a snapshot: where it is below the source.
pub type Path = (SessionId, String);

/// A file, and all chunks and nodes without which nobody can have it.
pub struct FileTruth {
    /// What it holds.
    pub bytes: Vec<u8>,
    needs: BTreeSet<ChunkId>,
}

/// A snapshot as it was before anything was damaged.
pub struct SnapshotTruth {
    /// The path that was backed up.
    pub source: Vec<u8>,
    /// Its files, by their paths below the source.
    pub files: BTreeMap<String, FileTruth>,
}

/// Where a pack's blocks are, which its content name fixes for ever.
struct Layout {
    key: KeyId,
    blocks: Vec<(u32, DirectoryBlock)>,
}

/// Chunks with their plaintexts.
type Chunks = HashMap<ChunkId, Vec<u8>>;

/// Knows the keys and what was there before.
pub struct Oracle {
    /// The keys.
    pub keyring: Keyring,
    /// Every snapshot that is listed.
    pub snapshots: BTreeMap<SessionId, SnapshotTruth>,
    pristine: Arc<Objects>,
    layouts: HashMap<ObjectId, Layout>,
    held: HashMap<String, HashSet<ChunkId>>,
}

impl Oracle {
    /// Takes in a whole repository, and the snapshots whose files count.
    pub fn new(keyring: Keyring, pristine: &Arc<Objects>, snapshots: &[SessionId]) -> Self {
        let mut oracle = Self {
            keyring,
            snapshots: BTreeMap::new(),
            pristine: Arc::clone(pristine),
            layouts: HashMap::new(),
            held: HashMap::new(),
        };
        let mut chunks = Chunks::new();
        for (name, bytes) in pristine.iter() {
            if let Some(Name::Pack(id)) = names::parse(name) {
                let layout = oracle.layout(&id, bytes).unwrap();
                let held = oracle.chunks_of(&layout, bytes);
                let ids = held.keys().copied().collect();
                oracle.layouts.insert(id, layout);
                oracle.held.insert(name.clone(), ids);
                chunks.extend(held);
            }
        }
        for id in snapshots {
            let truth = oracle.snapshot(pristine, id, &chunks).unwrap();
            oracle.snapshots.insert(*id, truth);
        }
        oracle
    }

    /// Gives the files of which all that they need opens somewhere; whether their cell does is not asked.
    pub fn held(&self, objects: &Objects) -> BTreeSet<Path> {
        let held = self.all_held(objects);
        let mut paths = BTreeSet::new();
        for (id, snapshot) in &self.snapshots {
            for (path, file) in &snapshot.files {
                if file.needs.iter().all(|id| held.contains(id)) {
                    paths.insert((*id, path.clone()));
                }
            }
        }
        paths
    }

    /// Gives the chunks that open in the place where a pack's name says that they are.
    pub fn all_held(&self, objects: &Objects) -> HashSet<ChunkId> {
        let mut all = HashSet::new();
        for (name, bytes) in objects {
            let Some(Name::Pack(id)) = names::parse(name) else {
                continue;
            };
            if self
                .pristine
                .get(name)
                .is_some_and(|one| is_same(one, bytes))
            {
                all.extend(&self.held[name]);
                continue;
            }
            let known = self.layouts.get(&id);
            let own = match known {
                Some(_) => None,
                None => self.layout(&id, bytes),
            };
            if let Some(layout) = known.or(own.as_ref()) {
                all.extend(self.chunks_of(layout, bytes).into_keys());
            }
        }
        all
    }

    /// Reads the files of a cell that was committed later; says why if that is not possible.
    pub fn files_of(&self, objects: &Objects, id: &SessionId) -> Result<SnapshotTruth, String> {
        let mut chunks = Chunks::new();
        for (name, bytes) in objects {
            if let Some(Name::Pack(pack)) = names::parse(name)
                && let Some(layout) = self.layout(&pack, bytes)
            {
                chunks.extend(self.chunks_of(&layout, bytes));
            } else if let Some(Name::Pack(pack)) = names::parse(name)
                && let Some(layout) = self.layouts.get(&pack)
            {
                chunks.extend(self.chunks_of(layout, bytes));
            }
        }
        self.snapshot(objects, id, &chunks)
    }

    /// Gives where a pack's blocks are, and what they hold.
    pub fn blocks(&self, pack: &ObjectId) -> &[(u32, DirectoryBlock)] {
        &self.layouts[pack].blocks
    }

    fn layout(&self, id: &ObjectId, bytes: &[u8]) -> Option<Layout> {
        let (header, directory) = open_pack(&self.keyring, id, bytes).ok()?;
        let blocks = directory.blocks_with_offsets();
        Some(Layout {
            key: header.key_id,
            blocks: blocks.map(|(at, block)| (at, block.clone())).collect(),
        })
    }

    fn chunks_of(&self, layout: &Layout, bytes: &[u8]) -> Chunks {
        let mut decompressor = Decompressor::new().unwrap();
        let mut chunks = Chunks::new();
        for (offset, block) in &layout.blocks {
            let start = *offset as usize;
            let Some(sealed) = bytes.get(start..start + block.sealed_length as usize) else {
                continue;
            };
            let kind = block.chunk_type;
            let opened = open_block(&self.keyring, &layout.key, kind, sealed, &mut decompressor);
            let Ok(plain) = opened else { continue };
            let mut at = 0;
            for (prefix, length) in &block.chunks {
                let chunk = &plain[at..at + *length as usize];
                at += *length as usize;
                let id = self.keyring.chunk_id(kind, chunk);
                assert_eq!(id.prefix(), *prefix);
                chunks.insert(id, chunk.to_vec());
            }
        }
        chunks
    }

    fn snapshot(
        &self,
        objects: &Objects,
        id: &SessionId,
        chunks: &Chunks,
    ) -> Result<SnapshotTruth, String> {
        let name = names::cell(id);
        let object = objects.get(&name).ok_or("it has no cell")?;
        let cell: Cell = open_record(&self.keyring, &Name::Cell(*id), object)
            .map_err(|error| error.to_string())?;
        assert_eq!(cell.kind, CellKind::Complete);
        let source = &cell.sources[0];
        let mut walk = Walk {
            chunks,
            way: Vec::new(),
            files: BTreeMap::new(),
        };
        walk.tree(source)?;
        Ok(SnapshotTruth {
            source: source.path.clone(),
            files: walk.files,
        })
    }
}

fn is_same(one: &bytes::Bytes, other: &bytes::Bytes) -> bool {
    std::ptr::eq(one.as_ptr(), other.as_ptr()) && one.len() == other.len()
}

/// A walk through a tree, with the nodes from its root to where it is.
struct Walk<'a> {
    chunks: &'a Chunks,
    way: Vec<ChunkId>,
    files: BTreeMap<String, FileTruth>,
}

impl Walk<'_> {
    fn tree(&mut self, source: &Source) -> Result<(), String> {
        self.node(&source.root, source.level)
    }

    fn chunk(&self, id: &ChunkId) -> Result<&[u8], String> {
        let found = self.chunks.get(id).map(Vec::as_slice);
        found.ok_or_else(|| format!("chunk {id} opens nowhere"))
    }

    fn node(&mut self, id: &ChunkId, level: u8) -> Result<(), String> {
        self.way.push(*id);
        let page = self.chunk(id)?.to_vec();
        if level > 0 {
            let node = Interior::decode(&page).map_err(|error| error.to_string())?;
            for child in &node.children {
                self.node(&child.id, level - 1)?;
            }
        } else {
            for entry in decode_leaf(&page).map_err(|error| error.to_string())? {
                self.entry(&entry)?;
            }
        }
        self.way.pop();
        Ok(())
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), String> {
        if entry.kind != EntryType::File {
            return Ok(());
        }
        let mut needs: BTreeSet<ChunkId> = self.way.iter().copied().collect();
        let mut bytes = Vec::new();
        match &entry.content {
            Content::None => {}
            Content::Whole(id) => self.data(id, &mut needs, &mut bytes)?,
            Content::Extents(extents) => self.extents(extents, &mut needs, &mut bytes)?,
            Content::List { root, level } => self.list(root, *level, &mut needs, &mut bytes)?,
        }
        if let Attributes::OutOfLine(id) = &entry.attributes {
            needs.insert(*id);
        }
        let path = String::from_utf8(entry.key.clone()).unwrap();
        self.files.insert(path, FileTruth { bytes, needs });
        Ok(())
    }

    fn data(
        &self,
        id: &ChunkId,
        needs: &mut BTreeSet<ChunkId>,
        bytes: &mut Vec<u8>,
    ) -> Result<(), String> {
        needs.insert(*id);
        bytes.extend_from_slice(self.chunk(id)?);
        Ok(())
    }

    fn extents(
        &self,
        extents: &[Extent],
        needs: &mut BTreeSet<ChunkId>,
        bytes: &mut Vec<u8>,
    ) -> Result<(), String> {
        for extent in extents {
            match extent {
                Extent::Data { id, .. } => self.data(id, needs, bytes)?,
                Extent::Hole { length } => bytes.resize(bytes.len() + *length as usize, 0),
            }
        }
        Ok(())
    }

    fn list(
        &self,
        id: &ChunkId,
        level: u8,
        needs: &mut BTreeSet<ChunkId>,
        bytes: &mut Vec<u8>,
    ) -> Result<(), String> {
        needs.insert(*id);
        let page = self.chunk(id)?;
        if level == 0 {
            let extents = decode_list_leaf(page).map_err(|error| error.to_string())?;
            return self.extents(&extents, needs, bytes);
        }
        let node = ListInterior::decode(page).map_err(|error| error.to_string())?;
        for child in &node.children {
            self.list(&child.id, level - 1, needs, bytes)?;
        }
        Ok(())
    }
}
