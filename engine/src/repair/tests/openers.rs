//! Configs, key slots and their twins are put right from each other.

use larder_format::config::Config;
use larder_format::keys::{KEYRING_RANDOM_BYTES, Keyring};

use super::*;
use crate::check::quick;
use crate::keys;
use crate::snapshots::fixture::{KDF, passphrase};

type Objects = BTreeMap<String, Bytes>;

fn storage_of(objects: &Objects) -> Arc<dyn Storage> {
    let storage = ObjectStorage::memory();
    for (name, bytes) in objects {
        storage.put(name, bytes.clone()).unwrap();
    }
    Arc::new(storage)
}

/// A repository with two passwords, "secret" and "two".
fn made() -> (World, Objects) {
    let mut world = World::new();
    world.write("a", &noise(1, 3000));
    world.back_up();
    keys::add(&world.open(), &passphrase("two"), false, "second", KDF).unwrap();
    let all = world.objects();
    (world, all)
}

fn is_opener(name: &str) -> bool {
    ["config/", "keys/", "twins/"]
        .iter()
        .any(|folder| name.starts_with(folder))
}

fn slots(objects: &Objects) -> Vec<String> {
    let slots = objects.keys().filter(|name| name.starts_with("keys/"));
    slots.cloned().collect()
}

fn exchange(storage: &dyn Storage, objects: &Objects, one: &str, other: &str) {
    storage.put(one, objects[other].clone()).unwrap();
    storage.put(other, objects[one].clone()).unwrap();
}

/// Gives what quick and the structure check say above notes, which is the same of what opens the repository.
fn told(storage: &Arc<dyn Storage>) -> Vec<String> {
    let repository = open(storage);
    let cancel = Cancel::default();
    let structure = CheckOptions {
        read_data: ReadData::No,
        records_suspects: false,
    };
    let [one, other] = [
        quick(&repository, false, &Silent, &cancel).unwrap(),
        check(&repository, &structure, &Silent, &cancel).unwrap(),
    ]
    .map(|report| {
        let findings = report.findings.into_iter();
        let above = findings.filter(|one| one.severity != Severity::Note);
        let above = above.filter(|one| is_opener(&one.object));
        above
            .map(|one| (one.object, one.severity))
            .collect::<Vec<_>>()
    });
    assert_eq!(one, other);
    assert!(
        one.iter()
            .all(|(_, severity)| *severity == Severity::Harmless),
        "{one:?}"
    );
    one.into_iter().map(|(object, _)| object).collect()
}

/// Repairs without a mirror, and looks that all is as it was.
fn brings_back(storage: &Arc<dyn Storage>, all: &Objects, changed: &[&str], what: &str) {
    let damaged = objects(storage.as_ref());
    assert_eq!(told(storage), changed, "{what}");
    let dry = repair(storage, None, false);
    assert!(
        objects(storage.as_ref()) == damaged,
        "{what}: a dry run wrote"
    );
    let report = repair(storage, None, true);
    assert_eq!(dry.mended, report.mended, "{what}");
    let mended: Vec<&str> = report
        .mended
        .iter()
        .map(|one| one.object.as_str())
        .collect();
    assert_eq!(mended, changed, "{what}");
    assert!(report.mended.iter().all(|one| one.from == Healing::Twin));
    assert_eq!((report.left, report.lost), (0, 0), "{what}: {report:?}");
    assert!(outside_quarantine(storage.as_ref()) == *all, "{what}");
    assert!(!repair(storage, None, true).has_work(), "{what}");
    let id = report.repair.unwrap();
    let author = options(true).author;
    undo(
        storage.as_ref(),
        &id,
        &author,
        false,
        &Silent,
        &Cancel::default(),
    )
    .unwrap();
    let mut before = damaged;
    before.retain(|name, _| !name.starts_with(names::QUARANTINE));
    assert!(outside_quarantine(storage.as_ref()) == before, "{what}");
}

#[test]
fn whatever_happens_to_one_of_them_is_put_right_without_another_copy() {
    let (world, all) = made();
    let mut cases = 0;
    for name in all.keys().filter(|name| is_opener(name)) {
        for (number, harm_now) in HARMS.into_iter().enumerate() {
            for percent in [3, 13, 50 + number, 98] {
                let storage = world.copy();
                harm(storage.as_ref(), name, harm_now, percent);
                if objects(storage.as_ref()) == all {
                    continue;
                }
                let what = format!("{name} {harm_now:?} {percent}");
                // That a twin is missing is worth a note alone.
                if harm_now == Harm::Delete && name.starts_with(names::TWINS) {
                    assert!(told(&storage).is_empty());
                    assert_eq!(repair(&storage, None, true).objects, 1, "{what}");
                    assert!(outside_quarantine(storage.as_ref()) == all, "{what}");
                } else {
                    brings_back(&storage, &all, &[name], &what);
                }
                cases += 1;
            }
        }
    }
    assert!(cases > 100, "{cases}");
}

#[test]
fn exchanged_slots_and_twins_are_found_and_put_right() {
    let (world, all) = made();
    let slots = slots(&all);
    let [one, other] = [slots[0].as_str(), slots[1].as_str()];
    let storage = world.copy();
    exchange(storage.as_ref(), &all, one, other);
    brings_back(&storage, &all, &[one, other], "slots");
    let twins = [format!("twins/{one}"), format!("twins/{other}")];
    let storage = world.copy();
    exchange(storage.as_ref(), &all, &twins[0], &twins[1]);
    brings_back(&storage, &all, &[&twins[0], &twins[1]], "twins");
    let storage = world.copy();
    storage.put(one, all[other].clone()).unwrap();
    brings_back(&storage, &all, &[one], "one twice");
    // Without twins by their names.
    let mut bare = all.clone();
    bare.retain(|name, _| !name.starts_with(names::TWINS));
    let storage = storage_of(&bare);
    exchange(storage.as_ref(), &all, one, other);
    assert_eq!(told(&storage), [one, other]);
    repair(&storage, None, true);
    assert!(outside_quarantine(storage.as_ref()) == all);
}

#[test]
fn an_old_repository_is_given_twins_and_says_so_once() {
    let (_, all) = made();
    let mut bare = all.clone();
    bare.retain(|name, _| !name.starts_with(names::TWINS));
    let storage = storage_of(&bare);
    let report = quick(&open(&storage), false, &Silent, &Cancel::default()).unwrap();
    let notes: Vec<_> = report
        .findings
        .iter()
        .map(|one| (one.severity, one.object.as_str()))
        .collect();
    assert_eq!(notes, [(Severity::Note, names::TWINS)]);
    let report = repair(&storage, None, true);
    assert_eq!((report.objects, report.left), (4, 0), "{report:?}");
    assert!(outside_quarantine(storage.as_ref()) == all);
    assert!(
        quick(&open(&storage), false, &Silent, &Cancel::default())
            .unwrap()
            .findings
            .is_empty()
    );
}

#[test]
fn what_nobody_with_a_key_made_is_put_aside() {
    let (world, all) = made();
    let repository = world.open();
    let stranger = Keyring::generate(repository.config().repository, &[3; KEYRING_RANDOM_BYTES]);
    let config = Config {
        number: 3,
        slots: Vec::new(),
        ..repository.config()
    };
    let sealed = Bytes::from(config.seal(&stranger, [1; 16]).unwrap());
    let name = names::config(3);
    let twin = format!("twins/{name}");
    for plant in [
        sealed.clone(),
        sealed.slice(..50),
        all[&names::config(2)].clone(),
    ] {
        for planted in [&name, &twin] {
            let storage = world.copy();
            storage.put(planted, plant.clone()).unwrap();
            assert_eq!(told(&storage), [planted.as_str()]);
            let dry = repair(&storage, None, false);
            let report = repair(&storage, None, true);
            assert_eq!((dry.objects, report.objects), (1, 1), "{report:?}");
            assert!(outside_quarantine(storage.as_ref()) == all);
            let kept = format!("{}{}/{planted}", names::QUARANTINE, report.repair.unwrap());
            assert_eq!(objects(storage.as_ref())[&kept], plant);
            keys::add(&open(&storage), &passphrase("three"), false, "", KDF).unwrap();
            assert!(told(&storage).is_empty());
        }
    }
}

#[test]
fn a_slot_that_was_removed_is_never_put_back() {
    let (world, before) = made();
    let two = slots(&before);
    let current = names::slot(&world.open().current_slot());
    let two = two.iter().find(|name| **name != current).unwrap();
    let id = two.strip_prefix("keys/").unwrap();
    let whole = Arc::new(Counting::new(world.copy()));
    let counted: Arc<dyn Storage> = whole.clone();
    let remove = |storage: &Arc<dyn Storage>| {
        let opened = fixture::open_with(storage, &passphrase("secret"))?;
        keys::remove(&opened, id).map(drop)
    };
    remove(&counted).unwrap();
    let opens =
        |storage: &Arc<dyn Storage>| fixture::open_with(storage, &passphrase("two")).is_ok();
    let (mut gone, mut there) = (0, 0);
    for at in 1..=whole.counts().total().operations {
        for when in [When::Before, When::After] {
            let inner = world.copy();
            let dies: Arc<dyn Storage> = dying(Arc::clone(&inner), at, when);
            let _ = remove(&dies);
            let is_there = opens(&inner);
            repair(&inner, None, true);
            assert_eq!(opens(&inner), is_there, "{at} {when:?}");
            let count = |is_there: bool| u64::from(is_there);
            (gone, there) = (gone + count(!is_there), there + count(is_there));
            // What was brought back by a storage of old is nobody's.
            for name in [two.clone(), format!("twins/{two}")] {
                inner.put(&name, before[&name].clone()).unwrap();
            }
            repair(&inner, None, true);
            assert_eq!(opens(&inner), is_there, "{at} {when:?}");
            remove(&inner).unwrap();
            assert!(
                !objects(inner.as_ref())
                    .keys()
                    .any(|name| name.ends_with(id))
            );
        }
    }
    assert!(gone > 2 && there > 2, "{gone} {there}");
}

#[test]
fn putting_them_right_may_die_at_any_moment() {
    let (world, all) = made();
    let slots = slots(&all);
    let damaged = world.copy();
    harm(damaged.as_ref(), &names::config(2), Harm::Flip, 50);
    harm(
        damaged.as_ref(),
        &format!("twins/{}", names::config(1)),
        Harm::Delete,
        0,
    );
    exchange(damaged.as_ref(), &all, &slots[0], &slots[1]);
    damaged
        .put(&names::config(7), Bytes::from_static(b"torn"))
        .unwrap();
    let damaged = objects(damaged.as_ref());
    let counting = Arc::new(Counting::new(storage_of(&damaged)));
    let counted: Arc<dyn Storage> = counting.clone();
    assert_eq!(repair(&counted, None, true).objects, 5);
    assert!(outside_quarantine(counted.as_ref()) == all);
    for at in 1..=counting.counts().total().operations {
        for when in [When::Before, When::After] {
            let inner = storage_of(&damaged);
            let dies: Arc<dyn Storage> = dying(Arc::clone(&inner), at, when);
            let _ = try_repair(&dies, None, &options(true));
            open(&inner);
            repair(&inner, None, true);
            assert!(outside_quarantine(inner.as_ref()) == all, "{at} {when:?}");
        }
    }
}
