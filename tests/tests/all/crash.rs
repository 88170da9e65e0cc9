//! Death at every storage operation, before it and after it: nothing that was there is lost, and
//! the next run succeeds.

mod curate;

use std::collections::BTreeMap;
use std::sync::Arc;

use larder_engine::cancel::Cancel;
use larder_engine::check::{CheckOptions, ReadData, Severity, check};
use larder_engine::error::{EngineError, Result};
use larder_engine::keys;
use larder_engine::progress::Silent;
use larder_engine::prune::prune;
use larder_engine::repository::{Cache, Repository};
use larder_engine::storage::Storage;
use larder_engine::storage::error::{ErrorKind, Operation};
use larder_engine::storage::faulty::{Effect, Fault, Faulty, When};
use larder_engine::storage::object::ObjectStorage;

use crate::fixture::{Desk, KDF, init_options, prune_options, secret, snapshots};
use crate::program::noise;

/// What a storage holds, so that every death starts from the same.
type Objects = BTreeMap<String, bytes::Bytes>;

/// What is done until it dies.
type Deed<'a> = &'a dyn Fn(&Desk, &Arc<Faulty>) -> Result<()>;

fn objects(storage: &dyn Storage) -> Objects {
    let mut names = Vec::new();
    let list = storage.list("", &mut |object| {
        names.push(object.name);
        Ok(())
    });
    list.unwrap();
    let get = |name: String| {
        let bytes = storage.get(&name, 1 << 30).unwrap();
        (name, bytes)
    };
    names.into_iter().map(get).collect()
}

fn storage_of(objects: &Objects) -> Arc<Faulty> {
    let memory = ObjectStorage::memory();
    for (name, bytes) in objects {
        memory.create(name, bytes.clone()).unwrap();
    }
    Arc::new(Faulty::new(Arc::new(memory)))
}

/// Gives a repository's objects after a first backup.
fn with_one_snapshot(desk: &Desk) -> Objects {
    let storage = storage_of(&Objects::new());
    Repository::init_on(storage.as_ref(), &secret("one"), &init_options()).unwrap();
    let repository = desk.open(&storage, "one").unwrap();
    desk.back_up(&repository).unwrap();
    objects(storage.as_ref())
}

/// A source of some folders and files, among them one of many chunks.
fn desk() -> Desk {
    let mut desk = Desk::new(Cache::Memory);
    desk.in_order = true;
    for number in 0..40_u64 {
        let name = format!("d{}/f{number}", number % 4);
        desk.write(&name, &noise(number, 300 + 50 * number as usize));
    }
    desk.write("long", &noise(99, 100_000));
    desk
}

fn edit(desk: &Desk) {
    desk.write("d1/f1", &noise(500, 2000));
    desk.write("d2/new", &noise(501, 700));
    desk.write("long", &noise(502, 90_000));
}

/// Lets a deed die before and after each of its storage operations, and looks at what is left.
fn die_everywhere(
    desk: &Desk,
    before: &Objects,
    deed: Deed<'_>,
    look: &dyn Fn(&Arc<Faulty>, &str),
) {
    let storage = storage_of(before);
    deed(desk, &storage).unwrap();
    let operations = storage.operations();
    assert!(operations > 1, "the deed asks nothing of the storage");
    look(&storage, "after a whole run");
    let mut failed = 0;
    for nth in 1..=operations {
        for when in [When::Before, When::After] {
            let storage = storage_of(before);
            die_at(&storage, nth, when);
            let outcome = deed(desk, &storage);
            storage.heal();
            failed += u64::from(outcome.is_err());
            let what = format!("death {when:?} operation {nth} of {operations}: {outcome:?}");
            look(&storage, &what);
        }
    }
    // What only tidies up, or comes last, may fail unnoticed.
    assert!(failed * 10 > operations * 2 * 8, "{failed} of {operations}");
}

/// Lets nothing be done from an operation on, or from the one after it.
fn die_at(storage: &Faulty, nth: u64, when: When) {
    if when == When::After {
        storage.inject(Fault::error(nth, when, ErrorKind::Permanent));
    }
    storage.inject(Fault {
        lasts: true,
        ..Fault::error(
            nth + u64::from(when == When::After),
            When::Before,
            ErrorKind::Permanent,
        )
    });
}

/// Fails unless a snapshot that was there before dumps as it did, nothing is lost, and a backup succeeds.
fn assert_sound(
    desk: &Desk,
    storage: &Arc<Faulty>,
    password: &str,
    dumped: &[(String, Vec<u8>)],
    what: &str,
) {
    let repository = desk.open(storage, password);
    let repository = repository.unwrap_or_else(|error| panic!("{what}: {error}"));
    let listed = snapshots(&repository);
    for (id, tar) in dumped {
        let found = listed.iter().find(|snapshot| snapshot.id == *id);
        let found = found.unwrap_or_else(|| panic!("{what}: snapshot {id} is gone"));
        assert!(
            desk.dump(&repository, found).unwrap() == *tar,
            "{what}: {id} differs"
        );
    }
    assert_nothing_lost(&repository, what);
    let next = desk.back_up(&repository);
    let next = next.unwrap_or_else(|error| panic!("{what}: the next backup: {error}"));
    let listed = snapshots(&repository);
    let newest = listed
        .iter()
        .find(|one| Some(&one.id) == next.snapshot.as_ref());
    let newest = newest.unwrap_or_else(|| panic!("{what}: the next snapshot is not listed"));
    assert_eq!(next.issue_count, 0, "{what}");
    assert!(
        desk.dump(&repository, newest).unwrap() == fresh_dump(desk),
        "{what}: the next snapshot differs"
    );
    assert_nothing_lost(&repository, what);
}

/// Gives the source as a repository that never saw a crash dumps it.
fn fresh_dump(desk: &Desk) -> Vec<u8> {
    let objects = with_one_snapshot(desk);
    let repository = desk.open(&storage_of(&objects), "one").unwrap();
    desk.dump(&repository, &snapshots(&repository)[0]).unwrap()
}

fn assert_nothing_lost(repository: &Arc<Repository>, what: &str) {
    let options = CheckOptions {
        read_data: ReadData::All,
        records_suspects: false,
    };
    let report = check(repository, &options, &Silent, &Cancel::default());
    let report = report.unwrap_or_else(|error| panic!("{what}: check: {error}"));
    let lost: Vec<_> = report
        .findings
        .iter()
        .filter(|one| one.severity == Severity::Loss)
        .collect();
    assert!(lost.is_empty(), "{what}: {lost:?}");
}

/// Gives what each complete snapshot holds.
fn dumps(desk: &Desk, objects: &Objects) -> Vec<(String, Vec<u8>)> {
    let repository = desk.open(&storage_of(objects), "one").unwrap();
    let dump = |snapshot| {
        (
            Clone::clone(&snapshot),
            desk.dump(&repository, &snapshot).unwrap(),
        )
    };
    let dumped = snapshots(&repository).into_iter().map(dump);
    dumped.map(|(snapshot, tar)| (snapshot.id, tar)).collect()
}

#[test]
fn a_first_backup_dies_anywhere() {
    let desk = desk();
    let storage = storage_of(&Objects::new());
    Repository::init_on(storage.as_ref(), &secret("one"), &init_options()).unwrap();
    let empty = objects(storage.as_ref());
    die_everywhere(
        &desk,
        &empty,
        &|desk, storage| {
            desk.open(storage, "one")
                .and_then(|it| desk.back_up(&it))
                .map(drop)
        },
        &|storage, what| assert_sound(&desk, storage, "one", &[], what),
    );
}

#[test]
fn a_later_backup_dies_anywhere() {
    let desk = desk();
    let before = with_one_snapshot(&desk);
    let dumped = dumps(&desk, &before);
    edit(&desk);
    die_everywhere(
        &desk,
        &before,
        &|desk, storage| {
            desk.open(storage, "one")
                .and_then(|it| desk.back_up(&it))
                .map(drop)
        },
        &|storage, what| assert_sound(&desk, storage, "one", &dumped, what),
    );
}

#[test]
fn a_backup_with_a_checkpoint_and_the_one_that_goes_on_die_anywhere() {
    let desk = desk();
    let before = with_one_snapshot(&desk);
    let dumped = dumps(&desk, &before);
    edit(&desk);
    die_everywhere(
        &desk,
        &before,
        &|desk, storage| {
            let repository = desk.open(storage, "one")?;
            match desk.back_up_partly(&repository, 20) {
                Err(EngineError::Interrupted) => {}
                other => return other.map(drop),
            }
            let next = desk.back_up(&repository)?;
            assert!(next.resumed_from.is_some());
            Ok(())
        },
        &|storage, what| assert_sound(&desk, storage, "one", &dumped, what),
    );
}

#[test]
fn what_a_failed_backup_uploaded_is_not_used_by_the_next_one() {
    let desk = desk();
    let storage = storage_of(&with_one_snapshot(&desk));
    let repository = desk.open(&storage, "one").unwrap();
    edit(&desk);
    storage.inject(Fault {
        // Packs are written before it, in whatever order.
        nth: 3,
        operation: Some(Operation::Put),
        lasts: false,
        effect: Effect::Error(When::Before, ErrorKind::Transient),
    });
    desk.back_up(&repository).unwrap_err();
    assert_eq!(snapshots(&repository).len(), 1);
    let next = desk.back_up(&repository).unwrap().snapshot;
    // Whoever comes later finds all of it.
    let repository = desk.open(&storage, "one").unwrap();
    let listed = snapshots(&repository);
    let newest = listed.iter().find(|one| Some(&one.id) == next.as_ref());
    let dumped = desk.dump(&repository, newest.unwrap()).unwrap();
    assert!(dumped == fresh_dump(&desk));
    assert_nothing_lost(&repository, "after a backup that failed");
}

#[test]
fn init_dies_anywhere() {
    let desk = desk();
    die_everywhere(
        &desk,
        &Objects::new(),
        &|_, storage| {
            Repository::init_on(storage.as_ref(), &secret("one"), &init_options()).map(drop)
        },
        &|storage, what| {
            // Either it is a repository, or it is none and says so; then the next one makes it.
            match desk.open(storage, "one") {
                Ok(_) => assert_sound(&desk, storage, "one", &[], what),
                Err(EngineError::NoRepository { .. }) => {
                    let again =
                        Repository::init_on(storage.as_ref(), &secret("one"), &init_options());
                    again.unwrap_or_else(|error| panic!("{what}: {error}"));
                    assert_sound(&desk, storage, "one", &[], what);
                }
                Err(other) => panic!("{what}: {other}"),
            }
        },
    );
}

/// A change of keys: what is done, which passwords open all the while, and whether it has been done.
struct KeyChange<'a> {
    deed: Deed<'a>,
    still_open: &'static [&'static str],
    is_done: &'a dyn Fn(&Desk, &Arc<Faulty>) -> bool,
}

#[test]
fn changes_of_keys_die_anywhere() {
    let desk = desk();
    let storage = storage_of(&with_one_snapshot(&desk));
    let repository = desk.open(&storage, "one").unwrap();
    let two = keys::add(&repository, &secret("two"), false, "second", KDF).unwrap();
    let before = objects(storage.as_ref());
    let dumped = dumps(&desk, &before);
    let opens = |desk: &Desk, storage: &Arc<Faulty>, with| desk.open(storage, with).is_ok();
    let changes = [
        KeyChange {
            deed: &|desk, storage| {
                let repository = desk.open(storage, "one")?;
                keys::add(&repository, &secret("three"), false, "", KDF).map(drop)
            },
            still_open: &["one", "two"],
            is_done: &|desk, storage| opens(desk, storage, "three"),
        },
        KeyChange {
            deed: &|desk, storage| {
                keys::remove(desk.open(storage, "one")?.as_ref(), &two).map(drop)
            },
            still_open: &["one"],
            is_done: &|desk, storage| !opens(desk, storage, "two"),
        },
        KeyChange {
            deed: &|desk, storage| {
                let repository = desk.open(storage, "one")?;
                keys::replace_current(&repository, &secret("new"), KDF).map(drop)
            },
            still_open: &["two"],
            is_done: &|desk, storage| opens(desk, storage, "new"),
        },
    ];
    for change in changes {
        let whole = std::cell::RefCell::new(None);
        die_everywhere(&desk, &before, change.deed, &|storage, what| {
            for password in change.still_open {
                assert!(desk.open(storage, password).is_ok(), "{what}: {password}");
            }
            // A replaced password opens until its successor does.
            let either = ["one", "new"].iter().any(|one| opens(&desk, storage, one));
            assert!(
                either,
                "{what}: neither the old password nor the new one opens it"
            );
            if !(change.is_done)(&desk, storage) {
                (change.deed)(&desk, storage)
                    .unwrap_or_else(|error| panic!("{what}: once more: {error}"));
            }
            let password = change.still_open[0];
            remove_what_is_left(&desk, storage, password);
            let sizes = key_sizes(&before, &objects(storage.as_ref()), what);
            let mut whole = whole.borrow_mut();
            assert_eq!(whole.get_or_insert_with(|| sizes.clone()), &sizes, "{what}");
            assert_sound(&desk, storage, password, &dumped, what);
        });
    }
}

/// Removes the key slots that a check says are left of an interrupted change, and prunes.
fn remove_what_is_left(desk: &Desk, storage: &Arc<Faulty>, password: &str) {
    let repository = desk.open(storage, password).unwrap();
    let cancel = Cancel::default();
    let options = CheckOptions {
        read_data: ReadData::No,
        records_suspects: false,
    };
    let report = check(&repository, &options, &Silent, &cancel).unwrap();
    for finding in &report.findings {
        if let Some(id) = finding.object.strip_prefix("keys/") {
            keys::remove(&repository, id).unwrap();
        }
    }
    prune(&repository, &prune_options(), &Silent, &cancel).unwrap();
}

/// Gives how many configs and key slots there are of which size; fails unless each twin is that of one of them,
/// and all else is as it was. A change that died may have left a config without its twin.
fn key_sizes(before: &Objects, after: &Objects, what: &str) -> Vec<(String, usize)> {
    let is_of_keys = |name: &str| {
        let folders = ["config/", "keys/", "twins/"];
        folders.iter().any(|folder| name.starts_with(folder))
    };
    let others = |objects: &Objects| -> Objects {
        let others = objects.iter().filter(|(name, _)| !is_of_keys(name));
        others
            .map(|(name, bytes)| (name.clone(), bytes.clone()))
            .collect()
    };
    assert!(
        others(before) == others(after),
        "{what}: other objects changed"
    );
    for (name, bytes) in after {
        if let Some(original) = name.strip_prefix("twins/") {
            assert!(after.get(original) == Some(bytes), "{what}: {name}");
        }
    }
    let of_keys = after
        .iter()
        .filter(|(name, _)| is_of_keys(name) && !name.starts_with("twins/"));
    let sized = of_keys.map(|(name, bytes)| {
        let (folder, _) = name.split_once('/').unwrap();
        (folder.to_owned(), bytes.len())
    });
    let mut sizes: Vec<_> = sized.collect();
    sizes.sort();
    sizes
}
