use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};

use larder_format::bundle::start;
use larder_format::cell::Cell;
use larder_format::ids::encode_hex;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::*;
use crate::backup::backup;
use crate::mirror::{SyncOptions, sync};
use crate::progress::Silent;
use crate::prune::tests::world::{
    World, check_finds_nothing, noise, objects, options as prune_options, read_files, run,
};
use crate::rewrite::CopyReport;
use crate::snapshots::fixture;
use crate::storage::object::ObjectStorage;
use crate::view;

const COPIED_FROM: &str = "copied-from";

/// A repository, and room on the disk that goes with it.
struct Place {
    folder: tempfile::TempDir,
    storage: Arc<dyn Storage>,
}

impl Place {
    fn of(storage: &Arc<dyn Storage>) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            storage: Arc::clone(storage),
        }
    }

    fn empty() -> Self {
        let storage: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
        fixture::init(storage.as_ref());
        Self::of(&storage)
    }

    fn open(&self) -> Arc<Repository> {
        let options = OpenOptions {
            cache_dir: Some(self.folder.path().join("cache")),
            threads: 2,
            cache: Cache::Memory,
            ..OpenOptions::default()
        };
        Repository::open_on(Arc::clone(&self.storage), &secret(), &options).unwrap()
    }

    /// Exports everything under the password "secret".
    fn export(&self) -> Vec<u8> {
        let (bytes, report) = self.export_to(Vec::new()).unwrap();
        assert_eq!(report.bytes_written, bytes.len() as u64);
        bytes
    }

    fn export_to<W: Write + Send + 'static>(&self, out: W) -> Result<(W, ExportReport)> {
        let options = ExportOptions {
            author: prune_options().author,
            label: "a label".to_owned(),
            kdf: fixture::KDF,
        };
        let all = (&[][..], &Filter::default());
        let (out, secret) = (out, &secret());
        let each = &mut |_: &CopyReport| Ok(());
        let cancel = Cancel::default();
        export(
            &self.open(),
            all,
            (out, secret),
            &options,
            each,
            &Silent,
            &cancel,
        )
    }

    fn import(&self, incoming: Incoming) -> Result<Vec<CopyReport>> {
        let keys = incoming.unlock(&secret())?;
        let options = CopyOptions {
            author: prune_options().author,
            dry_run: false,
        };
        let mut reports = Vec::new();
        let each = &mut |report: &CopyReport| {
            reports.push(report.clone());
            Ok(())
        };
        let cancel = Cancel::default();
        let left = import(
            incoming,
            keys,
            &self.open(),
            &options,
            each,
            &Silent,
            &cancel,
        )?;
        assert_eq!(left, Vec::<String>::new());
        Ok(reports)
    }

    fn import_stream(&self, bytes: &[u8], piece: usize) -> Result<Vec<CopyReport>> {
        let input = Pieces {
            bytes: bytes.to_vec(),
            read: 0,
            piece,
            count: Arc::default(),
        };
        let spool = self.folder.path().join("spool");
        self.import(Incoming::of_stream(input, "the test's", &spool)?)
    }

    fn file(&self, bytes: &[u8]) -> std::path::PathBuf {
        let path = self.folder.path().join("bundle");
        fs::write(&path, bytes).unwrap();
        path
    }

    fn import_file(&self, bytes: &[u8]) -> Result<Vec<CopyReport>> {
        self.import(Incoming::of_file(&self.file(bytes))?)
    }

    /// Opens a bundle in place.
    fn open_bundle(&self, bytes: &[u8]) -> Result<Arc<Repository>> {
        let storage: Arc<dyn Storage> = Arc::new(BundleFile::of(&self.file(bytes))?);
        fixture::open_with(&storage, &secret())
    }
}

fn secret() -> Secret {
    fixture::passphrase("secret")
}

/// A pipe that gives a few bytes at a time, and tells how many were taken.
struct Pieces {
    bytes: Vec<u8>,
    read: usize,
    piece: usize,
    count: Arc<AtomicUsize>,
}

impl Read for Pieces {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let length = room.len().min(self.piece).min(self.bytes.len() - self.read);
        room[..length].copy_from_slice(&self.bytes[self.read..self.read + length]);
        self.read += length;
        self.count.fetch_add(length, Ordering::Relaxed);
        Ok(length)
    }
}

/// A bundle of one small snapshot, and where its objects' frames begin; the last one is its record's.
fn small() -> (Vec<u8>, Vec<usize>) {
    let mut world = World::new();
    world.write("a", &noise(7, 900));
    world.write("b", b"short");
    world.back_up();
    let bytes = Place::of(&world.storage).export();
    let frames = frames_of(&bytes);
    (bytes, frames)
}

fn frames_of(bytes: &[u8]) -> Vec<usize> {
    let mut frames = Frames::new();
    let mut begins = Vec::new();
    while frames.end().is_none() {
        let at = usize::try_from(frames.position()).unwrap();
        let size = larder_format::bundle::head_bytes(bytes[at]).unwrap();
        begins.push(at);
        frames.read(&bytes[at..at + size]).unwrap();
    }
    assert_eq!(frames.position(), bytes.len() as u64);
    begins
}

/// What every snapshot of a repository holds, by the id of what it was copied from.
fn contents(repository: &Arc<Repository>) -> BTreeMap<String, (Cell, BTreeMap<String, Vec<u8>>)> {
    let view = view::read(repository, false, None).unwrap();
    let mut found = BTreeMap::new();
    for cell in view.snapshots() {
        let from = cell.options.get(COPIED_FROM).cloned().unwrap_or_default();
        let files = read_files(repository, cell);
        assert!(found.insert(from, (cell.clone(), files)).is_none());
    }
    found
}

fn assert_holds(world: &World, repository: &Arc<Repository>) {
    let found = contents(repository);
    let id = world.open().config().repository.to_hex();
    assert_eq!(found.len(), world.live().len());
    for session in world.live() {
        let (cell, files) = &found[&format!("{id}/{}", encode_hex(&session.0))];
        assert!(files == world.truth(&session));
        assert_eq!(cell.host, "desk");
    }
}

#[test]
fn what_is_exported_is_read_in_place_and_imported_whole_and_once() {
    let mut world = World::filled();
    // What two snapshots need is in the bundle once.
    world.write("long", &noise(9, 100_000));
    world.back_up();
    world.write("more", &noise(10, 3000));
    world.back_up();
    let source = Place::of(&world.storage);
    let bytes = source.export();
    let place = Place::empty();
    assert!(bytes.len() < 300_000, "{}", bytes.len());
    let bundle = place.open_bundle(&bytes).unwrap();
    assert_holds(&world, &bundle);
    let file: Arc<dyn Storage> = Arc::new(BundleFile::of(&place.file(&bytes)).unwrap());
    check_finds_nothing(&file);
    assert_eq!(bundle.config().slots.len(), 1);
    assert_ne!(
        bundle.config().repository,
        source.open().config().repository
    );
    for piece in [1, 4096, usize::MAX] {
        let target = Place::empty();
        let reports = target.import_stream(&bytes, piece).unwrap();
        assert_eq!(reports.len(), world.live().len());
        assert_holds(&world, &target.open());
        check_finds_nothing(&target.storage);
        let before = objects(target.storage.as_ref());
        for reports in [
            target.import_file(&bytes).unwrap(),
            target.import_stream(&source.export(), 700).unwrap(),
        ] {
            assert!(reports.iter().all(|report| report.existed));
        }
        assert!(objects(target.storage.as_ref()) == before);
    }
    // Nor does anything come back doubled to where it came from.
    let reports = source.import_file(&bytes).unwrap();
    assert!(reports.iter().all(|report| report.existed));
    let target = Place::empty();
    target.import_file(&bytes).unwrap();
    assert_holds(&world, &target.open());
    assert_no_remains(&target);
}

/// Nothing is left beside the repository's own cache and the bundle.
fn assert_no_remains(place: &Place) {
    for entry in fs::read_dir(place.folder.path()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        match name.as_str() {
            "bundle" => {}
            "cache" => {
                for own in fs::read_dir(entry.path()).unwrap() {
                    let left = fs::read_dir(own.unwrap().path()).unwrap();
                    let left: Vec<_> = left.map(|one| one.unwrap().file_name()).collect();
                    assert_eq!(left, Vec::<std::ffi::OsString>::new());
                }
            }
            "spool" => assert_eq!(fs::read_dir(entry.path()).unwrap().count(), 0),
            other => panic!("{other} was left"),
        }
    }
}

#[test]
fn objects_stand_in_the_order_that_lets_a_password_be_proved_first() {
    let (bytes, begins) = small();
    let names: Vec<_> = begins
        .iter()
        .map(|at| {
            let size = larder_format::bundle::head_bytes(bytes[*at]).unwrap();
            Head::decode(&bytes[*at..*at + size]).unwrap().name
        })
        .collect();
    assert_eq!(names[0], Some(Name::Config(1)));
    assert!(matches!(names[1], Some(Name::Slot(_))));
    assert_eq!(names.last(), Some(&None));
    // A cell comes after the packs and segments that it needs.
    let position = |is: fn(&Name) -> bool| names.iter().flatten().position(is).unwrap();
    let cell = position(|name| matches!(name, Name::Cell(_)));
    assert!(position(|name| matches!(name, Name::Pack(_))) < cell);
    assert!(position(|name| matches!(name, Name::Segment(_))) < cell);
    // A wrong password is refused before anything else is read.
    let count = Arc::new(AtomicUsize::new(0));
    let input = Pieces {
        bytes: bytes.clone(),
        read: 0,
        piece: 5,
        count: Arc::clone(&count),
    };
    let spool = tempfile::tempdir().unwrap();
    let incoming = Incoming::of_stream(input, "it", spool.path()).unwrap();
    assert!(incoming.is_stream());
    let refused = incoming.unlock(&fixture::passphrase("else"));
    assert!(matches!(
        refused,
        Err(EngineError::WrongSecret { slots: 1, .. })
    ));
    assert!(incoming.unlock(&secret()).is_ok());
    assert_eq!(count.load(Ordering::Relaxed), begins[2]);
}

#[test]
fn a_bundle_cut_off_anywhere_is_refused_and_nothing_is_changed() {
    let (bytes, begins) = small();
    let target = Place::empty();
    let before = objects(target.storage.as_ref());
    for length in 0..bytes.len() {
        let is_near = begins.iter().any(|begin| begin.abs_diff(length) < 2);
        if !is_near && length % 13 != 0 {
            continue;
        }
        let refused = target.import_stream(&bytes[..length], usize::MAX);
        let error = refused.unwrap_err();
        assert!(
            matches!(error, EngineError::Bundle { .. }),
            "{length}: {error}"
        );
        if is_near || length % 5 == 0 {
            let error = target.import_file(&bytes[..length]).unwrap_err();
            assert!(
                matches!(error, EngineError::Bundle { .. }),
                "{length}: {error}"
            );
            assert!(target.open_bundle(&bytes[..length]).is_err());
        }
    }
    assert!(objects(target.storage.as_ref()) == before);
}

#[test]
fn a_flipped_bit_anywhere_is_refused_and_nothing_is_changed() {
    let (bytes, begins) = small();
    let target = Place::empty();
    let before = objects(target.storage.as_ref());
    let is_head = |at: usize| {
        begins
            .iter()
            .any(|begin| (*begin..*begin + 90).contains(&at))
    };
    for at in 0..bytes.len() {
        if !is_head(at) && at % 17 != 0 {
            continue;
        }
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let error = target.import_stream(&flipped, usize::MAX).unwrap_err();
        assert!(matches!(error, EngineError::Bundle { .. }), "{at}: {error}");
        if at % 11 == 0 {
            let error = target.import_file(&flipped).unwrap_err();
            assert!(matches!(error, EngineError::Bundle { .. }), "{at}: {error}");
        }
    }
    assert!(objects(target.storage.as_ref()) == before);
}

#[test]
fn frames_left_out_doubled_moved_or_put_in_are_refused() {
    let (bytes, begins) = small();
    let target = Place::empty();
    let before = objects(target.storage.as_ref());
    let ends = begins.iter().skip(1).copied().chain([bytes.len()]);
    let frames: Vec<&[u8]> = begins
        .iter()
        .zip(ends)
        .map(|(begin, end)| &bytes[*begin..end])
        .collect();
    let refused = |frames: &[&[u8]], what: &str| {
        let bytes = [&start()[..], &frames.concat()].concat();
        for result in [
            target.import_stream(&bytes, 9000),
            target.import_file(&bytes),
        ] {
            let error = result.unwrap_err();
            assert!(
                matches!(error, EngineError::Bundle { .. }),
                "{what}: {error}"
            );
        }
        assert!(target.open_bundle(&bytes).is_err(), "{what}");
    };
    for one in 0..frames.len() {
        let mut without = frames.clone();
        without.remove(one);
        refused(&without, &format!("without {one}"));
        let mut doubled = frames.clone();
        doubled.insert(one, frames[one]);
        refused(&doubled, &format!("{one} twice"));
        for other in 0..one {
            let mut moved = frames.clone();
            moved.swap(one, other);
            refused(&moved, &format!("{one} and {other} exchanged"));
        }
        let mut appended = frames.clone();
        appended.push(frames[one]);
        refused(&appended, &format!("{one} after the end"));
    }
    // Objects of another bundle under other keys, and its record.
    let (foreign, foreign_begins) = small();
    for one in 2..frames.len().min(foreign_begins.len()) {
        let end = foreign_begins
            .get(one + 1)
            .copied()
            .unwrap_or(foreign.len());
        let mut mixed = frames.clone();
        mixed.insert(one, &foreign[foreign_begins[one]..end]);
        refused(&mixed, &format!("foreign {one}"));
        mixed.remove(one + 1);
        refused(&mixed, &format!("foreign {one} in place"));
    }
    for tail in [&b"\0"[..], b"more", &start()] {
        let appended = [bytes.as_slice(), tail].concat();
        assert!(target.import_stream(&appended, 9000).is_err());
        assert!(target.import_file(&appended).is_err());
    }
    assert!(objects(target.storage.as_ref()) == before);
}

/// Takes what a failing disk or a reader that went away does to a stream.
struct Failing {
    left: usize,
    kind: io::ErrorKind,
    /// Whether what was written can be flushed.
    ends_well: bool,
}

impl Write for Failing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match bytes.len().min(self.left) {
            0 if !bytes.is_empty() => Err(self.kind.into()),
            length => {
                self.left -= length;
                Ok(length)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.ends_well {
            true => Ok(()),
            false => Err(self.kind.into()),
        }
    }
}

#[test]
fn an_export_that_cannot_be_written_fails_wherever_that_is() {
    let mut world = World::new();
    world.write("a", &noise(7, 900));
    world.back_up();
    let source = Place::of(&world.storage);
    let length = source.export().len();
    for left in (0..length / 2).step_by(length / 16) {
        for kind in [
            io::ErrorKind::StorageFull,
            io::ErrorKind::BrokenPipe,
            // Which looks as if it could be tried again.
            io::ErrorKind::TimedOut,
        ] {
            let failed = source.export_to(Failing {
                left,
                kind,
                ends_well: true,
            });
            let error = failed.map(|_| ()).unwrap_err();
            assert!(matches!(error, EngineError::Storage(_)), "{left}: {error}");
        }
    }
    for ends_well in [true, false] {
        let written = source.export_to(Failing {
            left: usize::MAX,
            kind: io::ErrorKind::StorageFull,
            ends_well,
        });
        assert_eq!(written.is_ok(), ends_well);
    }
}

#[test]
fn a_snapshot_that_cannot_be_read_ends_an_export_and_is_named() {
    let mut world = World::new();
    world.write("rotten", &noise(141, 5000));
    let id = world.back_up();
    for (name, bytes) in objects(world.storage.as_ref()) {
        if name.starts_with("packs/") {
            let zeros = vec![0; bytes.len()];
            world.storage.put(&name, zeros.into()).unwrap();
        }
    }
    let failed = Place::of(&world.storage).export_to(Vec::new());
    let error = failed.map(|_| ()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, EngineError::Damaged { .. }), "{text}");
    assert!(text.contains(&id.snapshot_name()), "{text}");
    let nothing = Place::empty().export_to(Vec::new());
    let error = nothing.map(|_| ()).unwrap_err();
    assert!(matches!(error, EngineError::NotFound(_)), "{error}");
}

#[test]
fn a_bundle_takes_no_writes_and_has_no_mirror() {
    let (bytes, _) = small();
    let place = Place::empty();
    let bundle = place.open_bundle(&bytes).unwrap();
    let refused = |result: Result<()>| {
        let text = result.unwrap_err().to_string();
        assert!(text.contains("larder import"), "{text}");
    };
    refused(bundle.check_write());
    let source = tempfile::tempdir().unwrap();
    let options = fixture::options(&[source.path()]);
    refused(backup(&bundle, &options, &Silent, &Cancel::default()).map(|_| ()));
    let file: Arc<dyn Storage> = Arc::new(BundleFile::of(&place.file(&bytes)).unwrap());
    refused(run(&file, &prune_options()).map(|_| ()));
    let mirror: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
    let plain = SyncOptions::default();
    let cancel = Cancel::default();
    refused(sync(&file, &mirror, source.path(), plain, &Silent, &cancel).map(|_| ()));
    assert!(objects(mirror.as_ref()).is_empty());
    let name = names::config(1);
    assert!(file.put(&name, Bytes::new()).is_err());
    assert!(file.create("index/x", Bytes::new()).is_err());
    assert!(file.delete(&name).is_err());
    assert!(fs::read(place.file(&bytes)).unwrap() == bytes);
}

#[test]
fn ranges_sizes_and_folders_of_a_bundle_are_those_of_any_storage() {
    let (bytes, _) = small();
    let place = Place::empty();
    let file = BundleFile::of(&place.file(&bytes)).unwrap();
    let all = objects(&file);
    assert!(!all.contains_key(RECORD_NAME));
    for (name, object) in &all {
        let length = object.len() as u64;
        assert_eq!(file.size(name).unwrap(), length);
        assert!(file.get_range(name, 3, length - 5).unwrap() == object.slice(3..object.len() - 2));
        for (offset, length) in [(0, length + 1), (length, 1), (u64::MAX, 1), (1, u64::MAX)] {
            let error = file.get_range(name, offset, length).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Truncated);
        }
        assert_eq!(
            file.get(name, length - 1).unwrap_err().kind,
            ErrorKind::Oversized
        );
        // Below its folder, and the folder below that.
        for (at, _) in name.match_indices('/') {
            for folder in [&name[..at], &name[..=at]] {
                let mut listed = Vec::new();
                let mut visit = |object: ObjectInfo| {
                    listed.push(object.name);
                    Ok(())
                };
                file.list(folder, &mut visit).unwrap();
                let whole = format!("{}/", folder.trim_end_matches('/'));
                let mut expected: Vec<_> = all
                    .keys()
                    .filter(|name| name.starts_with(&whole))
                    .cloned()
                    .collect();
                listed.sort();
                expected.sort();
                assert_eq!(listed, expected, "{folder}");
            }
        }
    }
    assert_eq!(file.get("gc/1", 9).unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(file.size("x").unwrap_err().kind, ErrorKind::NotFound);
}

#[test]
fn what_is_no_bundle_is_said_to_be_none() {
    let place = Place::empty();
    let refused = |bytes: &[u8], expected: &str| {
        for result in [place.import_file(bytes), place.import_stream(bytes, 9)] {
            let text = result.unwrap_err().to_string();
            assert!(text.contains(expected), "{text}");
        }
    };
    refused(b"", "does not begin as a bundle");
    refused(b"short", "does not begin as a bundle");
    refused(&noise(1, 5000), "does not begin as a bundle");
    refused(&start(), "cut off");
    let mut newer = small().0;
    newer[8] = 2;
    refused(&newer, "version 2");
    let missing = Incoming::of_file(&place.folder.path().join("nowhere"));
    assert!(matches!(missing, Err(EngineError::NoRepository { .. })));
    let folder = Incoming::of_file(place.folder.path());
    assert!(matches!(folder, Err(EngineError::Request(_))));
    // Where nothing can be put aside, that is said.
    let taken = place.file(b"taken");
    let error = Incoming::of_stream(io::empty(), "it", &taken)
        .err()
        .unwrap();
    assert!(error.to_string().contains("--cache-dir"), "{error}");
}

/// What is done to the bytes of a bundle.
#[derive(Debug, Clone)]
enum Edit {
    Set(prop::sample::Index, u8),
    Remove(prop::sample::Index, usize),
    Insert(prop::sample::Index, Vec<u8>),
    Repeat(prop::sample::Index, usize),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let at = any::<prop::sample::Index>;
    let edit = prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        (at(), 1_usize..300).prop_map(|(at, length)| Edit::Remove(at, length)),
        (at(), prop::collection::vec(any::<u8>(), 1..40))
            .prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        (at(), 1_usize..5000).prop_map(|(at, length)| Edit::Repeat(at, length)),
    ];
    prop::collection::vec(edit, 1..4)
}

fn edited(bytes: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for edit in edits {
        if bytes.is_empty() {
            break;
        }
        match edit {
            Edit::Set(at, byte) => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Edit::Remove(at, length) => {
                let at = at.index(bytes.len());
                let end = (at + length).min(bytes.len());
                bytes.drain(at..end);
            }
            Edit::Insert(at, more) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
            Edit::Repeat(at, length) => {
                let at = at.index(bytes.len());
                let end = (at + length).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
    bytes
}

#[test]
fn no_edit_of_a_bundle_passes() {
    let (bytes, _) = small();
    let target = Place::empty();
    let before = objects(target.storage.as_ref());
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = edits();
    for _ in 0..300 {
        let edits = strategy.new_tree(&mut runner).unwrap().current();
        let edited = edited(&bytes, &edits);
        if edited == bytes {
            continue;
        }
        for result in [
            target.import_stream(&edited, 3000),
            target.import_file(&edited),
        ] {
            let error = result.unwrap_err();
            assert!(
                matches!(error, EngineError::Bundle { .. }),
                "{edits:?}: {error}"
            );
        }
    }
    assert!(objects(target.storage.as_ref()) == before);
}
