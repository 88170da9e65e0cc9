//! Sources that are not there.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::sync::Arc;

use super::super::*;
use crate::progress::Silent;
use crate::snapshots::fixture::{back_up, init, open, options};
use crate::storage::Storage;
use crate::storage::object::ObjectStorage;

#[test]
fn a_source_that_is_not_there_keeps_no_other_from_being_backed_up() {
    let storage: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
    init(storage.as_ref());
    let repository = open(&storage);
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a", "b"].map(|name| folder.path().join(name));
    for path in &paths {
        fs::create_dir(path).unwrap();
        fs::write(path.join("file"), path.as_os_str().as_encoded_bytes()).unwrap();
    }
    let both = BackupOptions {
        skip_if_unchanged: true,
        ..options(&[&paths[0], &paths[1]])
    };
    let first = back_up(&repository, &both);
    assert_eq!((first.issue_count, first.statistics.new), (0, 4));

    fs::rename(&paths[1], folder.path().join("away")).unwrap();
    let second = back_up(&repository, &both);
    assert_eq!(second.parent, first.snapshot);
    assert_eq!((second.issue_count, second.issues.len()), (1, 1));
    assert_eq!(second.issues[0].path, paths[1].to_str().unwrap());
    assert!(second.snapshot.is_some() && !second.unchanged);
    assert_eq!(second.statistics.unchanged, 2);

    // Back again, it is compared with what it was.
    fs::rename(folder.path().join("away"), &paths[1]).unwrap();
    let third = back_up(&repository, &both);
    assert_eq!((third.parent, third.statistics.new), (first.snapshot, 0));

    for path in &paths {
        fs::remove_dir_all(path).unwrap();
    }
    let outcome = backup(&repository, &both, &Silent, &Cancel::default());
    assert!(matches!(outcome, Err(EngineError::File { .. })));
}
