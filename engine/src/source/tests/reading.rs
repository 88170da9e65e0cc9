//! Attributes, contents, and what changes meanwhile.

use super::*;

#[test]
fn atime_is_kept_when_asked_for_and_reading_leaves_none() {
    let folder = tree(&[("a", "abc")]);
    set_mtime(&folder.path().join("a"), 1_000, 5);
    let options = WalkOptions {
        atime: true,
        ..WalkOptions::default()
    };
    let walk = || {
        entries(start_with(
            folder.path(),
            SelectOptions::default(),
            options.clone(),
        ))
    };
    let expected = Some(Timestamp {
        seconds: 1_000,
        nanoseconds: 5,
    });
    let all = walk();
    assert_eq!(find(&all, "a").entry.atime, expected);
    assert_eq!(content(find(&all, "a")), b"abc");
    assert_eq!(find(&walk(), "a").entry.atime, expected);
}

#[test]
fn attributes_are_read_of_every_kind() {
    let folder = awkward();
    let set = |name: &str, attribute: &str, value: &[u8]| {
        setxattr(
            folder.path().join(name),
            attribute,
            value,
            XattrFlags::empty(),
        )
        .is_ok()
    };
    if !set("a-b", "user.z", b"value") {
        return;
    }
    assert!(set("a-b", "user.empty", b"") && set("a", "user.bytes", b"\0\xff\0"));
    // Version 2; the owner, the user 7, the group, the mask, others.
    let mut acl = vec![2, 0, 0, 0];
    for (tag, permissions, id) in [
        (1_u16, 6_u16, u32::MAX),
        (2, 4, 7),
        (4, 4, u32::MAX),
        (16, 4, u32::MAX),
        (32, 0, u32::MAX),
    ] {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    let has_acl = set("a-b", "system.posix_acl_access", &acl);
    let has_trusted = is_root() && set("a-b", "trusted.t", b"t");
    let all = entries(start(folder.path()));
    let pairs = |key| {
        let list = attributes(find(&all, key));
        assert!(list.issues.is_empty(), "{:?}", list.issues);
        list.pairs
    };
    let mut expected = Vec::new();
    if has_acl {
        expected.push((b"system.posix_acl_access".to_vec(), acl));
    }
    if has_trusted {
        expected.push((b"trusted.t".to_vec(), b"t".to_vec()));
    }
    expected.push((b"user.empty".to_vec(), Vec::new()));
    expected.push((b"user.z".to_vec(), b"value".to_vec()));
    assert_eq!(pairs("a-b"), expected);
    assert_eq!(
        FileReader::open(find(&all, "a-b"))
            .unwrap()
            .attributes()
            .pairs,
        expected
    );
    assert_eq!(
        pairs("a/"),
        [(b"user.bytes".to_vec(), b"\0\xff\0".to_vec())]
    );
    for key in ["", "dangling", "to folder", "pipe", "socket", "sparse"] {
        assert_eq!(pairs(key), [], "{key}");
    }
    let target = "d".repeat(203) + "/";
    assert_eq!(pairs(&target.repeat(40)), []);
    // What took the entry's place is not asked.
    fs::remove_file(folder.path().join("a-b")).unwrap();
    fs::write(folder.path().join("a-b2"), "").unwrap();
    fs::rename(folder.path().join("a0"), folder.path().join("a-b")).unwrap();
    assert_eq!(attributes(find(&all, "a-b")).issues.len(), 1);
}

#[test]
fn a_file_that_grows_is_read_to_its_old_end_and_noticed() {
    let (_folder, path, walked) = walk_one(b"12345");
    let mut reader = FileReader::open(&walked).unwrap();
    fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(b"678")
        .unwrap();
    assert_eq!(read_all(&mut reader).0, b"12345");
    let Finish::Changed(now) = reader.finish().unwrap() else {
        panic!("not noticed")
    };
    assert_eq!(now.entry.size, 8);
    assert_eq!(content(&now), b"12345678");
}

#[test]
fn a_file_that_shrinks_ends_early_and_is_noticed() {
    for size in [0, 2] {
        let (_folder, path, walked) = walk_one(b"12345");
        let mut reader = FileReader::open(&walked).unwrap();
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(size)
            .unwrap();
        let (bytes, _) = read_all(&mut reader);
        assert_eq!(bytes, &b"12345"[..size as usize]);
        let Finish::Changed(now) = reader.finish().unwrap() else {
            panic!("not noticed")
        };
        assert_eq!(now.entry.size, size);
    }
}

#[test]
fn a_file_of_the_same_size_that_changed_is_noticed() {
    let (_folder, path, walked) = walk_one(b"12345");
    let mut reader = FileReader::open(&walked).unwrap();
    read_all(&mut reader);
    set_mtime(&path, 77, 0);
    let Finish::Changed(now) = reader.finish().unwrap() else {
        panic!("not noticed")
    };
    assert_eq!(now.entry.mtime.seconds, 77);
}

#[test]
fn a_file_that_was_replaced_is_noticed_and_one_that_is_gone_is_vanished() {
    let (_folder, path, walked) = walk_one(b"12345");
    let other = path.with_extension("new");
    fs::write(&other, b"abcdefgh").unwrap();
    fs::rename(&other, &path).unwrap();
    let mut reader = FileReader::open(&walked).unwrap();
    assert_eq!(read_all(&mut reader).0, b"abcde");
    let Finish::Changed(now) = reader.finish().unwrap() else {
        panic!("not noticed")
    };
    assert_eq!(content(&now), b"abcdefgh");
    fs::remove_file(&path).unwrap();
    assert!(FileReader::open(&walked).unwrap_err().is_vanished());
    assert!(walked.look_again().unwrap_err().is_vanished());
    // A link in its place is not followed, and a pipe not waited for.
    symlink("/etc/passwd", &path).unwrap();
    assert!(!FileReader::open(&walked).unwrap_err().is_vanished());
    assert_eq!(
        walked.look_again().unwrap().entry.link_target,
        b"/etc/passwd"
    );
    fs::remove_file(&path).unwrap();
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let mut reader = FileReader::open(&walked).unwrap();
    let _ = reader.next_run().unwrap();
    let mut bytes = Vec::new();
    assert!(reader.read_to_end(&mut bytes).is_err());
    assert_eq!(walked.look_again().unwrap().entry.kind, EntryType::Fifo);
}

#[test]
fn holes_are_told_from_data() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let mut expected = vec![0; 3 << 20];
    let file = fs::File::create(&path).unwrap();
    file.set_len(expected.len() as u64).unwrap();
    for at in [1 << 20, (2 << 20) + 5_000] {
        std::os::unix::fs::FileExt::write_all_at(&file, b"data", at as u64).unwrap();
        expected[at..at + 4].copy_from_slice(b"data");
    }
    let walked = find(&entries(start(folder.path())), "file").clone();
    let mut reader = FileReader::open(&walked).unwrap();
    let (bytes, runs) = read_all(&mut reader);
    assert!(bytes == expected);
    assert!(matches!(reader.finish().unwrap(), Finish::Unchanged));
    if walked.allocated_bytes < walked.entry.size {
        assert!(
            matches!(runs[0], Run::Hole { offset: 0, length } if length == 1 << 20),
            "{runs:?}"
        );
        assert_eq!(runs.len(), 5, "{runs:?}");
        // A part of a run may be left unread.
        let mut reader = FileReader::open(&walked).unwrap();
        let again: Vec<Run> = std::iter::from_fn(|| reader.next_run().unwrap()).collect();
        assert_eq!(again, runs);
        // A sparse file that shrinks in between ends there.
        let mut reader = FileReader::open(&walked).unwrap();
        reader.next_run().unwrap();
        file.set_len(10).unwrap();
        while reader.next_run().unwrap().is_some() {
            reader.read_to_end(&mut Vec::new()).unwrap();
        }
        assert!(matches!(reader.finish().unwrap(), Finish::Changed(_)));
    }
}

#[test]
fn pipes_are_read_to_their_end_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let options = WalkOptions {
        read_special: true,
        ..WalkOptions::default()
    };
    let all = entries(start_with(folder.path(), SelectOptions::default(), options));
    let walked = find(&all, "pipe").clone();
    assert_eq!(walked.entry.kind, EntryType::File);
    assert!(walked.entry.flags.read_as_special);
    let writer = std::thread::spawn(move || fs::write(path, vec![7; 300_000]).unwrap());
    assert_eq!(content(&walked), vec![7; 300_000]);
    writer.join().unwrap();
}

#[test]
fn a_folder_that_was_replaced_is_not_read_for_the_other() {
    let folder = tree(&[("a/x", "right"), ("b/x", "wrong"), ("c/y", "")]);
    let options = WalkOptions {
        open_folders_max: 1,
        ..WalkOptions::default()
    };
    let all = entries(start_with(folder.path(), SelectOptions::default(), options));
    let walked = find(&all, "a/x");
    // Its handle was closed for others; what has its name now is another folder.
    fs::rename(folder.path().join("a"), folder.path().join("old")).unwrap();
    fs::rename(folder.path().join("b"), folder.path().join("a")).unwrap();
    assert!(FileReader::open(walked).is_err());
    fs::rename(folder.path().join("a"), folder.path().join("b")).unwrap();
    fs::rename(folder.path().join("old"), folder.path().join("a")).unwrap();
    assert_eq!(content(walked), b"right");
}
