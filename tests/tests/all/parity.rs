//! Parity, as a person uses it: packs that are damaged and lost come back without any other copy.

use std::fs;

use crate::program::{World, assert_same, noise, run};

#[test]
fn packs_come_back_from_parity_alone() {
    let world = World::new();
    for number in 0..6 {
        world.write(&format!("f{number}"), noise(number, 200_000));
    }
    world.backup(&[]);
    assert_eq!(world.json(["parity"])["protected"], 0);
    world
        .run(["parity", "build"])
        .expect(1)
        .says("parity set 5");
    world.run(["parity", "set", "1"]).expect(1);
    world.ok(["parity", "set", "50"]);
    world.write("new", noise(90, 50_000));
    world.backup(&[]);
    let planned = world.json(["parity", "build", "--dry-run"]);
    let built = world.json(["parity", "build"]);
    assert_eq!(planned["packs"], built["packs"]);
    let found = world.json(["parity"]);
    assert_eq!(
        (&found["percent"], &found["protected"]),
        (&50.into(), &found["packs"])
    );
    world.ok(["check", "--read-data"]);

    let packs = world.objects("packs").into_iter();
    let largest = packs.max_by_key(|(_, size)| *size).unwrap().0;
    let sound = fs::read(&largest).unwrap();
    let mut damaged = sound.clone();
    let third = damaged.len() / 3;
    damaged[third..2 * third].fill(0);
    fs::write(&largest, &damaged).unwrap();
    let text = world.run(["check", "--read-data"]).expect(4).stdout;
    assert!(
        text.contains("to be had again from parity, by `larder repair`"),
        "{text}"
    );
    run(world.bare_command().arg("scrub")).expect(4);
    let dry = world.run(["repair"]).expect(5).stdout;
    assert!(dry.contains("(rebuilt from parity)"), "{dry}");
    assert!(fs::read(&largest).unwrap() == damaged);
    let done = world.run(["repair", "--apply", "--json"]).expect(0);
    assert_eq!(done.lines()[0]["from"], "parity");
    assert!(fs::read(&largest).unwrap() == sound);
    world.ok(["check", "--read-data"]);
    let target = world.path("restored");
    let spec = format!("latest:{}", world.source().display());
    world.ok(["restore", &spec, "--target", target.to_str().unwrap()]);
    assert_same(&world.source(), &target);

    // Damaged parity costs no data, and is made anew.
    let parity = world.objects("parity").into_iter().next().unwrap().0;
    let sound = fs::read(&parity).unwrap();
    fs::write(&parity, &sound[..sound.len() - 1]).unwrap();
    run(world.bare_command().arg("scrub")).expect(5);
    world.run(["check", "--read-data"]).expect(5);
    world.run(["repair", "--read-data", "--apply"]).expect(0);
    assert!(fs::read(&parity).unwrap() == sound);
    let mut sync = world.bare_command();
    run(sync.arg("sync").arg("--to").arg(world.path("mirror"))).expect(0);
    let name = parity.file_name().unwrap();
    assert!(fs::read(world.path("mirror/parity").join(name)).unwrap() == sound);
    world.ok(["parity", "off"]);
    assert!(world.json(["parity"])["percent"].is_null());
}
