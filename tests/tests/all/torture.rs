//! Real processes on one local repository: four that back up and two that forget and prune, killed and
//! stopped at moments that nobody chose. Whatever was reported and not forgotten is whole afterwards.
//!
//! `LARDER_SECONDS=600 cargo nextest run --release -p larder-tests torture` is the long form;
//! `LARDER_SEED` repeats a run's choices, as far as that is possible.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::program::{Run, World, noise, program, run, write_old};

/// Processes that back up, each a source and a host of its own.
const WRITERS: u64 = 4;
/// Processes that forget and prune.
const COLLECTORS: u64 = 2;
/// Seconds for which they are at work in CI.
const SECONDS: u64 = 120;
/// Snapshots of a host that forgetting keeps.
const KEPT: usize = 3;
/// Files of a source.
const FILES: u64 = 40;
/// Contents that there are: few, so that writers share chunks, and take up again what was pruned.
const CONTENTS: u64 = 60;
/// A signal comes within so many milliseconds, and a stopped process sleeps for at most so many.
const SIGNAL_MS: u64 = 400;
const SLEEP_MS: u64 = 3000;

/// What a source holds: the content of each file, by its number.
type Files = BTreeMap<String, u64>;

/// What everybody did.
#[derive(Default)]
struct Story {
    /// What was to be kept, by the tag of the attempt: `<writer>-<number>`.
    attempts: BTreeMap<(u64, u64), Files>,
    /// Attempts that were reported as done.
    reported: Vec<(u64, u64)>,
    kills: u64,
    stops: u64,
    packs_deleted: u64,
}

/// A stream of decisions.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 += 1;
        u64::from_le_bytes(noise(self.0, 8).try_into().unwrap()) % end
    }
}

/// A process that does not outlive this value.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What became of a process.
enum Ended {
    /// It ended by itself.
    Itself(Run),
    Killed,
}

/// Everybody's folder, and when to stop.
struct Scene {
    world: World,
    until: Instant,
    story: Mutex<Story>,
}

impl Scene {
    /// Gives the program for somebody: some share a cache, others have their own.
    fn command(&self, who: u64) -> Command {
        let mut command = self.world.command();
        if who % 2 == 1 {
            command.env("XDG_CACHE_HOME", self.world.path(&format!("cache{who}")));
        }
        command.env("LARDER_HOST", format!("host{who}"));
        command
    }

    /// Runs a command, and kills or stops it at a moment of its own.
    fn disturb(&self, command: &mut Command, chance: &mut Chance) -> Ended {
        let mut said = tempfile::tempfile_in(self.world.path("tmp")).unwrap();
        let mut complained = tempfile::tempfile_in(self.world.path("tmp")).unwrap();
        let child = command
            .stdout(Stdio::from(said.try_clone().unwrap()))
            .stderr(Stdio::from(complained.try_clone().unwrap()))
            .spawn()
            .unwrap();
        let mut child = Guarded(child);
        let pid = Pid::from_child(&child.0);
        let fate = chance.below(3);
        if fate > 0 {
            // The moment itself is what is random here; nothing waits for anything.
            std::thread::sleep(Duration::from_millis(chance.below(SIGNAL_MS)));
        }
        // A process that has ended and was not waited for still takes signals.
        if fate == 1 {
            kill_process(pid, Signal::KILL).unwrap();
        } else if fate == 2 {
            kill_process(pid, Signal::STOP).unwrap();
            std::thread::sleep(Duration::from_millis(chance.below(SLEEP_MS)));
            kill_process(pid, Signal::CONT).unwrap();
        }
        let status = child.0.wait().unwrap();
        let mut story = self.story.lock().unwrap();
        let Some(code) = status.code() else {
            story.kills += 1;
            return Ended::Killed;
        };
        story.stops += u64::from(fate == 2);
        let raw = read_back(&mut said);
        Ended::Itself(Run {
            code,
            stdout: String::from_utf8_lossy(&raw).into_owned(),
            stderr: String::from_utf8_lossy(&read_back(&mut complained)).into_owned(),
            raw,
        })
    }

    /// Backs a source up again and again.
    fn write(&self, who: u64, mut chance: Chance) {
        let source = self.world.path(&format!("source{who}"));
        let mut files = Files::new();
        for number in 0.. {
            if Instant::now() >= self.until {
                return;
            }
            edit(&source, &mut files, &mut chance);
            let mut story = self.story.lock().unwrap();
            story.attempts.insert((who, number), files.clone());
            drop(story);
            let mut command = self.command(who);
            command
                .args(["--json", "backup", "--checkpoint-entries", "12", "--tag"])
                .arg(format!("{who}-{number}"))
                .arg(&source);
            if let Ended::Itself(run) = self.disturb(&mut command, &mut chance)
                && is_done(&run)
            {
                assert!(run.summary()["snapshot"].is_string(), "{run:?}");
                self.story.lock().unwrap().reported.push((who, number));
            }
        }
    }

    /// Forgets and prunes again and again.
    fn collect(&self, who: u64, mut chance: Chance) {
        while Instant::now() < self.until {
            let mut command = self.command(who);
            command.args(["forget", "--group-by", "host", "--keep-last"]);
            command.arg(KEPT.to_string());
            if let Ended::Itself(run) = self.disturb(&mut command, &mut chance) {
                is_done(&run);
            }
            let mut command = self.command(who);
            command.args(["--json", "prune", "--patience", "1s", "--max-unused", "0"]);
            if chance.below(2) == 0 {
                command.arg("--wait");
            }
            if let Ended::Itself(run) = self.disturb(&mut command, &mut chance)
                && is_done(&run)
            {
                let deleted = run.summary()["packs_deleted"].as_u64().unwrap();
                self.story.lock().unwrap().packs_deleted += deleted;
            }
        }
    }

    /// Looks at all that is left.
    fn verify(&self) {
        let story = self.story.lock().unwrap();
        self.world.ok(["check", "--read-data"]);
        self.world
            .ok(["prune", "--patience", "0s", "--max-unused", "0"]);
        self.world.ok(["check", "--read-data"]);
        let mut listed = BTreeMap::new();
        for snapshot in self.world.json(["snapshots"]).as_array().unwrap() {
            let id = snapshot["id"].as_str().unwrap().to_owned();
            listed.insert(attempt_of(snapshot), id);
        }
        for (who, number) in &story.reported {
            let newer = listed.range((*who, number + 1)..(who + 1, 0)).count();
            assert!(
                listed.contains_key(&(*who, *number)) || newer >= KEPT,
                "{who}-{number} was reported, is gone, and only {newer} are newer"
            );
        }
        for ((who, number), id) in &listed {
            let source = self.world.path(&format!("source{who}"));
            let target = self.world.path("restored");
            let spec = format!("{id}:{}", source.display());
            let mut command = self.world.command();
            run(command.args(["restore", &spec, "--target"]).arg(&target)).expect(0);
            let expected = story.attempts[&(*who, *number)].iter();
            let expected: BTreeMap<String, Vec<u8>> = expected
                .map(|(name, content)| (name.clone(), content_of(*content)))
                .collect();
            let mut found = BTreeMap::new();
            files_below(&target, &mut String::new(), &mut found);
            assert!(found == expected, "{who}-{number} differs");
            fs::remove_dir_all(&target).unwrap();
        }
        println!(
            "{} attempts, {} reported, {} snapshots left, {} killed, {} stopped, {} packs deleted",
            story.attempts.len(),
            story.reported.len(),
            listed.len(),
            story.kills,
            story.stops,
            story.packs_deleted
        );
        assert!(story.kills > 5 && story.stops > 5 && story.reported.len() > 10);
        assert!(story.packs_deleted > 0 && listed.len() >= KEPT);
    }
}

/// Tells whether a run did what it should; one that others overtook asks to be run again.
fn is_done(run: &Run) -> bool {
    let was_overtaken = run.code == 1 && run.stderr.contains("again");
    assert!(run.code == 0 || was_overtaken, "{run:?}");
    run.code == 0
}

fn attempt_of(snapshot: &Value) -> (u64, u64) {
    let tag = snapshot["tags"][0].as_str().unwrap();
    let (who, number) = tag.split_once('-').unwrap();
    (who.parse().unwrap(), number.parse().unwrap())
}

fn content_of(number: u64) -> Vec<u8> {
    let length = if number.is_multiple_of(20) {
        300_000
    } else {
        4_000
    };
    noise(number, length + 10 * number as usize)
}

fn edit(source: &Path, files: &mut Files, chance: &mut Chance) {
    let changes = if files.is_empty() {
        FILES
    } else {
        chance.below(8)
    };
    for _ in 0..changes {
        let name = format!("d{}/f{:02}", chance.below(4), chance.below(FILES));
        let path = source.join(&name);
        if !files.is_empty() && chance.below(4) == 0 {
            if files.remove(&name).is_some() {
                fs::remove_file(path).unwrap();
            }
            continue;
        }
        let content = chance.below(CONTENTS);
        write_old(&path, &content_of(content));
        files.insert(name, content);
    }
}

fn files_below(folder: &Path, prefix: &mut String, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let mut name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            name.push('/');
            files_below(&entry.path(), &mut name, files);
        } else {
            files.insert(name, fs::read(entry.path()).unwrap());
        }
    }
}

fn read_back(file: &mut fs::File) -> Vec<u8> {
    use std::io::{Read as _, Seek as _};
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn number_of(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

#[test]
fn many_processes_are_killed_and_stopped_and_nothing_is_lost() {
    let _: PathBuf = program();
    let seconds = number_of("LARDER_SECONDS", SECONDS);
    let seed = number_of("LARDER_SEED", u64::from(std::process::id()));
    println!("LARDER_SECONDS={seconds} LARDER_SEED={seed}");
    let scene = Scene {
        world: World::new(),
        until: Instant::now() + Duration::from_secs(seconds),
        story: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for who in 0..WRITERS + COLLECTORS {
            let (scene, chance) = (&scene, Chance((seed + who) << 32));
            scope.spawn(move || match who < WRITERS {
                true => scene.write(who, chance),
                false => scene.collect(who, chance),
            });
        }
    });
    scene.verify();
}
