//! Restores into a target of which one call fails.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use larder_engine::calls::{Failure, Watch};
use larder_engine::cancel::Cancel;
use larder_engine::error::Result;
use larder_engine::progress::Silent;
use larder_engine::repository::{Cache, Repository};
use larder_engine::restore::{RestoreOptions, RestoreReport, restore};
use larder_tests::overlay::Overlay;

use super::{faults, is_named, write_source};
use crate::damage::deeds::restore_options;
use crate::fixture::{Desk, init_options, secret, snapshots};
use crate::program::{noise, write_old};

/// What stands at a path: its bytes or where it leads, its permissions, and its time in seconds unless it is a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stands {
    bytes: Vec<u8>,
    mode: u32,
    seconds: Option<i64>,
}

/// What stands below a folder, by path.
fn below(folder: &Path) -> BTreeMap<PathBuf, Stands> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for item in fs::read_dir(next).into_iter().flatten() {
            let path = item.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let bytes = if metadata.is_dir() {
                folders.push(path.clone());
                Vec::new()
            } else if metadata.is_symlink() {
                fs::read_link(&path)
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes()
            } else {
                fs::read(&path).unwrap()
            };
            let stands = Stands {
                bytes,
                mode: metadata.mode(),
                seconds: (!metadata.is_dir()).then_some(metadata.mtime()),
            };
            found.insert(path.strip_prefix(folder).unwrap().to_owned(), stands);
        }
    }
    found
}

/// A snapshot, and where it goes.
struct Stage {
    repository: Arc<Repository>,
    options: RestoreOptions,
    source: PathBuf,
    /// Makes what stands in the target before.
    prepare: fn(&Path),
}

impl Stage {
    fn restore(&self) -> Result<RestoreReport> {
        let snapshot = &snapshots(&self.repository)[0];
        let path = self.source.as_os_str().as_encoded_bytes();
        let cancel = Cancel::default();
        restore(
            &self.repository,
            snapshot,
            Some(path),
            &self.options,
            &Silent,
            &cancel,
        )
    }

    /// Empties the target and puts there what stands in it before.
    fn set(&self) {
        let target = &self.options.target;
        if target.exists() {
            fs::remove_dir_all(target).unwrap();
        }
        fs::create_dir_all(target).unwrap();
        (self.prepare)(target);
    }

    /// Lets each call of the restore fail once.
    fn fail_everywhere(&self) {
        let target = self.options.target.clone();
        self.set();
        let before = below(&target);
        let watch = Watch::new(&target, None);
        let report = self.restore().unwrap();
        assert_eq!((report.failed, report.warnings.len()), (0, 0), "{report:?}");
        let faults = faults(watch.calls());
        drop(watch);
        let right = below(&target);
        let (mut failed, mut told, mut wrong) = (0, 0, Vec::new());
        for (call, failure) in &faults {
            self.set();
            let watch = Watch::new(&target, Some((call.clone(), *failure)));
            let outcome = self.restore();
            failed += usize::from(watch.has_failed());
            drop(watch);
            let found = below(&target);
            let mut judged = judge(&target, &before, &right, &found, &outcome);
            told += usize::from(judged == Ok(true));
            if *failure == Failure::Short && found != right {
                judged = Err(format!("it is not whole: {outcome:?}"));
            }
            let again = self.restore();
            let mut mended = below(&target);
            // What could not be removed stays behind, and is no file of the snapshot.
            mended.retain(|path, _| !is_temporary(path) || call.function != "unlinkat");
            if mended != right || !again.as_ref().is_ok_and(|report| report.failed == 0) {
                judged = Err(format!("the next restore does not mend it: {again:?}"));
            }
            wrong.extend(
                judged
                    .err()
                    .map(|why| format!("{failure:?} in {call:?}: {why}")),
            );
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        let count = faults.len();
        assert!(failed * 10 >= count * 8, "{failed} of {count}");
        assert!(told * 3 > failed, "{told} of {failed}");
    }
}

fn is_temporary(path: &Path) -> bool {
    path.iter()
        .any(|name| name.to_string_lossy().starts_with(".larder-"))
}

/// Fails if a path has bytes that it had neither before nor in the snapshot, or is not right and nobody says so; tells
/// whether anything was said.
fn judge(
    target: &Path,
    before: &BTreeMap<PathBuf, Stands>,
    right: &BTreeMap<PathBuf, Stands>,
    found: &BTreeMap<PathBuf, Stands>,
    outcome: &Result<RestoreReport>,
) -> std::result::Result<bool, String> {
    for (path, now) in found.iter().filter(|(path, _)| !is_temporary(path)) {
        let had = |of: &BTreeMap<PathBuf, Stands>| of.get(path).map(|one| one.bytes.clone());
        if ![had(before), had(right)].contains(&Some(now.bytes.clone())) {
            return Err(format!("wrong bytes under {path:?}: {outcome:?}"));
        }
    }
    let report = match outcome {
        Ok(report) => report,
        Err(error) => {
            let text = error.to_string();
            let mut paths = right.keys().map(|path| path.to_string_lossy());
            let is_clear = text.contains(&*target.to_string_lossy())
                || paths.any(|path| text.contains(&*path));
            return match is_clear {
                true => Ok(true),
                false => Err(format!("it is not said what failed: {text}")),
            };
        }
    };
    // The target itself is the path without a name.
    let issues = report.issues.iter();
    let names_all = issues.clone().any(|one| one.path.is_empty());
    let issues = issues.map(|one| format!("{}: {}", one.path, one.error));
    let texts: Vec<String> = issues.chain(report.warnings.iter().cloned()).collect();
    let paths = right.keys().chain(found.keys());
    let paths = paths.filter(|path| !is_temporary(path) && right.get(*path) != found.get(*path));
    for path in paths {
        if !names_all && !is_named(&texts, path) {
            let now = found
                .get(path)
                .map(|one| (one.bytes.len(), one.mode, one.seconds));
            return Err(format!(
                "{path:?} is {now:?}, and only this is said: {texts:?}"
            ));
        }
    }
    Ok(!texts.is_empty())
}

/// Leaves an older state: files that changed since, some that are gone, and things in each other's place.
fn older(target: &Path) {
    write_old(&target.join("one"), &noise(1, 2500));
    write_old(&target.join("a/two"), &noise(9, 9000));
    write_old(&target.join("gone/deep"), b"gone");
    write_old(&target.join("link"), b"no link");
    write_old(&target.join("empty/in"), b"no file");
    fs::write(target.join("holes"), noise(10, 100_000)).unwrap();
}

#[test]
fn a_target_fails_at_any_call_and_gets_no_wrong_bytes() {
    let desk = Desk::new(Cache::Memory);
    let source = write_source(&desk);
    let storage = Arc::new(Overlay::new(&Arc::default()));
    Repository::init_on(storage.as_ref(), &secret("one"), &init_options()).unwrap();
    let repository = desk.open(&storage, "one").unwrap();
    desk.back_up(&repository).unwrap();
    let target = fs::canonicalize(desk.path("")).unwrap().join("target");
    let stages: [(bool, fn(&Path)); 2] = [(false, |_| {}), (true, older)];
    for (delete, prepare) in stages {
        let stage = Stage {
            repository: Arc::clone(&repository),
            options: RestoreOptions {
                delete,
                no_owner: false,
                ..restore_options(&target)
            },
            source: source.clone(),
            prepare,
        };
        stage.fail_everywhere();
    }
}
