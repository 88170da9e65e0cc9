//! Golden repositories: each format version's, read by the program of today and compared with
//! what an independent walk of its sources wrote down.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use larder_engine::browse::{self, Item};
use larder_engine::chunks::ChunkReader;
use larder_engine::repository::{Cache, OpenOptions, Repository, Secret};
use larder_engine::snapshots::{self, Filter, SnapshotInfo};
use larder_engine::view;
use larder_format::attributes;
use larder_format::entry::{Attributes, Content, Entry, EntryType, Extent};
use larder_format::ids::{ChunkType, encode_hex};
use larder_format::list::{ListRoot, extents};
use larder_format::object::object_id;
use serde_json::{Map, Value, json};

use crate::source_text::root;

/// The format versions that there have been: each has a golden repository, which is never made
/// anew.
const VERSIONS: &[&str] = &["v1"];

#[test]
fn every_format_version_has_its_golden_repository() {
    let found = fs::read_dir(folder()).unwrap();
    let found: BTreeSet<String> = found
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let wanted = VERSIONS
        .iter()
        .flat_map(|version| [(*version).to_owned(), format!("{version}.expected.json")]);
    assert_eq!(found, wanted.collect());
}

#[test]
fn every_secret_opens_it() {
    for version in VERSIONS {
        let expected = expected(version);
        for secret in secrets(&expected) {
            let repository = open(version, &secret);
            let listed = snapshots::list(&repository, &Filter::default(), false).unwrap();
            assert!(!listed.is_empty());
        }
        let wrong = Secret::Passphrase(b"not it".to_vec().into());
        let opened = Repository::open(&location(version), &wrong, &options());
        assert!(opened.is_err());
    }
}

#[test]
fn snapshots_hold_what_their_sources_held() {
    for version in VERSIONS {
        let expected = expected(version);
        let [secret, ..] = secrets(&expected);
        let repository = open(version, &secret);
        let view = view::read_cells(&repository, None).unwrap();
        assert_eq!(view.unusable, []);
        let mut listed = snapshots::list(&repository, &Filter::default(), true).unwrap();
        let superseded = view.superseded();
        listed.retain(|snapshot| !superseded.contains(&snapshot.session));
        let wanted = expected["snapshots"].as_array().unwrap();
        assert_eq!(listed.len(), wanted.len());
        for (snapshot, wanted) in listed.iter().zip(wanted) {
            let kind = if snapshot.partial {
                "partial"
            } else {
                "complete"
            };
            assert_eq!(json!(kind), wanted["kind"]);
            assert_eq!(json!(snapshot.tags), wanted["tags"]);
            for (source, entries) in wanted["sources"].as_object().unwrap() {
                let entries = entries.as_array().unwrap();
                compare(&repository, snapshot, source, entries);
            }
        }
    }
}

#[test]
fn the_golden_bundle_holds_what_the_sources_of_its_snapshots_held() {
    let expected = expected("v1");
    let [_, secret, _] = secrets(&expected);
    let place = root().join("tests/golden-bundle/v1.bundle");
    let location = format!("bundle:{}", place.display());
    let repository = Repository::open(&location, &secret, &options()).unwrap();
    let listed = snapshots::list(&repository, &Filter::default(), true).unwrap();
    let wanted = expected["snapshots"].as_array().unwrap().iter();
    let wanted: Vec<_> = wanted.filter(|one| one["kind"] == "complete").collect();
    assert_eq!(listed.len(), wanted.len());
    for (snapshot, wanted) in listed.iter().zip(wanted) {
        assert_eq!(json!(snapshot.tags), wanted["tags"]);
        for (source, entries) in wanted["sources"].as_object().unwrap() {
            let entries = entries.as_array().unwrap();
            compare(&repository, snapshot, source, entries);
        }
    }
}

fn compare(repository: &Arc<Repository>, snapshot: &SnapshotInfo, source: &str, wanted: &[Value]) {
    let mut items = Vec::new();
    let mut take = |item: Item| {
        items.push(item);
        Ok(())
    };
    let below = Some(source.as_bytes());
    browse::list(repository, snapshot, below, true, &mut take).unwrap();
    let mut first_names = BTreeMap::new();
    let described: Vec<Value> = items
        .iter()
        .map(|item| {
            let path = item.path.strip_prefix(source.as_bytes()).unwrap();
            let path = shown(path.strip_prefix(b"/").unwrap());
            let mut entry = describe(repository, snapshot, item, &path);
            if item.entry.is_hard_linked() {
                let file = (item.entry.filesystem, item.entry.inode);
                let first = first_names.entry(file).or_insert_with(|| path.clone());
                if *first != path {
                    entry.insert("same file as".to_owned(), json!(*first));
                }
            }
            Value::Object(entry)
        })
        .collect();
    // The source itself comes first in the manifest, and is not in its own listing.
    let mut wanted = &wanted[1..];
    if snapshot.partial {
        assert!(!described.is_empty() && described.len() < wanted.len());
        wanted = &wanted[..described.len()];
    }
    for (found, wanted) in described.iter().zip(wanted) {
        assert_eq!(found, wanted);
    }
    assert_eq!(described.len(), wanted.len());
}

/// Describes an entry in the words of the manifest.
fn describe(
    repository: &Arc<Repository>,
    snapshot: &SnapshotInfo,
    item: &Item,
    path: &str,
) -> Map<String, Value> {
    let entry = &item.entry;
    let mut map = Map::new();
    let mut put = |name: &str, value: Value| map.insert(name.to_owned(), value);
    put("path", json!(path));
    put("type", json!(word(entry.kind)));
    put("mode", json!(format!("{:04o}", entry.mode)));
    put("uid", json!(entry.uid));
    put("gid", json!(entry.gid));
    let mtime = entry.mtime.seconds * 1_000_000_000 + i64::from(entry.mtime.nanoseconds);
    put("mtime_ns", json!(mtime));
    match entry.kind {
        EntryType::File => {
            put("size", json!(entry.size));
            let holes = holes(repository, entry);
            if holes.contains(&true) {
                put("sparse", json!(true));
            }
            if holes == [true] {
                put("all zeros", json!(true));
            } else {
                let mut bytes = Vec::new();
                browse::dump(repository, snapshot, &item.path, &mut bytes).unwrap();
                put("blake3", json!(object_id(&bytes).to_hex()));
            }
        }
        EntryType::Symlink => {
            put("target", json!(shown(&entry.link_target)));
        }
        EntryType::CharacterDevice => {
            let numbers = [entry.device >> 32, entry.device & 0xffff_ffff];
            put("device", json!(numbers));
        }
        _ => {}
    }
    let xattrs = xattrs(repository, entry);
    if !xattrs.is_empty() {
        put("xattrs", Value::Object(xattrs));
    }
    map
}

/// Tells of each extent of a file whether it is a hole.
fn holes(repository: &Arc<Repository>, entry: &Entry) -> Vec<bool> {
    let is_hole = |extent: &Extent| matches!(extent, Extent::Hole { .. });
    match &entry.content {
        Content::None | Content::Whole(_) => Vec::new(),
        Content::Extents(extents) => extents.iter().map(is_hole).collect(),
        Content::List { root, level } => {
            let root = ListRoot {
                id: *root,
                level: *level,
                size: entry.size,
            };
            let nodes = ChunkReader::new(repository).unwrap();
            let extents = extents(nodes, &root).map(|extent| is_hole(&extent.unwrap().1));
            extents.collect()
        }
    }
}

fn xattrs(repository: &Arc<Repository>, entry: &Entry) -> Map<String, Value> {
    let record = match &entry.attributes {
        Attributes::None => return Map::new(),
        Attributes::Inline(record) => record.clone(),
        Attributes::OutOfLine(id) => {
            let mut chunks = ChunkReader::new(repository).unwrap();
            chunks.read(ChunkType::Value, id).unwrap().to_vec()
        }
    };
    let pairs = attributes::decode(&record).unwrap().into_iter();
    pairs
        .map(|pair| {
            let name = String::from_utf8(pair.name).unwrap();
            (name, json!(encode_hex(&pair.value)))
        })
        .collect()
}

fn word(kind: EntryType) -> &'static str {
    match kind {
        EntryType::File => "file",
        EntryType::Directory => "directory",
        EntryType::Symlink => "symlink",
        EntryType::Fifo => "fifo",
        EntryType::Socket => "socket",
        EntryType::CharacterDevice => "character device",
        EntryType::BlockDevice => "block device",
        EntryType::Object => "object",
    }
}

/// Writes bytes as the manifest does: as in a URL, a few more characters left as they are.
fn shown(bytes: &[u8]) -> String {
    let shown = bytes.iter().map(|byte| match byte {
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'/' | b' ' | b'.' | b'-' | b'_' | b'~' => {
            char::from(*byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    });
    shown.collect()
}

fn folder() -> PathBuf {
    root().join("tests/golden")
}

fn location(version: &str) -> String {
    folder().join(version).to_str().unwrap().to_owned()
}

fn options() -> OpenOptions {
    OpenOptions {
        cache: Cache::Memory,
        ..OpenOptions::default()
    }
}

fn open(version: &str, secret: &Secret) -> Arc<Repository> {
    Repository::open(&location(version), secret, &options()).unwrap()
}

/// Reads the manifest, without the hashes that this test does not compute.
fn expected(version: &str) -> Value {
    let text = fs::read_to_string(folder().join(format!("{version}.expected.json"))).unwrap();
    let mut expected: Value = serde_json::from_str(&text).unwrap();
    for snapshot in expected["snapshots"].as_array_mut().unwrap() {
        for entries in snapshot["sources"].as_object_mut().unwrap().values_mut() {
            for entry in entries.as_array_mut().unwrap() {
                entry.as_object_mut().unwrap().remove("sha256");
            }
        }
    }
    expected
}

fn secrets(expected: &Value) -> [Secret; 3] {
    let text = |name: &str| expected["secrets"][name].as_str().unwrap();
    [
        Secret::Passphrase(text("passphrase").as_bytes().to_vec().into()),
        Secret::from_key_file(text("key file")).unwrap(),
        Secret::from_recovery_key(text("recovery key")).unwrap(),
    ]
}
