#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use larder_format::cell::Cell;
use zeroize::Zeroizing;

use super::*;
use crate::backup::{BackupOptions, CheckpointRhythm, Compression, Selection, backup};
use crate::chunker::ChunkSizes;
use crate::error::EngineError;
use crate::progress::Silent;
use crate::repository::{Cache, ChunkerKind, InitOptions, KdfCost, OpenOptions, Secret};
use crate::storage::counting::Counting;
use crate::storage::error::Operation;
use crate::storage::object::ObjectStorage;
use crate::storage::{ObjectInfo, Storage};

/// A repository in memory, and a folder with a source and room for targets.
struct World {
    storage: Arc<Counting>,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let storage = Arc::new(Counting::new(Arc::new(ObjectStorage::memory())));
        let options = InitOptions {
            kdf: KdfCost {
                memory_kib: 64,
                passes: 1,
                lanes: 1,
            },
            chunker: ChunkerKind::FastCdc,
            chunks: ChunkSizes {
                minimum: 4 << 10,
                mean: 16 << 10,
                maximum: 64 << 10,
            },
            ..InitOptions::default()
        };
        Repository::init_on(storage.as_ref(), &secret(), &options).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("source")).unwrap();
        Self { storage, folder }
    }

    fn open(&self) -> Arc<Repository> {
        let options = OpenOptions {
            cache_dir: Some(self.folder.path().join("cache")),
            state_dir: None,
            threads: 2,
            cache: Cache::Memory,
            in_order: false,
        };
        let storage: Arc<dyn Storage> = self.storage.clone();
        Repository::open_on(storage, &secret(), &options).unwrap()
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn backup(&self) -> SnapshotInfo {
        self.backup_of(&[self.source()])
    }

    fn backup_of(&self, sources: &[PathBuf]) -> SnapshotInfo {
        let repository = self.open();
        let options = BackupOptions {
            sources: sources.to_vec(),
            buckets: Default::default(),
            streams: Default::default(),
            selection: Selection::default(),
            host: "host".into(),
            user: "user".into(),
            tags: Vec::new(),
            time: None,
            parent: None,
            force: false,
            ignore_ctime: false,
            ignore_inode: false,
            with_atime: false,
            read_special: false,
            skip_if_unchanged: false,
            dry_run: false,
            compression: Compression::Auto,
            solid: true,
            verify_blocks: true,
            checkpoints: CheckpointRhythm::every_seconds(1 << 30),
            hooks: Default::default(),
            shard: None,
        };
        let report = backup(&repository, &options, &Silent, &Cancel::default()).unwrap();
        let view = crate::view::read_cells(&repository, None).unwrap();
        let name = report.snapshot.unwrap();
        let cell = view
            .cells
            .values()
            .find(|cell| cell.id.snapshot_name() == name);
        info(cell.unwrap())
    }

    /// The options of a restore into a folder of this world.
    fn options(&self, target: &str) -> RestoreOptions {
        RestoreOptions {
            target: self.path(target),
            overwrite: Overwrite::IfChanged,
            delete: false,
            include: Vec::new(),
            exclude: Vec::new(),
            sparse: false,
            dry_run: false,
            verify: false,
            no_owner: false,
            numeric_owner: false,
            map_uid: Vec::new(),
            map_gid: Vec::new(),
            in_place: false,
            devices: false,
            lost_as_zeros: false,
        }
    }

    fn try_restore(
        &self,
        snapshot: &SnapshotInfo,
        path: Option<&Path>,
        options: &RestoreOptions,
    ) -> Result<RestoreReport> {
        use std::os::unix::ffi::OsStrExt as _;
        let path = path.map(|path| path.as_os_str().as_bytes());
        restore(
            &self.open(),
            snapshot,
            path,
            options,
            &Silent,
            &Cancel::default(),
        )
    }

    /// Restores the source's contents into a folder; nothing may fail.
    fn restore(&self, snapshot: &SnapshotInfo, options: &RestoreOptions) -> RestoreReport {
        let report = self
            .try_restore(snapshot, Some(&self.source()), options)
            .unwrap();
        assert_eq!(report.failed, 0, "{:?}", report.issues);
        report
    }

    fn packs(&self, folder: &str) -> Vec<ObjectInfo> {
        let mut packs = Vec::new();
        self.storage
            .list(folder, &mut |object| {
                packs.push(object);
                Ok(())
            })
            .unwrap();
        packs
    }

    fn damage(&self, name: &str, at: usize) {
        let mut bytes = self.storage.get(name, 1 << 30).unwrap().to_vec();
        bytes[at] ^= 1;
        self.storage.delete(name).unwrap();
        self.storage.put(name, bytes.into()).unwrap();
    }
}

fn secret() -> Secret {
    Secret::Passphrase(Zeroizing::new(b"secret".to_vec()))
}

fn info(cell: &Cell) -> SnapshotInfo {
    let lossy = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let sources = cell.sources.iter();
    SnapshotInfo {
        id: cell.id.snapshot_name(),
        time: jiff::Timestamp::UNIX_EPOCH,
        end: jiff::Timestamp::UNIX_EPOCH,
        partial: false,
        pinned: false,
        host: String::new(),
        user: String::new(),
        tags: Vec::new(),
        sources: sources.map(|source| lossy(&source.path)).collect(),
        read: Vec::new(),
        parent: None,
        shard: None,
        program: String::new(),
        statistics: crate::snapshots::Statistics::default(),
        session: cell.id,
    }
}

/// Bytes that do not compress and do not repeat.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn tree(root: &Path) {
    for number in 0..40_u64 {
        let path = root.join(format!("small/{}/{number}", number % 5));
        write(&path, &noise(number, 50 + 97 * number as usize));
    }
    write(&root.join("large/one"), &noise(1000, 3 << 20));
    write(&root.join("large/two"), &noise(1001, 1 << 20));
    write(&root.join("large/copy"), &noise(1000, 3 << 20));
    write(&root.join("empty"), b"");
    fs::create_dir(root.join("folder")).unwrap();
    fs::set_permissions(root.join("folder"), fs::Permissions::from_mode(0o500)).unwrap();
    symlink("nowhere", root.join("link")).unwrap();
    fs::hard_link(root.join("large/two"), root.join("small/0/two")).unwrap();
    fs::hard_link(root.join("large/two"), root.join("zwei")).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(5 << 20).unwrap();
    sparse.write_at(&noise(7, 100_000), 2 << 20).unwrap();
}

/// Compares two trees with a program that knows nothing of the engine.
#[track_caller]
fn assert_same(a: &Path, b: &Path) {
    let tool = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/tools/compare.py");
    let output = Command::new("python3")
        .arg(tool)
        .args([a, b])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_tree_comes_back_as_it_was_and_no_byte_of_a_pack_is_read_twice() {
    let world = World::new();
    tree(&world.source());
    let snapshot = world.backup();
    drop(world.storage.take());
    let options = world.options("target");
    let report = world.restore(&snapshot, &options);
    assert_same(&world.source(), &world.path("target"));
    assert_eq!((report.files, report.unchanged), (40 + 3 + 1 + 1 + 2, 0));
    assert_eq!(report.directories, 9);
    assert_eq!(report.others, 1);
    let counts = world.storage.take();
    let read: u64 = counts.of_folder(Operation::GetRange, "packs").read_bytes;
    let stored: u64 = world
        .packs("packs")
        .iter()
        .map(|pack| pack.size_bytes)
        .sum();
    assert!(read <= stored, "{read} of {stored}");
    // A second run reads nothing but the tree.
    let again = world.restore(&snapshot, &options);
    assert_eq!((again.files, again.bytes, again.bytes_fetched), (0, 0, 0));
    assert_eq!(again.unchanged, 48);
}

#[test]
fn without_a_path_every_source_is_recreated_under_its_own() {
    let world = World::new();
    write(&world.path("source/a/file"), b"one");
    write(&world.path("source/b"), b"two");
    fs::set_permissions(world.path("source/b"), fs::Permissions::from_mode(0o640)).unwrap();
    let snapshot = world.backup_of(&[world.path("source/a"), world.path("source/b")]);
    let options = world.options("target");
    let report = world.try_restore(&snapshot, None, &options).unwrap();
    assert_eq!((report.files, report.directories, report.failed), (2, 1, 0));
    let below = |path: PathBuf| world.path("target").join(path.strip_prefix("/").unwrap());
    assert_same(&world.path("source/a"), &below(world.path("source/a")));
    assert_eq!(fs::read(below(world.path("source/b"))).unwrap(), b"two");
    assert_eq!(
        fs::metadata(below(world.path("source/b"))).unwrap().mode() & 0o7777,
        0o640
    );
}

#[test]
fn a_path_names_a_folder_whose_contents_are_wanted_or_a_file() {
    let world = World::new();
    write(&world.path("source/a/deep/file"), b"one");
    write(&world.path("source/a/deep.txt"), b"two");
    write(&world.path("source/a/deepest/other"), b"three");
    fs::set_permissions(
        world.path("source/a/deep"),
        fs::Permissions::from_mode(0o750),
    )
    .unwrap();
    let snapshot = world.backup();
    let restore = |path: &str, target: &str| {
        world.try_restore(&snapshot, Some(&world.path(path)), &world.options(target))
    };
    assert_eq!(restore("source/a/deep", "one").unwrap().files, 1);
    assert_same(&world.path("source/a/deep"), &world.path("one"));
    assert_eq!(restore("source/a/deep.txt", "two").unwrap().files, 1);
    assert_eq!(fs::read(world.path("two/deep.txt")).unwrap(), b"two");
    assert_eq!(fs::read_dir(world.path("two")).unwrap().count(), 1);
    // A folder above the source stands for it.
    assert_eq!(restore("", "three").unwrap().files, 3);
    assert_same(&world.source(), &world.path("three/source"));
    for missing in ["source/a/dee", "source/b", "sourc", "source/a/deep.txt/x"] {
        let error = restore(missing, "none").unwrap_err();
        assert!(
            matches!(error, EngineError::NotFound(_)),
            "{missing}: {error}"
        );
    }
}

#[test]
fn a_source_that_is_a_file_is_restored_by_its_name() {
    let world = World::new();
    write(&world.path("source/file"), &noise(1, 200_000));
    let snapshot = world.backup_of(&[world.path("source/file")]);
    let path = world.path("source/file");
    let report = world.try_restore(&snapshot, Some(&path), &world.options("target"));
    assert_eq!(report.unwrap().files, 1);
    assert_same(&world.source(), &{
        let source = fs::metadata(world.source()).unwrap();
        let target = world.path("target");
        fs::set_permissions(&target, source.permissions()).unwrap();
        let times = fs::FileTimes::new().set_modified(source.modified().unwrap());
        fs::File::open(&target).unwrap().set_times(times).unwrap();
        target
    });
}

#[test]
fn patterns_choose_and_parents_come_along_with_their_metadata() {
    let world = World::new();
    for name in [
        "a/x.o",
        "a/x.c",
        "a/keep/y.o",
        "b/z.c",
        "b/inner/w.c",
        "c/only.txt",
    ] {
        write(&world.source().join(name), name.as_bytes());
    }
    fs::set_permissions(world.path("source/b"), fs::Permissions::from_mode(0o711)).unwrap();
    let snapshot = world.backup();
    let files = |target: &str, include: &[&str], exclude: &[&str]| {
        let options = RestoreOptions {
            include: include.iter().map(|text| (*text).to_owned()).collect(),
            exclude: exclude.iter().map(|text| (*text).to_owned()).collect(),
            ..world.options(target)
        };
        world.restore(&snapshot, &options);
        let mut names = Vec::new();
        list(&world.path(target), "", &mut names);
        names.sort();
        names
    };
    assert_eq!(
        files("t1", &["*.c"], &[]),
        ["a/", "a/x.c", "b/", "b/inner/", "b/inner/w.c", "b/z.c"]
    );
    assert_eq!(
        fs::metadata(world.path("t1/b")).unwrap().mode() & 0o777,
        0o711
    );
    assert_eq!(
        files("t2", &[], &["*.c", "/a/keep/"]),
        ["a/", "a/x.o", "b/", "b/inner/", "c/", "c/only.txt"]
    );
    assert_eq!(files("t3", &["b/"], &["inner"]), ["b/", "b/z.c"]);
    assert_eq!(
        files("t4", &["/a", "!*.o"], &[]),
        ["a/", "a/keep/", "a/x.c"]
    );
    let absolute = world.source().join("c");
    assert_eq!(
        files("t5", &[absolute.to_str().unwrap()], &[]),
        ["c/", "c/only.txt"]
    );
    let bad = RestoreOptions {
        include: vec!["[".into()],
        ..world.options("t6")
    };
    let error = world.try_restore(&snapshot, None, &bad).unwrap_err();
    assert!(matches!(error, EngineError::Request(_)), "{error}");
}

fn list(folder: &Path, prefix: &str, names: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let mut name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            name.push('/');
            list(&entry.path(), &name, names);
        }
        names.push(name);
    }
}

/// Overwrites bytes and keeps size and time of modification.
fn change_secretly(path: &Path, at: u64) {
    let modified = fs::metadata(path).unwrap().modified().unwrap();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_at(b"changed!", at).unwrap();
    file.set_times(fs::FileTimes::new().set_modified(modified))
        .unwrap();
}

#[test]
fn what_is_there_is_kept_trusted_or_made_right_as_asked() {
    let world = World::new();
    write(&world.path("source/large"), &noise(1, 2 << 20));
    write(&world.path("source/small"), b"content");
    let snapshot = world.backup();
    let with = |overwrite, in_place| RestoreOptions {
        overwrite,
        in_place,
        ..world.options("target")
    };
    world.restore(&snapshot, &with(Overwrite::Always, false));
    let large = world.path("target/large");
    let inode = || fs::metadata(&large).unwrap().ino();
    for in_place in [false, true] {
        change_secretly(&large, 1 << 20);
        // Trusted, because size and time agree.
        let report = world.restore(&snapshot, &with(Overwrite::IfChanged, in_place));
        assert_eq!((report.files, report.unchanged), (0, 2));
        let before = inode();
        let report = world.restore(&snapshot, &with(Overwrite::Always, in_place));
        assert_eq!((report.files, report.unchanged), (1, 1));
        assert!(report.bytes <= 64 << 10, "{}", report.bytes);
        assert_eq!(before == inode(), in_place);
        assert_same(&world.source(), &world.path("target"));
    }
    // Shorter, longer, and with another mode.
    let resize = |size| {
        let file = fs::OpenOptions::new().write(true).open(&large).unwrap();
        file.set_len(size).unwrap();
    };
    for size in [0, 1_500_000, 3 << 20] {
        resize(size);
        fs::set_permissions(&large, fs::Permissions::from_mode(0o777)).unwrap();
        let report = world.restore(&snapshot, &with(Overwrite::IfChanged, false));
        assert_eq!((report.files, report.unchanged), (1, 1));
        assert_same(&world.source(), &world.path("target"));
    }
    // Only metadata differ.
    fs::set_permissions(&large, fs::Permissions::from_mode(0o777)).unwrap();
    let report = world.restore(&snapshot, &with(Overwrite::Always, false));
    assert_eq!((report.files, report.unchanged, report.bytes), (0, 2, 0));
    assert_same(&world.source(), &world.path("target"));
    // Kept, whatever it is; what is missing is made.
    fs::write(&large, b"mine").unwrap();
    fs::remove_file(world.path("target/small")).unwrap();
    let report = world.restore(&snapshot, &with(Overwrite::Never, false));
    assert_eq!((report.files, report.unchanged), (1, 1));
    assert_eq!(fs::read(&large).unwrap(), b"mine");
    assert_eq!(fs::read(world.path("target/small")).unwrap(), b"content");
}

#[test]
fn a_file_with_other_names_outside_is_replaced_and_they_are_left_alone() {
    let world = World::new();
    write(&world.path("source/file"), &noise(1, 100_000));
    let snapshot = world.backup();
    let options = RestoreOptions {
        overwrite: Overwrite::Always,
        in_place: true,
        ..world.options("target")
    };
    world.restore(&snapshot, &options);
    fs::hard_link(world.path("target/file"), world.path("other")).unwrap();
    change_secretly(&world.path("other"), 50_000);
    let changed = fs::read(world.path("other")).unwrap();
    world.restore(&snapshot, &options);
    assert_eq!(fs::read(world.path("other")).unwrap(), changed);
    assert_same(&world.source(), &world.path("target"));
}

#[test]
fn deleting_removes_what_the_snapshot_has_not_and_nothing_that_patterns_leave_out() {
    let world = World::new();
    write(&world.path("source/a/file"), b"one");
    write(&world.path("source/left/out"), b"two");
    let snapshot = world.backup();
    let options = RestoreOptions {
        delete: true,
        overwrite: Overwrite::Always,
        exclude: vec!["left".into(), "*.keep".into()],
        ..world.options("target")
    };
    let fill = || {
        for name in [
            "extra",
            "a/extra",
            "a/extra.keep",
            "deep/er/file",
            "left/mine",
        ] {
            write(&world.path("target").join(name), b"");
        }
        fs::create_dir_all(world.path("target/a")).unwrap();
        symlink("/", world.path("target/a/root")).unwrap();
    };
    fill();
    let dry = RestoreOptions {
        dry_run: true,
        ..options.clone()
    };
    assert_eq!(world.restore(&snapshot, &dry).deleted, 4);
    assert!(world.path("target/deep/er/file").exists());
    assert_eq!(world.restore(&snapshot, &options).deleted, 4);
    let mut names = Vec::new();
    list(&world.path("target"), "", &mut names);
    names.sort();
    assert_eq!(
        names,
        ["a/", "a/extra.keep", "a/file", "left/", "left/mine"]
    );
}

#[test]
fn a_dry_run_counts_and_writes_nothing() {
    let world = World::new();
    tree(&world.source());
    let snapshot = world.backup();
    let options = RestoreOptions {
        dry_run: true,
        ..world.options("target")
    };
    let dry = world.restore(&snapshot, &options);
    assert!(!world.path("target").exists());
    let wet = world.restore(&snapshot, &world.options("target"));
    assert_eq!(
        (
            dry.files,
            dry.directories,
            dry.others,
            dry.bytes,
            dry.unchanged
        ),
        (
            wet.files,
            wet.directories,
            wet.others,
            wet.bytes,
            wet.unchanged
        )
    );
    assert_eq!((dry.bytes_fetched, wet.bytes_fetched > 0), (0, true));
    fs::remove_file(world.path("target/empty")).unwrap();
    let again = world.restore(&snapshot, &options);
    assert_eq!((again.files, again.bytes), (1, 0));
    assert!(!world.path("target/empty").exists());
}

#[test]
fn sparse_files_stay_so_and_zeros_become_holes_when_asked() {
    let world = World::new();
    let file = fs::File::create(world.path("source/holes")).unwrap();
    file.set_len(8 << 20).unwrap();
    file.write_at(&noise(1, 10_000), 4 << 20).unwrap();
    write(&world.path("source/zeros"), &vec![0; 4 << 20]);
    let snapshot = world.backup();
    let blocks = |path: &str| fs::metadata(world.path(path)).unwrap().blocks() * 512;
    world.restore(&snapshot, &world.options("plain"));
    assert_same(&world.source(), &world.path("plain"));
    assert!(blocks("plain/holes") < 1 << 20);
    assert!(blocks("plain/zeros") >= 4 << 20);
    let options = RestoreOptions {
        sparse: true,
        ..world.options("sparse")
    };
    world.restore(&snapshot, &options);
    assert_same(&world.source(), &world.path("sparse"));
    assert!(blocks("sparse/zeros") < 1 << 20);
    // A hole over bytes that are there.
    write(&world.path("plain/holes"), &noise(5, 8 << 20));
    world.restore(&snapshot, &world.options("plain"));
    assert_same(&world.source(), &world.path("plain"));
}

#[test]
fn a_hole_of_a_terabyte_is_neither_read_nor_written() {
    let world = World::new();
    let file = fs::File::create(world.path("source/huge")).unwrap();
    file.set_len(1 << 40).unwrap();
    file.write_at(&noise(1, 10_000), 1 << 39).unwrap();
    let first = world.backup();
    file.write_at(&noise(2, 10_000), 1 << 38).unwrap();
    let second = world.backup();
    let options = RestoreOptions {
        verify: true,
        ..world.options("target")
    };
    for (snapshot, written) in [(&first, 1), (&first, 0), (&second, 1), (&first, 1)] {
        let report = world.restore(snapshot, &options);
        assert_eq!((report.files, report.failed), (written, 0), "{report:?}");
    }
    let restored = fs::File::open(world.path("target/huge")).unwrap();
    let mut bytes = vec![0; 10_000];
    restored.read_exact_at(&mut bytes, 1 << 39).unwrap();
    assert_eq!(bytes, noise(1, 10_000));
    restored.read_exact_at(&mut bytes, 1 << 38).unwrap();
    assert_eq!(bytes, vec![0; 10_000]);
    assert_eq!(restored.metadata().unwrap().len(), 1 << 40);
    assert!(restored.metadata().unwrap().blocks() * 512 < 1 << 20);
}

#[test]
fn a_damaged_pack_costs_the_files_in_it_and_no_others() {
    let world = World::new();
    tree(&world.source());
    let first = world.backup();
    let before: Vec<String> = world
        .packs("packs")
        .into_iter()
        .map(|pack| pack.name)
        .collect();
    write(&world.path("source/later/one"), &noise(2000, 200_000));
    write(&world.path("source/later/two"), &noise(2001, 2_000));
    let second = world.backup();
    let later = |name: &String| !before.contains(name);
    let packs = world.packs("packs");
    let data = packs
        .iter()
        .filter(|pack| later(&pack.name))
        .max_by_key(|pack| pack.size_bytes);
    let data = data.unwrap();
    // In the middle of its one block, or all of it.
    for way in 0..2 {
        if way == 0 {
            world.damage(&data.name, 50_000);
        } else {
            world.storage.delete(&data.name).unwrap();
        }
        let target = format!("target{way}");
        let options = RestoreOptions {
            verify: true,
            ..world.options(&target)
        };
        let report = world
            .try_restore(&second, Some(&world.source()), &options)
            .unwrap();
        let mut names: Vec<_> = report
            .issues
            .iter()
            .map(|issue| issue.path.clone())
            .collect();
        names.sort();
        assert_eq!(
            (report.failed, names),
            (2, vec!["later/one".to_owned(), "later/two".to_owned()])
        );
        assert!(
            report
                .issues
                .iter()
                .all(|issue| issue.error.contains(&data.name))
        );
        assert_eq!(
            fs::read_dir(world.path(&target).join("later"))
                .unwrap()
                .count(),
            0
        );
        fs::remove_dir(world.path(&target).join("later")).unwrap();
        // Everything else is there, as in the first snapshot but for the folder's time.
        let whole = format!("whole{way}");
        world.restore(&first, &world.options(&whole));
        assert_same(
            &world.path(&whole).join("large"),
            &world.path(&target).join("large"),
        );
        assert_same(
            &world.path(&whole).join("small"),
            &world.path(&target).join("small"),
        );
    }
}

#[test]
fn every_flipped_byte_is_found_and_never_stands_under_a_final_name() {
    let world = World::new();
    tree(&world.source());
    let snapshot = world.backup();
    for pack in world.packs("packs") {
        let size = usize::try_from(pack.size_bytes).unwrap();
        for at in [100, size / 3, size / 2, size - 40] {
            world.damage(&pack.name, at);
            let options = world.options("target");
            let done = world.try_restore(&snapshot, Some(&world.source()), &options);
            if let Ok(report) = done {
                assert_eq!(report.failed == 0, report.issues.is_empty());
                check_content(&world.source(), &world.path("target"), report.failed);
            }
            drop(fs::remove_dir_all(world.path("target")));
            world.damage(&pack.name, at);
        }
    }
    world.restore(&snapshot, &world.options("target"));
    assert_same(&world.source(), &world.path("target"));
}

/// Every file that is there has the right bytes, and at most `failed` are missing.
fn check_content(source: &Path, target: &Path, failed: u64) {
    let mut names = Vec::new();
    list(source, "", &mut names);
    let mut missing = 0;
    for name in names
        .iter()
        .filter(|name| !name.ends_with('/') && *name != "link")
    {
        match fs::read(target.join(name)) {
            Ok(bytes) => assert!(bytes == fs::read(source.join(name)).unwrap(), "{name}"),
            Err(_) => missing += 1,
        }
    }
    assert!(missing <= failed, "{missing} missing, {failed} said so");
    let mut there = Vec::new();
    list(target, "", &mut there);
    assert!(!there.iter().any(|name| name.contains(".larder-")));
}

#[test]
fn a_lost_node_costs_what_is_below_it_and_is_named() {
    let world = World::new();
    for number in 0..2_000 {
        write(
            &world.path(&format!("source/{:02}/{number:04}", number / 100)),
            b"x",
        );
    }
    world.backup();
    // The nodes above this one are written anew, into packs of their own.
    let before = world.packs("packs");
    write(&world.path("source/10/1000"), b"changed");
    let snapshot = world.backup();
    let dry = RestoreOptions {
        dry_run: true,
        ..world.options("none")
    };
    assert_eq!(world.restore(&snapshot, &dry).files, 2_000);
    let attempt = |options: &RestoreOptions| {
        world
            .try_restore(&snapshot, Some(&world.source()), options)
            .unwrap()
    };
    let mut has_lost_a_leaf = false;
    for pack in world.packs("packs") {
        if before.iter().any(|known| known.name == pack.name) {
            continue;
        }
        let size = usize::try_from(pack.size_bytes).unwrap();
        for at in (60..size).step_by(size / 12) {
            if has_lost_a_leaf {
                return;
            }
            world.damage(&pack.name, at);
            let report = attempt(&dry);
            let lost: Vec<_> = report
                .issues
                .iter()
                .filter(|issue| issue.error.contains("are lost"))
                .collect();
            assert!(report.files + report.failed >= 2_000);
            // A root costs everything; this is about a leaf, which costs a few.
            if !lost.is_empty() && report.files > 1_000 {
                has_lost_a_leaf = true;
                let wet = attempt(&world.options("target"));
                assert_eq!((wet.files, wet.failed), (report.files, report.failed));
                check_content(&world.source(), &world.path("target"), wet.failed);
            }
            world.damage(&pack.name, at);
        }
    }
    assert!(has_lost_a_leaf, "no damage hit a leaf alone");
}

#[test]
fn owners_can_be_left_replaced_or_kept() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let world = World::new();
    write(&world.path("source/file"), b"x");
    std::os::unix::fs::chown(world.path("source/file"), Some(1234), Some(2345)).unwrap();
    let snapshot = world.backup();
    let owner = |target: &str, options: RestoreOptions| {
        world.restore(&snapshot, &options);
        let metadata = fs::metadata(world.path(target).join("file")).unwrap();
        (metadata.uid(), metadata.gid())
    };
    assert_eq!(owner("a", world.options("a")), (1234, 2345));
    let none = RestoreOptions {
        no_owner: true,
        ..world.options("b")
    };
    assert_eq!(owner("b", none), (0, 0));
    let mapped = RestoreOptions {
        map_uid: vec![(1234, 77)],
        map_gid: vec![(2345, 88)],
        numeric_owner: true,
        ..world.options("c")
    };
    assert_eq!(owner("c", mapped), (77, 88));
}

#[test]
fn what_could_not_be_read_at_backup_is_named_and_not_made_empty() {
    let world = World::new();
    write(&world.path("source/file"), b"x");
    let context_options = world.options("target");
    let repository = world.open();
    let cancel = Cancel::default();
    let target = crate::target::Target::open(
        &context_options.target,
        crate::target::options::Options::for_this_user(),
    )
    .unwrap();
    let context = files::Context::new(&repository, &context_options, target, &Silent, &cancel);
    let mut planner = planner::Planner::new(&context, &[]).unwrap();
    let mut entry = larder_format::entry::Entry {
        key: b"secret".to_vec(),
        ..Default::default()
    };
    entry.flags.unreadable = true;
    planner.leaf(entry, true).unwrap();
    let report = context.tally.take();
    assert_eq!(
        (report.failed, report.issues[0].path.as_str()),
        (1, "secret")
    );
    assert!(!world.path("target/secret").exists());
}

#[test]
fn what_is_in_a_folder_that_could_not_be_read_is_not_deleted() {
    let world = World::new();
    fs::create_dir_all(world.path("target/closed")).unwrap();
    fs::create_dir_all(world.path("target/open")).unwrap();
    fs::write(world.path("target/closed/kept"), "good").unwrap();
    fs::write(world.path("target/open/extra"), "bad").unwrap();
    let options = RestoreOptions {
        delete: true,
        ..world.options("target")
    };
    let repository = world.open();
    let cancel = Cancel::default();
    let target = crate::target::Target::open(
        &options.target,
        crate::target::options::Options::for_this_user(),
    )
    .unwrap();
    let context = files::Context::new(&repository, &options, target, &Silent, &cancel);
    let choice = (select::Choice::compile(&[], &[], b"/").unwrap(), Vec::new());
    let mut planner = planner::Planner::new(&context, std::slice::from_ref(&choice)).unwrap();
    for (key, unreadable) in [("closed/", true), ("open/", false)] {
        let mut entry = larder_format::entry::Entry {
            key: key.into(),
            kind: larder_format::entry::EntryType::Directory,
            ..Default::default()
        };
        entry.flags.unreadable = unreadable;
        planner.directory(entry, false).unwrap();
    }
    finish::remove_extras(&planner).unwrap();
    let report = context.tally.take();
    assert_eq!((report.failed, report.deleted), (1, 1));
    assert_eq!(report.issues[0].path, "closed/");
    assert!(world.path("target/closed/kept").exists());
    assert!(!world.path("target/open/extra").exists());
}

#[test]
fn a_target_inside_the_repository_and_a_cancelled_restore_are_refused() {
    let world = World::new();
    tree(&world.source());
    let snapshot = world.backup();
    let cancel = Cancel::default();
    cancel.request();
    let options = world.options("target");
    let done = restore(&world.open(), &snapshot, None, &options, &Silent, &cancel);
    assert!(matches!(done, Err(EngineError::Interrupted)));

    let location = world.path("repository");
    let init = InitOptions {
        kdf: KdfCost {
            memory_kib: 64,
            passes: 1,
            lanes: 1,
        },
        ..InitOptions::default()
    };
    Repository::init(location.to_str().unwrap(), &secret(), &init).unwrap();
    let open = OpenOptions {
        cache_dir: Some(world.path("cache")),
        state_dir: None,
        threads: 1,
        cache: Cache::Memory,
        in_order: false,
    };
    let repository = Repository::open(location.to_str().unwrap(), &secret(), &open).unwrap();
    for (target, delete) in [("repository/new", false), ("", true)] {
        let options = RestoreOptions {
            delete,
            ..world.options(target)
        };
        let done = restore(
            &repository,
            &snapshot,
            None,
            &options,
            &Silent,
            &Cancel::default(),
        );
        assert!(matches!(done, Err(EngineError::Request(_))), "{target}");
    }
}

#[test]
fn a_copy_elsewhere_is_used_when_the_first_place_is_damaged() {
    let world = World::new();
    write(&world.path("source/file"), &noise(1, 300_000));
    // Two writers that do not know of each other store the same chunks.
    let first = world.backup();
    let names: Vec<String> = world
        .packs("packs")
        .into_iter()
        .map(|pack| pack.name)
        .collect();
    let kept: Vec<_> = ["packs", "index", "snapshots", "sessions"]
        .iter()
        .flat_map(|folder| world.packs(folder))
        .map(|object| {
            (
                object.name.clone(),
                world.storage.get(&object.name, 1 << 30).unwrap(),
            )
        })
        .collect();
    for (name, _) in &kept {
        world.storage.delete(name).unwrap();
    }
    world.backup();
    for (name, bytes) in kept {
        world.storage.put(&name, bytes).unwrap();
    }
    for name in &names {
        let size = world.storage.size(name).unwrap();
        for at in (100..usize::try_from(size).unwrap()).step_by(10_000) {
            world.damage(name, at);
        }
    }
    let report = world.restore(&first, &world.options("target"));
    assert_eq!(report.files, 1);
    assert_same(&world.source(), &world.path("target"));
}

#[test]
fn more_files_than_may_be_in_the_making_are_restored_in_further_rounds() {
    let world = World::new();
    let path = |number: u64| world.source().join(format!("{number}"));
    for number in 0..12 {
        write(&path(number), &noise(number, 150_000));
    }
    world.backup();
    for number in 0..12 {
        let bytes = [noise(number, 150_000), noise(100 + number, 150_000)].concat();
        fs::write(path(number), bytes).unwrap();
    }
    // The first halves of all files are in the older packs, the second ones in the newer.
    let snapshot = world.backup();
    let report = world.restore(&snapshot, &world.options("target"));
    assert_eq!((report.files, report.bytes), (12, 12 * 300_000));
    assert_same(&world.source(), &world.path("target"));
}

#[test]
fn special_files_and_long_attributes_come_back() {
    let world = World::new();
    write(&world.path("source/file"), b"x");
    let fifo = Command::new("mkfifo")
        .arg(world.path("source/fifo"))
        .status()
        .unwrap();
    assert!(fifo.success());
    drop(std::os::unix::net::UnixListener::bind(world.path("source/socket")).unwrap());
    fs::hard_link(world.path("source/fifo"), world.path("source/second")).unwrap();
    let long = noise(3, 3_000);
    let flags = rustix::fs::XattrFlags::empty();
    let supported = ["source/file", "source"].iter().all(|name| {
        let path = world.path(name);
        rustix::fs::setxattr(&path, "user.long", &long, flags).is_ok()
            && rustix::fs::setxattr(&path, "user.short", b"y", flags).is_ok()
    });
    let snapshot = world.backup();
    let report = world.restore(&snapshot, &world.options("target"));
    assert_eq!((report.files, report.others), (1, 3));
    assert_same(&world.source(), &world.path("target"));
    let ino = |name: &str| fs::symlink_metadata(world.path(name)).unwrap().ino();
    assert_eq!(ino("target/fifo"), ino("target/second"));
    if supported {
        let mut value = vec![0; 4_000];
        let path = world.path("target/file");
        let length = rustix::fs::getxattr(&path, "user.long", &mut value[..]).unwrap();
        assert_eq!(value[..length], long);
    }
}

#[test]
fn when_the_first_name_of_a_file_cannot_be_had_the_next_becomes_the_file() {
    let world = World::new();
    write(&world.path("source/a"), &noise(1, 200_000));
    fs::hard_link(world.path("source/a"), world.path("source/b")).unwrap();
    fs::hard_link(world.path("source/a"), world.path("source/c")).unwrap();
    let snapshot = world.backup();
    write(&world.path("target/a/in/the/way"), b"");
    let options = world.options("target");
    let report = world
        .try_restore(&snapshot, Some(&world.source()), &options)
        .unwrap();
    assert_eq!((report.files, report.failed), (2, 1));
    assert_eq!(report.issues[0].path, "a");
    let content = fs::read(world.path("target/c")).unwrap();
    assert!(content == noise(1, 200_000));
    let ino = |name: &str| fs::metadata(world.path(name)).unwrap().ino();
    assert_eq!(ino("target/b"), ino("target/c"));
}

#[test]
fn a_link_in_the_target_is_never_followed() {
    let world = World::new();
    write(&world.path("source/folder/file"), b"new");
    write(&world.path("source/name"), b"new");
    let snapshot = world.backup();
    write(&world.path("outside/file"), b"old");
    fs::create_dir(world.path("target")).unwrap();
    symlink(world.path("outside"), world.path("target/folder")).unwrap();
    symlink(world.path("outside/file"), world.path("target/name")).unwrap();
    world.restore(&snapshot, &world.options("target"));
    assert_eq!(fs::read(world.path("outside/file")).unwrap(), b"old");
    assert_same(&world.source(), &world.path("target"));
}

#[test]
fn zeros_stand_for_what_is_lost_if_that_is_asked_for() {
    let world = World::new();
    write(&world.path("source/long"), &noise(1, 3_000_000));
    write(&world.path("source/short"), &noise(2, 2_000));
    let snapshot = world.backup();
    let truth = fs::read(world.path("source/long")).unwrap();
    let packs = world.packs("packs");
    let data = packs.iter().max_by_key(|pack| pack.size_bytes).unwrap();
    for way in 0..2 {
        if way == 0 {
            world.damage(&data.name, 300_000);
        } else {
            world.storage.delete(&data.name).unwrap();
        }
        let options = world.options(&format!("plain{way}"));
        let plain = world
            .try_restore(&snapshot, Some(&world.source()), &options)
            .unwrap();
        assert!(plain.failed > 0, "{plain:?}");
        assert!(!world.path(&format!("plain{way}/long")).exists());
        let target = format!("target{way}");
        let options = RestoreOptions {
            lost_as_zeros: true,
            ..world.options(&target)
        };
        let report = world
            .try_restore(&snapshot, Some(&world.source()), &options)
            .unwrap();
        assert_eq!(report.failed, plain.failed, "{report:?}");
        let path = world.path(&format!("{target}/long"));
        let found = fs::read(&path).unwrap();
        assert_eq!(found.len(), truth.len());
        // What differs is zero, and said to be lost.
        let mut lost = vec![false; truth.len()];
        for issue in report
            .issues
            .iter()
            .filter(|issue| issue.path.ends_with("long"))
        {
            let text = issue.error.strip_prefix("its bytes ").unwrap();
            let (start, text) = text.split_once("..").unwrap();
            let (end, _) = text.split_once(' ').unwrap();
            lost[start.parse().unwrap()..end.parse().unwrap()].fill(true);
        }
        for (at, (found, truth)) in found.iter().zip(&truth).enumerate() {
            assert_eq!(*found, if lost[at] { 0 } else { *truth }, "{at}");
        }
        assert!(lost.contains(&true) && (way == 1 || lost.contains(&false)));
        // The snapshot's time would let the next restore take it to be right.
        let time = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        assert_ne!(time(&path), time(&world.path("source/long")));
    }
}
