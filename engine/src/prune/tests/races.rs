//! Others at work between any two operations of a prune, and a prune between any two of theirs.

use std::sync::Mutex;

use larder_format::ids::ChunkPrefix;

use super::world::{Hooked, World, check_finds_nothing, noise, open, options, read_files, run};
use super::*;
use crate::progress::Silent;
use crate::rewrite::{RewriteOptions, rewrite};
use crate::source::select::Excludes;
use crate::view;

/// Prunes with something else happening before each of its operations in turn.
fn at_every_operation(
    world: &World,
    options: &PruneOptions,
    meanwhile: impl Fn(World) -> World + Send + Sync + 'static,
) {
    let counter = Arc::new(Hooked::new(world.copy()));
    let counting: Arc<dyn Storage> = counter.clone();
    run(&counting, options).unwrap();
    let operations = counter.operations();
    let meanwhile = Arc::new(meanwhile);
    for at in 1..=operations {
        let storage = world.copy();
        let (sender, receiver) = std::sync::mpsc::channel();
        let aside = world.aside(Arc::clone(&storage));
        let act = Arc::clone(&meanwhile);
        let hooked: Arc<dyn Storage> =
            Arc::new(Hooked::before(Arc::clone(&storage), at, move || {
                sender.send(act(aside)).unwrap();
            }));
        run(&hooked, options).unwrap();
        let after = receiver
            .try_recv()
            .unwrap_or_else(|_| world.aside(Arc::clone(&storage)));
        after.verify();
        run(&storage, &self::options()).unwrap();
        run(&storage, &self::options()).unwrap();
        after.verify();
    }
}

#[test]
fn another_prune_may_run_at_any_moment() {
    let world = World::filled();
    at_every_operation(&world, &options(), |world| {
        run(&world.storage, &options()).unwrap();
        world
    });
}

#[test]
fn another_prune_may_leave_a_round_that_waits_at_any_moment() {
    // The session of the backup that died is young, so nobody patient ends it.
    let world = World::filled();
    let patient = PruneOptions {
        patience: Duration::from_secs(3600),
        ..options()
    };
    at_every_operation(&world, &options(), move |world| {
        run(&world.storage, &patient).unwrap();
        world
    });
}

#[test]
fn what_was_listed_without_a_snapshot_that_it_builds_on_is_whole() {
    let mut first = World::new();
    first.write("a", &noise(1, 9000));
    let hidden = names::cell(&first.back_up());
    let mut second = first.aside(Arc::clone(&first.storage));
    second.source = Arc::new(tempfile::tempdir().unwrap());
    second.write("a", &noise(1, 9000));
    let id = second.back_up();
    let torn = || -> Arc<dyn Storage> {
        Arc::new(Hooked {
            hidden: Mutex::new(Some(hidden.clone())),
            ..Hooked::new(Arc::clone(&first.storage))
        })
    };
    let repository = open(&torn());
    let view = view::read(&repository, false, None).unwrap();
    assert_eq!(view.cells.len(), 1);
    assert!(read_files(&repository, &view.cells[&id]) == second.files);
    // It is read from what came meanwhile, and not deduplicated against.
    let mut prefixes = Vec::new();
    let every = &mut |prefix: &ChunkPrefix, _: &[crate::index::Place]| {
        prefixes.push(*prefix);
        std::ops::ControlFlow::Continue(())
    };
    repository.index().for_each_chunk(every).unwrap();
    let usable = repository.index().are_usable(&prefixes).unwrap();
    assert!(usable.contains(&true) && usable.contains(&false));
    check_finds_nothing(&torn());
    run(&torn(), &options()).unwrap();
    second.verify();
}

#[test]
fn a_backup_that_needs_what_is_about_to_go_may_run_at_any_moment() {
    let mut world = World::filled();
    // A forgotten snapshot's files are backed up again while its packs are condemned.
    let forgotten = world.forget(0);
    let kept = forgotten.clone();
    at_every_operation(&world, &options(), move |mut world| {
        world.set_files(&kept);
        world.back_up();
        world
    });
}

#[test]
fn a_snapshot_that_goes_while_it_is_rewritten_is_gone_and_not_damaged() {
    let mut world = World::new();
    world.write("a", &noise(1, 9000));
    world.write("secret", &noise(2, 9000));
    let id = world.back_up();
    let rewriting = RewriteOptions {
        exclude: Excludes {
            exclude: vec!["secret".to_owned()],
            ..Excludes::default()
        },
        keep_original: true,
        author: options().author,
        dry_run: false,
    };
    let rewrite_on = |storage: &Arc<dyn Storage>| {
        let (repository, name) = (open(storage), id.snapshot_name());
        rewrite(&repository, &name, &rewriting, &Silent, &Cancel::default())
    };
    let counter = Arc::new(Hooked::new(world.copy()));
    let counting: Arc<dyn Storage> = counter.clone();
    rewrite_on(&counting).unwrap();
    let (mut made, mut gone) = (0, 0);
    for at in 1..=counter.operations() {
        let storage = world.copy();
        let mut aside = world.aside(Arc::clone(&storage));
        let hooked: Arc<dyn Storage> = Arc::new(Hooked::before(storage, at, move || {
            aside.forget(0);
            run(&aside.storage, &options()).unwrap();
        }));
        match rewrite_on(&hooked) {
            Err(EngineError::NotFound(_)) => gone += 1,
            outcome => {
                outcome.unwrap();
                made += 1;
            }
        }
        check_finds_nothing(&hooked);
    }
    assert!(made > 1 && gone > 3, "{made} {gone}");
}

#[test]
fn a_prune_may_run_at_any_moment_of_a_backup() {
    let mut world = World::filled();
    let forgotten = world.forget(0);
    world.set_files(&forgotten);
    let mut counted = world.aside(world.copy());
    let counter = Arc::new(Hooked::new(Arc::clone(&counted.storage)));
    let counting: Arc<dyn Storage> = counter.clone();
    counted.try_back_up(&counting).unwrap();
    let operations = counter.operations();
    for patience in [Duration::ZERO, Duration::from_secs(3600)] {
        let patient = PruneOptions {
            patience,
            ..options()
        };
        let (mut committed, mut ended) = (0, 0);
        for at in 1..=operations {
            let mut aside = world.aside(world.copy());
            let (inner, patient) = (Arc::clone(&aside.storage), patient.clone());
            let prune = move || {
                run(&inner, &patient).unwrap();
                run(&inner, &patient).unwrap();
            };
            let hooked: Arc<dyn Storage> =
                Arc::new(Hooked::before(Arc::clone(&aside.storage), at, prune));
            match aside.try_back_up(&hooked) {
                Ok(_) => committed += 1,
                Err(_) => ended += 1,
            }
            aside.verify();
            run(&aside.storage, &options()).unwrap();
            run(&aside.storage, &options()).unwrap();
            aside.verify();
        }
        assert!(committed > 3, "{committed} {ended}");
        // A session that is waited for is never ended.
        assert!(ended == 0 || patience.is_zero(), "{committed} {ended}");
    }
}

#[test]
fn a_round_waits_for_a_young_session_and_says_for_which() {
    let mut world = World::new();
    world.write("a", &noise(1, 9000));
    world.back_up();
    world.write("a", &noise(2, 9000));
    world.back_up();
    world.forget(0);
    world.back_up_and_die();
    let patient = PruneOptions {
        patience: Duration::from_secs(3600),
        ..options()
    };
    let before = world.bytes();
    let report = run(&world.storage, &patient).unwrap();
    let waiting = report.waiting.unwrap();
    assert_eq!((waiting.round, waiting.sessions.len()), (1, 1));
    let session = &waiting.sessions[0];
    assert_eq!(session.host, "desk");
    assert_eq!(session.until.as_second() - session.since.as_second(), 3600);
    assert_eq!(report.packs_deleted, 0);
    assert!(world.bytes() >= before);
    world.verify();
    // The next run looks again, and has not waited long enough either.
    let report = run(&world.storage, &patient).unwrap();
    assert!(report.waiting.is_some() && report.round.is_none());
    // One without patience ends it and cleans up.
    let report = run(&world.storage, &options()).unwrap();
    assert_eq!((report.waiting, report.sessions_revoked), (None, 1));
    assert!(report.packs_deleted > 0 && world.bytes() < before);
    world.verify();
}

#[test]
fn collectors_and_writers_may_all_run_at_once() {
    for seed in 0..6 {
        let mut world = World::filled();
        let writers: Vec<World> = std::thread::scope(|scope| {
            let (world, mut threads) = (&world, Vec::new());
            for number in 0..2 {
                let mut aside = world.aside(Arc::clone(&world.storage));
                aside.source = Arc::new(tempfile::tempdir().unwrap());
                aside.files.clear();
                threads.push(scope.spawn(move || {
                    for round in 0..3 {
                        let bytes = noise(seed * 100 + number * 10 + round, 4000);
                        aside.write(&format!("w{round}"), &bytes);
                        let storage = Arc::clone(&aside.storage);
                        // A revoked session is no loss, only a backup to be made again.
                        let _ = aside.try_back_up(&storage);
                    }
                    aside
                }));
            }
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..3 {
                        let _ = run(&world.storage, &options());
                    }
                });
            }
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        for writer in &writers {
            world.join(writer);
        }
        world.verify();
        run(&world.storage, &options()).unwrap();
        run(&world.storage, &options()).unwrap();
        world.verify();
    }
}
