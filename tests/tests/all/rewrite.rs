//! Leaving paths out of snapshots and bringing forgotten ones back, from the outside.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::program::{World, assert_same, noise, run};

/// Bytes of what should never have been saved.
const SECRET_BYTES: usize = 900_000;

fn listed(world: &World, more: &[&str]) -> Vec<String> {
    let list = world.json([&["snapshots"], more].concat());
    let list = list.as_array().unwrap().iter();
    list.map(|one| one["id"].as_str().unwrap().to_owned())
        .collect()
}

/// A world with three snapshots, each with the secret, other files, and a change.
fn filled() -> (World, Vec<String>) {
    let world = World::new();
    world.write("letters/a.txt", "Dear a\n");
    world.write("letters/secret.key", noise(1, SECRET_BYTES));
    world.write("letters/small.secret.key", "a secret of few bytes");
    world.write("large", noise(2, 300_000));
    let mut ids = Vec::new();
    for day in ["2026-01-10", "2026-01-11", "2026-01-12"] {
        world.write("letters/day", day);
        let summary = world.backup(&["--time", day, "--tag", day]);
        ids.push(summary["snapshot"].as_str().unwrap().to_owned());
    }
    (world, ids)
}

/// Removes a file as if it had never been there: its folder keeps its time.
fn remove_without_trace(path: &Path) {
    let folder = fs::File::open(path.parent().unwrap()).unwrap();
    let before = folder.metadata().unwrap().modified().unwrap();
    fs::remove_file(path).unwrap();
    folder.set_modified(before).unwrap();
}

#[test]
fn a_secret_is_rewritten_away_and_pruned() {
    let (world, ids) = filled();
    for (number, id) in ids.iter().enumerate() {
        let target = world.restore(id, &format!("old{number}"));
        remove_without_trace(&target.join("letters/secret.key"));
        remove_without_trace(&target.join("letters/small.secret.key"));
    }
    let before = world.pack_bytes();
    let line = ["rewrite", "--exclude", "*secret.key", "--host", "desk"];
    let dry = world.lines([&line[..], &["--dry-run"]].concat());
    let rewritten: Vec<&Value> = dry
        .iter()
        .filter(|one| one["message_type"] == "rewritten")
        .collect();
    let from: Vec<&str> = rewritten
        .iter()
        .map(|one| one["from"].as_str().unwrap())
        .collect();
    assert_eq!(from, ids);
    for one in rewritten {
        assert_eq!(
            (
                &one["snapshot"],
                &one["entries_removed"],
                &one["bytes_removed"]
            ),
            (&Value::Null, &2.into(), &(SECRET_BYTES + 21).into())
        );
    }
    assert_eq!(
        (
            &dry.last().unwrap()["made"],
            &dry.last().unwrap()["dry_run"]
        ),
        (&3.into(), &true.into())
    );
    assert_eq!(
        (listed(&world, &[]), world.pack_bytes()),
        (ids.clone(), before)
    );

    let done = world.lines(line).pop().unwrap();
    assert_eq!(
        (&done["made"], &done["forgotten"], &done["unchanged"]),
        (&3.into(), &3.into(), &0.into())
    );
    let list = world.json(["snapshots"]);
    let list = list.as_array().unwrap();
    let new = listed(&world, &[]);
    assert_eq!(new.len(), 3);
    assert!(new.iter().all(|id| !ids.contains(id)));
    assert_eq!(listed(&world, &["--forgotten"]), ids);
    for (one, day) in list.iter().zip(["2026-01-10", "2026-01-11", "2026-01-12"]) {
        assert_eq!(one["time"], format!("{day}T00:00:00Z"));
        assert_eq!(
            (&one["tags"][0], &one["host"]),
            (&day.into(), &"desk".into())
        );
        let files = &one["statistics"]["files"];
        assert_eq!(files, &3, "{one}");
    }
    assert_eq!(
        world
            .json(["find", "*secret.key"])
            .as_array()
            .unwrap()
            .len(),
        0
    );
    for (number, id) in new.iter().enumerate() {
        let target = world.restore(id, &format!("new{number}"));
        assert_same(&world.path(&format!("old{number}")), &target);
    }
    world.ok(["check", "--read-data"]);

    // A second run finds nothing to do, and says so.
    assert!(
        world
            .ok(line)
            .contains("nothing matches: no snapshot was changed")
    );
    assert_eq!(listed(&world, &[]), new);

    world.ok(["prune", "--max-unused", "0"]);
    let after = world.pack_bytes();
    assert!(
        after + SECRET_BYTES as u64 <= before,
        "{before} bytes of packs before, {after} after"
    );
    // Nothing is left that no snapshot needs, however small it is.
    let stats = world.json(["stats", "--history"]);
    let needed = stats["history"]["snapshots"].as_array().unwrap().iter();
    let needed: u64 = needed.map(|one| one["added_bytes"].as_u64().unwrap()).sum();
    assert_eq!(stats["chunk_bytes"], needed);
    assert_eq!(listed(&world, &["--forgotten"]), Vec::<String>::new());
    for (number, id) in new.iter().enumerate() {
        let target = world.restore(id, &format!("pruned{number}"));
        assert_same(&world.path(&format!("old{number}")), &target);
    }
    world.ok(["check", "--read-data"]);
    let gone = world.run(["undelete", &ids[0]]).expect(1);
    gone.says("a prune has taken it away")
        .says("larder snapshots --forgotten");

    // The next backup goes on from the newest of the new ones, and reads what is excluded no more.
    let next = world.backup(&["--exclude", "*secret.key"]);
    assert_eq!(
        (&next["parent"], &next["statistics"]["new"]),
        (&new[2].as_str().into(), &0.into())
    );
}

#[test]
fn what_was_forgotten_comes_back_byte_for_byte() {
    let (world, ids) = filled();
    world.restore(&ids[0], "old0");
    world.restore(&ids[1], "old1");
    world.ok(["forget", &ids[0], &ids[1]]);
    let dry = world.ok(["undelete", "--dry-run", &ids[0][..12]]);
    assert!(dry.contains("can be brought back"), "{dry}");
    assert_eq!(listed(&world, &[]), ids[2..]);
    // One by its name, and then all that the filter takes; what is back already is not doubled.
    let first = world.lines(["undelete", &ids[0][..12]]);
    assert_eq!(first[0]["message_type"], "undeleted");
    assert_eq!(first[0]["from"], ids[0]);
    let rest = world.lines(["undelete", "--host", "desk"]);
    assert_eq!(
        (
            &rest.last().unwrap()["made"],
            &rest.last().unwrap()["unchanged"]
        ),
        (&1.into(), &0.into())
    );
    let list = world.json(["snapshots"]);
    let times: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["time"].as_str().unwrap())
        .collect();
    assert_eq!(
        times,
        [
            "2026-01-10T00:00:00Z",
            "2026-01-11T00:00:00Z",
            "2026-01-12T00:00:00Z"
        ]
    );
    assert_eq!(first[0]["snapshot"], list[0]["id"]);
    for number in 0..2 {
        let target = world.restore(
            list[number]["id"].as_str().unwrap(),
            &format!("new{number}"),
        );
        assert_same(&world.path(&format!("old{number}")), &target);
    }
    // They are snapshots like any other: a prune keeps them, and a policy sees their times.
    world.ok(["prune", "--max-unused", "0"]);
    world.ok(["check", "--read-data"]);
    let kept = world.lines(["forget", "--keep-daily", "2", "--dry-run"]);
    assert_eq!(
        kept.last().unwrap()["forgotten"],
        serde_json::json!([list[0]["id"]])
    );
}

#[test]
fn one_snapshot_that_cannot_be_rewritten_does_not_keep_the_others() {
    let world = World::new();
    world.write("secret", "hidden");
    let mut ids = Vec::new();
    for (day, other) in [("2026-01-10", "a"), ("2026-01-11", ""), ("2026-01-12", "b")] {
        if !other.is_empty() {
            world.write(other, other);
        }
        let summary = world.backup(&["--time", day]);
        ids.push(summary["snapshot"].as_str().unwrap().to_owned());
        if !other.is_empty() {
            fs::remove_file(world.source().join(other)).unwrap();
        }
    }
    let done = world.run(["rewrite", "--exclude", "secret", "--host", "desk"]);
    done.expect(1).says(&format!("snapshot {} stays", ids[1]));
    // Of the second one nothing would be left; the others have new ids.
    let now = listed(&world, &[]);
    assert_eq!(now.len(), 3);
    assert!(
        now[0] != ids[0] && now[1] == ids[1] && now[2] != ids[2],
        "{now:?}"
    );
}

#[test]
fn a_pinned_snapshot_does_not_keep_the_others_from_being_rewritten() {
    let (world, ids) = filled();
    world.ok(["pin", &ids[1]]);
    for more in [&["--dry-run"][..], &[]] {
        let line = ["rewrite", "--exclude", "*secret.key", "--host", "desk"];
        let done = world.run([&line[..], more].concat()).expect(1);
        done.says(&format!("snapshot {} stays as it is", ids[1]));
    }
    let now = listed(&world, &[]);
    assert!(
        now[0] != ids[0] && now[1] == ids[1] && now[2] != ids[2],
        "{now:?}"
    );
    assert_eq!(
        world.json(["find", "secret.key"]).as_array().unwrap().len(),
        1
    );
}

#[test]
fn empty_filters_and_times_that_cannot_be_are_refused() {
    let (world, _) = filled();
    for list in ["", ",", "a,,b"] {
        world.run(["tag", "--tag", list, "--add", "z"]).expect(1);
    }
    world.run(["snapshots", "--host", ""]).expect(1);
    let early = ["backup", "--time", "1600-01-01"];
    run(world.command().args(early).arg(world.source()))
        .expect(1)
        .says("1677");
}

#[test]
fn what_is_lost_does_not_come_back_and_the_rest_does() {
    let (world, ids) = filled();
    world.ok(["forget", &ids[1]]);
    let before = world.objects("packs");
    world.write("letters/only", noise(9, 500_000));
    let own = world.backup(&["--time", "2026-01-13"]);
    let own = own["snapshot"].as_str().unwrap().to_owned();
    world.ok(["forget", &own]);
    for pack in world.objects("packs").keys() {
        if !before.contains_key(pack) {
            fs::remove_file(pack).unwrap();
        }
    }
    // Nodes would be found in the cache.
    fs::remove_dir_all(world.path("home/.cache")).unwrap();
    let run = world.run(["undelete", "--host", "desk"]).expect(1);
    assert!(
        run.stdout.contains(&format!("{} is back", &ids[1][..8])),
        "{run:?}"
    );
    run.says(&format!("{own} cannot be brought back"))
        .says("1 snapshot cannot be brought back");
    assert_eq!(listed(&world, &[]).len(), 3);
    world.run(["undelete", &own]).expect(1);
}

#[test]
fn what_cannot_be_rewritten_is_refused_before_anything_is_written() {
    let (world, ids) = filled();
    let refused = |line: &[&str], why: &str| {
        world.run(line).expect(1).says(why);
        assert_eq!(listed(&world, &[]), ids, "{line:?}");
        assert_eq!(listed(&world, &["--forgotten"]), Vec::<String>::new());
    };
    let missing = world.path("missing");
    let missing = missing.to_str().unwrap();
    for (line, why) in [
        (&["rewrite", "latest"][..], "--exclude"),
        (&["rewrite", "--exclude", "x"], "no snapshot was named"),
        (&["rewrite", "--exclude", "a[b", "latest"], "a[b"),
        (&["rewrite", "--exclude-file", missing, "latest"], "missing"),
        (
            &["rewrite", "--exclude", "x", "ffffffffffff"],
            "no snapshot",
        ),
        (
            &["rewrite", "--exclude", "x", "latest:/a"],
            "leave the path away",
        ),
        (
            &["rewrite", "--exclude", "x", "latest~9"],
            "only 3 snapshots",
        ),
        (
            &["rewrite", "--exclude", "*", "latest"],
            "forget it instead",
        ),
        (&["undelete", "latest"], "snapshots --forgotten"),
        (&["undelete"], "no snapshot was named"),
        (&["undelete", &ids[0]], "is not forgotten"),
        (&["undelete", "ffffffffffff"], "no forgotten snapshot"),
        (&["undelete", "nonsense!"], "nonsense!"),
    ] {
        refused(line, why);
    }
    world.ok(["pin", &ids[1]]);
    refused(
        &["rewrite", "--exclude", "secret.key", &ids[0], &ids[1]],
        "larder unpin",
    );
    // Beside the old ones, and of those that are named; -q says nothing.
    let line = ["rewrite", "--iexclude", "SECRET.*", "--keep-original", "-q"];
    assert_eq!(world.ok([&line[..], &[&ids[1], "latest~1"]].concat()), "");
    assert_eq!(listed(&world, &[]).len(), 4);
    assert_eq!(
        world.json(["find", "secret.key"]).as_array().unwrap().len(),
        3
    );
    // Again with the old one forgotten: the new one that is there will do.
    world.ok(["unpin", &ids[1]]);
    let again = world.ok(["rewrite", "--iexclude", "SECRET.*", &ids[1]]);
    assert!(again.contains("before, in "), "{again}");
    assert_eq!(listed(&world, &[]).len(), 3);
    assert_eq!(listed(&world, &["--forgotten"]), [ids[1].clone()]);
    world.ok(["check", "--read-data"]);
}
