//! A prune beside damage: it loses nothing more, and says what it found.

use larder_format::names::Name;

use super::world::{World, dying, noise, objects, open, options, run};
use super::*;
use crate::collection::fixture;
use crate::session;
use crate::storage::faulty::When;

fn packs(world: &World) -> Vec<String> {
    let objects = world.objects();
    objects
        .into_keys()
        .filter(|name| matches!(names::parse(name), Some(Name::Pack(_))))
        .collect()
}

#[test]
fn what_is_lost_with_a_pack_costs_nothing_else() {
    let mut world = World::new();
    // One chunk each, whatever the chunker's key: nobody needs the first snapshot's nodes.
    world.write("a", &noise(1, 60));
    world.back_up();
    world.write("b", &noise(2, 60));
    let id = world.back_up();
    world.forget(0);
    let (mut refused, mut lost, mut unneeded) = (0, 0, 0);
    for name in packs(&world) {
        let storage = world.copy();
        let bytes = storage.get(&name, u64::MAX).unwrap();
        storage.delete(&name).unwrap();
        let before = objects(storage.as_ref());
        let report = match run(&storage, &options()) {
            Ok(report) => report,
            // A node: what is below it is not known.
            Err(error) => {
                let text = error.to_string();
                let source = world.source.path().display().to_string();
                assert!(text.contains(&id.snapshot_name()), "{text}");
                assert!(text.contains(&source), "{text}");
                assert!(text.contains("forget the snapshots"), "{text}");
                assert!(objects(storage.as_ref()) == before);
                refused += 1;
                continue;
            }
        };
        let told = &report.warnings;
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains(&name), "{told:?}");
        let view = view::read(&open(&storage), false, None).unwrap();
        if !told[0].contains(&id.snapshot_name()) {
            // Nobody misses it: it leaves the index by and by.
            assert_eq!(view.collection.state.suspects.len(), 0);
            assert_eq!(view.collection.state.deleted.len(), 1);
            world.verify_contents(&storage);
            unneeded += 1;
            continue;
        }
        lost += 1;
        assert_eq!(view.collection.state.suspects.len(), 1);
        // Once is enough to say it in the repository, and it does no harm to say it again.
        let again = run(&storage, &options()).unwrap();
        assert_eq!((again.round, again.warnings.len()), (None, 1));
        // Should it come back, all is whole again.
        storage.put(&name, bytes).unwrap();
        let healed = run(&storage, &options()).unwrap();
        assert_eq!((healed.plan.clear_suspects, healed.warnings.len()), (1, 0));
        world.verify_on(&storage);
    }
    assert!(
        refused > 0 && lost > 0 && unneeded > 0,
        "{refused} {lost} {unneeded}"
    );
}

#[test]
fn damage_is_recorded_without_ending_anybodys_session() {
    let mut world = World::new();
    for number in 0..3 {
        world.write(&format!("f{number}"), &noise(number, 3000));
        world.back_up();
    }
    let repository = world.open();
    let packs: Vec<_> = packs(&world)
        .iter()
        .filter_map(|name| match names::parse(name) {
            Some(Name::Pack(id)) => Some(id),
            _ => None,
        })
        .collect();
    let record = |pack| {
        record_suspects(
            &repository,
            &BTreeSet::from([pack]),
            &Silent,
            &Cancel::default(),
        )
    };
    let collection = || view::read(&world.open(), false, None).unwrap().collection;
    // Nobody is open: the round is ended at once.
    assert_eq!(record(packs[0]).unwrap(), 1);
    assert_eq!(collection().state.suspects, BTreeSet::from([packs[0]]));
    assert!(collection().round.is_none());
    // While somebody is, it stays, and its suspects count.
    let author = Author::of_this_process();
    let before = view::read_cells(&repository, None).unwrap();
    let base = larder_format::session::Base::None;
    let writer = session::open(&repository, base, &author, before).unwrap();
    assert_eq!(record(packs[1]).unwrap(), 1);
    let both = BTreeSet::from([packs[0], packs[1]]);
    assert_eq!(collection().round.unwrap().suspects, both);
    assert!(both.is_subset(&collection().unusable_packs()));
    assert_eq!(record(packs[0]).unwrap() + record(packs[1]).unwrap(), 0);
    let error = record(packs[2]).unwrap_err().to_string();
    assert!(error.contains("backups are running"), "{error}");
    session::end(&repository, &writer.id, base, &author, &writer.view).unwrap();
    assert_eq!(record(packs[2]).unwrap(), 1);
    assert_eq!(collection().state.suspects.len(), 3);
    // None of them is damaged, which a prune finds out.
    let report = run(&world.storage, &options()).unwrap();
    assert_eq!(report.plan.clear_suspects, 3);
    assert_eq!(collection().state.suspects.len(), 0);
    world.verify();
}

#[test]
fn a_damaged_pack_is_not_repacked_and_stays() {
    let mut world = World::new();
    for number in 0..8 {
        world.write(&format!("f{number}"), &noise(number, 3000));
    }
    world.back_up();
    for number in 1..8 {
        world.remove(&format!("f{number}"));
    }
    world.back_up();
    world.forget(0);
    let names = packs(&world);
    let data = |name: &&String| world.objects()[*name][9] == 3;
    let name = names.iter().find(data).unwrap();
    let whole = world.objects()[name].clone();
    let mut bytes = whole.to_vec();
    // In the padding, so that what is needed can still be read.
    let at = bytes.len() - 600;
    bytes[at] ^= 1;
    world.storage.put(name, bytes.into()).unwrap();
    let report = run(&world.storage, &options()).unwrap();
    assert_eq!(report.packs_repacked, 0);
    assert!(world.objects().contains_key(name));
    let repository = world.open();
    let view = view::read(&repository, false, None).unwrap();
    assert_eq!(view.snapshots().count(), 1);
    let round = view::read_record::<larder_format::collector::Round>(&repository, &Name::Round(1));
    assert_eq!(round.unwrap().suspect_packs.len(), 1);
    let suspects = |world: &World| {
        let view = view::read(&world.open(), false, None).unwrap();
        view.collection.state.suspects.len()
    };
    assert_eq!(suspects(&world), 1);
    // Later runs suspect it until it reads whole again; then it is repacked like any other.
    run(&world.storage, &options()).unwrap();
    assert_eq!(suspects(&world), 1);
    let damaged = world.copy();
    world.storage.put(name, whole).unwrap();
    let report = run(&world.storage, &options()).unwrap();
    assert_eq!((report.plan.clear_suspects, report.packs_repacked), (1, 1));
    assert_eq!(suspects(&world), 0);
    assert!(!world.objects().contains_key(name));
    world.verify();
    // Or a backup that reads the source saves what the pack holds elsewhere, and it goes.
    let mut other = world.aside(damaged);
    other.back_up();
    run(&other.storage, &options()).unwrap();
    assert_eq!(suspects(&other), 0);
    assert!(!other.objects().contains_key(name));
    other.verify();
}

#[test]
fn a_deleted_pack_that_became_the_only_place_stays_and_is_copied() {
    let mut world = World::new();
    world.write("a", &noise(1, 20_000));
    let base = world.copy();
    world.back_up();
    // The same once more, by a session that saw nothing of the first: one of both sides goes.
    let mut other = world.aside(base);
    other.back_up();
    world.join(&other);
    let both = world.objects();
    // The run dies as soon as its state is there: everything is still in place.
    let mut at = 1;
    let storage = loop {
        let storage = world.copy();
        let mortal: Arc<dyn Storage> = dying(Arc::clone(&storage), at, When::After);
        assert!(run(&mortal, &options()).is_err());
        if objects(storage.as_ref()).contains_key(&names::state(1)) {
            break storage;
        }
        at += 1;
    };
    let repository = open(&storage);
    let view = view::read(&repository, false, None).unwrap();
    let deleted = view.collection.state.deleted;
    // Now the packs that were to stay are lost.
    let mut lost = 0;
    for name in both.keys() {
        if let Some(Name::Pack(id)) = names::parse(name)
            && !deleted.contains(&id)
        {
            storage.delete(name).unwrap();
            lost += 1;
        }
    }
    assert!(lost > 0 && !deleted.is_empty());
    let report = run(&storage, &options()).unwrap();
    assert!(
        report
            .warnings
            .iter()
            .any(|text| text.contains("only place left"))
    );
    assert!(
        report
            .plan
            .repack
            .iter()
            .any(|pack| pack.why == Why::NeededAgain)
    );
    world.verify_contents(&storage);
    // From here on the copies serve, and the deleted packs go after all.
    run(&storage, &options()).unwrap();
    for id in &deleted {
        assert!(storage.size(&names::pack(id)).is_err());
    }
    world.verify_contents(&storage);
}

#[test]
fn a_base_that_a_state_let_go_of_stops_no_prune() {
    let mut world = World::new();
    world.write("a", &noise(1, 9000));
    let repository = world.open();
    fixture::put(&repository, &fixture::round(1));
    world.back_up();
    let gone = packs(&world);
    // A session compares with the snapshot, and registers too late to see it live.
    world.back_up_and_die();
    world.forget(0);
    let ids = gone.iter().filter_map(|name| match names::parse(name) {
        Some(Name::Pack(id)) => Some(id),
        _ => None,
    });
    fixture::put(&repository, &fixture::state_of(&repository, ids.collect()));
    for name in &gone {
        world.storage.delete(name).unwrap();
    }
    let patient = PruneOptions {
        patience: Duration::from_secs(3600),
        ..options()
    };
    let report = run(&world.storage, &patient).unwrap();
    assert_eq!(report.waiting.map(|waiting| waiting.round), Some(2));
}
