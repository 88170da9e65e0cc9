//! What operations cost: files read, requests, bytes written, nodes.

use std::fs;
use std::sync::Arc;

use larder_engine::browse;
use larder_engine::cancel::Cancel;
use larder_engine::error::EngineError;
use larder_engine::progress::Silent;
use larder_engine::repository::{Cache, Repository};
use larder_engine::storage::counting::{Counting, Counts};
use larder_engine::storage::error::Operation;
use larder_engine::storage::local::LocalStorage;

use crate::fixture::{Desk, init_options, secret, snapshots};
use crate::program::{date_back, noise};

/// Files of the source: enough for a tree of three levels.
const FILES: u64 = 3000;

/// A source of many small files, and a repository in a folder with one snapshot of it.
fn filled(cache: Cache) -> (Desk, Arc<Counting>) {
    let desk = Desk::new(cache);
    for number in 0..FILES {
        let name = format!("d{}/f{number:05}", number % 30);
        desk.write(&name, &noise(number, 200));
    }
    fs::create_dir(desk.path("repo")).unwrap();
    let local = LocalStorage::create(&desk.path("repo")).unwrap();
    let storage = Arc::new(Counting::new(Arc::new(local)));
    Repository::init_on(storage.as_ref(), &secret("one"), &init_options()).unwrap();
    let repository = desk.open(&storage, "one").unwrap();
    let first = desk.back_up(&repository).unwrap();
    assert_eq!(first.statistics.bytes_read, FILES * 200);
    (desk, storage)
}

fn written(counts: &Counts, folder: &str) -> u64 {
    [Operation::Put, Operation::Create]
        .map(|operation| counts.of_folder(operation, folder).operations)
        .iter()
        .sum()
}

#[test]
fn an_unchanged_backup_reads_no_file_and_writes_three_small_objects() {
    let (desk, storage) = filled(Cache::Disk);
    let repository = desk.open(&storage, "one").unwrap();
    let mut least = None;
    for round in 0..3 {
        let _ = storage.take();
        let report = desk.back_up(&repository).unwrap();
        let counts = storage.take();
        let counted = report.statistics;
        assert_eq!(
            (counted.bytes_read, counted.chunks_added),
            (0, 0),
            "{report:?}"
        );
        assert_eq!((counted.files, counted.new, counted.changed), (FILES, 0, 0));
        assert!(report.unchanged);
        // The session, the cell and the session's end.
        assert_eq!(
            (written(&counts, "packs"), written(&counts, "index")),
            (0, 0)
        );
        assert_eq!(
            (written(&counts, "sessions"), written(&counts, "snapshots")),
            (2, 1)
        );
        let total = counts.total();
        assert!(total.written_bytes < 4096, "{total:?}");
        // Nodes come from packs of a first backup that lie side by side.
        assert!(
            total.operations < 60,
            "round {round}: {total:?}: {:?}",
            counts.log
        );
        least = Some(total.operations);
    }
    assert!(least.is_some());
}

#[test]
fn ignoring_ctime_or_inodes_reads_no_file_that_did_not_change() {
    let (desk, storage) = filled(Cache::Memory);
    let repository = desk.open(&storage, "one").unwrap();
    // As if on a network: the last file has another ctime, and all have other inodes.
    let copied = desk.path("copied");
    fs::rename(desk.path("source"), &copied).unwrap();
    let copy = std::process::Command::new("cp")
        .arg("-a")
        .args([&copied, &desk.path("source")])
        .status();
    assert!(copy.unwrap().success());
    let options = larder_engine::backup::BackupOptions {
        ignore_ctime: true,
        ignore_inode: true,
        ..desk.options()
    };
    let run = || {
        larder_engine::backup::backup(&repository, &options, &Silent, &Cancel::default()).unwrap()
    };
    let report = run();
    assert_eq!(report.statistics.bytes_read, 0, "{report:?}");
    assert_eq!(
        (report.statistics.new, report.statistics.changed),
        (0, 0),
        "{report:?}"
    );
    // A change of attributes alone is seen although ctime does not count.
    let attribute = std::process::Command::new("setfattr")
        .args(["-n", "user.larder", "-v", "x"])
        .arg(desk.path("source/d1/f00001"))
        .status();
    if attribute.is_ok_and(|status| status.success()) {
        let report = run();
        assert_eq!(report.statistics.bytes_read, 0, "{report:?}");
        assert_eq!(report.statistics.changed, 1, "{report:?}");
    } else {
        println!("skipped: this file system takes no attributes, or setfattr is missing");
    }
}

#[test]
fn one_change_writes_one_chunk_and_the_nodes_above_it() {
    let (desk, storage) = filled(Cache::Disk);
    let repository = desk.open(&storage, "one").unwrap();
    desk.write("d7/f00007", &noise(9999, 210));
    let _ = storage.take();
    let report = desk.back_up(&repository).unwrap();
    let counts = storage.take();
    let counted = report.statistics;
    assert_eq!(
        (counted.new, counted.changed, counted.bytes_read),
        (0, 1, 210),
        "{report:?}"
    );
    // One chunk of data; 3,000 entries in leaves of 32 or more are at most three levels.
    assert!(counted.chunks_added <= 1 + 4, "{report:?}");
    assert_eq!(written(&counts, "index"), 1);
    assert!(written(&counts, "packs") <= 2, "{:?}", counts.log);
    let total = counts.total();
    assert!(total.written_bytes < 40_000, "{total:?}");
}

#[test]
fn a_diff_reads_what_differs() {
    let (desk, storage) = filled(Cache::Memory);
    let repository = desk.open(&storage, "one").unwrap();
    desk.write("d7/f00007", &noise(9999, 210));
    desk.back_up(&repository).unwrap();
    let listed = snapshots(&repository);
    let diff = |a: usize, b: usize| {
        let _ = storage.take();
        let mut found = 0;
        browse::diff(
            &repository,
            (&listed[a], None),
            (&listed[b], None),
            &mut |_| {
                found += 1;
                Ok(())
            },
        )
        .unwrap();
        (found, storage.take())
    };
    let (found, counts) = diff(0, 1);
    assert_eq!(found, 1);
    let reads = counts.of_folder(Operation::GetRange, "packs").operations;
    assert!(
        reads <= 12,
        "{reads} ranges for one change: {:?}",
        counts.log
    );
    let (found, counts) = diff(1, 1);
    let reads = counts.of_folder(Operation::GetRange, "packs");
    assert_eq!((found, reads.operations), (0, 0));
}

#[test]
fn opening_with_a_warm_cache_takes_few_requests() {
    let (desk, storage) = filled(Cache::Disk);
    for _ in 0..20 {
        desk.back_up(&desk.open(&storage, "one").unwrap()).unwrap();
    }
    let _ = storage.take();
    let repository = desk.open(&storage, "one").unwrap();
    let opened = storage.take().total();
    assert!(opened.operations <= 10, "{opened:?}");
    // One listing, and the cells.
    assert_eq!(snapshots(&repository).len(), 21);
    let listed = storage.take();
    assert!(listed.total().operations <= 10 + 2 * 21, "{:?}", listed.log);
}

#[test]
fn a_backup_goes_on_from_the_checkpoint_and_reads_only_the_rest() {
    let (desk, storage) = filled(Cache::Disk);
    for number in 0..FILES {
        let name = format!("d{}/f{number:05}", number % 30);
        desk.write(&name, &noise(number + FILES, 300));
    }
    // A folder is the first entry and has no bytes, so each entry has 300 at most.
    let repository = desk.open(&storage, "one").unwrap();
    let stopped = desk.back_up_partly(&repository, 1000);
    assert!(
        matches!(stopped, Err(EngineError::Interrupted)),
        "{stopped:?}"
    );
    drop(repository);
    let repository = desk.open(&storage, "one").unwrap();
    let checkpoints =
        larder_engine::snapshots::list(&repository, &Default::default(), true).unwrap();
    let checkpoint = checkpoints.iter().find(|one| one.partial).unwrap();
    let had = checkpoint.statistics.files;
    assert!((900..FILES).contains(&had), "{checkpoint:?}");
    let report = desk.back_up(&repository).unwrap();
    assert_eq!(report.resumed_from.as_ref(), Some(&checkpoint.id));
    assert_eq!(
        report.statistics.bytes_read,
        (FILES - had) * 300,
        "{report:?}"
    );
    // What superseded the checkpoint is complete, and the next one has nothing to go on from.
    let next = desk.back_up(&repository).unwrap();
    assert_eq!((next.resumed_from, next.statistics.bytes_read), (None, 0));
    date_back(&desk.path("source/d1/f00001"), 77);
    assert_eq!(
        desk.back_up(&repository).unwrap().statistics.bytes_read,
        300
    );
}
