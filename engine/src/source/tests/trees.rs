//! The order and the entries of a walk.

use super::*;

/// What `find` says of each path: type, mode, uid, gid, links, size, inode, mtime, target.
fn found_by_find(folder: &Path) -> BTreeMap<Vec<u8>, Vec<String>> {
    let output = Command::new("find")
        .arg(".")
        .args(["-printf", r"%P\0%y\0%m\0%U\0%G\0%n\0%s\0%i\0%T@\0%l\0"])
        .current_dir(folder)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    assert!(output.status.success());
    let mut fields = output.stdout.split(|byte| *byte == 0).map(<[u8]>::to_vec);
    let mut found = BTreeMap::new();
    while let Some(mut key) = fields.next() {
        let values: Vec<String> = fields
            .by_ref()
            .take(9)
            .map(|value| String::from_utf8(value).unwrap())
            .collect();
        if values.len() < 9 {
            break;
        }
        if values[0] == "d" && !key.is_empty() {
            key.push(b'/');
        }
        found.insert(key, values);
    }
    found
}

fn as_find_says(walked: &Walked, find_size: &str) -> Vec<String> {
    let entry = &walked.entry;
    let kind = match entry.kind {
        EntryType::File => "f",
        EntryType::Directory => "d",
        EntryType::Symlink => "l",
        EntryType::Fifo => "p",
        EntryType::Socket => "s",
        EntryType::CharacterDevice => "c",
        EntryType::BlockDevice => "b",
        EntryType::Object => panic!("no walk finds objects"),
    };
    let size = if entry.kind == EntryType::File {
        entry.size.to_string()
    } else {
        assert_eq!(entry.size, 0);
        find_size.to_owned()
    };
    vec![
        kind.to_owned(),
        format!("{:o}", entry.mode),
        entry.uid.to_string(),
        entry.gid.to_string(),
        entry.links.to_string(),
        size,
        entry.inode.to_string(),
        format!("{}.{:09}0", entry.mtime.seconds, entry.mtime.nanoseconds),
        String::from_utf8(entry.link_target.clone()).unwrap(),
    ]
}

#[test]
fn every_kind_of_file_is_as_find_says() {
    let folder = awkward();
    let entries = entries(start(folder.path()));
    let found = found_by_find(folder.path());
    assert_eq!(keys(&entries), found.keys().cloned().collect::<Vec<_>>());
    assert!(entries.iter().any(|walked| walked.entry.key.len() > 8_000));
    for walked in &entries {
        let expected = &found[&walked.entry.key];
        assert_eq!(
            &as_find_says(walked, &expected[5]),
            expected,
            "{:?}",
            walked.path()
        );
        assert_eq!(walked.entry.filesystem, 0);
        assert_eq!(walked.entry.atime, None);
    }
    assert_eq!(find(&entries, "old").entry.mtime.seconds, -1_000_000_000);
    let linked = [find(&entries, "linked"), find(&entries, "a/linked too")];
    assert!(linked[0].entry.is_hard_linked());
    assert_eq!(linked[0].entry.inode, linked[1].entry.inode);
    if is_root() {
        assert_eq!(find(&entries, "char").entry.device, 300 << 32 | 70_000);
        assert_eq!(find(&entries, "block").entry.device, 300 << 32 | 70_000);
        assert_eq!(find(&entries, "a-b").entry.user, b"root");
        assert_eq!(find(&entries, "a-b").entry.group, b"root");
    }
    let ctime = fs::metadata(folder.path().join("far")).unwrap();
    let far = &find(&entries, "far").entry;
    assert_eq!(
        (far.ctime.seconds, i64::from(far.ctime.nanoseconds)),
        (ctime.ctime(), ctime.ctime_nsec())
    );
}

#[test]
fn siblings_sort_by_their_keys() {
    let folder = tree(&[
        ("a-b", ""),
        ("a.c", ""),
        ("a/x", ""),
        ("a0", ""),
        ("ab/", ""),
        ("ab!", ""),
    ]);
    let expected = ["", "a-b", "a.c", "a/", "a/x", "a0", "ab!", "ab/"];
    assert_eq!(text_keys(&entries(start(folder.path()))), expected);
    assert_eq!(
        text_keys(&entries(start(folder.path()).ahead(2).unwrap())),
        expected
    );
    // Dropped long before its end, it leaves no thread that waits for ever.
    assert!(start(folder.path()).ahead(1).unwrap().next().is_some());
}

#[test]
fn a_source_may_be_a_single_file_of_any_kind() {
    let folder = awkward();
    let kinds = [
        ("a-b", EntryType::File),
        ("dangling", EntryType::Symlink),
        ("to folder", EntryType::Symlink),
        ("pipe", EntryType::Fifo),
    ];
    for (name, kind) in kinds {
        let all = entries(start(&folder.path().join(name)));
        assert_eq!(keys(&all), [b""]);
        assert_eq!(all[0].entry.kind, kind);
        assert!(attributes(&all[0]).issues.is_empty());
    }
    let all = entries(start(&folder.path().join("a.c")));
    assert_eq!(content(&all[0]), b"22");
    let error = Walk::start(
        &folder.path().join("none"),
        Selection::compile(SelectOptions::default(), folder.path()).unwrap(),
        WalkOptions::default(),
    )
    .unwrap_err();
    assert!(
        error.is_vanished() && error.to_string().contains("/none: "),
        "{error}"
    );
}

#[test]
fn depth_costs_no_handles_and_no_stack() {
    let folder = folder_in_memory();
    let innermost = deep(folder.path(), "n", 3_000);
    let flags = OFlags::CREATE | OFlags::WRONLY;
    let mode = Mode::from_raw_mode(0o600);
    let file = openat(&innermost, "file", flags, mode).unwrap();
    fs::File::from(file).write_all(b"deep").unwrap();
    let options = WalkOptions {
        open_folders_max: 4,
        ..WalkOptions::default()
    };
    let all = entries(start_with(folder.path(), SelectOptions::default(), options));
    assert_eq!(all.len(), 3_002);
    let last = all.last().unwrap().clone();
    // Read after everything else was let go of: its folder is reached anew from the source.
    drop(all);
    assert_eq!(last.entry.key.len(), 2 * 3_000 + 4);
    assert_eq!(content(&last), b"deep");
    drop(last);
    remove_deep(&folder.path().join("n"));
}

#[test]
fn a_path_too_long_for_the_format_is_an_issue() {
    let folder = folder_in_memory();
    let levels = KEY_BYTES / 255 + 2;
    deep(folder.path(), &"k".repeat(254), levels);
    let (all, issues) = collect(start(folder.path()));
    assert_eq!(all.len(), 1 + KEY_BYTES / 255);
    assert_eq!(issues.len(), 1);
    remove_deep(&folder.path().join("k".repeat(254)));
}

#[test]
fn many_entries_can_wait_with_few_handles() {
    let names: Vec<String> = (0..50).map(|n| format!("folder {n:02}/file")).collect();
    let files: Vec<(&str, &str)> = names
        .iter()
        .map(|name| (name.as_str(), name.as_str()))
        .collect();
    let folder = tree(&files);
    let options = WalkOptions {
        open_folders_max: 3,
        ..WalkOptions::default()
    };
    let all = entries(start_with(folder.path(), SelectOptions::default(), options));
    for walked in all
        .iter()
        .filter(|walked| walked.entry.kind == EntryType::File)
    {
        assert_eq!(content(walked), walked.entry.key);
        assert!(walked.common.handles.open_count() <= 3);
    }
}

#[test]
fn a_large_folder_is_sorted_outside_memory() {
    let folder = folder_in_memory();
    for n in 0..4_000_u32 {
        let name = format!("{:08x} and some more bytes", n.wrapping_mul(2_654_435_761));
        fs::write(folder.path().join(name), "").unwrap();
    }
    let walk = |listing_memory_bytes| {
        let options = WalkOptions {
            listing_memory_bytes,
            ..WalkOptions::default()
        };
        keys(&entries(start_with(
            folder.path(),
            SelectOptions::default(),
            options,
        )))
    };
    let in_memory = walk(usize::MAX);
    assert_eq!(in_memory.len(), 4_001);
    assert!(in_memory.is_sorted());
    assert_eq!(walk(0), in_memory);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn the_order_is_that_of_sorted_keys(
        paths in prop::collection::btree_set("[ab.0/\u{e4}-]{1,12}", 0..25),
    ) {
        let folder = folder_in_memory();
        let mut expected = BTreeSet::from([Vec::new()]);
        for path in &paths {
            let parts: Vec<&str> =
                path.split('/').filter(|part| !part.is_empty() && *part != "." && *part != "..").collect();
            let Some((name, above)) = parts.split_last() else { continue };
            let parent = folder.path().join(above.join("/"));
            // A path through what is a file already, or over a folder, is left out.
            if fs::create_dir_all(&parent).is_err() {
                continue;
            }
            let _ = fs::File::create_new(parent.join(name));
        }
        recurse(folder.path(), &mut Vec::new(), &mut expected);
        let all = keys(&entries(start(folder.path())));
        prop_assert_eq!(all, expected.into_iter().collect::<Vec<_>>());
    }
}

fn recurse(folder: &Path, key: &mut Vec<u8>, all: &mut BTreeSet<Vec<u8>>) {
    for found in fs::read_dir(folder).unwrap() {
        let found = found.unwrap();
        let length = key.len();
        key.extend(found.file_name().into_vec());
        if found.file_type().unwrap().is_dir() {
            key.push(b'/');
            recurse(&found.path(), key, all);
        }
        all.insert(key.clone());
        key.truncate(length);
    }
}

#[test]
fn what_vanishes_is_no_issue_and_what_is_replaced_is() {
    let folder = tree(&[("a", ""), ("b", ""), ("c/x", ""), ("d", ""), ("e/x", "")]);
    let mut walk = start(folder.path());
    let mut all = vec![walk.next().unwrap()];
    fs::remove_file(folder.path().join("b")).unwrap();
    fs::remove_dir_all(folder.path().join("c")).unwrap();
    fs::write(folder.path().join("c"), "").unwrap();
    fs::remove_file(folder.path().join("d")).unwrap();
    fs::create_dir(folder.path().join("d")).unwrap();
    fs::remove_dir_all(folder.path().join("e")).unwrap();
    all.extend(walk);
    let (all, issues) = collect(all.into_iter());
    assert_eq!(text_keys(&all), ["", "a"]);
    let paths: Vec<&Path> = issues.iter().map(|issue| issue.path.as_path()).collect();
    assert_eq!(paths, [folder.path().join("c/"), folder.path().join("d")]);
}

#[test]
fn what_may_not_be_read_is_kept_and_reported() {
    let folder = tree(&[("closed/x", ""), ("file", "secret"), ("open", "")]);
    let closed = fs::Permissions::from_mode(0o0);
    for name in ["closed", "file"] {
        fs::set_permissions(folder.path().join(name), closed.clone()).unwrap();
    }
    let (all, issues) = collect(start(folder.path()));
    if is_root() {
        assert_eq!(text_keys(&all), ["", "closed/", "closed/x", "file", "open"]);
        assert_eq!(content(find(&all, "file")), b"secret");
    } else {
        assert_eq!(text_keys(&all), ["", "closed/", "file", "open"]);
        assert!(find(&all, "closed/").entry.flags.unreadable);
        assert_eq!(issues.len(), 1);
        let error = FileReader::open(find(&all, "file")).unwrap_err();
        assert!(
            !error.is_vanished() && error.to_string().starts_with("cannot open "),
            "{error}"
        );
    }
    fs::set_permissions(
        folder.path().join("closed"),
        fs::Permissions::from_mode(0o700),
    )
    .unwrap();
}
