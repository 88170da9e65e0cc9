//! Mirrors, as a person keeps and uses them.

use std::fs;

use crate::program::{Run, World, assert_same, noise, run};

fn filled() -> World {
    let world = World::new();
    for number in 0..10 {
        world.write(&format!("f{number}"), noise(number, 50_000));
    }
    fs::create_dir(world.source().join("empty")).unwrap();
    world.backup(&[]);
    world
}

/// Syncs as somebody without the password does.
fn sync(world: &World, arguments: &[&str]) -> Run {
    let mut command = world.bare_command();
    command.arg("sync").arg("--to").arg(world.path("mirror"));
    run(command.args(arguments))
}

/// Runs a command on the mirror, with the password.
fn on_mirror(world: &World, arguments: &[&str]) -> Run {
    let mut command = world.command();
    command.env("LARDER_REPO", world.path("mirror"));
    run(command.args(arguments))
}

#[test]
fn a_mirror_is_kept_without_the_password_and_read_with_it() {
    let world = filled();
    let dry = sync(&world, &["--dry-run"]).expect(0);
    assert!(dry.stdout.starts_with("would copy "), "{dry:?}");
    assert!(!world.path("mirror").exists());
    let mut inside = world.bare_command();
    inside
        .arg("sync")
        .arg("--to")
        .arg(world.path("repo/inside"));
    run(&mut inside).expect(1).says("lie within each other");
    assert!(!world.path("repo/inside").exists());
    let made = sync(&world, &[]).expect(0);
    assert!(made.stdout.starts_with("made a mirror at "), "{made:?}");
    world.write("f3", noise(99, 70_000));
    world.backup(&[]);
    let told = sync(&world, &["--json"]).expect(0).summary();
    assert_eq!(
        (&told["made"], &told["snapshots"]),
        (&false.into(), &2.into())
    );
    assert!(told["copied"].as_u64().unwrap() > 0, "{told}");
    let told = sync(&world, &["--json"]).expect(0).summary();
    assert_eq!(
        (&told["copied"], &told["manifest"]),
        (&0.into(), &().into())
    );
    assert_eq!(sync(&world, &["-q"]).expect(0).stdout, "");
    on_mirror(&world, &["check", "--read-data"]).expect(0);
    run(world.bare_command().arg("scrub").arg(world.path("mirror"))).expect(0);
    let target = world.path("restored");
    let spec = format!("latest:{}", world.source().display());
    let line = ["restore", &spec, "--target", target.to_str().unwrap()];
    on_mirror(&world, &line).expect(0);
    assert_same(&world.source(), &target);
}

#[test]
fn what_prunes_let_go_of_is_deleted_on_request_only() {
    let world = filled();
    sync(&world, &[]).expect(0);
    for number in 0..5 {
        fs::remove_file(world.source().join(format!("f{number}"))).unwrap();
    }
    world.backup(&[]);
    world.ok(["forget", "latest~1"]);
    world.ok(["prune", "--max-unused", "0%"]);
    let kept = sync(&world, &[]).expect(0);
    assert!(kept.stdout.contains("--delete removes them"), "{kept:?}");
    let bytes = |folder: &str| -> u64 {
        let found = walk(&world.path(folder));
        found
            .iter()
            .map(|path| fs::metadata(path).unwrap().len())
            .sum()
    };
    assert!(bytes("mirror/packs") > bytes("repo/packs"));
    let deleted = sync(&world, &["--delete"]).expect(0);
    assert!(
        deleted.stdout.contains("that prunes let go of"),
        "{deleted:?}"
    );
    assert_eq!(bytes("mirror/packs"), bytes("repo/packs"));
    on_mirror(&world, &["check", "--read-data"]).expect(0);
}

#[test]
fn a_mirror_takes_writes_only_once_it_is_promoted() {
    let world = filled();
    sync(&world, &[]).expect(0);
    let source = world.source();
    let back_up = ["backup", source.to_str().unwrap()];
    for line in [
        &back_up[..],
        &["forget", "latest", "--allow-empty"],
        &["prune"],
        &["tag", "latest", "--add", "x"],
        &["pin", "latest"],
        &[
            "key",
            "add",
            "--new-key-file",
            world.path("key").to_str().unwrap(),
        ],
        &["key", "recovery"],
    ] {
        on_mirror(&world, line).expect(1).says("is a mirror");
    }
    on_mirror(&world, &["init"]).expect(1).says("already");
    run(world
        .command()
        .args(["sync", "promote"])
        .arg(world.path("repo")))
    .expect(1)
    .says("is no mirror");
    fs::remove_dir_all(world.path("repo")).unwrap();
    let mut promote = world.bare_command();
    promote.args(["sync", "promote"]).arg(world.path("mirror"));
    promote.env("LARDER_KEY_FILE", world.path("key"));
    let promoted = run(promote.arg("--json")).expect(0);
    assert!(promoted.stdout.contains("\"snapshots\": 1"), "{promoted:?}");
    world.write("new", "new");
    on_mirror(&world, &back_up).expect(0);
    on_mirror(&world, &["forget", "latest~1"]).expect(0);
    on_mirror(&world, &["prune"]).expect(0);
    on_mirror(&world, &["check", "--read-data"]).expect(0);
    // It is a repository now, and may have a mirror of its own, and is none.
    let mut again = world.bare_command();
    again
        .env("LARDER_REPO", world.path("mirror"))
        .arg("sync")
        .arg("--to");
    run(again.arg(world.path("second"))).expect(0);
    let world2 = filled();
    let mut over = world2.bare_command();
    run(over.args(["sync", "--to"]).arg(world.path("mirror")))
        .expect(1)
        .says("is no mirror");
}

#[test]
fn damage_in_the_repository_is_told_and_not_copied() {
    let world = filled();
    let (pack, size) = world
        .objects("packs")
        .into_iter()
        .max_by_key(|(_, size)| *size)
        .unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    bytes[usize::try_from(size / 2).unwrap()] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let told = sync(&world, &["--json"]).expect(4).lines();
    let object = pack.strip_prefix(world.path("repo")).unwrap();
    assert_eq!(told[0]["object"], object.to_str().unwrap());
    assert!(!world.path("mirror").join(object).exists());
}

#[test]
fn what_rotted_in_a_mirror_is_mended_by_a_sync_that_verifies() {
    let world = filled();
    sync(&world, &[]).expect(0);
    let packs = walk(&world.path("mirror/packs"));
    let bytes = fs::read(&packs[0]).unwrap();
    let mut rotten = bytes.clone();
    rotten[100] ^= 1;
    fs::write(&packs[0], rotten).unwrap();
    let quick = sync(&world, &["--json"]).expect(0).summary();
    assert_eq!(quick["copied"], 0);
    let dry = sync(&world, &["--verify", "--dry-run"]).expect(0);
    assert!(
        dry.stdout.contains("1 object in the mirror rotted"),
        "{dry:?}"
    );
    let told = sync(&world, &["--verify", "--json"]).expect(0).summary();
    assert_eq!((&told["mended"], &told["copied"]), (&1.into(), &1.into()));
    assert_eq!(fs::read(&packs[0]).unwrap(), bytes);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(walk(&path)),
            false => found.push(path),
        }
    }
    found
}
