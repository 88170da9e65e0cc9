mod cut;
mod openers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_format::names::{self, Name};

use super::*;
use crate::check::{CheckOptions, ReadData, check};
use crate::mirror::{SyncOptions, sync};
use crate::progress::Silent;
use crate::prune::PruneOptions;
use crate::prune::tests::world::{
    World, dying, noise, objects, open, options as prune_options, run,
};
use crate::repository::Cache;
use crate::snapshots::fixture;
use crate::storage::counting::Counting;
use crate::storage::error::ErrorKind;
use crate::storage::faulty::When;
use crate::storage::object::ObjectStorage;

fn options(apply: bool) -> RepairOptions {
    RepairOptions {
        apply,
        read_data: true,
        cuts_lost: false,
        author: Author {
            host: "desk".to_owned(),
            user: "me".to_owned(),
        },
    }
}

fn open_options() -> OpenOptions {
    OpenOptions {
        cache_dir: Some(std::env::temp_dir().join("larder-tests")),
        threads: 2,
        cache: Cache::Memory,
        ..OpenOptions::default()
    }
}

fn try_repair(
    storage: &Arc<dyn Storage>,
    from: Option<&Arc<dyn Storage>>,
    options: &RepairOptions,
) -> Result<RepairReport> {
    let cancel = Cancel::default();
    let scratch = std::env::temp_dir();
    let repair = Repair::prepare(storage, from, &scratch, options, &Silent, &cancel)?;
    let secret = fixture::passphrase("secret");
    let repository = Repository::open_on(repair.storage(), &secret, &open_options())?;
    repair.run(&repository, &open_options())
}

fn repair(
    storage: &Arc<dyn Storage>,
    from: Option<&Arc<dyn Storage>>,
    apply: bool,
) -> RepairReport {
    try_repair(storage, from, &options(apply)).unwrap()
}

fn mirror_of(storage: &Arc<dyn Storage>) -> Arc<dyn Storage> {
    let target: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
    let options = SyncOptions::default();
    let scratch = std::env::temp_dir();
    let cancel = Cancel::default();
    sync(storage, &target, &scratch, options, &Silent, &cancel).unwrap();
    target
}

/// A repository with a collector's state, an amendment, and snapshots that share much.
fn world() -> World {
    let mut world = World::filled();
    run(&world.storage, &prune_options()).unwrap();
    world.write("late", &noise(80, 9000));
    let id = world.back_up();
    let wish = crate::amend::Wish::SetTags(vec!["kept".to_owned()]);
    world.amend_on(&world.storage, &id, &wish).unwrap();
    world
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    Flip,
    Zero,
    Truncate,
    Delete,
}

const HARMS: [Harm; 4] = [Harm::Flip, Harm::Zero, Harm::Truncate, Harm::Delete];

/// Does harm to an object at a share of its length, in percent.
fn harm(storage: &dyn Storage, name: &str, harm: Harm, percent: usize) {
    let bytes = storage.get(name, 1 << 30).unwrap();
    let at = (bytes.len() * percent / 100).min(bytes.len() - 1);
    let mut bytes = bytes.to_vec();
    match harm {
        Harm::Flip => bytes[at] ^= 0x40,
        Harm::Zero => {
            let end = (at + 64).min(bytes.len());
            bytes[at..end].fill(0);
        }
        Harm::Truncate => bytes.truncate(at),
        Harm::Delete => return storage.delete(name).unwrap(),
    }
    storage.put(name, bytes.into()).unwrap();
}

fn outside_quarantine(storage: &dyn Storage) -> BTreeMap<String, Bytes> {
    let mut all = objects(storage);
    all.retain(|name, _| !name.starts_with(names::QUARANTINE));
    all
}

/// Objects that a repository needs, one of each kind and region that can be told apart.
fn victims(world: &World) -> Vec<String> {
    let repository = world.open();
    let view = crate::view::read(&repository, false, None).unwrap();
    let mut counting = BTreeSet::new();
    repository
        .index()
        .packs(&mut |pack| {
            counting.insert(names::pack(&pack.id));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    counting.extend(view.segments().iter().map(names::segment));
    let live = view.live();
    let is_needed = |name: &String| match names::parse(name).unwrap() {
        Name::Pack(_) | Name::Segment(_) => counting.contains(name),
        Name::Cell(id) | Name::Amendment(id, _) => live.contains(&id) || view.has_cell(&id),
        Name::Session(id) | Name::SessionEnd(id) => live.contains(&id),
        Name::State(number) => number == view.collection.state.number,
        Name::Round(_) | Name::Reserve | Name::Manifest(_) | Name::Ledger(_) | Name::Parity(_) => {
            false
        }
        Name::Run(_) | Name::RunEnd(_) => false,
        Name::Config(_) | Name::Slot(_) | Name::ConfigTwin(_) | Name::SlotTwin(_) => true,
    };
    world.objects().into_keys().filter(is_needed).collect()
}

#[test]
fn a_sound_repository_is_left_alone() {
    let world = world();
    let before = world.objects();
    for from in [None, Some(mirror_of(&world.storage))] {
        for apply in [false, true] {
            let report = repair(&world.storage, from.as_ref(), apply);
            assert!(!report.has_work(), "{report:?}");
            assert_eq!((report.left, report.lost, report.repair), (0, 0, None));
        }
    }
    assert!(world.objects() == before);
}

#[test]
fn whatever_happens_to_one_object_a_mirror_brings_it_back_byte_for_byte() {
    let world = world();
    let mirror = mirror_of(&world.storage);
    let before = world.objects();
    let victims = victims(&world);
    let kinds: BTreeSet<&str> = victims
        .iter()
        .map(|name| larder_format::verify::word(&names::parse(name).unwrap()))
        .collect();
    assert!(kinds.len() >= 9, "{kinds:?}");
    for (number, name) in victims.iter().enumerate() {
        let harm_now = HARMS[number % HARMS.len()];
        for (harm_now, percent) in [(harm_now, 5), (Harm::Delete, 0), (Harm::Flip, 97)] {
            let storage = world.copy();
            harm(storage.as_ref(), name, harm_now, percent);
            let damaged = objects(storage.as_ref());
            let dry = repair(&storage, Some(&mirror), false);
            assert!(objects(storage.as_ref()) == damaged, "a dry run wrote");
            let report = repair(&storage, Some(&mirror), true);
            let what = format!("{name} {harm_now:?} {percent}: {report:?}");
            assert_eq!((dry.objects, report.objects), (1, 1), "{what}");
            assert_eq!(dry.mended, report.mended, "{what}");
            assert_eq!(
                (report.left, report.lost, report.chunks),
                (0, 0, 0),
                "{what}"
            );
            assert!(outside_quarantine(storage.as_ref()) == before, "{what}");
            // What was replaced is kept, as it was.
            let id = report.repair.unwrap();
            let kept = format!("{}{id}/{name}", names::QUARANTINE);
            let all = objects(storage.as_ref());
            assert_eq!(all.get(&kept), damaged.get(name), "{what}");
            let again = repair(&storage, Some(&mirror), true);
            assert!(!again.has_work() && again.repair.is_none(), "{again:?}");
            assert!(objects(storage.as_ref()) == all);
        }
    }
}

#[test]
fn packs_that_a_round_condemned_are_put_back_as_long_as_it_has_no_end() {
    let world = World::filled();
    let patience = Duration::from_secs(1_000_000);
    let options = PruneOptions {
        patience,
        ..prune_options()
    };
    assert!(run(&world.storage, &options).unwrap().waiting.is_some());
    let repository = world.open();
    let view = crate::view::read(&repository, false, None).unwrap();
    let condemned = view.collection.round.unwrap().condemned;
    let mut named = BTreeSet::new();
    repository
        .index()
        .packs(&mut |pack| {
            named.extend(condemned.contains(&pack.id).then_some(pack.id));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert!(!named.is_empty());
    let (copy, before) = (world.copy(), world.objects());
    for id in named {
        let storage = world.copy();
        storage.delete(&names::pack(&id)).unwrap();
        let report = repair(&storage, None, true);
        assert_eq!((report.objects, report.left, report.lost), (0, 0, 0));
        let report = repair(&storage, Some(&copy), true);
        assert_eq!((report.objects, report.left), (1, 0), "{report:?}");
        assert!(outside_quarantine(storage.as_ref()) == before);
    }
}

#[test]
fn records_that_took_each_others_places_are_put_back() {
    let world = world();
    let mirror = mirror_of(&world.storage);
    let before = world.objects();
    let victims = victims(&world);
    let is_one: [fn(&Name) -> bool; 3] = [
        |name| matches!(name, Name::Cell(_)),
        |name| matches!(name, Name::Session(_)),
        |name| matches!(name, Name::SessionEnd(_)),
    ];
    let mut pairs = 0;
    for is_one in is_one {
        let meant = victims
            .iter()
            .filter(|name| is_one(&names::parse(name).unwrap()));
        let meant: Vec<&String> = meant.take(2).collect();
        let [one, other] = meant[..] else { continue };
        pairs += 1;
        let storage = world.copy();
        storage.put(one, before[other].clone()).unwrap();
        storage.put(other, before[one].clone()).unwrap();
        let dry = repair(&storage, Some(&mirror), false);
        let report = repair(&storage, Some(&mirror), true);
        assert_eq!((dry.objects, report.objects), (2, 2), "{one}: {report:?}");
        assert!(outside_quarantine(storage.as_ref()) == before, "{one}");
        assert!(!repair(&storage, Some(&mirror), true).has_work());
    }
    assert!(pairs > 0);
}

#[test]
fn a_repair_is_undone_and_the_undoing_too() {
    let world = world();
    let mirror = mirror_of(&world.storage);
    let before = world.objects();
    let victims = victims(&world);
    let storage = world.copy();
    for (number, name) in victims.iter().enumerate() {
        harm(storage.as_ref(), name, HARMS[number % HARMS.len()], 50);
    }
    let damaged = outside_quarantine(storage.as_ref());
    let report = repair(&storage, Some(&mirror), true);
    assert_eq!(report.objects, victims.len() as u64);
    assert!(outside_quarantine(storage.as_ref()) == before);
    let past = past_repairs(storage.as_ref(), &Silent).unwrap();
    assert_eq!(past.len(), 1);
    assert_eq!(past[0].objects.len(), victims.len());
    let author = options(true).author;
    let id = report.repair.unwrap();
    let cancel = Cancel::default();
    let take_back =
        |id: &str, dry_run| undo(storage.as_ref(), id, &author, dry_run, &Silent, &cancel);
    let would = take_back(&id, true).unwrap();
    assert_eq!((would.objects, would.repair), (victims.len() as u64, None));
    assert!(outside_quarantine(storage.as_ref()) == before);
    assert_eq!(past_repairs(storage.as_ref(), &Silent).unwrap().len(), 1);
    let undone = take_back(&id, false).unwrap();
    assert_eq!(undone.objects, victims.len() as u64);
    assert!(outside_quarantine(storage.as_ref()) == damaged);
    assert_eq!(take_back(&id, true).unwrap().objects, 0);
    take_back(&undone.repair.unwrap(), false).unwrap();
    assert!(outside_quarantine(storage.as_ref()) == before);
    assert_eq!(past_repairs(storage.as_ref(), &Silent).unwrap().len(), 3);
    for dry_run in [true, false] {
        let unknown = take_back(&"0".repeat(32), dry_run);
        assert!(matches!(unknown, Err(EngineError::NotFound(_))));
    }
}

/// Gives what a check that reads everything says is lost.
fn losses(storage: &Arc<dyn Storage>) -> BTreeSet<String> {
    let repository = open(storage);
    let options = CheckOptions {
        read_data: ReadData::All,
        records_suspects: false,
    };
    let report = check(&repository, &options, &Silent, &Cancel::default()).unwrap();
    let loss = report
        .findings
        .into_iter()
        .filter(|one| one.severity == Severity::Loss);
    loss.flat_map(|one| one.paths).collect()
}

/// The paths of which some chunk is in no place that opens: computed from every pack's bytes alone.
fn nowhere(storage: &Arc<dyn Storage>, world: &World) -> BTreeSet<String> {
    use larder_format::block::open_block;
    use larder_format::compression::Decompressor;
    let repository = world.open();
    let view = crate::view::read(&repository, false, None).unwrap();
    let mut decompressor = Decompressor::new().unwrap();
    let mut held = BTreeSet::new();
    repository
        .index()
        .for_each_chunk(&mut |prefix, places| {
            for place in places {
                let range = storage.get_range(
                    &names::pack(&place.pack),
                    place.block_offset,
                    u64::from(place.block_length),
                );
                let Ok(sealed) = range else { continue };
                let types = [1, 2, 3, 4, 5, 6];
                let opens = types.iter().any(|number| {
                    let kind = larder_format::ids::ChunkType::from_number(*number).unwrap();
                    let keyring = repository.keyring();
                    keyring.keys().iter().any(|key| {
                        open_block(keyring, &key.id(), kind, &sealed, &mut decompressor).is_ok()
                    })
                });
                if opens {
                    held.insert(*prefix);
                }
            }
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    let mut reader = crate::chunks::ChunkReader::new(&repository).unwrap();
    let mut lost = BTreeSet::new();
    for cell in view.snapshots() {
        for source in &cell.sources {
            walk(
                &mut reader,
                &held,
                source,
                &source.root,
                source.level,
                &mut lost,
            );
        }
    }
    lost
}

fn walk(
    reader: &mut crate::chunks::ChunkReader,
    held: &BTreeSet<larder_format::ids::ChunkPrefix>,
    source: &larder_format::cell::Source,
    id: &larder_format::ids::ChunkId,
    level: u8,
    lost: &mut BTreeSet<String>,
) {
    use larder_format::entry::{Content, Extent};
    use larder_format::ids::ChunkType;
    if !held.contains(&id.prefix()) {
        lost.insert("nodes".to_owned());
        return;
    }
    let page = reader.read(ChunkType::of_tree(level), id).unwrap();
    if level > 0 {
        let node = larder_format::node::Interior::decode(&page).unwrap();
        for child in &node.children {
            walk(reader, held, source, &child.id, level - 1, lost);
        }
        return;
    }
    for entry in larder_format::node::decode_leaf(&page).unwrap() {
        let mut ids = Vec::new();
        match &entry.content {
            Content::None => {}
            Content::Whole(id) => ids.push(*id),
            Content::Extents(extents) => {
                ids.extend(extents.iter().filter_map(|one| match one {
                    Extent::Data { id, .. } => Some(*id),
                    Extent::Hole { .. } => None,
                }));
            }
            Content::List { root, level } => list(reader, held, root, *level, &mut ids),
        }
        if ids.iter().any(|id| !held.contains(&id.prefix())) {
            let key = String::from_utf8(entry.key.clone()).unwrap();
            let path = String::from_utf8(source.path.clone()).unwrap();
            lost.insert(format!("{path}/{key}"));
        }
    }
}

fn list(
    reader: &mut crate::chunks::ChunkReader,
    held: &BTreeSet<larder_format::ids::ChunkPrefix>,
    id: &larder_format::ids::ChunkId,
    level: u8,
    ids: &mut Vec<larder_format::ids::ChunkId>,
) {
    use larder_format::entry::Extent;
    use larder_format::ids::ChunkType;
    if !held.contains(&id.prefix()) {
        ids.push(*id);
        return;
    }
    if level == 0 {
        let page = reader.read(ChunkType::ListLeaf, id).unwrap();
        for extent in larder_format::list::decode_list_leaf(&page).unwrap() {
            if let Extent::Data { id, .. } = extent {
                ids.push(id);
            }
        }
        return;
    }
    let page = reader.read(ChunkType::ListInterior, id).unwrap();
    let node = larder_format::list::ListInterior::decode(&page).unwrap();
    for child in &node.children {
        list(reader, held, &child.id, level - 1, ids);
    }
}

#[test]
fn without_another_copy_what_opens_is_saved_and_what_does_not_is_named() {
    let world = world();
    let mut saved = 0;
    for name in victims(&world) {
        let parsed = names::parse(&name).unwrap();
        if !matches!(parsed, Name::Pack(_) | Name::Segment(_)) {
            continue;
        }
        for harm_now in HARMS {
            for percent in [2, 30, 70, 99] {
                let storage = world.copy();
                harm(storage.as_ref(), &name, harm_now, percent);
                let before = objects(storage.as_ref());
                let expected = nowhere(&storage, &world);
                let what = format!("{name} {harm_now:?} {percent}");
                let dry = repair(&storage, None, false);
                assert!(
                    objects(storage.as_ref()) == before,
                    "{what}: a dry run wrote"
                );
                let report = repair(&storage, None, true);
                assert_eq!(
                    (dry.chunks, dry.lost),
                    (report.chunks, report.lost),
                    "{what}"
                );
                assert_eq!(dry.losses, report.losses, "{what}");
                let told: BTreeSet<String> = report
                    .losses
                    .iter()
                    .map(|lost| match lost.part {
                        LostPart::Entries => "nodes".to_owned(),
                        _ => lost.path.clone(),
                    })
                    .collect();
                assert_eq!(told, expected, "{what}: {report:?}");
                saved += report.chunks;
                // Nothing that was there is gone or another.
                let after = objects(storage.as_ref());
                for (name, bytes) in &before {
                    assert!(after.get(name) == Some(bytes), "{what}: {name}");
                }
                if expected.is_empty() {
                    world.verify_contents(&storage);
                    assert_eq!(losses(&storage), BTreeSet::new(), "{what}");
                } else {
                    assert!(report.has_loss(), "{what}");
                }
                let again = repair(&storage, None, true);
                assert!(!again.has_work(), "{what}: {again:?}");
                assert_eq!(again.losses, report.losses, "{what}");
                assert!(
                    objects(storage.as_ref()) == after,
                    "{what}: the second run wrote"
                );
            }
        }
    }
    assert!(saved > 0);
}

#[test]
fn what_was_saved_survives_the_prune_that_takes_the_damaged_pack() {
    let mut world = world();
    let pack = victims(&world)
        .into_iter()
        .filter(|name| name.starts_with(names::PACKS))
        .max_by_key(|name| world.objects()[name].len())
        .unwrap();
    // The directory alone is damaged, so all blocks open.
    harm(world.storage.as_ref(), &pack, Harm::Flip, 99);
    let report = repair(&world.storage, None, true);
    assert!(report.chunks > 0 && report.lost == 0, "{report:?}");
    assert!(report.new_suspects > 0, "{report:?}");
    for number in 0..3 {
        run(&world.storage, &prune_options()).unwrap();
        world.write(&format!("after{number}"), &noise(90 + number, 3000));
        world.back_up();
    }
    assert!(!world.objects().contains_key(&pack));
    world.verify();
}

#[test]
fn a_repair_may_die_at_any_moment_and_be_done_again() {
    let world = world();
    let mirror = mirror_of(&world.storage);
    let victims = victims(&world);
    let storage = world.copy();
    let is_big_pack = |name: &&String| name.starts_with(names::PACKS);
    let pack = victims.iter().filter(is_big_pack).max().unwrap();
    let others = victims.iter().filter(|name| {
        let name = names::parse(name).unwrap();
        matches!(
            name,
            Name::Segment(_) | Name::Cell(_) | Name::State(_) | Name::Config(_)
        )
    });
    for name in others {
        harm(storage.as_ref(), name, Harm::Flip, 40);
    }
    // This pack rots in the mirror as well: its blocks are saved one by one.
    for place in [&storage, &mirror] {
        harm(place.as_ref(), pack, Harm::Flip, 99);
    }
    let damaged = objects(storage.as_ref());
    let copy = || -> Arc<dyn Storage> {
        let copy = ObjectStorage::memory();
        for (name, bytes) in &damaged {
            copy.put(name, bytes.clone()).unwrap();
        }
        Arc::new(copy)
    };
    let counting = Arc::new(Counting::new(copy()));
    let counted: Arc<dyn Storage> = counting.clone();
    let report = repair(&counted, Some(&mirror), true);
    assert!(report.objects > 3 && report.chunks > 0, "{report:?}");
    world.verify_contents(&counted);
    let operations = counting.counts().total().operations;
    for at in 1..=operations {
        let whens: &[When] = match at % 3 {
            0 => &[When::Before],
            1 => &[When::After],
            _ => &[],
        };
        for when in whens.iter().copied() {
            let inner = copy();
            let dying: Arc<dyn Storage> = dying(Arc::clone(&inner), at, when);
            let _ = try_repair(&dying, Some(&mirror), &options(true));
            // Nothing that was sound is gone or another.
            let now = objects(inner.as_ref());
            for (name, bytes) in &damaged {
                let parsed = names::parse(name).unwrap();
                let was_sound = larder_format::verify::verify(parsed, bytes).is_ok();
                assert!(!was_sound || now.get(name) == Some(bytes), "{at}: {name}");
            }
            repair(&inner, Some(&mirror), true);
            world.verify_contents(&inner);
            let again = repair(&inner, Some(&mirror), true);
            assert!(!again.has_work(), "{at}: {again:?}");
        }
    }
}

#[test]
fn another_repository_heals_nothing_and_a_mirror_is_not_repaired() {
    let (one, other) = (world(), World::new());
    let refused = try_repair(&one.storage, Some(&other.storage), &options(true));
    assert!(matches!(refused, Err(EngineError::Request(_))));
    let mirror = mirror_of(&one.storage);
    let refused = try_repair(&mirror, None, &options(true));
    assert!(matches!(refused, Err(EngineError::Request(_))));
    let empty: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
    let refused = try_repair(&one.storage, Some(&empty), &options(true));
    assert!(matches!(refused, Err(EngineError::Request(why)) if why.contains("no repository")));
}

#[test]
fn what_cannot_be_read_stays_where_it_is() {
    let world = world();
    let mirror = mirror_of(&world.storage);
    let name = victims(&world)
        .into_iter()
        .find(|name| name.starts_with(names::SEGMENTS))
        .unwrap();
    let failing = Arc::new(crate::storage::faulty::Faulty::new(world.copy()));
    let storage: Arc<dyn Storage> = failing;
    let unreadable: Arc<dyn Storage> = Arc::new(Unreadable(storage, name.clone()));
    let before = objects(world.storage.as_ref());
    let report = repair(&unreadable, Some(&mirror), true);
    assert_eq!(report.objects, 0, "{report:?}");
    let mut after = before.clone();
    after.remove(&name);
    let mut now = outside_quarantine_but(&unreadable, &name);
    now.remove(&name);
    assert!(now == after);
}

fn outside_quarantine_but(storage: &Arc<dyn Storage>, but: &str) -> BTreeMap<String, Bytes> {
    let mut names = Vec::new();
    let listed = storage.list("", &mut |object| {
        names.push(object.name);
        Ok(())
    });
    listed.unwrap();
    let is_meant = |name: &String| name != but && !name.starts_with(names::QUARANTINE);
    let names = names.into_iter().filter(is_meant);
    names
        .map(|name| (name.clone(), storage.get(&name, 1 << 30).unwrap()))
        .collect()
}

/// A storage of which one object cannot be read, as on a bad disk.
struct Unreadable(Arc<dyn Storage>, String);

impl Storage for Unreadable {
    fn get(&self, name: &str, max: u64) -> crate::storage::error::Result<Bytes> {
        if name == self.1 {
            return Err(crate::storage::error::StorageError::new(
                crate::storage::error::Operation::Get,
                self.describe(),
                name,
                ErrorKind::Permanent,
                "Input/output error",
            ));
        }
        self.0.get(name, max)
    }

    fn get_range(&self, name: &str, at: u64, length: u64) -> crate::storage::error::Result<Bytes> {
        self.0.get_range(name, at, length)
    }

    fn put(&self, name: &str, bytes: Bytes) -> crate::storage::error::Result<()> {
        self.0.put(name, bytes)
    }

    fn create(&self, name: &str, bytes: Bytes) -> crate::storage::error::Result<()> {
        self.0.create(name, bytes)
    }

    fn delete(&self, name: &str) -> crate::storage::error::Result<()> {
        self.0.delete(name)
    }

    fn list(
        &self,
        folder: &str,
        visit: &mut dyn FnMut(crate::storage::ObjectInfo) -> crate::storage::error::Result<()>,
    ) -> crate::storage::error::Result<()> {
        self.0.list(folder, visit)
    }

    fn size(&self, name: &str) -> crate::storage::error::Result<u64> {
        self.0.size(name)
    }

    fn capabilities(&self) -> crate::storage::Capabilities {
        self.0.capabilities()
    }

    fn describe(&self) -> String {
        self.0.describe()
    }
}
