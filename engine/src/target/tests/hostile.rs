//! Trees that want out of the target, and people who alter it meanwhile: the folder beside it
//! stays as it was, to the last time stamp.

use std::os::unix::fs::symlink;

use super::*;
use crate::target::error::TargetError;
use crate::target::options::Overwrite;

/// Tries everything that takes a key, on one key for directories and one for others.
fn try_everything(place: &Place, directory: &[u8], leaf: &[u8]) -> Vec<Result<(), TargetError>> {
    let target = &place.target;
    let at = |kind| Entry {
        key: leaf.to_vec(),
        link_target: b"x".to_vec(),
        ..entry(kind, "", 0o777)
    };
    let id = place.target.existing(b"own").unwrap().unwrap().id;
    let file = |mode| {
        let file = target.create_file(leaf, 1, mode)?;
        file.write_at(b"!", 0)?;
        file.finish(&at(EntryType::File), &[])
    };
    vec![
        target.create_directory(directory).map(drop),
        target.finish_directory(directory, &at(EntryType::Directory), &[]),
        file(WriteMode::Fresh).map(drop),
        file(WriteMode::Patch).map(drop),
        file(WriteMode::InPlace).map(drop),
        target
            .create_symlink(leaf, &at(EntryType::Symlink), &[])
            .map(drop),
        target
            .create_special(leaf, &at(EntryType::Fifo), &[])
            .map(drop),
        target.link(b"own", &id, leaf),
        target.link(leaf, &id, b"stolen"),
        target.apply_metadata(leaf, &at(EntryType::File), &[]),
        target.remove_extras(directory, |_| false, |_, _| {}),
    ]
}

#[test]
fn unsafe_keys_are_refused_by_every_operation() {
    let place = place(|_| {});
    place.put("own", b"mine");
    let before = (observe(&place.outside), observe(&place.root));
    for directory in [
        "../",
        "../outside/",
        "/tmp/",
        "a/../../outside/",
        "./",
        "a//b/",
        "a\0/",
        "/",
    ] {
        let leaf = format!("{directory}x");
        for (number, result) in try_everything(&place, directory.as_bytes(), leaf.as_bytes())
            .into_iter()
            .enumerate()
        {
            let kind = result.unwrap_err().cause.kind();
            assert_eq!(
                kind,
                std::io::ErrorKind::InvalidInput,
                "{directory:?} {number}"
            );
        }
        assert!(place.target.existing(leaf.as_bytes()).is_err());
        assert!(place.target.open_existing(leaf.as_bytes()).is_err());
        assert!(place.target.create_parents(leaf.as_bytes()).is_err());
        assert_eq!(observe(&place.root), before.1, "{directory:?}");
    }
    assert_eq!(observe(&place.outside), before.0);
}

/// Replaces the folder `d` of the target by a link to the folder beside it.
fn swap(place: &Place) {
    std::fs::rename(place.root.join("d"), place.root.join("moved")).unwrap();
    symlink(place.outside.join("sub"), place.root.join("d")).unwrap();
}

#[test]
fn a_link_swapped_in_for_a_directory_leads_nowhere() {
    for cached in [true, false] {
        let place = place(|options| {
            options.overwrite = Overwrite::IfChanged;
            if !cached {
                few_handles(options);
            }
        });
        place.put("own", b"mine");
        place.target.create_directory(b"d/").unwrap();
        place.target.create_directory(b"other/").unwrap();
        place.put("d/x", b"ours");
        if !cached {
            place.put("other/x", b"");
        }
        let before = observe(&place.outside);
        swap(&place);
        let mut results = try_everything(&place, b"none/", b"d/x");
        // Those on the directory itself come last, since making it puts a real one there.
        let last = results.split_off(2);
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert_eq!(last[0].is_ok(), cached, "{last:?}");
        assert_eq!(observe(&place.outside), before);
        let on_directory = try_everything(&place, b"d/", b"d/x");
        assert!(on_directory[0].is_ok());
        assert_eq!(observe(&place.outside), before);
        assert!(
            !std::fs::symlink_metadata(place.root.join("d"))
                .unwrap()
                .is_symlink()
                || cached
        );
    }
}

#[test]
fn a_link_swapped_in_while_a_file_is_written_leads_nowhere() {
    for cached in [true, false] {
        let place = place(|options| {
            if !cached {
                few_handles(options)
            }
        });
        place.target.create_directory(b"d/").unwrap();
        let file = place.start("d/x", 4, WriteMode::Fresh);
        let abandoned = place.start("d/y", 4, WriteMode::Fresh);
        file.write_at(b"ou", 0).unwrap();
        if !cached {
            place.target.create_directory(b"e/").unwrap();
            place.put("e/x", b"");
        }
        let before = observe(&place.outside);
        swap(&place);
        let written = file.write_at(b"rs", 2);
        let finished = file.finish(&entry(EntryType::File, "d/x", 0o644), &[]);
        assert_eq!((written.is_ok(), finished.is_ok()), (cached, cached));
        abandoned.abandon();
        assert_eq!(observe(&place.outside), before);
        if cached {
            assert_eq!(place.read("moved/x"), b"ours");
        }
    }
}

#[test]
fn a_link_in_the_place_of_a_directory_is_replaced_or_refused() {
    for overwrite in [Overwrite::Always, Overwrite::IfChanged, Overwrite::Never] {
        let place = place(|options| options.overwrite = overwrite);
        symlink(place.outside.join("sub"), place.root.join("d")).unwrap();
        let before = observe(&place.outside);
        let made = place.target.create_directory(b"d/");
        assert_eq!(made.is_ok(), overwrite != Overwrite::Never);
        let inside = place.target.create_file(b"d/x", 0, WriteMode::Fresh);
        assert_eq!(inside.is_ok(), made.is_ok());
        drop(inside);
        assert_eq!(place.target.existing(b"d/x").unwrap(), None);
        assert_eq!(observe(&place.outside), before);
    }
}

#[test]
fn a_file_is_never_written_through_a_link_of_its_name() {
    for mode in [WriteMode::Fresh, WriteMode::Patch, WriteMode::InPlace] {
        let place = place(|_| {});
        symlink(place.outside.join("secret"), place.root.join("f")).unwrap();
        let before = observe(&place.outside);
        assert!(place.target.open_existing(b"f").unwrap().is_none());
        let file = place.start("f", 4, mode);
        assert_eq!(file.kept_bytes(), 0);
        file.write_at(b"ours", 0).unwrap();
        file.finish(&entry(EntryType::File, "f", 0o666), &[])
            .unwrap();
        assert_eq!(observe(&place.outside), before);
        assert!(
            std::fs::symlink_metadata(place.root.join("f"))
                .unwrap()
                .is_file()
        );
        assert_eq!(place.read("f"), b"ours");
    }
}

#[test]
fn a_file_with_a_name_outside_is_not_changed_in_place() {
    let place = place(|_| {});
    std::fs::hard_link(place.outside.join("secret"), place.root.join("f")).unwrap();
    let before = observe(&place.outside);
    let entry = entry(EntryType::File, "f", 0o666);
    assert!(place.target.apply_metadata(b"f", &entry, &[]).is_err());
    let file = place.start("f", 6, WriteMode::InPlace);
    assert_eq!(file.kept_bytes(), 6);
    file.write_at(b"S", 0).unwrap();
    assert_eq!(observe(&place.outside), before);
    file.finish(&entry, &[]).unwrap();
    assert_eq!(place.read("f"), b"Secret");
    assert_eq!(
        std::fs::read(place.outside.join("secret")).unwrap(),
        b"secret"
    );
}

#[test]
fn a_hard_link_to_a_link_is_one_to_the_link_itself() {
    let place = place(|_| {});
    let link_target = place
        .outside
        .join("secret")
        .into_os_string()
        .into_encoded_bytes();
    let before = observe(&place.outside);
    let link = Entry {
        link_target,
        ..entry(EntryType::Symlink, "l", 0o777)
    };
    let id = place.target.create_symlink(b"l", &link, &[]).unwrap();
    place.target.link(b"l", &id, b"m").unwrap();
    assert!(
        std::fs::symlink_metadata(place.root.join("m"))
            .unwrap()
            .is_symlink()
    );
    // The tree goes on to claim that the second name is a file with content and permissions.
    assert!(
        place
            .target
            .apply_metadata(b"m", &entry(EntryType::File, "m", 0o666), &[])
            .is_err()
    );
    place.put("m", b"overwritten");
    assert_eq!(observe(&place.outside), before);
}

#[test]
fn only_what_was_restored_is_hard_linked() {
    let place = place(|_| {});
    let id = place.put("f", b"ours");
    std::fs::remove_file(place.root.join("f")).unwrap();
    symlink(place.outside.join("secret"), place.root.join("f")).unwrap();
    let before = observe(&place.outside);
    assert!(place.target.link(b"f", &id, b"g").is_err());
    assert_eq!(observe(&place.outside), before);
    std::fs::remove_file(place.root.join("f")).unwrap();
    std::fs::hard_link(place.outside.join("secret"), place.root.join("f")).unwrap();
    let before = observe(&place.outside);
    assert!(place.target.link(b"f", &id, b"g").is_err());
    assert_eq!(observe(&place.outside), before);
    assert_eq!(place.names(), ["f"]);
}

#[test]
fn the_same_name_as_file_and_directory_is_one_of_them() {
    let place = place(|_| {});
    place.put("a", b"");
    place.target.create_directory(b"a/").unwrap();
    place.put("a/b", b"");
    let file = place.start("a", 0, WriteMode::Fresh);
    let error = file
        .finish(&entry(EntryType::File, "a", 0o644), &[])
        .unwrap_err();
    assert_eq!(error.cause.kind(), std::io::ErrorKind::DirectoryNotEmpty);
    assert_eq!(place.names(), ["a"]);
    assert_eq!(names(&place.root.join("a")), ["b"]);
}

#[test]
fn numbers_beyond_the_systems_are_warnings_at_most() {
    let place = place(|_| {});
    let far = Timestamp {
        seconds: i64::MAX,
        nanoseconds: 0x3fff_ffff,
    };
    let file = Entry {
        mtime: far,
        atime: Some(Timestamp {
            seconds: i64::MIN,
            nanoseconds: u32::MAX,
        }),
        uid: u32::MAX,
        gid: u32::MAX,
        mode: u32::MAX,
        ..entry(EntryType::File, "f", 0)
    };
    place
        .start("f", 0, WriteMode::Fresh)
        .finish(&file, &[])
        .unwrap();
    let metadata = std::fs::metadata(place.root.join("f")).unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o1777);
    let huge = place
        .target
        .create_file(b"huge", u64::MAX, WriteMode::Fresh)
        .unwrap();
    assert!(huge.write_at(b"x", u64::MAX).is_err());
    assert!(huge.finish(&file, &[]).is_err());
    assert_eq!(place.names(), ["f"]);
}
