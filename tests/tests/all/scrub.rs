//! Verifying a repository without its password, from the outside.

use std::fs;

use crate::program::{World, noise, run};

#[test]
fn a_storage_is_verified_without_a_password_and_damage_is_named() {
    let world = World::new();
    for number in 0..20 {
        world.write(&format!("f{number}"), noise(number, 60_000));
    }
    world.backup(&[]);
    world.write("more", noise(99, 10_000));
    world.backup(&[]);
    let scrub = |arguments: &[&str]| {
        let mut command = world.bare_command();
        command.env_remove("LARDER_REPO").arg("scrub");
        run(command.args(arguments).arg(world.path("repo")))
    };
    let count = world.objects("").len();
    let sound = scrub(&[]).expect(0);
    assert!(sound.stdout.contains("no damage was found"), "{sound:?}");
    assert_eq!(scrub(&["-q"]).expect(0).stdout, "");
    let told = scrub(&["--json"]).expect(0).summary();
    assert_eq!(told["verified"], count);
    assert_eq!(told["bytes"], told["bytes_read"]);
    let dry = scrub(&["--dry-run"]).expect(0);
    assert!(dry.stdout.starts_with("would read "), "{dry:?}");
    // The location may come by -r as well.
    run(world.bare_command().arg("scrub")).expect(0);

    let flip = |folder: &str| {
        let (path, size) = world.objects(folder).into_iter().next().unwrap();
        let whole = fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        bytes[usize::try_from(size / 2).unwrap()] ^= 4;
        fs::write(&path, bytes).unwrap();
        (path, whole)
    };
    for (folder, code) in [
        ("index", 5),
        ("sessions", 5),
        ("packs", 4),
        ("snapshots", 4),
    ] {
        let (path, whole) = flip(folder);
        let found = scrub(&["--json"]).expect(code).lines();
        assert_eq!(found.len(), 2, "{found:?}");
        let object = path.strip_prefix(world.path("repo")).unwrap();
        assert_eq!(found[0]["message_type"], "finding");
        assert_eq!(found[0]["object"], object.to_str().unwrap());
        let text = scrub(&["-q"]).expect(code).stdout;
        assert!(text.contains(object.to_str().unwrap()), "{text}");
        fs::write(&path, whole).unwrap();
    }
    fs::write(world.path("repo/packs/notes"), "mine").unwrap();
    let told = scrub(&["--json"]).expect(0).lines();
    assert_eq!(
        (&told[0]["severity"], &told[1]["unknown"]),
        (&"note".into(), &1.into())
    );
    let nowhere = world.path("nowhere");
    run(world.bare_command().arg("scrub").arg(nowhere)).expect(10);
}
