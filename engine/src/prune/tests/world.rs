//! A repository in memory beside a plain map of what its snapshots must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Mutex;

use bytes::Bytes;
use larder_format::entry::{Content, Extent};
use larder_format::ids::{ChunkType, SessionId};
use larder_format::list::{ListRoot, extents};
use larder_format::names;
use larder_format::record::seal_record;
use larder_format::session::{Amendment, Change};
use larder_format::tree::build::Root;
use larder_format::tree::read::Cursor;

use super::super::plan::{Limits, MaxUnused};
use super::super::*;
use crate::amend::{Outcome, Wish, amend};
use crate::backup::{BackupReport, backup};
use crate::check::{CheckOptions, ReadData, Severity, check};
use crate::chunks::ChunkReader;
use crate::progress::Silent;
use crate::session::Author;
use crate::snapshots::fixture;
use crate::storage::error::{ErrorKind, Result as StorageResult};
use crate::storage::faulty::{Fault, Faulty, When};
use crate::storage::object::ObjectStorage;
use crate::storage::{Capabilities, ObjectInfo, Storage};
use crate::view;

type Files = BTreeMap<String, Vec<u8>>;

/// Everything is freed and nobody is waited for.
pub(crate) fn options() -> PruneOptions {
    PruneOptions {
        limits: Limits {
            max_unused: MaxUnused::Percent(0.0),
            max_repack_bytes: None,
        },
        max_duration: None,
        wait: false,
        patience: Duration::ZERO,
        dry_run: false,
        accept_rollback: false,
        assume_forgotten: Default::default(),
        accept_racy_creates: false,
        thaw: None,
        author: Author {
            host: "desk".to_owned(),
            user: "me".to_owned(),
        },
    }
}

/// Prunes as a process of its own.
pub(crate) fn run(storage: &Arc<dyn Storage>, options: &PruneOptions) -> Result<PruneReport> {
    let repository = fixture::open_with(storage, &fixture::passphrase("secret"))?;
    prune(&repository, options, &Silent, &Cancel::default())
}

pub(crate) fn open(storage: &Arc<dyn Storage>) -> Arc<Repository> {
    fixture::open(storage)
}

pub(crate) fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

pub(crate) struct World {
    pub storage: Arc<dyn Storage>,
    pub source: Arc<tempfile::TempDir>,
    pub files: Files,
    /// What each snapshot that is not forgotten holds, the oldest first.
    truths: Vec<(SessionId, Files)>,
}

impl World {
    pub(crate) fn new() -> Self {
        let storage: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
        fixture::init(storage.as_ref());
        Self {
            storage,
            source: Arc::new(tempfile::tempdir().unwrap()),
            files: Files::new(),
            truths: Vec::new(),
        }
    }

    /// Four snapshots, two of them forgotten, with things to delete, to repack and to rescue, and
    /// what a backup left that died before its cell.
    pub(crate) fn filled() -> Self {
        let mut world = Self::new();
        for number in 0..12 {
            world.write(&format!("f{number}"), &noise(number, 1500));
        }
        world.write("long", &noise(50, 60_000));
        world.back_up();
        world.write("gone", &noise(51, 8000));
        for number in 0..6 {
            world.remove(&format!("f{number}"));
        }
        world.back_up();
        world.remove("gone");
        world.write("f6", &noise(52, 1500));
        world.back_up();
        world.write("new", &noise(53, 2500));
        world.write("dying", &noise(54, 7000));
        world.back_up_and_die();
        world.remove("dying");
        world.back_up();
        world.forget(1);
        world.forget(0);
        world
    }

    pub(crate) fn write(&mut self, name: &str, bytes: &[u8]) {
        fs::write(self.source.path().join(name), bytes).unwrap();
        self.files.insert(name.to_owned(), bytes.to_vec());
    }

    pub(crate) fn remove(&mut self, name: &str) {
        fs::remove_file(self.source.path().join(name)).unwrap();
        self.files.remove(name);
    }

    pub(crate) fn open(&self) -> Arc<Repository> {
        open(&self.storage)
    }

    pub(crate) fn back_up(&mut self) -> SessionId {
        let storage = Arc::clone(&self.storage);
        self.try_back_up(&storage).unwrap()
    }

    /// Backs up through a storage that may fail or do something else in between.
    pub(crate) fn try_back_up(&mut self, storage: &Arc<dyn Storage>) -> Result<SessionId> {
        let repository = open(storage);
        let mut options = fixture::options(&[self.source.path()]);
        // Files are rewritten within one tick of the clock.
        options.force = true;
        let report: BackupReport = backup(&repository, &options, &Silent, &Cancel::default())?;
        let name = report.snapshot.unwrap();
        let view = view::read_cells(&open(&self.storage), None).unwrap();
        let id = *view
            .cells
            .keys()
            .find(|id| id.snapshot_name() == name)
            .unwrap();
        self.truths.push((id, self.files.clone()));
        Ok(id)
    }

    /// Backs up up to the cell, which is never made.
    pub(crate) fn back_up_and_die(&mut self) {
        let inner: Arc<dyn Storage> = Arc::new(Hooked {
            denied: Some("snapshots/"),
            ..Hooked::new(Arc::clone(&self.storage))
        });
        assert!(self.try_back_up(&inner).is_err());
    }

    /// Forgets the snapshot at a position among those that live.
    pub(crate) fn forget(&mut self, position: usize) -> Files {
        let (id, files) = self.truths.remove(position);
        self.forget_on(&self.storage, id);
        files
    }

    /// Forgets the snapshot at a position as a person does, on a storage that may refuse.
    pub(crate) fn try_forget(
        &mut self,
        storage: &Arc<dyn Storage>,
        position: usize,
    ) -> Result<Outcome> {
        let id = self.truths[position].0;
        let outcome = self.amend_on(storage, &id, &Wish::Forget)?;
        self.truths.remove(position);
        Ok(outcome)
    }

    pub(crate) fn amend_on(
        &self,
        storage: &Arc<dyn Storage>,
        id: &SessionId,
        wish: &Wish,
    ) -> Result<Outcome> {
        let repository = open(storage);
        let mut view = view::read_cells(&repository, None)?;
        amend(&repository, &mut view, id, wish, &options().author)
    }

    fn forget_on(&self, storage: &Arc<dyn Storage>, id: SessionId) {
        let amendment = Amendment {
            cell: id,
            number: 1,
            change: Change::Forget,
            time: 1,
            host: String::new(),
            user: String::new(),
        };
        let repository = open(storage);
        let object = seal_record(repository.keyring(), &amendment, [1; 16], &[2; 32]).unwrap();
        storage
            .create(&names::amendment(&id, 1), object.into())
            .unwrap();
    }

    /// Makes the source hold these files.
    pub(crate) fn set_files(&mut self, files: &Files) {
        for entry in fs::read_dir(self.source.path()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        self.files.clear();
        for (name, bytes) in files {
            self.write(name, bytes);
        }
    }

    pub(crate) fn live(&self) -> BTreeSet<SessionId> {
        self.truths.iter().map(|(id, _)| *id).collect()
    }

    pub(crate) fn truth(&self, id: &SessionId) -> &Files {
        &self.truths.iter().find(|(one, _)| one == id).unwrap().1
    }

    pub(crate) fn objects(&self) -> BTreeMap<String, Bytes> {
        objects(self.storage.as_ref())
    }

    /// Gives the bytes of all objects but the reserve.
    pub(crate) fn bytes(&self) -> u64 {
        bytes_of(self.storage.as_ref())
    }

    /// Copies the storage.
    pub(crate) fn copy(&self) -> Arc<dyn Storage> {
        let copy = ObjectStorage::memory();
        for (name, bytes) in self.objects() {
            copy.put(&name, bytes).unwrap();
        }
        Arc::new(copy)
    }

    /// Gives the same world over another storage.
    pub(crate) fn aside(&self, storage: Arc<dyn Storage>) -> Self {
        Self {
            storage,
            source: Arc::clone(&self.source),
            files: self.files.clone(),
            truths: self.truths.clone(),
        }
    }

    /// Takes over what another world has besides.
    pub(crate) fn join(&mut self, other: &Self) {
        for (name, bytes) in other.objects() {
            self.storage.put(&name, bytes).unwrap();
        }
        for (id, files) in &other.truths {
            if !self.live().contains(id) {
                self.truths.push((*id, files.clone()));
            }
        }
    }

    pub(crate) fn verify(&self) {
        self.verify_on(&self.storage);
    }

    /// Reads every live snapshot through the index, compares it with what was backed up, and lets
    /// a check find nothing.
    pub(crate) fn verify_on(&self, storage: &Arc<dyn Storage>) {
        self.verify_contents(storage);
        check_finds_nothing(storage);
    }

    /// Reads every live snapshot through the index and compares it with what was backed up.
    pub(crate) fn verify_contents(&self, storage: &Arc<dyn Storage>) {
        let repository = open(storage);
        let view = view::read(&repository, false, None).unwrap();
        let listed: BTreeSet<SessionId> = view.snapshots().map(|cell| cell.id).collect();
        assert_eq!(listed, self.live());
        for (id, files) in &self.truths {
            let cell = &view.cells[id];
            let found = read_files(&repository, cell);
            assert!(found == *files, "{}", id.snapshot_name());
        }
    }
}

pub(crate) fn check_finds_nothing(storage: &Arc<dyn Storage>) {
    let repository = open(storage);
    let options = CheckOptions {
        read_data: ReadData::All,
        records_suspects: false,
    };
    let report = check(&repository, &options, &Silent, &Cancel::default()).unwrap();
    let harm = report
        .findings
        .iter()
        .filter(|one| one.severity != Severity::Note);
    let harm: Vec<_> = harm.collect();
    assert!(harm.is_empty(), "{harm:#?}");
}

pub(crate) fn read_files(repository: &Arc<Repository>, cell: &larder_format::cell::Cell) -> Files {
    let mut reader = ChunkReader::new(repository).unwrap();
    let mut files = Files::new();
    let source = &cell.sources[0];
    let root = Root {
        id: source.root,
        level: source.level,
        entries: source.entries,
        bytes: source.bytes,
    };
    let mut cursor = Cursor::new(ChunkReader::new(repository).unwrap(), &root);
    while let Some(entry) = cursor.next_entry().unwrap() {
        if entry.key.is_empty() {
            continue;
        }
        let list: Vec<Extent> = match &entry.content {
            Content::None => Vec::new(),
            Content::Whole(id) => vec![Extent::Data {
                id: *id,
                length: entry.size,
            }],
            Content::Extents(extents) => extents.clone(),
            Content::List { root, level } => {
                let root = ListRoot {
                    id: *root,
                    level: *level,
                    size: entry.size,
                };
                let nodes = ChunkReader::new(repository).unwrap();
                extents(nodes, &root)
                    .map(|extent| extent.unwrap().1)
                    .collect()
            }
        };
        let mut bytes = Vec::new();
        for extent in list {
            match extent {
                Extent::Data { id, .. } => {
                    bytes.extend_from_slice(&reader.read(ChunkType::Data, &id).unwrap());
                }
                Extent::Hole { length } => {
                    bytes.resize(bytes.len() + usize::try_from(length).unwrap(), 0);
                }
            }
        }
        files.insert(String::from_utf8(entry.key).unwrap(), bytes);
    }
    files
}

pub(crate) fn objects(storage: &dyn Storage) -> BTreeMap<String, Bytes> {
    let mut objects = BTreeMap::new();
    let listed = storage.list("", &mut |object| {
        objects.insert(object.name, Bytes::new());
        Ok(())
    });
    listed.unwrap();
    for (name, bytes) in &mut objects {
        *bytes = storage.get(name, u64::MAX).unwrap();
    }
    objects
}

pub(crate) fn bytes_of(storage: &dyn Storage) -> u64 {
    let mut total = 0;
    let listed = storage.list("", &mut |object| {
        if object.name != names::RESERVE {
            total += object.size_bytes;
        }
        Ok(())
    });
    listed.unwrap();
    total
}

/// Lets a storage fail for good from an operation on, as when the process dies there.
pub(crate) fn dying(storage: Arc<dyn Storage>, at: u64, when: When) -> Arc<Faulty> {
    let faulty = Faulty::new(storage);
    if when == When::After {
        faulty.inject(Fault::error(at, When::After, ErrorKind::Permanent));
    }
    let next = if when == When::After { at + 1 } else { at };
    faulty.inject(Fault {
        lasts: true,
        ..Fault::error(next, When::Before, ErrorKind::Permanent)
    });
    Arc::new(faulty)
}

pub(crate) type Hook = Box<dyn FnOnce() + Send>;

/// A storage on which something else happens before one of the operations.
pub(crate) struct Hooked {
    pub inner: Arc<dyn Storage>,
    pub is_racy: bool,
    /// Nothing is created below this folder.
    pub denied: Option<&'static str>,
    /// Bytes that fit in all, if that is bounded.
    pub room: Option<u64>,
    /// What the first listing lacks, as if it had come meanwhile.
    pub hidden: Mutex<Option<String>>,
    pub state: Mutex<(u64, u64, Option<Hook>)>,
}

impl Hooked {
    pub(crate) fn new(inner: Arc<dyn Storage>) -> Self {
        Self {
            inner,
            is_racy: false,
            denied: None,
            room: None,
            hidden: Mutex::default(),
            state: Mutex::default(),
        }
    }

    /// Lets something happen before the operation of this number, from 1.
    pub(crate) fn before(
        inner: Arc<dyn Storage>,
        at: u64,
        hook: impl FnOnce() + Send + 'static,
    ) -> Self {
        Self {
            state: Mutex::new((0, at, Some(Box::new(hook)))),
            ..Self::new(inner)
        }
    }

    pub(crate) fn operations(&self) -> u64 {
        self.state.lock().unwrap().0
    }

    fn step(&self) {
        let hook = {
            let mut state = self.state.lock().unwrap();
            state.0 += 1;
            if state.0 == state.1 {
                state.2.take()
            } else {
                None
            }
        };
        if let Some(hook) = hook {
            hook();
        }
    }

    fn refuse(&self, name: &str, more: usize) -> StorageResult<()> {
        let kind = if self.denied.is_some_and(|folder| name.starts_with(folder)) {
            ErrorKind::Denied
        } else if self.room.is_some_and(|room| {
            let mut used = more as u64;
            let listed = self.inner.list("", &mut |object| {
                used += object.size_bytes;
                Ok(())
            });
            listed.unwrap();
            used > room
        }) {
            ErrorKind::Full
        } else {
            return Ok(());
        };
        let operation = crate::storage::error::Operation::Create;
        Err(crate::storage::error::StorageError::new(
            operation, "memory", name, kind, "a test",
        ))
    }
}

impl Storage for Hooked {
    fn get(&self, name: &str, max_bytes: u64) -> StorageResult<Bytes> {
        self.step();
        self.inner.get(name, max_bytes)
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> StorageResult<Bytes> {
        self.step();
        self.inner.get_range(name, offset, length)
    }

    fn put(&self, name: &str, bytes: Bytes) -> StorageResult<()> {
        self.step();
        self.refuse(name, bytes.len())?;
        self.inner.put(name, bytes)
    }

    fn create(&self, name: &str, bytes: Bytes) -> StorageResult<()> {
        self.step();
        self.refuse(name, bytes.len())?;
        self.inner.create(name, bytes)
    }

    fn delete(&self, name: &str) -> StorageResult<()> {
        self.step();
        self.inner.delete(name)
    }

    fn list(
        &self,
        folder: &str,
        visit: &mut dyn FnMut(ObjectInfo) -> StorageResult<()>,
    ) -> StorageResult<()> {
        self.step();
        let mut hidden = None;
        if folder.is_empty() || folder.starts_with("snapshots") {
            hidden = self.hidden.lock().unwrap().take();
        }
        self.inner.list(folder, &mut |object| {
            if hidden.as_ref() == Some(&object.name) {
                return Ok(());
            }
            visit(object)
        })
    }

    fn size(&self, name: &str) -> StorageResult<u64> {
        self.step();
        self.inner.size(name)
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.inner.capabilities();
        if self.is_racy {
            capabilities.create_exclusive = CreateExclusive::None;
        }
        capabilities
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
