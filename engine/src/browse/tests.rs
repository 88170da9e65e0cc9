#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod comparing;
mod dumping;
mod histories;
mod listing;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::snapshots::fixture::{Nodes, back_up, entry, init, open, options};
use crate::snapshots::{Filter, Which, resolve};
use crate::storage::Storage;
use crate::storage::counting::Counting;
use crate::storage::object::ObjectStorage;

/// A repository over storage that counts, and a folder with sources.
struct Setting {
    counting: Arc<Counting>,
    repository: Arc<Repository>,
    folder: tempfile::TempDir,
}

fn setting() -> Setting {
    let counting = Arc::new(Counting::new(Arc::new(ObjectStorage::memory())));
    let storage: Arc<dyn Storage> = counting.clone();
    init(storage.as_ref());
    Setting {
        repository: open(&storage),
        counting,
        folder: tempfile::tempdir().unwrap(),
    }
}

impl Setting {
    fn back_up(&self, sources: &[&str]) -> SnapshotInfo {
        let paths: Vec<_> = sources
            .iter()
            .map(|name| self.folder.path().join(name))
            .collect();
        let paths: Vec<&Path> = paths.iter().map(|path| path.as_path()).collect();
        let report = back_up(&self.repository, &options(&paths));
        assert_eq!(report.issue_count, 0, "{:?}", report.issues);
        let which = Which::Prefix(report.snapshot.unwrap());
        resolve(&self.repository, &which, &Filter::default()).unwrap()
    }

    /// Gives the raw bytes of a path below the folder.
    fn raw(&self, path: &str) -> Vec<u8> {
        let path = self.folder.path().join(path);
        path.as_os_str().as_bytes().to_vec()
    }

    /// Gives a path below the folder as a test names it.
    fn short(&self, path: &[u8]) -> String {
        let base = self.folder.path().as_os_str().as_bytes();
        let rest = path.strip_prefix(base).unwrap();
        let rest = rest.strip_prefix(b"/").unwrap_or(rest);
        String::from_utf8_lossy(rest).into_owned()
    }

    fn list(&self, snapshot: &SnapshotInfo, path: Option<&str>, recursive: bool) -> Vec<String> {
        let path = path.map(|path| self.raw(path));
        let mut found = Vec::new();
        let mut each = |item: Item| {
            found.push(self.short(&item.path));
            Ok(())
        };
        list(
            &self.repository,
            snapshot,
            path.as_deref(),
            recursive,
            &mut each,
        )
        .unwrap();
        found
    }

    fn dump(&self, snapshot: &SnapshotInfo, path: &str) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        dump(&self.repository, snapshot, &self.raw(path), &mut out)?;
        Ok(out)
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// Bytes that do not compress or repeat.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn with_size(key: &str, size: u64) -> Entry {
    Entry { size, ..entry(key) }
}

/// A set of files and the directories that they are in.
fn trees() -> impl Strategy<Value = BTreeMap<String, u64>> {
    let name = prop::sample::select(vec!["a", "a!", "b", "c.d", "e"]);
    let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
    prop::collection::btree_map(path, 0..3_u64, 0..25).prop_map(|files| {
        let mut entries = BTreeMap::from([(String::new(), 0)]);
        for (path, size) in &files {
            // A file is not also a directory.
            if files
                .keys()
                .any(|other| other.starts_with(&format!("{path}/")))
            {
                continue;
            }
            entries.insert(path.clone(), *size);
            for (at, _) in path.match_indices('/') {
                entries.insert(path[..=at].to_owned(), 0);
            }
        }
        entries
    })
}

fn entries(tree: &BTreeMap<String, u64>) -> Vec<Entry> {
    tree.iter()
        .map(|(key, size)| with_size(key, *size))
        .collect()
}
