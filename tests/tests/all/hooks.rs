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

const TELL_OF_SOURCE: &str =
    "echo $LARDER_HOOK ${LARDER_SOURCE##*/} $LARDER_OUTCOME >> $HOME/told; echo to be kept";

#[test]
fn hooks_around_each_source_come_in_their_turn() {
    let world = World::new();
    for name in ["one", "two"] {
        fs::create_dir(world.source().join(name)).unwrap();
        world.write(&format!("{name}/file"), name);
    }
    let [one, two] = ["one", "two"].map(|name| world.source().join(name).display().to_string());
    let around = |before: &str| {
        let mut arguments = vec![
            "--json".to_owned(),
            "backup".to_owned(),
            one.clone(),
            two.clone(),
        ];
        for (flag, line) in [
            ("--before-source", before),
            ("--before-source", TELL_OF_SOURCE),
            ("--after-source", TELL_OF_SOURCE),
            ("--after-source-success", TELL_OF_SOURCE),
            ("--after-source-failure", TELL_OF_SOURCE),
            ("--after", TELL_OF_SOURCE),
        ] {
            arguments.extend([flag.to_owned(), line.to_owned()]);
        }
        arguments
    };
    let summary = world.run(around("true")).expect(0).summary();
    let expected = [
        "before-source one",
        "after-source-success one success",
        "after-source one success",
        "before-source two",
        "after-source-success two success",
        "after-source two success",
        "after success",
    ];
    assert_eq!(told(&world), expected);
    let hooks = summary["hooks"].as_array().unwrap();
    assert_eq!(hooks.len(), 9);
    assert_eq!(hooks[1]["output"], "to be kept");
    assert_eq!(hooks[1]["source"], one.as_str());
    assert!(hooks[8]["source"].is_null());

    // One that fails keeps its source from being read, and no other.
    let run = world
        .run(around("test ${LARDER_SOURCE##*/} != one"))
        .expect(3);
    let summary = run.summary();
    let why = summary["issues"][0]["error"].as_str().unwrap();
    assert!(why.contains("the hook before-source of"), "{why}");
    assert_eq!(summary["statistics"]["files"], 1);
    let lines = told(&world);
    assert_eq!(lines[0], "after-source-failure one failure");
    assert_eq!(lines[1], "after-source one failure");
    assert_eq!(lines[2], "before-source two");
    assert_eq!(world.json(["snapshots"]).as_array().unwrap().len(), 2);

    // Where none is read, there is no snapshot; and a dry run and --no-hooks run none.
    world.run(around("false")).expect(1);
    assert_eq!(told(&world).len(), 5);
    for more in ["--dry-run", "--no-hooks"] {
        let mut arguments = around("false");
        arguments.push(more.to_owned());
        world.run(arguments).expect(0);
        assert!(told(&world).is_empty(), "{more}");
    }

    // One behind a source that fails is told, but the snapshot is there.
    let arguments = [
        "--json",
        "backup",
        &one,
        "--after-source",
        "echo left over; exit 7",
    ];
    let run = world.run(arguments).expect(1);
    assert!(run.stderr.contains("left over"), "{}", run.stderr);
    assert!(run.summary()["snapshot"].is_string());
    // A source that is not read to its end has failed.
    let arguments = [
        "backup",
        "--command",
        "exit 9",
        "--name",
        "x",
        "--after-source-failure",
        TELL_OF_SOURCE,
    ];
    world.run(arguments).expect(1);
    assert_eq!(told(&world), ["after-source-failure x failure"]);
}
