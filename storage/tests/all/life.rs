//! The life of a repository on a real server, by the program that people run: everything that they do
//! with one, and the trees that come back compared by a tool that shares nothing with the engine.

#[path = "../../../tests/tests/all/program.rs"]
#[allow(dead_code, reason = "the tests from the outside use the rest")]
mod program;

use std::fs;

use program::{World, assert_same, noise, run};

/// Makes a repository, backs up twice, restores, forgets, prunes and checks.
pub fn live(url: &str, settings: &[(&str, &str)]) {
    let mut world = World::bare();
    let named = |(name, value): &(&str, &str)| {
        let name = name.to_ascii_uppercase().replace('-', "_");
        (format!("LARDER_STORAGE_{name}"), (*value).to_owned())
    };
    world.environment = settings.iter().map(named).collect();
    let repository = ("LARDER_REPO".to_owned(), url.to_owned());
    world.environment.push(repository);
    world.run(["snapshots"]).expect(10);
    world.ok(["init"]);
    world.run(["init"]).expect(1).says("already");
    // Several packs, and small files beside them.
    for number in 0..4 {
        world.write(&format!("large/{number}"), noise(number, 9_000_000));
    }
    for number in 0..300 {
        world.write(
            &format!("small/{}/{number}", number % 7),
            noise(number, 900),
        );
    }
    let first = world.backup(&[]);
    let before = world.restore("latest", "before");
    assert_same(&world.source(), &before);

    world.write("large/1", noise(99, 9_000_000));
    fs::remove_file(world.source().join("small/3/3")).unwrap();
    let second = world.backup(&[]);
    let added =
        |summary: &serde_json::Value| summary["statistics"]["bytes_stored"].as_u64().unwrap();
    assert!(added(&second) < added(&first) / 2, "{second}");
    let unchanged = world.backup(&[]);
    assert!(added(&unchanged) < 100_000, "{unchanged}");
    assert_same(&world.source(), &world.restore("latest", "after"));
    // The first one is still what it was, read with an empty cache.
    fs::remove_dir_all(world.path("home")).unwrap();
    fs::create_dir(world.path("home")).unwrap();
    assert_same(&before, &world.restore("latest~2", "again"));

    world.ok(["forget", "--keep-last", "1"]);
    world.ok(["prune", "--max-unused", "0", "--wait"]);
    assert_eq!(world.json(["snapshots"]).as_array().unwrap().len(), 1);
    run(world.command().args(["check", "--read-data"])).expect(0);
    assert_same(&world.source(), &world.restore("latest", "last"));
    let stored = world.json(["stats"])["pack_bytes"].as_u64().unwrap();
    assert!(stored < added(&first) + 2_000_000, "{stored}");
}
