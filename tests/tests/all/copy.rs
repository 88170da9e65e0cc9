//! Copying snapshots between repositories, as a person does.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use crate::program::{Run, World, assert_same, noise, run, write_old};

const OTHER: &str = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100\n";

/// A repository with two snapshots of an awkward source, and an empty one beside it.
fn filled() -> World {
    let world = World::new();
    world.write("long", noise(1, 3_000_000));
    world.write("folder/short", "short");
    world.write("empty", "");
    fs::hard_link(world.source().join("long"), world.source().join("link")).unwrap();
    symlink("folder/short", world.source().join("symlink")).unwrap();
    let sparse = fs::File::create(world.source().join("sparse")).unwrap();
    sparse.set_len(9 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, &noise(2, 70_000), 5 << 20).unwrap();
    let mode = fs::Permissions::from_mode(0o640);
    fs::set_permissions(world.source().join("long"), mode).unwrap();
    world.backup(&["--tag", "first"]);
    world.write("folder/more", noise(3, 100_000));
    world.backup(&[]);
    fs::write(world.path("other-key"), OTHER).unwrap();
    let mut init = world.bare_command();
    init.env("LARDER_REPO", world.path("other"));
    run(init
        .env("LARDER_KEY_FILE", world.path("other-key"))
        .arg("init"))
    .expect(0);
    world
}

fn copy(world: &World, arguments: &[&str]) -> Run {
    let mut command = world.command();
    command.arg("copy").arg("--to").arg(world.path("other"));
    command.arg("--to-key-file").arg(world.path("other-key"));
    run(command.args(arguments))
}

fn on_other(world: &World, arguments: &[&str]) -> Run {
    let mut command = world.bare_command();
    command.env("LARDER_REPO", world.path("other"));
    command.env("LARDER_KEY_FILE", world.path("other-key"));
    run(command.args(arguments))
}

#[test]
fn copies_restore_to_the_same_and_are_made_once() {
    let world = filled();
    let dry = copy(&world, &["--dry-run"]).expect(0);
    assert!(dry.stdout.contains("would copy 2 snapshots"), "{dry:?}");
    assert_eq!(
        on_other(&world, &["snapshots", "--json"])
            .expect(0)
            .stdout
            .trim(),
        "[]"
    );
    let told = copy(&world, &["--json"]).expect(0).lines();
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told[0]["message_type"], "copied");
    assert_eq!(
        (&told[2]["copied"], &told[2]["existed"]),
        (&2.into(), &0.into())
    );
    let again = copy(&world, &["--json"]).expect(0).summary();
    assert_eq!(
        (&again["copied"], &again["existed"]),
        (&0.into(), &2.into())
    );

    let here: serde_json::Value = world.json(["snapshots"]);
    let there = on_other(&world, &["snapshots", "--json"]).expect(0);
    let there: serde_json::Value = serde_json::from_str(&there.stdout).unwrap();
    for (one, other) in here
        .as_array()
        .unwrap()
        .iter()
        .zip(there.as_array().unwrap())
    {
        for same in ["time", "end", "host", "user", "tags", "sources"] {
            assert_eq!(one[same], other[same]);
        }
        assert_ne!(one["id"], other["id"]);
        let (mine, theirs) = (one["id"].as_str().unwrap(), other["id"].as_str().unwrap());
        let restored = world.restore(mine, &format!("here-{mine}"));
        let target = world.path(&format!("there-{theirs}"));
        let spec = format!("{theirs}:{}", world.source().display());
        let line = ["restore", &spec, "--target", target.to_str().unwrap()];
        on_other(&world, &line).expect(0);
        assert_same(&restored, &target);
    }
    on_other(&world, &["check", "--read-data"]).expect(0);
    // The next backup there compares with the copy, and stores what is new alone.
    let source = world.source();
    let next = on_other(&world, &["--json", "backup", source.to_str().unwrap()]);
    let next = next.expect(0).summary();
    assert_eq!(
        next["statistics"]["bytes_added"].as_u64().unwrap() / 10_000,
        0,
        "{next}"
    );
    // Retention takes copies for what they are copies of.
    let kept = on_other(&world, &["forget", "--keep-last", "3", "--dry-run"]).expect(0);
    assert!(!kept.stdout.contains("contradicts"), "{kept:?}");
}

#[test]
fn snapshots_are_chosen_as_elsewhere_and_mistakes_are_told() {
    let world = filled();
    let told = copy(&world, &["--json", "--tag", "first"])
        .expect(0)
        .summary();
    assert_eq!(told["copied"], 1);
    let told = copy(&world, &["--json", "latest"]).expect(0).summary();
    assert_eq!((&told["copied"], &told["existed"]), (&1.into(), &0.into()));
    copy(&world, &["ffffffff"]).expect(1).says("ffffffff");
    let to = |place: &str, key: &str| {
        let mut command = world.command();
        command.arg("copy").arg("--to").arg(world.path(place));
        run(command.arg("--to-key-file").arg(world.path(key)))
    };
    to("nowhere", "other-key").expect(10);
    to("other", "key").expect(12);
    to("repo", "key").expect(1).says("same repository");
    // A password for the other one never comes from where this one's does.
    let mut command = world.command();
    let run_without = run(command.arg("copy").arg("--to").arg(world.path("other")));
    run_without.expect(1).says("no password was given");
    // It may come from a file, a command and the environment.
    let mut add = world.bare_command();
    add.env("LARDER_REPO", world.path("other"));
    add.env("LARDER_KEY_FILE", world.path("other-key"));
    write_old(&world.path("word"), b"the other's\n");
    add.args(["key", "add", "--new-password-file"])
        .arg(world.path("word"));
    run(&mut add).expect(0);
    let with = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = world.command();
        command.arg("copy").arg("--to").arg(world.path("other"));
        run(command.args(arguments).envs(environment.iter().copied()))
    };
    let word = world.path("word");
    with(&["--to-password-file", word.to_str().unwrap()], &[]).expect(0);
    with(&["--to-password-command", "echo \"the other's\""], &[]).expect(0);
    with(&[], &[("LARDER_TO_PASSWORD", "the other's")]).expect(0);
}
