//! Forgetting, tagging and pinning from the outside.

use std::fs;
use std::process::Stdio;

use serde_json::Value;

use crate::program::{Run, World, assert_same, noise, program, run};

/// A world with seven snapshots over four days of two hosts, in the order of their times.
fn filled() -> (World, Vec<String>) {
    let world = World::new();
    let mut ids = Vec::new();
    for (number, (host, time)) in [
        ("desk", "2026-01-10 08:00"),
        ("desk", "2026-01-10 20:00"),
        ("lap", "2026-01-10 23:00"),
        ("desk", "2026-01-11 20:00"),
        ("desk", "2026-01-12 20:00"),
        ("lap", "2026-01-12 23:00"),
        ("desk", "2026-01-13 20:00"),
    ]
    .into_iter()
    .enumerate()
    {
        world.write("file", format!("version {number}"));
        let summary = world.backup(&["--host", host, "--time", time]);
        ids.push(summary["snapshot"].as_str().unwrap().to_owned());
    }
    (world, ids)
}

fn listed(world: &World, more: &[&str]) -> Vec<String> {
    let list = world.json([&["snapshots"], more].concat());
    let list = list.as_array().unwrap().iter();
    list.map(|one| one["id"].as_str().unwrap().to_owned())
        .collect()
}

fn pick(ids: &[String], numbers: &[usize]) -> Vec<String> {
    numbers.iter().map(|number| ids[*number].clone()).collect()
}

fn refused(world: &World, arguments: &[&str]) -> Run {
    let before = listed(world, &[]);
    let run = world.run([&["forget"], arguments].concat()).expect(1);
    assert_eq!(listed(world, &[]), before);
    run
}

#[test]
fn rules_are_shown_with_their_reasons_and_carried_out() {
    let (world, ids) = filled();
    let rules = ["forget", "--keep-last", "1", "--keep-daily", "3"];
    let dry = world.lines([&rules[..], &["--dry-run"]].concat());
    assert_eq!(listed(&world, &[]), ids);
    let groups: Vec<&Value> = dry
        .iter()
        .filter(|one| one["message_type"] == "group")
        .collect();
    assert_eq!(groups.len(), 2);
    assert_eq!(groups[0]["host"], "desk");
    let mut decided: Vec<(String, bool, String)> = Vec::new();
    for group in groups {
        for one in group["snapshots"].as_array().unwrap() {
            decided.push((
                one["id"].as_str().unwrap().to_owned(),
                one["forget"].as_bool().unwrap(),
                one["reasons"].to_string(),
            ));
        }
    }
    let expected = [
        (0, true, "[]"),
        (1, true, "[]"),
        (3, false, r#"["daily"]"#),
        (4, false, r#"["daily"]"#),
        (6, false, r#"["last","daily"]"#),
        (2, false, r#"["daily"]"#),
        (5, false, r#"["last","daily"]"#),
    ];
    let expected =
        expected.map(|(number, forget, why)| (ids[number].clone(), forget, why.to_owned()));
    assert_eq!(decided, expected);
    let summary = dry.last().unwrap();
    assert_eq!(summary["dry_run"], true);
    assert_eq!(
        (
            &summary["kept"],
            summary["forgotten"].as_array().unwrap().len()
        ),
        (&5.into(), 2)
    );

    let shown = world.ok(rules);
    let line = |id: &str| shown.lines().find(|line| line.contains(&id[..8])).unwrap();
    assert!(line(&ids[0]).starts_with("forget "), "{shown}");
    assert!(
        line(&ids[4]).starts_with("keep ") && line(&ids[4]).ends_with("daily"),
        "{shown}"
    );
    assert!(
        shown.contains("host desk, path ") && shown.contains("host lap, path "),
        "{shown}"
    );
    assert!(
        shown.trim_end().ends_with("forgot 2 snapshots, kept 5"),
        "{shown}"
    );
    assert_eq!(listed(&world, &[]), ids[2..]);
    assert_eq!(listed(&world, &["--forgotten"]), ids[..2]);
    let forgotten = world.json(["snapshots", "--forgotten"]);
    assert_eq!(forgotten[0]["forgotten_on"], "desk");
    assert!(
        world
            .ok(["snapshots", "--forgotten"])
            .contains("2 snapshots forgotten")
    );

    // What is left is whole, and a second run finds nothing to do; -q says nothing.
    assert_same(&world.source(), &world.restore("latest", "out"));
    world.ok(["check", "--read-data"]);
    assert_eq!(world.ok([&rules[..], &["-q"]].concat()), "");
    assert_eq!(listed(&world, &[]).len(), 5);
}

#[test]
fn what_would_leave_nothing_is_refused() {
    let (world, ids) = filled();
    refused(&world, &[]).says("--keep-last 7");
    refused(&world, &["--keep-minimum-age", "1d"]).says("no rule");
    let named = refused(&world, &["--keep-tag", "none"]).says("--allow-empty");
    assert!(named.stderr.contains("host desk, path "), "{named:?}");
    assert!(named.stderr.contains("one more group"), "{named:?}");
    refused(&world, &["--keep-last", "0"]).says("--allow-empty");
    refused(&world, &["--keep-last", "0", "--dry-run"]).says("--allow-empty");
    refused(&world, &[&ids[2], &ids[5]]).says("host lap");
    refused(&world, &["latest:/home"]).says("leave the path away");
    refused(&world, &["--keep-within", "5m"]).says("mo for months");
    refused(&world, &["--keep-last", "1", "--time-zone", "Nowhere"]).says("Europe/Berlin");
    refused(&world, &["--keep-last", "1", "--keep-id", "ffffffffffff"]).says("ffffffffffff");
    let mut elsewhere = world.command();
    elsewhere.env("TZ", "Nowhere/Nothing");
    run(elsewhere.args(["forget", "--keep-last", "1"]))
        .expect(1)
        .says("Nowhere/Nothing");
    assert_eq!(listed(&world, &[]), ids);
    world.ok([
        "forget",
        "--keep-last",
        "0",
        "--allow-empty",
        "--host",
        "lap",
    ]);
    assert_eq!(listed(&world, &[]), pick(&ids, &[0, 1, 3, 4, 6]));
    // Nothing to look at is nothing to do.
    world.ok(["forget", "--keep-last", "1", "--host", "lap"]);
}

#[test]
fn snapshots_are_forgotten_by_name_and_kept_by_name() {
    let (world, ids) = filled();
    world.ok(["forget", "latest~1", &ids[0][..10], &ids[0]]);
    assert_eq!(listed(&world, &[]), pick(&ids, &[1, 2, 3, 4, 6]));
    refused(&world, &[&ids[0]]).says("no snapshot");
    let line = [
        "forget",
        "--keep-last",
        "1",
        "--keep-id",
        &ids[1],
        "--group-by",
        "",
    ];
    world.ok(line);
    assert_eq!(listed(&world, &[]), pick(&ids, &[1, 6]));
}

#[test]
fn the_zone_decides_what_a_day_is() {
    let (world, ids) = filled();
    // 23:00 UTC is the next day in Berlin; the hosts are one group here.
    let line = [
        "forget",
        "--keep-daily",
        "9",
        "--group-by",
        "paths",
        "--dry-run",
    ];
    let kept = |zone: &str| {
        let lines = world.lines([&line[..], &["--time-zone", zone]].concat());
        lines.last().unwrap()["kept"].clone()
    };
    assert_eq!((kept("UTC"), kept("Europe/Berlin")), (5.into(), 5.into()));
    let gone = |zone: &str| {
        let lines = world.lines([&line[..], &["--time-zone", zone]].concat());
        lines.last().unwrap()["forgotten"].clone()
    };
    let json = |numbers: &[usize]| serde_json::to_value(pick(&ids, numbers)).unwrap();
    assert_eq!(gone("UTC"), json(&[1, 4]));
    assert_eq!(gone("Europe/Berlin"), json(&[2, 5]));
}

#[test]
fn rules_of_larder_toml_hold_and_flags_beat_them() {
    let (world, ids) = filled();
    let settings = world.path("home/.config/larder/larder.toml");
    fs::create_dir_all(settings.parent().unwrap()).unwrap();
    fs::write(
        &settings,
        "[forget]\nkeep-last = 2\ngroup-by = 'paths'\nkeep-tag = ['x']\n",
    )
    .unwrap();
    let kept = |more: &[&str]| {
        let lines = world.lines([&["forget", "--dry-run"], more].concat());
        lines.last().unwrap()["kept"].as_u64().unwrap()
    };
    assert_eq!(kept(&[]), 2);
    assert_eq!(kept(&["--group-by", "host,paths"]), 4);
    assert_eq!(kept(&["--keep-last", "3"]), 3);
    assert_eq!(kept(&["--keep-last", "-1"]), 7);
    // A name is meant whatever the rules say.
    world.ok(["forget", "latest"]);
    assert_eq!(listed(&world, &[]), ids[..6]);
    fs::write(&settings, "[forget]\nkeep-dayly = 2\n").unwrap();
    world
        .run(["forget"])
        .expect(1)
        .says("did you mean 'keep-daily'");
    fs::write(&settings, "[forget]\nkeep-within = '5m'\n").unwrap();
    world.run(["forget"]).expect(1).says("[forget] keep-within");
}

#[test]
fn tags_and_pins_are_changed_and_heeded() {
    let (world, ids) = filled();
    let json = world.json(["pin", &ids[0]]);
    assert_eq!(
        (&json["changed"], &json["snapshots"][0]["pinned"]),
        (&1.into(), &true.into())
    );
    assert_eq!(world.json(["pin", &ids[0]])["changed"], 0);
    assert!(world.ok(["snapshots"]).contains("(pinned)"));
    refused(&world, &[&ids[0]]).says("larder unpin");
    let imagined = world.json(["tag", "--add", "b,a", &ids[1], "latest", "--dry-run"]);
    assert_eq!(
        (&imagined["dry_run"], &imagined["changed"]),
        (&true.into(), &2.into())
    );
    assert_eq!(
        imagined["snapshots"][1]["tags"],
        serde_json::json!(["a", "b"])
    );
    assert_eq!(world.json(["pin", &ids[1], "-n"])["changed"], 1);
    let tagged = world.json(["tag", "--add", "b,a", &ids[1], "latest"]);
    assert_eq!(tagged["changed"], 2);
    assert_eq!(
        tagged["snapshots"][1]["tags"],
        serde_json::json!(["a", "b"])
    );
    assert_eq!(
        world.json(["tag", "--tag", "a", "--remove", "a", "--add", "c"])["changed"],
        2
    );
    world.ok(["tag", "--set", "only", &ids[3]]);
    assert_eq!(listed(&world, &["--tag", "b,c"]), pick(&ids, &[1, 6]));
    assert_eq!(listed(&world, &["--tag", "only"]), pick(&ids, &[3]));
    world.ok(["tag", "--set", "", &ids[6]]);
    assert_eq!(listed(&world, &["--tag", "c"]), pick(&ids, &[1]));
    world
        .run(["tag", "--add", "x"])
        .expect(1)
        .says("no snapshot was named");
    world
        .run(["tag", "--add", " ", "latest"])
        .expect(1)
        .says("is no tag");
    world.run(["pin", "ffffffffffff"]).expect(1);
    world.ok(["forget", "--keep-tag", "only", "--keep-last", "1"]);
    assert_eq!(listed(&world, &[]), pick(&ids, &[0, 3, 5, 6]));
    world.ok(["unpin", &ids[0]]);
    world.ok(["forget", &ids[0]]);
    assert_eq!(listed(&world, &[]), pick(&ids, &[3, 5, 6]));
    world.run(["pin", &ids[0]]).expect(1);
    world.ok(["check"]);
}

#[test]
fn of_many_who_tag_at_once_none_is_lost() {
    let world = World::new();
    world.write("file", "x");
    world.backup(&[]);
    let tags: Vec<String> = (0..6).map(|number| format!("t{number}")).collect();
    let start = |tag: &String| {
        let mut command = world.command();
        command.args(["tag", "latest", "--add", tag]);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = tags.iter().map(start).collect();
    for child in children {
        let ended = child.wait_with_output().unwrap();
        assert!(
            ended.status.success(),
            "{}",
            String::from_utf8_lossy(&ended.stderr)
        );
    }
    assert_eq!(
        world.json(["snapshots"])[0]["tags"],
        serde_json::to_value(&tags).unwrap()
    );
}

#[test]
fn forgetting_and_pruning_are_one_command_if_asked() {
    let world = World::new();
    world.write("stays", noise(1, 200_000));
    for number in 0..4 {
        world.write("changes", noise(10 + number, 300_000));
        world.backup(&["--time", &format!("2026-01-1{number}")]);
    }
    let ids = listed(&world, &[]);
    refused(&world, &["--keep-last", "1", "--max-unused", "0"]).says("--prune");
    refused(&world, &["--keep-last", "0", "--prune"]).says("--allow-empty");
    let line = ["forget", "--keep-last", "1", "--prune", "--max-unused", "0"];
    let before = world.pack_bytes();
    let dry = world.lines([&line[..], &["--dry-run"]].concat());
    let dry = &dry.last().unwrap()["prune"];
    assert_eq!(
        (&dry["dry_run"], &dry["plan"]["clear_snapshots"]),
        (&true.into(), &3.into())
    );
    let promised = dry["plan"]["totals"]["freed_bytes"].as_u64().unwrap();
    assert!((900_000..1_000_000).contains(&promised), "{promised}");
    assert_eq!((listed(&world, &[]), world.pack_bytes()), (ids, before));

    let done = world.lines(line);
    let done = done.last().unwrap();
    assert_eq!(done["forgotten"].as_array().unwrap().len(), 3);
    let freed = before - world.pack_bytes();
    assert!((900_000..1_000_000).contains(&freed), "{freed}: {done}");
    assert_eq!(listed(&world, &["--forgotten"]), Vec::<String>::new());
    assert_same(&world.source(), &world.restore("latest", "out"));
    world.ok(["check", "--read-data"]);
    let shown = world.ok(line);
    assert!(shown.contains("forgot 0 snapshots, kept 1"), "{shown}");
    assert!(shown.contains("deleted 0 packs"), "{shown}");
    assert_eq!(world.ok([&line[..], &["-q"]].concat()), "");
}

#[test]
fn at_a_terminal_it_is_said_what_frees_the_space() {
    let (world, ids) = filled();
    let piped = world.ok(["forget", &ids[0]]);
    assert!(!piped.contains("larder prune"), "{piped}");
    let terminal = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";
    let mut command = world.command_of("python3".as_ref());
    command.args(["-c", terminal]).arg(program());
    let shown = run(command.args(["forget", &ids[1]])).expect(0);
    assert!(
        shown.stdout.contains("forgot 1 snapshot") && shown.stdout.contains("larder prune"),
        "{shown:?}"
    );
}
