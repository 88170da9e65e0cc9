//! Bundles as a person makes and takes them: exported, carried, listed in place, imported.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::awkward::{self, Removed};
use crate::program::{Run, World, assert_same, noise, run, tool};

const OTHER: &str = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100\n";
const BUNDLE: &str = "0f0e0d0c0b0a090807060504030201000f0e0d0c0b0a09080706050403020100\n";

/// Adds keys and an empty repository with other keys and another chunker.
fn beside(world: &World) {
    fs::write(world.path("other-key"), OTHER).unwrap();
    fs::write(world.path("bundle-key"), BUNDLE).unwrap();
    on(
        world,
        "other",
        "other-key",
        &["init", "--chunker", "fastcdc"],
    )
    .expect(0);
}

/// A repository with two snapshots of a plain source, and another one beside it.
fn filled() -> World {
    let world = World::new();
    world.write("long", noise(1, 3_000_000));
    world.write("folder/short", "short");
    world.backup(&["--tag", "first"]);
    world.write("folder/more", noise(3, 100_000));
    world.backup(&[]);
    beside(&world);
    world
}

/// Runs the program on another repository of the world; a location stands as it is.
fn on(world: &World, repository: &str, key: &str, arguments: &[&str]) -> Run {
    run(command_on(world, repository, key).args(arguments))
}

fn command_on(world: &World, repository: &str, key: &str) -> Command {
    let mut command = world.bare_command();
    match repository.starts_with("bundle:") {
        true => command.env("LARDER_REPO", repository),
        false => command.env("LARDER_REPO", world.path(repository)),
    };
    command.env("LARDER_KEY_FILE", world.path(key));
    command.env("LARDER_BUNDLE_KEY_FILE", world.path("bundle-key"));
    command
}

fn export(world: &World, arguments: &[&str]) -> Run {
    on(world, "repo", "key", &[&["export"][..], arguments].concat())
}

fn bundle(world: &World) -> PathBuf {
    let path = world.path("x.bundle");
    export(world, &["-o", path.to_str().unwrap()]).expect(0);
    path
}

fn import(world: &World, bundle: &Path) -> Run {
    let line = ["--json", "import", bundle.to_str().unwrap()];
    on(world, "other", "other-key", &line)
}

/// Restores the source of a snapshot, from any repository of the world.
fn restore(world: &World, (repository, key): (&str, &str), snapshot: &str, to: &Path) {
    let spec = format!("{snapshot}:{}", world.source().display());
    let line = ["restore", &spec, "--target", to.to_str().unwrap()];
    on(world, repository, key, &line).expect(0);
}

/// Gives the names and sizes of everything in a folder of the world.
fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => found.extend(files(&path)),
            Ok(metadata) => found.push((path, metadata.len())),
            Err(_) => {}
        }
    }
    found.sort();
    found
}

#[test]
fn an_awkward_tree_comes_back_from_a_bundle_and_from_where_it_was_imported() {
    let world = World::new();
    let source = world.source();
    fs::remove_dir(&source).unwrap();
    let targets = [
        "old",
        "new",
        "bundle-old",
        "bundle-new",
        "other-old",
        "other-new",
    ];
    let targets = targets.map(|name| world.path(name));
    let _cleanup = Removed(&source);
    let _more = targets.each_ref().map(|path| Removed(path));
    let [old, new, bundle_old, bundle_new, other_old, other_new] = &targets;
    awkward::make(&source, "4");
    world.backup(&[]);
    let edits = [source.as_os_str(), "--seed".as_ref(), "4".as_ref()];
    tool("edits.py", &edits).expect(0);
    world.backup(&[]);
    beside(&world);
    let here = ("repo", "key");
    restore(&world, here, "latest~1", old);
    restore(&world, here, "latest", new);
    assert_same(&source, new);

    let file = bundle(&world);
    let location = format!("bundle:{}", file.display());
    let there = (location.as_str(), "bundle-key");
    restore(&world, there, "latest~1", bundle_old);
    restore(&world, there, "latest", bundle_new);
    assert_same(old, bundle_old);
    assert_same(new, bundle_new);
    on(&world, there.0, there.1, &["check", "--read-data"]).expect(0);

    let told = import(&world, &file).expect(0);
    assert_eq!(told.summary()["copied"], 2);
    let there = ("other", "other-key");
    restore(&world, there, "latest~1", other_old);
    restore(&world, there, "latest", other_new);
    assert_same(old, other_old);
    assert_same(new, other_new);
    on(&world, there.0, there.1, &["check", "--read-data"]).expect(0);
}

#[test]
fn a_bundle_is_read_like_a_repository_and_takes_no_writes() {
    let world = filled();
    let file = bundle(&world);
    let before = fs::read(&file).unwrap();
    let location = format!("bundle:{}", file.display());
    let there = |arguments: &[&str]| on(&world, &location, "bundle-key", arguments);
    let short = format!("latest:{}/folder/short", world.source().display());
    assert_eq!(there(&["dump", &short]).expect(0).stdout, "short");
    let listed = there(&["ls", "latest", "--recursive"]).expect(0).stdout;
    assert!(listed.contains("folder/more"), "{listed}");
    let found = there(&["find", "more"]).expect(0).stdout;
    assert!(found.contains("folder/more"), "{found}");
    let changed = there(&["diff", "latest~1", "latest"]).expect(0).stdout;
    assert!(changed.contains("folder/more"), "{changed}");
    let here = world.json(["snapshots"]);
    let told = there(&["--json", "snapshots"]).expect(0).stdout;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    for (one, other) in here
        .as_array()
        .unwrap()
        .iter()
        .zip(told.as_array().unwrap())
    {
        for same in ["time", "end", "host", "user", "tags", "sources"] {
            assert_eq!(one[same], other[same]);
        }
    }
    there(&["scrub"]).expect(0);
    there(&["stats"]).expect(0);
    let source = world.source();
    let source = source.to_str().unwrap();
    let mirror = world.path("mirror");
    for refused in [
        &["backup", source][..],
        &["forget", "latest"],
        &["prune"],
        &["key", "remove", "00"],
        &["tag", "latest", "--add", "x"],
        &["sync", "--to", mirror.to_str().unwrap()],
    ] {
        there(refused).expect(1).says("bundle");
    }
    assert!(!mirror.exists());
    there(&["init"]).expect(1);
    assert!(fs::read(&file).unwrap() == before);
    // Some of the snapshots, under a password.
    let part = world.path("part.bundle");
    fs::write(world.path("word"), "the bundle's\n").unwrap();
    let mut command = world.command();
    command.args(["--json", "export", "--tag", "first", "--label", "for you"]);
    command
        .arg("--output")
        .arg(&part)
        .arg("--bundle-password-file");
    let told = run(command.arg(world.path("word"))).expect(0);
    let lines = told.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0]["message_type"], "exported");
    assert_eq!(told.summary()["snapshots"], 1);
    let length = fs::metadata(&part).unwrap().len();
    assert_eq!(told.summary()["bytes_written"], length);
    let mut command = world.bare_command();
    command.env("LARDER_REPO", format!("bundle:{}", part.display()));
    command.env("LARDER_PASSWORD", "the bundle's");
    let told = run(command.args(["--json", "key", "list"]))
        .expect(0)
        .stdout;
    assert!(told.contains("for you"), "{told}");
    on(
        &world,
        &format!("bundle:{}", part.display()),
        "key",
        &["ls", "latest"],
    )
    .expect(12);
}

#[test]
fn a_bundle_goes_through_a_pipe_once() {
    let world = filled();
    for expected in [2, 0] {
        let mut from = command_on(&world, "repo", "key")
            .args(["export", "-o", "-"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut to = command_on(&world, "other", "other-key");
        to.args(["--json", "import", "-"])
            .stdin(from.stdout.take().unwrap());
        let told = run(&mut to).expect(0).summary();
        assert_eq!(told["copied"], expected, "{told}");
        assert_eq!(told["existed"], 2 - expected, "{told}");
        Run::of(from.wait_with_output().unwrap()).expect(0);
    }
    on(&world, "other", "other-key", &["check", "--read-data"]).expect(0);
    restore(
        &world,
        ("other", "other-key"),
        "latest",
        &world.path("restored"),
    );
    assert_same(&world.source(), &world.path("restored"));
    // A pipe with a name, and a dry run.
    let told = on(
        &world,
        "other",
        "other-key",
        &["import", "--dry-run", "/dev/null"],
    );
    told.expect(1).says("does not begin as a bundle");
    let file = bundle(&world);
    let fifo = world.path("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let mut writer = Command::new("cp").arg(&file).arg(&fifo).spawn().unwrap();
    let told = import(&world, &fifo).expect(0).summary();
    assert_eq!(told["existed"], 2);
    assert!(writer.wait().unwrap().success());
    // Back to where it came from nothing goes twice.
    let line = ["--json", "import", file.to_str().unwrap()];
    let told = on(&world, "repo", "key", &line).expect(0).summary();
    assert_eq!((&told["copied"], &told["existed"]), (&0.into(), &2.into()));
}

#[test]
fn what_cannot_be_exported_or_imported_is_refused_and_changes_nothing() {
    let world = filled();
    let file = bundle(&world);
    let whole = fs::read(&file).unwrap();
    let name = file.to_str().unwrap();
    export(&world, &["-o", name]).expect(1).says("--force");
    let told = export(&world, &["--json", "-o", name, "--force", "latest"]).expect(0);
    assert_eq!(told.summary()["snapshots"], 1);
    assert!(fs::read(&file).unwrap() != whole);
    fs::write(&file, &whole).unwrap();
    export(&world, &["-o", "-", "--json"])
        .expect(1)
        .says("-o FILE");
    let new = world.path("new.bundle");
    let new_name = new.to_str().unwrap();
    let told = export(&world, &["-o", new_name, "--dry-run", "latest"]).expect(0);
    assert!(
        told.stdout.starts_with("would export 1 snapshot: "),
        "{told:?}"
    );
    export(&world, &["-o", new_name, "ffffffff"])
        .expect(1)
        .says("ffffffff");
    export(&world, &["-o", new_name, "--host", "nobody"])
        .expect(1)
        .says("no snapshot");
    let nowhere = world.path("nowhere/x").display().to_string();
    export(&world, &["-o", &nowhere])
        .expect(1)
        .says("cannot write");
    let left = fs::read_dir(world.path("")).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    let is_partial = |name: &std::ffi::OsString| name.to_string_lossy().contains(".partial");
    assert!(!new.exists() && !left.iter().any(is_partial), "{left:?}");
    // A full disk is said to be one.
    if Path::new("/dev/full").exists() {
        export(&world, &["-o", "/dev/full"])
            .expect(1)
            .says("No space left");
    }

    let objects = files(&world.path("other"));
    let refuse = |bytes: &[u8], says: &str| {
        let cut = world.path("cut.bundle");
        fs::write(&cut, bytes).unwrap();
        let run_cut = import(&world, &cut).expect(1);
        run_cut.says(says);
        let mut child = command_on(&world, "other", "other-key")
            .args(["import", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may have seen enough before all is written.
        let _ = child.stdin.take().unwrap().write_all(bytes);
        Run::of(child.wait_with_output().unwrap())
            .expect(1)
            .says(says);
    };
    for length in [0, 10, 100, whole.len() / 2, whole.len() - 1] {
        refuse(&whole[..length], "no whole bundle");
    }
    refuse(&[whole.as_slice(), b"x"].concat(), "follows its end");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    refuse(&flipped, "no whole bundle");
    assert_eq!(files(&world.path("other")), objects);

    let line = ["import", name];
    let mut wrong = command_on(&world, "other", "other-key");
    wrong.env("LARDER_BUNDLE_KEY_FILE", world.path("key"));
    run(wrong.args(line)).expect(12);
    let mut without = command_on(&world, "other", "other-key");
    without.env_remove("LARDER_BUNDLE_KEY_FILE");
    run(without.args(line))
        .expect(1)
        .says("no password was given");
    let missing = world.path("missing").display().to_string();
    on(&world, "other", "other-key", &["import", &missing]).expect(10);
    let missing = format!("bundle:{missing}");
    on(&world, &missing, "key", &["ls", "latest"]).expect(10);
    on(&world, "other", "other-key", &["import", "--dry-run", name]).expect(0);
    assert_eq!(files(&world.path("other")), objects);
    assert_no_remains(&world);
}

/// Nothing that was put aside, and no index of a bundle, is left in the caches.
fn assert_no_remains(world: &World) {
    let remains = files(&world.path("home")).into_iter().filter(|(path, _)| {
        let path = path.to_string_lossy();
        path.contains("/bundle-") || path.contains("/.tmp")
    });
    assert_eq!(remains.collect::<Vec<_>>(), Vec::new());
}

#[test]
fn killed_while_it_imports_it_leaves_a_whole_repository_and_no_remains() {
    let world = filled();
    let file = bundle(&world);
    let bytes = fs::read(&file).unwrap();
    let objects = files(&world.path("other"));
    // Half of it went through the pipe.
    let mut child = command_on(&world, "other", "other-key")
        .args(["import", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&bytes[..bytes.len() / 2]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(files(&world.path("other")), objects);
    assert_no_remains(&world);
    // Some objects were written.
    for nth in [1, 3, 5] {
        let before = files(&world.path("other")).len();
        let mut child = command_on(&world, "other", "other-key")
            .args(["import", file.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while child.try_wait().unwrap().is_none()
            && files(&world.path("other")).len() < before + nth
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        on(&world, "other", "other-key", &["check", "--read-data"]).expect(0);
    }
    import(&world, &file).expect(0);
    assert_no_remains(&world);
    restore(
        &world,
        ("other", "other-key"),
        "latest",
        &world.path("restored"),
    );
    assert_same(&world.source(), &world.path("restored"));
    on(&world, "other", "other-key", &["check", "--read-data"]).expect(0);
    let told = on(&world, "other", "other-key", &["--json", "snapshots"]).expect(0);
    let told: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(told.as_array().unwrap().len(), 2);
}
