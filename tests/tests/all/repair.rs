//! Repairing a repository, as a person does it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::program::{World, assert_same, noise, run};

fn mirrored() -> World {
    let world = World::new();
    for number in 0..10 {
        world.write(&format!("f{number}"), noise(number, 50_000));
    }
    world.backup(&[]);
    let mut sync = world.bare_command();
    run(sync.arg("sync").arg("--to").arg(world.path("mirror"))).expect(0);
    world
}

fn flip(path: &Path, percent: usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() * percent / 100;
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Gives the largest pack of the repository.
pub fn largest_pack(world: &World) -> PathBuf {
    let packs = world.objects("packs").into_iter();
    packs.max_by_key(|(_, size)| *size).unwrap().0
}

fn restored_is_the_source(world: &World) {
    let target = world.path("restored");
    let spec = format!("latest:{}", world.source().display());
    world.ok(["restore", &spec, "--target", target.to_str().unwrap()]);
    assert_same(&world.source(), &target);
    fs::remove_dir_all(target).unwrap();
}

#[test]
fn a_repository_without_its_config_and_keys_is_put_back_from_a_mirror() {
    let world = mirrored();
    let mirror = world.path("mirror").display().to_string();
    fs::remove_dir_all(world.path("repo/config")).unwrap();
    fs::remove_dir_all(world.path("repo/keys")).unwrap();
    fs::remove_dir_all(world.path("repo/twins")).unwrap();
    let pack = largest_pack(&world);
    let sound = fs::read(&pack).unwrap();
    flip(&pack, 50);
    let damaged = fs::read(&pack).unwrap();
    world.run(["snapshots"]).expect(1).says("no config");
    let from = ["repair", "--read-data", "--from", &mirror];
    let dry = world.run(from).expect(5);
    assert!(dry.stdout.contains("would put 5 objects"), "{dry:?}");
    assert!(!world.path("repo/config").exists());
    let applied = world
        .run([&from[..], &["--apply", "--json"]].concat())
        .expect(0);
    let summary = applied.summary();
    assert_eq!(
        (&summary["objects"], &summary["lost"]),
        (&5.into(), &0.into())
    );
    assert_eq!(applied.lines()[0]["message_type"], "mended");
    assert!(fs::read(&pack).unwrap() == sound);
    world.ok(["check", "--read-data"]);
    restored_is_the_source(&world);
    let again = world.run([&from[..], &["--apply"]].concat()).expect(0);
    assert!(
        again.stdout.contains("nothing is to be repaired"),
        "{again:?}"
    );
    // Everybody else passes over what was put aside.
    world.ok(["prune"]);
    run(world.bare_command().arg("scrub")).expect(0);
    let listed = world.json(["repair", "--list"]);
    let id = listed[0]["repair"].as_str().unwrap();
    assert_eq!(listed[0]["objects"].as_array().unwrap().len(), 5);
    let would = world.json(["repair", "--undo", id, "--dry-run"]);
    assert_eq!(
        (&would["objects"], &would["repair"]),
        (&5.into(), &serde_json::Value::Null)
    );
    assert!(fs::read(&pack).unwrap() == sound);
    let undone = world.json(["repair", "--undo", id]);
    assert_eq!(undone["objects"], 5);
    assert!(fs::read(&pack).unwrap() == damaged);
    world
        .run(["repair", "--undo", undone["repair"].as_str().unwrap()])
        .expect(0);
    world.ok(["check", "--read-data"]);
    world
        .run(["repair", "--undo", "x"])
        .expect(1)
        .says("32 hex digits");
}

#[test]
fn without_a_mirror_what_opens_is_saved_and_what_is_lost_is_named() {
    let world = mirrored();
    fs::remove_dir_all(world.path("mirror")).unwrap();
    let pack = largest_pack(&world);
    // Its directory alone.
    let whole = fs::read(&pack).unwrap();
    flip(&pack, 99);
    world.run(["check", "--read-data"]).expect(5);
    world.run(["repair"]).expect(5);
    let saved = world.run(["repair", "--apply"]).expect(0);
    assert!(saved.stdout.contains("saved "), "{saved:?}");
    world.ok(["prune", "--max-unused", "0"]);
    assert!(!pack.exists());
    world.ok(["check", "--read-data"]);
    restored_is_the_source(&world);
    drop(whole);

    let pack = largest_pack(&world);
    flip(&pack, 40);
    let lost = world
        .run(["repair", "--read-data", "--apply", "--json"])
        .expect(4);
    let lost: Vec<_> = lost
        .lines()
        .into_iter()
        .filter(|one| one["message_type"] == "lost")
        .collect();
    assert!(!lost.is_empty());
    assert!(lost[0]["ranges"][0][1].as_u64().unwrap() > 0, "{lost:?}");
    let text = world.run(["repair", "--read-data"]).expect(4).stdout;
    assert!(text.contains(": bytes 0.."), "{text}");
    // The source still has it.
    world.backup(&["--force"]);
    world.run(["repair", "--read-data"]).expect(0);
    restored_is_the_source(&world);
}

#[test]
fn only_a_copy_of_the_same_repository_is_taken_from() {
    let world = mirrored();
    let other = mirrored();
    let repo = other.path("repo").display().to_string();
    world
        .run(["repair", "--from", &repo])
        .expect(1)
        .says("holds another repository");
    let nowhere = world.path("nowhere").display().to_string();
    world.run(["repair", "--from", &nowhere]).expect(10);
    let mut on_mirror = world.command();
    on_mirror
        .env("LARDER_REPO", world.path("mirror"))
        .arg("repair");
    run(&mut on_mirror).expect(1).says("larder sync --verify");
}
