#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::super::behaviour::{self, id, pack, packs_of, prefix};
use super::*;

fn options() -> IndexOptions {
    IndexOptions {
        repository: RepositoryId([1; 16]),
        replica: ReplicaId([2; 16]),
        cache_bytes: 8 << 20,
        block_cache_cap_bytes: 1 << 20,
    }
}

/// Makes a folder where a sync costs nothing, if the system has such a place.
fn folder_in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

fn open_with(folder: &Path, options: &IndexOptions) -> (Box<RocksIndex>, Option<String>) {
    match RocksIndex::open(folder, options).unwrap() {
        OpenOutcome::Opened { index, reset } => (index, reset),
        OpenOutcome::InUse => panic!("the index is in use"),
    }
}

fn open(folder: &Path) -> (Box<RocksIndex>, Option<String>) {
    open_with(folder, &options())
}

/// Copies a folder as it is at this moment: what a killed process leaves.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Lists all files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Feeds one large segment (sorted files), one small one, and a pending pack.
fn feed(index: &RocksIndex) {
    let chunks: Vec<u32> = (100..20_100).collect();
    index
        .add_segment(&id(1000), &[pack(1, &[&chunks])])
        .unwrap();
    index
        .add_segment(&id(1001), &[pack(2, &[&[10, 100]])])
        .unwrap();
    index.add_pending_pack(&pack(3, &[&[11, 100]])).unwrap();
}

#[test]
fn it_behaves_as_an_index() {
    let parent = folder_in_memory();
    behaviour::run(&|| Box::new(RocksIndex::open_temporary(parent.path(), &options()).unwrap()));
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
}

#[test]
fn what_was_fed_is_there_after_reopening_and_pending_packs_are_not() {
    let parent = folder_in_memory();
    let folder = parent.path().join("index");
    let (index, reset) = open(&folder);
    assert_eq!(reset, None);
    assert_eq!(
        fs::metadata(&folder).unwrap().permissions().mode() & 0o777,
        0o700
    );
    feed(&index);
    index.cache_block(&id(9), 0, b"block").unwrap();
    let killed = parent.path().join("killed");
    copy(&folder, &killed);
    drop(index);
    for folder in [folder, killed] {
        let (index, reset) = open(&folder);
        assert_eq!(reset, None);
        assert_eq!(
            index.segments().unwrap(),
            BTreeSet::from([id(1000), id(1001)])
        );
        assert!(packs_of(&*index, 100).is_empty());
        index.set_counting(&[id(1000), id(1001)]).unwrap();
        assert_eq!(packs_of(&*index, 100), BTreeSet::from([id(1), id(2)]));
        assert!(packs_of(&*index, 11).is_empty());
        assert_eq!(packs_of(&*index, 20_099).len(), 1);
        // Other packs never get the number, and with it the entries, of the pending one.
        index.add_segment(&id(1002), &[pack(4, &[&[12]])]).unwrap();
        index.set_counting(&[id(1002)]).unwrap();
        assert!(packs_of(&*index, 11).is_empty());
        assert_eq!(packs_of(&*index, 12), BTreeSet::from([id(4)]));
    }
}

#[test]
fn an_interrupted_feed_does_not_count_and_can_be_done_again() {
    let parent = folder_in_memory();
    let (index, _) = open(&parent.path().join("index"));
    let chunks: Vec<u32> = (100..20_100).collect();
    let large = pack(1, &[&chunks]);
    // The process ends after the sorted file is in, before the segment's record is.
    let mut step = feed::Feed::new(&index).unwrap();
    let (ordinal, _) = step.number(&large).unwrap();
    step.commit(true).unwrap();
    index.ingest(&[(ordinal, &large)], step.next).unwrap();
    let killed = parent.path().join("killed");
    copy(&parent.path().join("index"), &killed);
    let (index, reset) = open(&killed);
    assert_eq!(reset, None);
    assert!(!index.has_segment(&id(1000)).unwrap());
    index.add_segment(&id(1001), &[pack(2, &[&[5]])]).unwrap();
    index.set_counting(&[id(1001)]).unwrap();
    assert!(packs_of(&*index, 100).is_empty());
    index.add_segment(&id(1000), &[large]).unwrap();
    index.set_counting(&[id(1000)]).unwrap();
    assert_eq!(packs_of(&*index, 100), BTreeSet::from([id(1)]));
}

#[test]
fn entries_of_dead_packs_go_in_a_compaction_and_no_others() {
    let parent = folder_in_memory();
    let (index, _) = open(parent.path());
    feed(&index);
    index.remove_segments(&[id(1000)]).unwrap();
    for _ in 0..2 {
        let chunks = index.family(CHUNKS).unwrap();
        let mut compact = rocksdb::CompactOptions::default();
        compact.set_bottommost_level_compaction(rocksdb::BottommostLevelCompaction::Force);
        index
            .db
            .compact_range_cf_opt(chunks, None::<&[u8]>, None::<&[u8]>, &compact);
    }
    let left = index
        .db
        .iterator_cf(index.family(CHUNKS).unwrap(), IteratorMode::Start)
        .count();
    // The next number, and the chunks 10, 11 and 100.
    assert_eq!(left, 4);
    index.set_counting(&[id(1001)]).unwrap();
    assert_eq!(packs_of(&*index, 100), BTreeSet::from([id(2), id(3)]));
    assert!(packs_of(&*index, 101).is_empty());
    index.add_segment(&id(1000), &[pack(1, &[&[101]])]).unwrap();
    index.set_counting(&[id(1000)]).unwrap();
    assert_eq!(packs_of(&*index, 101), BTreeSet::from([id(1)]));
}

#[test]
fn only_one_process_has_it_and_a_foreign_one_is_made_anew() {
    let parent = folder_in_memory();
    let (index, _) = open(parent.path());
    feed(&index);
    assert!(matches!(
        RocksIndex::open(parent.path(), &options()).unwrap(),
        OpenOutcome::InUse
    ));
    drop(index);
    for other in [
        IndexOptions {
            repository: RepositoryId([9; 16]),
            ..options()
        },
        IndexOptions {
            replica: ReplicaId([9; 16]),
            ..options()
        },
    ] {
        let (index, reset) = open_with(parent.path(), &other);
        assert!(reset.is_some() && index.segments().unwrap().is_empty());
        feed(&index);
    }
    let databases = fs::read_dir(parent.path()).unwrap().filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with("db-")
    });
    assert_eq!(
        databases
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_none())
            .count(),
        1
    );
}

#[test]
fn a_deleted_folder_gives_errors_or_right_answers_and_spares_its_successor() {
    let parent = folder_in_memory();
    let folder = parent.path().join("index");
    let (index, _) = open(&folder);
    feed(&index);
    index.set_counting(&[id(1000)]).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    let (successor, reset) = open(&folder);
    assert_eq!(reset, None);
    successor
        .add_segment(&id(1001), &[pack(2, &[&[10, 100]])])
        .unwrap();
    successor.set_counting(&[id(1001)]).unwrap();
    if let Ok(places) = index.lookup(&prefix(100)) {
        assert!(places.iter().any(|place| place.pack == id(1)));
    }
    let chunks: Vec<u32> = (0..20_000).collect();
    let _ = index.add_segment(&id(1003), &[pack(5, &[&chunks])]);
    let _ = index.db.flush();
    drop(index);
    assert_eq!(packs_of(&*successor, 100), BTreeSet::from([id(2)]));
    drop(successor);
    let (successor, reset) = open(&folder);
    assert_eq!(
        (reset, successor.segments().unwrap()),
        (None, BTreeSet::from([id(1001)]))
    );
}

#[test]
fn a_damaged_file_is_noticed_or_makes_no_difference() {
    let parent = folder_in_memory();
    let sound = parent.path().join("sound");
    let (index, _) = open(&sound);
    feed(&index);
    index.db.flush().unwrap();
    index.db.flush_cf(index.family(CHUNKS).unwrap()).unwrap();
    index
        .add_segment(&id(1002), &[pack(4, &[&[12, 100]])])
        .unwrap();
    drop(index);
    let expected = BTreeSet::from([id(1), id(2), id(4)]);
    let mut noticed = 0;
    for file in files(&sound) {
        for place in 0..6 {
            let damaged = parent.path().join("damaged");
            copy(&sound, &damaged);
            let path = damaged.join(file.strip_prefix(&sound).unwrap());
            let mut bytes = fs::read(&path).unwrap();
            let length = bytes.len();
            match place {
                0 => bytes.truncate(length / 2),
                _ if length == 0 => continue,
                _ => bytes[(length - 1) * (place - 1) / 4] ^= 0x55,
            }
            fs::write(&path, bytes).unwrap();
            noticed += usize::from(check_damaged(&damaged, &expected));
            fs::remove_dir_all(&damaged).unwrap();
        }
    }
    assert!(noticed > 20, "only {noticed} damages were noticed");
}

/// Opens a damaged index; true if the damage was noticed. A wrong answer panics.
fn check_damaged(folder: &Path, expected: &BTreeSet<ObjectId>) -> bool {
    let (index, reset) = open(folder);
    let segments = [id(1000), id(1001), id(1002)];
    let answer = || -> Result<Vec<Place>> {
        let present: Vec<_> = index.segments()?.into_iter().collect();
        index.set_counting(&present)?;
        for chunk in (100..20_100).step_by(50) {
            if present.contains(&id(1000)) {
                assert!(
                    index
                        .lookup(&prefix(chunk))?
                        .iter()
                        .any(|place| place.pack == id(1))
                );
            }
        }
        index.for_each_chunk(&mut |_, _| ControlFlow::Continue(()))?;
        index.lookup(&prefix(100))
    };
    match answer() {
        Ok(places) => {
            let found: BTreeSet<_> = places.iter().map(|place| place.pack).collect();
            assert!(found.is_subset(expected));
            let present = index.segments().unwrap();
            for (segment, pack) in segments.iter().zip([id(1), id(2), id(4)]) {
                assert_eq!(present.contains(segment), found.contains(&pack));
            }
            reset.is_some() || present.len() < segments.len()
        }
        Err(IndexError::Damaged { .. }) => {
            drop(index);
            let (index, reset) = open(folder);
            assert!(reset.is_some() && index.segments().unwrap().is_empty());
            true
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn kept_blocks_stay_below_their_cap() {
    let parent = folder_in_memory();
    let (index, _) = open(parent.path());
    let mut block = vec![0; 50_000];
    for number in 0..200_u32 {
        let noise = blake3::hash(&number.to_be_bytes());
        block[..32].copy_from_slice(noise.as_bytes());
        index
            .cache_block(&id(1), u64::from(number), &block)
            .unwrap();
    }
    index.db.flush_cf(index.family(BLOCKS).unwrap()).unwrap();
    let compact = rocksdb::CompactOptions::default();
    let blocks = index.family(BLOCKS).unwrap();
    index
        .db
        .compact_range_cf_opt(blocks, None::<&[u8]>, None::<&[u8]>, &compact);
    let kept = (0..200).filter(|number| index.cached_block(&id(1), *number).unwrap().is_some());
    let kept: Vec<_> = kept.collect();
    assert!(
        (5..40).contains(&kept.len()),
        "{} blocks of 50 kB are kept",
        kept.len()
    );
    assert_eq!(kept.last(), Some(&199));
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error() {
    let parent = folder_in_memory();
    let file = parent.path().join("file");
    fs::write(&file, "").unwrap();
    let outcome = RocksIndex::open(&file.join("index"), &options());
    assert!(matches!(outcome, Err(IndexError::Disk { .. })));
}
