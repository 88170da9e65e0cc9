use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use larder_format::ids::ReplicaId;
use larder_format::keys::KEYRING_RANDOM_BYTES;
use larder_format::object::object_id;

use super::faults::{Fault, Mend, Opener, Pair, of_slots};
use super::*;
use crate::check::Problem;
use crate::keys;
use crate::prune::tests::world::{Hooked, dying, objects};
use crate::repository::{InitOptions, OpenOptions, Repository};
use crate::snapshots::fixture::{KDF, init, init_options, open, open_with, passphrase};
use crate::storage::counting::Counting;
use crate::storage::error::Operation;
use crate::storage::faulty::When;
use crate::storage::object::ObjectStorage;

type Objects = BTreeMap<String, Bytes>;

/// A repository with two passwords, "secret" and "two", and so two configs.
fn made() -> (Arc<dyn Storage>, Arc<Repository>, Objects) {
    let storage: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
    init(storage.as_ref());
    let repository = open(&storage);
    keys::add(&repository, &passphrase("two"), false, "second", KDF).unwrap();
    let all = objects(storage.as_ref());
    (storage, repository, all)
}

fn storage_of(objects: &Objects) -> Arc<dyn Storage> {
    let storage = ObjectStorage::memory();
    for (name, bytes) in objects {
        storage.put(name, bytes.clone()).unwrap();
    }
    Arc::new(storage)
}

fn try_open(objects: &Objects, secret: &str) -> Result<Arc<Repository>> {
    open_with(&storage_of(objects), &passphrase(secret))
}

/// Ways in which an object may be damaged; none for one that is missing.
fn damages(bytes: &Bytes) -> Vec<Option<Bytes>> {
    let mut ways = vec![
        None,
        Some(Bytes::new()),
        Some(bytes.slice(..bytes.len() - 1)),
    ];
    for at in [0, 8, 9, 70, bytes.len() / 2, bytes.len() - 1] {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 0x10;
        ways.push(Some(flipped.into()));
    }
    ways.push(Some([bytes, [0; 100_000].as_slice()].concat().into()));
    ways
}

fn put(objects: &Objects, name: &str, bytes: Option<Bytes>) -> Objects {
    let mut objects = objects.clone();
    match bytes {
        Some(bytes) => drop(objects.insert(name.to_owned(), bytes)),
        None => drop(objects.remove(name)),
    }
    objects
}

fn twin_of(name: &str) -> String {
    names::parse(name).unwrap().twin().unwrap().to_string()
}

/// A config that somebody without the keys made.
fn planted(repository: &Repository, number: u64, change: impl Fn(&mut Config)) -> Bytes {
    let id = repository.config().repository;
    let stranger = Keyring::generate(id, &[3; KEYRING_RANDOM_BYTES]);
    let mut config = Config {
        number,
        ..repository.config()
    };
    change(&mut config);
    config.seal(&stranger, [1; 16]).unwrap().into()
}

#[test]
fn each_config_and_slot_has_its_twin_and_opening_never_asks_for_one() {
    let (storage, repository, all) = made();
    for name in all.keys().filter(|name| !name.starts_with("twins/")) {
        assert_eq!(all.get(&twin_of(name)), Some(&all[name]), "{name}");
    }
    let counting = Arc::new(Counting::new(Arc::clone(&storage)));
    for (secret, gets) in [("secret", 3), ("two", 3)] {
        let counted: Arc<dyn Storage> = counting.clone();
        open_with(&counted, &passphrase(secret)).unwrap();
        let counts = counting.take();
        assert_eq!(counts.of(Operation::List).operations, 2, "{:?}", counts.log);
        assert_eq!(counts.total().operations, 2 + gets, "{:?}", counts.log);
    }
    // What is removed goes with its twin.
    let two = repository.config().slots;
    let two = two.iter().find(|id| **id != repository.current_slot());
    let two = two.unwrap().to_hex();
    keys::remove(&repository, &two).unwrap();
    assert!(
        !objects(storage.as_ref())
            .keys()
            .any(|name| name.contains(&two))
    );
    keys::replace_current(&repository, &passphrase("new"), KDF).unwrap();
    let left = objects(storage.as_ref());
    assert_eq!(left.keys().filter(|name| name.contains("keys/")).count(), 2);
    assert_eq!(
        left.keys().filter(|name| name.contains("config/")).count(),
        8
    );
}

#[test]
fn whatever_is_damaged_its_twin_opens_the_repository() {
    let (_, _, all) = made();
    for (name, bytes) in &all {
        for way in damages(bytes) {
            let one = put(&all, name, way.clone());
            for secret in ["secret", "two"] {
                let opened = try_open(&one, secret).unwrap();
                // Whom the older config lists does not miss a newer one that is gone.
                let is_older = way.is_none() && *name == names::config(2) && secret == "secret";
                let number = if is_older { 1 } else { 2 };
                assert_eq!(opened.config().number, number, "{name}");
                assert_eq!(opened.config().slots.len() as u64, number);
            }
            assert!(matches!(
                try_open(&one, "three"),
                Err(EngineError::WrongSecret { .. })
            ));
        }
    }
    // Without twins it is as it was before there were any.
    let mut bare = all.clone();
    bare.retain(|name, _| !name.starts_with("twins/"));
    try_open(&bare, "secret").unwrap();
    let newest = names::config(2);
    for way in damages(&all[&newest]) {
        let opened = try_open(&put(&bare, &newest, way.clone()), "secret").unwrap();
        assert_eq!(opened.config().number, 1);
        // The second password came with the config that is damaged.
        match try_open(&put(&bare, &newest, way.clone()), "two") {
            Err(EngineError::WrongSecret { .. }) if way.is_none() => {}
            Err(EngineError::Damaged { object, .. }) if way.is_some() => assert_eq!(object, newest),
            Err(EngineError::Unsupported { .. }) if way.is_some() => {}
            other => panic!("{:?}", other.map(|_| ())),
        }
    }
}

#[test]
fn what_nobody_with_a_key_put_there_stops_nothing() {
    let (_, repository, all) = made();
    let torn = all[&names::config(2)].slice(..60);
    let strange = |config: &mut Config| config.repository = RepositoryId([7; 16]);
    let plants = [
        planted(&repository, 3, |_| {}),
        planted(&repository, 3, |config| config.slots = Vec::new()),
        planted(&repository, 3, |config| {
            config.slots = vec![SlotId([1; 16])]
        }),
        planted(&repository, 3, strange),
        planted(&repository, 3, |config| {
            config.read_features = vec!["mirage".to_owned()];
        }),
        all[&names::config(2)].clone(),
        torn,
        Bytes::new(),
    ];
    for plant in plants {
        for name in [names::config(3), twin_of(&names::config(3))] {
            let one = put(&all, &name, Some(plant.clone()));
            for secret in ["secret", "two"] {
                let opened = try_open(&one, secret).unwrap();
                assert_eq!(opened.config().number, 2, "{name}");
            }
            Repository::probe(storage_of(&one).as_ref()).unwrap();
        }
    }
    let many = (3..100).fold(all.clone(), |all, number| {
        put(
            &all,
            &names::config(number),
            Some(planted(&repository, number, |_| {})),
        )
    });
    assert_eq!(try_open(&many, "two").unwrap().config().number, 2);
    // It stands where the next change would, which is said.
    let one = put(
        &all,
        &names::config(3),
        Some(planted(&repository, 3, |_| {})),
    );
    let opened = try_open(&one, "secret").unwrap();
    let refused = keys::add(&opened, &passphrase("three"), false, "", KDF).unwrap_err();
    assert!(
        refused.to_string().contains("larder repair --apply"),
        "{refused}"
    );
}

#[test]
fn a_password_that_was_removed_opens_nothing_whoever_brings_its_slot_back() {
    let (storage, repository, before) = made();
    let two = repository.config().slots;
    let two = *two
        .iter()
        .find(|id| **id != repository.current_slot())
        .unwrap();
    keys::remove(&repository, &two.to_hex()).unwrap();
    let mut after = objects(storage.as_ref());
    for name in [Name::Slot(two), Name::SlotTwin(two)] {
        let name = name.to_string();
        after.insert(name.clone(), before[&name].clone());
    }
    let is_refused = |objects: &Objects| {
        matches!(
            try_open(objects, "two"),
            Err(EngineError::WrongSecret { .. })
        )
    };
    assert!(is_refused(&after));
    // Not even if a config that lists it is made up, or the newest one is taken away.
    let listing = planted(&repository, 4, |config| {
        config.slots.push(two);
        config.slots.sort_unstable();
    });
    assert!(is_refused(&put(&after, &names::config(4), Some(listing))));
    let machine = tempfile::tempdir().unwrap();
    let open_here = |objects: &Objects, secret: &str| {
        let options = OpenOptions {
            cache_dir: Some(std::env::temp_dir().join("larder-tests")),
            state_dir: Some(machine.path().to_owned()),
            cache: crate::repository::Cache::Memory,
            ..OpenOptions::default()
        };
        Repository::open_on(storage_of(objects), &passphrase(secret), &options)
    };
    let seen = open_here(&after, "secret").unwrap();
    seen.memory().note(&crate::memory::Remembered {
        config: 3,
        ..Default::default()
    });
    let rolled = put(&after, &names::config(3), None);
    // Whoever never saw it cannot tell; who did reads its twin.
    assert!(try_open(&rolled, "two").is_ok());
    assert!(matches!(
        open_here(&rolled, "two"),
        Err(EngineError::WrongSecret { .. })
    ));
    assert_eq!(open_here(&rolled, "secret").unwrap().config().number, 3);
}

#[test]
fn a_config_whose_twin_alone_is_left_counts_where_the_older_one_does_not_open() {
    let (storage, repository, _) = made();
    keys::replace_current(&repository, &passphrase("new"), KDF).unwrap();
    let all = put(&objects(storage.as_ref()), &names::config(3), None);
    assert_eq!(try_open(&all, "new").unwrap().config().number, 3);
    assert!(matches!(
        try_open(&all, "secret"),
        Err(EngineError::WrongSecret { .. })
    ));
    // A config that is gone with its twin was never there, as far as anybody can tell.
    let all = put(&all, &twin_of(&names::config(3)), None);
    assert!(matches!(
        try_open(&all, "new"),
        Err(EngineError::WrongSecret { .. })
    ));
}

#[test]
fn exchanged_slots_open_with_their_own_secrets() {
    let (_, repository, all) = made();
    let ids = repository.config().slots;
    let [a, b] = [names::slot(&ids[0]), names::slot(&ids[1])];
    let mut exchanged = put(&all, &a, Some(all[&b].clone()));
    exchanged = put(&exchanged, &b, Some(all[&a].clone()));
    let mut bare = exchanged.clone();
    bare.retain(|name, _| !name.starts_with("twins/"));
    for objects in [&exchanged, &bare] {
        let [one, two] = ["secret", "two"].map(|secret| try_open(objects, secret).unwrap());
        assert_eq!(one.current_slot(), repository.current_slot());
        assert_ne!(two.current_slot(), repository.current_slot());
    }
    // One has the other's bytes, and its own twin.
    let doubled = put(&all, &a, Some(all[&b].clone()));
    for secret in ["secret", "two"] {
        try_open(&doubled, secret).unwrap();
    }
}

/// Slots that are whole, by number, with what stands in their places and in those of their twins: 0 for nothing.
fn judged(opener: u8, places: &[(u8, u8, u8)]) -> Vec<(String, Mend)> {
    let (_, repository, all) = made();
    let some = &all[&names::slot(&repository.current_slot())];
    let bytes = |number: u8| -> std::result::Result<Bytes, Problem> {
        if number == 0 {
            return Err(Problem::Missing);
        }
        // Whole, and each another.
        let mut object = some[..some.len() - 32].to_vec();
        object[60] ^= number;
        Ok(larder_format::object::close(object).into())
    };
    let id = |number: u8| SlotId([number; 16]);
    let pair = |(_, original, twin): &(u8, u8, u8)| Pair {
        original: bytes(*original),
        twin: bytes(*twin),
    };
    let pairs = places.iter().map(|one| (id(one.0), pair(one))).collect();
    let opener = Opener {
        slot: id(opener),
        object: object_id(&bytes(opener).unwrap()),
    };
    let word = |name: &Name| match name {
        Name::Slot(id) => format!("slot {}", id.0[0]),
        Name::SlotTwin(id) => format!("twin {}", id.0[0]),
        _ => unreachable!(),
    };
    let told = |fault: Fault| (word(&fault.name), fault.mend);
    of_slots(&opener, &pairs).into_iter().map(told).collect()
}

#[test]
fn whose_bytes_a_slot_has_is_known_by_who_opened_and_by_what_agrees() {
    let slot = |number: u8| Mend::From(Name::Slot(SlotId([number; 16])));
    let twin = |number: u8| Mend::From(Name::SlotTwin(SlotId([number; 16])));
    let told = |expected: &[(&str, Mend)]| -> Vec<(String, Mend)> {
        expected
            .iter()
            .map(|(name, mend)| ((*name).to_owned(), *mend))
            .collect()
    };
    let is = |opener, places: &[(u8, u8, u8)], expected: &[(&str, Mend)]| {
        assert_eq!(judged(opener, places), told(expected), "{places:?}");
    };
    is(1, &[(1, 1, 1), (2, 2, 2)], &[]);
    is(
        1,
        &[(1, 1, 0), (2, 0, 2)],
        &[("twin 1", slot(1)), ("slot 2", twin(2))],
    );
    // Slots, twins, and a slot with another's bytes.
    is(
        1,
        &[(1, 2, 1), (2, 1, 2)],
        &[("slot 1", twin(1)), ("slot 2", twin(2))],
    );
    is(
        1,
        &[(1, 1, 2), (2, 2, 1)],
        &[("twin 1", slot(1)), ("twin 2", slot(2))],
    );
    is(1, &[(1, 1, 1), (2, 1, 2)], &[("slot 2", twin(2))]);
    is(
        1,
        &[(1, 1, 1), (2, 2, 2), (3, 2, 3)],
        &[("slot 3", twin(3))],
    );
    // Without twins: those that opened tell where they belong, and so where the others do.
    is(
        1,
        &[(1, 2, 0), (2, 1, 0)],
        &[
            ("slot 1", slot(2)),
            ("twin 1", slot(2)),
            ("slot 2", slot(1)),
            ("twin 2", slot(1)),
        ],
    );
    is(
        1,
        &[(1, 0, 0), (2, 2, 0)],
        &[("slot 1", Mend::Nothing), ("twin 2", slot(2))],
    );
    // Two that took each other's places, or their twins did: only their secrets tell.
    is(
        1,
        &[(1, 1, 1), (2, 3, 2), (3, 2, 3)],
        &[("slot 2", Mend::Nothing), ("slot 3", Mend::Nothing)],
    );
    is(
        2,
        &[(1, 1, 1), (2, 3, 2), (3, 2, 3)],
        &[("slot 2", twin(2)), ("slot 3", twin(3))],
    );
}

#[test]
fn what_nobody_vouches_for_costs_a_bounded_time_and_nothing_is_derived_twice() {
    let (_, repository, all) = made();
    let third = planted(&repository, 3, |config| config.replica = ReplicaId([9; 16]));
    let storage = storage_of(&put(&all, &names::config(3), Some(third)));
    let listed = numbers(storage.as_ref(), names::CONFIGS).unwrap();
    let candidates = Candidates::read(storage.as_ref(), &listed).unwrap();
    assert_eq!(candidates.sound.len(), 3);
    let secret = passphrase("secret");
    let mut search = Search::new(storage.as_ref(), &secret);
    search.cost_kib = COST_KIB_MAX;
    search.try_slots(&candidates.sound[0], false).unwrap();
    assert!(search.unlocked.is_none() && search.tried.is_empty());
    search.cost_kib = 0;
    search.try_slots(&candidates.sound[0], false).unwrap();
    assert!(search.unlocked.take().is_some());
    assert_eq!(search.tried.len(), 2);
    search.try_slots(&candidates.sound[1], true).unwrap();
    assert!(search.unlocked.is_none());
    assert_eq!(search.tried.len(), 2);
}

fn init_of(secret: &str) -> impl Fn(&dyn Storage) -> Result<()> {
    let secret = secret.to_owned();
    move |storage| {
        let options = InitOptions {
            reserve_bytes: 500,
            ..init_options()
        };
        Repository::init_on(storage, &passphrase(&secret), &options).map(drop)
    }
}

#[test]
fn of_two_inits_one_wins_whenever_the_other_comes_between() {
    let whole = Hooked::new(storage_of(&Objects::new()));
    init_of("one")(&whole).unwrap();
    let operations = whole.operations();
    let (mut first, mut second) = (0, 0);
    for at in 1..=operations {
        let inner = storage_of(&Objects::new());
        let (between, outcome) = (Arc::clone(&inner), Arc::new(Mutex::new(None)));
        let told = Arc::clone(&outcome);
        let hooked = Hooked::before(Arc::clone(&inner), at, move || {
            *told.lock().unwrap() = Some(init_of("two")(between.as_ref()));
        });
        let one = init_of("one")(&hooked);
        let two = outcome.lock().unwrap().take().unwrap();
        let (winner, loser) = match (&one, &two) {
            (Ok(()), Err(EngineError::RepositoryExists { .. })) => ("one", "two"),
            (Err(EngineError::RepositoryExists { .. }), Ok(())) => ("two", "one"),
            other => panic!("{at}: {other:?}"),
        };
        first += u64::from(winner == "one");
        second += u64::from(winner == "two");
        open_with(&inner, &passphrase(winner)).unwrap();
        let lost = open_with(&inner, &passphrase(loser));
        assert!(matches!(lost, Err(EngineError::WrongSecret { .. })), "{at}");
        // Nothing of the other one is left: a config, a slot, their twins, a reserve.
        assert_eq!(objects(inner.as_ref()).len(), 5, "{at}");
    }
    assert!(first > 0 && second > 5, "{first} {second}");
}

#[test]
fn an_init_that_died_stands_in_no_other_ones_way() {
    let whole = Hooked::new(storage_of(&Objects::new()));
    init_of("one")(&whole).unwrap();
    for at in 1..=whole.operations() {
        for when in [When::Before, When::After] {
            let inner = storage_of(&Objects::new());
            let _ = init_of("one")(dying(Arc::clone(&inner), at, when).as_ref());
            let opens = open_with(&inner, &passphrase("one"));
            let again = init_of("two")(inner.as_ref());
            match (opens, again) {
                (Ok(_), Err(EngineError::RepositoryExists { .. })) => {}
                (Err(EngineError::NoRepository { .. }), Ok(())) => {
                    open_with(&inner, &passphrase("two")).unwrap();
                }
                (opens, again) => panic!("{at} {when:?}: {:?} {again:?}", opens.map(drop)),
            }
        }
    }
}
