//! The same for what changes snapshots and removes what nothing needs: afterwards a prune also leaves as
//! much as if nobody had died.

use std::cell::Cell;

use jiff::Zoned;
use larder_engine::amend::{Wish, amend_all};
use larder_engine::forget::{self, Choice, ForgetOptions};
use larder_engine::prune::PruneReport;
use larder_engine::retention::GroupBy;
use larder_engine::rewrite::{RewriteOptions, UndeleteOptions, rewrite, undelete};
use larder_engine::snapshots::{Filter, Which, list};
use larder_engine::source::select::Excludes;

use super::*;
use crate::fixture::author;

/// Bytes by which two repositories that hold the same may differ: padding, and records.
const SLACK_BYTES: u64 = 8 << 10;

/// Prunes all that can be pruned, and waits for nobody.
fn prune_all(desk: &Desk, storage: &Arc<Faulty>) -> Result<PruneReport> {
    let repository = desk.open(storage, "one")?;
    prune(&repository, &prune_options(), &Silent, &Cancel::default())
}

/// Prunes until there is nothing left to do.
fn settle(desk: &Desk, storage: &Arc<Faulty>) {
    for _ in 0..5 {
        if prune_all(desk, storage).unwrap().round.is_none() {
            return;
        }
    }
    panic!("pruning does not come to an end");
}

/// What a repository takes: bytes of packs and segments, and how many other objects there are.
fn size(storage: &dyn Storage) -> (u64, usize) {
    let all = objects(storage);
    let is_data = |name: &str| name.starts_with("packs/") || name.starts_with("index/");
    let (data, records): (Vec<_>, Vec<_>) = all.iter().partition(|(name, _)| is_data(name));
    let bytes = data.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    (bytes, records.len())
}

/// Fails unless what must be there dumps as it did, and a check finds nothing lost.
fn assert_whole(desk: &Desk, storage: &Arc<Faulty>, kept: &[(String, Vec<u8>)], what: &str) {
    let repository = desk.open(storage, "one").unwrap();
    let listed = snapshots(&repository);
    for (id, tar) in kept {
        let found = listed.iter().find(|snapshot| snapshot.id == *id);
        let found = found.unwrap_or_else(|| panic!("{what}: snapshot {id} is gone"));
        assert!(
            desk.dump(&repository, found).unwrap() == *tar,
            "{what}: {id} differs"
        );
    }
    // Whatever else is listed restores, too.
    for snapshot in &listed {
        desk.dump(&repository, snapshot)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    assert_nothing_lost(&repository, what);
}

/// Lets a deed die everywhere; then it is done again, and a prune leaves as much as without a death.
fn die_and_clean_up(desk: &Desk, before: &Objects, deed: Deed<'_>, kept: &[(String, Vec<u8>)]) {
    let whole = Cell::new(None);
    die_everywhere(desk, before, deed, &|storage, what| {
        assert_whole(desk, storage, kept, what);
        deed(desk, storage).unwrap_or_else(|error| panic!("{what}: once more: {error}"));
        settle(desk, storage);
        assert_whole(desk, storage, kept, what);
        assert_as_large(storage, &whole, what);
    });
}

/// Fails unless a repository takes as much as the first one that was looked at: the one without a death.
fn assert_as_large(storage: &Arc<Faulty>, whole: &Cell<Option<(u64, usize)>>, what: &str) {
    let (bytes, records) = size(storage.as_ref());
    let Some((whole_bytes, whole_records)) = whole.get() else {
        whole.set(Some((bytes, records)));
        return;
    };
    assert!(
        bytes.abs_diff(whole_bytes) <= SLACK_BYTES + whole_bytes / 20,
        "{what}: {bytes} bytes, {whole_bytes} without a death"
    );
    assert!(
        records.abs_diff(whole_records) <= 4,
        "{what}: {records} records, {whole_records} without a death"
    );
}

/// Some snapshots of a source that changes: their objects, and what each holds, oldest first.
fn with_snapshots(desk: &Desk, count: u64) -> (Objects, Vec<(String, Vec<u8>)>) {
    let storage = storage_of(&with_one_snapshot(desk));
    for generation in 1..count {
        desk.write("long", &noise(200 + generation, 60_000));
        desk.write(&format!("d1/f{generation}"), &noise(300 + generation, 2000));
        desk.write("secret", &noise(400 + generation, 9000));
        let repository = desk.open(&storage, "one").unwrap();
        desk.back_up(&repository).unwrap();
    }
    let objects = objects(storage.as_ref());
    let dumped = dumps(desk, &objects);
    (objects, dumped)
}

/// Forgets by name; whoever did before has done it.
fn forget(desk: &Desk, storage: &Arc<Faulty>, ids: &[&str]) -> Result<()> {
    let repository = desk.open(storage, "one")?;
    for id in ids {
        let options = ForgetOptions {
            choice: Choice::Named(vec![Which::Prefix((*id).to_owned())]),
            filter: Filter::default(),
            group_by: GroupBy::default(),
        };
        match forget::plan(&repository, &options, &Zoned::now()) {
            Err(EngineError::NotFound(_)) => {}
            plan => {
                let (silent, cancel) = (Silent, Cancel::default());
                forget::apply(&repository, &plan?, &author(), &silent, &cancel)?;
            }
        }
    }
    Ok(())
}

#[test]
fn forgetting_dies_anywhere() {
    let desk = desk();
    let (before, dumped) = with_snapshots(&desk, 3);
    let ids = [dumped[0].0.as_str(), dumped[1].0.as_str()];
    let deed = |desk: &Desk, storage: &Arc<Faulty>| forget(desk, storage, &ids);
    die_and_clean_up(&desk, &before, &deed, &dumped[2..]);
}

#[test]
fn tagging_dies_anywhere() {
    let desk = desk();
    let (before, dumped) = with_snapshots(&desk, 2);
    let wish = Wish::ChangeTags {
        remove: Vec::new(),
        add: vec!["kept".to_owned()],
    };
    let deed = |desk: &Desk, storage: &Arc<Faulty>| {
        let repository = desk.open(storage, "one")?;
        let (filter, cancel) = (Filter::default(), Cancel::default());
        amend_all(&repository, &[], &filter, &wish, &author(), false, &cancel).map(drop)
    };
    die_and_clean_up(&desk, &before, &deed, &dumped);
}

#[test]
fn bringing_back_dies_anywhere() {
    let desk = desk();
    let (before, dumped) = with_snapshots(&desk, 3);
    let storage = storage_of(&before);
    forget(&desk, &storage, &[&dumped[0].0]).unwrap();
    let before = objects(storage.as_ref());
    let options = UndeleteOptions {
        author: author(),
        dry_run: false,
    };
    let deed = |desk: &Desk, storage: &Arc<Faulty>| {
        let repository = desk.open(storage, "one")?;
        let (silent, cancel) = (Silent, Cancel::default());
        undelete(&repository, &dumped[0].0, &options, &silent, &cancel).map(drop)
    };
    die_and_clean_up(&desk, &before, &deed, &dumped[1..]);
}

#[test]
fn leaving_paths_out_dies_anywhere() {
    let desk = desk();
    let (before, dumped) = with_snapshots(&desk, 3);
    let options = RewriteOptions {
        exclude: Excludes {
            exclude: vec!["secret".to_owned()],
            ..Excludes::default()
        },
        keep_original: false,
        author: author(),
        dry_run: false,
    };
    let deed = |desk: &Desk, storage: &Arc<Faulty>| {
        let repository = desk.open(storage, "one")?;
        let (silent, cancel) = (Silent, Cancel::default());
        match rewrite(&repository, &dumped[2].0, &options, &silent, &cancel) {
            // It was done before, and the one with the secret is forgotten.
            Err(EngineError::NotFound(_)) => Ok(()),
            other => other.map(drop),
        }
    };
    die_and_clean_up(&desk, &before, &deed, &dumped[..2]);
}

#[test]
fn a_prune_that_merges_segments_dies_anywhere() {
    let desk = desk();
    let (before, dumped) = with_snapshots(&desk, 10);
    let storage = storage_of(&before);
    let ids: Vec<&str> = dumped[..8].iter().map(|one| one.0.as_str()).collect();
    // The first round makes the segments members of a state; then they can be merged.
    forget(&desk, &storage, &ids[..1]).unwrap();
    prune_all(&desk, &storage).unwrap();
    forget(&desk, &storage, &ids[1..]).unwrap();
    let segments = |storage: &Arc<Faulty>| {
        let all = objects(storage.as_ref());
        all.keys().filter(|name| name.starts_with("index/")).count()
    };
    let before = objects(storage.as_ref());
    let many = segments(&storage);
    settle(&desk, &storage);
    assert!(segments(&storage) + 5 < many, "{many} segments");
    let deed = |desk: &Desk, storage: &Arc<Faulty>| prune_all(desk, storage).map(drop);
    die_and_clean_up(&desk, &before, &deed, &dumped[8..]);
}

#[test]
fn a_backup_that_dies_anywhere_leaves_nothing_behind_a_prune() {
    let desk = desk();
    let (before, dumped) = with_snapshots(&desk, 2);
    edit(&desk);
    let deed = |desk: &Desk, storage: &Arc<Faulty>| {
        let repository = desk.open(storage, "one")?;
        match desk.back_up_partly(&repository, 20) {
            Err(EngineError::Interrupted) => {}
            other => return other.map(drop),
        }
        desk.back_up(&repository).map(drop)
    };
    die_and_clean_up(&desk, &before, &deed, &dumped);
}

#[test]
fn a_rebuild_of_the_index_dies_anywhere() {
    let mut desk = desk();
    let (before, dumped) = with_snapshots(&desk, 4);
    desk.cache = Cache::Disk;
    let read_all = |desk: &Desk, storage: &Arc<Faulty>| -> Result<()> {
        let repository = desk.open(storage, "one")?;
        for snapshot in list(&repository, &Filter::default(), false)? {
            let id = &snapshot.id;
            let tar = desk.dump(&repository, &snapshot)?;
            let same = dumped.iter().any(|(one, bytes)| one == id && *bytes == tar);
            assert!(same, "{id} differs");
        }
        Ok(())
    };
    let deed = |desk: &Desk, storage: &Arc<Faulty>| {
        let _ = std::fs::remove_dir_all(desk.path("cache"));
        read_all(desk, storage)
    };
    let whole = Cell::new(None);
    die_everywhere(&desk, &before, &deed, &|storage, what| {
        // What is left of the index is gone on with.
        read_all(&desk, storage).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_nothing_lost(&desk.open(storage, "one").unwrap(), what);
        assert!(objects(storage.as_ref()) == before, "{what}: it wrote");
        settle(&desk, storage);
        assert_as_large(storage, &whole, what);
    });
}
