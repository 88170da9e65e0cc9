//! Damages of every kind to every kind of object, each of which a check has to find; what it says
//! of snapshots and paths is compared with what a plain reader of everything meets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod ledger;
mod levels;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use larder_format::entry::{Attributes, Content, Entry, Extent};
use larder_format::ids::{ChunkId, ChunkType};
use larder_format::list::{ListRoot, extents};
use larder_format::names::{self, Name};
use larder_format::record::seal_record;
use larder_format::session::{Amendment, Change};
use larder_format::tree::build::Root;
use larder_format::tree::read::Cursor;
use zeroize::Zeroizing;

use super::*;
use crate::backup::{BackupOptions, CheckpointRhythm, Compression, Selection, backup};
use crate::chunker::ChunkSizes;
use crate::chunks::ChunkReader;
use crate::progress::Silent;
use crate::repository::{Cache, ChunkerKind, InitOptions, KdfCost, OpenOptions, Secret, make_slot};
use crate::storage::Storage;
use crate::storage::error::ErrorKind;
use crate::storage::faulty::{Effect, Fault, Faulty, When};
use crate::storage::object::ObjectStorage;
use crate::view;

const KDF: KdfCost = KdfCost {
    memory_kib: 64,
    passes: 1,
    lanes: 1,
};

fn secret(text: &str) -> Secret {
    Secret::Passphrase(Zeroizing::new(text.as_bytes().to_vec()))
}

/// A repository in memory and the folders that were backed up into it.
struct Fixture {
    storage: Arc<dyn Storage>,
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let storage: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
        let options = InitOptions {
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
        };
        Repository::init_on(storage.as_ref(), &secret("one"), &options).unwrap();
        let folder = tempfile::tempdir().unwrap();
        Self { storage, folder }
    }

    /// Three snapshots of two sources with a change between, two slots, two configs, amendments.
    fn filled() -> Self {
        let fixture = Self::new();
        let (a, b) = (fixture.source("a"), fixture.source("b"));
        for number in 0..90 {
            let bytes = pseudorandom(number, 100 + usize::from(number) * 7);
            let file = a.join(format!("d{}/f{number}", number % 5));
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, bytes).unwrap();
        }
        fs::write(a.join("long"), pseudorandom(200, 200_000)).unwrap();
        fs::write(b.join("other"), pseudorandom(201, 5000)).unwrap();
        let repository = fixture.open().unwrap();
        fixture.back_up(&repository, &a);
        fixture.add_slot(&repository);
        fs::write(a.join("d1/f1"), pseudorandom(202, 3000)).unwrap();
        let mut long = pseudorandom(200, 200_000);
        long.extend(pseudorandom(203, 9000));
        fs::write(a.join("long"), long).unwrap();
        fixture.back_up(&repository, &a);
        fixture.back_up(&repository, &b);
        fixture.amend(&repository);
        fixture
    }

    fn source(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn open(&self) -> Result<Arc<Repository>> {
        self.open_on(Arc::clone(&self.storage))
    }

    fn open_on(&self, storage: Arc<dyn Storage>) -> Result<Arc<Repository>> {
        let options = OpenOptions {
            cache_dir: Some(self.folder.path().join("cache")),
            state_dir: None,
            threads: 1,
            cache: Cache::Memory,
            in_order: false,
        };
        Repository::open_on(storage, &secret("one"), &options)
    }

    fn back_up(&self, repository: &Arc<Repository>, source: &Path) {
        let options = backup_options(source);
        backup(repository, &options, &Silent, &Cancel::default()).unwrap();
    }

    fn add_slot(&self, repository: &Repository) {
        let keyring = repository.keyring();
        let (id, object) = make_slot(keyring, &secret("two"), false, "second", KDF).unwrap();
        crate::keys::put_slot(self.storage.as_ref(), &id, &object).unwrap();
        let mut config = repository.config();
        config.number += 1;
        config.slots.push(id);
        config.slots.sort_unstable();
        let object = config.seal(keyring, random::bytes().unwrap()).unwrap();
        let name = names::config(config.number);
        let object = Bytes::from(object);
        self.storage.create(&name, object.clone()).unwrap();
        crate::keys::put_config_twin(self.storage.as_ref(), config.number, &object);
        repository.set_config(config);
    }

    fn amend(&self, repository: &Repository) {
        let view = view::read_cells(repository, None).unwrap();
        let cell = *view.cells.keys().next().unwrap();
        for number in 1..=2 {
            let amendment = Amendment {
                cell,
                number,
                change: if number == 1 {
                    Change::Pin
                } else {
                    Change::Unpin
                },
                time: 1,
                host: String::new(),
                user: String::new(),
            };
            let object = seal_record(repository.keyring(), &amendment, [1; 16], &[2; 32]).unwrap();
            let name = names::amendment(&cell, number);
            self.storage.create(&name, Bytes::from(object)).unwrap();
        }
    }

    fn objects(&self) -> BTreeMap<String, Bytes> {
        let mut objects = BTreeMap::new();
        let list = self.storage.list("", &mut |object| {
            objects.insert(object.name, Bytes::new());
            Ok(())
        });
        list.unwrap();
        for (name, bytes) in &mut objects {
            *bytes = self.storage.get(name, u64::MAX).unwrap();
        }
        objects
    }

    fn check(&self, read_data: ReadData) -> Result<CheckReport> {
        let options = CheckOptions {
            read_data,
            records_suspects: false,
        };
        check(&self.open()?, &options, &Silent, &Cancel::default())
    }
}

fn backup_options(source: &Path) -> BackupOptions {
    BackupOptions {
        sources: vec![source.to_owned()],
        buckets: Default::default(),
        streams: Default::default(),
        selection: Selection::default(),
        host: "host".to_owned(),
        user: "user".to_owned(),
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
        checkpoints: CheckpointRhythm::every_seconds(1000),
        hooks: Default::default(),
        shard: None,
    }
}

fn pseudorandom(seed: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes
}

/// What becomes of an object.
#[derive(Debug, Clone)]
enum Harm {
    Change(&'static str, Bytes),
    Delete,
    /// It and another one take each other's place.
    Swap(String),
}

/// Gives every harm that is done to an object.
fn harms(name: &str, objects: &BTreeMap<String, Bytes>) -> Vec<Harm> {
    let bytes = &objects[name];
    let last = bytes.len() - 1;
    let is_pack = name.starts_with("packs/");
    let mut spots: BTreeSet<usize> = [0, 8, 9, 12, 20, 50, 64, 70, bytes.len() / 2].into();
    spots.extend([last - 40, last - 20, last - 14, last - 9, last]);
    if is_pack {
        // Blocks, padding, sealed directory and footer.
        spots.extend((64..bytes.len()).step_by(bytes.len() / 12));
        spots.extend((1..6).map(|step| last - step * 100));
    }
    let mut harms = Vec::new();
    for spot in spots {
        let mut flipped = bytes.to_vec();
        flipped[spot] ^= 0x10;
        harms.push(Harm::Change("flip", flipped.into()));
    }
    harms.push(Harm::Change("zero", vec![0; bytes.len()].into()));
    for length in [0, 63, bytes.len() / 2, last] {
        harms.push(Harm::Change("truncate", bytes.slice(..length)));
    }
    harms.push(Harm::Change(
        "extend",
        [bytes.as_ref(), &[7]].concat().into(),
    ));
    harms.push(Harm::Delete);
    let kind = |name: &str| (name.split('/').next().unwrap().to_owned(), objects[name][9]);
    // A twin has the bytes of another object.
    let others = || {
        objects
            .keys()
            .filter(|other| objects[*other] != objects[name])
    };
    let same = others().filter(|other| kind(other) == kind(name));
    harms.extend(same.cloned().map(Harm::Swap));
    let different = others().filter(|other| kind(other) != kind(name));
    harms.extend(different.step_by(5).cloned().map(Harm::Swap));
    harms
}

fn inflict(storage: &dyn Storage, name: &str, harm: &Harm, objects: &BTreeMap<String, Bytes>) {
    match harm {
        Harm::Change(_, bytes) => storage.put(name, bytes.clone()).unwrap(),
        Harm::Delete => storage.delete(name).unwrap(),
        Harm::Swap(other) => {
            storage.put(name, objects[other].clone()).unwrap();
            storage.put(other, objects[name].clone()).unwrap();
        }
    }
}

fn heal(storage: &dyn Storage, name: &str, harm: &Harm, objects: &BTreeMap<String, Bytes>) {
    storage.put(name, objects[name].clone()).unwrap();
    if let Harm::Swap(other) = harm {
        storage.put(other, objects[other].clone()).unwrap();
    }
}

/// Reads everything in every snapshot, as a restore would; gives what cannot be read.
fn suffering(repository: &Arc<Repository>) -> Suffering {
    let mut suffering = Suffering::default();
    let view = view::read(repository, true, None).unwrap();
    let mut reader = ChunkReader::new(repository).unwrap();
    for cell in view.snapshots() {
        let id = cell.id.snapshot_name();
        for source in &cell.sources {
            let root = Root {
                id: source.root,
                level: source.level,
                entries: source.entries,
                bytes: source.bytes,
            };
            let mut cursor = Cursor::new(ChunkReader::new(repository).unwrap(), &root);
            loop {
                match cursor.next_entry() {
                    Ok(Some(entry)) if !is_readable(repository, &mut reader, &entry) => {
                        let key = String::from_utf8(entry.key).unwrap();
                        let source = String::from_utf8(source.path.clone()).unwrap();
                        suffering.paths.insert(format!("{source}/{key}"));
                        suffering.snapshots.insert(id.clone());
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => {
                        suffering.has_lost_nodes = true;
                        suffering.snapshots.insert(id.clone());
                        break;
                    }
                }
            }
        }
    }
    suffering
}

#[derive(Debug, Default, PartialEq)]
struct Suffering {
    snapshots: BTreeSet<String>,
    paths: BTreeSet<String>,
    has_lost_nodes: bool,
}

fn is_readable(repository: &Arc<Repository>, reader: &mut ChunkReader, entry: &Entry) -> bool {
    let mut has = |chunk_type, id: &ChunkId| reader.read(chunk_type, id).is_ok();
    let mut has_all = |extents: &[Extent]| {
        extents.iter().all(|extent| match extent {
            Extent::Data { id, .. } => has(ChunkType::Data, id),
            Extent::Hole { .. } => true,
        })
    };
    let content = match &entry.content {
        Content::None => true,
        Content::Whole(id) => has_all(&[Extent::Data { id: *id, length: 1 }]),
        Content::Extents(extents) => has_all(extents),
        Content::List { root, level } => {
            let root = ListRoot {
                id: *root,
                level: *level,
                size: entry.size,
            };
            let nodes = ChunkReader::new(repository).unwrap();
            let list: Result<Vec<_>> = extents(nodes, &root)
                .map(|extent| extent.map(|(_, extent)| extent))
                .collect();
            list.is_ok_and(|list| has_all(&list))
        }
    };
    content
        && match &entry.attributes {
            Attributes::OutOfLine(id) => has(ChunkType::Value, id),
            _ => true,
        }
}

#[test]
fn a_whole_repository_has_no_findings() {
    let fixture = Fixture::filled();
    for read_data in [ReadData::No, ReadData::All, ReadData::Percent(50.0)] {
        let report = fixture.check(read_data).unwrap();
        assert!(report.findings.is_empty(), "{:#?}", report.findings);
        assert_eq!(report.snapshots, 3);
        assert_eq!(report.packs, 6);
        assert!(report.nodes > 6 && report.chunks > 200);
    }
    assert_eq!(fixture.check(ReadData::All).unwrap().packs_read, 6);
    assert_eq!(fixture.check(ReadData::No).unwrap().packs_read, 0);
    let parts = (1..=4).map(|part| fixture.check(ReadData::Part(part, 4)).unwrap().packs_read);
    assert_eq!(parts.sum::<u64>(), 6);
    assert!(fixture.check(ReadData::Part(5, 4)).is_err());
}

#[test]
fn every_damage_is_found_and_what_suffers_is_named() {
    let fixture = Fixture::filled();
    let objects = fixture.objects();
    let kinds: BTreeSet<u8> = objects.values().map(|bytes| bytes[9]).collect();
    assert_eq!(kinds, [1, 2, 3, 4, 5, 6, 7, 8, 9, 12].into());
    let (mut cases, mut costly) = (0, 0);
    for name in objects.keys() {
        for harm in harms(name, &objects) {
            let is_last_amendment = name.ends_with(".2") && matches!(harm, Harm::Delete);
            if is_last_amendment {
                continue;
            }
            inflict(fixture.storage.as_ref(), name, &harm, &objects);
            costly += usize::from(check_case(&fixture, name, &harm));
            heal(fixture.storage.as_ref(), name, &harm, &objects);
            cases += 1;
        }
    }
    assert!(cases > 600 && costly > 100, "{cases}, {costly}");
    assert!(fixture.check(ReadData::All).unwrap().findings.is_empty());
}

/// Checks one case; tells whether paths are lost.
fn check_case(fixture: &Fixture, name: &str, harm: &Harm) -> bool {
    let kind = match harm {
        Harm::Change(what, _) => (*what).to_owned(),
        other => format!("{other:?}"),
    };
    // What opens the repository has twins.
    let report = fixture.check(ReadData::All);
    let report = report.unwrap_or_else(|error| panic!("{kind} of {name}: {error}"));
    let is_named = |name: &str| report.findings.iter().any(|one| one.object == name);
    assert!(is_named(name), "{kind} of {name}: {:#?}", report.findings);
    if let Harm::Swap(other) = harm {
        assert!(is_named(other), "{kind} of {name}: {:#?}", report.findings);
    }
    let lost: Vec<_> = report
        .findings
        .iter()
        .filter(|one| one.severity == Severity::Loss)
        .collect();
    let mut expected = suffering(&fixture.open().unwrap());
    // The reader does not see snapshots whose own object is gone.
    let other = match harm {
        Harm::Swap(other) => other,
        _ => name,
    };
    for object in [name, other] {
        if let Some(Name::Cell(id)) = names::parse(object) {
            expected.snapshots.insert(id.snapshot_name());
        }
    }
    let snapshots: BTreeSet<_> = lost.iter().flat_map(|one| one.snapshots.clone()).collect();
    assert_eq!(snapshots, expected.snapshots, "{kind} of {name}");
    let paths: BTreeSet<_> = lost.iter().flat_map(|one| one.paths.clone()).collect();
    if expected.has_lost_nodes {
        assert!(!paths.is_empty(), "{kind} of {name}");
    } else {
        assert_eq!(paths, expected.paths, "{kind} of {name}");
    }
    !paths.is_empty()
}

#[test]
fn structure_finds_all_but_what_only_the_bytes_of_data_packs_show() {
    let fixture = Fixture::filled();
    let objects = fixture.objects();
    for (name, bytes) in &objects {
        let kind = bytes[9];
        let mut truncated = vec![0; bytes.len()];
        if kind == 3 {
            truncated.truncate(bytes.len() / 2);
        }
        fixture.storage.put(name, truncated.into()).unwrap();
        let report = fixture.check(ReadData::No).unwrap();
        let named = report.findings.iter().any(|one| one.object == *name);
        assert!(named, "{name}: {:#?}", report.findings);
        fixture.storage.put(name, bytes.clone()).unwrap();
    }
}

#[test]
fn a_backup_that_died_leaves_notes_alone() {
    let fixture = Fixture::filled();
    let objects = fixture.objects();
    let source = fixture.source("a");
    fs::write(source.join("late"), pseudorandom(204, 20_000)).unwrap();
    let mut noted = 0;
    for nth in 1.. {
        let faulty = Arc::new(Faulty::new(Arc::clone(&fixture.storage)));
        let repository = fixture
            .open_on(Arc::clone(&faulty) as Arc<dyn Storage>)
            .unwrap();
        faulty.inject(Fault {
            nth,
            operation: None,
            lasts: true,
            effect: Effect::Error(When::After, ErrorKind::Permanent),
        });
        let outcome = backup(
            &repository,
            &backup_options(&source),
            &Silent,
            &Cancel::default(),
        );
        drop(repository);
        let report = fixture.check(ReadData::All).unwrap();
        let notes = report
            .findings
            .iter()
            .filter(|one| one.severity == Severity::Note);
        assert_eq!(
            notes.count(),
            report.findings.len(),
            "{nth}: {:#?}",
            report.findings
        );
        noted += report.findings.len();
        for name in fixture
            .objects()
            .keys()
            .filter(|name| !objects.contains_key(*name))
        {
            fixture.storage.delete(name).unwrap();
        }
        if outcome.is_ok() {
            break;
        }
    }
    assert!(noted > 0);
}

#[test]
fn a_read_that_fails_once_is_no_damage() {
    let fixture = Fixture::filled();
    let faulty = Arc::new(Faulty::new(Arc::clone(&fixture.storage)));
    let repository = fixture
        .open_on(Arc::clone(&faulty) as Arc<dyn Storage>)
        .unwrap();
    let before = faulty.operations();
    let options = CheckOptions {
        read_data: ReadData::All,
        records_suspects: false,
    };
    let run = || check(&repository, &options, &Silent, &Cancel::default()).unwrap();
    run();
    let operations = faulty.operations() - before;
    for nth in 2..=operations {
        for effect in [
            Effect::Flip(77),
            Effect::Error(When::Before, ErrorKind::Transient),
        ] {
            faulty.inject(Fault {
                nth,
                operation: None,
                lasts: false,
                effect,
            });
            let findings = run().findings;
            assert!(findings.is_empty(), "{nth} {effect:?}: {findings:#?}");
            faulty.heal();
        }
    }
}

#[test]
fn a_loss_that_was_found_once_is_named_again_without_reading_all_data() {
    let fixture = Fixture::filled();
    let packs = fixture.objects();
    let packs = packs.iter().filter(|(name, _)| name.starts_with("packs/"));
    let (name, bytes) = packs.max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let mut damaged = bytes.to_vec();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fixture.storage.put(name, damaged.into()).unwrap();
    let run = |read_data, records_suspects| {
        let options = CheckOptions {
            read_data,
            records_suspects,
        };
        let repository = fixture.open().unwrap();
        check(&repository, &options, &Silent, &Cancel::default()).unwrap()
    };
    assert!(run(ReadData::No, true).findings.is_empty());
    let found = run(ReadData::All, true);
    assert_eq!(found.new_suspects, 1);
    assert!(
        found
            .findings
            .iter()
            .any(|one| one.severity == Severity::Loss)
    );
    let named = |report: &CheckReport| {
        let findings = report.findings.iter();
        let told =
            findings.map(|one| (one.object.clone(), one.snapshots.clone(), one.paths.clone()));
        told.collect::<Vec<_>>()
    };
    let again = run(ReadData::No, true);
    assert_eq!(named(&again), named(&found));
    assert_eq!(again.packs_read, 1);
}

#[test]
fn what_is_foreign_is_noted() {
    let fixture = Fixture::filled();
    fixture
        .storage
        .put("parity/00", Bytes::from_static(b"x"))
        .unwrap();
    let slot = format!("keys/{}", "0".repeat(32));
    fixture
        .storage
        .put(&slot, Bytes::from_static(b"x"))
        .unwrap();
    let findings = fixture.check(ReadData::No).unwrap().findings;
    let notes: Vec<_> = findings
        .iter()
        .map(|one| (one.severity, one.object.as_str()))
        .collect();
    let expected = [
        (Severity::Note, slot.as_str()),
        (Severity::Note, "parity/00"),
    ];
    assert_eq!(notes, expected);
}

#[test]
fn a_damaged_snapshot_costs_the_others_nothing() {
    let fixture = Fixture::filled();
    let repository = fixture.open().unwrap();
    let view = view::read_cells(&repository, None).unwrap();
    let first = view.cells.values().min_by_key(|cell| cell.started).unwrap();
    fixture.storage.delete(&names::cell(&first.id)).unwrap();
    let findings = fixture.check(ReadData::All).unwrap().findings;
    let lost: Vec<_> = findings
        .iter()
        .filter(|one| one.severity == Severity::Loss)
        .collect();
    assert_eq!(lost.len(), 1, "{findings:#?}");
    assert_eq!(lost[0].object, names::cell(&first.id));
    assert_eq!(lost[0].snapshots, [first.id.snapshot_name()]);
    for name in [names::session_end(&first.id), names::session(&first.id)] {
        fixture.storage.delete(&name).unwrap();
    }
    // Later snapshots still say that there was one.
    let findings = fixture.check(ReadData::No).unwrap().findings;
    assert!(
        findings
            .iter()
            .any(|one| one.object == names::cell(&first.id))
    );
}

#[test]
fn a_checkpoint_that_a_snapshot_replaced_costs_nothing() {
    let fixture = Fixture::filled();
    let source = fixture.source("a");
    fs::write(source.join("late"), pseudorandom(205, 20_000)).unwrap();
    let options = BackupOptions {
        checkpoints: CheckpointRhythm::every_entries(1),
        force: true,
        ..backup_options(&source)
    };
    let repository = fixture.open().unwrap();
    backup(&repository, &options, &Silent, &Cancel::default()).unwrap();
    let report = fixture.check(ReadData::All).unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    assert_eq!(report.snapshots, 4);
    let view = view::read_cells(&repository, None).unwrap();
    let partial = view.superseded();
    assert!(!partial.is_empty());
    for id in partial {
        fixture.storage.delete(&names::cell(&id)).unwrap();
    }
    let findings = fixture.check(ReadData::All).unwrap().findings;
    assert!(!findings.is_empty());
    let is_harmless = |one: &Finding| one.severity != Severity::Loss;
    assert!(findings.iter().all(is_harmless), "{findings:#?}");
    assert!(suffering(&fixture.open().unwrap()).snapshots.is_empty());
}
