//! Runs of several shards against a bucket in memory, and against one backup of all of it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use larder_format::cell::Source;
use larder_format::names;
use larder_format::record::{Record, seal_record};
use larder_format::run::{Run, RunEnd};
use larder_format::session::Base;
use larder_format::tree::build::Root;
use larder_format::tree::read::Cursor;

use super::*;
use crate::backup::{BackupReport, Buckets, CheckpointRhythm, backup};
use crate::browse::Contents;
use crate::check::{CheckOptions, ReadData, Severity, check};
use crate::chunks::ChunkReader;
use crate::forget::{self, Choice, ForgetOptions};
use crate::progress::Silent;
use crate::prune::plan::{Limits, MaxUnused};
use crate::prune::{PruneOptions, PruneReport, prune};
use crate::retention::{Count, GroupBy, Policy};
use crate::session;
use crate::snapshots::fixture::{self, init, open, options};
use crate::snapshots::{Filter, Which, list, resolve};
use crate::storage::Storage;
use crate::storage::bucket::Properties;
use crate::storage::bucket::memory::{Counts, MemoryBucket, Wrong};
use crate::storage::object::ObjectStorage;
use crate::view;

/// Keys that lie at seams, or look like folders.
const HURTFUL: [&[u8]; 16] = [
    b"",
    b".",
    b"/",
    b"//",
    b"a",
    b"a/",
    b"a//",
    b"a//b",
    b"a//b/",
    b"a/b",
    b"a/b/",
    b"k",
    b"k0100/",
    b"k0100//x",
    b"\xc3\xbc \x01%2F+",
    b"\xff\xfe",
];

struct World {
    bucket: Arc<MemoryBucket>,
    storage: Arc<dyn Storage>,
    repository: Arc<Repository>,
}

impl World {
    /// A bucket of some hundred objects with hurtful keys among them.
    fn new(count: u32) -> Self {
        let storage: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
        init(storage.as_ref());
        let world = Self {
            bucket: Arc::new(MemoryBucket::new(7)),
            repository: open(&storage),
            storage,
        };
        for number in 0..count {
            world.put(format!("k{number:04}").as_bytes(), &number.to_le_bytes());
        }
        for key in HURTFUL.iter().take(count as usize) {
            world.put(key, key);
        }
        world
    }

    fn put(&self, key: &[u8], bytes: &[u8]) {
        let properties = Properties::from([(b"content-type".to_vec(), b"text/plain".to_vec())]);
        let bytes = Bytes::copy_from_slice(bytes);
        self.bucket.put(key, bytes, &properties).unwrap();
    }

    /// The same bucket, and a repository with the same keys in which nothing is yet.
    fn options(&self) -> BackupOptions {
        let bucket: Arc<dyn Bucket> = Arc::clone(&self.bucket) as _;
        BackupOptions {
            buckets: Buckets {
                sources: vec![bucket],
                ..Buckets::default()
            },
            ..options(&[])
        }
    }

    fn shard(&self, run: &str, number: u64, count: u64) -> BackupOptions {
        BackupOptions {
            shard: Some(ShardOptions {
                run: run.to_owned(),
                number,
                count,
            }),
            ..self.options()
        }
    }

    fn try_back_up(&self, options: &BackupOptions) -> Result<BackupReport> {
        backup(&self.repository, options, &Silent, &Cancel::default())
    }

    fn run_shard(&self, run: &str, number: u64, count: u64) -> ShardReport {
        let report = self.try_back_up(&self.shard(run, number, count)).unwrap();
        let shard = report.shard.unwrap();
        assert_eq!(report.snapshot, shard.joined);
        shard
    }

    /// Runs all shards, in an order that is not theirs; gives the snapshot.
    fn run_all(&self, run: &str, count: u64) -> Cell {
        let mut numbers: Vec<u64> = (1..=count).collect();
        numbers.reverse();
        let reports: Vec<ShardReport> = numbers
            .iter()
            .map(|number| self.run_shard(run, *number, count))
            .collect();
        let joined = reports.last().unwrap().joined.clone();
        self.snapshot(&joined.unwrap())
    }

    fn snapshot(&self, name: &str) -> Cell {
        let view = self.view();
        let mut found = view
            .snapshots()
            .filter(|cell| cell.id.snapshot_name() == name);
        found.next().unwrap().clone()
    }

    fn view(&self) -> View {
        view::read(&self.repository, false, None).unwrap()
    }

    fn snapshots(&self) -> Vec<Cell> {
        self.view().snapshots().cloned().collect()
    }

    fn live_shards(&self) -> Vec<Cell> {
        let view = self.view();
        let live = view.live();
        let cells = view.cells.values();
        let shards = cells.filter(|cell| cell.shard.is_some() && live.contains(&cell.id));
        shards.cloned().collect()
    }

    fn join(&self, run: &str) -> Result<JoinReport> {
        let options = JoinOptions {
            run: run.to_owned(),
            author: Author {
                host: "desk".to_owned(),
                user: "me".to_owned(),
            },
        };
        join(&self.repository, &options, &Silent, &Cancel::default())
    }

    fn refusal(&self, options: &BackupOptions) -> String {
        self.try_back_up(options).unwrap_err().to_string()
    }

    fn prune(&self, wait: bool) -> PruneReport {
        let options = PruneOptions {
            wait,
            ..prune_options()
        };
        prune(&self.repository, &options, &Silent, &Cancel::default()).unwrap()
    }

    /// Looks whether a snapshot has what the bucket has, and the whole repository is sound.
    fn assert_holds(&self, cell: &Cell) {
        let held = self.bucket.objects();
        let expected: BTreeMap<Vec<u8>, Vec<u8>> = held
            .into_iter()
            .map(|(key, held)| (key, held.bytes.to_vec()))
            .collect();
        assert_eq!(stored(&self.repository, &cell.sources[0]), expected);
        let options = CheckOptions {
            read_data: ReadData::All,
            records_suspects: false,
        };
        let report = check(&self.repository, &options, &Silent, &Cancel::default()).unwrap();
        let mut findings = report.findings;
        // The repository of a test has no reserve, and some cells no session that announced them.
        findings.retain(|finding| {
            finding.severity != Severity::Note && !finding.object.starts_with("sessions/")
        });
        assert!(findings.is_empty(), "{findings:?}");
    }
}

fn prune_options() -> PruneOptions {
    PruneOptions {
        limits: Limits {
            max_unused: MaxUnused::Percent(0.0),
            max_repack_bytes: None,
        },
        max_duration: None,
        thaw: None,
        wait: true,
        patience: Duration::from_secs(1_000_000),
        dry_run: false,
        accept_rollback: false,
        assume_forgotten: BTreeSet::new(),
        accept_racy_creates: false,
        author: Author {
            host: "desk".to_owned(),
            user: "me".to_owned(),
        },
    }
}

fn stored(repository: &Arc<Repository>, source: &Source) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let root = Root {
        id: source.root,
        level: source.level,
        entries: source.entries,
        bytes: source.bytes,
    };
    let mut contents = Contents::new(repository).unwrap();
    let cursor = Cursor::new(ChunkReader::new(repository).unwrap(), &root);
    let entries = cursor.map(|entry| {
        let entry = entry.unwrap();
        let mut bytes = Vec::new();
        contents.content(&entry, b"", &mut bytes).unwrap();
        (entry.key, bytes)
    });
    entries.collect()
}

fn commit_like(world: &World, cell: &Cell, change: impl FnOnce(&mut Cell)) -> SessionId {
    let mut other = cell.clone();
    other.id = SessionId::new(cell.id.round(), [0xee; 16]);
    other.segments.clear();
    change(&mut other);
    fixture::commit(&world.repository, &other);
    other.id
}

#[test]
fn the_shards_together_are_what_one_backup_makes() {
    for count in [1, 2, 3, 5] {
        let world = World::new(300);
        let joined = world.run_all("first", count);
        assert_eq!(world.live_shards(), []);
        assert_eq!(world.snapshots().len(), 1);
        // One backup of the same bucket has the same tree.
        let whole = BackupOptions {
            force: true,
            ..world.options()
        };
        let whole = world.try_back_up(&whole).unwrap().snapshot.unwrap();
        let whole = world.snapshot(&whole);
        assert_eq!(whole.sources, joined.sources, "{count} shards");
        assert_eq!(joined.statistics.files, 316);
        assert_eq!(joined.statistics.new, 316);
        assert_eq!(joined.statistics.read_bytes, whole.statistics.read_bytes);
        world.assert_holds(&joined);
    }
}

#[test]
fn what_did_not_change_costs_its_listing_alone_and_what_did_its_reads() {
    let world = World::new(300);
    let first = world.run_all("first", 4);
    let _ = world.bucket.take_counts();
    let second = world.run_all("second", 4);
    let Counts { pages, gets, .. } = world.bucket.take_counts();
    assert_eq!(
        (second.parent, &second.sources),
        (Some(first.id), &first.sources)
    );
    assert_eq!(gets, 0);
    // Each shard lists its own share, and looks once whether listings can begin behind a key. Where the tree has too few
    // leaves to divide a bucket by, which its keys decide, the first shard divides it by a listing of its own.
    let listing = 316 / 7 + 1;
    assert!(pages <= 2 * listing + 4 * 4, "{pages}");
    assert_eq!(
        (second.statistics.unchanged, second.statistics.new),
        (316, 0)
    );

    world.put(b"k0007", b"changed");
    world.put(b"k0001-new", b"new");
    let third = world.run_all("third", 4);
    assert_eq!(world.bucket.take_counts().gets, 2);
    assert_eq!((third.statistics.changed, third.statistics.new), (1, 1));
    assert_eq!(third.parent, Some(second.id));
    world.assert_holds(&third);

    // An ordinary backup goes on from there, and shards from that.
    let fourth = world.try_back_up(&world.options()).unwrap();
    assert_eq!(world.bucket.take_counts().gets, 0);
    assert!(fourth.unchanged);
    let fifth = world.run_all("fifth", 3);
    assert_eq!(world.bucket.take_counts().gets, 0);
    assert_eq!(fifth.sources, third.sources);
}

#[test]
fn a_shard_that_failed_is_run_again_alone_and_one_that_is_finished_does_nothing() {
    let world = World::new(300);
    assert_eq!(world.run_shard("r", 2, 3).missing, [1, 3]);
    // In the middle of its listing.
    world.bucket.go_wrong(Some((5, Wrong::Fails)));
    world.try_back_up(&world.shard("r", 1, 3)).unwrap_err();
    world.bucket.go_wrong(None);
    let again = world.run_shard("r", 2, 3);
    assert!(again.finished_before && again.part.is_some(), "{again:?}");
    let error = world.join("r").unwrap_err().to_string();
    assert!(
        error.contains("shards 1 and 3 of 3 are not finished"),
        "{error}"
    );
    assert_eq!(world.run_shard("r", 3, 3).missing, [1]);
    let error = world.join("r").unwrap_err().to_string();
    assert!(error.contains("shard 1 of 3 is not finished"), "{error}");
    assert!(world.snapshots().is_empty());
    let done = world.run_shard("r", 1, 3);
    let joined = world.snapshot(done.joined.as_ref().unwrap());
    world.assert_holds(&joined);

    // From here on all are told, and nothing is made any more.
    let _ = world.bucket.take_counts();
    for number in 1..=3 {
        let report = world.run_shard("r", number, 3);
        assert!(report.finished_before);
        assert_eq!(report.joined, done.joined);
    }
    let again = world.join("r").unwrap();
    assert_eq!((again.existed, Some(again.snapshot)), (true, done.joined));
    assert_eq!(world.bucket.take_counts().pages, 0);
    assert_eq!(world.snapshots().len(), 1);
    let error = world.join("never").unwrap_err().to_string();
    assert!(error.contains("there is no run never"), "{error}");
}

#[test]
fn a_shard_goes_on_from_its_own_checkpoint_and_nobody_else_does() {
    let world = World::new(300);
    let part = BackupOptions {
        checkpoints: CheckpointRhythm::every_entries(20),
        ..world.shard("r", 2, 3)
    };
    world.run_shard("r", 1, 3);
    // Behind more than sixty objects.
    world.bucket.go_wrong(Some((10, Wrong::Fails)));
    world.try_back_up(&part).unwrap_err();
    world.bucket.go_wrong(None);
    let mut left = world.live_shards();
    left.retain(|cell| cell.kind == CellKind::Partial);
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].sources[0].entries >= 20);
    // Not another shard, not another run, and no ordinary backup.
    for other in [
        world.shard("r", 3, 3),
        world.shard("s", 2, 3),
        world.options(),
    ] {
        let report = world.try_back_up(&other).unwrap();
        assert_eq!(report.resumed_from, None);
    }
    let _ = world.bucket.take_counts();
    let report = world.try_back_up(&part).unwrap();
    assert_eq!(report.resumed_from, Some(left[0].id.snapshot_name()));
    let gets = world.bucket.take_counts().gets;
    assert!(gets < 106, "{gets}");
    let joined = report.snapshot.unwrap();
    world.assert_holds(&world.snapshot(&joined));
    assert_eq!(world.live_shards().len(), 1, "that of the other run");
}

#[test]
fn shards_are_no_snapshots() {
    let world = World::new(60);
    let whole = world
        .try_back_up(&world.options())
        .unwrap()
        .snapshot
        .unwrap();
    world.put(b"later", b"later");
    let part = world.run_shard("r", 1, 2).part.unwrap();
    let all = Filter::default();
    assert_eq!(list(&world.repository, &all, false).unwrap().len(), 1);
    let latest = resolve(&world.repository, &Which::Latest(0), &all).unwrap();
    assert_eq!(latest.id, whole);
    let shown = list(&world.repository, &all, true).unwrap();
    let shard = shown.iter().find(|one| one.id == part).unwrap();
    let told = shard.shard.clone().unwrap();
    assert!(shard.partial && told.finished);
    assert_eq!((told.run.as_str(), told.number, told.count), ("r", 1, 2));
}

#[test]
fn one_that_is_told_otherwise_takes_no_part() {
    let world = World::new(100);
    world.run_shard("r", 1, 3);
    let refused = |options: BackupOptions, word: &str| {
        let error = world.refusal(&options);
        assert!(error.contains(word), "{error}");
    };
    refused(world.shard("r", 2, 4), "has 3 shards");
    refused(
        BackupOptions {
            host: "lap".to_owned(),
            ..world.shard("r", 2, 3)
        },
        "--host",
    );
    let mut patterns = world.shard("r", 2, 3);
    patterns.selection.exclude = vec!["*.o".to_owned()];
    refused(patterns, "same patterns");
    refused(world.shard("r", 0, 3), "numbered from 1");
    refused(world.shard("r", 4, 3), "numbered from 1");
    refused(world.shard(" ", 1, 3), "cannot be empty");
    refused(world.shard("r", 1, 2000), "1024");
    let changes: [fn(&mut BackupOptions); 5] = [
        |options| options.dry_run = true,
        |options| options.skip_if_unchanged = true,
        |options| options.buckets.sort_listing = true,
        |options| options.sources = vec!["/tmp".into()],
        |options| {
            options.buckets.changed_keys = Some(crate::backup::ChangedKeys {
                file: "/tmp/none".into(),
                list_every: 3,
            });
        },
    ];
    for change in changes {
        let mut options = world.shard("r", 2, 3);
        change(&mut options);
        assert!(matches!(
            world.try_back_up(&options),
            Err(EngineError::Request(_))
        ));
    }
    // Of two runs that go on at the same time none takes the other's shards.
    world.run_shard("s", 2, 3);
    assert_eq!(world.run_shard("r", 2, 3).missing, [3]);
}

#[test]
fn what_is_gone_is_judged_by_the_range_of_each_shard() {
    let world = World::new(300);
    world.run_all("first", 3);
    world
        .bucket
        .change(|objects| objects.retain(|key, _| !key.starts_with(b"k02")));
    // The last shard's range has most of them, and the second one's some: how many, the tree's keys decide.
    let failed: Vec<u64> = (1..=3)
        .filter(|number| world.try_back_up(&world.shard("r", *number, 3)).is_err())
        .collect();
    assert!(failed == [3] || failed == [2, 3], "{failed:?}");
    let error = world.refusal(&world.shard("r", 3, 3));
    assert!(error.contains("--allow-vanished"), "{error}");
    let mut joined = None;
    for number in failed {
        let mut allowed = world.shard("r", number, 3);
        allowed.buckets.allow_vanished_percent = 100;
        joined = world.try_back_up(&allowed).unwrap().snapshot;
    }
    world.assert_holds(&world.snapshot(&joined.unwrap()));
}

#[test]
fn a_bucket_with_fewer_keys_than_shards_leaves_some_with_nothing_to_do() {
    for keys in 0..4_u32 {
        let world = World::new(0);
        for number in 0..keys {
            world.put(format!("k{number}").as_bytes(), b"x");
        }
        let reports: Vec<ShardReport> = (1..=6)
            .map(|number| world.run_shard("r", number, 6))
            .collect();
        assert_eq!(world.snapshots().len(), 1, "{keys} keys: {reports:?}");
        let mut begun = reports.iter().filter(|report| !report.finished_before);
        assert!(begun.all(|report| report.count <= u64::from(keys.max(1))));
        world.assert_holds(&world.snapshots()[0]);
    }
}

#[test]
fn a_bucket_that_cannot_begin_behind_a_key_is_divided_all_the_same() {
    let world = World::new(100);
    world.bucket.know_no_keys();
    for run in ["first", "second"] {
        let joined = world.run_all(run, 3);
        world.assert_holds(&joined);
    }
    assert_eq!(world.snapshots().len(), 2);
}

#[test]
fn several_at_once_make_one_snapshot() {
    let world = World::new(200);
    // Each as a process of its own, and the second one twice.
    let reports: Vec<ShardReport> = thread::scope(|scope| {
        let threads = [1, 2, 2, 3].map(|number| {
            let (options, storage) = (world.shard("r", number, 3), &world.storage);
            scope.spawn(move || {
                let repository = open(storage);
                let report = backup(&repository, &options, &Silent, &Cancel::default());
                report.unwrap().shard.unwrap()
            })
        });
        threads.map(|thread| thread.join().unwrap()).into()
    });
    let snapshots = world.snapshots();
    assert_eq!(snapshots.len(), 1, "{reports:?}");
    let name = snapshots[0].id.snapshot_name();
    for report in &reports {
        assert!(
            report.joined.as_ref().is_none_or(|joined| *joined == name),
            "{reports:?}"
        );
    }
    assert_eq!(world.live_shards(), []);
    world.assert_holds(&snapshots[0]);
}

#[test]
fn joiners_at_once_agree() {
    for _ in 0..4 {
        let world = World::new(100);
        for number in 1..=2 {
            world.run_shard("r", number, 3);
        }
        // The last shard as one that died before it could join.
        let last = world.run_shard("other", 3, 3).part.unwrap();
        let view = world.view();
        let cell = view
            .cells
            .values()
            .find(|cell| cell.id.snapshot_name() == last)
            .unwrap();
        let id = world.repository.keyring().run_id("r");
        commit_like(&world, cell, |cell| {
            let run = runs::read(&world.repository, &id).unwrap().unwrap();
            cell.shard = run.shard(3);
        });
        let joined: Vec<JoinReport> = thread::scope(|scope| {
            let threads = [(); 3].map(|()| {
                let storage = &world.storage;
                scope.spawn(move || {
                    let options = JoinOptions {
                        run: "r".to_owned(),
                        author: Author {
                            host: "desk".to_owned(),
                            user: "me".to_owned(),
                        },
                    };
                    join(&open(storage), &options, &Silent, &Cancel::default()).unwrap()
                })
            });
            threads.map(|thread| thread.join().unwrap()).into()
        });
        let snapshots = world.snapshots();
        assert_eq!(snapshots.len(), 1, "{joined:?}");
        let name = snapshots[0].id.snapshot_name();
        assert!(joined.iter().all(|one| one.snapshot == name), "{joined:?}");
        world.assert_holds(&snapshots[0]);
    }
}

#[test]
fn what_a_joiner_left_that_died_is_settled_by_the_next() {
    let world = World::new(100);
    let joined = world.run_all("r", 2);
    let id = world.repository.keyring().run_id("r");
    // It had committed, and neither decided nor forgotten: and another one had, too.
    world.storage.delete(&names::run_end(&id)).unwrap();
    let twin = commit_like(&world, &joined, |_| {});
    let report = world.join("r").unwrap();
    let first = joined.id.min(twin).snapshot_name();
    assert_eq!((report.existed, &report.snapshot), (true, &first));
    let left: Vec<String> = world
        .snapshots()
        .iter()
        .map(|cell| cell.id.snapshot_name())
        .collect();
    assert_eq!(left, [first]);
}

#[test]
fn what_was_made_of_a_joined_snapshot_stays() {
    let world = World::new(60);
    let joined = world.run_all("r", 2);
    let copy = commit_like(&world, &joined, |cell| {
        let of = larder_format::ids::encode_hex(&joined.id.0);
        cell.options.insert("copy-of".to_owned(), of);
    });
    assert!(world.run_shard("r", 1, 2).finished_before);
    let left: BTreeSet<SessionId> = world.snapshots().iter().map(|cell| cell.id).collect();
    assert_eq!(left, [joined.id, copy].into());
}

#[test]
fn shards_that_do_not_fit_together_are_refused() {
    let tampered = |change: &dyn Fn(&mut Cell), word: &str| {
        let world = World::new(100);
        world.run_shard("r", 1, 3);
        world.run_shard("r", 3, 3);
        let other = world.run_shard("q", 2, 3).part.unwrap();
        let view = world.view();
        let cell = view
            .cells
            .values()
            .find(|cell| cell.id.snapshot_name() == other)
            .unwrap();
        let id = world.repository.keyring().run_id("r");
        commit_like(&world, cell, |cell| {
            cell.shard.as_mut().unwrap().run = id;
            cell.shard.as_mut().unwrap().name = "r".to_owned();
            change(cell);
        });
        let error = world
            .join("r")
            .map_or_else(|error| error.to_string(), |done| format!("{done:?}"));
        assert!(error.contains(word), "{error}");
        if !word.contains("JoinReport") {
            assert!(world.snapshots().is_empty());
            assert_eq!(world.live_shards().len(), 4);
        }
    };
    tampered(&|_| {}, "JoinReport");
    let range = |cell: &mut Cell, behind: &[u8], last: &[u8]| {
        let range = &mut cell.shard.as_mut().unwrap().range;
        (range.behind, range.last) = (Some(behind.to_vec()), Some(last.to_vec()));
    };
    tampered(&|cell| range(cell, b"a", b"z"), "another run");
    tampered(
        &|cell| {
            let shard = cell.shard.as_mut().unwrap();
            (shard.number, shard.range.last) = (3, None);
            shard.range.behind = Some(b"z".to_vec());
        },
        "cannot be joined",
    );
    tampered(
        &|cell| cell.sources[0].path = b"s3://other".to_vec(),
        "not of one bucket",
    );
    tampered(
        &|cell| cell.options.retain(|name, _| !name.starts_with("listed/")),
        "left out different objects",
    );
    // A tree that has more than its range says.
    let world = World::new(100);
    let whole = world.run_all("q", 1);
    world.run_shard("r", 1, 2);
    let id = world.repository.keyring().run_id("r");
    let run = runs::read(&world.repository, &id).unwrap().unwrap();
    commit_like(&world, &whole, |cell| {
        cell.kind = CellKind::Shard;
        cell.options.remove("joined-run");
        cell.shard = run.shard(2);
    });
    let error = world.join("r").unwrap_err().to_string();
    assert!(error.contains("outside of its range"), "{error}");
}

#[test]
fn what_collectors_do_between_shards_and_join_loses_nothing() {
    let world = World::new(300);
    let first = world
        .try_back_up(&world.options())
        .unwrap()
        .snapshot
        .unwrap();
    for number in 0..40 {
        world.put(format!("k{number:04}").as_bytes(), &[number; 3000]);
    }
    world.run_shard("r", 1, 3);
    // What the run is compared with is forgotten, and a prune goes over all.
    let first = world.snapshot(&first);
    let author = prune_options().author;
    let mut view = world.view();
    let wish = crate::amend::Wish::Forget;
    crate::amend::amend(&world.repository, &mut view, &first.id, &wish, &author).unwrap();
    world.prune(true);
    world.prune(true);
    world.run_shard("r", 2, 3);
    world.prune(true);
    // A session that does not end leaves the next round open while the run is joined.
    let base = Base::None;
    let open = session::open(&world.repository, base, &author, world.view()).unwrap();
    let (id, view) = (open.id, open.view.clone());
    drop(open);
    world.put(b"passing", &[9; 5000]);
    let passing = world.try_back_up(&BackupOptions {
        host: "lap".to_owned(),
        ..world.options()
    });
    let passing = world.snapshot(&passing.unwrap().snapshot.unwrap());
    world
        .bucket
        .change(|objects| drop(objects.remove(b"passing".as_slice())));
    let mut seen = world.view();
    crate::amend::amend(&world.repository, &mut seen, &passing.id, &wish, &author).unwrap();
    world.prune(false);
    assert!(world.view().collection.round.is_some());
    let joined = world.run_shard("r", 3, 3).joined.unwrap();
    world.assert_holds(&world.snapshot(&joined));
    session::end(&world.repository, &id, base, &author, &view).unwrap();
    world.prune(true);
    world.prune(true);
    let joined = world.snapshot(&joined);
    world.assert_holds(&joined);
}

#[test]
fn forgetting_drops_the_shards_of_runs_that_are_over_and_keeps_the_others() {
    let world = World::new(60);
    let whole = world
        .try_back_up(&world.options())
        .unwrap()
        .snapshot
        .unwrap();
    let young = world.run_shard("young", 1, 2).part.unwrap();
    let old = world.run_shard("old", 2, 3).part.unwrap();
    let after = |days: i64| {
        let now = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * days);
        let options = ForgetOptions {
            choice: Choice::Policy(
                Box::new(Policy {
                    last: Some(Count::Some(1)),
                    ..Policy::default()
                }),
                Vec::new(),
            ),
            filter: Filter::default(),
            group_by: GroupBy::default(),
        };
        let plan = forget::plan(
            &world.repository,
            &options,
            &now.to_zoned(jiff::tz::TimeZone::UTC),
        );
        let plan = plan.unwrap();
        plan.forgotten()
            .map(|one| one.snapshot.id.clone())
            .collect::<BTreeSet<String>>()
    };
    assert_eq!(after(0), BTreeSet::new());
    assert_eq!(after(13), BTreeSet::new());
    assert_eq!(after(15), BTreeSet::from([young.clone(), old]));
    // A shard that outlived the joining of its run.
    let joined = world.run_shard("young", 2, 2).joined.unwrap();
    let cell = world.snapshot(&joined);
    let id = world.repository.keyring().run_id("young");
    let run = runs::read(&world.repository, &id).unwrap().unwrap();
    let left = commit_like(&world, &cell, |cell| {
        cell.kind = CellKind::Shard;
        cell.options.remove("joined-run");
        cell.shard = run.shard(1);
    });
    assert_eq!(after(0), BTreeSet::from([whole, left.snapshot_name()]));
}

#[test]
fn a_prune_clears_runs_of_long_ago_and_no_others() {
    let world = World::new(60);
    world.run_all("joined", 2);
    world.run_shard("open", 1, 2);
    let keyring = world.repository.keyring();
    let put = |name: String, bytes: Vec<u8>| world.storage.put(&name, bytes.into()).unwrap();
    let old = |name: &str, begun: i64| Run {
        id: keyring.run_id(name),
        name: name.to_owned(),
        begun,
        ..Run::default()
    };
    let long_ago = clock::now_ns() - runs::RUN_NS - 1_000_000_000;
    for run in [
        old("old", long_ago),
        old("ended", long_ago),
        old("late", long_ago),
    ] {
        put(
            run.name().to_string(),
            seal_record(keyring, &run, [1; 16], &[2; 32]).unwrap(),
        );
    }
    for (run, ended) in [("ended", long_ago), ("late", clock::now_ns())] {
        let end = RunEnd {
            id: keyring.run_id(run),
            ended,
            snapshot: SessionId::default(),
        };
        put(
            end.name().to_string(),
            seal_record(keyring, &end, [1; 16], &[2; 32]).unwrap(),
        );
    }
    let torn = keyring.run_id("torn");
    put(names::run(&torn), b"torn".to_vec());
    world.prune(true);
    let mut left = BTreeSet::new();
    let mut note = |object: crate::storage::ObjectInfo| {
        left.insert(object.name);
        Ok(())
    };
    world.storage.list(names::RUNS, &mut note).unwrap();
    let of = |name: &str| names::run(&keyring.run_id(name));
    let end = |name: &str| names::run_end(&keyring.run_id(name));
    let expected = [
        of("joined"),
        end("joined"),
        of("open"),
        of("late"),
        end("late"),
    ];
    assert_eq!(left, BTreeSet::from(expected));
}
