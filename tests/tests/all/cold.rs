//! Cold storage from the outside: on a server of S3 (moto) that refuses to read what lies in a cold class before it
//! was asked for.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::bucket::Moto;
use crate::program::World;

/// Lets what is asked for be there when it was looked at so often after that; the server counts looks before,
/// too, so each object has to have had as many.
fn thaws_after(moto: &Moto, looks: u32) {
    moto.python(&format!(
        "import urllib.request
transition = {{'progression': 'manual', 'times': {looks}}}
told = json.dumps({{'model_name': 's3::keyrestore', 'transition': transition}}).encode()
headers = {{'Content-Type': 'application/json'}}
url = s3.meta.endpoint_url + '/moto-api/state-manager/set-transition'
urllib.request.urlopen(urllib.request.Request(url, told, headers, method='POST')).read()
for o in s3.list_objects_v2(Bucket='test').get('Contents', []):
    for _ in range({looks} if o['StorageClass'] == 'GLACIER' else 0):
        s3.head_object(Bucket='test', Key=o['Key'])"
    ));
}

/// Gives how many objects of each class there are below each folder of the repository.
fn classes(moto: &Moto) -> BTreeMap<String, BTreeMap<String, u64>> {
    let told = moto.python(
        "found = {}
for page in s3.get_paginator('list_objects_v2').paginate(Bucket='test', Prefix='repo/'):
    for o in page.get('Contents', []):
        of = found.setdefault(o['Key'].split('/')[1], {})
        of[o['StorageClass']] = of.get(o['StorageClass'], 0) + 1
print(json.dumps(found))",
    );
    serde_json::from_str(&told).unwrap()
}

fn cold_packs(moto: &Moto) -> u64 {
    let classes = classes(moto);
    for (folder, of) in &classes {
        assert!(folder == "packs" || !of.contains_key("GLACIER"), "{folder}");
    }
    classes["packs"].get("GLACIER").copied().unwrap_or(0)
}

/// Bytes that do not compress.
fn noise(seed: u8, length: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

fn files_in(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

fn summary(lines: &[Value]) -> &Value {
    lines.last().unwrap()
}

/// A repository in the bucket, whose data packs are cold.
fn cold_world(moto: &Moto) -> World {
    let mut world = moto.bare_world();
    for (name, value) in [
        ("LARDER_REPO", "s3://test/repo"),
        ("LARDER_STORAGE_STORAGE_CLASS", "GLACIER"),
    ] {
        world.environment.push((name.to_owned(), value.to_owned()));
    }
    world.ok(["init"]);
    world
}

#[test]
fn a_repository_in_cold_storage_lives_and_comes_back() {
    let moto = Moto::start();
    let world = cold_world(&moto);
    for number in 0..6 {
        world.write(&format!("f{number}"), noise(number, 400_000));
    }
    world.backup(&[]);
    // Everything but restoring gets along without what is cold.
    for number in 0..3 {
        fs::remove_file(world.source().join(format!("f{number}"))).unwrap();
    }
    world.write("new", noise(9, 300_000));
    let second = world.backup(&[]);
    assert_eq!(second["statistics"]["new"], 1, "{second}");
    assert!(cold_packs(&moto) >= 2);
    assert!(world.ok(["ls", "latest", "--recursive"]).contains("new"));
    assert!(world.ok(["diff", "latest~1", "latest"]).contains("f0"));
    assert!(world.ok(["find", "f4"]).contains("f4"));
    world.ok(["check", "--level", "quick"]);
    world.ok(["check"]);
    world.ok(["forget", "latest~1"]);
    // A prune says what it leaves, and leaves it.
    let dry = world.ok(["prune", "--max-unused", "0", "--dry-run"]);
    assert!(dry.contains("left in cold storage"), "{dry}");
    let lines = world.lines(["prune", "--max-unused", "0"]);
    assert_eq!(summary(&lines)["packs_repacked"], 0);
    // A check of all data takes none of it for damage.
    let lines = world.lines(["check", "--read-data"]);
    let checked = summary(&lines);
    assert_eq!(checked["cold_packs"], cold_packs(&moto), "{checked}");
    assert_eq!(
        (&checked["loss"], &checked["new_suspects"]),
        (&0.into(), &0.into())
    );

    // A restore says what is wrong, and what to do.
    let spec = format!("latest:{}", world.source().display());
    let target = world.path("out");
    let out = target.to_str().unwrap();
    let line = ["restore", spec.as_str(), "--target", out];
    world
        .run(line)
        .expect(1)
        .says("lies in cold storage: `larder restore --plan`");
    let _ = fs::remove_dir_all(&target);
    let plan = world.ok([&line[..], &["--plan"]].concat());
    assert!(
        plan.contains("in cold storage  ") && plan.contains("ask"),
        "{plan}"
    );
    let lines = world.lines([&line[..], &["--plan"]].concat());
    let planned = summary(&lines);
    let told: Vec<&Value> = lines
        .iter()
        .filter(|line| line["message_type"] == "cold")
        .collect();
    assert_eq!(planned["cold"]["packs"], told.len() as u64, "{planned}");
    assert!(told.len() >= 2 && told.iter().all(|pack| pack["state"] == "cold"));
    let bytes = planned["cold"]["bytes"].as_u64().unwrap();
    assert!(bytes > planned["read_bytes"].as_u64().unwrap());
    assert!(!target.exists());

    // Interrupted while it waits, and run again.
    thaws_after(&moto, 10);
    let mut command = world.command();
    let mut waiting = command
        .args(line)
        .args(["--thaw=expedited", "--thaw-days", "2"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(waiting.stderr.take().unwrap()).lines();
    let asking = said.find(|line| line.as_ref().unwrap().contains("asking for"));
    assert!(asking.is_some());
    let id = rustix::process::Pid::from_child(&waiting);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    said.for_each(drop);
    assert_eq!(waiting.wait().unwrap().code(), Some(130));
    thaws_after(&moto, 1);
    world.ok([&line[..], &["--thaw=expedited", "--verify"]].concat());
    assert_eq!(files_in(&target), files_in(&world.source()));
    let plan = world.ok([&line[..], &["--plan", "--overwrite", "never"]].concat());
    assert!(plan.contains("all of it can be read now"), "{plan}");

    // So do a prune and a check that are told to.
    let lines = world.lines(["prune", "--max-unused", "0", "--thaw=expedited"]);
    assert!(summary(&lines)["packs_repacked"].as_u64().unwrap() > 0);
    let lines = world.lines(["check", "--read-data", "--thaw=expedited"]);
    assert_eq!(summary(&lines)["cold_packs"], 0);
    fs::remove_dir_all(&target).unwrap();
    world.ok([&line[..], &["--thaw=expedited"]].concat());
    assert_eq!(files_in(&target), files_in(&world.source()));
}

#[test]
fn what_is_cold_of_a_bucket_is_backed_up_once_it_was_brought_back() {
    let moto = Moto::start();
    let world = moto.world();
    moto.python(
        "s3.put_object(Bucket='test', Key='in/cold', Body=b'cold one', StorageClass='GLACIER')\n\
         s3.put_object(Bucket='test', Key='in/warm', Body=b'warm one')",
    );
    let told = world.run(["backup", "s3://test/in"]).expect(0);
    assert!(told.stdout.contains("has to be thawed first"), "{told:?}");
    thaws_after(&moto, 1);
    let lines = world.lines(["backup", "s3://test/in", "--thaw=expedited"]);
    let report = summary(&lines);
    assert_eq!(report["cold"], 0, "{report}");
    assert_eq!(world.ok(["dump", "latest:s3://test/in/cold"]), "cold one");
    // What was read is not asked for again.
    let lines = world.lines(["backup", "s3://test/in"]);
    assert_eq!(summary(&lines)["cold"], 0);
    // A storage that keeps nothing cold says so.
    let spec = "latest:s3://test/in/warm";
    let target = world.path("out");
    world
        .run([
            "restore",
            spec,
            "--thaw",
            "--target",
            target.to_str().unwrap(),
        ])
        .expect(0)
        .says("keeps nothing in cold storage");
}
