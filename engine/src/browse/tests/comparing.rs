use std::collections::BTreeSet;

use larder_format::entry::{EntryType, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::snapshots::fixture::cell;

fn letters(
    nodes: &mut Nodes,
    a: (&Cell, Option<&str>),
    b: (&Cell, Option<&str>),
) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut each = |difference| {
        let (letter, item) = match difference {
            Difference::Added(item) => ('+', item),
            Difference::Removed(item) => ('-', item),
            Difference::Changed {
                new, content: true, ..
            } => ('M', new),
            Difference::Changed { new, .. } => ('U', new),
        };
        found.push(format!(
            "{letter} {}",
            String::from_utf8(item.path).unwrap()
        ));
        Ok(())
    };
    let a = (a.0, a.1.map(str::as_bytes));
    let b = (b.0, b.1.map(str::as_bytes));
    diff::diff_cells(nodes, a, b, &mut each)?;
    Ok(found)
}

#[test]
fn sources_are_paired_by_path_and_changes_told_apart() {
    let mut nodes = Nodes::default();
    let (mut a, mut b) = (cell(1, 1), cell(2, 2));
    let later = Entry {
        inode: 7,
        ctime: Timestamp {
            seconds: 9,
            nanoseconds: 0,
        },
        ..entry("seen")
    };
    let mode = Entry {
        mode: 0o600,
        ..entry("mode")
    };
    let link = Entry {
        kind: EntryType::Symlink,
        link_target: b"elsewhere".to_vec(),
        ..entry("type")
    };
    a.sources = vec![
        nodes.source(
            "/s",
            &["", "gone", "mode", "seen", "size", "type"].map(entry),
        ),
        nodes.source("/old", &["", "x"].map(entry)),
        nodes.source("/same", &["", "x"].map(entry)),
    ];
    b.sources = vec![
        nodes.source(
            "/s",
            &[
                entry(""),
                mode,
                later,
                with_size("size", 3),
                link,
                entry("come"),
            ],
        ),
        nodes.source("/new", &["", "x"].map(entry)),
        nodes.source("/same/", &["", "x"].map(entry)),
    ];
    assert_eq!(
        letters(&mut nodes, (&a, None), (&b, None)).unwrap(),
        [
            "+ /new",
            "+ /new/x",
            "- /old",
            "- /old/x",
            "+ /s/come",
            "- /s/gone",
            "U /s/mode",
            "M /s/size",
            "M /s/type",
        ]
    );
    // Moved sources compare by what is in them, if they are named.
    assert_eq!(
        letters(&mut nodes, (&a, Some("/old")), (&b, Some("/new"))).unwrap(),
        [""; 0]
    );
    assert_eq!(
        letters(&mut nodes, (&a, Some("/s/gone")), (&b, Some("/s/gone"))).unwrap(),
        ["- /s/gone"]
    );
    assert_eq!(
        letters(&mut nodes, (&a, Some("/s/size")), (&b, Some("/s/size"))).unwrap(),
        ["M /s/size"]
    );
    assert_eq!(
        letters(&mut nodes, (&a, Some("/")), (&b, Some("/")))
            .unwrap()
            .len(),
        9
    );
    let error = letters(&mut nodes, (&a, Some("/none")), (&b, Some("/none"))).unwrap_err();
    assert!(matches!(error, EngineError::NotFound(_)), "{error}");
    // One side's folder is a source, the other's holds sources.
    b.sources = vec![nodes.source("/w/s", &["", "mode", "size"].map(entry))];
    a.sources = vec![nodes.source("/w", &["", "s/", "s/gone", "s/mode", "s/size"].map(entry))];
    assert_eq!(
        letters(&mut nodes, (&a, Some("/w")), (&b, Some("/w"))).unwrap(),
        ["- /w", "- /w/s/gone"]
    );
    assert_eq!(
        letters(&mut nodes, (&a, Some("/w/s")), (&b, Some("/w/s"))).unwrap(),
        ["- /w/s/gone"]
    );
}

#[test]
fn a_difference_costs_what_differs() {
    let mut nodes = Nodes::default();
    let key = |number: u32| format!("{:02}/{:03}", number / 1000, number % 1000);
    let mut entries = vec![entry("")];
    for number in 0..20_000 {
        if number % 1000 == 0 {
            entries.push(entry(&format!("{:02}/", number / 1000)));
        }
        entries.push(entry(&key(number)));
    }
    let (mut a, mut b) = (cell(1, 1), cell(2, 2));
    a.sources = vec![nodes.source("/s", &entries)];
    let changes = [17, 5_500, 5_600, 12_345, 19_999];
    for number in changes {
        let key = key(number).into_bytes();
        entries
            .iter_mut()
            .find(|entry| entry.key == key)
            .unwrap()
            .size = 5;
    }
    b.sources = vec![nodes.source("/s", &entries)];
    let height = usize::from(a.sources[0].level) + 1;
    assert!(height >= 3 && nodes.source("/s", &entries) == b.sources[0]);
    nodes.reads = 0;
    assert_eq!(
        letters(&mut nodes, (&a, None), (&b, None)).unwrap().len(),
        5
    );
    // Two trees, a path of each for each change, and a look at each root.
    assert!(
        nodes.reads <= 2 * (changes.len() + 1) * height,
        "{}",
        nodes.reads
    );
    nodes.reads = 0;
    let part = letters(&mut nodes, (&a, Some("/s/05")), (&b, Some("/s/05"))).unwrap();
    assert_eq!(part, ["M /s/05/500", "M /s/05/600"]);
    // Besides, the way to the folder and the first change behind it.
    assert!(nodes.reads <= 2 * (2 + 4) * height, "{}", nodes.reads);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The differences are those of the maps, for the whole and for each part, whether the part
    /// is found under the same key, another key, or above the sources.
    #[test]
    fn differences_are_those_of_the_maps(one in trees(), two in trees()) {
        let mut nodes = Nodes::default();
        let (mut a, mut b, mut inner) = (cell(1, 1), cell(2, 2), cell(3, 3));
        a.sources = vec![nodes.source("/s", &entries(&one))];
        b.sources = vec![nodes.source("/s", &entries(&two))];
        let below: Vec<_> = two
            .iter()
            .map(|(key, size)| with_size(&format!("s/{key}"), *size))
            .chain([entry("")])
            .collect();
        inner.sources = vec![nodes.source("/", &below)];
        let is_directory = |key: &&String| key.is_empty() || key.ends_with('/');
        let parts = one.keys().chain(two.keys()).filter(is_directory);
        // A file against a folder is one path of another type, if it is asked for.
        let is_file = |part: &str| {
            let file = part.trim_end_matches('/');
            !part.is_empty() && (one.contains_key(file) || two.contains_key(file))
        };
        let parts = parts.filter(|part| !is_file(part));
        for part in parts {
            let mut expected = Vec::new();
            let both: BTreeSet<_> = one.keys().chain(two.keys()).collect();
            for key in both.into_iter().filter(|key| key.starts_with(part.as_str())) {
                let path = format!("/s/{key}");
                let path = path.trim_end_matches('/');
                match (one.get(key), two.get(key)) {
                    (Some(_), None) => expected.push(format!("- {path}")),
                    (None, Some(_)) => expected.push(format!("+ {path}")),
                    (one, two) if one != two => expected.push(format!("M {path}")),
                    _ => {}
                }
            }
            let path = format!("/s/{part}");
            for other in [&b, &inner] {
                let found = letters(&mut nodes, (&a, Some(&path)), (other, Some(&path))).unwrap();
                prop_assert_eq!(&found, &expected, "{}", path);
            }
            if part.is_empty() {
                let found = letters(&mut nodes, (&a, None), (&b, None)).unwrap();
                prop_assert_eq!(&found, &expected);
            }
        }
    }
}
