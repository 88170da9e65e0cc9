//! Each type of entry comes back with its metadata.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};

use rustix::fs::XattrFlags;

use super::*;
use crate::target::warnings::WarningKind;
use crate::target::{Made, Metadata};

fn assert_common(path: &Path, entry: &Entry) {
    let found = std::fs::symlink_metadata(path).unwrap();
    let (seconds, nanoseconds) = (entry.mtime.seconds, i64::from(entry.mtime.nanoseconds));
    assert_eq!(
        (found.mtime(), found.mtime_nsec()),
        (seconds, nanoseconds),
        "{path:?}"
    );
    assert_eq!(
        (found.uid(), found.gid()),
        (entry.uid, entry.gid),
        "{path:?}"
    );
    if entry.kind != EntryType::Symlink {
        assert_eq!(found.mode() & 0o7777, entry.mode, "{path:?}");
    }
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 4096];
    let length = rustix::fs::lgetxattr(path, name, &mut buffer[..]).ok()?;
    buffer.truncate(length);
    Some(buffer)
}

#[test]
fn files_come_back_with_content_mode_times_and_attributes() {
    let place = place(|_| {});
    for (number, mode) in [0o644, 0o600, 0o000, 0o444, 0o755, 0o1777]
        .into_iter()
        .enumerate()
    {
        let key = format!("caf\u{e9} \n{number}");
        let atime = Some(Timestamp {
            seconds: -7,
            nanoseconds: 5,
        });
        let entry = Entry {
            atime,
            ..entry(EntryType::File, &key, mode)
        };
        let file = place.start(&key, 11, WriteMode::Fresh);
        file.write_at(b"world", 6).unwrap();
        file.write_at(b"hello ", 0).unwrap();
        let attributes = [
            (b"user.\xff".to_vec(), b"v\0\xff".to_vec()),
            (b"user.e".to_vec(), vec![]),
        ];
        let id = file.finish(&entry, &attributes).unwrap();
        let path = place.root.join(&key);
        assert_common(&path, &entry);
        let found = std::fs::symlink_metadata(&path).unwrap();
        assert_eq!((found.atime(), found.atime_nsec()), (-7, 5));
        assert_eq!((found.dev(), found.ino()), (id.device, id.inode));
        if mode & 0o400 != 0 {
            assert_eq!(std::fs::read(&path).unwrap(), b"hello world");
            let names: &[(&[u8], &[u8])] = &[(b"user.\xff", b"v\0\xff"), (b"user.e", b"")];
            for (name, value) in names {
                let mut buffer = [0; 16];
                let length = rustix::fs::lgetxattr(&path, *name, &mut buffer[..]).unwrap();
                assert_eq!(&buffer[..length], *value);
            }
        }
    }
    assert_eq!(place.names().len(), 6);
    assert_eq!(place.target.warnings(), []);
}

#[test]
fn directories_are_private_until_they_are_finished() {
    let place = place(|_| {});
    assert_eq!(
        std::fs::metadata(&place.root).unwrap().mode() & 0o7777,
        0o700
    );
    assert_eq!(place.target.create_directory(b"").unwrap(), Made::Existing);
    assert_eq!(place.target.create_directory(b"d/").unwrap(), Made::New);
    assert_eq!(place.target.create_directory(b"d/e/").unwrap(), Made::New);
    assert_eq!(
        place.target.create_directory(b"d/e/").unwrap(),
        Made::Existing
    );
    place.put("d/e/x", b"x");
    assert_eq!(
        std::fs::metadata(place.root.join("d/e")).unwrap().mode() & 0o7777,
        0o700
    );
    for (key, mode) in [("d/e/", 0o555), ("d/", 0o3755), ("", 0o751)] {
        let entry = entry(EntryType::Directory, key, mode);
        let attributes = [(b"user.a".to_vec(), key.as_bytes().to_vec())];
        place
            .target
            .finish_directory(key.as_bytes(), &entry, &attributes)
            .unwrap();
        assert_common(&place.root.join(key), &entry);
        assert_eq!(
            attribute(&place.root.join(key), "user.a").unwrap(),
            key.as_bytes()
        );
    }
    // A second restore finds a folder that its owner may not write to.
    assert_eq!(
        place.target.create_directory(b"d/e/").unwrap(),
        Made::Existing
    );
    place.put("d/e/y", b"y");
    let entry = entry(EntryType::Directory, "d/e/", 0o555);
    place.target.finish_directory(b"d/e/", &entry, &[]).unwrap();
    assert_common(&place.root.join("d/e"), &entry);
    assert_eq!(attribute(&place.root.join("d/e"), "user.a"), None);
    std::fs::set_permissions(
        place.root.join("d/e"),
        std::fs::Permissions::from_mode(0o700),
    )
    .unwrap();
    place.target.sync().unwrap();
}

#[test]
fn parents_without_an_entry_are_made_as_the_process_makes_them() {
    let place = place(|_| {});
    place.target.create_parents(b"home/user/file").unwrap();
    place.target.create_parents(b"home/user/dir/").unwrap();
    std::fs::create_dir(place.root.join("plain")).unwrap();
    let mode = |name| std::fs::metadata(place.root.join(name)).unwrap().mode();
    assert_eq!(mode("home/user"), mode("plain"));
    assert_eq!(names(&place.root.join("home/user")), Vec::<String>::new());
}

#[test]
fn links_pipes_and_sockets_come_back() {
    let place = place(|_| {});
    place.target.create_directory(b"d/").unwrap();
    let link = Entry {
        link_target: b"/no\xff/where".to_vec(),
        ..entry(EntryType::Symlink, "d/l", 0o777)
    };
    place.target.create_symlink(b"d/l", &link, &[]).unwrap();
    assert_common(&place.root.join("d/l"), &link);
    let points_to = std::fs::read_link(place.root.join("d/l")).unwrap();
    assert_eq!(points_to.as_os_str().as_encoded_bytes(), b"/no\xff/where");
    for (key, kind, mode) in [
        ("d/p", EntryType::Fifo, 0o620),
        ("d/s", EntryType::Socket, 0o755),
    ] {
        let special = entry(kind, key, mode);
        let id = place
            .target
            .create_special(key.as_bytes(), &special, &[])
            .unwrap();
        assert_common(&place.root.join(key), &special);
        assert_eq!(id.kind, kind);
        let found = std::fs::symlink_metadata(place.root.join(key))
            .unwrap()
            .file_type();
        assert_eq!(
            (found.is_fifo(), found.is_socket()),
            (kind == EntryType::Fifo, kind == EntryType::Socket)
        );
        place
            .target
            .link(key.as_bytes(), &id, format!("{key}2").as_bytes())
            .unwrap();
    }
    assert_eq!(names(&place.root.join("d")), ["l", "p", "p2", "s", "s2"]);
    let none = place
        .target
        .create_special(b"x", &entry(EntryType::File, "x", 0), &[]);
    assert!(none.is_err() && place.names() == ["d"]);
    let empty = place
        .target
        .create_symlink(b"x", &entry(EntryType::Symlink, "x", 0), &[]);
    assert!(empty.is_err() && place.names() == ["d"]);
}

#[test]
fn attributes_of_links_and_pipes_are_their_own() {
    // Only root may have attributes on anything but files and directories.
    let place = place(|_| {});
    let link_target = place
        .outside
        .join("secret")
        .into_os_string()
        .into_encoded_bytes();
    let link = Entry {
        link_target,
        ..entry(EntryType::Symlink, "l", 0o777)
    };
    let attributes = [(b"trusted.larder".to_vec(), b"1".to_vec())];
    place
        .target
        .create_symlink(b"l", &link, &attributes)
        .unwrap();
    place
        .target
        .create_special(b"p", &entry(EntryType::Fifo, "p", 0o600), &attributes)
        .unwrap();
    assert_eq!(
        attribute(&place.outside.join("secret"), "trusted.larder"),
        None
    );
    if is_root() {
        assert_eq!(
            attribute(&place.root.join("l"), "trusted.larder").unwrap(),
            b"1"
        );
        assert_eq!(
            attribute(&place.root.join("p"), "trusted.larder").unwrap(),
            b"1"
        );
    } else {
        let warnings = place.target.warnings();
        assert_eq!(warnings.len(), 1);
        assert_eq!(
            (warnings[0].kind, warnings[0].count),
            (WarningKind::TrustedAttributes, 2)
        );
        assert_eq!(warnings[0].first_path, b"l");
    }
}

#[test]
fn hard_links_share_the_file_also_when_made_again() {
    let place = place(|_| {});
    place.target.create_directory(b"d/").unwrap();
    let id = place.put("a", b"one");
    for _ in 0..2 {
        place.target.link(b"a", &id, b"d/b").unwrap();
        let found = std::fs::metadata(place.root.join("d/b")).unwrap();
        assert_eq!((found.ino(), found.nlink()), (id.inode, 2));
        assert_eq!(names(&place.root.join("d")), ["b"]);
    }
}

#[test]
fn devices_are_made_when_asked_for_alone() {
    let null = |key| Entry {
        device: 1 << 32 | 3,
        ..entry(EntryType::CharacterDevice, key, 0o666)
    };
    let refusing = place(|options| options.devices = false);
    let error = refusing
        .target
        .create_special(b"null", &null("null"), &[])
        .unwrap_err();
    assert_eq!(error.cause.kind(), std::io::ErrorKind::PermissionDenied);
    assert_eq!(refusing.names(), Vec::<String>::new());
    let making = place(|options| options.devices = true);
    let made = making.target.create_special(b"null", &null("null"), &[]);
    assert_eq!(made.is_ok(), is_root());
    if is_root() {
        let found = std::fs::metadata(making.root.join("null")).unwrap();
        assert!(found.file_type().is_char_device());
        assert_eq!(found.rdev(), std::fs::metadata("/dev/null").unwrap().rdev());
        assert_eq!(
            making.target.existing(b"null").unwrap().unwrap().device,
            1 << 32 | 3
        );
    }
}

#[test]
fn set_user_id_needs_the_owner_and_the_wish() {
    for (setuid, uid_offset, expected) in [(true, 0, 0o6755), (false, 0, 0o755), (true, 1, 0)] {
        let place = place(|options| options.setuid = setuid);
        let mut entry = entry(EntryType::File, "f", 0o6755);
        entry.uid += uid_offset;
        let file = place.start("f", 0, WriteMode::Fresh);
        file.finish(&entry, &[]).unwrap();
        let expected = match (expected, is_root()) {
            (0, true) => 0o6755,
            (0, false) => 0o755,
            (expected, _) => expected,
        };
        let found = std::fs::metadata(place.root.join("f")).unwrap();
        assert_eq!(found.mode() & 0o7777, expected);
        let stripped =
            |warning: &super::super::warnings::Warning| warning.kind == WarningKind::SpecialBits;
        assert_eq!(
            place.target.warnings().iter().any(stripped),
            expected == 0o755
        );
    }
    // Without owners a file of somebody else's must not become one that runs as this user.
    let place = place(|options| (options.owners, options.setuid) = (Owners::None, true));
    let mut entry = entry(EntryType::File, "f", 0o6755);
    (entry.uid, entry.gid) = (entry.uid + 1, entry.gid + 1);
    place
        .start("f", 0, WriteMode::Fresh)
        .finish(&entry, &[])
        .unwrap();
    let found = std::fs::metadata(place.root.join("f")).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid()), (0o755, entry.uid - 1));
}

#[test]
fn owners_are_set_by_root_and_warned_of_once_by_others() {
    let place = place(|options| {
        options.uid_map.insert(4711, 4713);
    });
    for key in ["a", "b"] {
        let entry = Entry {
            uid: 4711,
            gid: 4712,
            ..entry(EntryType::File, key, 0o640)
        };
        place
            .start(key, 0, WriteMode::Fresh)
            .finish(&entry, &[])
            .unwrap();
        let found = std::fs::metadata(place.root.join(key)).unwrap();
        let this = rustix::process::geteuid().as_raw();
        assert_eq!(found.uid(), if is_root() { 4713 } else { this });
        assert_eq!(found.mode() & 0o7777, 0o640);
    }
    let warnings = place.target.warnings();
    let counts: Vec<_> = warnings
        .iter()
        .map(|warning| (warning.kind, warning.count))
        .collect();
    assert_eq!(
        counts,
        if is_root() {
            vec![]
        } else {
            vec![(WarningKind::Owner, 2)]
        }
    );
}

#[test]
fn attributes_that_cannot_be_set_are_warnings() {
    let place = place(|_| {});
    let file = place.start("f", 0, WriteMode::Fresh);
    let attributes = [
        (b"nonsense.x".to_vec(), b"1".to_vec()),
        (b"user.nul\0x".to_vec(), b"1".to_vec()),
        (b"user.good".to_vec(), b"1".to_vec()),
    ];
    file.finish(&entry(EntryType::File, "f", 0o644), &attributes)
        .unwrap();
    assert_eq!(attribute(&place.root.join("f"), "user.good").unwrap(), b"1");
    let kinds: Vec<_> = place
        .target
        .warnings()
        .iter()
        .map(|warning| warning.kind)
        .collect();
    assert_eq!(
        kinds,
        [WarningKind::UserAttributes, WarningKind::OtherAttributes]
    );
}

#[test]
fn access_lists_come_back_and_inherited_ones_do_not_stay() {
    // Version 2; user::rw-, user:4711:r--, group::r--, mask::r--, other::---.
    let mut list = vec![2, 0, 0, 0];
    for (tag, rights, id) in [
        (1_u16, 6_u16, u32::MAX),
        (2, 4, 4711),
        (4, 4, u32::MAX),
        (16, 4, u32::MAX),
        (32, 0, u32::MAX),
    ] {
        list.extend([tag.to_le_bytes(), rights.to_le_bytes()].concat());
        list.extend(id.to_le_bytes());
    }
    let place = place(|_| {});
    let flags = XattrFlags::empty();
    if rustix::fs::setxattr(&place.root, "system.posix_acl_default", &list, flags).is_err() {
        return;
    }
    let attributes = [(b"system.posix_acl_access".to_vec(), list.clone())];
    let file = place.start("with", 0, WriteMode::Fresh);
    file.finish(&entry(EntryType::File, "with", 0o640), &attributes)
        .unwrap();
    place.put("without", b"");
    let read = |name| attribute(&place.root.join(name), "system.posix_acl_access");
    assert_eq!((read("with"), read("without")), (Some(list), None));
    assert_common(
        &place.root.join("without"),
        &entry(EntryType::File, "without", 0o644),
    );
    assert_eq!(place.target.warnings(), []);
}

#[test]
fn names_deeper_than_paths_may_be_long_work() {
    let place = place(few_handles);
    let part = "n".repeat(203);
    let mut key = String::new();
    let mut keys = Vec::new();
    for _ in 0..45 {
        key = format!("{key}{part}/");
        place.target.create_directory(key.as_bytes()).unwrap();
        keys.push(key.clone());
    }
    place.put("elsewhere", b"");
    let id = place.put(&format!("{key}file"), b"deep");
    place
        .target
        .link(format!("{key}file").as_bytes(), &id, b"link")
        .unwrap();
    for key in keys.iter().rev() {
        let entry = entry(EntryType::Directory, key, 0o750);
        place
            .target
            .finish_directory(key.as_bytes(), &entry, &[])
            .unwrap();
    }
    let mut at = std::fs::File::open(&place.root).unwrap();
    for _ in 0..45 {
        use std::os::fd::AsRawFd as _;
        at = std::fs::File::open(format!("/proc/self/fd/{}/{part}", at.as_raw_fd())).unwrap();
        assert_eq!(at.metadata().unwrap().mode() & 0o7777, 0o750);
        assert_eq!(at.metadata().unwrap().mtime(), 1_000_000_000);
    }
    assert_eq!(place.read("link"), b"deep");
    let found = place
        .target
        .existing(format!("{key}file").as_bytes())
        .unwrap()
        .unwrap();
    let expected = Metadata {
        links: 2,
        size: 4,
        id,
        ..found.clone()
    };
    assert_eq!(found, expected);
}
