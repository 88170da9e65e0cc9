use std::sync::{Arc, Mutex};

use bytes::Bytes;
use larder_format::object::{Header, Kind, object_id};

use super::*;
use crate::progress::Silent;
use crate::prune::tests::world::{Hook, World, objects};
use crate::storage::Storage;
use crate::storage::error::Operation;
use crate::storage::faulty::{Effect, Fault, Faulty, When};
use crate::storage::object::ObjectStorage;

fn scrub_of(storage: &Arc<dyn Storage>) -> Result<ScrubReport> {
    let scratch = std::env::temp_dir();
    scrub(storage, &scratch, false, &Silent, &Cancel::default())
}

fn world() -> World {
    let mut world = World::new();
    world.write("a", b"one");
    world.write("long", &crate::prune::tests::world::noise(3, 40_000));
    world.back_up();
    world.write("b", b"two");
    world.back_up();
    let reserve = larder_format::object::reserve(1000, [1; 16], &[2; 32]);
    world
        .storage
        .create(names::RESERVE, reserve.into())
        .unwrap();
    world.forget(0);
    world
}

#[test]
fn a_sound_repository_verifies_whole_and_dry_runs_read_nothing() {
    let world = world();
    let report = scrub_of(&world.storage).unwrap();
    let all = objects(world.storage.as_ref());
    let bytes: u64 = all.values().map(|object| object.len() as u64).sum();
    assert_eq!(report.findings.len(), 0);
    assert_eq!((report.loss, report.harmless, report.unknown), (0, 0, 0));
    assert_eq!(report.verified, all.len() as u64);
    assert_eq!((report.bytes, report.bytes_read), (bytes, bytes));
    let faulty = Arc::new(Faulty::new(Arc::clone(&world.storage)));
    let storage: Arc<dyn Storage> = faulty.clone();
    let dry = scrub(
        &storage,
        &std::env::temp_dir(),
        true,
        &Silent,
        &Cancel::default(),
    )
    .unwrap();
    assert_eq!(faulty.operations(), 1);
    assert_eq!((dry.objects, dry.bytes), (report.objects, bytes));
    assert_eq!((dry.verified, dry.bytes_read), (0, 0));
}

#[test]
fn every_way_of_damage_to_every_object_is_found_in_it_alone() {
    let world = world();
    let all = objects(world.storage.as_ref());
    let mut kinds = BTreeSet::new();
    for (name, bytes) in &all {
        kinds.insert(bytes[9]);
        let flipped = |at: usize| {
            let mut bytes = bytes.to_vec();
            bytes[at] ^= 1;
            bytes
        };
        let other = all.values().find(|other| other[9] != bytes[9]).unwrap();
        let ways = [
            flipped(0),
            flipped(9),
            flipped(bytes.len() / 2),
            flipped(bytes.len() - 1),
            bytes[..bytes.len() - 1].to_vec(),
            bytes[..20].to_vec(),
            Vec::new(),
            [bytes, b"x".as_slice()].concat(),
            vec![0; bytes.len()],
            other.to_vec(),
        ];
        for way in ways {
            let copy = world.copy();
            copy.put(name, Bytes::from(way)).unwrap();
            let report = scrub_of(&copy).unwrap();
            let found: Vec<_> = report.findings.iter().map(|one| &one.object).collect();
            assert_eq!(found, [name], "{:?}", report.findings);
            assert_eq!(report.verified, all.len() as u64 - 1);
            // What opens the repository has twins.
            let costs_data =
                name.starts_with("packs/") || name.starts_with("snapshots/") && !name.contains('.');
            assert_eq!(
                (report.loss > 0, report.harmless > 0),
                (costs_data, !costs_data)
            );
        }
    }
    // Every kind was there but what collectors write, which ends in a hash like the others.
    assert_eq!(
        kinds.into_iter().collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 12]
    );
}

#[test]
fn a_read_that_fails_once_is_no_damage() {
    let world = world();
    let count = objects(world.storage.as_ref()).len() as u64;
    for nth in 1..=count {
        for effect in [
            Effect::Flip(70),
            Effect::Cut(30),
            Effect::Error(When::Before, ErrorKind::Permanent),
        ] {
            let faulty = Faulty::new(Arc::clone(&world.storage));
            faulty.inject(Fault {
                nth,
                operation: Some(Operation::Get),
                lasts: false,
                effect,
            });
            let storage: Arc<dyn Storage> = Arc::new(faulty);
            let report = scrub_of(&storage).unwrap();
            assert_eq!((report.findings.len(), report.verified), (0, count));
        }
    }
}

#[test]
fn a_listing_that_is_cut_short_is_an_error_and_never_less_to_verify() {
    let world = world();
    let faulty = Faulty::new(Arc::clone(&world.storage));
    faulty.inject(Fault {
        nth: 1,
        operation: Some(Operation::List),
        lasts: true,
        effect: Effect::CutListing(3),
    });
    let storage: Arc<dyn Storage> = Arc::new(faulty);
    assert!(matches!(scrub_of(&storage), Err(EngineError::Storage(_))));
}

#[test]
fn a_slot_that_is_missing_is_found_by_the_config() {
    let world = world();
    let all = objects(world.storage.as_ref());
    let slot = all.keys().find(|name| name.starts_with("keys/")).unwrap();
    world.storage.delete(slot).unwrap();
    let report = scrub_of(&world.storage).unwrap();
    assert_eq!((report.harmless, &report.findings[0].object), (1, slot));
    assert!(report.findings[0].problem.contains("its twin is whole"));
    world.storage.delete(&format!("twins/{slot}")).unwrap();
    let report = scrub_of(&world.storage).unwrap();
    assert_eq!((report.loss, &report.findings[0].object), (1, slot));
    assert!(report.findings[0].problem.contains("is missing"));
}

#[test]
fn what_is_not_as_its_twin_is_found_and_a_config_that_only_its_twin_has() {
    let world = world();
    let all = objects(world.storage.as_ref());
    let slot = all.keys().find(|name| name.starts_with("keys/")).unwrap();
    let mut other = all[slot][..all[slot].len() - 32].to_vec();
    other[60] ^= 1;
    let other = larder_format::object::close(other);
    let copy = world.copy();
    copy.put(slot, other.into()).unwrap();
    let report = scrub_of(&copy).unwrap();
    assert_eq!((report.harmless, &report.findings[0].object), (1, slot));
    assert!(report.findings[0].problem.contains("different bytes"));
    world.storage.delete(&names::config(1)).unwrap();
    let report = scrub_of(&world.storage).unwrap();
    assert_eq!((report.loss, report.harmless), (0, 1));
    assert_eq!(report.findings[0].object, names::config(1));
}

#[test]
fn what_a_prune_deletes_meanwhile_is_no_damage_and_what_stays_listed_is() {
    use crate::prune::tests::world::{options, run};
    let mut world = World::filled();
    world.back_up();
    run(&world.storage, &options()).unwrap();
    world.forget(0);
    let inner = Arc::clone(&world.storage);
    let prune = move || drop(run(&inner, &options()).unwrap());
    let storage: Arc<dyn Storage> = Arc::new(Odd {
        inner: Arc::clone(&world.storage),
        denied: String::new(),
        after_listing: Mutex::new(Some(Box::new(prune))),
    });
    let report = scrub_of(&storage).unwrap();
    assert!(report.gone > 0 && report.findings.is_empty(), "{report:?}");
    assert_eq!(report.gone + report.verified, report.objects);
    // A storage that says of one object that it is not there.
    let pack = objects(world.storage.as_ref())
        .into_keys()
        .find(|name| name.starts_with("packs/"))
        .unwrap();
    let storage: Arc<dyn Storage> = Arc::new(Odd {
        inner: Arc::clone(&world.storage),
        denied: pack.clone(),
        after_listing: Mutex::default(),
    });
    let report = scrub_of(&storage).unwrap();
    assert_eq!((report.gone, report.loss), (0, 1));
    assert_eq!(report.findings[0].object, pack);
}

#[test]
fn long_objects_are_read_in_pieces_and_foreign_ones_are_named() {
    let world = World::new();
    let header = Header {
        kind: Kind::DataPack,
        key_id: larder_format::ids::KeyId([1; 32]),
        uid: [2; 16],
    };
    let mut pack = header.encode().to_vec();
    pack.resize(usize::try_from(WHOLE_BYTES).unwrap() + 12_345, 7);
    let name = names::pack(&object_id(&pack));
    world.storage.put(&name, pack.clone().into()).unwrap();
    let count = objects(world.storage.as_ref()).len() as u64;
    world.storage.put("foreign/x", Bytes::new()).unwrap();
    world.storage.put("probe/x", Bytes::new()).unwrap();
    let report = scrub_of(&world.storage).unwrap();
    assert_eq!((report.verified, report.unknown), (count, 1));
    assert_eq!(report.findings[0].object, "foreign/x");
    assert_eq!((report.loss, report.harmless), (0, 0));
    *pack.last_mut().unwrap() ^= 1;
    world.storage.put(&name, pack.into()).unwrap();
    assert_eq!(scrub_of(&world.storage).unwrap().loss, 1);
}

#[test]
fn where_nothing_is_there_is_no_repository_and_without_config_there_was_one() {
    let empty: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
    assert!(matches!(
        scrub_of(&empty),
        Err(EngineError::NoRepository { .. })
    ));
    let world = world();
    for name in [names::config(1), format!("twins/{}", names::config(1))] {
        world.storage.delete(&name).unwrap();
    }
    let report = scrub_of(&world.storage).unwrap();
    assert_eq!(report.findings[0].object, names::CONFIGS);
    assert_eq!(report.loss, 1);
}

/// Lists an object and says that it is not there; lets something happen after its first listing.
struct Odd {
    inner: Arc<dyn Storage>,
    denied: String,
    after_listing: Mutex<Option<Hook>>,
}

impl Odd {
    fn check(&self, name: &str) -> crate::storage::error::Result<()> {
        use crate::storage::error::StorageError;
        match name == self.denied {
            false => Ok(()),
            true => Err(StorageError::new(
                Operation::Get,
                "test",
                name,
                ErrorKind::NotFound,
                "it is not there",
            )),
        }
    }
}

impl Storage for Odd {
    fn get(&self, name: &str, max_bytes: u64) -> crate::storage::error::Result<Bytes> {
        self.check(name)?;
        self.inner.get(name, max_bytes)
    }

    fn get_range(
        &self,
        name: &str,
        offset_bytes: u64,
        length_bytes: u64,
    ) -> crate::storage::error::Result<Bytes> {
        self.check(name)?;
        self.inner.get_range(name, offset_bytes, length_bytes)
    }

    fn put(&self, name: &str, bytes: Bytes) -> crate::storage::error::Result<()> {
        self.inner.put(name, bytes)
    }

    fn create(&self, name: &str, bytes: Bytes) -> crate::storage::error::Result<()> {
        self.inner.create(name, bytes)
    }

    fn delete(&self, name: &str) -> crate::storage::error::Result<()> {
        self.inner.delete(name)
    }

    fn list(
        &self,
        folder: &str,
        visit: &mut dyn FnMut(crate::storage::ObjectInfo) -> crate::storage::error::Result<()>,
    ) -> crate::storage::error::Result<()> {
        self.inner.list(folder, visit)?;
        if let Some(hook) = self.after_listing.lock().unwrap().take() {
            hook();
        }
        Ok(())
    }

    fn size(&self, name: &str) -> crate::storage::error::Result<u64> {
        self.check(name)?;
        self.inner.size(name)
    }

    fn capabilities(&self) -> crate::storage::Capabilities {
        self.inner.capabilities()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
