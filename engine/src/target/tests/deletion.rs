//! What the snapshot does not have goes, and nothing else.

use std::os::unix::fs::symlink;

use super::*;
use crate::target::options::Overwrite;

#[test]
fn extras_are_listed_then_removed_with_all_below_them() {
    let place = place(|_| {});
    let in_root = |name: &str| place.root.join(name);
    std::fs::create_dir_all(in_root("d/extra/deep/er")).unwrap();
    std::fs::create_dir_all(in_root("d/was_file")).unwrap();
    std::fs::create_dir_all(in_root("d/kept/x")).unwrap();
    std::fs::write(in_root("d/extra/deep/f"), "").unwrap();
    std::fs::write(in_root("d/file"), "").unwrap();
    std::fs::write(in_root("d/kept_file"), "").unwrap();
    symlink(&place.outside, in_root("d/link")).unwrap();
    symlink(&place.outside, in_root("d/extra/link")).unwrap();
    let pending = place.start("d/new", 1, WriteMode::Fresh);
    pending.write_at(b"x", 0).unwrap();
    // The directory's handle is kept open; it must not be used once it is gone.
    assert!(place.target.existing(b"d/extra/deep/f").unwrap().is_some());
    let before = observe(&place.outside);
    let keep = |name: &[u8]| [&b"kept/"[..], b"kept_file", b"was_file"].contains(&name);
    let mut listed = Vec::new();
    place
        .target
        .list_extras(b"d/", keep, |key, metadata| {
            listed.push((String::from_utf8(key.to_vec()).unwrap(), metadata.kind));
        })
        .unwrap();
    listed.sort();
    let expected = [
        ("d/extra/".to_string(), EntryType::Directory),
        ("d/file".to_string(), EntryType::File),
        ("d/link".to_string(), EntryType::Symlink),
        ("d/was_file/".to_string(), EntryType::Directory),
    ];
    assert_eq!(listed, expected);
    let mut removed = Vec::new();
    place
        .target
        .remove_extras(b"d/", keep, |key, result| {
            result.unwrap();
            removed.push(String::from_utf8(key.to_vec()).unwrap());
        })
        .unwrap();
    removed.sort();
    assert_eq!(removed, expected.map(|(key, _)| key));
    pending
        .finish(&entry(EntryType::File, "d/new", 0o644), &[])
        .unwrap();
    assert_eq!(names(&in_root("d")), ["kept", "kept_file", "new"]);
    assert_eq!(observe(&place.outside), before);
    assert_eq!(place.target.existing(b"d/extra/deep/f").unwrap(), None);
}

#[test]
fn a_full_directory_gives_way_only_to_always_and_delete() {
    for (overwrite, delete, goes) in [
        (Overwrite::Always, true, true),
        (Overwrite::Always, false, false),
        (Overwrite::IfChanged, true, false),
        (Overwrite::Never, true, false),
    ] {
        let place = place(|options| (options.overwrite, options.delete) = (overwrite, delete));
        std::fs::create_dir_all(place.root.join("f/sub")).unwrap();
        std::fs::write(place.root.join("f/sub/x"), "x").unwrap();
        symlink(&place.outside, place.root.join("f/link")).unwrap();
        let before = observe(&place.outside);
        let file = place.start("f", 0, WriteMode::Fresh);
        let result = file.finish(&entry(EntryType::File, "f", 0o644), &[]);
        assert_eq!(result.is_ok(), goes);
        assert_eq!(place.root.join("f").is_file(), goes);
        assert_eq!(place.root.join("f/sub/x").is_file(), !goes);
        assert_eq!(place.names(), ["f"]);
        assert_eq!(observe(&place.outside), before);
    }
    let place = place(|_| {});
    std::fs::create_dir(place.root.join("f")).unwrap();
    place.put("f", b"an empty directory is nothing to lose");
}

#[test]
fn very_deep_folders_are_removed_with_few_handles() {
    let place = place(few_handles);
    place.target.create_directory(b"keep/").unwrap();
    let mut key = b"deep/".to_vec();
    for level in 0..300 {
        place.target.create_directory(&key).unwrap();
        if level % 40 == 0 {
            place.put(&format!("{}file", String::from_utf8_lossy(&key)), b"");
        }
        key.extend(b"x/");
    }
    let keep = |name: &[u8]| name == b"keep/";
    place
        .target
        .remove_extras(b"", keep, |_, result| result.unwrap())
        .unwrap();
    assert_eq!(place.names(), ["keep"]);
}

#[test]
fn what_cannot_be_removed_stops_nothing_else() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = place(|_| {});
    let locked = place.root.join("locked");
    std::fs::create_dir(&locked).unwrap();
    std::fs::write(locked.join("x"), "").unwrap();
    std::fs::write(place.root.join("a"), "").unwrap();
    std::fs::write(place.root.join("z"), "").unwrap();
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o555)).unwrap();
    let mut failed = Vec::new();
    place
        .target
        .remove_extras(
            b"",
            |_| false,
            |key, result| {
                if let Err(error) = result {
                    failed.push((key.to_vec(), error.cause.kind()));
                }
            },
        )
        .unwrap();
    if is_root() {
        assert_eq!((failed.len(), place.names().len()), (0, 0));
    } else {
        assert_eq!(
            failed,
            [(b"locked/".to_vec(), std::io::ErrorKind::PermissionDenied)]
        );
        assert_eq!(place.names(), ["locked"]);
        std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn another_mount_is_not_entered() {
    let options = Options::for_this_user();
    let root = Target::open_existing_root(Path::new("/"), options).unwrap();
    let error = root.open_below(root.root(), b"proc").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::CrossesDevices);
}
