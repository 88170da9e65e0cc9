//! Parity in the life of a repository: backups, damage, repairs, prunes, deaths.

use std::sync::Arc;

use super::super::{BuildOptions, ParityStatus, build, set, status};
use crate::cancel::Cancel;
use crate::check::{CheckOptions, CheckReport, Healing, ReadData, Severity, check};
use crate::error::Result;
use crate::progress::Silent;
use crate::prune::tests::world::{
    Hooked, World, dying, noise, options as prune_options, read_files, run,
};
use crate::repair::{Repair, RepairOptions, RepairReport, undo};
use crate::repository::{OpenOptions, Repository};
use crate::session::Author;
use crate::snapshots::fixture;
use crate::storage::Storage;
use crate::storage::faulty::{Faulty, When};
use larder_format::names;

fn repair(storage: &Arc<dyn Storage>, apply: bool) -> RepairReport {
    let options = RepairOptions {
        apply,
        read_data: true,
        cuts_lost: false,
        author: Author {
            host: "desk".to_owned(),
            user: "me".to_owned(),
        },
    };
    let (scratch, cancel) = (std::env::temp_dir(), Cancel::default());
    let open = OpenOptions {
        cache: crate::repository::Cache::Memory,
        cache_dir: Some(scratch.join("larder-tests")),
        ..OpenOptions::default()
    };
    let repair = Repair::prepare(storage, None, &scratch, &options, &Silent, &cancel).unwrap();
    let secret = fixture::passphrase("secret");
    let repository = Repository::open_on(repair.storage(), &secret, &open).unwrap();
    repair.run(&repository, &open).unwrap()
}

/// Reads all there is; without the notes on what an interrupted backup left.
fn check_all(storage: &Arc<dyn Storage>) -> CheckReport {
    let options = CheckOptions {
        read_data: ReadData::All,
        records_suspects: false,
    };
    let (repository, cancel) = (fixture::open(storage), Cancel::default());
    let mut report = check(&repository, &options, &Silent, &cancel).unwrap();
    report.findings.retain(|one| one.severity != Severity::Note);
    report
}

fn status_of(storage: &Arc<dyn Storage>) -> ParityStatus {
    status(&fixture::open(storage), &Cancel::default()).unwrap()
}

fn build_all(storage: &Arc<dyn Storage>) -> Result<super::super::BuildReport> {
    let repository = fixture::open(storage);
    build(
        &repository,
        &BuildOptions::default(),
        &Silent,
        &Cancel::default(),
    )
}

/// A repository all of whose packs have parity of this share, some by a backup and some by a build.
fn world(percent: u8) -> World {
    let mut world = World::filled();
    set(&world.open(), Some(percent)).unwrap();
    world.write("late", &noise(80, 40_000));
    world.back_up();
    assert!(status_of(&world.storage).protected > 0);
    let built = build_all(&world.storage).unwrap();
    assert!(built.packs > 0 && built.left == 0);
    let status = status_of(&world.storage);
    assert_eq!(
        (status.packs, status.percent),
        (status.protected, Some(percent))
    );
    assert_eq!(build_all(&world.storage).unwrap().packs, 0);
    world
}

fn below(storage: &dyn Storage, folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut take = |object: crate::storage::ObjectInfo| {
        found.push(object.name);
        Ok(())
    };
    storage.list(folder, &mut take).unwrap();
    found
}

#[test]
fn every_pack_comes_back_whole_and_undoing_takes_it_away_again() {
    let world = world(100);
    let storage = &world.storage;
    let before = world.objects();
    for name in below(storage.as_ref(), names::PACKS) {
        let mut flipped = before[&name].to_vec();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        for damaged in [None, Some(flipped), Some(Vec::new())] {
            match damaged {
                None => storage.delete(&name).unwrap(),
                Some(bytes) => storage.put(&name, bytes.into()).unwrap(),
            }
            let harmed = world.objects();
            let dry = repair(storage, false);
            assert_eq!(world.objects(), harmed);
            let done = repair(storage, true);
            assert_eq!(dry.mended, done.mended);
            // What no segment names is nobody's loss.
            if done.objects == 0 {
                storage.put(&name, before[&name].clone()).unwrap();
                continue;
            }
            assert_eq!(done.mended.len(), 1, "{:?}", done.mended);
            let mended = &done.mended[0];
            assert_eq!((&mended.object, mended.from), (&name, Healing::Parity));
            assert_eq!((done.left, done.lost), (0, 0));
            assert_eq!(storage.get(&name, 1 << 30).unwrap(), before[&name]);
            let author = Author {
                host: String::new(),
                user: String::new(),
            };
            let id = done.repair.unwrap();
            let never = Cancel::default();
            undo(storage.as_ref(), &id, &author, false, &Silent, &never).unwrap();
            assert_eq!(storage.get(&name, 1 << 30).ok(), harmed.get(&name).cloned());
            storage.put(&name, before[&name].clone()).unwrap();
        }
    }
    world.verify();
}

#[test]
fn a_check_tells_what_parity_suffices_for() {
    let world = world(10);
    let storage = &world.storage;
    let clean = check_all(storage);
    assert!(clean.findings.is_empty(), "{:?}", clean.findings);
    let largest = below(storage.as_ref(), names::PACKS)
        .into_iter()
        .max_by_key(|name| storage.size(name).unwrap())
        .unwrap();
    let sound = storage.get(&largest, 1 << 30).unwrap();
    let mut flipped = sound.to_vec();
    flipped[sound.len() / 2] ^= 1;
    storage.put(&largest, flipped.into()).unwrap();
    let found = check_all(storage);
    assert!(found.findings.iter().any(|one| one.object == largest));
    assert_eq!(found.healable, [largest.clone()].into());
    storage.put(&largest, vec![0; sound.len()].into()).unwrap();
    assert_eq!(check_all(storage).healable, [].into());
    assert!(
        !repair(storage, false)
            .mended
            .iter()
            .any(|one| one.object == largest)
    );
}

#[test]
fn damaged_parity_costs_no_data_and_is_made_anew() {
    let world = world(10);
    let storage = &world.storage;
    let before = world.objects();
    for name in below(storage.as_ref(), names::PARITY) {
        let mut flipped = before[&name].to_vec();
        let last = flipped.len() - 1;
        flipped[last] ^= 1;
        storage.put(&name, flipped.into()).unwrap();
        let found = check_all(storage);
        assert_eq!(found.findings.len(), 1, "{:?}", found.findings);
        let finding = &found.findings[0];
        assert_eq!(
            (finding.severity, &finding.object),
            (Severity::Harmless, &name)
        );
        let done = repair(storage, true);
        assert_eq!((done.objects, done.mended[0].from), (1, Healing::Directory));
        assert_eq!(storage.get(&name, 1 << 30).unwrap(), before[&name]);
        // What tells no group any more is put aside, and its packs are protected anew.
        storage.put(&name, vec![1; 90].into()).unwrap();
        let done = repair(storage, true);
        assert_eq!((done.objects, done.mended[0].from), (1, Healing::Anew));
        assert!(storage.size(&name).is_err());
        assert!(build_all(storage).unwrap().objects > 0);
        assert!(check_all(storage).findings.is_empty());
    }
}

#[test]
fn a_prune_takes_parity_away_with_its_packs_and_gives_it_to_new_ones() {
    let mut world = world(100);
    let before = below(world.storage.as_ref(), names::PARITY).len();
    for name in ["long", "late", "new"] {
        world.remove(name);
    }
    world.back_up();
    for _ in 1..world.live().len() {
        world.forget(0);
    }
    let report = run(&world.storage, &prune_options()).unwrap();
    assert!(
        report.packs_deleted > 0 && report.parity_deleted > 0,
        "{report:?}"
    );
    let status = status_of(&world.storage);
    assert_eq!(status.packs, status.protected, "repacked ones, too");
    assert!(
        (status.objects as usize) < before,
        "{} of {before}",
        status.objects
    );
    world.verify();
    assert!(check_all(&world.storage).findings.is_empty());
    set(&world.open(), None).unwrap();
    assert!(build_all(&world.storage).is_err());
}

#[test]
fn a_budget_leaves_the_rest_for_the_next_run() {
    let world = World::filled();
    set(&world.open(), Some(50)).unwrap();
    let all = status_of(&world.storage);
    assert_eq!(all.protected, 0);
    let options = |dry_run, max_bytes| BuildOptions { dry_run, max_bytes };
    let build = |options: BuildOptions| {
        build(&world.open(), &options, &Silent, &Cancel::default()).unwrap()
    };
    let planned = build(options(true, None));
    assert_eq!(
        (planned.packs, planned.bytes_read),
        (all.packs, all.pack_bytes)
    );
    assert_eq!(status_of(&world.storage).protected, 0);
    let some = build(options(false, Some(all.pack_bytes / 2)));
    assert!(
        some.left > 0 && some.bytes_read <= all.pack_bytes / 2,
        "{some:?}"
    );
    let rest = build(options(false, None));
    assert_eq!((some.packs + rest.packs, rest.left), (all.packs, 0));
}

#[test]
fn a_backup_that_cannot_write_parity_or_dies_there_loses_nothing() {
    let mut world = world(50);
    world.write("more", &noise(90, 30_000));
    let denied: Arc<dyn Storage> = Arc::new(Hooked {
        denied: Some(names::PARITY),
        ..Hooked::new(Arc::clone(&world.storage))
    });
    let before = below(world.storage.as_ref(), names::PARITY);
    world.try_back_up(&denied).unwrap();
    assert_eq!(below(world.storage.as_ref(), names::PARITY), before);
    world.verify();
    world.write("again", &noise(91, 30_000));
    let opening = {
        let counting = Arc::new(Faulty::new(world.copy()));
        let storage: Arc<dyn Storage> = Arc::clone(&counting) as Arc<dyn Storage>;
        fixture::open(&storage);
        counting.operations()
    };
    // The first operation has the number 1.
    for at in opening + 1..opening + 41 {
        for when in [When::Before, When::After] {
            let copy = world.copy();
            let mut aside = world.aside(Arc::clone(&copy));
            let dying: Arc<dyn Storage> = dying(copy, at, when);
            if aside.try_back_up(&dying).is_err() {
                aside.back_up();
            }
            let repository = fixture::open(&aside.storage);
            let view = crate::view::read(&repository, false, None).unwrap();
            for id in aside.live() {
                let found = read_files(&repository, &view.cells[&id]);
                assert!(found == *aside.truth(&id), "{at} {when:?}");
            }
            if at % 9 == 0 {
                assert!(check_all(&aside.storage).findings.is_empty());
            }
        }
    }
}
