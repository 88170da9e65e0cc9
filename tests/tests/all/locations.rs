//! Named locations from the outside: written by hand and by commands, used, and tried out.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::program::{Run, World, run};

/// A file as a person might have written it.
const BY_HAND: &str = "\
# My places.
threads = 2 # few

# The one in the cellar.
[locations.cellar]
url = 'repo-of-the-cellar'   # beside this file

[backup]
tag = ['t']
";

fn file(world: &World) -> PathBuf {
    world.path("home/.config/larder/larder.toml")
}

fn write(world: &World, text: &str) {
    let file = file(world);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
}

fn read(world: &World) -> String {
    fs::read_to_string(file(world)).unwrap()
}

/// Puts a location behind the other one.
fn with(text: &str, location: &str) -> String {
    text.replace("\n[backup]", &format!("{location}\n[backup]"))
}

/// Runs the program with these arguments and this standard input.
fn fed(world: &World, arguments: &[&str], input: &str) -> Run {
    let mut command = world.command();
    command.args(arguments).stdin(Stdio::piped());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        raw: output.stdout,
    }
}

#[test]
fn a_location_is_used_by_its_name_wherever_a_repository_is_named() {
    let world = World::bare();
    write(&world, BY_HAND);
    world.write("file", "content");
    let repository = file(&world).with_file_name("repo-of-the-cellar");
    world.ok(["-r", "cellar", "init"]);
    assert!(repository.join("config").is_dir());
    let source = world.source();
    world.ok(["-r", "cellar", "backup", source.to_str().unwrap()]);
    let mut command = world.command();
    let by_environment = run(command.env("LARDER_REPO", "cellar").arg("snapshots")).expect(0);
    assert!(by_environment.stdout.contains("1 snapshot"));
    write(&world, &format!("repository = 'cellar'\n{BY_HAND}"));
    let mut command = world.command();
    run(command.env_remove("LARDER_REPO").arg("snapshots")).expect(0);
    // A path is a path: the folder of that name is another place.
    let mut command = world.command();
    command.current_dir(world.path("tmp"));
    run(command.args(["-r", "./cellar", "snapshots"])).expect(10);
    // What is nearly a name makes no folder.
    let mut command = world.command();
    command.current_dir(world.path("tmp"));
    run(command.args(["-r", "celar", "init"]))
        .expect(1)
        .says("did you mean 'cellar'?");
    assert_eq!(fs::read_dir(world.path("tmp")).unwrap().count(), 0);
}

#[test]
fn a_mistake_is_named_with_its_place_and_secrets_are_looked_after() {
    let world = World::bare();
    write(&world, "[locations.a]\nurl = 's3://bucket'\nreigon = 'x'\n");
    for line in [
        &["location", "validate", "a"][..],
        &["-r", "a", "snapshots"],
    ] {
        world
            .run(line)
            .expect(1)
            .says("larder.toml, line 3, column 1: ")
            .says("did you mean region?");
    }
    let list = world.json(["location", "list"]);
    assert_eq!(list[0]["settings"]["reigon"], "********");
    assert!(
        list[0]["mistake"]
            .as_str()
            .unwrap()
            .contains("line 3, column 1")
    );
    // It is mended by hand or by command, and the others can be used meanwhile.
    world.ok(["location", "add", "b", "ftp://h"]);
    world.ok(["location", "show", "b"]);
    world.ok(["location", "edit", "a", "--unset", "reigon"]);
    assert!(world.json(["location", "show", "a"])["mistake"].is_null());
    write(&world, "[locations.a]\nurl = 'ftp://me:hunter2@h'\n");
    for line in [&["location", "list"][..], &["location", "show", "a"]] {
        let shown = world.run(line).expect(0);
        assert!(!shown.stdout.contains("hunter2") && !shown.stderr.contains("hunter2"));
    }
    let refused = world
        .run(["-r", "a", "snapshots"])
        .expect(1)
        .says("line 2, column 7");
    assert!(!refused.stderr.contains("hunter2"));
    write(
        &world,
        "[locations.a]\nurl = 'ftp://me@h'\npassword = 'hunter2'\n",
    );
    let shown = world.run(["location", "show", "a"]).expect(0);
    assert!(shown.stderr.is_empty() && shown.stdout.contains("********"));
    fs::set_permissions(file(&world), fs::Permissions::from_mode(0o644)).unwrap();
    let shown = world
        .run(["location", "show", "a"])
        .expect(0)
        .says("chmod 600");
    assert!(!shown.stdout.contains("hunter2") && !shown.stderr.contains("hunter2"));
}

#[test]
fn locations_are_added_shown_changed_and_removed_and_the_rest_of_the_file_stays() {
    let world = World::bare();
    write(&world, BY_HAND);
    world.ok([
        "location",
        "add",
        "cloud",
        "s3://bucket/x",
        "--set",
        "region=eu-west-1",
        "--set",
        "connections=4",
    ]);
    let added =
        "\n[locations.cloud]\nurl = \"s3://bucket/x\"\nregion = \"eu-west-1\"\nconnections = 4\n";
    assert_eq!(read(&world), with(BY_HAND, added));
    assert_eq!(
        world.json(["location", "show", "cloud"]),
        json!({
            "name": "cloud",
            "url": "s3://bucket/x",
            "settings": { "region": "eu-west-1", "connections": "4" },
            "usual": false,
        })
    );
    let list = world.json(["location", "list"]);
    let names: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(names, ["cellar", "cloud"]);
    assert!(world.ok(["location", "list"]).contains("2 locations"));

    world.ok([
        "location",
        "edit",
        "cloud",
        "--unset",
        "connections",
        "--set",
        "region=us-east-2",
        "--url",
        "s3://other",
    ]);
    let edited = "\n[locations.cloud]\nurl = \"s3://other\"\nregion = \"us-east-2\"\n";
    assert_eq!(read(&world), with(BY_HAND, edited));
    world.ok(["location", "rename", "cellar", "attic"]);
    let renamed = BY_HAND.replace("locations.cellar", "locations.attic");
    assert_eq!(read(&world), with(&renamed, edited));
    world.ok(["location", "remove", "cloud"]);
    assert_eq!(read(&world), renamed);
    for refused in [
        &["location", "remove", "cloud"][..],
        &["location", "show", "cellar"],
        &["location", "edit", "attic"],
        &["location", "edit", "attic", "--set", "region=x"],
        &["location", "rename", "attic", "a/b"],
        &["location", "add", "attic", "/x"],
        &["location", "add", "x", "s3://Not_A_Bucket"],
        &["location", "add", "x", "s3://bucket", "--set", "reigon=x"],
        &[
            "location",
            "add",
            "x",
            "ftp://me@h",
            "--set",
            "password=hunter2",
        ],
    ] {
        let refused = world.run(refused).expect(1);
        assert!(!refused.stderr.is_empty() && !refused.stderr.contains("hunter2"));
    }
    assert_eq!(read(&world), renamed);
    write(&world, "threads = \n");
    world
        .run(["location", "add", "x", "/x"])
        .expect(1)
        .says("line 1");
    assert_eq!(read(&world), "threads = \n");
}

#[test]
fn a_dry_run_says_what_would_change_and_leaves_the_file_as_it_is() {
    let world = World::bare();
    let none = world.ok(["location", "add", "cloud", "s3://bucket", "--dry-run"]);
    assert!(none.contains("would add the location cloud"), "{none}");
    assert!(!file(&world).exists());
    write(&world, BY_HAND);
    for (line, said) in [
        (
            &["add", "cloud", "s3://bucket"][..],
            "would add the location cloud",
        ),
        (
            &["edit", "cellar", "--url", "/y"],
            "would change the location cellar",
        ),
        (
            &["rename", "cellar", "attic"],
            "would rename the location cellar to attic",
        ),
        (&["remove", "cellar"], "would remove the location cellar"),
    ] {
        let line = [&["location"], line, &["--dry-run"]].concat();
        assert!(world.ok(line.clone()).contains(said), "{line:?}");
        assert_eq!(world.json(line)["dry_run"], true);
        assert_eq!(read(&world), BY_HAND);
    }
    // What would be refused is refused.
    world
        .run(["location", "remove", "cloud", "--dry-run"])
        .expect(1);
    world
        .run(["location", "add", "x", "s3://Not_A_Bucket", "--dry-run"])
        .expect(1);
}

#[test]
fn the_first_location_makes_the_file_and_a_secret_comes_by_standard_input() {
    let world = World::bare();
    let added = fed(
        &world,
        &[
            "location",
            "add",
            "web",
            "webdavs://me@h/x",
            "--secret",
            "password",
        ],
        "hunter2\n",
    )
    .expect(0);
    assert!(!added.stdout.contains("hunter2"));
    let text = "[locations.web]\nurl = \"webdavs://me@h/x\"\npassword = \"hunter2\"\n";
    assert_eq!(read(&world), text);
    let mode = fs::metadata(file(&world)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fed(
        &world,
        &["location", "edit", "web", "--secret", "password"],
        "",
    )
    .expect(1);
    fed(
        &world,
        &["location", "edit", "web", "--secret", "user"],
        "x\n",
    )
    .expect(1);
    assert_eq!(read(&world), text);
    let shown = world.json(["location", "show", "web"]);
    assert_eq!(shown["settings"]["password"], "********");
    // A file that is named may be new too.
    let other = world.path("other.toml");
    let other = other.to_str().unwrap();
    world.ok(["--config", other, "location", "add", "here", "."]);
    assert!(
        fs::read_to_string(other)
            .unwrap()
            .contains("[locations.here]\nurl = \"/")
    );
}

#[test]
fn a_folder_is_tried_out_and_left_as_it_was() {
    let world = World::new();
    let before = world.objects("");
    let mut lines = world.lines(["location", "validate", world.path("repo").to_str().unwrap()]);
    let summary = lines.pop().unwrap();
    assert_eq!(
        (&summary["works"], &summary["creates_exclusively"]),
        (&json!(true), &json!(true))
    );
    let steps: Vec<_> = lines
        .iter()
        .map(|line| line["step"].as_str().unwrap())
        .collect();
    assert_eq!(
        steps,
        [
            "find",
            "write",
            "read-back",
            "range-read",
            "list",
            "create-if-absent",
            "delete",
            "latency",
            "upload",
            "download"
        ]
    );
    assert!(
        lines
            .iter()
            .all(|line| line["outcome"] == "ok" && line["seconds"].is_f64())
    );
    assert_eq!(world.objects(""), before);
    assert!(!world.path("repo/probe").exists());
    write(
        &world,
        &format!(
            "[locations.here]\nurl = '{}'\n",
            world.path("repo").display()
        ),
    );
    let text = world.ok(["location", "validate", "here"]);
    assert!(text.contains("✓ create if absent") && text.contains("a repository would work"));
    assert!(!text.contains('✗'));
}

#[test]
fn what_fails_is_told_and_ends_with_1() {
    let world = World::bare();
    let nowhere = world.path("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    let text = world
        .run(["location", "validate", nowhere])
        .expect(1)
        .stdout;
    assert!(text.contains("✗ find the bucket or folder") && text.contains("give --create"));
    assert!(!PathBuf::from(nowhere).exists());
    world.ok(["location", "validate", "--create", nowhere]);
    assert_eq!(fs::read_dir(nowhere).unwrap().count(), 0);
    // Nothing listens on port 1, and nothing has this name.
    for (url, step, reason) in [
        ("sftp://127.0.0.1:1/x", "connect", "refused"),
        ("ftp://larder.invalid/x", "resolve", "host-not-found"),
    ] {
        let run = world.run(["--json", "location", "validate", url]).expect(1);
        let failed: Vec<Value> = run
            .lines()
            .into_iter()
            .filter(|line| line["outcome"] == "failed")
            .collect();
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert_eq!(
            (&failed[0]["step"], &failed[0]["reason"]),
            (&json!(step), &json!(reason))
        );
        assert!(!failed[0]["advice"].as_str().unwrap().is_empty());
        assert_eq!(run.summary()["works"], false);
    }
    let mut command = world.command();
    command.env("LARDER_STORAGE_PASSWORD", "hunter2");
    let warned = run(command.args(["location", "validate", "ftp://me@larder.invalid/x"]))
        .expect(1)
        .says("can read the credentials");
    assert!(!warned.stderr.contains("hunter2"));
    let added = ["location", "add", "x", nowhere, "--validate"];
    assert!(world.ok(added).contains("a repository would work"));
    // A change is tried with what stays as it was, and only then written.
    let before = world.ok(["location", "show", "x"]);
    let edit = ["location", "edit", "x", "--validate", "--dry-run", "--url"];
    let wrong = "webdav://127.0.0.1:1/x";
    world.run([&edit[..], &[wrong]].concat()).expect(1);
    assert_eq!(world.ok(["location", "show", "x"]), before);
    let tried = world.ok([&edit[..], &[nowhere]].concat());
    assert!(tried.contains("a repository would work"), "{tried}");
}

#[test]
fn init_says_whether_the_storage_decides() {
    let world = World::bare();
    assert_eq!(world.json(["init"])["creates_exclusively"], true);
    assert!(!world.path("repo/probe").exists());
}
