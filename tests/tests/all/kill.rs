//! SIGKILL and SIGINT at moments that nobody chose: the repository stays whole, and the next run
//! goes on from the checkpoint.
//!
//! `LARDER_KILLS=200 cargo nextest run --release -p larder-tests kill` is the long form; 20 kills
//! are the default. `LARDER_SEED` repeats a run's choice of moments, as far as that is possible.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::program::{World, assert_same, date_back, noise, run};

/// Files of the source, in folders of a hundred.
const FILES: u64 = 2000;

/// Small and large files whose compression takes a while, so that there is something to interrupt.
fn fill(world: &World, seed: u64) -> u64 {
    let mut bytes = 0;
    for number in 0..FILES {
        let length = if number % 50 == 0 { 300_000 } else { 2_000 };
        // Half a byte of chance in each byte: zstd finds little, and looks long for it.
        let mut content = noise(seed * FILES + number, length);
        content
            .iter_mut()
            .for_each(|byte| *byte = b'a' + (*byte & 15));
        bytes += content.len() as u64;
        let name = format!("d{:02}/f{number:04}", number / 100);
        world.write(&name, content);
        // Sizes repeat, and ctime is not looked at.
        date_back(&world.source().join(name), 1_100_000_000 + seed);
    }
    bytes
}

fn backup(world: &World) -> Command {
    let mut command = world.command();
    command
        .args(["--json", "backup", "--ignore-ctime", "--compression", "19"])
        .args(["--checkpoint-entries", "256"])
        .arg(world.source());
    command
}

/// Gives the newest checkpoint that no later snapshot replaced, if there is one.
fn checkpoint(world: &World) -> Option<Value> {
    let list = world.json(["snapshots", "--partial"]);
    let list = list.as_array().unwrap();
    let key = |one: &&Value| one["end"].as_str().unwrap().to_owned();
    let newest = list.iter().max_by_key(key)?;
    newest["partial"].as_bool().unwrap().then(|| newest.clone())
}

fn number_of(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

/// Gives the bytes that a checkpoint has of files which were still being read.
fn half_read_bytes(world: &World, id: &Value) -> u64 {
    let listed = world.run(["--json", "ls", id.as_str().unwrap(), "--recursive"]);
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    let half = listed.as_array().unwrap().iter();
    let half = half.filter(|one| one["unreadable"] == true);
    half.map(|one| one["size"].as_u64().unwrap()).sum()
}

#[test]
fn killed_at_random_moments_nothing_is_lost() {
    let kills = number_of("LARDER_KILLS", 20);
    let seed = number_of("LARDER_SEED", u64::from(std::process::id()));
    println!("LARDER_KILLS={kills} LARDER_SEED={seed}");
    let world = World::new();
    let mut generation = 0;
    let mut total_bytes = fill(&world, generation);
    let before = writes(&world);
    run(&mut backup(&world)).expect(0);
    let whole_run = writes(&world) - before;
    println!("a whole run writes {whole_run} objects");
    world.restore("latest", "first");
    assert_same(&world.source(), &world.path("first"));
    let first = world.json(["snapshots"])[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let (mut late, mut resumed) = (0, 0);
    // What a run has saved as it is, the next one finds unchanged.
    let mut is_saved = true;
    for kill in 0..kills {
        let moment = u64::from_le_bytes(noise(seed + kill, 8).try_into().unwrap());
        let mut nth = 1 + moment % whole_run;
        loop {
            if is_saved {
                generation += 1;
                total_bytes = fill(&world, generation).max(total_bytes);
            }
            let was_killed = kill_at(&world, nth, Duration::from_micros(moment % 30_000));
            world.ok(["check", "--read-data"]);
            is_saved = !was_killed;
            if was_killed {
                break;
            }
            // What goes on from a checkpoint writes less. The first write is never the last.
            assert!(nth > 1, "a backup cannot be killed");
            nth /= 2;
            late += 1;
        }
        if kill % 2 == 0 {
            // The next one may be killed too, and goes on from this one's checkpoint then.
            continue;
        }
        let left = checkpoint(&world);
        let half = left
            .as_ref()
            .map(|left| half_read_bytes(&world, &left["id"]));
        let next = run(&mut backup(&world)).expect(0).summary();
        is_saved = true;
        if let Some(left) = left {
            resumed += 1;
            assert_eq!(next["resumed_from"], left["id"], "{next}");
            let had = left["statistics"]["bytes"].as_u64().unwrap();
            let had = had - half.unwrap();
            let read = next["statistics"]["bytes_read"].as_u64().unwrap();
            assert!(
                read <= total_bytes - had,
                "{read} of {total_bytes} bytes read, {had} were there: {next}"
            );
        }
        if kill % 4 == 1 {
            assert_same(&world.source(), &world.restore("latest", "next"));
            fs::remove_dir_all(world.path("next")).unwrap();
            assert_same(&world.path("first"), &world.restore(&first, "again"));
            fs::remove_dir_all(world.path("again")).unwrap();
        }
    }
    assert_same(&world.path("first"), &world.restore(&first, "again"));
    assert!(kills < 20 || resumed > 0, "no kill left a checkpoint");
    println!(
        "{kills} backups were killed, {late} more had ended; {resumed} went on from a checkpoint"
    );
}

/// Kills a backup some time after it has written so many objects; tells whether it was still running.
fn kill_at(world: &World, nth: u64, later: Duration) -> bool {
    let before = writes(world);
    let mut child = backup(world)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while child.try_wait().unwrap().is_none() && writes(world) < before + nth {
        std::thread::sleep(Duration::from_millis(1));
    }
    // The moment itself is what is random here; nothing waits for anything.
    std::thread::sleep(later);
    child.kill().unwrap();
    !child.wait().unwrap().success()
}

/// Counts what was written to the repository.
fn writes(world: &World) -> u64 {
    fn files(folder: &Path) -> u64 {
        // What is renamed meanwhile may be missed, and is counted the next time.
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let count = |entry: fs::DirEntry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&entry.path()),
            _ => 1,
        };
        entries.map(count).sum()
    }
    files(&world.path("repo"))
}

#[test]
fn an_interrupted_backup_ends_with_130_and_the_next_goes_on() {
    interrupt(|pipe| Some(fs::File::options().write(true).open(pipe).unwrap()));
}

#[test]
fn a_pipe_that_nobody_writes_to_does_not_keep_an_interrupted_backup() {
    interrupt(|_| None);
}

/// Interrupts a backup that cannot get past a pipe; `open` may hold that open for writing.
fn interrupt(open: impl FnOnce(&Path) -> Option<fs::File>) {
    let world = World::new();
    for number in 0..2000 {
        let name = if number < 500 { "a" } else { "z" };
        world.write(&format!("{name}{number:04}"), noise(number, 1000));
    }
    let pipe = world.source().join("m");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let source = world.source();
    let mut command = world.command();
    command
        .args(["--json", "backup", "--read-special", "--ignore-ctime"])
        .args(["--checkpoint-entries", "256"])
        .arg(&source);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Whoever holds the pipe does so until the backup has ended: nothing behind it can be in.
    let mut writer = open(&pipe);
    if let Some(writer) = &mut writer {
        writer.write_all(b"through the pipe").unwrap();
    }
    // What comes before the pipe is enough for a checkpoint, and needs nothing from it.
    let cells = world.path("repo").join("snapshots");
    let has_cell = || fs::read_dir(&cells).is_ok_and(|mut found| found.next().is_some());
    for _ in 0..60_000 {
        if has_cell() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let ended = child.wait_with_output().unwrap();
    drop(writer);
    assert_eq!(
        ended.status.code(),
        Some(130),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
    let left = checkpoint(&world).expect("no checkpoint");
    let had = left["statistics"]["files"].as_u64().unwrap();
    assert!((255..=500).contains(&had), "{left}");
    world.ok(["check", "--read-data"]);
    fs::remove_file(&pipe).unwrap();
    let next = world.backup(&["--ignore-ctime"]);
    assert_eq!(next["resumed_from"], left["id"], "{next}");
    let read = next["statistics"]["bytes_read"].as_u64().unwrap();
    assert_eq!(read, (2000 - had) * 1000, "{next}");
    assert_same(&source, &world.restore("latest", "target"));
    assert!(checkpoint(&world).is_none());
}
