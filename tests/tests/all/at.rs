//! What there was at a time: `--at` on the commands that look into snapshots.

use std::fs;

use crate::program::World;

/// Backs sources up at a time.
fn back_up(world: &World, time: &str, sources: &[&str]) {
    let paths = sources.iter().map(|name| world.path(name));
    let paths: Vec<String> = paths.map(|path| path.display().to_string()).collect();
    let mut line = vec!["backup", "--time", time];
    line.extend(paths.iter().map(String::as_str));
    world.ok(line);
}

#[test]
fn each_source_is_taken_from_the_newest_snapshot_that_is_not_later() {
    let world = World::new();
    for name in ["one", "two"] {
        fs::create_dir(world.path(name)).unwrap();
    }
    let write = |name: &str, text: &str| fs::write(world.path(name), text).unwrap();
    write("one/f", "1");
    write("two/g", "1");
    back_up(&world, "2026-11-01 03:00", &["one", "two"]);
    write("one/f", "22");
    back_up(&world, "2026-11-02 03:00", &["one"]);
    write("two/g", "333");
    write("two/new", "");
    back_up(&world, "2026-11-03 03:00", &["two"]);
    write("one/f", "4444");
    write("two/g", "4444");
    back_up(&world, "2026-11-04 03:00", &["one", "two"]);

    let ids = world.json(["snapshots"]);
    let ids = ids.as_array().unwrap();
    let id = |at: usize| ids[at]["id"].as_str().unwrap();
    for (time, (from_one, one), (from_two, two)) in [
        ("2026-11-01 04:00", (0, "1"), (0, "1")),
        ("2026-11-02 03:00", (1, "22"), (0, "1")),
        // A day alone is all of it, as in @[2026-11-02].
        ("2026-11-02", (1, "22"), (0, "1")),
        ("2026-11-03 12:00", (1, "22"), (2, "333")),
        ("2026-11-09", (3, "4444"), (3, "4444")),
    ] {
        let target = world.path("out");
        let line = [
            "restore",
            "--at",
            time,
            "--target",
            target.to_str().unwrap(),
        ];
        let told = world.ok(line);
        for from in [from_one, from_two] {
            assert!(
                told.contains(&format!("snapshot {} of ", &id(from)[..8])),
                "{told}"
            );
        }
        let found = |name: &str| {
            let path = world.path(name);
            fs::read_to_string(target.join(path.strip_prefix("/").unwrap())).unwrap()
        };
        assert_eq!(
            (found("one/f").as_str(), found("two/g").as_str()),
            (one, two)
        );
        fs::remove_dir_all(&target).unwrap();

        // One path, from where it lies, and with JSON.
        let path = world.path("one");
        let path = path.to_str().unwrap();
        let file = format!("{path}/f");
        assert_eq!(world.ok(["dump", "--at", time, &file]), one);
        let lines = world.lines([&line[..], &[path]].concat());
        let chosen: Vec<_> = lines
            .iter()
            .filter(|line| line["message_type"] == "chosen")
            .collect();
        assert_eq!(
            (chosen.len(), &chosen[0]["snapshot"]),
            (1, &id(from_one).into())
        );
        assert_eq!(chosen[0]["sources"], serde_json::json!([path]));
        assert_eq!(fs::read_to_string(target.join("f")).unwrap(), one);
        fs::remove_dir_all(&target).unwrap();

        let listed = world.json(["ls", "--at", time, "--recursive"]);
        let sizes: Vec<_> = listed
            .as_array()
            .unwrap()
            .iter()
            .map(|item| {
                (
                    item["path"].as_str().unwrap().to_owned(),
                    item["size"].as_u64().unwrap(),
                )
            })
            .collect();
        for (name, text) in [("one/f", one), ("two/g", two)] {
            let path = world.path(name).display().to_string();
            let of: Vec<u64> = sizes
                .iter()
                .filter(|(one, _)| *one == path)
                .map(|(_, size)| *size)
                .collect();
            assert_eq!(of, [text.len() as u64], "{time} {name}");
        }
        let found = world.json(["find", "--at", time, "[fg]"]);
        let found: Vec<&str> = found
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["snapshot"].as_str().unwrap())
            .collect();
        let mut expected = vec![id(from_one), id(from_two)];
        expected.sort_by_key(|one| std::cmp::Reverse(ids.iter().position(|id| id["id"] == **one)));
        assert_eq!(found, expected, "{time}");
    }

    // Both sides of a difference are named by their times.
    let diff = world.ok(["diff", "@[2026-11-01 04:00]", "@[2026-11-04 04:00]"]);
    assert_eq!(
        diff.lines().filter(|line| line.starts_with("M ")).count(),
        2,
        "{diff}"
    );
    assert_eq!(
        diff.lines().filter(|line| line.starts_with("+ ")).count(),
        1,
        "{diff}"
    );

    let early = world.run([
        "restore",
        "--at",
        "2026-10-31",
        "--target",
        world.path("never").to_str().unwrap(),
    ]);
    assert!(
        early.stderr.contains("no snapshot at or before"),
        "{}",
        early.stderr
    );
    let named = world
        .run(["ls", "--at", "2026-11-02", "latest:/x"])
        .expect(1);
    assert!(
        named.stderr.contains("give the path alone"),
        "{}",
        named.stderr
    );
    assert!(world.run(["ls"]).code != 0);
}

#[test]
fn the_same_source_on_two_hosts_has_to_be_told_apart() {
    let world = World::new();
    world.write("f", "x");
    let source = world.source().display().to_string();
    world.ok(["backup", "--host", "one", &source]);
    world.ok(["backup", "--host", "two", &source]);
    let run = world.run(["ls", "--at", "2099-01-01", &source]);
    assert!(
        run.code != 0 && run.stderr.contains("--host"),
        "{}",
        run.stderr
    );
    let listed = world.ok(["ls", "--at", "2099-01-01", "--host", "one", &source]);
    assert!(listed.ends_with("/f\n"), "{listed}");
}
