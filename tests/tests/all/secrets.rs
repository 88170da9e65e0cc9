//! Passwords and keys from the outside: every way in, what wins, and that none of them shows.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::program::{Run, World, run};

const PASSWORD: &str = "correct-horse-battery-staple";

/// Makes a repository that a password opens, and a file `password` with it.
fn with_password() -> World {
    let world = World::bare();
    fs::write(world.path("password"), format!("{PASSWORD}\n")).unwrap();
    larder(&world, &[("LARDER_PASSWORD", PASSWORD)], &["init"]).expect(0);
    world
}

fn larder(world: &World, environment: &[(&str, &str)], arguments: &[&str]) -> Run {
    let mut command = world.bare_command();
    let run = run(command.envs(environment.iter().copied()).args(arguments));
    assert!(
        !run.stdout.contains(PASSWORD) && !run.stderr.contains(PASSWORD),
        "{arguments:?} shows the password: {run:?}"
    );
    run
}

#[test]
fn each_way_to_give_a_password_opens_and_flags_win() {
    let world = with_password();
    let file = world.path("password");
    let file = file.to_str().unwrap();
    let wrong = world.path("wrong");
    fs::write(&wrong, "wrong\n").unwrap();
    let wrong = wrong.to_str().unwrap();
    let command = format!("cat '{file}'");
    for environment in [
        ("LARDER_PASSWORD", PASSWORD),
        ("LARDER_PASSWORD_FILE", file),
        ("LARDER_PASSWORD_COMMAND", &command),
    ] {
        larder(&world, &[environment], &["snapshots"]).expect(0);
    }
    for flag in [["--password-file", file], ["--password-command", &command]] {
        larder(&world, &[], &["snapshots", flag[0], flag[1]]).expect(0);
        larder(
            &world,
            &[("LARDER_PASSWORD", "wrong")],
            &["snapshots", flag[0], flag[1]],
        )
        .expect(0);
    }
    larder(
        &world,
        &[("LARDER_PASSWORD", PASSWORD)],
        &["snapshots", "--password-file", wrong],
    )
    .expect(12);
    larder(
        &world,
        &[("LARDER_PASSWORD", "wrong")],
        &["-vvv", "snapshots"],
    )
    .expect(12)
    .says("wrong password");
    let key = world.path("key");
    larder(
        &world,
        &[],
        &["snapshots", "--key-file", key.to_str().unwrap()],
    )
    .expect(12);
    for failing in ["false", "exit 7", "true"] {
        larder(&world, &[], &["snapshots", "--password-command", failing]).expect(1);
    }
    larder(&world, &[], &["snapshots", "--password-file", "/nowhere"])
        .expect(1)
        .says("/nowhere");
}

#[test]
fn an_empty_password_is_refused() {
    let world = World::bare();
    fs::write(world.path("empty"), "\n").unwrap();
    let empty = world.path("empty");
    // An empty variable is as one that is not set.
    larder(&world, &[("LARDER_PASSWORD", "")], &["init"]).expect(1);
    larder(
        &world,
        &[],
        &["init", "--password-file", empty.to_str().unwrap()],
    )
    .expect(1)
    .says("empty");
    assert!(!world.path("repo/config").exists());
    let world = with_password();
    let arguments = [
        "key",
        "passwd",
        "--new-password-file",
        empty.to_str().unwrap(),
    ];
    fs::write(&empty, "").ok();
    larder(&world, &[("LARDER_PASSWORD", PASSWORD)], &arguments).expect(1);
    larder(&world, &[("LARDER_PASSWORD", PASSWORD)], &["snapshots"]).expect(0);
}

#[test]
fn without_a_terminal_and_a_secret_it_says_what_is_missing() {
    let world = with_password();
    // A session of its own has no terminal; a minute is far more than it needs not to ask.
    let bare = world.bare_command();
    let mut command = Command::new("setsid");
    command
        .args(["--wait", "timeout", "60"])
        .arg(bare.get_program())
        .arg("snapshots")
        .env_clear();
    for (name, value) in bare.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    run(command.stdin(std::process::Stdio::null()))
        .expect(1)
        .says("--password-file");
}

#[test]
fn a_changed_password_locks_the_old_one_out() {
    let world = with_password();
    let old = [("LARDER_PASSWORD", PASSWORD)];
    let new = world.path("new");
    fs::write(&new, "the-new-one\n").unwrap();
    let arguments = [
        "key",
        "passwd",
        "--new-password-file",
        new.to_str().unwrap(),
    ];
    larder(&world, &old, &[&arguments[..], &["--dry-run"]].concat()).expect(0);
    larder(&world, &old, &["snapshots"]).expect(0);
    larder(&world, &old, &arguments).expect(0);
    larder(&world, &old, &["snapshots"]).expect(12);
    larder(
        &world,
        &[("LARDER_PASSWORD", "the-new-one")],
        &["snapshots"],
    )
    .expect(0);
}

#[test]
fn a_recovery_key_opens_and_the_last_slot_stays() {
    let world = with_password();
    let secret = [("LARDER_PASSWORD", PASSWORD)];
    let made = larder(&world, &secret, &["--json", "key", "recovery"]).expect(0);
    let made: Value = serde_json::from_str(&made.stdout).unwrap();
    let paper = world.path("paper");
    // As a person types it: small letters, other spaces.
    let text = made["recovery_key"]
        .as_str()
        .unwrap()
        .to_lowercase()
        .replace('-', " ");
    fs::write(&paper, text).unwrap();
    let paper = paper.to_str().unwrap();
    let list = larder(
        &world,
        &[],
        &["--json", "key", "list", "--recovery-key-file", paper],
    )
    .expect(0);
    let list: Value = serde_json::from_str(&list.stdout).unwrap();
    let slots = list.as_array().unwrap();
    let kinds: Vec<&str> = slots
        .iter()
        .map(|slot| slot["kind"].as_str().unwrap())
        .collect();
    assert!(
        kinds.contains(&"recovery") && kinds.contains(&"passphrase"),
        "{list}"
    );
    let password_slot = slots
        .iter()
        .find(|slot| slot["kind"] == "passphrase")
        .unwrap();
    let remove = |id: &str| {
        larder(
            &world,
            &[],
            &["key", "remove", id, "--recovery-key-file", paper],
        )
    };
    remove(password_slot["id"].as_str().unwrap()).expect(0);
    larder(&world, &secret, &["snapshots"]).expect(12);
    remove(made["id"].as_str().unwrap()).expect(1).says("last");
    larder(&world, &[], &["snapshots", "--recovery-key-file", paper]).expect(0);
    fs::write(paper, "LARDER something else").unwrap();
    larder(&world, &[], &["snapshots", "--recovery-key-file", paper]).expect(1);
}

#[test]
fn no_secret_shows_however_much_is_said() {
    let world = with_password();
    world.write("file", "x");
    let secret = [("LARDER_PASSWORD", PASSWORD)];
    let source = world.source();
    let source = source.to_str().unwrap();
    for arguments in [
        &["-vvv", "backup", source][..],
        &["-vvv", "--json", "backup", source],
        &["-vvv", "snapshots"],
        &["-vvv", "key", "list"],
        &["-vvv", "cat", "config"],
        &["-vvv", "check"],
        &["-vvv", "stats"],
        &["-vvv", "prune"],
    ] {
        larder(&world, &secret, arguments).expect(0);
    }
    for arguments in [
        &["-vvv", "ls", "nothing"][..],
        &["-vvv", "backup", "/nowhere"],
    ] {
        larder(&world, &secret, arguments).expect(1);
    }
}
