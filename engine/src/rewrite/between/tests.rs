use std::collections::BTreeMap;
use std::sync::Arc;

use larder_format::ids::SessionId;
use proptest::prelude::*;

use super::*;
use crate::mirror::{SyncOptions, sync};
use crate::progress::Silent;
use crate::prune::tests::world::{
    Hooked, World, check_finds_nothing, noise, objects, open, options, read_files, run,
};
use crate::snapshots::fixture;
use crate::storage::Storage;
use crate::storage::object::ObjectStorage;

type Files = BTreeMap<String, Vec<u8>>;

fn other() -> Arc<dyn Storage> {
    let storage: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
    fixture::init(storage.as_ref());
    storage
}

fn copy(
    source: &Arc<dyn Storage>,
    target: &Arc<dyn Storage>,
) -> Result<(Vec<CopyReport>, Vec<String>)> {
    let (source, target) = (open(source), open(target));
    let mut reports = Vec::new();
    let options = CopyOptions {
        author: options().author,
        dry_run: false,
    };
    let all = (&[][..], &Filter::default());
    let each = &mut |report: &CopyReport| {
        reports.push(report.clone());
        Ok(())
    };
    let left = copy_all(
        &source,
        &target,
        all,
        &options,
        each,
        &Silent,
        &Cancel::default(),
    )?;
    Ok((reports, left))
}

/// What every snapshot of a repository holds, by the id of what it was copied from.
fn contents(target: &Arc<dyn Storage>) -> BTreeMap<String, (Cell, Files)> {
    let repository = open(target);
    let view = view::read(&repository, false, None).unwrap();
    let mut found = BTreeMap::new();
    for cell in view.snapshots() {
        let from = cell.options.get(COPIED_FROM).cloned().unwrap_or_default();
        let files = read_files(&repository, cell);
        assert!(found.insert(from, (cell.clone(), files)).is_none());
    }
    found
}

fn name_of(world: &World, id: &SessionId) -> String {
    let repository = world.open().config().repository.to_hex();
    format!("{repository}/{}", encode_hex(&id.0))
}

fn verify(world: &World, target: &Arc<dyn Storage>) {
    let found = contents(target);
    for id in world.live() {
        let (cell, files) = &found[&name_of(world, &id)];
        assert!(files == world.truth(&id));
        let view = view::read_cells(&world.open(), None).unwrap();
        let first = &view.cells[&id];
        assert_eq!(
            (cell.started, cell.ended, &cell.host, &cell.user, &cell.tags),
            (
                first.started,
                first.ended,
                &first.host,
                &first.user,
                &first.tags
            )
        );
    }
    check_finds_nothing(target);
}

#[test]
fn snapshots_are_copied_once_and_hold_the_same() {
    let mut world = World::filled();
    let target = other();
    let (reports, left) = copy(&world.storage, &target).unwrap();
    assert_eq!((reports.len(), left.len()), (world.live().len(), 0));
    assert!(
        reports
            .iter()
            .all(|report| !report.existed && report.snapshot.is_some())
    );
    verify(&world, &target);
    let before = objects(target.as_ref());
    let (again, _) = copy(&world.storage, &target).unwrap();
    assert!(again.iter().all(|report| report.existed));
    assert!(objects(target.as_ref()) == before);
    world.write("later", &noise(120, 5000));
    world.back_up();
    let (more, _) = copy(&world.storage, &target).unwrap();
    assert_eq!(more.iter().filter(|report| !report.existed).count(), 1);
    // Nothing but what is new is put in.
    let added = more.last().unwrap().bytes_added;
    assert!((5000..12_000).contains(&added), "{added}");
    verify(&world, &target);
    // A copy is copied on under the name of the first, and back to nowhere.
    let third = other();
    copy(&target, &third).unwrap();
    verify(&world, &third);
    let (back, _) = copy(&third, &world.storage).unwrap();
    assert!(back.iter().all(|report| report.existed));
}

#[test]
fn what_the_other_repository_backed_up_itself_is_not_stored_again() {
    let mut world = World::new();
    world.write("long", &noise(130, 200_000));
    world.write("short", b"short");
    world.back_up();
    let mut second = World::new();
    second.write("long", &noise(130, 200_000));
    second.back_up();
    let (reports, _) = copy(&world.storage, &second.storage).unwrap();
    // The lists and nodes are new, for entries differ; the 200,000 bytes are not.
    assert!(reports[0].bytes_added < 2000, "{:?}", reports[0]);
    assert_eq!(contents(&second.storage).len(), 2);
    check_finds_nothing(&second.storage);
}

#[test]
fn prunes_may_run_in_both_repositories_at_any_moment() {
    let world = World::filled();
    let target = other();
    for in_source in [true, false] {
        let hooked = |storage: Arc<dyn Storage>, at: u64| {
            let inner = Arc::clone(&storage);
            Arc::new(Hooked::before(storage, at, move || {
                run(&inner, &options()).unwrap();
                run(&inner, &options()).unwrap();
            }))
        };
        let operations = {
            let (one, two) = (world.copy(), copy_of(&target));
            let counted = if in_source { &one } else { &two };
            let counter = Arc::new(Hooked::new(Arc::clone(counted)));
            let counting: Arc<dyn Storage> = counter.clone();
            match in_source {
                true => copy(&counting, &two).unwrap(),
                false => copy(&one, &counting).unwrap(),
            };
            counter.operations()
        };
        for at in (1..=operations).step_by(3) {
            let (one, two) = (world.copy(), copy_of(&target));
            let (from, to): (Arc<dyn Storage>, Arc<dyn Storage>) = match in_source {
                true => (hooked(Arc::clone(&one), at), Arc::clone(&two)),
                false => (Arc::clone(&one), hooked(Arc::clone(&two), at)),
            };
            let (_, left) = copy(&from, &to).unwrap();
            assert_eq!(left, Vec::<String>::new());
            verify(&world, &two);
            world.verify_on(&one);
        }
    }
}

fn copy_of(storage: &Arc<dyn Storage>) -> Arc<dyn Storage> {
    let copy = ObjectStorage::memory();
    for (name, bytes) in objects(storage.as_ref()) {
        copy.put(&name, bytes).unwrap();
    }
    Arc::new(copy)
}

#[test]
fn a_damaged_snapshot_keeps_no_other_from_being_copied() {
    let mut world = World::new();
    world.write("sound", &noise(140, 5000));
    let sound = world.back_up();
    let before = objects(world.storage.as_ref());
    world.write("rotten", &noise(141, 5000));
    world.back_up();
    for (name, bytes) in objects(world.storage.as_ref()) {
        if name.starts_with("packs/") && !before.contains_key(&name) {
            let zeros = vec![0; bytes.len()];
            world.storage.put(&name, zeros.into()).unwrap();
        }
    }
    let target = other();
    let (reports, left) = copy(&world.storage, &target).unwrap();
    assert_eq!((reports.len(), left.len()), (1, 1));
    let found = contents(&target);
    assert_eq!(found.len(), 1);
    assert!(found[&name_of(&world, &sound)].1 == *world.truth(&sound));
    check_finds_nothing(&target);
}

#[test]
fn a_repository_is_not_copied_into_itself_nor_into_a_mirror_and_out_of_one() {
    let world = World::filled();
    let mirror: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
    let scratch = std::env::temp_dir();
    let plain = SyncOptions::default();
    sync(
        &world.storage,
        &mirror,
        &scratch,
        plain,
        &Silent,
        &Cancel::default(),
    )
    .unwrap();
    for (from, to) in [(&world.storage, &world.storage), (&world.storage, &mirror)] {
        let error = copy(from, to).unwrap_err().to_string();
        assert!(error.contains("same repository"), "{error}");
    }
    let error = copy(&other(), &mirror).unwrap_err().to_string();
    assert!(error.contains("is a mirror"), "{error}");
    let target = other();
    copy(&mirror, &target).unwrap();
    verify(&world, &target);
}

proptest! {
    #[test]
    fn contents_go_both_ways(
        ids in prop::collection::vec((any::<[u8; 32]>(), any::<u64>(), any::<bool>()), 0..40),
        level: u8,
    ) {
        let extents = ids.iter().map(|(id, length, is_data)| match is_data {
            true => Extent::Data { id: ChunkId(*id), length: *length },
            false => Extent::Hole { length: *length },
        });
        let extents = Content::Extents(extents.collect());
        let root = ChunkId([level; 32]);
        for content in [Content::None, Content::Whole(root), extents, Content::List { root, level }] {
            prop_assert_eq!(decode(&encode(&content)), Some(content));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = decode(&bytes);
    }
}
