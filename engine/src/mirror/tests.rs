use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use larder_format::ids::SessionId;
use larder_format::names;

use super::*;
use crate::cancel::Cancel;
use crate::check::Severity;
use crate::error::{EngineError, Result};
use crate::keys;
use crate::progress::Silent;
use crate::prune::tests::world::{
    Hooked, World, check_finds_nothing, dying, noise, objects, open, options, read_files, run,
};
use crate::prune::{PruneReport, prune};
use crate::snapshots::fixture;
use crate::storage::Storage;
use crate::storage::faulty::When;
use crate::storage::object::ObjectStorage;
use crate::view;

type Files = BTreeMap<String, Vec<u8>>;
type Known = BTreeMap<SessionId, Files>;

fn empty() -> Arc<dyn Storage> {
    Arc::new(ObjectStorage::memory())
}

fn copy_of(storage: &Arc<dyn Storage>) -> Arc<dyn Storage> {
    let copy = ObjectStorage::memory();
    for (name, bytes) in objects(storage.as_ref()) {
        copy.put(&name, bytes).unwrap();
    }
    Arc::new(copy)
}

fn sync_with(
    source: &Arc<dyn Storage>,
    target: &Arc<dyn Storage>,
    delete: bool,
) -> Result<SyncReport> {
    let options = SyncOptions {
        delete,
        verify: false,
        dry_run: false,
    };
    let scratch = std::env::temp_dir();
    sync(
        source,
        target,
        &scratch,
        options,
        &Silent,
        &Cancel::default(),
    )
}

fn sync_to(source: &Arc<dyn Storage>, target: &Arc<dyn Storage>) -> SyncReport {
    sync_with(source, target, false).unwrap()
}

/// What each snapshot holds that lives now.
fn known(world: &World) -> Known {
    let live = world.live().into_iter();
    live.map(|id| (id, world.truth(&id).clone())).collect()
}

/// Restores every snapshot that a mirror lists, and gives their ids; none where there is no mirror yet.
fn listed_and_whole(target: &Arc<dyn Storage>, known: &Known) -> BTreeSet<SessionId> {
    let opened = fixture::open_with(target, &fixture::passphrase("secret"));
    if let Err(EngineError::Request(_) | EngineError::NoRepository { .. }) = opened {
        return BTreeSet::new();
    }
    let repository = opened.unwrap();
    let view = view::read(&repository, false, None).unwrap();
    assert_eq!(view.unusable, []);
    let mut listed = BTreeSet::new();
    for cell in view.snapshots() {
        let found = read_files(&repository, cell);
        assert!(found == known[&cell.id], "{}", cell.id.snapshot_name());
        listed.insert(cell.id);
    }
    listed
}

/// What other machines do meanwhile: a backup, a forget, and prunes that free what only that needed.
fn live_on(world: &mut World) {
    world.write("meanwhile", &noise(77, 5000));
    world.back_up();
    world.forget(0);
    for _ in 0..2 {
        run(&world.storage, &options()).unwrap();
    }
}

/// A repository that was mirrored, and has gone on since.
fn mirrored() -> (World, Arc<dyn Storage>, Known) {
    let mut world = World::filled();
    run(&world.storage, &options()).unwrap();
    let target = empty();
    sync_to(&world.storage, &target);
    let mut all = known(&world);
    world.write("f7", &noise(60, 3000));
    world.back_up();
    all.extend(known(&world));
    (world, target, all)
}

#[test]
fn a_mirror_is_the_repository_and_a_second_sync_copies_what_is_missing() {
    let mut world = World::filled();
    let target = empty();
    let first = sync_to(&world.storage, &target);
    assert_eq!(
        (first.made, first.passes, first.manifest),
        (true, 1, Some(1))
    );
    world.verify_on(&target);
    // Nothing but the marker and the manifest is written that is not in the repository.
    let (here, there) = (world.objects(), objects(target.as_ref()));
    let own: Vec<_> = there
        .keys()
        .filter(|name| !here.contains_key(*name))
        .collect();
    assert_eq!(own, ["config/ffffffffffffffff", "mirror/0000000000000001"]);
    assert!(
        there
            .iter()
            .all(|(name, bytes)| here.get(name).is_none_or(|one| one == bytes))
    );
    let again = sync_to(&world.storage, &target);
    assert_eq!((again.copied, again.manifest, again.made), (0, None, false));
    assert!(objects(target.as_ref()) == there);
    let before = world.objects();
    world.write("more", &noise(70, 4000));
    world.back_up();
    let new = world
        .objects()
        .into_keys()
        .filter(|name| !before.contains_key(name))
        .count();
    let more = sync_to(&world.storage, &target);
    assert_eq!((more.copied, more.manifest), (new as u64, Some(2)));
    world.verify_on(&target);
}

#[test]
fn the_repository_may_live_on_between_any_two_requests() {
    for from_nothing in [true, false] {
        let (world, target, all) = match from_nothing {
            true => {
                let world = World::filled();
                let all = known(&world);
                (world, empty(), all)
            }
            false => mirrored(),
        };
        let counter = Arc::new(Hooked::new(world.copy()));
        let counting: Arc<dyn Storage> = counter.clone();
        sync_to(&counting, &copy_of(&target));
        let mut passes = BTreeSet::new();
        for at in 1..=counter.operations() {
            let storage = world.copy();
            let aside = Arc::new(Mutex::new(world.aside(Arc::clone(&storage))));
            let other = Arc::clone(&aside);
            let hooked = Hooked::before(storage, at, move || live_on(&mut other.lock().unwrap()));
            let source: Arc<dyn Storage> = Arc::new(hooked);
            let mirror = copy_of(&target);
            let report = sync_with(&source, &mirror, at.is_multiple_of(2)).unwrap();
            passes.insert(report.passes);
            let aside = aside.lock().unwrap();
            let mut all = all.clone();
            all.extend(known(&aside));
            listed_and_whole(&mirror, &all);
            check_finds_nothing(&mirror);
            sync_with(&source, &mirror, true).unwrap();
            aside.verify_on(&mirror);
            assert_eq!(sync_to(&source, &mirror).copied, 0);
        }
        assert!(passes.len() > 1, "{passes:?}");
    }
}

#[test]
fn a_sync_may_die_at_any_moment_and_be_gone_on_with() {
    for from_nothing in [true, false] {
        let (mut world, target, mut all) = match from_nothing {
            true => (World::filled(), empty(), Known::new()),
            false => mirrored(),
        };
        let shown_before = listed_and_whole(&target, &all);
        all.extend(known(&world));
        if !from_nothing {
            live_on(&mut world);
            all.extend(known(&world));
        }
        let counter = Arc::new(Hooked::new(copy_of(&target)));
        let counting: Arc<dyn Storage> = counter.clone();
        let full = sync_with(&world.storage, &counting, true).unwrap();
        assert_eq!(full.deleted > 0, !from_nothing);
        let mut shown = BTreeSet::new();
        for at in 1..=counter.operations() {
            for when in [When::Before, When::After] {
                let mirror = copy_of(&target);
                let faulty: Arc<dyn Storage> = dying(Arc::clone(&mirror), at, when);
                // What comes after the last request may die without a word.
                let died = sync_with(&world.storage, &faulty, true);
                assert!(died.is_err() || at + 3 > counter.operations());
                let listed = listed_and_whole(&mirror, &all);
                assert!(listed == shown_before || listed == world.live(), "{at}");
                shown.insert(listed);
                sync_with(&world.storage, &mirror, true).unwrap();
                world.verify_on(&mirror);
                assert_eq!(sync_to(&world.storage, &mirror).copied, 0);
            }
        }
        assert_eq!(shown.len(), 2);
    }
}

#[test]
fn nothing_goes_that_no_prune_let_go_of() {
    let (mut world, target, _) = mirrored();
    sync_with(&world.storage, &target, true).unwrap();
    let all = objects(target.as_ref());
    // Packs that are lost in the repository stay in the mirror.
    let packs: Vec<_> = world
        .objects()
        .into_keys()
        .filter(|name| name.starts_with("packs/"))
        .collect();
    let lost = world.objects()[&packs[0]].clone();
    world.storage.delete(&packs[0]).unwrap();
    world.write("other", b"other");
    world.back_up();
    sync_with(&world.storage, &target, true).unwrap();
    assert!(objects(target.as_ref()).contains_key(&packs[0]));
    world.verify_on(&target);
    world.storage.put(&packs[0], lost).unwrap();
    // What a prune lets go of stays as long as nobody asks for its deletion, and then goes.
    world.forget(0);
    run(&world.storage, &options()).unwrap();
    run(&world.storage, &options()).unwrap();
    let kept = sync_to(&world.storage, &target);
    assert!(kept.gone > 0 && kept.deleted == 0, "{kept:?}");
    assert!(all.keys().all(|name| {
        name.starts_with("mirror/") || objects(target.as_ref()).contains_key(name)
    }));
    world.verify_on(&target);
    let cleaned = sync_with(&world.storage, &target, true).unwrap();
    assert!(cleaned.deleted >= kept.gone, "{cleaned:?}");
    world.verify_on(&target);
    let (here, there) = (world.objects(), objects(target.as_ref()));
    let more: Vec<_> = there
        .keys()
        .filter(|name| !here.contains_key(*name) && !name.starts_with(names::SESSIONS))
        .collect();
    assert_eq!(more.len(), 2, "{more:?}");
    let idle = sync_with(&world.storage, &target, true).unwrap();
    assert_eq!((idle.copied, idle.deleted, idle.manifest), (0, 0, None));
}

#[test]
fn a_mirror_takes_no_writes() {
    let (mut world, target, _) = mirrored();
    let before = objects(target.as_ref());
    let told = |error: EngineError| {
        let text = error.to_string();
        assert!(text.contains("is a mirror"), "{text}");
    };
    told(world.try_back_up(&target).unwrap_err());
    let pruned: Result<PruneReport> =
        prune(&open(&target), &options(), &Silent, &Cancel::default());
    told(pruned.unwrap_err());
    told(world.try_forget(&target, 0).unwrap_err());
    let secret = fixture::passphrase("other");
    let added = keys::add(&open(&target), &secret, false, "label", fixture::KDF);
    told(added.unwrap_err());
    let init =
        crate::repository::Repository::init_on(target.as_ref(), &secret, &fixture::init_options());
    assert!(matches!(init, Err(EngineError::RepositoryExists { .. })));
    assert!(objects(target.as_ref()) == before);
    // It has an id of its own, so that caches are not shared.
    let (here, there) = (open(&world.storage).config(), open(&target).config());
    assert_eq!(here.repository, there.repository);
    assert_ne!(here.replica, there.replica);
}

#[test]
fn only_a_mirror_of_this_very_repository_is_written_to() {
    let (mut world, target, _) = mirrored();
    let refused = |source: &Arc<dyn Storage>, target: &Arc<dyn Storage>, why: &str| {
        let before = objects(target.as_ref());
        let error = sync_with(source, target, true).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(objects(target.as_ref()) == before);
    };
    let other = World::filled();
    refused(&world.storage, &other.storage, "is no mirror");
    refused(&world.storage, &Arc::clone(&world.storage), "is no mirror");
    refused(&target, &target, "mirror of itself");
    refused(&other.storage, &target, "another repository");
    let foreign = empty();
    foreign.put("packs/x", Bytes::from_static(b"x")).unwrap();
    refused(&world.storage, &foreign, "packs/x");
    // One that was put back to an older state.
    let old = world.copy();
    world.forget(0);
    run(&world.storage, &options()).unwrap();
    sync_to(&world.storage, &target);
    refused(&old, &target, "is older than its mirror");
    // And then went another way.
    let mut astray = world.aside(old);
    astray.write("astray", &noise(80, 3000));
    astray.back_up();
    while open(&astray.storage).config().number > 0 {
        run(&astray.storage, &options()).unwrap();
        let repository = open(&astray.storage);
        let newest = view::read(&repository, false, None)
            .unwrap()
            .collection
            .newest();
        let ours = view::read(&open(&world.storage), false, None).unwrap();
        if newest >= ours.collection.newest() {
            break;
        }
        astray.write("astray", &noise(81 + u32::try_from(newest).unwrap(), 3000));
        astray.back_up();
        let last = astray.live().len() - 1;
        astray.forget(last);
    }
    let before = listed_and_whole(&target, &known(&world));
    let error = sync_with(&astray.storage, &target, false).unwrap_err();
    assert!(error.to_string().contains("has another gc/"), "{error}");
    assert_eq!(listed_and_whole(&target, &known(&world)), before);
}

#[test]
fn damaged_objects_are_told_and_never_copied_over_sound_ones() {
    let mut world = World::filled();
    let target = empty();
    sync_to(&world.storage, &target);
    let old = world
        .objects()
        .into_keys()
        .find(|name| name.starts_with("packs/"))
        .unwrap();
    world.write("new", &noise(90, 5000));
    let before = world.objects();
    world.back_up();
    let new = world
        .objects()
        .into_keys()
        .find(|name| name.starts_with("packs/") && !before.contains_key(name))
        .unwrap();
    let mut sound = BTreeMap::new();
    for name in [&old, &new] {
        let bytes = world.objects()[name].clone();
        let mut flipped = bytes.to_vec();
        flipped[100] ^= 1;
        world.storage.put(name, flipped.into()).unwrap();
        sound.insert(name.clone(), bytes);
    }
    let report = sync_to(&world.storage, &target);
    assert_eq!((report.damaged, report.findings.len()), (1, 1));
    assert_eq!(
        (&report.findings[0].object, report.findings[0].severity),
        (&new, Severity::Loss)
    );
    let there = objects(target.as_ref());
    assert_eq!(there[&old], sound[&old]);
    assert!(!there.contains_key(&new));
    // Once it is put right it is copied.
    world.storage.put(&new, sound[&new].clone()).unwrap();
    sync_to(&world.storage, &target);
    world.verify_on(&target);
    // What was cut short in the mirror is copied again.
    target.put(&new, sound[&new].slice(..100)).unwrap();
    assert_eq!(sync_to(&world.storage, &target).copied, 1);
    world.verify_on(&target);
}

#[test]
fn a_damaged_manifest_is_replaced_and_a_removed_password_opens_the_mirror_no_more() {
    let (world, target, _) = mirrored();
    sync_to(&world.storage, &target);
    let name = objects(target.as_ref())
        .into_keys()
        .find(|name| name.starts_with("mirror/"))
        .unwrap();
    target.put(&name, Bytes::from_static(b"rotten")).unwrap();
    let repository = open(&target);
    assert!(view::read(&repository, false, None).is_err());
    sync_to(&world.storage, &target);
    world.verify_on(&target);
    let (old, new) = (fixture::passphrase("secret"), fixture::passphrase("other"));
    let repository = open(&world.storage);
    let slot = repository.current_slot().to_hex();
    keys::add(&repository, &new, false, "label", fixture::KDF).unwrap();
    let other = fixture::open_with(&world.storage, &new).unwrap();
    keys::remove(&other, &slot).unwrap();
    assert!(fixture::open_with(&target, &old).is_ok());
    sync_to(&world.storage, &target);
    assert!(fixture::open_with(&target, &new).is_ok());
    assert!(matches!(
        fixture::open_with(&target, &old),
        Err(EngineError::WrongSecret { .. })
    ));
    assert!(!objects(target.as_ref()).contains_key(&format!("keys/{slot}")));
}

#[test]
fn a_promoted_mirror_is_a_repository_whoever_dies_when() {
    let (mut world, target, mut all) = mirrored();
    sync_to(&world.storage, &target);
    live_on(&mut world);
    all.extend(known(&world));
    // A sync that never ends leaves records that no manifest names.
    let operations = {
        let counter = Arc::new(Hooked::new(copy_of(&target)));
        let counting: Arc<dyn Storage> = counter.clone();
        sync_to(&world.storage, &counting);
        counter.operations()
    };
    let torn: Arc<dyn Storage> = dying(Arc::clone(&target), operations - 6, When::Before);
    sync_with(&world.storage, &torn, false).unwrap_err();
    let shown = listed_and_whole(&target, &all);
    assert_ne!(shown, world.live());
    let counter = Arc::new(Hooked::new(copy_of(&target)));
    let counting: Arc<dyn Storage> = counter.clone();
    let before = objects(target.as_ref());
    let would = promote(&open(&target), &target, true).unwrap();
    assert!(would.removed > 0);
    assert!(objects(target.as_ref()) == before);
    let report = promote(&open(&target), &counting, false).unwrap();
    assert_eq!(
        (report.removed, report.snapshots),
        (would.removed, would.snapshots)
    );
    for at in 1..=counter.operations() {
        for when in [When::Before, When::After] {
            let mirror = copy_of(&target);
            let faulty: Arc<dyn Storage> = dying(Arc::clone(&mirror), at, when);
            let died = promote(&open(&mirror), &faulty, false).is_err();
            assert_eq!(listed_and_whole(&mirror, &all), shown);
            if died && read_marker(mirror.as_ref()).unwrap().is_some() {
                promote(&open(&mirror), &mirror, false).unwrap();
            }
            let again = promote(&open(&mirror), &mirror, false).unwrap_err();
            assert!(again.to_string().contains("is no mirror"));
            assert_eq!(listed_and_whole(&mirror, &all), shown);
            check_finds_nothing(&mirror);
            assert_ne!(
                open(&mirror).config().replica,
                open(&world.storage).config().replica
            );
            // It lives a life of its own.
            let mut own = world.aside(Arc::clone(&mirror));
            own.write("own", &noise(95, 3000));
            let id = own.back_up();
            run(&mirror, &options()).unwrap();
            run(&mirror, &options()).unwrap();
            let mut all = all.clone();
            all.insert(id, own.truth(&id).clone());
            assert!(listed_and_whole(&mirror, &all).contains(&id));
            check_finds_nothing(&mirror);
            let error = sync_with(&world.storage, &mirror, true).unwrap_err();
            assert!(error.to_string().contains("is no mirror"), "{error}");
        }
    }
}

#[test]
fn a_mirror_of_a_mirror_is_as_good() {
    let (mut world, target, _) = mirrored();
    let second = empty();
    sync_to(&target, &second);
    live_on(&mut world);
    sync_with(&world.storage, &target, true).unwrap();
    sync_with(&target, &second, true).unwrap();
    world.verify_on(&target);
    world.verify_on(&second);
    let ids = [&world.storage, &target, &second].map(|one| open(one).config().replica);
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 3);
}

#[test]
fn a_reader_goes_on_while_a_sync_deletes_what_it_read_of() {
    let (mut world, target, all) = mirrored();
    sync_to(&world.storage, &target);
    let repository = open(&target);
    let view = view::read(&repository, false, None).unwrap();
    live_on(&mut world);
    let report = sync_with(&world.storage, &target, true).unwrap();
    assert!(report.deleted > 0);
    for id in world.live() {
        if let Some(cell) = view.cells.get(&id) {
            assert!(read_files(&repository, cell) == all[&id]);
        }
    }
}

#[test]
fn a_dry_run_counts_and_touches_nothing() {
    let (world, target, _) = mirrored();
    for target in [target, empty()] {
        let before = objects(target.as_ref());
        let options = SyncOptions {
            delete: true,
            verify: false,
            dry_run: true,
        };
        let scratch = std::env::temp_dir();
        let dry = sync(
            &world.storage,
            &target,
            &scratch,
            options,
            &Silent,
            &Cancel::default(),
        )
        .unwrap();
        assert!(objects(target.as_ref()) == before);
        let done = sync_to(&world.storage, &target);
        assert_eq!(
            (dry.copied, dry.bytes_copied, dry.made),
            (done.copied, done.bytes_copied, done.made)
        );
        assert_eq!(dry.snapshots, done.snapshots);
    }
}

#[test]
fn a_mirror_is_scrubbed_whole() {
    let (world, target, _) = mirrored();
    sync_to(&world.storage, &target);
    let scratch = std::env::temp_dir();
    let scrubbed =
        || crate::scrub::scrub(&target, &scratch, false, &Silent, &Cancel::default()).unwrap();
    let sound = scrubbed();
    assert_eq!((sound.loss, sound.harmless, sound.unknown), (0, 0, 0));
    assert_eq!(sound.verified, objects(target.as_ref()).len() as u64);
    // A record that the manifest names and that is gone is missed without a key.
    let cell = objects(target.as_ref())
        .into_keys()
        .find(|name| name.starts_with(names::CELLS))
        .unwrap();
    target.delete(&cell).unwrap();
    let found = scrubbed();
    assert_eq!((found.loss, &found.findings[0].object), (1, &cell));
}

fn verifying(source: &Arc<dyn Storage>, target: &Arc<dyn Storage>, dry_run: bool) -> SyncReport {
    let options = SyncOptions {
        delete: false,
        verify: true,
        dry_run,
    };
    let (scratch, cancel) = (std::env::temp_dir(), Cancel::default());
    sync(source, target, &scratch, options, &Silent, &cancel).unwrap()
}

#[test]
fn what_rotted_in_a_mirror_is_copied_anew_if_it_is_to_be_verified() {
    let (world, target, _) = mirrored();
    sync_to(&world.storage, &target);
    let whole = objects(target.as_ref());
    let mirrored =
        |name: &String| name != "config/ffffffffffffffff" && !name.starts_with("mirror/");
    let names: Vec<_> = whole.keys().filter(|name| mirrored(name)).collect();
    let sound = verifying(&world.storage, &target, false);
    assert_eq!((sound.verified, sound.mended), (names.len() as u64, 0));
    for name in &names {
        let mut rotten = whole[*name].to_vec();
        let at = rotten.len() / 2;
        rotten[at] ^= 1;
        target.put(name, rotten.into()).unwrap();
    }
    // By sizes alone nothing is seen of it.
    let dry = verifying(&world.storage, &target, true);
    assert_eq!((dry.mended, dry.verified), (names.len() as u64, 0));
    let report = verifying(&world.storage, &target, false);
    assert_eq!(report.mended, names.len() as u64, "{report:?}");
    assert_eq!((report.copied, report.damaged), (report.mended, 0));
    let mut now = objects(target.as_ref());
    now.retain(|name, _| mirrored(name));
    let mut before = whole.clone();
    before.retain(|name, _| mirrored(name));
    assert!(now == before);
    world.verify_on(&target);
}

#[test]
fn what_rotted_in_a_mirror_and_is_gone_in_the_repository_is_told() {
    let (mut world, target, _) = mirrored();
    sync_to(&world.storage, &target);
    world.forget(0);
    run(&world.storage, &options()).unwrap();
    run(&world.storage, &options()).unwrap();
    let kept = sync_to(&world.storage, &target);
    assert!(kept.gone > 0);
    let here = world.objects();
    let gone = objects(target.as_ref())
        .into_keys()
        .find(|name| name.starts_with("packs/") && !here.contains_key(name))
        .unwrap();
    target.put(&gone, Bytes::from_static(b"rotten")).unwrap();
    let report = verifying(&world.storage, &target, false);
    assert_eq!((report.mended, report.damaged), (0, 1), "{report:?}");
    assert_eq!(report.findings[0].object, gone);
    assert_eq!(report.findings[0].severity, Severity::Harmless);
    world.verify_on(&target);
}

#[test]
fn two_first_syncs_at_once_make_one_mirror() {
    let world = World::filled();
    let counter = Arc::new(Hooked::new(empty()));
    let counting: Arc<dyn Storage> = counter.clone();
    sync_to(&world.storage, &counting);
    for at in 1..=counter.operations() {
        let target = empty();
        let (source, other) = (Arc::clone(&world.storage), Arc::clone(&target));
        let hooked = Hooked::before(Arc::clone(&target), at, move || {
            sync_to(&source, &other);
        });
        let hooked: Arc<dyn Storage> = Arc::new(hooked);
        sync_with(&world.storage, &hooked, false).unwrap();
        world.verify_on(&target);
    }
}

#[test]
fn a_repository_that_was_put_back_and_went_on_is_told_from_its_mirror() {
    let mut world = World::filled();
    run(&world.storage, &options()).unwrap();
    let old = world.copy();
    let target = empty();
    world.write("lost", &noise(91, 3000));
    world.back_up();
    sync_to(&world.storage, &target);
    let shown = listed_and_whole(&target, &known(&world));
    let mut astray = world.aside(old);
    astray.write("astray", &noise(92, 3000));
    astray.back_up();
    let error = sync_with(&astray.storage, &target, false).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("no prune took away"), "{text}");
    assert_eq!(listed_and_whole(&target, &known(&world)), shown);
}
