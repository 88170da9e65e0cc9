//! What opens a repository is damaged, and put right from its twin: the whole story, as a person sees it.

use std::fs;
use std::path::PathBuf;

use crate::program::{World, assert_same, noise, run};

fn made() -> World {
    let world = World::new();
    world.write("f", noise(1, 50_000));
    world.backup(&[]);
    world
}

fn only(world: &World, folder: &str) -> PathBuf {
    let found: Vec<_> = world.objects(folder).into_keys().collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.into_iter().next().unwrap()
}

/// Lets everybody work on a repository of which this object is damaged or missing, and then puts it right.
fn story(world: &World, victim: &PathBuf, whole: &[u8], name: &str) {
    let before = world.objects("").len();
    let backed = world
        .run(["backup", &world.source().display().to_string()])
        .expect(0);
    let backed = backed.says(name).says("its twin was read in its place");
    let backed = backed.says("larder repair --apply");
    drop(backed);
    let quiet = world.run(["-q", "snapshots"]).expect(0);
    assert_eq!(quiet.stderr, "");
    for level in ["quick", "structure", "data"] {
        let told = world.run(["check", "--level", level]).expect(5);
        assert!(told.stdout.contains(name), "{told:?}");
        assert!(told.stdout.contains("its twin is whole"), "{told:?}");
    }
    let told = world.run(["check", "--json"]).expect(5).lines();
    let finding = told.iter().find(|one| one["object"] == name).unwrap();
    assert_eq!(finding["healing"][0], "twin");
    let scrubbed = run(world.bare_command().arg("scrub")).expect(5);
    assert!(scrubbed.stdout.contains(name), "{scrubbed:?}");

    let dry = world.run(["repair"]).expect(5);
    assert!(dry.stdout.contains("would put 1 object"), "{dry:?}");
    assert!(fs::read(victim).ok().as_deref() != Some(whole));
    let applied = world.run(["repair", "--apply"]).expect(0);
    assert!(applied.stdout.contains("(from its twin)"), "{applied:?}");
    assert_eq!(fs::read(victim).unwrap(), whole);
    world.ok(["check", "--read-data"]);
    run(world.bare_command().arg("scrub")).expect(0);
    let again = world.run(["repair"]).expect(0);
    assert!(
        again.stdout.contains("nothing is to be repaired"),
        "{again:?}"
    );
    assert_eq!(world.run(["snapshots"]).expect(0).stderr, "");
    assert!(world.objects("").len() > before);
    let listed = world.json(["repair", "--list"]);
    assert_eq!(listed[0]["objects"][0], name);
}

#[test]
fn a_damaged_config_is_read_from_its_twin_and_put_back() {
    let world = made();
    let config = only(&world, "config");
    let whole = fs::read(&config).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(&config, flipped).unwrap();
    story(&world, &config, &whole, "config/0000000000000001");
    let target = world.path("restored");
    let spec = format!("latest:{}", world.source().display());
    world.ok(["restore", &spec, "--target", target.to_str().unwrap()]);
    assert_same(&world.source(), &target);
}

#[test]
fn a_deleted_key_slot_is_read_from_its_twin_and_put_back() {
    let world = made();
    let slot = only(&world, "keys");
    let whole = fs::read(&slot).unwrap();
    fs::remove_file(&slot).unwrap();
    let name = format!("keys/{}", slot.file_name().unwrap().to_str().unwrap());
    story(&world, &slot, &whole, &name);
}

#[test]
fn what_somebody_planted_stops_no_backup_and_is_put_aside() {
    let world = made();
    let planted = world.path("repo/config/0000000000000002");
    fs::write(&planted, b"torn").unwrap();
    let name = "config/0000000000000002";
    let source = world.source().display().to_string();
    world
        .run(["backup", &source])
        .expect(0)
        .says(name)
        .says("it counts for nothing");
    let refused = world.run(["parity", "set", "5"]).expect(1);
    refused.says(name).says("larder repair --apply");
    assert!(world.run(["check"]).expect(5).stdout.contains(name));
    let applied = world.run(["repair", "--apply"]).expect(0);
    assert!(applied.stdout.contains("put aside"), "{applied:?}");
    assert!(!planted.exists());
    world.ok(["parity", "set", "5"]);
    world.ok(["check"]);
}

#[test]
fn an_old_repository_has_a_note_and_is_given_twins() {
    let world = made();
    fs::remove_dir_all(world.path("repo/twins")).unwrap();
    let told = world.run(["check"]).expect(0);
    assert!(told.stdout.contains("have no twins"), "{told:?}");
    world.run(["repair"]).expect(5);
    world.ok(["repair", "--apply"]);
    assert_eq!(world.objects("twins").len(), 2);
    let told = world.run(["check"]).expect(0);
    assert!(!told.stdout.contains("twin"), "{told:?}");
    world.ok(["prune"]);
    assert_eq!(world.objects("twins").len(), 2);
}
