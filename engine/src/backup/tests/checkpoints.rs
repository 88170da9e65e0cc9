//! Checkpoints within a long file.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use larder_format::cell::{Cell, CellKind};
use larder_format::tree::build::Root;
use larder_format::tree::read::Cursor;

use super::super::*;
use crate::chunks::ChunkReader;
use crate::snapshots::fixture::{back_up, init, open, options};
use crate::storage::Storage;
use crate::storage::object::ObjectStorage;

const LONG_BYTES: usize = 1 << 20;

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

/// A storage with a repository, and a source of one short file and a long one after it.
fn setting() -> (Arc<dyn Storage>, tempfile::TempDir) {
    let storage: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
    init(storage.as_ref());
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("a"), "short").unwrap();
    fs::write(source.path().join("b"), noise(LONG_BYTES)).unwrap();
    (storage, source)
}

fn often(source: &Path) -> BackupOptions {
    BackupOptions {
        checkpoints: CheckpointRhythm {
            bytes: LONG_BYTES as u64 / 8,
            ..CheckpointRhythm::every_seconds(u64::MAX)
        },
        ..options(&[source])
    }
}

fn cells(repository: &Repository, kind: CellKind) -> Vec<Cell> {
    let view = view::read(repository, false, None).unwrap();
    let cells = view.cells.into_values().filter(|cell| cell.kind == kind);
    cells.collect()
}

/// Gives the entries of a cell's only source: keys, sizes, and whether they are marked as unreadable.
fn entries(repository: &Arc<Repository>, cell: &Cell) -> Vec<(Vec<u8>, u64, bool)> {
    let source = &cell.sources[0];
    let root = Root {
        id: source.root,
        level: source.level,
        entries: source.entries,
        bytes: source.bytes,
    };
    let mut cursor = Cursor::new(ChunkReader::new(repository).unwrap(), &root);
    let mut found = Vec::new();
    while let Some(entry) = cursor.next_entry().unwrap() {
        found.push((entry.key, entry.size, entry.flags.unreadable));
    }
    found
}

#[test]
fn a_long_file_gets_checkpoints_while_it_is_read() {
    let (storage, source) = setting();
    let repository = open(&storage);
    let report = back_up(&repository, &often(source.path()));
    let partial = cells(&repository, CellKind::Partial);
    assert!(partial.len() >= 7, "{} checkpoints", partial.len());
    for cell in &partial {
        // Up to where the session had come: what is there of the long file is marked unless it is whole.
        for (key, size, is_unreadable) in entries(&repository, cell) {
            assert!(key != b"b" || is_unreadable == (size < LONG_BYTES as u64));
        }
        assert!(!cell.segments.is_empty() || cell.predecessor.is_some());
    }
    let cell = &cells(&repository, CellKind::Complete)[0];
    assert_eq!(report.snapshot.as_ref(), Some(&cell.id.snapshot_name()));
    // The same tree as without any checkpoint, from the same chunks.
    let other = Arc::new(ObjectStorage::memory()) as Arc<dyn Storage>;
    for object in ["config", "keys"] {
        let mut names = Vec::new();
        let mut visit = |object: crate::storage::ObjectInfo| {
            names.push(object.name);
            Ok(())
        };
        storage.list(object, &mut visit).unwrap();
        for name in names {
            other
                .put(&name, storage.get(&name, 1 << 20).unwrap())
                .unwrap();
        }
    }
    let plain = open(&other);
    back_up(&plain, &options(&[source.path()]));
    let expected = &cells(&plain, CellKind::Complete)[0];
    assert_eq!(cell.sources[0].root, expected.sources[0].root);
}

#[test]
fn what_a_checkpoint_kept_of_a_half_read_file_is_not_uploaded_again() {
    let (storage, source) = setting();
    let repository = open(&storage);
    let options = often(source.path());
    let first = back_up(&repository, &options);
    drop(repository);
    // As if the run had died behind its last checkpoint.
    let repository = open(&storage);
    for cell in cells(&repository, CellKind::Complete) {
        let end = names::session_end(&cell.id);
        storage.delete(&names::cell(&cell.id)).unwrap();
        storage.delete(&end).unwrap();
    }
    let next = back_up(&repository, &options);
    assert!(next.resumed_from.is_some());
    // The short one only if it was written in the same tick in which the first run began.
    let long = LONG_BYTES as u64;
    assert!((long..=long + 5).contains(&next.statistics.bytes_read));
    assert!(
        next.statistics.bytes_added < first.statistics.bytes_added / 4,
        "{} of {} bytes again",
        next.statistics.bytes_added,
        first.statistics.bytes_added
    );
}
