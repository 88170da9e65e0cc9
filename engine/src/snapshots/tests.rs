#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Zoned;
use larder_format::cell::Source;
use larder_format::ids::{ChunkId, SessionId};
use larder_format::session::{Amendment, Change};
use proptest::prelude::*;

use super::fixture::{cell, commit, init, open};
use super::*;
use crate::random;
use crate::storage::Storage;
use crate::storage::object::ObjectStorage;

fn now() -> Zoned {
    // A Wednesday; two weeks after summer time ended.
    "2026-11-11T12:00:00+01:00[Europe/Berlin]".parse().unwrap()
}

fn parse(text: &str) -> Result<Spec> {
    Spec::parse(OsStr::new(text), &now())
}

#[test]
fn every_way_to_name_a_snapshot_is_parsed() {
    let at = |text: &str| Which::At(text.parse().unwrap());
    let id = "0123456789abcdef0123456789abcdef";
    for (text, which, path) in [
        ("latest", Which::Latest(0), None),
        ("latest~0", Which::Latest(0), None),
        ("latest~12", Which::Latest(12), None),
        ("latest:/home", Which::Latest(0), Some("/home")),
        ("latest~1:/a:b", Which::Latest(1), Some("/a:b")),
        ("a", Which::Prefix("a".into()), None),
        ("0A1b", Which::Prefix("0a1b".into()), None),
        (id, Which::Prefix(id.into()), None),
        (
            "0a1b:relative",
            Which::Prefix("0a1b".into()),
            Some("relative"),
        ),
        // The end of that day, in summer and in winter time.
        ("@[2026-10-01]", at("2026-10-01T21:59:59.999999999Z"), None),
        ("@[2026-11-01]", at("2026-11-01T22:59:59.999999999Z"), None),
        // The day on which the clocks went back.
        ("@[2026-10-25]", at("2026-10-25T22:59:59.999999999Z"), None),
        ("@[today]", at("2026-11-11T22:59:59.999999999Z"), None),
        ("@[Yesterday]", at("2026-11-10T22:59:59.999999999Z"), None),
        ("@[now]", at("2026-11-11T11:00:00Z"), None),
        ("@[2026-11-01 03:00]", at("2026-11-01T02:00:00Z"), None),
        ("@[2026-11-01T03:00:07]", at("2026-11-01T02:00:07Z"), None),
        (
            "@[2026-11-01 03:00]:/home",
            at("2026-11-01T02:00:00Z"),
            Some("/home"),
        ),
        ("@[2026-11-01T03:00:00Z]", at("2026-11-01T03:00:00Z"), None),
        (
            "@[2026-11-01T03:00:00-05:00]:x",
            at("2026-11-01T08:00:00Z"),
            Some("x"),
        ),
        (
            "@[2026-11-01T03:00[America/New_York]]:/[a]:b",
            at("2026-11-01T08:00:00Z"),
            Some("/[a]:b"),
        ),
        ("@[2 days ago]", at("2026-11-09T11:00:00Z"), None),
        // That is a Wednesday: last Wednesday is a week ago.
        (
            "@[last tuesday]:x",
            at("2026-11-10T22:59:59.999999999Z"),
            Some("x"),
        ),
        ("@[Wednesday]", at("2026-11-04T22:59:59.999999999Z"), None),
        (
            "@[last  thursday]",
            at("2026-11-05T22:59:59.999999999Z"),
            None,
        ),
        // By the calendar: noon, although an hour more has passed.
        ("@[3 weeks ago]", at("2026-10-21T10:00:00Z"), None),
        ("@[1 week ago]", at("2026-11-04T11:00:00Z"), None),
        ("@[3h ago]:/a]b", at("2026-11-11T08:00:00Z"), Some("/a]b")),
        ("@[ 90 minutes ago ]", at("2026-11-11T09:30:00Z"), None),
    ] {
        let spec = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(spec.which, which, "{text}");
        assert_eq!(spec.path.as_deref(), path.map(str::as_bytes), "{text}");
    }
    let raw = Spec::parse(OsStr::from_bytes(b"latest:/\xff\n"), &now()).unwrap();
    assert_eq!(raw.path.unwrap(), b"/\xff\n");
}

#[test]
fn what_names_no_snapshot_is_refused_with_an_example() {
    let long = "0".repeat(33);
    for text in [
        "",
        ":",
        ":/home",
        "latest:",
        "Latest",
        "latest~",
        "latest~x",
        "latest~-1",
        "latest~+1",
        "latest~99999999999999999999999",
        "xyz",
        &long,
        "@",
        "@[",
        "@[]",
        "@[2026-11-01",
        "@[]:/",
        "@2026-11-01",
        "@[2026-13-01]",
        "@[2026-02-30]",
        "@[soon]",
        "@[ago]",
        "@[2 days]",
        "@[2026-11-01]x",
        "@[2026-11-01]:",
        "@[99999999 years ago]",
        "@[-2 days ago]",
    ] {
        match parse(text) {
            Err(EngineError::Request(message)) => {
                assert!(message.contains("use "), "{text}: {message}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}

proptest! {
    #[test]
    fn parsing_never_panics_and_keeps_paths(head in any::<Vec<u8>>(), path in "[ -~]{1,20}") {
        let _ = Spec::parse(OsStr::from_bytes(&head), &now());
        let text = format!("latest~3:{path}");
        let spec = parse(&text).unwrap();
        prop_assert_eq!(spec.path.unwrap(), path.as_bytes());
        let _ = parse(&format!("@[{path}]"));
    }
}

struct Repo {
    storage: Arc<dyn Storage>,
    repository: Arc<Repository>,
}

fn repo(cells: &[Cell]) -> Repo {
    let storage: Arc<dyn Storage> = Arc::new(ObjectStorage::memory());
    init(storage.as_ref());
    let repository = open(&storage);
    for cell in cells {
        commit(&repository, cell);
    }
    Repo {
        storage,
        repository,
    }
}

fn amend(repo: &Repo, id: SessionId, number: u64, change: Change) {
    let amendment = Amendment {
        cell: id,
        number,
        change,
        time: 0,
        host: "desk".to_owned(),
        user: "me".to_owned(),
    };
    let object = larder_format::record::seal_record(
        repo.repository.keyring(),
        &amendment,
        random::bytes().unwrap(),
        &random::bytes().unwrap(),
    );
    let name = names::amendment(&id, number);
    repo.storage
        .create(&name, Bytes::from(object.unwrap()))
        .unwrap();
}

fn source(path: &str, bytes: u64) -> Source {
    Source {
        path: path.into(),
        root: ChunkId([1; 32]),
        level: 0,
        entries: 1,
        bytes,
    }
}

fn ids(repo: &Repo, filter: &Filter) -> Vec<String> {
    let found = list(&repo.repository, filter, false).unwrap();
    found
        .into_iter()
        .map(|one| one.id[..2].to_owned())
        .collect()
}

#[test]
fn snapshots_are_listed_by_time_and_narrowed() {
    let cells = [
        Cell {
            tags: vec!["a".into(), "b".into()],
            ..cell(0x11, 300)
        },
        Cell {
            host: "lap".into(),
            tags: vec!["a".into()],
            ..cell(0x22, 100)
        },
        Cell {
            sources: vec![source("/etc/", 3), source("/home", 4)],
            ..cell(0x33, 200)
        },
        Cell {
            kind: CellKind::Partial,
            ..cell(0x44, 400)
        },
        Cell {
            kind: CellKind::Revoked,
            ..cell(0x55, 500)
        },
        cell(0x66, 600),
    ];
    let repo = repo(&cells);
    amend(&repo, cells[5].id, 1, Change::Forget);
    amend(&repo, cells[2].id, 1, Change::SetTags(vec!["new".into()]));
    assert_eq!(ids(&repo, &Filter::default()), ["22", "33", "11"]);
    let filter = |hosts: &[&str], tags: &[&str], paths: &[&str]| {
        let owned = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect();
        Filter {
            hosts: owned(hosts),
            tags: owned(tags),
            paths: owned(paths),
        }
    };
    assert_eq!(ids(&repo, &filter(&["lap", "desk"], &[], &[])).len(), 3);
    assert_eq!(ids(&repo, &filter(&["lap"], &[], &[])), ["22"]);
    assert_eq!(ids(&repo, &filter(&[], &["a"], &[])), ["22", "11"]);
    assert_eq!(ids(&repo, &filter(&[], &["a, b"], &[])), ["11"]);
    assert_eq!(ids(&repo, &filter(&[], &["a,b", "new"], &[])), ["33", "11"]);
    assert_eq!(ids(&repo, &filter(&["lap"], &["a,b"], &[])), [""; 0]);
    assert_eq!(ids(&repo, &filter(&[], &[], &["/home/", "/etc"])), ["33"]);
    assert_eq!(ids(&repo, &filter(&[], &[], &["/home", "/usr"])), [""; 0]);
    let all = list(&repo.repository, &Filter::default(), true).unwrap();
    assert_eq!(all.len(), 4);
    assert!(all[3].partial && !all[0].partial);
    assert_eq!(all[1].statistics.bytes, 7);
    assert_eq!(all[1].tags, ["new"]);
    assert_eq!(all[1].id, "33".repeat(16));
    let json = serde_json::to_value(&all[1]).unwrap();
    assert_eq!(json["time"], "1970-01-01T00:03:20Z");
    assert!(!json.to_string().contains(&cells[2].id.to_hex()));
}

#[test]
fn the_snapshot_that_is_meant_is_found() {
    let mut near = cell(0x11, 200);
    near.id = SessionId::new(0, [[0x11; 8], [0x12; 8]].concat().try_into().unwrap());
    let cells = [
        cell(0x11, 100),
        near,
        Cell {
            host: "lap".into(),
            ..cell(0x33, 300)
        },
        Cell {
            kind: CellKind::Partial,
            ..cell(0x44, 400)
        },
    ];
    let repo = repo(&cells);
    let find = |which: Which, filter: &Filter| {
        resolve(&repo.repository, &which, filter).map(|found| found.session)
    };
    let all = Filter::default();
    let at = |seconds| Which::At(Timestamp::from_second(seconds).unwrap());
    assert_eq!(find(Which::Latest(0), &all).unwrap(), cells[2].id);
    assert_eq!(find(Which::Latest(2), &all).unwrap(), cells[0].id);
    assert_eq!(find(at(299), &all).unwrap(), cells[1].id);
    assert_eq!(find(at(300), &all).unwrap(), cells[2].id);
    assert_eq!(find(at(1000), &all).unwrap(), cells[2].id);
    let desk = Filter {
        hosts: vec!["desk".into()],
        ..Filter::default()
    };
    assert_eq!(find(Which::Latest(0), &desk).unwrap(), cells[1].id);
    assert_eq!(find(at(1000), &desk).unwrap(), cells[1].id);
    let prefix = |text: &str| Which::Prefix(text.to_owned());
    assert_eq!(find(prefix("33"), &all).unwrap(), cells[2].id);
    assert_eq!(find(prefix("4"), &all).unwrap(), cells[3].id);
    assert_eq!(
        find(prefix("111111111111111112"), &all).unwrap(),
        cells[1].id
    );
    match find(prefix("11"), &all).unwrap_err() {
        EngineError::Request(message) => {
            assert!(message.contains(&"11".repeat(16)), "{message}");
            assert!(message.contains(&cells[1].id.snapshot_name()), "{message}");
        }
        other => panic!("{other}"),
    }
    for missing in [Which::Latest(3), at(99), prefix("99")] {
        let error = find(missing, &all).unwrap_err();
        assert!(matches!(error, EngineError::NotFound(_)), "{error}");
    }
    let error = find(prefix("33"), &desk).unwrap_err();
    assert!(matches!(error, EngineError::NotFound(_)), "{error}");
}

#[test]
fn a_damaged_snapshot_does_not_hide_the_others() {
    let cells = [cell(0x11, 100), cell(0x22, 200)];
    let repo = repo(&cells);
    let name = names::cell(&cells[1].id);
    let mut object = repo.storage.get(&name, 1 << 20).unwrap().to_vec();
    object[100] ^= 1;
    repo.storage.put(&name, Bytes::from(object)).unwrap();
    assert_eq!(ids(&repo, &Filter::default()), ["11"]);
    let all = Filter::default();
    let latest = resolve(&repo.repository, &Which::Latest(0), &all).unwrap();
    assert_eq!(latest.session, cells[0].id);
    assert_eq!(unusable(&repo.repository).unwrap()[0].object, name);
    let error = resolve(&repo.repository, &Which::Prefix("22".into()), &all).unwrap_err();
    assert!(matches!(error, EngineError::Damaged { .. }), "{error}");
}

#[test]
fn paths_are_cleaned() {
    for (path, clean) in [
        ("/", "/"),
        ("//", "/"),
        ("", ""),
        ("/a/", "/a"),
        ("//a/./b//", "/a/b"),
        ("a/b", "a/b"),
        ("/.a/..b", "/.a/..b"),
    ] {
        assert_eq!(clean_path(path.as_bytes()), clean.as_bytes(), "{path}");
    }
}
