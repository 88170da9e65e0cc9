//! Jobs from the outside: written, run, killed, remembered, and refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::program::{World, run};
use crate::source_text::root;

const BY_HAND: &str = "\
# What I chose.
threads = 2 # few

# The disk in the cellar.
[locations.cellar]
url = '../../../repo'

[forget]
keep-last = 1
";

fn file(world: &World) -> PathBuf {
    world.path("home/.config/larder/larder.toml")
}

fn write(world: &World, text: &str) {
    fs::create_dir_all(file(world).parent().unwrap()).unwrap();
    fs::write(file(world), text).unwrap();
}

fn read(world: &World) -> String {
    fs::read_to_string(file(world)).unwrap()
}

/// Makes a repository, a source and a job for both.
fn with_job(flags: &[&str]) -> World {
    let world = World::new();
    write(&world, BY_HAND);
    world.write("file", "content");
    let source = world.source();
    let add = [
        "job",
        "add",
        "nightly",
        source.to_str().unwrap(),
        "--location",
        "cellar",
    ];
    world.ok([&add[..], flags].concat());
    world
}

fn history(world: &World) -> Vec<Value> {
    let runs = world.json(["job", "history"]);
    runs.as_array().unwrap().clone()
}

/// Gives what of each run tells how it came out, oldest first.
fn outcomes(world: &World) -> Vec<String> {
    let word = |run: &Value, key: &str| run[key].as_str().unwrap_or("-").to_owned();
    let told = |run: &Value| {
        ["kind", "trigger", "outcome"]
            .map(|key| word(run, key))
            .join(" ")
    };
    history(world).iter().rev().map(told).collect()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..60_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("never {what}");
}

#[test]
fn a_job_is_added_run_listed_and_remembered() {
    let world = with_job(&["--hours", "1,13", "--keep-days", "30", "--set", "tag=t"]);
    let text = read(&world);
    assert!(text.starts_with(BY_HAND), "{text}");
    let list = world.json(["job", "list"]);
    assert_eq!(
        (&list[0]["name"], &list[0]["location"]),
        (&json!("nightly"), &json!("cellar"))
    );
    assert!(
        list[0]["next"].is_string() && list[0]["last"].is_null(),
        "{list}"
    );

    let lines = world.lines(["job", "run", "nightly"]);
    let summary = lines.last().unwrap();
    let runs = summary["runs"].as_array().unwrap();
    let kinds: Vec<_> = runs
        .iter()
        .map(|run| run["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["backup", "forget"]);
    let id = runs[0]["snapshot"].as_str().unwrap();
    let snapshots = world.json(["snapshots"]);
    assert_eq!(snapshots[0]["id"], id);
    assert_eq!(snapshots[0]["tags"], json!(["job:nightly", "t"]));

    let runs = history(&world);
    assert_eq!(
        outcomes(&world),
        ["backup manual success", "forget manual success"]
    );
    assert_eq!(
        (&runs[1]["snapshot"], &runs[1]["exit_code"]),
        (&json!(id), &json!(0))
    );
    assert_eq!(
        (&runs[1]["files"], &runs[1]["bytes"]),
        (&json!(1), &json!(7))
    );
    let list = world.json(["job", "list"]);
    assert_eq!(list[0]["last"]["outcome"], "success");
    assert!(list[0]["last_success_age_seconds"].as_i64().unwrap() >= 0);
    assert_eq!(list[0]["settings"]["hours"], json!([1, 13]));
    // A schedule can be looked at before it is written.
    let wish = ["job", "edit", "nightly", "--hours", "2", "--dry-run"];
    let planned = world.json(wish);
    let planned = planned["upcoming"]["backup"].as_array().unwrap();
    assert_eq!(planned.len(), 5);
    assert!(
        planned
            .iter()
            .all(|time| time.as_str().unwrap().contains("T02:00:00")),
        "{planned:?}"
    );
    let shown = world.json(["job", "show", "nightly"]);
    assert_eq!(shown["upcoming"]["backup"].as_array().unwrap().len(), 5);
    assert_eq!(shown["settings"]["hours"], json!([1, 13]));
    for line in [
        &["job", "list"][..],
        &["job", "show", "nightly"],
        &["job", "history", "nightly"],
    ] {
        assert!(world.ok(line).contains("success"), "{line:?}");
    }
    // By hand alone: nothing is due, and nothing is said.
    assert_eq!(world.ok(["job", "due"]), "");
}

#[test]
fn a_change_keeps_comments_and_what_would_be_wrong_is_not_written() {
    let world = with_job(&["--hours", "1"]);
    let before = read(&world);
    fn edit<'a>(more: &[&'a str]) -> Vec<&'a str> {
        [&["job", "edit", "nightly"][..], more].concat()
    }
    for (more, why) in [
        (&["--every", "0"][..], "no number of days"),
        (&["--hours", "24"], "no hour of a day"),
        (
            &["--cron", "0 0 30 2 *", "--unset", "hours"],
            "can never be",
        ),
        (&["--cron", "0 3 * * *"], "leave one of both out"),
        (&["--keep-days", "0"], "would keep none"),
        (&["--set", "forget.keep-last=0"], "no rule keeps a snapshot"),
        (&["--set", "prune.max-unused=10%"], "names no time"),
        (&["--set", "no-such-key=1"], "there is no key 'no-such-key'"),
        (&["--set", "webhook=nothing"], "webhook"),
        (&["--unset", "cron"], "says nothing about cron"),
        (
            &["--location", world.source().join("repo").to_str().unwrap()],
            "is backed up into it",
        ),
        (&[], "nothing is to be changed"),
    ] {
        world.run(edit(more)).expect(1).says(why);
        assert_eq!(read(&world), before, "{why}");
    }
    let said = world.ok(edit(&["--keep-days", "9", "--dry-run"]));
    assert!(said.contains("would change the job nightly") && read(&world) == before);
    world.ok(edit(&[
        "--keep-days",
        "9",
        "--set",
        "check.hours=3",
        "--set",
        "check.level=quick",
    ]));
    let text = read(&world);
    assert!(
        text.starts_with(BY_HAND) && text.contains("keep-days = 9"),
        "{text}"
    );
    assert!(
        text.contains("[jobs.nightly.check]\nhours = [3]\nlevel = \"quick\"\n"),
        "{text}"
    );
    world.ok(edit(&["--unset", "check", "--unset", "keep-days"]));
    assert_eq!(read(&world), before);

    world
        .run(["job", "add", "nightly", "/x", "--location", "cellar"])
        .expect(1)
        .says("there is a job nightly already");
    world
        .run(["job", "add", "a/b", "/x", "--location", "cellar"])
        .expect(1)
        .says("cannot be the name of a job");
    world
        .run(["job", "add", "other", "/x"])
        .expect(1)
        .says("has no location");
    world
        .run(["job", "remove", "nigtly"])
        .expect(1)
        .says("did you mean 'nightly'?");
    let removed = world.json(["job", "remove", "nightly", "--dry-run"]);
    assert_eq!(removed["dry_run"], true);
    assert_eq!(read(&world), before);
    world.ok(["job", "remove", "nightly"]);
    assert_eq!(read(&world), BY_HAND);
    world
        .run(["job", "run", "nightly"])
        .expect(1)
        .says("there is no job 'nightly'");
}

#[test]
fn a_broken_job_names_its_place_and_leaves_the_others_alone() {
    let world = with_job(&["--cron", "* * * * *"]);
    let broken = "\n[jobs.broken]\nlocation = 'cellar'\nsources = ['/x']\nhours = [25]\n";
    write(&world, &format!("{}{broken}", read(&world)));
    let line = read(&world).lines().count();
    let place = format!("larder.toml, line {line}, column 9: 25 is no hour");
    world.run(["job", "run", "broken"]).expect(1).says(&place);
    let list = world.json(["job", "list"]);
    assert!(
        list[0]["mistake"]
            .as_str()
            .unwrap()
            .contains("25 is no hour")
    );
    world.ok(["job", "run", "nightly"]);
    // What can be run is run, and the mistake is told.
    long_ago(&world);
    world.run(["job", "due"]).expect(1).says(&place);
    assert_eq!(
        outcomes(&world),
        ["backup manual success", "backup schedule success"]
    );
    // What is no TOML is nobody's, and is told to everybody.
    write(&world, "[jobs.a]\nlocation = \n");
    world
        .run(["job", "list"])
        .expect(1)
        .says("larder.toml, line 2, column ");
}

/// Dates all that is remembered of jobs back by ten days.
fn long_ago(world: &World) {
    let script = "import sqlite3, sys\n\
                  with sqlite3.connect(sys.argv[1]) as db:\n\
                  \tday = 86400000\n\
                  \tdb.execute('UPDATE runs SET slot = slot - 10 * ?1, started = started - 10 * ?1, ended = ended - 10 * ?1', (day,))\n\
                  \tdb.execute('UPDATE jobs SET known_since = known_since - 10 * ?1', (day,))\n";
    let database = world.path("home/.local/state/larder/jobs/history.db");
    run(Command::new("python3").args(["-c", script]).arg(database)).expect(0);
}

#[test]
fn what_is_due_is_run_once_and_what_was_missed_is_made_up_for_once() {
    let notify = "notify-command=echo $LARDER_EVENT $LARDER_JOB $LARDER_KIND >> $HOME/told";
    let weekly = ["--every", "7", "--hours", "1", "--set", notify];
    let prune = ["--set", "prune.every=7", "--set", "prune.hours=3"];
    let world = with_job(&[&weekly[..], &prune[..]].concat());
    // It is new: the next time is the first.
    assert_eq!(world.ok(["job", "due"]), "");
    long_ago(&world);
    let due = world.lines(["job", "due", "--dry-run"]);
    let due = due[0]["due"].as_array().unwrap().clone();
    assert_eq!(due.len(), 2, "{due:?}");
    assert!(history(&world).is_empty());
    world
        .run(["job", "due", "nobody"])
        .expect(1)
        .says("there is no job 'nobody'");
    world.ok(["job", "due", "nightly"]);
    world.ok(["job", "due"]);
    let kinds: Vec<_> = outcomes(&world);
    let is_run = |kind: &str| {
        kinds
            .iter()
            .any(|one| one.starts_with(kind) && one.ends_with(" success"))
    };
    assert!(
        kinds.len() == 2 && is_run("backup ") && is_run("prune "),
        "{kinds:?}"
    );
    // Late by a week.
    long_ago(&world);
    world.ok(["job", "due"]);
    assert_eq!(outcomes(&world).len(), 4);
    let told = fs::read_to_string(world.path("home/told")).unwrap_or_default();
    let missed = outcomes(&world)
        .iter()
        .filter(|one| one.contains("catch-up"))
        .count();
    assert_eq!(
        told.lines()
            .filter(|line| line.starts_with("missed nightly "))
            .count(),
        missed
    );
    // What is not to be made up for is noted, once.
    let before = history(&world).len();
    // Far from now, whenever that is.
    let hour = jiff::Timestamp::now().as_second() / 3600 % 24;
    let hour = ((hour + 12) % 24).to_string();
    let edit = [
        "job",
        "edit",
        "nightly",
        "--set",
        "catch-up=false",
        "--unset",
        "prune",
    ];
    world.ok([&edit[..], &["--every", "1", "--hours", &hour]].concat());
    long_ago(&world);
    world.ok(["job", "due"]);
    world.ok(["job", "due"]);
    assert_eq!(outcomes(&world)[before..], ["backup schedule missed"]);
}

#[test]
fn a_failure_and_the_recovery_are_told_and_the_snapshot_of_others_stays() {
    let notify = "notify-command=echo $LARDER_EVENT $LARDER_OUTCOME $LARDER_EXIT_CODE $LARDER_MESSAGE >> $HOME/told";
    let world = with_job(&["--set", notify, "--set", "forget.keep-last=1"]);
    world.backup(&["--tag", "by-hand"]);
    world.ok(["job", "run", "nightly"]);
    fs::rename(world.path("repo"), world.path("away")).unwrap();
    let failed = world.run(["job", "run", "nightly"]).expect(10);
    assert!(
        failed.stderr.contains("nightly, backup: "),
        "{}",
        failed.stderr
    );
    fs::rename(world.path("away"), world.path("repo")).unwrap();
    world.write("file", "other content");
    world.ok(["job", "run", "nightly"]);
    world.ok(["job", "run", "nightly"]);
    let told = fs::read_to_string(world.path("home/told")).unwrap();
    let told: Vec<&str> = told.lines().collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].starts_with("failure failure 10 there is no repository at "),
        "{told:?}"
    );
    assert_eq!(told[1], "recovery success 0 it works again");
    let snapshots = world.json(["snapshots"]);
    let mut tags: Vec<_> = snapshots
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["tags"].clone())
        .collect();
    tags.sort_by_key(Value::to_string);
    assert_eq!(tags, [json!(["by-hand"]), json!(["job:nightly"])]);
}

#[test]
fn a_second_run_is_refused_and_one_that_was_killed_is_found_and_begun_again() {
    let world = with_job(&[
        "--cron",
        "* * * * *",
        "--set",
        "before=test ! -e $HOME/wait || { touch $HOME/waits; sleep 600; }",
    ]);
    fs::write(world.path("home/wait"), "").unwrap();
    let mut child = world
        .command()
        .args(["job", "run", "nightly"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("waits", || world.path("home/waits").exists());
    let process = format!("by process {}", child.id());
    world
        .run(["job", "run", "nightly"])
        .expect(11)
        .says(&process);
    let list = world.json(["job", "list"]);
    assert_eq!(
        (&list[0]["running"], &list[0]["last"]["outcome"]),
        (&json!(true), &json!(null))
    );
    // What is being run is not due.
    assert_eq!(world.ok(["job", "due"]), "");
    assert_eq!(outcomes(&world), ["backup manual -"]);

    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(outcomes(&world), ["backup manual died"]);
    assert_eq!(outcomes(&world), ["backup manual died"]);
    fs::remove_file(world.path("home/wait")).unwrap();
    world.ok(["job", "run", "nightly"]);
    let expected = ["backup manual died", "backup manual success"];
    assert_eq!(outcomes(&world), expected);
    end_below(&world.path("home"));
}

/// Ends the hook that outlived its run: it has the world's home in its environment.
fn end_below(home: &Path) {
    let mark = format!("HOME={}", home.display());
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let is_its = environment
            .split(|byte| *byte == 0)
            .any(|one| one == mark.as_bytes());
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let process = number.and_then(rustix::process::Pid::from_raw);
        if let Some(process) = process.filter(|_| is_its) {
            let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
        }
    }
}

#[test]
fn a_time_limit_ends_a_run_and_the_others_go_on() {
    let world = with_job(&[
        "--set",
        "time-limit=1s",
        "--set",
        "commands=[{ name = 'slow', command = 'sleep 600' }]",
    ]);
    let late = world.run(["job", "run", "nightly"]).expect(130);
    assert!(
        late.stderr.contains("the time limit of 1.00 s was over"),
        "{}",
        late.stderr
    );
    assert_eq!(outcomes(&world), ["backup manual time-limit"]);
    world.ok([
        "job",
        "edit",
        "nightly",
        "--unset",
        "commands",
        "--unset",
        "time-limit",
    ]);
    world.ok(["job", "run", "nightly"]);
}

#[test]
fn a_damaged_history_is_told_and_keeps_no_backup_from_being_made() {
    let world = with_job(&["--hours", "1"]);
    world.ok(["job", "run", "nightly"]);
    let database = world.path("home/.local/state/larder/jobs/history.db");
    fs::write(&database, "this is no database at all").unwrap();
    world
        .run(["job", "history"])
        .expect(1)
        .says("history.db is damaged");
    let list = world
        .run(["job", "list"])
        .expect(0)
        .says("history.db is damaged");
    assert!(list.stdout.contains("nightly"), "{list:?}");
    world
        .run(["job", "run", "nightly"])
        .expect(0)
        .says("history.db is damaged");
    assert_eq!(outcomes(&world), ["backup manual success"]);
    assert_eq!(world.json(["snapshots"]).as_array().unwrap().len(), 2);
    // Nowhere to write it at all.
    fs::remove_dir_all(world.path("home/.local/state/larder/jobs")).unwrap();
    fs::write(world.path("home/.local/state/larder/jobs"), "").unwrap();
    world
        .run(["job", "run", "nightly"])
        .expect(1)
        .says("cannot lock");
}

#[test]
fn units_are_written_as_they_are_shown_and_systemd_understands_them() {
    let world = with_job(&[]);
    let shown = world.ok(["job", "install", "--print"]);
    let units = world.path("home/.config/systemd/user");
    let would = world.json(["job", "install", "--dry-run"]);
    assert!(would["dry_run"] == true && !units.exists(), "{would}");
    let done = world.json(["job", "install"]);
    assert_eq!(would["files"], done["files"]);
    let mut text = Vec::new();
    for name in ["larder-jobs.service", "larder-jobs.timer"] {
        let path = units.join(name);
        assert!(
            done["files"].as_array().unwrap().contains(&json!(path)),
            "{done}"
        );
        text.push(format!("# {name}\n{}", fs::read_to_string(path).unwrap()));
    }
    assert_eq!(text.join("\n"), shown);
    understood(&units, "larder-jobs");
    world.ok(["job", "uninstall"]);
    assert_eq!(fs::read_dir(&units).unwrap().count(), 0);
    world
        .run(["job", "uninstall"])
        .expect(1)
        .says("there are no units");

    // What is shipped is what is written for its place.
    let shipped = root().join("deploy/systemd");
    understood(&shipped, "larder-jobs");
    understood(&shipped, "larder-shard");
    let mut command = world.bare_command();
    command
        .env("HOME", "/root")
        .args(["--config", "/etc/larder/larder.toml"]);
    let shown = run(command.args(["job", "install", "--system", "--print"]))
        .expect(0)
        .stdout;
    let program = crate::program::program().canonicalize().unwrap();
    let shown = shown.replace(program.to_str().unwrap(), "/usr/local/bin/larder");
    let text = ["larder-jobs.service", "larder-jobs.timer"].map(|name| {
        let text = fs::read_to_string(shipped.join(name)).unwrap();
        format!("# {name}\n{text}")
    });
    assert_eq!(shown, text.join("\n"));
}

/// Asks systemd whether units are right, or where it is not installed reads them as far as that goes.
fn understood(folder: &Path, name: &str) {
    let here = tempfile::tempdir().unwrap();
    let mut units = Vec::new();
    for end in ["service", "timer"] {
        let name = format!("{name}.{end}");
        let text = fs::read_to_string(folder.join(&name)).unwrap();
        read_plainly(&text);
        // The program is looked for, and is elsewhere in a test.
        let text = text.replace("\"/usr/local/bin/larder\"", "\"/bin/true\"");
        fs::write(here.path().join(&name), text).unwrap();
        units.push(here.path().join(name));
    }
    let verified = Command::new("systemd-analyze")
        .arg("verify")
        .args(&units)
        .output();
    let Ok(verified) = verified else {
        println!("systemd-analyze is not installed: the units were read plainly alone");
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    let of_ours = said.lines().filter(|line| line.contains(name));
    // A container without systemd has no manual pages, and none of the units that they depend on.
    let wrong: Vec<_> = of_ours
        .filter(|line| !line.contains("man:") && !line.contains("man larder"))
        .collect();
    assert!(wrong.is_empty(), "{said}");
}

/// Reads sections and keys: each line is one of both, and each key stands once but for `Environment`.
fn read_plainly(text: &str) {
    let mut seen = Vec::new();
    let mut section = "";
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            assert!(
                ["Unit", "Service", "Timer", "Install"].contains(&name),
                "{line}"
            );
            section = name;
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{line}"));
        assert!(!section.is_empty() && !value.is_empty(), "{line}");
        assert!(key.chars().all(char::is_alphanumeric), "{line}");
        assert!(
            key == "Environment" || !seen.contains(&(section, key)),
            "{line} twice"
        );
        seen.push((section, key));
    }
    assert!(seen.len() > 3);
}

#[test]
fn the_cron_job_is_what_kubernetes_takes() {
    let path = root().join("deploy/kubernetes/cronjob.yaml");
    let script = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
    let read = run(Command::new("python3").args(["-c", script]).arg(&path));
    if read.code != 0 {
        assert!(
            read.stderr.contains("No module named 'yaml'"),
            "{}",
            read.stderr
        );
        println!("PyYAML is not installed: the CronJob was looked at as text alone");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("kind: CronJob") && !text.contains('\t'));
        return;
    }
    let read: Value = serde_json::from_str(&read.stdout).unwrap();
    assert_eq!(
        (&read["apiVersion"], &read["kind"]),
        (&json!("batch/v1"), &json!("CronJob"))
    );
    assert_eq!(read["spec"]["concurrencyPolicy"], "Forbid");
    let pod = &read["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    // What it calls is a command line that larder takes.
    let world = World::new();
    let text = "[jobs.nightly]\nlocation = 'repo'\nsources = ['source']\n";
    fs::write(world.path("larder.toml"), text).unwrap();
    let settings = world.path("larder.toml").display().to_string();
    let line = container["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one.as_str().unwrap());
    let line = line.map(|one| one.replace("/etc/larder/larder.toml", &settings));
    world.ok(line);
    let name = |list: &Value| {
        let mut names: Vec<_> = list
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["name"].to_string())
            .collect();
        names.sort();
        names
    };
    assert_eq!(name(&container["volumeMounts"]), name(&pod["volumes"]));
    let schedule = read["spec"]["schedule"].as_str().unwrap();
    let cron = format!("[jobs.a]\nlocation = 'repo'\nsources = ['source']\ncron = '{schedule}'\n");
    fs::write(world.path("larder.toml"), cron).unwrap();
    let mut command = world.command();
    let listed = run(command.args(["--config", &settings, "--json", "job", "list"])).expect(0);
    assert!(!listed.stdout.contains("mistake"), "{}", listed.stdout);
}
