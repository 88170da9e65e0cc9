//! Buckets of which only the keys are looked at that changed, against a plain map of what they held.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;

use larder_format::cell::Cell;

use super::super::*;
use super::buckets::{Random, World, properties, step, stored};
use crate::progress::Silent;
use crate::snapshots::fixture::back_up;
use crate::storage::bucket::memory::{Counts, Held};

/// Backs up by a feed of these keys, and gives what the bucket was asked for it.
fn back_up_told(world: &World, keys: &[&[u8]], list_every: u64) -> (BackupReport, Counts) {
    let (folder, options) = told(world, keys, list_every);
    let _ = world.bucket.take_counts();
    let report = back_up(&world.repository, &options);
    drop(folder);
    (report, world.bucket.take_counts())
}

fn told(world: &World, keys: &[&[u8]], list_every: u64) -> (tempfile::TempDir, BackupOptions) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("feed");
    let lines: Vec<Vec<u8>> = keys
        .iter()
        .map(|key| [b"bucket/", *key, b"\n"].concat())
        .collect();
    fs::write(&file, lines.concat()).unwrap();
    let mut options = world.options();
    options.buckets.changed_keys = Some(ChangedKeys { file, list_every });
    (folder, options)
}

/// Gives the keys of which the objects, but for their classes, are not what they were.
fn changed(before: &BTreeMap<Vec<u8>, Held>, now: &BTreeMap<Vec<u8>, Held>) -> Vec<Vec<u8>> {
    let facts = |held: &Held| (held.etag.clone(), held.modified);
    let all = before
        .keys()
        .chain(now.keys().filter(|key| !before.contains_key(*key)));
    let differs = |key: &&Vec<u8>| before.get(*key).map(facts) != now.get(*key).map(facts);
    all.filter(differs).cloned().collect()
}

fn assert_holds(world: &World, cell: &Cell, expected: &BTreeMap<Vec<u8>, Held>) {
    let found = stored(&world.repository, cell);
    assert!(found.keys().eq(expected.keys()));
    for (key, held) in expected {
        let (entry, bytes) = &found[key];
        assert_eq!(bytes, &held.bytes, "{key:?}");
        assert_eq!(entry.etag, held.etag.as_bytes());
        assert_eq!(entry.mtime.seconds, held.modified.as_second());
        assert_eq!(properties(&world.repository, entry), held.properties);
    }
}

#[test]
fn every_snapshot_holds_what_the_bucket_held_where_the_feed_names_all_that_changed() {
    for seed in 0..8 {
        let world = World::new();
        let mut random = Random(seed);
        for _ in 0..30 {
            world.put(&random.key(), &random.bytes());
        }
        world.back_up();
        let mut before = world.bucket.objects();
        let mut history = vec![before.clone()];
        for round in 0..8 {
            for _ in 0..random.below(6) {
                step(&world, &mut random);
            }
            let now = world.bucket.objects();
            let mut keys = changed(&before, &now);
            let is_there = |key: &&Vec<u8>| now.contains_key(*key);
            let (there, gone) = (keys.iter().filter(is_there).count(), keys.len());
            // In any order, and more than once.
            keys.extend(keys.first().cloned());
            keys.reverse();
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let (report, counts) = back_up_told(&world, &keys, 100);
            assert_eq!(report.unlisted, ["s3://memory/bucket"]);
            assert_eq!(counts.pages, 0);
            let gets = counts.gets as usize;
            assert!((there..=gone).contains(&gets), "seed {seed}, round {round}");
            history.push(now.clone());
            before = now;
        }
        let cells = world.cells();
        assert_eq!(cells.len(), history.len());
        for (cell, objects) in cells.iter().zip(&history) {
            assert_holds(&world, cell, objects);
        }
        // The listing agrees, and reads nothing again.
        let (last, counts) = world.back_up();
        assert!(last.unlisted.is_empty() && counts.gets == 0);
    }
}

#[test]
fn what_the_feed_does_not_name_comes_with_the_next_listing() {
    let world = World::new();
    for key in [&b"a"[..], b"b", b"c"] {
        world.put(key, b"old");
    }
    // Without a parent there is nothing to take from.
    let (first, counts) = back_up_told(&world, &[b"a"], 3);
    assert_eq!((first.unlisted.len(), counts.gets), (0, 3));
    world.put(b"b", b"new");
    world.put(b"d", b"new");
    for _ in 0..2 {
        let (report, counts) = back_up_told(&world, &[b"a", b"nowhere"], 3);
        assert_eq!((report.unlisted.len(), counts.pages), (1, 0));
        assert!(report.unchanged && counts.gets == 2);
    }
    let (listed, counts) = back_up_told(&world, &[], 3);
    assert_eq!((listed.unlisted.len(), counts.gets), (0, 2));
    assert_eq!(world.newest().len(), 4);
    // Other patterns need a listing, too: what they left out is in no parent.
    let (folder, mut options) = told(&world, &[], 3);
    options.selection.exclude.push("a".to_owned());
    assert!(back_up(&world.repository, &options).unlisted.is_empty());
    assert_eq!(world.newest().len(), 3);
    assert_eq!(back_up(&world.repository, &options).unlisted.len(), 1);
    options.selection.exclude.clear();
    assert!(back_up(&world.repository, &options).unlisted.is_empty());
    assert_eq!(world.newest().len(), 4);
    drop(folder);
}

#[test]
fn what_cannot_be_told_is_refused() {
    let world = World::new();
    world.put(b"a", b"x");
    world.back_up();
    let (_folder, options) = told(&world, &[], 3);
    let mut forced = options.clone();
    forced.force = true;
    assert!(world.fails(&forced).contains("exclude each other"));
    let mut sized = options.clone();
    sized.selection.exclude_larger_than = Some(1);
    assert!(world.fails(&sized).contains("by their size"));
    let mut none = options.clone();
    none.buckets.sources.clear();
    none.sources.push(std::env::temp_dir());
    assert!(world.fails(&none).contains("of one bucket"));
    let mut lost = options;
    lost.buckets.changed_keys = Some(ChangedKeys {
        file: PathBuf::from("/nowhere/feed"),
        list_every: 3,
    });
    let error = backup(&world.repository, &lost, &Silent, &Cancel::default());
    assert!(matches!(error, Err(EngineError::File { .. })));
    // Nothing of this made a snapshot.
    assert_eq!(world.cells().len(), 1);
}
