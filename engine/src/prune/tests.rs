//! What a prune must never do, and what it must bring about, against plain maps of bytes.

mod damage;
mod interrupted;
mod races;
pub(crate) mod world;

use std::collections::BTreeMap;

use larder_format::names;

use super::plan::{MaxUnused, Why};
use super::*;
use crate::amend::{Outcome, Wish};
use crate::progress::Silent;
use crate::repository::InitOptions;
use crate::snapshots::fixture;
use crate::storage::Storage;
use crate::storage::error::ErrorKind;
use crate::storage::object::ObjectStorage;
use world::{World, options, run};

#[test]
fn what_is_forgotten_goes_and_what_lives_stays() {
    let mut world = World::filled();
    let before = world.bytes();
    let dry = PruneOptions {
        dry_run: true,
        ..options()
    };
    let objects = world.objects();
    let planned = run(&world.storage, &dry).unwrap();
    assert!(world.objects() == objects);
    assert!(!planned.plan.delete.is_empty() && !planned.plan.orphans.is_empty());
    assert!(!planned.plan.repack.is_empty());

    let report = run(&world.storage, &options()).unwrap();
    assert_eq!(report.plan, planned.plan);
    assert_eq!((report.round, &report.waiting), (Some(1), &None));
    assert!(
        report.packs_deleted as usize >= planned.plan.delete.len() + planned.plan.orphans.len()
    );
    assert!(report.packs_repacked > 0);
    world.verify();
    // What was freed is what was promised, roughly: the estimate is by share.
    let freed = before - world.bytes();
    let promised = report.plan.totals.freed_bytes;
    assert!(
        freed * 2 > promised && freed < promised * 2 + 20_000,
        "{freed} {promised}"
    );
    // Only live snapshots are left, no session, and one round with its state.
    let names: Vec<String> = world.objects().into_keys().collect();
    let count = |folder: &str| names.iter().filter(|name| name.starts_with(folder)).count();
    assert_eq!(count("snapshots/"), world.live().len());
    assert_eq!(
        (count("sessions/"), count("gc/"), count("reserve")),
        (0, 2, 1)
    );
    // And then there is nothing to do.
    let objects = world.objects();
    let again = run(&world.storage, &options()).unwrap();
    assert!(again.plan.is_empty() && again.round.is_none(), "{again:?}");
    assert!(world.objects() == objects);
    // Backups go on after it, and the next prune takes what they leave.
    world.write("late", &world::noise(90, 9000));
    world.back_up();
    world.forget(0);
    run(&world.storage, &options()).unwrap();
    world.verify();
}

#[test]
fn snapshots_restore_to_a_folder_after_repacking() {
    use crate::restore::{Overwrite, RestoreOptions, restore};
    use crate::snapshots::{Filter, list};

    let world = World::filled();
    run(&world.storage, &options()).unwrap();
    let repository = world.open();
    let snapshots = list(&repository, &Filter::default(), false).unwrap();
    assert_eq!(snapshots.len(), world.live().len());
    for snapshot in snapshots {
        let folder = tempfile::tempdir().unwrap();
        let options = RestoreOptions {
            target: folder.path().to_owned(),
            overwrite: Overwrite::Always,
            delete: false,
            include: Vec::new(),
            exclude: Vec::new(),
            sparse: false,
            dry_run: false,
            verify: true,
            no_owner: true,
            numeric_owner: false,
            map_uid: Vec::new(),
            map_gid: Vec::new(),
            in_place: false,
            devices: false,
            lost_as_zeros: false,
        };
        let source = world.source.path().as_os_str().as_encoded_bytes();
        let (silent, cancel) = (Silent, Cancel::default());
        let report = restore(
            &repository,
            &snapshot,
            Some(source),
            &options,
            &silent,
            &cancel,
        );
        assert_eq!(report.unwrap().failed, 0);
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            found.insert(name, std::fs::read(path).unwrap());
        }
        assert!(found == *world.truth(&snapshot.session));
    }
}

#[test]
fn little_is_left_behind_by_many_backups_and_prunes() {
    let rounds = std::env::var("LARDER_PRUNE_ROUNDS");
    let rounds: u32 = rounds.map_or(300, |text| text.parse().unwrap());
    let mut world = World::new();
    world.write("constant", &world::noise(1, 3000));
    for round in 0..rounds {
        world.write("changing", &round.to_le_bytes());
        world.back_up();
        if world.live().len() > 10 {
            world.forget(0);
        }
        run(&world.storage, &options()).unwrap();
    }
    let names: Vec<String> = world.objects().into_keys().collect();
    let others = names
        .iter()
        .filter(|name| !name.starts_with("packs/"))
        .count();
    assert!(others < 100, "{others}: {names:#?}");
    let packs = names.len() - others;
    assert!(packs < 200, "{packs}");
    world.verify();
}

#[test]
fn chunks_that_two_sessions_brought_are_kept_once() {
    let mut world = World::new();
    world.write("a", &world::noise(1, 20_000));
    world.back_up();
    let base = world.copy();
    for number in 0..20 {
        world.write(&format!("b{number}"), &world::noise(10 + number, 5000));
    }
    world.back_up();
    let with_one = world.bytes();
    // The same backup by somebody who saw nothing of the first.
    let mut other = world.aside(base);
    other.back_up();
    world.join(&other);
    assert!(world.bytes() > with_one + 90_000);
    let report = run(&world.storage, &options()).unwrap();
    world.verify();
    assert!(
        world.bytes() < with_one + 20_000,
        "{} {with_one}",
        world.bytes()
    );
    // One side goes whole: nothing has to be copied but perhaps what both packs hold besides.
    assert!(!report.plan.delete.is_empty(), "{:?}", report.plan);
}

#[test]
fn small_packs_and_segments_are_merged() {
    let mut world = World::new();
    for number in 0..40 {
        world.write(&format!("f{number}"), &world::noise(number, 2000));
        world.back_up();
    }
    let count = |world: &World, folder: &str| {
        let objects = world.objects();
        objects
            .keys()
            .filter(|name| name.starts_with(folder))
            .count()
    };
    assert!(count(&world, "packs/") >= 80 && count(&world, "index/") == 40);
    let report = run(&world.storage, &options()).unwrap();
    assert!(report.plan.repack.iter().any(|pack| pack.why == Why::Small));
    world.verify();
    run(&world.storage, &options()).unwrap();
    world.verify();
    assert!(
        count(&world, "packs/") <= 4,
        "{:#?}",
        world.objects().keys()
    );
    assert!(
        count(&world, "index/") <= 3,
        "{:#?}",
        world.objects().keys()
    );
}

#[test]
fn budgets_are_kept() {
    let world = World::filled();
    let nothing = PruneOptions {
        limits: Limits {
            max_unused: MaxUnused::Unlimited,
            max_repack_bytes: None,
        },
        ..options()
    };
    let storage = world.copy();
    let report = run(&storage, &nothing).unwrap();
    assert_eq!((report.packs_repacked, report.bytes_written), (0, 0));
    world.verify_on(&storage);
    let no_bytes = PruneOptions {
        limits: Limits {
            max_unused: MaxUnused::Percent(0.0),
            max_repack_bytes: Some(0),
        },
        ..options()
    };
    let storage = world.copy();
    assert_eq!(run(&storage, &no_bytes).unwrap().packs_repacked, 0);
    world.verify_on(&storage);
    // With no time left, what can be deleted still is, and the plan says what else there is to do.
    let no_time = PruneOptions {
        max_duration: Some(Duration::ZERO),
        ..options()
    };
    let storage = world.copy();
    let report = run(&storage, &no_time).unwrap();
    assert_eq!(report.packs_repacked, 0);
    assert!(!report.plan.repack.is_empty() && report.packs_deleted > 0);
    world.verify_on(&storage);
}

#[test]
fn what_is_not_known_is_not_pruned() {
    let world = World::filled();
    let storage = world.copy();
    storage
        .create("parity/00", bytes::Bytes::from_static(b"x"))
        .unwrap();
    let objects = world::objects(storage.as_ref());
    let error = run(&storage, &options()).unwrap_err().to_string();
    assert!(error.contains("parity/00"), "{error}");
    assert!(world::objects(storage.as_ref()) == objects);

    let storage = world.copy();
    let repository = world::open(&storage);
    let mut config = repository.config();
    config.number += 1;
    config.collect_features = vec!["moonlight".to_owned()];
    let object = config.seal(repository.keyring(), [1; 16]).unwrap();
    storage
        .create(&names::config(config.number), object.into())
        .unwrap();
    let objects = world::objects(storage.as_ref());
    let error = prune(&repository, &options(), &Silent, &Cancel::default());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("moonlight"), "{error}");
    assert!(world::objects(storage.as_ref()) == objects);
}

#[test]
fn a_storage_that_cannot_decide_is_pruned_only_if_that_is_accepted() {
    let mut world = World::filled();
    let storage: Arc<dyn Storage> = Arc::new(world::Hooked {
        is_racy: true,
        ..world::Hooked::new(Arc::clone(&world.storage))
    });
    world.write("more", &world::noise(99, 3000));
    let objects = world.objects();
    let error = run(&storage, &options()).unwrap_err().to_string();
    assert!(
        error.contains("cannot decide which of two writers was first")
            && error.contains("--accept-racy-creates"),
        "{error}"
    );
    assert!(world::objects(storage.as_ref()) == objects);
    // Backups need no decision, nor does a look at what a prune would do.
    world.try_back_up(&storage).unwrap();
    let dry = PruneOptions {
        dry_run: true,
        ..options()
    };
    assert!(!run(&storage, &dry).unwrap().plan.delete.is_empty());
    let accepting = PruneOptions {
        accept_racy_creates: true,
        ..options()
    };
    run(&storage, &accepting).unwrap();
    world.verify_on(&storage);
}

#[test]
fn a_storage_that_was_found_to_lie_is_pruned_only_if_that_is_accepted() {
    let storage: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
    let lying = InitOptions {
        racy_creates: true,
        ..fixture::init_options()
    };
    Repository::init_on(storage.as_ref(), &fixture::passphrase("secret"), &lying).unwrap();
    let error = run(&storage, &options()).unwrap_err().to_string();
    assert!(error.contains("--accept-racy-creates"), "{error}");
    let accepting = PruneOptions {
        accept_racy_creates: true,
        ..options()
    };
    run(&storage, &accepting).unwrap();
    // Whatever does not collect knows nothing of it.
    world::open(&storage).check_write().unwrap();
}

#[test]
fn what_a_probe_left_is_no_reason_not_to_prune() {
    let world = World::filled();
    let storage = world.copy();
    let name = "probe/00/object";
    storage
        .create(name, bytes::Bytes::from_static(b"x"))
        .unwrap();
    run(&storage, &options()).unwrap();
    assert!(world::objects(storage.as_ref()).contains_key(name));
    world.verify_on(&storage);
}

#[test]
fn on_a_full_storage_snapshots_can_be_forgotten_and_pruned() {
    let mut world = World::filled();
    run(&world.storage, &options()).unwrap();
    let objects = world.objects();
    assert!(objects.contains_key(names::RESERVE));
    let used = objects.values().map(|bytes| bytes.len() as u64).sum();
    let storage: Arc<dyn Storage> = Arc::new(world::Hooked {
        room: Some(used),
        ..world::Hooked::new(Arc::clone(&world.storage))
    });
    let id = *world.live().first().unwrap();
    let is_full = |error: &EngineError| matches!(error, EngineError::Storage(error) if error.kind == ErrorKind::Full);
    // The reserve is for those who make room.
    let pinned = world.amend_on(&storage, &id, &Wish::Pin);
    assert!(pinned.is_err_and(|error| is_full(&error)));
    assert!(world.objects().contains_key(names::RESERVE));
    assert_eq!(world.try_forget(&storage, 0).unwrap(), Outcome::Amended);
    let report = run(&storage, &options()).unwrap();
    assert!(report.packs_deleted > 0, "{report:?}");
    world.verify();
    assert!(world.objects().contains_key(names::RESERVE));
}

#[test]
fn an_interrupted_run_stops_and_loses_nothing() {
    let world = World::filled();
    let cancel = Cancel::default();
    cancel.request();
    let outcome = prune(&world.open(), &options(), &Silent, &cancel);
    assert!(matches!(outcome, Err(EngineError::Interrupted)));
    world.verify();
}
