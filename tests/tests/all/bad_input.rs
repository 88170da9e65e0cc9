//! What bad input gets: a clear message, its exit code, and nothing lost.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use larder_engine::error::EngineError;
use larder_engine::repository::{Cache, Repository};
use larder_engine::storage::Storage as _;
use larder_engine::storage::error::ErrorKind;
use larder_engine::storage::error::Operation;
use larder_engine::storage::faulty::{Effect, Fault, Faulty, When};
use larder_engine::storage::object::ObjectStorage;
use larder_format::config::Config;
use larder_format::names;
use larder_format::object::{CLOSING_BYTES, FORMAT_VERSION};

use crate::fixture::{Desk, init_options, secret, snapshots};
use crate::program::{Run, World, assert_same, is_root, noise, run};

/// A world with one snapshot, and a file `before` that holds what it restores to.
fn with_a_snapshot() -> World {
    let world = World::new();
    world.write("folder/file", noise(1, 10_000));
    world.write("other", "x");
    world.backup(&[]);
    world.restore("latest", "before");
    world
}

/// Fails unless the first snapshot still restores, and the repository is whole.
fn assert_kept(world: &World) {
    let first = world.json(["snapshots"])[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let target = world.path("after");
    let _ = fs::remove_dir_all(&target);
    assert_same(&world.path("before"), &world.restore(&first, "after"));
    world.ok(["check", "--read-data"]);
}

/// Finds the only config.
fn config_of(world: &World) -> std::path::PathBuf {
    let mut configs = fs::read_dir(world.path("repo/config")).unwrap();
    configs.next().unwrap().unwrap().path()
}

fn backup_of(world: &World, source: &Path, more: &[&str]) -> Run {
    run(world.command().arg("backup").arg(source).args(more))
}

#[test]
fn bad_sources_and_patterns_are_refused_before_anything_is_written() {
    let world = with_a_snapshot();
    let source = world.source();
    let missing = world.path("missing");
    let exclude_file = missing.to_str().unwrap();
    let folder = source.join("folder");
    backup_of(&world, &missing, &[]).expect(1).says("missing");
    backup_of(&world, &source, &["--exclude", "a[b"])
        .expect(1)
        .says("a[b");
    backup_of(&world, &source, &["--iexclude", "{a"])
        .expect(1)
        .says("{a");
    backup_of(&world, &source, &["--exclude-file", exclude_file])
        .expect(1)
        .says("missing");
    backup_of(&world, &source, &["--files-from", exclude_file])
        .expect(1)
        .says("missing");
    backup_of(&world, &source, &["--exclude-larger-than", "many"])
        .expect(1)
        .says("many");
    backup_of(&world, &source, &["--parent", "ffffffffffff"])
        .expect(1)
        .says("ffffffffffff");
    backup_of(&world, &source, &[folder.to_str().unwrap()])
        .expect(1)
        .says("inside the source");
    backup_of(&world, &source, &["--time", "some day"])
        .expect(1)
        .says("some day");
    let inside = world.path("repo/packs");
    backup_of(&world, &inside, &[])
        .expect(1)
        .says("inside the repository");
    assert_eq!(world.json(["snapshots"]).as_array().unwrap().len(), 1);
    assert_kept(&world);
}

#[test]
fn a_repository_inside_the_source_is_left_out() {
    let world = with_a_snapshot();
    let whole = world.path("");
    backup_of(&world, &whole, &["--exclude", "/after"])
        .expect(0)
        .says("left out");
    let listed = world.ok([
        "ls",
        "-R",
        &format!(
            "latest:{}",
            whole.display().to_string().trim_end_matches('/')
        ),
    ]);
    assert!(
        listed.contains("other") && !listed.contains("/repo/"),
        "{listed}"
    );
    assert_kept(&world);
}

#[test]
fn bad_targets_are_refused() {
    let world = with_a_snapshot();
    let restore = |target: &Path| {
        let spec = format!("latest:{}", world.source().display());
        run(world
            .command()
            .args(["restore", &spec, "--target"])
            .arg(target))
    };
    restore(&world.path("repo"))
        .expect(1)
        .says("inside the repository");
    restore(&world.path("repo/packs/new"))
        .expect(1)
        .says("inside the repository");
    fs::write(world.path("a-file"), "x").unwrap();
    restore(&world.path("a-file")).expect(1).says("a-file");
    restore(&world.path("a-file/below"))
        .expect(1)
        .says("a-file");
    assert_eq!(fs::read(world.path("a-file")).unwrap(), b"x");
    // A target inside the source is where one puts things back.
    fs::remove_file(world.source().join("other")).unwrap();
    restore(&world.source()).expect(0);
    assert_same(&world.path("before"), &world.source());
    assert_kept(&world);
}

#[test]
fn a_second_init_leaves_the_repository_as_it_is() {
    let world = with_a_snapshot();
    world.run(["init"]).expect(1).says("already a repository");
    assert_kept(&world);
    let foreign = world.path("foreign");
    fs::create_dir_all(foreign.join("keys")).unwrap();
    let mut command = world.command();
    command.args(["init", "-r"]).arg(world.path("a-file/below"));
    fs::write(world.path("a-file"), "x").unwrap();
    run(&mut command).expect(1).says("a-file");
}

#[test]
fn a_damaged_config_is_named_and_put_back_all_is_well() {
    let world = with_a_snapshot();
    // Those of whoever has no twins.
    fs::remove_dir_all(world.path("repo/twins")).unwrap();
    let config = config_of(&world);
    let whole = fs::read(&config).unwrap();
    let put = |bytes: &[u8]| {
        fs::remove_file(&config).ok();
        fs::write(&config, bytes).unwrap();
    };
    for at in [0, 9, whole.len() / 2, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x40;
        put(&flipped);
        let refused = world.run(["snapshots"]).expect(1);
        assert!(
            refused.stderr.contains("config") || refused.stderr.contains("version"),
            "{at}: {refused:?}"
        );
    }
    for length in [0, 5, whole.len() / 2, whole.len() - 1] {
        put(&whole[..length]);
        world.run(["snapshots"]).expect(1).says("config");
        world.run(["check"]).expect(4).says("config");
    }
    put(&[whole.clone(), vec![0; 200_000]].concat());
    world.run(["snapshots"]).expect(1).says("config");
    world.run(["check"]).expect(4).says("config");
    let told = world.run(["check", "--json"]).expect(4);
    let line = told.stderr.lines().find(|line| line.starts_with('{'));
    let line: serde_json::Value = serde_json::from_str(line.unwrap()).unwrap();
    assert_eq!(
        (&line["message_type"], &line["code"]),
        (&"error".into(), &4.into())
    );
    fs::remove_file(&config).unwrap();
    world.run(["snapshots"]).expect(1).says("delete nothing");
    // Without its config it holds data still, so init does not write into it.
    world.run(["init"]).expect(1).says("delete nothing");
    put(&whole);
    assert_kept(&world);
}

#[test]
fn a_newer_format_is_named_and_not_touched() {
    let world = with_a_snapshot();
    fs::remove_dir_all(world.path("repo/twins")).unwrap();
    let config = config_of(&world);
    let whole = fs::read(&config).unwrap();
    // SPEC.md §2: the version follows the magic, and the object ends in a hash that anyone can compute.
    let mut newer = whole.clone();
    assert_eq!(newer[8], FORMAT_VERSION);
    newer[8] = FORMAT_VERSION + 1;
    let body = newer.len() - CLOSING_BYTES;
    let hash = *blake3::hash(&newer[..body]).as_bytes();
    newer[body..].copy_from_slice(&hash);
    fs::remove_file(&config).unwrap();
    fs::write(&config, &newer).unwrap();
    world
        .run(["snapshots"])
        .expect(1)
        .says("cannot be used by this version");
    fs::write(&config, &whole).unwrap();
    assert_kept(&world);
}

#[test]
fn an_unknown_feature_is_named() {
    let desk = Desk::new(Cache::Memory);
    desk.write("file", &noise(1, 3000));
    let storage = Arc::new(Faulty::new(Arc::new(ObjectStorage::memory())));
    Repository::init_on(storage.as_ref(), &secret("one"), &init_options()).unwrap();
    let repository = desk.open(&storage, "one").unwrap();
    desk.back_up(&repository).unwrap();
    let feature = || vec!["holograms".to_owned()];
    let with = |change: &dyn Fn(&mut Config)| {
        let mut config = repository.config();
        config.number += 1;
        change(&mut config);
        let object = config.seal(repository.keyring(), [7; 16]).unwrap();
        let name = names::config(config.number);
        storage.delete(&name).unwrap();
        storage.create(&name, object.into()).unwrap();
    };
    // What is needed to collect concerns no one who reads or writes.
    with(&|config| config.collect_features = feature());
    desk.back_up(&desk.open(&storage, "one").unwrap()).unwrap();
    with(&|config| config.write_features = feature());
    let reader = desk.open(&storage, "one").unwrap();
    let listed = snapshots(&reader);
    assert!(desk.dump(&reader, &listed[0]).unwrap().len() > 3000);
    let error = desk.back_up(&reader).unwrap_err();
    assert!(
        matches!(error, EngineError::Unsupported { .. }) && error.to_string().contains("holograms"),
        "{error}"
    );
    with(&|config| config.read_features = feature());
    let Err(error) = desk.open(&storage, "one") else {
        panic!("it opened")
    };
    assert!(
        matches!(error, EngineError::Unsupported { .. }) && error.to_string().contains("holograms"),
        "{error}"
    );
}

#[test]
fn an_unknown_chunker_is_refused_by_name_where_something_would_be_cut() {
    let desk = Desk::new(Cache::Memory);
    desk.write("file", &noise(1, 3000));
    let storage = Arc::new(Faulty::new(Arc::new(ObjectStorage::memory())));
    Repository::init_on(storage.as_ref(), &secret("one"), &init_options()).unwrap();
    let repository = desk.open(&storage, "one").unwrap();
    desk.back_up(&repository).unwrap();
    let mut config = repository.config();
    config.number += 1;
    config.chunker.name = "guillotine".to_owned();
    let object = config.seal(repository.keyring(), [7; 16]).unwrap();
    storage
        .create(&names::config(config.number), object.into())
        .unwrap();

    // Readers need no chunker.
    let reader = desk.open(&storage, "one").unwrap();
    let listed = snapshots(&reader);
    assert!(desk.dump(&reader, &listed[0]).unwrap().len() > 3000);
    let sessions = || {
        let mut names = Vec::new();
        storage
            .list("sessions", &mut |object| {
                names.push(object.name);
                Ok(())
            })
            .unwrap();
        names
    };
    let before = sessions();
    let error = desk.back_up(&reader).unwrap_err();
    assert!(
        matches!(error, EngineError::Unsupported { .. })
            && error.to_string().contains("guillotine"),
        "{error}"
    );
    assert_eq!(sessions(), before, "nothing was announced");
}

#[test]
fn a_full_storage_says_so_and_keeps_what_was_there() {
    let desk = Desk::new(Cache::Memory);
    for number in 0..60 {
        desk.write(&format!("f{number}"), &noise(number, 3000));
    }
    let storage = Arc::new(Faulty::new(Arc::new(ObjectStorage::memory())));
    Repository::init_on(storage.as_ref(), &secret("one"), &init_options()).unwrap();
    let repository = desk.open(&storage, "one").unwrap();
    desk.back_up(&repository).unwrap();
    let first = snapshots(&repository).remove(0);
    let before = desk.dump(&repository, &first).unwrap();
    desk.write("f1", &noise(777, 200_000));
    for room_bytes in [0, 100, 1000, 10_000, 100_000] {
        storage.limit_room(room_bytes);
        let repository = desk.open(&storage, "one").unwrap();
        let error = desk.back_up(&repository).unwrap_err();
        let EngineError::Storage(error) = error else {
            panic!("{error}")
        };
        assert_eq!(error.kind, ErrorKind::Full);
        assert!(error.to_string().contains("free some space"), "{error}");
        assert!(desk.dump(&repository, &first).unwrap() == before);
    }
    storage.heal();
    desk.back_up(&desk.open(&storage, "one").unwrap()).unwrap();
}

#[test]
fn a_read_only_storage_can_be_read() {
    let desk = Desk::new(Cache::Memory);
    desk.write("file", &noise(1, 3000));
    let storage = Arc::new(Faulty::new(Arc::new(ObjectStorage::memory())));
    Repository::init_on(storage.as_ref(), &secret("one"), &init_options()).unwrap();
    desk.back_up(&desk.open(&storage, "one").unwrap()).unwrap();
    for operation in [Operation::Put, Operation::Create, Operation::Delete] {
        storage.inject(Fault {
            nth: 1,
            operation: Some(operation),
            lasts: true,
            effect: Effect::Error(When::Before, ErrorKind::ReadOnly),
        });
    }
    let repository = desk.open(&storage, "one").unwrap();
    let first = snapshots(&repository).remove(0);
    assert!(desk.dump(&repository, &first).unwrap().len() > 3000);
    let error = desk.back_up(&repository).unwrap_err().to_string();
    assert!(error.contains("make the storage writable"), "{error}");
}

/// A small file system of its own, which is unmounted when the test ends.
pub struct Mounted(std::path::PathBuf);

impl Mounted {
    /// Mounts one; nothing where this user may not.
    pub fn new(folder: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(folder).unwrap();
        let mounted = is_root()
            && Command::new("mount")
                .args(["-t", "tmpfs", "-o", options, "larder-test"])
                .arg(folder)
                .output()
                .is_ok_and(|output| output.status.success());
        if !mounted {
            println!("skipped: this user, or this container, may not mount a file system");
        }
        mounted.then(|| Self(folder.to_path_buf()))
    }

    /// Changes how it is mounted.
    pub fn remount(&self, options: &str) {
        let run = run(Command::new("mount").args(["-o", options]).arg(&self.0));
        run.expect(0);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_and_a_read_only_one_say_so() {
    let world = World::bare();
    let Some(disk) = Mounted::new(&world.path("repo"), "size=8m") else {
        return;
    };
    world.ok(["init"]);
    world.write("small", noise(1, 1_000_000));
    world.backup(&[]);
    world.restore("latest", "before");
    world.write("large", noise(2, 20_000_000));
    let source = world.source();
    backup_of(&world, &source, &[])
        .expect(1)
        .says("free some space");
    world.run(["check", "--read-data"]).expect(0);
    fs::remove_file(source.join("large")).unwrap();
    let rest = world.restore("latest", "rest");
    assert_same(&world.path("before"), &rest);
    disk.remount("remount,ro");
    backup_of(&world, &source, &[]).expect(1).says("writable");
    assert_kept(&world);
    disk.remount("remount,rw,size=64m");
    backup_of(&world, &source, &[]).expect(0);
    assert_kept(&world);
}

#[test]
fn a_disk_without_a_byte_left_can_be_forgotten_in_and_pruned() {
    let world = World::bare();
    let Some(_disk) = Mounted::new(&world.path("repo"), "size=8m") else {
        return;
    };
    world.ok(["init"]);
    for number in 0..3 {
        world.write("changes", noise(number, 700_000));
        world.backup(&["--time", &format!("2026-01-0{}", number + 1)]);
    }
    world.restore("latest", "before");
    // Names of this kind are no object's.
    let filler = world.path("repo/a filler");
    let mut file = fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    backup_of(&world, &world.source(), &["--force"])
        .expect(1)
        .says("free some space");
    let before = world.pack_bytes();
    world.ok(["forget", "--keep-last", "1"]);
    world.ok(["prune", "--max-unused", "0"]);
    assert!(world.pack_bytes() + 1_400_000 < before);
    backup_of(&world, &world.source(), &["--force"]).expect(0);
    assert_same(&world.path("before"), &world.restore("latest", "after"));
    world.ok(["check", "--read-data"]);
}

#[test]
fn a_damaged_snapshot_is_said_by_whoever_names_the_latest() {
    let world = with_a_snapshot();
    world.write("folder/later", "later");
    world.backup(&[]);
    let mut cells: Vec<_> = fs::read_dir(world.path("repo/snapshots"))
        .unwrap()
        .map(|cell| cell.unwrap().path())
        .collect();
    cells.sort_by_key(|cell| fs::metadata(cell).unwrap().modified().unwrap());
    let newest = cells.last().unwrap();
    let mut bytes = fs::read(newest).unwrap();
    bytes[100] ^= 1;
    fs::remove_file(newest).unwrap();
    fs::write(newest, bytes).unwrap();
    for command in [
        &["snapshots"][..],
        &["ls", "latest"],
        &["diff", "latest", "latest"],
    ] {
        let shown = world.run(command).expect(0);
        let name = newest.file_name().unwrap().to_str().unwrap();
        assert!(shown.stderr.contains(name), "{command:?}: {shown:?}");
    }
}

#[test]
fn a_list_of_which_nothing_is_there_makes_no_snapshot() {
    let world = with_a_snapshot();
    let source = world.source();
    let list = world.path("list");
    let missing = [source.join("missing"), source.join("also missing")];
    let lines: String = missing
        .iter()
        .map(|path| format!("{}\n", path.display()))
        .collect();
    fs::write(&list, lines).unwrap();
    let more = ["--files-from", list.to_str().unwrap()];
    backup_of(&world, &world.source(), &more)
        .expect(1)
        .says("no snapshot was made");
    assert_eq!(world.json(["snapshots"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_cache_folder_that_cannot_be_used_costs_time_alone() {
    let world = with_a_snapshot();
    let file = world.path("file");
    fs::write(&file, "no folder").unwrap();
    let shown = run(world
        .command()
        .args(["snapshots", "--cache-dir"])
        .arg(&file))
    .expect(0);
    assert!(shown.stderr.contains("temporary cache"), "{shown:?}");
}

#[test]
fn a_repository_put_back_to_an_older_state_is_noticed_by_who_knew_the_newer_one() {
    let world = with_a_snapshot();
    let (repository, older) = (world.path("repo"), world.path("older"));
    copy(&repository, &older);
    world.write("more", "a second version");
    let lost = world.backup(&[])["snapshot"].as_str().unwrap().to_owned();
    fs::remove_dir_all(&repository).unwrap();
    copy(&older, &repository);
    // A cache may be deleted at any moment; what was seen is kept elsewhere.
    world.ok(["cache", "clean"]);
    let found = world.run(["check"]).expect(4);
    assert!(found.stdout.contains("this machine saw it"), "{found:?}");
    world.run(["prune"]).expect(1).says("--accept-rollback");
    let next = backup_of(&world, &world.source(), &[]).expect(0);
    let next = next.says("went back to an older state");
    assert!(next.stderr.contains(&lost), "{next:?}");
    // Whoever never saw the newer one cannot tell.
    let stranger = run(world
        .command()
        .env("XDG_STATE_HOME", world.path("other"))
        .arg("check"));
    stranger.expect(0);
    world.ok(["prune", "--accept-rollback"]);
    world.run(["check", "--read-data"]).expect(0);
    world.ok(["prune"]);
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(status.unwrap().success());
}
