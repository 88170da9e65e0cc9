//! Buckets as sources, against a bucket in memory and a plain map of what it held.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use larder_format::attributes::decode_properties;
use larder_format::cell::{Cell, CellKind};
use larder_format::entry::{Attributes, Entry, EntryType};
use larder_format::ids::ChunkType;
use larder_format::tree::build::Root;
use larder_format::tree::read::Cursor;

use super::super::*;
use crate::browse::Contents;
use crate::chunks::ChunkReader;
use crate::progress::Silent;
use crate::restore::{BucketRestoreOptions, Overwrite, RestoreReport, restore_into_bucket};
use crate::snapshots::Filter;
use crate::snapshots::fixture::{back_up, init, open, options};
use crate::storage::Storage;
use crate::storage::bucket::Properties;
use crate::storage::bucket::memory::{Counts, Held, MemoryBucket, Wrong};
use crate::storage::bucket::thawing::Thawing;
use crate::storage::object::ObjectStorage;
use crate::storage::thaw::{Thaw, Tier};

/// Objects of a page: few, so that listings have many pages.
const PAGE: usize = 7;
/// Keys that file systems, URLs or careless programs would change.
const HURTFUL: [&[u8]; 14] = [
    b"",
    b".",
    b"..",
    b"../x",
    b"/",
    b"//",
    b"/a",
    b"a",
    b"a/",
    b"a/b",
    b"a//b",
    b"a/./b",
    b"\xc3\xbc \x01%2F+",
    b"\xff\xfe",
];

pub(super) struct World {
    pub(super) bucket: Arc<MemoryBucket>,
    pub(super) repository: Arc<Repository>,
}

impl World {
    pub(super) fn new() -> Self {
        let storage: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
        init(storage.as_ref());
        Self {
            bucket: Arc::new(MemoryBucket::new(PAGE)),
            repository: open(&storage),
        }
    }

    pub(super) fn put(&self, key: &[u8], bytes: &[u8]) {
        let properties = Properties::from([(b"content-type".to_vec(), b"text/plain".to_vec())]);
        let bytes = Bytes::copy_from_slice(bytes);
        self.bucket.put(key, bytes, &properties).unwrap();
    }

    pub(super) fn options(&self) -> BackupOptions {
        let bucket: Arc<dyn Bucket> = Arc::clone(&self.bucket) as _;
        BackupOptions {
            buckets: Buckets {
                sources: vec![bucket],
                ..Buckets::default()
            },
            ..options(&[])
        }
    }

    /// Backs up, and gives what the bucket was asked for it.
    pub(super) fn back_up(&self) -> (BackupReport, Counts) {
        let _ = self.bucket.take_counts();
        let report = back_up(&self.repository, &self.options());
        (report, self.bucket.take_counts())
    }

    pub(super) fn fails(&self, options: &BackupOptions) -> String {
        let failed = backup(&self.repository, options, &Silent, &Cancel::default());
        failed.unwrap_err().to_string()
    }

    pub(super) fn cells(&self) -> Vec<Cell> {
        let view = view::read(&self.repository, false, None).unwrap();
        let cells = view.cells.into_values();
        let mut cells: Vec<Cell> = cells
            .filter(|cell| cell.kind == CellKind::Complete)
            .collect();
        cells.sort_by_key(|cell| cell.ended);
        cells
    }

    pub(super) fn newest(&self) -> BTreeMap<Vec<u8>, (Entry, Vec<u8>)> {
        stored(&self.repository, self.cells().last().unwrap())
    }
}

/// Gives every object of a snapshot with its bytes.
pub(super) fn stored(
    repository: &Arc<Repository>,
    cell: &Cell,
) -> BTreeMap<Vec<u8>, (Entry, Vec<u8>)> {
    let source = &cell.sources[0];
    assert_eq!(source.path, b"s3://memory/bucket");
    let root = Root {
        id: source.root,
        level: source.level,
        entries: source.entries,
        bytes: source.bytes,
    };
    let mut contents = Contents::new(repository).unwrap();
    let cursor = Cursor::new(ChunkReader::new(repository).unwrap(), &root);
    let entries = cursor.map(|entry| {
        let entry = entry.unwrap();
        let mut bytes = Vec::new();
        if !entry.flags.unreadable {
            contents.content(&entry, b"", &mut bytes).unwrap();
        }
        (entry.key.clone(), (entry, bytes))
    });
    entries.collect()
}

pub(super) fn properties(repository: &Arc<Repository>, entry: &Entry) -> Properties {
    let record = match &entry.attributes {
        Attributes::None => return Properties::new(),
        Attributes::Inline(record) => record.clone(),
        Attributes::OutOfLine(id) => {
            let mut reader = ChunkReader::new(repository).unwrap();
            reader.read(ChunkType::Value, id).unwrap().to_vec()
        }
    };
    let pairs = decode_properties(&record).unwrap();
    pairs
        .into_iter()
        .map(|pair| (pair.name, pair.value))
        .collect()
}

/// Holds a snapshot against what the bucket held.
fn assert_holds(world: &World, cell: &Cell, expected: &BTreeMap<Vec<u8>, Held>) {
    let found = stored(&world.repository, cell);
    let keys = |map: Vec<&Vec<u8>>| map.into_iter().cloned().collect::<Vec<_>>();
    assert_eq!(
        keys(found.keys().collect()),
        keys(expected.keys().collect())
    );
    for (key, held) in expected {
        let (entry, bytes) = &found[key];
        assert_eq!(entry.kind, EntryType::Object);
        assert_eq!(bytes, &held.bytes, "{key:?}");
        assert_eq!(entry.etag, held.etag.as_bytes());
        assert_eq!(entry.class, held.class.as_bytes());
        assert_eq!(entry.mtime.seconds, held.modified.as_second());
        assert_eq!(properties(&world.repository, entry), held.properties);
    }
}

#[test]
fn an_unchanged_bucket_costs_its_listing_alone() {
    let world = World::new();
    for number in 0..100 {
        world.put(format!("k{number:03}").as_bytes(), &[7; 300]);
    }
    let (first, counts) = world.back_up();
    assert_eq!((first.statistics.files, first.statistics.new), (100, 100));
    assert_eq!((counts.pages, counts.gets), (15, 100));
    let (second, counts) = world.back_up();
    assert!(second.unchanged);
    assert_eq!(
        (second.statistics.unchanged, second.statistics.bytes_read),
        (100, 0)
    );
    assert_eq!((counts.pages, counts.gets), (15, 0));
    // All of it is read when that is asked for.
    let forced = BackupOptions {
        force: true,
        ..world.options()
    };
    assert!(back_up(&world.repository, &forced).unchanged);
    assert_eq!(world.bucket.take_counts().gets, 100);
}

#[test]
fn hurtful_keys_are_kept_as_they_are() {
    let world = World::new();
    for (number, key) in HURTFUL.iter().enumerate() {
        world.put(key, format!("object {number}").as_bytes());
    }
    world.put(&[b'k'; 4000], b"long");
    world.back_up();
    assert_holds(&world, &world.cells()[0], &world.bucket.objects());
    let (again, counts) = world.back_up();
    assert!(again.unchanged && counts.gets == 0);
}

/// A small deterministic generator (splitmix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    pub(super) fn key(&mut self) -> Vec<u8> {
        if self.below(4) == 0 {
            return HURTFUL[self.below(HURTFUL.len() as u64) as usize].to_vec();
        }
        format!("d{}/o{}", self.below(4), self.below(30)).into_bytes()
    }

    pub(super) fn bytes(&mut self) -> Vec<u8> {
        let length = [0, 1, 100, 3000][self.below(4) as usize];
        let seed = self.below(1 << 40);
        let mut bytes = vec![0; length];
        blake3::Hasher::new()
            .update(&seed.to_le_bytes())
            .finalize_xof()
            .fill(&mut bytes);
        bytes
    }
}

/// Does something to a bucket; gives the keys whose objects have to be read because of it.
pub(super) fn step(world: &World, random: &mut Random) -> Vec<Vec<u8>> {
    let objects = world.bucket.objects();
    let any = |random: &mut Random| {
        let at = random.below(objects.len().max(1) as u64) as usize;
        objects.keys().nth(at).cloned()
    };
    match (random.below(7), any(random)) {
        (0, Some(key)) => {
            world.bucket.delete(&key).unwrap();
            Vec::new()
        }
        (1, Some(key)) => {
            // A rename: the same object under another key.
            let held = &objects[&key];
            let new = random.key();
            world.bucket.delete(&key).unwrap();
            world
                .bucket
                .put(&new, held.bytes.clone(), &held.properties)
                .unwrap();
            vec![new]
        }
        (2, Some(key)) => {
            // New metadata, the same bytes.
            let mut properties = objects[&key].properties.clone();
            properties.insert(
                b"meta/step".to_vec(),
                random.below(100).to_string().into_bytes(),
            );
            let long = "x".repeat(random.below(2000) as usize);
            properties.insert(b"meta/long".to_vec(), long.into_bytes());
            world
                .bucket
                .put(&key, objects[&key].bytes.clone(), &properties)
                .unwrap();
            vec![key]
        }
        (3, Some(key)) => {
            // Other bytes of the same size at the same time.
            let old = &objects[&key];
            let other: Vec<u8> = old.bytes.iter().map(|byte| !byte).collect();
            world
                .bucket
                .put(&key, other.into(), &old.properties)
                .unwrap();
            world.bucket.change(|objects| {
                objects.get_mut(&key).unwrap().modified = old.modified;
            });
            vec![key]
        }
        (4, Some(key)) => {
            // Another class: the listing says all of it.
            world.bucket.change(|objects| {
                objects.get_mut(&key).unwrap().class = "STANDARD_IA".to_owned();
            });
            Vec::new()
        }
        _ => {
            let key = random.key();
            world.put(&key, &random.bytes());
            vec![key]
        }
    }
}

#[test]
fn every_snapshot_holds_what_the_bucket_held() {
    for seed in 0..8 {
        let world = World::new();
        let mut random = Random(seed);
        let mut history = Vec::new();
        for _ in 0..30 {
            world.put(&random.key(), &random.bytes());
        }
        for round in 0..12 {
            let mut touched: Vec<Vec<u8>> = Vec::new();
            for _ in 0..random.below(6) {
                touched.extend(step(&world, &mut random));
            }
            let objects = world.bucket.objects();
            touched.retain(|key| objects.contains_key(key));
            touched.sort();
            touched.dedup();
            let mut options = world.options();
            options.buckets.allow_vanished_percent = 100;
            let _ = world.bucket.take_counts();
            back_up(&world.repository, &options);
            let gets = world.bucket.take_counts().gets;
            if round > 0 {
                assert_eq!(gets, touched.len() as u64, "seed {seed}, round {round}");
            }
            history.push(objects);
        }
        let cells = world.cells();
        assert_eq!(cells.len(), history.len());
        for (cell, objects) in cells.iter().zip(&history) {
            assert_holds(&world, cell, objects);
        }
    }
}

/// Restores a snapshot into a bucket.
fn restore_into(
    world: &World,
    cell: &Cell,
    target: &Arc<MemoryBucket>,
    change: impl FnOnce(&mut BucketRestoreOptions),
) -> RestoreReport {
    let bucket: Arc<dyn Bucket> = Arc::clone(target) as _;
    let mut options = BucketRestoreOptions {
        bucket,
        overwrite: Overwrite::Always,
        delete: false,
        sort_listing: false,
        dry_run: false,
    };
    change(&mut options);
    let all = snapshots::list(&world.repository, &Filter::default(), false).unwrap();
    let info = all.iter().find(|info| info.session == cell.id).unwrap();
    let path = Some(&b"s3://memory/bucket"[..]);
    let cancel = Cancel::default();
    restore_into_bucket(&world.repository, info, path, &options, &Silent, &cancel).unwrap()
}

#[test]
fn every_snapshot_comes_back_into_a_bucket_as_it_was() {
    let world = World::new();
    let mut random = Random(77);
    let mut history = Vec::new();
    for key in HURTFUL {
        world.put(key, &random.bytes());
    }
    for _ in 0..4 {
        for _ in 0..8 {
            step(&world, &mut random);
        }
        let mut options = world.options();
        options.buckets.allow_vanished_percent = 100;
        back_up(&world.repository, &options);
        history.push(world.bucket.objects());
    }
    // One target goes through all of them: what a snapshot does not have is removed.
    let target = Arc::new(MemoryBucket::new(PAGE));
    let content = |objects: &BTreeMap<Vec<u8>, Held>| -> Vec<_> {
        let objects = objects.iter();
        objects
            .map(|(key, held)| (key.clone(), held.bytes.clone(), held.properties.clone()))
            .collect()
    };
    for (cell, expected) in world.cells().iter().zip(&history) {
        let before = content(&target.objects());
        let dry = restore_into(&world, cell, &target, |options| {
            options.delete = true;
            options.dry_run = true;
        });
        assert!(content(&target.objects()) == before);
        let report = restore_into(&world, cell, &target, |options| options.delete = true);
        assert_eq!((report.failed, report.files), (0, expected.len() as u64));
        assert_eq!((dry.files, dry.deleted), (report.files, report.deleted));
        assert!(content(&target.objects()) == content(expected));
    }
    // Nothing is written that is right by size and ETag, and nothing at all that is to be kept.
    let cells = world.cells();
    let last = cells.last().unwrap();
    let newest = history.last().unwrap();
    target.change(|objects| {
        for (key, held) in objects.iter_mut() {
            held.etag = newest[key].etag.clone();
        }
        objects.remove(&b"a"[..]);
        if let Some(held) = objects.get_mut(&b"a/"[..]) {
            held.etag = "other".to_owned();
        }
    });
    let missing = u64::from(newest.contains_key(&b"a"[..]));
    let other = u64::from(newest.contains_key(&b"a/"[..]));
    let _ = target.take_counts();
    let kept = restore_into(&world, last, &target, |options| {
        options.overwrite = Overwrite::Never;
        options.dry_run = true;
    });
    assert_eq!(kept.files, missing);
    let report = restore_into(&world, last, &target, |options| {
        options.overwrite = Overwrite::IfChanged;
    });
    assert_eq!(report.files, missing + other);
    assert_eq!(report.unchanged, newest.len() as u64 - missing - other);
    assert_eq!(target.take_counts().puts, missing + other);
}

#[test]
fn a_listing_that_cannot_be_relied_on_makes_no_snapshot() {
    let world = World::new();
    for number in 0..40 {
        world.put(format!("k{number:02}").as_bytes(), b"x");
    }
    world.back_up();
    let wrongs = [
        Wrong::Fails,
        Wrong::Repeats,
        Wrong::IsUnsorted,
        Wrong::HasOneTwice,
        Wrong::GoesBack,
    ];
    for wrong in wrongs {
        for at in 0..5 {
            if at == 0 && wrong == Wrong::Repeats {
                // The first page is asked for by nothing, so nothing leads back to it.
                continue;
            }
            world.bucket.go_wrong(Some((at, wrong)));
            let told = world.fails(&world.options());
            assert!(!told.is_empty(), "{wrong:?} at {at}");
            assert_eq!(world.cells().len(), 1, "{wrong:?} at {at}: {told}");
        }
    }
    world.bucket.go_wrong(None);
    assert!(world.back_up().0.unchanged);
}

#[test]
fn a_large_bucket_is_listed_in_several_places_at_once() {
    let world = World::new();
    for number in 0..2000 {
        world.put(format!("d{}/o{number:04}", number % 7).as_bytes(), b"x");
    }
    world.back_up();
    let mut options = world.options();
    options.buckets.range_keys = 100;
    let _ = world.bucket.take_counts();
    assert!(back_up(&world.repository, &options).unchanged);
    let counts = world.bucket.take_counts();
    // One listing has 286 pages; each range has one that ends behind it.
    assert!(counts.gets == 0 && counts.pages > 290 && counts.pages < 330);
    // What is new, gone and changed is seen wherever it is.
    world.put(b"a-first", b"new");
    world.put(b"z-last", b"new");
    world.put(b"d3/o0003x", b"new");
    world.put(b"d5/o0012", b"new");
    for key in [&b"d0/o0000"[..], b"d6/o1994", b"d2/o1010"] {
        world.bucket.delete(key).unwrap();
    }
    let report = back_up(&world.repository, &options);
    assert_eq!((report.statistics.new, report.statistics.changed), (3, 1));
    assert_holds(
        &world,
        world.cells().last().unwrap(),
        &world.bucket.objects(),
    );
    // A server that begins with the first key whatever it is asked is listed from there.
    world.bucket.know_no_keys();
    let _ = world.bucket.take_counts();
    assert!(back_up(&world.repository, &options).unchanged);
    assert_eq!(world.bucket.take_counts().pages, 287);
    // Where a page goes wrong nothing is taken for gone.
    world.bucket.go_wrong(Some((40, Wrong::Fails)));
    world.fails(&options);
}

#[test]
fn too_many_gone_objects_are_not_believed() {
    let world = World::new();
    for number in 0..100 {
        world.put(format!("k{number:02}").as_bytes(), b"x");
    }
    world.back_up();
    for number in 0..30 {
        world
            .bucket
            .delete(format!("k{:02}", 3 * number).as_bytes())
            .unwrap();
    }
    world.back_up();
    assert_eq!(world.newest().len(), 70);
    for number in 70..100 {
        world
            .bucket
            .delete(format!("k{number:02}").as_bytes())
            .unwrap();
    }
    let left = world.bucket.objects().len();
    assert!(left * 100 < 70 * 80, "{left}");
    let mut options = world.options();
    options.buckets.allow_vanished_percent = 20;
    let told = world.fails(&options);
    assert!(
        told.contains("of the 70 objects") && told.contains("--allow-vanished"),
        "{told}"
    );
    assert!(told.contains("none of those that were asked for is there"));
    // Where nothing may be asked for, nothing is known; and what little is, is said.
    world.bucket.deny_reads(true);
    let told = world.fails(&options);
    for text in [
        "is not known",
        "none of",
        "reading is denied",
        "--allow-vanished",
    ] {
        assert!(told.contains(text), "{told}");
    }
    world.bucket.deny_reads(false);
    // A listing that ends early says that more is gone than is.
    world.bucket.go_wrong(Some((2, Wrong::IsLast)));
    let told = world.fails(&options);
    assert!(told.contains("cannot be relied on now"), "{told}");
    world.bucket.go_wrong(None);
    // An empty bucket looks like one that was lost.
    world.bucket.change(BTreeMap::clear);
    assert!(world.fails(&world.options()).contains("70 of the 70"));
    options.buckets.allow_vanished_percent = 100;
    back_up(&world.repository, &options);
    assert!(world.newest().is_empty());
}

#[test]
fn what_is_left_out_is_neither_fetched_nor_gone() {
    let world = World::new();
    for number in 0..20 {
        world.put(format!("logs/{number:02}").as_bytes(), b"log");
        world.put(format!("k{number:02}").as_bytes(), b"12345");
    }
    world.put(b"logs//keep", b"x");
    world.put(b"large", b"123456");
    world.back_up();
    world.put(b"logs/03", b"changed");
    let mut options = world.options();
    options.selection.exclude = vec!["logs/*".to_owned(), "!keep".to_owned()];
    options.selection.exclude_larger_than = Some(5);
    options.buckets.allow_vanished_percent = 0;
    let _ = world.bucket.take_counts();
    back_up(&world.repository, &options);
    assert_eq!(world.bucket.take_counts().gets, 0);
    let kept: Vec<Vec<u8>> = world.newest().into_keys().collect();
    // Nothing below a folder that is left out is taken back: `logs/` and an empty name.
    let expected: Vec<Vec<u8>> = (0..20)
        .map(|number| format!("k{number:02}").into_bytes())
        .collect();
    assert_eq!(kept, expected);
    // What is gone counts against what is not left out.
    world.bucket.delete(b"k00").unwrap();
    options.buckets.allow_vanished_percent = 4;
    assert!(world.fails(&options).contains("1 of the 20 objects"));
    world.back_up();
    world.bucket.delete(b"k01").unwrap();
    assert!(world.fails(&options).contains("1 of the 19 objects"));
}

#[test]
fn a_bucket_that_is_not_there_keeps_no_other_source_from_being_backed_up() {
    let world = World::new();
    world.bucket.go_wrong(Some((0, Wrong::IsNoBucket)));
    assert!(world.fails(&world.options()).contains("no bucket"));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("f"), "y").unwrap();
    let both = BackupOptions {
        sources: vec![folder.path().to_path_buf()],
        ..world.options()
    };
    world.bucket.go_wrong(Some((0, Wrong::IsNoBucket)));
    let report = back_up(&world.repository, &both);
    assert_eq!((report.statistics.files, report.issue_count), (1, 1));
    assert!(report.issues[0].error.contains("no such bucket"));
    assert_eq!(world.cells()[0].sources.len(), 1);
    // One that goes while it is listed fails the run.
    for number in 0..20 {
        world.put(format!("k{number:02}").as_bytes(), b"x");
    }
    world.bucket.go_wrong(Some((1, Wrong::IsNoBucket)));
    assert!(world.fails(&both).contains("no bucket"));
}

#[test]
fn classes_come_back_and_uploads_that_were_given_up_go() {
    let world = World::new();
    for key in [&b"plain"[..], b"rare", b"was-warm", b"never-read"] {
        world.put(key, key);
    }
    world.put(b"large", &vec![7; 9 << 20]);
    let set = |key: &'static [u8], class: &str| {
        let class = class.to_owned();
        world
            .bucket
            .change(|objects| objects.get_mut(key).unwrap().class = class);
    };
    set(b"never-read", "GLACIER");
    set(b"rare", "STANDARD_IA");
    set(b"large", "STANDARD_IA");
    world.back_up();
    set(b"was-warm", "DEEP_ARCHIVE");
    world.back_up();
    let target = Arc::new(MemoryBucket::new(PAGE));
    let now = jiff::Timestamp::now();
    let hours = |hours| now - jiff::SignedDuration::from_hours(hours);
    target.abandon(b"large", hours(25));
    target.abandon(b"large", hours(1));
    target.abandon(b"of-somebody-else", hours(99));
    let cells = world.cells();
    let report = restore_into(&world, cells.last().unwrap(), &target, |_| {});
    assert_eq!((report.cold, report.failed, report.files), (1, 0, 4));
    assert!(report.warnings[0].contains("1 object was in a class that has to be thawed"));
    let objects = target.objects();
    let classes: Vec<(&[u8], &str)> = objects
        .iter()
        .map(|(key, held)| (key.as_slice(), held.class.as_str()))
        .collect();
    assert_eq!(
        classes,
        [
            (&b"large"[..], "STANDARD_IA"),
            (b"plain", "STANDARD"),
            (b"rare", "STANDARD_IA"),
            // It could not be read there.
            (b"was-warm", "STANDARD"),
        ]
    );
    let left: Vec<_> = target.uploads().unwrap();
    let left: Vec<_> = left
        .into_iter()
        .map(|open| (open.key, open.begun))
        .collect();
    assert_eq!(
        left,
        [
            (b"large".to_vec(), hours(1)),
            (b"of-somebody-else".to_vec(), hours(99))
        ]
    );
}

#[test]
fn large_objects_are_read_by_ranges_of_one_and_the_same() {
    let world = World::new();
    let large = |byte: u8| -> Vec<u8> {
        let mut bytes = vec![byte; 9 << 20];
        blake3::Hasher::new()
            .finalize_xof()
            .fill(&mut bytes[..1 << 20]);
        bytes
    };
    world.put(b"large", &large(1));
    let (_, counts) = world.back_up();
    assert_eq!(counts.gets, 3);
    // It is replaced between two of its ranges, by one that is as long.
    world.put(b"large", &large(2));
    let replacement = Bytes::from(large(3));
    let mut reads = 0;
    world.bucket.meanwhile(Some(Box::new(move |objects, key| {
        reads += 1;
        if reads == 2 {
            let held = objects.get_mut(key).unwrap();
            held.bytes = replacement.clone();
            held.etag = "another".to_owned();
        }
    })));
    let (report, counts) = world.back_up();
    // The first one, and two at once that are of another; then all three of that.
    assert_eq!((report.issue_count, counts.gets), (0, 6));
    world.bucket.meanwhile(None);
    let newest = world.newest();
    let (entry, bytes) = &newest[&b"large"[..]];
    assert!(*bytes == large(3) && entry.etag == b"another");
    // One that never holds still is told, and tried again the next time.
    world.put(b"large", &large(4));
    let mut reads = 0;
    world.bucket.meanwhile(Some(Box::new(move |objects, key| {
        reads += 1;
        objects.get_mut(key).unwrap().etag = format!("e{reads}");
    })));
    let (report, _) = world.back_up();
    assert_eq!((report.issue_count, report.statistics.unreadable), (1, 1));
    assert!(report.issues[0].error.contains("changed while it was read"));
    world.bucket.meanwhile(None);
    assert_eq!(world.back_up().0.statistics.unreadable, 0);
    assert!(world.newest()[&b"large"[..]].1 == large(4));
}

#[test]
fn ranges_of_a_large_object_are_read_at_once_and_stay_in_order() {
    let world = World::new();
    let mut large = vec![0; 20 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut large);
    world.put(b"large", &large);
    world.put(b"small", b"x");
    // Two are under way at the same time, or this never ends.
    world.bucket.meet(2);
    let (report, counts) = world.back_up();
    assert_eq!((report.issue_count, counts.gets), (0, 1 + 5));
    assert!(world.newest()[&b"large"[..]].1 == large);
}

#[test]
fn what_grows_shrinks_or_vanishes_meanwhile_is_kept_as_it_is_then() {
    let world = World::new();
    world.put(b"gone", b"x");
    world.put(b"grows", b"small");
    world.put(b"shrinks", &vec![1; 5 << 20]);
    let grown = Bytes::from(vec![2; 5 << 20]);
    let bytes = grown.clone();
    world.bucket.meanwhile(Some(Box::new(move |objects, key| {
        match key {
            b"gone" => drop(objects.remove(key)),
            b"grows" => objects.get_mut(key).unwrap().bytes = bytes.clone(),
            _ => objects.get_mut(key).unwrap().bytes = Bytes::new(),
        };
    })));
    let (report, _) = world.back_up();
    assert_eq!(report.issue_count, 0);
    let newest = world.newest();
    assert_eq!(
        newest.keys().map(Vec::as_slice).collect::<Vec<_>>(),
        [&b"grows"[..], b"shrinks"]
    );
    assert!(newest[&b"grows"[..]].1 == grown && newest[&b"shrinks"[..]].1.is_empty());
}

#[test]
fn archived_objects_are_counted_and_asked_for_by_nobody() {
    let world = World::new();
    world.put(b"warm", b"w");
    world.put(b"moves", b"m");
    world.put(b"cold", b"c");
    let freeze = |key: &'static [u8]| {
        world
            .bucket
            .change(|objects| objects.get_mut(key).unwrap().class = "GLACIER".to_owned());
    };
    freeze(b"cold");
    let (report, counts) = world.back_up();
    assert_eq!(
        (report.cold, report.statistics.unreadable, counts.gets),
        (1, 0, 2)
    );
    let (entry, _) = &world.newest()[&b"cold"[..]];
    assert!(entry.flags.unreadable && entry.size == 1);
    // What was read before it went cold stays.
    freeze(b"moves");
    let (report, counts) = world.back_up();
    assert_eq!((report.cold, counts.gets), (1, 0));
    let newest = world.newest();
    let (entry, bytes) = &newest[&b"moves"[..]];
    assert_eq!(
        (entry.class.as_slice(), bytes.as_slice()),
        (&b"GLACIER"[..], &b"m"[..])
    );
    // And once it is warm again, it is read.
    world.bucket.change(|objects| {
        objects.get_mut(&b"cold"[..]).unwrap().class = "STANDARD".to_owned();
    });
    assert_eq!(world.back_up().0.cold, 0);
    assert_eq!(world.newest()[&b"cold"[..]].1, b"c");
}

#[test]
fn buckets_and_folders_stand_in_one_snapshot_and_not_within_each_other() {
    let world = World::new();
    world.put(b"k", b"x");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("f"), "y").unwrap();
    let both = BackupOptions {
        sources: vec![folder.path().to_path_buf()],
        ..world.options()
    };
    let report = back_up(&world.repository, &both);
    assert_eq!(
        (report.statistics.files, report.statistics.directories),
        (2, 1)
    );
    let mut twice = world.options();
    twice
        .buckets
        .sources
        .extend(world.options().buckets.sources);
    assert!(world.fails(&twice).contains("within each other"));
}

#[test]
fn tags_of_objects_that_are_the_same_are_asked_for_where_that_is_wished() {
    let world = World::new();
    let put = |key: &[u8], more: &[(&str, &str)]| {
        let pairs = more
            .iter()
            .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        let bytes = Bytes::copy_from_slice(key);
        world.bucket.put(key, bytes, &pairs.collect()).unwrap();
    };
    let long = "x".repeat(2000);
    put(b"bare", &[]);
    put(b"gone", &[("tag/k", "v")]);
    put(b"long", &[("meta/long", long.as_str()), ("tag/k", "v")]);
    put(b"same", &[("content-type", "text/plain"), ("tag/k", "v")]);
    put(b"tagged", &[("tag/k", "v"), ("tag/l", "w")]);
    world.back_up();
    let set = |key: &'static [u8], tags: &[(&str, &str)]| {
        world.bucket.change(|objects| {
            let properties = &mut objects.get_mut(key).unwrap().properties;
            properties.retain(|name, _| !name.starts_with(b"tag/"));
            let tags = tags
                .iter()
                .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
            properties.extend(tags);
        });
    };
    set(b"bare", &[("tag/new", "1")]);
    set(b"long", &[("tag/k", "other")]);
    set(b"tagged", &[]);
    // No listing tells.
    let (report, counts) = world.back_up();
    assert!(report.unchanged && report.tags_asked == 0 && counts.tags == 0);
    let mut options = world.options();
    options.buckets.check_tags = true;
    let _ = world.bucket.take_counts();
    let report = back_up(&world.repository, &options);
    let counts = world.bucket.take_counts();
    assert_eq!((report.tags_asked, counts.tags, counts.gets), (5, 5, 0));
    assert_eq!(
        (report.statistics.changed, report.statistics.unchanged),
        (3, 2)
    );
    assert_holds(
        &world,
        world.cells().last().unwrap(),
        &world.bucket.objects(),
    );
    assert!(back_up(&world.repository, &options).unchanged);
    // What changed otherwise is read, and is not asked for its tags besides.
    put(b"same", &[("tag/k", "x")]);
    let _ = world.bucket.take_counts();
    let report = back_up(&world.repository, &options);
    let counts = world.bucket.take_counts();
    assert_eq!((report.tags_asked, counts.tags, counts.gets), (4, 4, 1));
    // Who may not ask keeps the tags that were known, and is told.
    world.bucket.deny_reads(true);
    set(b"long", &[]);
    let report = back_up(&world.repository, &options);
    assert_eq!((report.issue_count, report.statistics.changed), (5, 0));
    assert_eq!(report.issues[0].operation, "read the tags of");
    assert_eq!(report.statistics.unreadable, 0);
    world.bucket.deny_reads(false);
    assert_eq!(back_up(&world.repository, &options).statistics.changed, 1);
    assert_holds(
        &world,
        world.cells().last().unwrap(),
        &world.bucket.objects(),
    );
}

#[test]
fn a_bucket_without_order_is_sorted_where_that_is_asked_for() {
    let world = World::new();
    for number in 0..50 {
        world.put(
            format!("k{:03}/{}", number * 7 % 50, number % 3).as_bytes(),
            b"x",
        );
    }
    world.bucket.list_without_order();
    assert!(world.fails(&world.options()).contains("--sort-listing"));
    let mut options = world.options();
    options.buckets.sort_listing = true;
    back_up(&world.repository, &options);
    assert_holds(&world, &world.cells()[0], &world.bucket.objects());
    let _ = world.bucket.take_counts();
    assert!(back_up(&world.repository, &options).unchanged);
    let counts = world.bucket.take_counts();
    assert_eq!((counts.pages, counts.gets), (8, 0));
    // Nothing is taken for deleted because of a listing that broke off.
    world.bucket.go_wrong(Some((4, Wrong::Fails)));
    world.fails(&options);
    world.bucket.go_wrong(None);
    world.put(b"a-new", b"new");
    world.bucket.delete(b"k000/0").unwrap();
    back_up(&world.repository, &options);
    let cells = world.cells();
    assert_holds(&world, cells.last().unwrap(), &world.bucket.objects());
    // Into a bucket of the same kind, of which all that is too much goes.
    let target = Arc::new(MemoryBucket::new(PAGE));
    target.list_without_order();
    let extra = ["a", "k010/7", "z-extra"];
    for key in extra {
        target
            .put(key.as_bytes(), Bytes::new(), &Properties::new())
            .unwrap();
    }
    let report = restore_into(&world, cells.last().unwrap(), &target, |options| {
        options.delete = true;
        options.sort_listing = true;
    });
    assert_eq!((report.files, report.deleted), (50, 3));
    assert!(target.objects().keys().eq(world.bucket.objects().keys()));
}

#[test]
fn what_is_cold_is_asked_for_once_and_read_when_it_is_there() {
    let world = World::new();
    world.put(b"cold", b"c");
    world.put(b"warm", b"w");
    let freeze = |key: &'static [u8]| {
        world
            .bucket
            .change(|objects| objects.get_mut(key).unwrap().class = "GLACIER".to_owned());
    };
    freeze(b"cold");
    let how = Thaw {
        tier: Tier::Bulk,
        days: 7,
    };
    let thawing = Arc::new(Thawing::new(Arc::clone(&world.bucket) as _, how));
    let with = BackupOptions {
        buckets: Buckets {
            sources: vec![Arc::clone(&thawing) as _],
            ..Buckets::default()
        },
        ..world.options()
    };
    let report = back_up(&world.repository, &with);
    let counts = world.bucket.take_counts();
    assert_eq!((report.cold, counts.thaws), (1, 1));
    let mut asked = thawing.take();
    assert_eq!((asked.objects, asked.bytes), (1, 1));
    // Another backup meanwhile does not ask again.
    let report = back_up(&world.repository, &with);
    assert_eq!((report.cold, world.bucket.take_counts().thaws), (1, 0));
    assert!((0..10).any(|_| !thawing.is_on_its_way(&mut asked).unwrap()));
    let report = back_up(&world.repository, &with);
    assert_eq!((report.cold, world.bucket.take_counts().thaws), (0, 0));
    let newest = world.newest();
    let (entry, bytes) = &newest[&b"cold"[..]];
    assert_eq!(
        (entry.class.as_slice(), bytes.as_slice()),
        (&b"GLACIER"[..], &b"c"[..])
    );
    assert!(!entry.flags.unreadable);
    // What is unchanged is not asked for, however cold.
    let report = back_up(&world.repository, &with);
    let counts = world.bucket.take_counts();
    assert_eq!((report.cold, counts.gets, counts.looks), (0, 0, 0));
}
