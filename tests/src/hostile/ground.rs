//! The repository that every case starts from: small, with every kind of object, and the same in each run but for
//! the path of its source.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use larder_engine::cancel::Cancel;
use larder_engine::parity::{self, BuildOptions};
use larder_engine::progress::Silent;
use larder_engine::repository::{Cache, OpenOptions, Repository, Secret};
use larder_engine::storage::Storage;
use larder_format::attributes::{self, ExtendedAttribute};
use larder_format::cell::{Cell, CellKind, Source, Statistics};
use larder_format::collector::{Round, State};
use larder_format::config::{Chunker, Config};
use larder_format::entry::{Attributes, Entry, EntryType, Timestamp};
use larder_format::ids::{ChunkType, LedgerId, ObjectId, PackPrefix, ReplicaId, SessionId, SlotId};
use larder_format::keys::Keyring;
use larder_format::ledger::{Ledger, LedgerGroup, Verification};
use larder_format::names::{self, Name};
use larder_format::object::{object_id, reserve};
use larder_format::quarantine::{self, RepairId, Undo};
use larder_format::run::{Run, RunEnd};
use larder_format::segment::{Owner, Segment};
use larder_format::session::{Amendment, Base, Change, Session};
use larder_format::slot::{self, KdfParams, SlotKind, SlotParams, seal_slot};
use larder_format::tree::build::Root;
use zeroize::Zeroizing;

use super::forge::{Forge, Part};
use crate::overlay::{Objects, Overlay};

/// What opens the repository, at no cost.
const RAW_KEY: [u8; 32] = [0x21; 32];
/// When all of it was written, in seconds since 1970.
const TIME: i64 = 1_700_000_000;
/// The bucket that one of the snapshots has.
const BUCKET: &[u8] = b"s3://bucket/p";

/// The repository, its keys, and the source that it is of.
pub struct Ground {
    /// What was written, by whom.
    pub forge: Forge,
    /// The same objects, shared by all cases.
    pub objects: Arc<Objects>,
    /// Its source, where a backup on top finds much of it unchanged.
    pub source: PathBuf,
    /// Where everything lies that a case needs on disk.
    pub folder: tempfile::TempDir,
}

impl Ground {
    /// Writes the repository and the source, below a folder in memory if there is one.
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        match memory.is_dir() {
            true => Self::below(memory),
            false => Self::below(&std::env::temp_dir()),
        }
    }

    /// Writes the repository and the source below a folder.
    pub fn below(folder: &Path) -> Self {
        let mut builder = tempfile::Builder::new();
        let folder = builder
            .prefix("larder-hostile-")
            .tempdir_in(folder)
            .unwrap();
        let source = folder.path().join("source");
        let mut forge = Forge::new();
        let path = source.as_os_str().as_encoded_bytes().to_vec();
        Writer::new(&mut forge, path).write(&source);
        let ground = Self {
            objects: Arc::new(forge.objects.clone()),
            forge,
            source,
            folder,
        };
        ground.with_parity()
    }

    fn with_parity(mut self) -> Self {
        let storage = Arc::new(Overlay::new(&self.objects));
        let repository = self
            .open(&(Arc::clone(&storage) as Arc<dyn Storage>))
            .unwrap();
        let options = BuildOptions {
            dry_run: false,
            max_bytes: None,
        };
        let report = parity::build(&repository, &options, &Silent, &Cancel::default()).unwrap();
        assert!(report.objects > 0, "{report:?}");
        self.forge.objects = storage.objects();
        self.objects = Arc::new(self.forge.objects.clone());
        self
    }

    /// Gives how a repository is opened here: nothing is kept, and all is asked by one thread.
    pub fn open_options(&self) -> OpenOptions {
        OpenOptions {
            cache_dir: Some(self.folder.path().join("cache")),
            state_dir: None,
            threads: 1,
            cache: Cache::Memory,
            in_order: true,
        }
    }

    /// Gives what opens it.
    pub fn secret() -> Secret {
        Secret::RawKey(Zeroizing::new(RAW_KEY))
    }

    /// Opens the repository on a storage.
    pub fn open(
        &self,
        storage: &Arc<dyn Storage>,
    ) -> larder_engine::error::Result<Arc<Repository>> {
        Repository::open_on(Arc::clone(storage), &Self::secret(), &self.open_options())
    }
}

impl Default for Ground {
    fn default() -> Self {
        Self::new()
    }
}

/// Gives the id of a session that saw round `number`.
fn session_id(number: u64, name: u8) -> SessionId {
    SessionId::new(number, [name; 16])
}

/// Seals a slot that a raw key opens, or a passphrase at the least cost.
fn raw_slot(keyring: &Keyring, id: SlotId) -> Vec<u8> {
    let params = SlotParams {
        kind: SlotKind::RawKey,
        label: "raw".to_owned(),
        created: TIME,
    };
    seal_slot(
        keyring,
        &id,
        &params,
        slot::Secret::RawKey(&RAW_KEY),
        [1; 16],
        &[2; 32],
    )
    .unwrap()
}

fn passphrase_slot(keyring: &Keyring, id: SlotId) -> Vec<u8> {
    let params = SlotParams {
        kind: SlotKind::Passphrase(KdfParams {
            memory_kib: 8,
            passes: 1,
            lanes: 1,
            salt: [3; 32],
        }),
        label: "passphrase".to_owned(),
        created: TIME,
    };
    let secret = slot::Secret::Passphrase(b"word");
    seal_slot(keyring, &id, &params, secret, [4; 16], &[5; 32]).unwrap()
}

struct Writer<'a> {
    forge: &'a mut Forge,
    path: Vec<u8>,
    entries: BTreeMap<Vec<u8>, Entry>,
    /// The bytes of files that are in the source now.
    files: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl<'a> Writer<'a> {
    fn new(forge: &'a mut Forge, path: Vec<u8>) -> Self {
        Self {
            forge,
            path,
            entries: BTreeMap::new(),
            files: BTreeMap::new(),
        }
    }

    fn write(mut self, source: &Path) {
        self.opening();
        self.first_files();
        let first = self.snapshot(session_id(0, 0xa0), |_| {});
        self.state(&first);
        self.files(100..104, "d1/new");
        let second = self.snapshot(session_id(1, 0xb0), |cell| cell.parent = Some(first));
        self.bucket(session_id(1, 0xb1));
        self.amend(&second, 1, Change::SetTags(vec!["kept".to_owned()]));
        self.amend(&second, 2, Change::Pin);
        let forgotten = self.snapshot(session_id(1, 0xc0), |cell| cell.parent = Some(second));
        self.amend(&forgotten, 1, Change::Forget);
        self.files(110..114, "d2/more");
        let checkpoint = self.snapshot(session_id(1, 0xd0), |cell| cell.kind = CellKind::Partial);
        self.files(114..116, "d2/most");
        self.snapshot(session_id(1, 0xe0), |cell| {
            cell.predecessor = Some(checkpoint);
            cell.seen_cells = vec![second];
        });
        self.revoked(session_id(1, 0xf0));
        self.unfinished(session_id(1, 0xf1), second);
        self.rest(&first);
        for (key, bytes) in &self.files {
            let path = source.join(std::str::from_utf8(key).unwrap());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            let file = fs::File::options().write(true).open(&path).unwrap();
            let seconds = TIME as u64 + bytes.len() as u64;
            file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds))
                .unwrap();
        }
    }

    /// Writes config, key slots and the reserve.
    fn opening(&mut self) {
        let (raw, passphrase) = (SlotId([0x12; 16]), SlotId([0x13; 16]));
        let config = Config {
            number: 1,
            repository: self.forge.keyring.repository(),
            replica: ReplicaId([0x11; 16]),
            created: TIME,
            chunker: Chunker {
                name: "fastcdc-v2020".to_owned(),
                min_bytes: 256,
                mean_bytes: 1024,
                max_bytes: 4096,
            },
            read_features: Vec::new(),
            write_features: Vec::new(),
            collect_features: vec!["parity-10".to_owned()],
            slots: vec![raw, passphrase],
        };
        let keyring = self.forge.keyring.clone();
        let object = config.seal(&keyring, [9; 16]).unwrap();
        self.forge.put(&names::config(1), &object);
        let slot = raw_slot(&keyring, raw);
        self.forge.put(&names::slot(&raw), &slot);
        let slot = passphrase_slot(&keyring, passphrase);
        self.forge.put(&names::slot(&passphrase), &slot);
        let reserve = reserve(1000, [6; 16], &[7; 32]);
        self.forge.put(names::RESERVE, &reserve);
    }

    fn put(&mut self, key: &str, entry: Entry) {
        let entry = Entry {
            key: key.as_bytes().to_vec(),
            ..entry
        };
        self.entries.insert(entry.key.clone(), entry);
    }

    fn file(&mut self, key: &str, bytes: &[u8]) -> Entry {
        let (size, content) = self.forge.content(&[Part::Data(bytes)]);
        let entry = Entry {
            size,
            content,
            ..plain(EntryType::File, 0o644, size)
        };
        self.files.insert(key.as_bytes().to_vec(), bytes.to_vec());
        self.put(key, entry.clone());
        entry
    }

    fn files(&mut self, numbers: std::ops::Range<u64>, name: &str) {
        for number in numbers {
            let bytes = noise(number, 60 + 31 * (number % 70) as usize);
            self.file(&format!("{name}{number:03}"), &bytes);
        }
    }

    /// Makes one of each kind of entry, and enough of them for several nodes.
    fn first_files(&mut self) {
        for directory in [
            "",
            "d0/",
            "d0/deep/",
            "d0/deep/er/",
            "d1/",
            "d2/",
            "linked/",
        ] {
            self.put(directory, plain(EntryType::Directory, 0o755, 0));
        }
        self.files(0..40, "d0/f");
        self.files(40..70, "d1/f");
        self.files(70..72, "d0/deep/er/f");
        self.file("long", &noise(99, 40_000));
        self.file("empty", b"");
        let (start, end) = (noise(80, 900), noise(81, 800));
        let parts = [Part::Data(&start), Part::Hole(5000), Part::Data(&end)];
        let (size, content) = self.forge.content(&parts);
        let holes = Entry {
            size,
            content,
            ..plain(EntryType::File, 0o600, 0)
        };
        self.put("holes", holes);
        let linked = self.file("linked/a", &noise(82, 1500));
        let linked = Entry {
            inode: 77,
            links: 2,
            ..linked
        };
        self.put("linked/a", linked.clone());
        self.put("linked/b", linked);
        let setuid = self.file("setuid", &noise(83, 300));
        self.put(
            "setuid",
            Entry {
                mode: 0o4755,
                ..setuid
            },
        );
        let link = Entry {
            link_target: b"d0/f000".to_vec(),
            ..plain(EntryType::Symlink, 0o777, 0)
        };
        self.put("symlink", link);
        self.put("pipe", plain(EntryType::Fifo, 0o600, 0));
        self.put("socket", plain(EntryType::Socket, 0o600, 0));
        let device = Entry {
            device: (1 << 32) + 3,
            ..plain(EntryType::CharacterDevice, 0o600, 0)
        };
        self.put("device", device);
        self.attributes("xattr-inline", 20);
        self.attributes("xattr-outside", 1500);
    }

    fn attributes(&mut self, key: &str, length: usize) {
        let file = self.file(key, &noise(84, 200));
        let record = attributes::encode(&[ExtendedAttribute {
            name: b"user.larder".to_vec(),
            value: noise(85, length),
        }]);
        let record = record.unwrap();
        let attributes = match record.len() > 1024 {
            true => Attributes::OutOfLine(self.forge.chunk(ChunkType::Value, &record)),
            false => Attributes::Inline(record),
        };
        self.put(key, Entry { attributes, ..file });
    }

    fn cell(&self, id: SessionId, sources: Vec<Source>) -> Cell {
        let time = (TIME + i64::from(id.0[8])) * 1_000_000_000;
        Cell {
            kind: CellKind::Complete,
            id,
            predecessor: None,
            parent: None,
            started: time,
            ended: time + 1,
            host: "desk".to_owned(),
            user: "me".to_owned(),
            tags: Vec::new(),
            sources,
            segments: Vec::new(),
            statistics: Statistics {
                files: self.entries.len() as u64,
                ..Statistics::default()
            },
            options: BTreeMap::from([("read-from".to_owned(), time.to_string())]),
            program: "larder 0".to_owned(),
            config: 1,
            seen_cells: Vec::new(),
            seen_round: id.round(),
            shard: None,
        }
    }

    fn session(&mut self, cell: &Cell) {
        let base = match (cell.predecessor, cell.parent) {
            (Some(id), _) => Base::Predecessor(id),
            (None, Some(id)) => Base::Parent(id),
            _ => Base::None,
        };
        self.forge.record(&Session {
            id: cell.id,
            base,
            started: cell.started,
            host: cell.host.clone(),
            user: cell.user.clone(),
            program: cell.program.clone(),
            config: 1,
        });
    }

    fn snapshot(&mut self, id: SessionId, change: impl FnOnce(&mut Cell)) -> SessionId {
        let root = self.forge.tree(&self.entries);
        let source = source_of(&self.path, &root);
        let mut cell = self.cell(id, vec![source]);
        change(&mut cell);
        self.session(&cell);
        self.forge.commit(cell);
        id
    }

    /// Commits a snapshot of objects whose keys no folder could have.
    fn bucket(&mut self, id: SessionId) {
        let mut objects = BTreeMap::new();
        for (number, key) in (200..).zip(["a", "a/", "a/b", "a//c", "../up", "z"]) {
            let bytes = noise(number, 150);
            let (size, content) = self.forge.content(&[Part::Data(&bytes)]);
            let entry = Entry {
                key: key.as_bytes().to_vec(),
                kind: EntryType::Object,
                size,
                mtime: time(0),
                content,
                etag: b"e1".to_vec(),
                class: b"STANDARD".to_vec(),
                ..Entry::default()
            };
            objects.insert(entry.key.clone(), entry);
        }
        let root = self.forge.tree(&objects);
        let cell = self.cell(id, vec![source_of(BUCKET, &root)]);
        self.session(&cell);
        self.forge.commit(cell);
        self.shard(&root);
    }

    /// Writes a run of two shards, the first of which was finished.
    fn shard(&mut self, root: &Root) {
        let run = Run {
            id: self.forge.keyring.run_id("nightly"),
            name: "nightly".to_owned(),
            begun: TIME * 1_000_000_000,
            source: BUCKET.to_vec(),
            host: "desk".to_owned(),
            asked: 2,
            divisions: vec![b"z".to_vec()],
            left_out: "0123456789abcdef".to_owned(),
            parent: None,
        };
        let cell = Cell {
            kind: CellKind::Shard,
            shard: run.shard(1),
            ..self.cell(session_id(1, 0xb2), vec![source_of(BUCKET, root)])
        };
        self.session(&cell);
        self.forge.record(&RunEnd {
            id: run.id,
            ended: TIME * 1_000_000_000,
            snapshot: cell.id,
        });
        self.forge.record(&run);
        self.forge.commit(cell);
    }

    /// Ends the first round: its snapshot lives on, and a pack of before is gone.
    fn state(&mut self, first: &SessionId) {
        let cell: Cell = self.forge.open(&Name::Cell(*first)).unwrap();
        self.forge.record(&Round {
            number: 1,
            condemned_packs: vec![ObjectId([0xdd; 32])],
            time: TIME,
            host: "desk".to_owned(),
            ..Round::default()
        });
        self.forge.record(&State {
            number: 1,
            live_cells: vec![*first],
            segments: cell.segments,
            deleted_packs: vec![ObjectId([0xdd; 32])],
            suspect_packs: Vec::new(),
        });
    }

    fn amend(&mut self, cell: &SessionId, number: u64, change: Change) {
        let amendment = Amendment {
            cell: *cell,
            number,
            change,
            time: TIME * 1_000_000_000,
            host: "desk".to_owned(),
            user: "me".to_owned(),
        };
        self.forge.record(&amendment);
    }

    fn revoked(&mut self, id: SessionId) {
        let mut cell = self.cell(id, Vec::new());
        self.session(&cell);
        cell.kind = CellKind::Revoked;
        cell.ended = cell.started;
        cell.statistics = Statistics::default();
        cell.options.clear();
        self.forge.record(&cell);
    }

    /// Leaves a session without a cell, what it uploaded, and a round that waits for it.
    fn unfinished(&mut self, id: SessionId, parent: SessionId) {
        let mut cell = self.cell(id, Vec::new());
        cell.parent = Some(parent);
        self.session(&cell);
        self.forge.chunk(ChunkType::Data, &noise(300, 500));
        let packs = self.forge.packs();
        let orphan = packs[0].id;
        self.forge.segment(Owner::Session(id), packs);
        self.forge.record(&Round {
            number: 2,
            condemned_packs: vec![orphan],
            time: TIME,
            host: "desk".to_owned(),
            ..Round::default()
        });
    }

    /// Writes a ledger, and what a repair put aside.
    fn rest(&mut self, first: &SessionId) {
        let cell: Cell = self.forge.open(&Name::Cell(*first)).unwrap();
        let segment = &self.forge.objects[&names::segment(&cell.segments[0])];
        let segment = Segment::open(&self.forge.keyring, &cell.segments[0], segment).unwrap();
        let packs = segment.packs.iter();
        let prefix = |id: &ObjectId| PackPrefix(*id.0.first_chunk().unwrap());
        self.forge.record(&Ledger {
            id: LedgerId([0x33; 16]),
            replica: ReplicaId([0x11; 16]),
            groups: vec![LedgerGroup {
                time: TIME,
                how: Verification::Opened,
                packs: packs.map(|pack| prefix(&pack.id)).collect(),
            }],
        });
        let repair = RepairId([0x44; 16]);
        let name = names::slot(&SlotId([0x13; 16]));
        let after = *object_id(&self.forge.objects[&name])
            .0
            .first_chunk()
            .unwrap();
        let broken = b"broken".to_vec();
        let undo = Undo {
            repair,
            number: 1,
            time: TIME,
            host: "desk".to_owned(),
            changes: vec![quarantine::Change {
                name: name.clone(),
                before: Some(object_id(&broken).0),
                after: Some(after),
            }],
        };
        let object = undo.close([8; 16]).unwrap();
        self.forge
            .put(&quarantine::record_name(&repair, 1), &object);
        self.forge
            .put(&quarantine::copy_name(&repair, &name), &broken);
    }
}

fn time(more: u64) -> Timestamp {
    Timestamp {
        seconds: TIME + more as i64,
        nanoseconds: 0,
    }
}

fn plain(kind: EntryType, mode: u32, size: u64) -> Entry {
    Entry {
        kind,
        mode,
        mtime: time(size),
        ctime: time(0),
        links: 1,
        ..Entry::default()
    }
}

fn source_of(path: &[u8], root: &Root) -> Source {
    Source {
        path: path.to_vec(),
        root: root.id,
        level: root.level,
        entries: root.entries,
        bytes: root.bytes,
    }
}

/// Gives bytes that follow from a number, half of which compress.
fn noise(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    for chunk in bytes.chunks_mut(200).skip(1).step_by(2) {
        chunk.fill(number as u8);
    }
    bytes
}
