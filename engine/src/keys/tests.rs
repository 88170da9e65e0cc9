#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::sync::Arc;

use super::*;
use crate::snapshots::fixture::{KDF, init, open, open_with, passphrase};
use crate::storage::Storage;
use crate::storage::faulty::{Effect, Fault, Faulty, When};
use crate::storage::object::ObjectStorage;

fn storage() -> Arc<dyn Storage> {
    let storage: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
    init(storage.as_ref());
    storage
}

fn opens(storage: &Arc<dyn Storage>, secret: &str) -> bool {
    match open_with(storage, &passphrase(secret)) {
        Ok(_) => true,
        Err(EngineError::WrongSecret { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

fn objects(storage: &Arc<dyn Storage>, folder: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut visit = |object: crate::storage::ObjectInfo| {
        names.push(object.name);
        Ok(())
    };
    storage.list(folder, &mut visit).unwrap();
    names.sort();
    names
}

#[test]
fn keys_are_added_listed_and_removed() {
    let storage = storage();
    let repository = open(&storage);
    let first = list(&repository).unwrap();
    assert_eq!(first.len(), 1);
    assert_eq!(
        (first[0].kind, first[0].label.as_str()),
        ("passphrase", "first")
    );
    assert!(first[0].current && first[0].created.ends_with('Z'));
    let second = add(&repository, &passphrase("two"), false, "laptop", KDF).unwrap();
    let (raw, file, recovery) = generate_raw().unwrap();
    let third = add(&repository, &raw, false, "file", KDF).unwrap();
    let (paper, _, text) = generate_raw().unwrap();
    add(&repository, &paper, true, "paper", KDF).unwrap();
    let kinds: Vec<_> = list(&repository)
        .unwrap()
        .iter()
        .map(|one| one.kind)
        .collect();
    assert_eq!(kinds.len(), 4);
    assert!(kinds.contains(&"key-file") && kinds.contains(&"recovery"));
    assert!(opens(&storage, "secret") && opens(&storage, "two") && !opens(&storage, "three"));
    // One key as a file and as text is the same key.
    for secret in [
        Secret::from_key_file(&file).unwrap(),
        Secret::from_recovery_key(&recovery).unwrap(),
    ] {
        let opened = open_with(&storage, &secret).unwrap();
        assert_eq!(opened.current_slot().to_hex(), third);
    }
    open_with(&storage, &Secret::from_recovery_key(&text).unwrap()).unwrap();
    assert_eq!(objects(&storage, "config").len(), 4);
    assert_eq!(repository.config().number, 4);
    // Another process, which has seen only the first config.
    let stale = open(&storage);
    assert_eq!(remove(&repository, &second[..31]).unwrap(), second);
    assert!(!opens(&storage, "two"));
    assert_eq!(remove(&stale, &third.to_uppercase()).unwrap(), third);
    assert_eq!(objects(&storage, "keys").len(), 2);
    for id in [second.as_str(), "zz", ""] {
        let error = remove(&repository, id).unwrap_err();
        assert!(matches!(error, EngineError::NotFound(_)), "{id}: {error}");
    }
}

#[test]
fn the_last_key_that_can_be_read_stays() {
    let storage = storage();
    let repository = open(&storage);
    let first = repository.current_slot().to_hex();
    let error = remove(&repository, &first).unwrap_err();
    assert!(matches!(error, EngineError::Request(_)), "{error}");
    let second = add(&repository, &passphrase("two"), false, "", KDF).unwrap();
    for folder in ["keys", "twins/keys"] {
        storage.delete(&format!("{folder}/{second}")).unwrap();
    }
    let error = remove(&repository, &first).unwrap_err();
    assert!(matches!(error, EngineError::Request(_)), "{error}");
    assert!(opens(&storage, "secret"));
    remove(&repository, &second).unwrap();
    assert_eq!(repository.config().slots.len(), 1);
}

#[test]
fn a_prefix_of_several_slots_is_ambiguous() {
    let storage = storage();
    let repository = open(&storage);
    let (raw, ..) = generate_raw().unwrap();
    // Of 17 slots two begin with the same digit.
    for _ in 0..16 {
        add(&repository, &raw, false, "", KDF).unwrap();
    }
    let ids: Vec<_> = repository
        .config()
        .slots
        .iter()
        .map(SlotId::to_hex)
        .collect();
    let twice = ids
        .windows(2)
        .find(|pair| pair[0][..1] == pair[1][..1])
        .unwrap();
    match remove(&repository, &twice[0][..1]).unwrap_err() {
        EngineError::Request(message) => {
            assert!(
                message.contains(&twice[0]) && message.contains(&twice[1]),
                "{message}"
            );
        }
        other => panic!("{other}"),
    }
}

#[test]
fn there_are_no_more_keys_than_the_format_allows() {
    let storage = storage();
    let repository = open(&storage);
    let (raw, ..) = generate_raw().unwrap();
    for _ in 1..SLOTS {
        add(&repository, &raw, false, "", KDF).unwrap();
    }
    let before = objects(&storage, "");
    let error = add(&repository, &raw, false, "", KDF).unwrap_err();
    assert!(matches!(error, EngineError::Request(_)), "{error}");
    assert_eq!(objects(&storage, ""), before);
    // In place of another there is room.
    replace_current(&repository, &passphrase("new"), KDF).unwrap();
    assert!(opens(&storage, "new"));
}

#[test]
fn a_replaced_key_opens_no_more() {
    let storage = storage();
    let repository = open(&storage);
    let stale = open(&storage);
    let new = replace_current(&repository, &passphrase("new"), KDF).unwrap();
    assert!(opens(&storage, "new") && !opens(&storage, "secret"));
    let listed = list(&repository).unwrap();
    assert_eq!(listed.len(), 1);
    assert!(listed[0].current && listed[0].id == new && listed[0].label == "first");
    let error = replace_current(&stale, &passphrase("other"), KDF).unwrap_err();
    assert!(matches!(error, EngineError::Request(_)), "{error}");
    assert!(opens(&storage, "new"));
}

#[test]
fn changes_at_the_same_time_are_all_kept() {
    let storage = storage();
    std::thread::scope(|scope| {
        for number in 0..4 {
            let storage = &storage;
            scope.spawn(move || {
                let repository = open(storage);
                let secret = passphrase(&format!("number {number}"));
                add(&repository, &secret, false, "", KDF).unwrap();
            });
        }
    });
    assert_eq!(list(&open(&storage)).unwrap().len(), 5);
    assert!((0..4).all(|number| opens(&storage, &format!("number {number}"))));
}

#[test]
fn a_config_that_was_seen_is_not_gone_back_behind() {
    let storage = storage();
    let repository = open(&storage);
    add(&repository, &passphrase("two"), false, "", KDF).unwrap();
    storage.delete(&names::config(2)).unwrap();
    let error = add(&repository, &passphrase("three"), false, "", KDF).unwrap_err();
    assert!(matches!(error, EngineError::Damaged { .. }), "{error}");
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operation {
    Add,
    Remove,
    Replace,
}

/// The process dies at every storage operation of every change, before and after its effect.
#[test]
fn a_change_that_dies_leaves_the_repository_as_before_or_as_wanted() {
    for operation in [Operation::Add, Operation::Remove, Operation::Replace] {
        for when in [When::Before, When::After] {
            let mut nth = 1;
            while !dies(operation, when, nth) {
                nth += 1;
            }
            assert!(nth > 4, "{operation:?} has more steps");
        }
    }
}

/// Lets a change die at its nth storage operation; true if it did not come that far.
fn dies(operation: Operation, when: When, nth: u64) -> bool {
    let inner = storage();
    add(&open(&inner), &passphrase("two"), false, "", KDF).unwrap();
    let faulty = Arc::new(Faulty::new(Arc::clone(&inner)));
    let through: Arc<dyn Storage> = faulty.clone();
    let repository = open(&through);
    let two = open_with(&inner, &passphrase("two"))
        .unwrap()
        .current_slot();
    faulty.inject(Fault {
        nth,
        operation: None,
        lasts: true,
        effect: Effect::Error(when, ErrorKind::Permanent),
    });
    let outcome = match operation {
        Operation::Add => add(&repository, &passphrase("new"), false, "", KDF).map(drop),
        Operation::Remove => remove(&repository, &two.to_hex()).map(drop),
        Operation::Replace => replace_current(&repository, &passphrase("new"), KDF).map(drop),
    };
    let context = format!("{operation:?} {when:?} {nth}");
    let before = ["secret", "two"];
    let wanted: &[&str] = match operation {
        Operation::Add => &["secret", "two", "new"],
        Operation::Remove => &["secret"],
        Operation::Replace => &["two", "new"],
    };
    let all = ["secret", "two", "new"];
    let open_now: Vec<_> = all
        .into_iter()
        .filter(|secret| opens(&inner, secret))
        .collect();
    assert!(
        open_now == before || open_now == wanted,
        "{context}: {open_now:?}"
    );
    if outcome.is_ok() {
        assert_eq!(open_now, wanted, "{context}");
    }
    // What is left can be taken up: the repository lists, adds and removes.
    let secret = if open_now.contains(&"secret") {
        "secret"
    } else {
        "new"
    };
    let again = open_with(&inner, &passphrase(secret)).unwrap();
    assert_eq!(list(&again).unwrap().len(), open_now.len(), "{context}");
    add(&again, &passphrase("later"), false, "", KDF).unwrap();
    assert!(opens(&inner, "later"), "{context}");
    if operation == Operation::Remove {
        // Removing it once more is done, or finds nothing left.
        match remove(&again, &two.to_hex()) {
            Ok(_) => assert!(outcome.is_err(), "{context}"),
            Err(EngineError::NotFound(_)) => {}
            Err(error) => panic!("{context}: {error}"),
        }
        assert!(
            !objects(&inner, "keys").contains(&format!("keys/{two}")),
            "{context}"
        );
    }
    outcome.is_ok()
}
