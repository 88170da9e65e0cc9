//! Damaged packs, from the outside: found, made known, healed from the living source, pruned away.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::program::{Run, World, assert_same, date_back, noise, run};

/// What happens to a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Deleted,
    Truncated,
    Flipped,
}

/// What a pack holds, by the number in its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data = 3,
    Tree = 4,
}

/// A world with two snapshots; the source has a list, a value out of line and many nodes, and only
/// the first snapshot has the file `gone`.
fn filled() -> (World, [String; 2]) {
    let world = World::new();
    for number in 0..1500 {
        let name = format!("d{}/f{number:04}", number % 7);
        world.write(&name, noise(number, 300 + number as usize % 900));
    }
    world.write("large", noise(5000, 3_000_000));
    sparse(&world.source().join("sparse"));
    world.write("d1/gone", noise(6000, 700_000));
    let first = backup(&world, &[]);
    fs::remove_file(world.source().join("d1/gone")).unwrap();
    world.write("d2/new", noise(7000, 200_000));
    let second = backup(&world, &[]);
    (world, [first, second])
}

/// Writes a file of so many runs of data between holes that its extents are a list.
fn sparse(path: &Path) {
    let file = fs::File::create(path).unwrap();
    for number in 0..40 {
        let bytes = noise(8000 + number, 4096);
        file.write_all_at(&bytes, number * (1 << 16)).unwrap();
    }
    file.set_len(41 << 16).unwrap();
    drop(file);
    date_back(path, 1_000_000_000);
}

#[track_caller]
fn backup(world: &World, arguments: &[&str]) -> String {
    let summary = world.backup(arguments);
    summary["snapshot"].as_str().unwrap().to_owned()
}

/// Gives the packs of a kind, the largest first.
fn packs(world: &World, kind: Kind) -> Vec<PathBuf> {
    let mut packs: Vec<(u64, PathBuf)> = world
        .objects("packs")
        .into_iter()
        .filter(|(path, _)| fs::read(path).unwrap()[9] == kind as u8)
        .map(|(path, bytes)| (bytes, path))
        .collect();
    packs.sort();
    packs.into_iter().rev().map(|(_, path)| path).collect()
}

fn harm(path: &Path, damage: Damage) {
    let bytes = fs::read(path).unwrap();
    match damage {
        Damage::Deleted => fs::remove_file(path).unwrap(),
        Damage::Truncated => fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
        Damage::Flipped => {
            let mut bytes = bytes;
            let middle = bytes.len() / 3;
            bytes[middle] ^= 0x10;
            fs::write(path, bytes).unwrap();
        }
    }
}

/// What is in the local cache is not what is in the repository.
fn drop_cache(world: &World) {
    let cache = world.path("home/.cache");
    if cache.exists() {
        fs::remove_dir_all(cache).unwrap();
    }
}

fn check(world: &World, arguments: &[&str]) -> Run {
    let mut command = world.command();
    run(command.args(["--json", "check"]).args(arguments))
}

/// Gives the snapshots that suffer from findings that cost data.
fn suffering(run: &Run) -> BTreeSet<String> {
    let lines = run.lines();
    let losses = lines.iter().filter(|line| line["severity"] == "loss");
    let snapshots = losses.flat_map(|line| line["snapshots"].as_array().unwrap());
    snapshots
        .map(|id| id.as_str().unwrap().to_owned())
        .collect()
}

#[track_caller]
fn assert_restores(world: &World, name: &str) {
    let target = world.restore("latest", name);
    assert_same(&world.source(), &target);
    fs::remove_dir_all(target).unwrap();
}

/// The whole way of one damaged pack.
fn cycle(damage: Damage, kind: Kind) {
    let (world, [first, second]) = filled();
    let pack = packs(&world, kind).remove(0);
    harm(&pack, damage);
    drop_cache(&world);

    let found = check(&world, &["--read-data"]).expect(4);
    let summary = found.summary();
    assert_eq!(summary["new_suspects"], 1, "{summary}");
    assert_eq!(summary["not_recorded"], Value::Null);
    assert!(suffering(&found).is_subset(&[first.clone(), second].into()));
    // Known once is known.
    assert_eq!(check(&world, &[]).summary()["new_suspects"], 0);

    drop_cache(&world);
    backup(&world, &[]);
    drop_cache(&world);
    assert_restores(&world, "healed");
    let left = check(&world, &["--read-data"]);
    let old = BTreeSet::from([first.clone()]);
    match left.code {
        0 | 5 => assert_eq!(suffering(&left), BTreeSet::new()),
        4 => assert_eq!(suffering(&left), old, "{left:?}"),
        _ => panic!("{left:?}"),
    }
    // The next backup of the same writes nothing anew.
    let summary = world.backup(&[]);
    assert_eq!(summary["statistics"]["chunks_added"], 0, "{summary}");

    // A lost node says nothing of what is below it; all else is pruned beside the damage.
    let prune = ["prune", "--max-unused", "0"];
    let pruned = world.run(prune);
    if kind == Kind::Tree && left.code == 4 {
        let pruned = pruned.expect(1).says(&first);
        assert!(pruned.stderr.contains("forget the snapshots"), "{pruned:?}");
    } else {
        pruned.expect(0);
        drop_cache(&world);
        assert_restores(&world, "pruned");
        let again = check(&world, &["--read-data"]);
        assert_eq!(suffering(&again), suffering(&left));
    }

    world.ok(["forget", &first, "--allow-empty"]);
    world.ok(prune);
    world.ok(prune);
    assert!(!pack.exists(), "{damage:?} {kind:?}");
    drop_cache(&world);
    world.ok(["check", "--read-data"]);
    assert_restores(&world, "last");
}

#[test]
fn a_deleted_data_pack_is_healed() {
    cycle(Damage::Deleted, Kind::Data);
}

#[test]
fn a_truncated_data_pack_is_healed() {
    cycle(Damage::Truncated, Kind::Data);
}

#[test]
fn a_data_pack_with_a_flipped_byte_is_healed() {
    cycle(Damage::Flipped, Kind::Data);
}

#[test]
fn a_deleted_tree_pack_is_healed() {
    cycle(Damage::Deleted, Kind::Tree);
}

#[test]
fn a_truncated_tree_pack_is_healed() {
    cycle(Damage::Truncated, Kind::Tree);
}

#[test]
fn a_tree_pack_with_a_flipped_byte_is_healed() {
    cycle(Damage::Flipped, Kind::Tree);
}

#[test]
fn every_pack_may_go_and_the_next_backup_brings_all_of_it_back() {
    for has_cache in [true, false] {
        for (damage, force) in [
            (Damage::Deleted, &[][..]),
            (Damage::Truncated, &["--skip-if-unchanged"]),
            (Damage::Deleted, &["--force"]),
        ] {
            let (world, _) = filled();
            for kind in [Kind::Data, Kind::Tree] {
                packs(&world, kind)
                    .iter()
                    .for_each(|pack| harm(pack, damage));
            }
            if !has_cache {
                drop_cache(&world);
            }
            let mut command = world.command();
            let command = command.arg("backup").args(force).arg(world.source());
            run(command).expect(0).says("packs are missing");
            drop_cache(&world);
            assert_restores(&world, "healed");
            let code = check(&world, &["--read-data"]).code;
            assert!([0, 4, 5].contains(&code), "{code}");
        }
    }
}

#[test]
fn a_check_that_may_not_write_says_so_and_checks_all_the_same() {
    let (world, _) = filled();
    harm(&packs(&world, Kind::Data)[0], Damage::Flipped);
    let before = world.objects("");
    let found = check(&world, &["--read-data", "--read-only"]).expect(4);
    assert_eq!(found.summary()["new_suspects"], 0);
    assert_eq!(world.objects(""), before);
    // A file in the way of every collector record.
    fs::write(world.path("repo/gc"), "").unwrap();
    let found = check(&world, &["--read-data"]).expect(4);
    assert!(found.summary()["not_recorded"].is_string(), "{found:?}");
    let told = found.lines();
    let told = told.iter().filter(|line| line["message_type"] == "warning");
    let told: Vec<&str> = told.map(|line| line["message"].as_str().unwrap()).collect();
    assert!(
        told.iter()
            .any(|text| text.contains("could not be recorded")),
        "{told:?}"
    );
}

#[test]
fn a_prune_beside_damage_says_so_once_and_removes_all_else() {
    for damage in [Damage::Deleted, Damage::Truncated, Damage::Flipped] {
        let (world, [first, _]) = filled();
        // Unneeded: a snapshot of other files that is forgotten.
        let other = world.path("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("x"), noise(9000, 2_000_000)).unwrap();
        let before: BTreeSet<PathBuf> = world.objects("packs").into_keys().collect();
        world.ok(["backup".as_ref(), other.as_os_str()]);
        let after: BTreeSet<PathBuf> = world.objects("packs").into_keys().collect();
        let dead: Vec<&PathBuf> = after.difference(&before).collect();
        world.ok(["forget", "latest", "--allow-empty"]);
        world.ok(["forget", &first, "--allow-empty"]);
        let large = before
            .iter()
            .max_by_key(|path| fs::metadata(path).unwrap().len())
            .unwrap();
        harm(large, damage);
        let pruned = world.run(["prune", "--max-unused", "0"]).expect(0);
        let told = pruned.stderr.matches("missing or damaged").count();
        let is_found = damage != Damage::Flipped || !pruned.stderr.is_empty();
        assert_eq!(told, usize::from(is_found), "{pruned:?}");
        world.ok(["prune", "--max-unused", "0"]);
        assert!(dead.iter().all(|path| !path.exists()), "{damage:?}");
        let summary = world.lines(["prune", "--max-unused", "0", "--dry-run"]);
        let summary = summary.last().unwrap();
        assert_eq!(summary["plan"]["totals"]["freed_bytes"], 0, "{summary}");
        backup(&world, &[]);
        assert_restores(&world, "healed");
    }
}

#[test]
fn a_snapshot_with_lost_parts_is_neither_brought_back_nor_rewritten() {
    for damage in [Damage::Deleted, Damage::Truncated] {
        let (world, [first, second]) = filled();
        packs(&world, Kind::Data)
            .iter()
            .for_each(|pack| harm(pack, damage));
        world
            .run(["rewrite", "--exclude", "f0001", &second])
            .expect(1)
            .says("stays as it is");
        world.ok(["forget", &first]);
        world
            .run(["undelete", &first])
            .expect(1)
            .says("cannot be brought back")
            .says("packs/");
        let run = world.run(["undelete", "--dry-run", &first]).expect(1);
        run.says("cannot be brought back");
    }
}

#[test]
fn what_only_a_damaged_segment_names_is_put_in_anew_when_its_pack_is_damaged_too() {
    for damage in [Damage::Deleted, Damage::Truncated, Damage::Flipped] {
        let world = World::new();
        for number in 0..12 {
            world.write(&format!("f{number:02}"), noise(number, 3000));
        }
        backup(&world, &["--ignore-ctime"]);
        let (segments, data) = (world.objects("index"), packs(&world, Kind::Data));
        // Few files stand in one leaf, which the second backup writes anew.
        world.write("new", noise(100, 500));
        backup(&world, &["--ignore-ctime"]);
        harm(&data[0], damage);
        for (segment, _) in segments {
            harm(&segment, Damage::Flipped);
        }
        drop_cache(&world);
        backup(&world, &["--ignore-ctime"]);
        let restored = world.restore("latest", "restored");
        assert_same(&world.source(), &restored);
    }
}
