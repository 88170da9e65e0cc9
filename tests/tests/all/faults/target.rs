//! Restores into a target of which one call fails.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use larder_engine::calls::{Call, Failure, Watch};
use larder_engine::cancel::Cancel;
use larder_engine::error::Result;
use larder_engine::progress::Silent;
use larder_engine::repository::{Cache, Repository};
use larder_engine::restore::{RestoreReport, restore};
use larder_engine::snapshots::SnapshotInfo;
use larder_tests::overlay::Overlay;

use super::{faults, is_named, write_source};
use crate::fixture::{Desk, init_options, memory_folder, restore_options, secret, snapshots};
use crate::program::noise;

/// What an entry of a target is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    mode: u32,
    modified: (i64, i64),
    bytes: Vec<u8>,
    attribute: Option<Vec<u8>>,
}

/// Gives the names that a file has: what is said of one of them is of all.
fn names_of(path: &Path) -> Vec<&Path> {
    let linked = ["one", "again"].map(Path::new);
    match linked.contains(&path) {
        true => linked.to_vec(),
        false => vec![path],
    }
}

/// The entries of a target by their paths in it; the target itself is the empty one.
type Entries = BTreeMap<PathBuf, Facts>;

fn entries(target: &Path) -> Entries {
    let mut found = Entries::new();
    let mut paths = vec![target.to_owned()];
    while let Some(path) = paths.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let bytes = match (metadata.is_file(), metadata.is_symlink()) {
            (true, _) => fs::read(&path).unwrap(),
            (_, true) => fs::read_link(&path)
                .unwrap()
                .into_os_string()
                .into_encoded_bytes(),
            _ => Vec::new(),
        };
        if metadata.is_dir() {
            paths.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|item| item.unwrap().path()),
            );
        }
        let mut value = [0; 64];
        let size = rustix::fs::lgetxattr(&path, "user.larder", &mut value);
        let facts = Facts {
            mode: metadata.mode(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            bytes,
            attribute: size.ok().map(|size| value[..size].to_vec()),
        };
        found.insert(path.strip_prefix(target).unwrap().to_owned(), facts);
    }
    found
}

/// A snapshot that is restored again and again.
struct Scene<'a> {
    repository: &'a Arc<Repository>,
    source: &'a Path,
    /// What stands in the target already.
    before: Option<&'a SnapshotInfo>,
    snapshot: &'a SnapshotInfo,
}

impl Scene<'_> {
    fn restore(&self, snapshot: &SnapshotInfo, target: &Path) -> Result<RestoreReport> {
        let mut options = restore_options(target);
        options.delete = true;
        restore(
            self.repository,
            snapshot,
            Some(self.source.as_os_str().as_encoded_bytes()),
            &options,
            &Silent,
            &Cancel::default(),
        )
    }

    /// Makes a target as it is before the restore that is looked at.
    fn target(&self) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir_in(memory_folder()).unwrap();
        let target = fs::canonicalize(folder.path()).unwrap().join("target");
        fs::create_dir(&target).unwrap();
        if let Some(before) = self.before {
            assert_eq!(self.restore(before, &target).unwrap().failed, 0);
        }
        (folder, target)
    }

    /// Lets each call of a restore fail once.
    fn fail_everywhere(&self) {
        let (_folder, target) = self.target();
        let before = entries(&target);
        let watch = Watch::new(&target, None);
        let report = self.restore(self.snapshot, &target).unwrap();
        assert!(
            report.issues.is_empty() && report.warnings.is_empty(),
            "{report:?}"
        );
        let faults = faults(watch.calls());
        drop(watch);
        let clean = entries(&target);
        let (mut failed, mut told) = (0, 0);
        for (call, failure) in &faults {
            let what = format!("{failure:?} in {call:?}");
            let (_folder, target) = self.target();
            let watch = Watch::new(&target, Some((call.clone(), *failure)));
            let outcome = self.restore(self.snapshot, &target);
            failed += usize::from(watch.has_failed());
            drop(watch);
            let found = entries(&target);
            if *failure == Failure::Short {
                assert_eq!(found, clean, "{what}");
            }
            told += usize::from(judge([&before, &clean, &found], &outcome, call, &what));
            // The next restore makes all of it right.
            let report = self.restore(self.snapshot, &target).unwrap();
            assert_eq!(report.failed, 0, "{what}: {report:?}");
            assert_eq!(entries(&target), clean, "{what}");
        }
        // Calls of several threads are not always the same ones; and some are no loss, such as a hint.
        assert!(
            failed * 10 >= faults.len() * 9,
            "{failed} of {}",
            faults.len()
        );
        assert!(told * 4 > failed, "{told} of {failed}");
    }
}

/// Fails if wrong bytes stand under a final name, or something is not right and nobody says so; tells whether
/// somebody did.
fn judge(
    [before, clean, found]: [&Entries; 3],
    outcome: &Result<RestoreReport>,
    call: &Call,
    what: &str,
) -> bool {
    let texts: Vec<String> = match outcome {
        Ok(report) => {
            let issues = report.issues.iter().map(|issue| issue.path.clone());
            issues.chain(report.warnings.iter().cloned()).collect()
        }
        Err(error) => vec![error.to_string()],
    };
    for (path, facts) in clean {
        let now = found.get(path);
        if now == Some(facts) {
            continue;
        }
        assert!(
            !texts.is_empty(),
            "{what}: {path:?} is {now:?}, and nobody says so"
        );
        // What is said of the target itself is of all below it.
        let is_of_all = outcome.is_err() || texts.iter().any(String::is_empty);
        let mut names = names_of(path).into_iter();
        let is_told =
            is_of_all || path.as_os_str().is_empty() || names.any(|name| is_named(&texts, name));
        assert!(is_told, "{what}: {path:?} is not among {texts:?}");
        let Some(now) = now else { continue };
        let is_old = before.get(path).is_some_and(|old| old.bytes == now.bytes);
        assert!(
            now.bytes == facts.bytes || is_old,
            "{what}: wrong bytes stand under {path:?}"
        );
    }
    for path in found.keys().filter(|path| !clean.contains_key(*path)) {
        let name = path.file_name().unwrap().to_string_lossy();
        let is_remains = name.starts_with(".larder-") && call.function == "unlinkat";
        assert!(
            is_remains || before.contains_key(path),
            "{what}: {path:?} is in the way"
        );
    }
    !texts.is_empty()
}

#[test]
fn a_target_fails_at_any_call_and_no_wrong_byte_stands_under_a_name() {
    let desk = Desk::new(Cache::Memory);
    let source = write_source(&desk);
    let storage = Arc::new(Overlay::new(&Arc::default()));
    Repository::init_on(storage.as_ref(), &secret("one"), &init_options()).unwrap();
    let repository = desk.open(&storage, "one").unwrap();
    desk.back_up(&repository).unwrap();
    desk.write("a/two", &noise(7, 9100));
    desk.write("a/new", &noise(8, 900));
    fs::remove_file(source.join("empty")).unwrap();
    desk.back_up(&repository).unwrap();
    let made = snapshots(&repository);
    let scene = Scene {
        repository: &repository,
        source: &source,
        before: None,
        snapshot: &made[0],
    };
    scene.fail_everywhere();
    // And where most of it is there already.
    let scene = Scene {
        before: Some(&made[0]),
        snapshot: &made[1],
        ..scene
    };
    scene.fail_everywhere();
}
