//! Backups of a source of which one call fails.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use larder_engine::backup::BackupReport;
use larder_engine::browse;
use larder_engine::calls::{Failure, Watch};
use larder_engine::error::Result;
use larder_engine::repository::{Cache, Repository};
use larder_format::entry::Entry;
use larder_tests::overlay::Overlay;

use super::{faults, is_named, write_source};
use crate::fixture::{Desk, init_options, secret, snapshots};
use crate::program::noise;

/// The entries of a snapshot by their paths.
type Entries = BTreeMap<PathBuf, Entry>;

/// Backs up; gives what was reported, and what the snapshot holds.
fn back_up(desk: &Desk, storage: &Arc<Overlay>) -> Result<(BackupReport, Entries)> {
    let repository = desk.open(storage, "one")?;
    let report = desk.back_up(&repository)?;
    let listed = snapshots(&repository);
    let made = listed
        .iter()
        .find(|one| Some(&one.id) == report.snapshot.as_ref());
    let mut entries = Entries::new();
    browse::list(&repository, made.unwrap(), None, true, &mut |item| {
        let path = PathBuf::from(OsString::from_vec(item.path));
        entries.insert(path, item.entry);
        Ok(())
    })?;
    Ok((report, entries))
}

/// Fails if an entry is not as it is in the source, and nobody says so.
fn judge(source: &Path, clean: &Entries, report: &BackupReport, found: &Entries, what: &str) {
    let issues = report.issues.iter();
    let texts: Vec<String> = issues.map(|one| one.path.clone()).collect();
    for (path, entry) in clean.iter().filter(|(path, _)| path.starts_with(source)) {
        let now = found.get(path);
        if now == Some(entry) {
            continue;
        }
        assert!(
            report.issue_count > 0,
            "{what}: {path:?} is {now:?}, and nobody says so"
        );
        assert!(
            is_named(&texts, path),
            "{what}: {path:?} is not among {texts:?}"
        );
        let Some(now) = now else { continue };
        let has_content = now.content == entry.content && now.size == entry.size;
        assert!(
            has_content || now.flags.unreadable,
            "{what}: {path:?} is taken for whole: {now:?}"
        );
        let has_attributes = now.attributes == entry.attributes;
        let is_known = now.flags.attributes_incomplete || now.flags.unreadable;
        assert!(has_attributes || is_known, "{what}: {path:?}: {now:?}");
    }
}

/// Lets each call of a backup onto `before` fail once.
fn fail_everywhere(desk: &Desk, source: &Path, before: &Arc<Overlay>) {
    let watch = Watch::new(source, None);
    let (report, clean) = back_up(desk, &Arc::new(before.fork())).unwrap();
    assert_eq!(report.issue_count, 0, "{report:?}");
    let faults = faults(watch.calls());
    drop(watch);
    let (mut failed, mut told) = (0, 0);
    for (call, failure) in &faults {
        let what = format!("{failure:?} in {call:?}");
        let storage = Arc::new(before.fork());
        let watch = Watch::new(source, Some((call.clone(), *failure)));
        let outcome = back_up(desk, &storage);
        failed += usize::from(watch.has_failed());
        drop(watch);
        match &outcome {
            Ok((report, found)) => {
                judge(source, &clean, report, found, &what);
                told += usize::from(report.issue_count > 0);
                if *failure == Failure::Short {
                    assert_eq!(found, &clean, "{what}");
                }
            }
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains(&*source.to_string_lossy()), "{what}: {text}");
                told += 1;
            }
        }
        // The next run has all of it again.
        let (report, mended) = back_up(desk, &storage).unwrap();
        assert_eq!(report.issue_count, 0, "{what}: {report:?}");
        assert_eq!(mended, clean, "{what}");
    }
    // Calls of several threads are not always the same ones; and some are no loss, such as a hint.
    assert!(
        failed * 10 >= faults.len() * 9,
        "{failed} of {}",
        faults.len()
    );
    assert!(told * 3 > failed, "{told} of {failed}");
}

#[test]
fn a_source_fails_at_any_call_and_nothing_is_taken_for_whole() {
    let desk = Desk::new(Cache::Memory);
    let source = write_source(&desk);
    let empty = Arc::new(Overlay::new(&Arc::default()));
    Repository::init_on(empty.as_ref(), &secret("one"), &init_options()).unwrap();
    fail_everywhere(&desk, &source, &empty);
    // And where most of it is there already.
    back_up(&desk, &empty).unwrap();
    desk.write("a/two", &noise(7, 9100));
    desk.write("a/new", &noise(8, 900));
    fail_everywhere(&desk, &source, &empty);
}
