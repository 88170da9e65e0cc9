use std::fs;

use larder_format::entry::EntryType;
use proptest::prelude::*;

use super::*;
use crate::browse::list::list_cell;
use crate::inspect;
use crate::snapshots::fixture::cell;
use crate::storage::error::Operation;

#[test]
fn folders_are_listed_inside_sources_and_above_them() {
    let setting = setting();
    for path in [
        "home/a/one",
        "home/a/two/three",
        "home/b/x",
        "home/deep/er/c/y",
        "home/b!",
    ] {
        setting.write(path, b"text");
    }
    let snapshot = setting.back_up(&["home/a", "home/b", "home/b!", "home/deep/er/c"]);
    let list = |path, recursive| setting.list(&snapshot, path, recursive);
    assert_eq!(
        list(None, false),
        ["home/a", "home/b!", "home/b", "home/deep/er/c"]
    );
    assert_eq!(list(Some("home/a"), false), ["home/a/one", "home/a/two"]);
    assert_eq!(list(Some("home/a/two"), false), ["home/a/two/three"]);
    assert_eq!(list(Some("home/a/two/three"), false), ["home/a/two/three"]);
    assert_eq!(list(Some("home/b!"), true), ["home/b!"]);
    assert_eq!(
        list(Some("home/./a//"), false),
        ["home/a/one", "home/a/two"]
    );
    assert_eq!(
        list(Some("home"), false),
        ["home/a", "home/b!", "home/b", "home/deep"]
    );
    assert_eq!(list(Some("home/deep"), false), ["home/deep/er"]);
    assert_eq!(list(Some(""), false), ["home"]);
    assert_eq!(
        list(Some("home"), true),
        [
            "home/a",
            "home/a/one",
            "home/a/two",
            "home/a/two/three",
            "home/b!",
            "home/b",
            "home/b/x",
            "home/deep",
            "home/deep/er",
            "home/deep/er/c",
            "home/deep/er/c/y",
        ]
    );
    assert_eq!(
        list(Some("home/a"), true),
        ["home/a/one", "home/a/two", "home/a/two/three"]
    );
    assert_eq!(list(None, true).len(), 9);
    let say = |path: &str| {
        let path = setting.raw(path);
        let outcome = super::list(
            &setting.repository,
            &snapshot,
            Some(&path),
            false,
            &mut |_| Ok(()),
        );
        match outcome.unwrap_err() {
            EngineError::NotFound(message) => message,
            other => panic!("{other}"),
        }
    };
    let parent = String::from_utf8(setting.raw("home/a")).unwrap();
    assert!(say("home/a/none/at/all").contains(&format!("{parent} is there")));
    assert!(say("home/a/one/below").contains(&format!("{parent}/one is there")));
    assert!(say("home/aa").contains("home is there"));
    assert!(say("/elsewhere").contains("as it was backed up"));
}

#[test]
fn a_source_that_is_the_root_has_paths_without_double_slashes() {
    let mut nodes = Nodes::default();
    let mut cell = cell(1, 1);
    cell.sources = vec![nodes.source("/", &["", "etc/", "etc/a", "x"].map(entry))];
    let mut found = |path: Option<&str>, recursive| {
        let mut found = Vec::new();
        let mut each = |item: Item| {
            found.push(String::from_utf8(item.path).unwrap());
            Ok(())
        };
        list_cell(
            &mut nodes,
            &cell,
            path.map(str::as_bytes),
            recursive,
            &mut each,
        )
        .unwrap();
        found
    };
    assert_eq!(found(None, false), ["/"]);
    assert_eq!(found(Some("/"), false), ["/etc", "/x"]);
    assert_eq!(found(Some("/etc"), false), ["/etc/a"]);
    assert_eq!(found(Some("/"), true), ["/etc", "/etc/a", "/x"]);
}

#[test]
fn a_folder_that_only_its_contents_tell_of_is_listed() {
    let mut nodes = Nodes::default();
    let mut cell = cell(1, 1);
    cell.sources = vec![nodes.source("/s", &["", "a/b/c", "z"].map(entry))];
    let mut found = |path: &str| {
        let mut found = Vec::new();
        let mut each = |item: Item| {
            found.push((String::from_utf8(item.path).unwrap(), item.entry.kind));
            Ok(())
        };
        list_cell(&mut nodes, &cell, Some(path.as_bytes()), false, &mut each).unwrap();
        found
    };
    let folder = |path: &str| (path.to_owned(), EntryType::Directory);
    let file = |path: &str| (path.to_owned(), EntryType::File);
    assert_eq!(found("/s"), [folder("/s/a"), file("/s/z")]);
    assert_eq!(found("/s/a"), [folder("/s/a/b")]);
    assert_eq!(found("/s/a/b"), [file("/s/a/b/c")]);
}

#[test]
fn listing_a_folder_reads_few_nodes() {
    let mut nodes = Nodes::default();
    let mut entries = vec![entry("")];
    for folder in 0..50 {
        entries.push(entry(&format!("{folder:02}/")));
        entries.extend((0..200).map(|file| entry(&format!("{folder:02}/{file:03}"))));
    }
    entries.push(entry("zz/"));
    entries.push(entry("zz/last"));
    let mut cell = cell(1, 1);
    cell.sources = vec![nodes.source("/s", &entries)];
    let height = usize::from(cell.sources[0].level) + 1;
    let reads = |path: &str, nodes: &mut Nodes| {
        nodes.reads = 0;
        let mut count = 0;
        let mut each = |_| {
            count += 1;
            Ok(())
        };
        list_cell(nodes, &cell, Some(path.as_bytes()), false, &mut each).unwrap();
        (count, nodes.reads)
    };
    let (count, read) = reads("/s/zz", &mut nodes);
    assert!(count == 1 && read <= 3 * height, "{read}");
    // 51 folders of 200 files: each is found at one path's cost, its files are not read.
    let (count, read) = reads("/s", &mut nodes);
    assert!(count == 51 && read <= 3 * height + 51 * 2, "{read}");
}

#[test]
fn paths_are_found_by_pattern_and_time_newest_snapshot_first() {
    let setting = setting();
    setting.write("s/Notes.TXT", b"1");
    setting.write("s/sub/notes.txt", b"2");
    setting.write("s/#odd", b"3");
    let touch = |path: &str, seconds: i64| {
        let times = fs::FileTimes::new();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds as u64);
        let file = fs::File::open(setting.folder.path().join(path)).unwrap();
        file.set_times(times.set_modified(time)).unwrap();
    };
    touch("s/Notes.TXT", 1_000);
    touch("s/sub/notes.txt", 2_000);
    let first = setting.back_up(&["s"]);
    setting.write("s/sub/more.txt", b"4");
    let second = setting.back_up(&["s"]);
    let find_in = |options: FindOptions| {
        let mut found = Vec::new();
        let mut each = |snapshot: &SnapshotInfo, item: Item| {
            let number = if snapshot.id == first.id { 1 } else { 2 };
            assert!(number == 1 || snapshot.id == second.id);
            found.push((number, setting.short(&item.path)));
            Ok(())
        };
        find(&setting.repository, &options, &mut each).unwrap();
        found
    };
    let patterns = |patterns: &[&str]| FindOptions {
        patterns: patterns.iter().map(|one| (*one).to_owned()).collect(),
        ..FindOptions::default()
    };
    let found = |list: &[(i32, &str)]| -> Vec<(i32, String)> {
        list.iter()
            .map(|(number, path)| (*number, (*path).to_owned()))
            .collect()
    };
    assert_eq!(
        find_in(patterns(&["*.txt"])),
        found(&[
            (2, "s/sub/more.txt"),
            (2, "s/sub/notes.txt"),
            (1, "s/sub/notes.txt")
        ])
    );
    let whole = String::from_utf8(setting.raw("s/*/more.txt")).unwrap();
    assert_eq!(
        find_in(patterns(&[&whole])),
        found(&[(2, "s/sub/more.txt")])
    );
    assert_eq!(find_in(patterns(&["sub/more.txt"])), []);
    assert_eq!(
        find_in(patterns(&["sub/"])),
        found(&[(2, "s/sub"), (1, "s/sub")])
    );
    assert_eq!(find_in(patterns(&["#odd"])).len(), 2);
    assert_eq!(find_in(patterns(&["*.txt", "!more.*"])).len(), 2);
    let ignore_case = FindOptions {
        ignore_case: true,
        ..patterns(&["notes.*"])
    };
    assert_eq!(find_in(ignore_case).len(), 4);
    let time = |seconds| Some(jiff::Timestamp::from_second(seconds).unwrap());
    let newer = FindOptions {
        newer: time(2_000),
        older: time(3_000),
        ..patterns(&["*"])
    };
    assert_eq!(
        find_in(newer),
        found(&[(2, "s/sub/notes.txt"), (1, "s/sub/notes.txt")])
    );
    let older = FindOptions {
        older: time(2_000),
        ..patterns(&["*"])
    };
    assert_eq!(
        find_in(older),
        found(&[(2, "s/Notes.TXT"), (1, "s/Notes.TXT")])
    );
    for bad in ["", "a["] {
        let outcome = find(&setting.repository, &patterns(&[bad]), &mut |_, _| Ok(()));
        let error = outcome.unwrap_err();
        assert!(matches!(error, EngineError::Request(_)), "{bad}: {error}");
    }
}

proptest! {
    #[test]
    fn listings_are_those_of_the_map(tree in trees()) {
        let mut nodes = Nodes::default();
        let mut cell = cell(1, 1);
        cell.sources = vec![nodes.source("/s", &entries(&tree))];
        for part in tree.keys().filter(|key| key.is_empty() || key.ends_with('/')) {
            for recursive in [false, true] {
                let expected: Vec<_> = tree
                    .keys()
                    .filter_map(|key| Some((key, key.strip_prefix(part.as_str())?)))
                    .filter(|(_, rest)| !rest.is_empty())
                    .filter(|(_, rest)| recursive || !rest.trim_end_matches('/').contains('/'))
                    .map(|(key, _)| format!("/s/{}", key.trim_end_matches('/')))
                    .collect();
                let mut found = Vec::new();
                let mut each = |item: Item| {
                    found.push(String::from_utf8(item.path).unwrap());
                    Ok(())
                };
                let path = format!("/s/{part}");
                list_cell(&mut nodes, &cell, Some(path.as_bytes()), recursive, &mut each).unwrap();
                prop_assert_eq!(found, expected);
            }
        }
    }
}

#[test]
fn browsing_reads_trees_alone_and_each_block_once() {
    let setting = setting();
    for number in 0..300 {
        setting.write(&format!("s/{number:03}"), &noise(2_000 + number));
    }
    let first = setting.back_up(&["s"]);
    setting.write("s/new", b"new");
    let second = setting.back_up(&["s"]);
    let storage: Arc<dyn Storage> = setting.counting.clone();
    let fresh = open(&storage);
    let _ = setting.counting.take();
    let mut count = 0;
    let mut each = |_| {
        count += 1;
        Ok(())
    };
    diff(&fresh, (&first, None), (&second, None), &mut each).unwrap();
    list(&fresh, &second, None, true, &mut |_| Ok(())).unwrap();
    let counts = setting.counting.take();
    let read = counts.of_folder(Operation::GetRange, "packs");
    assert!(count == 2 && read.operations <= 6, "{count} {read:?}");
    assert!(read.read_bytes < 200_000, "{read:?}");
}

#[test]
fn objects_are_shown_without_secrets() {
    let setting = setting();
    setting.write("s/file", b"content");
    let snapshot = setting.back_up(&["s"]);
    let config = inspect::config_json(&setting.repository);
    assert_eq!(config["number"], 1);
    assert_eq!(
        config["slots"][0],
        setting.repository.current_slot().to_hex()
    );
    let shown = inspect::snapshot_json(&setting.repository, &snapshot).unwrap();
    assert_eq!(shown["sources"][0]["entries"], 2);
    assert_eq!(shown["id"], snapshot.id);
    let mut packs = Vec::new();
    let mut visit = |object: crate::storage::ObjectInfo| {
        packs.push(object.name);
        Ok(())
    };
    setting
        .repository
        .storage()
        .list("packs", &mut visit)
        .unwrap();
    let kinds: Vec<_> = packs
        .iter()
        .map(|name| {
            let id = name.rsplit('/').next().unwrap();
            let whole = inspect::pack_json(&setting.repository, id).unwrap();
            assert_eq!(
                inspect::pack_json(&setting.repository, &id[..40]).unwrap(),
                whole
            );
            assert!(!whole["blocks"][0]["chunks"].as_array().unwrap().is_empty());
            whole["kind"].as_str().unwrap().to_owned()
        })
        .collect();
    assert!(kinds.contains(&"data".to_owned()) && kinds.contains(&"tree".to_owned()));
    for (id, not_found) in [("00ff00ff", true), ("x", false), ("", false)] {
        let error = inspect::pack_json(&setting.repository, id).unwrap_err();
        assert_eq!(
            matches!(error, EngineError::NotFound(_)),
            not_found,
            "{error}"
        );
    }
}
