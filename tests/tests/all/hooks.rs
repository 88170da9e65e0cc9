//! Hooks from the outside: when they are run, what they are told, and what their failures do.

use std::fs;

use crate::program::{World, run};

const TELL: &str =
    "echo $LARDER_HOOK $LARDER_OUTCOME $LARDER_EXIT_CODE $LARDER_SNAPSHOT >> $HOME/told";

fn told(world: &World) -> Vec<String> {
    let told = fs::read_to_string(world.path("home/told")).unwrap_or_default();
    let _ = fs::remove_file(world.path("home/told"));
    told.lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn hooks_come_in_their_turn_and_are_told_how_it_came_out() {
    let mut world = World::new();
    world.write("file", "content");
    let source = world.source();
    let source = source.to_str().unwrap();
    let settings = world.path("larder.toml");
    let file = format!(
        "[backup]\nsources = ['{source}']\nbefore = ['echo from the file; {TELL}']\nafter = ['{TELL}']\n\
         after-success = ['{TELL}']\nafter-failure = ['{TELL}']\nhook-timeout = '5m'\n"
    );
    fs::write(&settings, file).unwrap();
    let settings = ("LARDER_CONFIG".to_owned(), settings.display().to_string());
    world.environment.push(settings);

    let lines = world.lines([
        "backup",
        "--before",
        "echo by flag; echo $LARDER_REPOSITORY",
    ]);
    let summary = lines.last().unwrap();
    let id = summary["snapshot"].as_str().unwrap();
    let expected = [
        "before",
        &format!("after-success success 0 {id}"),
        &format!("after success 0 {id}"),
    ];
    assert_eq!(told(&world), expected);
    let hooks = summary["hooks"].as_array().unwrap();
    assert_eq!(hooks.len(), 4);
    assert_eq!(hooks[0]["output"], "from the file");
    let output = format!("by flag\n{}", world.path("repo").display());
    assert_eq!(hooks[1]["output"], output.as_str());
    assert!(hooks.iter().all(|hook| hook["succeeded"] == true));

    world.ok(["backup", "--no-hooks"]);
    world.ok(["backup", "--dry-run"]);
    assert!(told(&world).is_empty());

    let missing = world.path("missing");
    let partly = world
        .run(["backup", source, missing.to_str().unwrap()])
        .expect(3);
    assert!(partly.stdout.contains("saved"), "{partly:?}");
    let lines = told(&world);
    assert!(
        lines[1].starts_with("after-success incomplete 3 "),
        "{lines:?}"
    );

    world
        .run(["backup", "--command", "exit 9", "--name", "x"])
        .expect(1);
    let expected = ["before", "after-failure failure 1", "after failure 1"];
    assert_eq!(told(&world), expected);
}

#[test]
fn a_failure_before_stops_the_run_and_one_behind_it_is_told() {
    let world = World::new();
    world.write("file", "content");
    let source = world.source();
    let source = source.to_str().unwrap();
    let fails = "echo the disk is not mounted; exit 5";
    let never = "touch $HOME/never";
    let arguments = [
        "backup", source, "--before", fails, "--before", never, "--after", TELL,
    ];
    let failed = world.run(arguments).expect(1);
    for text in [
        "nothing was backed up",
        fails,
        "exit code 5",
        "the disk is not mounted",
    ] {
        assert!(failed.stderr.contains(text), "{}", failed.stderr);
    }
    assert!(!world.path("home/never").exists());
    assert_eq!(told(&world), ["after failure 1"]);
    assert_eq!(world.json(["snapshots"]), serde_json::json!([]));

    // The snapshot is there, but what was to follow did not work.
    let arguments = [
        "--json",
        "backup",
        source,
        "--after-success",
        fails,
        "--after",
        TELL,
    ];
    let failed = run(world.command().args(arguments)).expect(1);
    assert!(
        failed.stderr.contains("the disk is not mounted"),
        "{}",
        failed.stderr
    );
    assert!(failed.summary()["snapshot"].is_string());
    assert_eq!(world.json(["snapshots"]).as_array().unwrap().len(), 1);
    assert_eq!(told(&world).len(), 1);

    let arguments = [
        "backup",
        source,
        "--before",
        "sleep 600",
        "--hook-timeout",
        "1s",
    ];
    let late = world.run(arguments).expect(1);
    assert!(late.stderr.contains("longer than 1 s"), "{}", late.stderr);
}

#[test]
fn a_repository_that_does_not_open_is_told_and_secrets_are_not() {
    let world = World::new();
    world.write("file", "content");
    let source = world.source();
    let source = source.to_str().unwrap();
    let wrong = "PASSWORD-that-is-wrong";
    let mut command = world.command();
    command.env("LARDER_PASSWORD", wrong).args([
        "backup",
        source,
        "--before",
        "env > $HOME/before",
        "--after-failure",
        TELL,
    ]);
    run(&mut command).expect(12);
    assert_eq!(told(&world), ["after-failure failure 12"]);
    let before = fs::read_to_string(world.path("home/before")).unwrap();
    assert!(before.contains("LARDER_HOOK=before"), "{before}");
    assert!(!before.contains(wrong), "{before}");
}
