//! Streams from the outside: what is piped in, and what commands print.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Stdio;

use crate::program::{Run, World, noise, run};

/// Backs up with these arguments, and what is piped in.
fn pipe(world: &World, arguments: &[&str], input: &[u8]) -> Run {
    let mut command = world.command();
    command.args(["--json", "backup"]).args(arguments);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // One that refuses its arguments does not read.
    let _ = stdin.write_all(input);
    drop(stdin);
    Run::of(child.wait_with_output().unwrap())
}

fn summary(world: &World, arguments: &[&str]) -> serde_json::Value {
    let mut all = vec!["backup"];
    all.extend_from_slice(arguments);
    world.lines(all).pop().unwrap()
}

#[test]
fn what_is_piped_in_comes_back_and_is_stored_once() {
    let world = World::new();
    let mut bytes = noise(1, 20 << 20);
    let first = pipe(&world, &["--stdin", "--name", "dumps/db.sql"], &bytes).expect(0);
    let first = first.summary();
    assert_eq!(first["statistics"]["bytes_read"], bytes.len());
    let path = "latest:/dumps/db.sql";
    assert_eq!(run(world.command().args(["dump", path])).raw, bytes);

    // The same bytes are no change, though nobody can know before they are read.
    let second = pipe(&world, &["--name", "/dumps/db.sql", "--stdin"], &bytes).expect(0);
    let second = second.summary();
    assert_eq!(second["parent"], first["snapshot"]);
    assert_eq!(second["statistics"]["unchanged"], 1);
    assert_eq!(second["statistics"]["bytes_added"], 0);

    // What is put in the middle costs the chunks around it.
    bytes.splice(9_000_000..9_000_000, *b"some rows more");
    let third = pipe(&world, &["--stdin", "--name", "dumps/db.sql"], &bytes).expect(0);
    let third = third.summary();
    assert_eq!(third["statistics"]["changed"], 1);
    let added = third["statistics"]["bytes_added"].as_u64().unwrap();
    assert!(added > 0 && added <= 9 << 20, "{added}");

    let target = world.path("out");
    let target = target.to_str().unwrap();
    world.ok(["restore", "latest", "--target", target]);
    assert!(fs::read(world.path("out/dumps/db.sql")).unwrap() == bytes);
    let versions = world.json(["history", "/dumps/db.sql"]);
    assert_eq!(versions.as_array().unwrap().len(), 2, "{versions}");
    let groups = world.json(["snapshots"]);
    let sources = groups.as_array().unwrap().iter();
    assert!(
        sources
            .map(|one| &one["sources"][0])
            .all(|one| one == "/dumps/db.sql")
    );
    world.ok(["check", "--read-data"]);
}

#[test]
fn an_empty_stream_is_an_empty_file() {
    let world = World::new();
    pipe(&world, &["--stdin", "--name", "nothing"], b"").expect(0);
    let listed = world.json(["ls", "latest:/nothing"]);
    assert_eq!(listed[0]["size"], 0, "{listed}");
    assert_eq!(listed[0]["type"], "file", "{listed}");
    assert_eq!(world.ok(["dump", "latest:/nothing"]), "");
}

#[test]
fn commands_folders_and_a_pipe_come_into_one_snapshot_in_their_turn() {
    let world = World::new();
    world.write("file", "of the folder");
    let source = world.source();
    let source = source.to_str().unwrap();
    let order = world.path("order");
    let note =
        |what: &str, says: &str| format!("echo {what} >> {}; printf {says}", order.display());
    let (b, a) = (note("b", "second"), note("a", "first"));
    let arguments = [
        "--command",
        &b,
        "--name",
        "z/b",
        source,
        "--stdin",
        "--name",
        "piped",
        "--command",
        &a,
        "--name",
        "a",
    ];
    pipe(&world, &arguments, b"third").expect(0);
    assert_eq!(fs::read_to_string(&order).unwrap(), "b\na\n");
    let expected = [
        ("/z/b", "second"),
        ("/a", "first"),
        ("/piped", "third"),
        (&format!("{source}/file"), "of the folder"),
    ];
    for (path, content) in expected {
        assert_eq!(world.ok(["dump", &format!("latest:{path}")]), content);
    }
    let listed = world.json(["snapshots"]);
    let read = listed[0]["read"].as_array().unwrap();
    let names: Vec<_> = read
        .iter()
        .map(|one| one["source"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["/z/b", source, "/piped", "/a"]);
    for pair in read.windows(2) {
        let time =
            |one: &serde_json::Value| -> jiff::Timestamp { one.as_str().unwrap().parse().unwrap() };
        assert!(time(&pair[0]["started"]) <= time(&pair[0]["ended"]));
        assert!(time(&pair[0]["ended"]) <= time(&pair[1]["started"]));
    }

    // Another order is the same set of sources.
    let again = ["--command", "printf first", "--name", "a", source];
    let again = [&again[..], &["--command", "printf 2nd", "--name", "z/b"]].concat();
    let again = [
        &again[..],
        &["--command", "printf third", "--name", "piped"],
    ]
    .concat();
    let second = summary(&world, &again);
    assert_eq!(second["parent"], listed[0]["id"]);
    assert_eq!(second["statistics"]["new"], 0);
    assert_eq!(second["statistics"]["changed"], 1, "{second}");
}

#[test]
fn a_command_that_fails_makes_no_snapshot() {
    let world = World::new();
    world.write("file", noise(3, 100_000));
    let source = world.source();
    let source = source.to_str().unwrap();
    for (line, how) in [
        (
            "echo some rows; echo the server went away >&2; exit 3",
            "exit code 3",
        ),
        ("echo some rows; kill -9 $$", "ended by signal 9"),
        ("/no/such/pg_dump shop", "127"),
    ] {
        let failed = world.run(["backup", source, "--command", line, "--name", "db.sql"]);
        let failed = failed.expect(1);
        assert!(failed.stderr.contains(line), "{}", failed.stderr);
        assert!(failed.stderr.contains(how), "{}", failed.stderr);
        if line.contains("went away") {
            let said = "the server went away";
            assert!(failed.stderr.contains(said), "{}", failed.stderr);
        }
        assert_eq!(world.json(["snapshots"]), serde_json::json!([]));
    }
    // What the folder gave was kept nevertheless, and is not stored again.
    let next = summary(
        &world,
        &[source, "--command", "echo all", "--name", "db.sql"],
    );
    assert!(next["resumed_from"].is_string(), "{next}");
    assert!(
        next["statistics"]["bytes_added"].as_u64().unwrap() < 10_000,
        "{next}"
    );
    world.ok(["check", "--read-data"]);
}

#[test]
fn an_interruption_ends_the_command_with_all_that_it_started() {
    let world = World::new();
    let pids = world.path("pids");
    let line = format!(
        "sleep 600 & echo $$ $! > {0}.new; mv {0}.new {0}; wait",
        pids.display()
    );
    let mut command = world.command();
    command.args(["backup", "--command", &line, "--name", "db.sql"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let pids = wait_for(&pids);
    let id = rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    let run = Run::of(child.wait_with_output().unwrap()).expect(130);
    assert!(run.stderr.contains("interrupted"), "{}", run.stderr);
    for pid in pids.split_whitespace() {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        assert!(stat.is_err() || stat.unwrap().contains(") Z"), "{pid}");
    }
    assert_eq!(world.json(["snapshots"]), serde_json::json!([]));
}

#[test]
fn a_second_interruption_kills_the_command_that_does_not_heed_the_first() {
    let world = World::new();
    let pids = world.path("pids");
    let line = format!(
        "trap '' TERM; sleep 600 & echo $$ $! > {0}.new; mv {0}.new {0}; wait",
        pids.display()
    );
    let mut command = world.command();
    command.args(["backup", "--command", &line, "--name", "db.sql"]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let pids = wait_for(&pids);
    let id = rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    let interrupt = || rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    interrupt();
    let said = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = said.map_while(Result::ok);
    assert!(said.any(|line| line.contains("once more ends at once")));
    interrupt();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    for pid in pids.split_whitespace() {
        wait_for_end(pid);
    }
}

fn wait_for_end(pid: &str) {
    const ATTEMPTS: usize = 1_000;
    for _ in 0..ATTEMPTS {
        match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) if !stat.contains(") Z") => {}
            _ => return,
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("process {pid} is still there");
}

fn wait_for(file: &Path) -> String {
    const ATTEMPTS: usize = 6_000;
    for _ in 0..ATTEMPTS {
        if let Ok(text) = fs::read_to_string(file) {
            return text;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("the command did not start");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_run() {
    let world = World::new();
    let ran = world.path("ran");
    let line = format!("touch {}", ran.display());
    let error = |arguments: &[&str]| {
        let mut all = vec!["backup"];
        all.extend_from_slice(arguments);
        world.run(all).expect(1).stderr
    };
    assert!(error(&["--command", &line]).contains("has no name"));
    assert!(error(&["--command", &line, "--name", "a", "--name", "b"]).contains("--name b"));
    assert!(error(&["/etc", "--name", "b"]).contains("--name b"));
    for name in ["../a", "a/../b", "a/", "", "/", "a//b"] {
        let told = error(&["--command", &line, "--name", name]);
        assert!(told.contains("is no name for a stream"), "{name}: {told}");
    }
    let long = "n".repeat(256);
    assert!(error(&["--command", &line, "--name", &long]).contains("more than 255 bytes"));
    let twice = ["--command", &line, "--name", "a", "--stdin", "--name", "/a"];
    assert!(error(&twice).contains("two sources have the name /a"));
    let within = ["/etc", "--command", &line, "--name", "etc/db.sql"];
    assert!(error(&within).contains("lies inside"));
    let both = ["--files-from", "-", "--stdin", "--name", "a"];
    assert!(error(&both).contains("both be standard input"));
    assert!(!ran.exists());
}

#[test]
fn commands_stand_in_the_settings_too() {
    let mut world = World::new();
    world.write("file", "x");
    let settings = world.path("larder.toml");
    let text = format!(
        "[backup]\nsources = ['{}']\ncommands = [{{ name = 'db.sql', command = 'echo rows' }}]\n",
        world.source().display()
    );
    fs::write(&settings, text).unwrap();
    let settings = ("LARDER_CONFIG".to_owned(), settings.display().to_string());
    world.environment.push(settings);
    world.ok(["backup"]);
    assert_eq!(world.ok(["dump", "latest:/db.sql"]), "rows\n");
    // What the command line names comes in place of them.
    pipe(&world, &["--stdin", "--name", "other"], b"x").expect(0);
    assert!(world.run(["dump", "latest:/db.sql"]).code == 1);
}

#[test]
fn a_password_command_takes_nothing_of_the_stream() {
    let world = World::bare();
    let mut init = world.bare_command();
    init.args(["init", "--password-command", "echo secret"]);
    run(&mut init).expect(0);
    let mut command = world.bare_command();
    command.args(["--password-command", "cat; echo secret"]);
    command.args(["backup", "--stdin", "--name", "a"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"all of it").unwrap();
    Run::of(child.wait_with_output().unwrap()).expect(0);
    let mut dump = world.bare_command();
    dump.args(["--password-command", "echo secret", "dump", "latest:/a"]);
    assert_eq!(run(&mut dump).expect(0).stdout, "all of it");
}
