//! The rules that every storage keeps, as one suite.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a suite of tests: a panic is how it tells that a rule is broken"
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use bytes::Bytes;

use super::error::{ErrorKind, Result};
use super::{CreateExclusive, Storage, create_or_confirm};

/// Runs every rule, each against a fresh and empty storage that `make` gives.
///
/// # Panics
/// If a rule is broken.
pub fn run(make: &dyn Fn() -> Arc<dyn Storage>) {
    type Rule = fn(&Arc<dyn Storage>);
    let rules: [Rule; 14] = [
        what_was_put_is_read_back,
        an_object_longer_than_allowed_is_refused,
        a_missing_object_is_not_found,
        ranges_are_exact_or_an_error,
        a_put_replaces_the_object,
        a_reader_never_sees_a_mixture,
        create_takes_only_a_free_name,
        a_race_of_creates_has_one_winner,
        a_create_with_the_same_bytes_is_confirmed,
        deleting_what_is_missing_succeeds,
        a_listing_gives_names_and_sizes_below_a_folder,
        a_long_listing_is_whole,
        a_listing_during_writes_has_all_that_stays,
        names_outside_the_rule_are_refused,
    ];
    for rule in rules {
        rule(&make());
    }
}

fn kind<T: std::fmt::Debug>(outcome: Result<T>) -> ErrorKind {
    outcome.unwrap_err().kind
}

fn listed(storage: &dyn Storage, folder: &str) -> BTreeMap<String, u64> {
    let mut objects = BTreeMap::new();
    let mut last = String::new();
    let is_sorted = storage.capabilities().sorted_listing;
    storage
        .list(folder, &mut |object| {
            assert!(
                !is_sorted || last < object.name,
                "the listing is not sorted"
            );
            last.clone_from(&object.name);
            let before = objects.insert(object.name.clone(), object.size_bytes);
            assert_eq!(before, None, "{} was listed twice", object.name);
            Ok(())
        })
        .unwrap();
    objects
}

fn what_was_put_is_read_back(storage: &Arc<dyn Storage>) {
    let pattern = |length: usize| Bytes::from_iter((0..length).map(|at| ((at * 31) >> 3) as u8));
    for (name, length) in [
        ("empty", 0),
        ("config/1", 1),
        ("packs/ab/cd.ef", 70_000),
        ("packs/ab/large", 20 << 20),
    ] {
        let bytes = pattern(length);
        storage.put(name, bytes.clone()).unwrap();
        assert_eq!(storage.size(name).unwrap(), length as u64);
        assert!(storage.get(name, length as u64).unwrap() == bytes, "{name}");
    }
}

fn an_object_longer_than_allowed_is_refused(storage: &Arc<dyn Storage>) {
    storage.put("a/b", Bytes::from_static(b"12345")).unwrap();
    assert_eq!(kind(storage.get("a/b", 4)), ErrorKind::Oversized);
    assert_eq!(kind(storage.get("a/b", 0)), ErrorKind::Oversized);
    assert_eq!(storage.get("a/b", u64::MAX).unwrap(), "12345");
}

fn a_missing_object_is_not_found(storage: &Arc<dyn Storage>) {
    storage.put("a/b", Bytes::from_static(b"x")).unwrap();
    for name in ["c", "a/c", "c/d/e", "a"] {
        assert_eq!(kind(storage.get(name, 9)), ErrorKind::NotFound, "{name}");
        assert_eq!(
            kind(storage.get_range(name, 0, 1)),
            ErrorKind::NotFound,
            "{name}"
        );
        assert_eq!(
            kind(storage.get_range(name, 0, 0)),
            ErrorKind::NotFound,
            "{name}"
        );
        assert_eq!(kind(storage.size(name)), ErrorKind::NotFound, "{name}");
    }
}

fn ranges_are_exact_or_an_error(storage: &Arc<dyn Storage>) {
    let bytes = Bytes::from_iter(0..100_u8);
    storage.put("a/b", bytes.clone()).unwrap();
    for (offset, length) in [
        (0, 100),
        (0, 1),
        (99, 1),
        (37, 40),
        (0, 0),
        (50, 0),
        (100, 0),
    ] {
        let range = storage.get_range("a/b", offset, length).unwrap();
        let (from, to) = (offset as usize, (offset + length) as usize);
        assert_eq!(range, bytes.slice(from..to), "{offset}+{length}");
    }
    for (offset, length) in [
        (0, 101),
        (99, 2),
        (100, 1),
        (101, 0),
        (101, 5),
        (1 << 40, 1),
        (u64::MAX, 1),
        (1, u64::MAX),
        (50, 1 << 40),
    ] {
        let outcome = storage.get_range("a/b", offset, length);
        assert_eq!(kind(outcome), ErrorKind::Truncated, "{offset}+{length}");
    }
    storage.put("a/empty", Bytes::new()).unwrap();
    assert_eq!(storage.get_range("a/empty", 0, 0).unwrap(), "");
    assert_eq!(
        kind(storage.get_range("a/empty", 0, 1)),
        ErrorKind::Truncated
    );
}

fn a_put_replaces_the_object(storage: &Arc<dyn Storage>) {
    for content in ["long content", "short", "", "longer content than ever"] {
        storage.put("a/b", Bytes::from(content)).unwrap();
        assert_eq!(storage.get("a/b", 99).unwrap(), content);
    }
    assert_eq!(listed(&**storage, "").len(), 1);
}

fn a_reader_never_sees_a_mixture(storage: &Arc<dyn Storage>) {
    if !storage.capabilities().atomic_put {
        return;
    }
    let content = |byte: u8| Bytes::from(vec![byte; 100_000 + usize::from(byte)]);
    storage.put("a/b", content(0)).unwrap();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                let bytes = storage.get("a/b", 200_000).unwrap();
                let first = bytes.first().copied().unwrap();
                assert!(bytes == content(first), "a mixture of two puts");
            }
        });
        for byte in 1..20 {
            storage.put("a/b", content(byte)).unwrap();
        }
        is_done.store(true, Ordering::Relaxed);
    });
}

fn create_takes_only_a_free_name(storage: &Arc<dyn Storage>) {
    storage
        .create("gc/1", Bytes::from_static(b"first"))
        .unwrap();
    for other in ["second", "first", ""] {
        let outcome = storage.create("gc/1", Bytes::from(other));
        assert_eq!(kind(outcome), ErrorKind::AlreadyExists);
    }
    assert_eq!(storage.get("gc/1", 9).unwrap(), "first");
    storage.delete("gc/1").unwrap();
    storage
        .create("gc/1", Bytes::from_static(b"again"))
        .unwrap();
    assert_eq!(storage.get("gc/1", 9).unwrap(), "again");
}

fn a_race_of_creates_has_one_winner(storage: &Arc<dyn Storage>) {
    if storage.capabilities().create_exclusive == CreateExclusive::None {
        return;
    }
    const WRITERS: u8 = 16;
    for round in 0..8 {
        let name = format!("gc/{round}");
        let barrier = Barrier::new(usize::from(WRITERS));
        let outcomes: Vec<_> = thread::scope(|scope| {
            let race = |writer: u8| {
                barrier.wait();
                storage.create(&name, Bytes::from(vec![writer; 1000]))
            };
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| scope.spawn(move || (writer, race(writer))))
                .collect();
            writers
                .into_iter()
                .map(|writer| writer.join().unwrap())
                .collect()
        });
        let winners: Vec<_> = outcomes
            .iter()
            .filter(|(_, outcome)| outcome.is_ok())
            .collect();
        let [(winner, _)] = winners.as_slice() else {
            panic!("{} writers created {name}", winners.len());
        };
        for (_, outcome) in outcomes.iter().filter(|(_, outcome)| outcome.is_err()) {
            let error = outcome.as_ref().unwrap_err();
            assert_eq!(error.kind, ErrorKind::AlreadyExists, "{error}");
        }
        assert_eq!(storage.get(&name, 1000).unwrap(), vec![*winner; 1000]);
    }
}

fn a_create_with_the_same_bytes_is_confirmed(storage: &Arc<dyn Storage>) {
    let bytes = Bytes::from_static(b"cell");
    create_or_confirm(&**storage, "snapshots/1", &bytes).unwrap();
    create_or_confirm(&**storage, "snapshots/1", &bytes).unwrap();
    let other = Bytes::from_static(b"else");
    let outcome = create_or_confirm(&**storage, "snapshots/1", &other);
    assert_eq!(kind(outcome), ErrorKind::AlreadyExists);
    assert_eq!(storage.get("snapshots/1", 9).unwrap(), bytes);
}

fn deleting_what_is_missing_succeeds(storage: &Arc<dyn Storage>) {
    storage.delete("a/b/c").unwrap();
    storage.put("a/b/c", Bytes::from_static(b"x")).unwrap();
    storage.delete("a/b/c").unwrap();
    storage.delete("a/b/c").unwrap();
    assert_eq!(kind(storage.get("a/b/c", 9)), ErrorKind::NotFound);
    assert!(listed(&**storage, "").is_empty());
}

fn a_listing_gives_names_and_sizes_below_a_folder(storage: &Arc<dyn Storage>) {
    assert!(listed(&**storage, "").is_empty());
    assert!(listed(&**storage, "nothing/here").is_empty());
    let names = ["a", "ab/c", "ab/c.d", "ab/cd/e", "abc/d", "b/0"];
    for (size, name) in names.iter().enumerate() {
        storage.put(name, Bytes::from(vec![0; size])).unwrap();
    }
    let expected = |takes: &dyn Fn(&str) -> bool| -> BTreeMap<String, u64> {
        let named = names.iter().zip(0..).filter(|(name, _)| takes(name));
        named
            .map(|(name, size)| ((*name).to_owned(), size))
            .collect()
    };
    assert_eq!(listed(&**storage, ""), expected(&|_| true));
    for folder in ["ab", "ab/"] {
        assert_eq!(
            listed(&**storage, folder),
            expected(&|name| name.starts_with("ab/"))
        );
    }
    assert_eq!(
        listed(&**storage, "ab/cd"),
        expected(&|name| name == "ab/cd/e")
    );
    // The name of an object is not a folder.
    assert!(listed(&**storage, "b/0").is_empty());
    // What the visitor says ends the listing.
    let stop = storage.get("missing", 1).unwrap_err();
    let mut visits = 0;
    let outcome = storage.list("", &mut |_| {
        visits += 1;
        Err(stop.clone())
    });
    assert_eq!((kind(outcome), visits), (ErrorKind::NotFound, 1));
}

fn a_long_listing_is_whole(storage: &Arc<dyn Storage>) {
    // More than one page of any server, in few folders and from several threads.
    const OBJECTS: usize = 1100;
    let name = |at: usize| format!("packs/{:02x}/{at:x}", at % 8);
    thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || {
                for at in (part..OBJECTS).step_by(4) {
                    storage
                        .put(&name(at), Bytes::from(vec![0; at % 7]))
                        .unwrap();
                }
            });
        }
    });
    let expected = (0..OBJECTS).map(|at| (name(at), at as u64 % 7)).collect();
    assert!(
        listed(&**storage, "packs") == expected,
        "the listing is not whole"
    );
}

fn a_listing_during_writes_has_all_that_stays(storage: &Arc<dyn Storage>) {
    let stays: Vec<_> = (0..50)
        .map(|at| format!("packs/{:02x}/s{at}", at % 4))
        .collect();
    for name in &stays {
        storage.put(name, Bytes::from_static(b"stays")).unwrap();
    }
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut at = 0_u64;
            while !is_done.load(Ordering::Relaxed) {
                let name = format!("packs/{:02x}/t{at}", at % 4);
                storage.put(&name, Bytes::from_static(b"x")).unwrap();
                storage.delete(&name).unwrap();
                at += 1;
            }
        });
        for _ in 0..10 {
            let found = listed(&**storage, "packs");
            assert!(stays.iter().all(|name| found.get(name) == Some(&5)));
        }
        is_done.store(true, Ordering::Relaxed);
    });
}

fn names_outside_the_rule_are_refused(storage: &Arc<dyn Storage>) {
    for name in [
        "", "/a", "a/", "a//b", "../a", "a/..", "A", "a b", "a#1", "a\n", ".a", "é", "a%20",
    ] {
        let bytes = Bytes::from_static(b"x");
        let kinds = [
            kind(storage.get(name, 9)),
            kind(storage.get_range(name, 0, 1)),
            kind(storage.put(name, bytes.clone())),
            kind(storage.create(name, bytes)),
            kind(storage.delete(name)),
            kind(storage.size(name)),
        ];
        assert_eq!(kinds, [ErrorKind::Permanent; 6], "{name:?}");
    }
    for folder in ["/", "../a", "a//b", "A"] {
        let outcome = storage.list(folder, &mut |_| Ok(()));
        assert_eq!(kind(outcome), ErrorKind::Permanent, "{folder:?}");
    }
    assert!(listed(&**storage, "").is_empty());
}
