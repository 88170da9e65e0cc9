//! What the tests of reading operations stand on: small repositories, and trees in memory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use larder_format::cell::{Cell, CellKind, Source, Statistics};
use larder_format::entry::{Content, Entry, EntryType};
use larder_format::ids::{ChunkId, ChunkType, SessionId};
use larder_format::tree::boundary::BoundaryKey;
use larder_format::tree::build::{NodeOut, TreeBuilder};
use larder_format::tree::read::NodeSource;
use zeroize::Zeroizing;

use crate::backup::{
    BackupOptions, BackupReport, CheckpointRhythm, Compression, Selection, backup,
};
use crate::cancel::Cancel;
use crate::chunker::ChunkSizes;
use crate::collection::Collection;
use crate::error::{EngineError, Result};
use crate::progress::Silent;
use crate::repository::{
    Cache, ChunkerKind, InitOptions, KdfCost, OpenOptions, Repository, Secret,
};
use crate::session::{self, Outcome};
use crate::storage::Storage;

/// A cost that makes tests fast.
pub(crate) const KDF: KdfCost = KdfCost {
    memory_kib: 64,
    passes: 1,
    lanes: 1,
};

pub(crate) fn passphrase(text: &str) -> Secret {
    Secret::Passphrase(Zeroizing::new(text.as_bytes().to_vec()))
}

/// Makes a repository with chunks of about 256 bytes, opened by "secret".
pub(crate) fn init(storage: &dyn Storage) {
    Repository::init_on(storage, &passphrase("secret"), &init_options()).unwrap();
}

pub(crate) fn init_options() -> InitOptions {
    InitOptions {
        label: "first".to_owned(),
        kdf: KDF,
        reserve_bytes: 0,
        chunker: ChunkerKind::FastCdc,
        chunks: ChunkSizes {
            minimum: 64,
            mean: 256,
            maximum: 1024,
        },
        racy_creates: false,
        parity: None,
    }
}

pub(crate) fn open_with(storage: &Arc<dyn Storage>, secret: &Secret) -> Result<Arc<Repository>> {
    let options = OpenOptions {
        cache_dir: Some(std::env::temp_dir().join("larder-tests")),
        state_dir: None,
        threads: 2,
        cache: Cache::Memory,
        in_order: false,
    };
    Repository::open_on(Arc::clone(storage), secret, &options)
}

pub(crate) fn open(storage: &Arc<dyn Storage>) -> Arc<Repository> {
    open_with(storage, &passphrase("secret")).unwrap()
}

pub(crate) fn options(sources: &[&Path]) -> BackupOptions {
    BackupOptions {
        sources: sources.iter().map(|path| PathBuf::from(*path)).collect(),
        buckets: Default::default(),
        streams: Default::default(),
        selection: Selection::default(),
        host: "desk".to_owned(),
        user: "me".to_owned(),
        tags: Vec::new(),
        time: None,
        parent: None,
        force: false,
        ignore_ctime: false,
        ignore_inode: false,
        with_atime: false,
        read_special: false,
        skip_if_unchanged: false,
        dry_run: false,
        compression: Compression::Auto,
        solid: true,
        verify_blocks: true,
        checkpoints: CheckpointRhythm::every_seconds(600),
        hooks: Default::default(),
        shard: None,
    }
}

pub(crate) fn back_up(repository: &Arc<Repository>, options: &BackupOptions) -> BackupReport {
    backup(repository, options, &Silent, &Cancel::default()).unwrap()
}

/// Commits a cell to a repository without collectors.
pub(crate) fn commit(repository: &Repository, cell: &Cell) {
    let outcome = session::commit(repository, cell, &Collection::default()).unwrap();
    assert_eq!(outcome, Outcome::Committed);
}

/// Makes a cell without anything in it.
pub(crate) fn cell(id: u8, started_seconds: i64) -> Cell {
    Cell {
        kind: CellKind::Complete,
        id: SessionId::new(0, [id; 16]),
        predecessor: None,
        parent: None,
        started: started_seconds * 1_000_000_000,
        ended: started_seconds * 1_000_000_000 + 1,
        host: "desk".to_owned(),
        user: "me".to_owned(),
        tags: Vec::new(),
        sources: Vec::new(),
        segments: Vec::new(),
        statistics: Statistics::default(),
        options: std::collections::BTreeMap::default(),
        program: "test".to_owned(),
        config: 1,
        seen_cells: Vec::new(),
        seen_round: 0,
        shard: None,
    }
}

/// Nodes in memory, and how many were read.
#[derive(Default)]
pub(crate) struct Nodes {
    nodes: HashMap<ChunkId, Arc<[u8]>>,
    pub reads: usize,
}

impl NodeSource for Nodes {
    type Error = EngineError;

    fn node(&mut self, id: &ChunkId, _: ChunkType) -> Result<Arc<[u8]>> {
        self.reads += 1;
        Ok(Arc::clone(self.nodes.get(id).unwrap()))
    }
}

impl Nodes {
    /// Builds the tree of a source from its entries, in whatever order.
    pub fn source(&mut self, path: &str, entries: &[Entry]) -> Source {
        let mut entries = entries.to_vec();
        entries.sort_by(|one, two| one.key.cmp(&two.key));
        let mut sink = |node: NodeOut| -> Result<ChunkId> {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&[node.chunk_type as u8]).update(&node.plain);
            let id = ChunkId(*hasher.finalize().as_bytes());
            self.nodes.insert(id, node.plain.into());
            Ok(id)
        };
        let mut builder = TreeBuilder::new(BoundaryKey::new([3; 32]));
        for mut entry in entries {
            // Nobody reads the bytes, but a file that has some has a chunk.
            if entry.size > 0 && entry.content == Content::None {
                entry.content = Content::Whole(ChunkId([7; 32]));
            }
            builder.push(entry, &mut sink).unwrap();
        }
        let root = builder.finish(&mut sink).unwrap();
        Source {
            path: path.as_bytes().to_vec(),
            root: root.id,
            level: root.level,
            entries: root.entries,
            bytes: root.bytes,
        }
    }
}

/// Makes a directory if the key is empty or ends in `/`, else an empty file.
pub(crate) fn entry(key: &str) -> Entry {
    let is_directory = key.is_empty() || key.ends_with('/');
    Entry {
        key: key.as_bytes().to_vec(),
        kind: if is_directory {
            EntryType::Directory
        } else {
            EntryType::File
        },
        mode: 0o755,
        links: 1,
        ..Entry::default()
    }
}
