//! A prune that dies before or after any of its operations, and one on a full or read-only storage.

use super::world::{Hooked, World, bytes_of, dying, options, run};
use super::*;
use crate::storage::error::{ErrorKind, Operation};
use crate::storage::faulty::{Fault, Faulty, When};

/// Prunes until there is nothing left to do.
fn settle(storage: &Arc<dyn Storage>) {
    for _ in 0..5 {
        if run(storage, &options()).unwrap().round.is_none() {
            return;
        }
    }
    assert!(run(storage, &options()).unwrap().plan.is_empty());
}

#[test]
fn whichever_operation_is_the_last_nothing_is_lost_and_the_next_run_cleans_up() {
    let world = World::filled();
    let whole = world.copy();
    let counter = Arc::new(Faulty::new(Arc::clone(&whole)));
    let counting: Arc<dyn Storage> = counter.clone();
    run(&counting, &options()).unwrap();
    let operations = counter.operations();
    settle(&whole);
    let expected = bytes_of(whole.as_ref());
    assert!(operations > 60, "{operations}");
    for at in 1..=operations {
        for when in [When::Before, When::After] {
            let storage = world.copy();
            let faulty: Arc<dyn Storage> = dying(Arc::clone(&storage), at, when);
            let outcome = run(&faulty, &options());
            assert!(
                outcome.is_err() || when == When::After || at + 3 > operations,
                "{at}"
            );
            // What others see meanwhile is whole, too.
            if at % 5 == 0 {
                world.verify_on(&storage);
            }
            settle(&storage);
            world.verify_on(&storage);
            let found = bytes_of(storage.as_ref());
            assert!(
                found <= expected + expected / 20,
                "{at} {when:?}: {found} {expected}"
            );
        }
    }
}

#[test]
fn a_storage_that_takes_no_writes_is_left_as_it_is() {
    let world = World::filled();
    let before = world.objects();
    let faulty = Faulty::new(Arc::clone(&world.storage));
    for operation in [Operation::Put, Operation::Create, Operation::Delete] {
        faulty.inject(Fault {
            operation: Some(operation),
            lasts: true,
            ..Fault::error(1, When::Before, ErrorKind::ReadOnly)
        });
    }
    let storage: Arc<dyn Storage> = Arc::new(faulty);
    let error = run(&storage, &options()).unwrap_err().to_string();
    assert!(error.contains("writable"), "{error}");
    assert!(world.objects() == before);
    // With nothing to do there is nothing to write.
    let dry = PruneOptions {
        dry_run: true,
        ..options()
    };
    run(&storage, &dry).unwrap();
}

#[test]
fn a_full_storage_is_pruned_by_way_of_the_reserve() {
    let world = World::filled();
    let reserve = crate::format::object::reserve(5000, [1; 16], &[2; 32]);
    world
        .storage
        .create(names::RESERVE, reserve.into())
        .unwrap();
    let total: u64 = world
        .objects()
        .values()
        .map(|bytes| bytes.len() as u64)
        .sum();
    let full: Arc<dyn Storage> = Arc::new(Hooked {
        room: Some(total),
        ..Hooked::new(Arc::clone(&world.storage))
    });
    let report = run(&full, &options()).unwrap();
    assert!(report.packs_deleted > 0, "{report:?}");
    assert_eq!(report.packs_repacked, 0);
    assert!(report.warnings.iter().any(|text| text.contains("full")));
    world.verify();
    // Once there is room, the rest is done, too, and the reserve is back.
    let roomy: Arc<dyn Storage> = Arc::new(Hooked {
        room: Some(total + (2 << 20)),
        ..Hooked::new(Arc::clone(&world.storage))
    });
    let report = run(&roomy, &options()).unwrap();
    assert!(
        report.packs_repacked > 0 && report.warnings.is_empty(),
        "{report:?}"
    );
    world.verify();
    assert!(world.objects().contains_key(names::RESERVE));
}
