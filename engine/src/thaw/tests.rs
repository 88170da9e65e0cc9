//! Packs in cold storage: nothing but what needs their bytes touches them, and that says how to go on.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::check::{CheckOptions, CheckReport, ReadData, Severity, check, quick};
use crate::error::EngineError;
use crate::progress::Silent;
use crate::prune::plan::MaxUnused;
use crate::prune::tests::world::{World, noise, open, options, run};
use crate::prune::{PruneOptions, prune};
use crate::restore::{
    Overwrite, RestoreOptions, RestoreReport, contents_needs, restore, restore_needs,
};
use crate::snapshots::{Filter, SnapshotInfo};
use crate::storage::Storage;
use crate::storage::frozen::Frozen;

const HOW: Thaw = Thaw {
    tier: Tier::Expedited,
    days: 3,
};

/// Two snapshots, the older one forgotten, whose data packs are cold; half of what the first pack holds is needed.
fn world(looks: u32) -> (World, Arc<Frozen>) {
    let mut world = World::new();
    let frozen = Arc::new(Frozen::new(Arc::clone(&world.storage), looks));
    world.storage = Arc::clone(&frozen) as Arc<dyn Storage>;
    for number in 0..8 {
        world.write(&format!("f{number}"), &noise(number, 3000));
    }
    world.back_up();
    for number in 0..4 {
        world.remove(&format!("f{number}"));
    }
    world.write("new", &noise(9, 20_000));
    world.back_up();
    world.forget(0);
    (world, frozen)
}

fn newest(repository: &Repository) -> SnapshotInfo {
    let all = crate::snapshots::list(repository, &Filter::default(), false).unwrap();
    all.into_iter().next_back().unwrap()
}

fn into(target: &Path) -> RestoreOptions {
    RestoreOptions {
        target: target.to_owned(),
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
    }
}

fn restored(world: &World, target: &Path) -> Result<RestoreReport> {
    let repository = open(&world.storage);
    let source = world.source.path().as_os_str().as_encoded_bytes();
    let snapshot = newest(&repository);
    restore(
        &repository,
        &snapshot,
        Some(source),
        &into(target),
        &Silent,
        &Cancel::default(),
    )
}

fn files_in(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

fn checked(world: &World, read_data: ReadData) -> CheckReport {
    let options = CheckOptions {
        read_data,
        records_suspects: true,
    };
    let repository = open(&world.storage);
    check(&repository, &options, &Silent, &Cancel::default()).unwrap()
}

/// Tells whether a check found no damage.
fn is_sound(report: &CheckReport) -> bool {
    let mut findings = report.findings.iter();
    findings.all(|finding| finding.severity == Severity::Note)
}

/// Gives what a restore into a folder needs, and how that stands.
fn planned(world: &World, target: &Path) -> (Vec<Need>, ThawPlan) {
    let repository = open(&world.storage);
    let source = world.source.path().as_os_str().as_encoded_bytes();
    let (silent, cancel) = (Silent, Cancel::default());
    let snapshot = newest(&repository);
    let (needs, report) = restore_needs(
        &repository,
        &snapshot,
        Some(source),
        &into(target),
        &silent,
        &cancel,
    )
    .unwrap();
    assert_eq!(report.failed, 0);
    let all = contents_needs(&repository, &snapshot, Some(source), &silent, &cancel).unwrap();
    let mut told = Vec::new();
    let mut each = |pack: &ColdPack| {
        told.push(pack.clone());
        Ok(())
    };
    let plan = plan(&repository, &needs, &mut each, &silent, &cancel).unwrap();
    // Nothing is in the target yet: all of it is needed.
    if files_in(target).is_empty() {
        assert_eq!(joined(needs.clone()), joined(all));
    }
    assert_eq!(
        told.len() as u64,
        plan.cold.packs + plan.thawing.packs + plan.thawed.packs
    );
    (needs, plan)
}

fn brought_back(world: &World, plan: ThawPlan) -> Result<()> {
    thaw(
        &open(&world.storage),
        plan,
        &HOW,
        &Silent,
        &Cancel::default(),
    )
}

#[test]
fn nothing_but_reading_data_touches_what_is_cold() {
    let (mut world, frozen) = world(1);
    // Backups, forgetting, and planning a prune.
    world.write("later", &noise(10, 5000));
    world.back_up();
    world.forget(0);
    let dry = PruneOptions {
        dry_run: true,
        ..options()
    };
    run(&world.storage, &dry).unwrap();
    assert_eq!(frozen.take().refused, 0);
    // What lists, and what checks without reading packs.
    assert!(is_sound(&checked(&world, ReadData::No)));
    let repository = open(&world.storage);
    let quick = quick(&repository, true, &Silent, &Cancel::default()).unwrap();
    assert!(is_sound(&quick));
    assert_eq!(newest(&repository).sources.len(), 1);
    let counts = frozen.take();
    assert_eq!((counts.refused, counts.asked.len()), (0, 0));
    // And a prune that deletes and copies nothing.
    let deleting = PruneOptions {
        limits: crate::prune::plan::Limits {
            max_unused: MaxUnused::Unlimited,
            max_repack_bytes: None,
        },
        ..options()
    };
    run(&world.storage, &deleting).unwrap();
    assert_eq!(frozen.take(), Default::default());
}

#[test]
fn a_restore_of_what_is_cold_fails_with_the_way_out_and_works_once_it_was_brought_back() {
    let (world, frozen) = world(3);
    let target = tempfile::tempdir().unwrap();
    let _ = frozen.take();
    let error = restored(&world, target.path()).unwrap_err();
    assert!(error.is_cold(), "{error}");
    let told = error.to_string();
    assert!(
        told.contains("InvalidObjectState") && told.contains("--plan") && told.contains("--thaw"),
        "{told}"
    );
    let _ = frozen.take();

    // Planning reads no pack, and looks once at each that is needed.
    let target = tempfile::tempdir().unwrap();
    let (needs, plan) = planned(&world, target.path());
    let counts = frozen.take();
    assert_eq!((counts.refused, counts.looks), (0, needs.len() as u64));
    assert_eq!(plan.cold.packs, needs.len() as u64);
    assert!(!plan.is_readable() && plan.thaws && plan.cold.packs > 1);
    let sizes: u64 = needs
        .iter()
        .map(|need| world.storage.size(&names::pack(&need.pack)).unwrap())
        .sum();
    assert_eq!(plan.cold.bytes, sizes);
    assert!(plan.read_bytes > 20_000 && plan.read_bytes < sizes);
    assert!(files_in(target.path()).is_empty());

    // Each is asked for once, as was said; then all is there.
    brought_back(&world, plan).unwrap();
    let counts = frozen.take();
    let asked: BTreeSet<String> = counts.asked.iter().map(|(name, _)| name.clone()).collect();
    let expected: BTreeSet<String> = needs.iter().map(|need| names::pack(&need.pack)).collect();
    assert_eq!((counts.asked.len(), &asked), (needs.len(), &expected));
    assert!(counts.asked.iter().all(|(_, how)| *how == HOW));
    let (_, plan) = planned(&world, target.path());
    assert!(plan.is_readable());
    assert_eq!(plan.thawed.packs, needs.len() as u64);
    let _ = frozen.take();
    restored(&world, target.path()).unwrap();
    assert_eq!(frozen.take().refused, 0);
    assert_eq!(files_in(target.path()), world.files);

    // What is there already needs nothing.
    frozen.freeze();
    let (needs, plan) = planned(&world, target.path());
    assert!(needs.is_empty() && plan.is_readable());
}

#[test]
fn bringing_back_may_be_interrupted_and_asks_for_nothing_twice() {
    let (world, frozen) = world(2);
    let target = tempfile::tempdir().unwrap();
    let (needs, plan) = planned(&world, target.path());
    let _ = frozen.take();
    let cancel = Cancel::default();
    let interrupting = Interrupting(cancel.clone());
    let repository = open(&world.storage);
    let ended = thaw(&repository, plan, &HOW, &interrupting, &cancel);
    assert!(matches!(ended, Err(EngineError::Interrupted)));
    assert_eq!(frozen.take().asked.len(), needs.len());
    let (_, plan) = planned(&world, target.path());
    assert_eq!(plan.thawing.packs, needs.len() as u64);
    assert_eq!(plan.cold.packs, 0);
    brought_back(&world, plan).unwrap();
    assert!(frozen.take().asked.is_empty());
    restored(&world, target.path()).unwrap();
    assert_eq!(files_in(target.path()), world.files);
}

/// Asks for a stop once all was asked for.
struct Interrupting(Cancel);

impl Progress for Interrupting {
    fn phase(&self, name: &'static str, _: Option<u64>, _: Option<u64>) {
        if name == "waiting for cold packs" {
            self.0.request();
        }
    }
}

#[test]
fn a_check_takes_nothing_that_is_cold_for_damage() {
    let (world, frozen) = world(1);
    let packs = frozen.packs().len() as u64;
    let report = checked(&world, ReadData::All);
    assert!(is_sound(&report), "{:?}", report.findings);
    assert_eq!((report.cold_packs, report.new_suspects), (packs, 0));
    assert!(report.cold_bytes > 0);
    let view = view_of(&world);
    assert_eq!(view.collection.suspects().count(), 0);
    // What was asked for is read.
    let repository = open(&world.storage);
    let needs = crate::check::needs(&repository, ReadData::All).unwrap();
    assert_eq!(needs.len() as u64, packs);
    let (silent, cancel) = (Silent, Cancel::default());
    let plan = plan(&repository, &needs, &mut |_| Ok(()), &silent, &cancel).unwrap();
    brought_back(&world, plan).unwrap();
    let report = checked(&world, ReadData::All);
    assert!(is_sound(&report), "{:?}", report.findings);
    assert_eq!(report.cold_packs, 0);
    assert!(report.packs_read > packs);
    // Of some shares nobody knows before which packs they are.
    let some = crate::check::needs(&repository, ReadData::Percent(5.0));
    assert!(some.unwrap_err().to_string().contains("--read-data=N/M"));
}

fn view_of(world: &World) -> crate::view::View {
    crate::view::read(&open(&world.storage), false, None).unwrap()
}

#[test]
fn a_prune_copies_from_what_is_cold_only_when_asked() {
    let (world, frozen) = world(2);
    let _ = frozen.take();
    let report = run(&world.storage, &options()).unwrap();
    assert_eq!(report.packs_repacked, 0);
    assert!(!report.plan.cold.is_empty() && report.plan.totals.repack_bytes == 0);
    assert!(report.plan.totals.unused_after_bytes > 0);
    let counts = frozen.take();
    assert_eq!((counts.refused, counts.asked.len()), (0, 0));
    assert!(counts.looks > 0);
    // A dry run that was told to asks for nothing either.
    let thawing = PruneOptions {
        thaw: Some(HOW),
        ..options()
    };
    let dry = PruneOptions {
        dry_run: true,
        ..thawing.clone()
    };
    assert!(!run(&world.storage, &dry).unwrap().plan.cold.is_empty());
    assert!(frozen.take().asked.is_empty());
    // And what it writes goes straight to where it cannot be read back.
    let repository = open(&world.storage);
    let report = prune(&repository, &thawing, &Silent, &Cancel::default()).unwrap();
    assert!(report.packs_repacked > 0 && report.plan.cold.is_empty());
    assert!(!frozen.take().asked.is_empty());
    let target = tempfile::tempdir().unwrap();
    let (_, plan) = planned(&world, target.path());
    assert!(plan.cold.packs > 0);
    brought_back(&world, plan).unwrap();
    restored(&world, target.path()).unwrap();
    assert_eq!(files_in(target.path()), world.files);
    assert!(is_sound(&checked(&world, ReadData::No)));
}

#[test]
fn a_storage_without_cold_classes_is_asked_nothing() {
    let mut world = World::new();
    world.write("f", &noise(1, 3000));
    world.back_up();
    let target = tempfile::tempdir().unwrap();
    let (needs, plan) = planned(&world, target.path());
    assert_eq!((needs.len(), plan.look_requests), (1, 0));
    assert!(!plan.thaws && plan.is_readable() && plan.read_requests == 1);
    let warmth = world.storage.warmth(&names::pack(&needs[0].pack)).unwrap();
    let name = names::pack(&needs[0].pack);
    let refused = world.storage.thaw(&name, &warmth, &HOW).unwrap_err();
    assert!(refused.to_string().contains("keeps nothing cold"));
}
