//! One bucket backed up by several processes at once, on a server of S3 (moto).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::bucket::Moto;
use crate::program::{Run, World, program, run};

/// What is put into the bucket: as many keys as make a tree of several nodes, and some at seams.
const PUT: &str = "
from concurrent.futures import ThreadPoolExecutor
keys = [f'in/d{i % 7}/{i:03}' for i in range(160)]
keys += ['in/a', 'in/a/', 'in/a/b', 'in/a//b', 'in/d3', 'in/d3/', 'in/d3//x', 'in/z/']
def put(key):
    s3.put_object(Bucket='test', Key=key, Body=key.encode() * 50, Metadata={'own': 'x'})
list(ThreadPoolExecutor(4).map(put, keys))
";
const KEYS: u64 = 168;

/// Gives the command line of one shard.
fn line<'a>(share: &'a str, name: &'a str) -> [&'a str; 9] {
    [
        "--json",
        "backup",
        "s3://test/in",
        "--shard",
        share,
        "--run",
        name,
        "--checkpoint-interval",
        "1h",
    ]
}

fn begin(command: &mut Command) -> Child {
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn end(child: Child) -> Run {
    Run::of(child.wait_with_output().unwrap())
}

/// Runs four shards at once, each a process with a cache of its own, as on machines of their own.
fn four(world: &World, name: &str) -> Vec<Value> {
    let children: Vec<Child> = (1..=4)
        .map(|number| {
            let mut command = world.command();
            let share = format!("{number}/4");
            command.args(line(&share, name));
            begin(command.env("LARDER_CACHE_DIR", world.path(&format!("cache-{number}"))))
        })
        .collect();
    let runs = children.into_iter().map(|child| end(child).expect(0));
    runs.map(|run| run.summary()).collect()
}

fn snapshots(world: &World) -> Vec<Value> {
    let list = world.json(["snapshots"]);
    list.as_array().unwrap().clone()
}

/// Gives the only snapshot, or the newest.
fn newest(world: &World) -> (String, Value) {
    let id = snapshots(world).pop().unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let cell = world.json(["cat", "snapshot", &id]);
    (id, cell)
}

#[test]
fn four_processes_at_once_make_the_snapshot_of_one() {
    let moto = Moto::start();
    let world = moto.world();
    moto.python(PUT);
    let reports = four(&world, "first");
    assert_eq!(snapshots(&world).len(), 1, "{reports:#?}");
    let (id, joined) = newest(&world);
    // Whoever knows of the snapshot names the one that is there, and somebody does.
    let named: Vec<&Value> = reports.iter().map(|report| &report["snapshot"]).collect();
    assert!(
        named.iter().all(|name| name.is_null() || **name == id),
        "{named:?}"
    );
    assert!(named.iter().any(|name| **name == id), "{reports:#?}");
    let shares: Vec<u64> = reports
        .iter()
        .map(|report| report["statistics"]["new"].as_u64().unwrap())
        .collect();
    assert_eq!(shares.iter().sum::<u64>(), KEYS);
    assert!(shares.iter().all(|share| *share >= KEYS / 8), "{shares:?}");

    // One backup of all of it, which reads everything, has the same tree.
    let whole = world
        .lines(["backup", "--force", "s3://test/in"])
        .pop()
        .unwrap();
    assert_eq!(whole["statistics"]["files"], KEYS);
    let (_, one) = newest(&world);
    assert_eq!(one["sources"], joined["sources"]);
    world.ok(["check", "--read-data"]);
    world.ok(["forget", whole["snapshot"].as_str().unwrap()]);

    // The next night nothing changed, and then one key.
    let reports = four(&world, "second");
    for report in &reports {
        assert_eq!(report["parent"], id, "{report:#}");
        let counted = &report["statistics"];
        assert_eq!(
            (&counted["bytes_read"], &counted["new"]),
            (&0.into(), &0.into())
        );
    }
    let (second, cell) = newest(&world);
    assert_eq!(cell["sources"], joined["sources"]);
    moto.python("s3.put_object(Bucket='test', Key='in/d3/010', Body=b'changed')");
    let reports = four(&world, "third");
    let changed: Vec<u64> = reports
        .iter()
        .map(|report| report["statistics"]["changed"].as_u64().unwrap())
        .collect();
    assert_eq!(changed.iter().sum::<u64>(), 1, "{changed:?}");
    assert_eq!(world.ok(["dump", "latest:s3://test/in/d3/010"]), "changed");
    let diff = world.ok(["diff", &second, "latest"]);
    assert!(diff.contains("M s3://test/in/d3/010"), "{diff}");
    assert_eq!(snapshots(&world).len(), 3);
    // What was joined is forgotten, and a prune takes nothing that is needed.
    world.ok(["prune", "--max-unused", "0"]);
    world.ok(["check", "--read-data"]);
}

#[test]
fn a_shard_that_is_killed_is_run_again_alone() {
    let moto = Moto::start();
    let world = moto.world();
    moto.python(PUT);
    // It has registered, and is in the middle of its work.
    let mark = world.path("mark");
    let hook = format!(
        "echo $$ > {}.new && mv {0}.new {0} && exec sleep 1000",
        mark.display()
    );
    let mut command = world.command();
    command
        .args(line("2/4", "r"))
        .args(["--before-source", &hook]);
    let mut child = begin(&mut command);
    wait_for(&mark);
    child.kill().unwrap();
    child.wait().unwrap();
    let sleeper = fs::read_to_string(&mark).unwrap();
    run(Command::new("kill").args(["-9", sleeper.trim()]));

    for share in ["1/4", "3/4", "4/4"] {
        let report = run(world.command().args(line(share, "r")))
            .expect(0)
            .summary();
        assert!(report["snapshot"].is_null(), "{report:#}");
    }
    assert!(snapshots(&world).is_empty());
    let join = ["snapshot", "join", "--run", "r"];
    world
        .run(join)
        .expect(1)
        .says("shard 2 of 4 is not finished");
    let shown = world.ok(["snapshots", "--partial"]);
    assert!(
        shown.contains("(shard 3/4 of r)") && !shown.contains("2/4"),
        "{shown}"
    );
    let missing = world.run(["restore", "latest:s3://test/in", "--target", "out"]);
    assert_ne!(missing.code, 0);
    // A prune in between takes nothing away, and does not wait for the dead.
    world.ok(["prune", "--max-unused", "0"]);
    let again = run(world.command().args(line("1/4", "r")))
        .expect(0)
        .summary();
    assert_eq!(again["shard"]["finished_before"], true, "{again:#}");
    assert_eq!(again["shard"]["missing"], serde_json::json!([2]));

    // The same share twice at once: both may do the work, and there is one snapshot.
    let twice = [(); 2].map(|()| begin(world.command().args(line("2/4", "r"))));
    let reports = twice.map(|child| end(child).expect(0).summary());
    let left = snapshots(&world);
    assert_eq!(left.len(), 1, "{reports:#?}");
    assert!(
        reports
            .iter()
            .any(|report| report["snapshot"] == left[0]["id"]),
        "{reports:#?}"
    );
    let told = world.lines(join).pop().unwrap();
    assert_eq!(
        (&told["existed"], &told["snapshot"]),
        (&true.into(), &left[0]["id"])
    );
    let listed = world.ok(["ls", "latest:s3://test/in", "--recursive"]);
    assert_eq!(listed.lines().count() as u64, KEYS, "{listed}");
    assert!(!world.ok(["snapshots", "--partial"]).contains("shard"));
    world.ok(["check", "--read-data"]);

    // What it is not told alike, it does not take part in.
    let refused = |share: &str, more: &[&str], word: &str| {
        let mut command = world.command();
        run(command.args(line(share, "s")).args(more))
            .expect(1)
            .says(word);
    };
    run(world.command().args(line("1/3", "s"))).expect(0);
    refused("1/2", &[], "has 3 shards");
    refused("2/3", &["--host", "other"], "--host");
    refused("2/3", &["--exclude", "x"], "patterns");
    let folder = world.source().display().to_string();
    world
        .run(["backup", &folder, "--shard", "1/2", "--run", "t"])
        .expect(1)
        .says("one bucket");
}

/// Waits until a file is there.
fn wait_for(path: &Path) {
    const ATTEMPTS: usize = 2_400;
    for _ in 0..ATTEMPTS {
        if path.exists() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("{} is not there", path.display());
}

#[test]
fn what_is_shipped_for_several_hosts_and_pods_backs_a_bucket_up() {
    let moto = Moto::start();
    let world = moto.world();
    moto.python("for i in range(40): s3.put_object(Bucket='test', Key=f'in/{i:02}', Body=b'x')");
    let settings = format!(
        "key-file = \"{}\"\n[locations.photos]\nurl = \"s3://test/in\"\n[locations.vault]\nurl = \"{}\"\n",
        world.path("key").display(),
        world.path("repo").display()
    );
    fs::write(world.path("larder.toml"), settings).unwrap();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let shell = |line: &str, environment: &[(&str, &str)]| {
        let line = line
            .replace(
                "/etc/larder/larder.toml",
                world.path("larder.toml").to_str().unwrap(),
            )
            .replace("/usr/local/bin/larder", program().to_str().unwrap());
        let folder = program()
            .parent()
            .map(Path::to_path_buf)
            .unwrap_or_default();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders: Vec<PathBuf> = [folder]
            .into_iter()
            .chain(std::env::split_paths(&path))
            .collect();
        let mut command = world.command_of(Path::new("/bin/sh"));
        command
            .env_remove("LARDER_REPO")
            .env_remove("LARDER_KEY_FILE");
        command.env("PATH", std::env::join_paths(folders).unwrap());
        command.envs(environment.iter().copied());
        run(command.args(["-c", &line])).expect(0)
    };

    // Pods of an Indexed Job.
    let yaml = fs::read_to_string(deploy.join("kubernetes/shards.yaml")).unwrap();
    let (_, script) = yaml.split_once("                - >-\n").unwrap();
    let script: Vec<&str> = script
        .lines()
        .take_while(|line| line.starts_with("                  "))
        .collect();
    let script = script
        .iter()
        .map(|line| line.trim())
        .collect::<Vec<_>>()
        .join(" ");
    for index in ["2", "0", "3", "1"] {
        let environment = [
            ("JOB_COMPLETION_INDEX", index),
            ("JOB_NAME", "photos-29395830"),
            ("LARDER_HOST", "photos"),
        ];
        shell(&script, &environment);
        assert_eq!(snapshots(&world).len(), usize::from(index == "1"));
    }

    // Hosts with systemd, which have the day in the run's name.
    let unit = fs::read_to_string(deploy.join("systemd/larder-shard.service")).unwrap();
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=/bin/sh -c '"));
    let start = start.and_then(|line| line.strip_suffix('\'')).unwrap();
    let start = start
        .replace("%%", "%")
        .replace("$(date -u +%F)", "2026-11-22");
    for share in ["1/2", "2/2"] {
        shell(&start, &[("BUCKET", "photos"), ("SHARD", share)]);
    }
    let made = snapshots(&world);
    assert_eq!(made.len(), 2);
    assert_eq!(made[1]["parent"], made[0]["id"]);
    assert_eq!(made[1]["host"], "photos");
}
