//! The figures of `stats`, against what the files and the repository's folder say themselves.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::program::{World, noise, run};

/// Text that compresses well and never repeats: what repeats within a file may be deduplicated,
/// and whether it is depends on the chunker's key.
fn text(lines: u64) -> Vec<u8> {
    let line = |number| format!("line {number:06} of a long and dull log\n");
    (0..lines).map(line).collect::<String>().into_bytes()
}

/// Files of the source as they are now: their contents.
fn contents(world: &World) -> Vec<Vec<u8>> {
    let files = fs::read_dir(world.source()).unwrap();
    files
        .map(|file| fs::read(file.unwrap().path()).unwrap())
        .collect()
}

fn number(value: &Value, name: &str) -> u64 {
    let found = value[name].as_u64();
    found.unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// Fails unless a figure is what was measured, or a little more: nodes and padding come on top.
#[track_caller]
fn assert_about(found: u64, measured: u64, what: &str) {
    let most = measured + measured / 20 + 40_000;
    assert!(
        (measured..=most).contains(&found),
        "{what}: {found}, and {measured} was measured"
    );
}

#[test]
fn sums_and_ratios_are_those_of_the_files_and_the_folder() {
    let world = World::new();
    world.write("twice", noise(1, 600_000));
    world.write("again", noise(1, 600_000));
    world.write("log", text(100_000));
    let (mut restored, mut distinct) = (0, BTreeSet::new());
    for day in 0..4 {
        world.write("daily", noise(10 + day, 300_000));
        world.backup(&["--time", &format!("2026-01-1{day}")]);
        for content in contents(&world) {
            restored += content.len() as u64;
            distinct.insert(content);
        }
    }
    let distinct_bytes: u64 = distinct.iter().map(|content| content.len() as u64).sum();
    let stats = world.json(["stats"]);
    assert_eq!(
        (number(&stats, "snapshots"), number(&stats, "entries")),
        (4, 20)
    );
    assert_eq!(number(&stats, "restore_bytes"), restored);
    assert_about(number(&stats, "chunk_bytes"), distinct_bytes, "chunks");
    let (packs, all) = (world.objects("packs"), world.objects(""));
    assert_eq!(
        (number(&stats, "packs"), number(&stats, "objects")),
        (packs.len() as u64, all.len() as u64)
    );
    assert_eq!(number(&stats, "pack_bytes"), packs.values().sum::<u64>());
    assert_eq!(number(&stats, "stored_bytes"), all.values().sum::<u64>());
    // What there was at a time is what one snapshot has.
    let early = world.json(["stats", "--at", "2026-01-11 12:00"]);
    let of_one = (number(&early, "snapshots"), number(&early, "entries"));
    assert_eq!(of_one, (1, 5));
    assert_eq!(number(&early, "restore_bytes") * 4, restored);
    assert_eq!(number(&early, "pack_bytes"), number(&stats, "pack_bytes"));
    assert!(
        !world
            .ok(["stats", "--at", "2026-01-11"])
            .contains("deduplication")
    );
    let none = world.run(["stats", "--at", "2026-01-01"]);
    assert!(none.code != 0, "{none:?}");
    // A person sees the ratios; the log compresses well, and the noise does not shrink.
    let shown = world.ok(["stats"]);
    let ratio = |name: &str| -> f64 {
        let line = shown.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let expected = restored as f64 / distinct_bytes as f64;
    assert!(
        (ratio("deduplication") / expected - 1.0).abs() < 0.03,
        "{shown}"
    );
    let expected = distinct_bytes as f64 / world.pack_bytes() as f64;
    assert!(
        (ratio("compression") / expected - 1.0).abs() < 0.03,
        "{shown}"
    );
    // What the filter takes is counted; ratios of the whole would be wrong beside it.
    let narrow = world.json(["stats", "--host", "nobody"]);
    assert_eq!(number(&narrow, "restore_bytes"), 0);
    assert_eq!(number(&narrow, "pack_bytes"), number(&stats, "pack_bytes"));
    let shown = world.ok(["stats", "--host", "desk"]);
    assert!(!shown.contains("deduplication"), "{shown}");
}

#[test]
fn what_a_snapshot_alone_needs_is_what_forgetting_it_frees() {
    let world = World::new();
    world.write("always", noise(1, 800_000));
    let sizes = [400_000, 700_000, 250_000];
    for (day, size) in sizes.into_iter().enumerate() {
        world.write("daily", noise(10 + day as u64, size));
        if day == 1 {
            world.write("brief", noise(20, 500_000));
        }
        world.backup(&["--time", &format!("2026-01-1{day}")]);
        if day == 1 {
            fs::remove_file(world.source().join("brief")).unwrap();
        }
    }
    let stats = world.json(["stats", "--history"]);
    let list = stats["history"]["snapshots"].as_array().unwrap().clone();
    // Growth: what was there before each backup, and after it.
    let added: Vec<u64> = list.iter().map(|one| number(one, "added_bytes")).collect();
    for (found, expected) in added.iter().zip([1_200_000, 1_200_000, 250_000]) {
        assert_about(*found, expected, "added");
    }
    assert_eq!(added.iter().sum::<u64>(), number(&stats, "chunk_bytes"));
    for (day, one) in list.iter().enumerate() {
        let id = one["id"].as_str().unwrap();
        let unique = sizes[day] + if day == 1 { 500_000 } else { 0 };
        assert_about(number(one, "unique_bytes"), unique as u64, "unique");
        // The proof of the pudding, on a copy with a home of its own.
        let copy = World::bare();
        for name in ["repo", "key"] {
            let _ = fs::remove_file(copy.path(name));
            let copied = Command::new("cp")
                .arg("-a")
                .args([world.path(name), copy.path(name)])
                .status();
            assert!(copied.unwrap().success());
        }
        let before = copy.pack_bytes();
        assert_eq!(before, world.pack_bytes());
        copy.ok(["forget", id, "--prune", "--max-unused", "0"]);
        let freed = before - copy.pack_bytes();
        let told = number(one, "unique_stored_bytes");
        assert!(
            told.abs_diff(freed) < freed / 20 + 40_000,
            "day {day}: {told} told, {freed} freed"
        );
        run(copy.command().args(["check", "--read-data"])).expect(0);
    }
    // Once the others are forgotten, what is not needed shows.
    let ids: Vec<&str> = list.iter().map(|one| one["id"].as_str().unwrap()).collect();
    world.ok(["forget", ids[0], ids[1]]);
    let after = world.json(["stats", "--history"]);
    let needed = number(&after["history"], "needed_stored_bytes");
    assert_about(needed, 1_050_000, "needed");
    assert_eq!(world.pack_bytes(), number(&after, "pack_bytes"));
    // What a prune deleted counts no more, although segments name it for a while.
    world.ok(["prune", "--max-unused", "0"]);
    let pruned = world.json(["stats"]);
    assert_about(
        number(&pruned, "chunk_bytes"),
        1_050_000,
        "chunks that are left",
    );
    assert_eq!(world.pack_bytes(), number(&pruned, "pack_bytes"));
    let shown = world.ok(["stats", "--history"]);
    assert!(
        shown.contains("needed of the packs") && shown.contains(&ids[2][..8]),
        "{shown}"
    );
}
