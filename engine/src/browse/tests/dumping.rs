use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::{Command, Stdio};

use larder_format::attributes::ExtendedAttribute;
use larder_format::entry::{EntryType, Timestamp};

use super::*;
use crate::browse::tar::{Member, TarWriter};

#[test]
fn files_are_dumped_whole_or_not_at_all() {
    let setting = setting();
    let long = noise(100_000);
    setting.write("s/long", &long);
    setting.write("s/empty", b"");
    setting.write("s/short", b"a few bytes");
    let mut sparse = vec![0; 3 << 20];
    sparse[1 << 20] = 1;
    let file = fs::File::create(setting.folder.path().join("s/sparse")).unwrap();
    file.set_len(3 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[1], 1 << 20).unwrap();
    symlink("long", setting.folder.path().join("s/link")).unwrap();
    let snapshot = setting.back_up(&["s"]);
    assert!(setting.dump(&snapshot, "s/long").unwrap() == long);
    assert!(setting.dump(&snapshot, "s/sparse").unwrap() == sparse);
    assert_eq!(setting.dump(&snapshot, "s/empty").unwrap(), b"");
    assert_eq!(setting.dump(&snapshot, "s/short").unwrap(), b"a few bytes");
    let error = setting.dump(&snapshot, "s/link").unwrap_err();
    assert!(
        matches!(&error, EngineError::Request(text) if text.contains("symbolic link to long")),
        "{error}"
    );
    let error = setting.dump(&snapshot, "s/none").unwrap_err();
    assert!(matches!(error, EngineError::NotFound(_)), "{error}");
}

#[test]
fn damage_in_a_dumped_file_is_told_with_its_path() {
    let setting = setting();
    setting.write("s/long", &noise(100_000));
    let snapshot = setting.back_up(&["s"]);
    let mut packs = Vec::new();
    let storage = setting.repository.storage();
    let mut visit = |object: crate::storage::ObjectInfo| {
        packs.push(object);
        Ok(())
    };
    storage.list("packs", &mut visit).unwrap();
    // The content's pack is by far the longest.
    let pack = packs.iter().max_by_key(|object| object.size_bytes).unwrap();
    let mut bytes = storage.get(&pack.name, 1 << 30).unwrap().to_vec();
    bytes[50_000] ^= 1;
    storage.put(&pack.name, bytes.into()).unwrap();
    for path in ["s/long", "s"] {
        match setting.dump(&snapshot, path).unwrap_err() {
            EngineError::Damaged { why, object } => {
                assert!(
                    why.contains("/s/long") && object == pack.name,
                    "{object} {why}"
                );
            }
            other => panic!("{other}"),
        }
    }
}

/// GNU tar, which knows nothing of this program, makes the same tree of a dumped folder.
#[test]
fn a_dumped_folder_is_a_tar_stream() {
    let setting = setting();
    let base = setting.folder.path().join("s");
    let long_name = "l".repeat(200);
    setting.write("s/file", &noise(5_000));
    setting.write(&format!("s/sub/{long_name}"), b"long name");
    setting.write("s/sub/512", &noise(512));
    fs::write(base.join(OsStr::from_bytes(b"raw\xff\nname")), b"raw").unwrap();
    fs::write(base.join("ünï"), b"utf-8").unwrap();
    fs::create_dir(base.join("empty")).unwrap();
    fs::hard_link(base.join("file"), base.join("sub/again")).unwrap();
    symlink("x".repeat(150), base.join("link")).unwrap();
    symlink("file", base.join("sub/short-link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, base.join("pipe"), 0o640.into()).unwrap();
    let before_epoch = std::time::UNIX_EPOCH - std::time::Duration::new(5, 250_000_000);
    let times = fs::FileTimes::new().set_modified(before_epoch);
    fs::File::open(base.join("empty"))
        .unwrap()
        .set_times(times)
        .unwrap();
    let snapshot = setting.back_up(&["s"]);
    let stream = setting.dump(&snapshot, "s").unwrap();
    assert_eq!(stream.len() % 512, 0);
    let target = tempfile::tempdir().unwrap();
    untar(&stream, target.path());
    assert_eq!(seen(target.path()), seen(&base));
    let inode = |path: &str| fs::metadata(target.path().join(path)).unwrap().ino();
    assert_eq!(inode("file"), inode("sub/again"));
    assert_eq!(seen(&base).len(), 12);
    // From above the sources, each stands under its own path.
    let above = tempfile::tempdir().unwrap();
    untar(&setting.dump(&snapshot, "").unwrap(), above.path());
    assert_eq!(seen(&above.path().join("s")), seen(&base));
    // A part holds what is below it alone.
    let part = tempfile::tempdir().unwrap();
    untar(&setting.dump(&snapshot, "s/sub").unwrap(), part.path());
    assert_eq!(seen(part.path()), seen(&base.join("sub")));
}

fn untar(stream: &[u8], target: &Path) {
    let mut child = Command::new("tar")
        .args(["-x", "-p", "-f", "-", "-C"])
        .arg(target)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), stream).unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    // It says that it needs not be told of raw names, and that it finds times before 1970 odd.
    let known = ["hdrcharset", "implausibly old"];
    let known = |line: &str| known.iter().any(|known| line.contains(known));
    assert!(
        output.status.success() && errors.lines().all(known),
        "{errors}"
    );
}

/// Gives everything below a folder that two copies of it must agree in.
fn seen(folder: &Path) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(path) = open.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        let content = if found.is_symlink() {
            fs::read_link(&path)
                .unwrap()
                .into_os_string()
                .as_bytes()
                .to_vec()
        } else if found.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        if found.is_dir() {
            open.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
        let name = path.strip_prefix(folder).unwrap().to_string_lossy();
        let (mode, owner) = (found.mode(), (found.uid(), found.gid()));
        let times = (found.mtime(), found.mtime_nsec());
        let content = blake3::hash(&content);
        let all = format!("{mode:o} {owner:?} {times:?} {content}");
        seen.insert(name.into_owned(), all);
    }
    seen
}

#[test]
fn what_ustar_has_no_room_for_stands_in_pax_records() {
    let mut out = Vec::new();
    let owner = Entry {
        uid: u32::MAX,
        gid: 5,
        user: b"u".repeat(40),
        mtime: Timestamp {
            seconds: -1,
            nanoseconds: 250_000_000,
        },
        atime: Some(Timestamp {
            seconds: 3,
            nanoseconds: 0,
        }),
        kind: EntryType::CharacterDevice,
        device: 4 << 32 | 65,
        ..entry("device")
    };
    let mut writer = TarWriter::new(&mut out);
    let member = Member {
        name: b"device".to_vec(),
        entry: &owner,
        first_name: None,
        attributes: vec![ExtendedAttribute {
            name: b"user.a=b".to_vec(),
            value: b"\x00=\xff".to_vec(),
        }],
    };
    writer.start(&member).unwrap();
    writer.finish().unwrap();
    let mut read_back = ::tar::Archive::new(out.as_slice());
    let mut entries = read_back.entries().unwrap();
    let mut read = entries.next().unwrap().unwrap();
    let records: BTreeMap<_, _> = read
        .pax_extensions()
        .unwrap()
        .unwrap()
        .map(|record| record.unwrap())
        .map(|record| (record.key_bytes().to_vec(), record.value_bytes().to_vec()))
        .collect();
    let expected: [(&[u8], &[u8]); 5] = [
        (b"SCHILY.xattr.user.a%3Db", b"\x00=\xff"),
        (b"atime", b"3"),
        (b"mtime", b"-0.75"),
        (b"uid", b"4294967295"),
        (b"uname", &owner.user),
    ];
    let expected = expected.map(|(key, value)| (key.to_vec(), value.to_vec()));
    assert_eq!(records, BTreeMap::from(expected));
    let header = read.header();
    assert_eq!(header.entry_type(), ::tar::EntryType::Char);
    assert_eq!(
        (
            header.device_major().unwrap(),
            header.device_minor().unwrap()
        ),
        (Some(4), Some(65))
    );
    assert_eq!(header.gid().unwrap(), 5);
    assert!(entries.next().is_none());
}
