//! A storage that fails at each call in turn: whoever was at work says so, nothing is lost, and the next run succeeds.

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::Arc;

use larder_engine::backup::backup;
use larder_engine::cancel::Cancel;
use larder_engine::error::{EngineError, Result};
use larder_engine::progress::Silent;
use larder_engine::repair::{Repair, RepairOptions};
use larder_engine::repository::Repository;
use larder_engine::restore::restore;
use larder_engine::snapshots::{Filter, list};
use larder_engine::storage::Storage;
use larder_engine::storage::error::ErrorKind;
use larder_engine::storage::faulty::{Effect, Fault, Faulty, When};
use larder_format::names;

use super::exhibits::{Museum, backup_options, open_options};
use super::overlay::{Objects, Overlay};
use crate::fixture::{author, files_below, memory_folder, restore_options, secret, snapshots};

/// What a call may answer: EIO, ENOSPC, EROFS and EACCES, EMFILE and the like, before and after its work, and reads
/// and listings that are short or wrong.
const EFFECTS: [Effect; 9] = [
    Effect::Error(When::Before, ErrorKind::Permanent),
    Effect::Error(When::After, ErrorKind::Permanent),
    Effect::Error(When::Before, ErrorKind::Full),
    Effect::Error(When::Before, ErrorKind::ReadOnly),
    Effect::Error(When::Before, ErrorKind::Denied),
    Effect::Error(When::Before, ErrorKind::Transient),
    Effect::Cut(70),
    Effect::Flip(90),
    Effect::CutListing(1),
];

/// What is done to a storage; it may be done again.
type Deed<'a> = &'a dyn Fn(&Arc<Faulty>) -> Result<()>;

/// Lets each call of a deed fail once; `look` judges what is left, `judge` what the next run made.
fn fail_everywhere(
    before: &Arc<Overlay>,
    deed: Deed<'_>,
    look: &dyn Fn(&Overlay, &str),
    judge: &dyn Fn(&Overlay, &str),
) {
    let clean = Arc::new(Faulty::new(Arc::new(before.fork())));
    deed(&clean).unwrap();
    let operations = clean.operations();
    let mut failed = BTreeMap::new();
    for nth in 1..=operations {
        // Each call refuses for good, and fails in one of the other ways.
        let other = 1 + nth as usize % (EFFECTS.len() - 1);
        for number in [0, other] {
            let effect = EFFECTS[number];
            let inner = Arc::new(before.fork());
            let storage = Arc::new(Faulty::new(Arc::clone(&inner) as Arc<dyn Storage>));
            storage.inject(Fault {
                nth,
                operation: None,
                lasts: false,
                effect,
            });
            let outcome = deed(&storage);
            storage.heal();
            let what = format!("{effect:?} at call {nth} of {operations}: {outcome:?}");
            if let Err(error) = &outcome {
                *failed.entry(number).or_insert(0_u64) += 1;
                assert_clear(error, &what);
            }
            look(&inner, &what);
            let again = deed(&storage);
            assert!(again.is_ok(), "{what}; the next run: {again:?}");
            judge(&inner, &what);
        }
    }
    // Whatever refuses for good shows, but where another copy serves, or the work is done already or done without.
    let refused = failed.get(&0).copied().unwrap_or_default();
    assert!(refused * 3 > operations, "{failed:?} of {operations}");
}

/// Fails unless an error says what was tried, on what, and why.
fn assert_clear(error: &EngineError, what: &str) {
    let told = error.to_string();
    let names_cause = told.contains("an injected fault") || told.contains("damaged");
    assert!(
        names_cause
            || matches!(
                error,
                EngineError::WrongSecret { .. } | EngineError::NoRepository { .. }
            ),
        "{what}: {told}"
    );
}

fn assert_nothing_lost(museum: &Museum, objects: &Objects, what: &str) {
    // What gives room where there is none may be gone.
    let kept = museum
        .repository
        .iter()
        .filter(|(name, _)| *name != names::RESERVE);
    for (name, bytes) in kept {
        assert!(objects.get(name) == Some(bytes), "{what}: {name}");
    }
}

fn open(museum: &Museum, storage: &Arc<Faulty>) -> Result<Arc<Repository>> {
    museum.desk.open(storage, "one")
}

#[test]
fn a_backup_fails_at_any_call_and_loses_nothing() {
    let museum = Museum::new();
    let before = Arc::new(Overlay::new(&museum.repository));
    let source = files_below(&museum.desk.path("source"));
    let deed = |storage: &Arc<Faulty>| {
        let repository = open(&museum, storage)?;
        let options = backup_options(&museum.desk);
        backup(&repository, &options, &Silent, &Cancel::default()).map(drop)
    };
    let look = |storage: &Overlay, what: &str| {
        assert_nothing_lost(&museum, &storage.objects(), what);
    };
    let judge = |storage: &Overlay, what: &str| {
        let objects = storage.objects();
        assert_nothing_lost(&museum, &objects, what);
        let opened = Arc::new(Faulty::new(Arc::new(storage.fork())));
        let newest = snapshots(&open(&museum, &opened).unwrap()).pop().unwrap();
        let made = museum.oracle.files_of(&objects, &newest.session);
        let made = made.unwrap_or_else(|why| panic!("{what}: {why}"));
        let made: BTreeMap<_, _> = made
            .files
            .into_iter()
            .map(|(path, file)| (path, file.bytes))
            .collect();
        assert!(made == source, "{what}");
    };
    fail_everywhere(&before, &deed, &look, &judge);
}

#[test]
fn a_restore_fails_at_any_call_and_writes_nothing_wrong() {
    let museum = Museum::new();
    let before = Arc::new(Overlay::new(&museum.repository));
    let (id, truth) = museum.oracle.snapshots.iter().next_back().unwrap();
    let right = |target: &FilePath, is_whole: bool, what: &str| {
        let found = files_below(target);
        for (path, bytes) in &found {
            let is_right = truth
                .files
                .get(path)
                .is_some_and(|file| file.bytes == *bytes);
            assert!(is_right, "{what}: wrong bytes under {path}");
        }
        assert!(!is_whole || found.len() == truth.files.len(), "{what}");
    };
    let folder = tempfile::tempdir_in(memory_folder()).unwrap();
    let target = folder.path().join("target");
    let deed = |storage: &Arc<Faulty>| {
        let repository = open(&museum, storage)?;
        let listed = list(&repository, &Filter::default(), false)?;
        let snapshot = listed.iter().find(|one| one.session == *id).unwrap();
        let options = restore_options(&target);
        let source = Some(truth.source.as_slice());
        let report = restore(
            &repository,
            snapshot,
            source,
            &options,
            &Silent,
            &Cancel::default(),
        )?;
        // What could not be restored is said for each file, with the fault in it.
        match report.issues.first() {
            Some(issue) => Err(EngineError::Request(issue.error.clone())),
            None => Ok(()),
        }
    };
    let look = |_: &Overlay, what: &str| {
        if target.exists() {
            right(&target, false, what);
        }
    };
    let judge = |storage: &Overlay, what: &str| {
        right(&target, true, what);
        assert_nothing_lost(&museum, &storage.objects(), what);
        std::fs::remove_dir_all(&target).unwrap();
    };
    fail_everywhere(&before, &deed, &look, &judge);
}

/// Damages a record, a segment, and the directory of a pack.
fn damaged(museum: &Museum) -> Arc<Overlay> {
    let storage = Overlay::new(&museum.repository);
    let is_orphan = |name: &str| museum.orphans.iter().any(|one| one == name);
    for folder in [names::CELLS, names::SEGMENTS, names::PACKS] {
        let objects = museum.repository.iter();
        let meant = objects.filter(|(name, _)| name.starts_with(folder) && !is_orphan(name));
        let (name, bytes) = meant.max_by_key(|(_, bytes)| bytes.len()).unwrap();
        let mut bytes = bytes.to_vec();
        let at = bytes.len() - 40;
        bytes[at] ^= 1;
        storage.set(name, Some(bytes.into()));
    }
    Arc::new(storage)
}

fn repair(museum: &Museum, storage: &Arc<Faulty>, from: Option<&Arc<dyn Storage>>) -> Result<()> {
    let options = RepairOptions {
        apply: true,
        read_data: true,
        cuts_lost: false,
        author: author(),
    };
    let (cancel, scratch) = (Cancel::default(), std::env::temp_dir());
    let base: Arc<dyn Storage> = Arc::clone(storage) as _;
    let repair = Repair::prepare(&base, from, &scratch, &options, &Silent, &cancel)?;
    let open = open_options(&museum.desk);
    let opened = Repository::open_on(repair.storage(), &secret("one"), &open)?;
    repair.run(&opened, &open).map(drop)
}

#[test]
fn a_repair_fails_at_any_call_and_loses_nothing() {
    let museum = Museum::new();
    let before = damaged(&museum);
    let held = museum.oracle.held(&before.objects());
    let mirror: Arc<dyn Storage> = Arc::new(Overlay::new(&museum.mirror));
    for from in [None, Some(&mirror)] {
        let deed = |storage: &Arc<Faulty>| repair(&museum, storage, from);
        let start = before.objects();
        let look = |storage: &Overlay, what: &str| {
            let objects = storage.objects();
            assert!(museum.oracle.held(&objects).is_superset(&held), "{what}");
            for (name, bytes) in &start {
                let now = objects.get(name);
                let is_mended = now.is_some() && now == museum.repository.get(name);
                let is_room = name == names::RESERVE && now.is_none();
                assert!(now == Some(bytes) || is_mended || is_room, "{what}: {name}");
            }
        };
        let judge = |storage: &Overlay, what: &str| {
            look(storage, what);
            let objects = storage.objects();
            if from.is_some() {
                assert_nothing_lost(&museum, &objects, what);
            }
        };
        fail_everywhere(&before, &deed, &look, &judge);
    }
}
