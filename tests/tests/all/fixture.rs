//! The engine on a storage in memory, and a folder with a source.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use larder_engine::backup::{
    BackupOptions, BackupReport, CheckpointRhythm, Compression, Selection, backup,
};
use larder_engine::browse;
use larder_engine::cancel::Cancel;
use larder_engine::chunker::ChunkSizes;
use larder_engine::error::Result;
use larder_engine::progress::{Progress, Silent};
use larder_engine::prune::PruneOptions;
use larder_engine::prune::plan::{Limits, MaxUnused};
use larder_engine::repository::{
    Cache, ChunkerKind, InitOptions, KdfCost, OpenOptions, Repository, Secret,
};
use larder_engine::restore::{Overwrite, RestoreOptions};
use larder_engine::session::Author;
use larder_engine::snapshots::{Filter, SnapshotInfo, list};
use larder_engine::storage::Storage;
use zeroize::Zeroizing;

use crate::program::write_old;

/// The cheapest way to a key.
pub const KDF: KdfCost = KdfCost {
    memory_kib: 64,
    passes: 1,
    lanes: 1,
};

/// Makes a passphrase.
pub fn secret(text: &str) -> Secret {
    Secret::Passphrase(Zeroizing::new(text.as_bytes().to_vec()))
}

/// Gives options for a small repository with small chunks.
pub fn init_options() -> InitOptions {
    InitOptions {
        label: "first".to_owned(),
        kdf: KDF,
        reserve_bytes: 1000,
        chunker: ChunkerKind::FastCdc,
        chunks: ChunkSizes {
            minimum: 256,
            mean: 1024,
            maximum: 4096,
        },
        racy_creates: false,
        parity: None,
    }
}

/// A folder with a source and local caches, which vanishes with the value.
pub struct Desk {
    folder: tempfile::TempDir,
    /// Where local indexes live.
    pub cache: Cache,
    /// Whether everything is asked of the storage in a fixed order.
    pub in_order: bool,
}

impl Desk {
    /// Makes an empty source.
    pub fn new(cache: Cache) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("larder-test-")
            .tempdir()
            .unwrap();
        fs::create_dir(folder.path().join("source")).unwrap();
        Self {
            folder,
            cache,
            in_order: false,
        }
    }

    /// Gives a path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of the source, with a modification time long ago.
    pub fn write(&self, name: &str, content: &[u8]) {
        write_old(&self.path("source").join(name), content);
    }

    /// Opens the repository on a storage.
    pub fn open(
        &self,
        storage: &Arc<impl Storage + 'static>,
        password: &str,
    ) -> Result<Arc<Repository>> {
        let options = OpenOptions {
            cache_dir: Some(self.path("cache")),
            state_dir: None,
            threads: 1,
            cache: self.cache,
            in_order: self.in_order,
        };
        let storage: Arc<dyn Storage> = Arc::clone(storage) as _;
        Repository::open_on(storage, &secret(password), &options)
    }

    /// Gives the options of a plain backup of the source.
    pub fn options(&self) -> BackupOptions {
        BackupOptions {
            sources: vec![self.path("source")],
            buckets: Default::default(),
            streams: Default::default(),
            selection: Selection::default(),
            host: "desk".to_owned(),
            user: "me".to_owned(),
            tags: Vec::new(),
            time: None,
            parent: None,
            force: false,
            ignore_ctime: true,
            ignore_inode: false,
            with_atime: false,
            read_special: false,
            skip_if_unchanged: false,
            dry_run: false,
            compression: Compression::Auto,
            solid: true,
            verify_blocks: true,
            checkpoints: CheckpointRhythm::every_seconds(300),
            hooks: Default::default(),
            shard: None,
        }
    }

    /// Backs the source up.
    pub fn back_up(&self, repository: &Arc<Repository>) -> Result<BackupReport> {
        backup(repository, &self.options(), &Silent, &Cancel::default())
    }

    /// Backs the source up until the backup has worked on so many entries; leaves a checkpoint.
    pub fn back_up_partly(
        &self,
        repository: &Arc<Repository>,
        entries: u64,
    ) -> Result<BackupReport> {
        let cancel = Cancel::default();
        let stop = StopAfter {
            entries: std::sync::atomic::AtomicU64::new(entries),
            cancel: cancel.clone(),
        };
        backup(repository, &self.options(), &stop, &cancel)
    }

    /// Gives the whole of a snapshot's source as a tar stream: every byte that it holds.
    pub fn dump(&self, repository: &Arc<Repository>, snapshot: &SnapshotInfo) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let source = self.path("source");
        browse::dump(
            repository,
            snapshot,
            source.as_os_str().as_encoded_bytes(),
            &mut out,
        )?;
        Ok(out)
    }
}

/// Who acts on the repository.
pub fn author() -> Author {
    Author {
        host: "desk".to_owned(),
        user: "me".to_owned(),
    }
}

/// Frees everything, and waits for nobody.
pub fn prune_options() -> PruneOptions {
    PruneOptions {
        limits: Limits {
            max_unused: MaxUnused::Percent(0.0),
            max_repack_bytes: None,
        },
        max_duration: None,
        wait: true,
        patience: Duration::ZERO,
        dry_run: false,
        accept_rollback: false,
        assume_forgotten: Default::default(),
        accept_racy_creates: false,
        thaw: None,
        author: author(),
    }
}

/// Gives a folder in memory, if there is one.
pub fn memory_folder() -> PathBuf {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => memory.to_owned(),
        false => std::env::temp_dir(),
    }
}

/// Reads all files below a folder, by their paths in it; none if it is not there.
pub fn files_below(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path
                .strip_prefix(folder)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            files.insert(name, fs::read(&path).unwrap());
        }
    }
    files
}

/// Restores all that can be restored, into a folder.
pub fn restore_options(target: &Path) -> RestoreOptions {
    RestoreOptions {
        target: target.to_owned(),
        overwrite: Overwrite::Always,
        delete: false,
        include: Vec::new(),
        exclude: Vec::new(),
        sparse: false,
        dry_run: false,
        verify: false,
        no_owner: true,
        numeric_owner: true,
        map_uid: Vec::new(),
        map_gid: Vec::new(),
        in_place: false,
        devices: false,
        lost_as_zeros: false,
    }
}

/// Lists the complete snapshots, oldest first.
pub fn snapshots(repository: &Repository) -> Vec<SnapshotInfo> {
    list(repository, &Filter::default(), false).unwrap()
}

/// Asks for a stop after so many entries.
struct StopAfter {
    entries: std::sync::atomic::AtomicU64,
    cancel: Cancel,
}

impl Progress for StopAfter {
    fn current(&self, _: &[u8]) {
        let before = self
            .entries
            .fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        if before == 1 {
            self.cancel.request();
        }
    }
}
