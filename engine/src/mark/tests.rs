use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use larder_format::entry::Content;
use larder_format::names;
use larder_format::tree::build::Root;
use larder_format::tree::read::Cursor;

use super::*;
use crate::progress::Silent;
use crate::snapshots::fixture;
use crate::storage::Storage;
use crate::storage::object::ObjectStorage;
use crate::view;

struct Fixture {
    storage: Arc<dyn Storage>,
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let storage: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
        fixture::init(storage.as_ref());
        let folder = tempfile::tempdir().unwrap();
        for number in 0..300_u32 {
            fs::write(
                folder.path().join(format!("f{number}")),
                format!("file {number}"),
            )
            .unwrap();
        }
        let long: Vec<u8> = (0..60_000_u32).flat_map(u32::to_le_bytes).collect();
        fs::write(folder.path().join("long"), long).unwrap();
        Self { storage, folder }
    }

    fn back_up(&self) -> Arc<Repository> {
        let repository = fixture::open(&self.storage);
        fixture::back_up(&repository, &fixture::options(&[self.folder.path()]));
        repository
    }
}

fn indexed(repository: &Repository) -> BTreeSet<ChunkPrefix> {
    let mut all = BTreeSet::new();
    let visited = repository.index().for_each_chunk(&mut |prefix, _| {
        all.insert(*prefix);
        ControlFlow::Continue(())
    });
    visited.unwrap();
    all
}

fn owners(repository: &Arc<Repository>, cells: &[&Cell]) -> BTreeMap<ChunkPrefix, BTreeSet<u32>> {
    let marks: Owned = mark(repository, cells, &Silent, &Cancel::default()).unwrap();
    let mut owners = BTreeMap::new();
    let joined = marks.join(repository.index(), |prefix, places, records| {
        assert!(!places.is_empty());
        let numbers: BTreeSet<_> = records.iter().map(owner).collect();
        if !numbers.is_empty() {
            owners.insert(*prefix, numbers);
        }
        Ok(())
    });
    joined.unwrap();
    owners
}

fn needed(repository: &Arc<Repository>, cells: &[&Cell]) -> BTreeSet<ChunkPrefix> {
    let marks: Needed = mark(repository, cells, &Silent, &Cancel::default()).unwrap();
    let mut needed = BTreeSet::new();
    let joined = marks.join(repository.index(), |prefix, _, records| {
        if !records.is_empty() {
            needed.insert(*prefix);
        }
        Ok(())
    });
    joined.unwrap();
    needed
}

/// Gives the cells, oldest first.
fn cells(repository: &Repository) -> Vec<Cell> {
    let view = view::read_cells(repository, None).unwrap();
    let mut cells: Vec<_> = view.cells.into_values().collect();
    cells.sort_by_key(|cell| cell.started);
    cells
}

#[test]
fn a_snapshot_needs_what_its_backup_wrote_and_what_it_shares() {
    let fixture = Fixture::new();
    let repository = fixture.back_up();
    let first = indexed(&repository);
    let old = cells(&repository);
    assert_eq!(needed(&repository, &[&old[0]]), first);

    fs::write(fixture.folder.path().join("f7"), "changed").unwrap();
    fs::remove_file(fixture.folder.path().join("f200")).unwrap();
    let repository = fixture.back_up();
    let both = cells(&repository);
    let all = indexed(&repository);
    assert_eq!(needed(&repository, &[&both[0], &both[1]]), all);
    assert_eq!(needed(&repository, &[&both[0]]), first);
    let second = needed(&repository, &[&both[1]]);
    assert!(second.is_superset(&all.difference(&first).copied().collect()));
    // Every file's chunks are among what is needed, found by another way.
    let source = &both[1].sources[0];
    let root = Root {
        id: source.root,
        level: source.level,
        entries: source.entries,
        bytes: source.bytes,
    };
    let mut cursor = Cursor::new(ChunkReader::new(&repository).unwrap(), &root);
    let mut chunks = 0;
    while let Some(entry) = cursor.next_entry().unwrap() {
        if let Content::Whole(id) = entry.content {
            assert!(second.contains(&id.prefix()));
            chunks += 1;
        }
    }
    assert_eq!(chunks, 299);
}

#[test]
fn a_chunk_belongs_to_the_one_snapshot_that_needs_it_or_is_shared() {
    let fixture = Fixture::new();
    fixture.back_up();
    for number in 1..4_u32 {
        fs::write(
            fixture.folder.path().join("f7"),
            format!("changed {number}"),
        )
        .unwrap();
        fs::write(
            fixture.folder.path().join(format!("g{number}")),
            format!("new {number}"),
        )
        .unwrap();
        fs::remove_file(fixture.folder.path().join(format!("f{}", number * 50))).unwrap();
        fixture.back_up();
    }
    let repository = fixture.back_up();
    let cells = cells(&repository);
    assert_eq!(cells.len(), 5);
    let cells: Vec<&Cell> = cells.iter().collect();
    let owners = owners(&repository, &cells);
    let single: Vec<_> = cells
        .iter()
        .map(|cell| needed(&repository, &[cell]))
        .collect();
    let mut counts = [0; 6];
    for (prefix, owners) in owners {
        let needing: Vec<u32> = (0..)
            .zip(&single)
            .filter(|(_, set)| set.contains(&prefix))
            .map(|(at, _)| at)
            .collect();
        assert_eq!(*owners.first().unwrap(), needing[0]);
        assert_eq!(
            owners.len() == 1,
            needing.len() == 1,
            "{needing:?} {owners:?}"
        );
        counts[needing.len()] += 1;
    }
    // The last one shares all it has; the others have something of their own.
    assert!(
        counts[1] > 4 && counts[2] > 0 && counts[5] > 200,
        "{counts:?}"
    );
}

#[test]
fn a_node_that_cannot_be_read_is_named_with_what_needs_it() {
    let fixture = Fixture::new();
    let repository = fixture.back_up();
    let cells = cells(&repository);
    let mut tree_packs = Vec::new();
    let visited = repository.index().packs(&mut |pack| {
        if pack.kind == crate::index::PackKind::Tree {
            tree_packs.push(pack.id);
        }
        ControlFlow::Continue(())
    });
    visited.unwrap();
    for pack in tree_packs {
        fixture.storage.delete(&names::pack(&pack)).unwrap();
    }
    let repository = fixture::open(&fixture.storage);
    view::read(&repository, false, None).unwrap();
    let error = mark::<NEEDED>(&repository, &[&cells[0]], &Silent, &Cancel::default());
    let text = error.err().unwrap().to_string();
    assert!(text.contains(&cells[0].id.snapshot_name()), "{text}");
    assert!(text.contains("packs/"), "{text}");
    assert!(
        text.contains(&fixture.folder.path().display().to_string()),
        "{text}"
    );
}

#[test]
fn what_needs_a_chunk_is_found() {
    let fixture = Fixture::new();
    let repository = fixture.back_up();
    let cells = cells(&repository);
    let id = repository.keyring().chunk_id(ChunkType::Data, b"file 123");
    let found = who_needs(&repository, &[&cells[0]], &id.prefix()).unwrap();
    assert!(found.ends_with("/f123"), "{found}");
    assert!(found.contains(&cells[0].id.snapshot_name()), "{found}");
    assert_eq!(
        who_needs(&repository, &[&cells[0]], &ChunkPrefix([9; 16])),
        None
    );
}
