//! Versions of one path.

use super::super::*;
use super::*;
use crate::storage::error::Operation;

/// Tells for each version how many snapshots have it, and its size.
fn versions(setting: &Setting, path: &str) -> Vec<(u64, Option<u64>)> {
    let found = history(&setting.repository, &setting.raw(path), &Filter::default()).unwrap();
    let told = found.iter().map(|one| {
        let item = one.item.as_ref();
        assert!(item.is_none_or(|item| setting.short(&item.path) == path));
        assert!(one.first.time <= one.last.time);
        (one.snapshots, item.map(|item| item.entry.size))
    });
    told.collect()
}

#[test]
fn a_version_is_a_row_of_snapshots_that_have_the_same() {
    let setting = setting();
    let folder = setting.folder.path();
    fs::create_dir_all(folder.join("a/deep")).unwrap();
    fs::create_dir(folder.join("b")).unwrap();
    let file = folder.join("a/deep/file");
    setting.back_up(&["a"]);
    fs::write(&file, "one").unwrap();
    setting.back_up(&["a"]);
    // Another source says nothing about the file, another file in it leaves it as it is.
    setting.back_up(&["b"]);
    fs::write(folder.join("a/other"), "x").unwrap();
    setting.back_up(&["a", "b"]);
    fs::write(&file, "three").unwrap();
    setting.back_up(&["a"]);
    fs::remove_file(&file).unwrap();
    setting.back_up(&["a"]);
    setting.back_up(&["a"]);
    fs::write(&file, "").unwrap();
    setting.back_up(&["a"]);
    let expected = [(2, Some(3)), (1, Some(5)), (2, None), (1, Some(0))];
    assert_eq!(versions(&setting, "a/deep/file"), expected);
    assert_eq!(versions(&setting, "a/other"), [(5, Some(1))]);
    // A folder changes with what is directly in it, a link to the file with no content of it.
    assert_eq!(versions(&setting, "a").len(), 2);
    assert_eq!(versions(&setting, "b"), [(2, Some(0))]);

    for nowhere in ["a/none", "c", ""] {
        let outcome = history(
            &setting.repository,
            &setting.raw(nowhere),
            &Filter::default(),
        );
        assert!(
            matches!(outcome, Err(EngineError::NotFound(_))),
            "{nowhere}"
        );
    }
}

#[test]
fn what_is_the_same_is_searched_once() {
    let setting = setting();
    fs::create_dir(setting.folder.path().join("a")).unwrap();
    fs::write(setting.folder.path().join("a/file"), "one").unwrap();
    for _ in 0..8 {
        setting.back_up(&["a"]);
    }
    let reads = |snapshots: usize| {
        let _ = setting.counting.take();
        let path = setting.raw("a/file");
        let found = history(&setting.repository, &path, &Filter::default()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].snapshots, snapshots as u64);
        setting.counting.take().of(Operation::GetRange).operations
    };
    let first = reads(8);
    setting.back_up(&["a"]);
    assert!(reads(9) <= first + 1);
}

#[test]
fn hosts_have_versions_of_their_own() {
    let setting = setting();
    fs::create_dir(setting.folder.path().join("a")).unwrap();
    let path = setting.folder.path().join("a");
    for (host, text) in [
        ("desk", "one"),
        ("lap", "three"),
        ("desk", "one"),
        ("lap", "three"),
    ] {
        fs::write(path.join("file"), text).unwrap();
        // The time of a change tells versions apart, so it has to stay.
        let file = fs::File::options()
            .write(true)
            .open(path.join("file"))
            .unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        let options = crate::backup::BackupOptions {
            host: host.to_owned(),
            ..options(&[&path])
        };
        back_up(&setting.repository, &options);
    }
    let found = history(
        &setting.repository,
        &setting.raw("a/file"),
        &Filter::default(),
    )
    .unwrap();
    let told: Vec<_> = found
        .iter()
        .map(|one| (one.first.host.as_str(), one.snapshots))
        .collect();
    assert_eq!(told, [("desk", 2), ("lap", 2)]);
}
